"""Monte Carlo of Ising spins: many independent chains of states drawn from p(s) = exp(-beta E(s)) / Z.

The reference where no exact answer exists. Every chain starts from random spins and has a random stream of its own,
made from (seed, chain): results do not depend on threads or on the blocks in which they are handed out. Errors follow
from the chains: they are independent, so the spread of their means is honest however correlated each of them is within.
Continuous samples follow exactly, x | s ~ Normal(A s, A): `HubbardStratonovich.sample_field`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat

import numba
import numpy as np

from isingflow.errors import InvalidInput, WrongType
from isingflow.lattice import Lattice, check_magnet
from isingflow.monte_carlo import clusters, local, tempering
from isingflow.monte_carlo.couplings import Couplings
from isingflow.monte_carlo.source import random_stream
from isingflow.runtime import stopping
from isingflow.runtime.checks import LARGEST_SEED, array, choice, count, shown
from isingflow.runtime.resources import duration, require_memory

_BLOCK_UPDATES = 2**24
"""Spin updates between two reports of progress, a fraction of a second; also bounds the memory of a block."""

_SPEED = 1e9
"""Spin updates a second that no machine exceeds."""

_LONGEST = 3e7
"""Seconds that a run may take at that speed: a year."""

_TUNING_SWEEPS = 16
"""Sweeps of one or two Wolff clusters in which every chain measures how large they are."""

MOST_THREADS = 4096

ReportProgress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class SpinChains:
    """States of independent Markov chains, with what was measured on them.

    Attributes:
        spins: int8 +-1, shape (chains, samples, *lattice.shape).
        energy: E(s) = -sum over bonds J s s - sum over sites H s, in units of J, float64, shape (chains, samples).
        magnetisation: mean spin per site, float64, shape (chains, samples).
        beta: inverse temperature.
        sampler: one of `SAMPLERS`.
    """

    spins: np.ndarray
    energy: np.ndarray
    magnetisation: np.ndarray
    beta: float
    sampler: str


def simulate(
    lattice: Lattice,
    beta: float,
    *,
    samples: int,
    chains: int = 8,
    sampler: str | None = None,
    every: int = 1,
    thermalise: int | None = None,
    start: np.ndarray | None = None,
    seed: int = 0,
    threads: int | None = None,
    report_progress: ReportProgress | None = None,
) -> SpinChains:
    """Sample spins of a lattice at inverse temperature beta, all kept in memory; `stream` hands them out in blocks.

    A sweep is: Swendsen-Wang, a new sign for every cluster; Metropolis, N attempted flips; heat bath, N spins drawn;
    tempering, N spins drawn in every replica, and swaps; Wolff, a number of clusters that flips about N spins. That
    number is measured once, over all chains after thermalisation, and kept: a sweep that stopped once enough spins have
    flipped would choose its last state by the size of the last cluster, and not sample p(s).

    Args:
        lattice: any lattice; bonds between the same two sites add up.
        beta: inverse temperature, finite, of either sign.
        samples: states kept per chain.
        chains: number of independent chains.
        sampler: one of `SAMPLERS`. Cluster samplers need couplings that some choice of spin signs turns into a
            ferromagnet (bipartite antiferromagnets, for one), with all fields along its spins where there are any.
            None chooses: "tempering" where they are frustrated, else "wolff" on translation-invariant lattices without
            a field, where it takes the least time per independent state, and "swendsen-wang" on others, where Wolff
            might hardly ever visit weakly coupled parts.
        every: sweeps from one kept state to the next.
        thermalise: sweeps before the first of them; by default 200 for cluster samplers (Wolff too thermalises by
            Swendsen-Wang sweeps) and 2000 for the others. That is ample for clusters and for tempering of small
            glasses; Metropolis and heat bath need of the order of L^2.2 sweeps near criticality, and more to lose the
            domain walls of a random start below it.
        start: states that the chains begin with, +1 or -1, shape (chains, *lattice.shape), such as the last ones at a
            temperature nearby; None: random ones. Tempering begins with them at every temperature of its ladder.
        seed: an integer from 0 to 2**62.
        threads: chains that run at the same time; None: as many as there are cores.
        report_progress: called now and then with the sweeps done and the sweeps in all, per chain.

    Raises:
        InvalidInput: an argument is not as above, a cluster sampler is asked for frustrated couplings, or there is not
            enough memory for all samples, or time within a year; WrongType: an argument is of another type.

    Example:
        >>> from isingflow import exact
        >>> from isingflow.lattice import square
        >>> found = simulate(square(4), 0.4, samples=2000, seed=1)
        >>> found.sampler, found.spins.shape, found.energy.shape
        ('wolff', (8, 2000, 4, 4), (8, 2000))
        >>> error = found.energy.mean() / 16 - exact.thermodynamics(square(4), 0.4).energy_per_site
        >>> bool(abs(error) < 0.03)
        True
    """
    blocks = stream(
        lattice,
        beta,
        samples=samples,
        chains=chains,
        sampler=sampler,
        every=every,
        thermalise=thermalise,
        start=start,
        seed=seed,
        threads=threads,
        report_progress=report_progress,
    )
    require_memory(
        f"a run of {chains} chains of {samples} samples of {lattice}",
        float(chains) * samples * (lattice.sites + 16),
        "fewer samples, or monte_carlo.stream, which hands them out in blocks",
    )
    spins = np.empty((chains, samples, *lattice.shape), np.int8)
    energy, magnetisation = np.empty((2, chains, samples))
    done = 0
    for block in blocks:
        kept = slice(done, done + block.energy.shape[1])
        spins[:, kept], energy[:, kept], magnetisation[:, kept] = block.spins, block.energy, block.magnetisation
        done = kept.stop
    return SpinChains(spins, energy, magnetisation, block.beta, block.sampler)


def stream(
    lattice: Lattice,
    beta: float,
    *,
    samples: int,
    chains: int = 8,
    sampler: str | None = None,
    every: int = 1,
    thermalise: int | None = None,
    start: np.ndarray | None = None,
    seed: int = 0,
    threads: int | None = None,
    report_progress: ReportProgress | None = None,
) -> Iterator[SpinChains]:
    """The states of `simulate`, for the same arguments, in blocks of successive samples of all chains.

    A block holds at most 16 MiB of spins, or one sample of each chain if that is more. Arguments are checked at once;
    the chains start when the first block is asked for.

    Raises:
        InvalidInput: as for `simulate`.

    Example:
        >>> from isingflow.lattice import square
        >>> blocks = stream(square(128), 0.2, samples=600, chains=2, sampler="swendsen-wang", thermalise=1)
        >>> [block.spins.shape for block in blocks]
        [(2, 512, 128, 128), (2, 88, 128, 128)]
    """
    samples, chains, every = count("samples", samples), count("chains", chains), count("every", every)
    thermalise = None if thermalise is None else count("thermalise", thermalise)
    if threads is None:
        threads = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # numba fills in its names at import
    threads = count("threads", threads, most=MOST_THREADS)
    seed = count("seed", seed, least=0, most=LARGEST_SEED)
    if not (report_progress is None or callable(report_progress)):
        raise WrongType(f"report_progress is {shown(report_progress)}, expected a function or None")
    beta = check_magnet(lattice, beta)
    start = None if start is None else _checked_states(start, (chains, *lattice.shape))
    require_memory(
        f"one sample of each of {chains} chains of {lattice}", 4.0 * chains * lattice.sites, "fewer chains may fit"
    )
    model = Couplings.of(lattice, beta)
    if sampler is None:
        alike = lattice.translation_invariant and lattice.field is None
        unfrustrated = "wolff" if alike else "swendsen-wang"
        sampler = "tempering" if model.gauge is None else unfrustrated
    kind = _KINDS[choice("sampler", sampler, SAMPLERS)]
    if kind.needs_gauge and model.gauge is None:
        others = ", ".join(name for name in SAMPLERS if not _KINDS[name].needs_gauge)
        what, aligned = "couplings", "them all ferromagnetic"
        if lattice.field is not None:
            what, aligned = "couplings and the external field", "all couplings ferromagnetic and all fields point up"
        raise InvalidInput(
            f"sampler {sampler}: the {what} are frustrated ({lattice}, beta {beta:g}), no choice of spin signs "
            f"makes {aligned}; use one of {others}"
        )
    thermalise = kind.sweeps if thermalise is None else thermalise
    seconds = chains * float(thermalise + samples * every) * lattice.sites / _SPEED
    if seconds > _LONGEST:
        raise InvalidInput(
            f"{thermalise + samples * every} sweeps of {chains} chains of {lattice} would take {duration(seconds)} and "
            "more: fewer samples, fewer sweeps between them or a smaller lattice are possible"
        )

    def blocks() -> Iterator[SpinChains]:
        updates = kind(model, random_stream(seed))
        sweep = chains * math.prod(updates.shape)
        require_memory(f"{sampler} of {chains} chains of {lattice}", float(sweep), "fewer chains may fit")
        ensemble = [_Chain(updates.shape, random_stream(seed, chain)) for chain in range(chains)]
        if start is not None:
            for chain, state in zip(ensemble, model.with_ghost(start.reshape(chains, -1)), strict=True):
                chain.spins[...] = updates.inside(state)
        done, total = 0, thermalise + samples * every

        def advance_progress(sweeps: int) -> None:
            nonlocal done
            done += sweeps
            if report_progress is not None:
                report_progress(done, total)

        with ThreadPoolExecutor(threads) as pool:
            for sweeps in portions(thermalise, _BLOCK_UPDATES // sweep):
                stopping.check()
                list(pool.map(updates.thermalise, ensemble, repeat(sweeps)))
                advance_progress(sweeps)
            stopping.check()
            updates.tune(ensemble)
            *between, last = portions(every, _BLOCK_UPDATES // sweep)
            for length in portions(samples, _BLOCK_UPDATES // (sweep * every)):
                spins = np.empty((chains, length, model.sites), np.int8)
                for sweeps in between:
                    stopping.check()
                    list(pool.map(updates.skip, ensemble, repeat(sweeps)))
                stopping.check()
                list(pool.map(updates.sample, ensemble, spins, repeat(last)))
                energy, magnetisation = np.array(list(pool.map(model.measure, spins))).swapaxes(0, 1)
                advance_progress(length * every)
                shape = chains, length, *lattice.shape
                yield SpinChains(model.seen(spins).reshape(shape), energy, magnetisation, model.beta, sampler)

    return blocks()


def _checked_states(start: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    states = array("start", start, shape, integers=True)
    if np.any(np.abs(states) != 1):
        raise InvalidInput("start: expected spins, +1 or -1")
    return states.astype(np.int8)


class _Chain:
    """Spins of a chain, random at first, and its random stream."""

    def __init__(self, shape: tuple[int, ...], rng: np.random.Generator) -> None:
        self.spins = tempering.random_spins(rng, shape)
        self.rng = rng


class _Updates:
    """A way to update spins at beta, of which kernel(spins, samples, every, *arguments, rng) runs a chain.

    Attributes:
        kernel, arguments: as above; `samples`, int8, shape (n, N), receives the state after every `every` sweeps.
        shape: shape of a chain's spins.
        sweeps: default number of sweeps to thermalise.
        needs_gauge: whether the couplings must be unfrustrated.
    """

    kernel: Callable
    sweeps = 2000
    needs_gauge = False

    def __init__(self, model: Couplings, rng: np.random.Generator) -> None:
        self.shape: tuple[int, ...] = (model.sites,)
        self.arguments: tuple = (*model.graph, model.beta)

    def inside(self, state: np.ndarray) -> np.ndarray:
        """The spins that the kernel works on for a state: `sample` turns them back."""
        return state

    def sample(self, chain: _Chain, samples: np.ndarray, every: int) -> None:
        """Fill `samples` with the chain's next states."""
        self.kernel(chain.spins, samples, every, *self.arguments, chain.rng)

    def skip(self, chain: _Chain, sweeps: int) -> None:
        """Move the chain on."""
        self.sample(chain, np.empty((1, self.shape[-1]), np.int8), sweeps)

    def thermalise(self, chain: _Chain, sweeps: int) -> None:
        """Move a new chain on."""
        self.skip(chain, sweeps)

    def tune(self, ensemble: list[_Chain]) -> None:
        """Fix what is left to fix, on chains that have thermalised; from here on the updates stay as they are."""


class _Metropolis(_Updates):
    kernel = staticmethod(local.metropolis)


class _HeatBath(_Updates):
    kernel = staticmethod(local.heat_bath)


class _Tempering(_Updates):
    kernel = staticmethod(tempering.temper)

    def __init__(self, model: Couplings, rng: np.random.Generator) -> None:
        betas = tempering.ladder(model.graph, model.bonds, model.beta, rng)
        self.shape = (len(betas), model.sites)
        self.arguments = (model.graph, model.bonds, betas)


class _SwendsenWang(_Updates):
    kernel: Callable = staticmethod(clusters.swendsen_wang)
    sweeps = 200
    needs_gauge = True

    def __init__(self, model: Couplings, rng: np.random.Generator) -> None:
        self.shape = (model.sites,)
        self.arguments = (*model.bonds[:2], model.occupation(model.bonds[2]))
        self._gauge = model.gauge

    def inside(self, state: np.ndarray) -> np.ndarray:
        return state * self._gauge

    def sample(self, chain: _Chain, samples: np.ndarray, every: int) -> None:
        super().sample(chain, samples, every)
        samples *= self._gauge


class _Wolff(_SwendsenWang):
    kernel = staticmethod(clusters.wolff)

    def __init__(self, model: Couplings, rng: np.random.Generator) -> None:
        super().__init__(model, rng)
        self._relaxation = _SwendsenWang(model, rng)
        self._growth = (*model.graph[:2], model.occupation(model.graph[2]))

    def thermalise(self, chain: _Chain, sweeps: int) -> None:
        # In a random start Wolff clusters are small; Swendsen-Wang sweeps order every part of it at once.
        self._relaxation.thermalise(chain, sweeps)

    def tune(self, ensemble: list[_Chain]) -> None:
        samples = np.empty((1, *self.shape), np.int8)
        sizes = [self.kernel(chain.spins, samples, _TUNING_SWEEPS, *self._growth, 1, chain.rng) for chain in ensemble]
        flipped, grown = np.sum(sizes, axis=0)
        self.arguments = (*self._growth, max(1, int(self.shape[0] * grown / flipped)))


_KINDS: dict[str, type[_Updates]] = {
    "wolff": _Wolff,
    "swendsen-wang": _SwendsenWang,
    "metropolis": _Metropolis,
    "heat-bath": _HeatBath,
    "tempering": _Tempering,
}

SAMPLERS = tuple(_KINDS)
"""Names of the samplers."""


def portions(total: int, largest: int) -> Iterator[int]:
    """Portions of at most `largest`, and of at least one, that add up to the total."""
    largest = max(1, largest)
    for done in range(0, total, largest):
        yield min(largest, total - done)
