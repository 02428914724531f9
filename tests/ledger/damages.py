"Chapter 17e: damages."
import math

import torch

from cfg_course.damages import blur_queries, blurred_attention, identity_attention, shaken_level, skipped_parts
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
