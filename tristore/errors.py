"""What can go wrong, without a word of HTTP: `tristore/http/problems.py` maps this tree to responses.

TristoreError
├── InvalidInput              the request is malformed in a named field
├── NotAuthenticated          nobody, or nobody known, is asking
├── NotAllowed                known, but without the right
│   ├── NotVerified           known, but not yet by a verified address
│   └── SignInAgain           known, but not by a recent sign-in
├── NotFound                  no such object, or not the caller's
├── Conflict                  the request contradicts what is stored
│   ├── AlreadyTaken          a unique field is in use
│   ├── InProgress            the same request is being served right now
│   └── TooMany               a user has as many of these as one may have
├── StaleTag                  what is to be changed has changed since it was read
├── TooManyRequests           above a rate limit
├── Overloaded                this process has all it can hold
└── StoreUnavailable          a store is unreachable, too slow, or busy
"""

from typing import Literal, TypeVar

T = TypeVar("T")
StoreName = Literal["postgresql", "redis", "mongodb"]
Reason = Literal[
    "unreachable", "timeout", "busy", "not migrated", "read only", "refuses writes", "not permitted", "not known"
]
"""Why a store cannot serve. `busy`: our own pool, or the server for a moment; asking again helps. `read only`: it
answers, and takes no writes by its role or its setting. `refuses writes`: it answers, and refuses for want of space,
memory or replicas, or for a reason that we do not know. `not permitted`: the DSN's user lacks a right. `not known`: no
fault of a store; what is to be done is known to another release alone."""


class TristoreError(Exception):
    """Something went wrong."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or type(self).__doc__)


class InvalidInput(TristoreError):
    """The request is not valid."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class NotAuthenticated(TristoreError):
    """Sign in first."""


class NotAllowed(TristoreError):
    """You may not do this."""


class NotVerified(NotAllowed):
    """Verify your e-mail address first."""


class SignInAgain(NotAllowed):
    """Sign in again, or confirm your password: the last time was more than five minutes ago."""


class NotFound(TristoreError):
    """There is no such object."""


def found(what: T | None) -> T:
    """What was looked for. Raises NotFound where it is None."""
    if what is None:
        raise NotFound
    return what


class Conflict(TristoreError):
    """The request contradicts the present state."""


class AlreadyTaken(Conflict):
    """This value is already taken."""

    def __init__(self, field: str) -> None:
        super().__init__(f"This {field} is already taken.")
        self.field = field


class InProgress(Conflict):
    """A request with this Idempotency-Key is in progress. Ask again for its answer."""


class TooMany(Conflict):
    """You have as many as there may be."""

    def __init__(self, most: int, what: str) -> None:
        """`what`: one of these, or several, as `most` asks."""
        super().__init__(f"A user may have {most} {what}.")


class StaleTag(TristoreError):
    """It has changed since you read it. Read it again."""

    def __init__(self, current: str) -> None:
        """`current`: what stands for its present state."""
        super().__init__()
        self.current = current


class TooManyRequests(TristoreError):
    """Too many requests. Wait, and try again."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"Too many requests. Try again in {seconds} s.")
        self.seconds = seconds


class Overloaded(TristoreError):
    """The service has all it can hold at the moment. Try again."""


class StoreUnavailable(TristoreError):
    """A database is not available at the moment."""

    def __init__(self, store: str, reason: Reason, cause: str = "") -> None:
        """`store`: one of the three, or what else effects write to, such as a mail server. `cause` is for operators:
        the SQLSTATE, the server's code or the error's class. Never a value or a DSN."""
        super().__init__(f"{store} is not available at the moment ({reason}).")
        self.store = store
        self.reason: Reason = reason
        self.cause = cause
