"""Graphs in files: GraphML, GML, node-link JSON, edge lists and adjacency lists, compressed or not.

Nothing that a file holds is executed or fetched, and every edge in it is a bond: parallel ones add up, whether the file
says that it holds such or not.
"""

from __future__ import annotations

import bz2
import gzip
import json
import logging
import re
import warnings
import zlib
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

import networkx
from networkx.readwrite.graphml import GraphMLReader

from isingflow.errors import InvalidInput
from isingflow.lattice.edge_lists import adjacency_list, edge_list, edge_table
from isingflow.lattice.graph import Lattice
from isingflow.lattice.networks import read_network
from isingflow.runtime.checks import shown
from isingflow.runtime.files import check_regular, reason

LARGEST = 2**28
"""Bytes of a file, after decompression."""
STRONGEST = 1e6
"""Largest coupling and largest field, as on the command line."""

logger = logging.getLogger(__name__)


def _read_graphml(content: bytes) -> networkx.Graph:
    _check_no_entities(content)
    reader = _GraphMLReader(force_multigraph=True)
    graphs = list(reader(string=content)) or list(reader(string=content.replace(b"<graphml>", _GRAPHML)))
    if len(graphs) != 1:
        raise InvalidInput(f"{len(graphs)} graphs in it: expected one")
    reader.check_complete(graphs[0])
    return graphs[0]


_GRAPHML = b'<graphml xmlns="http://graphml.graphdrawing.org/xmlns">'


class _GraphMLReader(GraphMLReader):
    """Reads every edge, where networkx takes two of the same id for one, and gives defaults, which it leaves out."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._edges = count()

    def add_edge(self, graph: networkx.Graph, edge: ElementTree.Element, keys: dict[str, Any]) -> None:
        edge.set("id", str(next(self._edges)))
        super().add_edge(graph, edge, keys)

    def find_graphml_keys(self, document: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        self._keys, self._defaults = super().find_graphml_keys(document)
        return self._keys, self._defaults

    def decode_data_elements(self, keys: dict[str, Any], element: ElementTree.Element) -> dict[str, Any]:
        own = (element.tag.rpartition("}")[2], "all", None)
        defaults = {keys[key]["name"]: value for key, value in self._defaults.items() if keys[key]["for"] in own}
        return defaults | super().decode_data_elements(keys, element)

    def check_complete(self, graph: networkx.Graph) -> None:
        """Refuse a graph that is less, or more, than what the document declares."""
        for what, found in (("node", graph.number_of_nodes()), ("edge", graph.number_of_edges())):
            declared = sum(1 for _ in self.xml.iter(f"{{{self.NS_GRAPHML}}}{what}"))
            if declared != found:
                raise InvalidInput(
                    f"{declared} {what}s are declared, {found} make up the graph: one is listed twice or not at all, "
                    "or stands in a nested graph"
                )


def _check_no_entities(content: bytes) -> None:
    """Refuse XML that defines entities: a few of them can stand for gigabytes, or for other files."""

    def refuse(name: str, *_: Any) -> None:
        raise InvalidInput(f"it defines the entity {shown(name)}: expected none")

    parser = expat.ParserCreate()
    parser.EntityDeclHandler = refuse
    parser.Parse(content, True)


def _read_gml(content: bytes) -> networkx.Graph:
    """Nodes are the file's labels where each has one of its own, else its ids."""
    text = re.sub(r"(?m)^(\s*graph\s*\[)", r"\1 multigraph 1 ", content.decode("ascii"), count=1)
    graph = networkx.parse_gml(text, label="id")
    labels = {node: label for node, label in graph.nodes(data="label") if label is not None}
    if len(set(map(str, labels.values()))) == len(graph):
        return networkx.relabel_nodes(graph, {node: str(label) for node, label in labels.items()})
    return graph


def _read_node_link(content: bytes) -> networkx.Graph:
    data = json.loads(content.decode("utf-8-sig"))
    if not isinstance(data, dict):
        raise TypeError("expected an object with nodes and edges")
    given = [name for name in ("edges", "links") if name in data]
    if len(given) == 2:
        raise InvalidInput("it has both edges and links: expected one of them")
    nodes, edges = data["nodes"], data[given[0] if given else "edges"]
    # Keys tell parallel edges apart, where they do not repeat; without any, every edge is one of its own.
    apart = [{name: value for name, value in edge.items() if name != "key"} for edge in edges]
    graph = networkx.node_link_graph({**data, "multigraph": True, "nodes": nodes, "edges": apart}, edges="edges")
    if len(graph) != len(nodes):
        raise InvalidInput(f"{len(nodes)} nodes are listed, {len(graph)} make up the graph: one twice or not at all")
    return graph


FORMATS: dict[str, Callable[[bytes], networkx.Graph]] = {
    ".graphml": _read_graphml,
    ".gml": _read_gml,
    ".json": _read_node_link,
    ".edgelist": lambda content: edge_list(content.decode("utf-8-sig")),
    ".csv": lambda content: edge_table(content.decode("utf-8-sig")),
    ".adjlist": lambda content: adjacency_list(content.decode("utf-8-sig")),
}
"""What reads a graph, by the file's suffix in lower case."""

COMPRESSIONS: dict[str, Callable[[Any], Any]] = {".gz": gzip.open, ".bz2": bz2.open}
"""What opens a compressed file, by the suffix behind that of the format."""

ACCEPTED = f"a file that ends in one of {', '.join(FORMATS)}, with {' or '.join(COMPRESSIONS)} behind it if compressed"

UNREADABLE = (
    networkx.NetworkXException,
    ElementTree.ParseError,
    expat.ExpatError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
"""What these raise for files of another kind."""


def format_of(path: Path) -> str | None:
    """The format that a file's name stands for, a key of `FORMATS`; None if none.

    Example:
        >>> format_of(Path("glass.GML.gz")), format_of(Path("glass.txt"))
        ('.gml', None)
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in FORMATS else None


def read_graph(path: Path) -> Lattice:
    """The lattice of a graph in a file.

    Raises:
        InvalidInput: the file's name, the file or the graph is not as it must be.
    """
    name = format_of(path)
    if name is None:
        raise InvalidInput(f"{path}: expected {ACCEPTED}")
    content = _content(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            lattice, notes = read_network(FORMATS[name](content), everywhere=True)
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from None
    except UNREADABLE as error:
        raise InvalidInput(f"{path}: not a graph in {name[1:]} format: {reason(error)}") from None
    for what, values in (("coupling", lattice.strengths), ("field", lattice.field_by_site)):
        strongest = float(abs(values).max())
        if strongest > STRONGEST:
            raise InvalidInput(f"{path}: a {what} of size {strongest:g}: up to {STRONGEST:g} are possible")
    for note in notes:
        logger.warning("%s: %s", path, note)
    return lattice


def _content(path: Path) -> bytes:
    """All bytes of a file, decompressed if its name says that it is compressed."""
    check_regular(path, InvalidInput)
    try:
        with COMPRESSIONS.get(path.suffix.lower(), lambda name: open(name, "rb"))(path) as file:
            content = file.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidInput(f"{path}: cannot be read: {reason(error)}") from None
    if len(content) > LARGEST:
        raise InvalidInput(f"{path}: more than {LARGEST >> 20} MB: no graph of that size can be read")
    return content
