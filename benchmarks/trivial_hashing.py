"""The app with passwords left as they are. The benchmark's own entry point: nothing of it is in the shipped code."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from passlib.context import CryptContext

from main import create_app
from tristore.passwords import PasswordHasher

app = create_app()
whole_lifespan = app.router.lifespan_context


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with whole_lifespan(app):
        app.state.services.users._hasher = PasswordHasher("chatlingo", CryptContext(schemes=["plaintext"]))
        yield


app.router.lifespan_context = lifespan
