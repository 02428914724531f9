"""Print how long the worlds of pictures take to load and to draw a hundred guided pictures in 12 steps.

    python tools/bench_worlds.py [--threads 2]
"""
from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from cfg_course.guidance import guide
from cfg_course.pictures import PictureWorld, find_world, shipped_worlds
from cfg_course.samplers import sample


def seconds(
    task:Callable[[], object], # what to do
    times:int=3, # how often
)->float: # of the quickest
    "How long a task takes."
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        task()
        taken.append(time.perf_counter() - start)
    return min(taken)


def draw(
    world:PictureWorld, # any
)->torch.Tensor: # `(100, C, H, W)`
    "A hundred guided pictures."
    y = torch.arange(100) % world.classes
    return sample(guide(world, scale=3.), y, world.shape, sampler='dpmpp', steps=12, batch_size=100)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--threads', type=int, default=2, help='of PyTorch (2)')
    torch.set_num_threads(parser.parse_args().threads)
    for name in shipped_worlds():
        world, _ = find_world(name)
        load = seconds(lambda name=name: find_world(name))
        drawn = seconds(lambda world=world: draw(world))
        print(f'{name}: loads in {load:.3f} s, 100 guided pictures in 12 steps in {drawn:.2f} s')
