"""Small families of flows, for tests of those over temperatures and of those over fields."""

import torch

from isingflow.architectures.monge_ampere import FlowConfig
from isingflow.runs.config import TrainingConfig

CPU = torch.device("cpu")
FLOW = FlowConfig(hidden=6, radial=2, oriented=1, steps=6)
TRAINING = TrainingConfig(iterations=12, batch=9, check_every=5, evaluation_samples=256)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def shaken(problem, by=0.1):
    """With other parameters than those it starts with."""
    with torch.no_grad():
        for parameter in problem.flow.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator())
    return problem
