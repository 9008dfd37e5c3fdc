"""Probes: for Kubernetes, and one for people."""

from typing import Any

from fastapi import Request, Response

from dependencies import HealthChecks, services_of
from tristore.http.prefixed import PrefixedRouter
from tristore.ops.health import Health, Probe

router = PrefixedRouter(prefix="/health", tags=["health"])

NOT_NOW: dict[int | str, dict[str, Any]] = {503: {"description": "Not now", "model": Probe}}


@router.get(
    "",
    summary="The state of the three stores",
    response_model=Health,
    responses={503: {"description": "Without PostgreSQL", "model": Health}},
)
async def read_health(request: Request) -> Response:
    """`degraded` while Redis or MongoDB is down: the service goes on without, as far as it can."""
    state = await services_of(request).health.report()  # injected, it would cost each of many probes a tenth more
    status = 503 if state.status == "unavailable" else 200
    return Response(state.as_json, status_code=status, media_type="application/json")


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


def _answer(response: Response, good: bool) -> Probe:
    response.status_code = 200 if good else 503
    return Probe(status="ok" if good else "unavailable")
