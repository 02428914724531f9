"Chapter 17b: bands."
from itertools import product

import torch
from torch import Tensor

from cfg_course.bands import fdg, fresca, samg
from cfg_course.guidance import apply
from ledger import row
from ledger.rules import each, looks


def smoothing(
    n:int, # pixels
)->Tensor: # `(n, n)`
    "The filter (1, 4, 6, 4, 1)/16 with mirrored edges, as a matrix."
    matrix = torch.zeros(n, n, dtype=torch.float64)
    for i, (k, weight) in product(range(n), zip(range(-2, 3), (1, 4, 6, 4, 1))):
        j = abs(i + k)
        matrix[i, min(j, 2*(n - 1) - j)] += weight/16
    return matrix


def halving(
    n:int, # pixels, even
)->Tensor: # `(n//2, n)`
    "Smooth, and the mean of every two pixels."
    return torch.eye(n//2, dtype=torch.float64).repeat_interleave(2, 1)/2@smoothing(n)


def doubling(
    n:int, # pixels
)->Tensor: # `(2n, n)`
    "Interpolate linearly, and smooth."
    matrix = torch.zeros(2*n, n, dtype=torch.float64)
    for i in range(2*n):
        neighbour = i//2 + (1 if i % 2 else -1)
        matrix[i, i//2] += .75
        matrix[i, min(max(neighbour, 0), n - 1)] += .25
    return smoothing(2*n)@matrix


def finer(
    a:Tensor, # `(..., h, w)`
)->Tensor: # `(..., 2h, 2w)`
    "The next finer level, without detail."
    h, w = a.shape[-2:]
    return doubling(h)@a@doubling(w).T


def split(
    a:Tensor, # `(..., H, W)`
    levels:int, # how many
)->list[Tensor]: # fine to coarse
    "A Laplacian pyramid, by matrices."
    if levels == 1: return [a]
    H, W = a.shape[-2:]
    low = halving(H)@a@halving(W).T
    return [a - finer(low), *split(low, levels - 1)]


def joined(
    levels:list[Tensor], # fine to coarse
)->Tensor: # `(..., H, W)`
    "The picture of a pyramid."
    fine, *rest = levels
    return fine + finer(joined(rest)) if rest else fine


@row('eq-rules-fdg', cell='6eeb8cfc', mutant='the gains are those from coarse to fine', tolerance=1e-12)
def by_frequency(t):
    "Every level of a Laplacian pyramid has a gain of its own, and keeps the share eta of the part of Delta along c."
    s, eta, n = t.number('s', -3, 12), t.number('eta', -.5, 1.5), t.whole('levels', 2, 3)
    gains = t.normal(n).tolist()
    D_u, D_c, look = looks(t, (2, 12, 16))
    def formula(gains):
        def of_level(gain, delta, c):
            along = (delta*c).sum()/(c*c).sum()*c
            return c + (s - 1)*gain*(delta - along + eta*along)
        return lambda u, c: joined([of_level(*o) for o in zip(gains, split(c - u, n), split(c, n))])
    rule = fdg(gains=tuple(gains), parallel=eta)
    yield apply(rule, D_u, D_c, s, look), each(formula(gains), D_u, D_c), each(formula(gains[::-1]), D_u, D_c)


def waves(
    n:int, # pixels
)->Tensor: # `(n, n)` complex; row k is the frequency k - n//2
    "The discrete Fourier transform, as a matrix."
    k = torch.arange(n, dtype=torch.float64)
    return torch.exp(-2j*torch.pi/n*(k[:, None] - n//2)*k)


@row('eq-bands-fresca', cell='d8b80e51', mutant='the block is one wider', tolerance=1e-11)
def in_two_blocks(t):
    "Frequencies of Delta from -K to K - 1 times l, all others times h; K is given, or found by a fifth of the magnitudes."
    s, low, high = t.number('s', -3, 9), t.number('l', -.5, .9), t.number('h', 1.1, 2)
    K = t.one_of('K', [1, 2, None])
    D_u, D_c, look = looks(t, (2, 12, 16))
    down, across = waves(12), waves(16)
    def reached(sizes):
        cut = .2*sizes.sum()
        return min(3, next(k for k in range(len(sizes)) if sizes[:k + 1].sum() >= cut))
    def formula(wider):
        def of_sample(u, c):
            X = down@(c - u).to(down.dtype)@across.T
            size = X.abs().mean(0)
            half = (K or max(3, (reached(size[6]) + reached(size[:, 8]))//2)) + wider
            gain = torch.full((12, 16), high, dtype=torch.float64)
            gain[6 - half:6 + half, 8 - half:8 + half] = low
            return u + s*(down.conj().T@(gain*X)@across.conj()).real/(12*16)
        return each(of_sample, D_u, D_c)
    yield apply(fresca(low=low, high=high, cutoff=K), D_u, D_c, s, look), formula(0), formula(1)


@row('eq-bands-samg', cell='d4109120', mutant='lengths for their squares', tolerance=1e-11)
def by_pixel(t):
    "The scale falls linearly with a pixel's mean squared difference, from h s at the least to l s at the largest."
    s, low, high = t.number('s', -3, 9), t.number('l', -.5, .9), t.number('h', 1.1, 2)
    D_u, D_c, look = looks(t, (3, 6, 5))
    def formula(power):
        def of_sample(u, c):
            E = ((c - u)**2).mean(0)**power
            return u + s*(high - (high - low)*(E - E.min())/(E.max() - E.min()))*(c - u)
        return each(of_sample, D_u, D_c)
    yield apply(samg(low=low, high=high), D_u, D_c, s, look), formula(1), formula(.5)
