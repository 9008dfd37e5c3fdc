"""docs/add-an-entity.md is followed word by word in a copy of the tree. `make drill` runs this."""

from pathlib import Path

import pytest

from tests.product.copies.tree import change, git, run, steps

pytestmark = pytest.mark.timeout(900)


def test_it_takes_six_new_files_and_a_line_of_two_lists(extended: Path) -> None:
    told = [line.split("\t") for line in git("diff", "--numstat", "HEAD~1", folder=extended).splitlines()]
    added = {path: int(added) for added, removed, path in told}
    assert len(added) == 8, added
    assert {removed for _, removed, _ in told} == {"0"}
    assert (added["tests/samples.py"], added["services/personal.py"]) == (1, 2)  # one of the two is an import


def test_its_changes_fit_into_a_tree_with_all_parts_too(original: Path, tmp_path: Path) -> None:
    document, file, changed = "docs/add-an-entity.md", original, 0
    for step in steps(original / document):
        if step["path"]:
            file = tmp_path / step["path"]
        elif step["kind"] == "diff":
            file.parent.mkdir(parents=True, exist_ok=True)
            if not file.exists():
                file.write_bytes((original / file.relative_to(tmp_path)).read_bytes())
            change(file, step["block"], document)
            changed += 1
    assert changed == 3


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
    "the guide, where it needs a row": (
        "services/note_service.py",
        """            if not await self._notes.delete(uow.session, owner, note_id):
                raise NotFound
""",
        "            await self._notes.delete(uow.session, owner, note_id)\n",
        "pytest -n0 tests/product/api/test_repeats.py",
        "docs/clients.md does not tell what DELETE /notes/{note_id} answers when it is repeated. Add a row",
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
def test_what_is_forgotten_is_found_in_words(extended: Path, what: str) -> None:
    path, line, instead, command, words = FORGOTTEN[what]
    text = (extended / path).read_text()
    assert text.count(line) == 1
    (extended / path).write_text(text.replace(line, instead))
    code, printed = run(f".venv/bin/python -m {command}", extended)
    (extended / path).write_text(text)
    assert code != 0
    assert words in printed
