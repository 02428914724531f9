"""Train the networks of chapter 26 on draws from a world of pictures, whose denoiser is exact.

    python tools/repair.py --out runs/repair                          the snapshots of chapter 26, about an hour on two cores
    python tools/repair.py --out runs/repair --from 00640000 --on data    trained on, on data alone
    python tools/repair.py --out runs/repair --from 00640000 --on path    trained on, half of each batch from its own path
    python tools/repair.py --out runs/repair --from mnist-a --on led      a shipped network, trained on on images

What a network can be trained on with: data (nothing else), path (half of each batch from its own path, with exact
targets), rare (an eighth), high (half, at levels above 0.3 alone), drawn (half; draws in the place of their mean),
perturbed (input perturbation), led (half of each batch from clean pictures that were noised and led down), guided (model
guidance). Those from path to drawn need the truth.

A run that was stopped goes on where its last checkpoint was.
"""
import argparse
import time
from dataclasses import asdict
from pathlib import Path

import torch
from tqdm.auto import tqdm

from cfg_course.core import load_tensors, mix_seed, save_tensors
from cfg_course.data import load_data
from cfg_course.denoisers import Denoiser, find_model, load_denoiser, save_denoiser
from cfg_course.networks import UNet, UNetConfig
from cfg_course.pictures import find_world
from cfg_course.repair import DrawnTrainer, LedTrainer, PathTrainer, PerturbedTrainer, WorldTrainer, world_batch
from cfg_course.training import TrainConfig, Trainer, make_accelerator, model_guidance

SNAPSHOTS = 10_048, 40_000, 160_000, 640_000  # images
ON = 96_000  # images of a network that is trained on
EVERY = 250  # steps between checkpoints
WEIGHT = 1.43  # of model guidance: as if guided at 1/(2 - 1.43) = 1.75, about the best scale of the network that is trained on


class RareTrainer(PathTrainer):
    "An eighth of every batch is from the network's own path."
    share = .125


class HighTrainer(PathTrainer):
    "Half of every batch is from the network's own path, where there is much noise."
    window = .3, 6.


KINDS = dict(data=(), path=(PathTrainer,), rare=(RareTrainer,), high=(HighTrainer,), drawn=(DrawnTrainer,), perturbed=(PerturbedTrainer,), led=(LedTrainer,), guided=())


def config(
    images:int, # of the whole run
    lr:float=1.5e-3, # learning rate
    seed:int=0, # of the run
)->TrainConfig:
    "How the networks are trained: as the MNIST network, with a constant rate."
    return TrainConfig('mnist', steps=images//64, batch_size=64, lr=lr, warmup=200, schedule='constant', P_mean=-.2, ema=.1, seed=seed)


def fresh(
    world, # the truth
    cfg:TrainConfig, # how to train
)->Denoiser: # untrained
    "The MNIST network, for the pictures of a world."
    torch.manual_seed(mix_seed(cfg.seed, 3))
    C, H, _ = world.shape
    net = UNet(UNetConfig(image_size=H, channels=C, num_classes=world.classes))
    pictures = torch.cat([world_batch(world, cfg, step).x0 for step in range(32)])
    return Denoiser(net, 'edm', round(pictures.square().mean().sqrt().item(), 3))


def make(
    on:str|None, # one of `KINDS`
    denoise:Denoiser, # what to train
    data, # a world, or images
    cfg:TrainConfig, # how
    base:type[Trainer], # for that data
)->Trainer:
    "A trainer of that kind."
    mixed = KINDS[on or 'data']
    kind = type('Kind', mixed + (() if any(issubclass(one, base) for one in mixed) else (base,)), {})
    return kind(denoise, data, cfg, make_accelerator('fp32', 'cpu'), model_guidance(WEIGHT) if on == 'guided' else None)


def start_of(
    name:str, # of a snapshot in `out`, or of a shipped model
    out:Path, # folder
)->Denoiser:
    "Where to train on from."
    file = out/f'{name}.safetensors'
    return load_denoiser(file)[0] if file.exists() else find_model(name)[0]


def keep(
    trainer:Trainer, # where it stands
    path:Path, # a .safetensors file
    world:str, # name
    seconds:float, # of training
)->None:
    "Write the averaged network."
    cfg = trainer.cfg
    save_denoiser(trainer.average.module, path, half=True, data=world, classes=[str(k) for k in range(trainer.denoise.net.cfg.num_classes)],
        step=trainer.done, images=trainer.done*cfg.batch_size, seconds=round(seconds), train=asdict(cfg))


def resume(
    trainer:Trainer, # new
    path:Path, # of a checkpoint, which need not exist
)->float: # seconds of training so far
    "Go on from a checkpoint."
    if not path.exists(): return 0.
    tensors, meta = load_tensors(path, 'repair')
    trainer.restore(tensors, meta['done'])
    return meta['seconds']


def run(
    trainer:Trainer, # to be trained to the end
    stops:dict, # step -> file of a snapshot
    checkpoint:Path, # where it is kept meanwhile
    world:str, # name
)->None:
    "Train, with snapshots."
    seconds, start = resume(trainer, checkpoint), time.perf_counter()
    losses = []
    with tqdm(total=trainer.cfg.steps, initial=trainer.done, unit='step') as bar:
        while trainer.done < trainer.cfg.steps:
            losses.append(trainer.step().item())
            bar.update()
            spent = seconds + time.perf_counter() - start
            if trainer.done in stops:
                keep(trainer, stops[trainer.done], world, spent)
                print(f'{trainer.done*trainer.cfg.batch_size:,} images, {spent:.0f} s, loss {sum(losses[-100:])/len(losses[-100:]):.4f}', flush=True)
            if trainer.done % EVERY == 0: save_tensors(trainer.state(), dict(kind='repair', done=trainer.done, seconds=spent), checkpoint)
    checkpoint.unlink(missing_ok=True)


def main():
    "Parse the command line and run."
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--world', default='digits-world', help='the truth (digits-world)')
    p.add_argument('--out', type=Path, required=True, help='folder for the networks')
    p.add_argument('--seed', type=int, default=0, help='of the run (0)')
    p.add_argument('--from', dest='start', help='name of a snapshot to train on from')
    p.add_argument('--on', choices=KINDS, help='what to train on with')
    p.add_argument('--images', type=int, nargs='+', help=f'after how many images to keep a snapshot ({SNAPSHOTS}, {ON} with --from)')
    args = p.parse_args()
    images = args.images or ([ON] if args.start else SNAPSHOTS)
    cfg = config(max(images), 4e-4 if args.start else 1.5e-3, args.seed)
    real = bool(args.start) and args.start.startswith('mnist')
    data = load_data('mnist', 'fit') if real else find_world(args.world)[0]
    denoise = start_of(args.start, args.out) if args.start else fresh(data, cfg)
    trainer = make(args.on, denoise.float(), data, cfg, Trainer if real else WorldTrainer)
    name = f'{args.start}-{args.on}-' if args.start else ''
    stops = {n//cfg.batch_size: args.out/f'{name}{n:08d}.safetensors' for n in images}
    run(trainer, stops, args.out/f'.{name}{args.seed}.checkpoint', 'mnist' if real else args.world)


if __name__ == '__main__': main()
