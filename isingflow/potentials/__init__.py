"""Potentials phi(x, t) whose gradient moves the samples: value, gradient and Laplacian in closed form."""

from isingflow.potentials.average import SampledAverage, SymmetricAverage, group_average
from isingflow.potentials.base import Potential
from isingflow.potentials.dense import DensePotential
from isingflow.potentials.image import ImagePotential
from isingflow.potentials.lattice import LatticePotential
from isingflow.potentials.lattice_resnet import LatticeResidualPotential
from isingflow.potentials.resnet import ResidualPotential

__all__ = [
    "DensePotential",
    "ImagePotential",
    "LatticePotential",
    "LatticeResidualPotential",
    "Potential",
    "ResidualPotential",
    "SampledAverage",
    "SymmetricAverage",
    "group_average",
]
