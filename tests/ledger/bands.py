"Chapter 17b: bands."
from itertools import product

import torch
from torch import Tensor

from cfg_course.bands import fdg
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
