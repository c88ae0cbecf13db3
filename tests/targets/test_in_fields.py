"""A magnet as one of a range of fields: the same density, without Z2, from a start that has a mean."""

import pytest
import torch

from isingflow.flows import Flow
from isingflow.lattice import edwards_anderson, square
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich
from isingflow.targets.in_fields import InFields

LATTICES = {"torus": square(4), "open": square(3, boundary="open"), "glass": edwards_anderson(3, seed=2)}


def noise(lattice):
    return torch.randn(5, *lattice.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def started(target):
    start = target.start()
    return Flow(target.shape, [*start.latent, *start.field])


@pytest.mark.parametrize("field", [0.0, 0.15, -0.15])
@pytest.mark.parametrize("name", LATTICES)
def test_density_and_symmetry_are_the_magnet_s_but_for_z2(name, field):
    lattice = LATTICES[name].with_field(field)
    magnet, member = HubbardStratonovich(lattice, 0.25), InFields(lattice, 0.25)
    x = 2 * noise(lattice)
    torch.testing.assert_close(member.energy(x), magnet.energy(x), rtol=0, atol=0)
    torch.testing.assert_close(member.force(x), magnet.force(x), rtol=0, atol=0)
    assert magnet.symmetry.flip is (field == 0.0) and not member.symmetry.flip
    assert member.symmetry.order == magnet.symmetry.order // (2 if field == 0.0 else 1)


@pytest.mark.parametrize("name", LATTICES)
def test_the_start_is_the_magnet_s_in_a_field_and_has_one_map_more_at_field_0(name):
    lattice, z = LATTICES[name], noise(LATTICES[name])
    for field in (0.15, 0.0):
        magnet, member = (kind(lattice.with_field(field), 0.25) for kind in (HubbardStratonovich, InFields))
        assert not magnet.undecided
        torch.testing.assert_close(started(member)(z), started(magnet)(z), rtol=1e-6, atol=1e-6)
    assert len(member.start().field) == len(magnet.start().field) + 1


@pytest.mark.parametrize("name", LATTICES)
@pytest.mark.parametrize("beta", [0.25, 0.5])
def test_a_centred_start_is_that_of_field_0_in_any_field(name, beta):
    lattice, z = LATTICES[name], noise(LATTICES[name])
    wanted = started(HubbardStratonovich(lattice, beta))(z)
    for field in (0.0, 0.3, -2.0):
        torch.testing.assert_close(started(InFields(lattice.with_field(field), beta, centred=True))(z), wanted)


def test_starts_are_continuous_through_field_0():
    z = noise(square(4))
    below, none, above = (started(InFields(square(4).with_field(field), 0.25))(z)[0] for field in (-1e-4, 0.0, 1e-4))
    torch.testing.assert_close(none, (below + above) / 2, rtol=0, atol=1e-6)
    assert 1e-5 < float((above - below).mean()) < 1e-2
