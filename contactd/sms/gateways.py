"""The gateways by the name that the settings give them: each one module and one line here.

A provider's library is loaded only if its gateway is configured: some take 40 MB.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from contactd.clock import Clock
from contactd.errors import ConfigurationError
from contactd.settings import Settings
from contactd.sms.gateway import Inbox, SmsGateway
from contactd.sms.sending import Way
from contactd.sms.sip import Bookmark, SendAction, SipGateway


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What a gateway may need of the installation."""

    settings: Settings
    inbox: Inbox
    clock: Clock
    pbx_texts: Callable[[str], SendAction]  # of a PBX, by its name
    bookmark: Callable[[str], Bookmark]  # by what is read


def _log(site: Site) -> SmsGateway:
    from contactd.sms.log import LogGateway

    return LogGateway(site.settings.sms.log, site.clock)


def _aliyun(site: Site) -> SmsGateway:
    from contactd.sms.aliyun import AliyunGateway

    return AliyunGateway(site.settings.sms.aliyun, site.inbox, site.clock)


def _smpp(site: Site) -> SmsGateway:
    from contactd.sms.smpp import SmppGateway

    return SmppGateway(site.settings.sms.smpp, site.inbox, site.clock)


def _sip(site: Site) -> SmsGateway:
    settings = site.settings.sms.sip
    return SipGateway(
        settings, site.inbox, site.clock,
        send_action=site.pbx_texts(settings.pbx), bookmark=site.bookmark(f"{settings.pbx}/texts"),
    )  # fmt: skip


def _twilio(site: Site) -> SmsGateway:
    from contactd.sms.twilio import TwilioGateway

    settings = site.settings
    return TwilioGateway(settings.sms.twilio, site.inbox, site.clock, settings.http.public_url)


GATEWAYS: Final[Mapping[str, Callable[[Site], SmsGateway]]] = {
    "aliyun": _aliyun,
    "log": _log,
    "sip": _sip,
    "smpp": _smpp,
    "twilio": _twilio,
}


def ways(site: Site) -> list[Way]:
    """Return the gateways that are configured, in their order.

    Raises:
        ConfigurationError: one of them refuses its settings.
    """
    sms = site.settings.sms
    if unknown := [name for name in sms.gateways if name not in GATEWAYS]:
        raise ConfigurationError(f"sms.gateways: there is no {', '.join(unknown)}")
    return [Way(gateway=GATEWAYS[name](site), settings=getattr(sms, name)) for name in sms.gateways]
