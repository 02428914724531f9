"Chapter 17a: doses."
import math
from itertools import pairwise

import numpy as np
import torch
from torch.autograd.functional import jacobian
from torch.distributions import Normal

from cfg_course.core import NULL, Run
from cfg_course.doses import adaptive, characteristic, fbg, mambo_g, power, reg
from cfg_course.guidance import guide
from cfg_course.mixtures import Mixture, Pair
from cfg_course.schedules import karras_grid
from ledger import row
from ledger.rules import each, seen


@row('eq-rules-size', cell='7c64cbfd', mutant='|c| for |u|; the exponent alpha - 1', tolerance=1e-11)
def by_size(t):
    "MAMBO-G fades with |Delta|/|u| in the flow, the power law multiplies s - 1 by a power of |Delta| in the noise."
    s, fade, alpha = t.number('s', -3, 9), t.number('alpha of MAMBO-G', 0, 4), t.number('alpha of the power', -.9, 2)
    got, u, c = seen(t, mambo_g(alpha=fade), 'flow', s)
    def faded(by):
        return lambda u, c: u + (1 + (s - 1)*torch.exp(-fade*(c - u).norm()/by(u, c).norm()))*(c - u)
    yield got, each(faded(lambda u, c: u), u, c), each(faded(lambda u, c: c), u, c)
    got, u, c = seen(t, power(alpha=alpha), 'eps', s)
    def raised(alpha):
        return lambda u, c: c + (s - 1)*(c - u).norm()**alpha*(c - u)
    yield got, each(raised(alpha), u, c), each(raised(alpha - 1), u, c)


@row('eq-rules-adaptive', cell='d00e65a4', mutant='the step at which they agree is not guided either', tolerance=1e-12)
def until_they_agree(t):
    "A sample is guided up to and with the step at which the cosine of its predictions is above the threshold."
    s, bar = t.number('s', -3, 9), t.number('threshold', .7, .97)
    D_c, noise = t.normal(6, 8, 3, 4), t.normal(6, 8, 3, 4)
    D_u = D_c + noise*torch.linspace(1.5, .1, 6, dtype=torch.float64)[:, None, None, None]
    now, run, labels, got = 0, Run(), torch.zeros(8, dtype=torch.long), []
    guided = guide(lambda *_: D_c[now], scale=s, weak=lambda *_: D_u[now], rule=adaptive(cosine=bar))
    for now in range(6):
        with run.next_step(): got.append(guided(D_c[now], 1., labels))
    agreed = torch.cosine_similarity(D_u.flatten(2), D_c.flatten(2), dim=2) > bar
    over = agreed.cummax(0).values
    before = torch.cat([torch.zeros_like(over[:1]), over[:-1]])
    formula = lambda over: torch.where(over[..., None, None], D_c, D_u + s*(D_c - D_u))
    yield torch.stack(got), formula(before), formula(over)


def constants(
    pi:float, # assumed share of the true density
    t0:float, # time at which the scale would be 3
    t1:float, # time at which an error of 10 makes up for the offset
    n:int, # steps
)->tuple[float, float]: # tau, delta
    "The two constants of feedback guidance."
    delta = math.log(1.5*(1 - pi))/((1 - t0)*n)
    rising = karras_grid(n)[:-1].flip(0).tolist()
    put_in = [0., *[a**2*(1 - a**2/b**2) for a, b in pairwise(rising)]]
    return abs(delta)*np.interp(t1*n, range(n), put_in)*2/10, delta


@row('eq-rules-fbg', cell='26c4f852', mutant='the evidence is not tempered; the upper clip is 30', tolerance=1e-9)
def fed_back(t):
    "The scale of feedback guidance at five levels, for pi > 1/3 and s > 1; L begins at 0 and is never below L_min."
    s, pi, n = t.number('s', 1.1, 12), t.number('pi', .35, .99), t.whole('steps', 12, 40)
    t0, t1 = t.number('t_0', .2, .8), t.number('t_1', .2, .8)
    tau, delta = constants(pi, t0, t1, n)
    D_u, D_c = t.normal(2, 6, 3, 8)
    lean = torch.tensor([-4, -.5, 0., .5, 4, 3000], dtype=torch.float64)[:, None, None]
    grid, x, run, path, got = (6., 3., 1.5, .8, .4), t.normal(6, 3, 8), Run(), [], []
    guided = guide(lambda *_: D_c, scale=s, weak=lambda *_: D_u, rule=fbg(pi=pi, t0=t0, t1=t1, steps=n))
    for now, after in pairwise((*grid, .2)):
        path.append(x)
        with run.next_step(): got.append(guided(x, now, torch.zeros(6, dtype=torch.long)))
        r = after**2/now**2
        x = r*x + (1 - r)*((D_c + D_u)/2 + lean*(D_c - D_u)) + .1*after*t.normal(6, 3, 8)
    def formula(tau, most):
        least = math.log((1 - pi)*s/(s - 1))
        L = torch.zeros(6, dtype=torch.float64).clamp(min=least)
        for i, level in enumerate(grid):
            if i:
                r = level**2/grid[i - 1]**2
                reached = lambda D: Normal(r*path[i - 1] + (1 - r)*D, (1 - r)**.5*level).log_prob(path[i])
                L = (L + tau*(reached(D_c) - reached(D_u)).sum((1, 2)) + delta).clamp(max=most).clamp(min=least)
            yield D_u + (L.exp()/(L.exp() - (1 - pi)))[:, None, None]*(D_c - D_u)
    for tempered, most in ((1., 3.), (tau, 30.)):
        yield torch.stack(got), torch.stack(list(formula(tau, 3.))), torch.stack(list(formula(tempered, most)))


@row('eq-rules-reg', cell='462410d3', mutant='the other index of the Jacobian is summed', tolerance=1e-11)
def rectified(t):
    "The gradient of the sum of D_c weighs Delta, in x0 and in the noise, for any differentiable denoiser."
    s, level = t.number('s', -3, 9), t.number('sigma', .1, 5)
    A, b, x = t.normal(2, 4, 4), t.normal(2, 4), 2*t.normal(5, 4)
    model = lambda x, sigma, y: torch.stack([(at@A[int(k)] + b[int(k)]).tanh() for at, k in zip(x, y + 1)])
    D = lambda k: model(x, level, torch.full((5,), k))
    D_u, D_c = D(NULL), D(0)
    got = guide(model, scale=s, rule=reg())(x, level, torch.zeros(5, dtype=torch.long))
    J = torch.stack([jacobian(lambda z: (z@A[1] + b[1]).tanh(), at) for at in x])
    noise = lambda D: (x - D)/level
    J_noise = (torch.eye(4, dtype=torch.float64) - J)/level
    in_x0 = lambda dim: D_c + (s - 1)*J.sum(dim)*(D_c - D_u)
    in_noise = lambda dim: noise(D_c) + (s - 1)*(1 - level*J_noise.sum(dim))*(noise(D_c) - noise(D_u))
    yield got, in_x0(1), in_x0(2)
    yield noise(got), in_noise(1), in_noise(2)


@row('eq-rules-characteristic', cell='a57c729f', mutant='s and s - 1 are exchanged; no displacement', tolerance=1e-8)
def where_paths_cross(t):
    "Where the iteration ends in time, as for two Gaussians at these scales, two displaced predictions are one image."
    s, level, eye = t.number('s', 1.2, 4), t.number('sigma', .1, 6), torch.eye(3, dtype=torch.float64)
    roots, means, x = t.normal(2, 3, 3), t.normal(2, 3), 3*t.normal(5, 3)
    narrow = .3*roots[0]@roots[0].T + .1*eye
    covs = narrow, narrow + roots[1]@roots[1].T
    pair = Pair(*(Mixture(mean[None], cov[None]) for mean, cov in zip(means, covs)))
    rule, asked = characteristic(along=False, iterations=400, tol=1e-10), []
    got = guide(pair, scale=s, rule=rule)(x, level, torch.zeros(5, dtype=torch.long))
    S_c, S_u = (cov@torch.linalg.inv(cov + level**2*eye) for cov in covs)
    D_c, D_u = (lambda z: means[0] + (z - means[0])@S_c.T), (lambda z: means[1] + (z - means[1])@S_u.T)
    delta = torch.linalg.solve(s*S_u - (s - 1)*S_c, (D_c(x) - D_u(x)).T).T
    formula = lambda a, b: s*D_c(x + a*delta) - (s - 1)*D_u(x + b*delta)
    yield got, D_c(x + (s - 1)*delta), D_c(x + s*delta)
    yield got, D_u(x + s*delta), D_u(x + (s - 1)*delta)
    yield got, formula(s - 1, s), formula(s, s - 1)
    world, mild = t.world(3), 1 + (s - 1)/4
    def heard(x, sigma, y):
        asked.append((x, world(x, sigma, y)))
        return asked[-1][1]
    at = t.normal(1, 3)
    got = guide(heard, scale=mild, rule=rule)(at, level, torch.zeros(1, dtype=torch.long))
    (far, U), (near, C) = asked[-2:]
    yield C, U, world(at, level)
    yield (near - at)/(mild - 1), (far - at)/mild, (far - at)/(mild - 1)
    yield got, mild*C - (mild - 1)*U, mild*C - (mild - 1)*world(at, level)
