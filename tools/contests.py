"""The comparison of chapter 25: plan a round, draw and measure parts of it, put them together, draw a line again.

    python tools/contests.py plan  --model mnist-a --weak mnist-weak      who takes part, with how many steps; hours
    python tools/contests.py draw  --model mnist-a --shard 1/2            only the images, which `measure` finds again
    python tools/contests.py measure --model mnist-a --shard 1/2          draw what is lacking, and measure
    python tools/contests.py merge --model mnist-a --shards 2             the table of a stage
    python tools/contests.py verdicts --model mnist-a --stage chosen      who is better than plain guidance
    python tools/contests.py exact --model mnist-a --stage chosen         what the exact world of pictures says
    python tools/contests.py joint --stage second --only apg              how much of their noise networks share
    python tools/contests.py infinite --stage final --only cfg apg        FID of all seeds joined, and extrapolated
    python tools/contests.py redo  --model mnist-a --line 7               one line of it, drawn again
    python tools/contests.py join  --model mnist-a --from out/mine        techniques of another round, into these tables

Stages that tune: first, farther1, farther2, farther3, finer. Stages that compare, each with noise of its own:
chosen (everybody at the strength that was best), second (the 15 best of these and those that people use; with
--network NAME on another network, at the same strengths), final (the five best and those that people use, at 24, 48
and 96 evaluations), full (the five best and plain guidance, with many images).
Every stage reads the tables of the ones before. `cost` says what a stage would cost. Everything resumes: a part goes
on where it was, and where its own table is gone, from what the table of the whole stage has (`merge --so-far`).
Tables: nbs/results/contest_MODEL_STAGE.csv; images: --keep-in.
"""
from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pandas as pd
import torch

from cfg_course.contests import POPULAR, ROW, Bench, Candidate, Entry, Rivals, Round, asks_gradient, candidates, enter, farther
from cfg_course.contests import entry_of, felt_of, find_points, finer, fitted, hours_of, merge_shards, no_rivals, read_part, redo
from cfg_course.contests import run_shard, shard_of
from cfg_course.contests import judged, name_of, tuned
from cfg_course.core import InputError, check, to_float, write_json, write_results
from cfg_course.data import load_data
from cfg_course.denoisers import find_model
from cfg_course.evidence import Felt, Omitted, difference_row, error_of, estimate, judge_names, minus, usual_measures
from cfg_course.metrics import equal_shares
from cfg_course.pictures import find_world, measure_pictures
from cfg_course.standings import BUDGETS, NETWORKS, RIVALS, TUNING, budget_of, read_rows, scores_of, table_of
from cfg_course.sweeps import Drawn, Yardstick, find_guidance, find_images, fingerprints, make_yardstick, write_table
from cfg_course.training import make_accelerator

RESULTS = Path(__file__).resolve().parents[1]/'nbs'/'results'
SEEDS = dict(chosen=(1,), second=(2, 3, 4, 5), final=(6, 7, 8, 9), full=(10, 11, 12, 13)) # of the stages that compare
SIZES = dict(chosen=1000, second=1000, final=1000, full=10_000) # images of a setting and seed in them
STAGES = *TUNING, *SEEDS
LEFT = dict(second=15, final=5, full=5) # the best of the stage before who go on
BESIDE = dict(second=POPULAR, final=POPULAR, full=('cfg',)) # who goes on whether or not it is among them
LEAST = 250 # images of a setting: FID compares 128 features
QUICK = 'fid', 'accuracy', 'class_std' # what tuning looks at
METRICS = tuple(usual_measures())
DEAR = 'kid', 'recall', 'coverage' # every image with every other one: left out where there are many
JOINED = 'fid', 'fid_infinite' # of the images of all seeds together
FOR_EACH_FEATURE = 8 # images from which FID can be extrapolated: twice as many in each of four parts as there are features


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
    stages:tuple[str, ...]=TUNING, # before the one that is wanted
)->pd.DataFrame: # candidate, strength, score
    "What the stages before have found."
    paths = [table_of(args.model, stage, args.results) for stage in stages]
    there = [path for path in paths if path.is_file()]
    check(there, 'stage', args.stage, f'one whose earlier tables are there: {paths[0]} is not')
    return scores_of(read_rows(there))


def next_values(
    candidate:Candidate, # any
    tried:pd.DataFrame, # strength and score of its own
    stage:str, # one of `TUNING`
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


def best_of(
    args:argparse.Namespace, # of the command line
)->list[Candidate]: # each with its best value only; those without any are left out
    "Everybody at the strength that tuning found."
    able, _ = read_plan(args)
    found = tuned(tried_so_far(args)).set_index('candidate')
    sound = found[found.score < float('inf')].strength
    return [c._replace(values=(float(sound[c.name]),)) for c in able if c.name in sound]


def taking_part(
    args:argparse.Namespace, # of the command line
)->list[Candidate]: # who is left in the stage
    "Who takes part in a stage that compares."
    everybody = best_of(args)
    if args.stage == 'chosen':
        return everybody
    before = 'chosen' if args.stage == 'second' else 'second'
    path = table_of(args.model, before, args.results)
    check(path.is_file(), 'stage', args.stage, f'one whose earlier table is there: {path} is not')
    league = {c.name for c in everybody if c.league == 'one'}
    one = [name for name in scores_of(read_rows([path])).sort_values('score').candidate if name in league]
    best = one[:LEFT[args.stage]]
    wanted = {*best, *BESIDE[args.stage]}
    return [c for c in everybody if c.name in wanted]


def able_with(
    left:list[Candidate], # who takes part
    how:Round, # with the network that draws
    first:bool=True, # is it the network of the round?
)->list[Candidate]: # those whom it can draw; the others are named
    "A technique that was fitted to one network, as a learned head is, has nothing to say about another one."
    denoise, meta = find_model(how.model)
    able = []
    for candidate in left:
        point = candidate.point(candidate.values[0], model=how.model, num=how.num)
        try:
            check(first or not asks_gradient(point), 'gradient', 'a technique that differentiates a network', 'one that does not, with another network: an image costs many times as much')
            find_guidance(point, denoise, meta)
            able.append(candidate)
        except InputError as e:
            print(f'out with {how.model}: {candidate.name}, {e}')
    return able


def by_budget(
    args:argparse.Namespace, # of the command line
)->dict[float, list[Entry]]: # evaluations of an image -> settings
    "Who is left, with every seed; in the finals with every budget."
    _, how = read_plan(args)
    how = how._replace(model=args.network or args.model, num=args.compare)
    left = able_with(taking_part(args), how, not args.network)
    budgets = BUDGETS if args.stage == 'final' else (how.budget,)
    found = {}
    for budget in budgets:
        able = left if budget == how.budget else [fitted(c, how._replace(budget=budget)) for c in left]
        found[budget] = [e for seed in SEEDS[args.stage] for e in find_points(able, how._replace(seed=seed))]
    return found


def tuning(
    args:argparse.Namespace, # of the command line
)->list[Entry]: # all settings of a stage that tunes
    "What is tried in a stage."
    able, how = read_plan(args)
    values = None
    if args.stage != 'first':
        tried = tried_so_far(args, TUNING[:TUNING.index(args.stage)])
        values = {c.name: next_values(c, tried[tried.candidate == c.name], args.stage) for c in able}
    return [lighter(entry) for entry in find_points(able, how, values)]


def lighter(
    entry:Entry, # a setting that tunes
)->Entry: # with a quarter of the images, where it is dear
    "A technique that differentiates a network is tuned with fewer images, since each of them costs many times as much."
    if not asks_gradient(entry.point):
        return entry
    num = min(entry.point.num, max(LEAST, entry.point.num//4))
    return entry._replace(point=entry.point._replace(num=num))


def plain_like(
    entry:Entry, # any setting
    plain:Entry, # plain guidance, tuned
    steps:int, # of it
)->Entry: # with the same noise
    "Plain guidance at its best scale, from the noise of a setting."
    sampling = tuple({**dict(plain.point.sampling), 'steps': steps}.items())
    same = {k: getattr(entry.point, k) for k in ('model', 'num', 'seed')}
    return plain._replace(point=plain.point._replace(sampling=sampling, **same))


def against_plain(
    groups:dict[float, list[Entry]], # of `by_budget`
)->Callable[[Entry], Rivals]: # what a setting of a stage that compares is compared with
    "Plain guidance at equal evaluations, and at equal steps."
    plain = {}
    for entries in groups.values():
        first = next(e for e in entries if e.candidate == 'cfg')
        plain |= dict.fromkeys(map(name_of, entries), first)
    def rivals_of(
        entry:Entry, # of the stage
    )->Rivals: # two
        rival = plain[name_of(entry)] # a line of a table has its sampler's settings in another order
        steps = {RIVALS['evaluations'].differs: steps_of(rival), RIVALS['steps'].differs: steps_of(entry)}
        return {name: plain_like(entry, rival, k) for name, k in steps.items()}
    return rivals_of


def stage_of(
    args:argparse.Namespace, # of the command line
)->tuple[list[Entry], Callable[[Entry], Rivals]]: # all settings; what each is compared with
    "The settings of a stage, seed after seed, so that whole seeds can be merged early; while tuning nobody is compared."
    if args.stage in TUNING:
        return tuning(args), no_rivals
    groups = by_budget(args)
    together = sorted(sum(groups.values(), []), key=lambda entry: entry.point.seed)
    return together, against_plain(groups)


def steps_of(
    entry:Entry, # a setting
)->int: # of its sampler
    "How many steps a setting takes."
    return dict(entry.point.sampling)['steps']


def judges_of(
    args:argparse.Namespace, # of the command line
    model:str, # of the round
)->dict[str, Yardstick]: # by name
    "The judges of a model, with real images that none of them has seen."
    meta = find_model(model)[1]
    names = args.judges or judge_names(meta['data'], meta['shape'])
    how = dict(reference=args.reference, data_dir=args.data_dir, shape=meta['shape'], split=args.real)
    metrics = QUICK if args.stage in TUNING else METRICS
    if args.stage == 'full':
        metrics = tuple(m for m in METRICS if m not in DEAR)
    return {name: make_yardstick(meta['data'], metrics, name, **how) for name in names}


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
    mine = shard_of(stage_of(args)[0], args.shard)
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
    entries, rivals_of = stage_of(args)
    if not entries:
        return say_nothing(args)
    judges = judges_of(args, args.model)
    run_shard(
        entries, judges, out_of(args), args.shard,
        args.keep_in, args.device, args.batch_size, say, rivals_of)


def out_of(
    args:argparse.Namespace, # of the command line
)->Path: # a .csv file
    "The table of the stage that is asked for."
    return table_of(args.network or args.model, args.stage, args.results)


def say_cost(
    args:argparse.Namespace, # of the command line
)->None:
    "Print what drawing a stage would cost."
    cost = hours_of(stage_of(args)[0], args.device)
    print(cost.round(2).to_string(index=False))
    print(f'{cost.settings.sum()} settings, {cost.evaluations.sum()/1e6:.1f} million evaluations, {cost.hours.sum():.1f} hours')


def say_verdicts(
    args:argparse.Namespace, # of the command line
)->None:
    "Write who is better than plain guidance, and by how much."
    later = 'chapter 20b reads the words of later rounds from their own tables'
    check(args.stage == 'chosen', 'stage', args.stage, f'chosen; {later}')
    path = out_of(args)
    check(path.is_file(), 'stage', args.stage, f'one with its table, {path}, there')
    rows = pd.read_csv(path)
    able, _ = read_plan(args)
    leagues = {c.name: c.league for c in able}
    name = path.stem.removesuffix('_chosen')
    for rival, ending in RIVALS.values():
        differences, found = (t.rename(columns=dict(technique='candidate')) for t in judged(rows, rival, leagues))
        config = dict(model=args.network or args.model, stage=args.stage, rival=rival)
        write_results(differences.to_dict('records'), path.with_name(f'{name}_differences{ending}.csv'), config)
        write_results(found.to_dict('records'), path.with_name(f'{name}_verdicts{ending}.csv'), config)
        print(f'against {rival}:', found.groupby(['league', 'verdict']).size().to_dict())


def merge(
    args:argparse.Namespace, # of the command line
)->None:
    "Put the parts of a stage together."
    if args.stage in TUNING and not stage_of(args)[0]:
        return say_nothing(args)
    print(merge_shards(out_of(args), args.shards, args.so_far))


def say_nothing(
    args:argparse.Namespace, # of the command line
)->None:
    "A stage that tunes has nothing to try where every optimum has neighbours already."
    print(f'{args.stage}: nothing is left to try')


# A round of one's own

SHARED = 'protocol', 'judges', 'metrics', 'reference', 'rivals', 'batch_size' # of the notes of tables that can be joined
CLOSE = .1 # of an interval: how far plain guidance may be off, since processors round differently


def check_joinable(
    path:Path, # of a table
    mine:dict, # configuration of one's own round
    theirs:dict, # of the table
)->None:
    "Refuse tables that were not made alike."
    for key in SHARED:
        check(mine[key] == theirs[key], f'{path.name}, {key}', mine[key], f'{theirs[key]!r}, as in the table')
    for model, print_ in mine['weights'].items():
        other = theirs['weights'].get(model, print_)
        check(print_ == other, f'{path.name}, weights of {model}', print_, f'{other}, as in the table')


def check_plain(
    path:Path, # of a table
    mine:list[dict[str, str]], # rows of one's own round
    theirs:list[dict[str, str]], # rows of the table
)->None:
    "Refuse a round whose plain guidance is not that of the table."
    def lines_of(
        rows:list[dict[str, str]], # of a table
    )->dict[tuple[str, ...], dict[str, str]]: # all but the numbers -> row
        plain = [row for row in rows if row['candidate'] == 'cfg' and row['value']]
        return {tuple(v for k, v in row.items() if k not in ('value', 'low', 'high')): row for row in plain}
    own, other = lines_of(mine), lines_of(theirs)
    check(own or not other, f'{path.name}, cfg', 'no rows of one\'s own', 'plain guidance in both rounds')
    others = len(own.keys() - other.keys())
    check(not others, f'{path.name}, cfg', f'{others} rows of other settings', 'the settings of the table')
    sizes = [{(row['samples'], row['seed']) for row in rows} for rows in (mine, theirs)]
    check(sizes[0] <= sizes[1], f'{path.name}, images and seeds', sorted(sizes[0]), f'those of the table: {sorted(sizes[1])}')
    for key, row in own.items():
        a, b, low, high = (float(o) for o in (row['value'], other[key]['value'], row['low'], row['high']))
        near = abs(a - b) <= CLOSE*(high - low) + 1e-4*abs(b)
        check(near, f'{path.name}, cfg, {row["judge"]} {row["metric"]}', a, f'{b}, as in the table')


def is_new(
    path:Path, # of a table
)->bool: # nobody had anything to try in this stage so far
    "A stage that tunes, after the first, has no table where every optimum had neighbours already."
    later = path.stem.rpartition('_')[2] in TUNING[1:]
    return later and not path.is_file()


def check_tables(
    args:argparse.Namespace, # of the command line
    path:Path, # of a table
    source:Path, # the same table of one's own round
)->None:
    "Refuse two tables that cannot be joined."
    if is_new(path):
        first = table_of(args.model, TUNING[0], args.results)
        return check_joinable(path, read_part(source)[1]['config'], read_part(first)[1]['config'])
    check(path.is_file(), 'results', str(path), 'a table that is there, to which to add')
    (mine, my_note), (theirs, note) = read_part(source), read_part(path)
    check_joinable(path, my_note['config'], note['config'])
    check_plain(path, mine, theirs)


def join_table(
    path:Path, # of a table
    source:Path, # the same table of one's own round
)->set[str]: # names of the techniques that are new
    "Add the lines of techniques that a table lacks."
    if is_new(path):
        for suffix in '.csv', '.json':
            path.with_suffix(suffix).write_bytes(source.with_suffix(suffix).read_bytes())
        return {row['candidate'] for row in read_part(path)[0]}
    (mine, my_note), (theirs, note) = read_part(source), read_part(path)
    known = {row['candidate'] for row in theirs}
    new = [row for row in mine if row['candidate'] not in known]
    config = note['config']
    plan = [key for key in my_note['config']['plan'] if key[0] not in known]
    config |= dict(plan=config['plan'] + plan, weights=my_note['config']['weights'] | config['weights'])
    added = {' '.join(key) for key in plan}
    failed = note.get('failed', {}) | {name: why for name, why in my_note.get('failed', {}).items() if name in added}
    write_table(theirs + new, dict(config=config, failed=failed), path, ROW)
    return {row['candidate'] for row in new}


def join_rounds(
    args:argparse.Namespace, # of the command line
)->None:
    "Add the techniques of a round of one's own to tables that are there, so that nobody else has to be drawn again."
    check(args.source, '--from', None, 'the folder of the round to add')
    check(args.source.resolve() != args.results.resolve(), '--from', str(args.source), 'another folder than --results')
    folders = args.results, args.source
    pairs = [[table_of(args.model, stage, folder) for folder in folders] for stage in (*TUNING, 'chosen')]
    there = [pair for pair in pairs if pair[1].is_file()]
    check(there, '--from', str(args.source), f'a folder with {pairs[0][1].name}')
    for path, source in there: # all are looked at before one is written
        check_tables(args, path, source)
    plans = [json.loads(plan_path(args.model, folder).read_text()) for folder in folders]
    known = {c['name'] for c in plans[0]['candidates']}
    more = [c for c in plans[1]['candidates'] if c['name'] not in known]
    new = set().union(*(join_table(path, source) for path, source in there))
    plans[0]['candidates'] += more
    write_json(plans[0], plan_path(args.model, args.results))
    names = ', '.join(sorted(new)) or 'nothing, all are there'
    print(f'joined: {names}. Next: verdicts --stage chosen, then tools/compare.py')


WORLDS = {(1, 28, 28): 'digits-world', (3, 16, 16): 'thumbnails-world', (1, 8, 8): 'small-world'}


def measure_exactly(
    args:argparse.Namespace, # of the command line
)->None:
    "Measure the images of a stage in the exact world that was made from the same data, and as many real images."
    acc = make_accelerator('fp32', args.device)
    entries, _ = stage_of(args)
    meta = find_model(entries[0].point.model)[1]
    name = WORLDS[tuple(meta['shape'])]
    world = find_world(name)[0]
    weights = fingerprints([e.point for e in entries])
    real = load_data(meta['data'], 'floor', args.data_dir, image_size=meta['shape'][-1])
    some = real.take(equal_shares(real.y, args.compare))
    rows = [dict(candidate='real images', measure=k, value=v) for k, v in measure_pictures(world, to_float(some.x), some.y).items()]
    for k, entry in enumerate(entries, 1):
        drawn = find_images(entry.point, weights, args.keep_in, acc, args.batch_size, middle='mean')
        found = measure_pictures(world, to_float(drawn.x), drawn.y)
        rows += [dict(candidate=entry.candidate, strength=entry.strength, seed=entry.point.seed, measure=m, value=v) for m, v in found.items()]
        say(k, len(entries), entry)
    path = out_of(args)
    config = dict(model=args.network or args.model, stage=args.stage, world=name, samples=args.compare)
    write_results(rows, path.with_name(f'{path.stem}_exact.csv'), config)


def bench_of(
    args:argparse.Namespace, # of the command line
    judges:dict[str, Yardstick], # by name
    entries:list[Entry], # all that may be drawn
)->Bench:
    "Where the settings of a command are drawn and measured."
    weights = fingerprints([e.point for e in entries])
    return Bench(judges, weights, args.keep_in, make_accelerator('fp32', args.device), args.batch_size)


def joint_errors(
    entries:list[Entry], # the same technique and seed, of several networks
    plain:Entry, # plain guidance at equal evaluations
    args:argparse.Namespace, # of the command line
    judges:dict[str, Yardstick], # by name
)->list[dict]: # a row for each judge
    "The error of the mean over networks: that of one, which is the most it can be, felt image by image, and without shared noise."
    pairs = [(entry, plain_like(entry, plain, steps_of(plain))) for entry in entries]
    bench = bench_of(args, judges, [e for pair in pairs for e in pair])
    found = [tuple(felt_of(bench.images(e), judges) for e in pair) for pair in pairs]
    omitted = found[0][0][1]
    rows = []
    for judge, metric in found[0][0][0]:
        away = [minus(a[judge, metric], b[judge, metric]) for (a, _), (b, _) in found]
        errors = [error_of(each, omitted) for each in away]
        mean = Felt(*(None if parts[0] is None else sum(parts)/len(parts) for parts in zip(*away)))
        n = len(away)
        rows.append(dict(
            candidate=entries[0].candidate, seed=entries[0].point.seed, judge=judge, difference=mean.value, error_of_one=sum(errors)/n,
            joint=error_of(mean, omitted), independent=sum(e**2 for e in errors)**.5/n))
    return rows


def say_joint(
    args:argparse.Namespace, # of the command line
)->None:
    "Write how much of their noise the networks share, for some techniques."
    check(args.only, '--only', None, 'names of techniques')
    judges = {name: yard._replace(metrics=('fid',)) for name, yard in judges_of(args, args.model).items()}
    entries, rivals_of = stage_of(args)
    rows = []
    for entry in entries:
        if entry.candidate in args.only and entry.point.seed == SEEDS['second'][0]:
            plain = rivals_of(entry)[RIVALS['evaluations'].differs]
            same = [entry._replace(point=entry.point._replace(model=name)) for name in NETWORKS[args.model]]
            rows += joint_errors(same, plain, args, judges)
    write_results(rows, table_of(args.model, 'joint', args.results), dict(model=args.model, samples=args.compare, networks=list(NETWORKS[args.model])))
    print(pd.DataFrame(rows).to_string(index=False))


def join_seeds(
    drawn:list[Drawn], # of the same setting, a seed each
)->Drawn: # as one set
    "The images of several seeds together."
    return drawn[0]._replace(x=torch.cat([d.x for d in drawn]), y=torch.cat([d.y for d in drawn]))


def budgets_of(
    args:argparse.Namespace, # of the command line
)->dict[float, list[int]]: # evaluations -> seeds
    "What the table of a stage has: the seeds of each budget."
    path = out_of(args)
    check(path.is_file(), 'stage', args.stage, f'one with its table, {path}, there')
    rows = pd.read_csv(path)
    return {budget: sorted(own.seed.unique()) for budget, own in rows.groupby(rows.nfe.map(budget_of))}


def say_infinite(
    args:argparse.Namespace, # of the command line
)->None:
    "Write FID of the images of all seeds as one set, and extrapolated to infinitely many, with differences from plain guidance."
    check(args.stage in SEEDS, 'stage', args.stage, ', '.join(SEEDS))
    judges = {name: yard._replace(metrics=JOINED) for name, yard in judges_of(args, args.model).items()}
    least = FOR_EACH_FEATURE*max(yard.num_features for yard in judges.values())
    drawn, rows = budgets_of(args), []
    for budget, entries in by_budget(args).items():
        if args.budgets and budget not in args.budgets:
            continue
        seeds = drawn.get(budget, [])
        if len(seeds)*args.compare < least:
            print(f'left out: {budget:g} evaluations, too few images so far')
            continue
        rows += joined_rows(budget, [e for e in entries if e.point.seed in seeds], args, judges)
    if not rows:
        return
    path = table_of(args.model, f'{args.stage}_infinite', args.results)
    write_results(earlier_rows(path, rows) + rows, path, dict(model=args.model, stage=args.stage))


def earlier_rows(
    path:Path, # of a table, there or not
    new:list[dict], # rows with a candidate and evaluations
)->list[dict]: # rows of the table that are not made anew
    "What a table has of other candidates and other budgets."
    if not path.is_file():
        return []
    known = {(row['candidate'], row['evaluations']) for row in new}
    rows = pd.read_csv(path).to_dict('records')
    return [row for row in rows if (row['candidate'], row['evaluations']) not in known]


def joined_rows(
    budget:float, # network evaluations of an image
    entries:list[Entry], # of one budget, all seeds
    args:argparse.Namespace, # of the command line
    judges:dict[str, Yardstick], # by name, with the measures `JOINED`
)->list[dict]: # a row for each candidate, rival, judge and measure
    "Measures of the joined images of each candidate, less those of plain guidance."
    rivals_of = against_plain({budget: entries})
    bench = bench_of(args, judges, [e for entry in entries for e in (entry, *rivals_of(entry).values())])
    @cache # plain guidance is measured once
    def felt(
        parts:tuple[Entry, ...], # a seed each
    )->tuple[dict, Omitted]: # measures; the groups that they were felt with
        drawn = join_seeds([bench.images(e) for e in parts])
        return felt_of(drawn, judges, repeats=1) # what is counted twice is little with so many images
    names = [c for c in dict.fromkeys(e.candidate for e in entries) if not args.only or c in args.only]
    rows = []
    for k, name in enumerate(names, 1):
        mine = tuple(e for e in entries if e.candidate == name)
        for rival, (differs, _) in RIVALS.items():
            theirs = tuple(rivals_of(e)[differs] for e in mine)
            same = dict(candidate=name, evaluations=budget, rival=rival)
            rows += [same | row for row in compared_rows(felt(mine), felt(theirs))]
        print(f'{budget:g} evaluations, {k}/{len(names)} {name}', flush=True)
    return rows


def compared_rows(
    ours:tuple[dict, Omitted], # measures of a setting; the groups that they were felt with
    theirs:tuple[dict, Omitted], # the same of what it is compared with
)->list[dict]: # a row for each judge and measure
    "Measures of a setting, and how far they are from those of another."
    (own, omitted), (other, groups) = ours, theirs
    check(groups.y.equal(omitted.y), 'classes', groups.y.tolist(), 'those of both settings')
    rows = []
    for (judge, metric), found in own.items():
        value, low, high = estimate(metric, found, omitted)
        away = difference_row(judge, metric, minus(found, other[judge, metric]), omitted)
        rows.append(dict(
            samples=len(omitted.y), judge=judge, metric=metric, value=value, low=low, high=high,
            difference=away['difference'], error=away['error'],
            difference_low=away['low'], difference_high=away['high'], p=away['p']))
    return rows


def draw_again(
    args:argparse.Namespace, # of the command line
)->None:
    "Draw one line of a table again, and say whether it is the same."
    path = out_of(args)
    rows = pd.read_csv(path, dtype=str, keep_default_na=False).to_dict('records')
    check(2 <= args.line <= len(rows) + 1, 'line', args.line, f'2 to {len(rows) + 1}, the lines of {path.name}')
    row = rows[args.line - 2]
    judges = judges_of(args, args.model) if row['judge'] else {}
    batch_size = json.loads(path.with_suffix('.json').read_text())['config']['batch_size']
    rivals_of = no_rivals if args.stage in TUNING else stage_of(args)[1]
    new = redo(row, judges, args.device, batch_size, rivals_of)
    print(f'{entry_of(row).point}\nit says: {row["value"]} [{row["low"]}, {row["high"]}]')
    print(f'redone:  {new["value"]} [{new["low"]}, {new["high"]}]')
    print('the same to the last digit' if new == row else 'NOT the same')
    if new != row:
        raise SystemExit(1)


def size_so_far(
    args:argparse.Namespace, # of the command line
)->int|None: # images of a setting and seed; none in a stage that tunes
    "As many as the table of a stage that compares has, where it is there; the size of the protocol where it is not."
    path = out_of(args)
    if args.stage not in SEEDS or not path.is_file():
        return SIZES.get(args.stage)
    try:
        return int(pd.read_csv(path, nrows=1).samples[0])
    except (AttributeError, KeyError, ValueError):
        raise InputError(f'results: got {path}, allowed: a table of a contest, not damaged') from None


def part(
    text:str, # such as 3/16
)->tuple[int, int]: # (3, 16)
    "Which part, of how many."
    i, _, n = text.partition('/')
    return int(i), int(n)


COMMANDS = dict(plan=make_plan, cost=say_cost, draw=draw, measure=measure, merge=merge, verdicts=say_verdicts, exact=measure_exactly, joint=say_joint, infinite=say_infinite, redo=draw_again, join=join_rounds)


def main(
    words:list[str]|None=None, # of the command line
)->None:
    "Parse the command line and run."
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('command', choices=COMMANDS)
    p.add_argument('--model', default='mnist-a', help='a shipped model, or the folder or file of a run (%(default)s)')
    p.add_argument('--weak', default='mnist-weak', help='a worse one, for autoguidance (%(default)s)')
    p.add_argument('--stage', choices=STAGES, default='first')
    p.add_argument('--num', type=int, default=1000, help='images of a setting while tuning, for plan (%(default)s)')
    p.add_argument('--compare', type=int, help='images of a setting and seed in the stages that compare (as many as its table has; for a new one ' + ', '.join(f'{n} in {stage}' for stage, n in SIZES.items()) + ')')
    p.add_argument('--network', help='another network of the same data, for the stages that compare')
    p.add_argument('--seed', type=int, default=0, help='of the noise (%(default)s)')
    p.add_argument('--shard', type=part, default=(1, 1), metavar='I/N', help='which part of a round (1/1)')
    p.add_argument('--shards', type=int, default=1, help='how many parts there are, for merge')
    p.add_argument('--so-far', action='store_true', help='merge the seeds that are complete, and go on later')
    p.add_argument('--line', type=int, default=2, help='of a table, for redo; the first below the header is 2')
    p.add_argument('--judges', nargs='+', help='names or files of classifiers')
    p.add_argument('--reference', type=int, default=10000, help='real images that no judge has seen (%(default)s)')
    p.add_argument('--real', default='reference', help='which real images: train, or reference (%(default)s)')
    p.add_argument('--results', type=Path, default=RESULTS, help='folder of plans and tables')
    p.add_argument('--from', dest='source', type=Path, help='folder of a round of your own, for join')
    p.add_argument('--only', nargs='+', help='names of candidates, for plan, joint and infinite')
    p.add_argument('--budgets', type=float, nargs='+', help='evaluations of an image, for infinite (all that the table has)')
    p.add_argument('--keep-in', type=Path, help='folder of images')
    p.add_argument('--data-dir', type=Path)
    p.add_argument('--device', default='auto')
    p.add_argument('--batch-size', type=int, default=50, help='images at a time; another number changes last digits (%(default)s)')
    args = p.parse_args(words)
    try:
        args.compare = args.compare or size_so_far(args)
        COMMANDS[args.command](args)
    except InputError as e:
        sys.exit(f'contests.py: {e}')


if __name__ == '__main__': main()
