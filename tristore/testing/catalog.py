"""What a PostgreSQL database is made of, to compare two of them."""

from sqlalchemy import text

from tristore.migrations.lock import migration_engine

CATALOG = text("""
WITH tables AS (SELECT oid, relname, reloptions FROM pg_class
                WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r')
SELECT relname, 'option', unnest(reloptions), '' FROM tables
UNION ALL
SELECT relname, 'column', attname, concat_ws(' ', format_type(atttypid, atttypmod), attnotnull, attidentity,
                                             pg_get_expr(adbin, adrelid))
FROM tables JOIN pg_attribute ON attrelid = tables.oid AND attnum > 0 AND NOT attisdropped
LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
UNION ALL
SELECT relname, 'constraint', conname, pg_get_constraintdef(pg_constraint.oid)
FROM tables JOIN pg_constraint ON conrelid = tables.oid
UNION ALL
SELECT relname, 'index', indexrelid::regclass::text, pg_get_indexdef(indexrelid)
FROM tables JOIN pg_index ON indrelid = tables.oid
""")


async def catalog(dsn: str) -> set[tuple[str, ...]]:
    """Each column, constraint, index and storage option of each table: table, kind, name and definition."""
    async with migration_engine(dsn).connect() as connection:
        return {tuple(row) for row in await connection.execute(CATALOG)}
