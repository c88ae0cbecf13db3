"""Arithmetic of twice double precision, and of jets in it: value, first and second derivative."""

from __future__ import annotations

from isingflow.runtime.compiled import compiled


@compiled
def line(constant, slope, f):
    """constant + slope f; the slope is 0 or a power of 2, up to its sign."""
    return (
        add((constant, 0.0), (slope * f[0][0], slope * f[0][1])),
        (slope * f[1][0], slope * f[1][1]),
        (slope * f[2][0], slope * f[2][1]),
    )


@compiled
def negative(f):
    return line(0.0, -1.0, f)


@compiled
def add_jets(f, g):
    return add(f[0], g[0]), add(f[1], g[1]), add(f[2], g[2])


@compiled
def multiply_jets(f, g):
    cross = multiply(f[1], g[1])
    return (
        multiply(f[0], g[0]),
        add(multiply(f[1], g[0]), multiply(f[0], g[1])),
        add(add(multiply(f[2], g[0]), multiply(f[0], g[2])), (2 * cross[0], 2 * cross[1])),
    )


@compiled
def divide_jets(f, g):
    """The quotient q, from the derivatives of q g = f."""
    value = divide(f[0], g[0])
    first = divide(subtract(f[1], multiply(value, g[1])), g[0])
    cross = multiply(first, g[1])
    rest = subtract(subtract(f[2], (2 * cross[0], 2 * cross[1])), multiply(value, g[2]))
    return value, first, divide(rest, g[0])


@compiled
def add(a, b):
    total, lost = two_sum(a[0], b[0])
    low, lost_low = two_sum(a[1], b[1])
    total, lost = fast_two_sum(total, lost + low)
    return fast_two_sum(total, lost + lost_low)


@compiled
def subtract(a, b):
    return add(a, (-b[0], -b[1]))


@compiled
def multiply(a, b):
    product, lost = two_product(a[0], b[0])
    return fast_two_sum(product, lost + (a[0] * b[1] + a[1] * b[0]))


@compiled(error_model="numpy")
def divide(a, b):
    """Long division, three digits of 53 bits; NaN if b is 0."""
    first = a[0] / b[0]
    rest = subtract(a, multiply((first, 0.0), b))
    second = rest[0] / b[0]
    rest = subtract(rest, multiply((second, 0.0), b))
    return add(fast_two_sum(first, second), (rest[0] / b[0], 0.0))


@compiled
def two_sum(a, b):
    """a + b and its rounding error."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


@compiled
def fast_two_sum(a, b):
    """The same, if |a| >= |b|."""
    total = a + b
    return total, b - (total - a)


@compiled
def two_product(a, b):
    """a b and its rounding error (Veltkamp's halves: factors beyond 1e300 overflow)."""
    product = a * b
    part = 134217729.0 * a
    a_high = part - (part - a)
    part = 134217729.0 * b
    b_high = part - (part - b)
    a_low, b_low = a - a_high, b - b_high
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
