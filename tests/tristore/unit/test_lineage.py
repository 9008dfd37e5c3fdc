"""Which errors say that a server cannot tell its history, and which that it could not now."""

from typing import Any, cast

import asyncpg
import pytest

from tristore.stores.hosts import Connection
from tristore.stores.lineage import Lineage


class Server:
    """Stands for a connection: says a name, or fails."""

    def __init__(self, says: object) -> None:
        self.says = says
        self.asked = 0

    async def fetchval(self, _: str) -> Any:
        self.asked += 1
        if isinstance(self.says, BaseException):
            raise self.says
        return self.says


async def learn(lineage: Lineage, server: Server) -> None:
    await lineage.learn(cast(Connection, server))


async def test_a_change_is_told_and_the_name_before_is_known_for_a_while() -> None:
    lineage, changes = Lineage(), list[str]()
    lineage.listen(lambda: changes.append(lineage.name))
    for name in ("a", "a", None, "b"):
        await learn(lineage, Server(name))
    assert changes == ["a", "b"]
    assert lineage.recently == "a"


async def test_a_server_that_cannot_tell_is_asked_once() -> None:
    lineage, server = Lineage(), Server(asyncpg.FeatureNotSupportedError("no such thing"))
    await learn(lineage, server)
    await learn(lineage, server)
    assert (server.asked, lineage.name) == (1, "")


@pytest.mark.parametrize("error", [asyncpg.AdminShutdownError(""), asyncpg.QueryCanceledError(""), OSError()])
async def test_a_server_that_fails_is_asked_again(error: Exception) -> None:
    lineage = Lineage()
    with pytest.raises(type(error)):
        await learn(lineage, Server(error))
    await learn(lineage, Server("a"))
    assert lineage.name == "a"


async def test_within_a_transaction_whatever_fails_is_raised() -> None:
    with pytest.raises(asyncpg.FeatureNotSupportedError):
        await Lineage().confirm(cast(Connection, Server(asyncpg.FeatureNotSupportedError(""))))
