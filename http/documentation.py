"""`/openapi.json`, and `/docs`, which shows the same document as a page without scripts or anything from elsewhere."""

import base64
import hashlib
import json
from html import escape
from typing import Any, Final

from starlette.responses import Response

from tocsin.http.caller import PUBLIC
from tocsin.http.endpoint import Call, Endpoint
from tocsin.http.problems import KINDS
from tocsin.http.shapes import NoQuery

_STYLE: Final = """
:root {
  color-scheme: light dark;
  --line: color-mix(in srgb, currentColor 18%, transparent);
  --soft: color-mix(in srgb, currentColor 6%, transparent);
}
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 2rem 1.25rem 6rem }
h1 { margin: 0 } h2 { margin: 2.5rem 0 .5rem; text-transform: capitalize }
details { border: 1px solid var(--line); border-radius: .5rem; margin: .5rem 0 }
summary { cursor: pointer; padding: .6rem .9rem } details > div { padding: 0 .9rem .9rem }
code, pre { font: .875em/1.45 ui-monospace, monospace }
pre { background: var(--soft); border-radius: .4rem; overflow: auto; padding: .75rem }
b.method { display: inline-block; font: 600 .8rem ui-monospace, monospace; min-width: 4rem }
table { border-collapse: collapse; width: 100% }
td { border-top: 1px solid var(--line); padding: .4rem .6rem .4rem 0; text-align: left; vertical-align: top }
small { opacity: .7 }
@media (max-width: 40rem) { code { overflow-wrap: anywhere } table, tbody, tr, td { display: block } }
"""
_POLICY: Final = (
    "default-src 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


async def get_openapi(call: Call[None, NoQuery]) -> Response:
    """The OpenAPI 3.1 document of this service."""
    return Response(json.dumps(_document(call), ensure_ascii=False), media_type="application/json")


async def get_docs(call: Call[None, NoQuery]) -> Response:
    """The same document for people, with every problem's code."""
    headers = {"Content-Security-Policy": _POLICY}
    return Response(page(_document(call)), media_type="text/html; charset=utf-8", headers=headers)


def page(described: dict[str, Any]) -> str:
    """The document as one HTML page."""
    tags: dict[str, list[str]] = {}
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            shown = _operation(method.upper(), path, operation, described["components"]["schemas"])
            tags.setdefault(operation["tags"][0], []).append(shown)
    sections = "".join(f"<h2>{escape(tag)}</h2>{''.join(shown)}" for tag, shown in tags.items())
    info = described["info"]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(info['title'])} API</title><style>{_STYLE}</style>"
        f"<h1>{escape(info['title'])} API <small>{escape(info['version'])}</small></h1>"
        f'<p>{escape(info["description"])} The same as data: <a href="/openapi.json">/openapi.json</a>.</p>'
        f"{sections}<h2>Problems</h2>{_problems()}</html>"
    )


def _document(call: Call[None, NoQuery]) -> dict[str, Any]:
    found: dict[str, Any] = call.request.app.state.described()
    return found


def _operation(method: str, path: str, operation: dict[str, Any], schemas: dict[str, Any]) -> str:
    parts = [f"<p>{escape(operation['description'])}</p>"]
    if operation["parameters"]:
        rows = "".join(_parameter(parameter) for parameter in operation["parameters"])
        parts.append(f"<table>{rows}</table>")
    if "requestBody" in operation:
        parts.append("<p>Body</p>" + _schema(operation["requestBody"], schemas))
    rows = "".join(_response(status, answer, schemas) for status, answer in operation["responses"].items())
    parts.append(f"<table>{rows}</table>")
    title = f'<b class="method">{method}</b><code>{escape(path)}</code> — {escape(operation["summary"])}'
    name = escape(operation["operationId"])
    return f'<details id="{name}"><summary>{title}</summary><div>{"".join(parts)}</div></details>'


def _parameter(parameter: dict[str, Any]) -> str:
    needed = "required" if parameter.get("required") else "optional"
    schema = json.dumps(parameter["schema"], ensure_ascii=False)
    return (
        f"<tr><td><code>{escape(parameter['name'])}</code><br><small>{escape(parameter['in'])}, {needed}</small>"
        f"<td><code>{escape(schema)}</code>"
    )


def _response(status: str, answer: dict[str, Any], schemas: dict[str, Any]) -> str:
    shown = _schema(answer, schemas) if status.startswith("2") else ""
    return f"<tr><td><b>{status}</b><td>{escape(answer['description'])}{shown}"


def _schema(holder: dict[str, Any], schemas: dict[str, Any]) -> str:
    for content in holder.get("content", {}).values():
        schema = content["schema"]
        name = schema.get("$ref", "").rsplit("/", 1)[-1]
        text = json.dumps(schemas.get(name, schema), indent=2, ensure_ascii=False)
        return f"<pre>{escape(text)}</pre>"
    return ""


def _problems() -> str:
    rows = "".join(
        f'<tr id="{kind.code}"><td><code>{kind.code}</code><br><small>{kind.status}</small>'
        f"<td>{escape(kind.title)}<br>{escape(kind.mend)}"
        for kind in sorted(KINDS.values(), key=lambda kind: (kind.status, kind.code))
    )
    return f"<table>{rows}</table>"


ENDPOINTS: Final = (
    Endpoint(
        method="GET",
        path="/openapi.json",
        handler=get_openapi,
        summary="This API as data",
        tag="operations",
        who=PUBLIC,
        query=None,
        documented=False,
    ),
    Endpoint(
        method="GET",
        path="/docs",
        handler=get_docs,
        summary="This API for people",
        tag="operations",
        who=PUBLIC,
        query=None,
        documented=False,
    ),
)
