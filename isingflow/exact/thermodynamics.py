"""The exact ln Z, energy and heat capacity of a lattice, by the best method that it allows.

The results are those of the Ising spins, Z = sum over s of exp(s.K.s / 2 + beta H.s). For the continuous
(Hubbard-Stratonovich) normalisation of the same numbers, see `isingflow.HubbardStratonovich.free_energy`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isingflow.errors import NoExactSolution
from isingflow.exact import enumeration, kaufman, transfer_matrix
from isingflow.lattice import Lattice, check_magnet

Counted = tuple[float, float, float, float | None]
"""ln Z, the mean and the variance of x(s) = beta times minus the energy, and the mean of sum_i s_i."""
MAX_GRAPH_SITES = 10**4
"""Most sites of a graph whose connected parts are looked for."""


@dataclass(frozen=True)
class Thermodynamics:
    """Exact equilibrium properties of the Ising spins.

    Attributes:
        log_z: ln Z, total, in nats.
        energy_per_site: -d ln Z/d beta / N.
        heat_capacity_per_site: beta^2 d^2 ln Z/d beta^2 / N.
        method: "kaufman", "enumeration", "transfer-matrix" or "pfaffian".
        log_z_per_site: ln Z / N.
        magnetisation_per_site: d ln Z/d(beta H) / N for a field H added on every site: 0 without a field.
    """

    log_z: float
    energy_per_site: float
    heat_capacity_per_site: float
    method: str
    log_z_per_site: float
    magnetisation_per_site: float | None = None


def thermodynamics(lattice: Lattice, beta: float, field: float | np.ndarray | None = None) -> Thermodynamics:
    """Exact ln Z, energy, heat capacity and magnetisation at one inverse temperature.

    Uniform periodic square lattices are solved by Kaufman's formula up to 10**6 x 10**6; other square lattices, spin
    glasses too, by the transfer matrix up to width 16 (open) or 10 (periodic), and by Pfaffians beyond, up to 256x256
    (open) or 160x160 (periodic); any other graph by enumeration of its connected parts, each of at most 24 spins. In an
    external field, whose energy -sum H s counts, square lattices are solved by the transfer matrix alone, up to the
    same widths, and graphs by enumeration.

    Args:
        lattice: the spins and their bonds.
        beta: inverse temperature, finite, of either sign.
        field: an external field instead of the lattice's own, as for `Lattice.with_field`.

    Raises:
        InvalidInput: beta or field are not finite numbers, or beta times the couplings overflows.
        NoExactSolution: no method is affordable, or a wide frustrated lattice is too cold for Pfaffians (+-J glasses
            below a temperature of about 0.25 J); the message says what is possible.

    Example:
        >>> from isingflow.lattice import square
        >>> exact = thermodynamics(square(16), 0.44)
        >>> exact.method, round(exact.log_z, 6)
        ('kaufman', 238.387247)
    """
    beta = check_magnet(lattice, beta)
    if field is not None:
        lattice = lattice.with_field(field)
        check_magnet(lattice, beta)
    grid = lattice.kind in ("square", "edwards-anderson")
    total: float | None = 0.0
    if grid and lattice.boundary == "periodic" and lattice.uniform is not None and lattice.field is None:
        method = "kaufman"
        (lx, ly), (jx, jy) = lattice.shape, lattice.uniform
        log_z, energy, heat_capacity = kaufman.solve(lx, ly, jx, jy, beta)
    else:
        method, (log_z, mean, variance, total) = _solve_by_counting(lattice, beta, grid)
        energy = -mean / beta / lattice.sites if beta != 0 else 0.0
        heat_capacity = variance / lattice.sites
    magnetisation = None if total is None else total / lattice.sites
    return Thermodynamics(log_z, energy, heat_capacity, method, log_z / lattice.sites, magnetisation)


def _solve_by_counting(lattice: Lattice, beta: float, grid: bool) -> tuple[str, Counted]:
    if lattice.sites <= enumeration.SPIN_LIMIT:
        return "enumeration", _solve_components(lattice, beta)
    if not grid or lattice.field is not None:
        return "sweep", _swept(lattice, beta)
    from isingflow.exact import pfaffian  # with numpy's random numbers, slow to load

    if min(lattice.shape) > transfer_matrix.OPEN_WIDTH_LIMIT and lattice.sites > pfaffian.SITE_LIMIT:
        raise NoExactSolution(
            f"{lattice}: too large; uniform periodic lattices are solved at any size, other square lattices up to "
            f"{pfaffian.LARGEST}, or up to width {transfer_matrix.OPEN_WIDTH_LIMIT} (open) and "
            f"{transfer_matrix.PERIODIC_WIDTH_LIMIT} (periodic) if that takes no longer than an hour"
        )
    couplings = _grid_couplings(lattice, beta)
    if transfer_matrix.affordable(*couplings):
        return "transfer-matrix", (*transfer_matrix.solve(*couplings), 0.0)
    return "pfaffian", (*pfaffian.solve(*couplings), 0.0)


def _solve_in_field(lattice: Lattice, beta: float) -> Counted:
    if min(lattice.shape) <= transfer_matrix.OPEN_WIDTH_LIMIT:
        couplings = _grid_couplings(lattice, beta)
        if transfer_matrix.affordable(*couplings, fields=True):
            return transfer_matrix.polarised(*couplings, beta * lattice.field_by_site)
    raise NoExactSolution(
        f"{lattice}: no exact method in an external field; possible are square lattices of width up to "
        f"{transfer_matrix.OPEN_WIDTH_LIMIT} (open) and {transfer_matrix.PERIODIC_WIDTH_LIMIT} (periodic) if that "
        f"takes no longer than an hour, and any lattice of at most {enumeration.SPIN_LIMIT} spins"
    )


def _grid_couplings(lattice: Lattice, beta: float) -> tuple[np.ndarray, np.ndarray]:
    """beta jx and beta jy as (lx, ly) arrays, with zeros across open boundaries."""
    kx, ky = (beta * np.broadcast_to(np.asarray(strength), lattice.shape) for strength in (lattice.jx, lattice.jy))
    if lattice.boundary == "open":
        kx[-1, :], ky[:, -1] = 0.0, 0.0
    return kx, ky


def _solve_components(lattice: Lattice, beta: float) -> Counted:
    """Enumerate each connected part; ln Z, means and variances of independent parts add up."""
    if lattice.sites > MAX_GRAPH_SITES:
        raise NoExactSolution(_too_large(lattice, lattice.sites))
    from scipy.sparse import coo_array  # slow to load, and for graphs alone
    from scipy.sparse.csgraph import connected_components

    first, second = lattice.bonds.T
    couplings = coo_array((beta * lattice.strengths, (first, second)), shape=(lattice.sites, lattice.sites)).tocsr()
    couplings = couplings + couplings.T
    _, labels = connected_components(couplings, directed=False)
    sizes = np.bincount(labels)
    if sizes.max() > enumeration.SPIN_LIMIT:
        raise NoExactSolution(_too_large(lattice, int(sizes.max())))
    order = np.argsort(labels, kind="stable")
    parts = np.split(order, np.cumsum(sizes)[:-1])
    fields = beta * lattice.field_by_site.ravel()
    results = [enumeration.polarised(couplings[part][:, part].toarray(), fields[part]) for part in parts]
    log_z, mean, variance, total = np.sum(results, axis=0).tolist()
    return log_z, mean, variance, total


def _too_large(lattice: Lattice, spins: int) -> str:
    return (
        f"{lattice}: no exact method for {spins} connected spins; possible are graphs whose connected parts have at "
        f"most {enumeration.SPIN_LIMIT} spins, and square lattices "
        + ("of narrow widths" if lattice.field is not None else "(uniform periodic: any size; others: about 256x256)")
    )
