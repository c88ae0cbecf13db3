"""Where flows start: maps described in words, made anew as identities, and filled from a state."""

import copy

import networkx
import pytest
import torch

from isingflow.architectures.start import blank, describe, kept
from isingflow.errors import InvalidInput
from isingflow.flows import ActNorm, Flow, GaussianWhitening, SpectralScaling
from isingflow.flows.spectral import FourierBasis
from isingflow.lattice import from_graph, square
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich

LATTICES = {
    "torus": square(4, 6),
    "open": square(3, boundary="open"),
    "torus in a field": square(4, 6).with_field(0.3),
    "open, in a field": square(3, boundary="open").with_field(-0.5),
    "graph": from_graph(networkx.petersen_graph()),
}


def maps_of(name):
    if name == "gaussian":
        root = torch.randn(5, 5, generator=torch.Generator().manual_seed(0)).double()
        return (5,), [GaussianWhitening(torch.arange(5.0), root @ root.T + torch.eye(5))]
    start = HubbardStratonovich(LATTICES[name], 0.4).start()
    return LATTICES[name].shape, [*start.latent, *start.field]


@pytest.mark.parametrize("name", [*LATTICES, "gaussian"])
def test_a_blank_start_filled_from_the_state_is_the_start(name):
    """Values, inverse and log-determinants, in single and double precision, also of a copy."""
    shape, maps = maps_of(name)
    original = Flow(shape, kept(maps))
    descriptions = describe(maps)
    assert describe(blank(descriptions, shape)) == descriptions
    filled = Flow(shape, blank(descriptions, shape))
    x = torch.randn(4, *shape, generator=torch.Generator().manual_seed(1))
    assert not torch.allclose(filled(x)[0], original(x)[0])
    filled.load_state_dict(original.state_dict())
    for flow in (filled, copy.deepcopy(filled)):
        for field in (x, x.double()):
            for found, expected in zip(
                (*flow(field), *flow.inverse(field)), (*original(field), *original.inverse(field)), strict=True
            ):
                assert torch.equal(found, expected)


def test_a_start_that_is_kept_is_the_same_map_with_a_state():
    shape, maps = maps_of("open")
    plain, stateful = Flow(shape, maps), Flow(shape, kept(maps))
    assert not plain.state_dict() and stateful.state_dict()
    x = torch.randn(4, *shape)
    assert all(torch.equal(a, b) for a, b in zip(plain(x), stateful(x), strict=True))


class Basis(FourierBasis):
    """A basis that only its owner knows."""


@pytest.mark.parametrize(
    ("transform", "name"),
    [(ActNorm((4, 4)), "ActNorm"), (SpectralScaling(Basis((4, 4)), torch.ones(4, 4)), "SpectralScaling")],
    ids=["map", "basis"],
)
def test_a_map_that_only_the_target_knows_is_named(transform, name):
    assert describe([transform]) == [{"map": name}]
    assert kept([transform]) == [transform] or name == "SpectralScaling"
    with pytest.raises(InvalidInput, match=rf"starts with a {name}, which only its target knows: .*load\(run, target="):
        blank([{"map": name}], (4, 4))


@pytest.mark.parametrize("description", [{}, {"map": "spectral-scaling"}, {"map": "os.system", "basis": "eigen"}])
def test_foreign_descriptions_are_refused(description):
    with pytest.raises(InvalidInput, match="which only its target knows"):
        blank([description], (4, 4))
