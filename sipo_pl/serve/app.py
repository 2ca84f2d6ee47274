"""The application: routes, and what surrounds them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from sipo_pl.serve.answering import Service
from sipo_pl.serve.errors import ApiError
from sipo_pl.serve.guard import Guard
from sipo_pl.serve.metrics import Metrics
from sipo_pl.serve.page_files import page_routes
from sipo_pl.serve.replies import CompletionReply, Reply
from sipo_pl.serve.schemas import ChatBody, CompletionBody


def make_app(service: Service, metrics: Metrics, keys: Sequence[str], host: str | None) -> FastAPI:
    """Return the application.

    Args:
        service: what handlers need; its engine begins and ends with the application.
        metrics: take what happens.
        keys: of clients; none needed where there is none.
        host: take only requests for this machine, by its own addresses or this name; for all names where not given.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.engine.start()
        try:
            yield
        finally:
            service.engine.close()
            service.prompts.close()

    # the pages of FastAPI's own would fetch their scripts from elsewhere
    app = FastAPI(lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None)
    app.add_middleware(Guard, keys=keys, host=host, metrics=metrics)
    app.add_exception_handler(ApiError, _tell)
    app.add_exception_handler(HTTPException, _tell_http)
    app.add_exception_handler(Exception, _tell_failure)
    app.include_router(page_routes())
    _add_interface(app, service)

    @app.get("/front")
    async def front() -> dict[str, Any]:
        return service.catalogue.front()

    @app.get("/health")
    async def health() -> Response:
        engine = service.engine
        told = {"status": "failed" if engine.broken else "ok", "running": engine.running, "open": engine.open}
        return JSONResponse(told, 503 if engine.broken else 200)

    @app.get("/metrics")
    async def told_metrics() -> Response:
        return Response(metrics.text(), media_type=Metrics.media_type)

    return app


def _add_interface(app: FastAPI, service: Service) -> None:
    catalogue, prompts = service.catalogue, service.prompts

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        return await service.answer(request, ChatBody, lambda body, most: prompts.chat(body.messages, most), Reply)

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        return await service.answer(
            request, CompletionBody, lambda body, most: prompts.text(body.prompt, most), CompletionReply
        )

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": catalogue.listing()}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        if name == catalogue.name:
            return catalogue.entry(name, catalogue.weights)
        return catalogue.entry(name, catalogue.point(name))


async def _tell(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body, error.status, error.headers)


async def _tell_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path[:100]}: {error.detail}"
    return await _tell(request, ApiError(error.status_code, message, headers=error.headers))


async def _tell_failure(request: Request, error: Exception) -> Response:
    return await _tell(request, ApiError(500, "the server failed; its log says why"))
