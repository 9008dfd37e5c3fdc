"""The outbox: its streams and its effects."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
phase = "expand"


def upgrade() -> None:
    time = sa.DateTime(timezone=True)
    op.create_table(
        "outbox_streams",
        sa.Column("aggregate", sa.String(64), nullable=False),
        sa.Column("store", sa.String(16), nullable=False),
        sa.Column("pending", sa.Integer(), nullable=False),
        sa.Column("due_at", time, nullable=False),
        sa.Column("lease_until", time, nullable=True),
        sa.Column("lease_token", sa.Uuid(), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("dead", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("last_error", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("aggregate", "store", name=op.f("pk_outbox_streams")),
    )
    op.create_index(
        "ix_outbox_streams_due",
        "outbox_streams",
        ["store", "due_at"],
        postgresql_where=sa.text("pending > 0 AND NOT dead"),
    )
    op.create_index("ix_outbox_streams_empty", "outbox_streams", ["due_at"], postgresql_where=sa.text("pending = 0"))
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("aggregate", sa.String(64), nullable=False),
        sa.Column("store", sa.String(16), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("payload", postgresql.JSONB(), nullable=False),
        sa.Column("created_at", time, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
    )
    op.create_index("ix_outbox_stream", "outbox", ["aggregate", "store", "id"])
    # Both tables are queues: what is in them is soon gone, so dead rows are collected early.
    for table in ("outbox_streams", "outbox"):
        op.execute(
            f"ALTER TABLE {table} SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500)"
        )


def downgrade() -> None:
    op.drop_table("outbox")
    op.drop_table("outbox_streams")
