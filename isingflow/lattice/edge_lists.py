"""Graphs as lines of text: edge lists with spaces or in columns, adjacency lists. Every line counts.

networkx reads them too, but keeps one of several edges between two nodes, and skips lines that it cannot read.
"""

from __future__ import annotations

import csv
from ast import literal_eval
from collections.abc import Iterator
from typing import Any

import networkx

from isingflow.errors import InvalidInput
from isingflow.runtime.checks import shown

COMMENT = "#"
LONGEST = 10_000
"""Characters of the attributes of one edge."""
SEPARATORS = ",;\t"


def edge_list(text: str) -> networkx.MultiGraph:
    """A graph from lines `a b`, `a b 0.5` (the attribute weight) or `a b {'coupling': 0.5}`.

    Raises:
        InvalidInput: a line is none of these, or some have a number and others nothing.
    """
    return _graph([(number, line.split(maxsplit=2)) for number, line in _lines(text)])


def edge_table(text: str) -> networkx.MultiGraph:
    """The same in columns, separated by commas, semicolons or tabs.

    A first line that names columns source and target may name others, which are then attributes.

    Raises:
        InvalidInput: as for `edge_list`.
    """
    lines = list(_lines(text))
    used = [mark for mark in SEPARATORS if lines and mark in lines[0][1]]
    numbers = [number for number, _ in lines]
    rows = [
        [cell.strip() for cell in row]
        for row in csv.reader((line for _, line in lines), delimiter=used[0] if used else ",", skipinitialspace=True)
    ]
    if len(rows) != len(lines):
        raise InvalidInput("quotes that go over several lines")
    names = [cell.lower() for cell in rows[0]] if rows else []
    if {"source", "target"} <= set(names):
        return _named(names, list(zip(numbers[1:], rows[1:], strict=True)))
    if len(rows) > 1 and not _numeric(rows[0][:2]) and all(_numeric(row[:2]) for row in rows[1:]):
        raise InvalidInput(f"line {numbers[0]}: if it names columns, the first two are source and target")
    joined = [[*row[:2], ",".join(row[2:])] if len(row) > 2 else row for row in rows]
    return _graph(list(zip(numbers, joined, strict=True)))


def adjacency_list(text: str) -> networkx.MultiGraph:
    """A graph from lines of a node and its neighbours, in which every edge is listed once.

    Raises:
        InvalidInput: an edge is listed from both ends, so that it might be one or two.
    """
    graph, ends = networkx.MultiGraph(), set()
    for number, line in _lines(text):
        node, *neighbours = line.split()
        graph.add_node(node)
        for other in neighbours:
            if other != node and (other, node) in ends:
                raise InvalidInput(
                    f"line {number}: the edge {shown(node)}-{shown(other)} is listed from both ends: list every edge "
                    "once, or write an edge list"
                )
            ends.add((node, other))
            graph.add_edge(node, other)
    return graph


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, without comments and empty ones."""
    for number, line in enumerate(text.splitlines(), start=1):
        content = line.partition(COMMENT)[0].strip()
        if content:
            yield number, content


def _graph(rows: list[tuple[int, list[str]]]) -> networkx.MultiGraph:
    """The graph of two nodes a row, with or without attributes."""
    graph = networkx.MultiGraph()
    bare = weighted = 0
    for number, row in rows:
        if len(row) < 2 or not row[0] or not row[1]:
            raise InvalidInput(f"line {number}: {shown(' '.join(row))}: expected two nodes, and perhaps a strength")
        attributes = _attributes(number, row[2].strip()) if len(row) > 2 else {}
        graph.add_edges_from([(row[0], row[1], attributes)])
        bare = bare or (number if len(row) == 2 else 0)
        weighted = weighted or (number if len(row) > 2 and not row[2].startswith("{") else 0)
    if bare and weighted:
        raise InvalidInput(f"line {bare} has no strength, line {weighted} has one: give all of them")
    return graph


def _attributes(number: int, text: str) -> dict[str, Any]:
    """What follows the two nodes of an edge."""
    try:
        if not text.startswith("{"):
            return {"weight": float(text)}
        attributes = literal_eval(text) if len(text) <= LONGEST else None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        attributes = None
    if not isinstance(attributes, dict):
        raise InvalidInput(
            f"line {number}: {shown(text)}: expected a number, or attributes as networkx writes them: "
            "{'coupling': 0.5}"
        )
    return attributes


def _named(names: list[str], rows: list[tuple[int, list[str]]]) -> networkx.MultiGraph:
    """The graph of rows whose columns have names; attributes of an edge are the cells that are not empty."""
    if len(set(filter(None, names))) != len(list(filter(None, names))):
        raise InvalidInput("two columns have the same name")
    graph = networkx.MultiGraph()
    for number, row in rows:
        cells = dict(zip(names, row, strict=False))
        source, target = cells.pop("source", ""), cells.pop("target", "")
        if len(row) > len(names) or not source or not target:
            raise InvalidInput(f"line {number}: expected {len(names)} columns, among them source and target")
        attributes = {name: _number_or_text(cell) for name, cell in cells.items() if name and cell}
        graph.add_edges_from([(source, target, attributes)])
    return graph


def _number_or_text(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


def _numeric(cells: list[str]) -> bool:
    return all(isinstance(_number_or_text(cell), float) for cell in cells)
