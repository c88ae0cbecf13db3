"""The laws of `isingflow.testing` kept by every potential: a new one is a line in a list here."""

import networkx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isingflow.lattice import edwards_anderson, from_graph, square
from isingflow.lattice.symmetry import (
    Group,
    hypercubic_torus_group,
    ring_group,
    square_torus_group,
    triangular_torus_group,
)
from isingflow.potentials import (
    ConvexImagePotential,
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
    PartiallyConvexPotential,
    ProductPotential,
    ResidualPotential,
    SampledAverage,
    SymmetricAverage,
)
from isingflow.potentials.layers.activations import CONVEX
from isingflow.potentials.layers.input_convex import KINDS
from isingflow.testing import check_convex, check_potential
from isingflow.testing.laws import shaken
from isingflow.testing.potentials import timed


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64).to(dtype)


def dense(shape, activation="lncosh", hidden=5, seed=0, **options):
    return DensePotential(shape, hidden, activation=activation, generator=generator(seed), **options)


def image(shape=(3, 4), features=4, seed=0, **options):
    return ImagePotential(shape, features=features, generator=generator(seed), **options)


def convolutional(group, radial=2, oriented=2, seed=0, **options):
    options = {"hidden": 4, "time_terms": 3} | options
    return LatticePotential(group, radial=radial, oriented=oriented, generator=generator(seed), **options)


def couplings(lattice):
    """A metric: positive, and as sparse as the lattice."""
    return (torch.from_numpy(lattice.couplings(0.3)) + 2 * torch.eye(lattice.sites, dtype=torch.float64)).to_sparse()


def flipped(lattice, flip):
    group = lattice.symmetry
    return Group(group.shape, group.translations, group.point, flip)


def local(lattice, seed=0, flip=True, **options):
    options = {"units": 3, "radius": 1, "time_terms": 3, "metric": couplings(lattice), **options}
    return LocalPotential(flipped(lattice, flip), lattice.bonds, **options, generator=generator(seed))


def residual_local(lattice, seed=0, flip=True, **options):
    options = {"width": 3, "radius": 1, "metric": couplings(lattice), **options}
    return LocalResidualPotential(flipped(lattice, flip), lattice.bonds, **options, generator=generator(seed))


def products(group, seed=0, **options):
    made = ProductPotential(group, **{"smoothings": 2, "steepnesses": (1.5, 0.5), **options})
    made.calibrate(made.squares(randn(20, *group.shape, seed=seed, dtype=torch.float32)))
    made.choose(0.1 * randn(made.terms, seed=seed + 1))
    return made


def residual(shape, seed=0, **options):
    return ResidualPotential(shape, generator=generator(seed), **{"width": 4, **options})


def residual_lattice(group, seed=0, **options):
    return LatticeResidualPotential(
        group, generator=generator(seed), **{"radial": 2, "oriented": 2, "width": 4, **options}
    )


def convex(shape=(3,), seed=0, **options):
    return shaken(ConvexPotential(shape, generator=generator(seed), **{"width": 7, **options}), 0.5, seed)


def log_sum_exp(shape, seed=0, **options):
    return shaken(LogSumExpPotential(shape, generator=generator(seed), **{"width": 9, **options}), 0.5, seed)


def convex_lattice(group, seed=0, **options):
    options = {"radial": 2, "oriented": 2, "width": 5, **options}
    return shaken(LatticeConvexPotential(group, generator=generator(seed), **options), 0.5, seed)


def convex_local(lattice, seed=0, flip=True, **options):
    options = {"features": 3, "width": 5, "radius": 1, **options}
    made = LocalConvexPotential(flipped(lattice, flip), lattice.bonds, **options, generator=generator(seed))
    return shaken(made, 0.5, seed)


def convex_image(shape=(1, 4, 2), seed=0, **options):
    options = {"width": 3, **options}
    return shaken(ConvexImagePotential(shape, generator=generator(seed), **options), 0.5, seed)


def partially_convex(seed=0, **options):
    """Bound to one context, for any number of samples."""
    options = {"width": 5, "embedding": 4, **options}
    made = shaken(PartiallyConvexPotential(3, 2, generator=generator(seed), **options), 0.5, seed)
    return made.bind(torch.tensor([[0.3, -1.2]]))


def point_group(shape) -> Group:
    """D4 about site 0 and no translations: a subgroup of the torus' group that is not normal."""
    return Group(shape, False, square_torus_group(*shape).point)


def mirrors(lx, ly) -> Group:
    """The group of a rectangle's axes that differ in coupling."""
    return square_torus_group(lx, ly, axes_equal=False)


SQUARE, TRIANGULAR = square_torus_group(3, 3), triangular_torus_group(3, 3)


def without_flip(group):
    return Group(group.shape, True, group.point)


POTENTIALS = {
    "dense lncosh": lambda seed=0: dense((2, 3), seed=seed),
    "dense softplus": lambda seed=0: dense((2, 3), "softplus", seed=seed),
    "dense softplus on a graph": lambda seed=0: dense((5,), "softplus", seed=seed),
    "dense lncosh in time": lambda seed=0: dense((2, 3), time_terms=2, seed=seed),
    "dense softplus in time": lambda seed=0: dense((5,), "softplus", time_terms=4, seed=seed),
    "dense softplus from given directions": lambda seed=0: dense(
        (5,), "softplus", time_terms=3, directions=randn(5, 5, seed=4), seed=seed
    ),
    "image": lambda seed=0: image(kernel=3, seed=seed),
    "image smaller than its kernel": lambda seed=0: image((2, 3), kernel=5, time_terms=1, seed=seed),
    "image without neighbours": lambda seed=0: image((3, 2), kernel=1, time_terms=2, seed=seed),
    "square": lambda seed=0: convolutional(square_torus_group(4, 4), seed=seed),
    "odd square": lambda seed=0: convolutional(SQUARE, seed=seed),
    "rectangle": lambda seed=0: convolutional(square_torus_group(3, 4), seed=seed),
    "odd rectangle": lambda seed=0: convolutional(square_torus_group(4, 3), seed=seed),
    "anisotropic": lambda seed=0: convolutional(mirrors(4, 4), seed=seed),
    "triangular": lambda seed=0: convolutional(TRIANGULAR, seed=seed),
    "triangular rectangle": lambda seed=0: convolutional(triangular_torus_group(4, 2), seed=seed),
    "cubic": lambda seed=0: convolutional(hypercubic_torus_group((3, 3, 3)), seed=seed),
    "slab": lambda seed=0: convolutional(hypercubic_torus_group((2, 3, 4)), seed=seed),
    "ring": lambda seed=0: convolutional(hypercubic_torus_group((5,)), seed=seed),
    "four dimensions": lambda seed=0: convolutional(hypercubic_torus_group((2, 2, 2, 3)), seed=seed),
    "square without Z2": lambda seed=0: convolutional(without_flip(square_torus_group(4, 4)), seed=seed),
    "cubic without Z2": lambda seed=0: convolutional(without_flip(hypercubic_torus_group((3, 3, 3))), seed=seed),
    "residual cubic": lambda seed=0: residual_lattice(hypercubic_torus_group((3, 3, 3)), seed),
    "shortest": lambda seed=0: convolutional(square_torus_group(2, 2), seed=seed),
    "width 2": lambda seed=0: convolutional(square_torus_group(5, 2), seed=seed),
    "radial only": lambda seed=0: convolutional(SQUARE, oriented=0, time_terms=1, seed=seed),
    "oriented only": lambda seed=0: convolutional(SQUARE, radial=0, time_terms=2, seed=seed),
    "products, square": lambda seed=0: products(square_torus_group(4, 4), seed),
    "products, nearest neighbours on an odd square": lambda seed=0: products(SQUARE, seed, reach=1),
    "products, anisotropic": lambda seed=0: products(mirrors(4, 4), seed, smoothings=1),
    "products, rectangle": lambda seed=0: products(square_torus_group(3, 4), seed, reach=4),
    "products, triangular": lambda seed=0: products(TRIANGULAR, seed),
    "products, cubic": lambda seed=0: products(hypercubic_torus_group((3, 3, 3)), seed, smoothings=1),
    "products, slab": lambda seed=0: products(hypercubic_torus_group((1, 2, 4)), seed),
    "products, ring": lambda seed=0: products(hypercubic_torus_group((5,)), seed),
    "products, at rest": lambda seed=0: ProductPotential(SQUARE),
    "residual": lambda seed=0: residual((2, 3), seed, layers=3),
    "residual, one layer": lambda seed=0: residual((3,), seed, layers=1, rank=2),
    "residual square": lambda seed=0: residual_lattice(square_torus_group(4, 4), seed),
    "residual square, deep": lambda seed=0: residual_lattice(SQUARE, seed, layers=3),
    "residual rectangle, one layer": lambda seed=0: residual_lattice(
        square_torus_group(3, 4), seed, layers=1, time_terms=1
    ),
    "residual, radial": lambda seed=0: residual_lattice(SQUARE, seed, oriented=0, time_terms=2),
    "residual triangular": lambda seed=0: residual_lattice(TRIANGULAR, seed, radial=1, oriented=1),
    "residual, more kernels than sites": lambda seed=0: residual_lattice(
        square_torus_group(2, 2), seed, radial=3, oriented=3
    ),
    "local, open square": lambda seed=0: local(square(3, boundary="open"), seed),
    "local, glass, not even": lambda seed=0: local(edwards_anderson(3, seed=1), seed, flip=False),
    "local, graph, metric of scales": lambda seed=0: local(
        from_graph(networkx.petersen_graph()), seed, metric=None, scales=torch.linspace(0.5, 2, 10)
    ),
    "residual local, open square": lambda seed=0: residual_local(square(3, boundary="open"), seed, layers=3),
    "residual local, glass, not even": lambda seed=0: residual_local(
        edwards_anderson(3, seed=1), seed, flip=False, time_terms=1
    ),
    "residual local, torus, not even": lambda seed=0: residual_local(square(4, 3), seed, flip=False, layers=1),
    "residual local, graph, metric of scales": lambda seed=0: residual_local(
        from_graph(networkx.petersen_graph()), seed, width=6, metric=None, scales=torch.linspace(0.5, 2, 10)
    ),
    "exact average": lambda seed=0: SymmetricAverage(dense((2, 3), "softplus", seed=seed), square_torus_group(2, 3)),
    "exact average over a point group": lambda seed=0: SymmetricAverage(
        dense((3, 3), "softplus", seed=seed), point_group((3, 3))
    ),
    "exact average of a lattice potential": lambda seed=0: SymmetricAverage(
        convolutional(mirrors(3, 3), seed=seed), SQUARE
    ),
    "exact average over a ring, even": lambda seed=0: SymmetricAverage(dense((5,), seed=seed), ring_group(5)),
    "sampled average": lambda seed=0: SampledAverage(dense((2, 3), "softplus", seed=seed), square_torus_group(2, 3)),
    "sampled average of a lattice potential": lambda seed=0: SampledAverage(
        convolutional(mirrors(3, 3), seed=seed), SQUARE
    ),
    "sampled average of an average": lambda seed=0: SampledAverage(
        SymmetricAverage(dense((3, 3), "softplus", seed=seed), point_group((3, 3))), SQUARE
    ),
}

CONVEX_POTENTIALS = {
    "one layer": lambda seed=0: convex(layers=1, seed=seed),
    "augmented": lambda seed=0: convex(layers=3, seed=seed),
    "plain": lambda seed=0: convex(layers=3, augmented=False, seed=seed),
    "field": lambda seed=0: convex((2, 2), seed=seed),
    "gaussian": lambda seed=0: convex(activation="gaussian", seed=seed),
    "laplace": lambda seed=0: convex(activation="laplace", seed=seed),
    "cauchy": lambda seed=0: convex(activation="cauchy", seed=seed),
    "residual": lambda seed=0: convex(layers=3, kind="residual", seed=seed),
    "residual, normalised": lambda seed=0: convex(
        layers=4, kind="residual", augmented=False, normalised=True, seed=seed
    ),
    "dense": lambda seed=0: convex(layers=3, kind="dense", seed=seed),
    "dense, normalised": lambda seed=0: convex(layers=4, kind="dense", augmented=False, normalised=True, seed=seed),
    "halves": lambda seed=0: convex(layers=3, kind="halves", seed=seed),
    "halves, normalised": lambda seed=0: convex(layers=4, kind="halves", normalised=True, seed=seed),
    "one dimension": lambda seed=0: convex((1,), seed=seed),
    "log-sum-exp": lambda seed=0: log_sum_exp((2,), seed),
    "log-sum-exp of a field": lambda seed=0: log_sum_exp((2, 2), seed),
    "log-sum-exp of a number": lambda seed=0: log_sum_exp((1,), seed),
    "square": lambda seed=0: convex_lattice(SQUARE, seed),
    "cubic": lambda seed=0: convex_lattice(hypercubic_torus_group((2, 3, 3)), seed, layers=2),
    "radial": lambda seed=0: convex_lattice(SQUARE, seed, oriented=0, layers=2),
    "square, dense": lambda seed=0: convex_lattice(SQUARE, seed, layers=3, kind="dense", normalised=True),
    "rectangle": lambda seed=0: convex_lattice(square_torus_group(2, 4), seed, layers=2, activation="softplus"),
    "triangular": lambda seed=0: convex_lattice(TRIANGULAR, seed, radial=0, layers=3, augmented=False),
    "local, open square": lambda seed=0: convex_local(square(3, boundary="open"), seed),
    "local, glass, not even": lambda seed=0: convex_local(
        edwards_anderson(3, seed=1), seed, flip=False, layers=2, activation="gaussian"
    ),
    "local, torus, not even": lambda seed=0: convex_local(square(3), seed, flip=False, kind="dense", layers=2),
    "local, graph, scales": lambda seed=0: convex_local(
        from_graph(networkx.petersen_graph()), seed, scales=torch.linspace(0.5, 2, 10), radius=2
    ),
    "image": lambda seed=0: convex_image(seed=seed),
    "squeezed image": lambda seed=0: convex_image(seed=seed, squeeze=2, layers=3),
    "colour image": lambda seed=0: convex_image((3, 2, 2), seed, layers=1, kernel=1, activation="gaussian"),
    "plain image": lambda seed=0: convex_image((1, 3, 3), seed, kernel=5, augmented=False),
    "in a context": lambda seed=0: partially_convex(seed),
    "one layer in a context": lambda seed=0: partially_convex(seed, layers=1, activation="gaussian"),
    "three layers in a context": lambda seed=0: partially_convex(seed, layers=3, activation="squareplus"),
}

seeds = st.integers(0, 2**16)


every_potential = pytest.mark.parametrize("make", POTENTIALS.values(), ids=POTENTIALS)
every_convex_potential = pytest.mark.parametrize("make", CONVEX_POTENTIALS.values(), ids=CONVEX_POTENTIALS)


@every_potential
def test_potentials_keep_the_laws(make):
    check_potential(make(), times=(0.37,), other=make(1))


@every_potential
@settings(max_examples=3)
@given(seed=seeds, t=st.floats(0, 1))
def test_closed_forms_hold_for_all_parameters_and_times(make, seed, t):
    laws = ("gradient", "Laplacian", "backward", "symmetry")
    check_potential(make(), times=(t,), seed=seed, laws=laws)


@settings(max_examples=20)
@given(
    d=st.integers(1, 9),
    width=st.integers(1, 8),
    layers=st.integers(1, 4),
    rank=st.integers(1, 12),
    t=st.floats(0, 1),
    seed=seeds,
)
def test_residual_potentials_of_all_sizes_keep_the_laws(d, width, layers, rank, t, seed):
    """For any depth, width, dimension and rank: rank > d, d = 1 and width 1 among them."""
    potential = residual((d,), seed, width=width, layers=layers, rank=rank)
    check_potential(potential, times=(t,), seed=seed, shake=0.5, laws=("gradient", "Laplacian", "backward", "rate"))


def test_who_knows_the_derivative_by_time():
    """Its law is asked of those alone: the list of them says that it is asked."""
    assert {name for name, make in POTENTIALS.items() if timed(make())} == {
        name for name in POTENTIALS if name.startswith("residual")
    }


@every_convex_potential
def test_convex_potentials_keep_the_laws(make):
    check_convex(make(), other=make(1))


@every_convex_potential
@settings(max_examples=3)
@given(seed=seeds)
def test_convex_potentials_are_convex_for_all_parameters(make, seed):
    check_convex(make(seed), seed=seed, laws=("derivatives", "convexity"))


@settings(max_examples=20)
@given(
    seed=seeds,
    layers=st.integers(1, 4),
    width=st.integers(1, 20),
    kind=st.sampled_from(KINDS),
    augmented=st.booleans(),
    normalised=st.booleans(),
    activation=st.sampled_from(sorted(CONVEX)),
    strength=st.floats(0.1, 2.0),
)
def test_networks_are_strongly_convex_whatever_their_weights(
    seed, layers, width, kind, augmented, normalised, activation, strength
):
    options = {"layers": layers, "width": width, "kind": kind, "normalised": normalised, "activation": activation}
    options["augmented"] = augmented or kind == "halves"
    potential = ConvexPotential((3,), **options, generator=generator(seed))
    check_convex(potential, fields=3 * randn(20, 3, seed=seed), seed=seed, shake=strength, laws=("convexity",))
