"""Draw 50 digits with every technique of the catalogue at its defaults, and ask the shipped judges what they see.

    python tools/recognised.py --out nbs/results/recognised.csv

`mnist-a`, 16 DDIM steps, guidance scale 2 where a technique takes one (6 for the noise-aware classifier, which starts
without a label). About ten minutes on one core.
"""
import argparse, contextlib, io, json, sys, tempfile
from pathlib import Path

import numpy as np, pandas as pd, torch

from cfg_course.catalogue import SHELVES, takes_scale
from cfg_course.classifiers import load_classifier, predict
from cfg_course.cli import sample_main

sys.path.insert(0, str(Path(__file__).resolve().parents[1]/'tests'))
from test_techniques import ARGS as NEEDED

ARGS = NEEDED | dict(autoguidance='model=mnist-weak')  # what has no default

SCALES = dict(classifier=6)
AIM = dict( # what has another aim than its label
    superdiff='one of two labels', particle_guidance='samples that differ', eps_scaling='a repair of the sampler',
    tsr='more or less detail', negative='away from a label',
    **{'and': 'two labels at once', 'not': 'no eight, also where one is asked for'})


def draw(
    kind:str, # of technique
    name:str, # of the technique
    out:Path, # an empty folder
)->tuple: # pixels as the command wrote them; its note
    "Fifty digits by the command line; raises `SystemExit` when it refuses."
    scale = f'--guidance-scale {SCALES.get(name, 2)}' if takes_scale({kind: name}) else ''
    option = f'--guidance-arg {ARGS[name]}' if name in ARGS else ''
    how = '--model mnist-a --num 50 --steps 16 --sampler ddim --device cpu'
    line = f'{how} --guidance {name} {scale} {option} --out {out}'
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        sample_main(line.split())
    return np.load(out/'samples.npz'), json.loads((out/'samples.json').read_text())


def row(
    kind:str, # of technique
    name:str, # of the technique
    judges:dict, # name -> judge
)->dict: # of the table
    "What the judges see of the digits of one technique."
    with tempfile.TemporaryDirectory() as folder:
        arrays, note = draw(kind, name, Path(folder)/'out')
    x = torch.from_numpy(arrays['images']).permute(0, 3, 1, 2)/127.5 - 1
    y = torch.from_numpy(arrays['labels'])
    seen = {k: (predict(judge, x).argmax(1) == y).double().mean().item() for k, judge in judges.items()}
    least = .6 if name in AIM else .9
    return dict(technique=name, kind=kind, nfe=note['nfe_per_image'], **seen, least=least, aim=AIM.get(name, ''))


def main():
    "Parse the command line and run."
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--out', type=Path, required=True, help='a .csv file')
    p.add_argument('--only', nargs='+', help='names of techniques')
    args = p.parse_args()
    judges = dict(plain=load_classifier('mnist')[0], residual=load_classifier('mnist-residual')[0])
    names = [(kind, name) for kind, shelf in SHELVES.items() for name in shelf if not args.only or name in args.only]
    rows = []
    for kind, name in names:
        try:
            rows.append(row(kind, name, judges))
            print(name, rows[-1]['nfe'], rows[-1]['plain'], rows[-1]['residual'], flush=True)
        except SystemExit:
            print(f'{name}: refused', file=sys.stderr, flush=True)
    pd.DataFrame(rows).round(4).to_csv(args.out, index=False)
    print(f'{len(rows)} of {len(names)} techniques: {args.out}')


if __name__ == '__main__': main()
