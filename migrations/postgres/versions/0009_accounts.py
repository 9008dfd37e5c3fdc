"""accounts: verified addresses, links in mails, disabled users, sessions that can be told apart"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None
phase = "expand"


def upgrade() -> None:
    time = sa.DateTime(timezone=True)
    op.create_table(
        "email_links",
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("purpose", sa.String(16), nullable=False),
        sa.Column("address", sa.String(254), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=True),
        sa.Column("previous_hash", sa.LargeBinary(), nullable=True),
        sa.Column("expires_at", time, nullable=True),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["users.id"], name=op.f("fk_email_links_owner_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("owner_id", "purpose", name=op.f("pk_email_links")),
    )
    op.create_index("ix_email_links_token_hash", "email_links", ["token_hash"])
    op.create_index("ix_email_links_previous_hash", "email_links", ["previous_hash"])
    op.add_column("sessions", sa.Column("confirmed_at", time, nullable=True))
    op.add_column("sessions", sa.Column("device", sa.String(80), server_default="", nullable=False))
    op.add_column("sessions", sa.Column("client", sa.String(200), server_default="", nullable=False))
    op.add_column("users", sa.Column("email_verified_at", time, nullable=True))
    op.add_column("users", sa.Column("disabled_at", time, nullable=True))
    op.create_index("ix_users_username_prefix", "users", [sa.literal_column("lower(username) text_pattern_ops")])
    op.create_index("ix_users_email_prefix", "users", ["email"], postgresql_ops={"email": "text_pattern_ops"})


def downgrade() -> None:
    op.drop_index("ix_users_email_prefix", "users")
    op.drop_index("ix_users_username_prefix", "users")
    op.drop_column("users", "disabled_at")
    op.drop_column("users", "email_verified_at")
    op.drop_column("sessions", "client")
    op.drop_column("sessions", "device")
    op.drop_column("sessions", "confirmed_at")
    op.drop_table("email_links")
