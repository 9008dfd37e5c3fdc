"""What `.dockerignore` lets into the image is all that the service needs there."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from uvicorn.importer import import_from_string

from tristore.http.protocol import HttpProtocol
from tristore.ops.serve import PROTOCOL

PROJECT = Path(__file__).parents[3]
IMPORT_ALL = """
import importlib, pkgutil, sys
sys.path.insert(0, sys.argv[1])
import main, manage, commands.users, migrations, tristore
for module in pkgutil.walk_packages(tristore.__path__, "tristore."):
    importlib.import_module(module.name)
print(main.__file__, "tristore.embedded" in sys.modules)
"""


def test_the_image_has_the_protocol_that_serve_has() -> None:
    command = re.search(r"^CMD (\[.*?\])", (PROJECT / "Dockerfile").read_text(), re.DOTALL | re.MULTILINE)
    assert command
    words = json.loads(command[1].replace("\\\n", ""))
    assert words[words.index("--http") + 1] == PROTOCOL
    assert import_from_string(PROTOCOL) is HttpProtocol
    # Compose leaves the command to the image.
    app = (PROJECT / "docker-compose.yml").read_text().partition("\n  app:\n")[2].partition("\nvolumes:")[0]
    assert app
    assert "command" not in app


def test_no_container_may_gain_rights() -> None:
    head, _, services = (PROJECT / "docker-compose.yml").read_text().partition("\nservices:\n")
    services = services.partition("\nvolumes:")[0]
    assert "x-bounds: &bounds\n  cap_drop: [ALL]\n  security_opt: [no-new-privileges:true]\n" in head
    assert "x-store: &store\n  <<: *bounds\n" in head
    assert "x-app: &app\n  <<: *bounds\n" in head
    names = re.findall(r"^  (\w+):$", services, re.MULTILINE)
    bases = re.findall(r"^  (\w+):\n    <<: \*(?:store|app)$", services, re.MULTILINE)
    assert bases == names == ["postgres", "redis", "mongodb", "migrate", "app"]
    assert "cap_add" not in services


def test_the_service_and_its_commands_are_imported_from_what_the_image_holds(tmp_path: Path) -> None:
    rules = [line for line in (PROJECT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    for name in (rule.removeprefix("!") for rule in rules if rule.startswith("!")):
        target = tmp_path / name
        target.parent.mkdir(exist_ok=True)
        if (PROJECT / name).is_dir():
            shutil.copytree(PROJECT / name, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(PROJECT / name, target)
    left_out = [rule for rule in rules if "*" not in rule and not rule.startswith("!")]
    assert set(left_out) == {"tristore/embedded", "tristore/testing"}
    for name in left_out:
        shutil.rmtree(tmp_path / name)
    command = [sys.executable, "-I", "-c", IMPORT_ALL, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env={}, capture_output=True, text=True, check=False)
    assert done.stdout.split() == [str(tmp_path / "main.py"), "False"], done.stderr
