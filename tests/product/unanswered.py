"""Keeps the errors that nobody expected. The client sees only a response with status 500."""

import logging
import sys


class Unanswered(logging.Handler):
    """The error of each such response, in its own words."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        event = record.msg.get("event") if isinstance(record.msg, dict) else ""
        if event == "request_failed" and (error := sys.exc_info()[1]):
            self.errors.append(f"{type(error).__name__}: {error}")
