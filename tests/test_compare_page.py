"The page that compares techniques: its data are those of the tables, its table can be sorted, filtered and searched, and it stands without any of that."
import io, json, math, os, random, re, shutil, subprocess, sys
from html.parser import HTMLParser

import numpy as np, pandas as pd, pytest, torch
from PIL import Image

from cfg_course.catalogue import list_families
from cfg_course.contests import OUT, candidates, head_of, Entry
from cfg_course.core import InputError
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


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    "A contest of which everything is measured: (folder of tables, data, page, CSV)."
    out = tmp_path_factory.mktemp('whole')
    results = make_tables(out/'tables')
    return results, *made(results, out/'data')


def test_what_compares_does_not_tune(whole):
    "The rows of the chosen strengths come from other noise and do not go into the curves of tuning."
    first, finer, chosen = (compare.read_table(compare.table_of('mnist-a', k, whole[0]), compare.MEASURED) for k in ('first', 'finer', 'chosen'))
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
        rows = rows[rows.judge != '']
        for o in rows.sample(200, random_state=3).to_dict('records'):
            want = [float(f'{float(o[k]):.4g}') for k in ('value', 'low', 'high')]
            assert of(data, o['candidate'])['results'][which.name]['judges'][o['judge']][o['metric']] == pytest.approx(want, rel=2e-3)
            line = long[(long.set == which.name) & (long.technique == o['candidate']) & (long.judge == o['judge']) & (long.metric == o['metric'])]
            assert len(line) == 1 and [float(line.iloc[0][k]) for k in ('value', 'low', 'high')] == pytest.approx(want, rel=2e-3)
        assert len(long[long.set == which.name]) == len(rows)
    assert 'NaN' not in json.dumps(data) and len(data['edition']) == 8


def test_verdicts_and_differences_are_taken_over(whole):
    _, data, page, _ = whole
    found = of(data, 'apg')['results']['mnist']
    assert found['verdict'] in compare.VERDICTS and found['holm'] == .2 and found['differences']['mnist-fit']['fid'] == [-1.5, -2.5, -.5, .003]
    assert 'verdict' not in of(data, 'cfg')['results']['mnist']
    counts = [sum(o['results']['mnist'].get('verdict') == v for o in data['techniques']) for v in ('better', 'worse', 'undecided')]
    assert sum(counts) == len(data['techniques']) - 1 and '{} are better, {} worse and {} undecided'.format(*counts) in page


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
    assert text.count('\n') == 1 + sum(ALL - 2 + 54 if o in sets else ALL for o in compare.SETS)


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


def test_a_verdict_has_one_of_three_words(tmp_path):
    results = make_tables(tmp_path/'t', compare.SETS[:1], names=['cfg', 'apg'])
    path = compare.table_of('mnist-a', 'verdicts', results)
    path.write_text(path.read_text().replace('better', 'best'))
    with pytest.raises(InputError, match='verdict of apg'): made(results, tmp_path/'o')


def test_page_and_data_are_those_of_the_tables():
    "To mend: python tools/compare.py."
    files = compare.make_files(compare.RESULTS, compare.OUT, compare.PAGE)
    assert [p.name for p, text in files.items() if p.read_text(encoding='utf-8') != text] == [], 'to mend: python tools/compare.py'


def test_nothing_is_made_up():
    "Numbers stand on the page only where the tables have been measured."
    there = {o['name']: any(compare.table_of(w.model, k, compare.RESULTS).is_file() for k in (*compare.TUNING, 'chosen')) for o, w in zip(NOW['sets'], compare.SETS)}
    for name, measured in there.items(): assert any(o['results'].get(name, {}).get('judges') for o in NOW['techniques']) == measured
    if not any(there.values()): assert 'The runs are under way' in TEXT and NOW['edition'] == '' and not list(DATA.rglob('*.png'))


# Pictures

@pytest.fixture
def pictured(tmp_path):
    "Images that were kept, for some techniques, and the tables."
    results, folder = make_tables(tmp_path/'t', compare.SETS[:1], 'chosen', ['cfg', 'apg', 'fbg', 'cfg+pag'], seeds=(3,)), tmp_path/'images'
    folder.mkdir()
    measured, rng, images = compare.find_results(compare.SETS[0], results), np.random.default_rng(0), {}
    for name, (point,) in measured.points.items():
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


def test_pictures_are_on_the_same_noise(pictured):
    "Some were drawn in a later round, all in the first: the first has the pictures of all."
    out, results, folder, _ = pictured
    for path in folder.iterdir(): path.unlink()
    which, tuned = compare.SETS[0], make_tables(out/'t2', compare.SETS[:1], 'tuned chosen', ['cfg', 'apg', 'pag'], seeds=(3,))
    path = compare.table_of(which.model, 'chosen', tuned)
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    rows[rows.candidate != 'pag'].to_csv(path, index=False)
    measured = compare.find_results(which, tuned)
    assert {k: sorted((p.num, p.seed) for p in own) for k, own in measured.points.items()} == dict(cfg=[(1000, 0), (1000, 3)], apg=[(1000, 0), (1000, 3)], pag=[(1000, 0)])
    y = torch.arange(10).repeat_interleave(100)
    for k, point in enumerate(p for own in measured.points.values() for p in own):
        keep(Drawn(torch.full((1000, 1, 28, 28), 50*point.seed + k, dtype=torch.uint8), y, 24., (1., 1., 1.), 1.), keep_path(folder, point, fingerprints([point])[point.model]))
    data, _, _ = made(tuned, out/'o2', folder)
    note = json.loads((out/'o2'/'pictures.json').read_text())['mnist']
    assert (note['samples'], note['seed']) == (1000, 0) and set(note['strengths']) == {'cfg', 'apg', 'pag'}
    assert all(np.asarray(Image.open(p)).max() < 50 for p in (out/'o2'/'mnist').iterdir())


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
        return {'strength': r.get('strength'), 'verdict': order.get(r.get('verdict')), 'kind': compare.KINDS[o['kind']]}.get(column, o.get(column)) if column in ('strength', 'verdict', 'kind') else o[column]
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
    for verdict in compare.VERDICTS: assert ask(verdict=verdict) == ['cfg', *(o['name'] for o in everybody if o['results']['mnist']['verdict'] == verdict)]
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
    states = [dict(), dict(data='photographs'), dict(measure='recall', kind='term', needs='several', verdict='worse', sort='-year'), dict(a='cfg+pag', b='interval, all but low'),
              dict(search='a & b=c #%'), dict(search='Ä ö 中'), dict(across='cost', up='fid', judge='2'), dict(sort='judge1', a='apg', b='apg')]
    usual, there, other, long = run_js(f'''for (const o of data.sets) o.compared = true
        const all = {json.dumps(states)}.map(o => ({{...C.usual(data), ...o}}))
        return [C.usual(data), all.map(o => C.asked(C.address(o, data), data)), {json.dumps(HOSTILE)}.map(h => C.asked(h, data)), C.address(C.usual(data), data)]''')
    assert there == [usual | o for o in states] and other == [usual]*len(HOSTILE) and long == '#'


@needs_node
def test_a_verdict_is_asked_for_only_where_there_are_some(whole):
    data = json.loads(json.dumps(whole[1]))
    data['sets'][1]['compared'] = False
    found = run_js('return ["#verdict=worse", "#data=photographs&verdict=worse", "#data=photographs"].map(h => C.asked(h, data)).map(s => [s.data, s.verdict])', data)
    assert found == [['mnist', 'worse'], ['mnist', 'all'], ['photographs', 'all']]


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
    asked = set(re.findall(r"el\('([\w-]+)'\)", text)) | {f'{p}-{k}' for p in ('pick', 'side', 'to') for k in 'ab'} | {'data', 'measure', 'kind', 'needs', 'across', 'up', 'verdict', 'sort'}
    assert asked - parts == set() and parts - asked == {'scroll', 'two'}
    assert 'innerHTML' not in text and 'eval(' not in text and not re.search(r'https?://(?!www\.w3\.org)', text)


def test_controls_have_words_and_regions_can_be_reached():
    for tag, o in TAGS:
        if tag == 'div' and 'compare-scroll' in (o.get('class') or ''): assert o['tabindex'] == '0' and o['role'] == 'region' and len(o['aria-label']) > 10
        if tag in ('section', 'svg'): assert o['aria-label']
    assert len(re.findall(r'<label[^>]*>[^<]+<(?:select|input)', RAW)) == len(re.findall(r'<(?:select|input)\b', RAW)) == 12
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
    # A phone
    b.dress((390, 844))
    go(b, url)
    assert b.value('document.documentElement.scrollWidth') <= 390
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
