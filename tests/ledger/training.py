"Chapter 15: training."
from contextlib import contextmanager

import torch
from torch import nn

from cfg_course.core import NULL
from cfg_course.denoisers import PRECONDS
from cfg_course.scores import expand
from cfg_course.training import Batch, PowerAverage, denoising_loss, power_gamma
from cfg_course.training import distillation, guidance_free, model_guidance
from ledger import row


class Tiny(nn.Module):
    "A denoiser with a few weights, which remembers the scales that it was told."
    def __init__(self, t, classes):
        super().__init__()
        self.weights = nn.Parameter(t.normal(classes + 1, 3))
        self.told = []

    def forward(self, x, sigma, y, scale=0.):
        self.told.append(scale)
        a, b, c = (expand(w, x) for w in self.weights[y].unbind(1))
        return a*(x/expand(1 + sigma, x)).tanh() + b + c*expand(scale, x)


def setting(t, n=8):
    "A tiny denoiser, a batch in which two labels are missing, and an output scaling for each sample."
    classes = t.whole('classes', 2, 5)
    y = torch.cat([t.labels(n - 2, classes), torch.full((2,), NULL)])
    sigma = t.normal(n).exp()
    kind = t.one_of('preconditioning', list(PRECONDS))
    c_out = PRECONDS[kind](sigma, t.number('sigma_data', .2, 2))[1]
    return Tiny(t, classes), Batch(t.normal(n, 1, 3, 2), y, sigma, t.normal(n, 1, 3, 2)), c_out


@contextmanager
def drawn_by(t):
    "Torch's own stream, from which objectives draw, as a function of the trial; as it was afterwards."
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(t.random.randrange(2**31))
        yield


def norm(error, c_out, power=2):
    "What the formulas of the losses have in common: samples one by one, the mean over pixels for their sum."
    each = [(e**2).sum()/c**power/e.numel() for e, c in zip(error, c_out)]
    return sum(each)/len(each)


def slopes(loss, D):
    "The gradient of a loss in the weights, of length one."
    g, = torch.autograd.grad(loss, D.weights)
    return g/g.norm()


@row('eq-loss', cell='8bfc90db', mutant='c_out is not squared', tolerance=1e-12)
def loss(t):
    "The loss is the squared error of the denoiser over c_out^2; the mean over pixels stands for the sum."
    D, batch, c_out = setting(t)
    x0, y, sigma, n = batch
    error = D(x0 + expand(sigma, x0)*n, sigma, y) - x0
    yield denoising_loss(D, batch, c_out), norm(error, c_out), norm(error, c_out.abs(), 1)


@row('eq-ema', cell='e4bf9572', mutant='gamma for gamma + 1', tolerance=1e-10)
def ema(t):
    "The average follows the recursion from step 1 on, and weighs step t by 1 - beta_t and all later betas."
    width, steps = t.number('width', .005, .28), t.whole('steps', 5, 60)
    gamma, thetas, model = power_gamma(width), t.normal(steps, 4), nn.Linear(4, 1, bias=False).double()
    kept = PowerAverage(model, width)
    for step, theta in enumerate(thetas, 1):
        model.weight.data = theta[None].clone()
        kept.update(step)
    def recursion(power):
        mean = torch.zeros(4, dtype=torch.float64)
        for step, theta in enumerate(thetas, 1):
            beta = (1 - 1/step)**power
            mean = beta*mean + (1 - beta)*theta
        return mean
    def weighted(power):
        beta = (1 - 1/torch.arange(1, steps + 1, dtype=torch.float64))**power
        later = torch.cat([beta.flip(0).cumprod(0).flip(0)[1:], torch.ones(1)])
        return ((1 - beta)*later)@thetas
    yield kept.mean[0][0], recursion(gamma + 1), recursion(gamma)
    yield kept.mean[0][0], weighted(gamma + 1), weighted(gamma)


@row('eq-train-distil', cell='5d8e21b7', mutant='the weight for the scale: D_c + s (D_c - D_u)', tolerance=1e-12)
def distil(t):
    "Distillation is the loss of a student that is told a scale, drawn for each sample, against the guided teacher."
    g, batch, c_out = setting(t)
    teacher, low = Tiny(t, len(g.weights) - 1), t.number('lowest scale', -1, 1)
    high = low + t.number('range', .5, 5)
    with drawn_by(t): code = distillation(teacher, low, high)(g, batch, c_out)
    s, = g.told
    assert len(s.unique()) == len(s) and low <= s.min() and s.max() <= high
    def right(base):
        D_c, D_u = teacher(batch.x, batch.sigma, batch.y), teacher(batch.x, batch.sigma, torch.full_like(batch.y, NULL))
        start = D_u if base == 'u' else D_c
        target = (start + expand(s, D_u)*(D_c - D_u)).detach()
        return norm(g(batch.x, batch.sigma, batch.y, s) - target, c_out)
    yield code, right('u'), right('c')
    yield slopes(code, g), slopes(right('u'), g), slopes(right('c'), g)


@row('eq-train-mg', cell='5d8e21b7', mutant='w_MG for w_MG - 1; a gradient through the difference', tolerance=1e-12)
def mg(t):
    "Model guidance moves the target by w_MG - 1 times the network's own difference, through which no gradient goes."
    D, batch, c_out = setting(t)
    w = t.number('w_MG', .05, 1.95)
    code = model_guidance(w)(D, batch, c_out)
    def right(w, stop=True):
        D_c, D_u = D(batch.x, batch.sigma, batch.y), D(batch.x, batch.sigma, torch.full_like(batch.y, NULL))
        gap = (D_c - D_u).detach() if stop else D_c - D_u
        return norm(D_c - (batch.x0 + (w - 1)*gap), c_out)
    yield code, right(w), right(w + 1)
    yield slopes(code, D), slopes(right(w), D), slopes(right(w, stop=False), D)


@row('eq-train-gft', cell='5d8e21b7', tolerance=1e-12,
     mutant='beta and 1 - beta change places; a gradient through g without label')
def gft(t):
    "Guidance-free training mixes g told 1/beta with g without label, through which no gradient goes; beta is 1 there."
    g, batch, c_out = setting(t)
    low = t.number('lowest beta', 0, .6)
    with drawn_by(t): code = guidance_free(low, 1.)(g, batch, c_out)
    told_u, s = g.told
    beta = 1/s
    assert told_u == 1 and low <= beta.min() and (beta[batch.y == NULL] == 1).all()
    def right(beta, stop=True):
        own, without = g(batch.x, batch.sigma, batch.y, s), g(batch.x, batch.sigma, torch.full_like(batch.y, NULL), 1.)
        without = without.detach() if stop else without
        mixed = expand(beta, own)*own + (1 - expand(beta, own))*without
        return norm(mixed - batch.x0, c_out)
    yield code, right(beta), right(1 - beta)
    yield slopes(code, g), slopes(right(beta), g), slopes(right(beta, stop=False), g)
