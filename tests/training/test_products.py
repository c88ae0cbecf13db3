"""Products fitted after a training: the least squares, what they bring, and when they are left out."""

import math

import pytest
import torch
from msgspec.structs import replace

import isingflow
from isingflow.architectures.base import Domain
from isingflow.architectures.monge_ampere import FlowConfig
from isingflow.errors import InvalidInput
from isingflow.flows import Family, approximations, gradient_flows
from isingflow.flows.products import fitted_map
from isingflow.lattice import chain, edwards_anderson, square, triangular
from isingflow.potentials import ProductPotential
from isingflow.runs.config import FamilyConfig, RunConfig
from isingflow.runs.folder import RunFolder
from isingflow.runs.loading import load
from isingflow.runs.settings import TrainingConfig
from isingflow.runtime.parallel import Workers
from isingflow.targets.base import Target
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich
from isingflow.training import problems, products
from isingflow.training.inherit import inherit
from isingflow.training.least_squares import RIDGES, Moments, left, solution, solved
from isingflow.training.problems import Variational
from isingflow.training.products import Fitted, fit_products, take_products

SMALL = FlowConfig(hidden=4, radial=2, oriented=0, steps=4, products=1)
TRAINING = TrainingConfig(iterations=30, batch=32, gradient="path", adapt_steps=False, evaluation_samples=256)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def untrained(lattice, beta=0.3, flow=SMALL):
    target = HubbardStratonovich(lattice, beta)
    return RunConfig(lattice, beta, "mine", flow=flow).new_flow(target).eval(), target


def gathered(rows):
    """The moments of rows (r, d), summed over parts."""
    entries = torch.cat([torch.ones(len(rows), 1, dtype=torch.float64), rows], 1)
    parts = [Moments(part.T @ part) for part in entries.split(70)]
    return sum(parts[1:], parts[0])


def test_least_squares_of_sums_are_those_of_the_rows():
    """Against a direct solution by all rows."""
    rows = torch.randn(200, 6, generator=generator(), dtype=torch.float64)
    rows[:, 5] += 0.7 * rows[:, 1] - 2 * rows[:, 3] + 5
    moments, one = [gathered(rows)], torch.ones(1, 1, dtype=torch.float64)
    centred = rows - rows.mean(0)
    expected = torch.linalg.lstsq(centred[:, :5], -centred[:, 5:]).solution.T
    torch.testing.assert_close(solved(moments, one, 1e-12, 3 * one[0]), expected)
    remains = (centred[:, 5] + centred[:, :5] @ expected[0]).square().mean()
    assert left(moments, one, expected) == pytest.approx(float(remains))
    moved = expected + 0.01 * torch.randn(1, 5, generator=generator(1), dtype=torch.float64)
    assert left(moments, one, expected) < left(moments, one, moved)


def test_series_of_coefficients_are_found():
    """d made of responses by coefficients that are linear in a parameter, without noise but for a constant of each."""
    basis = torch.tensor([[1.0, -1.0], [1.0, 0.2], [1.0, 1.0]], dtype=torch.float64)
    truth = torch.randn(2, 4, generator=generator(), dtype=torch.float64)
    halves = []
    for place, row in enumerate(basis):
        responses = torch.randn(80, 4, generator=generator(place), dtype=torch.float64)
        rows = torch.cat([responses, (7 * place - responses @ (row @ truth))[:, None]], 1)
        halves.append((gathered(rows[:40]), gathered(rows[40:])))
    torch.testing.assert_close(solution(halves, basis), truth, rtol=1e-3, atol=1e-3)


def noisy(basis, truth, noise, seed):
    """Halves of samples of d + r . C, with noise of another size at every temperature."""
    halves = []
    for place, (row, scatter) in enumerate(zip(basis, noise, strict=True)):
        rows = torch.randn(400, 4, generator=generator(10 * seed + place), dtype=torch.float64)
        rows[:, 3] = scatter * rows[:, 3] - rows[:, :3] @ (row @ truth)
        halves.append((gathered(rows[:200]), gathered(rows[200:])))
    return halves


def test_weights_are_those_of_the_mean_of_variances():
    """By its gradient, which vanishes at what was solved."""
    basis = torch.tensor([[1.0, -1.0], [1.0, 0.2], [1.0, 1.0]], dtype=torch.float64)
    truth, weights = torch.ones(2, 3, dtype=torch.float64), torch.tensor([5.0, 1.0, 0.2], dtype=torch.float64)
    moments = [one + other for one, other in noisy(basis, truth, (0.1, 1.0, 3.0), 1)]
    found = solved(moments, basis, 1e-12, weights).requires_grad_()
    (slope,) = torch.autograd.grad(weights @ left(moments, basis, found), found)
    assert slope.abs().max() < 1e-8


def test_quiet_temperatures_count_more_than_noisy_ones():
    """A constant, seen with noise of 0.01 and of 1: its error is that of the weighted mean, not of the plain one."""
    basis, truth = torch.ones(2, 1, dtype=torch.float64), torch.ones(1, 3, dtype=torch.float64)
    errors = [solution(noisy(basis, truth, (0.01, 1.0), seed), basis) - truth for seed in range(5)]
    assert torch.stack(errors).square().mean().sqrt() < 3 * 0.01 / math.sqrt(400)


def test_a_ridge_is_chosen_by_what_was_not_fitted_to():
    """Of responses that say nothing of d, with few samples, most is left by what was fitted most."""
    rows = [torch.randn(30, 21, generator=generator(seed), dtype=torch.float64) for seed in (0, 1)]
    one = torch.ones(1, 1, dtype=torch.float64)
    pair = gathered(rows[0]), gathered(rows[1])
    strongest = solved([pair[0] + pair[1]], one, max(RIDGES), one[0])
    torch.testing.assert_close(solution([pair], one), strongest, rtol=0, atol=0)


@pytest.mark.parametrize("lattice", [square(4), triangular(4), chain(6)], ids=str)
def test_responses_are_the_derivative_of_ln_p_plus_e(lattice):
    """Along a term, by differences: of a whole flow with its map of products, short of what is second order."""
    flow, target = untrained(lattice)
    flow.double()
    found = fitted_map(flow)
    potential, z = found.potential, flow.noise(4, generator(1))
    y, _ = found.inner(z)
    potential.calibrate(potential.squares(y.view(-1, *potential.shape)))
    _, slope = products._energy_and_slope(found.outer, target, y)
    responses = potential.responses(y.view(-1, *potential.shape), slope.view(-1, *potential.shape))

    def excess(step):
        potential.choose(step)
        x, logdet = flow(z)
        return flow.base_log_prob(z) - logdet + target.energy(x)

    for seed in range(3):
        direction = torch.randn(potential.terms, generator=generator(seed), dtype=torch.float64)
        difference = (excess(1e-4 * direction) - excess(-1e-4 * direction)) / 2e-4
        torch.testing.assert_close(difference.detach(), responses @ direction, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A flow that 30 iterations have taken near the target, and the products fitted then."""
    folder = tmp_path_factory.mktemp("products") / "run"
    config = RunConfig(square(4), 0.4, "mine", flow=SMALL, training=TRAINING)
    return isingflow.train(RunFolder.create(folder, config), progress=False)


def bound(flow, target, seed=5, n=4096):
    with torch.no_grad():
        z = flow.noise(n, generator(seed))
        x, logdet = flow(z)
        return flow.base_log_prob(z) - logdet + target.energy(x.double())


def test_a_training_ends_with_products_that_narrow_the_bound(trained):
    """On other samples than the fit's own, with the same noise, and no further than the exact value."""
    flow, target = trained.flow, trained.target
    assert not fitted_map(flow).potential.resting
    after = bound(flow, target)
    chosen = fitted_map(flow).potential.chosen
    fitted_map(flow).potential.rest()
    before = bound(flow, target)
    change = after - before
    try:
        assert float(change.mean()) < -5 * float(change.std()) / math.sqrt(len(change))
        exact = target.exact_free_energy()[0]
        assert float(after.mean()) > exact - 4 * float(after.std()) / math.sqrt(len(after))
        assert float(after.mean()) - exact < 0.7 * (float(before.mean()) - exact)
    finally:
        fitted_map(flow).potential.choose(chosen)


def test_what_was_fitted_is_kept_with_the_run_and_told(trained):
    state = trained.run.load_checkpoint()[1]
    assert state["fitted"]["terms"] == fitted_map(trained.flow).potential.terms
    assert state["fitted"]["after"] < state["fitted"]["before"]
    z = trained.flow.noise(3, generator(2))
    torch.testing.assert_close(load(trained.run)(z), trained.flow(z))
    back, _ = trained.flow.inverse(trained.flow(z)[0])
    torch.testing.assert_close(back, z, atol=1e-3, rtol=0)


def test_its_map_is_integrated_and_certified(trained):
    """While it rests it is the identity, without steps that a certificate would have to refine."""
    assert len(approximations(trained.flow)) == 2
    flow, _ = untrained(square(4))
    assert len(approximations(flow)) == 1 and len(gradient_flows(flow)) == 2
    x = torch.randn(2, 4, 4, generator=generator())
    for found in (gradient_flows(flow)[1](x), gradient_flows(flow)[1].inverse(x)):
        assert torch.equal(found[0], x) and not found[1].any()


def test_the_score_goes_through_fitted_products(trained):
    """By the closed way of a gradient flow, against automatic differentiation of ln p."""
    z = trained.flow.noise(3, generator(4))
    x, _, score = trained.flow.forward_with_score(z)
    point = x.detach().requires_grad_()
    expected = torch.autograd.grad(trained.flow.log_prob(point).sum(), point)[0]
    torch.testing.assert_close(score, expected, atol=2e-2, rtol=1e-2)


def test_too_few_samples_fit_nothing():
    flow, target = untrained(square(4))
    terms = fitted_map(flow).potential.terms
    assert fit_products(flow, target, 4 * terms - 1, generator(), Workers(1), tolerance=0.01) is None
    assert fitted_map(flow).potential.resting


class Gaussian(Target):
    """What a flow that does nothing is exactly: nothing is left to fit."""

    shape, symmetry = (4, 4), square(4).symmetry

    def energy(self, field):
        return field.square().flatten(1).sum(1) / 2


def test_where_nothing_is_to_be_won_products_stay_away_or_do_no_harm():
    flow = isingflow.runs.config.TargetConfig.from_preset("quick", Gaussian()).new_flow(Gaussian())
    flow.eval()
    found = fit_products(
        flow, Gaussian(), 4 * fitted_map(flow).potential.terms, generator(), Workers(1), tolerance=0.01
    )
    assert found is None or found.after - found.before > -1e-3
    assert float(bound(flow, Gaussian()).std()) < 1e-2


class Broken(Gaussian):
    def energy(self, field):
        return super().energy(field) + torch.where(field[:, 0, 0] > 2, math.nan, 0.0)


def test_energies_that_are_no_numbers_fit_nothing():
    flow = isingflow.runs.config.TargetConfig.from_preset("quick", Gaussian()).new_flow(Gaussian())
    assert (
        fit_products(flow, Broken(), 4 * fitted_map(flow).potential.terms, generator(), Workers(1), tolerance=0.01)
        is None
    )
    assert fitted_map(flow).potential.resting


def test_threads_share_the_samples():
    """Sums of shares are sums: to rounding, the same coefficients."""
    found = []
    for threads in (1, 2):
        flow, target = untrained(square(4), 0.2)
        pool = Workers(threads)
        fit_products(flow, target, 4 * fitted_map(flow).potential.terms, generator(), pool, tolerance=0.01)
        pool.close()
        found.append(fitted_map(flow).potential.coefficients)
    torch.testing.assert_close(*found, rtol=1e-2, atol=1e-3)


def test_an_objective_of_ones_own_is_not_corrected(tmp_path):
    def mine(flow, target, z, settings):
        return isingflow.training.objectives.reverse_kl(flow, target, z, settings)

    run = RunFolder.create(tmp_path / "run", RunConfig(square(4), 0.4, "mine", flow=SMALL, training=TRAINING))
    trained = isingflow.train(run, objective=mine, iterations=None, progress=False)
    assert fitted_map(trained.flow).potential.resting


def test_who_has_products():
    """Presets on tori without a field; nobody else."""
    for preset in ("quick", "accurate"):
        assert RunConfig.from_preset(preset, square(4), 0.3).flow.products == 4
        for lattice in (square(4, boundary="open"), edwards_anderson(4, seed=0), square(4).with_field(0.1)):
            assert RunConfig.from_preset(preset, lattice, 0.3).flow.products == 0
    assert RunConfig.from_preset("paper", square(4), 0.3).flow.products == 0
    for settings in ({"potential": "dense"}, {"potential": "local", "radial": 0, "oriented": 0}):
        flow = FlowConfig(**settings, products=2)
        with pytest.raises(InvalidInput, match=r"flow\.products is 2"):
            flow.build(Domain.of_lattice(square(4)), generator())
    with pytest.raises(InvalidInput, match=r"flow\.products is 1"):
        SMALL.build(Domain.of_lattice(square(4).with_field(0.1)), generator())


def test_what_goes_on_from_a_run_takes_its_parameters_and_fits_anew(trained, tmp_path):
    hot = trained.target.at(beta=0.38)
    short = isingflow.train(hot, start=trained, iterations=2, output=tmp_path / "run", progress=False)
    assert fitted_map(short.flow).potential.resting  # 64 samples are too few to fit to
    assert isinstance(fitted_map(short.flow).potential, ProductPotential)


def test_a_training_that_goes_on_after_its_time_limit_takes_products_back(tmp_path):
    """They are of the weights that a flow had when its time was over."""
    run = RunFolder.create(tmp_path / "run", RunConfig(square(4), 0.4, "mine", flow=SMALL, training=TRAINING))
    stops = iter([False] * 20 + [True] * 1000)
    isingflow.train(run, should_stop=lambda: next(stops), progress=False)
    tensors, state = run.load_checkpoint()
    (name,) = (name for name in tensors if name.endswith("coefficients"))
    tensors[name] = torch.ones_like(tensors[name])
    run.save_checkpoint(tensors, state)
    trained = isingflow.train(RunFolder.open(run.path), progress=False)
    whole = RunFolder.create(tmp_path / "whole", RunConfig(square(4), 0.4, "mine", flow=SMALL, training=TRAINING))
    uninterrupted = isingflow.train(whole, progress=False)
    for one, other in zip(trained.flow.state_dict().values(), uninterrupted.flow.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_fewer_samples_of_the_fit_on_larger_tori():
    sizes = [RunConfig.from_preset("accurate", square(size), 0.4).training for size in (16, 32, 64, 128)]
    assert [training.fitting_samples for training in sizes] == [4096, 2048, 2048, 2048]
    assert replace(sizes[0], fitting_samples=0).fitting_samples == 0


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A training on a torus that counts as large: its products are fitted on half the lengths."""
    folder = tmp_path_factory.mktemp("large") / "run"
    config = RunConfig(square(12), 0.35, "mine", flow=SMALL, training=TRAINING)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(problems, "FITTED_SITES", 36)
        return isingflow.train(RunFolder.create(folder, config), progress=False)


def test_products_of_a_large_torus_are_fitted_on_half_its_lengths(large):
    """They narrow its bound, and are those of a fit to the same flow, folded."""
    found = fitted_map(large.flow)
    chosen, scales = found.potential.chosen, found.potential.scales.clone()
    after = bound(large.flow, large.target, n=1024)
    found.potential.rest()
    change = after - bound(large.flow, large.target, n=1024)
    assert float(change.mean()) < -5 * float(change.std()) / math.sqrt(len(change))
    small, magnet = untrained(square(6), 0.35)
    inherit(large.flow, small)
    fit_products(small, magnet, 1920, generator(3), Workers(1), tolerance=0.01)
    other = fitted_map(small).potential
    torch.testing.assert_close(other.scales, scales, rtol=0.05, atol=0)
    found.potential.scales.copy_(other.scales)
    found.potential.choose(other.chosen)
    again = after - bound(large.flow, large.target, n=1024)
    assert abs(float(again.mean())) < 0.2 * abs(float(change.mean()))
    found.potential.scales.copy_(scales)
    found.potential.choose(chosen)


def test_products_that_do_not_serve_the_large_torus_are_left_out(large):
    """Here those with the other sign."""
    found = fitted_map(large.flow)
    small, _ = untrained(square(6), 0.35)
    source, chosen = fitted_map(small).potential, found.potential.chosen
    source.scales.copy_(found.potential.scales)
    fitted, rest = Fitted(source.terms, 1000, 0.0, -1.0), (generator(4), Workers(1))
    for sign in (-1, 1):
        source.choose(sign * chosen)
        taken = take_products(large.flow, large.target, small, fitted, *rest, tolerance=0.01)
        assert (taken is None) == found.potential.resting == (sign < 0)
    assert taken.after < taken.before != fitted.before
    torch.testing.assert_close(found.potential.chosen, chosen)


def test_samples_of_smaller_tori_cost_less(monkeypatch):
    """A time limit has room for more of them."""
    monkeypatch.setattr(problems, "FITTED_SITES", 36)

    def cost(lattice, flow=SMALL):
        config = RunConfig(lattice, 0.3, "mine", flow=flow)
        return Variational(config.target(), config, device=torch.device("cpu")).fitting_cost

    assert cost(square(6)) == 1
    assert cost(square(12)) == 1 / 4
    assert cost(square(14)) == 1 / 4
    assert cost(square(13)) == 1, "has no half"
    assert cost(square(12), replace(SMALL, products=0)) == 1, "fits nothing"


@pytest.mark.parametrize("preset", ["quick", "accurate"])
@pytest.mark.parametrize("iterations", [None, 500])
@pytest.mark.parametrize("size", [8, 16, 64])
def test_a_family_has_samples_for_all_terms_of_its_products(preset, iterations, size):
    """However long it is trained."""
    config = FamilyConfig.from_preset(preset, square(size), 0.2, 0.6, iterations=iterations)
    family = config.new_flow()
    assert config.training.fitting_samples >= products.PER_TERM * family.fitted.numel() > 0


def test_a_family_has_products_as_a_series_in_beta(tmp_path):
    """They narrow the bound at temperatures that nobody fitted at; members and checkpoints have them."""
    config = FamilyConfig.from_preset("quick", square(4), 0.2, 0.45, iterations=60)
    training = replace(config.training, batch=32, fitting_samples=1024, adapt_steps=False)
    config = replace(config, flow=SMALL, training=training)
    trained = isingflow.train(RunFolder.create(tmp_path / "family", config), progress=False)
    family = trained.flow
    assert isinstance(family, Family) and family.fitted.any() and len(approximations(family.at(0.3))) == 2
    assert len(approximations(family.bound(0.3))) == 2
    again = load(trained.run)
    gains = []
    for beta in (0.23, 0.35, 0.42):
        member, target = family.at(beta), HubbardStratonovich(square(4), beta)
        after = bound(member, target)
        torch.testing.assert_close(bound(again.at(beta), target), after)
        torch.testing.assert_close(bound(family.bound(beta), target), after)
        fitted_map(member).potential.rest()
        change = after - bound(member, target)
        gains.append(float(change.mean()) / float(change.std()) * math.sqrt(len(change)))
    assert max(gains) < 3 and min(gains) < -5
    assert not fitted_map(family).potential.fitted
