"""What is owed to another store is never lost and never applied twice, whoever dies, and whenever."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
from pymongo.errors import DuplicateKeyError
from sqlalchemy import event

from config import Settings
from main import create_app
from tests.product.killed import STRIDE, killed_at
from tests.product.people import account, register
from tests.under_test import Lab, fresh_databases, stores_beside
from tristore.stores.stores import Stores, open_stores
from tristore.testing.lab import FAULTS, LONG, App, Fault, until
from tristore.testing.outbox import Journal, Noted, make_outbox, query, until_delivered, until_empty, well, write
from tristore.testing.proxy import proxy_to

pytestmark = pytest.mark.timeout(300)
IN_NO_HURRY = {"POSTGRES_REQUEST_DEADLINE": "8"}
"""For a test of what is true, not of how soon."""
REGISTERED = 200 if LONG else 50
EACH = 100 if LONG else 20
"""Effects of an aggregate."""


@pytest.fixture(scope="module")
async def stores(lab: Lab) -> AsyncIterator[Stores]:
    """For looking into the stores."""
    async with stores_beside(lab.settings) as stores:
        yield stores


async def owed(stores: Stores) -> int:
    return int((await query(stores, "SELECT count(*) FROM outbox"))[0][0])


async def welcomes(stores: Stores, user_ids: list[str]) -> list[int]:
    conversations = stores.mongodb.database.conversations
    return [await conversations.count_documents({"user_id": user_id}) for user_id in user_ids]


@pytest.fixture(autouse=True)
async def _nothing_owed_before(stores: Stores) -> None:
    """Another test may have left the second pass of an erasure, which is due in a minute."""
    await until_delivered(stores)


@pytest.mark.parametrize("fault", FAULTS)
async def test_registrations_without_mongodb_get_their_conversation_when_it_is_back(
    lab: Lab, app: App, stores: Stores, fault: Fault
) -> None:
    async with lab.without("mongodb", fault):
        registered = []
        for _ in range(REGISTERED // 10):
            sent = [app.client.post("/users/register", json=account()) for _ in range(10)]
            registered += await asyncio.gather(*sent)
        assert {answer.status_code for answer in registered} == {201}
        assert await owed(stores) >= 2 * REGISTERED
    await until_empty(stores)
    made = [answer.json() for answer in registered]
    assert await welcomes(stores, [user["user_id"] for user in made]) == [1] * REGISTERED
    found = stores.mongodb.database.conversations.find(
        {"_id": {"$in": [user["welcome_conversation_id"] for user in made]}}
    )
    assert len(await found.to_list(300)) == REGISTERED
    assert (await query(stores, "SELECT count(*) FROM outbox_streams WHERE dead"))[0][0] == 0


async def test_a_long_outage_leaves_no_dead_letters(lab: Lab, stores: Stores) -> None:
    async with lab.app(OUTBOX_MAX_ATTEMPTS="1", OUTBOX_POLL_SECONDS="0.05") as app:
        async with lab.without("mongodb", "killed"):
            users = [(await app.client.post("/users/register", json=account())).json() for _ in range(10)]
            for _ in range(40):  # every wait and every lease is over, again and again: ten minutes of polls
                await query(stores, "UPDATE outbox_streams SET due_at = clock_timestamp() - interval '10 minutes'")
                await asyncio.sleep(0.1)
            attempts = await query(stores, "SELECT max(attempts), bool_or(dead) FROM outbox_streams WHERE pending > 0")
            assert tuple(attempts[0]) == (0, False)
        await until_empty(stores)
        assert await welcomes(stores, [user["user_id"] for user in users]) == [1] * 10


async def test_without_mongodb_a_profile_change_reaches_redis_at_once(lab: Lab, app: App, stores: Stores) -> None:
    headers = await register(app.client)
    async with lab.without("mongodb", "stopped"):
        for i in range(5):
            await app.client.patch("/users/me", headers=headers, json={"bio": f"b{i}"})
            entries: list[Any] = [await stores.redis.client.get(key) async for key in keys_of(stores, headers)]
            # One may be left under the name of Redis' history before, which nobody reads.
            assert b"t" in [entry[:1] for entry in entries]
            assert not any(f'"b{i - 1}"'.encode() in entry for entry in entries)
            assert (await app.client.get("/users/me", headers=headers)).json()["bio"] == f"b{i}"
    await until_empty(stores)


def keys_of(stores: Stores, headers: dict[str, str]) -> AsyncIterator[bytes]:
    return stores.redis.client.scan_iter(match=f"*{headers['X-User-Id']}*")


@pytest.fixture
async def patient(lab: Lab) -> AsyncIterator[App]:
    async with lab.app(**IN_NO_HURRY) as app:
        yield app


async def test_no_reader_sees_an_older_profile_than_the_last_acknowledged_when_redis_is_killed(
    lab: Lab, patient: App
) -> None:
    users = [await register(patient.client) for _ in range(5)]
    acknowledged = [0] * len(users)
    stale: list[str] = []
    over = asyncio.Event()

    async def change(i: int) -> None:
        number = 0
        while not over.is_set():
            number += 1
            answer = await patient.client.patch("/users/me", headers=users[i], json={"bio": str(number)})
            assert answer.status_code == 200
            acknowledged[i] = number

    async def read(i: int, client: httpx.AsyncClient) -> None:
        while not over.is_set():
            expected = acknowledged[i]
            seen = (await client.get("/users/me", headers=users[i])).json()["bio"] or "0"
            if int(seen) < expected:
                stale.append(f"{seen} < {expected}")

    async with lab.app(**IN_NO_HURRY) as other:
        tasks = [asyncio.create_task(change(i)) for i in range(len(users))]
        tasks += [asyncio.create_task(read(i, one.client)) for i in range(len(users)) for one in (patient, other)]
        for _ in range(10 if LONG else 2):
            await asyncio.sleep(0.7)
            async with lab.without("redis", "killed"):
                await asyncio.sleep(0.4)
        await asyncio.sleep(1)
        over.set()
        await asyncio.gather(*tasks)
    assert min(acknowledged) > 3
    assert stale == []


async def whole_or_absent(lab: Lab, stores: Stores, name: str) -> bool:
    """True when the user exists with everything, False when nothing of it exists. Fails on anything between."""
    rows = await query(stores, "SELECT id::text FROM users WHERE username = :name", name=name)
    profiles = await query(
        stores, "SELECT 1 FROM profiles JOIN users ON user_id = id WHERE username = :name", name=name
    )
    assert len(rows) == len(profiles) <= 1
    if rows:
        assert await welcomes(stores, [rows[0][0]]) == [1]
        assert await stores.mongodb.database.activity.count_documents({"user_id": rows[0][0]}) == 1
    return bool(rows)


async def test_killed_at_any_call_to_a_store_a_registration_is_whole_or_absent(
    lab: Lab, app: App, stores: Stores
) -> None:
    outcomes = []
    for n in range(1, 60, STRIDE):
        body = account()
        if not await killed_at(lab, n, "POST", "/users/register", {}, body):
            break
        await until_delivered(stores)
        outcomes.append(await whole_or_absent(lab, stores, body["username"]))
    assert len(outcomes) >= 15 // STRIDE
    assert outcomes == sorted(outcomes)  # absent up to the commit, whole from there on
    assert set(outcomes) == {False, True}


async def test_killed_at_any_call_to_a_store_a_profile_change_is_whole_or_absent(
    lab: Lab, app: App, stores: Stores
) -> None:
    changed = []
    for n in range(1, 60, STRIDE):
        headers = await register(app.client)
        await app.client.get("/users/me", headers=headers)
        if not await killed_at(lab, n, "PATCH", "/users/me", headers, {"bio": "new", "level": "C2"}):
            break
        await until_delivered(stores)
        profile = (await app.client.get("/users/me", headers=headers)).json()
        assert (profile["bio"], profile["level"], profile["version"]) in {("new", "C2", 2), ("", "A1", 1)}
        logged = await stores.mongodb.database.activity.count_documents({"user_id": headers["X-User-Id"]})
        assert logged == profile["version"] + 1  # registered, signed in, and changed only if it was
        changed.append(profile["version"] == 2)
    assert len(changed) >= 12 // STRIDE
    assert changed == sorted(changed)
    assert set(changed) == {False, True}


@pytest.fixture
async def through_proxies(lab: Lab) -> AsyncIterator[Any]:
    """An app in this process whose MongoDB and Redis are behind proxies."""
    settings = lab.settings
    async with proxy_to(lab.servers["mongodb"].port) as mongodb, proxy_to(lab.servers["redis"].port) as redis:
        behind = settings_through(settings, lab, mongodb.port, redis.port)
        async with open_stores(behind) as stores:
            app = create_app(behind, stores)
            async with app.router.lifespan_context(app):
                transport = httpx.ASGITransport(app)
                async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                    yield client, mongodb, redis


def settings_through(settings: Settings, lab: Lab, mongodb: int, redis: int) -> Settings:
    def moved(dsn: str, old: int, new: int) -> str:
        return dsn.replace(f":{old}", f":{new}")

    values = settings.model_dump()
    values["mongodb_dsn"] = moved(settings.dsn("mongodb_dsn"), lab.servers["mongodb"].port, mongodb)
    values["redis_dsn"] = moved(settings.dsn("redis_dsn"), lab.servers["redis"].port, redis)
    return Settings(_env_file=None, **values)


async def test_a_write_that_lands_after_its_retry_changes_nothing(through_proxies: Any, stores: Stores) -> None:
    client, mongodb, redis = through_proxies
    headers = await register(client)
    await client.get("/users/me", headers=headers)
    await until_empty(stores)
    mongodb.hold(b"insert")
    redis.hold(b"EVALSHA")
    body = account()
    registered = await client.post("/users/register", json=body)
    changed = await client.patch("/users/me", headers=headers, json={"bio": "first"})
    assert (registered.status_code, changed.status_code) == (201, 200)
    assert mongodb.held >= 1
    assert redis.held >= 1
    mongodb.hold_no_more()
    redis.hold_no_more()
    await until_empty(stores)  # the relay has repeated them
    await client.patch("/users/me", headers=headers, json={"bio": "second"})
    before = (await client.get("/users/me", headers=headers)).json()
    user_id = registered.json()["user_id"]
    documents = await stores.mongodb.database.conversations.find({"user_id": user_id}).to_list(10)
    mongodb.release()
    redis.release()
    await asyncio.sleep(0.5)
    assert await stores.mongodb.database.conversations.find({"user_id": user_id}).to_list(10) == documents
    assert len(documents) == 1
    assert await stores.mongodb.database.activity.count_documents({"user_id": user_id}) == 1
    assert (await client.get("/users/me", headers=headers)).json() == before
    assert before["bio"] == "second"


async def test_a_registration_is_one_statement_for_its_rows_and_one_for_what_it_owes(
    through_proxies: Any, lab: Lab
) -> None:
    async with open_stores(lab.settings) as stores:
        app = create_app(lab.settings, stores)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
        ):
            statements: list[str] = []
            engine = stores.postgres.engine.sync_engine
            event.listen(engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
            assert (await client.post("/users/register", json=account())).status_code == 201
    assert len(statements) == 2, statements
    assert all(f"INSERT INTO {table} " in statements[0] for table in ("users", "profiles"))
    assert "INSERT INTO outbox " in statements[1]


class InMongo(Journal):
    """Inserts each effect as a document, so that the store itself tells what it holds."""

    def __init__(self, collection: Any) -> None:
        super().__init__()
        self._collection = collection

    async def note(self, stream: str, number: int) -> None:
        self.applied[stream].append(number)
        with suppress(DuplicateKeyError):
            await self._collection.insert_one({"_id": f"{stream}/{number}"})


@pytest.fixture
async def own(lab: Lab) -> AsyncIterator[Stores]:
    """Stores of which no app has the outbox: its relay would lease effects that it does not know."""
    async with fresh_databases(lab.servers, mongodb_timeout=5) as settings, open_stores(settings) as stores:
        yield stores


async def test_thousands_of_effects_of_100_aggregates_are_applied_once_and_in_order(own: Stores) -> None:
    journal = InMongo(own.mongodb.database.noted)
    outboxes = [make_outbox(own, journal, deadline=10) for _ in range(2)]
    for outbox in outboxes:
        outbox.start()
    connections = asyncio.Semaphore(16)

    async def writer(aggregate: int) -> None:
        for start in range(0, EACH, 5):
            batch = [Noted(on=f"lot{aggregate}", number=number) for number in range(start, start + 5)]
            async with connections:
                await write(outboxes[start // 5 % 2], own, batch, deliver=start % 10 == 0)

    started = time.monotonic()
    await asyncio.gather(*(writer(i) for i in range(100)))
    await until_empty(own, 120)
    for outbox in outboxes:
        await outbox.close()
    print(f"{100 * EACH / (time.monotonic() - started):.0f} effects a second, {journal.repeats()} repeated")
    assert all(journal.firsts(f"lot{i}/mongodb") == list(range(EACH)) for i in range(100))
    assert await own.mongodb.database.noted.count_documents({}) == 100 * EACH
    assert journal.repeats() <= 10 * EACH  # whose answers came too late on a busy machine


class Locked(Journal):
    """Inserts as the app does: a write that stalls is a store that is not available."""

    def __init__(self, stores: Stores) -> None:
        super().__init__()
        self._stores = stores

    async def note(self, stream: str, number: int) -> None:
        async with self._stores.mongodb.operation() as database:
            await database.noted.insert_one({"_id": f"{stream}/{number}"})
        self.applied[stream].append(number)


async def test_while_mongodb_is_locked_nothing_is_parked_and_unlocked_it_gets_everything(lab: Lab) -> None:
    """Its writes stall and `hello` answers, for longer than all attempts would last."""
    async with fresh_databases(lab.servers, mongodb_timeout=0.5) as settings, open_stores(settings) as own:
        admin = own.mongodb.probe.admin

        async def hello() -> None:
            await admin.command("hello")

        outbox = make_outbox(own, Locked(own), max_attempts=2, pings={"redis": well, "mongodb": hello})
        outbox.start()
        await admin.command("fsync", lock=True)
        try:
            for i in range(3):
                await write(outbox, own, [Noted(on=f"lot{i}", number=n) for n in range(2)])

            async def all_are_stuck() -> bool:
                return (await outbox.backlog())["stuck"] == 3

            await until(all_are_stuck, 60)
            state = await outbox.backlog()
            assert (state["backlog"], state["dead"], state["attempts"]) == (6, 0, 0)
        finally:
            await admin.command("fsyncUnlock")
        await until_empty(own, 40)
        assert await own.mongodb.database.noted.count_documents({}) == 6
        assert (await outbox.backlog())["stuck"] == 0
        await outbox.close()
