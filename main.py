"""ChatLingo on Tristore: what the service is made of."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import structlog
from fastapi import FastAPI

from config import Settings, get_settings
from database.stores import Stores, open_stores
from routers import ABOUT, all_routers
from tristore.http import mailbox, metrics, probes
from tristore.http.document import DocumentedAPI
from tristore.http.middleware import add_middleware
from tristore.http.problems import add_error_handlers
from tristore.ops import tracing
from tristore.ops.misspelt import warn_of_misspelt
from tristore.ops.process import configure_logging, draining, spare_collections
from tristore.settings import MissingDSN
from wiring import Services

log = structlog.get_logger()


def create_app(
    settings: Settings | None = None, stores: Stores | None = None, services: type[Services] = Services
) -> FastAPI:
    """The application: `services` builds what it serves. A test passes its own stores, which it also closes; otherwise
    the lifespan opens them."""
    settings = settings or get_settings()
    app = DocumentedAPI(
        title="ChatLingo",
        version="0.1.0",
        description=ABOUT,
        license_info={"name": "MIT License", "identifier": "MIT"},
        lifespan=_lifespan,
        telemetry=tracing.of_requests(),
    )
    app.state.settings = settings
    app.state.given_stores, app.state.services_class = stores, services
    add_middleware(app, settings)
    add_error_handlers(app, token_path="/auth/token")  # noqa: S106 - not a password
    for router in (*all_routers(), probes.router, metrics.router, *mailbox.routers(settings)):
        app.include_router(router)
    if settings.docs and settings.environment != "production":
        app.serve_document()
    app.serve_front()
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    async with AsyncExitStack() as exits:
        if app.state.given_stores is None:
            configure_logging(settings)
            warn_of_misspelt(settings)
            exits.enter_context(tracing.exporting(settings))
        stores = app.state.given_stores or await exits.enter_async_context(open_stores(settings))
        services: Services = app.state.services_class(settings, stores)
        app.state.services, app.state.health, app.state.metrics = services, services.health, services.metrics
        app.state.limits = services.rate_limits
        exits.push_async_callback(services.close)
        services.start()
        report = await services.health.report()
        log.info("started", environment=settings.environment, **report.databases)
        exits.enter_context(draining(services.health.start_draining, services.end_streams, settings.drain_seconds))
        if app.state.given_stores is None:
            spare_collections()
        yield


def __getattr__(name: str) -> FastAPI:
    # `uvicorn main:app` builds it; importing create_app from here reads no environment.
    if name == "app":
        try:
            get_settings().require_dsns()
        except MissingDSN as error:
            raise SystemExit(str(error)) from None
        return create_app()
    raise AttributeError(name)


if __name__ == "__main__":
    from manage import cli

    cli(["serve"])
