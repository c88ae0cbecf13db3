"""The transfer matrix against enumeration, closed forms and itself turned by 90 degrees."""

import math

import numpy as np
import pytest

from isingflow.errors import InvalidInput, NoExactSolution
from isingflow.exact import enumeration, transfer_matrix


def random_couplings(shape, open_x, open_y, seed=0):
    random = np.random.default_rng(seed)
    kx, ky = random.normal(size=(2, *shape))
    kx[-1, :] *= not open_x
    ky[:, -1] *= not open_y
    return kx, ky


def matrix(kx, ky):
    """The dense coupling matrix of the same bonds; those that join the same two sites add up."""
    index = np.arange(kx.size).reshape(kx.shape)
    couplings = np.zeros((kx.size, kx.size))
    for strengths, axis in ((kx, 0), (ky, 1)):
        np.add.at(couplings, (index.ravel(), np.roll(index, -1, axis).ravel()), strengths.ravel())
    return couplings + couplings.T


@pytest.mark.parametrize("shape", [(2, 2), (2, 3), (3, 2), (3, 3), (4, 3), (2, 6), (4, 4), (3, 6)])
@pytest.mark.parametrize("open_x", [False, True])
@pytest.mark.parametrize("open_y", [False, True])
def test_random_bonds_agree_with_enumeration(shape, open_x, open_y):
    kx, ky = random_couplings(shape, open_x, open_y)
    assert transfer_matrix.solve(kx, ky) == pytest.approx(enumeration.solve(matrix(kx, ky)), rel=1e-12)
    assert transfer_matrix.solve(3 * kx, 3 * ky) == pytest.approx(enumeration.solve(matrix(3 * kx, 3 * ky)), rel=1e-11)


@pytest.mark.parametrize("open_x, open_y", [(True, True), (True, False), (False, False)])
def test_turned_by_ninety_degrees(open_x, open_y):
    kx, ky = random_couplings((7, 6), open_x, open_y)
    assert transfer_matrix.solve(kx, ky) == pytest.approx(transfer_matrix.solve(ky.T, kx.T), rel=1e-12)


def test_open_trees_have_a_closed_form():
    kx, ky = random_couplings((200, 12), True, True)
    ky[1:] = 0.0
    ends = np.concatenate([kx[:-1].ravel(), ky[0, :-1]])
    log_z, mean, variance = transfer_matrix.solve(kx, ky)
    assert log_z == pytest.approx(kx.size * math.log(2) + np.log(np.cosh(ends)).sum(), rel=1e-14)
    assert mean == pytest.approx((ends * np.tanh(ends)).sum(), rel=1e-13)
    assert variance == pytest.approx((ends**2 / np.cosh(ends) ** 2).sum(), rel=1e-11)


def test_a_gauge_changes_nothing():
    kx, ky = random_couplings((9, 16), True, True)
    gauge = np.random.default_rng(1).choice([-1.0, 1.0], size=kx.shape)
    gauged = kx * gauge * np.roll(gauge, -1, 0), ky * gauge * np.roll(gauge, -1, 1)
    assert transfer_matrix.solve(kx, ky) == pytest.approx(transfer_matrix.solve(*gauged), rel=1e-12)


def test_ground_state():
    shape = (6, 16)
    kx, ky = np.full(shape, 500.0), np.full(shape, 500.0)
    kx[-1, :], ky[:, -1] = 0.0, 0.0
    bonds = 5 * 16 + 6 * 15
    assert transfer_matrix.solve(kx, ky) == pytest.approx((500 * bonds + math.log(2), 500 * bonds, 0.0), rel=1e-15)


def test_bad_input():
    with pytest.raises(NoExactSolution, match="16"):
        transfer_matrix.solve(*random_couplings((17, 17), True, True))
    with pytest.raises(NoExactSolution, match="10"):
        transfer_matrix.solve(*random_couplings((11, 11), False, False))
    with pytest.raises(NoExactSolution, match="strong"):
        transfer_matrix.solve(np.full((9, 9), -100.0), np.full((9, 9), -100.0))
    with pytest.raises(InvalidInput):
        transfer_matrix.solve(np.zeros((3, 2)), np.zeros((2, 3)))
