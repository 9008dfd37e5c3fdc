"""courses"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None
phase = "expand"


def upgrade() -> None:
    time = sa.DateTime(timezone=True)
    op.create_table(
        "courses",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("title", sa.String(200), nullable=False),
        sa.Column("description", sa.String(5000), nullable=False),
        sa.Column("price_cents", sa.Integer(), nullable=False),
        sa.Column("language", sa.String(12), nullable=False),
        sa.Column("level", sa.String(2), nullable=False),
        sa.Column("capacity", sa.Integer(), nullable=False),
        sa.Column("is_deleted", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("created_at", time, server_default=sa.func.now(), nullable=False),
        sa.Column("updated_at", time, server_default=sa.func.now(), nullable=False),
        sa.CheckConstraint("price_cents >= 0", name=op.f("ck_courses_price_cents")),
        sa.CheckConstraint("capacity BETWEEN 0 AND 1000000", name=op.f("ck_courses_capacity")),
        sa.CheckConstraint("level IN ('A1', 'A2', 'B1', 'B2', 'C1', 'C2')", name=op.f("ck_courses_level")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_courses")),
    )


def downgrade() -> None:
    op.drop_table("courses")
