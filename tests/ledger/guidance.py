"Chapter 4: guidance."
import torch

from cfg_course.core import NULL
from cfg_course.guidance import lerp, w_to_scale
from ledger import row


@row('eq-cfg', cell='?', mutant='w D_u is added', tolerance=1e-12)
def cfg(t):
    "The library's mixture at the scale 1 + w is (1 + w) D_c - w D_u."
    w, D_u, D_c = t.number('w', -3, 6), t.normal(6, 2), t.normal(6, 2)
    yield lerp(D_u, D_c, w_to_scale(w)), (1 + w)*D_c - w*D_u, (1 + w)*D_c + w*D_u


@row('eq-balance', cell='?', mutant='weights are the priors', tolerance=1e-12)
def balance(t):
    "The unconditional denoiser is the mean of the conditional ones under the posterior."
    world, sigma = t.world(), t.number('sigma', .2, 3)
    x = 2*t.normal(50, 2)
    D_c = torch.stack([world(x, sigma, c) for c in range(world.classes)], 1)
    priors = torch.stack([world.weights[world.labels == c].sum() for c in range(world.classes)]).expand(50, -1)
    mean = lambda weights: torch.einsum('bc,bcd->bd', weights, D_c)
    yield world(x, sigma, NULL), mean(world.posterior(x, sigma)), mean(priors)


@row('eq-power-bound', cell='?', mutant='p(y) for its power 1 - s', tolerance=1e-12, below=True)
def power_bound(t):
    "At a scale s >= 1 the tilted density is at most p(y)^(1 - s) times the conditional one."
    world, sigma, s = t.world(), t.number('sigma', .2, 3), t.number('s', 1, 8)
    c = t.whole('class', 0, world.classes - 1)
    x = 3*t.normal(500, 2)
    log_c, log_u = world.log_prob(x, sigma, c), world.log_prob(x, sigma)
    prior = world.weights[world.labels == c].sum().log()
    yield s*log_c + (1 - s)*log_u, (1 - s)*prior + log_c, prior + log_c
