"""The product's services, with points in MySQL."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cached_property

from database.stores import Stores, open_stores
from examples.mysql_points.mysql import STORE, open_mysql
from examples.mysql_points.orders_repo import OrdersWithPoints
from examples.mysql_points.points_repo import PointsRepository
from examples.mysql_points.saga import OrderSagaWithPoints
from examples.mysql_points.settings import PointsSettings
from repositories.order_repo import OrderRepository
from services.effects import QUEUES
from services.order_saga import OrderSaga
from services.order_service import OrderService
from tristore.outbox.pauses import Ping
from wiring import Services


class PointsOrderService(OrderService):
    saga = OrderSagaWithPoints.name


class PointsServices(Services):
    queues = (*QUEUES, STORE)
    """With a queue and a probe of its name, a store has a relay: it is probed, paused, and what waits for it goes on
    when it is back."""

    def __init__(self, settings: PointsSettings, stores: Stores) -> None:
        super().__init__(settings, stores)
        self.mysql = open_mysql(settings)
        self._points = PointsRepository(self.mysql)
        self._with_points = OrdersWithPoints(stores.postgres, self._points)

    def pings(self) -> dict[str, Ping]:
        return super().pings() | {STORE: self.mysql.ping}

    def saga_kinds(self) -> Sequence[OrderSaga]:
        seats, seconds = self._seats, self._settings.order_deadline
        before = OrderRepository(self._stores.postgres)
        return [
            OrderSaga(orders=before, seats=seats, seconds=seconds),  # of orders that were placed before
            OrderSagaWithPoints(orders=self._with_points, seats=seats, points=self._points, seconds=seconds),
        ]

    def gauges(self) -> dict[str, tuple[str, Callable[[], int]]]:
        serves = "Whether MySQL has served this process the last time that it was asked"
        return super().gauges() | {"mysql_serves": (serves, lambda: int(self.mysql.serves))}

    async def close_own(self) -> None:
        await super().close_own()
        await self.mysql.close()

    @cached_property
    def orders(self) -> OrderService:
        return PointsOrderService(
            unit_of_work=self.unit_of_work,
            orders=self._with_points,
            idempotency=self._idempotency,
            sagas=self.sagas,
            outbox=self.outbox,
            most=self._settings.orders_per_user,
        )


@asynccontextmanager
async def open_services(settings: PointsSettings) -> AsyncIterator[PointsServices]:
    """The services on stores of their own, for a command. Nothing runs beside it."""
    async with open_stores(settings) as stores:
        services = PointsServices(settings, stores)
        try:
            yield services
        finally:
            await services.mysql.close()
