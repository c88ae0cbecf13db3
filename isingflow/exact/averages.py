"""Every observable that has an exact answer, by the name that `observables.Observables` gives it."""

from __future__ import annotations

import math

from isingflow.errors import NoExactSolution
from isingflow.exact.moments import along_axes, moments
from isingflow.exact.thermodynamics import Thermodynamics, thermodynamics
from isingflow.lattice import Lattice

MOST_MOMENT_SITES = 144
"""Of lattices whose exact magnetisation takes seconds at most."""


def averages(lattice: Lattice, beta: float, solution: Thermodynamics | None = None) -> dict[str, float | list[float]]:
    """Exact energy, heat capacity, magnetisation and G(r), as far as they are known and take no longer than seconds.

    Args:
        lattice: the spins and their bonds.
        beta: inverse temperature.
        solution: what `thermodynamics` gives, if it was found before.

    Returns:
        Values by name, of `correlation_function` a list; empty where nothing is known.

    Example:
        >>> from isingflow.lattice import square
        >>> known = averages(square(64), 0.44)
        >>> list(known), list(averages(square(4), 0.44))[2:4]
        (['energy_per_site', 'heat_capacity_per_site'], ['magnetisation_abs', 'magnetisation_squared'])
    """
    found: dict[str, float] = {}
    along: dict[str, float | list[float]] = {}
    try:
        solution = thermodynamics(lattice, beta) if solution is None else solution
        found |= {name: getattr(solution, name) for name in ("energy_per_site", "heat_capacity_per_site")}
        if lattice.field is not None and solution.magnetisation_per_site is not None:
            found["magnetisation"] = solution.magnetisation_per_site
    except NoExactSolution:
        pass
    if lattice.sites <= MOST_MOMENT_SITES:
        try:
            known = moments(lattice, beta)
        except NoExactSolution:
            return {**found}
        names = ("magnetisation_abs", "magnetisation_squared", "magnetisation_fourth", "binder")
        found |= {name: getattr(known, name) for name in names}
        found["susceptibility"] = lattice.sites * (known.magnetisation_squared - known.magnetisation**2)
        if lattice.boundary == "periodic":
            along["correlation_function"] = along_axes(known.correlation, len(lattice.shape)).tolist()
    return {name: value for name, value in found.items() if math.isfinite(value)} | along
