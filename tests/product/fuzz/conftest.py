"""One app on databases of its own for all cases, and a line that tells how many there were."""

from collections import Counter
from collections.abc import AsyncIterator

import pytest

from tests.product.fuzz.run import ROLES, SEED, Run, accepted
from tests.product.fuzz.visitors import Role, Site, Visitor
from tests.under_test import apps_on, fresh_databases
from tristore.testing.stores import Servers

# A busy machine is no finding.
PATIENT = {
    "POSTGRES_REQUEST_DEADLINE": "30",
    "MONGODB_TIMEOUT": "30",
    "EFFECTS_DEADLINE": "3",
    "HEALTH_TIMEOUT": "0.99",
}
LIVELY = {"LIVE_HEARTBEAT_SECONDS": "0.2"}  # a stream without events is left after its first sign of life
RUNS = pytest.StashKey[list[Run]]()


@pytest.fixture(scope="session")
async def site(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    folder = tmp_path_factory.mktemp("app")
    async with fresh_databases(servers) as settings, apps_on(settings, folder).app(**PATIENT, **LIVELY) as app:
        yield Site(str(app.client.base_url).rstrip("/"), settings)


@pytest.fixture(scope="session")
def visitors(site: Site) -> dict[Role, Visitor]:
    stranger = site.new_account("learner")
    return {role: Visitor(site, role, stranger) for role in ROLES}


@pytest.fixture(scope="session")
def runs(pytestconfig: pytest.Config) -> list[Run]:
    return pytestconfig.stash.setdefault(RUNS, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if runs := config.stash.get(RUNS, []):
        statuses = sum((run.statuses for run in runs), Counter[int]())
        findings = sum(len(run.findings) for run in runs)
        counts = f"{statuses.total()} cases, {accepted(statuses)} of them answered 2xx, {findings} findings"
        terminalreporter.write_line(f"fuzz: {counts}, FUZZ_SEED={SEED}")
