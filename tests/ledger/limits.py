"Chapter 5: what guidance does not sample."
import math
from itertools import combinations

import numpy as np
import torch
from scipy.optimize import brentq
from torch.autograd import grad

from cfg_course.core import NULL
from cfg_course.doses import power
from cfg_course.guidance import guide
from cfg_course.limits import implied_posterior
from cfg_course.mixtures import Boxes, Mixture, Pair, integrate, mesh, tilt_on
from cfg_course.particles import weighed_step
from cfg_course.procedures import delay
from cfg_course.samplers import Now
from ledger import row

GRIDS = {1: mesh(-14, 14, 2801), 2: mesh(-11, 11, 177, 2)}  # clean samples to sum over


def slope_of(f, x):
    "Gradient of a function of samples, at each of them."
    x = x.clone().requires_grad_()
    return grad(f(x).sum(), x)[0]


def jacobian(f, x):
    "Derivatives of a field that was computed from x."
    return torch.stack([grad(f[:, i].sum(), x, retain_graph=True)[0] for i in range(x.shape[1])], 1)


def trace(J):
    "Sum of the diagonal: the divergence."
    return J.diagonal(dim1=1, dim2=2).sum(1)


def curl(J):
    "Of a field in the plane."
    return J[:, 1, 0] - J[:, 0, 1]


def log_recall(world, x, sigma, y):
    "Log posterior of every clean sample of the grid, given a noisy one."
    x0 = GRIDS[world.dim]
    far = (x[:, None] - x0).square().sum(2)
    return (world.log_prob(x0, y=y) - far/(2*sigma**2)).log_softmax(1)


def renyi(world, x, s, sigma_c, sigma_u, c):
    "(s - 1) R_s of the two posteriors, as a sum."
    p, q = log_recall(world, x, sigma_c, c), log_recall(world, x, sigma_u, NULL)
    return (s*p + (1 - s)*q).logsumexp(1)


def scene(t, low=.2, high=6, most=2):
    "A random world, one of its classes, a scale and a noise level."
    world = t.world(t.whole('dimensions', 1, most))
    return world, t.whole('class', 0, world.classes - 1), t.number('s', low, high), t.number('sigma', .3, 2)


def scores(world, x, sigma, c):
    "The score with the label, and that without."
    return world.score(x, sigma, c), world.score(x, sigma)


def log_q(world, x, sigma, s, c):
    "Log of the density whose score is the guided one, up to a constant."
    return s*world.log_prob(x, sigma, c) + (1 - s)*world.log_prob(x, sigma)


@row('eq-lim-renyi', cell='5d65eb51', mutant='the two posteriors change places', tolerance=1e-11)
def missing_term(t):
    "The score of the blurred tilt is the guided score and the gradient of (s - 1) R_s, for scales s > 0."
    world, c, s, sigma = scene(t)
    x = 2*t.normal(6, world.dim)
    s_c, s_u = scores(world, x, sigma, c)
    guided = s*s_c + (1 - s)*s_u
    term, swapped = (slope_of(lambda x, s=a: renyi(world, x, s, sigma, sigma, c), x) for a in (s, 1 - s))
    yield tilt_on(GRIDS[world.dim], world, s, c).score(x, sigma), guided + term, guided + swapped


def blurred_score(world, x, s, sigma, c):
    "Score of the blurred tilt near the data, by Gauss and Hermite's rule around each sample."
    at, mass = np.polynomial.hermite_e.hermegauss(24)
    z = torch.cartesian_prod(*[torch.tensor(at)]*world.dim).reshape(-1, world.dim)
    weights = torch.cartesian_prod(*[torch.tensor(mass)]*world.dim).reshape(-1, world.dim).prod(1).log()
    near = (x[:, None] + sigma*z).reshape(-1, world.dim)
    s_c, s_u = scores(world, near, 0., c)
    share = (log_q(world, near, 0., s, c).reshape(len(x), -1) + weights).softmax(1)
    return torch.einsum('bk,bkd->bd', share, (s*s_c + (1 - s)*s_u).reshape(len(x), -1, world.dim))


@row('eq-lim-decay', cell='1ec787c3', mutant='s - 1 for s (s - 1)', tolerance=1e-5)
def decay(t):
    "Near the data the missing term is s (s - 1) sigma^2/2 grad |grad log p(c|x)|^2 + O(sigma^4), for s > 0."
    world, c, s, _ = scene(t)
    x = 2*t.normal(6, world.dim)
    def rate(sigma):
        s_c, s_u = scores(world, x, sigma, c)
        return (blurred_score(world, x, s, sigma, c) - s*s_c - (1 - s)*s_u)/sigma**2
    a, b, d = (rate(v) for v in (.04, .02, .01))
    found = (64*d - 20*b + a)/45
    bend = slope_of(lambda x: (world.score(x, y=c) - world.score(x)).square().sum(1), x)
    size = bend.abs().max()
    yield found/size, s*(s - 1)/2*bend/size, (s - 1)/2*bend/size


@row('eq-lim-gauss', cell='dfc23875', mutant='V_u and V_c change places under the logarithm', tolerance=1e-11)
def two_gaussians(t):
    "(s - 1) R_s of the posteriors of two Gaussians, for any s with V_s > 0."
    s, sigma, v_c = t.number('s', -.45, 4.5), t.number('sigma', .3, 2), t.number('v_c', .3, 2)
    v_u = v_c*t.number('v_u/v_c', .8, 3)
    mu = t.normal(2, 1, 1)
    pair, x = Pair(Mixture(mu[0], v_c), Mixture(mu[1], v_u)), 2*t.normal(9, 1)
    V_c, V_u = (torch.tensor(v*sigma**2/(v + sigma**2), dtype=torch.float64) for v in (v_c, v_u))
    V_s = s*V_u + (1 - s)*V_c
    far = s*(s - 1)*(pair(x, sigma, 0) - pair(x, sigma))[:, 0]**2/(2*V_s)
    log = lambda a, b: (a**s*b**(1 - s)/V_s).log()/2
    yield renyi(pair, x, s, sigma, sigma, 0), log(V_u, V_c) + far, log(V_c, V_u) + far


@row('eq-lim-jensen', cell='331fb91b', mutant='power and mean change places', tolerance=1e-11)
def jensen(t):
    "The blurred tilt is p E[L^s|x] up to a constant, and guidance follows p E[L|x]^s, for s > 0."
    world, c, s, sigma = scene(t)
    x, x0 = 2*t.normal(9, world.dim), GRIDS[world.dim]
    log_L = world.log_prob(x0, y=c) - world.log_prob(x0)
    recall, log_p = log_recall(world, x, sigma, NULL), world.log_prob(x, sigma)
    of_power, power_of = log_p + (recall + s*log_L).logsumexp(1), log_p + s*(recall + log_L).logsumexp(1)
    tilted = tilt_on(x0, world, s, c).log_prob(x, sigma)
    less = lambda v: v - v.mean()
    yield less(tilted), less(of_power), less(power_of)
    yield log_q(world, x, sigma, s, c), power_of, of_power


@row('eq-lim-hard', cell='0df89e4b', mutant='the guided score', tolerance=1e-9)
def hard_labels(t):
    "With one certain label for every clean sample (disjoint boxes) the tilt of any s > 0 is the class, blurred or not."
    s, sigma, tiny = t.number('s', .2, 8), t.number('sigma', .2, 1.5), .02
    low = torch.arange(4) - 2. + .3*t.uniform(4)
    weights, order = .2 + t.uniform(4), torch.randperm(4, generator=t.generator)
    boxes = Boxes(low, low + .2 + .2*t.uniform(4), weights/weights.sum(), torch.tensor([0, 1, 0, 1])[order])
    x0, x = mesh(-4, 4, 4001), 1.5*t.normal(9, 1)
    c = t.whole('class', 0, 1)
    log_tilt = boxes.log_prob(x0, tiny) + s*boxes.posterior(x0, tiny)[:, c].log()
    tilted = tilt_on(x0, boxes, s, c, tiny)
    noisy = (sigma**2 + tiny**2)**.5
    s_c, s_u = scores(boxes, x, noisy, c)
    width = x0[1, 0] - x0[0, 0]
    inside = boxes.log_prob(x0, tiny, c) > -5
    density, clean = log_tilt.softmax(0)/width, boxes.log_prob(x0, tiny, c).exp()
    whole = boxes.log_prob(x0, tiny).exp()
    yield density[inside], clean[inside], whole[inside]
    yield tilted.score(x, sigma), s_c, s*s_c + (1 - s)*s_u


def heat_residual(world, x, tau, s, c):
    "By how much the density of the guided score misses the heat equation, and that score."
    x, tau = x.clone().requires_grad_(), torch.full((len(x),), tau, dtype=torch.float64).requires_grad_()
    d_tau, d_x = grad(log_q(world, x, tau.sqrt(), s, c).sum(), (tau, x), create_graph=True)
    return (d_tau - (trace(jacobian(d_x, x)) + d_x.square().sum(1))/2).detach(), x.detach()


@row('eq-lim-heat', cell='4772dc00', mutant='s - 1 for s (s - 1)', tolerance=1e-11)
def heat(t):
    "The product of powers misses the heat equation by -s (s - 1)/2 |g|^2, for every real s, in any dimension."
    world, c, s, sigma = scene(t, -4, 6, 4)
    x = 2*t.normal(40, world.dim)
    residual, _ = heat_residual(world, x, sigma**2, s, c)
    s_c, s_u = scores(world, x, sigma, c)
    squared = (s_c - s_u).square().sum(1)
    yield residual, -s*(s - 1)/2*squared, -(s - 1)/2*squared


@row('eq-lim-diffusion', cell='e5c0a003', mutant='q is not divided by its normaliser', tolerance=1e-9)
def diffusion(t):
    "Where Z is finite, q/Z misses the heat equation by -s (s - 1)/2 (|g|^2 - its mean): by nothing if |g| is constant."
    s, sigma = t.number('s', 1.2, 3.5), t.number('sigma', .3, 1.2)
    root, means = t.normal(2, 2), .6*t.normal(2, 1, 2)
    cov = root@root.mT/4 + .3*torch.eye(2, dtype=torch.float64)
    equal = Pair(Mixture(means[0], cov[None]), Mixture(means[1], cov[None]))
    for world, constant in ((equal, True), (t.world(1), False)):
        x, x0 = t.normal(20, world.dim), GRIDS[world.dim]
        tau = torch.tensor(sigma**2, dtype=torch.float64, requires_grad=True)
        log_Z = log_q(world, x0, tau.sqrt(), s, 0).logsumexp(0)
        of_Z, = grad(log_Z, tau)
        residual, _ = heat_residual(world, x, sigma**2, s, 0)
        squared = lambda x: torch.sub(*scores(world, x, sigma, 0)).square().sum(1)
        mean = log_q(world, x0, sigma, s, 0).softmax(0)@squared(x0)
        varies = squared(x) - mean
        yield residual - of_Z, 0*varies if constant else -s*(s - 1)/2*varies, -s*(s - 1)/2*squared(x)


def followed(world, c, rates, ends, end):
    "Follow dx/dsigma = -sigma field to noise: ends of paths, log of their stretch, integrals of sigma times two costs."
    n, d = ends.shape
    labels = torch.tensor([c]*n + [NULL]*n)
    def slope(z, sigma):
        x = z[:, :d].clone().requires_grad_()
        s_c, s_u = world.score(torch.cat([x, x]), sigma, labels).split(n)
        field, cost = rates(x, sigma, s_c, s_u)
        changes = [field, trace(jacobian(field, x))[:, None], -cost]
        return -sigma*torch.cat(changes, 1).detach()
    z = integrate(slope, torch.cat([ends, torch.zeros(n, 3)], 1), 0., end, 1e-7)
    return z[:, :d], z[:, d], z[:, d + 1:].T


def guided_ends(
    t, # a trial
    n:int, # samples
)->tuple: # world, class, scale, level, samples, and what the guided flow back to that level makes of them: ends, stretch, cost
    "Clean samples of a class that the guided flow is followed back from, at scales at which q can be normalised."
    world, c, s, _ = scene(t, .3, 4)
    end = t.number('sigma_1', .5, 3)
    ends = world.sample(torch.full((n,), c), 0., t.generator)
    def rates(x, sigma, s_c, s_u):
        return s*s_c + (1 - s)*s_u, (s_c - s_u).square().sum(1, True).expand(-1, 2)
    start, stretch, (cost, _) = followed(world, c, rates, ends, end)
    log_out, clean = log_q(world, start, end, s, c) + stretch, log_q(world, ends, 0., s, c)
    return world, c, s, end, ends, log_out, clean, cost


@row('eq-lim-density', cell='ff7286d7', mutant='s - 1 for s (s - 1)', tolerance=1e-6)
def density(t):
    "The density of the guided flow that starts from q at any level sigma_1, for scales at which q can be normalised."
    _, _, s, _, _, log_out, clean, cost = guided_ends(t, 5)
    yield log_out, clean - s*(s - 1)*cost, clean - (s - 1)*cost


@row('eq-lim-any', cell='12edcaeb', mutant='no divergence of g', tolerance=1e-6)
def any_field(t):
    "The density of the flow from the noisy class with any field g (here a wave) under any bounded schedule."
    world, c = t.world(t.whole('dimensions', 1, 2)), 0
    a, b, end = t.number('s without noise', -2, 4), t.number('s with much', -2, 4), t.number('sigma_1', .5, 3)
    k, phase = t.normal(world.dim, world.dim), t.normal(world.dim)
    added = lambda sigma: (a + b*sigma**2)/(1 + sigma**2) - 1
    ends = world.sample(torch.full((4,), c), 0., t.generator)
    def rates(x, sigma, s_c, s_u):
        g = torch.sin(x@k + phase)
        div, along = trace(jacobian(g, x)), (s_c*g).sum(1)
        return s_c + added(sigma)*g, added(sigma)*torch.stack([div + along, along], 1)
    start, stretch, (cost, wrong) = followed(world, c, rates, ends, end)
    yield world.log_prob(start, end, c) + stretch - world.log_prob(ends, y=c), -cost, -wrong


@row('eq-lim-fk', cell='e5c0a008', mutant='s - 1 for s (s - 1)', tolerance=1e-7)
def weights(t):
    "What a log weight gains in a step, at any scale; and with it short guided random steps carry q to the next q."
    world, c, s, sigma = scene(t, -2, 6, 4)
    x, after = 2*t.normal(20, world.dim), sigma*t.number('ratio of levels', .3, .99)
    now = Now(x, sigma, after, torch.full((20,), c), lambda: t.normal(20, world.dim))
    squared = torch.sub(*scores(world, x, sigma, c)).square().sum(1)
    gain = squared*(sigma**2 - after**2)
    yield weighed_step(world, now, s)[1], s*(s - 1)/2*gain, (s - 1)/2*gain

    line, s = t.world(1), t.number('s of the particles', .3, 4)
    at, x0 = t.normal(5, 1), mesh(-4, 4, 8001)
    s_c, s_u = scores(line, x0, .8, 0)
    def rate(step):
        lower = (.64 - step)**.5
        moved = x0 + step*(s*s_c + (1 - s)*s_u)
        kernel = -(at - moved.T)**2/(2*step) - math.log(2*math.pi*step)/2
        arrived = (kernel + log_q(line, x0, .8, s, 0)).logsumexp(1) + (x0[1, 0] - x0[0, 0]).log()
        return (log_q(line, at, lower, s, 0) - arrived)/step
    a, b, d, e = (rate(.002/2**k) for k in range(4))
    found = (64*e - 56*d + 14*b - a)/21
    squared = torch.sub(*scores(line, at, .8, 0)).square().sum(1)
    yield found, s*(s - 1)/2*squared, (s - 1)/2*squared


@row('eq-lim-growth', cell='e5c0a005', mutant='s - 1 for s (s - 1)', tolerance=1e-11)
def growth(t):
    "Drift, noise and growth at the rate s (s - 1)/2 |g|^2 change q as it changes, for every real s, in any dimension."
    world, c, s, sigma = scene(t, -4, 6, 4)
    x = 2*t.normal(20, world.dim).requires_grad_()
    tau = torch.full((20,), sigma**2, dtype=torch.float64).requires_grad_()
    q = (log_q(world, x, tau.sqrt(), s, c) - log_q(world, x, sigma, s, c).detach()).exp()
    d_tau, d_x = grad(q.sum(), (tau, x), create_graph=True)
    s_c, s_u = scores(world, x, sigma, c)
    flux, squared = trace(jacobian(q[:, None]*(s*s_c + (1 - s)*s_u), x)), (s_c - s_u).square().sum(1)
    moved = -flux + trace(jacobian(d_x, x))/2
    yield -d_tau, moved + s*(s - 1)/2*squared*q, moved + (s - 1)/2*squared*q


@row('eq-lim-delay', cell='6e5d8447', mutant='weights s and 1 - s on the denoisers', tolerance=1e-11)
def delayed(t):
    "The denoiser of the blurred tilt from two delayed denoisers and a term, for any s > 1 and delta > 0."
    world, c, s, sigma = scene(t, 1.1, 6)
    x, delta = 2*t.normal(6, world.dim), t.number('delta', .1, 6)
    sigma_c, sigma_u = sigma*(s/(1 + delta))**.5, sigma*((s - 1)/delta)**.5
    term = sigma**2*slope_of(lambda x: renyi(world, x, s, sigma_c, sigma_u, c), x)
    wrong = s*world(x, sigma_c, c) + (1 - s)*world(x, sigma_u) + term
    right = (1 + delta)*world(x, sigma_c, c) - delta*world(x, sigma_u) + term
    y = torch.full((6,), c)
    yield tilt_on(GRIDS[world.dim], world, s, c)(x, sigma), right, wrong
    yield delay(world, s, delta)(x, sigma, y) + term, right, wrong


@row('eq-lim-curl', cell='28b9887d', mutant='plus for minus', tolerance=1e-11)
def no_gradient(t):
    "The curl of a g in the plane, for a gradient field g: with the strength a of any power law, and with a wave."
    world, s, sigma, alpha = t.world(), t.number('s', 1.2, 6), t.number('sigma', .3, 2), t.number('alpha', -.5, 2)
    x, c = (1.5*t.normal(50, 2)).requires_grad_(), t.whole('class', 0, world.classes - 1)
    s_c, s_u = scores(world, x, sigma, c)
    g = s_c - s_u
    guided = guide(world, scale=s, rule=power(alpha=alpha, space='score'))(x, sigma, torch.full((50,), c))
    wave = torch.sin(x@t.normal(2, 1))
    for field, a in (((guided - x)/sigma**2, (s - 1)*g.norm(dim=1, keepdim=True)**alpha), (wave*g, wave)):
        d1, d2 = grad(a.sum(), x, retain_graph=True)[0].T
        yield curl(jacobian(field, x)), d1*g[:, 1] - d2*g[:, 0], d1*g[:, 1] + d2*g[:, 0]


@row('eq-lim-level', cell='57331f0a', mutant='the law under the conditional density to the power s', tolerance=1e-10)
def level(t):
    "On the points of a line where the posterior has one value a tilt of any scale s > 0 keeps the law of the data."
    grid, roots = mesh(-9, 9, 3601)[:, 0], []
    while len(roots) < 2:
        world = t.world(1)
        post = lambda x: world.posterior(torch.as_tensor(x, dtype=torch.float64).reshape(-1, 1))[:, 0]
        high = world.sample(torch.zeros(1, dtype=torch.long), 0., t.generator)
        above = post(grid) - post(high)
        starts = (above[1:]*above[:-1] < 0).nonzero()[:, 0]
        roots = [brentq(lambda x: (post(x) - post(high)).item(), grid[i], grid[i + 1], xtol=1e-14) for i in starts]
    s, x = t.number('s', .2, 6), torch.tensor(roots, dtype=torch.float64)[:, None]
    tilted = tilt_on(torch.cat([x, mesh(-14, 14, 5)]), world, s)
    on_level = torch.stack([tilted.weights[(tilted.means == point).all(1)].sum() for point in x])
    steep = slope_of(lambda x: post(x), x)[:, 0].abs()
    law = lambda density: density/steep/(density/steep).sum()
    yield law(on_level), law(world.log_prob(x).exp()), law((s*world.log_prob(x, y=0)).exp())


@row('eq-lim-bayes', cell='d963fd24', mutant='weights are equal; g g^T is missing', tolerance=1e-11)
def bayes(t):
    "Two identities of the class probabilities, at any noise level, with any number of classes and dimensions."
    world, sigma = t.world(t.whole('dimensions', 1, 4)), t.number('sigma', .3, 2)
    x = (2*t.normal(30, world.dim)).requires_grad_()
    s_u, p = world.score(x, sigma), world.posterior(x, sigma)
    g = torch.stack([world.score(x, sigma, c) - s_u for c in range(world.classes)], 1)
    J = torch.stack([jacobian(g[:, c], x) for c in range(world.classes)], 1)
    outer = torch.einsum('bci,bcj->bcij', g, g)
    mean = lambda values: torch.einsum('bc,bc...->b...', p, values)
    yield mean(g), torch.zeros_like(s_u), mean(g) - g.mean(1)
    yield mean(J), -mean(outer), 0*mean(outer)


def best_by_faces(delta, signed=False):
    "Least length of an average of some vectors: the best of all faces of their simplex, or of the plane through it."
    C, lengths = len(delta), []
    for size in ([C] if signed else range(1, C + 1)):
        for face in map(list, combinations(range(C), size)):
            corner, others = delta[face[0]], delta[face[1:]] - delta[face[0]]
            along = torch.linalg.lstsq(others.T, -corner[:, None], driver='gelsd').solution[:, 0]
            if signed or (along >= -1e-12).all() and along.sum() <= 1 + 1e-12:
                lengths.append((corner + along@others).norm())
    return torch.stack(lengths).min()


@row('eq-lim-gap', cell='e5c0a00a', mutant='weights may be negative; lengths, not their squares', tolerance=1e-11)
def gap(t):
    "For any predictions, the best weights are those of the best face of the simplex, and the gap is by its formula."
    C, d = t.whole('classes', 2, 4), t.whole('dimensions', 2, 6)
    D_u, D_all = t.normal(12, d), 2*t.normal(12, C, d) + t.number('shift', .5, 2)
    q, found = implied_posterior(D_u, D_all)
    delta = D_all - D_u[:, None]
    left = torch.einsum('bc,bcd->bd', q, delta).norm(dim=1)
    best, signed = (torch.stack([best_by_faces(v, way) for v in delta]) for way in (False, True))
    yield left, best, signed
    size = delta.norm(dim=2)
    yield found, left/(q*size**2).sum(1).sqrt(), left/(q*size).sum(1)
