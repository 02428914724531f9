"Chapter 11: noise schedules."
import math
from statistics import NormalDist

import torch

from cfg_course.schedules import cosine_logsnr, karras_grid, lognormal_sigma
from ledger import row


@row('eq-lognormal', cell='3695ff0d', mutant='the variance for the standard deviation', tolerance=1e-12)
def lognormal(t):
    "The logarithm of a log-normal level is P_mean + P_std times the normal quantile of u, 0 < u < 1, for P_std > 0."
    P_mean, P_std, u = t.number('P_mean', -3, 3), t.number('P_std', .1, 3), t.uniform(300)
    quantile = torch.tensor([NormalDist().inv_cdf(p) for p in u.tolist()], dtype=torch.float64)
    yield lognormal_sigma(u, P_mean, P_std).log(), P_mean + P_std*quantile, P_mean + P_std**2*quantile


@row('eq-cosine', cell='5a0500bb', mutant='at the ends exp(-lambda) for exp(-lambda/2)', tolerance=1e-10)
def cosine(t):
    "The log SNR of u is -2 log tan(au + b), with a and b from any two ends; its slope is -4a cosh(lambda/2)."
    low, high = t.number('logsnr_min', -20, 0), t.number('logsnr_max', 1, 20)
    u = t.uniform(300).requires_grad_()
    logsnr = cosine_logsnr(u, low, high)
    slope, = torch.autograd.grad(logsnr.sum(), u)
    def ends(half):
        b = math.atan(math.exp(-high*half))
        return math.atan(math.exp(-low*half)) - b, b
    def right(a, b): return -2*(a*u + b).tan().log()
    (a, b), (wrong_a, wrong_b) = ends(.5), ends(1.)
    yield logsnr, right(a, b), right(wrong_a, wrong_b)
    yield -1/slope, 1/(4*a*(logsnr/2).cosh()), 1/(4*wrong_a*(logsnr/2).cosh())
    at_ends = cosine_logsnr(torch.tensor([0., 1.], dtype=torch.float64), low, high)
    right_ends = torch.tensor([high, low], dtype=torch.float64)
    yield at_ends, right_ends, 2*right_ends


@row('eq-karras', cell='8c6ed8fb', mutant='i/N for i/(N - 1)', tolerance=1e-12)
def karras(t):
    "EDM's grid of N >= 2 steps falls evenly in the power 1/rho of sigma from sigma_max to sigma_min, and ends in 0."
    N, rho = t.whole('N', 2, 60), t.number('rho', .5, 12)
    low, high = t.number('sigma_min', .001, .5), t.number('sigma_max', 1, 200)
    i = torch.arange(N, dtype=torch.float64)
    def levels(part): return (high**(1/rho) + part*(low**(1/rho) - high**(1/rho)))**rho
    grid = karras_grid(N, low, high, rho)
    yield grid[:-1].log(), levels(i/(N - 1)).log(), levels(i/N).log()
    yield grid[-1], 0., levels(1.)
