"""`manage.py outbox`: what is owed to other stores and to mail, and what to do with what is dead or stuck."""

from typing import TypeVar

import click

from tristore.ops.runner import runner
from tristore.ops.service import Service, Services
from tristore.ops.terminal import Group, coloured
from tristore.outbox.repository import OutboxRepository, StreamState
from tristore.settings import S

Q = TypeVar("Q", str, str | None)


def outbox_commands(service: Service[S]) -> click.Group:
    """The commands, on the stores of the service."""
    run = runner(service)

    @click.group(cls=Group)
    def outbox() -> None:
        """What committed transactions still owe to other stores and to mail."""

    @outbox.command("list")
    @click.option("--dead", is_flag=True, help="Only streams whose first effect is parked.")
    def list_(dead: bool) -> None:
        """Streams with work: dead ones first, then stuck ones, then oldest first."""
        rows = run(lambda repository, _: repository.streams(dead_only=dead))
        for row in rows:
            click.echo(coloured(_line(row)))
        click.echo(f"{len(rows)} streams")

    @outbox.command()
    @click.argument("aggregate")
    def show(aggregate: str) -> None:
        """The effects owed to an aggregate such as saga:<id>, in order, with their payloads (personal data)."""
        for row in run(lambda repository, _: repository.effects(aggregate)):
            click.echo(f"{row.id}  {row.store}  {row.name}  {row.created_at:%F %T}Z  {row.payload}")

    @outbox.command()
    @click.argument("aggregate", required=False)
    @click.argument("store", required=False)
    @click.option("--all", "all_", is_flag=True, help="All streams that have failed.")
    @click.option("--store", "only", help="With --all: those of one store.")
    def retry(aggregate: str | None, store: str | None, all_: bool, only: str | None) -> None:
        """Try a stream again now, or all that have failed. Their attempts are counted anew."""
        if all_ == bool(aggregate) or bool(aggregate) != bool(store) or (only and not all_):
            raise click.UsageError("Name AGGREGATE and STORE, or --all.")
        found = run(lambda repository, _: repository.retry(aggregate, _queue(repository, store or only)))
        if not found and not all_:
            raise click.ClickException("No such stream has work, or it is being delivered right now.")
        click.echo(f"{found} streams are due now." if all_ else "Due now.")

    @outbox.command()
    @click.argument("aggregate")
    @click.argument("store")
    def skip(aggregate: str, store: str) -> None:
        """Drop the first effect of a dead or stuck stream for good, and go on with the next."""
        skipped = run(lambda repository, _: repository.skip(aggregate, _queue(repository, store)))
        if skipped is None:
            raise click.ClickException("That stream is neither dead nor stuck, or it is being tried right now.")
        click.echo(f"Dropped effect {skipped}.")

    @outbox.command()
    @click.argument("aggregate")
    @click.argument("store")
    def recount(aggregate: str, store: str) -> None:
        """Count the effects of a stream anew, when `manage.py check` has found that it counts wrongly."""
        counted = run(lambda repository, _: repository.recount(aggregate, _queue(repository, store)))
        click.echo(f"It counts {counted} now.")

    @outbox.command()
    def drain() -> None:
        """Deliver until nothing is owed but what is dead or stuck."""
        state = run(_drain)
        stuck = f" {state['stuck']:.0f} streams are stuck." if state["stuck"] else ""
        click.echo(f"Delivered. {state['parked']:.0f} effects are in {state['dead']:.0f} dead streams.{stuck}")

    return outbox


def _queue(repository: OutboxRepository, name: Q) -> Q:
    """The name itself. Raises click.BadParameter when there is no such queue."""
    if name is not None and name not in repository.queues:
        raise click.BadParameter(f"{name!r} is not one of {', '.join(repository.queues)}.")
    return name


def _line(row: StreamState) -> str:
    state = "dead" if row.dead else "stuck" if row.stuck else "leased" if row.lease_until else "waiting"
    waits_for = f" for {row.waits_for}" if row.waits_for and state == "waiting" else ""
    times = f"{row.refusals} refusals" if row.waits_for else f"{row.attempts} attempts"
    error = f"  {times}, last: {row.last_error}" if row.last_error or row.attempts else ""
    what = f"{row.pending} pending since {row.since:%F %T}Z"
    return f"{row.aggregate}  {row.store}  {state}{waits_for}  {what}{error}"


async def _drain(repository: OutboxRepository, services: Services) -> dict[str, float]:
    await services.outbox.drain()
    return await repository.backlog()
