"""The page for those who begin and who teach: it is complete, its links open what they say, and its numbers are counted."""
import csv, json, re, shutil, subprocess, sys
from fractions import Fraction

import numpy as np
import pytest
from notebooks import NBS, NBS_DIR, ROOT, cells, src

sys.path.insert(0, str(ROOT/'tools'))
import teach  # noqa: E402

TEXT = teach.PAGE.read_text(encoding='utf-8')
EXERCISES, ROWS = teach.exercises(), teach.read_rows()
PAIRS, MISSING, LOST = teach.matched(ROWS, EXERCISES)
needs_node = pytest.mark.skipif(not shutil.which('node'), reason='no node here, which runs the page\'s JavaScript')


def part(name): return re.search(rf'<!-- begin {name} -->\n(.*?)\n<!-- end {name} -->', TEXT, re.S)[1]
def page(name): return (NBS_DIR/name).read_text(encoding='utf-8')


# Exercises

def test_every_exercise_has_one_row():
    "To mend: python tools/teach.py --missing, and rows in tools/exercises.csv."
    assert not MISSING and not LOST, [e[:2] for e in MISSING] + [r[:2] for r in LOST]
    assert len(PAIRS) == len(ROWS) == len(EXERCISES) > 140


@pytest.mark.parametrize('p', NBS, ids=lambda p: p.stem)
def test_exercises_are_all_read(p):
    "Counted in another way: numbers at the beginning of lines, outside of boxes and code."
    lines, open_box, code, inside, found = teach.words_of(p).split('\n'), 0, False, False, []
    for line in lines:
        if line.startswith('## '): inside = line == '## Exercises'
        if line.startswith('```'): code = not code
        elif line.startswith(':::'): open_box += 1 if '{' in line else -1
        elif inside and not code and not open_box and (m := re.match(r'\*{0,2}(\d+)\.\*{0,2} ', line)): found.append(int(m[1]))
    assert found and found == list(range(1, len(found) + 1)) == [e.number for e in teach.exercises_of(p.stem)]
    solved = 'collapse="true"' in teach.words_of(p).partition('\n## Exercises\n')[2]
    assert solved != (f'({p.name})' in part('exercises').partition('\n')[0]), 'which chapters have no solutions'


def test_rows_say_what_the_page_knows():
    assert {r.topic for r in ROWS} == set(teach.TOPICS) and {r.level for r in ROWS} == set(teach.LEVELS)
    assert all(3 < len(r.asks) < 100 and '|' not in r.asks and not r.asks.endswith('.') for r in ROWS)
    assert len({(r.chapter, r.asks) for r in ROWS}) == len(ROWS)


def test_every_exercise_is_on_the_page_once():
    table = part('exercises')
    for e, r in PAIRS:
        line = [o for o in table.split('\n') if f'[{teach.number_of(e.chapter)}, exercise {e.number}](' in o]
        assert len(line) == 1 and r.asks in line[0] and f'| {r.level} |' in line[0], (e.chapter, e.number)
        assert (f'#exam-{e.exam})' in line[0]) == bool(e.exam) == ('examination' in line[0])
    assert table.count(', exercise ') == len(EXERCISES)
    head = re.match(r'(\d+) exercises: (\d+) \*quick\*, (\d+) \*an hour\*, (\d+) \*project\*, (\d+) \*proof\*\.', table)
    assert int(head[1]) == len(EXERCISES) == sum(map(int, head.groups()[1:]))


def test_examination_questions_are_proofs_or_computations():
    "As the list of chapter 8a says: a proof, a computation, or an argument with a fault."
    kinds = dict(re.findall(r'^\| \[(\d+)\]\([^)]*\) \| (\w+) \|', teach.words_of(NBS_DIR/'08a_picture_decisions.ipynb'), re.M))
    marked = {e.exam: r.level for e, r in PAIRS if e.exam}
    assert set(marked) == set(kinds) == {str(i) for i in range(1, 21)}
    assert all((marked[k] == 'proof') == (kinds[k] != 'computation') for k in kinds)


def test_a_new_or_changed_exercise_is_noticed():
    new = EXERCISES[0]._replace(number=99, text='Something that nobody wrote.')
    assert teach.matched(ROWS, [*EXERCISES, new])[1] == [new]
    assert teach.matched(ROWS, EXERCISES[1:])[2] == [PAIRS[0][1]]
    renumbered = [e._replace(number=e.number + 1) for e in EXERCISES]
    assert not teach.matched(ROWS, renumbered)[1]  # what stands before an exercise may change
    twice = [*ROWS, ROWS[0]._replace(begins=ROWS[0].begins[:5])]
    assert teach.matched(twice, EXERCISES)[1] == [EXERCISES[0]]


# What is counted

def test_the_page_is_what_the_tool_writes():
    "Minutes may be off by two, or a tenth: a chapter that gains a sentence does not make the page wrong."
    def plain(text): return re.sub(r'\b\d+ min\b|\b\d+ h( \d+ min)?\b|together \d+ minutes', '', re.sub(r'^(\| \[[^|]*\|) \d+ \|', r'\1 |', text, flags=re.M))
    assert plain(teach.filled(TEXT)) == plain(TEXT), 'to mend: python tools/teach.py'
    said = dict(re.findall(r'^\| \[[^\]]+\]\(([\w.]+)\) \| (\d+) \|', part('chapters'), re.M))
    said |= dict(re.findall(r'^- \[[^\]]+\]\(([\w.]+)\), (\d+) min$', TEXT, re.M))
    assert len(said) >= len(NBS)
    for name, minutes in said.items():
        now = teach.minutes_of(name.partition('.')[0])
        assert abs(int(minutes) - now) <= max(2, now/10), f'{name}: {minutes} minutes on the page, {now} counted'


def test_ways_to_read_are_as_long_as_they_say():
    total = lambda stems: sum(map(teach.minutes_of, stems))
    assert total(teach.HOUR) <= 65 and 4*60 <= total(teach.DAY) <= 7*60
    theory = [p.stem for p in NBS if '01' <= p.stem[:2] < '10']
    assert set(theory) <= set(teach.PROOFS) and list(teach.PROOFS) == sorted(teach.PROOFS)
    assert not {'00_core'} & {*teach.HOUR, *teach.DAY, *teach.PROOFS}


@pytest.mark.parametrize('text, minutes', [('word '*200, 1), ('word '*1000, 5), ('$$ x $$ '*10, 5), ('word '*200 + '\n```\n' + 'code '*999 + '\n```\n', 1),
    ('word '*200 + '\n::: {.callout-tip collapse="true" title="Solution"}\n' + 'more '*999 + '\n:::\n', 1), ('---\ntitle: ' + 'x '*999 + '\n---\n' + 'word '*600, 3)])
def test_minutes_are_those_of_the_words(text, minutes, tmp_path, monkeypatch):
    (tmp_path/'made.qmd').write_text(text, encoding='utf-8')
    monkeypatch.setattr(teach, 'NBS', tmp_path)
    assert teach.minutes_of('made') == minutes


@pytest.mark.parametrize('minutes, words', [(59, '59 minutes'), (60, '1 h'), (64, '1 h'), (118, '2 h'), (295, '5 h'), (304, '5 h'), (316, '5 h 20 min')])
def test_hours(minutes, words): assert teach.together(minutes) == words


def test_pace_is_what_the_page_says(): assert teach.PACE == 200 and teach.PAUSE == .5 and 'two hundred words a minute' in TEXT and 'half a minute more' in TEXT


def test_seconds_are_read_from_a_log(tmp_path, monkeypatch):
    monkeypatch.setattr(teach, 'SECONDS', tmp_path/'seconds.csv')
    (tmp_path/'log').write_text('Starting x\n07_extremes.ipynb: 51 secs\n00_core.ipynb: 0 secs\nindex.ipynb: 3 secs\n', encoding='utf-8')
    teach.take_seconds(tmp_path/'log')
    assert teach.read_seconds() == {'00_core': 0, '07_extremes': 51}
    (tmp_path/'log').write_text('nothing', encoding='utf-8')
    with pytest.raises(SystemExit, match='timing'): teach.take_seconds(tmp_path/'log')


def test_chapters_with_slow_cells_are_named_as_such():
    whole, cut = (set(re.findall(r'\((\w+)\.ipynb\)', o)) for o in part('run').split('\n\n'))
    slow = {p.stem for p in NBS if any(re.search(r'^#\|\s*slow\b', src(c), re.M) for c in cells(p) if c['cell_type'] == 'code')}
    assert cut == slow and not whole & slow and whole | cut == {p.stem for p in NBS} & (set(teach.read_seconds()) | slow)


# Where it stands, and how it is found

def test_it_is_near_the_top_and_linked():
    side = re.findall(r'- (?:\{.*href: )?([\w.]+\.(?:qmd|ipynb))', page('sidebar.yml'))
    assert side.index('teach.qmd') < 4
    assert '](teach.qmd' in page('story.qmd').rpartition('## In short')[2] and '](teach.qmd' in page('play.qmd')


@pytest.mark.parametrize('word', ['prerequisites', 'reading order', 'Colab', 'offline', 'exercises', 'lecture hall', 'worked example', 'examination questions'])
def test_headings_are_what_people_type(word):
    assert re.search(rf'^## .*{word}', TEXT, re.M | re.I)


def test_sentences_about_other_files():
    assert 'cdn.jsdelivr.net' in json.loads(page('play/runtime.json'))['address'] and TEXT.count('cdn.jsdelivr.net') == 1
    assert "'file:'" in page('theme/digits-page.js') and "'file:'" in page('theme/noise-page.js') and 'fetch' not in page('theme/play.js')
    assert 'fetch(' in page('theme/compare.js') and 'ten proofs, five computations and five arguments' in TEXT


# The page to play with

LINKS = re.findall(r'\]\(play\.qmd#(at=[^)]+)\)', TEXT)
PLANE, DIGITS = ([o for o in LINKS if f'at={k}&' in o] for k in ('points', 'digits'))


def run_js(code):
    "What `code` returns, with the functions of the page to play with."
    files = json.dumps([str(NBS_DIR/'theme'/f'{k}.js') for k in ('play', 'digits')])
    script = f'globalThis.Play = require({files}[0]); const Digits = require({files}[1]); console.log(JSON.stringify((() => {{ {code} }})()))'
    return json.loads(subprocess.run(['node', '-e', script], capture_output=True, text=True, check=True).stdout)


def given(link):
    "The settings of a link."
    words = dict(o.split('=') for o in link.split('&'))
    return {k: float(v) if re.fullmatch(r'[\d.]+', v) else v for k, v in words.items() if k != 'at'}


@needs_node
def test_links_open_the_settings_that_they_name():
    assert len(PLANE) >= 7 and len(DIGITS) == 2 and len(PLANE) + len(DIGITS) == len(LINKS) == TEXT.count('play.qmd#at=')
    opened = run_js(f'return [{json.dumps(PLANE)}.map(h => Play.asked("#" + h)), {json.dumps(DIGITS)}.map(h => Digits.asked("#" + h)), Play.PRESETS]')
    for link, there in zip([*PLANE, *DIGITS], [*opened[0], *opened[1]]): assert given(link).items() <= there.items(), link
    presets = [p for p in opened[2].values()]
    assert sum(there in presets for there in opened[0]) >= 6  # so that the page says something about them


@needs_node
@pytest.mark.parametrize('hash, found', [('#at=points', 'points'), ('#at=points&scale=1', 'points'), ('#scale=1&at=digits', 'digits'), ('#at=your-own-noise&by=2', 'your-own-noise'),
    ('', None), ('#points', None), ('#at=', None), ('#at=elsewhere', None), ('#at=pointsx', None), ('#cat=points', None), ('#at=constructor', None)])
def test_an_address_says_where_the_page_begins(hash, found):
    assert run_js(f'return Play.place({json.dumps(hash)}) || null') == found
    slugs = re.findall(r'^## (.+)$', page('play.qmd'), re.M)
    assert found is None or found in [s.lower().replace(' ', '-') for s in slugs]


def test_play_says_what_to_show_first_and_what_is_loaded():
    text = page('play.qmd')
    body = text[text.index('```\n', text.index('play.css')) + 4:].lstrip()
    assert body.startswith('To show guidance to others') and '[Points](#points)' in body.split('.')[0]
    rows = dict(re.findall(r'^\| \[([^\]]+)\]\(#[\w-]+\) \| [^|]+ \| ([^|]+) \|$', body, re.M))
    assert set(rows) == set(re.findall(r'^## (.+)$', text, re.M)) and rows['Points'] == 'nothing'
    setting = json.loads(page('play/runtime.json'))
    assert rows['Digits'].startswith(f"{(NBS_DIR/'play'/'digits.bin').stat().st_size/1e6:.1f} MB")
    both = sum(setting[k]['gzip'] for k in ('script', 'wasm', 'network'))
    other = both - setting['network']['gzip']
    assert rows['Your own noise'].startswith(f'{both/1e6:.1f} MB, of which {other/1e6:.1f} MB from another site') and 'a connection once' in rows['Your own noise']


# Guidance by hand, in chapter 6

LAWS = NBS_DIR/'06_laws.ipynb'
BY_HAND = teach.words_of(LAWS).partition('## Guidance by hand')[2].partition('\n## ')[0]


def value_of(formula):
    "The value of a formula of the box."
    text = formula.strip().strip('$').replace(r'\,', '').replace(r'\cdot', '*').replace('^', '**')
    text = re.sub(r'\\frac\{([^{}]+)\}\{([^{}]+)\}', r'((\1)/(\2))', text)
    text = re.sub(r'\\frac(\d)(\d)', r'(\1/\2)', text)
    return eval(re.sub(r'\)\s*\(', ')*(', text), {})


def test_by_hand_is_near_the_top_and_right():
    heads = re.findall(r'^## (.+)$', teach.words_of(LAWS), re.M)
    assert heads.index('Guidance by hand') == 1
    rows = [[o.strip() for o in line.strip('|').split('|')] for line in BY_HAND.split('\n') if line.startswith('| ') and '$' in line]
    sums = [(row[k], row[k + 1]) for row in rows for k in range(1, len(row) - 1, 2) if row[k].startswith('$')]
    assert len(sums) == 10
    for formula, value in sums:
        digits = len(value.partition('.')[2])
        assert abs(value_of(formula) - float(value)) <= .5*10**-digits + 1e-9, (formula, value)


def test_by_hand_is_the_truth():
    "Means and variances from sums over a fine grid and from two small loops, without the library."
    v_c, v_u, s, x, sigma = .5, 2., 3., .5, 1.
    grid = np.linspace(-30, 30, 60_001)
    def normal(m, v): return np.exp(-(grid - m)**2/2/v)
    def guess(m, v):
        w = normal(m, v)*np.exp(-(x - grid)**2/2/sigma**2)
        return w@grid/w.sum()
    D_u, D_c = guess(0, v_u), guess(1, v_c)
    tilted = normal(1, v_c)**s*normal(0, v_u)**(1 - s)
    mean = tilted@grid/tilted.sum()
    expected = [D_u, D_c, D_c - D_u, D_u + s*(D_c - D_u), mean, tilted@(grid - mean)**2/tilted.sum()]
    for fresh in (0, 1):  # noise levels fall by a factor, mean and variance follow a linear equation
        levels = 2e3*.999**np.arange(20_000)
        m, V = 0., levels[0]**2
        tau = levels**2
        for a, b in zip(tau[:-1], tau[1:]):
            k = (1 + fresh)/2*(s/(v_c + (a + b)/2) + (1 - s)/(v_u + (a + b)/2))
            push = (1 + fresh)/2*s/(v_c + (a + b)/2)
            gain = np.exp(k*(b - a))
            m = gain*m - push*(gain - 1)/k if abs(k) > 1e-12 else m - push*(b - a)
            V = gain**2*V + fresh*(1 - gain**2)/(2*k)
        expected += [m, V]
    said = [float(o) for o in re.findall(r'\| (-?[\d.]+) (?=\|)', BY_HAND)]
    said = said[:4] + said[6:]  # without the class itself
    assert len(said) == len(expected) == 10
    np.testing.assert_allclose(said, expected, atol=2e-3)


def test_exercise_on_scores():
    x, A = Fraction(1, 2), Fraction(3, 2)
    first = 1/(1 + np.exp(-2*float(x/A)))
    score = first*float((1 - x)/A) + (1 - first)*float((-1 - x)/A)
    text = teach.words_of(LAWS)
    for value in (float((1 - x)/A), first, score, .5 + score): assert f'{value:.3f}'.replace('-', '') in text.partition('**5.**')[2]


# Scales and weights in chapter 7

def test_weight_three_is_scale_four():
    "Where a paragraph of chapter 7 says w = 3, it says s = 4 too."
    for c in cells(NBS_DIR/'07_extremes.ipynb'):
        text = src(c) if c['cell_type'] == 'markdown' else ''.join(re.findall(r'^#\| fig-alt:.*', src(c), re.M))
        for paragraph in re.split(r'\n\n+', text):
            assert not re.search(r'\bw = 3(?![\d.])', paragraph) or 's = 4' in paragraph, paragraph[:200]


# Names of measures in the glossary

@pytest.mark.parametrize('name, words', [('fid', 'Fréchet inception distance'), ('kid', 'Kernel inception distance')])
def test_letters_are_spelled_out(name, words):
    entry = re.search(rf'\{{#{name}\}}\n:\s+(.+)\n((?:    .+\n)+)', page('glossary.qmd'))
    assert entry[1].startswith(words) and ''.join(w[0] for w in words.split()).upper() == name.upper()
    if name == 'fid':
        for word in ('means', 'covariances', 'features', 'Gaussians'): assert word in entry[1]
        for word in ('Inception', 'judges', 'tr('): assert word in entry[2]


def test_fid_of_the_glossary_is_the_formula():
    "The formula of the entry, on two sets of numbers, is the library's."
    import torch
    from cfg_course import metrics
    draw = torch.Generator().manual_seed(1)
    a, b = torch.randn(50, 3, generator=draw).double(), (1.5*torch.randn(60, 3, generator=draw) + 1).double()
    m, n, C, K = a.mean(0), b.mean(0), torch.cov(a.T), torch.cov(b.T)
    root = torch.linalg.eigvals(C@K).real.sqrt().sum()  # of a matrix whose eigenvalues are positive
    entry = re.search(r'it is (\|m.*?\))\. Lower', page('glossary.qmd'))[1]
    assert entry == '|m − m′|² + tr(C + C′ − 2 (C C′)^½)'
    by_hand = (m - n).square().sum() + torch.trace(C + K) - 2*root
    assert abs(metrics.frechet(a, b) - by_hand) < 1e-6*by_hand


# Precision and recall of photographs, chapter 24

def test_figure_of_photographs_is_from_the_files():
    nb = cells(NBS_DIR/'24_cifar10.ipynb')
    at = next(i for i, c in enumerate(nb) if 'precision: samples near' in src(c))
    table = next(i for i, c in enumerate(nb) if 'sort_remaining=False' in src(c))
    assert at < table and '#| fig-alt' in src(nb[at]) and '%' not in re.search(r'fig-alt: "(.*)"', src(nb[at]))[1]
    with (NBS_DIR/'results'/'cifar10_16_stages_plain.csv').open(newline='') as f:
        rows = {(r['metric'], float(r['scale'])): float(r['value']) for r in csv.DictReader(f) if r['model'] == 'cifar10-16'}
    says = src(nb[at + 1])
    for s in (1., 1.5, 4.):
        assert f"{rows['recall', s]:.2f}" in says and f"{rows['precision', s]:g}" in says
    assert any('image/' in k for o in nb[at]['outputs'] for k in o.get('data', {}))
