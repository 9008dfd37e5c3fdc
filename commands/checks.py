"""What must agree between the stores. `manage.py check` looks for what does not.

Modules of this folder that are called ..._checks add theirs."""

from collections.abc import Callable, Sequence
from importlib import import_module
from pkgutil import iter_modules

from sqlalchemy import func

import commands
from models.activity import ACTIVITY_KEPT
from models.user import User
from services.personal import PERSONAL
from tristore.ops.agreement import Check, missing, ownerless
from tristore.stores.keys import InAny, MongoKeys, PostgresKeys
from wiring import Services

GONE = "They are erased, or PostgreSQL does not know them. `manage.py erase ID...` deletes what is left of them."
LOST = "MongoDB has lost what was owed to them, and perhaps more of that time: docs/backups.md says what can be done."
ALONE = "MongoDB has lost the conversation. Nobody can read these any more: docs/backups.md says how to delete them."
WITHOUT_OWNER = ["messages"]
"""Collections that name a conversation, and no user."""


def checks(services: Services) -> Sequence[Check]:
    stores = services.stores
    living = PostgresKeys(stores.postgres, User.id, [User.erased_at.is_(None)])
    return [
        _first_conversations(services),
        missing(
            "messages of no conversation",
            ALONE,
            MongoKeys(stores.mongodb, "messages", "conversation_id"),
            MongoKeys(stores.mongodb, "conversations"),
            lambda key: f"conversation:{key}",
        ),
        *ownerless(PERSONAL, stores, User.id, living, GONE, _of_user, without=WITHOUT_OWNER),
        *(check for checks_of in _others() for check in checks_of(services)),
    ]


def _first_conversations(services: Services) -> Check:
    """Who deletes a conversation has that in the activity, for as long as activity is kept. So older users are not
    looked at."""
    postgres, mongodb = services.stores.postgres, services.stores.mongodb
    recent = [User.erased_at.is_(None), User.created_at > func.now() - ACTIVITY_KEPT]
    begun = MongoKeys(mongodb, "conversations", "user_id")
    deleted = MongoKeys(mongodb, "activity", "user_id", {"action": "conversation_deleted"})
    users = PostgresKeys(postgres, User.id, recent)
    return missing("users without any conversation", LOST, users, InAny([begun, deleted]), _of_user)


def _of_user(key: str) -> str:
    """As `user_key`, and of what is no id."""
    return f"user:{key}"


def _others() -> Sequence[Callable[[Services], Sequence[Check]]]:
    names = [module.name for module in iter_modules(commands.__path__) if module.name.endswith("_checks")]
    return [import_module(f"commands.{name}").checks for name in names]
