"Intervals against closed forms, definitions and other libraries; verdicts that must not be given; odd sets of images."
import math, sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np, pandas as pd, pytest, torch
from scipy import stats

from cfg_course import evidence
from cfg_course.classifiers import load_classifier
from cfg_course.core import InputError, rng
from cfg_course.data import load_data
from cfg_course.evidence import FELT, Felt, binomial_p, count_covered, deal, downdate, error_of, estimate, feel_all, fid_line, fid_without, holm, judges_of
from cfg_course.evidence import kendall, kendall_interval, leave_out, mean_squares, minus, of_mean, paired_differences, references_of, second_variance
from cfg_course.evidence import spearman_interval
from cfg_course.evidence import several_judges, simultaneous, split_variance, train_unlabelled, turned, verdicts
from cfg_course.metrics import METRICS, Reference, Seen, distance_to, stratified_error

ROOT = Path(__file__).resolve().parents[1]


def cloud(n, seed, size=1., dim=8, classes=5, shift=0.):
    "Images of some classes, and their features."
    g, mix = rng(seed), torch.randn(dim, dim, generator=rng(7), dtype=torch.float64)
    y = torch.arange(n) % classes
    f = size*torch.randn(n, dim, generator=g, dtype=torch.float64)@mix + y[:, None] + shift
    return Seen((f[:, [0, 1, 2, 0]]*9 + 128).clamp(0, 255).byte().view(n, 1, 2, 2), y, f, f[:, :classes], f[:, :classes].softmax(1))


def reference(n=500, **other): return Reference('a cloud', cloud(n, 0, **other), 0.)


# Groups that are left out

@pytest.mark.parametrize('n,classes', [(250, 10), (1000, 10), (20, 1), (21, 21), (33, 4), (107, 3), (255, 10)])
def test_groups_are_even_and_nobody_is_left_out_twice(n, classes):
    y = torch.arange(n) % classes
    omitted = leave_out(y, 3, 5)
    away = (~omitted.kept[:, :10]).sum(1)
    counts = y.bincount()
    over = (counts % 10)[counts >= 10].sum()  # images that would make groups uneven
    assert omitted.kept.shape == (3, 55, n) and (away <= 1).all() and (away == 0).sum(1).eq(over).all()
    assert omitted.sizes.max() - omitted.sizes.min() <= 1
    a, b = omitted.couples
    assert ((~omitted.kept[:, 10:]).sum(-1) == a + b).all()
    shares = torch.stack([y[deal(y, rng(1)) == i].bincount(minlength=classes) for i in range(10)])
    spread = shares.amax(0) - shares.amin(0)  # of each class
    assert (spread[counts >= 10] == 0).all() and (spread <= 1).all()
    if over:
        assert (away == 0).any(0).sum() > over  # every deal spares other images
    assert torch.equal(leave_out(y, 3, 5).kept, omitted.kept) and not torch.equal(leave_out(y, 3, 6).kept, omitted.kept)


def felt_of(statistic, x, omitted):
    "A statistic of numbers, felt by leaving out one, a group, and two."
    whole = torch.ones(len(x), dtype=torch.bool)
    def without(i):
        kept = whole.clone()
        kept[i] = False
        return statistic(x[kept])
    effect = torch.tensor([(1 - len(x))*without(i) for i in range(len(x))], dtype=torch.float64)
    others = torch.tensor([statistic(x[kept]) for kept in omitted.parts], dtype=torch.float64)
    return Felt(statistic(x), effect, others.view(omitted.kept.shape[:2]))


@pytest.mark.parametrize('each', [5, 9, 10, 25])
def test_a_small_class_takes_nothing_off_an_error(each):
    "Groups of classes with fewer images than groups are uneven, so that what is counted twice is not known from them."
    x, y = torch.randn(4*each, generator=rng(each), dtype=torch.float64), torch.arange(4*each) % 4
    omitted = leave_out(y, 2)
    felt = felt_of(lambda v: v.mean().square().item(), x - x.mean(), omitted) # near zero the square is all of second order
    whole = stratified_error(felt.effect, y)
    assert error_of(felt, omitted) == pytest.approx(whole) if each < 10 else error_of(felt, omitted) < .9*whole


@pytest.mark.parametrize('n', [20, 40, 43])
def test_a_mean_has_no_second_order(n):
    x, y = torch.randn(n, generator=rng(n), dtype=torch.float64), torch.arange(n) % 2
    omitted = leave_out(y, 2)
    felt = felt_of(lambda v: v.mean().item(), x, omitted)
    assert second_variance(felt.value, felt.others, omitted) <= 1e-20
    assert error_of(felt, omitted) == pytest.approx(error_of(of_mean(x), omitted), rel=1e-9)


@pytest.mark.parametrize('n,classes', [(250, 10), (130, 4), (45, 3)])
def test_fixed_class_counts_have_no_second_order(n, classes):
    "Classes far apart, as many images of each in every set: what two groups have too much of a class is no variance."
    y = torch.arange(n) % classes
    away = 5*torch.randn(classes, generator=rng(4), dtype=torch.float64)
    away -= away[y].mean()
    second = []
    for i in range(60):
        x = away[y] + torch.randn(n, generator=rng(5, i), dtype=torch.float64)
        omitted = leave_out(y, 1, i)
        felt = felt_of(lambda v: v.mean().square().item(), x, omitted)
        second.append(second_variance(felt.value, felt.others, omitted))
    assert abs(np.mean(second)*n**2/2 - 1) < .4


def test_two_together_are_counted_once():
    "The product of two means of centred numbers is second order alone: what the jackknife says is twice the variance."
    g, n = rng(2), 60
    omitted = leave_out(torch.zeros(n, dtype=torch.long), 1)
    product = lambda v: (v[:, 0].mean()*v[:, 1].mean()).item()
    felt = [felt_of(product, torch.randn(n, 2, generator=g, dtype=torch.float64), omitted) for _ in range(150)]
    true, jackknife = 1/n**2, np.mean([stratified_error(f.effect, omitted.y)**2 for f in felt])
    second = np.mean([second_variance(f.value, f.others, omitted) for f in felt])
    assert abs(jackknife/true - 2) < .4 and abs(second/true - 1) < .25
    assert np.mean([error_of(f, omitted)**2 for f in felt]) < .8*jackknife


@pytest.mark.parametrize('n,dim', [(60, 8), (40, 3), (9, 8), (8, 12)])
def test_fid_without_one_is_fid_of_the_others(n, dim):
    "Also where there are fewer images than features."
    seen, real = cloud(n, 1, 1.3, dim, classes=2), reference(dim=dim, classes=2)
    distance, rows = distance_to(real), torch.arange(n)
    direct = torch.tensor([distance(seen.features[rows != i]) for i in rows], dtype=torch.float64)
    assert (fid_without(seen.features, real) - direct).abs().max() <= 2e-6*direct.max()


def test_features_that_never_vary_are_no_trouble():
    seen, real = cloud(50, 1), reference()
    def dead(s): return s._replace(features=torch.cat([s.features, torch.zeros(len(s.x), 3, dtype=torch.float64)], 1))
    wide = Reference('wide', dead(real.seen), 0.)
    assert (fid_without(dead(seen).features, wide) - fid_without(seen.features, real)).abs().max() <= 1e-6


@pytest.mark.parametrize('name', list(FELT))
def test_values_are_those_of_the_metrics(name):
    seen, real = cloud(90, 3), reference()
    omitted = leave_out(seen.y, 1)
    felt = FELT[name](seen, real, omitted)
    if name in METRICS:
        assert felt.value == pytest.approx(METRICS[name].function(seen, real)[0], rel=1e-6, abs=1e-7)
    if felt.others is not None and name in METRICS:
        for i in (0, 9, 10, 54):
            part = Seen(*[v[omitted.parts[i]] for v in seen])
            assert felt.others[0, i].item() == pytest.approx(METRICS[name].function(part, real)[0], rel=1e-6, abs=1e-7)
    value, low, high = estimate(name, felt, omitted)
    assert low <= value <= high and math.isfinite(high - low)


@pytest.mark.parametrize('name', ['fid', 'kid', 'recall', 'coverage', 'class_std', 'accuracy'])
@pytest.mark.parametrize('size', [1., 1.4])
def test_errors_are_those_of_fresh_sets(name, size):
    "Near the floor, where the jackknife is too wide, and away from it."
    real, found = reference(1000), []
    for i in range(60):
        seen = cloud(100, 100 + i, size)
        omitted = leave_out(seen.y, 1, i)
        felt = FELT[name](seen, real, omitted)
        found.append((felt.value, error_of(felt, omitted)))
    value, error = torch.tensor(found, dtype=torch.float64).T
    assert .75 < error.mean()/value.std() < (1.6 if name == 'recall' else 1.4)  # recall is felt by groups, a little wide at 100


@pytest.mark.parametrize('name', ['fid', 'kid', 'coverage', 'recall', 'precision', 'density', 'class_std'])
def test_pairs_feel_what_they_share(name):
    "The same noise, a little larger: the difference is much surer than two sets apart, and as sure as is claimed."
    real, found = reference(), []
    for i in range(50):
        a, b = cloud(100, 300 + i, 1.2), cloud(100, 300 + i, 1.25)
        omitted = leave_out(a.y, 1, i)
        ours, theirs = FELT[name](a, real, omitted), FELT[name](b, real, omitted)
        both = minus(ours, theirs)
        apart = (error_of(ours, omitted)**2 + error_of(theirs, omitted)**2)**.5
        found.append((both.value, error_of(both, omitted), apart))
    value, error, apart = torch.tensor(found, dtype=torch.float64).T
    assert .7 < error.mean()/value.std() < 1.5 and error.mean() < .75*apart.mean()


def test_a_setting_against_itself_is_nothing():
    eyes = dict(one=load_classifier('digits')[0])
    data = load_data('digits', 'test')
    refs = references_of(eyes, load_data('digits', 'reference'))
    same = paired_differences(eyes, refs, data.x, data.x, data.y, repeats=1)
    assert (same.difference == 0).all() and (same.error <= 1/len(data.x)).all() and (same.p == 1).all()
    assert set(same.metric) == set(FELT) - {'fid_infinite'}


# FID at infinity

@pytest.mark.parametrize('size', [1., 1.3])
def test_the_line_has_no_bias(size):
    "Means over 40 sets of 200: plain FID is too large, FID at infinity is that of 50,000."
    real = reference()
    distance, sets = distance_to(real), [cloud(200, 500 + i, size) for i in range(40)]
    many = distance(cloud(50_000, 1, size).features)
    lines = torch.tensor([fid_line(s, real).infinite for s in sets])
    plain = torch.tensor([distance(s.features) for s in sets])
    sem = lines.std()/40**.5
    assert (lines.mean() - many).abs() < 3*sem and plain.mean() - many > 3*sem
    assert fid_line(sets[0], real).at(200) == pytest.approx(plain[0].item(), rel=.25)


@pytest.mark.parametrize('seeds', [1, 3])
def test_differences_of_fid_at_infinity_are_covered(seeds):
    "Two settings drawn from the same noise, one set or several seeds joined: the interval of 95 % holds the difference of 50,000."
    real, distance = reference(), distance_to(reference())
    true = distance(cloud(50_000, 1, 1.3).features) - distance(cloud(50_000, 1, 1.15).features)
    def joined(first, size):
        parts = [cloud(240//seeds, first + k, size) for k in range(seeds)]
        return Seen(*(torch.cat(column) for column in zip(*parts)))
    count, claimed, found = 0, [], []
    for i in range(60):
        ours, theirs = joined(5000 + 10*i, 1.3), joined(5000 + 10*i, 1.15)
        omitted = leave_out(ours.y, 1, i)
        away = minus(FELT['fid_infinite'](ours, real, omitted), FELT['fid_infinite'](theirs, real, omitted))
        error = error_of(away, omitted)
        count += abs(away.value - true) <= 1.96*error
        claimed.append(error)
        found.append(away.value)
    assert binomial_p(count, 60, .95) > .01 and .75 < np.mean(claimed)/np.std(found) < 1.4, (count, np.mean(claimed), np.std(found))


# Many comparisons

@pytest.mark.parametrize('p', [[.01, .04, .03], [.5], [], [1., 1.], [0., 0., .2], [.02]*6, list(np.linspace(.001, .2, 30))])
def test_holm_by_its_definition(p):
    order, worst, expected = np.argsort(p, kind='stable'), 0., np.zeros(len(p))
    for j, i in enumerate(order):
        worst = max(worst, min(1., (len(p) - j)*p[i]))
        expected[i] = worst
    assert holm(p) == pytest.approx(expected.tolist())


@pytest.mark.parametrize('p', [[.1, math.nan], [-.1], [1.2]])
def test_holm_refuses_what_is_no_p_value(p):
    with pytest.raises(InputError, match='^p: got'): holm(p)


def test_simultaneous_is_bonferroni():
    assert simultaneous(1) == pytest.approx(1.959964, abs=1e-5) and simultaneous(41) == pytest.approx(stats.norm.ppf(1 - .025/41))
    with pytest.raises(InputError): simultaneous(0)


def spoken(*rows): return pd.DataFrame(rows, columns=['technique', 'judge', 'difference', 'p']).assign(metric='fid')


def test_one_judge_that_is_not_sure_is_enough_for_undecided():
    said = verdicts(spoken(('t', 'a', -3, 1e-9), ('t', 'b', -3, 1e-9), ('t', 'c', -.1, .4)))
    assert said.verdict.tolist() == ['undecided'] and said.p.tolist() == [.4]
    said = verdicts(spoken(('t', 'a', -3, 1e-9), ('t', 'b', 3, 1e-9)))
    assert said.verdict.tolist() == ['undecided'] and said.p.tolist() == [1.]


@pytest.mark.parametrize('metric,words', [('fid', ['better', 'worse']), ('recall', ['worse', 'better']), ('class_std', ['smaller', 'larger'])])
def test_words_know_what_is_better(metric, words):
    table = spoken(('low', 'a', -2, 1e-5), ('low', 'b', -1, 1e-4), ('high', 'a', 2, 1e-5), ('high', 'b', 1, 1e-4)).assign(metric=metric)
    assert verdicts(table, metric).verdict.tolist() == words


@pytest.mark.parametrize('rows', [
    [('s', 'a', -3, .1), ('s', 'b', -3, .1), ('t', 'a', -3, 1e-9)],
    [('t', 'a', -3, .1), ('t', 'a', -3, .1), ('t', 'b', -3, .1)]])
def test_a_judge_that_is_missing_or_speaks_twice_is_refused(rows):
    with pytest.raises(InputError, match='judges of t: .*each of .* once'): verdicts(spoken(*rows))


def test_families_grow():
    "A p-value of .02 is enough alone, and not among five."
    one = spoken(('t', 'a', -1, .02))
    five = spoken(*[(f't{i}', 'a', -1, .02) for i in range(5)])
    assert verdicts(one).verdict.tolist() == ['better'] and set(verdicts(five).verdict) == {'undecided'}


# Rankings

@pytest.mark.parametrize('ties', [False, True])
def test_kendall_is_scipys(ties):
    a, b = torch.randn(2, 17, generator=rng(4), dtype=torch.float64)
    if ties: a, b = a.round(), (2*b).round()
    assert kendall(a, b) == pytest.approx(stats.kendalltau(a, b)[0], abs=1e-12)
    tau, low, high = kendall_interval(a, b)
    assert low <= tau <= high and tau == kendall(a, b)


@pytest.mark.parametrize('interval', [kendall_interval, spearman_interval])
@pytest.mark.parametrize('ties', [False, True])
def test_the_order_of_techniques_changes_no_end_of_an_interval(interval, ties):
    a, b = torch.randn(2, 14, generator=rng(5), dtype=torch.float64)
    if ties: a, b = a.round(), (2*b).round()
    found = interval(a, b)
    for seed in range(3):
        other = torch.randperm(14, generator=rng(seed))
        assert interval(a[other], b[other]) == found


@pytest.mark.parametrize('n', [5, 15, 40])
def test_rankings_that_agree_fully_are_not_surely_the_same(n):
    tau, low, high = kendall_interval(range(n), range(n))
    assert tau == high == 1 and low < .9
    tau, low, high = kendall_interval(range(n), range(0, -n, -1))
    assert tau == low == -1 and high > -.9


@pytest.mark.parametrize('a,b,words', [([1, 2, 3], [1, 2, 3], '4 or more'), ([1, 2, 3, 4], [1, 2, 3], 'same techniques'),
                                       ([1, 1, 1, 1], [1, 2, 3, 4], 'some of which differ'), ([1, 2, 3, math.nan], [1, 2, 3, 4], 'some of which differ')])
def test_no_ranking(a, b, words):
    with pytest.raises(InputError, match=words): kendall_interval(a, b)


# Variances

def test_mean_squares_are_those_of_the_definition():
    t = torch.randn(3, 4, 5, generator=rng(6), dtype=torch.float64)
    found, m = mean_squares(t), t.mean()
    assert found['network'][0] == pytest.approx((20*(t.mean((1, 2)) - m).square().sum()/2).item())
    total = sum(square*freedom for square, freedom in found.values())
    assert total == pytest.approx((t - m).square().sum().item()) and sum(f for _, f in found.values()) == t.numel() - 1


@pytest.mark.parametrize('shape', [(1, 3, 3), (3, 1, 3), (3, 3, 1), (3, 3)])
def test_tables_that_cannot_be_split(shape):
    with pytest.raises(InputError, match='two or more networks'): split_variance(torch.zeros(shape))


def test_a_table_with_a_hole_is_refused():
    t = torch.randn(3, 3, 3, generator=rng(1), dtype=torch.float64)
    t[0, 0, 0] = math.nan
    with pytest.raises(InputError, match='finite'): split_variance(t)


def test_three_judges_leave_much_open():
    g = rng(9)
    t = torch.randn(3, 1, 1, generator=g, dtype=torch.float64) + .1*torch.randn(3, 4, 3, generator=g, dtype=torch.float64)
    found = split_variance(t)
    assert set(found) == {'noise', 'network', 'judge', 'rest'} and found['network'][2] > 3*found['network'][0]
    assert all(low <= high for _, low, high in found.values())


# Coverage

@pytest.mark.parametrize('hits', [0, 150, 184, 190, 196, 200])
def test_binomial_is_scipys(hits): assert binomial_p(hits, 200) == pytest.approx(stats.binomtest(hits, 200, .95).pvalue, rel=1e-6)


@pytest.mark.parametrize('width,says', [(1.96, 'holds'), (1.2, 'narrow'), (4., 'wide')])
def test_what_is_narrow_is_called_narrow(width, says):
    x = torch.randn(200, generator=rng(3), dtype=torch.float64).tolist()
    assert count_covered([(v, v - width, v + width) for v in x]).says == says


# Judges

@pytest.mark.parametrize('dataset,shape', [('mnist', (1, 28, 28)), ('cifar10', (3, 16, 16)), ('folder:cifar10-jpeg', [3, 16, 16])])
def test_no_judge_has_seen_the_reference(dataset, shape):
    judges = judges_of(dataset, shape)
    assert len(judges) == 3 and len({str(j.config) for j in judges.values()}) == 3
    for name, judge in judges.items():
        meta = load_classifier(name)[1]
        assert meta['part'] == 'fit' and dataset.split(':')[-1].split('-')[0] in meta['data'] and not judge.training
        assert judge.features(torch.zeros(2, *shape)).shape[1] <= 128


@pytest.mark.parametrize('dataset,shape', [('digits', (1, 8, 8)), ('mnist', (3, 16, 16)), ('cifar10', (3, 32, 32)), ('', ())])
def test_there_are_no_judges(dataset, shape):
    with pytest.raises(InputError, match='^dataset, shape'): judges_of(dataset, shape)


def test_features_know_no_labels():
    "With other labels the body is the same, to the bit, and only the last layer differs."
    data = load_data('digits', 'fit').take(torch.arange(300))
    other = data.take(torch.arange(300))
    other.y = other.y.flip(0)
    for epochs in (0, .2):
        one, two = (train_unlabelled(d, epochs, width=2, stages=1) for d in (data, other))
        same = [torch.equal(a, b) for a, b in zip(one.body.state_dict().values(), two.body.state_dict().values())]
        assert all(same) and not torch.equal(one.head[-1].weight, two.head[-1].weight)


def test_turns_are_quarters():
    x = torch.arange(8.).view(2, 1, 2, 2)
    ways, quarters = turned(x)
    assert torch.equal(ways[quarters == 2], x.flip((2, 3))) and quarters.bincount().tolist() == [2]*4


def test_several_judges_is_one_table():
    eyes = dict(one=load_classifier('digits')[0], two=train_unlabelled(load_data('digits', 'fit'), 0, width=4))
    refs, data = references_of(eyes, load_data('digits', 'reference')), load_data('digits', 'test')
    table = several_judges(eyes, refs, data.x, data.y, ['fid', 'accuracy'], repeats=1)
    assert table.columns.tolist() == ['judge', 'metric', 'value', 'low', 'high'] and len(table) == 4
    with pytest.raises(InputError, match='references'): several_judges(eyes, dict(one=refs['one']), data.x, data.y)
    with pytest.raises(InputError, match="metrics: got 'what'"): feel_all(None, None, None, ['what', 'fid'])
    with pytest.raises(InputError, match='labels'): several_judges(eyes, refs, data.x[:50], data.y)


def test_downdate_of_a_diagonal():
    values = torch.tensor([.25, 4., 9.], dtype=torch.float64)
    v = torch.eye(3, dtype=torch.float64)
    assert downdate(v, values, .2) == pytest.approx(((values - .2).sqrt() - values.sqrt()).tolist(), abs=1e-9)
    assert evidence.GROUPS == 10


@pytest.mark.parametrize('name', ['accuracy', 'precision'])
def test_no_image_that_changed_is_not_no_doubt(name):
    "In most sets of 250 no verdict differs; the interval of the difference must still hold its mean."
    hits, n = [], 250
    for i in range(200):
        g = rng(i)
        a = torch.rand(n, generator=g) < .99
        b = a ^ (torch.rand(n, generator=g) < .003)  # one image in 333 changes
        omitted = leave_out(torch.arange(n) % 10, 1)
        row = evidence.difference_row('judge', name, minus(of_mean(b), of_mean(a)), omitted)
        hits.append(row['low'] <= -.003*.98 <= row['high'])
    assert np.mean(hits) > .9


# tools/coverage.py

def coverage_tool():
    "The tool, whose name is also that of a package."
    sys.path.insert(0, str(ROOT/'tools')) # for what it imports
    spec = spec_from_file_location('coverage_tool', ROOT/'tools'/'coverage.py')
    tool = module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


@pytest.mark.parametrize('images,name', [(250, 'evidence_coverage.csv'), (1000, 'evidence_coverage_1000.csv')])
def test_who_is_not_measured_here_keeps_the_rows(images, name, tmp_path, monkeypatch):
    "Sets are measured on several machines, one source after the other; a table is not emptied by the folder of one of them."
    tool, table = coverage_tool(), tmp_path/name
    before = (ROOT/'nbs'/'results'/'evidence_coverage.csv').read_bytes()
    table.write_bytes(before)
    monkeypatch.setattr(tool, 'RESULTS', tmp_path)
    tool.write_table(tmp_path, images)
    assert table.read_bytes() == before
    (tmp_path/'measured').mkdir()
    def invent(number): tool.measured_file(tmp_path, 'mnist-a', images, number).write_text(f'judge,scale,against,metric,value,low,high\nmnist-fit,1,,fid,{number},-99,99\n')
    for number in range(tool.LEAST - 1): invent(number)
    tool.write_table(tmp_path, images)
    assert table.read_bytes() == before
    invent(tool.LEAST)
    tool.write_table(tmp_path, images)
    def apart(text): return [row for row in text.splitlines() if not row.startswith(b'mnist-a')], [row for row in text.splitlines() if row.startswith(b'mnist-a')]
    (kept, _), (old, new) = apart(before), apart(table.read_bytes())
    assert old == kept and len(new) == 1 and new[0].decode().split(',')[:7] == ['mnist-a', '1', '', 'mnist-fit', 'fid', str(images), '20']


def test_joined_sets_share_no_image(tmp_path):
    tool = coverage_tool()
    x, y = tool.joined_set(tmp_path, 'mnist-real', 0., 1, 1000)
    assert len(x) == 1000 and (y.bincount() == 100).all() and torch.equal(x[:250], tool.set_of(tmp_path, 'mnist-real', 0., 4)[0])
    assert tool.joined_set(tmp_path, 'mnist-a', 1., 0, 1000) is None
    assert len({image.numpy().tobytes() for image in x}) == 1000
