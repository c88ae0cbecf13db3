"""Markov chains of fields: the loop that runs a sampler, and what comes out.

All chains of a run advance together, as one batch. The loop records the field of every kept state and spins drawn from
it; it can be stopped at any step, saved and continued, with the same result as if it had not been.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from isingflow.errors import InvalidInput
from isingflow.runtime.differences import differences
from isingflow.sampling.files import STATE_BYTES, Chains
from isingflow.sampling.sampler import Sampler, State
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich

KEEP_SECONDS = 60.0
"""Between one save of unfinished chains and the next; longer where saving takes long, see `SAVING`."""
SAVING = 0.05
"""Largest part of the time that goes into saving them."""


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
