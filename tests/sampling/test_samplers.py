"""Laws of every sampler, on a magnet and on a target of which nothing but its energy is known."""

import numpy as np
import pytest
import torch
from sampling_cases import SAMPLERS, Wells, generator, magnet, random_flow, same, wrong_gaussian
from scipy.integrate import quad

from isingflow.errors import InvalidInput
from isingflow.evaluation.chains import chains_report
from isingflow.exact import moments, thermodynamics
from isingflow.flows import Flow
from isingflow.lattice import edwards_anderson, from_graph, square
from isingflow.monte_carlo import simulate
from isingflow.observables import measure
from isingflow.sampling import BlockGibbs, Chains, FlowMetropolis, latent, physical, run_chains, sample_chains
from isingflow.sampling.latent import LatentHamiltonianMonteCarlo
from isingflow.statistics.mixing import Mixing
from isingflow.targets.base import GibbsSampled
from isingflow.testing import check_sampler
from isingflow.testing.samplers import SAMPLER_LAWS

OF_WELLS = {
    "physical": lambda target: physical(target),
    "latent": lambda target: latent(Flow(target.shape, []), target),
    "latent, guided": lambda target: latent(Flow(target.shape, []), target, guided=True),
    "flow as proposal": lambda target: FlowMetropolis(Flow(target.shape, []), target),
}
LAWS = {f"magnet, {name}": lambda make=make: make(magnet(0.3)) for name, make in SAMPLERS.items()}
LAWS |= {f"wells, {name}": lambda make=make: make(Wells()) for name, make in OF_WELLS.items()}
every_sampler = pytest.mark.parametrize("make", LAWS.values(), ids=LAWS)


def positions_of(sampler, field):
    """Where the chains of a sampler are when the field is this."""
    if hasattr(sampler, "flow"):
        return sampler.flow.inverse(field)[0]
    if hasattr(sampler, "variances"):
        return sampler.basis.multiply(field, sampler.variances.rsqrt())
    return field


def exact_fields(target, count):
    """Independent samples: of a magnet by Monte Carlo of its spins, of wells by rejection."""
    if not isinstance(target, Wells):
        spins = torch.from_numpy(simulate(target.lattice, target.beta, samples=1, chains=count, seed=5).spins[:, 0])
        return target.sample_field(spins.float(), generator(6))
    kept, source = torch.empty(0), generator(6)
    while len(kept) < count * target.sites:
        x = 6 * torch.rand(10**5, generator=source) - 3
        bound = torch.exp(-target.energy(x[:, None]) - 0.4)
        kept = torch.cat([kept, x[torch.rand(10**5, generator=source) < bound]])
    return kept[: count * target.sites].view(count, *target.shape)


# --- laws


@every_sampler
def test_samplers_keep_the_laws(make):
    """The target is left as it is, steps are pure, saved states go on: from exact samples, in the flow's own space."""
    sampler = make()
    # What a latent sampler reports are accepted trajectories; the sweep after each moves the other chains too.
    swept = isinstance(sampler, LatentHamiltonianMonteCarlo) and isinstance(sampler.target, GibbsSampled)
    laws = [law for law in SAMPLER_LAWS if not (swept and law == "moves")]
    positions = positions_of(sampler, exact_fields(sampler.target, 2000))
    check_sampler(make, sampler.target, positions, steps=4, laws=laws)


@every_sampler
def test_settings_are_frozen_and_adapting_changes_no_argument(make):
    sampler = make()
    settings = dict(vars(sampler))
    state = sampler.init(torch.randn(5, *sampler.shape, generator=generator()))
    before = {name: tensor.clone() for name, tensor in state.tensors().items()}
    sampler.adapt(*sampler.step(state, generator(1)), 2, 8)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.tensors().items())
    assert vars(sampler) == settings
    with pytest.raises(AttributeError):
        sampler.target = None


@every_sampler
def test_rows_of_a_state_are_its_chains(make):
    sampler = make()
    state = sampler.init(torch.randn(5, *sampler.shape, generator=generator()))
    rows = torch.tensor([3, 1])
    taken = state.take(rows)
    for name in state.names(shared=False):
        assert torch.equal(getattr(taken, name), getattr(state, name)[rows])
    for name in state.names(shared=True):
        assert getattr(taken, name) is getattr(state, name)
    back = state.put(rows, taken)
    assert all(torch.equal(tensor, getattr(back, name)) for name, tensor in state.tensors().items())


@every_sampler
@pytest.mark.parametrize("stops", [(20,), (2, 9, 15)], ids=str)
def test_chains_continue_bit_for_bit(make, stops, tmp_path):
    """However often they were interrupted, also in the warm-up, and saved to disk."""
    path = tmp_path / "chains.npz"
    options = {"chains": 6, "warm_up": 11, "every": 2, "seed": 5, "identity": {"run": {"beta": 0.44}}}
    whole, earlier = run_chains(make(), samples=10, **options), None
    same(run_chains(make(), samples=10, **options), whole)
    for stop in stops:
        seen = []
        partial = run_chains(
            make(),
            samples=10,
            earlier=earlier,
            report_progress=lambda done, total, seen=seen: seen.append((done, total)),
            should_stop=lambda stop=stop, seen=seen: bool(seen) and seen[-1][0] == stop,
            **options,
        )
        assert seen[-1] == (stop, 31) and partial.steps == stop and partial.samples == max(0, stop - 11) // 2
        partial.save(path)
        earlier = Chains.read(path)
        same(earlier, partial)
    same(run_chains(make(), samples=10, earlier=earlier, **options), whole)


# --- what chains converge to


CASES = [(name, wrong_gaussian, beta) for name in SAMPLERS for beta in (0.2, 0.44, -0.3)]
CASES += [(name, random_flow, 0.2) for name in ("latent", "latent, guided", "flow as proposal")]


@pytest.mark.parametrize(("name", "flow", "beta"), CASES)
def test_averages_are_exact_whatever_the_flow(name, flow, beta):
    target = magnet(beta)
    samples, warm_up = (50, 40) if flow is random_flow or name in ("physical", "latent, guided") else (300, 150)
    chains = run_chains(SAMPLERS[name](target, flow), samples=samples, chains=128, warm_up=warm_up, seed=3)
    found = measure(target.lattice, beta, field=chains.field, spins=chains.spins)
    exact = thermodynamics(target.lattice, beta)
    magnetisation = moments(target.lattice, beta)
    assert abs(found.energy_per_site.value - exact.energy_per_site) < 4 * found.energy_per_site.stderr
    for quantity in ("magnetisation_squared", "magnetisation_fourth", "magnetisation_abs"):
        estimate = getattr(found, quantity)
        assert abs(estimate.value - getattr(magnetisation, quantity)) < 4 * estimate.stderr, quantity
    assert found.energy_per_site.stderr < 0.04


@pytest.mark.parametrize(
    "lattice", [edwards_anderson(4, seed=1), square(3, 4, boundary="open"), "graph"], ids=["glass", "open", "graph"]
)
def test_physical_space_of_any_lattice(lattice):
    if lattice == "graph":
        import networkx

        lattice = from_graph(networkx.petersen_graph())
    chains = run_chains(physical(magnet(0.4, lattice)), samples=150, chains=64, warm_up=80, seed=1)
    found = measure(lattice, 0.4, field=chains.field).energy_per_site
    assert abs(found.value - thermodynamics(lattice, 0.4).energy_per_site) < 4 * found.stderr < 0.1


@pytest.mark.parametrize("name", OF_WELLS)
def test_any_target_against_quadrature(name):
    """A tilted double well, of which a sampler knows the energy only: every site is an integral over one x."""
    target = Wells()
    chains = run_chains(OF_WELLS[name](target), samples=300, chains=64, warm_up=150, seed=2)
    assert chains.spins is None and chains.lattice is None and chains.title == "Wells, tilt = 0.3, 2"

    def average(function):
        weight = lambda x: np.exp(-((x**2 - 1) ** 2) - target.tilt * x)  # noqa: E731
        return quad(lambda x: function(x) * weight(x), -6, 6)[0] / quad(weight, -6, 6)[0]

    mean, square = average(lambda x: x), average(lambda x: x * x)
    exact = {
        "energy": average(lambda x: (x**2 - 1) ** 2 + target.tilt * x),
        "field_squared": square,
        "magnetisation_squared": square / 2 + mean**2 / 2,
    }
    report = chains_report(chains, target=target)
    assert report.mixing.keys() == exact.keys()
    for quantity, value in exact.items():
        found = report.mixing[quantity].mean
        assert abs(found.value - value) < 4 * found.stderr < 0.05, quantity
    mixing = Mixing.of(chains.field.mean(-1))
    assert abs(mixing.mean.value - mean) < 4 * mixing.mean.stderr
    assert "Wells, tilt = 0.3, 2: 64 chains of 300 samples" in str(report)
    assert chains_report(chains).warnings[0] == "no energy: it can be measured only where the target is given"


def test_chains_of_any_target_in_a_file(tmp_path):
    options = {"space": "physical", "chains": 4, "warm_up": 10, "output": tmp_path / "wells.npz"}
    sample_chains(None, Wells(), samples=3, **options)
    longer = sample_chains(None, Wells(), samples=9, resume=True, **options)
    del options["output"]
    same(longer, sample_chains(None, Wells(), samples=9, **options))
    same(longer, Chains.read(tmp_path / "wells.npz"))
    with pytest.raises(InvalidInput, match="exists already; resume the chains in it"):
        sample_chains(None, Wells(), samples=9, output=tmp_path / "wells.npz", **options)
    with pytest.raises(InvalidInput, match="to resume chains, give the file"):
        sample_chains(None, Wells(), samples=9, resume=True, **options)
    stopped = sample_chains(None, Wells(), samples=9, should_stop=lambda: True, **options)
    with pytest.raises(InvalidInput, match="stopped before their first sample"):
        chains_report(stopped)
    with pytest.raises(InvalidInput, match=r"'Wells, tilt = 0\.3, 2' there"):
        options["output"] = tmp_path / "wells.npz"
        sample_chains(None, Wells(tilt=0.4), samples=9, resume=True, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": "gibbs"}, "Wells, tilt = 0.3, 2 has no move of its own"),
        ({"sampler": "metropolis"}, "the sampler metropolis needs a flow"),
        ({"space": "latent"}, "the sampler hmc in latent space needs a flow"),
        ({}, "space: expected latent or physical for the sampler hmc"),
        ({"space": "outer"}, "space outer: expected latent or physical for the sampler hmc"),
        ({"sampler": "gibbs", "space": "latent"}, "space latent: does not go with the sampler gibbs: leave it out"),
        ({"sampler": "nuts"}, "sampler is 'nuts', expected hmc, metropolis or gibbs"),
    ],
)
def test_what_does_not_go_together_is_refused(options, message):
    with pytest.raises(InvalidInput, match=message):
        sample_chains(None, Wells(), chains=2, samples=2, **options)
    with pytest.raises(InvalidInput, match="has no move of its own"):
        BlockGibbs(Wells())
