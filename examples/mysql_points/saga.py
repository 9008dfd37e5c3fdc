"""How an order is placed over three databases: seats in MongoDB, points in MySQL, the order in PostgreSQL."""

from collections.abc import Sequence

from examples.mysql_points.orders_repo import OrdersWithPoints
from examples.mysql_points.points_repo import PointsRepository
from repositories.seat_repo import SeatRepository
from services.order_saga import OrderSaga
from tristore.outbox.effects import Effect
from tristore.saga.engine import RemoteStep
from tristore.saga.tables import Progress


class OrderSagaWithPoints(OrderSaga):
    """A saga of other steps has another name: those that were begun under the old name end by the old steps."""

    name = "order with points"

    def __init__(
        self, *, orders: OrdersWithPoints, seats: SeatRepository, points: PointsRepository, seconds: float
    ) -> None:
        super().__init__(orders=orders, seats=seats, seconds=seconds)
        take_seats, confirm = self.steps
        self.steps = (take_seats, RemoteStep("credit points", do=self._credit, undo=self._take_back), confirm)
        self._bought = orders
        self._points = points

    async def _credit(self, saga: Progress) -> None:
        earned = await self._bought.earned(saga.id)
        await self._points.credit(earned.order_id, earned.user_id, earned.points)

    async def _take_back(self, saga: Progress) -> Sequence[Effect]:
        earned = await self._bought.earned(saga.id)
        await self._points.revoke(earned.order_id, earned.user_id, earned.points)
        return ()
