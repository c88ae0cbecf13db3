"""Invertible maps with log-determinants, and flows made of them."""

from isingflow.flows.base import Flow, Transform
from isingflow.flows.gradient import GradientFlow, gradient_flows
from isingflow.flows.linear import SpectralScaling

__all__ = ["Flow", "GradientFlow", "SpectralScaling", "Transform", "gradient_flows"]
