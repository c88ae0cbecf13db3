"""Invertible maps with log-determinants, and flows made of them."""

from isingflow.flows.base import Approximate, Flow, PathCost, Transform, approximations
from isingflow.flows.conditional import ConditionalAffine, ConditionalConvexFlow, ConditionalFlow, ConditionalTransform
from isingflow.flows.convex import ConvexFlow
from isingflow.flows.data import GaussianWhitening, HistogramMarginals, Logit
from isingflow.flows.elementwise import ActNorm
from isingflow.flows.family import Family, Range
from isingflow.flows.gradient import GradientFlow, gradient_flows
from isingflow.flows.linear import Shift, SpectralScaling
from isingflow.flows.logdet import CholeskyLogdet, LanczosLogdet
from isingflow.flows.wrappers import Inverted, Viewed

__all__ = [
    "ActNorm",
    "Approximate",
    "CholeskyLogdet",
    "ConditionalAffine",
    "ConditionalConvexFlow",
    "ConditionalFlow",
    "ConditionalTransform",
    "ConvexFlow",
    "Family",
    "Flow",
    "GaussianWhitening",
    "GradientFlow",
    "HistogramMarginals",
    "Inverted",
    "LanczosLogdet",
    "Logit",
    "PathCost",
    "Range",
    "Shift",
    "SpectralScaling",
    "Transform",
    "Viewed",
    "approximations",
    "gradient_flows",
]
