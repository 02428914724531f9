"""Put a finished run into the package: weights in half precision, with its configuration, its log and its command line.

    python tools/ship.py runs/mnist mnist                                             the average that the run was asked for
    python tools/ship.py runs/mnist mnist --model runs/mnist/snapshots/002000128-0.05.safetensors    one of its snapshots
"""
import argparse, json, os, shutil
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch

from cfg_course.core import write_json
from cfg_course.data import DATASETS
from cfg_course.denoisers import load_denoiser, save_denoiser
from cfg_course.networks import CONFIGS, UNetConfig, matrix_rate, multiply_adds
from cfg_course.training import RECIPES

WEIGHTS = Path(__file__).resolve().parents[1]/'cfg_course'/'weights'


def command(
    train:dict, # the training configuration of a run
    net:UNetConfig # its network
)->str: # what to type
    "The command line that makes the run again: the recipe that is nearest, and what differs from it."
    name = min(RECIPES, key=lambda k: (own_net(k) != net, len(differing(train, k))))
    named = [k for k, config in CONFIGS.items() if config == net != own_net(name)]
    start = f'--dataset {name}' if name in DATASETS else f'--recipe {name}'
    more = [f'--dataset {train["dataset"]}']*(name not in DATASETS and RECIPES[name].dataset != train['dataset'])
    return ' '.join(['python train.py', start, *more, *(f'--net {k}' for k in named), *differing(train, name)])


def own_net(
    recipe:str # a name in `RECIPES`
)->UNetConfig: # or None
    "The network that goes with a recipe."
    return CONFIGS.get(recipe) or CONFIGS.get(RECIPES[recipe].dataset)


def differing(
    train:dict, # the training configuration of a run
    recipe:str # a name in `RECIPES`
)->list: # options
    "What a run was told beside its recipe, the data aside."
    usual = json.loads(json.dumps(asdict(RECIPES[recipe])))
    return [option(k, v) for k, v in train.items() if v != usual.get(k) and k not in ('dataset', 'begun')]


def option(
    name:str, # field of the configuration
    value:object # its value
)->str: # what to type
    "A field as an option of train.py; a switch has no value."
    flag = '--' + (name if name.startswith('P_') else name.replace('_', '-'))
    if isinstance(value, (list, tuple)): value = ' '.join(map(str, value))
    return flag if value is True else f'{flag} {value}'


def cost(
    run:Path, # folder of a finished run
    config:dict, # its config.json
    net:UNetConfig, # its network
    trained_on:str=None # the machine, where it is not this one
)->dict: # what the run took
    "Images, seconds and speed; and on the machine that trained, utilisation against its matrix rate, measured now."
    log, cuda = pd.read_csv(run/'log.csv'), torch.cuda.is_available()
    speed = log.images_per_s.median()
    facts = dict(images=int(log.step.iloc[-1])*config['train']['batch_size'], seconds=round(log.seconds.iloc[-1]), images_per_s=round(speed, 1),
        multiply_adds=multiply_adds(net))
    if trained_on: return dict(facts, device=trained_on)
    half = cuda and config['train']['precision'] != 'fp32'
    rate = matrix_rate('cuda' if cuda else 'cpu', torch.bfloat16 if half else torch.float32)
    device = torch.cuda.get_device_name() if cuda else f'CPU, {os.cpu_count()} cores'
    return dict(facts, matrix_rate=float(f'{rate:.3g}'), utilisation=round(3*speed*multiply_adds(net)/rate, 3), device=device)


FACTS = 'classes', 'data', 'shape', 'step', 'images', 'ema', 'heldout', 'train'  # of a header, as far as it has them


def ship(
    run:Path, # folder of a finished run
    name:str, # of the model in the package
    model:Path=None, # a snapshot of it; its last average when not given
    trained_on:str=None, # as for `cost`
    remark:str=None # what the model card must say besides
):
    "Write NAME.safetensors, NAME.json and NAME.csv."
    (denoise, meta), config = load_denoiser(model or run), json.loads((run/'config.json').read_text())
    facts = {k: meta[k] for k in FACTS if k in meta}
    line, said = command(meta['train'], denoise.net.cfg), dict(remark=remark) if remark else {}
    save_denoiser(denoise, WEIGHTS/f'{name}.safetensors', half=True, **facts, command=line, **said)
    card = dict(command=line, **said, **config, **cost(run, config, denoise.net.cfg, trained_on), torch=torch.__version__)
    write_json(card, WEIGHTS/f'{name}.json')
    shutil.copy(run/'log.csv', WEIGHTS/f'{name}.csv')


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('run', type=Path, help='folder of a finished run')
    p.add_argument('name', help='of the model in the package')
    p.add_argument('--model', type=Path, metavar='SNAPSHOT', help="a snapshot of the run (the run's last average)")
    p.add_argument('--trained-on', metavar='MACHINE', help='where it was trained (this machine, whose utilisation is then measured)')
    p.add_argument('--remark', help='a sentence for the model card')
    args = p.parse_args()
    ship(args.run, args.name, args.model, args.trained_on, args.remark)
