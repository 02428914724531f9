"Chapter 17e: damages."
import math

import torch

from cfg_course.core import Run, rng
from cfg_course.damages import blur_queries, blurred_attention, blurred_input, dropped_out, identity_attention
from cfg_course.damages import segments, shaken_level, skipped_parts, swapped_tokens, tempered_attention, shuffled_tokens
from cfg_course.denoisers import Denoiser
from cfg_course.networks import UNet, UNetConfig, parts, perturb
from ledger import Trial, row
from ledger.rules import levels


def network(
    t:Trial, # source of randomness
    heads:int=2, # of its attention
)->Denoiser: # of pictures (1, 8, 8), with ten classes
    "A network with random weights in float64, none of them zero."
    net = UNet(UNetConfig(image_size=8, patch=1, widths=(8, 16), emb=16, heads=heads)).double()
    for p in net.parameters():
        p.requires_grad_(False)
        p.copy_(.4*t.normal(*p.shape))
    return Denoiser(net)


def attended(
    t:Trial, # source of randomness
    denoise:Denoiser, # with attention
    weak:Denoiser, # the same, damaged
)->tuple: # (H, W), queries, keys and values of its positions, what the two see
    "What attention sees of random queries, keys and values."
    shape = t.whole('H', 3, 5), t.whole('W', 2, 6)
    q, k, v = t.normal(3, 2, 4, math.prod(shape), t.whole('width of a head', 2, 12))
    return shape, q, k, v, *(model.net.mid[1].see(q, k, v, shape) for model in (denoise, weak))


@row('eq-weak-pag', cell='f79b451d', mutant='d for its square root; the mean of V', tolerance=1e-12)
def blind(t):
    "Attention is softmax(Q K^T/sqrt d) V; when it is perturbed, it is V."
    denoise = network(t)
    _, q, k, v, whole, damaged = attended(t, denoise, identity_attention(denoise))
    formula = lambda size: (q@k.mT/size).softmax(-1)@v
    yield whole, formula(q.shape[-1]**.5), formula(q.shape[-1])
    yield damaged, v, v.mean(2, keepdim=True).expand_as(v)


@row('eq-weak-seg', cell='e4d280cb', mutant='columns of B sum to one; the exponent is not halved', tolerance=1e-12)
def blurred(t):
    "Blurring scores over the positions of queries is blurring queries, on any grid; rows of B sum to one."
    denoise, width = network(t), t.number('blur', .3, 4)
    shape, q, k, v, _, damaged = attended(t, denoise, blurred_attention(denoise, blur=width))
    place = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float64) for n in shape))
    squares = ((place[:, None] - place)**2).sum(-1)
    def B(dim, two=2):
        bell = (-squares/(two*width**2)).exp()
        return bell/bell.sum(dim, keepdim=True)
    scores = q@k.mT
    yield blur_queries(q, shape, width)@k.mT, B(1)@scores, B(0)@scores
    seen = lambda B: (B@scores/q.shape[-1]**.5).softmax(-1)@v
    yield damaged, seen(B(1)), seen(B(1, 1))


@row('eq-weak-skip', cell='7da4800c', mutant='the shortcut is left out too', tolerance=1e-12)
def skipping(t):
    "A part gives its shortcut plus m times what it adds, m being 0 or 1, for a whole batch or for each sample."
    denoise, own = network(t), (t.uniform(3) < .5).double()
    own[:2] = torch.tensor([0., 1.])
    name = t.one_of('part', list(parts(denoise.net)))
    part = parts(denoise.net)[name]
    h, emb = t.normal(3, part.norm1.num_channels if hasattr(part, 'norm1') else 16, 4, 4), t.normal(3, 16)
    told = (h, emb) if hasattr(part, 'skip') else (h,)
    shortcut = part.skip(h) if hasattr(part, 'skip') else h
    m = own.reshape(3, 1, 1, 1)
    by_sample = parts(perturb(denoise.net, keep={name: m}))[name]
    by_batch = parts(skipped_parts(denoise, skip=(name,)).net)[name]
    change = part(*told) - shortcut
    yield by_sample(*told), shortcut + m*change, m*(shortcut + change)
    yield by_batch(*told), shortcut, 0*shortcut


@row('eq-weak-tsg', cell='808e3fea', mutant='sigma for t', tolerance=1e-12)
def shaken(t):
    "The embedding gets noise of the size eta t^alpha std(e), std being that of each embedding with n - 1 below."
    eta, alpha, sigma = t.number('eta', 0, 5), t.number('alpha', .2, 3), levels(t, 6)
    e, n = t.normal(2, 6, 16)
    shake = shaken_level(network(t), strength=eta, power=alpha).change(lambda f: n, sigma)['level']
    formula = lambda time: e + eta*time[:, None]**alpha*e.var(1, keepdim=True)**.5*n
    yield shake(e), formula(2/math.pi*sigma.atan()), formula(sigma)


@row('eq-weak-sag', cell='5e1e0004', mutant='D of the blurred input itself; rows for columns', tolerance=1e-10)
def looked_at(t):
    "Where others look more than the average the prediction is blurred, and noise is compared at the old sample."
    denoise, blur = network(t), t.number('blur', .05, .3)
    x, y, sigma, maps = 2*t.normal(3, 1, 8, 8), t.labels(3, 10), t.number('sigma', .3, 3), []
    def spy(attend, q, k, v, shape): return maps.append((q@k.mT/q.shape[-1]**.5).softmax(-1).mean(1)) or attend(q, k, v, shape)
    D = Denoiser(perturb(denoise.net, see=spy))(x, sigma, y)
    place = torch.arange(8, dtype=torch.float64)
    B = (-(place - place[:, None])**2/2/(8*blur)**2).exp()
    B = B/B.sum(1, keepdim=True)
    def moved(dim):
        mask = (maps[0].sum(dim) > 1).double().reshape(3, 1, 4, 4).repeat_interleave(2, 2).repeat_interleave(2, 3)
        return x + mask*(B@D@B.mT - D)
    got, at = blurred_input(denoise, blur=blur)(x, sigma, y), moved(1)
    right = denoise(at, sigma, y) + x - at
    yield got, right, denoise(at, sigma, y)
    yield got, right, denoise(moved(2), sigma, y) + x - moved(2)


@row('eq-weak-erg', cell='5e1e0007', mutant='tau divides', tolerance=1e-12)
def tempered(t):
    "Scores of attention times a number."
    denoise, tau = network(t), t.number('tau', .01, .9)
    _, q, k, v, _, damaged = attended(t, denoise, tempered_attention(denoise, tau=tau))
    formula = lambda factor: (factor*q@k.mT/q.shape[-1]**.5).softmax(-1)@v
    yield damaged, formula(tau), formula(1/tau)


@row('eq-weak-tokens', cell='5e1e000c', mutant='the permutation is undone; the most alike are exchanged', tolerance=1e-10)
def tokens(t):
    "Tokens in another order, never put back; and the least alike tokens, then channels, exchanged in disjoint pairs."
    denoise = network(t)
    x, y, sigma, seed = 2*t.normal(3, 1, 8, 8), t.labels(3, 10), t.number('sigma', .3, 3), t.whole('seed', 0, 999)
    order = torch.stack([torch.randperm(16, generator=rng(seed, i, 17, 1)) for i in range(3)])
    def told(change): return Denoiser(perturb(denoise.net, tokens=change))(x, sigma, y)
    def by(index): return lambda h: h.flatten(2).gather(2, index[:, None].expand(-1, h.shape[1], -1)).reshape(h.shape)
    with Run(): got = shuffled_tokens(denoise, seed=seed)(x, sigma, y)
    yield got, told(by(order)), told(by(order.argsort(1)))
    def exchanged(rows, sign):
        out = rows.clone()
        for b, one in enumerate(rows):
            unit = one/one.norm(dim=1, keepdim=True)
            pairs = sorted((sign*(unit[i]@unit[j]).item(), i, j) for i in range(len(one)) for j in range(i))
            used, left = set(), int(.25*len(one))
            for _, i, j in pairs:
                if left and not {i, j} & used: out[b, [i, j]] = one[[j, i]]; used |= {i, j}; left -= 1
        return out
    def both(sign): return lambda h: exchanged(exchanged(h.flatten(2).mT, sign).mT, sign).reshape(h.shape)
    yield swapped_tokens(denoise, share=.25)(x, sigma, y), told(both(1)), told(both(-1))


@row('eq-weak-dropout', cell='5e1e0010', mutant='what is kept is not made larger', tolerance=1e-12)
def dropout(t):
    "What is kept is divided by its probability."
    p, h, keys = t.number('p', .05, .8), t.normal(5, 3, 4, 4), torch.arange(5) + t.whole('key', 0, 999)
    m = torch.stack([torch.rand(3, 4, 4, generator=rng(key, 2)) for key in keys.tolist()]) >= p
    yield dropped_out(h, keys, 2, p), m*h/(1 - p), m*h


@row('eq-weak-segments', cell='5e1e0015', mutant='the other way round', tolerance=1e-12)
def segmented(t):
    "No label above a noise level, a damaged network below, for each sample."
    denoise, switch = network(t), t.number('switch', .3, 2)
    x, y, sigma = 2*t.normal(6, 1, 8, 8), t.labels(6, 10), switch*torch.tensor([.3, .8, 1., 1.2, 3., 9.], dtype=torch.float64)
    low, high = skipped_parts(denoise)(x, sigma, y), denoise(x, sigma, torch.full_like(y, -1))
    late = (sigma <= switch)[:, None, None, None]
    yield segments(denoise, switch=switch)(x, sigma, y), torch.where(late, low, high), torch.where(late, high, low)
