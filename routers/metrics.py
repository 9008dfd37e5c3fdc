"""Metrics for Prometheus, which sends the token as `authorization: {credentials: ...}`."""

from fastapi import APIRouter, Response
from fastapi.params import Depends

from dependencies import MetricsOfAll, require_scraper

router = APIRouter(tags=["metrics"], include_in_schema=False)


@router.get("/metrics", dependencies=[Depends(require_scraper)])
async def read(metrics: MetricsOfAll) -> Response:
    return Response(await metrics.render(), media_type="text/plain; version=1.0.0; charset=utf-8")
