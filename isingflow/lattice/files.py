"""Graphs in files: node-link JSON, GML, GraphML and edge lists."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from xml.etree.ElementTree import ParseError

import networkx

from isingflow.errors import InvalidInput
from isingflow.lattice.graph import Lattice
from isingflow.lattice.kinds import from_graph

logger = logging.getLogger(__name__)


def _read_node_link(path: Path) -> networkx.Graph:
    data = json.loads(path.read_text(encoding="utf-8"))
    return networkx.node_link_graph(data, edges="edges" if "edges" in data else "links")


def _read_gml(path: Path) -> networkx.Graph:
    return networkx.read_gml(path, label="id")


READERS: dict[str, Callable[[Path], networkx.Graph]] = {
    ".graphml": networkx.read_graphml,
    ".gml": _read_gml,
    ".json": _read_node_link,
    ".edgelist": networkx.read_edgelist,
}
"""What reads a graph, by the file's suffix."""

UNREADABLE = (
    networkx.NetworkXException,
    ParseError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
)
"""What these raise for files of another kind."""


def read_graph(path: Path) -> Lattice:
    """The lattice of a graph in a file.

    Raises:
        InvalidInput: the file's name, the file or the graph is not as it must be.
    """
    if path.suffix not in READERS:
        raise InvalidInput(f"{path}: expected a file that ends in one of {', '.join(READERS)}")
    try:
        graph = READERS[path.suffix](path)
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read: {error.strerror or error}") from None
    except UNREADABLE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InvalidInput(f"{path}: not a graph in {path.suffix[1:]} format: {reason}") from None
    couplings = networkx.get_edge_attributes(graph, "coupling")
    if not couplings and graph.number_of_edges() > 0:
        logger.warning("%s: no edge has a coupling; all bonds have strength 1", path)
    try:
        return from_graph(graph)
    except (InvalidInput, OverflowError) as error:
        raise InvalidInput(f"{path}: {error}") from None
