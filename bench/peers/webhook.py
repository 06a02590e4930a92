"""A webhook as one would write it by hand: aiohttp, Twilio's own validator, one row with its fsync.

`python -m bench.peers.webhook PORT DATABASE`: it checks what `contactd.sms.twilio` checks, by the
words of Twilio's manual, and answers the same. The row is written in the event loop's thread: with
`aiosqlite` it takes fewer requests a second.
"""

import sqlite3
import sys
from pathlib import Path
from typing import Final

from aiohttp import web
from twilio.request_validator import RequestValidator  # type: ignore[import-untyped]

from bench.webhooks import INBOUND, PUBLIC_URL, TOKEN

TWIML: Final = '<?xml version="1.0" encoding="UTF-8"?><Response/>'


def application(database: sqlite3.Connection) -> web.Application:
    validator = RequestValidator(TOKEN)

    async def take(request: web.Request) -> web.Response:
        fields = {name: str(value) for name, value in (await request.post()).items()}
        signature = request.headers.get("X-Twilio-Signature", "")
        if not validator.validate(PUBLIC_URL + request.path_qs, fields, signature):
            raise web.HTTPForbidden
        row = [fields[name] for name in ("MessageSid", "From", "To", "Body")]
        database.execute("INSERT OR IGNORE INTO texts VALUES (?, ?, ?, ?)", row)
        return web.Response(text=TWIML, content_type="text/xml")

    app = web.Application()
    app.router.add_post(INBOUND, take)
    return app


def opened(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None)  # each statement commits
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute(
        "CREATE TABLE texts (sid TEXT PRIMARY KEY, sender TEXT, recipient TEXT, body TEXT)"
    )
    return database


if __name__ == "__main__":
    web.run_app(
        application(opened(Path(sys.argv[2]))),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        access_log=None,
        print=None,
    )
