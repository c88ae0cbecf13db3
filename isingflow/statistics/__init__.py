"""Estimates, and the error bars of chains, weights and free energies."""

from isingflow.statistics.estimate import Estimate, Estimates

__all__ = ["Estimate", "Estimates"]
