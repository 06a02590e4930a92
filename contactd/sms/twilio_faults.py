"""What Twilio's refusals mean: whether, and by whom, a text may be sent again (pure).

Twilio warns that its codes change ("recommend avoiding writing programmatic logic based on error
code fields", changelog of 10 July 2024): a code that is not known here leaves the decision to the
HTTP status.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Final

from contactd.errors import ContactdError, PermanentFailure, TemporaryFailure
from contactd.routing.notify import Busy, SendUnknown
from contactd.sms.gateway import Blocked, Unroutable


class Fate(Enum):
    """What becomes of the text: the failure to raise."""

    BUSY = Busy
    TEMPORARY = TemporaryFailure
    UNKNOWN = SendUnknown
    UNROUTABLE = Unroutable
    BLOCKED = Blocked
    PERMANENT = PermanentFailure


_CREDENTIALS: Final = "see sms.twilio.account_sid and sms.twilio.auth_token"
_ACCOUNT: Final = "the account is not active: see its balance and notices in Twilio's console"
_SENDER: Final = "see sms.twilio.sender: a number or messaging service of this account"

# Source: Twilio's "Error and Warning Dictionary", https://www.twilio.com/docs/api/errors/<code>, as
# of November 2026. The text is for the operator: what to do about it, "" if nothing can be done.
CODES: Final[Mapping[int, tuple[Fate, str]]] = {
    # Too many. A request that got 429 "is never processed and is always safe to retry" (20429).
    20429: (Fate.BUSY, ""),
    14107: (Fate.BUSY, ""),  # more than 30 texts between two numbers within 30 s
    21611: (Fate.BUSY, ""),  # the sender's queue is ten hours long
    30001: (Fate.BUSY, ""),  # queue overflow
    30022: (Fate.BUSY, ""),  # the carrier's limit for the sender
    # Ours to mend: the text may go out later, or by another gateway.
    20003: (Fate.TEMPORARY, _CREDENTIALS),
    20404: (Fate.TEMPORARY, _CREDENTIALS),  # there is no such account
    10001: (Fate.TEMPORARY, _ACCOUNT),
    20005: (Fate.TEMPORARY, _ACCOUNT),
    30002: (Fate.TEMPORARY, _ACCOUNT),
    63038: (Fate.TEMPORARY, "the account's limit of texts a day is reached: ask Twilio for more"),
    60728: (Fate.TEMPORARY, "the account's limit of texts an hour is reached: ask Twilio for more"),
    21212: (Fate.TEMPORARY, _SENDER),  # it is no number
    21603: (Fate.TEMPORARY, _SENDER),  # it is missing
    21659: (Fate.TEMPORARY, _SENDER),  # it is none of Twilio's
    21660: (Fate.TEMPORARY, _SENDER),  # it is another account's
    21661: (Fate.TEMPORARY, _SENDER),  # it cannot send texts
    21701: (Fate.TEMPORARY, _SENDER),  # there is no such messaging service
    21703: (Fate.TEMPORARY, _SENDER),  # the messaging service has no senders
    21609: (Fate.TEMPORARY, "see http.public_url: Twilio cannot call it"),
    # Not by Twilio, or not from this sender.
    21408: (Fate.UNROUTABLE, "allow the country in Twilio's console (Geo permissions)"),
    21606: (Fate.UNROUTABLE, ""),  # the sender cannot reach this destination
    21608: (Fate.UNROUTABLE, "a trial account reaches verified numbers only"),
    21612: (Fate.UNROUTABLE, ""),  # no route between the two numbers
    21214: (Fate.UNROUTABLE, ""),  # cannot be reached
    21614: (Fate.UNROUTABLE, ""),  # no mobile number, as far as Twilio knows
    21635: (Fate.UNROUTABLE, ""),  # a landline
    21265: (Fate.UNROUTABLE, ""),  # a short code
    21266: (Fate.UNROUTABLE, ""),  # our own number
    21617: (Fate.UNROUTABLE, ""),  # longer than 1,600 characters
    30003: (Fate.UNROUTABLE, ""),  # unreachable handset
    30004: (Fate.UNROUTABLE, ""),  # blocked on the way
    30006: (Fate.UNROUTABLE, ""),  # a landline, or a carrier that is not reached
    30007: (Fate.UNROUTABLE, ""),  # filtered for its words
    30008: (Fate.UNROUTABLE, ""),  # unknown error of the carrier
    30034: (Fate.UNROUTABLE, "the sender is not registered for A2P 10DLC"),
    # By nobody.
    21211: (Fate.PERMANENT, ""),  # no number at all
    21217: (Fate.PERMANENT, ""),
    30005: (Fate.PERMANENT, ""),  # unknown or inactive number
    21610: (Fate.BLOCKED, ""),  # the recipient answered STOP
}

_STATUSES: Final[Mapping[int, tuple[Fate, str]]] = {
    401: (Fate.TEMPORARY, _CREDENTIALS),
    403: (Fate.TEMPORARY, _CREDENTIALS),
    404: (Fate.TEMPORARY, "see sms.twilio.account_sid and sms.twilio.api_url"),
    407: (Fate.TEMPORARY, "a proxy is in the way"),
    408: (Fate.UNKNOWN, ""),
    429: (Fate.BUSY, ""),
}


def failure(status: int, code: object) -> ContactdError:
    """Return the failure that an answer to a POST means.

    After a 5xx nobody knows: "it is possible for a customer to receive multiple messages" when the
    POST is repeated (Twilio, 20500). That includes 503: a balancer says it, too, when what stands
    behind it has taken the request and then fails. A redirection has done nothing.
    """
    number = int(code) if isinstance(code, int | str) and str(code).isdecimal() else 0
    if status >= 500:
        fate, remedy = Fate.UNKNOWN, "see status.twilio.com"
    elif status == 429:
        fate, remedy = _STATUSES[status]
    elif number in CODES:
        fate, remedy = CODES[number]
    elif 300 <= status < 400:
        fate, remedy = Fate.TEMPORARY, "see sms.twilio.api_url: something in the way redirects"
    else:
        fate, remedy = _STATUSES.get(status, (Fate.UNROUTABLE, ""))
    kind: type[ContactdError] = fate.value
    told = f"Twilio answers {status}" + (f" with error {number}" if number > 999 else "")
    return kind(f"{told}: {remedy}" if remedy else told)
