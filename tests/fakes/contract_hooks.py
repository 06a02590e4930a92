"""What schemathesis is told of the data that there is: most requests are about something real."""

import json
import os
import zlib
from itertools import count
from typing import Any, Final

import schemathesis

_KNOWN: Final[dict[str, Any]] = json.loads(os.environ.get("CONTRACT_KNOWN", "{}"))
# What bodies name, too: else most would be about engineers and sites that nobody has heard of.
_NAMED: Final[dict[str, Any]] = json.loads(os.environ.get("CONTRACT_NAMED", "{}"))
_numbers: Final = count()
KEY: Final = "Idempotency-Key"
_ALWAYS: Final = frozenset({"url"})  # of a webhook: nothing is sent to hosts that were made up


@schemathesis.hook
def before_call(
    context: schemathesis.HookContext, case: schemathesis.Case[Any], kwargs: dict[str, Any]
) -> None:
    """Put real ids into paths that are right, and new keys into most requests that have one."""
    turn = zlib.crc32(case.id.encode()) % 4
    parts, headers = case.path_parameters or {}, case.headers
    if turn and not _is_wrong(case, "path"):
        for name in parts:
            parts[name] = _KNOWN.get(name, parts[name])
    if isinstance(case.body, dict) and not _is_wrong(case, "body"):
        for name in case.body:
            if turn or name in _ALWAYS:
                case.body[name] = _NAMED.get(name, case.body[name])
    if turn and headers and KEY in headers and not _is_wrong(case, "header"):
        headers[KEY] = f"key-{os.getpid()}-{next(_numbers)}"


def _is_wrong(case: schemathesis.Case[Any], where: str) -> bool:
    """Return whether this part of a request is wrong on purpose."""
    if case.meta is None:
        return False
    found = {str(place.value): info for place, info in case.meta.components.items()}
    part = found.get(where)
    return part is not None and part.mode is schemathesis.GenerationMode.NEGATIVE
