"The comparison: candidates, stages, parts of a round, lines drawn again."
import contextlib, csv, io, json, subprocess, sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd, pytest, torch

from cfg_course import contests
from cfg_course.contests import GRID, Candidate, best_place, candidates, entry_of, farther, finer, merge_shards, run_shard, tuning_score
from cfg_course.core import InputError, rng
from cfg_course.data import load_data
from cfg_course.evidence import fid_line
from cfg_course.metrics import equal_shares
from cfg_course.pictures import MEASURES
from cfg_course.sweeps import Drawn, Point, find_images, make_yardstick
from cfg_course.training import OneProcess
from launching import environment, launch_two

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT/'tools'))
import contests as tool
import regret

LINE = '--model digits --weak digits --num 60 --judges digits --reference 500 --real train --device cpu'


def go(command, out):
    said, code = io.StringIO(), 0
    with contextlib.redirect_stdout(said):
        try: tool.main([*command.split(), *LINE.split(), '--results', str(out)])
        except SystemExit as e: code = e.code
    return SimpleNamespace(stdout=said.getvalue(), stderr=code if isinstance(code, str) else '', returncode=1 if code else 0)


@pytest.fixture(scope='module')
def planned(tmp_path_factory):
    out = tmp_path_factory.mktemp('contest')
    done = go('plan --only cfg apg cfgpp cfg+pag discriminator', out)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_plan(planned):
    out, said = planned
    plan = json.loads((out/'contest_digits_plan.json').read_text())
    assert [c['name'] for c in plan['candidates']] == ['cfg', 'apg', 'cfgpp', 'cfg+pag']
    assert '24 settings' in said and 'out: discriminator' in said
    again = [tool.as_candidate(c) for c in plan['candidates']]
    assert [c._replace(sampling=()) for c in again] == [c._replace(sampling=()) for c in candidates('digits') if c.name in plan_names(plan)]


def plan_names(plan): return [c['name'] for c in plan['candidates']]


@pytest.fixture(scope='module')
def measured(planned):
    out, _ = planned
    for i in (2, 1):
        done = go(f'measure --shard {i}/2', out)
        assert done.returncode == 0, done.stderr
    done = go('merge --shards 2', out)
    assert done.returncode == 0, done.stderr
    return out


def test_parts_come_to_the_same_bytes(measured, tmp_path):
    "Two parts by the command, four parts and one by the function."
    table = measured/'contest_digits_first.csv'
    plan = json.loads((measured/'contest_digits_plan.json').read_text())
    entries = tool.find_points([tool.as_candidate(c) for c in plan['candidates']], tool.Round(**plan['round']))[::5]
    judges = {'digits': make_yardstick('digits', ('accuracy', 'class_std'), 'digits')}
    for i in (3, 1, 4, 2): run_shard(entries, judges, tmp_path/'four.csv', (i, 4), device='cpu')
    run_shard(entries, judges, tmp_path/'one.csv', device='cpu')
    merge_shards(tmp_path/'four.csv', 4), merge_shards(tmp_path/'one.csv', 1)
    assert (tmp_path/'four.csv').read_bytes() == (tmp_path/'one.csv').read_bytes()
    assert (tmp_path/'four.json').read_bytes() == (tmp_path/'one.json').read_bytes()
    rows = list(csv.DictReader(open(table)))
    assert len(rows) == 24*(1 + len(tool.QUICK)) and {r['judge'] for r in rows} == {'', 'digits'}
    assert {float(r['nfe']) for r in rows} == {24., 22.} or all(float(r['nfe']) <= 24 for r in rows)


def test_a_line_is_drawn_again(measured):
    for line in (3, 57, 90):
        done = go(f'redo --line {line}', measured)
        assert done.returncode == 0 and 'the same to the last digit' in done.stdout, done.stdout + done.stderr
    table = measured/'contest_digits_first.csv'
    text = table.read_text().splitlines()
    head, value, low, high = text[8].rsplit(',', 3)
    other = f'{head},{float(value) + 1e-3:g},{low},{high}'
    table.write_text('\n'.join([*text[:8], other, *text[9:], '']))
    try: assert 'NOT the same' in go('redo --line 9', measured).stdout
    finally: table.write_text('\n'.join([*text, '']))
    damaged = text[8].replace(',ddim,', ',euler?,').replace(',dpmpp,', ',euler?,')
    table.write_text('\n'.join([*text[:8], damaged, *text[9:], '']))
    try: refused = go('redo --line 9', measured)
    finally: table.write_text('\n'.join([*text, '']))
    for done in (refused, go('redo --line 1', measured)):
        assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1, done.stderr


def load_digits_of(num):
    data = load_data('digits', 'train')
    return data.take(equal_shares(data.y, num))


def asked_for(out, stage, **more):
    return tool.argparse.Namespace(**dict(model='digits', results=out, stage=stage, network=None, compare=40) | more)


@pytest.fixture(scope='module')
def chosen(measured):
    for command in ('measure', 'merge', 'verdicts'):
        done = go(f'{command} --stage chosen --compare 40', measured)
        assert done.returncode == 0, done.stderr
    return pd.read_csv(measured/'contest_digits_chosen.csv')


def test_everybody_at_its_best(measured, chosen):
    "The strength with the lowest FID of the first stage, from another seed, with differences from plain guidance."
    first = pd.read_csv(measured/'contest_digits_first.csv')
    fid = first[first.metric == 'fid'].set_index(['candidate', 'strength']).value
    for name, own in fid.groupby(level=0):
        assert chosen[chosen.candidate == name].strength.unique().tolist() == [own.idxmin()[1]]
    assert set(chosen.seed) == {1} and set(first.seed) == {0} and set(chosen.samples) == {40}
    assert len(chosen) == 4*(1 + 3*len(tool.METRICS))
    plain = chosen[chosen.candidate == 'cfg'].set_index('metric').value
    for name in ('apg', 'cfgpp', 'cfg+pag'):
        own = chosen[chosen.candidate == name].set_index('metric').value
        for metric in tool.METRICS:
            assert own[f'{metric} - plain'] == pytest.approx(own[metric] - plain[metric], abs=2e-5*(1 + abs(own[metric]))), (name, metric)
    assert (plain.filter(like=' - ') == 0).all()


def test_equal_steps(measured, chosen):
    "CFG with a term asks three times a step: equal steps are not equal evaluations."
    own = chosen[chosen.candidate == 'cfg+pag'].set_index('metric').value
    assert chosen[chosen.candidate == 'cfg+pag'].steps.unique().tolist() == [8]
    assert abs(own['fid - plain, equal steps'] - own['fid - plain']) > 1e-3
    own = chosen[chosen.candidate == 'apg'].set_index('metric').value
    assert own['fid - plain, equal steps'] == own['fid - plain']


def test_verdicts(measured, chosen):
    found = pd.read_csv(measured/'contest_digits_verdicts.csv').set_index('candidate')
    assert set(found.index) == {'apg', 'cfgpp', 'cfg+pag'} and (found.holm >= found.p).all()
    table = pd.read_csv(measured/'contest_digits_differences.csv')
    for name, row in found.iterrows():
        own = table[(table.candidate == name) & (table.metric == 'fid')].iloc[0]
        assert row.least == own.difference and (row.verdict == 'better') == (own.difference < 0 and row.holm < .05)


def test_a_difference_is_drawn_again(measured, chosen):
    line = 2 + chosen[(chosen.candidate == 'cfg+pag') & (chosen.metric == 'kid - plain, equal steps')].index[0]
    done = go(f'redo --stage chosen --line {line}', measured) # of 40 images, which only the table says
    assert done.returncode == 0 and 'the same to the last digit' in done.stdout, done.stdout + done.stderr


def test_what_the_exact_world_says(measured, chosen):
    "Two sets of rows for each candidate: real digits are nearer to the world than drawn ones are likely to be."
    done = go('exact --stage chosen', measured) # of 40 images, which only the table says
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(measured/'contest_digits_chosen_exact.csv').pivot(index='candidate', columns='measure', values='value')
    assert set(table.index) == {'real images', 'cfg', 'apg', 'cfgpp', 'cfg+pag'} and set(table) == set(MEASURES)
    assert (table > -1e6).all(axis=None) and table.posterior.between(0, 1).all()


def test_seeds_are_joined_and_extrapolated(measured, chosen, monkeypatch):
    "FID of all images of a setting as one set, and of infinitely many; too few are left out by name."
    digits, seen = load_digits_of(1040), []
    def images(point, *_, **__):
        seen.append(point)
        noise = torch.randn(digits.x.shape, generator=rng(sum(point.method.encode()))) # the same for a setting, other for another
        x = (digits.x + 12*noise).clamp(0, 255).to(torch.uint8)
        return Drawn(x, digits.y, 24., (1., 1., 1.), 1.)
    monkeypatch.setattr('cfg_course.contests.find_images', images)
    few = go('infinite --stage chosen --compare 1000', measured)
    assert few.returncode == 0 and 'left out: 24 evaluations, too few images' in few.stdout and not seen
    assert not (measured/'contest_digits_chosen_infinite.csv').exists(), 'a table without rows'
    done = go('infinite --stage chosen --compare 1040 --only cfg apg', measured)
    assert done.returncode == 0 and {p.method for p in seen} == {'cfg', 'apg'}, done.stderr
    rows = pd.read_csv(measured/'contest_digits_chosen_infinite.csv')
    assert len(rows) == 2*2*2 and set(rows.samples) == {1040} and set(rows.rival) == {'evaluations', 'steps'}
    yard = make_yardstick('digits', ('fid',), 'digits', reference=500, split='train')
    for name, own in rows[rows.rival == 'evaluations'].groupby('candidate'):
        line = fid_line(yard.observe(images(next(p for p in seen if p.method == name))), yard.reference)
        value = own.set_index('metric').value
        assert value.fid == pytest.approx(line.at(1040), rel=.05) and value.fid_infinite == pytest.approx(line.infinite, rel=1e-4) and value.fid > value.fid_infinite
    plain = rows[rows.candidate == 'cfg'].set_index(['rival', 'metric'])
    own = rows[rows.candidate == 'apg'].set_index(['rival', 'metric'])
    assert (plain.difference == 0).all() and own.difference.values == pytest.approx((own.value - plain.value).values, abs=1e-3)
    assert ((own.difference_low < own.difference) & (own.difference < own.difference_high) & (own.error > 0)).all()
    other = go('infinite --stage chosen --compare 1040 --only cfg --budgets 24', measured)
    again = pd.read_csv(measured/'contest_digits_chosen_infinite.csv')
    in_order = [table.sort_values(['candidate', 'rival', 'metric']).values.tolist() for table in (rows, again)]
    assert other.returncode == 0 and in_order[0] == in_order[1], 'what is not asked for stays'
    refused = go('infinite --stage first', measured)
    assert refused.returncode == 1 and 'stage' in refused.stderr


@pytest.mark.parametrize('text', ['', 'candidate,value\ncfg,1\n', 'candidate,samples\n', 'candidate,samples\ncfg,many\n'])
def test_a_table_without_its_size_is_refused(tmp_path, text):
    (tmp_path/'contest_digits_chosen.csv').write_text(text)
    done = go('exact --stage chosen', tmp_path)
    assert done.returncode == 1 and 'not damaged' in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_second_and_final(measured, chosen, monkeypatch):
    second = tool.stage_of(asked_for(measured, 'second'))[0]
    assert sorted({e.point.seed for e in second}) == [2, 3, 4, 5] and len(second) == 16
    refused = go('cost --stage final', measured)
    assert refused.returncode == 1 and 'contest_digits_second.csv is not' in refused.stderr
    copy = measured/'contest_digits_second.csv'
    chosen.to_csv(copy, index=False)
    try:
        final, together = tool.by_budget(asked_for(measured, 'final')), tool.stage_of(asked_for(measured, 'final'))[0]
        monkeypatch.setitem(tool.LEFT, 'full', 2)
        full = tool.by_budget(asked_for(measured, 'full'))
    finally: copy.unlink()
    ranked = [n for n in tool.scores_of(chosen).sort_values('score').candidate if n in ('cfg', 'apg', 'cfgpp', 'cfg+pag')]
    assert list(full) == [24] and sorted({e.point.seed for e in full[24]}) == [10, 11, 12, 13] and {e.candidate for e in full[24]} == {'cfg', *ranked[:2]}
    assert [len(e) for e in final.values()] == [16]*3
    assert [tool.steps_of(e[0]) for e in final.values()] == [12, 24, 48]
    assert [e.point.seed for e in together] == sorted(4*3*[6, 7, 8, 9]) and {e.candidate for e in together} == {'cfg', 'apg', 'cfgpp', 'cfg+pag'}
    later = go('verdicts --stage second', measured)
    assert later.returncode == 1 and 'allowed: chosen' in later.stderr
    args = asked_for(measured, 'second', network='mnist-b')
    assert {e.point.model for e in tool.stage_of(args)[0]} == {'mnist-b'}
    rivals_of = tool.stage_of(asked_for(measured, 'second'))[1]
    for entry in second: assert {r.point.seed for r in rivals_of(entry).values()} == {entry.point.seed}


def test_what_is_dear_is_not_measured_of_many_images(monkeypatch):
    "Where a stage has ten thousand images, measures that compare each with each other one are left out."
    asked = {}
    monkeypatch.setattr(tool, 'make_yardstick', lambda data, metrics, name, **more: asked.setdefault(name, metrics))
    for stage, wanted in (('first', set(tool.QUICK)), ('final', set(tool.METRICS)), ('full', set(tool.METRICS) - set(tool.DEAR))):
        asked.clear()
        tool.judges_of(tool.argparse.Namespace(stage=stage, judges=None, reference=1000, data_dir=None, real='reference'), 'mnist-a')
        assert len(asked) == 3 and all(set(metrics) == wanted for metrics in asked.values())


def test_a_head_belongs_to_its_network(capsys):
    "Who was fitted to one network is left out with another one, by name; the others stay."
    who = [c for c in candidates('mnist-weak') if c.name in ('cfg', 'internal', 'pag')]
    assert [c.name for c in tool.able_with(who, tool.Round('mnist-a', 'mnist-weak'))] == ['cfg', 'pag', 'internal']
    capsys.readouterr()
    assert [c.name for c in tool.able_with(who, tool.Round('mnist-b', 'mnist-weak'))] == ['cfg', 'pag']
    assert 'out with mnist-b: internal' in capsys.readouterr().out
    dear = [c for c in candidates('mnist-weak') if c.name in ('cfg', 'cfg+universal')]
    assert len(tool.able_with(dear, tool.Round('mnist-a', 'mnist-weak'))) == 2
    assert [c.name for c in tool.able_with(dear, tool.Round('mnist-b', 'mnist-weak'), first=False)] == ['cfg']
    assert 'costs many times as much' in capsys.readouterr().out


def two_seeds(model='digits'):
    sampling = ('sampler', 'dpmpp'), ('steps', 3)
    return [tool.Entry(f'cfg{s}', s, Point(model, 'cfg', s, sampling=sampling, num=20, seed=seed)) for seed in (0, 1) for s in (1., 2., 3.)]


def test_plain_guidance_is_measured_once(tmp_path, monkeypatch):
    "It takes part, and everybody is compared with it, itself too: its measures are found once in a part of a round."
    measured, feel = [], contests.felt_of
    monkeypatch.setattr(contests, 'felt_of', lambda drawn, *more: measured.append(drawn) or feel(drawn, *more))
    entries, judges = two_seeds()[:3], {'digits': make_yardstick('digits', ('accuracy', 'class_std'), 'digits')}
    for part, wanted in (((1, 1), 3), ((2, 2), 2)): # the second of two parts has one technique and needs plain guidance for it
        measured.clear()
        rows = run_shard(entries, judges, tmp_path/f'{part[1]}.csv', part, device='cpu', rivals_of=lambda entry: dict(plain=entries[0]))
        assert len(measured) == wanted
        away = {r['candidate']: float(r['value']) for r in rows if r['metric'] == 'class_std - plain'}
        assert away.pop('cfg1.0', 0.) == 0. and all(away.values())


def test_a_round_goes_on_from_its_table(tmp_path):
    "Parts are lost after half of the round was merged: the other half is drawn, by other parts, and nothing twice."
    entries, judges, out = two_seeds(), {'digits': make_yardstick('digits', ('accuracy', 'class_std'), 'digits')}, tmp_path/'lost.csv'
    run_shard(entries, judges, tmp_path/'whole.csv', device='cpu')
    whole = merge_shards(tmp_path/'whole.csv', 1).read_bytes()
    for i in (1, 2): run_shard(entries, judges, out, (i, 2), device='cpu')
    part = tmp_path/'lost.2of2.csv'
    table = pd.read_csv(part, dtype=str, keep_default_na=False)
    table[table.candidate != 'cfg2.0'].to_csv(part, index=False) # of the first seed both others are there, of the second one all
    with pytest.raises(InputError, match='1 are not drawn yet'): merge_shards(out, 2)
    so_far = pd.read_csv(merge_shards(out, 2, so_far=True))
    assert so_far.seed.unique().tolist() == [1] and so_far.candidate.nunique() == 3
    for path in tmp_path.glob('lost.*of*'): path.unlink()
    drawn = []
    for i in (1, 2, 3, 4): run_shard(entries, judges, out, (i, 4), device='cpu', say=lambda done, of, entry: drawn.append(entry))
    assert [e.point.seed for e in drawn] == [0]*3
    assert merge_shards(out, 4).read_bytes() == whole


def test_a_budget_of_a_seed_is_complete_before_the_others(tmp_path):
    "Finals are drawn at several budgets: one that everybody has with a seed is merged, though others are not drawn yet."
    judges, out = {'digits': make_yardstick('digits', ('accuracy',), 'digits')}, tmp_path/'finals.csv'
    def at(steps, seed): return [tool.Entry(f'cfg{s}', s, Point('digits', 'cfg', s, sampling=(('sampler', 'dpmpp'), ('steps', steps)), num=20, seed=seed)) for s in (1., 2.)]
    entries = [e for seed in (0, 1) for steps in (2, 3) for e in at(steps, seed)]
    run_shard(entries, judges, out, device='cpu')
    part = tmp_path/'finals.1of1.csv'
    table = pd.read_csv(part, dtype=str, keep_default_na=False)
    table[(table.seed == '0') | (table.steps == '2') | (table.candidate == 'cfg1.0')].to_csv(part, index=False)
    so_far = pd.read_csv(merge_shards(out, 1, so_far=True))
    found = so_far.groupby(['seed', 'steps']).candidate.nunique()
    assert found.to_dict() == {(0, 2): 2, (0, 3): 2, (1, 2): 2}


def test_no_seed_is_complete(tmp_path):
    entries, judges = two_seeds(), {'digits': make_yardstick('digits', ('accuracy',), 'digits')}
    run_shard(entries, judges, tmp_path/'torn.csv', device='cpu')
    part = tmp_path/'torn.1of1.csv'
    table = pd.read_csv(part, dtype=str, keep_default_na=False)
    table[table.candidate != 'cfg2.0'].to_csv(part, index=False)
    with pytest.raises(InputError, match='no complete seed'): merge_shards(tmp_path/'torn.csv', 1, so_far=True)


def test_a_table_of_another_plan_is_not_gone_on_with(tmp_path):
    entries, judges = two_seeds(), {'digits': make_yardstick('digits', ('accuracy',), 'digits')}
    run_shard(entries[:2], judges, tmp_path/'other.csv', device='cpu')
    before = merge_shards(tmp_path/'other.csv', 1).read_bytes()
    for path in tmp_path.glob('other.1of1.*'): path.unlink()
    with pytest.raises(InputError, match='plan'): run_shard(entries, judges, tmp_path/'other.csv', device='cpu')
    assert (tmp_path/'other.csv').read_bytes() == before


def test_what_is_dear_is_tuned_with_fewer_images(measured):
    plan = measured/'contest_dear_plan.json'
    made = json.loads((measured/'contest_digits_plan.json').read_text())
    dear = [dict(made['candidates'][0], name=n, method=n) for n in ('clean_classifier', 'universal', 'discriminator')]
    plan.write_text(json.dumps(dict(made, round=dict(made['round'], num=2000), candidates=[*made['candidates'], *dear])))
    entries = tool.stage_of(asked_for(measured, 'first', model='dear'))[0]
    num = {e.candidate: e.point.num for e in entries}
    assert num == dict(cfg=2000, apg=2000, cfgpp=2000, clean_classifier=500, universal=500, discriminator=num['discriminator'], **{'cfg+pag': 2000})
    assert num['discriminator'] == (500 if tool.asks_gradient(entries[-1].point) else 2000)


def test_the_next_stages(measured):
    args = asked_for(measured, 'farther1')
    asked = {e.candidate: e.strength for e in tool.stage_of(args)[0]}
    table = pd.read_csv(measured/'contest_digits_first.csv')
    fid = table[table.metric == 'fid'].set_index(['candidate', 'strength']).value
    for name in ('cfg', 'apg', 'cfgpp', 'cfg+pag'):
        own = fid[name].sort_index()
        place = own.argmin()
        assert (name in asked) == (place in (0, 5)), name
        if place == 0: assert asked[name] < own.index[0]
        if place == 5: assert asked[name] > own.index[-1]
    args.stage = 'finer'
    number = pd.Series([e.candidate for e in tool.stage_of(args)[0]]).value_counts()
    assert set(number) <= {1, 2}


def test_more_parts_than_settings(tmp_path):
    "A stage with one setting, spread over two processes: the one that has nothing to do says so with an empty part."
    entries = tool.find_points([Candidate('cfg', 'cfg', sampling=(('sampler', 'ddim'), ('steps', 2)))], tool.Round('digits', 'digits', 20))[:1]
    judges = {'digits': make_yardstick('digits', ('accuracy', 'class_std'), 'digits')}
    for i in (2, 1): run_shard(entries, judges, tmp_path/'two.csv', (i, 2), device='cpu')
    run_shard(entries, judges, tmp_path/'one.csv', device='cpu')
    assert merge_shards(tmp_path/'two.csv', 2).read_bytes() == merge_shards(tmp_path/'one.csv', 1).read_bytes()
    run_shard(entries, judges, tmp_path/'begun.csv', (2, 2), device='cpu')
    with pytest.raises(InputError, match='begun.1of2.csv'): merge_shards(tmp_path/'begun.csv', 2)


def test_parts_that_do_not_belong(tmp_path):
    entries = tool.find_points([Candidate('cfg', 'cfg', sampling=(('sampler', 'ddim'), ('steps', 2)))], tool.Round('digits', 'digits', 20))[:2]
    judges = {'digits': make_yardstick('digits', ('accuracy', 'class_std'), 'digits')}
    out = tmp_path/'t.csv'
    for i in (1, 2): run_shard(entries, judges, out, (i, 2), device='cpu')
    note = tmp_path/'t.2of2.json'
    made = json.loads(note.read_text())
    for key, value in dict(batch_size=7, protocol=0, weights={'digits': 'another'}, judges={}, reference={'digits': 7}).items():
        note.write_text(json.dumps(dict(made, config=dict(made['config'], **{key: value}))))
        with pytest.raises(InputError, match=key): merge_shards(out, 2)
    note.write_text(json.dumps(made))
    rows = (tmp_path/'t.2of2.csv').read_text().splitlines(True)
    (tmp_path/'t.2of2.csv').write_text(''.join(rows[:-1]))
    with pytest.raises(InputError, match='cfg 1.25'): merge_shards(out, 2)
    (tmp_path/'t.2of2.csv').write_text('no table\nat all\n')
    with pytest.raises(InputError, match='not damaged'): merge_shards(out, 2)


TWO = '''
import sys
from cfg_course.contests import Candidate, Round, find_points, merge_shards, run_shard
from cfg_course.sweeps import make_yardstick
how = Round('digits', 'digits', 21)
entries = find_points([Candidate('cfg', 'cfg', sampling=(('sampler', 'ddim'), ('steps', 4)))], how)[:3]
run_shard(entries, {'digits': make_yardstick('digits', ('accuracy', 'class_std'), 'digits')}, sys.argv[1], device='cpu')
'''


def test_two_processes(tmp_path):
    script = tmp_path/'two.py'
    script.write_text(TWO)
    launch_two([script, tmp_path/'two.csv'], tmp_path/'two.1of1.csv')
    subprocess.run([sys.executable, script, tmp_path/'one.csv'], env=environment(), check=True)
    one, two = (pd.read_csv(tmp_path/f'{n}.1of1.csv') for n in ('one', 'two'))
    pd.testing.assert_frame_equal(one, two, rtol=.02)


def test_the_list_does_not_depend_on_the_order_of_imports():
    "Registers grow as modules are imported: here another one comes first."
    code = 'import cfg_course.histories, cfg_course.bands; from cfg_course.contests import candidates; print([c.name for c in candidates("w")])'
    other = 'import cfg_course.bands, cfg_course.histories; from cfg_course.contests import candidates; print([c.name for c in candidates("w")])'
    said = [subprocess.run([sys.executable, '-c', c], env=environment(), capture_output=True, text=True, check=True).stdout for c in (code, other)]
    assert said[0] == said[1] == f'{[c.name for c in candidates("w")]}\n'


def test_farther_and_finer():
    for origin, values in ((1., GRID), (0., (.05, .1, .2, .4)), (1., (.9, .95, .98, 1.02, 1.05, 1.1))):
        for best in range(len(values)):
            scores = [abs(k - best) for k in range(len(values))]
            more = farther(values, scores, origin)
            assert (more is None) == (0 < best < len(values) - 1)
            if more is not None: assert (more < values[0] or more > values[-1]) and abs(more - origin) != abs(values[best] - origin)
            new = finer(values, scores, origin)
            assert len(new) == 2 - (best in (0, len(values) - 1)) and all(values[0] < v < values[-1] for v in new)


def test_scores():
    fid = pd.DataFrame(dict(a=[4., 1., 2.], b=[.1, .5, .05]))
    assert best_place(list(tuning_score(fid))) == 2
    assert list(tuning_score(10*fid).sub(tuning_score(fid)).round(6).unique()) == [2.302585]


def test_mean_and_median(tmp_path):
    "A schedule that crowds its strength has a larger mean than median."
    point = Point('digits', 'power_cosine', 3., sampling=(('sampler', 'ddim'), ('steps', 12)), num=20)
    acc = OneProcess('cpu')
    median, mean = (find_images(point, {}, None, acc, 20, middle=m).effective[0] for m in ('median', 'mean'))
    assert mean > 1.2*median


# What few images cost

def test_a_random_order_is_one_of_each_class_and_the_same_for_all_settings():
    y = torch.tensor([0, 1, 0, 1, 1, 0, 0, 1])
    ranks = regret.ranks_of(y, 0)
    for label in (0, 1): assert sorted(ranks[y == label].tolist()) == [0, 1, 2, 3]
    assert torch.equal(ranks, regret.ranks_of(y, 0)) and any(not torch.equal(ranks, regret.ranks_of(y, k)) for k in (1, 2, 3))


def test_regret_is_what_all_images_say_of_the_choice_of_few():
    scores = {1.: {(0, 0): .5, (25, 0): .1, (25, 1): .9}, 2.: {(0, 0): .2, (25, 0): .3, (25, 1): .4}}
    first, second = regret.regrets(scores)
    assert (first['strength'], first['best'], first['images']) == (1., 2., 250) and abs(first['regret'] - .3) < 1e-12 and second['regret'] == 0


def test_regret_wants_the_images(tmp_path):
    with pytest.raises(SystemExit, match='keep-in'): regret.main(['--keep-in', str(tmp_path/'none')])


@pytest.mark.parametrize('model,stage', [('mnist-a', 'chosen'), ('cifar10-16', 'chosen')])
def test_the_rivals_of_any_line_are_known(model, stage):
    "Also of those whose sampler has settings of its own, which a table has in another order."
    args = tool.argparse.Namespace(model=model, stage=stage, results=tool.RESULTS, network=None)
    args.compare = tool.size_so_far(args)
    entries, rivals_of = tool.stage_of(args)
    table = pd.read_csv(tool.out_of(args), dtype=str, keep_default_na=False)
    lines = table[table.metric == 'fid'].drop_duplicates('candidate').to_dict('records')
    assert {row['candidate'] for row in lines} == {e.candidate for e in entries}
    assert all(set(rivals_of(entry_of(row))) == {rival.differs for rival in tool.RIVALS.values()} for row in lines)
