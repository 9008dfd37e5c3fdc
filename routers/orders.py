"""Orders of courses, and the points that they earn."""

import uuid
from typing import Annotated

from fastapi import Depends, Request, Response

from dependencies import CurrentUser, KeyOfCaller, VerifiedUser, services_of
from models.order import Order, OrderIn, OrderPage
from services.order_service import OrderService
from tristore.http.headers import Located, sends
from tristore.http.parameters import PageSize
from tristore.http.prefixed import PrefixedRouter
from tristore.http.problems import Responses, problems

router = PrefixedRouter(prefix="/orders", tags=["orders"], about=__doc__)
PLACED: Responses = {
    201: sends("Location"),
    202: {"model": Order, "description": "Placed and not decided yet. Ask for it again", **sends("Location")},
}


async def get_orders(request: Request) -> OrderService:
    return services_of(request).orders


Orders = Annotated[OrderService, Depends(get_orders)]


@router.post("", status_code=201, summary="Order seats of a course", responses=PLACED | problems(403, 404, 409))
async def place_order(
    orders: Orders, caller: VerifiedUser, key: KeyOfCaller, order: OrderIn, response: Response, located: Located
) -> Order:
    """Confirmed, or still pending when a database is slow. Sold out is a conflict, and so is one order too many. The
    same Idempotency-Key again answers what has become of the order."""
    placed = await orders.place(caller.id, order, key)
    if placed.status == "pending":
        response.status_code = 202
    return located.at("/orders/{id}", placed)


@router.get("", summary="The caller's orders, newest first")
async def list_orders(
    orders: Orders, caller: CurrentUser, limit: PageSize = 20, cursor: uuid.UUID | None = None
) -> OrderPage:
    return await orders.page(caller.id, limit, cursor)


@router.get("/{order_id}", summary="An order", responses=problems(404))
async def read_order(orders: Orders, caller: CurrentUser, order_id: uuid.UUID) -> Order:
    return await orders.get(caller.id, order_id)


@router.post("/{order_id}/cancel", status_code=202, summary="Cancel a confirmed order", responses=problems(404, 409))
async def cancel_order(orders: Orders, caller: CurrentUser, order_id: uuid.UUID) -> Order:
    """Its points are taken back at once, its seats as soon as their database answers."""
    return await orders.cancel(caller.id, order_id)
