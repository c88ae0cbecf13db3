"""Logarithms of sums and differences with their first two derivatives."""

from __future__ import annotations

import math

from isingflow.runtime.compiled import Compilable


@Compilable
def add(f, g):
    return f[0] + g[0], f[1] + g[1], f[2] + g[2]


@Compilable
def log_add(f, g):
    """ln(e^f + e^g)."""
    if f[0] < g[0]:
        f, g = g, f
    z = math.exp(g[0] - f[0])
    share, slope = z / (1 + z), g[1] - f[1]
    return f[0] + math.log1p(z), f[1] + share * slope, f[2] + share * (g[2] - f[2] + slope * slope / (1 + z))


@Compilable
def log_subtract(f, g):
    """ln(e^f - e^g), f > g."""
    rest = -math.expm1(g[0] - f[0])
    gain = math.exp(g[0] - f[0]) / rest
    slope = f[1] - g[1]
    return (
        f[0] + math.log(rest),
        f[1] + gain * slope,
        f[2] + gain * (f[2] - g[2] - (1 + gain) * slope * slope),
    )


@Compilable
def exponential(f):
    value = math.exp(f[0])
    return value, value * f[1], value * (f[2] + f[1] ** 2)


@Compilable
def log_one_plus(log_t):
    """ln(1 + exp(-T)) from the jet of ln T."""
    if log_t[0] > 6.5:
        return 0.0, 0.0, 0.0
    t = math.exp(log_t[0])
    slope = -t / (math.exp(t) + 1)
    return math.log1p(math.exp(-t)), slope * log_t[1], slope * (log_t[2] + (1 - t - slope) * log_t[1] ** 2)


@Compilable
def log_one_minus(log_t):
    """ln(1 - exp(-T)) from the jet of ln T, however small T."""
    if log_t[0] > 6.5:
        return 0.0, 0.0, 0.0
    t = math.exp(log_t[0])
    slope = t / math.expm1(t) if t > 0 else 1.0
    return (
        log_t[0] - t - math.log(slope) if t < 1 else math.log1p(-math.exp(-t)),
        slope * log_t[1],
        slope * (log_t[2] + (1 - slope - t) * log_t[1] ** 2),
    )


@Compilable
def log_expm1(log_t):
    """ln(exp(T) - 1) from the jet of ln T, however small T."""
    t = math.exp(log_t[0])
    shrink = t / math.expm1(t) if t > 0 else 1.0
    slope = shrink + t
    return log_t[0] - math.log(shrink), slope * log_t[1], slope * (log_t[2] + (1 - shrink) * log_t[1] ** 2)
