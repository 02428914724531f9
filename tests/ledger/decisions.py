"Chapter 7c: when decisions fall."
import math

import numpy as np
import torch
from scipy.special import expit, log_ndtr

from cfg_course.decisions import agreement, collapse_level, decision_level, many_level, signal_for, spectral_level
from cfg_course.laws import Gauss, sde_law
from cfg_course.mixtures import Mixture, mesh
from ledger import row

Z = np.linspace(-9, 9, 4001)
BELL = np.exp(-Z**2/2)/np.exp(-Z**2/2).sum()


def numbers(*values):
    "Numbers as a tensor."
    return torch.tensor([float(v) for v in values], dtype=torch.float64)


@row('eq-dec-saddle', cell='7de0fba1', mutant='sigma^2 below, not sigma^4; plus v', tolerance=1e-8)
def saddle(t):
    "The curvature of the log density from the covariance given x, anywhere; and where the middle of two classes turns."
    world, sigma = t.world(3), t.number('sigma', .4, 2)
    x, e = t.normal(1, 3), t.normal(3)
    e = e/e.norm()
    f = lambda r: world.log_prob(x + r*e, sigma)[0]
    curve = torch.func.grad(torch.func.grad(f))(torch.zeros((), dtype=torch.float64))
    cov = sigma**2*torch.func.jacrev(lambda x: world(x, sigma)[0])(x)[:, 0]
    right = e@cov@e - sigma**2
    yield curve, right/sigma**4, right/sigma**2
    v = t.number('v', .1, .8)
    m = (1 + v)*t.normal(4)
    m = m/m.norm()*(v**.5 + t.number('more', .2, 2))
    two, level = Mixture(torch.stack([m, -m]), v), spectral_level(m.norm().item(), v)
    middle = lambda r: two.log_prob(r*(m/m.norm())[None], level)[0]
    yield torch.func.grad(torch.func.grad(middle))(torch.zeros((), dtype=torch.float64)), 0., 1.
    yield level**2, m@m - v, m@m + v


@row('eq-dec-agreement', cell='f72c28b2', mutant='half the first, twice the second', tolerance=1e-6)
def growth(t):
    "How agreement and information fall with the noise, in a random world on a line with unequal classes."
    world, sigma, h = t.world(1), t.number('sigma', .5, 2.5), 1e-3
    prior = torch.zeros(world.classes, dtype=torch.float64).index_add(0, world.labels, world.weights)
    def on(s):
        L = 6 + 8*math.sqrt(1.2 + s**2)
        x = mesh(-L, L, 6001)
        return x, (x[1] - x[0])*world.log_prob(x, s).exp(), world.posterior(x, s)
    def both(s):
        _, mass, p = on(s)
        return torch.stack([mass@(p**2).sum(1), mass@torch.special.xlogy(p, p/prior).sum(1)])
    x, mass, p = on(sigma)
    g = torch.cat([world.score(x, sigma, k) - world.score(x, sigma) for k in range(world.classes)], 1)
    change = (both(math.sqrt(sigma**2 + h)) - both(math.sqrt(sigma**2 - h)))/(2*h)
    right = torch.stack([-mass@((p*g)**2).sum(1), -mass@(p*g**2).sum(1)/2])
    for i, factor in enumerate((.5, 2)): yield change[i], right[i], factor*right[i]


@row('eq-dec-signal', cell='35e206f6', mutant='k^2 for 2 k^2; without v', tolerance=1e-6)
def signal(t):
    "Agreement of two round classes from the signal alone, by a sum along the line of the centres; and the level."
    a, v, sigma = t.number('|m|', .5, 3), t.number('v', .1, 1), t.number('sigma', .2, 3)
    pair = Mixture([[a], [-a]], v)
    x = mesh(-60, 60, 40001)
    p = pair.posterior(x, sigma)
    found = ((x[1] - x[0])*pair.log_prob(x, sigma).exp())@(p**2).sum(1)
    k = a/math.sqrt(v + sigma**2)
    right, wrong = (BELL@expit(c*k*k + 2*k*Z) for c in (2, 1))
    yield found, right, wrong
    yield agreement(k), right, wrong
    wanted = t.number('wanted', .55, .7)
    far = 3 + a
    yield decision_level(far, v, wanted)**2, far**2/signal_for(wanted)**2 - v, far**2/signal_for(wanted)**2


@row('eq-dec-many', cell='91f12bf2', below=True, mutant='k for k - a and k + a; A for A^2, A^2 for A', tolerance=1e-9)
def many(t):
    "The accuracy among many classes between its bounds, and the agreement between the accuracy's square and itself."
    log_M, beta, a = t.number('log M', 3, 40), t.number('beta', 1.5, 2.5), t.number('a', 1.2, 2)
    k, low_k = math.sqrt(2*beta*log_M), math.sqrt(.5*log_M)
    def accuracy(k): return BELL@np.exp(math.expm1(log_M)*log_ndtr(k + Z))
    def Q(x): return math.exp(log_ndtr(-x))
    def low(k, a): return 1 - Q(a) - math.exp(log_M + log_ndtr(a - k))
    def high(shift): return Q(a) + math.exp(-math.expm1(log_M)*Q(low_k + shift))
    yield low(k, a), accuracy(k), accuracy(k)
    yield accuracy(low_k), high(a), high(-a)*0
    M, n = t.whole('M', 5, 30), 1.5
    x = t.normal(4000, M)
    x[:, 0] += n
    p = (n*x).softmax(1)
    A, phi = p.max(1).values.mean(), (p**2).sum(1).mean()
    yield A**2, phi, A**2
    yield phi, A, A**2
    yield 1/many_level(9., .1, log_M)**2, 2*log_M/(81 - .2*log_M)*(1 + 1e-12), log_M/81


@row('eq-dec-order', cell='eca7ee1c', mutant='the modes are equally likely; the lengths, not their squares', tolerance=1e-9)
def order(t):
    "Class and mode of four parts at right angles are independent given x; and the ratio of their levels."
    m, v, sigma = t.normal(3), t.number('v', .1, .5), t.number('sigma', .3, 2)
    b = t.normal(3)
    b = b - (b@m)/(m@m)*m
    b, m = 2*b/b.norm(), (2 + t.number('longer', .5, 2))*m/m.norm()
    four = Mixture(torch.stack([m + b, m - b, -m + b, -m - b]), v)
    x = 2*t.normal(40, 3)
    p = four.posterior(x, sigma)
    of_class, of_mode = (torch.stack([p[:, i] + p[:, j], 1 - p[:, i] - p[:, j]], 1) for i, j in ((0, 1), (0, 2)))
    both = (of_class[:, :, None]*of_mode[:, None]).flatten(1)
    yield p, both, (of_class[:, :, None]*torch.full_like(of_mode, .5)[:, None]).flatten(1)
    one, two = (decision_level(a.norm().item(), v, .7)**2 + v for a in (m, b))
    yield one/two, (m@m)/(b@b), m.norm()/b.norm()


@row('eq-dec-response', cell='48d61122', mutant='the integral over sigma, not its square', tolerance=1e-5)
def response(t):
    "What a little guidance does to the mean of cos(a x), for two Gaussians: from the law of the random sampler, and the integral."
    c = Gauss(t.number('mu_c', -1, 1), t.number('v_c', .3, 1))
    u, a = Gauss(t.number('mu_u', -1, 1) + .3, c.var*t.number('v_u/v_c', 1.5, 4)), t.number('a', .5, 2)
    def mean_cos(s):
        law = sde_law(c, u, s)
        return math.cos(a*law.mean)*math.exp(-a*a*float(law.var)/2)
    slope = (8*(mean_cos(1.01) - mean_cos(.99)) - mean_cos(1.02) + mean_cos(.98))/.12
    def density(sigma):
        A, B = c.var + sigma**2, u.var + sigma**2
        x = c.mean + A**.5*Z
        D, V = c.mean + c.var/A*(x - c.mean), c.var*sigma**2/A
        return BELL@(((x - u.mean)/B - (x - c.mean)/A)*-a*np.sin(a*D)*math.exp(-a*a*V/2)*c.var/A)
    levels = np.geomspace(1e-4, 1e4, 1501)
    right, wrong = (np.trapezoid([density(s)*w(s) for s in levels], np.log(levels)) for w in (lambda s: 2*s**2, lambda s: s))
    yield slope, right, wrong


@row('eq-dec-collapse', cell='fd404c5d', mutant='d for d/2', tolerance=1e-9)
def collapse(t):
    "The mean odds against the own point, by a sum for each coordinate, over the formula; and the level where they are 1."
    N, d, v, sigma = t.whole('N', 3, 5000), t.whole('d', 1, 8), t.number('v', .2, 2), t.number('sigma', .3, 1)
    own, n = v**.5*t.normal(d), t.normal(d)
    x = own + sigma*n
    side = torch.linspace(-12*v**.5, 12*v**.5, 6001, dtype=torch.float64)
    weight = (-side**2/(2*v)).softmax(0)
    exact = (N - 1)*math.exp(n@n/2)*math.prod((weight@torch.exp(-(a - side)**2/(2*sigma**2))).item() for a in x)
    def formula(power): return (N - 1)*(sigma**2/(v + sigma**2))**power*math.exp(n@n/2 - x@x/(2*(v + sigma**2)))
    yield 1., formula(d/2)/exact, formula(d)/exact
    at = collapse_level(v, N, d)**2
    yield (N - 1)*(at/(v + at))**(d/2), 1., (N - 1)*(at/(v + at))**d
