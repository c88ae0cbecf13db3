"""A magnet as one of many in a range of uniform fields: what the flow of each starts from, and the symmetry of all.

Where the field is 0 there is Z2, and the best Gaussian has no mean. A flow for a range of fields is of one make: it has
no Z2, and a mean, which is zero there.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import torch

from isingflow.lattice import Lattice
from isingflow.lattice.symmetry import Group
from isingflow.targets.base import Start
from isingflow.targets.gaussian import MeanField, best_gaussian
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich


class InFields(HubbardStratonovich):
    """The magnet of a lattice, as its flow is built when it is one of a range of fields.

    Args:
        lattice, beta: as of `HubbardStratonovich`.
        centred: whether the flow starts from the best centred Gaussian: in weak fields states of both signs count, and
            starts that follow the best one would jump somewhere in the range.

    Example:
        >>> from isingflow.lattice import square
        >>> magnet = InFields(square(4), 0.3)
        >>> str(magnet.symmetry), len(magnet.start().field)
        ('translations x D4', 2)
    """

    def __init__(self, lattice: Lattice, beta: float, *, centred: bool = False) -> None:
        super().__init__(lattice, beta)
        self.centred = centred
        if self.tilt is None:
            self.tilt = torch.zeros(self.shape, dtype=torch.float64)

    @cached_property
    def symmetry(self) -> Group:
        """That of the magnet in any field: without Z2."""
        return replace(self.lattice.symmetry, flip=False)

    def start(self) -> Start:
        """The best Gaussian, or the best centred one."""
        return self._start_from(self._centred() if self.centred else self._solutions().best)

    def _centred(self) -> MeanField:
        return best_gaussian(self.basis, self.eigenvalues, self.whitening_logdet)
