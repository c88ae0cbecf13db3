"""How long the package takes to start: medians over fresh processes, with warm file and numba caches.

    python benchmarks/startup.py --repeats 9 --output docs/benchmarks/startup.json

With PYTHONPATH set to another checkout the same commands time that one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from machine import describe

COMMANDS = {
    "import isingflow": ["-c", "import isingflow"],
    "isingflow --help": ["-m", "isingflow.cli", "--help"],
    "isingflow exact --size 16": ["-m", "isingflow.cli", "exact", "--size", "16"],
}


def seconds(arguments: list[str]) -> float:
    """Of one process."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for arguments in COMMANDS.values():
        seconds(arguments)
    for _ in range(options.repeats):
        for name, arguments in COMMANDS.items():
            times[name].append(seconds(arguments))
    medians = {name: round(statistics.median(values), 3) for name, values in times.items()}
    document = {"machine": describe(), "repeats": options.repeats, "median_seconds": medians}
    print(json.dumps(document, indent=1))
    if options.output:
        options.output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
