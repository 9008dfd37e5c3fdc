"""`manage.py demo`: a day of data, and a page on which one takes databases away. For development alone."""

import asyncio
import logging
import os
import secrets
import subprocess
import sys
import webbrowser
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

import click
import httpx
import uvicorn

import commands
from commands.users import create_admin
from config import NAME, Settings
from migrations import REVISIONS, SCRIPTS
from tristore.embedded.servers import EmbeddedServers
from tristore.ops.migrate import migrate
from tristore.ops.process import configure_logging
from tristore.ops.serve import PROTOCOL
from tristore.testing.demo import Act, Stage, demo_app
from tristore.testing.guarded import guarded_folder
from tristore.testing.lab import NO_TLS, answers, free_port, until
from tristore.testing.stores import environment, settings_on

PASSWORD = "battery staple 7"  # noqa: S105 - of accounts that are gone when the demo ends
NO_LIMITS = {name: "" for name in Settings.model_fields if name.startswith("rate_limit_")}
LEARNERS, CONVERSATIONS, MESSAGES = 20, 3, 15
COURSES = ("Portuguese for the weekend", "French at the market", "Spanish by ear", "Italian with pasta")
AT_ONCE = 8


@dataclass(frozen=True)
class Cast:
    """Who acts on the page, and with what."""

    api: httpx.AsyncClient
    """Signed in as a learner."""
    conversation: str
    course: str


def demo(open_browser: bool) -> None:
    for name in [name for name in os.environ if name.endswith("_DSN")]:
        del os.environ[name]  # it touches no store but its own
    with guarded_folder(f"{NAME}-demo-") as folder:
        click.echo("Starting PostgreSQL, Redis and MongoDB ...")
        embedded = EmbeddedServers(folder, name=NAME)
        settings = settings_on(embedded.start_all(), Settings, environment="local", **NO_LIMITS, **_own_settings())
        configure_logging(settings)
        logging.getLogger("security").setLevel(logging.WARNING)
        migrate(settings, REVISIONS, SCRIPTS)
        create_admin(settings, "curator", "curator@example.com", PASSWORD)
        with _service(settings, folder) as address, suppress(KeyboardInterrupt):
            asyncio.run(_play(embedded, address, open_browser))
        click.echo("\nStopping; the data of the demo is deleted.")


@contextmanager
def _service(settings: Settings, folder: Path) -> Iterator[str]:
    """A process of the service. Gives its address."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "main:app", "--http", PROTOCOL, "--port", str(port)]
    project = Path(__file__).parents[1]
    quiet = environment(settings, LOG_LEVEL="WARNING", ACCESS_LOG="false", PYTHONPATH=str(project))
    with (folder / "service.log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=quiet, stdout=log, stderr=log)  # noqa: S603 - ours
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(20)


async def _play(embedded: EmbeddedServers, address: str, open_browser: bool) -> None:
    async with httpx.AsyncClient(base_url=address, timeout=20, verify=NO_TLS) as api:
        await until(partial(answers, api, "/health/ready"), 60)
        cast = await fill(api)
        stage = Stage(embedded=embedded, api=api, acts=acts_of(cast))
        port = free_port()
        server = uvicorn.Server(
            uvicorn.Config(demo_app(stage, f"127.0.0.1:{port}"), port=port, log_level="warning", lifespan="off")
        )
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.05)
        click.echo(f"Open http://127.0.0.1:{port} in a browser. Ctrl-C ends the demo.")
        if open_browser:
            webbrowser.open(f"http://127.0.0.1:{port}")
        try:
            await serving
        finally:
            await stage.close()


async def fill(api: httpx.AsyncClient) -> Cast:
    """A day of learners, conversations, messages and courses, with a bar that tells how far it is."""
    steps = LEARNERS * (1 + CONVERSATIONS * (1 + MESSAGES)) + len(COURSES)
    slots = asyncio.Semaphore(AT_ONCE)
    with click.progressbar(length=steps, label="A day of data") as bar:
        curator = await _signed_in(api, "curator")
        courses = [await _made(api, curator, "/courses", _course(title)) for title in COURSES]
        bar.update(len(COURSES))

        async def day(number: int) -> str:
            async with slots:
                return await _day_of(api, number, bar.update)

        conversations = await asyncio.gather(*(day(number) for number in range(LEARNERS)))
    api.headers.update(await _signed_in(api, "learner0"))
    return Cast(api, conversations[0], courses[0])


async def _day_of(api: httpx.AsyncClient, number: int, done: Callable[[int], None]) -> str:
    name = f"learner{number}"
    account = {"username": name, "email": f"{name}@example.com", "password": PASSWORD, "cefr_level": "A2"}
    await _done(api, "/users/register", json=account, headers={"Idempotency-Key": name})
    done(1)
    headers = await _signed_in(api, name)
    conversation = ""
    for topic in range(CONVERSATIONS):
        conversation = await _made(api, headers, "/conversations", {"title": f"Lesson {topic + 1}"})
        done(1)
        for line in range(MESSAGES):
            role = ("user", "assistant")[line % 2]
            said = {"id": f"line-{line}", "role": role, "content": f"Line {line + 1}"}
            await _made(api, headers, f"/conversations/{conversation}/messages", said)
            done(1)
    return conversation


def _course(title: str) -> dict[str, object]:
    return {"title": title, "price_cents": 4900, "language": "pt", "level": "A1", "capacity": 500}


async def _signed_in(api: httpx.AsyncClient, name: str) -> dict[str, str]:
    answer = await _done(api, "/auth/token", data={"username": name, "password": PASSWORD})
    return {"Authorization": f"Bearer {answer['access_token']}"}


async def _made(api: httpx.AsyncClient, headers: Mapping[str, str], path: str, body: object) -> str:
    key = {} if "messages" in path else {"Idempotency-Key": secrets.token_hex(8)}
    return str((await _done(api, path, headers={**headers, **key}, json=body))["id"])


async def _done(api: httpx.AsyncClient, path: str, **request: Any) -> dict[str, str]:
    """Posts until it is not refused for want of a store: a machine that is busy answers late."""
    given = [answer async for answer in insisting(api, "POST", path, **request)]
    body: dict[str, str] = given[-1].raise_for_status().json()
    return body


def acts_of(cast: Cast) -> dict[str, Act]:
    """What one may let happen on the page."""
    acts: dict[str, Act] = {
        "A learner registers": partial(registers, cast),
        "A learner writes a message": partial(writes, cast),
    }
    for module in _others():
        acts |= module.acts_of(cast)
    return acts


def _own_settings() -> dict[str, object]:
    return {name: value for module in _others() for name, value in module.SETTINGS.items()}


def _others() -> Iterator[ModuleType]:
    """What other modules of this folder show, those that are called ..._demo."""
    for module in iter_modules(commands.__path__):
        if module.name.endswith("_demo"):
            yield import_module(f"commands.{module.name}")


async def insisting(api: httpx.AsyncClient, method: str, path: str, **request: Any) -> AsyncIterator[httpx.Response]:
    """Every answer to a request that is repeated, as clients should, until a store is no longer missing for it."""
    while True:
        answer = await api.request(method, path, **request)
        yield answer
        if answer.status_code != 503:
            return
        await asyncio.sleep(float(answer.headers["Retry-After"]))


async def registers(cast: Cast) -> AsyncIterator[str]:
    name = f"guest-{secrets.token_hex(4)}"
    account = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
    async for answer in insisting(cast.api, "POST", "/users/register", json=account, headers={"Idempotency-Key": name}):
        yield f"{answer.status_code}: {'a user in PostgreSQL' if answer.is_success else 'asks again'}"
    headers = await _signed_in(cast.api, name)
    while True:
        listed = await cast.api.get("/conversations", headers=headers)
        if listed.is_success and listed.json()["items"]:
            yield "the first conversation is in MongoDB"
            return
        yield "the first conversation is owed to MongoDB"
        await asyncio.sleep(0.5)


async def writes(cast: Cast) -> AsyncIterator[str]:
    message = {"id": secrets.token_hex(8), "content": "Is this still open?"}
    path = f"/conversations/{cast.conversation}/messages"
    async for answer in insisting(cast.api, "POST", path, json=message):
        yield (
            f"201: message number {answer.json()['seq']}" if answer.is_success else "503: asks again, with the same id"
        )
