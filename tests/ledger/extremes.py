"Chapter 7: strong guidance."
import math
from functools import cache
from itertools import pairwise

import numpy as np
import torch
from scipy.integrate import solve_ivp
from scipy.interpolate import CubicSpline
from scipy.special import expit, log_ndtr, ndtr
from torch.autograd import grad
from torch.distributions import Normal

from cfg_course.core import NULL
from cfg_course.doses import evidence
from cfg_course.guidance import Look, guide, interval
from cfg_course.mixtures import Boxes, Mixture, mesh, transport, two_boxes, two_classes, unequal_modes
from cfg_course.particles import reverse_step
from cfg_course.rules import adg, apg, cfg_zero, tcfg
from cfg_course.samplers import Now, trajectory
from ledger import row


def level_of(q):
    "The noise level at which the signal is q."
    return np.sqrt(1/q**2 - 1)


def pushed(q, u, w, factor=2.):
    "The slope of equation 'ext-line'."
    return 1 + 2*w*expit(-factor*q*u)


def solved(slope, start, ends):
    "Solve an equation in q by itself."
    return solve_ivp(slope, ends, np.atleast_1d(start), method='DOP853', rtol=1e-11, atol=1e-11).y[:, -1]


def slope_in_q(guided, x, q):
    "Along the guided flow, the derivative of q x in q."
    sigma = torch.from_numpy(level_of(q.numpy()))
    D = guided(x, sigma, torch.zeros(len(x), dtype=torch.long))
    return x - (x - D)/(q*sigma)[:, None]**2


@row('eq-ext-line', cell='aa121e82', mutant='q u for 2 q u', tolerance=1e-8)
def line(t):
    "The guided flow of two classes N(1, 1) and N(-1, 1) in u and q, for every real w, at any point and along a path."
    w, first = t.number('w', -3, 30), t.number('first q', .02, .3)
    q, u, guided = .02 + .96*t.uniform(50), 2*t.normal(50), guide(two_classes(), w=w)
    found = slope_in_q(guided, (u/q)[:, None], q)[:, 0]
    yield found, torch.tensor(pushed(q.numpy(), u.numpy(), w)), torch.tensor(pushed(q.numpy(), u.numpy(), w, 1.))
    z = t.normal(7).numpy()
    start = torch.tensor(solved(lambda q, u: pushed(q, u, w), z, (0., first))/first)[:, None]
    right, wrong = (solved(lambda q, u: pushed(q, u, w, f), z, (0., 1.)) for f in (2., 1.))
    found = transport(guided, start, float(level_of(first)), 0., 0)[:, 0]
    yield found, torch.tensor(right), torch.tensor(wrong)


def limit_of_push(factor):
    "C and the derivative of the end with respect to the start, of equation 'ext-root'."
    def slope(Q, z):
        p = expit(-factor*Q*z[0])
        return [2*p, -2*factor*Q*p*(1 - p)*z[1]]
    return solve_ivp(slope, (0, 60), [0., 1.], method='DOP853', rtol=1e-12, atol=1e-12).y[:, -1]


def strong_moments(w, first=1e-5, last=.3):
    "Mean and standard deviation of the output at a large w; from q = 0.3 on paths go straight."
    nodes, mass = np.polynomial.hermite_e.hermegauss(12)
    start = (torch.tensor(nodes) + (1 + w)*first)[:, None]/first
    x = transport(guide(two_classes(), w=w), start, float(level_of(first)), float(level_of(last)), 0, 1e-8)
    u, mass = x[:, 0].numpy()*last + 1 - last, mass/mass.sum()
    mean = mass@u
    return mean, math.sqrt(mass@(u - mean)**2)


@row('eq-ext-root', cell='e7a8cfaf', mutant='Q U for 2 Q U; the variance has that limit; no 1', tolerance=1e-4)
def root(t):
    "Mean and standard deviation at large w, extrapolated to infinite w with the powers that the equation says."
    w = t.number('w', 1e3, 8e3)
    (near, near_std), (far, far_std) = strong_moments(w), strong_moments(4*w)
    right, (wrong, _) = limit_of_push(2.), limit_of_push(1.)
    yield (4*(far - 1)/(4*w)**.5 - (near - 1)/w**.5)/3, right[0], wrong
    yield (4*far_std - near_std)/3, right[1], right[1]**.5
    yield 2*(far - right[0]*(4*w)**.5) - (near - right[0]*w**.5), 1., 0.


@row('eq-ext-cross', cell='14826ff7', mutant='the two bounds change places', tolerance=1e-6, below=True)
def cross(t):
    "Bounds on the probability to end at x >= 0, for every w >= 0; as logarithms of that to end below."
    w, big = t.number('w', 0, 6), 1e4
    x = transport(guide(two_classes(), w=w), torch.zeros(1, 1, dtype=torch.float64), 0., big, 0, 1e-7)
    missed = log_ndtr(x.item()/math.hypot(1, big) - (1 + w)/big)
    low, high = log_ndtr(-1 - 2*w), log_ndtr(-1 - w)
    yield missed, high, low
    yield -missed, -low, -high


@row('eq-ext-edge', cell='49004b3d', mutant='e^-w for the distance; e^-2w for the probability', tolerance=1e-9,
    below=True)
def edge(t):
    "Of two mirrored classes on intervals all samples but e^-w end within 0.3 alpha_2/sqrt(log w) of the far edge."
    w, low, width, big = t.number('w', 6, 40), t.number('alpha_1', .3, 1.2), t.number('width', .5, 1.2), 1e3
    middle, high, share = low + .5*width, low + width, t.number('weight of the inner half', .2, .8)
    weights = np.array([share, 1 - share, share, 1 - share])/2
    boxes = Boxes([low, middle, -middle, -high], [middle, high, -low, -middle], weights, [0, 0, 1, 1])
    start = torch.tensor([[-big*math.sqrt(2*w)]], dtype=torch.float64)
    end = transport(guide(boxes, w=w), start, big, 0., 0, 1e-7).item()
    yield 1 - end/high, .3/math.log(w)**.5, math.exp(-w)
    yield end, high, middle
    yield log_ndtr(-math.sqrt(2*w)), -w, -2*w


@row('eq-ext-return', cell='d7f1a002', mutant='plus xi; 2 for 4', tolerance=1e-5)
def way_back(t):
    "Near the edge of a box, and far outside (xi above 60), how a path comes back in units of sigma."
    sigma, w, high = t.number('sigma', .001, .01), t.number('w', 0, 20), t.number('alpha_2', 1, 2)
    boxes = two_boxes(high - 1, high)
    def slope(xi):
        x = high + sigma*xi[:, None]
        return ((x - guide(boxes, w=w)(x, sigma, torch.zeros(len(x), dtype=torch.long)))/sigma)[:, 0] - xi
    xi = 5*t.normal(20)
    hazard = torch.tensor(np.exp(-xi.numpy()**2/2 - math.log(2*math.pi)/2 - log_ndtr(-xi.numpy())))
    yield slope(xi), hazard - xi, hazard + xi
    xi = 60 + 40*t.uniform(10)
    yield 2*xi*slope(xi), 2 - 4/xi**2, 2 - 2/xi**2


def resting(step, x):
    "Where a map leads that is repeated."
    for _ in range(80): x = step(x)
    return x


@row('eq-ext-stuck', cell='81e62779', mutant='w for 1 + w', tolerance=1e-4)
def stuck(t):
    "The outermost resting point of a denoiser that errs by epsilon far outside, wherever there is one."
    w, more, sigma = t.number('w', 10, 60), t.number('(1 + w) epsilon', 3.3, 8), 1e-3
    epsilon = more/(1 + w)
    boxes, label = two_boxes(), torch.zeros(1, dtype=torch.long)
    def wrong(x, sigma, y):
        return boxes(x, sigma, y) + epsilon*torch.sigmoid(4*(x/math.hypot(1, sigma) - 4))*(y >= 0)[:, None]
    guided = guide(wrong, w=w)
    found = resting(lambda x: guided(x, sigma, label), torch.full((1, 1), 2 + more, dtype=torch.float64))
    right, mutant = (resting(lambda x, k=k: 2 + k*epsilon*expit(4*(x - 4)), 2 + more) for k in (1 + w, w))
    assert right > 4
    yield found.item(), right, mutant


@row('eq-ext-dim', cell='4a353a15', mutant='Q is q', tolerance=1e-9)
def dimension(t):
    "Along m the guided flow of N(m, I) and N(-m, I) is that on the line in Q = sqrt(d) q, for every real w and any d."
    d, w = t.whole('d', 2, 40), t.number('w', -3, 30)
    q, u, m = .02 + .96*t.uniform(50), 2*t.normal(50), torch.ones(d, dtype=torch.float64)/math.sqrt(d)
    across = t.normal(50, d)
    x = u[:, None]*m + across - (across@m)[:, None]*m
    slope = slope_in_q(guide(two_classes(d), w=w), x/q[:, None], q)@m/math.sqrt(d)
    right, wrong = (torch.tensor(pushed(k*q.numpy(), u.numpy(), w)) for k in (math.sqrt(d), 1.))
    yield slope, right, wrong


@cache
def healed(w=3., d=36, steps=(80, 160), first=.03):
    "4w times the integral of equation 'ext-heal', from the density of the random sampler on a grid."
    world, u, m = two_classes(d), np.linspace(-7, 14, 221), torch.full((1, d), d**-.5, dtype=torch.float64)
    def drift(Q):
        q = Q/math.sqrt(d)
        x, sigma = torch.from_numpy(u)[:, None]*m/q, float(level_of(q)) if q < 1 else 1e-6
        score = (guide(world, w=w)(x, sigma, torch.zeros(len(x), dtype=torch.long)) - x)/sigma**2
        return 2*(score@m[0]).numpy()/q + 2*u, world.posterior(x, sigma)[:, 1].numpy()
    found = []
    for n in steps:
        t = np.linspace(math.log(first), math.log(.999*math.sqrt(d)), n + 1)
        h, density, total = t[1] - t[0], np.exp(-u**2/2), 2*w*first**2/2
        for Q in np.exp(t[:-1] + h/2):
            density = density/density.sum()
            pull, wrong = drift(Q)
            total += 4*w*Q**2*h*(density@wrong)
            density = np.exp(-(u[:, None] - pull - math.exp(-h)*(u - pull))**2/(2*-math.expm1(-2*h)))@density
        found.append(total)
    return 2*found[1] - found[0]


@row('eq-ext-heal', cell='d7f1a006', mutant='2w for 4w; 1.36, as for the flow', tolerance=2e-2)
def heal(t):
    "By how much a random sampler with many steps overshoots along m, for any d and w; and the limit for w = 3."
    d, w, n = t.whole('d', 2, 30), t.number('w', .5, 6), 64
    even = lambda: (lambda v: v - v.mean(0))(t.normal(n, d))
    levels = torch.cat([torch.logspace(1.5, -1, 240, dtype=torch.float64), torch.zeros(1)]).tolist()
    guided, m = guide(two_classes(d), w=w), torch.ones(d, dtype=torch.float64)/math.sqrt(d)
    y, wrong, x = torch.zeros(n, dtype=torch.long), [.5], levels[0]*even() + (1 + w)*math.sqrt(d)*m
    for a, b in pairwise(levels):
        wrong.append(expit(-2*(x@m).numpy()*math.sqrt(d)/(1 + a**2)).mean())
        x = reverse_step(guided, Now(x, a, b, y, even)).x
    Q = np.append(0, math.sqrt(d)/np.hypot(1, levels[:-1]))
    integral = np.trapezoid(Q*wrong, Q)
    yield (x@m).mean() - math.sqrt(d), 4*w/math.sqrt(d)*integral, 2*w/math.sqrt(d)*integral
    yield healed(), 1.16, 1.36


Z = np.linspace(-6, 6, 49)
MASS = np.exp(-Z**2/2)/np.exp(-Z**2/2).sum()


def flowed(w, near=1e-3, big=3e3):
    "Where the real flow with a weight w(q) carries the starts `Z`, and the derivative of that map."
    scale = lambda sigma: 1 + w((1 + sigma**2)**-.5)
    starts = np.concatenate([Z, Z - near, Z + near])*math.hypot(1, big) + 1 + w(0)
    x = transport(guide(two_classes(), scale=scale), torch.tensor(starts)[:, None], big, 0., 0, 1e-9)
    u, below, above = np.split(x[:, 0].numpy(), 3)
    return u, (above - below)/(2*near)


def stretched(w):
    "The logarithm of that derivative by equation 'ext-entropy'."
    def slope(q, z):
        p = expit(-2*q*z[:len(Z)])
        return np.concatenate([1 + 2*w(q)*p, -4*w(q)*q*p*(1 - p)])
    return solve_ivp(slope, (0, 1), np.concatenate([Z, 0*Z]), method='DOP853', rtol=1e-9, atol=1e-9).y[len(Z):, -1]


@row('eq-ext-entropy', cell='2f95caef', mutant='2 for 4; log 2 pi for log 2 pi e', tolerance=1e-5)
def entropy(t):
    "How much the guided flow on the line stretches, and the entropy of its output, for a weight that may depend on q."
    a, b = t.number('w without noise', -1, 8), t.number('w in noise', -1, 8)
    w = lambda q: a*q + b*(1 - q)
    (u, steep), log_steep = flowed(w), stretched(w)
    yield torch.tensor(steep).log(), torch.tensor(log_steep), torch.tensor(log_steep/2)
    density = MASS/(Z[1] - Z[0])/steep
    found = -CubicSpline(u, density*np.log(density)).integrate(u[0], u[-1])
    right = math.log(2*math.pi*math.e)/2 + MASS@log_steep
    yield found, right, right - .5


@row('eq-ext-poincare', cell='603519b4', mutant='the square of the mean for the mean square', tolerance=1e-6,
    below=True)
def poincare(t):
    "For every schedule w(q) >= 0 the variance is at most the mean squared slope, and that at most 1."
    a, b, turns = t.number('w without noise', 0, 8), t.number('w in noise', 0, 8), t.whole('waves', 0, 5)
    u, steep = flowed(lambda q: (a*q + b*(1 - q))*(1 + np.cos(turns*q))/2)
    squared, wrong = MASS@steep**2, (MASS@steep)**2
    yield MASS@(u - MASS@u)**2, squared, wrong
    yield squared, 1., wrong


@row('eq-ext-reciprocal', cell='d7f1a007', mutant='equally likely classes; any support', tolerance=1e-9)
def reciprocal(t):
    "The mean of 1/p(c|x) over a class: of Gaussians, which reach everywhere, and of boxes, some of which overlap."
    world, sigma = t.world(t.whole('dimensions', 1, 2)), t.number('sigma', 0, 1)
    c, x = t.whole('class', 0, world.classes - 1), mesh(-14, 14, 4001 if world.dim == 1 else 201, world.dim)
    log_ratio = world.log_prob(x, sigma, c) - world.posterior(x, sigma)[:, c].log()
    mass = log_ratio.exp().sum()*(x[1] - x[0]).norm()**world.dim
    prior = world.weights[world.labels == c].sum()
    yield mass, 1/prior, float(world.classes)
    low, width, weights = t.uniform(6)*4, .5 + t.uniform(6), .2 + t.uniform(6)
    boxes = Boxes(low, low + width, weights/weights.sum(), [0, 0, 1, 1, 2, 2])
    cuts = torch.cat([boxes.low, boxes.high]).sort().values
    pieces, lengths = (cuts[1:] + cuts[:-1])/2, cuts.diff()
    inside = ((boxes.low < pieces[:, None]) & (pieces[:, None] < boxes.high)).double()
    heights = inside*boxes.weights/(boxes.high - boxes.low)
    mine = heights[:, boxes.labels == c % 3].sum(1)
    prior = boxes.weights[boxes.labels == c % 3].sum()
    sure = boxes.posterior(pieces[:, None], 1e-6*lengths.min())[:, c % 3]
    reach = (heights.sum(1)*lengths)[mine > 0].sum()
    yield (mine*lengths/prior/sure)[mine > 0].sum(), reach/prior, 1/prior


@row('eq-ext-minor', cell='15a8ee94', mutant='starts above the curve', tolerance=1.5e-2, samples=1024)
def minor(t):
    "The mass of a minor mode from the curve that divides the starts, for any share and scale, beside counted samples."
    share, s, big, near = t.number('share', .15, .45), t.number('s', 1, 6), 20., .1
    modes = unequal_modes(share)
    guided = guide(modes, scale=s)
    side = 1 + 1.2*torch.linspace(-1, 1, 19, dtype=torch.float64)**3
    level = torch.full_like(side, -(.05 + near**2)*math.log(1/share - 1)/2)
    b = transport(guided, torch.stack([side, level], 1), near, big, 0, 1e-4).numpy()/big
    z = np.linspace(-5, 5, 201)
    curve = CubicSpline(*b.T)(z)
    bell = np.exp(-z**2/2)/np.exp(-z**2/2).sum()
    even = torch.quasirandom.SobolEngine(2, True, t.random.randrange(1000)).draw(1024, dtype=torch.float64)
    end = transport(guided, big*torch.special.ndtri(even), big, near, 0, 1e-4)
    yield (end[:, 1] < level[0]).double().mean(), bell@ndtr(curve), bell@ndtr(-curve)


@row('eq-ext-odds', cell='36ae22c5', mutant='the two log densities change places', tolerance=1e-11)
def odds(t):
    "The difference of the two scores, for two equally likely classes of any number of modes and dimensions."
    d, modes, sigma = t.whole('dimensions', 1, 4), t.whole('modes', 1, 3), t.number('sigma', .2, 3)
    weights = .2 + t.uniform(2, modes)
    weights = weights/weights.sum(1, keepdim=True)/2
    labels = torch.arange(2).repeat_interleave(modes)
    world, x = Mixture(2*t.normal(2*modes, d), .2 + t.uniform(2*modes), weights.flatten(), labels), 2*t.normal(50, d)
    logs, scores = zip(*(world.mix(x, sigma, c) for c in (0, 1)))
    other = torch.sigmoid(logs[1] - logs[0])[:, None]
    yield scores[0] - world.score(x, sigma), other*(scores[0] - scores[1]), (1 - other)*(scores[0] - scores[1])
    yield world.posterior(x, sigma)[:, 1], other[:, 0], 1 - other[:, 0]


def last(steps):
    "Where a sampler ends."
    for step in steps: pass
    return step.x


@row('eq-ext-switch', cell='f83b111a', mutant='the two orders change places', tolerance=.2)
def switch(t):
    "Orders of Heun's error with a switch on the grid, for a scale asked at every call and for one asked once a step."
    s, at, guided = t.number('s', 2, 5), t.whole('step of the switch', 10, 22), two_classes()
    grid = lambda n: torch.linspace(20**(1/7), .05**(1/7), 32*n + 1, dtype=torch.float64)**7
    high, x, y = grid(1)[at].item(), 10*mesh(-4, 4, 5), torch.zeros(5, dtype=torch.long)
    true = transport(guide(guided, scale=s), transport(guided, x, 20., high, 0, 1e-8), high, .05, 0, 1e-8)
    kinds = guide(guided, scale=interval(s, 0., high)), guide(guided, scale=s, interval=(0., high))
    errors = torch.tensor([[(last(trajectory(k, x, grid(n), y)) - true).abs().max() for n in (1, 2)] for k in kinds])
    yield (errors[:, 0]/errors[:, 1]).log2(), torch.tensor([1., 2.]), torch.tensor([2., 1.])


@row('eq-ext-track', cell='71f66bd7', mutant='the variance is that of the lower level', tolerance=1e-9)
def track(t):
    "Bayes' rule for one exact transition between any two points and any two levels, for any number of classes."
    world = t.world(t.whole('dimensions', 1, 2))
    a, c = t.number('sigma', .6, 3), t.whole('class', 0, world.classes - 1)
    b = a*t.number("sigma'/sigma", .4, .9)
    x0 = mesh(-14, 14, 2801) if world.dim == 1 else mesh(-11, 11, 177, 2)
    x, after, k = 2*t.normal(6, world.dim), 2*t.normal(6, world.dim), 1 - b**2/a**2
    far = lambda p, q: (p - q).square().sum(2)
    def log_kernel(y, variance):
        recall = (world.log_prob(x0, y=y) - far(x[:, None], x0)/(2*a**2)).log_softmax(1)
        return (recall - far(after[:, None], x[:, None] + k*(x0 - x[:, None]))/(2*variance)).logsumexp(1)
    gain = world.posterior(after, b)[:, c].log() - world.posterior(x, a)[:, c].log()
    right, wrong = (log_kernel(c, v) - log_kernel(NULL, v) for v in (b**2*k, b**2))
    yield gain, right, wrong


@row('eq-ext-gauss', cell='165f0918', mutant="sigma' for the smaller width", tolerance=1e-10)
def tracked(t):
    "What feedback guidance adds to its estimate in a step, between any points and levels: a log ratio of bells."
    world = t.world(t.whole('dimensions', 1, 4))
    a, c = t.number('sigma', .3, 3), t.whole('class', 0, world.classes - 1)
    b = a*t.number("sigma'/sigma", .2, .95)
    x, after, k, y = 2*t.normal(20, world.dim), 2*t.normal(20, world.dim), 1 - b**2/a**2, torch.full((20,), c)
    D_u, D_c = world(x, a), world(x, a, c)
    memory = dict(x=x, sigma=torch.tensor(a, dtype=torch.float64), u=D_u, c=D_c)
    found = evidence(Look(after, torch.tensor(b, dtype=torch.float64), y, memory, world, world))[:, 0]
    mu_u, mu_c = x + k*(D_u - x), x + k*(D_c - x)
    gain = lambda variance: -((after - mu_c).square().sum(1) - (after - mu_u).square().sum(1))/(2*variance)
    bells = [Normal(mu, b*k**.5).log_prob(after).sum(1) for mu in (mu_c, mu_u)]
    yield found, gain(b**2*k), gain(b**2)
    yield bells[0] - bells[1], gain(b**2*k), gain(b**2)


@row('eq-ext-ito', cell='498b2a72', mutant='no half', tolerance=1e-5)
def ito(t):
    "What the estimate by Gaussian transitions misses on any smooth path, here a wave, extrapolated to many steps."
    world, n = t.world(t.whole('dimensions', 1, 3)), 2000
    c, a, k = t.whole('class', 0, world.classes - 1), t.normal(3, world.dim), t.normal(world.dim)
    ends = t.number('sigma_max', 2, 6), t.number('sigma', .3, 1)
    def missed(n):
        sigma = torch.linspace(ends[0]**.5, ends[1]**.5, n + 1, dtype=torch.float64)**2
        x = a[0] + sigma[:, None]*a[1] + torch.sin(sigma[:, None]*k)*a[2]
        D_u, D_c, ratio = world(x, sigma)[:-1], world(x, sigma, c)[:-1], (sigma[1:]/sigma[:-1])[:, None]**2
        surprise = x[1:] - ratio*x[:-1] - (1 - ratio)*(D_c + D_u)/2
        L = (surprise*(D_c - D_u)).sum(1)/sigma[1:]**2
        log_p = world.posterior(x[[0, -1]], sigma[[0, -1]])[:, c].log()
        return L.sum() - (log_p[1] - log_p[0]), x, sigma
    (rough, _, _), (fine, x, sigma) = missed(n), missed(2*n)
    x = x.requires_grad_()
    g = world.score(x, sigma, c) - world.score(x, sigma)
    div = sum(grad(g[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(world.dim))
    integral = -torch.trapezoid(div, sigma**2)
    yield 2*fine - rough, integral/2, integral


@row('eq-ext-rules', cell='053a18ac', mutant='a projection on another vector, or left out', tolerance=1e-10)
def rules(t):
    "Four rules of chapter 17, sample by sample, in any number of dimensions, for s >= 1."
    s, d = t.number('s', 1.1, 8), t.whole('dimensions', 2, 50)
    D_u, D_c = t.normal(20, d), t.normal(20, d) + t.number('likeness', 0, 2)
    look = Look(D_c, torch.tensor(1.), torch.zeros(20, dtype=torch.long), {}, None, None)
    along = lambda v, w: (v@w)/(w@w)*w
    def turned(u, c, onto):
        angle = torch.acos(u@c/(u.norm()*c.norm()))
        turn = torch.clamp((s - 1)*angle, max=math.pi/3)
        return turn.cos()*c + turn.sin()/angle.sin()*(c - along(c, onto))
    def first(u, c): return torch.linalg.svd(torch.stack([u, c])).Vh[0]
    formulas = {
        apg(eta=0., threshold=0., momentum=0.): lambda u, c, o: c + (s - 1)*(c - u - along(c - u, c if o else u)),
        cfg_zero(zero_from=1.): lambda u, c, o: (1 if o else 0)*along(c, u) + s*(c - along(c, u)),
        adg(): lambda u, c, o: turned(u, c, u if o else u - c),
        tcfg(): lambda u, c, o: along(u, first(u, c)) + s*(c - (along(u, first(u, c)) if o else u)),
    }
    for rule, formula in formulas.items():
        right, wrong = (torch.stack([formula(u, c, o) for u, c in zip(D_u, D_c)]) for o in (True, False))
        yield rule.combine(D_u, D_c, s, look), right, wrong
