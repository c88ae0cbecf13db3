"""Rates of the opening layers beside those of all other parameters."""

import torch

from isingflow import datasets
from isingflow.runs.config import DensityConfig
from isingflow.runs.settings import TrainingConfig
from isingflow.training.optimisers import adam


def flow_of(kind):
    data = datasets.load("moons")
    return DensityConfig.from_preset("quick", data, flow=kind).new_flow(data)


def moved(flow, training):
    """How far one step of Adam moves the parameters of the potential, by name: its rate, whatever the gradient."""
    before = {name: parameter.clone() for name, parameter in flow.named_parameters()}
    optimiser = adam(flow, training)
    for parameter in flow.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    return {
        name.rpartition(".")[2]: (parameter - before[name]).abs().max().item()
        for name, parameter in flow.named_parameters()
        if parameter.numel()
    }


def test_directions_learn_faster_and_all_else_more_slowly():
    for kind, fast in (("ot", {"opening", "opening_bias"}), ("monge-ampere", {"weight", "bias"})):
        found = moved(flow_of(kind), TrainingConfig(learning_rate=0.01, balance=4.0))
        assert fast < set(found)
        for name, distance in found.items():
            expected = 0.04 if name in fast else 0.0025
            assert abs(distance - expected) < 1e-5, (kind, name)


def test_without_a_balance_there_is_one_rate():
    assert {round(distance, 5) for distance in moved(flow_of("ot"), TrainingConfig(learning_rate=0.01)).values()} == {
        0.01
    }


def test_every_parameter_is_trained_once():
    for kind in ("ot", "monge-ampere", "convex"):
        flow = flow_of(kind)
        groups = adam(flow, TrainingConfig(balance=2.0)).param_groups
        trained = [id(parameter) for group in groups for parameter in group["params"]]
        assert sorted(trained) == sorted(map(id, flow.parameters())), kind


def test_decay_ends_at_zero_and_not_among_subnormal_numbers():
    """Products with 512 x 256 weights of which a seventh were subnormal took eight times as long."""
    flow = flow_of("monge-ampere")
    optimiser = adam(flow, TrainingConfig(learning_rate=1e-3, weight_decay=1e-3))
    for parameter in flow.parameters():
        torch.nn.init.constant_(parameter, 1e-36).grad = torch.zeros_like(parameter)
    optimiser.step()
    tiny = torch.finfo(torch.float32).tiny
    for parameter, state in optimiser.state.items():
        for tensor in (parameter, state["exp_avg"]):
            assert not bool(((tensor != 0) & (tensor.abs() < tiny)).any())
    for parameter in flow.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    assert all(bool((parameter < 0).all()) for parameter in flow.parameters()), "what is zero can grow again"
