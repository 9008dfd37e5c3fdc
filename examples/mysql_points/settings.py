"""The product's settings, and where MySQL is."""

from typing import ClassVar

from pydantic import Field, SecretStr, field_validator
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from config import Settings
from tristore.production import dsn_problems
from tristore.stores.dsn import Dsn

DRIVER = "mysql+asyncmy"


class PointsSettings(Settings):
    own_loggers: ClassVar[tuple[str, ...]] = (*Settings.own_loggers, "examples")

    mysql_dsn: SecretStr
    """mysql://user:password@host:3306/database, without options."""
    mysql_tls: bool = False
    """Whether to ask for TLS, and to check the server's certificate."""
    mysql_trusted_network: bool = False
    mysql_pool_size: int = Field(10, ge=1)
    mysql_timeout: float = Field(0.8, gt=0)

    @field_validator("mysql_dsn")
    @classmethod
    def _read_mysql(cls, dsn: SecretStr) -> SecretStr:
        _url(dsn)
        return dsn

    def mysql_url(self) -> URL:
        """To be handed to SQLAlchemy and nowhere else."""
        return _url(self.mysql_dsn).set(drivername=DRIVER)

    def _production_problems(self) -> list[str]:
        url = self.mysql_url()
        dsn = Dsn(DRIVER, url.username or "", str(url.password or ""), url.host or "", "", {})
        found = dsn_problems(dsn, self.known_passwords, trusted=self.mysql_tls or self.mysql_trusted_network)
        return [*super()._production_problems(), *(f"MYSQL_DSN {problem}" for problem in found)]


def _url(dsn: SecretStr) -> URL:
    """Raises ValueError without a word of the DSN."""
    try:
        url = make_url(dsn.get_secret_value())
    except (ArgumentError, ValueError):
        raise ValueError("must be such as mysql://user:password@host:3306/database") from None
    if url.get_backend_name() not in {"mysql", "mariadb"} or not url.host or not url.database:
        raise ValueError("must be such as mysql://user:password@host:3306/database")
    if url.query:
        raise ValueError("takes no options: TLS is MYSQL_TLS")
    return url
