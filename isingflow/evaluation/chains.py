"""What chains of fields say: means with their autocorrelation, beside the exact answers where there are any."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isingflow.errors import InvalidInput
from isingflow.evaluation.free_energies import DISAGREEMENT
from isingflow.exact import averages
from isingflow.runs.solution import solution_in
from isingflow.runtime import stopping
from isingflow.runtime.checks import instance
from isingflow.sampling.measured import measured
from isingflow.sampling.sample import THROUGH_FLOW
from isingflow.statistics.chains import MOST_R_HAT
from isingflow.statistics.mixing import Mixing

if TYPE_CHECKING:
    from isingflow.runs.folder import RunFolder
    from isingflow.sampling import Chains


@dataclass(frozen=True, eq=False)
class ChainsReport:
    """What chains say; made by `chains_report`. As a string it is a table.

    Attributes:
        chains: that it is about.
        series: what is measured, by name: values of shape (chains, samples).
        mixing: what these say, and how well chains mix, by name.
        exact: exact answers by name, as far as known.
        warnings: why means and errors should not be trusted, if so, and what could not be measured.
    """

    chains: Chains
    series: dict[str, np.ndarray]
    mixing: dict[str, Mixing]
    exact: dict[str, float]
    warnings: list[str]

    @property
    def r_hat(self) -> float:
        """The worst of the quantities'; NaN for chains too short to tell."""
        return _worst(self.mixing)

    def as_dict(self) -> dict[str, Any]:
        """The JSON form, with the keys of `isingflow hmc --json`; null for what the sampler does not have."""
        chains = self.chains
        facts = dict.fromkeys(("step_size", "guided", "evaluations", "divergences")) | chains.facts
        return {
            "sampler": chains.identity.get("sampler"),
            "space": chains.identity.get("space"),
            "chains": len(chains.field),
            "samples": chains.samples,
            "acceptance": float(chains.acceptance.mean()),
            **facts,
            "r_hat": self.r_hat if math.isfinite(self.r_hat) else None,
            **{name: mixing.as_dict() for name, mixing in self.mixing.items()},
            "diagnostics": {name: mixing.diagnostics_dict() for name, mixing in self.mixing.items()},
            "exact": self.exact,
            "warnings": self.warnings,
            "seconds": chains.seconds,
            "certified": chains.certified,
        }

    def __str__(self) -> str:
        chains = self.chains
        lines = [
            f"{chains.title}: {len(chains.field)} chains of {chains.samples} samples",
            f"  {self._motion()} in {chains.seconds:.0f} s",
            f"  {'':<24}{'':>26}{'exact':>14}{'tau':>8}{'sample size':>13}{'bulk':>8}{'tail':>8}{'R-hat':>8}",
        ]
        for name, mixing in self.mixing.items():
            exact = f"{self.exact[name]:.7f}" if name in self.exact else ""
            lines.append(
                f"  {name.replace('_', ' '):<24}{mixing.mean!s:>26}{exact:>14}{mixing.tau:>8.2f}"
                f"{mixing.effective_samples:>13.0f}{mixing.ess_bulk:>8.0f}{mixing.ess_tail:>8.0f}{mixing.r_hat:>8.3f}"
            )
        return "\n".join([*lines, *(f"  warning: {warning}" for warning in self.warnings)])

    def draw(self, folder: RunFolder) -> Path | None:
        """Traces and autocorrelations, into the figures of a run; None for chains of one sample, which have neither.

        Raises:
            RunFolderError: the figure cannot be written.
        """
        from isingflow.plots.magnets import chains_figure
        from isingflow.plots.style import png
        from isingflow.runs.config import heading

        if self.chains.samples < 2:
            return None
        figure = chains_figure(
            {name.replace("_", " "): values for name, values in self.series.items()},
            {name.replace("_", " "): value for name, value in self.exact.items()},
        )
        of = self.chains.identity.get("space") or self.chains.identity.get("sampler")
        return folder.save_figure(f"hmc-{of}.png", png(figure, heading(folder.config), certified=self.chains.certified))

    def _motion(self) -> str:
        """The sampler in words, and what it has cost."""
        chains, facts = self.chains, self.chains.facts
        words = [str(chains.identity.get("sampler"))]
        if "guided" in facts:
            motion = "guided by the gradient of U" if facts["guided"] else "free turns, without gradients"
            words = [f"{chains.identity.get('space')} space", f"{motion}; step size {facts['step_size']:.3g}"]
        words.append(f"acceptance {100 * chains.acceptance.mean():.3g} %")
        words += [f"{facts[name]} {name}" for name in ("divergences", "evaluations") if name in facts]
        return ", ".join(words)


def chains_report(chains: Chains, *, target: Any = None, run: RunFolder | None = None) -> ChainsReport:
    """What chains say, from `sample_chains`, `run_chains` or a file.

    Of a magnet: its energy per site and m^2, given the field. Of other targets: `energy`, E(x)/N, for which the target
    must be given; `field_squared`, the mean of x^2 over sites; `magnetisation_squared`, that of x, squared.

    Args:
        chains: at least one sample.
        target: what they follow; not needed for a magnet.
        run: whose flow they went through: what its last evaluation knows of the flow becomes a warning, and the exact
            answer that it has kept is not looked for again.

    Raises:
        InvalidInput: chains without samples.

    Example:
        >>> from isingflow.sampling import sample_chains
        >>> from isingflow.targets import Target
        >>> class Wells(Target):
        ...     shape = (2,)
        ...
        ...     def energy(self, field):
        ...         return (field**2 - 1).square().sum(-1)
        >>> chains = sample_chains(None, Wells(), space="physical", chains=8, samples=20, warm_up=40)
        >>> list(chains_report(chains, target=Wells()).mixing)
        ['energy', 'field_squared', 'magnetisation_squared']
    """
    from isingflow.sampling import Chains

    if not instance("chains", chains, Chains, "Chains, as `sample_chains` gives them").samples:
        raise InvalidInput("these chains were stopped before their first sample: there is nothing to report")
    warnings, exact = [], {}
    series = measured(chains, target)
    if chains.lattice is not None and chains.beta is not None:
        solution = None if run is None else solution_in(run, chains.lattice, chains.beta)
        known = stopping.watched(averages, chains.lattice, chains.beta, solution)
        exact = {name: value for name in series if isinstance(value := known.get(name), float)}
    elif target is None:
        warnings.append("no energy: it can be measured only where the target is given")
    mixing = {name: Mixing.of(values) for name, values in series.items()}
    way = (chains.identity.get("sampler"), chains.identity.get("space"))
    if run is not None and way in THROUGH_FLOW and (missing := missing_modes(run)):
        warnings.append(missing)
    if _worst(mixing) > MOST_R_HAT:
        warnings.append(f"R-hat above {MOST_R_HAT}: the chains are too short, or do not mix")
    if not chains.certified:
        warnings.append("integration not checked: the error of the flow is not known to be tolerable")
    return ChainsReport(chains, series, mixing, exact, warnings)


def missing_modes(run: RunFolder) -> str | None:
    """A warning where the flow misses part of the target: chains rarely enter that part, and do not show it."""
    report = run.report() or {}
    forward, reverse = (report.get(name) for name in ("effective_sample_size", "reverse_effective_sample_size"))
    if not isinstance(forward, int | float) or not isinstance(reverse, int | float):
        return None
    if forward <= DISAGREEMENT * reverse:
        return None
    return (
        "the flow misses part of the target (see isingflow evaluate); chains that go through it may miss it too, and "
        "their errors are then too small"
    )


def _worst(mixing: dict[str, Mixing]) -> float:
    return max(found.r_hat for found in mixing.values())
