"Chapter 17: rules."
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from cfg_course.guidance import Look, apply
from cfg_course.rules import adg, apg, cfg_zero, renorm, rescale, tcfg, threshold
from cfg_course.scores import FROM_X0
from ledger import Trial, row


def each(
    formula:Callable, # of one sample
    *samples:Tensor, # `(B, ...)`
)->Tensor: # `(B, ...)`
    "A formula, sample by sample."
    return torch.stack([formula(*of_one) for of_one in zip(*samples)])


def levels(
    t:Trial, # source of randomness
    n:int, # how many
)->Tensor: # `(n,)` from .05 to 50
    "Noise levels of samples."
    return .05*1000**t.uniform(n)


def looks(
    t:Trial, # source of randomness
    shape:tuple[int, ...], # of a sample
    n:int=5, # samples
)->tuple[Tensor, Tensor, Look]: # two predictions, of samples of many lengths; what a rule may know beside them
    "Two random predictions, each at its own noise level."
    size = (.1*100**t.uniform(n)).reshape(n, *[1]*len(shape))
    D_u, D_c, x = t.normal(3, n, *shape)
    labels = torch.zeros(n, dtype=torch.long)
    return size*(D_u + .3), size*(D_c + .3), Look(x, levels(t, n), labels, {}, None, None)


def seen(
    t:Trial, # source of randomness
    rule, # to try
    space:str, # in which the chapter writes it
    s:float, # guidance scale
)->tuple[Tensor, Tensor, Tensor]: # what the rule gives, and the weak and the strong prediction, all in that space
    "A rule on predictions of vectors or pictures."
    D_u, D_c, look = looks(t, t.one_of('shape', [(7,), (3, 8, 8), (1, 5, 6)]))
    into = lambda D: FROM_X0[space](D, look.x, look.sigma)
    return into(apply(rule, D_u, D_c, s, look)), into(D_u), into(D_c)


@row('eq-rules-rescale', cell='89eccc12', mutant='lengths for standard deviations', tolerance=1e-12)
def rescaled(t):
    "At any scale the rescaled v is the guided one times phi std(c)/std(g) + 1 - phi, where std(g) is not zero."
    s, phi = t.number('s', -3, 12), t.number('phi', 0, 1)
    got, u, c = seen(t, rescale(phi=phi), 'v', s)
    def formula(size):
        return lambda u, c: (phi*size(c)/size(u + s*(c - u)) + 1 - phi)*(u + s*(c - u))
    yield got, each(formula(torch.std), u, c), each(formula(torch.norm), u, c)


@row('eq-rules-renorm', cell='07c363b2', mutant='standard deviations for lengths', tolerance=1e-12)
def renormed(t):
    "At any scale the renormalised velocity is the guided one times |c|/|g|, where g is not zero."
    s = t.number('s', -3, 12)
    got, u, c = seen(t, renorm(), 'flow', s)
    def formula(size):
        return lambda u, c: size(c)/size(u + s*(c - u))*(u + s*(c - u))
    yield got, each(formula(torch.norm), u, c), each(formula(torch.std), u, c)


@row('eq-rules-threshold', cell='8affa30d', mutant='q may be below 1', tolerance=1e-12)
def clipped(t):
    "Dynamic thresholding clips the guided image at q, the larger of 1 and a quantile of its pixels, and divides by q."
    s, share = t.number('s', 1, 12), t.number('quantile', .5, 1)
    D_u, D_c, look = looks(t, (3, 8, 8))
    size = torch.tensor([1e-4, .1, 1., 3., 10.], dtype=torch.float64)[:, None, None, None]
    D_u, D_c = size*D_u, size*D_c
    def formula(least):
        def of_sample(g):
            q = max(least, np.quantile(g.abs(), share))
            return g.clamp(-q, q)/q
        return each(of_sample, D_u + s*(D_c - D_u))
    yield apply(threshold(quantile=share), D_u, D_c, s, look), formula(1.), formula(0.)


@row('eq-rules-apg', cell='f1675336', mutant='the memory has the other sign', tolerance=1e-12)
def projected(t):
    "Over four steps: a memory with the weight beta, a largest length r, and the share eta of the part along c."
    s, eta, beta, r = t.number('s', 1, 9), t.number('eta', -.5, 1.5), t.number('beta', -.9, .9), t.number('r', 3, 30)
    memory, steps = {}, []
    for _ in range(4):
        D_u, D_c, look = looks(t, (3, 8, 8))
        got = apply(apg(eta=eta, threshold=r, momentum=beta), D_u, D_c, s, look._replace(memory=memory))
        steps.append((got, D_u, D_c))
    def formula(beta):
        bar = torch.zeros_like(D_c)
        for _, u, c in steps:
            bar = c - u + beta*bar
            def of_sample(c, bar):
                short = min(1, r/bar.norm())*bar
                along = (short*c).sum()/c.norm()**2*c
                return c + (s - 1)*(short - along + eta*along)
            yield each(of_sample, c, bar)
    yield tuple(torch.stack(list(side)) for side in ((got for got, *_ in steps), formula(beta), formula(-beta)))


@row('eq-rules-zero', cell='02ef2990', mutant='gamma is divided by |c|^2', tolerance=1e-12)
def zeroed(t):
    "Guidance against gamma u, with gamma = <c, u>/|u|^2; above the time at which it begins the velocity is zero."
    s, begin = t.number('s', -3, 9), t.number('zero_from', .3, 1)
    D_u, D_c, look = looks(t, (3, 4, 5))
    look.sigma[0] = .2
    D = apply(cfg_zero(zero_from=begin), D_u, D_c, s, look)
    u, c, got = (FROM_X0['flow'](D, look.x, look.sigma) for D in (D_u, D_c, D))
    def formula(by):
        def of_sample(u, c, sigma):
            gamma = (c*u).sum()/(by(u, c)**2).sum()
            return (gamma*u + s*(c - gamma*u))*(sigma/(1 + sigma) <= begin)
        return each(of_sample, u, c, look.sigma)
    yield got, formula(lambda u, c: u), formula(lambda u, c: c)


@row('eq-rules-tcfg', cell='345b163f', mutant='the second singular vector; 2<u, c>^2 in kappa^2', tolerance=1e-11)
def damped(t):
    "The part of u along the first singular vector of [u; c] has the closed form, where the two singular values differ."
    s = t.number('s', -3, 9)
    got, u, c = seen(t, tcfg(), 'eps', s)
    guided = lambda u, c: u + s*(c - u)
    def by_svd(k):
        def of_sample(u, c):
            v = torch.linalg.svd(torch.stack([u.flatten(), c.flatten()]), full_matrices=False).Vh[k].reshape(u.shape)
            return guided((u*v).sum()*v, c)
        return of_sample
    def closed(four):
        def of_sample(u, c):
            uu, cc, uc = (u*u).sum(), (c*c).sum(), (u*c).sum()
            kappa = ((uu - cc)**2 + four*uc**2)**.5
            return guided((uc*c + (kappa + uu - cc)/2*u)/kappa, c)
        return of_sample
    yield got, each(by_svd(0), u, c), each(by_svd(1), u, c)
    yield got, each(closed(4), u, c), each(closed(2), u, c)


@row('eq-rules-adg', cell='da330255', mutant='e is not divided by the sine of the angle', tolerance=1e-10)
def turned(t):
    "The strong image is turned by (s - 1) theta, at most pi/3; where sin theta <= 1/1000 the ratio is s - 1."
    s = t.number('s', -4, 9)
    D_u, D_c, look = looks(t, (3, 4, 5))
    D_c[0] = 1.7*D_u[0] + 1e-4*D_c[0]
    def formula(divided):
        def of_sample(u, c):
            theta = ((u*c).sum()/u.norm()/c.norm()).arccos()
            turn = ((s - 1)*theta).clamp(-math.pi/3, math.pi/3)
            ratio = s - 1 if theta.sin() <= 1e-3 else turn.sin()/theta.sin()
            e = c - (c*u).sum()/(u*u).sum()*u
            return turn.cos()*c + (ratio if divided else turn.sin())*e
        return each(of_sample, D_u, D_c)
    yield apply(adg(), D_u, D_c, s, look), formula(True), formula(False)
