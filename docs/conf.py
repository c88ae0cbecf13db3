"""Sphinx settings: MyST pages, API reference from docstrings, the furo theme."""

import pkgutil
import re
from configparser import ConfigParser
from pathlib import Path

from sphinx.domains.python import PythonDomain

ROOT = Path(__file__).parents[1]

metadata = ConfigParser()
metadata.read(ROOT / "setup.cfg", encoding="utf-8")

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


MODULES = re.compile(r"^<!-- modules of (isingflow[\w.]+) -->$", re.M)


def modules_of(room: str) -> list[str]:
    """A room and the modules in it, the base of the others first; folders within it have pages of their own."""
    path = ROOT.joinpath(*room.split("."))
    found = (module.name for module in pkgutil.iter_modules([str(path)], f"{room}.") if not module.ispkg)
    return [room, *sorted(found, key=lambda name: (not name.endswith(".base"), name))]


def all_modules(app, docname: str, content: list[str]) -> None:
    """Puts every module of a room in the place of the line that asks for them, so that a page never lacks a new one."""

    def sections(match: re.Match[str]) -> str:
        room, *rest = modules_of(match[1])
        parts = [("", room), *((f"## {name.removeprefix(f'{room}.')}\n\n", name) for name in rest)]
        return "\n".join(f"{heading}```{{eval-rst}}\n.. automodule:: {name}\n```\n" for heading, name in parts)

    content[0] = MODULES.sub(sections, content[0])


class Python(PythonDomain):
    """Python's names, where a word that stands for several things links to none of them."""

    def find_obj(self, *args, **options):
        found = super().find_obj(*args, **options)
        return found if len(found) == 1 else []


def setup(app) -> None:
    """Runs the docstring hook ahead of napoleon's, which has priority 500."""
    app.connect("autodoc-process-docstring", plain_text_to_rst, priority=400)
    app.connect("source-read", all_modules)
    app.add_domain(Python, override=True)
