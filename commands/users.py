"""`manage.py create-admin`."""

import asyncio
import uuid

import click
import structlog
from pydantic import ValidationError

from config import Settings
from models.user import Registration
from tristore.errors import TristoreError
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
