"""Locks: one holder at a time, over processes; what the dead leave behind is taken over; no litter."""

import errno
import os
import subprocess
import sys
import threading
import time

import pytest

from isingflow.errors import FileError, RunFolderError
from isingflow.runtime.locks import locked

HOLD = """
import sys
from pathlib import Path
from isingflow.errors import FileError
from isingflow.runtime.locks import locked
with locked(Path(sys.argv[1]), FileError("busy")):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / ".lock"


@pytest.fixture
def other(path):
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def take(path, **options):
    with locked(path, FileError("busy"), **options):
        return path.exists()


def without_locks(monkeypatch):
    import fcntl

    def missing(*given):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", missing)


@pytest.mark.parametrize("kernel", [True, False])
def test_one_holder_at_a_time(path, kernel, monkeypatch, recwarn):
    if not kernel:
        without_locks(monkeypatch)
    with locked(path, FileError("busy")):
        for attempt in range(2):
            with pytest.raises(FileError, match="busy"):
                take(path)
            assert path.exists(), attempt
    assert not path.exists() and take(path) and not path.exists()
    assert not recwarn


def test_another_process(path, other):
    with pytest.raises(FileError, match="busy"):
        take(path)
    other.stdin.close()
    other.wait()
    assert not path.exists() and take(path)


def test_what_the_dead_leave_is_taken_over(path, other):
    other.kill()
    other.wait()
    assert path.exists()
    assert take(path) and not path.exists()


@pytest.mark.parametrize("content", [b"", b"12345\n", b"\x00" * 5000])
def test_a_file_from_before_the_machine_stopped_is_taken_over(path, content):
    path.write_bytes(content)
    assert take(path) and not path.exists()


def test_waiting(path, monkeypatch):
    held, release = threading.Event(), threading.Event()

    def hold():
        with locked(path, FileError("busy")):
            held.set()
            release.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    monkeypatch.setattr(time, "sleep", lambda seconds: release.set())
    assert take(path, wait=True) and release.is_set()
    thread.join()


def test_a_full_disk_is_told(path, monkeypatch):
    def fail(*given, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(RunFolderError, match=r"cannot write .*\.lock: No space left"), locked(path, RunFolderError("")):
        pass


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_where_nothing_can_be_written_nothing_is_locked(path, number, monkeypatch):
    def fail(*given, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", fail)
    assert not take(path)
