"""The one function that a notebook calls: any target, callbacks, objectives, optimisers, starts; what is refused."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import isingflow
from isingflow.errors import InvalidInput, InvalidTarget, RunFolderError, SymmetryMismatch
from isingflow.flows import Flow, GradientFlow
from isingflow.lattice import CRITICAL_BETA, Group, edwards_anderson, square, triangular
from isingflow.potentials import DensePotential
from isingflow.runs.config import RunConfig
from isingflow.runs.folder import RunFolder
from isingflow.targets import HubbardStratonovich, Phi4, Target
from isingflow.training import Outcome, Plateau, train
from isingflow.training.objectives import reverse_kl
from isingflow.training.train import configured

QUICK = {"iterations": 12, "progress": False, "device": "cpu"}


class Wells(Target):
    """Double wells on a ring."""

    def __init__(self, sites=6, stiffness=0.5):
        super().__init__()
        self.shape, self.stiffness = (sites,), stiffness
        self.symmetry = Group((sites,), translations=True, flip=True)

    def energy(self, x):
        return ((x**2 - 1) ** 2 + self.stiffness / 2 * (x - x.roll(1, -1)) ** 2).sum(-1)


class Tilted(Target):
    """No symmetry at all; a value that a flow can reach: x ~ Normal(m, 1), -ln Z = -(N / 2) ln 2 pi."""

    shape = (4,)

    def energy(self, x):
        return ((x - torch.arange(4.0, dtype=x.dtype, device=x.device)) ** 2).sum(-1) / 2

    def exact_free_energy(self):
        return -2 * math.log(2 * math.pi), "closed form"


@pytest.fixture(scope="module")
def magnet():
    return HubbardStratonovich(square(4), 0.3)


@pytest.fixture(scope="module")
def trained(magnet, tmp_path_factory):
    return train(magnet, output=tmp_path_factory.mktemp("face") / "run", **QUICK | {"iterations": 60})


@pytest.fixture(scope="module")
def wells(tmp_path_factory):
    return train(Wells(), output=tmp_path_factory.mktemp("wells") / "run", **QUICK | {"iterations": 60})


class TestOwnTargets:
    def test_the_run_records_name_and_numbers(self, wells):
        config = json.loads((wells.path / "config.json").read_text())
        assert config["name"] == "Wells" and config["parameters"] == {"stiffness": 0.5}

    def test_evaluation_leaves_out_what_is_unknown(self, wells):
        found = isingflow.evaluate(wells, samples=512, device="cpu")
        document = json.loads(json.dumps(found.as_dict(), allow_nan=False))
        assert found.certified and document["certified"]
        assert {document[key] for key in ("beta", "exact_free_energy", "gap_nats", "lower_bound", "log_z_ising")} == {
            None
        }
        assert document["target"] == {"name": "Wells", "parameters": {"stiffness": 0.5}}
        assert "no samples of its own" in str(found) and "no method known" in str(found)
        assert json.loads((wells.path / "report.json").read_text()) == document

    def test_the_bound_is_above_the_truth(self, wells):
        """-ln Z of the ring by a transfer matrix on a grid: the trace of its sixth power."""
        x = np.linspace(-4, 4, 801)
        site = (x**2 - 1) ** 2 / 2
        matrix = np.exp(-site[:, None] - site - 0.25 * (x[:, None] - x) ** 2) * (x[1] - x[0])
        exact = -math.log(np.trace(np.linalg.matrix_power(matrix, 6)))
        found = isingflow.evaluate(wells, samples=4096, device="cpu")
        assert found.variational.value > exact - 4 * found.variational.stderr
        assert found.reweighted.value == pytest.approx(exact, abs=max(4 * found.reweighted.stderr, 0.01))

    def test_the_flow_loads_without_the_target(self, wells):
        flow = isingflow.load(wells.path)
        z = wells.flow.noise(5)
        torch.testing.assert_close(flow(z), wells.flow(z))

    def test_a_start_comes_back_from_the_checkpoint(self, tmp_path):
        done = train(Phi4(4, mass_squared=-4.0, coupling=6.975), output=tmp_path / "run", **QUICK)
        flow, z = isingflow.load(done.path), done.flow.noise(5)
        torch.testing.assert_close(flow(z), done.flow(z))

    def test_evaluation_from_the_folder_needs_the_target(self, wells):
        with pytest.raises(InvalidInput, match="Wells"):
            isingflow.evaluate(wells.path, device="cpu")
        assert isingflow.evaluate(wells.path, target=Wells(), samples=64, device="cpu").certified

    def test_another_target_than_the_run_s_is_refused(self, wells):
        with pytest.raises(InvalidInput, match=r"stiffness: 0.7 here, 0.5 there"):
            isingflow.evaluate(wells.path, target=Wells(stiffness=0.7), device="cpu")
        with pytest.raises(InvalidInput, match="shape"):
            isingflow.evaluate(wells.path, target=Wells(sites=8), device="cpu")

    def test_figures(self, wells):
        names = {path.name for path in isingflow.plot(wells, samples=64, device="cpu")}
        assert {"training.png", "fields.png", "log_weights.png"} <= names and "gap.png" not in names

    def test_stopped_and_resumed_is_uninterrupted(self, tmp_path):
        whole = train(Wells(), output=tmp_path / "whole", **QUICK)
        asked = iter(range(100))
        part = train(Wells(), output=tmp_path / "part", should_stop=lambda: next(asked) == 4, **QUICK)
        assert part.outcome is Outcome.INTERRUPTED
        again = train(part.run, target=Wells(), device="cpu", progress=False)
        strip = [[{**line, "seconds": 0} for line in done.run.metrics()] for done in (whole, again)]
        assert strip[0] == strip[1]

    def test_without_symmetry_no_potential_claims_any(self, tmp_path):
        done = train(Tilted(), output=tmp_path / "run", **QUICK | {"iterations": 150})
        found = isingflow.evaluate(done, samples=512, device="cpu")
        assert found.certified and found.method == "closed form"
        assert -4 * found.gap.stderr < found.gap.value < 3

    @pytest.mark.parametrize("flow", ["ot", "convex"])
    def test_every_flow(self, flow, tmp_path):
        done = train(Wells(), flow=flow, output=tmp_path / "run", **QUICK)
        assert isingflow.evaluate(done, samples=64, device="cpu").certified

    def test_any_object_will_do(self, tmp_path):
        thing = SimpleNamespace(shape=(3,), energy=lambda x: x.pow(4).sum(-1))
        assert train(thing, output=tmp_path / "run", **QUICK).outcome is Outcome.FINISHED

    @pytest.mark.parametrize(
        "energy, error, message",
        [
            (lambda x: x.sum(), InvalidTarget, "shape"),
            (lambda x: (x - 1).square().sum(-1), SymmetryMismatch, "spin flip"),
            (lambda x: x[:, 0] ** 2, SymmetryMismatch, "translations"),
        ],
    )
    def test_what_breaks_a_law_leaves_no_folder(self, energy, error, message, tmp_path):
        broken = Wells()
        broken.energy = energy
        with pytest.raises(error, match=message):
            train(broken, output=tmp_path / "run", **QUICK)
        assert not (tmp_path / "run").exists()

    def test_both_bounds_need_samples(self, tmp_path):
        with pytest.raises(InvalidInput, match="Wells has no samples of its own"):
            train(Wells(), bounds="both", output=tmp_path / "run", **QUICK)
        assert not (tmp_path / "run").exists()


class TestHooks:
    def test_weak_fields_are_trained_for_both_bounds(self, tmp_path):
        """Unless something else is asked for, or the objective is the user's own."""
        weak, strong = (HubbardStratonovich(square(4), CRITICAL_BETA, field=field) for field in (0.05, 1.0))
        usual = [configured(magnet).training.bounds for magnet in (weak, strong)]
        assert usual == ["both", "upper"]
        assert configured(weak, preset="paper").training.bounds == "upper"
        assert configured(weak, bounds="upper").training.bounds == "upper"
        own = train(weak, objective=reverse_kl, output=tmp_path / "own", iterations=2, progress=False)
        assert own.run.config.training.bounds == "upper"
        with pytest.raises(InvalidInput, match="'both' has one of its own"):
            train(weak, objective=reverse_kl, bounds="both", output=tmp_path / "none", progress=False)
        assert not (tmp_path / "none").exists()

    def test_a_plateau_ends_a_training_as_if_it_were_done(self, magnet, tmp_path):
        stop = Plateau(patience=5)
        done = train(
            magnet, callbacks=[stop], output=tmp_path / "run", **QUICK | {"iterations": 10**6, "learning_rate": 1e-9}
        )
        assert done.outcome is Outcome.STOPPED
        assert 5 <= len(done.run.metrics()) < 1000
        assert done.run.load_checkpoint()[1]["finished"]

    def test_a_callback_sees_every_iteration(self, magnet, tmp_path):
        seen = []
        train(magnet, callbacks=[seen.append], output=tmp_path / "run", **QUICK)
        assert [progress.iteration for progress in seen] == list(range(1, 13))
        assert seen[-1].readings["gap_nats"] > -1

    def test_what_a_callback_raises_is_raised_and_nothing_is_lost(self, magnet, tmp_path):
        def fail(progress):
            if progress.iteration == 7:
                raise ZeroDivisionError("of the user's own")

        with pytest.raises(ZeroDivisionError, match="of the user's own"):
            train(magnet, callbacks=[fail], output=tmp_path / "run", **QUICK)
        run = isingflow.train(magnet, output=tmp_path / "whole", **QUICK).run
        from isingflow.runs.folder import RunFolder

        assert RunFolder.open(tmp_path / "run").load_checkpoint()[1]["iteration"] == 7
        resumed = train(RunFolder.open(tmp_path / "run"), device="cpu", progress=False).run
        losses = [[line["loss"] for line in of.metrics()] for of in (run, resumed)]
        assert losses[0] == losses[1]

    def test_an_objective_of_one_s_own(self, magnet, tmp_path):
        seen = []

        def doubled(flow, target, z, settings):
            loss, excess = reverse_kl(flow, target, z, settings)
            seen.append(len(z))
            return 2 * loss, excess

        runs = [
            train(magnet, output=tmp_path / "a", **QUICK),
            train(magnet, objective=doubled, output=tmp_path / "b", **QUICK),
        ]
        first = [done.run.metrics()[0] for done in runs]
        assert first[1]["loss"] == pytest.approx(2 * first[0]["loss"], rel=1e-12) and len(seen) == 12

    @pytest.mark.parametrize(
        "make",
        [
            lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9),
            lambda p: torch.optim.RMSprop(p, lr=1e-3),
            lambda p: torch.optim.AdamW(p, lr=1e-3),
        ],
    )
    def test_an_optimiser_of_one_s_own_resumes_bit_for_bit(self, make, magnet, tmp_path):
        whole = train(magnet, optimiser=make, output=tmp_path / "whole", **QUICK)
        asked = iter(range(100))
        part = train(magnet, optimiser=make, output=tmp_path / "part", should_stop=lambda: next(asked) == 5, **QUICK)
        again = train(part.run, optimiser=make, device="cpu", progress=False)
        losses = [[line["loss"] for line in done.run.metrics()] for done in (whole, again)]
        assert losses[0] == losses[1]
        assert max(line["learning_rate"] for line in whole.run.metrics()) <= 1e-3

    def test_a_flow_of_one_s_own(self, magnet, tmp_path):
        start = magnet.start()
        potential = DensePotential((4, 4), 8, generator=torch.Generator().manual_seed(0))
        flow = Flow((4, 4), [*start.latent, GradientFlow(potential, steps=5, jitter=0.3), *start.field])
        done = train(magnet, flow=flow, output=tmp_path / "run", **QUICK)
        assert isingflow.evaluate(done, samples=64, device="cpu").certified
        with pytest.raises(InvalidInput, match="flow of your own"):
            isingflow.load(done.path)
        z = flow.noise(3)
        torch.testing.assert_close(isingflow.load(done.path, flow=flow)(z), flow(z))

    def test_a_flow_that_claims_too_much_is_refused(self, tmp_path):
        potential = DensePotential((4,), 8, generator=torch.Generator().manual_seed(0))
        with pytest.raises(SymmetryMismatch, match="too much by the spin flip"):
            train(Tilted(), flow=Flow((4,), [GradientFlow(potential, steps=5)]), output=tmp_path / "run", **QUICK)


class TestStart:
    def test_another_temperature_starts_lower(self, trained, magnet, tmp_path):
        other = magnet.at(beta=0.31)
        warm = train(other, start=trained, output=tmp_path / "warm", **QUICK)
        cold = train(other, output=tmp_path / "cold", **QUICK)
        gaps = [np.mean([line["gap_nats"] for line in done.run.metrics()[:5]]) for done in (warm, cold)]
        assert gaps[0] < gaps[1] / 2

    @pytest.mark.parametrize("give", [lambda t: t, lambda t: t.run, lambda t: t.path, lambda t: str(t.path)])
    def test_any_name_of_a_run_will_do(self, give, trained, magnet, tmp_path):
        done = train(magnet, start=give(trained), output=tmp_path / "run", **QUICK | {"iterations": 1})
        assert done.run.config.flow == trained.run.config.flow

    def test_twice_the_lengths(self, trained, tmp_path):
        large = HubbardStratonovich(square(8), 0.3)
        warm = train(large, start=trained, output=tmp_path / "warm", **QUICK)
        gap = warm.run.metrics()[0]["gap_nats"]
        assert gap < 0.7 * (large.mean_field().free_energy - large.exact_free_energy()[0])

    @pytest.mark.parametrize(
        "lattice", [square(6), triangular(4), square(4, boundary="open"), edwards_anderson(4, seed=0)], ids=str
    )
    def test_another_lattice_is_refused_and_says_what_fits(self, lattice, trained, tmp_path):
        with pytest.raises(InvalidInput, match="what fits is"):
            train(HubbardStratonovich(lattice, 0.3), start=trained, output=tmp_path / "run", **QUICK)
        assert not (tmp_path / "run").exists()

    def test_preset_and_flow_are_the_earlier_run_s(self, trained, magnet, tmp_path):
        with pytest.raises(InvalidInput, match="leave preset and flow out"):
            train(magnet, start=trained, preset="accurate", output=tmp_path / "run", **QUICK)

    def test_no_run_there(self, magnet, tmp_path):
        with pytest.raises(RunFolderError, match="no run folder"):
            train(magnet, start=tmp_path / "nowhere", output=tmp_path / "run", **QUICK)


def test_a_run_from_half_the_lengths_is_evaluated_on_fewer_samples(tmp_path):
    small = RunFolder.create(tmp_path / "small", RunConfig.from_preset("accurate", square(16), 0.4))
    found = [configured(HubbardStratonovich(square(n), 0.4), small).training.evaluation_samples for n in (16, 32)]
    assert found == [16384, 4096]
