"""`isingflow hmc`: Markov chains of fields, in the latent space of a trained run or in physical space."""

from __future__ import annotations

import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isingflow.cli.options import (
    DEVICE,
    JSON,
    MOST_SAMPLES,
    OUTPUT,
    QUIET,
    RUN,
    SEED,
    OneOf,
    Whole,
    check_certified,
    check_new_file,
    device_from,
)
from isingflow.cli.output import print_result, show_notes, warn
from isingflow.cli.signals import StopRequest
from isingflow.evaluation.chains import Report, identity, missing_modes
from isingflow.runtime.progress import Clock, ShowProgress, progress_display

if TYPE_CHECKING:
    from isingflow.sampling import Chains

MOST_CHAINS = 10**5
WARM_UP = {"latent": 50, "physical": 400}
"""Trajectories of the warm-up, by space: in physical space a mass matrix has to be measured."""


@click.command("hmc")
@RUN
@click.option(
    "--space",
    type=OneOf("latent", "physical"),
    required=True,
    metavar="latent|physical",
    help="Where: in the latent space of the flow, or on the field itself, without the flow.",
)
@click.option("--chains", type=Whole(1, MOST_CHAINS), required=True, metavar="C", help="How many chains.")
@click.option("--samples", type=Whole(1, MOST_SAMPLES), required=True, metavar="N", help="States to keep of each.")
@OUTPUT
@click.option(
    "--warm-up",
    type=Whole(0, MOST_SAMPLES),
    metavar="W",
    help="Trajectories before the first kept state; by default 50 in latent, 400 in physical space.",
)
@click.option(
    "--every", type=Whole(1, MOST_SAMPLES), default=1, metavar="K", help="Keep every K-th state; 1 by default."
)
@click.option("--resume", is_flag=True, help="Continue the chains in --output, as if they had not been interrupted.")
@SEED
@DEVICE
@QUIET
@JSON
@click.pass_context
def command(
    ctx: click.Context,
    run: Path,
    space: str,
    chains: int,
    samples: int,
    output: Path,
    warm_up: int | None,
    every: int,
    resume: bool,
    seed: int,
    device: str,
    quiet: bool,
    as_json: bool,
) -> None:
    """Hamiltonian Monte Carlo: field and spins along chains in one .npz file, exact however poor the flow.

    Autocorrelation times are in kept states, 1/2 where these are independent. The chains so far are saved about once a
    minute. Ctrl-C and SIGTERM save them too, print the command that resumes, and exit; --resume with more --samples
    makes chains longer.
    """
    if not resume:
        check_new_file(output)
    show_notes(quiet or as_json)
    from isingflow.errors import RunFolderError
    from isingflow.evaluation.targets import load_run
    from isingflow.runs.folder import open_magnet
    from isingflow.runtime.parallel import workers
    from isingflow.sampling import Chains, latent, physical, run_chains
    from isingflow.sampling.files import check_disk

    folder, where = open_magnet(run), device_from(device)
    lattice = folder.config.lattice
    earlier = Chains.read(output) if resume else None
    check_disk(output, samples=samples, chains=chains, sites=lattice.sites)
    certified, missing = True, None
    if space == "latent":
        certified, missing = check_certified(folder), missing_modes(folder)
        if missing:
            warn(f"{run}: {missing}")
    flow, target, _ = load_run(folder, where)
    stop, progress = StopRequest(), Progress()
    with workers(where) as pool, stop.listening(), progress_display(quiet or as_json) as progress.show:
        sampler = latent(flow, target, pool=pool) if space == "latent" else physical(target, pool=pool)
        found = run_chains(
            sampler,
            samples=samples,
            chains=chains,
            warm_up=WARM_UP[space] if warm_up is None else warm_up,
            every=every,
            seed=seed,
            identity={"space": space} | identity(folder),
            certified=certified,
            earlier=earlier,
            report_progress=progress,
            keep=lambda chains: _save(chains, output),
            should_stop=stop.requested,
        )
        if earlier is None or found.steps > earlier.steps:
            _save(found, output)
    if found.samples < samples:
        print(f"interrupted and saved; to continue:\n  {resume_command(ctx.params)}", file=sys.stderr)
        ctx.exit(128 + (stop.signal or signal.SIGINT))
    report = Report(found, sampler, space, [missing] if missing else [])
    print_result(report.document(output), as_json, report.table)
    try:
        report.draw(folder)
    except RunFolderError as error:
        warn(f"no figure: {error}")


def _save(chains: Chains, path: Path) -> None:
    """Save chains, over what was saved of them before; where that fails, say what remains."""
    from isingflow.errors import FileError

    try:
        chains.save(path)
    except FileError as error:
        before = "; what was saved before is intact, --resume goes on from there" if path.exists() else ""
        raise FileError(f"{error}{before}") from None


def resume_command(options: dict[str, Any]) -> str:
    """The command that continues what these options began."""
    words = ["isingflow", "hmc", str(options["run"])]
    for name in ("space", "chains", "samples", "output", "warm_up", "every", "seed", "device"):
        if options[name] is not None:
            words += [f"--{name.replace('_', '-')}", str(options[name])]
    return shlex.join([*words, "--resume"])


class Progress:
    """Shows how far chains are, with the time left.

    Attributes:
        show: called with the number of trajectories done, that of all, and a text.
    """

    def __init__(self) -> None:
        self.show: ShowProgress
        self._clock = Clock()
        self._first: int | None = None

    def __call__(self, done: int, total: int) -> None:
        if self._first is None:
            self._first = done - 1
        self.show(done, total, f"trajectories  {self._clock.left(done - self._first, total - self._first)}")
