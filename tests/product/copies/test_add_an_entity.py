"""docs/add-an-entity.md is followed word by word in a copy of the tree. `make test-copies` runs this."""

import re
from pathlib import Path

import pytest

from tests.product.copies.tree import copy_tree, git, run
from tristore.testing.lab import PROJECT

pytestmark = pytest.mark.timeout(900)

DOCUMENT = PROJECT / "docs/add-an-entity.md"
STEP = re.compile(
    r"^(?:Create|In) `(?P<path>[^`]+)`|^```(?P<kind>python|diff|console)\n(?P<block>.*?)^```", re.DOTALL | re.MULTILINE
)


def change(file: Path, difference: str) -> None:
    lines = difference.splitlines(keepends=True)
    before = "".join(line[1:] for line in lines if not line.startswith("+"))
    text = file.read_text()
    assert text.count(before) == 1, f"{DOCUMENT.name} changes {file.name} at lines that are not there once:\n{before}"
    file.write_text(text.replace(before, "".join(line[1:] for line in lines if not line.startswith("-"))))


def follow(copy: Path) -> None:
    file = copy
    for step in STEP.finditer(DOCUMENT.read_text()):
        if step["path"]:
            file = copy / step["path"]
        elif step["kind"] == "python":
            file.write_text(step["block"])
        elif step["kind"] == "diff":
            change(file, step["block"])
        else:
            for command in re.findall(r"^\$ (.*)", step["block"], re.MULTILINE):
                code, printed = run(command, copy)
                assert code == 0, f"{command}\n{printed}"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In which the document has been followed."""
    copy = copy_tree(tmp_path_factory.mktemp("copy"))
    follow(copy)
    return copy


def test_it_takes_ten_files_and_three_of_them_a_line_or_two(copy: Path) -> None:
    git("add", "-AN", folder=copy)
    told = [line.split("\t") for line in git("diff", "--numstat", folder=copy).splitlines()]
    added = {path: int(added) for added, removed, path in told}
    assert len(added) == 10, added
    assert {removed for _, removed, _ in told} == {"0"}
    assert (added["tests/samples.py"], added["docs/clients.md"]) == (1, 2)
    assert added["services/personal.py"] == 2  # one of the two is an import


FORGOTTEN = {
    "the line of PERSONAL": (
        "services/personal.py",
        "    NOTES,\n",
        "",
        "pytest -n0 tests/product/api/test_personal.py -k table",
        "notes names users, and PERSONAL in services/personal.py does not list it",
    ),
    "the sample": (
        "tests/samples.py",
        '    Sample("note_id", "/notes", {"text": "private"}, AS_WRITTEN),\n',
        "",
        "pytest -n0 tests/product/api/test_every_route.py",
        "tests/samples.py has no row for the path parameter {note_id} of /notes/{note_id}: add",
    ),
    "the guide": (
        "docs/clients.md",
        "| `POST /notes` | nothing | 201, and there is one more |\n",
        "",
        "pytest -n0 tests/product/api/test_repeats.py",
        "say nothing of the repetition of `POST /notes`",
    ),
    "the lock on the user": (
        "services/note_service.py",
        "            await uow.for_user(owner)\n",
        "",
        "pytest -n0 tests/product/api/test_notes.py",
        "Begin it with `await uow.for_user(user_id)`",
    ),
    "the commit": (
        "services/note_service.py",
        "            await uow.commit()\n        return note\n",
        "        return note\n",
        "pytest -n0 tests/product/unit/test_rules.py",
        "End its block with `await uow.commit()`",
    ),
    "the erasure": (
        "repositories/note_repo.py",
        """    async def erase(self, session: AsyncSession, owner: uuid.UUID) -> None:
        \"\"\"All notes of a user, with the user.\"\"\"
        await session.execute(delete(NoteRow).where(NoteRow.user_id == owner))
""",
        "",
        "mypy services/note_service.py",
        'Argument 3 to "rows" has incompatible type "type[NoteRepository]"; expected "Callable[[Postgres], RowsOfUser',
    ),
    "to erase anything": (
        "repositories/note_repo.py",
        "        await session.execute(delete(NoteRow).where(NoteRow.user_id == owner))\n",
        "",
        "pytest -n0 tests/product/api/test_personal.py -k second_pass",
        "postgresql notes still has something of an erased user. Let `erase` in the repository of this entity",
    ),
    "the export": (
        "services/note_service.py",
        'NOTES = rows("notes", Note, NoteRepository)\n',
        'from dataclasses import replace\nNOTES = replace(rows("notes", Note, NoteRepository), export=None)\n',
        "pytest -n0 tests/product/api/test_personal.py -k exported",
        "notes in PERSONAL (services/personal.py) has no export, so its user never sees it. Make it with rows(...)",
    ),
    "the commit of an effect, on one way out": (
        "services/note_service.py",
        "            await uow.commit()\n        return note\n",
        """            from models.activity import happened
            from services.effects import RecordActivity
            uow.effects.append(RecordActivity(activity=happened(owner, "profile_changed")))
            if len(new.text) < 100:
                return note
            await uow.commit()
        return note
""",
        "pytest -n0 tests/product/api/test_notes.py",
        "The unit of work ended without a commit, so RecordActivity will not be applied. End the block with",
    ),
}


@pytest.mark.parametrize("what", FORGOTTEN)
def test_what_is_forgotten_is_found_in_words(copy: Path, what: str) -> None:
    path, line, instead, command, words = FORGOTTEN[what]
    text = (copy / path).read_text()
    assert text.count(line) == 1
    (copy / path).write_text(text.replace(line, instead))
    code, printed = run(f".venv/bin/python -m {command}", copy)
    (copy / path).write_text(text)
    assert code != 0
    assert words in printed
