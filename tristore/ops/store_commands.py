"""How a command gets the stores and services."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

import click

from config import Settings
from tristore.errors import TristoreError
from tristore.ops.cures import told
from tristore.outbox.repository import OutboxRepository
from tristore.stores.stores import open_stores
from wiring import Services, wire

T = TypeVar("T")
RunningSettings = Callable[[], AbstractContextManager[Settings]]
"""Gives settings whose stores run."""


class Run(Protocol):
    def __call__(self, action: Callable[[OutboxRepository, Services], Awaitable[T]]) -> T: ...


def runner(running_settings: RunningSettings) -> Run:
    """Runs one action on the stores of these settings; what goes wrong there is one line for the operator."""

    def run(action: Callable[[OutboxRepository, Services], Awaitable[T]]) -> T:
        async def in_stores(settings: Settings) -> T:
            async with open_stores(settings) as stores:
                services = wire(settings, stores)
                return await action(services.outbox.repository, services)

        with running_settings() as settings:
            try:
                return asyncio.run(in_stores(settings))
            except TristoreError as error:
                raise click.ClickException(told(error)) from None

    return run
