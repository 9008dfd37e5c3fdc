"""Sagas: how far each of them is."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
phase = "expand"


def upgrade() -> None:
    time = sa.DateTime(timezone=True)
    op.create_table(
        "sagas",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("state", sa.String(16), server_default="running", nullable=False),
        sa.Column("step", sa.Integer(), server_default="0", nullable=False),
        sa.Column("deadline", time, nullable=False),
        sa.Column("reason", sa.String(32), nullable=True),
        sa.Column("created_at", time, server_default=sa.func.now(), nullable=False),
        sa.Column("updated_at", time, server_default=sa.func.now(), nullable=False),
        sa.CheckConstraint("state IN ('running', 'done', 'compensating', 'compensated')", name=op.f("ck_sagas_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sagas")),
    )
    op.create_index(
        "ix_sagas_open", "sagas", ["created_at"], postgresql_where=sa.text("state IN ('running', 'compensating')")
    )


def downgrade() -> None:
    op.drop_table("sagas")
