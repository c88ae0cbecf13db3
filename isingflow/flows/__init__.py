"""Invertible maps with log-determinants, and flows made of them."""

from isingflow.flows.base import Flow, Inverted, Transform
from isingflow.flows.convex import ConvexFlow
from isingflow.flows.elementwise import ActNorm
from isingflow.flows.gradient import GradientFlow
from isingflow.flows.linear import SpectralScaling
from isingflow.flows.logdet import CholeskyLogdet, LanczosLogdet

__all__ = [
    "ActNorm",
    "CholeskyLogdet",
    "ConvexFlow",
    "Flow",
    "GradientFlow",
    "Inverted",
    "LanczosLogdet",
    "SpectralScaling",
    "Transform",
]
