"""What a family of flows is worth: free energy, energy and heat capacity against temperature, beside the exact curves.

Every temperature asked for gets a run folder of its own inside the family's, `members/beta-B`, with the flow of that
temperature and its report: all that can be done with a run can be done with it.

Energy and heat capacity are derivatives of ln Z by beta. They are averages over the samples of the flow with their
weights: E = -d ln Z / d beta = <E>, and C = beta^2 d^2 ln Z / d beta^2 = beta^2 (<E^2> - <E>^2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from isingflow.errors import InvalidInput
from isingflow.evaluation.free_energies import Evaluation
from isingflow.evaluation.targets import evaluate_target
from isingflow.flows import Family
from isingflow.observables.measure import measure
from isingflow.runs.config import FamilyConfig, RunConfig, heading
from isingflow.runs.folder import AnyRun, RunFolder, of_kind
from isingflow.runs.loading import trained
from isingflow.runtime.checks import array
from isingflow.statistics.estimate import Estimate

MEMBERS = "members"
DIGITS = ".12g"
"""Of a temperature, in the name of its folder: so many are told apart."""
USUAL = 9
"""Temperatures of an evaluation where none are given: evenly from one end of the range to the other."""


@dataclass(frozen=True)
class Point:
    """A family at one temperature.

    Attributes:
        run: the member's folder.
        evaluation: of its flow.
        energy, heat_capacity: of the spins per site, by reweighting.
    """

    run: RunFolder[RunConfig]
    evaluation: Evaluation
    energy: Estimate
    heat_capacity: Estimate

    def as_dict(self) -> dict[str, Any]:
        """A row of the table: what `isingflow evaluate --json` says of one run, and energy and heat capacity."""
        report = self.evaluation.as_dict()
        exact = self.evaluation.exact_spins
        names = (
            "beta",
            "free_energy_ising_per_site",
            "log_z_ising",
            "variational_free_energy",
            "lower_bound",
            "exact_free_energy",
            "gap_nats",
            "effective_sample_size",
            "integration_error_nats",
            "certified",
        )
        beta, sites = self.evaluation.beta, self.evaluation.sites
        return {
            **{name: report[name] for name in names},
            "exact_log_z": None if exact is None else exact.log_z,
            "exact_free_energy_ising_per_site": None if exact is None or not beta else -exact.log_z / (beta * sites),
            "energy_per_site": self.energy.as_dict(),
            "exact_energy_per_site": None if exact is None else exact.energy_per_site,
            "heat_capacity_per_site": self.heat_capacity.as_dict(),
            "exact_heat_capacity_per_site": None if exact is None else exact.heat_capacity_per_site,
            "verdict": report["verdict"],
            "run": str(self.run.path),
        }


@dataclass(frozen=True)
class FamilyEvaluation:
    """A family at several temperatures.

    Attributes:
        config: of its run.
        points: in the order asked for.
        parameters, training_seconds: of the family.
    """

    config: FamilyConfig
    points: tuple[Point, ...]
    parameters: int
    training_seconds: float

    @property
    def certified(self) -> bool:
        """Whether the integration of every member is within its tolerance."""
        return all(point.evaluation.certified for point in self.points)

    @property
    def samples(self) -> Sequence[Mapping[str, Any]]:
        """What figures are made of: the rows."""
        return [point.as_dict() for point in self.points]

    def as_dict(self) -> dict[str, Any]:
        """The JSON form, with the keys of `isingflow evaluate FAMILY --json`."""
        lattice = self.config.lattice
        return {
            "size": list(lattice.shape),
            "sites": lattice.sites,
            "low": self.config.low,
            "high": self.config.high,
            "parameters": self.parameters,
            "training_seconds": self.training_seconds,
            "certified": self.certified,
            "rows": list(self.samples),
        }

    def table(self) -> str:
        """For people: a line for every temperature."""
        columns = ("beta", "F/N = -T ln Z/N", "exact", "E/N", "exact", "C/N", "exact", "gap (nats)", "sample size")
        rows = [columns, *map(_line, self.points)]
        widths = [max(len(row[place]) for row in rows) for place in range(len(columns))]
        title, _, rest = heading(self.config).partition("; ")
        lines = ["  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        poor = [point for point in self.points if not point.evaluation.certified]
        checked = "integration checked at every temperature"
        if poor:
            betas = ", ".join(f"{point.evaluation.beta:g}" for point in poor)
            checked = f"integration not within its tolerance at beta = {betas}: nothing there can be trusted"
        least = min(self.points, key=lambda point: point.evaluation.effective_sample_size).evaluation
        worst = f"smallest effective sample size {100 * least.effective_sample_size:.2g} %, at beta = {least.beta:g}"
        return "\n".join(
            [
                title,
                f"{rest}; {self.parameters} parameters, trained for {self.training_seconds:.3g} s",
                *lines,
                f"  {checked}; {worst}: {least.verdict}",
            ]
        )


def _line(point: Point) -> tuple[str, ...]:
    row, found = point.as_dict(), point.evaluation
    free = row["free_energy_ising_per_site"]
    shown = "" if free is None else str(Estimate(free["value"], free["stderr"]))

    def known(name: str, digits: int) -> str:
        return "" if row[name] is None else f"{row[name]:.{digits}f}"

    return (
        f"{found.beta:.6g}",
        shown,
        known("exact_free_energy_ising_per_site", 6),
        str(point.energy),
        known("exact_energy_per_site", 5),
        str(point.heat_capacity),
        known("exact_heat_capacity_per_site", 4),
        "" if found.gap is None else str(found.gap),
        f"{100 * found.effective_sample_size:.3g} %",
    )


def evaluate_family(
    run: AnyRun,
    *,
    samples: int,
    device: torch.device,
    betas: Sequence[float] | None = None,
    seed: int = 0,
    reference_samples: int | None = None,
    time_limit: float | None = None,
    anneal: int | None = None,
    paths: int | None = None,
    resample: bool = False,
    report_progress: Callable[[int, int], None] | None = None,
) -> FamilyEvaluation:
    """Evaluate a family at several temperatures; each becomes a run folder inside that of the family.

    Args:
        run: the family's, with a checkpoint.
        betas: inverse temperatures within its range; nine of them if not given.
        samples, device, reference_samples, anneal, paths, resample: for each of them, as in `evaluate_target`.
        seed: of the first; others have the seeds that follow.
        time_limit: in seconds, of all of them.
        report_progress: called with temperatures done and in all.

    Raises:
        InvalidInput: temperatures outside of the range, and what `evaluate_target` says.
    """
    config = run.config
    assert isinstance(config, FamilyConfig)
    chosen = _chosen(config, betas)
    family, state = trained(run, config.new_flow(), device)
    assert isinstance(family, Family)
    points = []
    for place, beta in enumerate(chosen):
        member = _member(run, config, family, beta, state)
        with member.results():
            found = evaluate_target(
                member,
                samples=samples,
                device=device,
                seed=seed + place,
                reference_samples=reference_samples,
                time_limit=None if time_limit is None else time_limit / len(chosen),
                anneal=anneal,
                paths=paths,
                resample=resample,
            )
            member.save_report(found.as_dict(), found.table())
        drawn = found.samples
        seen = measure(config.lattice, beta, spins=drawn.spins, field=drawn.field, log_weight=drawn.log_weight)
        points.append(Point(of_kind(member, RunConfig), found, seen.energy_per_site, seen.heat_capacity_per_site))
        if report_progress is not None:
            report_progress(place + 1, len(chosen))
    return FamilyEvaluation(config, tuple(points), family.parameter_count, float(state["seconds"]))


def _chosen(config: FamilyConfig, betas: Sequence[float] | None) -> list[float]:
    """The temperatures of an evaluation, each checked before any is evaluated."""
    if betas is None:
        width = (config.high - config.low) / (USUAL - 1)
        betas = [*(config.low + width * place for place in range(USUAL - 1)), config.high]
    chosen = array("betas", betas).ravel().tolist()
    if not chosen:
        raise InvalidInput("betas: expected at least one")
    for beta in chosen:
        config.at(beta)
    return [min(max(float(f"{beta:{DIGITS}}"), config.low), config.high) for beta in chosen]


def _member(
    run: AnyRun, config: FamilyConfig, family: Family, beta: float, state: dict[str, Any]
) -> RunFolder[RunConfig]:
    """The run folder of one temperature, with its flow; one that is there already gets what is learnt now."""
    member: RunFolder[RunConfig] = run.part(f"{MEMBERS}/beta-{beta:{DIGITS}}", config.at(beta))  # type: ignore[assignment]
    flow = family.at(beta)
    tensors = {f"flow.{name}": value.cpu() for name, value in flow.state_dict().items()}
    kept = ("iteration", "seconds", "steps", "finished", "integration_error_nats")
    member.save_checkpoint(tensors, {name: state[name] for name in kept})
    return member
