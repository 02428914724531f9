"""How often do the 95 % intervals of chapter 19a hold the mean of the measure? Draw sets of images, measure them, count.

    python tools/coverage.py draw --out DIR       # images of guided models, a file for each set
    python tools/coverage.py measure --out DIR    # values and intervals under three judges, a file for each set
    python tools/coverage.py table --out DIR      # writes nbs/results/evidence_coverage.csv from what is there
    python tools/coverage.py measure --out DIR --images 1000    # the same of four sets at a time, joined
    python tools/coverage.py table --out DIR --images 1000      # writes nbs/results/evidence_coverage_1000.csv

All three are resumable: what is there is not made again. Each set has 250 images, 25 of a class, and a seed of its own,
which the points of a source share, so that pairs of points can be compared. The source mnist-real has no model: its sets
are real images of the part 'fit', no image twice, as they are and blurred.
"""
from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cfg_course.core import rng, write_results, writing
from cfg_course.data import Images, load_data, place_in_class
from cfg_course.evidence import Omitted, count_covered, difference_row, estimate, feel_all, judges_of, leave_out
from cfg_course.evidence import looks, minus, references_of
from cfg_course.sweeps import Point, draw_point
from rulers import blur

RESULTS = Path(__file__).resolve().parents[1]/'nbs'/'results'
SCALES = {'mnist-real': (0., .5), 'mnist-a': (1., 1.25, 3.), 'cifar10-16': (1., 2.5)} # of guidance; of a blur, in pixels
DATA = {'mnist-real': ('mnist', None), 'mnist-a': ('mnist', None), 'cifar10-16': ('folder:cifar10-jpeg', 16)}
IMAGES = 250 # of a set
JOINED = 1000 # of four sets
REFERENCE = 2000
SAMPLING = ('sampler', 'dpmpp'), ('steps', 8)
FIRST_SEED = 1000
LEAST = 20 # sets of a source


def set_file(
    folder:Path, # of all sets
    source:str, # of `SCALES`
    scale:float, # one of its scales
    number:int, # of the set
)->Path: # its images
    "Where a set is kept."
    return folder/'images'/f'{source}-{scale:g}'/f'{number:04d}.npz'


def draw_set(
    folder:Path, # of all sets
    source:str, # a model
    scale:float, # of guidance
    number:int, # of the set
)->None:
    "Draw a set, unless it is there; a file is whole or absent."
    path = set_file(folder, source, scale, number)
    if path.exists():
        return
    point = Point(source, 'cfg', scale, sampling=SAMPLING, seed=FIRST_SEED + number, num=IMAGES)
    drawn = draw_point(point, batch_size=125)
    with writing(path) as tmp, open(tmp, 'wb') as file:
        np.savez_compressed(file, x=drawn.x.numpy(), y=drawn.y.numpy())


@cache
def real_images()->tuple[Images, Tensor]: # the images, which place each has in its class in a random order
    "Images to make sets of."
    data = load_data('mnist', 'fit')
    data = data.take(torch.randperm(len(data), generator=rng(FIRST_SEED)))
    return data, place_in_class(data.y)


def real_set(
    number:int, # of the set
    width:float, # of the blur, in pixels
)->tuple[Tensor, Tensor]|None: # `(250, 1, 28, 28)` uint8, `(250,)`; none where there are no more images
    "A set of real images, that no other set shares an image with."
    data, place = real_images()
    some = data.take(place//(IMAGES//10) == number)
    some = some.take(some.y.argsort(stable=True))
    if len(some) < IMAGES:
        return None
    return blur(some.x, width, value=-1) if width else some.x, some.y


def set_of(
    folder:Path, # of all sets
    source:str, # of `SCALES`
    scale:float, # one of its scales
    number:int, # of the set
)->tuple[Tensor, Tensor]|None: # images and classes; none where the set is not there
    "The images of a set."
    if source == 'mnist-real':
        return real_set(number, scale)
    path = set_file(folder, source, scale, number)
    if not path.exists():
        return None
    stored = np.load(path)
    return torch.from_numpy(stored['x']), torch.from_numpy(stored['y'])


def joined_set(
    folder:Path, # of all sets
    source:str, # of `SCALES`
    scale:float, # one of its scales
    number:int, # of the joined set
    images:int, # 250, or 1,000 of four sets that no other joined set has
)->tuple[Tensor, Tensor]|None: # images and classes; none where a set is not there
    "The images of one set, or of four."
    parts = images//IMAGES
    found = [set_of(folder, source, scale, parts*number + i) for i in range(parts)]
    if any(part is None for part in found):
        return None
    x, y = zip(*found)
    return torch.cat(x), torch.cat(y)


def measured_file(
    folder:Path, # of all sets
    source:str, # of `SCALES`
    images:int, # of a set
    number:int|str, # of the set, or a pattern
)->Path:
    "Where what was measured of a set is kept."
    name = f'{number:04d}' if isinstance(number, int) else number
    return folder/'measured'/f'{source}-{images}-{name}.csv'


@cache
def yardsticks(
    source:str, # of `SCALES`
)->tuple[dict, dict]: # judges, references
    "Who judges a source, by which real images."
    name, size = DATA[source]
    data = load_data(name, 'reference', None, size)
    judges = judges_of(name, data.shape)
    return judges, references_of(judges, data, REFERENCE)


def single_rows(
    scale:float, # of the images
    felt:dict, # of `feel_all`
    omitted:Omitted, # groups
)->Iterator[tuple]: # scale, against, metric, value, low, high
    "Every measure of a set."
    for name in felt:
        yield scale, '', name, *estimate(name, felt[name], omitted)


def pair_rows(
    scale:float, # of the images
    felt:dict, # of `feel_all`
    against:float, # scale of the others
    other:dict, # of `feel_all`
    omitted:Omitted, # groups
)->Iterator[tuple]: # scale, against, metric, value, low, high
    "Every measure of a set less that of another."
    for name in felt:
        row = difference_row('', name, minus(felt[name], other[name]), omitted)
        yield scale, f'{against:g}', name, row['difference'], row['low'], row['high']


def measure_set(
    folder:Path, # of all sets
    source:str, # of `SCALES`
    number:int, # of the set
    images:int=IMAGES, # of the set
)->bool: # is the set there?
    "Measure a set at every scale, and the differences of scales that are neighbours."
    path = measured_file(folder, source, images, number)
    if path.exists():
        return True
    sets = {scale: joined_set(folder, source, scale, number, images) for scale in SCALES[source]}
    if any(found is None for found in sets.values()):
        return False
    judges, references = yardsticks(source)
    omitted = leave_out(sets[SCALES[source][0]][1], seed=number)
    felt = {}
    for scale, (x, y) in sets.items():
        for judge, seen in looks(judges, references, x, y):
            felt[judge, scale] = feel_all(seen, references[judge], omitted)
    rows = []
    for judge in judges:
        for i, scale in enumerate(SCALES[source]):
            mine = felt[judge, scale]
            found = list(single_rows(scale, mine, omitted))
            if i:
                before = SCALES[source][i - 1]
                found += pair_rows(scale, mine, before, felt[judge, before], omitted)
            rows += [(judge, *row) for row in found]
    with writing(path) as tmp:
        names = ['judge', 'scale', 'against', 'metric', 'value', 'low', 'high']
        pd.DataFrame(rows, columns=names).to_csv(tmp, index=False)
    return True


def write_table(
    folder:Path, # of all sets
    images:int=IMAGES, # of a set
)->None:
    "Count, over all sets that are measured, how often the intervals held. Who has few sets here keeps the rows of the table."
    path = RESULTS/('evidence_coverage.csv' if images == IMAGES else f'evidence_coverage_{images}.csv')
    known = pd.read_csv(path, keep_default_na=False) if path.is_file() else pd.DataFrame(dict(source=[]))
    rows = []
    for source in SCALES:
        pattern = measured_file(folder, source, images, '????')
        files = sorted(pattern.parent.glob(pattern.name))
        if len(files) < LEAST:
            kept = known[known.source == source].to_dict('records')
            print(f'{source}: {len(files)} sets, not counted; {len(kept)} rows stay as they are')
            rows += kept
            continue
        found = pd.concat([pd.read_csv(f, keep_default_na=False) for f in files])
        for key, mine in found.groupby(['judge', 'scale', 'against', 'metric'], sort=False):
            judge, scale, against, metric = key
            count = count_covered(mine[['value', 'low', 'high']].to_numpy().tolist())
            rows.append(dict(
                source=source, scale=scale, against=against, judge=judge, metric=metric, samples=images, **count._asdict()))
    write_results(rows, path, dict(samples=images, reference=REFERENCE, sampler='dpmpp', steps=8), device='cpu')
    table = pd.DataFrame(rows)
    print(table.groupby(['source', 'metric', 'says']).size().unstack(fill_value=0))


def main()->None:
    "What the command line asks for."
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('what', choices=['draw', 'measure', 'table'])
    p.add_argument('--out', type=Path, required=True, metavar='DIR', help='folder of images and of what was measured')
    p.add_argument('--sets', type=int, default=200, help='how many sets of each point (200)')
    p.add_argument('--first', type=int, default=0, help='number of the first set (0)')
    p.add_argument('--images', type=int, default=IMAGES, choices=[IMAGES, JOINED], help='of a set: 250, or 1,000 of four sets that are joined')
    p.add_argument('--sources', nargs='+', choices=list(SCALES), default=list(SCALES), help='which sources (all)')
    args = p.parse_args()
    if args.what == 'table':
        return write_table(args.out, args.images)
    for number in range(args.first, args.sets):
        for source in args.sources:
            if args.what == 'measure':
                measure_set(args.out, source, number, args.images)
            elif source != 'mnist-real':
                for scale in SCALES[source]:
                    draw_set(args.out, source, scale, number)
        print(number + 1, 'sets', flush=True)


if __name__ == '__main__': main()
