"""`isingflow hmc`: Markov chains of fields, in the latent space of a trained run or in physical space."""

from __future__ import annotations

import hashlib
import math
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
from isingflow.cli.progress import Clock, ShowProgress, progress_display
from isingflow.cli.signals import StopRequest

if TYPE_CHECKING:
    from isingflow.runs import RunFolder
    from isingflow.sampling import Chains, HamiltonianMonteCarlo

MOST_CHAINS = 10**5
DISAGREEMENT = 1.01
"""R-hat from which chains do not agree (Vehtari et al. 2021)."""
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
    from isingflow.evaluation import load_run
    from isingflow.parallel import workers
    from isingflow.runs import open_magnet
    from isingflow.sampling import Chains, latent, physical, run_chains
    from isingflow.sampling.chains import check_disk

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


def identity(folder: RunFolder) -> dict[str, Any]:
    """What tells chains of one run from those of another: its configuration, and a checksum of the flow."""
    tensors, state = folder.load_checkpoint()
    checksum = hashlib.sha256(str(state["steps"]).encode())
    for name in sorted(name for name in tensors if name.startswith("flow.")):
        checksum.update(name.encode() + tensors[name].numpy().tobytes())
    return {"run": folder.config.to_dict(), "flow": checksum.hexdigest()[:16]}


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


def missing_modes(run: RunFolder) -> str | None:
    """A warning where the flow misses part of the target: chains rarely enter that part, and do not show it."""
    from isingflow.evaluation import DISAGREEMENT

    report = run.report() or {}
    forward, reverse = (report.get(name) for name in ("effective_sample_size", "reverse_effective_sample_size"))
    known = isinstance(forward, int | float) and isinstance(reverse, int | float)
    if not known or forward <= DISAGREEMENT * reverse:
        return None
    return (
        "the flow misses part of the target (see isingflow evaluate); chains in its latent space may miss it too, and "
        "their errors are then too small"
    )


class Report:
    """What chains say: energy and magnetisation with their autocorrelation, beside the exact answers.

    Args:
        chains: the chains.
        sampler: what made them.
        space: "latent" or "physical".
        warnings: what is known of the flow.
    """

    def __init__(self, chains: Chains, sampler: HamiltonianMonteCarlo, space: str, warnings: list[str]) -> None:
        from isingflow.exact import averages
        from isingflow.observables import per_sample
        from isingflow.sampling.chains import Mixing

        self.chains = chains
        self.sampler = sampler
        self.space = space
        series = per_sample(chains.lattice, field=chains.field)
        self.series = {
            "energy_per_site": series.energy / chains.lattice.sites,
            "magnetisation_squared": series.magnetisation_squared,
        }
        self.mixing = {name: Mixing.of(values) for name, values in self.series.items()}
        exact = averages(chains.lattice, chains.beta)
        self.exact = {name: exact[name] for name in self.series if name in exact}
        self.warnings = list(warnings)
        if self.r_hat > DISAGREEMENT:
            self.warnings.append(f"R-hat above {DISAGREEMENT}: the chains are too short, or do not mix")
        if not chains.certified:
            self.warnings.append("not certified: the integration error of the flow is not known to be tolerable")

    @property
    def r_hat(self) -> float:
        """The worst of the quantities'; NaN for chains too short to tell."""
        return max(mixing.r_hat for mixing in self.mixing.values())

    def document(self, output: Path) -> dict[str, Any]:
        """The JSON form."""
        chains = self.chains
        return {
            "space": self.space,
            "chains": len(chains.field),
            "samples": chains.samples,
            "acceptance": float(chains.acceptance.mean()),
            "step_size": self.sampler.step_size,
            "guided": self.sampler.guided,
            "evaluations": self.sampler.evaluations,
            "divergences": self.sampler.divergences,
            "r_hat": self.r_hat if math.isfinite(self.r_hat) else None,
            **{name: mixing.as_dict() for name, mixing in self.mixing.items()},
            "diagnostics": {name: mixing.diagnostics_dict() for name, mixing in self.mixing.items()},
            "exact": self.exact,
            "warnings": self.warnings,
            "seconds": chains.seconds,
            "certified": chains.certified,
            "output": str(output),
        }

    def table(self) -> str:
        """For people."""
        from isingflow.lattice import heading

        chains, sampler = self.chains, self.sampler
        motion = "guided by the gradient of U" if sampler.guided else "free turns, without gradients"
        lines = [
            f"{heading(chains.lattice, chains.beta)}: {len(chains.field)} chains of {chains.samples} samples",
            f"  {self.space} space, {motion}; step size {sampler.step_size:.3g}, "
            f"acceptance {100 * chains.acceptance.mean():.3g} %, {sampler.divergences} divergences, "
            f"{sampler.evaluations} evaluations in {chains.seconds:.0f} s",
            f"  {'':<24}{'':>26}{'exact':>14}{'tau':>8}{'sample size':>13}{'bulk':>8}{'tail':>8}{'R-hat':>8}",
        ]
        for name, mixing in self.mixing.items():
            exact = f"{self.exact[name]:.7f}" if name in self.exact else ""
            lines.append(
                f"  {name.replace('_', ' '):<24}{mixing.mean!s:>26}{exact:>14}{mixing.tau:>8.2f}"
                f"{mixing.effective_samples:>13.0f}{mixing.ess_bulk:>8.0f}{mixing.ess_tail:>8.0f}{mixing.r_hat:>8.3f}"
            )
        return "\n".join([*lines, *(f"  warning: {warning}" for warning in self.warnings)])

    def draw(self, folder: RunFolder) -> None:
        """Traces and autocorrelations, into the figures of the run."""
        from isingflow import plots

        if self.chains.samples < 2:
            return
        figure = plots.chains_figure(
            {name.replace("_", " "): values for name, values in self.series.items()},
            {name.replace("_", " "): value for name, value in self.exact.items()},
        )
        folder.save_figure(f"hmc-{self.space}.png", plots.png(figure, certified=self.chains.certified))
