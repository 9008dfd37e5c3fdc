"""What can go wrong in this product alone. What every service knows is in `tristore/errors.py`."""

import uuid

from tristore.errors import Conflict


class OrderCancelled(Conflict):
    """The order was cancelled."""

    def __init__(self, order_id: uuid.UUID, reason: str) -> None:
        super().__init__(f"Order {order_id} was cancelled: {reason}.")
