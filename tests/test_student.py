"A student who knows PyTorch: the blocks of code that they are given to copy run, and do what the words beside them say."
import os, re, subprocess

import pytest, torch
from torch import nn

from notebooks import NBS, NBS_DIR, ROOT, cells, settings, src
from test_pages import PANDOC, cell, folds, needs_pandoc, render

PROSE = {name: '\n\n'.join(src(c) for c in cells(NBS_DIR/f'{name}.ipynb') if c['cell_type'] == 'markdown')
         for name in ('index', '02_scores', '04_guidance', '15_training', '41_adapters')}


def section(name, heading):
    "The prose of a page from a heading to the next one of its level or above."
    level = heading.split()[0]
    found = re.search(rf'^{re.escape(heading)}\n(.*?)(?=^#{{2,{len(level)}}} |\Z)', PROSE[name], re.M | re.S)
    assert found, f'{name} has no "{heading}"'
    return found[1]


def blocks(text, kind): return re.findall(rf'^```{kind}\n(.*?)^```', text, re.M | re.S)


# A network of one's own

OWN = section('index', '### A network of your own')


@pytest.fixture(scope='module')
def own():
    "What the block of the first page leaves behind."
    block, = blocks(OWN, 'py')
    torch.manual_seed(0)
    names = {}
    exec(block, names)
    return names


class Listener(nn.Module):
    "A network that keeps what it is asked."
    def __init__(self, net):
        super().__init__()
        self.net, self.asked = net, []

    def forward(self, z, t, y):
        self.asked.append((z, t, y))
        return self.net(z, t, y)


@pytest.fixture
def listener(own, monkeypatch):
    heard = Listener(own['net'])
    monkeypatch.setitem(own, 'net', heard)
    return heard


def test_the_block_draws_ten_pictures(own): assert own['x'].shape == (10, 1, 28, 28) and own['x'].isfinite().all()


def test_the_network_is_asked_in_its_own_words(own, listener):
    "Whole timesteps of its table, its labels and its own row, with and without the label in one batch."
    own['sample'](own['guide'](own['denoise'], scale=3.), y=torch.arange(10), shape=(1, 28, 28), steps=6)
    for z, t, y in listener.asked:
        assert z.shape[1:] == (1, 28, 28) and len(z) == len(t) == len(y) == 20
        assert t.dtype == torch.int64 and 0 <= t.min() <= t.max() <= 999
        assert sorted(y.tolist()) == sorted([10]*10 + list(range(10)))


def by_hand(net, kept, z, y, times, s):
    "Guided DDIM as papers write it, in their coordinates; both predictions by two calls."
    for t, after in zip(times, [*times[1:], None]):
        each = torch.full((len(z),), t)
        eps = net(z, each, torch.full_like(y, 10))
        eps = eps + s*(net(z, each, y) - eps)
        image = (z - (1 - kept[t])**.5*eps)/kept[t]**.5
        if after is None: return image
        z = kept[after]**.5*image + (1 - kept[after])**.5*eps


@pytest.mark.parametrize('s', [0., 1., 3., 7.5])
@pytest.mark.parametrize('times', [[999, 700, 400, 100, 0], [500, 17]])
def test_it_is_ddim_by_hand(own, s, times):
    kept, steps, y = own['kept'].double(), own['steps'], torch.arange(10)
    sigmas = [*steps[times].tolist(), 0.]
    got = own['sample'](own['guide'](own['denoise'], scale=s), y=y, shape=(1, 28, 28), sampler='ddim', sigmas=sigmas)
    noisy = []
    def first(x, sigma, y):
        noisy.append(x)
        return own['denoise'](x, sigma, y)
    own['sample'](first, y=y, shape=(1, 28, 28), sampler='ddim', sigmas=sigmas)
    with torch.no_grad(): want = by_hand(own['net'].double(), kept, noisy[0].double()*kept[times[0]]**.5, y, times, s)
    own['net'].float()
    assert (got - want).abs().max() < 2e-3*want.abs().max()


def test_every_timestep_is_found_at_its_own_noise_level(own):
    for dtype in (torch.float32, torch.float64): assert torch.equal(own['nearest'](own['steps'].to(dtype)), torch.arange(1000))
    assert own['nearest'](torch.tensor([1e-5, 1e5])).tolist() == [0, 999]


def test_half_precision(own, listener):
    "Samples of half precision reach the network as such, with the same timesteps."
    y = torch.tensor([-1, 3])
    for dtype in (torch.bfloat16, torch.float16):
        own['net'].to(dtype)
        own['denoise'](torch.randn(2, 1, 28, 28).to(dtype), torch.tensor([.7, 20.]), y)
    own['net'].float()
    own['denoise'](torch.randn(2, 1, 28, 28), torch.tensor([.7, 20.]), y)
    times = [t.tolist() for _, t, _ in listener.asked]
    assert times[0] == times[1] == times[2] and [y.tolist() for *_, y in listener.asked] == [[10, 3]]*3


def test_on_another_device(own):
    "Nothing of the block stays behind on the CPU; the device `meta` refuses what does."
    import copy
    there = dict(own, net=copy.deepcopy(own['net']).to('meta'))
    x, sigma, y = torch.empty(2, 1, 28, 28, device='meta'), torch.empty(2, device='meta'), torch.empty(2, dtype=torch.long, device='meta')
    assert own['nearest'](sigma).device.type == 'meta'
    predict = type(own['predict'])(own['predict'].__code__, there)
    assert own['as_denoiser'](predict, 'eps', 'vp', level=own['nearest'])(x, sigma, y).device.type == 'meta'


def test_without_the_own_row_it_fails(own):
    "The line about NULL is needed: an embedding has no row -1."
    from cfg_course.core import NULL
    net = own['MyUNet']()
    with pytest.raises(IndexError): net(torch.zeros(1, 1, 28, 28), torch.zeros(1).long(), torch.tensor([NULL]))


def test_its_links_lead_on():
    assert '](02_scores.ipynb#any-network-as-a-denoiser)' in OWN and '](15_training.ipynb#dropping-labels)' in OWN
    assert '](#a-network-of-your-own)' in section('index', '## In a minute')
    table = section('41_adapters', '## Which of these chapters do I need?')
    row = next(line for line in table.split('\n') if 'of your own' in line and 'PyTorch' in line)
    assert '](02_scores.ipynb#a-ddpm-network-of-your-own)' in row and '](index.ipynb#a-network-of-your-own)' in row


@needs_pandoc
@pytest.mark.parametrize('name, words', [
    ('02_scores', ('def nearest(sigma)',)), ('02_scores', ('def predict(z, level, y)', 'NULL', 'as_denoiser(predict')),
    ('04_guidance', ('torch.cat([x, x])', '.chunk(2)'))])
def test_the_heart_of_the_code_is_open(name, words):
    "On the page, where long code and checks fold."
    found = [src(c) for c in cells(NBS_DIR/f'{name}.ipynb') if c['cell_type'] == 'code' and all(w in src(c) for w in words)]
    assert len(found) == 1 and not found[0].startswith('#|') and folds(render(cell(found[0], exported=False))) == []


# Dropping labels

DROP = section('15_training', '## Dropping labels')


def sides(diff):
    "The code before and after, of a diff."
    lines = diff.rstrip('\n').split('\n')
    return ['\n'.join(o[2:] for o in lines if o[0] in f' {mark}') for mark in '-+']


def test_before_and_after():
    "Five lines: before, the table has no row for no label; after, it learns from a tenth of the samples."
    diff, = blocks(DROP, 'diff')
    assert len(diff.rstrip('\n').split('\n')) == 5
    rows = {}
    for when, code in zip(('before', 'after'), sides(diff)):
        torch.manual_seed(0)
        seen = []
        names = dict(torch=torch, nn=nn, width=4, batches=[(None, torch.arange(10).repeat(50))]*20, learn=lambda x0, e: seen.append(len(e)))
        exec(code, names)
        assert seen == [500]*20
        rows[when] = names['label'].num_embeddings, (names['y'] == 10).double().mean().item()
    assert rows['before'] == (10, 0.) and rows['after'][0] == 11 and abs(rows['after'][1] - .1) < 3*(.09/500)**.5


def test_the_advice_is_the_default():
    import inspect
    from cfg_course.training import RECIPES, drop_labels
    p, = re.findall(r'\*\*How often\?\*\* Take ([\d.]+\d)', DROP)
    assert float(p) == inspect.signature(drop_labels).parameters['p_uncond'].default
    assert {r.p_uncond for r in RECIPES.values()} == {float(p)}
    assert '](23_ablations.ipynb#how-often-to-drop-the-label)' in DROP


def test_the_advice_is_what_was_measured():
    "At each one's best scale the smaller three lie within each other's intervals, and the largest does not."
    pd = pytest.importorskip('pandas')
    rows = pd.read_csv(NBS_DIR/'results'/'ablation_p_uncond.csv').query("metric == 'fid'")
    best = rows.loc[rows.groupby('model').value.idxmin()].set_index('model')
    near = best.loc[['p0.05', 'p0.1', 'p0.2']]
    assert near.value.max() < near.high.min() and near.low.max() < near.value.min() and best.loc['p0.5'].value > near.high.max()


# Conventions

def test_seven_and_a_half():
    from cfg_course.guidance import from_scale, to_scale
    first = section('04_guidance', '## The scale and its many conventions').strip().split('\n')[0]
    assert '`guidance_scale=7.5` of diffusers' in first and '$s = 7.5$' in first and '$w = 6.5$' in first
    assert from_scale(to_scale(7.5, 'stable_diffusion'), 'ho_salimans') == 6.5


# Citing; numbers of chapters

def test_citing_begins_with_this_work():
    "As CITATION.cff has it; then the paper, as the references have it."
    ours, theirs = blocks(section('index', '## Citing'), 'bibtex')
    cff, s = (ROOT/'CITATION.cff').read_text(encoding='utf-8'), settings()
    title = re.search(r'^title: (.+)$', cff, re.M)[1]
    for words in (f'{{{title}}}', f'{{{{{s["author"]}}}}}', f'{{{s["version"]}}}', f'{{{s["doc_host"]}{s["doc_baseurl"]}}}'): assert words in ours
    assert theirs in (NBS_DIR/'references.bib').read_text(encoding='utf-8')
    assert section('index', '## Citing').index('@software{cfg_course') < section('index', '## Citing').index('@misc{ho2022')


def test_the_table_has_every_chapter_by_its_number():
    rows = re.findall(r'^\| (?:\*\*\w+\*\* )?\| (\w+) \| \[[^\]]+\]\((\w+\.ipynb)\) \|', section('index', '## Chapters'), re.M)
    assert [name for _, name in rows] == [p.name for p in NBS]
    assert all(name.split('_')[0].lstrip('0') == k or name.startswith('00_') and k == '0' for k, name in rows)


PAGE = '''<h1 class="title">A page</h1><ol class="breadcrumb"><li class="breadcrumb-item"><a href="./{first}">A part</a></li><li class="breadcrumb-item"><a href="./{page}">A page</a></li></ol>
<a class="nav-link" href="./{page}"> <span class="menu-text">In the bar</span></a>
<a href="./{page}" class="sidebar-item-text sidebar-link active">
 <span class="menu-text">A page</span></a>
<a href="./index.html" class="sidebar-item-text sidebar-link">
 <span class="menu-text">Overview</span></a>
<a href="./{first}" class="pagination-link" aria-label="The first">
 <i class="bi bi-arrow-left-short"></i> <span class="nav-page-text">The first</span></a>
<a href="./{page}" class="pagination-link" aria-label="A page">
 <span class="nav-page-text">A page</span> <i class="bi bi-arrow-right-short"></i></a>
'''
NUMBERED = {p: (p.name.split('_')[0].lstrip('0') or '0', p.stem.split('_', 1)[1] + '.html') for p in NBS}


def numbered(folder, pages):
    "What theme/numbers.lua makes of files."
    command = [*PANDOC, '-f', 'markdown', '-t', 'plain', '--lua-filter', str(NBS_DIR/'theme'/'numbers.lua')]
    files = '\n'.join(str(folder/name) for name in pages)
    subprocess.run(command, input='', cwd=NBS_DIR, check=True, text=True, env=os.environ | dict(QUARTO_PROJECT_OUTPUT_FILES=files))
    return [(folder/name).read_text(encoding='utf-8') for name in pages]


@needs_pandoc
def test_a_chapter_bears_its_number(tmp_path):
    "At its head, in the list of chapters, in the path and where it is next to another; and neither its part nor the bar does."
    first = NUMBERED[NBS[0]][1]
    pages = [page for _, page in NUMBERED.values()]
    for page in pages: (tmp_path/page).write_text(PAGE.format(page=page, first=first), encoding='utf-8')
    once = numbered(tmp_path, pages)
    assert numbered(tmp_path, pages) == once # a second time nothing changes
    for (number, _), html in zip(NUMBERED.values(), once):
        told = re.findall(r'<span class="chapter-number">(\w+)</span>&ensp;([^<]+)', html)
        assert told == [(number, 'A page')]*3 + [('0', 'The first'), (number, 'A page')], html
        assert re.findall(r'aria-label="([^"]+)"', html) == ['0 The first', f'{number} A page']
        assert '>A part<' in html and '>In the bar<' in html and '>Overview<' in html


@needs_pandoc
def test_a_page_that_is_no_chapter_has_no_number(tmp_path):
    text = PAGE.format(page='story.html', first='glossary.html')
    (tmp_path/'story.html').write_text(text, encoding='utf-8')
    assert numbered(tmp_path, ['story.html']) == [text]


def test_numbers_are_put_there_after_rendering():
    steps = re.search(r'post-render: \[(.*)\]', (ROOT/'_quarto.yml').read_text(encoding='utf-8'))[1].split(', ')
    assert 'theme/numbers.lua' in steps


def test_numbers_are_those_that_prose_cites():
    "A chapter that is cited by number is there, spelled alike."
    there = {number for number, _ in NUMBERED.values()}
    cited = {(p.name, n) for p in NBS for c in cells(p) if c['cell_type'] == 'markdown' for n in re.findall(r'\b[Cc]hapter (\d\d?[a-z]?)\b', src(c))}
    assert len(cited) > 100 and {o for o in cited if o[1] not in there} == set()
