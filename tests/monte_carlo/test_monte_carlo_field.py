"""Monte Carlo in a field, by all samplers, against enumeration."""

import numpy as np
import pytest

from isingflow.errors import InvalidInput
from isingflow.exact import moments, thermodynamics
from isingflow.lattice import edwards_anderson, random_field, square
from isingflow.monte_carlo import SAMPLERS, simulate

CHAINS = 48
STAGGERED = np.where(np.indices((4, 2)).sum(0) % 2, 0.4, -0.4)
ALIGNED = {
    "uniform": (square(3).with_field(0.2), 0.5),
    "strong and down": (square(3, boundary="open").with_field(-1.5), 0.4),
    "on one site": (square(3).with_field(np.diag([0.0, 0.0, 0.6])), 0.4),
    "staggered": (square(4, 2, jx=-1, jy=-1, boundary="open").with_field(STAGGERED), 0.5),
}
FRUSTRATED = {
    "random": (random_field(square(3), 0.6, seed=1), 0.5),
    "glass": (edwards_anderson(3, seed=0).with_field(0.3), 0.5),
    "antiferromagnet": (square(2, 4).with_field(0.5), -0.4),
}
LOCAL = [name for name in SAMPLERS if name not in ("wolff", "swendsen-wang")]


@pytest.mark.parametrize(
    ("name", "sampler"),
    [*((name, s) for name in ALIGNED for s in SAMPLERS), *((name, s) for name in FRUSTRATED for s in LOCAL)],
)
def test_against_enumeration(name, sampler):
    of, beta = (ALIGNED | FRUSTRATED)[name]
    found = simulate(of, beta, samples=400, chains=CHAINS, sampler=sampler, thermalise=100, seed=1, threads=1)
    solution, moment = thermodynamics(of, beta), moments(of, beta)
    spins = found.spins.reshape(CHAINS, -1, of.sites).astype(float)
    np.testing.assert_allclose(found.magnetisation, spins.mean(-1))
    bonds = (of.strengths * spins[..., of.bonds[:, 0]] * spins[..., of.bonds[:, 1]]).sum(-1)
    np.testing.assert_allclose(found.energy, -bonds - spins @ of.field_by_site.ravel(), atol=1e-12)
    for values, exact in (
        (found.energy / of.sites, solution.energy_per_site),
        (found.magnetisation, solution.magnetisation_per_site),
        (found.magnetisation**2, moment.magnetisation_squared),
    ):
        means = values.mean(1)
        assert abs(means.mean() - exact) < 4 * means.std(ddof=1) / np.sqrt(CHAINS)


def test_what_is_chosen():
    for of, beta in ALIGNED.values():
        assert simulate(of, beta, samples=2, chains=2, thermalise=1).sampler == "swendsen-wang"
    for of, beta in FRUSTRATED.values():
        assert simulate(of, beta, samples=2, chains=2, thermalise=1).sampler == "tempering"


@pytest.mark.parametrize("sampler", ["wolff", "swendsen-wang"])
@pytest.mark.parametrize("name", FRUSTRATED)
def test_clusters_are_refused_where_the_field_frustrates(name, sampler):
    of, beta = FRUSTRATED[name]
    with pytest.raises(InvalidInput, match=r"couplings and the external field are frustrated .* use one of metropolis"):
        simulate(of, beta, samples=2, sampler=sampler)
