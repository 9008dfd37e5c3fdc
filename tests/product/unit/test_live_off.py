"""Live messages are a part of their own: nothing else stops when they do."""

import asyncio
from collections import Counter

from config import Settings
from models.conversation import Message
from models.user import Registration
from tests.product.people import account
from tristore.live.hints import HintService
from tristore.live.listeners import LiveService
from tristore.stores.stores import Stores
from wiring import Services


class Off:
    def __init__(self) -> None:
        """Without anything, but it has counts for the metrics."""
        self.counts: Counter[str] = Counter()

    @property
    def listening(self) -> int:
        return 0

    def start(self) -> None:
        """Starts nothing."""

    async def close(self) -> None:
        """Has nothing to stop."""


class MessagesOff(Off, LiveService[Message]):
    pass


class HintsOff(Off, HintService):
    pass


async def test_the_near_cache_works_with_live_messages_off(settings: Settings, stores: Stores) -> None:
    services = Services(settings, stores)
    services.live, services.hints = MessagesOff(), HintsOff()
    services.start()
    try:
        registered = await services.users.register_user(Registration(**account()))
        async with asyncio.timeout(10):
            while services.cache.counts["near"] < 10:
                await services.users.get_user_profile(registered.user_id)
    finally:
        await services.close()
