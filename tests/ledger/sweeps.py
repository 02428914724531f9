"Chapter 20: sweeps."
from statistics import median

import torch

from cfg_course.guidance import LINEAR, guide
from cfg_course.metrics import stratified_error
from cfg_course.mixtures import Mixture
from cfg_course.rules import apg, cfg_zero, rescale
from cfg_course.samplers import make_sampler, trajectory
from cfg_course.sweeps import Point, difference_error, mean_effective, stratified_covariance
from ledger import row


def effects(t, P):
    "Effects of samples of three classes of unequal sizes on P numbers, which share their luck."
    y = torch.arange(3).repeat_interleave(torch.tensor([t.whole(f'n_{k}', 2, 12) for k in range(3)]))
    return (t.normal(len(y), P) + t.normal(len(y), 1))*(1 + y[:, None]) + 4*y[:, None], y


@row('eq-sweep-effective', cell='6f6ce2f5', tolerance=1e-10,
     mutant='the mean over steps for the median; no share of guided steps')
def effective(t):
    "1 + q (mean over samples of the median over guided steps - 1), for any rule, and for plain guidance at 0."
    K = t.whole('classes', 2, 4)
    world = Mixture(t.normal(K, 3), .3 + t.uniform(K), weights=t.uniform(K).softmax(0))
    steps, s = t.whole('steps', 8, 14), t.number('s', -2, 8)
    rules = dict(linear=LINEAR, rescale=rescale(), apg=apg(), cfg_zero=cfg_zero())
    rule = rules[t.one_of('rule', list(rules))]
    step, sigmas = make_sampler('ddim', steps=steps)
    first, last = t.whole('first guided step', 1, 2), t.whole('last guided step', 5, steps - 2)
    span = (sigmas[last + 1].item(), sigmas[first].item())
    point = Point('digits', 'cfg', s, interval=span, sampling=(('sampler', 'ddim'), ('steps', steps)))
    q = (last - first + 1)/steps
    record, e, sizes = [], [], (5, 3)
    guided = guide(world, scale=lambda sigma: 1 + (s - 1)/(1 + sigma), interval=span, rule=rule, record=record)
    def watched(x, sigma, y):
        D = guided(x, sigma, y)
        D_u = world(x, sigma)
        gap = world(x, sigma, y) - D_u
        if span[0] < sigma.number <= span[1]: e[-1].append(((D - D_u)*gap).sum(1)/gap.square().sum(1))
        return D
    for n in sizes:
        e.append([])
        for _ in trajectory(watched, sigmas[0]*t.normal(n, 3), sigmas, t.labels(n, world.classes), step): pass
    each = [row for batch in e for row in torch.stack(batch, 1).tolist()]
    def right(middle, q): return 1 + q/len(each)*sum(middle(row) - 1 for row in each)
    yield mean_effective(point, record, sizes)[0], right(median, q), right(lambda row: sum(row)/len(row), q)
    for scale in (0., s):
        record = []
        guided = guide(world, scale=scale, interval=span, record=record)
        for _ in trajectory(guided, sigmas[0]*t.normal(4, 3), sigmas, t.labels(4, world.classes), step): pass
        yield mean_effective(point._replace(scale=scale), record, (4,))[0], 1 + q*(scale - 1), scale


@row('eq-sweep-covariance', cell='9c20e004', mutant='the share of a class is not squared', tolerance=1e-12)
def covariance(t):
    "The covariance of means is that of class means with squared weights n_k/n; its diagonal is the error's square."
    g, y = effects(t, t.whole('numbers', 2, 6))
    n = y.bincount().tolist()
    def right(power): return sum((n_k/len(y))**power*torch.cov(g[y == k].T)/n_k for k, n_k in enumerate(n))
    yield stratified_covariance(g, y), right(2), right(1)
    large = torch.cat([g, g]), torch.cat([y, y])  # of each class more than two, which `stratified_error` keeps apart
    found = torch.tensor([stratified_error(column, large[1])**2 for column in large[0].T], dtype=torch.float64)
    yield stratified_covariance(*large).diag(), found, 2*found


@row('eq-sweep-pair', cell='7c20a203', mutant='the covariance is added', tolerance=1e-10)
def pair(t):
    "The error of a difference, from the covariance, is the stratified error of the differences of the effects."
    g, y = effects(t, 2)
    g, y = torch.cat([g, g + .1*t.normal(*g.shape)]), torch.cat([y, y])
    sigma = stratified_covariance(g, y)
    def right(sign): return sigma[0, 0] + sigma[1, 1] + sign*2*sigma[0, 1]
    yield difference_error(sigma)**2, right(-1), right(1)
    yield difference_error(sigma), stratified_error(g[:, 0] - g[:, 1], y), right(1).sqrt()
