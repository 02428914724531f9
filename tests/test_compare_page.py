"The page that compares techniques: its data are those of the tables, its table can be sorted, filtered and searched, and it stands without any of that."
import csv, io, json, math, os, random, re, shutil, subprocess, sys
from html.parser import HTMLParser

import numpy as np, pandas as pd, pytest, torch
from PIL import Image

from cfg_course.catalogue import list_families
from cfg_course.contests import OUT, candidates, head_of, Entry
from cfg_course.core import InputError
from cfg_course.sweeps import Drawn, fingerprints, keep, keep_path
from notebooks import NBS_DIR, ROOT, cells, src

sys.path.insert(0, str(ROOT/'tools'))
import compare

PAGE, SCRIPT, DATA = NBS_DIR/'compare.qmd', NBS_DIR/'theme'/'compare.js', NBS_DIR/'compare'
TEXT, RAW = PAGE.read_text(encoding='utf-8'), ''.join(re.findall(r'^```\{=html\}\n(.*?)^```$', PAGE.read_text(encoding='utf-8'), re.M | re.S))
NOW = json.loads((DATA/'compare.json').read_text(encoding='utf-8'))
MNIST, PHOTOS = compare.SETS
TUNED = 'fid', 'accuracy', 'class_std'
needs_node = pytest.mark.skipif(not shutil.which('node'), reason='no node here, which runs the page\'s JavaScript')


# Tables of a small contest, made up from a seed

def invented(rng, metric):
    "A number with an interval."
    value = math.exp(rng.gauss(2, 1)) if metric in ('fid', 'kid') else rng.uniform(.5, .99)
    return value, .95*value, 1.06*value


def rows_of(candidate, value, which, judges, metrics, rng, seed=0, num=1000):
    "The rows of a setting, as the contest writes them."
    point = candidate.point(value, model=which.model, num=num, seed=seed)
    point = point._replace(sampling=(*point.sampling, ('steps', 12)))
    head = head_of(Entry(candidate.name, value, point), 24.)
    def line(judge, metric, v): return dict(head, judge=judge, metric=metric, **{k: f'{o:.6g}' for k, o in zip(('value', 'low', 'high'), v)})
    yield line('', 'effective_scale', (1.5, 1.4, 1.6))
    yield from (line(j, m, invented(rng, m)) for j in judges for m in metrics)


def write(rows, path, columns=compare.MEASURED): pd.DataFrame(rows, columns=columns).to_csv(path, index=False)


def make_tables(out, sets=compare.SETS, stages='tuned chosen differences verdicts', names=None, seed=0, seeds=(1,), best=3):
    "Tables of a contest in which every candidate takes part: numbers from a seed."
    out.mkdir(exist_ok=True)
    for which in sets:
        rng, judges = random.Random(f'{seed} {which.name}'), [j['name'] for j in next(o for o in NOW['sets'] if o['name'] == which.name)['judges']]
        who = [c for c in candidates(which.weak) if names is None or c.name in names]
        path = {k: compare.table_of(which.model, k, out) for k in ('first', 'finer', 'chosen', 'differences', 'verdicts')}
        if 'tuned' in stages:
            write([r for c in who for v in c.values[:-1] for r in rows_of(c, v, which, judges, TUNED, rng)], path['first'])
            write([r for c in who for v in c.values[-1:] for r in rows_of(c, v, which, judges, TUNED, rng)], path['finer'])
        if 'chosen' in stages:
            write([r for c in who for s in seeds for r in rows_of(c, c.values[best], which, judges, list(compare.MEASURES), rng, s)], path['chosen'])
        others = who[1:]
        if 'differences' in stages:
            rows = [dict(candidate=c.name, judge=j, metric='fid', difference=-1.5, error=.5, low=-2.5, high=-.5, p=.003) for c in others for j in judges]
            write(rows, path['differences'], ['candidate', 'judge', 'metric', 'difference', 'error', 'low', 'high', 'p'])
        if 'verdicts' in stages:
            rows = [dict(candidate=c.name, least=-2, most=1, p=.01, holm=.2, verdict=compare.VERDICTS[k % 3]) for k, c in enumerate(others)]
            write(rows, path['verdicts'], ['candidate', 'least', 'most', 'p', 'holm', 'verdict'])
    return out


def made(results, out, images=None):
    "What the tool writes from tables: the data, and the page."
    page = out/'page.qmd'
    out.mkdir(exist_ok=True)
    page.write_text(TEXT, encoding='utf-8')
    files = compare.make_files(results, out, page, images)
    return json.loads(files[out/'compare.json']), files[page], files[out/'compare.csv']
