"""Gray-code enumeration against NumPy's explicit sum, and closed forms."""

import math

import numpy as np
import pytest

from isingflow.errors import InvalidInput, NoExactSolution
from isingflow.exact import enumeration


def explicit(couplings, fields):
    spins = len(couplings)
    states = 1.0 - 2.0 * ((np.arange(2**spins)[:, None] >> np.arange(spins)) & 1)
    exponent = 0.5 * np.einsum("ni,ij,nj->n", states, couplings, states) + states @ fields
    weights = np.exp(exponent - exponent.max())
    mean = np.average(exponent, weights=weights)
    return exponent.max() + math.log(weights.sum()), mean, np.average((exponent - mean) ** 2, weights=weights)


@pytest.mark.parametrize("spins", [1, 2, 3, 7, 12])
@pytest.mark.parametrize("with_fields", [False, True])
def test_random_graphs(spins, with_fields):
    random = np.random.default_rng(spins)
    couplings = random.normal(size=(spins, spins)) * (random.random((spins, spins)) < 0.6)
    couplings = couplings + couplings.T
    fields = random.normal(size=spins) * with_fields
    actual = enumeration.solve(couplings, fields if with_fields else None)
    assert actual == pytest.approx(explicit(couplings, fields), rel=1e-12, abs=1e-14)


def test_free_spins_in_fields():
    fields = np.array([0.3, -1.2, 40.0, 0.0])
    log_z, mean, variance = enumeration.solve(np.zeros((4, 4)), fields)
    assert log_z == pytest.approx(np.logaddexp(fields, -fields).sum(), rel=1e-14)
    assert mean == pytest.approx((fields * np.tanh(fields)).sum(), rel=1e-14)
    assert variance == pytest.approx((fields**2 / np.cosh(fields) ** 2).sum(), rel=1e-12)


def test_complete_graph_at_the_limit():
    spins, k = 24, 0.06
    ups = np.arange(spins + 1)
    magnetisation = spins - 2.0 * ups
    exponent = k * (magnetisation**2 - spins) / 2
    log_weights = exponent + [math.log(math.comb(spins, up)) for up in ups]
    log_z = np.logaddexp.reduce(log_weights)
    weights = np.exp(log_weights - log_z)
    mean = weights @ exponent
    actual = enumeration.solve(k * (1 - np.eye(spins)))
    assert actual == pytest.approx((log_z, mean, weights @ (exponent - mean) ** 2), rel=1e-13)


def test_strong_couplings_do_not_overflow():
    triangle = -1e3 * (1 - np.eye(3))
    assert enumeration.solve(triangle) == pytest.approx((1e3 + math.log(6), 1e3, 0.0), rel=1e-15)


def test_bad_input():
    with pytest.raises(NoExactSolution, match="24"):
        enumeration.solve(np.zeros((25, 25)))
    with pytest.raises(InvalidInput, match="symmetric"):
        enumeration.solve(np.triu(np.ones((3, 3)), 1))
    with pytest.raises(InvalidInput, match="finite"):
        enumeration.solve(np.full((2, 2), np.inf))
