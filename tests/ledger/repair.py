"Chapter 26: what guidance repairs."

import torch

from cfg_course.core import NULL
from cfg_course.guidance import guide, lerp
from cfg_course.pictures import find_world
from cfg_course.repair import Place, ask_truth, best_multiple, direction, mixed_error, shy, width_at
from cfg_course.samplers import make_sampler, trajectory
from ledger import row


def flawed(world, k, size):
    "A denoiser that shows a part k of the class and is wrong by a wave beside it."
    return lambda x, sigma, y: lerp(world(x, sigma), world(x, sigma, y), k) + size*torch.sin(3*x)


def points(t, world, n, sigma):
    "Clean points, the same with noise, and their labels."
    y = t.labels(n, world.classes)
    clean = world.sample(y, generator=t.generator)
    return clean, clean + sigma*t.normal(*clean.shape), y


def branches(denoise, x, sigma, y):
    "Predictions without the label and with it."
    return denoise(x, sigma, torch.full_like(y, NULL)), denoise(x, sigma, y)


@row('eq-repair-asked', cell='a2600015', mutant='measured from c, not from u', tolerance=1e-10)
def asked(t):
    "The asked scale is where the sum of squared distances to the truth is lowest: the root of its slope in s."
    world, sigma = t.world(), t.number('sigma', .3, 3)
    denoise = flawed(world, t.number('k', .3, 1.5), t.number('size', .02, .3))
    _, x, y = points(t, world, 300, sigma)
    u, c = branches(denoise, x, sigma, y)
    s = torch.zeros((), dtype=torch.float64, requires_grad=True)
    def slope(s): return torch.autograd.grad((u + s*(c - u) - world(x, sigma, y)).square().sum(), s, create_graph=True)[0]
    at_zero = slope(s)
    root = -at_zero/torch.autograd.grad(at_zero, s)[0]
    d, truth = c - u, world(x, sigma, y)
    wrong = (d*(truth - c)).sum()/d.square().sum()
    yield best_multiple(ask_truth(denoise, world, x, sigma, y)).value, root, wrong


@row('eq-repair-clean', cell='a2600015', mutant='the noisy picture stands in for the truth', tolerance=.05, samples=40_000)
def clean(t):
    "On the data, clean pictures in the place of the truth give the same mean product, over the mean of |d|^2."
    world, sigma = t.world(), t.number('sigma', .4, 1.5)
    denoise = flawed(world, t.number('k', .5, 1.4), .1)
    x0, x, y = points(t, world, 40_000, sigma)
    u, c = branches(denoise, x, sigma, y)
    d = c - u
    size = d.square().sum()
    yield (d*(x0 - u)).sum()/size, (d*(world(x, sigma, y) - u)).sum()/size, (d*(x - u)).sum()/size


def digits(t, n, sigma):
    "Noisy digits of the small world of pictures."
    world, _ = find_world('small-world')
    y = t.labels(n, world.classes)
    x0 = world.sample(y, generator=t.generator)
    return world, x0 + sigma*torch.randn(x0.shape, generator=t.generator, dtype=torch.float64), y


@row('eq-repair-own', cell='a2600036', mutant='the error with the label is forgotten', tolerance=.04)
def own(t):
    "Own errors that have nothing to do with the class ask for less; smooth fields of one size, in the world of 8x8 digits."
    sigma, size = t.number('sigma', 1., 4.), t.number('size', .2, .6)
    world, x, y = digits(t, 800, sigma)
    found = best_multiple(ask_truth(mixed_error(world, lambda _: size, 0., seed=t.whole('seed', 0, 99)), world, x, sigma, y)).value
    true = ask_truth(world, world, x, sigma, y).shown.sum().item()
    error = size**2*x.numel()
    yield found, (true + error)/(true + 2*error), 1.


@row('eq-repair-shy', cell='a2600036', mutant='1 + (1 - k)', tolerance=1e-8)
def too_shy(t):
    "A prediction that says a part k of what a label changes asks for the scale 1/k, at any level."
    k, sigma = t.number('k', .3, .8), t.number('sigma', .8, 6)
    world, x, y = digits(t, 200, sigma)
    yield best_multiple(ask_truth(shy(world, k), world, x, sigma, y)).value, 1/k, 2 - k


def parts(t):
    "A place, the prediction there, that of plain guidance, and the truth."
    world, sigma = t.world(), t.number('sigma', .3, 3)
    denoise = flawed(world, t.number('k', .3, .9), t.number('size', .02, .2))
    _, x, y = points(t, world, 200, sigma)
    G = guide(denoise, scale=t.number('s', 1.2, 6))(x, sigma, y)
    return Place(sigma, x), denoise(x, sigma, y), G, world(x, sigma, y)


@row('eq-repair-cosine', cell='a2600062', mutant='the square root is lost', tolerance=1e-10)
def cosine(t):
    "The cosine of a technique's change with the error, over all samples and pixels as one vector."
    place, c, G, D = parts(t)
    a, b = (G - c).flatten(), (D - c).flatten()
    yield direction(place, c, G, D).cosine, (a@b)/(a.norm()*b.norm()), (a@b)/(a@a*(b@b))


@row('eq-repair-share', cell='a2600062', mutant='1 - cos for 1 - cos^2', tolerance=1e-10)
def share(t):
    "The best multiple of a technique's change leaves the share 1 - cos^2 of the squared error."
    place, c, G, D = parts(t)
    found = direction(place, c, G, D)
    left = (c + found.multiple*(G - c) - D).square().sum()
    error = (D - c).square().sum()
    yield left/error, 1 - found.cosine**2, 1 - abs(found.cosine)


@row('eq-repair-perturbed', cell='a260004a', mutant='the level stays sigma', tolerance=.02, samples=200_000)
def perturbed(t):
    "What a network learns from inputs with more noise than it is asked for: the mean target in thin slices of an input on the line."
    gamma, sigma, v = t.number('gamma', .4, 1.), t.number('sigma', .4, 1.5), t.number('variance', .3, 2.)
    x0, n, xi = v**.5*t.normal(200_000), t.normal(200_000), t.normal(200_000)
    x, target = x0 + sigma*(n + gamma*xi), x0 + sigma*gamma*xi
    slope = (x*target).mean()/(x*x).mean()
    level = sigma**2*(1 + gamma**2)
    share = gamma**2/(1 + gamma**2)
    def best(w): return w + share*(1 - w)
    yield slope, best(v/(v + level)), best(v/(v + sigma**2))


@row('eq-repair-slope', cell='a260004d', mutant='divided by what the network says', tolerance=1e-10)
def slope(t):
    "The slope of a network's answers along the sheets against the exact ones, picture by picture."
    sigma, size = t.number('sigma', .1, .8), t.number('size', .1, .4)
    world, x, y = digits(t, 100, sigma)
    D = (1 - size)*world(x, sigma, y) + size*x
    products, squares, own = 0., 0., 0.
    for picture, label, answer in zip(x, y, D):
        mode = world.mode_posterior(picture[None], sigma, label[None])[0].argmax()
        a, b = (world.directions[mode]@(said.flatten() - world.means[mode]) for said in (world(picture[None], sigma, label[None]), answer))
        products, squares, own = products + a@b, squares + a@a, own + b@b
    yield width_at(world, Place(sigma, x), y, D).slope, products/squares, products/own


def linear(t, mean_c, mean_u, v_c, v_u, s, start):
    "The end of the exact path of one Gaussian within another, in 400 steps of Heun from level 80."
    def normal(mean, v, x, sigma): return (v*x + sigma**2*mean)/(v + sigma**2)
    def denoise(x, sigma, y): return lerp(normal(mean_u, v_u, x, sigma), normal(mean_c, v_c, x, sigma), s)
    step, sigmas = make_sampler('heun', 400)
    *_, last = trajectory(denoise, start*torch.ones(1, 1, dtype=torch.float64), sigmas, torch.zeros(1, dtype=torch.long), step)
    return last.x.item()


@row('eq-repair-gaussian', cell='a26000e1', mutant='v_u to the power s', tolerance=2e-3)
def gaussian(t):
    "The variance along an axis at the end of the exact guided path, where class and whole are Gaussian with the same mean."
    v_c, v_u, s, top = t.number('v_c', .3, 2.), t.number('v_u', .3, 2.), t.number('s', 1.5, 4.), 80.
    def variance(power): return v_c**s*v_u**power*top**2/((v_c + top**2)**s*(v_u + top**2)**(1 - s))
    yield linear(t, 0., 0., v_c, v_u, s, top)**2, variance(1 - s), variance(s)


@row('eq-repair-shift', cell='a26000e1', mutant='s times the way from the class', tolerance=1e-3)
def shift(t):
    "The mean at the end of the exact guided path, where class and whole are Gaussian with the same variance."
    m_c, m_u, v, s, top = t.number('m_c', .5, 1.5), t.number('m_u', -1., .3), t.number('v', .3, 2.), t.number('s', 1.5, 4.), 80.
    rest = 1 - (v/(v + top**2))**.5
    yield linear(t, m_c, m_u, v, v, s, 0.), (m_u + s*(m_c - m_u))*rest, (m_c + s*(m_c - m_u))*rest


@row('eq-repair-taken', cell='a26000a4', mutant='the cosine without the size', tolerance=1e-10)
def taken(t):
    "The share of the squared error that a technique takes away with its change as it is."
    place, c, G, D = parts(t)
    found = direction(place, c, G, D)
    share = 1 - (G - D).square().sum()/(c - D).square().sum()
    yield share, 2*found.cosine*found.size**.5 - found.size, 2*found.cosine - found.size
