"""Transforms whose log-determinants have an error: their steps, in and out of checkpoints, and what is refined."""

import pytest
import torch

from isingflow.errors import CheckpointError, InvalidInput
from isingflow.flows import ActNorm, Approximate, ConvexFlow, Flow, GradientFlow, Inverted, LanczosLogdet
from isingflow.flows.base import Transform, approximations, refined
from isingflow.flows.certificate import integration_error, is_stochastic, logdet_error, refinement_error
from isingflow.flows.diagnostics import steps_needed
from isingflow.lattice.symmetry import Group
from isingflow.potentials import ConvexPotential, DensePotential, group_average
from isingflow.potentials.base import Potential
from isingflow.runs.loading import restore


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def dense(seed=0):
    return DensePotential((2,), 6, activation="softplus", generator=generator(seed))


def pair(*steps):
    return Flow((2,), [GradientFlow(dense(0), steps=steps[0]), Inverted(GradientFlow(dense(1), steps=steps[1]))])


class Swell(Transform):
    """x = a z with ln a summed in steps, each too small by the same part of a step squared: a map of a user's own."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    order = 2

    def refined(self, factor):
        return GradientFlow.refined(self, factor)

    def forward(self, z):
        return 2 * z, torch.full((len(z),), 1.0 - self.steps**-2.0, dtype=torch.float64)

    def inverse(self, x):
        return x / 2, -self(x)[1]


def test_every_step_number_survives_save_and_load(tmp_path):
    from safetensors.torch import load_file, save_file

    trained, new = pair(6, 9), pair(3, 3)
    save_file({f"flow.{name}": value for name, value in trained.state_dict().items()}, tmp_path / "flow.safetensors")
    restore(new, load_file(tmp_path / "flow.safetensors"), {"steps": 9})
    assert [part.steps for part in approximations(new)] == [6, 9]
    assert all(map(torch.equal, new(torch.ones(3, 2)), trained(torch.ones(3, 2))))


def test_checkpoints_without_step_numbers_give_all_flows_the_same():
    old = {f"flow.{name}": value for name, value in pair(6, 9).state_dict().items() if "step_count" not in name}
    new = pair(3, 3)
    restore(new, old, {"steps": 7})
    assert [part.steps for part in approximations(new)] == [7, 7]
    with pytest.raises(CheckpointError):
        restore(new, old, {})


@pytest.mark.parametrize("steps", [torch.tensor(0), torch.tensor([1, 2]), torch.tensor(2.5)])
def test_impossible_step_numbers_are_refused(steps):
    state = {f"flow.{name}": value for name, value in pair(6, 9).state_dict().items()}
    with pytest.raises(CheckpointError, match="step_count"):
        restore(pair(3, 3), state | {"flow.transforms.0.step_count": steps}, {"steps": 6})


def test_steps_read_and_set_as_an_integer():
    gradient = GradientFlow(dense(), steps=4)
    gradient.steps *= 2
    assert type(gradient.steps) is int and gradient.steps == gradient.state_dict()["step_count"] == 8


def test_refinement_reaches_every_depth_and_is_undone():
    flow = pair(6, 9)
    assert all(isinstance(part, Approximate) for part in approximations(flow))
    with pytest.raises(ZeroDivisionError), refined(flow, 3):
        assert [part.steps for part in approximations(flow)] == [18, 27]
        raise ZeroDivisionError
    assert [part.steps for part in approximations(flow)] == [6, 9]


def test_a_users_approximation_is_measured_as_ours_are():
    flow = Flow((2,), [ActNorm((2,)), Swell(2)]).eval()
    z = torch.ones(4, 2)
    change = refinement_error(flow, flow.log_prob, z)
    assert change.value == pytest.approx(1 / 4 - 1 / 16) and flow.transforms[1].steps == 2
    assert integration_error(flow, lambda x: x.sum(1), z).value == pytest.approx(change.value)
    # the change at twice the steps, 3 / (4 steps^2), is within 0.01 nats from 9 steps on
    assert steps_needed(flow, z, 0.01) == 9


def test_probes_are_found_in_inverted_maps_and_nowhere_else():
    convex = ConvexFlow(ConvexPotential((2,), width=4, generator=generator()), logdet=LanczosLogdet(3))
    z = torch.randn(5, 2, generator=generator(1))
    forward, backward = Flow((2,), [convex]), Flow((2,), [Inverted(Inverted(convex))])
    assert is_stochastic(forward) and is_stochastic(backward) and not is_stochastic(pair(6, 9))
    assert logdet_error(backward, z) == logdet_error(forward, z) and logdet_error(forward, z).stderr > 0
    assert approximations(forward) == []


class Tilted(Potential):
    """phi(x, t) = beta a.x: depends on a context."""

    def __init__(self):
        super().__init__()
        self.shape, self.symmetry = (2,), Group((2,))
        self.weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))

    def bind(self, context=None):
        beta = torch.ones(1) if context is None else context
        return lambda x, t: ((beta * self.weight).expand_as(x), (0 * x).sum(1))


@pytest.mark.parametrize("recompute", [False, True])
def test_a_flow_passes_its_context_on(recompute):
    beta = torch.tensor([3.0], requires_grad=True)
    flow = GradientFlow(Tilted(), steps=2, recompute=recompute, context=beta)
    assert "context" not in flow.state_dict()
    z = torch.zeros(4, 2)
    x, _ = flow(z)
    flow.context = torch.tensor([5.0])  # of the next pass, not of this one's derivative
    x.sum().backward()
    torch.testing.assert_close(x.detach(), torch.tensor([3.0, 6.0]).expand(4, 2))
    torch.testing.assert_close(flow.potential.weight.grad, torch.full((2,), 12.0))
    torch.testing.assert_close(beta.grad, torch.tensor([12.0]))
    torch.testing.assert_close(flow.inverse(z)[0], -torch.tensor([5.0, 10.0]).expand(4, 2))


@pytest.mark.parametrize("mode", ["exact", "sampled"])
def test_averages_pass_a_context_on(mode):
    average = group_average(Tilted(), Group((2,)), mode)
    context = torch.tensor([2.0])
    for field in (average.bind(context), *average.fields([0.5], context)):
        torch.testing.assert_close(field(torch.zeros(1, 2), 0.5)[0], torch.tensor([[2.0, 4.0]]))


@pytest.mark.parametrize("average", [None, "exact", "sampled"])
def test_potentials_that_depend_on_nothing_refuse_a_context(average):
    potential = dense()
    if average:
        potential = group_average(potential, Group((2,)), average)
    context = torch.tensor([0.44])
    for call in (
        lambda: potential.bind(context),
        lambda: potential.bind_timed(context),
        lambda: potential.fields([0.5], context),
        lambda: GradientFlow(potential, steps=1, context=context)(torch.zeros(1, 2)),
    ):
        with pytest.raises(InvalidInput, match="depends on no physical parameters"):
            call()
