"""`manage.py create-admin` and `manage.py erase`."""

import asyncio
import uuid
from collections.abc import Sequence

import click
import structlog
from pydantic import ValidationError

from config import Settings
from models.user import Registration
from tristore.errors import NotFound, TristoreError
from tristore.ops.cures import told
from wiring import open_services

log = structlog.get_logger("security")


def create_admin(settings: Settings, username: str, email: str, password: str) -> uuid.UUID:
    """Register an admin and return the id. Raises click.ClickException that says what is wrong with which field."""
    try:
        registration = Registration.model_validate({"username": username, "email": email, "password": password})
        return asyncio.run(_create(settings, registration))
    except ValidationError as error:
        raise click.ClickException("; ".join(f"{item['loc'][0]}: {item['msg']}" for item in error.errors())) from None
    except TristoreError as error:
        raise click.ClickException(told(error)) from None


async def _create(settings: Settings, registration: Registration) -> uuid.UUID:
    async with open_services(settings) as services:
        registered = await services.users.register_user(registration)
        await services.users.set_role(registered.user_id, "admin", None)
    log.info("role_change", outcome="done", actor="operator", user=str(registered.user_id), role="admin")
    return registered.user_id


def erase(settings: Settings, user_ids: Sequence[uuid.UUID]) -> None:
    """Erase users from all stores, whether PostgreSQL knows them or not. Raises click.ClickException."""
    try:
        asyncio.run(_erase(settings, user_ids))
    except TristoreError as error:
        raise click.ClickException(told(error)) from None


async def _erase(settings: Settings, user_ids: Sequence[uuid.UUID]) -> None:
    async with open_services(settings) as services:
        for user_id in user_ids:
            try:
                await services.privacy.erase(user_id)
            except NotFound:  # so nothing is under way for this user, and the second pass may follow at once
                for for_good in (False, True):
                    await services.targets().erase_documents(user_id, for_good)
            log.info("erasure", outcome="done", actor="operator", user=str(user_id))
