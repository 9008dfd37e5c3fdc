"""Pages of reference in Markdown, from what the code says of itself: its settings, commands, routes and metrics."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import click
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from tristore.ops.metrics import Family
from tristore.settings import TristoreSettings

Json = dict[str, Any]
WIDTH = 100
"""Columns of the help texts."""


def settings_page(settings: type[TristoreSettings], example: str) -> str:
    """`example`: the text of `.env.example`, which explains each setting in a comment above it."""
    preamble, *groups = explained(example)
    lines = ["# Settings", "", *_prose(preamble[1])]
    for names, comment in groups:
        lines += [
            "",
            f"## {', '.join(f'`{name}`' for name in names)}",
            "",
            "| setting | default | takes |",
            "|---|---|---|",
        ]
        for name in names:
            field = settings.model_fields[name.lower()]
            lines.append(f"| `{name}` | {_default(field)} | {_takes(field)} |")
        lines += ["", *_prose(comment)]
    return "\n".join(lines) + "\n"


def explained(example: str) -> list[tuple[list[str], list[str]]]:
    """Names of settings with the lines of the comment that explains them. First what explains the file itself. A
    setting without a comment of its own shares that of the one before."""
    groups: list[tuple[list[str], list[str]]] = []
    comment: list[str] = []
    for line in example.splitlines():
        if line.startswith("#"):
            if not re.match(r"# (begin|end) part ", line):
                comment.append(line.removeprefix("#").removeprefix(" "))
        elif name := re.match(r"([A-Z][A-Z0-9_]*)=", line):
            if comment or len(groups) < 2:
                groups.append(([], comment))
                comment = []
            groups[-1][0].append(name[1])
        elif not groups:
            groups.append(([], comment))
            comment = []
    return groups


def _prose(comment: Iterable[str]) -> Iterator[str]:
    """Markdown that says what the comment says: indented lines of a comment are a list."""
    in_list = False
    for line in comment:
        text = re.sub(r"([*<\[`])", r"\\\1", line.strip())
        if line.startswith("  ") and not line.startswith("   "):
            yield from ("", f"- {text}") if not in_list else (f"- {text}",)
            in_list = True
        elif line.startswith("  "):
            yield f"  {text}"
        else:
            yield from ("", text) if in_list else (text,)
            in_list = False


def _default(field: FieldInfo) -> str:
    value = field.get_default()
    if value is None or value == [] or value == "":
        return "empty"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _takes(field: FieldInfo) -> str:
    kinds = [kind for kind in get_args(field.annotation) or (field.annotation,) if kind is not NoneType]
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{kind}`" for kind in kinds)
    if get_origin(field.annotation) is list:
        return "names with commas between"
    names = {bool: "`true` or `false`", int: "a whole number", float: "a number", SecretStr: "a text that is secret"}
    return names.get(kinds[0], "a text") + _bounds(field.metadata)


def _bounds(metadata: Iterable[object]) -> str:
    words = {"ge": "{} or more", "gt": "more than {}", "le": "at most {}", "lt": "less than {}"}
    found = [
        word.format(limit)
        for item in metadata
        for name, word in words.items()
        if (limit := getattr(item, name, None)) is not None
    ]
    return f": {', '.join(found)}" if found else ""


def commands_page(cli: click.Group, program: str) -> str:
    """The help of each command, as it is printed."""
    lines = ["# Commands", "", f"`{program} --help` prints them, and so does `--help` after each command."]
    for words, text in _helps(
        cli, click.Context(cli, info_name=program, max_content_width=WIDTH, terminal_width=WIDTH)
    ):
        lines += ["", f"## `{words}`", "", "```text", text, "```"]
    return "\n".join(lines) + "\n"


def _helps(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    yield context.command_path, click.unstyle(command.get_help(context))
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner and not inner.hidden:
                yield from _helps(inner, click.Context(inner, info_name=name, parent=context))


def metrics_page(families: Iterable[Family]) -> str:
    lines = ["# Metrics", "", "What `GET /metrics` tells Prometheus. With several workers, one answers for all."]
    lines += ["", "| metric | kind | labels | what it says |", "|---|---|---|---|"]
    for family in sorted(families, key=lambda family: family.name):
        labels = ", ".join(f"`{label}`" for label in family.labels)
        name = f"{family.name}_total" if family.kind == "counter" else family.name
        lines.append(f"| `{name}` | {family.kind} | {labels} | {family.text} |")
    return "\n".join(lines) + "\n"


def api_page(document: Json) -> str:
    """All operations by tag, and the models that they take and give."""
    lines = ["# API", "", document["info"].get("description", "")]
    for tag in document.get("tags", ()):
        lines += ["", f"## {tag['name'].capitalize()}", "", tag.get("description", "")]
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                if tag["name"] in operation.get("tags", ()):
                    lines += ["", *_operation(f"{method.upper()} {path}", operation)]
    lines += ["", "## Models"]
    for name, schema in sorted(document["components"]["schemas"].items()):
        lines += ["", *_model(name, schema)]
    return "\n".join(lines) + "\n"


def _operation(heading: str, operation: Json) -> Iterator[str]:
    yield from (f"### `{heading}`", "", f"{operation.get('summary', '')}.")
    told = operation.get("description")
    yield from ("", told) if told else ()
    yield from ("", "| | |", "|---|---|")
    yield f"| signed in | {'yes' if operation.get('security') else 'no'} |"
    for parameter in operation.get("parameters", ()):
        must = "" if parameter.get("required") else ", may be left out"
        says = _on_one_line(parameter)
        kind = f"{kind_of(parameter['schema'])}{must}{f': {says}' if says else ''}"
        yield f"| `{parameter['name']}` | in the {parameter['in']}: {kind} |"
    for content in operation.get("requestBody", {}).get("content", {}).values():
        yield f"| body | {kind_of(content['schema'])} |"
    failed: list[str] = []
    for status, answer in operation["responses"].items():
        if status < "400":
            gives = [kind_of(content.get("schema", {})) for content in answer.get("content", {}).values()]
            yield f"| {status} | {', '.join(gives) or 'nothing'} |"
        else:
            failed.append(status)
    yield f"| problems | {', '.join(failed) or 'none'} |"


def _model(name: str, schema: Json) -> Iterator[str]:
    yield f"### {name} {{ #model-{name.lower()} }}"
    told = schema.get("description")
    yield from ("", told) if told else ()
    fields: Mapping[str, Json] = schema.get("properties", {})
    if not fields:
        yield from ("", kind_of(schema))
        return
    yield from ("", "| field | takes | |", "|---|---|---|")
    for field, kind in fields.items():
        must = "" if field in schema.get("required", ()) else ", may be left out"
        yield f"| `{field}` | {kind_of(kind)}{must} | {_on_one_line(kind)} |"


def _on_one_line(told: Json) -> str:
    return " ".join(told.get("description", "").split()).replace("|", "\\|")


def kind_of(schema: Json) -> str:
    """A schema of JSON in words, on one line that a table may hold."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#model-{name.lower()})"
    if choices := schema.get("anyOf", schema.get("oneOf")):
        return " or ".join(map(kind_of, choices))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {kind_of(schema.get('items', {}))}"
    return f"{schema.get('format', schema.get('type', 'anything'))}{_limits(schema)}"


def _limits(schema: Json) -> str:
    words: Sequence[tuple[str, str]] = (
        ("minLength", "{} or more characters"),
        ("maxLength", "at most {} characters"),
        ("minimum", "{} or more"),
        ("maximum", "at most {}"),
        ("maxItems", "at most {} items"),
    )
    found = [word.format(schema[name]) for name, word in words if name in schema]
    return f" ({', '.join(found)})" if found else ""
