"""Probes: for Kubernetes, and one for people."""

from typing import Any

from fastapi import APIRouter, Response

from dependencies import HealthChecks
from services.health_service import Health, Probe

router = APIRouter(prefix="/health", tags=["health"])

NOT_NOW: dict[int | str, dict[str, Any]] = {503: {"description": "Not now", "model": Probe}}


@router.get("/live", summary="Is the process alive?")
async def live() -> Probe:
    """Asks no store: an outage must not restart every pod."""
    return Probe(status="ok")


@router.get("/ready", summary="May requests be sent here?", responses=NOT_NOW)
async def ready(health: HealthChecks, response: Response) -> Probe:
    """PostgreSQL answers, and the process is not shutting down."""
    return _answer(response, await health.is_ready())


@router.get("/startup", summary="Is the database's schema at this release or beyond?", responses=NOT_NOW)
async def startup(health: HealthChecks, response: Response) -> Probe:
    return _answer(response, await health.has_started())


@router.get(
    "",
    summary="The state of the three stores",
    response_model=Health,
    responses={503: {"description": "Without PostgreSQL", "model": Health}},
)
async def read_health(health: HealthChecks) -> Response:
    """`degraded` while Redis or MongoDB is down: the service goes on without, as far as it can."""
    state = await health.report()
    status = 503 if state.status == "unavailable" else 200
    return Response(state.as_json, status_code=status, media_type="application/json")


def _answer(response: Response, good: bool) -> Probe:
    response.status_code = 200 if good else 503
    return Probe(status="ok" if good else "unavailable")
