"""The gateways by the name that the settings give them."""

from collections.abc import Callable, Mapping
from typing import Final

from contactd.clock import Clock
from contactd.routing.notify import Notifier
from contactd.settings import SmsSettings
from contactd.sms.log import LogTexts


def _log(settings: SmsSettings, clock: Clock) -> LogTexts:
    return LogTexts(clock, keep=settings.keep, path=settings.log_file)


GATEWAYS: Final[Mapping[str, Callable[[SmsSettings, Clock], Notifier]]] = {"log": _log}


def gateway(settings: SmsSettings, clock: Clock) -> Notifier | None:
    """Return the gateway that is configured; None: this installation sends no texts."""
    return GATEWAYS[settings.gateway](settings, clock) if settings.gateway else None
