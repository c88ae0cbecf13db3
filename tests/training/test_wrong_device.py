"""A step of training and of evaluation on a device that is not the CPU: no operation may meet a tensor of the CPU.

There is no GPU here, so `meta` stands for one: its tensors have shapes and no numbers. What a GPU would refuse, an
operation on tensors of two devices, is refused here too. A condition that is read from the device is that of a
computation which goes well: `any` is false, `all` true, and so is every other one.
"""

from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

import isingflow
from isingflow.flows.gradient import gradient_flows
from isingflow.lattice import edwards_anderson, square
from isingflow.potentials import ProductPotential
from isingflow.runs.config import RunConfig
from isingflow.targets import HubbardStratonovich
from isingflow.training.objectives import both_bounds, negative_log_likelihood, path_gradient, reverse_kl

ELSEWHERE = torch.device("meta")
HALF = {torch.bfloat16, torch.float16}
aten = torch.ops.aten


class Device(TorchDispatchMode):
    """Refuses operations on tensors of two devices, and numbers of half the precision; counts those on the device.

    As on a GPU, tensors without axes may be anywhere, and copies from one device to another are what they are for.
    """

    def __init__(self):
        super().__init__()
        self.count = 0
        self.false = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [part for part in tree_flatten((args, kwargs))[0] if isinstance(part, torch.Tensor)]
        if all(tensor.device != ELSEWHERE for tensor in tensors):
            return operation(*args, **kwargs)
        self.count += 1
        if operation is aten._local_scalar_dense.default:
            return self.read(args[0])
        if operation is aten._to_copy.default and torch.device(kwargs.get("device") or ELSEWHERE) != ELSEWHERE:
            return torch.ones(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        if operation is not aten.copy_.default:
            here = [tuple(tensor.shape) for tensor in tensors if tensor.device != ELSEWHERE and tensor.dim() > 0]
            assert not here, f"{operation} with tensors of shapes {here} on the CPU"
        assert not HALF & {tensor.dtype for tensor in tensors}
        found = operation(*args, **kwargs)
        if operation.name().startswith("aten::any"):
            self.false.append(found)
        return found

    def read(self, tensor):
        """A number on the device."""
        if tensor.dtype == torch.bool:
            return not any(tensor is other for other in self.false)
        return 1.0 if tensor.dtype.is_floating_point else 1


LATTICES = {"torus": square(4), "glass": edwards_anderson(4, seed=0)}
FLOWS = [
    ("ot", "glass"),
    pytest.param("ot", "torus", marks=pytest.mark.slow),
    pytest.param("monge-ampere", "torus", marks=pytest.mark.slow),
    pytest.param("monge-ampere", "glass", marks=pytest.mark.slow),
]


def steps_of(flow, target, settings, n=3):
    """What training and evaluation compute."""
    z = torch.zeros(n, *flow.shape, device=ELSEWHERE)
    parameters = list(flow.parameters())
    flow.train()
    flow.redraw(torch.Generator().manual_seed(0))
    for objective in (reverse_kl, path_gradient):
        loss, _ = objective(flow, target, z, settings)
        torch.autograd.grad(loss, parameters, allow_unused=True)
    loss, _ = both_bounds(flow, target, z, z, settings)
    torch.autograd.grad(loss, parameters, allow_unused=True)
    loss, _ = negative_log_likelihood(flow, z, settings)
    torch.autograd.grad(loss, parameters, allow_unused=True)
    flow.eval()
    with torch.no_grad():
        x, log_prob = flow(z)
        values = [log_prob, flow.log_prob(x), target.energy(x.double()), flow.inverse(x)[0]]
    return [*values, target.force(x)]


def on_device(config, target):
    flow = config.new_flow(target)
    for transform in flow.transforms:
        for part in gradient_flows(transform):
            part.steps = 1
            if isinstance(part.potential, ProductPotential):
                part.potential.choose(torch.ones(part.potential.terms, dtype=torch.float64))
    return flow.to(ELSEWHERE), target.to(ELSEWHERE)


@pytest.mark.parametrize(("kind", "lattice"), FLOWS)
def test_flows_of_magnets_stay_on_their_device(kind, lattice):
    config = RunConfig.from_preset("quick", LATTICES[lattice], 0.3, flow=kind)
    flow, target = on_device(config, HubbardStratonovich(LATTICES[lattice], 0.3))
    with Device() as device:
        found = steps_of(flow, target, config.training)
    assert {tensor.device for tensor in found} == {ELSEWHERE} and device.count > 100


def test_nothing_switches_precision_down():
    """TF32 and half precision are for nobody here to turn on: all of the package, by its words."""
    words = ("allow_tf32", "set_float32_matmul_precision", "fp32_precision", "autocast")
    folder = Path(isingflow.__file__).parent
    found = {path.name: word for path in folder.rglob("*.py") for word in words if word in path.read_text()}
    assert not found
    assert torch.get_float32_matmul_precision() == "highest" and not torch.backends.cuda.matmul.allow_tf32


def test_a_tensor_of_the_cpu_is_noticed():
    here, there = torch.ones(3), torch.ones(3, device=ELSEWHERE)
    with Device() as device, pytest.raises(AssertionError, match=r"mul.* with tensors of shapes \[\(3,\)\] on the CPU"):
        there * here
    with Device():
        assert (there * 2.0 + torch.tensor(1.0)).device == here.to(ELSEWHERE).device == ELSEWHERE
        assert not (there > 0).any() and (there > 0).all() and not there.isnan().any()
    assert device.count == 1
    with Device(), pytest.raises(AssertionError):
        there.bfloat16() + 1
