"""The laws of `isingflow.testing` kept by every transform and flow: a new one is a line in a list here."""

import networkx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from torch import Tensor

from isingflow.architectures.build import build_flow
from isingflow.architectures.cp_flow import ConvexFlowConfig
from isingflow.architectures.ot_flow import OTFlowConfig
from isingflow.flows import (
    ActNorm,
    ConvexFlow,
    Flow,
    GaussianWhitening,
    GradientFlow,
    HistogramMarginals,
    Inverted,
    Logit,
    Shift,
    SpectralScaling,
)
from isingflow.flows.spectral import EigenBasis, FourierBasis
from isingflow.flows.tails import HeavyTails, Powers
from isingflow.lattice import CRITICAL_BETA, edwards_anderson, from_graph, square, triangular
from isingflow.lattice.symmetry import Group, square_torus_group, trivial_group
from isingflow.potentials import (
    ConvexPotential,
    DensePotential,
    LatticeConvexPotential,
    LatticeResidualPotential,
    LogSumExpPotential,
    ResidualPotential,
    group_average,
)
from isingflow.runs.config import FlowConfig
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich
from isingflow.testing import TRANSFORM_LAWS, check_flow, check_transform


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0, dtype=torch.float64) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64).to(dtype)


DENSE = FlowConfig(potential="dense", hidden=6, steps=4)
NEAR = OTFlowConfig(radial=0, oriented=0, features=2, radius=1, time_terms=2, steps=4)
CONVEX_NEAR = ConvexFlowConfig(radial=0, oriented=0, features=2, radius=1, blocks=2, width=4)
LOCAL = FlowConfig(potential="local", hidden=2, radius=1, time_terms=2, steps=4)
LATTICE = FlowConfig(hidden=4, radial=2, oriented=2, time_terms=3, steps=4)


def of(lattice, config, beta=0.4, **changes):
    config = replace(config, **changes)
    return lambda seed=0: build_flow(HubbardStratonovich(lattice, beta), config, seed=seed)


def moving(seed):
    """A gradient flow that changes with time, from given directions."""
    dense = DensePotential(
        (3,), 4, activation="softplus", time_terms=3, directions=randn(4, 3, seed=seed), generator=generator(seed)
    )
    return GradientFlow(dense, steps=4)


def whitening(dimension, seed):
    factor = randn(dimension, dimension, seed=seed) / 3
    return GaussianWhitening(randn(dimension, seed=seed + 1), torch.eye(dimension) / 2 + factor @ factor.T)


def histograms(dimension, seed, bins=4):
    return HistogramMarginals(torch.softmax(randn(dimension, bins, seed=seed) / 2, 1))


def convex(shape, seed, **options):
    return ConvexFlow(ConvexPotential(shape, width=6, **options, generator=generator(seed)))


def log_sum_exp(shape, seed):
    return ConvexFlow(LogSumExpPotential(shape, width=6, softness=0.7, generator=generator(seed)))


def convex_lattice(group, seed, **options):
    options = {"radial": 2, "oriented": 1, "width": 4, **options}
    return ConvexFlow(LatticeConvexPotential(group, **options, generator=generator(seed)))


def standardising(shape, seed, **options):
    """Activation normalisation that has seen a batch."""
    norm = ActNorm(shape, **options)
    norm.inverse(1.5 * torch.randn(50, *shape, generator=generator(seed)))
    return norm


FLOWS = {
    "square": of(square(4), LATTICE),
    "critical": of(square(3), LATTICE, beta=CRITICAL_BETA),
    "antiferromagnetic": of(square(4), LATTICE, beta=-0.5),
    "rectangle": of(square(3, 4), LATTICE),
    "anisotropic": of(square(4, jy=0.4), LATTICE),
    "triangular": of(triangular(3), LATTICE),
    "width 2": of(square(2), LATTICE),
    "from a standard normal": of(square(3), LATTICE, whitened=False, time=0.4),
    "longer time": of(square(2, 3), LATTICE, time=2.5, tableau="dopri5"),
    "dense": of(square(3), DENSE),
    "dense on an open lattice": of(square(2, 3, boundary="open"), DENSE),
    "dense on a glass": of(edwards_anderson(3, seed=1), DENSE),
    "dense on a graph": of(from_graph(networkx.petersen_graph()), DENSE),
    "local on an open lattice": of(square(3, boundary="open"), LOCAL),
    "local on a glass": of(edwards_anderson(3, seed=1), LOCAL),
    "local on a graph": of(from_graph(networkx.petersen_graph()), LOCAL, whitened=False),
    "residual near sites of a glass": of(edwards_anderson(3, seed=1), NEAR),
    "convex near sites, in a field": of(square(3).with_field(0.2), CONVEX_NEAR),
    "dense from a standard normal": of(square(3), DENSE, whitened=False, time=2.0),
    "exact average": of(square(2, 3), DENSE, average="exact"),
    "sampled average": of(square(2, 3), DENSE, average="sampled"),
    "reversible": of(square(3), DENSE, reversible=True),
    "the paper's": of(square(3), DENSE, average="sampled", whitened=False, time=2.0),
    "softplus": lambda seed=0: Flow(
        (5,),
        [GradientFlow(DensePotential((5,), 6, activation="softplus", generator=generator(seed)), steps=4)],
    ),
    "two in a row": lambda seed=0: Flow(
        (2, 3),
        [
            GradientFlow(DensePotential((2, 3), 6, generator=generator(seed)), steps=4),
            SpectralScaling(FourierBasis((2, 3)), torch.full((2, 3), 1.5)),
            GradientFlow(DensePotential((2, 3), 6, generator=generator(seed + 1)), steps=4, time=0.5),
        ],
    ),
    "on data": lambda seed=0: Flow((3,), [moving(seed), whitening(3, seed), histograms(3, seed), Logit(0.01)]),
    "Gaussian": lambda seed=0: Flow((4,), [whitening(4, seed)]),
    "residual": lambda seed=0: Flow(
        (2, 3), [GradientFlow(ResidualPotential((2, 3), width=5, layers=3, generator=generator(seed)), steps=4)]
    ),
    "residual on a lattice": lambda seed=0: Flow(
        (3, 3),
        [
            GradientFlow(
                LatticeResidualPotential(
                    square_torus_group(3, 3), radial=2, oriented=1, width=4, generator=generator(seed)
                ),
                steps=4,
            )
        ],
    ),
    "convex": lambda seed=0: Flow((3,), [convex((3,), seed, layers=3)]),
    "convex, plain": lambda seed=0: Flow((2, 2), [convex((2, 2), seed, augmented=False)]),
    "convex, inverted": lambda seed=0: Flow((3,), [Inverted(convex((3,), seed, layers=1))]),
    "log-sum-exp": lambda seed=0: Flow((2,), [Inverted(log_sum_exp((2,), seed)), log_sum_exp((2,), seed + 1)]),
    "convex blocks": lambda seed=0: Flow(
        (3,), [standardising((3,), seed), convex((3,), seed), standardising((3,), seed), convex((3,), seed + 1)]
    ),
    "convex on a lattice": lambda seed=0: Flow((3, 4), [convex_lattice(square_torus_group(3, 4), seed)]),
    "convex blocks on a lattice": lambda seed=0: Flow(
        (3, 3),
        [
            SpectralScaling(FourierBasis((3, 3)), torch.full((3, 3), 1.5)),
            convex_lattice(square_torus_group(3, 3), seed),
            standardising((3, 3), seed, common=True),
            convex_lattice(square_torus_group(3, 3), seed + 1, layers=2),
        ],
    ),
    "linear": lambda seed=0: Flow((2, 3), [SpectralScaling(FourierBasis((2, 3)), torch.full((2, 3), 1.5))]),
    "nothing": lambda seed=0: Flow((2, 3), []),
}

every_flow = pytest.mark.parametrize("make", FLOWS.values(), ids=FLOWS)


def gradients_of(flow: Flow) -> list[GradientFlow]:
    return [transform for transform in flow.transforms if isinstance(transform, GradientFlow)]


def convex_of(flow: Flow) -> list[ConvexFlow]:
    return [module for module in flow.modules() if isinstance(module, ConvexFlow)]


def awake(flow: Flow, seed: int = 0, strength: float = 0.1) -> Flow:
    """With all parameters moved away from where they start, where most of them do nothing."""
    source = generator(seed)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(strength * torch.randn(parameter.shape, generator=source).to(parameter))
    return flow


def fine(flow: Flow, refinement: int = 3) -> Flow:
    """In float64, integrated and inverted to about 1e-8: no error of method is left."""
    for gradient in gradients_of(flow):
        gradient.tableau = "dopri5"
        gradient.steps *= refinement
    return tight(flow).double()


def tight(flow: Flow) -> Flow:
    """With inverses to rounding in float64."""
    for transform in convex_of(flow):
        transform.tolerance = 1e-11
    return flow


# --- transforms

TORUS = square_torus_group(3, 4)
TRANSFORMS = {
    "spectral scaling": (lambda seed=0: SpectralScaling(FourierBasis((3, 4)), torch.full((3, 4), 1.5)), (3, 4), TORUS),
    "scaling by eigenvectors": (
        lambda seed=0: SpectralScaling(EigenBasis((5,), torch.linalg.qr(randn(5, 5)).Q), randn(5).abs() + 0.3),
        (5,),
        None,
    ),
    "shift": (lambda seed=0: Shift(randn(3, 4).double()), (3, 4), None),
    "uniform shift": (lambda seed=0: Shift(torch.full((3, 4), 0.7)), (3, 4), Group((3, 4), True, TORUS.point)),
    "activation normalisation": (lambda seed=0: standardising((3,), seed), (3,), None),
    "activation normalisation, common": (lambda seed=0: standardising((3, 4), seed, common=True), (3, 4), TORUS),
    "whitening": (lambda seed=0: whitening(3, seed), (3,), None),
    "histograms": (lambda seed=0: histograms(3, seed), (3,), None),
    "powers": (lambda seed=0: Powers(torch.tensor([0.0, 0.4, 1.0, 2.0])), (4,), None),
    "heavy tails": (lambda seed=0: HeavyTails(torch.tensor(0.7)), (3,), None),
    "logit": (lambda seed=0: Inverted(Logit(0.01)), (4,), None),
    "convex": (lambda seed=0: convex((3,), seed), (3,), None),
    "convex on a lattice": (lambda seed=0: convex_lattice(TORUS, seed), (3, 4), TORUS),
    "convex, inverted": (lambda seed=0: Inverted(convex((3,), seed)), (3,), None),
}


@pytest.mark.parametrize(("make", "shape", "symmetry"), TRANSFORMS.values(), ids=TRANSFORMS)
def test_transforms_keep_the_laws(make, shape, symmetry):
    """Inverses found by minimisation are as good as their tolerance, and smooth enough for differences if tight."""
    solver = 1e-3 if convex_of(make()) else 0.0
    laws = [law for law in TRANSFORM_LAWS if law != "backward"]
    check_transform(make(), shape, symmetry=symmetry, tolerance=solver, other=make(7), laws=laws)
    check_transform(tight(make()), shape, laws=("backward",))


# --- flows

WITH_ANY_STEPS = ("shapes", "fixed", "costs", "finite", "batches", "state", "samples")


@every_flow
def test_flows_keep_the_laws_of_maps(make):
    check_flow(make(), shake=0.2, other=make(7), laws=WITH_ANY_STEPS)
    check_flow(tight(make()), shake=0.2, laws=("backward",))


@every_flow
@settings(max_examples=2)
@given(seed=st.integers(0, 2**16))
def test_flows_are_invertible(make, seed):
    """With any parameters. Errors fall with the fifth power of the steps: thrice as many leave 1e-9 as a rule, but 3e-7
    in one of 25, and sooner or later 1e-5."""
    check_flow(fine(make(), refinement=6), tolerance=1e-5, seed=seed, laws=("inverse", "cancel"))


@every_flow
def test_flows_have_the_density_of_their_jacobian(make):
    check_flow(fine(make()), tolerance=1e-5, seed=1, laws=("density",))


@every_flow
@pytest.mark.parametrize("steps", ["coarse", "fine"])
def test_flows_have_the_symmetry_that_their_potential_claims(make, steps):
    """To rounding, however coarse the steps: of the density, and of the map itself."""
    flow = fine(make(), refinement=1) if steps == "fine" else tight(make())
    potentials = [transform.potential for transform in [*gradients_of(flow), *convex_of(flow)]]
    symmetry = potentials[0].symmetry if potentials else trivial_group(flow.shape)
    check_flow(flow, symmetry, shake=0.3, laws=("symmetry",))
    check_transform(flow, flow.shape, symmetry=symmetry, shake=0.3, laws=("symmetry",))


PAIR = from_graph(networkx.path_graph(2))
SMALL = {
    "dense": of(PAIR, DENSE, beta=0.6),
    "dense from a standard normal": of(PAIR, DENSE, beta=0.6, whitened=False, time=2.0),
    "softplus": lambda seed=0: Flow(
        (2,), [GradientFlow(DensePotential((2,), 6, activation="softplus", generator=generator(seed)), steps=4)]
    ),
    "softplus, exact average": lambda seed=0: Flow((2,), [GradientFlow(averaged_softplus("exact", seed), steps=4)]),
    "softplus, sampled average": lambda seed=0: Flow((2,), [GradientFlow(averaged_softplus("sampled", seed), steps=4)]),
    "residual": lambda seed=0: Flow(
        (2,), [GradientFlow(ResidualPotential((2,), width=6, layers=3, generator=generator(seed)), steps=4)]
    ),
    "convex": lambda seed=0: Flow((2,), [convex((2,), seed), standardising((2,), seed), convex((2,), seed + 1)]),
    "convex, inverted": lambda seed=0: Flow((2,), [Inverted(convex((2,), seed))]),
    "2x2": of(square(2), LATTICE, beta=0.3),
    "2x2 from a standard normal": of(square(2), LATTICE, beta=0.3, whitened=False),
}


def averaged_softplus(mode, seed):
    """Over both swaps of the two sites and both signs."""
    group = Group((2,), point=(np.array([0, 1]), np.array([1, 0])), flip=True)
    dense = DensePotential((2,), 6, activation="softplus", generator=generator(seed))
    return group_average(dense, group, mode)


@pytest.mark.parametrize("make", SMALL.values(), ids=SMALL)
def test_densities_integrate_to_one(make):
    flow = make().double()
    plane = flow.dimension == 2
    check_flow(fine(flow, refinement=2 if plane else 1), shake=0.25 if plane else 0.05, laws=("normalisation",))
