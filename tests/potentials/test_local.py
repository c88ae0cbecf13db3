"""The local potential: its fused passes, what sites share, flows made of it; its laws are in test_potential_laws."""

import networkx
import numpy as np
import pytest
import torch

import isingflow
from isingflow.architectures.build import build_flow
from isingflow.architectures.monge_ampere import FlowConfig
from isingflow.errors import InvalidInput
from isingflow.lattice import Group, edwards_anderson, from_graph, square
from isingflow.potentials import LocalPotential
from isingflow.potentials.neighbourhoods import balls
from isingflow.runs.config import TargetConfig
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich
from isingflow.testing.laws import shaken
from isingflow.training import train

LOCAL = FlowConfig(potential="local", hidden=2, radius=1, time_terms=2, radial=0, oriented=0, steps=3)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def local(lattice, even=True, **options):
    group = Group(lattice.shape, False, lattice.symmetry.point, even)
    metric = torch.from_numpy(lattice.couplings(0.3)) + 2 * torch.eye(lattice.sites, dtype=torch.float64)
    options = {"units": 3, "time_terms": 3, "metric": metric} | options
    return shaken(LocalPotential(group, lattice.bonds, **options, generator=generator()), 0.3, 0)


@pytest.mark.parametrize("even", [True, False])
@pytest.mark.parametrize("samples", [1, 3, 130])
def test_fused_passes_are_the_operations_of_torch(even, samples):
    """In blocks of 128 samples; gradients by everything, and by the field alone."""
    potential = local(edwards_anderson(3, seed=1), even)
    x = torch.randn(samples, 9, generator=generator(1), dtype=torch.float64, requires_grad=True)
    layer, basis, parameters = potential._layer, potential._basis(0.3), potential._expanded()
    pull = torch.randn(samples, 9, generator=generator(2), dtype=torch.float64)
    push = torch.randn(samples, generator=generator(3), dtype=torch.float64)
    found = []
    for apply in (layer, layer.by_tensors):
        moved, laplacian = apply(x, basis, parameters)
        scalar = (pull * moved).sum() + (push * laplacian).sum()
        found.append((moved, laplacian, torch.autograd.grad(scalar, [x, *potential.parameters()], retain_graph=True)))
        fixed = apply(x, basis, type(parameters)(*(tensor.detach() for tensor in parameters)))
        found[-1] += torch.autograd.grad((pull * fixed[0]).sum() + (push * fixed[1]).sum(), x)
    torch.testing.assert_close(*found)
    scored = layer.scored(x, basis, parameters, pull)
    scalar = (pull * scored[0]).sum() + (push * scored[1]).sum()
    torch.testing.assert_close((*scored[:2], torch.autograd.grad(scalar, [x, *potential.parameters()])), found[1][:3])
    moved, laplacian = layer.by_tensors(x, basis, parameters)
    torch.testing.assert_close(scored[2], torch.autograd.grad((pull * moved).sum() + laplacian.sum(), x)[0])


def test_sites_that_the_point_group_maps_onto_each_other_share_their_parameters():
    """On an open 4x4 lattice three kinds of sites: corners, edges, middle; the glass has as many as sites."""
    options = {"radius": 1, "metric": None}
    shapes = {name: tuple(p.shape) for name, p in local(square(4, boundary="open"), **options).named_parameters()}
    # Corner to edge, edge to corner, edge to edge, edge to middle, middle to edge, middle to middle, and three alone.
    assert shapes == {"weight": (3, 9), "bias": (3, 3), "amplitude": (3, 3, 3), "quadratic": (7, 3)}
    glass = {
        name: tuple(p.shape) for name, p in local(edwards_anderson(4, seed=1), False, **options).named_parameters()
    }
    assert glass == {
        "weight": (3, 80), "bias": (3, 16), "amplitude": (3, 16, 3), "quadratic": (48, 3), "linear": (16, 3),
    }  # fmt: skip


def test_balls_are_counted_in_bonds():
    distances = dict(networkx.all_pairs_shortest_path_length(networkx.petersen_graph()))
    for radius in range(3):
        expected = sorted((i, j) for i, near in distances.items() for j, d in near.items() if d <= radius)
        assert balls(from_graph(networkx.petersen_graph()).bonds, 10, radius).tolist() == [list(p) for p in expected]


def test_samples_move_as_the_whitened_field_does():
    """In y = G^-1/2 x the map is the flow along the gradient by y of the same potential: autograd of its value."""
    lattice = square(2, 3, boundary="open")
    potential = local(lattice, radius=1)
    x = torch.randn(2, 2, 3, generator=generator(4), dtype=torch.float64)
    values, vectors = torch.linalg.eigh(potential.metric)
    root = vectors * values.sqrt() @ vectors.T
    y = torch.linalg.solve(root, x.flatten(1).T).T.requires_grad_()

    def phi(y):
        return potential.value((y @ root).view(-1, 2, 3), 0.4)

    moved, laplacian = potential.bind()(x, 0.4)
    torch.testing.assert_close(moved.flatten(1), torch.autograd.grad(phi(y).sum(), y)[0] @ root)
    hessians = torch.stack([torch.autograd.functional.hessian(lambda row: phi(row[None]).sum(), row) for row in y])
    torch.testing.assert_close(laplacian, hessians.diagonal(dim1=1, dim2=2).sum(1))


class Chain(isingflow.Target):
    shape = (4,)
    neighbours = np.array([[0, 1], [1, 2], [2, 3]])

    def energy(self, field):
        return (field.square().sum(-1) + (field[..., 1:] - field[..., :-1]).pow(4).sum(-1)) / 2


@pytest.mark.slow
def test_a_user_s_target_with_neighbours_trains_by_them_and_loads_without_it(tmp_path):
    config = TargetConfig.from_preset("quick", Chain())
    assert config.flow.potential == "local" and config.training.gradient == "path"
    assert TargetConfig.from_dict(config.to_dict()) == config and config.neighbours == ((0, 1), (1, 2), (2, 3))
    settings = {"flow.hidden": 2, "flow.steps": 3, "training.batch": 8}
    trained = train(Chain(), output=tmp_path / "run", iterations=4, settings=settings, progress=False)
    x, log_prob = trained.flow.sample(5, generator=generator())
    torch.testing.assert_close(isingflow.load(tmp_path / "run").log_prob(x), log_prob, rtol=1e-4, atol=1e-4)


def test_what_cannot_be_is_refused():
    lattice = square(3, boundary="open")
    for changes, words in [
        ({"metric": torch.eye(4)}, r"metric of shape \(4, 4\), expected \(9, 9\)"),
        ({"units": 0}, "units"),
        ({"scales": torch.ones(3)}, "scales"),
    ]:
        with pytest.raises(InvalidInput, match=words):
            local(lattice, **changes)
    with pytest.raises(InvalidInput, match=r"neighbours: expected pairs of the sites 0 \.\. 8"):
        LocalPotential(lattice.symmetry, np.array([[0, 9]]), units=1, generator=generator())

    class Silent(isingflow.Target):
        shape = (4,)

        def energy(self, field):
            return field.square().sum(-1)

    with pytest.raises(InvalidInput, match="the local potential needs to know which sites interact"):
        build_flow(Silent(), LOCAL, seed=0)


@pytest.mark.slow
def test_a_glass_is_learnt_as_well_as_no_start_says(tmp_path):
    """Three quarters of what the best Gaussian lacks, in some hundred short iterations."""
    target = HubbardStratonovich(edwards_anderson(3, seed=1), 0.6)
    settings = {"flow.hidden": 2, "flow.radius": 1, "flow.steps": 4, "training.evaluation_samples": 16}
    options = {"iterations": 120, "settings": settings, "learning_rate": 0.03, "progress": False}
    trained = train(target, output=tmp_path / "run", **options)
    x, log_prob = trained.flow.sample(1000, generator=generator())
    exact = target.exact_free_energy()[0]
    gap = float((log_prob + target.energy(x.double())).mean()) - exact
    assert 0 < gap < (target.mean_field().free_energy - exact) / 4
