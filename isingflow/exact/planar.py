"""Planar graphs with any couplings, in time about N^2: what Fisher, Kasteleyn and Temperley showed to be possible.

A graph drawn in the plane grows spin by spin inside a contour that starts at one edge, v_1 v_2 (de Fraysseix, Pach &
Pollack 1990): faces are cut into triangles by bonds of strength 0, and a spin may be added once its neighbours on the
contour follow each other, w_p ... w_q. It takes its place between w_p and w_q, and the spins between these leave the
contour for good. To the spins on the contour, which are free fermions, that is three kinds of steps (`exact.fermions`):
a new spin beside w_p, a bond from it to the next one on the contour, and that one leaves. Every bond costs the square
of the contour's length, about N^(1/2) where spins are added that shorten it most.
"""

from __future__ import annotations

import decimal
import heapq
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from isingflow.errors import InvalidInput, NoExactSolution
from isingflow.exact.double_double import divide_jets, line, multiply_jets, negative
from isingflow.exact.fermions import (
    DIGITS,
    NOISE,
    SECONDS,
    Jet,
    accumulate,
    agree,
    bond,
    column,
    exact,
    get,
    logarithm,
    penalties_of,
    put,
    work_limit,
)
from isingflow.exact.transfer_matrix import LONGEST
from isingflow.lattice.checks import STRONGEST
from isingflow.runtime.checks import array, count
from isingflow.runtime.compiled import compiled
from isingflow.runtime.resources import duration

if TYPE_CHECKING:
    import networkx

SITE_LIMIT = 10**4
"""Most spins: a graph of more takes long to be drawn."""
STARTS = 6
"""Edges at which the contour is tried to start."""

Embedding = dict[int, list[int]]
"""The neighbours of every vertex, in their order around it."""


def solve(sites: int, bonds: np.ndarray, couplings: np.ndarray, longest: float = LONGEST) -> Jet:
    """ln Z of spins whose bonds can be drawn in the plane without crossing.

    Args:
        sites: how many spins.
        bonds: pairs of different sites, integers, shape (n, 2); bonds of the same two add up.
        couplings: K of every bond, of either sign, shape (n,).
        longest: seconds, as estimated, that it may take; never more than a few minutes.

    Returns:
        ln Z, and the mean and the variance of x(s) = sum over bonds K s s. With K = beta J, the energy -d ln Z/d beta
        is -mean / beta and the heat capacity is the variance.

    Raises:
        InvalidInput: no such arrays.
        NoExactSolution: the graph is not planar, or too large, or so cold and frustrated that 32 digits do not suffice.

    Example:
        >>> log_z, mean, variance = solve(3, np.array([[0, 1], [1, 2], [2, 0]]), np.array([0.5, 0.5, -0.5]))
        >>> bool(np.isclose(log_z, np.log(6 * np.exp(0.5) + 2 * np.exp(-1.5))))
        True
    """
    sites, pairs, strengths = merged(sites, bonds, couplings)
    if sites == 1:
        return math.log(2.0), 0.0, 0.0
    if sites == 2:
        pairs, strengths = np.array([[0, 1]]), np.array([strengths.sum()])
        growths = [Growth.at(0, 1, {0: [1], 1: [0]}, pairs)]
    else:
        growths = sorted(_growths(embedding_of(sites, pairs), pairs), key=lambda growth: growth.work)
    if growths[0].work > work_limit(longest):
        raise NoExactSolution(
            f"a planar graph of {sites} spins that would take about {duration(growths[0].work * SECONDS)}: possible "
            "are smaller ones"
        )
    solution = growths[0].solve(strengths, 0 * NOISE)
    if not agree(solution, growths[1 % len(growths)].solve(strengths, NOISE), sites):
        raise NoExactSolution(
            f"the planar graph of {sites} spins is too cold for Pfaffians with these bonds: frustration cancels more "
            "than 32 digits; possible are higher temperatures"
        )
    return solution


def merged(sites: int, bonds: np.ndarray, couplings: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """The number of spins, the pairs (i, j), i < j, that are coupled, each once, and their total couplings.

    Raises:
        InvalidInput: sites, bonds or couplings are not those of a graph; NoExactSolution: it has too many sites.
    """
    sites = count("sites", sites)
    if sites > SITE_LIMIT:
        raise NoExactSolution(f"a graph of {sites} spins is too large to be drawn in the plane: at most {SITE_LIMIT}")
    pairs = array("bonds", bonds, (None, 2), integers=True, empty=True)
    strengths = array("couplings", couplings, (len(pairs),), most=STRONGEST, empty=True)
    if len(pairs) and (pairs.min() < 0 or pairs.max() >= sites or np.any(pairs[:, 0] == pairs[:, 1])):
        raise InvalidInput(f"bonds must be pairs of different sites 0 .. {sites - 1}")
    codes, places = np.unique(pairs.min(1) * sites + pairs.max(1), return_inverse=True)
    totals = np.bincount(places, strengths, minlength=len(codes))
    used = totals != 0
    return sites, np.stack([codes // sites, codes % sites], axis=1)[used], totals[used]


def embedding_of(sites: int, pairs: np.ndarray) -> networkx.PlanarEmbedding:
    """A drawing of the graph in the plane.

    Raises:
        NoExactSolution: there is none.
    """
    import networkx  # a tenth of a second

    graph = networkx.Graph()
    graph.add_nodes_from(range(sites))
    graph.add_edges_from(pairs.tolist())
    planar, embedding = networkx.check_planarity(graph)
    if not planar:
        raise NoExactSolution(
            f"no exact method for {sites} connected spins that are not planar: their bonds cross however they are "
            "drawn; possible are enumeration of at most 24 spins, planar graphs, and square and triangular lattices; "
            "Monte Carlo (isingflow monte-carlo) gives energies and magnetisations of any graph"
        )
    return embedding


def _growths(embedding: networkx.PlanarEmbedding, pairs: np.ndarray) -> list[Growth]:
    """Growths from several edges of the graph, cut into triangles by bonds that do not count."""
    from networkx.algorithms.planar_drawing import triangulate_embedding

    triangulated, _ = triangulate_embedding(embedding)
    around = {vertex: list(triangulated.neighbors_cw_order(vertex)) for vertex in triangulated}
    vertices = sorted(around)
    starts = {vertices[place * (len(vertices) - 1) // (STARTS - 1)] for place in range(STARTS)}
    return [Growth.at(vertex, around[vertex][0], around, pairs) for vertex in sorted(starts)]


@dataclass(frozen=True)
class Growth:
    """Steps in which a triangulated graph grows from one edge.

    Attributes:
        steps: int64, shape (n, 5): places of a spin and of its neighbour in the matrix of the contour, the number of
            their bond or -1, whether the spin is new, and how many places are in use.
        work: matrix entries to be updated.
    """

    steps: np.ndarray
    work: float

    @classmethod
    def at(cls, first: int, second: int, around: Embedding, pairs: np.ndarray) -> Growth:
        """The growth from an edge of the triangulation."""
        numbers = {pair: number for number, pair in enumerate(map(tuple, pairs.tolist()))}
        place: dict[int, int] = {first: 0}
        free: list[int] = []
        steps, used, work = [], 1, 0.0
        for new, contour in [(second, [first]), *_order(first, second, around)]:
            place[new] = heapq.heappop(free) if free else used
            used = max(used, place[new] + 1)
            for index, old in enumerate(contour):
                number = numbers.get((min(new, old), max(new, old)), -1)
                if index == 0 or number >= 0:
                    steps.append((place[new], place[old], number, index == 0, used))
                    work += used**2 / 2 if index else used
                if 0 < index < len(contour) - 1:
                    heapq.heappush(free, place[old])
        return cls(np.array(steps, np.int64), work)

    def solve(self, couplings: np.ndarray, noise: np.ndarray) -> Jet:
        """ln Z, mean and variance by one growth; NaN where all digits are lost."""
        weights = np.append(couplings, 0.0)  # the last one is that of bonds that are none
        with decimal.localcontext(prec=DIGITS):
            penalties = penalties_of(np.abs(weights))
            z = exact(*_grow(self.steps, penalties, np.where(weights < 0, -1.0, 1.0), noise))
            return logarithm(z, 1, couplings)


def _order(first: int, second: int, around: Embedding) -> list[tuple[int, list[int]]]:
    """The vertices after the first two as they are added, each with its neighbours on the contour, in their order.

    A vertex follows the contour without a gap if it closes one triangle less with edges of the contour than it has
    neighbours there. Of those the one with most neighbours comes first, and of these the one that has waited longest.
    """
    turn = {vertex: dict(zip(ring, ring[1:] + ring[:1], strict=True)) for vertex, ring in around.items()}
    neighbours, triangles = dict.fromkeys(around, 0), dict.fromkeys(around, 0)
    waiting: list[tuple[int, int, int]] = []
    order: list[tuple[int, list[int]]] = []
    placed = {first, second}

    def ready(vertex: int) -> bool:
        return vertex not in placed and triangles[vertex] == neighbours[vertex] - 1

    def look(vertices: list[int], edges: list[tuple[int, int]]) -> None:
        """Count what new vertices and edges of the contour are to those outside."""
        others = [other for vertex in vertices for other in around[vertex]]
        for other in others:
            neighbours[other] += 1
        for left, right in edges:
            triangles[turn[left][right]] += 1
        for other in others:
            if ready(other):
                heapq.heappush(waiting, (-neighbours[other], len(order), other))

    look([first, second], [(first, second)])
    while len(placed) < len(around):
        known, _, vertex = heapq.heappop(waiting)
        if not ready(vertex) or -known != neighbours[vertex]:
            continue
        ring = around[vertex]
        begins = [place for place, old in enumerate(ring) if old in placed and ring[place - 1] not in placed]
        start = begins[0] if begins else ring.index(first)
        contour = (ring[start:] + ring[:start])[: neighbours[vertex]]
        placed.add(vertex)
        order.append((vertex, contour))
        look([vertex], [(contour[0], vertex), (vertex, contour[-1])])
    return order


@compiled
def _grow(steps, penalties, signs, noise):
    """Follow the steps: the jet of Z / (2 exp(sum |K|)) with a power of 2."""
    places = np.max(steps[:, 4])
    edge, room = np.zeros((3, 2, places, places)), np.zeros((3, 3, 2, places))
    product, exponent = np.zeros((3, 2)), 0
    product[0, 0] = 1.0
    for number in range(len(steps)):
        spin, other, which, new, used = steps[number]
        penalty, sign = get(penalties[:, :, which]), signs[which]
        if new:
            whole = line(1.0, 1.0, penalty)
            exponent += accumulate(product, whole)
            _add_leg(edge, spin, other, divide_jets(line(sign, -sign, penalty), whole), room[0])
        else:
            exponent += accumulate(product, bond(edge, used, spin, other, penalty, sign, room, noise, number))
    return product, exponent


@compiled
def _add_leg(edge, k, beside, factor, out):
    """A leg that follows another one around the edge: its copy, times a factor."""
    column(edge, beside, out)
    out[0, 0, beside] = 1.0
    for i in range(edge.shape[3]):
        scaled = multiply_jets(factor, get(out[:, :, i]))
        if i > k:
            put(edge[:, :, i, k], scaled)
        elif i < k:
            put(edge[:, :, k, i], negative(scaled))
