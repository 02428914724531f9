"""Train the classifiers that the package ships, and write each with its accuracy on the test images.

A judge sees clean images, a guide (-noisy) noisy ones; the features of a judge that is -unlabelled know no labels. The
classifiers for images of 16 pixels a side, and all judges of MNIST but the first, are trained on the part 'fit' of the
training images, like the generators they judge; the others on all.
"""
from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from cfg_course.classifiers import Judge, NoisyClassifier, predict, save_classifier, train_classifier, train_noisy
from cfg_course.core import InputError, to_float
from cfg_course.data import Images, load_data
from cfg_course.evidence import train_unlabelled

WEIGHTS = Path(__file__).resolve().parents[1]/'cfg_course'/'weights'


@dataclass
class Recipe:
    "How a classifier is made."
    data:str # what it is trained on, for `load_data`
    training:dict[str, Any] = field(default_factory=dict) # for `train_classifier`, or for `train_noisy`
    part:str = 'train' # of the data
    image_size:int|None = None # side of the images; their own when not given


PHOTOS = dict(flip=True, decay=.05)
RECIPES = {
    'digits': Recipe('digits', dict(epochs=60)),
    'digits-noisy': Recipe('digits', dict(steps=1500)),
    'mnist': Recipe('mnist', dict(epochs=3)),
    'mnist-noisy': Recipe('mnist', dict(steps=1500)),
    'mnist-fit': Recipe('mnist', dict(epochs=3, seed=1), 'fit'),
    'mnist-residual': Recipe('mnist', dict(design='residual', epochs=8), 'fit'),
    'mnist-unlabelled': Recipe('mnist', dict(epochs=0, width=16), 'fit'),
    'cifar10': Recipe('cifar10', dict(epochs=8, width=48, stages=3, **PHOTOS)),
    'cifar10-noisy': Recipe('cifar10', dict(steps=2500)),
    'cifar10-16': Recipe('cifar10', dict(epochs=50, width=48, stages=3, **PHOTOS), 'fit', 16),
    'cifar10-16-residual': Recipe('cifar10', dict(design='residual', epochs=40, **PHOTOS), 'fit', 16),
    'cifar10-16-unlabelled': Recipe('cifar10', dict(epochs=0, width=24, stages=3), 'fit', 16),
    'cifar10-16-noisy': Recipe('cifar10', dict(epochs=60, width=64, **PHOTOS), 'fit', 16),
}
USUAL = 'digits', 'digits-noisy', 'mnist', 'mnist-noisy'


def is_guide(
    name:str, # of a recipe
)->bool: # for noisy images?
    "Whether a recipe makes a guide."
    return name.endswith('-noisy')


def in_steps(
    training:dict[str, Any], # options of a guide, maybe with `epochs`
    images:int, # how many there are
)->dict[str, Any]: # options for `train_noisy`
    "The options of a guide, whose epochs are counted in steps."
    options = dict(training)
    epochs = options.pop('epochs', None)
    if epochs:
        batch_size = options.get('batch_size', 128)
        options['steps'] = epochs*(images//batch_size)
    return options


def train(
    name:str, # of a recipe
    data:Images, # what to train on
    training:dict[str, Any], # options
    device:str='cpu', # where to train
)->Judge|NoisyClassifier: # a judge or a guide
    "Train one classifier."
    if is_guide(name):
        options = in_steps(training, len(data))
        return train_noisy(data, progress=True, device=device, **options)
    if name.endswith('-unlabelled'):
        return train_unlabelled(data, **training)
    return train_classifier(data, progress=True, device=device, **training)


@torch.no_grad()
def at_low_noise(
    net:NoisyClassifier, # a guide
    x:torch.Tensor, # `(N, C, H, W)` uint8
)->torch.Tensor: # `(N, K)` logits
    "What a guide says of images at the lowest noise."
    answers = [net(to_float(part), .002) for part in x.split(1000)]
    return torch.cat(answers)


def accuracy(
    net:Judge|NoisyClassifier, # to be tested
    test:Images, # with what
)->float: # share that is recognised, to four decimals
    "Accuracy on test images; that of a guide is measured at the lowest noise."
    answer = predict if isinstance(net, Judge) else at_low_noise
    right = answer(net, test.x).argmax(1) == test.y
    return round(right.double().mean().item(), 4)


def options_of(
    recipe:Recipe, # how it is made
    args:argparse.Namespace, # the command line, which may say otherwise
)->dict[str, Any]: # options of the training
    "How long to train, and how wide a network."
    training = dict(recipe.training)
    if args.epochs:
        training.pop('steps', None)
        training['epochs'] = args.epochs
    if args.width:
        training['width'] = args.width
    return training


def make(
    name:str, # of a recipe
    args:argparse.Namespace, # the command line
)->None:
    "Train, test and write one classifier."
    start = time.perf_counter()
    recipe = RECIPES[name]
    source = args.cifar10 if recipe.data == 'cifar10' else recipe.data
    def images(part): return load_data(source, part, args.data_dir, recipe.image_size)
    data = images(recipe.part)
    test = images('test')
    training = options_of(recipe, args)
    net = train(name, data, training, args.device)
    facts = dict(
        data=data.name,
        part=recipe.part,
        test_accuracy=accuracy(net, test),
        training=training)
    path = Path(args.out)/f'{name}-classifier.safetensors'
    save_classifier(net, path, **facts)
    size = path.stat().st_size/1e6
    seconds = time.perf_counter() - start
    print(path, facts, f'{size:.2f} MB, {seconds:.0f} s', flush=True)


def parser()->argparse.ArgumentParser: # of the command line
    "The options."
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = f"{', '.join(RECIPES)} ({' '.join(USUAL)})"
    p.add_argument(
        '--only', nargs='+', choices=list(RECIPES), default=USUAL, metavar='NAME',
        help=f'which to train, of {names}')
    p.add_argument(
        '--cifar10', default='cifar10', metavar='SOURCE',
        help='where the images of cifar10 are from: cifar10, or folder:NAME for a folder of data sets (cifar10)')
    p.add_argument(
        '--data-dir', metavar='DIR',
        help="folder of data sets (CFG_COURSE_DATA's, or data)")
    p.add_argument(
        '--out', default=WEIGHTS, metavar='DIR',
        help="where to write NAME-classifier.safetensors (the package's weights)")
    p.add_argument(
        '--epochs', type=int,
        help="passes over the images (the recipe's, half an hour on two cores at most)")
    p.add_argument(
        '--width', type=int,
        help="channels of the first stage (the recipe's)")
    p.add_argument(
        '--device', default='cpu',
        help='cpu, cuda, auto (cpu): a GPU can afford --epochs 60 for photographs')
    return p


def main()->None:
    "Make what the command line asks for; what it gets wrong is said in one line."
    args = parser().parse_args()
    Path(args.out).mkdir(parents=True, exist_ok=True)
    try:
        for name in args.only:
            make(name, args)
    except InputError as e:
        raise SystemExit(f'{Path(__file__).name}: {e}') from None


if __name__ == '__main__': main()
