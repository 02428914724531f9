"Chapter 1: the paper, in its own coordinates."
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cfg_course.classifiers import classifier_guidance
from cfg_course.core import NULL
from cfg_course.guidance import guide
from cfg_course.mixtures import Mixture, transport
from cfg_course.samplers import Now, ddpm_step
from cfg_course.schedules import cosine_logsnr
from cfg_course.scores import FROM_X0, logsnr_to_sigma, x_to_z, z_to_x
from cfg_course.training import drop_labels
from ledger import Trial, row
from ledger.mixtures import drop_constant, gaussians, gradient, stretched


DRAWS = 200_000 # of dropped labels


def levels(
    lam:float, # log signal-to-noise ratio
)->tuple[float, float]: # alpha and sigma
    "The paper's noise level, with alpha^2 + sigma^2 = 1."
    return (1 + math.exp(-lam))**-.5, (1 + math.exp(lam))**-.5


def level_here(
    lam:float, # log signal-to-noise ratio
)->float: # noise level
    "The library's noise level of the same picture."
    return logsnr_to_sigma(torch.tensor(lam, dtype=torch.float64)).item()


class Shrunk(NamedTuple):
    "Noisy samples of a world as the paper writes them, and both sides' view of them."
    world:Mixture
    lam:float # log signal-to-noise ratio
    c:int # class
    z:Tensor # `(B, d)`

    def log_p(self,
        z:Tensor, # `(B, d)`
        c:int=NULL, # class
    )->Tensor: # `(B,)`
        "Log density of the shrunk noisy samples, by torch.distributions."
        alpha, sigma = levels(self.lam)
        shrunk = Mixture(alpha*self.world.means, alpha**2*self.world.covs(), self.world.weights, self.world.labels)
        return gaussians(shrunk, sigma, c).log_prob(z)

    def log_class(self,
        z:Tensor, # `(B, d)`
    )->Tensor: # `(B,)`
        "Log probability of the class, by Bayes' rule."
        prior = self.world.weights[self.world.labels == self.c].sum()
        return prior.log() + self.log_p(z, self.c) - self.log_p(z)

    def eps_star(self,
        c:int=NULL, # class
    )->Tensor: # `(B, d)`
        "The exact noise by its definition, -sigma times the score."
        return -levels(self.lam)[1]*gradient(lambda z: self.log_p(z, c), self.z)

    def eps(self,
        denoise, # any denoiser of the library
        c:int, # class
    )->Tensor: # `(B, d)`
        "The noise that a denoiser of the library predicts."
        x, sigma = self.z/levels(self.lam)[0], level_here(self.lam)
        return FROM_X0['eps'](denoise(x, sigma, torch.full((len(x),), c)), x, sigma)


def shrunk(
    t:Trial, # source of randomness
    dim:int=2, # coordinates
)->Shrunk:
    "Classes with full covariances, unequal frequencies and two modes each."
    world, lam = stretched(t, dim=dim), t.number('lambda', -6, 5)
    return Shrunk(world, lam, t.whole('class', 0, world.classes - 1), 2*t.normal(30, dim))


def two_levels(
    t:Trial, # source of randomness
)->tuple[float, float]: # lambda < lambda'
    "A noisy level and a less noisy one."
    low = t.number('lambda', -8, 5)
    return low, low + t.number('rise', .05, 6)


@row('eq-paper-temperature', cell='5349913e', mutant='the exponent is gamma', tolerance=1e-8)
def temperature(t):
    "Variance of what the flow with gamma times the score makes of Gaussian data, by an ODE solver."
    tau, gamma, high = t.number('tau', .2, 3), t.number('gamma', .3, 2), t.number('sigma_max', 5, 100)
    data, start = Mixture([[0.]], tau**2), torch.tensor([[1e6]], dtype=torch.float64)
    end = transport(lambda x, sigma, y: x + gamma*(data(x, sigma) - x), start, high, 0.)
    variance = (end/start)**2*(tau**2 + high**2)
    rest = math.log(tau**2/(tau**2 + high**2))
    yield variance.log().item() - math.log(tau**2), (gamma - 1)*rest, gamma*rest


@row('eq-paper-classifier', cell='ccc46bdf', mutant='the weight is 1 + w', tolerance=1e-11)
def classifier(t):
    "Classifier guidance of the conditional model: by the library, as noise, and as -sigma times a gradient."
    seen, w = shrunk(t), t.number('w', -2, 8)
    alpha, sigma = levels(seen.lam)
    logits = lambda x, sigma: seen.world.posterior(x, sigma).log()
    guided = seen.eps(classifier_guidance(seen.world, logits, w=w, on='conditional'), seen.c)
    noise = lambda w: seen.eps_star(seen.c) - w*sigma*gradient(seen.log_class, seen.z)
    bracket = lambda w: -sigma*gradient(lambda z: seen.log_p(z, seen.c) + w*seen.log_class(z), seen.z)
    for formula in noise, bracket: yield guided, formula(w), formula(1 + w)


@row('eq-paper-shift', cell='ccc46bdf', mutant='w on both models', tolerance=1e-11)
def shift(t):
    "The same target, up to a factor, from the conditional model with w and from the unconditional one with w + 1."
    seen, w = shrunk(t), t.number('w', -2, 8)
    x, sigma = seen.z/levels(seen.lam)[0], level_here(seen.lam)
    left = seen.world.log_prob(x, sigma, seen.c) + w*seen.world.posterior(x, sigma)[:, seen.c].log()
    right = lambda w: drop_constant(seen.log_p(seen.z) + w*seen.log_class(seen.z))
    yield drop_constant(left), right(w + 1), right(w)


@row('eq-paper-forward', cell='2714eb8b', mutant='sigma is that of the other level', tolerance=1e-12)
def forward(t):
    "A clean image with noise, and one with more noise, of the library, as the paper's transitions; lambda < lambda'."
    low, high = two_levels(t)
    (a, s), (a_high, s_high) = levels(low), levels(high)
    noisy, clear = (torch.tensor(level_here(lam), dtype=torch.float64) for lam in (low, high))
    x, z_high, n = t.normal(3, 20, 2)
    yield x_to_z(x + noisy*n, noisy), a*x + s*n, a*x + s_high*n
    added = (noisy**2 - clear**2).sqrt()
    transition = lambda s: a/a_high*z_high + (-math.expm1(low - high))**.5*s*n
    yield x_to_z(z_to_x(z_high, clear) + added*n, noisy), transition(s), transition(s_high)


@row('eq-paper-posterior', cell='0c2ea955', tolerance=1e-11, mutant="alpha and sigma of lambda' are those of lambda")
def posterior(t):
    "For lambda < lambda' the reverse transition given the image, by a step of the library and by conditioning."
    low, high = two_levels(t)
    x, z = t.normal(2, 20, 2)
    (a, s), (a_high, s_high), keep = levels(low), levels(high), math.exp(low - high)
    mean = lambda a_high: keep*a_high/a*z + (1 - keep)*a_high*x
    std = lambda s_high: (1 - keep)**.5*s_high
    told = lambda n: step_in_z(lambda *seen: x, z, low, high, 0, n)
    yield told(0*x), mean(a_high), mean(a)
    yield told(0*x + 1) - told(0*x), 0*x + std(s_high), 0*x + std(s)
    scale, added = a/a_high, (1 - keep)*s**2
    gain = scale*s_high**2/(scale**2*s_high**2 + added)
    yield a_high*x + gain*(z - a*x), mean(a_high), mean(a)
    yield (s_high**2 - gain*scale*s_high**2)**.5, std(s_high), std(s)


def step_in_z(
    denoise, # denoiser of the library
    z:Tensor, # `(B, d)` at `low`
    low:float, # log signal-to-noise ratio
    high:float, # that of the next level
    v:float, # interpolation of the variance
    n:Tensor, # `(B, d)` noise
    c:int=NULL, # class
)->Tensor: # `(B, d)` at `high`
    "A step of the library's sampler between the paper's coordinates."
    now = Now(z/levels(low)[0], level_here(low), level_here(high), torch.full((len(z),), c), lambda: n)
    return levels(high)[0]*ddpm_step(denoise, now, v=v).x


@row('eq-paper-reverse', cell='9ac9a639', mutant='v and 1 - v are swapped', tolerance=1e-11)
def reverse(t):
    "For lambda < lambda' and v from 0 to 1 a step of the library has the paper's mean and its interpolated variance."
    low, high = two_levels(t)
    world, v, z, n = stretched(t), t.number('v', 0, 1), *t.normal(2, 20, 2)
    (a, s), (a_high, s_high), keep = levels(low), levels(high), math.exp(low - high)
    mean = keep*a_high/a*z + (1 - keep)*a_high*world(z/a, level_here(low))
    std = lambda v: (((1 - keep)*s_high**2)**(1 - v)*((1 - keep)*s**2)**v)**.5
    yield step_in_z(world, z, low, high, v, n), mean + std(v)*n, mean + std(1 - v)*n


@row('eq-paper-schedule', cell='8bf8c411', mutant='the factor 2 of lambda is lost', tolerance=1e-10)
def schedule(t):
    "The library's schedule between any two ends, and the density of its levels, by their slope and by counting."
    least, most = t.number('lambda_min', -20, -1), t.number('lambda_max', 1, 20)
    b = math.atan(math.exp(-most/2))
    a = math.atan(math.exp(-least/2)) - b
    u = t.uniform(50).clamp(1e-3, 1 - 1e-3).sort().values
    lam = -2*torch.tan(a*u + b).log()
    ours = lambda u: cosine_logsnr(u, least, most)
    yield ours(u), lam, lam/2
    p = lambda lam: 1/(4*a*torch.cosh(lam/2))
    yield 1/gradient(ours, u).abs(), p(lam), 2*p(lam)
    nodes, shares = map(torch.from_numpy, np.polynomial.legendre.leggauss(200))
    mass = (lam[0] - lam[-1])/2*shares@p(lam[-1] + (nodes + 1)/2*(lam[0] - lam[-1]))
    yield u[-1] - u[0], mass, 2*mass


@row('eq-paper-loss', cell='0f55fbc0', mutant='p_uncond and 1 - p_uncond swapped', tolerance=4/DRAWS**.5, samples=DRAWS)
def loss(t):
    "The loss with labels dropped by the library, independently of all else, is split; in units of its deviation."
    p, N = t.number('p_uncond', .02, .4), DRAWS
    y, z, noise = t.labels(N, 3), *t.normal(2, N)
    slope, offset = t.normal(2, 4) # of each class, and of no label, which is the last
    squared = lambda label: ((slope[label] + 1)*z + offset[label] + 2*(label == NULL) - noise)**2
    shown = squared(drop_labels(y, p, t.generator)).mean()
    own, none = squared(y), squared(torch.full_like(y, NULL))
    unit = ((p*(1 - p))*(none - own).square().mean()).sqrt()
    split = lambda p: (1 - p)*own.mean() + p*none.mean()
    yield (shown - own.mean())/unit, (split(p) - own.mean())/unit, (split(1 - p) - own.mean())/unit


@row('eq-paper-mix', cell='9d8fcddf', mutant='w times the unconditional noise is added', tolerance=1e-11)
def mix(t):
    "The noise of the library's guided denoiser is 1 + w times the conditional noise minus w times the other."
    seen, w = shrunk(t), t.number('w', -2, 8)
    eps_c, eps_u = seen.eps_star(seen.c), seen.eps_star()
    yield seen.eps(guide(seen.world, w=w), seen.c), (1 + w)*eps_c - w*eps_u, (1 + w)*eps_c + w*eps_u


@row('eq-paper-implicit', cell='9d8fcddf', mutant='the sign', tolerance=1e-11)
def implicit(t):
    "The gradient of log p(z|c)/p(z) is the difference of the two exact noises over -sigma."
    seen = shrunk(t)
    slope = gradient(lambda z: seen.log_p(z, seen.c) - seen.log_p(z), seen.z)
    right = -(seen.eps(seen.world, seen.c) - seen.eps(seen.world, NULL))/levels(seen.lam)[1]
    yield slope, right, -right


@row('eq-paper-step', cell='8c5ed254', mutant='the scale is w', tolerance=1e-11)
def step(t):
    "For lambda < lambda' a guided step of the library is one of the paper's algorithm 2, with the same noise."
    seen, w, v = shrunk(t), t.number('w', -2, 8), t.number('v', 0, 1)
    low, high, n = seen.lam, seen.lam + t.number('rise', .05, 6), t.normal(30, 2)
    (a, s), (a_high, s_high), keep = levels(low), levels(high), math.exp(low - high)
    eps_c, eps_u = seen.eps_star(seen.c), seen.eps_star()
    std = (((1 - keep)*s_high**2)**(1 - v)*((1 - keep)*s**2)**v)**.5
    def after(w):
        clean = (seen.z - s*((1 + w)*eps_c - w*eps_u))/a
        return keep*a_high/a*seen.z + (1 - keep)*a_high*clean + std*n
    found = step_in_z(guide(seen.world, w=w), seen.z, low, high, v, n, seen.c)
    yield found/a_high, after(w)/a_high, after(w - 1)/a_high


@row('eq-paper-slips', cell='57b0cb8e', mutant='one sign of each version', tolerance=1e-11)
def slips(t):
    "The rule and the gradient, both with the upper signs or both with the lower ones, give the library's guided noise."
    seen, w = shrunk(t), t.number('w', .1, 8)
    sigma = levels(seen.lam)[1]
    eps_c, eps_u = seen.eps_star(seen.c), seen.eps_star()
    def version(rule, slope):
        gradient = slope/sigma*(eps_c - eps_u)
        return eps_c + rule*w*sigma*gradient
    ours = seen.eps(guide(seen.world, w=w), seen.c)
    for sign in -1, 1: yield ours, version(sign, sign), version(sign, -sign)


@row('eq-paper-curl', cell='65d54031', mutant='a minus sign', tolerance=1e-10)
def curl(t):
    "The Jacobian of a gradient, here that of the library's exact guided noise, is symmetric."
    seen, w = shrunk(t, dim=3), t.number('w', -2, 8)
    def field(z):
        x, sigma = z/levels(seen.lam)[0], level_here(seen.lam)
        return FROM_X0['eps'](guide(seen.world, w=w)(x, sigma, torch.full((len(x),), seen.c)), x, sigma)
    J = torch.autograd.functional.jacobian(lambda z: field(z).sum(0), seen.z).movedim(1, 0)
    yield J, J.mT, -J.mT


@row('eq-paper-sum', cell='be4c908e', mutant='frequencies of the classes for their probabilities at z', tolerance=1e-11)
def summed(t):
    "The unconditional noise is the mean of the conditional ones under the class posterior at z."
    seen = shrunk(t)
    classes = range(seen.world.classes)
    each = torch.stack([seen.eps(seen.world, k) for k in classes], 1)
    posterior = torch.stack([seen._replace(c=k).log_class(seen.z).exp() for k in classes], 1)
    frequencies = torch.stack([seen.world.weights[seen.world.labels == k].sum() for k in classes])
    yield seen.eps(seen.world, NULL), (posterior[..., None]*each).sum(1), (frequencies[:, None]*each).sum(1)
