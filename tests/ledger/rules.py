"Chapter 17: rules and branches."
import math
from collections.abc import Callable
from itertools import pairwise, product

import numpy as np
import torch
from torch import Tensor
from torch.autograd.functional import jacobian
from torch.distributions import Normal

from cfg_course.core import NULL, Run
from cfg_course.denoisers import Denoiser
from cfg_course.guidance import Label, Look, apply, guide
from cfg_course.mixtures import Mixture, Pair, transport
from cfg_course.networks import UNet, UNetConfig, parts, perturb
from cfg_course.rules import adaptive, adg, all_of, apg, autoguidance, blend, blur_queries, blurred_attention
from cfg_course.rules import cfg_zero, characteristic, fbg, fdg, identity_attention, late_label, mambo_g, other_label
from cfg_course.rules import perpendicular, power, random_label, reg, renorm, rescale, shaken_level, skipped_parts
from cfg_course.rules import tcfg, threshold
from cfg_course.schedules import karras_grid
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


def smoothing(
    n:int, # pixels
)->Tensor: # `(n, n)`
    "The filter (1, 4, 6, 4, 1)/16 with mirrored edges, as a matrix."
    matrix = torch.zeros(n, n, dtype=torch.float64)
    for i, (k, weight) in product(range(n), zip(range(-2, 3), (1, 4, 6, 4, 1))):
        j = abs(i + k)
        matrix[i, min(j, 2*(n - 1) - j)] += weight/16
    return matrix


def halving(
    n:int, # pixels, even
)->Tensor: # `(n//2, n)`
    "Smooth, and the mean of every two pixels."
    return torch.eye(n//2, dtype=torch.float64).repeat_interleave(2, 1)/2@smoothing(n)


def doubling(
    n:int, # pixels
)->Tensor: # `(2n, n)`
    "Interpolate linearly, and smooth."
    matrix = torch.zeros(2*n, n, dtype=torch.float64)
    for i in range(2*n):
        neighbour = i//2 + (1 if i % 2 else -1)
        matrix[i, i//2] += .75
        matrix[i, min(max(neighbour, 0), n - 1)] += .25
    return smoothing(2*n)@matrix


def finer(
    a:Tensor, # `(..., h, w)`
)->Tensor: # `(..., 2h, 2w)`
    "The next finer level, without detail."
    h, w = a.shape[-2:]
    return doubling(h)@a@doubling(w).T


def split(
    a:Tensor, # `(..., H, W)`
    levels:int, # how many
)->list[Tensor]: # fine to coarse
    "A Laplacian pyramid, by matrices."
    if levels == 1: return [a]
    H, W = a.shape[-2:]
    low = halving(H)@a@halving(W).T
    return [a - finer(low), *split(low, levels - 1)]


def joined(
    levels:list[Tensor], # fine to coarse
)->Tensor: # `(..., H, W)`
    "The picture of a pyramid."
    fine, *rest = levels
    return fine + finer(joined(rest)) if rest else fine


@row('eq-rules-fdg', cell='6eeb8cfc', mutant='the gains are those from coarse to fine', tolerance=1e-12)
def by_frequency(t):
    "Every level of a Laplacian pyramid has a gain of its own, and keeps the share eta of the part of Delta along c."
    s, eta, n = t.number('s', -3, 12), t.number('eta', -.5, 1.5), t.whole('levels', 2, 3)
    gains = t.normal(n).tolist()
    D_u, D_c, look = looks(t, (2, 12, 16))
    def formula(gains):
        def of_level(gain, delta, c):
            along = (delta*c).sum()/(c*c).sum()*c
            return c + (s - 1)*gain*(delta - along + eta*along)
        return lambda u, c: joined([of_level(*o) for o in zip(gains, split(c - u, n), split(c, n))])
    rule = fdg(gains=tuple(gains), parallel=eta)
    yield apply(rule, D_u, D_c, s, look), each(formula(gains), D_u, D_c), each(formula(gains[::-1]), D_u, D_c)


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


def branches(
    t:Trial, # source of randomness
    n:int=20, # samples
)->tuple[Mixture, Tensor, float, Tensor]: # a world, samples, their noise level and their labels
    "What a branch is tried on: a world in three dimensions."
    world = t.world(3)
    return world, 2*t.normal(n, 3), t.number('sigma', .2, 3), t.labels(n, world.classes)


@row('eq-weak-branch', cell='64e82e23', mutant='s for s - 1; s - 1 for s', tolerance=1e-12)
def weak_branch(t):
    "Both forms of guidance against a weak branch, which is any other denoiser, at any scale."
    (world, x, sigma, y), s = branches(t), t.number('s', -3, 9)
    worse = Mixture(world.means + .3*t.normal(*world.means.shape), world.eigs[:, 0] + .4, world.weights, world.labels)
    D_c, D_w, got = world(x, sigma, y), worse(x, sigma, y), guide(world, scale=s, weak=worse)(x, sigma, y)
    yield got, D_w + s*(D_c - D_w), D_w + (s - 1)*(D_c - D_w)
    yield got, D_c + (s - 1)*(D_c - D_w), D_c + s*(D_c - D_w)


@row('eq-weak-negative', cell='13825528', mutant='D_u where D_k stands first, as in NOT', tolerance=1e-12)
def negative(t):
    "With a negative label k the model without label does not occur, whatever the sample's own label is."
    (world, x, sigma, y), s = branches(t), t.number('s', -3, 9)
    k = t.whole('k', 0, world.classes - 1)
    D_c, D_k, D_u = (world(x, sigma, label) for label in (y, k, NULL))
    got = guide(world, scale=s, weak=other_label(world, label=k))(x, sigma, y)
    yield got, D_k + s*(D_c - D_k), D_u + s*(D_c - D_k)


@row('eq-weak-auto', cell='efab96aa', mutant='the exponent s; the mean is multiplied by s', tolerance=1e-5)
def against_a_wider_one(t):
    "A round Gaussian guided against a wider one with the same mean, from pure noise: its variance and its mean."
    s, v, tau, far = t.number('s', -1, 5), t.number('v', .1, 2), t.number('tau', .2, 2), 3e3
    mu = 2*t.normal(1, 2)
    good, wider = Mixture(mu, v), Mixture(mu, v + tau**2)
    one = torch.tensor([[-1.], [1.]], dtype=torch.float64)*(v + far**2)**.5
    guided = guide(good, scale=s, weak=autoguidance(good, model=wider.__call__))
    low, high = transport(guided, mu + one, far, 0., 0, 1e-6)
    variance = lambda exponent: mu*0 + v*(v/(v + tau**2))**exponent
    yield (high - low)[None]**2/4, variance(s - 1), variance(s)
    yield (high + low)[None]/2, mu, s*mu


@row('eq-weak-icg', cell='d8bc3e96', mutant='posteriors for 1/K, and 1/K for posteriors', samples=4000, tolerance=.06)
def random_class(t):
    "A random label gives the mean of the classes with equal weights, no label the mean under the posterior."
    world, n = t.world(3), 4000
    sigma, x = t.number('sigma', .5, 2), t.normal(4, 3)
    classes = torch.stack([world(x, sigma, k) for k in range(world.classes)], 1)
    mean = lambda weights: torch.einsum('bk,bkd->bd', weights, classes)
    equal, posterior = torch.full((4, world.classes), 1/world.classes, dtype=torch.float64), world.posterior(x, sigma)
    drawer = random_label(world, seed=t.whole('seed', 0, 9999))
    with Run(range(n)): drawn = drawer.labels(torch.zeros(n, dtype=torch.long))
    yield torch.stack([world(at.expand(n, 3), sigma, drawn).mean(0) for at in x]), mean(equal), mean(posterior)
    yield world(x, sigma, NULL), mean(posterior), mean(equal)


def network(
    t:Trial, # source of randomness
    heads:int=2, # of its attention
)->Denoiser: # of pictures (1, 8, 8), with ten classes
    "A network with random weights in float64, none of them zero."
    net = UNet(UNetConfig(image_size=8, patch=1, widths=(8, 16), emb=16, heads=heads)).double()
    for p in net.parameters():
        p.requires_grad_(False)
        p.copy_(.4*t.normal(*p.shape))
    return Denoiser(net)


def attended(
    t:Trial, # source of randomness
    denoise:Denoiser, # with attention
    weak:Denoiser, # the same, damaged
)->tuple: # (H, W), queries, keys and values of its positions, what the two see
    "What attention sees of random queries, keys and values."
    shape = t.whole('H', 3, 5), t.whole('W', 2, 6)
    q, k, v = t.normal(3, 2, 4, math.prod(shape), t.whole('width of a head', 2, 12))
    return shape, q, k, v, *(model.net.mid[1].see(q, k, v, shape) for model in (denoise, weak))


@row('eq-weak-pag', cell='f79b451d', mutant='d for its square root; the mean of V', tolerance=1e-12)
def blind(t):
    "Attention is softmax(Q K^T/sqrt d) V; when it is perturbed, it is V."
    denoise = network(t)
    _, q, k, v, whole, damaged = attended(t, denoise, identity_attention(denoise))
    formula = lambda size: (q@k.mT/size).softmax(-1)@v
    yield whole, formula(q.shape[-1]**.5), formula(q.shape[-1])
    yield damaged, v, v.mean(2, keepdim=True).expand_as(v)


@row('eq-weak-seg', cell='e4d280cb', mutant='columns of B sum to one; the exponent is not halved', tolerance=1e-12)
def blurred(t):
    "Blurring scores over the positions of queries is blurring queries, on any grid; rows of B sum to one."
    denoise, width = network(t), t.number('blur', .3, 4)
    shape, q, k, v, _, damaged = attended(t, denoise, blurred_attention(denoise, blur=width))
    place = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float64) for n in shape))
    squares = ((place[:, None] - place)**2).sum(-1)
    def B(dim, two=2):
        bell = (-squares/(two*width**2)).exp()
        return bell/bell.sum(dim, keepdim=True)
    scores = q@k.mT
    yield blur_queries(q, shape, width)@k.mT, B(1)@scores, B(0)@scores
    seen = lambda B: (B@scores/q.shape[-1]**.5).softmax(-1)@v
    yield damaged, seen(B(1)), seen(B(1, 1))


@row('eq-weak-skip', cell='7da4800c', mutant='the shortcut is left out too', tolerance=1e-12)
def skipping(t):
    "A part gives its shortcut plus m times what it adds, m being 0 or 1, for a whole batch or for each sample."
    denoise, own = network(t), (t.uniform(3) < .5).double()
    own[:2] = torch.tensor([0., 1.])
    name = t.one_of('part', list(parts(denoise.net)))
    part = parts(denoise.net)[name]
    h, emb = t.normal(3, part.norm1.num_channels if hasattr(part, 'norm1') else 16, 4, 4), t.normal(3, 16)
    told = (h, emb) if hasattr(part, 'skip') else (h,)
    shortcut = part.skip(h) if hasattr(part, 'skip') else h
    m = own.reshape(3, 1, 1, 1)
    by_sample = parts(perturb(denoise.net, keep={name: m}))[name]
    by_batch = parts(skipped_parts(denoise, skip=(name,)).net)[name]
    change = part(*told) - shortcut
    yield by_sample(*told), shortcut + m*change, m*(shortcut + change)
    yield by_batch(*told), shortcut, 0*shortcut


@row('eq-weak-tsg', cell='808e3fea', mutant='sigma for t', tolerance=1e-12)
def shaken(t):
    "The embedding gets noise of the size eta t^alpha std(e), std being that of each embedding with n - 1 below."
    eta, alpha, sigma = t.number('eta', 0, 5), t.number('alpha', .2, 3), levels(t, 6)
    e, n = t.normal(2, 6, 16)
    shake = shaken_level(network(t), strength=eta, power=alpha).change(lambda f: n, sigma)['level']
    formula = lambda time: e + eta*time[:, None]**alpha*e.var(1, keepdim=True)**.5*n
    yield shake(e), formula(2/math.pi*sigma.atan()), formula(sigma)


@row('eq-weak-blend', cell='83033f13', mutant='the shares are exchanged; omega is not in the scale', tolerance=1e-11)
def two_weak_branches(t):
    "Two weak branches are one between them, where s - 1 + omega is not zero."
    (world, x, sigma, y), s, omega = branches(t), t.number('s', -2, 9), t.number('omega', -3, 5)
    worse = Mixture(world.means, world.eigs[:, 0] + .4, world.weights, world.labels)
    D_c, D_u, D_w = world(x, sigma, y), world(x, sigma), worse(x, sigma, y)
    got = guide(world, scale=s + omega, weak=blend(world, [Label(), worse], [s - 1, omega]))(x, sigma, y)
    yield got, D_c + (s - 1)*(D_c - D_u) + omega*(D_c - D_w), D_c + omega*(D_c - D_u) + (s - 1)*(D_c - D_w)
    D_b = ((s - 1)*D_u + omega*D_w)/(s - 1 + omega)
    yield got, D_b + (s + omega)*(D_c - D_b), D_b + s*(D_c - D_b)


@row('eq-weak-and', cell='14be9616', mutant='D_u is not subtracted; s multiplies the own label alone', tolerance=1e-11)
def composed(t):
    "Several labels with any weights, negative ones too; a scale multiplies all weights."
    (world, x, sigma, y), s, n = branches(t), t.number('s', -3, 9), t.whole('other labels', 1, 3)
    labels = t.labels(n, world.classes).tolist()
    own, *weights = t.normal(n + 1).tolist()
    D_u, asked = world(x, sigma), [y, *labels]
    def added(weights, minus=1):
        return D_u + sum(a*(world(x, sigma, k) - minus*D_u) for a, k in zip(weights, asked))
    strong = all_of(world, labels=tuple(labels), weights=tuple(weights), own=own)
    yield strong(x, sigma, y), added([own, *weights]), added([own, *weights], 0)
    yield guide(strong, scale=s)(x, sigma, y), added([s*own, *(s*a for a in weights)]), added([s*own, *weights])
    yield guide(strong, scale=s)(x, sigma, y), D_u + s*(added([own, *weights]) - D_u), s*added([own, *weights])


@row('eq-weak-perp', cell='d4cfc450', mutant='the whole of delta is subtracted', tolerance=1e-11)
def perp_neg(t):
    "Perp-Neg subtracts what is perpendicular to Delta, in three dimensions, where it is more than one direction."
    (world, x, sigma, y), beta = branches(t), t.number('beta', -2, 4)
    k = t.whole('k', 0, world.classes - 1)
    D_u, D_c, D_k = (world(x, sigma, label) for label in (NULL, y, k))
    Delta, delta = D_c - D_u, D_k - D_u
    along = each(lambda small, large: (small@large)/(large@large)*large, delta, Delta)
    got = perpendicular(world, label=k, weight=beta)(x, sigma, y)
    yield got, D_c - beta*(delta - along), D_c - beta*delta


@row('eq-weak-cads', cell='81bed264', mutant='gamma for its root; the other branch of the clip', tolerance=1e-12)
def late(t):
    "The label's embedding under noise, with its mean and standard deviation restored to the share psi, where eta > 0."
    start, stop = t.number('tau_1', .1, .45), t.number('tau_2', .55, .9)
    eta, psi = t.number('eta', .05, 2), t.number('psi', 0, 1)
    time = torch.cat([torch.tensor([.5]), t.uniform(7)])
    e, n, y = t.normal(8, 16) + .5, t.normal(8, 16), torch.zeros(8, dtype=torch.long)
    strong = late_label(network(t), start=start, stop=stop, noise=eta, rescale=psi)
    hidden = strong.change(lambda f: n, (math.pi/2*time).tan())['label'](e, y)
    def formula(gamma, power=.5):
        gamma = gamma.clamp(0, 1)[:, None]
        hat = gamma**power*e + eta*(1 - gamma)**.5*n
        def restored(hat, e):
            return psi*((hat - hat.mean())/hat.std()*e.std() + e.mean()) + (1 - psi)*hat
        return each(restored, hat, e)
    gamma = (stop - time)/(stop - start)
    yield hidden, formula(gamma), formula(gamma, 1.)
    yield hidden, formula(gamma), formula(1 - gamma)
