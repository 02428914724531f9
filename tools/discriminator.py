"""Train the discriminators that the package ships: each learns to tell a model's own samples from real pictures.

Real pictures are of the part 'fit', from which the model itself has learned; what it is tested on is 'heldout', beside
samples that it has not seen. The file bears the fingerprint of the model, and serves no other. Drawing the samples and
training take a few minutes each on one idle core.
"""
from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from cfg_course.classifiers import save_classifier
from cfg_course.core import InputError, to_uint8
from cfg_course.data import Images, load_data
from cfg_course.denoisers import Model, find_model, fingerprint
from cfg_course.energies import judge_discriminator, train_discriminator
from cfg_course.samplers import sample

WEIGHTS = Path(__file__).resolve().parents[1]/'cfg_course'/'weights'
DRAWING = dict(sampler='dpmpp', steps=16, seed=1, batch_size=256)
LEVELS = .05, .1, .2, .5, 1., 2., 5.


@dataclass
class Recipe:
    "How a discriminator is made."
    drawn:int # samples to learn from
    kept:int # samples to be tested with, beside as many real pictures
    training:dict[str, Any] = field(default_factory=dict) # for `train_discriminator`


RECIPES = {
    'mnist-a': Recipe(8000, 1000, dict(steps=1500, width=24)),
    'cifar10-16': Recipe(4000, 500, dict(steps=1500, batch_size=64, width=48, flip=True)),
}


def draw(
    model:Model, # whose samples
    meta:dict[str, Any], # its header
    num:int, # how many
    progress:bool=True, # show a bar?
)->Images: # with the labels that it was told, of which one in K + 1 is none
    "Samples of a model without guidance."
    y = torch.arange(num) % (len(meta['classes']) + 1) - 1
    x = sample(model, y, meta['shape'], progress=progress, **DRAWING)
    return Images(to_uint8(x), y, meta['classes'], meta['data'])


def rows(
    data:Images, # pictures
    part:slice, # which of them
)->Images: # some of them
    "A part of the pictures."
    return replace(data, x=data.x[part], y=data.y[part])


def make(
    name:str, # of a model
    args:argparse.Namespace, # the command line
)->None:
    "Draw, train, test and write one discriminator."
    recipe = RECIPES[name]
    model, meta = find_model(name)
    size = meta['train'].get('image_size')
    def real(part): return load_data(meta['data'], part, args.data_dir, size)
    start = time.perf_counter()
    drawn = draw(model, meta, recipe.drawn + recipe.kept)
    middle = time.perf_counter()
    net = train_discriminator(real('fit'), rows(drawn, slice(recipe.drawn)), progress=True, **recipe.training)
    end = time.perf_counter()
    others = rows(real('heldout'), slice(recipe.kept)), rows(drawn, slice(recipe.drawn, None))
    tested = [judge_discriminator(net, *others, sigma) for sigma in LEVELS]
    facts = dict(
        data=meta['data'],
        part='fit',
        model=name,
        fingerprint=fingerprint(model),
        samples=dict(DRAWING, num=recipe.drawn),
        training=recipe.training,
        tested=tested)
    path = Path(args.out)/f'{name}-discriminator.safetensors'
    save_classifier(net, path, **facts)
    for row in tested:
        print(row)
    size = path.stat().st_size/1e6
    print(path, f'{size:.2f} MB; drawn in {middle - start:.0f} s, trained in {end - middle:.0f} s', flush=True)


def main()->None:
    "Make what the command line asks for; what it gets wrong is said in one line."
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument(
        '--only', nargs='+', choices=list(RECIPES), default=list(RECIPES), metavar='MODEL',
        help=f'for which models ({" ".join(RECIPES)})')
    p.add_argument(
        '--data-dir', metavar='DIR',
        help="folder of data sets (CFG_COURSE_DATA's, or data)")
    p.add_argument(
        '--out', default=WEIGHTS, metavar='DIR',
        help="where to write MODEL-discriminator.safetensors (the package's weights)")
    args = p.parse_args()
    try:
        for name in args.only:
            make(name, args)
    except InputError as e:
        raise SystemExit(f'{Path(__file__).name}: {e}') from None


if __name__ == '__main__':
    main()
