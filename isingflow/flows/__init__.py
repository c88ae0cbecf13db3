"""Invertible maps with log-determinants, and flows made of them."""

from isingflow.flows.base import Flow, PathCost, Transform
from isingflow.flows.data import GaussianWhitening, HistogramMarginals, Logit
from isingflow.flows.gradient import GradientFlow, gradient_flows
from isingflow.flows.linear import SpectralScaling

__all__ = [
    "Flow",
    "GaussianWhitening",
    "GradientFlow",
    "HistogramMarginals",
    "Logit",
    "PathCost",
    "SpectralScaling",
    "Transform",
    "gradient_flows",
]
