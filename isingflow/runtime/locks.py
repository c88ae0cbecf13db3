"""One process at a time writes a folder or a file: the others are told, and nothing is interleaved.

The lock is the kernel's, on a hidden empty file. A process that dies, or a machine that stops, gives it back: what is
left of its file means nothing, and the next lock takes it over. On file systems without such locks the file itself is
the lock, with the process behind it.
"""

from __future__ import annotations

import errno
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from isingflow.errors import IsingflowError
from isingflow.runtime import stopping
from isingflow.runtime.files import reason

CANNOT_BE_WRITTEN = {errno.EACCES, errno.EPERM, errno.EROFS}
"""Where no file can be made, nothing can be written that would have to be locked."""
POLL_SECONDS = 0.1


@contextmanager
def locked(path: Path, busy: IsingflowError, *, wait: bool = False) -> Iterator[None]:
    """Hold a lock within this context.

    Args:
        path: of the hidden file, which is there while the lock is held.
        busy: raised where another process, or another part of this one, holds it; one of its type, where the file
            cannot be made because the disk is full.
        wait: for the other to end, rather than be refused.

    Example:
        >>> import tempfile
        >>> from isingflow.errors import FileError
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / ".lock"
        ...     with locked(path, FileError("in use")):
        ...         try:
        ...             with locked(path, FileError("in use")):
        ...                 pass
        ...         except FileError as error:
        ...             print(error, path.exists())
        ...     path.exists()
        in use True
        False
    """
    lock = FileLock(path, timeout=0)
    try:
        while not _taken(lock):
            if not wait:
                raise busy
            stopping.check()
            time.sleep(POLL_SECONDS)
    except OSError as error:
        raise type(busy)(f"cannot write {path}: {reason(error)}") from error
    try:
        yield
    finally:
        if lock.is_locked:
            with suppress(OSError):  # Windows: the file cannot go while it is open
                path.unlink(missing_ok=True)
            lock.release()


def _taken(lock: FileLock) -> bool:
    """Whether the lock could be taken, or need not be."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the file system knows no locks: the file will do
            lock.acquire()
    except Timeout:
        return False
    except OSError as error:
        if error.errno not in CANNOT_BE_WRITTEN:
            raise
    return True
