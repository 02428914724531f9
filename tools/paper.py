"""Write what the paper quotes: paper/numbers.tex, paper/tables/*.tex and paper/figures/*.pdf, all from nbs/results.

    python tools/paper.py            # write them
    python tools/paper.py --check    # write nothing; say whether numbers or tables are stale
    python tools/paper.py --pdf      # write them, and build paper/paper.pdf with LaTeX (make paper)

A number of the text is a macro, which this file makes: of a cell of a table, or of a short computation on one. The line
of numbers.tex says which file and which rows. What the protocol fixes is a macro too; its phrase is looked up where it
is stated. The text of the comparison follows the tables contest_MODEL_{chosen,differences,verdicts}.csv: without them
it says that the runs are under way.
"""
from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from cfg_course.contests import candidates, tuning_score
from cfg_course.core import InputError, check, writing
from cfg_course.evidence import kendall_interval, spearman_interval
from cfg_course.repair import distinct
from cfg_course.standings import RIVALS, Second, Standings, read_finals, read_limits, read_second, read_standings, title_of
from cfg_course.sweeps import add_verdicts

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAPER = ROOT/'nbs'/'results', ROOT/'paper'
STAGES = '10k', '40k', '160k', '640k'
FLAWS = 'common', 'own', 'mixed', 'shy', 'flat', 'blurred'
TWINS = 'cfg_zero', 'tcfg', 'renorm', 'adg', 'fdg' # rules that were plain guidance with another scale
MODELS = {'mnist-a': 'Mnist', 'cifar10-16': 'Photos'} # of the comparison -> the name in macros
NEAR = .1, 2. # noise levels over which the asked scale is averaged
HALF = 1.96 # standard errors
WINNER = 'autoguidance, middle' # of the finals on MNIST
HEAD = '% Written by tools/paper.py from {what}. Do not edit: change the file or the tool.\n'

# What the protocol fixes: the macro's text, the file that states it, and the words there.
PARAMETERS = {
    'ParPixels': ('784', 'nbs/08_pictures.ipynb', r'$784 \times 784$'),
    'ParFloor': ('0.03', 'nbs/08_pictures.ipynb', 'replaced by a floor of 0.03'),
    'ParSmallSide': ('16', 'nbs/24_cifar10.ipynb', 'At 16x16 there are four times fewer pixels'),
    'ParExtra': ('96,000', 'nbs/26b_repair_experiments.ipynb', 'was trained on for 96,000 pictures more'),
    'ParExtraDigits': ('48,000', 'nbs/26b_repair_experiments.ipynb', '`mnist-a` was trained on for 48,000 digits'),
    'ParLevel': ('95\\,\\%', 'nbs/19a_evidence.ipynb', 'An interval of 95 % promises'),
    'ParBudget': ('24', 'nbs/25_comparison.ipynb', '24 evaluations of the network for an image'),
    'ParTuned': ('1,000', 'nbs/25_comparison.ipynb', '1,000 images a setting, 100 of each class, seed 0'),
    'ParTunedFew': ('250', 'nbs/25_comparison.ipynb', '250 images for a technique that differentiates a network'),
    'ParValues': ('eight', 'nbs/25_comparison.ipynb', 'at least eight values each'),
    'ParRoundTwo': ('1,000', 'nbs/25_comparison.ipynb', '1,000 images (500 on photographs) with each of the seeds 2, 3, 4 and 5'),
    'ParRoundTwoFew': ('500', 'nbs/25_comparison.ipynb', '1,000 images (500 on photographs) with each of the seeds 2, 3, 4 and 5'),
    'ParSeedsTwo': ('four', 'nbs/25_comparison.ipynb', 'with each of the seeds 2, 3, 4 and 5'),
    'ParFinals': ('1,000', 'nbs/25_comparison.ipynb', '1,000 images with each of the seeds 6, 7, 8 and 9'),
    'ParBest': ('15', 'nbs/25_comparison.ipynb', 'The 15 best of that stage'),
    'ParPopular': ('nine', 'nbs/25_comparison.ipynb', 'nine that people use'),
    'ParFinalists': ('five', 'nbs/25_comparison.ipynb', 'The five best of round 2'),
    'ParMore': ('48', 'nbs/25_comparison.ipynb', 'at 24, 48 and 96 evaluations'),
    'ParMost': ('96', 'nbs/25_comparison.ipynb', 'at 24, 48 and 96 evaluations'),
    'ParReference': ('10,000', 'nbs/25_comparison.ipynb', '10,000 of the part `reference`'),
    'ParHypotheses': ('seven', 'nbs/25_comparison.ipynb', '7. The ranking of techniques on MNIST'),
    'ParDamages': ('five', 'nbs/19a_evidence.ipynb', 'Real images were damaged in five ways'),
    'ParBudgetDigits': ('4.61', 'nbs/08a_picture_decisions.ipynb', r'$2\log 10 = 4.61$'),
    'ParErrorGain': ('13', 'nbs/07a_guarantees.ipynb', 'independent ones by 13 at $s = 3$'),
    'ParErrorScale': ('3', 'nbs/07a_guarantees.ipynb', 'independent ones by 13 at $s = 3$'),
    'ParClasses': ('ten', 'nbs/08_pictures.ipynb', r'$p(c\mid x)\approx 1/10$ for every picture'),
    'ParFive': ('5\\,\\%', 'nbs/19a_evidence.ipynb', 'At a level of 5 % one comparison'),
    'ParOne': ('1\\,\\%', 'nbs/19a_evidence.ipynb', 'Those that fail at a level of 1 %'),
    'ParHigh': ('0.3', 'nbs/26b_repair_experiments.ipynb', 'takes places above a level of 0.3 alone'),
    'ParNarrow': ('0.8', 'nbs/26c_repair_techniques.ipynb', 'helped.along < .8*plain_row.along'),
    'ParBeyond': ('0.1', 'nbs/26_guidance_repairs.ipynb', 'exclude 1 by more than 0.1'),
    'ParNearLow': ('0.1', 'nbs/26b_repair_experiments.ipynb', 'if .1 < a.sigma < 2 and'),
    'ParTiny': ('2,700', 'nbs/07a_guarantees.ipynb', 'a network of about 2,700 numbers'),
    'ParWidestScale': ('8', 'nbs/07a_guarantees.ipynb', 'at scales from 1 to 8'),
}


class Fact(NamedTuple):
    "A number, and where it stands."
    value:float # the number
    source:str # file, rows and column, in words

    def over(self,
        other:Fact, # any
    )->Fact: # their ratio
        "This number over another one."
        return Fact(self.value/other.value, f'{self.source}; over {other.source}')

    def minus(self,
        other:Fact, # any
    )->Fact: # their difference
        "This number less another one."
        return Fact(self.value - other.value, f'{self.source}; less {other.source}')

    def times(self,
        factor:float, # any
    )->Fact: # the product
        "This number times a constant."
        return Fact(self.value*factor, f'{factor:g} times {self.source}')


class Results:
    "The tables of a folder, each read once."
    def __init__(self,
        folder:Path, # of .csv files
    ):
        self.folder = folder
        self.read:dict[str, pd.DataFrame] = {}

    def has(self,
        name:str, # of a table
    )->bool: # is it there?
        "Whether a table is there."
        return (self.folder/name).is_file()

    def table(self,
        name:str, # such as repair_best.csv
    )->pd.DataFrame: # its rows
        "A table; raises `InputError` where it is missing."
        path = self.folder/name
        check(path.is_file(), 'results', str(path), 'a table that is there')
        if name not in self.read:
            self.read[name] = pd.read_csv(path)
        return self.read[name]

    def rows(self,
        name:str, # of a table
        **where, # column -> value; `none` stands for an empty cell
    )->pd.DataFrame: # those that fit
        "Rows of a table."
        found = self.table(name)
        for column, value in where.items():
            found = found[fits(found[column], value)]
        return found

    def cell(self,
        name:str, # of a table
        column:str, # of the number
        **where, # column -> value
    )->Fact:
        "One cell; raises `InputError` unless exactly one row fits."
        found = self.rows(name, **where)
        words = ', '.join(f'{k}={v}' for k, v in where.items())
        check(len(found) == 1, f'{name}, {words}', f'{len(found)} rows', 'one row')
        return Fact(found[column].iloc[0], f'{name}: {column} where {words}')


def fits(
    column:pd.Series, # of a table
    value:object, # what a cell should be
)->pd.Series: # bool
    "Which cells are equal to a value."
    if value == 'none':
        return column.isna()
    if isinstance(value, float):
        return pd.Series(np.isclose(column.astype(float), value), column.index)
    return column == value


class Numbers:
    "Macros for LaTeX, in the order in which they were made."
    def __init__(self):
        self.lines:dict[str, str] = {}
        self.used:set[str] = set()

    def put(self,
        name:str, # of the macro: letters alone
        text:str, # what it stands for
        source:str, # where it comes from
    )->None:
        "Define a macro; raises `InputError` for a name that is taken or is none."
        check(re.fullmatch('[A-Za-z]+', name) and name not in self.lines, 'macro', name, 'letters, once')
        self.lines[name] = f'\\newcommand{{\\{name}}}{{{text}\\xspace}} % {source}'
        self.used |= set(re.findall(r'[\w-]+\.(?:csv|ipynb|json)', source))

    def say(self,
        name:str, # of the macro
        fact:Fact, # the number
        how:str='.2f', # a format of Python
    )->None:
        "Define a macro that is a number."
        check(np.isfinite(float(fact.value)), name, fact.value, 'a finite number')
        self.put(name, in_latex(fact.value, how), fact.source)

    def interval(self,
        name:str, # of three macros: NAME, NAMELow, NAMEHigh
        facts:tuple[Fact, Fact, Fact], # value and ends
        how:str='.2f', # a format of Python
    )->None:
        "Define a number and the ends of its interval."
        for end, fact in zip(('', 'Low', 'High'), facts):
            self.say(name + end, fact, how)


def in_latex(
    value:float, # any
    how:str, # a format of Python
)->str:
    "A number as LaTeX sets it, in text and in formulas."
    text = format(value, how).replace(',', '{,}').replace('%', r'\,\%')
    return rf'\ensuremath{{{text}}}'


def near(
    rows:pd.DataFrame, # with a column sigma
    level:float, # a noise level
)->float: # the noise level among them that is nearest
    "The nearest noise level, on a logarithmic scale."
    away = np.log(rows.sigma/level).abs()
    return float(rows.sigma[away.idxmin()])


def correlated(
    n:Numbers, # macros
    name:str, # of three macros
    pair:tuple[pd.Series, pd.Series], # of the same rows
    source:str, # in words
)->tuple[float, float, float]: # value, low, high
    "A rank correlation with its interval, as three macros."
    found = spearman_interval(*pair)
    facts = tuple(Fact(value, f'rank correlation {source}') for value in found)
    n.interval(name, facts)
    return found


def printed(
    notebook:str, # a chapter
    pattern:str, # with groups
)->list: # of what the groups match, all over the stored outputs
    "What a chapter's stored outputs say, for numbers that stand in no table."
    book = json.loads((ROOT/'nbs'/notebook).read_text(encoding='utf-8'))
    outputs = [o for c in book['cells'] for o in c.get('outputs', [])]
    texts = [''.join(o.get('text', '')) + ''.join(o.get('data', {}).get('text/markdown', '')) for o in outputs]
    found = [m for text in texts for m in re.findall(pattern, text)]
    check(found, notebook, pattern, 'a pattern that its stored outputs have')
    return found


# What guidance repairs

def of_the_world(
    r:Results, # tables
    n:Numbers, # macros
)->None:
    "How the world was made, and how samples were drawn."
    card = json.loads((ROOT/'cfg_course/worlds/digits-world.json').read_text())
    n.say('worldModes', Fact(card['heldout']['modes'], 'digits-world.json: modes in all'), 'd')
    n.say('worldRank', Fact(card['rank'], 'digits-world.json: directions of a mode'), 'd')
    n.say('worldImages', Fact(card['images'], 'digits-world.json: images it was fitted to'), ',d')
    note = json.loads((r.folder/'repair_asked.json').read_text())['config']
    n.say('pathSteps', Fact(note['steps'], 'repair_asked.json: steps'), 'd')
    n.say('askedPathSamples', Fact(note['path'], 'repair_asked.json: samples on the path'), ',d')
    n.say('askedDataSamples', Fact(note['data'], 'repair_asked.json: samples on the data'), ',d')
    n.say('gainSamples', r.cell('repair_scales.csv', 'samples', who='640k', scale=1.), ',d')
    guided = [r.cell('repair_guide.csv', 'log_prob', who=who, scale=1.) for who in ('exact', '640k')]
    n.say('guideApart', guided[0].minus(guided[1]), ',.0f')
    note = json.loads((r.folder/'repair_real.json').read_text())['config']
    n.say('realSamples', Fact(note['samples'], 'repair_real.json: held-out pictures'), ',d')


def of_real_pictures(
    r:Results, # tables
    n:Numbers, # macros
)->None:
    "What held-out pictures ask for."
    name = 'repair_real.csv'
    real = r.table(name)
    top = real.loc[real.value.idxmax()]
    n.say('realLevels', Fact(len(real), f'{name}: rows'), 'd')
    n.say('realAbove', Fact((real.low > 1).sum(), f'{name}: rows with low > 1'), 'd')
    n.say('realBelow', Fact((real.high < 1).sum(), f'{name}: rows with high < 1'), 'd')
    ends = tuple(Fact(top[end], f'{name}: {end} where value is largest') for end in ('value', 'low', 'high'))
    n.interval('realTop', ends)
    n.say('realTopLevel', Fact(top.sigma, f'{name}: sigma where value is largest'), 'g')
    photos = tuple(r.cell(name, end, model='cifar10-16', sigma=.3) for end in ('value', 'low', 'high'))
    n.interval('realPhotos', photos)
    n.say('realPhotosLevel', Fact(.3, f'{name}: sigma of realPhotos'), 'g')


def of_data_and_path(
    r:Results, # tables
    n:Numbers, # macros
)->None:
    "What the truth asks for in the world, on the data and on the path."
    name, level = 'repair_asked.csv', near(r.rows('repair_asked.csv', who='640k', where='path'), .3)
    for where in ('data', 'path'):
        facts = tuple(r.cell(name, end, who='640k', where=where, sigma=level) for end in ('value', 'low', 'high'))
        n.interval(f'asked{where.title()}', facts)
    error = [r.cell(name, 'error', who='640k', where=where, sigma=level) for where in ('path', 'data')]
    n.say('askedErrorRatio', error[0].over(error[1]), '.1f')
    n.say('askedLevel', Fact(level, f'{name}: sigma nearest 0.3'), '.2f')
    seen = r.rows(name, who='640k').pivot(index='sigma', columns='where', values='value')
    high = seen[seen.index > 2]
    apart = (high.path - high.data).abs().max()
    n.say('askedApartHigh', Fact(apart, f'{name}: who=640k, largest |path - data| over sigma > 2'))
    middle = r.rows(name, who='640k', where='path')
    highest = middle[middle.sigma.between(*NEAR) & (middle.shown > 1e-3)].value.max()
    n.say('askedPathMost', Fact(highest, f'{name}: who=640k, where=path, largest value, sigma 0.1 to 2'), '.1f')


def of_scales(
    r:Results, # tables
    n:Numbers, # macros
)->None:
    "What a scale gains in exact log-likelihood."
    name = 'repair_scales.csv'
    scales = r.table(name)
    exact, plain = r.rows(name, who='exact'), r.rows(name, scale=1.).set_index('who')
    top = scales[scales.who.isin(STAGES)].groupby('who').gain.max()
    n.say('exactLog', r.cell(name, 'log_prob', who='exact', scale=1.), ',.0f')
    n.say('exactGain', Fact(exact.gain.max(), f'{name}: who=exact, largest gain'), '.1f')
    n.say('exactFive', Fact(5., f'{name}: scale of exactLoss'), 'g')
    n.say('exactLoss', r.cell(name, 'gain', who='exact', scale=5.).times(-1), '.1f')
    n.say('longLog', r.cell(name, 'log_prob', who='640k', scale=1.), ',.0f')
    for who, word in zip(STAGES, ('Shortest', 'Short', 'Middle', 'Long')):
        lacking = plain.log_prob['exact'] - plain.log_prob[who]
        share = Fact(top[who]/lacking, f'{name}: largest gain of {who} over log_prob exact - {who}')
        n.say(f'share{word}', share, '.1%')
    n.say('gainLeast', Fact(top.min(), f'{name}: least of the largest gains of four networks'), ',.0f')
    n.say('gainMost', Fact(top.max(), f'{name}: most of the largest gains of four networks'), ',.0f')
    best = r.rows('repair_best.csv', kind='network').best
    n.say('bestLeast', Fact(best.min(), 'repair_best.csv: kind=network, least best'), '.1f')
    n.say('bestMost', Fact(best.max(), 'repair_best.csv: kind=network, largest best'), '.1f')
    common = r.rows(name, who='common').gain.abs().max()/(plain.log_prob['exact'] - plain.log_prob['common'])
    cost = (plain.log_prob['exact'] - plain.log_prob['common'])/(plain.log_prob['exact'] - plain.log_prob['640k'])
    n.say('commonCost', Fact(cost, f'{name}: scale=1, log_prob exact - common over exact - 640k'), '.0%')
    n.say('commonShare', Fact(common, f'{name}: who=common, largest |gain| over what it lacks'), '.1%')
    own = r.cell(name, 'gain', who='own', scale=1.15)
    n.say('ownLoss', own.times(-1), ',.0f')
    n.say('ownScale', Fact(1.15, f'{name}: who=own, least scale above 1'), 'g')
    small = scales[scales.who.isin(['shy', 'flat', 'blurred'])].groupby('who').gain.max()
    n.say('smallLeast', Fact(small.min(), f'{name}: least of the largest gains of shy, flat, blurred'), '.1f')
    n.say('smallMost', Fact(small.max(), f'{name}: most of the largest gains of shy, flat, blurred'), '.1f')


def of_losses(
    r:Results, # tables
    n:Numbers, # macros
)->None:
    "Which of the losses that are blamed on guidance are its own."
    name = 'repair_scales.csv'
    for who, word in (('exact', 'exact'), ('640k', 'long')):
        for scale, end in ((1., 'One'), (8., 'Eight')):
            n.say(f'{word}Off{end}', r.cell(name, 'off', who=who, scale=scale))
    for scale, end in ((1., 'One'), (8., 'Eight')):
        n.say(f'exactModes{end}', r.cell(name, 'modes', who='exact', scale=scale))
        n.say(f'exactAlong{end}', r.cell(name, 'along', who='exact', scale=scale))
    n.say('scaleTop', Fact(r.table(name).scale.max(), f'{name}: largest scale'), 'g')


def of_networks(
    r:Results, # tables
    n:Numbers, # macros
)->None:
    "How much differs between networks trained from two seeds."
    name = 'repair_networks.csv'
    pairs = [(f'{who}, second', who) for who in STAGES[:-1]]
    apart = [abs(r.cell(name, 'log_prob', who=a, scale=1.).value - r.cell(name, 'log_prob', who=b, scale=1.).value)
        for a, b in pairs]
    n.say('twinsMost', Fact(max(apart), f'{name}: largest |log_prob first - second| at scale 1'), ',.0f')
    n.say('twinsLeast', Fact(min(apart), f'{name}: least |log_prob first - second| at scale 1'), ',.0f')
    best = r.table('repair_best.csv').set_index('who').best
    between = [abs(best[a] - best[b]) for a, b in pairs]
    n.say('twinsScaleMost', Fact(max(between), 'repair_best.csv: largest |best first - second|'))
    n.say('twinsScaleLeast', Fact(min(between), 'repair_best.csv: least |best first - second|'))


def announced(
    best:pd.DataFrame, # rows of repair_best.csv
)->pd.DataFrame: # those that hypothesis 2 was announced for
    "Denoisers that were named before the runs."
    named = best.who.isin(['640k dpmpp 72', 'on data', 'on its path'])
    return best[best.kind.isin(['network', 'known error']) | named]


def of_prediction(
    r:Results, # tables
    n:Numbers, # macros
)->None:
    "Whether the asked scale predicts the best one."
    name = 'repair_best.csv'
    best = r.table(name)
    sure = best[(best.asked_low > 1) | (best.asked_high < 1)]
    wrong = ((sure.asked_low > 1) & (sure.best <= 1)) | ((sure.asked_high < 1) & (sure.low > 1))
    n.say('signSure', Fact(len(sure), f'{name}: rows whose asked interval excludes 1'), 'd')
    n.say('signRight', Fact((~wrong).sum(), f'{name}: of these, best on the side that is asked'), 'd')
    n.say('denoisers', Fact(len(best), f'{name}: rows'), 'd')
    some = announced(best)
    n.say('sizeNamed', Fact(len(some), f'{name}: rows announced before the runs'), 'd')
    correlated(n, 'sizeCorrelation', (some.asked, some.best), f'of asked and best in {name}, rows announced')
    correlated(n, 'sizeAll', (best.asked, best.best), f'of asked and best in {name}, all rows')
    like = best[best.kind.isin(['network', 'second network', 'sampler'])]
    n.say('sizeLike', Fact(len(like), f'{name}: networks and their samplers'), 'd')
    correlated(n, 'sizeNetworks', (like.asked, like.best), f'of asked and best in {name}, networks and samplers')
    apart = (like.best - like.asked).abs().median()
    n.say('sizeMedian', Fact(apart, f'{name}: median |best - asked|, networks and samplers'))


def of_training(
    r:Results, # tables
    n:Numbers, # macros
)->None:
    "What happens where the cause is taken away."
    name = 'repair_trained.csv'
    for who, word in (('on data', 'control'), ('on its path', 'path'), ('led down', 'led'), ('path, high', 'high')):
        n.say(f'{word}Log', r.cell(name, 'log_prob', who=who, scale=1.), ',.0f')
        n.say(f'{word}Along', r.cell(name, 'along', who=who, scale=1.))
    for who, word in (('on data', 'control'), ('led down', 'led')):
        n.say(f'{word}Samples', r.cell(name, 'samples', who=who, scale=1.), ',d')
        n.interval(f'{word}Best', tuple(r.cell('repair_best.csv', end, who=who) for end in ('best', 'low', 'high')))
    control = r.rows(name, who='on data')
    n.say('controlBestLog', Fact(control.log_prob.max(), f'{name}: who=on data, largest log_prob'), ',.0f')
    up = r.rows(name, who='on its path')
    up = up[up.scale > 1]
    n.say('pathLeastLoss', Fact(-up.gain.max(), f'{name}: who=on its path, least loss at a scale above 1'), ',.0f')
    n.say('pathAsked', r.cell('repair_best.csv', 'asked', who='on its path'))
    n.say('pathOff', r.cell(name, 'off', who='on its path', scale=1.), '.1f')
    n.say('controlOff', r.cell(name, 'off', who='on data', scale=1.), '.1f')
    n.say('ddpmLog', r.cell('repair_samplers.csv', 'log_prob', sampler='ddpm', scale=1.), ',.0f')
    n.say('ddpmAlong', r.cell('repair_samplers.csv', 'along', sampler='ddpm', scale=1.))
    n.say('epsLess', Fact(.985, f'{name}: who=noise / 0.985'), '.3f')
    n.say('epsLessLog', r.cell(name, 'log_prob', who='noise / 0.985', scale=1.), ',.0f')
    n.say('epsLessAlong', r.cell(name, 'along', who='noise / 0.985', scale=1.))
    n.say('epsMore', Fact(1.03, f'{name}: who=noise / 1.03'), '.2f')
    n.say('epsMoreLog', r.cell(name, 'log_prob', who='noise / 1.03', scale=1.), ',.0f')


def of_digits(
    r:Results, # tables
    n:Numbers, # macros
)->None:
    "The same remedy on MNIST."
    name = 'repair_digits.csv'
    for who, word in (('mnist-a on data', 'Kept'), ('mnist-a led down', 'Led')):
        for scale, end in ((1., 'One'), (1.25, 'More')):
            n.say(f'digits{word}{end}', r.cell(name, 'fid_first', who=who, scale=scale), '.1f')
    led, control = dict(who='mnist-a led down', scale=1.), dict(who='mnist-a on data', scale=1.25)
    for judge, word, how in (('first', 'Change', '.1f'), ('second', 'Second', '.3f')):
        change = r.cell(name, f'fid_{judge}', **led).minus(r.cell(name, f'fid_{judge}', **control))
        n.say(f'digits{word}', change, f'+{how}')
        n.say(f'digits{word}Half', r.cell(name, f'control_{judge}', **led).times(HALF), how)
    n.say('digitsScale', Fact(1.25, f'{name}: scale of digitsKeptMore'), 'g')
    n.say('digitsSamples', r.cell(name, 'samples', who='mnist-a led down', scale=1.), ',d')


def falls(
    r:Results, # tables
)->Fact: # how often
    "Between how many neighbouring stages the best scale falls beyond the intervals, over both judges."
    name = 'cifar10_16_best.csv'
    curves = [o.sort_values('images') for _, o in r.table(name).groupby('judge')]
    count = sum((o.high.shift(-1) < o.low).sum() for o in curves)
    return Fact(count, f'{name}: neighbouring stages of which the later interval lies below')


def of_stages(
    r:Results, # tables
    n:Numbers, # macros
)->None:
    "The best scale against training, on photographs."
    name = 'cifar10_16_best.csv'
    for judge in ('plain', 'residual'):
        for stage, word in (('0500k', 'First'), ('final', 'Last')):
            facts = tuple(r.cell(name, end, judge=judge, stage=stage) for end in ('best', 'low', 'high'))
            n.interval(f'photos{judge.title()}{word}', facts)
    n.say('photosFalls', falls(r), 'd')
    n.say('photosPairs', Fact(2*(r.table(name).stage.nunique() - 1), f'{name}: neighbouring stages, two judges'), 'd')
    n.say('photosFirstImages', r.cell(name, 'images', judge='plain', stage='0500k').times(1e-6), '.1f')
    n.say('photosLastImages', r.cell(name, 'images', judge='plain', stage='final').times(1e-6), '.1f')
    n.say('photosStages', Fact(r.table(name).stage.nunique(), f'{name}: stages'), 'd')
    final = dict(model='cifar10-16', method='cfg', metric='fid')
    for scale, word in ((1., 'One'), (1.25, 'Best')):
        n.say(f'photosFid{word}', r.cell('cifar10_16_stages_plain.csv', 'value', **final, scale=scale), '.1f')
    n.say('photosScale', Fact(1.25, 'cifar10_16_stages_plain.csv: scale of photosFidBest'), 'g')
    n.say('photosFloor', r.cell('cifar10_16_real.csv', 'value', judge='plain', metric='fid'), '.1f')
    n.say('photosSamples', r.cell('cifar10_16_stages_plain.csv', 'samples', **final, scale=1.), ',d')


# Directions, judges, and what FID sees

def directions(
    r:Results, # tables
)->pd.DataFrame: # technique -> cosine, share that its best multiple removes, log_prob, gain
    "How techniques change the prediction, beside what their samples are worth."
    turned = r.table('repair_directions.csv')
    seen = turned[(turned.sigma > NEAR[0]) & (turned.sigma < NEAR[1])].assign(could=lambda t: t.cosine**2)
    means = seen.groupby('technique')[['cosine', 'could']].mean()
    drawn = r.rows('repair_techniques.csv', who='640k').set_index('technique')
    return means.join(distinct(drawn)[['log_prob', 'gain']]).dropna().sort_values('cosine', ascending=False)


def of_directions(
    r:Results, # tables
    n:Numbers, # macros
)->tuple[float, float, float]: # the rank correlation of hypothesis 4
    "Which way the error is, and which way techniques go."
    name = 'repair_directions.csv'
    found = directions(r)
    n.say('turnCount', Fact(len(found), f'{name}: techniques'), 'd')
    n.say('turnPlain', Fact(found.cosine['cfg'], f'{name}: technique=cfg, mean cosine, sigma 0.1 to 2'))
    share = Fact(found.could['cfg'], f'{name}: technique=cfg, mean squared cosine, sigma 0.1 to 2')
    n.say('turnPlainShare', share, '.1%')
    n.say('turnMostShare', Fact(found.could.max(), f'{name}: largest mean squared cosine of a technique'), '.1%')
    alike = r.rows('repair_others.csv', what='cosine')
    alike = alike[(alike['at'] > NEAR[0]) & (alike['at'] < NEAR[1])]
    cosine = Fact(alike.value.mean(), 'repair_others.csv: what=cosine, mean, at 0.1 to 2')
    n.say('branchCosine', cosine)
    n.say('branchAlone', Fact(1 + 4, '1 + 2 s (s - 1)(1 - r) at s = 2, r = 0'), 'd')
    n.say('branchGain', Fact(1 + 4*(1 - cosine.value), f'1 + 2 s (s - 1)(1 - r) at s = 2, r: {cosine.source}'), '.1f')
    return correlated(n, 'turnCorrelation', (found.cosine, found.log_prob), 'of cosine and log_prob over techniques')


def of_judges(
    r:Results, # tables
    n:Numbers, # macros
)->None:
    "What FID sees of samples whose likelihood is known."
    name = 'repair_techniques.csv'
    top = distinct(r.rows(name, who='640k'))
    note = json.loads((r.folder/'repair_techniques.json').read_text())['config']
    n.say('seenSamples', Fact(note['samples']['640k'], 'repair_techniques.json: samples of 640k'), ',d')
    n.say('seenCount', Fact(len(top), f'{name}: who=640k, rows'), 'd')
    fid = -top['fid_mnist']
    correlated(n, 'seenLog', (top.log_prob, fid), f'of log_prob and -fid_mnist in {name}')
    correlated(n, 'seenModes', (-top.modes, fid), f'of -modes and -fid_mnist in {name}')
    correlated(n, 'seenJudges', (-top['fid_mnist-residual'], fid), f'of both FIDs in {name}')
    plain = top[top.technique == 'none'].iloc[0]
    guided = top.set_index('technique').loc['cfg']
    n.say('seenPlainGain', Fact(guided.gain, f'{name}: who=640k, technique=cfg, gain'), ',.0f')
    n.say('seenPlainFid', Fact(guided.fid_mnist, f'{name}: who=640k, technique=cfg, fid_mnist'), '.0f')
    n.say('seenNoneFid', Fact(plain.fid_mnist, f'{name}: who=640k, technique=none, fid_mnist'), '.0f')
    rules = top[top.technique != 'none']
    helped = rules[rules.gain > HALF*rules.gain_error]
    narrow = helped[helped.along < .8*plain.along]
    n.say('helpCount', Fact(len(rules), f'{name}: who=640k, techniques'), 'd')
    n.say('helpGain', Fact(len(helped), f'{name}: of these, gain above 1.96 errors'), 'd')
    n.say('helpNarrow', Fact(len(narrow), f'{name}: of these, along below 0.8 of unguided'), 'd')


# Verdicts of chapter 26

class Verdict(NamedTuple):
    "What became of a hypothesis."
    name:str # H1 to H6
    said:str # the prediction, in short
    word:str # stands, refuted, not testable
    why:str # LaTeX


def word_for(
    refuted:bool, # by its own criterion
)->str:
    "The verdict in a word."
    return 'refuted' if refuted else 'stands'


def verdicts(
    r:Results, # tables
    n:Numbers, # macros: numbers that the reasons use are put there
    turned:tuple[float, float, float], # rank correlation of hypothesis 4
)->list[Verdict]:
    "The hypotheses of chapter 26, by the criteria that were written down before the runs."
    return [first_verdict(r, n), *second_verdicts(r, n), third_verdict(n), fourth_verdict(turned), fifth_verdict(r, n),
        sixth_verdict(r)]


def first_verdict(
    r:Results, # tables
    n:Numbers, # macros
)->Verdict:
    "Without an error there is nothing to gain."
    name = 'repair_samplers.csv'
    exact = r.rows(name, who='exact').set_index('scale')
    gain = Fact(exact.gain.max(), f'{name}: who=exact, largest gain')
    half = Fact(HALF*exact.gain_error[exact.gain.idxmax()], f'{name}: who=exact, 1.96 gain_error there')
    n.say('fineGain', gain, '+.2f')
    n.say('fineHalf', half)
    n.say('fineShare', gain.over(r.cell(name, 'log_prob', who='exact', scale=1.)), '.2%')
    n.say('fineLog', r.cell(name, 'log_prob', who='exact', scale=1.), ',.0f')
    n.say('fineSteps', Fact(exact.steps.iloc[0], f'{name}: who=exact, steps'), 'd')
    refuted = gain.value > half.value or exact.along.iloc[-1] < exact.along.iloc[0]
    why = r'$\fineGain \pm \fineHalf$ nats of \fineLog, at \fineSteps{} steps; it does widen'
    return Verdict('H1', 'An exact denoiser gains nothing, and widens', word_for(refuted), why)


def second_verdicts(
    r:Results, # tables
    n:Numbers, # macros
)->list[Verdict]:
    "Guidance repairs what a network does wrong off the data: on the data, the sign, the size."
    name = 'repair_asked.csv'
    asked = r.rows(name, where='data')
    data = asked[asked.who.isin(STAGES) & asked.sigma.between(.3, 5.5)]
    far = (data.low > 1.1) | (data.high < .9)
    n.say('farCount', Fact(far.sum(), f'{name}: where=data, sigma 0.3 to 5.5, intervals beyond 1 by 0.1'), 'd')
    exclude = (data.low > 1) | (data.high < 1)
    n.say('farExclude', Fact(exclude.sum(), f'{name}: where=data, sigma 0.3 to 5.5, intervals that exclude 1'), 'd')
    n.say('farOf', Fact(len(data), f'{name}: where=data, sigma 0.3 to 5.5, rows of four networks'), 'd')
    low = spearman_interval(*(announced(r.table('repair_best.csv'))[c] for c in ('asked', 'best')))[1]
    best = r.table('repair_best.csv')
    wrong = ((best.asked_low > 1) & (best.best <= 1)) | ((best.asked_high < 1) & (best.low > 1))
    return [
        Verdict('H2a', 'On the data the asked scale is one', word_for(far.any()),
            r'\farCount{} of \farOf{} intervals are beyond it by more than \ParBeyond'),
        Verdict('H2b', 'The side of $s^*$ on the path says whether guidance helps', word_for(wrong.any()),
            r'\signRight{} of \signSure{} denoisers'),
        Verdict('H2c', 'Its size predicts the best scale', word_for(low <= 0),
            r'rank correlation \sizeCorrelation{} (\sizeCorrelationLow{} to \sizeCorrelationHigh) over \sizeNamed')]


def third_verdict(
    n:Numbers, # macros
)->Verdict:
    "Narrowing comes from the error; the numbers are those of `of_losses`."
    assert 'longOffEight' in n.lines
    return Verdict('H3', 'Narrowing comes from the error', 'not testable',
        r'neither loses spread; off the sheets \longOffOne{} to \longOffEight, the network alone')


def fourth_verdict(
    turned:tuple[float, float, float], # rank correlation
)->Verdict:
    "A technique is a direction."
    return Verdict('H4', 'Techniques nearer to the error give likelier samples', word_for(turned[1] <= 0),
        r'rank correlation \turnCorrelation{} (\turnCorrelationLow{} to \turnCorrelationHigh) over \turnCount')


def fifth_verdict(
    r:Results, # tables
    n:Numbers, # macros
)->Verdict:
    "The asked scale is a schedule."
    name = 'repair_schedule.csv'
    table = r.table(name)
    intervals = table[table.technique.str.contains(' in ')]
    best = intervals.loc[intervals.log_prob.idxmax()]
    n.say('scheduleBehind', Fact(-best.behind, f'{name}: technique={best.technique}, -behind'), ',.0f')
    n.say('scheduleHalf', Fact(HALF*best.error, f'{name}: technique={best.technique}, 1.96 error'), ',.0f')
    n.say('scheduleCount', Fact(len(intervals), f'{name}: intervals'), 'd')
    return Verdict('H5', 'The asked scale is a good schedule', word_for(best.behind + HALF*best.error < 0),
        r'\scheduleBehind{} $\pm$ \scheduleHalf{} nats behind the best of \scheduleCount{} intervals')


def sixth_verdict(
    r:Results, # tables
)->Verdict:
    "Take away the cause and the effect goes."
    up = r.rows('repair_trained.csv', who='on its path')
    better = up.gain - HALF*up.gain_error > 0
    return Verdict('H6', 'Trained on its path, a network is best without guidance', word_for(better.any()),
        r'every scale above one loses \pathLeastLoss{} nats or more')


def count_verdicts(
    found:list[Verdict], # all
    n:Numbers, # macros
)->None:
    "How many stand."
    n.say('verdictsAll', Fact(len(found), 'criteria of chapter 26'), 'd')
    n.say('verdictsStand', Fact(sum(v.word == 'stands' for v in found), 'criteria of chapter 26 that stand'), 'd')


# Theory, judges, intervals, the first comparison

def of_theory(
    r:Results, # tables
    n:Numbers, # macros
)->None:
    "Where the class is open, and how tight bounds are."
    name = 'picture_census.csv'
    seen = r.table(name)
    rate, clock = (2*seen.sigma**2*seen.gain).to_numpy(), np.log(seen.sigma).to_numpy()
    budget = ((rate[1:] + rate[:-1])/2*np.diff(clock)).sum()
    n.say('budgetFound', Fact(budget, f'{name}: integral of gain over sigma^2'))
    counts = printed('08a_picture_decisions.ipynb', r'(\d+) levels, (\d+) pictures each')[0]
    n.say('censusSamples', Fact(int(counts[1]), '08a_picture_decisions.ipynb, stored output: pictures of a level'), 'd')
    n.say('censusLow', Fact(seen.sigma.min(), f'{name}: least sigma'), 'g')
    n.say('censusHigh', Fact(seen.sigma.max(), f'{name}: largest sigma'), 'g')
    n.say('decidedFour', r.cell(name, 'classes', sigma=4.))
    n.say('levelFour', Fact(4., f'{name}: sigma of decidedFour'), 'g')
    n.say('decidedOne', r.cell(name, 'classes', sigma=1.), '.5f')
    line = r'ratio ([\d.]+), by_data [\d.]+, W2 [\d.]+, its_bound [\d.]+, its_ratio ([\d.]+)'
    ratios = np.array(printed('07a_guarantees.ipynb', line), float)
    for name, column in (('boundKl', 0), ('boundDistance', 1)):
        where = '07a_guarantees.ipynb, stored output: bound over truth'
        n.say(f'{name}Low', Fact(ratios[:, column].min(), f'{where}, least'), '.1f')
        n.say(f'{name}High', Fact(ratios[:, column].max(), f'{where}, largest'), '.1f')
    gaps = dict(printed('05a_doob.ipynb', r's = ([\d.]+): KL\(out, tilt\) ([\d.]+)'))
    n.say('tiltFourScale', Fact(4., '05a_doob.ipynb, stored output: s of tiltFour'), 'g')
    for scale, word in (('2.0', 'Two'), ('4.0', 'Four')):
        n.say(f'tilt{word}', Fact(float(gaps[scale]), f'05a_doob.ipynb, stored output: KL(out, tilt) at s = {scale}'))


def covered(
    r:Results, # tables
)->pd.DataFrame: # metric x (source, kind) -> share of intervals that hold
    "Coverage, averaged over points and judges."
    count = r.table('evidence_coverage.csv')
    kind = count.against.isna().map({True: 'value', False: 'difference'})
    return count.assign(kind=kind).groupby(['source', 'kind', 'metric']).covered.mean().unstack([0, 1])


def of_intervals(
    r:Results, # tables
    n:Numbers, # macros
)->None:
    "How often intervals hold, and how the first comparison's did."
    name = 'evidence_coverage.csv'
    count = r.table(name)
    n.say('coverRows', Fact(len(count), f'{name}: rows'), 'd')
    n.say('coverHolds', Fact((count.says == 'holds').sum(), f'{name}: says=holds'), 'd')
    n.say('coverNarrow', Fact((count.says == 'narrow').sum(), f'{name}: says=narrow'), 'd')
    n.say('coverWide', Fact((count.says == 'wide').sum(), f'{name}: says=wide'), 'd')
    n.say('coverFails', Fact((count.p < .01).sum(), f'{name}: p < 0.01'), 'd')
    n.say('coverSamples', Fact(count.samples.iloc[0], f'{name}: samples'), 'd')
    n.say('coverWorst', Fact(count[count.p < .01].covered.min(), f'{name}: p < 0.01, least covered'), '.3f')
    real, drawn = (count[count.source == source].draws for source in ('mnist-real', 'mnist-a'))
    n.say('coverRealMost', Fact(real.max(), f'{name}: source=mnist-real, most draws'), 'd')
    n.say('coverDrawnMost', Fact(drawn.max(), f'{name}: source=mnist-a, most draws'), 'd')
    fewest = drawn.min()
    n.say('coverError', Fact((.95*.05/fewest)**.5, f'{name}: standard error of a share of .95 of {fewest} sets'))
    n.say('coverPhotos', Fact(count.draws[count.source == 'cifar10-16'].max(), f'{name}: source=cifar10-16, most draws'), 'd')
    sources = dict(FidValue=('fid', 'value', 'mnist-a'), FidPairs=('fid', 'difference', 'mnist-a'),
        FidPhotos=('fid', 'difference', 'cifar10-16'),
        KidValue=('kid', 'value', 'mnist-a'), KidPhotos=('kid', 'value', 'cifar10-16'))
    for word, (metric, kind, source) in sources.items():
        share = Fact(covered(r)[source, kind][metric], f'{name}: source={source}, metric={metric}, mean covered of a {kind}')
        n.say(f'cover{word}', share, '.3f')


def of_rulers(
    r:Results, # tables
    n:Numbers, # macros
)->None:
    "Two judges without labels."
    name = 'evidence_judges.csv'
    least = r.table(name).groupby('judge').separation.min()
    for judge, word in (('mnist-unlabelled', 'rulerDigits'), ('cifar10-16-unlabelled', 'rulerPhotos'),
            ('mnist-rotation', 'turnedDigits'), ('cifar10-16-rotation', 'turnedPhotos')):
        n.say(word, Fact(least[judge], f'{name}: judge={judge}, least separation'), '.1f')


def first_round(
    r:Results, # tables
)->pd.DataFrame: # technique, difference, half, verdict
    "The first comparison's ranking, with its verdicts for all techniques together."
    ranking = add_verdicts(r.table('comparison_ranking.csv'))
    return ranking[ranking.against == 'cfg']


def of_first_comparison(
    r:Results, # tables
    n:Numbers, # macros
)->None:
    "What the first comparison found, and how far its intervals were off."
    name = 'comparison_ranking.csv'
    table = first_round(r)
    for word in ('better', 'within noise', 'worse'):
        count = Fact((table.verdict == word).sum(), f'{name}: techniques that are {word}, chapter 30')
        n.say(f'old{word.title().replace(" ", "")}', count, 'd')
    n.say('oldAll', Fact(len(table), f'{name}: techniques against cfg'), 'd')
    samples = r.table('comparison.csv').samples
    check(samples.nunique() == 1, 'comparison.csv, samples', samples.nunique(), 'one number')
    n.say('oldSamples', Fact(samples.iloc[0], 'comparison.csv: samples'), ',d')
    same = r.rows('comparison_equal.csv', metric='fid').set_index('method').value
    apart = (same[list(TWINS)]/same['cfg'] - 1).abs().max()
    n.say('twinCount', Fact(len(TWINS), 'comparison_equal.csv: rules near cfg'), 'd')
    twins = Fact(apart, f'comparison_equal.csv: metric=fid, largest |{", ".join(TWINS)} over cfg - 1|')
    n.say('twinApart', twins, '.1%')
    of_entrants(r, n)


def of_entrants(
    r:Results, # tables
    n:Numbers, # macros
)->None:
    "How many take part in the second comparison: those who were drawn on MNIST, else those who may be."
    listed, file = candidates(''), 'contest_mnist-a_verdicts.csv'
    able = Fact(len(listed), 'cfg_course.contests.candidates')
    drawn = Fact(len(r.table(file)) + 1, f'{file}: rows, and plain guidance') if r.has(file) else able
    n.say('taking', drawn, 'd')
    several = sum(c.league == 'several' for c in listed)
    n.say('takingSeveral', Fact(several, 'cfg_course.contests.candidates: league several'), 'd')


# The second comparison, where it has been measured

class Contest(NamedTuple):
    "The tables of a model."
    chosen:pd.DataFrame # candidate, strength, judge, metric, value, low, high, and how it was drawn
    differences:pd.DataFrame # candidate, judge, metric, difference, error, low, high, p
    verdicts:pd.DataFrame # candidate, least, most, p, holm, verdict


PARTS = {
    'chosen': {'candidate', 'strength', 'judge', 'metric', 'value', 'low', 'high'},
    'differences': {'candidate', 'judge', 'metric', 'difference', 'error', 'low', 'high', 'p'},
    'verdicts': {'candidate', 'least', 'most', 'p', 'holm', 'verdict'}}


def contest_of(
    r:Results, # tables
    model:str, # of the comparison
)->Contest|None: # none where one of its tables is not there
    "What was measured of a model; raises `InputError` where a table lacks a column."
    names = {part: f'contest_{model}_{part}.csv' for part in PARTS}
    if not all(r.has(name) for name in names.values()):
        return None
    for part, name in names.items():
        missing = PARTS[part] - set(r.table(name).columns)
        check(not missing, name, f'no {", ".join(sorted(missing))}', 'a table with its columns')
    return Contest(*(r.table(name) for name in names.values()))


KINDS = 'plain', 'residual', 'no label' # of judges


def kind_of(
    judge:str, # such as mnist-residual
)->str: # one of `KINDS`
    "What kind of judge a name belongs to."
    return 'no label' if judge.endswith('unlabelled') else 'residual' if judge.endswith('residual') else 'plain'


def fids(
    contest:Contest, # of a model
)->pd.DataFrame: # candidate x kind of judge
    "FID of every candidate under every judge, mean over seeds."
    rows = contest.chosen[contest.chosen.metric == 'fid']
    rows = rows.assign(judge=rows.judge.map(kind_of))
    table = rows.pivot_table(index='candidate', columns='judge', values='value')
    check(set(table) == set(KINDS), 'judges', sorted(table), f'one of each kind: {", ".join(KINDS)}')
    return table[list(KINDS)]


def counted(
    verdicts:pd.DataFrame, # of a stage or a round
    word:str, # better, worse, undecided
)->int:
    "How many candidates a verdict has, plain guidance aside."
    return int((verdicts.verdict == word).sum())


def drawn_with(
    contest:Contest, # of a model
    column:str, # samples or seed
)->str: # in words
    "Numbers of images, or of seeds, as far as the table says."
    if column not in contest.chosen:
        return 'not stated'
    values = sorted(contest.chosen[column].dropna().unique())
    return ', '.join(in_latex(v, ',.0f') for v in values)


def p_in_latex(
    p:float, # 0 to 1
)->str:
    "A p-value, no smaller than anybody needs."
    return in_latex(p, '.2g') if p >= .001 else r'\ensuremath{<0.001}'


def caution(
    contest:Contest, # of a model
)->str: # a sentence, or nothing
    "What has to be said where strengths were measured on the images by which they were chosen."
    seeds = set(contest.chosen.get('seed', pd.Series(dtype=int)).dropna())
    if seeds != {0}:
        return ''
    return ' All were measured on the images by which their strengths were chosen, which flatters them.'


def verdict_on(
    contest:Contest, # of a model
    name:str, # of a candidate
)->str: # better, worse, undecided, not measured
    "What became of a candidate."
    found = contest.verdicts[contest.verdicts.candidate == name].verdict
    return found.iloc[0] if len(found) else 'not measured'


def of_contest(
    r:Results, # tables
    n:Numbers, # macros
    model:str, # of the comparison
)->None:
    "What the second comparison found on one model."
    contest, word = contest_of(r, model), MODELS[model]
    files = f'contest_{model}_verdicts.csv'
    n.say(f'contest{word}All', Fact(len(contest.verdicts), f'{files}: rows'), 'd')
    for verdict in ('better', 'worse', 'undecided'):
        n.say(f'contest{word}{verdict.title()}', Fact(counted(contest.verdicts, verdict), f'{files}: verdict={verdict}'), 'd')
    n.put(f'contest{word}Caution', caution(contest), f'contest_{model}_chosen.csv: seed')
    for column in ('samples', 'seed'):
        n.put(f'contest{word}{column.title()}', drawn_with(contest, column), f'contest_{model}_chosen.csv: {column}')
    judged = fids(contest)
    for name, pair in zip(('Labels', 'LabelsNone', 'OtherNone'), ((0, 1), (0, 2), (1, 2))):
        a, b = (judged[KINDS[i]] for i in pair)
        both = a.notna() & b.notna()
        found = kendall_interval(a[both].tolist(), b[both].tolist())
        source = f'contest_{model}_chosen.csv: Kendall tau of FID under {a.name} and {b.name}'
        n.interval(f'contest{word}{name}', tuple(Fact(v, source) for v in found))
    if word == 'Mnist':
        of_hypotheses(contest, n, files)


def of_hypotheses(
    contest:Contest, # of MNIST
    n:Numbers, # macros
    files:str, # where the verdicts are
)->None:
    "What became of those about whom something was expected."
    for name, key in (('autoguidance', 'Auto'), ('cfgig', 'Gibbs'), ('interval, middle', 'Interval')):
        n.put(f'contestMnist{key}', verdict_on(contest, name), f'{files}: candidate={name}')
    twins = contest.verdicts[contest.verdicts.candidate.isin(TWINS)]
    undecided = (twins.verdict == 'undecided').sum()
    n.say('contestMnistTwinsDrawn', Fact(len(twins), f'{files}: {", ".join(TWINS)}'), 'd')
    n.say('contestMnistTwins', Fact(undecided, f'{files}: {", ".join(TWINS)}, undecided'), 'd')
    added = contest.verdicts[contest.verdicts.candidate.str.startswith('cfg+')]
    n.say('contestMnistAdded', Fact(len(added), f'{files}: candidates cfg+...'), 'd')
    better = (added.verdict == 'better').sum()
    n.say('contestMnistAddedBetter', Fact(better, f'{files}: candidates cfg+..., better'), 'd')


def of_both_contests(
    r:Results, # tables
    n:Numbers, # macros
)->None:
    "How far the rankings of two data sets agree."
    one, two = (fids(contest_of(r, model)) for model in MODELS)
    both = one.index.intersection(two.index)
    for kind, key in zip(KINDS, ('Labels', 'Other', 'None')):
        found = kendall_interval(*(fid[kind][both].tolist() for fid in (one, two)))
        facts = [Fact(v, f'contest_*_chosen.csv: Kendall tau of both models, FID under the judges of kind {kind}') for v in found]
        n.say(f'contestTau{key}', facts[0])
    n.say('contestTauNoneLow', facts[1]) # the last kind knows no label
    n.say('contestTauNoneHigh', facts[2])
    n.say('contestShared', Fact(len(both), 'contest_*_chosen.csv: candidates of both models'), 'd')


def of_second(
    tables:Standings, # of MNIST, with round 2
    n:Numbers, # macros
)->None:
    "What other noise and other networks say."
    files = 'contest_mnist-a_second.csv (and mnist-b, mnist-c)'
    second = tables.second
    until = tables.until('second') # as the words were before the finals
    rows, words = second.rows, until.together()
    words = words[words.candidate.isin(rows.candidate)]
    n.say('secondSets', Fact(len(rows[['model', 'seed']].drop_duplicates()), f'{files}: pairs of model and seed'), 'd')
    for name, column in (('Networks', 'model'), ('Seeds', 'seed')):
        n.say(f'second{name}', Fact(rows[column].nunique(), f'{files}: {column}'), 'd')
    n.say('secondSamples', Fact(int(rows.samples.max()), f'{files}: samples'), ',d')
    n.say('secondAll', Fact(len(words), f'{files}: candidates'), 'd')
    for verdict in ('better', 'worse', 'undecided'):
        n.say(f'second{verdict.title()}', Fact(counted(words, verdict), f'{files}: verdict={verdict}'), 'd')
    first = second.leaders().index[0]
    gains = second.gains().groupby('candidate').gain.agg(['min', 'max'])
    n.put('secondFirst', title_of(first), f'{files}: highest least gain')
    for key, column in (('Low', 'min'), ('High', 'max')):
        n.say(f'secondFirst{key}', Fact(gains.loc[first, column], f'{files}: {column} over judges of the gain of {first}'), '.0f')
    ratios = second.seed_ratios('mnist-a').groupby('judge').mean()
    blind = 'mnist-unlabelled'
    for key, value in (('Blind', ratios[blind]), ('Seeing', ratios.drop(blind).max())):
        n.say(f'seeds{key}', Fact(value, f'{files}: variance of fid - plain over seeds of mnist-a over the claimed, mean over techniques'), '.1f')
    middle = second.split().median()
    for source in middle.index:
        n.say(f'second{source.title()}', Fact(middle[source], f'{files}: median over techniques of the standard deviation of {source}'), '.0f')


def of_photographs_again(
    drawn:Second, # round 2 of photographs
    n:Numbers, # macros
)->None:
    "What other noise says of photographs, and of the winner on digits among them."
    file = 'contest_cifar10-16_second.csv'
    n.say('photosAgainSeeds', Fact(drawn.rows.seed.nunique(), f'{file}: seed'), 'd')
    n.say('photosAgainSamples', Fact(int(drawn.rows.samples.max()), f'{file}: samples'), ',d')
    for verdict in ('better', 'worse', 'undecided'):
        n.say(f'photosAgain{verdict.title()}', Fact(counted(drawn.verdicts['evaluations'], verdict), f'{file}: verdict={verdict}'), 'd')
    gains = drawn.gains().query('candidate == @WINNER').set_index('judge').gain
    most = gains.idxmax()
    check(most.endswith('unlabelled') and gains.drop(most).max() < 0, f'gain of {WINNER}', dict(gains), 'ahead under the third judge alone, as the text says')
    for end, gain in (('Low', gains.min()), ('High', gains.max())):
        n.say(f'photosWinner{end}', Fact(gain, f'{file}: gain of {WINNER} over judges'), '+.0f')


def of_finals(
    finals:dict[float, Second], # budget -> what was drawn at it
    tables:Standings, # of MNIST, with the finals
    n:Numbers, # macros
)->None:
    "Who is left against plain guidance with new noise, and what twice and four times the evaluations change, on MNIST."
    file = 'contest_mnist-a_final.csv'
    for (budget, own), name in zip(finals.items(), ('Least', 'More', 'Most')):
        n.say(f'final{name}', Fact(budget, f'{file}: nfe, one of cfg_course.standings.BUDGETS'), 'g')
        n.say(f'final{name}Seeds', Fact(own.rows.seed.nunique(), f'{file}: nfe near {budget:g}, seed'), 'd')
        if name != 'Least': # there the word of the whole league counts
            n.say(f'final{name}Better', Fact(counted(own.verdicts['evaluations'], 'better'), f'{file}: nfe near {budget:g}, verdict=better'), 'd')
    at_end = (~tables.best().inside).sum()
    n.say('tuneAtEnd', Fact(at_end, 'contest_mnist-a_first.csv and the stages that tune after it: best strength not inside'), 'd')
    steps = sum(counted(own.verdicts['steps'], 'better') for own in finals.values())
    n.say('finalSteps', Fact(steps, f'{file}: verdict=better at equal steps, at any nfe'), 'd')
    first = next(iter(finals.values()))
    found = first.verdicts['evaluations'].set_index('candidate')
    n.say('finalAll', Fact(len(found), f'{file}: candidates but plain guidance'), 'd')
    gains = first.gains().groupby('candidate').gain.agg(['min', 'max'])
    winner = gains.drop('cfg')['min'].idxmax()
    n.put('finalFirst', escaped(title_of(winner)), f'{file}: the candidate with the largest least gain')
    n.say('finalFirstLow', Fact(gains['min'][winner], f'{file}: its least gain over judges'), '.0f')
    n.say('finalFirstHigh', Fact(gains['max'][winner], f'{file}: its largest gain over judges'), '.0f')
    n.put('finalFirstHolm', p_in_latex(found.holm[winner]), f'{file}: its p, corrected')
    then = tables.until('final').together().set_index('candidate')
    n.put('finalFirstWhole', p_in_latex(then.holm[winner]), f'{file}: its p, corrected over the whole league')
    whole = tables.together()
    n.say('lastAll', Fact(len(whole), 'contest_mnist-a_verdicts.csv: rows'), 'd')
    for verdict in ('better', 'worse', 'undecided'):
        n.say(f'last{verdict.title()}', Fact(counted(whole, verdict), f'{file}, and the rounds before it for the others: verdict={verdict}'), 'd')


def of_full(
    tables:Standings, # of MNIST, with the finals in full
    n:Numbers, # macros
)->None:
    "What many images of the best say, on MNIST."
    file, full = 'contest_mnist-a_full.csv', tables.full
    names = full.leaders().index
    n.say('fullAll', Fact(len(names), f'{file}: candidates but plain guidance'), 'd')
    n.say('fullSamples', Fact(int(full.rows.samples.max()), f'{file}: samples'), ',d')
    n.say('fullSeeds', Fact(full.rows.seed.nunique(), f'{file}: seed'), 'd')
    words = {rival: tables.together(rival).set_index('candidate').loc[names] for rival in RIVALS}
    better = {rival: list(own.index[own.verdict == 'better']) for rival, own in words.items()}
    for rival, own in better.items():
        n.say(f'full{rival.title()}', Fact(len(own), f'{file}: verdict=better against as many {rival}, corrected over the whole league'), 'd')
        n.put(f'full{rival.title()}Who', escaped(' and '.join(map(title_of, own)) or 'none'), f'{file}: the same, by name')
    first = names[0]
    gains = full.gains().groupby('candidate').gain.agg(['min', 'max'])
    n.put('fullFirst', escaped(title_of(first)), f'{file}: the candidate with the largest least gain')
    n.put('fullFirstWhole', p_in_latex(words['evaluations'].holm[first]), f'{file}: its p, corrected over the whole league')
    for key, column in (('Low', 'min'), ('High', 'max')):
        n.say(f'fullFirst{key}', Fact(gains[column][first], f'{file}: {column} over judges of its gain'), '.0f')
    rest = gains['min'][[name for name in better['evaluations'] if name != first]]
    for key, value in (('Low', rest.min()), ('High', rest.max())):
        n.say(f'fullRest{key}', Fact(value, f'{file}: least gain over judges of the others that are better'), '.0f')


LIMITS = 'contest_mnist-a_final_infinite.csv'


def of_limits(
    r:Results, # tables
    n:Numbers, # macros
)->None:
    "What is left of the winner's lead with infinitely many images, on MNIST."
    rows = read_limits('mnist-a', r.folder)
    budgets = sorted(rows.evaluations.unique())
    n.say('limitImages', Fact(int(rows[rows.evaluations == budgets[0]].samples.max()), f'{LIMITS}: samples'), ',d')
    own = {key: part.set_index(['candidate', 'judge']).sort_index() for key, part in rows.groupby(['evaluations', 'rival'])}
    least = own[budgets[0], 'evaluations'].gain.groupby('candidate').min()
    winner = least.drop('cfg').idxmax()
    for name, key in (('', (budgets[0], 'evaluations')), ('More', (budgets[1], 'evaluations'))):
        among = own[key].gain[winner]
        for end, fact in (('Low', among.min()), ('High', among.max())):
            n.say(f'limit{name}{end}', Fact(fact, f'{LIMITS}: gain of {winner} over judges, evaluations={key[0]:g}, rival={key[1]}'), '.0f')
    own = own[budgets[0], 'evaluations']
    floor = r.table('evidence_floor.csv').set_index('judge').infinite
    lack = own.value['cfg'] - floor[own.value['cfg'].index]
    share = -100*own.difference[winner]/lack
    n.say('limitLackLow', Fact(share.min(), f'{LIMITS} and evidence_floor.csv: least share of what plain guidance lacks'), '.0f')
    n.say('limitLackHigh', Fact(share.max(), f'{LIMITS} and evidence_floor.csv: largest share of what plain guidance lacks'), '.0f')
    half = 100*HALF*own.error[winner]/lack
    n.say('limitHalfLow', Fact(half.min(), f'{LIMITS} and evidence_floor.csv: least half interval of that share'), '.0f')
    n.say('limitHalfHigh', Fact(half.max(), f'{LIMITS} and evidence_floor.csv: largest half interval of that share'), '.0f')
    n.put('limitFirst', escaped(title_of(winner)), f'{LIMITS}: the candidate with the largest least gain')


def contests(
    r:Results, # tables
    n:Numbers, # macros
)->list[str]: # switches for LaTeX
    "All that has been measured of the second comparison."
    there = {model: contest_of(r, model) is not None for model in MODELS}
    for model, is_there in there.items():
        if is_there:
            of_contest(r, n, model)
    if all(there.values()):
        of_both_contests(r, n)
    second = r.has('contest_mnist-a_second.csv')
    finals = read_finals('mnist-a', r.folder)
    tables = read_standings('mnist-a', r.folder) if second or finals else None
    if second:
        of_second(tables, n)
    if finals:
        of_finals(finals, tables, n)
    if finals and tables.full:
        of_full(tables, n)
    flags = {f'contest{MODELS[model].lower()}': is_there for model, is_there in there.items()}
    limits = r.has(LIMITS)
    if limits:
        of_limits(r, n)
    photographs = read_second('cifar10-16', r.folder)
    if photographs:
        of_photographs_again(photographs, n)
    flags |= dict(contestphotosagain=photographs is not None, contestlimits=limits, contestany=any(there.values()), contestboth=all(there.values()), contestsecond=second, contestfinals=bool(finals), contestfull=bool(finals and tables.full))
    return [f'\\newif\\if{name}\\{name}{"true" if on else "false"}' for name, on in flags.items()]


# Tables

def rows_of(
    cells:list[list[str]], # LaTeX
)->str:
    "Rows of a tabular."
    return '\n'.join(' & '.join(row) + r' \\' for row in cells)


def table(
    columns:str, # of a tabular
    head:list[str], # LaTeX
    cells:list[list[str]], # LaTeX
    what:str, # files
)->str:
    "A tabular with rules."
    inside = [rf'\begin{{tabular}}{{@{{}}{columns}@{{}}}}', r'\toprule', rows_of([head]), r'\midrule', rows_of(cells),
        r'\bottomrule', r'\end{tabular}']
    return HEAD.format(what=what) + '\n'.join(inside) + '\n'


def spans(
    row:pd.Series, # with three entries
    names:tuple[str, str, str], # of value and ends
    how:str='.2f', # a format
)->str:
    "A value with its interval."
    value, low, high = (in_latex(row[k], how) for k in names)
    return f'{value} ({low}--{high})'


def what_it_asks(
    best:pd.DataFrame, # a row for each denoiser but the exact one
    who:str, # a denoiser
)->list[str]: # LaTeX: the asked scale, the best one
    "The last two columns; a common error has a curve without a top."
    if who not in best.index:
        return ['one', '--']
    asked = spans(best.loc[who], ('asked', 'asked_low', 'asked_high'))
    return [asked, 'flat' if who == 'common' else spans(best.loc[who], ('best', 'low', 'high'))]


def gain_table(
    r:Results, # tables
)->str:
    "Denoisers, what a scale gains, what they ask for."
    scales, best = r.table('repair_scales.csv'), r.table('repair_best.csv').set_index('who')
    cells = []
    for who in ('exact', *STAGES, *FLAWS):
        own = scales[scales.who == who].set_index('scale')
        top = own.gain.idxmax()
        half = HALF*own.gain_error[top]
        how = ',.0f' if own.gain[top] > 100 else ',.1f'
        gain = f'{in_latex(own.gain[top], "+" + how)} $\\pm$ {in_latex(half, how)}' if top > 1 else '--'
        some = what_it_asks(best, who)
        cells.append([in_words(who), in_latex(own.log_prob[1.], ',.0f'), gain, in_latex(top, 'g'), *some])
    return table('lrrrll', ['denoiser', r'$\log p$', 'largest gain', 'at', r'asked, path', 'best scale'], cells,
        'repair_scales.csv and repair_best.csv')


def in_words(
    who:str, # a denoiser
)->str:
    "A denoiser's name in the paper."
    return rf'{in_latex(float(who[:-1]), "g")}k pictures' if who in STAGES else who


def verdict_table(
    found:list[Verdict], # of chapter 26
)->str:
    "The hypotheses with what became of them."
    cells = [[f'H{{{v.name[1:]}}}', v.said, v.word, v.why] for v in found]
    return table(r'lllp{.4\textwidth}', ['', 'hypothesis', 'verdict', 'by'], cells, 'the files of chapter 26')


WORDS = {'cfg': 'plain guidance', 'cfgig': 'Gibbs-like', 'cfg in an interval': 'interval'}
METRICS = {'fid': 'FID', 'kid': 'KID', 'precision': 'precision', 'recall': 'recall', 'density': 'density',
    'coverage': 'coverage', 'accuracy': 'accuracy', 'class_std': 'spread, pixels', 'feature_spread': 'spread, features'}
SOURCES = {'mnist-real': 'real digits', 'mnist-a': 'drawn digits', 'cifar10-16': 'drawn photos'}


def coverage_table(
    r:Results, # tables
)->str:
    "Measured coverage of the intervals."
    shares = covered(r)
    sources = [s for s in SOURCES if s in shares.columns.get_level_values(0)]
    kinds = [(s, kind) for s in sources for kind in ('value', 'difference')]
    def row(metric, words): return [words, *(in_latex(shares.loc[metric, kind], '.3f') for kind in kinds)]
    cells = [row(metric, words) for metric, words in METRICS.items()]
    above = ' & '.join(['', *(rf'\multicolumn{{2}}{{c}}{{{SOURCES[s]}}}' for s in sources)])
    head = ['measure', *('value' if kind == 'value' else 'diff.' for _, kind in kinds)]
    made = table('l' + 'r'*len(kinds), head, cells, 'evidence_coverage.csv')
    tight = made.replace(r'\begin{tabular}', '\\setlength{\\tabcolsep}{3.5pt}\n\\begin{tabular}')
    return tight.replace(r'\toprule', '\\toprule\n' + above + r' \\')


def old_table(
    r:Results, # tables
)->str:
    "The first comparison's second round."
    pairs = r.table('comparison_final_pairs.csv')
    def against(o): return f'{in_latex(o.difference, "+.2f")} $\\pm$ {in_latex(HALF*o.std, ".2f")}' if o.std else '--'
    cells = [[WORDS.get(o.technique, o.technique), in_latex(o.strength, 'g'), in_latex(o.fid, '.2f'), against(o)]
        for o in pairs.itertuples()]
    return table('lrrr', ['technique', 'strength', 'FID', 'against plain'], cells, 'comparison_final_pairs.csv')


def contest_rows(
    contest:Contest, # of a model
    most:int=8, # candidates
)->list[list[str]]: # LaTeX
    "Plain guidance, and the candidates with the lowest scores."
    judged = fids(contest)
    order = tuning_score(judged).sort_values().index
    shown = ['cfg', *[name for name in order if name != 'cfg'][:most]]
    fid = contest.chosen[contest.chosen.metric == 'fid'].set_index('candidate')
    by = contest.verdicts.set_index('candidate')
    rows = []
    for name in [name for name in shown if name in judged.index]:
        strength = fid.loc[[name]].strength.iloc[0]
        values = [in_latex(v, '.3g') for v in judged.loc[name]]
        told = ['--', '--'] if name not in by.index else [p_in_latex(by.holm[name]), by.verdict[name]]
        rows.append([WORDS.get(name, escaped(title_of(name))), in_latex(strength, '.3g'), *values, *told])
    return rows


def escaped(
    text:str, # any
)->str: # LaTeX
    "Text whose special characters LaTeX prints."
    return re.sub(r'([_&%#$])', r'\\\1', text)


def contest_table(
    r:Results, # tables
)->str:
    "The second comparison as far as it has been measured."
    measured = {model: contest_of(r, model) for model in MODELS}
    parts = []
    for model, contest in measured.items():
        if contest is None:
            continue
        title = {'mnist-a': 'MNIST', 'cifar10-16': 'photographs'}[model]
        head = [title, 'strength', *KINDS, "Holm's $p$", 'verdict']
        parts.append(table('lrrrrrl', head, contest_rows(contest), f'contest_{model}_*.csv'))
    return '\n\n\\medskip\n\n'.join(parts) or HEAD.format(what='contest_*.csv, which are not there yet')


# What the text says without a number

def claims_of_repair(
    r:Results, # tables
)->dict[str, bool]: # what the text says -> whether the tables say so
    "Comparisons of the section on what guidance repairs."
    names = 'repair_scales.csv', 'repair_trained.csv'
    scales, trained = (r.table(name).set_index(['who', 'scale']) for name in names)
    on, control, led = (trained.xs(who) for who in ('on its path', 'on data', 'led down'))
    data = r.rows('repair_asked.csv', where='data')
    data = data[data.who.isin(STAGES) & data.sigma.between(.3, 5.5)]
    far = data[(data.low > 1.1) | (data.high < .9)]
    gains = scales.gain - HALF*scales.gain_error
    ddpm = r.rows('repair_samplers.csv', sampler='ddpm')
    best, plain = r.table('repair_best.csv').set_index('who').best, scales.log_prob['640k', 1.]
    return {
        'on the data only the shortest training is far from one': set(far.who) <= {'10k'},
        'every network gains': all(gains[who].max() > 0 for who in STAGES),
        'own errors lose at every scale above one': (scales.gain['own'].drop(1.) < 0).all(),
        'the exact denoiser contracts nothing': (scales.along['exact'].diff().dropna() > 0).all(),
        'nor with more steps': (r.rows('repair_samplers.csv', who='exact').along.diff().dropna() > 0).all(),
        'it stays on the sheets': scales.off['exact'].max() - scales.off['exact'].min() < .01,
        'on its path likelier than the control at every scale': on.log_prob[1.] > control.log_prob.max(),
        'and best at one, as is the network without low noise': best['on its path'] == best['path, high'] == 1,
        'but less varied': on.along[1.] < led.along[1.] < control.along[1.],
        'ancestral steps still gain': ((ddpm.gain - HALF*ddpm.gain_error) > 0).any(),
        'scaled noise does not help': all(trained.log_prob[f'noise / {f}', 1.] < plain for f in ('1.005', '1.03'))}


def claims_of_the_rest(
    r:Results, # tables
)->dict[str, bool]: # what the text says -> whether the tables say so
    "Comparisons of the other sections."
    digits = r.table('repair_digits.csv').set_index(['who', 'scale']).fid_first
    best = r.table('cifar10_16_best.csv').set_index(['judge', 'stage'])
    shares = covered(r)['mnist-a']
    least = r.table('evidence_judges.csv').groupby('judge').separation.min()
    finer = [least[f'{d}-unlabelled'] > least[f'{d}-rotation'] for d in ('mnist', 'cifar10-16')]
    top = r.rows('repair_techniques.csv', who='640k')
    of_log, of_modes = (spearman_interval(v, -top.fid_mnist) for v in (top.log_prob, -top.modes))
    return {
        'led down, guidance no longer lowers FID': digits['mnist-a led down', 1.] < digits['mnist-a led down', 1.25],
        'and for the control it does': digits['mnist-a on data', 1.25] < digits['mnist-a on data', 1.],
        'the best scale falls': all(best.high[j, 'final'] < best.low[j, '0500k'] for j in ('plain', 'residual')),
        'random features are the finer ruler': all(finer),
        'values of KID are the weakest': shares.value.idxmin() == 'kid',
        'differences do better': (shares.difference > shares.value)[['fid', 'kid']].all(),
        'FID does not follow the likelihood': of_log[1] < 0 < of_log[2],
        'FID follows the shares of the modes': of_modes[1] > .5}


def broken(
    r:Results, # tables
)->list[str]: # what the text should no longer say
    "Comparisons in words that the tables do not bear out."
    claims = claims_of_repair(r) | claims_of_the_rest(r)
    return [words for words, holds in claims.items() if not holds]


# Everything together

def as_given(
    text:str, # a number, with a comma between thousands, or a word
)->str: # LaTeX
    "A parameter as LaTeX sets it."
    grouped = re.sub(r'(?<=\d),(?=\d)', '{,}', text)
    return rf'\ensuremath{{{grouped}}}' if text[0].isdigit() else text


def all_parts(
    r:Results, # tables
)->dict[str, str]: # path below paper/ -> text
    "The numbers and the tables."
    n = Numbers()
    for name, (text, path, words) in PARAMETERS.items():
        n.put(name, as_given(text), f'{path}: "{words}"')
    for part in (of_the_world, of_real_pictures, of_data_and_path, of_scales, of_losses, of_networks, of_prediction,
            of_training, of_digits, of_stages, of_judges, of_theory, of_intervals, of_rulers, of_first_comparison):
        part(r, n)
    found = verdicts(r, n, of_directions(r, n))
    count_verdicts(found, n)
    switches = contests(r, n)
    n.say('numberFiles', Fact(len(n.used) + 1, 'files that these numbers come from'), 'd')
    n.say('numberCount', Fact(len(n.lines) + 1, 'macros of this file'), 'd')
    numbers = HEAD.format(what='nbs/results') + '\n'.join([*switches, *n.lines.values()]) + '\n'
    tables = dict(gains=gain_table(r), verdicts=verdict_table(found), coverage=coverage_table(r), first=old_table(r),
        contest=contest_table(r))
    return {'numbers.tex': numbers} | {f'tables/{name}.tex': text for name, text in tables.items()}


def unfounded()->list[str]: # names of parameters
    "Parameters whose words are not where they should be."
    def text_of(path): return (ROOT/path).read_text(encoding='utf-8')
    def in_json(words): return json.dumps(words, ensure_ascii=False)[1:-1]
    return [name for name, (_, path, words) in PARAMETERS.items() if in_json(words) not in text_of(path)]


def write(
    out:Path, # folder of the paper
    results:Path, # folder of tables
)->None:
    "Write numbers, tables and figures."
    from paper_figures import draw_all
    r = Results(results)
    for name, text in all_parts(r).items():
        path = out/name
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing(path) as tmp:
            tmp.write_text(text, encoding='utf-8')
    draw_all(r, out/'figures')


def stale(
    out:Path, # folder of the paper
    results:Path, # folder of tables
)->list[str]: # names of files
    "What is not what would be written now."
    parts = all_parts(Results(results))
    def is_old(name): return not (out/name).is_file() or (out/name).read_text(encoding='utf-8') != parts[name]
    return [name for name in parts if is_old(name)]


# LaTeX

DEBIAN = 'texlive-latex-base texlive-latex-recommended texlive-fonts-recommended'
STYLES = {'natbib.sty': 'texlive-latex-base', 'booktabs.sty': 'texlive-latex-recommended',
    'microtype.sty': 'texlive-latex-recommended', 'caption.sty': 'texlive-latex-recommended',
    'ptmr8t.tfm': 'texlive-fonts-recommended'}


def lacking()->str: # empty where all is there
    "What is missing for the paper, in one line."
    tools = [tool for tool in ('pdflatex', 'bibtex', 'kpsewhich') if not shutil.which(tool)]
    if tools:
        return f'no {tools[0]} here; on Debian: apt install {DEBIAN}'
    found = subprocess.run(['kpsewhich', *STYLES], capture_output=True, text=True).stdout
    missing = [style for style in STYLES if style not in found]
    return f'LaTeX lacks {missing[0]}; on Debian: apt install {STYLES[missing[0]]}' if missing else ''


def build(
    out:Path, # folder with paper.tex
)->Path: # paper.pdf
    "Run LaTeX and BibTeX; raises `InputError` with LaTeX's own line where it fails."
    places = dict(os.environ, BIBINPUTS=f'{ROOT/"nbs"}:', SOURCE_DATE_EPOCH='0', max_print_line='1000')
    latex = ['pdflatex', '-interaction=nonstopmode', '-halt-on-error', 'paper']
    for command in (latex, ['bibtex', 'paper'], latex, latex, latex): # the last one, as numbers of another width move lines
        done = subprocess.run(command, cwd=out, env=places, capture_output=True, text=True, errors='replace')
        words = [line for line in done.stdout.splitlines() if line.startswith('!') or 'error' in line.lower()]
        check(done.returncode == 0, command[0], (words or ['an error'])[0], f'a clean run; see {out/"paper.log"}')
    return out/'paper.pdf'


def main(
    words:list[str]|None=None, # of the command line
)->None:
    "Parse the command line and run."
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--check', action='store_true', help='write nothing; exit 1 where numbers or tables are stale')
    p.add_argument('--pdf', action='store_true', help='build the paper too, which needs LaTeX')
    p.add_argument('--results', type=Path, default=RESULTS, help='folder of tables')
    p.add_argument('--out', type=Path, default=PAPER, help='folder of the paper')
    args = p.parse_args(words)
    try:
        if args.check:
            old = stale(args.out, args.results) + unfounded()
            wrong = broken(Results(args.results))
            if wrong:
                raise InputError(f'the text says what the tables do not: {"; ".join(wrong)}')
            sys.exit(f'stale: {", ".join(old)}. To mend: python tools/paper.py' if old else 0)
        missing = lacking() if args.pdf else ''
        if missing:
            raise InputError(missing)
        write(args.out, args.results)
        if args.pdf:
            print(build(args.out))
    except InputError as e:
        sys.exit(f'paper.py: {e}')


if __name__ == '__main__': main()
