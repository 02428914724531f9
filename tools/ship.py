"""Put a finished run into the package: weights in half precision, with configuration, log and command line.

    python tools/ship.py runs/mnist mnist                                the average that the run was asked for
    python tools/ship.py runs/mnist mnist --model runs/mnist/snapshots/002000128-0.05.safetensors    a snapshot
"""
import argparse, json, os, shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from cfg_course.core import write_json
from cfg_course.data import DATASETS
from cfg_course.denoisers import load_denoiser, save_denoiser
from cfg_course.networks import CONFIGS, UNetConfig, matrix_rate, multiply_adds
from cfg_course.training import RECIPES

WEIGHTS = Path(__file__).resolve().parents[1]/'cfg_course'/'weights'
FACTS = 'classes', 'data', 'shape', 'step', 'images', 'ema', 'heldout', 'train'  # of a header, as far as it has them


# The command line that makes a run again

def command(
    train:dict[str, Any], # the training configuration of a run
    net:UNetConfig, # its network
)->str: # what to type
    "The recipe that is nearest, and what differs from it."
    def distance(name): return own_net(name) != net, len(differing(train, name))
    name = min(RECIPES, key=distance)
    words = ['python train.py', f'--dataset {name}' if name in DATASETS else f'--recipe {name}']
    if name not in DATASETS and RECIPES[name].dataset != train['dataset']:
        words.append(f"--dataset {train['dataset']}")
    if own_net(name) != net:
        words += [f'--net {k}' for k, config in CONFIGS.items() if config == net]
    return ' '.join([*words, *differing(train, name)])


def own_net(
    recipe:str, # a name in `RECIPES`
)->UNetConfig|None: # where it has one
    "The network that goes with a recipe."
    return CONFIGS.get(recipe) or CONFIGS.get(RECIPES[recipe].dataset)


def differing(
    train:dict[str, Any], # the training configuration of a run
    recipe:str, # a name in `RECIPES`
)->list[str]: # options
    "What a run was told beside its recipe, the data aside."
    usual = json.loads(json.dumps(asdict(RECIPES[recipe])))
    told = {k: v for k, v in train.items() if v != usual.get(k)}
    return [option(k, v) for k, v in told.items() if k not in ('dataset', 'begun')]


def option(
    name:str, # field of the configuration
    value:Any, # its value
)->str: # what to type
    "A field as an option of train.py; a switch has no value."
    flag = f'--{name}' if name.startswith('P_') else f"--{name.replace('_', '-')}"
    if isinstance(value, (list, tuple)): value = ' '.join(map(str, value))
    return flag if value is True else f'{flag} {value}'


# What it took

def cost(
    run:Path, # folder of a finished run
    config:dict[str, Any], # its config.json
    net:UNetConfig, # its network
    trained_on:str|None=None, # the machine, where it is not this one
)->dict[str, Any]: # what the run took
    "Images, seconds and speed; and on the machine that trained, utilisation against its matrix rate, measured now."
    train = config['train']
    log = pd.read_csv(run/'log.csv')
    speed = log.images_per_s.median()
    facts = dict(
        images=int(log.step.iloc[-1])*train['batch_size'],
        seconds=round(log.seconds.iloc[-1]),
        images_per_s=round(speed, 1),
        multiply_adds=multiply_adds(net))
    if trained_on: return dict(facts, device=trained_on)
    return dict(facts, **utilisation(3*speed*multiply_adds(net), train['precision']))


def utilisation(
    work:float, # multiply-adds a second of a run: forward, and twice as many backward
    precision:str, # fp32 or bf16
)->dict[str, Any]: # matrix_rate, utilisation, device
    "A run's share of what this machine can do when it only multiplies matrices."
    cuda = torch.cuda.is_available()
    half = cuda and precision != 'fp32'
    rate = matrix_rate('cuda' if cuda else 'cpu', torch.bfloat16 if half else torch.float32)
    device = torch.cuda.get_device_name() if cuda else f'CPU, {os.cpu_count()} cores'
    return dict(matrix_rate=float(f'{rate:.3g}'), utilisation=round(work/rate, 3), device=device)


# Into the package

def ship(
    run:Path, # folder of a finished run
    name:str, # of the model in the package
    model:Path|None=None, # a snapshot of it; its last average when not given
    trained_on:str|None=None, # as for `cost`
    remark:str|None=None, # what the model card must say besides
)->None:
    "Write NAME.safetensors, NAME.json and NAME.csv."
    denoise, meta = load_denoiser(model or run)
    config = json.loads((run/'config.json').read_text(encoding='utf-8'))
    net = denoise.net.cfg
    said = dict(command=command(meta['train'], net))
    if remark: said['remark'] = remark
    facts = {k: meta[k] for k in FACTS if k in meta}
    save_denoiser(denoise, WEIGHTS/f'{name}.safetensors', half=True, **facts, **said)
    took = cost(run, config, net, trained_on)
    write_json(dict(said, **config, **took, torch=torch.__version__), WEIGHTS/f'{name}.json')
    shutil.copy(run/'log.csv', WEIGHTS/f'{name}.csv')


def ship_parser()->argparse.ArgumentParser: # of `ship.py`
    "The options of `ship.py`."
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('run', type=Path, help='folder of a finished run')
    p.add_argument('name', help='of the model in the package')
    p.add_argument('--model', type=Path, metavar='SNAPSHOT', help="a snapshot of the run (the run's last average)")
    p.add_argument('--trained-on', metavar='MACHINE',
        help='where it was trained (this machine, whose utilisation is then measured)')
    p.add_argument('--remark', help='a sentence for the model card')
    return p


if __name__ == '__main__':
    args = ship_parser().parse_args()
    ship(args.run, args.name, args.model, args.trained_on, args.remark)
