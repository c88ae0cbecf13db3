"""The laws of potentials phi(x, t) and of convex functions F(x): their closed forms against autograd of their value.

Everything is checked on a copy in float64 whose parameters have been moved. The Hessian of the value takes one pass for
every entry of a field: check small shapes, a few dozen entries say what thousands do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor, nn

from isingflow.errors import InvalidInput
from isingflow.lattice.symmetry import Group
from isingflow.potentials.base import Potential, TimedField
from isingflow.testing.laws import Judge, check, in_words, normal, rebuilt, shaken, single, slope, tried

SAMPLES = 3
"""Fields that laws are checked on where none are given."""
SPREAD = 1.5
"""Their standard deviation."""
TIME_STEP = 5e-3
"""Step of differences by time, which runs from 0 to 1."""
MIDPOINTS = tuple((step + 0.5) / 6 for step in range(6))
"""Of the steps of an integration."""


def derivatives(value: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient, of x's shape, and Hessian, shape (n, N, N), of a function by autograd, with their graphs.

    Args:
        value: shape (n, *shape) to (n,), every sample for itself.
        x: requires gradients.

    Example:
        >>> x = torch.ones(1, 2, requires_grad=True)
        >>> derivatives(lambda x: x.prod(1), x)[1].tolist()
        [[[0.0, 1.0], [1.0, 0.0]]]
    """
    n, sites = len(x), x[0].numel()
    copies = x.repeat(sites, *[1] * (x.ndim - 1))
    one_each = torch.arange(sites, device=x.device).repeat_interleave(n)[:, None]
    gradient = _by(value(copies).sum(), copies)
    rows = _by(gradient.flatten(1).gather(1, one_each).sum(), copies)
    return gradient[:n], rows.view(sites, n, sites).transpose(0, 1)


def _by(scalar: Tensor, x: Tensor) -> Tensor:
    """The gradient with its graph; zero where the scalar does not depend on x."""
    if not scalar.requires_grad:
        return torch.zeros_like(x)
    return torch.autograd.grad(scalar, x, create_graph=True, materialize_grads=True)[0]


def pulled_back(outputs: Sequence[Tensor], inputs: Sequence[Tensor], seed: int) -> tuple[Tensor, ...]:
    """Gradients of a random combination of the outputs by the inputs, zero where there is none."""
    weights = [normal(*output.shape, seed=seed + i).to(output) for i, output in enumerate(outputs)]
    scalar = sum(((weight * output).sum() for weight, output in zip(weights, outputs, strict=True)), torch.zeros(()))
    if not scalar.requires_grad:
        return tuple(torch.zeros_like(tensor) for tensor in inputs)
    return torch.autograd.grad(scalar, inputs, materialize_grads=True)


def compare_gradients(
    judge: Judge, what: str, module: nn.Module, ours: Sequence[Tensor], expected: Sequence[Tensor]
) -> None:
    """Compare gradients by x and by every parameter with those of autograd."""
    names = ["x", *dict(module.named_parameters())]
    for name, one, other in zip(names, ours, expected, strict=True):
        judge.close(f"the gradient of {what} by {name} and that of autograd", one, other)


def demand_use(judge: Judge, module: nn.Module, gradients: Sequence[Sequence[Tensor]]) -> None:
    """Every parameter has a gradient, finite everywhere and somewhere not zero; each row has one for all of them."""
    for (name, parameter), rows in zip(module.named_parameters(), zip(*gradients, strict=True), strict=True):
        for row in rows:
            judge.finite(f"the gradient by {name}", row)
        used = any(bool(row.any()) for row in rows) or not parameter.numel()
        judge.demand(used, f"the parameter {name} has no gradient at all: nothing depends on it")


def compare_images(
    judge: Judge,
    group: Group,
    results: Callable[[Tensor], tuple[Sequence[Tensor], Sequence[Tensor]]],
    x: Tensor,
    seed: int,
    what: tuple[Sequence[str], Sequence[str]],
) -> None:
    """Compare what is invariant, and what turns with the field, between one field and its images.

    Args:
        judge: of the law.
        group: the symmetry claimed.
        results: fields, shape (n, *shape), to invariant tensors, shape (n,), and equivariant ones, shape (n, *shape).
        x: one field, shape (1, *shape).
        seed: of the elements tried.
        what: names of the invariant and of the equivariant results.
    """
    elements = tried(group, seed)
    images = torch.cat([g.apply(x) for g in elements])
    with torch.no_grad():
        invariant, equivariant = results(images)
    turned = [
        torch.stack([g.inverse().apply(row) for g, row in zip(elements, tensor, strict=True)]) for tensor in equivariant
    ]
    for name, tensor in zip([*what[0], *what[1]], [*invariant, *turned], strict=True):
        scale = max(1.0, float(tensor[0].detach().abs().max()))
        off = (tensor - tensor[:1]).detach().abs().flatten(1).amax(1) if tensor.ndim > 1 else (tensor - tensor[0]).abs()
        where = in_words(elements[int(off.argmax())])
        judge.close(f"{name} of x and of g x, g being {where},", tensor, tensor[:1].expand_as(tensor), scale=scale)


# --- potentials of gradient flows


@dataclass(frozen=True)
class _Potential:
    """What the laws of a potential are checked on."""

    potential: Potential
    unmoved: Potential
    other: Potential | None
    x: Tensor
    times: Sequence[float]
    seed: int

    def value(self, x: Tensor, t: float) -> Tensor:
        return self.potential.value(x, t)

    @property
    def inputs(self) -> list[Tensor]:
        return [self.x, *self.potential.parameters()]

    @cached_property
    def _known(self) -> dict[float, tuple[Tensor, Tensor]]:
        return {}

    def exact(self, t: float) -> tuple[Tensor, Tensor]:
        """Gradient of the value and trace of its Hessian by autograd, with a graph that serves one backward pass."""
        if t not in self._known:
            gradient, hessian = derivatives(partial(self.potential.value, t=t), self.x)
            metric = self.potential.metric
            if metric is not None:
                gradient, hessian = (gradient.flatten(1) @ metric).view(gradient.shape), metric @ hessian
            self._known[t] = gradient, hessian.diagonal(dim1=1, dim2=2).sum(1)
        return self._known[t]


def _shapes(judge: Judge, on: _Potential) -> None:
    for potential, dtype in ((on.potential, torch.float64), (single(on.potential), torch.float32)):
        x = on.x.detach().to(dtype)
        for t in on.times:
            gradient, laplacian = potential.bind()(x, t)
            judge.like("the value", potential.value(x, t), x.shape[:1], dtype)
            judge.like("the gradient", gradient, x.shape, dtype)
            judge.like("the Laplacian", laplacian, x.shape[:1], dtype)


def _derivatives(judge: Judge, on: _Potential, part: int) -> None:
    name, exact = (("the gradient", "grad phi by autograd"), ("the Laplacian", "the trace of the Hessian"))[part]
    for t in on.times:
        judge.close(f"{name} and {exact} at t = {t:.3g}", on.potential.bind()(on.x, t)[part], on.exact(t)[part])


def _gradient(judge: Judge, on: _Potential) -> None:
    _derivatives(judge, on, 0)


def _laplacian(judge: Judge, on: _Potential) -> None:
    _derivatives(judge, on, 1)


def _backward(judge: Judge, on: _Potential) -> None:
    for t in on.times:
        exact = pulled_back(on.exact(t), on.inputs, on.seed)
        ours = pulled_back(on.potential.bind()(on.x, t), on.inputs, on.seed)
        compare_gradients(judge, f"grad phi and its Laplacian, t = {t:.3g},", on.potential, ours, exact)


def _use(judge: Judge, on: _Potential) -> None:
    """Between the ends of time, where a parameter may have nothing to do."""
    gradients = [pulled_back(on.potential.bind()(on.x, t), on.inputs, on.seed)[1:] for t in (0.37, 0.81)]
    demand_use(judge, on.potential, gradients)


def _start(judge: Judge, on: _Potential) -> None:
    inputs = [on.x, *on.unmoved.parameters()]
    names = ["x", *dict(on.unmoved.named_parameters())]
    for t in on.times:
        gradient, laplacian = on.unmoved.bind()(on.x, t)
        judge.finite("the gradient at the parameters given", gradient)
        judge.finite("the Laplacian at the parameters given", laplacian)
        for name, by_input in zip(names, pulled_back((gradient, laplacian), inputs, on.seed), strict=True):
            judge.finite(f"the gradient by {name} at the parameters given", by_input)


def _parts(judge: Judge, on: _Potential) -> None:
    t = on.times[0]
    both = pulled_back(on.potential.bind()(on.x, t), on.inputs, on.seed)
    first = pulled_back(on.potential.bind()(on.x, t)[:1], on.inputs, on.seed)
    second = pulled_back(on.potential.bind()(on.x, t)[1:], on.inputs, on.seed + 1)
    for together, one, other in zip(both, first, second, strict=True):
        scale = max([1.0, *(float(part.abs().max()) for part in (one, other) if part.numel())])
        judge.close("gradients of both results and of each one alone", one + other, together, scale=scale)


def _symmetry(judge: Judge, on: _Potential) -> None:
    for t in on.times:

        def results(x: Tensor, t: float = t) -> tuple[list[Tensor], list[Tensor]]:
            gradient, laplacian = on.potential.bind()(x, t)
            return [on.value(x, t), laplacian], [gradient]

        what = ["phi", "the Laplacian"], ["the gradient, turned back,"]
        compare_images(judge, on.potential.symmetry, results, on.x[:1].detach(), on.seed, what)


def _at(on: _Potential, t: float, later: float) -> Tensor:
    return on.value(on.x, t + later)


def _rate(judge: Judge, on: _Potential) -> None:
    for t in on.times:
        field = timed(on.potential)
        if field is None:
            return
        middle = min(max(t, 2 * TIME_STEP), 1 - 2 * TIME_STEP)
        *both, rate = field(on.x, middle)
        judge.like("d phi/dt", rate, on.x.shape[:1], on.x.dtype)
        exact, besides = slope(partial(_at, on, middle), TIME_STEP)
        judge.close(f"d phi/dt and the slope of phi at t = {middle:.3g}", rate, exact, besides=besides.detach())
        names = "gradients of bind() and bind_timed()", "Laplacians of bind() and bind_timed()"
        for name, ours, plain in zip(names, both, on.potential.bind()(on.x, middle), strict=True):
            judge.close(name, ours, plain)
        _rate_gradient(judge, on, rate, middle)


def _rate_gradient(judge: Judge, on: _Potential, rate: Tensor, t: float) -> None:
    """The gradients of d phi/dt are the slopes of phi's gradients."""

    def together(gradients: Sequence[Tensor]) -> Tensor:
        return torch.cat([gradient.flatten() for gradient in gradients])

    ours = together(pulled_back([rate], on.inputs, on.seed))
    exact, besides = slope(lambda h: together(pulled_back([_at(on, t, h)], on.inputs, on.seed)), TIME_STEP)
    judge.close("gradients of d phi/dt and slopes of phi's gradients", ours, exact, besides=besides)


def timed(potential: Potential) -> TimedField | None:
    """`bind_timed()` of a potential that knows d phi/dt; else None."""
    try:
        return potential.bind_timed()
    except InvalidInput:
        return None


def _single_precision(judge: Judge, on: _Potential) -> None:
    coarse = single(on.potential)
    with torch.no_grad():
        for t in on.times:
            names = "gradients in float32 and float64", "Laplacians in float32 and float64"
            results = zip(names, coarse.bind()(on.x.float(), t), on.potential.bind()(on.x, t), strict=True)
            for name, ours, exact in results:
                judge.close(name, ours, exact)


def _batches(judge: Judge, on: _Potential) -> None:
    with torch.no_grad():
        for t in on.times:
            together = (on.value(on.x, t), *on.potential.bind()(on.x, t))
            alone = [(on.value(row[None], t), *on.potential.bind()(row[None], t)) for row in on.x]
            for i, name in enumerate(("values", "gradients", "Laplacians")):
                judge.close(f"{name} of fields together and alone", together[i], torch.cat([one[i] for one in alone]))


def _steps(judge: Judge, on: _Potential) -> None:
    with torch.no_grad():
        for field, t in zip(on.potential.fields(MIDPOINTS), MIDPOINTS, strict=True):
            judge.equal(f"the field of a step and bind(), t = {t:.3g},", field(on.x, t), on.potential.bind()(on.x, t))


def _fixed(judge: Judge, on: _Potential) -> None:
    before = on.x.detach().clone()
    with torch.no_grad():
        for t in on.times:
            first, again = [(torch.rand(3), on.value(on.x, t), *on.potential.bind()(on.x, t))[1:] for _ in range(2)]
            judge.equal("two evaluations without a draw between", again, first)
    judge.equal("fields before and after", [on.x], [before])


def _state(judge: Judge, on: _Potential) -> None:
    again = rebuilt(on.potential, on.other, on.seed + 1)
    with torch.no_grad():
        for t in (*on.times, *MIDPOINTS):
            ours = (again.value(on.x, t), *again.bind()(on.x, t))
            judge.equal("the potential and its saved state", ours, (on.value(on.x, t), *on.potential.bind()(on.x, t)))


POTENTIAL_LAWS = {
    "shapes": _shapes,
    "fixed": _fixed,
    "gradient": _gradient,
    "Laplacian": _laplacian,
    "backward": _backward,
    "use": _use,
    "start": _start,
    "parts": _parts,
    "symmetry": _symmetry,
    "rate": _rate,
    "float32": _single_precision,
    "batches": _batches,
    "steps": _steps,
    "state": _state,
}
"""What each says:

shapes: and types of all results. fixed: nothing changes between draws. gradient, Laplacian: are those of the value.
backward: so are their derivatives by x and the parameters. use: every parameter has one. start: all are finite at the
parameters given. parts: gradient and Laplacian can be differentiated alone. symmetry: for the group claimed
phi(g x) = phi(x), and the gradient turns with x. rate: d phi/dt is that of the value, where it is known. float32:
agrees with float64. batches: samples do not see each other. steps: the fields of an integration are the potential's
own. state: parameters and draws survive save and load.
"""


def check_potential(
    potential: Potential,
    *,
    fields: Tensor | None = None,
    times: Sequence[float] = (0.0, 0.37, 1.0),
    seed: int = 0,
    shake: float = 0.3,
    other: Potential | None = None,
    laws: Sequence[str] | None = None,
) -> None:
    """Refuse a potential that breaks one of `POTENTIAL_LAWS`.

    Args:
        potential: phi; it is copied, and the copy's parameters are moved.
        fields: x to check it on, shape (n, *shape); normal ones if not given.
        times: t to check it at, from 0 to 1.
        seed: of fields, parameters and symmetry elements.
        shake: standard deviation of what is added to the parameters.
        other: a potential of the same settings built from another seed, which must become the same one by loading its
            state; a copy with other parameters and draws if not given.
        laws: names of those to check; all if not given.

    Raises:
        LawBroken: with the law and by how much.

    Example:
        >>> from isingflow.potentials import DensePotential
        >>> class Wrong(DensePotential):
        ...     def bind(self):
        ...         inner = super().bind()
        ...         return lambda x, t: (inner(x, t)[0], 2 * inner(x, t)[1])
        >>> generator = torch.Generator().manual_seed(0)
        >>> check_potential(DensePotential((4,), 3, generator=generator))
        >>> check_potential(Wrong((4,), 3, generator=generator))
        Traceback (most recent call last):
        isingflow.testing.laws.LawBroken: Wrong breaks the law "Laplacian": the Laplacian and the trace of the Hessian \
at t = 0 differ by 0.458 (allowed: 9.09e-13)
    """
    moved = shaken(potential, shake, seed)
    x = SPREAD * normal(SAMPLES, *potential.shape, seed=seed) if fields is None else fields.detach().double().clone()
    on = _Potential(moved, shaken(potential, 0.0, seed), other, x.requires_grad_(), times, seed)
    check(potential, POTENTIAL_LAWS, on, laws)


# --- strongly convex functions
