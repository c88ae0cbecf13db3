"""What does the elementwise work of potentials in a training."""

from __future__ import annotations

from importlib.util import find_spec

import torch

from isingflow.flows import Flow
from isingflow.potentials import LatticePotential, LocalPotential, Potential


def choose_kernels(flow: Flow, device: torch.device) -> str:
    """Have torch.compile fuse the potentials' elementwise work on a GPU where it can; what runs, in words.

    On a CPU the lattice and local potentials have fused kernels of their own; others are dominated by matrix products.
    """
    potentials = [module for module in flow.modules() if isinstance(module, Potential)]
    if device.type == "cuda" and find_spec("triton") is not None:
        for potential in potentials:
            potential.compiled = True
        return "fused by torch.compile"
    if device.type == "cpu" and any(
        isinstance(potential, LatticePotential | LocalPotential) for potential in potentials
    ):
        return "fused kernels"
    return "tensor operations"
