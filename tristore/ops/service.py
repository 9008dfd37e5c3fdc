"""What the machinery's commands must know of the product."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol

from tristore.settings import S, load

if TYPE_CHECKING:  # they take long to import
    from tristore.migrations.history import History
    from tristore.migrations.scripts import Scripts
    from tristore.ops.agreement import Check
    from tristore.outbox.relay import Outbox
    from tristore.saga.engine import Sagas
    from tristore.stores.stores import Stores


class Services(Protocol):
    """The product's services, as far as the commands use them."""

    @property
    def stores(self) -> "Stores": ...
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
    checks: "Callable[[Any], Sequence[Check]]" = lambda services: ()
    """What must agree between the stores of these services. It imports what it needs when it is called."""
    module: str = "main"
    """Has the application as `app`."""
    next_steps: Sequence[tuple[str, str]] = ()
    """What a person may do who has just started the service: a command or an address, and what for."""

    def read_settings(self, *, complete: bool = False) -> S:
        """Read them anew, so that DSNs of stores that have just been started are among them. `complete`: all DSNs must
        be set. Raises WrongSettings."""
        return load(self.settings, complete=complete)
