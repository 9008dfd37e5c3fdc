"""`manage.py check` in tests: as an operator runs it, and without a process."""

import json
from typing import Any

from commands.checks import checks
from config import Settings
from tests.product.commands import manage
from tests.under_test import Lab
from tristore.ops.agreement import Comparison, Result, miscounted
from tristore.stores.stores import Stores
from wiring import Services


async def run_check(lab: Lab, settle: float = 0.2) -> dict[str, dict[str, Any]]:
    """What it says, by kind. Fails unless its exit code says the same."""
    code, printed = await manage(lab, "check", "--json", "--settle", str(settle))
    told = json.loads(printed)
    assert code == (0 if told["agree"] else 1)
    assert told["agree"] == (not any(check["wrong"] for check in told["checks"]))
    return {check["kind"]: check for check in told["checks"]}


async def look(settings: Settings, stores: Stores) -> dict[str, Result]:
    """The same within this process."""
    services = Services(settings, stores)
    comparison = Comparison(services.outbox.repository, 0.1, lambda line: None)
    results = [await comparison.run(each) for each in [*checks(services), miscounted(services.outbox.repository)]]
    return {result.check.kind: result for result in results}


async def wrong(settings: Settings, stores: Stores) -> dict[str, dict[str, str]]:
    """What disagrees, by kind."""
    return {kind: result.wrong for kind, result in (await look(settings, stores)).items() if result.wrong}
