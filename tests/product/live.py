"""Who listens to a conversation, as the metrics tell."""

from tests.product.metrics import scrape, value
from tristore.testing.lab import App


async def listeners_are(app: App, expected: int) -> bool:
    return value(await scrape(app.client), "live_listeners") == expected
