"""Each store stopped and killed under a running app: what works, what answers 503, how soon all is well again."""

import asyncio
import time

import httpx
import pytest

from tests.product.outages import assert_unavailable, forget, health, refused, wait_until_well
from tests.product.people import account, register
from tests.under_test import Lab
from tristore.embedded.servers import Store
from tristore.testing.lab import FAULTS, App, Fault, answers, percentile, post_repeatedly, timed, until
from tristore.testing.proxy import proxy_to


async def is_degraded(client: httpx.AsyncClient, store: Store) -> bool:
    """Whether `/health` tells of it: its answer may be a second old."""
    status, body = await health(client)
    return (status, body["status"], body["databases"][store] != "connected") == (200, "degraded", True)


@pytest.mark.parametrize("fault", FAULTS)
async def test_without_redis_every_route_works_and_reads_stay_quick(lab: Lab, fault: Fault) -> None:
    async with lab.app(REDIS_TIMEOUT="2") as app:
        await without_redis(lab, app.client, fault)


async def without_redis(lab: Lab, client: httpx.AsyncClient, fault: Fault) -> None:
    headers = await register(client)
    async with lab.without("redis", fault):
        reads = [
            await asyncio.gather(*(timed(client.get("/users/me", headers=headers)) for _ in range(10)))
            for _ in range(40)
        ]
        assert {answer.status_code for batch in reads for answer, _ in batch} == {200}
        # The first of them wait two seconds for Redis, until its breaker opens.
        assert percentile((seconds for batch in reads for _, seconds in batch), 0.9) < 1
        assert await refused(client, headers) == []
        await until(lambda: is_degraded(client, "redis"), 5)
        assert await answers(client, "/health/ready")
    await wait_until_well(client)
    assert await refused(client, headers) == []


@pytest.mark.parametrize("fault", FAULTS)
async def test_without_mongodb_users_register_and_read_profiles(lab: Lab, app: App, fault: Fault) -> None:
    client = app.client
    headers = await register(client)
    async with lab.without("mongodb", fault):
        for _ in range(3):
            answer, seconds = await timed(client.post("/users/register", json=account()))
            assert (answer.status_code, seconds < 1.5) == (201, True)
        assert (await client.get("/users/me", headers=headers)).is_success
        assert (await client.patch("/users/me", headers=headers, json={"bio": "x"})).json()["bio"] == "x"
        assert (await client.get("/users/me", headers=headers)).json()["bio"] == "x"
        assert_unavailable(*await timed(client.get("/conversations", headers=headers)), "mongodb")
        assert_unavailable(*await timed(client.post("/conversations", headers=headers, json={"title": "t"})), "mongodb")
        await until(lambda: is_degraded(client, "mongodb"), 5)
        assert await answers(client, "/health/ready")
    await until(lambda: answers_as(client, "/conversations", headers), 5)
    await wait_until_well(client)


@pytest.mark.parametrize("fault", FAULTS)
async def test_without_postgresql_answers_are_quick_and_honest(lab: Lab, app: App, fault: Fault) -> None:
    client = app.client
    cached, uncached = await register(client), await register(client)
    async with lab.without("postgresql", fault):
        await forget(lab, uncached["X-User-Id"])
        assert (await client.get("/users/me", headers=cached)).is_success
        assert_unavailable(*await timed(client.get("/users/me", headers=uncached)), "postgresql")
        assert_unavailable(*await timed(client.post("/users/register", json=account())), "postgresql")
        assert_unavailable(*await timed(client.patch("/users/me", headers=cached, json={"bio": "x"})), "postgresql")
        many = await asyncio.gather(*(timed(client.get("/users/me", headers=uncached)) for _ in range(60)))
        assert {answer.status_code for answer, _ in many} == {503}
        sign_ins = await asyncio.gather(*(timed(sign_in_as_nobody(client)) for _ in range(40)))
        assert {answer.status_code for answer, _ in sign_ins} == {503}
        assert max(seconds for _, seconds in sign_ins) < 3  # 0.9 s for all at once; the machine may be busy
        assert await answers(client, "/health/live")
        await until(lambda: answers(client, "/health", 503), 2)  # the last check is kept for a second
        assert (await health(client))[1]["status"] == "unavailable"
        assert await answers(client, "/health/ready", 503)
    await until(lambda: answers_as(client, "/users/me", uncached), 5)
    await wait_until_well(client)
    assert (await client.post("/users/register", json=account())).status_code == 201


async def sign_in_as_nobody(client: httpx.AsyncClient) -> httpx.Response:
    return await client.post("/auth/token", data={"username": "nobody-here", "password": "not this one"})


async def answers_as(client: httpx.AsyncClient, path: str, headers: dict[str, str]) -> bool:
    return (await client.get(path, headers=headers)).status_code == 200


async def test_starts_while_all_stores_are_down_and_recovers_by_itself(lab: Lab) -> None:
    stores: tuple[Store, ...] = ("postgresql", "redis", "mongodb")
    for store in stores:
        lab.embedded.stop(store)
    async with lab.app() as app:
        status, body = await health(app.client)
        assert (status, "connected" in body["databases"].values()) == (503, False)
        assert await answers(app.client, "/health/startup", 503)
        for store in stores:
            await lab.bring_back(store, "killed")
        await wait_until_well(app.client)
        assert await answers(app.client, "/health/startup")
        await until(lambda: answers(app.client, "/health/ready"), 5)
        headers = await register(app.client)
        assert await refused(app.client, headers) == []


async def test_a_restarted_postgresql_costs_no_request(lab: Lab) -> None:
    async with lab.app(POSTGRES_REQUEST_DEADLINE="5") as app:  # it is about stale connections, not about time
        headers = [await register(app.client) for _ in range(30)]
        async with lab.without("postgresql", "killed"):
            pass
        await until(lambda: answers(app.client, "/health/ready"), 5)
        changes = [app.client.patch("/users/me", headers=who, json={"bio": "x"}) for who in headers]
        assert {answer.status_code for answer in await asyncio.gather(*changes)} == {200}


async def test_500_messages_by_50_writers_from_two_processes_are_numbered_without_gaps(lab: Lab, app: App) -> None:
    async with lab.app() as other:
        headers = await register(app.client)
        created = await app.client.post("/conversations", headers=headers, json={"title": "t"})
        path = f"/conversations/{created.json()['id']}/messages"

        started = time.monotonic()
        writers = (post_repeatedly((app, other)[i % 2], path, headers, {"content": "x"}, 10) for i in range(50))
        answers = [answer for some in await asyncio.gather(*writers) for answer in some]
        print(f"{500 / (time.monotonic() - started):.0f} messages a second")
        assert {status for status, _ in answers} == {201}
        assert sorted(message["seq"] for _, message in answers) == list(range(1, 501))
        seen: list[int] = []
        while page := (
            await app.client.get(path, headers=headers, params={"after_seq": len(seen), "limit": 100})
        ).json()["items"]:
            seen += [message["seq"] for message in page]
        assert seen == list(range(1, 501))


async def test_a_title_that_lands_late_undoes_no_later_one(lab: Lab) -> None:
    async with proxy_to(lab.servers["mongodb"].port) as proxy:
        dsn = lab.settings.dsn("mongodb_dsn").replace(str(lab.servers["mongodb"].port), str(proxy.port))
        async with lab.app(MONGODB_DSN=dsn) as app:
            headers = await register(app.client)
            created = await app.client.post("/conversations", headers=headers, json={"title": "t"})
            path = f"/conversations/{created.json()['id']}"
            proxy.hold(b"given up")
            assert (await app.client.patch(path, headers=headers, json={"title": "given up"})).status_code == 503
            assert proxy.held == 1
            proxy.hold_no_more()
            assert (await app.client.patch(path, headers=headers, json={"title": "kept"})).status_code == 200
            proxy.release()
            await asyncio.sleep(1)
            assert (await app.client.get(path, headers=headers)).json()["title"] == "kept"
