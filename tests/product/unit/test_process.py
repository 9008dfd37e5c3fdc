"""What concerns the app's process as a whole."""

import asyncio
import sys
from pathlib import Path

from config import Settings
from tristore.testing.stores import environment

COLLECTED_ONCE_STARTED = """
import asyncio, gc
from main import create_app

async def main():
    app = create_app()
    async with app.router.lifespan_context(app):
        kept, looked_at = gc.get_freeze_count(), len(gc.get_objects())
        before = gc.get_stats()[0]["collections"]
        in_flight = [[] for _ in range(4_000)]
        collections = gc.get_stats()[0]["collections"] - before
    print(gc.isenabled(), kept, looked_at, collections)

asyncio.run(main())
"""


async def test_garbage_collections_are_few_and_leave_out_the_start(settings: Settings, tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", COLLECTED_ONCE_STARTED),
        cwd=tmp_path,  # no .env there
        env=environment(settings, PYTHONPATH=str(Path(__file__).parents[3]), LOG_LEVEL="ERROR"),
        stdout=asyncio.subprocess.PIPE,
    )
    printed, _ = await process.communicate()
    enabled, kept, looked_at, collections = printed.split()
    assert enabled == b"True"
    assert int(looked_at) < int(kept) / 20
    assert int(collections) <= 1  # where Python's own threshold makes five
