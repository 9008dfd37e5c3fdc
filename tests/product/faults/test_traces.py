"""Traces of a process of the service, as the environment asks for them."""

import asyncio
import os
import subprocess
import sys

import pytest

from tests.product.collector import Collector
from tests.product.people import account
from tests.under_test import SECRETS, Lab
from tristore.testing import log_of_run
from tristore.testing.lab import PROJECT, until

OFF = """
import sys
from config import Settings
from main import create_app
from tristore.ops.process import configure_logging

settings = Settings(_env_file=None, environment="test")
configure_logging(settings)
create_app(settings)
loaded = [name for name in sys.modules if name.startswith(("opentelemetry.exporter", "opentelemetry.sdk.trace"))]
print(loaded, "tristore.ops.open_telemetry" in sys.modules)
"""


async def test_the_standard_variables_turn_traces_on_and_the_end_sends_the_last_ones(lab: Lab) -> None:
    async with Collector.running() as collector:
        # So long that only the end sends them.
        async with lab.app(**collector.environment, OTEL_BSP_SCHEDULE_DELAY="600000") as app:
            assert (await app.client.post("/users/register", json=account())).status_code == 201
        [request] = collector.named("POST /users/register")
        assert collector.services == {lab.settings.app_name}
        told = str(collector.spans)
    assert log_of_run.secrets_in(told, SECRETS) == []
    lines = [line for line in log_of_run.path().read_text().splitlines() if request.trace_id.hex() in line]
    assert any("/users/register" in line and request.span_id.hex() in line for line in lines)


async def test_a_collector_that_never_answers_does_not_hold_the_end_up(lab: Lab) -> None:
    async with Collector.running(answers=False) as collector:
        patient = {"OTEL_EXPORTER_OTLP_TIMEOUT": "300", "OTEL_BSP_SCHEDULE_DELAY": "50"}
        async with lab.app(**collector.environment, **patient) as app:
            assert (await app.client.post("/users/register", json=account())).status_code == 201
            app.process.terminate()
            async with asyncio.timeout(20):  # OpenTelemetry itself would wait for half a minute and more
                await app.process.wait()
    assert app.process.returncode in {0, -15}


async def test_the_service_runs_without_an_exporter_that_is_not_there(lab: Lab) -> None:
    before = len(log_of_run.path().read_text())
    async with lab.app(OTEL_TRACES_EXPORTER="no-such-exporter") as app:
        assert (await app.client.get("/courses")).status_code == 200

        async def is_told() -> bool:
            return "no exporter no-such-exporter is installed" in log_of_run.path().read_text()[before:]

        await until(is_told, 10)


@pytest.mark.parametrize(
    "asked", [{}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_TRACES_EXPORTER": "none"}]
)
def test_off_means_not_imported(asked: dict[str, str]) -> None:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    command = [sys.executable, "-c", OFF]
    done = subprocess.run(command, cwd=PROJECT, env=plain | asked, capture_output=True, text=True, timeout=60)
    assert done.stdout.split("\n")[0] == "[] False", done.stderr
