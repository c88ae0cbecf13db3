"""Every architecture on every kind of domain: what it builds, that it claims no symmetry too much, and its limits."""

import math
from typing import get_args

import networkx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import asdict, replace

from isingflow.architectures.base import Domain
from isingflow.architectures.build import FLOWS, AnyFlowConfig, build_flow
from isingflow.architectures.cp_flow import EXACT_DIMENSION, ConvexFlowConfig
from isingflow.architectures.monge_ampere import FlowConfig
from isingflow.architectures.ot_flow import OTFlowConfig
from isingflow.errors import InvalidInput, SymmetryMismatch
from isingflow.flows import ActNorm, CholeskyLogdet, ConvexFlow, Flow, GradientFlow, Inverted, LanczosLogdet
from isingflow.flows.solvers.runge_kutta import TABLEAUX, TableauName
from isingflow.lattice import Group, cubic, edwards_anderson, from_graph, square, triangular
from isingflow.lattice.symmetry import square_torus_group
from isingflow.potentials import (
    ConvexPotential,
    DensePotential,
    ImagePotential,
    LatticeConvexPotential,
    LatticePotential,
    LatticeResidualPotential,
    LocalConvexPotential,
    LocalPotential,
    LocalResidualPotential,
    LogSumExpPotential,
    ResidualPotential,
    SymmetricAverage,
)
from isingflow.potentials.kernels import with_inversion
from isingflow.potentials.layers.activations import CONVEX, ConvexName
from isingflow.runtime.settings import read
from isingflow.targets.base import Target
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich


def magnet(lattice):
    return Domain.of_target(HubbardStratonovich(lattice, 0.3))


def without_flip(group):
    return Domain(group.shape, Group(group.shape, group.translations, group.point))


TORI = {
    "square": magnet(square(4)),
    "rectangle": magnet(square(4, 6)),
    "anisotropic": magnet(square(4, jy=0.5)),
    "triangular": magnet(triangular(4)),
    "cubic": magnet(cubic(3)),
    "in a field": without_flip(square_torus_group(4, 4)),
    "magnet in a field": magnet(square(4).with_field(0.1)),
}
OTHERS = {
    "open": magnet(square(4, boundary="open")),
    "open, without neighbours": Domain((4, 4), square(4, boundary="open").symmetry),
    "glass": magnet(edwards_anderson(4, seed=3)),
    "graph": magnet(from_graph(networkx.petersen_graph())),
    "ring": Domain((6,), Group((6,), True, flip=True)),
    "translations alone": Domain((4, 4), Group((4, 4), True, flip=True)),
    "no symmetry": Domain((5,), Group((5,))),
    "table": Domain.of_data(5),
    "images": Domain.of_data(12, 4),
}
DOMAINS = TORI | OTHERS
SMALL = {
    "monge-ampere": FlowConfig(hidden=4, radial=2, oriented=1, steps=2),
    "ot": OTFlowConfig(width=4, rank=2, steps=2),
    "convex": ConvexFlowConfig(blocks=2, width=4, radial=2, oriented=1),
}
every_domain = pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS)
every_flow = pytest.mark.parametrize("flow", SMALL.values(), ids=SMALL)


def built(flow, domain, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Flow(domain.shape, flow.fitted(domain).build(domain, generator)).eval()


def potentials(flow):
    maps = [module for module in flow.modules() if isinstance(module, ConvexFlow | GradientFlow)]
    return [module.potential for module in maps]


def has_kernels(flow, domain):
    return domain.convolutional if flow.kind == "monge-ampere" else domain.evenly_convolutional


def test_one_place_decides_what_is_convolutional():
    assert {name for name, domain in DOMAINS.items() if domain.convolutional} == set(TORI)


@pytest.mark.parametrize(
    "lattice", [square(2, 4), square(3, jx=np.ones((3, 3))), triangular(5), square(4, boundary="open")]
)
def test_a_magnet_is_convolutional_where_it_is_translation_invariant(lattice):
    assert magnet(lattice).convolutional == lattice.translation_invariant


@every_flow
@every_domain
def test_no_potential_claims_more_than_its_domain_has(flow, domain):
    found = potentials(built(flow, domain))
    assert found
    for potential in found:
        assert domain.symmetry.contains(potential.symmetry)
        assert not (potential.symmetry.flip and not domain.even)


@every_flow
@every_domain
def test_what_is_built_has_the_symmetry_that_it_claims(flow, domain):
    """phi(g x) = phi(x), or F(g x) = F(x), for some elements of the group that the potential claims."""
    generator = torch.Generator().manual_seed(1)
    for potential in potentials(built(flow, domain)):
        for parameter in potential.parameters():
            parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        x = torch.randn(3, *domain.shape, generator=generator)
        time = () if hasattr(potential, "hessian") else (0.3,)
        for element in potential.symmetry.sample(np.random.default_rng(0), 4):
            torch.testing.assert_close(
                potential.value(element.apply(x), *time), potential.value(x, *time), rtol=1e-4, atol=1e-4
            )


def has_neighbours(flow, domain):
    return domain.local if flow.kind == "monge-ampere" else domain.evenly_local


KINDS = {
    "monge-ampere": (LatticePotential, LocalPotential, DensePotential),
    "ot": (LatticeResidualPotential, LocalResidualPotential, ResidualPotential),
    "convex": (LatticeConvexPotential, LocalConvexPotential, ConvexPotential),
}


@every_flow
@every_domain
def test_convolutions_where_they_are_possible_and_local_or_dense_maps_elsewhere(flow, domain):
    kind = KINDS[flow.kind][0 if has_kernels(flow, domain) else 1 if has_neighbours(flow, domain) else 2]
    assert flow.fitted(domain).last == (kind is KINDS[flow.kind][1])
    for potential in potentials(built(flow, domain)):
        inner = potential.potential if isinstance(potential, SymmetricAverage) else potential
        assert isinstance(inner, kind)


@every_domain
@pytest.mark.parametrize("network", ["layers", "residual", "dense", "halves"])
def test_networks_of_layers_are_connected_as_they_are_told(domain, network):
    flow = ConvexFlowConfig(network=network, normalised=True, blocks=1, width=4, layers=3, radial=2, oriented=0)
    (potential,) = potentials(built(flow, domain))
    inner = potential.potential if isinstance(potential, SymmetricAverage) else potential
    assert inner.network.kind == network and len(inner.network.log_gains) == 3


@every_domain
def test_a_soft_maximum_sees_the_whole_field(domain):
    flow = ConvexFlowConfig(network="log-sum-exp", blocks=2, width=4)
    assert all(isinstance(potential, LogSumExpPotential) for potential in potentials(built(flow, domain)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"softness": 0.5}, "flow.softness is 0.5, but the network is layers: expected 0.3"),
        ({"network": "log-sum-exp"}, "flow.radial is 5, but the network is log-sum-exp: expected 0"),
        ({"network": "log-sum-exp", "radial": 0, "layers": 2}, "flow.layers is 2, but .* log-sum-exp: expected 1"),
        ({"network": "log-sum-exp", "normalised": True}, "flow.normalised is True, but .* log-sum-exp: expected False"),
        ({"network": "dense", "softness": 0.5}, "flow.softness is 0.5, but the network is dense: expected 0.3"),
        ({"network": "halves", "augmented": False}, "augmented is False, but half of a network of halves"),
    ],
)
def test_settings_of_another_network_are_refused(settings, message):
    with pytest.raises(InvalidInput, match=message):
        ConvexFlowConfig(**settings).build(next(iter(TORI.values())), torch.Generator())


@pytest.mark.parametrize("flow", [SMALL["ot"], SMALL["convex"]], ids=["ot", "convex"])
def test_features_near_sites_need_neighbours_and_no_kernels(flow):
    generator = torch.Generator()
    alone = replace(flow, radial=0, oriented=0, features=2)
    with pytest.raises(InvalidInput, match="the local potential needs to know which sites interact"):
        alone.build(OTHERS["open, without neighbours"], generator)
    with pytest.raises(InvalidInput, match=r"flow\.features is 2, flow\.radial 0 and flow\.oriented 3: expected"):
        replace(alone, oriented=3).build(OTHERS["open"], generator)
    general = replace(alone, features=0)
    assert general.fitted(OTHERS["open"]) == general and not general.last
    (potential, *_) = potentials(built(general, OTHERS["open"]))
    assert isinstance(potential, KINDS[flow.kind][2])


def test_settings_from_before_features_mean_what_they_did():
    for cls in (OTFlowConfig, ConvexFlowConfig):
        described = cls(radial=0, oriented=0).to_dict()
        old = {name: value for name, value in described.items() if name not in ("features", "radius")}
        (potential, *_) = potentials(
            Flow((4, 4), read(old, AnyFlowConfig, "a flow").build(OTHERS["open"], torch.Generator()))
        )
        assert isinstance(potential, KINDS[cls.kind][2])


@pytest.mark.parametrize("flow", SMALL.values(), ids=SMALL)
@pytest.mark.parametrize("name", ["open", "glass", "magnet in a field"])
def test_local_flows_have_the_symmetry_of_their_magnet(flow, name):
    """ln p(g x) = ln p(x), the maps of the start and the metric included."""
    lattice = {"open": square(3, boundary="open"), "glass": edwards_anderson(3, seed=3)}.get(
        name, square(3).with_field(0.2)
    )
    target = HubbardStratonovich(lattice, 0.4)
    flow = replace(flow.fitted(Domain.of_target(target)), radius=1)
    made = build_flow(target, flow, seed=0).double().eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in made.parameters():
        parameter.data.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    x = torch.randn(2, 3, 3, generator=generator, dtype=torch.float64)
    moved = torch.stack([element.apply(x) for element in target.symmetry.sample(np.random.default_rng(0), 4)])
    torch.testing.assert_close(
        made.log_prob(moved.flatten(0, 1)).view(4, 2), made.log_prob(x).expand(4, 2), rtol=1e-3, atol=1e-3
    )


@every_domain
def test_dense_potentials_are_even_where_the_density_is(domain):
    dense = replace(SMALL["monge-ampere"], potential="dense")
    (potential,) = potentials(built(dense, domain))
    assert potential.activation == ("lncosh" if domain.even else "softplus")


def test_small_groups_are_averaged_over_and_large_ones_are_not():
    """D4 of the open square exactly; of 4x4 translations and D4, 128 elements, the preset leaves out the average."""
    flow = FlowConfig()
    assert flow.fitted(OTHERS["open, without neighbours"]).average == "exact"
    assert flow.fitted(OTHERS["open"]).average == flow.fitted(OTHERS["no symmetry"]).average == "none"
    assert flow.fitted(OTHERS["ring"]).average == "exact"
    assert flow.fitted(TORI["in a field"]).average == "none"
    averaged = replace(flow.fitted(TORI["in a field"]), average="exact", hidden=3)
    (potential,) = potentials(built(averaged, TORI["in a field"]))
    assert potential.symmetry == TORI["in a field"].symmetry


@every_flow
@every_domain
def test_fitted_settings_fit(flow, domain):
    fitted = flow.fitted(domain)
    assert fitted.fitted(domain) == fitted and type(fitted) is type(flow)
    if has_kernels(flow, domain):
        assert fitted == flow


def test_determinants_of_large_hessians_are_stochastic():
    for dimension, logdet in ((EXACT_DIMENSION, CholeskyLogdet), (EXACT_DIMENSION + 1, LanczosLogdet)):
        flow = built(ConvexFlowConfig(blocks=1, width=2), Domain.of_data(dimension))
        (convex,) = [module for module in flow.modules() if isinstance(module, ConvexFlow)]
        assert isinstance(convex.logdet, logdet)


@every_domain
def test_convex_maps_run_in_the_direction_of_training(domain):
    """Behind a normalisation, unless their features know how large fields are."""
    first, second = built(SMALL["convex"], domain).transforms[:2]
    if domain.evenly_local:
        assert isinstance(first, ConvexFlow) and isinstance(second, ConvexFlow)
    elif domain.sampled:
        assert isinstance(first, Inverted) and isinstance(second, ActNorm)
    else:
        assert isinstance(first, ActNorm) and isinstance(second, ConvexFlow)


@every_flow
@every_domain
def test_the_parameters_follow_from_the_seed(flow, domain):
    one, same, other = (built(flow, domain, seed).state_dict() for seed in (3, 3, 4))
    assert one.keys() == same.keys() == other.keys()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


@every_flow
@every_domain
def test_there_and_back(flow, domain):
    made = built(flow, domain)
    z = torch.randn(3, *domain.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        x, logdet = made(z)
        back, inverse_logdet = made.inverse(x)
    assert x.shape == z.shape and x.isfinite().all()
    torch.testing.assert_close(back, z, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(logdet, -inverse_logdet, rtol=1e-2, atol=2e-2)


def test_potentials_that_the_domain_does_not_allow_are_refused():
    generator = torch.Generator()
    for name in OTHERS:
        with pytest.raises(InvalidInput, match="needs translation invariance"):
            FlowConfig().build(OTHERS[name], generator)
    with pytest.raises(InvalidInput, match="needs images"):
        FlowConfig(potential="image").build(OTHERS["table"], generator)
    (potential,) = potentials(built(FlowConfig(potential="image", hidden=2), OTHERS["images"]))
    assert isinstance(potential, ImagePotential) and potential.image_shape == (3, 4)


@pytest.mark.parametrize("flow", [SMALL["monge-ampere"], SMALL["ot"], SMALL["convex"]], ids=SMALL)
def test_a_claim_too_much_is_a_mismatch(flow, monkeypatch):
    """A lattice potential made for D4 is not let through on a torus that has D2 only."""
    import isingflow.architectures.cp_flow as convex
    import isingflow.architectures.monge_ampere as monge_ampere
    import isingflow.architectures.ot_flow as residual

    for module, name in (
        (monge_ampere, "LatticePotential"),
        (residual, "LatticeResidualPotential"),
        (convex, "LatticeConvexPotential"),
    ):
        kind = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda group, made=kind, **options: made(square_torus_group(*group.shape), **options)
        )
    with pytest.raises(SymmetryMismatch, match="4 of the 8 operations of D4"):
        built(flow, TORI["anisotropic"])


class Tilted(Target):
    """A density without any symmetry."""

    shape = (3,)

    def energy(self, field):
        return field.pow(4).sum(-1) + field[:, 0]


class Ring(Tilted):
    """The same density with all translations, Z2 and inversion, but one dimension."""

    shape = (6,)
    symmetry = Group((6,), True, with_inversion((6,)), True)

    def energy(self, field):
        return field.pow(4).sum(-1)


@every_flow
@pytest.mark.parametrize("target", [Tilted(), Ring()], ids=["tilted", "ring"])
def test_flows_are_built_for_any_target(flow, target):
    made = build_flow(target, flow.fitted(Domain.of_target(target)), seed=0).eval()
    x, log_prob = made.sample(5, generator=torch.Generator().manual_seed(0))
    assert x.shape == (5, *target.shape)
    torch.testing.assert_close(made.log_prob(x), log_prob, rtol=1e-2, atol=1e-2)


# --- settings


def values_like(value):
    if isinstance(value, bool):
        return st.booleans()
    if isinstance(value, int):
        return st.integers(1, 1000)
    return st.floats(0.001, 1e4) if isinstance(value, float) else st.just(value)


def settings(cls):
    return st.builds(cls, **{name: values_like(value) for name, value in asdict(cls()).items()})


@given(st.one_of(*map(settings, FLOWS.values())))
def test_settings_survive_their_description(flow):
    described = flow.to_dict()
    assert described["kind"] == flow.kind == type(flow).kind
    assert read(described, AnyFlowConfig, "a flow") == flow
    assert FLOWS[flow.kind] is type(flow)


FROM_ZERO = {(FlowConfig, "steepness")}
"""Numbers that may be zero."""


@pytest.mark.parametrize("cls", FLOWS.values(), ids=FLOWS)
def test_settings_out_of_their_limits_are_refused_in_one_line(cls):
    """When they are made, when they are changed, and when they are read."""
    for name, default in asdict(cls()).items():
        wrong = ["many", None, [1], math.nan, -1]
        if isinstance(default, bool | str):
            wrong += [2, "", "Lattice"]
        elif isinstance(default, int):
            wrong += [1.5, True, -(10**30)]
        else:
            wrong += [True, math.inf, -math.inf] + [0.0] * ((cls, name) not in FROM_ZERO)
        for value in wrong:
            attempts = (
                lambda entry: cls(**entry),
                lambda entry: replace(cls(), **entry),
                lambda entry: read(cls().to_dict() | entry, AnyFlowConfig, "a flow"),
            )
            for attempt in attempts:
                with pytest.raises(InvalidInput, match=f"{name} is .*, expected ") as error:
                    attempt({name: value})
                assert "\n" not in str(error.value) and "`" not in str(error.value)


def test_settings_are_frozen_and_numbers_are_written_in_one_way():
    flow = FlowConfig(time=5)
    assert isinstance(flow.time, float) and flow == FlowConfig(time=5.0)
    with pytest.raises(AttributeError):
        flow.time = 3.0


@pytest.mark.parametrize(("names", "table"), [(TableauName, TABLEAUX), (ConvexName, CONVEX)])
def test_every_name_that_settings_take_is_in_its_table(names, table):
    assert get_args(names) == tuple(table)
