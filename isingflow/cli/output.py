"""What commands answer: a document or its text, notes, and one line for every request that cannot be met."""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

from isingflow.errors import IsingflowError
from isingflow.runtime.numbers import finite_or_none

INTERRUPT_CODE = 128 + signal.SIGINT
TERMINATE_CODE = 128 + signal.SIGTERM


class Terminated(BaseException):
    """SIGTERM came: files that are half written are cleaned up on the way out."""


def print_result(document: dict[str, Any], as_json: bool, text: Callable[[], str]) -> None:
    """Print `document` as JSON, null where it is not finite, or else what `text` makes of it."""
    click.echo(json.dumps(finite_or_none(document), indent=2, allow_nan=False) if as_json else text())


def warn(message: str) -> None:
    """One line on standard error, also where notes are not wanted."""
    print(f"isingflow: warning: {message}", file=sys.stderr)


def show_notes(quiet: bool) -> None:
    """Show log messages on standard error; if `quiet`, only warnings."""
    logger = logging.getLogger("isingflow")
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    if not any(isinstance(handler, Notes) for handler in logger.handlers):
        logger.addHandler(Notes())


class Notes(logging.Handler):
    """Log messages as plain lines on what is standard error at the time; warnings say that they are."""

    def emit(self, record: logging.LogRecord) -> None:
        warning = "isingflow: warning: " if record.levelno >= logging.WARNING else ""
        print(warning + self.format(record), file=sys.stderr)


class Commands(click.Group):
    """A group of commands whose errors are one line on standard error and exit code 2."""

    def main(self, *args: Any, **options: Any) -> Any:
        options |= {"standalone_mode": False, "prog_name": "isingflow"}
        try:
            with _terminable():
                code = super().main(*args, **options)
        except IsingflowError as error:
            code = _fail(str(error))
        except click.ClickException as error:
            code = _fail(error.format_message())
        except OSError as error:
            code = _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        except (KeyboardInterrupt, click.Abort):
            print("isingflow: interrupted", file=sys.stderr)
            code = INTERRUPT_CODE
        except Terminated:
            print("isingflow: terminated", file=sys.stderr)
            code = TERMINATE_CODE
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            code = _fail("out of memory: a smaller lattice, batch or preset may fit")
        sys.exit(code if isinstance(code, int) else 0)


@contextmanager
def _terminable() -> Iterator[None]:
    """Within this context the first SIGTERM raises Terminated; only the main thread can listen."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated

    earlier = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)


def _fail(message: str) -> int:
    print(f"isingflow: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _out_of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text
