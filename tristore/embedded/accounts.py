"""Whom a server runs as, and what nobody else may enter or read.

Root gives its servers away: to a system user of their own where that one can reach the programs and the data, else to
a user namespace, in which root is an ordinary user.
"""

import fcntl
import os
import pwd
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock

SYSTEM_USER = "tristore"

# Enters a user namespace in which root is an ordinary user, then becomes the server. It is a program of its own.
# Code between fork and exec (preexec_fn) may deadlock in a process with threads, and `start_all` has threads.
_NOT_ROOT = """
import ctypes, os, sys
if ctypes.CDLL(None, use_errno=True).unshare(0x10000000):
    sys.exit(os.strerror(ctypes.get_errno()))
for name, text in ("setgroups", "deny"), ("uid_map", "1000 0 1"), ("gid_map", "1000 0 1"):
    with open("/proc/self/" + name, "w") as file:
        file.write(text)
os.execv(sys.argv[1], sys.argv[1:])
"""
_making_user = Lock()


class CannotRun(Exception):
    """Says why a server cannot be run."""


@dataclass(frozen=True)
class Account:
    """How to run a server as somebody else than root: a prefix of its command, or another user."""

    prefix: tuple[str, ...] = ()
    user: pwd.struct_passwd | None = None

    @property
    def ids(self) -> tuple[int | None, int | None, list[int] | None]:
        return (self.user.pw_uid, self.user.pw_gid, []) if self.user else (None, None, None)

    @property
    def owner(self) -> tuple[int, int]:
        """Uid and gid of the files that it makes."""
        return (self.user.pw_uid, self.user.pw_gid) if self.user else (os.geteuid(), os.getegid())

    def take_over(self, folder: Path) -> None:
        """Make this account the owner of a folder, and nobody else able to enter it. An earlier start may have used
        another account."""
        if folder.stat().st_uid != self.owner[0]:
            for path in [folder, *folder.rglob("*")]:
                os.chown(path, *self.owner, follow_symlinks=False)
        folder.chmod(0o700)

    def reaches(self, program: Path, env: Mapping[str, str], folder: Path) -> bool:
        """Whether this account can run the program, and write to the folder."""
        test = ["/bin/sh", "-c", '"$0" --version && cd "$1" && test -w .', str(program), str(folder)]
        return run(test, account=self, env=env).returncode == 0


ONESELF = Account()


def choose_account(program: Path, env: Mapping[str, str], data: Path, *, refuses_root: bool) -> Account:
    """The account for a server, which then owns its data folder: our own if we are not root. The two folders above are
    opened for it. Raises CannotRun where a server that refuses root would have to run as root."""
    if os.geteuid() != 0:
        ONESELF.take_over(data)
        return ONESELF
    for account in _unprivileged(program, data):
        for folder in data.parent.parent, data.parent:
            make_private(folder, account)
        account.take_over(data)
        if account.reaches(program, env, data):
            return account
    ONESELF.take_over(data)
    if refuses_root:
        raise CannotRun(
            f"it refuses root, and neither the system user {SYSTEM_USER} nor root without its powers can reach "
            f"{program} and {data}: run as an ordinary user"
        )
    return ONESELF


def _unprivileged(program: Path, data: Path) -> Iterator[Account]:
    # Nobody's machine gets a user that could do nothing there.
    above = [*program.resolve().parents, *data.parent.parent.parents]
    if all(folder.stat().st_mode & stat.S_IXOTH for folder in above) and (user := _system_user()):
        yield Account(user=user)
    if _namespace():
        yield _namespace()


@cache
def _namespace() -> Account:
    """Our own account where there are no user namespaces."""
    inside = Account(prefix=(sys.executable, "-IS", "-c", _NOT_ROOT))
    return inside if run(["/bin/true"], account=inside).returncode == 0 else ONESELF


def _system_user() -> pwd.struct_passwd | None:
    """None where it cannot be made, or is somebody's."""
    with _making_user, suppress(KeyError, OSError):
        try:
            user = pwd.getpwnam(SYSTEM_USER)
        except KeyError:
            options = ("--system", "--user-group", "--no-create-home", "--shell", "/bin/false")
            run(["useradd", *options, SYSTEM_USER])
            user = pwd.getpwnam(SYSTEM_USER)
        # One that can sign in is a person.
        return user if user.pw_uid and user.pw_shell.endswith(("/false", "/nologin")) else None
    return None


def run(
    command: Sequence[str],
    *,
    account: Account = ONESELF,
    env: Mapping[str, str] | None = None,
    text: str = "",
    seconds: float = 60,
) -> "subprocess.CompletedProcess[str]":
    """Run a program to its end, for so many seconds at most. It reads the text. Raises OSError and SubprocessError."""
    uid, gid, groups = account.ids
    return subprocess.run(  # noqa: S603 - the programs are ours, and no argument is a user's
        [*account.prefix, *command], env=env, user=uid, group=gid, extra_groups=groups, timeout=seconds, input=text,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
    )  # fmt: skip


def make_private(folder: Path, account: Account = ONESELF) -> None:
    """Make a folder that nobody else may enter, or mend it. The account of a server may pass through to its data, and
    may not list or change the folder. Raises CannotRun for a folder that is another user's, or everybody's."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(folder) as file:
        found = os.fstat(file)
        if found.st_mode & stat.S_ISVTX:
            raise CannotRun(f"{folder} is a folder that all users share: set DATA_DIR to one of your own")
        if found.st_uid != os.geteuid():
            if os.geteuid() != 0:
                raise CannotRun(f"{folder} belongs to another user: run as that one, or set DATA_DIR")
            os.fchown(file, 0, -1)
        if account.user:
            os.fchown(file, -1, account.user.pw_gid)
            os.fchmod(file, 0o710)
        elif found.st_mode & 0o077 and not _opened_for_a_server(found):
            os.fchmod(file, 0o700)


def _opened_for_a_server(folder: os.stat_result) -> bool:
    with suppress(KeyError):
        return folder.st_mode & 0o077 == 0o010 and folder.st_gid == pwd.getpwnam(SYSTEM_USER).pw_gid
    return False


@contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """Three servers start at once: none may close what another has just opened."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
    finally:
        os.close(file)


def write_private(path: Path, text: str, account: Account = ONESELF) -> None:
    """Write a file that only the account may read. One that is there is replaced: nobody's link is followed."""
    file, fresh = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # 0600
    with os.fdopen(file, "w") as written:
        written.write(text)
        os.fchown(file, *account.owner)
    Path(fresh).replace(path)
