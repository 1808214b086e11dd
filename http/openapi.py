"""The OpenAPI 3.1 document, made from the same declarations and types that validate (H2)."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from tocsin.domain.addresses import USER_ID
from tocsin.domain.audience import TOPIC_KEY
from tocsin.domain.settings import Settings
from tocsin.http.caller import PUBLIC, Role
from tocsin.http.correlation import HEADER
from tocsin.http.endpoint import Endpoint
from tocsin.http.problems import (
    AUTHENTICATION,
    AWAY,
    BAD_IDEMPOTENCY_KEY,
    BODY_TOO_LARGE,
    COMPRESSED,
    FORBIDDEN,
    IDEMPOTENCY_MISMATCH,
    INTERNAL,
    KINDS,
    MALFORMED_JSON,
    MEDIA_TYPE,
    NOT_AVAILABLE,
    NOT_FOUND,
    STILL_RUNNING,
    USER_TOKEN_NEEDED,
    VALIDATION,
    WRONG_CONTENT_TYPE,
    Kind,
)
from tocsin.http.shapes import LIMIT_MARK, NoQuery

_UUID: Final = {"type": "string", "format": "uuid"}
_USER: Final = {"type": "string", "pattern": f"^{USER_ID.pattern}$"}
_PATH_SCHEMAS: Final[Mapping[str, Mapping[str, Any]]] = {
    "event": _UUID,
    "notification": _UUID,
    "delivery": _UUID,
    "user": _USER,
    "topic": {"type": "string", "pattern": f"^{TOPIC_KEY.pattern}$"},
}
_PLAIN: Final = {"type": "string", "minLength": 1}

_PROBLEM: Final[Mapping[str, Any]] = {
    "type": "object",
    "description": "A problem document (RFC 9457): `code` is stable, `field` is what is wrong, `mend` what to do.",
    "required": ["type", "title", "status", "detail", "code", "mend", "correlationId"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "enum": sorted(KINDS)},
        "mend": {"type": "string"},
        "correlationId": {"type": "string"},
        "field": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["code", "field", "detail", "mend"],
                "properties": {name: {"type": "string"} for name in ("code", "field", "detail", "mend")},
            },
        },
    },
}

_References = dict[Any, dict[str, str]]
"""Where the schema of a type is found."""


def document(endpoints: Sequence[Endpoint], settings: Settings, version: str) -> dict[str, Any]:
    """The whole document, as JSON values."""
    shown = [endpoint for endpoint in endpoints if endpoint.documented]
    schemas, references = _schemas(shown)
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in shown:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, references)
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Tocsin",
            "version": version,
            "description": "Tells people things, on the channel that reaches them, and stops when they have read it.",
        },
        "paths": paths,
        "components": {
            "schemas": {**schemas, "Problem": _PROBLEM},
            "securitySchemes": {
                "apiKey": {"type": "http", "scheme": "bearer", "description": "An API key, tk_…"},
                "userToken": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
            },
        },
    }
    if settings.http.public_url:
        found["servers"] = [{"url": settings.http.public_url}]
    limited: dict[str, Any] = _tidied(found, settings)
    return limited


def problems_of(endpoint: Endpoint) -> list[Kind]:
    """Every problem that an endpoint may answer with: its own, and those that follow from its declaration."""
    kinds = [*endpoint.problems, INTERNAL]
    if endpoint.who is not PUBLIC:
        kinds += [*AUTHENTICATION, USER_TOKEN_NEEDED if endpoint.who == {Role.USER} else FORBIDDEN, *AWAY]
    if endpoint.body:
        kinds += [MALFORMED_JSON, BODY_TOO_LARGE, WRONG_CONTENT_TYPE, COMPRESSED, *VALIDATION]
        kinds += [NOT_AVAILABLE] if endpoint.body.later else []
    if endpoint.bodiless:
        kinds += [MALFORMED_JSON, BODY_TOO_LARGE, *VALIDATION]
    if endpoint.query is not None:
        kinds += VALIDATION
    if "{" in endpoint.path:
        kinds += [NOT_FOUND]
    if endpoint.idempotent:
        kinds += [STILL_RUNNING, IDEMPOTENCY_MISMATCH, BAD_IDEMPOTENCY_KEY]
    return list(dict.fromkeys(kinds))


def _schemas(endpoints: Iterable[Endpoint]) -> tuple[dict[str, Any], _References]:
    wanted: dict[tuple[type[BaseModel], JsonSchemaMode], None] = {}
    for endpoint in endpoints:
        if endpoint.body:
            wanted[endpoint.body, "validation"] = None
        if endpoint.answer:
            wanted[endpoint.answer, "serialization"] = None
    references, definitions = models_json_schema(list(wanted), ref_template="#/components/schemas/{model}")
    found: _References = {model: {"$ref": str(schema["$ref"])} for (model, _), schema in references.items()}
    return definitions.get("$defs", {}), found


def _operation(endpoint: Endpoint, references: _References) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": endpoint.handler.__name__,
        "summary": endpoint.summary,
        "description": _description(endpoint),
        "tags": [endpoint.tag],
        "parameters": [*_path_parameters(endpoint), *_query_parameters(endpoint), *_header_parameters(endpoint)],
        "responses": _responses(endpoint, references),
        "security": _security(endpoint),
    }
    if endpoint.body:
        content = {"application/json": {"schema": references[endpoint.body]}}
        operation["requestBody"] = {"required": not endpoint.body_optional, "content": content}
    return operation


def _description(endpoint: Endpoint) -> str:
    text = (endpoint.handler.__doc__ or "").strip()
    who = "Public." if endpoint.who is PUBLIC else f"Who: {', '.join(sorted(endpoint.who)).lower()}."
    return f"{' '.join(text.split())} {who}".strip()


def _security(endpoint: Endpoint) -> list[dict[str, list[str]]]:
    schemes: list[dict[str, list[str]]] = []
    if endpoint.who - {Role.USER}:
        schemes.append({"apiKey": []})
    if Role.USER in endpoint.who:
        schemes.append({"userToken": []})
    return schemes


def _path_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": _PATH_SCHEMAS.get(name, _PLAIN)}
        for name in re.findall(r"\{(\w+)\}", endpoint.path)
    ]


def _query_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    if endpoint.query in {None, NoQuery}:
        return []
    assert endpoint.query is not None  # noqa: S101  # told above; mypy does not see through the set
    schema = endpoint.query.model_json_schema(ref_template="#/components/schemas/{model}")
    inlined = _inline(schema, schema.get("$defs", {}))
    required = set(schema.get("required", ()))
    return [
        {"name": name, "in": "query", "required": name in required, "schema": _without_null(described)}
        for name, described in inlined["properties"].items()
    ]


def _header_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    found = [dict(parameter) for parameter in endpoint.parameters]
    if endpoint.idempotent:
        description = "The same key and body are done once within 24 hours."
        schema = {"type": "string", "pattern": "^[!-~]{1,255}$"}
        found.append({"name": "Idempotency-Key", "in": "header", "description": description, "schema": schema})
    return found


def _responses(endpoint: Endpoint, references: _References) -> dict[str, Any]:
    schema: Mapping[str, Any] = references[endpoint.answer] if endpoint.answer else {"type": "string"}
    good: dict[str, Any] = {"description": endpoint.summary, "headers": _headers(HEADER)}
    if endpoint.idempotent:
        good["headers"] |= _headers("Idempotency-Replayed")
    if endpoint.status != 204:
        good["content"] = {endpoint.media_type: {"schema": schema}}
    responses = {str(endpoint.status): good}
    by_status: dict[int, list[Kind]] = {}
    for kind in problems_of(endpoint):
        by_status.setdefault(kind.status, []).append(kind)
    for status, kinds in sorted(by_status.items()):
        responses[str(status)] = _problem_response(status, kinds)
    return responses


def _problem_response(status: int, kinds: Sequence[Kind]) -> dict[str, Any]:
    described = " ".join(f"`{kind.code}`: {kind.title}" for kind in kinds)
    headers = _headers(HEADER)
    if status in {409, 503}:
        headers |= _headers("Retry-After")
    if status == 401:
        headers |= _headers("WWW-Authenticate")
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": described, "headers": headers, "content": {MEDIA_TYPE: {"schema": schema}}}


def _headers(name: str) -> dict[str, Any]:
    return {name: {"schema": {"type": "string"}}}


def _inline(value: Any, definitions: Mapping[str, Any]) -> Any:
    """`value` with each reference replaced by what it refers to; parameters have no components of their own."""
    if isinstance(value, list):
        return [_inline(item, definitions) for item in value]
    if not isinstance(value, dict):
        return value
    if "$ref" in value:
        return _inline(definitions[value["$ref"].rsplit("/", 1)[-1]], definitions)
    return {key: _inline(item, definitions) for key, item in value.items() if key != "$defs"}


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter is left out rather than null."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) != 1:
        return schema
    rest = {key: value for key, value in schema.items() if key not in {"anyOf", "default"}}
    return {**rest, **kinds[0]}


def _tidied(value: Any, settings: Settings) -> Any:
    """`value` without needless titles, and with the numbers of `limits.` in place of their marks (shapes.limited)."""
    if isinstance(value, list):
        return [_tidied(item, settings) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: _tidied(item, settings) for key, item in value.items() if key != LIMIT_MARK}
    # Pydantic's titles say the name again, in other letters.
    if "type" in found or "anyOf" in found or "$ref" in found or "enum" in found:
        found = {key: item for key, item in found.items() if key != "title" or not isinstance(item, str)}
    if LIMIT_MARK in value:
        word = "maxItems" if "array" in str(value) else "maxLength"
        found[word] = getattr(settings.limits, value[LIMIT_MARK])
    return found
