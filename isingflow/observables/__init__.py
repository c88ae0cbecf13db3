"""Observables of spins and fields, with error bars."""

from isingflow.observables.measure import Observables, measure
from isingflow.observables.overlap import Overlap, overlap
from isingflow.observables.series import Series, per_sample

__all__ = ["Observables", "Overlap", "Series", "measure", "overlap", "per_sample"]
