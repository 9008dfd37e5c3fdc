"""How two stores are compared: in batches, twice where something seems wrong, and not for ever."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field

import pytest

from tristore.errors import StoreUnavailable
from tristore.ops.agreement import AT_ONCE, MOST, Check, Comparison, Seen, miscounted, missing
from tristore.outbox.repository import OutboxRepository
from tristore.outbox.unit_of_work import PostgresUnitOfWork
from tristore.stores.keys import InAny
from tristore.stores.stores import Stores
from tristore.testing.outbox import (
    Journal,
    Noted,
    NotedLater,
    aggregate_of,
    make_outbox,
    outbox_repository,
    query,
    write,
)


@dataclass
class Held:
    """Keys in memory, and how many were asked for at most."""

    keys: list[str]
    most: int = 0
    asked: list[Collection[str]] = field(default_factory=list)

    async def following(self, after: str, limit: int) -> Sequence[str]:
        self.most = max(self.most, limit)
        return [key for key in sorted(self.keys) if key > after][:limit]

    async def among(self, keys: Collection[str]) -> set[str]:
        self.asked.append(keys)
        return set(self.keys) & set(keys)


def numbers(count: int) -> list[str]:
    return [f"{number:06}" for number in range(count)]


@pytest.fixture
def outbox(fresh: Stores) -> OutboxRepository:
    return outbox_repository(fresh)


def comparison(outbox: OutboxRepository, told: list[str] | None = None) -> Comparison:
    return Comparison(outbox, 0.01, (told if told is not None else []).append)


async def test_every_key_is_looked_at_in_batches_and_what_is_missing_is_found(outbox: OutboxRepository) -> None:
    every, told = Held([*numbers(1234), *numbers(10)]), list[str]()
    has = Held([key for key in numbers(1234) if key not in {"000000", "000777", "001233"}])
    result = await comparison(outbox, told).run(missing("things", "mend them", every, has))
    assert list(result.wrong) == ["000000", "000777", "001233"]
    assert (result.looked_at, result.under_way, result.is_whole) == (1234, 0, True)
    assert every.most == AT_ONCE
    assert max(map(len, has.asked)) <= AT_ONCE
    assert told[-1] == "things: 1234 looked at, 3 to look at again"


async def test_a_key_that_fills_more_than_a_batch_is_looked_at_once(outbox: OutboxRepository) -> None:
    every = Held(["a"] * (3 * AT_ONCE) + ["b"])
    result = await comparison(outbox).run(missing("things", "", every, Held(["b"])))
    assert (list(result.wrong), result.looked_at) == (["a"], 2)


async def test_what_came_or_went_meanwhile_is_not_wrong(outbox: OutboxRepository) -> None:
    every, has = Held(["came", "went", "wrong"]), Held([])
    slow = Comparison(outbox, 0.3, lambda line: None)
    running = asyncio.create_task(slow.run(missing("things", "", every, has)))
    while not has.asked:
        await asyncio.sleep(0.01)
    has.keys.append("came")
    every.keys.remove("went")
    assert list((await running).wrong) == ["wrong"]


async def test_what_is_gone_from_both_when_it_is_looked_up_is_not_wrong(outbox: OutboxRepository) -> None:
    every = Held(["gone"])

    class Late(Held):
        async def among(self, keys: Collection[str]) -> set[str]:
            every.keys.clear()
            return set()

    assert not (await comparison(outbox).run(missing("things", "", every, Late([])))).wrong


@pytest.mark.parametrize("effect", [Noted, NotedLater])
async def test_what_is_owed_is_not_wrong_yet(fresh: Stores, outbox: OutboxRepository, effect: type[Noted]) -> None:
    await write(make_outbox(fresh, None), fresh, [effect(on="owed", number=1)], deliver=False)
    check = missing("things", "", Held(["owed", "wrong"]), Held([]), aggregate_of)
    result = await comparison(outbox).run(check)
    assert (list(result.wrong), result.under_way) == (["wrong"], 1)


async def test_what_cannot_be_told_is_under_way(outbox: OutboxRepository) -> None:
    async def look(keys: Collection[str]) -> Seen:
        return Seen({"a": "in words"}, ["b"])

    result = await comparison(outbox).run(Check("things", "", Held(["a", "b"]).following, look))
    assert (result.wrong, result.under_way) == ({"a": "in words"}, 1)


async def test_it_ends_when_there_is_more_wrong_than_anybody_reads(outbox: OutboxRepository) -> None:
    every = Held(numbers(3 * MOST))
    result = await comparison(outbox).run(missing("things", "", every, Held([])))
    assert MOST <= len(result.wrong) == result.looked_at < 2 * MOST
    assert not result.is_whole


async def test_much_that_only_seems_wrong_does_not_end_it(outbox: OutboxRepository) -> None:
    seen: set[str] = set()

    async def look(keys: Collection[str]) -> Seen:
        new = set(keys) - seen
        seen.update(keys)
        return Seen(dict.fromkeys(new, ""))

    result = await comparison(outbox).run(Check("things", "", Held(numbers(3 * MOST)).following, look))
    assert (result.wrong, result.looked_at, result.is_whole) == ({}, 3 * MOST, True)


def failing(
    times: int, call: Callable[[Collection[str]], Awaitable[Seen]]
) -> Callable[[Collection[str]], Awaitable[Seen]]:
    left = [times]

    async def fail(keys: Collection[str]) -> Seen:
        if left[0]:
            left[0] -= 1
            raise StoreUnavailable("mongodb", "timeout")
        return await call(keys)

    return fail


async def test_a_store_may_fail_to_answer_now_and_then(outbox: OutboxRepository) -> None:
    agreed = missing("things", "", Held(["a"]), Held(["a"]))
    often = Check("things", "", agreed.following, failing(2, agreed.look))
    assert (await comparison(outbox).run(often)).looked_at == 1
    too_often = Check("things", "", agreed.following, failing(3, agreed.look))
    with pytest.raises(StoreUnavailable):
        await comparison(outbox).run(too_often)


async def test_a_key_may_be_in_any_of_several_places() -> None:
    first, second = Held(["a"]), Held(["b", "a"])
    assert await InAny([first, second]).among(["a", "b", "c"]) == {"a", "b"}
    assert second.asked == [{"b", "c"}]
    assert await InAny([first]).among(["a"]) == {"a"}


async def test_streams_that_count_wrongly_are_found_and_recounted(fresh: Stores, outbox: OutboxRepository) -> None:
    await write(make_outbox(fresh, None), fresh, [Noted(on=on, number=1) for on in "abcd"], deliver=False)
    await query(fresh, "UPDATE outbox_streams SET pending = 5 WHERE aggregate = 'noted:b'")
    await query(fresh, "DELETE FROM outbox WHERE aggregate = 'noted:c'")
    await query(fresh, "DELETE FROM outbox_streams WHERE aggregate = 'noted:d'")
    check = miscounted(outbox)
    result = await comparison(outbox).run(check)
    assert result.looked_at == 4
    assert result.wrong == {
        "noted:b mongodb": "counts 5, has 1",
        "noted:c mongodb": "counts 1, has 0",
        "noted:d mongodb": "counts 0, has 1",
    }
    assert [await outbox.recount(f"noted:{on}", "mongodb") for on in "bcd"] == [1, 0, 1]
    assert not (await comparison(outbox).run(check)).wrong
    assert {row.aggregate for row in await outbox.streams(dead_only=False)} == {f"noted:{on}" for on in "abd"}


async def test_an_outbox_in_use_counts_rightly_whenever_one_looks(
    fresh: Stores, journal: Journal, outbox: OutboxRepository
) -> None:
    used = make_outbox(fresh, journal)

    async def streams() -> int:
        result = await comparison(outbox).run(miscounted(outbox))
        assert result.wrong == {}
        return result.looked_at

    await write(used, fresh, [Noted(on="a", number=1)], deliver=False)
    async with PostgresUnitOfWork(fresh.postgres, used.record) as uow:
        uow.effects += [Noted(on="a", number=2), Noted(on="b", number=1), NotedLater(on="b", number=2)]
        await uow.record()
        assert await streams() == 1  # of the transaction that is open nothing is seen
        await uow.commit()
    assert await streams() == 2
    await used.deliver(uow.owed)
    assert await streams() == 2
    assert journal.applied["b/mongodb"] == [1]
