"""longer idempotency keys, versions of courses"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None
phase = "expand"


def upgrade() -> None:
    op.alter_column(
        "idempotency_keys", "key", type_=sa.String(255), existing_type=sa.String(64), existing_nullable=False
    )
    op.add_column("courses", sa.Column("version", sa.Integer(), server_default="1", nullable=False))


def downgrade() -> None:
    op.drop_column("courses", "version")
    op.execute("DELETE FROM idempotency_keys WHERE length(key) > 64")
    op.alter_column(
        "idempotency_keys", "key", type_=sa.String(64), existing_type=sa.String(255), existing_nullable=False
    )
