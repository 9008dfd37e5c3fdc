"""Which request owes an effect, or has begun a saga, for traces."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
phase = "expand"

TABLES = ("sagas", "outbox")
"""In the order in which a transaction that begins a saga locks them."""


def upgrade() -> None:
    # Without a default, so that no row is written. The release before this one neither reads nor writes the column.
    for table in TABLES:
        op.add_column(table, sa.Column("traceparent", sa.String(55), nullable=True), if_not_exists=True)


def downgrade() -> None:
    for table in TABLES:
        op.drop_column(table, "traceparent")
