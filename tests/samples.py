"""One of everything that the API has: a row for each entity.

The walk over all routes, the access matrix, the fuzz, the examples of the API's document and the tests of export and
erasure take from here what there is to read, to change and to forget.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from models import course


@dataclass(frozen=True)
class Sample:
    parameter: str
    """How paths and bodies name its id."""
    path: str
    """A POST to it makes one. Ids in it, and in the body, are those of the rows above."""
    body: Mapping[str, Any]
    most: str
    """The setting that says how many a user may have, or why there is none."""
    owner: Literal["user", "admin"] = "user"
    """Who makes it. What a user makes does not exist for anybody else; what an admin makes is for everybody."""
    quick: Mapping[str, Any] = field(default_factory=dict)
    """Settings with which it soon leaves nothing behind."""


BY_ADMINS, AS_WRITTEN = "by admins alone", "as many as the user writes: rate_limit_requests bounds how fast"
SAMPLES = [
    Sample("conversation_id", "/conversations", {"title": "private"}, "conversations_per_user"),
    Sample("message_id", "/conversations/{conversation_id}/messages", {"content": "secret"}, AS_WRITTEN),
    Sample("course_id", "/courses", course.EXAMPLE | {"capacity": course.MAX_CAPACITY}, BY_ADMINS, owner="admin"),
    # begin part orders
    Sample("order_id", "/orders", {"course_id": "of the course"}, "orders_per_user", quick={"order_deadline": 3}),
    # end part orders
]
QUICK = {name: value for sample in SAMPLES for name, value in sample.quick.items()}
PARAMETERS = {"user_id", "session_id", *(sample.parameter for sample in SAMPLES)}
HELD_BACK = {
    ("patch", "/users/me"),
    ("delete", "/users/me"),
    ("post", "/auth/logout-others"),
    ("delete", "/auth/sessions/{session_id}"),
    ("post", "/conversations"),
    # begin part orders
    ("post", "/orders"),
    # end part orders
}
"""Routes whose 403 is for the moment: they ask for a recent sign-in, or a verified address. All others with a 403 ask
for a role."""
ONE_TIME = {("post", "/auth/password-reset/confirm"), ("post", "/auth/email-verification/confirm")}
"""Routes that take what only a mail has. No example of theirs is accepted."""


def with_ids(path: str, ids: Mapping[str, str]) -> str:
    """The path with these ids. Raises AssertionError when there is no sample for one."""
    assert not (message := missing([path])), message
    return path.format(**ids)


def about(ids: Mapping[str, str], body: Mapping[str, Any]) -> dict[str, Any]:
    """The body with these ids where it names an object."""
    return {**body, **{name: ids[name] for name in body.keys() & ids.keys()}}


def missing(paths: Iterable[str]) -> str:
    """What to do about path parameters without a row, empty if there are none."""
    return "\n".join(
        f"tests/samples.py has no row for the path parameter {{{name}}} of {path}: "
        f'add Sample("{name}", path and body of the POST that makes one) to SAMPLES'
        for path in paths
        for name in re.findall(r"\{(\w+)\}", path)
        if name not in PARAMETERS
    )
