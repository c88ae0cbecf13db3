"""Lattices from networkx graphs: which attributes of nodes and edges count, and what the sites are called."""

from __future__ import annotations

import logging
import math
from collections import Counter
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from isingflow.errors import InvalidInput
from isingflow.lattice.checks import STRONGEST
from isingflow.lattice.graph import Lattice
from isingflow.lattice.kinds import from_bonds
from isingflow.runtime.checks import shown

if TYPE_CHECKING:
    import networkx

STRENGTHS = ("coupling", "weight")
"""Edge attributes that hold the strength of a bond; the first that an edge has counts."""
FIELD = "field"
"""Node attribute that holds the external field on a site."""
NOT_FIELDS = ("h",)
"""Node attributes that others take for a field."""
BOOKKEEPING = {"id", "key"}
"""Edge attributes that file formats add by themselves."""

logger = logging.getLogger(__name__)


def from_graph(graph: networkx.Graph) -> Lattice:
    """A lattice from any undirected networkx graph, its nodes numbered in graph order.

    The strength of an edge is its attribute `coupling`; where that is missing, `weight`; where both are missing, 1. A
    warning is logged where weights are read, or stand beside couplings, or some strengths are missing. Other attributes
    of edges are not read. Parallel edges add up. The graph need not be connected: parts without a bond between them are
    independent. The attribute `field` of nodes is the external field on their sites; all have it, or none.

    Args:
        graph: a `Graph` or `MultiGraph`; of a directed one, `networkx.MultiGraph(graph.edges(data=True))` adds up what
            goes both ways.

    Raises:
        InvalidInput: no edges, self-loops, directed edges, strengths or fields that are not finite numbers, fields on
            some of the nodes only, or an attribute `h` other than 0 beside them or in their place.

    Example:
        >>> import networkx
        >>> from_graph(networkx.petersen_graph())
        <Lattice: graph of 10 sites and 15 bonds>
        >>> from_graph(networkx.Graph([("a", "b", {"coupling": 0.5})])).labels
        ('a', 'b')
    """
    import networkx

    if not isinstance(graph, networkx.Graph):
        raise InvalidInput(f"expected a networkx graph, not {type(graph).__name__}")
    lattice, notes = read_network(graph)
    for note in notes:
        logger.warning("graph: %s", note)
    return lattice


def read_network(graph: networkx.Graph, *, everywhere: bool = False) -> tuple[Lattice, list[str]]:
    """The lattice of a graph as for `from_graph`, and what is to be said of it.

    Args:
        graph: any.
        everywhere: say that all bonds have strength 1 even where edges have no attributes.
    """
    if graph.is_directed():
        raise InvalidInput(
            "the graph is directed, couplings are symmetric: give an undirected graph (of a directed one, "
            "networkx.MultiGraph(graph.edges(data=True)) adds up what goes both ways)"
        )
    field = _field(graph)
    site = {node: index for index, node in enumerate(graph)}
    bonds: list[list[int]] = []
    strengths: list[Any] = []
    held: Counter[tuple[str, ...]] = Counter()
    unread: set[str] = set()
    for a, b, attributes in graph.edges(data=True):
        names = tuple(name for name in STRENGTHS if name in attributes)
        bonds.append([site[a], site[b]])
        strengths.append(attributes[names[0]] if names else 1.0)
        held[names] += 1
        if not names:
            unread.update(map(str, attributes))
    lattice = from_bonds(len(site), bonds=bonds, strengths=strengths, labels=_labels(site)).with_field(field)
    return lattice, _notes(held, sorted(unread - BOOKKEEPING), everywhere)


def _field(graph: networkx.Graph) -> np.ndarray | None:
    """The external field on every node, in graph order; None where no node has one."""
    held: dict[Any, float] = {}
    for node, attributes in graph.nodes(data=True):
        for name in NOT_FIELDS:
            value = attributes.get(name)
            if value is not None and _number(value) != 0:
                raise InvalidInput(
                    f"the node {shown(node)} has the attribute {name} = {shown(value)}: an external field is read from "
                    f"the attribute {FIELD}; rename it, remove it, or set it to 0"
                )
        value = attributes.get(FIELD)
        if value is None:
            continue
        if not abs(_number(value)) <= STRONGEST:
            raise InvalidInput(
                f"the node {shown(node)} has the attribute {FIELD} = {shown(value)}: expected a finite number, at most "
                f"{STRONGEST:g} in size"
            )
        held[node] = _number(value)
    missing = [node for node in graph if node not in held]
    if held and missing:
        raise InvalidInput(
            f"the node {shown(missing[0])} has no attribute {FIELD}, {len(held)} of {len(graph)} nodes have one: give "
            "all of them one, 0 where there is no field"
        )
    return np.array(list(held.values())) if held else None


def _number(value: Any) -> float:
    """A real number as a float; NaN for anything else."""
    try:
        return float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    except OverflowError:
        return math.inf


def _labels(nodes: dict[Any, int]) -> list[str]:
    """Nodes as text; as Python writes them where 1 and "1" would else be the same."""
    labels = [node if isinstance(node, str) else str(node) for node in nodes]
    return labels if len(set(labels)) == len(labels) else [repr(node) for node in nodes]


def _notes(held: Counter[tuple[str, ...]], unread: list[str], everywhere: bool) -> list[str]:
    """What users should know of where strengths came from: how many edges hold which, and what else there was."""
    edges, notes = held.total(), []
    weight, both, neither = held["weight",], held[STRENGTHS], held[()]
    if weight == edges:
        notes.append("no edge has a coupling; strengths are read from the edge attribute weight")
    elif weight:
        notes.append(f"{weight} of {edges} edges have no coupling; their strength is their weight")
    if both:
        notes.append(f"{both} of {edges} edges have a weight beside their coupling; it is not used")
    others = f" (not read: {', '.join(map(shown, unread[:5]))})" if unread else ""
    if neither == edges and (unread or everywhere):
        notes.append(f"no edge has a coupling or a weight; all bonds have strength 1{others}")
    elif 0 < neither < edges:
        notes.append(f"{neither} of {edges} edges have neither coupling nor weight; their strength is 1{others}")
    return notes


def to_graph(lattice: Lattice) -> networkx.Graph:
    """Sites 0 .. N-1 and one edge, with its total `coupling`, per bonded pair; in a field every node has a `field`."""
    import networkx  # a tenth of a second, for graphs alone

    graph = networkx.Graph()
    graph.add_nodes_from(range(lattice.sites))
    pairs, totals = lattice.pair_couplings(np.arange(lattice.sites))
    ends = (pairs // lattice.sites).tolist(), (pairs % lattice.sites).tolist()
    graph.add_weighted_edges_from(zip(*ends, totals.tolist(), strict=True), "coupling")
    if lattice.field is not None:
        networkx.set_node_attributes(graph, dict(enumerate(lattice.field_by_site.ravel().tolist())), FIELD)
    return graph


def layout(lattice: Lattice) -> np.ndarray:
    """Where the sites of a graph are drawn, shape (N, 2)."""
    import networkx

    positions = networkx.spring_layout(lattice.graph, seed=0)
    return np.array([positions[site] for site in range(lattice.sites)])
