"""Autoencoders, their codes as data for flows, and images by way of them; on scikit-learn's digits."""

import math

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from torch.nn import functional

import isingflow
from isingflow import datasets
from isingflow.datasets.autoencoder import JITTER, NOISE, Autoencoder, code_dataset, fit, grey
from isingflow.errors import InvalidInput, TrainingDiverged
from isingflow.flows import Flow, GaussianWhitening
from isingflow.plots.data import interpolated, synthesis_figure
from isingflow.runs.config import DensityConfig
from isingflow.runs.folder import RunFolder
from isingflow.training import train
from isingflow.training.progress import Outcome


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def digits():
    return datasets.load("tabular", path="digits")


@pytest.fixture(scope="module")
def trained(digits):
    return fit(Autoencoder(64, 16, 48, generator=generator()), digits, iterations=400)


def misfit(autoencoder: Autoencoder, images: torch.Tensor) -> float:
    """Cross-entropy in nats an image."""
    decoded = autoencoder.decode(autoencoder.encode(images))
    return functional.binary_cross_entropy(decoded, images, reduction="sum").item() / len(images)


def test_grey_levels_are_those_of_the_files(digits):
    x = next(digits.test.batches(50, generator()))
    levels = digits.test.table[digits.test.index[:50]]
    torch.testing.assert_close(grey(digits, x), torch.from_numpy(levels).float() / 16)
    assert grey(digits, torch.full((1, 64), 50.0)).max() == 1


def test_training_beats_the_mean_image(digits, trained):
    """Independent pixels of the right means are the best that an autoencoder without codes could do."""
    train_images = torch.cat([grey(digits, x) for x in digits.train.batches(500, generator())])
    images = torch.cat([grey(digits, x) for x in digits.test.batches(500, generator())])
    mean = train_images.mean(0).clamp(1e-4, 1 - 1e-4).expand(len(images), -1)
    without = functional.binary_cross_entropy(mean, images, reduction="sum").item() / len(images)
    least = functional.binary_cross_entropy(images, images, reduction="sum").item() / len(images)
    assert least < misfit(trained, images) < without - (without - least) / 4
    assert not any(parameter.requires_grad for parameter in trained.parameters())


@pytest.mark.parametrize("noise", [NOISE, 0.3])
def test_the_loss_is_its_formula(noise):
    autoencoder = Autoencoder(6, 3, 5, noise=noise, generator=generator())
    images = torch.rand(4, 6, generator=generator(1))
    codes = autoencoder.encode(images)
    decoded = autoencoder.decode(codes + noise * torch.randn(4, 3, generator=generator(2)))
    entropy = -(images * decoded.log() + (1 - images) * (1 - decoded).log()).sum(1)
    expected = (entropy + codes.square().sum(1) / 2).mean()
    torch.testing.assert_close(autoencoder.loss(images, generator(2)), expected)


def test_training_is_reproducible_and_reported(digits):
    seen = []
    first, again, other = (
        fit(
            Autoencoder(64, 4, 8, generator=generator()),
            digits,
            seed=seed,
            iterations=3,
            report_progress=lambda *progress: seen.append(progress),
        )
        for seed in (0, 0, 1)
    )
    assert [iteration for iteration, _ in seen] == [1, 2, 3] * 3
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(next(first.parameters()), next(other.parameters()))


def test_codes_are_a_data_set(digits, trained):
    codes = code_dataset(trained, digits)
    assert [len(split) for split in (codes.train, codes.validation, codes.test)] == [
        len(split) for split in (digits.train, digits.validation, digits.test)
    ]
    x = codes.train.draw(20_000, generator())
    torch.testing.assert_close(x.mean(0), torch.zeros(16), atol=0.05, rtol=0)
    torch.testing.assert_close(x.std(0), torch.ones(16), atol=0.05, rtol=0)
    images = grey(digits, next(digits.test.batches(40, generator())))
    jitter = codes.to_data(next(codes.test.batches(40, generator()))) - trained.encode(images)
    assert jitter.abs().max() < JITTER / 2 + 1e-5 and jitter.std() > 0.2 * JITTER and jitter.mean().abs() < 0.1 * JITTER


def test_a_flow_of_codes_trains(digits, trained, tmp_path):
    codes = code_dataset(trained, digits)
    config = DensityConfig.from_preset("quick", codes, flow="ot", iterations=10)
    config = replace(config, training=replace(config.training, batch=32, check_every=5))
    run = RunFolder.create(tmp_path / "run", config)
    assert train(run, device=torch.device("cpu"), data=codes).outcome is Outcome.FINISHED
    x, _ = isingflow.load(run.path).sample(5, generator=generator())
    images = trained.decode(codes.to_data(x).float())
    assert images.shape == (5, 64) and images.min() >= 0 and images.max() <= 1


def test_ways_keep_their_ends_and_their_distribution():
    covariance = torch.tensor([[2.0, 0.5], [0.5, 1.0]])
    flow = Flow((2,), [GaussianWhitening(torch.tensor([1.0, -2.0]), covariance)])
    (start, _), (end, _) = (flow.sample(20_000, generator=generator(seed)) for seed in (0, 1))
    ways = interpolated(flow, start, end, 5)
    assert ways.shape == (20_000, 5, 2)
    torch.testing.assert_close(ways[:, 0], start, atol=1e-5, rtol=0)
    torch.testing.assert_close(ways[:, -1], end, atol=1e-5, rtol=0)
    for points in ways.unbind(1):
        torch.testing.assert_close(torch.cov(points.T), covariance, atol=0.1, rtol=0)


def test_originals_are_boxed_in_red():
    random = np.random.default_rng(0)
    figure = synthesis_figure(random.random((9, 8, 8)), random.random((3, 4, 8, 8)))
    above, below = figure.axes
    assert above.images[0].get_array().shape == (24, 32) and below.images[0].get_array().shape == (24, 32)
    corners = {(box.get_x() + 0.5, box.get_y() + 0.5) for box in below.patches}
    assert corners == {(x, y) for x in (0, 24) for y in (0, 8, 16)}
    assert all(box.get_edgecolor()[0] > 0.7 for box in below.patches) and not above.patches


def test_what_cannot_be_is_refused(digits):
    with pytest.raises(InvalidInput, match="64 -> 256 -> 0: expected sizes of at least 1"):
        Autoencoder(64, 0, generator=generator())
    with pytest.raises(InvalidInput, match="noise -1: expected a number of at least 0"):
        Autoencoder(64, 2, noise=-1, generator=generator())
    with pytest.raises(InvalidInput, match="digits has 64 pixels, the autoencoder 784"):
        fit(Autoencoder(784, 2, 3, generator=generator()), digits)
    with pytest.raises(InvalidInput, match="moons: an autoencoder needs images of grey levels"):
        fit(Autoencoder(2, 2, 3, generator=generator()), datasets.load("moons"), iterations=1)
    broken = Autoencoder(64, 2, 3, generator=generator())
    with torch.no_grad():
        broken.decoder[2].bias.fill_(math.nan)
    with pytest.raises(TrainingDiverged, match="loss became nan at iteration 1"):
        fit(broken, digits, iterations=1)
