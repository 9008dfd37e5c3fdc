"""What an operator can do about a store that cannot serve."""

from tristore.errors import Reason, StoreUnavailable, TristoreError

CURES: dict[Reason, str] = {
    "unreachable": "Start it, or check its DSN.",
    "timeout": "It did not answer in time. Look at its load, and at the network in between; then try again.",
    "busy": "Others hold what this needs, or all its connections. Try again; if that does not help, look who does.",
    "not migrated": "Run `python manage.py migrate`.",
    "read only": "Its DSN leads to a replica, or it was made read-only. Connect to the primary, or make it writable.",
    "refuses writes": "It answers, but takes no writes. Its log says why: mostly disk, memory, or too few replicas.",
    "not known": "Run this in the release that knows it: the later one of a roll, or the one before a rename.",
    "not permitted": "Give the user of its DSN the rights that docs/troubleshooting.md lists.",
}


def told(error: TristoreError) -> str:
    """One line for an operator, without values: what is wrong, the cause where a store named one, and the cure."""
    if not isinstance(error, StoreUnavailable):
        return str(error)
    cause = f", {error.cause}" if error.cause else ""
    return f"{error.store} is not available ({error.reason}{cause}). {CURES[error.reason]}"
