"""Asks an app for `/health/live` all the time, from a process of its own, and tells at the end how long that took."""

import http.client
import json
import sys
import threading
import time

EVERY_SECONDS = 0.02


def probe(host: str, port: int, ended: threading.Event) -> list[float]:
    """Milliseconds of each request. The connection is kept: what a new one costs is another question."""
    connection = http.client.HTTPConnection(host, port, timeout=30)
    took = []
    while not ended.wait(EVERY_SECONDS):
        started = time.perf_counter()
        connection.request("GET", "/health/live")
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise SystemExit(f"/health/live answered {answer.status}")
        took.append((time.perf_counter() - started) * 1000)
    return took


def end_with_input(ended: threading.Event) -> None:
    sys.stdin.read()
    ended.set()


if __name__ == "__main__":
    ended = threading.Event()
    threading.Thread(target=end_with_input, args=[ended], daemon=True).start()
    json.dump(probe(sys.argv[1], int(sys.argv[2]), ended), sys.stdout)
