"Chapter 17c: histories."
import math

import torch
from torch import Tensor

from cfg_course.guidance import Look, Rule, apply
from cfg_course.histories import eps_scaling, higs, lf_cfg, momentum, smc_cfg, tsr
from cfg_course.scores import FROM_X0
from ledger import Trial, row
from ledger.rules import each, looks


def walk(
    t:Trial, # source of randomness
    rule:Rule, # to try
    s:float, # guidance scale
    space:str, # in which the chapter writes it
    shape:tuple[int, ...]=(3, 8, 8), # of a sample
    steps:int=4, # how many
)->tuple[Tensor, Tensor, Tensor, list[Look]]: # `(steps, B, ...)` what it gives, u and c in that space; what else is known
    "A rule over some steps of one run, at random predictions."
    memory, got, given = {}, [], []
    for _ in range(steps):
        D_u, D_c, look = looks(t, shape)
        look = look._replace(memory=memory)
        D = apply(rule, D_u, D_c, s, look)
        given.append(look)
        got.append([FROM_X0[space](o, look.x, look.sigma) for o in (D, D_u, D_c)])
    return *(torch.stack(list(o)) for o in zip(*got)), given


@row('eq-histories-momentum', cell='973d6cc8', mutant='the memory is fed with what the rule gave', tolerance=1e-11)
def with_momentum(t):
    "Over four steps: away from a running mean of the unmodified guided velocities, which begins with the first of them."
    s, alpha, beta = t.number('s', -3, 9), t.number('alpha', .3, 1.5), t.number('beta', .1, .9)
    got, u, c, _ = walk(t, momentum(alpha=alpha, beta=beta), s, 'flow')
    g = u + s*(c - u)
    def formula(unmodified):
        m = g[0]
        for now in g:
            guided = now + alpha*(now - m)
            m = beta*m + (1 - beta)*(now if unmodified else guided)
            yield guided
    yield tuple(torch.stack(list(side)) for side in (got, formula(True), formula(False)))


def cosine_filter(
    a:Tensor, # `(C, H, W)`
)->Tensor: # same shape
    "Each cosine of a picture times the sigmoid of 50 (R - .05)."
    H, W = a.shape[1:]
    def basis(n):
        rows = [[math.cos(math.pi*k*(2*j + 1)/(2*n)) for j in range(n)] for k in range(n)]
        waves = torch.tensor(rows, dtype=torch.float64)
        return waves/waves.norm(dim=1, keepdim=True)
    down, across = basis(H), basis(W)
    parts = torch.einsum('ih,jw,chw->cij', down, across, a)
    R = torch.tensor([[math.hypot(i/H, j/W) for j in range(W)] for i in range(H)], dtype=torch.float64)
    return torch.einsum('ih,jw,cij->chw', down, across, parts/(1 + torch.exp(-50*(R - .05))))


@row('eq-histories-higs', cell='c2299a0e', mutant='the history begins with the first picture', tolerance=1e-11)
def with_history(t):
    "Over four steps: what is new against a sum of the past that begins at 0, filtered, in a window of time."
    s, w, eta, alpha = t.number('s', -3, 9), t.number('w', .5, 3), t.number('eta', .2, 1.5), t.number('alpha', .3, .9)
    low, high = t.number('t_0', .05, .3), t.number('t_1', .7, .95)
    rule = higs(strength=w, eta=eta, alpha=alpha, window=(low, high))
    got, u, c, seen = walk(t, rule, s, 'x0', (2, 6, 8))
    g = u + s*(c - u)
    def formula(start):
        G = start
        for now, look in zip(g, seen):
            def of_sample(g, G, sigma):
                at, d = 2/math.pi*math.atan(sigma), g - G
                weight = w*math.sqrt((at - low)/(high - low)) if low < at <= high else 0.
                along = (d*g).sum()/(g*g).sum()*g
                return g + weight*cosine_filter(d - along + eta*along)
            yield each(of_sample, now, G, look.sigma)
            G = alpha*now + (1 - alpha)*G
    yield tuple(torch.stack(list(side)) for side in (got, formula(0*g[0]), formula(g[0])))


@row('eq-histories-one', cell='9e660d26', mutant='the first step for the one before', tolerance=1e-11)
def one_formula(t):
    "From the second step on, momentum with beta = 0 and HiGS with one step of memory, no filter and no window are one formula."
    s, alpha = t.number('s', -3, 9), t.number('alpha', .3, 2)
    pictures = higs(strength=alpha, alpha=1., eta=1., filtered=False, window=None)
    rules = dict(x0=pictures, flow=momentum(alpha=alpha, beta=0.), eps=momentum(alpha=alpha, beta=0., space='eps'))
    for space, rule in rules.items():
        got, u, c, _ = walk(t, rule, s, space)
        a = u + s*(c - u)
        yield got[1:], a[1:] + alpha*(a[1:] - a[:-1]), a[1:] + alpha*(a[1:] - a[0])


@row('eq-histories-smc', cell='d2afbc0c', mutant='the history is not corrected', tolerance=1e-11)
def controlled(t):
    "Over four steps: Delta less kappa times the sign of a surface made of it and of the corrected error of the step before."
    s, push, slope = t.number('s', -3, 9), t.number('kappa', .2, 1), t.number('lambda', .2, 1.5)
    got, u, c, _ = walk(t, smc_cfg(push=push, slope=slope), s, 'flow')
    def formula(corrected):
        e = c[0] - u[0]
        for now_u, d in zip(u, c - u):
            pushed = d - push*torch.sign(d - e + slope*e)
            e = pushed if corrected else d
            yield now_u + s*pushed
    yield tuple(torch.stack(list(side)) for side in (got, formula(True), formula(False)))


@row('eq-histories-lf', cell='72cd537b', mutant='calm is what moves less than the mean', tolerance=1e-11)
def calmed(t):
    "Over four steps: the low band times rho where it moved less than the mean and a standard deviation, u and c apart."
    s, rho, by = t.number('s', -3, 9), t.number('rho', -.5, .8), t.whole('by', 2, 4)
    got, u, c, _ = walk(t, lf_cfg(rho=rho, by=by), s, 'flow', (2, 12, 12))
    n = 12//by
    blocks = torch.eye(n, dtype=torch.float64).repeat_interleave(by, 1)/by
    back = torch.zeros(12, n, dtype=torch.float64)
    for i in range(12):
        at = min(max((i + .5)/by - .5, 0), n - 1)
        left = min(int(at), n - 2)
        back[i, left], back[i, left + 1] = 1 - (at - left), at - left
    low = lambda a: back@blocks@a@(back@blocks).T
    def formula(spreads):
        def part(f, before):
            r = (low(f) - low(before)).norm(dim=0)
            calm = r < r.mean() + spreads*r.std(correction=0)
            return f - low(f)*calm*(1 - rho)
        for k in range(4):
            old = max(k - 1, 0)
            def of_sample(u, c, old_u, old_c): return u + s*(part(c, old_c) - part(u, old_u))
            yield each(of_sample, u[k], c[k], u[old], c[old])
    yield tuple(torch.stack(list(side)) for side in (got, formula(1), formula(0)))


@row('eq-histories-scale', cell='8a7edba3', mutant='the variance times k; the noise times lambda', tolerance=1e-11)
def scaled(t):
    "The guided noise over lambda, and times (S^2 + sigma^2)/(S^2/k + sigma^2); in images, x + rho (D - x)."
    s, lam, k, S = t.number('s', -3, 9), t.number('lambda', .8, 1.2), t.number('k', .4, .9), t.number('S', .3, 3)
    D_u, D_c, look = looks(t, (3, 8, 8))
    g = D_u + s*(D_c - D_u)
    level = look.sigma.reshape(-1, 1, 1, 1)
    in_images = lambda rho: look.x + rho*(g - look.x)
    ratio = lambda k: (S**2 + level**2)/(S**2/k + level**2)
    yield apply(eps_scaling(lam=lam), D_u, D_c, s, look), in_images(1/lam), in_images(lam)
    yield apply(tsr(k=k, spread=S), D_u, D_c, s, look), in_images(ratio(k)), in_images(ratio(1/k))
