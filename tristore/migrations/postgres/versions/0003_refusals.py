"""The outbox: refusals, delays of effects, a queue of sagas' own, and no stream that counts wrongly."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
phase = "expand"

INDEXES = {
    "dead": ("store", "dead"),
    "attempts": ("attempts", "attempts > 0"),
    "refusals": ("refusals", "refusals > 0"),
    "waits_for": ("waits_for", "waits_for IS NOT NULL"),
}

RECOUNT = """
UPDATE outbox_streams s SET pending = counted.n
FROM (SELECT aggregate, store, count(o.id) AS n FROM outbox_streams LEFT JOIN outbox o USING (aggregate, store)
      GROUP BY aggregate, store) counted
WHERE s.aggregate = counted.aggregate AND s.store = counted.store AND s.pending <> counted.n
"""
MOVES = (
    "UPDATE outbox SET store = '{new}' WHERE store = '{old}' AND name = 'ContinueSaga'",
    "UPDATE outbox_streams SET store = '{new}' WHERE store = '{old}' AND aggregate LIKE 'saga:%'",
)
RECREATE = """
INSERT INTO outbox_streams (aggregate, store, pending, due_at)
SELECT aggregate, store, count(*), clock_timestamp() FROM outbox GROUP BY aggregate, store ON CONFLICT DO NOTHING
"""


def upgrade() -> None:
    # Nobody writes during the count. Whoever locks both tables locks them in this order.
    op.execute("LOCK TABLE outbox_streams, outbox IN SHARE ROW EXCLUSIVE MODE")
    time = sa.DateTime(timezone=True)
    op.add_column("outbox", sa.Column("delay", sa.Float(53), server_default=sa.text("0"), nullable=False))
    op.add_column("outbox", sa.Column("due_at", time, nullable=True))
    op.add_column("outbox_streams", sa.Column("refusals", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("outbox_streams", sa.Column("waits_for", sa.String(16), nullable=True))
    _move_sagas("mongodb", "sagas")
    op.execute(RECOUNT)
    op.execute(RECREATE)
    op.create_check_constraint(op.f("ck_outbox_streams_pending"), "outbox_streams", "pending >= 0")
    for name, (column, where) in INDEXES.items():
        op.create_index(f"ix_outbox_streams_{name}", "outbox_streams", [column], postgresql_where=sa.text(where))


def downgrade() -> None:
    op.execute("LOCK TABLE outbox_streams, outbox IN SHARE ROW EXCLUSIVE MODE")
    for name in INDEXES:
        op.drop_index(f"ix_outbox_streams_{name}", "outbox_streams")
    op.drop_constraint(op.f("ck_outbox_streams_pending"), "outbox_streams")
    _move_sagas("sagas", "mongodb")
    for table, columns in (("outbox_streams", ("waits_for", "refusals")), ("outbox", ("due_at", "delay"))):
        for column in columns:
            op.drop_column(table, column)


def _move_sagas(old: str, new: str) -> None:
    # A lease on a moved stream is lost: its holder settles nothing, and the saga is continued once more.
    for statement in MOVES:
        op.execute(statement.format(old=old, new=new))
