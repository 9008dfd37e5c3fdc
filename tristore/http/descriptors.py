"""How many connections a process may have: each takes a file descriptor, and so does whatever else it opens."""

import resource
from contextlib import suppress
from functools import cache

OWN = 256
"""Descriptors for the pools, the logs and the loop itself."""


@cache
def most_connections(backlog: int) -> int:
    """So many leave descriptors for ourselves, and for a whole `backlog`: asyncio accepts that many at once before it
    asks us, and without a descriptor it logs an error for each. The soft limit is raised to the hard one first, as Go
    and nginx do."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS takes no limit that is infinite
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return descriptors - min(OWN + backlog, descriptors // 2) if descriptors != resource.RLIM_INFINITY else 2**20
