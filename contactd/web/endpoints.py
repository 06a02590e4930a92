"""What an end point of the API is: one value that the router, the checks and the document share."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from contactd.httpd import HTTPD, Identity, Problem, Refused, Route
from contactd.tickets.people import Role

PREFIX: Final = "/api/v1"
MOST_ERRORS: Final = 20

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request whose query and body are what the end point declares."""

    request: web.Request
    identity: Identity
    query: BaseModel | None
    body: BaseModel | None

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """`returns` None: the answer is a file. `{name}` in `path` are its parts."""

    method: str
    path: str
    summary: str
    tag: str
    handler: Callable[[Asked], Awaitable[BaseModel | Answer | web.StreamResponse]]
    roles: frozenset[Role]
    returns: type[BaseModel] | None
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    statuses: Sequence[int] = (200,)
    problems: Sequence[int] = ()

    def route(self) -> Route:
        async def handler(request: web.Request) -> web.StreamResponse:
            identity = await request.app[HTTPD].identify(request)
            assert identity is not None  # noqa: S101 - the route asks for roles
            asked = Asked(
                request=request,
                identity=identity,
                query=_query(request, self.query) if self.query else None,
                body=await _body(request, self.body) if self.body else None,
            )
            return _response(await self.handler(asked))

        return Route(method=self.method, path=PREFIX + self.path, handler=handler, roles=self.roles)


def _query(request: web.Request, kind: type[M]) -> M:
    """Return the query as `kind`; a name given twice is a list there, or an error."""
    given: dict[str, object] = {}
    for name in dict.fromkeys(request.query):
        values = request.query.getall(name)
        field = kind.model_fields.get(name)
        several = field is not None and isinstance(field.default, tuple)
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
        return kind.model_validate_json(content or b"{}")
    except ValidationError as error:
        raise Refused(_bad_request(error, "body")) from None


def _bad_request(error: ValidationError, where: str) -> Problem:
    """Name what is wrong without repeating it: a value may be personal."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return Problem(
        status=422 if where == "body" else 400,
        detail=f"the {where} is not as the document says",
        errors=tuple(
            {"where": ".".join([where, *map(str, each["loc"])]), "what": each["msg"]}
            for each in found[:MOST_ERRORS]
        ),
    )


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
