"Chapter 5a: guidance as a Doob transform."
import math

import torch
from torch.autograd import grad

from cfg_course.core import NULL
from cfg_course.doob import cumulant_gap, one_quantity, path_price, renyi_gap
from cfg_course.laws import Gauss, ode_law
from cfg_course.mixtures import Mixture, Pair, integrate, mesh
from cfg_course.particles import weighed_step
from cfg_course.samplers import Now
from ledger import row
from ledger.limits import GRIDS, followed, guided_ends, heat_residual, log_q, renyi, scene, scores, trace, jacobian


def log_L(world, x, sigma, c):
    "Log of the density of the class over that of the whole."
    return world.log_prob(x, sigma, c) - world.log_prob(x, sigma)


def kernel(world, x, sigma, after, y=NULL):
    "Log probability of the points of the grid at a lower noise level, given noisy samples."
    x0 = GRIDS[1]
    return (world.log_prob(x0, after, y) - (x - x0.T)**2/(2*(sigma**2 - after**2))).log_softmax(1)


def generator(f, p, x, tau):
    "Mean rate of f along the unguided random sampler, by derivatives."
    x, tau = x.clone().requires_grad_(), torch.full((len(x),), tau, dtype=torch.float64).requires_grad_()
    d_tau, d_x = grad(f(x, tau.sqrt()).sum(), (tau, x), create_graph=True)
    slope, = grad(p(x, tau.sqrt()).sum(), x)
    return (-d_tau + (slope*d_x).sum(1) + trace(jacobian(d_x, x))/2).detach()


@row('eq-doob-martingale', cell='036fa34a', mutant='reweighted by L^2', tolerance=1e-10)
def martingale(t):
    "L is a martingale of the unguided random sampler, and reweights it to the conditional one, for any class of a world."
    world, c = t.world(1), 0
    sigma, after, x = t.number('sigma', .5, 2), t.number("sigma'", 0, .4), 2*t.normal(6, 1)
    L, start = log_L(world, GRIDS[1], after, c), log_L(world, x, sigma, c)
    step = kernel(world, x, sigma, after)
    yield (step + L).logsumexp(1) - start, torch.zeros(6), (step + 2*L).logsumexp(1) - 2*start
    right = kernel(world, x, sigma, after, c).exp()
    reweighted = lambda power: (step + power*(L - start[:, None])).exp()
    yield reweighted(1), right, right + reweighted(2) - reweighted(1)


@row('eq-doob-one', cell='2f51c067', mutant='s - 1 for s (s - 1)', tolerance=1e-10)
def one(t):
    "A power of L drifts at the rate s (s - 1)/2 |g|^2, for every real s, in any dimension."
    world, c, s, sigma = scene(t, -4, 6, 4)
    x = 2*t.normal(20, world.dim)
    base = log_L(world, x, sigma, c)
    drift = generator(lambda x, v: (s*(log_L(world, x, v, c) - base)).exp(), world.log_prob, x, sigma**2)
    squared = torch.sub(*scores(world, x, sigma, c)).square().sum(1)
    yield drift, s*(s - 1)/2*squared, (s - 1)/2*squared
    yield one_quantity(world, x, sigma, s, c), s*(s - 1)/2*squared, (s - 1)/2*squared


@row('eq-doob-sure', cell='f5b4ca3f', mutant='s for s - 1/2', tolerance=1e-11)
def sure(t):
    "Along guided random paths the drift of log L is (s - 1/2) |g|^2, for every real s."
    world, c, s, sigma = scene(t, -3, 6, 3)
    x = 2*t.normal(20, world.dim)
    squared = torch.sub(*scores(world, x, sigma, c)).square().sum(1)
    found = generator(lambda x, v: log_L(world, x, v, c), world.log_prob, x, sigma**2) + s*squared
    yield found, (s - .5)*squared, s*squared


@row('eq-doob-heat', cell='7f10d547', mutant='plus k q', tolerance=1e-10)
def heat(t):
    "The guided density misses the heat equation by -k q: the residual of chapter 5 is -k."
    world, c, s, sigma = scene(t, -4, 6, 3)
    x = 2*t.normal(30, world.dim)
    residual, _ = heat_residual(world, x, sigma**2, s, c)
    k = one_quantity(world, x, sigma, s, c)
    yield residual, -k, k


@row('eq-doob-renyi', cell='9bb0e4a2', mutant='the drift at the start, times tau', tolerance=1e-8)
def gap(t):
    "The Renyi term is the log of 1 and the summed drift of L^s, for s with a finite divergence."
    world, c, s, sigma = t.world(1), 0, t.number('s', 1.2, 4), t.number('sigma', .3, 1.2)
    x = 1.5*t.normal(5, 1)
    found = renyi_gap(mesh(-14, 14, 5601), world, x, sigma, s, c, steps=60)
    yield found, renyi(world, x, s, sigma, sigma, c), (1 + sigma**2*one_quantity(world, x, sigma, s, c)).log()


@row('eq-doob-path', cell='22372046', mutant='half of K', tolerance=1e-6)
def path(t):
    "The density of the guided flow is q exp(-K)/Z; for two Gaussians its variance is the law of chapter 6."
    world, c, s, end, ends, log_out, clean, _ = guided_ends(t, 4)
    _, K = path_price(world, ends, s, end, c, 1e-8)
    yield log_out, clean - K, clean - K/2

    v_c, v_u = t.number('v_c', .3, 2), t.number('v_u', .3, 2)
    pair, at = Pair(Mixture([[.7]], v_c), Mixture([[0.]], v_u)), torch.tensor([[-1.], [0.], [1.]], dtype=torch.float64)
    _, K = path_price(pair, at, s, 1e4, 0, 1e-8)
    bend = K[0] - 2*K[1] + K[2]
    tilt = s/v_c + (1 - s)/v_u
    precision = 1/ode_law(Gauss(.7, v_c), Gauss(0., v_u), s).var
    yield torch.tensor(precision), tilt + bend, tilt + bend/2


@row('eq-doob-low', cell='28f6057f', mutant='s - 1 for s (s - 1)', tolerance=1e-3)
def low(t):
    "At low noise the Renyi term is tau k; the weights of chapter 18 grow at the same rate."
    world, s = t.world(1), t.number('s', 1.2, 4)
    x, fine = 1.5*t.normal(5, 1), mesh(-9, 9, 36_001)
    def rate(tau):
        bell = world.log_prob(fine) - (x - fine.T)**2/(2*tau)
        power = s*log_L(world, fine, 0., 0)
        return ((bell + power).logsumexp(1) - bell.logsumexp(1) - s*log_L(world, x, tau**.5, 0))/tau
    a, b, d = (rate(v) for v in (1.2e-3, 6e-4, 3e-4))
    k = one_quantity(world, x, 0., s, 0)
    size = k.abs().max().clamp(min=1.)
    yield (8*d - 6*b + a)/3/size, k/size, k/s/size
    now = Now(x, .5, .4, torch.zeros(5, dtype=torch.long), lambda: t.normal(5, 1))
    weight = one_quantity(world, x, .5, s, 0)*(.25 - .16)
    yield weighed_step(world, now, s)[1], weight, weight/s


class Two:
    "Two Gaussians on a line, under an affine control."
    def __init__(self, t):
        self.c = t.number('mu_c', -1, 1), t.number('v_c', .3, .9)
        self.u = t.number('mu_u', -1, 1), t.number('v_u', 1., 2)

    def fields(self, tau, s):
        "g, s_u and the slope of the log gap, as slope and offset in x."
        (m_c, v_c), (m_u, v_u) = self.c, self.u
        A, B = v_c + tau, v_u + tau
        V = s*v_u*tau/B + (1 - s)*v_c*tau/A
        a = v_c/A - v_u/B, (m_c/A - m_u/B)*tau
        gap = tuple(s*(s - 1)/V*a[0]*o if tau else 0. for o in a)
        return (1/B - 1/A, m_c/A - m_u/B), (-1/B, m_u/B), gap

    def run(self, s, x, sigma, control):
        "Mean, variance; sums of |a|^2/2, k, |a - s g|^2/2 and half the squared slope of the gap."
        square = lambda f, m, V: (f[0]*m + f[1])**2 + f[0]**2*V
        def slope(z, v):
            m, V = z[0].item(), z[1].item()
            g, s_u, gap = self.fields(v**2, s)
            a = control(v**2, g)
            miss = a[0] - s*g[0], a[1] - s*g[1]
            costs = [square(a, m, V)/2, s*(s - 1)/2*square(g, m, V), square(miss, m, V)/2, square(gap, m, V)/2]
            drift, bend = (s_u[0] + a[0])*m + s_u[1] + a[1], s_u[0] + a[0]
            return -2*v*torch.tensor([drift, 2*bend*V + 1, *costs], dtype=torch.float64)
        return integrate(slope, torch.tensor([x, 0, 0, 0, 0, 0], dtype=torch.float64), sigma, 0., 1e-10)

    def log_L(self, m, V, tau=0.):
        "Mean of log L over a Gaussian."
        log = lambda mu, v: -math.log(v + tau)/2 - ((m - mu)**2 + V)/(2*(v + tau))
        return log(*self.c) - log(*self.u)


@row('eq-doob-control', cell='90aac5d6', mutant='no price k', tolerance=1e-7)
def control(t):
    "The value of an affine control is s log L less half its squared distance from s g, for every real s."
    two, s, x, sigma = Two(t), t.number('s', -1, 4), t.number('x', -2, 2), t.number('sigma', .5, 3)
    al, be, ga = t.normal(3).tolist()
    m, V, effort, k, miss, _ = two.run(s, x, sigma, lambda tau, g: (al*g[0] - be/(1 + tau), al*g[1] + ga))
    earned = s*two.log_L(m, V) - effort
    right = s*two.log_L(x, 0., sigma**2) - miss
    size = 1 + miss.abs()
    yield (earned - k)/size, right/size, (right + k)/size


@row('eq-doob-regret', cell='8d271376', mutant='no mean of K', tolerance=1e-7)
def regret(t):
    "What guidance misses of the value is the divergence of its paths from the tilt's, where the Renyi term is finite."
    two, s, x, sigma = Two(t), t.number('s', .2, 3), t.number('x', -2, 2), t.number('sigma', .5, 3)
    *_, K, _, paths = two.run(s, x, sigma, lambda tau, g: (s*g[0], s*g[1]))
    pair = Pair(Mixture([[two.c[0]]], two.c[1]), Mixture([[two.u[0]]], two.u[1]))
    log_mean = renyi(pair, torch.tensor([[x]], dtype=torch.float64), s, sigma, sigma, 0)[0]
    yield paths, log_mean - K, log_mean


@row('eq-doob-kl', cell='4a9e5f2d', mutant='half the variance of K', tolerance=1e-6)
def divergence(t):
    "Both divergences between the guided flow's output and the tilt are cumulant gaps of K, for s at which q can be normalised."
    world, s, end = t.world(1), t.number('s', 1.5, 3.5), 6.
    x = mesh(-9, 9, 361)
    rates = lambda x, sigma, s_c, s_u: (s*s_c + (1 - s)*s_u, (s_c - s_u).square().sum(1, True).expand(-1, 2))
    start, stretch, _ = followed(world, 0, rates, x, end)
    _, K = path_price(world, x, s, end, 0, 1e-8)
    log_out, log_pi = (log_q(world, start, end, s, 0) + stretch).log_softmax(0), log_q(world, x, 0., s, 0).log_softmax(0)
    out, pi = log_out.exp(), log_pi.exp()
    spread = lambda p: ((p@K**2 - (p@K)**2)/2).item()
    yield (out@(log_out - log_pi)).item(), cumulant_gap(K, out), spread(out)
    yield (pi@(log_pi - log_out)).item(), cumulant_gap(-K, pi), spread(pi)
