"""Figures and tables of the papers: every item has its place in the documentation, and runs."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
ITEMS = importlib.import_module("papers").items()
PAGES = "".join(page.read_text() for page in sorted((ROOT / "docs").glob("**/*.md")))


@pytest.mark.parametrize("name", ITEMS)
def test_every_item_is_on_a_page(name):
    assert re.search(rf"(?<![\w-]){name}(?![\w-])", PAGES)


@pytest.mark.slow
@pytest.mark.parametrize("name", ITEMS)
def test_every_item_runs(name, tmp_path):
    """Shrunk to about a minute; those that need files where they are found."""
    needs = ITEMS[name].needs
    if needs and not (needs == "MNIST" and os.environ.get("ISINGFLOW_DATA")):
        pytest.skip(f"needs {needs}")
    command = [sys.executable, "benchmarks/papers.py", name, "--quick", "--output", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=600)
    document = json.loads((tmp_path / f"{name}.json").read_text())
    assert document["item"] == name and document["quick"] is True
