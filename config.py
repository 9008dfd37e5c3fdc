"""The settings of the product. Those of the machinery are in `tristore/settings.py`. `.env.example` explains all."""

from datetime import date
from functools import lru_cache
from typing import ClassVar

from limits import RateLimitItem, parse_many
from pydantic import Field, ValidationInfo, field_validator

from tristore.settings import TristoreSettings, load, sends_mail

NAME = "chatlingo"
"""What the stores know the service by: clients and databases have this name."""
LIMITED = ("anonymous", "sign_in_address", "sign_in_account", "sign_in_strangers", "registration", "mail", "requests")
"""Kinds of requests. Each has a setting `rate_limit_...`."""


class Settings(TristoreSettings):
    """Environment variables are the upper-case names. Times are seconds unless the name says otherwise."""

    known_passwords: ClassVar = frozenset({NAME})
    own_loggers: ClassVar[tuple[str, ...]] = (
        "main",
        "commands",
        "database",
        "models",
        "repositories",
        "services",
        "routers",
    )

    app_name: str = NAME
    mongodb_database: str = NAME

    cache_profile_ttl: float = Field(300, ge=1)
    near_profile_seconds: float = Field(30, gt=0, le=60)
    near_session_seconds: float = Field(13, gt=0, le=60)
    session_seconds: int = Field(90 * 86_400, ge=60)
    session_idle_seconds: int = Field(14 * 86_400, ge=120)
    sessions_per_user: int = Field(50, ge=1)
    conversations_per_user: int = Field(10_000, ge=1)
    cache_session_ttl: float = Field(15, ge=1, le=60)
    rate_limit_anonymous: str = "1200/minute"
    rate_limit_sign_in_address: str = "60/minute"
    rate_limit_sign_in_account: str = "10/minute"
    rate_limit_sign_in_strangers: str = "30/hour"
    rate_limit_registration: str = "100/hour"
    rate_limit_mail: str = "5/hour"
    rate_limit_requests: str = "600/minute"
    # begin part orders
    order_deadline: float = Field(10, ge=1, le=300)
    orders_per_user: int = Field(1000, ge=1)
    # end part orders
    verified_email_since: date | None = None
    registration_privacy: bool = False
    purge_seconds: float = Field(60, gt=0)

    @field_validator("verified_email_since", mode="before")
    @classmethod
    def _empty_is_nobody(cls, since: object) -> object:
        return None if since == "" else since

    @field_validator("registration_privacy")
    @classmethod
    def _tell_by_mail(cls, on: bool, others: ValidationInfo) -> bool:
        if on and "mail_dsn" in others.data and not sends_mail(others.data["mail_dsn"], others.data.get("environment")):
            raise ValueError("needs mail, which tells the owner of an address that somebody wants it: set MAIL_DSN")
        return on

    @field_validator(*(f"rate_limit_{kind}" for kind in LIMITED))
    @classmethod
    def _parse_limits(cls, limits: str) -> str:
        try:
            _parsed(limits)
        except ValueError:
            raise ValueError("must be such as 10/minute or 10/minute;100/day, or empty for no limit") from None
        return limits

    def rate_limits(self) -> dict[str, tuple[RateLimitItem, ...]]:
        """The limits of each kind, none where it is turned off."""
        return {kind: _parsed(getattr(self, f"rate_limit_{kind}")) for kind in LIMITED}


def _parsed(limits: str) -> tuple[RateLimitItem, ...]:
    return tuple(parse_many(limits)) if limits else ()


@lru_cache
def get_settings() -> Settings:
    """The process's settings. Raises SystemExit with a line for each mistake, without the values."""
    return load(Settings)
