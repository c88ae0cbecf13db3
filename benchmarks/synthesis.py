"""MNIST by way of codes: the figure of OT-Flow's poster, samples and ways from one test image to another.

    OMP_NUM_THREADS=1 python benchmarks/synthesis.py --data FOLDER --figure docs/figures/synthesis.png

An autoencoder 784 -> 128 -> 784 is trained first, then an OT-Flow on its codes. Ways are arcs in the noise of that flow
between the codes of two test images, decoded; the images themselves stand at both ends. A training as short as the
default gains almost nothing on the Gaussian that the flow starts as: see the two likelihoods that are printed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from machine import describe
from msgspec.structs import replace
from torch import Tensor

from isingflow import datasets, load
from isingflow.datasets.autoencoder import Autoencoder, code_dataset, fit, grey
from isingflow.evaluation.data import evaluate_density
from isingflow.plots.data import interpolated, synthesis_figure
from isingflow.plots.style import png
from isingflow.runs.config import DensityConfig
from isingflow.runs.folder import RunFolder
from isingflow.training import train
from isingflow.training.progress import Progress

SAMPLES, WAYS, BETWEEN = 40, 4, 8
EVERY = 200
"""Iterations between lines of progress."""


def report_codes(iteration: int, loss: float) -> None:
    if iteration % EVERY == 0:
        print(f"  autoencoder {iteration:>6}: {loss:8.2f} nats", flush=True)


def report_flow(progress: Progress) -> None:
    if progress.iteration % EVERY == 0:
        nats = progress.readings["negative_log_likelihood"]
        print(f"  flow        {progress.iteration:>6}: {nats:8.2f} nats   {progress.seconds:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the files of MNIST; ISINGFLOW_DATA if not given")
    parser.add_argument("--figure", type=Path, help="write the figure as PNG")
    parser.add_argument("--output", type=Path, help="write the results as JSON")
    parser.add_argument("--autoencoder-iterations", type=int, default=2000)
    parser.add_argument("--iterations", type=int, default=600)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    cpu, seed = torch.device("cpu"), arguments.seed
    data = datasets.load("mnist", root=arguments.data, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    start = time.process_time()
    autoencoder = fit(
        Autoencoder(data.dimension, generator=generator),
        data,
        seed=seed,
        iterations=arguments.autoencoder_iterations,
        report_progress=report_codes,
    )
    autoencoder_seconds = time.process_time() - start

    codes = code_dataset(autoencoder, data)
    config = DensityConfig.from_preset("quick", codes, flow="ot", seed=seed, iterations=arguments.iterations)
    config = replace(
        config,
        flow=replace(config.flow, width=arguments.width, steps=4),
        training=replace(config.training, batch=arguments.batch, learning_rate=5e-3, tolerance=0.5),
    )
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder.create(Path(folder) / "run", config)
        start = time.process_time()
        train(run, device=cpu, data=codes, callbacks=[report_flow])
        flow_seconds = time.process_time() - start
        evaluation = evaluate_density(run, codes, device=cpu, samples=2000)
        flow = load(run.path)
    print(evaluation.table())

    def images(x: Tensor) -> np.ndarray:
        """Decoded points of the codes' model space, shape (n, height, width)."""
        return autoencoder.decode(codes.to_data(x).float()).reshape(-1, *data.image_shape).numpy()

    def originals(indices: slice) -> tuple[np.ndarray, Tensor]:
        """Test images, and their codes in model space."""
        found = grey(data, next(data.test.batches(2 * WAYS, generator)))[indices]
        points = codes.space.to_model(autoencoder.encode(found), generator)
        return found.reshape(-1, 1, *data.image_shape).numpy(), points

    (first, start_points), (last, end_points) = originals(slice(0, None, 2)), originals(slice(1, None, 2))
    between = interpolated(flow, start_points, end_points, BETWEEN)
    ways = images(between.flatten(0, 1)).reshape(WAYS, BETWEEN, *data.image_shape)
    samples = images(flow.sample(SAMPLES, generator=generator)[0])
    if arguments.figure:
        arguments.figure.parent.mkdir(parents=True, exist_ok=True)
        arguments.figure.write_bytes(png(synthesis_figure(samples, np.concatenate([first, ways, last], axis=1))))
    if arguments.output:
        options = {name: value for name, value in vars(arguments).items() if name not in ("data", "figure", "output")}
        result = {
            "command": "python benchmarks/synthesis.py",
            "options": options,
            **describe(),
            "autoencoder_cpu_seconds": autoencoder_seconds,
            "flow_cpu_seconds": flow_seconds,
            **evaluation.as_dict(),
        }
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
