"Chapter 4: guidance."
import math

import torch

from cfg_course.classifiers import classifier_guidance
from cfg_course.compositions import all_but, all_of
from cfg_course.core import NULL
from cfg_course.guidance import SHAPES, Label, Rule, Term, cfgpp_to_scale, guide, lerp, ramp, w_to_scale
from cfg_course.mixtures import Points
from cfg_course.procedures import cfgpp_ddim_step
from cfg_course.samplers import Now, ddim_step
from cfg_course.scores import FROM_X0, SCALES, TO_X0, as_denoiser, as_predictor
from ledger import Trial, row
from ledger.mixtures import gaussians, gradient, stretched


def scene(
    t:Trial, # source of randomness
)->tuple: # a world, a noise level, a class, samples `(20, 2)`, their labels
    "Classes with full covariances, unequal frequencies and two modes each."
    world, sigma = stretched(t), t.number('sigma', .1, 5)
    c = t.whole('class', 0, world.classes - 1)
    return world, sigma, c, 2*t.normal(20, 2), torch.full((20,), c)


@row('eq-bayes', cell='e6fd8040', mutant='a plus for the minus', tolerance=1e-10)
def bayes(t):
    "The gradient of the log posterior of a class is the score of the class minus that of the whole."
    world, sigma, c, x, y = scene(t)
    prior = world.weights[world.labels == c].sum()
    ratio = lambda x: gaussians(world, sigma, c).log_prob(x) - gaussians(world, sigma).log_prob(x)
    own, whole = world.score(x, sigma, c), world.score(x, sigma)
    yield gradient(lambda x: world.posterior(x, sigma)[:, c].log(), x), own - whole, own + whole
    yield world.posterior(x, sigma)[:, c], prior*ratio(x).exp(), ratio(x).exp()
    yield gradient(ratio, x), own - whole, own + whole


@row('eq-balance', cell='6b0dabe7', mutant='the weights are the priors', tolerance=1e-12)
def balance(t):
    "The unconditional denoiser is the posterior mean of the conditional ones; that of the differences is zero."
    world, sigma, _, x, _ = scene(t)
    D_c = torch.stack([world(x, sigma, c) for c in range(world.classes)], 1)
    D_u = world(x, sigma, NULL)
    priors = torch.stack([world.weights[world.labels == c].sum() for c in range(world.classes)]).expand(20, -1)
    mean = lambda weights, each: torch.einsum('bc,bcd->bd', weights, each)
    yield D_u, mean(world.posterior(x, sigma), D_c), mean(priors, D_c)
    yield 0*D_u, mean(world.posterior(x, sigma), D_c - D_u[:, None]), mean(priors, D_c - D_u[:, None])


@row('eq-classifier', cell='3dd19bc8', mutant='sigma is not squared', tolerance=1e-10)
def classifier(t):
    "Classifier guidance at any scale on either denoiser, with an exact classifier, and with D_c - D_u in its place."
    world, sigma, c, x, y = scene(t)
    s, logits = t.number('s_cls', -3, 8), lambda x, sigma: world.posterior(x, sigma).log()
    D_u, D_c = world(x, sigma, NULL), world(x, sigma, c)
    log_p = lambda x: gaussians(world, sigma, c).log_prob(x) - gaussians(world, sigma).log_prob(x)
    pull = lambda power: s*sigma**power*gradient(log_p, x)
    for on, D, scale in ('unconditional', D_u, s), ('conditional', D_c, 1 + s):
        found = classifier_guidance(world, logits, scale=scale, on=on)(x, sigma, y)
        yield found, D + pull(2), D + pull(1)
        yield lerp(D_u, D_c, scale), D + pull(2), D + pull(1)


@row('eq-cfg', cell='41da0611', mutant='w D_u is added', tolerance=1e-12)
def cfg(t):
    "The library's mixture at the scale 1 + w, and its guided denoiser with the weight w, are (1 + w) D_c - w D_u."
    world, sigma, c, x, y = scene(t)
    w, D_u, D_c = t.number('w', -3, 8), world(x, sigma, NULL), world(x, sigma, c)
    by_weight, by_scale = (guide(world, **how)(x, sigma, y) for how in (dict(w=w), dict(scale=1 + w)))
    for found in lerp(D_u, D_c, w_to_scale(w)), by_weight, by_scale:
        yield found, (1 + w)*D_c - w*D_u, (1 + w)*D_c + w*D_u


@row('eq-power', cell='ff602562', tolerance=1e-10, mutant='the exponent of p(x) is s - 1, or 1 + s in the first form')
def power(t):
    "The guided score at any scale is that of p(x) p(y|x)^s, and of p(x|y)^s p(x)^(1 - s), at one noise level."
    world, sigma, c, x, y = scene(t)
    s = t.number('s', -3, 8)
    score = (guide(world, scale=s)(x, sigma, y) - x)/sigma**2
    log_c, log_u = (gaussians(world, sigma, k).log_prob for k in (c, NULL))
    first = lambda e: gradient(lambda x: e*log_u(x) + s*world.posterior(x, sigma)[:, c].log(), x)
    second = lambda e: gradient(lambda x: s*log_c(x) + e*log_u(x), x)
    yield score, first(1), first(1 + s)
    yield score, second(1 - s), second(s - 1)


@row('eq-power-bound', cell='f4a00002', mutant='p(y) for its power 1 - s', tolerance=1e-12, below=True)
def power_bound(t):
    "For s >= 1 the tilted density is at most p(y)^(1 - s) times that of the class (logarithms); tight where y is sure."
    world, sigma, s = stretched(t), t.number('sigma', .1, 3), t.number('s', 1, 12)
    c = t.whole('class', 0, world.classes - 1)
    x = 3*t.normal(500, 2)
    log_c, log_u = world.log_prob(x, sigma, c), world.log_prob(x, sigma)
    prior = world.weights[world.labels == c].sum().log()
    yield s*log_c + (1 - s)*log_u, (1 - s)*prior + log_c, prior + log_c


@row('eq-ramp', cell='38dc1e40', mutant='s for s - 1', tolerance=1e-10)
def ramped(t):
    "A ramped scale at any noise level, for each shape of the library and for a function, in the time of the cosine."
    s, sigma = t.number('s', -3, 8), 10**(4*t.uniform(20) - 2)
    time = 2/math.pi*torch.atan(sigma)
    power = t.number('power', .3, 3)
    cosine = lambda time, k: 1 - torch.cos(math.pi*(1 - time)**k)
    fine = (torch.arange(20000, dtype=torch.float64) + .5)/20000
    written = dict(constant=time**0, linear=2*(1 - time), decreasing=2*time, bump=6*time*(1 - time))
    written['cosine'] = cosine(time, 1)
    for name, h in written.items(): yield ramp(s, name)(sigma), 1 + (s - 1)*h, 1 + s*h
    late = cosine(time, 2)/cosine(fine, 2).mean()
    yield ramp(s, 'power_cosine')(sigma), 1 + (s - 1)*late, 1 + s*late
    yield ramp(s, lambda time: time**power)(sigma), 1 + (s - 1)*time**power, 1 + s*time**power
    assert set(written) | {'power_cosine'} == set(SHAPES)


@row('eq-rule', cell='b408137f', mutant='applied to the denoisers themselves', tolerance=1e-10)
def ruled(t):
    "A rule that is no straight line, in a space of its own, with a schedule and any weak branch."
    world, sigma, c, x, y = scene(t)
    space, other = t.one_of('space', ['eps', 'score', 'v', 'flow']), t.number('weak sigma', 1.1, 3)
    slope = t.number('slope of s', .5, 4)
    mixed = lambda u, c, s: (u + s*(c - u))*c.norm(dim=1, keepdim=True)/u.norm(dim=1, keepdim=True)
    weak = lambda x, sigma, y: world(x, other*sigma, y)
    D_weak, D_c, s = weak(x, sigma, y), world(x, sigma, c), 2 + slope*sigma
    schedule = lambda sigma: 2 + slope*sigma
    rule = Rule(lambda u, c, s, look: mixed(u, c, s), space)
    found = guide(world, scale=schedule, weak=weak, rule=rule)(x, sigma, y)
    into, back = FROM_X0[space], TO_X0[space]
    inside = mixed(into(D_weak, x, sigma), into(D_c, x, sigma), s)
    yield found, back(inside, x, sigma), mixed(D_weak, D_c, s)


@row('eq-affine', cell='1814bfc4', mutant='b enters with the weight s', tolerance=1e-10)
def affine(t):
    "The straight line, at any scale, is the same in all languages, and in networks of any kind and coordinates."
    world, sigma, c, x, y = scene(t)
    s = t.number('s', -3, 8)
    D_u, D_c = world(x, sigma, NULL), world(x, sigma, c)
    nobody = torch.full_like(y, NULL)
    for kind in 'eps', 'score', 'v', 'flow':
        into = lambda D: FROM_X0[kind](D, x, sigma)
        b = into(0*x)
        a = (into(0*x + 1) - b)
        right = a*(D_u + s*(D_c - D_u))
        yield lerp(into(D_u), into(D_c), s), right + b, right + s*b
        for coords in SCALES:
            net = as_predictor(world, kind, coords)
            inside = lambda z, level, y: lerp(net(z, level, nobody), net(z, level, y), s)
            shifted = TO_X0[kind](right + s*b, x, sigma)
            yield as_denoiser(inside, kind, coords)(x, sigma, y), lerp(D_u, D_c, s), shifted


@row('eq-cfgpp', cell='5a8a57de', mutant="sigma' above the fraction", tolerance=1e-10)
def cfgpp(t):
    "For 0 <= sigma' < sigma a CFG++ step is an Euler step with this scale; VP and flow coordinates give the same."
    world, sigma, c, x, y = scene(t)
    lam, after = t.number('lambda', 0, 3), sigma*t.number("sigma'/sigma", 0, .98)
    now = Now(x, sigma, after, y)
    euler = lambda s: ddim_step(guide(world, scale=s), now).x
    right, wrong = lam*sigma/(sigma - after), lam*after/(sigma - after)
    yield cfgpp_ddim_step(world, now, lam).x, euler(right), euler(wrong)
    yield cfgpp_to_scale(lam, sigma, after), right, wrong
    (a, b), (time, time_after) = ((1 + v**2)**-.5 for v in (sigma, after)), (v/(1 + v) for v in (sigma, after))
    yield lam*b*(a*sigma)/(b*(a*sigma) - (b*after)*a), right, wrong
    yield lam*time*(1 - time_after)/(time - time_after), right, wrong


@row('eq-compose', cell='85c142f7', mutant='the scales are added', tolerance=1e-10)
def compose(t):
    "Guidance with a, and with b on top against the same weak branch, is guidance with a b."
    world, sigma, c, x, y = scene(t)
    a, b = t.number('a', -3, 6), t.number('b', -3, 6)
    D_u, D_c = world(x, sigma, NULL), world(x, sigma, c)
    twice = guide(guide(world, scale=a), scale=b)(x, sigma, y)
    yield twice, D_u + a*b*(D_c - D_u), D_u + (a + b)*(D_c - D_u)


@row('eq-and-not', cell='32833391', mutant='D_u is counted once for every label', tolerance=1e-10)
def and_not(t):
    "AND and NOT of the library as differences of denoisers, and as scores of products of posteriors, with any weights."
    world, sigma, c, x, y = scene(t)
    n, s, s_n = (c + 1) % world.classes, t.number('s_1', -2, 5), t.number('s_2', -2, 5)
    D_u, D_c, D_n = (world(x, sigma, k) for k in (NULL, c, n))
    log_class = lambda x, k: world.posterior(x, sigma)[:, k].log()
    def score_of(log): return gradient(lambda x: gaussians(world, sigma).log_prob(x) + log(x), x)
    both = all_of(world, labels=(n,), weights=(s_n,), own=s)(x, sigma, y)
    right = D_u + s*(D_c - D_u) + s_n*(D_n - D_u)
    yield both, right, right + D_u
    score = score_of(lambda x: s*log_class(x, c) + s_n*log_class(x, n))
    yield score, (right - x)/sigma**2, (right + D_u - x)/sigma**2
    neither = all_of(world, labels=(n,), weights=(-s,), own=s)(x, sigma, y)
    right = D_u + s*(D_c - D_n)
    yield neither, right, right + D_u
    yield all_but(world, label=n)(x, sigma, y), D_u + (D_c - D_n), 2*D_u + (D_c - D_n)
    score = score_of(lambda x: s*(log_class(x, c) - log_class(x, n)))
    yield score, (right - x)/sigma**2, (right + D_u - x)/sigma**2


@row('eq-negative', cell='32833391', mutant='D_n - D_u is subtracted', tolerance=1e-10)
def negative(t):
    "Guidance against another label starts from that label, and is NOT plus D_n - D_u."
    world, sigma, c, x, y = scene(t)
    n, s = (c + 1) % world.classes, t.number('s', -2, 6)
    D_u, D_c, D_n = (world(x, sigma, k) for k in (NULL, c, n))
    found, without = guide(world, scale=s, weak=Label(n))(x, sigma, y), D_u + s*(D_c - D_n)
    yield found, D_n + s*(D_c - D_n), D_n + s*(D_c - D_n) - 2*(D_n - D_u)
    yield found, without + (D_n - D_u), without - (D_n - D_u)


@row('eq-and-noise', cell='f4a00005', mutant='the product of the two means', tolerance=1e-10)
def and_noise(t):
    "The probability of two labels that are independent given the clean image is the posterior mean of the product."
    K, sigma = t.whole('points', 3, 8), t.number('sigma', .5, 3)
    points, weights, first, second = 1.5*t.normal(K, 2), .2 + t.uniform(K), t.uniform(K), t.uniform(K)
    x = t.normal(30, 2)
    told = torch.cat([weights*a*b for a in (1 - first, first) for b in (1 - second, second)])
    labelled = Points(points.repeat(4, 1), torch.arange(4).repeat_interleave(K), told/told.sum())
    share = Points(points, torch.arange(K), weights/weights.sum()).posterior(x, sigma)
    mean = lambda p: share@p
    yield labelled.posterior(x, sigma)[:, 3], mean(first*second), mean(first)*mean(second)


@row('eq-terms', cell='dac8c449', mutant='the strengths are exchanged; one of them is not in the scale', tolerance=1e-11)
def terms(t):
    "Three terms with any strengths, and one line in their place where the strengths do not cancel; a rule acts on it."
    world, sigma, c, x, y = scene(t)
    s, a, b, other = t.number('s', -2, 9), t.number('a', -3, 5), t.number('b', .1, 2), (c + 1)%world.classes
    worse = stretched(t)
    D_c, D_u, D_w, D_k = world(x, sigma, y), world(x, sigma), worse(x, sigma, NULL), world(x, sigma, other)
    more = [Term(lambda x, sigma, y: worse(x, sigma, NULL), a), Term(Label(other), b)]
    total = D_u + s*(D_c - D_u) + a*(D_c - D_w) + b*(D_c - D_k)
    yield guide(world, scale=s, more=more)(x, sigma, y), total, D_u + s*(D_c - D_u) + b*(D_c - D_w) + a*(D_c - D_k)
    size = (s - 1) + a + b
    D_b = ((s - 1)*D_u + a*D_w + b*D_k)/size
    bent = Rule(lambda u, c, s, look: c + (s - 1)*(c - u).tanh())
    got = guide(world, scale=s, more=more, rule=bent)(x, sigma, y)
    yield got, D_c + size*(D_c - D_b).tanh(), D_c + (size - b)*(D_c - D_b).tanh()
