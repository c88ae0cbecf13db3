"""What enters a flow: the right answer whatever its type, or one line; the same for flows of every kind."""

import copy
import math
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_flow_laws import FLOWS, awake, convex_of, generator

import isingflow
from isingflow.architectures.build import build_flow
from isingflow.architectures.cp_flow import ConvexFlowConfig
from isingflow.architectures.ot_flow import OTFlowConfig
from isingflow.datasets import load as load_data
from isingflow.errors import InvalidInput, InvalidTransform, NotConverged, WrongType
from isingflow.flows import ActNorm, Flow, GradientFlow, Transform
from isingflow.lattice import square
from isingflow.potentials import DensePotential, ImagePotential
from isingflow.runs.config import FlowConfig
from isingflow.sampling import sample_chains
from isingflow.targets import HubbardStratonovich

ALL = FLOWS | {
    "image": lambda seed=0: Flow(
        (12,), [GradientFlow(ImagePotential((3, 4), features=3, generator=generator(seed)), steps=3)]
    )
}
every_flow = pytest.mark.parametrize("make", ALL.values(), ids=ALL)
METHODS = ("log_prob", "forward", "inverse", "forward_with_cost", "inverse_with_cost", "base_log_prob")


def settled(make) -> Flow:
    """In evaluation mode, with all parameters moved."""
    return awake(make()).eval().requires_grad_(False)


def inside(flow: Flow, n: int = 3) -> torch.Tensor:
    """Fields that the flow gives, which are as far inside of where it is defined as can be."""
    return flow(flow.noise(n, generator(3)))[0].detach()


def parts(given) -> list[torch.Tensor]:
    """The tensors in what a flow gives."""
    flat = [given] if isinstance(given, torch.Tensor) else [*given[:2], *(part for cost in given[2:] for part in cost)]
    return list(flat)


@contextmanager
def defaults(dtype=torch.float32, device="cpu"):
    torch.set_default_dtype(dtype)
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)


CONVERSIONS = {
    "float64": lambda x: x.double(),
    "float16": lambda x: x.half(),
    "bfloat16": lambda x: x.bfloat16(),
    "numpy": lambda x: x.numpy(),
    "numpy float64": lambda x: x.double().numpy(),
    "numpy, byte-swapped": lambda x: x.numpy().astype(">f4"),
    "numpy, read-only": lambda x: np.broadcast_to(x.numpy(), x.shape),
    "lists": lambda x: x.tolist(),
    "backwards": lambda x: x.numpy()[::-1],
    "not contiguous": lambda x: torch.stack([x, x], -1)[..., 0],
}


@every_flow
@pytest.mark.parametrize("method", METHODS)
def test_numbers_of_every_type_are_converted(make, method):
    """What comes out is that of the same numbers in the flow's own type, and of that type."""
    flow = settled(make)
    call, x = getattr(flow, method), inside(flow)
    for name, convert in CONVERSIONS.items():
        given = convert(x)
        meant = torch.tensor(np.array(given, np.float32)) if not isinstance(given, torch.Tensor) else given.float()
        for ours, expected in zip(parts(call(given)), parts(call(meant)), strict=True):
            assert ours.dtype == expected.dtype, name
            torch.testing.assert_close(ours, expected, rtol=2e-5, atol=2e-5, msg=lambda text: f"{name}: {text}")  # noqa: B023
    assert "prob" in method or call(x.double())[0].dtype == torch.float32


@pytest.mark.parametrize("name", [name for name in ALL if name not in ("on data", "image")])
@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, np.int16, np.uint64])
def test_integers_are_numbers(name, dtype):
    flow = settled(ALL[name])
    ones = torch.ones(2, *flow.shape)
    ones[1, ..., 0] = 3
    whole = ones.to(dtype) if isinstance(dtype, torch.dtype) else ones.numpy().astype(dtype)
    assert torch.equal(flow.log_prob(whole), flow.log_prob(ones))


@every_flow
@pytest.mark.parametrize("method", METHODS)
def test_an_empty_batch_gives_an_empty_batch(make, method):
    flow = make()
    for mode in (flow.eval(), flow.train()):
        for ours in parts(getattr(mode, method)(torch.zeros(0, *flow.shape))):
            assert ours.shape in ((0, *flow.shape), (0,))


@every_flow
@settings(max_examples=15)
@given(data=st.data())
def test_other_shapes_are_refused(make, data):
    """Whatever the number of entries, by every method, and in the same words."""
    flow = CACHED.setdefault(make, settled(make))
    longest = len(flow.shape) + 2
    shape = tuple(data.draw(st.lists(st.sampled_from([0, 1, *flow.shape, 5, math.prod(flow.shape)]), max_size=longest)))
    if len(shape) == len(flow.shape) + 1 and shape[1:] == flow.shape:
        return
    method = data.draw(st.sampled_from(METHODS))
    with pytest.raises(InvalidInput, match=r"^[xz] has shape \(.*\), expected \(n, ") as error:
        getattr(flow, method)(torch.zeros(shape))
    assert ("axis in front" in str(error.value)) == (shape == flow.shape)


CACHED: dict = {}


@every_flow
def test_double_precision_is_the_same_flow(make):
    flow = settled(make)
    exact = copy.deepcopy(flow).double()
    z = flow.noise(4, generator(3))
    assert exact.noise(2).dtype == exact(z)[0].dtype == exact.sample(2)[0].dtype == torch.float64
    for ours, expected in zip(flow(z), exact(z), strict=True):
        torch.testing.assert_close(ours.double(), expected, rtol=1e-4, atol=1e-4)
    back = copy.deepcopy(exact).float()
    for ours, expected in zip(back(z), flow(z), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@every_flow
@pytest.mark.parametrize("convert", [Flow.half, Flow.bfloat16, lambda flow: flow.to(torch.float16)])
def test_half_precision_is_refused_and_leaves_the_flow_as_it_was(make, convert):
    flow = settled(make)
    z, before = flow.noise(2, generator()), copy.deepcopy(flow)
    with pytest.raises(WrongType, match=r"^a flow in b?float16: expected float32 or float64$"):
        convert(flow)
    for ours, expected in zip(flow(z), before(z), strict=True):
        assert torch.equal(ours, expected)


@every_flow
def test_gradients_pass_through_the_conversion(make):
    flow = settled(make)
    x = inside(flow)
    (expected,) = torch.autograd.grad(flow.log_prob(x.requires_grad_()).sum(), x)
    wide = x.detach().double().requires_grad_()
    (ours,) = torch.autograd.grad(flow.log_prob(wide).sum(), wide)
    assert ours.dtype == torch.float64 and torch.equal(ours.float(), expected)


@every_flow
def test_nan_spoils_its_own_sample_alone(make):
    flow = settled(make)
    x = inside(flow)
    spoilt = x.clone()
    spoilt[1].flatten()[0] = math.nan
    if convex_of(flow):
        with pytest.raises(NotConverged, match="1 of 3 samples"):
            flow.log_prob(spoilt)
            flow(spoilt)
        return
    ours, expected = flow.log_prob(spoilt), flow.log_prob(x)
    assert bool(ours[1].isnan())
    torch.testing.assert_close(ours[[0, 2]], expected[[0, 2]])


# --- torch's defaults

TARGET = HubbardStratonovich(square(4), 0.4)
ARCHITECTURES = {
    "Monge-Ampere": FlowConfig(hidden=3, radial=2, oriented=1, steps=2),
    "dense": FlowConfig(potential="dense", hidden=3, steps=2),
    "dense, averaged": FlowConfig(potential="dense", hidden=3, steps=2, average="sampled"),
    "OT-Flow": OTFlowConfig(steps=2),
    "CP-Flow": ConvexFlowConfig(),
}
SET = {
    "float64": {"dtype": torch.float64},
    "float16": {"dtype": torch.float16},
    "another device": {"device": "meta"},
    "both": {"dtype": torch.float64, "device": "meta"},
}


@pytest.mark.parametrize("options", SET.values(), ids=SET)
@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_torchs_defaults_change_nothing(architecture, options):
    """Set before a flow is built, or after it: the same parameters, and the same numbers from them."""
    usual = build_flow(TARGET, architecture, seed=1)
    with defaults(**options):
        built = build_flow(TARGET, architecture, seed=1)
    for name, value in usual.state_dict().items():
        assert torch.equal(value, built.state_dict()[name]), name
        assert value.dtype == built.state_dict()[name].dtype
    flow = awake(usual).eval()
    z = flow.noise(3, generator(1))
    x, log_prob = flow.sample(3, generator=generator(1))
    costs = parts(flow.forward_with_cost(z))
    with defaults(**options):
        again, same = flow.sample(3, generator=generator(1))
        assert again.dtype == torch.float32
        assert torch.equal(x, again) and torch.equal(log_prob, same)
        assert all(map(torch.equal, costs, parts(flow.forward_with_cost(z))))
        torch.testing.assert_close(flow.log_prob(x), log_prob, rtol=1e-3, atol=1e-3)
        flow.redraw(generator(1))


@pytest.mark.parametrize("options", [SET["float64"]], ids=["float64"])
@pytest.mark.parametrize("what", [TARGET, load_data("moons")], ids=["magnet", "data"])
def test_trainings_are_the_same_whatever_torchs_defaults(what, options, tmp_path):
    """A run made, loaded, evaluated and sampled under other defaults, against one under the usual."""
    found = []
    for name, chosen in (("usual", {}), ("other", options)):
        with defaults(**chosen):
            run = isingflow.train(what, output=tmp_path / name, iterations=3, progress=False)
            flow = isingflow.load(tmp_path / name)
            numbers = [line["loss"] for line in run.run.metrics()]
            numbers += [tensor.tolist() for tensor in flow.sample(4, generator=generator(2))]
            numbers += [{**isingflow.evaluate(run, samples=16, device="cpu").as_dict(), "training_seconds": 0}]
            if what is TARGET:
                numbers += [sample_chains(run.run, space="latent", samples=2, chains=2, warm_up=2).field.tolist()]
        found.append(numbers)
    assert found[0] == found[1]


def test_a_flow_of_ones_own_has_the_type_of_its_parameters():
    dense = DensePotential((4,), 3, generator=generator())
    with defaults(torch.float64):
        flow = Flow((4,), [GradientFlow(dense, steps=2)])
        assert flow.dtype == torch.float32 and Flow((4,), []).dtype == torch.float64
    assert Flow((4,), []).dtype == torch.float32
    assert Flow((4,), [GradientFlow(copy.deepcopy(dense).double(), steps=2)]).noise(1).dtype == torch.float64
    mixed = Flow((4,), [GradientFlow(dense, steps=2), ActNorm((4,)).double()])
    assert mixed.dtype == torch.float64 and mixed.log_prob(torch.zeros(2, 4)).shape == (2,)
    with pytest.raises(WrongType, match="a flow in float16"):
        Flow((4,), [ActNorm((4,)).half()])
    with pytest.raises(InvalidInput, match="on cpu and meta: expected all of them on one device"):
        Flow((4,), [ActNorm((4,)), ActNorm((4,)).to("meta")])


def test_tensors_elsewhere_are_refused():
    flow = Flow((4,), [ActNorm((4,))]).eval()
    for method in METHODS:
        with pytest.raises(InvalidInput, match=r"^[xz] is on meta, expected it on cpu, where the flow is$"):
            getattr(flow, method)(torch.zeros(3, 4, device="meta"))
    with pytest.raises(InvalidInput, match=r"^x is on cpu, expected it on meta"):
        flow.to("meta").log_prob(torch.zeros(3, 4))


# --- maps of a user's own


class Own(Transform):
    """x = e^s z, and whatever is wrong with it."""

    def __init__(self, spoil):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.zeros(()))
        self.spoil = spoil

    def forward(self, z):
        return self.spoil(self.scale.exp() * z, (4 * self.scale).double().expand(len(z)))

    def inverse(self, x):
        return self.spoil(x / self.scale.exp(), -(4 * self.scale).double().expand(len(x)))


WRONG = {
    "a field of another shape": (lambda x, l: (x[:, :3], l), r"shapes \(5, 3\) and \(5,\)"),
    "fewer fields": (lambda x, l: (x[:2], l), r"shapes \(2, 4\) and \(5,\)"),
    "one log-determinant for all": (lambda x, l: (x, l.sum()), r"shapes \(5, 4\) and \(\)"),
    "one for every site": (lambda x, l: (x, l[:, None].expand(-1, 4)), r"shapes \(5, 4\) and \(5, 4\)"),
    "a column": (lambda x, l: (x, l[:, None]), r"shapes \(5, 4\) and \(5, 1\)"),
    "no log-determinant": (lambda x, l: x, "Tensor"),
    "a number": (lambda x, l: (x, 0.0), "tuple"),
    "nothing": (lambda x, l: None, "NoneType"),
}


@pytest.mark.parametrize(("spoil", "found"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("method", [method for method in METHODS if method != "base_log_prob"])
def test_maps_that_give_something_else_are_named(spoil, found, method):
    flow = Flow((4,), [ActNorm((4,)).eval(), Own(spoil)])
    if "cost" in method and found in ("Tensor", "NoneType", "tuple"):
        pytest.skip("the base class takes it apart before the flow sees it")
    with pytest.raises(InvalidTransform, match=f"^the map Own gave {found} for fields of shape \\(5, 4\\)"):
        getattr(flow, method)(torch.zeros(5, 4))


def test_a_map_in_another_type_is_converted():
    flow = Flow((4,), [Own(lambda x, l: (x.double(), l.float()))])
    x, logdet = flow(torch.ones(3, 4))
    assert x.dtype == torch.float32 and logdet.dtype == torch.float64


@pytest.mark.parametrize(
    ("spoil", "words"),
    [(lambda x, l: (x * math.nan, l), "fields"), (lambda x, l: (x, l + math.inf), "log-determinants")],
    ids=["fields", "log-determinants"],
)
def test_a_map_that_is_not_finite_is_named_before_anything_is_trained(spoil, words, tmp_path):
    class Flat(isingflow.Target):
        shape = (4,)

        def energy(self, field):
            return field.square().sum(-1)

    flow = Flow((4,), [Own(lambda x, l: (x, l)), Own(spoil)])
    with pytest.raises(InvalidTransform, match=f"^Own, map 2 of 2 of the flow: {words} are not finite"):
        isingflow.train(Flat(), flow=flow, output=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
