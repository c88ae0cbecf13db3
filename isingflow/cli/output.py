"""What commands answer: a document or its text, notes, and one line for every request that cannot be met."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout, suppress
from typing import Any

import click

from isingflow.cli.signals import last_words
from isingflow.errors import IsingflowError, ProcessLost
from isingflow.runtime import launched
from isingflow.runtime.numbers import finite_or_none
from isingflow.runtime.stopping import Stopped, StopRequest

OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "failed to map segment",
    "error return without exception set",
)
"""What torch, the loader of libraries and the interpreter say when there is no more, in small letters."""


def print_result(document: dict[str, Any] | list[Any], as_json: bool, text: Callable[[], str]) -> None:
    """Print `document` as JSON, null where it is not finite, or else what `text` makes of it."""
    click.echo(as_json_text(document) if as_json else text())


def print_json(document: dict[str, Any] | list[Any], as_json: bool) -> None:
    """Print `document` as JSON if that is asked for: what people read is printed already."""
    if as_json:
        click.echo(as_json_text(document))


def as_json_text(document: dict[str, Any] | list[Any]) -> str:
    """A document with null where it is not finite."""
    return json.dumps(finite_or_none(document), indent=2, allow_nan=False)


def warn(message: str) -> None:
    """One line on standard error, also where notes are not wanted."""
    tell(f"isingflow: warning: {message}")


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
        tell(warning + self.format(record))


class Commands(click.Group):
    """A group of commands whose errors are one line on standard error and exit code 2.

    Signals are heard as long as a command runs. One that stops it is one line too, and exit code 128 plus its number.
    Of several processes that torchrun has started the first one speaks for all, as long as it lives.
    """

    def main(self, *args: Any, **options: Any) -> Any:
        process = not args and options.get("args") is None  # else somebody's Python calls, and lives on
        try:
            with _silence() if process and launched.follows() else nullcontext():
                code = self._code(process, *args, **options)
                if process and launched.several():  # of which threads may outlive the interpreter, which then aborts
                    leave(code if isinstance(code, int) else 0)
        except ProcessLost as lost:
            code = 2 if lost.told else _fail(str(lost))
            if process:  # at once: connections to the others are waited for at the interpreter's end
                leave(code)
        sys.exit(code if isinstance(code, int) else 0)

    def _code(self, process: bool, *args: Any, **options: Any) -> Any:
        """The exit code, or what a command has returned."""
        options |= {"standalone_mode": False, "prog_name": "isingflow"}
        if process and isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # the names of files may be any bytes
        try:
            with StopRequest().listening(process=process):
                return super().main(*args, **options)
        except Stopped as stopped:
            code = 128 + stopped.signal
            if process:  # not by way of the interpreter's end, which waits for threads that are still at work
                leave(code)
        except ProcessLost:
            raise
        except IsingflowError as error:
            code = _fail(str(error))
        except click.ClickException as error:
            code = _fail(error.format_message())
        except OSError as error:
            code = _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        except (KeyboardInterrupt, click.Abort):
            tell("isingflow: interrupted")
            code = 128 + signal.SIGINT
        except (MemoryError, RuntimeError, ImportError, SystemError) as error:
            if not _out_of_memory(error):
                raise
            code = _fail("out of memory: a smaller lattice, batch or preset may fit")
        return code

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Stopped as stopped:
            tell(last_words(stopped, ctx))
            raise


@contextmanager
def _silence() -> Iterator[None]:
    """Within this context nothing is printed; a traceback, which comes after it, is."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def tell(line: str) -> None:
    """One line on standard error, if anybody is there: the terminal may be gone."""
    with suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


def leave(code: int) -> None:
    """End this process now; all files are closed."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _fail(message: str) -> int:
    line = " ".join(message.split())
    printable = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    tell(f"isingflow: error: {printable}")
    return 2


def _out_of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in OUT_OF_MEMORY)
