"""Targets, flows and samplers that the tests of chains share."""

import math
from functools import cache

import numpy as np
import torch

from isingflow.flows import Flow, GradientFlow, SpectralScaling
from isingflow.lattice import square
from isingflow.potentials import LatticePotential
from isingflow.sampling import BlockGibbs, FlowMetropolis, latent, physical
from isingflow.targets.base import Target
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


@cache
def magnet(beta, lattice=None):
    return HubbardStratonovich(lattice or square(4), beta)


def wrong_gaussian(target):
    """A Gaussian 1.2 times too wide, which knows nothing of two magnetisations."""
    scales = 1.2 * (target.mean_field().variances * target.eigenvalues).sqrt()
    return Flow(target.shape, [SpectralScaling(target.basis, scales)])


def random_flow(target, strength=0.1):
    """The same, bent by a potential that nobody trained."""
    potential = LatticePotential(target.symmetry, radial=1, oriented=1, hidden=2, generator=generator())
    with torch.no_grad():
        for parameter in potential.parameters():
            parameter.add_(strength * torch.randn(parameter.shape, generator=generator(1)))
    flow = Flow(target.shape, [*wrong_gaussian(target).transforms, GradientFlow(potential, steps=2)])
    return flow.eval().requires_grad_(False)


def guided(target, flow=wrong_gaussian, **options):
    return latent(flow(target), target, guided=True, length=math.pi / 2, chances=1, **options)


SAMPLERS = {
    "physical": lambda target, flow=None: physical(target),
    "latent": lambda target, flow=wrong_gaussian: latent(flow(target), target),
    "latent, guided": guided,
    "flow as proposal": lambda target, flow=wrong_gaussian: FlowMetropolis(flow(target), target),
    "block Gibbs": lambda target, flow=None: BlockGibbs(target),
}


class Wells(Target):
    """One or more double wells, phi^4 without neighbours: E = sum (x^2 - 1)^2 + tilt x, and nothing else is known."""

    def __init__(self, sites=2, tilt=0.3):
        super().__init__()
        self.shape = (sites,)
        self.tilt = tilt

    def energy(self, field):
        return ((field**2 - 1) ** 2 + self.tilt * field).sum(-1)


def same(left, right):
    """Whether chains are the same, with all that it takes to continue them."""
    for name in ("field", "spins", "acceptance"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))
    assert torch.equal(left.generator, right.generator)
    for name in ("title", "lattice", "beta", "identity", "steps", "facts"):
        assert getattr(left, name) == getattr(right, name)
    assert left.state.keys() == right.state.keys()
    assert all(torch.equal(tensor, right.state[name]) for name, tensor in left.state.items())
