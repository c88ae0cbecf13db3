"""The best Gaussian for a continuous Ising model in an external field: it has a mean.

Of all Normal(mu, Sigma) the bound on -ln Z,

    F = mu.A^-1.mu / 2 + tr(A^-1 Sigma) / 2 - sum_i E[ln cosh(x_i + b_i)] - ln det(2 pi e Sigma) / 2,    b = beta H,

is stationary at mu = A m, m_i = E[tanh(x_i + b_i)], and Sigma^-1 = A^-1 - diag(c), c_i = E[sech^2(x_i + b_i)]. F is not
convex: in the ordered phase there are solutions of either sign, and the best one found is taken. Where the lattice is
translation invariant these are two scalar equations, elsewhere both are solved by Newton steps, O(N^3) each. Along the
natural gradient, dc = E[sech^2] - c and dm = (I + diag(c) Sigma) (E[tanh] - m), F always falls: it is followed where a
Newton step leads upwards.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

from isingflow.flows.spectral import EigenBasis, SpectralBasis
from isingflow.targets.gaussian import (
    MeanField,
    best_gaussian,
    gaussian_averages,
    gaussian_of,
    root_of,
    uniform_bound,
    uniform_curvature,
)

COEXISTING = 5.0
"""Nats by which another solution may lie above the best one and still count as a part of the density."""
APART = 0.1
"""Difference of two solutions' mean spins from which they are two."""
STEPS = 60
NODES = np.sin(np.pi / 2 * np.linspace(-1, 1, 33))
"""Mean spins between which uniform solutions are looked for."""


class Gaussians(NamedTuple):
    """Gaussians of a magnet in a field.

    Attributes:
        best: the one with the smallest bound.
        start: where flows start. The same, unless states of another mean lie so close that a flow that starts from one
            of them would miss the other: then the best centred Gaussian, which covers both.
    """

    best: MeanField
    start: MeanField


def gaussians_in_field(
    basis: SpectralBasis, eigenvalues: Tensor, whitening_logdet: float, tilt: np.ndarray
) -> Gaussians:
    """The best Gaussian for E(x) = x.A^-1.x / 2 - sum ln cosh(x + b), and the one from which flows start.

    Args:
        basis: eigenbasis of A.
        eigenvalues: of A, float64, shape `basis.values_shape`.
        whitening_logdet: ln det A^1/2.
        tilt: b = beta H, of a field's shape; uniform unless the basis is an `EigenBasis`.
    """
    centred = best_gaussian(basis, eigenvalues, whitening_logdet, tilt)
    if isinstance(basis, EigenBasis):
        found = _by_site(basis, eigenvalues, whitening_logdet, tilt)
    else:
        found = _uniform(basis, eigenvalues, whitening_logdet, tilt)
    (best, spin), *others = sorted(found, key=lambda solution: solution[0].free_energy)
    near = [other for gaussian, other in others if gaussian.free_energy - best.free_energy < COEXISTING]
    alone = all(abs(other - spin) < APART for other in near)
    return Gaussians(min(best, centred, key=lambda gaussian: gaussian.free_energy), best if alone else centred)


def _uniform(
    basis: SpectralBasis, eigenvalues: Tensor, whitening_logdet: float, tilt: np.ndarray
) -> list[tuple[MeanField, float]]:
    """Solutions on a translation-invariant lattice, with their mean spins, by roots in m of E[tanh(A_0 m + b)] - m."""
    values, b = eigenvalues.cpu().numpy(), float(tilt.flat[0])
    zero_mode = values.flat[0]

    def excess(spin: float) -> float:
        mean = zero_mode * spin + b
        _, variances = uniform_curvature(values, mean)
        return float(gaussian_averages(np.mean(values * variances), mean).tanh) - spin

    found = []
    excesses = [excess(node) for node in NODES]
    for low, high, below, above in zip(NODES[:-1], NODES[1:], excesses[:-1], excesses[1:], strict=True):
        if below >= 0 >= above and below > above:  # a minimum of F along m; a maximum has the signs reversed
            spin = brentq(excess, low, high, xtol=1e-14, rtol=1e-13)
            mean = zero_mode * spin
            curvature, variances = uniform_curvature(values, mean + b)
            bound = uniform_bound(values, variances, mean, tilt, whitening_logdet)
            tensors = (torch.tensor(v, dtype=torch.float64) for v in (curvature, mean))
            device = eigenvalues.device
            found.append(
                (MeanField(bound, basis, *(v.to(device) for v in (torch.from_numpy(variances), *tensors))), spin)
            )
    return found


def _by_site(
    basis: EigenBasis, eigenvalues: Tensor, whitening_logdet: float, tilt: np.ndarray
) -> list[tuple[MeanField, float]]:
    """Solutions without translation invariance, with their mean spins: from all spins up, all down, along the field."""
    values, b = eigenvalues.cpu().numpy(), tilt.ravel()
    root = root_of(basis, values)
    starts = {tuple(start) for start in (np.ones_like(b), -np.ones_like(b), np.sign(b))}
    found = []
    for start in sorted(starts):
        pull, curvature = _descend(root, b, np.array(start))
        gaussian = gaussian_of(basis, root, curvature, pull, b, whitening_logdet)
        found.append((gaussian, float(pull.mean())))
    return found


class _Point(NamedTuple):
    """m, c and the covariance of x, shape (N, N), with F up to a constant."""

    pull: np.ndarray
    curvature: np.ndarray
    covariance: np.ndarray
    bound: float


def _descend(root: np.ndarray, tilt: np.ndarray, pull: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """m and c, shape (N,) each, of a minimum of F below the start m = `pull`; root = A^1/2."""
    identity, matrix = np.eye(len(root)), root @ root

    def point(m: np.ndarray, c: np.ndarray) -> _Point:
        try:
            factor = np.linalg.cholesky(identity - root * c @ root)
        except np.linalg.LinAlgError:
            return _Point(m, c, identity, math.inf)
        half = np.linalg.solve(factor, root)
        covariance = half.T @ half
        v, mean = np.diag(covariance), matrix @ m
        log_cosh = gaussian_averages(v, mean + tilt).ln_cosh
        bound = m @ mean / 2 + np.log(np.diag(factor)).sum() + (c * v / 2 - log_cosh).sum()
        return _Point(m, c, covariance, float(bound))

    here = point(pull, np.zeros_like(pull))
    for _ in range(STEPS):
        m, c, covariance, _ = here
        averages = gaussian_averages(np.diag(covariance), matrix @ m + tilt)
        missing, bend = averages.tanh - m, averages.sech_squared - c
        if np.abs(missing).max() < 1e-11 and np.all(np.abs(bend) <= 1e-11 * averages.sech_squared):
            break
        squared = covariance**2

        def step(dc: np.ndarray, push: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return push + c * (covariance @ push), dc  # noqa: B023

        third, slope = averages.third[:, None], averages.slope[:, None]
        jacobian = identity - slope * squared - third * covariance @ (third * squared) / 2
        dc = np.linalg.solve(jacobian, bend + averages.third * (covariance @ missing))
        newton = step(dc, missing + averages.third * (squared @ dc) / 2)
        for direction, halvings in ((newton, 4), (step(bend, missing), 40)):
            trials = (point(m + direction[0] / 2**n, c + direction[1] / 2**n) for n in range(halvings))
            lower = next((trial for trial in trials if trial.bound <= here.bound + 1e-14 * abs(here.bound)), None)
            if lower is not None:
                break
        if lower is None:
            break
        here = lower
    return here.pull, here.curvature
