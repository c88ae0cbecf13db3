"""The house stands as docs/architecture.md says: rooms import one way, and nothing lies about between them."""

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "isingflow"
MODULES = sorted(PACKAGE.rglob("*.py"))
LONGEST = 400
"""Lines that a file may have."""
CONFIGURATIONS = {
    "ConvexFlowConfig",
    "ConvexImageFlowConfig",
    "DensityConfig",
    "FlowConfig",
    "OTFlowConfig",
    "RunConfig",
    "TargetConfig",
}


def name_of(path: Path) -> str:
    """Of a file, as in messages: runs/config.py."""
    return path.relative_to(PACKAGE).as_posix()


def room_of(path: Path) -> str:
    """The folder of a module, or a module at the root; "" for the root itself, which hands on all of them."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All that may be executed, within functions too: not what stands under `if TYPE_CHECKING`."""
    yield tree
    for part in ast.iter_child_nodes(tree):
        if isinstance(tree, ast.If) and ast.unparse(tree.test).endswith("TYPE_CHECKING") and part in tree.body:
            continue
        yield from runtime_nodes(part)


def imported(node: ast.AST) -> Iterator[str]:
    """The rooms that a statement imports."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        names = [f"{node.module}.{alias.name}" for alias in node.names]
    else:
        return
    for name in names:
        top, _, rest = name.partition(".")
        if top == "isingflow":
            yield rest.partition(".")[0]


def imports() -> dict[str, dict[str, list[str]]]:
    """By room and by imported room, the lines that import it."""
    found: dict[str, dict[str, list[str]]] = {}
    for path in MODULES:
        rooms = found.setdefault(room_of(path), {})
        for node in runtime_nodes(ast.parse(path.read_text(encoding="utf-8"))):
            for room in imported(node):
                if room != room_of(path):
                    rooms.setdefault(room, []).append(f"{name_of(path)}:{node.lineno}")
    return found


def table() -> list[str]:
    """The rooms in the order of the table in docs/architecture.md."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    return re.findall(r"^\| `(\w+)/?` \|", text.partition("## The rooms")[2].partition("\n## ")[0], re.M)


def test_rooms_import_each_other_in_no_circle():
    try:
        tuple(TopologicalSorter(imports()).static_order())
    except CycleError as error:
        found, (last, *others) = imports(), error.args[1]
        lines = []
        for room in others:
            lines += found[room].get(last, [])
            last = room
        pytest.fail(f"a circle of rooms: {' -> '.join(error.args[1])}; its imports: {lines}")


def test_the_table_of_rooms_is_whole_and_in_order():
    """A room imports only those above it; testing comes last, and nothing imports it."""
    order = table()
    assert sorted(order) == sorted({room_of(path) for path in MODULES} - {""})
    wrong = {
        f"{room} -> {other}": lines
        for room, rooms in imports().items()
        for other, lines in rooms.items()
        if room and other and order.index(other) > order.index(room)
    }
    assert not wrong


def test_modules_live_in_rooms():
    assert {path.name for path in PACKAGE.iterdir() if path.is_file()} == {"__init__.py", "errors.py", "py.typed"}


def test_files_are_short_enough_to_read():
    lines = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert not {name: count for name, count in lines.items() if count > LONGEST}


def test_only_runs_and_architectures_ask_what_kind_a_configuration_is():
    """Everything else asks the configuration, or looks a function up by its kind."""
    asked = [
        f"{name_of(path)}:{node.lineno}"
        for path in MODULES
        if room_of(path) not in {"runs", "architectures"}
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance" and len(node.args) == 2
        for part in ast.walk(node.args[1])
        if (isinstance(part, ast.Name) and part.id in CONFIGURATIONS)
        or (isinstance(part, ast.Attribute) and part.attr in CONFIGURATIONS)
    ]
    assert not asked
