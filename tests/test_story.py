"The story page: its numbers are those of the files, its pictures those of the model, and its figures can do without JavaScript."
import json, math, re, shutil, subprocess, sys
from html.parser import HTMLParser

import numpy as np, pandas as pd, pytest, torch
from PIL import Image

from cfg_course.catalogue import SHELVES
from cfg_course.core import NULL
from cfg_course.evidence import kendall
from cfg_course.guidance import guide
from cfg_course.mixtures import three_gaussians
from cfg_course.pictures import find_world
from cfg_course.samplers import sample
from cfg_course.standings import read_limits
from notebooks import NBS_DIR, ROOT, cells, src
from verdicts_said import said_of

sys.path.insert(0, str(ROOT/'tools'))
import story

PAGE, SCRIPT, PICTURES, RESULTS = NBS_DIR/'story.qmd', NBS_DIR/'theme'/'story.js', NBS_DIR/'story', NBS_DIR/'results'
TEXT, MADE = PAGE.read_text(encoding='utf-8'), json.loads((PICTURES/'story.json').read_text())
RAW = ''.join(re.findall(r'^```\{=html\}\n(.*?)^```$', TEXT, re.M | re.S))
needs_node = pytest.mark.skipif(not shutil.which('node'), reason='no node here, which runs the page\'s JavaScript')


def table(name): return pd.read_csv(RESULTS/f'{name}.csv')
def pixels(name): return np.asarray(Image.open(PICTURES/f'{name}.png')).astype(int)


def run_js(code):
    "What `code` returns as JSON, with the page's functions in `Story` and those of the page to play with in `Play`."
    files = json.dumps([str(SCRIPT), str(SCRIPT.with_name('play.js'))])
    script = f'const [Story, Play] = {files}.map(f => require(f)); (async () => {{ {code} }})().then(v => console.log(JSON.stringify(v)))'
    done = subprocess.run(['node', '-e', script], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


# Numbers: every one of the prose stands in a phrase that is made from the files

def signed(v, digits=0): return f'{v:,.{digits}f}'.replace('-', '−')
def bracket(o, digits=2): return f'{o.value:.{digits}f} ({o.low:.{digits}f} to {o.high:.{digits}f})'


def trade_off():
    "Rows of the table of what guidance costs."
    mean = table('mnist_tradeoff').groupby(['scale', 'metric']).value.mean().unstack()
    real = table('mnist_floor').query("judge == 'mnist-fit'").groupby('metric').value.mean()
    line = lambda name, o: f'| {name} | {100*o.accuracy:.1f} % | {o.fid:.1f} | {100*o.recall:.0f} % | {o.class_std:.3f} |'
    return [line(f'{s:g}', mean.loc[s]) for s in (0, 1, 1.25, 1.5, 2, 3, 5, 10)] + [line('real digits', real)]


def of_the_network():
    "What is said of the small generator and of its digit."
    o, (first, *_, last) = MADE['path'], MADE['path']['levels']
    drop = json.loads((ROOT/'cfg_course'/'weights'/'mnist-a.json').read_text())['train']['p_uncond']
    assert drop == .1 and o['scale'] == story.PATH['scale'] and o['label'] == 8
    u, c, s = .1, .4, 3
    yield from [f'{story.SIDE} × {story.SIDE} pixels', 'draw an 8.', 'black is −1, white is 1', f'After {o["steps"]} such steps']
    yield from ['at noise level 2 every pixel is off by about 2', 'if it is an 8*?', 'it is a soft 8.', 'strokes of an 8,']
    yield from ['where a 0 would have ink and an 8 has none', 'about *being an 8*', 'that this is an 8,']
    yield f'the difference is {o["size"][0]:.1f} at noise level {first:.1f}, and {o["size"][-1]:.1f} at noise level {last:.1f}'
    yield f'the network guesses {u}, with the label {c}. The difference is {c - u:.1f}.'
    yield f'At scale {s} the guided guess is {u} + {s} × {c - u:.1f} = {u + s*(c - u):.1f}, which is white'
    yield from [f'At scale 1 the formula gives {c},', f'At scale 0 it gives {u},', 'w = s - 1', 'so that 0 means no guidance']
    yield f'two numbers instead of {story.SIDE**2}.'
    yield from ['At 0 the label is ignored', 'At 1 most digits', 'Between 1 and 2 these mend', f'At {max(story.SCALES):g} nobody']


def of_the_costs():
    t = table('mnist_tradeoff')
    mean, nfe = t.groupby(['metric', 'scale']).value.mean(), t.groupby('scale').nfe.first()
    best, fid, recall = mean['fid'].idxmin(), mean['fid'], 100*mean['recall']
    stages = {k: o.sort_values('images') for k, o in table('cifar10_16_best').groupby('judge')}
    images = [f'{n/1e6:.1g}' for n in stages['plain'].images]
    a, b = ([f'{v:.1f}' for v in stages[k].best] for k in ('plain', 'residual'))
    samples = t.groupby('seed').samples.first().sum()
    yield f'{nfe[2]} for a picture in {nfe[1]} steps, instead of {nfe[1]}.'
    yield f'measured on {samples:,} digits at each scale'
    yield from trade_off()
    yield f'At scale 3 every digit is recognised, but only {recall[3]:.0f} % of the real digits have a drawn one like them; without guidance it is {recall[1]:.0f} %'
    yield f'is lowest at scale {best:g}, a quarter above'
    yield f'After {images[0]} million pictures its FID was lowest at scale {a[0]}, after {images[1]} million at {a[1]}, after {images[2]} million at {a[2]} and at the end, after {images[3]} million, at {a[3]}.'
    yield f'(A second judge says {b[0]}, {b[1]}, {b[2]} and {b[3]}:'
    yield from ['[Chapter 22](22_mnist.ipynb)', 'two more judges', '[chapter 24](24_cifar10.ipynb)']
    yield f'an FID of {fid[1]:.1f} at scale 1 and of {fid[best]:.1f} at {best:g}'
    yield f'FID goes from {fid[best]:.1f} to {fid[2]:.1f} between scales {best:g} and 2'
    early, late = stages['plain'].best.iloc[0], stages['plain'].best.iloc[-1]
    assert 1 < late < 2 < early < 3
    yield from ['Begin between 1 and 2, or at 2 to 3 for', 'larger scales; 7.5 is the usual setting of Stable Diffusion']


def of_the_paradox():
    t = table('repair_real')
    at = lambda model, sigma: t[(t.model == model) & (t.sigma == sigma)].iloc[0]
    above = t[t.low > 1]
    assert len(t) == 18 and list(zip(above.model, above.sigma)) == [('cifar10-16', t.sigma.max())]
    assert (t[(t.model == 'cifar10-16') & (t.sigma < t.sigma.max())].value < 1).all() and at('mnist-a', .1).high < 1
    yield f'For `mnist-a` the answer is {bracket(at("mnist-a", 2))} at noise level 2. At noise level 0.1 it is {bracket(at("mnist-a", .1))},'
    yield from ['are 95 % intervals', 'never ask for more than 1 beyond', 'for less than 1.']
    yield f'ask for {bracket(at("cifar10-16", 20))}'


def of_the_exact_world():
    world, _ = find_world('digits-world')
    samplers, scales, trained = table('repair_samplers'), table('repair_scales'), table('repair_trained')
    exact = samplers[(samplers.who == 'exact') & (samplers.steps == 72)].set_index('scale')
    gain, samples = scales[scales.who.str.match(r'\d+k$')].groupby('who').gain.max(), scales.samples.unique()
    assert exact.gain.max() > 1.96*exact.gain_error[exact.gain.idxmax()] and len(gain) == 4 and len(samples) == 1
    up, twin = (trained[trained.who == k].set_index('scale') for k in ('on its path', 'on data'))
    assert up.log_prob.idxmax() == 1 and (up.gain + 1.96*up.gain_error)[1.1:].max() < 0 and twin.log_prob.idxmax() > 1
    asked = table('repair_asked')
    data, path = (min(asked[(asked.who == '640k') & (asked['where'] == w)].itertuples(), key=lambda o: abs(o.sigma - .3)) for w in ('data', 'path'))
    schedules = table('repair_schedule')
    held = asked[(asked['where'] == 'data') & asked.sigma.between(.3, 5.5) & asked.who.isin(['10k', '40k', '160k', '640k'])]
    assert set(held[(held.low > 1.1) | (held.high < .9)].who) == {'10k'}
    best = table('repair_best')
    sure = best[(best.asked_low > 1) & (best.kind == 'network')]
    assert len(sure) and (sure.best > 1).all()
    intervals = schedules[schedules.technique.str.contains(' in ')]
    assert len(intervals) == 15 and schedules.set_index("technique").log_prob['asked schedule'] < intervals.log_prob.max()
    yield from ['[chapter 8](08_pictures.ipynb)', '[chapter 26](26_guidance_repairs.ipynb)', '[Chapter 26](26_guidance_repairs.ipynb)']
    yield f'out of {len(world.labels)} flat sheets'
    yield f'One nat more means {math.e:.1f} times as likely; ten nats more, {math.e**10:,.0f} times'
    yield f'with 72 steps and at its best scale guidance gains {exact.gain.max():.2f} nats, of {exact.log_prob[1.]:,.0f}.'
    yield f'gain between {gain.min():,.0f} and {gain.max():,.0f} nats from their best scale, in the mean over {samples[0]:,} pictures'
    yield f'At noise level 0.3 the well trained network should be guided at {bracket(data)} on pictures with noise, and at {bracket(path)} on its own path'
    yield 'and a scale above 1 makes up for that'
    yield f'every scale above 1 that was tried makes its pictures less likely, by {-up.gain[1.1:].max():.0f} nats or more'
    yield f'it reaches {signed(up.log_prob[1.])} nats, where a twin, trained as long without its path, has {signed(twin.log_prob.max())} at its best scale'
    yield f'is {up.along[1.]:.2f} times the true one, that of the twin without guidance {twin.along[1.]:.2f}.'
    yield from ['that ask for more than 1 on their path are best above 1.', 'The network with 10,000 pictures', f'the best of {len(intervals)} simple ones']


def of_what_is_sampled():
    guided = next(c for c in cells(NBS_DIR/'05_limits.ipynb') if ', boxes = ' in src(c) and 'transport' in src(c))
    rows = [re.findall(r'\d[\d.]*', line) for line in guided['outputs'][0]['data']['text/markdown'] if re.search(r'\d', line)]
    means = dict(zip(*(map(float, row) for row in rows), strict=True))
    factor = {s: .5*s*(s - 1) for s in (1, 2, 4)}
    assert abs(means[1.] - 1.5) < 1e-3
    yield from ['p(c\\mid x)^s', 'between 1 and 2, equally likely, with the mean 1.5.', 'lies between −2 and −1.', 'and 1 to any power is 1.']
    yield 'at every scale, with the mean 1.5.'
    yield f'have the mean {means[2.]:.2f} at scale 2, and {means[4.]:.2f} at scale 4'
    yield f'At scale 1 the factor is {factor[1]:.0f}, at scale 2 it is {factor[2]:.0f}, at scale 4 it is {factor[4]:.0f}.'
    yield from ['½ $s(s-1)$', '[Chapter 5](05_limits.ipynb)', '[chapter 5a](05a_doob.ipynb)', '[chapter 18b](18b_particles.ipynb)']


def of_the_interval(digits):
    "One judge against two."
    own = digits.tables.last_gains().query("candidate == 'interval, middle'").sort_values('gain')
    assert own.low.iloc[2] > 0 and (own.low.iloc[:2] < 0).all() and (own.high.iloc[:2] > 0).all(), 'one is sure, two are not'
    assert digits.verdict('interval, middle') == ('undecided', 'undecided')
    yield f'At equal work one judge is sure that it lowers FID, by {own.gain.iloc[2]:.0f} %, and two see no clear change.'
    own = digits.tables.chosen.set_index('candidate').loc['interval, middle'].iloc[0]
    nfe = table('mnist_tradeoff').groupby('scale').nfe.first()
    assert set(nfe[[0, 1]]) == {nfe.min()} and set(nfe.drop([0, 1])) == {2*nfe.min()}
    yield 'any scale but 0 and 1 doubles the work'
    as_many = digits.tables.last_gains('steps').query("candidate == 'interval, middle'")
    assert (as_many.high < 0).sum() == 2 and (as_many.low > 0).sum() == 0
    yield f'With as many steps it saves {100 - 50*own.nfe/own.steps:.0f} % of the work, and two of three judges are sure of a higher FID.'


def of_the_techniques():
    tree = table('toy_tree').query("metric == 'outliers'").set_index(['method', 'scale']).value
    digits = said_of('mnist-a')
    nats = table('repair_techniques').query("who == '640k'").set_index('technique')
    won = lambda k: f'{abs(nats.gain[k]):,.0f} ± {1.96*nats.gain_error[k]:,.0f}'
    assert nats.gain.autoguidance < 0 < nats.gain.cfg
    yield f'This course has [{sum(map(len, SHELVES.values()))} techniques](18c_catalogue.ipynb)'
    yield f'drew {digits.samples:,} digits with each of {sum(digits.counts.values())} techniques and variants'
    assert digits.judges == 3 and len(digits.better) == 4, 'the page says that four are better'
    yield f'{len(digits.better)} have a lower FID than plain guidance at its best; {digits.counts["worse"]} have a higher one. The other {digits.counts["undecided"]} are *undecided*.'
    again, full = digits.tables.second, digits.tables.full
    assert full.rows.samples.max() == 10*digits.samples
    assert digits.tables.chosen.model.nunique() == 1 and again.rows.model.nunique() == 3
    yield f'{again.rows.candidate.nunique() - 1} of them, were drawn again with other noise, from up to three networks, {digits.tables.final.rows.candidate.nunique() - 1} of these once more, and {full.rows.candidate.nunique() - 1} with ten times as many digits.'
    best = digits.tables.best().score
    curve = digits.tables.scores().set_index(['candidate', 'strength']).score
    assert curve['cfg', 2.] - best['cfg'] > best['cfg'] - best.min(), 'no technique gains nearly as much'
    yield f'autoguidance at scale 2 lost {won("autoguidance")} nats, where plain guidance at scale 2 won {won("cfg")}.'
    yield f'{100*tree["guidance", 3]:.1f} % of the samples lie outside of the trees with plain guidance at scale 3, and {100*tree["autoguidance", 3]:.1f} % with autoguidance at the same scale ({100*tree["guidance", 1]:.1f} % without any)'
    first = digits.tables.gains().groupby('candidate').gain.min().drop('cfg').idxmax()
    assert first == 'cfgig' and digits.verdict(first)[0] == 'better', 'it came out first at the start'
    leader = digits.tables.leaders().index[0]
    assert leader == 'autoguidance, middle' and digits.passed() == {24.: [leader], 48.: [], 96.: [leader]}, 'the page says that it passed, and with which steps it is open'
    yield f'the FID of autoguidance at middle noise levels was {digits.gain(leader)} % lower.'
    yield f'With four times as many the first is better, by {digits.final_gain(leader, 96.)} %.'
    more = digits.finals[48.]
    gains = more.gains().query('candidate == @leader').set_index('judge').gain.sort_values()
    plain = more.rows.query("candidate == 'cfg' and metric == 'fid'").groupby('judge').value.mean()
    floor = table('evidence_floor').set_index('judge').at_1000
    assert abs(gains.iloc[0]) < 2 and abs(plain[gains.index[0]]/floor[gains.index[0]] - 1) < .05, 'the third sees nothing, and why'
    yield f'With twice as many two judges see it, by {gains.iloc[1]:.0f} and {gains.iloc[2]:.0f} %; the third only once FID is'
    far = read_limits('mnist-a', RESULTS).query('candidate == @leader and evaluations == 48')
    assert far.low.min() > 0, 'extrapolated, all judges see it'
    unguided = table('contest_mnist-a_unguided').query("candidate == 'cfgig' and steps == 15 and metric == 'fid'").set_index('judge').value
    assert unguided.div(digits.tables.values().loc[first]).sub(1).abs().max() < .02, 'the page says that it led without guidance too'
    yield from of_the_interval(digits)
    photos = said_of('cifar10-16')
    assert photos.counts['better'] == 0
    away = photos.tables.last_gains().query('candidate == @leader')
    assert (away.low > 0).any() and (away.high < 0).any(), 'judges contradict each other'
    assert photos.verdict(leader)[0] == 'undecided'
    yield f'There none of {sum(photos.counts.values())} techniques is better, and {photos.counts["worse"]} are worse. On the winner judges contradict each other.'
    ours, theirs = digits.tables.values(), photos.tables.values()
    both = theirs.index.intersection(ours.index)
    like = [kendall(ours.loc[both, a], theirs.loc[both, b]) for a, b in zip(ours, theirs)]
    yield f"Kendall's τ (1 for the same order, 0 for none) is {min(like):.2f} to {max(like):.2f}, depending on the judge"
    yield from re.findall(r'\[[^\]]+\]\(\d\d[a-z]?_\w+\.ipynb(?:#[\w-]+)?\)', TEXT)


FACTS = of_the_network, of_the_costs, of_the_paradox, of_the_exact_world, of_what_is_sampled, of_the_techniques
NUMBER = re.compile(r'\d+(?:[.,]\d+)*|½')


def prose(text=TEXT):
    "The page without its head and without its figures."
    text = re.sub(r'\A---.*?^---$', '', text, flags=re.M | re.S)
    return re.sub(r'^```\{=html\}\n.*?^```$', '', text, flags=re.M | re.S)


@pytest.fixture(scope='module')
def phrases(): return [p for f in FACTS for p in f()]


def unexplained(text, phrases):
    "Phrases that the page lacks, and numbers of the page that no phrase has."
    spans = [m.span() for p in phrases for m in re.finditer(re.escape(p), text)]
    lost = [p for p in phrases if p not in text]
    return lost + [text[m.start() - 30:m.end() + 20] for m in NUMBER.finditer(text) if not any(a <= m.start() and m.end() <= b for a, b in spans)]


def test_every_number_is_that_of_the_files(phrases):
    assert unexplained(prose(), phrases) == []


def test_any_other_number_would_be_noticed(phrases):
    text = prose()
    numbers = list(NUMBER.finditer(text))
    assert len(numbers) > 150
    for m in numbers:
        wrong = '¼' if m[0] == '½' else m[0][:-1] + str((int(m[0][-1]) + 1) % 10)
        assert unexplained(text[:m.start()] + wrong + text[m.end():], phrases), text[m.start() - 30:m.end() + 20]


def test_numbers_in_the_figures():
    rows = table('repair_guide')
    for who in story.ROWS:
        said = re.search(rf'data-who="{who}">(.*?)</div>', RAW)[1]
        assert re.findall(r'<span>(.*?)</span>', said) == [signed(v) for v in rows[rows.who == who].sort_values('scale').log_prob]
    heads = [re.findall(r'<span>(.*?)</span>', o) for o in re.findall(r'class="story-heads(?: six)?"[^>]*>(.*?)</div>', RAW)]
    assert heads[0] == [f'{v:.1f}' for v in MADE['path']['levels']] and heads[1] == [str(k) for k in range(10)]
    assert heads[2] == ['scale 1', *(f'{s:g}' for s in sorted(set(rows.scale))[1:])]
    assert {'640,000 pictures', '10,000 pictures'} <= set(re.findall(r'network, ([\d,]+ pictures)', RAW))
    assert f'scales {", ".join(f"{s:g}" for s in story.STILL[:-1])} and {story.STILL[-1]:g}.' in RAW and 'alt="Six' in RAW


def test_dictionary_of_the_note():
    assert MADE['strip']['scales'] == story.SCALES and len(story.SCALES) == 25 and (story.SCALES[0], story.SCALES[-1]) == (0, 8)
    asked = dict(model=story.MODEL, seed=story.SEED, sampler=story.SAMPLER, steps=story.STEPS, noises=story.NOISES, side=story.SIDE)
    assert MADE['strip'].items() >= asked.items() and set(MADE) == set(story.PARTS)
    assert {k: MADE['path'][k] for k in ('label', 'seed', 'scale')} == {k: story.PATH[k] for k in ('label', 'seed', 'scale')}


# Pictures

def test_sizes():
    files = {p.name: p.stat().st_size for p in PICTURES.iterdir()}
    assert 100_000 < files['strip.png'] < 800_000 and sum(files.values()) < 1_000_000
    assert pixels('strip').shape == (25*story.NOISES*story.SIDE, 10*story.SIDE) and pixels('strip').max() == 255


@pytest.mark.parametrize('scale, number', [(0., 13), (2.5, 26), (8., 49)])
def test_frames_are_what_the_model_draws(scale, number):
    "One digit of three frames, drawn alone, is that of the strip to one grey level, and no other frame has it."
    row, col, side = number//10, number % 10, story.SIDE
    drawn = story.as_strip(story.draw(scale, [number]), 1).astype(int)
    found = pixels('strip').reshape(25, story.NOISES, side, 10, side)[:, row, :, col]
    away = np.abs(found - drawn).max((1, 2))
    assert away[story.SCALES.index(scale)] <= 1 < np.delete(away, story.SCALES.index(scale)).min()


def test_picture_without_javascript_is_of_the_strip():
    frames = pixels('strip').reshape(25, story.NOISES*story.SIDE, -1)
    rows = [frames[story.SCALES.index(s), :story.SIDE] for s in story.STILL]
    assert (pixels('still') == np.concatenate(rows)).all()


def test_path_is_what_the_model_says(monkeypatch):
    made = {}
    monkeypatch.setattr(story, 'save', lambda picture, name: made.setdefault(name, picture.astype(int)))
    again = story.path()
    assert again['levels'] == MADE['path']['levels'] and np.allclose(again['size'], MADE['path']['size'], atol=.011)
    for name in ('noisy', 'none', 'label', 'guided', 'end'): assert np.abs(made[f'path-{name}'] - pixels(f'path-{name}')).max() <= 1
    early = np.abs(made['path-difference'] - pixels('path-difference'))[:, :3*story.SIDE] # later ones are tiny and stretched
    assert early.max() <= 2
    assert set(made) == {p.stem for p in PICTURES.glob('path-*.png')}


def test_digits_of_the_exact_world():
    "They are those of chapter 26, in its order, and the first row can be drawn again, with its likelihoods."
    grid = np.asarray(Image.open(RESULTS/'repair_guide.png').convert('L')).astype(int)
    assert (np.concatenate([pixels(f'world-{k}') for k in story.ROWS]) == grid).all()
    rows = table('repair_guide')
    assert list(dict.fromkeys(rows.who)) == story.ROWS
    world, _ = find_world('digits-world')
    want = rows[rows.who == 'exact'].set_index('scale').log_prob
    y = torch.tensor([3])
    for s in (1., 3.):
        x = sample(guide(world, scale=s), y, world.shape, 'dpmpp', 26, steps=18)
        assert abs(world.log_prob(x.double(), 0., y).item() - want[s]) < .5
        i = list(want.index).index(s)*story.SIDE
        assert np.abs(story.as_strip(x, 1).astype(int) - pixels('world-exact')[:, i:i + story.SIDE]).max() <= 1


def test_command_names_its_parts(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['story.py', 'strop'])
    with pytest.raises(SystemExit): story.main()
    assert "no part 'strop'; there are strip, path, world, arrows" in capsys.readouterr().err


# The script

@needs_node
def test_script_knows_the_sprite():
    scales, noises, side, usual, frames = run_js('return [Story.SCALES, Story.NOISES, Story.SIDE, Story.SCALES[Story.USUAL], Story.SCALES.map((_, k) => Story.frame(k))]')
    assert (scales, noises, side, usual) == (story.SCALES, story.NOISES, story.SIDE, 1)
    assert [o['y'] for o in frames] == [k*noises*side for k in range(25)]
    assert {(o['width'], o['height']) for o in frames} == {(pixels('strip').shape[1], noises*side)}
    slider = re.search(r'<input[^>]*data-part="scale" min="(\d+)" max="(\d+)" step="1" value="(\d+)"', RAW).groups()
    assert [int(v) for v in slider] == [0, len(scales) - 1, scales.index(1)]


HOSTILE = ['', '#', '#scale', '#scale=', '#scale=9', '#scale=-1', '#scale=1e0', '#scale=0x2', '#scale=2,5', '#scale=0.1', '#scale=Infinity',
           '#scale=NaN', '#scale= 2', '#scale=2 ', '#scale=2\n', '#scale=2&scale=3', '#SCALE=2', '#scale=%32', '#%E0%A4%A', '#the-paradox',
           '#scale=__proto__', '#scale=<script>alert(1)</script>', '#scale=2.0000000001', '#scale=' + '9'*10000, '#scale=٣']


@needs_node
def test_addresses():
    "Every scale has an address that leads back to it, and whatever else stands there opens the usual one."
    there, back, other = run_js(f'return [Story.SCALES.map((_, k) => k), Story.SCALES.map((_, k) => Story.asked(Story.address(k))), {json.dumps(HOSTILE)}.map(Story.asked)]')
    assert there == back and set(other) == {story.SCALES.index(1)}


@needs_node
def test_guided_guess_of_the_script():
    "From the two pictures that the page has, what Python drew; but for rounding, which the scale multiplies, and black and white that were cut."
    u, c, want = (pixels(f'path-{k}').ravel() for k in ('none', 'label', 'guided'))
    found, ones, zeros = np.array(run_js(f'const u = {u.tolist()}, c = {c.tolist()}; return [3, 1, 0].map(s => u.map((v, k) => Story.guess(v, c[k], s)))'))
    inside = (u > 0) & (u < 255) & (c > 0) & (c < 255)
    assert np.abs(found - want)[inside].max() <= 3 and inside.mean() > .3 and np.abs(found - want).mean() < 1.5
    assert (ones == c).all() and (zeros == u).all() and found.min() >= 0 and found.max() <= 255


@needs_node
@pytest.mark.parametrize('o', [{k: v for k, v in story.SPOT.items() if k != 'x'} | dict(x=story.SPOT['x'][0], y=story.SPOT['x'][1]),
                               dict(x=-4., y=4., sigma=.2, scale=8., label=0), dict(x=0., y=0., sigma=5., scale=0., label=0)])
def test_arrows_are_those_of_the_package(o):
    world, x = three_gaussians(), torch.tensor([[o['x'], o['y']]], dtype=torch.float64)
    u, c = (world(x, o['sigma'], torch.tensor([k]))[0] for k in (NULL, o['label']))
    found = run_js(f'return Story.guesses(Play, {json.dumps(o)})')
    for name, want in dict(u=u, c=c, guided=u + o['scale']*(c - u)).items():
        assert np.allclose(found[name], want, atol=1e-8)
        if o['scale'] == story.SPOT['scale']: assert np.allclose(MADE['arrows'][name], want, atol=6e-4)


@needs_node
def test_words_of_the_script():
    assert run_js('return [0, .5, 1, 1.25, 3].map(Story.words)') == [
        '0, the label is ignored', '0.5, the label counts for less', '1, no guidance', '1.25, w = 0.25', '3, w = 2']
    assert run_js('return [Story.place([-.04, 1.26]), Story.place([-1, 0])]') == ['(0.0, 1.3)', '(−1.0, 0.0)']


@needs_node
def test_a_figure_that_cannot_live_keeps_its_picture():
    "Without play.js, without pictures: controls stay hidden, pictures stay, a sentence says why; the others go on."
    code = '''globalThis.Image = class { set src(_) { setTimeout(() => this.onerror(new Error('lost'))) } }
              const figure = name => { const parts = Object.fromEntries(['live', 'still', 'why'].map(k => [k, {hidden: k !== 'still'}]))
                return {dataset: {story: name}, parts, querySelector: () => null, querySelectorAll: q => [parts[q.slice(6, -1)]]} }
              const all = ['strip', 'path', 'plane', 'nothing'].map(figure)
              await Story.open({querySelectorAll: () => all}, null)
              return all.map(r => Object.values(r.parts).map(e => e.hidden))'''
    assert run_js(code) == [[True, False, False]]*4


# The page

class Tags(HTMLParser):
    "All tags of a text with their attributes."
    def __init__(self, text): super().__init__(); self.found = []; self.feed(text)
    def handle_starttag(self, tag, attrs): self.found.append((tag, dict(attrs)))


TAGS = Tags(RAW).found


def test_files_of_the_figures_are_there():
    asked = [o.get('src') or o.get('href') for tag, o in TAGS if tag in ('img', 'script', 'link')] + re.findall(r"loaded\('([^'$]+)'\)", SCRIPT.read_text())
    assert len(asked) > 12 and [o for o in asked if not (NBS_DIR/o).is_file()] == []
    used = {o.removeprefix('story/') for o in asked}
    assert {p.name for p in PICTURES.glob('*.png')} - used == {'path-end.png'}
    site = (ROOT/'_quarto.yml').read_text(encoding='utf-8')
    carried = re.search(r'resources: \[(.*)\]', site)[1].split(', ')
    assert {'theme/story.js', 'theme/story.css', 'theme/play.js', 'story'} <= set(carried)


def test_pictures_and_controls_have_words():
    for tag, o in TAGS:
        if tag == 'img':
            assert len(o['alt']) > 40
            size = Image.open(NBS_DIR/o['src']).size
            assert (int(o['width']), int(o['height'])) == size
        if tag == 'canvas': assert o['role'] == 'img' and len(o['aria-label']) > 40
    labelled = {o['for'] for tag, o in TAGS if tag == 'label' and 'for' in o}
    inputs = re.findall(r'(<label>(?:(?!</label>).)*)?<input([^>]*)>', RAW)
    assert len(inputs) == 6
    for inside, rest in inputs: assert inside or re.search(r'id="([\w-]+)"', rest)[1] in labelled
    assert len({o['alt'] for tag, o in TAGS if tag == 'img'}) == sum(tag == 'img' for tag, _ in TAGS)


def test_without_javascript_there_is_a_picture_and_no_dead_control():
    assert all('hidden' in o for _, o in TAGS if 'data-live' in o) and not any('hidden' in o for _, o in TAGS if 'data-still' in o)
    for figure in re.findall(r'<figure.*?</figure>', RAW, re.S):
        if 'data-story=' not in figure: continue
        assert 'data-still' in figure and 'data-why hidden' in figure and '<noscript>' in figure
        bare = re.sub(r'<(div|canvas)[^>]*data-live.*?</\1>\n(?=<figcaption|</div>|</figure)', '', figure, flags=re.S)
        assert '<img' in bare


def test_every_part_that_the_script_asks_for_is_there():
    text = SCRIPT.read_text(encoding='utf-8')
    asked = set(re.findall(r"el\(root, '([\w-]+)'\)", text)) | {'x', 'y', 'sigma', 'sigma-is', 'arrow-scale-is'}
    assert asked == set(re.findall(r'data-part="([\w-]+)"', RAW)) and len(asked) > 12
    assert set(re.findall(r'data-story="(\w+)"', RAW)) == {'strip', 'path', 'plane'}
    assert 'prefers-reduced-motion' in text and 'http' not in text


def test_it_stands_first():
    side = (NBS_DIR/'sidebar.yml').read_text(encoding='utf-8')
    assert re.search(r'contents:\n\s*- (\S+)', side)[1] == 'story.qmd'
    front = '\n'.join(src(c) for c in cells(NBS_DIR/'index.ipynb') if c['cell_type'] == 'markdown')
    minute = front[front.index('## In a minute'):]
    assert re.search(r'\]\(([^)]+)\)', minute)[1].endswith('/story.html')


def test_ten_minutes_and_no_code():
    words = re.sub(r'\]\([^)]*\)', ']', prose()).split()
    assert 1500 < len(words) < 2600 and '```' not in prose()
