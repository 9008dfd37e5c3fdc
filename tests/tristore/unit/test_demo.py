"""The page of the demo answers its own page alone, and tells what becomes of what was begun on it."""

from collections.abc import AsyncIterator

import httpx
import pytest

from tristore.errors import StoreName
from tristore.testing.demo import Stage, demo_app
from tristore.testing.lab import until

HOST = "127.0.0.1:8300"
OURS = {"X-Demo": "1"}


class Switches:
    """Stands for the embedded servers."""

    def __init__(self) -> None:
        self.running: set[StoreName] = {"postgresql", "redis", "mongodb"}

    def start(self, store: StoreName) -> None:
        self.running.add(store)

    def stop(self, store: StoreName) -> None:
        self.running.discard(store)

    def status(self, store: StoreName) -> object | None:
        return store if store in self.running else None


async def goes_well() -> AsyncIterator[str]:
    for state in ("asked", "asked", "there"):
        yield state


async def goes_wrong() -> AsyncIterator[str]:
    yield "asked"
    raise httpx.ConnectError("nobody")


async def no_service(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("nobody", request=request)


@pytest.fixture
def switches() -> Switches:
    return Switches()


@pytest.fixture
async def page(switches: Switches) -> AsyncIterator[httpx.AsyncClient]:
    api = httpx.AsyncClient(transport=httpx.MockTransport(no_service), base_url="http://service")
    stage = Stage(embedded=switches, api=api, acts={"well": goes_well, "wrong": goes_wrong})
    transport = httpx.ASGITransport(demo_app(stage, HOST))
    async with api, httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}") as client:
        yield client
        await stage.close()


async def test_a_store_is_stopped_and_started(page: httpx.AsyncClient, switches: Switches) -> None:
    assert (await page.post("/stores/redis/stop", headers=OURS)).status_code == 204
    assert switches.running == {"postgresql", "mongodb"}
    assert (await page.get("/state")).json()["running"] == {"postgresql": True, "redis": False, "mongodb": True}
    assert (await page.post("/stores/redis/start", headers=OURS)).status_code == 204
    assert "redis" in switches.running


@pytest.mark.parametrize(
    ("headers", "status"), [({}, 403), (OURS | {"Host": "evil.example:8300"}, 421), (OURS | {"Host": "localhost"}, 421)]
)
async def test_no_other_page_stops_anything(
    page: httpx.AsyncClient, switches: Switches, headers: dict[str, str], status: int
) -> None:
    for path in ("/stores/redis/stop", "/acts?what=well"):
        assert (await page.post(path, headers=headers)).status_code == status
    assert len(switches.running) == 3
    assert (await page.get("/state")).json()["deeds"] == []


@pytest.mark.parametrize("path", ["/stores/mysql/stop", "/stores/redis/drop", "/acts?what=nothing", "/acts"])
async def test_what_is_not_there_is_404(page: httpx.AsyncClient, path: str) -> None:
    assert (await page.post(path, headers=OURS)).status_code == 404


async def test_each_state_is_told_once_also_when_it_ends_without_an_answer(page: httpx.AsyncClient) -> None:
    for what in ("well", "wrong"):
        await page.post("/acts", params={"what": what}, headers=OURS)

    async def are_over() -> bool:
        return all(deed["is_over"] for deed in (await page.get("/state")).json()["deeds"])

    await until(are_over, 5)
    state = (await page.get("/state")).json()
    assert state["health"] is None  # the service of this test answers nothing
    told = {deed["what"]: [text for _, text in deed["states"]] for deed in state["deeds"]}
    assert told == {"wrong": ["asked", "no answer: ConnectError"], "well": ["asked", "there"]}
