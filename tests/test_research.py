"What somebody needs who writes about a new technique: an example from end to end, all files of numbers, a protocol that says one thing, a theorem with hypotheses."
import json, re, sys

import pandas as pd, pytest, torch

from cfg_course import catalogue, rules
from cfg_course.contests import candidates, count_techniques
from cfg_course.core import InputError
from cfg_course.sweeps import Point, draw_point
from notebooks import NBS_DIR, ROOT, cells, code, src, texts

sys.path.insert(0, str(ROOT/'tools'))
import compare, contests, contributing, downloads

PAGE = (NBS_DIR/'contributing.qmd').read_text(encoding='utf-8')
RESULTS = NBS_DIR/'results'


def cell(name, id):
    "The source of a cell."
    return next(src(c) for c in cells(NBS_DIR/f'{name}.ipynb') if c['id'] == id)


# A technique of one's own

@pytest.fixture
def halved():
    "The example of the page is registered, and is gone afterwards."
    before = dict(rules.RULES)
    block = re.search(r'^```python\n(.*?)^```', PAGE, re.M | re.S)[1]
    exec(compile(block, 'contributing.qmd', 'exec'), dict(vars(rules)))
    yield 'halved'
    rules.RULES.clear(), rules.RULES.update(before)


def test_the_page_is_that_of_contributing():
    text = contributing.SOURCE.read_text(encoding='utf-8')
    assert contributing.filled(PAGE, text) == PAGE, 'python tools/contributing.py'
    assert contributing.filled(PAGE, text.replace('of what guidance adds', 'of what it adds')) != PAGE
    with pytest.raises(InputError, match='no heading "## Four recipes"'): contributing.filled(PAGE, text.replace('## Four recipes', '## Recipes'))
    with pytest.raises(InputError, match='one'): contributing.filled(PAGE.replace('<!-- end rule -->', ''), text)


def test_the_example_takes_part_and_goes_again(halved):
    assert halved in catalogue.technique_names() and halved in [c.name for c in candidates('mnist-weak')]
    point = Point('digits', halved, 3., sampling=(('sampler', 'ddim'), ('steps', 4)), num=10)
    assert torch.equal(draw_point(point).x, draw_point(point._replace(method='cfg', scale=2.)).x)


def test_without_the_example_nobody_knows_it(): assert 'halved' not in catalogue.technique_names() and 'halved' not in [c.name for c in candidates('mnist-weak')]


def rehearsal(out):
    "The words of each command of the page, with another folder."
    block = re.search(r'<!-- rehearsal -->\n```sh\n(.*?)```', PAGE, re.S)[1]
    first, *lines = block.strip().splitlines()
    options = re.fullmatch(r'TRY="(.*)"', first)[1].replace('out/try', str(out))
    return [line.removeprefix('python tools/contests.py ').replace('$TRY', options).split() for line in lines]


@pytest.fixture
def rehearsed(halved, tmp_path):
    for words in rehearsal(tmp_path): contests.main([*words, '--device', 'cpu'])
    return tmp_path


def test_the_rehearsal_runs_to_a_verdict(rehearsed, capsys):
    named = set(re.findall(r'`(contest_digits_[\w.]+?\.(?:csv|json))`', PAGE))
    assert len(named) == 8 and all((rehearsed/name).is_file() for name in named)
    plan = json.loads((rehearsed/'contest_digits_plan.json').read_text())
    assert [c['name'] for c in plan['candidates']] == ['cfg', 'halved']
    for ending in ('', '_steps'):
        found = pd.read_csv(rehearsed/f'contest_digits_verdicts{ending}.csv')
        assert found.candidate.tolist() == ['halved'] and found.verdict.tolist() == ['undecided']
    # A stage that has nothing left to try says so; it is no error
    words = rehearsal(rehearsed)[1]
    table = rehearsed/'contest_digits_first.csv'
    rows = pd.read_csv(table)
    rows.loc[rows.metric == 'fid', 'value'] = (rows.strength - 1.5).abs() + 1 # best inside
    rows.to_csv(table, index=False)
    for command in ('measure', 'merge'): contests.main([command, *words[1:], '--device', 'cpu', '--stage', 'farther1'])
    assert capsys.readouterr().out.count('farther1: nothing is left to try') == 2


def go(command, out, *more): contests.main([*command.split(), *f'--model digits --weak digits --judges digits --reference 500 --real train --device cpu --results {out}'.split(), *map(str, more)])


def test_a_round_joins_tables_that_are_there(rehearsed, tmp_path_factory):
    "Nobody else is drawn again: a table of others and the example come to that of all."
    ours, both = tmp_path_factory.mktemp('tables'), tmp_path_factory.mktemp('both')
    for out, names in ((ours, 'cfg rescale'), (both, 'cfg rescale halved')):
        go(f'plan --only {names} --num 60', out)
        for stage in ('first', 'chosen'):
            go(f'measure --stage {stage} --compare 60', out), go(f'merge --stage {stage} --compare 60', out)
    go('join', ours, '--from', rehearsed)
    for stage in ('first', 'chosen'):
        found, want = (sorted((out/f'contest_digits_{stage}.csv').read_text().splitlines()) for out in (ours, both))
        assert found == want
    go('verdicts --stage chosen --compare 60', ours), go('verdicts --stage chosen --compare 60', both)
    found, want = (pd.read_csv(out/'contest_digits_verdicts.csv').set_index('candidate').sort_index() for out in (ours, both))
    assert found.equals(want) and list(found.index) == ['halved', 'rescale']
    go('join', ours, '--from', rehearsed) # twice is once
    assert sorted((ours/'contest_digits_first.csv').read_text().splitlines()) == sorted((both/'contest_digits_first.csv').read_text().splitlines())
    # A stage in which the others had nothing to try has no table: it is made
    later = [folder/f'contest_digits_farther1{suffix}' for folder in (rehearsed, ours) for suffix in ('.csv', '.json')]
    for suffix, path in zip(('.csv', '.json'), later): path.write_bytes((rehearsed/f'contest_digits_first{suffix}').read_bytes())
    go('join', ours, '--from', rehearsed)
    assert [p.read_bytes() for p in later[:2]] == [p.read_bytes() for p in later[2:]]
    for path in later: path.unlink()
    # Refused, with one line, and nothing is written
    before = {p: p.read_bytes() for p in ours.iterdir()}
    def refused(*words):
        with pytest.raises(SystemExit) as stop: go(*words)
        assert isinstance(stop.value.code, str) and '\n' not in stop.value.code
        assert {p: p.read_bytes() for p in ours.iterdir()} == before
        return stop.value.code
    assert '--from' in refused('join', ours) and 'another folder' in refused('join', ours, '--from', ours)
    assert 'contest_digits_first.csv' in refused('join', ours, '--from', tmp_path_factory.mktemp('empty'))
    table, note = rehearsed/'contest_digits_first.csv', rehearsed/'contest_digits_first.json'
    kept = table.read_text(), note.read_text()
    rows = pd.read_csv(table, dtype=str, keep_default_na=False)
    off = (rows.candidate == 'cfg') & (rows.metric == 'fid')
    rows.assign(value=rows.value.mask(off, '1e6')).to_csv(table, index=False)
    assert 'cfg, digits fid' in refused('join', ours, '--from', rehearsed)
    rows.assign(seed='5').to_csv(table, index=False)
    assert 'other settings' in refused('join', ours, '--from', rehearsed)
    rows[rows.candidate != 'cfg'].to_csv(table, index=False)
    assert 'plain guidance in both rounds' in refused('join', ours, '--from', rehearsed)
    rows.assign(samples=rows.samples.mask(rows.candidate != 'cfg', '7')).to_csv(table, index=False)
    assert 'images and seeds' in refused('join', ours, '--from', rehearsed)
    table.write_text(kept[0])
    for key, value in (('protocol', 1), ('batch_size', 7), ('reference', {'digits': 'others'}), ('weights', {'digits': 'other'})):
        made = json.loads(kept[1])
        made['config'][key] = value
        note.write_text(json.dumps(made))
        assert key in refused('join', ours, '--from', rehearsed)
    note.write_text(kept[1])
    (ours/'contest_digits_chosen.csv').rename(ours/'gone')
    before = {p: p.read_bytes() for p in ours.iterdir()}
    assert 'contest_digits_chosen.csv' in refused('join', ours, '--from', rehearsed)


def test_it_is_linked():
    assert 'contributing.qmd' in (NBS_DIR/'sidebar.yml').read_text() and '](contributing.qmd)' in compare.PAGE.read_text(encoding='utf-8')
    assert '/contributing.html)' in (NBS_DIR/'index.ipynb').read_text(encoding='utf-8')
    for named in ('25a_conformance.ipynb', 'compare.qmd', 'downloads.qmd'): assert f']({named})' in PAGE


# Files of numbers

TABLES = sorted(RESULTS.glob('*.csv'))


def test_every_file_has_a_line_and_every_line_a_file():
    page = (NBS_DIR/'downloads.qmd').read_text(encoding='utf-8')
    assert page == downloads.page(), 'python tools/downloads.py'
    assert len(TABLES) > 90 and all(f'](results/{p.name})' in page for p in TABLES)
    made = {file.made for file in downloads.list_files(RESULTS)}
    assert all((ROOT/m if '/' in m else NBS_DIR/f'{m}.ipynb').is_file() for m in made)
    used = {key for key in downloads.FILES if any(downloads.about(p.stem) == downloads.FILES[key] for p in TABLES)}
    assert {key for key in downloads.FILES if not key.startswith('contest')} == used - {k for k in used if k.startswith('contest')}


@pytest.mark.parametrize('p', TABLES, ids=lambda p: p.stem)
def test_a_file_is_named_where_it_is_made(p):
    "The chapter or the tool names it, or the beginning that it shares with others."
    made = downloads.about(p.stem)[0]
    text = (ROOT/made if '/' in made else NBS_DIR/f'{made}.ipynb').read_text(encoding='utf-8')
    parts = p.stem.split('_')
    assert any('_'.join(parts[:k]) in text for k in range(len(parts), 0, -1) if k > 1 or len(parts) == 1 or '/' in made), made


def test_a_file_without_a_line_is_refused(tmp_path):
    (tmp_path/'new_thing.csv').write_text('a\n1\n')
    with pytest.raises(InputError, match='new_thing.csv.*FILES'): downloads.page(tmp_path)


@pytest.mark.parametrize('name,want', [('contest_mnist-a_first', 'a stage'), ('contest_mnist-a_verdicts_steps', 'undecided'), ('contest_cifar10-16_second_differences', 'paired'), ('contest_mnist-a_chosen_exact', 'exact world')])
def test_tables_of_the_second_comparison_will_have_one(name, want): assert want in downloads.about(name)[1]


def test_rows_are_counted_as_a_reader_counts(tmp_path):
    for text, rows in (('a,b\n1,2\n', 1), ('a\n"1\n2"\n3\n', 2), ('a\n', 0), ('', 0)):
        (tmp_path/'x.csv').write_text(text)
        assert downloads.rows_of(tmp_path/'x.csv') == rows


def test_all_of_them_are_on_the_site():
    shipped = re.search(r'resources: \[(.*)\]', (ROOT/'_quarto.yml').read_text(encoding='utf-8'))[1].split(', ')
    assert {'results/*.csv', 'results/*.json'} <= set(shipped)
    assert sum(p.stat().st_size for p in RESULTS.glob('*.[cj]s*')) < downloads.LIMIT
    home = re.compile(r'/home/|/root/|/work/|C:\\\\Users')
    assert not [p.name for p in RESULTS.glob('*.json') if home.search(p.read_text(encoding='utf-8'))]


from test_pages import needs_pandoc, render # noqa: E402


@needs_pandoc
@pytest.mark.parametrize('text,link', [
    ('**Writes.** `results/mnist_tradeoff.csv`, which', 'results/mnist_tradeoff.csv'),
    ('From `comparison.csv` and', 'results/comparison.csv'),
    ('in `nbs/results/splits.csv`', 'results/splits.csv'),
    ('`results/ablation_*.csv`.', 'downloads.qmd'),
    ('`repair_*.csv` in `nbs/results/`', 'downloads.qmd'),
    ('- a *list* with `mnist_real.csv`', 'results/mnist_real.csv')])
def test_a_file_named_in_code_is_a_link(text, link): assert re.search(rf'<a href="{re.escape(link)}"[^>]*><code>', render(text))


@needs_pandoc
@pytest.mark.parametrize('text', ['`results/none_such.csv`', '`evaluate.py --out rows.csv`', '`rows.csv`', '`../results/comparison.csv`', '`comparison`',
    '## `comparison.csv`', '[`comparison.csv`](results/comparison.csv.gz)', '```sh\ncomparison.csv\n```'])
def test_what_is_no_link(text): assert 'href="results/comparison.csv"' not in render(text) and 'href="downloads' not in render(text) and 'href="results/rows' not in render(text) and 'none_such.csv">' not in render(text)


# The protocol

BODY, _, CHANGES = cell('25_comparison', '25pc0001').partition('**Changes.**')


def default(name):
    "What the tool does unless told otherwise."
    text = (ROOT/'tools'/'contests.py').read_text(encoding='utf-8')
    return int(re.search(rf"'--{name}', type=int, default=(\d+)", text)[1])


@pytest.mark.parametrize('part,stage', [('Everybody compared', 'chosen'), ('Round 2', 'second'), ('Finals', 'final'), ('The finals in full', 'full')])
def test_the_body_has_the_seeds_of_the_tool(part, stage):
    words = re.search(rf'\*\*{part}.*?(?=\n\n)', BODY, re.S)[0]
    seeds = re.findall(r'seeds? ([\d, and]+)', words)
    assert len(seeds) == 1 and tuple(map(int, re.findall(r'\d+', seeds[0]))) == contests.SEEDS[stage]


def test_the_body_has_the_sizes_of_the_tool():
    assert f'{default("num"):,} images a setting, 100 of each class, seed {default("seed")}' in BODY and f'{contests.LEAST} images for a technique that differentiates' in BODY
    for part, stage in (('Everybody compared', 'chosen'), ('Round 2', 'second'), ('Finals', 'final'), ('The finals in full', 'full')):
        assert f'{contests.SIZES[stage]:,} images' in re.search(rf'\*\*{part}.*?(?=\n\n)', BODY, re.S)[0]
    assert 'all measures' in BODY and 'FID, accuracy and spread only' in BODY and contests.QUICK == ('fid', 'accuracy', 'class_std')


def test_what_was_changed_says_what_it_was():
    items = re.findall(r'^- (.*)', CHANGES, re.M)
    assert len(items) == 14 and all(re.search(r'\b(was|were|had)\b', item) for item in items)
    assert all(said in CHANGES and said not in BODY for said in ('5,000', '15 best of round 1'))


# Numbers of techniques, how to cite

def test_one_function_counts_techniques():
    n = count_techniques()
    assert n._fields == ('catalogue', 'entered', 'lines') and n.lines == len(candidates('x')) - 1 and n.entered < n.catalogue < n.lines
    page = compare.PAGE.read_text(encoding='utf-8')
    assert all(words in page for words in (f'[catalogue](18c_catalogue.ipynb) has {n.catalogue}', f'these {n.entered} take part', f'has {n.lines} lines'))
    assert 'first comparison' not in page
    said = '\n'.join(t for c in code(NBS_DIR/'30_results.ipynb') for t in texts(c))
    drawn = set(pd.read_csv(RESULTS/'contest_mnist-a_chosen.csv').candidate) - {'cfg'}
    known = {e.name for e in catalogue.list_families()} & drawn
    assert drawn <= {c.name for c in candidates('x')}
    assert f'On digits the table has {len(drawn)} rows: {len(known)} techniques, and further forms of them' in said


def test_how_to_cite_has_year_version_and_the_word():
    cff = (ROOT/'CITATION.cff').read_text(encoding='utf-8')
    year, version = re.search(r'^  year: (\d{4})$', cff, re.M)[1], re.search(r'^version: (.+)$', cff, re.M)[1]
    page = compare.PAGE.read_text(encoding='utf-8')
    entry = re.search(r'@misc\{.*?^\}', page, re.M | re.S)[0]
    assert f'year    = {{{year}}}' in entry and f'version = {{{version}}}' in entry and entry.count('{') == entry.count('}')
    assert re.search(r'^## .*BibTeX.*\{#download-and-cite\}$', page, re.M)
    own = cff.partition('preferred-citation:')[2]
    assert all(line in own for line in (f'year: {year}', f'version: {version}', re.search(r'^title: .*$', cff, re.M)[0]))


# What guidance does not sample

LIMITS = NBS_DIR/'05_limits.ipynb'


def test_the_key_result_is_a_theorem_with_its_hypotheses():
    text = cell('05_limits', '5ebd69d1')
    theorem = text[text.index('**Theorem 1 ('):text.index('{#eq-lim-density}')]
    assert re.findall(r'^(\d)\. \*', theorem, re.M) == ['1', '2', '3'] and all(w in theorem for w in ('heat equation', 'finite', 'q_{\\sigma_1}/Z', 'derivatives'))
    assert 'title="Proof"' in text


def test_one_table_says_who_samples_what_near_the_top():
    prose = [c for c in cells(LIMITS) if c['cell_type'] == 'markdown']
    place = next(i for i, c in enumerate(prose) if c['id'] == 'a3e80d15')
    assert place <= 4 and all(link in src(prose[place]) for link in ('#the-density-that-guidance-samples', '05a_doob.ipynb#', '18b_particles.ipynb#'))
    assert all(f'**{who}' in src(prose[place]) for who in ('ODE', 'SDE', 'Weighted particles'))


def test_the_opening_answer_has_the_example():
    opening = cell('05_limits', '32ed9746')
    said = next(''.join(texts(c)) for c in code(LIMITS) if c['id'] == 'c9eb45c0')
    assert all(n in opening and n in said for n in ('1.68', '1.86')) and 'story.qmd#what-is-really-sampled' in opening
    assert 'assert [round(m, 2) for m in means.values()] == [1.5, 1.68, 1.86]' in cell('05_limits', 'c9eb45c0')


def test_no_cell_prints_raw_numbers():
    "A dict, or numbers with more digits than anybody reads."
    raw = [(c['id'], t[:80]) for c in code(LIMITS) for t in texts(c) if 'svg' not in t[:20] and re.search(r'\{[\d\'"][^}]*: [\d\[]|\d\.\d{9,}', t)]
    assert raw == []
