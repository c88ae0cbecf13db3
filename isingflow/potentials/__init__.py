"""Potentials whose gradient moves the samples, in closed form: phi(x, t) with Laplacian, convex F(x) with Hessian."""

from isingflow.potentials.average import SampledAverage, SymmetricAverage, group_average
from isingflow.potentials.base import Potential
from isingflow.potentials.convex import ConvexFunction, ConvexPotential
from isingflow.potentials.convex_image import ConvexImagePotential
from isingflow.potentials.convex_lattice import LatticeConvexPotential
from isingflow.potentials.convex_local import LocalConvexPotential
from isingflow.potentials.dense import DensePotential
from isingflow.potentials.image import ImagePotential
from isingflow.potentials.lattice import LatticePotential
from isingflow.potentials.lattice_resnet import LatticeResidualPotential
from isingflow.potentials.local import LocalPotential
from isingflow.potentials.local_resnet import LocalResidualPotential
from isingflow.potentials.log_sum_exp import LogSumExpPotential
from isingflow.potentials.partial_convex import PartiallyConvexPotential
from isingflow.potentials.products import ProductPotential
from isingflow.potentials.resnet import ResidualPotential

__all__ = [
    "ConvexFunction",
    "ConvexImagePotential",
    "ConvexPotential",
    "DensePotential",
    "ImagePotential",
    "LatticeConvexPotential",
    "LatticePotential",
    "LatticeResidualPotential",
    "LocalConvexPotential",
    "LocalPotential",
    "LocalResidualPotential",
    "LogSumExpPotential",
    "PartiallyConvexPotential",
    "Potential",
    "ProductPotential",
    "ResidualPotential",
    "SampledAverage",
    "SymmetricAverage",
    "group_average",
]
