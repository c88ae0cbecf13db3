"""`isingflow hmc`: Markov chains of fields that follow the magnet of a trained run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from isingflow.cli.options import (
    DEVICE,
    JSON,
    MOST_SAMPLES,
    QUIET,
    RUN,
    SEED,
    TORCH,
    Command,
    OneOf,
    Place,
    Whole,
    check_certified,
    check_new_file,
    device_from,
    lock_file,
)
from isingflow.cli.output import print_result, show_notes, warn
from isingflow.cli.processes import by_first
from isingflow.cli.signals import to_continue
from isingflow.errors import InvalidInput
from isingflow.runtime import launched, stopping
from isingflow.runtime.progress import Clock, ShowProgress, progress_display

MOST_CHAINS = 10**5
NETCDF = ".nc"


@click.command("hmc", cls=Command, address_space=TORCH, together=True)
@RUN
@click.option(
    "--sampler",
    type=OneOf("hmc", "metropolis", "gibbs"),
    default="hmc",
    metavar="hmc|metropolis|gibbs",
    help="Trajectories (the default), the flow as independent proposal, or block Gibbs sampling without the flow.",
)
@click.option(
    "--space",
    type=OneOf("latent", "physical"),
    metavar="latent|physical",
    help="Where, of hmc only: in the latent space of the flow, or on the field itself, without the flow.",
)
@click.option("--chains", type=Whole(1, MOST_CHAINS), required=True, metavar="C", help="How many chains.")
@click.option("--samples", type=Whole(1, MOST_SAMPLES), required=True, metavar="N", help="States to keep of each.")
@click.option(
    "--output",
    type=Place(),
    required=True,
    metavar="FILE.npz|FILE.nc",
    help="A new file for the chains; netCDF for arviz, which cannot be resumed, if it ends in .nc.",
)
@click.option(
    "--warm-up",
    type=Whole(0, MOST_SAMPLES),
    metavar="W",
    help="Steps before the first kept state; by default 50 where chains go through the flow, else 400.",
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
    sampler: str,
    space: str | None,
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
    """Field and spins along Markov chains in one file: Hamiltonian Monte Carlo, exact however poor the flow.

    Autocorrelation times are in kept states, 1/2 where these are independent. The chains so far are saved about once a
    minute. Ctrl-C and SIGTERM save them too, print the command that resumes, and exit; --resume with more --samples
    makes chains longer.
    """
    if resume:
        by_first(lambda: lock_file(output))
        to_continue(ctx, resume_words(ctx.params))
    else:
        by_first(lambda: check_new_file(output, (".npz", NETCDF)))
    show_notes(quiet or as_json)
    from isingflow.errors import RunFolderError
    from isingflow.evaluation.chains import chains_report, missing_modes
    from isingflow.runs.folder import open_magnet
    from isingflow.sampling import sample_chains
    from isingflow.sampling.sample import THROUGH_FLOW, check_choice

    try:
        check_choice(sampler, space)
    except InvalidInput as error:
        raise InvalidInput(f"--{error}") from None
    folder, where = open_magnet(run), device_from(device)
    if (sampler, space) in THROUGH_FLOW:
        check_certified(folder)
        if missing := missing_modes(folder):
            warn(f"{run}: {missing}")
    progress = Progress("trajectories" if sampler == "hmc" else "steps")
    stopping.check()
    with progress_display(quiet or as_json) as progress.show:
        found = sample_chains(
            folder,
            sampler=sampler,
            space=space,
            chains=chains,
            samples=samples,
            warm_up=warm_up,
            every=every,
            seed=seed,
            device=where,
            output=output,
            resume=resume,
            report_progress=progress,
            should_stop=stopping.requested,
        )
    if output.suffix != NETCDF:
        to_continue(ctx, resume_words(ctx.params))
    elif found.samples < samples:
        saved = f"{found.samples} samples of each chain are saved" if found.samples else "nothing is saved"
        warn(f"{output}: {saved}; netCDF cannot be resumed")
    stopping.check()
    if launched.follows():
        return
    report = chains_report(found, run=folder)
    print_result(report.as_dict() | {"output": str(output)}, as_json, lambda: str(report))
    try:
        with folder.results():
            report.draw(folder)
    except RunFolderError as error:
        warn(f"no figure: {error}")


def resume_words(options: dict[str, Any]) -> list[str]:
    """The words of the command that continues what these options began."""
    words = [*launched.words(), "hmc", str(options["run"])]
    for name in ("sampler", "space", "chains", "samples", "output", "warm_up", "every", "seed", "device"):
        if options[name] is not None:
            words += [f"--{name.replace('_', '-')}", str(options[name])]
    return [*words, "--resume"]


class Progress:
    """Shows how far chains are, with the time left.

    Args:
        what: what is counted, in the plural.

    Attributes:
        show: called with the number of steps done, that of all, and a text.
    """

    def __init__(self, what: str) -> None:
        self.show: ShowProgress
        self._what = what
        self._clock = Clock()
        self._first: int | None = None

    def __call__(self, done: int, total: int) -> None:
        if self._first is None:
            self._first = done - 1
        self.show(done, total, f"{self._what}  {self._clock.left(done - self._first, total - self._first)}")
