"""Free energies of a bridge as an evaluation reports them: which estimate is the best, and when none can be trusted."""

import math

import numpy as np
import pytest
import torch

from isingflow.evaluation.bridging import CHAINS, allowed_r_hat, anneal
from isingflow.evaluation.budget import Budget
from isingflow.flows import Flow
from isingflow.lattice import square
from isingflow.runtime.parallel import Workers
from isingflow.sampling.bridge import Bridge, Plan
from isingflow.statistics.chains import diagnostics
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich


class Stuck(HubbardStratonovich):
    """Half of its chains stay where they begin, at random spins."""

    def reference(self, samples, *, chains, seed):
        states = super().reference(samples, chains=chains, seed=seed)
        states[::2] = torch.randint(2, states[::2, :1].shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
        return states


def annealed(target, *, steps=2, paths=64, seconds=None, seed=0):
    """A bridge from the Gaussian that flows start from."""
    flow = Flow(target.shape, [*target.start().latent, *target.start().field])
    return anneal(
        flow,
        target,
        steps=steps,
        paths=paths,
        generator=torch.Generator().manual_seed(seed),
        seed=seed,
        pool=Workers(1),
        budget=Budget(seconds),
    )


@pytest.mark.parametrize("paths", [2, 16, 200])
def test_chains_are_compared_however_few_the_paths(paths):
    assert annealed(HubbardStratonovich(square(4), 0.4), paths=paths).chains_agree
    stuck = annealed(Stuck(square(4), 0.4), paths=paths)
    assert math.isfinite(stuck.r_hat) and not stuck.chains_agree
    assert "the chains from which paths go back disagree" in stuck.warnings[0]


@pytest.mark.parametrize(("seconds", "planned_on", "paths"), [(None, 512, 200), (1e-6, 128, 64)])
def test_plan_and_paths_shrink_with_the_time(monkeypatch, seconds, planned_on, paths):
    made_of = []

    def plan(self, steps, flow, target, generator):
        made_of.append((len(flow.excess), len(target.excess)))
        return Plan.even(steps)

    monkeypatch.setattr(Bridge, "plan", plan)
    found = annealed(HubbardStratonovich(square(4), 0.4), paths=200, seconds=seconds)
    assert made_of == [(planned_on, planned_on)]
    assert (found.paths, found.reference_paths) == (paths, -(-paths // CHAINS) * CHAINS)
    assert math.isfinite(found.r_hat)


@pytest.mark.parametrize("length", [16, 40, 100])
def test_chains_that_agree_are_believed(length):
    rng = np.random.default_rng(length)
    found = [diagnostics(rng.normal(size=(CHAINS, length))).r_hat for _ in range(100)]
    assert np.mean(np.array(found) > allowed_r_hat(length)) < 0.05
    apart = rng.normal(size=(CHAINS, length)) + rng.normal(size=(CHAINS, 1))
    assert diagnostics(apart).r_hat > allowed_r_hat(length)
