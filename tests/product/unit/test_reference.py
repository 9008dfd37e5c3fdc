"""The pages of reference leave nothing out. `make docs` writes them."""

import runpy
from pathlib import Path

import click
import pytest

from config import Settings
from main import create_app
from manage import cli

PROJECT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    written: dict[str, str] = runpy.run_path(str(PROJECT / "docs/hooks.py"))["reference"]()
    return written


def test_every_setting_has_a_row(pages: dict[str, str]) -> None:
    page = pages["reference/settings.md"]
    for name, field in Settings.model_fields.items():
        assert page.count(f"| `{name.upper()}` | ") == 1, name
        assert (f"| `{name.upper()}` | empty |" in page) == (field.get_default() in ("", None, []))


def test_every_command_has_its_help(pages: dict[str, str]) -> None:
    def walk(group: click.Group, words: str) -> list[str]:
        context = click.Context(group)
        found = [words]
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command
            assert command.get_short_help_str(), f"{words} {name} says nothing of itself: give it a docstring"
            found += walk(command, f"{words} {name}") if isinstance(command, click.Group) else [f"{words} {name}"]
        return found

    words = walk(cli, "manage.py")
    assert {"manage.py serve", "manage.py outbox retry", "manage.py saga list", "manage.py stores status"} <= set(words)
    for each in words:
        assert f"Usage: {each} " in pages["reference/commands.md"]


def test_every_operation_and_model_is_there(settings: Settings, pages: dict[str, str]) -> None:
    document = create_app(settings).openapi()
    page = pages["reference/api.md"]
    for path, operations in document["paths"].items():
        for method in operations:
            assert page.count(f"### `{method.upper()} {path}`\n") == 1
    for name in document["components"]["schemas"]:
        assert f"### {name} {{ #model-{name.lower()} }}" in page


def test_metrics_are_told_with_their_labels(pages: dict[str, str]) -> None:
    page = pages["reference/metrics.md"]
    labels = "`http_request_method`, `http_route`, `http_response_status_code`"
    assert f"| `http_server_request_duration_seconds` | histogram | {labels} |" in page
    assert "| `sign_ins_total` | counter | `event` |" in page
    assert "| `outbox_backlog` | gauge |  | Effects that are owed |" in page
