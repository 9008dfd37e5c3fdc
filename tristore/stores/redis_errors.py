"""What the errors of Redis' driver mean."""

from contextlib import AbstractContextManager

from redis import exceptions

from tristore.errors import Reason
from tristore.stores.translation import Verdict, by_code, translating

# The first word of the server's reply -> why it did not serve us. What is not here is unknown, or our own fault, such
# as ERR and WRONGTYPE: nobody can tell the two apart, and without the cache all goes on.
CODES: dict[str, Reason] = by_code(
    {
        # It still reads its data or has lost its primary; or the DSN is wrong: no password, or a cluster's node.
        "unreachable": "LOADING MASTERDOWN CLUSTERDOWN MOVED CROSSSLOT NOAUTH WRONGPASS DENIED NOPROTO",
        "timeout": "BUSY",  # a script runs, for as long as it likes
        "busy": "TRYAGAIN ASK NOSCRIPT",  # a slot moves to another server of a cluster
        "read only": "READONLY",
        "refuses writes": "MISCONF NOREPLICAS OOM",
        "not permitted": "NOPERM",
    }
)
# What has no code that we know, along the error's MRO. None: the caller's own fault, not translated.
REASONS: dict[type[BaseException], Verdict] = {
    exceptions.ConnectionError: "unreachable",
    exceptions.MaxConnectionsError: "busy",
    exceptions.TimeoutError: "timeout",
    exceptions.InvalidResponse: "unreachable",  # no Redis
    exceptions.ResponseError: "unknown",
    exceptions.RedisError: None,
    TimeoutError: "timeout",
    OSError: "unreachable",
}
REFUSED_IN_SCRIPT = "ACL failure in script"
"""So Redis words a NOPERM that a script met; the code is ERR."""


def translate_errors(*, raise_unknown: bool = False) -> AbstractContextManager[None]:
    """A block in which errors that mean "not available now" become StoreUnavailable."""
    return translating("redis", reason_of, cause_of, raise_unknown=raise_unknown)


def reason_of(error: BaseException) -> Verdict:
    """Why Redis was not available, or None when the error is not about that."""
    if type(error) is exceptions.ConnectionError and isinstance(error.__cause__, TimeoutError):
        return "busy"  # how BlockingConnectionPool says that no connection became free
    if reason := CODES.get(_code(error)):
        return reason
    return next((REASONS[cls] for cls in type(error).__mro__ if cls in REASONS), None)


def cause_of(error: BaseException) -> str:
    """What operators are told: the first word of the server's reply, else the name of the driver's error."""
    return _code(error) or type(error).__name__


def _code(error: BaseException) -> str:
    if not isinstance(error, exceptions.RedisError):
        return ""
    if str(error).startswith(REFUSED_IN_SCRIPT):
        return "NOPERM"
    # redis-py takes the word off the text where it has a class for it. A text of its own begins in another way.
    word = error.status_code or str(error).partition(" ")[0]
    return word if word.isalpha() and word.isupper() else ""
