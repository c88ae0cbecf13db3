"""OT-Flow on codes of MNIST: what its samples and ways gain on those of the Gaussian that it starts from.

An autoencoder 784 -> 16 -> 784 is trained first, then OT-Flow on its codes, from the Gaussian of their mean and
covariance. A classifier of real digits, the same for all seeds, judges decoded images: how sure it is of them, and how
far the Gaussian of its last hidden layer is from that of the test images,

    d^2 = |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)).

Samples of Gaussian and flow come from the same noise. Ways are arcs in that noise between the codes of test images, and
what is judged are the images between their ends. The decoded codes of the test images are what a perfect flow would
reach; training images against test images, what the judge's own scatter is.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from figures.item import Item, Options
from msgspec.structs import replace
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from isingflow import datasets, load
from isingflow.architectures.start import fitted_part
from isingflow.datasets import Dataset, mnist
from isingflow.datasets.autoencoder import Autoencoder, code_dataset, fit, grey
from isingflow.evaluation.data import evaluate_density
from isingflow.flows import Flow
from isingflow.plots.data import interpolated, synthesis_figure
from isingflow.plots.style import png
from isingflow.runs.config import DensityConfig
from isingflow.runs.folder import RunFolder
from isingflow.training import train

CPU = torch.device("cpu")
CODE, NOISE = 16, 0.3
"""Numbers of a code, and the noise that decoding bears."""
ITERATIONS, QUICK = {"autoencoder": 2000, "flow": 3000, "judge": 3000}, {"autoencoder": 150, "flow": 100, "judge": 200}
WIDTH, BATCH, RATE, BALANCE = 128, 256, 1e-2, 5.0
JUDGED, BETWEEN = 10_000, 8
SHOWN, WAYS = 40, 4
SURE = 0.9


class Judge:
    """A classifier of digits: 784 -> 256 -> 64 -> 10 with rectified units, trained on the first 50,000 images."""

    def __init__(self, arrays: dict[str, np.ndarray], iterations: int) -> None:
        generator = torch.Generator().manual_seed(0)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.features = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 64), nn.ReLU())
            self.last = nn.Linear(64, 10)
        parameters = [*self.features.parameters(), *self.last.parameters()]
        optimizer = torch.optim.Adam(parameters, 1e-3)
        images, labels = _greys(arrays["train_images"][:50_000]), torch.tensor(arrays["train_labels"]).long()
        for _ in range(iterations):
            drawn = torch.randint(len(images), (128,), generator=generator)
            loss = cross_entropy(self.last(self.features(images[drawn])), labels[drawn])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        self.test = _greys(arrays["test_images"])
        with torch.no_grad():
            found = self.last(self.features(self.test)).argmax(1)
            self.reference = self.features(self.test)
        self.accuracy = (found == torch.tensor(arrays["test_labels"])).double().mean().item()

    @torch.no_grad()
    def of(self, images: Tensor) -> dict[str, float]:
        """How sure the classifier is of images, shape (n, 784), and their distance from the test images."""
        features = self.features(images)
        surest = self.last(features).softmax(1).amax(1).double()
        return {
            "confidence": surest.mean().item(),
            "share_sure": (surest > SURE).double().mean().item(),
            "frechet": frechet(features, self.reference),
        }


def _greys(images: np.ndarray) -> Tensor:
    return torch.tensor(images).flatten(1) / 255


def frechet(first: Tensor, second: Tensor) -> float:
    """Squared Frechet distance of the Gaussians of two sets of features, shape (n, d)."""
    a, b = first.double(), second.double()
    # The root of C C' has the eigenvalues of that of the symmetric R C' R, with R the root of C.
    values, vectors = torch.linalg.eigh(a.T.cov())
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    middle = torch.linalg.eigvalsh(root @ b.T.cov() @ root).clamp_min(0).sqrt().sum()
    traces = a.T.cov().trace() + b.T.cov().trace()
    return ((a.mean(0) - b.mean(0)).square().sum() + traces - 2 * middle).item()


def trained(codes: Dataset, seed: int, iterations: int) -> tuple[Flow, dict[str, Any]]:
    """OT-Flow on codes from their Gaussian, and its likelihoods."""
    config = DensityConfig.from_preset("quick", codes, flow="ot", seed=seed, iterations=iterations, start="gaussian")
    training = replace(config.training, batch=BATCH, learning_rate=RATE, balance=BALANCE)
    config = replace(config, flow=replace(config.flow, width=WIDTH), training=training)
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder.create(Path(folder) / "run", config)
        started = time.process_time()
        train(run, device=CPU, data=codes)
        seconds = time.process_time() - started
        report = evaluate_density(run, codes, device=CPU, samples=1000)
        flow = load(run.path)
    assert report.straightness is not None
    return flow, {
        "flow_processor_seconds": seconds,
        "start": {part: value.as_dict() for part, value in report.starts.items()},
        "train": report.train.as_dict(),
        "validation": report.validation.as_dict(),
        "test": report.test.as_dict(),
        "certified": report.certified,
        "integration_error": report.integration_error,
        "integration_steps": report.integration_steps,
        "straightness": report.straightness.value,
    }


def _one(options: Options, seed: int, judge: Judge) -> dict[str, Any]:
    """Autoencoder, flow and judgement of one seed; the figures too, if it is the first."""
    iterations = QUICK if options.quick else ITERATIONS
    data = datasets.load("mnist", root=options.data, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    started = time.process_time()
    autoencoder = Autoencoder(data.dimension, CODE, noise=NOISE, generator=generator)
    fit(autoencoder, data, seed=seed, iterations=iterations["autoencoder"])
    seconds = time.process_time() - started
    codes = code_dataset(autoencoder, data)
    flow, numbers = trained(codes, seed, iterations["flow"])
    gaussian = fitted_part(flow)

    def images(x: Tensor) -> Tensor:
        return autoencoder.decode(codes.to_data(x).float())

    latent = flow.noise(JUDGED, generator)
    test, real = (next(part.test.batches(JUDGED, torch.Generator().manual_seed(seed))) for part in (codes, data))
    pairs = JUDGED // (BETWEEN - 2)
    samples = {name: images(found(latent)[0]) for name, found in (("gaussian", gaussian), ("flow", flow))}
    ways = {
        name: images(interpolated(found, test[:pairs], test[pairs : 2 * pairs], BETWEEN).flatten(0, 1))
        for name, found in (("gaussian", gaussian), ("flow", flow))
    }
    ways = {name: found.view(pairs, BETWEEN, -1) for name, found in ways.items()}
    if seed == options.seeds[0]:
        ends = grey(data, real)[: 2 * pairs].float()
        for name, found in samples.items():
            shown = ways[name][:WAYS].clone()
            shown[:, 0], shown[:, -1] = ends[:WAYS], ends[pairs : pairs + WAYS]
            tiles = (tensor.unflatten(-1, data.image_shape).numpy() for tensor in (found[:SHOWN], shown))
            title = "ot-flow-codes" if name == "flow" else "ot-flow-codes-gaussian"
            (options.output / f"{title}.png").write_bytes(png(synthesis_figure(*tiles)))
    row = {
        "seed": seed,
        "autoencoder_processor_seconds": seconds,
        **numbers,
        "decoded_test": judge.of(images(test)),
        "samples": {name: judge.of(found) for name, found in samples.items()},
        "ways": {name: judge.of(found[:, 1:-1].flatten(0, 1)) for name, found in ways.items()},
    }
    print(row, flush=True)
    return row


def _spread(values: list[float]) -> dict[str, float]:
    return {"mean": statistics.mean(values), "deviation": statistics.stdev(values) if len(values) > 1 else 0.0}


def _make(options: Options) -> dict[str, Any]:
    arrays = mnist.read(options.data)
    judge = Judge(arrays, (QUICK if options.quick else ITERATIONS)["judge"])
    rows = [_one(options, seed, judge) for seed in options.seeds]
    over_seeds = {
        what: {
            name: {key: _spread([row[what][name][key] for row in rows]) for key in rows[0][what][name]}
            for name in rows[0][what]
        }
        for what in ("samples", "ways")
    }
    return {
        "code": CODE,
        "noise": NOISE,
        "judge_accuracy": judge.accuracy,
        "test_images": judge.of(judge.test),
        "training_images": judge.of(_greys(arrays["train_images"][50_000:])),
        "over_seeds": over_seeds,
        "runs": rows,
    }


ITEMS = [Item("ot-flow-codes", "OT-Flow", "MNIST by way of codes: samples, ways, a judge", "MNIST", 3, _make)]
