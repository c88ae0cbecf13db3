"""The benchmark of graphics cards, tiny and on a CPU: rows are measured once, kept, and say why where there is none."""

import copy
import json
import sys
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="module")
def gpu():
    folder = str(Path(__file__).parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        import gpu
    finally:
        sys.path.remove(folder)
    return gpu


def test_rows_are_measured_once(gpu, tmp_path, capsys):
    file = tmp_path / "gpu.json"
    command = ["--device", "cpu", "--quick", "--output", str(file), "--only"]
    gpu.main([*command, "step-8", "precision"])
    first = json.loads(file.read_text())
    step, precision = first["rows"]["step-8"], first["rows"]["precision"]
    assert (step["sites"], step["batch"]) == (16, 4) and 0 < step["seconds"] == 4 * step["seconds_per_sample"]
    assert precision["float32_throughout"] and 0 < precision["largest_difference_nats"]["cpu"] < 1e-3
    gpu.main([*command, "step-8", "step-16"])
    second = json.loads(file.read_text())
    assert second["rows"]["step-8"] == step and second["rows"]["precision"] == precision
    assert set(second["rows"]) == {"step-8", "precision", "step-16"} and set(second["slopes"]) == {"step"}
    assert (tmp_path / "gpu-steps.png").stat().st_size > 1000
    with pytest.raises(SystemExit, match="2"):
        gpu.main(["--device", "cpu", "--output", str(file), "--only", "step-8"])
    assert "choose another --output" in capsys.readouterr().err and json.loads(file.read_text()) == second


def test_a_row_that_is_not_possible_says_why_and_is_tried_again(gpu, tmp_path, monkeypatch):
    def fails(bench):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 TiB")

    file = tmp_path / "gpu.json"
    command = ["--device", "cpu", "--quick", "--output", str(file), "--only", "step-8", "step-16"]
    monkeypatch.setitem(gpu.ROWS, "step-8", gpu.Row("too large", fails))
    gpu.main(command)
    rows = json.loads(file.read_text())["rows"]
    assert rows["step-8"] == {"impossible": "OutOfMemoryError: CUDA out of memory.", "what": "too large"}
    assert rows["step-16"]["seconds"] > 0
    monkeypatch.setitem(gpu.ROWS, "step-8", gpu.Row("small enough", lambda bench: {"sites": 16}))
    gpu.main(command)
    assert json.loads(file.read_text())["rows"]["step-8"] == {"sites": 16, "what": "small enough"}


def test_slopes_are_powers(gpu):
    rows = {f"step-{n}": {"sites": n**2, "seconds_per_sample": 3e-6 * n**2.5} for n in gpu.LENGTHS[1:]}
    rows |= {"step-8": {"impossible": "why"}, "cpu-step-8": {"sites": 64, "seconds_per_sample": 1.0}}
    assert gpu.slopes(rows) == {"step": pytest.approx(1.25)}


@pytest.mark.parametrize("trained", ["train-16", "train-64"])
def test_figures_are_of_what_there_is(gpu, tmp_path, trained):
    step = {"sites": 64, "seconds_per_sample": 0.1, "peak_bytes": None, "foreseen_bytes": None}
    gap = {"value": 0.2, "stderr": 0.01}
    rows = {
        "step-8": step,
        "recompute-16": {"impossible": "why"},
        "rates": {"impossible": "why"},
        trained: {"gap_nats": gap, "effective_sample_size": 0.6, "training_seconds": 100.0},
    }
    gpu.draw(rows, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"gpu-trainings.png"}
    larger = {"sites": 256, "seconds_per_sample": 0.4, "peak_bytes": 2**20, "foreseen_bytes": 2**19}
    by_batch = [{"batch": n, "samples_per_second": 10.0 * n, "log_densities_per_second": 9.0 * n} for n in (4, 16)]
    gpu.draw(rows | {"step-16": larger, "rates": {"by_batch": by_batch}}, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"gpu-trainings.png", "gpu-steps.png", "gpu-memory.png", "gpu-rates.png"}


def test_fewer_digits_than_float32_are_seen(gpu, tmp_path):
    """Parameters in the ten bits that TF32 has are beyond what the row allows."""
    bench = gpu.Bench(torch.device("cpu"), True, tmp_path)
    flow = gpu.isingflow.load(bench.quick_16.path, device="cpu")
    field, _ = flow.sample(16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
        exact = copy.deepcopy(flow).double().log_prob(field.double())
        allowed = gpu.LOOSEST * gpu.largest(flow, field, exact)
        for parameter in flow.parameters():
            parameter.copy_(parameter.half())
        assert 0 < 10 * allowed < gpu.largest(flow, field, exact)
