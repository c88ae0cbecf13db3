"""Files of samples: spins and fields of one magnet, weighted or not, independent or along chains, and their averages.

    lattice                     JSON text of `Lattice.to_dict`; a file without it holds a square periodic lattice
    sites                       of a graph: what its sites are called, as text, in the order of spins and fields, (N,)
    beta, size                  inverse temperature and shape of a configuration
    spins                       int8, (n, *size), or (n, draws, *size) with several draws of p(s | x) for every field
    field                       float32, (n, *size)
    log_prob, log_weight        ln p(x) and the logarithm of the importance weight, float64, (n,)
    chain                       which Markov chain a row comes from, (n,); rows of a chain are in order of time
    certified                   of samples of a flow: whether its integration error is within tolerance

Chains may also be stored as such, with a leading axis of their own: spins and field of shape (chains, samples, *size).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from isingflow import lattice as lattices
from isingflow.errors import FileError, InvalidInput
from isingflow.lattice import Lattice, check_beta, square
from isingflow.observables import Observables, Overlap, measure, overlap
from isingflow.observables.files import LARGEST_BETA
from isingflow.runtime import checks
from isingflow.runtime.files import read_arrays, reason, text
from isingflow.statistics.estimate import Estimate
from isingflow.statistics.free_energy import HEAVY_TAIL
from isingflow.statistics.jackknife import jackknife_mean
from isingflow.statistics.weights import pareto_k


@dataclass(frozen=True, eq=False)
class Samples:
    """What a file of samples holds.

    Attributes:
        path: the file.
        lattice, beta: the magnet.
        spins: of the leading shape (n,) or (chains, samples) and, where `drawn`, one axis more; or None.
        field: of the leading shape; or None.
        log_weight: of the leading shape; None where all weights are equal.
        drawn: whether there are several draws of spins for every field.
        certified: whether the flow's integration error was within tolerance; None where no flow is known of.
    """

    path: Path
    lattice: Lattice
    beta: float
    spins: np.ndarray | None
    field: np.ndarray | None
    log_weight: np.ndarray | None
    drawn: bool
    certified: bool | None

    @classmethod
    def read(cls, path: Path | str) -> Samples:
        """The samples of a file that `isingflow sample`, `monte-carlo` or `hmc` wrote.

        Raises:
            FileError: there is no such file, it is damaged, or it holds no samples of a magnet.
        """
        arrays = read_arrays(path, ("beta", "size"))
        try:
            lattice, beta = _magnet(arrays)
            certified = checks.flag("certified", arrays["certified"][()]) if "certified" in arrays else None
            samples = {name: arrays[name] for name in ("spins", "field", "log_weight") if name in arrays}
            axes = {name: samples[name].ndim - len(lattice.shape) for name in ("spins", "field") if name in samples}
            if not axes:
                raise InvalidInput("it holds neither spins nor field")
            drawn = len(axes) == 2 and axes["spins"] == axes["field"] + 1
            if drawn and _without(samples["spins"], axes["field"]) != samples["field"].shape:
                raise InvalidInput("the shapes of spins and field do not fit each other")
            if "chain" in arrays:
                samples = {name: _by_chain(array, arrays["chain"]) for name, array in samples.items()}
        except InvalidInput as error:
            raise FileError(f"{path}: not a file of samples: {reason(error)}") from None
        return cls(
            path=Path(path),
            lattice=lattice,
            beta=beta,
            spins=samples.get("spins"),
            field=samples.get("field"),
            log_weight=samples.get("log_weight"),
            drawn=drawn,
            certified=certified,
        )

    def require(self, *, size: tuple[int, ...] | None = None, beta: float | None = None) -> None:
        """Check that the samples are of this size and inverse temperature, where given.

        Raises:
            FileError: they are not.
        """
        differences = []
        if size is not None and size != self.lattice.size:
            there, asked = ("x".join(map(str, shape)) for shape in (self.lattice.size, size))
            differences.append(f"size {there} there, {asked} asked for")
        if beta is not None and not math.isclose(beta, self.beta, rel_tol=1e-9, abs_tol=1e-12):
            differences.append(f"beta {self.beta:.12g} there, {beta:.12g} asked for")
        if differences:
            raise FileError(f"{self.path}: a file of another size or beta: {'; '.join(differences)}")

    def observables(self) -> Observables:
        """All observables; several draws of spins for a field count as one sample.

        Raises:
            FileError: spins, fields or weights are not what they should be.
        """
        spins = None if self.drawn else self.spins
        try:
            found = measure(self.lattice, self.beta, spins=spins, field=self.field, log_weight=self.log_weight)
            if self.drawn and self.spins is not None:
                found = replace(found, magnetisation_abs=self._mean_absolute(self.spins))
            return found
        except InvalidInput as error:
            raise FileError(f"{self.path}: {reason(error)}") from None

    def overlap(self) -> Overlap:
        """Overlaps between the chains of the file, which must be at least two.

        Raises:
            FileError: it holds no spins of chains, or they are weighted.
        """
        spins, weights = self.spins, self.log_weight
        chains = spins is not None and not self.drawn and spins.ndim == 2 + len(self.lattice.shape)
        if spins is None or not chains or (weights is not None and np.ptp(weights) > 0):
            raise FileError(
                f"{self.path}: overlaps are of the spins of independent chains, at least two, without weights: those "
                "that isingflow monte-carlo and hmc write"
            )
        try:
            return overlap(self.lattice, spins)
        except InvalidInput as error:
            raise FileError(f"{self.path}: {reason(error)}") from None

    def warnings(self) -> list[str]:
        """Why averages over these samples should not be trusted, if so."""
        found = []
        if self.certified is False:
            found.append("integration check failed: the error of the flow is above its tolerance")
        if self.log_weight is not None:
            k = pareto_k(self.log_weight)
            if k > HEAVY_TAIL:
                found.append(
                    f"heavy-tailed weights (Pareto k = {k:.2f}, above {HEAVY_TAIL}): do not trust the averages"
                )
        return found

    def _mean_absolute(self, spins: np.ndarray) -> Estimate:
        """<|m|> from several draws for every field: their mean is one sample."""
        sites = self.lattice.sites
        if not np.all(np.abs(spins) == 1):
            raise InvalidInput("spins must be +1 or -1")
        magnetisation = spins.reshape(*spins.shape[: -len(self.lattice.shape)], sites).sum(-1, dtype=float)
        absolute = np.abs(magnetisation / sites).mean(-1)
        return jackknife_mean(absolute, self.log_weight)


def _magnet(arrays: dict[str, np.ndarray]) -> tuple[Lattice, float]:
    """Lattice and inverse temperature of a file."""
    beta = checks.number("beta", arrays["beta"], least=-LARGEST_BETA, most=LARGEST_BETA)
    return lattice_of(arrays), check_beta(beta)


def lattice_of(arrays: dict[str, np.ndarray]) -> Lattice:
    """The lattice of a file.

    Raises:
        InvalidInput: it does not say which, or not in one voice.
    """
    size = checks.array("size", arrays["size"], (None,), integers=True)
    if "lattice" in arrays:
        try:
            lattice = lattices.from_dict(json.loads(text(arrays, "lattice")))
        except (json.JSONDecodeError, RecursionError):
            raise InvalidInput("its lattice is not JSON") from None
    elif len(size) == 2:
        lattice = square(*size.tolist())
    else:
        raise InvalidInput("it does not say of which lattice")
    if lattice.size != tuple(size.tolist()):
        raise InvalidInput(f"its size is {checks.shown(size.tolist())}, that of its lattice {list(lattice.size)}")
    return lattice


def _without(array: np.ndarray, axis: int) -> tuple[int, ...]:
    """The array's shape, this axis left out."""
    return (*array.shape[:axis], *array.shape[axis + 1 :])


def _by_chain(array: np.ndarray, chain: np.ndarray) -> np.ndarray:
    """Rows (n, ...) as (chains, samples, ...)."""
    if chain.shape != array.shape[:1] or chain.dtype.kind not in "iu" or chain.size == 0:
        raise InvalidInput(f"chain: {chain.dtype} of shape {chain.shape}: expected the chain of each of the rows")
    if chain.min() < 0 or chain.max() >= chain.size:
        raise InvalidInput(f"chain: expected numbers from 0 to {chain.size - 1}")
    counts = np.bincount(chain)
    if np.ptp(counts) > 0:
        raise InvalidInput("its chains have different numbers of samples")
    return array[np.argsort(chain, kind="stable")].reshape(len(counts), -1, *array.shape[1:])
