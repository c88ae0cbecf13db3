"""Markov chains of fields: what a sampler must provide, the loop that runs it, and what comes out.

All chains of a run advance together, as one batch. The loop records the field of every kept state and spins drawn from
it; it can be stopped, saved and continued with the same result as if it had not been.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from isingflow.errors import InvalidInput
from isingflow.files import read_arrays, write_atomically
from isingflow.hubbard_stratonovich import HubbardStratonovich


@dataclass(frozen=True)
class State:
    """Where a set of chains is.

    Attributes:
        position: the sampler's own coordinates, shape (n, *shape).
        field: x, shape (n, *shape).
    """

    position: Tensor
    field: Tensor

    def moved(self, accepted: Tensor, proposal: Self) -> Self:
        """The proposal where accepted, bool, shape (n,), else this state."""

        def choose(new: Tensor, old: Tensor) -> Tensor:
            return torch.where(accepted.view(-1, *[1] * (new.ndim - 1)), new, old)

        return replace(self, **{f.name: choose(getattr(proposal, f.name), getattr(self, f.name)) for f in fields(self)})


class Sampler:
    """A Markov chain that leaves the density exp(-E(x)) as it is, run on many copies at once.

    Attributes:
        target: E.
        shape: shape of one position.
        dtype: of positions.
    """

    target: HubbardStratonovich
    shape: tuple[int, ...]
    dtype: torch.dtype

    def start(self, position: Tensor) -> State:
        """The state at given positions, shape (n, *shape)."""
        raise NotImplementedError

    def step(self, state: State, generator: torch.Generator) -> tuple[State, Tensor]:
        """The next state, and the acceptance probabilities, float64, shape (n,)."""
        raise NotImplementedError

    def warm_up(self, state: State, iterations: int, generator: torch.Generator) -> State:
        """Forget the start, and adapt what there is to adapt."""
        for _ in range(iterations):
            state, _ = self.step(state, generator)
        return state

    def settings(self) -> dict[str, Tensor]:
        """What the warm-up found, for saving."""
        return {}

    def restore(self, settings: dict[str, Tensor]) -> None:
        """Take up what `settings` gave."""


@dataclass(frozen=True)
class Chains:
    """Fields and spins along Markov chains, with all that it takes to continue them.

    Attributes:
        field: float32, shape (chains, samples, *size).
        spins: int8, shape (chains, samples, *size), one draw of p(s | x) for every field.
        acceptance: mean acceptance probability of every step, float64, shape (samples,).
        beta: inverse temperature.
        seconds: time spent, warm-up included.
        identity: what the chains belong to and how they were made; chains continue only with the same.
        position, generator, settings: of the sampler, at the end.
    """

    field: np.ndarray
    spins: np.ndarray
    acceptance: np.ndarray
    beta: float
    seconds: float
    identity: dict[str, Any]
    position: Tensor
    generator: Tensor
    settings: dict[str, Tensor]

    @property
    def samples(self) -> int:
        """Number of states kept of every chain."""
        return self.field.shape[1]

    def save(self, path: Path) -> None:
        """Write a .npz file, atomically.

        Raises:
            RunFolderError: it cannot be written.
        """
        buffer = io.BytesIO()
        np.savez(
            buffer,
            field=self.field,
            spins=self.spins,
            acceptance=self.acceptance,
            beta=np.float64(self.beta),
            size=np.array(self.field.shape[2:]),
            seconds=np.float64(self.seconds),
            identity=np.array(json.dumps(self.identity)),
            position=self.position.cpu().numpy(),
            generator=self.generator.numpy(),
            **{f"setting_{name}": value.cpu().numpy() for name, value in self.settings.items()},
        )
        write_atomically(path, buffer.getvalue())

    @classmethod
    def read(cls, path: Path) -> Chains:
        """The chains that `save` wrote.

        Raises:
            InvalidInput: not a file of chains, or a damaged one.
        """
        arrays = read_arrays(path, ("field", "spins", "acceptance", "beta", "seconds", "identity", "position"))
        try:
            settings = {name.removeprefix("setting_"): a for name, a in arrays.items() if name.startswith("setting_")}
            chains = cls(
                field=arrays["field"],
                spins=arrays["spins"],
                acceptance=arrays["acceptance"],
                beta=float(arrays["beta"]),
                seconds=float(arrays["seconds"]),
                identity=json.loads(str(arrays["identity"])),
                position=torch.from_numpy(arrays["position"]),
                generator=torch.from_numpy(arrays["generator"]),
                settings={name: torch.from_numpy(value) for name, value in settings.items()},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput(f"{path}: not a file of chains: {error}") from None
        if chains.field.shape != chains.spins.shape or chains.position.shape[0] != len(chains.field):
            raise InvalidInput(f"{path}: not a file of chains: its arrays do not fit each other")
        return chains


def run_chains(
    sampler: Sampler,
    *,
    samples: int,
    chains: int,
    warm_up: int = 0,
    every: int = 1,
    seed: int = 0,
    identity: dict[str, Any] | None = None,
    earlier: Chains | None = None,
    report_progress: Callable[[int], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Chains:
    """Run a sampler from standard normal positions, or continue earlier chains, to a number of kept samples.

    Args:
        sampler: a kernel and its target.
        samples: states to keep of every chain, those of `earlier` included.
        chains: number of chains.
        warm_up: steps before the first kept state.
        every: steps from one kept state to the next.
        seed: of positions and steps.
        identity: what the chains belong to, JSON-serialisable.
        earlier: chains to continue; nothing but their length may differ.
        report_progress: called with the number of samples after each.
        should_stop: asked after each; True ends the run early.

    Raises:
        InvalidInput: a count below 1, or `earlier` belongs to something else.

    Example:
        >>> from isingflow.lattice import square
        >>> from isingflow.sampling import BlockGibbs
        >>> target = HubbardStratonovich(square(4), beta=0.2)
        >>> run_chains(BlockGibbs(target), chains=3, samples=5).field.shape
        (3, 5, 4, 4)
    """
    chains = len(earlier.field) if chains is None and earlier is not None else chains
    if chains is None or min(samples, chains, every) < 1 or warm_up < 0:
        raise InvalidInput(
            f"{samples} samples of {chains} chains, every {every}, warm-up {warm_up}: expected positives"
        )
    identity = dict(identity or {}) | {"chains": chains, "warm_up": warm_up, "every": every, "seed": seed}
    started = time.perf_counter()
    device = sampler.target.eigenvalues.device
    generator = torch.Generator(device)
    if earlier is None:
        generator.manual_seed(seed)
        noise = torch.randn(chains, *sampler.shape, dtype=sampler.dtype, device=device, generator=generator)
        state = sampler.warm_up(sampler.start(noise), warm_up, generator)
        kept: list[tuple[np.ndarray, np.ndarray, float]] = []
    else:
        _check_same(earlier.identity, identity)
        generator.set_state(earlier.generator)
        sampler.restore({name: value.to(device) for name, value in earlier.settings.items()})
        state = sampler.start(earlier.position.to(device))
        kept = list(zip(earlier.field.swapaxes(0, 1), earlier.spins.swapaxes(0, 1), earlier.acceptance, strict=True))
    while len(kept) < samples and not (len(kept) > 1 and should_stop()):
        for _ in range(every):
            state, acceptance = sampler.step(state, generator)
        spins = sampler.target.sample_spins(state.field, generator)
        kept.append((state.field.float().cpu().numpy(), spins.cpu().numpy(), float(acceptance.mean())))
        if report_progress is not None:
            report_progress(len(kept))
    field, spins, acceptance = zip(*kept, strict=True)
    return Chains(
        field=np.stack(field, axis=1),
        spins=np.stack(spins, axis=1),
        acceptance=np.array(acceptance),
        beta=sampler.target.beta,
        seconds=time.perf_counter() - started + (earlier.seconds if earlier else 0.0),
        identity=identity,
        position=state.position,
        generator=generator.get_state(),
        settings=sampler.settings(),
    )


def _check_same(before: dict[str, Any], now: dict[str, Any]) -> None:
    changed = [name for name in before | now if before.get(name) != now.get(name)]
    if changed:
        details = "; ".join(f"{name}: {before.get(name)} there, {now.get(name)} here" for name in sorted(changed))
        raise InvalidInput(f"these chains belong to another run and cannot be continued: {details}")
