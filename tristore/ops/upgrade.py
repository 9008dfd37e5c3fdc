"""Brings a clone up to a later state of what it was cloned from: `make upgrade FROM=...`.

The machinery and its tests are replaced. What has changed elsewhere becomes a patch in the clone's own words: under its
name, without the parts that it has taken out. The commit that the clone came from is found by its content: a clone
needs neither the history nor a note of it.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from tristore.ops.clone import Refused, files, git, refuse_changes, tidy
from tristore.ops.parts import MANIFEST, REVISIONS, SCRIPTS, TAKEN_OUT, Parts
from tristore.ops.rename import Name, Rename

MACHINERY = ("tristore", "tests/tristore")
PATCH = "upgrade.patch"
NUMBER = re.compile(r"^(m?)(\d+)(?=_.*\.py$)")
REVISION = re.compile(r"^(revision\b.*?= ).*$", re.MULTILINE)
REVISES = re.compile(r"^(down_revision\b.*?= ).*$", re.MULTILINE)
NO_BASE = """No commit up to {release} has the tristore/ of this clone.
Either that is older than this clone, or it came without its history (git fetch --unshallow), or somebody has changed
tristore/ here. Then say which commit the clone came from: BASE=..."""
REPLACED = "tristore/ and tests/tristore/ are those of {release} now; those here were of {base}."
NOTHING_ELSE = "Nothing else has changed."
WRITTEN = """What else has changed in between is in {patch}, in the words of this clone (files: {count}).
Read it, and take what you want of it:
  git apply --stat {patch}
  git apply --3way {patch}"""
THEN = """Now the product is checked and tested as it is. Do both again with what you take of the patch. Then commit,
and run make migrate. docs/upgrading.md tells more."""


@dataclass(frozen=True)
class Clone:
    project: Path
    name: Name
    parts: frozenset[str]
    files: frozenset[str]

    @classmethod
    def of(cls, project: Path) -> "Clone":
        return cls(project, Name.of(project), _parts(project), frozenset(files(project)))


def upgrade(project: Path, origin: str, base: str = "") -> Iterator[str]:
    """Replace the machinery, write the patch, and say so line by line. Raises Refused."""
    refuse_changes(project)
    release = commit_of(project, origin)
    before = commit_of(project, base) if base else came_from(project, release)
    count = write_patch(Clone.of(project), before, release)
    git(project, "rm", "-rqf", "--ignore-unmatch", "--", *MACHINERY)
    git(project, "checkout", release, "--", *MACHINERY)
    yield REPLACED.format(release=_short(project, release), base=_short(project, before))
    yield WRITTEN.format(count=count, patch=PATCH) if count else NOTHING_ELSE
    yield THEN


def commit_of(project: Path, origin: str) -> str:
    """What a folder has checked out, or the commit of a tag or branch that the clone knows. Raises Refused."""
    if not origin or origin.startswith("-"):
        raise Refused("FROM must be a folder with a checkout, or a tag: see docs/upgrading.md.")
    if (project / origin).is_dir():
        git(project, "-c", "gc.auto=0", "fetch", "-q", "--no-tags", str((project / origin).resolve()), "HEAD")
        origin = "FETCH_HEAD"
    try:
        return git(project, "rev-parse", "--verify", "-q", f"{origin}^{{commit}}").strip()
    except Refused:
        raise Refused(
            f"{origin!r} is no folder, and no tag that this clone knows. Fetch it first: `git fetch`."
        ) from None


def came_from(project: Path, release: str) -> str:
    """Of the commits up to `release` whose machinery the clone has, the one whose other files are most like its own. Of
    several, the oldest: what the clone has already then comes once more, and nothing is missed. Raises Refused."""
    commits = git(project, "rev-list", "--topo-order", "--reverse", release).split()
    machinery = git(project, "rev-parse", f"HEAD:{MACHINERY[0]}")
    asked = "".join(f"{commit}:{MACHINERY[0]}\n" for commit in commits)
    found = git(project, "cat-file", "--batch-check=%(objectname)", asked=asked).splitlines(keepends=True)
    candidates = [commit for commit, tree in zip(commits, found, strict=True) if tree == machinery]
    if not candidates:
        raise Refused(NO_BASE.format(release=_short(project, release)))
    return min(candidates, key=lambda commit: _difference(project, commit))


def write_patch(clone: Clone, base: str, release: str) -> int:
    """Returns how many files it changes. Without any there is no patch."""
    patch = clone.project / PATCH
    patch.unlink(missing_ok=True)
    with ExitStack() as exits:
        before, after = (exits.enter_context(_checked_out(clone.project, commit)) for commit in (base, release))
        taken_out = _parts(before) - clone.parts
        for tree in (before, after):
            _translate(tree, clone.name, taken_out)
        _number_anew(before, after, clone.project)
        given_up = set(files(before)) - clone.files
        trees = [_written(tree, given_up) for tree in (before, after)]
    compared = (*trees, "--", ".", *(f":!{folder}" for folder in MACHINERY))
    changed = git(clone.project, "diff-tree", "-r", *compared).splitlines()
    if changed:
        git(clone.project, "diff-tree", "-p", "-M", "--binary", "--full-index", f"--output={PATCH}", *compared)
    return len(changed)


@contextmanager
def _checked_out(project: Path, commit: str) -> Iterator[Path]:
    """In a work tree of its own. What is written there comes into the clone's store of objects: `git apply --3way`
    looks for it there."""
    with TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        git(project, "-c", "core.hooksPath=/dev/null", "worktree", "add", "-q", "--detach", str(tree), commit)
        try:
            yield tree
        finally:
            git(project, "worktree", "remove", "--force", str(tree))


def _translate(tree: Path, name: Name, taken_out: frozenset[str]) -> None:
    """As if the clone's own commands had been run there."""
    for part in sorted(taken_out & _parts(tree)):
        parts = Parts.of(tree)
        parts.cut(parts.by_name[part])
    Rename(Name.of(tree), name).apply(tree)
    tidy(tree)


def _number_anew(before: Path, after: Path, project: Path) -> None:
    """New migrations come after those of the clone. Those of parts that are gone do nothing, and are left out."""
    last = _last(project, REVISIONS)
    for path in _new(before, after, REVISIONS):
        if path.name.endswith(f"_{TAKEN_OUT}.py"):
            path.unlink()
            continue
        number = _next(last)
        path.write_text(REVISES.sub(rf'\g<1>"{last}"', REVISION.sub(rf'\g<1>"{number}"', path.read_text())))
        path.rename(path.with_name(NUMBER.sub(rf"\g<1>{number}", path.name)))
        last = number
    last = _last(project, SCRIPTS)
    for path in _new(before, after, SCRIPTS):
        last = _next(last)
        path.rename(path.with_name(NUMBER.sub(rf"\g<1>{last}", path.name)))


def _new(before: Path, after: Path, folder: str) -> list[Path]:
    """Migrations that came in between, in their order."""
    known = {path.name for path in (before / folder).glob("*.py")}
    return sorted(path for path in (after / folder).glob("*.py") if NUMBER.match(path.name) and path.name not in known)


def _last(project: Path, folder: str) -> str:
    numbers = [found[2] for path in (project / folder).glob("*.py") if (found := NUMBER.match(path.name))]
    return max(numbers, default="0000")


def _next(number: str) -> str:
    return f"{int(number) + 1:04}"


def _written(tree: Path, given_up: Iterable[str]) -> str:
    """The tree as an object of git, without the files that the clone has given up."""
    for path in given_up:
        (tree / path).unlink(missing_ok=True)
    git(tree, "add", "-A")
    return git(tree, "write-tree").strip()


def _difference(project: Path, commit: str) -> int:
    """In lines. What the clone has deleted does not count; what it has added counts for all commits alike."""
    told = git(project, "diff-tree", "-r", "--numstat", "--diff-filter=AM", commit, "HEAD")
    return sum(int(lines) for lines in re.findall(r"\d+(?=\t)", told))


def _parts(project: Path) -> frozenset[str]:
    return frozenset(Parts.of(project).by_name) if (project / MANIFEST).exists() else frozenset()


def _short(project: Path, commit: str) -> str:
    return git(project, "log", "-1", "--format=%h of %cs", commit).strip()


@click.command()
@click.argument("origin")
@click.option("--base", default="", help="The commit that the clone came from, where it cannot be found.")
def main(origin: str, base: str) -> None:
    """Bring this clone up to another state of what it was cloned from."""
    for line in upgrade(Path.cwd(), origin, base):
        click.echo(line)


if __name__ == "__main__":
    main()
