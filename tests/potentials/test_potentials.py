"""Potentials: closed forms against autograd and brute force, symmetry, averages, and the kernels below them."""

import itertools
import math
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_potential_laws import POTENTIALS, convolutional, dense, generator, image, randn, residual

from isingflow.architectures.build import build_flow
from isingflow.errors import InvalidInput, SymmetryMismatch
from isingflow.flows import GradientFlow, gradient_flows
from isingflow.lattice import CRITICAL_BETA, square, triangular
from isingflow.lattice.symmetry import Group, require, ring_group, square_torus_group, triangular_torus_group
from isingflow.potentials import (
    LatticePotential,
    SymmetricAverage,
    group_average,
)
from isingflow.potentials.base import chebyshev
from isingflow.potentials.layers.convolutional import multiplicities
from isingflow.potentials.layers.hidden import ACTIVATIONS, Layer, hidden_layer, kernels
from isingflow.runs.config import FlowConfig
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich
from isingflow.testing.laws import shaken

every_potential = pytest.mark.parametrize("make", POTENTIALS.values(), ids=POTENTIALS)
OTHERS = ("dense", "image", "average", "residual", "local", "products")
LATTICE_POTENTIALS = {name: make for name, make in POTENTIALS.items() if not any(word in name for word in OTHERS)}
lattice_potentials = pytest.mark.parametrize("make", LATTICE_POTENTIALS.values(), ids=LATTICE_POTENTIALS)
seeds = st.integers(0, 2**16)
times = st.floats(0, 1)


@pytest.mark.parametrize(
    ("make", "larger"),
    [
        (POTENTIALS["dense lncosh"], Group((2, 3), translations=True)),
        (POTENTIALS["dense softplus"], Group((2, 3), flip=True)),
        (POTENTIALS["anisotropic"], square_torus_group(4, 4)),
        (POTENTIALS["triangular"], square_torus_group(3, 3)),
    ],
    ids=["dense: translations", "softplus: flip", "anisotropic: D4", "triangular: D4"],
)
def test_symmetry_that_is_not_claimed_is_not_there(make, larger):
    """Or the potential would be less expressive than it says: an anisotropic one must tell x from y."""
    potential = shaken(make())
    x = randn(1, *potential.shape)
    values = potential.value(torch.cat([g.apply(x) for g in larger.elements()]), 0.3)
    assert not potential.symmetry.contains(larger)
    assert values.std() > 1e-3 * values.abs().max()


def test_dense_value_by_hand():
    x = randn(3, 2, 2)
    for activation, function in {
        "lncosh": lambda p: np.log(np.cosh(p)),
        "softplus": lambda p: np.log1p(np.exp(p)),
    }.items():
        potential = shaken(dense((2, 2), activation, hidden=3))
        w, a, b = (p.detach().numpy() for p in (potential.weight, potential.amplitude, potential.bias))
        expected = [sum(a[h] * function(w[h] @ row.ravel() + b[h]) for h in range(3)) for row in x.numpy()]
        np.testing.assert_allclose(potential.value(x, 0.0).detach(), expected, rtol=1e-13)


def test_dense_lncosh_has_no_bias():
    assert {name for name, _ in dense((4,)).named_parameters()} == {"weight", "amplitude"}
    assert {name for name, _ in dense((4,), "softplus").named_parameters()} == {"weight", "amplitude", "bias"}


@lattice_potentials
def test_lattice_value_by_sums_over_sites(make):
    """phi by its definition: loops over orientations, sites and displacements, and a plain discrete Fourier sum."""
    potential = shaken(make())
    t, shape = 0.3, potential.shape
    x = randn(*shape).numpy()
    basis = np.polynomial.chebyshev.chebvander([2 * t - 1], potential.amplitude.shape[1] - 1)[0]
    amplitude = potential.amplitude.detach().numpy() @ basis
    quadratic = basis @ potential.quadratic.detach().numpy()
    weight, bias = potential.weight.detach().numpy(), potential.bias.detach().numpy()

    spectra = potential.spectra().detach()
    total = 0.0
    for orientation in range(spectra.shape[1]):
        axes = tuple(range(1, len(shape) + 1))
        by_displacement = torch.fft.irfftn(spectra[:, orientation] + 0j, s=shape, dim=axes).numpy()
        for site in np.ndindex(*shape):
            u = np.zeros(len(spectra))
            for other in np.ndindex(*shape):
                displacement = tuple((i - j) % n for i, j, n in zip(site, other, shape, strict=True))
                u += by_displacement[(slice(None), *displacement)] * x[other]
            p = weight @ u
            if potential.symmetry.flip:
                total += amplitude @ (np.sqrt(1 + (p + bias) ** 2) + np.sqrt(1 + (p - bias) ** 2)) / 2
            else:
                total += amplitude @ np.log1p(np.exp(p + bias))

    sites = np.indices(shape).reshape(len(shape), -1)
    orbits = potential.symmetry.momentum_orbits()
    for k in np.ndindex(*shape):
        phase = 2 * np.pi * (np.array(k) / shape) @ sites
        power = abs(np.exp(-1j * phase) @ x.ravel()) ** 2 / x.size
        total += quadratic[orbits[k]] * power / 2
    assert potential.value(torch.from_numpy(x)[None], t).item() == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize(
    ("group", "orientations"),
    [
        (square_torus_group(6, 6), 2),
        (square_torus_group(6, 6, axes_equal=False), 1),
        (square_torus_group(5, 6), 1),
        (triangular_torus_group(6, 6), 3),
    ],
    ids=str,
)
def test_oriented_kernels_see_every_direction_of_a_bond_and_only_that(group, orientations):
    """Their orbits: a bond and its reverse together, other directions apart; turning them permutes the orientations."""
    potential = convolutional(group)
    labels = potential.oriented_orbits.numpy()
    assert labels.shape == (orientations, *group.shape)
    for along in labels:
        assert along[0, 1] == along[0, -1] and along[1, 0] == along[-1, 0]
    if orientations > 1:
        assert labels[0, 0, 1] != labels[0, 1, 0]
    for point in group.point:
        turned = {along.ravel()[point].tobytes() for along in labels}
        assert turned == {along.tobytes() for along in labels}


@pytest.mark.parametrize("group", [square_torus_group(5, 5), triangular_torus_group(6, 6)], ids=str)
def test_radial_kernels_have_one_value_per_distance_class(group):
    potential = convolutional(group)
    np.testing.assert_array_equal(potential.radial_orbits.numpy(), group.displacement_orbits())
    assert potential.radial.shape == (2, group.displacement_orbits().max() + 1)


def test_averages_are_means_over_the_group():
    inner, group = shaken(dense((2, 3), "softplus")), square_torus_group(2, 3)
    x = randn(4, 2, 3)
    expected = torch.stack([inner.value(g.apply(x), 0.5) for g in group.elements()]).mean(0)
    torch.testing.assert_close(group_average(inner, group).value(x, 0.5), expected, rtol=1e-13, atol=1e-13)


def test_averaging_what_is_symmetric_changes_nothing():
    potential = shaken(convolutional(square_torus_group(3, 3)))
    average = SymmetricAverage(potential, potential.symmetry)
    x = randn(2, 3, 3)
    for ours, expected in zip(average.bind()(x, 0.4), potential.bind()(x, 0.4), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("activation", ["lncosh", "softplus"])
@pytest.mark.parametrize("group", [square_torus_group(3, 3), square_torus_group(2, 4), ring_group(5)], ids=str)
def test_averages_over_translations_are_the_sum_one_by_one(activation, group):
    """Gradient and Laplacian of every element, turned back by itself; more pre-activations than are held at a time."""
    inner = shaken(dense(group.shape, activation, time_terms=2))
    x = randn(3, *group.shape)
    terms = [(g, *inner.bind()(g.apply(x), 0.3)) for g in group.elements()]
    gradient = torch.stack([g.inverse().apply(term) for g, term, _ in terms]).mean(0)
    laplacian = torch.stack([term for *_, term in terms]).mean(0)
    for at_once in (2**18, 40):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("isingflow.potentials.dense._AT_ONCE", at_once)
            patch.setattr("isingflow.potentials.average._AT_ONCE", at_once)
            average = group_average(inner, group)
            ours = average.bind()(x, 0.3)
            value = average.value(x, 0.3)
        torch.testing.assert_close(ours[0], gradient, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(ours[1], laplacian, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(value, torch.stack([inner.value(g.apply(x), 0.3) for g, *_ in terms]).mean(0))


# --- in training


def in_training(inner, group, seed=3):
    average = group_average(inner, group, "sampled").train()
    average.redraw(generator(seed))
    return average


def test_in_training_every_sample_has_an_element_of_its_own():
    """One term of the sum, gradient turned back and Laplacian of the same element, and all of them by and by."""
    inner, group = shaken(dense((2, 3), "softplus"), strength=1.0), square_torus_group(2, 3)
    x = randn(400, 2, 3)
    with torch.no_grad():
        gradient, laplacian = in_training(inner, group).bind()(x, 0.5)
        terms = [(g, *inner.bind()(g.apply(x), 0.5)) for g in group.elements()]
    turned = torch.stack([g.inverse().apply(term) for g, term, _ in terms])
    found = (turned - gradient).abs().flatten(2).amax(2) + torch.stack([term for *_, term in terms]) - laplacian
    drawn = found.abs().argmin(0)
    assert found.abs().amin(0).max() < 1e-12
    assert len(drawn.unique()) == group.order
    counts = torch.bincount(drawn, minlength=group.order)
    expected = len(x) / group.order
    assert ((counts - expected).square() / expected).sum() < 2 * group.order, "chi squared"


def test_sampled_average_approaches_the_exact_one():
    """4000 draws: gradient and Laplacian within five standard errors of the sum over all elements."""
    inner, group, draws = shaken(dense((2, 3), "softplus"), strength=1.0), square_torus_group(2, 3), 4000
    sampled = in_training(inner, group)
    x = randn(1, 2, 3)
    drawn = []
    with torch.no_grad():
        for seed in range(draws):
            sampled.redraw(generator(seed))
            gradient, laplacian = sampled.bind()(x, 0.5)
            drawn.append(torch.cat([gradient.flatten(), laplacian]))
        exact = torch.cat([part.flatten() for part in group_average(inner, group).bind()(x, 0.5)])
    drawn = torch.stack(drawn)
    errors = drawn.std(0) / math.sqrt(draws)
    assert (errors > 0).all()
    assert ((drawn.mean(0) - exact).abs() < 5 * errors).all()


def test_draws_belong_to_samples_and_stages():
    """Shares of a batch have those of the whole; another position or seed has others; the same seed has the same."""
    inner, group = shaken(dense((3, 3), "softplus")), square_torus_group(3, 3)
    potential = in_training(inner, group)
    x = randn(40, 3, 3)

    def evaluated(x):
        with torch.no_grad():
            return potential.bind()(x, 0.5)[1]

    whole = evaluated(x)
    torch.testing.assert_close(torch.cat([evaluated(x[:7]), evaluated(x[7:])]), whole)
    assert torch.equal(evaluated(x), whole)
    assert (evaluated(x + 1e-9) - whole).abs().max() > 1e-3
    potential.redraw(generator(4))
    assert (evaluated(x) - whole).abs().max() > 1e-3
    potential.redraw(generator(3))
    assert torch.equal(evaluated(x), whole)


def test_outside_training_and_before_a_draw_the_sampled_average_is_exact():
    inner, group = shaken(dense((3, 3), "softplus")), square_torus_group(3, 3)
    x, exact = randn(2, 3, 3), group_average(inner, group)
    undrawn, drawn = group_average(inner, group, "sampled").train(), in_training(inner, group)
    assert (drawn.bind()(x, 0.5)[1] != exact.bind()(x, 0.5)[1]).all()
    for potential in (undrawn, drawn.eval()):
        assert all(map(torch.equal, potential.bind()(x, 0.5), exact.bind()(x, 0.5)))
        assert torch.equal(potential.value(x, 0.5), exact.value(x, 0.5))


def test_gradients_in_training_are_those_of_the_elements_drawn():
    """By the weights and, at elements held fixed, by the field: against finite differences."""
    potential = in_training(shaken(dense((2, 2), "softplus", hidden=3)), square_torus_group(2, 2))
    x, weight = randn(5, 2, 2), potential.potential.weight
    moves = potential.elements.moves(torch.arange(5) % potential.elements.order)

    def by_field(x):
        gradient, laplacian = potential.potential.bind()(moves.images(x), 0.5)
        return moves.back(gradient), laplacian

    def by_weight(w):
        return torch.func.functional_call(potential, {"potential.weight": w}, (x,))

    potential.forward = lambda x: potential.bind()(x, 0.5)
    assert torch.autograd.gradcheck(by_field, x.clone().requires_grad_())
    assert torch.autograd.gradcheck(by_weight, weight.detach().clone().requires_grad_())


def test_checkpoints_of_older_sampled_averages_are_read():
    average = in_training(dense((3, 3)), square_torus_group(3, 3))
    old = average.state_dict() | {
        "permutations": torch.zeros(4, 9),
        "inverses": torch.zeros(4, 9),
        "signs": torch.ones(4),
    }
    average.load_state_dict(old)


# --- the hidden layer


class Eager(Layer):
    """The torch kernels also where a fused one exists."""

    def _fused(self, u: torch.Tensor) -> bool:
        return False

    def _saturating(self, u: torch.Tensor) -> None:
        return None


layers = st.tuples(
    st.integers(1, 6), st.integers(1, 5), st.sampled_from([1, 7, 255, 256, 257, 700]), st.integers(0, 2**16)
)


def layer_inputs(hidden, features, columns, seed, dtype=torch.float64):
    shapes = [(features, columns), (hidden, features), (hidden,), (hidden,), (hidden,)]
    inputs = [randn(*shape, seed=seed + i, dtype=dtype) for i, shape in enumerate(shapes)]
    return [*inputs[:-1], inputs[-1].abs()]


def layer_results(inputs, layer):
    inputs = [tensor.clone(memory_format=torch.preserve_format).requires_grad_() for tensor in inputs]
    gradient, laplacian = hidden_layer(*inputs, layer)
    weights = randn(*gradient.shape, seed=91, dtype=gradient.dtype), randn(*laplacian.shape, seed=92).to(laplacian)
    scalar = (weights[0] * gradient).sum() + (weights[1] * laplacian).sum()
    return [gradient.detach(), laplacian.detach(), *torch.autograd.grad(scalar, inputs)]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 2e-4)], ids=str)
@settings(max_examples=20)
@given(layers)
def test_fused_kernels_are_the_torch_kernels(activation, dtype, tolerance, sizes):
    """Those of a GPU, that is, where nothing else is run."""
    inputs = layer_inputs(*sizes, dtype=dtype)
    expected = layer_results([tensor.double() for tensor in inputs], Eager(activation))
    for ours, exact in zip(layer_results(inputs, Layer(activation)), expected, strict=True):
        assert ours.dtype == dtype
        scale = max(float(exact.abs().max()), 1.0)
        torch.testing.assert_close(ours.double() / scale, exact / scale, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_layers_take_inputs_of_any_memory_layout(activation):
    inputs = layer_inputs(3, 4, 300, 0)
    strided = [tensor.T.contiguous().T if tensor.ndim == 2 else tensor for tensor in inputs]
    strided[2:] = [torch.stack([tensor, tensor], 1)[:, 0] for tensor in inputs[2:]]
    assert not any(tensor.is_contiguous() for tensor in strided)
    for ours, expected in zip(
        layer_results(strided, Layer(activation)), layer_results(inputs, Layer(activation)), strict=True
    ):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@settings(max_examples=10)
@given(layers)
def test_layers_are_derivatives_of_their_value(activation, sizes):
    """phi(u) = sum_m a_m f(v_m.u; b_m), differentiated along the columns; gamma enters as a weight of f''."""
    u, v, b, a, gamma = layer_inputs(*sizes)
    u.requires_grad_()
    gradient, laplacian = hidden_layer(u, v, b, a, gamma, Layer(activation))
    value = ACTIVATIONS[activation].value
    (expected,) = torch.autograd.grad((a[:, None] * value(v @ u, b[:, None])).sum(), u)
    torch.testing.assert_close(gradient, expected, rtol=1e-11, atol=1e-11)
    p = (v @ u).detach().requires_grad_()
    (first,) = torch.autograd.grad(value(p, b[:, None]).sum(), p, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), p)
    torch.testing.assert_close(laplacian, ((a * gamma)[:, None] * second).sum(0), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@given(p=st.floats(-15, 15), b=st.floats(-3, 3))
def test_activations_against_autograd(activation, p, b):
    """f', f'', f''', d f'/db and d f''/db of one formula each (torch's own softplus is only a line above 20)."""
    p, b = (torch.tensor(number, dtype=torch.float64, requires_grad=True) for number in (p, b))

    def derivative(of, by):
        return torch.autograd.grad(of, by, create_graph=True)[0]

    first = derivative(ACTIVATIONS[activation].value(p + 0.0, b + 0.0), p)
    second = derivative(first, p)
    expected = first, second, derivative(second, p), derivative(first, b), derivative(second, b)
    ours = ACTIVATIONS[activation].derivatives(p, b)
    if activation == "lncosh" and float(p.detach() + b.detach()) == 0:
        # |x| has no derivative at 0 for autograd; tanh and its derivatives there are 0, 1, 0
        expected = tuple(torch.tensor(number, dtype=torch.float64) for number in (0.0, 1.0, 0.0, 1.0, 0.0))
    for got, want in zip(ours, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("activation", "biases"), [("even-root", (0.0, 0.7, -2.0)), ("lncosh", (0.0,))])
def test_even_activations_are_even(activation, biases):
    p = torch.linspace(-5, 5, 41, dtype=torch.float64)
    for bias in biases:
        value = ACTIVATIONS[activation].value(p, torch.tensor(bias, dtype=torch.float64))
        torch.testing.assert_close(value, value.flip(0), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_survive_large_arguments(activation):
    """Linear tails: f ~ |p| (softplus: p or 0), f' -> +-1 (1 or 0), higher derivatives to 0; in float32 too."""
    p, b = torch.tensor([-1e4, 1e4]), torch.zeros(2)
    low = torch.tensor([0.0, 1e4]) if activation == "softplus" else p.abs()
    torch.testing.assert_close(ACTIVATIONS[activation].value(p, b), low, rtol=1e-4, atol=1e-4)
    first, *higher = ACTIVATIONS[activation].derivatives(p, b)
    torch.testing.assert_close(first, torch.tensor([0.0, 1.0]) if activation == "softplus" else p.sign())
    for derivative in higher:
        torch.testing.assert_close(derivative, torch.zeros(2), rtol=0, atol=1e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_kernels_are_made_once(activation):
    assert kernels(activation, False) is kernels(activation, False)


@pytest.mark.slow
@pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="torch.compile needs a C++ compiler; none is found"
)
@pytest.mark.parametrize("activation", ["lncosh", "softplus"])
def test_compiled_kernels_are_the_eager_ones(activation):
    potential = shaken(dense((3, 4), activation))
    x = randn(5, 3, 4).requires_grad_()

    def results():
        gradient, laplacian = potential.bind()(x, 0.0)
        inputs = [x, *potential.parameters()]
        return [gradient, laplacian, *torch.autograd.grad(gradient.square().sum() + laplacian.sum(), inputs)]

    eager = results()
    potential.compiled = True
    for ours, expected in zip(results(), eager, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-11, atol=1e-12)


# --- what lies below


@given(t=times, count=st.integers(1, 12))
def test_chebyshev_polynomials(t, count):
    expected = np.polynomial.chebyshev.chebvander([2 * t - 1], count - 1)[0]
    ours = chebyshev(t, count, torch.zeros(1, dtype=torch.float64))
    assert ours.shape == (count,)
    np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-12)


def test_chebyshev_follows_the_dtype():
    assert chebyshev(0.3, 4, torch.zeros(1)).dtype == torch.float32


@given(st.integers(1, 9), st.integers(1, 9))
def test_multiplicities_count_the_momenta_that_rfft2_leaves_out(lx, ly):
    counts = np.zeros((lx, ly // 2 + 1))
    for ky in range(ly):
        counts[:, min(ky, ly - ky)] += 1
    np.testing.assert_array_equal(multiplicities((lx, ly)), counts)


# --- how they start


@pytest.mark.parametrize("lattice", [square(8), square(6, 10), triangular(6), square(7, jy=0.3)], ids=str)
def test_features_start_at_order_one(lattice):
    """In the flow that build_flow makes: fields of the mean-field Gaussian, convolved with the initial kernels."""
    target = HubbardStratonovich(lattice, 0.35)
    flow = build_flow(target, FlowConfig(hidden=8), seed=0)
    potential = gradient_flows(flow)[0].potential
    y = target.mean_field().transform(randn(400, *lattice.shape))
    kernel_spectra = potential.spectra().detach().double()
    features = torch.fft.irfft2(kernel_spectra[:, :, None] * torch.fft.rfft2(y), s=lattice.shape)
    deviations = features.square().mean((2, 3, 4)).sqrt()
    assert ((deviations > 0.8) & (deviations < 1.25)).all(), deviations


@pytest.mark.parametrize("activation", ["lncosh", "softplus"])
def test_dense_features_start_at_order_one(activation):
    potential = dense((8, 8), activation, hidden=64)
    p = randn(500, 64).float() @ potential.weight.detach().T
    assert 0.9 < math.sqrt(3) * float(p.std()) < 1.1


def from_directions():
    return dense((5,), "softplus", time_terms=3, directions=randn(5, 5, seed=4))


identities = pytest.mark.parametrize(
    "make",
    [*LATTICE_POTENTIALS.values(), from_directions, image],
    ids=[*LATTICE_POTENTIALS, "dense from directions", "image"],
)


@identities
def test_zero_amplitudes_make_the_identity(make):
    potential = make()
    x = randn(3, *potential.shape, dtype=torch.float32)
    gradient, laplacian = potential.bind()(x, 0.4)
    assert not gradient.any() and not laplacian.any() and not potential.value(x, 0.4).any()
    moved, logdet = GradientFlow(potential, steps=3)(x)
    assert torch.equal(moved, x) and not logdet.any()


@identities
def test_from_the_identity_every_amplitude_can_be_learnt(make):
    potential = make().double()
    x = randn(4, *potential.shape)
    gradient, laplacian = potential.bind()(x, 0.37)
    (x * gradient).sum().sub(laplacian.square().sum() + laplacian.sum()).backward()
    for name, parameter in potential.named_parameters():
        if name in ("amplitude", "quadratic"):
            assert (parameter.grad.abs() > 1e-12).all(), name


def test_directions_are_where_dense_weights_start():
    directions = randn(5, 5, seed=4)
    torch.testing.assert_close(from_directions().weight.detach(), directions.float(), rtol=0, atol=0)


def test_dense_units_bend_where_data_are_however_steep_they_start():
    """The distances of the planes w.x + b = 0 from the origin are standard normal numbers, whatever |w|."""
    distances = []
    for steepness in (1.0, 20.0):
        directions = steepness * torch.nn.functional.normalize(torch.randn(4000, 3, generator=generator(1)), dim=1)
        potential = dense((3,), "softplus", hidden=4000, directions=directions)
        distances.append((potential.bias / potential.weight.norm(dim=1)).detach())
    torch.testing.assert_close(*distances, rtol=1e-5, atol=1e-6)
    assert abs(distances[0].std().item() - 1) < 5 / math.sqrt(2 * 4000)
    assert abs(distances[0].mean().item()) < 5 / math.sqrt(4000)


def test_a_constant_dense_potential_is_the_first_term_of_one_in_time():
    """And keeps the names and shapes that it had before there were more terms."""
    constant, series = dense((2, 3), "softplus"), dense((2, 3), "softplus", time_terms=3)
    assert {name: tuple(tensor.shape) for name, tensor in constant.state_dict().items()} == {
        "weight": (5, 6),
        "amplitude": (5,),
        "bias": (5,),
    }
    x = randn(4, 2, 3).float()
    with torch.no_grad():
        for t in (0.0, 0.3):
            torch.testing.assert_close(constant.value(x, t), series.value(x, t))
        series.amplitude[:, 1] = 1.0
        assert not torch.allclose(series.value(x, 0.0), series.value(x, 1.0))


@pytest.mark.parametrize("name", ["dense softplus", "square"])
def test_seeds_decide_everything(name):
    factories = {
        "dense softplus": lambda seed: dense((2, 3), "softplus", seed=seed),
        "square": lambda seed: convolutional(square_torus_group(4, 4), seed=seed),
    }
    first, again, other = (factories[name](seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


# --- what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"radial": 0, "oriented": 0}, "at least one kernel"),
        ({"radial": -1, "oriented": 3}, "radial is -1"),
        ({"radial": 2, "oriented": -1}, "oriented is -1"),
        ({"hidden": 0}, "hidden is 0"),
        ({"time_terms": 0}, "time_terms is 0"),
    ],
)
def test_lattice_potentials_need_something_to_work_with(options, message):
    with pytest.raises(InvalidInput, match=message):
        convolutional(square_torus_group(4, 4), **options)


@pytest.mark.parametrize(
    "group",
    [
        Group((4, 4), translations=True, flip=True),
        Group((4, 4), False, square_torus_group(4, 4).point, flip=True),
        square(4, boundary="open").symmetry,
    ],
    ids=["no inversion", "no translations", "open"],
)
def test_lattice_potentials_refuse_groups_that_are_too_small(group):
    with pytest.raises(SymmetryMismatch, match="needs translations x C2; the symmetry asked for is only"):
        convolutional(group)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "relu"}, "'relu', expected lncosh or softplus"),
        ({"hidden": 0}, "hidden is 0"),
        ({"time_terms": 0}, "time_terms is 0"),
        ({"directions": torch.ones(5, 3)}, r"shape \(5, 3\), expected shape \(5, 4\)"),
    ],
)
def test_dense_potentials_refuse(options, message):
    with pytest.raises(InvalidInput, match=message):
        dense((2, 2), **options)


@pytest.mark.parametrize(
    "options", [{"shape": (0, 3)}, {"features": 0}, {"kernel": 4}, {"time_terms": 0}, {"steepness": 0}]
)
def test_image_potentials_refuse(options):
    with pytest.raises(
        InvalidInput, match=r"expected (an integer >= 1|a finite number > 0|two lengths, and a kernel of odd width)"
    ):
        image(**options)


def test_blocks_of_images_do_not_change_an_image_potential(monkeypatch):
    potential = shaken(image((5, 6), features=3))
    x = randn(7, 30).requires_grad_()

    def results():
        gradient, laplacian = potential.bind()(x, 0.3)
        loss = (gradient * randn(7, 30, seed=1)).sum() + laplacian.square().sum()
        return gradient, laplacian, *torch.autograd.grad(loss, [x, *potential.parameters()])

    whole = results()
    monkeypatch.setattr("isingflow.potentials.image.CACHE", 200)
    for blocked, expected in zip(results(), whole, strict=True):
        torch.testing.assert_close(blocked, expected, rtol=1e-11, atol=1e-11)


def test_averages_refuse():
    potential, group = dense((4, 4)), square_torus_group(4, 4)
    with pytest.raises(InvalidInput, match="mode is 'mean', expected exact or sampled"):
        group_average(potential, group, "mean")
    for mode in ("exact", "sampled"):
        with pytest.raises(InvalidInput, match=r"fields of shape \(4, 4\), the group acts on \(2, 8\)"):
            group_average(potential, square_torus_group(2, 8), mode)
        with pytest.raises(InvalidInput, match="has 16384 terms; at most 4096"):
            group_average(residual((32, 32)), square_torus_group(32, 32), mode)


TARGETS = {
    "square": square(4),
    "anisotropic": square(4, jy=0.5),
    "antiferromagnetic columns": square(4, jy=-1.0),
    "triangular": triangular(4),
    "open": square(4, boundary="open"),
    "rectangle": square(4, 6),
}


@pytest.mark.parametrize(("claimed", "real"), list(itertools.product(TARGETS, repeat=2)))
def test_claims_beyond_the_target_are_refused(claimed, real):
    """A potential that is symmetric like one lattice, on another: refused unless all its elements are the target's."""
    of_potential, of_target = TARGETS[claimed].symmetry, TARGETS[real].symmetry
    averaged = SymmetricAverage(dense(of_potential.shape, hidden=1), of_potential)
    fits = set(averaged.symmetry.elements()) <= set(of_target.elements())
    assert fits == (claimed == real or (claimed, real) in ALLOWED)
    if fits:
        require(averaged.symmetry, of_target)
    else:
        with pytest.raises(SymmetryMismatch):
            require(averaged.symmetry, of_target)


ALLOWED = {
    ("anisotropic", "square"),
    ("anisotropic", "antiferromagnetic columns"),
    ("antiferromagnetic columns", "square"),
    ("antiferromagnetic columns", "anisotropic"),
    ("open", "square"),
}


def test_a_flow_with_too_much_symmetry_is_not_built(monkeypatch):
    """build_flow takes the target's own symmetry; a potential that claims more must still not get through."""
    from isingflow.architectures import monge_ampere

    monkeypatch.setattr(
        monge_ampere,
        "LatticePotential",
        lambda symmetry, **options: LatticePotential(square_torus_group(*symmetry.shape), **options),
    )
    with pytest.raises(SymmetryMismatch, match="4 of the 8 operations of D4"):
        build_flow(HubbardStratonovich(square(4, jy=0.5), CRITICAL_BETA), FlowConfig(), seed=0)


@pytest.mark.parametrize("lattice", [square(4), square(4, jy=0.5), triangular(4), square(2, 4)], ids=str)
def test_flows_get_the_symmetry_of_their_lattice(lattice):
    flow = build_flow(HubbardStratonovich(lattice, 0.4), FlowConfig(), seed=0)
    assert gradient_flows(flow)[0].potential.symmetry == lattice.symmetry


def test_unknown_or_impossible_potentials_are_not_built():
    target = HubbardStratonovich(square(4, boundary="open"), 0.4)
    with pytest.raises(InvalidInput, match="needs translation invariance"):
        build_flow(target, FlowConfig(), seed=0)
    with pytest.raises(InvalidInput, match="'cubic', expected one of lattice, local, dense, image"):
        FlowConfig(potential="cubic")
    with pytest.raises(InvalidInput, match="'mean', expected one of none, exact, sampled"):
        FlowConfig(potential="dense", average="mean")
