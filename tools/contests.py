"""The comparison of chapter 25: plan a round, draw and measure parts of it, put them together, draw a line again.

    python tools/contests.py plan  --model mnist-a --weak mnist-weak      who takes part, with how many steps; hours
    python tools/contests.py draw  --model mnist-a --shard 1/2            only the images, which `measure` finds again
    python tools/contests.py measure --model mnist-a --shard 1/2          draw what is lacking, and measure
    python tools/contests.py merge --model mnist-a --shards 2             the table of a stage
    python tools/contests.py redo  --model mnist-a --line 7               one line of it, drawn again

A stage is first, farther1, farther2, farther3 or finer; those after the first read the tables of the ones before.
Everything resumes. Tables: nbs/results/contest_MODEL_STAGE.csv; images: --keep-in.
"""
from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pandas as pd

from cfg_course.contests import Candidate, Entry, Round, candidates, enter, farther, find_points, finer, hours_of
from cfg_course.contests import entry_of, merge_shards, redo, run_shard, shard_of, tuning_score
from cfg_course.core import InputError, check, write_json
from cfg_course.denoisers import find_model
from cfg_course.evidence import judge_names
from cfg_course.sweeps import Yardstick, find_images, fingerprints, make_yardstick
from cfg_course.training import make_accelerator

RESULTS = Path(__file__).resolve().parents[1]/'nbs'/'results'
STAGES = 'first', 'farther1', 'farther2', 'farther3', 'finer'
METRICS = ('fid', 'kid', 'precision', 'recall', 'density', 'coverage', 'accuracy', 'class_std', 'feature_spread')


def table_of(
    model:str, # of the round
    stage:str, # one of `STAGES`
    results:Path, # folder
)->Path: # a .csv file
    "The table of a stage."
    return results/f'contest_{model}_{stage}.csv'


def plan_path(
    model:str, # of the round
    results:Path, # folder
)->Path: # a .json file
    "Where a plan is kept."
    return results/f'contest_{model}_plan.json'


def as_candidate(
    fields:dict, # of a plan
)->Candidate: # as it was
    "A candidate from JSON, which has lists in the place of tuples."
    pairs = {k: tuple(map(tuple, fields[k])) for k in ('options', 'sampling')}
    interval = fields['interval'] and tuple(fields['interval'])
    return Candidate(**fields | pairs | dict(values=tuple(fields['values']), interval=interval))


def make_plan(
    args:argparse.Namespace, # of the command line
)->None:
    "Write who takes part, with steps, and print what the first stage costs."
    how = Round(args.model, args.weak, args.num, args.seed)
    wanted = [c for c in candidates(args.weak) if not args.only or c.name in args.only]
    able, refused = enter(wanted, how)
    path = plan_path(args.model, args.results)
    write_json(dict(round=how._asdict(), candidates=[c._asdict() for c in able], refused=refused), path)
    cost = hours_of(find_points(able, how), args.device)
    print(cost.round(2).to_string(index=False))
    print(f'{cost.settings.sum()} settings, {cost.evaluations.sum()/1e6:.1f} million evaluations, {cost.hours.sum():.1f} hours: {path}')
    for name, why in refused.items():
        print(f'out: {name}, {why}')


def read_plan(
    args:argparse.Namespace, # of the command line
)->tuple[list[Candidate], Round]: # who takes part; what all share
    "The plan that was written."
    path = plan_path(args.model, args.results)
    check(path.is_file(), 'plan', str(path), 'a file that is there: first run `plan`')
    found = json.loads(path.read_text())
    return [as_candidate(c) for c in found['candidates']], Round(**found['round'])


def tried_so_far(
    args:argparse.Namespace, # of the command line
    stages:tuple[str, ...], # before the one that is wanted
)->pd.DataFrame: # candidate, strength, and the score of each
    "What the stages before have found; a failed setting scores infinity."
    paths = [table_of(args.model, stage, args.results) for stage in stages]
    rows = pd.concat([pd.read_csv(path) for path in paths if path.is_file()])
    fid = rows[rows.metric == 'fid'].pivot_table(index=['candidate', 'strength'], columns='judge', values='value')
    scores = tuning_score(fid).rename('score').reset_index()
    failed = rows[rows.metric == 'failed'][['candidate', 'strength']].assign(score=float('inf'))
    return pd.concat([scores, failed])


def next_values(
    candidate:Candidate, # any
    tried:pd.DataFrame, # strength and score of its own
    stage:str, # one of `STAGES`
)->list[float]: # of its knob
    "What a stage asks of a candidate."
    own = tried.sort_values('strength')
    values, scores = own.strength.tolist(), own.score.tolist()
    if not values:
        return []
    if stage == 'finer':
        return finer(values, scores, candidate.origin)
    more = farther(values, scores, candidate.origin)
    return [] if more is None else [more]


def entries_of(
    args:argparse.Namespace, # of the command line
)->list[Entry]: # all settings of the stage
    "The settings of a stage."
    able, how = read_plan(args)
    if args.stage == 'first':
        return find_points(able, how)
    before = STAGES[:STAGES.index(args.stage)]
    tried = tried_so_far(args, before)
    values = {c.name: next_values(c, tried[tried.candidate == c.name], args.stage) for c in able}
    return find_points(able, how, values)


def judges_of(
    args:argparse.Namespace, # of the command line
    model:str, # of the round
)->dict[str, Yardstick]: # by name
    "The judges of a model, with real images that none of them has seen."
    meta = find_model(model)[1]
    names = args.judges or judge_names(meta['data'], meta['shape'])
    how = dict(reference=args.reference, data_dir=args.data_dir, shape=meta['shape'], split=args.real)
    return {name: make_yardstick(meta['data'], METRICS, name, **how) for name in names}


def say(
    done:int, # settings
    of:int, # settings
    entry:Entry, # the one that is done
)->None:
    "One line for each setting."
    print(f'{done}/{of} {entry.candidate} {entry.strength:g}', flush=True)


def draw(
    args:argparse.Namespace, # of the command line
)->None:
    "Draw the images of a part."
    acc = make_accelerator('fp32', args.device)
    mine = shard_of(entries_of(args), args.shard)
    weights = fingerprints([e.point for e in mine])
    for k, entry in enumerate(mine, 1):
        try:
            find_images(entry.point, weights, args.keep_in, acc, args.batch_size, middle='mean')
            say(k, len(mine), entry)
        except InputError as e:
            print(f'{k}/{len(mine)} {entry.candidate} {entry.strength:g} failed: {e}', flush=True)


def measure(
    args:argparse.Namespace, # of the command line
)->None:
    "Draw what is lacking of a part, and measure it."
    judges = judges_of(args, args.model)
    out = table_of(args.model, args.stage, args.results)
    run_shard(entries_of(args), judges, out, args.shard, args.keep_in, args.device, args.batch_size, say)


def merge(
    args:argparse.Namespace, # of the command line
)->None:
    "Put the parts of a stage together."
    print(merge_shards(table_of(args.model, args.stage, args.results), args.shards))


def draw_again(
    args:argparse.Namespace, # of the command line
)->None:
    "Draw one line of a table again, and say whether it is the same."
    path = table_of(args.model, args.stage, args.results)
    rows = pd.read_csv(path, dtype=str, keep_default_na=False).to_dict('records')
    check(2 <= args.line <= len(rows) + 1, 'line', args.line, f'2 to {len(rows) + 1}, the lines of {path.name}')
    row = rows[args.line - 2]
    judges = judges_of(args, args.model) if row['judge'] else {}
    new = redo(row, judges, args.device)
    print(f'{entry_of(row).point}\nit says: {row["value"]} [{row["low"]}, {row["high"]}]')
    print(f'redone:  {new["value"]} [{new["low"]}, {new["high"]}]')
    print('the same to the last digit' if new == row else 'NOT the same')
    if new != row:
        raise SystemExit(1)


def part(
    text:str, # such as 3/16
)->tuple[int, int]: # (3, 16)
    "Which part, of how many."
    i, _, n = text.partition('/')
    return int(i), int(n)


COMMANDS = dict(plan=make_plan, draw=draw, measure=measure, merge=merge, redo=draw_again)


def main(
    words:list[str]|None=None, # of the command line
)->None:
    "Parse the command line and run."
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('command', choices=COMMANDS)
    p.add_argument('--model', default='mnist-a', help='a shipped model, or the folder or file of a run (%(default)s)')
    p.add_argument('--weak', default='mnist-weak', help='a worse one, for autoguidance (%(default)s)')
    p.add_argument('--stage', choices=STAGES, default='first')
    p.add_argument('--num', type=int, default=1000, help='images of a setting (%(default)s)')
    p.add_argument('--seed', type=int, default=0, help='of the noise (%(default)s)')
    p.add_argument('--shard', type=part, default=(1, 1), metavar='I/N', help='which part of a round (1/1)')
    p.add_argument('--shards', type=int, default=1, help='how many parts there are, for merge')
    p.add_argument('--line', type=int, default=2, help='of a table, for redo; the first below the header is 2')
    p.add_argument('--judges', nargs='+', help='names or files of classifiers')
    p.add_argument('--reference', type=int, default=10000, help='real images that no judge has seen (%(default)s)')
    p.add_argument('--real', default='reference', help='which real images: train, or reference (%(default)s)')
    p.add_argument('--results', type=Path, default=RESULTS, help='folder of plans and tables')
    p.add_argument('--only', nargs='+', help='names of candidates, for plan')
    p.add_argument('--keep-in', type=Path, help='folder of images')
    p.add_argument('--data-dir', type=Path)
    p.add_argument('--device', default='auto')
    p.add_argument('--batch-size', type=int, default=100)
    args = p.parse_args(words)
    try:
        COMMANDS[args.command](args)
    except InputError as e:
        sys.exit(f'contests.py: {e}')


if __name__ == '__main__': main()
