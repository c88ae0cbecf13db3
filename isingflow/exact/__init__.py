"""Exact solutions, the truth to compare with: finite tori, small graphs, narrow strips, the thermodynamic limit."""

from isingflow.exact.thermodynamics import Thermodynamics, thermodynamics

__all__ = ["Thermodynamics", "thermodynamics"]
