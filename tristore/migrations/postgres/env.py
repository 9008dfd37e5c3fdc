"""Alembic's environment of the machinery's own tables."""

from tristore.migrations.environment import run_own

run_own()
