"""The settings that every clone has, read from the environment and `.env`, checked once at the start."""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import Field, HttpUrl, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError

from tristore.errors import StoreName
from tristore.production import dsn_problems, is_guessed_soon, is_in_the_clear, is_well_known, trusts_everybody
from tristore.stores.dsn import Dsn, read_mongodb, read_postgres, read_redis, read_smtp

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
MAIL_OFF, NOBODY = "off", "no-reply@localhost"
ONE_ADDRESS = r"^([^<>@,;\"\r\n]+ )?<?[^<>@,;\"\s]+@[^<>@,;\"\s]+>?$"
"""An address, perhaps with a name before it: `Name <name@domain.example>`."""
MORE_OF_POSTGRES = ("postgres_migrations_dsn", "postgres_replica_dsn")
MIGRATIONS, REPLICA = MORE_OF_POSTGRES
MAY_BE_EMPTY = ("metrics_token", "password_breach_url", "public_url", "mail_dsn")


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
    web_concurrency: int = Field(1, ge=1)
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

    public_url: HttpUrl | None = None
    mail_dsn: SecretStr | None = None
    mail_from: str = Field(NOBODY, pattern=ONE_ADDRESS)

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
    mongodb_driver: Literal["motor", "pymongo"] = "pymongo"
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

    @field_validator(*READERS, *MORE_OF_POSTGRES, *MAY_BE_EMPTY, mode="before")
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

    @field_validator("mail_dsn")
    @classmethod
    def _read_mail(cls, dsn: SecretStr | None) -> SecretStr | None:
        if dsn and dsn.get_secret_value() != MAIL_OFF:
            read_smtp(dsn.get_secret_value())
        return dsn

    @property
    def mail_server(self) -> Dsn | None:
        """None where there is none."""
        dsn = self.mail_dsn.get_secret_value() if self.mail_dsn else MAIL_OFF
        return None if dsn == MAIL_OFF else read_smtp(dsn)

    @property
    def mail_folder(self) -> Path | None:
        """Where a developer's machine keeps mail instead of sending it. None elsewhere."""
        has_folder = self.mail_server is None and sends_mail(self.mail_dsn, self.environment)
        return self.data_dir / "mail" if has_folder else None

    @property
    def link_base(self) -> str:
        """Where links lead, without a slash at the end."""
        return str(self.public_url or f"http://{self.host}:{self.port}").rstrip("/")

    @model_validator(mode="after")
    def _refuse_unsafe_production(self) -> Self:
        problems = list(self._production_problems()) if self.environment == "production" else []
        if problems:
            raise UnsafeInProduction(problems)
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
            problems.append("TRUSTED_PROXIES holds most addresses: any client could name the address it is counted by")
        problems += self._mail_problems()
        limits = [getattr(self, name) for name in type(self).model_fields if name.startswith("rate_limit_")]
        if limits and not any(limits):
            problems.append("RATE_LIMIT_... are all empty: passwords could be guessed without end")
        if self.sql_echo:
            problems.append("SQL_ECHO is on: it logs every statement")
        token = self.metrics_token.get_secret_value() if self.metrics_token else ""
        if token and (len(token) < 16 or is_guessed_soon(token)):
            problems.append("METRICS_TOKEN is shorter than 16 characters, or few guesses would find it")
        return problems

    def _mail_problems(self) -> Iterator[str]:
        if self.mail_dsn is None:
            yield f"MAIL_DSN is not set: MAIL_DSN={MAIL_OFF} sends no mail"
        elif server := self.mail_server:
            if is_in_the_clear(server):
                yield "MAIL_DSN has starttls=never, and leads to another machine: whoever is between reads all mail"
            if is_well_known([server.password], self.known_passwords):
                yield "MAIL_DSN has a well-known password"
            if self.mail_from == NOBODY:
                yield "MAIL_FROM is not set"
            if not self.public_url or self.public_url.scheme != "https":
                yield "PUBLIC_URL is not set, or not https: links in mails carry secrets there"

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


def sends_mail(dsn: SecretStr | None, environment: str | None) -> bool:
    """To a server, or into the folder of a developer's machine."""
    return dsn.get_secret_value() != MAIL_OFF if dsn else environment == "local"


class UnsafeInProduction(ValueError):
    """Each of `problems` begins with the name of its setting."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class WrongSettings(SystemExit):
    """Ends the process with a line for each mistake. None tells a value."""

    def __init__(self, mistakes: Sequence[str], *, production: bool = False) -> None:
        super().__init__("\n  ".join(["The settings are wrong:", *mistakes]))
        self.mistakes = mistakes
        self.production = production


class MissingDSN(RuntimeError):
    """A store has no address, and only `make run` may start one."""


def _missing(name: DsnField) -> str:
    return (
        f"{name.upper()} is not set. Set it, or let `make run` start an embedded server, "
        "or run `docker compose up -d` and set the DSN that .env.example shows for it."
    )


def secrets_folder() -> Path | None:
    """Where a file may have a setting of its name. None where there is no such folder."""
    folder = Path(os.environ.get("SECRETS_DIR", "/run/secrets"))
    return folder if folder.is_dir() and os.access(folder, os.R_OK | os.X_OK) else None


def load(cls: type[S], *, complete: bool = False) -> S:
    """Read the settings from the environment, the secrets' files and `.env`. `complete`: a DSN that is not set is a
    mistake, too. Raises WrongSettings with all mistakes."""
    wrong: set[str] = set()
    mistakes: list[str] = []
    settings = None
    while settings is None:
        # The rest is only looked at when each field is right: so what is wrong is left out, and it is read again.
        settings, errors = _attempt(cls, {name: cls.model_fields[name].get_default() for name in wrong})
        mistakes += [mistake for error in errors for mistake in _told(error, wrong)]
        found = {str(error["loc"][0]) for error in errors if error["loc"]}
        if errors and not found - wrong:
            raise WrongSettings(mistakes, production=any(map(_unsafe, errors)))
        wrong |= found
    if complete:
        mistakes += [_missing(name) for name in READERS if name not in wrong and getattr(settings, name) is None]
    if mistakes:
        raise WrongSettings(mistakes, production=settings.environment == "production")
    return settings


def _attempt(cls: type[S], given: Mapping[str, Any]) -> tuple[S | None, list[ErrorDetails]]:
    try:
        return cls(_secrets_dir=secrets_folder(), **given), []
    except ValidationError as error:
        return None, error.errors()
    except (SettingsError, OSError, UnicodeDecodeError) as error:
        files = " or ".join(filter(None, (".env", str(secrets_folder() or ""))))
        raise WrongSettings([f"They cannot be read from {files}: {type(error).__name__}"]) from None


def _unsafe(error: ErrorDetails) -> Sequence[str]:
    unsafe = error.get("ctx", {}).get("error")
    return unsafe.problems if isinstance(unsafe, UnsafeInProduction) else ()


def _told(error: ErrorDetails, known: Set[str]) -> list[str]:
    if unsafe := _unsafe(error):
        told = [problem for problem in unsafe if problem.partition(" ")[0].lower() not in known]
        return [f"{problem} (production refuses that)" for problem in told]
    name = ".".join(map(str, error["loc"])).upper()
    return [f"{name}{': ' * bool(name)}{error['msg'].removeprefix('Value error, ')}"]
