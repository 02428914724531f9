"Chapter 17f: compositions."
import math

import torch

from cfg_course.compositions import all_of, late_label, perpendicular
from cfg_course.core import NULL
from cfg_course.guidance import guide
from ledger import row
from ledger.branches import branches
from ledger.damages import network
from ledger.rules import each


@row('eq-weak-and', cell='14be9616', mutant='D_u is not subtracted; s multiplies the own label alone', tolerance=1e-11)
def composed(t):
    "Several labels with any weights, negative ones too; a scale multiplies all weights."
    (world, x, sigma, y), s, n = branches(t), t.number('s', -3, 9), t.whole('other labels', 1, 3)
    labels = t.labels(n, world.classes).tolist()
    own, *weights = t.normal(n + 1).tolist()
    D_u, asked = world(x, sigma), [y, *labels]
    def added(weights, minus=1):
        return D_u + sum(a*(world(x, sigma, k) - minus*D_u) for a, k in zip(weights, asked))
    strong = all_of(world, labels=tuple(labels), weights=tuple(weights), own=own)
    yield strong(x, sigma, y), added([own, *weights]), added([own, *weights], 0)
    yield guide(strong, scale=s)(x, sigma, y), added([s*own, *(s*a for a in weights)]), added([s*own, *weights])
    yield guide(strong, scale=s)(x, sigma, y), D_u + s*(added([own, *weights]) - D_u), s*added([own, *weights])


@row('eq-weak-perp', cell='d4cfc450', mutant='the whole of delta is subtracted', tolerance=1e-11)
def perp_neg(t):
    "Perp-Neg subtracts what is perpendicular to Delta, in three dimensions, where it is more than one direction."
    (world, x, sigma, y), beta = branches(t), t.number('beta', -2, 4)
    k = t.whole('k', 0, world.classes - 1)
    D_u, D_c, D_k = (world(x, sigma, label) for label in (NULL, y, k))
    Delta, delta = D_c - D_u, D_k - D_u
    along = each(lambda small, large: (small@large)/(large@large)*large, delta, Delta)
    got = perpendicular(world, label=k, weight=beta)(x, sigma, y)
    yield got, D_c - beta*(delta - along), D_c - beta*delta


@row('eq-weak-cads', cell='81bed264', mutant='gamma for its root; the other branch of the clip', tolerance=1e-12)
def late(t):
    "The label's embedding under noise, with its mean and standard deviation restored to the share psi, where eta > 0."
    start, stop = t.number('tau_1', .1, .45), t.number('tau_2', .55, .9)
    eta, psi = t.number('eta', .05, 2), t.number('psi', 0, 1)
    time = torch.cat([torch.tensor([.5]), t.uniform(7)])
    e, n, y = t.normal(8, 16) + .5, t.normal(8, 16), torch.zeros(8, dtype=torch.long)
    strong = late_label(network(t), start=start, stop=stop, noise=eta, rescale=psi)
    hidden = strong.change(lambda f: n, (math.pi/2*time).tan())['label'](e, y)
    def formula(gamma, power=.5):
        gamma = gamma.clamp(0, 1)[:, None]
        hat = gamma**power*e + eta*(1 - gamma)**.5*n
        def restored(hat, e):
            return psi*((hat - hat.mean())/hat.std()*e.std() + e.mean()) + (1 - psi)*hat
        return each(restored, hat, e)
    gamma = (stop - time)/(stop - start)
    yield hidden, formula(gamma), formula(gamma, 1.)
    yield hidden, formula(gamma), formula(1 - gamma)
