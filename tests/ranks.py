"""What each of several processes does in tests of processes: a script, started as torchrun starts one.

    RANK=0 WORLD_SIZE=2 MASTER_ADDR=localhost MASTER_PORT=... python tests/ranks.py FOLDER NAME ...

Every NAME is a function here; what it gives lies in FOLDER/RANK.pt afterwards.
"""

import hashlib
import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch

import isingflow
from isingflow.architectures.monge_ampere import FlowConfig
from isingflow.errors import IsingflowError
from isingflow.evaluation.files import write_samples
from isingflow.monte_carlo.path_files import PathFile
from isingflow.runs.config import RunConfig, TrainingConfig
from isingflow.runs.folder import RunFolder
from isingflow.runs.shared import create, shared
from isingflow.runtime import group, processes, stopping
from isingflow.runtime.launched import place
from isingflow.runtime.sharing import sharing
from isingflow.sampling import sample_chains
from isingflow.training.problems import Likelihood, problem_of
from isingflow.training.products import fitted_map
from isingflow.training.trainer import Trainer

CPU = torch.device("cpu")
SMALL = {
    "flow.hidden": 4,
    "flow.radial": 2,
    "flow.oriented": 1,
    "flow.steps": 2,
    "training.batch": 7,
    "training.check_every": 4,
    "training.evaluation_samples": 16,
}
"""A batch that two processes cannot halve."""
WILD = {"training.adapt_steps": False, "training.clip": 0.0, "training.schedule": "constant"}


def magnet():
    return isingflow.HubbardStratonovich(isingflow.lattice.square(4), beta=0.3)


def trained(path, *, settings=None, **options):
    """A small run."""
    given = {"iterations": 9, "progress": False, "settings": SMALL | (settings or {})} | options
    return isingflow.train(magnet(), output=path, **given)


def stopped_at(iteration):
    """What asks a training to stop there, and to go on later."""
    told = []
    return {
        "callbacks": [lambda progress: told.append(progress.iteration) and None],
        "should_stop": lambda: told[-1:] == [iteration],
    }


def resumed(path):
    return isingflow.train(RunFolder.open(path), progress=False)


def digest(flow):
    """A number for the parameters of a flow, to the last bit."""
    return hashlib.sha256(b"".join(value.numpy().tobytes() for value in flow.state_dict().values())).hexdigest()


def failure(function):
    """The kind and words of the error that a function raises."""
    try:
        function()
    except Exception as error:
        return type(error).__name__, str(error)


def backend(folder):
    """Sums, gathered rows, streams, and what the first process says."""
    with processes.together(CPU) as pool:
        ours = torch.full((pool.share(7), 2), float(pool.rank))
        noise = pool.generator(CPU, 5)
        spread = torch.tensor([float(pool.rank)])
        pool.spread([spread])

        def no_more():
            raise IsingflowError("no more")

        def interrupted():
            if pool.rank == 1:
                raise stopping.Stopped(signal.SIGTERM)

        def heard():
            try:
                pool.run(interrupted)
            except stopping.Stopped as stopped:
                return stopped.signal

        return {
            "sums": pool.sum([torch.tensor([1.0, 2.0]) * (1 + pool.rank), torch.ones((2, 2), dtype=torch.float64)]),
            "gathered": pool.gather(ours, 7),
            "unequal": pool.gather(torch.full((2 + pool.rank,), pool.rank)),
            "part": pool.part(torch.arange(7)),
            "spread": spread,
            "stream": torch.randn(3, generator=noise),
            "first": pool.first(lambda: os.getpid()),
            "long": pool.first(lambda: "x" * 10**5),
            "error": failure(lambda: pool.first(no_more)),
            "again": pool.first(lambda: 4),
            "stopped": heard(),
            "clock": pool.clock(),
        }


def gradient(folder):
    """The gradient and values of a batch of which each process has its part."""
    problem = problem_of(RunFolder.open(folder / "blank").config, device=CPU)
    batch = torch.load(folder / "batch.pt")
    with processes.together(CPU) as pool:
        problem.flow.load_state_dict(torch.load(folder / "flow.pt"))
        run = shared(RunFolder.open(folder / "blank"))
        trainer = Trainer(run, problem, None, pool)
        problem.flow.redraw(trainer.draws)
        problem.batch = lambda n, generator: pool.part(batch)[:n]
        loss, values = trainer._differentiated()
    return {"loss": loss, "values": values, "gradients": [parameter.grad for parameter in problem.flow.parameters()]}


def straight(folder):
    """Nine iterations at once, told to callbacks."""
    told = []
    run = trained(folder / "straight", callbacks=[lambda progress: told.append(progress.iteration)])
    return {"digest": digest(run.flow), "told": told, "outcome": run.outcome.value, "path": str(run.path)}


def parted(folder):
    """Five iterations, and the rest later, by as many processes."""
    first = trained(folder / "parted", **stopped_at(5))
    begun = digest(first.flow)
    trained(folder / "for-one", **stopped_at(5))
    return {"outcome": first.outcome.value, "begun": begun, "digest": digest(resumed(folder / "parted").flow)}


def taken_up(folder):
    """What one process has begun."""
    return {"digest": digest(resumed(folder / "by-one").flow)}


def ended(folder):
    """Trainings that callbacks end, or that fail."""
    plateau = trained(folder / "ended", callbacks=[lambda progress: progress.iteration == 3])

    def fails(progress):
        raise ZeroDivisionError("a callback of mine")

    return {
        "outcome": plateau.outcome.value,
        "callback": failure(lambda: trained(folder / "failed", callbacks=[fails])),
        "exists": failure(lambda: trained(folder / "ended")),
        "small": failure(lambda: trained(folder / "small", settings={"training.batch": 1})),
        "diverged": failure(lambda: trained(folder / "diverged", learning_rate=1e6, settings=WILD)),
        "limit": trained(folder / "limit", iterations=10**6, time_limit=2.0).outcome.value,
        "report": isingflow.evaluate(plateau, samples=16, reference_samples=4).as_dict()["samples"],
        "plot": len(isingflow.plot(plateau, samples=16)),
    }


def kinds(folder):
    """Both bounds, a lattice that is begun on a smaller one, a family, and data."""
    found = {"both": trained(folder / "both", bounds="both", iterations=3)}
    training = TrainingConfig(
        iterations=3, batch=7, evaluation_samples=16, coarse=TrainingConfig(iterations=3, batch=5)
    )
    flow = FlowConfig(hidden=4, radial=2, oriented=1, steps=2)
    config = RunConfig(isingflow.lattice.square(8), 0.3, "quick", flow=flow, training=training)
    found["coarse"] = isingflow.train(create(folder / "coarse", config), progress=False)
    found["family"] = trained(folder / "family", betas=(0.2, 0.3), iterations=3)

    found["products"] = trained(folder / "products", iterations=3, settings={"training.batch": 701})
    products = fitted_map(found["products"].flow).potential
    data = isingflow.datasets.load("moons", seed=0)
    settings = {"training.batch": 7, "training.check_every": 4}
    found["data"] = isingflow.train(data, output=folder / "data", iterations=9, settings=settings, progress=False)
    assert isinstance(found["data"].problem, Likelihood)
    return {name: digest(run.flow) for name, run in found.items()}, products.resting


def shared_map(folder):
    """What the pool of all gives, and how many rows each has computed; and where a signal to one of them stops both."""
    told = []

    def rows(share):
        told.append(len(share))
        return share.double(), [share.sum(1), (share[:, 0] * 2,)]

    with stopping.StopRequest().listening(), sharing(CPU) as pool:
        batch = torch.arange(14.0).view(7, 2) + 100 * pool.group.rank
        found = {"results": pool.map(rows, batch), "one": pool.map(rows, batch[:1]), "told": list(told)}
        found["alone"] = pool.first(lambda: len(pool.map(rows, batch)))
        found["total"] = pool.total(0.5 + pool.group.rank), pool.first(lambda: pool.total(3.0))
        found["noise"] = torch.randn(3, generator=pool.generator(CPU, 5))
        found["clock"] = stopping.clock()
        found["late"] = stopping.within(0.0, lambda: [pool.map(rows, batch), pool.map(rows, batch)])
        found["error"] = failure(lambda: pool.first(lambda: 1 / 0))
        maps = 0
        try:
            while True:
                if (maps, pool.group.rank) == (2, 1):
                    os.kill(os.getpid(), signal.SIGTERM)
                    found["before"] = stopping.requested()
                pool.map(rows, batch)
                maps += 1
        except stopping.Stopped as stopped:
            return found | {"stopped": (maps, stopped.signal)}


def worth(folder):
    """All that is done with a trained flow, but for its seconds."""
    evaluation = isingflow.evaluate(folder / "run", samples=300, reference_samples=40, anneal=3, paths=40, save=False)
    chains = {"chains": 5, "samples": 3, "warm_up": 8}
    own = folder / str(torch.get_num_threads())
    write_samples(folder / "run", f"{own}-samples.npz", samples=300, draws=2, seed=3)
    data = isingflow.datasets.load("moons", seed=0)
    write_samples(folder / "data", f"{own}-data.npz", samples=300, data=data)
    return {
        "evaluation": untimed(evaluation.as_dict()),
        "samples": evaluation.samples.spins,
        "resampled": untimed(isingflow.evaluate(folder / "run", samples=16, anneal=3, paths=32, resample=True)),
        "family": untimed(isingflow.evaluate(folder / "family", samples=20, betas=[0.2, 0.25])),
        "data": untimed(isingflow.evaluate(folder / "data", data=data, samples=270)),
        "latent": sample_chains(folder / "run", space="latent", output=f"{own}-chains.npz", **chains).field,
        "metropolis": sample_chains(folder / "run", sampler="metropolis", **chains).field,
        "gibbs": sample_chains(folder / "run", sampler="gibbs", **chains).field,
        "longer": sample_chains(
            folder / "run", space="latent", output=f"{own}-chains.npz", resume=True, **chains | {"samples": 5}
        ).field,
        "goal": untimed({**to_goal(folder, samples=16, anneal=20), "alone": {}}),  # which goes by the clock
    }


def to_goal(folder, paths=20, **options):
    """What paths from a flow to its goal say."""
    return isingflow.evaluate(folder / "goal", paths=paths, **options).as_dict()["annealed_to"]


def untimed(found):
    """A report without seconds."""
    found = found if isinstance(found, dict | list) else found.as_dict()
    if isinstance(found, list):
        return [untimed(part) if isinstance(part, dict | list) else part for part in found]
    return {
        name: untimed(part) if isinstance(part, dict | list) else part
        for name, part in found.items()
        if "seconds" not in name
    }


def hurried(folder):
    """Evaluations in less time than they take: all do as much of them."""
    found = isingflow.evaluate(folder / "run", samples=10**5, anneal=10**4, time_limit=1.5, save=False)
    return untimed(found), untimed(to_goal(folder, paths=10**5, anneal=100, time_limit=3.0))


def paths(folder):
    """Annealing, at once, and once more without some of the paths."""
    lattice, output = isingflow.lattice.square(4, 6), folder / f"paths-{place().world}.npz"
    options = {"paths": 21, "sweeps": 40, "seed": 4, "output": output}
    report = isingflow.anneal(lattice, [0.2, 0.4], **options)

    def torn():
        file = PathFile.read(output)
        file.paths.forward[::3] = file.paths.reverse[5:] = np.nan
        file.save(output)

    processes.first(torn)
    resumed = isingflow.anneal(lattice, [0.2, 0.4], resume=True, **options)
    return untimed(report.as_dict()), untimed(resumed.as_dict())


def failing(folder):
    """Errors of the first process, and of all."""
    here = folder / "here.npz"
    here.touch() if place().rank == 0 else None
    return {
        "there": failure(lambda: write_samples(folder / "nowhere", folder / "new.npz", samples=3)),
        "exists": failure(lambda: isingflow.anneal(isingflow.lattice.square(4), 0.3, output=here)),
        "chains": failure(lambda: sample_chains(folder / "run", space="latent", chains=2, samples=2, output=here)),
        "alone": len(isingflow.plot(folder / "run", samples=16)) > 0,
    }


def silent(folder):
    """The second process stops for good, without an end."""
    group.LOOK, group.BEAT, group.SILENCE = 0.2, 0.2, 3.0

    def objective(flow, target, z, settings):
        if place().rank == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        return isingflow.training.objectives.reverse_kl(flow, target, z, settings)

    return {"error": failure(lambda: trained(folder / "silent", objective=objective))}


def main(folder, *names):
    torch.set_num_threads(1)
    found = {name: globals()[name](folder) for name in names}
    torch.save(found, folder / f"{place().rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
