"""A later state of the tree, for an upgrade: machinery and product have changed, also where clones change them."""

import re
from pathlib import Path

from tests.product.copies.tree import commit, git, put_tree
from tristore.ops.clone import files
from tristore.ops.parts import MANIFEST, REVISIONS, Part, Parts
from tristore.ops.rename import Name
from tristore.testing.lab import PROJECT

COMMENT = "# Since later."
MODULE = '"""New in the machinery."""\n\nLATER = True\n'
TEST = '''"""The machinery is the later one."""

from tristore.ops.later import LATER


def test_it_is_there() -> None:
    assert LATER
'''
REVISION = '''"""later"""

revision = "{number}"
down_revision = "{last}"
branch_labels = None
depends_on = None
phase = "expand"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
'''


def make_later(original: Path, folder: Path, tag: str) -> Path:
    git("clone", "-q", str(PROJECT if tag else original), str(folder), folder=original)
    for setting in ("user.name=a", "user.email=a@example.com"):
        git("config", *setting.split("="), folder=folder)
    if tag:
        git("rm", "-rq", ".", folder=folder)
        put_tree(folder)
    (folder / "tristore/ops/later.py").write_text(MODULE)
    (folder / "tests/tristore/unit/test_later.py").write_text(TEST)
    name = Name.of(folder)
    change(folder / "config.py", f'NAME = "{name.word}"\n', f'NAME = "{name.word}"\n# {name.title}, since later.\n')
    for path in ("services/personal.py", "tests/samples.py"):  # an entity has lines in them
        append(folder / path, COMMENT)
    append(folder / "README.md", f"{name.title} has this line since later.")
    for part in Parts.of(folder).by_name.values() if (folder / MANIFEST).exists() else ():
        _change_part(folder, part)
    last = max(path.name[:4] for path in (folder / REVISIONS).glob("[0-9]*.py"))
    number = f"{int(last) + 1:04}"
    (folder / REVISIONS / f"{number}_later.py").write_text(REVISION.format(number=number, last=last))
    commit("later", folder)
    return folder


def _change_part(folder: Path, part: Part) -> None:
    """A file of its own, and each region of it in another one."""
    modules = [path for path in files(folder) if path.endswith(".py")]
    own = next(path for path in modules if part.owns(path) and not part.is_revision(path))
    append(folder / own, f"{COMMENT} {part.name}")
    begin = re.compile(rf"^( *)# begin part {part.name}\n", re.MULTILINE)
    regions = [path for path in modules if begin.search((folder / path).read_text())]
    assert regions
    for path in regions:
        (folder / path).write_text(begin.sub(rf"\g<0>\1{COMMENT} {part.name}\n", (folder / path).read_text()))


def append(file: Path, line: str) -> None:
    file.write_text(f"{file.read_text().rstrip()}\n\n{line}\n")


def change(file: Path, before: str, after: str) -> None:
    text = file.read_text()
    assert text.count(before) == 1, f"{file.name} has not once {before!r}"
    file.write_text(text.replace(before, after))
