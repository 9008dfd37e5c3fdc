"""The route of the metrics. Prometheus sends their token as `authorization: {credentials: ...}`."""

import secrets

from fastapi import APIRouter, Request, Response
from fastapi.params import Depends

from tristore.errors import NotAuthenticated, NotFound
from tristore.http.anonymous import CountedByAddress
from tristore.http.requests import bearer_token
from tristore.ops.metrics import Metrics
from tristore.settings import TristoreSettings

STRANGERS = CountedByAddress()


async def require_scraper(request: Request) -> None:
    """Let pass whoever has the metrics' token. Without one configured, only development has metrics. Others are counted
    by their address. Raises NotFound, NotAuthenticated, TooManyRequests."""
    settings: TristoreSettings = request.app.state.settings
    if settings.metrics_token is None:
        if settings.environment == "production":
            await STRANGERS.admit(request)
            raise NotFound
    elif not secrets.compare_digest(bearer_token(request).encode(), settings.metrics_token.get_secret_value().encode()):
        await STRANGERS.admit(request)
        raise NotAuthenticated


async def require_scraper_in_production(request: Request) -> None:
    """As `require_scraper`, in production only."""
    settings: TristoreSettings = request.app.state.settings
    if settings.environment == "production":
        await require_scraper(request)


router = APIRouter(tags=["metrics"], include_in_schema=False)


@router.get("/metrics", dependencies=[Depends(require_scraper)])
async def read(request: Request) -> Response:
    metrics: Metrics = request.app.state.metrics
    return Response(await metrics.render(), media_type="text/plain; version=1.0.0; charset=utf-8")
