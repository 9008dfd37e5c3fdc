"""Links in mails: they verify an address, or let somebody choose a new password."""

import uuid

from dependencies import BY_SIGN_IN, CurrentUser, services_of
from tristore.http.links import add_link_routes
from tristore.http.prefixed import PrefixedRouter

router = PrefixedRouter(prefix="/auth", tags=["links"], about=__doc__, max_body_bytes=8192)


async def get_caller(caller: CurrentUser) -> uuid.UUID:
    return caller.id


add_link_routes(router, services_of, get_caller, BY_SIGN_IN)
