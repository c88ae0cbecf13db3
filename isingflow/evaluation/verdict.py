"""Whether what an evaluation found can be trusted, in one line: and if not, what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isingflow.statistics.free_energy import HEAVY_TAIL, LITTLE_OVERLAP

if TYPE_CHECKING:
    from isingflow.evaluation.annealed import AnnealingReport
    from isingflow.evaluation.bridging import Resampled
    from isingflow.evaluation.free_energies import Evaluation

FEW = 100.0
"""Effective samples below which averages over the samples of a flow should not be trusted."""
FAR = 4.0
"""Standard errors from the exact answer at which an estimate is wrong."""
FINER = "train on at a lower rate (isingflow train --from RUN --rate 1e-3) or with more steps of integration"
BETTER = "train longer (--steps), with --preset accurate, or use chains (isingflow monte-carlo, isingflow hmc)"
MORE_STEPS = "take more steps of the bridge (isingflow evaluate --anneal) or train longer"


def checked(certified: bool, error: float, tolerance: float, what: str = "the integration error") -> str:
    """How the check of a flow's integration went, in words.

    Example:
        >>> checked(True, 0.0004, 0.05)
        'integration checked: off by 0.0004 nats'
    """
    if certified:
        return f"integration checked: off by {error:.2g} nats"
    return f"integration error {error:.2g} nats (CHECK FAILED: {what} above its tolerance of {tolerance:g})"


def verdict(found: Evaluation) -> str:
    """What of an evaluation can be trusted: by the check of the integration, the overlap of samples, their weights."""
    estimate, how = found.best
    if not found.certified:
        return f"none of these numbers can be trusted, the integration is too coarse; {FINER}"
    bridge = found.annealed
    if bridge is not None and not bridge.chains_agree:
        return (
            "the bounds from above can be trusted, those from below and the estimates cannot: the chains from which "
            f"paths go back disagree (R-hat {bridge.r_hat:.3f}); try more paths (--paths), which make chains longer too"
        )
    why = _distrust(found)
    if why:
        kind = "bound" if found.both_sides is None and bridge is None else "bounds"
        return f"the {kind} can be trusted, the estimates cannot: {why}; {BETTER if bridge is None else MORE_STEPS}"
    within = max(estimate.stderr, found.integration_error)
    count = len(found.samples.log_weight)
    effective = found.effective_sample_size * count
    told = f"-ln Z by {how} can be trusted to {within:.2g} nats"
    share = f"{100 * found.effective_sample_size:.2g} % of {count} samples count"
    if found.misses_part:
        share += ", and the flow misses part of the target"
    elif effective >= FEW and found.pareto_k <= HEAVY_TAIL:
        return f"{told}, and so can averages over the flow's samples: {share}"
    return f"{told}; averages over the flow's samples cannot, {share}: {BETTER}"


def _distrust(found: Evaluation) -> str:
    """Why the best estimate should not be trusted; empty if it can be."""
    estimate, how = found.best
    bridge, sides = found.annealed, found.both_sides
    if bridge is not None:
        why = (
            _apart(bridge.overlap, "paths of both directions")
            if bridge.both_ways
            else _uneven(bridge.resampled)
            or _light(bridge.effective_sample_size * bridge.paths, bridge.pareto_k, "paths")
        )
    elif sides is not None:
        why = _apart(sides.overlap, "samples of flow and target")
    else:
        why = _light(found.effective_sample_size * len(found.samples.log_weight), found.pareto_k, "samples")
    if not why and found.exact is not None:
        distance = abs(estimate.value - found.exact)
        if distance > FAR * estimate.stderr + found.integration_error:
            return f"the {how} lies {distance:.2g} nats from the exact answer, at an error of {estimate.stderr:.2g}"
    return why


def _apart(overlap: float | None, of: str) -> str:
    """Why two sets cannot be taken together; empty if they can."""
    return f"{overlap:.2g} {of} overlap" if overlap is not None and overlap < LITTLE_OVERLAP else ""


def _uneven(found: Resampled | None) -> str:
    """Why islands cannot be averaged; empty if they can, or if there are none."""
    if found is None or found.effective >= found.islands / 2:
        return ""
    return f"{found.effective:.2g} of {found.islands} islands of resampled paths count"


def _light(effective: float, pareto_k: float, of: str) -> str:
    """Why weights cannot be averaged; empty if they can."""
    if pareto_k > HEAVY_TAIL:
        return f"the weights have heavy tails (Pareto k {pareto_k:.2f})"
    return f"{effective:.2g} {of} count" if effective < FEW else ""


def verdict_of_annealing(found: AnnealingReport) -> str:
    """What of an annealing can be trusted: by the chains that paths begin with, and the overlap of both directions."""
    estimate, how = found.log_z, found.end.method
    apart = f"the bounds are {max(found.bounds_apart, 0.0):.2g} nats apart"
    if not found.starts_agree:
        return "none of these numbers can be trusted: the chains that forward paths begin with do not agree; begin at 0"
    if not found.chains_agree:
        return (
            "the bound from below can be trusted, that from above cannot: the chains that it begins with do not agree; "
            "try more paths (--paths), which make chains longer too"
        )
    if found.end.overlap < LITTLE_OVERLAP:
        few = f"{found.end.overlap:.2g} paths of both directions overlap"
        return f"the bounds can be trusted, the estimate cannot: {few}, {apart}; try more sweeps (--sweeps)"
    farthest = found.distance_from_exact()
    if farthest is not None and farthest[1] > FAR:
        row, errors = farthest
        return (
            f"the bounds can be trusted, the estimate cannot: at beta {row.beta:g} it lies {errors:.2g} standard "
            "errors from the exact answer; try more paths (--paths) or sweeps (--sweeps)"
        )
    where = "" if len(found.rows) == 1 else f" at beta {found.end.beta:g}"
    return f"ln Z by {how} can be trusted to {estimate.stderr:.2g} nats{where}, and so can the bounds: {apart}"
