"""What a command says when a signal has stopped it: one line, with the command that goes on where there is one."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Sequence

import click

from isingflow.runtime.stopping import Stopped, StopRequest

__all__ = ["StopRequest", "last_words", "to_continue"]

WORDS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "hung up"}
CONTINUE = "isingflow.continue"


def to_continue(context: click.Context, words: Sequence[str]) -> None:
    """From here on something is saved: the words of the command that goes on with it, should this one be stopped."""
    context.meta[CONTINUE] = shlex.join(words)


def last_words(stopped: Stopped, context: click.Context) -> str:
    """What has happened to the command of this context, and how to go on."""
    saved = context.meta.get(CONTINUE)
    if saved is not None:
        return f"isingflow: interrupted and saved; to continue: {saved}"
    return f"isingflow: {WORDS[signal.Signals(stopped.signal).name]}"
