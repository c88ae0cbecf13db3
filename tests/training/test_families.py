"""One flow for all temperatures: what is minimised, that it resumes bit for bit, and what it learns."""

import json
import math

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from small_families import CPU, FLOW, TRAINING, generator, shaken

import isingflow
from isingflow.errors import InvalidInput, RunFolderError
from isingflow.evaluation.families import MEMBERS, evaluate_family
from isingflow.evaluation.files import write_samples
from isingflow.exact import thermodynamics
from isingflow.flows import gradient_flows
from isingflow.flows.certificate import integration_error
from isingflow.lattice import edwards_anderson, square
from isingflow.runs.config import FamilyConfig, RunConfig, config_from_dict
from isingflow.runs.family import SeriesConfig, spread
from isingflow.runs.folder import RunFolder, open_family, open_magnet
from isingflow.runs.overrides import overridden
from isingflow.runtime.parallel import Workers
from isingflow.statistics.estimate import Estimate
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich
from isingflow.training import families, train
from isingflow.training.families import GRID, FamilyProblem, Mixed
from isingflow.training.objectives import path_gradient, reverse_kl
from isingflow.training.progress import Outcome
from isingflow.training.schedules import MIN_STEPS, controlled_steps


def small_config(lattice=None, low=0.1, high=0.4, **settings):
    lattice = square(4) if lattice is None else lattice
    return FamilyConfig(lattice, low, high, "quick", 0, FLOW, replace(TRAINING, **settings), family=SeriesConfig(3, 4))


@pytest.mark.parametrize("gradient", ["total", "path"])
def test_the_loss_is_the_mean_of_those_of_its_members(gradient):
    config = small_config(gradient=gradient)
    problem = shaken(FamilyProblem(config, device=CPU))
    batch = problem.batch(9, generator(1))
    loss, values = problem.objective(batch)
    objective = {"total": reverse_kl, "path": path_gradient}[gradient]
    losses, excess = [], []
    for place, latent in batch.parts:
        beta = problem.points[place]["beta"]
        member, target = problem.flow.at(beta), HubbardStratonovich(config.lattice, beta)
        found = objective(member, target, latent, config.training)
        losses.append(float(found[0].detach()) * len(latent) / 9)
        excess.append(found[1])
    assert float(loss.detach()) == pytest.approx(sum(losses), rel=1e-6)
    torch.testing.assert_close(values[:, 0], torch.cat(excess), rtol=1e-5, atol=1e-4)
    assert values[:, 1].long().tolist() == [place for place, latent in batch.parts for _ in latent]


def test_readings_are_means_over_temperatures_and_the_gap_is_above_zero():
    problem = shaken(FamilyProblem(small_config(), device=CPU))
    with torch.no_grad():
        readings = problem.readings(problem.objective(problem.batch(4096, generator(1)))[1])
    assert readings["gap_nats"] > 0 and 0 < readings["effective_sample_size"] <= 1
    values = torch.tensor([[1.0, 0], [3.0, 0], [-5.0, 7], [-5.0, 7]], dtype=torch.float64)
    found = problem.readings(values)
    assert found["variational_free_energy"] == pytest.approx((2.0 - 5.0) / 2)
    gaps = [2.0 - problem.exact[0], -5.0 - problem.exact[7]]
    assert found["gap_nats"] == pytest.approx(np.mean(gaps))
    exact = thermodynamics(square(4), problem.points[7]["beta"]).log_z
    assert problem.exact[7] == HubbardStratonovich(square(4), problem.points[7]["beta"]).free_energy(exact)


def test_batches_have_samples_of_several_temperatures_and_more_where_the_heat_capacity_is_large():
    problem = FamilyProblem(small_config(low=0.1, high=0.8), device=CPU)
    source = generator(2)
    drawn = [[place for place, _ in problem.batch(8, source).parts] for _ in range(2000)]
    assert all(len(places) == 4 and places == sorted(places) for places in drawn)
    counts = np.bincount(np.ravel(drawn), minlength=GRID)
    assert counts.min() > 0
    betas = [point["beta"] for point in problem.points]
    width = np.gradient(betas)
    density = counts / width / counts.sum()
    capacity = [thermodynamics(square(4), beta).heat_capacity_per_site for beta in betas]
    wanted = (1 / GRID + width * capacity / (width * capacity).sum()) / 2
    assert np.abs(counts / counts.sum() - wanted).max() < 0.02
    assert density[np.argmax(capacity)] > 1.5 * density[GRID // 4]


def test_shares_of_a_batch_are_all_of_it_once():
    parts = tuple((place, torch.full((n, 2), float(place))) for place, n in ((0, 3), (4, 2), (9, 1)))
    batch = Mixed(parts)
    for chunks in (1, 2, 3, 7):
        shares = batch.chunk(chunks)
        assert len(shares) <= chunks and sum(map(len, shares)) == len(batch) == 6
        rows = [(place, len(latent)) for share in shares for place, latent in share.parts]
        assert {place: sum(n for p, n in rows if p == place) for place, _ in rows} == {0: 3, 4: 2, 9: 1}


def test_two_threads_train_as_one(tmp_path):
    problem = shaken(FamilyProblem(small_config(), device=CPU))
    batch, found = problem.batch(9, generator(1)), []
    parameters = list(problem.flow.parameters())

    def gradient(share):
        loss, _ = problem.objective(share)
        return torch.autograd.grad(loss * len(share) / len(batch), parameters)

    for threads in (1, 2):
        shares = Workers(threads).map(gradient, batch)
        found.append([sum(each[1:], each[0]) for each in zip(*shares, strict=True)])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4 * float(one.abs().max()) + 1e-6)


def test_resumed_is_uninterrupted_bit_for_bit(tmp_path):
    config = small_config(gradient="path", jitter=0.3)
    whole, cut = (RunFolder.create(tmp_path / name, config) for name in ("whole", "cut"))
    train(whole, device=CPU)
    seen = []
    train(cut, device=CPU, should_stop=lambda: seen.append(1) or len(seen) == 7)
    assert train(RunFolder.open(cut.path), device=CPU).outcome is Outcome.FINISHED
    first, second = (run.load_checkpoint()[0] for run in (whole, cut))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_the_errors_are_those_of_members_nearest_to_each_end(monkeypatch):
    problem = shaken(FamilyProblem(small_config(low=0.2, high=0.6), device=CPU))
    given, seen = {}, []

    def measured(member, energy, latent, pool):
        beta = betas[len(seen) % len(betas)]
        torch.testing.assert_close(member(latent), problem.flow.at(beta)(latent))
        seen.append(len(latent))
        return Estimate(given.get(beta, 0.1), 0.0)

    monkeypatch.setattr(families, "integration_error", measured)
    betas = spread(0.2, 0.6, families.CHECKED_AT)
    assert problem.errors(200, generator(), Workers(1)) == [0.1, 0.1] and seen == [40] * len(betas)
    given |= {betas[1]: 3.0, betas[-2]: 2.0, betas[-1]: 5.0}
    assert problem.errors(50, generator(), Workers(1)) == [3.0, 5.0]
    given |= {betas[0]: math.nan}
    cold, hot = reversed(problem.errors(50, generator(), Workers(1)))
    assert math.isnan(hot) and cold == 5.0


def test_steps_are_adapted_at_each_end_by_itself():
    problem = FamilyProblem(small_config(), device=CPU)
    gradient = gradient_flows(problem.flow)[0]
    gradient.steps = 20

    def adapted(*errors):
        problem.adapt_steps(torch.tensor(errors, dtype=torch.float64), 0.01)
        return [gradient_flows(problem.flow.at(beta))[0].steps for beta in (0.1, 0.4)]

    assert adapted(1e-9, 0.005) == [controlled_steps(20, 1e-9, 0.01, 4), 20] == [12, 20]
    assert adapted(1e-9, 0.005) == [controlled_steps(12, 1e-9, 0.01, 4), 20] == [8, 20]
    assert adapted(0.005, 1e-9) == [8, 12] and gradient.steps == 12
    assert adapted(0.2, 0.005) == [16, 12] and gradient.steps == 16  # the hot end may need more
    assert adapted(math.inf) == [32, 24]  # one error of all
    for _ in range(40):
        found = adapted(0.0, 0.005)
    assert found == [MIN_STEPS, 24]


def test_a_training_integrates_hot_members_in_fewer_steps_and_all_of_them_well(tmp_path):
    config = small_config(low=0.1, high=0.6, gradient="path", iterations=60, batch=32, learning_rate=5e-3)
    run = RunFolder.create(tmp_path / "run", config)
    train(run, device=CPU)
    family = isingflow.load(run.path)
    steps = [gradient_flows(family.at(beta))[0].steps for beta in (0.1, 0.6)]
    assert steps[0] < steps[1]
    for beta in (0.1, 0.22, 0.34, 0.47, 0.6):
        member, target = family.at(beta), HubbardStratonovich(config.lattice, beta)
        error = integration_error(member, target.energy, member.noise(256, generator(7)))
        assert error.value < config.training.tolerance


def test_a_larger_torus_starts_with_what_the_smaller_family_has_learnt():
    config = small_config(lattice=square(12))
    large, small = (shaken(FamilyProblem(replace(config, lattice=square(n)), device=CPU)) for n in (12, 6))
    small.flow.pace[0] = 0.5
    small.flow.scales.fill_(1)  # as in checkpoints before coefficients were scaled
    large.begin(small.flow)
    assert large.flow.scales[1] == pytest.approx(0.4)
    x = torch.randn(2, 6, 6, generator=generator(4))
    for beta in (0.1, 0.23, 0.4):
        potentials = [problem.flow.at(beta).transforms[1].potential for problem in (small, large)]
        values = potentials[0].value(x, 0.5), potentials[1].value(x.repeat(1, 2, 2), 0.5)
        torch.testing.assert_close(values[1], 4 * values[0], rtol=1e-4, atol=1e-4)
    assert torch.equal(large.flow.pace, small.flow.pace) and large.flow.pace[0] == 0.5
    with pytest.raises(InvalidInput, match="polynomials in beta"):
        large.begin(small.flow.at(0.2))


def test_a_short_training_beats_the_start_at_temperatures_it_never_saw(tmp_path):
    config = replace(
        small_config(gradient="path", iterations=150, batch=32, learning_rate=5e-3), family=SeriesConfig(4, 4)
    )
    run = RunFolder.create(tmp_path / "run", config)
    untrained = FamilyProblem(config, device=CPU).flow
    trained = train(run, device=CPU).flow
    grid = np.array(spread(0.1, 0.4, GRID))
    for beta in (0.137, 0.22, 0.319, 0.393):
        assert np.abs(grid - beta).min() > 1e-4
        target = HubbardStratonovich(square(4), beta)
        gaps = []
        for flow in (untrained.at(beta), trained.at(beta)):
            x, log_prob = flow.sample(2000, generator=generator(6))
            gaps.append(float((log_prob + target.energy(x)).mean()) - target.exact_free_energy()[0])
        assert 0 < gaps[1] < 0.6 * gaps[0]


def test_an_evaluation_lies_within_its_errors_of_the_exact_curves(tmp_path):
    run = RunFolder.create(tmp_path / "run", small_config(iterations=60, batch=32, learning_rate=5e-3, gradient="path"))
    train(run, device=CPU)
    betas = [0.1, 0.25, 0.4]
    found = evaluate_family(run, samples=4096, device=CPU, betas=betas)
    for beta, row in zip(betas, found.samples, strict=True):
        exact = thermodynamics(square(4), beta)
        for name, known in (
            ("log_z_ising", exact.log_z),
            ("energy_per_site", exact.energy_per_site),
            ("heat_capacity_per_site", exact.heat_capacity_per_site),
        ):
            assert abs(row[name]["value"] - known) < 4 * row[name]["stderr"], (beta, name)
        assert row["exact_energy_per_site"] == exact.energy_per_site
        member = open_magnet(row["run"])
        assert member.config.beta == beta and member.report()["gap_nats"] == row["gap_nats"]
        x, log_prob = isingflow.load(row["run"]).sample(4, generator=generator())
        again = isingflow.load(run.path).at(beta=beta).sample(4, generator=generator())
        torch.testing.assert_close((x, log_prob), again)
    assert json.loads(json.dumps(found.as_dict()))["rows"][1]["beta"] == 0.25
    assert found.table().count("\n") == 6


def test_all_temperatures_together_tell_where_the_heat_capacity_is_largest(tmp_path):
    config = small_config(low=0.28, high=0.52, iterations=60, batch=32, learning_rate=5e-3, gradient="path")
    run = RunFolder.create(tmp_path / "run", config)
    train(run, device=CPU)
    found = evaluate_family(run, samples=1000, device=CPU, betas=np.linspace(0.28, 0.52, 8))
    beta, height = found.exact_peak
    grid = np.linspace(beta - 0.01, beta + 0.01, 21)
    near = [thermodynamics(square(4), one).heat_capacity_per_site for one in grid]
    assert grid[np.argmax(near)] == pytest.approx(beta) and max(near) == pytest.approx(height)
    assert abs(found.peak.beta.value - beta) < 4 * found.peak.beta.stderr < 0.2
    assert abs(found.peak.height.value - height) < 4 * found.peak.height.stderr < 0.2
    reported = found.as_dict()["heat_capacity_peak"]
    assert reported["exact_beta"] == beta and reported["beta"] == found.peak.beta.as_dict()
    line = f"largest C/N at beta = {found.peak.beta}: {found.peak.height}; exact: {beta:.5f}, {height:.4f}"
    assert line in found.table()
    few = evaluate_family(run, samples=64, device=CPU, betas=[0.3, 0.4, 0.5])
    assert few.peak is None and few.as_dict()["heat_capacity_peak"] is None and "largest C/N" not in few.table()


def test_the_python_way(tmp_path):
    magnet = isingflow.HubbardStratonovich(square(4), 0.3)
    options = {"progress": False, "iterations": 6}
    trained = isingflow.train(magnet, betas=(0.2, 0.4), output=tmp_path / "run", **options)
    report = isingflow.evaluate(trained, betas=[0.3], samples=64)
    assert [row["beta"] for row in report.as_dict()["rows"]] == [0.3]
    assert (tmp_path / "run" / MEMBERS / "beta-0.3" / "report.json").exists()
    further = isingflow.train(magnet, betas=(0.2, 0.4), start=trained, output=tmp_path / "more", **options)
    assert further.run.config.training.learning_rate == trained.run.config.training.learning_rate / 2
    one = isingflow.train(magnet, start=tmp_path / "run" / MEMBERS / "beta-0.3", output=tmp_path / "one", **options)
    assert one.run.config.kind == "magnet"
    for given, complaint in (
        ({"betas": (0.4, 0.2)}, "smaller to a larger"),
        ({"betas": (0.2,)}, "least and greatest"),
        ({"betas": "0.2:0.4"}, "betas"),
        ({"betas": (0.2, float("nan"))}, "betas"),
        ({"betas": (0.2, 0.4), "bounds": "both"}, "leave out from_beta"),
        ({"betas": (0.2, 0.4), "from_beta": 0.1}, "from_beta"),
        ({"betas": (0.2, 0.4), "objective": reverse_kl}, "objective"),
        ({"betas": (0.2, 0.4), "start": one}, "polynomials in beta"),
    ):
        with pytest.raises(InvalidInput, match=complaint):
            isingflow.train(magnet, output=tmp_path / "bad", **options, **given)
        assert not (tmp_path / "bad").exists()
    with pytest.raises(InvalidInput, match="outside"):
        isingflow.evaluate(trained, betas=[0.3, 0.5])
    with pytest.raises(InvalidInput, match="betas are of a family"):
        isingflow.evaluate(one, betas=[0.3])
    with pytest.raises(InvalidInput, match="choose one"):
        write_samples(trained.run, samples=4, output=tmp_path / "x.npz")
    with pytest.raises(RunFolderError, match="not on a magnet at all temperatures"):
        open_family(one.path)


@pytest.mark.parametrize("size", [8, 16])
@pytest.mark.parametrize("fields", [None, (0, 0.2)])
def test_members_move_a_third_faster_than_a_flow_of_their_own(size, fields):
    family = FamilyConfig.from_preset("quick", square(size), 0.2, 0.5, fields=fields)
    terms, one = [6, 4] if fields else [6], RunConfig.from_preset("quick", square(size), 0.5)
    together = math.prod(sum(0.4**power for power in range(count)) for count in terms)
    for several, single in ((family, one), (family.coarse, one.coarse)):
        if single is not None:
            rate = several.training.learning_rate * together
            assert rate == pytest.approx(4 / 3 * single.training.learning_rate, rel=0.02)


@pytest.mark.parametrize("lattice", [square(4), edwards_anderson(3, seed=0), square(4).with_field(0.1)], ids=str)
def test_configurations_travel_through_json_and_name_their_settings(lattice):
    config = FamilyConfig.from_preset("quick", lattice, 0.2, 0.5, seed=3)
    assert config_from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert isinstance(config.at(0.3), RunConfig)
    changed = overridden(config, {"family.terms": 3, "training.batch": 8})
    assert changed.family.terms == 3 and changed.settings == {"family.terms": 3, "training.batch": 8}
    assert changed.at(0.3).settings == {"training.batch": 8}
    assert changed.new_flow().terms == 3
    for beta in (0.1, 0.6):
        with pytest.raises(InvalidInput, match="outside"):
            config.at(beta)
    with pytest.raises(InvalidInput, match="temperatures"):
        replace(config, training=replace(config.training, batch=1))
