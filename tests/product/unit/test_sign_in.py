"""What signing in costs: the same work whether the user exists or not."""

from datetime import timedelta
from functools import partial

import httpx
import pytest
from passlib.context import CryptContext
from pydantic import SecretStr

from config import Settings
from database.unit_of_work import UnitOfWork
from models.user import Registration
from repositories.session_repo import SessionRepository
from services.auth_service import AuthService
from tests.product.people import account
from tests.under_test import QUICK_HASH
from tristore.cache.invalidation import Invalidation
from tristore.errors import NotAuthenticated
from tristore.forms import SignIn
from tristore.idempotency import IdempotencyKey, KeyUsed
from tristore.passwords import CONTEXT, PasswordHasher
from tristore.stores.stores import Stores
from wiring import Services


class Counting(CryptContext):  # type: ignore[misc]  # it has no types
    """Notes the parameters of every hash that it works out."""

    def __init__(self) -> None:
        self.work: list[str] = []
        super().__init__(**CONTEXT.to_dict())

    def hash(self, secret: str, **options: str) -> str:
        made: str = super().hash(secret, **options)
        self.work.append(parameters(made))
        return made

    def verify(self, secret: str, hash: str, **options: str) -> bool:
        self.work.append(parameters(hash))
        return bool(super().verify(secret, hash, **options))

    def verify_and_update(self, secret: str, hash: str, **options: str) -> tuple[bool, str | None]:
        self.work.append(parameters(hash))
        is_right, better_hash = super().verify_and_update(secret, hash, **options)
        return is_right, better_hash


def parameters(hash: str) -> str:
    """Without salt and sum."""
    return hash.rsplit("$", 2)[0]


WORK = parameters(CONTEXT.copy(**QUICK_HASH).hash("any"))


def service(settings: Settings, stores: Stores, context: CryptContext) -> AuthService:
    services = Services(settings, stores)
    return AuthService(
        unit_of_work=partial(UnitOfWork, stores.postgres, services.outbox.record),
        sessions=SessionRepository(stores.postgres, timedelta(days=1), copies_last=timedelta(seconds=30)),
        cache=services.auth._cache,
        outbox=services.outbox,
        invalidation=Invalidation(outbox=services.outbox, cache=services.cache, near_doubt=1),
        hasher=PasswordHasher("chatlingo", context),
        limits=services.rate_limits,
        lasts=timedelta(days=1),
        most=50,
    )


async def test_a_guess_by_a_key_takes_what_a_sign_in_takes_whatever_is_wrong(
    client: httpx.AsyncClient, settings: Settings, stores: Stores
) -> None:
    """And one more: the hash of who would register."""
    new, key = Registration.model_validate(account()), IdempotencyKey("POST /users/register", "k")
    services, context = Services(settings, stores), Counting()
    services._hasher = PasswordHasher("chatlingo", context)
    await services.users.register_user(new, key)
    other = {"cefr_level": "C2", "password": SecretStr("not this one")}
    for names in (["password"], ["cefr_level"], ["cefr_level", "password"]):
        context.work.clear()
        with pytest.raises(KeyUsed):
            await services.users.register_user(new.model_copy(update={name: other[name] for name in names}), key)
        assert context.work == [WORK] * 2, names
    context.work.clear()
    await services.users.register_user(new, key)
    assert context.work == [WORK] * 2
    await services.close()


async def test_a_refusal_takes_one_hash_whether_the_user_exists_or_not(
    client: httpx.AsyncClient, settings: Settings, stores: Stores
) -> None:
    """From the first one on, which must not also prepare what it compares with."""
    body = account()
    assert (await client.post("/users/register", json=body)).status_code == 201
    context = Counting()
    auth = service(settings, stores, context)
    for name in ("nobody-here", "nobody@example.com", body["username"], body["email"]):
        context.work.clear()
        with pytest.raises(NotAuthenticated):
            await auth.sign_in(SignIn(username=name, password="not this one"), "127.0.0.1")
        assert context.work == [WORK], name
