"""Which judge is the finer ruler? Real images are damaged in five ways at four levels; FID has to rise with every level.

    python tools/rulers.py mnist mnist-unlabelled mnist-fit            # names of shipped judges, or files
    python tools/judges.py --only mnist-unlabelled --epochs 1 --out try    # the other kind without labels: turned images

Each judge gets a row for each damage in nbs/results/evidence_judges.csv: the least rise of FID from one level to the next,
in standard deviations over sets of images.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from cfg_course.classifiers import Judge, load_classifier
from cfg_course.core import InputError, to_float, to_uint8, write_results
from cfg_course.data import Images, load_data
from cfg_course.evidence import all_features
from cfg_course.metrics import distance_to, equal_shares, make_reference

RESULTS = Path(__file__).resolve().parents[1]/'nbs'/'results'/'evidence_judges.csv'
DATA = dict(mnist=('mnist', None), cifar10=('folder:cifar10-jpeg', 16))
CONFIG = dict(samples=500, draws=3, reference=4000)


def blurred(x, y, level):
    "A blur of .4 pixels for each level."
    return blur(x, .4*level, mode='replicate') if level else x


def moved(x, y, level):
    "A pixel down and to the right for each level."
    return x.roll((level, level), (2, 3))


def saturated(x, y, level):
    "Half of the contrast more for each level."
    return to_uint8((to_float(x)*(1 + .5*level)).clamp(-1, 1))


def narrowed(x, y, level):
    "A fifth of the variety less for each level."
    return nearest_mean(x, y, 1 - .2*level)


def swapped(x, y, level):
    "A tenth of every second class exchanged for each level."
    return neighbours(x, y, .1*level)


def blur(
    x:Tensor, # `(N, C, H, W)` uint8
    width:float, # of the Gaussian, in pixels
    **beyond, # what stands beyond the edges, for `F.pad`
)->Tensor: # same shape
    "Blurred images."
    places = torch.arange(-3, 4)
    row = (-places.square()/(2*width**2)).exp()
    kernel = torch.outer(row, row)/row.sum()**2
    pixels = F.pad(to_float(x).flatten(0, 1)[:, None], [3]*4, **beyond)
    return to_uint8(F.conv2d(pixels, kernel[None, None]).view(x.shape))


def nearest_mean(
    x:Tensor, # `(N, C, H, W)` uint8
    y:Tensor, # `(N,)` classes
    share:float, # of each class
)->Tensor: # `(N, C, H, W)`, in which the images nearest to the mean of their class stand in for the others
    "Images of less variety."
    x = x.clone()
    for k in y.unique():
        mine = (y == k).nonzero()[:, 0]
        flat = to_float(x[mine]).flatten(1)
        order = mine[(flat - flat.mean(0)).square().sum(1).argsort()]
        keep = order[:max(1, int(share*len(order)))]
        x[mine] = x[keep[torch.arange(len(mine)) % len(keep)]]
    return x


def neighbours(
    x:Tensor, # `(N, C, H, W)` uint8
    y:Tensor, # `(N,)` classes, 0 to K - 1
    share:float, # of the images of every second class
)->Tensor: # same shape
    "Images of which some show the next class."
    x = x.clone()
    for k in y.unique()[::2]:
        mine, theirs = (y == k).nonzero()[:, 0], (y == k + 1).nonzero()[:, 0]
        n = int(share*len(mine))
        x[mine[:n]] = x[theirs[:n]]
    return x


DAMAGES = dict(
    blur=blurred, shift=moved, saturation=saturated, narrowed=narrowed, swapped=swapped)


def separations(
    judge:Judge, # any
    data:Images, # real images to be damaged
    reference:Images, # real images to compare with
    draws:int=CONFIG['draws'], # sets of images
    num:int=CONFIG['samples'], # images in each
)->dict[str, float]: # damage -> the least step from one level to the next, in standard deviations
    "How surely FID tells a damage from the next stronger one."
    real = make_reference(judge, reference, CONFIG['reference'])
    distance = distance_to(real)
    found = {}
    for name, damage in DAMAGES.items():
        fids = torch.zeros(draws, 4, dtype=torch.float64)
        for i in range(draws):
            some = data.take(equal_shares(data.y, num, i))
            for level in range(4):
                x = damage(some.x, some.y, level)
                fids[i, level] = distance(all_features(judge, x).double())
        steps = fids.diff(dim=1)
        found[name] = (steps.mean(0)/steps.std(0)).min().item()
    return found


def main()->None:
    "Measure some judges, and put their rows beside those that are there."
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('dataset', choices=list(DATA))
    p.add_argument('judges', nargs='+', metavar='JUDGE', help='names of shipped judges, or files')
    args = p.parse_args()
    name, size = DATA[args.dataset]
    try:
        data, reference = (load_data(name, part, None, size) for part in ('fit', 'reference'))
        for judge in args.judges:
            found = separations(load_classifier(judge, shape=data.shape)[0], data, reference)
            put_rows(args.dataset, Path(judge).stem.removesuffix('-classifier'), found)
    except InputError as e:
        raise SystemExit(f'{Path(__file__).name}: {e}') from None


def put_rows(
    dataset:str, # mnist, cifar10
    judge:str, # name
    found:dict[str, float], # damage -> separation
)->None:
    "Write the rows of a judge, in place of those that it had."
    rows = pd.DataFrame([dict(dataset=dataset, judge=judge, damage=k, separation=round(v, 1)) for k, v in found.items()])
    if RESULTS.exists():
        old = pd.read_csv(RESULTS)
        rows = pd.concat([old[old.judge != judge], rows])
    write_results(rows.to_dict('records'), RESULTS, CONFIG, device='cpu')
    print(judge, found, flush=True)


if __name__ == '__main__': main()
