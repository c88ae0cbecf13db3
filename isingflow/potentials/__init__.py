"""Potentials whose gradient moves the samples, in closed form: phi(x, t) with Laplacian, convex F(x) with Hessian."""

from isingflow.potentials.average import SampledAverage, SymmetricAverage, group_average
from isingflow.potentials.base import Potential
from isingflow.potentials.convex import ConvexFunction, ConvexPotential
from isingflow.potentials.convex_lattice import LatticeConvexPotential
from isingflow.potentials.dense import DensePotential
from isingflow.potentials.lattice import LatticePotential

__all__ = [
    "ConvexFunction",
    "ConvexPotential",
    "DensePotential",
    "LatticeConvexPotential",
    "LatticePotential",
    "Potential",
    "SampledAverage",
    "SymmetricAverage",
    "group_average",
]
