"""The product's tables: those of every module in this folder. Alembic compares them with the database."""

from importlib import import_module
from pkgutil import iter_modules

import models
from tristore.models import Table

for module in iter_modules(models.__path__):
    import_module(f"models.{module.name}")

metadata = Table.metadata
