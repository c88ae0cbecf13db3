"""All that `isingflow hmc` does but for printing: chains of a run, or of a flow and a target, to memory or a file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from isingflow.errors import FileError, InvalidInput
from isingflow.flows import Flow
from isingflow.runs.folder import AnyRun, RunFolder
from isingflow.runs.loading import is_certified, new_flow, opened, trained
from isingflow.runs.shared import shared
from isingflow.runtime import devices, launched, stopping
from isingflow.runtime.checks import LARGEST_SEED, choice, count, flag, function, instance
from isingflow.runtime.parallel import Workers
from isingflow.runtime.processes import placed
from isingflow.runtime.sharing import sharing
from isingflow.sampling.chains import run_chains
from isingflow.sampling.files import Chains, check_room
from isingflow.sampling.inference_data import SUFFIX as NETCDF
from isingflow.sampling.inference_data import require_arviz, write_netcdf
from isingflow.sampling.latent import latent
from isingflow.sampling.metropolis import BlockGibbs, FlowMetropolis
from isingflow.sampling.physical import physical
from isingflow.sampling.sampler import Sampler, device_of
from isingflow.targets.base import Drawing, Target, as_target

WARM_UP = {("hmc", "latent"): 50, ("hmc", "physical"): 400, ("metropolis", None): 50, ("gibbs", None): 400}
"""Steps of the warm-up by sampler and space: in physical space a mass matrix has to be measured."""
THROUGH_FLOW = {("hmc", "latent"), ("metropolis", None)}
"""Those whose chains go through a flow, and are as good as its log-determinants."""
KEPT = "chains that were saved are kept, --resume goes on from them"
"""Where a process is lost."""


def sample_chains(
    run: RunFolder | Path | str | Flow | None,
    target: Target | None = None,
    *,
    sampler: str = "hmc",
    space: str | None = None,
    chains: int,
    samples: int,
    warm_up: int | None = None,
    every: int = 1,
    seed: int = 0,
    device: torch.device | str = "auto",
    output: Path | str | None = None,
    resume: bool = False,
    report_progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Chains:
    """Markov chains of fields that follow a target, by any of the samplers.

    Args:
        run: a run folder, or where it is; or a flow; None where no flow is needed.
        target: what the chains follow; of a run on a magnet not needed.
        sampler: "hmc"; "metropolis", with the flow as proposal; "gibbs", the target's own move.
        space: of hmc alone: "latent", that of the flow, or "physical", on the field itself.
        chains, samples: how many states of how many chains.
        warm_up: steps before the first kept state; by default 50 where chains go through a flow, else 400.
        every: steps from one kept state to the next.
        seed: of the chains.
        device: where a run is loaded to; flows and targets that are given stay where they are.
        output: a new .npz file to save the chains to, about once a minute and at the end; or a .nc file for arviz,
            see `Chains.to_arviz`, from which chains cannot be resumed.
        resume: continue the chains in `output`, as if they had not been interrupted.
        report_progress, should_stop: as for `run_chains`.

    Of several processes (torchrun) all make this call, and share the work where chains go through the flow; elsewhere
    the first one does it. That one alone writes, reports and is asked to stop.

    Returns:
        The chains; fewer samples than asked for if they were stopped.

    Raises:
        InvalidInput: a sampler that is not known, cannot do with what is given, or an option out of range.
        FileError: `output` cannot be written, or not be continued.
        RunFolderError: there is no run.

    Example:
        >>> from isingflow.lattice import square
        >>> from isingflow.targets import HubbardStratonovich
        >>> target = HubbardStratonovich(square(4), beta=0.3)
        >>> sample_chains(None, target, space="physical", chains=4, samples=10, warm_up=20).field.shape
        (4, 10, 4, 4)
    """
    check_choice(sampler, space)
    samples, chains = count("samples", samples), count("chains", chains)
    seed, resume = count("seed", seed, least=0, most=LARGEST_SEED), flag("resume", resume)
    instance("run", run, RunFolder | Path | str | Flow | None, "a run folder, its path, or a Flow")
    instance("output", output, Path | str | None, "a path")
    function("should_stop", should_stop, optional=False)
    way, path = (sampler, space), None if output is None else Path(output)
    if path is None and resume:
        raise InvalidInput("to resume chains, give the file that they are in as output")
    if path is not None and path.suffix == NETCDF:
        if resume:
            raise InvalidInput(f"{path}: holds no state to resume chains from; give the .npz file that does")
        require_arviz()
    folder = opened(run) if isinstance(run, RunFolder | Path | str) else None
    given = None if target is None else as_target(target)
    shape, spins = _rows(folder, given)
    where = placed(devices.resolve(device)) if folder is not None else _device(run, given)

    def drawn(pool: Workers) -> Chains:
        earlier = pool.first(lambda: _earlier(path, resume=resume))
        # Before a flow is loaded, which takes longer than to find that there is no room.
        check_room(shape, samples=samples, chains=chains, spins=spins, path=path)
        identity: dict[str, Any] = {}
        certified = True
        if folder is not None:
            own = shared(folder)
            follows = own.config.target(given).to(where)
            flow: Flow | None = trained(own, new_flow(own.config, follows), where)[0]
            identity, certified = _identity(own), way not in THROUGH_FLOW or is_certified(own)
        elif given is not None:
            follows, flow = given, run if isinstance(run, Flow) else None
        kept = None if launched.follows() else path
        stopping.check()
        with stopping.deferred():
            found = run_chains(
                _make(way, flow, follows, pool),
                samples=samples,
                chains=chains,
                warm_up=WARM_UP[way] if warm_up is None else warm_up,
                every=every,
                seed=seed,
                identity=identity,
                certified=certified,
                earlier=earlier,
                report_progress=None if launched.follows() else report_progress,
                keep=None if kept is None else lambda chains: _save(chains, kept, follows),
                should_stop=lambda: pool.first(should_stop),
            )
            if kept is not None and (earlier is None or found.steps > earlier.steps):
                _save(found, kept, follows)
        return found

    with sharing(where, KEPT if path is not None else "") as pool:
        return drawn(pool) if way in THROUGH_FLOW else pool.first(lambda: drawn(pool))


def check_choice(sampler: str, space: str | None) -> None:
    """Refuse a sampler that there is not, and a space that does not go with it.

    Raises:
        InvalidInput: one of these.
    """
    choice("sampler", sampler, dict.fromkeys(name for name, _ in WARM_UP))
    instance("space", space, str | None, "latent, physical or None")
    if (sampler, space) in WARM_UP:
        return
    spaces = [known for name, known in WARM_UP if name == sampler and known is not None]
    if not spaces:
        raise InvalidInput(f"space {space}: does not go with the sampler {sampler}: leave it out")
    given = "space" if space is None else f"space {space}"
    raise InvalidInput(f"{given}: expected {' or '.join(spaces)} for the sampler {sampler}")


def _make(way: tuple[str, str | None], flow: Flow | None, target: Target, pool: Workers) -> Sampler[Any]:
    if way == ("hmc", "physical"):
        return physical(target, pool=pool)
    if way == ("gibbs", None):
        return BlockGibbs(target)
    if flow is None:
        raise InvalidInput(f"the sampler {way[0]}{' in latent space' if way[1] else ''} needs a flow")
    return latent(flow, target, pool=pool) if way[1] == "latent" else FlowMetropolis(flow, target, pool=pool)


def _earlier(path: Path | None, *, resume: bool) -> Chains | None:
    """The chains to go on with."""
    if path is None:
        return None
    if resume:
        return Chains.read(path)
    if path.exists():
        raise InvalidInput(f"{path}: exists already; resume the chains in it, or choose another name")
    return None


def _device(flow: object, target: Target | None) -> torch.device:
    """Where chains are, of a flow and a target that are given."""
    assert target is not None
    return flow.device if isinstance(flow, Flow) else device_of(target)


def _rows(run: AnyRun | None, target: Target | None) -> tuple[tuple[int, ...], bool]:
    """Shape of a field, and whether spins are drawn with it.

    Raises:
        InvalidInput: there is neither a run nor a target.
    """
    if target is not None:
        return tuple(target.shape), isinstance(target, Drawing)
    if run is not None:
        return run.config.sample[1], True
    raise InvalidInput("chains follow a target: hand one, or a run folder that knows its own")


def _identity(run: RunFolder) -> dict[str, Any]:
    """What tells chains of one run from those of another: its configuration, and a checksum of the flow."""
    tensors, state = run.load_checkpoint()
    checksum = hashlib.sha256(str(state["steps"]).encode())
    for name in sorted(name for name in tensors if name.startswith("flow.")):
        checksum.update(name.encode() + tensors[name].numpy().tobytes())
    return {"run": run.config.to_dict(), "flow": checksum.hexdigest()[:16]}


def _save(chains: Chains, path: Path, target: Target) -> None:
    """Save chains, over what was saved of them before; where that fails, say what remains."""
    if path.suffix == NETCDF:
        return write_netcdf(chains, path, target) if chains.samples else None
    try:
        chains.save(path)
    except FileError as error:
        before = "; what was saved before is intact, resuming goes on from there" if path.exists() else ""
        raise FileError(f"{error}{before}") from None
