"""Texts in the language of whoever reads them, from a folder of templates."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateNotFound, select_autoescape

DEFAULT = "en"


class Templates:
    """`<name>.<language>.<kind>` in the folder, such as `reset.de.html`. In `.html` every value is escaped."""

    def __init__(self, folder: Path) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(folder),
            autoescape=select_autoescape(["html"]),
            undefined=StrictUndefined,
            auto_reload=False,
            keep_trailing_newline=True,
        )

    def render(self, name: str, language: str, kind: str, /, **values: object) -> str:
        """In this language, or the one that it is a dialect of, or English. Raises TemplateNotFound."""
        for spoken in (language, language.partition("-")[0]):
            try:
                return self._environment.get_template(f"{name}.{spoken}.{kind}").render(language=spoken, **values)
            except TemplateNotFound:
                continue
        return self._environment.get_template(f"{name}.{DEFAULT}.{kind}").render(language=DEFAULT, **values)
