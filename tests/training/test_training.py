"""The training loop: what it minimises, that it resumes bit for bit, that it stops cleanly, and that its bound
holds."""

import json
import math

import numpy as np
import pytest
import torch
from msgspec.structs import replace

import isingflow
from isingflow.architectures.build import build_flow
from isingflow.architectures.cp_flow import ConvexFlowConfig
from isingflow.architectures.ot_flow import OTFlowConfig
from isingflow.errors import CheckpointError, InvalidInput, SymmetryMismatch, TrainingDiverged
from isingflow.evaluation import targets as evaluation
from isingflow.exact import thermodynamics
from isingflow.flows import certificate, gradient_flows
from isingflow.flows.convex import ConvexFlow
from isingflow.lattice import CRITICAL_BETA, edwards_anderson, square, triangular
from isingflow.runs.config import FlowConfig, RunConfig, TrainingConfig
from isingflow.runs.folder import RunFolder
from isingflow.runs.settings import BOUNDS
from isingflow.statistics import free_energy
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich
from isingflow.training import objectives, train
from isingflow.training.objectives import force_mismatch, reverse_kl
from isingflow.training.progress import Outcome
from isingflow.training.schedules import controlled_steps, learning_rate

CPU = torch.device("cpu")
SMALL_FLOW = FlowConfig(hidden=4, radial=2, oriented=1, time_terms=2, steps=4)
SMALL_TRAINING = TrainingConfig(iterations=12, batch=8, check_every=5, evaluation_samples=256)


def small_config(lattice=None, beta=CRITICAL_BETA, seed=0, flow=None, **settings):
    lattice = square(4) if lattice is None else lattice
    return RunConfig(lattice, beta, "quick", seed, flow or SMALL_FLOW, replace(SMALL_TRAINING, **settings))


def distorted_flow(target, seed=1):
    """A flow in float64 that is no Gaussian."""
    flow = build_flow(target, replace(SMALL_FLOW, steps=8), seed=seed).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return flow


def parameters(run):
    return {name: value for name, value in run.load_checkpoint()[0].items() if name.startswith("flow.")}


def test_training_lowers_the_bound_towards_the_exact_answer(tmp_path):
    run = RunFolder.create(tmp_path / "run", small_config(iterations=150, batch=32, learning_rate=2e-2))
    assert train(run, device=CPU).outcome is Outcome.FINISHED
    result = evaluation.evaluate_target(run, samples=4096, device=CPU)
    target = HubbardStratonovich(square(4), CRITICAL_BETA)
    exact = target.free_energy(thermodynamics(square(4), CRITICAL_BETA).log_z)
    assert result.exact == pytest.approx(exact, abs=1e-12)
    assert result.certified
    assert result.variational.value < result.mean_field - 10 * result.variational.stderr
    assert exact - 3 * result.variational.stderr <= result.variational.value <= exact + 0.2
    assert abs(result.reweighted.value - exact) < 4 * result.reweighted.stderr
    lower = result.both_sides.lower_bound
    assert lower.value < exact + 3 * lower.stderr


@pytest.mark.parametrize("bounds", BOUNDS)
def test_resumed_is_uninterrupted_bit_for_bit(tmp_path, bounds):
    whole = RunFolder.create(tmp_path / "whole", small_config(bounds=bounds))
    parts = RunFolder.create(tmp_path / "parts", small_config(bounds=bounds))
    train(whole, device=CPU)
    asked = 0

    def stop_at_seventh():
        nonlocal asked
        asked += 1
        return asked == 7

    assert train(parts, device=CPU, should_stop=stop_at_seventh).outcome is Outcome.INTERRUPTED
    parts.append_metrics({"iteration": 8, "loss": 0.0})  # a line written after the checkpoint, as by a kill
    assert train(RunFolder.open(tmp_path / "parts"), device=CPU).outcome is Outcome.FINISHED
    expected, found = parameters(whole), parameters(parts)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    timeless = [[{k: v for k, v in line.items() if k != "seconds"} for line in run.metrics()] for run in (whole, parts)]
    assert timeless[0] == timeless[1]
    assert [line["iteration"] for line in parts.metrics()] == list(range(1, 13))


def test_same_seed_same_numbers_other_seed_others(tmp_path):
    runs = [RunFolder.create(tmp_path / str(i), small_config(seed=seed)) for i, seed in enumerate((3, 3, 4))]
    for run in runs:
        train(run, device=CPU)
    losses = [[line["loss"] for line in run.metrics()] for run in runs]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_time_limit_ends_early_with_the_rate_annealed_and_can_go_on(tmp_path):
    run = RunFolder.create(tmp_path / "run", small_config(iterations=10**6))
    assert train(run, device=CPU, time_limit=2.0).outcome is Outcome.TIME_LIMIT
    metrics = run.metrics()
    assert 1 < len(metrics) < 10**6
    assert metrics[-1]["learning_rate"] < 0.2 * max(line["learning_rate"] for line in metrics)
    train(RunFolder.open(run.path), device=CPU, time_limit=4.0)
    assert len(run.metrics()) > len(metrics)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    run = RunFolder.create(tmp_path / "run", small_config())
    train(run, device=CPU, should_stop=lambda: True)
    before = parameters(run)
    spoilt = lambda *a: (reverse_kl(*a)[0] * math.nan, torch.full((8,), math.nan))  # noqa: E731
    monkeypatch.setitem(objectives.OBJECTIVES, "total", spoilt)
    with pytest.raises(TrainingDiverged, match="iteration 2"):
        train(RunFolder.open(run.path), device=CPU)
    assert all(torch.equal(before[name], value) for name, value in parameters(run).items())
    assert len(run.metrics()) == 1


def test_a_gradient_that_is_no_number_refines_the_integration(tmp_path, monkeypatch):
    """Before, it ended the training."""

    def coarse_is_spoilt(flow, *given):
        loss, values = reverse_kl(flow, *given)
        return (loss * math.inf if gradient_flows(flow)[0].steps < 11 else loss), values

    monkeypatch.setitem(objectives.OBJECTIVES, "total", coarse_is_spoilt)
    run = RunFolder.create(tmp_path / "run", small_config(iterations=3, check_every=100))
    assert train(run, device=CPU).outcome is Outcome.FINISHED
    assert [line["steps"] for line in run.metrics()] == [16, 16, 16]
    assert all(math.isfinite(line["loss"]) for line in run.metrics())


def test_the_error_is_looked_at_soon_and_less_often_where_it_is_small(tmp_path):
    """A flow changes most at first, and between two checks it could run away from a coarse integration."""
    quiet = RunFolder.create(tmp_path / "quiet", small_config(iterations=60, check_every=40, tolerance=10.0))
    train(quiet, device=CPU)
    assert [line["iteration"] for line in quiet.metrics() if "integration_error_nats" in line] == [5, 15, 35, 40]
    strict = RunFolder.create(tmp_path / "strict", small_config(iterations=16, check_every=40, tolerance=1e-9))
    train(strict, device=CPU)
    assert [line["iteration"] for line in strict.metrics() if "integration_error_nats" in line] == [5, 10, 15]
    assert strict.metrics()[-1]["steps"] > strict.metrics()[0]["steps"]


def test_the_quick_preset_trains_in_the_ordered_phase(tmp_path):
    config = RunConfig.from_preset("quick", square(6), 0.6, iterations=80)
    run = RunFolder.create(tmp_path / "run", replace(config, training=replace(config.training, evaluation_samples=64)))
    train(run, device=CPU)
    gaps = [line["gap_nats"] for line in run.metrics()]
    assert sum(gaps[-10:]) / 10 < gaps[0] / 4


def test_metrics_have_the_contract_s_keys(tmp_path):
    run = RunFolder.create(tmp_path / "run", small_config())
    train(run, device=CPU)
    line = run.metrics()[4]
    assert {
        "iteration",
        "seconds",
        "loss",
        "variational_free_energy",
        "gap_nats",
        "effective_sample_size",
        "learning_rate",
        "integration_error_nats",
    } <= line.keys()
    assert line["integration_error_nats"] >= 0
    assert 0 < line["effective_sample_size"] <= 1


def test_evaluation_has_the_contract_s_keys_and_prints_its_verdict(tmp_path):
    run = RunFolder.create(tmp_path / "run", small_config(tolerance=1e-12))
    train(run, device=CPU)
    result = evaluation.evaluate_target(run, samples=64, device=CPU)
    document = json.loads(json.dumps(result.as_dict()))
    assert {
        "size", "sites", "beta", "samples", "parameters", "training_seconds", "certified", "integration_error_nats",
        "mean_field_free_energy", "variational_free_energy", "exact_free_energy", "gap_nats",
        "reweighted_free_energy", "lower_bound", "effective_sample_size",
    } <= document.keys()  # fmt: skip
    assert document["certified"] is False
    assert "CHECK FAILED" in result.table() and "none of these numbers can be trusted" in result.table()
    assert document["gap_nats"]["value"] == pytest.approx(
        document["variational_free_energy"]["value"] - document["exact_free_energy"]
    )


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path):
    run = RunFolder.create(tmp_path / "run", small_config())
    train(run, device=CPU)
    other = RunFolder(run.path, replace(run.config, flow=replace(SMALL_FLOW, hidden=5)))
    with pytest.raises(CheckpointError, match="does not fit"):
        train(other, device=CPU)


@pytest.mark.parametrize(
    "lattice",
    [square(4, jx=1.0, jy=0.5), square(3, 5), square(3, boundary="open"), triangular(4), edwards_anderson(3, seed=1)],
    ids=str,
)
def test_every_lattice_trains_with_the_symmetry_that_it_has(tmp_path, lattice):
    preset = RunConfig.from_preset("quick", lattice, 0.3)
    config = small_config(
        lattice, 0.3, flow=replace(SMALL_FLOW, potential=preset.flow.potential, hidden=8), iterations=40
    )
    run = RunFolder.create(tmp_path / "run", config)
    train(run, device=CPU)
    result = evaluation.evaluate_target(run, samples=2000, device=CPU)
    assert result.variational.value <= result.mean_field + 3 * result.variational.stderr
    assert result.exact is not None
    assert result.gap.value > -3 * result.gap.stderr - result.integration_error


def test_more_symmetry_than_the_target_has_is_refused():
    target = HubbardStratonovich(square(4, jx=1.0, jy=0.5), 0.4)
    symmetric = HubbardStratonovich(square(4), 0.4)
    flow = build_flow(symmetric, SMALL_FLOW, seed=0)
    from isingflow.lattice.symmetry import require

    with pytest.raises(SymmetryMismatch, match="D4"):
        require(gradient_flows(flow)[0].potential.symmetry, target.symmetry)


@pytest.mark.slow  # two trainings
def test_transport_cost_is_what_the_trajectories_cost_and_its_penalty_lowers_it(tmp_path):
    costs = []
    for index, weight in enumerate((0.0, 1.0)):
        config = small_config(iterations=60, batch=32, learning_rate=2e-2, transport_cost=weight)
        run = RunFolder.create(tmp_path / str(index), config)
        train(run, device=CPU)
        flow = isingflow.load(run.path)
        latent = flow.noise(256, torch.Generator().manual_seed(0))
        field, logdet, cost = flow.forward_with_cost(latent)
        plain_field, plain_logdet = flow(latent)
        assert torch.equal(field, plain_field)
        assert torch.equal(logdet, plain_logdet)
        # Jensen: a path of duration 1 costs at least half the squared distance between its ends.
        start, end = flow.transforms[0](latent)[0], flow.transforms[2].inverse(field)[0]
        distance = (end - start).double().square().flatten(1).sum(1) / 2
        assert torch.all(cost.transport >= distance * (1 - 1e-4))
        costs.append(float(cost.transport.mean()))
    assert costs[1] < 0.8 * costs[0]


def test_force_mismatch_is_zero_at_the_target_and_has_the_right_gradient(monkeypatch):
    """No mismatch if the flow is its own target; elsewhere the surrogate's slope is the true one, to O(PROBE^2)."""
    monkeypatch.setattr(objectives, "PROBE", 1e-3)
    target = HubbardStratonovich(square(3), 0.2)
    flow = distorted_flow(target)
    generator = torch.Generator().manual_seed(2)
    field = flow.sample(4, generator=generator)[0]

    class FlowAsTarget:
        def force(self, x):
            x = x.detach().requires_grad_()
            return torch.autograd.grad(flow.log_prob(x).sum(), x)[0]

    assert force_mismatch(flow, FlowAsTarget(), field).abs().max() < 1e-20

    parameter = gradient_flows(flow)[0].potential.amplitude
    slope = torch.autograd.grad(force_mismatch(flow, target, field).sum(), parameter)[0]
    direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            parameter += sign * 1e-5 * direction
        values.append(float(force_mismatch(flow, target, field).sum().detach()))
        with torch.no_grad():
            parameter -= sign * 1e-5 * direction
    assert float((slope * direction).sum()) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4)


def test_the_distance_of_the_bounds_is_zero_where_the_flow_is_the_target():
    flow = distorted_flow(HubbardStratonovich(square(3), 0.6))
    generator = torch.Generator().manual_seed(3)
    latent, reference = flow.noise(5, generator), flow.sample(5, generator=generator)[0]

    class FlowAsTarget:
        energy = staticmethod(lambda x: 7.0 - flow.log_prob(x))

    loss, values = objectives.both_bounds(flow, FlowAsTarget(), latent, reference, SMALL_TRAINING)
    assert float(loss.detach()) == pytest.approx(0, abs=1e-4)
    torch.testing.assert_close(values, torch.full((5, 2), 7.0, dtype=torch.float64), rtol=0, atol=1e-4)


def test_the_distance_of_the_bounds_is_that_of_the_estimators_and_its_slope_the_true_one():
    target = HubbardStratonovich(square(3), 0.6)
    flow = distorted_flow(target)
    generator = torch.Generator().manual_seed(2)
    latent = flow.noise(6, generator)
    reference = target.sample_field(torch.ones(6, 3, 3, dtype=torch.float64), generator)
    parameter = gradient_flows(flow)[0].potential.amplitude
    loss, _ = objectives.both_bounds(flow, target, latent, reference, SMALL_TRAINING)
    slope = torch.autograd.grad(loss, parameter)[0]

    @torch.no_grad()
    def distance():
        forward = certificate.log_weights(target.energy, *certificate.pushed(flow, latent))
        reverse = certificate.log_weights(target.energy, reference, flow.log_prob(reference))
        return free_energy.variational_free_energy(forward).value - free_energy.lower_bound(reverse).value

    assert float(loss.detach()) == pytest.approx(distance(), abs=1e-9)
    direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            parameter += sign * 1e-5 * direction
        values.append(distance())
        with torch.no_grad():
            parameter -= sign * 1e-5 * direction
    assert float((slope * direction).sum()) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-6)


def test_training_for_both_bounds_lowers_their_distance_and_both_still_hold(tmp_path):
    run = RunFolder.create(tmp_path / "run", small_config(iterations=40, batch=16, learning_rate=2e-2, bounds="both"))
    train(run, device=CPU)
    losses = [line["loss"] for line in run.metrics()]
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    line = run.metrics()[-1]
    assert line["loss"] == pytest.approx(line["variational_free_energy"] - line["lower_bound"])
    result = evaluation.evaluate_target(run, samples=512, reference_samples=512, device=CPU)
    assert result.both_sides.lower_bound.value < result.exact + 3 * result.both_sides.lower_bound.stderr
    assert result.variational.value > result.exact - 3 * result.variational.stderr


@pytest.mark.slow
def test_training_for_both_bounds_finds_what_training_for_one_leaves_out(tmp_path):
    """In the ordered phase the way between the two magnetisations, a percent of the probability, hardly moves the upper
    bound; the lower one feels it."""
    found = {}
    for bounds in BOUNDS:
        settings = {"iterations": 150, "batch": 32, "learning_rate": 2e-2, "bounds": bounds}
        run = RunFolder.create(tmp_path / bounds, small_config(beta=0.6, **settings))
        train(run, device=CPU)
        found[bounds] = evaluation.evaluate_target(run, samples=4096, reference_samples=16384, device=CPU)
    upper, both = found["upper"].both_sides, found["both"].both_sides
    assert both.lower_bound.value > upper.lower_bound.value + 5 * (upper.lower_bound - both.lower_bound).stderr
    assert both.effective_sample_size > 10 * upper.effective_sample_size
    for result in found.values():
        lower = result.both_sides.lower_bound
        assert lower.value < result.exact + 3 * lower.stderr
        assert result.variational.value > result.exact - 3 * result.variational.stderr
    line = run.metrics()[-1]
    assert line["loss"] == pytest.approx(line["variational_free_energy"] - line["lower_bound"])


@pytest.mark.parametrize("transport_cost", [0.0, 0.1])
@pytest.mark.parametrize(
    ("lattice", "flow", "options"),
    [
        (triangular(3), FlowConfig(hidden=4, radial=2, oriented=1, steps=4), {"jitter": 0.3, "recompute": True}),
        (edwards_anderson(3, seed=1), FlowConfig(potential="dense", hidden=8, steps=4), {"jitter": 0.3}),
        (square(3), OTFlowConfig(width=4, steps=3), {"jitter": 0.3}),
        (square(3), ConvexFlowConfig(blocks=2, width=4), {}),
        (square(3, boundary="open"), ConvexFlowConfig(blocks=2, width=4, radial=0, oriented=0), {}),
    ],
    ids=["triangular", "glass", "ot", "convex", "convex, open"],
)
def test_gradients_of_both_bounds_for_every_flow(lattice, flow, options, transport_cost):
    """Forward and backwards, through solvers, jitter and inversions by minimisation, against finite differences."""
    target, generator = HubbardStratonovich(lattice, 0.5), torch.Generator().manual_seed(1)
    model = build_flow(target, flow, seed=1, **options).double().train()
    for transform in model.modules():
        if isinstance(transform, ConvexFlow):
            transform.tolerance = 1e-12
    latent = model.noise(6, generator)
    spins = 2 * torch.randint(2, latent.shape, generator=generator) - 1.0
    reference = target.sample_field(spins.double(), generator)
    parameters = list(model.parameters())
    with torch.no_grad():
        model(latent)
        for parameter in parameters:
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    model.redraw(generator)
    directions = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters]
    settings = replace(SMALL_TRAINING, transport_cost=transport_cost)

    def loss(step):
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter += step * direction
        return objectives.both_bounds(model, target, latent, reference, settings)[0]

    slopes = torch.autograd.grad(loss(0.0), parameters, allow_unused=True)
    slope = sum(float((s * d).sum()) for s, d in zip(slopes, directions, strict=True) if s is not None)
    difference = float(loss(1e-5).detach()) - float(loss(-2e-5).detach())
    assert slope == pytest.approx(difference / 2e-5, rel=1e-6)


def test_other_bounds_are_refused():
    with pytest.raises(InvalidInput, match="bounds is 'lower', expected one of upper, both"):
        small_config(bounds="lower")


def test_force_matching_trains(tmp_path):
    run = RunFolder.create(tmp_path / "run", small_config(iterations=30, force_matching=1.0))
    train(run, device=CPU)
    losses = [line["loss"] for line in run.metrics()]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


@pytest.mark.parametrize("fraction", np.linspace(0, 1, 7))
def test_one_cycle_stays_between_its_ends(fraction):
    assert 1e-3 - 1e-12 <= learning_rate("one-cycle", 1.0, fraction) <= 1.0
    assert learning_rate("constant", 0.5, fraction) == 0.5


def test_step_control_converges_on_an_integrator_of_known_order():
    steps = 4
    for _ in range(20):
        steps = controlled_steps(steps, 50.0 * steps**-4.0, 1e-3, 4)
    assert 1e-3 / 6 <= 50.0 * steps**-4.0 <= 1e-3
    assert controlled_steps(100, math.inf, 1e-3, 4) == 128
    assert controlled_steps(4, 0.0, 1e-3, 4) == 4


@pytest.mark.parametrize("seed", range(25))
def test_the_bound_never_lies_for_wild_flows(seed):
    """Random large parameters and coarse steps: not certified, or a bound."""
    rng = np.random.default_rng(seed)
    target = HubbardStratonovich(square(3), float(rng.uniform(0.1, 1.0)))
    flow = build_flow(target, replace(SMALL_FLOW, steps=int(rng.integers(1, 9))), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    scale = float(10 ** rng.uniform(-2, 0.5))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    assert_honest(flow, target, generator)


@pytest.mark.parametrize("seed", range(25))
def test_the_bound_never_lies_for_flows_trained_to_exploit_the_integrator(tmp_path, seed):
    """A fixed coarse grid, a high rate and no step control: what an optimiser does to an unchecked integrator."""
    rng = np.random.default_rng(100 + seed)
    config = small_config(
        square(3),
        float(rng.uniform(0.2, 0.8)),
        seed=seed,
        flow=replace(
            SMALL_FLOW,
            steps=int(rng.integers(1, 4)),
            tableau=str(rng.choice(["euler", "midpoint", "rk4"])),
            hidden=8,
        ),
        iterations=60,
        batch=32,
        jitter=0.0,
        adapt_steps=False,
        learning_rate=float(10 ** rng.uniform(-2, -0.5)),
        check_every=1000,
    )
    run = RunFolder.create(tmp_path / "run", config)
    try:
        train(run, device=CPU, should_stop=lambda: len(run.metrics()) == 60)
    except TrainingDiverged:
        return
    flow, target, _ = evaluation.load_run(run, CPU)
    assert_honest(flow, target, torch.Generator().manual_seed(seed))


def assert_honest(flow, target, generator):
    exact = target.free_energy(thermodynamics(target.lattice, target.beta).log_z)
    with torch.no_grad():
        latent = flow.noise(2048, generator)
        error = certificate.integration_error(flow, target.energy, latent[:512])
        bound = free_energy.variational_free_energy(
            certificate.log_weights(target.energy, *certificate.pushed(flow, latent))
        )
    if error.value <= TrainingConfig().tolerance:
        assert bound.value + 3 * bound.stderr + error.value >= exact


def test_some_exploiting_flows_do_beat_the_exact_answer_when_unchecked(tmp_path):
    """The test above would be empty if certification were never needed: here it is."""
    beaten = []
    for seed in range(4):
        config = small_config(
            square(3),
            CRITICAL_BETA,
            seed=seed,
            flow=replace(SMALL_FLOW, steps=1, tableau="euler", hidden=8),
            iterations=120,
            batch=32,
            jitter=0.0,
            adapt_steps=False,
            learning_rate=5e-2,
            check_every=1000,
        )
        run = RunFolder.create(tmp_path / str(seed), config)
        train(run, device=CPU, should_stop=lambda run=run: len(run.metrics()) == 120)
        flow, target, _ = evaluation.load_run(run, CPU)
        exact = target.free_energy(thermodynamics(target.lattice, target.beta).log_z)
        with torch.no_grad():
            latent = flow.noise(2048, torch.Generator().manual_seed(0))
            bound = free_energy.variational_free_energy(
                certificate.log_weights(target.energy, *certificate.pushed(flow, latent))
            )
        beaten.append(bound.value + 3 * bound.stderr < exact)
        assert certificate.integration_error(flow, target.energy, latent[:512]).value > TrainingConfig().tolerance
    assert any(beaten)
