"""erasure and idempotency keys"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None
phase = "contract"

NAMING = ("username", "email", "password_hash")


def upgrade() -> None:
    op.alter_column("users", "deleted_at", new_column_name="erased_at")
    for column in NAMING:
        op.alter_column("users", column, nullable=True)
    op.create_check_constraint(
        op.f("ck_users_erased"),
        "users",
        f"num_nonnulls({', '.join(NAMING)}) = CASE WHEN erased_at IS NULL THEN 3 ELSE 0 END",
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("scope", sa.String(100), nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("answer", postgresql.JSONB(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "key", name=op.f("pk_idempotency_keys")),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_idempotency_keys_user_id_users"), ondelete="CASCADE"
        ),
    )
    op.create_index("ix_idempotency_keys_user_id", "idempotency_keys", ["user_id"])
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"])


def downgrade() -> None:
    op.drop_table("idempotency_keys")
    op.drop_constraint(op.f("ck_users_erased"), "users")
    op.execute("DELETE FROM users WHERE erased_at IS NOT NULL")
    for column in NAMING:
        op.alter_column("users", column, nullable=False)
    op.alter_column("users", "erased_at", new_column_name="deleted_at")
