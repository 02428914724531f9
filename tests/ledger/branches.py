"Chapter 17d: branches."
import torch
from torch import Tensor

from cfg_course.branches import autoguidance, masked_windows, noisier_level, other_label, random_label, windows
from cfg_course.core import NULL, Run
from cfg_course.guidance import guide
from cfg_course.mixtures import Mixture, transport
from ledger import Trial, row


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


@row('eq-weak-level', cell='5e1f0004', mutant='the input is not scaled again; the noise is not compared', tolerance=1e-10)
def noisier_label(t):
    "The same scaled input with a noisier label: for a denoiser that says nothing, scaled so that the variance stays."
    (world, x, sigma, y), delta = branches(t), t.number('delta', .02, .8)
    told = (1 + delta)*sigma
    seen = x*((1 + told**2)/(1 + sigma**2))**.5
    got = noisier_level(world, shift=delta)(x, sigma, y)
    formula = lambda at: x - sigma/told*(at - world(at, told, y))
    yield got, formula(seen), formula(x)
    yield got, formula(seen), world(seen, told, y)


@row('eq-weak-window', cell='5e1f000a', mutant='windows are not divided by how often; the mask is turned round', tolerance=1e-10)
def sliding_windows(t):
    "The mean of four windows; masked, the whole picture's prediction where only one window is."
    from ledger.damages import network
    denoise, x, y, sigma = network(t), 2*t.normal(3, 1, 8, 8), t.labels(3, 10), t.number('sigma', .3, 3)
    total, times = torch.zeros_like(x), torch.zeros_like(x)
    for i in (0, 2):
        for j in (0, 2):
            total[:, :, i:i + 6, j:j + 6] += denoise(x[:, :, i:i + 6, j:j + 6].contiguous(), sigma, y)
            times[:, :, i:i + 6, j:j + 6] += 1
    D_c, M = denoise(x, sigma, y), (times > 1).double()
    yield windows(denoise)(x, sigma, y), total/times, total
    yield masked_windows(denoise)(x, sigma, y), D_c + M*(total/times - D_c), D_c + (1 - M)*(total/times - D_c)
