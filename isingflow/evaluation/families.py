"""What a family of flows is worth: free energy, energy, heat capacity and, in external fields, magnetisation.

Every temperature or field asked for gets a run folder of its own inside the family's, `members/beta-B`,
`members/field-H` or `members/beta-B-field-H`, with its flow and its report: all that can be done with a run can be done
with it.

All but the free energy are derivatives of ln Z, as averages over the samples of the flow with their weights:
E = -d ln Z / d beta = <E>, C = beta^2 d^2 ln Z / d beta^2 = beta^2 (<E^2> - <E>^2), and per site
m = d ln Z / d(beta H) / N = <m>. All temperatures together tell where C is largest, see `statistics.peaks`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar

from isingflow.errors import InvalidInput, NoExactSolution
from isingflow.evaluation.free_energies import Evaluation
from isingflow.evaluation.targets import evaluate_target
from isingflow.exact import Thermodynamics, thermodynamics
from isingflow.flows import Family
from isingflow.observables.measure import measure
from isingflow.observables.series import per_sample
from isingflow.runs.config import FamilyConfig, RunConfig, heading
from isingflow.runs.folder import AnyRun, RunFolder, of_kind
from isingflow.runs.loading import trained
from isingflow.runtime.checks import array
from isingflow.statistics.estimate import Estimate
from isingflow.statistics.jackknife import jackknife_mean
from isingflow.statistics.peaks import Peak, heat_capacity_peak

MEMBERS = "members"
DIGITS = ".12g"
"""Of a temperature or field, in the name of its folder: so many are told apart."""
USUAL, USUAL_OF_TWO = 9, 3
"""Temperatures or fields of an evaluation where none are given, and of each where both have a range: evenly spread."""
MEMBER = {"beta": "temperature", "field": "field", "beta field": "temperature and field"}
"""What a member is of, by the parameters that have a range."""
PATIENCE = 1.0
"""Seconds that each of some twenty exact answers may take in the search of the exact peak."""


@dataclass(frozen=True)
class Point:
    """A family at one temperature and field.

    Attributes:
        values: of beta, and of the field if it has a range, by name.
        run: the member's folder.
        evaluation: of its flow.
        energy, heat_capacity: of the spins per site, by reweighting.
        magnetisation: likewise, in external fields, else None.
    """

    values: Mapping[str, float]
    run: RunFolder[RunConfig]
    evaluation: Evaluation
    energy: Estimate
    heat_capacity: Estimate
    magnetisation: Estimate | None = None

    def as_dict(self) -> dict[str, Any]:
        """A row of the table: what `isingflow evaluate --json` says of one run, and the averages over its spins."""
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
        polarised: dict[str, Any] = {}
        if self.magnetisation is not None:
            polarised = {
                "magnetisation": self.magnetisation.as_dict(),
                "exact_magnetisation": None if exact is None else exact.magnetisation_per_site,
            }
        return {
            **{name: report[name] for name in names},
            **self.values,
            "exact_log_z": None if exact is None else exact.log_z,
            "exact_free_energy_ising_per_site": None if exact is None or not beta else -exact.log_z / (beta * sites),
            "energy_per_site": self.energy.as_dict(),
            "exact_energy_per_site": None if exact is None else exact.energy_per_site,
            "heat_capacity_per_site": self.heat_capacity.as_dict(),
            "exact_heat_capacity_per_site": None if exact is None else exact.heat_capacity_per_site,
            **polarised,
            "verdict": report["verdict"],
            "run": str(self.run.path),
        }


@dataclass(frozen=True)
class FamilyEvaluation:
    """A family at several temperatures or fields.

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

    @cached_property
    def peak(self) -> Peak | None:
        """The largest heat capacity; None of a family in fields, at an end of the range, or of fewer than 7 members."""
        found = [(point, point.evaluation.log_z_ising) for point in self.points if point.evaluation.log_z_ising]
        if self.config.fields is not None or not found:
            return None
        by_beta = {point.values["beta"]: (point, log_z) for point, log_z in found}
        sites = self.config.lattice.sites
        return heat_capacity_peak(
            list(by_beta),
            [log_z * (1 / sites) for _, log_z in by_beta.values()],
            [point.energy for point, _ in by_beta.values()],
            [point.heat_capacity for point, _ in by_beta.values()],
        )

    @cached_property
    def exact_peak(self) -> tuple[float, float] | None:
        """Its exact position and height, where exact answers are quick."""
        if self.peak is None:
            return None

        def exact(beta: float) -> Thermodynamics:
            return thermodynamics(self.config.lattice, beta, longest=PATIENCE)

        betas = [point.values["beta"] for point in self.points]
        try:
            best = minimize_scalar(
                lambda beta: -exact(beta).heat_capacity_per_site, bounds=(min(betas), max(betas)), method="bounded"
            )
        except NoExactSolution:
            return None
        return float(best.x), -float(best.fun)

    def as_dict(self) -> dict[str, Any]:
        """The JSON form, with the keys of `isingflow evaluate FAMILY --json`."""
        lattice = self.config.lattice
        known = dict(zip(("exact_beta", "exact_heat_capacity_per_site"), self.exact_peak or (None, None), strict=True))
        return {
            "size": list(lattice.shape),
            "sites": lattice.sites,
            "low": self.config.low,
            "high": self.config.high,
            **({} if self.config.fields is None else {"fields": list(self.config.fields)}),
            "parameters": self.parameters,
            "training_seconds": self.training_seconds,
            "certified": self.certified,
            "heat_capacity_peak": self.peak and self.peak.as_dict() | known,
            "rows": list(self.samples),
        }

    def table(self) -> str:
        """For people: a line for every member."""
        varied = [one.name for one in self.config.varied]
        columns = [*varied, "F/N = -T ln Z/N", "exact", "E/N", "exact", "C/N", "exact"]
        columns += [] if self.points[0].magnetisation is None else ["m", "exact"]
        rows = [(*columns, "gap (nats)", "sample size"), *(_line(point, varied) for point in self.points)]
        widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
        title, _, rest = heading(self.config).partition("; ")
        lines = ["  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        poor = [point for point in self.points if not point.evaluation.certified]
        checked = f"integration checked at every {MEMBER[' '.join(varied)]}"
        if poor:
            where = "; ".join(_where(point, varied) for point in poor)
            checked = f"integration not within its tolerance at {where}: nothing there can be trusted"
        least = min(self.points, key=lambda point: point.evaluation.effective_sample_size)
        size, words = least.evaluation.effective_sample_size, least.evaluation.verdict
        worst = f"smallest effective sample size {100 * size:.2g} %, at {_where(least, varied)}"
        return "\n".join(
            [
                title,
                f"{rest}; {self.parameters} parameters, trained for {self.training_seconds:.3g} s",
                *lines,
                *self._peak_line(),
                f"  {checked}; {worst}: {words}",
            ]
        )

    def _peak_line(self) -> list[str]:
        if self.peak is None:
            return []
        exact = "" if self.exact_peak is None else "; exact: {:.5f}, {:.4f}".format(*self.exact_peak)
        return [f"  largest C/N at beta = {self.peak.beta}: {self.peak.height}{exact}"]


def _where(point: Point, varied: Sequence[str]) -> str:
    """Which member, in words."""
    return ", ".join(f"{name} = {point.values[name]:g}" for name in varied)


def _line(point: Point, varied: Sequence[str]) -> tuple[str, ...]:
    row, found = point.as_dict(), point.evaluation
    free = row["free_energy_ising_per_site"]
    shown = "" if free is None else str(Estimate(free["value"], free["stderr"]))

    def known(name: str, digits: int) -> str:
        return "" if row[name] is None else f"{row[name]:.{digits}f}"

    magnetisation = point.magnetisation
    return (
        *(f"{point.values[name]:.6g}" for name in varied),
        shown,
        known("exact_free_energy_ising_per_site", 6),
        str(point.energy),
        known("exact_energy_per_site", 5),
        str(point.heat_capacity),
        known("exact_heat_capacity_per_site", 4),
        *(() if magnetisation is None else (str(magnetisation), known("exact_magnetisation", 5))),
        "" if found.gap is None else str(found.gap),
        f"{100 * found.effective_sample_size:.3g} %",
    )


def evaluate_family(
    run: AnyRun,
    *,
    samples: int,
    device: torch.device,
    betas: Sequence[float] | None = None,
    fields: Sequence[float] | None = None,
    seed: int = 0,
    reference_samples: int | None = None,
    time_limit: float | None = None,
    anneal: int | None = None,
    paths: int | None = None,
    resample: bool = False,
    report_progress: Callable[[int, int], None] | None = None,
) -> FamilyEvaluation:
    """Evaluate a family at several temperatures or fields; each becomes a run folder inside that of the family.

    Args:
        run: the family's, with a checkpoint.
        betas, fields: inverse temperatures and external fields within its ranges, of which all combinations are
            evaluated; nine, or three of each where both have a range, if not given.
        samples, device, reference_samples, anneal, paths, resample: for each of them, as in `evaluate_target`.
        seed: of the first; others have the seeds that follow.
        time_limit: in seconds, of all of them.
        report_progress: called with members done and in all.

    Raises:
        InvalidInput: temperatures or fields outside of the range, and what `evaluate_target` says.
    """
    config = run.config
    assert isinstance(config, FamilyConfig)
    chosen = _chosen(config, betas, fields)
    family, state = trained(run, config.new_flow(), device)
    assert isinstance(family, Family)
    points = []
    for place, values in enumerate(chosen):
        member = _member(run, config, family, values, state)
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
        points.append(_point(values, of_kind(member, RunConfig), found))
        if report_progress is not None:
            report_progress(place + 1, len(chosen))
    return FamilyEvaluation(config, tuple(points), family.parameter_count, float(state["seconds"]))


def _point(values: dict[str, float], member: RunFolder[RunConfig], found: Evaluation) -> Point:
    """What the samples of a member say of its spins."""
    lattice, beta, drawn = member.config.lattice, member.config.beta, found.samples
    seen = measure(lattice, beta, spins=drawn.spins, field=drawn.field, log_weight=drawn.log_weight)
    magnetisation = seen.magnetisation
    if magnetisation is None and "field" in values:  # of field 0, which other members have not
        series = per_sample(lattice, field=drawn.field, beta=beta)
        magnetisation = jackknife_mean(series.magnetisation, drawn.log_weight)
    return Point(values, member, found, seen.energy_per_site, seen.heat_capacity_per_site, magnetisation)


def _chosen(
    config: FamilyConfig, betas: Sequence[float] | None, fields: Sequence[float] | None
) -> list[dict[str, float]]:
    """Temperature and field of every member of an evaluation, each checked before any is evaluated."""
    if fields is not None and config.fields is None:
        raise InvalidInput(f"fields are of a family with a range of them; this one is {config}")
    given = {"beta": ("betas", betas), "field": ("fields", fields)}
    usual = USUAL if len(config.varied) == 1 else USUAL_OF_TWO
    axes = []
    for one in config.ranges:
        name, asked = given[one.name]
        evenly = np.linspace(one.low, one.high, usual if one in config.varied else 1)
        values = array(name, evenly if asked is None else asked).ravel().tolist()
        for value in values:
            one.check(value, "the family was trained for")
        axes.append([min(max(float(f"{value:{DIGITS}}"), one.low), one.high) for value in values])
    names = [one.name for one in config.ranges]
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*axes)]


def _member(
    run: AnyRun, config: FamilyConfig, family: Family, values: dict[str, float], state: dict[str, Any]
) -> RunFolder[RunConfig]:
    """The run folder of one member, with its flow; one that is there already gets what is learnt now."""
    name = "-".join(f"{one.name}-{values[one.name]:{DIGITS}}" for one in config.varied)
    member: RunFolder[RunConfig] = run.part(f"{MEMBERS}/{name}", config.at(**values))  # type: ignore[assignment]
    flow = family.at(**values)
    tensors = {f"flow.{name}": value.cpu() for name, value in flow.state_dict().items()}
    kept = ("iteration", "seconds", "steps", "finished", "integration_error_nats")
    member.save_checkpoint(tensors, {name: state[name] for name in kept})
    return member
