"""Exact moments of the magnetisation and correlations of small lattices.

Enumeration (any graph of at most 24 spins): all weights in one table. Its Walsh-Hadamard transform is the correlation
of every subset of spins at once.

Transfer matrix (uniform periodic square lattices up to width 12): T = sqrt(D) V sqrt(D), D the bonds within a row, V
those between rows. For a first row s, the vectors T^r e_s are followed with the number of up spins as a second index,
half way around; both halves meet in a row t,

    P(M) = sum over s, t, n of (T^h)_ts(n) (T^(l-h))_ts(M - n) / Z,    G(r, y) = sum T^r_ts T^(l-r)_ts s_0 t_y / Z.

Rows that differ by a rotation, a reflection or a spin flip count alike: of 4096 rows of 12 spins, 122 are left. All
terms are positive, so no temperature cancels digits, and P(M) gives <|m|> as well as <m^2> and <m^4>.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from isingflow.errors import InvalidInput, NoExactSolution
from isingflow.exact import enumeration
from isingflow.lattice import Lattice, check_magnet
from isingflow.lattice.checks import check_strength
from isingflow.runtime.checks import array, count
from isingflow.runtime.compiled import compiled

WIDTH_LIMIT = 12
"""Widest torus solved by the transfer matrix."""

SITE_LIMIT = 384
"""Most sites of such a torus: 12 x 32, a minute."""


@dataclass(frozen=True)
class Moments:
    """Exact moments of the magnetisation per site m, and correlations of the spins.

    Attributes:
        magnetisation_abs: <|m|>.
        magnetisation_squared: <m^2>.
        magnetisation_fourth: <m^4>.
        binder: 1 - <m^4> / (3 <m^2>^2); NaN where <m^2> is 0 to machine precision.
        correlation: on a periodic lattice <s_0 s_r>, averaged over translations, shape (lx, ly), so that its sum is
            N <m^2>; else <s_i s_j>, shape (N, N).
        method: "enumeration" or "transfer-matrix".
        magnetisation: <m>, 0 without an external field.
    """

    magnetisation_abs: float
    magnetisation_squared: float
    magnetisation_fourth: float
    binder: float
    correlation: np.ndarray
    method: str
    magnetisation: float = 0.0


def moments(lattice: Lattice, beta: float) -> Moments:
    """Exact <|m|>, <m^2>, <m^4>, Binder cumulant and spin correlations at one inverse temperature.

    Uniform periodic square lattices up to width 12 are solved by the transfer matrix (8x8 in a tenth of a second, 12x12
    in seconds), any graph of at most 24 spins by enumeration; in an external field, which counts as one more spin,
    graphs of at most 23.

    Args:
        lattice: the spins, their bonds and the field on them.
        beta: inverse temperature, finite, of either sign.

    Raises:
        InvalidInput: beta is not a finite number, or beta times the couplings overflows.
        NoExactSolution: no method is affordable; the message says what is possible.

    Example:
        >>> from isingflow.lattice import CRITICAL_BETA, square
        >>> exact = moments(square(8), CRITICAL_BETA)
        >>> round(exact.magnetisation_squared, 8), round(exact.binder, 8), round(exact.correlation[0, 1], 8)
        (0.64691157, 0.61304538, np.float64(0.74579455))
    """
    beta = check_magnet(lattice, beta)
    square = lattice.dimensions == 2 and lattice.kind != "triangular" and lattice.boundary == "periodic"
    strengths = lattice.uniform if square and lattice.field is None else None
    ghosts = 0 if lattice.field is None else 1
    if strengths is not None and min(lattice.shape) <= WIDTH_LIMIT and lattice.sites <= SITE_LIMIT:
        method = "transfer-matrix"
        (lx, ly), (jx, jy) = lattice.shape, strengths
        counts, correlation = torus(lx, ly, beta * jx, beta * jy)
    elif lattice.sites <= enumeration.SPIN_LIMIT - ghosts:
        method = "enumeration"
        fields = beta * lattice.field_by_site.ravel() if ghosts else None
        counts, correlation = graph(lattice.couplings(beta), fields)
        if lattice.boundary == "periodic":
            correlation = _translated(correlation, lattice.shape)
    else:
        raise NoExactSolution(
            f"{lattice}: no exact magnetisation; possible are uniform periodic square lattices of width at most "
            f"{WIDTH_LIMIT} and at most {SITE_LIMIT} sites without a field, and any graph of at most "
            f"{enumeration.SPIN_LIMIT} spins, the field counted as one"
        )
    m = 2 * np.arange(lattice.sites + 1) / lattice.sites - 1
    mean = math.fsum(counts * m) if ghosts else 0.0
    first, second, fourth = (math.fsum(counts * np.abs(m) ** power) for power in (1, 2, 4))
    binder = 1 - fourth / second / second / 3 if second > 0 else math.nan
    return Moments(first, second, fourth, binder, correlation, method, mean)


def along_axes(correlations: np.ndarray, dimensions: int = 2) -> np.ndarray:
    """G(r) at r = 0 .. L // 2 along the axes of the largest length L, averaged over them.

    Args:
        correlations: by displacement, shape (..., lx, ly) in two dimensions.
        dimensions: how many of the last axes are displacements.

    Returns:
        Shape (..., L // 2 + 1).

    Raises:
        InvalidInput: fewer axes than dimensions, or no entries; WrongType: no real numbers.

    Example:
        >>> along_axes(np.array([[1.0, 0.5], [0.7, 0.4]])).tolist()
        [1.0, 0.6]
    """
    correlations = array("correlations", correlations, finite=False)
    dimensions = count("dimensions", dimensions)
    if correlations.ndim < dimensions:
        raise InvalidInput(
            f"correlations is an array of shape {correlations.shape}, expected {dimensions} axes or more"
        )
    lines = [tuple(slice(None) if axis == along else 0 for axis in range(dimensions)) for along in range(dimensions)]
    along = [correlations[..., *line] for line in lines]
    longest = max(correlations.shape[-dimensions:])
    return np.mean([g for g in along if g.shape[-1] == longest], axis=0)[..., : longest // 2 + 1]


def _translated(correlation: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """<s_i s_j> averaged over all pairs at one displacement, of the lattice's shape."""
    sites = np.indices(shape).reshape(len(shape), -1)
    displacement = np.ravel_multi_index(list(sites[:, None] - sites[:, :, None]), shape, mode="wrap")
    totals = np.bincount(displacement.ravel(), correlation.ravel())
    return totals.reshape(shape) / correlation.shape[0]


def graph(couplings: np.ndarray, fields: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Any graph of at most 24 spins, by enumeration; fields on the sites count as one more spin, which is always up.

    Args:
        couplings: K, symmetric, shape (N, N).
        fields: h, shape (N,), or None.

    Returns:
        the probabilities of 0, ..., N up spins, shape (N + 1,), and <s_i s_j>, shape (N, N).

    Raises:
        InvalidInput: no such matrix; NoExactSolution: more than 24 spins.

    Example:
        >>> counts, correlation = graph(np.array([[0.0, 0.5], [0.5, 0.0]]))
        >>> counts.round(4), round(float(correlation[0, 1]), 4)
        (array([0.3655, 0.2689, 0.3655]), 0.4621)
    """
    weights = enumeration.probabilities(couplings, fields)
    down = _by_popcount(weights)
    _walsh_hadamard(weights)
    bits = 1 << np.arange(len(down) - 1)
    if fields is not None:
        return down[::-1], weights[bits[:, None] ^ bits]
    down, bits = np.append(down, 0.0), np.append(bits, 0)
    return (down + down[::-1]) / 2, weights[bits[:, None] ^ bits]


def _by_popcount(weights: np.ndarray) -> np.ndarray:
    """Sums of the weights with 0, 1, ... bits set in their index; bit by bit, which keeps rounding errors small."""
    table = weights[:, None]
    while len(table) > 1:
        half = len(table) // 2
        table = np.pad(table[:half], ((0, 0), (0, 1))) + np.pad(table[half:], ((0, 0), (1, 0)))
    return table[0]


@compiled
def _walsh_hadamard(table):
    """In place: entry m becomes the sum over n of table[n] (-1)^(number of bits that n and m share)."""
    half = 1
    while half < len(table):
        for start in range(0, len(table), 2 * half):
            for i in range(start, start + half):
                table[i], table[i + half] = table[i] + table[i + half], table[i] - table[i + half]
        half *= 2


def torus(lx: int, ly: int, kx: float, ky: float) -> tuple[np.ndarray, np.ndarray]:
    """The uniform periodic lx x ly lattice, by the transfer matrix.

    Args:
        lx, ly: sides of at least 2, the shorter one at most 12.
        kx, ky: couplings along x and y.

    Returns:
        the probabilities of 0, ..., N up spins, shape (N + 1,), and <s_0 s_r>, shape (lx, ly).

    Raises:
        InvalidInput: sides below 2, or couplings that are not finite.
        NoExactSolution: the lattice is too large, or the couplings are so strong that exp(-2 |K|) per bond underflows.

    Example:
        >>> counts, correlation = torus(2, 2, 0.1, 0.1)
        >>> bool(np.isclose(correlation.sum(), 4 * (counts @ (np.arange(5) / 2 - 1) ** 2)))
        True
    """
    lx, ly = count("lx", lx, least=2), count("ly", ly, least=2)
    kx, ky = check_strength("kx", kx), check_strength("ky", ky)
    if min(lx, ly) > WIDTH_LIMIT or lx * ly > SITE_LIMIT:
        raise NoExactSolution(
            f"{lx}x{ly} is too large for the transfer matrix: possible are widths up to {WIDTH_LIMIT} and "
            f"{SITE_LIMIT} sites"
        )
    if lx < ly:
        counts, correlation = torus(ly, lx, ky, kx)
        return counts, correlation.T
    states = np.arange(1 << ly)
    ups = _popcounts(ly)
    kinks = _popcounts(ly)[states ^ _rotated(states, ly)]
    broken = kinks if ky >= 0 else ly - kinks
    row = np.exp(-abs(ky) * broken)  # the square root of the weights of the bonds in a row
    starts, multiplicities = _representatives(ly)
    counts, correlation = _torus(lx, ly, math.exp(-2 * abs(kx)), kx < 0, row, ups, starts, multiplicities)
    total = counts.sum()
    if not (math.isfinite(total) and total > 0):
        raise NoExactSolution("the couplings are too strong for the transfer matrix: exp(-2 |K|) underflows")
    # a start stands for its spin flip and its mirror image as well
    mirrored = np.roll(correlation[:, ::-1], 1, axis=1)
    return (counts + counts[::-1]) / (2 * total), (correlation + mirrored) / (2 * total)


def _popcounts(bits: int) -> np.ndarray:
    """How many bits of 0, ..., 2^bits - 1 are set."""
    counts = np.zeros(1, dtype=np.int64)
    for _ in range(bits):
        counts = np.concatenate([counts, counts + 1])
    return counts


def _rotated(states: np.ndarray, width: int) -> np.ndarray:
    return states >> 1 | (states & 1) << (width - 1)


def _representatives(width: int) -> tuple[np.ndarray, np.ndarray]:
    """One row of spins of each class under rotation, reflection and spin flip, and the sizes of the classes."""
    states = np.arange(1 << width)
    mirrored = np.zeros_like(states)
    for bit in range(width):
        mirrored |= (states >> bit & 1) << (width - 1 - bit)
    smallest = states
    image: np.ndarray
    for image in (states, mirrored):
        for _ in range(width):
            image = _rotated(image, width)
            smallest = np.minimum(smallest, np.minimum(image, states[-1] - image))
    return np.unique(smallest, return_counts=True)


@compiled
def _torus(length, width, penalty, antiparallel, row, ups, starts, multiplicities):
    """Weights of 0, ..., N up spins, and the weighted s_0 s_r; relative to exp(sum |K|), so at most 2^N in all."""
    half = length // 2
    rest = length - half
    states = len(row)
    counts = np.zeros(length * width + 1)
    correlation = np.zeros((length, width))
    for representative in range(len(starts)):
        start, multiplicity = starts[representative], multiplicities[representative]
        vectors = np.zeros((length + 1, states, 1))
        vectors[0, start, 0] = 1.0
        for r in range(length):
            for state in range(states):
                vectors[r + 1, state, 0] = vectors[r, state, 0]
            _next_row(vectors[r + 1], 1, width, penalty, antiparallel, row)
        _correlate(vectors, start, multiplicity, width, correlation)

        polynomials = np.zeros((states, rest * width + 1))
        polynomials[start, 0] = 1.0
        halfway = polynomials
        for r in range(1, rest + 1):
            _next_row(polynomials, (r - 1) * width + 1, width, penalty, antiparallel, row)
            for state in range(states):
                _shift(polynomials[state], ups[state])
            if r == half:
                halfway = polynomials.copy()
        for state in range(states):
            for n in range(half * width + 1):
                weight = multiplicity * halfway[state, n]
                if weight > 0:
                    first = n + ups[start] - ups[state]
                    for i in range(ups[state], rest * width + 1):
                        counts[first + i] += weight * polynomials[state, i]
    return counts, correlation


@compiled
def _next_row(table, stop, width, penalty, antiparallel, row):
    """Apply T to the first index of the table, the state; columns 0, ..., stop - 1 of the second are in use."""
    states = len(row)
    for state in range(states):
        for n in range(stop):
            table[state, n] *= row[state]
    for site in range(width):
        bit = 1 << site
        for down in range(states):
            if down & bit == 0:
                up = down | bit
                for n in range(stop):
                    a, b = table[down, n], table[up, n]
                    if antiparallel:
                        a, b = b, a
                    table[down, n], table[up, n] = a + penalty * b, b + penalty * a
    for state in range(states):
        for n in range(stop):
            table[state, n] *= row[state]


@compiled
def _shift(polynomial, power):
    """Multiply by the power of the variable, in place."""
    for n in range(len(polynomial) - 1, -1, -1):
        polynomial[n] = polynomial[n - power] if n >= power else 0.0


@compiled
def _correlate(vectors, start, multiplicity, width, correlation):
    """Add the weighted products of the first row's spins and those of every other row, averaged along the rows."""
    length = len(vectors) - 1
    spins = np.empty(width)
    for r in range(length):
        for y in range(width):
            spins[y] = 0.0
        for state in range(vectors.shape[1]):
            weight = multiplicity * vectors[r, state, 0] * vectors[length - r, state, 0]
            for y in range(width):
                spins[y] += weight if state >> y & 1 else -weight
        for here in range(width):
            spin = 1.0 if start >> here & 1 else -1.0
            for there in range(width):
                correlation[r, (there - here) % width] += spin * spins[there] / width
