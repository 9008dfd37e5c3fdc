"""`manage.py check`: what disagrees between the stores, and what to do about it."""

import json
from collections.abc import Iterator, Sequence

import click

from tristore.errors import StoreUnavailable
from tristore.ops.agreement import Comparison, Result, miscounted
from tristore.ops.cures import told
from tristore.ops.runner import runner
from tristore.ops.service import Service, Services
from tristore.ops.terminal import Progress
from tristore.outbox.repository import OutboxRepository
from tristore.settings import S

SHOWN = 10
"""Findings of a kind in the table. `--json` has all."""


class NotFinished(click.ClickException):
    """A store did not answer: nothing is known."""

    exit_code = 2


def check(service: Service[S], settle_seconds: float, *, as_json: bool) -> int:
    """Prints what is wrong. Returns the exit code: 1 when anything is. Raises click.ClickException."""

    async def look(repository: OutboxRepository, services: Services) -> list[Result]:
        comparison = Comparison(repository, settle_seconds, Progress())
        try:
            return [await comparison.run(each) for each in [*service.checks(services), miscounted(repository)]]
        except StoreUnavailable as error:
            raise NotFinished(told(error)) from None

    results = runner(service)(look)
    click.echo(_json(results) if as_json else "\n".join(_lines(results)))
    return 1 if any(result.wrong for result in results) else 0


def _json(results: Sequence[Result]) -> str:
    checks = [
        {
            "kind": result.check.kind,
            "looked_at": result.looked_at,
            "under_way": result.under_way,
            "wrong": result.wrong,
            "is_whole": result.is_whole,
            "cure": result.check.cure,
        }
        for result in results
    ]
    return json.dumps({"agree": not any(result.wrong for result in results), "checks": checks}, indent=2)


def _lines(results: Sequence[Result]) -> Iterator[str]:
    width = max(len(result.check.kind) for result in results)
    yield f"{'':{width}}  {'looked at':>10}  {'under way':>10}  {'wrong':>10}"
    for result in results:
        wrong = f"{len(result.wrong)}{'' if result.is_whole else ' or more'}"
        yield f"{result.check.kind:{width}}  {result.looked_at:>10}  {result.under_way:>10}  {wrong:>10}"
    for result in results:
        if result.wrong:
            yield from _findings(result)
    if any(result.under_way for result in results):
        yield "\nOf what is under way nothing can be said yet: see `manage.py outbox list` and `manage.py saga list`."
    if not any(result.wrong for result in results):
        yield "\nThe stores agree."


def _findings(result: Result) -> Iterator[str]:
    yield f"\n{result.check.kind}. {result.check.cure}"
    for key, words in list(result.wrong.items())[:SHOWN]:
        yield f"  {key}  {words}".rstrip()
    if len(result.wrong) > SHOWN:
        yield f"  and {len(result.wrong) - SHOWN} more: `--json` has them"
