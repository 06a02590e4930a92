"""The helper as a file that a user downloads and starts: contactd-share, packed as a zipapp.

It is pure Python and carries all that it needs but Python's own library: ours, python-xlib, six.
The invitation in it, with a key that works once, makes each file good for one session only.
"""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Final
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

INVITATION: Final = "invitation.json"
INTERPRETER: Final = b"#!/usr/bin/env python3\n"
# Ours, as far as the helper imports it; nothing of the daemon's.
_OWN: Final = (
    "__init__.py",
    "errors.py",
    "remote/__init__.py",
    "remote/rfb.py",
    "share/*.py",
    "tickets/__init__.py",
    "tickets/agreement.py",
    "tickets/remote.py",
)
_LEFT_OUT: Final = ("test", "__pycache__")
# Old Pythons must get as far as this: no syntax in it that they lack.
_MAIN: Final = """\
import sys

if sys.version_info < (3, 11):
    sys.exit("contactd-share: Python 3.11+ / 需要 Python 3.11 或更高版本")
from contactd.share.program import main

main()
"""


def helper_for(invitation: Mapping[str, str]) -> bytes:
    """Return the program for one invitation: url, key, language, service, ticket."""
    packed = BytesIO(_program())
    with ZipFile(packed, "a", ZIP_DEFLATED) as archive:
        _put(archive, INVITATION, json.dumps(dict(invitation), ensure_ascii=False).encode())
    return packed.getvalue()


@cache  # 0.3 s of work, and the same for everybody
def _program() -> bytes:
    packed = BytesIO()
    packed.write(INTERPRETER)
    with ZipFile(packed, "a", ZIP_DEFLATED) as archive:
        _put(archive, "__main__.py", _MAIN.encode())
        for name, source in sorted(_sources()):
            _put(archive, name, source.read_bytes())
    return packed.getvalue()


def _put(archive: ZipFile, name: str, content: bytes) -> None:
    archive.writestr(ZipInfo(name), content, compress_type=ZIP_DEFLATED)


def _sources() -> Iterator[tuple[str, Path]]:
    own = Path(__file__).parent.parent
    for pattern in _OWN:
        for path in own.glob(pattern):
            yield f"contactd/{path.relative_to(own).as_posix()}", path
    yield "six.py", _origin("six")
    xlib = _origin("Xlib").parent
    for path in xlib.rglob("*.py"):
        relative = path.relative_to(xlib)
        if not set(relative.parts) & set(_LEFT_OUT):
            yield f"Xlib/{relative.as_posix()}", path


def _origin(module: str) -> Path:
    spec = find_spec(module)
    if spec is None or spec.origin is None:  # a dependency of ours: it is there
        raise ModuleNotFoundError(module)
    return Path(spec.origin)
