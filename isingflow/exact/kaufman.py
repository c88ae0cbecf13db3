"""Periodic Ising lattices solved exactly.

Kaufman (1949), eq. 39: Z of a torus is a combination of four products over the momenta of free fermions,

    2 Z = A+ + A- + P+ + P-,    S+- = (2 sinh 2K2)^(nm/2) prod_(k in S) [exp(m gamma_k / 2) +- exp(-m gamma_k / 2)],

with n sites and coupling K1 around, m transfer steps and coupling K2 along, momenta k = pi (2r+1)/n in A and 2 pi r/n
in P, and cosh gamma_k = (cosh 2K1 cosh 2K2 - sinh 2K1 cos k) / sinh 2K2. gamma_0 = 2 K1 + ln tanh K2 carries a sign.

Three rearrangements make every term positive, so that no temperature, sign or size cancels digits:

- The zero mode stays apart. With tau = prod_(k != 0) tanh(m gamma_k / 2), P+ + P- is the product over k != 0 times
  a^m (1 + tau) + b^m (1 - tau), where a = 2 e^K1 sinh K2 and b = 2 e^-K1 cosh K2. It is smooth through criticality.
- Only absolute values of the couplings enter; a negative coupling around an odd length leaves a twist (an antiperiodic
  boundary). One twist: take momenta along it, and 2 Z = (A+ - A-) + (P+ - P-), both brackets positive.
- Two twists: 2 Z = (P+ - P-) - (A+ - A-). Below criticality the two brackets agree to exp(-surface tension), and
  the difference is the sum over domain walls that wind around both directions, a Fourier coefficient taken along a
  contour through its saddle point (`_winding`).

Everything stays in logarithms, so L = 10**6 costs 0.05 s and never overflows. A "jet" is the tuple (f, f', f'') of
derivatives along a common factor of both couplings, K -> (1 + x) K at x = 0, so f'' is the heat capacity.
"""

from __future__ import annotations

import math

import numpy as np

from isingflow.errors import NoExactSolution
from isingflow.exact.log_jets import add, exponential, log_add, log_expm1, log_one_minus, log_one_plus, log_subtract
from isingflow.lattice.checks import check_beta, check_product, check_strength
from isingflow.runtime.checks import count
from isingflow.runtime.compiled import Compilable

SIZE_LIMIT = 10**6
"""Largest side for which accuracy and time are promised and tested."""

INTERPRETED = 256
"""Largest side that is not worth half a second to load what numba has compiled: it takes milliseconds without."""
RIGID = 400.0
"""Coupling beyond which no bond is broken that need not be, exp(-2 K) being 0: ln Z is linear in it."""


def log_z(lx: int, ly: int, kx: float, ky: float) -> float:
    """ln Z of the periodic lx x ly lattice, Z = sum over s of exp(kx sum s_(x,y) s_(x+1,y) + ky sum s_(x,y) s_(x,y+1)).

    Raises:
        InvalidInput, NoExactSolution: as for `partition_function`.

    Example:
        >>> round(log_z(16, 16, 0.25, -0.5), 10)
        220.726766608
    """
    return partition_function(lx, ly, kx, ky)[0]


def solve(lx: int, ly: int, jx: float, jy: float, beta: float) -> tuple[float, float, float]:
    """The periodic lx x ly lattice with bonds jx along x and jy along y, of any sign, at any finite beta.

    Returns:
        ln Z, energy per site -d ln Z/d beta / N, heat capacity per site beta^2 d^2 ln Z/d beta^2 / N.

    Raises:
        InvalidInput, NoExactSolution: as for `partition_function`.

    Example:
        >>> solve(2, 2, 1.0, 1.0, 0.0)
        (2.772588722239781, 0.0, 0.0)
    """
    beta, jx, jy = check_beta(beta), check_strength("jx", jx), check_strength("jy", jy)
    check_product(beta, abs(jx) + abs(jy))
    value, first, second = partition_function(lx, ly, beta * jx, beta * jy)
    sites = lx * ly
    energy = -first / beta / sites if beta != 0 else 0.0
    return value, energy, max(second, 0.0) / sites  # rounding: below 1e-30, C may come out negative


def partition_function(lx: int, ly: int, kx: float, ky: float) -> tuple[float, float, float]:
    """The jet of ln Z. Not compiled itself, so that only those kernels are that the case needs.

    Args:
        lx, ly: sides, from 2 to 10**6.
        kx, ky: couplings along x and y, at most 1e70 in size.

    Raises:
        InvalidInput: a side below 2 or a coupling that is not finite; NoExactSolution: a side too large.

    Example:
        >>> round(partition_function(4, 4, 0.0, 0.0)[0] / math.log(2), 10)
        16.0
    """
    lx, ly = count("lx", lx, least=2), count("ly", ly, least=2)
    kx, ky = check_strength("kx", kx), check_strength("ky", ky)
    if max(lx, ly) > SIZE_LIMIT:
        raise NoExactSolution(f"{lx}x{ly} is too large for Kaufman's formula: sides up to {SIZE_LIMIT} are possible")
    twist_x, twist_y = kx < 0 and lx % 2 == 1, ky < 0 and ly % 2 == 1
    if max(abs(kx), abs(ky)) > RIGID:
        held_x, held_y = (math.copysign(min(abs(k), RIGID), k) for k in (kx, ky))
        value, first, second = partition_function(lx, ly, held_x, held_y)
        kept_x, kept_y = lx * ly - 2 * ly * twist_x, lx * ly - 2 * lx * twist_y  # a twist breaks a bond of every ring
        rest = abs(kx - held_x) * kept_x + abs(ky - held_y) * kept_y
        return value + rest, first + rest, second
    if min(abs(kx), abs(ky)) < 1e-100:  # invisible at any size and temperature, and products with it would underflow
        chains = _chains(ly, lx, kx) if abs(ky) < abs(kx) else _chains(lx, ly, ky)
        return float(chains[0]), float(chains[1]), float(chains[2])
    k1, k2 = abs(ky), abs(kx)
    n, m = ly, lx
    if (twist_x and not twist_y) or (twist_x == twist_y and n > m):
        n, m, k1, k2 = m, n, k2, k1
    small = max(n, m) <= INTERPRETED
    if twist_x and twist_y:
        modes = (_twisted_twice if small else _twisted_twice.compiled)(n, m, k1, k2)
    else:
        sectors = _sectors if small else _sectors.compiled
        antiperiodic, periodic = sectors(n, m, k1, k2, -1 if twist_x or twist_y else 1)
        modes = log_add(antiperiodic, periodic)
    sites = n * m
    bulk = bulk_jet(k1, k2)
    value = sites * bulk[0] + (modes[0] - math.log(2.0))
    return float(value), float(sites * bulk[1] + modes[1]), float(sites * bulk[2] + modes[2])


# The free-fermion modes. Normalised by the bulk, everything depends on t = tanh 2K1 / cosh 2K2 and
# r = tanh 2K2 / cosh 2K1 alone: sinh 2K2 cosh gamma_k = cosh 2K1 cosh 2K2 v, v = 1 - t cos k, tanh gamma_k = y.


@Compilable
def bulk_jet(k1, k2):
    """ln 2 + ln(cosh 2K1 cosh 2K2) / 2, per site: what is left once every mode is measured from 1."""
    p, q = math.exp(-4 * k1), math.exp(-4 * k2)
    return (
        k1 + k2 + 0.5 * (math.log1p(p) + math.log1p(q)),
        k1 * math.tanh(2 * k1) + k2 * math.tanh(2 * k2),
        8 * (k1 * k1 * p / (1 + p) ** 2 + k2 * k2 * q / (1 + q) ** 2),
    )


@Compilable
def dispersion(k1, k2):
    """t, 1 - t, 1 - t - r (which vanishes quadratically at criticality), r, and the jets of ln t and ln r."""
    e1, e2, p, q = math.exp(-2 * k1), math.exp(-2 * k2), math.exp(-4 * k1), math.exp(-4 * k2)
    p_less, q_less = -math.expm1(-4 * k1), -math.expm1(-4 * k2)
    log_t = math.log(2 * p_less / ((1 + p) * (1 + q))) - 2 * k2
    log_r = math.log(2 * q_less / ((1 + p) * (1 + q))) - 2 * k1
    one_minus_t = (math.expm1(-2 * k2) ** 2 + 4 * e2 * p / (1 + p)) / (1 + q)
    cosines = (1 + p) * (1 + q)
    gap = (p_less * q_less - 4 * e1 * e2) ** 2 / (cosines * (cosines + 2 * p_less * e2 + 2 * q_less * e1))
    h1, h2 = _x_over_sinh(4 * k1), _x_over_sinh(4 * k2)
    log_t1, log_r1 = h1 - 2 * k2 * math.tanh(2 * k2), h2 - 2 * k1 * math.tanh(2 * k1)
    log_t2 = -h1 * 4 * k1 / math.tanh(4 * k1) - 16 * k2 * k2 * q / (1 + q) ** 2
    log_r2 = -h2 * 4 * k2 / math.tanh(4 * k2) - 16 * k1 * k1 * p / (1 + p) ** 2
    return math.exp(log_t), one_minus_t, gap, math.exp(log_r), (log_t, log_t1, log_t2), (log_r, log_r1, log_r2)


@Compilable
def mode(k, waves):
    """The jets of mu and gamma at momentum k."""
    t, _, _, _, log_t, _ = waves
    b = 2 * t * math.sin(0.5 * k) ** 2
    cosine = t - b
    return _mode(b, cosine * log_t[1], cosine * (log_t[2] + log_t[1] ** 2), waves)


@Compilable
def _mode(b, cosine1, cosine2, waves):
    """One momentum, real or complex: jets of mu and of gamma, given b = t - t cos k and the derivatives of t cos k.

    mu = ln[v (1 + y) / 2] / 2 is the mode's share of ln Z per step. Its derivatives leave out those of -t cos(k) / 2,
    which sum to zero over any sector and would drown the small rest at high and low temperature.
    """
    t, one_minus_t, gap, r, _, log_r = waves
    v = one_minus_t + b
    inverse = 1 / v
    root = np.sqrt((gap + b) * (v + r))
    a, a1, a2, y = (t - b) * inverse, cosine1 * inverse, cosine2 * inverse, root * inverse
    coth = 1 / y
    rho2 = (r * inverse) ** 2
    log_rho1 = log_r[1] + a1
    log_rho2 = log_r[2] + a2 + a1 * a1
    share = rho2 / (y + y * y)
    curvature = rho2 * coth * (log_rho1 * coth) ** 2
    log_growth = np.log(v + root)
    mu = (
        0.5 * (log_growth - math.log(2.0)),
        -0.5 * (a * v * a1 + share * log_rho1),
        -0.5 * (a * v * a2 + a1 * a1 + curvature + share * log_rho2),
    )
    gamma = (np.arctanh(y) if abs(y) < 0.5 else log_growth - log_r[0], -log_rho1 * coth, -curvature - log_rho2 * coth)
    return mu, gamma


@Compilable
def _sector(n, m, first, waves):
    """Products over k = pi i / n, i = first, first + 2, ... < 2n (i = 0 excluded: first is 1 for A, 2 for P).

    Returns:
        the jet of ln prod 2 cosh(m gamma / 2) (from the bulk), and the jet of ln T, T = -sum ln tanh(m gamma / 2).
    """
    smallest = mode(math.pi * first / n, waves)[1]
    x_ref, x1_ref, x2_ref = -m * smallest[0], -m * smallest[1], -m * smallest[2]
    total = lost = total1 = lost1 = total2 = lost2 = 0.0
    walls = walls1 = walls2 = 0.0
    for i in range(first, n + 1, 2):
        multiplicity = 1.0 if i == n else 2.0
        mu, gamma = mode(math.pi * i / n, waves)
        value, value1, value2 = m * mu[0], m * mu[1], m * mu[2]
        x = -m * gamma[0]
        if x > x_ref - 60:
            x1, x2 = -m * gamma[1], -m * gamma[2]
            z = math.exp(x)
            occupied = z / (1 + z)
            value += math.log1p(z)
            value1 += occupied * x1
            value2 += occupied * (x2 + x1 * x1 / (1 + z))
            ratio, slope, bend = _atanh_exp(x)
            weight = multiplicity * math.exp(x - x_ref) * ratio
            centred = slope * x1 - x1_ref
            walls += weight
            walls1 += weight * centred
            walls2 += weight * (bend * x1 * x1 + slope * x2 - x2_ref + centred * centred)
        total, lost = compensated(total, lost, multiplicity * value)
        total1, lost1 = compensated(total1, lost1, multiplicity * value1)
        total2, lost2 = compensated(total2, lost2, multiplicity * value2)
    mean = walls1 / walls
    log_t = (x_ref + math.log(2 * walls), x1_ref + mean, x2_ref + walls2 / walls - mean * mean)
    return (total + lost, total1 + lost1, total2 + lost2), log_t


@Compilable
def _sectors(n, m, k1, k2, parity):
    """Jets of ln(A+ + parity A-) and ln(P+ + parity P-), from the bulk."""
    waves = dispersion(k1, k2)
    cosh_a, log_t_a = _sector(n, m, 1, waves)
    cosh_p, log_t_p = _sector(n, m, 2, waves)
    more, less = log_one_plus(log_t_p), log_one_minus(log_t_p)
    ordered, disordered = _zero_mode(m, k1, k2, waves)
    if parity == 1:
        zero = log_add(add(ordered, more), add(disordered, less))
        antiperiodic = add(cosh_a, log_one_plus(log_t_a))
    else:
        zero = log_add(add(ordered, less), add(disordered, more))
        antiperiodic = add(cosh_a, log_one_minus(log_t_a))
    return antiperiodic, add(cosh_p, zero)


@Compilable
def _zero_mode(m, k1, k2, waves):
    """Jets of m ln(2 e^K1 sinh K2) and m ln(2 e^-K1 cosh K2), from the bulk; t/2 as in `mode_jets`."""
    bulk = bulk_jet(k1, k2)
    half_t1 = 0.5 * waves[0] * waves[4][1]
    half_t2 = 0.5 * waves[0] * (waves[4][2] + waves[4][1] ** 2)
    e2 = math.exp(-2 * k2)
    ordered = (
        m * (k1 + k2 + math.log(-math.expm1(-2 * k2)) - bulk[0]),
        m * (k1 + k2 / math.tanh(k2) - bulk[1] + half_t1),
        m * (-(_x_over_sinh(k2) ** 2) - bulk[2] + half_t2),
    )
    disordered = (
        m * (k2 - k1 + math.log1p(e2) - bulk[0]),
        m * (k2 * math.tanh(k2) - k1 - bulk[1] + half_t1),
        m * (4 * k2 * k2 * e2 / (1 + e2) ** 2 - bulk[2] + half_t2),
    )
    return ordered, disordered


@Compilable
def _twisted_twice(n, m, k1, k2):
    """Jet of ln[(P+ - P-) - (A+ - A-)], from the bulk."""
    cosh_a, log_t = _sector(n, m, 1, dispersion(k1, k2))
    swapped_cosh_a, swapped_log_t = _sector(m, n, 1, dispersion(k2, k1))
    if swapped_log_t[0] < log_t[0]:
        n, m, k1, k2 = m, n, k2, k1
        cosh_a, log_t, swapped_log_t = swapped_cosh_a, swapped_log_t, log_t
    antiperiodic, periodic = _sectors(n, m, k1, k2, -1)
    disordered = 2 * k1 + math.log(math.tanh(k2)) <= 0
    if disordered or periodic[0] - antiperiodic[0] > 0.05:
        return log_subtract(periodic, antiperiodic)
    # With a, b = T of A along either direction and d = T of P - T of A, the bracket over A+ is
    # exp(-a-b-d) (exp(d) - 1) - (1 - exp(-a)) (1 - exp(-b)).
    log_d = _winding(n, m, dispersion(k1, k2))
    exponent = add(add(exponential(log_t), exponential(swapped_log_t)), exponential(log_d))
    both = log_expm1(log_d)
    both = (both[0] - exponent[0], both[1] - exponent[1], both[2] - exponent[2])
    single = add(log_one_minus(log_t), log_one_minus(swapped_log_t))
    return add(cosh_a, log_subtract(both, single))


@Compilable
def _winding(n, m, waves):
    """Jet of ln d, d = (sum over P minus sum over A) of 2 artanh exp(-m gamma_k), for gamma_0 > 0.

    By Poisson summation d = 8 n (c_n + c_3n + ...), c_l the Fourier coefficients of artanh exp(-m gamma_k): walls that
    wind l / n times. The integral for c_l runs along k - i kappa through the saddle point, where nothing oscillates,
    and only as far as the integrand reaches: its modulus falls monotonically. The contour moves with the couplings so
    that t exp(kappa), and with it nearly all of the integrand, does not. The points double until the trapezoidal rule
    has converged, geometrically.
    """
    t, _, gap, r, log_t, _ = waves
    total = (-np.inf, 0.0, 0.0)
    winding = n
    while True:
        # The saddle: m t sinh kappa = winding sqrt[(1 - t cosh kappa)^2 - r^2], kept some roundings above gamma = 0.
        aspect = m / winding
        root = math.sqrt(r * r + aspect**2 * (gap * (1 + r + t) + 2 * r * t) + (aspect * aspect * t) ** 2)
        t_cosh = min(((gap + t) * (1 + r) + (aspect * t) ** 2) / (1 + root), gap + t - 4e-15)
        kappa = math.log(t_cosh + math.sqrt(max((t_cosh - t) * (t_cosh + t), 0.0))) - log_t[0]
        forward, backward = 0.5 * math.exp(log_t[0] + kappa), 0.5 * math.exp(log_t[0] - kappa)
        first, second = 2 * log_t[1], 2 * log_t[2] + 4 * log_t[1] ** 2
        mu_ref, saddle = _mode(t - forward - backward, first * backward, second * backward, waves)
        x_ref, x1_ref, x2_ref = -m * saddle[0], -m * saddle[1], -m * saddle[2]
        sum0 = sum1 = sum2 = previous = 0.0
        points, start, stride = 8, 0, 1
        while True:
            for j in range(start, points // 2 + 1, stride):
                k = 2 * math.pi * j / points
                right, left = forward * np.exp(1j * k), backward * np.exp(-1j * k)
                mu, gamma = _mode(t - right - left, first * left, second * left, waves)
                excess = -2 * m * (mu[0] - mu_ref[0])  # x - x_ref, to more digits
                if excess.real < -60:
                    break
                x, x1, x2 = -m * gamma[0], -m * gamma[1], -m * gamma[2]
                ratio, slope, bend = _atanh_exp(x)
                angle = 2 * math.pi * ((winding * j) % points) / points
                multiplicity = 1.0 if j == 0 or 2 * j == points else 2.0
                weight = multiplicity * np.exp(excess - 1j * angle) * ratio
                centred = slope * x1 - x1_ref
                sum0 += weight.real
                sum1 += (weight * centred).real
                sum2 += (weight * (bend * x1 * x1 + slope * x2 - x2_ref + centred * centred)).real
            if not abs(sum0 / points - previous) > 1e-8 * previous:  # the next doubling would square the error
                break
            previous = sum0 / points
            points, start, stride = 2 * points, 1, 2
        mean = sum1 / sum0
        term = (
            x_ref - winding * kappa + math.log(8 * n * sum0 / points),
            x1_ref + winding * log_t[1] + mean,
            x2_ref + winding * log_t[2] + sum2 / sum0 - mean * mean,
        )
        total = log_add(term, total)
        if term[0] < total[0] - 40:
            return total
        winding += 2 * n


@Compilable
def _chains(count, n, k):
    """Jet of ln Z of `count` uncoupled rings of n spins: Z = (2 cosh k)^n + (2 sinh k)^n each."""
    if abs(k) < 1e-100:
        return count * n * math.log(2.0), 0.0, 0.0
    twisted = k < 0 and n % 2 == 1
    k = abs(k)
    e = math.exp(-2 * k)
    ratio, slope, bend = _atanh_exp(-2 * k)
    log_t = (math.log(2 * n * ratio) - 2 * k, -2 * k * slope, 4 * k * k * bend)
    ends = log_one_minus(log_t) if twisted else log_one_plus(log_t)
    sites = count * n
    return (
        sites * (k + math.log1p(e)) + count * ends[0],
        sites * k * math.tanh(k) + count * ends[1],
        sites * 4 * k * k * e / (1 + e) ** 2 + count * ends[2],
    )


# Scalars and jets.


@Compilable
def _x_over_sinh(x):
    return 2 * x * math.exp(-x) / -math.expm1(-2 * x)


@Compilable
def compensated(total, lost, term):
    """Knuth's two-sum: the running total and all that it lost to rounding."""
    new = total + term
    part = new - total
    return new, lost + ((total - (new - part)) + (term - part))


@Compilable
def _atanh_exp(x):
    """artanh(z) / z at z = exp(x), and the first two derivatives of ln artanh(z) in x; real or complex."""
    z = np.exp(x)
    z2 = z * z
    one_minus_z2 = -np.expm1(2 * x)
    if abs(z) < 0.05:
        ratio = 1 + z2 * (1 / 3 + z2 * (1 / 5 + z2 * (1 / 7 + z2 * (1 / 9 + z2 * (1 / 11 + z2 / 13)))))
    else:
        ratio = np.log((1 + z) ** 2 / one_minus_z2) / (2 * z)
    slope = 1 / (one_minus_z2 * ratio)
    return ratio, slope, slope * ((1 + z2) / one_minus_z2 - slope)
