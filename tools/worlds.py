"""Fit the worlds of pictures that the package ships (chapter 8), each from training images alone.

    python tools/worlds.py digits-world                       fit and write one
    python tools/worlds.py digits-world --compare 10x14 30x14 --results nbs/results/worlds_digits.csv    other sizes

A class is divided into modes by k-means, and a mode is a probabilistic principal component analysis of its pictures
(Tipping & Bishop 1999) whose residual variance is replaced by a small floor, lest pictures look like noise. How many
modes and directions there are is chosen by the log-likelihood of test images with the residual variance kept.
"""
from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path


import torch
from sklearn.cluster import KMeans
from torch import Tensor

from cfg_course.core import InputError, to_float, write_json, write_results
from cfg_course.data import Images, load_data
from cfg_course.pictures import WORLDS, PictureWorld, load_world, save_world


@dataclass
class Recipe:
    "How a world is made."
    data:str # what it is fitted to, for `load_data`
    modes:int # of a class
    rank:int # directions of a mode
    floor:float # standard deviation in the other directions
    source:str # where the images are from, and under which terms
    image_size:int|None = None # side of the images; their own when not given


RECIPES = {
    'small-world': Recipe(
        'digits', 3, 6, .06,
        'digits of the UCI repository (Alpaydin & Kaynak 1998, CC BY 4.0)'),
    'digits-world': Recipe(
        'mnist', 30, 14, .03,
        'MNIST (LeCun, Cortes & Burges 1998, CC BY-SA 3.0)'),
    'thumbnails-world': Recipe(
        'cifar10', 10, 40, .03,
        'CIFAR-10 (Krizhevsky 2009), whose pictures are from the Tiny Images; no licence is stated; thumbnails by area averaging', 16),
}


@dataclass
class Fit:
    "Modes of all classes, before the floor is chosen."
    means:Tensor # `(M, D)`
    directions:Tensor # `(M, R, D)`
    variances:Tensor # `(M, R)`
    residual:Tensor # `(M,)` mean variance in the other directions
    counts:Tensor # `(M,)` pictures
    labels:Tensor # `(M,)`


# Fitting

def cluster(
    x:Tensor, # `(N, D)` pictures of a class
    modes:int, # how many
    seed:int, # of k-means
)->Tensor: # `(N,)` 0, 1, ...
    "K-means in the 40 principal directions of the class."
    z = x - x.mean(0)
    _, _, V = torch.pca_lowrank(z, min(40, *z.shape), niter=4)
    found = KMeans(modes, n_init=1, max_iter=50, random_state=seed).fit_predict((z@V).numpy())
    return torch.from_numpy(found).long()


def mode_of(
    x:Tensor, # `(n, D)` float64, pictures of a mode
    rank:int, # directions
)->tuple[Tensor, Tensor, Tensor, Tensor]: # mean, directions, variances, residual
    "Probabilistic principal component analysis."
    mean = x.mean(0)
    _, s, V = torch.linalg.svd(x - mean, full_matrices=False)
    eigs = s**2/(len(x) - 1)
    residual = eigs[rank:].sum()/(x.shape[1] - rank)
    return mean, V[:rank], eigs[:rank], residual


def fit(
    images:Images, # of all classes
    modes:int, # of a class
    rank:int, # directions of a mode
    seed:int=0, # of k-means
)->Fit: # modes with at least three pictures to a direction
    "The modes of every class, in class order."
    torch.manual_seed(seed) # of pca_lowrank
    x = to_float(images.x).flatten(1)
    found, labels, counts = [], [], []
    for label in range(len(images.classes)):
        own = x[images.y == label]
        place = cluster(own, modes, seed)
        for k in range(modes):
            part = own[place == k].double()
            if len(part) < 3*rank: # its pictures go to no mode
                continue
            found.append(mode_of(part, rank))
            labels.append(label)
            counts.append(len(part))
    means, directions, variances, residual = (torch.stack(o) for o in zip(*found))
    return Fit(means, directions, variances, residual, torch.tensor(counts), torch.tensor(labels))


def as_world(
    fitted:Fit, # modes
    floor:float, # variance in the other directions
    shape:tuple[int, ...], # of a picture
    keep:bool=True, # the variance along the directions; else less the residual, and the floor on top
)->PictureWorld: # a world
    "A world of modes with one floor for all."
    variances = fitted.variances if keep else (fitted.variances - fitted.residual[:, None]).clamp(min=0) + floor
    weights = fitted.counts.double()
    return PictureWorld(
        fitted.means, fitted.directions, variances, floor,
        weights/weights.sum(), fitted.labels, shape)


# Choosing

def heldout_bits(
    fitted:Fit, # modes
    train:Images, # which it was fitted to
    test:Images, # which it was not
)->dict[str, float]: # bits a pixel of both, and the root mean square residual
    "Log-likelihood of images in bits a pixel, with the residual variance as the floor, as it was fitted."
    shape = tuple(train.x.shape[1:])
    residual = (fitted.residual*fitted.counts).sum()/fitted.counts.sum()
    world = as_world(fitted, residual.item(), shape)
    def bits(images):
        x = to_float(images.x[:5000]).double()
        parts = [world.log_prob(a, 0., b) for a, b in zip(x.split(500), images.y[:5000].split(500))]
        nats = torch.cat(parts).mean().item()
        return round(-nats/world.dim/0.6931471805599453, 4)
    return dict(
        modes=len(fitted.labels), bits_heldout=bits(test), bits_train=bits(train),
        residual=round(residual.item()**.5, 4))


def compare(
    name:str, # of a recipe
    sizes:list[str], # such as 30x14
    args:argparse.Namespace, # the command line
)->None:
    "Print the held-out log-likelihood of some sizes, and write it as a table where one is asked for."
    train, test = images_of(RECIPES[name], args)
    rows = []
    for size in sizes:
        modes, rank = map(int, size.split('x'))
        facts = heldout_bits(fit(train, modes, rank, args.seed), train, test)
        values = facts['modes']*(rank + 1)*train.x[0].numel()
        rows.append(dict(world=name, modes_of_a_class=modes, rank=rank, **facts, megabytes=round(values/1e6, 3)))
        print(rows[-1], flush=True)
    if args.results:
        config = dict(world=name, sizes=sizes, seed=args.seed, data=train.name)
        write_results(rows, args.results, config)


# Into the package

def images_of(
    recipe:Recipe, # of a world
    args:argparse.Namespace, # the command line
)->tuple[Images, Images]: # training and test images
    "The images of a recipe: the parts from which models learn, and on which their loss is measured."
    name = args.cifar10 if recipe.data == 'cifar10' else recipe.data
    train, test = (load_data(name, split, args.data_dir, recipe.image_size) for split in ('fit', 'heldout'))
    return train, test


def effect_of_bytes(
    exact:PictureWorld, # as it was fitted
    stored:PictureWorld, # as it is read back
    test:Images, # held out
)->dict[str, float]: # what storing it in 8 bits has changed
    "Mean log-likelihood of held-out images at noise .1, and how a denoised pixel changes, over five noise levels."
    x = to_float(test.x[:500]).double()
    y = test.y[:500]
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    worst, squares = 0., []
    for sigma in (.05, .2, 1., 5., 40.):
        noisy = x + sigma*noise
        change = exact(noisy, sigma, y) - stored(noisy, sigma, y)
        worst = max(worst, change.abs().max().item())
        squares.append((change**2).mean())
    def nats(world): return world.log_prob(x, .1, y).mean().item()
    return dict(
        nats=round(nats(exact), 2), nats_in_bytes=round(nats(stored), 2),
        largest_change=round(worst, 4), rms_change=round(torch.stack(squares).mean().item()**.5, 5))


def copy_words(
    data:str, # name of the data that was read
)->str: # nothing for the original
    "What is to be said of data from a folder of pictures."
    return f'; read from {data}, a copy' if data.startswith('folder:') else ''


def command(
    name:str, # of a recipe
    args:argparse.Namespace, # the command line
)->str: # what to type
    "The command line that makes the world again."
    copied = RECIPES[name].data == 'cifar10' and args.cifar10 != 'cifar10'
    return f'python tools/worlds.py {name}' + f' --cifar10 {args.cifar10}'*copied


def make(
    name:str, # of a recipe
    args:argparse.Namespace, # the command line
)->None:
    "Fit and write one world."
    recipe = RECIPES[name]
    start = time.perf_counter()
    train, test = images_of(recipe, args)
    fitted = fit(train, recipe.modes, recipe.rank, args.seed)
    world = as_world(fitted, recipe.floor**2, tuple(train.x.shape[1:]), keep=False)
    path = Path(args.out)/f'{name}.safetensors'
    facts = dict(
        data=recipe.data if recipe.data != 'cifar10' else train.name, classes=train.classes,
        source=recipe.source + copy_words(train.name), command=command(name, args),
        modes=recipe.modes, rank=recipe.rank, images=len(train),
        train=dict(split='fit', seed=args.seed))
    save_world(world, path, **facts)
    effect = effect_of_bytes(world, load_world(path)[0], test)
    note = dict(facts, heldout=heldout_bits(fitted, train, test), bytes=effect)
    write_json(note, path.with_suffix('.json'))
    size = path.stat().st_size/1e6
    print(path, note['heldout'], effect, f'{size:.2f} MB, {time.perf_counter() - start:.0f} s', flush=True)


def parser()->argparse.ArgumentParser: # of the command line
    "The options."
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('names', nargs='+', choices=list(RECIPES), metavar='NAME', help=f"of {', '.join(RECIPES)}")
    p.add_argument('--compare', nargs='+', metavar='MODESxRANK', help='only print the held-out likelihood of sizes')
    p.add_argument('--results', metavar='FILE', help='a table of what --compare prints (.csv)')
    p.add_argument('--cifar10', default='cifar10', metavar='SOURCE', help='cifar10, or folder:NAME (cifar10)')
    p.add_argument('--data-dir', metavar='DIR', help="folder of data sets (CFG_COURSE_DATA's, or data)")
    p.add_argument('--out', default=WORLDS, metavar='DIR', help="where to write (the package's worlds)")
    p.add_argument('--seed', type=int, default=0, help='of k-means (0)')
    return p


def main()->None:
    "Make what the command line asks for; what it gets wrong is said in one line."
    args = parser().parse_args()
    try:
        for name in args.names:
            if args.compare:
                compare(name, args.compare, args)
            else:
                make(name, args)
    except InputError as e:
        raise SystemExit(f'{Path(__file__).name}: {e}') from None


if __name__ == '__main__': main()
