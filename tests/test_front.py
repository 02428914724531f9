"The front page: the answer in five sentences whose numbers are those of the files, the picture that explains guidance, the first links."
import io, json, re, sys
from functools import cache

import numpy as np, pandas as pd, pytest
from PIL import Image

from notebooks import NBS_DIR, ROOT, cells, settings, src

sys.path.insert(0, str(ROOT/'tools'))
import front, readme
from cfg_course.denoisers import find_model
from verdicts_said import said_of

RESULTS = NBS_DIR/'results'
INDEX = cells(NBS_DIR/'index.ipynb')
ANSWERS = ['a5e0f0c1', 'a5e0f0c4', 'a5e0f0c5']
TEXT = {c['id']: src(c) for c in INDEX}
ANSWER = '\n\n'.join(TEXT[k] for k in ANSWERS)
FIGURE, LINKS = TEXT['a5e0f0d0'], TEXT['b0153dba']
NUMBER = re.compile(r'\d+(?:[.,]\d+)*')


def table(name): return pd.read_csv(RESULTS/f'{name}.csv')


def of_the_contest(digits):
    "Phrases of the last two sentences. Where a technique becomes better, or photographs are compared, they have to be written anew."
    own, best = digits.tables.scores().set_index(['candidate', 'strength']).score, digits.tables.best().score
    assert own['cfg', 2.] - best['cfg'] > best['cfg'] - best.min(), 'choosing the scale matters more than choosing the technique'
    first = digits.tables.leaders().index[0]
    better = len(digits.better)
    assert digits.better[0] == first and better > 1 and digits.judges == 3, 'a few passed, with as many evaluations'
    assert first == 'autoguidance, middle', 'sentence 4 says which is the first'
    assert digits.passed() == {24.: [first], 48.: [], 96.: [first]}, 'sentence 5 says what is known with more steps'
    yield f'where one of these {better} proved better with 96 evaluations, and none with 48,'
    nfe = digits.tables.chosen.query("candidate == 'cfg'").nfe.iloc[0]
    yield f'of {sum(digits.counts.values())} others {better} proved better (one network, {nfe:.0f} evaluations a picture), most of all guiding against a worse network at middle noise levels, whose FID is {digits.gain(first)} % lower, depending on who judges.'
    yield f'any of the {digits.counts["undecided"]} that [three judges leave undecided]'
    yield f'({digits.counts["worse"]} are worse)'
    side = find_model('cifar10-16')[1]['shape'][-1]
    photos = said_of('cifar10-16')
    assert photos.counts['better'] == 0, 'sentence 5 says that none is'
    yield f'photographs of {side} × {side} pixels, where none of {sum(photos.counts.values())} proved better,'


@cache
def all_facts(): return list(facts())


def facts():
    "Phrases of the five sentences, from the files."
    mean = table('mnist_tradeoff').groupby(['metric', 'scale']).value.mean()
    fid, recall, known = mean['fid'], 100*mean['recall'], 100*mean['accuracy']
    best = fid.idxmin()
    blind = table('mnist_tradeoff_unlabelled').query("metric == 'fid'").groupby('scale').value.mean()
    assert (fid[best + .01:].diff().dropna() > 0).all() and f'{known[3]:.1f}' == '100.0' and (mean['class_std'][1:].diff().dropna() < 0).all()
    yield f'at 1 there is no guidance, at {best:g} our digits are closest to real ones (their FID, a distance, falls from {fid[1]:.1f} to {fid[best]:.1f}; by a judge that never saw a label it is lowest at {blind.idxmin():g})'
    yield f'at scale 3 every digit is recognised, but only {recall[3]:.0f} % of real digits have a drawn one like them, where without guidance {recall[1]:.0f} % have one'
    yield f'between scales {best:g} and 2 the FID of our digits rises from {fid[best]:.1f} to {fid[2.]:.1f}'
    yield from of_the_contest(said_of('mnist-a'))
    yield from (f'{k}. **' for k in range(1, 6))
    nfe = table('mnist_tradeoff').groupby('scale').nfe.first()
    assert nfe[2.] == 2*nfe[1.]
    yield 'two evaluations of the network instead of one'


def unexplained(text):
    "Phrases that the sentences lack, and numbers that no phrase has."
    phrases = all_facts()
    spans = [m.span() for p in phrases for m in re.finditer(re.escape(p), text)]
    return [p for p in phrases if p not in text] + [text[m.start() - 20:m.end() + 20] for m in NUMBER.finditer(text) if not any(a <= m.start() and m.end() <= b for a, b in spans)]


def test_numbers_are_those_of_the_files(): assert unexplained(ANSWER) == []


def test_any_other_number_would_be_noticed():
    numbers = list(NUMBER.finditer(ANSWER))
    assert len(numbers) > 20
    for m in numbers:
        wrong = m[0][:-1] + str((int(m[0][-1]) + 1) % 10)
        assert unexplained(ANSWER[:m.start()] + wrong + ANSWER[m.end():]), ANSWER[m.start() - 20:m.end() + 20]


def test_it_opens_with_five_sentences():
    "Directly below the title; one sentence each, after the question that it answers; which kind to use has a cell of its own."
    assert [c['id'] for c in INDEX][1:6] == [*ANSWERS, 'a5e0f0d0', 'b0153dba']
    items = re.findall(r'^(\d)\. \*\*(.+?\?)\*\* (.+)$', ANSWER, re.M)
    assert [k for k, *_ in items] == list('12345') and len(ANSWER.split('\n')) == 7
    for _, question, answer in items:
        text = re.sub(r'\]\([^)]*\)', ']', answer)
        assert text.endswith('.') and not re.search(r'[.!?] ', text) and len(text.split()) < 60, question
    assert TEXT['a5e0f0c4'].startswith('4. **Which kind') and '\n' not in TEXT['a5e0f0c4']


def test_then_the_picture():
    alt, target = re.match(r'!\[(.+)\]\((.+?)\)\n', FIGURE).groups()
    assert len(alt) > 200 and NBS_DIR/target == front.OUT
    path = json.loads((front.STORY/'story.json').read_text())['path']
    assert f'with the label {path["label"]}, ' in alt and f'at scale {path["scale"]:g}, ' in alt and 'at four moments' in alt and len(front.MOMENTS) == 4


def test_the_picture_is_that_of_the_story():
    pytest.importorskip('matplotlib')
    made, there = (np.asarray(Image.open(o).convert('RGBA')).astype(int) for o in (io.BytesIO(front.compose()), front.OUT))
    assert made.shape == there.shape and np.abs(made - there).mean() < 1
    side, step = front.SIDE*front.TIMES, front.SIDE*front.TIMES + front.GAP
    for j, (name, _) in enumerate(front.ROWS):
        row = np.asarray(Image.open(front.STORY/f'path-{name}.png').convert('RGB')).astype(int)
        for k, i in enumerate(front.MOMENTS):
            x, y = front.LEFT + k*step, front.TOP + j*step
            shown = there[y + 2:y + side:front.TIMES, x + 2:x + side:front.TIMES, :3]
            assert np.abs(shown - row[:, front.SIDE*i:front.SIDE*(i + 1)]).max() < 48 and np.abs(shown - row[:, front.SIDE*i:front.SIDE*(i + 1)]).mean() < 8


def test_then_the_first_links():
    site = settings()['doc_host'] + settings()['doc_baseurl']
    assert LINKS.startswith('## In a minute')
    assert re.findall(r'\]\(([^)]+)\)', LINKS)[:4] == [f'{site}/{k}.html' for k in ('story', 'play', 'compare')] + ['#chapters']
    assert any(src(c).startswith('## Chapters') for c in INDEX)


def test_it_is_light():
    "The page's own pictures and words; styles, letters and scripts of the site are 340 KB at most."
    pictures = {t for c in INDEX for t in re.findall(r'!\[[^\]]*\]\(([^)]+)\)', src(c)) if not t.startswith('http')}
    assert pictures == {'results/guidance_path.png'}
    assert sum((NBS_DIR/t).stat().st_size for t in pictures) + sum(len(src(c).encode()) for c in INDEX) < 60_000


def test_it_needs_no_formulas_of_katex():
    "They are 125 KB of scripts and letters."
    assert [c['id'] for c in INDEX if re.search(r'\$[^$\n]+\$', re.sub(r'```.*?```|`[^`]*`', '', src(c), flags=re.S))] == []
    assert 'D<sub>u</sub> + s (D<sub>c</sub> − D<sub>u</sub>)' in FIGURE


def test_the_readme_begins_alike():
    text = readme.readme(dict(cells=INDEX))
    assert text == (ROOT/'README.md').read_text(encoding='utf-8') and '](nbs/results/guidance_path.png)' in text[:4000]
