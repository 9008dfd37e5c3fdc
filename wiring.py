"""Builds the services from the settings and the open stores. Each part is built once, when it is first asked for.

To add a service, add a property to `Services`. The machinery that it may use is in `Components`."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import date, timedelta
from functools import cached_property, partial
from pathlib import Path

from config import NAME, Settings
from database.stores import Stores, open_stores
from database.unit_of_work import UnitOfWork
from migrations import REVISIONS
from models.base import FORMAT
from models.idempotency import IdempotencyRecord
from models.link import EmailLink
from repositories.activity_repo import ActivityRepository
from repositories.cache_repo import CacheRepository
from repositories.conversation_repo import ConversationRepository
from repositories.course_repo import CourseRepository
from repositories.session_repo import SessionRepository
from repositories.user_repo import UserRepository
from services.auth_service import AuthService
from services.conversation_service import ConversationService
from services.course_service import CourseService
from services.effects import QUEUES, Targets
from services.personal import PERSONAL, Sources
from services.privacy_service import PrivacyService
from services.rate_limit_service import RateLimitService
from services.user_service import UserService
from tristore.cache.copies import Lifetime
from tristore.idempotency import IdempotencyRepository
from tristore.links import LinkRepository
from tristore.ops.components import LONGEST, Components, Facts
from tristore.personal import erase_documents
from tristore.recovery import Recovery

# begin part live
# isort: split
from models.conversation import Message
from repositories.conversation_repo import message_of
from tristore.live.hints import HintService
from tristore.live.listeners import LiveService
from tristore.live.logged import LoggedSource

# end part live
# begin part orders
# isort: split
from repositories.order_repo import OrderRepository
from repositories.seat_repo import SeatRepository
from services.order_saga import OrderSaga
from services.order_seats import CourseSeats
from services.order_service import OrderService

# end part orders


TEMPLATES = Path(__file__).parent / "templates"


class Services(Components):
    """All that routers, commands and the lifespan ask for."""

    _settings: Settings
    unit_of_work: Callable[[], UnitOfWork]
    queues: Sequence[str] = QUEUES

    def __init__(self, settings: Settings, stores: Stores) -> None:
        longest = max(settings.cache_profile_ttl, settings.cache_session_ttl)
        facts = Facts(settings.app_name, NAME, self.queues, FORMAT, longest, REVISIONS, TEMPLATES)
        super().__init__(settings, stores, facts)
        self.unit_of_work = partial(UnitOfWork, stores.postgres, self._owed.record)
        self._users = UserRepository(stores.postgres)
        self._idempotency = IdempotencyRepository(IdempotencyRecord)
        self._links = LinkRepository(stores.postgres, EmailLink)
        self._activity = ActivityRepository(stores.mongodb)
        # begin part orders
        self._orders = OrderRepository(stores.postgres)
        self._seats = SeatRepository(stores.mongodb)
        # end part orders

    # What the machinery asks for

    def targets(self) -> Targets:
        return Targets(
            self.cache,
            self._messages,
            self._activity,
            self.feed,
            self._stores.mongodb,
            self.sagas,
            self._sessions,
            partial(erase_documents, PERSONAL, self._personal),
            self._users.recipient,
            self._links,
            self.mailer,
        )

    # begin part orders
    def saga_kinds(self) -> Sequence[OrderSaga]:
        return [OrderSaga(orders=self._orders, seats=self._seats, seconds=self._settings.order_deadline)]

    # end part orders

    def counts(self) -> dict[str, Counter[str]]:
        return super().counts() | {
            "sign_ins": self.auth.counts,
            "rate_limited": self.rate_limits.counts,
            # begin part live
            "live_events": self.live.counts,
            "live_hints": self.hints.counts,
            # end part live
        }

    def gauges(self) -> dict[str, tuple[str, Callable[[], int]]]:
        hashing = "Requests that wait for their turn to hash a password"
        return {
            "password_hashing_waiting": (hashing, lambda: self._hasher.waiting + self.auth.waiting),
            # begin part live
            "live_listeners": ("Open streams", lambda: self.live.listening + self.hints.listening),
            # end part live
        }

    def start(self) -> None:
        super().start()
        # begin part live
        self.live.start()
        self.hints.start()
        # end part live

    def end_streams(self) -> None:
        """End the answers that would go on for ever: the server waits for them before it stops."""
        # begin part live
        self.live.end_all()
        self.hints.end_all()
        # end part live

    async def close_own(self) -> None:
        await self._messages.close()
        # begin part live
        await self.live.close()
        await self.hints.close()
        # end part live

    # What the services stand on

    @cached_property
    def _sessions(self) -> SessionRepository:
        settings = self._settings
        # First the longest life in Redis. Then more than the 30 s that a near copy has: the COMMIT may come late.
        copies_last = LONGEST * settings.cache_session_ttl + 2 * settings.near_session_seconds
        return SessionRepository(
            self._stores.postgres,
            timedelta(seconds=settings.session_idle_seconds),
            copies_last=timedelta(seconds=copies_last),
        )

    @cached_property
    def _personal(self) -> Sources:
        return Sources(self._stores, self._settings.postgres_request_deadline, self._sessions)

    @cached_property
    def _messages(self) -> ConversationRepository:
        messages = ConversationRepository(self._stores.mongodb, self.feed.send)
        self.feed.listen(messages.hear, messages.hear_of_all)
        return messages

    @cached_property
    def _copies(self) -> CacheRepository:
        settings = self._settings
        return CacheRepository(
            self.cache,
            profiles=Lifetime(settings.cache_profile_ttl, settings.near_profile_seconds),
            sessions=Lifetime(settings.cache_session_ttl, settings.near_session_seconds),
        )

    @property
    def verified_since(self) -> date | None:
        return self._settings.verified_email_since

    # The services

    @cached_property
    def auth(self) -> AuthService:
        return AuthService(
            unit_of_work=self.unit_of_work,
            sessions=self._sessions,
            cache=self._copies,
            outbox=self.outbox,
            invalidation=self.invalidation,
            hasher=self._hasher,
            limits=self.rate_limits,
            lasts=timedelta(seconds=self._settings.session_seconds),
            most=self._settings.sessions_per_user,
        )

    @cached_property
    def users(self) -> UserService:
        return UserService(
            unit_of_work=self.unit_of_work,
            users=self._users,
            idempotency=self._idempotency,
            cache=self._copies,
            outbox=self.outbox,
            invalidation=self.invalidation,
            hasher=self._hasher,
            auth=self.auth,
            sessions=self._sessions,
            links=self._links,
            may_mail=self.rate_limits.may_mail if self.mailer else None,
            is_private=self._settings.registration_privacy,
        )

    @cached_property
    def recovery(self) -> Recovery:
        return Recovery(
            unit_of_work=self.unit_of_work,
            accounts=self._sessions,
            links=self._links,
            recipient=self._users.recipient,
            hasher=self._hasher,
            prove=self.users.prove,
            has_mail=self.mailer is not None,
        )

    @cached_property
    def conversations(self) -> ConversationService:
        return ConversationService(
            unit_of_work=self.unit_of_work,
            conversations=self._messages,
            activity=self._activity,
            outbox=self.outbox,
            purge_seconds=self._settings.purge_seconds,
            most=self._settings.conversations_per_user,
        )

    @cached_property
    def courses(self) -> CourseService:
        courses = CourseRepository(self._stores.postgres)
        return CourseService(
            unit_of_work=self.unit_of_work,
            courses=courses,
            idempotency=self._idempotency,
            outbox=self.outbox,
            # begin part orders
            extensions=[CourseSeats(self._seats)],
            # end part orders
        )

    # begin part orders
    @cached_property
    def orders(self) -> OrderService:
        return OrderService(
            unit_of_work=self.unit_of_work,
            orders=self._orders,
            idempotency=self._idempotency,
            sagas=self.sagas,
            outbox=self.outbox,
            most=self._settings.orders_per_user,
        )

    # end part orders

    @cached_property
    def privacy(self) -> PrivacyService:
        return PrivacyService(
            unit_of_work=self.unit_of_work,
            users=self._users,
            activity=self._activity,
            sources=self._personal,
            outbox=self.outbox,
            invalidation=self.invalidation,
            purge_seconds=self._settings.purge_seconds,
        )

    @cached_property
    def rate_limits(self) -> RateLimitService:
        return RateLimitService(self._counters, self._settings.rate_limits())

    # begin part live
    @cached_property
    def live(self) -> LiveService[Message]:
        return self.live_service(LoggedSource(self._messages.log, message_of))

    @cached_property
    def hints(self) -> HintService:
        return self.hint_service(LoggedSource(self._messages.log, message_of))

    # end part live


@asynccontextmanager
async def open_services(settings: Settings) -> AsyncIterator[Services]:
    """The services on stores of their own, for a command. Nothing runs beside it."""
    async with open_stores(settings) as stores:
        yield Services(settings, stores)
