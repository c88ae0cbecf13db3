"""Files of graphs, as they are found in the wild: every bond counts, or one line says why none does."""

from __future__ import annotations

import bz2
import gzip
import itertools
import json
import logging
import math
import os
import random
import socket
import warnings
from pathlib import Path

import networkx
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from isingflow import cli
from isingflow.errors import InvalidInput
from isingflow.evaluation.spins import write_spins
from isingflow.exact import thermodynamics
from isingflow.lattice import Lattice, from_dict, from_graph
from isingflow.lattice.files import FORMATS, read_graph
from isingflow.observables.samples import Samples

XML = '<?xml version="1.0" encoding="utf-8"?>\n'
GRAPHML = '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">'
KEYS = "".join(
    f'<key id="{name}" for="edge" attr.name="{name}" attr.type="double"/>' for name in ("coupling", "weight")
)


def graphml(edges, *, keys=KEYS, nodes="ab", opening=GRAPHML, kind="undirected"):
    """A document with edges (source, target, inside the element)."""
    inner = "".join(f'<node id="{node}"/>' for node in nodes)
    inner += "".join(f'<edge id="e" source="{a}" target="{b}">{data}</edge>' for a, b, data in edges)
    return f'{XML}{opening}{keys}<graph edgedefault="{kind}">{inner}</graph></graphml>'


def data(value, key="coupling"):
    return f'<data key="{key}">{value}</data>'


def node_link(edges, *, nodes="ab", name="edges", **rest):
    entries = [{"source": a, "target": b, **attributes} for a, b, attributes in edges]
    return json.dumps({"nodes": [{"id": node} for node in nodes], name: entries, **rest})


def gml(edges, head="", nodes=2):
    inner = "".join(f"  node [ id {i} ]\n" for i in range(nodes))
    inner += "".join(f"  edge [ source {a} target {b} {rest} ]\n" for a, b, rest in edges)
    return f"graph [\n{head}{inner}]\n"


def enumerated(bonds):
    """ln Z of strengths by pair of labels, by summing over all configurations."""
    sites = sorted({site for pair, _ in bonds for site in pair})
    terms = []
    for spins in itertools.product((-1, 1), repeat=len(sites)):
        spin = dict(zip(sites, spins, strict=True))
        terms.append(sum(strength * spin[a] * spin[b] for (a, b), strength in bonds))
    most = max(terms)
    return most + math.log(sum(math.exp(term - most) for term in terms))


TWICE = [(("a", "b"), 0.5), (("a", "b"), 0.75)]
CHAIN = [(("a", "b"), 0.5), (("b", "c"), 1.0)]
PAIR = {"coupling": 0.5}, {"coupling": 0.75}
HALF, MORE = PAIR

READ = {
    "edge list, a pair repeated": (".edgelist", "a b {'coupling': 0.5}\na b {'coupling': 0.75}", TWICE),
    "edge list, there and back": (".edgelist", "a b {'coupling': 0.5}\nb a {'coupling': 0.75}", TWICE),
    "edge list, bare": (".edgelist", "a b\nb a\na b", [(("a", "b"), 3.0)]),
    "edge list, weights": (".edgelist", "a b 0.5\nb a 7.5e-1", TWICE),
    "edge list, named weights": (".edgelist", "a b {'weight': 0.5}\na b {'weight': 0.75}", TWICE),
    "edge list, coupling before weight": (".edgelist", "a b {'coupling': 1.25, 'weight': 9}", TWICE),
    "edge list, some named": (".edgelist", "a b {'coupling': 0.5}\nb c {}", CHAIN),
    "edge list, comments, blanks, tabs": (".edgelist", "# n m\n\na\tb\t0.5 # half\r\n  a b 0.75\n", TWICE),
    "edge list, byte order mark": (".edgelist", "\ufeffa b 0.5\na b 0.75", TWICE),
    "edge list, upper case": (".EDGELIST", "a b 0.5\na b 0.75", TWICE),
    "table": (".csv", "a,b,0.5\nb,a,0.75", TWICE),
    "table, semicolons": (".csv", "a;b;0.5\nb;a;0.75", TWICE),
    "table, tabs, quotes": (".csv", '"a"\t"b"\t"0.5"\na\tb\t0.75', TWICE),
    "table, names": (".csv", "source,target,coupling\na,b,0.5\nb,a,0.75", TWICE),
    "table, an index and more": (".csv", ",Source,Target,Type,Weight\n0,a,b,x,0.5\n1,b,a,y,0.75", TWICE),
    "table, empty cells": (".csv", "source,target,coupling,weight\na,b,0.5,\nb,c,,1.0", CHAIN),
    "table, as networkx writes it": (".csv", "a,b,{'coupling': 0.5, 'x': 1}\na,b,{'coupling': 0.75, 'x': 2}", TWICE),
    "adjacency list": (".adjlist", "a b b\nb c\nc\n", [(("a", "b"), 2.0), (("b", "c"), 1.0)]),
    "node-link, not a multigraph": (".json", node_link([("a", "b", HALF), ("a", "b", MORE)], multigraph=False), TWICE),
    "node-link, there and back": (".json", node_link([("a", "b", HALF), ("b", "a", MORE)]), TWICE),
    "node-link, links": (".json", node_link([("a", "b", HALF), ("a", "b", MORE)], name="links"), TWICE),
    "node-link, one key twice": (
        ".json",
        node_link([("a", "b", HALF | {"key": 0}), ("a", "b", MORE | {"key": 0})], multigraph=True),
        TWICE,
    ),
    "node-link, weights": (".JSON", node_link([("a", "b", {"weight": 0.5}), ("b", "c", {})], nodes="abc"), CHAIN),
    "GML, parallel without saying so": (".gml", gml([(0, 1, "coupling 0.5"), (1, 0, "coupling 0.75")]), TWICE),
    "GML, a multigraph": (".gml", gml([(0, 1, "weight 0.5"), (0, 1, "weight 0.75")], "multigraph 1\n"), TWICE),
    "GML, not a multigraph": (".gml", gml([(0, 1, "coupling 0.5"), (0, 1, "coupling 0.75")], "multigraph 0\n"), TWICE),
    "GraphML, one id twice": (".graphml", graphml([("a", "b", data(0.5)), ("b", "a", data(0.75))]), TWICE),
    "GraphML, weights": (
        ".graphml",
        graphml([("a", "b", data(0.5, "weight")), ("b", "a", data(0.75, "weight"))]),
        TWICE,
    ),
    "GraphML, a default": (
        ".graphml",
        graphml(
            [("a", "b", ""), ("b", "c", data(1.0))],
            nodes="abc",
            keys=KEYS.replace('"double"/>', '"double"><default>0.5</default></key>', 1),
        ),
        CHAIN,
    ),
    "GraphML, a default for all": (
        ".graphml",
        graphml(
            [("a", "b", ""), ("b", "c", data(1.0))],
            nodes="abc",
            keys=KEYS.replace('for="edge"', 'for="all"').replace(
                '"double"/>', '"double"><default>0.5</default></key>', 1
            ),
        ),
        CHAIN,
    ),
    "GraphML, no namespace": (
        ".graphml",
        graphml([("a", "b", data(0.5)), ("b", "a", data(0.75))], opening="<graphml>"),
        TWICE,
    ),
    "GraphML, a document type": (
        ".graphml",
        graphml([("a", "b", data(0.5)), ("b", "a", data(0.75))]).replace(
            XML, f'{XML}<!DOCTYPE graphml SYSTEM "x.dtd">'
        ),
        TWICE,
    ),
}

REFUSED = {
    "no such file": (".gml", None, "there is no such file"),
    "empty edge list": (".edgelist", "", "the graph has no edges"),
    "empty table": (".csv", "\n", "the graph has no edges"),
    "empty adjacency list": (".adjlist", "", "the graph has no edges"),
    "empty GML": (".gml", "", "not a graph in gml format"),
    "empty GraphML": (".graphml", "", "not a graph in graphml format"),
    "empty JSON": (".json", "", "not a graph in json format"),
    "one node": (".adjlist", "a", "the graph has no edges"),
    "a list": (".json", "[]", "expected an object with nodes and edges"),
    "no nodes": (".json", "{}", "'nodes' is missing"),
    "no edges": (".json", '{"nodes": []}', "'edges' is missing"),
    "nodes that are a number": (".json", '{"nodes": 7, "edges": []}', "not a graph in json format"),
    "edges that are texts": (".json", '{"nodes": [], "edges": ["ab"]}', "not a graph in json format"),
    "nodes that are objects": (".json", '{"nodes": [{"id": {}}], "edges": []}', "not a graph in json format"),
    "edges and links": (".json", '{"nodes": [], "edges": [], "links": []}', "both edges and links"),
    "a node twice": (".json", node_link([("a", "b", {})], nodes="aba"), "3 nodes are listed, 2 make up the graph"),
    "an edge to nowhere": (".json", node_link([("a", "z", {})]), "2 nodes are listed, 3 make up the graph"),
    "deep JSON": (".json", '{"nodes": ' + "[" * 100_000, "recursion"),
    "a coupling of NaN": (".json", node_link([("a", "b", {"coupling": math.nan})]), "coupling nan of the bond 'a'-'b'"),
    "a coupling in quotes": (".json", node_link([("a", "b", {"coupling": "1"})]), "coupling '1' of the bond 'a'-'b'"),
    "a coupling that is a list": (".json", node_link([("a", "b", {"coupling": [1]})]), "coupling [1] of the bond"),
    "a coupling of null": (".json", node_link([("a", "b", {"coupling": None})]), "coupling None of the bond"),
    "a coupling of 400 digits": (".json", node_link([("a", "b", {"coupling": 10**400})]), "of the bond 'a'-'b'"),
    "a coupling of 1e308": (".json", node_link([("a", "b", {"coupling": 1e308})]), "coupling 1e+308 of the bond"),
    "a coupling of 1e7": (".json", node_link([("a", "b", {"coupling": -1e7})]), "a coupling of size 1e+07"),
    "a field on one node": (
        ".json",
        '{"nodes": [{"id": "a", "field": 0.5}, {"id": "b"}], "edges": []}',
        "the node 'b' has no attribute field, 1 of 2 nodes have one",
    ),
    "a field in words": (
        ".json",
        '{"nodes": [{"id": "a", "field": "up"}], "edges": []}',
        "'a' has the attribute field = 'up'",
    ),
    "a field of NaN": (
        ".json",
        '{"nodes": [{"id": "a", "field": NaN}], "edges": []}',
        "'a' has the attribute field = nan",
    ),
    "a field called h": (".json", '{"nodes": [{"id": "a", "h": -1}], "edges": []}', "'a' has the attribute h = -1"),
    "a long label": (".json", node_link([("a", "b" * 999, {})], nodes=["a", "b" * 999]), "at most 200 characters"),
    "half a character": (".json", node_link([("a", "\ud800", {})], nodes=["a", "\ud800"]), "not text"),
    "directed JSON": (".json", node_link([("a", "b", {})], directed=True), "the graph is directed"),
    "directed GML": (".gml", gml([(0, 1, "")], "directed 1\n"), "the graph is directed"),
    "directed GraphML": (".graphml", graphml([("a", "b", "")], kind="directed"), "the graph is directed"),
    "a self-loop, edge list": (".edgelist", "a a\na b", "self-loop at site 'a'"),
    "a self-loop, adjacency list": (".adjlist", "a a b", "self-loop at site 'a'"),
    "a self-loop, table": (".csv", "0,0,1\n0,1,1", "self-loop at site 0"),
    "a self-loop, JSON": (".json", node_link([("a", "a", {}), ("a", "b", {})]), "self-loop at site 'a'"),
    "a self-loop, GML": (".gml", gml([(1, 1, ""), (0, 1, "")]), "self-loop at site 1"),
    "a self-loop, GraphML": (".graphml", graphml([("a", "a", ""), ("a", "b", "")]), "self-loop at site 'a'"),
    "one word": (".edgelist", "a b\nc", "line 2: 'c': expected two nodes"),
    "a count before a list": (".edgelist", "4 3\n1 2 0.5\n2 3 0.5", "line 1 has no strength, line 2 has one"),
    "four columns": (".edgelist", "a b 0.5 0.5", "line 1: '0.5 0.5': expected a number, or attributes"),
    "a word for a strength": (".edgelist", "a b strong", "line 1: 'strong': expected a number, or attributes"),
    "a call for a strength": (".edgelist", "a b {'coupling': abs(1)}", "line 1: "),
    "a set for attributes": (".edgelist", "a b {1, 2}", "line 1: '{1, 2}': expected a number, or attributes"),
    "signs without end": (".edgelist", "a b {'coupling': " + "-" * 9000 + "1}", "line 1: "),
    "brackets without end": (".edgelist", "a b {'coupling': " + "(" * 9000, "line 1: "),
    "attributes without end": (".edgelist", "a b {'coupling': '" + "x" * 20_000 + "'}", "line 1: "),
    "an escape that Python warns of": (".edgelist", "a b {'\\d': 1, 'coupling': 'x'}", "coupling 'x' of the bond"),
    "nan in an edge list": (".edgelist", "a b nan", "coupling nan of the bond 'a'-'b'"),
    "infinity in an edge list": (".edgelist", "a b {'coupling': 1e999}", "coupling inf of the bond 'a'-'b'"),
    "columns of other names": (".csv", "i,j\n0,1\n1,2", "line 1: if it names columns, the first two are source and"),
    "columns of other names, strengths": (".csv", "i,j,J\na,b,2\n", "line 1: 'J': expected a number"),
    "a column twice": (".csv", "source,target,weight,weight\n0,1,1,2\n", "two columns have the same name"),
    "too many cells": (".csv", "source,target\na,b,0.5\n", "line 2: expected 2 columns"),
    "a missing end": (".csv", "a,b,0.5\na,,0.5\n", "line 2: "),
    "a quoted line break": (".csv", 'a,b,0.5\n"a,b,0.5\nb,c,1', "quotes"),
    "both ends": (".adjlist", "a b\nb a", "line 2: the edge 'b'-'a' is listed from both ends"),
    "text in XML": (".graphml", "no graph", "not a graph in graphml format"),
    "half of GraphML": (".graphml", graphml([("a", "b", "")])[:-20], "not a graph in graphml format"),
    "another XML": (".graphml", "<svg/>", "0 graphs in it: expected one"),
    "two graphs": (".graphml", graphml([("a", "b", "")]).replace("</graphml>", "<graph/></graphml>"), "2 graphs"),
    "a graph in a graph": (
        ".graphml",
        graphml([("a", "b", "")]).replace('<node id="b"/>', '<node id="b"><graph><node id="c"/></graph></node>'),
        "3 nodes are declared, 2 make up the graph",
    ),
    "a node of XML twice": (".graphml", graphml([("a", "b", "")], nodes="aab"), "3 nodes are declared, 2 make up"),
    "a directed edge": (
        ".graphml",
        graphml([("a", "b", "")]).replace("<edge ", '<edge directed="true" '),
        "directed=true edge found in undirected graph",
    ),
    "a text for a number": (".graphml", graphml([("a", "b", data("x"))]), "could not convert string to float"),
    "a key without type": (
        ".graphml",
        graphml([("a", "b", data(1))], keys='<key id="coupling" for="edge" attr.name="coupling"/>'),
        "coupling '1' of the bond",
    ),
    "an unknown key": (".graphml", graphml([("a", "b", data(1, "z"))]), "no key z"),
    "a field for all": (
        ".graphml",
        graphml(
            [("a", "b", "")],
            keys='<key id="h" for="node" attr.name="h" attr.type="double"><default>2</default></key>',
        ),
        "the node 'a' has the attribute h = 2.0",
    ),
    "a bomb of entities": (
        ".graphml",
        XML + '<!DOCTYPE g [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]>' + GRAPHML + "&b;</graphml>",
        "it defines the entity 'a'",
    ),
    "an external entity": (
        ".graphml",
        XML + '<!DOCTYPE g [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + GRAPHML + "&x;</graphml>",
        "it defines the entity 'x'",
    ),
    "an entity in UTF-16": (
        ".graphml",
        f'<?xml version="1.0" encoding="utf-16"?><!DOCTYPE g [<!ENTITY a "aa">]>{GRAPHML}</graphml>'.encode("utf-16"),
        "it defines the entity 'a'",
    ),
    "half of GML": (".gml", gml([(0, 1, "")])[:-4], "not a graph in gml format"),
    "GML beyond ASCII": (".gml", gml([(0, 1, 'label "é"')]), "not a graph in gml format"),
    "deep GML": (".gml", "graph [" + " a [" * 30_000, "recursion"),
    "GML with an edge to nowhere": (".gml", gml([(0, 7, "")]), "undefined target 7"),
    "a long line of GML": (".gml", "graph [ " + "\x1b[31m;" * 9999, "not a graph in gml format"),
    "a pickle": (".json", b"\x80\x04cos\nsystem\n(S'touch pickled'\ntR.", "not a graph in json format"),
    "bytes": (".edgelist", bytes(range(256)) * 9, "not a graph in edgelist format"),
    "zeros": (".gml", bytes(4096), "not a graph in gml format"),
    "half of a gzip": (".gml.gz", gzip.compress(b"graph [" * 999)[:-20], "cannot be read"),
    "no gzip": (".gml.gz", b"graph []", "cannot be read"),
    "no bzip2": (".json.bz2", b"{}", "cannot be read"),
    "another suffix": (".txt", "a b", "expected "),
    "a pickle by name": (".gpickle", b"", "expected "),
    "compressed what": (".gz", gzip.compress(b"a b"), "expected "),
}


def written(folder: Path, suffix: str, content: str | bytes | None) -> Path:
    path = folder / f"g{suffix}"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    return path


def refusal(path: Path) -> str:
    """The one line of `isingflow exact`, and of `read_graph`."""
    result = CliRunner().invoke(cli.main, ["exact", "--lattice", str(path), "--beta", "1"])
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith((f"isingflow: error: --lattice {path}: ", f"isingflow: error: --lattice '{path}': "))
    assert len(line) < 600 + len(str(path))
    assert line.isprintable()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InvalidInput):
            read_graph(path)
    return line


@pytest.mark.parametrize("case", READ)
def test_every_bond_counts(case, tmp_path):
    suffix, content, bonds = READ[case]
    lattice = read_graph(written(tmp_path, suffix, content))
    assert thermodynamics(lattice, 1.0).log_z == pytest.approx(enumerated(bonds), rel=1e-13)


def test_the_two_bonds_of_the_report(tmp_path):
    path = written(tmp_path, ".edgelist", "0 1 {'coupling': 0.5}\n0 1 {'coupling': 0.75}\n")
    result = CliRunner().invoke(cli.main, ["exact", "--lattice", str(path), "--beta", "1", "--json"])
    assert json.loads(result.stdout)["log_z"] == pytest.approx(math.log(4 * math.cosh(1.25)), rel=1e-13)


@pytest.mark.parametrize("case", REFUSED)
def test_one_line_says_why_there_is_no_lattice(case, tmp_path):
    suffix, content, words = REFUSED[case]
    path = written(tmp_path, suffix, content)
    assert words in refusal(path)
    assert [file.name for file in tmp_path.iterdir()] == ([] if content is None else [path.name])


@pytest.mark.parametrize("kind", ["pipe", "folder", "socket", "loop of links"])
def test_what_is_no_file_is_not_opened(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    path = Path("g.graphml")
    with socket.socket(socket.AF_UNIX) as server:
        {
            "pipe": lambda: os.mkfifo(path),
            "folder": path.mkdir,
            "socket": lambda: server.bind(str(path)),
            "loop of links": lambda: path.symlink_to(path),
        }[kind]()
        assert ("expected a regular file" in refusal(path)) == (kind != "loop of links")


def test_what_compression_hides_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr("isingflow.lattice.files.LARGEST", 2**20)
    path = written(tmp_path, ".json.gz", gzip.compress(b"[" * 2**21))
    assert "more than 1 MB" in refusal(path)


@pytest.mark.parametrize(
    "edges, note",
    [
        ([PAIR[0]], None),
        ([{"weight": 0.5}], "no edge has a coupling; strengths are read from the edge attribute weight"),
        ([{"coupling": 0.5}, {"weight": 1}], "1 of 2 edges have no coupling; their strength is their weight"),
        ([{"coupling": 0.5, "weight": 1}], "1 of 1 edges have a weight beside their coupling; it is not used"),
        ([{"coupling": 0.5}, {}], "1 of 2 edges have neither coupling nor weight; their strength is 1"),
        ([{"J": 0.5}], "no edge has a coupling or a weight; all bonds have strength 1 (not read: 'J')"),
        ([{}], "no edge has a coupling or a weight; all bonds have strength 1"),
    ],
)
def test_where_strengths_come_from_is_said(edges, note, tmp_path, caplog):
    links = [("ab"[i], "bc"[i], attributes) for i, attributes in enumerate(edges)]
    path = written(tmp_path, ".json", node_link(links, nodes="abc"[: len(edges) + 1]))
    read_graph(path)
    graph = networkx.Graph(links)
    from_graph(graph)
    plain = edges == [{}]  # of a graph in Python it goes without saying
    assert caplog.messages == [] if note is None else [f"{path}: {note}", *([] if plain else [f"graph: {note}"])]
    assert all(record.levelno == logging.WARNING for record in caplog.records)


def test_fields_of_zero_are_none():
    graph = networkx.Graph([("a", "b")])
    for name, zero in (("field", 0), ("h", 0.0), ("field", np.float32(0)), ("h", None)):
        networkx.set_node_attributes(graph, zero, name)
    assert from_graph(graph).field is None
    for strange in (1e-9, math.nan, "0.5", [1], True):
        graph.nodes["b"]["h"] = strange
        with pytest.raises(InvalidInput, match="the node 'b' has the attribute h"):
            from_graph(graph)


@st.composite
def multigraphs(draw):
    """Any multigraph of up to six sites, without nodes that have no edge: an edge list cannot hold these."""
    sites = draw(st.integers(2, 6))
    pairs = st.tuples(st.integers(0, sites - 1), st.integers(0, sites - 1)).filter(lambda pair: pair[0] != pair[1])
    strengths = st.floats(-3, 3).map(lambda strength: round(strength, 3))
    return draw(st.lists(st.tuples(pairs, strengths), min_size=1, max_size=12))


@settings(max_examples=40)
@given(bonds=multigraphs(), attribute=st.sampled_from(["coupling", "weight"]))
def test_all_formats_give_the_same(bonds, attribute, tmp_path_factory):
    folder = tmp_path_factory.mktemp("graphs")
    graph = networkx.MultiGraph()
    graph.add_edges_from((*pair, {attribute: strength}) for pair, strength in bonds)
    networkx.write_graphml(graph, folder / "g.graphml")
    networkx.write_gml(graph, folder / "g.gml")
    networkx.write_edgelist(graph, folder / "g.edgelist")
    networkx.write_edgelist(graph, folder / "gzip.edgelist.gz")
    networkx.write_edgelist(graph, folder / "g.csv", delimiter=",")
    networkx.write_weighted_edgelist(_named(graph, "weight"), folder / "weights.edgelist")
    document = networkx.node_link_data(graph)
    (folder / "g.json").write_text(json.dumps(document))
    (folder / "simple.JSON").write_text(json.dumps(document | {"multigraph": False}))
    (folder / "packed.json.BZ2").write_bytes(bz2.compress(json.dumps(document).encode()))
    rows = [f"{b},{a},{strength}" for (a, b), strength in bonds]
    (folder / "rows.csv").write_text("\n".join(["source,target,weight", *rows]))
    expected = enumerated(bonds)
    for path in folder.iterdir():
        assert thermodynamics(read_graph(path), 1.0).log_z == pytest.approx(expected, rel=1e-12), path.name
    assert thermodynamics(from_graph(graph), 1.0).log_z == pytest.approx(expected, rel=1e-12)
    networkx.write_adjlist(graph, folder / "g.adjlist")
    ones = enumerated([(pair, 1.0) for pair, _ in bonds])
    assert thermodynamics(read_graph(folder / "g.adjlist"), 1.0).log_z == pytest.approx(ones, rel=1e-12)


def _named(graph, name):
    """The graph with its strengths in another attribute."""
    other = networkx.MultiGraph()
    other.add_edges_from((a, b, {name: next(iter(held.values()))}) for a, b, held in graph.edges(data=True))
    return other


def test_damaged_files_give_a_lattice_or_one_line(tmp_path, recwarn):
    """Flipped, lost and doubled bytes, of every format; whatever is read is a lattice that can be written again."""
    chance = random.Random(7)
    whole = {suffix: content.encode() for suffix, content, _ in READ.values() if suffix in FORMATS}
    outcomes = {"read": 0, "refused": 0}
    for suffix, content in whole.items():
        for _ in range(60):
            damaged = bytearray(content)
            for _ in range(chance.randint(1, 3)):
                place = chance.randrange(len(damaged))
                match chance.randrange(3):
                    case 0:
                        damaged[place] ^= 1 << chance.randrange(8)
                    case 1:
                        del damaged[place : place + chance.randint(1, 9)]
                    case 2:
                        damaged[place:place] = damaged[place : place + chance.randint(1, 9)]
                if not damaged:
                    break
            path = written(tmp_path, suffix, bytes(damaged))
            try:
                lattice = read_graph(path)
            except InvalidInput as error:
                outcomes["refused"] += 1
                assert "\n" not in str(error)
                assert len(str(error)) < 600 + len(str(path))
            else:
                outcomes["read"] += 1
                assert from_dict(json.loads(json.dumps(lattice.to_dict()))) == lattice
    assert min(outcomes.values()) > 20
    assert not recwarn


class TestLabels:
    GRAPH = networkx.Graph()
    GRAPH.add_nodes_from([("corner", 2), "mn", 7, "fe"])
    GRAPH.add_edge("mn", "fe", coupling=4.0)
    GRAPH.add_edge("fe", ("corner", 2), coupling=-4.0)
    GRAPH.add_edge("mn", 7, coupling=4.0)
    LABELS = ("('corner', 2)", "mn", "7", "fe")

    def test_are_text_in_the_order_of_the_nodes(self):
        lattice = from_graph(self.GRAPH)
        assert lattice.labels == self.LABELS
        assert from_graph(networkx.Graph([(1, "1")])).labels == ("1", "'1'")
        assert from_graph(networkx.path_graph(3)).labels == ("0", "1", "2")

    def test_survive_a_description_and_are_not_physics(self):
        lattice, bare = from_graph(self.GRAPH), from_graph(networkx.convert_node_labels_to_integers(self.GRAPH))
        again = from_dict(json.loads(json.dumps(lattice.to_dict())))
        assert again.labels == lattice.labels
        assert bare == lattice
        assert hash(bare) == hash(lattice)
        assert "labels" not in bare.to_dict()

    @pytest.mark.parametrize("labels", [["a"], ["a", "b", "c", 4], "abcd", 7, ["a", "b", "c", "d" * 201]])
    def test_of_a_description_are_checked(self, labels):
        with pytest.raises(InvalidInput, match="label"):
            from_dict(from_graph(networkx.path_graph(4)).to_dict() | {"labels": labels})

    @pytest.mark.parametrize("suffix", [".gml", ".graphml", ".json", ".edgelist"])
    def test_come_from_files(self, suffix, tmp_path):
        graph = networkx.relabel_nodes(self.GRAPH, {("corner", 2): "corner", 7: "seven"})
        path = tmp_path / f"g{suffix}"
        if suffix == ".json":
            path.write_text(json.dumps(networkx.node_link_data(graph)))
        else:
            getattr(networkx, f"write_{suffix[1:]}")(graph, path)
        lattice = read_graph(path)
        assert sorted(lattice.labels) == ["corner", "fe", "mn", "seven"]
        ends = {frozenset(lattice.labels[site] for site in pair) for pair in lattice.bonds.tolist()}
        assert ends == {frozenset(pair) for pair in graph.edges}

    def test_reach_files_of_samples(self, tmp_path):
        """Spins that are coupled so strongly that they are equal, or opposite, tell which column is whose."""
        lattice = from_graph(self.GRAPH)
        path = tmp_path / "spins.npz"
        write_spins(path, lattice, 3.0, samples=40)
        with np.load(path, allow_pickle=False) as arrays:
            sites, spins = arrays["sites"].tolist(), arrays["spins"]
        column = {site: spins[:, sites.index(site)] for site in self.LABELS}
        np.testing.assert_array_equal(column["mn"], column["fe"])
        np.testing.assert_array_equal(column["mn"], column["7"])
        np.testing.assert_array_equal(column["fe"], -column["('corner', 2)"])
        assert Samples.read(path).lattice.labels == self.LABELS

    def test_of_files_without_them_are_numbers(self):
        assert Lattice("graph", (2,), edges=(np.array([[0, 1]]), np.ones(1))).labels == ("0", "1")
