"""One flow for all external fields of a range: how members are built, what is minimised, what it learns."""

import json

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from small_families import CPU, FLOW, TRAINING, generator, shaken

import isingflow
from isingflow.architectures.monge_ampere import FlowConfig
from isingflow.architectures.ot_flow import OTFlowConfig
from isingflow.errors import InvalidInput
from isingflow.evaluation.families import evaluate_family
from isingflow.exact import enumeration, thermodynamics
from isingflow.lattice import edwards_anderson, random_field, square
from isingflow.runs.config import FamilyConfig, RunConfig, config_from_dict
from isingflow.runs.family import SeriesConfig, grid, spread
from isingflow.runs.folder import RunFolder, open_magnet
from isingflow.runtime.parallel import Workers
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich
from isingflow.training import train
from isingflow.training.families import GRID, GRID_OF_TWO, FamilyProblem
from isingflow.training.objectives import reverse_kl
from isingflow.training.progress import Outcome

SERIES = SeriesConfig(3, 4, 3)


def small_config(lattice=None, low=0.3, high=0.3, fields=(-0.1, 0.2), flow=FLOW, centred=False, **settings):
    lattice = square(4) if lattice is None else lattice
    training = replace(TRAINING, **settings)
    return FamilyConfig(lattice, low, high, "quick", 0, flow, training, family=SERIES, fields=fields, centred=centred)


def spins_of(sites):
    return 1 - 2 * (np.arange(2**sites)[:, None] >> np.arange(sites) & 1)


def by_hand(lattice, beta, field):
    """ln Z and <m>, of all states one by one."""
    states = spins_of(lattice.sites)
    first, second = lattice.bonds.T
    total = states.sum(1)
    weight = beta * ((states[:, first] * states[:, second]) @ lattice.strengths + field * total)
    shifted = np.exp(weight - weight.max())
    return weight.max() + np.log(shifted.sum()), shifted @ total / shifted.sum() / lattice.sites


@pytest.mark.parametrize(
    "config",
    [
        small_config(),
        small_config(low=0.2),
        small_config(lattice=edwards_anderson(3, seed=1), flow=FlowConfig(potential="local", hidden=2, steps=6)),
        small_config(flow=OTFlowConfig(width=4, steps=6)),
    ],
    ids=["field", "both", "glass", "ot"],
)
def test_a_member_is_the_flow_that_is_built_for_its_field_with_the_same_parameters(config):
    problem = shaken(FamilyProblem(config, device=CPU), by=0.05)
    z = torch.randn(3, *config.lattice.shape, generator=generator(1))
    for field in (-0.1, 0.05, 0.2):
        point = {"beta": config.high, "field": field}
        member = problem.flow.at(**point)
        direct = RunConfig(config.lattice.with_field(field), config.high, "quick", flow=config.flow).new_flow()
        with torch.no_grad():
            for own, learnt in zip(direct.parameters(), member.parameters(), strict=True):
                own.copy_(learnt)
        torch.testing.assert_close(member(z), direct.eval()(z))


def test_at_field_0_a_member_is_of_the_same_make_and_as_close_to_its_neighbours_as_they_to_each_other():
    config = small_config()
    problem = shaken(FamilyProblem(config, device=CPU))
    z = torch.randn(64, 4, 4, generator=generator(1))
    assert config.at(field=0.0).lattice.field is None and not config.at(field=0.0).domain.even
    below, none, above = (problem.flow.at(field=field)(z)[0] for field in (-1e-3, 0.0, 1e-3))
    assert (above - below).abs().max() > 0
    torch.testing.assert_close(none, (below + above) / 2, rtol=0, atol=1e-2 * float((above - below).abs().max()) + 1e-5)
    assert (none + problem.flow.at(field=0.0)(-z)[0]).abs().max() > 0.01  # not odd, as a flow with Z2 would be


def test_the_loss_is_the_mean_of_those_of_its_members_at_both_parameters():
    config = small_config(low=0.2, high=0.4, gradient="total")
    problem = shaken(FamilyProblem(config, device=CPU))
    assert len(problem.points) == GRID_OF_TWO**2
    batch = problem.batch(9, generator(1))
    loss, values = problem.objective(batch)
    losses = []
    for place, latent in batch.parts:
        point = problem.points[place]
        target = HubbardStratonovich(square(4).with_field(point["field"]), point["beta"])
        found, excess = reverse_kl(problem.flow.at(**point), target, latent, config.training)
        losses.append(float(found.detach()) * len(latent) / 9)
        torch.testing.assert_close(values[values[:, 1] == place, 0], excess, rtol=1e-5, atol=1e-4)
    assert float(loss.detach()) == pytest.approx(sum(losses), rel=1e-6)
    place = problem.points.index({"beta": 0.4, "field": 0.2})
    log_z, _ = by_hand(square(4), 0.4, 0.2)
    assert problem.exact[place] == pytest.approx(HubbardStratonovich(square(4), 0.4).free_energy(log_z), abs=1e-9)
    assert [point for point, _ in problem._checked] == grid(config.ranges, 3)
    assert len(problem.errors(9, generator(), Workers(1))) == len(problem.flow.pace) == 4


def test_batches_have_more_samples_where_the_susceptibility_is_large():
    problem = FamilyProblem(small_config(low=0.5, high=0.5, fields=(-0.4, 0.4), centred=True), device=CPU)
    source = generator(2)
    drawn = [[place for place, _ in problem.batch(8, source).parts] for _ in range(2000)]
    counts = np.bincount(np.ravel(drawn), minlength=GRID)
    fields = np.array([point["field"] for point in problem.points])
    spins = [thermodynamics(square(4), 0.5, field).magnetisation_per_site for field in fields]
    change = np.gradient(spins, fields) * np.gradient(fields)
    wanted = (1 / GRID + change / change.sum()) / 2
    assert np.abs(counts / counts.sum() - wanted).max() < 0.02 and wanted.max() > 2.5 / GRID


@pytest.mark.parametrize("low", [0.3, 0.2])
def test_resumed_is_uninterrupted_bit_for_bit(tmp_path, low):
    config = small_config(low=low, gradient="path", jitter=0.3)
    whole, cut = (RunFolder.create(tmp_path / name, config) for name in ("whole", "cut"))
    train(whole, device=CPU)
    seen = []
    train(cut, device=CPU, should_stop=lambda: seen.append(1) or len(seen) == 7)
    assert train(RunFolder.open(cut.path), device=CPU).outcome is Outcome.FINISHED
    first, second = (run.load_checkpoint()[0] for run in (whole, cut))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A short training on 4x4, a range with 0 inside."""
    config = small_config(gradient="path", iterations=150, batch=32, learning_rate=5e-3)
    run = RunFolder.create(tmp_path_factory.mktemp("fields") / "run", config)
    return train(run, device=CPU)


UNSEEN = (-0.077, 0.0123, 0.11, 0.187)


@pytest.mark.parametrize("field", UNSEEN)
def test_the_bound_holds_at_fields_never_seen_and_is_narrower_than_mean_field(trained, field):
    assert np.abs(np.array(spread(-0.1, 0.2, GRID)) - field).min() > 5e-4
    target = HubbardStratonovich(square(4), 0.3, field=field)
    exact = target.free_energy(by_hand(square(4), 0.3, field)[0])
    x, log_prob = trained.flow.at(field=field).sample(4000, generator=generator(6))
    values = log_prob.double() + target.energy(x.double())
    gap, error = float(values.mean()) - exact, float(values.std()) / 4000**0.5
    assert gap > -4 * error
    assert gap + 4 * error < 0.6 * (target.mean_field().free_energy - exact)


def test_an_evaluation_lies_within_its_errors_of_enumeration(trained):
    fields = [-0.077, 0.0, 0.11, 0.2]
    found = evaluate_family(trained.run, samples=8192, device=CPU, fields=fields)
    for field, row in zip(fields, found.samples, strict=True):
        log_z, spins = by_hand(square(4), 0.3, field)
        assert row["field"] == field and row["beta"] == 0.3
        assert row["exact_log_z"] == pytest.approx(log_z) and row["exact_magnetisation"] == pytest.approx(spins)
        for name, known in (("log_z_ising", log_z), ("magnetisation", spins)):
            estimate = row[name]
            assert 0 < estimate["stderr"] < 0.03 and abs(estimate["value"] - known) < 4 * estimate["stderr"], name
        free = row["free_energy_ising_per_site"]
        assert abs(free["value"] + log_z / 0.3 / 16) < 4 * free["stderr"]
    step = 1e-4
    slope = (by_hand(square(4), 0.3, 0.11 + step)[0] - by_hand(square(4), 0.3, 0.11 - step)[0]) / (2 * step * 0.3 * 16)
    assert found.points[2].evaluation.exact_spins.magnetisation_per_site == pytest.approx(slope, rel=1e-6)
    table = found.table()
    assert table.count("\n") == 7 and "field = -0.1 to 0.2, beta = 0.3" in table and " m " in table.splitlines()[2]
    document = json.loads(json.dumps(found.as_dict()))
    assert document["fields"] == [-0.1, 0.2] and document["low"] == document["high"] == 0.3


def test_members_are_runs_that_load_as_the_family_has_them_also_at_field_0(trained):
    found = evaluate_family(trained.run, samples=256, device=CPU, fields=[0.0, 0.1])
    for row in found.samples:
        member = open_magnet(row["run"])
        assert member.path.name == f"field-{row['field']:g}" and member.config.made_for == "fields"
        loaded = isingflow.load(row["run"]).sample(4, generator=generator())
        for flow in (
            isingflow.load(trained.path).at(field=row["field"]),
            trained.flow.at(beta=0.3, field=row["field"]),
        ):
            torch.testing.assert_close(loaded, flow.sample(4, generator=generator()), rtol=0, atol=0)
    assert open_magnet(found.samples[0]["run"]).config.lattice == square(4)


def test_the_flow_of_field_0_starts_a_run_of_its_own(trained, tmp_path):
    start = evaluate_family(trained.run, samples=256, device=CPU, fields=[0.0]).samples[0]["run"]
    magnet = HubbardStratonovich(square(4), 0.3)
    further = isingflow.train(magnet, start=start, iterations=3, output=tmp_path / "one", progress=False)
    assert further.run.config.made_for == "fields"
    assert isingflow.load(further.path).parameter_count == further.flow.parameter_count


def test_a_larger_torus_starts_with_what_the_smaller_family_has_learnt():
    config = small_config(lattice=square(12))
    large, small = (shaken(FamilyProblem(replace(config, lattice=square(n)), device=CPU)) for n in (12, 6))
    large.begin(small.flow)
    x = torch.randn(2, 6, 6, generator=generator(4))
    for field in (-0.1, 0.0, 0.2):
        potentials = [problem.flow.at(field=field).transforms[1].potential for problem in (small, large)]
        values = potentials[0].value(x, 0.5), potentials[1].value(x.repeat(1, 2, 2), 0.5)
        torch.testing.assert_close(values[1], 4 * values[0], rtol=1e-4, atol=1e-4)
    other = FamilyProblem(replace(config, lattice=square(6), low=0.2), device=CPU)
    with pytest.raises(InvalidInput, match="1 polynomials in beta times 3 polynomials in field"):
        large.begin(other.flow)


def test_large_tori_are_trained_up_from_half_the_lengths():
    config = FamilyConfig.from_preset("quick", square(16), 0.2, 0.2, fields=(0, 0.1))
    assert config.coarse is not None and (config.coarse.lattice, config.coarse.fields) == (square(8), (0.0, 0.1))


def test_all_members_are_centred_where_the_field_is_too_weak_to_decide_somewhere():
    decided, weak = (FamilyConfig.from_preset("quick", square(8), beta, beta, fields=(0, 0.2)) for beta in (0.3, 0.42))
    assert (decided.centred, weak.centred) == (False, True)
    assert not FamilyConfig.from_preset("quick", square(8), 0.42, 0.42, fields=(0.2, 0.4)).centred
    assert not HubbardStratonovich(
        square(8), 0.42, field=0.2
    ).undecided  # but for its neighbours it would not be centred
    for config, mean in ((decided, True), (weak, False)):
        x, _ = config.new_flow().at(field=0.2).sample(512, generator=generator())
        assert (float(x.mean()) > 0.3) is mean
    assert weak.at(field=0.2).made_for == "weak fields"


@pytest.mark.parametrize("lattice", [square(4), edwards_anderson(3, seed=0)], ids=str)
@pytest.mark.parametrize("low", [0.2, 0.5])
def test_configurations_travel_through_json_and_name_their_settings(lattice, low):
    config = FamilyConfig.from_preset("quick", lattice, low, 0.5, fields=(0, 0.3), seed=3)
    assert config_from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert config.flow.products == 0
    changed = replace(config, family=SeriesConfig(3, 4, 2))
    assert changed.new_flow().terms == (6 if low < 0.5 else 2)
    member = config.at(beta=0.5, field=0.1)
    assert (member.beta, member.lattice) == (0.5, lattice.with_field(0.1))
    assert RunConfig.from_dict(json.loads(json.dumps(member.to_dict()))) == member
    for point in ({"beta": 0.5, "field": 0.4}, {"beta": 0.6, "field": 0.1}, {"beta": 0.5, "field": -0.1}):
        with pytest.raises(InvalidInput, match=r"outside of what the family was trained for: expected 0"):
            config.at(**point)
    with pytest.raises(InvalidInput, match=r"field is missing: expected 0 to 0\.3"):
        config.at(beta=0.5)
    for wrong in ({"fields": (0.3, 0.3)}, {"fields": (0.3, 0.1)}, {"lattice": lattice.with_field(0.1)}, {"low": 0.6}):
        with pytest.raises(InvalidInput):
            replace(config, **wrong)
    with pytest.raises(InvalidInput, match="centred"):
        replace(config, fields=None, low=0.2, centred=True)


def test_the_python_way(tmp_path):
    magnet = isingflow.HubbardStratonovich(square(4), 0.3, field=0.5)
    options = {"progress": False, "iterations": 4}
    trained = isingflow.train(magnet, fields=(0, 0.2), output=tmp_path / "run", **options)
    assert "field = 0 to 0.2, beta = 0.3" in str(trained)
    report = isingflow.evaluate(trained, fields=[0.1], samples=64)
    assert [(row["beta"], row["field"]) for row in report.as_dict()["rows"]] == [(0.3, 0.1)]
    both = isingflow.train(magnet, betas=(0.2, 0.3), fields=(0, 0.2), output=tmp_path / "both", **options)
    rows = isingflow.evaluate(both, betas=[0.2, 0.25], fields=[0.0, 0.1, 0.2], samples=32).as_dict()["rows"]
    assert [(row["beta"], row["field"]) for row in rows] == [(b, h) for b in (0.2, 0.25) for h in (0.0, 0.1, 0.2)]
    assert (both.path / "members" / "beta-0.25-field-0.1" / "report.json").exists()
    assert isingflow.load(both.path).at(beta=0.22, field=0.1).sample(3)[0].shape == (3, 4, 4)
    assert {path.name for path in isingflow.plot(both)} >= {"temperatures.png", "fields.png"}
    further = isingflow.train(magnet, fields=(0, 0.2), start=trained, output=tmp_path / "more", **options)
    assert further.run.config.training.learning_rate == trained.run.config.training.learning_rate / 2
    random = isingflow.HubbardStratonovich(random_field(square(4), 0.3, seed=1), 0.3)
    for what, given, complaint in (
        (magnet, {"fields": (0.2, 0)}, "smaller to a larger"),
        (magnet, {"fields": (0, 0)}, "smaller to a larger"),
        (magnet, {"fields": (0.2,)}, "least and greatest"),
        (magnet, {"fields": "0:0.2"}, "fields"),
        (magnet, {"fields": (0, float("nan"))}, "fields"),
        (magnet, {"betas": (0.3, 0.3), "fields": (0, 0.2)}, "betas"),
        (magnet, {"fields": (0, 0.2), "bounds": "both"}, "leave out from_beta"),
        (magnet, {"fields": (0, 0.2), "from_beta": 0.1}, "from_beta"),
        (magnet, {"fields": (0, 0.2), "objective": reverse_kl}, "objective"),
        (magnet, {"fields": (0, 0.2), "start": both}, "polynomials in beta"),
        (random, {"fields": (0, 0.2)}, "uniform"),
        (isingflow.targets.Phi4(4, mass_squared=1.0, coupling=1.0), {"fields": (0, 0.2)}, "of magnets"),
        (trained.run, {"fields": (0, 0.2)}, "fields are for a new run"),
    ):
        with pytest.raises(InvalidInput, match=complaint):
            isingflow.train(what, output=tmp_path / "bad", **options, **given)
        assert not (tmp_path / "bad").exists()
    for run, given, complaint in (
        (trained, {"fields": [0.3]}, "field 0.3 is outside"),
        (trained, {"betas": [0.2]}, "beta 0.2 is outside of what the family was trained for: expected 0.3"),
        (trained, {"fields": []}, "without entries"),
        (tmp_path / "run" / "members" / "field-0.1", {"fields": [0.1]}, "fields are of a family"),
    ):
        with pytest.raises(InvalidInput, match=complaint):
            isingflow.evaluate(run, samples=32, **given)


def test_exact_magnetisation_by_hand_is_that_of_the_package():
    couplings = square(3).couplings(0.3)
    log_z, _, _, total = enumeration.polarised(couplings, np.full(9, 0.03))
    assert by_hand(square(3), 0.3, 0.1) == pytest.approx((log_z, total / 9))
