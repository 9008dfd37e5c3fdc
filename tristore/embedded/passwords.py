"""The passwords of an embedded server: random, made once, in a file that only whoever started it may read."""

import base64
import hashlib
import hmac
import json
import os
import secrets
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

APP_ROLE = "tristore_app"
"""The role that the app has in the stores. It can do nothing but use and make databases."""


@dataclass(frozen=True)
class Passwords:
    administrator: str = field(repr=False)
    app: str = field(repr=False)

    @property
    def mark(self) -> str:
        """Tells whether a server has these passwords. It tells nothing of them."""
        return hashlib.sha256(f"{self.administrator} {self.app}".encode()).hexdigest()


def scram_verifier(password: str) -> str:
    """What PostgreSQL keeps of a password (RFC 5803). One iteration is enough for 192 random bits. Its usual 4,096 cost
    each new connection some 15 ms of the event loop, because the driver does them in Python."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 1)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    encoded = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return "SCRAM-SHA-256$1:{}${}:{}".format(*encoded)


def passwords_of(data: Path) -> Passwords:
    """Those of the server with this data folder, in `passwords.json` beside it. They are made if there are none.
    Raises OSError, and ValueError or TypeError for a file that holds something else."""
    path = data.with_name("passwords.json")
    if not path.exists():
        # Linked when it is whole, and never over another one: whoever comes second reads the first one's.
        file, fresh = tempfile.mkstemp(prefix=".passwords-", dir=path.parent)  # 0600
        with os.fdopen(file, "w") as written:
            json.dump(asdict(Passwords(secrets.token_hex(24), secrets.token_hex(24))), written)
        with suppress(FileExistsError):
            os.link(fresh, path)
        Path(fresh).unlink()
    return Passwords(**json.loads(path.read_text()))
