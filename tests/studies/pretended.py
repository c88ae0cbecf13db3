"""A program in place of `isingflow`: says what it was asked, in a journal, and behaves as its --size tells.

    python pretended.py exact --size 4 --beta 0.3 --json

The journal (PRETENDED_JOURNAL) has a line "begin WORDS" and a line "end WORDS" for every run. Where the folder of the
journal holds a file named by the size, `fails-6`, runs of that size fail; PRETENDED_SECONDS is how long each takes.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

JOURNAL = Path(os.environ.get("PRETENDED_JOURNAL", ""))


def note(word):
    with open(JOURNAL, "a") as file:  # one short write: lines of several processes do not mix
        file.write(f"{word} {' '.join(sys.argv[1:])}\n")


def stop(number, frame):
    note("stopped")
    sys.exit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    note("begin")
    time.sleep(float(os.environ.get("PRETENDED_SECONDS", "0")))
    size = sys.argv[sys.argv.index("--size") + 1]
    if (JOURNAL.parent / f"fails-{size}").exists():
        print("isingflow: error: out of luck", file=sys.stderr)
        sys.exit(2)
    print(json.dumps({"sites": int(size) ** 2, "log_z": 1.5, "threads": os.environ["OMP_NUM_THREADS"]}), flush=True)
    note("end")
