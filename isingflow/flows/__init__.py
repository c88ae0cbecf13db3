"""Invertible maps with log-determinants, and flows made of them."""

from isingflow.flows.base import Flow, PathCost, Transform
from isingflow.flows.gradient import GradientFlow
from isingflow.flows.linear import SpectralScaling

__all__ = ["Flow", "GradientFlow", "PathCost", "SpectralScaling", "Transform"]
