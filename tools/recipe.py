"""Short runs that choose a recipe: networks of 2 to 7 million parameters and learning rates, at equally many images.

    python tools/recipe.py --out out/recipe                         all of them, one after the other
    python tools/recipe.py --only wide --images 100000              one of them

Every run leaves a folder with its log and its snapshots, and a row, NAME.json; `recipe.csv` is the table of all rows
that are there:

    run, widths, blocks, patch, lr    what was tried
    parameters, multiply_adds         size of the network, and what an image costs
    images, heldout                   images seen, and the lower loss of its two averages on pictures not trained on
    images_per_s                      median over the log
"""
import argparse, json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from cfg_course.cli import Parser, command, number
from cfg_course.core import write_json, writing
from cfg_course.networks import UNet, UNetConfig, count_parameters, multiply_adds
from cfg_course.training import RECIPES, TrainConfig, check_folder, train

BASE = UNetConfig(image_size=16, channels=3, patch=1, widths=(64, 128, 224), blocks=(1, 2, 1))
RUNS = {  # name -> network, learning rate
    'small': (replace(BASE, widths=(64, 128, 192), blocks=(1, 1, 1)), 1.5e-3),
    'chosen': (BASE, 1.5e-3),
    'slow': (BASE, 7.5e-4),
    'fast': (BASE, 3e-3),
    'wide': (replace(BASE, widths=(96, 192), blocks=(2, 2)), 1.5e-3),
    'patches': (replace(BASE, patch=2, widths=(112, 208), blocks=(2, 2)), 1.5e-3)}


def training_of(
    lr:float, # learning rate
    images:int, # to see
    args:argparse.Namespace, # on what
)->TrainConfig: # one snapshot at the end
    "How a candidate is trained."
    recipe = RECIPES['cifar10_16']
    steps = -(-images//recipe.batch_size)  # rounded up
    return replace(
        recipe,
        dataset=args.dataset,
        lr=lr,
        steps=steps,
        fall=0,
        snapshots=(images,),
        precision=args.precision)


def describe_net(
    net:UNetConfig, # a network
)->dict[str, Any]: # columns of the table
    "What a network is, and what it costs."
    with torch.device('meta'): parameters = count_parameters(UNet(net))
    return dict(
        widths=list(net.widths),
        blocks=list(net.blocks),
        patch=net.patch,
        parameters=parameters,
        multiply_adds=multiply_adds(net))


def measured(
    log:pd.DataFrame, # of a finished run
)->dict[str, float]: # columns of the table
    "What a run came to."
    last = log.iloc[-1]
    losses = [last[column] for column in log.columns if column.startswith('heldout')]
    return dict(heldout=min(losses), images_per_s=log.images_per_s.median())


COLUMNS = ('run', 'widths', 'blocks', 'patch', 'lr', 'parameters', 'multiply_adds', 'images', 'heldout', 'images_per_s')


def run(
    name:str, # of the run
    images:int, # to see
    args:argparse.Namespace, # where, on what
)->dict[str, Any]: # a row of the table
    "Train one of the candidates."
    net, lr = RUNS[name]
    cfg = training_of(lr, images, args)
    out = args.out/name
    how = dict(overwrite=args.overwrite, save_every=10**6, log_every=50)
    train(out, cfg, net, args.data_dir, args.device, **how)
    log = pd.read_csv(out/'log.csv')
    facts = dict(run=name, lr=lr, images=images, **describe_net(net), **measured(log))
    row = {column: facts[column] for column in COLUMNS}
    write_json(row, args.out/f'{name}.json')
    return row


def recipe_parser()->Parser: # of `recipe.py`
    "The options of `recipe.py`."
    p = Parser(prog='recipe.py', description=__doc__)
    p.add_argument('--only', nargs='+', choices=list(RUNS), default=list(RUNS), help='which runs (all)')
    p.add_argument('--images', type=number(int, 1), default=500_000, help='that each run sees (500000)')
    p.add_argument('--dataset', default='cifar10', help='cifar10, or folder (cifar10)')
    p.add_argument('--data-dir', help='where data sets are kept; for folder: the folder')
    p.add_argument('--precision', choices=['auto', 'fp32', 'bf16'], default='auto',
        help='arithmetic of the network (auto)')
    p.add_argument('--device', default='auto', help='auto, cpu, cuda')
    p.add_argument('--out', type=Path, default=Path('out/recipe'), help='folder of the runs (out/recipe)')
    p.add_argument('--overwrite', action='store_true', help='replace the runs in --out that are asked for')
    return p


def recipe_command(
    args:argparse.Namespace, # of `recipe_parser`
)->None:
    "Do what `recipe.py` was asked for."
    for name in args.only: check_folder(args.out/name, overwrite=args.overwrite)
    for name in args.only: run(name, args.images, args)
    paths = [args.out/f'{name}.json' for name in RUNS]
    rows = [json.loads(path.read_text(encoding='utf-8')) for path in paths if path.exists()]
    table = pd.DataFrame(rows)
    with writing(args.out/'recipe.csv') as tmp: table.to_csv(tmp, index=False, float_format='%.6g')
    print(table.to_string(index=False))


def main(
    argv:list[str]|None=None, # arguments; the process's own when not given
)->None:
    "Entry point."
    command(recipe_parser, recipe_command, argv)


if __name__ == '__main__': main()
