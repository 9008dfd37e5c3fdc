"""Linters and generators of other families take the API's document. `make test-clients` runs this."""

import shutil
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any
from uuid import UUID

import pytest

from tests.product.clients.generators.conftest import Run
from tests.product.people import account
from tristore.testing.lab import App

HERE = Path(__file__).parent


def test_redocly_finds_nothing(run: Run, document: Path) -> None:
    printed = run("redocly", "lint", document.name, f"--config={HERE / 'redocly.yaml'}")
    assert "Your API description is valid" in printed
    assert "warning" not in printed


def test_typescript_of_openapi_typescript_compiles_strictly(run: Run, document: Path) -> None:
    run("openapi-typescript", document.name, "--output=schema.d.ts", "--default-non-nullable=false")
    for name in ("tsconfig.json", "sample.ts"):
        shutil.copy(HERE / name, document.parent)
    run("tsc")


def test_python_of_openapi_generator_works(run: Run, app: App, document: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--generator-name=python", "--package-name=of_openapi_generator", "--strict-spec=true")
    run("openapi-generator-cli", "generate", f"--input-spec={document.name}", "--output=generated", *options)
    monkeypatch.syspath_prepend(document.parent / "generated")
    package: Any = import_module("of_openapi_generator")
    assert len([import_module(found.name) for found in walk_packages(package.__path__, f"{package.__name__}.")]) > 40

    configuration = package.Configuration(host=str(app.client.base_url).rstrip("/"))
    body = account(cefr_level="B1")
    with package.ApiClient(configuration) as client:
        users = package.UsersApi(client)
        registered = users.register(package.Registration(**body), idempotency_key=body["username"])
        token = package.AuthApi(client).sign_in(username=body["username"], password=body["password"])
        configuration.access_token = token.access_token
        profile = users.read_me()
        assert (UUID(str(profile.id)), profile.level) == (UUID(str(registered.user_id)), "B1")
        with pytest.raises(package.exceptions.ConflictException) as refused:
            users.register(package.Registration(**body))
        assert (refused.value.data.status, refused.value.data.var_field) == (409, "username")
