"""Releases of this tree for `make upgrade-test BREAK=...`: new ones that name otherwise what they owe, and an old one
that is wrong about what it does not know."""

from collections.abc import Callable
from typing import Any

from tristore.errors import StoreUnavailable
from tristore.ops import components
from tristore.outbox.effects import Effect, Stream, Unknown
from tristore.outbox.relay import Outbox
from tristore.outbox.repository import Outcome
from tristore.outbox.unit_of_work import PostgresUnitOfWork
from tristore.saga.effects import ContinueSaga
from tristore.saga.engine import Sagas


class RenamesSagas(Sagas):
    """Begins each by another name, and goes on with those of both."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self._kinds |= {f"{name}-anew": kind for name, kind in self._kinds.items()}

    async def begin(self, uow: PostgresUnitOfWork, name: str, *more: Any) -> None:
        await super().begin(uow, f"{name}-anew", *more)


class ParksUnknown(Outbox):
    """Takes it for a fault of the effect that this release does not know it."""

    async def _refused(self, stream: Stream, done: tuple[int, ...], error: StoreUnavailable | TimeoutError) -> Outcome:
        if isinstance(error, Unknown):
            return Outcome(stream, done, "ValueError")
        return await super()._refused(stream, done, error)


def rename() -> None:
    """Owe everything by other names, so that the release before knows none of it."""
    for name, effect in list(Effect.by_name.items()):
        if effect is not ContinueSaga:  # or the release before would never come to a saga that it does not know
            effect.__name__ = f"{name}Anew"
            Effect.by_name[effect.__name__] = effect
    setattr(components, "Sagas", RenamesSagas)  # noqa: B010 - mypy would compare them


def forget() -> None:
    """The same, and the names before are known no more."""
    rename()
    for name in [name for name, effect in Effect.by_name.items() if name != effect.__name__]:
        del Effect.by_name[name]


def park_unknown() -> None:
    setattr(components, "Outbox", ParksUnknown)  # noqa: B010 - mypy would compare them


RELEASES: dict[str, Callable[[], None]] = {
    "renames": rename,
    "forgets": forget,
    "parks-unknown": park_unknown,
}
"""What an app of such a release has for BREAK."""
VARIANTS = {"effects-renamed": ("", "forgets"), "unknown-effects-parked": ("parks-unknown", "renames")}
"""Broken variants of a roll: the old release and the new one."""
AS_IT_MUST_BE = ("", "renames")
"""The same done rightly."""
