"Train the classifiers that the package ships, on the training parts alone, and write them with the accuracy on the test parts."
import argparse, time
from functools import partial
from pathlib import Path

import torch

from cfg_course.classifiers import predict, save_classifier, train_classifier, train_noisy
from cfg_course.core import to_float
from cfg_course.data import load_data

WEIGHTS = Path(__file__).resolve().parents[1]/'cfg_course'/'weights'
JUDGES = dict(digits=dict(epochs=60), mnist=dict(epochs=3), cifar10=dict(epochs=8, width=48, stages=3, flip=True, decay=.05))
GUIDES = dict(digits=dict(steps=1500), mnist=dict(steps=1500), cifar10=dict(steps=2500))


def judge(
    name:str, # of the classifier
    source:str, # of the images, for `load_data`
    **other # than the recipe
):
    "Train, test and write one judge, a classifier of clean images."
    start, data, test = time.perf_counter(), load_data(source), load_data(source, 'test')
    recipe = JUDGES[name] | other
    net = train_classifier(data, progress=True, **recipe)
    accuracy = (predict(net, test.x).argmax(1) == test.y).double().mean().item()
    facts = dict(data=data.name, test_accuracy=round(accuracy, 4), training={k: v for k, v in recipe.items() if k != 'device'})
    save_classifier(net, WEIGHTS/f'{name}-classifier.safetensors', **facts)
    print(facts, f'{time.perf_counter() - start:.0f} s')


def guide(
    name:str, # of the classifier
    source:str # of the images, for `load_data`
):
    "Train, test and write one guide, a classifier of noisy images; it is tested at the lowest noise."
    start, data, test = time.perf_counter(), load_data(source), load_data(source, 'test')
    net = train_noisy(data, progress=True, **GUIDES[name])
    with torch.no_grad(): logits = torch.cat([net(to_float(x), .002) for x in test.x.split(1000)])
    accuracy = (logits.argmax(1) == test.y).double().mean().item()
    facts = dict(data=data.name, test_accuracy=round(accuracy, 4), training=GUIDES[name])
    save_classifier(net, WEIGHTS/f'{name}-noisy-classifier.safetensors', **facts)
    print(facts, f'{time.perf_counter() - start:.0f} s')


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--kinds', nargs='+', choices=['judge', 'guide'], default=['judge', 'guide'], help='which to train (both)')
    p.add_argument('--data', nargs='+', choices=list(JUDGES), default=['digits', 'mnist'], help='on what (digits mnist)')
    p.add_argument('--cifar10', default='cifar10', metavar='SOURCE', help='where the images of cifar10 are from: cifar10, or folder:NAME for a folder of data sets (cifar10)')
    p.add_argument('--epochs', type=int, help="of a judge (the recipe's): a GPU can afford --epochs 60 --width 128 --device auto for photographs")
    p.add_argument('--width', type=int, help="of a judge's first stage (the recipe's)")
    p.add_argument('--device', help='for a judge: cpu, cuda, auto (cpu)')
    args = p.parse_args()
    other = {k: v for k in ('epochs', 'width', 'device') if (v := getattr(args, k))}
    for kind in args.kinds:
        for name in args.data: (guide if kind == 'guide' else partial(judge, **other))(name, args.cifar10 if name == 'cifar10' else name)
