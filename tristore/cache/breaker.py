"""A circuit breaker: after a few failures in a row a store is left alone for a moment instead of waited for."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import structlog

from tristore.errors import Reason, StoreName, StoreUnavailable

log = structlog.get_logger()


class CircuitBreaker:
    """Wraps each call as `with breaker:`. Closed, it lets all pass; open, it raises StoreUnavailable at once; after
    `seconds` one call may try while the others are still refused, and its outcome decides."""

    def __init__(self, store: StoreName, failures: int, seconds: float) -> None:
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
        """Let a call pass even while open, and learn from its outcome."""
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
        """Count failures: of one call, or of those that waited for it as well."""
        if error.reason == "busy" or times < 1:  # busy: our own pool was empty, and the store is well
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
