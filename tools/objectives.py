"""Small runs of the objectives of chapter 15a, what they draw, and the second output of a shipped model.

    python tools/objectives.py train --out runs/objectives     all runs, about twenty minutes on one core; goes on where it was stopped
    python tools/objectives.py draw --out runs/objectives      1,000 samples each, measured: nbs/results/objectives.csv and .png
    python tools/objectives.py head mnist-a                    train the head of a shipped model, mnist-a or digits, and put it into the package

The networks do not ship. The commands that train them are in RUNS.
"""
import argparse
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from cfg_course.classifiers import load_classifier
from cfg_course.core import Denoise, load_tensors, save_grid, save_tensors, to_uint8, write_results
from cfg_course.data import load_data
from cfg_course.denoisers import Counted, Denoiser, find_network, load_denoiser, weights_folder
from cfg_course.guidance import guide
from cfg_course.metrics import Reference, measure, observe
from cfg_course.objectives import contrast, find_head, internal_guidance, neon, sample_mean, save_head, train_head
from cfg_course.samplers import sample
from cfg_course.training import TrainConfig, at_scale

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT/'nbs'/'results'
MODEL = 'mnist-a'
ON = '--dataset mnist --split fit --precision fp32'
RUNS = dict(
    contrastive=f'{ON} --objective contrastive --resume {{weights}}/{MODEL}.safetensors --steps 8213 --schedule constant --fall 200 --lr 3e-4 --warmup 50',
    ddo=f'{ON} --objective ddo --teacher {MODEL} --steps 200 --lr 1e-4 --warmup 20',
    sims=f'{ON} --objective sims --teacher {MODEL} --steps 300 --lr 3e-4 --warmup 20',
    meanflow='--dataset digits --objective meanflow --steps 1000 --lr 1e-3 --P-std 1.6',
    imf='--dataset digits --objective imf --steps 500 --lr 1e-3 --P-std 1.6')
METRICS = 'fid', 'accuracy', 'class_std', 'feature_spread'
STEPS = 16  # of DPM-Solver++
TOP = 40.  # noise level at which a MeanFlow path begins
HEADS = {
    MODEL: TrainConfig('mnist', 'fit', steps=2000, batch_size=64, lr=2e-3, warmup=100, P_mean=-.2),
    'digits': TrainConfig('digits', steps=1000, batch_size=64, lr=2e-3, warmup=100)}


class Entry(NamedTuple):
    "A row of the table."
    dataset:str # mnist or digits
    method:str # in words
    trained:str # in words
    draw:Callable[[Tensor], tuple[Tensor, float]] # labels -> samples, evaluations an image


# Training

def command(
    name:str, # in `RUNS`
    out:Path, # folder of all runs
)->list[str]: # what to type
    "The command that trains a network, or goes on with it."
    folder = out/name
    begun = (folder/'config.json').is_file()
    if begun: return ['train.py', '--resume', '--out', str(folder)]
    return ['train.py', *shlex.split(RUNS[name].format(weights=weights_folder())), '--out', str(folder)]


def train_all(
    out:Path, # folder of all runs
    only:list[str], # some of `RUNS`
)->None:
    "Train what is not there yet, one after the other."
    for name in only or RUNS:
        begin = time.perf_counter()
        subprocess.run([sys.executable, *command(name, out)], cwd=ROOT, check=True)
        print(f'{name}: {time.perf_counter() - begin:.0f} s', flush=True)


def make_head(
    name:str, # of a shipped model
)->None:
    "Train the second output of a model on what it was trained on, its trunk frozen, and put it into the package."
    model, cfg = find_network(name)[0], HEADS[name]
    begin = time.perf_counter()
    def say(step, loss):
        if step % 500 == 0: print(f'step {step}: loss {loss:.4f}, {time.perf_counter() - begin:.0f} s', flush=True)
    head = train_head(model, load_data(cfg.dataset, cfg.split), cfg, say)
    path = weights_folder()/'heads'/f'{name}.safetensors'
    save_head(head, model, path, name=name, data=cfg.dataset, split=cfg.split, steps=cfg.steps, batch_size=cfg.batch_size, lr=cfg.lr)
    print(f'{path}: {path.stat().st_size:,} bytes')


# Drawing

def many(
    denoise:Denoise, # guided or not
    shape:tuple, # of an image
    counted:Counted, # what is asked inside
    labels:Tensor, # `(N,)`
)->tuple[Tensor, float]: # samples, evaluations an image
    "Samples of a denoiser, in 16 steps of DPM-Solver++."
    counted.rows = 0
    x = sample(denoise, labels, shape, 'dpmpp', steps=STEPS)
    return x, counted.rows/len(labels)


def plain(
    model:Denoise, # any
    shape:tuple, # of an image
    guided:Callable[[Denoise], Denoise]=lambda denoise: denoise, # what is done with it
)->Callable[[Tensor], tuple[Tensor, float]]: # for an `Entry`
    "How to draw from a model, counted."
    counted = Counted(model)
    return partial(many, guided(counted), shape, counted)


def beside(
    model:Denoise, # the strong branch
    weak:Denoise, # the weak one
    scale:float, # guidance scale
    shape:tuple, # of an image
)->Callable[[Tensor], tuple[Tensor, float]]: # for an `Entry`
    "How to draw from two models."
    both = Counted(model)
    def other(x, sigma, y):
        both.rows += len(x)
        return weak(x, sigma, y)
    return partial(many, guide(both, scale=scale, weak=other), shape, both)


def few(
    model:Denoiser, # of `meanflow`
    steps:int, # 1 or 2
    labels:Tensor, # `(N,)`
)->tuple[Tensor, float]: # samples, evaluations an image
    "Samples in very few steps."
    between = [1.][:steps - 1]
    return sample_mean(model, labels, (1, 8, 8), (TOP, *between, 0.)), float(steps)


def short(
    denoise:Denoise, # guided or not
    steps:int, # 1 or 2
    labels:Tensor, # `(N,)`
)->tuple[Tensor, float]: # samples, evaluations an image
    "The same steps with a plain denoiser, Euler's."
    counted = Counted(denoise)
    between = [1.][:steps - 1]
    x = sample_mean(lambda x, sigma, y, told: guide(counted, scale=2.)(x, sigma, y), labels, (1, 8, 8), (TOP, *between, 0.))
    return x, counted.rows/len(labels)


def entries(
    out:Path, # folder of all runs
)->list[Entry]: # rows of the table
    "What is compared."
    base, digits = find_network(MODEL)[0], find_network('digits')[0]
    tuned = {name: load_denoiser(out/name)[0] for name in RUNS if (out/name/'model.safetensors').is_file()}
    mean = load_data('mnist', 'fit').x.float().mean(0)/127.5 - 1
    headed, shape, small = find_head(base), (1, 28, 28), (1, 8, 8)
    def cfg(scale): return lambda denoise: guide(denoise, scale=scale)
    def inside(scale): return lambda x, sigma, y: internal_guidance(headed, scale)(x, sigma, y)
    rows = [
        Entry('mnist', 'no guidance', 'the shipped model', plain(base, shape)),
        Entry('mnist', 'cfg, s = 1.5', 'the shipped model', plain(base, shape, cfg(1.5))),
        Entry('mnist', 'cfg, s = 2', 'the shipped model', plain(base, shape, cfg(2.))),
        Entry('mnist', 'contrast in closed form, s = 1/.95', 'nothing', plain(base, shape, lambda d: guide(d, scale=1/.95, weak=contrast(mean)))),
        Entry('mnist', 'internal, s = 1.4', 'a head, 2,000 steps', plain(inside(1.4), shape)),
        Entry('mnist', 'internal, s = 1.4, and cfg, s = 1.5', 'a head, 2,000 steps', plain(inside(1.4), shape, cfg(1.5)))]
    if 'contrastive' in tuned: rows += [Entry('mnist', 'contrastive, lam = .05', '400 steps from the shipped model', plain(tuned['contrastive'], shape))]
    if 'ddo' in tuned: rows += [Entry('mnist', 'ddo, alpha = 4, beta = .05', '200 steps from the shipped model', plain(tuned['ddo'], shape))]
    if 'sims' in tuned: rows += [
        Entry('mnist', 'self-training alone', '300 steps on own samples', plain(tuned['sims'], shape)),
        Entry('mnist', 'sims, w = 1', '300 steps on own samples', beside(base, tuned['sims'], 2., shape)),
        Entry('mnist', 'neon, w = 1', '300 steps on own samples', plain(neon(base, tuned['sims'], 1.), shape))]
    rows += [
        Entry('digits', 'no guidance', 'the shipped model', plain(digits, small)),
        Entry('digits', 'cfg, s = 2', 'the shipped model', plain(digits, small, cfg(2.))),
        *(Entry('digits', f'cfg, s = 2, {n} step{"s"*(n > 1)}', 'the shipped model', partial(short, digits, n)) for n in (1, 2))]
    for name, steps in ('meanflow', '1,000'), ('imf', '500'):
        if name in tuned: rows += [
            *(Entry('digits', f'{name}, s = 2, {n} step{"s"*(n > 1)}', f'{steps} steps from nothing', partial(few, tuned[name], n)) for n in (1, 2)),
            Entry('digits', f'{name}, s = 2, as a denoiser', f'{steps} steps from nothing', plain(at_scale(tuned[name], 1.), small))]
    return rows


def slug(
    entry:Entry, # a row
)->str: # a file's name
    "A row as a name."
    return re.sub(r'[^a-z0-9.]+', '-', f'{entry.dataset} {entry.method}'.lower())


def draw_kept(
    entry:Entry, # a row
    labels:Tensor, # `(N,)`
    folder:Path, # where samples are kept
)->tuple[Tensor, float]: # `(N, C, H, W)` uint8, evaluations an image
    "Samples of a row, drawn once."
    path = folder/f'{slug(entry)}-{len(labels)}.safetensors'
    if path.is_file():
        tensors, meta = load_tensors(path, 'drawn')
        return tensors['x'], meta['nfe']
    begin = time.perf_counter()
    x, cost = entry.draw(labels)
    x = to_uint8(x)
    save_tensors(dict(x=x), dict(kind='drawn', nfe=cost), path)
    print(f'{slug(entry)}: {time.perf_counter() - begin:.0f} s', flush=True)
    return x, cost


def draw_all(
    out:Path, # folder of all runs
    num:int, # samples of each
)->None:
    "Draw, measure, write the table and the pictures."
    judges = dict(mnist=load_classifier('mnist-residual')[0], digits=load_classifier('digits')[0])
    real = dict(mnist=load_data('mnist', 'reference'), digits=load_data('digits', 'train'))
    labels, rows, pictures = torch.arange(num) % 10, [], {}
    drawn = [(entry, *draw_kept(entry, labels, out/'drawn')) for entry in entries(out)]
    references = {name: Reference(name, observe(judges[name], data.x, data.y), 0.) for name, data in real.items()} # nobody asks who is near
    for entry, x, cost in drawn:
        found = measure(judges[entry.dataset], x, labels, references[entry.dataset], METRICS)
        pictures.setdefault(entry.dataset, []).append(x[:10])
        rows += [dict(dataset=entry.dataset, method=entry.method, trained=entry.trained, nfe=cost, samples=num, metric=metric,
            value=value, low=low, high=high) for metric, (value, low, high) in found.items()]
        print(f'{slug(entry)}: fid {found["fid"][0]:.2f}, accuracy {found["accuracy"][0]:.3f}, nfe {cost:g}', flush=True)
    config = dict(
        model=MODEL, samples=num, sampler='dpmpp', steps=STEPS, top=TOP, seed=0,
        judges=dict(mnist='mnist-residual', digits='digits'),
        commands={name: f'python train.py {text.format(weights="cfg_course/weights")}' for name, text in RUNS.items()})
    write_results(rows, RESULTS/'objectives.csv', config, device='cpu, 1 thread')
    for name, images in pictures.items(): save_grid(torch.cat(images), RESULTS/f'objectives_{name}.png', cols=10)


def main():
    "Do what was asked for."
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('what', choices=['train', 'draw', 'head'])
    p.add_argument('names', nargs='*', help='some of the runs; for head: the model')
    p.add_argument('--out', type=Path, default=Path('runs/objectives'), help='folder of all runs')
    p.add_argument('--num', type=int, default=1000, help='samples of each (1000)')
    args = p.parse_args()
    torch.set_num_threads(1)
    if args.what == 'train': train_all(args.out.resolve(), args.names)
    elif args.what == 'draw': draw_all(args.out.resolve(), args.num)
    else: make_head(args.names[0] if args.names else MODEL)


if __name__ == '__main__': main()
