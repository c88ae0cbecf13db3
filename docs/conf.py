"""Sphinx settings: MyST pages, API reference from docstrings, the furo theme."""

import re
from configparser import ConfigParser
from pathlib import Path

metadata = ConfigParser()
metadata.read(Path(__file__).parent.parent / "setup.cfg", encoding="utf-8")

project = "isingflow"
author = "The isingflow developers"
copyright = author
release = version = metadata["metadata"]["version"]

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
default_role = "py:obj"
smartquotes = False  # shapes keep their three dots, options their two dashes

html_theme = "furo"
html_title = f"isingflow {release}"

myst_enable_extensions = ["amsmath", "dollarmath", "colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "off"

autodoc_default_options = {"members": True, "show-inheritance": True, "ignore-module-all": True}
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

SECTIONS = re.compile(r"^(Args|Attributes|Examples?|Notes?|Raises|References|Returns|See Also|Warning|Yields):$")
# RST reads |y| as a substitution, sum_ as a reference, (*shape) as emphasis; our docstrings are plain text.
MARKUP = re.compile(r"[|*]|(?<=\w)_(?!\w)")
LITERAL = re.compile(r"(``.*?``|`[^`]*`)")


def escape(line: str) -> str:
    """Escapes RST's markup in a line of plain text, except between backticks."""
    pieces = LITERAL.split(line)
    return "".join(piece if piece.startswith("`") else MARKUP.sub(r"\\\g<0>", piece) for piece in pieces)


def plain_text_to_rst(app, what, name, obj, options, lines: list[str]) -> None:
    """Makes RST of a docstring before napoleon sees it.

    Equations, indented and set off by a blank line, become literal blocks; doctests stay; all other text is escaped.
    """
    result: list[str] = []
    in_section = in_equation = in_doctest = False
    for line in lines:
        indented = line.startswith(" ")
        in_doctest = bool(line.strip()) and (in_doctest or line.lstrip().startswith(">>>"))
        if line and not indented:
            in_section, in_equation = bool(SECTIONS.match(line)), False
        elif indented and not (in_section or in_equation or in_doctest) and (not result or not result[-1]):
            in_equation = True
            result += ["::", ""]
        result.append(line if in_equation or in_doctest else escape(line))
    lines[:] = result


def setup(app) -> None:
    """Runs the docstring hook ahead of napoleon's, which has priority 500."""
    app.connect("autodoc-process-docstring", plain_text_to_rst, priority=400)
