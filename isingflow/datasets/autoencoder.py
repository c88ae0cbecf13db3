"""Images by way of short codes: a flow on the codes of an autoencoder makes images of what it samples.

    code = encoder(v),    image = sigmoid(decoder(code)),    v the grey levels of an image from 0 to 1

784 -> 128 -> 784 for MNIST, as in OT-Flow (Onken et al. 2021, arXiv 2006.00104), trained before the flow and apart
from it, with a smooth hidden layer each way. While training, normal noise is added to the codes, so that decoding
bears the errors of a flow; a penalty |code|^2 / 2 fixes their scale, which would otherwise outgrow the noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from isingflow.datasets import Dataset, Split
from isingflow.datasets.base import CHUNK, Rows
from isingflow.datasets.spaces import Pixels, Standardised
from isingflow.errors import InvalidInput, TrainingDiverged
from isingflow.statistics.moments import moments

NOISE = 0.6
"""Deviation of the noise in training, unless another one is asked for."""
JITTER = 0.5
"""Width of the uniform noise of codes as data: they have a density, even where images leave numbers unused."""


class Autoencoder(nn.Module):
    """Dense layers from images to codes, and back.

    Args:
        dimension: pixels of an image.
        code: numbers of a code.
        hidden: units of the layer between them, softplus.
        noise: deviation of the normal noise on codes in training. With more of it codes hold fewer details, and are
            simpler to model.
        generator: of the initial weights.

    Raises:
        InvalidInput: no pixels, numbers or units, or a noise below 0.

    Example:
        >>> autoencoder = Autoencoder(64, 12, generator=torch.Generator().manual_seed(0))
        >>> codes = autoencoder.encode(torch.rand(5, 64))
        >>> codes.shape, autoencoder.decode(codes).shape
        (torch.Size([5, 12]), torch.Size([5, 64]))
    """

    def __init__(
        self, dimension: int, code: int = 128, hidden: int = 256, *, noise: float = NOISE, generator: torch.Generator
    ) -> None:
        super().__init__()
        if min(dimension, code, hidden) < 1:
            raise InvalidInput(f"autoencoder {dimension} -> {hidden} -> {code}: expected sizes of at least 1")
        if not 0 <= noise < math.inf:
            raise InvalidInput(f"noise {noise}: expected a number of at least 0")
        self.dimension, self.noise = dimension, noise
        self.encoder = nn.Sequential(*_layers(dimension, hidden, code, generator))
        self.decoder = nn.Sequential(*_layers(code, hidden, dimension, generator))

    def encode(self, images: Tensor) -> Tensor:
        """Codes, shape (n, code), of grey levels from 0 to 1, shape (n, dimension)."""
        return self.encoder(images)

    def decode(self, codes: Tensor) -> Tensor:
        """Grey levels from 0 to 1, shape (n, dimension), of codes, shape (n, code)."""
        return self.decoder(codes).sigmoid()

    def loss(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Mean over images of the cross-entropy of their grey levels, in nats, and the penalty; shape ()."""
        codes = self.encode(images)
        logits = self.decoder(codes + self.noise * torch.randn(codes.shape, generator=generator, dtype=codes.dtype))
        misfit = functional.binary_cross_entropy_with_logits(logits, images, reduction="sum")
        return (misfit + codes.square().sum() / 2) / len(images)


def _layers(inputs: int, hidden: int, outputs: int, generator: torch.Generator) -> tuple[nn.Module, ...]:
    layers = nn.Linear(inputs, hidden), nn.Softplus(), nn.Linear(hidden, outputs)
    with torch.no_grad():
        for layer in (layers[0], layers[2]):
            layer.weight.normal_(generator=generator).div_(math.sqrt(layer.in_features))
            layer.bias.zero_()
    return layers


def grey(data: Dataset, x: Tensor) -> Tensor:
    """Images of grey levels from 0 to 1, without jitter, of points x of model space; shape (n, d).

    Raises:
        InvalidInput: the data are not grey levels.
    """
    if not isinstance(data.space, Pixels):
        raise InvalidInput(f"{data.name}: an autoencoder needs images of grey levels")
    brightest = data.space.levels - 1
    return data.to_data(x).floor().clamp_max(brightest) / brightest


def fit(
    autoencoder: Autoencoder,
    data: Dataset,
    *,
    seed: int = 0,
    iterations: int = 3000,
    batch: int = 128,
    rate: float = 3e-3,
    report_progress: Callable[[int, float], None] | None = None,
) -> Autoencoder:
    """Train an autoencoder on the training images of a data set.

    Args:
        autoencoder: trained in place, by Adam with a one-cycle rate.
        data: images.
        seed: of the batches and of the noise.
        iterations, batch, rate: of the training.
        report_progress: called after every iteration with its number and its loss.

    Returns:
        The autoencoder, without gradients.

    Raises:
        InvalidInput: the data have another number of pixels, or are not grey levels.
        TrainingDiverged: the loss is no longer finite.
    """
    if data.dimension != autoencoder.dimension:
        raise InvalidInput(f"{data.name} has {data.dimension} pixels, the autoencoder {autoencoder.dimension}")
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(autoencoder.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=iterations)
    for iteration in range(1, iterations + 1):
        loss = autoencoder.loss(grey(data, data.train.draw(batch, generator)), generator)
        if not math.isfinite(loss.item()):
            raise TrainingDiverged(f"the autoencoder's loss became {loss.item()} at iteration {iteration}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if report_progress is not None:
            report_progress(iteration, loss.item())
    return autoencoder.requires_grad_(False)


def code_dataset(autoencoder: Autoencoder, data: Dataset) -> Dataset:
    """The codes of a data set's images, as a data set for a flow: with jitter about zero, and columns standardised.

    Args:
        autoencoder: trained.
        data: images.

    Raises:
        InvalidInput: the data are not grey levels.

    Example:
        >>> from isingflow.datasets import load
        >>> digits = load("tabular", path="digits")
        >>> codes = code_dataset(Autoencoder(64, 12, generator=torch.Generator().manual_seed(0)), digits)
        >>> codes.name, codes.dimension, len(codes.train) == len(digits.train)
        ('codes of digits', 12, True)
    """
    # The space adds noise on [0, JITTER).
    parts = [_codes(autoencoder, data, split) - JITTER / 2 for split in (data.train, data.validation, data.test)]
    found = moments([torch.from_numpy(parts[0])])
    deviation = (found.covariance.diagonal() + JITTER**2 / 12).sqrt()
    space = Standardised(found.mean + JITTER / 2, deviation, torch.full_like(deviation, JITTER))
    train, validation, test = (Rows(table, np.arange(len(table)), space) for table in parts)
    return Dataset(f"codes of {data.name}", len(found.mean), train, validation, test, space)


@torch.no_grad()
def _codes(autoencoder: Autoencoder, data: Dataset, split: Split) -> np.ndarray:
    """The codes of all rows of a split without jitter, float32, shape (count, code)."""
    # Grey levels are those of the files, whatever jitter they were drawn with.
    batches = split.batches(CHUNK, torch.Generator().manual_seed(0))
    return torch.cat([autoencoder.encode(grey(data, x)) for x in batches]).numpy()
