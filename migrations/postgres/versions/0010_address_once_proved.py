"""an account may be without an address, until one is proved"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None
phase = "expand"

NAME = "ck_users_erased"


def upgrade() -> None:
    op.drop_constraint(op.f(NAME), "users")
    op.create_check_constraint(
        op.f(NAME),
        "users",
        "num_nonnulls(username, password_hash) = 2 * num_nulls(erased_at) AND num_nonnulls(email, erased_at) < 2",
    )


def downgrade() -> None:
    op.drop_constraint(op.f(NAME), "users")
    # Before, each had one. Nobody has such an address, and no mail goes there (RFC 2606).
    nobodys = "id || '@unverified.invalid'"
    op.execute(f"UPDATE users SET email = {nobodys} WHERE email IS NULL AND erased_at IS NULL")  # noqa: S608 - a constant
    op.create_check_constraint(
        op.f(NAME),
        "users",
        "num_nonnulls(username, email, password_hash) = CASE WHEN erased_at IS NULL THEN 3 ELSE 0 END",
    )
