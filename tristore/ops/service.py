"""What the machinery's commands must know of the product."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol

from tristore.settings import S, load

if TYPE_CHECKING:  # they take long to import
    from tristore.migrations.history import History
    from tristore.migrations.scripts import Scripts
    from tristore.outbox.relay import Outbox
    from tristore.saga.engine import Sagas


class Services(Protocol):
    """The product's services, as far as the commands use them."""

    @property
    def outbox(self) -> "Outbox": ...
    @property
    def sagas(self) -> "Sagas": ...


@dataclass(frozen=True)
class Service(Generic[S]):
    name: str
    """Of the database of an embedded PostgreSQL."""
    settings: type[S]
    open_services: Callable[[S], AbstractAsyncContextManager[Services]]
    """Gives the services on open stores, and closes the stores. It imports them when it is called."""
    migrations: "Callable[[], tuple[History, Scripts]]"
    """Gives PostgreSQL's and MongoDB's migrations of the product. It imports them when it is called."""
    module: str = "main"
    """Has the application as `app`."""

    def read_settings(self) -> S:
        """Read them anew, so that DSNs of stores that have just been started are among them. Raises SystemExit."""
        return load(self.settings)
