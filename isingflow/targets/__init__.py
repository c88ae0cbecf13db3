"""Unnormalised densities: what flows are trained on and samplers draw from."""

from isingflow.targets.base import Start, Target, as_target
from isingflow.targets.checks import check_target
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich
from isingflow.targets.phi4 import Phi4

__all__ = ["HubbardStratonovich", "Phi4", "Start", "Target", "as_target", "check_target"]
