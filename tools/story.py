"""Make the pictures of the story page (nbs/story.qmd) anew: all from seeds, by the shipped model `mnist-a`.

    python tools/story.py                 all of them, a few minutes on one core
    python tools/story.py path arrows     these only

`strip` is one picture with 25 scales, of which nbs/theme/story.js shows one at a time; `path` is one digit on its way
from noise; `world` cuts the exact world's digits out of nbs/results/repair_guide.png; `arrows` is the plane. What they
were made with is written into nbs/story/story.json.
"""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cfg_course.core import NULL, Noise, image_grid, optional, set_style
from cfg_course.denoisers import find_model
from cfg_course.guidance import guide
from cfg_course.mixtures import three_gaussians
from cfg_course.samplers import make_sampler, sample, trajectory
from parts import make_parts

OUT = Path(__file__).resolve().parents[1]/'nbs'/'story'
GUIDE = OUT.parent/'results'/'repair_guide.png'
MODEL, SEED, SAMPLER, STEPS = 'mnist-a', 5, 'dpmpp', 12
NOISES, SIDE = 5, 28
SCALES = [i/4 for i in range(16)] + [4 + i/2 for i in range(9)]
STILL = [0., 1., 2., 4., 8.] # rows of the picture for a page without JavaScript
PATH = dict(label=8, seed=3, scale=3., levels=[2, 3, 4, 5, 6, 7])
ROWS = ['exact', '640k', '10k'] # of `GUIDE`, from the top
PLUS, MINUS = (1., .62, .16), (.3, .62, 1.) # colours of ink that the label adds, and takes away
BLUE, GREY, ORANGE = '#2a6fd6', '#808080', '#c77700'
SPOT = dict(x=[2.6, -.6], sigma=1.5, scale=2., label=0) # of the arrows
ARROWS = [ # from, to, colour, words, where these stand
    ('start', 'u', GREY, 'no label', (-30, -18)),
    ('start', 'c', BLUE, 'label', (8, 4)),
    ('u', 'guided', ORANGE, 'guided', (-24, 8)),
]


def draw(
    scale:float, # of guidance
    rows:list[int], # numbers of the digits: the label is the last figure, noise by noise
)->Tensor: # `(N, 1, 28, 28)` in about [-1, 1]
    "Digits of the strip: number i has noise i of the seed, whatever the scale is."
    denoise, meta = find_model(MODEL)
    labels = torch.tensor(rows) % 10
    with torch.no_grad():
        return sample(guide(denoise, scale=scale), labels, meta['shape'], SAMPLER, SEED, rows, steps=STEPS)


def as_strip(
    x:Tensor, # `(N, 1, 28, 28)` float in [-1, 1]
    cols:int=10, # digits in a row
)->np.ndarray: # uint8, one number a pixel
    "Digits side by side without a gap."
    return image_grid(x, cols=cols, pad=0)[..., 0]


def save(
    pixels:np.ndarray, # uint8, grey or RGB
    name:str, # of the file
)->None:
    "Write a PNG as small as Pillow makes it."
    OUT.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(OUT/f'{name}.png', optimize=True)


def strip()->dict: # what it was made with
    "One frame for each scale, from the top: a row for each noise, a column for each digit."
    numbers = list(range(10*NOISES))
    frames = {s: as_strip(draw(s, numbers)) for s in SCALES}
    save(np.concatenate(list(frames.values())), 'strip')
    save(np.concatenate([frames[s][:SIDE] for s in STILL]), 'still')
    made = dict(model=MODEL, seed=SEED, sampler=SAMPLER, steps=STEPS)
    return made | dict(scales=SCALES, noises=NOISES, side=SIDE, still=STILL)


def ink(
    change:Tensor, # `(N, 1, 28, 28)` of a picture; 2 is from black to white
)->np.ndarray: # `(28, N 28, 3)` uint8
    "A difference in two colours on black, each picture as bright as its own largest value allows."
    change = change/change.abs().amax((1, 2, 3), keepdim=True)
    parts = torch.stack([change.clamp(min=0), (-change).clamp(min=0)], -1)
    rgb = parts@torch.tensor([PLUS, MINUS])
    return (255*torch.cat(list(rgb[:, 0]), 1).clamp(0, 1)).round().to(torch.uint8).numpy()


class Way(NamedTuple):
    "What a network says along the way of one digit."
    levels:list[float] # noise levels, falling
    noisy:Tensor # `(N, 1, 28, 28)` what it is asked about
    none:Tensor # its guesses without the label
    label:Tensor # its guesses with it
    end:Tensor # `(1, 1, 28, 28)` the digit


def walk()->Way: # at `PATH['levels']`
    "Draw a digit by guided steps, and ask the network twice on the way."
    denoise, meta = find_model(MODEL)
    step, sigmas = make_sampler(SAMPLER, STEPS)
    start = sigmas[0].item()*Noise(PATH['seed'], [0], meta['shape'])()
    y = torch.tensor([PATH['label']])
    guided = guide(denoise, scale=PATH['scale'])
    levels = [sigmas[i].item() for i in PATH['levels']]
    with torch.no_grad():
        xs = [start] + [done.x for done in trajectory(guided, start, sigmas, y, step)]
        seen = [xs[i] for i in PATH['levels']]
        both = [denoise(x.repeat(2, 1, 1, 1), v, torch.tensor([NULL, *y])) for x, v in zip(seen, levels)]
    none, label = torch.stack(both, 1)
    return Way(levels, torch.cat(seen), none, label, xs[-1])


def path()->dict: # what it was made with
    "The noisy picture on its way, the two guesses, their difference and the guided guess: a picture of each row."
    way = walk()
    change = way.label - way.none
    shrink = [1/(1 + v**2)**.5 for v in way.levels] # noise keeps the size that a picture has
    noisy = way.noisy*torch.tensor(shrink)[:, None, None, None]
    guided = way.none + PATH['scale']*change
    rows = dict(noisy=noisy, none=way.none, label=way.label, guided=guided, end=way.end)
    for name, pictures in rows.items():
        save(as_strip(pictures, len(pictures)), f'path-{name}')
    save(ink(change), 'path-difference')
    size = change.flatten(1).norm(dim=1).tolist()
    made = dict(model=MODEL, sampler=SAMPLER, steps=STEPS, label=PATH['label'], seed=PATH['seed'], scale=PATH['scale'])
    return made | dict(levels=[round(v, 3) for v in way.levels], size=[round(v, 2) for v in size])


def world()->dict: # what it was made with
    "The rows of the exact world's digits, as chapter 26 has drawn them."
    grid = np.asarray(Image.open(GUIDE).convert('L'))
    height = len(grid)//len(ROWS)
    for i, name in enumerate(ROWS):
        save(grid[i*height:(i + 1)*height], f'world-{name}')
    return dict(rows=ROWS, source='results/repair_guide.png')


def spots()->dict[str, list[float]]: # a point each
    "Where the arrows of the plane begin and end."
    plane, x = three_gaussians(), torch.tensor([SPOT['x']], dtype=torch.float64)
    none, label = (plane(x, SPOT['sigma'], torch.tensor([k]))[0] for k in (NULL, SPOT['label']))
    guided = none + SPOT['scale']*(label - none)
    return dict(start=SPOT['x'], u=none.tolist(), c=label.tolist(), guided=guided.tolist())


def draw_dots(
    ax, # matplotlib's
)->None:
    "The three classes: the one that is asked for in blue, the others in grey."
    plane = three_gaussians()
    for k, colour in enumerate((BLUE, GREY, GREY)):
        labels, source = torch.full((500,), k), torch.Generator().manual_seed(k)
        points = plane.sample(labels, generator=source)
        ax.plot(*points.T, '.', ms=3, alpha=.4, color=colour)


def arrows()->dict: # what it was made with
    "The plane of three classes with one noisy point and the arrows of its guesses: a picture without JavaScript."
    plt, at = optional('matplotlib.pyplot'), spots()
    set_style()
    fig, ax = plt.subplots(figsize=(4.2, 4.2))
    draw_dots(ax)
    for begin, end, colour, words, aside in ARROWS:
        look = dict(arrowstyle='->', color=colour, lw=2, shrinkA=0, shrinkB=0)
        ax.annotate('', at[end], at[begin], arrowprops=look)
        ax.annotate(words, at[end], aside, textcoords='offset points', color=colour, fontsize=11, weight='bold')
    ax.plot(*at['start'], 'o', color=GREY, ms=8)
    ax.annotate('noisy point', at['start'], (-24, 10), textcoords='offset points', color=GREY, fontsize=10)
    ax.set(xlim=(-4.2, 4.2), ylim=(-3.85, 4.55), xticks=[], yticks=[], aspect='equal')
    fig.tight_layout()
    fig.savefig(OUT/'arrows.png', dpi=150, transparent=True)
    plt.close(fig)
    return SPOT | {k: [round(v, 3) for v in at[k]] for k in ('u', 'c', 'guided')}


PARTS: dict[str, Callable[[], dict]] = dict(strip=strip, path=path, world=world, arrows=arrows)


def main()->None:
    "Parse the command line and make the pictures."
    make_parts(__doc__, PARTS, OUT/'story.json', indent=1)


if __name__ == '__main__': main()
