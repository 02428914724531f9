"Chapter 7a: guarantees."
import torch

from cfg_course.guarantees import error_gain, kl_bound, least_squares_scale, support_bound, w2_bound
from cfg_course.mixtures import Boxes, integrate
from ledger import row


@row('eq-guar-gain', cell='51622e0c', mutant='plus for minus the correlation', tolerance=1e-9)
def gain(t):
    "The mean square of s e_c - (s - 1) e_u for equally large errors with any correlation, for every real s."
    s, r = t.number('s', -3, 8), t.number('correlation', -1, 1)
    a, b = torch.linalg.qr(t.normal(30, 2)).Q.T
    found = (s*a - (s - 1)*(r*a + (1 - r**2)**.5*b)).square().sum()
    formula = lambda r: 1 + 2*s*(s - 1)*(1 - r)
    yield found.item(), formula(r), formula(-r)
    yield error_gain(s, r), formula(r), formula(-r)


class Two:
    "Guidance between two Gaussians with an affine error of the guided score."
    def __init__(self, t):
        self.s, self.v_c, self.v_u = t.number('s', .5, 5), t.number('v_c', .3, 1), t.number('v_u', 1, 3)
        self.mu = t.number('mu_c', -1, 1)

    def field(self, tau):
        "Slope and offset of the guided score."
        A, B = self.v_c + tau, self.v_u + tau
        return -self.s/A - (1 - self.s)/B, self.s*self.mu/A

    def run(self, error, wrong, noise=1., top=8.):
        "Mean and variance at the end, and the sum of the squared error."
        def slope(z, v):
            (a, b), (c, d) = self.field(v**2), error(v**2)
            m, V = z[0], z[1]
            square = (c*m + d)**2 + c**2*V
            half = (1 + noise)/2
            return -2*v*torch.stack([half*((a + wrong*c)*m + b + wrong*d), 2*half*(a + wrong*c)*V + noise, square])
        return integrate(slope, torch.tensor([0., top**2, 0.]).double(), top, 0., 1e-9)


@row('eq-guar-kl', cell='a5155e30', mutant='half as large', tolerance=1e-6, below=True)
def girsanov(t):
    "Girsanov's bound is above the divergence of the outputs, and reached by a constant error that is shaped as it is remembered."
    two = Two(t)
    a, b = t.number('slope', -.2, .2), t.number('offset', -.3, .3)
    remembered = lambda tau: (two.v_c/(two.v_c + tau))**two.s*(two.v_u/(two.v_u + tau))**(1 - two.s)
    for error in (lambda tau: (a/(1 + tau), b/(1 + tau)), lambda tau: (0., .3*remembered(tau))):
        (m, V, square), (n, U, _) = two.run(error, 0.), two.run(error, 1.)
        true = (V/U - 1 - (V/U).log() + (m - n)**2/U)/2
        yield true, square/2, square/4
    levels = torch.linspace(0, 8, 4001, dtype=torch.float64)
    yield kl_bound(levels, (.3*remembered(levels**2))**2), square.item()/2 + 1e-4, square.item()/4


@row('eq-guar-w2', cell='38dc6249', mutant='the contraction twice', tolerance=1e-4, below=True)
def gronwall(t):
    "Between Gaussians with an error that does not depend on x the bound on the distance is the truth."
    two, b = Two(t), t.number('offset', .1, .5)
    error = lambda tau: (0., b/(1 + tau))
    (m, V, _), (n, U, _) = two.run(error, 0., 0.), two.run(error, 1., 0.)
    true = ((m - n)**2 + (V.sqrt() - U.sqrt())**2).sqrt().item()
    levels = torch.linspace(0, 8, 8001, dtype=torch.float64)
    tau = levels**2
    slopes, size = two.field(tau)[0], b/(1 + tau)
    bound = w2_bound(levels, size, slopes)
    assert bound < true*(1 + 1e-3)
    yield true, bound, w2_bound(levels, size, 2*slopes)


@row('eq-guar-support', cell='163a2d12', mutant='a reach of half the size', tolerance=1e-6, below=True)
def support(t):
    "At every step a guided sample is at most so far outside the interval of its class, with and without errors."
    low = t.number('low', .5, 1.5)
    high, s, size = low + t.number('width', .5, 1.5), t.number('s', 1, 30), t.number('error', 0, .3)
    boxes = Boxes([low, -high], [high, -low])
    outside = lambda x: torch.maximum(x - high, low - x).clamp(min=0)[:, 0]
    levels = torch.cat([torch.logspace(1.5, -2, 60, dtype=torch.float64), torch.zeros(1)])
    x = 30*t.normal(9, 1)
    path, reach, begin = [outside(x)], [], outside(x)
    for a, b in zip(levels, levels[1:]):
        c, u = boxes(x, a, 0), boxes(x, a)
        e_c = size*torch.ones_like(x)
        reach.append(((s - 1)*(c - u).abs() + s*e_c)[:, 0])
        x = b/a*x + (1 - b/a)*(u + s*(c - u) + s*e_c)
        path.append(outside(x))
    reach = torch.stack(reach)
    yield torch.stack(path), support_bound(begin, levels, reach), support_bound(begin, levels, reach/2)


@row('eq-guar-scale', cell='bff949eb', mutant='divided by the length, not its square', tolerance=1e-9)
def projection(t):
    "Pythagoras for any predictions and any target, in any dimension, sample by sample and pooled."
    n, s = t.whole('dimensions', 1, 30), t.number('s', -3, 8)
    u, c, goal = t.normal(3, 20, n)
    d = c - u
    off = lambda scale: (u + scale*d - goal).square().sum(1)
    size = d.square().sum(1)
    found, wrong = least_squares_scale(u, c, goal, pooled=False), (d*(goal - u)).sum(1)/size.sqrt()
    right = lambda best: off(best[:, None]) + (s - best)**2*size
    yield off(s), right(found), right(wrong)
    pooled, total = least_squares_scale(u, c, goal), size.sum()
    rest = lambda best: off(best).sum() + (s - best)**2*total
    yield off(s).sum(), rest(pooled), rest(pooled*total.sqrt())


@row('eq-guar-one', cell='bff949eb', mutant='plus for minus', tolerance=.02, samples=40_000)
def on_data(t):
    "On noisy data of the class the best scale is 1 less the part of the strong branch's error along d, whatever the weak branch."
    world, sigma, a = t.world(2), t.number('sigma', .5, 1.5), t.number('share', .3, .6)
    clean = world.sample(torch.zeros(40_000, dtype=torch.long), 0., t.generator)
    x = clean + sigma*t.normal(40_000, 2)
    exact, weak = world(x, sigma, 0), .8*world(x, sigma) + .5
    strong = exact + a*(weak - exact)
    d = strong - weak
    part = (d*(strong - exact)).sum()/d.square().sum()
    yield least_squares_scale(weak, strong, clean), 1 - part, 1 + part
