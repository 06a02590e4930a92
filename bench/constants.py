"""A FastAGI server that decides nothing: the dialplan's questions get answers from a table.

`python -m bench.constants HOST PORT TABLE`: each line of TABLE is a caller's number, a space, and
the answer. It reads no more of a question than the caller's number and keeps nothing.
"""

import asyncio
import re
import sys
from pathlib import Path

CALLER = re.compile(rb"^agi_callerid: (.*)$", re.MULTILINE)


async def main(host: str, port: int, table: Path) -> None:
    answers = {
        number: b'SET VARIABLE CONTACTD "' + answer + b'"\n'
        for number, _, answer in (
            line.partition(b" ") for line in table.read_bytes().splitlines() if line
        )
    }

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            question = await reader.readuntil(b"\n\n")
            found = CALLER.search(question)
            writer.write(answers[found[1] if found else b""])
            await reader.readline()
        finally:
            writer.close()

    server = await asyncio.start_server(serve, host, port, backlog=256)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
