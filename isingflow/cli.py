"""The command line: parse, call, print. Anything that it can do, Python can.

Results go to standard output, one JSON document with `--json`; notes and progress go to standard error. A request that
cannot be met is one line, `isingflow: error: ...`, and exit code 2. Commands import what they need when they run, so
that `--help` does not wait for torch.
"""

from __future__ import annotations

import io
import json
import logging
import math
import os
import re
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from isingflow.errors import InvalidInput, IsingflowError, RunFolderError

if TYPE_CHECKING:
    from isingflow.config import RunConfig
    from isingflow.lattice import Lattice
    from isingflow.runs import RunFolder
    from isingflow.training import Progress

EXACT_LENGTH = 10**6
TRAINING_SITES = 2**18
CONTINUOUS_SITES = {True: 2**20, False: 2048}
"""Most sites for which `exact` gives the continuous free energy, by translation invariance: more take too long."""
STRONGEST = 1e6
"""Largest beta and coupling: the ground state is reached long before, and rounding errors take over beyond."""
MOST_SAMPLES = 10**7
PLOT_SAMPLES = 4096
PROGRESS_SECONDS = 10.0
INTERRUPT_CODE = 128 + signal.SIGINT


class Commands(click.Group):
    """A group of commands whose errors are one line on standard error and exit code 2."""

    def main(self, *args: Any, **options: Any) -> Any:
        options |= {"standalone_mode": False, "prog_name": "isingflow"}
        try:
            code = super().main(*args, **options)
        except IsingflowError as error:
            code = _fail(str(error))
        except click.ClickException as error:
            code = _fail(error.format_message())
        except (KeyboardInterrupt, click.Abort):
            print("isingflow: interrupted", file=sys.stderr)
            code = INTERRUPT_CODE
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            code = _fail("out of memory: a smaller lattice, batch or preset may fit")
        sys.exit(code if isinstance(code, int) else 0)


class Size(click.ParamType):
    """A lattice size: "16" or "16x32", within what a command can do."""

    name = "L|LXxLY"

    def __init__(self, length: int = EXACT_LENGTH, sites: int | None = None) -> None:
        self.length, self.sites = length, sites

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        lengths = [_whole(part) for part in re.split("[xX]", value)]
        if not 1 <= len(lengths) <= 2 or any(length is None or length < 2 for length in lengths):
            raise InvalidInput(f"--size {value}: expected L or LXxLY with L >= 2, for example 16 or 16x32")
        size = lengths[0], lengths[-1]
        if self.sites is not None and math.prod(size) > self.sites:
            most = f"{self.sites} sites ({math.isqrt(self.sites)}x{math.isqrt(self.sites)})"
            raise InvalidInput(f"--size {value}: too large; up to {most} are possible")
        if max(size) > self.length:
            raise InvalidInput(f"--size {value}: too large; sides up to {self.length} are possible")
        return size


class Number(click.ParamType):
    """A finite number: positive, or of any sign but limited in size."""

    name = "number"

    def __init__(self, positive: bool = False, most: float = math.inf) -> None:
        self.positive, self.most = positive, most

    def convert(self, value: Any, param: click.Parameter, ctx: click.Context | None) -> float:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number) or (self.positive and number <= 0):
            kind = "positive" if self.positive else "finite"
            raise InvalidInput(f"{param.opts[0]} {value}: expected a {kind} number")
        if abs(number) > self.most:
            raise InvalidInput(f"{param.opts[0]} {value}: expected a number from {-self.most:g} to {self.most:g}")
        return number


class Whole(click.ParamType):
    """An integer within limits."""

    name = "integer"

    def __init__(self, least: int, most: int) -> None:
        self.least, self.most = least, most

    def convert(self, value: Any, param: click.Parameter, ctx: click.Context | None) -> int:
        number = _whole(str(value))
        if number is None or not self.least <= number <= self.most:
            raise InvalidInput(f"{param.opts[0]} {value}: expected an integer from {self.least} to {self.most}")
        return number


class OneOf(click.ParamType):
    """One of a few words."""

    def __init__(self, *words: str) -> None:
        self.words = words
        self.name = "|".join(words)

    def convert(self, value: Any, param: click.Parameter, ctx: click.Context | None) -> str:
        if value not in self.words:
            raise InvalidInput(f"{param.opts[0]} {value}: expected {' or '.join(self.words)}")
        return value


def _options(*options: Callable) -> Callable:
    """Several click options as one decorator, listed in this order."""

    def decorate(command: Callable) -> Callable:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _size_option(size: Size) -> Callable:
    return click.option("--size", type=size, metavar="L|LXxLY", help="Sites along each side; 16 by default.")


MAGNET = _options(
    click.option("--critical", is_flag=True, help="beta = ln(1 + sqrt 2)/2, critical at jx = jy = 1; the default."),
    click.option("--beta", type=Number(most=STRONGEST), metavar="B", help="Inverse temperature, of either sign."),
    click.option("--temperature", type=Number(positive=True), metavar="T", help="1/beta."),
    click.option("--jx", type=Number(most=STRONGEST), metavar="J", help="Coupling along x; 1 by default."),
    click.option("--jy", type=Number(most=STRONGEST), metavar="J", help="Coupling along y; 1 by default."),
    click.option("--boundary", type=OneOf("periodic", "open"), metavar="periodic|open", help="periodic by default."),
)
RUN = click.argument("run", type=click.Path(path_type=Path))
SEED = click.option("--seed", type=Whole(0, 2**62), metavar="N", default=0, help="Random seed; 0 by default.")
DEVICE = click.option("--device", default="auto", metavar="NAME", help="cpu, cuda, cuda:N, or auto (the default).")
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


@click.group(cls=Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
def main(ctx: click.Context) -> None:
    """Free energies of Ising magnets by normalizing flows: certified bounds beside the exact answer."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@main.command()
@_size_option(Size())
@MAGNET
@JSON
def exact(size: tuple[int, int] | None, as_json: bool, **magnet: Any) -> None:
    """The exact answer on a finite square lattice.

    Periodic lattices of any size up to 10^6 x 10^6, open ones up to a width of 16. The offset and free energy of the
    continuous representation need the couplings' spectrum: they are null beyond 2^20 sites (2048 if open).
    """
    from isingflow.exact import thermodynamics

    lattice, beta = _lattice(size, magnet), _beta(magnet)
    result = thermodynamics(lattice, beta)
    offset = free_energy = None
    if lattice.sites <= CONTINUOUS_SITES[lattice.translation_invariant]:
        from isingflow.hubbard_stratonovich import HubbardStratonovich

        target = HubbardStratonovich(lattice, beta)
        offset, free_energy = target.offset, target.free_energy(result.log_z)
    document = {
        "size": list(lattice.size),
        "sites": lattice.sites,
        "beta": beta,
        "jx": lattice.jx,
        "jy": lattice.jy,
        "boundary": lattice.boundary,
        "method": result.method,
        "log_z": result.log_z,
        "log_z_per_site": result.log_z_per_site,
        "energy_per_site": result.energy_per_site,
        "heat_capacity_per_site": result.heat_capacity_per_site,
        "offset": offset,
        "continuous_free_energy": free_energy,
        "continuous_free_energy_per_site": None if free_energy is None else free_energy / lattice.sites,
    }
    _print(document, as_json, lambda: _exact_table(lattice, beta, document))


@main.command()
@_size_option(Size(sites=TRAINING_SITES))
@MAGNET
@click.option("--preset", metavar="NAME", help="quick (the default), accurate, or paper: the published configuration.")
@click.option("--output", type=click.Path(path_type=Path), metavar="RUN", help="The run folder; runs/NNN by default.")
@click.option("--time-limit", type=Number(positive=True), metavar="S", help="Stop training after this many seconds.")
@click.option("--steps", type=Whole(1, 10**9), metavar="N", help="Number of training iterations.")
@click.option("--resume", is_flag=True, help="Continue the run in --output, as if it had not been interrupted.")
@click.option("--seed", type=Whole(0, 2**62), metavar="N", help="Random seed; 0 by default.")
@DEVICE
@click.option("--quiet", is_flag=True, help="No progress and no notes.")
@JSON
@click.pass_context
def train(
    ctx: click.Context,
    output: Path | None,
    time_limit: float | None,
    resume: bool,
    device: str,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a flow, evaluate it and draw its figures.

    Without options: 16x16, critical, preset quick, in a new numbered folder under runs/. Ctrl-C and SIGTERM save a
    checkpoint, print the command that resumes, and exit.
    """
    if resume and output is None:
        raise InvalidInput("--resume: which run? give its folder with --output RUN")
    _show_notes(quiet or as_json)
    from isingflow.runs import RunFolder

    if resume:
        run = RunFolder.open(output)
        _check_unchanged(run, options)
        report = _finished_report(run)
        if report is not None:
            document = {"run": str(run.path), "outcome": "finished", **report}
            _print(document, as_json, lambda: f"{run.path} is finished already; its report:\n{_report_lines(report)}")
            return
        where = _device(device)
    else:
        config = _new_config(options)
        where = _device(device)
        _check_possible(config)
        run = RunFolder.create(output, config)

    from isingflow import plots
    from isingflow.evaluation import evaluate
    from isingflow.training import Outcome
    from isingflow.training import train as train_run

    logging.getLogger(__name__).info("run folder %s", run.path)
    stop = StopRequest()
    with stop.listening(), nullcontext(None) if quiet or as_json else _progress() as report_progress:
        outcome = train_run(
            run, device=where, time_limit=time_limit, report_progress=report_progress, should_stop=stop.requested
        )
    if outcome is Outcome.INTERRUPTED:
        command = _resume_command(run, device, time_limit)
        print(f"interrupted and saved; to continue:\n  {command}", file=sys.stderr)
        ctx.exit(128 + (stop.signal or signal.SIGINT))
    evaluation = evaluate(run, samples=run.config.training.evaluation_samples, device=where)
    run.save_report(evaluation.as_dict())
    if not as_json:
        click.echo(evaluation.table())
    figures = plots.plot_run(run, evaluation.samples)
    document = {"run": str(run.path), "outcome": outcome.value, **evaluation.as_dict()}
    _print(document, as_json, lambda: f"run folder {run.path}, figures in {figures[0].parent}")


@main.command()
@RUN
@click.option("--samples", type=Whole(2, MOST_SAMPLES), metavar="N", help="Samples; by default the run's own number.")
@SEED
@DEVICE
@JSON
def evaluate(run: Path, samples: int | None, seed: int, device: str, as_json: bool) -> None:
    """Free energies of a trained run, with error bars, beside the exact answer; also written to its report.json."""
    folder, where = _open(run, device, as_json)
    from isingflow.evaluation import evaluate as evaluate_run

    count = samples or folder.config.training.evaluation_samples
    evaluation = evaluate_run(folder, samples=count, device=where, seed=seed)
    folder.save_report(evaluation.as_dict())
    _print(evaluation.as_dict(), as_json, evaluation.table)


@main.command()
@RUN
@click.option("--samples", type=Whole(1, MOST_SAMPLES), required=True, metavar="N", help="How many.")
@click.option(
    "--output", type=click.Path(path_type=Path), required=True, metavar="FILE.npz", help="A new file for the arrays."
)
@SEED
@DEVICE
@JSON
def sample(run: Path, samples: int, output: Path, seed: int, device: str, as_json: bool) -> None:
    """Independent samples of a trained run: spins, field, log_prob, log_weight, beta and size in one .npz file.

    They follow the flow; averages over the Ising model need the weights exp(log_weight).
    """
    _check_new_file(output)
    folder, where = _open(run, device, as_json)
    import numpy as np

    from isingflow.evaluation import draw_samples
    from isingflow.runs import write_atomically

    drawn = draw_samples(folder, samples=samples, device=where, seed=seed)
    buffer = io.BytesIO()
    np.savez(buffer, **drawn.arrays())
    try:
        write_atomically(output, buffer.getvalue())
    except OSError as error:
        raise RunFolderError(f"cannot write {output}: {error.strerror}") from error
    document = {"output": str(output), "samples": samples, "size": list(folder.config.lattice.size), "beta": drawn.beta}
    _print(document, as_json, lambda: f"{samples} samples in {output}")


@main.command()
@RUN
@click.option("--samples", type=Whole(2, MOST_SAMPLES), default=PLOT_SAMPLES, metavar="N", help="Samples to draw from.")
@SEED
@DEVICE
@JSON
def plot(run: Path, samples: int, seed: int, device: str, as_json: bool) -> None:
    """Draw the figures of a trained run into its folder."""
    folder, where = _open(run, device, as_json)
    from isingflow import plots
    from isingflow.evaluation import draw_samples

    figures = plots.plot_run(folder, draw_samples(folder, samples=samples, device=where, seed=seed))
    document = {"run": str(run), "figures": [str(path) for path in figures]}
    _print(document, as_json, lambda: "\n".join(document["figures"]))


class StopRequest:
    """Turns the first SIGINT or SIGTERM into a request to stop, and the second into KeyboardInterrupt.

    Attributes:
        signal: the number of the signal that came, or None.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def requested(self) -> bool:
        """Whether a signal has come."""
        return self.signal is not None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen within this context; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        earlier = {number: signal.signal(number, self._receive) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number


class Notes(logging.Handler):
    """Log messages as plain lines on what is standard error at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


def _show_notes(quiet: bool) -> None:
    logger = logging.getLogger("isingflow")
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    if not any(isinstance(handler, Notes) for handler in logger.handlers):
        logger.addHandler(Notes())


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    """A bar on standard error if that is a terminal, else a line every ten seconds."""
    if not sys.stderr.isatty():
        yield PlainProgress()
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Display

    columns = TextColumn("{task.fields[count]}"), BarColumn(20), TextColumn("{task.description}")
    with Display(*columns, console=Console(stderr=True)) as display:
        task = display.add_task("preparing", total=None, count="")

        def show(progress: Progress) -> None:
            display.update(
                task,
                total=progress.iterations,
                completed=progress.iteration,
                count=f"{progress.iteration}/{progress.iterations}",
                description=_progress_text(progress),
            )

        yield show


class PlainProgress:
    """Prints the progress of a training as lines, one every ten seconds."""

    def __init__(self) -> None:
        self._due = 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now >= self._due or progress.iteration == progress.iterations:
            self._due = now + PROGRESS_SECONDS
            where = f"{progress.iteration}/{progress.iterations}"
            print(f"{where}  {_progress_text(progress)}", file=sys.stderr, flush=True)


def _progress_text(progress: Progress) -> str:
    parts = [f"bound {progress.bound:.2f}"]
    if progress.gap is not None:
        parts.append(f"gap {progress.gap:.2f} nats")
    parts.append(f"sample size {100 * progress.effective_sample_size:.0f} %")
    if progress.integration_error is not None:
        parts.append(f"error {progress.integration_error:.1g}")
    minutes, seconds = divmod(round(progress.remaining), 60)
    return "  ".join([*parts, f"{minutes}:{seconds:02d} left"])


def _beta(magnet: dict[str, Any]) -> float:
    """The inverse temperature asked for; critical if none was."""
    from isingflow.lattice import CRITICAL_BETA

    given = ["--critical"] * magnet["critical"]
    given += [f"--{name}" for name in ("beta", "temperature") if magnet[name] is not None]
    if len(given) > 1:
        raise InvalidInput(f"{' and '.join(given)} exclude each other: give one of them")
    if magnet["beta"] is not None:
        return magnet["beta"]
    if magnet["temperature"] is None:
        return CRITICAL_BETA
    if magnet["temperature"] < 1 / STRONGEST:
        raise InvalidInput(f"--temperature {magnet['temperature']:g}: expected at least {1 / STRONGEST:g}")
    return 1 / magnet["temperature"]


def _lattice(size: tuple[int, int] | None, magnet: dict[str, Any], base: Lattice | None = None) -> Lattice:
    """The square lattice asked for; what was not given is 16x16, ferromagnetic and periodic, or as in `base`."""
    from isingflow.lattice import square

    base = base or square(16)
    jx, jy, boundary = (getattr(base, k) if magnet[k] is None else magnet[k] for k in ("jx", "jy", "boundary"))
    return square(*(size or base.shape), jx=jx, jy=jy, boundary=boundary)


def _new_config(options: dict[str, Any]) -> RunConfig:
    from isingflow.config import RunConfig

    preset, seed = options["preset"] or "quick", options["seed"] or 0
    lattice, beta = _lattice(options["size"], options), _beta(options)
    return RunConfig.from_preset(preset, lattice, beta, seed=seed, iterations=options["steps"])


def _check_possible(config: RunConfig) -> None:
    """Build the flow once before anything is written: what is impossible is said now."""
    from isingflow.hubbard_stratonovich import HubbardStratonovich
    from isingflow.model import build_flow

    build_flow(HubbardStratonovich(config.lattice, config.beta), config.flow, seed=config.seed)


def _check_unchanged(run: RunFolder, options: dict[str, Any]) -> None:
    """Options given to --resume must be the run's own."""
    from isingflow.config import RunConfig

    config = run.config
    lattice, beta = config.lattice, config.beta
    if any(options[name] is not None for name in ("size", "jx", "jy", "boundary")):
        if lattice.kind != "square":
            raise RunFolderError(f"--resume: {run.path} holds a {lattice}; leave --size, --jx, --jy, --boundary out")
        lattice = _lattice(options["size"], options, lattice)
    if options["critical"] or options["beta"] is not None or options["temperature"] is not None:
        beta = _beta(options)
    seed = config.seed if options["seed"] is None else options["seed"]
    iterations = options["steps"] or config.training.iterations
    wanted = replace(
        config, lattice=lattice, beta=beta, seed=seed, training=replace(config.training, iterations=iterations)
    )
    if options["preset"] is not None:
        wanted = RunConfig.from_preset(options["preset"], lattice, beta, seed=seed, iterations=iterations)
    differences = wanted.differences(config)
    if differences:
        raise RunFolderError(f"--resume: not the run in {run.path}: {'; '.join(differences)}")


def _finished_report(run: RunFolder) -> dict[str, Any] | None:
    """The report of a run that has nothing left to do."""
    report = run.report()
    if report is None or not run.has_checkpoint or not run.load_checkpoint()[1].get("finished"):
        return None
    return report


def _resume_command(run: RunFolder, device: str, time_limit: float | None) -> str:
    words = ["isingflow", "train", "--resume", "--output", str(run.path)]
    words += [] if device == "auto" else ["--device", device]
    words += [] if time_limit is None else ["--time-limit", f"{time_limit:g}"]
    return shlex.join(words)


def _open(path: Path, device: str, quiet: bool) -> tuple[RunFolder, Any]:
    _show_notes(quiet)
    from isingflow.runs import RunFolder

    return RunFolder.open(path), _device(device)


def _device(name: str) -> Any:
    from isingflow import devices

    return devices.resolve(name)


def _check_new_file(path: Path) -> None:
    if path.suffix != ".npz":
        raise InvalidInput(f"--output {path}: expected a file name that ends in .npz")
    if path.exists() or path.is_symlink():
        raise InvalidInput(f"--output {path}: exists already; choose another name")
    if not path.parent.is_dir():
        raise InvalidInput(f"--output {path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise InvalidInput(f"--output {path}: the folder {path.parent} cannot be written")


def _print(document: dict[str, Any], as_json: bool, text: Callable[[], str]) -> None:
    click.echo(json.dumps(document, indent=2, allow_nan=False) if as_json else text())


def _exact_table(lattice: Lattice, beta: float, document: dict[str, Any]) -> str:
    from isingflow.lattice import CRITICAL_BETA

    title = f"2D Ising, {lattice}, beta = {beta:.6f}" + (" (critical)" if beta == CRITICAL_BETA else "")
    sites = document["sites"]
    rows = [
        (f"ln Z ({document['method']})", document["log_z"], document["log_z_per_site"]),
        ("energy", document["energy_per_site"] * sites, document["energy_per_site"]),
        ("heat capacity", document["heat_capacity_per_site"] * sites, document["heat_capacity_per_site"]),
    ]
    notes = []
    if document["offset"] is None:
        notes.append(f"  -ln Z continuous: not computed for {sites} sites")
    else:
        name = f"-ln Z continuous (offset {document['offset']:.6g})"
        rows.append((name, document["continuous_free_energy"], document["continuous_free_energy_per_site"]))
    lines = [f"{title:<60}{'total':>20}{'per site':>20}"]
    return "\n".join(lines + [f"  {name:<58}{total:>20.12g}{value:>20.12g}" for name, total, value in rows] + notes)


def _report_lines(report: dict[str, Any]) -> str:
    from isingflow.estimate import Estimate

    shown = {key: Estimate(**v) if isinstance(v, dict) else v for key, v in report.items() if v is not None}
    return "\n".join(f"  {key.replace('_', ' '):<28}{value}" for key, value in shown.items())


def _whole(text: str) -> int | None:
    """An integer, also one written like 1e9; None if it is not one."""
    match = re.fullmatch(r"\s*([+-]?\d{1,30})(?:[eE]\+?(\d{1,2}))?\s*", text, re.ASCII)
    return int(match[1]) * 10 ** int(match[2] or 0) if match else None


def _out_of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def _fail(message: str) -> int:
    print(f"isingflow: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
