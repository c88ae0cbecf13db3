"""Compiled kernels between the products of a residual network: the numbers of plain tensor operations in float64."""

import pytest
import torch

from isingflow.potentials.layers import residual_fused
from isingflow.potentials.layers.residual import EvenOpening, PlainOpening, ResidualLayers, residual_network

SIZES = {"plane": (2, 2, 24, 90), "square root": (17, 17, 17, 40), "few columns": (5, 3, 8, 3)}


def inputs(size, layers, seed=0):
    """u and the parameters, and cotangents of the three results, float64."""
    features, rank, width, columns = SIZES[size]
    generator = torch.Generator().manual_seed(seed)
    shapes = [(features, columns), (width, features), (width,), (width,), (layers, width, width), (layers, width)]
    shapes += [(width,), (width, rank), (features, columns), (columns,), (columns,)]
    drawn = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    drawn[4] /= width**0.5
    return drawn[:8], drawn[8:]


def found(opening, given, cotangents, dtype):
    """Results, and their gradients by all inputs."""
    given = [tensor.to(dtype).requires_grad_() for tensor in given]
    results = residual_network(ResidualLayers(opening), *given)
    loss = sum((result.double() * weight).sum() for result, weight in zip(results, cotangents, strict=True))
    return [*results, *torch.autograd.grad(loss, given)]


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("opening", [PlainOpening, EvenOpening])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("size", SIZES)
def test_they_agree_with_tensor_operations(opening, layers, size, kept, monkeypatch):
    monkeypatch.setattr(residual_fused, "KEPT_WIDTH", 1 if kept else 1000)
    given, cotangents = inputs(size, layers)
    exact = found(opening, given, cotangents, torch.float64)
    for ours, expected in zip(found(opening, given, cotangents, torch.float32), exact, strict=True):
        torch.testing.assert_close(ours.double(), expected, rtol=0, atol=2e-5 * expected.detach().abs().max().item())


def test_kept_or_computed_again_they_are_the_same(monkeypatch):
    given, cotangents = inputs("plane", 2, seed=2)
    monkeypatch.setattr(residual_fused, "BLOCK_BYTES", 2**13)
    monkeypatch.setattr(residual_fused, "FEWEST", 7)
    whole = found(PlainOpening, given, cotangents, torch.float32)
    monkeypatch.setattr(residual_fused, "KEPT_WIDTH", 1)
    for ours, expected in zip(found(PlainOpening, given, cotangents, torch.float32), whole, strict=True):
        assert torch.equal(ours, expected)


def test_a_backward_pass_may_be_repeated(monkeypatch):
    """The first one gives what was kept away."""
    monkeypatch.setattr(residual_fused, "KEPT_WIDTH", 1)
    given, _ = inputs("plane", 2)
    given = [tensor.float().requires_grad_() for tensor in given]
    laplacian = residual_network(ResidualLayers(), *given)[1].sum()
    first, second = (torch.autograd.grad(laplacian, given, retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True)) and first[4].abs().max() > 0


def test_what_is_kept_is_bounded_and_given_back(monkeypatch):
    monkeypatch.setattr(residual_fused, "KEPT_WIDTH", 1)
    given, _ = inputs("plane", 2)
    given = [tensor.float().requires_grad_() for tensor in given]
    before = residual_fused._ROOM.lent
    size = 4 * 2 * 24 * (2 + 1) * 90
    monkeypatch.setattr(residual_fused, "KEPT_BYTES", before + 2 * size)
    lent, losses = [], []
    for _ in range(4):
        losses.append(residual_network(ResidualLayers(), *given)[1].sum())
        lent.append((residual_fused._ROOM.lent - before) // size)
    assert lent == [1, 2, 2, 2]
    torch.autograd.grad(losses[0], given)
    assert residual_fused._ROOM.lent == before + size
    del losses
    assert residual_fused._ROOM.lent == before
    with torch.no_grad():
        residual_network(ResidualLayers(), *given)
    assert residual_fused._ROOM.lent == before


@pytest.mark.parametrize("bytes_of_a_block", [1, 2**13])
def test_blocks_change_nothing(bytes_of_a_block, monkeypatch):
    given, cotangents = inputs("plane", 2, seed=1)
    whole = found(PlainOpening, given, cotangents, torch.float32)
    monkeypatch.setattr(residual_fused, "BLOCK_BYTES", bytes_of_a_block)
    monkeypatch.setattr(residual_fused, "FEWEST", 7)
    assert residual_fused.block_size(given[-1], 90) < 90
    for ours, expected in zip(found(PlainOpening, given, cotangents, torch.float32), whole, strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5 * expected.detach().abs().max().item())


def test_only_single_precision_takes_this_way(monkeypatch):
    """The fractions of polynomials are no better than that."""
    given, cotangents = inputs("few columns", 1)
    monkeypatch.setattr(residual_fused, "forward", lambda *_, **__: pytest.fail("fused"))
    found(PlainOpening, given, cotangents, torch.float64)
    with pytest.raises(pytest.fail.Exception):
        found(PlainOpening, given, cotangents, torch.float32)
