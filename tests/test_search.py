"""The box of the site that searches: a section is found by its words (nbs/theme/search.js), in node where node is.

Without a built site, on an index that is made here from the chapters themselves.
"""
import html, json, re, shutil, subprocess
from functools import cache

import pytest

from notebooks import NBS_DIR
from test_pages import ASKED, THEME, needs_pandoc, run_search

needs_node = pytest.mark.skipif(not shutil.which('node'), reason='no node here, which runs the page\'s JavaScript')
TOP = '#title-block-header'


def prose(path):
    "A page's Markdown."
    text = path.read_text(encoding='utf-8')
    if path.suffix == '.qmd': return text
    return '\n'.join(''.join(c['source']) for c in json.loads(text)['cells'] if c['cell_type'] == 'markdown')


def of_page(path):
    "A page's sections, as the index of the built site has them: its questions, then its sections."
    text = prose(path)
    name = re.sub(r'^\d+[a-z]?_', '', path.stem)
    title = re.search(r'^(?:# |title: )(.+)$', text, re.M)[1].strip('"')
    told = re.search(r'^(?:> |description: )(.+)$', text, re.M)
    says = html.escape(told[1] if told else '')
    asked = [(TOP, '')] + [('#' + key.partition('#')[2] if '#' in key else TOP, q) for key in sorted(ASKED) if key.partition('#')[0] == name for q in ASKED[key]]
    tops = [dict(href=f'{name}.html{place}', title=title, section=q, text=says, crumbs=['Story', title]) for place, q in asked]
    parts = re.split(r'^## (.+?)(?: *\{#.*)?$', re.sub(r'```.*?```', '', text, flags=re.S), flags=re.M)[1:]
    rest = [dict(href=f'{name}.html#{re.sub("[^a-z0-9]+", "-", h.lower())}', title=title, section=h, text=html.escape(' '.join(t.split())), crumbs=['Story', title])
            for h, t in zip(parts[::2], parts[1::2])]
    return tops, rest


@cache
def index():
    "All pages. Those that list names are the last."
    pages = [p for kind in ('*.ipynb', '*.qmd') for p in sorted(NBS_DIR.glob(kind)) if p.stem not in ('_template', '404', 'api', 'ledger')]
    tops, rest = zip(*map(of_page, pages))
    return sum(tops, []) + sum(rest, [])


def run_js(code, **given):
    "What `code` returns, with the words of `given` and what theme/search.js offers as `Search`."
    script = f'''const Search = require({json.dumps(str(THEME/'search.js'))}), given = {json.dumps(given)};
                 (async () => {{ {code} }})().then(o => console.log(JSON.stringify(o ?? null)))'''
    done = subprocess.run(['node', '-'], input=script, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def answers(queries, docs=None):
    "What the box shows for each query."
    return run_js('return given.queries.map(q => Search.answer(given.docs, q, 50))', queries=queries, docs=docs or index())


def pages_of(cards): return list(dict.fromkeys(c['href'].partition('.html')[0] for c in cards))


# Questions

@needs_node
def test_every_question_leads_to_its_page():
    "And where its section is named, to that."
    there = {d['href'].partition('.html')[0] for d in index()}
    asked = [(q, *key.partition('#')[::2]) for key, questions in ASKED.items() if key.partition('#')[0] in there for q in questions]
    found = answers([q for q, *_ in asked])
    wrong = {q: pages_of(cards)[:2] for (q, page, _), cards in zip(asked, found) if pages_of(cards)[:1] != [page]}
    elsewhere = {q: cards[0]['href'] for (q, _, place), cards in zip(asked, found) if place and cards[0]['href'].partition('#')[2] != place}
    assert len(asked) > 300 and wrong == {} and elsewhere == {} and sum(bool(place) for *_, place in asked) > 20


OTHERS = { # words that nobody put into asked.json -> pages of which one is among the first three
    'probability of dropping the class label during training': 'ablations training', 'network called two times per step': 'guidance story speed',
    'convert guidance scale 7.5 into w': 'guidance', 'plug my U-Net into this library': 'adapters', 'load a diffusers checkpoint as a denoiser': 'adapters pipelines',
    'how do I fix burnt images': 'rules', 'what is CFG plus plus lambda': 'procedures', 'APG node for ComfyUI': 'comfy', 'cost of negative prompts': 'branches speed',
    'does autoguidance beat plain guidance': 'comparison', 'what density do guided samples follow': 'limits', 'diversity lost with guidance': 'mnist extremes story metrics',
    'Fréchet distance of features': 'metrics glossary', 'Tweedie formula exercise': 'scores', 'karras noise schedule': 'schedules',
    'exponential moving average of weights length': 'ablations training', 'classifier-guidance by gradients': 'classifiers', 'flow matching velocity guidance': 'flows',
    'optimal control Doob': 'doob', 'how should I cite this course': 'index', 'upload my model to Hugging Face': 'sharing', 'confidence intervals for metrics': 'evidence metrics'}


@needs_node
def test_words_that_nobody_foresaw():
    found = dict(zip(OTHERS, answers([*OTHERS])))
    wrong = {q: pages_of(cards)[:3] for q, cards in found.items() if not set(OTHERS[q].split()) & set(pages_of(cards)[:3])}
    first = sum(pages_of(cards)[0] in OTHERS[q].split() for q, cards in found.items())
    assert wrong == {} and first > .7*len(OTHERS)


@needs_node
def test_every_word_of_the_site_finds_something():
    "Words of some sections, alone, and at the end of a sentence of which nothing else is on the site."
    words = sorted({w for d in index()[5::90] for w in re.findall(r'[^\W\d_]{2,}', html.unescape(d['text']))})
    queries = words + [f'qxqx zqzq "{w}"?' for w in ('and', 'The', *words[::5])]
    assert len(words) > 200 and [q for q, cards in zip(queries, answers(queries)) if not cards] == []


@needs_node
def test_a_key_is_answered_at_once():
    "Letter by letter, in time of the processor: most keys in some milliseconds."
    code = '''const took = []
        Search.answer(given.docs, 'x', 50)
        for (const q of given.queries) for (let k = 1; k <= q.length; k++) {
          const start = process.cpuUsage()
          Search.answer(given.docs, q.slice(0, k), 50)
          const {user, system} = process.cpuUsage(start)
          took.push((user + system)/1000)
        }
        return took.sort((a, b) => a - b)'''
    took = run_js(code, docs=index(), queries=[*OTHERS][:8])
    assert took[len(took)//2] < 30 and took[int(.95*len(took))] < 100


# Words

SMALL = [dict(href=f'{name}.html#{i}', title=title, section=section, text=text, crumbs=['Story']) for i, (name, title, section, text) in enumerate([
    ('nets', 'Networks', 'The U-Net', 'A network with skips. It has dropout layers.'),
    ('train', 'Training', 'Dropping labels', 'With probability p the label is dropped, at 0.5 half of them. CFG++ is another thing; w and s too.'),
    ('scale', 'Guidance', 'Conventions', 'A scale of 7.5 is a weight w of 6.5, since x &lt; y &amp; it&#39;s so. guidance_scale is its name.'),
    ('frechet', 'Metrics', 'Fréchet distances', 'FID-50k compares autoguidance, low-pass filters and samples; the samplers draw 1,000.'),
    ('glossary', 'Glossary', '', 'Words.'), ('choice', 'Choice', '', 'Advice.')])]
SAME = {'U-Net': 'nets', 'u net': 'nets', 'unet': 'nets', 'UNETS': 'nets', 'own U-Net!': 'nets', 'label dropout probability': 'train', 'labels, dropping': 'train', 'drop': 'train',
    'how do I drop a label?': 'train', 'p': 'train', 'CFG++': 'train', 'cfg++ w': 'train', '7.5': 'scale', 'what is 7.5 in w': 'scale', 'guidance scale': 'scale', 'guidance_scale': 'scale',
    'guidance-scale': 'scale', '“weights”': 'scale', "it's": 'scale', 'its so': 'scale', 'frechet': 'frechet', 'FRÉCHET distance': 'frechet', 'Fre\u0301chet': 'frechet', 'fid': 'frechet',
    'FIDs': 'frechet', '50k': 'frechet', 'auto guidance': 'frechet', 'low pass': 'frechet', 'sam ples': 'frechet', 'the auto guidance of w': 'frechet', 'auto-guidance': 'frechet', 'autogui': 'frechet', 'autoguidence': 'frechet', 'autogiudance': 'frechet', 'lowpass': 'frechet',
    'sampling': 'frechet', '1000': 'frechet', 'x < y': 'scale', '<b>weight</b>': 'scale', 'weight\u0000\n\t': 'scale', 'networks/nets': 'nets', 'zzzz '*3000 + 'weight': 'scale', 'x'*5000 + ' weight': 'scale'}


@needs_node
def test_a_word_is_found_however_it_is_written():
    found = dict(zip(SAME, answers([*SAME], SMALL)))
    assert {q[:40]: pages_of(cards)[:1] for q, cards in found.items() if pages_of(cards)[:1] != [SAME[q]]} == {}


@needs_node
def test_order():
    "A heading that is the query, a phrase of a heading, a phrase of a text, words of a heading, words of a text; rare before frequent."
    places = [('words of a text', 'x', 'about the scale and the weight'), ('rare', 'x', 'a quokka'), ('words of a heading', 'Weight of the scale', 'x'), ('phrase', 'x', 'see the scale weight'),
        ('phrase of a heading', 'On scale weight alone', 'x'), ('heading', 'Scale weight', 'x'), *((f'filling {i}', 'x', 'weight') for i in range(9))]
    docs = [dict(href=f'{i}.html', title='T', section=section, text=text) for i, (_, section, text) in enumerate(places)]
    def names(query): return [places[int(p)][0] for p in pages_of(answers([query], docs)[0])]
    assert names('scale weight')[:5] == ['heading', 'phrase of a heading', 'phrase', 'words of a heading', 'words of a text']
    assert names('weight quokka')[0] == 'rare'


@needs_node
def test_each_place_once_and_no_more_than_asked_for():
    docs = [dict(href=f'a.html{TOP}', title='A', section=q, text='one scale') for q in ('', 'scale one', 'one scale', 'scale')] + [dict(href=f'{i}.html', title='x', section='', text='scale') for i in range(80)]
    cards, = answers(['scale'], docs)
    assert len(cards) == 50 and len({c['href'].replace('?q=scale', '') for c in cards}) == 50 and cards[0]['section'] == 'scale'


# What is shown

HOSTILE = ['<img src=x onerror=alert(1)> weight', '"><script>alert(1)</script> scale', "' onmouseover=x label", '&lt; weight', 'amp', 'lt', 'x lt y', '39', 'x &amp; it', '$& $1 scale', '(scale [w', '\\ scale', '.* scale', 'w#x?q=1&y=%', '\ud83d\ude00 scale', '] weight |']


@needs_node
def test_what_is_shown_is_harmless():
    "Its only tags are marks, entities stay whole, and addresses are addresses."
    for query, cards in zip(HOSTILE, answers(HOSTILE, SMALL)):
        for card in cards:
            bare = re.sub(r"<mark class='search-match'>([^<>]*)</mark>", r'\1', card['text'])
            assert not set('<>') & set(bare) and html.unescape(bare).rstrip('…') in ' '.join(html.unescape(d['text']) for d in SMALL), (query, card)
            assert re.fullmatch(r'\w+\.html(\?q=[\w%.~!*\'()-]+)?#\d', card['href']), (query, card)


@needs_node
def test_words_are_marked_where_they_stand():
    cards, = answers(['probability of a label'], SMALL)
    assert cards[0]['text'].count('<mark') == 2 and '>probability</mark>' in cards[0]['text'] and '>label</mark>' in cards[0]['text']
    long, = answers(['quokka'], [dict(href='a.html', title='T', section='', text='one two '*200 + 'a quokka sits ' + 'three four '*200)])
    assert '>quokka</mark> sits' in long[0]['text'] and len(long[0]['text']) < 400 and long[0]['text'].endswith('…')


@needs_node
def test_a_page_bears_the_same_words_in_all_its_places():
    "Or Quarto, which groups places by what stands before #, lists the page twice."
    docs = [dict(href=f'a.html#{i}', title='T', section='', text=t) for i, t in enumerate(['the scale', 'the label', 'neither', 'scale and label'])]
    cards, = answers(['scale label'], docs)
    assert len({c['href'].partition('#')[0] for c in cards}) == 1 and len(cards) == 3


# In place of Quarto's function

WRAP = '''let asked = []
    const original = async (query) => { asked.push(query); if (given.broken) throw Error('of Quarto'); return given.old }
    const fuse = given.docs ? {getIndex: () => ({docs: given.docs})} : undefined
    const found = await Search.wrap(original)(given.query, fuse, {limit: 50}).then(o => o, e => e.message)
    return [found, asked]'''


@needs_node
@pytest.mark.parametrize('query', ['', ' ', '\n\t', None])
def test_nothing_typed_finds_nothing(query): assert run_js(WRAP, query=query, docs=SMALL, old=[1]) == [[], []]


@needs_node
@pytest.mark.parametrize('query', ['qxqx', 'qxqx zqzq', 'q', '引导'])
def test_where_nothing_is_found_two_pages_are_named(query):
    cards, asked = run_js(WRAP, query=query, docs=SMALL, old=[])
    assert pages_of(cards) == ['glossary', 'choice'] and 'Nothing has these words' in cards[0]['section'] and cards[0]['text'] == 'Words.' and asked == []
    assert run_js(WRAP, query=query, docs=SMALL[:4], old=[])[0] == []


@needs_node
@pytest.mark.parametrize('query', ['?!', '∇', '!'*5000, 'x'*5000])
def test_marks_alone_go_to_quarto(query):
    cards, asked = run_js(WRAP, query=query, docs=SMALL, old=['of Quarto'])
    assert cards == ['of Quarto'] and asked == [query[:40]]
    assert pages_of(run_js(WRAP, query=query, docs=SMALL, old=[])[0]) == ['glossary', 'choice']


@needs_node
def test_another_index_than_we_know_goes_to_quarto():
    assert run_js(WRAP, query='scale', old=['of Quarto']) == [['of Quarto'], ['scale']]
    assert run_js(WRAP, query='scale', docs=[None], old=['of Quarto']) == [['of Quarto'], ['scale']]
    assert run_js(WRAP, query='scale', broken=True) == ['of Quarto', ['scale']]


# In the built site

@needs_pandoc
def test_the_script_is_put_behind_quarto_s_own(tmp_path):
    "Once, however often the site is rendered, and the newest; where there is no such script nothing is written."
    (tmp_path/'search.json').write_text('[]', encoding='utf-8')
    run_search(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ['search.json']
    path, ours = tmp_path/'site_libs'/'quarto-search'/'quarto-search.js', (THEME/'search.js').read_text(encoding='utf-8')
    path.parent.mkdir(parents=True)
    for before in ('theirs()\n', 'theirs()\n// theme/search.js\nold'):
        path.write_text(before, encoding='utf-8')
        for _ in range(2):
            run_search(tmp_path)
            assert path.read_text(encoding='utf-8') == 'theirs()\n' + '\n// theme/search.js\n'[(before != 'theirs()\n'):] + ours


@needs_node
def test_it_takes_the_place_of_the_function_of_a_page():
    "As in a browser: behind a script that declares the function and calls it by name."
    theirs = 'async function fuseSearch(query) { return ["theirs"] }\nfunction box(query, fuse) { return fuseSearch(query, fuse, {limit: 5}) }\n'
    code = '''const page = vm.createContext({}), fuse = {getIndex: () => ({docs: given.docs})}
        vm.runInContext(given.theirs + require('fs').readFileSync(given.ours, 'utf8'), page)
        return [await page.box('label dropout probability', fuse), await page.box('?', fuse)]'''
    cards, other = run_js('const vm = require("vm");' + code, docs=SMALL, theirs=theirs, ours=str(THEME/'search.js'))
    assert pages_of(cards)[0] == 'train' and other == ['theirs']
