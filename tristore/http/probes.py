"""Routes for probes: of Kubernetes, and one for people. They ask `app.state.health`."""

from fastapi import Request, Response
from fastapi.params import Depends
from fastapi.routing import APIRoute

from tristore.http.anonymous import BY_ADDRESS
from tristore.http.headers import sends
from tristore.http.metrics import require_scraper_in_production
from tristore.http.prefixed import PrefixedRouter
from tristore.http.problems import Responses, problems
from tristore.ops.health import Health, HealthService, Probe

router = PrefixedRouter(
    prefix="/health",
    tags=["health"],
    about="Whether the service and its stores are well: for people and for probes.",
    route_class=APIRoute,  # a probe may ask with any parameters
)

LATER = {"Retry-After": "1"}
"""The stores are asked again after about a second."""
NOT_NOW: Responses = {503: {"description": "Not now", "model": Probe, **sends("Retry-After")}}
WITHOUT_POSTGRESQL: Responses = {503: {"description": "Without PostgreSQL", "model": Health, **sends("Retry-After")}}


@router.get(
    "",
    summary="The state of the three stores",
    response_model=Health,
    responses=WITHOUT_POSTGRESQL | problems(401, 404, 429),
    dependencies=[BY_ADDRESS, Depends(require_scraper_in_production)],
)
async def read_health(request: Request) -> Response:
    """In production it needs the metrics' token.

    `degraded` while Redis, MongoDB or the mail server is down: the service goes on without, as far as it can. Mail
    waits."""
    report = await _health(request).report()
    good = report.status != "unavailable"
    return Response(report.as_json, 200 if good else 503, {} if good else LATER, "application/json")


@router.get("/live", summary="Is the process alive?")
async def live() -> Probe:
    """Asks no store: an outage must not restart every pod."""
    return Probe(status="ok")


@router.get("/ready", summary="May requests be sent here?", responses=NOT_NOW)
async def ready(request: Request, response: Response) -> Probe:
    """PostgreSQL answers, and the process is not shutting down."""
    return _answer(response, await _health(request).is_ready())


@router.get("/startup", summary="Is the database's schema at this release or beyond?", responses=NOT_NOW)
async def startup(request: Request, response: Response) -> Probe:
    return _answer(response, await _health(request).has_started())


def _health(request: Request) -> HealthService:
    health: HealthService = request.app.state.health
    return health


def _answer(response: Response, good: bool) -> Probe:
    if not good:
        response.status_code = 503
        response.headers.update(LATER)
    return Probe(status="ok" if good else "unavailable")
