"""Rules of the code base that no linter knows."""

import ast
import os
import re
import subprocess
import sys

from tests.product.machinery import machinery_lines
from tristore.testing.lab import PROJECT

SHIPPED = [
    path
    for folder in ("database", "models", "repositories", "services", "routers", "migrations", "tristore", ".")
    for path in ((PROJECT / folder).rglob("*.py") if folder != "." else PROJECT.glob("*.py"))
    if "testing" not in path.parts
]


# commit() itself; migrations, which are no use case; and the one use case of the machinery.
COMMITS = {
    "tristore/outbox/unit_of_work.py": 1,
    "tristore/migrations/lock.py": 1,
    "tristore/migrations/patience.py": 1,
    "tristore/recovery.py": 1,
}


def commits(tree: ast.AST) -> list[ast.Call]:
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "commit"
    ]


def test_only_services_commit_once_as_the_last_line_of_the_block() -> None:
    for path in SHIPPED:
        tree = ast.parse(path.read_text())
        where = path.relative_to(PROJECT)
        if where.parts[0] != "services" and str(where) != "tristore/saga/engine.py":
            assert len(commits(tree)) == COMMITS.get(str(where), 0), where
            continue
        blocks = [node for node in ast.walk(tree) if isinstance(node, ast.AsyncWith)]
        last_lines = [block.body[-1] for block in blocks]
        good = [call for line in last_lines for call in commits(line)]
        assert {id(call) for call in commits(tree)} == {id(call) for call in good}, where


def test_every_unit_of_work_is_committed() -> None:
    for path in (PROJECT / "services").glob("*.py"):
        blocks = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.AsyncWith)]
        for block in blocks:
            if "self._unit_of_work()" in ast.unparse(block.items[0]):
                assert commits(block), (
                    f"services/{path.name}:{block.lineno}: this unit of work is never committed, so nothing is "
                    "written. End its block with `await uow.commit()`"
                )


def test_no_test_imports_from_another_test() -> None:
    for path in (PROJECT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            assert not re.search(r"\btests\b.*\btest_", module), (
                f"{path.relative_to(PROJECT)} imports from {module}. Move what both need to a module beside the tests"
            )


def test_main_is_a_table_of_contents() -> None:
    assert len((PROJECT / "main.py").read_text().splitlines()) <= 90


def test_importing_main_reads_no_environment_and_opens_nothing() -> None:
    unsafe = {**os.environ, "ENVIRONMENT": "production", "POSTGRES_DSN": ""}
    subprocess.run([sys.executable, "-c", "import main"], cwd=PROJECT, env=unsafe, check=True, timeout=30)


def test_the_machinery_has_no_word_of_the_product() -> None:
    """Mend it: hand in the name, or say in general what it is. A clone replaces tristore/ to upgrade."""
    assert machinery_lines(r"(?i:conversation|learner|chatlingo|(?<!of )\bcourse)") == []
