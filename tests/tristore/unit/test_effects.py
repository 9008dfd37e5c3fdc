"""What an effect must say of itself, and which queues there are."""

from typing import ClassVar

import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from tristore.errors import StoreUnavailable
from tristore.outbox.effects import Effect, NotYet
from tristore.outbox.relay import Outbox
from tristore.outbox.repository import OutboxRepository
from tristore.outbox.tables import AGGREGATE_LENGTH
from tristore.outbox.unit_of_work import PostgresUnitOfWork
from tristore.stores.stores import Stores
from tristore.testing.lab import until
from tristore.testing.outbox import QUEUES, Journal, Noted, make_outbox, well, write


class Named(Effect):
    queue: ClassVar[str] = "redis"
    name: str

    @property
    def aggregate(self) -> str:
        return self.name

    async def apply(self, to: object) -> None: ...


@pytest.mark.parametrize("name", ["account:1", "two_words:a:undo", "k:" + "x" * (AGGREGATE_LENGTH - 2)])
def test_an_aggregate_has_a_kind_and_an_id(name: str) -> None:
    assert Named(name=name).aggregate == name


@pytest.mark.parametrize("name", ["", "account", "account:", ":1", "account: 1", "k:" + "x" * (AGGREGATE_LENGTH - 1)])
def test_another_name_is_refused_when_the_effect_is_built(name: str) -> None:
    with pytest.raises(ValidationError, match=r"Named\.aggregate is .* such as account:<id>.* at most 64 characters"):
        Named(name=name)


async def test_a_queue_that_nobody_serves_is_refused(fresh: Stores) -> None:
    class Lost(Named):
        queue: ClassVar[str] = "pigeons"

    repository = OutboxRepository(fresh.postgres, QUEUES, 3)
    with pytest.raises(ValueError, match="Lost waits in the queue 'pigeons', but the outbox serves only redis, "):
        async with PostgresUnitOfWork(fresh.postgres, repository.record) as uow:
            uow.effects.append(Lost(name="a:1"))
            await uow.commit()


class Posted(Noted):
    queue: ClassVar[str] = "mail"


async def test_a_fourth_queue_needs_only_its_name_and_its_probe(fresh: Stores) -> None:
    journal = Journal()
    is_down = True

    async def before(stream: str, number: int) -> None:
        if is_down:
            raise StoreUnavailable("mail", "unreachable")

    async def ping() -> None:
        await before("", 0)

    journal.before = before
    outbox = Outbox(
        repository=OutboxRepository(fresh.postgres, [*QUEUES, "mail"], 1),
        targets=journal,
        pings={"redis": well, "mongodb": well, "mail": ping},
        deadline=1,
        poll_seconds=0.1,
    )
    outbox.start()
    owed = await write(outbox, fresh, [Posted(on="letter", number=1)])

    async def is_paused() -> bool:
        return outbox._pauses.is_paused("mail")

    await until(is_paused, 10)
    is_down = False
    assert await outbox.applied_within(owed, 10)
    await outbox.close()
    assert (journal.applied["letter/mail"], outbox.counts["failed"]) == ([1], 0)


class Overtaking(Noted):
    any_order: ClassVar[bool] = True


async def test_expected_waiting_is_no_warning(fresh: Stores) -> None:
    journal = Journal()

    async def before(stream: str, number: int) -> None:
        raise NotYet

    journal.before = before
    outbox = make_outbox(fresh, journal)  # no relay runs
    with capture_logs() as logs:
        await write(outbox, fresh, [Overtaking(on="patient", number=1)])  # takes the lease of the stream
        await write(outbox, fresh, [Overtaking(on="patient", number=2)])  # overtakes
    assert len(logs) == 2
    assert {line["log_level"] for line in logs} == {"debug"}
