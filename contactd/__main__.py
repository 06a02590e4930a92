"""The command line. Exit codes are those of sysexits.h."""

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from datetime import date, datetime, timedelta
from getpass import getpass
from pathlib import Path
from zoneinfo import ZoneInfo

from contactd import settings as settings_module
from contactd.errors import ConfigurationError, ContactdError, PermanentFailure
from contactd.routing.notify import Reason
from contactd.settings import Settings
from contactd.tickets.people import PEOPLES_ROLES, Role

DEFAULT_CONFIG = Path("/etc/contactd/contactd.toml")


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        if arguments.command == "demo":
            from contactd import demo

            return demo.main(check=arguments.check, keep=arguments.keep)
        settings = settings_module.load(arguments.config)
        run: Callable[[Settings, argparse.Namespace], Awaitable[int]] = arguments.run
        return asyncio.run(_call(run, settings, arguments))
    except ConfigurationError as error:
        print(f"contactd: the configuration is wrong:\n{_indented(error)}", file=sys.stderr)
        return os.EX_CONFIG
    except PermanentFailure as error:
        print(f"contactd: {error}", file=sys.stderr)
        return os.EX_DATAERR
    except ContactdError as error:
        print(f"contactd: {error}", file=sys.stderr)
        return os.EX_TEMPFAIL
    except BrokenPipeError:  # `contactd … | head`
        return os.EX_OK
    except KeyboardInterrupt:
        return 130
    except Exception:
        # A bug: systemd starts us again, and start is recovery.
        logging.getLogger("contactd").exception("contactd broke")
        return os.EX_SOFTWARE


async def _call(
    run: Callable[[Settings, argparse.Namespace], Awaitable[int]],
    settings: Settings,
    arguments: argparse.Namespace,
) -> int:
    return await run(settings, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="contactd", description="Turns every call to a hotline into a logged ticket."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(
        name: str, text: str, run: Callable[[Settings, argparse.Namespace], Awaitable[int]]
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument(
            *("-c", "--config"), type=Path, default=DEFAULT_CONFIG, metavar="FILE",
            help="the configuration (default: %(default)s)",
        )  # fmt: skip
        sub.set_defaults(run=run)
        return sub

    command("serve", "run the daemon until SIGTERM or Ctrl-C", _serve)
    command("check", "read the configuration and probe each component", _check)
    command("migrate", "bring the database to this version's schema", _migrate)
    load = command("load", "load sites, people and the rota; safe to repeat", _load)
    load.add_argument("file", type=Path, help="a file of the form of etc/desk.toml")

    desk = commands.add_parser("desk", help="the desk file as it is edited").add_subparsers(
        dest="action", required=True, metavar="ACTION"
    )
    export = desk.add_parser("export", help="print the desk file that holds")
    export.add_argument("-c", "--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE")
    export.set_defaults(run=_desk_export)

    token = commands.add_parser("token", help="tokens for the API").add_subparsers(
        dest="action", required=True, metavar="ACTION"
    )
    create = token.add_parser("create", help="print a new token; it is shown only once")
    listing = token.add_parser("list", help="print all tokens by name, without their secrets")
    revoke = token.add_parser("revoke", help="make a token useless")
    user = commands.add_parser("user", help="people who log in to the pages").add_subparsers(
        dest="action", required=True, metavar="ACTION"
    )
    add = user.add_parser("add", help="add a user; the password is read from standard input")
    users = user.add_parser("list", help="print all users by name, and what they may do")
    reset = user.add_parser("reset-factor", help="ask a user for no code, whose telephone is lost")
    remove = user.add_parser("remove", help="remove a user, who is logged out at once")
    for sub, run in (
        (create, _token_create),
        (listing, _token_list),
        (revoke, _token_revoke),
        (add, _user_add),
        (users, _user_list),
        (reset, _user_reset),
        (remove, _user_remove),
    ):
        sub.add_argument("-c", "--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE")
        if sub not in (listing, users):
            sub.add_argument("--name", required=True)
        if sub in (create, add):
            roles = Role if sub is create else PEOPLES_ROLES
            choices = [role.value for role in Role if role in roles]
            sub.add_argument("--role", required=True, choices=choices)
            sub.add_argument(
                "--site", action="append", metavar="KEY",
                help="only tickets of this site; may be repeated (default: all sites)",
            )  # fmt: skip
        sub.set_defaults(run=run)

    create.add_argument(
        "--expires", type=_length, metavar="DAYSd", help="useless after so long, e.g. 90d"
    )
    add.add_argument("--engineer", metavar="KEY", help="the engineer of the desk file they are")

    ledger = command("ledger", "compare a day's calls in the PBX with the tickets", _ledger)
    ledger.add_argument("--day", type=date.fromisoformat, help="YYYY-MM-DD (default: today)")
    oncall = command("oncall", "print who is on duty, and why", _oncall)
    oncall.add_argument("--at", type=datetime.fromisoformat, help="instant (default: now)")
    oncall.add_argument("--site", help="one site only")
    explain = command("explain", "print a ticket's contacts and journal", _explain)
    explain.add_argument("ticket", help="the ticket's number")

    letter = command("letter", "print a mail as somebody would get it", _letter)
    letter.add_argument("reason", choices=[reason.value for reason in Reason], help="what about")
    letter.add_argument("--language", choices=["zh", "en"], default="zh")
    letter.add_argument("--html", action="store_true", help="its HTML instead of its text")

    calendar = commands.add_parser("calendar", help="public holidays").add_subparsers(
        dest="action", required=True, metavar="ACTION"
    )
    imported = calendar.add_parser("import", help="print which deadlines a file would move")
    imported.add_argument("file", type=Path, help="a file of the form of etc/calendars/cn.toml")
    imported.add_argument("--apply", action="store_true", help="and put it in force")
    settled = calendar.add_parser("status", help="print how far public holidays are settled")
    for sub, run in ((imported, _calendar_import), (settled, _calendar_status)):
        sub.add_argument("-c", "--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE")
        sub.set_defaults(run=run)

    demo = commands.add_parser("demo", help="show it all on this machine: PBX, calls, page")
    demo.add_argument("--check", action="store_true", help="assert what happened, then exit")
    demo.add_argument("--keep", action="store_true", help="keep the folder with data and logs")
    return parser


def _length(text: str) -> timedelta:
    """Return how long a token works: 90d, 12h."""
    number, unit = text[:-1], text[-1:]
    if not number.isdecimal() or unit not in "dh" or not 0 < int(number) < 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days or hours, e.g. 90d")
    return timedelta(days=int(number)) if unit == "d" else timedelta(hours=int(number))


def _indented(error: Exception) -> str:
    return "\n".join(f"  {line}" for line in str(error).splitlines())


# Each command imports only what it needs: `contactd oncall` must not pay for aiohttp.
async def _serve(settings: Settings, arguments: argparse.Namespace) -> int:
    from contactd.app import run

    return await run(settings)


async def _check(settings: Settings, arguments: argparse.Namespace) -> int:
    from contactd.check import check

    return await check(settings)


async def _migrate(settings: Settings, arguments: argparse.Namespace) -> int:
    from contactd.store.engine import migrate

    await asyncio.to_thread(migrate, settings.database_url)
    print("the database has this version's schema")
    return os.EX_OK


async def _load(settings: Settings, arguments: argparse.Namespace) -> int:
    from contactd import commands

    return await commands.load(settings, arguments.file)


async def _desk_export(settings: Settings, arguments: argparse.Namespace) -> int:
    from contactd import commands

    return await commands.export_desk(settings)


async def _token_create(settings: Settings, arguments: argparse.Namespace) -> int:
    from contactd import commands

    return await commands.create_token(
        settings, arguments.name, arguments.role, arguments.site or (), arguments.expires
    )


async def _token_list(settings: Settings, arguments: argparse.Namespace) -> int:
    from contactd import commands

    return await commands.list_tokens(settings)


async def _token_revoke(settings: Settings, arguments: argparse.Namespace) -> int:
    from contactd import commands

    return await commands.revoke_token(settings, arguments.name)


async def _user_add(settings: Settings, arguments: argparse.Namespace) -> int:
    from contactd import commands

    password = getpass() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    return await commands.add_user(
        settings, arguments.name, arguments.role, password, arguments.site, arguments.engineer
    )


async def _user_list(settings: Settings, arguments: argparse.Namespace) -> int:
    from contactd import commands

    return await commands.list_users(settings)


async def _user_reset(settings: Settings, arguments: argparse.Namespace) -> int:
    from contactd import commands

    return await commands.reset_factor(settings, arguments.name)


async def _user_remove(settings: Settings, arguments: argparse.Namespace) -> int:
    from contactd import commands

    return await commands.remove_user(settings, arguments.name)


async def _ledger(settings: Settings, arguments: argparse.Namespace) -> int:
    from contactd import commands

    return await commands.ledger(settings, arguments.day)


async def _oncall(settings: Settings, arguments: argparse.Namespace) -> int:
    from contactd import commands

    at: datetime | None = arguments.at
    if at is not None and at.tzinfo is None:
        at = at.replace(tzinfo=ZoneInfo(settings.service.zone))
    return await commands.oncall(settings, at, arguments.site)


async def _explain(settings: Settings, arguments: argparse.Namespace) -> int:
    from contactd import commands

    return await commands.explain(settings, arguments.ticket)


async def _letter(settings: Settings, arguments: argparse.Namespace) -> int:
    from contactd import commands

    reason = Reason(arguments.reason)
    return await commands.letter(settings, reason, arguments.language, as_html=arguments.html)


async def _calendar_import(settings: Settings, arguments: argparse.Namespace) -> int:
    from contactd import commands

    return await commands.import_calendar(settings, arguments.file, applies=arguments.apply)


async def _calendar_status(settings: Settings, arguments: argparse.Namespace) -> int:
    from contactd import commands

    return await commands.calendar_status(settings)


if __name__ == "__main__":
    sys.exit(main())
