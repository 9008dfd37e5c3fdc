"""Gives the product of a clone another name: `make rename NAME=...`.

The name that it has is NAME in config.py. It is replaced wherever it stands, in any case, also inside other words and
in the names of files. The machinery keeps its own name.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import click

from tristore.ops.clone import Refused, files, refuse_changes, tidy

CONFIG = "config.py"
NAMED = re.compile(r'^NAME = "([a-z][a-z0-9]*)"$', re.MULTILINE)
VALID = re.compile(r"[A-Za-z][A-Za-z0-9]{2,19}")
"""So it can be part of a package, a database, a user, a container. The longest still fits into a line of code."""
MACHINERY = ("tristore/", "tests/tristore/")
LOCKS = "requirements/"
"""Hashes, in which any word may turn up."""
ITSELF = (
    ("README.md", r"(?i)(?<=\A# )tristore$"),
    ("pyproject.toml", r'(?<=^name = ")tristore(?="$)'),
    ("docker-compose.yml", r"(?<=^name: )tristore$"),
    ("requirements/*.lock", r"\b(?:tristore|{old})(?= \(pyproject\.toml)"),
)
"""Where a starter has its own name, and a clone that of its product."""
DATA = ".data"
MOST_PLACES = 3


@dataclass(frozen=True)
class Name:
    word: str
    """As packages and stores have it."""
    title: str
    """As people read it."""

    @classmethod
    def given(cls, text: str) -> "Name":
        """Raises Refused."""
        if not VALID.fullmatch(text):
            raise Refused(f"NAME must be 3 to 20 letters and digits, a letter first, not {text!r}.")
        return cls(text.lower(), text.capitalize() if text.islower() else text)

    @classmethod
    def of(cls, project: Path) -> "Name":
        """The name that a project has, with its title as it stands most often. Raises Refused."""
        config = project / CONFIG
        if not config.exists() or not (found := NAMED.search(config.read_text())):
            raise Refused(f'{CONFIG} must have the name of the product, in a line such as NAME = "...".')
        written = Counter(word for _, text in texts(project) for word in re.findall(f"(?i){found[1]}", text))
        del written[found[1]]
        return cls(found[1], written.most_common(1)[0][0] if written else found[1].capitalize())


@dataclass(frozen=True)
class Rename:
    old: Name
    new: Name

    def in_words(self, text: str) -> str:
        # After `NAME=` stands the example of a document, which is an example under any name.
        return re.sub(rf"(?<!\bNAME=)(?i:{self.old.word})", self._in_its_case, text)

    def in_file(self, path: str, text: str) -> str:
        for pattern, own_name in ITSELF:
            if fnmatch(path, pattern):
                own_name = own_name.replace("{old}", self.old.word)
                text = re.sub(own_name, self._in_its_case, text, flags=re.MULTILINE)
        return text if path.startswith(LOCKS) else self.in_words(text)

    def _in_its_case(self, found: re.Match[str]) -> str:
        written = found[0]
        if written.islower():
            return self.new.word
        return self.new.word.upper() if written.isupper() and written != self.old.title else self.new.title

    def apply(self, project: Path) -> int:
        """Returns how many files it has changed."""
        if self.old == self.new:
            return 0
        changes = [
            (path, new_path, new_text)
            for path, text in texts(project)
            if (new_path := self.in_words(path), new_text := self.in_file(path, text)) != (path, text)
        ]
        for path, new_path, new_text in changes:
            (project / new_path).parent.mkdir(parents=True, exist_ok=True)
            (project / path).rename(project / new_path).write_bytes(new_text.encode())
        return len(changes)

    def refuse_used(self, project: Path) -> None:
        """Raises Refused where the new name already stands: nobody could tell it from the product's any more."""
        if self.new.word == self.old.word:
            return
        used = [
            f"{path}:{number}"
            for path, text in texts(project, besides=("tests/tristore/", LOCKS))
            for number, line in enumerate([path.lower(), *text.lower().splitlines()])
            if re.search(rf"(?<!\bname=){self.new.word}", line.replace(self.old.word, " "))
        ]
        if used:
            places = ", ".join(used[:MOST_PLACES]) + (" ..." if used[MOST_PLACES:] else "")
            raise Refused(
                f"{self.new.word!r} already stands in {len(used)} lines, also as part of other words ({places}). "
                "Choose a name that is in no other word."
            )


def texts(project: Path, besides: Sequence[str] = MACHINERY) -> Iterator[tuple[str, str]]:
    """Path and text of each file that git knows, besides those that begin so, and besides what is no text."""
    for path in files(project):
        file = project / path
        if not path.startswith(tuple(besides)) and not file.is_symlink():
            try:
                yield path, file.read_bytes().decode()
            except UnicodeDecodeError:
                continue


def rename(project: Path, name: str) -> str:
    """Rename the product, and say what is left to do. Raises Refused."""
    new, old = Name.given(name), Name.of(project)
    if new == old:
        return f"The product is {new.title} already."
    refuse_changes(project)
    change = Rename(old, new)
    change.refuse_used(project)
    refuse_data(project, old)
    changed = change.apply(project)
    tidy(project)
    return "\n".join(
        [f"The product is {new.title} now, in {changed} files: look at `git diff --stat`.", *_left(project, old)]
    )


def refuse_data(project: Path, old: Name) -> None:
    """Raises Refused where the embedded servers have data: they would look for databases of the new name."""
    if any((project / DATA).glob("*/data")):
        raise Refused(
            f"{DATA} has databases of {old.title}, which would not be found under another name. Stop their servers "
            "(.venv/bin/python manage.py stores stop), then delete the folder, or move it away to keep it."
        )


def _left(project: Path, old: Name) -> Iterator[str]:
    yield "Then run `make check` and `make test`, and commit. What the product is, you say best: README.md, ABOUT in"
    yield "routers/__init__.py, `description` in pyproject.toml."
    settings = project / ".env"
    if settings.exists() and re.search(old.word, settings.read_text(), re.IGNORECASE):
        yield f".env still names {old.title}. It is yours alone, so it was left as it is."


@click.command()
@click.argument("name")
def main(name: str) -> None:
    """Give the product another name."""
    click.echo(rename(Path.cwd(), name))


if __name__ == "__main__":
    main()
