"""A circuit breaker: after a few failures in a row nobody calls the store for a moment."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import structlog

from tristore.errors import Reason, StoreName, StoreUnavailable

log = structlog.get_logger()


class CircuitBreaker:
    """Put each call into `with breaker:`. While it is closed, every call passes. While it is open, it raises
    StoreUnavailable at once. After `seconds` it lets one call try while it refuses the others, and the outcome of that
    call decides."""

    def __init__(self, store: StoreName, failures: int, seconds: float) -> None:
        """`failures`: it opens after so many in a row."""
        self._store: StoreName = store
        self._allowed_failures = failures
        self._seconds = seconds
        self._failures = 0
        self._closed_again_at = 0.0
        self._reason: Reason = "unreachable"
        self._cause = ""

    @property
    def is_open(self) -> bool:
        return self._failures >= self._allowed_failures

    @property
    def refuses(self) -> bool:
        """Whether a call would be refused now."""
        return self.is_open and time.monotonic() < self._closed_again_at

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Let a call pass even while it is open, and learn from the outcome."""
        try:
            yield
        except StoreUnavailable as error:
            self.count(error)
            raise
        self._succeeded()

    def __enter__(self) -> None:
        if self.refuses:
            raise StoreUnavailable(self._store, self._reason, self._cause)
        if self.is_open:
            self._closed_again_at = time.monotonic() + self._seconds  # this call is the trial, the next must wait

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, StoreUnavailable):
            self.count(error)
        elif error is None:
            self._succeeded()

    def count(self, error: StoreUnavailable, times: int = 1) -> None:
        """Count the failure of one call, or of several that waited for the same answer."""
        if error.reason == "busy" or times < 1:  # busy: our own pool was empty; the store is well
            return
        was_open = self.is_open
        self._failures += times
        self._reason, self._cause = error.reason, error.cause
        self._closed_again_at = time.monotonic() + self._seconds
        if self.is_open and not was_open:
            log.warning("breaker_opened", store=self._store, reason=error.reason, cause=error.cause)

    def _succeeded(self) -> None:
        if self.is_open:
            log.info("breaker_closed", store=self._store)
        self._failures = 0
