"""Markov chains of fields: the loop that runs a sampler, and what comes out.

All chains of a run advance together, as one batch. The loop records the field of every kept state and spins drawn from
it; it can be stopped at any step, saved and continued, with the same result as if it had not been.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isingflow import statistics
from isingflow.config import differences
from isingflow.errors import FileError, InvalidInput
from isingflow.estimate import Estimate
from isingflow.files import SPARE_BYTES, read_arrays
from isingflow.hubbard_stratonovich import HubbardStratonovich
from isingflow.lattice import Lattice, check_beta
from isingflow.samples import sample_writer
from isingflow.sampling.sampler import Sampler, State

STATE_BYTES = 5
"""Per site of a kept state: float32 field and int8 spin."""
KEEP_SECONDS = 60.0
"""Between one save of unfinished chains and the next; longer where saving takes long, see `SAVING`."""
SAVING = 0.05
"""Largest part of the time that goes into saving them."""


@dataclass(frozen=True)
class Mixing:
    """What chains say of one quantity.

    Attributes:
        mean: over all chains; its error honours their autocorrelation, and is NaN for a single sample.
        tau: integrated autocorrelation time in samples, 1/2 if they are independent; NaN below 4 samples a chain.
        effective_samples: independent samples that would give the same error.
        r_hat: whether the chains agree, 1 if so; NaN below 8 samples a chain.
        ess_bulk, ess_tail: effective samples of the centre and of the tails, by arviz; NaN below 8 samples a chain.
    """

    mean: Estimate
    tau: float
    effective_samples: float
    r_hat: float
    ess_bulk: float
    ess_tail: float

    @classmethod
    def of(cls, values: np.ndarray) -> Mixing:
        """Of values of shape (chains, samples).

        Raises:
            InvalidInput: there are none, or they are not finite.

        Example:
            >>> mixing = Mixing.of(np.random.default_rng(0).normal(size=(8, 1000)))
            >>> print(mixing.mean, round(mixing.tau, 1), round(mixing.r_hat, 2))
            0.001 ± 0.012 0.5 1.0
        """
        samples = values.shape[1]
        if values.size == 1:
            mean = Estimate(float(values[0, 0]), math.nan)
        else:
            mean = statistics.jackknife(lambda means: means[..., 0], values[..., None])
        tau = statistics.autocorrelation_time(values).value if samples >= 4 else math.nan
        unknown = statistics.Diagnostics(math.nan, math.nan, math.nan)
        found = statistics.diagnostics(values) if samples >= 8 else unknown
        return cls(mean, tau, values.size / (2 * tau), found.r_hat, found.ess_bulk, found.ess_tail)

    def as_dict(self) -> dict[str, float | None]:
        """The JSON form; null for what is not known or not finite."""
        return self.mean.as_dict() | _finite({"tau": self.tau, "ess": self.effective_samples})

    def diagnostics_dict(self) -> dict[str, float | None]:
        """What arviz says, in the same form."""
        return _finite({name: getattr(self, name) for name in ("r_hat", "ess_bulk", "ess_tail")})


@dataclass(frozen=True, eq=False)
class Chains:
    """Fields and spins along Markov chains, with all that it takes to continue them.

    Attributes:
        field: float32, shape (chains, samples, *size).
        spins: int8, shape (chains, samples, *size), one draw of p(s | x) for every field.
        acceptance: fraction of the chains that moved at each step after the warm-up, float64, shape (steps,).
        lattice, beta: the magnet.
        seconds: time spent, warm-up included.
        identity: what the chains belong to and how they were made; chains continue only with the same.
        certified: whether the integration error of the flow they go through, if any, is within tolerance.
        steps: taken so far, those of the warm-up included.
        state, generator, settings: of the sampler, at the end.
    """

    field: np.ndarray
    spins: np.ndarray
    acceptance: np.ndarray
    lattice: Lattice
    beta: float
    seconds: float
    identity: dict[str, Any]
    certified: bool
    steps: int
    state: dict[str, Tensor]
    generator: Tensor
    settings: dict[str, Tensor]

    @property
    def samples(self) -> int:
        """Number of states kept of every chain."""
        return self.field.shape[1]

    def save(self, path: Path) -> None:
        """Write a .npz file, in one step, over an older one if there is one.

        Raises:
            FileError: the disk is too small, or the file cannot be written; an older one is intact.
        """
        columns = {"field": (np.float32, self.field.shape[1:]), "spins": (np.int8, self.spins.shape[1:])}
        constants = {
            "acceptance": self.acceptance,
            "seconds": np.float64(self.seconds),
            "identity": np.array(json.dumps(self.identity)),
            "certified": np.bool_(self.certified),
            "steps": np.int64(self.steps),
            "generator": self.generator.numpy(),
            **_named("state", self.state),
            **_named("setting", self.settings),
        }
        with sample_writer(path, len(self.field), columns, lattice=self.lattice, beta=self.beta, **constants) as file:
            for field, spins in zip(self.field, self.spins, strict=True):
                file.append(field=field[None], spins=spins[None])

    @classmethod
    def read(cls, path: Path) -> Chains:
        """The chains that `save` wrote.

        Raises:
            FileError: not a file of chains, or a damaged one.
        """
        names = ("acceptance", "lattice", "beta", "seconds", "identity", "certified", "steps", "generator")
        arrays = read_arrays(path, ("field", "spins", "state_position", *names))
        try:
            chains = cls(
                field=arrays["field"],
                spins=arrays["spins"],
                acceptance=arrays["acceptance"],
                lattice=Lattice.from_dict(json.loads(str(arrays["lattice"]))),
                beta=check_beta(float(arrays["beta"])),
                seconds=float(arrays["seconds"]),
                identity=dict(json.loads(str(arrays["identity"]))),
                certified=bool(arrays["certified"]),
                steps=int(arrays["steps"]),
                state=_tensors("state", arrays),
                generator=torch.from_numpy(arrays["generator"]),
                settings=_tensors("setting", arrays),
            )
            chains._check()
        except (KeyError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
            raise FileError(f"{path}: not a file of chains: {error}") from None
        return chains

    def _check(self) -> None:
        """Refuse arrays that do not fit each other, or hold what chains do not."""
        field, spins, steps = self.field, self.spins, self.steps
        fits = field.ndim == 2 + len(self.lattice.shape) and field.shape[2:] == self.lattice.shape
        if not fits or spins.shape != field.shape or any(len(tensor) != len(field) for tensor in self.state.values()):
            raise InvalidInput("its arrays do not fit each other")
        if (field.dtype, spins.dtype) != (np.float32, np.int8):
            raise InvalidInput(f"field of {field.dtype} and spins of {spins.dtype}: expected float32 and int8")
        if not np.isfinite(field).all() or not np.all(np.abs(spins) == 1):
            raise InvalidInput("field must be finite, and spins +1 or -1")
        recorded = max(steps - self.identity["warm_up"], 0)
        if self.acceptance.shape != (recorded,) or self.samples != recorded // self.identity["every"]:
            raise InvalidInput(f"{self.samples} samples and {self.acceptance.shape} acceptances after {steps} steps")
        if self.acceptance.dtype.kind != "f" or not np.isfinite(self.acceptance).all():
            raise InvalidInput("acceptance must be finite")


def run_chains(
    sampler: Sampler,
    *,
    samples: int,
    chains: int,
    warm_up: int = 0,
    every: int = 1,
    seed: int = 0,
    identity: dict[str, Any] | None = None,
    certified: bool = True,
    earlier: Chains | None = None,
    report_progress: Callable[[int, int], None] | None = None,
    keep: Callable[[Chains], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Chains:
    """Run a sampler from standard normal positions, or continue earlier chains, to a number of kept samples.

    Args:
        sampler: a kernel and its target.
        samples: states to keep of every chain, those of `earlier` included.
        chains: number of chains.
        warm_up: steps before the first kept state, in which the sampler adapts.
        every: steps from one kept state to the next.
        seed: of positions and steps.
        identity: what the chains belong to, JSON-serialisable.
        certified: whether the flow they go through, if any, is.
        earlier: chains to continue; nothing but their length may differ.
        report_progress: called with the number of steps done and that of all, after each.
        keep: called with the chains so far about once a minute, to save them.
        should_stop: asked after each step; True ends the run early, also within the warm-up.

    Raises:
        InvalidInput: a count below 1, more than fits in memory, `earlier` belongs to something else or is longer, or
            the sampler cannot start because what it gives is not finite.

    Example:
        >>> from isingflow.lattice import square
        >>> from isingflow.sampling import BlockGibbs
        >>> target = HubbardStratonovich(square(4), beta=0.2)
        >>> run_chains(BlockGibbs(target), chains=3, samples=5).field.shape
        (3, 5, 4, 4)
    """
    if min(samples, chains, every) < 1 or warm_up < 0:
        raise InvalidInput(
            f"{samples} samples of {chains} chains, every {every}, warm-up {warm_up}: expected positive numbers"
        )
    target, started = sampler.target, time.perf_counter()
    _check_memory(chains, samples, target.sites)
    device = target.eigenvalues.device
    counts = {"chains": chains, "warm_up": warm_up, "every": every, "seed": seed}
    identity = dict(identity or {}) | counts | {"sampler": type(sampler).__name__, "device": device.type}
    generator = torch.Generator(device)
    field = np.empty((chains, samples, *target.shape), np.float32)
    spins = np.empty(field.shape, np.int8)
    if earlier is None:
        generator.manual_seed(seed)
        noise = torch.randn(chains, *sampler.shape, dtype=sampler.dtype, device=device, generator=generator)
        state = sampler.start(noise)
        moved_fractions, done, kept = [], 0, 0
    else:
        _check_continues(earlier, identity, samples, target)
        state = _restored(sampler, earlier, generator)
        certified = certified and earlier.certified
        moved_fractions, done, kept = earlier.acceptance.tolist(), earlier.steps, earlier.samples
        field[:, :kept], spins[:, :kept] = earlier.field, earlier.spins
    if not all(bool(torch.isfinite(tensor).all()) for tensor in state.tensors().values()):
        raise InvalidInput("the chains cannot start: the flow gives fields or energies that are not finite")

    def so_far() -> Chains:
        return Chains(
            field=field[:, :kept],
            spins=spins[:, :kept],
            acceptance=np.array(moved_fractions),
            lattice=target.lattice,
            beta=target.beta,
            seconds=time.perf_counter() - started + (earlier.seconds if earlier else 0.0),
            identity=identity,
            certified=certified,
            steps=done,
            state=state.tensors(),
            generator=generator.get_state(),
            settings=sampler.settings(),
        )

    total, due = warm_up + samples * every, started + KEEP_SECONDS
    while done < total and not should_stop():
        state, moved = sampler.step(state, generator)
        done += 1
        if done <= warm_up:
            state = sampler.adapt(state, moved, done, warm_up)
        else:
            moved_fractions.append(float(moved.double().mean()))
            if (done - warm_up) % every == 0:
                field[:, kept] = state.field.cpu().numpy()
                spins[:, kept] = target.sample_spins(state.field, generator).cpu().numpy()
                kept += 1
        if report_progress is not None:
            report_progress(done, total)
        if keep is not None and (began := time.perf_counter()) >= due:
            keep(so_far())
            now = time.perf_counter()
            due = now + max(KEEP_SECONDS, (now - began) / SAVING)
    return so_far()


def check_disk(path: Path, *, samples: int, chains: int, sites: int) -> None:
    """Refuse chains that `Chains.save` could not write to this path, before they are run.

    Raises:
        FileError: the folder cannot be written, or its disk is too small.
    """
    try:
        free = max(shutil.disk_usage(path.parent).free - SPARE_BYTES, 0)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror or error}") from None
    if not os.access(path.parent, os.W_OK):
        raise FileError(f"cannot write {path}: the folder {path.parent} cannot be written")
    # The arrays are written once, and once more when they are put together; what was kept before stays until then.
    needed = 3 * STATE_BYTES * chains * samples * sites
    if needed > free:
        raise FileError(
            f"{path}: {samples} samples of {chains} chains need {needed / 1e9:.3g} GB while they are written, "
            f"{free / 1e9:.3g} GB are free; at most {samples * free // needed} samples fit"
        )


def _check_continues(earlier: Chains, identity: dict[str, Any], samples: int, target: HubbardStratonovich) -> None:
    changed = differences(identity, earlier.identity)
    if not changed and (earlier.lattice, earlier.beta) != (target.lattice, target.beta):
        changed = [f"{earlier.lattice}, beta {earlier.beta:.12g} there"]
    if changed:
        raise InvalidInput(f"these chains belong to another run and cannot be continued: {'; '.join(changed)}")
    if earlier.samples > samples:
        raise InvalidInput(f"{samples} samples: the chains to continue have {earlier.samples} of them already")


def _restored(sampler: Sampler, earlier: Chains, generator: torch.Generator) -> State:
    """The state of earlier chains; sampler and generator take up what they had become."""
    device = generator.device
    try:
        generator.set_state(earlier.generator)
        if not all(bool(torch.isfinite(value).all()) for value in earlier.settings.values()):
            raise ValueError("settings that are not finite")
        sampler.restore({name: value.to(device) for name, value in earlier.settings.items()})
        state = sampler.kind(**{name: value.to(device) for name, value in earlier.state.items()})
        if state.position.shape[1:] != sampler.shape or state.field.shape[1:] != sampler.target.shape:
            raise ValueError("positions or fields of another shape")
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InvalidInput(f"these chains are damaged and cannot be continued: {error}") from None
    return state


def _check_memory(chains: int, samples: int, sites: int) -> None:
    """Refuse more fields and spins than this machine could hold."""
    if not hasattr(os, "sysconf"):
        return
    needed, memory = STATE_BYTES * chains * samples * sites, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        raise InvalidInput(
            f"{samples} samples of {chains} chains on {sites} sites take {needed / 1e9:.3g} GB of memory, this machine "
            f"has {memory / 1e9:.3g} GB: at most {samples * memory // needed} samples fit; keep fewer, farther apart"
        )


def _finite(values: dict[str, float]) -> dict[str, float | None]:
    return {name: x if math.isfinite(x) else None for name, x in values.items()}


def _named(prefix: str, tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {f"{prefix}_{name}": tensor.cpu().numpy() for name, tensor in tensors.items()}


def _tensors(prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    names = [name for name in arrays if name.startswith(f"{prefix}_")]
    return {name.removeprefix(f"{prefix}_"): torch.from_numpy(arrays[name]) for name in names}
