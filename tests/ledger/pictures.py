"Chapter 8: an exact world of pictures."
import copy
import math
from itertools import combinations

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from cfg_course.core import NULL, rng
from cfg_course.guidance import guide
from cfg_course.mixtures import belongs, transport
from cfg_course.pictures import (Case, PictureWorld, band_of, effective_share, energy_distance, examine, from_bytes,
                                 largest_step, redraw_modes, sliced_distance, to_bytes, try_tilted)
from cfg_course.samplers import make_sampler, trajectory
from cfg_course.schedules import karras_grid, logsnr_grid
from ledger import Trial, row
from ledger.mixtures import drop_constant, eye, gradient

def sheets(
    t:Trial, # source of randomness
    dim:int|None=None, # pixels; random when not given
    wide:int=1, # how many directions at least are in no sheet
    spread:float=2, # of the means
    floor:tuple[float, float]=(.01, 1.), # least and largest
)->PictureWorld: # whose variances may be less than the floor
    "Sheets of random directions, in classes of unequal numbers of modes with unequal weights."
    K, M, D = t.whole('classes', 2, 4), t.whole('modes', 5, 9), dim or t.whole('pixels', 3, 12)
    R, f = t.whole('directions', 1, D - wide), t.number('floor', *floor)
    U = torch.linalg.qr(t.normal(M, D, R)).Q.mT
    weights, labels = .2 + t.uniform(M), torch.cat([torch.arange(K), t.labels(M - K, K)])
    return PictureWorld(spread*t.normal(M, D), U, f/4 + 2*t.uniform(M, R), f, weights/weights.sum(), labels)


def level(
    t:Trial, # source of randomness
    low:float, # least
    high:float, # largest
)->float: # of any size alike
    "A noise level."
    return 10**t.number('log10 sigma', math.log10(low), math.log10(high))


def scene(
    t:Trial, # source of randomness
    low:float, # least noise level
    high:float, # largest
    first:int=NULL, # least label
    **kw, # of `sheets`
)->tuple[PictureWorld, float, int]: # a world, a noise level, a class or the whole world
    "What an equation is about."
    world = sheets(t, **kw)
    return world, level(t, low, high), t.whole('class', first, world.classes - 1)


def priors(
    world:PictureWorld, # any
)->Tensor: # `(K,)`
    "The weights of the classes."
    return torch.stack([world.weights[world.labels == c].sum() for c in range(world.classes)])


def covariances(
    world:PictureWorld, # any
    v:float=0., # variance of the noise
)->Tensor: # `(M, D, D)`
    "The covariances of modes, written out."
    U, f = world.directions, world.floor
    return (f + v)*eye(world.dim) + torch.einsum('mrd,mr,mre->mde', U, world.variances - f, U)


def gaussians(
    world:PictureWorld, # any
    sigma:float, # noise level
    y:int=NULL, # class
)->MixtureSameFamily: # by torch.distributions
    "The noisy class, by other people's arithmetic."
    own = belongs(world.labels, y)
    parts = MultivariateNormal(world.means[own], covariances(world, sigma**2)[own])
    return MixtureSameFamily(Categorical(world.weights[own]), parts)


def log_joint(
    world:PictureWorld, # any
    x:Tensor, # `(B, D)`
    sigma:float, # noise level
)->Tensor: # `(B, M)`
    "Logs of weight times density of all modes, by other people's arithmetic."
    return world.weights.log() + MultivariateNormal(world.means, covariances(world, sigma**2)).log_prob(x[:, None])


def log_class(
    world:PictureWorld, # any
    x:Tensor, # `(B, D)`
    sigma:float, # noise level
    c:int, # class
)->Tensor: # `(B,)`
    "Log of the posterior of a class, from `log_joint`."
    logs = log_joint(world, x, sigma)
    return logs[:, world.labels == c].logsumexp(1) - logs.logsumexp(1)


def symbols(
    world:PictureWorld, # any
    x:Tensor, # `(B, D)`
    sigma:float, # noise level
    y:int, # class, or `NULL`
)->tuple: # mu, U, shares r `(B, M)`, p `(B, M, R)`, g `(M, R)`, v, w
    "The symbols of the chapter for the modes of a label, as it defines them."
    own, v = belongs(world.labels, y), sigma**2
    mu, U, w = world.means[own], world.directions[own], world.floor + v
    p = torch.einsum('mrd,bmd->bmr', U, x[:, None] - mu)
    return mu, U, log_joint(world, x, sigma)[:, own].softmax(1), p, 1/w - 1/(world.variances[own] + v), v, w


def on_sheets(
    U:Tensor, # `(M, R, D)` directions
    coefficients:Tensor, # `(B, M, R)`
)->Tensor: # `(B, M, D)`
    "A vector on the sheet of each mode."
    return torch.einsum('mrd,bmr->bmd', U, coefficients)


def grid(
    step:float, # between neighbours
    reach:float, # of the plane on each side
)->Tensor: # `(n, 2)`
    "Points for a sum that is an integral, to the last digit where densities are wider than two steps."
    line = step*torch.arange(-int(reach/step), int(reach/step) + 1, dtype=torch.float64)
    return torch.cartesian_prod(line, line)


@row('eq-pictures-draw', cell='08d1a001', mutant='the variances for their roots', tolerance=1e-12)
def draw(t):
    "A draw from a mode, from the noise that it is made of; and the covariance of draws. Variances >= 0 may be below f."
    world, seed = sheets(t, wide=0), t.whole('seed', 0, 10**6)
    k, f = t.whole('mode', 0, len(world.weights) - 1), world.floor
    mu, U, l = world.means[k], world.directions[k], world.variances[k]
    n = torch.randn(50, world.dim, generator=rng(seed), dtype=torch.float64)
    def picture(power): return mu + f**power*n + ((l**power - f**power)*(n@U.T))@U
    yield world.draw_modes(torch.full((50,), k), rng(seed)), picture(.5), picture(1)
    A = world.stretch(torch.full((world.dim,), k), eye(world.dim), f**.5, l**.5)
    def covariance(power): return f**power*eye(world.dim) + U.T@torch.diag(l**power - f**power)@U
    yield A.T@A, covariance(1), covariance(.5)


@row('eq-pictures-density', cell='08d1a002', mutant='D log w for D log 2 pi w', tolerance=1e-12)
def density(t):
    "Log density of each noisy mode, at any noise level from 0.001 to 500; also as of torch.distributions."
    some, sigma = sheets(t, wide=0), level(t, 1e-3, 500)
    M, x = len(some.weights), 2*(1 + sigma)*t.normal(20, some.dim)
    world = PictureWorld(some.means, some.directions, some.variances, some.floor)
    mu, _, _, p, g, v, w = symbols(world, x, sigma, NULL)
    bracket = ((x[:, None] - mu)**2).sum(2)/w - (g*p**2).sum(2) + ((world.variances - world.floor)/w).log1p().sum(1)
    right, wrong = (-(bracket + world.dim*math.log(c*w))/2 for c in (2*math.pi, 1))
    yield torch.stack([world.log_prob(x, sigma, k) for k in range(M)], 1), right, wrong
    yield log_joint(world, x, sigma) - world.weights.log(), right, wrong


@row('eq-pictures-score', cell='08d1a003', mutant='g is not in the pull', tolerance=1e-11)
def score(t):
    "The score of a class or of the whole world, at any noise level, from the mean picture and the pull along sheets."
    world, sigma, c = scene(t, 3e-3, 50)
    x = 2*(1 + sigma)*t.normal(20, world.dim)
    mu, U, r, p, g, _, w = symbols(world, x, sigma, c)
    def formula(g): return (r@mu - x)/w + torch.einsum('bm,bmd->bd', r, on_sheets(U, g*p))
    yield world.score(x, sigma, c), formula(g), formula(1)
    yield gradient(gaussians(world, sigma, c).log_prob, x), formula(g), formula(1)


@row('eq-pictures-denoiser', cell='08d1a003', mutant='f and v change places beside x and m', tolerance=1e-10)
def denoiser(t):
    "The denoiser of a class or of the whole world is that formula, and x plus v times the slope of the log density."
    world, sigma, c = scene(t, 3e-3, 500)
    x = 2*(1 + sigma)*t.normal(20, world.dim)
    mu, U, r, p, g, v, w = symbols(world, x, sigma, c)
    def formula(a, b): return (a*x + b*(r@mu))/w + v*torch.einsum('bm,bmd->bd', r, on_sheets(U, g*p))
    right, wrong = formula(world.floor, v), formula(v, world.floor)
    yield world(x, sigma, c), right, wrong
    yield x + v*gradient(gaussians(world, sigma, c).log_prob, x), right, wrong


@row('eq-pictures-skip', cell='08d1a003', below=True, tolerance=1e-12,
    mutant='v^2 for v; v^2/w epsilon for v/w epsilon; (v/w)^2 epsilon for epsilon')
def skip(t):
    "What is lost of a denoised picture with the modes that are left out, for a label with M modes and any epsilon > 0."
    world, sigma, c = scene(t, .1, .9)
    exact, rough = copy.copy(world), copy.copy(world)
    exact.skip, rough.skip = 0., t.number('epsilon', .002, .2)
    x = world.sample(torch.full((40,), NULL), sigma, t.generator)
    _, _, r, p, g, v, w = symbols(world, x, sigma, c)
    length, epsilon = r*(g*p).norm(dim=2), rough.skip
    out = w*length <= epsilon/r.shape[1]
    bound = torch.where(out, length, 0.).sum(1)
    alone = [(rough(x[i:i + 1], sigma, c) - exact(x[i:i + 1], sigma, c)).norm() for i in range(len(x))]
    yield torch.stack(alone), v*bound, v**2*bound
    yield v*bound, 0*bound + v/w*epsilon, 0*bound + v/w*epsilon*v
    yield v/w*epsilon, epsilon, (v/w)**2*epsilon


@row('eq-pictures-covariance', cell='08d1a004', mutant='v for v^2 before the sheets', tolerance=1e-10)
def covariance(t):
    "The posterior covariance times a vector, from the modes, by the library, and as v times the slope of the denoiser."
    world, sigma, c = scene(t, .03, 10)
    x, a = (1 + sigma)*t.normal(20, world.dim), t.normal(20, world.dim)
    mu, U, r, p, g, v, w = symbols(world, x, sigma, c)
    each = (world.floor*x[:, None] + v*mu)/w + v*on_sheets(U, g*p)
    apart = each - torch.einsum('bm,bmd->bd', r, each)[:, None]
    along_a = torch.einsum('mrd,bd->bmr', U, a)
    def formula(v_sheet):
        parts = v*world.floor/w*a[:, None] + v_sheet*on_sheets(U, g*along_a) + apart*(apart*a[:, None]).sum(2, True)
        return torch.einsum('bm,bmd->bd', r, parts)
    x = x.requires_grad_()
    slope = torch.autograd.grad(gaussians(world, sigma, c).log_prob(x).sum(), x, create_graph=True)[0]
    by_slope = v*(a + v*torch.autograd.grad((slope*a).sum(), x)[0])
    yield world.covariance(x, sigma, a, c), formula(v**2), formula(v)
    yield by_slope, formula(v**2), formula(v)


@row('eq-pictures-bayes', cell='839c507d', mutant='the first sum has the weights within the class', tolerance=1e-11)
def bayes(t):
    "Log of the posterior of each sample's own class, also where that is tiny; and its exponential, the posterior."
    world, sigma = sheets(t), level(t, .01, 30)
    x, y, prior = (2 + sigma)*t.normal(60, world.dim), t.labels(60, world.classes), priors(world)
    each = torch.stack([log_class(world, x, sigma, c) for c in range(world.classes)], 1)
    of = torch.arange(60), y
    yield world.log_class(x, sigma, y), each[of], each[of] - prior.log()[y]
    yield world.posterior(x, sigma), each.exp(), each.exp()/prior


@row('eq-pictures-tilt', cell='88a07074', mutant='s - 1 for s', tolerance=1e-11)
def tilt(t):
    "The tilted log density up to a constant, and its gradient, which guidance follows, for any real s."
    world, sigma, c = scene(t, .1, 10, 0)
    s, x = t.number('s', -3, 9), (1 + sigma)*t.normal(20, world.dim)
    log_p, log_pc = (gaussians(world, sigma, y).log_prob for y in (NULL, c))
    def tilted(s): return log_p(x) + s*log_class(world, x, sigma, c)
    whole, own = gradient(log_p, x), gradient(log_pc, x)
    right, wrong = (whole + power*(own - whole) for power in (s, s - 1))
    yield drop_constant(world.tilted(x, s, c, sigma)), drop_constant(tilted(s)), drop_constant(tilted(s - 1))
    yield gradient(lambda x: world.tilted(x, s, c, sigma), x), right, wrong
    yield world.tilted_score(x, s, c, sigma), right, wrong
    yield (guide(world, scale=s)(x, sigma, torch.full((20,), c)) - x)/sigma**2, right, wrong


@row('eq-pictures-mean', cell='c9352a36', mutant='v for 2 v in the exponent', tolerance=1e-11)
def mean(t):
    "In two pixels: the denoiser is the mean of clean pictures, weighed by how likely the noisy one comes from each."
    world, sigma, c = scene(t, .3, 5, dim=2, spread=1.5, floor=(.1, .6))
    x, x0 = (1 + sigma)*t.normal(15, 2), grid(.12, 13)
    logs, square = gaussians(world, 0, c).log_prob(x0), torch.cdist(x, x0)**2
    def formula(twice): return (logs - square/(twice*sigma**2)).softmax(1)@x0
    yield world(x, sigma, c), formula(2), formula(1)


@row('eq-pictures-calibration', cell='7680c012', mutant='the mean is over the class', tolerance=1e-11)
def calibration(t):
    "In two pixels: the mean of p(c|x)/p(c) over the whole world is one, for each class, at any noise level >= 0."
    world, sigma = sheets(t, dim=2, spread=1.5, floor=(.1, .6)), t.number('sigma', 0, 2)
    step = (world.floor/4 + sigma**2)**.5/1.5
    x = grid(step, 12 + 7*sigma)
    ratio = world.posterior(x, sigma)/priors(world)
    def average(y): return step**2*gaussians(world, sigma, y).log_prob(x).exp()@ratio
    over_class = torch.stack([average(c)[c] for c in range(world.classes)])
    yield average(NULL), torch.ones_like(over_class), over_class


@row('eq-pictures-bytes', cell='681bde3e', mutant='128 steps for 127; half of that bound', tolerance=1e-7)
def in_bytes(t):
    "Numbers in 8 bits, by the formula; what the bound is exceeded by (0). Largest entries from 1e-10 to 1e10."
    rows, size = t.normal(10, t.whole('D', 2, 300)), 10**t.number('log10 of the size', -10, 10)
    largest = rows.abs().amax(1, True)
    found = from_bytes(*to_bytes(size*rows))/size
    def formula(steps): return largest/steps*(steps*rows/largest).round()
    yield found, formula(127), formula(128)
    def excess(steps): return ((found - rows).abs()/largest - 1/steps).clamp(min=0)
    yield excess(254), 0*rows, excess(508)


@row('eq-pictures-facts', cell='39c81365', mutant='D for R, and for D - R', tolerance=1e-11)
def facts(t):
    "Facts of pictures whose mode is clear, and their means over noises with unit second moments; R < D, f > 0, l > 0."
    world = sheets(t, spread=30)
    k, D, (R, f) = t.whole('mode', 0, len(world.weights) - 1), world.dim, (world.directions.shape[1], world.floor)
    mu, U, l = world.means[k], world.directions[k], world.variances[k]
    x = mu + world.stretch(torch.full((D,), k), D**.5*eye(D), f**.5, l**.5) # the noises have mean n n^T = I
    found, p = examine(world, x, world.labels[k].expand(D)), (x - mu)@U.T
    along, rest = (p**2/l).sum(1), ((x - mu)**2).sum(1) - (p**2).sum(1)
    yield found.along, along/R, along/D
    yield found.off**2, rest/((D - R)*f), rest/(D*f)
    yield found.along.mean(), 1., R/D
    yield (found.off**2).mean(), 1., (D - R)/D


@row('eq-pictures-distances', cell='4f0b93d2', tolerance=1e-8,
    mutant='a point makes a pair with itself; distances, not their squares')
def distances(t):
    "Energy distance of two sets, over pairs of different points, and mean squared Wasserstein distance along lines."
    N, D = t.whole('N', 2, 40), t.whole('D', 1, 9)
    x, true = t.normal(N, D), t.number('width', .3, 3)*t.normal(N, D) + t.normal(D)
    case = Case(None, x, None, None, true)
    def within(a, pairs): return 2*sum((a[i] - a[j]).norm() for i, j in combinations(range(N), 2))/pairs
    across = sum((a - b).norm() for a in x for b in true)/N**2
    right, wrong = (2*across - within(x, pairs) - within(true, pairs) for pairs in (N*(N - 1), N**2))
    yield energy_distance(case), right, wrong
    lines = torch.randn(D, 64, generator=rng(8), dtype=torch.float64)
    q = (np.arange(5*N) + .5)/(5*N)
    def quantiles(a): return np.quantile(a@(lines/lines.norm(dim=0)), q, 0, method='inverted_cdf')
    apart = quantiles(x) - quantiles(true)
    yield sliced_distance(case)**2, np.mean(apart**2), np.mean(np.abs(apart))**2


@row('eq-pictures-band', cell='6937cfc1', mutant='n for n + 1', tolerance=1e-12)
def band(t):
    "Of n + 1 different values of any distribution, the share of those that lie in the band of the others."
    n, asked = t.whole('n', 5, 120), t.number('level', .1, .99)
    values = (t.number('spread', .1, 4)*t.normal(n + 1)).exp()
    others = [torch.cat([values[:i], values[i + 1:]]).tolist() for i in range(n + 1)]
    bands = [band_of(rest, asked) for rest in others]
    k = 1 + sum(v < bands[0].low for v in others[0])
    held = sum(b.holds(v) for b, v in zip(bands, values.tolist()))
    yield held/(n + 1), 1 - 2*k/(n + 1), 1 - 2*k/n


@row('eq-pictures-rejection', cell='08d1a005', tolerance=1e-11,
    mutant='s for s - 1 of the class, s - 1 for s of the world')
def rejection(t):
    "The tilted density is the class times p(c|x)^(s-1), any s; draws are kept by that for s >= 1, else by p(c|x)^s."
    world, sigma, c = scene(t, .5, 6, 0, spread=1)
    s, seed, x = t.number('s', -3, 6), t.whole('seed', 0, 10**6), (1 + sigma)*t.normal(50, world.dim)
    worth = log_class(world, x, sigma, c)
    def formula(power): return drop_constant(gaussians(world, sigma, c).log_prob(x) + power*worth)
    yield drop_constant(world.tilted(x, s, c, sigma)), formula(s - 1), formula(s)
    y, noisy = torch.full((2000,), c), world.with_noise(sigma)
    a = abs(s)
    for scale, base, right, wrong in ((1.5 + a, c, .5 + a, 1.5 + a), (a/6, NULL, a/6, a/6 - 1)):
        drawn, kept = try_tilted(noisy, y, scale, rng(seed))
        source = rng(seed)
        same = noisy.sample(torch.full((2000,), base), generator=source)
        chance, u = log_class(world, same, sigma, c), torch.rand(2000, generator=source, dtype=torch.float64)
        yield drawn, same, same[:, :1].expand_as(same)
        yield kept.double(), (u < (right*chance).exp()).double(), (u < (wrong*chance).exp()).double()


@row('eq-pictures-ess', cell='a6ef83d7', mutant='N is left out; a step twice as long', tolerance=1e-9)
def ess(t):
    "The effective share of weights; a step of the scale that it limits, up or down, comes down to the share asked for."
    world, sigma, c = scene(t, .5, 5, 0)
    N, share = t.whole('N', 20, 300), t.number('share', .3, .8)
    worth = log_class(world, world.sample(torch.full((N,), NULL), sigma, t.generator), sigma, c)
    def formula(step, N=N):
        w = (step*worth).exp()
        return w.sum()**2/(N*(w**2).sum())
    for step in (t.number('step', .05, 2), -t.number('step down', .05, 2)):
        yield effective_share(step*worth), formula(step), formula(step, 1)
        whole = next(step*2**i for i in range(40) if formula(step*2**i) < share)
        longest = largest_step(worth, whole, share)
        yield formula(longest), share, formula(2*longest)


@row('eq-pictures-balance', cell='a6ef83d7', tolerance=1e-11,
    mutant="x and x' change places in one kernel; p_tau is left out")
def balance(t):
    "In two pixels: the library's move, whose kernel is measured, is in detailed balance with the class; any tau > 0."
    world, tau, c = scene(t, .5, 2, 0, dim=2, spread=1, floor=(.1, .6))
    modes, seed = (world.labels == c).nonzero()[:, 0], t.whole('seed', 0, 10**6)
    x, other = world.sample(torch.full((12,), c), generator=t.generator).chunk(2)
    step = tau/3
    z = grid(step, 6 + 8*tau)
    shares, tries = world.mode_posterior(z, tau, c), 3*t.normal(30, 2)
    noise = torch.randn(30, 2, generator=rng(seed), dtype=torch.float64)
    given = torch.cat([torch.ones(30, 1, dtype=torch.float64), tries, noise], 1)
    def kernel_of_mode(k): # a move is linear in z and in its noise: measure how
        made = redraw_modes(world, tries, k.expand(30), tau, rng(seed))
        rule = torch.linalg.lstsq(given, made).solution
        return MultivariateNormal(rule[0] + z@rule[1:3], rule[3:].T@rule[3:])
    kernels, log_p = [kernel_of_mode(k) for k in modes], gaussians(world, 0, c).log_prob
    def bell(x): return MultivariateNormal(x[:, None], tau**2*eye(2)).log_prob(z).exp()
    def move(end, x): # k(end|x)
        ends = sum(shares[:, k]*kernel.log_prob(end[:, None]).exp() for k, kernel in zip(modes, kernels))
        return step**2*(bell(x)*ends).sum(1)
    there, back = log_p(x).exp()*move(other, x), log_p(other).exp()*move(x, other)
    both, over = (log_p(x) + log_p(other)).exp(), gaussians(world, tau, c).log_prob(z).exp()
    yield there, back, log_p(other).exp()*move(other, x)
    yield there, both*step**2*(bell(x)*bell(other)/over).sum(1), both*step**2*(bell(x)*bell(other)).sum(1)


@row('eq-pictures-levels', cell='46f96315', mutant='n for n - 1', tolerance=1e-12)
def levels(t):
    "The noise levels of Karras et al. and those with equal ratios, from 80 to 0.002 and then 0, for n >= 2."
    n = t.whole('n', 2, 100)
    def karras(i, n): return (80**(1/7) + i/(n - 1)*(.002**(1/7) - 80**(1/7)))**7
    def even(i, n): return 80*(.002/80)**(i/(n - 1))
    for found, formula in ((karras_grid(n), karras), (logsnr_grid(n), even)):
        right, wrong = (torch.tensor([formula(i, m) for i in range(n)] + [0.], dtype=torch.float64) for m in (n, n + 1))
        yield found, right, wrong


@row('eq-pictures-order', cell='70a17ffa', mutant='the natural logarithm for that to base 2', tolerance=.1)
def order(t):
    "Of the median distance of ends from the true ones: Euler's method has order one, Heun's and DPM-Solver++(2M) two."
    world, _, c = scene(t, 1, 2, 0, spread=1, floor=(.2, 1.))
    start = 80*t.normal(9, world.dim)
    end = transport(world, start, 80., 0., c, tol=1e-6)
    def gap(sampler, n):
        step, sigmas = make_sampler(sampler, steps=n)
        for last in trajectory(world, start, sigmas, torch.full((9,), c), step): x = last.x
        return (x - end).norm(dim=1).median().item()
    for sampler, p in ('ddim', 1), ('heun', 2), ('dpmpp', 2):
        ratio = gap(sampler, 32)/gap(sampler, 64)
        yield p, math.log2(ratio), math.log(ratio)
