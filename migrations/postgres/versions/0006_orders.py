"""orders and points ledger"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None
phase = "expand"


def upgrade() -> None:
    time = sa.DateTime(timezone=True)
    op.create_table(
        "orders",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("course_id", sa.Uuid(), nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=False),
        sa.Column("price_cents", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.String(16), server_default="pending", nullable=False),
        sa.Column("reason", sa.String(32), nullable=True),
        sa.Column("created_at", time, server_default=sa.func.now(), nullable=False),
        sa.Column("confirmed_at", time, nullable=True),
        sa.CheckConstraint("quantity > 0", name=op.f("ck_orders_quantity")),
        sa.CheckConstraint("status IN ('pending', 'confirmed', 'cancelled')", name=op.f("ck_orders_status")),
        sa.CheckConstraint("(reason IS NULL) = (status <> 'cancelled')", name=op.f("ck_orders_reason")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_orders")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_orders_user_id_users")),
        sa.ForeignKeyConstraint(["course_id"], ["courses.id"], name=op.f("fk_orders_course_id_courses")),
    )
    op.create_index("ix_orders_user_id", "orders", ["user_id", "id"])
    op.create_index("ix_orders_course_id", "orders", ["course_id"])
    op.create_table(
        "points_ledger",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("points", sa.BigInteger(), nullable=False),
        sa.Column("created_at", time, server_default=sa.func.now(), nullable=False),
        sa.CheckConstraint(
            "CASE kind WHEN 'earned' THEN points >= 0 WHEN 'revoked' THEN points <= 0 END",
            name=op.f("ck_points_ledger_kind"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_points_ledger")),
        sa.UniqueConstraint("order_id", "kind", name=op.f("uq_points_ledger_order_id_kind")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_points_ledger_user_id_users")),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_points_ledger_order_id_orders")),
    )
    op.create_index("ix_points_ledger_user_id", "points_ledger", ["user_id"])


def downgrade() -> None:
    op.drop_table("points_ledger")
    op.drop_table("orders")
