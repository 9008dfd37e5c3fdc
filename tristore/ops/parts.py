"""Takes a part of the sample product out of a clone: `make without PART=...`. `parts.toml` says what belongs to a part.

A part has files of its own. Elsewhere it stands only between two comments, `begin part NAME` and `end part NAME`.
`check` finds where a word of a part stands outside both.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import click

from tristore.ops.clone import Refused, files, refuse_changes, tidy

MANIFEST = "parts.toml"
REVISIONS, SCRIPTS = "migrations/postgres/versions", "migrations/mongodb"
DROPS = (f"{REVISIONS}/*_without_*.py", f"{SCRIPTS}/*_without_*.py")
"""They alone may name a part that is gone."""
MACHINERY = ("tristore/", "tests/tristore/", MANIFEST, "requirements/")
"""Where the words mean something else: these are never searched."""
TAKEN_OUT = "taken_out"
"""What the name of a revision ends with that was emptied."""
REVISION_IDS = re.compile(r"^(?:revision|down_revision)\b.*$", re.MULTILINE)
EMPTIED = '''"""An empty revision: what it made was taken out of this clone. Databases remember it by its number."""

{ids}
branch_labels = None
depends_on = None
phase = "expand"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
'''
DROP_TABLES = '''"""Drop the tables of a part that was taken out: {part}."""

from alembic import op

revision = "{number}"
down_revision = "{last}"
branch_labels = None
depends_on = None
phase = "contract"


def upgrade() -> None:
    for table in ({tables}):
        op.execute(f"DROP TABLE IF EXISTS {{table}} CASCADE")


def downgrade() -> None:
    pass
'''
DROP_COLLECTIONS = '''"""Drop the collections of a part that was taken out: {part}."""

from pymongo.asynchronous.database import AsyncDatabase

from tristore.stores.mongodb import Document


async def up(database: AsyncDatabase[Document]) -> None:
    for collection in ({collections}):
        await database.drop_collection(collection)
'''


@dataclass(frozen=True)
class Part:
    name: str
    files: Sequence[str]
    """Paths, or patterns of paths, from the top of the project."""
    words: Sequence[str]
    """Regular expressions of the words that only this part uses."""
    history: Sequence[str] = ()
    """Files that tell what releases made. They stay as they are, and keep its words."""
    revisions: Sequence[str] = ()
    """Alembic's revisions that make its tables and nothing else."""
    tables: Sequence[str] = ()
    collections: Sequence[str] = ()

    def owns(self, path: str) -> bool:
        return self.is_revision(path) or any(fnmatch(path, pattern) for pattern in self.files)

    def is_revision(self, path: str) -> bool:
        return any(fnmatch(path, f"{REVISIONS}/{revision}_*.py") for revision in self.revisions)


@dataclass(frozen=True)
class Parts:
    project: Path
    by_name: Mapping[str, Part]

    @classmethod
    def of(cls, project: Path) -> "Parts":
        """As the manifest says. Raises Refused."""
        manifest = project / MANIFEST
        if not manifest.exists():
            raise Refused(f"There is no {MANIFEST}: no part is left that could be taken out.")
        return cls(project, {name: Part(name, **rows) for name, rows in tomllib.loads(manifest.read_text()).items()})

    def texts(self) -> Iterator[tuple[str, str]]:
        """Path and text of each file that git knows, machinery left out."""
        for path in files(self.project):
            if not path.startswith(MACHINERY):
                yield path, (self.project / path).read_text(errors="replace")

    def check(self) -> list[str]:
        """A line for each word of a part outside its files and regions, and for each mark without its other half."""
        parts = self.by_name.values()
        return [line for path, text in self.texts() for part in parts for line in _strays(part, path, text)]

    def take_out(self, name: str) -> None:
        """Delete its files and regions, empty its revisions, and drop its tables. Raises Refused."""
        if name not in self.by_name:
            raise Refused(f"PART must be one of {', '.join(self.by_name)}, not {name!r}.")
        refuse_changes(self.project)
        if strays := self.check():
            raise Refused("\n".join(["These lines would be left over:", *strays]))
        self.cut(self.by_name[name])
        self._drop(self.by_name[name])

    def cut(self, part: Part) -> None:
        """Delete its files, its regions and its row in the manifest, and empty its revisions."""
        for path, text in list(self.texts()):
            if part.is_revision(path):
                self._empty(path, text)
            elif part.owns(path):
                (self.project / path).unlink()
            elif (kept := _without_regions(part, text)) != text:
                (self.project / path).write_text(kept)
        self._forget(part)

    def _empty(self, path: str, text: str) -> None:
        file = self.project / path
        ids = "\n".join(REVISION_IDS.findall(text))
        file.unlink()
        file.with_name(f"{file.name.split('_')[0]}_{TAKEN_OUT}.py").write_text(EMPTIED.format(ids=ids))

    def _drop(self, part: Part) -> None:
        if part.tables:
            folder = self.project / REVISIONS
            last = max(file.name.split("_")[0] for file in folder.glob("[0-9]*.py"))
            number = f"{int(last) + 1:04}"
            text = DROP_TABLES.format(part=part.name, number=number, last=last, tables=_listed(part.tables))
            (folder / f"{number}_without_{part.name}.py").write_text(text)
        if part.collections:
            folder = self.project / SCRIPTS
            last = max(file.stem.split("_")[0] for file in folder.glob("m[0-9]*.py"))
            text = DROP_COLLECTIONS.format(part=part.name, collections=_listed(part.collections))
            (folder / f"m{int(last[1:]) + 1:04}_without_{part.name}.py").write_text(text)

    def _forget(self, part: Part) -> None:
        manifest = self.project / MANIFEST
        sections = re.split(r"(?m)^(?=\[)", manifest.read_text())
        kept = [section for section in sections if not section.startswith(f"[{part.name}]")]
        if len(kept) > 1:
            manifest.write_text("".join(kept))
        else:
            manifest.unlink()


def _strays(part: Part, path: str, text: str) -> Iterator[str]:
    if part.owns(path) or any(fnmatch(path, pattern) for pattern in (*DROPS, *part.history)):
        return
    word = re.compile("|".join(f"(?:{pattern})" for pattern in part.words))
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        mark = _mark(part, line)
        if mark == "begin" if inside else mark == "end":
            yield f"{path}:{number}: this mark of the part {part.name} has no other half"
        elif mark:
            inside = mark == "begin"
        elif not inside and (found := word.search(line)):
            yield (
                f"{path}:{number}: {found[0]!r} belongs to the part {part.name}. Move it to a file of the part, or put "
                f"it between the marks `begin part {part.name}` and `end part {part.name}`"
            )
    if inside:
        yield f"{path}: a region of the part {part.name} has no `end part {part.name}`"


def _without_regions(part: Part, text: str) -> str:
    kept, inside = [], False
    for line in text.splitlines(keepends=True):
        mark = _mark(part, line)
        if mark:
            inside = mark == "begin"
        elif not inside:
            kept.append(line)
    return "".join(kept)


def _mark(part: Part, line: str) -> str | None:
    found = re.fullmatch(rf"\s*(?:#|<!--|//)\s*(begin|end) part {part.name}(?:\s*-->)?\s*", line)
    return found[1] if found else None


def _listed(names: Sequence[str]) -> str:
    return "".join(f'"{name}", ' for name in names).rstrip()


@click.group()
def cli() -> None:
    """Parts of the sample product."""


@cli.command("check")
def _check_command() -> None:
    """Find words of a part outside its files and regions."""
    if not Path(MANIFEST).exists():
        return
    if strays := Parts.of(Path.cwd()).check():
        raise Refused("\n".join(strays))


@cli.command("without")
@click.argument("name")
def _without_command(name: str) -> None:
    """Take a part out."""
    project = Path.cwd()
    Parts.of(project).take_out(name)
    tidy(project)
    click.echo(f"The part {name} is out. Look at `git status`, then run `make check` and `make test`.")


if __name__ == "__main__":
    cli()
