"""Train the networks of chapter 26 on draws from a world of pictures, whose denoiser is exact.

    python tools/repair.py --out runs/repair                          the snapshots of chapter 26, about an hour on two cores
    python tools/repair.py --out runs/repair --from 00640000 --on data    trained on, on data alone
    python tools/repair.py --out runs/repair --from 00640000 --on path    trained on, half of each batch from its own path

A run that was stopped goes on where its last checkpoint was.
"""
import argparse
import time
from dataclasses import asdict
from pathlib import Path

import torch
from tqdm.auto import tqdm

from cfg_course.core import load_tensors, mix_seed, save_tensors
from cfg_course.denoisers import Denoiser, load_denoiser, save_denoiser
from cfg_course.networks import UNet, UNetConfig
from cfg_course.pictures import find_world
from cfg_course.repair import PathTrainer, WorldTrainer, world_batch
from cfg_course.training import TrainConfig, make_accelerator

SNAPSHOTS = 10_048, 40_000, 160_000, 640_000  # images
ON = 96_000  # images of a network that is trained on
EVERY = 250  # steps between checkpoints


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


def keep(
    trainer:WorldTrainer, # where it stands
    path:Path, # a .safetensors file
    world:str, # name
    seconds:float, # of training
)->None:
    "Write the averaged network."
    cfg = trainer.cfg
    save_denoiser(trainer.average.module, path, half=True, data=world, classes=[str(k) for k in range(trainer.data.classes)],
        step=trainer.done, images=trainer.done*cfg.batch_size, seconds=round(seconds), train=asdict(cfg))


def resume(
    trainer:WorldTrainer, # new
    path:Path, # of a checkpoint, which need not exist
)->float: # seconds of training so far
    "Go on from a checkpoint."
    if not path.exists(): return 0.
    tensors, meta = load_tensors(path, 'repair')
    trainer.restore(tensors, meta['done'])
    return meta['seconds']


def run(
    trainer:WorldTrainer, # to be trained to the end
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
    p.add_argument('--on', choices=['data', 'path'], help='what to train on with: fresh draws, or half of each batch from its own path')
    p.add_argument('--images', type=int, nargs='+', help=f'after how many images to keep a snapshot ({SNAPSHOTS}, {ON} with --from)')
    args = p.parse_args()
    world, _ = find_world(args.world)
    images = args.images or ([ON] if args.start else SNAPSHOTS)
    cfg = config(max(images), 4e-4 if args.start else 1.5e-3, args.seed)
    denoise = load_denoiser(args.out/f'{args.start}.safetensors')[0] if args.start else fresh(world, cfg)
    kind = PathTrainer if args.on == 'path' else WorldTrainer
    trainer = kind(denoise.float(), world, cfg, make_accelerator('fp32', 'cpu'))
    name = f'{args.start}-{args.on}-' if args.start else ''
    stops = {n//cfg.batch_size: args.out/f'{name}{n:08d}.safetensors' for n in images}
    run(trainer, stops, args.out/f'.{name}{args.seed}.checkpoint', args.world)


if __name__ == '__main__': main()
