"Chapter 18a: energies."
import torch

from cfg_course.energies import Aids, Plan, clean_classifier, climb, discriminator_guidance
from cfg_course.energies import dps, freedom, make_energy, mpgd, shares, tfg, universal
from cfg_course.mixtures import Mixture
from cfg_course.samplers import ddim_step
from ledger import row


def scene(t):
    "A world, a smooth energy of points in it, noisy samples, one level, labels, and none."
    world, n = t.world(t.whole('dim', 2, 4)), 12
    turn = t.normal(world.dim, world.classes)
    judge = make_energy('classifier', Aids(judge=lambda x: (x@turn).sin()))
    sigma = t.number('sigma', .4, 4)
    y = t.labels(n, world.classes)
    return world, judge, 2*t.normal(n, world.dim), sigma, y, torch.full_like(y, -1)


def through(world, energy, x, sigma, y):
    "Gradient of the energy of the unconditional prediction, by hand; the energy itself."
    leaf = x.clone().requires_grad_()
    E = energy(world(leaf, sigma), sigma, y)
    return torch.autograd.grad(E.sum(), leaf)[0], E.detach()


def direct(energy, x0, sigma, y):
    "Gradient of the energy of a picture, by hand."
    leaf = x0.clone().requires_grad_()
    return torch.autograd.grad(energy(leaf, sigma, y).sum(), leaf)[0]


def kicked(world, energy, plan, x, levels, y, s):
    "How far the first step of a kicked DDIM run ends from that of a plain one."
    guided, loop = climb(world, energy, plan, scale=s, on='unconditional')
    plain, usual = climb(world, energy, Plan(), scale=0., on='unconditional')
    (theirs, *_), (ours, *_) = list(usual(plain, x, levels, y, ddim_step)), list(loop(guided, x, levels, y, ddim_step))
    return ours.x - theirs.x


@row('eq-energy-kick', cell='4442d526', mutant='the kick is not divided by 1 - r', tolerance=1e-10)
def kick(t):
    "A kick of the sample after a DDIM step is a move of the prediction by the kick over 1 - sigma'/sigma."
    world, judge, x, sigma, y, _ = scene(t)
    s, r = t.number('s', .5, 3), t.number('r', .1, .9)
    levels = [sigma, r*sigma]
    def moved(share):
        guided, loop = climb(world, judge, Plan(lambda q: q.uphill()[1]/share), scale=s, on='unconditional')
        return next(loop(guided, x, levels, y, ddim_step)).x
    guided, loop = climb(world, judge, Plan(kick=lambda q, at: q.uphill()[1]), scale=s, on='unconditional')
    yield next(loop(guided, x, levels, y, ddim_step)).x, moved(1 - r), moved(1)


@row('eq-energy-point', cell='4ea012db', mutant='sigma in place of its square', tolerance=1e-10)
def point(t):
    "Guidance by a clean classifier is D + s sigma^2 grad log p(y|D(x)), on the prediction without a label."
    world, judge, x, sigma, y, none = scene(t)
    s = t.number('s', -2, 5)
    g, _ = through(world, judge, x, sigma, y)
    D = world(x, sigma, none)
    code = climb(world, judge, clean_classifier(clip=None), scale=s, on='unconditional')[0](x, sigma, y)
    yield code, D + s*sigma**2*g, D + s*sigma*g


@row('eq-energy-gauss', cell='eb90b645', mutant='without the shrinking k', tolerance=1e-9)
def gauss(t):
    "For Gaussian data and a measurement the point posterior moves too far by the factor 1 + k sigma^2 |a|^2/v."
    S2, v, b, sigma = t.number('S2', .5, 3), t.number('v', .1, 2), t.number('b', -2, 2), t.number('sigma', .3, 4)
    a, x, y = t.normal(3), 2*t.normal(10, 3), torch.zeros(10, dtype=torch.long)
    prior = Mixture([[0.]*3], [S2])
    cov = (torch.eye(3, dtype=torch.float64)/S2 + a[:, None]*a/v).inverse()
    left = Mixture([(cov@a*b/v).tolist()], cov[None])
    def measured(x0_hat, sigma, y): return -(x0_hat@a - b)**2/2/v
    code = climb(prior, measured, clean_classifier(clip=None), scale=1., on='unconditional')[0](x, sigma, y) - prior(x, sigma)
    exact, k = left(x, sigma) - prior(x, sigma), S2/(S2 + sigma**2)
    yield code, (1 + k*sigma**2*(a@a)/v)*exact, (1 + sigma**2*(a@a)/v)*exact


@row('eq-energy-universal', cell='b806b7a1', mutant='the ascent begins at the noisy sample', tolerance=1e-10)
def back_and_forth(t):
    "Universal guidance adds the forward move and m steps of ascent from the prediction."
    world, judge, x, sigma, y, none = scene(t)
    s, rate, m = t.number('s', .5, 3), t.number('rate', .05, .4), t.whole('m', 1, 5)
    g, _ = through(world, judge, x, sigma, y)
    def right(begin):
        at = begin
        for _ in range(m): at = at + rate*direct(judge, at, sigma, y)
        return world(x, sigma, none) + s*(sigma**2*g + at - begin)
    code = climb(world, judge, universal(backward=m, rate=rate, clip=None), scale=s, on='unconditional')[0](x, sigma, y)
    yield code, right(world(x, sigma, none)), right(x)


@row('eq-energy-freedom', cell='df5f25aa', mutant='the level at the end of the step is left out', tolerance=1e-10)
def freedoms(t):
    "FreeDoM's kick is rho sqrt((1 + sigma^2)(1 + sigma'^2)) grad E(D(x)), rho in proportion to (1 + sigma'^2)/(1 + sigma^2)."
    world, judge, x, sigma, y, _ = scene(t)
    s, r = t.number('s', .3, 2), t.number('r', .2, .9)
    levels = [sigma, r*sigma, r**3*sigma]
    rates = [(1 + b**2)/(1 + a**2) for a, b in zip(levels, levels[1:])]
    g, _ = through(world, judge, x, sigma, y)
    rho = s*rates[0]*2/sum(rates)
    code = kicked(world, judge, freedom(), x, levels, y, s)
    yield code, rho*((1 + levels[0]**2)*(1 + levels[1]**2))**.5*g, rho*(1 + levels[0]**2)**.5*g


@row('eq-energy-mpgd', cell='1aeb2a6a', mutant='the gradient goes through the denoiser', tolerance=1e-10)
def no_pass_back(t):
    "MPGD's kick is s times the slope of the energy at the prediction."
    world, judge, x, sigma, y, none = scene(t)
    s = t.number('s', .3, 3)
    g, _ = through(world, judge, x, sigma, y)
    code = kicked(world, judge, mpgd(), x, [sigma, .6*sigma], y, s)
    yield code, s*direct(judge, world(x, sigma, none), sigma, y), s*g


@row('eq-energy-tfg', cell='070902bd', mutant='the mean term has no share', tolerance=1e-10)
def training_free(t):
    "TFG's kick is the variance term rho (1 + sigma^2) grad E(D(x)) and m steps of mu on the prediction, both with shares."
    world, judge, x, sigma, y, none = scene(t)
    s, rho, mu, m = t.number('s', .3, 2), t.number('rho', .2, 2), t.number('mu', .05, .4), t.whole('m', 1, 4)
    levels = torch.tensor([sigma, .6*sigma, .3*sigma])
    share = shares(levels)[levels[0].item()]
    sigma = levels[0].item()
    g, _ = through(world, judge, x, sigma, y)
    def right(rate):
        D = at = world(x, sigma, none)
        for _ in range(m): at = at + rate*direct(judge, at, sigma, y)
        return s*(rho*share*(1 + sigma**2)*g + at - D)
    code = kicked(world, judge, tfg(rho=rho, mu=mu, blur=0., inner=m), x, levels, y, s)
    yield code, right(mu*share), right(mu)


@row('eq-energy-dps', cell='27d43e4b', mutant='the norm runs over the batch', tolerance=1e-9)
def same_length(t):
    "DPS kicks by the gradient over twice the root of the energy, or over the energy, of each sample."
    world, judge, x, sigma, y, _ = scene(t)
    s, b = t.number('s', .3, 2), .5*sigma
    target = t.normal(world.dim)
    def residual(x0_hat, sigma, y): return -((x0_hat - target)**2).sum(1)
    length = s*((1 + sigma**2)*(1 + b**2))**.5
    for form, energy in (('root', residual), ('log', judge)):
        g, E = through(world, energy, x, sigma, y)
        size = 2*E.abs()**.5 if form == 'root' else E.abs()
        code = kicked(world, energy, dps(form=form, floor=0.), x, [sigma, b], y, s)
        yield code, length*g/size[:, None], length*g/size.norm()


@row('eq-energy-odds', cell='95f15940', mutant='s in place of s - 1', tolerance=1e-6)
def odds(t):
    "Discriminator guidance is D_c + (s - 1) sigma^2 grad log(q/(1 - q)), which at s = 2 and with exact odds is the denoiser of the data."
    real, model = t.world(2), t.world(2)
    K = min(real.classes, model.classes)
    s, sigma, x, y = t.number('s', -1, 4), t.number('sigma', .3, 4), 2*t.normal(10, 2), t.labels(10, K)
    exact = make_energy('discriminator', Aids(discriminator=lambda x, sigma, y: real.log_prob(x, sigma, y) - model.log_prob(x, sigma, y)))
    D, to = model(x, sigma, y), real(x, sigma, y)
    code = climb(model, exact, discriminator_guidance(), scale=s)[0](x, sigma, y)
    yield code, D + (s - 1)*(to - D), D + s*(to - D)


@row('eq-energy-negative', cell='43c981da', mutant='the probability in place of the odds', tolerance=1e-8)
def negative(t):
    "The gradient of log(1 - p(n|x)) times sigma^2 is minus the odds of n times D_n - D."
    world = t.world(2)
    n, sigma, x = t.whole('n', 0, world.classes - 1), t.number('sigma', .3, 4), 2*t.normal(10, 2)
    leaf = x.clone().requires_grad_()
    p = world.posterior(leaf, sigma)[:, n]
    code = sigma**2*torch.autograd.grad((1 - p).log().sum(), leaf)[0]
    p, gap = p.detach()[:, None], world(x, sigma, torch.full((10,), n)) - world(x, sigma)
    yield code, -p/(1 - p)*gap, -p*gap
