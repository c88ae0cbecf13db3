"""Runs commands of isingflow that are killed, or find the disk full, at the n-th of their file operations.

A script: the jobs come as JSON on standard input, what became of them goes as JSON to standard output. All commands run
in children of one warm process. Operations are counted on paths within the folder of a job, so moments repeat exactly.
"""

import builtins
import errno
import io
import json
import os
import signal
import sys
import traceback
from pathlib import Path


class Hook:
    """Counts the file operations within a folder; at one of them it acts.

    Args:
        root: the folder.
        at: the number of the operation, from 1; 0 for never.
        act: "kill", which tears what is written; or "full", after which the disk stays full.
        log: gets a line for every operation.
    """

    def __init__(self, root, at, act, log):
        self.root, self.at, self.act, self.log = str(root), at, act, log
        self.count, self.full = 0, False

    def install(self):
        for name in ("replace", "rename", "link", "mkdir", "rmdir", "unlink", "fsync", "open"):
            setattr(os, name, self.counting(name, getattr(os, name)))
        builtins.open = io.open = self.opening(io.open)

    def counting(self, name, call):
        def counted(*given, **options):
            if name == "open" and not (len(given) > 1 and given[1] & (os.O_CREAT | os.O_WRONLY)):
                return call(*given, **options)
            if name == "fsync" or str(given[0]).startswith(self.root):
                self.step(name, given[0], allocates=name in {"mkdir", "fsync", "link", "open"})
            return call(*given, **options)

        return counted

    def opening(self, call):
        def opened(file, mode="r", *given, **options):
            ours = isinstance(file, str | os.PathLike) and str(file).startswith(self.root) and set(mode) & set("wax+")
            if not ours:
                return call(file, mode, *given, **options)
            self.step("open", file, allocates=True)
            stream = call(file, mode, *given, **options)
            write = stream.write

            def torn(content):
                def half():
                    write(content[: len(content) // 2])
                    stream.flush()

                self.step("write", file, allocates=True, before=half)
                return write(content)

            return Stream(stream, torn)

        return opened

    def step(self, name, path, *, allocates, before=lambda: None):
        self.count += 1
        print(self.count, name, os.path.relpath(path, self.root) if isinstance(path, str | Path) else "", file=self.log)
        self.log.flush()
        if self.count == self.at and self.act == "kill":
            before()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.act == "full" and 0 < self.at <= self.count and allocates:
            before()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Stream:
    """A file whose `write` is another; the rest is its own."""

    def __init__(self, stream, write):
        self._stream, self.write = stream, write

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._stream.close()


def command(words, root, *, at=0, act="kill", every_iteration=False):
    """What becomes of a command in a child: its code, -9 if it was killed; its streams; its operations."""
    files = [root.with_name(f"{root.name}.{name}") for name in ("out", "err", "log")]
    child = os.fork()
    if child == 0:
        code = 70
        try:
            sys.stdout, sys.stderr, operations = (path.open("w") for path in files)
            from isingflow.cli import main
            from isingflow.training import trainer

            if every_iteration:
                trainer.CHECKPOINT_SECONDS = -1.0
            Hook(root, at, act, operations).install()
            main(words)
        except SystemExit as error:
            code = error.code
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    out, err, log = (path.read_text() if path.exists() else "" for path in files)
    return {"code": status, "out": out, "err": err, "operations": log.splitlines()}


def warm(words):
    """Run a command here, so that its children need not load and compile all that it takes; its threads end with it."""
    from isingflow.cli import main

    try:
        main(words)
    except SystemExit as error:
        assert not error.code, error


def small():
    """Evaluations on few samples, and figures of few pixels."""
    from dataclasses import replace

    import msgspec

    from isingflow.plots.style import STYLE
    from isingflow.runs.config import PRESETS

    STYLE["savefig.dpi"] = 20
    quick = PRESETS["quick"]
    PRESETS["quick"] = replace(quick, training=msgspec.structs.replace(quick.training, evaluation_samples=128))


if __name__ == "__main__":
    os.environ["MPLBACKEND"] = "Agg"
    import torch

    torch.set_num_threads(1)
    asked = json.load(sys.stdin)
    small()
    answers, sys.stdout = sys.stdout, sys.stderr
    warm(asked["warm"])
    found = []
    for job in asked["jobs"]:
        root = Path(job["root"])
        found.append([command(part.pop("words"), root, **part) for part in job["commands"]])
    json.dump(found, answers)
