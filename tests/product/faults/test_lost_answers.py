"""What is repeated because the answer to a COMMIT was lost, or sent twice at once, is answered as if it came once."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from functools import partial

import httpx
import pytest
from sqlalchemy import text

from tests.product.orders import order
from tests.product.people import register, register_admin
from tests.product.sessions import (
    CEILINGS,
    ENDINGS,
    PASSWORD,
    PATIENT,
    Clients,
    Ending,
    Headers,
    Member,
    are_waiting,
    join,
    warm,
)
from tests.product.things import new_course
from tests.under_test import Lab, fresh_databases
from tristore.stores.stores import Stores, open_stores
from tristore.testing.lab import until
from tristore.testing.outbox import query
from tristore.testing.proxy import Proxy, proxy_to

# Nobody else delivers what a request has left, nor does any copy end by itself.
ALONE = {**PATIENT, **CEILINGS, "OUTBOX_POLL_SECONDS": "600"}
ERASURE = Ending("/users/me", [401] * 3)
ALL = [*ENDINGS, ERASURE]
each_ending = pytest.mark.parametrize("ending", ALL, ids=["logout", "logout-all", "password", "erasure"])


@dataclass(frozen=True)
class Town:
    """Two processes; the proxies are between the first and its stores."""

    clients: Clients
    postgresql: Proxy
    redis: Proxy
    stores: Stores

    @property
    def here(self) -> httpx.AsyncClient:
        return self.clients[0]

    @property
    def there(self) -> httpx.AsyncClient:
        return self.clients[1]

    async def lose_answer_to(self, method: str, path: str, headers: Headers, body: object = None) -> None:
        self.postgresql.lost, self.postgresql.lose_answer_to = 0, b"COMMIT;"
        answer = await self.here.request(method, path, headers=headers, json=body)
        self.postgresql.lose_answer_to = b""
        assert (answer.status_code, self.postgresql.lost) == (503, 1)

    async def hold(self, member: Member, after: list[int]) -> None:
        for client in (self.there, self.here):
            assert await member.statuses(client) == after


@pytest.fixture(scope="module")
async def town(lab: Lab) -> AsyncIterator[Town]:
    async with (
        fresh_databases(lab.servers) as settings,
        proxy_to(lab.servers["postgresql"].port) as postgresql,
        proxy_to(lab.servers["redis"].port) as redis,
        open_stores(settings.model_copy(update={"mongodb_timeout": 5})) as stores,
    ):
        own = replace(lab, settings=settings)
        port = str(lab.servers["postgresql"].port)
        through = {
            "POSTGRES_DSN": settings.dsn("postgres_dsn").replace(f":{port}/", f":{postgresql.port}/"),
            "REDIS_DSN": f"redis://127.0.0.1:{redis.port}/0",
            "POSTGRES_REQUEST_DEADLINE": "3",
        }
        async with own.app(**ALONE | through) as here, own.app(**ALONE) as there:
            yield Town((here.client, there.client), postgresql, redis, stores)


def method_of(ending: Ending) -> str:
    return "DELETE" if ending is ERASURE else "POST"


async def send(client: httpx.AsyncClient, ending: Ending, headers: Headers) -> int:
    return (await client.request(method_of(ending), ending.path, headers=headers, json=ending.body)).status_code


async def known_everywhere(town: Town) -> Member:
    member = await join(town.there)
    for client in town.clients:
        await warm(client, *member.sessions)
    return member


@each_ending
async def test_an_ending_whose_answer_was_lost_holds_everywhere_when_it_is_repeated(town: Town, ending: Ending) -> None:
    member = await known_everywhere(town)
    await town.lose_answer_to(method_of(ending), ending.path, member.sessions[0], ending.body)
    await town.hold(member, [200] * 3)  # it is committed, and nobody was told
    assert await send(town.here, ending, member.sessions[0]) == (202 if ending is ERASURE else 204)
    await town.hold(member, ending.after)


@each_ending
async def test_an_ending_that_is_sent_twice_at_once_holds_everywhere_after_either_answer(
    town: Town, ending: Ending
) -> None:
    member = await known_everywhere(town)
    town.redis.hold(b"EVALSHA")  # the first is committed, and tells nobody for a while
    first = asyncio.create_task(send(town.here, ending, member.sessions[0]))
    await until(lambda: is_committed(town.stores, member), 5)
    assert await send(town.there, ending, member.sessions[0]) == (202 if ending is ERASURE else 204)
    assert await member.statuses(town.there) == ending.after
    town.redis.release()
    assert await first == (202 if ending is ERASURE else 204)
    await town.hold(member, ending.after)


async def is_committed(stores: Stores, member: Member) -> bool:
    """No session of it is left as it was. An erased name is nobody's."""
    sql = (
        "SELECT count(*) = 3 FROM sessions JOIN users u ON u.id = user_id WHERE username = :name AND revoked_at IS NULL"
    )
    return not (await query(stores, sql, name=member.username))[0][0]


async def test_of_two_sessions_that_change_the_password_alike_at_once_the_first_one_lives(town: Town) -> None:
    member = await known_everywhere(town)
    async with town.stores.postgres.engine.begin() as connection:
        # Lets both verify the old password and begin to write, and neither finish.
        await connection.execute(text("LOCK TABLE sessions IN SHARE MODE"))
        changes = []
        for number, session in enumerate(member.sessions[:2], 1):
            changes.append(asyncio.create_task(send(town.there, PASSWORD, session)))
            await until(partial(are_waiting, town.stores, number), 5)
    assert await asyncio.gather(*changes) == [204, 401]
    await town.hold(member, PASSWORD.after)


@dataclass(frozen=True)
class Thing:
    """That can be undone, and what then tells so."""

    method: str
    path: str
    status: int
    shown: str
    headers: Headers


async def things(town: Town) -> dict[str, Thing]:
    learner, admin = await register(town.there), await register_admin(town.there, town.stores)
    course = await new_course(town.there, admin, price_cents=1000)
    placed = (await order(town.there, learner, course)).json()
    assert placed["status"] == "confirmed"
    made = (await town.there.post("/conversations", headers=learner, json={"title": "t"})).json()
    talk, lesson, bought = f"/conversations/{made['id']}", f"/courses/{course['id']}", f"/orders/{placed['id']}"
    return {
        "conversation": Thing("DELETE", talk, 204, talk, learner),
        "course": Thing("DELETE", lesson, 204, lesson, admin),
        "order": Thing("POST", f"{bought}/cancel", 202, bought, learner),
    }


@pytest.mark.parametrize("kind", ["conversation", "course", "order"])
async def test_what_was_undone_without_an_answer_is_undone_when_it_is_asked_again(town: Town, kind: str) -> None:
    thing = (await things(town))[kind]
    await town.lose_answer_to(thing.method, thing.path, thing.headers)
    for client in (town.here, town.there):
        again = await client.request(thing.method, thing.path, headers=thing.headers)
        assert again.status_code == thing.status
        shown = await client.get(thing.shown, headers=thing.headers)
        assert shown.status_code == 404 or (shown.json() == again.json() and again.json()["reason"] == "by the user")


@pytest.mark.parametrize("kind", ["conversation", "course", "order"])
async def test_what_is_undone_twice_at_once_gets_the_same_answer_twice(town: Town, kind: str) -> None:
    thing = (await things(town))[kind]
    requests = (client.request(thing.method, thing.path, headers=thing.headers) for client in town.clients * 3)
    answers = await asyncio.gather(*requests)
    assert {(answer.status_code, answer.text) for answer in answers} == {(thing.status, answers[0].text)}
