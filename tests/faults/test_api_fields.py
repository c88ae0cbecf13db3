"""Bad calls to what takes fields, devices, seeds and counts: each is refused in one line, and warns of nothing.

The tables are callables, each of one argument, and values that it must not take. Every value must raise an error of
ours that is a ValueError or a TypeError too.
"""

import math
import warnings
from functools import cache, partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import isingflow
from isingflow.errors import IsingflowError
from isingflow.evaluation.chains import chains_report
from isingflow.evaluation.files import write_samples
from isingflow.evaluation.targets import draw_samples, evaluate_target
from isingflow.flows import (
    ActNorm,
    CholeskyLogdet,
    ConvexFlow,
    Flow,
    GaussianWhitening,
    GradientFlow,
    HistogramMarginals,
    Inverted,
    LanczosLogdet,
    Logit,
    SpectralScaling,
    Viewed,
    diagnostics,
)
from isingflow.flows.spectral import EigenBasis, FourierBasis
from isingflow.lattice import Group, square
from isingflow.lattice.symmetry import square_torus_group
from isingflow.potentials import (
    ConvexPotential,
    DensePotential,
    ImagePotential,
    LatticeConvexPotential,
    LatticePotential,
    LatticeResidualPotential,
    ResidualPotential,
    group_average,
)
from isingflow.runtime import devices
from isingflow.sampling import (
    BlockGibbs,
    FieldDraws,
    FlowMetropolis,
    latent,
    physical,
    run_chains,
    sample_chains,
)
from isingflow.targets import HubbardStratonovich, Phi4, Target, as_target, check_target
from isingflow.testing import check_flow, check_transform
from isingflow.training import Plateau

LONGEST = 300
NAN, INF = math.nan, math.inf
CPU = torch.device("cpu")

JUNK = ["x", None, object(), [1], {}, 1j, b"1"]
COUNTS = [*JUNK, 0, -1, 1.5, NAN, True, 10**30]
FROM_ZERO = [*JUNK, -1, 1.5, NAN, True, 10**30]
SEEDS = ["x", None, -1, 1.5, 2**70, NAN, True, [1]]
NUMBERS = [*JUNK, NAN, INF, -INF, True]
POSITIVE = [*NUMBERS, 0, -1]
DEVICES = ["tpu", "cuda:7", "", "CPU", None, 3, 1.5, b"cpu", ["cpu"], torch.device("meta"), torch.device("cuda:7")]
GENERATORS = [0, "x", 1.5, np.random.default_rng(0), torch.Generator]
FLAGS = ["yes", 2, None, [], 1.0]
FUNCTIONS = ["x", 3, [1]]
OPTIONS = ["nothing", "", 3, [], b"x"]
OBJECTS = ["x", 3, object(), [1], {}]
SHAPES = ["x", None, 3, (), (0,), (-1, 4), (4.5,), (None,), ("4",), {4}]
ARRAYS = ["x", None, object(), {}, [[1, 2], [3]], ["a"], np.zeros((3, 4, 4), complex), np.full((3, 4, 4), None)]
TENSORS = [
    torch.zeros(3, 4, 4, dtype=torch.bool),
    torch.zeros(3, 4, 4, dtype=torch.complex64),
    torch.zeros(3, 4, 4).to_sparse(),
    np.zeros((3, 4, 4), bool),
    np.full((3, 4, 4), "x"),
]
ANY_LEADING = [*ARRAYS, *TENSORS, torch.zeros(3, 4, 5), torch.zeros(3, 4, 1), torch.zeros(16), torch.zeros(()), 3.0]
"""What are no fields of shape (..., 4, 4)."""
FIELDS = [*ANY_LEADING, torch.zeros(4, 4), np.zeros((4, 4)), torch.zeros(1, 3, 4, 4), torch.zeros(3, 1, 1)]
"""What are no fields of shape (n, 4, 4)."""
ELSEWHERE = [*FIELDS, torch.zeros(3, 4, 4, device="meta")]
STATES = [
    *ANY_LEADING,
    torch.zeros(3, 4, 4),
    torch.full((3, 4, 4), NAN),
    torch.full((3, 4, 4), 2),
    np.ones((3, 4, 4)) / 2,
]
"""What are no spins."""


def but(values: list, *accepted: object) -> list:
    """The values without some, which are accepted here."""
    return [value for value in values if not any(value is one for one in accepted)]


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@cache
def magnet() -> HubbardStratonovich:
    return HubbardStratonovich(square(4), 0.4)


@cache
def flow() -> Flow:
    potential = DensePotential((4, 4), 3, generator=source())
    return Flow((4, 4), [*magnet().start().latent, GradientFlow(potential, steps=2)]).eval().requires_grad_(False)


@cache
def convex_flow() -> Flow:
    return Flow((4, 4), [ConvexFlow(ConvexPotential((4, 4), width=3, generator=source()))]).eval().requires_grad_(False)


class Quartic(Target):
    shape = (4, 4)

    def energy(self, field):
        return field.pow(4).flatten(1).sum(1)


def noise(n: int = 3) -> torch.Tensor:
    return torch.randn(n, 4, 4, generator=source())


def dense(**changes: object) -> DensePotential:
    return DensePotential(**{"shape": (4, 4), "hidden": 3, "generator": source()} | changes)


def resnet(**changes: object) -> ResidualPotential:
    return ResidualPotential(**{"shape": (4, 4), "width": 3, "generator": source()} | changes)


def on_lattice(kind: type, **changes: object) -> object:
    sizes = {"hidden": 3} if kind is LatticePotential else {"width": 3}
    return kind(**{"symmetry": square_torus_group(4, 4), "radial": 2, "generator": source()} | sizes | changes)


def convex(**changes: object) -> ConvexPotential:
    return ConvexPotential(**{"shape": (4, 4), "width": 3, "generator": source()} | changes)


def image(**changes: object) -> ImagePotential:
    return ImagePotential(**{"image_shape": (4, 4), "features": 2, "generator": source()} | changes)


def gradient(**changes: object) -> GradientFlow:
    return GradientFlow(**{"potential": dense(), "steps": 2} | changes)


GOOD: list = []
"""Functions that can be called as they are: what is bad is one argument alone."""


def named(make, **bad: list) -> dict:
    """Cases for the keyword arguments of a function."""
    GOOD.append(make)
    return {f"{name}={{}}": ((lambda value, name=name: make(**{name: value})), values) for name, values in bad.items()}


def of(owner: str, cases: dict) -> dict:
    return {f"{owner}({name})": case for name, case in cases.items()}


LATTICE_OPTIONS = {"symmetry": [*OBJECTS, None, Group((4,))], "radial": FROM_ZERO, "oriented": FROM_ZERO}
SAMPLER = BlockGibbs(magnet())

FLOWS = {
    "Flow.log_prob": (lambda x: flow().log_prob(x), ELSEWHERE),
    "Flow.forward": (lambda x: flow()(x), ELSEWHERE),
    "Flow.inverse": (lambda x: flow().inverse(x), ELSEWHERE),
    "Flow.forward_with_cost": (lambda x: flow().forward_with_cost(x), ELSEWHERE),
    "Flow.inverse_with_cost": (lambda x: flow().inverse_with_cost(x), ELSEWHERE),
    "Flow.base_log_prob": (lambda x: flow().base_log_prob(x), ELSEWHERE),
    "convex Flow.inverse": (lambda x: convex_flow().inverse(x), ELSEWHERE),
    **of("Flow.sample", named(partial(flow().sample, 3), generator=GENERATORS, batch=but(COUNTS, None))),
    "Flow.sample(n)": (lambda n: flow().sample(n), [*COUNTS, 10**13]),
    "Flow.noise(n)": (lambda n: flow().noise(n), [*COUNTS, 10**13]),
    "Flow.noise(3, generator)": (lambda g: flow().noise(3, g), GENERATORS),
    "Flow.redraw": (lambda g: flow().redraw(g), but(GENERATORS)),
    "Flow(shape)": (lambda shape: Flow(shape, []), SHAPES),
    "Flow(transforms)": (lambda maps: Flow((4, 4), maps), [*OBJECTS, None, [torch.nn.Linear(4, 4)], gradient()]),
    "Flow.to": (lambda dtype: Flow((4, 4), [gradient()]).to(dtype), [torch.float16, torch.bfloat16]),
    "Inverted": (Inverted, [*OBJECTS, None]),
    "Viewed": (lambda shape: Viewed(gradient(), shape, (4, 4)), [*SHAPES, (4,)]),
    **of(
        "GradientFlow",
        named(
            gradient,
            potential=[*OBJECTS, None],
            time=POSITIVE,
            steps=COUNTS,
            tableau=[*OPTIONS, None],
            jitter=[*NUMBERS, 1, -0.1],
            context=but(ARRAYS, None),
            recompute=FLAGS,
        ),
    ),
    "GradientFlow.steps": (lambda steps: setattr(gradient(), "steps", steps), COUNTS),
    **of(
        "ConvexFlow",
        named(
            lambda **options: ConvexFlow(**{"potential": convex()} | options),
            potential=[*OBJECTS, None, dense()],
            logdet=OBJECTS,
            tolerance=[*POSITIVE, 1],
            iterations=COUNTS,
        ),
    ),
    **of(
        "LanczosLogdet", named(LanczosLogdet, probes=COUNTS, steps=COUNTS, tolerance=[*POSITIVE, 1], iterations=COUNTS)
    ),
    "CholeskyLogdet": (CholeskyLogdet, COUNTS),
    **of("ActNorm", named(partial(ActNorm, (4, 4)), common=FLAGS)),
    "ActNorm(shape)": (ActNorm, SHAPES),
    "Logit": (Logit, [*POSITIVE, 0.5]),
    "GaussianWhitening(mean)": (
        lambda mean: GaussianWhitening(mean, torch.eye(2)),
        [*ARRAYS, torch.zeros(3), torch.tensor([NAN, 0])],
    ),
    "GaussianWhitening(covariance)": (
        lambda s: GaussianWhitening(torch.zeros(2), s),
        [
            *ARRAYS,
            torch.eye(3),
            torch.zeros(2, 2),
            torch.zeros(2),
            torch.full((2, 2), NAN),
            torch.tensor([[1.0, 5], [0, 1]]),
        ],
    ),
    "HistogramMarginals": (
        HistogramMarginals,
        [*ARRAYS, torch.zeros(2), torch.zeros(2, 2), torch.ones(2, 2), torch.full((2, 2), NAN), torch.zeros(0, 2)],
    ),
    "HistogramMarginals.fit": (
        HistogramMarginals.fit,
        [[], 3, [torch.zeros(3)], [torch.zeros(0, 2)], [torch.full((2, 2), NAN)]],
    ),
    "SpectralScaling(basis)": (lambda basis: SpectralScaling(basis, torch.ones(4, 4)), [*OBJECTS, None]),
    "SpectralScaling(scale)": (
        lambda scale: SpectralScaling(FourierBasis((4, 4)), scale),
        [*ARRAYS, torch.ones(4), torch.zeros(4, 4), -torch.ones(4, 4), torch.full((4, 4), NAN)],
    ),
    "FourierBasis": (FourierBasis, SHAPES),
    "EigenBasis": (lambda v: EigenBasis((4,), v), [*ARRAYS, torch.eye(3), torch.ones(4, 4), torch.full((4, 4), NAN)]),
    "transport_cost": (lambda z: diagnostics.transport_cost(flow(), z), [*ELSEWHERE, noise(1)]),
    "inverse_error": (lambda z: diagnostics.inverse_error(flow(), z), [*ELSEWHERE, noise(1)]),
    "hjb_residual": (lambda z: diagnostics.hjb_residual(flow(), z), ELSEWHERE),
    "straightness": (lambda z: diagnostics.straightness(flow(), z), [*ELSEWHERE, noise(1)]),
    "straightness(refinement)": (lambda k: diagnostics.straightness(flow(), noise(), refinement=k), COUNTS),
    "trajectories": (lambda z: diagnostics.trajectories(flow(), z), ELSEWHERE),
    "trajectories(flow)": (lambda f: diagnostics.trajectories(f, noise()), [*OBJECTS, None]),
    "trajectories(refinement)": (lambda k: diagnostics.trajectories(flow(), noise(), refinement=k), COUNTS),
    "steps_needed(x)": (lambda x: diagnostics.steps_needed(flow(), x, 0.1), ELSEWHERE),
    "steps_needed(tolerance)": (lambda t: diagnostics.steps_needed(flow(), noise(), t), POSITIVE),
    "devices.resolve": (devices.resolve, DEVICES),
}
POTENTIALS = {
    **of(
        "DensePotential",
        named(
            dense,
            shape=SHAPES,
            hidden=COUNTS,
            activation=[*OPTIONS, None],
            time_terms=COUNTS,
            directions=[*but(ARRAYS, None), torch.zeros(3, 4)],
            generator=[*GENERATORS, None],
        ),
    ),
    **of(
        "ResidualPotential",
        named(
            resnet,
            shape=SHAPES,
            width=COUNTS,
            layers=COUNTS,
            rank=COUNTS,
            directions=[*but(ARRAYS, None), torch.zeros(3, 4)],
            generator=[*GENERATORS, None],
        ),
    ),
    **of(
        "LatticePotential",
        named(
            partial(on_lattice, LatticePotential),
            **LATTICE_OPTIONS,
            hidden=COUNTS,
            time_terms=COUNTS,
            generator=[*GENERATORS, None],
        ),
    ),
    **of(
        "LatticeResidualPotential",
        named(
            partial(on_lattice, LatticeResidualPotential),
            **LATTICE_OPTIONS,
            width=COUNTS,
            layers=COUNTS,
            time_terms=COUNTS,
        ),
    ),
    **of(
        "LatticeConvexPotential",
        named(
            partial(on_lattice, LatticeConvexPotential),
            **LATTICE_OPTIONS,
            width=COUNTS,
            layers=COUNTS,
            augmented=FLAGS,
            activation=[*OPTIONS, None],
            variances=[*but(ARRAYS, None), torch.ones(3, 3), torch.zeros(4, 4), torch.full((4, 4), NAN)],
        ),
    ),
    **of(
        "ConvexPotential",
        named(
            convex,
            shape=SHAPES,
            width=COUNTS,
            layers=COUNTS,
            kind=OPTIONS,
            augmented=FLAGS,
            normalised=FLAGS,
            activation=[*OPTIONS, None],
        ),
    ),
    **of(
        "ImagePotential",
        named(image, image_shape=[*SHAPES, (4,), (4, 4, 4)], features=COUNTS, kernel=[*COUNTS, 4], steepness=POSITIVE),
    ),
    "group_average(potential)": (lambda p: group_average(p, square_torus_group(4, 4), "exact"), [*OBJECTS, None]),
    "group_average(group)": (lambda g: group_average(dense(), g, "exact"), [*OBJECTS, None, Group((3, 3))]),
    "group_average(mode)": (lambda mode: group_average(dense(), square_torus_group(4, 4), mode), [*OPTIONS, None]),
}

TARGETS = {
    **{
        f"HubbardStratonovich.{name}": (lambda x, name=name: getattr(magnet(), name)(x), values)
        for name, values in {
            **dict.fromkeys(
                ("energy", "force", "energy_and_force", "whiten", "unwhiten", "sweep", "draw"), ANY_LEADING
            ),
            "sample_spins": [*ANY_LEADING, torch.full((3, 4, 4), NAN)],
            "sample_field": STATES,
        }.items()
    },
    "sample_spins(generator)": (lambda g: magnet().sample_spins(noise(), g), GENERATORS),
    "sample_field(generator)": (lambda g: magnet().sample_field(torch.ones(3, 4, 4), g), GENERATORS),
    "sweep(nan)": (lambda x: magnet().sweep(x), [torch.full((3, 4, 4), NAN)]),
    **of(
        "HubbardStratonovich",
        named(
            lambda **options: HubbardStratonovich(**{"lattice": square(4), "beta": 0.4} | options),
            lattice=[*OBJECTS, None, (4, 4)],
            beta=[*NUMBERS, 1e300],
            min_eigenvalue=POSITIVE,
        ),
    ),
    "HubbardStratonovich.at(beta)": (lambda beta: magnet().at(beta=beta), NUMBERS),
    **of(
        "Phi4",
        named(
            lambda **options: Phi4(**{"lx": 4, "mass_squared": -1.0, "coupling": 1.0} | options),
            lx=[*COUNTS, 2],
            ly=[*but(COUNTS, None), 2],
            mass_squared=NUMBERS,
            coupling=POSITIVE,
        ),
    ),
    "Phi4.energy": (lambda x: Phi4(4, mass_squared=-1.0, coupling=1.0).energy(x), ANY_LEADING),
    "Phi4.force": (lambda x: Phi4(4, mass_squared=-1.0, coupling=1.0).force(x), FIELDS),
    "a user's force": (lambda x: Quartic().force(x), FIELDS),
    "a user's energy_and_force": (lambda x: Quartic().energy_and_force(x), FIELDS),
    "as_target": (
        as_target,
        [
            *OBJECTS,
            None,
            Quartic,
            Target(),
            *(SimpleNamespace(shape=shape, energy=Quartic().energy) for shape in SHAPES),
        ],
    ),
    "check_target": (check_target, [*OBJECTS, None]),
    "check_target(seed)": (lambda seed: check_target(Quartic(), seed=seed), SEEDS),
    "check_target(device)": (lambda device: check_target(Quartic(), device=device), DEVICES),
    "FieldDraws(target)": (lambda target: FieldDraws(target, None, 0), [*OBJECTS, None, Quartic()]),
    "FieldDraws(free_energy)": (lambda value: FieldDraws(magnet(), value, 0), but(NUMBERS, None)),
    "FieldDraws(seed)": (lambda seed: FieldDraws(magnet(), None, seed), SEEDS),
    "FieldDraws.draw": (lambda spins: FieldDraws(magnet(), None, 0).draw(spins), STATES),
}

CHAINS = {
    **of(
        "run_chains",
        named(
            lambda **options: run_chains(**{"sampler": SAMPLER, "samples": 2, "chains": 2} | options),
            sampler=[*OBJECTS, None, BlockGibbs],
            samples=COUNTS,
            chains=[*COUNTS, 10**13],
            warm_up=FROM_ZERO,
            every=COUNTS,
            seed=SEEDS,
            identity=["x", 3, [1]],
            certified=FLAGS,
            earlier=OBJECTS,
            report_progress=FUNCTIONS,
            keep=FUNCTIONS,
            should_stop=[*FUNCTIONS, None],
        ),
    ),
    **of(
        "sample_chains",
        named(
            lambda **options: sample_chains(
                **{"run": None, "target": magnet(), "sampler": "gibbs", "samples": 2, "chains": 2} | options
            ),
            run=[3, 1.5, [], {}, object(), "no such folder", Path("no such folder")],
            target=[*OBJECTS, None],
            sampler=[*OPTIONS, None],
            space=OPTIONS,
            samples=COUNTS,
            chains=COUNTS,
            warm_up=but(FROM_ZERO, None),
            every=COUNTS,
            seed=SEEDS,
            output=[3, 1.5, []],
            resume=[*FLAGS, True],
            report_progress=FUNCTIONS,
            should_stop=[*FUNCTIONS, None],
        ),
    ),
    **of(
        "latent",
        named(
            lambda **options: latent(**{"flow": flow(), "target": magnet()} | options),
            flow=[*OBJECTS, None, Flow((3, 3), [])],
            target=[*OBJECTS, None],
            guided=FLAGS,
            length=POSITIVE,
            chances=COUNTS,
            acceptance=[*POSITIVE, 1],
            dtype=["x", None, 3, torch.int8, torch.float16],
            pool=[*OBJECTS, None],
        ),
    ),
    **of(
        "physical",
        named(
            lambda **options: physical(**{"target": magnet()} | options),
            target=[*OBJECTS, None],
            length=POSITIVE,
            chances=COUNTS,
            dtype=["x", torch.int8],
        ),
    ),
    "FlowMetropolis(flow)": (lambda f: FlowMetropolis(f, magnet()), [*OBJECTS, None, Flow((3, 3), [])]),
    "FlowMetropolis(target)": (lambda target: FlowMetropolis(flow(), target), [*OBJECTS, None]),
    "BlockGibbs(target)": (BlockGibbs, [*OBJECTS, None, Quartic()]),
    "BlockGibbs(dtype)": (lambda dtype: BlockGibbs(magnet(), dtype=dtype), ["x", None, torch.int8]),
    "chains_report": (chains_report, [*OBJECTS, None]),
}


WHOLE = tuple(GOOD)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained run of the 4x4 torus."""
    path = tmp_path_factory.mktemp("api") / "run"
    return isingflow.train(magnet(), output=path, iterations=1, progress=False, time_limit=1e-9).run


def runs(run) -> dict:
    """What takes a trained run."""
    some = ["no such folder", Path("no such folder"), 3, None, 1.5, [], object()]
    given = {"target": [*OBJECTS, Quartic()], "flow": [*OBJECTS, Flow((3, 3), [])], "data": OBJECTS}
    return {
        "load": (isingflow.load, some),
        **of("load", named(partial(isingflow.load, run), device=DEVICES, target=given["target"], flow=given["flow"])),
        "evaluate": (partial(isingflow.evaluate, save=False), some),
        **of(
            "evaluate",
            named(
                lambda **options: isingflow.evaluate(**{"run": run, "samples": 4, "save": False} | options),
                samples=[*but(COUNTS, None), 1],
                reference_samples=[*but(COUNTS, None), 1],
                resample=FLAGS,
                seed=SEEDS,
                device=DEVICES,
                save=FLAGS,
                **given,
            ),
        ),
        "plot": (isingflow.plot, some),
        **of(
            "plot", named(partial(isingflow.plot, run), samples=but(COUNTS, None), seed=SEEDS, device=DEVICES, **given)
        ),
        **of(
            "write_samples",
            named(
                lambda **options: write_samples(
                    **{"run": run, "output": run.path.parent / "new.npz", "samples": 3, "device": "cpu"} | options
                ),
                run=some,
                output=[3, None, []],
                samples=COUNTS,
                draws=COUNTS,
                seed=SEEDS,
                device=DEVICES,
                report_progress=FUNCTIONS,
                **given,
            ),
        ),
        **of(
            "draw_samples",
            named(
                lambda **options: draw_samples(**{"run": run, "samples": 3, "device": CPU} | options),
                run=some,
                samples=COUNTS,
                draws=COUNTS,
                seed=SEEDS,
                device=DEVICES,
            ),
        ),
        **of(
            "evaluate_target",
            named(
                lambda **options: evaluate_target(**{"run": run, "samples": 4, "device": CPU} | options),
                run=some,
                samples=[*COUNTS, 1],
                reference_samples=[*but(COUNTS, None), 1],
                resample=FLAGS,
                seed=SEEDS,
                device=DEVICES,
            ),
        ),
        "sample_chains(run, device)": (
            lambda device: sample_chains(run, space="latent", samples=2, chains=2, device=device),
            DEVICES,
        ),
    }


def trainings(folder: Path) -> dict:
    """What begins a training."""

    numbered = count()

    def train(**options: object) -> object:
        return isingflow.train(
            **{
                "what": magnet(),
                "output": folder / f"new{next(numbered)}",
                "iterations": 1,
                "progress": False,
                "time_limit": 1e-9,
            }
            | options
        )

    broken = {
        "a float": lambda x: 1.0,
        "one number": lambda x: x.square().sum(),
        "nan": lambda x: x.square().flatten(1).sum(1) * NAN,
    }
    return {
        **of(
            "train",
            named(
                train,
                what=[
                    *OBJECTS,
                    None,
                    Quartic,
                    *(SimpleNamespace(shape=(4, 4), energy=energy) for energy in broken.values()),
                ],
                output=[3, 1.5, []],
                preset=but(OPTIONS, ""),
                flow=[*but(OPTIONS, ""), object(), Flow((3, 3), []), Flow((4, 4), [])],
                bounds=but(OPTIONS, ""),
                iterations=but(COUNTS, None),
                learning_rate=but(POSITIVE, None),
                seed=SEEDS,
                device=DEVICES,
                start=[3, 1.5, [], object(), "no such folder"],
                callbacks=["x", 3, None, [3], ["x"], print],
                optimiser=FUNCTIONS,
                objective=FUNCTIONS,
                time_limit=[*but(NUMBERS, None, INF), -1, 0],
                progress=but(FLAGS, None),
                should_stop=[*FUNCTIONS, None],
            ),
        ),
        **of(
            "Plateau",
            named(Plateau, reading=[None, 3, []], patience=COUNTS, threshold=[*NUMBERS, -1]),
        ),
        "check_flow": (check_flow, [*OBJECTS, None]),
        "check_flow(laws)": (lambda laws: check_flow(flow(), laws=laws), [["nothing"], "nothing", 3, [3]]),
        "check_transform(shape)": (lambda shape: check_transform(gradient(), shape), but(SHAPES, None)),
    }


def refused(call, value: object) -> str:
    """What is wrong with how a bad value is taken; nothing if it is refused as it should be."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            call(value)
        except IsingflowError as error:
            told = str(error)
            if not isinstance(error, ValueError | TypeError):
                return f"{type(error).__name__} is no ValueError or TypeError: {told}"
            if "\n" in told or not 0 < len(told) <= LONGEST:
                return f"{type(error).__name__} of {len(told)} characters: {told[:200]!r}"
        except Exception as error:
            return f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
        else:
            return "accepted"
    return f"warned: {warned[0].message}" if warned else ""


def short(value: object) -> str:
    if isinstance(value, torch.Tensor | np.ndarray):
        return f"{type(value).__name__} {tuple(value.shape)} {value.dtype} {getattr(value, 'device', '')}"
    return repr(value)[:60]


def check(name: str, case: tuple) -> None:
    call, values = case
    found = {short(value): wrong for value in values if (wrong := refused(call, value))}
    assert not found, "\n".join(f"{name} <- {value}: {wrong}" for value, wrong in found.items())


def test_all_else_in_these_calls_is_good():
    for make in WHOLE:
        make()


@pytest.mark.parametrize("name", [*FLOWS, *POTENTIALS, *TARGETS, *CHAINS])
def test_bad_arguments_are_refused_in_one_line(name):
    check(name, {**FLOWS, **POTENTIALS, **TARGETS, **CHAINS}[name])


@pytest.mark.parametrize("name", runs(SimpleNamespace(path=Path("x"))))
def test_bad_arguments_beside_a_run_are_refused_in_one_line(name, run):
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    check(name, runs(run)[name])
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before
    assert not (run.path.parent / "new.npz").exists()


@pytest.mark.parametrize("name", trainings(Path("x")))
def test_bad_arguments_of_trainings_are_refused_in_one_line(name, tmp_path):
    check(name, trainings(tmp_path)[name])
    assert not list(tmp_path.iterdir())
