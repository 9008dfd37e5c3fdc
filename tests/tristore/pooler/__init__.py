"""Through PgBouncer: `make test-pooler`."""
