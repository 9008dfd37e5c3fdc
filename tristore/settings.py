"""The settings that every clone has, read from the environment and `.env`, checked once at the start."""

import json
import os
import re
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self, TypeVar

from pydantic import Field, HttpUrl, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError

from tristore.errors import StoreName
from tristore.production import dsn_problems, trusts_everybody
from tristore.stores.dsn import Dsn, read_mongodb, read_postgres, read_redis

S = TypeVar("S", bound="TristoreSettings")
Names = Annotated[list[str], NoDecode]  # `_split` decodes it
DsnField = Literal["postgres_dsn", "redis_dsn", "mongodb_dsn"]
DSN_FIELDS: dict[StoreName, DsnField] = {
    "postgresql": "postgres_dsn",
    "redis": "redis_dsn",
    "mongodb": "mongodb_dsn",
}
READERS: dict[DsnField, Callable[[str], Dsn]] = {
    "postgres_dsn": read_postgres,
    "redis_dsn": read_redis,
    "mongodb_dsn": read_mongodb,
}
MORE_OF_POSTGRES = ("postgres_migrations_dsn", "postgres_replica_dsn")
MIGRATIONS, REPLICA = MORE_OF_POSTGRES


class TristoreSettings(BaseSettings):
    """The product's Settings extend it. Environment variables are the upper-case names. Times are seconds unless the
    name says otherwise."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", hide_input_in_errors=True)

    known_passwords: ClassVar[frozenset[str]] = frozenset()
    """Those of the product's own development servers. Production refuses them, as it refuses the usual ones."""
    own_loggers: ClassVar[tuple[str, ...]] = ()
    """The product's modules and packages. They log at LOG_LEVEL; what is not known logs warnings and errors only."""

    environment: Literal["local", "test", "production"] = "local"
    app_name: str = "tristore"
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=1, le=65535)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    access_log: bool = True
    cors_origins: Names = []
    cors_allow_credentials: bool = False
    trusted_proxies: Names = []
    max_body_bytes: int = Field(1_048_576, ge=65_536)
    docs: bool = True
    metrics_token: SecretStr | None = None
    password_breach_url: HttpUrl | None = None
    drain_seconds: float = Field(0, ge=0, le=60)
    data_dir: Path = Path(".data")

    postgres_dsn: SecretStr | None = None
    postgres_migrations_dsn: SecretStr | None = None
    postgres_replica_dsn: SecretStr | None = None
    postgres_replica_max_lag: float = Field(10, ge=2, le=60)
    postgres_trusted_network: bool = False
    postgres_pooler: Literal["none", "session", "transaction"] = "none"
    postgres_pool_size: int = Field(20, ge=1)
    # An overflow connection is closed when it is returned, so bursts would reconnect all the time.
    postgres_max_overflow: int = Field(0, ge=0)
    postgres_pool_recycle: float = Field(1800, gt=0)
    postgres_connect_timeout: float = Field(0.8, gt=0)
    postgres_request_deadline: float = Field(0.9, gt=0)
    postgres_statement_timeout: float = Field(5, gt=0)
    postgres_lock_timeout: float = Field(2, gt=0)
    postgres_idle_in_transaction_timeout: float = Field(10, gt=0)
    sql_echo: bool = False

    redis_dsn: SecretStr | None = None
    redis_trusted_network: bool = False
    redis_max_connections: int = Field(32, ge=1)
    redis_timeout: float = Field(0.1, gt=0)
    redis_breaker_failures: int = Field(3, ge=1)
    redis_breaker_seconds: float = Field(1, gt=0)

    mongodb_dsn: SecretStr | None = None
    mongodb_trusted_network: bool = False
    mongodb_database: str = "tristore"
    mongodb_driver: Literal["motor", "pymongo"] = "motor"
    mongodb_max_pool_size: int = Field(32, ge=1)
    mongodb_timeout: float = Field(0.8, gt=0)

    cache_absent_ttl: float = Field(30, ge=1)
    cache_load_lease: float = Field(3, ge=2, le=5)
    cache_fallback_concurrency: int = Field(10, ge=1)
    near_cache: bool = True
    near_cache_entries: int = Field(20_000, ge=1)
    live_poll_seconds: float = Field(2, gt=0)
    live_heartbeat_seconds: float = Field(15, gt=0)
    live_send_seconds: float = Field(20, gt=0)
    live_retry_seconds: float = Field(1, gt=0)
    live_max_per_user: int = Field(10, ge=1)
    live_max_listeners: int = Field(2000, ge=1)
    effects_deadline: float = Field(0.5, gt=0, lt=4)
    outbox_poll_seconds: float = Field(1, gt=0)
    outbox_max_attempts: int = Field(12, ge=1)
    health_timeout: float = Field(0.7, gt=0, lt=1)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # A secret's file counts for more than .env: a copy of .env.example has an empty line for each.
        return init_settings, env_settings, file_secret_settings, dotenv_settings

    @field_validator(*READERS, *MORE_OF_POSTGRES, "metrics_token", "password_breach_url", mode="before")
    @classmethod
    def _empty_is_unset(cls, secret: object) -> object:
        return None if secret == "" else secret

    @field_validator("cors_origins", "trusted_proxies", mode="before")
    @classmethod
    def _split(cls, names: object) -> object:
        if not isinstance(names, str):
            return names
        if not names.strip().startswith("["):
            return [name.strip() for name in names.split(",") if name.strip()]
        try:
            return json.loads(names)
        except ValueError:
            raise ValueError("must be names with commas between, or a JSON list") from None

    @field_validator("cors_origins")
    @classmethod
    def _require_origins(cls, origins: list[str]) -> list[str]:
        for number, origin in enumerate(origins, 1):
            if origin not in {"*", "null"} and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/?#@\s]+", origin):
                raise ValueError(
                    f"must list origins as browsers send them, such as https://app.example.com: with a scheme, and "
                    f"nothing after host and port, not even a /. The origin at place {number} is none"
                )
        return origins

    @field_validator("trusted_proxies")
    @classmethod
    def _name_networks(cls, proxies: list[str]) -> list[str]:
        for proxy in proxies:
            try:
                ip_network(proxy)
            except ValueError:
                raise ValueError("must list addresses or networks such as 10.0.0.0/8") from None
        return proxies

    @field_validator(*READERS, *MORE_OF_POSTGRES)
    @classmethod
    def _read(cls, dsn: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if dsn is None:
            return None
        read = next((READERS[name] for name in READERS if name == info.field_name), read_postgres)
        known = read(dsn.get_secret_value())
        if info.field_name == REPLICA and "," in (known.options.get("host") or known.hosts):
            raise ValueError("names several hosts: how far it is behind can be told of one only")
        _, _, rest = dsn.get_secret_value().partition("://")
        return SecretStr(f"{'postgresql+asyncpg' if read is read_postgres else known.scheme}://{rest}")

    @model_validator(mode="after")
    def _refuse_unsafe_production(self) -> Self:
        problems = list(self._production_problems()) if self.environment == "production" else []
        if problems:
            raise ValueError("\n    ".join(("refusing to start in production:", *problems)))
        return self

    def _production_problems(self) -> list[str]:
        problems = []
        for name, read in READERS.items():
            secret: SecretStr | None = getattr(self, name)
            if secret is None:
                problems.append(f"{name.upper()} is not set")
                continue
            trusted: bool = getattr(self, name.replace("dsn", "trusted_network"))
            found = dsn_problems(read(secret.get_secret_value()), self.known_passwords, trusted=trusted)
            problems += [f"{name.upper()} {problem}" for problem in found]
        for more in MORE_OF_POSTGRES:
            if secret := getattr(self, more):
                dsn = read_postgres(secret.get_secret_value())
                found = dsn_problems(dsn, self.known_passwords, trusted=self.postgres_trusted_network)
                problems += [f"{more.upper()} {problem}" for problem in found]
        if self.cors_allow_credentials:
            problems += [
                f"CORS_ORIGINS has {told} while CORS_ALLOW_CREDENTIALS is on"
                for origin, told in (("*", "a wildcard"), ("null", "null, which any page can send,"))
                if origin in self.cors_origins
            ]
        if trusts_everybody(self.trusted_proxies):
            problems.append("TRUSTED_PROXIES holds every address: any client could name the address it is counted by")
        limits = [getattr(self, name) for name in type(self).model_fields if name.startswith("rate_limit_")]
        if limits and not any(limits):
            problems.append("RATE_LIMIT_... are all empty: passwords could be guessed without end")
        if self.sql_echo:
            problems.append("SQL_ECHO is on: it logs every statement")
        if self.metrics_token and len(self.metrics_token.get_secret_value()) < 16:
            problems.append("METRICS_TOKEN is shorter than 16 characters")
        return problems

    def require_dsns(self) -> None:
        """Raises MissingDSN with a line for each DSN that is not set."""
        missing = [name for name in READERS if getattr(self, name) is None]
        if missing:
            raise MissingDSN("\n".join(map(_missing, missing)))

    def dsn(self, name: DsnField) -> str:
        """The DSN, to be handed to a driver and nowhere else. Raises MissingDSN when it is not set."""
        dsn: SecretStr | None = getattr(self, name)
        if dsn is None:
            raise MissingDSN(_missing(name))
        return dsn.get_secret_value()

    def migrations_dsn(self) -> str:
        """Where migrations connect to: PostgreSQL itself, for their lock belongs to a session. Raises MissingDSN."""
        if self.postgres_migrations_dsn:
            return self.postgres_migrations_dsn.get_secret_value()
        if self.postgres_pooler == "transaction":
            raise MissingDSN(
                f"{MIGRATIONS.upper()} is not set, and POSTGRES_POOLER=transaction. Migrations need a session of their "
                "own: set it to the DSN of PostgreSQL itself."
            )
        return self.dsn("postgres_dsn")


class MissingDSN(RuntimeError):
    """A store has no address, and only `make run` may start one."""


def _missing(name: DsnField) -> str:
    return (
        f"{name.upper()} is not set. Set it, or let `make run` start an embedded server, "
        "or run `docker compose up -d` and set the DSN that .env.example shows for it."
    )


def _line(error: ErrorDetails) -> str:
    name = ".".join(map(str, error["loc"])).upper()
    return f"{name}{': ' * bool(name)}{error['msg'].removeprefix('Value error, ')}"


def load(cls: type[S]) -> S:
    """Read the settings from the environment, the secrets' files and `.env`. Raises SystemExit with a line for each
    mistake, without the values."""
    folder = Path(os.environ.get("SECRETS_DIR", "/run/secrets"))
    try:
        return cls(_secrets_dir=folder if folder.is_dir() and os.access(folder, os.R_OK | os.X_OK) else None)
    except ValidationError as error:
        raise SystemExit("\n  ".join(["The settings are wrong:", *map(_line, error.errors())])) from None
    except (SettingsError, OSError, UnicodeDecodeError) as error:
        raise SystemExit(f"The settings cannot be read from .env or {folder}: {type(error).__name__}") from None
