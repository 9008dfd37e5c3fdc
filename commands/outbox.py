"""`manage.py outbox`: what is owed to Redis and MongoDB, and what to do with what is dead."""

from typing import get_args

import click

from commands.stores import RunningSettings, runner
from dependencies import Services
from models.outbox import TargetStore
from repositories.outbox_repo import OutboxRepository

STREAM = (click.argument("aggregate"), click.argument("store", type=click.Choice(get_args(TargetStore))))


def outbox_commands(running_settings: RunningSettings) -> click.Group:
    """The commands, on the stores of the settings that `running_settings` gives."""
    run = runner(running_settings)

    @click.group()
    def outbox() -> None:
        """What committed transactions still owe to Redis and MongoDB."""

    @outbox.command("list")
    @click.option("--dead", is_flag=True, help="Only streams whose first effect is parked.")
    def list_(dead: bool) -> None:
        """Streams with work: dead ones first, then oldest first."""
        rows = run(lambda repository, _: repository.streams(dead_only=dead))
        for row in rows:
            state = "dead" if row.dead else "leased" if row.lease_until else "waiting"
            error = f"  {row.attempts} attempts, last: {row.last_error}" if row.attempts else ""
            click.echo(f"{row.aggregate}  {row.store}  {state}  {row.pending} pending since {row.since:%F %T}Z{error}")
        click.echo(f"{len(rows)} streams")

    @outbox.command()
    @click.argument("aggregate")
    def show(aggregate: str) -> None:
        """The effects owed to an aggregate such as user:<id>, in order, with their payloads (personal data)."""
        for row in run(lambda repository, _: repository.effects(aggregate)):
            click.echo(f"{row.id}  {row.store}  {row.name}  {row.created_at:%F %T}Z  {row.payload}")

    @outbox.command()
    @STREAM[0]
    @STREAM[1]
    def retry(aggregate: str, store: TargetStore) -> None:
        """Try a stream again now, with all its attempts before it."""
        if not run(lambda repository, _: repository.retry(aggregate, store)):
            raise click.ClickException("No such stream has work, or it is being delivered right now.")
        click.echo("Due now.")

    @outbox.command()
    @STREAM[0]
    @STREAM[1]
    def skip(aggregate: str, store: TargetStore) -> None:
        """Drop the first effect of a dead stream for good, and go on with the next."""
        skipped = run(lambda repository, _: repository.skip(aggregate, store))
        if skipped is None:
            raise click.ClickException("That stream is not dead.")
        click.echo(f"Dropped effect {skipped}.")

    @outbox.command()
    def drain() -> None:
        """Deliver until nothing is owed but what is dead."""
        state = run(_drain)
        click.echo(f"Delivered. {state['parked']:.0f} effects are in {state['dead']:.0f} dead streams.")

    return outbox


async def _drain(repository: OutboxRepository, services: Services) -> dict[str, float]:
    await services.outbox.drain()
    return await repository.backlog()
