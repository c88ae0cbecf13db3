"""The pages and the README do what they say: their Python is run as it stands, page by page, in an empty folder."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = (
    "README.md",
    "docs/python.md",
    "docs/own-energy.md",
    "docs/own-potential.md",
    "docs/tutorials/arviz.md",
    "docs/how-to/temperatures.md",
    "docs/how-to/fields.md",
    "docs/how-to/dimensions.md",
    "docs/how-to/annealing.md",
    "docs/how-to/large-lattices.md",
    "docs/how-to/fine-tune.md",
    "docs/how-to/sweeps.md",
)


@pytest.mark.slow  # a step of .ci/run
@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.S | re.M)
    assert blocks
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks:
        exec(compile(block, page, "exec"), names)
