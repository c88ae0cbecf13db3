"""Markov chains of fields: the loop that runs a sampler, and what comes out.

All chains of a run advance together, as one batch. The loop records the field of every kept state and, where the target
has them, spins drawn from it; it can be stopped at any step, saved and continued, with the same result as if it had not
been.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isingflow.errors import InvalidInput
from isingflow.lattice import Lattice
from isingflow.runtime.checks import LARGEST_SEED, count, flag, function, instance, shown
from isingflow.runtime.differences import differences, in_a_line
from isingflow.sampling.files import Chains, check_room
from isingflow.sampling.sampler import S, Sampler
from isingflow.targets.base import Drawing, Target

KEEP_SECONDS = 60.0
"""Between one save of unfinished chains and the next; longer where saving takes long, see `SAVING`."""
SAVING = 0.05
"""Largest part of the time that goes into saving them."""


def run_chains(
    sampler: Sampler[S],
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
            the sampler cannot start because what it gives is not finite; WrongType: something else than these.

    Example:
        >>> from isingflow.lattice import square
        >>> from isingflow.sampling import BlockGibbs
        >>> from isingflow.targets import HubbardStratonovich
        >>> target = HubbardStratonovich(square(4), beta=0.2)
        >>> run_chains(BlockGibbs(target), chains=3, samples=5).field.shape
        (3, 5, 4, 4)
    """
    instance("sampler", sampler, Sampler, "a Sampler, for example physical(target)")
    samples, chains = count("samples", samples), count("chains", chains)
    warm_up, every = count("warm_up", warm_up, least=0), count("every", every)
    seed = count("seed", seed, least=0, most=LARGEST_SEED)
    instance("identity", identity, dict | None, "a dictionary of what the chains belong to")
    flag("certified", certified)
    instance("earlier", earlier, Chains | None, "Chains to continue")
    for name, told in (("report_progress", report_progress), ("keep", keep)):
        function(name, told)
    function("should_stop", should_stop, optional=False)
    target, device, started = sampler.target, sampler.device, time.perf_counter()
    check_room(sampler.shape, samples=samples, chains=chains, spins=isinstance(target, Drawing))
    lattice, beta = magnet(target)
    counts = {"chains": chains, "warm_up": warm_up, "every": every, "seed": seed}
    moves = {"sampler": sampler.name, "space": sampler.space, "settings": sampler.settings}
    identity = dict(identity or {}) | counts | moves | {"device": device.type}
    generator = torch.Generator(device)
    if earlier is None:
        generator.manual_seed(seed)
        noise = torch.randn(chains, *sampler.shape, dtype=sampler.dtype, device=device, generator=generator)
        state = sampler.init(noise)
        if not all(bool(torch.isfinite(tensor).all()) for tensor in state.tensors().values()):
            raise InvalidInput("the chains cannot start: the flow or the target gives numbers that are not finite")
        moved_fractions: list[float] = []
        done, kept, seconds = 0, 0, 0.0
    else:
        _check_continues(earlier, identity, samples, target)
        state = _restored(sampler, earlier, generator)
        certified = certified and earlier.certified
        moved_fractions, done, kept = earlier.acceptance.tolist(), earlier.steps, earlier.samples
        seconds = earlier.seconds
    field = np.empty((chains, samples, *sampler.shape), np.float32)
    spins = np.empty(field.shape, np.int8) if _spins(target, state.field, torch.Generator(device)) is not None else None
    if earlier is not None:
        field[:, :kept] = earlier.field
    if earlier is not None and spins is not None and earlier.spins is not None:
        spins[:, :kept] = earlier.spins

    def so_far() -> Chains:
        return Chains(
            field=field[:, :kept],
            spins=None if spins is None else spins[:, :kept],
            acceptance=np.array(moved_fractions),
            title=target.title(),
            lattice=lattice,
            beta=beta,
            seconds=time.perf_counter() - started + seconds,
            identity=identity,
            certified=certified,
            steps=done,
            facts=sampler.facts(state),
            state=state.tensors(),
            generator=generator.get_state(),
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
                drawn = _spins(target, state.field, generator)
                if spins is not None and drawn is not None:
                    spins[:, kept] = drawn
                kept += 1
        if report_progress is not None:
            report_progress(done, total)
        if keep is not None and (began := time.perf_counter()) >= due:
            keep(so_far())
            now = time.perf_counter()
            due = now + max(KEEP_SECONDS, (now - began) / SAVING)
    return so_far()


def magnet(target: Target) -> tuple[Lattice, float] | tuple[None, None]:
    """Lattice and inverse temperature of a target that is a magnet in disguise: it has both, and draws spins."""
    lattice, beta = getattr(target, "lattice", None), getattr(target, "beta", None)
    if isinstance(lattice, Lattice) and isinstance(beta, float) and isinstance(target, Drawing):
        return lattice, beta
    return None, None


def _spins(target: Target, field: Tensor, generator: torch.Generator) -> np.ndarray | None:
    """Spins behind fields, if the target has them."""
    drawn = target.draw(field, generator) if isinstance(target, Drawing) else {}
    return drawn["spins"].cpu().numpy() if "spins" in drawn else None


def _check_continues(earlier: Chains, identity: dict[str, Any], samples: int, target: Target) -> None:
    changed = differences(identity, earlier.identity)
    here = (target.title(), tuple(target.shape), *magnet(target))
    if not changed and here != (earlier.title, earlier.shape, earlier.lattice, earlier.beta):
        beta = "" if earlier.beta is None else f", beta {earlier.beta:.12g}"
        changed = [f"{shown(earlier.title)}{beta} there"]
    if changed:
        raise InvalidInput(f"these chains belong to another run and cannot be continued: {in_a_line(changed)}")
    if earlier.samples > samples:
        raise InvalidInput(f"{samples} samples: the chains to continue have {earlier.samples} of them already")


def _restored(sampler: Sampler[S], earlier: Chains, generator: torch.Generator) -> S:
    """The state of earlier chains; the generator takes up what it had become."""
    device, chains = generator.device, len(earlier.field)
    like = sampler.init(torch.zeros(1, *sampler.shape, dtype=sampler.dtype, device=device))
    try:
        generator.set_state(earlier.generator)
        tensors = {name: value.to(device) if value.dim() else value for name, value in earlier.state.items()}
        state = type(like)(**tensors)
        for shared in (True, False):
            for name in like.names(shared=shared):
                found, one = tensors[name], getattr(like, name)
                shape = one.shape if shared else (chains, *one.shape[1:])
                if found.dtype != one.dtype or found.shape != shape or not bool(torch.isfinite(found).all()):
                    raise ValueError(f"its {name} is not what this sampler's is")
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InvalidInput(f"these chains are damaged and cannot be continued: {error}") from None
    return state
