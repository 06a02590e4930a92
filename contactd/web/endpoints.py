"""What an end point of the API is: one value that the router, the checks and the document share."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from contactd.errors import ContactdError, NotFound, PermanentFailure, TemporaryFailure
from contactd.httpd import HTTPD, Identity, Problem, Refused, Route, problem_of
from contactd.log import get_logger
from contactd.store.idempotency import Idempotency, InProgress, Lost, Reused, Stored, fingerprint
from contactd.store.keyed import Mark, marking
from contactd.tickets.people import Role
from contactd.tickets.service import Outdated

log = get_logger()

PREFIX: Final = "/api/v1"
MOST_ERRORS: Final = 20
UPLOAD_WITHIN_S: Final = 120.0  # 20 MiB by 1.4 Mbit/s
KEY_HEADER: Final = "Idempotency-Key"
LONGEST_KEY: Final = 255
# A Structured Field String (RFC 9651 section 3.3.3), as the draft says, or bare, as many send it.
_KEY: Final = re.compile(r'"?([\x21\x23-\x5b\x5d-\x7e]{1,255})"?')
_IDLE: Final = 1000  # callers that are counted before the idle ones are forgotten
KINDS: Final[Mapping[type[ContactdError], str]] = {
    Outdated: "outdated",
    InProgress: "idempotency-in-progress",
    Lost: "idempotency-answer-lost",
    Reused: "idempotency-key-reused",
}

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request whose query and body are what the end point declares.

    `key` is the sender's Idempotency-Key, "" without one; `file` the body, if that is a file.
    """

    request: web.Request
    identity: Identity
    query: BaseModel | None
    body: BaseModel | None
    key: str = ""
    file: bytes = b""

    def queried(self, kind: type[M]) -> M:
        assert isinstance(self.query, kind)  # noqa: S101 - as the end point declares
        return self.query

    def sent(self, kind: type[M]) -> M:
        assert isinstance(self.body, kind)  # noqa: S101 - as the end point declares
        return self.body

    def part(self, name: str) -> str:
        return self.request.match_info[name]

    def id(self, name: str) -> int:
        """Return a number of the path, which the database can hold (64 bits)."""
        text = self.part(name)
        if not text.isascii() or not text.isdigit() or len(text) > 18:
            raise Refused(Problem(status=404))
        return int(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A value of the declared type with another status or more headers than usual."""

    value: BaseModel
    status: int = 200
    location: str = ""


Handler = Callable[[Asked], Awaitable[BaseModel | Answer | web.StreamResponse]]
Check = Callable[[Asked], Awaitable[None]]


class Rates:
    """How much each caller may still ask for: a minute's worth at once, then as it comes back."""

    def __init__(self, per_minute: int, now: Callable[[], float] = time.monotonic) -> None:
        self._most = float(per_minute)
        self._per_s = per_minute / 60
        self._now = now
        self._left: dict[str, tuple[float, float]] = {}  # by caller: requests, and when it was so

    def wait_s(self, caller: str) -> float:
        """Count a request of `caller`; return how long they have to wait first, 0 if not."""
        now = self._now()
        if len(self._left) > _IDLE:
            self._left = {
                name: (left, at)
                for name, (left, at) in self._left.items()
                if left + (now - at) * self._per_s < self._most
            }
        left, at = self._left.get(caller, (self._most, now))
        left = min(self._most, left + (now - at) * self._per_s)
        if left < 1:
            self._left[caller] = (left, now)
            return (1 - left) / self._per_s
        self._left[caller] = (left - 1, now)
        return 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """What every request passes before it reaches its handler.

    `checks` has, by the name of a part of the path, what refuses things that lie outside of
    somebody's sites. Without `keys` idempotency keys are read and mean nothing.
    """

    rates: Rates = field(default_factory=lambda: Rates(1_000_000))
    checks: Mapping[str, Check] = field(default_factory=dict)
    keys: Idempotency | None = None
    upload_bytes: int = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """`returns` None: the answer is a file. `{name}` in `path` are its parts.

    `takes_file`: the body is one. `twice_is_once`: doing it twice is
    harmless by itself, or nothing but its answer matters. `is_secret`: its answer is not kept, not
    even for who asks again with the same idempotency key.
    """

    method: str
    path: str
    summary: str
    tag: str
    handler: Handler
    roles: frozenset[Role]
    returns: type[BaseModel] | None
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    statuses: Sequence[int] = (200,)
    problems: Sequence[int] = ()
    description: str = ""
    takes_file: bool = False
    twice_is_once: bool = False
    is_secret: bool = False

    @property
    def takes_key(self) -> bool:
        return self.method == "POST"

    @property
    def parts(self) -> Sequence[str]:
        return re.findall(r"{(\w+)}", self.path)

    def route(self, edge: Edge) -> Route:
        async def handler(request: web.Request) -> web.StreamResponse:
            identity = await request.app[HTTPD].identify(request)
            assert identity is not None  # noqa: S101 - the route asks for roles
            _count(edge.rates, request, identity)
            asked = Asked(
                request=request,
                identity=identity,
                query=_query(request, self.query),
                body=await _body(request, self.body) if self.body else None,
                key=_key_of(request) if self.takes_key else "",
                file=await _file(request, edge.upload_bytes) if self.takes_file else b"",
            )
            for part in self.parts:
                if part in edge.checks:
                    await edge.checks[part](asked)
            if asked.key and edge.keys is not None:
                return await self._once(asked, edge.keys)
            return await self._answer(asked)

        return Route(
            method=self.method, path=PREFIX + self.path, handler=handler, roles=self.roles,
            streams=self.takes_file,
        )  # fmt: skip

    async def _answer(self, asked: Asked) -> web.StreamResponse:
        try:
            return _response(await self.handler(asked))
        except ContactdError as error:
            raise Refused(_problem(error)) from error

    async def _once(self, asked: Asked, keys: Idempotency) -> web.StreamResponse:
        """Answer a request that has an idempotency key, which may have been answered before."""
        scope = caller_of(asked.request, asked.identity)
        try:
            mark = await keys.begin(scope, asked.key, await _fingerprint(asked))
        except ContactdError as error:
            raise Refused(_problem(error)) from error
        if isinstance(mark, Stored):
            return _replayed(mark)
        return await self._marked(asked, keys, mark)

    async def _marked(self, asked: Asked, keys: Idempotency, mark: Mark) -> web.StreamResponse:
        try:
            with marking(None if self.twice_is_once else mark):
                answer = await self._answer(asked)
        except Refused as refused:
            # Something may have been stored all the same, and is not to be stored again: a code
            # that was wrong has been counted.
            was_free = await _let_go(keys, mark)
            if not was_free and refused.problem.status < 500:
                await _keep(keys, mark, refused.problem.response())
            raise
        except BaseException:
            await _let_go(keys, mark)
            raise
        if self.is_secret:
            await _let_go(keys, mark)
        elif isinstance(answer, web.Response):
            await _keep(keys, mark, answer)
        return answer


async def _let_go(keys: Idempotency, mark: Mark) -> bool:
    """Free a key; return whether nothing was stored under it, or nobody knows."""
    try:
        return await keys.free(mark)
    except TemporaryFailure:  # the lease ends by itself
        return True


async def _keep(keys: Idempotency, mark: Mark, answer: web.Response) -> None:
    """Keep an answer; what was done is done, whether or not that works."""
    body = answer.body
    try:
        await keys.keep(
            mark,
            Stored(
                status=answer.status,
                body=body if isinstance(body, bytes) else b"",
                location=answer.headers.get("Location", ""),
            ),
        )
    except TemporaryFailure as failure:
        log.warning("api.answer_not_kept", reason=str(failure))


def caller_of(request: web.Request, identity: Identity) -> str:
    """Return whose keys and requests are counted together: a token and a user may share a name."""
    is_token = request.headers.get("Authorization", "")[:7].lower() == "bearer "
    return f"{'token' if is_token else 'user'}:{identity.name}"


def _count(rates: Rates, request: web.Request, identity: Identity) -> None:
    wait_s = rates.wait_s(caller_of(request, identity))
    if wait_s:
        after = {"Retry-After": str(int(wait_s) + 1)}
        raise Refused(Problem(status=429, detail="too many requests", headers=after))


def _key_of(request: web.Request) -> str:
    given = request.headers.get(KEY_HEADER)
    if given is None:
        return ""
    found = _KEY.fullmatch(given.strip())
    if found is None or len(found[1]) > LONGEST_KEY:
        raise Refused(
            Problem(status=400, detail=f"{KEY_HEADER}: 1 to {LONGEST_KEY} printable signs")
        )
    return found[1]


async def _fingerprint(asked: Asked) -> bytes:
    request = asked.request
    head = (request.method.encode(), request.raw_path.encode())
    if asked.body is not None:
        return fingerprint((*head, asked.body.model_dump_json().encode()))
    return fingerprint((*head, request.content_type.encode(), asked.file))


def _problem(error: ContactdError) -> Problem:
    problem = problem_of(error)
    kind = next((kind for known, kind in KINDS.items() if isinstance(error, known)), "")
    headers = {"Retry-After": "2"} if isinstance(error, InProgress) else problem.headers
    return Problem(
        status=problem.status, detail=problem.detail, headers=headers, kind=kind or problem.kind
    )


def _replayed(stored: Stored) -> web.Response:
    kind = "application/json" if stored.status < 400 else "application/problem+json"
    headers = {"Idempotency-Replayed": "true"}
    if stored.location:
        headers["Location"] = stored.location
    return web.Response(
        body=stored.body or None,
        status=stored.status,
        content_type=kind,
        headers=headers,
    )


def _query(request: web.Request, kind: type[BaseModel] | None) -> BaseModel | None:
    """Return the query as `kind`; a name given twice is a list there, or an error."""
    if kind is None:
        return None
    given: dict[str, object] = {}
    for name in dict.fromkeys(request.query):
        values = request.query.getall(name)
        field_of = kind.model_fields.get(name)
        several = field_of is not None and isinstance(field_of.default, tuple)
        given[name] = values if several or len(values) > 1 else values[0]
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise Refused(_bad_request(error, "query")) from None


async def _body(request: web.Request, kind: type[M]) -> M:
    """Return the body as `kind`; none at all is an empty object."""
    content = await request.read()
    if content and request.content_type != "application/json":
        raise Refused(Problem(status=415, detail="send application/json"))
    try:
        return kind.model_validate_json(content or b"{}", strict=True)
    except ValidationError as error:
        raise Refused(_bad_request(error, "body")) from None


def _bad_request(error: ValidationError, where: str) -> Problem:
    """Name what is wrong without repeating it: a value may be personal."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return Problem(
        status=422 if where == "body" else 400,
        kind=f"invalid-{where}",
        detail=f"the {where} is not as the document says",
        errors=tuple(
            {"where": ".".join([where, *map(str, each["loc"])]), "what": each["msg"]}
            for each in found[:MOST_ERRORS]
        ),
    )


async def _file(request: web.Request, most: int) -> bytes:
    """Return the body, which may be longer than others, and take longer to come."""
    pieces, size = [], 0
    try:
        async with asyncio.timeout(UPLOAD_WITHIN_S):
            async for piece in request.content.iter_chunked(1 << 16):
                size += len(piece)
                if size > most:
                    raise Refused(_cut_off(413, f"at most {most} bytes"))
                pieces.append(piece)
    except TimeoutError:
        raise Refused(_cut_off(408, "the file came too slowly")) from None
    return b"".join(pieces)


def _cut_off(status: int, detail: str) -> Problem:
    """Return a problem after which the rest of the body is not waited for."""
    return Problem(status=status, detail=detail, headers={"Connection": "close"})


def bad_query(detail: str) -> Refused:
    return Refused(Problem(status=400, detail=detail, kind="invalid-query"))


async def paged(answer: Awaitable[T]) -> T:
    """Return what a query asks for; what is wrong with that is wrong with the query."""
    try:
        return await answer
    except NotFound:
        raise
    except PermanentFailure as failure:
        raise bad_query(str(failure)) from failure


def _response(answer: BaseModel | Answer | web.StreamResponse) -> web.StreamResponse:
    if isinstance(answer, web.StreamResponse):
        return answer
    if isinstance(answer, BaseModel):
        answer = Answer(value=answer)
    return web.Response(
        body=answer.value.model_dump_json(by_alias=True).encode(),
        status=answer.status,
        content_type="application/json",
        headers={"Location": answer.location} if answer.location else None,
    )
