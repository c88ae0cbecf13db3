"""Hamiltonian Monte Carlo in the latent space of trained runs, against physical space at its best.

    OMP_NUM_THREADS=1 python benchmarks/hmc.py RUN0 RUN1 RUN2 --output docs/benchmarks/hmc-16.json

The seed of the chains is the position of the run: 0, 1, 2. Chains, all at once: acceptance, autocorrelation time of m^2
and of the energy in trajectories, R-hat, and effective samples per evaluation of the energy. In latent space an
evaluation is that of the flow and its log-determinant, in either direction, counted as a gradient also where none is
taken; in physical space it is a gradient. So that counts favour no one, effective samples per second of processor time
are given as well. Physical space has its mass matrix adapted, trajectories of several lengths, and as many samples as
make its chains at least 50 autocorrelation times long.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from pathlib import Path

import torch
from machine import describe

from isingflow.evaluation.targets import load_run
from isingflow.exact import thermodynamics
from isingflow.flows.certificate import log_weights, pushed
from isingflow.observables import per_sample
from isingflow.runs.folder import RunFolder
from isingflow.sampling import FlowMetropolis, HamiltonianMonteCarlo, Sampler, latent, physical, run_chains
from isingflow.statistics.mixing import Mixing
from isingflow.statistics.weights import effective_sample_size

CPU = torch.device("cpu")


def measure(sampler: Sampler, *, chains: int, samples: int, warm_up: int, seed: int) -> dict:
    """Run chains and say how they mix; the costs are those of the kept part."""
    options = {"chains": chains, "warm_up": warm_up, "seed": seed}
    begun = run_chains(sampler, samples=1, **options)
    started = time.process_time()
    found = run_chains(sampler, samples=samples, earlier=begun, **options)
    seconds = time.process_time() - started
    lattice = found.lattice
    series = per_sample(lattice, field=found.field)
    energy, magnetisation = Mixing.of(series.energy / lattice.sites), Mixing.of(series.magnetisation_squared)
    exact = thermodynamics(lattice, found.beta).energy_per_site
    result = {
        "samples": samples,
        "warm_up": warm_up,
        "acceptance": float(found.acceptance.mean()),
        "tau_magnetisation_squared": magnetisation.tau,
        "tau_energy": energy.tau,
        "r_hat": max(energy.r_hat, magnetisation.r_hat),
        "energy_deviation": (energy.mean.value - exact) / energy.mean.stderr,
        "processor_seconds": seconds,
        "effective_samples_per_second": magnetisation.effective_samples / seconds,
    }
    evaluations = chains * samples
    if isinstance(sampler, HamiltonianMonteCarlo):
        evaluations = found.facts["evaluations"]
        result |= {name: found.facts[name] for name in ("step_size", "guided", "divergences")}
    return result | {
        "evaluations_per_trajectory": evaluations / (chains * samples),
        "effective_samples_per_evaluation": magnetisation.effective_samples / evaluations,
    }


def show(name: str, found: dict) -> None:
    print(
        f"{name:<28} acceptance {found['acceptance']:.3f}  tau(m^2) {found['tau_magnetisation_squared']:7.2f}  "
        f"R-hat {found['r_hat']:.4f}  per evaluation {found['effective_samples_per_evaluation']:.4f}  "
        f"per second {found['effective_samples_per_second']:.0f}",
        flush=True,
    )


def compare(path: Path, seed: int, arguments: argparse.Namespace) -> dict:
    """Latent and physical space on the magnet of a run."""
    flow, target, _ = load_run(RunFolder.open(path), CPU)
    common = {"chains": arguments.chains, "seed": seed}
    with torch.no_grad():
        noise = flow.noise(1024, torch.Generator().manual_seed(seed))
        quality = effective_sample_size(log_weights(target.energy, *pushed(flow, noise)))
    print(f"{target.lattice}, beta {target.beta:.6f}; effective sample size of the flow {100 * quality:.0f} %")

    results = {"latent": measure(latent(flow, target), samples=arguments.samples, warm_up=50, **common)}
    show("latent", results["latent"])
    sampler = FlowMetropolis(flow, target)
    results["flow_metropolis"] = measure(sampler, samples=arguments.samples, warm_up=50, **common)
    show("flow as proposal", results["flow_metropolis"])
    if arguments.guided:
        sampler = latent(flow, target, guided=True, length=math.pi / 2, chances=1)
        results["latent_guided"] = measure(sampler, samples=arguments.guided, warm_up=arguments.guided // 2, **common)
        show("latent, guided", results["latent_guided"])
    lengths = {}
    for length in arguments.lengths:
        samples, tau = 400, math.inf
        while samples < 50 * tau and samples <= 12800:
            samples *= 2
            lengths[length] = measure(physical(target, length=length), samples=samples, warm_up=800, **common)
            tau = lengths[length]["tau_magnetisation_squared"]
        show(f"physical, length {length:g}", lengths[length])
    results["physical"] = [{"length": length, **found} for length, found in lengths.items()]
    ratios = {
        f"per_{cost}": results["latent"][f"effective_samples_per_{cost}"]
        / max(found[f"effective_samples_per_{cost}"] for found in lengths.values())
        for cost in ("evaluation", "second")
    }
    print(f"latent against the best in physical space: {json.dumps(ratios)}")
    return {
        "lattice": str(target.lattice),
        "beta": target.beta,
        "effective_sample_size": quality,
        **common,
        "ratio": ratios,
        **results,
    }


def medians(runs: list[dict]) -> dict:
    """What the targets name, over all runs."""
    named = ("acceptance", "tau_magnetisation_squared", "r_hat", "effective_samples_per_evaluation")
    found = {name: statistics.median(run["latent"][name] for run in runs) for name in named}
    return found | {f"ratio_{name}": statistics.median(run["ratio"][name] for run in runs) for name in runs[0]["ratio"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of trained runs; nothing is written into them")
    parser.add_argument("--chains", type=int, default=64)
    parser.add_argument("--samples", type=int, default=300, help="trajectories in latent space (default 300)")
    parser.add_argument("--lengths", type=float, nargs="+", default=[1.0, 2.0, 4.0, 8.0])
    parser.add_argument("--guided", type=int, default=0, help="trajectories guided by the flow's gradient (default 0)")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()

    runs = [compare(path, seed, arguments) for seed, path in enumerate(arguments.runs)]
    document = {
        "command": f"OMP_NUM_THREADS=1 python benchmarks/hmc.py {' '.join(sys.argv[1:])}",
        **describe(),
        "median": medians(runs),
        "runs": runs,
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
