"""A convex potential that is exactly symmetric under all translations, the point group and Z2.

The symmetric convolutions of `potentials.kernels`, radial and oriented, give every site a few features u; an
input-convex network N is made even and summed over sites and orientations:

    u_c = w_c * x,    F(x) = c sum_orientations sum_sites [N(u) + N(-u)] / 2 + (1/2) sum_k q_k |x_k|^2,    q_k > 0,
    hess F = c sum_orientations sum_sites w (hess N(u) + hess N(-u)) w^T / 2 + q.

u is linear in x, so F is convex; q has one value per orbit of momenta, and its smallest is F's strong convexity.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from isingflow.lattice.symmetry import Group
from isingflow.potentials.convex import ConvexFunction, Expansion, raw_strength, strength
from isingflow.potentials.kernels import SymmetricKernels
from isingflow.potentials.layers.convolutional import field_of, half_spectrum
from isingflow.potentials.layers.input_convex import ConvexNetwork, NetworkExpansion
from isingflow.runtime.fields import usual_defaults

INITIAL_SHARE = 0.05
"""Part of x.(hess F).x / |x|^2, 1, that the network has at the start; the quadratic part has the rest."""
CALIBRATION = 64
"""Gaussian fields at which the network's curvature is measured at the start."""


class LatticeConvexPotential(SymmetricKernels, ConvexFunction):
    """The translation-, point- and Z2-symmetric convex potential above on a torus of any dimension.

    The gradient starts near the identity: for fields x of the given variances x.(hess F).x is |x|^2 on average, of
    which the network has a twentieth. (Kernels that decay slowly act on few momenta: those are where x is large.)

    Args:
        symmetry: the symmetry to have: a group with all translations, inversion and Z2.
        radial: number of kernels that have the full point symmetry.
        oriented: number of kernels that have only the symmetry of a bond, per direction.
        width, layers, kind, augmented, normalised, activation: of the network, see `ConvexNetwork`.
        variances: variance of x by momentum when the flow starts, of a field's shape: kernels are scaled so that
            features start of order one. Ones if not given.
        generator: source of the initial kernels and weights.

    Raises:
        InvalidInput: a count is out of range, or an unknown activation.
        SymmetryMismatch: the group lacks what this potential has by construction.

    Example:
        >>> from isingflow.lattice.symmetry import square_torus_group
        >>> group, generator = square_torus_group(4, 4), torch.Generator().manual_seed(0)
        >>> potential = LatticeConvexPotential(group, radial=2, oriented=1, width=3, generator=generator)
        >>> x = torch.ones(2, 4, 4)
        >>> potential.gradient(x).shape, bool((potential.value(x) == potential.value(-x)).all())
        (torch.Size([2, 4, 4]), True)
    """

    @usual_defaults()
    def __init__(
        self,
        symmetry: Group,
        *,
        radial: int,
        oriented: int = 0,
        width: int,
        layers: int = 1,
        kind: str = "layers",
        augmented: bool = True,
        normalised: bool = False,
        activation: str = "squareplus",
        variances: Tensor | None = None,
        generator: torch.Generator,
    ) -> None:
        super().__init__(symmetry, radial, oriented, variances, generator)
        self.network = ConvexNetwork(
            radial + oriented,
            width=width,
            layers=layers,
            kind=kind,
            augmented=augmented,
            normalised=normalised,
            activation=activation,
            generator=generator,
        )
        self.log_quadratic = nn.Parameter(raw_strength(torch.full((self.momentum_classes,), 1 - INITIAL_SHARE)))
        self.log_scale = nn.Parameter(torch.zeros(()))
        with torch.no_grad():
            noise = torch.randn(CALIBRATION, *self.shape, generator=generator)
            deviations = torch.ones(self.shape) if variances is None else variances.detach().cpu().float().sqrt()
            fields = field_of(half_spectrum(noise, len(self.shape)) * _half(deviations), self.shape)
            power = fields.square().sum()
            unit = (self.product(fields, fields) * fields).sum() / power - (1 - INITIAL_SHARE)
            self.log_scale.add_((INITIAL_SHARE / unit).log())

    @property
    def scale(self) -> Tensor:
        """c, the network's weight."""
        return self.log_scale.exp()

    @property
    def quadratic(self) -> Tensor:
        """q by momentum, of a field's shape."""
        return strength(self.log_quadratic)[self.momentum_orbits]

    def expand(self, x: Tensor) -> Expansion:
        return _LatticeExpansion(x, self.network, self.by_displacement(), self.quadratic, self.scale, self.conjugates)


class _LatticeExpansion(Expansion):
    def __init__(
        self, x: Tensor, network: ConvexNetwork, kernels: Tensor, quadratic: Tensor, scale: Tensor, conjugates: Tensor
    ) -> None:
        self._kernels, self._quadratic, self._scale = kernels, quadratic, scale
        self._shape = tuple(kernels.shape[2:])
        self._spectra = self._transform(kernels).real
        self.strength = quadratic.min()
        momenta = self._transform(x)
        features = self._features(momenta)
        self._network: NetworkExpansion = network.expand(torch.stack([features, -features], 1).flatten(1))
        halved = scale / 2
        by_site = self._network.value.view(-1, len(x), math.prod(x.shape[1:]))
        power = conjugates * (momenta.real**2 + momenta.imag**2) * _half(quadratic)
        self.value = halved * by_site.sum((0, 2)) + power.flatten(1).sum(1) / (2 * x[0].numel())
        plus, minus = self._network.gradient.view(len(kernels), 2, *features.shape[1:]).unbind(1)
        self.gradient = self._back(halved * (plus - minus), momenta)

    def product(self, vectors: Tensor) -> Tensor:
        axes = len(self._shape)
        lead = vectors.shape[: -axes - 1]
        momenta = self._transform(vectors)
        features = self._features(momenta)
        # (features, orientations, lead.., n, *shape) to (features, lead.., 2 signs x orientations x n x sites)
        columns = features.movedim(1, -axes - 2)
        pairs = torch.stack([columns, columns], -axes - 3)
        image = self._network.product(pairs.flatten(-axes - 3)).view(pairs.shape).sum(-axes - 3)
        return self._back(self._scale / 2 * image.movedim(-axes - 2, 1), momenta).view(*lead, -1, *self._shape)

    def hessian(self) -> Tensor:
        features, orientations, *shape = self._kernels.shape
        sites = math.prod(shape)
        away = _differences(shape).to(self._kernels.device)
        rows = self._kernels.flatten(2)[:, :, away]  # (features, orientations, from site, to site)
        inner = self._network.hessian().view(2, orientations, -1, sites, features, features).sum(0)
        inner = (self._scale / 2 * inner).permute(0, 2, 1, 3, 4)
        count = inner.shape[2]
        inner = inner.reshape(orientations * sites, count * features, features)
        outer = rows.permute(1, 2, 0, 3).reshape(orientations * sites, features, sites)
        half = (inner @ outer).view(-1, count, features, sites).permute(1, 0, 2, 3).reshape(count, -1, sites)
        local = torch.fft.ifftn(self._quadratic).real.flatten()[away]
        return outer.flatten(0, 1).T @ half + local

    def _features(self, momenta: Tensor) -> Tensor:
        """Convolutions, shape (features, orientations, ..., *shape)."""
        return field_of(self._over(momenta) * momenta, self._shape)

    def _back(self, by_features: Tensor, momenta: Tensor) -> Tensor:
        """Convolutions backwards, summed, plus the quadratic part."""
        pulled = (self._over(momenta) * self._transform(by_features)).sum((0, 1))
        return field_of(pulled + _half(self._quadratic) * momenta, self._shape)

    def _over(self, momenta: Tensor) -> Tensor:
        features, orientations, *rest = self._spectra.shape
        return self._spectra.view(features, orientations, *[1] * (momenta.ndim - len(rest)), *rest)

    def _transform(self, x: Tensor) -> Tensor:
        return half_spectrum(x, len(self._shape))


def _half(values: Tensor) -> Tensor:
    """Values by momentum where a half spectrum has them."""
    return values[..., : values.shape[-1] // 2 + 1]


def _differences(shape: list[int]) -> Tensor:
    """Index of the displacement from every site to every other on the torus, shape (sites, sites)."""
    sites = torch.stack(torch.unravel_index(torch.arange(math.prod(shape), device="cpu"), tuple(shape)))
    lengths = torch.tensor(shape, device="cpu")
    strides = torch.tensor([math.prod(shape[axis + 1 :]) for axis in range(len(shape))], device="cpu")
    away = (sites[:, :, None] - sites[:, None, :]) % lengths[:, None, None]
    return (away * strides[:, None, None]).sum(0)
