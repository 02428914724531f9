"""Make what the page `compare.qmd` shows, from the tables of the contest: techniques, results, pictures.

    python tools/compare.py                       the data and the page, from the tables that are there
    python tools/compare.py --images FOLDER       the pictures too, from images that `tools/contests.py --keep-in` kept
    python tools/compare.py --check               only say whether the page is that of the tables

It reads nbs/results/contest_MODEL_*.csv of the models in `SETS`, as many as there are: the stages of tuning, `chosen`
(all measures at the chosen strengths), `differences` and `verdicts` against plain guidance at equal evaluations, the
same with `_steps` at equal steps, and `chosen_exact` (measures in the exact world of pictures). Without any it writes
what the catalogue says of each technique, and the page says that nothing is measured yet.
"""
from __future__ import annotations

import argparse
import hashlib
import html
import io
import json
import math
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

import marks
from cfg_course.catalogue import FAMILIES, cost_of, list_families, parse_guidance, techniques_of
from cfg_course.contests import LESS, Candidate, candidates, count_techniques
from cfg_course.core import InputError, check, parse, writing
from cfg_course.denoisers import find_model
from cfg_course.evidence import judge_names
from cfg_course.metrics import METRICS
from cfg_course.pictures import MEASURES as EXACT_MEASURES
from cfg_course.standings import LATER, RIVALS as NAMED
from cfg_course.standings import NETWORKS, TUNING, Second, read_standings, scores_of, table_of, title_of
from cfg_course.sweeps import Point, describe_point, fingerprints, keep_path, kept, labels_of, point_of
from contests import as_candidate, plan_path

NBS = Path(__file__).resolve().parents[1]/'nbs'
RESULTS, OUT, PAGE = NBS/'results', NBS/'compare', NBS/'compare.qmd'
LIMIT = 2_500_000 # bytes of all pictures
NOISES = 2 # pictures of a class
DIGITS = 4 # of a number


class Set(NamedTuple):
    "A data set on which the techniques are compared."
    name:str # in addresses, and of its folder of pictures
    title:str # in words
    model:str # that is guided
    weak:str # a worse one, for autoguidance


SETS = (
    Set('mnist', 'MNIST digits, 28 × 28', 'mnist-a', 'mnist-weak'),
    Set('photographs', 'Photographs of CIFAR-10, 16 × 16', 'cifar10-16', 'cifar10-16-weak'))

MEASURES = dict( # metric -> its name on the page
    fid='FID',
    kid='KID',
    precision='precision',
    recall='recall',
    density='density',
    coverage='coverage',
    accuracy='recognised',
    class_std='spread of pixels',
    feature_spread='spread of features')

class Rival(NamedTuple):
    "What a technique is compared with: plain guidance, with one of two things equal."
    name:str # of what is equal, in `NAMED`
    differs:str # its name among the rows of the stage `chosen`
    ending:str # of the names of its tables
    title:str # in words
    words:str # what it means, one sentence


RIVALS = (
    Rival('evaluations', *NAMED['evaluations'], 'at equal evaluations',
          'Plain guidance gets as many evaluations of the network for a picture as the technique, so one that costs more in a step has to make do with fewer steps.'),
    Rival('steps', *NAMED['steps'], 'at equal steps',
          'Plain guidance takes as many steps as the technique, so what the technique does in a step is judged without what it costs.'))

JUDGES = { # what the end of a judge's name says of it
    '': 'plain network',
    'residual': 'residual network',
    'unlabelled': 'network that saw no labels'}

KINDS = dict( # of a technique, in the filter
    schedule='schedule of the scale',
    strong='what is guided',
    weak='weak branch',
    rule='rule',
    classifier='classifier',
    energy='energy',
    procedure='sampler',
    term='term on top of plain guidance')
KIND_WORDS = dict(FAMILIES, term='a weak branch or an energy beside the label, at a strength of its own')

INTERVAL = 'Kynkäänniemi et al. 2024, arXiv:2404.07724'
SAID = { # of candidates that are no entry of the catalogue: title, kind, paper, what is special
    'cfg': ('plain guidance (classifier-free guidance)', 'rule', '', ''),
    'cfg, ddim': ('plain guidance, sampled with DDIM', 'procedure', '', ''),
    'cfg, ancestral': ('plain guidance, sampled with fresh noise', 'procedure', '', ''),
    'interval, middle': ('plain guidance at middle noise levels', 'schedule', INTERVAL, 'one evaluation a step outside of the interval'),
    'interval, all but low': ('plain guidance at all but low noise levels', 'schedule', INTERVAL, 'one evaluation a step outside of the interval'),
    'autoguidance, middle': ('autoguidance at middle noise levels', 'weak', '', 'one evaluation a step outside of the interval'),
    'pag, middle': ('perturbed-attention guidance at middle noise levels', 'weak', '', 'one evaluation a step outside of the interval'),
    'cfgpp, dpmpp': ('CFG++ with steps of DPM-Solver++', 'procedure', '', '')}

TAGS = dict( # what a technique needs, in the filter -> the words that say so
    model='second model',
    classifier='classifier',
    gradient='gradient',
    insides='attention|a network|second output|noise-level input|dropout',
    pictures='pictures|pixels',
    several='several samples|particles|reward|random sampler',
    levels='above the noise level',
    discriminator='discriminator')
TAG_TITLES = dict(
    nothing='nothing more',
    model='a second model',
    classifier='a classifier',
    gradient='a gradient',
    insides='the insides of the network',
    pictures='pictures, no other data',
    several='several pictures to give one',
    levels='other noise levels',
    discriminator='a discriminator')
KNOBS = {'@': 'strength'} # what is tuned, where that is not a name
VERDICTS = 'better', 'worse', 'undecided'


# Facts

def slug(
    name:str, # of a candidate
)->str: # of its file
    "A name that every file system and every address takes."
    return re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')


def read_paper(
    text:str, # authors, year, number, of the catalogue
)->list[dict[str, str]]: # words and address of each
    "Papers of a technique, with where to find them."
    found = []
    for part in filter(None, text.split('; ')):
        number = re.search(r'\b\d{4}\.\d{5}\b', part)
        words = re.sub(r',?\s*(arXiv:)?\d{4}\.\d{5}', '', part).replace('github.com/', '')
        code = re.search(r'github\.com/[\w-]+/[\w-]+', part)
        where = f'https://arxiv.org/abs/{number[0]}' if number else f'https://{code[0]}' if code else 'guidance.html'
        found.append(dict(text=words, url=where))
    return found


def tags_of(
    needs:str, # of the catalogue
)->list[str]: # of `TAG_TITLES`
    "What one has to have for a technique."
    if not needs:
        return ['nothing']
    return [tag for tag, words in TAGS.items() if re.search(words, needs)]


def facts_of(
    candidate:Candidate, # any
)->dict[str, Any]: # what JSON can hold
    "What the catalogue says of a candidate."
    names = parse_guidance(candidate.method.format(1))
    parts = techniques_of(names) or [('rule', 'cfg')]
    entries = {(e.changes, e.name): e for e in list_families()}
    mine = [entries[part] for part in parts]
    main = next((e for e in reversed(mine) if e.name != 'cfg'), mine[0])
    term = '@' in candidate.method
    title = f'{main.title}, on top of plain guidance' if term else ' with '.join(e.title for e in mine)
    title, kind, paper, special = SAID.get(candidate.name, (title, 'term' if term else main.changes, '', ''))
    needs = '; '.join(dict.fromkeys(e.needs for e in mine if e.needs))
    year = int(re.search(r'\b20\d\d\b', paper)[0]) if paper else main.year
    tags = tags_of(needs)
    if candidate.league == 'several':
        special = 'competes only with others that draw several pictures'
    if candidate.league == 'several' and 'several' not in tags:
        tags = [tag for tag in tags if tag != 'nothing'] + ['several']
    return dict(
        name=candidate.name,
        file=slug(candidate.name),
        title=title,
        method=candidate.method,
        kind=kind,
        knob=KNOBS.get(candidate.knob, candidate.knob),
        year=year,
        paper=read_paper(paper or main.paper),
        cost=cost_of(names, 2.),
        needs=needs,
        note=special,
        tags=tags,
        league=candidate.league)


def entrants()->list[Candidate]: # plain guidance first
    "Who takes part; what a set lacks is said among its results."
    return candidates(SETS[0].weak)


# Tables

def read_table(
    path:Path, # a .csv file, there or not
    columns:Iterable[str], # that it must have
)->pd.DataFrame|None: # its rows
    "A table; raises `InputError` for one that is damaged."
    if not path.is_file():
        return None
    try:
        table = pd.read_csv(path, keep_default_na=False, dtype=str)
    except (OSError, ValueError) as e:
        raise InputError(f'{path.name}: got {str(e)[:80]!r}, allowed: a table') from None
    lacking = [c for c in columns if c not in table]
    check(not lacking, path.name, ', '.join(lacking), 'a table with these columns')
    return table.fillna('') # a line that was cut lacks its last columns


def check_numbers(
    table:pd.DataFrame, # rows
    columns:Iterable[str], # that hold numbers
    path:Path, # of the table
)->None:
    "Raise an `InputError` where a column has something else."
    for column in columns:
        numbers = pd.to_numeric(table[column], errors='coerce')
        wrong = table[column][~np.isfinite(numbers)]
        check(wrong.empty, f'{path.name}, {column}', next(iter(wrong), ''), 'a number')


def check_known(
    values:pd.Series, # of a column
    known:Iterable[str], # that it may have
    path:Path, # of the table
    words:str='', # for what is known; all of it when not given
)->None:
    "Raise an `InputError` where a column names something else."
    known = list(known)
    wrong = values[~values.isin(known)]
    check(wrong.empty, f'{path.name}, {values.name}', next(iter(wrong), ''), words or ', '.join(known))


def check_once(
    table:pd.DataFrame, # rows
    columns:Iterable[str], # that tell one row from another
    path:Path, # of the table
)->None:
    "Raise an `InputError` where two rows speak of the same."
    columns = list(columns)
    twice = table[table.duplicated(columns)]
    check(twice.empty, path.name, ' '.join(twice.iloc[0][columns]) if len(twice) else '', 'once')


def read_measured(
    path:Path, # a .csv file, there or not
    model:str, # whose pictures it is about
)->pd.DataFrame: # its rows, none where there is no file
    "A table of a stage; raises `InputError` for one that is damaged."
    table = read_table(path, MEASURED)
    if table is None:
        return pd.DataFrame(columns=MEASURED, dtype=str)
    check_numbers(table, NUMBERS, path)
    check_numbers(table[table.metric != 'failed'], ['nfe'], path)
    check_known(table.model, [model], path)
    check_known(table.metric, KNOWN, path, 'a measure of the page')
    check_once(table, ('candidate', 'strength', 'samples', 'seed', 'judge', 'metric'), path)
    return table


def read_chosen(
    path:Path, # a .csv file, there or not
    model:str, # whose pictures it is about
)->pd.DataFrame: # its rows, none where there is no file
    "The table of the chosen strengths: one for each."
    table = read_measured(path, model)
    for name, strengths in table.groupby('candidate').strength:
        tried = strengths.unique()
        check(len(tried) == 1, f'{path.name}, strength of {name}', ', '.join(tried), 'one')
    return table


def as_number(
    text:str, # of a table, or a number
)->float|None: # to `DIGITS` digits
    "A number as JSON keeps it; none for what is no finite number."
    try:
        value = float(text)
    except ValueError:
        return None
    return float(f'{value:.{DIGITS}g}') if math.isfinite(value) else None


NUMBERS = 'strength', 'steps', 'samples', 'seed' # columns that tell one setting from another
SETTING = ('candidate', 'strength', 'model', 'method', 'parameters', 'scale', 'sampler', 'steps', 'samples', 'seed', 'nfe')
SAME = ('method', 'parameters', 'scale', 'sampler', 'steps', 'samples') # of all seeds of a setting
MEASURED = (*SETTING, 'judge', 'metric', 'value', 'low', 'high')
KNOWN = 'effective_scale', 'failed', *MEASURES, *(f'{m}{LESS}{r.differs}' for m in MEASURES for r in RIVALS) # metrics


def tuning_rows(
    model:str, # of the round
    results:Path, # folder
)->pd.DataFrame: # rows of all stages
    "What was measured to tune."
    return pd.concat([read_measured(table_of(model, stage, results), model) for stage in TUNING])


def best_strength(
    rows:pd.DataFrame, # of one candidate
)->str|None: # as the table spells it; none where no judge has a number
    "The strength with the lowest mean, over the judges, of the logarithm of FID."
    scores = scores_of(rows.assign(value=pd.to_numeric(rows.value, errors='coerce')))
    sound = scores[scores.score < math.inf]
    return sound.strength[sound.score.idxmin()] if len(sound) else None


def joined(
    rows:pd.DataFrame, # of one measure: a row for each seed
)->list[float|None]|None: # value, low, high
    "The mean over seeds. Its interval is that of a mean of independent numbers."
    value, low, high = (pd.to_numeric(rows[k], errors='coerce') for k in ('value', 'low', 'high'))
    if not np.isfinite(value).all():
        return None
    below, above = (((side**2).sum())**.5/len(rows) for side in (value - low, high - value))
    mean = value.mean()
    return [as_number(v) for v in (mean, mean - below, mean + above)]


OWN = 'effective_scale', *MEASURES # metrics that are no difference from another setting


def numbers_of(
    rows:pd.DataFrame, # of one candidate at one strength
)->dict[str, dict[str, list]]: # judge -> metric -> value, low, high
    "What was measured at a setting."
    found = {}
    for (judge, metric), mine in rows[rows.metric.isin(OWN)].groupby(['judge', 'metric'], sort=False):
        estimate = joined(mine)
        if estimate:
            found.setdefault(judge, {})[metric] = estimate
    return found


def curve_of(
    rows:pd.DataFrame, # of one candidate, of all stages
    judges:list[str], # names
)->dict[str, Any]: # strengths; judge -> metric -> values
    "What every strength gave that was tried."
    table = rows.assign(value=pd.to_numeric(rows.value, errors='coerce'), at=pd.to_numeric(rows.strength))
    wide = table.pivot_table(index='at', columns=['judge', 'metric'], values='value')
    if wide.empty:
        return {}
    own = {j: {m: [as_number(v) for v in wide[j, m]] for m in ('fid', 'accuracy', 'class_std') if (j, m) in wide} for j in judges}
    return dict(strengths=[as_number(s) for s in wide.index], judges={j: o for j, o in own.items() if o})


def differences_of(
    table:pd.DataFrame, # of a rival
)->dict[str, dict]: # candidate -> judge -> metric -> difference, low, high, p
    "Paired differences from plain guidance."
    found = {}
    for row in table.to_dict('records'):
        mine = found.setdefault(row['candidate'], {}).setdefault(row['judge'], {})
        mine[row['metric']] = [as_number(row[k]) for k in ('difference', 'low', 'high', 'p')]
    return found


WAYS = dict(better=-1, worse=1) # sign of a difference in FID


def check_verdict(
    row:dict[str, str], # of a table of verdicts
    differences:dict[str, dict], # of the candidate: judge -> metric -> difference, low, high, p
    path:Path, # of the table
)->None:
    "Refuse a verdict that the differences do not bear out."
    name, word = row['candidate'], row['verdict']
    way = WAYS.get(word, 0)
    values = [own['fid'][0] for own in differences.values() if 'fid' in own]
    borne = values and all(v is not None and (not way or way*v > 0) for v in values)
    check(borne, f'{path.name}, verdict of {name}', word, 'one that its differences in FID bear out')


def read_rival(
    rival:Rival, # one of `RIVALS`
    path:Path, # of the table of the chosen strengths
    chosen:pd.DataFrame, # that table
)->dict[str, dict]: # candidate -> differences; verdict and Holm's p where there is one
    "What comes of a comparison; raises `InputError` for tables that do not belong together."
    paths = [path.with_name(f'{path.stem.removesuffix("_chosen")}_{kind}{rival.ending}.csv') for kind in ('differences', 'verdicts')]
    away, said = read_table(paths[0], OF_DIFFERENCES), read_table(paths[1], OF_VERDICTS)
    if away is None and said is None:
        return {}
    for one, other in (paths, paths[::-1]):
        check(one.is_file(), other.name, f'no {one.name} beside it', 'both; to make them: python tools/contests.py verdicts')
    check_differences(away, chosen, rival, paths[0])
    check_numbers(said, ['holm'], paths[1])
    check_known(said.verdict, VERDICTS, paths[1])
    check_once(said, ['candidate'], paths[1])
    differences = differences_of(away)
    found = {name: dict(differences=own) for name, own in differences.items()}
    check_known(said.candidate, found, paths[1], f'one of {paths[0].name}')
    for row in said.to_dict('records'):
        check_verdict(row, differences[row['candidate']], paths[1])
        found[row['candidate']] |= dict(verdict=row['verdict'], holm=as_number(row['holm']))
    return found


OF_DIFFERENCES = 'candidate', 'judge', 'metric', 'difference', 'low', 'high', 'p'
OF_VERDICTS = 'candidate', 'holm', 'verdict'
NEAR = 1e-3 # how far two spellings of a number may be apart


def check_differences(
    away:pd.DataFrame, # differences
    chosen:pd.DataFrame, # rows of the chosen strengths
    rival:Rival, # what they are differences from
    path:Path, # of the differences
)->None:
    "Refuse differences that are not those of the table that they were made from."
    check_known(away.metric, MEASURES, path)
    check_once(away, ('candidate', 'judge', 'metric'), path)
    rows = chosen.assign(value=pd.to_numeric(chosen.value, errors='coerce'), metric=chosen.metric.str.removesuffix(f'{LESS}{rival.differs}'))
    rows = rows[chosen.metric != rows.metric]
    want = rows.groupby(['candidate', 'judge', 'metric']).value.mean().to_dict()
    for row in away.to_dict('records'):
        key = row['candidate'], row['judge'], row['metric']
        check(key in want, path.name, ' '.join(key), 'a row of the chosen strengths; to mend: python tools/contests.py verdicts')
        value = as_number(row['difference'])
        same = value is None and not math.isfinite(want[key]) or value is not None and math.isclose(value, want[key], rel_tol=NEAR, abs_tol=1e-9)
        check(same, f'{path.name}, {" ".join(key)}', row['difference'], f'{want[key]:.6g}, as at the chosen strengths; to mend: python tools/contests.py verdicts')


OF_EXACT = 'candidate', 'strength', 'seed', 'measure', 'value'
REAL = 'real images' # that stand among the candidates


def read_exact(
    path:Path, # a .csv file, there or not
    chosen:pd.DataFrame, # rows of the chosen strengths
)->dict[str, dict[str, float]]: # candidate or `REAL` -> measure -> value
    "What the exact world says; raises `InputError` for a table of other pictures."
    table = read_table(path, OF_EXACT)
    if table is None:
        return {}
    drawn = table[table.candidate != REAL]
    check_numbers(drawn, ('strength', 'seed'), path)
    check_numbers(table[~table.value.str.lower().isin(('', 'nan', 'inf', '-inf'))], ['value'], path)
    check_known(table.measure, EXACT_MEASURES, path)
    check_once(table, OF_EXACT[:-1], path)
    have, known = pictures_in(drawn), pictures_in(chosen)
    for name, own in have.items():
        check(own == known.get(name), f'{path.name}, {name}', spell_pictures(own), f'{spell_pictures(known.get(name))}; to mend: python tools/contests.py exact')
    return {name: exact_means(rows) for name, rows in table.groupby('candidate', sort=False)}


def pictures_in(
    table:pd.DataFrame, # with candidate, strength, seed
)->dict[str, set[tuple[float, float]]]: # candidate -> strengths with seeds
    "Which pictures a table is about."
    pairs = zip(table.candidate, table.strength.astype(float), table.seed.astype(float))
    found = {}
    for name, strength, seed in pairs:
        found.setdefault(name, set()).add((as_number(strength), seed))
    return found


def spell_pictures(
    pairs:set[tuple[float, float]]|None, # strengths with seeds
)->str: # in words
    "Which pictures, in words."
    return ', '.join(f'strength {s:g} seed {k:g}' for s, k in sorted(pairs or ())) or 'a candidate of the chosen strengths'


def exact_means(
    rows:pd.DataFrame, # of one candidate
)->dict[str, float]: # measure -> value
    "Means over seeds; a measure that one of them lacks is not there."
    values = pd.to_numeric(rows.value, errors='coerce').where(lambda v: np.isfinite(v))
    seeds = rows.seed.nunique()
    groups = values.groupby(rows.measure, sort=False)
    means = {name: as_number(own.mean()) for name, own in groups if own.notna().sum() == seeds}
    return {name: means[name] for name in EXACT_MEASURES if name in means}


def settings_of(
    rows:pd.DataFrame, # of one candidate at one strength
)->list[dict[str, str]]: # column -> text
    "The settings of which rows tell: one for each seed."
    return rows.drop_duplicates('seed')[list(SETTING)].to_dict('records')


class Found(NamedTuple):
    "What the tables say of a candidate on a data set."
    facts:dict[str, Any] # what JSON can hold
    settings:list[dict[str, str]] # of its pictures
    number:int # of settings that the facts are about; they are the first


def find_result(
    tuned:pd.DataFrame, # its rows of tuning
    chosen:pd.DataFrame|None, # its rows at the chosen strength; none where there is no such table
    judges:list[str], # names
)->Found: # empty where nothing is measured
    "The numbers of a candidate at its best strength. Those of tuning do not stand in for chosen ones of a set."
    rows, state = (tuned, 'tuned') if chosen is None else (chosen, 'chosen')
    strength = best_strength(rows)
    if strength is None:
        lost = any((one.metric == 'failed').any() and best_strength(one) is None for one in (rows, tuned))
        return Found(dict(state='failed') if lost else {}, [], 0)
    mine = rows[rows.strength == strength]
    mine = mine[(mine[list(SAME)] == mine[list(SAME)].iloc[0]).all(axis=1)]
    settings, numbers = settings_of(mine), numbers_of(mine)
    also = settings_of(tuned[tuned.strength == strength]) # of the same strength, with pictures that others may have too
    effective = numbers.get('', {}).get('effective_scale')
    facts = dict(
        state=state,
        strength=as_number(strength),
        scale=as_number(settings[0]['scale']),
        method=settings[0]['method'],
        steps=as_number(settings[0]['steps']),
        nfe=as_number(np.mean([float(o['nfe']) for o in settings])),
        pictures=sum(int(float(o['samples'])) for o in settings),
        effective=effective,
        judges={j: numbers[j] for j in judges if j in numbers},
        curve=curve_of(tuned, judges))
    return Found(facts, settings + [o for o in also if o not in settings], len(settings))


def read_plan(
    model:str, # of the round
    results:Path, # folder
)->dict[str, Any]: # candidates; refused: name -> why; both empty where there is no plan
    "Who takes part, and who cannot."
    path = plan_path(model, results)
    plan = parse(path.read_bytes()) if path.is_file() else {}
    try:
        planned = [as_candidate(fields) for fields in plan.get('candidates', ())]
        return dict(candidates=planned, refused=dict(plan.get('refused', {})))
    except (KeyError, TypeError, ValueError) as e:
        raise InputError(f'{path.name}: got {str(e)[:80]!r}, allowed: a plan of tools/contests.py') from None


class Tables(NamedTuple):
    "All tables of a data set."
    tuned:pd.DataFrame # all stages of tuning
    chosen:pd.DataFrame # at the chosen strengths, maybe empty
    rivals:dict[str, dict[str, dict]] # name of a rival -> what `read_rival` says
    exact:dict[str, dict[str, float]] # of `read_exact`
    plan:dict[str, Any] # of `read_plan`
    files:list[Path] # those that are there


def read_tables(
    model:str, # of the round
    results:Path, # folder
)->Tables: # as many as there are
    "Everything that was measured of a model."
    stages = *TUNING, 'chosen', 'chosen_exact', *(f'{kind}{r.ending}' for r in RIVALS for kind in ('differences', 'verdicts'))
    path = {stage: table_of(model, stage, results) for stage in stages}
    chosen = read_chosen(path['chosen'], model)
    return Tables(
        tuning_rows(model, results),
        chosen,
        {r.name: read_rival(r, path['chosen'], chosen) for r in RIVALS},
        read_exact(path['chosen_exact'], chosen),
        read_plan(model, results),
        [p for p in path.values() if p.is_file()])


def judges_of(
    name:str, # of a set's model
    tables:Tables, # of the set
)->list[str]: # names, in order
    "Who judges: those of the tables, or those who will."
    seen = [j for j in pd.concat([tables.chosen, tables.tuned]).judge.unique() if j]
    meta = find_model(name)[1]
    return seen or judge_names(meta['data'], meta['shape'])


def judge_title(
    name:str, # of a judge
)->str: # in words
    "What kind of judge it is."
    ends = [words for end, words in JUDGES.items() if end and name.endswith(end)]
    return (ends or [JUDGES['']])[0]


def command_of(
    point:Point, # a setting
)->str: # to type
    "The command that draws such pictures."
    words = ['python sample.py', '--model', point.model, '--guidance', f"'{point.method}'" if '@' in point.method else point.method]
    if point.scale is not None:
        words += ['--guidance-scale', f'{point.scale:g}']
    if point.interval:
        words += ['--interval', *(f'{v:g}' for v in point.interval)]
    for key, value in point.options:
        words += ['--guidance-arg', f'{key}={value}']
    sampling = dict(point.sampling)
    for key in ('sampler', 'steps', 'grid'):
        words += [f'--{key}', f'{sampling[key]}'] if key in sampling else []
    return ' '.join(words)


def point_at(
    row:dict[str, str], # a setting, column -> text
    known:dict[str, Candidate], # name -> who takes part
)->Point: # what was drawn
    "The setting of a row. The candidate knows its options better than a table can spell them."
    try:
        point = point_of(row)
    except (KeyError, TypeError, ValueError) as e:
        raise InputError(f'row of {row["candidate"]}: got {str(e)[:80]!r}, allowed: one of a contest') from None
    mine = known.get(row['candidate'])
    if mine is None:
        return point
    own = mine.point(float(row['strength']), model=point.model, num=point.num, seed=point.seed)
    own = own._replace(sampling=point.sampling)
    return own if describe_point(own) == describe_point(point) else point


class Measured(NamedTuple):
    "A data set with its results."
    about:dict[str, Any] # what JSON can hold
    results:dict[str, dict] # candidate -> facts of it
    points:dict[str, list[Point]] # candidate -> the settings of its pictures
    shown:set[tuple[int, int]] # number and seed of the pictures that the numbers are of
    others:list[Candidate] # in the tables, and not in the list of those who take part


def last_words(
    which:Set, # a data set
    results:Path, # folder
)->dict[tuple[str, str], dict[str, Any]]: # candidate, name of a rival -> verdict, holm; empty where nobody is drawn again
    "The verdicts from the last round in which a technique took part."
    if not any(table_of(which.model, stage, results).is_file() for stage in LATER):
        return {}
    tables = read_standings(which.model, results)
    whole = {r.name: tables.together(r.name) for r in RIVALS if r.name in tables.verdicts}
    return {(row.candidate, k): dict(verdict=row.verdict, holm=as_number(row.holm)) for k, own in whole.items() for row in own.itertuples()}


def find_results(
    which:Set, # of `SETS`
    results:Path, # folder
)->Measured: # as much as there is
    "What the tables say of a data set."
    tables = read_tables(which.model, results)
    judges, meta = judges_of(which.model, tables), find_model(which.model)[1]
    listed = {c.name: c for c in candidates(which.weak)}
    known = listed | {c.name: c for c in tables.plan['candidates']}
    refused = tables.plan['refused']
    last = last_words(which, results)
    seen = dict.fromkeys([*listed, *tables.tuned.candidate.unique(), *tables.chosen.candidate.unique()])
    found, points, shown = {}, {}, set()
    for name in seen:
        tuned, chosen = (t[t.candidate == name] for t in (tables.tuned, tables.chosen))
        facts, settings, number = find_result(tuned, chosen if len(tables.chosen) else None, judges)
        if not facts and name in refused:
            facts = dict(state='refused', why=refused[name])
        more = dict(
            against={k: own[name] | last.get((name, k), {}) for k, own in tables.rivals.items() if name in own},
            exact=tables.exact.get(name, {}))
        if settings:
            points[name] = [point_at(row, known) for row in settings]
            facts |= dict(more, command=command_of(points[name][0]))
            shown |= {(p.num, p.seed) for p in points[name][:number]}
        found[name] = facts
    states = {f.get('state') for f in found.values()}
    about = dict(
        name=which.name,
        title=which.title,
        model=which.model,
        classes=[str(c).partition(' - ')[0] for c in meta['classes']],
        side=meta['shape'][-1],
        judges=[dict(name=j, title=judge_title(j)) for j in judges],
        state='chosen' if 'chosen' in states else 'tuned' if 'tuned' in states else 'none',
        compared={k: any('verdict' in o for o in own.values()) for k, own in tables.rivals.items()},
        real=tables.exact.get(REAL, {}),
        files=[p.name for p in tables.files])
    return Measured(about, found, points, shown, [named(name, points) for name in seen if name not in listed])


def named(
    name:str, # of a candidate that is in no list
    points:dict[str, list[Point]], # candidate -> its settings
)->Candidate: # of which the method is known
    "Somebody who takes part in a later round only, such as a pair of techniques."
    point = points[name][0] if name in points else None
    check(point is not None, 'candidate', name, 'one of the list, or one with numbers')
    return Candidate(name, point.method, options=point.options, interval=point.interval)


# Pictures

def cut(
    x:np.ndarray, # `(N, C, H, W)` uint8
    y:np.ndarray, # `(N,)` labels
)->np.ndarray: # `(NOISES H, classes W, C)` uint8
    "The first pictures of each class: a column for a class."
    firsts = np.stack([np.flatnonzero(y == k)[:NOISES] for k in np.unique(y)], 1)
    rows = [np.concatenate(list(x[row]), -1) for row in firsts]
    return np.concatenate(rows, -2).transpose(1, 2, 0)


def as_png(
    pixels:np.ndarray, # `(H, W, C)` uint8
)->bytes: # of a file
    "A PNG as small as Pillow makes it."
    out = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(out, 'PNG', optimize=True)
    return out.getvalue()


def find_pictures(
    points:dict[str, list[Point]], # candidate -> settings, one for each seed
    shown:set[tuple[int, int]], # number and seed of the pictures that the numbers are of
    folder:Path, # of images that were kept
)->tuple[dict[str, bytes], dict[str, int]]: # candidate -> PNG; number and seed of the images
    "Pictures on the same noise: those of which the numbers are, else others; of these what most candidates have."
    every = [p for own in points.values() for p in own]
    weights = fingerprints(every) if every else {}
    there = {}
    for name, own in points.items():
        for point in own:
            path = keep_path(folder, point, weights[point.model])
            if path.is_file():
                there.setdefault((point.num, point.seed), {})[name] = (point, path)
    if not there:
        return {}, {}
    num, seed = max(there, key=lambda key: (key in shown, len(there[key]), key[0], -key[1]))
    found = {}
    for name, (point, path) in there[num, seed].items():
        meta = find_model(point.model)[1]
        drawn = kept(path, labels_of(point, meta), meta['shape'])
        if drawn:
            found[name] = as_png(cut(drawn.x.numpy(), drawn.y.numpy()))
    return found, dict(samples=num, seed=seed)


def write_pictures(
    measured:list[Measured], # of all sets
    folder:Path, # of images that were kept
    out:Path, # folder of the page's data
)->None:
    "A picture for each technique and set, and a note of what they are; nothing is written when they are too large."
    made, note = {}, {}
    for one in measured:
        pictures, facts = find_pictures(one.points, one.shown, folder)
        name = one.about['name']
        made |= {out/name/f'{slug(k)}.png': data for k, data in pictures.items()}
        strengths = {k: one.results[k]['strength'] for k in pictures}
        note[name] = dict(facts, noises=NOISES, strengths=strengths)
    size = sum(map(len, made.values()))
    check(size <= LIMIT, 'pictures', f'{size} bytes', f'at most {LIMIT}')
    for one in measured:
        for old in (out/one.about['name']).glob('*.png'):
            old.unlink()
    for path, data in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    write_text(json.dumps(note, indent=1) + '\n', out/'pictures.json')
    print(f'{len(made)} pictures, {size:,} bytes')


def with_pictures(
    measured:Measured, # a data set
    out:Path, # folder of the page's data
)->Measured: # that knows which techniques have a picture of the strength that is shown
    "Add what the note of the pictures says."
    path = out/'pictures.json'
    note = parse(path.read_bytes()) if path.is_file() else {}
    mine = note.get(measured.about['name'], {})
    strengths = mine.get('strengths', {})
    results = {k: dict(f, picture=True) if f.get('strength') is not None and strengths.get(k) == f['strength'] else f
               for k, f in measured.results.items()}
    pictures = {k: v for k, v in mine.items() if k != 'strengths'}
    return measured._replace(about=dict(measured.about, pictures=pictures if strengths else {}), results=results)


# Data

def networks_of(
    which:Set, # a data set
)->tuple[str, ...]: # names of models
    "All networks that round 2 guides."
    return NETWORKS.get(which.model, (which.model,))


def round_of(
    drawn:Second, # a later round
    words:dict[str, pd.Series], # name of a rival -> candidate -> the word after it
)->dict[str, Any]: # what JSON can hold
    "What a later round says: gains under each judge, as shares of the FID of plain guidance, and the verdicts then."
    gains = drawn.gains()
    found = []
    for name in drawn.leaders().index:
        own = gains[gains.candidate == name].set_index('judge')
        spans = {judge: [as_number(row[k]) for k in ('gain', 'low', 'high')] for judge, row in own.iterrows()}
        found.append(dict(name=name, title=title_of(name), gains=spans, verdicts={k: said[name] for k, said in words.items()}))
    networks = {int(seed): sorted(own.model.unique()) for seed, own in drawn.rows.groupby('seed')}
    return dict(sets=drawn.sets(), networks=networks, techniques=found)


def drawn_again(
    which:Set, # a data set
    results:Path, # folder
)->dict[str, Any]: # name of a round -> what `round_of` says; the last round first, empty where nobody is drawn again
    "What the later rounds say."
    if not any(table_of(which.model, stage, results).is_file() for stage in LATER):
        return {}
    tables = read_standings(which.model, results)
    rounds = {name: getattr(tables, name) for name in reversed(LATER)}
    return {name: round_of(drawn, {r.name: tables.until(name).words(r.name) for r in RIVALS})
            for name, drawn in rounds.items() if drawn is not None}


def edition_of(
    results:Path, # folder
    measured:list[Measured], # of all sets
)->str: # eight figures, or none
    "A name for the tables as they are: their digest."
    again = [table_of(name, stage, results) for which in SETS for name in networks_of(which) for stage in LATER]
    names = sorted([*(name for one in measured for name in one.about['files']), *(path.name for path in again if path.is_file())])
    digest = hashlib.blake2b(digest_size=4)
    for name in names:
        digest.update((results/name).read_bytes())
    return digest.hexdigest() if names else ''


def make_data(
    results:Path, # folder of tables
    measured:list[Measured], # of all sets
)->dict[str, Any]: # what JSON can hold
    "All that the page knows."
    listed = entrants()
    others = {c.name: c for one in measured for c in one.others}
    rows = []
    for candidate in (*listed, *others.values()):
        own = {one.about['name']: one.results.get(candidate.name, {}) for one in measured}
        rows.append(dict(facts_of(candidate), results={k: v for k, v in own.items() if v}))
    kinds = [k for k in KINDS if any(row['kind'] == k for row in rows)]
    tags = [t for t in TAG_TITLES if any(t in row['tags'] for row in rows)]
    return dict(
        edition=edition_of(results, measured),
        sets=[one.about for one in measured],
        measures=[dict(name=k, title=title, better=METRICS[k].better, words=METRICS[k].what) for k, title in MEASURES.items()],
        kinds=[dict(name=k, title=KINDS[k], words=KIND_WORDS[k]) for k in kinds],
        needs=[dict(name=t, title=TAG_TITLES[t]) for t in tags],
        exact=[dict(name=k, words=m.words) for k, m in EXACT_MEASURES.items()],
        rivals=[dict(name=r.name, title=r.title, words=r.words) for r in RIVALS],
        counts=count_techniques()._asdict(),
        again={which.name: drawn_again(which, results) for which in SETS},
        techniques=rows)


DIFFERENCE = 'difference', 'difference_low', 'difference_high', 'p'
HEAD = ('set', 'technique', 'title', 'family', 'year', 'cost', 'needs', 'paper', 'state', 'strength', 'nfe', 'effective_scale',
        'judge', 'metric', 'value', 'low', 'high', *(f'{k}{r.ending}' for r in RIVALS for k in (*DIFFERENCE, 'holm', 'verdict')))
WORLD = 'exact world' # in the place of a judge


def judged_rows(
    found:dict[str, Any], # what is known of a technique on a set
)->Iterable[dict[str, Any]]: # column of `HEAD` -> value
    "One row for each number of a judge, with the differences from plain guidance."
    for judge, own in found.get('judges', {}).items():
        for metric, estimate in own.items():
            row = dict(zip(('judge', 'metric', 'value', 'low', 'high'), (judge, metric, *estimate)))
            for rival in RIVALS:
                away = found['against'].get(rival.name, {}).get('differences', {}).get(judge, {}).get(metric, ())
                row |= {f'{k}{rival.ending}': v for k, v in zip(DIFFERENCE, away)}
            yield row


def exact_rows(
    values:dict[str, float], # measure -> value
)->Iterable[dict[str, Any]]: # column of `HEAD` -> value
    "One row for each number of the exact world."
    for measure, value in values.items():
        yield dict(judge=WORLD, metric=measure, value=value)


def head_of(
    found:dict[str, Any], # what is known of a technique on a set
)->dict[str, Any]: # column of `HEAD` -> value
    "What all rows of a technique on a set share."
    head = {k: found.get(k) for k in ('state', 'strength', 'nfe')}
    head['effective_scale'] = (found.get('effective') or [None])[0]
    for rival in RIVALS:
        said = found.get('against', {}).get(rival.name, {})
        head |= {f'{k}{rival.ending}': said.get(k) for k in ('holm', 'verdict')}
    return head


def long_rows(
    data:dict[str, Any], # of `make_data`
)->Iterable[dict[str, Any]]: # column of `HEAD` -> value
    "One row for each number; one for a technique without numbers."
    for row in data['techniques']:
        paper = ' '.join(o['url'] for o in row['paper'])
        about = dict(technique=row['name'], family=KINDS[row['kind']], **{k: row[k] for k in ('title', 'year', 'cost', 'needs')}, paper=paper)
        for one in data['sets']:
            found = row['results'].get(one['name'], {})
            head = dict(about, set=one['name'], **head_of(found))
            numbers = [*judged_rows(found), *exact_rows(found.get('exact', {}))]
            yield from (head | more for more in numbers or [{}])
    for one in data['sets']:
        for more in exact_rows(one['real']):
            yield dict(more, technique=REAL, title=REAL, set=one['name'])


def as_csv(
    data:dict[str, Any], # of `make_data`
)->str: # of a file
    "The same as a long table."
    table = pd.DataFrame(long_rows(data), columns=HEAD)
    for column in ('year', 'cost', 'nfe', 'effective_scale'):
        table[column] = [f'{v:g}' if v == v and v is not None else '' for v in table[column]]
    return table.to_csv(index=False, lineterminator='\n')


def as_json(
    data:dict[str, Any], # of `make_data`
)->str: # of a file
    "A line for each technique, so that a change of one is a line of a diff."
    lines = [json.dumps(row, ensure_ascii=False, separators=(',', ':'), allow_nan=False) for row in data['techniques']]
    rest = {k: v for k, v in data.items() if k != 'techniques'}
    head = json.dumps(rest, ensure_ascii=False, separators=(',', ':'), allow_nan=False)
    return head[:-1] + ',"techniques":[\n' + ',\n'.join(lines) + '\n]}\n'


# The page without JavaScript

def spelled(
    value:float|None, # a number
)->str: # three digits, or nothing
    "A number as the page shows it."
    if value is None:
        return ''
    if value and abs(value) >= 100:
        return f'{value:.0f}'
    return f'{value:.3g}'


def state_words(
    data:dict[str, Any], # of `make_data`
)->str: # Markdown
    "What is measured, and what is not."
    words = []
    for one in data['sets']:
        own = [row['results'].get(one['name'], {}) for row in data['techniques']]
        known = sum('strength' in o for o in own)
        if one['state'] == 'none':
            words.append(f'**{one["title"]}:** not measured yet.')
            continue
        how = 'at strengths chosen before' if one['state'] == 'chosen' else 'while they were tuned, so that the best number of each is a little too good'
        first = f'**{one["title"]}:** {known} of {len(own)} techniques are measured, {how}.'
        words.append(f'{first} {compared_words(one, own)}')
    nothing = all(one['state'] == 'none' for one in data['sets'])
    more = 'The runs are under way. Until their tables are here, the columns of results are empty, and the table shows what the catalogue knows.'
    return '\n\n'.join([*words, *([more] if nothing else [])])


def compared_words(
    one:dict[str, Any], # a data set
    results:list[dict[str, Any]], # what is known of each technique there
)->str: # Markdown
    "How many are better than plain guidance, once for each of `RIVALS`."
    said = []
    for rival in RIVALS:
        verdicts = [o.get('against', {}).get(rival.name, {}).get('verdict') for o in results]
        count = {v: verdicts.count(v) for v in VERDICTS}
        if one['compared'][rival.name]:
            said.append(f'Compared with plain guidance {rival.title}: better {count["better"]}, worse {count["worse"]}, undecided {count["undecided"]}.')
    return ' '.join(said) or 'Whether a difference from plain guidance is more than chance is not computed yet.'


def rival_words(
    data:dict[str, Any], # of `make_data`
)->str: # Markdown
    "What the two verdicts mean."
    return '\n'.join(f'- **{r["title"][0].upper()}{r["title"][1:]}.** {r["words"]}' for r in data['rivals'])


def count_words(
    data:dict[str, Any], # of `make_data`
)->str: # Markdown
    "What the numbers of techniques count."
    n = data['counts']
    return (f'**How many techniques?** Beside plain guidance the [catalogue](18c_catalogue.ipynb) has {n["catalogue"]}. Of these {n["entered"]} take part here; '
        f'[chapter 20a](20a_contests.ipynb) says why the others do not. With those that stand here in several forms (another sampler, an interval, on top of plain guidance) '
        f'the table has {n["lines"]} lines below that of plain guidance.')


def result_cells(
    row:dict[str, Any], # a technique
    data:dict[str, Any], # of `make_data`
)->str: # HTML
    "FID under the judges of each set, and the verdicts."
    cells = ''
    for one in data['sets']:
        found = row['results'].get(one['name'], {})
        fids = [found.get('judges', {}).get(j['name'], {}).get('fid') for j in one['judges']]
        text = ' / '.join(spelled(f[0]) if f else '?' for f in fids) if any(fids) else ''
        text = {'failed': 'could not be drawn', 'refused': 'not for this model'}.get(found.get('state'), text)
        said = {r.title: found.get('against', {}).get(r.name, {}).get('verdict') for r in RIVALS}
        verdicts = ''.join(f'<br><b>{word}</b> {title}' for title, word in said.items() if word)
        cells += f'<td>{text}{verdicts}</td>'
    return cells


def still_row(
    row:dict[str, Any], # a technique
    data:dict[str, Any], # of `make_data`
)->str: # HTML
    "A line of the table."
    papers = '; '.join(f'<a href="{html.escape(o["url"])}">{html.escape(o["text"])}</a>' for o in row['paper'])
    kind, cost = KINDS[row['kind']], f'{row["cost"]:g}'
    needs = html.escape(row['needs']) or TAG_TITLES['nothing']
    note = f'<br>{html.escape(row["note"])}' if row['note'] else ''
    head = f'<th scope="row">{html.escape(row["title"])} <code>{html.escape(row["name"])}</code>{note}</th>'
    return f'<tr>{head}<td>{kind}</td><td>{cost}</td><td>{needs}</td><td>{papers}</td>{result_cells(row, data)}</tr>'


def still_table(
    data:dict[str, Any], # of `make_data`
)->str: # HTML
    "All techniques, plain guidance first."
    sets = ''.join(f'<th scope="col">FID: {html.escape(one["title"])}</th>' for one in data['sets'])
    head = '<th scope="col">technique</th><th scope="col">family</th><th scope="col">evaluations per step</th><th scope="col">needs</th><th scope="col">paper</th>'
    judges = '; '.join(f'{one["title"]}: ' + ', '.join(j['name'] for j in one['judges']) for one in data['sets'])
    caption = f'<caption>FID under the three judges of a data set, lower is better. {html.escape(judges)}.</caption>'
    rows = '\n'.join(still_row(row, data) for row in data['techniques'])
    return f'<table>{caption}<thead><tr>{head}{sets}</tr></thead>\n<tbody>\n{rows}\n</tbody></table>'


def again_row(
    row:dict[str, Any], # a technique of a later round
)->str: # of a table in Markdown
    "Its gains, and its verdicts after that round."
    spans = [f'{v:+.0f} ({low:+.0f} to {high:+.0f})' for v, low, high in row['gains'].values()]
    cells = [f'{row["title"]} (`{row["name"]}`)'.replace('*', r'\*'), *spans, *row['verdicts'].values()]
    return '| ' + ' | '.join(cells) + ' |'


ROUNDS = dict(full='the finals in full', final='the finals', second='round 2') # name -> in words


def round_words(
    name:str, # of `ROUNDS`
    found:dict[str, Any], # of `round_of`
    title:str, # of the data set
)->str: # Markdown
    "Who was drawn in a later round, from what, and what it gained."
    networks = '; '.join(f'seed {seed} with ' + ', '.join(f'`{n}`' for n in names) for seed, names in found['networks'].items())
    count = {v: sum(row['verdicts']['evaluations'] == v for row in found['techniques']) for v in VERDICTS}
    words = f'**{title}, {ROUNDS[name]}:** {len(found["techniques"])} techniques, {found["sets"]} of each: {networks}. ' \
        f'At equal evaluations {count["better"]} better, {count["worse"]} worse and {count["undecided"]} undecided after it, corrected for all who ever took part.'
    head = ['technique', *(f'gain in %, {judge_title(j).lower()}' for j in found['techniques'][0]['gains']), *(r.title for r in RIVALS)]
    return '\n'.join([words, '', '| ' + ' | '.join(head) + ' |', '|---'*len(head) + '|', *map(again_row, found['techniques'])])


def again_words(
    data:dict[str, Any], # of `make_data`
)->str: # Markdown
    "Who was drawn again, from what, and what it gained."
    parts = []
    for one in data['sets']:
        found = data['again'][one['name']]
        parts += [round_words(name, own, one['title']) for name, own in found.items()] or [f'**{one["title"]}:** nobody was drawn again so far.']
    return '\n\n'.join(parts)


def citation(
    data:dict[str, Any], # of `make_data`
)->str: # BibTeX in Markdown
    "How to cite the comparison: by the digest of its tables."
    cff = (NBS.parent/'CITATION.cff').read_text(encoding='utf-8')
    title, url, version = (re.search(rf'^{key}: (.*)$', cff, re.M)[1] for key in ('title', 'url', 'version'))
    author = re.search(r'- name: (.*)', cff)[1]
    year = re.search(r'^  year: (.*)$', cff, re.M)[1] # of the course, two spaces deep; of its references four
    edition = f'edition {data["edition"]}' if data['edition'] else 'before its tables were measured'
    lines = ['@misc{cfg_course_comparison,', f'  title   = {{Comparison of guidance techniques, in: {title}}},', f'  author  = {{{{{author}}}}},',
             f'  year    = {{{year}}},', f'  version = {{{version}}},', f'  note    = {{Version {version}, {edition}}},',
             f'  url     = {{{url}/compare.html}}', '}']
    return '```bibtex\n' + '\n'.join(lines) + '\n```'


BLOCKS = dict(state=state_words, again=again_words, table=still_table, rivals=rival_words, count=count_words, citation=citation)


def filled(
    text:str, # of the page
    data:dict[str, Any], # of `make_data`
)->str: # of the page, with what the tables say
    "Write the parts of the page that are made from tables, between their marks."
    return marks.filled(text, {name: make(data) for name, make in BLOCKS.items()}, 'page')


# Files

def write_text(
    text:str, # of a file
    path:Path, # where to
)->None:
    "Write a file whole or not at all."
    with writing(path) as tmp:
        tmp.write_text(text, encoding='utf-8')


def make_files(
    results:Path, # folder of tables
    out:Path, # folder of the page's data
    page:Path, # a .qmd file
    images:Path|None=None, # of images that were kept
)->dict[Path, str]: # file -> text
    "All files that are made from tables; the pictures are written on the way when there are images."
    measured = [find_results(which, results) for which in SETS]
    if images:
        write_pictures(measured, images, out)
    data = make_data(results, [with_pictures(one, out) for one in measured])
    shown = filled(page.read_text(encoding='utf-8'), data)
    return {out/'compare.json': as_json(data), out/'compare.csv': as_csv(data), page: shown}


def main(
    words:list[str]|None=None, # of the command line
)->None:
    "Parse the command line and write, or compare."
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--results', type=Path, default=RESULTS, help='folder of tables')
    p.add_argument('--out', type=Path, default=OUT, help='folder of the data and the pictures of the page')
    p.add_argument('--page', type=Path, default=PAGE, help='the page')
    p.add_argument('--images', type=Path, help='folder of images that were kept: the pictures are made anew')
    p.add_argument('--check', action='store_true', help='write nothing; fail when something is stale')
    args = p.parse_args(words)
    try:
        check(not (args.check and args.images), '--images', args.images, 'none with --check')
        check(args.images is None or args.images.is_dir(), '--images', str(args.images), 'a folder that is there')
        files = make_files(args.results, args.out, args.page, args.images)
    except InputError as e:
        sys.exit(f'compare.py: {e}')
    stale = [p for p, text in files.items() if not p.is_file() or p.read_text(encoding='utf-8') != text]
    if args.check:
        sys.exit(f'{", ".join(p.name for p in stale)} stale. To mend: python tools/compare.py' if stale else 0)
    args.out.mkdir(parents=True, exist_ok=True)
    for path in stale:
        write_text(files[path], path)
    print(f'written: {", ".join(p.name for p in stale) or "nothing, all is as the tables say"}')


if __name__ == '__main__': main()
