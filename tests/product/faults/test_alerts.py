"""Which alerts fire on what a run with a fault really shows. A scrape of the app, held for half an hour, is given to
promtool with the rules; with a scrape before it, counters go on as they went between the two."""

import asyncio
import json
import re
import shutil
import subprocess
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from math import isnan
from pathlib import Path

import pytest
from anyio import to_thread

from tests.product.metrics import SCRAPER, TOKEN, Samples, scrape, value
from tests.product.people import account, attempt, register
from tests.under_test import Lab, stores_beside
from tristore.stores.stores import Stores
from tristore.testing.lab import FAULTS, PROJECT, App, Fault, until
from tristore.testing.mail import letter_box
from tristore.testing.outbox import park, pass_leases, query

RULES = PROJECT / "deploy" / "prometheus" / "alerts.yaml"
BURNS = ("ErrorBudgetBurnsFast page", "ErrorBudgetBurnsSlowly ticket")
COUNTERS = ("_count", "_total")

pytestmark = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="NOT RUN for want of promtool, which Debian has in its package prometheus"
)


@pytest.fixture
async def stores(apart: Lab) -> AsyncIterator[Stores]:
    async with stores_beside(apart.settings) as stores:
        yield stores


@pytest.fixture
async def app(apart: Lab) -> AsyncIterator[App]:
    patient = {"POSTGRES_REQUEST_DEADLINE": "20", "POSTGRES_LOCK_TIMEOUT": "20"}
    async with apart.app(POSTGRES_POOL_SIZE="3", RATE_LIMIT_SIGN_IN_ADDRESS="10000/minute", **patient) as app:
        yield app


async def firing(samples: Samples, folder: Path, *expected: str, since: Samples | None = None) -> None:
    """Fails unless exactly these alerts fire: each is its name and severity, and maybe a store."""
    before = samples if since is None else since
    series = [
        {"series": _series(name, dict(labels)), "values": _values(name, number, before.get((name, labels), 0))}
        for (name, labels), number in samples.items()
    ]
    alerts = [{"labels": f'ALERTS{{alertstate="firing",{", ".join(_labels(one))}}}', "value": 1} for one in expected]
    asked = {"expr": 'ALERTS{alertstate="firing"}', "eval_time": "30m", "exp_samples": alerts}
    test = {"interval": "1m", "input_series": series, "promql_expr_test": [asked]}
    file = folder / "test.yaml"
    file.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [test]}))
    command = ["promtool", "test", "rules", str(file)]
    done = await to_thread.run_sync(lambda: subprocess.run(command, capture_output=True, text=True, check=False))
    assert done.returncode == 0, done.stdout + done.stderr


def _series(name: str, labels: dict[str, str]) -> str:
    return f"{name}{{{', '.join(f'{label}={json.dumps(value)}' for label, value in labels.items())}}}"


def _values(name: str, now: float, before: float) -> str:
    rise = now - before if name.endswith(COUNTERS) else 0
    return f"{str(now).replace('nan', 'NaN')}+{rise}x40"


def _labels(alert: str) -> list[str]:
    return [f'{name}="{word}"' for name, word in zip(("alertname", "severity", "store"), alert.split(), strict=False)]


def test_each_alert_has_its_fault_here() -> None:
    mine = Path(__file__).read_text()
    assert [name for name in re.findall(r"alert: (\w+)", RULES.read_text()) if f'"{name} ' not in mine] == []


async def test_none_fires_in_a_quiet_run(app: App, tmp_path: Path) -> None:
    await register(app.client)
    before = await scrape(app.client)
    await register(app.client)
    await firing(await scrape(app.client), tmp_path, since=before)


@pytest.mark.parametrize("fault", FAULTS)
async def test_postgresql_that_is_away_is_told_and_so_are_the_requests_that_fail(
    fault: Fault, apart: Lab, tmp_path: Path
) -> None:
    async with apart.app(RATE_LIMIT_SIGN_IN_ADDRESS="10000/minute") as app:
        await register(app.client)
        before = await scrape(app.client)
        async with apart.without("postgresql", fault):
            samples = await when_away(app, "postgresql", breakers=0)
    await firing(samples, tmp_path, "PostgreSQLDown page", *BURNS, since=before)


@pytest.mark.parametrize("fault", FAULTS)
async def test_mongodb_that_is_away_is_told(fault: Fault, app: App, apart: Lab, tmp_path: Path) -> None:
    headers = await register(app.client)
    async with apart.without("mongodb", fault):
        before = await when_away(app, "mongodb", breakers=0)
        assert (await app.client.get("/conversations", headers=headers)).status_code == 503
        samples = await when_away(app, "mongodb", breakers=0)
    await firing(samples, tmp_path, "StoreDown ticket mongodb", *BURNS, since=before)


async def test_redis_that_is_away_is_told(app: App, apart: Lab, tmp_path: Path) -> None:
    await register(app.client)
    async with apart.without("redis", "killed"):
        samples = await when_away(app, "redis", breakers=1)
    await firing(samples, tmp_path, "StoreDown ticket redis", "BreakerOpen ticket")


async def test_a_mail_server_that_is_away_is_told(apart: Lab, tmp_path: Path) -> None:
    async with letter_box() as box, box.closed(), apart.app(MAIL_DSN=box.dsn) as app:
        samples = await scrape_when(app, lambda shown: value(shown, "mail_up") == 0)
    await firing(samples, tmp_path, "MailDown ticket")


async def when_away(app: App, store: str, breakers: int) -> Samples:
    """A scrape that shows this store as the only one that is away."""

    def is_shown(shown: Samples) -> bool:
        up = {one: value(shown, "store_up", store=one) for one in ("postgresql", "redis", "mongodb")}
        return up == {**dict.fromkeys(up, 1), store: 0} and value(shown, "cache_breakers_open") == breakers

    # Attempts to sign in are counted in Redis: so the process notices when it is away.
    return await scrape_when(app, is_shown, before=lambda: attempt(app.client, "nobody"))


async def test_effects_and_sagas_that_stay_are_told(app: App, apart: Lab, stores: Stores, tmp_path: Path) -> None:
    async with apart.without("mongodb", "stopped"):
        assert (await app.client.post("/users/register", json=account())).status_code == 201
        await query(stores, "UPDATE outbox SET created_at = now() - interval '1 hour'")
        await park(stores)
    insert = (
        "INSERT INTO sagas (id, name, deadline, created_at) VALUES (:id, 'other', now(), now() - interval '1 hour')"
    )
    await query(stores, insert, id=uuid.uuid4())

    def is_shown(shown: Samples) -> bool:
        return value(shown, "store_up", store="mongodb") == 1 and value(shown, "outbox_dead") == 1

    expected = ("OutboxOld ticket", "EffectsParked ticket", "SagaOld ticket")
    await firing(await scrape_when(app, is_shown), tmp_path, *expected)


async def test_effects_that_this_release_does_not_know_are_told(app: App, stores: Stores, tmp_path: Path) -> None:
    """They wait for a newer release, and show as stuck."""
    stream, effect = "'sample:1', 'mongodb', 1, clock_timestamp()", "'sample:1', 'mongodb', 'OfANewerRelease', '{}'"
    owed = f"WITH s AS (INSERT INTO outbox_streams (aggregate, store, pending, due_at) VALUES ({stream}))"
    await query(stores, f"{owed} INSERT INTO outbox (aggregate, store, name, payload) VALUES ({effect})")

    def is_stuck(shown: Samples) -> bool:
        return value(shown, "outbox_stuck") == 1

    samples = await scrape_when(app, is_stuck, before=lambda: pass_leases(stores))
    await firing(samples, tmp_path, "EffectsParked ticket")


async def test_an_outbox_that_nobody_can_look_at_is_told(app: App, stores: Stores, tmp_path: Path) -> None:
    async with stores.postgres.engine.begin() as holder:
        await holder.exec_driver_sql("LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE")

        def is_unknown(shown: Samples) -> bool:
            return isnan(value(shown, "outbox_oldest_seconds")) and value(shown, "store_up", store="postgresql") == 1

        samples = await scrape_when(app, is_unknown)
    await firing(samples, tmp_path, "StateUnknown ticket")


async def test_a_service_that_shows_nothing_to_the_scraper_is_told(apart: Lab, tmp_path: Path) -> None:
    """It has another token than the scraper sends."""
    async with apart.app(METRICS_TOKEN=TOKEN) as app:
        assert value(await scrape(app.client, SCRAPER), "store_up", store="postgresql") == 1
        answer = await app.client.get("/metrics", headers={"Authorization": "Bearer another"})
    assert answer.status_code == 401
    await firing({}, tmp_path, "NotScraped page postgresql")


async def test_a_pool_that_is_full_is_told(app: App, stores: Stores, tmp_path: Path) -> None:
    headers = await register(app.client)

    def is_full(shown: Samples) -> bool:
        return value(shown, "store_pool_connections", store="postgresql", state="in_use") == 3

    async with stores.postgres.engine.connect() as holder:
        await holder.exec_driver_sql("SELECT 1 FROM users FOR UPDATE")
        waiting = [
            asyncio.create_task(app.client.patch("/users/me", headers=headers, json={"bio": str(number)}))
            for number in range(5)
        ]
        samples = await scrape_when(app, is_full)
        await holder.rollback()
    assert {(await one).status_code for one in waiting} == {200}
    await firing(samples, tmp_path, "PoolSaturated ticket postgresql")


async def test_a_schema_of_the_release_before_is_told(apart: Lab, stores: Stores, tmp_path: Path) -> None:
    await query(stores, "DELETE FROM alembic_version")
    async with apart.app() as app:
        await firing(await scrape(app.client), tmp_path, "MigrationPending ticket")


async def scrape_when(
    app: App, fits: Callable[[Samples], bool], before: Callable[[], Awaitable[object]] | None = None
) -> Samples:
    """The first scrape that fits. What a process could not find out in time is not a number in one scrape."""
    shown: Samples = {}

    async def is_shown() -> bool:
        nonlocal shown
        if before:
            await before()
        shown = await scrape(app.client)
        return fits(shown)

    await until(is_shown, 40)
    return shown
