"""Exact solutions, the truth to compare with: tori, spin glasses, small graphs, narrow strips, the infinite lattice."""

from isingflow.exact.averages import averages
from isingflow.exact.ground_state import GroundState, ground_state
from isingflow.exact.moments import Moments, moments
from isingflow.exact.thermodynamics import Thermodynamics, thermodynamics

__all__ = ["GroundState", "Moments", "Thermodynamics", "averages", "ground_state", "moments", "thermodynamics"]
