"""Observables of Ising spins, from spins or from fields, weighted or along chains, each with its error bar.

Given a field x of the continuous representation the spins are independent, with means t_i = tanh(x_i + beta H_i), H
the external field, and s_i^2 = 1. So every polynomial of the spins has a closed-form mean E[. | x], which fluctuates
less than the polynomial of spins drawn:

    E[s_i s_j]  = t_i t_j, and 1 for i = j
    E[M^4]      = K_4 + 4 K_3 K_1 + 3 K_2^2 + 6 K_2 K_1^2 + K_1^4,    M = sum s, with cumulants K_n of M given x
    Var[E]      = sum_i v_i h_i^2 + sum over pairs J_ij^2 v_i v_j,    v_i = 1 - t_i^2, h = J t + H

for E = -s.J.s / 2 - H.s (the last because E + t.J.t / 2 + H.t is a sum of uncorrelated terms, -h_i (s_i - t_i) and
-J_ij (s_i - t_i)(s_j - t_j)). Spins are the special case t = s, v = 0: both are measured by the same formulas. |m| is
no polynomial and needs spins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.fft import fftn, irfftn, rfftn

from isingflow.exact.moments import along_axes
from isingflow.lattice import Lattice, check_magnet
from isingflow.lattice.grid import units as grid_units
from isingflow.observables.series import Means, Series, per_sample
from isingflow.statistics.chains import autocorrelation_time
from isingflow.statistics.estimate import Estimate, Estimates
from isingflow.statistics.jackknife import MAX_BLOCKS, block_starts, block_sums, jackknife_sums
from isingflow.statistics.weights import effective_fraction, relative_weights

MAX_BLOCK_SUMS = 2**23
"""Most numbers kept as sums over blocks; beyond, blocks are fewer (not below 16)."""


@dataclass(frozen=True, eq=False)
class Observables:
    """Averages over the Ising distribution at one temperature, with one sigma errors.

    Attributes:
        lattice, beta: what was measured.
        samples, blocks: numbers of samples and of jackknife blocks.
        effective_sample_size: of the weights, (sum w)^2 / (n sum w^2), between 1/n and 1.
        energy_per_site: -d ln Z/d beta / N, the energy in the external field included.
        heat_capacity_per_site: beta^2 d^2 ln Z/d beta^2 / N = beta^2 Var(E) / N.
        magnetisation_abs: <|m|>; None without spins.
        magnetisation_squared, magnetisation_fourth: <m^2> and <m^4>.
        binder: 1 - <m^4> / (3 <m^2>^2).
        susceptibility: N <m^2>, not connected: <|m|>^2 is not subtracted. In an external field connected,
            N (<m^2> - <m>^2) = d <m> / d(beta H).
        correlation_length: second-moment xi = sqrt(S(0) / S(k) - 1) / (2 sin(k / 2)), k = 2 pi / L, averaging S(k) over
            the axes of the largest length L, in units of the bond length; None on graphs and where S(0) <= S(k). In an
            external field that of the connected S(k), without |sum_r <s_r> exp(-i k.r)|^2 / N.
        correlation_function: G(r) at r = 0 .. L // 2 along those axes, averaged over them; None on graphs.
        correlations: G(d) = mean of s(r) s(r + d) over all such pairs, of the lattice's shape; None on graphs.
        structure_factor: S(k) = <|sum_r s_r exp(-i k.r)|^2> / N, of the lattice's shape, by momentum in fftn order;
            None on graphs.
        autocorrelation_times: tau of energy_per_site and magnetisation_squared, in samples (1/2: independent, see
            `isingflow.statistics`); empty unless the samples are chains.
        magnetisation: <m>, in an external field; None without one, where it is 0.
    """

    lattice: Lattice
    beta: float
    samples: int
    blocks: int
    effective_sample_size: float
    energy_per_site: Estimate
    heat_capacity_per_site: Estimate
    magnetisation_abs: Estimate | None
    magnetisation_squared: Estimate
    magnetisation_fourth: Estimate
    binder: Estimate
    susceptibility: Estimate
    correlation_length: Estimate | None
    correlation_function: Estimates | None
    correlations: Estimates | None
    structure_factor: Estimates | None
    autocorrelation_times: Mapping[str, Estimate]
    magnetisation: Estimate | None = None

    def as_dict(self) -> dict[str, Any]:
        """The JSON form, with the keys of `isingflow observables --json`; null for what is not defined or infinite."""
        correlations, factor = self.correlation_function, self.structure_factor
        return {
            **{name: None if estimate is None else estimate.as_dict() for name, estimate in self._scalars().items()},
            "correlation_function": None if correlations is None else [g.as_dict() for g in correlations.scalars()],
            "structure_factor": None if factor is None else factor.as_dict(),
        }

    def table(self, exact: Mapping[str, Any] | None = None) -> str:
        """One observable a line, for people, with exact answers beside those named in `exact`."""
        exact = exact or {}
        weights = 100 * self.effective_sample_size
        lines = [
            f"{self.lattice}, beta {self.beta:.10g}, {self.samples} samples in {self.blocks} blocks"
            + ("" if self.effective_sample_size == 1 else f", effective sample size of their weights {weights:.2g} %")
        ]
        words = {} if self.magnetisation is None else {"susceptibility": "susceptibility (connected)"}
        rows = [
            (words.get(name, name.replace("_", " ")), estimate, exact.get(name))
            for name, estimate in self._scalars().items()
        ]
        along = dict(enumerate(exact.get("correlation_function", [])))
        correlations = [] if self.correlation_function is None else self.correlation_function.scalars()
        rows += [(f"G({r})", estimate, along.get(r)) for r, estimate in enumerate(correlations)]
        rows += [(f"tau of {name}".replace("_", " "), tau, None) for name, tau in self.autocorrelation_times.items()]
        for name, estimate, answer in rows:
            known = "" if answer is None else f"    exact {answer:.8g}"
            lines.append(f"  {name:<30}{'not defined' if estimate is None else str(estimate):>26}{known}")
        return "\n".join(lines)

    def _scalars(self) -> dict[str, Estimate | None]:
        return {
            "energy_per_site": self.energy_per_site,
            "heat_capacity_per_site": self.heat_capacity_per_site,
            **({} if self.magnetisation is None else {"magnetisation": self.magnetisation}),
            "magnetisation_abs": self.magnetisation_abs,
            "magnetisation_squared": self.magnetisation_squared,
            "magnetisation_fourth": self.magnetisation_fourth,
            "binder": self.binder,
            "susceptibility": self.susceptibility,
            "correlation_length": self.correlation_length,
        }


def measure(
    lattice: Lattice,
    beta: float,
    *,
    spins: np.ndarray | None = None,
    field: np.ndarray | None = None,
    log_weight: np.ndarray | None = None,
) -> Observables:
    """All observables of one set of samples.

    Samples with one leading axis, (n, *shape), are independent; with two, (chains, samples, *shape), they are chains,
    correlated along the second. Where fields are given, everything but |m| is measured by them. The work is done in
    batches, so that no second copy of the samples is made.

    Args:
        lattice: the spins' lattice.
        beta: their inverse temperature; only the heat capacity depends on it and, in an external field, what fields x
            say of the spins.
        spins: +1 or -1, shape (n, *lattice.shape) or (chains, samples, *lattice.shape), of any dtype.
        field: x of the continuous representation, with the same leading axes as the spins, or without spins.
        log_weight: logarithms of importance weights, of the leading axes' shape; a constant added to them is without
            effect.

    Raises:
        InvalidInput: neither spins nor field, shapes that do not fit, fewer than 2 samples, spins other than +1 and -1,
            fields that are not finite, NaN weights, or none above zero; beta times the couplings overflows.

    Example:
        >>> from isingflow.lattice import square
        >>> spins = np.random.default_rng(0).choice([-1, 1], size=(4000, 8, 8))
        >>> observables = measure(square(8), 0.0, spins=spins)
        >>> print(observables.energy_per_site, "|", observables.susceptibility)
        0.0025 ± 0.0028 | 0.984 ± 0.022
    """
    beta = check_magnet(lattice, beta)
    means = Means.of(lattice, spins, field, beta)
    series = per_sample(lattice, spins=spins, field=field, beta=beta)
    weights = relative_weights(log_weight, means.leading)

    reference = series.energy.mean()
    excess = series.energy - reference
    quantities = [
        excess,
        excess**2 + series.energy_variance,
        series.magnetisation_squared,
        series.magnetisation_fourth,
        series.magnetisation,
    ]
    if series.magnetisation_abs is not None:
        quantities.append(series.magnetisation_abs)
    columns = np.stack(quantities, axis=-1)

    def scalars(mean: np.ndarray) -> np.ndarray:
        energy, square, second, fourth, first, *rest = np.moveaxis(mean, -1, 0)
        per_site = [(energy + reference) / lattice.sites, beta**2 * (square - energy**2) / lattice.sites]
        fluctuation = second if lattice.field is None else second - first**2
        binder = 1 - fourth / (3 * second**2)
        return np.stack([*per_site, second, fourth, binder, lattice.sites * fluctuation, first, *rest], -1)

    most = max(16, min(MAX_BLOCKS, MAX_BLOCK_SUMS // math.prod(_displacements(lattice))))
    starts = block_starts(columns, weights, most)
    totals = np.add.reduceat(weights.ravel(), starts)
    sums = block_sums(columns, weights, starts)
    estimates = jackknife_sums(scalars, sums, totals)
    assert isinstance(estimates, Estimates)
    energy, heat_capacity, second, fourth, binder, susceptibility, first, *rest = estimates.scalars()
    return Observables(
        lattice=lattice,
        beta=beta,
        samples=weights.size,
        blocks=len(starts),
        effective_sample_size=effective_fraction(weights),
        energy_per_site=energy,
        heat_capacity_per_site=heat_capacity,
        magnetisation_abs=rest[0] if rest else None,
        magnetisation_squared=second,
        magnetisation_fourth=fourth,
        binder=binder,
        susceptibility=susceptibility,
        autocorrelation_times=_autocorrelation_times(series),
        magnetisation=None if lattice.field is None else first,
        **_spatial(lattice, means, weights, starts, totals),
    )


def _autocorrelation_times(series: Series) -> dict[str, Estimate]:
    """By name; empty for independent samples and for chains too short to tell."""
    if series.energy.ndim == 1 or series.energy.shape[1] < 4:
        return {}
    quantities = {"energy_per_site": series.energy, "magnetisation_squared": series.magnetisation_squared}
    return {name: autocorrelation_time(values) for name, values in quantities.items()}


def _displacements(lattice: Lattice) -> tuple[int, ...]:
    """Shape of the grid of displacements between sites; open lattices have negative ones too."""
    return tuple((1 + end) * length for length, end in zip(lattice.shape, lattice.open_axes, strict=True))


def _pair_sums(lattice: Lattice, means: Means, weights: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Weighted sums over every block of E[sum_r s(r) s(r + d) | sample], shape (blocks, *displacements).

    By Wiener and Khinchin; open directions are padded with as many zeros, so that nothing wraps around.
    """
    grid = _displacements(lattice)
    axes = tuple(range(-len(grid), 0))
    weights = weights.ravel()
    power = np.zeros((len(starts), *grid[:-1], grid[-1] // 2 + 1))
    stops = np.append(starts[1:], means.count)
    for block, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        for rows, t in means.batches(start, stop):
            power[block] += np.tensordot(weights[rows], np.abs(rfftn(t, s=grid, axes=axes)) ** 2, 1)
    sums = irfftn(power, s=grid, axes=axes)
    origin: tuple[Any, ...] = (slice(None), *[0] * len(grid))
    sums[origin] = lattice.sites * np.add.reduceat(weights, starts)
    return sums


def _site_sums(means: Means, weights: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Weighted sums over every block of E[s | sample], shape (blocks, *shape)."""
    weights, sums = weights.ravel(), np.zeros((len(starts), *means.shape))
    stops = np.append(starts[1:], means.count)
    for block, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        for rows, t in means.batches(start, stop):
            sums[block] += np.tensordot(weights[rows], t, 1)
    return sums


def _spatial(
    lattice: Lattice, means: Means, weights: np.ndarray, starts: np.ndarray, totals: np.ndarray
) -> dict[str, Any]:
    """The observables that depend on displacement or momentum, by name."""
    if lattice.dimensions is None:
        return dict.fromkeys(("correlation_length", "correlation_function", "correlations", "structure_factor"))
    sums = _pair_sums(lattice, means, weights, starts)
    functions = {
        "correlation_length": _length_squared,
        "correlation_function": _along_axes,
        "correlations": _correlations,
        "structure_factor": _structure_factor,
    }
    estimates = {name: jackknife_sums(partial(function, lattice), sums, totals) for name, function in functions.items()}
    if lattice.field is not None:
        blocks = (sums, _site_sums(means, weights, starts))
        joined = np.concatenate([part.reshape(len(part), -1) for part in blocks], axis=1)
        estimates["correlation_length"] = jackknife_sums(partial(_connected_length_squared, lattice), joined, totals)
    squared = estimates["correlation_length"]
    assert isinstance(squared, Estimate)
    return estimates | {"correlation_length": length_of(lattice, squared)}


# Functions of the mean pair sums, shape (..., *displacements).


def _correlations(lattice: Lattice, pairs: np.ndarray) -> np.ndarray:
    """G at displacements that are not negative, shape (..., *lattice.shape)."""
    counts = [length - end * np.arange(length) for length, end in zip(lattice.shape, lattice.open_axes, strict=True)]
    inside: tuple[Any, ...] = (..., *(slice(length) for length in lattice.shape))
    return pairs[inside] / math.prod(np.ix_(*counts))


def _along_axes(lattice: Lattice, pairs: np.ndarray) -> np.ndarray:
    """G(r), averaged over the axes of the largest length L, shape (..., L // 2 + 1)."""
    return along_axes(_correlations(lattice, pairs), len(lattice.shape))


def _structure_factor(lattice: Lattice, pairs: np.ndarray) -> np.ndarray:
    """S(k), shape (..., *lattice.shape)."""
    # On the padded grid of an open direction every second momentum is one of the lattice itself.
    steps: tuple[Any, ...] = (..., *(slice(None, None, 1 + end) for end in lattice.open_axes))
    axes = tuple(range(-len(lattice.shape), 0))
    return fftn(pairs, axes=axes).real[steps] / lattice.sites


def _length_squared(lattice: Lattice, pairs: np.ndarray) -> np.ndarray:
    """xi^2 = (S(0) / S(k) - 1) / (2 sin(k / 2))^2 in units of the rows' distance, shape (...)."""
    return _length_squared_from(lattice, _structure_factor(lattice, pairs))


def _connected_length_squared(lattice: Lattice, joined: np.ndarray) -> np.ndarray:
    """The same of the connected S(k), from pair sums and mean spins side by side, shape (..., displacements + N)."""
    grid = _displacements(lattice)
    pairs, spins = np.split(joined, [math.prod(grid)], axis=-1)
    if lattice.translation_invariant:
        spins = np.broadcast_to(spins.mean(-1, keepdims=True), spins.shape)
    leading, axes = joined.shape[:-1], tuple(range(-len(lattice.shape), 0))
    power = np.abs(np.fft.fftn(spins.reshape(*leading, *lattice.shape), axes=axes)) ** 2
    factor = _structure_factor(lattice, pairs.reshape(*leading, *grid)) - power / lattice.sites
    return _length_squared_from(lattice, factor)


def _length_squared_from(lattice: Lattice, factor: np.ndarray) -> np.ndarray:
    """xi^2 from S(k), shape (..., *lattice.shape)."""
    longest, dimensions = max(lattice.shape), len(lattice.shape)
    by_momentum = np.moveaxis(factor.reshape(*factor.shape[:-dimensions], -1), -1, 0)
    at = [np.ravel_multi_index(unit, lattice.shape) for unit in grid_units(dimensions)]
    at_k = np.mean([by_momentum[k] for k, length in zip(at, lattice.shape, strict=True) if length == longest], axis=0)
    return (by_momentum[0] / at_k - 1) / (2 * math.sin(math.pi / longest)) ** 2


def length_of(lattice: Lattice, squared: Estimate) -> Estimate | None:
    """xi in bond lengths; None where its square, which may be anything within its error of zero, is not positive."""
    if not squared.value > 0:
        return None
    length = math.sqrt(squared.value)
    return row_spacing(lattice) * Estimate(length, squared.stderr / (2 * length))


def row_spacing(lattice: Lattice) -> float:
    """Distance of the rows of sites normal to k: a bond on square lattices, sqrt(3) / 2 of one on triangular ones."""
    return math.sqrt(0.75) if lattice.kind == "triangular" else 1.0
