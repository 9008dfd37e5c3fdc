"""Orders of courses."""

import uuid
from collections.abc import Callable
from contextlib import suppress

from database.unit_of_work import UnitOfWork
from models.activity import happened
from models.order import Order, OrderIn, OrderPage, OrderPlaced
from repositories.order_repo import OrderRepository
from services.effects import RecordActivity
from services.order_saga import OrderSaga
from tristore.bounds.turnstile import Turnstile
from tristore.errors import Conflict, NotFound, StoreUnavailable, found
from tristore.idempotency import IdempotencyKey, IdempotencyRepository
from tristore.models import new_id
from tristore.outbox.relay import Outbox
from tristore.personal import rows
from tristore.saga.engine import Sagas

BOUGHT = ["orders", "points_ledger"]
# An order costs the event loop 0.4 ms: a page of the usual size would hold up everybody else for 0.2 s. Orders and
# points stay after an erasure, under an id that names nobody any more.
ORDERS = rows("orders", Order, OrderRepository, tables=BOUGHT, keeps=BOUGHT, size=100)
AT_ONCE, PATIENCE = 8, 1.0
"""An order is some fifteen statements. Hundreds at once would each get a few of them, and then all be too late."""


class OrderCancelled(Conflict):
    """The order was cancelled."""

    def __init__(self, order_id: uuid.UUID, reason: str) -> None:
        super().__init__(f"Order {order_id} was cancelled: {reason}.")


class PriceChanged(Conflict):
    """The course has another price by now."""

    def __init__(self, price_cents: int) -> None:
        super().__init__(f"The course costs {price_cents} cents by now. Ask the user again.")


class OrderService:
    saga = OrderSaga.name
    """By which orders are placed."""

    def __init__(
        self,
        *,
        unit_of_work: Callable[[], UnitOfWork],
        orders: OrderRepository,
        idempotency: IdempotencyRepository,
        sagas: Sagas,
        outbox: Outbox,
        most: int,
    ) -> None:
        """`most`: orders of a user, of whatever status."""
        self._unit_of_work = unit_of_work
        self._orders = orders
        self._idempotency = idempotency
        self._sagas = sagas
        self._outbox = outbox
        self._most = most
        self._turnstile = Turnstile(AT_ONCE, PATIENCE)

    async def place(self, user_id: uuid.UUID, new: OrderIn, key: IdempotencyKey | None) -> Order:
        """The order as it is when the answer is due: confirmed, or still pending; with the same key again, as it is
        then. Raises OrderCancelled, PriceChanged, TooMany, NotFound, InProgress, InvalidInput, Overloaded,
        StoreUnavailable."""
        async with self._turnstile.turn():
            order = await self._place(user_id, new, key)
        if order.status == "cancelled":
            raise OrderCancelled(order.id, str(order.reason))
        return order

    async def _place(self, user_id: uuid.UUID, new: OrderIn, key: IdempotencyKey | None) -> Order:
        async with self._unit_of_work() as uow:
            answer = await self._idempotency.replay(uow.session, key, new)
            if answer is None:
                order = await self._begin(uow, user_id, new)
                await self._idempotency.keep(uow.session, key, new, OrderPlaced(order_id=order.id), user_id)
                await uow.commit()
        if answer is not None:  # a request that holds a connection must not wait for a second one
            return await self.get(user_id, OrderPlaced.model_validate(answer).order_id)
        await self._outbox.deliver(uow.owed)
        with suppress(StoreUnavailable):  # it is placed: whoever asks later learns what has become of it
            return await self._orders.outcome(order)
        return order

    async def _begin(self, uow: UnitOfWork, user_id: uuid.UUID, new: OrderIn) -> Order:
        await uow.for_user(user_id)
        await self._orders.refuse_beyond(uow.session, self._most, user_id)
        order = await self._orders.add(uow.session, new_id(), user_id, new)
        if order is None:
            raise NotFound("There is no such course.")
        price = order.price_cents // order.quantity
        if new.expected_price_cents not in {None, price}:
            raise PriceChanged(price)
        await self._sagas.begin(uow, self.saga, order.id)
        uow.effects.append(RecordActivity(activity=happened(user_id, "order_placed")))
        return order

    async def get(self, user_id: uuid.UUID, order_id: uuid.UUID) -> Order:
        """Raises NotFound, also for another's, StoreUnavailable."""
        return found(await self._orders.get(user_id, order_id))

    async def page(self, user_id: uuid.UUID, limit: int, cursor: uuid.UUID | None) -> OrderPage:
        """Newest first. The cursor is the id of the last one seen. Raises StoreUnavailable."""
        page = await self._orders.page(user_id, limit, cursor)
        return OrderPage(**vars(page), points=await self._orders.points(user_id))

    async def cancel(self, user_id: uuid.UUID, order_id: uuid.UUID) -> Order:
        """Undo a confirmed order; asked again, it is undone. Raises NotFound, Conflict when it is neither confirmed nor
        cancelled by the user, StoreUnavailable."""
        order = await self.get(user_id, order_id)
        if order.status == "confirmed":
            with suppress(Conflict):  # somebody else was quicker
                await self._cancel(user_id, order_id)
            order = await self.get(user_id, order_id)
        if order.reason != "by the user":
            raise Conflict(f"Only a confirmed order can be cancelled; this one is {order.status}.")
        return order

    async def _cancel(self, user_id: uuid.UUID, order_id: uuid.UUID) -> None:
        async with self._unit_of_work() as uow:
            await uow.for_user(user_id)
            await self._sagas.compensate(uow, order_id, "by the user")
            uow.effects.append(RecordActivity(activity=happened(user_id, "order_cancelled")))
            await uow.commit()
        await self._outbox.deliver(uow.owed)
