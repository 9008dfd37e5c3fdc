"""Whether a password is known from a breach, asked without telling it."""

import hashlib
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import structlog
from anyio import CapacityLimiter, fail_after, to_thread
from pydantic import HttpUrl

SECONDS = 1.0
THREADS = 4
MOST_BYTES = 2**20

log = structlog.get_logger()


class Breaches:
    """Asks a service of the form of Have I Been Pwned's range API. It is told five hex digits of the SHA-1, which some
    800 known passwords share, and answers with all of those."""

    def __init__(self, url: HttpUrl | None) -> None:
        """`url` is what the digits are put behind. None: nothing is asked, and nothing is known."""
        self._url = url and str(url).rstrip("/")
        self._limiter = CapacityLimiter(THREADS)

    async def know(self, password: str) -> bool:
        """False also when there is no answer in time: a service of others must not keep anybody from registering."""
        if self._url is None:
            return False
        digest = hashlib.sha1(password.encode(), usedforsecurity=False).hexdigest().upper()
        try:
            with fail_after(SECONDS):
                answer = await to_thread.run_sync(self._ask, digest[:5], abandon_on_cancel=True, limiter=self._limiter)
        except (OSError, HTTPException) as error:
            log.warning("breach_check_failed", cause=type(error).__name__)
            return False
        return any(_is(digest[5:], line) for line in answer.splitlines())

    def _ask(self, prefix: str) -> str:
        # Padding: the length of the answer would tell an observer which digits were asked for.
        headers = {"Add-Padding": "true", "User-Agent": "tristore"}
        request = Request(f"{self._url}/{prefix}", headers=headers)  # noqa: S310 - an HttpUrl is http or https
        try:
            with urlopen(request, timeout=SECONDS) as response:  # noqa: S310 - as above
                body: bytes = response.read(MOST_BYTES)
        except HTTPError as error:
            error.close()  # it is an answer as well, and holds the connection
            raise
        return body.decode("ascii", "replace")


def _is(suffix: str, line: str) -> bool:
    known, _, count = line.strip().upper().partition(":")
    return known == suffix and count != "0"  # padding counts as seen 0 times
