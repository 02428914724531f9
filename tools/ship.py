"Put a finished run into the package: weights in half precision, with its configuration, its log and its command line."
import argparse, json, os, shutil
from pathlib import Path

import pandas as pd
import torch

from cfg_course.core import write_json
from cfg_course.denoisers import load_denoiser, save_denoiser
from cfg_course.networks import CONFIGS, UNetConfig, matrix_rate, multiply_adds
from cfg_course.training import RECIPES, TrainConfig, asdict

WEIGHTS = Path(__file__).resolve().parents[1]/'cfg_course'/'weights'


def command(
    train:dict, # the training configuration of a run
    net:UNetConfig # its network
)->str: # what to type
    "The command line that makes the run again: the recipe, and what differs from it."
    dataset, own = train['dataset'], [k for k, c in CONFIGS.items() if c == net and k in RECIPES]
    name = dataset if dataset in RECIPES and CONFIGS.get(dataset) == net or not own else own[0]
    recipe = asdict(RECIPES.get(name, TrainConfig()))
    options = [option(k, v) for k, v in train.items() if v != recipe.get(k) and k != 'dataset']
    named = [k for k, c in CONFIGS.items() if c == net and not own]
    start = [f'--dataset {dataset}'] if name == dataset else [f'--recipe {name}'] + [f'--dataset {dataset}']*(recipe['dataset'] != dataset)
    return ' '.join(['python train.py', *start, *(f'--net {k}' for k in named), *options])


def option(
    name:str, # field of the configuration
    value:object # its value
)->str: # what to type
    "A field as an option of train.py; a switch has no value."
    flag = '--' + (name if name.startswith('P_') else name.replace('_', '-'))
    return flag if value is True else f'{flag} {value}'


def cost(
    run:Path, # folder of a finished run
    config:dict, # its config.json
    net:UNetConfig # its network
)->dict: # what the run took
    "Images, seconds, speed and utilisation, against the matrix rate measured now: ship on the machine that trained."
    log, cuda = pd.read_csv(run/'log.csv'), torch.cuda.is_available()
    half = cuda and config['train']['precision'] != 'fp32'
    rate, speed = matrix_rate('cuda' if cuda else 'cpu', torch.bfloat16 if half else torch.float32), log.images_per_s.median()
    return dict(images=int(log.step.iloc[-1])*config['train']['batch_size'], seconds=round(log.seconds.iloc[-1]), images_per_s=round(speed, 1),
        multiply_adds=multiply_adds(net), matrix_rate=float(f'{rate:.3g}'), utilisation=round(3*speed*multiply_adds(net)/rate, 3),
        device=torch.cuda.get_device_name() if cuda else f'CPU, {os.cpu_count()} cores')


def ship(
    run:Path, # folder of a finished run
    name:str # of the model in the package
):
    "Write NAME.safetensors, NAME.json and NAME.csv."
    (denoise, meta), config = load_denoiser(run), json.loads((run/'config.json').read_text())
    facts = {k: meta[k] for k in ('classes', 'data', 'shape', 'step', 'train')}
    line = command(meta['train'], denoise.net.cfg)
    save_denoiser(denoise, WEIGHTS/f'{name}.safetensors', half=True, **facts, command=line)
    write_json(dict(command=line, **config, **cost(run, config, denoise.net.cfg), torch=torch.__version__), WEIGHTS/f'{name}.json')
    shutil.copy(run/'log.csv', WEIGHTS/f'{name}.csv')


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('run', type=Path, help='folder of a finished run')
    p.add_argument('name', help='of the model in the package')
    args = p.parse_args()
    ship(args.run, args.name)
