"""What is repeated because the answer to a COMMIT was lost, or sent twice at once, is answered as if it came once."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from models.course import EXAMPLE
from tests.product.keys import key
from tests.product.people import account, register, register_admin
from tests.product.sessions import ENDINGS, PASSWORD, Clients, Ending, Headers, Member, are_waiting, join, warm
from tests.product.things import new_course, start_conversation
from tests.product.town import Thing, Town, town_in
from tests.under_test import Lab
from tristore.stores.stores import Stores
from tristore.testing.lab import App, until
from tristore.testing.outbox import empty, query
from tristore.testing.proxy import proxy_to

ERASURE = Ending("/users/me", [401] * 3)
ALL = [*ENDINGS, ERASURE]
each_ending = pytest.mark.parametrize("ending", ALL, ids=["logout", "logout-all", "password", "erasure"])


@pytest.fixture(scope="module")
async def town(lab: Lab) -> AsyncIterator[Town]:
    async with town_in(lab) as town:
        yield town


def method_of(ending: Ending) -> str:
    return "DELETE" if ending is ERASURE else "POST"


async def send(client: httpx.AsyncClient, ending: Ending, headers: Headers) -> int:
    return (await client.request(method_of(ending), ending.path, headers=headers, json=ending.body)).status_code


async def known_everywhere(town: Town) -> Member:
    # Nobody delivers what an earlier test left. Until then a process that did not hear Redis for a second would not
    # believe it again.
    await empty(town.stores)
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


CREATIONS: list[tuple[str, dict[str, Any]]] = [
    ("/users/register", {}),
    ("/courses", EXAMPLE),
    ("/courses/batch", {"courses": [EXAMPLE, EXAMPLE]}),
]


@pytest.mark.parametrize(("path", "body"), CREATIONS, ids=[path for path, _ in CREATIONS])
async def test_what_was_made_without_an_answer_is_there_once_when_it_is_asked_for_again(
    town: Town, path: str, body: dict[str, Any]
) -> None:
    headers = await register_admin(town.there, town.stores) | key()
    body = body or account()
    await town.lose_answer_to("POST", path, headers, body)
    await assert_made(path, headers, body, town.clients)


async def assert_made(path: str, headers: Headers, body: dict[str, Any], clients: Clients) -> None:
    answers = [await client.post(path, headers=headers, json=body) for client in (*clients, *clients)]
    assert [(answer.status_code, answer.headers["Idempotency-Replayed"]) for answer in answers] == [(201, "true")] * 4
    assert len({answer.text for answer in answers}) == 1


async def test_a_conversation_that_was_started_without_an_answer_is_there_once(lab: Lab, app: App) -> None:
    async with proxy_to(lab.servers["mongodb"].port) as mongodb:
        dsn = lab.settings.dsn("mongodb_dsn").replace(str(lab.servers["mongodb"].port), str(mongodb.port))
        async with lab.app(MONGODB_DSN=dsn) as here:
            headers, body = await register(app.client) | key(), {"title": "t"}
            mongodb.lose_answer_to = b"idempotency_key"
            lost = await here.client.post("/conversations", headers=headers, json=body)
            assert (lost.status_code, mongodb.lost) == (503, 1)
            mongodb.lose_answer_to = b""
            await assert_made("/conversations", headers, body, (app.client, here.client))
            made = (await app.client.get("/conversations", headers=headers)).json()["items"]
            assert [conversation["title"] for conversation in made].count("t") == 1


async def things(town: Town) -> dict[str, Thing]:
    learner, admin = await register(town.there), await register_admin(town.there, town.stores)
    talk = await start_conversation(town.there, learner)
    lesson = f"/courses/{(await new_course(town.there, admin))['id']}"
    return {
        "conversation": Thing("DELETE", talk, 204, learner),
        "course": Thing("DELETE", lesson, 204, admin),
    }


@pytest.mark.parametrize("kind", ["conversation", "course"])
async def test_what_was_undone_without_an_answer_is_undone_when_it_is_asked_again(town: Town, kind: str) -> None:
    thing = (await things(town))[kind]
    await town.lose_answer_to(thing.method, thing.path, thing.headers)
    for client in (town.here, town.there):
        assert (await thing.undo(client)).status_code == thing.status
        assert (await client.get(thing.path, headers=thing.headers)).status_code == 404


@pytest.mark.parametrize("kind", ["conversation", "course"])
async def test_what_is_undone_twice_at_once_gets_the_same_answer_twice(town: Town, kind: str) -> None:
    await (await things(town))[kind].undo_at_once(town)
