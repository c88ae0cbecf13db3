"""A hidden layer whose units look at the neighbourhoods of sites, and a quadratic form as sparse, with the derivatives
that a potential flow needs, in closed form.

    phi(x, t) = sum_i sum_m a_im(t) f(w_im.x; b_im) + x.Q(t).x / 2 + h(t).x

    dphi/dx = sum_im a_im f'(p_im) w_im + Q x + h,    laplacian phi = sum_im a_im gamma_im f''(p_im) + tr(G Q)

with w_im and row i of Q zero outside the ball of site i, gamma_im = w_im.G.w_im for the metric G, and a, Q and h linear
in some functions of time. What is asked for is G dphi/dx and the Laplacian. All costs are as the entries of the balls
and of G together. On a CPU the passes are fused (`local_fused`); elsewhere they are tensor operations on padded balls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from isingflow.potentials.layers import local_fused, wanted
from isingflow.potentials.layers.hidden import ACTIVATIONS


class Parameters(NamedTuple):
    """Of a local layer, for every site, with coefficients of T functions of time.

    Attributes:
        w: shape (units, entries).
        b: shape (units, N).
        a: shape (units, N, T).
        gamma: shape (units, N).
        q: of Q, symmetric, shape (entries, T).
        h: shape (N, T).
    """

    w: Tensor
    b: Tensor
    a: Tensor
    gamma: Tensor
    q: Tensor
    h: Tensor

    def at(self, basis: Tensor) -> Parameters:
        """With a, q and h at a time, shapes (units, N), (entries,) and (N,)."""
        return self._replace(a=self.a @ basis, q=self.q @ basis, h=self.h @ basis)


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of a sparse matrix: of site i, the entries from starts[i] to starts[i + 1], in columns `sites`.

    Attributes:
        starts: int64, shape (N + 1,).
        sites: int64, shape (entries,).
    """

    starts: np.ndarray
    sites: np.ndarray

    @classmethod
    def of_pairs(cls, pairs: np.ndarray, sites: int) -> Rows:
        """Of (row, column) pairs, shape (entries, 2), in the order of rows."""
        starts = np.searchsorted(pairs[:, 0], np.arange(sites + 1))
        return cls(starts.astype(np.int64), np.ascontiguousarray(pairs[:, 1], dtype=np.int64))

    @cached_property
    def owners(self) -> np.ndarray:
        """The row of every entry, shape (entries,)."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    @cached_property
    def padded(self) -> tuple[Tensor, Tensor]:
        """Entries and columns of every row, shape (N, longest); one more than there are where a row has ended."""
        lengths = np.diff(self.starts)
        places = np.arange(lengths.max(initial=0))
        inside = places < lengths[:, None]
        entries = np.where(inside, self.starts[:-1, None] + places, len(self.sites))
        columns = np.append(self.sites, len(lengths))[entries]
        return torch.from_numpy(entries), torch.from_numpy(columns)

    def by_row(self, w: Tensor) -> Tensor:
        """Entries by row, shape (units, entries) to (N, units, longest); zero where a row has ended."""
        entries = self.padded[0].to(w.device)
        larger = torch.cat([w, w.new_zeros(len(w), 1)], 1)
        return larger.index_select(1, entries.flatten()).view(len(w), *entries.shape).transpose(0, 1)

    def seen(self, x: Tensor) -> Tensor:
        """What every row meets of x, shape (n, N) to (N, longest, n)."""
        columns = self.padded[1].to(x.device)
        return torch.cat([x.T, x.new_zeros(1, len(x))]).index_select(0, columns.flatten()).view(*columns.shape, -1)

    def summed(self, pushed: Tensor) -> Tensor:
        """The transpose of `seen`: every site's sum over the rows that meet it, (N, longest, n) to (N, n)."""
        columns, sites = self.padded[1].to(pushed.device), len(pushed)
        total = pushed.new_zeros(sites + 1, pushed.shape[2])
        return total.index_add(0, columns.flatten(), pushed.flatten(0, 1))[:sites]


class Metric(NamedTuple):
    """G, symmetric and positive.

    Attributes:
        rows: of G.
        values: its entries, shape (rows' entries,).
        on_balls: its entries on those of the balls, shape (entries,).
    """

    rows: Rows
    values: Tensor
    on_balls: Tensor

    def moved(self, gradient: Tensor) -> Tensor:
        """G times a gradient, shape (N, n) to (n, N)."""
        owners, sites = (torch.from_numpy(index).to(gradient.device) for index in (self.rows.owners, self.rows.sites))
        terms = self.values[:, None] * gradient.index_select(0, sites)
        return torch.zeros_like(gradient).index_add(0, owners, terms).T


@dataclass(frozen=True, eq=False)
class LocalLayer:
    """The layer on a graph.

    Attributes:
        balls: what every site sees.
        even: whether f is the even root, else a root.
        metric: G.
    """

    balls: Rows
    even: bool
    metric: Metric

    def __call__(self, x: Tensor, basis: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        """G dphi/dx, shape (n, N), and the Laplacian, shape (n,), differentiable once on a CPU.

        Args:
            x: shape (n, N).
            basis: the functions of time, shape (T,).
            parameters: of the layer.
        """
        if x.device.type == "cpu":
            return _Fused.apply(self, basis, x, *parameters)
        return self.by_tensors(x, basis, parameters)

    def scored(self, x: Tensor, basis: Tensor, parameters: Parameters, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same on a CPU, with the derivative by x of score.(G dphi/dx) + Laplacian, (n, N), without a graph."""
        return _Scored.apply(self, basis, score, x, *parameters)

    def by_tensors(self, x: Tensor, basis: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        """The same by operations of torch."""
        now, balls = parameters.at(basis), self.balls
        weights, seen = balls.by_row(now.w), balls.seen(x)
        first, second, *_ = ACTIVATIONS[self._activation].derivatives(weights @ seen, now.b.T[:, :, None])
        units = balls.summed(weights.transpose(1, 2) @ (now.a.T[:, :, None] * first))
        gradient = units + (balls.by_row(now.q[None]) @ seen)[:, 0] + now.h[:, None]
        laplacian = torch.einsum("mi,imn->n", now.a * now.gamma, second) + (self.metric.on_balls * now.q).sum()
        return self.metric.moved(gradient), laplacian

    def value(self, x: Tensor, basis: Tensor, parameters: Parameters) -> Tensor:
        """phi, shape (n,)."""
        now, seen = parameters.at(basis), self.balls.seen(x)
        units = ACTIVATIONS[self._activation].value(self.balls.by_row(now.w) @ seen, now.b.T[:, :, None])
        quadratic = (x * (self.balls.by_row(now.q[None]) @ seen)[:, 0].T).sum(1) / 2
        return torch.einsum("mi,imn->n", now.a, units) + quadratic + x @ now.h

    @property
    def _activation(self) -> str:
        return "even-root" if self.even else "root"

    def graph(self) -> tuple[np.ndarray, ...]:
        """What the fused kernels know of balls and metric."""
        rows, values, on_balls = self.metric
        return self.balls.starts, self.balls.sites, rows.starts, rows.sites, *_arrays(values, on_balls)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx, layer, basis, x, *parameters):
        ctx.layer = layer
        ctx.save_for_backward(basis, x, *parameters)
        moved, laplacian = x.new_empty(x.shape), x.new_empty(len(x))
        given = _arrays(x, basis, *parameters)
        local_fused.forward(*[*layer.graph(), layer.even or None, *given, *_arrays(moved, laplacian)])
        return moved, laplacian

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, by_moved, by_laplacian):
        basis, x, *parameters = ctx.saved_tensors
        asked = wanted.of_parameters(ctx.needs_input_grad[-len(parameters) :])
        outputs = [x.new_empty(tensor.shape) for tensor in (x, *(parameters if asked else ()))]
        none = [None] * (0 if asked else len(parameters))
        given = _arrays(x, basis, *parameters, by_moved, by_laplacian)
        local_fused.backward(*[*ctx.layer.graph(), ctx.layer.even or None, *given, *_arrays(*outputs), *none])
        return None, None, *outputs, *none


class _Scored(torch.autograd.Function):
    @staticmethod
    def forward(ctx, layer, basis, score, x, *parameters):
        ctx.layer = layer
        ctx.save_for_backward(basis, x, *parameters)
        moved, laplacian, pulled = x.new_empty(x.shape), x.new_empty(len(x)), x.new_empty(x.shape)
        given = _arrays(x, basis, *parameters, score)
        local_fused.scored(*[*layer.graph(), layer.even or None, *given, *_arrays(moved, laplacian, pulled)])
        ctx.mark_non_differentiable(pulled)
        return moved, laplacian, pulled

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, by_moved, by_laplacian, _):
        none, basis, *others = _Fused.backward(ctx, by_moved, by_laplacian)
        return none, basis, None, *others


def _arrays(*tensors: Tensor) -> Sequence[np.ndarray]:
    return [tensor.detach().contiguous().numpy() for tensor in tensors]
