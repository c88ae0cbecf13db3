"""Targets: what is refused, with the law and by how much; objects that are no `Target`; phi^4 against loops."""

import math
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isingflow.errors import InvalidInput, InvalidTarget, SymmetryMismatch
from isingflow.flows import Flow
from isingflow.lattice import Group, edwards_anderson, from_graph, square, triangular
from isingflow.lattice.symmetry import square_torus_group
from isingflow.targets import HubbardStratonovich, Phi4, Target, as_target, check_target
from isingflow.targets.base import ExactlySolved, Magnetic, Referenced, SolvedOnce


def target_of(energy, shape=(4, 4), symmetry=None):
    return as_target(SimpleNamespace(shape=shape, energy=energy, symmetry=symmetry))


def gaussian(x):
    return x.square().flatten(1).sum(1) / 2


TRANSLATIONS = Group((4, 4), translations=True)
FLIP = Group((4, 4), flip=True)

BROKEN = {
    "one number for all": (lambda x: gaussian(x).sum(), None, r"shape \(\) for 4 fields .* one energy per field"),
    "one number per site": (lambda x: x.square(), None, r"shape \(4, 4, 4\) for 4 fields"),
    "a trailing axis": (lambda x: gaussian(x)[:, None], None, r"shape \(4, 1\) for 4 fields"),
    "a python number": (lambda x: 1.0, None, "a float for 4 fields"),
    "numpy": (lambda x: gaussian(x).detach().numpy(), None, "a ndarray for 4 fields"),
    "detached": (lambda x: gaussian(x).detach(), None, "cannot be differentiated"),
    "integers": (lambda x: gaussian(x).long(), None, "torch.int64: expected real"),
    "complex": (lambda x: gaussian(x) * (1 + 1j), None, "complex"),
    "not a number": (lambda x: gaussian(x) * math.nan, None, "gave nan for a random field"),
    "infinite": (lambda x: gaussian(x) / 0.0, None, "gave inf for a random field"),
    "an infinite gradient": (lambda x: (x - x.detach()).abs().sqrt().flatten(1).sum(1), None, "gradient .* not finite"),
    "the batch's mean": (lambda x: gaussian(x - x.mean(0)), None, "depends on the other fields of its batch, by"),
    "not even": (lambda x: gaussian(x - 1), FLIP, "claims the symmetry Z2, but .* nats under the spin flip"),
    "one site is special": (lambda x: gaussian(x) + x[:, 0, 0] ** 2, TRANSLATIONS, r"translations, but .* changes by"),
    "another shape's group": (gaussian, Group((3, 3)), r"expected a lattice.Group on fields of shape \(4, 4\)"),
    "no group": (gaussian, "Z2", "symmetry is Z2: expected a lattice.Group"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_breaks_a_law_is_refused_with_the_law(name):
    energy, symmetry, message = BROKEN[name]
    kind = SymmetryMismatch if "claims" in message or "but" in message else InvalidTarget
    with pytest.raises(kind, match=message):
        check_target(target_of(energy, symmetry=symmetry))


@pytest.mark.parametrize(
    "thing", [object(), Target, gaussian, SimpleNamespace(shape=(3,)), 3.0], ids=lambda thing: type(thing).__name__
)
def test_what_is_no_target_is_refused(thing):
    with pytest.raises(InvalidTarget, match="expected an object with a shape and a method energy"):
        as_target(thing)


def test_a_target_without_a_shape_is_refused():
    with pytest.raises(InvalidTarget, match="has no shape"):
        as_target(Target())


def test_any_object_with_a_shape_and_an_energy_is_one():
    owner = SimpleNamespace(shape=[3], energy=gaussian, stiffness=2.5, _hidden=1, matrix=np.eye(2))
    target = as_target(owner)
    assert (target.name, target.shape, target.sites) == ("SimpleNamespace", (3,), 3)
    assert target.parameters_by_name == {"stiffness": 2.5}
    assert target.title() == "SimpleNamespace, stiffness = 2.5, 3"
    x = torch.randn(5, 3)
    torch.testing.assert_close(target.force(x), -x)
    assert not isinstance(target, ExactlySolved | SolvedOnce | Referenced | Magnetic)
    check_target(target)


@pytest.mark.parametrize(
    "lattice", [square(4), square(4, 3, jy=0.5), square(3, boundary="open"), triangular(4), edwards_anderson(3, seed=2)]
)
def test_magnets_keep_the_laws(lattice):
    target = HubbardStratonovich(lattice, 0.4)
    check_target(target)
    for protocol in (ExactlySolved, SolvedOnce, Referenced, Magnetic):
        assert isinstance(target, protocol)
    assert target.at(beta=0.3).beta == 0.3


def test_a_magnet_without_an_exact_answer_says_so():
    import networkx

    assert (
        HubbardStratonovich(from_graph(networkx.circulant_graph(64, [1, 2, 7, 19, 23])), 0.2).exact_free_energy()
        is None
    )


class TestPhi4:
    @given(lx=st.integers(3, 5), ly=st.integers(3, 5), mass=st.floats(-6, 6), coupling=st.floats(0.1, 9))
    def test_energy_by_loops(self, lx, ly, mass, coupling):
        """Sum over sites of x (box x) + m^2 x^2 + lambda x^4 with the box written out neighbour by neighbour."""
        x = torch.randn(2, lx, ly, dtype=torch.float64, generator=torch.Generator().manual_seed(lx * ly))
        expected = torch.zeros(2, dtype=torch.float64)
        for i, j in product(range(lx), range(ly)):
            here = x[:, i, j]
            around = x[:, (i + 1) % lx, j] + x[:, i - 1, j] + x[:, i, (j + 1) % ly] + x[:, i, j - 1]
            expected += here * (4 * here - around) + mass * here**2 + coupling * here**4
        torch.testing.assert_close(Phi4(lx, ly, mass_squared=mass, coupling=coupling).energy(x), expected)

    @given(lx=st.integers(3, 6), ly=st.integers(3, 6), mass=st.floats(-6, 6), coupling=st.floats(0.1, 9))
    def test_laws_and_start(self, lx, ly, mass, coupling):
        target = Phi4(lx, ly, mass_squared=mass, coupling=coupling)
        check_target(target)
        variances = target.start().variances
        assert variances.shape == (lx, ly) and bool((variances > 0).all())

    @given(mass=st.floats(-5, 5), coupling=st.floats(0.1, 9), seed=st.integers(0, 99))
    def test_the_start_is_the_best_gaussian(self, mass, coupling, seed):
        """Its variational free energy, by Wick's theorem, is lower than that of other spectra."""
        target = Phi4(4, mass_squared=mass, coupling=coupling)
        k = 4 * torch.sin(math.pi * torch.arange(4, dtype=torch.float64) / 4).square()
        stiffness = k[:, None] + k + mass

        def free_energy(variances):
            energy = (stiffness * variances).sum() + 16 * coupling * 3 * variances.mean() ** 2
            return float(energy - (variances.log() + 1 + math.log(2 * math.pi)).sum() / 2)

        best = target.start().variances
        other = best * torch.exp(0.1 * torch.randn(4, 4, generator=torch.Generator().manual_seed(seed)))
        assert free_energy(best) < free_energy(other)

    def test_without_coupling_the_start_is_exact(self):
        target = Phi4(4, mass_squared=1.0, coupling=1e-9)
        flow = Flow(target.shape, target.start().latent)
        x, log_prob = flow.sample(50, generator=torch.Generator().manual_seed(0))
        excess = log_prob + target.energy(x.double())
        assert float(excess.std()) < 1e-4

    @pytest.mark.parametrize("mass, coupling, shape", [(math.nan, 1, (4, 4)), (0, 0, (4, 4)), (0, 1, (2, 4))])
    def test_bad_parameters(self, mass, coupling, shape):
        with pytest.raises(InvalidInput, match="expected"):
            Phi4(*shape, mass_squared=mass, coupling=coupling)

    def test_symmetry(self):
        assert Phi4(4, mass_squared=0.0, coupling=1.0).symmetry == square_torus_group(4, 4)
        assert Phi4(4, 5, mass_squared=0.0, coupling=1.0).symmetry == square_torus_group(4, 5)
