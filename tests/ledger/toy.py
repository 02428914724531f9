"Chapter 21: guidance in the exact world."
import math

import numpy as np
import torch

from cfg_course.guidance import guide
from cfg_course.laws import Gauss, phi
from cfg_course.mixtures import Mixture, Pair
from ledger import row


@row('eq-toy-dial', cell='dbde118f', mutant='1 + beta for 2(1 + beta), and s is lost in the mean', tolerance=1e-6)
def dial(t):
    "Mean and variance at any s and beta > 0 solve the moment equations of the library's guided score of two Gaussians."
    c, u = (Gauss(t.number(f'mu_{k}', -2, 2), t.number(f'v_{k}', .2, 3)) for k in 'cu')
    s, beta = t.number('s', -1, 5), t.number('beta', .3, 6)
    guided = guide(Pair(Mixture([[c.mean]], c.var), Mixture([[u.mean]], u.var)), scale=s)
    half_steps = torch.linspace(math.log(1e10), -20, 8001, dtype=torch.float64)
    tau, label = half_steps.exp(), torch.zeros(8001, dtype=torch.long)
    def score(x): return (guided(x, tau.sqrt(), label) - x)[:, 0]/tau
    at_0, at_1 = score(torch.zeros(8001, 1).double()), score(torch.ones(8001, 1).double())
    drift = (tau*(1 + beta)*torch.stack([at_0, at_1 - at_0])).T.tolist()  # the guided score is a line
    def slope(i, m, V):
        level, bend = drift[i]
        return level/2 + bend/2*m, bend*V + beta*tau_list[i]
    tau_list, h = tau.tolist(), 2*(half_steps[0] - half_steps[1]).item()
    m, V = u.mean, 1e10
    for i in range(0, 8000, 2):  # Runge and Kutta's, in the logarithm of tau, downwards
        a = slope(i, m, V)
        b = slope(i + 1, m + h/2*a[0], V + h/2*a[1])
        c_ = slope(i + 1, m + h/2*b[0], V + h/2*b[1])
        d = slope(i + 2, m + h*c_[0], V + h*c_[1])
        m, V = (o + h/6*(p + 2*q + 2*r + w) for o, p, q, r, w in zip((m, V), a, b, c_, d))
    log_tau = np.linspace(-40, 100, 14001)
    tau = np.exp(log_tau)
    ratio = phi(c, u, s, 0.)/phi(c, u, s, tau**.5)
    def over_tau(f): return (f*tau).sum()*(log_tau[1] - log_tau[0])
    def var(power): return beta*over_tau(ratio**power)
    def mean(s): return u.mean + (1 + beta)/2*s*(c.mean - u.mean)*over_tau(ratio**(1 + beta)/(c.var + tau))
    yield V, var(2*(1 + beta)), var(1.5*(1 + beta))
    yield m, mean(s), mean(1.)


@row('eq-toy-richardson', cell='c3a1ea40', mutant='b/(a + b) for b/(b - a)', tolerance=1e-3)
def richardson(t):
    "Scores at small blurs a and b give the score itself, up to -ab/2 times its second derivative in sigma^2."
    world, level = t.world(t.whole('dim', 1, 3)), t.number('sigma', .2, 2)
    a, b = t.number('a/sigma^2', 1e-5, 1e-4)*level**2, t.number('b/sigma^2', 2e-4, 4e-4)*level**2
    x, y = 2*t.normal(12, world.dim), t.labels(12, world.classes)
    tau = torch.full((12,), level**2, dtype=torch.float64, requires_grad=True)
    def derivative(f): return torch.autograd.grad(f.sum(), tau, create_graph=True)[0]
    exact = world.score(x, tau.sqrt(), y)
    bend = torch.stack([derivative(derivative(exact[:, i])) for i in range(world.dim)], 1)
    strong, weak = (world.score(x, (level**2 + more)**.5, y) for more in (a, b))
    def left_over(s): return (s*strong + (1 - s)*weak - exact)/(a*b)
    found = left_over(b/(b - a))
    size = bend.abs().max()
    yield found/size, -bend/2/size, (found - left_over(b/(a + b)) - bend/2)/size


@row('eq-toy-variance', cell='e7693ab2', mutant='the prior of a class for its posterior', tolerance=1e-10)
def variance(t):
    "The variance without label less the mean variance within classes is that between them; unequal parts and weights."
    dim = t.whole('dim', 1, 4)
    world, sigma = t.world(dim), t.number('sigma', .2, 4)
    x = (2*t.normal(12, dim)).requires_grad_()
    def trace(y): return sum(torch.autograd.grad(world(x, sigma, y)[:, i].sum(), x)[0][:, i] for i in range(dim))
    D_u = world(x, sigma)
    priors = torch.stack([world.weights[world.labels == c].sum() for c in range(world.classes)]).expand(12, -1)
    def sides(p):
        within = sum(p[:, c]*trace(c) for c in range(world.classes))
        between = sum(p[:, c]*(world(x, sigma, c) - D_u).square().sum(1) for c in range(world.classes))
        return sigma**2*(trace(-1) - within), between
    left, right = sides(world.posterior(x, sigma))
    yield left, right, sides(priors)[1]
