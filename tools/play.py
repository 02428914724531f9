"""Make the files of the page to play with (nbs/play.qmd) anew, from the shipped world of digits.

    python tools/play.py                 all of them, a minute on one core
    python tools/play.py values          these only

`world` writes nbs/play/digits.bin, the world that the browser loads: the same modes in `K` coordinates and in bytes.
`values` is what Python says of that world, for tests/test_play.py, and how far it is from the shipped one; `digits` and
`plane` are the pictures of a page whose figures cannot move. What they were made with is in nbs/play/play.json.

The file is one line of JSON, padded with blanks to a multiple of eight bytes, then the arrays that it names, then a sum.
"""
from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cfg_course.core import NULL, image_grid, optional, set_style
from cfg_course.guidance import guide
from cfg_course.mixtures import three_gaussians
from cfg_course.pictures import PictureWorld, find_world, orthonormal
from cfg_course.rules import apg, rescale
from cfg_course.samplers import Step, make_sampler, trajectory
from parts import make_parts

OUT = Path(__file__).resolve().parents[1]/'nbs'/'play'
WORLD, K = 'digits-world', 256 # coordinates that are kept
SIDE = 28
STEPS, LOW, HIGH = 12, .002, 80. # of DPM-Solver++(2M), and the noise levels of its ends
FIRST = 7000 # noise number n of the page is stream(FIRST + n)
INSIDE = (.3, 5.) # noise levels of the rule `interval`
RULES = dict( # name on the page -> what `guide` is given
    plain={},
    interval=dict(interval=INSIDE),
    across=dict(rule=apg(eta=0., threshold=0., momentum=0.)),
    rescale=dict(rule=rescale(phi=.7)))
STILL = [0., 1., 2., 4., 8.] # rows of the picture for a page that cannot move
TRIED = [ # digit, noise, scale, rule: what the tests compare
    (3, 1, 1., 'plain'), (3, 1, 4., 'plain'), (8, 2, 8., 'plain'), (0, 5, 0., 'plain'), (1, 3, 2.5, 'interval'),
    (4, 4, 8., 'interval'), (7, 6, 3., 'across'), (5, 7, 8., 'across'), (9, 8, 3., 'rescale'), (2, 9, 8., 'rescale')]
BLUE, GREY, ORANGE = '#2a6fd6', '#808080', '#c77700'


# The world in few coordinates and bytes

def usual_directions(
    world:PictureWorld, # in pixels
)->Tensor: # `(K, D)` orthonormal, the one with most first
    "Directions that leave out as little as K can: of the second moments of the world's pictures, counted from grey."
    means = world.means*world.weights[:, None]**.5
    wide = (world.weights[:, None]*world.variances)**.5
    along = (world.directions*wide[..., None]).flatten(0, 1)
    moments = means.T@means + along.T@along
    return torch.linalg.eigh(moments).eigenvectors.T.flip(0)[:K]


def in_whole(
    rows:Tensor, # `(..., D)`
    most:int, # the largest whole number
)->tuple[Tensor, Tensor]: # the same, rounded to whole numbers; `(..., 1)` what one of them is worth
    "Rows as whole numbers, each with its own unit."
    unit = rows.abs().amax(-1, keepdim=True)/most
    return (rows/unit).round(), unit


def to_file(
    world:PictureWorld, # in pixels
)->dict[str, np.ndarray]: # name -> numbers
    "What digits.bin holds. Only the sides of directions matter, so theirs have no unit; the reader makes them orthonormal."
    basis, _ = in_whole(usual_directions(world), 127)
    frame = orthonormal(basis[None])[0]
    order = world.variances.argsort(1, descending=True)
    axes = torch.gather(world.directions, 1, order[..., None].expand_as(world.directions))
    directions, _ = in_whole(axes@frame.T, 127)
    means, unit = in_whole(world.means@frame.T, 32767)
    variances = world.variances.gather(1, order)
    return dict(
        weights=world.weights.numpy().astype('<f8'), unit=unit[:, 0].numpy().astype('<f8'),
        variances=variances.numpy().astype('<f4'), means=means.numpy().astype('<i2'),
        labels=world.labels.numpy().astype('u1'), basis=basis.numpy().astype('i1'),
        directions=directions.numpy().astype('i1'))


def checksum(
    data:bytes, # of the file
)->int: # of 32 bits
    "A sum that notices a file cut short or mixed up (Fletcher's, modulo 65535 over bytes)."
    values = np.frombuffer(data, 'u1').astype(np.int64)
    places = np.arange(len(values), 0, -1, dtype=np.int64)
    return int((values*(places % 65535)).sum() % 65535)*65536 + int(values.sum() % 65535)


def packed(
    arrays:dict[str, np.ndarray], # of `to_file`
    floor:float, # variance off the planes
)->bytes: # of the file
    "A line of JSON and the arrays, the widest numbers first so that each begins where it may."
    body = b''.join(a.tobytes() for a in arrays.values())
    facts = dict(format='cfg-course digits 1', source=WORLD, floor=floor, side=SIDE)
    facts['arrays'] = {k: [a.dtype.str.strip('<|'), list(a.shape)] for k, a in arrays.items()}
    head = json.dumps(facts)
    whole = head.ljust(8*math.ceil((len(head) + 1)/8) - 1).encode() + b'\n' + body
    return whole + np.array(checksum(whole), '<f8').tobytes()


def unpack(
    data:bytes, # of the file
)->PictureWorld: # in pixels
    "The world that the browser has, from the file that it reads."
    head, body = data.split(b'\n', 1)
    facts, arrays, at = json.loads(head), {}, 0
    for name, (kind, shape) in facts['arrays'].items():
        flat = np.frombuffer(body, '<' + kind, math.prod(shape), at)
        arrays[name] = torch.from_numpy(flat.reshape(shape).astype(np.float64))
        at += flat.nbytes
    frame = orthonormal(arrays['basis'][None])[0]
    means = arrays['means']*arrays['unit'][:, None]@frame
    directions = orthonormal(arrays['directions'])@frame
    return PictureWorld(means, directions, arrays['variances'], facts['floor'], arrays['weights'],
        arrays['labels'].long(), (1, SIDE, SIDE), 0.)


def world()->dict: # what it was made with
    "The file that the browser loads."
    full, _ = find_world(WORLD)
    data = packed(to_file(full), full.floor)
    (OUT/'digits.bin').write_bytes(data)
    return dict(source=WORLD, coordinates=K, bytes=len(data))


def shipped()->PictureWorld: # of nbs/play/digits.bin
    "The world of the page."
    return unpack((OUT/'digits.bin').read_bytes())


# A digit of the page

def uniform(
    seed:int, # of 32 bits
)->Iterator[float]: # from 0 to 1
    "The random numbers of theme/play.js (mulberry32)."
    a = seed
    while True:
        a = (a + 0x6D2B79F5) & 0xFFFFFFFF
        t = (a ^ a >> 15)*(1 | a) & 0xFFFFFFFF
        t = (t + ((t ^ t >> 7)*(61 | t) & 0xFFFFFFFF) & 0xFFFFFFFF) ^ t
        yield (t ^ t >> 14)/4294967296


def noise(
    number:int, # of the page
)->Tensor: # `(1, 1, 28, 28)` standard normal
    "The noise with which the page begins (Box and Muller)."
    draws = uniform(FIRST + number)
    pairs = [(next(draws), next(draws)) for _ in range(SIDE**2)]
    normal = [math.sqrt(-2*math.log(1 - u))*math.cos(2*math.pi*v) for u, v in pairs]
    return torch.tensor(normal, dtype=torch.float64).reshape(1, 1, SIDE, SIDE)


def walk(
    digits:PictureWorld, # in pixels
    label:int, # the digit that is asked for
    number:int, # of the noise
    scale:float, # of guidance
    rule:str, # one of `RULES`
)->tuple[Tensor, list[Step], list[float]]: # where it begins, its steps, their noise levels
    "The way of one digit from noise."
    step, sigmas = make_sampler('dpmpp', STEPS, 'karras', LOW, HIGH)
    start, guided = HIGH*noise(number), guide(digits, scale=scale, **RULES[rule])
    return start, list(trajectory(guided, start, sigmas, torch.tensor([label]), step)), sigmas.tolist()


class Drawn(NamedTuple):
    "A digit of the page, and what the world says of it."
    label:int # that was asked for
    noise:int # number
    scale:float # of guidance
    rule:str # one of `RULES`
    log_prob:float # of the digit in its class, in nats
    log_class:list[float] # log of the posterior of each class
    mode:int # of the class, the likeliest
    share:float # its share of the class's density there
    pixels:list[float] # every ninth of the digit
    sure:list[float] # posterior of the label on the way, at each noise level
    none:list[float] # every ninth pixel of D_u at the fifth level
    own:list[float] # of D_c
    guided:list[float] # of what guidance makes of them


def facts_of(
    digits:PictureWorld, # in pixels
    label:int, # as for `walk`
    number:int,
    scale:float,
    rule:str,
)->Drawn: # what the page should show
    "One digit with its numbers."
    start, steps, sigmas = walk(digits, label, number, scale, rule)
    xs, y = [start, *(s.x for s in steps)], torch.tensor([label])
    x, early, at = xs[-1], xs[4], sigmas[4]
    few = lambda t: t.flatten()[::9].tolist()
    shares = digits.mode_posterior(x, 0., y)[0]
    classes = [digits.log_class(x, 0., torch.tensor([k])).item() for k in range(10)]
    sure = [digits.posterior(x, s)[0, label].item() for x, s in zip(xs, sigmas)]
    none, own = (digits(early, at, torch.tensor([k])) for k in (NULL, label))
    return Drawn(label, number, scale, rule, digits.log_prob(x, 0., y).item(), classes, int(shares.argmax()),
        shares.max().item(), few(x), sure, few(none), few(own), few(steps[4].x0_hat))


def effect(
    digits:PictureWorld, # of the page
    scale:float=3., # of guidance
)->dict[str, float]: # how far it is from the shipped world
    "The same hundred noises in both worlds: how far the digits differ, in grey levels of 255, and how many keep their mode."
    full, _ = find_world(WORLD)
    step, sigmas = make_sampler('dpmpp', STEPS, 'karras', LOW, HIGH)
    y, start = torch.arange(100) % 10, HIGH*torch.cat([noise(i) for i in range(100)])
    a, b = ([*trajectory(guide(w, scale=scale), start, sigmas, y, step)][-1].x for w in (full, digits))
    away = 127.5*(a - b).flatten(1)
    kept = (full.mode_posterior(a, 0., y).argmax(1) == digits.mode_posterior(b, 0., y).argmax(1)).double()
    each = away.square().mean(1).sqrt()
    true = full.sample(y, generator=torch.Generator().manual_seed(0))
    read = (digits.posterior(true, .1).argmax(1) == full.posterior(true, .1).argmax(1)).double()
    return dict(median=each.median().item(), worst=each.max().item(), same_mode=kept.mean().item(), same_class=read.mean().item())


def typical(
    digits:PictureWorld, # of the page
)->list[float]: # between which nine in ten lie
    "Log-likelihoods of a thousand true digits, each in its class."
    y = torch.arange(1000) % 10
    logs = digits.log_prob(digits.sample(y, generator=torch.Generator().manual_seed(1)), 0., y)
    return [round(v, 1) for v in logs.quantile(torch.tensor([.05, .95], dtype=torch.float64)).tolist()]


def rounded(
    values:dict, # of `Drawn`
)->dict: # the same with twelve figures
    "Numbers as short as the tests allow."
    def short(v):
        if isinstance(v, list): return [short(o) for o in v]
        return float(f'{v:.12g}') if isinstance(v, float) else v
    return {k: short(v) for k, v in values.items()}


def values()->dict: # for the tests
    "What Python says of some digits of the page, and how far its world is from the shipped one."
    digits = shipped()
    tried = [rounded(facts_of(digits, *one)._asdict()) for one in TRIED]
    effects = {k: round(v, 2) for k, v in effect(digits).items()}
    return dict(effect=effects, typical=typical(digits), tried=tried)


# Pictures of a page that cannot move

def digits()->dict: # what it was made with
    "Ten digits from one noise each, a row for each scale."
    here = shipped()
    rows = [torch.cat([walk(here, k, k, s, 'plain')[1][-1].x for k in range(10)]) for s in STILL]
    picture = image_grid(torch.cat(rows).float(), cols=10, pad=0)[..., 0]
    Image.fromarray(picture).save(OUT/'digits.png', optimize=True)
    return dict(scales=STILL)


def plane()->dict: # what it was made with
    "Four hundred guided samples of a class in the plane, and the arrow of one."
    plt, here, n = optional('matplotlib.pyplot'), three_gaussians(), 400
    step, sigmas = make_sampler('heun', 18, 'karras', .02, 40.)
    x = 40*torch.randn(n, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    *_, last = trajectory(guide(here, scale=4.), x, sigmas, torch.zeros(n, dtype=torch.long), step)
    spot, sigma = torch.tensor([[2.6, -.6]], dtype=torch.float64), 1.5
    none, own = (here(spot, sigma, torch.tensor([k]))[0] for k in (NULL, 0))
    set_style()
    fig, ax = plt.subplots(figsize=(4.2, 4.2))
    for k, colour in enumerate((BLUE, GREY, GREY)):
        true = here.sample(torch.full((500,), k), generator=torch.Generator().manual_seed(k))
        ax.plot(*true.T, '.', ms=3, alpha=.3, color=colour)
    ax.plot(*last.x.T, '.', ms=4, color=ORANGE)
    for end, begin in ((none, spot[0]), (own, spot[0]), (none + 4*(own - none), none)):
        ax.annotate('', end.tolist(), begin.tolist(), arrowprops=dict(arrowstyle='->', color=GREY, lw=1.6, shrinkA=0, shrinkB=0))
    ax.set(xlim=(-4.2, 4.2), ylim=(-4.2, 4.2), aspect='equal', xlabel='first coordinate', ylabel='second coordinate')
    fig.tight_layout()
    fig.savefig(OUT/'plane.png', dpi=130, transparent=True)
    plt.close(fig)
    return dict(scale=4, dots=n)


PARTS: dict[str, Callable[[], dict]] = dict(world=world, values=values, digits=digits, plane=plane)


def main()->None:
    "Parse the command line and make the files."
    make_parts(__doc__, PARTS, OUT/'play.json')


if __name__ == '__main__': main()
