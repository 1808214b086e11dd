"""The page at `/`: files of this package, without a build step and without anything from elsewhere.

The page is for people with the admin key; it holds no data itself and asks the API for everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

# Attributes alone may hold style, for a mail of the outbox is shown in a frame that inherits this policy, and mail is
# laid out so. Scripts come from our files only, and the frame may run none. Text becomes HTML in one place alone, the
# policy `mail` of mail.js.
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "style-src-attr 'unsafe-inline'",
        "img-src 'self'",
        "connect-src 'self'",
        "frame-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types mail",
    )
)

_TYPES: Final = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


def routes() -> Sequence[Route]:
    """The routes of the page and of the files that it is made of, which are read once, here."""
    own = sorted((each for each in files("tocsin.http.pages").iterdir() if _suffix(each.name) in _TYPES), key=_name)
    rest = [_route(f"/page/{each.name}", each.read_bytes(), _TYPES[_suffix(each.name)]) for each in own]
    page = files("tocsin.http.pages").joinpath("index.html").read_bytes()
    return [_route("/", page, "text/html; charset=utf-8"), *rest]


def _route(path: str, content: bytes, media_type: str) -> Route:
    tag = f'"{sha256(content).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache", "Content-Security-Policy": POLICY}

    async def serve(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=media_type)

    return Route(path, serve, methods=["GET"])


def _name(file: Traversable) -> str:
    return file.name


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix
