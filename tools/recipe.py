"""Short runs that choose a recipe: networks of 2 to 7 million parameters and learning rates, at equal numbers of images.

    python tools/recipe.py --out out/recipe                         all of them, one after the other
    python tools/recipe.py --only wide --images 100000              one of them

Every run leaves a folder with its log and its snapshots, and a row, NAME.json; `recipe.csv` is the table of all rows that are there:

    run, widths, blocks, patch, lr    what was tried
    parameters, multiply_adds         size of the network, and what an image costs
    images, heldout                   images seen, and the lower loss of its two averages on pictures that were not trained on
    images_per_s                      median over the log
"""
import argparse, json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from cfg_course.cli import Parser, command, number
from cfg_course.core import write_json, writing
from cfg_course.networks import UNet, UNetConfig, count_parameters, multiply_adds
from cfg_course.training import RECIPES, check_folder, train

BASE = UNetConfig(image_size=16, channels=3, patch=1, widths=(64, 128, 224), blocks=(1, 2, 1))
RUNS = {  # name -> network, learning rate
    'small': (replace(BASE, widths=(64, 128, 192), blocks=(1, 1, 1)), 1.5e-3),
    'chosen': (BASE, 1.5e-3),
    'slow': (BASE, 7.5e-4),
    'fast': (BASE, 3e-3),
    'wide': (replace(BASE, widths=(96, 192), blocks=(2, 2)), 1.5e-3),
    'patches': (replace(BASE, patch=2, widths=(112, 208), blocks=(2, 2)), 1.5e-3)}


def run(
    name:str, # of the run
    images:int, # to see
    args:argparse.Namespace # where, on what
)->dict: # a row of the table
    "Train one of the candidates."
    net, lr = RUNS[name]
    recipe = RECIPES['cifar10_16']
    cfg = replace(recipe, dataset=args.dataset, lr=lr, steps=-(-images//recipe.batch_size), fall=0, snapshots=(images,), precision=args.precision)
    train(args.out/name, cfg, net, args.data_dir, args.device, overwrite=args.overwrite, save_every=10**6, log_every=50)
    log = pd.read_csv(args.out/name/'log.csv')
    last = log.iloc[-1]
    with torch.device('meta'): parameters = count_parameters(UNet(net))
    facts = dict(run=name, widths=list(net.widths), blocks=list(net.blocks), patch=net.patch, lr=lr, parameters=parameters, multiply_adds=multiply_adds(net))
    row = dict(facts, images=images, heldout=min(last[c] for c in log.columns if c.startswith('heldout')), images_per_s=log.images_per_s.median())
    write_json(row, args.out/f'{name}.json')
    return row


def recipe_parser()->Parser: # of `recipe.py`
    "The options of `recipe.py`."
    p = Parser(prog='recipe.py', description=__doc__)
    p.add_argument('--only', nargs='+', choices=list(RUNS), default=list(RUNS), help='which runs (all)')
    p.add_argument('--images', type=number(int, 1), default=500_000, help='that each run sees (500000)')
    p.add_argument('--dataset', default='cifar10', help='cifar10, or folder (cifar10)')
    p.add_argument('--data-dir', help='where data sets are kept; for folder: the folder')
    p.add_argument('--precision', choices=['auto', 'fp32', 'bf16'], default='auto', help='arithmetic of the network (auto)')
    p.add_argument('--device', default='auto', help='auto, cpu, cuda')
    p.add_argument('--out', type=Path, default=Path('out/recipe'), help='folder of the runs (out/recipe)')
    p.add_argument('--overwrite', action='store_true', help='replace the runs in --out that are asked for')
    return p


def recipe_command(
    args:argparse.Namespace # of `recipe_parser`
)->None:
    "Do what `recipe.py` was asked for."
    for name in args.only: check_folder(args.out/name, overwrite=args.overwrite)
    for name in args.only: run(name, args.images, args)
    there = (args.out/f'{name}.json' for name in RUNS)
    table = pd.DataFrame([json.loads(path.read_text(encoding='utf-8')) for path in there if path.exists()])
    with writing(args.out/'recipe.csv') as tmp: table.to_csv(tmp, index=False, float_format='%.6g')
    print(table.to_string(index=False))


def main(
    argv:list=None # arguments; the process's own when not given
)->None:
    "Entry point."
    command(recipe_parser, recipe_command, argv)


if __name__ == '__main__': main()
