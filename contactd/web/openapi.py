"""The OpenAPI 3.1 document, made of the same end points and types that answer."""

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from contactd.web.endpoints import PREFIX, Endpoint
from contactd.web.resources import ProblemDocument

REF: Final = "#/components/schemas/{model}"
TITLES: Final = {
    200: "done", 201: "opened", 206: "a range of it", 400: "the query is wrong",
    401: "no token, or a wrong one", 403: "not with this role", 404: "there is none",
    409: "its state does not allow it", 415: "not JSON", 422: "the body is wrong",
    416: "no such range", 503: "try again",
}  # fmt: skip

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
            "description": "Contacts, tickets and duty of the service desk. Errors are RFC 9457 "
            "problems. Instants are ISO 8601 with an offset.",
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
    problem = {"application/problem+json": {"schema": names[ProblemDocument, "serialization"]}}
    if endpoint.returns is None:
        content: Schema = {"*/*": {"schema": {"type": "string", "format": "binary"}}}
    else:
        content = {"application/json": {"schema": names[endpoint.returns, "serialization"]}}
    problems = {401, 403, 503, *endpoint.problems, *([400] if endpoint.query else [])}
    problems |= {415, 422} if endpoint.body else set()
    operation: Schema = {
        "summary": endpoint.summary,
        "tags": [endpoint.tag],
        "operationId": re.sub(r"\W+", "_", f"{endpoint.method.lower()}{endpoint.path}").strip("_"),
        "description": f"Roles: {', '.join(sorted(endpoint.roles))}.",
        "parameters": [*_parts(endpoint.path), *_parameters(endpoint, names, schemas)],
        "responses": {
            **{str(s): {"description": TITLES[s], "content": content} for s in endpoint.statuses},
            **{str(s): {"description": TITLES[s], "content": problem} for s in sorted(problems)},
        },
    }
    if endpoint.body is not None:
        operation["requestBody"] = {
            "content": {"application/json": {"schema": names[endpoint.body, "validation"]}}
        }
    return operation


def _parts(path: str) -> Iterable[Schema]:
    for name in re.findall(r"{(\w+)}", path):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _parameters(endpoint: Endpoint, names: Any, schemas: Schema) -> Iterable[Schema]:
    """Return the fields of the query's type, each as a parameter."""
    if endpoint.query is None:
        return
    key = names[endpoint.query, "validation"]["$ref"].rpartition("/")[2]
    for name, schema in schemas[key].get("properties", {}).items():
        parameter: Schema = {"name": name, "in": "query", "required": False, "schema": schema}
        if "description" in schema:
            parameter["description"] = schema["description"]
        yield parameter
