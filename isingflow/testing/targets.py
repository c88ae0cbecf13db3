"""The laws of targets exp(-E(x)) / Z: forces, starts, exact free energies, and samples by identities that they keep.

Integration by parts (Stein 1972): for x from exp(-E) / Z and any smooth f that grows slowly,

    E[f(x).grad E(x) - div f(x)] = 0;        f(x) = x is the virial theorem, E[x.grad E] = N.

It needs neither Z nor other samples to compare with. A move x -> x' from these samples that keeps detailed balance has,
for any f and g,

    E[f(x) g(x') - g(x) f(x')] = 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from isingflow.errors import InvalidTarget, IsingflowError
from isingflow.flows.base import Flow
from isingflow.statistics.free_energy import reweighted_free_energy, variational_free_energy
from isingflow.statistics.weights import effective_sample_size
from isingflow.targets import checks
from isingflow.targets.base import (
    Drawing,
    ExactlySolved,
    GibbsSampled,
    Referenced,
    Reversible,
    Target,
    TargetLike,
    as_target,
)
from isingflow.testing.laws import DEVIATIONS, Judge, LawBroken, check, generator, normal, slope
from isingflow.testing.transforms import check_transform

FIELDS = 4
"""Fields that forces are checked on."""
STEP = 1e-2
"""Of differences of the energy."""
STARTS = 4096
"""Samples of the start that its bound is computed from."""
CHAINS, STATES = 64, 16
"""Reference chains, whose means are independent, and states of each."""
PAIRS = (*combinations(("a.x", "b.x", "c.x", "d.x"), 2), ("a.x", "b.tanh x"), ("E", "(a.x)^2"))
"""Functions f and g that detailed balance is checked with, of random vectors a to d."""
TRUSTED = 100.0
"""Effective samples from which a reweighted free energy and its error are taken at their word."""


def stein(target: Target, field: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """f.grad E - div f for some f, by name, float64, shape (n,): their means over samples of the target are zero.

    Args:
        target: E.
        field: x, shape (n, *shape).
        seed: of a random matrix and a random vector.

    Example:
        >>> class Normal(Target):
        ...     shape = (2,)
        ...
        ...     def energy(self, field):
        ...         return field.square().sum(-1) / 2
        >>> stein(Normal(), torch.ones(1, 2))["f = x"]
        tensor([0.], dtype=torch.float64)
    """
    x = field.detach().double().flatten(1)
    slopes = -target.force(field.detach().double()).flatten(1)
    sites = x.shape[1]
    matrix, vector = normal(sites, sites, seed=seed) / math.sqrt(sites), normal(sites, seed=seed + 1)
    matrix, vector = matrix.to(x.device), vector.to(x.device) / math.sqrt(sites)
    wave = torch.tanh(x)
    return {
        "f = x": (x * slopes).sum(1) - sites,
        "f = M x": ((x @ matrix.T) * slopes).sum(1) - matrix.trace(),
        "f = v": slopes @ vector,
        "f = tanh x": (wave * slopes).sum(1) - (1 - wave.square()).sum(1),
    }


@dataclass(frozen=True)
class _Target:
    """What the laws of a target are checked on."""

    target: Target
    given: TargetLike
    seed: int
    reference: Callable[[Referenced], tuple[Tensor, Tensor]]
    """Reference states of what is given and fields of them, shape (chains, samples, *shape), drawn once."""

    @property
    def fields(self) -> Tensor:
        """Random fields at the target's own scale, float64."""
        x = normal(FIELDS, *self.target.shape, seed=self.seed).float()
        for transform in (*self.target.start().latent, *self.target.start().field):
            x = transform(x)[0]
        return x.detach().double()


def _energy(judge: Judge, on: _Target) -> None:
    try:
        checks.check_target(on.target, seed=on.seed)
    except IsingflowError as broken:
        raise LawBroken(judge.subject, judge.law, str(broken)) from broken


def _force(judge: Judge, on: _Target) -> None:
    target = on.target
    for dtype in (torch.float32, torch.float64):
        x = on.fields.to(dtype).requires_grad_()
        energy = target.energy(x)
        (gradient,) = torch.autograd.grad(energy.sum(), x)
        judge.like("the energy", energy, x.shape[:1], dtype)
        both = target.energy_and_force(x.detach())
        for what, force in (("force()", target.force(x.detach())), ("energy_and_force()", both[1])):
            judge.like(what, force, x.shape, dtype)
            judge.close(f"{what} and minus the gradient of the energy", force, -gradient)
        judge.close("energies of energy() and energy_and_force()", both[0], energy.detach())
    x, direction = on.fields, normal(*on.fields.shape, seed=on.seed + 1)
    with torch.no_grad():
        exact, besides = slope(lambda h: target.energy(x + h * direction), STEP)
    ours = -(target.force(x) * direction).flatten(1).sum(1)
    judge.close("the force and differences of the energy", ours, exact, besides=besides)


def _start(judge: Judge, on: _Target) -> None:
    z = normal(FIELDS, *on.target.shape, seed=on.seed)
    for transform in (*on.target.start().latent, *on.target.start().field):
        try:
            check_transform(transform, points=z, laws=("shapes", "inverse", "log-determinant", "cancel"), shake=0.0)
        except LawBroken as broken:
            what = f"a map of its start is wrong: {broken}"
            raise LawBroken(judge.subject, judge.law, what, broken.size, broken.tolerance) from broken
        z = transform(z)[0].detach()


def _free_energy(judge: Judge, on: _Target) -> None:
    solved = on.given.exact_free_energy() if isinstance(on.given, ExactlySolved) else None
    if solved is None:
        return
    exact, start = solved[0], on.target.start()
    flow = Flow(on.target.shape, [*start.latent, *start.field]).double()
    x, log_prob = flow.sample(STARTS, generator=generator(on.seed))
    log_weights = -on.target.energy(x).double().detach() - log_prob
    bound, better = variational_free_energy(log_weights), reweighted_free_energy(log_weights)
    allowed = DEVIATIONS * (bound.stderr or 0.0)
    broken = f"the start's variational bound {bound} lies below the exact free energy {exact:.6g}"
    judge.demand(bound.value >= exact - allowed, broken, exact - bound.value, allowed)
    if effective_sample_size(log_weights) * STARTS > TRUSTED:
        off, allowed = abs(better.value - exact), DEVIATIONS * (better.stderr or 0.0) + 1e-9 * abs(exact)
        broken = f"the exact free energy {exact:.6g} and the reweighted one {better} differ"
        judge.demand(off <= allowed, broken, off, allowed)


def _identities(judge: Judge, target: Target, fields: Tensor, what: str, seed: int) -> None:
    """Of chains, shape (chains, samples, *shape): their means are independent, their states are not."""
    for name, values in stein(target, fields.flatten(0, 1), seed).items():
        judge.mean(f"Stein's identity with {name} for {what}", values.view(fields.shape[:2]).mean(1))


def _reference(judge: Judge, on: _Target) -> None:
    if isinstance(on.given, Referenced):
        states, fields = on.reference(on.given)
        judge.like("a field of the reference", fields, (CHAINS, STATES, *on.target.shape), torch.float64)
        again = on.given.reference(STATES, chains=CHAINS, seed=on.seed)
        judge.equal("reference states of equal seeds", [states], [again])
        _identities(judge, on.target, fields, "reference samples", on.seed)


def _swept(judge: Judge, on: _Target, sweep: Callable[..., Tensor]) -> tuple[Tensor, Tensor] | None:
    """Reference fields and the same after a sweep that leaves the target invariant; None where there are none."""
    x = on.fields
    moved = [sweep(x, generator(on.seed)) for _ in range(2)]
    judge.like("the fields of a sweep", moved[0], x.shape, x.dtype)
    judge.equal("sweeps of equal seeds", moved[:1], moved[1:])
    if not isinstance(on.given, Referenced):
        return None
    fields = on.reference(on.given)[1]
    swept = sweep(fields.flatten(0, 1), generator(on.seed)).view(fields.shape)
    _identities(judge, on.target, swept, "samples after a sweep", on.seed)
    return fields, swept


def _sweep(judge: Judge, on: _Target) -> None:
    if isinstance(on.given, GibbsSampled):
        _swept(judge, on, on.given.sweep)


def _reversible_sweep(judge: Judge, on: _Target) -> None:
    if not isinstance(on.given, Reversible):
        return
    both = _swept(judge, on, on.given.reversible_sweep)
    if both is None:
        return
    before, after = (_measured(on.target, fields, on.seed) for fields in both)
    for f, g in PAIRS:
        # A constant in f or g changes nothing but the scatter.
        about_f, about_g = before[f].mean(), before[g].mean()
        there = (before[f] - about_f) * (after[g] - about_g)
        back = (before[g] - about_g) * (after[f] - about_f)
        balance = (there - back).mean(1)
        judge.mean(f"detailed balance, f(x) g(x') - g(x) f(x') with f = {f} and g = {g}", balance)


def _measured(target: Target, fields: Tensor, seed: int) -> dict[str, Tensor]:
    """Functions of fields along chains, shape (chains, samples, *shape), by name, float64, shape (chains, samples)."""
    x = fields.double().flatten(2)
    vectors = dict(zip("abcd", normal(4, x.shape[-1], seed=seed + 1).to(x.device), strict=True))
    return {
        **{f"{name}.x": x @ vector for name, vector in vectors.items()},
        "b.tanh x": torch.tanh(x) @ vectors["b"],
        "(a.x)^2": (x @ vectors["a"]).square(),
        "E": target.energy(fields.flatten(0, 1)).detach().double().view(x.shape[:2]),
    }


def _draw(judge: Judge, on: _Target) -> None:
    """What is drawn depends on the generator alone; behind reference fields it is distributed as their states."""
    if not isinstance(on.given, Drawing):
        return
    x = on.fields
    first, again = (on.given.draw(x, generator(on.seed)) for _ in range(2))
    for name, drawn in first.items():
        judge.demand(len(drawn) == len(x), f"{len(drawn)} {name} are drawn for {len(x)} fields")
        judge.equal(f"{name} of equal seeds", [drawn], [again[name]])
    if not isinstance(on.given, Referenced):
        return
    states, fields = on.reference(on.given)
    for name, drawn in on.given.draw(fields.flatten(0, 1), generator(on.seed)).items():
        if drawn.numel() == states.numel():
            rows, known = (tensor.double().reshape(CHAINS, STATES, -1) for tensor in (drawn, states))
            vector = normal(rows.shape[-1], seed=on.seed)
            for moment in (1, 2):
                change = ((rows @ vector) ** moment - (known @ vector) ** moment).mean(1)
                judge.mean(f"moment {moment} of {name} drawn, less that of reference states", change)


TARGET_LAWS = {
    "energy": _energy,
    "force": _force,
    "start": _start,
    "free energy": _free_energy,
    "reference": _reference,
    "sweep": _sweep,
    "reversible sweep": _reversible_sweep,
    "draw": _draw,
}
"""What each says:

energy: those of `targets.checks`, symmetry among them. force: minus the gradient, by autograd and by differences.
start: its maps are invertible, with their log-determinants. free energy: the exact one lies below the start's bound,
and is the reweighted one where that can be trusted. reference, sweep: samples keep Stein's identities. reversible
sweep: so they do, and it keeps detailed balance. draw: depends on the generator alone, and is distributed as the states
of the reference. What a target cannot do is not asked of it.
"""


def check_target(target: TargetLike, *, seed: int = 0, laws: Sequence[str] | None = None) -> None:
    """Refuse a target that breaks one of `TARGET_LAWS`.

    Args:
        target: a `Target`, or any object with a shape and an energy.
        seed: of fields and samples.
        laws: names of those to check; all if not given.

    Raises:
        LawBroken: with the law and by how much.

    Example:
        >>> class Quartic(Target):
        ...     shape = (3,)
        ...
        ...     def energy(self, field):
        ...         return field.pow(4).sum(-1)
        ...
        ...     def force(self, field):
        ...         return -3 * field.pow(3)
        >>> check_target(Quartic(), laws=["energy"])
        >>> check_target(Quartic())
        Traceback (most recent call last):
        isingflow.testing.laws.LawBroken: Quartic breaks the law "force": force() and minus the gradient of the energy \
differ by 10.3 (allowed: 0.0202)
    """
    try:
        adapted = as_target(target)
    except InvalidTarget as refused:
        raise LawBroken(type(target).__name__, "energy", str(refused)) from refused
    known: list[tuple[Tensor, Tensor]] = []

    def reference(given: Referenced) -> tuple[Tensor, Tensor]:
        if not known:
            states = given.reference(STATES, chains=CHAINS, seed=seed)
            known.append((states, given.sample_field(states.double(), generator(seed))))
        return known[0]

    check(target, TARGET_LAWS, _Target(adapted, target, seed, reference), laws)
