"""Pages of reference that are written from what the code says."""

from typing import Literal

import click
from pydantic import Field, SecretStr

from tristore.ops.metrics import Family
from tristore.ops.reference import api_page, commands_page, explained, kind_of, metrics_page, settings_page
from tristore.settings import TristoreSettings

EXAMPLE = """# Every setting. * marks nothing.

# Which kind
# of thing.
KIND=good

# Where it is: a file.
#   a/b  the usual place
#     on most machines
#   c    another
# What follows.
TOKEN=
# begin part fruit
# How much, and how often.
SHARE=0.5
TIMES=3
# end part fruit
"""


class Few(TristoreSettings):
    kind: Literal["good", "bad"] = "good"
    token: SecretStr | None = None
    share: float = Field(0.5, gt=0, lt=1)
    times: int = Field(3, ge=1)


def test_a_comment_explains_the_settings_below_it_up_to_the_next_comment() -> None:
    assert [names for names, _ in explained(EXAMPLE)] == [[], ["KIND"], ["TOKEN"], ["SHARE", "TIMES"]]
    assert explained(EXAMPLE)[1][1] == ["Which kind", "of thing."]


def test_a_setting_is_told_with_its_default_and_what_it_takes() -> None:
    page = settings_page(Few, EXAMPLE)
    assert r"Every setting. \* marks nothing." in page
    for row in (
        "| `KIND` | `good` | `good`, `bad` |",
        "| `TOKEN` | empty | a text that is secret |",
        "| `SHARE` | `0.5` | a number: more than 0, less than 1 |",
        "| `TIMES` | `3` | a whole number: 1 or more |",
        "## `SHARE`, `TIMES`",
        "\n\n- a/b  the usual place\n  on most machines\n- c    another\n\nWhat follows.",
    ):
        assert row in page
    assert "begin part" not in page


def test_each_command_is_told_as_its_help_prints_it() -> None:
    @click.group()
    def cli() -> None:
        """All of it."""

    @cli.group()
    def box() -> None:
        """What is in the box."""

    @box.command()
    @click.option("--all", is_flag=True, help="Every one.")
    def empty(all: bool) -> None:
        """Take things out."""

    page = commands_page(cli, "tool.py")
    assert [line for line in page.splitlines() if line.startswith("## ")] == [
        "## `tool.py`",
        "## `tool.py box`",
        "## `tool.py box empty`",
    ]
    assert "Usage: tool.py box empty [OPTIONS]" in page
    assert "Every one." in page


def test_a_metric_is_told_by_the_name_that_is_scraped() -> None:
    page = metrics_page([Family("hits", "counter", ("event",), "Hits"), Family("depth", "gauge", (), "How deep")])
    assert "| `depth` | gauge |  | How deep |\n| `hits_total` | counter | `event` | Hits |" in page


def test_an_operation_is_told_with_what_it_takes_and_gives() -> None:
    document = {
        "info": {"description": "About it."},
        "tags": [{"name": "fruit", "description": "Fruit of all kinds."}],
        "paths": {
            "/fruit/{id}": {
                "put": {
                    "tags": ["fruit"],
                    "summary": "Change a fruit",
                    "security": [{"token": []}],
                    "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"format": "uuid"}}],
                    "requestBody": {
                        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Fruit"}}}
                    },
                    "responses": {"204": {}, "404": {}, "422": {}},
                }
            }
        },
        "components": {
            "schemas": {
                "Fruit": {
                    "required": ["name"],
                    "properties": {
                        "name": {"type": "string", "maxLength": 8, "description": "as it is sold,\n| or not"},
                        "tags": {"type": "array", "items": {}},
                    },
                }
            }
        },
    }
    page = api_page(document)
    for line in (
        "### `PUT /fruit/{id}`",
        "| signed in | yes |",
        "| `id` | in the path: uuid |",
        "| body | [Fruit](#model-fruit) |",
        "| 204 | nothing |",
        "| problems | 404, 422 |",
        "### Fruit { #model-fruit }",
        "| `name` | string (at most 8 characters) | as it is sold, \\| or not |",
        "| `tags` | list of anything, may be left out |  |",
    ):
        assert line in page.splitlines()


def test_a_choice_is_told_by_its_values() -> None:
    assert kind_of({"anyOf": [{"enum": ["a", "b"]}, {"type": "null"}]}) == "`a`, `b` or null"
    assert kind_of({"const": "x", "type": "string"}) == "`x`"
