"Sweeps: whole tables however they are interrupted, rows that can be made again, and nothing overwritten unasked."
import json, multiprocessing, random, shutil, time
from pathlib import Path

import numpy as np, pandas as pd, pytest, torch
from scipy.stats import binomtest

from cfg_course import samplers, sweeps
from cfg_course.catalogue import SHELVES, takes_scale
from cfg_course.cli import evaluate_main, read_literal
from cfg_course.core import InputError
from cfg_course.metrics import Reference, Seen, distance_to
from cfg_course.samplers import SAMPLERS
from cfg_course.sweeps import (
    COLUMNS, KEYS, Point, add_to_ranking, add_verdicts, best_scale, compare_points, count_evaluations,
    describe_point, draw_point, fit_steps, keep_path, lowest_at, make_yardstick, match_effective, own_kind,
    plan_sweep, point_of, rank_fid, read_rows, read_sweep, resample_fid, run_sweep, sweep_points, technique_of)
from launching import launch_two
from test_techniques import ARGS

ROOT = Path(__file__).resolve().parents[1]
THREE = (('sampler', 'ddim'), ('steps', 3))
POINTS = sweep_points(['cfg', 'apg', 'cfgpp'], [0., 1., 3.], (0, 1), model='digits', num=20, sampling=THREE)


def sweep(out, points=POINTS, **kwargs):
    return run_sweep(points, out, device='cpu', progress=False, **kwargs)


OWN = Point('digits', 'apg', 3., (('eta', .5),), (.2, 2.), (('sampler', 'ddpm'), ('steps', 8), ('v', .1)), 3, 40)


@pytest.mark.parametrize('point, name', [
    (POINTS[4], 'cfg-3-0-6e8f96306b9b8019.npz'),
    (POINTS[-1], 'cfgpp-none-1-5643532ec8011bb1.npz'),
    (OWN, 'apg-3-3-1aacd1cd1cd479e3.npz'),
    (Point('mnist', scale=2.), 'cfg-2-0-12dc2b349e1f7cce.npz')], ids=lambda v: getattr(v, 'method', ''))
def test_kept_images_are_found_for_ever(point, name):
    "A field that was added later does not change the names of files, nor the columns of tables."
    assert keep_path('x', point, 'abc').name == name
    assert 'class' not in describe_point(point)['parameters']


def test_points_of_some_classes():
    "Image i depends on the seed, on i and on its label: the first one, a 0, is the same whatever comes after it."
    whole = POINTS[4]
    some = whole._replace(classes=(0, 7))
    x, y, *_ = draw_point(some)
    assert y.tolist() == [0]*10 + [7]*10 and torch.equal(x[0], draw_point(whole).x[0])
    assert describe_point(some)['parameters'] == 'class=0,7' and point_of(describe_point(some)) == some
    assert keep_path('x', some, 'abc') != keep_path('x', whole, 'abc')
    with pytest.raises(InputError, match='classes: got 12'): draw_point(whole._replace(classes=(3, 12)))
    yard = make_yardstick('digits', reference=50)
    with pytest.raises(InputError, match='points: got 2'): resample_fid([some, whole], yard)


def test_a_point_is_drawn_on_one_road(monkeypatch):
    "The sampler is made once to check the point, and once to sample."
    made, make = [], samplers.make_sampler
    for module in (samplers, sweeps):
        monkeypatch.setattr(module, 'make_sampler', lambda *a, **k: made.append(k) or make(*a, **k))
    draw_point(POINTS[4]._replace(interval=(.1, 10.)))
    assert len(made) == 2


@pytest.mark.parametrize('sampler, family, name', [
    ('heun', '', 'apg'),
    ('dpmpp', '', 'apg'),
    ('ddim', 'ddim', 'apg (ddim)'),
    ('ddpm', 'ancestral', 'apg (ancestral)'),
    ('mine', '', 'apg (mine)'),
    ('mine', 'ddim', 'apg (ddim)')])
def test_a_technique_is_named_with_its_sampler(sampler, family, name, monkeypatch):
    "No sampler is taken for another one, not even one that was added later."
    if sampler == 'mine': monkeypatch.setitem(SAMPLERS, 'mine', SAMPLERS['ddim']._replace(family=family))
    assert SAMPLERS[sampler].family == family
    assert technique_of(describe_point(Point('digits', 'apg', 2., sampling=(('sampler', sampler),)))) == name


@pytest.mark.parametrize('technique, against', [
    ('cfgpp', 'cfg (ddim)'),
    ('fkc', 'cfg (ancestral)'),
    ('cfgpp (dpmpp)', 'cfg (dpmpp)'),
    ('apg', 'cfg'),
    ('apg in an interval', 'cfg'),
    ('added later', 'cfg'),
    ('later (ancestral)', 'cfg (ancestral)')])
def test_what_a_technique_is_compared_with(technique, against): assert own_kind(technique) == against


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    "An uninterrupted table, and how long it took."
    out, start = tmp_path_factory.mktemp('sweep')/'whole.csv', time.perf_counter()
    sweep(out)
    return out, time.perf_counter() - start


def test_killed_at_ten_random_moments(whole, tmp_path):
    "Whenever it is killed the table holds whole points, and in the end it has the bytes of a run that was left alone."
    (out, seconds), dice, cut = whole, random.Random(0), tmp_path/'cut.csv'
    context, seen = multiprocessing.get_context('forkserver'), []
    context.set_forkserver_preload(['cfg_course.sweeps'])
    for _ in range(10):
        child = context.Process(target=sweep, args=(cut,))
        child.start()
        child.join(dice.uniform(.05, .6)*seconds)
        child.kill(); child.join()
        seen.append(len(read_rows(cut))//3 if cut.exists() else 0)
        if not cut.exists(): continue
        assert len(read_rows(cut)) % 3 == 0
        assert cut.read_bytes() == out.read_bytes()[:cut.stat().st_size]
    sweep(cut)
    assert cut.read_bytes() == out.read_bytes() and seen == sorted(seen)
    assert not [p for p in tmp_path.iterdir() if p.suffix == '.csv' and p != cut and '.part' not in p.name]


def test_a_finished_sweep_does_nothing(whole):
    out, _ = whole
    before = out.read_bytes(), out.stat().st_mtime_ns
    sweep(out, each=lambda *a: pytest.fail('drawn again'))
    assert before == (out.read_bytes(), out.stat().st_mtime_ns)


def test_a_point_that_is_asked_for_twice_is_measured_once(tmp_path):
    twice = [POINTS[0], POINTS[0]._replace(scale=int(POINTS[0].scale))]
    table = sweep(tmp_path/'twice.csv', twice)
    assert len(table) == len(read_rows(tmp_path/'twice.csv')) == 3


def test_a_table_can_be_extended(whole, tmp_path):
    out = tmp_path/'more.csv'
    shutil.copy(whole[0], out); shutil.copy(whole[0].with_suffix('.json'), out.with_suffix('.json'))
    more = sweep(out, [p._replace(scale=5.) for p in POINTS[:1]])
    assert out.read_bytes().startswith(whole[0].read_bytes()) and len(more) == len(read_rows(whole[0])) + 3
    assert json.loads(out.with_suffix('.json').read_text())['config']['points']['scale'] == ['0', '1', '3', '', '5']


def test_a_row_is_made_again(whole):
    rows = read_rows(whole[0])
    row = rows[len(rows)//2]
    drawn, yard = draw_point(point_of(row)), make_yardstick('digits')
    stored = [float(row[k] or 'nan') for k in ('value', 'low', 'high')]
    assert stored == pytest.approx(yard.measure(drawn)[row['metric']], rel=1e-4, nan_ok=True)


def test_a_shipped_row_is_made_again(tmp_path):
    "One point of a table that is shipped, of every metric; one image in a hundred may be rounded otherwise."
    shipped = ROOT/'nbs'/'results'/'digits_sweep.csv'
    config = json.loads(shipped.with_suffix('.json').read_text())['config']
    rows = [r for r in read_rows(shipped) if (r['method'], r['scale'], r['seed']) == ('apg', '2', '1')]
    yard = make_yardstick('digits', config['metrics'], reference=config['reference'], repeats=config['repeats'])
    table = sweep(tmp_path/'again.csv', [point_of(rows[0])], yardstick=yard)
    again = {r['metric']: r for r in table.to_dict('records')}
    assert again.keys() == {r['metric'] for r in rows} and len(rows) > 10
    for r in rows:
        wide = max(float(r['high'] or 0) - float(r['low'] or 0), 1e-6)
        stored = pytest.approx(float(r['value'] or 'nan'), rel=1e-3, abs=.2*wide, nan_ok=True)
        assert float(again[r['metric']]['value'] or 'nan') == stored, r['metric']


TECHNIQUES = [(k, n) for k, shelf in SHELVES.items() for n in shelf if k != 'strong' or n == 'cads']


@pytest.mark.parametrize('kind,name', TECHNIQUES, ids=lambda v: v)
def test_every_technique_can_be_measured(kind, name):
    "What is counted is what is paid: a technique's evaluations grow with the steps, and no copy of a network escapes."
    value = dict([ARGS[name].split('=')]) if name in ARGS else {}
    options = tuple((k, read_literal(v)) for k, v in value.items())
    scale = 3. if takes_scale({kind: name}) else None
    point = Point('mnist-a' if name == 'discriminator' else 'digits', name, scale, options, sampling=(('sampler', 'ddim'),))
    eight, sixteen = (count_evaluations(point, n) for n in (8, 16))
    most = SHELVES[kind][name].cost
    assert 8 <= eight < sixteen <= 2.6*eight
    assert kind == 'rule' or sixteen == pytest.approx(16*most, rel=.35)


def test_equal_budget_and_equal_strength():
    base = Point('digits', 'apg', 3., sampling=(('sampler', 'ddim'),), num=20)
    fitted = fit_steps(base, 20)
    assert describe_point(fitted)['steps'] == '10' and draw_point(fitted).nfe == 20
    with pytest.raises(InputError, match='budget: got 1'): fit_steps(base, 1)
    for method in ('apg', 'rescale', 'cfg_zero', 'cosine'):
        six = base._replace(method=method, sampling=(('sampler', 'ddim'), ('steps', 6)))
        matched = match_effective(six, 2., num=20)
        assert draw_point(matched._replace(num=20)).effective[0] == pytest.approx(2, abs=.03), method
    with pytest.raises(InputError, match='technique that records'):
        match_effective(base._replace(method='rectified'), 2.)


def test_the_same_rows_from_two_processes(tmp_path):
    line = '--model digits --scales 1 3 -n 21 --steps 4 --sampler ddim --device cpu --out'
    evaluate_main(f'{line} {tmp_path}/one.csv'.split())
    launch_two([ROOT/'evaluate.py', *line.split(), f'{tmp_path}/two.csv'], tmp_path/'two.csv')
    one, two = (read_sweep(tmp_path/f'{n}.csv') for n in ('one', 'two'))
    assert (one[KEYS + ['metric']].fillna('') == two[KEYS + ['metric']].fillna('')).all().all()
    assert np.allclose(one[['nfe', 'value']], two[['nfe', 'value']], rtol=.02, equal_nan=True)


def test_plan_draws_no_tables_and_counts(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = '--model digits --guidance cfg reg --scales 1 3 --num 100 --sampler ddim --steps 6 --plan --out rows.csv'
    evaluate_main(line.split())
    said = capsys.readouterr().out
    assert '4 points' in said and f'{100*(6 + 12 + 6 + 18):,}' in said and not list(tmp_path.iterdir())
    assert plan_sweep(POINTS[:3]).evaluations.gt(0).all()


BAD = {
    'other samples': (dict(yardstick=True), 'metrics'),
    'damaged': (dict(text=lambda t: t.replace(',class_std,', ',class_std,x', 1)), 'line 3'),
    'half a line': (dict(text=lambda t: t[:-25]), 'line'),
    'foreign': (dict(text=lambda t: 'a,b\n1,2\n'), 'columns'),
    'no note': (dict(note=False), 'note'),
    'damaged note': (dict(note='{'), 'damaged'),
}


@pytest.mark.parametrize('name', BAD)
def test_bad_tables_are_left_alone(name, whole, tmp_path):
    how, words = BAD[name]
    out = tmp_path/'t.csv'
    out.write_text(how.get('text', lambda t: t)(whole[0].read_text()))
    note = how.get('note', whole[0].with_suffix('.json').read_text())
    if note: out.with_suffix('.json').write_text(note)
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    yard = make_yardstick('digits', ('accuracy',)) if how.get('yardstick') else None
    with pytest.raises(InputError, match=words) as e: sweep(out, yardstick=yard)
    assert '\n' not in str(e.value) and before == {p: p.read_bytes() for p in tmp_path.iterdir()}


def test_no_two_models_of_different_data():
    two = [Point('digits', scale=1.), Point('mnist', scale=1.)]
    with pytest.raises(InputError, match='same data'): sweep('never.csv', two)


def test_read_sweep_refuses_other_points(whole):
    assert set(read_sweep(whole[0], samples=20, seed=[0, 1]).columns) == set(COLUMNS)
    with pytest.raises(InputError, match='samples: got 21'): read_sweep(whole[0], samples=21)


def test_kept_images_are_used_and_damaged_ones_are_not(tmp_path):
    store, points = tmp_path/'images', POINTS[:2]
    first = sweep(tmp_path/'a.csv', points, keep_in=store)
    file = sorted(store.iterdir())[0]
    file.write_bytes(file.read_bytes()[:100])
    before = {p: p.stat().st_mtime_ns for p in store.iterdir()}
    assert sweep(tmp_path/'b.csv', points, keep_in=store).equals(first)
    assert [p for p in store.iterdir() if p.stat().st_mtime_ns != before[p]] == [file]


def test_seconds_are_in_the_note_and_not_in_the_table(whole):
    note = json.loads(whole[0].with_suffix('.json').read_text())['provenance']
    assert len(note['points']) == len(POINTS) and note['seconds'] > 0 and note['device'].startswith('CPU')
    assert 'seconds' not in pd.read_csv(whole[0]).columns


def a_curve(seed, scales, n=300):
    "Features of a model that errs: guidance moves samples towards the data, and narrows their classes."
    g, y = torch.Generator().manual_seed(seed), torch.arange(n) % 5
    places = 3*torch.eye(5, 8, dtype=torch.float64)[y]
    noise = torch.randn(n, 8, generator=g, dtype=torch.float64)
    features = [places*(.6 + .25*s) + noise*1.6*s**-.5 for s in scales]
    return [Seen(None, y, f, None, None) for f in features]


def test_the_interval_of_the_best_scale_covers():
    "150 fresh curves: 95 % of the intervals hold the lowest point of the mean curve, within binomial error."
    g, scales = torch.Generator().manual_seed(1), [1., 1.25, 1.5, 2., 2.5, 3., 4.]
    y = torch.arange(2000) % 5
    features = 3*torch.eye(5, 8, dtype=torch.float64)[y] + torch.randn(2000, 8, generator=g, dtype=torch.float64)
    real = Reference('real', Seen(None, y, features, None, None), 0.)
    curves = [a_curve(100 + i, scales) for i in range(150)]
    distance = distance_to(real)
    mean = torch.tensor([[distance(seen.features) for seen in curve] for curve in curves], dtype=torch.float64).mean(0)
    true = lowest_at(torch.tensor(scales, dtype=torch.float64), mean)
    found = [best_scale(scales, curve, real) for curve in curves]
    assert scales[0] < true < scales[-1]
    covered = sum(low <= true <= high for _, low, high in found)/len(found)
    assert abs(covered - .95) < 3*(.95*.05/len(found))**.5
    assert max(high - low for _, low, high in found) < 1.


# Differences of two points

@pytest.fixture(scope='module')
def yard(): return make_yardstick('digits', ('fid',), reference=500)


PLAIN = Point('digits', 'cfg', 2., sampling=THREE, num=60)


def test_the_error_of_a_difference_covers_fresh_replicates(yard):
    "Of 40 fresh pairs as many lie within 1.96 deviations of their mean as should; with half of that it is too few."
    pairs = [(PLAIN._replace(scale=2.5, seed=s), PLAIN._replace(seed=s)) for s in range(40)]
    rows = [compare_points(*pair, yard, device='cpu') for pair in pairs]
    differences, errors = (np.array([r[k] for r in rows]) for k in ('difference', 'std'))
    away = np.abs(differences - differences.mean())/errors
    assert binomtest(int((away < 1.96).sum()), 40, .95).pvalue > .01
    assert binomtest(int((away < .98).sum()), 40, .95).pvalue < 1e-4


def test_a_point_is_added_at_the_cost_of_its_own_images(yard, tmp_path, monkeypatch):
    points = [PLAIN, PLAIN._replace(scale=4.), PLAIN._replace(method='apg')]
    points = [p._replace(sampling=(('sampler', 'dpmpp'), ('steps', 3))) for p in points]
    ranking = add_verdicts(pd.DataFrame(rank_fid(points, yard, tmp_path, 20)))
    new, drawn = points[0]._replace(method='rescale'), []
    plain = min(points[:2], key=lambda p: compare_points(p, p, yard, tmp_path)['fid'])
    monkeypatch.setattr(sweeps, 'draw_point', lambda p, *a, **k: drawn.append(p) or draw_point(p, *a, **k))
    longer = add_to_ranking(ranking, new, plain, yard, tmp_path)
    assert drawn == [new] and longer.technique.tolist() == ['apg', 'rescale']
    same = ['technique', 'strength', 'fid', 'against', 'difference', 'std']
    assert longer[same].iloc[:1].equals(ranking[same]) and set(longer.verdict) <= {'better', 'worse', 'within noise'}
    assert longer.half.iloc[0] > ranking.half.iloc[0], 'more comparisons, wider intervals'
    assert 'verdict' not in add_to_ranking(ranking[same], new, plain, yard, tmp_path)
    for folder in (None, tmp_path/'elsewhere'):
        drawn.clear()
        assert add_to_ranking(ranking, new, plain, yard, folder).equals(longer) and set(drawn) == {new, plain}


def test_what_cannot_be_added(yard):
    ranking = pd.DataFrame([compare_points(PLAIN._replace(method='apg'), PLAIN, yard)])
    other = PLAIN._replace(scale=4.)
    with pytest.raises(InputError, match='with which the ranking compares'):
        add_to_ranking(ranking, PLAIN._replace(method='rescale'), other, yard)
    with pytest.raises(InputError, match='the same seed'): compare_points(PLAIN._replace(seed=1), PLAIN, yard)
    with pytest.raises(InputError, match='two or more of each class'):
        compare_points(other._replace(num=12), PLAIN._replace(num=12), yard)


@pytest.mark.parametrize('label', [-1, 10, 11, 12])
def test_classes_that_a_point_cannot_ask_for(label):
    "The last class that is known is the last that may be asked for."
    with pytest.raises(InputError, match='classes'): draw_point(Point('digits', scale=1., classes=(0, label), num=4))
