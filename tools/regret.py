"""How much worse is a strength that was chosen with few images than one that was chosen with all?

    python tools/regret.py --keep-in FOLDER        FOLDER holds the images of a contest's first stage (tools/contests.py)

Every fourth technique, its first six strengths. Of the images of each setting a part is taken at random, as many of each
class, and the strength with the lowest score in that part is looked at with all images: by how much is its score (the
mean over the judges of the logarithm of FID) above the lowest one? Writes nbs/results/contest_MODEL_regret.csv.
"""
from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from cfg_course.contests import Entry
from cfg_course.core import InputError, check, rng, write_results
from cfg_course.metrics import distance_to
from cfg_course.standings import table_of
from cfg_course.sweeps import Drawn, Yardstick, find_images, fingerprints
from cfg_course.training import make_accelerator
from contests import RESULTS, judges_of, stage_of

PARTS = 25, 35, 50 # images of each class
SPLITS = 3 # random parts of each size


def ranks_of(
    y:Tensor, # `(N,)` labels
    split:int, # which of the random parts
)->Tensor: # `(N,)` place of each image among those of its class, at random
    "A random order within each class, the same for all settings."
    draws = torch.rand(len(y), generator=rng(split, 25))
    ranks = torch.zeros(len(y), dtype=torch.long)
    for label in y.unique():
        mine = (y == label).nonzero()[:, 0]
        ranks[mine[draws[mine].argsort()]] = torch.arange(len(mine))
    return ranks


def scores_of_parts(
    drawn:Drawn, # images of a setting
    judges:dict[str, Yardstick], # by name
)->dict[tuple[int, int], float]: # images of a class, split -> score; (0, 0) with all images
    "What all judges say of a setting, with all of its images and with parts of them."
    parts = {(size, split): ranks_of(drawn.y, split) < size for size in PARTS for split in range(SPLITS)}
    parts[0, 0] = torch.ones(len(drawn.y), dtype=torch.bool)
    logs = dict.fromkeys(parts, 0.)
    for yard in judges.values():
        features, distance = yard.observe(drawn).features, distance_to(yard.reference)
        for key, mine in parts.items():
            logs[key] += math.log(distance(features[mine]))/len(judges)
    return logs


def regrets(
    scores:dict[float, dict[tuple[int, int], float]], # strength -> part -> score
)->list[dict[str, float]]: # images, split, strength, best, regret
    "How much worse the choice of each part is than the best one."
    full = {strength: own[0, 0] for strength, own in scores.items()}
    best = min(full, key=full.__getitem__)
    rows = []
    for size, split in [key for key in next(iter(scores.values())) if key != (0, 0)]:
        chosen = min(scores, key=lambda s: scores[s][size, split])
        rows.append(dict(images=10*size, split=split, strength=chosen, best=best, regret=full[chosen] - full[best]))
    return rows


def whole_settings(
    entries:list[Entry], # of the stage
    most:int, # images of a setting
)->dict[str, list[Entry]]: # candidate -> its settings
    "Settings with all images: those of techniques that differentiate a network have fewer."
    found:dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.point.num == most:
            found.setdefault(entry.candidate, []).append(entry)
    return found


def measure(
    args:argparse.Namespace, # of the command line
)->Path: # the table that was written
    "Measure, technique by technique."
    check(args.keep_in.is_dir(), '--keep-in', str(args.keep_in), 'the folder with the images of the stage first')
    entries, _ = stage_of(args)
    most = max(e.point.num for e in entries)
    check(most >= 20*max(PARTS), 'images of a setting', most, f'at least {20*max(PARTS)}')
    judges = judges_of(args, args.model)
    weights = fingerprints([e.point for e in entries])
    acc = make_accelerator('fp32', 'cpu')
    rows = []
    for name, own in tqdm(list(whole_settings(entries, most).items())[::args.every], unit='technique'):
        scores = {}
        for entry in own:
            drawn = find_images(entry.point, weights, args.keep_in, acc, args.batch_size, middle='mean')
            scores[entry.strength] = scores_of_parts(drawn, judges)
        rows += [dict(candidate=name, **row) for row in regrets(scores)]
    path = table_of(args.model, 'regret', args.results)
    write_results(rows, path, dict(model=args.model, stage='first', images=most, splits=SPLITS, every=args.every))
    return path


def main(
    words:list[str]|None=None, # of the command line
)->None:
    "Parse the command line and run."
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--model', default='mnist-a', help='whose contest (%(default)s)')
    p.add_argument('--keep-in', type=Path, required=True, help='folder of images')
    p.add_argument('--every', type=int, default=4, help='take every so manyeth technique (%(default)s)')
    p.add_argument('--results', type=Path, default=RESULTS, help='folder of plans and tables')
    p.add_argument('--batch-size', type=int, default=250, help='as the images were drawn (%(default)s)')
    p.set_defaults(stage='first', judges=None, reference=10000, real='reference', data_dir=None, network=None)
    try:
        print(measure(p.parse_args(words)))
    except InputError as e:
        sys.exit(f'regret.py: {e}')


if __name__ == '__main__': main()
