"""What chains of fields say, beside the exact answers."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isingflow.runs.folder import RunFolder
    from isingflow.sampling import Chains, HamiltonianMonteCarlo


DISAGREEMENT = 1.01
"""R-hat from which chains do not agree (Vehtari et al. 2021)."""


def identity(folder: RunFolder) -> dict[str, Any]:
    """What tells chains of one run from those of another: its configuration, and a checksum of the flow."""
    tensors, state = folder.load_checkpoint()
    checksum = hashlib.sha256(str(state["steps"]).encode())
    for name in sorted(name for name in tensors if name.startswith("flow.")):
        checksum.update(name.encode() + tensors[name].numpy().tobytes())
    return {"run": folder.config.to_dict(), "flow": checksum.hexdigest()[:16]}


def missing_modes(run: RunFolder) -> str | None:
    """A warning where the flow misses part of the target: chains rarely enter that part, and do not show it."""
    from isingflow.evaluation.targets import DISAGREEMENT

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
        from isingflow.statistics.mixing import Mixing

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
        from isingflow.plots import magnets as plots

        if self.chains.samples < 2:
            return
        figure = plots.chains_figure(
            {name.replace("_", " "): values for name, values in self.series.items()},
            {name.replace("_", " "): value for name, value in self.exact.items()},
        )
        folder.save_figure(f"hmc-{self.space}.png", plots.png(figure, certified=self.chains.certified))
