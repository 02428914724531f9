"The page that compares techniques: its data are those of the tables, its table can be sorted, filtered and searched, and it stands without any of that."
import io, json, math, os, random, re, shutil, subprocess, sys
from html.parser import HTMLParser

import numpy as np, pandas as pd, pytest, torch
from PIL import Image

from cfg_course import pictures
from cfg_course.catalogue import list_families
from cfg_course.contests import OUT, candidates, head_of, Entry
from cfg_course.core import InputError
from cfg_course.standings import read_standings
from cfg_course.sweeps import Drawn, fingerprints, keep, keep_path
from notebooks import NBS_DIR, ROOT

sys.path.insert(0, str(ROOT/'tools'))
import compare

PAGE, SCRIPT, DATA = NBS_DIR/'compare.qmd', NBS_DIR/'theme'/'compare.js', NBS_DIR/'compare'
TEXT, RAW = PAGE.read_text(encoding='utf-8'), ''.join(re.findall(r'^```\{=html\}\n(.*?)^```$', PAGE.read_text(encoding='utf-8'), re.M | re.S))
NOW = json.loads((DATA/'compare.json').read_text(encoding='utf-8'))
ALL = len(NOW['techniques'])
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
    for j in judges:
        for m in metrics:
            yield line(j, m, invented(rng, m))
            if seed: yield from (line(j, f'{m}{compare.LESS}{r.differs}', AWAY[r.name, k_of(candidate)]) for r in compare.RIVALS)


AWAY = {('evaluations', 'better'): (-1.5, -2.5, -.5), ('evaluations', 'worse'): (1.25, .25, 2.25), ('evaluations', 'undecided'): (.5, -.5, 1.5),
        ('steps', 'better'): (.75, .25, 1.25), ('steps', 'worse'): (-.25, -1.25, .75), ('steps', 'undecided'): (-2, -3, -1)} # of whom the first rival says what
SECOND = dict(better='worse', worse='undecided', undecided='better') # what the second says of whom the first says that
HOLM = dict(evaluations=.2, steps=.3)


def k_of(candidate):
    "The verdict of a candidate at equal evaluations: each in turn."
    names = [c.name for c in candidates('w')]
    return compare.VERDICTS[(names.index(candidate.name) + 2) % 3]


def write(rows, path, columns=compare.MEASURED): pd.DataFrame(rows, columns=columns).to_csv(path, index=False)


EVERYTHING = 'tuned chosen differences verdicts exact'


def make_tables(out, sets=compare.SETS, stages=EVERYTHING, names=None, seed=0, seeds=(1,), best=3):
    "Tables of a contest in which every candidate takes part: numbers from a seed."
    out.mkdir(exist_ok=True)
    for which in sets:
        rng, judges = random.Random(f'{seed} {which.name}'), [j['name'] for j in next(o for o in NOW['sets'] if o['name'] == which.name)['judges']]
        who = [c for c in candidates(which.weak) if names is None or c.name in names]
        path = lambda stage: compare.table_of(which.model, stage, out)
        if 'tuned' in stages:
            write([r for c in who for v in c.values[:-1] for r in rows_of(c, v, which, judges, TUNED, rng)], path('first'))
            write([r for c in who for v in c.values[-1:] for r in rows_of(c, v, which, judges, TUNED, rng)], path('finer'))
        if 'chosen' in stages:
            write([r for c in who for s in seeds for r in rows_of(c, c.values[best], which, judges, list(compare.MEASURES), rng, s)], path('chosen'))
        for rival in compare.RIVALS:
            away = lambda c: dict(zip(('difference', 'low', 'high'), AWAY[rival.name, k_of(c)]), error=.5, p=.003)
            said = lambda c: k_of(c) if rival.name == 'evaluations' else SECOND[k_of(c)]
            if 'differences' in stages:
                rows = [dict(candidate=c.name, judge=j, metric='fid', **away(c)) for c in who for j in judges]
                write(rows, path(f'differences{rival.ending}'), ['candidate', 'judge', 'metric', 'difference', 'error', 'low', 'high', 'p'])
            if 'verdicts' in stages:
                rows = [dict(candidate=c.name, least=-2, most=1, p=.01, holm=HOLM[rival.name], verdict=said(c), league=c.league) for c in who[1:]]
                write(rows, path(f'verdicts{rival.ending}'), ['candidate', 'least', 'most', 'p', 'holm', 'verdict', 'league'])
        if 'exact' in stages:
            rows = [dict(candidate=compare.REAL, measure=m, value=k) for k, m in enumerate(compare.EXACT_MEASURES)]
            rows += [dict(candidate=c.name, strength=c.values[best], seed=str(s), measure=m, value=k + i + s/10) for i, c in enumerate(who) for s in seeds for k, m in enumerate(compare.EXACT_MEASURES)]
            write(rows, path('chosen_exact'), ['candidate', 'measure', 'value', 'strength', 'seed'])
    return out


def made(results, out, images=None):
    "What the tool writes from tables: the data, and the page."
    page = out/'page.qmd'
    out.mkdir(exist_ok=True)
    page.write_text(TEXT, encoding='utf-8')
    files = compare.make_files(results, out, page, images)
    return json.loads(files[out/'compare.json']), files[page], files[out/'compare.csv']


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    "A contest of which everything is measured: (folder of tables, data, page, CSV)."
    out = tmp_path_factory.mktemp('whole')
    results = make_tables(out/'tables')
    return results, *made(results, out/'data')


def test_what_compares_does_not_tune(whole):
    "The rows of the chosen strengths come from other noise and do not go into the curves of tuning."
    first, finer, chosen = (compare.read_measured(compare.table_of('mnist-a', k, whole[0]), 'mnist-a') for k in ('first', 'finer', 'chosen'))
    assert len(chosen) and len(compare.tuning_rows('mnist-a', whole[0])) == len(first) + len(finer)


# Techniques

def of(data, name): return next(o for o in data['techniques'] if o['name'] == name)


def test_everybody_is_there_and_plain_guidance_is_first():
    names = [o['name'] for o in NOW['techniques']]
    assert names[0] == 'cfg' and names == [c.name for c in candidates('mnist-weak')] and not set(names) & set(OUT)
    entries = {e.name: e for e in list_families()}
    assert len({o['file'] for o in NOW['techniques']}) == len({o['title'] for o in NOW['techniques']}) == len(names) > 100
    for o in NOW['techniques']:
        assert o['kind'] in compare.KINDS and o['tags'] and set(o['tags']) <= set(compare.TAG_TITLES) and o['cost'] >= 1, o
        assert re.fullmatch(r'[a-z0-9-]+', o['file']) and 2020 < o['year'] < 2030
        assert all(re.match(r'https://(arxiv\.org/abs/\d{4}\.\d{5}|github\.com/\w+/[\w-]+)$|guidance\.html$', p['url']) and not re.search(r'arXiv|\d{4}\.\d{5}', p['text']) for p in o['paper']) and o['paper']
        if o['name'] in entries:
            e = entries[o['name']]
            assert (o['year'], o['cost'], o['kind']) == (e.year, e.cost, e.changes) and e.needs == o['needs']
            assert o['title'] == e.title or o['name'] == 'cfg'


@pytest.mark.parametrize('e', list_families(), ids=lambda e: e.name)
def test_every_need_of_the_catalogue_has_a_word_in_the_filter(e):
    assert compare.tags_of(e.needs) and (compare.tags_of(e.needs) == ['nothing']) == (not e.needs)


def test_terms_and_forms_say_what_they_are():
    pag, interval, several = of(NOW, 'cfg+pag'), of(NOW, 'interval, middle'), of(NOW, 'particle_guidance')
    assert pag['title'] == 'perturbed-attention guidance, on top of plain guidance' and (pag['kind'], pag['cost'], pag['knob']) == ('term', 3, 'strength')
    assert interval['paper'] == [dict(text='Kynkäänniemi et al. 2024', url='https://arxiv.org/abs/2404.07724')] and interval['year'] == 2024
    assert several['league'] == 'several' and 'several' in several['tags'] and of(NOW, 'cfgpp')['knob'] == 'lam'


def test_a_technique_of_a_later_round_is_described_by_its_method(tmp_path):
    "A pair that no list of candidates has, and a name that no page should take for markup."
    results = make_tables(tmp_path/'t', names=['cfg', 'apg'], stages='tuned chosen')
    path = compare.table_of('mnist-a', 'chosen', results)
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    pair = rows[rows.candidate == 'apg'].assign(candidate='<b>apg</b> & pag', method='apg+pag')
    pd.concat([rows, pair]).to_csv(path, index=False)
    data, page, _ = made(results, tmp_path/'o')
    assert data['techniques'][-1]['title'] == 'adaptive projected guidance with perturbed-attention guidance' or 'perturbed' in data['techniques'][-1]['title']
    assert data['techniques'][-1]['results']['mnist']['judges'] and '&lt;b&gt;apg' in page and '<b>apg' not in page


# Numbers

def test_numbers_are_those_of_the_tables(whole):
    results, data, _, text = whole
    long = pd.read_csv(io.StringIO(text), keep_default_na=False, dtype=str)
    assert list(long) == list(compare.HEAD)
    for which in compare.SETS:
        rows = pd.read_csv(compare.table_of(which.model, 'chosen', results), dtype=str, keep_default_na=False)
        rows = rows[(rows.judge != '') & ~rows.metric.str.contains(compare.LESS)]
        for o in rows.sample(200, random_state=3).to_dict('records'):
            want = [float(f'{float(o[k]):.4g}') for k in ('value', 'low', 'high')]
            assert of(data, o['candidate'])['results'][which.name]['judges'][o['judge']][o['metric']] == pytest.approx(want, rel=2e-3)
            line = long[(long.set == which.name) & (long.technique == o['candidate']) & (long.judge == o['judge']) & (long.metric == o['metric'])]
            assert len(line) == 1 and [float(line.iloc[0][k]) for k in ('value', 'low', 'high')] == pytest.approx(want, rel=2e-3)
        mine = long[(long.set == which.name)]
        assert len(mine[mine.judge != compare.WORLD]) == len(rows) and len(mine[mine.judge == compare.WORLD]) == (ALL + 1)*len(compare.EXACT_MEASURES)
    assert 'NaN' not in json.dumps(data) and len(data['edition']) == 8


def test_verdicts_and_differences_are_taken_over(whole):
    "Each rival has its own: at equal evaluations, and at equal steps."
    _, data, page, text = whole
    found = of(data, 'apg')['results']['mnist']['against']
    for rival in compare.RIVALS:
        want, first = found[rival.name], k_of(next(c for c in candidates('w') if c.name == 'apg'))
        assert want['verdict'] == (first if rival.name == 'evaluations' else SECOND[first]) and want['holm'] == HOLM[rival.name]
        assert want['differences']['mnist-fit']['fid'] == [*AWAY[rival.name, first], .003]
        verdicts = [o['results']['mnist']['against'][rival.name].get('verdict') for o in data['techniques']]
        assert verdicts[0] is None and None not in verdicts[1:]
        counts = [verdicts.count(v) for v in ('better', 'worse', 'undecided')]
        assert 'Compared with plain guidance {}: better {}, worse {}, undecided {}.'.format(rival.title, *counts) in page
        assert f'- **{rival.title.capitalize()}.** {rival.words}' in page and re.match(r'[A-Z][^.]*\.$', rival.words)
        assert f'<b>{want["verdict"]}</b> {rival.title}' in re.search(r'<code>apg</code>.*', page)[0]
    long = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    row = long[(long.set == 'mnist') & (long.technique == 'apg') & (long.metric == 'fid') & (long.judge == 'mnist-fit')].iloc[0]
    for rival in compare.RIVALS:
        want = found[rival.name]
        assert [float(row[k + rival.ending]) for k in compare.DIFFERENCE] == want['differences']['mnist-fit']['fid']
        assert (row['verdict' + rival.ending], float(row['holm' + rival.ending])) == (want['verdict'], want['holm'])
    assert not set(long.metric) & {f'{m}{compare.LESS}{r.differs}' for m in compare.MEASURES for r in compare.RIVALS}


def test_the_mean_effective_scale_is_a_column(whole):
    long = pd.read_csv(io.StringIO(whole[3]), dtype=str, keep_default_na=False)
    assert set(long[long.technique != compare.REAL].effective_scale) == {'1.5'} and of(whole[1], 'apg')['results']['mnist']['effective'] == [1.5, 1.4, 1.6]
    now = pd.read_csv(DATA/'compare.csv', dtype=str, keep_default_na=False)
    for o in NOW['techniques']:
        own = o['results'].get('mnist', {}).get('effective')
        want = {f'{own[0]:g}'} if own else {''}
        assert set(now[(now.technique == o['name']) & (now.set == 'mnist')].effective_scale) == want, o['name']


def test_exact_measures_are_taken_over(whole):
    "Of every technique and of real images, with the words of the module that measures."
    _, data, _, text = whole
    assert data['exact'] == [dict(name=k, words=m.words) for k, m in pictures.MEASURES.items()]
    long = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    long = long[long.judge == 'exact world']
    for one in data['sets']:
        assert one['real'] == {m: k for k, m in enumerate(pictures.MEASURES)}
        real = long[(long.set == one['name']) & (long.technique == 'real images')]
        assert dict(zip(real.metric, real.value.astype(float))) == one['real']
        for i, o in enumerate(data['techniques']):
            want = {m: pytest.approx(k + i + .1, rel=1e-3) for k, m in enumerate(pictures.MEASURES)}
            assert o['results'][one['name']]['exact'] == want
        mine = long[(long.set == one['name']) & (long.technique == 'apg')]
        assert dict(zip(mine.metric, mine.value.astype(float))) == of(data, 'apg')['results'][one['name']]['exact']


def test_without_chosen_strengths_the_best_of_tuning_is_shown(tmp_path):
    results = make_tables(tmp_path/'t', stages='tuned', names=['cfg', 'apg', 'cfg+pag', 'cfgpp'])
    data, page, _ = made(results, tmp_path/'o')
    rows = pd.concat(pd.read_csv(compare.table_of('mnist-a', k, results)) for k in ('first', 'finer'))
    for name in ('cfg', 'apg', 'cfg+pag', 'cfgpp'):
        own = rows[(rows.candidate == name) & (rows.metric == 'fid')]
        found = of(data, name)['results']['mnist']
        assert found['strength'] == own.groupby('strength').value.agg(lambda v: np.log(v).mean()).idxmin() and found['state'] == 'tuned'
        assert len(found['curve']['strengths']) == 6 and set(next(iter(found['judges'].values()))) == set(TUNED)
    assert of(data, 'pag')['results'] == {} and f'4 of {ALL} techniques are measured, while they were tuned' in page
    assert 'not computed yet' in page and of(data, 'cfg')['results']['mnist']['command'].startswith('python sample.py --model mnist-a --guidance cfg ')


@pytest.mark.parametrize('sets', [(), compare.SETS[:1], compare.SETS[1:]], ids=['none', 'digits', 'photographs'])
def test_what_is_not_measured_is_said(tmp_path, sets):
    results = make_tables(tmp_path/'t', sets, names=['cfg', 'apg'])
    data, page, text = made(results, tmp_path/'o')
    missing = [o for o in compare.SETS if o not in sets]
    assert all(f'**{o.title}:** not measured yet.' in page for o in missing) and ('The runs are under way' in page) == (not sets)
    assert all(o.name not in t['results'] for o in missing for t in data['techniques']) and bool(data['edition']) == bool(sets)
    each = 3*len(compare.MEASURES) + len(pictures.MEASURES)
    assert text.count('\n') == 1 + sum(ALL - 2 + 2*each + len(pictures.MEASURES) if o in sets else ALL for o in compare.SETS)
    assert 'first comparison' not in page and 'Until then' not in page


def test_seeds_are_averaged_and_their_interval_shrinks(tmp_path):
    results = make_tables(tmp_path/'t', compare.SETS[:1], 'chosen', ['cfg', 'adaptive'], seeds=(1, 2, 3, 4))
    path = compare.table_of('mnist-a', 'chosen', results)
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    rows.loc[rows.candidate == 'adaptive', 'nfe'] = [str(20 + int(s)) for s in rows[rows.candidate == 'adaptive'].seed] # differs between seeds
    rows.to_csv(path, index=False)
    found = of(made(results, tmp_path/'o')[0], 'adaptive')['results']['mnist']
    own = rows[(rows.candidate == 'adaptive') & (rows.metric == 'fid') & (rows.judge == 'mnist-fit')][['value', 'low', 'high']].astype(float)
    value, low, high = found['judges']['mnist-fit']['fid']
    assert value == pytest.approx(own.value.mean(), rel=1e-3) and found['nfe'] == 22.5 and found['pictures'] == 4000
    assert high - value == pytest.approx(((own.high - own.value)**2).sum()**.5/4, rel=.02) and low < value


def test_who_could_not_be_drawn(tmp_path):
    results = make_tables(tmp_path/'t', compare.SETS[:1], 'tuned', ['cfg'])
    path = compare.table_of('mnist-a', 'first', results)
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    lost = rows[:1].assign(candidate='apg', method='apg', nfe='', judge='', metric='failed', value='', low='', high='')
    pd.concat([rows, lost]).to_csv(path, index=False)
    plan = dict(round={}, candidates=[], refused=dict(in_situ='no dropout'))
    compare.plan_path('mnist-a', results).write_text(json.dumps(plan))
    data, page, _ = made(results, tmp_path/'o')
    assert of(data, 'apg')['results']['mnist'] == dict(state='failed') and of(data, 'in_situ')['results']['mnist'] == dict(state='refused', why='no dropout')
    assert 'could not be drawn' in page and 'not for this model' in page


DAMAGE = dict(
    columns=lambda t: t.replace('judge', 'jugde'), empty=lambda t: '', binary=lambda t: '\0\1\2\n\3', words=lambda t: 'hello, world',
    strength=lambda t: re.sub(r'\ncfg,[^,]*,', '\ncfg,much,', t, count=1), seed=lambda t: t.replace(',1000,1,', ',1000,x,'), cut=lambda t: t[:len(t)//2].rpartition(',')[0])


@pytest.mark.parametrize('kind', DAMAGE)
@pytest.mark.parametrize('stage', ['first', 'chosen'])
def test_a_damaged_table_costs_one_line_and_nothing_is_written(tmp_path, capsys, kind, stage):
    results = make_tables(tmp_path/'t', compare.SETS[:1], names=['cfg', 'apg'], seeds=(1,))
    path = compare.table_of('mnist-a', stage, results)
    text = path.read_text()
    if stage == 'first' and kind == 'seed': pytest.skip('seed 0 there')
    path.write_text(DAMAGE[kind](text))
    page = tmp_path/'page.qmd'
    page.write_text(TEXT)
    command = ['--results', str(results), '--out', str(tmp_path/'o'), '--page', str(page)]
    if kind == 'cut': # the rows that are whole are still good, the last one is not
        try: compare.main(command)
        except SystemExit as e: assert str(e).startswith('compare.py: ') and '\n' not in str(e)
        return
    with pytest.raises(SystemExit) as e: compare.main(command)
    assert str(e.value).startswith('compare.py: ') and '\n' not in str(e.value) and path.name in str(e.value)
    assert page.read_text() == TEXT and not (tmp_path/'o').exists()


def edit(path, **columns):
    "Change columns of a table: name -> function of the rows."
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table.assign(**columns).to_csv(path, index=False)


def where(row, column, text): return lambda t: t[column].mask(row(t), text)


def stage(name): return lambda out: compare.table_of('mnist-a', name, out)


def drop(*names): return lambda out: [stage(n)(out).unlink() for n in names]


def change(name, row, column, text): return lambda out: edit(stage(name)(out), **{column: where(row, column, text)})


def twice(name):
    def act(out):
        table = pd.read_csv(stage(name)(out), dtype=str, keep_default_na=False)
        pd.concat([table, table[-1:]]).to_csv(stage(name)(out), index=False)
    return act


apg, first, real = lambda t: t.candidate == 'apg', lambda t: t.index == 0, lambda t: t.candidate == compare.REAL
SPOILT = { # what happened to the tables -> what the line of the error names
    'verdicts, no differences': (drop('differences'), 'contest_mnist-a_verdicts.csv.*no contest_mnist-a_differences.csv'),
    'differences, no verdicts': (drop('verdicts'), 'contest_mnist-a_differences.csv.*no contest_mnist-a_verdicts.csv'),
    'the same, at equal steps': (drop('differences_steps'), 'verdicts_steps.csv.*no contest_mnist-a_differences_steps.csv'),
    'no chosen strengths': (drop('chosen', 'chosen_exact'), 'contest_mnist-a_differences.csv'),
    'exact, no chosen strengths': (drop('chosen', 'differences', 'verdicts', 'differences_steps', 'verdicts_steps'), 'contest_mnist-a_chosen_exact.csv'),
    'a word that is no verdict': (change('verdicts', apg, 'verdict', 'best'), 'contest_mnist-a_verdicts.csv, verdict'),
    'a word that is no verdict, steps': (change('verdicts_steps', apg, 'verdict', ''), 'contest_mnist-a_verdicts_steps.csv, verdict'),
    'another verdict than that of the differences': (change('verdicts', lambda t: t.verdict == 'better', 'verdict', 'worse'), 'verdict of .*bear out'),
    'the same, steps': (change('verdicts_steps', lambda t: t.verdict == 'worse', 'verdict', 'better'), 'verdicts_steps.csv, verdict of'),
    'a verdict on nobody': (change('verdicts', apg, 'candidate', 'nobody'), 'contest_mnist-a_verdicts.csv, candidate'),
    'a verdict twice': (twice('verdicts'), 'contest_mnist-a_verdicts.csv'),
    'Holm is no number': (change('verdicts', apg, 'holm', 'nan'), 'contest_mnist-a_verdicts.csv, holm'),
    'a verdict without a difference in FID': (change('differences', apg, 'metric', 'kid'), 'verdict of apg'),
    'a difference of others': (change('differences', apg, 'difference', '-7.5'), 'contest_mnist-a_differences.csv, apg'),
    'a difference of others, steps': (change('differences_steps', apg, 'difference', '-7.5'), 'contest_mnist-a_differences_steps.csv, apg'),
    'a difference that is none': (change('differences', apg, 'difference', 'nan'), 'contest_mnist-a_differences.csv, apg'),
    'differences of another judge': (change('differences', apg, 'judge', 'mnist'), 'contest_mnist-a_differences.csv'),
    'a difference twice': (twice('differences'), 'contest_mnist-a_differences.csv'),
    'an unknown measure': (change('chosen', first, 'metric', 'beauty'), 'contest_mnist-a_chosen.csv, metric'),
    'an unknown measure in tuning': (change('first', first, 'metric', 'fid - plain guidance'), 'contest_mnist-a_first.csv, metric'),
    'an unknown measure of differences': (change('differences', apg, 'metric', 'beauty'), 'contest_mnist-a_differences.csv, metric'),
    'an unknown exact measure': (change('chosen_exact', apg, 'measure', 'fid'), 'contest_mnist-a_chosen_exact.csv, measure'),
    'exact measures of somebody else': (change('chosen_exact', apg, 'candidate', 'pag'), 'contest_mnist-a_chosen_exact.csv, pag'),
    'exact measures at another strength': (change('chosen_exact', apg, 'strength', '17'), 'contest_mnist-a_chosen_exact.csv, apg.*strength 17'),
    'exact measures of another seed': (change('chosen_exact', apg, 'seed', '2'), 'contest_mnist-a_chosen_exact.csv, apg.*seed 2'),
    'exact measures that are no numbers': (change('chosen_exact', apg, 'value', 'high'), 'contest_mnist-a_chosen_exact.csv, value'),
    'an exact strength that is no number': (change('chosen_exact', apg, 'strength', ''), 'contest_mnist-a_chosen_exact.csv, strength'),
    'an exact measure twice': (twice('chosen_exact'), 'contest_mnist-a_chosen_exact.csv'),
    'two chosen strengths': (change('chosen', first, 'strength', '1.125'), 'contest_mnist-a_chosen.csv, strength of cfg'),
    'a number twice': (twice('chosen'), 'contest_mnist-a_chosen.csv'),
    'pictures of another model': (change('chosen', apg, 'model', 'mnist-b'), 'contest_mnist-a_chosen.csv, model'),
    'evaluations that are no number': (change('chosen', first, 'nfe', ''), 'contest_mnist-a_chosen.csv, nfe'),
    'an endless strength': (change('first', apg, 'strength', 'inf'), 'contest_mnist-a_first.csv, strength'),
    'parameters that are none': (change('chosen', apg, 'parameters', 'abc'), 'row of apg'),
    'a scale that is none': (change('chosen', apg, 'scale', 'much'), 'apg'),
    'a plan of another kind': (lambda out: compare.plan_path('mnist-a', out).write_text('{"candidates": [{"name": "cfg"}]}'), 'contest_mnist-a_plan.json'),
    'a plan with words': (lambda out: compare.plan_path('mnist-a', out).write_text('{"candidates": "abc", "refused": 3}'), 'contest_mnist-a_plan.json')}


@pytest.fixture(scope='module')
def two(tmp_path_factory):
    "Tables with two techniques, to be copied and spoilt."
    return make_tables(tmp_path_factory.mktemp('two')/'tables', compare.SETS[:1], names=['cfg', 'cfgpp', 'apg', 'fdg'])


@pytest.mark.parametrize('kind', SPOILT)
def test_tables_that_do_not_belong_together_cost_one_line(tmp_path, two, kind):
    results = shutil.copytree(two, tmp_path/'t')
    compare.find_results(MNIST, results)
    act, words = SPOILT[kind]
    act(results)
    with pytest.raises(InputError) as e: compare.find_results(MNIST, results)
    assert re.search(words, str(e.value)) and '\n' not in str(e.value) and len(str(e.value)) < 500


def test_any_cell_that_is_spoilt_costs_one_line_or_is_not_shown(tmp_path, two):
    "Words in the place of what stood there, in some columns of every table: no other error than one line."
    rng = random.Random(5)
    for path in sorted(two.glob('*.csv')):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        for column in rng.sample(list(table), 3):
            spoilt = table.copy()
            spoilt.loc[rng.randrange(len(table)), column] = rng.choice(['', 'nan', 'inf', 'x', '-1', '1e999', '\u2212', '"', 'a,b', '[1]'])
            results = tmp_path/f'{path.stem}-{column}'
            shutil.copytree(two, results)
            spoilt.to_csv(results/path.name, index=False)
            try: found = compare.find_results(MNIST, results)
            except InputError as e:
                assert '\n' not in str(e)
                continue
            json.dumps([found.about, found.results], allow_nan=False)


def measured_with(two, tmp_path, *acts):
    results = shutil.copytree(two, tmp_path/'t')
    for act in acts: act(results)
    return made(results, tmp_path/'o')


def test_what_is_no_number_is_not_shown(tmp_path, two):
    "Not a mean over the others, not a zero."
    fid = lambda t: (t.candidate == 'apg') & (t.metric == 'kid') & (t.judge == 'mnist-fit')
    log = lambda t: (t.candidate == 'apg') & (t.measure == 'log_prob')
    data, _, text = measured_with(two, tmp_path, change('chosen', fid, 'value', 'nan'), change('chosen_exact', log, 'value', ''), change('chosen_exact', lambda t: real(t) & (t.measure == 'off'), 'value', 'inf'))
    found = of(data, 'apg')['results']['mnist']
    assert 'kid' not in found['judges']['mnist-fit'] and 'kid' in found['judges']['mnist-residual']
    assert list(found['exact']) == [m for m in pictures.MEASURES if m != 'log_prob'] and 'off' not in data['sets'][0]['real']
    long = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    assert long[(long.technique == 'apg') & (long.metric == 'log_prob')].empty and long[(long.technique == compare.REAL) & (long.metric == 'off')].empty


def test_a_mean_over_seeds_needs_all_of_them(tmp_path):
    results = make_tables(tmp_path/'t', compare.SETS[:1], names=['cfg', 'apg'], seeds=(1, 3))
    one = lambda t: (t.candidate == 'apg') & (t.measure == 'off') & (t.seed == '3')
    change('chosen_exact', one, 'value', 'nan')(results)
    found = compare.find_results(MNIST, results).results['apg']['exact']
    assert 'off' not in found and found['along'] == list(pictures.MEASURES).index('along') + 1.2
    table = pd.read_csv(stage('chosen_exact')(results), dtype=str, keep_default_na=False)
    table[table.seed != '3'].to_csv(stage('chosen_exact')(results), index=False)
    with pytest.raises(InputError, match='seed 1; to mend|strength .* seed 1'): compare.find_results(MNIST, results)


def test_half_of_the_exact_table(tmp_path, two):
    "A technique that it lacks is not measured there; nor are real images."
    def halve(out):
        table = pd.read_csv(stage('chosen_exact')(out), dtype=str, keep_default_na=False)
        table[table.candidate == 'cfg'].to_csv(stage('chosen_exact')(out), index=False)
    data, _, _ = measured_with(two, tmp_path, halve)
    assert of(data, 'apg')['results']['mnist']['exact'] == {} and len(of(data, 'cfg')['results']['mnist']['exact']) == len(pictures.MEASURES) and data['sets'][0]['real'] == {}


def test_one_rival_without_the_other(tmp_path, two):
    data, page, _ = measured_with(two, tmp_path, drop('differences_steps', 'verdicts_steps'))
    assert data['sets'][0]['compared'] == dict(evaluations=True, steps=False)
    assert 'Compared with plain guidance at equal evaluations' in page and 'Compared with plain guidance at equal steps' not in page
    assert set(of(data, 'apg')['results']['mnist']['against']) == {'evaluations'}


def test_numbers_of_tuning_do_not_stand_in_for_chosen_ones(tmp_path, two):
    "Who is lacking at the chosen strengths is not measured, though tuning has numbers of it."
    def lose(out):
        for name in ('chosen', 'chosen_exact', 'differences', 'verdicts', 'differences_steps', 'verdicts_steps'):
            table = pd.read_csv(stage(name)(out), dtype=str, keep_default_na=False)
            table[~apg(table)].to_csv(stage(name)(out), index=False)
    data, page, text = measured_with(two, tmp_path, lose)
    assert 'mnist' not in of(data, 'apg')['results'] and f'3 of {ALL} techniques are measured, at strengths chosen before' in page
    assert {o['results']['mnist']['state'] for o in data['techniques'] if 'mnist' in o['results']} == {'chosen'}


def test_a_technique_that_failed_at_the_chosen_strength(tmp_path, two):
    def fail(out):
        table = pd.read_csv(stage('chosen')(out), dtype=str, keep_default_na=False)
        lost = table[apg(table)][:1].assign(nfe='', judge='', metric='failed', value='', low='', high='')
        pd.concat([table[~apg(table)], lost]).to_csv(stage('chosen')(out), index=False)
        for name in ('chosen_exact', 'differences', 'verdicts', 'differences_steps', 'verdicts_steps'):
            table = pd.read_csv(stage(name)(out), dtype=str, keep_default_na=False)
            table[~apg(table)].to_csv(stage(name)(out), index=False)
    data, _, _ = measured_with(two, tmp_path, fail)
    assert of(data, 'apg')['results']['mnist'] == dict(state='failed')


def test_page_and_data_are_those_of_the_tables():
    "To mend: python tools/compare.py."
    files = compare.make_files(compare.RESULTS, compare.OUT, compare.PAGE)
    assert [p.name for p, text in files.items() if p.read_text(encoding='utf-8') != text] == [], 'to mend: python tools/compare.py'


def test_nothing_is_made_up():
    "Numbers stand on the page only where the tables have been measured."
    there = {o['name']: any(compare.table_of(w.model, k, compare.RESULTS).is_file() for k in (*compare.TUNING, 'chosen')) for o, w in zip(NOW['sets'], compare.SETS)}
    for name, measured in there.items(): assert any(o['results'].get(name, {}).get('judges') for o in NOW['techniques']) == measured
    if not any(there.values()): assert 'The runs are under way' in TEXT and NOW['edition'] == '' and not list(DATA.rglob('*.png'))


@pytest.mark.parametrize('which', compare.SETS, ids=lambda w: w.name)
def test_who_was_drawn_again(which, tmp_path):
    "Every later round stands on the page, with its gains and with the verdicts after it; where there is none, the page says so."
    assert compare.drawn_again(which, tmp_path) == {}
    found, tables = NOW['again'][which.name], read_standings(which.model, compare.RESULTS)
    section = TEXT[TEXT.index('<!-- begin again -->'):TEXT.index('<!-- end again -->')]
    assert (f'**{which.title}:** nobody was drawn again' in section) == (found == {}) == (tables.later() == [])
    assert list(found) == [name for name in ('full', 'final', 'second') if getattr(tables, name)]
    rounds = {name: (tables.until(name), getattr(tables, name)) for name in found}
    for name, own in found.items():
        until, drawn = rounds[name]
        names = [row['name'] for row in own['techniques']]
        assert names == drawn.leaders().index.tolist() and f'**{which.title}, {compare.ROUNDS[name]}:** {len(names)} techniques' in section
        gains = drawn.gains().set_index(['candidate', 'judge'])
        for row in own['techniques']:
            assert row['verdicts'] == {r.name: until.verdict(row['name'], r.name) for r in compare.RIVALS}
            assert f'| {row["title"]} (`{row["name"]}`) |'.replace('*', r'\*') in section
            for judge, (gain, low, high) in row['gains'].items():
                assert low <= gain <= high and gain == pytest.approx(gains.gain[row['name'], judge], rel=1e-3, abs=1e-3)


@pytest.mark.parametrize('which', compare.SETS, ids=lambda w: w.name)
def test_the_last_round_has_the_last_word(which):
    "In the table that is sorted too, though its numbers are of the first round."
    tables = read_standings(which.model, compare.RESULTS)
    for rival in compare.RIVALS:
        said = {o['name']: own['verdict'] for o in NOW['techniques'] if (own := o['results'].get(which.name, {}).get('against', {}).get(rival.name, {})).get('verdict')}
        words = tables.words(rival.name).to_dict()
        assert said == words
        first = tables.verdicts[rival.name].set_index('candidate').verdict.to_dict()
        assert not tables.final or words != first, 'the finals have changed a word'


def test_what_is_said_of_infinitely_many_pictures():
    "The gain of the first in the finals is more than twice as large under two judges."
    tables = read_standings('mnist-a', compare.RESULTS)
    first = tables.leaders().index[0]
    rows = pd.read_csv(compare.RESULTS/'contest_mnist-a_final_infinite.csv').query("metric == 'fid_infinite' and rival == 'evaluations' and evaluations == 24")
    rows = rows[rows.candidate == first].set_index('judge')
    gains = tables.final.gains()
    few = gains[gains.candidate == first].set_index('judge').gain
    many = -100*rows.difference/(rows.value - rows.difference)
    assert (many/few > 2).sum() == 2 and 'more than twice as large under two judges' in TEXT


# Pictures

@pytest.fixture
def pictured(tmp_path):
    "Images that were kept, for some techniques, and the tables."
    results, folder = make_tables(tmp_path/'t', compare.SETS[:1], 'tuned chosen', ['cfg', 'apg', 'fbg', 'cfg+pag'], seeds=(3,)), tmp_path/'images'
    folder.mkdir()
    measured, rng, images = compare.find_results(compare.SETS[0], results), np.random.default_rng(0), {}
    for name, (point, *_) in measured.points.items():
        y = torch.arange(10).repeat_interleave(100)
        x = torch.from_numpy(rng.integers(0, 255, (1000, 1, 28, 28), dtype=np.uint8))
        images[name] = x.numpy()
        keep(Drawn(x, y, 24., (1., 1., 1.), 1.), keep_path(folder, point, fingerprints([point])[point.model]))
    return tmp_path, results, folder, images


def test_pictures_are_cut_from_the_images_that_were_kept(pictured):
    out, results, folder, images = pictured
    data, _, _ = made(results, out/'o', folder)
    note = json.loads((out/'o'/'pictures.json').read_text())
    assert note['mnist'] == dict(samples=1000, seed=3, noises=2, strengths={k: of(data, k)['results']['mnist']['strength'] for k in images})
    for name, x in images.items():
        found = np.asarray(Image.open(out/'o'/'mnist'/f'{compare.slug(name)}.png'))
        want = np.concatenate([np.concatenate([x[100*k + j, 0] for k in range(10)], 1) for j in (0, 1)])
        assert (found == want).all() and of(data, name)['results']['mnist']['picture']
    assert [o['name'] for o in data['techniques'] if o['results'].get('mnist', {}).get('picture')] == [k for k in [c.name for c in candidates('mnist-weak')] if k in images]


def test_a_picture_of_another_strength_is_not_shown(pictured):
    out, results, folder, _ = pictured
    made(results, out/'o', folder)
    make_tables(results, compare.SETS[:1], 'chosen', ['cfg', 'apg'], seeds=(3,), best=1)
    data, _, _ = made(results, out/'o')
    assert not any(o['results'].get('mnist', {}).get('picture') for o in data['techniques'])


def test_pictures_that_are_too_large_are_refused_and_the_old_ones_stay(pictured, monkeypatch):
    out, results, folder, _ = pictured
    made(results, out/'o', folder)
    before = {p: p.read_bytes() for p in (out/'o').rglob('*.*')}
    monkeypatch.setattr(compare, 'LIMIT', 1000)
    with pytest.raises(InputError, match='at most 1000'): made(results, out/'o', folder)
    assert {p: p.read_bytes() for p in (out/'o').rglob('*.*') if p.name != 'page.qmd'} == {p: v for p, v in before.items() if p.name != 'page.qmd'}


def keep_all(folder, points, wanted=lambda name, point: True):
    "Pictures of points, of which each tells its seed by its grey: 50 times it, and which of them it is."
    y = torch.arange(10).repeat_interleave(100)
    for path in folder.iterdir(): path.unlink()
    for k, (name, point) in enumerate((n, p) for n, own in points.items() for p in own if wanted(n, p)):
        keep(Drawn(torch.full((1000, 1, 28, 28), 50*point.seed + k, dtype=torch.uint8), y, 24., (1., 1., 1.), 1.), keep_path(folder, point, fingerprints([point])[point.model]))


def seeds_of(out): return {p.stem: int(np.asarray(Image.open(p)).max())//50 for p in (out/'mnist').iterdir()}


def test_pictures_are_those_of_the_numbers(pictured):
    "All were drawn to tune, and again at the chosen strengths: these are shown, even where there are fewer of them."
    out, results, folder, images = pictured
    points = compare.find_results(MNIST, results).points
    assert {k: [(p.num, p.seed) for p in own] for k, own in points.items()} == {k: [(1000, 3), (1000, 0)] for k in images}
    for wanted, names in ((lambda n, p: True, set(images)), (lambda n, p: p.seed == 0 or n != 'apg', set(images) - {'apg'})):
        keep_all(folder, points, wanted)
        data, _, _ = made(results, out/'o2', folder)
        note = json.loads((out/'o2'/'pictures.json').read_text())['mnist']
        assert (note['samples'], note['seed']) == (1000, 3) and set(note['strengths']) == names
        assert seeds_of(out/'o2') == {compare.slug(n): 3 for n in names}
        assert {o['name'] for o in data['techniques'] if o['results'].get('mnist', {}).get('picture')} == names


def test_pictures_of_tuning_are_shown_until_there_are_others(pictured):
    out, results, folder, images = pictured
    keep_all(folder, compare.find_results(MNIST, results).points, lambda n, p: p.seed == 0)
    made(results, out/'o2', folder)
    note = json.loads((out/'o2'/'pictures.json').read_text())['mnist']
    assert (note['samples'], note['seed']) == (1000, 0) and seeds_of(out/'o2') == {compare.slug(n): 0 for n in images}


@pytest.mark.parametrize('name', ['cfg, ancestral', 'cfg, ddim', 'interval, middle', 'apg', 'cfg+slg', 'cfgpp', 'restart', 'best_of_n', 'fk'])
def test_the_same_seed_is_the_same_noise(monkeypatch, name):
    "What the first evaluation of the network sees, whatever the technique, its sampler, its steps and its strength; those that draw several pictures see more."
    from cfg_course import samplers, sweeps
    class Enough(BaseException): pass
    def watched(told, x, sigma, y):
        seen.append((x.clone(), y.clone()))
        raise Enough
    monkeypatch.setattr(samplers.Told, '__call__', watched)
    known, seen = {c.name: c for c in candidates('digits')}, []
    for k, who in enumerate(('cfg', name)):
        point = known[who].point(known[who].values[1 + k], model='digits', num=10, seed=3)
        sampling = dict(point.sampling) | dict(steps=8 + k)
        with pytest.raises(Enough): sweeps.draw_point(point._replace(sampling=tuple(sampling.items())), batch_size=10)
    (x, y), (other, labels) = seen
    assert x.shape == (10, 1, 8, 8) and y.tolist() == list(range(10))
    near = (other[:, None] - x).abs().amax((2, 3, 4)) < 1e-3
    assert all(y[i] in labels[near[:, i]] for i in range(10)) and near.sum(1).max() == 1


def test_a_photograph_keeps_its_colours():
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 255, (40, 3, 16, 16), dtype=np.uint8), np.repeat(np.arange(10), 4)
    found = np.asarray(Image.open(io.BytesIO(compare.as_png(compare.cut(x, y)))))
    assert found.shape == (32, 160, 3) and (found[16:, 16:32] == x[5].transpose(1, 2, 0)).all()


def test_sizes():
    assert sum(p.stat().st_size for p in DATA.rglob('*.png')) <= compare.LIMIT and SCRIPT.stat().st_size < 40_000


@pytest.mark.parametrize('arguments', [['--check', '--images', 'x'], ['--images', 'no-such-folder']])
def test_commands_that_are_refused(arguments):
    with pytest.raises(SystemExit) as e: compare.main(arguments)
    assert str(e.value).startswith('compare.py: --images')


# The script

def run_js(code, data=NOW, tmp=None):
    "What `code` returns as JSON, with the page's functions in `C` and the data in `data`."
    script = f'const C = require({json.dumps(str(SCRIPT))}), data = JSON.parse(require("fs").readFileSync(0)); console.log(JSON.stringify((() => {{ {code} }})()))'
    done = subprocess.run(['node', '-e', script], input=json.dumps(data), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_node
def test_sorting(whole):
    "Each column in both directions: plain guidance first, numbers in order, what has none last."
    data = json.loads(json.dumps(whole[1]))
    for k, o in enumerate(data['techniques']):
        if k % 7 == 3: o['results'] = {}
    found = run_js('return Object.fromEntries(C.COLUMNS.flatMap(c => [c, "-" + c]).map(s => [s, C.chosen(data, {...C.usual(data), sort: s}).map(o => o.name)]))', data)
    order = dict(better=0, undecided=1, worse=2)
    def key(name, column):
        o, r = of(data, name), of(data, name)['results'].get('mnist', {})
        if column.startswith('judge'): return r['judges'][data['sets'][0]['judges'][int(column[5:])]['name']]['fid'][0] if r else None
        return {'strength': r.get('strength'), **{c: order.get(r.get('against', {}).get(k, {}).get('verdict')) for c, k in (('verdict', 'evaluations'), ('steps', 'steps'))}, 'kind': compare.KINDS[o['kind']]}.get(column, o.get(column)) if column in ('strength', 'verdict', 'steps', 'kind') else o[column]
    for sort, names in found.items():
        keys = [key(n, sort.strip('-')) for n in names]
        assert names[0] == 'cfg' and sorted(names) == sorted(o['name'] for o in data['techniques'])
        known = [k for k in keys[1:] if k is not None]
        assert keys[1:] == known + [None]*(len(keys) - 1 - len(known))
        if isinstance(known[0], str): known = [(k.lower() or 'nothing more')[0] for k in known]
        assert known == sorted(known, reverse=sort[0] == '-'), sort


@needs_node
def test_filters_and_search(whole):
    data = whole[1]
    ask = lambda **state: run_js(f'return C.chosen(data, {{...C.usual(data), ...{json.dumps(state)}}}).map(o => o.name)', data)
    everybody = data['techniques'][1:]
    for kind in {o['kind'] for o in everybody}: assert ask(kind=kind) == ['cfg', *(o['name'] for o in everybody if o['kind'] == kind)]
    for tag in {t for o in everybody for t in o['tags']}: assert ask(needs=tag) == ['cfg', *(o['name'] for o in everybody if tag in o['tags'])]
    said = lambda o, rival: o['results']['mnist']['against'][rival]['verdict']
    for verdict in compare.VERDICTS:
        assert ask(verdict=verdict) == ['cfg', *(o['name'] for o in everybody if said(o, 'evaluations') == verdict)]
        assert ask(steps=verdict) == ['cfg', *(o['name'] for o in everybody if said(o, 'steps') == verdict)]
    assert ask(verdict='better', steps='better') == ['cfg'] and ask(verdict='better', steps='worse') == ask(verdict='better')
    assert ask(search='KYNKÄÄNNIEMI 2024') == ['cfg', 'interval, middle', 'interval, all but low']
    assert ask(search='cfg-zero*') == ['cfg', 'cfg_zero'] and ask(search='.*') == ask(search='no such thing') == ['cfg'] and 'apg' in ask(search='  projected ')
    assert len(ask(search='')) == len(everybody) + 1 and ask(search='attention top', kind='term')[1:] == [o['name'] for o in everybody if o['kind'] == 'term' and 'attention' in o['title'] + o['needs']]


HOSTILE = ['', '#', '#data', '#data=', '#data=mnist&', '#data=mnist&data=mnist', '#data=MNIST', '#data=cifar', '#measure=isc', '#kind=__proto__', '#__proto__=mnist',
           '#constructor=all', '#sort=price', '#sort=--fid', '#a=nobody', '#a=cfg=b', '#search=%E0%A4%A', '#search=%00', '#search=' + 'x'*41, '#judge=3', '#judge=-1', '#up=__proto__',
           '#data=mnist&evil=1', '#how-to-read-the-table', '#a=<script>alert(1)</script>', '#toString=1', '#search=a%0Ab', '#hasOwnProperty=x', '#' + 'data=mnist&'*300, '#sort=judge3',
           '?data=photographs', '#data=photographs#kind=rule', '#kind=rule&needs=teapot']


@needs_node
def test_addresses():
    "What an address says is what is shown, and whatever else stands there opens the usual state: all of it, not a part."
    states = [dict(), dict(data='photographs'), dict(measure='recall', kind='term', needs='several', verdict='worse', sort='-year'), dict(steps='better', sort='-steps'), dict(a='cfg+pag', b='interval, all but low'),
              dict(search='a & b=c #%'), dict(search='Ä ö 中'), dict(across='cost', up='fid', judge='2'), dict(sort='judge1', a='apg', b='apg')]
    usual, there, other, long = run_js(f'''for (const o of data.sets) o.compared = {{evaluations: true, steps: true}}
        const all = {json.dumps(states)}.map(o => ({{...C.usual(data), ...o}}))
        return [C.usual(data), all.map(o => C.asked(C.address(o, data), data)), {json.dumps(HOSTILE)}.map(h => C.asked(h, data)), C.address(C.usual(data), data)]''')
    assert there == [usual | o for o in states] and other == [usual]*len(HOSTILE) and long == '#'


@needs_node
def test_a_verdict_is_asked_for_only_where_there_are_some(whole):
    data = json.loads(json.dumps(whole[1]))
    data['sets'][1]['compared'] = dict(evaluations=False, steps=True)
    asked = ['#verdict=worse', '#data=photographs&verdict=worse', '#data=photographs', '#data=photographs&steps=worse', '#data=photographs&steps=best']
    found = run_js(f'return {asked}.map(h => C.asked(h, data)).map(s => [s.data, s.verdict, s.steps])', data)
    assert found == [['mnist', 'worse', 'all'], ['mnist', 'all', 'all'], ['photographs', 'all', 'all'], ['photographs', 'all', 'worse'], ['mnist', 'all', 'all']]


@needs_node
def test_words():
    found = run_js('''const state = C.usual(data), left = C.chosen(data, state)
        return [C.spelled(6.2149, 'fid'), C.spelled(.84123, 'recall'), C.spelled(1234.5, 'fid'), C.spelled(-1.5), C.spelled(null), C.between([2, 1.5, null], 'fid'), C.between([.9, .85, .95], 'recall'), C.between([-1, -2, 1]),
          C.says(data, state, left), C.says(data, {...state, sort: '-year'}, left.slice(0, 3)), C.says(data, state, left.slice(0, 1)), C.says(data, state, left.slice(0, 2)), ['year', '-year', ''].map(s => C.turned(s, 'year')), C.turned('cost', 'year')]''')
    assert found == ['6.21', '84.1 %', '1235' if found[2] == '1235' else '1234', '\u22121.5', '', '', '85.0 to 95.0 %', '\u22122 to 1', f'All {ALL - 1} techniques. Plain guidance stands first.',
        f'2 of {ALL - 1} techniques are left, sorted by year, falling. Plain guidance stands first.', f'None of {ALL - 1} techniques is left. Plain guidance stands first.', f'1 of {ALL - 1} techniques is left. Plain guidance stands first.', ['-year', '', 'year'], 'year']


@needs_node
def test_the_front_is_the_front():
    "Against the definition, with ties, in all directions; none where better has no direction."
    rng = random.Random(4)
    points = [dict(name=str(k), x=[rng.randint(0, 12)], y=[rng.randint(0, 12)], several=k % 9 == 0) for k in range(60)]
    for ways in (['lower', 'lower'], ['higher', 'higher'], ['lower', 'higher']):
        sign = [1 if w == 'lower' else -1 for w in ways]
        cost = {o['name']: (sign[0]*o['x'][0], sign[1]*o['y'][0]) for o in points if not o['several']}
        want = {n for n, v in cost.items() if not any(w[0] <= v[0] and w[1] <= v[1] and w != v for w in cost.values())}
        assert set(run_js(f'return C.front({json.dumps(points)}, {json.dumps(ways)})')) == want
    assert run_js(f'return C.front({json.dumps(points)}, ["real", "lower"])') == []


@needs_node
def test_what_is_far_from_the_rest_is_left_out():
    "By the definition, on either axis; a cost that most have makes nobody far."
    rng = random.Random(3)
    points = [dict(name=str(k), x=[rng.gauss(0, 1)], y=[rng.gauss(5, .1)]) for k in range(41)]
    points += [dict(name='left', x=[-40], y=[5]), dict(name='high', x=[0], y=[9]), dict(name='both', x=[99], y=[0])]
    low, high = ([sorted(o[axis][0] for o in points)[round(share*(len(points) - 1))] for axis in 'xy'] for share in (.25, .75))
    inside = lambda o: all(a - 3*(b - a) <= o[axis][0] <= b + 3*(b - a) for axis, a, b in zip('xy', low, high))
    found = run_js(f'return C.near({json.dumps(points)})')
    assert found == [o['name'] for o in points if inside(o)] and not {'left', 'high', 'both'} & set(found) and len(found) > 35
    same = [dict(o, y=[2 if k % 9 else 8]) for k, o in enumerate(points)]
    assert {'high'} <= set(run_js(f'return C.near({json.dumps(same)})')) and run_js('return C.near([])') == []


@needs_node
@pytest.mark.parametrize('values', [[1, 2, 3], [5, 5], [.001, 400], [-3, -2.5, 8], [0, 1e-9], [1e6, 2e6], [.93, .97, .95]])
def test_axes_hold_all_values_and_have_marks(values):
    at, marks, places = run_js(f'const a = C.axis({values}, 50, 650); return [{values}.map(a.at), a.marks, a.marks.map(a.at)]')
    assert all(50 <= v <= 650 for v in at) and 2 <= len(set(marks)) <= 12 and all(45 <= p <= 655 for p in places)
    assert all((p <= q) == (a <= b) for p, a in zip(at, values) for q, b in zip(at, values))


@needs_node
def test_a_finger_means_the_nearest_dot():
    assert run_js('return [C.nearest([{x: 0, y: 0}, {x: 10, y: 0}], 7, 1, 28), C.nearest([{x: 0, y: 0}], 30, 0, 28)]') == [dict(x=10, y=0), None]


@needs_node
def test_what_the_plot_can_show(whole):
    both = [run_js('const s = C.usual(data), {choice, now} = C.axesOf(data, s); return [choice, now, C.dots(data, s, now).length]', d) for d in (NOW, whole[1])]
    if not any(o['results'] for o in NOW['techniques']): assert both[0][0] == [] and both[0][2] == 0
    assert both[1][1] == ['recall', 'precision'] and both[1][2] == len(whole[1]['techniques']) and {'fid', 'cost', 'effective'} <= set(both[1][0])


# The page

class Tags(HTMLParser):
    "All tags of a text with their attributes."
    def __init__(self, text): super().__init__(); self.found = []; self.feed(text)
    def handle_starttag(self, tag, attrs): self.found.append((tag, dict(attrs)))


TAGS = Tags(RAW).found


def test_the_table_stands_without_javascript(whole):
    for data, page in ((NOW, TEXT), (whole[1], whole[2])):
        still = page[page.index('<!-- begin table -->'):page.index('<!-- end table -->')]
        rows = re.findall(r'<tr><th scope="row">(.*?) <code>(.*?)</code>(?:<br>[^<]*)?</th>(.*)</tr>', still)
        assert [n.replace('&amp;', '&') for _, n, _ in rows] == [o['name'] for o in data['techniques']]
        assert all(len(re.findall('<td', rest)) == 4 + len(data['sets']) for *_, rest in rows)
    best = of(whole[1], 'apg')['results']['mnist']['judges']
    line = re.search(r'<code>apg</code>.*', whole[2])[0]
    assert ' / '.join(compare.spelled(o['fid'][0]) for o in best.values()) in line and '<b>' in line


def test_controls_are_hidden_until_they_work():
    assert all('hidden' in o for _, o in TAGS if 'data-live' in o) and not any('hidden' in o for _, o in TAGS if 'data-still' in o)
    live = RAW[RAW.index('data-live'):]
    assert all(tag in live and tag not in RAW[:RAW.index('data-live')] for tag in ('<select', '<input', '<button', '<svg'))


def test_every_part_that_the_script_asks_for_is_there():
    text = SCRIPT.read_text(encoding='utf-8')
    parts = set(re.findall(r'data-part="([\w-]+)"', RAW))
    asked = set(re.findall(r"el\('([\w-]+)'\)", text)) | {f'{p}-{k}' for p in ('pick', 'side', 'to') for k in 'ab'} | {'data', 'measure', 'kind', 'needs', 'across', 'up', 'verdict', 'steps', 'sort'}
    assert asked - parts == set() and parts - asked == {'scroll', 'two'}
    assert 'innerHTML' not in text and 'eval(' not in text and not re.search(r'https?://(?!www\.w3\.org)', text)


def test_controls_have_words_and_regions_can_be_reached():
    for tag, o in TAGS:
        if tag == 'div' and 'compare-scroll' in (o.get('class') or ''): assert o['tabindex'] == '0' and o['role'] == 'region' and len(o['aria-label']) > 10
        if tag in ('section', 'svg'): assert o['aria-label']
    assert len(re.findall(r'<label[^>]*>[^<]+<(?:select|input)', RAW)) == len(re.findall(r'<(?:select|input)\b', RAW)) == 14
    assert len(re.findall(r'aria-live="polite"', RAW)) == 2


def test_where_it_stands():
    site = (ROOT/'_quarto.yml').read_text(encoding='utf-8')
    assert {'theme/compare.js', 'theme/compare.css', 'compare'} <= set(re.search(r'resources: \[(.*)\]', site)[1].split(', '))
    side = re.findall(r'- (?:\{.*href: )?([\w.]+\.(?:qmd|ipynb))', (NBS_DIR/'sidebar.yml').read_text(encoding='utf-8'))
    assert side.index('compare.qmd') == side.index('play.qmd') + 1 and '{text: Compare, href: compare.qmd}' in site
    import serve
    assert 'compare' in serve.LIVE and 'compare' in serve.CARRIED
    for name in ('theme/compare.js', 'theme/compare.css', 'compare/compare.json', 'compare/compare.csv'): assert (NBS_DIR/name).is_file() and name in TEXT


def test_how_to_cite(whole):
    for data, page in ((NOW, TEXT), (whole[1], whole[2])):
        entry = page[page.index('@misc{'):]
        assert 'https://cfg-course.github.io/cfg_course/compare.html' in entry and entry.count('{') == entry.count('}')
        assert (f'edition {data["edition"]}' if data['edition'] else 'before its tables were measured') in entry


def test_questions_lead_here():
    asked = json.loads((NBS_DIR/'theme'/'asked.json').read_text(encoding='utf-8'))
    assert len(asked['compare']) > 3


# In a browser: `pytest -m slow tests/test_compare_page.py`

import serve, visit # noqa: E402


@pytest.fixture
def browser(whole, tmp_path):
    "The page with tables that are made up, in a headless browser: (browser, address of its folder, the folder)."
    import tempfile
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread
    if not any(map(shutil.which, visit.BROWSERS)) and not os.environ.get('BROWSER_BIN'): pytest.skip('no Chromium here')
    live = tmp_path/'live'
    live.mkdir()
    try: serve.assemble(live)
    except SystemExit: pytest.skip('no Pandoc here')
    _, data, page, text = whole
    table = page[page.index('<!-- begin table -->'):page.index('<!-- end table -->')]
    built = (live/'compare.html').read_text(encoding='utf-8')
    (live/'compare.html').write_text(re.sub(r'<!-- begin table -->.*?(?=<!-- end table -->)', lambda m: table, built, flags=re.S), encoding='utf-8')
    (live/'compare').unlink()
    (live/'compare').mkdir()
    (live/'compare'/'compare.json').write_text(json.dumps(data), encoding='utf-8')
    handler = type('Quiet', (SimpleHTTPRequestHandler,), dict(log_message=lambda *a: None))
    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(handler, directory=str(live)))
    Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        b = visit.Browser(profile)
        try:
            b.attach(), b.dress((1200, 900)), b.call('Network.setCacheDisabled', cacheDisabled=True)
            yield b, f'http://127.0.0.1:{server.server_port}/compare.html', live
        finally: b.close(), server.shutdown()


def load(b, url):
    for address in ('about:blank', url):
        b.events = []
        b.call('Page.navigate', url=address)
        b.wait('Page.loadEventFired')


def go(b, url):
    "Open a page anew, and wait for its table; a fragment alone would not load it."
    load(b, url)
    b.value("(async () => { for (let k = 0; k < 100 && document.querySelector('[data-live]').hidden; k++) await new Promise(f => setTimeout(f, 50)); await new Promise(f => setTimeout(f, 400)) })()")
    bad = [e for e in b.events if e.get('method') == 'Runtime.exceptionThrown' or e.get('method') == 'Runtime.consoleAPICalled' and e['params']['type'] == 'error']
    assert not bad, bad


def press(b, *keys):
    codes = dict(Enter=13, Tab=9, ArrowRight=39, ArrowLeft=37, Home=36, End=35)
    for key in keys:
        more = dict(key=key, code=key, windowsVirtualKeyCode=codes[key], text='\r' if key == 'Enter' else '')
        b.call('Input.dispatchKeyEvent', type='keyDown', **more), b.call('Input.dispatchKeyEvent', type='keyUp', **more)


NAMES = "[...document.querySelectorAll('[data-part=rows] tr')].map(e => e.dataset.name)"
SAYS = "(async () => { await new Promise(f => setTimeout(f, 500)); return document.querySelector('[data-part=says]').textContent })()"


@pytest.mark.slow
def test_in_a_browser(whole, browser):
    (b, url, live), data = browser, whole[1]
    go(b, url)
    assert b.value(NAMES) == [o['name'] for o in data['techniques'][:25]] and b.value(SAYS) == f'All {ALL - 1} techniques. Plain guidance stands first.'
    # A header by keyboard: it sorts, keeps the focus, and says so
    b.value("document.querySelector('[data-column=judge0] button').focus()")
    press(b, 'Enter')
    assert b.value("document.activeElement.closest('th').getAttribute('aria-sort')") == 'ascending' and 'sorted by FID, plain network, rising' in b.value(SAYS)
    want = run_js('return C.chosen(data, {...C.usual(data), sort: "judge0"}).map(o => o.name)', data)
    assert b.value(NAMES) == want[:25] and b.value('location.hash') == '#sort=judge0'
    press(b, 'Enter')
    assert b.value("document.activeElement.closest('th').getAttribute('aria-sort')") == 'descending'
    b.value("document.querySelector('[data-part=more]').focus()")
    press(b, 'Enter')
    assert len(b.value(NAMES)) == ALL and b.value("document.activeElement.closest('tr').dataset.name") == b.value(NAMES)[25]
    # Search and filter
    b.value("(() => { const e = document.querySelector('[data-part=search]'); e.value = 'autoguidance'; e.dispatchEvent(new Event('input')) })()")
    assert b.value(SAYS).startswith(f'{len(b.value(NAMES)) - 1} of {ALL - 1} techniques are left, sorted by') and b.value(NAMES)[0] == 'cfg'
    b.value("document.querySelector('[data-part=reset]').click()")
    b.value("(() => { const e = document.querySelector('[data-part=kind]'); e.value = 'term'; e.dispatchEvent(new Event('change')) })()")
    assert b.value(NAMES)[1:] == [o['name'] for o in data['techniques'] if o['kind'] == 'term']
    # Two side by side
    b.value("(() => { document.querySelector('[data-name=\"cfg+pag\"] .pick button').click(); document.querySelector('[data-name=\"cfg+slg\"] .pick button + button').click() })()")
    assert b.value("[...document.querySelectorAll('.compare-pair figcaption b')].map(e => e.textContent)") == [of(data, k)['title'] for k in ('cfg+pag', 'cfg+slg')]
    assert 'is second of the two' in b.value(SAYS) and b.value("[...document.querySelectorAll('[aria-pressed=true]')].length") >= 2
    # The plot: a finger beside a dot, then arrows
    spot = b.value("(() => { document.querySelector('[data-part=svg]').scrollIntoView(); const r = document.querySelector('.dot').getBoundingClientRect(); return [r.x + 10, r.y + 8] })()")
    for kind in ('mousePressed', 'mouseReleased'): b.call('Input.dispatchMouseEvent', type=kind, x=spot[0], y=spot[1], button='left', clickCount=1)
    tapped = "document.querySelector('.dot.tapped')?.dataset.name"
    first = b.value(tapped)
    assert first and of(data, first)['title'] in b.value("document.querySelector('[data-part=tapped]').textContent")
    b.value("document.querySelector('.dot[tabindex=\"0\"]').focus()")
    press(b, 'End')
    last = b.value(tapped)
    press(b, 'ArrowLeft')
    assert len({first, last, b.value(tapped)}) >= 2 and b.value("document.activeElement.dataset.name") == b.value(tapped)
    press(b, 'Enter')
    assert b.value("document.querySelector('[data-part=pick-b]').value") == b.value(tapped)
    # Addresses
    go(b, url + '#data=photographs&sort=-year&kind=rule')
    assert b.value("document.querySelector('[data-part=data]').value") == 'photographs' and b.value("document.querySelector('[data-column=year]').getAttribute('aria-sort')") == 'descending'
    for hash in ('#data=photographs&sort=price', '#kind=__proto__', '#how-to-read-the-table', '#search=%E0%A4%A'):
        go(b, url + '?data=photographs' + hash)
        assert b.value(SAYS) == f'All {ALL - 1} techniques. Plain guidance stands first.' and b.value("document.querySelector('[data-part=data]').value") == 'mnist'
    # Both verdicts, and what the exact world says of two and of real images
    go(b, url + '#steps=better&a=apg&b=pag')
    assert b.value(NAMES)[1:] == [o['name'] for o in data['techniques'][1:] if o['results']['mnist']['against']['steps']['verdict'] == 'better'][:24]
    assert b.value("document.querySelector('[data-part=steps]').checkVisibility() && document.querySelector('[data-part=steps]').value") == 'better'
    rows = b.value("[...document.querySelectorAll('[data-part=exact-rows] tr')].map(e => [e.querySelector('th[scope=row] small').textContent, ...[...e.querySelectorAll('td')].map(o => o.textContent)])")
    both = [of(data, k)['results']['mnist']['exact'] for k in ('apg', 'pag')]
    assert rows == [[m.words, *(run_js(f'return C.spelled({o[k]})') for o in (*both, data['sets'][0]['real']))] for k, m in pictures.MEASURES.items()]
    assert b.value("[...document.querySelectorAll('[data-part=exact-head] th[scope=col]')].map(e => e.textContent)")[1:] == [of(data, 'apg')['title'], of(data, 'pag')['title'], 'real images']
    said = b.value("document.querySelector('[data-part=numbers]').textContent")
    assert all(r.words in said and f'FID minus that of plain guidance {r.title}' in said for r in compare.RIVALS) and 'mean effective scale1.51.4 to 1.6' in said
    # A phone
    b.dress((390, 844))
    go(b, url)
    assert b.value('document.documentElement.scrollWidth') <= 390
    assert b.value("[...document.querySelectorAll('.compare-two .compare-scroll')].every(e => e.scrollWidth <= e.clientWidth)")
    b.value("(() => { const e = document.querySelector('[data-part=sort]'); e.value = '-year'; e.dispatchEvent(new Event('change')) })()")
    years = [of(data, n)['year'] for n in b.value(NAMES)[1:]]
    assert years == sorted(years, reverse=True) and b.value("document.querySelector('[data-part=sort]').checkVisibility()")
    # Without the data, and without JavaScript, the table of the page stands
    (live/'compare'/'compare.json').write_text('{"sets": []}')
    load(b, url)
    still = "document.querySelector('[data-still]').checkVisibility() && !document.querySelector('[data-live]').checkVisibility() && document.querySelectorAll('[data-still] tbody tr').length"
    assert b.value(f'(async () => {{ await new Promise(f => setTimeout(f, 1500)); return {still} }})()') == ALL and b.value('document.documentElement.scrollWidth') <= 390
    b.call('Emulation.setScriptExecutionDisabled', value=True)
    load(b, url)
    assert b.value(still) == ALL
