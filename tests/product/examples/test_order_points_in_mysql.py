"""Points in MySQL: earned once, never after they were revoked; and what is said of a MySQL that does not serve."""

import asyncio
import uuid
from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError
from sqlalchemy import text

from examples.mysql_points.mysql import STORE, MySQL
from examples.mysql_points.points_repo import PointsRepository
from tests.product.examples.mariadb import MariaDB
from tests.product.examples.points import administrator, opened, settings_on, status
from tristore.errors import Reason, StoreUnavailable
from tristore.testing.lab import free_port, until

PASSWORD = "s3cr3t-of-mysql"


@pytest.fixture
def points(mysql: MySQL) -> PointsRepository:
    return PointsRepository(mysql)


async def reason_of(mysql: MySQL) -> tuple[str, Reason]:
    with pytest.raises(StoreUnavailable) as refused:
        await mysql.ping()
    assert not mysql.serves
    return refused.value.store, refused.value.reason


async def test_the_same_order_earns_its_points_once(points: PointsRepository) -> None:
    order, user = uuid.uuid4(), uuid.uuid4()
    await asyncio.gather(*(points.credit(order, user, 30) for _ in range(20)))
    await points.credit(uuid.uuid4(), user, 12)
    await points.credit(uuid.uuid4(), uuid.uuid4(), 5)
    assert await points.balance(user) == 42


async def test_revoked_points_are_gone_however_often_they_are_credited_before_and_after(
    points: PointsRepository,
) -> None:
    user = uuid.uuid4()
    for order in (uuid.uuid4(), uuid.uuid4()):
        await points.credit(order, user, 30)
        for _ in range(2):
            await points.revoke(order, user, 30)
        await points.credit(order, user, 30)
    assert await points.balance(user) == 0


async def test_what_is_revoked_first_is_never_earned(points: PointsRepository, mysql: MySQL) -> None:
    order, user = uuid.uuid4(), uuid.uuid4()
    await points.revoke(order, user, 30)
    await points.credit(order, user, 30)
    assert await points.balance(user) == 0
    async with mysql.operation() as connection:
        assert (await connection.scalar(text("SELECT count(*) FROM points_of_orders"))) == 1


async def test_a_revocation_waits_for_points_that_are_being_credited(
    mariadb: MariaDB, points: PointsRepository, mysql: MySQL, database: str
) -> None:
    order, user = uuid.uuid4(), uuid.uuid4()
    new = text(f"INSERT INTO {database}.points_of_orders (order_id, user_id, points) VALUES (:order, :user, 30)")
    values = {"order": order.hex, "user": user.hex}
    async with administrator(mariadb) as other, other.engine.connect() as connection:
        await connection.execution_options(isolation_level="REPEATABLE READ")
        await connection.execute(new, values)  # not committed yet
        revoking = asyncio.create_task(points.revoke(order, user, 30))

        async def waits() -> bool:
            return await status(mariadb, "Innodb_row_lock_current_waits") > 0

        await until(waits, 5)
        await connection.commit()
    await revoking
    assert await points.balance(user) == 0


async def test_a_server_that_only_reads_does_not_serve(mariadb: MariaDB, mysql: MySQL) -> None:
    await mysql.ping()
    assert mysql.serves
    async with administrator(mariadb) as everything, everything.operation() as connection:
        await connection.execute(text("SET GLOBAL read_only = ON"))
        try:
            assert await reason_of(mysql) == (STORE, "read only")
        finally:
            await connection.execute(text("SET GLOBAL read_only = OFF"))
    await mysql.ping()
    assert mysql.serves


async def test_a_server_that_hangs_is_given_up_in_time(mariadb: MariaDB, database: str) -> None:
    async with opened(settings_on(mariadb, database, mysql_timeout=0.3)) as mysql:
        await mysql.ping()
        async with mariadb.away("stopped"):
            async with asyncio.timeout(10):
                assert await reason_of(mysql) == (STORE, "timeout")
                new = replace(mysql, probe_engine=mysql.engine)  # that has no connection yet
                assert await reason_of(new) == (STORE, "timeout")
        await mysql.ping()


async def test_a_server_that_was_killed_is_found_again(mariadb: MariaDB, mysql: MySQL) -> None:
    await mysql.ping()
    async with mariadb.away("killed"):
        assert await reason_of(mysql) == (STORE, "unreachable")
    await mysql.ping()
    await PointsRepository(mysql).credit(uuid.uuid4(), uuid.uuid4(), 1)


async def test_an_address_user_or_database_that_is_wrong_is_told_by_its_kind(mariadb: MariaDB) -> None:
    wrong: list[tuple[str, Reason]] = [
        (mariadb.dsn("points_none", port=free_port()), "unreachable"),
        (mariadb.dsn("points_none"), "unreachable"),
        (mariadb.dsn("points_none").replace(mariadb.password, PASSWORD), "unreachable"),
        (mariadb.dsn("mysql"), "not permitted"),
    ]
    for dsn, reason in wrong:
        async with opened(settings_on(mariadb, mysql_dsn=SecretStr(dsn))) as mysql:
            assert await reason_of(mysql) == (STORE, reason)


async def test_a_missing_table_is_told_as_a_missing_migration(mariadb: MariaDB, mysql: MySQL, database: str) -> None:
    async with administrator(mariadb) as everything, everything.operation() as connection:
        await connection.execute(text(f"DROP TABLE {database}.points_of_orders"))
    assert await reason_of(mysql) == (STORE, "not migrated")


async def test_a_mistake_of_our_own_is_no_outage(mysql: MySQL) -> None:
    with pytest.raises(Exception, match="SQL syntax"):
        async with mysql.operation() as connection:
            await connection.execute(text("SELEKT 1"))
    assert mysql.serves is True


async def test_no_error_and_no_setting_shows_the_password(mariadb: MariaDB, database: str) -> None:
    settings = settings_on(mariadb, database)
    async with opened(settings) as mysql:
        async with mariadb.away("killed"):
            with pytest.raises(StoreUnavailable) as refused:
                await mysql.ping()
        told = f"{refused.value!r} {refused.value} {refused.value.cause} {mysql!r} {settings!r}"
    assert mariadb.password not in told


@pytest.mark.parametrize(
    "dsn",
    [
        f"mysql://app:{PASSWORD}@host",
        f"mysql://app:{PASSWORD}@host/points?ssl=true",
        f"postgresql://app:{PASSWORD}@host/points",
        f"mysql://app:{PASSWORD}@host:x/points",
        PASSWORD,
    ],
)
def test_a_dsn_that_leads_nowhere_is_refused_without_being_shown(mariadb: MariaDB, dsn: str) -> None:
    with pytest.raises(ValidationError, match="mysql_dsn") as refused:
        settings_on(mariadb, mysql_dsn=SecretStr(dsn))
    assert PASSWORD not in str(refused.value)


def test_production_refuses_a_way_to_mysql_that_others_could_read(mariadb: MariaDB) -> None:
    dsn = SecretStr(f"mysql://app:{PASSWORD}@db.example.com/points")
    with pytest.raises(ValidationError, match="MYSQL_DSN has no TLS"):
        settings_on(mariadb, mysql_dsn=dsn, environment="production")
    safe_ways: tuple[dict[str, Any], ...] = ({"mysql_tls": True}, {"mysql_trusted_network": True})
    for safe in safe_ways:
        with pytest.raises(ValidationError) as refused:  # for the other stores
            settings_on(mariadb, mysql_dsn=dsn, environment="production", **safe)
        assert "MYSQL_DSN" not in str(refused.value)
