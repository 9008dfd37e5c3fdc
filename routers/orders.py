"""Orders of courses."""

import uuid
from typing import Annotated, Any

from fastapi import Query, Response

from dependencies import CurrentUser, KeyOfCaller, Orders
from models.order import Order, OrderIn, OrderPage
from tristore.http.prefixed import PrefixedRouter
from tristore.http.problems import problems

router = PrefixedRouter(prefix="/orders", tags=["orders"])
PENDING: dict[int | str, dict[str, Any]] = {
    202: {"model": Order, "description": "Placed and not decided yet. Ask for it again"}
}


@router.post("", status_code=201, summary="Order seats of a course", responses=PENDING | problems(401, 404, 409))
async def place_order(
    orders: Orders, caller: CurrentUser, key: KeyOfCaller, order: OrderIn, response: Response
) -> Order:
    """Confirmed, or still pending when a database is slow. Sold out is a conflict. The same Idempotency-Key again
    answers what has become of the order."""
    placed = await orders.place(caller.id, order, key)
    if placed.status == "pending":
        response.status_code = 202
    return placed


@router.get("", summary="The caller's orders, newest first", responses=problems(401))
async def list_orders(
    orders: Orders,
    caller: CurrentUser,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: uuid.UUID | None = None,
) -> OrderPage:
    return await orders.page(caller.id, limit, cursor)


@router.get("/{order_id}", summary="An order", responses=problems(401, 404))
async def read_order(orders: Orders, caller: CurrentUser, order_id: uuid.UUID) -> Order:
    return await orders.get(caller.id, order_id)


@router.post(
    "/{order_id}/cancel", status_code=202, summary="Cancel a confirmed order", responses=problems(401, 404, 409)
)
async def cancel_order(orders: Orders, caller: CurrentUser, order_id: uuid.UUID) -> Order:
    """Its points are taken back at once, its seats as soon as their database answers."""
    return await orders.cancel(caller.id, order_id)
