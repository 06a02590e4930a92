"""The OpenAPI 3.1 document, made of the same end points and types that answer."""

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from contactd.httpd import PROBLEM_TYPES
from contactd.tickets.states import Action
from contactd.web.endpoints import KEY_HEADER, PREFIX, Endpoint
from contactd.web.resources import ProblemDocument

REF: Final = "#/components/schemas/{model}"
TITLES: Final = {
    200: "done", 201: "made", 202: "it will be done", 206: "a range of it",
    400: "the query, a header or the syntax is wrong", 401: "no token, or a wrong one",
    403: "not with this role", 404: "there is none", 408: "the body came too slowly",
    409: "its state does not allow it, or a request with this key is being done",
    413: "the body is too large", 415: "not what is taken here", 416: "no such range",
    422: "the body is wrong, or cannot be done", 429: "too many requests", 503: "try again",
}  # fmt: skip
ANY_TIME: Final = frozenset({400, 401, 403, 408, 413, 429, 503})
RETRIES: Final = frozenset({429, 503})
ABOUT: Final = """Contacts, tickets and duty of the service desk; `docs/api.md` has worked examples.

* Instants are ISO 8601 with an offset.
* Lists: `items`, and `next`, the cursor of the next page, null at the end. A cursor belongs to
  the query that it came from.
* What belongs to a site that the token does not see is answered as if it were not there.
* A POST may have an `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): sent again
  within 24 hours, the same request gets the same answer and does nothing; another request with
  this key is refused (422); while the first one is being done, it is 409.
* Errors are RFC 9457 problems. Their types:

"""
KINDS: Final = {
    "bad-request": "a header, or the syntax",
    "invalid-query": "`errors` says what is wrong with the query",
    "invalid-body": "`errors` says what is wrong with the body",
    "unauthenticated": "no token, or one that is unknown, revoked or expired",
    "forbidden": "the role may not do this",
    "not-found": "there is none, or it belongs to a site that the token does not see",
    "method-not-allowed": "`Allow` has the methods",
    "not-allowed-now": "its state does not allow it",
    "outdated": "somebody has changed it since the entry `seen`: look again",
    "refused": "understood, and it cannot be done: `detail` says why",
    "idempotency-key-reused": "the key came with another request before",
    "idempotency-in-progress": "the same request is being done: ask again after `Retry-After`",
    "idempotency-answer-lost": "it was done, and its answer was lost: look at what it changed",
    "too-slow": "the body did not come in time",
    "too-large": "the body is too large",
    "wrong-media-type": "send application/json",
    "no-such-range": "the file is shorter",
    "too-many-requests": "ask again after `Retry-After`",
    "try-again": "the database is away, nothing was done: ask again after `Retry-After`",
    "bug": "a mistake of ours, which is on the log",
}

Schema = dict[str, Any]


def document(endpoints: Sequence[Endpoint]) -> Schema:
    wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = [(ProblemDocument, "serialization")]
    for endpoint in endpoints:
        if endpoint.returns is not None:
            wanted.append((endpoint.returns, "serialization"))
        wanted += [(kind, "validation") for kind in (endpoint.query, endpoint.body) if kind]
    names, definitions = models_json_schema(list(dict.fromkeys(wanted)), ref_template=REF)
    schemas = definitions.get("$defs", {})
    paths: dict[str, Schema] = {}
    for endpoint in endpoints:
        operation = _operation(endpoint, names, schemas)
        paths.setdefault(PREFIX + endpoint.path, {})[endpoint.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "contactd",
            "version": PREFIX.rpartition("/")[2],
            "description": ABOUT
            + "\n".join(f"  * `{PROBLEM_TYPES}{kind}`: {what}" for kind, what in KINDS.items()),
        },
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "contactd token create --name N --role R",
                }
            },
            "schemas": schemas,
        },
    }


def _operation(endpoint: Endpoint, names: Any, schemas: Schema) -> Schema:
    operation: Schema = {
        "summary": endpoint.summary,
        "tags": [endpoint.tag],
        "operationId": re.sub(r"\W+", "_", f"{endpoint.method.lower()}{endpoint.path}").strip("_"),
        "description": " ".join(
            filter(None, (f"Roles: {', '.join(sorted(endpoint.roles))}.", endpoint.description))
        ),
        "parameters": [
            *_parts(endpoint),
            *_parameters(endpoint, names, schemas),
            *([_KEY] if endpoint.takes_key else []),
        ],
        "responses": _responses(endpoint, names),
    }
    if endpoint.body is not None:
        operation["requestBody"] = {
            "required": _must_have(schemas, names, endpoint.body),
            "content": {"application/json": {"schema": names[endpoint.body, "validation"]}},
        }
    if endpoint.takes_file:
        operation["requestBody"] = {
            "required": True,
            "content": {
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
            },
        }
    return operation


def _responses(endpoint: Endpoint, names: Any) -> Schema:
    if endpoint.returns is None:
        content: Schema = {"*/*": {"schema": {"type": "string", "format": "binary"}}}
    else:
        content = {"application/json": {"schema": names[endpoint.returns, "serialization"]}}
    problem = {"application/problem+json": {"schema": names[ProblemDocument, "serialization"]}}
    problems = ANY_TIME | set(endpoint.problems)
    problems |= {415, 422} if endpoint.body or endpoint.takes_file else set()
    problems |= {404} if endpoint.parts else set()
    problems |= {409, 422} if endpoint.takes_key else set()
    return {
        **{str(s): {"description": TITLES[s], "content": content} for s in endpoint.statuses},
        **{
            str(s): {
                "description": TITLES[s],
                "content": problem,
                **({"headers": {"Retry-After": _SECONDS}} if s in RETRIES else {}),
            }
            for s in sorted(problems)
        },
    }


_SECONDS: Final = {"description": "seconds", "schema": {"type": "string"}}
_KEY: Final[Schema] = {
    "name": KEY_HEADER,
    "in": "header",
    "required": False,
    "description": "yours, of at most 255 printable signs: the same request again does nothing",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!#-\\[\\]-~]+$"},
    "example": "8e03978e-40d5-43e8-bc93-6894a57f9324",
}
_NUMBERS: Final = frozenset({"contact", "attachment", "person", "version", "webhook", "session"})


def _parts(endpoint: Endpoint) -> Iterable[Schema]:
    for name in endpoint.parts:
        schema: Schema = {"type": "string", "minLength": 1, "maxLength": 80}
        if name == "action":
            schema = {"type": "string", "enum": list(Action)}
        if name in _NUMBERS:
            schema = {"type": "integer", "minimum": 0, "maximum": 10**18 - 1}
        yield {"name": name, "in": "path", "required": True, "schema": schema}


def _must_have(schemas: Schema, names: Any, body: type[BaseModel]) -> bool:
    """Return whether an empty body is wrong."""
    key = names[body, "validation"]["$ref"].rpartition("/")[2]
    return bool(schemas[key].get("required"))


def _parameters(endpoint: Endpoint, names: Any, schemas: Schema) -> Iterable[Schema]:
    """Return the fields of the query's type, each as a parameter."""
    if endpoint.query is None:
        return
    key = names[endpoint.query, "validation"]["$ref"].rpartition("/")[2]
    required = schemas[key].get("required", [])
    for name, schema in schemas[key].get("properties", {}).items():
        parameter: Schema = {
            "name": name, "in": "query", "required": name in required, "schema": schema,
        }  # fmt: skip
        if "description" in schema:
            parameter["description"] = schema["description"]
        yield parameter
