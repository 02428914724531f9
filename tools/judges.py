"""Train the classifiers that the package ships, and write each with its accuracy on the test images.

A judge sees clean images, a guide (-noisy) noisy ones. The classifiers for images of 16 pixels a side, and the second
judge of MNIST, are trained on the part 'fit' of the training images, like the generators they judge; the others on all.
"""
import argparse, time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from cfg_course.classifiers import predict, save_classifier, train_classifier, train_noisy
from cfg_course.core import InputError, to_float
from cfg_course.data import load_data

WEIGHTS = Path(__file__).resolve().parents[1]/'cfg_course'/'weights'


@dataclass
class Recipe:
    "How a classifier is made."
    data:str # what it is trained on, for `load_data`
    training:dict = field(default_factory=dict) # for `train_classifier`, or for `train_noisy`
    part:str = 'train' # of the data
    image_size:int = None # side of the images; their own when not given


PHOTOS = dict(flip=True, decay=.05)
RECIPES = {
    'digits': Recipe('digits', dict(epochs=60)),
    'digits-noisy': Recipe('digits', dict(steps=1500)),
    'mnist': Recipe('mnist', dict(epochs=3)),
    'mnist-noisy': Recipe('mnist', dict(steps=1500)),
    'mnist-residual': Recipe('mnist', dict(design='residual', epochs=8), 'fit'),
    'cifar10': Recipe('cifar10', dict(epochs=8, width=48, stages=3, **PHOTOS)),
    'cifar10-noisy': Recipe('cifar10', dict(steps=2500)),
    'cifar10-16': Recipe('cifar10', dict(epochs=50, width=48, stages=3, **PHOTOS), 'fit', 16),
    'cifar10-16-residual': Recipe('cifar10', dict(design='residual', epochs=40, **PHOTOS), 'fit', 16),
    'cifar10-16-noisy': Recipe('cifar10', dict(epochs=60, width=64, **PHOTOS), 'fit', 16),
}
USUAL = 'digits', 'digits-noisy', 'mnist', 'mnist-noisy'


def is_guide(
    name:str # of a recipe
)->bool: # for noisy images?
    "Whether a recipe makes a guide."
    return name.endswith('-noisy')


def train(
    name:str, # of a recipe
    data, # its images
    training:dict, # its options
    device:str='cpu' # where to train
)->torch.nn.Module: # a judge or a guide
    "Train one classifier. The epochs of a guide are counted in steps."
    if not is_guide(name): return train_classifier(data, progress=True, device=device, **training)
    epochs, options = training.get('epochs'), {k: v for k, v in training.items() if k != 'epochs'}
    if epochs: options['steps'] = epochs*(len(data)//options.get('batch_size', 128))
    return train_noisy(data, progress=True, device=device, **options)


@torch.no_grad()
def accuracy(
    net:torch.nn.Module, # a judge or a guide
    test # images
)->float: # share that is recognised
    "Accuracy on test images; that of a guide is measured at the lowest noise."
    if net.kind == 'classifier': answers = predict(net, test.x)
    else: answers = torch.cat([net(to_float(x), .002) for x in test.x.split(1000)])
    return round((answers.argmax(1) == test.y).double().mean().item(), 4)


def make(
    name:str, # of a recipe
    args # the command line
):
    "Train, test and write one classifier."
    start, recipe = time.perf_counter(), RECIPES[name]
    source = args.cifar10 if recipe.data == 'cifar10' else recipe.data
    data, test = (load_data(source, part, args.data_dir, recipe.image_size) for part in (recipe.part, 'test'))
    training = dict(recipe.training)
    if args.epochs:
        training.pop('steps', None)
        training['epochs'] = args.epochs
    if args.width: training['width'] = args.width
    net = train(name, data, training, args.device)
    facts = dict(data=data.name, part=recipe.part, test_accuracy=accuracy(net, test), training=training)
    path = Path(args.out)/f'{name}-classifier.safetensors'
    save_classifier(net, path, **facts)
    print(path, facts, f'{path.stat().st_size/1e6:.2f} MB, {time.perf_counter() - start:.0f} s', flush=True)


def parser()->argparse.ArgumentParser: # of the command line
    "The options."
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = p.add_argument
    add('--only', nargs='+', choices=list(RECIPES), default=USUAL, metavar='NAME',
        help=f"which to train, of {', '.join(RECIPES)} ({' '.join(USUAL)})")
    add('--cifar10', default='cifar10', metavar='SOURCE',
        help='where the images of cifar10 are from: cifar10, or folder:NAME for a folder of data sets (cifar10)')
    add('--data-dir', metavar='DIR', help="folder of data sets (CFG_COURSE_DATA's, or data)")
    add('--out', default=WEIGHTS, metavar='DIR', help="where to write NAME-classifier.safetensors (the package's weights)")
    add('--epochs', type=int, help="passes over the images (the recipe's, half an hour on two cores at most)")
    add('--width', type=int, help="channels of the first stage (the recipe's)")
    add('--device', default='cpu', help='cpu, cuda, auto (cpu): a GPU can afford --epochs 60 for photographs')
    return p


if __name__ == '__main__':
    args = parser().parse_args()
    Path(args.out).mkdir(parents=True, exist_ok=True)
    try:
        for name in args.only: make(name, args)
    except InputError as e: raise SystemExit(f'{Path(__file__).name}: {e}') from None
