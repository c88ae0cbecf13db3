"""The exact ln Z, energy and heat capacity of a lattice, by the best method that it allows.

The results are those of the Ising spins, Z = sum over s of exp(s.K.s / 2 + beta H.s). For the continuous
(Hubbard-Stratonovich) normalisation of the same numbers, see `isingflow.HubbardStratonovich.free_energy`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from isingflow.errors import NoExactSolution
from isingflow.exact import chain, enumeration, kaufman, transfer_matrix, triangular
from isingflow.exact.transfer_matrix import LONGEST
from isingflow.lattice import Lattice, check_magnet
from isingflow.runtime.checks import number
from isingflow.runtime.resources import duration

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Counted = tuple[float, float, float, float | None]
"""ln Z, the mean and the variance of x(s) = beta times minus the energy, and the mean of sum_i s_i."""
METHODS = ("kaufman", "triangular-torus", "chain", "transfer-matrix", "pfaffian", "enumeration", "planar", "frontier")

MAX_GRAPH_SITES = 10**4
"""Most sites of a graph whose connected parts are looked for."""


@dataclass(frozen=True)
class Thermodynamics:
    """Exact equilibrium properties of the Ising spins.

    Attributes:
        log_z: ln Z, total, in nats.
        energy_per_site: -d ln Z/d beta / N.
        heat_capacity_per_site: beta^2 d^2 ln Z/d beta^2 / N.
        method: one of `METHODS`; of a graph of several parts the last there that one of them needs.
        log_z_per_site: ln Z / N.
        magnetisation_per_site: d ln Z/d(beta H) / N for a field H added on every site: 0 without a field.
    """

    log_z: float
    energy_per_site: float
    heat_capacity_per_site: float
    method: str
    log_z_per_site: float
    magnetisation_per_site: float | None = None


def thermodynamics(
    lattice: Lattice, beta: float, field: float | np.ndarray | None = None, *, longest: float = LONGEST
) -> Thermodynamics:
    """Exact ln Z, energy, heat capacity and magnetisation at one inverse temperature.

    Uniform periodic square lattices are solved by Kaufman's formula up to 10**6 x 10**6; other square lattices, spin
    glasses too, by the transfer matrix up to width 16 (open) or 10 (periodic), and by Pfaffians beyond, up to 256x256
    (open) or 160x160 (periodic); periodic triangular lattices by products over momenta up to 4096x4096; chains by 2x2
    transfer matrices up to 10**9 spins, 2**24 where couplings or fields vary. Any other
    lattice is solved part by part, up to 10**4 spins in all: connected parts of at most 24 spins by enumeration, larger
    ones if they are planar, such as open triangular lattices, or if a narrow frontier can sweep them: the periodic cube
    of length 4, slabs, strips in an external field, whose energy -sum H s counts, sparse random graphs.

    Args:
        lattice: the spins and their bonds.
        beta: inverse temperature, finite, of either sign.
        field: an external field instead of the lattice's own, as for `Lattice.with_field`.
        longest: seconds that a method may take, as estimated; an hour at most, and a few minutes of Pfaffians.

    Raises:
        InvalidInput: beta, field or longest are no such numbers, or beta times the couplings overflows.
        NoExactSolution: no method is affordable, or a wide frustrated lattice is too cold for Pfaffians (+-J glasses
            below a temperature of about 0.25 J); the message says what is possible.

    Example:
        >>> from isingflow.lattice import square
        >>> exact = thermodynamics(square(16), 0.44)
        >>> exact.method, round(exact.log_z, 6)
        ('kaufman', 238.387247)
    """
    beta, longest = check_magnet(lattice, beta), number("longest", longest, above=0, most=LONGEST)
    if field is not None:
        lattice = lattice.with_field(field)
        check_magnet(lattice, beta)
    grid = lattice.dimensions == 2 and lattice.kind != "triangular"
    total: float | None = 0.0
    if grid and lattice.boundary == "periodic" and lattice.uniform is not None and lattice.field is None:
        method = "kaufman"
        (lx, ly), (jx, jy) = lattice.shape, lattice.uniform
        log_z, energy, heat_capacity = kaufman.solve(lx, ly, jx, jy, beta)
    else:
        method, (log_z, mean, variance, total) = _solve_by_counting(lattice, beta, grid, longest)
        energy = -mean / beta / lattice.sites if beta != 0 else 0.0
        heat_capacity = variance / lattice.sites
    magnetisation = None if total is None else total / lattice.sites
    return Thermodynamics(log_z, energy, heat_capacity, method, log_z / lattice.sites, magnetisation)


def _solve_by_counting(lattice: Lattice, beta: float, grid: bool, longest: float) -> tuple[str, Counted]:
    periodic = lattice.kind == "triangular" and lattice.boundary == "periodic" and lattice.field is None
    if periodic and lattice.sites > enumeration.SPIN_LIMIT:
        lx, ly = lattice.shape
        return "triangular-torus", (*triangular.solve(lx, ly, beta), 0.0)
    if lattice.dimensions == 1 and lattice.sites > enumeration.SPIN_LIMIT:
        return "chain", _solve_chain(lattice, beta)
    if not grid or lattice.sites <= enumeration.SPIN_LIMIT:
        return _solve_components(lattice, beta, longest)
    if lattice.field is not None:
        couplings = _grid_couplings(lattice, beta)
        narrow = min(lattice.shape) <= transfer_matrix.OPEN_WIDTH_LIMIT
        if narrow and transfer_matrix.affordable(*couplings, fields=True, longest=longest):
            return "transfer-matrix", transfer_matrix.polarised(*couplings, beta * lattice.field_by_site)
        return _solve_components(lattice, beta, longest)
    from isingflow.exact import pfaffian  # with numpy's random numbers, slow to load

    if min(lattice.shape) > transfer_matrix.OPEN_WIDTH_LIMIT and lattice.sites > pfaffian.SITE_LIMIT:
        raise NoExactSolution(
            f"{lattice}: too large; uniform periodic lattices are solved at any size, other square lattices up to "
            f"{pfaffian.LARGEST}, or up to width {transfer_matrix.OPEN_WIDTH_LIMIT} (open) and "
            f"{transfer_matrix.PERIODIC_WIDTH_LIMIT} (periodic) if that takes no longer than an hour"
        )
    couplings = _grid_couplings(lattice, beta)
    if transfer_matrix.affordable(*couplings, longest=longest):
        return "transfer-matrix", (*transfer_matrix.solve(*couplings), 0.0)
    return "pfaffian", (*pfaffian.solve(*couplings, longest), 0.0)


def _solve_chain(lattice: Lattice, beta: float) -> Counted:
    assert lattice.j is not None
    strengths, (opened,) = lattice.j[0], lattice.open_axes
    if isinstance(strengths, float) and not isinstance(lattice.field, np.ndarray):
        return chain.uniform(lattice.sites, beta * strengths, beta * (lattice.field or 0.0), closed=not opened)
    couplings = beta * np.broadcast_to(np.asarray(strengths), lattice.shape)
    couplings[-1] *= not opened
    return chain.solve(couplings, None if lattice.field is None else beta * lattice.field_by_site)


def _grid_couplings(lattice: Lattice, beta: float) -> tuple[np.ndarray, np.ndarray]:
    """beta jx and beta jy as (lx, ly) arrays, with zeros across open boundaries."""
    kx, ky = (beta * np.broadcast_to(np.asarray(strength), lattice.shape) for strength in (lattice.jx, lattice.jy))
    open_x, open_y = lattice.open_axes
    kx[-1, :] *= not open_x
    ky[:, -1] *= not open_y
    return kx, ky


def _solve_components(lattice: Lattice, beta: float, longest: float) -> tuple[str, Counted]:
    """Solve each connected part by itself; ln Z, means and variances of independent parts add up."""
    if lattice.sites > MAX_GRAPH_SITES:
        raise NoExactSolution(
            f"{lattice}: no exact method for {lattice.sites} spins; possible are graphs of up to {MAX_GRAPH_SITES}"
        )
    from scipy.sparse import coo_array  # slow to load, and for graphs alone
    from scipy.sparse.csgraph import connected_components

    first, second = lattice.bonds.T
    couplings = coo_array((beta * lattice.strengths, (first, second)), shape=(lattice.sites, lattice.sites)).tocsr()
    couplings = couplings + couplings.T
    _, labels = connected_components(couplings, directed=False)
    sizes = np.bincount(labels)
    order = np.argsort(labels, kind="stable")
    parts = np.split(order, np.cumsum(sizes)[:-1])
    fields = None if lattice.field is None else beta * lattice.field_by_site.ravel()
    results = [
        _solve_connected(lattice, couplings[part][:, part], None if fields is None else fields[part], longest)
        for part in parts
    ]
    hardest = max((method for method, _ in results), key=METHODS.index)
    log_z, mean, variance, total = np.sum(
        [(*counted[:3], counted[3] or 0.0) for _, counted in results], axis=0
    ).tolist()
    return hardest, (log_z, mean, variance, total)


def _solve_connected(
    lattice: Lattice, couplings: csr_array, fields: np.ndarray | None, longest: float
) -> tuple[str, Counted]:
    """One connected part of a lattice."""
    spins = couplings.shape[0]
    if spins <= enumeration.SPIN_LIMIT:
        return "enumeration", enumeration.polarised(couplings.toarray(), fields)
    from isingflow.exact import frontier, planar  # with numpy's random numbers, slow to load

    pairs = couplings.tocoo()
    once = pairs.row < pairs.col
    bonds, strengths = np.stack([pairs.row, pairs.col], axis=1)[once].astype(np.int64), pairs.data[once]
    if fields is None:
        try:
            return "planar", (*planar.solve(spins, bonds, strengths, longest), 0.0)
        except NoExactSolution:  # not planar, or too cold
            pass
    sweep = frontier.sweep_of(spins, bonds)
    if not sweep.affordable(longest):
        narrow = sweep.width <= frontier.WIDTH_LIMIT
        this = f"{sweep.width}" + (f", {duration(sweep.cost * frontier.SECONDS)}" if narrow else "")
        raise NoExactSolution(
            f"{lattice}: no exact method for {spins} connected spins; possible are graphs whose connected parts have "
            f"at most {enumeration.SPIN_LIMIT} spins, are planar and without a field, or are swept by a frontier of at "
            f"most {frontier.WIDTH_LIMIT} spins in {duration(longest)} (this one: {this}), and square lattices "
            "without a field (uniform periodic: any size; others: about 256x256)"
        )
    return "frontier", frontier.solve(spins, bonds, strengths, fields, sweep)
