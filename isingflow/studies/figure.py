"""The figure of a study: free energy per site beside the exact one, and the gap, against temperature, by size.

Of chains of spins it is the energy, and its distance from the exact one. Where the temperature does not vary, the first
axis that does takes its place.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib.figure import Figure

from isingflow.plots.style import ERROR, EXACT, FLOW, HEIGHT, LOWER, NEUTRAL, STYLE, WIDTH, png
from isingflow.runtime.files import write_atomically
from isingflow.studies.plan import Study

FILE = "figure.png"
COLOURS = (FLOW, LOWER, ERROR, NEUTRAL, "#cc79a7", "#56b4e9", "#f0e442")
ACROSS = ("beta", "field", "size", "seed", "preset", "flow")
"""Axes that the figure may run along, the first that varies."""

WORDS = ("size", "preset", "flow")
"""Axes whose values are no numbers: they stand side by side."""

Row = dict[str, Any]


class Reading(NamedTuple):
    """What the figure shows of a point, nan where it is not known.

    Attributes:
        value, error: of the quantity.
        exact: of the same.
        gap, gap_error: as `GAPS` has it.
    """

    value: float = math.nan
    error: float = math.nan
    exact: float = math.nan
    gap: float = math.nan
    gap_error: float = math.nan


VALUES = {
    "train": "free energy per site (nats)",
    "anneal": "$-\\ln Z$ per site (nats)",
    "monte-carlo": "energy per site",
    "exact": "$-\\ln Z$ per site (nats)",
}
GAPS = {
    "train": "gap (nats)",
    "anneal": "bounds apart (nats)",
    "monte-carlo": "energy per site $-$ exact",
    "exact": "heat capacity per site",
}


def draw(study: Study, rows: list[Row], folder: Path) -> None:
    """Write the figure of the points that are finished; nothing while there is none.

    Raises:
        OSError: it cannot be written.
    """
    if any(row["status"] == "finished" for row in rows):
        write_atomically(folder / FILE, png(study_figure(study, rows), f"isingflow sweep {study.command}"))


@matplotlib.rc_context(STYLE)
def study_figure(study: Study, rows: list[Row]) -> Figure:
    """Both panels; points that are not finished are left out."""
    varied = [axis for axis, values in study.axes.items() if len(values) > 1]
    across = next((axis for axis in ACROSS if axis in varied), next(iter(study.axes)))
    curves: dict[str, list[Row]] = {}
    for row in rows:
        name = ", ".join(f"{axis} {row[axis]}" for axis in varied if axis not in (across, "seed"))
        curves.setdefault(name, []).append(row)
    figure = Figure(figsize=(WIDTH, 1.5 * HEIGHT), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    for number, (name, curve) in enumerate(curves.items()):
        x = [_place(study, across, row[across]) for row in curve]
        found = [reading(study.command, row) for row in curve]
        marks: dict[str, Any] = {"fmt": "o", "markersize": 4, "color": COLOURS[number % len(COLOURS)]}
        above.errorbar(x, [r.value for r in found], [r.error for r in found], label=name or study.command, **marks)
        below.errorbar(x, [r.gap for r in found], [r.gap_error for r in found], **marks)
        known = sorted((place, r.exact) for place, r in zip(x, found, strict=True) if math.isfinite(r.exact))
        if known:
            above.plot(*zip(*known, strict=True), color=EXACT, linewidth=1, label="exact" if number == 0 else None)
    above.set(ylabel=VALUES[study.command])
    below.set(xlabel=r"$\beta$" if across == "beta" else across, ylabel=GAPS[study.command])
    if across in WORDS:
        texts = [str(value) for value in study.axes[across]]
        below.set_xticks(range(len(texts)), texts)
    above.legend()
    return figure


def reading(command: str, row: Row) -> Reading:
    """What the figure shows of a row."""
    if row["status"] != "finished":
        return Reading()
    sites = row.get("sites") or math.nan
    if command == "train":
        value, error = _estimate(row["variational_free_energy"])
        exact = _number(row["exact_free_energy"])
        return Reading(value / sites, error / sites, exact / sites, *_estimate(row["gap_nats"]))
    if command == "anneal":
        value, error = _estimate(row["log_z"])
        upper, lower = _estimate(row["upper_bound"]), _estimate(row["lower_bound"])
        exact = _number(row["exact_log_z"])
        return Reading(
            -value / sites, error / sites, -exact / sites, upper[0] - lower[0], math.hypot(upper[1], lower[1])
        )
    if command == "monte-carlo":
        value, error = _estimate(row["energy_per_site"])
        exact = _number(row["exact_energy_per_site"])
        return Reading(value, error, exact, value - exact, error)
    value = -_number(row["log_z"]) / sites
    return Reading(value, 0.0, math.nan, _number(row["heat_capacity_per_site"]), 0.0)


def _place(study: Study, across: str, text: str) -> float:
    """Where a value lies along the figure."""
    if across in WORDS:
        return float([str(value) for value in study.axes[across]].index(text))
    return float(text)


def _estimate(entry: Row) -> tuple[float, float]:
    return _number(entry["value"]), _number(entry["stderr"])


def _number(entry: float | None) -> float:
    return math.nan if entry is None else float(entry)
