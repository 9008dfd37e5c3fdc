"""Empty: the machinery's own migrations make the outbox. Databases remember this revision by its number."""

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None
phase = "expand"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
