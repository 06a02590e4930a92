"""Why a text was not delivered, by the code of its provider: what that means and what to do.

Message ids, translated where they are shown. A code that is not here is shown as it is: over SMPP
each carrier has its own.
"""

from collections.abc import Mapping
from typing import Final

from contactd.web.words import N_

_OFF: Final = N_("the telephone is off or out of reach: try again later, or call")
_FULL: Final = N_("the telephone could not take it, its memory may be full: call")
_NOBODY: Final = N_("there is no such number: correct it in the desk file")
_NO_MOBILE: Final = N_("this number takes no texts, e.g. a landline: add a mobile number")
_STOPPED: Final = N_("the recipient wants no texts: call, or write a mail")
_WORDS: Final = N_("the carrier stopped it for its words: say it in others, without links")
_BLOCKED: Final = N_("the carrier stopped it on the way: call, or write a mail")
_TOO_MANY: Final = N_("too many texts to this number: try again tomorrow, or call")
_NO_REASON: Final = N_("the carrier gives no reason: try again, or call")
_ACCOUNT: Final = N_("the provider has stopped our account: see its balance and notices there")
_SENDER: Final = N_("our sender is not registered with the carriers: do that at the provider")
_CHANNEL: Final = N_("the provider’s way to this carrier is closed: try again later")
_SETTINGS: Final = N_("signature or template do not fit: see them at the provider")

TROUBLES: Final[Mapping[str, Mapping[str, str]]] = {  # by gateway and code
    # Source: Twilio's "Error and Warning Dictionary", https://www.twilio.com/docs/api/errors
    "twilio": {
        "21610": _STOPPED,
        "21614": _NO_MOBILE,
        "30001": _TOO_MANY,  # more than the account may send
        "30002": _ACCOUNT,
        "30003": _OFF,
        "30004": _BLOCKED,
        "30005": _NOBODY,
        "30006": _NO_MOBILE,
        "30007": _WORDS,
        "30008": _NO_REASON,
        "30022": _TOO_MANY,
        "30034": _SENDER,
    },
    # Source: the receipts' codes in help.aliyun.com/document_detail/101346.html. One of them has a
    # slip of the pen.
    "aliyun": {
        "CONTENT_ERROR": _SETTINGS,
        "CONTENT_KEYWORD": _WORDS,
        "INVALID_NUMBER": _NOBODY,
        "IS_CLOSE": _CHANNEL,
        "MOBILE_ACCOUNT_ABNORMAL": _NOBODY,
        "MOBILE_IN_BLACK": _STOPPED,
        "MOBILE_NOT_ON_SERVICE": _OFF,
        "MOBILE_SEND_LIMIT": _TOO_MANY,
        "MOBILE_TERMINAL_ERROR": _FULL,
        "MOBLLE_TERMINAL_ERROR": _FULL,
        "PARAMS_ILLEGAL": _SETTINGS,
        "SP_UNKNOWN_ERROR": _NO_REASON,
        "USER_REJECT": _STOPPED,
    },
}


def trouble(gateway: str, code: str) -> str:
    """Return what a provider's code means and what to do, "" if nobody knows."""
    return TROUBLES.get(gateway, {}).get(code, "")
