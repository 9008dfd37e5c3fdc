"""Where each store is, as lines for the operator."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from tristore.errors import StoreName
from tristore.settings import DSN_FIELDS, READERS, TristoreSettings

if TYPE_CHECKING:  # never installed in production
    from tristore.embedded.servers import Server


def store_row(settings: TristoreSettings, store: StoreName, server: "Server | None") -> Sequence[str]:
    """Store, state, where, data folder. A store with a DSN has no `server`."""
    field = DSN_FIELDS[store]
    if server:
        return store, "embedded running", f"127.0.0.1:{server.port}", str(settings.data_dir / store)
    if getattr(settings, field) is None:
        return store, "embedded stopped", "-", str(settings.data_dir / store)
    return store, "external DSN set", READERS[field](settings.dsn(field)).hosts or "as its path or options say"


def aligned(rows: Iterable[Sequence[str]]) -> str:
    """The rows as lines, with four columns at most."""
    rows = [[*row, "", "", "", ""][:4] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
