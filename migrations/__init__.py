"""The product's migrations, handed to what runs them."""

from pathlib import Path

from tristore.migrations.history import History
from tristore.migrations.scripts import Scripts

REVISIONS = History(Path(__file__).parents[1] / "pyproject.toml")
SCRIPTS = Scripts("migrations.mongodb", ledger="schema_migrations")
