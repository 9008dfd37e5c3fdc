"""What a person may ask of whoever keeps data about them: a copy of all of it, and the end of all of it."""

import uuid
from collections.abc import Callable
from functools import partial

from database.unit_of_work import UnitOfWork
from models.activity import ActivityPage
from models.session import SignedIn
from repositories.activity_repo import ActivityRepository
from repositories.user_repo import UserRepository
from services.effects import EraseDocuments, EraseDocumentsAgain, ForgetProfile, InvalidateProfile, user_key
from services.personal import PERSONAL, Sources
from services.user_service import LastAdmin
from tristore import personal
from tristore.cache.invalidation import Invalidation
from tristore.errors import InProgress, found
from tristore.outbox.relay import Outbox


class PrivacyService:
    def __init__(
        self,
        *,
        unit_of_work: Callable[[], UnitOfWork],
        users: UserRepository,
        activity: ActivityRepository,
        sources: Sources,
        outbox: Outbox,
        invalidation: Invalidation,
        purge_seconds: float,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._users = users
        self._activity = activity
        self._sources = sources
        self._outbox = outbox
        self._invalidation = invalidation
        self._purge_seconds = purge_seconds
        self._exporting: set[uuid.UUID] = set()

    async def erase(self, user_id: uuid.UUID, *, is_admin: bool = False) -> None:
        """Erase a user: from PostgreSQL at once, but for the id and the time, and for what `PERSONAL` says. MongoDB and
        Redis are owed it, twice, because what was under way may arrive after the first pass. Asked again, all of it
        happens again. `is_admin`: another one must stay. Raises LastAdmin, NotFound, StoreUnavailable."""
        async with self._unit_of_work() as uow:
            if is_admin and await self._users.lock_admins(uow.session) == [user_id]:
                raise LastAdmin
            version = found(await self._users.erase(uow.session, user_id))
            await personal.erase_rows(PERSONAL, self._sources, uow, user_id)
            await uow.record()  # streams are locked in the order of their names, and the user's are the last of these
            await self._outbox.supersede(uow.session, user_key(user_id))
            later = {"user_id": user_id, "after_seconds": self._purge_seconds}
            uow.effects = [
                InvalidateProfile(user_id=user_id, version=version, heard=True),
                EraseDocuments(user_id=user_id),
                EraseDocumentsAgain.model_validate(later),
                ForgetProfile.model_validate(later),
            ]
            await uow.commit()
        await self._invalidation.deliver(uow.owed)

    async def activity(self, user_id: uuid.UUID, limit: int, cursor: uuid.UUID | None) -> ActivityPage:
        """Newest first. The cursor is the id of the last one seen. Raises StoreUnavailable."""
        return ActivityPage(**vars(await self._activity.page(user_id, limit, cursor)))

    async def export(self, who: SignedIn) -> personal.Pieces:
        """All that the three stores hold of a user, as one JSON document in pieces; `services.personal.Export` is its
        shape. Every entity is read once before the first piece. Each process makes one of a user at a time. Raises
        InProgress, NotFound, StoreUnavailable."""
        user_id = who.user_id
        if user_id in self._exporting:
            raise InProgress("Another export of yours is being made. Ask again.")  # perhaps for one who has hung up
        self._exporting.add(user_id)
        try:
            pieces = await personal.export(PERSONAL, self._sources, who)
        except BaseException:
            self._exporting.discard(user_id)
            raise
        return personal.Pieces(pieces, partial(self._exporting.discard, user_id))
