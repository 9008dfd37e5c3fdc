"""The container's health check. Nothing of the service is imported, or it would cost more than the service does.

python -IS tristore/ops/alive.py
"""

import os
import socket
import sys

TIMEOUT_SECONDS = 2
REQUEST = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def is_alive(port: int) -> bool:
    """Whether the service on this machine answers 200. Not by way of a proxy, whatever the environment says."""
    try:
        with socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS) as connection:
            connection.sendall(REQUEST)
            return connection.recv(64).split()[1:2] == [b"200"]
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(not is_alive(int(os.environ.get("PORT", "8000"))))
