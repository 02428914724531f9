"Every number in the prose stands in a result file, and the shipped weights are the ones that their headers describe."
import json, re
from pathlib import Path

import pandas as pd
import pytest
from execnb.shell import CaptureShell

from cfg_course.classifiers import load_classifier
from cfg_course.core import read_results
from cfg_course.denoisers import find_model
from cfg_course.standings import read_standings, signed, title_of
from cfg_course.sweeps import read_sweep

ROOT = Path(__file__).resolve().parents[1]
RESULTS, WEIGHTS = ROOT/'nbs'/'results', ROOT/'cfg_course'/'weights'
ROW = re.compile(r'^\| ([\d.]+) \| ([\d.]+) % \| ([\d.]+) to ([\d.]+) % \| ([\d.]+) \|$', re.M)


def test_table_of_the_first_page():
    rows = read_sweep(RESULTS/'mnist_scales.csv', model='mnist-a', samples=1000, seed=0).set_index(['scale', 'metric'])
    said = ROW.findall((ROOT/'README.md').read_text(encoding='utf-8'))
    assert [float(s[0]) for s in said] == sorted(rows.index.unique('scale'))
    for scale, *numbers in said:
        acc, std = rows.loc[(float(scale), 'accuracy')], rows.loc[(float(scale), 'class_std')]
        assert numbers == [f'{100*acc.value:.1f}', f'{100*acc.low:.1f}', f'{100*acc.high:.1f}', f'{std.value:.3f}']


def test_trade_off_of_the_first_page():
    mean = read_sweep(RESULTS/'mnist_tradeoff.csv', model='mnist-a', samples=1000, steps=20, seed=[0, 1]).groupby(['scale', 'metric']).value.mean().unstack()
    said = re.findall(r'^\| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| (\d+) % \| (\d+) % \|$', (ROOT/'README.md').read_text(encoding='utf-8'), re.M)
    assert len(said) == 8 and str(mean.fid.idxmin()) == '1.25'
    for scale, *numbers in said:
        m = mean.loc[float(scale)]
        assert numbers == [f'{m.fid:.1f}', f'{m.isc:.2f}', f'{100*m.precision:.0f}', f'{100*m.recall:.0f}']


def test_best_scales_of_the_first_page():
    stages = 'cifar10_16_stages_plain.csv'
    files = ('mnist-a', 'mnist_tradeoff.csv'), ('cifar10-16', stages), ('cifar10-16-at-0500k.safetensors', stages)
    tables = [(m, read_sweep(RESULTS/f).query("metric == 'fid'")) for m, f in files]
    best = [rows[rows.model == m].groupby('scale').value.mean().idxmin() for m, rows in tables]
    text = (ROOT/'README.md').read_text(encoding='utf-8')
    assert re.findall(r'at scale ([\d.]+) on', text) == [f'{s:g}' for s in best]


def test_real_images_of_the_first_page():
    rows = read_results(RESULTS/'mnist_real.csv').set_index(['split', 'metric']).value
    text = (ROOT/'README.md').read_text(encoding='utf-8')
    assert f"{100*rows['test', 'accuracy']:.1f} %" in text and f"{rows['train', 'class_std']:.3f}" in text


MODELS = [('digits', 'digits'), *((f'mnist-{k}', 'mnist') for k in 'abc'), ('cifar10-16', 'folder:cifar10-jpeg')]


@pytest.mark.parametrize('name,data', MODELS)
def test_weights_come_with_what_made_them(name, data):
    "The header of a model agrees with the log and the command line that are shipped beside it."
    meta, log = find_model(name)[1], pd.read_csv(WEIGHTS/f'{name}.csv')
    assert meta['data'] == data and meta['step'] == meta['train']['steps'] == log.step.iloc[-1]
    assert log.step.is_monotonic_increasing and log.loss.iloc[-1] < log.loss.iloc[0]
    assert load_classifier(data, shape=meta['shape'])[1]['test_accuracy'] > .75 and 'train.py' in meta['command']


def test_weights_are_small():
    "Package data at most 60 MB in all, a file at most 16 MB."
    sizes = [f.stat().st_size for f in WEIGHTS.iterdir()]
    assert sum(sizes) < 60e6 and max(sizes) < 16e6


@pytest.mark.parametrize('name', ['cifar10-16', 'mnist-a', 'mnist-b', 'mnist-c'])
def test_models_of_the_part_fit_have_a_heldout_loss(name):
    "The card says what the average was chosen by: the lowest held-out loss of those kept, on pictures that were not trained on."
    meta, log = find_model(name)[1], pd.read_csv(WEIGHTS/f'{name}.csv')
    last = log[[c for c in log if c.startswith('heldout')]].iloc[-1]
    assert meta['train']['split'] == 'fit' and len(meta['heldout']) == 8
    assert abs(sum(meta['heldout'])/8 - last.min()) < 1e-5 and last.idxmin() == f"heldout_{meta['ema']:g}"


FROM_FILES = ['30_results', '31_discussion', '32_choice']
ALLOWED = re.compile(r"""\$[^$]*\$ | `[^`]*` | \[@[^\]]*\] | @\w+ | \]\([^)]*\) | ^```.*?^``` | "[^"]*"  # maths, code, citations, links, quotations
    | (?:chapters?|tables?|figures?|sections?|equations?|appendix|scale|seeds?)\s[\d.]+(?:(?:,|\sand|\sto)\s[\d.]+)* | 8x8 | MNIST | CIFAR-10""", re.X | re.M | re.S | re.I)


def loose(text):
    "Numbers in a text that could be measurements: with a decimal point or a per cent sign, or of three digits and more."
    return re.findall(r'\d+\.\d+|\d+\s?%|\d{3,}', ALLOWED.sub(' ', text))


def test_loose_numbers_are_found():
    assert loose('rises from 3.2 to 95 % with 1000 samples') == ['3.2', '95 %', '1000']
    assert loose('chapter 19, $s = 1.5$, `num=5000`, [a link](22_mnist.ipynb), as @ho2022classifier say in table 1') == []


@pytest.mark.parametrize('stem', FROM_FILES)
def test_sentences_with_numbers_are_filled_in_from_files(stem, monkeypatch):
    "What stands on the page is what its cells make of the files now, and no number was typed in by hand."
    cells = json.loads((ROOT/'nbs'/f'{stem}.ipynb').read_text(encoding='utf-8'))['cells']
    text = {k: [''.join(c['source']) for c in cells if c['cell_type'] == k] for k in ('markdown', 'code')}
    assert [n for t in text['markdown'] for n in loose(t)] == []
    written = [''.join(o['data']['text/markdown']) for c in cells for o in c.get('outputs', []) if 'text/markdown' in o.get('data', {})]
    monkeypatch.chdir(ROOT/'nbs')
    shell, again = CaptureShell(), []
    for source in text['code']:
        out = shell.run(source)
        assert not shell.exc, shell.exc
        again += [''.join(o['data']['text/markdown']) for o in out if 'text/markdown' in o.get('data', {})]
    assert written == again and len(written) >= 2 and all(re.search(r'\d', t) for t in written)


CONTESTS = {'digits': 'mnist-a', 'photographs': 'cifar10-16'}
COMPARED = [place for place, model in CONTESTS.items() if (RESULTS/f'contest_{model}_verdicts.csv').is_file()]


def shown(stem):
    "What the cells of a chapter write as prose."
    cells = json.loads((ROOT/'nbs'/f'{stem}.ipynb').read_text(encoding='utf-8'))['cells']
    return '\n'.join(''.join(o.get('data', {}).get('text/markdown', '')) for c in cells for o in c.get('outputs', []))


def contest(place, name):
    return pd.read_csv(RESULTS/f'contest_{CONTESTS[place]}_{name}.csv')


@pytest.mark.parametrize('place', COMPARED)
@pytest.mark.parametrize('rival,ending', [('evaluations', ''), ('steps', '_steps')])
def test_verdicts_are_counted(place, rival, ending):
    n = read_standings(CONTESTS[place], RESULTS).words(rival).value_counts()
    line = ' | '.join(str(n.get(word, 0)) for word in ('better', 'undecided', 'worse'))
    assert f'| {place} | {rival} | {line} |' in shown('30_results')


@pytest.mark.parametrize('place', COMPARED)
def test_gains_of_the_best(place):
    "Of each technique that is better, and of the one that gains most: the least and the greatest share of the FID of plain guidance, over judges."
    tables = read_standings(CONTESTS[place], RESULTS)
    rows = tables.later()[-1].rows if tables.later() else tables.chosen
    cells = rows[rows.metric.isin(['fid', 'fid - plain']) & (rows.candidate != 'cfg')].pivot_table(index=['candidate', 'judge', 'seed'], columns='metric', values='value') # mean over networks
    cells = cells.groupby(['candidate', 'judge']).mean() # and over seeds
    share = (-100*cells['fid - plain']/(cells.fid - cells['fid - plain'])).unstack()
    gains = {name: own.tolist() for name, own in share.iterrows()}
    words = tables.words()
    top, better = max(gains, key=lambda name: min(gains[name])), set(words.index[words == 'better']) & set(gains)
    for name in {top, *better}:
        words = title_of(name).replace('*', r'\*') + f' ({signed(min(gains[name]))} to {signed(max(gains[name]))} %'
        assert f'{words})' in shown('30_results') and (name != top or words in shown('31_discussion'))
        assert title_of(name).replace('*', r'\*') in shown('31_discussion')
    for stem in ('30_results', '31_discussion'):
        text = (ROOT/'nbs'/f'{stem}.ipynb').read_text(encoding='utf-8')
        assert (f'On {place} no technique is' in text) <= (not better)


@pytest.mark.parametrize('stem', ['30_results', '31_discussion'])
def test_no_verdict_is_left_of_the_comparison_that_was_replaced(stem):
    cells = json.loads((ROOT/'nbs'/f'{stem}.ipynb').read_text(encoding='utf-8'))['cells']
    for cell in cells:
        source = ''.join(cell['source'])
        assert not re.search(r'results/comparison', source), source
    assert 'first comparison' not in shown(stem) and 'within noise' not in shown(stem)
