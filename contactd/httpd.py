"""The one HTTP server: limits, identities, problems. The parts of the daemon bring the routes.

What a peer may do to it is bounded here and nowhere else: how many connections there are (when all
are taken, the longest silent one makes room for the next), how long a request's head and body may
take (`read_timeout_s`), how long a connection may be silent (`idle_timeout_s`), and how long it may
leave an answer unread (`STALL_S`).
"""

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from random import getrandbits
from typing import Any, Final, Protocol, cast
from urllib.parse import urlsplit

from aiohttp import web

from contactd.compressing import StaticFile, accepts_gzip, is_worth_it, packed, read_folder
from contactd.errors import (
    ActionNotAllowed,
    ConfigurationError,
    ContactdError,
    NotFound,
    PermanentFailure,
    TemporaryFailure,
)
from contactd.log import bound, get_logger
from contactd.metrics import HANDLER_FAILURES, HTTP_SECONDS, PEERS_REFUSED
from contactd.service import Health, HealthState
from contactd.settings import HttpSettings
from contactd.tickets.people import Role

log = get_logger()

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

SESSION_COOKIE: Final = "contactd_session"
# By TLS it has a name that no other host of the domain, and no page without TLS, can set for us.
SECURE_SESSION_COOKIE: Final = f"__Host-{SESSION_COOKIE}"
PORTAL_COOKIE: Final = "contactd_help"  # of a requester, who is nobody with a role
SHARE_COOKIE: Final = "contactd_share"  # of who agreed to remote help
SECURE_SHARE_COOKIE: Final = f"__Host-{SHARE_COOKIE}"
COOKIES: Final = frozenset(
    {SESSION_COOKIE, SECURE_SESSION_COOKIE, PORTAL_COOKIE, SHARE_COOKIE, SECURE_SHARE_COOKIE}
)
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
# Peers can invent names of methods, which must not become labels.
METHODS: Final = SAFE_METHODS | {"POST", "PUT", "PATCH", "DELETE"}
HEAD_BYTES: Final = 8190  # a request line, and a header field; nginx and Apache take 8 KiB, too
STALL_S: Final = 30.0  # an answer that the peer does not take for so long is given up
DRAIN_S: Final = 5.0  # what a stop gives to requests in hand, unless told otherwise
# What is asked for all the time is logged as debug.
QUIET_ROUTES: Final = frozenset({"/livez", "/readyz", "/metrics", "/static/{name}"})

PROBLEM_TYPES: Final = "urn:problem-type:contactd:"  # RFC 9457; docs/api.md lists them
KINDS_OF_PROBLEM: Final[Mapping[int, str]] = {
    400: "bad-request",
    401: "unauthenticated",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    408: "too-slow",
    409: "not-allowed-now",
    413: "too-large",
    415: "wrong-media-type",
    416: "no-such-range",
    422: "refused",
    429: "too-many-requests",
    500: "bug",
    503: "try-again",
}

SECURITY_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "media-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(self), geolocation=(), microphone=()",
    "Cache-Control": "no-store",  # pages and answers hold personal data; files say otherwise
}


class Identity(Protocol):
    """Somebody who proved to be it: a user with a session, or a program with a token."""

    @property
    def name(self) -> str: ...

    @property
    def role(self) -> Role: ...

    @property
    def sites(self) -> frozenset[str]:
        """The sites whose tickets they see; empty: all."""
        ...

    @property
    def engineer(self) -> str:
        """The key of the engineer of the desk file that this user is, "" if none."""
        ...


class Accounts(Protocol):
    async def find_token(self, secret: str) -> Identity | None:
        """Return whose token it is; None if it is unknown or revoked."""
        ...

    async def find_session(self, secret: str) -> Identity | None:
        """Return whose session it is; None if it is unknown or over."""
        ...


class Phase(StrEnum):
    STARTING = "starting"
    SERVING = "serving"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method of one path. `roles` None: nobody need say who they are.

    With `streams` the handler reads the body itself, however long it is, and has limits of its own.
    """

    method: str
    path: str
    handler: Handler
    roles: frozenset[Role] | None
    streams: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What went wrong, as RFC 9457 has it; `headers` belong to the answer (Allow, Retry-After)."""

    status: int
    detail: str = ""
    errors: tuple[Mapping[str, str], ...] = ()  # what is wrong where, for a bad request
    headers: Mapping[str, str] = field(default_factory=dict)
    kind: str = ""  # the last word of its type; "": what the status says

    @property
    def title(self) -> str:
        return HTTPStatus(self.status).phrase

    def response(self) -> web.Response:
        kind = self.kind or KINDS_OF_PROBLEM.get(self.status, "error")
        body: dict[str, Any] = {
            "type": PROBLEM_TYPES + kind, "title": self.title, "status": self.status,
        }  # fmt: skip
        if self.detail:
            body["detail"] = self.detail
        if self.errors:
            body["errors"] = list(self.errors)
        return web.json_response(
            body,
            status=self.status,
            headers=dict(self.headers),
            content_type="application/problem+json",
        )


class Refused(Exception):
    """Raised by a handler to answer with `problem`."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail or problem.title)
        self.problem = problem


class Httpd:
    """The server, as a service. List it last: it is what takes new work.

    `page` draws a problem for a browser (None: leave it as JSON). `on_stop` ends what would go on
    for ever: open streams.
    """

    name = "http"

    def __init__(  # noqa: PLR0913 - the composition root's words
        self,
        settings: HttpSettings,
        *,
        routes: Iterable[Route],
        accounts: Accounts,
        static: Mapping[str, Path] | None = None,
        page: Callable[[web.Request, Problem], web.Response | None] | None = None,
        on_stop: Iterable[Callable[[], None]] = (),
        drain_s: float = DRAIN_S,
    ) -> None:
        self._settings = settings
        self._routes = tuple(routes)
        self._accounts = accounts
        self._static = dict(static or {})
        self._page = page
        self._on_stop = tuple(on_stop)
        self._drain_s = drain_s
        self._crowd = Crowd(settings.max_connections)
        self._proxies = tuple(map(ip_network, settings.proxies))
        self._own_hosts = {urlsplit(settings.public_url).netloc} - {""}
        self.phase = Phase.STARTING
        self.port = settings.port

    # Life

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen; on leaving, take no more connections and finish the requests in hand.

        Raises:
            ConfigurationError: the address cannot be listened on.
        """
        app = self._application()
        runner = web.AppRunner(app, shutdown_timeout=self._drain_s)
        await runner.setup()
        try:
            listener = await self._listen(runner)
            self.phase = Phase.SERVING
            try:
                yield
            finally:
                self.announce_stop()
                listener.close()
        finally:
            await runner.cleanup()

    def announce_stop(self) -> None:
        """Make `/readyz` say 503 and end the streams, while other requests are still taken."""
        self.phase = Phase.STOPPING
        for end in self._on_stop:
            end()

    def health(self) -> list[Health]:
        used, most = len(self._crowd.peers), self._crowd.most
        full = used >= most
        return [
            Health(
                component="http",
                state=HealthState.DEGRADED if full else HealthState.UP,
                detail=f"all {most} connections are taken: raise http.max_connections"
                if full
                else "",
                figures={"connections": used},
            )
        ]

    def _application(self) -> web.Application:
        app = web.Application(
            middlewares=[self._edge], client_max_size=self._settings.max_body_bytes
        )
        app[HTTPD] = self
        for route in self._routes:
            # A GET also answers HEAD (RFC 9110 section 9.3.2).
            methods = ("GET", "HEAD") if route.method == "GET" else (route.method,)
            for method in methods:
                app.router.add_route(method, route.path, self._guarded(route))
        for prefix, folder in self._static.items():
            serve = _static_files(read_folder(folder))
            for method in ("GET", "HEAD"):
                app.router.add_route(method, prefix + "/{name:.+}", serve)
        app.on_response_prepare.append(self._dress)
        return app

    async def _listen(self, runner: web.AppRunner) -> asyncio.Server:
        server = runner.server
        assert server is not None  # noqa: S101 - set by runner.setup()
        limits = self._settings
        try:
            listener = await asyncio.get_running_loop().create_server(
                lambda: Peer(server, self._crowd, limits), limits.host, limits.port, backlog=256
            )
        except OSError as error:
            raise ConfigurationError(
                f"http.host, http.port: cannot listen on {limits.host}:{limits.port}: "
                f"{os.strerror(error.errno or 0)}"
            ) from error
        self.port = listener.sockets[0].getsockname()[1]
        return listener

    # Each request

    async def identify(self, request: web.Request) -> Identity | None:
        """Return who sends the request, by bearer token (RFC 6750) or by the session's cookie."""
        if _SENDER not in request:
            return await self.identify_again(request)
        return request[_SENDER].identity

    async def identify_again(self, request: web.Request) -> Identity | None:
        """Return who the sender of a long request is by now: a session can end meanwhile."""
        sender = request[_SENDER] = _Sender(identity=await self._find(request))
        return sender.identity

    async def _find(self, request: web.Request) -> Identity | None:
        if (token := _bearer(request)) is not None:
            return await self._accounts.find_token(token)
        if cookie := request.cookies.get(self.session_cookie(request)):
            return await self._accounts.find_session(cookie)
        return None

    def _guarded(self, route: Route) -> Handler:
        """Return the route's handler behind a check of who may use it."""

        async def handler(request: web.Request) -> web.StreamResponse:
            if route.roles is not None:
                identity = await self.identify(request)
                if identity is None:
                    raise Refused(_who_are_you(request))
                if identity.role not in route.roles:
                    raise Refused(Problem(status=403, detail="not with this role"))
            if not route.streams:
                await self._read_body(request)
            return await route.handler(request)

        return handler

    async def _read_body(self, request: web.Request) -> None:
        """Read the whole body (aiohttp keeps it for the handler): a slow one holds nobody up."""
        if not request.can_read_body:
            return
        if request.content.is_eof():  # it came with the head: nothing to wait for
            await request.read()
            return
        try:
            async with asyncio.timeout(self._settings.read_timeout_s):
                await request.read()
        except TimeoutError:
            PEERS_REFUSED.labels(listener="http", reason="slow_body").inc()
            raise Refused(Problem(status=408, headers={"Connection": "close"})) from None

    @web.middleware
    async def _edge(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        peer = request.protocol
        assert isinstance(peer, Peer)  # noqa: S101 - nothing else makes requests
        peer.head_is_in()
        loop = asyncio.get_running_loop()
        began = loop.time()
        # A name for the log, no secret: uuid4 would ask the kernel, 24 µs a request.
        with bound(request=f"{getrandbits(48):012x}"):
            status = 499  # nginx's number for a peer that went away
            try:
                response = await self._answer(request, handler)
            except web.HTTPException as redirect:
                status = redirect.status
                raise
            else:
                status = response.status
                return _packed(request, response)
            finally:
                _note(request, status, loop.time() - began)

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            self._refuse_foreign_origin(request)
            return await handler(request)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            kept = {k: v for k, v in error.headers.items() if k in ("Allow", "Content-Range")}
            problem = Problem(status=error.status, headers=kept)
        except Refused as refused:
            problem = refused.problem
        except ContactdError as error:
            problem = problem_of(error)
        except (ConnectionError, ssl.SSLError):
            raise ConnectionResetError from None  # the peer is gone; aiohttp closes quietly
        except Exception:
            # The boundary of one connection: the bug is on the log, the peer gets a short line.
            log.exception("request.failed", method=request.method, route=_route(request))
            HANDLER_FAILURES.labels(where="http").inc()
            problem = Problem(status=500)
        if request.get(_ANSWERED):  # in the middle of a stream nothing can be taken back
            raise ConnectionResetError
        wants_page = "text/html" in request.headers.get("Accept", "")
        drawn = self._page(request, problem) if self._page and wants_page else None
        return drawn or problem.response()

    def _refuse_foreign_origin(self, request: web.Request) -> None:
        """Refuse a change that another site makes a browser send (CSRF).

        Browsers say where a request comes from in Sec-Fetch-Site, older ones in Origin. Programs
        send neither, and then there must be no cookie that a browser could have added.
        """
        if request.method in SAFE_METHODS or _bearer(request) is not None:
            return
        site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
        if site is not None:
            ours = site in ("same-origin", "none")
        elif origin is not None:
            ours = urlsplit(origin).netloc in self._own_hosts | {request.host}
        else:
            ours = not COOKIES & request.cookies.keys()
        if not ours:
            PEERS_REFUSED.labels(listener="http", reason="foreign_origin").inc()
            raise Refused(Problem(status=403, detail="sent from another site"))

    async def _dress(self, request: web.Request, response: web.StreamResponse) -> None:
        request[_ANSWERED] = True
        for name, value in SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
        response.headers["Server"] = "contactd"
        if self._settings.public_url.startswith("https:"):
            response.headers.setdefault("Strict-Transport-Security", "max-age=31536000")

    def session_cookie(self, request: web.Request) -> str:
        """Return the name of the cookie that holds the session's secret."""
        return SECURE_SESSION_COOKIE if self.is_secure(request) else SESSION_COOKIE

    def client(self, request: web.Request) -> str:
        """Return the address that the request comes from, through our own proxies or not.

        An IPv6 address stands for its /64, which is one subscriber's.
        """
        hops = ",".join(request.headers.getall("X-Forwarded-For", [])).split(",")
        peer = _address(request.remote or "")
        while peer is not None and hops and any(peer in each for each in self._proxies):
            if (before := _address(hops.pop())) is None:
                break
            peer = before
        if isinstance(peer, IPv6Address):
            return str(IPv6Network((peer, 64), strict=False))
        return str(peer or "")

    def is_secure(self, request: web.Request) -> bool:
        """Return whether the browser came by TLS, so that its cookie must, too."""
        return request.secure or self._settings.public_url.startswith("https:")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sender:
    """Who sends a request, once it was looked up."""

    identity: Identity | None


HTTPD: Final = web.AppKey("httpd", Httpd)
_SENDER: Final = web.RequestKey("sender", _Sender)
_ANSWERED: Final = web.RequestKey("answered", bool)


class Crowd:
    """The connections that there are: at most `most`."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.peers: set[Peer] = set()
        self.silent: dict[Peer, None] = {}  # who owes us a request's head, the longest silent first

    def has_room(self) -> bool:
        """Return whether one more may come in; the longest silent one may have to go for it."""
        if len(self.peers) < self.most:
            return True
        oldest = next(iter(self.silent), None)
        if oldest is None:
            return False
        oldest.evict()
        return True

    def wait_for(self, peer: "Peer") -> None:
        """Count `peer` in; it owes us a request."""
        self.peers.add(peer)
        self.silent[peer] = None

    def has_asked(self, peer: "Peer") -> None:
        self.silent.pop(peer, None)

    def leave(self, peer: "Peer") -> None:
        self.peers.discard(peer)
        self.silent.pop(peer, None)


class Peer(web.RequestHandler):
    """One connection: aiohttp's, with a limit of their number and of the time of a request's head.

    aiohttp itself has a time-out for connections that are silent between requests only.
    """

    def __init__(self, server: web.Server, crowd: Crowd, limits: HttpSettings) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=limits.idle_timeout_s,
            lingering_time=min(2.0, limits.read_timeout_s),
            max_line_size=HEAD_BYTES,
            max_field_size=HEAD_BYTES,
            access_log=cast(Any, None),
        )
        self._crowd = crowd
        self._limits = limits
        self._deadline: asyncio.TimerHandle | None = None
        self._busy = False
        self._wire: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        wire = self._wire = cast(asyncio.Transport, transport)
        if not self._crowd.has_room():
            PEERS_REFUSED.labels(listener="http", reason="max_connections").inc()
            wire.write(b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n"
                       b"Retry-After: 5\r\nContent-Length: 0\r\n\r\n")  # fmt: skip
            wire.close()
            return
        self._crowd.wait_for(self)
        _give_up_on_stalled(wire)
        self._await_head()
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if not self._busy and self._deadline is None:
            self._await_head()
        if self in self._crowd.peers:
            super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._crowd.leave(self)
        self._disarm()
        super().connection_lost(exc)

    def evict(self) -> None:
        PEERS_REFUSED.labels(listener="http", reason="evicted").inc()
        self._crowd.leave(self)
        if self._wire is not None:
            self._wire.abort()

    def head_is_in(self) -> None:
        self._disarm()
        self._crowd.has_asked(self)
        self._busy = True

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the answer; from then on the peer is silent again."""
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._busy = False
            if self in self._crowd.peers:
                self._crowd.wait_for(self)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is not HTTP, or beyond the limits, without repeating any of it."""
        if request.writer.output_size > 0:
            raise ConnectionResetError
        PEERS_REFUSED.labels(listener="http", reason="malformed").inc()
        log.debug("request.malformed", reason=type(exc).__name__)
        response = Problem(status=status).response()
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Server"] = "contactd"
        response.force_close()
        return response

    def _await_head(self) -> None:
        self._deadline = asyncio.get_running_loop().call_later(
            self._limits.read_timeout_s, self._cut_slow_head
        )

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _cut_slow_head(self) -> None:
        self._deadline = None
        PEERS_REFUSED.labels(listener="http", reason="slow_head").inc()
        if self._wire is not None:
            self._wire.abort()


def _give_up_on_stalled(wire: asyncio.Transport) -> None:
    """Let the kernel end a connection whose peer takes nothing of an answer for `STALL_S`.

    TCP_USER_TIMEOUT (RFC 5482; Linux also counts a closed window) covers files and streams alike,
    and peers whose network went away.
    """
    connection = wire.get_extra_info("socket")
    if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(STALL_S * 1000))


def _bearer(request: web.Request) -> str | None:
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else None


def _who_are_you(request: web.Request) -> Problem:
    known = _bearer(request) is not None
    challenge = 'Bearer realm="contactd"' + (', error="invalid_token"' if known else "")
    return Problem(
        status=401,
        detail="the token is unknown or revoked" if known else "send a bearer token, or log in",
        headers={"WWW-Authenticate": challenge},
    )


def problem_of(error: ContactdError) -> Problem:
    match error:
        case TemporaryFailure():
            log.warning("request.deferred", reason=str(error))
            return Problem(
                status=503, detail="nothing was done; try again", headers={"Retry-After": "2"}
            )
        case NotFound():
            return Problem(status=404, detail=str(error))
        case ActionNotAllowed():
            return Problem(status=409, detail=str(error))
        case PermanentFailure():
            return Problem(status=422, detail=str(error))
        case _:
            log.error("request.failed", reason=str(error))
            return Problem(status=500)


def _static_files(files: Mapping[str, StaticFile]) -> Handler:
    """Return what serves files out of memory, compressed already."""

    async def serve(request: web.Request) -> web.Response:
        file = files.get(request.match_info["name"])
        if file is None:
            return Problem(status=404).response()
        is_packed = bool(file.packed) and accepts_gzip(request.headers)
        # What is packed is another representation, with a tag of its own (RFC 9110 section 8.8.3).
        etag = f"{file.etag}-gzip" if is_packed else file.etag
        # Pages name files with their version (?v=…), which never changes its content.
        lasting = "public, max-age=31536000, immutable" if "v" in request.query else "no-cache"
        headers = {"ETag": f'"{etag}"', "Cache-Control": lasting}
        if file.packed:
            headers["Vary"] = "Accept-Encoding"
        if any(each.value in (etag, "*") for each in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        if is_packed:
            headers["Content-Encoding"] = "gzip"
        text = file.media_type.startswith("text/")
        return web.Response(
            body=file.packed if is_packed else file.plain,
            headers=headers,
            content_type=file.media_type,
            charset="utf-8" if text else None,
        )

    return serve


def _packed(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Compress an answer that is whole, if that pays and the peer takes it.

    One with an ETag is left alone: the tag is that of these very bytes.
    """
    if not isinstance(response, web.Response) or not isinstance(response.body, bytes):
        return response
    kept = {"ETag", "Content-Encoding", "Content-Range"} & response.headers.keys()
    if kept or response.prepared or not is_worth_it(response.content_type, len(response.body)):
        return response
    vary = [each for each in response.headers.getall("Vary", []) if each]
    response.headers["Vary"] = ", ".join([*vary, "Accept-Encoding"])
    if accepts_gzip(request.headers):
        response.body = packed(response.body)
        response.headers["Content-Encoding"] = "gzip"
    return response


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        found = ip_address(text.strip().partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def _route(request: web.Request) -> str:
    """Return the route's pattern: unlike the path it holds nothing personal."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "(none)"


def _note(request: web.Request, status: int, seconds: float) -> None:
    route = _route(request)
    method = request.method if request.method in METHODS else "other"
    HTTP_SECONDS.labels(method, route, f"{status // 100}xx").observe(seconds)
    write = log.debug if route in QUIET_ROUTES and status < 400 else log.info
    write(
        "request.answered",
        method=method,
        route=route,
        status=status,
        ms=round(seconds * 1000, 1),
    )
