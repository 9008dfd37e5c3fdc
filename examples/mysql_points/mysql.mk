EXAMPLES += test-mysql

test-mysql: ## An order over PostgreSQL, MongoDB and MySQL while each is killed, on MariaDB, which must be installed (SMOKE=1: 100 of them, not 1,000)
	@if command -v mariadbd >/dev/null || test -x /usr/sbin/mariadbd; then $(MAKE) $(VENV)/mysql test-mysql-here; \
		else echo "NOT RUN for want of MariaDB (apt-get install mariadb-client-core mariadb-server-core): make test-mysql"; fi

test-mysql-here:
	$(if $(SMOKE),,FAULTS=all) $(BIN)/python -m pytest tests/product/examples $(if $(SMOKE),-k "in_mysql or is_killed") $(ARGS)

$(VENV)/mysql: $(VENV)/installed examples/mysql_points/requirements.lock
	@$(BIN)/uv pip install -q --python $(BIN)/python --require-hashes -r examples/mysql_points/requirements.lock
	@touch $@

.PHONY: test-mysql test-mysql-here
