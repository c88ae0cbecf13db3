"""`isingflow sample`: independent samples of a trained run, in a file."""

from __future__ import annotations

import io
import os
from pathlib import Path

import click

from isingflow.cli.options import DEVICE, JSON, MOST_SAMPLES, RUN, SEED, Whole, open_run
from isingflow.cli.output import print_result, show_notes
from isingflow.errors import InvalidInput, RunFolderError


@click.command("sample")
@RUN
@click.option("--samples", type=Whole(1, MOST_SAMPLES), required=True, metavar="N", help="How many.")
@click.option(
    "--output", type=click.Path(path_type=Path), required=True, metavar="FILE.npz", help="A new file for the arrays."
)
@SEED
@DEVICE
@JSON
def command(run: Path, samples: int, output: Path, seed: int, device: str, as_json: bool) -> None:
    """Independent samples of a trained run: spins, field, log_prob, log_weight, beta and size in one .npz file.

    They follow the flow; averages over the Ising model need the weights exp(log_weight).
    """
    _check_new_file(output)
    show_notes(quiet=as_json)
    folder, where = open_run(run, device)
    import numpy as np

    from isingflow.evaluation import draw_samples
    from isingflow.files import write_atomically

    drawn = draw_samples(folder, samples=samples, device=where, seed=seed)
    buffer = io.BytesIO()
    np.savez(buffer, **drawn.arrays())
    try:
        write_atomically(output, buffer.getvalue())
    except OSError as error:
        raise RunFolderError(f"cannot write {output}: {error.strerror}") from error
    document = {"output": str(output), "samples": samples, "size": list(folder.config.lattice.size), "beta": drawn.beta}
    print_result(document, as_json, lambda: f"{samples} samples in {output}")


def _check_new_file(path: Path) -> None:
    if path.suffix != ".npz":
        raise InvalidInput(f"--output {path}: expected a file name that ends in .npz")
    if path.exists() or path.is_symlink():
        raise InvalidInput(f"--output {path}: exists already; choose another name")
    if not path.parent.is_dir():
        raise InvalidInput(f"--output {path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise InvalidInput(f"--output {path}: the folder {path.parent} cannot be written")
