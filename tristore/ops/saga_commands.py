"""`manage.py saga`: use cases over several stores that have not ended, and what to do with them."""

import uuid

import click

from tristore.ops.runner import runner
from tristore.ops.service import Service, Services
from tristore.ops.terminal import Group
from tristore.outbox.repository import OutboxRepository
from tristore.saga.effects import ContinueSaga
from tristore.saga.repository import OPEN
from tristore.saga.tables import Unfinished
from tristore.settings import S

SAGA = click.argument("saga_id", metavar="ID", type=click.UUID)


def saga_commands(service: Service[S]) -> click.Group:
    """The commands, on the stores of the service."""
    run = runner(service)

    @click.group(cls=Group)
    def saga() -> None:
        """Sagas: work over several stores that is done step by step, or undone."""

    @saga.command("list")
    def list_() -> None:
        """Sagas that are not at their end, the oldest first."""

        async def read(_: OutboxRepository, services: Services) -> list[str]:
            return [_line(row, services) for row in await services.sagas.unfinished()]

        lines = run(read)
        for line in lines:
            click.echo(line)
        click.echo(f"{len(lines)} sagas")

    @saga.command()
    @SAGA
    def show(saga_id: uuid.UUID) -> None:
        """One saga, whatever its state."""

        async def read(_: OutboxRepository, services: Services) -> str:
            row = await _one(services, saga_id)
            reason = f"  because: {row.reason}" if row.reason else ""
            return f"{_line(row, services)}  deadline {row.deadline:%F %T}Z{reason}"

        click.echo(run(read))

    @saga.command()
    @SAGA
    def retry(saga_id: uuid.UUID) -> None:
        """Go on with a saga now. Its attempts are counted anew."""

        async def make_due(repository: OutboxRepository, services: Services) -> bool:
            row = await _one(services, saga_id)
            if row.due_at is None and row.state in OPEN:  # its continuation was skipped
                await services.sagas.owe_again(saga_id, row.state)
                return True
            continues = ContinueSaga(saga_id=saga_id, undo=row.state == "compensating")
            return await repository.retry(continues.aggregate, None) > 0

        if not run(make_due):
            raise click.ClickException("It is at its end, or being continued right now.")
        click.echo("Due now.")

    @saga.command()
    @SAGA
    def compensate(saga_id: uuid.UUID) -> None:
        """Undo a saga that is running, or done."""

        async def give_up(_: OutboxRepository, services: Services) -> Unfinished:
            before = await _one(services, saga_id)
            await services.sagas.give_up(saga_id, "by an operator")
            return before

        before = run(give_up)
        late = f"after {before.deadline:%F %T}Z, when none of them can take effect any more"
        when = late if before.state == "running" else "within seconds"
        click.echo(f"Its steps are undone in reverse order by the running service, {when}.")

    return saga


async def _one(services: Services, saga_id: uuid.UUID) -> Unfinished:
    rows = await services.sagas.unfinished(saga_id)
    if not rows:
        raise click.ClickException("There is no such saga.")
    return rows[0]


def _line(row: Unfinished, services: Services) -> str:
    state = f"{row.state}, dead" if row.dead else row.state
    attempts = f"{row.attempts} attempts, " if row.attempts else ""  # none for a store's fault
    error = f"  {attempts}last: {row.last_error}" if row.last_error else ""
    step = services.sagas.next_step(row.name, row.state, row.step)
    return f"{row.id}  {row.name}  {state}  {step}  since {row.created_at:%F %T}Z{error}"
