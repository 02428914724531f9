"Chapter 3: an exact world."
import numpy as np
import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal, Normal

from cfg_course.core import NULL
from cfg_course.mixtures import Boxes, Mixture, Pair, belongs, mesh, tilt, tilt_on, transport
from ledger import Trial, row


def eye(
    dim:int, # coordinates
)->Tensor: # `(dim, dim)` float64
    "The unit matrix; in single precision, as torch has it, it would round what it is multiplied with."
    return torch.eye(dim, dtype=torch.float64)


def covariances(
    t:Trial, # source of randomness
    n:int, # how many
    dim:int, # coordinates
)->Tensor: # `(n, dim, dim)`, with axes in any direction
    "Covariances, no two alike."
    root = t.normal(n, dim, dim)
    return root@root.mT/dim + .1*eye(dim)


def stretched(
    t:Trial, # source of randomness
    dim:int=2, # coordinates
    modes:int=2, # of a class
)->Mixture: # with unequal weights and full covariances
    "A mixture with two to four classes, none of whose parts is round."
    world = t.world(dim, modes)
    return Mixture(world.means, covariances(t, len(world.weights), dim), world.weights, world.labels)


def gaussians(
    world:Mixture, # any
    sigma:float, # noise level
    y:int=NULL, # class
)->MixtureSameFamily: # by torch.distributions
    "The blurred class, by other people's arithmetic."
    own = belongs(world.labels, y)
    covs = world.covs()[own] + sigma**2*eye(world.dim)
    return MixtureSameFamily(Categorical(world.weights[own]), MultivariateNormal(world.means[own], covs))


def gradient(
    f, # function of `(B, d)`, a number for each row
    x:Tensor, # `(B, d)`
)->Tensor: # `(B, d)`
    "Slopes by automatic differentiation."
    x = x.clone().requires_grad_()
    return torch.autograd.grad(f(x).sum(), x)[0]


def drop_constant(
    logs:Tensor, # logs of a density that is known up to a factor
)->Tensor: # same shape, the largest is 0
    "What remains of logs when a constant does not count."
    return logs - logs.max()


@row('eq-world', cell='ecbae5b6', mutant='the sums in the denominators are over all parts', tolerance=1e-12)
def world(t):
    "Log density and score of a class of Gaussians, with any covariances and weights, from those of its parts."
    w, sigma = stretched(t, dim=3), t.number('sigma', .05, 5)
    c = t.whole('class', 0, w.classes - 1)
    x, own = 2*t.normal(50, 3), w.labels == c
    covs = w.covs() + sigma**2*eye(3)
    joint = w.weights*MultivariateNormal(w.means, covs).log_prob(x[:, None]).exp()
    slopes = torch.linalg.solve(covs, (w.means - x[:, None])[..., None])[..., 0]
    score = lambda denominator: torch.einsum('bk,bkd->bd', joint[:, own]/denominator[:, None], slopes[:, own])
    of_class = joint[:, own].sum(1)
    yield w.log_prob(x, sigma, c), (of_class/w.weights[own].sum()).log(), (of_class/w.weights.sum()).log()
    yield w.score(x, sigma, c), score(of_class), score(joint.sum(1))


@row('eq-part', cell='9d305065', mutant='the noise adds sigma to every eigenvalue', tolerance=1e-11)
def part(t):
    "Log density and score of a blurred Gaussian of any covariance, along its axes; also as of torch.distributions."
    dim, sigma = t.whole('dim', 2, 6), t.number('sigma', .02, 20)
    C, mu = covariances(t, 1, dim), t.normal(dim)
    x = mu + 2*sigma*t.normal(50, dim)
    eigs, U = torch.linalg.eigh(C[0])
    def formula(noise):
        rho, total = (x - mu)@U, eigs + noise
        return -(rho**2/total + (2*torch.pi*total).log()).sum(1)/2, -(rho/total)@U.mT
    one, theirs = Mixture(mu[None], C), MultivariateNormal(mu, C[0] + sigma**2*eye(dim))
    (log_q, score), (wrong_log_q, wrong_score) = formula(sigma**2), formula(sigma)
    yield one.log_prob(x, sigma), log_q, wrong_log_q
    yield one.score(x, sigma), score, wrong_score
    yield theirs.log_prob(x), log_q, wrong_log_q
    yield gradient(theirs.log_prob, x), score, wrong_score


@row('eq-box', cell='3bbf58d2', tolerance=1e-10, mutant='b - a of the density, or sigma of the score, is left out')
def box(t):
    "Log density and score of a blurred box, up to 20 noise levels away on either side, as an integral of bells."
    a, width, sigma = t.number('a', -3, 3), t.number('width', .1, 4), t.number('sigma', .05, 3)
    b = a + width
    x = a - 20*sigma + (width/2 + 20*sigma)*t.uniform(100, 1) # on the left, where no digits are lost
    u, v = (x - a)/sigma, (x - b)/sigma
    phi = lambda z: (-z**2/2).exp()/(2*torch.pi)**.5
    Phi = lambda z: torch.special.erfc(-z/2**.5)/2 # ndtr loses digits where it is small
    mass = Phi(u) - Phi(v)
    log_q, slope = (mass/width).log()[:, 0], (phi(u) - phi(v))/mass
    one, mirrored = Boxes([a], [b]), a + b - x
    nodes, shares = map(torch.from_numpy, np.polynomial.legendre.leggauss(200))
    bells = Normal(x, sigma).log_prob(a + width*(nodes + 1)/2).exp()@shares/2
    for log_density in one.log_prob(x, sigma), one.log_prob(mirrored, sigma), bells.log():
        yield log_density, log_q, mass.log()[:, 0]
    for score in one.score(x, sigma), -one.score(mirrored, sigma):
        yield score, slope/sigma, slope


@row('eq-tilt', cell='0ae6ddd6', mutant='the exponent of p(x) is s - 1', tolerance=1e-10)
def tilted(t):
    "The tilted density up to a factor, where it can be normalised: on a grid, and in closed form for Gaussian parts."
    w, s, sigma = t.world(dim=1), t.number('s', 0, 6), t.number('sigma', 0, 1)
    c, whole = t.whole('class', 0, w.classes - 1), t.whole('whole s', 2, 4)
    form = lambda s, log_c, log_u, rest: drop_constant(s*log_c + rest*log_u)
    grid = tilt_on(mesh(-30, 30, 3001), w, s, c, sigma)
    log_c, log_u = (gaussians(w, sigma, y).log_prob(grid.means) for y in (c, NULL))
    for right in drop_constant(log_u + s*w.posterior(grid.means, sigma)[:, c].log()), form(s, log_c, log_u, 1 - s):
        yield drop_constant(grid.weights.log()), right, form(s, log_c, log_u, s - 1)
    C, x = covariances(t, 4, 3), t.normal(50, 3)
    wide = Mixture(t.normal(1, 3), C.sum(0, keepdim=True))
    narrow = Mixture(t.normal(1, 3), C[:1])
    several = Mixture(t.normal(3, 3), C[:3], [.5, .2, .3], [0, 0, 0])
    for strong, scale in (narrow, s), (several, whole):
        log_c, log_u = (gaussians(o, 0.).log_prob(x) for o in (strong, wide))
        found = drop_constant(tilt(Pair(strong, wide), scale).log_prob(x))
        yield found, form(scale, log_c, log_u, 1 - scale), form(scale, log_c, log_u, scale - 1)


@row('eq-product', cell='0ae6ddd6', mutant='h has the precisions without their exponents', tolerance=1e-10)
def of_powers(t):
    "A product of real powers of Gaussians is a Gaussian up to a factor, where P is positive definite."
    dim = t.whole('dim', 1, 4)
    C, mu, x = covariances(t, 3, dim), t.normal(3, dim), t.normal(50, dim)
    C[2] = C[0] + C[2] # the first is narrower, which makes up for a negative exponent of the last
    def gaussian(e, mean, cov):
        inverses, e = torch.linalg.inv(cov), torch.tensor(e, dtype=torch.float64)
        P = torch.einsum('k,kde->de', e, inverses)
        h, wrong = torch.einsum('k,kde,ke->d', e, inverses, mean), torch.einsum('kde,ke->d', inverses, mean)
        return P.inverse(), P.inverse()@h, P.inverse()@wrong
    e = [1 + t.number('e_1', 0, 2), t.number('e_2', 0, 3), -t.number('-e_3', 0, 1)]
    cov, mean, wrong = gaussian(e, mu, C)
    powers = sum(power*MultivariateNormal(mu[k], C[k]).log_prob(x) for k, power in enumerate(e))
    one = lambda mean: drop_constant(MultivariateNormal(mean, (cov + cov.mT)/2).log_prob(x))
    yield drop_constant(powers), one(mean), one(wrong)
    s = t.number('s', 0, 6)
    cov, mean, wrong = gaussian([s, 1 - s], mu[[0, 2]], C[[0, 2]])
    found = tilt(Pair(Mixture(mu[:1], C[:1]), Mixture(mu[2:], C[2:])), s)
    yield found.means[0], mean, wrong
    yield found.covs()[0], cov, cov.inverse()


@row('eq-rank', cell='629bf5f8', mutant='F is at the starting noise level on both sides', tolerance=1e-8)
def rank(t):
    "The flow on a line keeps the share of a class to the left of a sample, for data without atoms; by an ODE solver."
    w, high, low = t.world(dim=1), t.number('sigma', 1, 20), t.one_of('to', [0., .05, .7])
    c = t.whole('class', 0, w.classes - 1)
    own = w.labels == c
    shares = w.weights[own]/w.weights[own].sum()
    def F(x, sigma): return torch.special.ndtr((x - w.means[own, 0])/(w.eigs[own, 0] + sigma**2).sqrt())@shares
    start = (3 + high)*(t.uniform(20, 1) - .5)*5
    end = transport(w, start, high, low, c)
    yield F(end, low), F(start, high), F(start, low)
