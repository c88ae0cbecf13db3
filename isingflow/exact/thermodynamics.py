"""The exact ln Z, energy and heat capacity of a lattice, by the best method that it allows.

The results are those of the Ising spins, Z = sum over s of exp(s.K.s / 2). For the continuous (Hubbard-Stratonovich)
normalisation of the same numbers, see `isingflow.HubbardStratonovich.free_energy`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from isingflow.errors import NoExactSolution
from isingflow.exact import enumeration, kaufman, transfer_matrix, triangular
from isingflow.lattice import Lattice, check_magnet

if TYPE_CHECKING:
    from scipy.sparse import csr_array

MAX_GRAPH_SITES = 10**4
"""Most sites of a graph whose connected parts are looked for."""


@dataclass(frozen=True)
class Thermodynamics:
    """Exact equilibrium properties of the Ising spins.

    Attributes:
        log_z: ln Z, total, in nats.
        energy_per_site: -d ln Z/d beta / N.
        heat_capacity_per_site: beta^2 d^2 ln Z/d beta^2 / N.
        method: "kaufman", "triangular-torus", "enumeration", "transfer-matrix", "pfaffian" or "planar"; of a graph with
            parts of both kinds, "planar".
        log_z_per_site: ln Z / N.
    """

    log_z: float
    energy_per_site: float
    heat_capacity_per_site: float
    method: str
    log_z_per_site: float


def thermodynamics(lattice: Lattice, beta: float) -> Thermodynamics:
    """Exact ln Z, energy and heat capacity at one inverse temperature.

    Uniform periodic square lattices are solved by Kaufman's formula up to 10**6 x 10**6; other square lattices, spin
    glasses too, by the transfer matrix up to width 16 (open) or 10 (periodic), and by Pfaffians beyond, up to 256x256
    (open) or 160x160 (periodic); periodic triangular lattices by products over momenta up to 4096x4096; any other
    graph part by part: connected parts of at most 24 spins by enumeration, larger ones, up to 10**4 spins, if they are
    planar, such as open triangular lattices.

    Args:
        lattice: the spins and their bonds.
        beta: inverse temperature, finite, of either sign.

    Raises:
        InvalidInput: beta is not a finite number, or beta times the couplings overflows.
        NoExactSolution: no method is affordable, or a wide frustrated lattice is too cold for Pfaffians (+-J glasses
            below a temperature of about 0.25 J); the message says what is possible.

    Example:
        >>> from isingflow.lattice import square
        >>> exact = thermodynamics(square(16), 0.44)
        >>> exact.method, round(exact.log_z, 6)
        ('kaufman', 238.387247)
    """
    beta = check_magnet(lattice, beta)
    grid = lattice.kind in ("square", "edwards-anderson")
    if grid and lattice.boundary == "periodic" and lattice.uniform is not None:
        method = "kaufman"
        (lx, ly), (jx, jy) = lattice.shape, lattice.uniform
        log_z, energy, heat_capacity = kaufman.solve(lx, ly, jx, jy, beta)
    else:
        method, (log_z, mean, variance) = _solve_by_counting(lattice, beta, grid)
        energy = -mean / beta / lattice.sites if beta != 0 else 0.0
        heat_capacity = variance / lattice.sites
    return Thermodynamics(log_z, energy, heat_capacity, method, log_z / lattice.sites)


def _solve_by_counting(lattice: Lattice, beta: float, grid: bool) -> tuple[str, tuple[float, float, float]]:
    if lattice.kind == "triangular" and lattice.boundary == "periodic" and lattice.sites > enumeration.SPIN_LIMIT:
        lx, ly = lattice.shape
        return "triangular-torus", triangular.solve(lx, ly, beta)
    if not grid or lattice.sites <= enumeration.SPIN_LIMIT:
        return _solve_components(lattice, beta)
    from isingflow.exact import pfaffian  # with numpy's random numbers, slow to load

    if min(lattice.shape) > transfer_matrix.OPEN_WIDTH_LIMIT and lattice.sites > pfaffian.SITE_LIMIT:
        raise NoExactSolution(
            f"{lattice}: too large; uniform periodic lattices are solved at any size, other square lattices up to "
            f"{pfaffian.LARGEST}, or up to width {transfer_matrix.OPEN_WIDTH_LIMIT} (open) and "
            f"{transfer_matrix.PERIODIC_WIDTH_LIMIT} (periodic) if that takes no longer than an hour"
        )
    couplings = _grid_couplings(lattice, beta)
    if transfer_matrix.affordable(*couplings):
        return "transfer-matrix", transfer_matrix.solve(*couplings)
    return "pfaffian", pfaffian.solve(*couplings)


def _grid_couplings(lattice: Lattice, beta: float) -> tuple[np.ndarray, np.ndarray]:
    """beta jx and beta jy as (lx, ly) arrays, with zeros across open boundaries."""
    kx, ky = (beta * np.broadcast_to(np.asarray(strength), lattice.shape) for strength in (lattice.jx, lattice.jy))
    if lattice.boundary == "open":
        kx[-1, :], ky[:, -1] = 0.0, 0.0
    return kx, ky


def _solve_components(lattice: Lattice, beta: float) -> tuple[str, tuple[float, float, float]]:
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
    results = [_solve_connected(couplings[part][:, part]) for part in parts]
    log_z, mean, variance = np.sum(results, axis=0).tolist()
    return "planar" if sizes.max() > enumeration.SPIN_LIMIT else "enumeration", (log_z, mean, variance)


def _solve_connected(couplings: csr_array) -> tuple[float, float, float]:
    """ln Z, mean and variance of one connected part."""
    spins = couplings.shape[0]
    if spins <= enumeration.SPIN_LIMIT:
        return enumeration.solve(couplings.toarray())
    from isingflow.exact import planar  # with numpy's random numbers, slow to load

    pairs = couplings.tocoo()
    once = pairs.row < pairs.col
    return planar.solve(spins, np.stack([pairs.row, pairs.col], axis=1)[once], pairs.data[once])
