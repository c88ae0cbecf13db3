"""Every figure, table and algorithm of the three papers, by one command each.

    python benchmarks/papers.py --list
    python benchmarks/papers.py monge-ampere-figure-4 --seeds 0 1 2
    python benchmarks/papers.py all --quick --output papers

An item writes NAME.json (command, machine, date and numbers) and its figures to the folder of `--output`. Without
`--quick` its numbers are those of docs/papers.md; with it, everything is shrunk until a minute suffices, to see that it
runs. Items are found in benchmarks/figures: a module there lists its own in ITEMS.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shlex
import sys
import time
from pathlib import Path

from figures.item import Item, Options
from machine import describe

FOLDER = Path("docs/benchmarks/papers")


def items() -> dict[str, Item]:
    """All items by name."""
    modules = sorted(path.stem for path in (Path(__file__).parent / "figures").glob("*.py"))
    found = [item for module in modules for item in getattr(importlib.import_module(f"figures.{module}"), "ITEMS", ())]
    return {item.name: item for item in found}


def table(known: dict[str, Item]) -> str:
    """What there is, what it needs and what it costs."""
    rows = [("item", "paper", "what", "needs", "minutes, one core")]
    rows += [(item.name, item.paper, item.what, item.needs, f"{item.minutes:g}") for item in known.values()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def make(item: Item, options: Options) -> Path:
    """Run an item and write its numbers.

    Returns:
        The file with the numbers.
    """
    options.output.mkdir(parents=True, exist_ok=True)
    started = time.process_time()
    numbers = item.make(options)
    words = ["FOLDER" if Path(word) == options.data else word for word in sys.argv[1:]]
    document = {
        "command": f"python benchmarks/papers.py {shlex.join(words)}",
        **describe(),
        "item": item.name,
        "seeds": list(options.seeds),
        "quick": options.quick,
        "processor_seconds": time.process_time() - started,
        **numbers,
    }
    file = options.output / f"{item.name}.json"
    file.write_text(json.dumps(document, indent=1) + "\n")
    return file


def main() -> None:
    known = items()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("item", nargs="?", choices=[*known, "all"], metavar="ITEM", help="see --list")
    parser.add_argument("--list", action="store_true", help="what there is, what it needs and what it costs")
    parser.add_argument("--quick", action="store_true", help="shrunk, to see that it runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one run each")
    parser.add_argument("--data", type=Path, help="folder of data files")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder for numbers and figures")
    arguments = parser.parse_args()

    if arguments.list or arguments.item is None:
        print(table(known))
        return
    options = Options(arguments.quick, tuple(arguments.seeds), arguments.output, arguments.data)
    for item in known.values() if arguments.item == "all" else [known[arguments.item]]:
        print(f"{item.name}: {make(item, options)}", flush=True)


if __name__ == "__main__":
    main()
