"""Toy densities in one and two dimensions, with as many samples as are asked for.

In two dimensions the usual ones, as in the code of FFJORD (Grathwohl et al. 2018): eight Gaussians, two spirals, moons,
pinwheel, checkerboard, circles, rings and swiss roll. In one dimension mixtures of Marron and Wand (1992): bimodal
(their #6), trimodal (#9) and claw (#10). What other codes call the same densities are aliases.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from isingflow.datasets.base import Dataset, Rows, Split
from isingflow.datasets.spaces import Space

TRAIN, VALIDATION, TEST = 50_000, 5_000, 10_000

Sampler = Callable[[int, torch.Generator], Tensor]


@dataclass(frozen=True)
class Toy:
    """A density that can be sampled.

    Attributes:
        dimension: d.
        sample: (n, generator) -> n points, float64, shape (n, d).
        log_prob: ln p of points, shape (n, d) to (n,), where it is known in closed form.
    """

    dimension: int
    sample: Sampler
    log_prob: Callable[[Tensor], Tensor] | None = None


class Fresh(Split):
    """New samples at every draw; one pass through `batches` is `count` of them."""

    def __init__(self, toy: Toy, count: int) -> None:
        self.toy = toy
        self.count = count

    def __len__(self) -> int:
        return self.count

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """n new samples."""
        return self.toy.sample(n, generator).float()

    def batches(self, size: int, generator: torch.Generator) -> Iterator[Tensor]:
        """As many new samples as the split is long."""
        for start in range(0, self.count, size):
            yield self.draw(min(size, self.count - start), generator)


def load(name: str, seed: int = 0) -> Dataset:
    """A toy density by its name in `TOYS` or `ALIASES`; validation and test samples are fixed by the seed.

    Example:
        >>> moons = load("moons")
        >>> moons.train.draw(5, torch.Generator().manual_seed(0)).shape, len(moons.test)
        (torch.Size([5, 2]), 10000)
    """
    name = ALIASES.get(name, name)
    toy, space = TOYS[name], Space()
    generator = torch.Generator().manual_seed(seed)
    validation, test = (
        Rows(toy.sample(count, generator).numpy(), np.arange(count), space) for count in (VALIDATION, TEST)
    )
    return Dataset(name, toy.dimension, Fresh(toy, TRAIN), validation, test, space, log_prob=toy.log_prob)


def _mixture(weights: list[float], means: list[list[float]], deviations: list[float]) -> Toy:
    """A mixture of round Gaussians."""
    weight, mean, deviation = (torch.tensor(numbers, dtype=torch.float64) for numbers in (weights, means, deviations))
    dimension = mean.shape[1]

    def sample(n: int, generator: torch.Generator) -> Tensor:
        component = torch.multinomial(weight, n, replacement=True, generator=generator)
        return mean[component] + deviation[component, None] * _normal((n, dimension), generator)

    def log_prob(x: Tensor) -> Tensor:
        squares = (x.double()[:, None] - mean).square().sum(2) / deviation.square()
        return (weight.log() - dimension * deviation.log() - squares / 2).logsumexp(1) - dimension * _HALF_LOG_2PI

    return Toy(dimension, sample, log_prob)


def _eight_gaussians() -> Toy:
    angles = [math.pi * k / 4 for k in range(8)]
    scale = 1.414
    centres = [[4 * math.cos(angle) / scale, 4 * math.sin(angle) / scale] for angle in angles]
    return _mixture([1 / 8] * 8, centres, [0.5 / scale] * 8)


def _two_spirals(n: int, generator: torch.Generator) -> Tensor:
    angle = _uniform((n,), generator).sqrt() * 3 * math.pi
    blur = 0.5 * _uniform((n, 2), generator)
    arm = torch.stack([-angle.cos() * angle, angle.sin() * angle], 1) + blur
    return _sign((n, 1), generator) * arm / 3 + 0.1 * _normal((n, 2), generator)


def _moons(n: int, generator: torch.Generator) -> Tensor:
    angle = math.pi * _uniform((n,), generator)
    upper = torch.stack([angle.cos(), angle.sin()], 1)
    lower = torch.stack([1 - angle.cos(), 0.5 - angle.sin()], 1)
    points = torch.where(_sign((n, 1), generator) > 0, upper, lower) + 0.1 * _normal((n, 2), generator)
    return 2 * points + torch.tensor([-1.0, -0.2], dtype=torch.float64)


def _pinwheel(n: int, generator: torch.Generator, blades: int = 5) -> Tensor:
    blade = torch.randint(blades, (n,), generator=generator)
    features = _normal((n, 2), generator) * torch.tensor([0.3, 0.1], dtype=torch.float64)
    radius, width = features[:, 0] + 1, features[:, 1]
    angle = 2 * math.pi * blade / blades + 0.25 * radius.exp()
    rotated = [radius * angle.cos() + width * angle.sin(), -radius * angle.sin() + width * angle.cos()]
    return 2 * torch.stack(rotated, 1)


def _checkerboard(n: int, generator: torch.Generator) -> Tensor:
    across = 4 * _uniform((n,), generator) - 2
    up = _uniform((n,), generator) - 2 * torch.randint(2, (n,), generator=generator) + across.floor() % 2
    return 2 * torch.stack([across, up], 1)


def _checkerboard_log_prob(x: Tensor) -> Tensor:
    """Uniform on eight squares of side two."""
    column, row = (x.double() / 2).floor().unbind(1)
    inside = (column.abs() <= 2) & (column < 2) & (row.abs() <= 2) & (row < 2) & ((column + row) % 2 == 0)
    return x.new_full((len(x),), -math.log(32.0), dtype=torch.float64).masked_fill(~inside, -math.inf)


def _concentric(count: int, noise: float) -> Toy:
    """So many circles, equally likely, their radii up to 3 at equal distances, with Gaussian noise."""

    def sample(n: int, generator: torch.Generator) -> Tensor:
        angle = 2 * math.pi * _uniform((n,), generator)
        radius = (1 + torch.randint(count, (n,), generator=generator)) / count
        circle = torch.stack([radius * angle.cos(), radius * angle.sin()], 1)
        return 3 * circle + noise * _normal((n, 2), generator)

    def log_prob(x: Tensor) -> Tensor:
        # The Gaussian about a circle of radius R, averaged over it: exp(-(r^2 + R^2) / 2 s^2) I_0(r R / s^2).
        r, radii = x.double().norm(dim=1)[:, None], 3 * torch.arange(1, count + 1, dtype=torch.float64) / count
        bessel = torch.special.i0e(r * radii / noise**2).log()
        terms = bessel - (r - radii).square() / (2 * noise**2) - 2 * math.log(noise) - 2 * _HALF_LOG_2PI
        return terms.logsumexp(1) - math.log(count)

    return Toy(2, sample, log_prob)


def _swiss_roll(n: int, generator: torch.Generator) -> Tensor:
    angle = 1.5 * math.pi * (1 + 2 * _uniform((n,), generator))
    return (torch.stack([angle * angle.cos(), angle * angle.sin()], 1) + _normal((n, 2), generator)) / 5


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _sign(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return 2.0 * torch.randint(2, shape, generator=generator) - 1


_HALF_LOG_2PI = math.log(2 * math.pi) / 2

TOYS = {
    "eight-gaussians": _eight_gaussians(),
    "two-spirals": Toy(2, _two_spirals),
    "moons": Toy(2, _moons),
    "pinwheel": Toy(2, _pinwheel),
    "checkerboard": Toy(2, _checkerboard, _checkerboard_log_prob),
    "circles": _concentric(2, 0.24),
    "rings": _concentric(4, 0.08),
    "swiss-roll": Toy(2, _swiss_roll),
    "bimodal": _mixture([0.5, 0.5], [[-1.0], [1.0]], [2 / 3, 2 / 3]),
    "trimodal": _mixture([9 / 20, 9 / 20, 1 / 10], [[-6 / 5], [6 / 5], [0.0]], [3 / 5, 3 / 5, 1 / 4]),
    "claw": _mixture([0.5] + [0.1] * 5, [[0.0]] + [[k / 2 - 1] for k in range(5)], [1.0] + [0.1] * 5),
}

ALIASES = {
    alias: name
    for name, aliases in {
        "eight-gaussians": "8gaussians 8-gaussians eight_gaussians eightgaussians",
        "two-spirals": "2spirals 2-spirals two_spirals twospirals spirals",
        "moons": "two-moons two_moons twomoons 2moons half-moons",
        "checkerboard": "checker checkers chessboard",
        "circles": "two-circles two_circles 2circles",
        "swiss-roll": "swissroll swiss_roll",
    }.items()
    for alias in aliases.split()
}
"""What other codes call them."""
