"""Giving the product of a small project another name."""

from pathlib import Path

import pytest

from tests.tristore.unit.projects import commit, git, make_project
from tristore.ops.clone import Refused
from tristore.ops.rename import Name, rename

FILES = {
    "config.py": 'NAME = "teapot"\nAPP_NAME = "x"\n',
    "main.py": 'title = "TeaPot"\nhello = "Welcome to TeaPot"\nLIMIT = "TEAPOT_LIMIT"\n',
    ".env.example": "APP_NAME=teapot\n",
    "docs/teapot.md": "TeaPot. Give it a name: `make rename NAME=samovar`.\n",
    "docs/day.py": "import zlib\n\nfrom teapot_client import Day\nfrom umbrella import Rain\n\nA = [Day, Rain, zlib]\n",
    "README.md": "# Tristore\n\nThe sample product is TeaPot. Tristore is below.\n",
    "pyproject.toml": '[project]\nname = "tristore"\ndescription = "Tristore"\n',
    "docker-compose.yml": "name: tristore\nservices: {}\n",
    "requirements/base.lock": "a==1 --hash=sha256:teapot\n    # via tristore (pyproject.toml)\n",
    "tristore/pot.py": "teapot = 1\n",
    "tests/tristore/test_pot.py": "teapot = samovar = 1\n",
    ".gitignore": ".data/\n.env\n",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    project = make_project(tmp_path, FILES)
    (project / "run").write_text("#!/bin/sh\necho teapot\n")
    (project / "run").chmod(0o755)
    (project / "picture.png").write_bytes(b"\xff teapot")
    commit(project)
    return project


def read(project: Path, path: str) -> str:
    return (project / path).read_text()


def test_the_name_changes_in_each_of_its_cases(project: Path) -> None:
    told = rename(project, "samovar")
    assert "Samovar now" in told
    assert read(project, "config.py") == 'NAME = "samovar"\nAPP_NAME = "x"\n'
    assert read(project, "main.py") == 'title = "Samovar"\nhello = "Welcome to Samovar"\nLIMIT = "SAMOVAR_LIMIT"\n'
    assert read(project, ".env.example") == "APP_NAME=samovar\n"
    assert read(project, "docs/samovar.md") == "Samovar. Give it a name: `make rename NAME=samovar`.\n"
    assert not (project / "docs/teapot.md").exists()
    assert git(project, "ls-files", "-s", "run").startswith("100755")
    assert read(project, "run").endswith("echo samovar\n")
    assert (project / "run").stat().st_mode & 0o111


def test_a_title_is_written_as_it_was_given(project: Path) -> None:
    rename(project, "SamoVar")
    assert read(project, "main.py").startswith('title = "SamoVar"')
    assert Name.of(project) == Name("samovar", "SamoVar")


def test_a_title_in_capitals_is_a_title(project: Path) -> None:
    rename(project, "SAMOVAR")
    assert read(project, "main.py").startswith('title = "SAMOVAR"')
    commit(project)
    rename(project, "zither")
    assert read(project, "main.py").startswith('title = "Zither"')


def test_the_starter_keeps_its_name_but_where_it_is_that_of_the_project(project: Path) -> None:
    rename(project, "samovar")
    assert read(project, "README.md") == "# Samovar\n\nThe sample product is Samovar. Tristore is below.\n"
    assert read(project, "pyproject.toml") == '[project]\nname = "samovar"\ndescription = "Tristore"\n'
    assert read(project, "docker-compose.yml") == "name: samovar\nservices: {}\n"


def test_machinery_hashes_and_what_is_no_text_stay(project: Path) -> None:
    rename(project, "samovar")
    assert read(project, "tristore/pot.py") == FILES["tristore/pot.py"]
    assert read(project, "tests/tristore/test_pot.py") == FILES["tests/tristore/test_pot.py"]
    assert read(project, "requirements/base.lock") == "a==1 --hash=sha256:teapot\n    # via samovar (pyproject.toml)\n"
    assert (project / "picture.png").read_bytes() == b"\xff teapot"


def test_imports_are_put_in_order(project: Path) -> None:
    rename(project, "zither")
    assert "from umbrella import Rain\nfrom zither_client import Day" in read(project, "docs/day.py")


def test_once_more_is_nothing_new_and_another_name_can_follow(project: Path) -> None:
    rename(project, "Samovar")
    assert rename(project, "samovar") == "The product is Samovar already."  # although nothing is committed yet
    first = commit(project)
    rename(project, "zither")
    commit(project)
    assert git(project, "grep", "-il", "samovar", "--", ".", ":!tests/tristore").split() == ["docs/zither.md"]
    rename(project, "samovar")
    commit(project)
    assert git(project, "diff", first) == ""


def test_changes_that_are_not_committed_are_refused(project: Path) -> None:
    (project / "main.py").write_text("")
    with pytest.raises(Refused, match="Commit or stash"):
        rename(project, "samovar")
    assert Name.of(project).word == "teapot"


@pytest.mark.parametrize("name", ["", "ab", "9lives", "two words", "a-b", "a_b", "téapot", "x" * 21, "--help"])
def test_what_is_no_name_is_refused(project: Path, name: str) -> None:
    with pytest.raises(Refused, match="3 to 20 letters and digits, a letter first, not"):
        rename(project, name)
    assert git(project, "status", "--porcelain") == ""


@pytest.mark.parametrize(
    ("name", "place"),
    [("welcome", "main.py:2"), ("Rella", "docs/day.py:4"), ("docs", "docs/day.py:0"), ("pot", "pot.py")],
)
def test_a_name_that_is_part_of_other_words_is_refused(project: Path, name: str, place: str) -> None:
    if name == "pot":  # elsewhere it is part of the old name alone, and goes with it
        (project / "tristore/pot.py").write_text("kettle_pot = 1\n")
        commit(project)
    with pytest.raises(Refused, match=place):
        rename(project, name)
    assert git(project, "status", "--porcelain") == ""


def test_data_of_the_old_name_is_refused_and_kept(project: Path) -> None:
    (project / ".data/postgresql/data").mkdir(parents=True)
    with pytest.raises(Refused, match=r"\.data has databases of TeaPot.*stores stop.*delete the folder, or move it"):
        rename(project, "samovar")
    assert (project / ".data/postgresql/data").exists()
    assert git(project, "status", "--porcelain") == ""


def test_own_settings_stay_and_are_told(project: Path) -> None:
    (project / ".env").write_text("MONGODB_DATABASE=teapot\n")
    assert ".env still names TeaPot" in rename(project, "samovar")
    assert read(project, ".env") == "MONGODB_DATABASE=teapot\n"


def test_a_project_without_a_name_is_refused(project: Path) -> None:
    (project / "config.py").write_text('NAME = "Tea Pot"\n')
    commit(project)
    with pytest.raises(Refused, match=r"config\.py must have the name"):
        rename(project, "samovar")
