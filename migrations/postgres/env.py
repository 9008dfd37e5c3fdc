"""Alembic's environment of the product's tables. `tristore/migrations/environment.py` has what it does."""

from config import get_settings
from models.tables import metadata
from tristore.migrations.environment import run_product

run_product(metadata, get_settings)
