"Chapter 6: two Gaussians, solved."
import math
from itertools import pairwise

import numpy as np
import torch
from scipy.integrate import quad

from cfg_course.guidance import guide, interval
from cfg_course.laws import Gauss, gibbs_law, ode_law, ode_map, sde_law, tilt_law
from cfg_course.mixtures import Mixture, Pair, integrate, mesh, tilt_on, transport
from cfg_course.procedures import cfgpp_ddim_step
from cfg_course.samplers import Now
from ledger import row

ENDS = torch.tensor([[0.], [1.]], dtype=torch.float64)  # two points, whose images give gain and offset


def drawn(t, low=.3, high=3, least=None):
    "Two random Gaussians, as laws and as a world; with `least`, the unconditional one is at least so much wider."
    v_c = t.number('v_c', low, high)
    v_u = t.number('v_u', low, high) if least is None else v_c*t.number('v_u/v_c', least, 4)
    c, u = Gauss(t.number('mu_c', -2, 2), v_c), Gauss(t.number('mu_u', -2, 2), v_u)
    return c, u, as_pair(c, u)


def as_pair(c, u):
    "Two laws as one denoiser."
    return Pair(Mixture([[c.mean]], c.var), Mixture([[u.mean]], u.var))


def numbers(*values):
    "Numbers as a tensor."
    return torch.tensor([float(v) for v in values], dtype=torch.float64)


def measured(denoise, start, end, tol=1e-10):
    "Gain and offset of the real flow between two levels."
    zero, one = transport(denoise, ENDS, start, end, 0, tol)[:, 0]
    return torch.stack([one - zero, zero])


@row('eq-law-score', cell='f96f145f', mutant='A and B change places', tolerance=1e-12)
def score(t):
    "The guided score of two Gaussians is linear, at every noise level and for every real s."
    c, u, pair = drawn(t)
    s, sigma, x = t.number('s', -4, 8), t.number('sigma', .1, 5), 3*t.normal(20, 1)
    A, B = c.var + sigma**2, u.var + sigma**2
    guided = guide(pair, scale=s)(x, sigma, torch.zeros(20, dtype=torch.long))
    right = lambda A, B: -s*(x - c.mean)/A - (1 - s)*(x - u.mean)/B
    yield (guided - x)/sigma**2, right(A, B), right(B, A)


@row('eq-law-tilt', cell='46e95eb3', mutant='variances are averaged, not precisions', tolerance=1e-10)
def tilt(t):
    "Precisions of the tilt add with weights s and 1 - s, and so do means over variances, wherever the sum is positive."
    c, u, pair = drawn(t, least=.8)
    s = t.number('s', -.3, 4.5)
    found = tilt_law(c, u, s)
    (mean,), ((var,),) = tilt_on(mesh(-40, 40, 16001), pair, s).moments()
    pull = s*c.mean/c.var + (1 - s)*u.mean/u.var
    right, wrong = numbers(s/c.var + (1 - s)/u.var, pull), numbers(1/(s*c.var + (1 - s)*u.var), pull)
    yield numbers(1/found.var, found.mean/found.var), right, wrong
    yield torch.stack([1/var, mean/var]), right, wrong


def bracket_integral(low, r, power):
    "Integral of equation 'law-ode' from `low` to 1, by adaptive quadrature."
    return quad(lambda y: (y**2 + (1 - y**2)*r)**power, low, 1, epsabs=1e-13, epsrel=1e-13)[0]


def ode_by_formula(c, u, s, start, end, power=None):
    "Gain and offset of equation 'law-ode'."
    A, B, A_end, B_end = c.var + start**2, u.var + start**2, c.var + end**2, u.var + end**2
    gain = (A_end/A)**(s/2)*(B_end/B)**((1 - s)/2)
    low, power = math.sqrt(A_end/A), (s - 1)/2 if power is None else power
    return numbers(gain, u.mean*(1 - gain) + s*(c.mean - u.mean)*bracket_integral(low, A_end/B_end, power))


@row('eq-law-ode', cell='31db4e15', mutant='the power is s - 1', tolerance=1e-9)
def ode(t):
    "The guided flow between any two noise levels, downwards or upwards, for every real s."
    c, u, pair = drawn(t)
    s, one, two = t.number('s', -2, 8), t.number('sigma', .05, 4), t.number("sigma'", .05, 4)
    right, wrong = ode_by_formula(c, u, s, one, two), ode_by_formula(c, u, s, one, two, s - 1)
    yield measured(guide(pair, scale=s), one, two)[1], right[1], wrong[1]
    yield ode_map(c, u, s, one, two)[1], right[1], wrong[1]
    gain = right[0]
    halved = gain**.5
    yield measured(guide(pair, scale=s), one, two)[0], gain, halved
    yield ode_map(c, u, s, one, two)[0], gain, halved


def from_noise(denoise, start=3e3):
    "Standard deviation and mean of the real flow from a high level; the mean is extrapolated to infinity."
    first, then = measured(denoise, 2*start, start, 1e-9), measured(denoise, start, 0., 1e-9)
    gain, offset = first[0]*then[0], first[1]*then[0] + then[1]
    return 2*start*gain, 2*offset - then[1]


@row('eq-law-limit', cell='7fbd6a54', mutant='v_u over v_c in the bracket; weights 1 and 1 - s', tolerance=1e-5)
def limit(t):
    "What deterministic guidance returns from infinite noise, for every real s."
    c, u, pair = drawn(t)
    s = t.number('s', -2, 8)
    law, (std, mean) = ode_law(c, u, s), from_noise(guide(pair, scale=s))
    moved = lambda r: u.mean + s*(c.mean - u.mean)*bracket_integral(0, r, (s - 1)/2)
    right, wrong = numbers(moved(c.var/u.var)), numbers(moved(u.var/c.var))
    yield numbers(law.mean), right, wrong
    yield numbers(mean), right, wrong
    right, wrong = numbers(c.var**s*u.var**(1 - s)), numbers(c.var*u.var**(1 - s))
    yield numbers(law.var), right, wrong
    yield numbers(std**2), right, wrong


@row('eq-law-interval', cell='ba154d23', mutant='the power is s', tolerance=1e-9)
def window(t):
    "The variance with guidance in any interval of noise levels, for every real s."
    c, u, pair = drawn(t)
    s, low, high = t.number('s', -2, 8), t.number('low', 0, 1), t.number('high', 1.1, 5)
    inside, _ = measured(guide(pair, scale=s), high, low)
    below, _ = measured(guide(pair, scale=interval(s, low, high)), low, 0.)
    ratio = (c.var + low**2)*(u.var + high**2)/((c.var + high**2)*(u.var + low**2))
    right, wrong = numbers(c.var*ratio**(s - 1)), numbers(c.var*ratio**s)
    yield numbers((inside*below)**2*(c.var + high**2)), right, wrong
    yield numbers(ode_law(c, u, s, (low, high)).var), right, wrong


@row('eq-law-schedule', cell='032c74a5', mutant='s for s - 1', tolerance=1e-6)
def schedule(t):
    "The variance under any bounded schedule, here one that goes from a to b and waves on the way."
    c, u, pair = drawn(t)
    a, b, wave = t.number('a', -1, 6), t.number('b', -1, 6), t.number('wave', -2, 2)
    s = lambda sigma: (a + b*sigma**2)/(1 + sigma**2) + wave*math.sin(sigma)*math.exp(-sigma)
    weight = lambda sigma: 2*sigma*(1/(c.var + sigma**2) - 1/(u.var + sigma**2))
    cost = lambda less: quad(lambda k: (s(math.exp(k)) - less)*weight(math.exp(k))*math.exp(k), -16, 16, limit=200)[0]
    gain, _ = measured(guide(pair, scale=s), 1e4, 0., 1e-8)
    yield numbers((gain**2*(c.var + 1e8)).log()), numbers(math.log(c.var) - cost(1)), numbers(math.log(c.var) - cost(0))


@row('eq-law-auto', cell='3a70de44', mutant='the mean is that of plain guidance; the power is s', tolerance=1e-5)
def autoguidance(t):
    "Guidance against a blurred version of the class keeps the mean and narrows, for any scale and any blur."
    c, _, _ = drawn(t)
    s, b = t.number('s', -1, 8), t.number('b', .3, 2)
    blurred = Gauss(c.mean, c.var + b**2)
    law, (std, mean) = ode_law(c, blurred, s), from_noise(guide(as_pair(c, blurred), scale=s))
    ratio = c.var/(c.var + b**2)
    right, wrong = numbers(c.mean, c.var*ratio**(s - 1)), numbers(s*c.mean, c.var*ratio**s)
    for found in (numbers(*law), numbers(mean, std**2)):
        yield found[:1], right[:1], wrong[:1]
        yield found[1:], right[1:], wrong[1:]


def moments_of_sde(pair, s, start=3e3):
    "Mean and variance of the guided random sampler: two linear equations, whose slope is that of the guided denoiser."
    guided, none = guide(pair, scale=s), torch.zeros(2, dtype=torch.long)
    def slope(z, sigma):
        zero, one = ((guided(ENDS, sigma, none) - ENDS)/sigma**2)[:, 0]
        return -2*sigma*torch.stack([zero + (one - zero)*z[0], 2*(one - zero)*z[1] + 1])
    return integrate(slope, numbers(0, start**2), start, 0., 1e-7)


@row('eq-law-sde', cell='057b7754', mutant='powers s - 1 and s', tolerance=1e-5)
def sde(t):
    "Mean and variance of the guided random sampler from infinite noise, for every real s, and in both limits."
    c, u, pair = drawn(t)
    s, rho, more = t.number('s', -1, 4), c.var/u.var, u.var - c.var
    of_mean = lambda p: u.mean + (c.mean - u.mean)*u.var*(1 - rho**p)/more
    of_var = lambda p: u.var**2/more*(rho - rho**p)/(2*s - 1)
    right, wrong = numbers(of_mean(s), of_var(2*s)), numbers(of_mean(s - 1), of_var(s))
    for found in (numbers(*sde_law(c, u, s)), moments_of_sde(pair, s)):
        for i in range(2): yield found[i], right[i], wrong[i]
    equal = sde_law(c, u._replace(var=c.var), s)
    half = -u.var*math.log(rho)/more
    yield numbers(sde_law(c, u, .5).var), numbers(half*c.var), numbers(half*u.var)
    yield numbers(equal.mean), numbers(s*c.mean + (1 - s)*u.mean), numbers(s*c.mean - (1 - s)*u.mean)
    yield numbers(equal.var), numbers(c.var), numbers(u.var)


@row('eq-law-bn', cell='312a5834', mutant='s for s + 1; s for s - 1; 2s for 2s - 2', tolerance=1e-10)
def three_variances(t):
    "Bradley and Nakkiran's variances for v_c = 1 and v_u = 2, for every s > -1 but 1/2."
    s, c, u = t.number('s', -.9, 8), Gauss(t.number('mean of both', -2, 2), 1.), Gauss(0., 2.)
    u = u._replace(mean=c.mean)
    yield tilt_law(c, u, s).var, 2/(s + 1), 2/s
    yield ode_law(c, u, s).var, 2**(1 - s), 2**-s
    yield float(sde_law(c, u, s).var), (2 - 2**(2 - 2*s))/(2*s - 1), (2 - 2**(-2*s))/(2*s - 1)


@row('eq-law-order', cell='db07f99d', mutant='the power of rho is s', tolerance=1e-10)
def order(t):
    "The variance of the flow over that of the tilt, if there is one; for s > 1 it is at most 1, as at rho = 1."
    s, u = t.number('s', 1.05, 6), Gauss(0., t.number('v_u', .3, 3))
    rho = np.linspace(.02, .98*s/(s - 1) if s < 1.5 else 1, 99)
    rho[-1] = 1.
    found = np.array([ode_law(g, u, s).var/tilt_law(g, u, s).var for g in (Gauss(1., r*u.var) for r in rho)])
    formula = lambda power: rho**power*(s + (1 - s)*rho)
    yield torch.tensor(found), torch.tensor(formula(s - 1)), torch.tensor(formula(s))
    wide = np.linspace(.02, s/(s - 1), 5001)
    largest = lambda power: (wide**power*(s + (1 - s)*wide)).max()
    yield found.max(), 1., largest(s)


@row('eq-law-pc', cell='b4db39ed', mutant="s' = s", tolerance=1e-12)
def predictor_corrector(t):
    "The guided score is half the conditional one and half that of the tilt with 2s - 1, for every real s."
    world = t.world(t.whole('dimensions', 1, 4))
    s, sigma, c = t.number('s', -3, 8), t.number('sigma', .2, 3), t.whole('class', 0, world.classes - 1)
    x = 2*t.normal(20, world.dim)
    s_c, s_u = world.score(x, sigma, c), world.score(x, sigma)
    guided = guide(world, scale=s)(x, sigma, torch.full((20,), c))
    right = lambda more: s_c/2 + (more*s_c + (1 - more)*s_u)/2
    yield (guided - x)/sigma**2, right(2*s - 1), right(s)


@row('eq-law-gibbs', cell='4aa24f3e', mutant='a for its square in the variance; no 1 - a under b', tolerance=1e-9)
def gibbs(t):
    "The stationary law of sweeps, wherever a sweep contracts; and many sweeps reach it."
    c, u, pair = drawn(t, least=.8)
    s, level = t.number('s', -.3, 6), t.number('sigma_*', .4, 4)
    law, mean, var = gibbs_law(c, u, s, level), 0., 0.
    a, b = ode_by_formula(c, u, s, level, 0.).tolist()
    for _ in range(3000): mean, var = a*mean + b, a**2*(var + level**2)
    for found in (law, (mean, var)):
        yield float(found[0]), b/(1 - a), b
        yield float(found[1]), a**2*level**2/(1 - a**2), a*level**2/(1 - a)


@row('eq-law-cfgpp', cell='f6cd260f', mutant='the scale is lambda', tolerance=1e-10)
def cfgpp(t):
    "What a step of CFG++, as its authors write it, makes of the variance: for any levels and any lambda."
    c, u, pair = drawn(t)
    lam, start = t.number('lambda', 0, 1), t.number('first level', .5, 20)
    levels = [start*k for k in (1, .7, .5, .1, 0)]
    steps = torch.tensor(list(pairwise(levels)), dtype=torch.float64)
    label = torch.zeros(2, dtype=torch.long)
    ends = torch.stack([cfgpp_ddim_step(pair, Now(ENDS, a, b, label), lam).x[:, 0] for a, b in steps.tolist()])
    a, b = steps.T
    v = c.var + a**2
    G = lambda s: s*c.var/(c.var + a**2) + (1 - s)*u.var/(u.var + a**2)
    after = lambda s: v*(G(s) + b/a*(1 - G(s)))**2
    yield (ends[:, 1] - ends[:, 0])**2*v, after(lam*a/(a - b)), after(lam)


def climbed(c, u, lam, steps, start=40., last=1e-3):
    "Mean and standard deviation of samples after many steps of CFG++."
    mean, std, levels = 0., start, np.append(np.geomspace(start, last, steps), 0.).tolist()
    for a, b in pairwise(levels):
        W_c, W_u, keep = c.var/(c.var + a*a), u.var/(u.var + a*a), b/a
        gain = W_u + lam*(W_c - W_u) + keep*(1 - W_u)
        D_u, D_c = u.mean*(1 - W_u), c.mean*(1 - W_c)
        mean, std = gain*mean + D_u + lam*(D_c - D_u) - keep*D_u, gain*std
    return mean, std


@row('eq-law-ascent', cell='c3e17a97', mutant='plus for minus; the variance stays', tolerance=1e-3)
def ascent(t):
    "For v_c < v_u and 0 < lambda <= 1 all samples of CFG++ end where p(c|x) is largest, in the limit of many steps."
    c, u, pair = drawn(t, least=1.5)
    lam = t.number('lambda', .2, 1)
    x = torch.linspace(-40, 40, 400_001, dtype=torch.float64)[:, None]
    highest = x[(pair.log_prob(x, 0., 0) - pair.log_prob(x)).argmax()].item()
    top, between = ((c.mean/c.var + k*u.mean/u.var)/(1/c.var + k/u.var) for k in (-1, 1))
    (half, _), (mean, std) = (climbed(c, u, lam, steps) for steps in (10_000, 20_000))
    yield highest, top, between
    yield 2*mean - half, top, between
    yield std**2, 0., c.var


@row('eq-law-split', cell='edd44bb0', mutant='W_c for W_u in the part that moves', tolerance=1e-11)
def split(t):
    "The guidance term of any two Gaussians has a part that narrows or widens and one that moves."
    d, sigma = t.whole('dimensions', 2, 6), t.number('sigma', .2, 3)
    root, mu, x = t.normal(2, d, d), t.normal(2, d), 2*t.normal(20, d)
    eye = torch.eye(d, dtype=torch.float64)
    cov = root@root.mT/d + .1*eye
    pair = Pair(Mixture(mu[:1], cov[:1]), Mixture(mu[1:], cov[1:]))
    W_c, W_u = cov@torch.linalg.inv(cov + sigma**2*eye)
    right = lambda W: (x - mu[0])@(W_c - W_u).T + (eye - W)@(mu[0] - mu[1])
    yield pair(x, sigma, 0) - pair(x, sigma), right(W_u), right(W_c)
