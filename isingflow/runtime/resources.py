"""Memory and time before they are taken: one line at the start instead of a process that is killed on the way."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from isingflow.errors import InvalidInput

UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")
PERIODS = (("years", 31557600.0), ("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))


def require_memory(name: str, size: float, advice: str) -> None:
    """Check that there is as much memory.

    Args:
        name: what needs it.
        size: bytes, as many as are held at once.
        advice: what would need less.

    Raises:
        InvalidInput: there is not.

    Example:
        >>> require_memory("a table of all", 2.0**60, "look at less of it")
        Traceback (most recent call last):
        isingflow.errors.InvalidInput: a table of all needs 1024 PiB of memory, ... are free: look at less of it
    """
    free = free_memory()
    if free is not None and size > free:
        raise InvalidInput(f"{name} needs {memory(size)} of memory, {memory(free)} are free: {advice}")


def require_address_space(name: str, size: float) -> None:
    """Check that a limit of the address space (`ulimit -v`) leaves enough to load compiled code, and threads, with.

    Libraries that find too little hang, abort, or fail in words of their own.

    Args:
        name: what is to be loaded.
        size: bytes that it needs.

    Raises:
        InvalidInput: the limit leaves less.

    Example:
        >>> require_address_space("nothing at all", 0)
    """
    left = _limit()
    if left is not None and size > left:
        raise InvalidInput(
            f"{name} needs {memory(size)} of address space, {memory(left)} are left: raise its limit (ulimit -v)"
        )


def free_memory() -> int | None:
    """Bytes that this process may still take: of the machine, its container and its own limit; None if not known."""
    known = [_machine(), _container(), _limit()]
    return min((size for size in known if size is not None), default=None)


def memory(size: float) -> str:
    """A number of bytes in words.

    Example:
        >>> memory(3 * 2**30), memory(1000)
        ('3 GiB', '1000 bytes')
    """
    unit = 0
    while size >= 1024 and unit < len(UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.0f} {UNITS[unit]}" if unit == 0 or size >= 100 else f"{size:.3g} {UNITS[unit]}"


def duration(seconds: float) -> str:
    """A time in words.

    Example:
        >>> duration(5400), duration(12), duration(1e12)
        ('1.5 hours', '12 seconds', '31700 years')
    """
    name, length = next((period for period in PERIODS if seconds >= 1.5 * period[1]), PERIODS[-1])
    return f"{float(f'{seconds / length:.3g}'):.12g} {name}"


def _machine() -> int | None:
    with contextlib.suppress(OSError, ValueError, StopIteration):
        return 1024 * _entry("/proc/meminfo", "MemAvailable:")
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _container() -> int | None:
    """What a control group leaves; pages of files that it caches are given back when needed."""
    group = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError, StopIteration):
        used = int((group / "memory.current").read_text()) - _entry(group / "memory.stat", "file")
        return max(int((group / "memory.max").read_text()) - used, 0)
    return None


def _limit() -> int | None:
    """What a limit of the address space (`ulimit -v`) leaves."""
    with contextlib.suppress(ImportError, OSError, ValueError, StopIteration):
        import resource  # not on Windows

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            return max(limit - 1024 * _entry("/proc/self/status", "VmSize:"), 0)
    return None


def _entry(path: Path | str, name: str) -> int:
    """A number in a file of names and numbers, one pair a line."""
    lines = (line.split() for line in Path(path).read_text().splitlines())
    return next(int(line[1]) for line in lines if line[:1] == [name])
