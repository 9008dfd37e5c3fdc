"""A DSN with several hosts: whichever way the first one goes, the app is on the second within three seconds."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text

from tristore.errors import StoreUnavailable
from tristore.stores.hosts import Hosts
from tristore.stores.postgres import Postgres, connect, open_postgres, start_budget
from tristore.testing.lab import Lab, free_port, until
from tristore.testing.proxy import Proxy, proxy_to

SOON = 3.0


@dataclass(frozen=True)
class Pair:
    """Two hosts in front of one server."""

    first: Proxy
    second: Proxy
    dsn: str


@pytest.fixture
async def pair(lab: Lab) -> AsyncIterator[Pair]:
    port = lab.servers["postgresql"].port
    async with proxy_to(port) as first, proxy_to(port) as second:
        hosts = f"127.0.0.1:{first.port},127.0.0.1:{second.port}"
        yield Pair(first, second, lab.settings.dsn("postgres_dsn").replace(f"127.0.0.1:{port}", hosts))


@pytest.fixture
async def postgres(lab: Lab, pair: Pair) -> AsyncIterator[Postgres]:
    values = lab.settings.model_dump() | {"postgres_dsn": pair.dsn, "postgres_request_deadline": 0.9}
    async with open_postgres(type(lab.settings)(_env_file=None, **values)) as postgres:
        yield postgres


async def is_served(postgres: Postgres) -> bool:
    """As a request is: within its own time."""
    start_budget(0.9)
    try:
        async with connect(postgres.reads) as connection:
            return bool(await connection.scalar(text("SELECT true")))
    except StoreUnavailable:
        return False


async def are_served(postgres: Postgres, number: int) -> bool:
    """So many at once. Connecting takes a busy machine longer than one request has."""
    return all(await asyncio.gather(*(is_served(postgres) for _ in range(number))))


def hang(proxy: Proxy) -> None:
    proxy.black_hole = True


def cut_off(proxy: Proxy) -> None:
    assert proxy._server
    proxy._server.close()
    proxy.reset()


@pytest.mark.parametrize("go", [hang, cut_off])
async def test_a_host_that_goes_costs_seconds_and_all_its_connections_are_replaced(
    pair: Pair, postgres: Postgres, go: Callable[[Proxy], None]
) -> None:
    await until(lambda: are_served(postgres, 20), 20)
    assert not pair.second._links
    go(pair.first)
    assert await until(lambda: is_served(postgres), SOON) < SOON
    await until(lambda: are_served(postgres, 40), 20)
    assert pair.second._links


async def test_the_last_good_host_is_asked_first(pair: Pair) -> None:
    moves: list[None] = []
    hosts = Hosts(pair.dsn, lambda: moves.append(None))
    for _ in range(2):
        await (await hosts.connect(timeout=5)).close()
    assert not moves
    pair.first.black_hole = True
    started = time.monotonic()
    connections = [await hosts.connect(timeout=0.5) for _ in range(3)]
    assert 0.5 <= time.monotonic() - started < 1.0  # the hung host was asked once
    pair.first.black_hole = False
    connections.append(await hosts.connect(timeout=5))
    assert (len(moves), len(pair.second._links)) == (1, 4)
    for connection in connections:
        await connection.close()


async def test_who_has_no_time_left_for_the_second_host_leaves_it_to_the_next(pair: Pair) -> None:
    hosts = Hosts(pair.dsn)
    pair.first.black_hole = True
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await hosts.connect(timeout=5)
    async with asyncio.timeout(3):
        await (await hosts.connect(timeout=5)).close()


@pytest.mark.parametrize(
    ("failures", "raised"),
    [
        ([asyncpg.TargetServerAttributeNotMatched("standby"), OSError("unreachable")], OSError),
        ([OSError("unreachable"), asyncpg.TargetServerAttributeNotMatched("standby")], OSError),
        ([asyncpg.TargetServerAttributeNotMatched("standby")] * 2, asyncpg.TargetServerAttributeNotMatched),
        ([asyncpg.InvalidPasswordError("wrong")], asyncpg.InvalidPasswordError),
    ],
)
async def test_why_there_is_no_connection_is_what_helps_most(
    failures: list[Exception], raised: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    left = iter(failures)

    async def fail(**_: Any) -> None:
        raise next(left)

    monkeypatch.setattr(asyncpg, "connect", fail)
    with pytest.raises(raised):
        await Hosts("postgresql://app@a,b/app").connect()
    assert next(left, None) is None


async def test_a_port_where_nobody_listens_is_passed_over(lab: Lab) -> None:
    port = lab.servers["postgresql"].port
    dsn = lab.settings.dsn("postgres_dsn").replace(f"127.0.0.1:{port}", f"127.0.0.1:{free_port()},127.0.0.1:{port}")
    await (await Hosts(dsn).connect(timeout=5)).close()
