"Chapter 7b: guidance for tokens."
import math
from itertools import permutations, product

import torch

from cfg_course.tokens import (close, defect, guide_rates, hard_law, masked_law, normalise, reverse_rates, tilted, uniform_chain,
                               uniform_rates, with_masks)
from ledger import row


def law(t, K, D, floor=.05):
    "A random table of probabilities."
    p = t.uniform(*(K,)*D)**2 + floor
    return p/p.sum()


def words(t):
    "Two random tables over the same sequences, and their size."
    K, D = t.one_of('letters and tokens', [(2, 2), (3, 2), (2, 3)])
    return law(t, K, D), law(t, K, D), K, D


def of_words(flat, K, D):
    "The part of a vector over states that has no mask."
    return flat.reshape((K + 1,)*D)[(slice(0, K),)*D]


@row('eq-token-reverse', cell='2fc011a0', mutant='the ratio upside down', tolerance=1e-11)
def reverse(t):
    "The reverse rates of the uniform chain at any t > 0; and those of masks, from the same formula and the ratio of states."
    p, time = law(t, 3, 2), t.number('t', .05, 3)
    Q = uniform_chain(3, 2)
    now = p.flatten()@torch.matrix_exp(time*Q)
    def formula(Q, now): return close(Q.T*now/now[:, None])
    yield uniform_rates(p, time), formula(Q, now), formula(Q, 1/now)
    seen, states = with_masks(p).flatten(), list(product(range(4), repeat=2))
    stay = math.exp(-time)
    hidden = torch.tensor([sum(o == 3 for o in state) for state in states], dtype=torch.float64)
    now = seen*stay**(2 - hidden)*(1 - stay)**hidden
    mask = torch.tensor([[float(sum(a != b for a, b in zip(x, y)) == 1 and all(a == b or b == 3 for a, b in zip(x, y))) for y in states] for x in states])
    speed = stay/(1 - stay)
    yield reverse_rates(p), formula(mask.double(), now)/speed, formula(mask.double(), 1/now)/speed


@row('eq-token-defect', cell='e82c57d5', mutant='no 1 - s before R_u', tolerance=1e-10)
def the_defect(t):
    "The tilted laws of any finite chain, backwards in time: guided chain plus defect; any real s, positive laws."
    n, s = t.whole('states', 3, 9), t.number('s', -2, 4)
    Q, p_c, p_u = close(t.uniform(n, n)**2), law(t, n, 1), law(t, n, 1)
    q = p_c**s*p_u**(1 - s)
    R_c, R_u = (close(Q.T*p/p[:, None]) for p in (p_c, p_u))
    change = -q*(s*(p_c@Q)/p_c + (1 - s)*(p_u@Q)/p_u)
    off_c, off_u = (R - R.diagonal().diag() for R in (R_c, R_u))
    mixed = torch.where(off_u > 0, off_c.clamp(min=1e-300)**s*off_u.clamp(min=1e-300)**(1 - s), 0.)
    def formula(rest): return q@close(mixed) + q*(mixed - s*off_c - rest*off_u).sum(1)
    size = change.abs().max()
    yield change/size, formula(1 - s)/size, formula(1)/size
    yield (q@guide_rates(R_c, R_u, s) + q*defect(R_c, R_u, s))/size, formula(1 - s)/size, formula(1)/size


@row('eq-token-limit', cell='c27c4746', mutant='s for s(s - 1)', tolerance=1e-4)
def limit(t):
    "The defect of hopping on a fine grid, from two spacings, at a random point between two random Gaussian mixtures."
    world, s, x = t.world(1), t.number('s', -2, 5), t.number('x', -1, 1)
    def at(h):
        ends = torch.tensor([x, x - h, x + h], dtype=torch.float64)[:, None]
        R = [torch.zeros(3, 3, dtype=torch.float64) for _ in range(2)]
        for rates, y in zip(R, (0, -1)):
            p = world.log_prob(ends, 1., y).exp()
            rates[0, 1:] = p[1:]/p[0]/(2*h**2)
        return defect(*(close(rates) for rates in R), s)[0]
    here = torch.tensor([[x]], dtype=torch.float64)
    g = (world.score(here, 1., 0) - world.score(here, 1.))[0, 0]
    yield (4*at(.01) - at(.02))/3, s*(s - 1)/2*g**2, s/2*g**2


@row('eq-token-renyi', cell='7cf811cc', mutant='Z for Z - 1', tolerance=1e-11)
def renyi(t):
    "The defect of masked diffusion, in every state, from the two predictions for each hidden place; s >= 0."
    p_c, p_u, K, D = words(t)
    s = t.number('s', 0, 5)
    V, Z, hidden = defect(reverse_rates(p_c), reverse_rates(p_u), s), *sums(p_c, p_u, s)
    yield V, Z.sum(1) - hidden, Z.sum(1)


def sums(p_c, p_u, s):
    "Z_i of each state and place, 0 where the place is seen; and how many places are hidden."
    K, D = p_c.shape[0], p_c.ndim
    seen_c, seen_u, Z = with_masks(p_c), with_masks(p_u), []
    for state in product(range(K + 1), repeat=D):
        each = []
        for i in range(D):
            to = [state[:i] + (a,) + state[i + 1:] for a in range(K)] if state[i] == K else []
            each.append(sum((seen_c[b]/seen_c[state])**s*(seen_u[b]/seen_u[state])**(1 - s) for b in to) if to else torch.tensor(0., dtype=torch.float64))
        Z.append(torch.stack(each))
    Z = torch.stack(Z)
    return Z, (Z > 0).sum(1).double()


@row('eq-token-one', cell='4fe35385', mutant='Z = 1; s for s - 1 in the bound', tolerance=1e-11)
def one(t):
    "One masked token: the distance from the tilt at any time, whatever the scale; and the bound on Z from the likeliest letter."
    p_c, p_u, s = law(t, 5, 1), law(t, 5, 1), t.number('s', 1.2, 4)
    T, time = t.number('T', 2, 6), t.number('t', .2, 1.5)
    u = math.log((1 - math.exp(-T))/(1 - math.exp(-time)))
    now = torch.matrix_exp(u*guide_rates(reverse_rates(p_c), reverse_rates(p_u), s))[-1]
    aim = torch.cat([tilted(p_c, p_u, s), torch.zeros(1, dtype=torch.float64)])
    Z, ratio = (p_c**s*p_u**(1 - s)).sum(), (1 - math.exp(-time))/(1 - math.exp(-T))
    yield (now - aim).abs().sum()/2, ratio**Z, ratio
    yield torch.relu(p_c*(p_c/p_u)**(s - 1) - Z).max(), 0., torch.relu(20*p_c*(p_c/p_u)**s - Z).max()


def by_orders(p_c, p_u, s, normalised, first=False):
    "The sum over orders; with `first`, only one order, which is the mutant."
    K, D = p_c.shape[0], p_c.ndim
    Z = dict(zip(product(range(K + 1), repeat=D), sums(p_c, p_u, s)[0]))
    q = torch.zeros_like(p_c)
    orders = list(permutations(range(D)))
    for x in product(range(K), repeat=D):
        for order in orders[:1] if first else orders:
            state, weight = (K,)*D, 1.
            for k, i in enumerate(order):
                weight = weight/((D - k)*Z[state][i] if normalised else Z[state].sum())
                state = state[:i] + (x[i],) + state[i + 1:]
            q[x] = q[x] + weight*p_c[x]**s*p_u[x]**(1 - s)
    return q


@row('eq-token-law', cell='3984805b', mutant='one order instead of all', tolerance=1e-11)
def several(t):
    "What guided masks sample, with rates and with normalised probabilities; any s > 0."
    p_c, p_u, K, D = words(t)
    s, u = t.number('s', .2, 4), 4000.
    G = guide_rates(reverse_rates(p_c), reverse_rates(p_u), s)
    for normalised in (False, True):
        H = normalise(G, (K + 1,)*D) if normalised else G
        right, wrong = by_orders(p_c, p_u, s, normalised), by_orders(p_c, p_u, s, normalised, True)
        yield masked_law(p_c, p_u, s, normalised), right, wrong
        yield of_words(torch.matrix_exp(u*H)[-1], K, D), right, wrong


@row('eq-token-weights', cell='9f65f3ef', mutant='without the weights', tolerance=1e-11)
def weights(t):
    "The weighted chain, after any time, has the tilt on sequences without mask; s >= 0."
    p_c, p_u, K, D = words(t)
    s, u = t.number('s', 1.5, 4), t.number('u', .3, 3)
    R_c, R_u = reverse_rates(p_c), reverse_rates(p_u)
    G, V = guide_rates(R_c, R_u, s), defect(R_c, R_u, s).diag()
    found = of_words(torch.matrix_exp(u*(G + V))[-1], K, D)
    right = p_c**s*p_u**(1 - s)
    plain = of_words(torch.matrix_exp(u*G)[-1], K, D)
    yield found/found.sum(), right/right.sum(), plain/plain.sum()


@row('eq-token-hard', cell='96482522', mutant='s for s - 1', tolerance=1e-11)
def hard(t):
    "Two tokens, each word in one class: what guidance samples; any s > 0. And the tilt is the class."
    s, p = t.number('s', .3, 6), law(t, 3, 2)
    owner = t.labels(9, 2).reshape(3, 3)
    owner[0, 0], owner[2, 1] = 0, 1
    joint = torch.stack([p*(owner == c) for c in (0, 1)])
    own = joint[0]/joint[0].sum()
    first, second = joint[0].sum(1)/p.sum(1), joint[0].sum(0)/p.sum(0)
    def formula(power):
        weight = torch.where(own > 0, own*(first[:, None]**power + second**power), 0.)
        return weight/weight.sum()
    for found in (hard_law(joint, s), masked_law(own, p, s)): yield found, formula(s - 1), formula(s)
    yield tilted(own, p, s), own, formula(s)


@row('eq-token-rate', cell='88b105c9', below=True, mutant='the sum of the Z for the least, above; half the sum, below', tolerance=1e-12)
def rate(t):
    "How likely a mask is left at any time, between its bounds; s >= 1."
    p_c, p_u, K, D = words(t)
    s, u = t.number('s', 1.2, 4), t.number('u', .2, 1.5)
    Z, hidden = sums(p_c, p_u, s)
    now = torch.matrix_exp(u*guide_rates(reverse_rates(p_c), reverse_rates(p_u), s))[-1]
    left = 1 - of_words(now, K, D).sum()
    total, least = Z[-1].sum(), Z[Z > 0].min()
    yield (-total*u).exp(), left, left*0
    yield left, D*(-least*u).exp(), (-total*u).exp()
    yield 1., least, least/2
