"""Families of flows: members are ordinary flows, whose parameters are series, in beta or more, and so are gradients."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isingflow.architectures.build import build_flow
from isingflow.architectures.cp_flow import ConvexFlowConfig
from isingflow.architectures.monge_ampere import FlowConfig
from isingflow.architectures.ot_flow import OTFlowConfig
from isingflow.errors import InvalidInput
from isingflow.flows import Family, Range, gradient_flows
from isingflow.lattice import edwards_anderson, square
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich
from isingflow.targets.in_fields import InFields

LOW, HIGH, TERMS = 0.2, 0.5, 4
KINDS = {
    "lattice": (square(4), FlowConfig(hidden=4, radial=2, oriented=1, steps=6)),
    "dense": (square(3), FlowConfig(potential="dense", hidden=5, radial=0, oriented=0, steps=6)),
    "local": (
        edwards_anderson(3, seed=1),
        FlowConfig(potential="local", hidden=2, radius=1, radial=0, oriented=0, steps=6),
    ),
    "ot": (square(3), OTFlowConfig(width=4, steps=6)),
    "convex": (square(3), ConvexFlowConfig(blocks=2, width=4)),
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def build_of(kind):
    lattice, config = KINDS[kind]
    return lambda beta: build_flow(HubbardStratonovich(lattice, beta), config, seed=1)


def family_of(kind, seed=0, by=0.1):
    family = Family(build_of(kind), [Range("beta", LOW, HIGH, TERMS)])
    with torch.no_grad():
        for parameter in family.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator(seed))
    return family.eval()


def powers(series):
    """What coefficients along the first axis count."""
    return 0.4 ** np.arange(len(series)).reshape(-1, *[1] * (series.ndim - 1))


@pytest.mark.parametrize("kind", KINDS)
def test_an_untrained_member_is_the_untrained_flow_of_its_temperature(kind):
    family, build = Family(build_of(kind), [Range("beta", LOW, HIGH, TERMS)]), build_of(kind)
    middle = dict(build((LOW + HIGH) / 2).named_parameters())
    for beta in (LOW, 0.31, HIGH):
        plain, z = build(beta).eval(), torch.randn(3, *family.shape, generator=generator())
        with torch.no_grad():
            for name, parameter in plain.named_parameters():
                parameter.copy_(middle[name])  # parameters start at the values in the middle
        torch.testing.assert_close(family.at(beta)(z), plain(z))


@pytest.mark.parametrize("kind", KINDS)
def test_the_parameters_of_a_member_are_the_series_at_its_temperature(kind):
    family = family_of(kind)
    for beta in (LOW, 0.27, 0.41, HIGH):
        s = (2 * beta - LOW - HIGH) / (HIGH - LOW)
        for series, found in zip(family.parameters(), family.at(beta).parameters(), strict=True):
            counted = series.detach().double().numpy() * powers(series)
            wanted = np.polynomial.chebyshev.chebval(s, counted)
            np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bound_member_is_the_member_and_its_gradient_that_of_the_series(kind):
    family, beta = family_of(kind), 0.33
    z = torch.randn(4, *family.shape, generator=generator(3))
    bound, member = family.bound(beta), family.at(beta)
    torch.testing.assert_close(bound(z), member(z))

    def loss(flow):
        x, logdet = flow(z)
        return x.square().sum() - logdet.sum()

    found = torch.autograd.grad(loss(bound), list(family.parameters()))
    member.requires_grad_(True)
    plain = torch.autograd.grad(loss(member), list(member.parameters()))
    basis = family.basis(beta).float() * torch.tensor([1, 0.4, 0.4**2, 0.4**3])
    for series, gradient in zip(found, plain, strict=True):
        wanted = basis.view(-1, *[1] * gradient.ndim) * gradient
        torch.testing.assert_close(series, wanted, rtol=2e-3, atol=2e-3 * float(wanted.abs().max()) + 1e-5)


def test_members_have_parameters_of_their_own_and_the_steps_of_the_family():
    family = family_of("lattice")
    before = family.at(0.3)
    with torch.no_grad():
        for parameter in family.parameters():
            parameter.zero_()
    gradient_flows(family)[0].steps = 11
    assert any(parameter.abs().max() > 0 for parameter in before.parameters())
    assert (gradient_flows(before)[0].steps, gradient_flows(family.at(0.3))[0].steps) == (6, 11)
    assert gradient_flows(family.bound(0.3))[0].steps == 11


def jittering():
    lattice, config = KINDS["lattice"]
    return Family(
        lambda beta: build_flow(HubbardStratonovich(lattice, beta), config, seed=1, jitter=0.3),
        [Range("beta", LOW, HIGH, 2)],
    )


def test_what_is_drawn_for_the_family_is_drawn_for_its_members():
    family = jittering()
    family.train().redraw(generator(1))
    grids = [gradient_flows(family.bound(beta))[0].grid() for beta in (LOW, 0.4)]
    assert (
        grids[0] == grids[1] == gradient_flows(family)[0].grid() != gradient_flows(family.eval().bound(LOW))[0].grid()
    )


def steps_of(flow):
    return gradient_flows(flow)[0].steps


def test_the_logarithm_of_integration_steps_goes_linearly_from_end_to_end():
    family = family_of("lattice")
    gradient_flows(family)[0].steps = 20
    family.pace.copy_(torch.tensor([0.25, 1.0]))
    assert [steps_of(family.at(beta)) for beta in (LOW, 0.3, 0.35, HIGH)] == [5, 8, 10, 20]  # 5 x 4^(1/3) = 7.94
    assert steps_of(family.bound(0.35)) == 10 and steps_of(family.term(0)) == steps_of(family) == 20
    z = torch.randn(3, *family.shape, generator=generator(2))
    torch.testing.assert_close(family.bound(0.24)(z), family.at(0.24)(z))


def test_steps_of_two_ranges_are_linear_in_both():
    lattice, config = KINDS["local"]
    family = Family(
        lambda beta, field: build_flow(InFields(lattice.with_field(field), beta), config, seed=1),
        [Range("beta", 0.2, 0.4, 2), Range("field", 0.0, 1.0, 2)],
    )
    gradient_flows(family)[0].steps = 100
    family.pace.copy_(torch.tensor([0.1, 0.2, 0.4, 1.0]))
    ends = [(0.2, 0.0), (0.2, 1.0), (0.4, 0.0), (0.4, 1.0)]
    assert [steps_of(family.at(*point)) for point in ends] == [10, 20, 40, 100]
    assert steps_of(family.at(0.3, 0.5)) == 30  # (10 x 20 x 40 x 100)^(1/4) = 29.9
    assert steps_of(family.at(0.3, 1.0)) == 45  # (20 x 100)^(1/2) = 44.7


@settings(max_examples=50, deadline=None)
@given(steps=st.lists(st.integers(1, 128), min_size=2, max_size=2))
def test_steps_at_the_ends_are_those_that_were_set(steps):
    family = Family(build_of("dense"), [Range("beta", LOW, HIGH, 2)])
    family.steps_at_ends = steps
    assert family.steps_at_ends == steps == [steps_of(family.at(beta)) for beta in (LOW, HIGH)]
    between = steps_of(family.at(0.3))
    assert min(steps) <= between <= max(steps)


def test_a_family_that_integrates_nothing_has_no_steps():
    assert family_of("convex").steps_at_ends == []


def test_members_of_fewer_steps_jitter_as_well():
    family = jittering()
    family.pace.copy_(torch.tensor([0.5, 1.0]))
    family.train().redraw(generator(1))
    lengths = [np.diff(gradient_flows(family.bound(beta))[0].grid()) for beta in (LOW, HIGH)]
    assert [len(each) for each in lengths] == [3, 6]
    np.testing.assert_allclose(lengths[0], lengths[1][:3] / lengths[1][:3].sum())
    assert np.ptp(lengths[0]) > 0.01


def test_earlier_checkpoints_have_the_same_steps_for_all_and_shorter_series():
    config = FlowConfig(hidden=4, radial=2, oriented=0, steps=6, products=1)
    family, again = (
        Family(
            lambda beta: build_flow(HubbardStratonovich(square(4), beta), config, seed=1), [Range("beta", LOW, HIGH, 4)]
        )
        for _ in range(2)
    )
    family.pace.copy_(torch.tensor([0.25, 1.0]))
    family.fitted.normal_(generator=generator(3))
    state = family.state_dict()
    again.load_state_dict(state)
    assert torch.equal(again.pace, family.pace) and torch.equal(again.fitted, family.fitted)
    again.load_state_dict(
        {name: value for name, value in state.items() if name != "pace"} | {"fitted": family.fitted[:2]}
    )
    assert torch.equal(again.pace, torch.ones(2))
    assert torch.equal(again.fitted[:2], family.fitted[:2]) and not again.fitted[2:].any() and family.fitted[2:].any()


def test_coefficients_of_earlier_checkpoints_count_as_they_are():
    family, again = family_of("lattice"), family_of("lattice", seed=5)
    state = {name: value.clone() for name, value in family.state_dict().items()}
    counted = {name: state[name] * torch.from_numpy(powers(state[name])) for name, _ in family.named_parameters()}
    del state["scales"]
    again.load_state_dict(state | counted)
    z = torch.randn(4, *family.shape, generator=generator(3))
    for beta in (LOW, 0.33, HIGH):
        torch.testing.assert_close(again.at(beta)(z), family.at(beta)(z))


@pytest.mark.parametrize("terms", [1, 4, 9])
def test_a_step_of_adam_moves_members_by_no_more_than_the_sum_of_the_scales(terms):
    family = Family(build_of("dense"), [Range("beta", LOW, HIGH, terms)])
    before = {beta: list(family.at(beta).parameters()) for beta in (LOW, 0.31, HIGH)}
    optimiser = torch.optim.Adam(family.parameters(), lr=1e-3)
    x, logdet = family.bound(0.31)(torch.randn(4, *family.shape, generator=generator(3)))
    (x.square().sum() - logdet.sum()).backward()
    optimiser.step()
    most = 1e-3 * sum(0.4**power for power in range(terms))
    for beta, parameters in before.items():
        moved = [float((a - b).abs().max()) for a, b in zip(family.at(beta).parameters(), parameters, strict=True)]
        assert 0 < max(moved) <= most * (1 + 1e-3)


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5, math.nan, math.inf])
def test_steps_that_are_none_are_not_loaded(share):
    family = family_of("lattice")
    with pytest.raises(RuntimeError, match="expected shares of steps, above 0 and at most 1"):
        family.load_state_dict(family.state_dict() | {"pace": torch.tensor([share, 1.0])})


def test_terms_are_flows_that_can_be_taken_out_and_put_back():
    family, other = family_of("lattice"), family_of("lattice", seed=5)
    for index in range(TERMS):
        other.set_term(index, family.term(index))
    assert all(torch.equal(a, b) for a, b in zip(family.parameters(), other.parameters(), strict=True))


@settings(max_examples=50, deadline=None)
@given(st.floats(0.2, 0.5))
def test_the_basis_is_chebyshev_s(beta):
    family = Family(build_of("dense"), [Range("beta", LOW, HIGH, 5)])
    s = min(max((2 * beta - LOW - HIGH) / (HIGH - LOW), -1), 1)
    wanted = np.polynomial.chebyshev.chebvander([s], 4)[0]
    np.testing.assert_allclose(family.basis(beta).numpy(), wanted, atol=1e-9)


@pytest.mark.parametrize("beta", [0.19, 0.51, -0.3, math.nan, math.inf, "x", None])
def test_members_outside_of_the_range_are_refused(beta):
    with pytest.raises(InvalidInput, match=r"beta"):
        family_of("dense").at(beta)


def test_a_family_takes_no_fields_and_no_range_that_is_none():
    family = family_of("dense")
    for call in (
        lambda: family(torch.zeros(1, 3, 3)),
        lambda: family.sample(2),
        lambda: family.log_prob(torch.zeros(1, 3, 3)),
    ):
        with pytest.raises(InvalidInput, match=r"\.at\(beta=\.\.\.\)"):
            call()
    for low, high, terms in ((0.5, 0.2, 3), (0.2, 0.2, 3), (0.2, 0.5, 0), (math.nan, 0.5, 3)):
        with pytest.raises(InvalidInput):
            Family(build_of("dense"), [Range("beta", low, high, terms)])


def build_in_field(beta, field):
    lattice, config = KINDS["lattice"]
    return build_flow(InFields(lattice.with_field(field), beta), config, seed=1)


RANGES = [Range("beta", LOW, HIGH, 3), Range("field", -0.1, 0.3, 2)]


def family_of_two(ranges=None, by=0.1):
    family = Family(build_in_field, RANGES if ranges is None else ranges)
    with torch.no_grad():
        for parameter in family.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator())
    return family.eval()


def test_with_two_ranges_parameters_are_series_in_both():
    family = family_of_two()
    assert family.terms == 6
    for beta, field in ((LOW, -0.1), (0.31, 0.0), (HIGH, 0.3)):
        s, r = (2 * beta - LOW - HIGH) / (HIGH - LOW), (2 * field - 0.2) / 0.4
        wanted = np.polynomial.chebyshev.chebvander2d([s], [r], [2, 1])[0]
        np.testing.assert_allclose(family.basis(beta=beta, field=field).numpy(), wanted, atol=1e-9)
        for series, found in zip(family.parameters(), family.at(field=field, beta=beta).parameters(), strict=True):
            table = series.detach().double().numpy().reshape(3, 2, *series.shape[1:])
            counted = table * powers(table) * powers(table[0])
            np.testing.assert_allclose(
                found.numpy(), np.polynomial.chebyshev.chebval2d(s, r, counted), rtol=1e-5, atol=1e-6
            )
        z = torch.randn(3, *family.shape, generator=generator(3))
        torch.testing.assert_close(family.bound(beta=beta, field=field)(z), family.at(beta, field)(z))


def test_a_fixed_parameter_has_no_terms_and_need_not_be_given():
    family = family_of_two([Range("beta", 0.3, 0.3, 1), RANGES[1]])
    assert family.terms == 2
    z = torch.randn(3, *family.shape, generator=generator(3))
    for member in (family.at(0.1), family.at(field=0.1, beta=0.3)):
        torch.testing.assert_close(member(z), family.at(field=0.1)(z), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"values": (0.3,)}, "field is missing"),
        ({"values": (0.3, 0.1, 0.2)}, "3 are given"),
        ({"values": (0.3, 0.1), "field": 0.1}, "each once"),
        ({"beta": 0.3}, "field is missing"),
        ({}, "beta is missing"),
        (
            {"beta": 0.3, "field": 0.31},
            r"field 0\.31 is outside of what the family was made for: expected -0\.1 to 0\.3",
        ),
        ({"beta": 0.3, "field": math.nan}, "field is nan"),
        ({"beta": 0.3, "field": "x"}, "field is 'x'"),
        ({"beta": 0.3, "temperature": 2.0}, "temperature: expected beta and field"),
    ],
)
def test_members_that_do_not_exist_are_refused(given, complaint):
    family = family_of_two()
    values = given.pop("values", ())
    for call in (family.at, family.bound, family.basis):
        with pytest.raises(InvalidInput, match=complaint):
            call(*values, **given)
    with pytest.raises(
        InvalidInput, match=r"beta from 0.2 to 0.5 and field from -0.1 to 0.3.*\.at\(beta=\.\.\., field="
    ):
        family.sample(2)


@pytest.mark.parametrize(
    "ranges", [[], [RANGES[0], RANGES[0]], [("beta", 0.2, 0.3, 1)]], ids=["none", "twice", "tuple"]
)
def test_ranges_that_are_none_are_refused(ranges):
    with pytest.raises(InvalidInput):
        Family(build_in_field, ranges)
    with pytest.raises(InvalidInput):
        Range("field", 0.1, 0.1, 2)
