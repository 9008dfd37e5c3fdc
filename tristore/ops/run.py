"""`manage.py run`: the API on stores that are running, as an image, compose and pods start it."""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from socket import socket
from types import FrameType, TracebackType
from typing import NoReturn

import structlog
import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from tristore.ops.embedded_stores import STOP_SIGNALS
from tristore.ops.process import configure_logging
from tristore.ops.serve import GRACE_SECONDS, server_options
from tristore.ops.service import Service
from tristore.settings import S, TristoreSettings, WrongSettings

STARTING_SECONDS = 60
"""So long a worker may take from its first instruction until it answers its parent. On a tenth of a core that is not
yet much: uvicorn's own 5 s are too few there, and a worker that is killed starts anew, for ever."""
CLOSING_SECONDS = 5
"""So long the stores may take to be closed."""

log = structlog.get_logger("tristore.run")


def run(service: Service[S]) -> NoReturn:
    """Check the settings, and become uvicorn. Ends with 0 after SIGTERM or SIGINT, with 1 where settings are wrong or a
    worker had to be killed, and with uvicorn's own 3 where the application cannot start."""
    for number in STOP_SIGNALS:
        signal.signal(number, _stop)
    settings = _checked(service)
    config = Config(service.module, settings)
    listening = config.bind_socket()
    if settings.web_concurrency == 1:
        uvicorn.Server(config).run([listening])  # when all is closed, it raises the signal that it got once more
        sys.exit(STARTUP_FAILURE)
    workers = Workers(config, [listening], settings.drain_seconds + GRACE_SECONDS + CLOSING_SECONDS)
    workers.run()
    sys.exit(workers.exit_code())


def _stop(number: int, frame: FrameType | None) -> None:
    """End at once: Python would wait for its threads, and one may wait for a name that does not resolve. As process 1,
    a process without a handler would not end at all."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)


def _checked(service: Service[S]) -> S:
    try:
        return service.read_settings(complete=True)
    except WrongSettings as wrong:
        if wrong.production:
            _log_mistakes(service, wrong.mistakes)
            sys.exit(1)
        raise


def _log_mistakes(service: Service[S], mistakes: Sequence[str]) -> None:
    configure_logging(service.settings.model_construct(environment="production"))
    for mistake in mistakes:
        log.error("setting_refused", mistake=mistake)


class Config(uvicorn.Config):
    """Each process of the server logs as the service does, from its first line on, and says why it cannot start."""

    def __init__(self, module: str, settings: TristoreSettings) -> None:
        self._settings = settings
        super().__init__(
            f"{module}:app",
            workers=settings.web_concurrency,
            timeout_worker_healthcheck=STARTING_SECONDS,
            **server_options(settings),
        )

    def configure_logging(self) -> None:
        """uvicorn calls it in the parent and in each worker."""
        configure_logging(self._settings)
        logging.captureWarnings(True)
        sys.excepthook = _log_uncaught
        threading.excepthook = lambda args: _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)
        sys.unraisablehook = lambda args: _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)

    def load(self) -> None:
        # A worker that ends with another code than this is started anew, for ever.
        try:
            super().load()
        except SystemExit as ended:
            if isinstance(ended.code, str):
                log.error("not_started", cause=ended.code)  # noqa: TRY400 - it says all
            sys.exit(STARTUP_FAILURE)
        except Exception:
            log.exception("not_started")
            sys.exit(STARTUP_FAILURE)


class Workers(Multiprocess):
    """uvicorn's parent of several workers, which waits for them without end. This one tells all at once to end, and
    kills those that have not ended in time: one that hangs, or that waits for a name."""

    def __init__(self, config: Config, sockets: list[socket], patience: float) -> None:
        """`patience`: seconds."""
        super().__init__(config, sockets)
        self._patience = patience
        self._killed = set[int | None]()
        self._ending: threading.Thread | None = None
        for number in STOP_SIGNALS:
            signal.signal(number, self._begin_to_stop)

    def keep_subprocess_alive(self) -> None:
        for worker in self.processes:
            # While this process holds the worker's end too, it waits STARTING_SECONDS for the answer of a dead one.
            worker.child_conn.close()
        super().keep_subprocess_alive()

    def terminate_all(self) -> None:
        self._set_a_limit()
        super().terminate_all()

    def exit_code(self) -> int:
        if any(worker.exitcode == STARTUP_FAILURE for worker in self.processes):
            return STARTUP_FAILURE
        return int(bool(self._killed))

    def _begin_to_stop(self, number: int, frame: FrameType | None) -> None:
        log.info("stopping", signal=signal.Signals(number).name)
        self._set_a_limit()

    def _set_a_limit(self) -> None:
        if self._ending is None:
            self._ending = threading.Thread(target=self._end, daemon=True)
            self._ending.start()

    def _end(self) -> None:
        # In a thread, because uvicorn may be waiting for a worker that hangs while the others have requests to finish.
        # And the handler of a signal may have interrupted whoever holds the lock of the event.
        self.should_exit.set()
        for worker in self.processes:
            worker.process.terminate()
        time.sleep(self._patience)
        while True:  # again and again: uvicorn may just have replaced a worker that it found dead
            for worker in self.processes:
                if worker.process.is_alive() and worker.pid not in self._killed:
                    log.error("worker_killed", worker=worker.pid, after_seconds=self._patience)
                    self._killed.add(worker.pid)
                    worker.process.kill()
            time.sleep(0.5)


def _log_uncaught(kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None) -> None:
    """What Python itself would write to standard error."""
    log.error("uncaught", exc_info=(kind, error or kind(), traceback))
