"""How an order is placed: as a saga over MongoDB and PostgreSQL."""

import uuid
from collections.abc import Sequence
from typing import cast

from models.order import CancelReason
from repositories.order_repo import OrderRepository
from repositories.seat_repo import SeatRepository
from services.order_effects import ForgetMarker
from tristore.outbox.effects import Effect, NotYet
from tristore.outbox.unit_of_work import PostgresUnitOfWork
from tristore.saga.engine import MARGIN, PostgresStep, Refused, RemoteStep, TooLate
from tristore.saga.tables import Progress


class OrderSaga:
    """The order itself is placed in the transaction that begins this."""

    name = "order"

    def __init__(self, *, orders: OrderRepository, seats: SeatRepository, seconds: float) -> None:
        self.seconds = seconds
        self.steps: Sequence[RemoteStep | PostgresStep] = (
            RemoteStep("take seats", do=self._take_seats, undo=self._give_back_seats),
            PostgresStep("confirm", do=self._confirm, undo=self._revoke),
        )
        self._orders = orders
        self._seats = seats

    async def turned_round(self, uow: PostgresUnitOfWork, saga: Progress, reason: str) -> None:
        await self._orders.cancel(uow.session, saga.id, cast(CancelReason, reason))

    async def _take_seats(self, saga: Progress) -> None:
        order = await self._orders.seats_wanted(saga.id)
        if order.course_deleted:
            raise Refused("course deleted")
        match await self._seats.change(order.course_id, str(saga.id), order.quantity, saga.deadline, order.capacity):
            case "full":
                raise Refused("sold out")
            case "late":
                raise TooLate
            case "not yet":
                raise NotYet

    async def _confirm(self, uow: PostgresUnitOfWork, saga: Progress) -> None:
        course = await self._orders.confirm(uow.session, saga.id)
        if isinstance(course, str):
            raise Refused(course)
        uow.effects.append(_forget(course, str(saga.id), saga, wait=max(saga.seconds_left, 0)))

    async def _revoke(self, uow: PostgresUnitOfWork, saga: Progress) -> None:
        await self._orders.revoke_points(uow.session, saga.id)

    async def _give_back_seats(self, saga: Progress) -> Sequence[Effect]:
        order = await self._orders.seats_wanted(saga.id)
        if not order.was_confirmed:
            # Whether any were taken is known when none can be taken any more.
            if not await self._seats.undo(order.course_id, str(saga.id), saga.deadline):
                raise NotYet
            return ()
        # Its first marker may be gone by now, so giving back is a change of its own.
        marker = f"{saga.id}:back"
        match await self._seats.change(order.course_id, marker, -order.quantity, saga.deadline):
            case "late":
                raise TooLate
            case "not yet":
                raise NotYet
        return [_forget(order.course_id, marker, saga, wait=self.seconds)]


def _forget(course_id: uuid.UUID, marker: str, saga: Progress, wait: float) -> ForgetMarker:
    return ForgetMarker(course_id=course_id, marker=marker, until=saga.deadline, after_seconds=wait + MARGIN)
