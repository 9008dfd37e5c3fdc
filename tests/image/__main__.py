"""`make image-test`: builds the image, and runs it as pods do, under a real Docker daemon.

Where no daemon answers, nothing is run: it says so, and ends with 2."""

import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import httpx

PROJECT = Path(__file__).parents[2]
IMAGE = os.environ.get("IMAGE") or "tristore:image-test"
NAME = f"tristore-image-test-{secrets.token_hex(4)}"
PASSWORD = secrets.token_hex(16)
NETWORK = f"{NAME}_default"
STRICT = [
    *("--network", NETWORK, "--read-only", "--tmpfs", "/tmp", "--user", "54321:54321"),
    *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
]
SETTINGS = {
    "POSTGRES_DSN": f"postgresql://chatlingo:{PASSWORD}@postgres:5432/chatlingo",
    "REDIS_DSN": f"redis://:{PASSWORD}@redis:6379/0",
    "MONGODB_DSN": f"mongodb://chatlingo:{PASSWORD}@mongodb:27017/?replicaSet=rs0&directConnection=true",
    **{f"{store}_TRUSTED_NETWORK": "true" for store in ("POSTGRES", "REDIS", "MONGODB")},
}
WITHOUT_PORTS = "services:\n" + "".join(f"  {one}:\n    ports: !reset []\n" for one in ("postgres", "redis", "mongodb"))
CALLERS = 16


def main() -> int:
    if docker("info", timeout=30).returncode:
        print("NOT RUN: make image-test needs a Docker daemon, and none answers here.")
        return 2
    build()
    with stores():
        refuses_wrong_settings()
        migrates()
        serves_and_ends_under_load()
    print("The image passed.")
    return 0


def build() -> None:
    version = "image-test"
    done("build", docker("build", "--build-arg", f"VERSION={version}", "-t", IMAGE, "."))
    [image] = json.loads(docker("image", "inspect", IMAGE).stdout)
    expect("its user is no root", image["Config"]["User"] == "10001")
    labels = image["Config"]["Labels"]
    expect("it has labels", labels["org.opencontainers.image.version"] == version)
    print(f"size: {image['Size'] / 1e6:.0f} MB")


@contextmanager
def stores() -> Iterator[None]:
    with tempfile.TemporaryDirectory() as folder:
        override = Path(folder, "override.yml")
        override.write_text(WITHOUT_PORTS)
        compose = ["compose", "-p", NAME, "-f", str(PROJECT / "docker-compose.yml"), "-f", str(override)]
        passwords = {f"{store}_PASSWORD": PASSWORD for store in ("POSTGRES", "REDIS", "MONGODB")}
        try:
            done("stores", docker(*compose, "up", "-d", "--wait", "postgres", "redis", "mongodb", env=passwords))
            yield
        finally:
            docker(*compose, "down", "-v", env=passwords)


def refuses_wrong_settings() -> None:
    began = time.monotonic()
    ended = run({"PORT": "x", "WEB_CONCURRENCY": "4"}, "--rm")
    lines = [json.loads(line)["mistake"].split()[0].strip(":") for line in (ended.stdout + ended.stderr).splitlines()]
    told = ["PORT", "POSTGRES_DSN", "REDIS_DSN", "MONGODB_DSN"]
    expect("four mistakes are four lines", (ended.returncode, lines) == (1, told))
    print(f"they took {time.monotonic() - began:.1f} s, the container's start included")


def migrates() -> None:
    done("migration", run(SETTINGS, "--rm", command=("python", "manage.py", "migrate")))


def serves_and_ends_under_load() -> None:
    container = f"{NAME}-app"
    try:
        more = {"WEB_CONCURRENCY": "4", "DRAIN_SECONDS": "2"}
        done("start", run(SETTINGS | more, "-d", "--name", container, "-p", "127.0.0.1::8000"))
        base = f"http://{docker('port', container, '8000').stdout.split()[0]}"
        until("ready", lambda: answers(base, "/health/ready"))
        until("healthy", lambda: '"healthy"' in inspected(container, "{{json .State.Health.Status}}"))
        ends_under_load(container, base)
        for line in (docker("logs", container).stderr + docker("logs", container).stdout).splitlines():
            json.loads(line)
        print("ok: each line of the log is JSON")
    finally:
        docker("rm", "-f", "-v", container)


def ends_under_load(container: str, base: str) -> None:
    statuses: list[int] = []
    failed_before: list[str] = []
    stopping = threading.Event()
    ended = threading.Event()

    def call() -> None:
        with httpx.Client(base_url=base, timeout=10) as client:
            while not ended.is_set():
                try:
                    statuses.append(client.get("/courses").status_code)
                except httpx.TransportError as error:
                    if not stopping.is_set():
                        failed_before.append(repr(error))

    callers = [threading.Thread(target=call) for _ in range(CALLERS)]
    for caller in callers:
        caller.start()
    until("under load", lambda: len(statuses) > 100 * CALLERS)
    stopping.set()
    began = time.monotonic()
    docker("stop", "-t", "30", container)
    took = time.monotonic() - began
    ended.set()
    for caller in callers:
        caller.join(30)
    expect("it ends by itself", inspected(container, "{{.State.ExitCode}}").strip() == "0")
    expect("no request failed before, and none got a 5xx", not failed_before and max(statuses) < 500)
    print(f"{len(statuses)} answers; it ended {took:.1f} s after SIGTERM")


def run(settings: Mapping[str, str], *options: str, command: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    variables = [word for name, value in settings.items() for word in ("-e", f"{name}={value}")]
    return docker("run", *options, *STRICT, *variables, IMAGE, *command)


def docker(
    *words: str, timeout: float = 900, env: Mapping[str, str] = MappingProxyType({})
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", *words],
        cwd=PROJECT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )


def inspected(container: str, what: str) -> str:
    return docker("inspect", "-f", what, container).stdout


def answers(base: str, path: str) -> bool:
    try:
        return httpx.get(base + path, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def until(what: str, condition: Callable[[], bool], seconds: float = 120) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        expect(f"{what} within {seconds:g} s", time.monotonic() < ends, quiet=True)
        time.sleep(0.2)
    print(f"ok: {what}")


def done(what: str, process: subprocess.CompletedProcess[str]) -> None:
    expect(what, process.returncode == 0, process.stdout[-2000:] + process.stderr[-4000:])


def expect(what: str, is_so: bool, told: str = "", *, quiet: bool = False) -> None:
    if not is_so:
        sys.exit(f"NOT OK: {what}\n{told}")
    if not quiet:
        print(f"ok: {what}")


if __name__ == "__main__":
    sys.exit(main())
