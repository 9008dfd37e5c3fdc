"""The pages that links in mails open."""

from dependencies import BY_SIGN_IN, services_of
from tristore.http.links import add_pages
from tristore.http.prefixed import PrefixedRouter

router = PrefixedRouter(prefix="/pages", tags=["pages"], max_body_bytes=8192)
add_pages(router, services_of, BY_SIGN_IN)
