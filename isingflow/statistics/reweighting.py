"""Multi-histogram reweighting: chains at several temperatures together give averages at every temperature between.

With the energies E_n of all samples, c_n how often each counts, and n_k samples at beta_k, the most likely Z_k are
those with (Ferrenberg and Swendsen 1989; without histograms, Shirts and Chodera 2008)

    Z_k = sum_n c_n exp(-beta_k E_n) / D_n,     D_n = sum_j n_j exp(-beta_j E_n) / Z_j,

the minimum of the convex function sum_n c_n ln D_n + sum_k n_k ln Z_k, which Newton's steps find. Averages at any beta
weight the samples by exp(-beta E_n) / D_n. Samples of equal energy count as one, so that the sums of most lattices are
short. Errors are by the bootstrap over blocks in time, of which every draw solves the equations again: from the
solution of all samples, with their Hessian, for all draws at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import linalg, sparse
from scipy.special import logsumexp

from isingflow.errors import InvalidInput
from isingflow.runtime.checks import LARGEST_SEED, array, count, instance
from isingflow.runtime.resources import require_memory
from isingflow.statistics.jackknife import block_starts

RESAMPLES = 200
MOST_RESAMPLES = 10**5
MOST_BLOCKS = 64
"""Blocks of the chains at one temperature."""
LEAST_OVERLAP = 1e-4
"""Gap of the overlap matrix, below which temperatures are too far apart to be taken together."""
_TOLERANCE = 1e-10
"""Of a sum that is a number of samples, relative to it."""
_NEWTON_STEPS, _DRAW_STEPS = 100, 60
_BATCH = 2**24
"""Numbers that are worked on at once."""


class Reweighting:
    """Chains at several inverse temperatures, taken together.

    Args:
        betas: inverse temperatures, shape (R,), in any order; one may occur twice.
        energies: of the chains at each of them, R arrays of shape (chains, samples).
        columns: what is to be averaged, R arrays of shape (chains, samples, k).
        resamples: draws of the bootstrap.
        seed: of the draws.

    Attributes:
        betas: as above.
        log_z: ln Z at each of them less that at the first, shape (R,).
        overlap: gap of the matrix of overlaps between temperatures, 1 minus its second eigenvalue: 1 where all samples
            might be of any of them, 0 where some share no energies with the others.

    Raises:
        InvalidInput: shapes that do not fit, numbers that are not finite, fewer than two samples at a temperature, or
            too little memory. WrongType: no real numbers.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> betas = np.array([0.0, 0.5, 1.0])  # of a Gaussian density of states, <E> = -beta
        >>> energies = [rng.normal(-beta, 1.0, size=(4, 1000)) for beta in betas]
        >>> together = Reweighting(betas, energies, [e[..., None] for e in energies])
        >>> together.log_z.round(1), together.means([0.7]).round(1)
        (array([0. , 0.1, 0.5]), array([[-0.7]]))
    """

    def __init__(
        self,
        betas: Sequence[float] | np.ndarray,
        energies: Sequence[np.ndarray],
        columns: Sequence[np.ndarray],
        *,
        resamples: int = RESAMPLES,
        seed: int = 0,
    ) -> None:
        self.betas = array("betas", betas, (None,))
        self.resamples = count("resamples", resamples, least=2, most=MOST_RESAMPLES)
        seed = count("seed", seed, least=0, most=LARGEST_SEED)
        energies = instance("energies", energies, Sequence, "a list of arrays, one for each temperature")
        columns = instance("columns", columns, Sequence, "a list of arrays, one for each temperature")
        if not len(energies) == len(columns) == len(self.betas):
            raise InvalidInput(
                f"{len(self.betas)} temperatures, energies of {len(energies)} and columns of {len(columns)}: expected "
                "as many of each"
            )
        energies = [array("energies", values, (None, None)) for values in energies]
        columns = [
            array("columns", values, (*shape.shape, None)) for values, shape in zip(columns, energies, strict=True)
        ]
        if len({values.shape[-1] for values in columns}) > 1:
            raise InvalidInput("columns: expected the same number of them at every temperature")
        total = sum(values.size for values in energies)
        room = 8.0 * total * (columns[0].shape[-1] + len(self.betas) + 4)
        require_memory(f"{total} samples at {len(self.betas)} temperatures", room, "fewer samples may fit")
        self._solve(energies, columns, np.random.default_rng(seed))

    def _solve(self, energies: list[np.ndarray], columns: list[np.ndarray], rng: np.random.Generator) -> None:
        levels, entry = np.unique(np.concatenate([values.ravel() for values in energies]), return_inverse=True)
        counts = np.array([values.size for values in energies], float)
        self._levels = levels
        ones = np.bincount(entry).astype(float)
        self.log_z = _log_z(self.betas, levels, ones, counts, _begin(self.betas, energies))
        exponents = self.log_z + self.betas * levels[:, None]
        self._log_density = logsumexp(np.log(counts) - exponents, axis=1)
        self._terms = np.exp(-exponents - self._log_density[:, None])
        shares = self._terms * counts
        together = shares.T @ (ones[:, None] * shares)
        second = np.sort(linalg.eigvals(together / counts[:, None]).real)[-2] if len(counts) > 1 else 0.0
        self.overlap = float(1 - second)
        block_of, draws = _draws(energies, columns, self.resamples, rng)
        blocks = len(draws)
        stacked = np.concatenate([values.reshape(-1, values.shape[-1]) for values in columns])
        self._sums = [
            sparse.csr_array((values, (entry, block_of)), shape=(len(levels), blocks))
            for values in (np.ones(len(entry)), *stacked.T)
        ]
        of_state = np.repeat(np.arange(len(counts)), [values.size for values in energies])
        sizes = sparse.csr_array((np.ones(len(entry)), (of_state, block_of)), shape=(len(counts), blocks))
        self._draws = draws
        self._counts, self._drawn_counts = counts, sizes @ draws
        self._drawn_log_z = self._solve_draws(np.diag(counts) - together)

    def _solve_draws(self, hessian: np.ndarray) -> np.ndarray:
        """ln Z of every draw less that of all samples, shape (R, resamples)."""
        found = np.zeros((len(self._counts), self.resamples))
        if len(self._counts) == 1:
            return found
        step = linalg.pinvh(hessian[1:, 1:])
        for part in self._parts():
            ones, counts = self._sums[0] @ self._draws[:, part], self._drawn_counts[:, part]
            change = found[:, part]
            for _ in range(_DRAW_STEPS):
                weighted = counts * np.exp(-change)
                missing = weighted * (self._terms.T @ (ones / (self._terms @ weighted))) - counts
                if np.all(np.abs(missing) <= 1e3 * _TOLERANCE * counts):
                    break
                change[1:] += np.clip(step @ missing[1:], -1, 1)
            found[:, part] = change
        return found

    def _parts(self) -> list[slice]:
        """Draws that are worked on at once."""
        length = max(1, _BATCH // max(1, len(self._levels)))
        return [slice(first, first + length) for first in range(0, self.resamples, length)]

    def means(self, betas: Sequence[float] | np.ndarray) -> np.ndarray:
        """The columns' means at inverse temperatures within the range of the chains, shape (n, k).

        Raises:
            InvalidInput: a temperature outside; WrongType: no real numbers.
        """
        weights = self._weights(betas)
        ones = np.ones(len(self._draws))
        sums = np.stack([weights @ (column @ ones) for column in self._sums])
        return (sums[1:] / sums[0]).T

    def replicates(self, betas: Sequence[float] | np.ndarray) -> np.ndarray:
        """The same of every draw of the bootstrap, shape (resamples, n, k): their spread is the error.

        Raises:
            InvalidInput: as for `means`.
        """
        weights = self._weights(betas)
        found = np.empty((self.resamples, len(weights), len(self._sums) - 1))
        for part in self._parts():
            density = self._terms @ (self._drawn_counts[:, part] * np.exp(-self._drawn_log_z[:, part]))
            sums = np.stack([weights @ ((column @ self._draws[:, part]) / density) for column in self._sums])
            found[part] = (sums[1:] / sums[0]).transpose(2, 1, 0)
        return found

    def _weights(self, betas: Sequence[float] | np.ndarray) -> np.ndarray:
        """exp(-beta E) / D of all energies relative to the largest, shape (n, levels)."""
        asked = array("betas", betas, (None,))
        low, high = self.betas.min(), self.betas.max()
        room = 1e-12 * max(abs(low), abs(high))
        if asked.min() < low - room or asked.max() > high + room:
            raise InvalidInput(f"betas: expected temperatures within {low:.10g} to {high:.10g}, those of the chains")
        exponents = -asked[:, None] * self._levels - self._log_density
        return np.exp(exponents - exponents.max(axis=1, keepdims=True))


def _begin(betas: np.ndarray, energies: list[np.ndarray]) -> np.ndarray:
    """ln Z by the trapezoidal rule, -d ln Z / d beta = <E>."""
    order = np.argsort(betas)
    means = np.array([energies[k].mean() for k in order])
    steps = -np.diff(betas[order]) * (means[1:] + means[:-1]) / 2
    found = np.empty(len(betas))
    found[order] = np.concatenate([[0.0], np.cumsum(steps)])
    return found - found[0]


def _log_z(
    betas: np.ndarray, levels: np.ndarray, ones: np.ndarray, counts: np.ndarray, log_z: np.ndarray
) -> np.ndarray:
    """The minimum of the convex function, by Newton's steps that are halved until they go down."""

    def value_of(log_z: np.ndarray) -> tuple[float, np.ndarray]:
        exponents = np.log(counts) - log_z - betas * levels[:, None]
        density = logsumexp(exponents, axis=1)
        return float(ones @ density + counts @ log_z), np.exp(exponents - density[:, None])

    value, shares = value_of(log_z)
    for _ in range(_NEWTON_STEPS):
        missing = ones @ shares - counts
        if np.all(np.abs(missing) <= _TOLERANCE * counts):
            break
        hessian = np.diag(ones @ shares) - shares.T @ (ones[:, None] * shares)
        step = np.zeros(len(betas))
        step[1:] = linalg.pinvh(hessian[1:, 1:]) @ missing[1:]
        for _ in range(40):
            there, found = value_of(log_z + step)
            if there <= value + 1e-12 * abs(value):
                break
            step /= 2
        log_z, value, shares = log_z + step, there, found
    return log_z


def _draws(
    energies: list[np.ndarray], columns: list[np.ndarray], resamples: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The block of every sample, shape (samples,), and how often each draw has every block, (blocks, resamples).

    Of n blocks n - 1 are drawn and count n / (n - 1) times: else the variance of a mean were short by 1 / n (Rao and Wu
    1988).
    """
    block_of, draws, before = [], [], 0
    for values, others in zip(energies, columns, strict=True):
        followed = np.concatenate([values[..., None], others], axis=-1)
        starts = block_starts(followed, np.ones(values.shape), MOST_BLOCKS)
        blocks = len(starts)
        lengths = np.diff(np.append(starts, values.size))
        block_of.append(before + np.repeat(np.arange(blocks), lengths))
        drawn = rng.multinomial(blocks - 1, np.full(blocks, 1 / blocks), size=resamples).T
        draws.append(drawn * (blocks / (blocks - 1)))
        before += blocks
    return np.concatenate(block_of), np.concatenate(draws)
