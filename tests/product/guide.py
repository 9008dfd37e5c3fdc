"""What the documents promise to clients who repeat a write because no answer came."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.product.routes import Operation
from tristore.testing.lab import PROJECT

OTHER, KEY = "any other", "Idempotency-Key"
HEAD = "| write | send with it | the repetition answers |\n|---|---|---|\n"
ROW = re.compile(
    r"^\| (?:any other `([A-Z]+)`|`([A-Z]+) (\S+)`) \| (nothing|`[\w-]+`) \| (\d{3})(, replayed)?[,;:]?( .*)? \|$",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Repetition:
    sent: str
    """What goes with the write: the name of a header, `id`, or nothing."""
    status: int
    is_replayed: bool
    says: str
    """What follows the status."""


def repetitions() -> dict[tuple[str, str], Repetition]:
    """By method and path: what has a row. What has none finds its method with `OTHER`."""
    return {
        ((any_other or method).lower(), path or OTHER): Repetition(sent.strip("`"), int(status), bool(replayed), says)
        for table in _tables()
        for any_other, method, path, sent, status, replayed, says in ROW.findall(table)
    }


def repetition_of(operation: Operation) -> Repetition | None:
    """None when the documents say nothing of it."""
    told = repetitions()
    return told.get(operation.name) or told.get((operation.method, OTHER))


def _tables() -> Iterator[str]:
    for document in (PROJECT / "docs").glob("*.md"):
        for rest in document.read_text().split(HEAD)[1:]:
            yield rest.partition("\n\n")[0]


def silent_about(operations: list[Operation]) -> str:
    """What to do about writes that no row tells of rightly, empty if there are none."""
    return "\n".join(
        f"The documents say nothing of the repetition of `{operation.method.upper()} {operation.path}`. Add a row to "
        "the table under 'When no answer comes' in docs/clients.md"
        for operation in operations
        if not (told := repetition_of(operation)) or (told.sent == KEY) != _takes_key(operation)
    )


def _takes_key(operation: Operation) -> bool:
    return KEY in {part["name"] for part in operation.document.get("parameters", ())}
