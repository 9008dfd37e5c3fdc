"""How a command gets the services."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import click

from tristore.errors import TristoreError
from tristore.ops.cures import told
from tristore.ops.embedded_stores import running_settings
from tristore.ops.service import Service, Services
from tristore.outbox.repository import OutboxRepository
from tristore.settings import S

T = TypeVar("T")


class Run(Protocol):
    def __call__(self, action: Callable[[OutboxRepository, Services], Awaitable[T]]) -> T: ...


def runner(service: Service[S]) -> Run:
    """Runs one action on the services; what goes wrong there is one line for the operator."""

    def run(action: Callable[[OutboxRepository, Services], Awaitable[T]]) -> T:
        async def in_stores(settings: S) -> T:
            async with service.open_services(settings) as services:
                return await action(services.outbox.repository, services)

        with running_settings(service) as settings:
            try:
                return asyncio.run(in_stores(settings))
            except TristoreError as error:
                raise click.ClickException(told(error)) from None

    return run
