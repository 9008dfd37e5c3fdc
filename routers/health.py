"""Probes: for Kubernetes, and one for people."""

from typing import Any

from fastapi import APIRouter, Response

from dependencies import HealthChecks
from services.health_service import Health

router = APIRouter(prefix="/health", tags=["health"])

NOT_NOW: dict[int | str, dict[str, Any]] = {503: {"description": "Not now"}}


@router.get("/live", summary="Is the process alive? Asks no store: an outage must not restart every pod")
async def live() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/ready", summary="May requests be sent here?", responses=NOT_NOW)
async def ready(health: HealthChecks, response: Response) -> dict[str, str]:
    return _answer(response, await health.is_ready())


@router.get("/startup", summary="Is the database's schema at this release or beyond?", responses=NOT_NOW)
async def startup(health: HealthChecks, response: Response) -> dict[str, str]:
    return _answer(response, await health.has_started())


@router.get("", summary="The state of the three stores", responses={503: {"model": Health}})
async def report(health: HealthChecks, response: Response) -> Health:
    state = await health.report()
    response.status_code = 503 if state.status == "unavailable" else 200
    return state


def _answer(response: Response, good: bool) -> dict[str, str]:
    response.status_code = 200 if good else 503
    return {"status": "ok" if good else "unavailable"}
