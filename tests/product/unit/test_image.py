"""What `.dockerignore` lets into the image is all that the service needs there."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from anyio import to_thread
from uvicorn.importer import import_from_string

from config import Settings
from tests.under_test import Lab
from tristore.http.protocol import HttpProtocol
from tristore.ops.run import CLOSING_SECONDS
from tristore.ops.serve import GRACE_SECONDS, PROTOCOL
from tristore.testing.lab import free_port
from tristore.testing.stores import Servers

PROJECT = Path(__file__).parents[3]
DOCKERFILE = (PROJECT / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())
PINNED = r"(?:@sha256:[0-9a-f]{64})?"
"""By `make digests`."""
IMPORT_ALL = """
import importlib, pkgutil, sys
sys.path.insert(0, sys.argv[1])
import main, manage, commands.users, migrations, tristore
for module in pkgutil.walk_packages(tristore.__path__, "tristore."):
    importlib.import_module(module.name)
print(main.__file__, "tristore.embedded" in sys.modules)
"""


def test_the_image_starts_what_pods_and_compose_start() -> None:
    command = re.search(r"^CMD (\[.*?\])", (PROJECT / "Dockerfile").read_text(), re.MULTILINE)
    assert command
    assert json.loads(command[1]) == ["python", "manage.py", "run"]
    assert "command" not in COMPOSE["services"]["app"]  # it leaves the command to the image
    assert import_from_string(PROTOCOL) is HttpProtocol


def test_no_container_may_gain_rights() -> None:
    assert set(COMPOSE["services"]) == {"postgres", "redis", "mongodb", "migrate", "app"}
    for name, service in COMPOSE["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "cap_add" not in service or name in {"postgres", "redis", "mongodb"}
    assert COMPOSE["services"]["app"]["read_only"]


def test_each_container_has_a_version_bounds_and_time_to_end() -> None:
    for name, service in COMPOSE["services"].items():
        assert re.search(rf":\d+\.\d+\.?\d*(-\w+)?{PINNED}$|^tristore:", service["image"]), name
        assert service["mem_limit"], name
        assert service["restart"] == ("no" if name == "migrate" else "unless-stopped")
    bases = re.findall(rf"^FROM (\S+?){PINNED}(?: |$)", DOCKERFILE, re.MULTILINE)
    assert len(set(bases)) == 1
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+", bases[0])
    assert f"image.base.name={bases[0]} " in DOCKERFILE
    app = COMPOSE["services"]["app"]
    longest = Settings.model_fields["drain_seconds"].default + GRACE_SECONDS + CLOSING_SECONDS
    assert int(app["stop_grace_period"].removesuffix("s")) > longest


async def test_the_health_check_of_the_image_tells_who_answers(lab: Lab, tmp_path: Path) -> None:
    check = json.loads(re.findall(r"^HEALTHCHECK .* CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)[0])
    command = [sys.executable, *check[1:]]

    def code(port: int) -> int:
        env = {"PORT": str(port), "HTTP_PROXY": "http://127.0.0.1:9"}
        return subprocess.run(command, cwd=PROJECT, env=env, check=False, timeout=30).returncode

    async with lab.app() as app:
        assert await to_thread.run_sync(code, app.client.base_url.port or 0) == 0
    assert await to_thread.run_sync(code, free_port()) == 1
    assert await to_thread.run_sync(code, lab.servers["redis"].port) == 1  # it answers, and is another


def test_the_health_check_of_mongodb_knows_a_primary(servers: Servers, lab: Lab) -> None:
    *_, script = COMPOSE["services"]["mongodb"]["healthcheck"]["test"]
    cheap = script.partition("\nfi\n")[2].replace("$$", "$")

    def code(port: int) -> int:
        asked = ["bash", "-c", cheap.replace("27017", str(port))]
        return subprocess.run(asked, check=False, capture_output=True, timeout=30).returncode

    assert "mongosh" not in cheap
    assert code(servers["mongodb"].port) == 0
    assert code(servers["redis"].port) == 1
    assert code(free_port()) == 1


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
