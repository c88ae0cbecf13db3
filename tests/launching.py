"""Two processes, started as torchrun starts them, for tests of what processes do together."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import ranks

SCRIPT = Path(ranks.__file__)
WORLD = 2


def port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return str(free.getsockname()[1])


def started(command, **options):
    """Two processes, as torchrun starts them."""
    place = {"WORLD_SIZE": str(WORLD), "MASTER_ADDR": "localhost", "MASTER_PORT": port(), "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, *map(str, command)],
            env=os.environ | place | {"RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        for rank in range(WORLD)
    ]


def ended(processes, timeout=240.0):
    """Exit codes, standard outputs and standard errors."""
    try:
        texts = [process.communicate(timeout=timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], *zip(*texts, strict=True)


def wait_for(run, iterations, processes, seconds=120.0):
    """Until a run has so many lines of metrics."""
    metrics, until = run / "metrics.jsonl", time.monotonic() + seconds
    while not (metrics.exists() and metrics.read_text().count("\n") >= iterations):
        assert time.monotonic() < until and all(process.poll() is None for process in processes)
        time.sleep(0.05)
