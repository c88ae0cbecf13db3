"""The laws that a target, a potential, a transform, a flow or a sampler must keep, to be run on one's own.

Each `check_*` returns nothing, or raises `LawBroken` with the law, what was compared and by how much it is off. The
laws of a check are a table by name, such as `POTENTIAL_LAWS`; `laws=[...]` picks some. Our own tests are lists of
objects for these checks.
"""

from isingflow.testing.convex import CONVEX_LAWS, check_convex
from isingflow.testing.laws import LawBroken
from isingflow.testing.potentials import POTENTIAL_LAWS, check_potential
from isingflow.testing.samplers import SAMPLER_LAWS, check_sampler
from isingflow.testing.targets import TARGET_LAWS, check_target, stein
from isingflow.testing.transforms import FLOW_LAWS, TRANSFORM_LAWS, check_flow, check_transform

__all__ = [
    "CONVEX_LAWS",
    "FLOW_LAWS",
    "POTENTIAL_LAWS",
    "SAMPLER_LAWS",
    "TARGET_LAWS",
    "TRANSFORM_LAWS",
    "LawBroken",
    "check_convex",
    "check_flow",
    "check_potential",
    "check_sampler",
    "check_target",
    "check_transform",
    "stein",
]
