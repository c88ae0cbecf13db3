"""The laws of `isingflow.testing` kept by every target: a new one is a line in a list here."""

import networkx
import pytest

from isingflow.lattice import CRITICAL_BETA, edwards_anderson, from_graph, random_field, square, triangular
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich
from isingflow.testing import check_target

TARGETS = {
    "pair": lambda: HubbardStratonovich(from_graph(networkx.path_graph(2)), 0.6),
    "2x2": lambda: HubbardStratonovich(square(2), 0.3),
    "critical": lambda: HubbardStratonovich(square(4, 5), CRITICAL_BETA),
    "antiferromagnetic": lambda: HubbardStratonovich(square(3), -0.7),
    "ordered": lambda: HubbardStratonovich(square(3), 1.3),
    "without couplings": lambda: HubbardStratonovich(square(3), 0.0),
    "anisotropic": lambda: HubbardStratonovich(square(2, 4, jx=0.3, jy=-1.2), 0.4),
    "triangular": lambda: HubbardStratonovich(triangular(3, 4), 0.2),
    "open": lambda: HubbardStratonovich(square(3, 4, boundary="open"), CRITICAL_BETA),
    "glass": lambda: HubbardStratonovich(edwards_anderson(3, seed=2), 0.5),
    "in a field": lambda: HubbardStratonovich(square(3, 4).with_field(0.2), CRITICAL_BETA),
    "in a strong field": lambda: HubbardStratonovich(triangular(3), -0.4, field=3.0),
    "in a random field": lambda: HubbardStratonovich(random_field(square(3), 0.6, seed=0), 0.5),
    "glass in a field": lambda: HubbardStratonovich(edwards_anderson(3, seed=2, boundary="open").with_field(0.3), 0.5),
    "disconnected": lambda: HubbardStratonovich(from_graph(networkx.Graph([(0, 1), (2, 3), (3, 4)])), 0.5),
}


@pytest.mark.parametrize("make", TARGETS.values(), ids=TARGETS)
def test_targets_keep_the_laws(make):
    check_target(make())
