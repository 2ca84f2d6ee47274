"""The page beside the interface: files of the package, read once; it asks nobody but this server."""

from collections.abc import Awaitable, Callable
from importlib.resources import files

from fastapi import APIRouter
from fastapi.responses import Response

TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
START = "index.html"


def page_routes() -> APIRouter:
    """Return the routes of the page's files."""
    router = APIRouter()
    for file in (files("sipo_pl.serve") / "page").iterdir():
        suffix = file.name.rpartition(".")[2]
        if suffix in TYPES:
            path = "/" if file.name == START else f"/page/{file.name}"
            router.add_api_route(path, _sender(file.read_bytes(), TYPES[suffix]), methods=["GET", "HEAD"])
    return router


def _sender(content: bytes, media_type: str) -> Callable[[], Awaitable[Response]]:
    async def send() -> Response:
        return Response(content, media_type=media_type, headers=HEADERS)

    return send
