"Chapter 14: samplers."
import math

import torch

from cfg_course.core import NULL
from cfg_course.mixtures import Mixture, transport
from cfg_course.samplers import Now, Step, ddim_step, ddpm_step, dpmpp_step, heun_step
from ledger import row


def questions(t, n=30, dim=2):
    "A world, samples, labels with some missing, and two noise levels: what a step is told."
    world = t.world(dim)
    sigma = t.number('sigma', .1, 20)
    sigma_next = sigma*t.number('r', .05, .95)
    y = torch.where(torch.arange(n) % 4 == 0, NULL, t.labels(n, world.classes))
    return world, (1 + sigma)*t.normal(n, dim), y, sigma, sigma_next


@row('eq-ode', cell='0d131ebd', mutant='sigma^2 for sigma', tolerance=1e-10)
def ode(t):
    "The density of samples that move by dx/dsigma = (x - D)/sigma changes as p_sigma does, of a class or of all."
    dim = t.whole('dim', 1, 4)
    world, x, y, level, _ = questions(t, dim=dim)
    x, sigma = x.requires_grad_(), torch.full((len(x),), level, dtype=torch.float64, requires_grad=True)
    log_p = world.log_prob(x, sigma, y)
    change, score = torch.autograd.grad(log_p.sum(), (sigma, x), create_graph=True)
    def carried(flow):
        rows = [torch.autograd.grad(flow[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(dim)]
        return -sum(rows) - (flow*score).sum(1)
    away = x - world(x, sigma, y)
    yield change, carried(away/sigma[:, None]), carried(away/sigma[:, None]**2)


@row('eq-gauss', cell='0d131ebd', mutant='tau for its square', tolerance=1e-7)
def gauss(t):
    "Gaussian data of mean mu and standard deviation tau have a linear denoiser, and a path in closed form, up or down."
    dim, tau = t.whole('dim', 1, 3), t.number('tau', .1, 2)
    start, end = t.number('sigma_1', .05, 50), t.number('sigma', .05, 50)
    mu, x = 2*t.normal(dim), 3*t.normal(4, dim)
    world = Mixture(mu[None], tau**2)
    def D(sigma, v): return (v*x + sigma**2*mu)/(v + sigma**2)
    def path(v): return mu + (x - mu)*((v + end**2)/(v + start**2))**.5
    yield world(x, start), D(start, tau**2), D(start, tau)
    yield transport(world, x, start, end, tol=1e-8), path(tau**2), path(tau)


@row('eq-ddim', cell='0ed58fad', mutant='r^2 for r', tolerance=1e-12)
def ddim(t):
    "A step of DDIM is D + r (x - D) with r = sigma'/sigma, and Euler's step of the probability flow."
    world, x, y, sigma, sigma_next = questions(t)
    D, r = world(x, sigma, y), sigma_next/sigma
    step = ddim_step(world, Now(x, sigma, sigma_next, y)).x
    yield step, D + r*(x - D), D + r**2*(x - D)
    yield step, x + (sigma_next - sigma)*(x - D)/sigma, x + (r*sigma_next - sigma)*(x - D)/sigma


@row('eq-heun', cell='01bb02e0', mutant='the churned level is forgotten: sigma for its hat', tolerance=1e-12)
def heun(t):
    "Heun's step with churn averages the slopes at both ends of a step from the raised level; to 0 it is Euler's."
    world, x, y, sigma, sigma_next = questions(t)
    gamma, S_noise, n = t.number('gamma', .02, 1), t.number('S_noise', .9, 1.1), t.normal(*x.shape)
    hat = (1 + gamma)*sigma
    x_hat = x + math.sqrt(hat**2 - sigma**2)*S_noise*n
    def d(x, sigma): return (x - world(x, sigma, y))/sigma
    def right(at):
        x_tilde = x_hat + (sigma_next - at)*d(x_hat, at)
        return x_hat + (sigma_next - at)*(d(x_hat, at) + d(x_tilde, sigma_next))/2
    def code(end): return heun_step(world, Now(x, sigma, end, y, lambda: n), gamma=gamma, S_noise=S_noise).x
    yield code(sigma_next), right(hat), right(sigma)
    yield code(0.), x_hat - hat*d(x_hat, hat), x_hat - sigma*d(x_hat, sigma)


@row('eq-dpmpp', cell='5e8a22dc', mutant='h/h_ for h/2h_', tolerance=1e-12)
def dpmpp(t):
    "A step of DPM-Solver++(2M) after another one, to sigma' > 0, takes the prediction in the middle of the step."
    world, x, y, sigma, sigma_next = questions(t)
    before, D_ = sigma*t.number('sigma_-/sigma', 1.05, 4), t.normal(*x.shape)
    prev = Step(x, D_, before, sigma)
    D, r, h, h_ = world(x, sigma, y), sigma_next/sigma, math.log(sigma/sigma_next), math.log(before/sigma)
    def right(part): return r*x + (1 - r)*(D + part*(D - D_))
    yield dpmpp_step(world, Now(x, sigma, sigma_next, y, prev=prev)).x, right(h/(2*h_)), right(h/h_)


@row('eq-ddpm', cell='556413cf', mutant='v and 1 - v change places', tolerance=1e-10)
def ddpm(t):
    "The ancestral step to sigma' > 0, for every v in [0, 1], also as the paper writes it, in z = alpha x."
    world, x, y, sigma, sigma_next = questions(t)
    v, n = t.number('v', 0, 1), t.normal(*x.shape)
    D, r = world(x, sigma, y), sigma_next/sigma
    def V(v): return (1 - r**2)*(sigma_next**2)**(1 - v)*(sigma**2*(1 + sigma_next**2)/(1 + sigma**2))**v
    def right(v): return r**2*x + (1 - r**2)*D + math.sqrt(V(v))*n
    code = ddpm_step(world, Now(x, sigma, sigma_next, y, lambda: n), v=v).x
    yield code, right(v), right(1 - v)
    alpha2, alpha2_next = 1/(1 + sigma**2), 1/(1 + sigma_next**2)
    shrink = math.exp(-2*math.log(sigma) + 2*math.log(sigma_next))
    def paper(v):
        mean = shrink*(alpha2_next/alpha2)**.5*alpha2**.5*x + (1 - shrink)*alpha2_next**.5*D
        small, large = (1 - shrink)*(1 - alpha2_next), (1 - shrink)*(1 - alpha2)
        return (mean + (small**(1 - v)*large**v)**.5*n)/alpha2_next**.5
    yield code, paper(v), paper(1 - v)
