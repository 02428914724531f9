"""What the site's filters make of a page, with Pandoc alone: code that folds, terms that explain themselves.

Pandoc comes with the development tools (pypandoc-binary), on PATH, or inside Quarto.
"""
import gzip, html, importlib.util, json, os, re, shutil, subprocess, sys, urllib.error, urllib.request

import pytest

from notebooks import NBS_DIR, ROOT

sys.path.insert(0, str(ROOT/'tools'))
from visit import BROWSERS

THEME = NBS_DIR/'theme'
FILTERS = re.findall(r'path: theme/(\w+\.lua)', (ROOT/'_quarto.yml').read_text(encoding='utf-8'))


def find_pandoc():
    "The command that runs Pandoc, or None."
    if importlib.util.find_spec('pypandoc'):
        import pypandoc
        return [pypandoc.get_pandoc_path()]
    if shutil.which('pandoc'): return ['pandoc']
    return ['quarto', 'pandoc'] if shutil.which('quarto') else None


PANDOC = find_pandoc()
needs_pandoc = pytest.mark.skipif(PANDOC is None, reason='no Pandoc here: pip install pypandoc-binary')


def render(markdown, cwd=NBS_DIR, **metadata):
    "A page's HTML, as the filters of the site leave it."
    filters = [o for f in FILTERS for o in ('--lua-filter', str(THEME/f))]
    about = [f'--metadata={k}={v}' for k, v in metadata.items()]
    command = [*PANDOC, '-f', 'markdown', '-t', 'html', '--wrap=none', *filters, *about]
    done = subprocess.run(command, input=markdown, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout


def cell(code, exported=True, output=''):
    "A cell of code as Quarto hands it to the filters."
    fold = ' code-fold="show" code-summary="Exported source"' if exported else ''
    return f'\n::: {{#c0ffee .cell}}\n```` {{.python .cell-code{fold}}}\n{code}\n````\n{output}\n:::\n'


def shown(name, signature, docstring='*It does.*'):
    "What nbdev writes of a public name."
    link = '[source](https://example.org){target="_blank" style="float:right; font-size:smaller"}'
    return f'\n---\n\n{link}\n\n### {name}\n\n```python\n{signature}\n```\n\n{docstring}\n\n'


def text_of(part): return html.unescape(re.sub(r'<[^>]+>', '', part))
def folds(page): return re.findall(r'<details class="code-fold (\w+)"([^>]*)>\s*<summary>(.*?)</summary>(.*?)</details>', page, re.S)
def summary_of(part): return ' '.join(text_of(part).split())
def outside(page): return re.sub(r'<details.*?</details>', '', page, flags=re.S)


HALF = '''def half(
    x:dict[str, int]|None=None, # a number, with (brackets), and: a colon
    *,
    mark:str='#, (', # a string with marks
    shape:tuple=(1, 2), # of two
)->float: # half
    "It does."
    return x/2'''
KINDS = {
    'a function': (HALF, "half(x=None, *, mark='#, (', shape=(1, 2))"),
    'decorated': (f'@torch.no_grad()\n{HALF}', "half(x=None, *, mark='#, (', shape=(1, 2))"),
    'without parameters': ('def half(): return 1', 'half()'),
    'a class': ('class Half(NamedTuple):\n    "It is."\n    x:int # whole\n    def of(self): return 1', 'class Half(NamedTuple)'),
    'a class without a base': ('class Half:\n    pass', 'class Half'),
    'two': ('def a(x): return x\n\ndef b(y:int=2): return y', 'a(x) b(y=2)'),
    'a constant': ('HALF = 1/2', 'HALF'),
    'less and greater': ('def a(f=1 < 2 > 1): pass', 'a(f=1 < 2 > 1)'),
}


@needs_pandoc
@pytest.mark.parametrize('kind', KINDS)
def test_exported_code_folds_to_its_signature(kind):
    code, signature = KINDS[kind]
    page = render(cell(code))
    (what, attributes, summary, inside), = folds(page)
    assert what == 'exported' and 'open' not in attributes
    assert summary_of(summary) == f'{signature} show code'
    assert text_of(inside).strip() == code and 'def ' not in outside(page) and 'code-summary' not in page


@needs_pandoc
def test_imports_fold():
    (_, _, summary, _), = folds(render(cell('import torch\nfrom torch import Tensor')))
    assert summary_of(summary) == 'imports show code'


@needs_pandoc
@pytest.mark.parametrize('order', ['ab', 'ba'])
def test_nothing_is_printed_twice(order):
    "Headings and docstrings of a cell's names stand above its code, in its order, and their signatures once."
    a, b = shown('a', 'def a(\n    x:int, # whole\n):', '*First $x^2$.*'), shown('b', 'def b(\n    y:int, # whole\n):', '*Second.*')
    code = cell('def a(\n    x:int, # whole\n):\n    "First $x^2$."\n    return b(x)\n\ndef b(\n    y:int, # whole\n):\n    return y')
    page = render((a + code + b if order == 'ab' else b + code + a) + '\nAfter.\n')
    left = text_of(outside(page))
    assert page.count('whole') == 2 and 'whole' not in left and len(folds(page)) == 1
    assert '<hr' not in page and page.index('id="a"') < page.index('id="b"') < page.index('<details')
    assert left.index('First') < left.index('Second.') < left.index('After.')
    assert 'aria-label="source of a"' in page and 'style=' not in page


@needs_pandoc
def test_a_name_without_code_on_the_page_folds_too():
    page = render(shown('half', 'def half(\n    x:int, # whole\n)->int: # half'))
    (what, _, summary, inside), = folds(page)
    assert summary_of(summary) == 'half(x) show types' and 'whole' in inside and 'whole' not in outside(page)


@needs_pandoc
def test_lessons_fold_where_they_check_or_are_long():
    short, check, long = 'x = 1\nx + 1', 'assert claim("so it is", 1 - 1, 0)', '\n'.join(f'x{i} = {i}' for i in range(9))
    assert folds(render(cell(short, exported=False))) == []
    wide = '\n'.join(f'x{i} = {"1 + "*30}1' for i in range(4))
    for code, more in ((check, 'show the check'), ('test_eq(1, 1)', 'show the check'), (long, 'show code'), (wide, 'show code')):
        (what, _, summary, _), = folds(render(cell(code, exported=False, output='::: {.cell-output}\nSeen.\n:::')))
        assert (what, summary_of(summary)) == ('lesson', more)
    assert 'Seen.' in outside(render(cell(check, exported=False, output='::: {.cell-output}\nSeen.\n:::')))


CLAIM = 'so it is at s = {}: error 1.0e-16, tolerance 1.0e-12\n'


@needs_pandoc
@pytest.mark.parametrize('lines, folds_to', [([CLAIM]*3, None), ([CLAIM]*4, 4), ([CLAIM.replace('\n', ' (300 samples)\n')]*18, 18),
    ([CLAIM]*9 + ['phi: got 1.5, allowed: a number\n'], None), (['1 2 3\n']*9, None), ([CLAIM.replace('1.0e-16', '0.0e+00')]*5 + ['\n'], 5)])
def test_long_lists_of_claims_fold_to_their_number(lines, folds_to):
    output = '::: {.cell-output .cell-output-stdout}\n```\n' + ''.join(o.format(i) for i, o in enumerate(lines)) + '```\n:::'
    page = render(cell('assert claim("so it is", 0, 1)', exported=False, output=output))
    found = re.findall(r'<details class="claims"><summary>(\d+) claims hold<span class="more">show them</span></summary>(.*?)</details>', page, re.S)
    assert [int(n) for n, _ in found] == ([] if folds_to is None else [folds_to])
    assert text_of(page).count('so it is at') == sum('so it is at' in o for o in lines) and page.count('<details') == page.count('</details>')


def test_every_public_name_can_be_documented():
    "nbdev evaluates annotations; those that name what only type checkers import are printed as they are written."
    script = '''
import sys, runpy, importlib, pkgutil
sys.path.insert(0, 'tools')
import pages, cfg_course
from fastcore.docments import MarkdownRenderer
for m in pkgutil.iter_modules(cfg_course.__path__):
    module = importlib.import_module(f'cfg_course.{m.name}')
    for name in getattr(module, '__all__', []):
        o = getattr(module, name)
        if callable(o): MarkdownRenderer(o)._repr_markdown_()
from cfg_course.core import read_results
assert ')->pd.DataFrame: # the rows' in MarkdownRenderer(read_results)._repr_markdown_()
'''
    done = subprocess.run([sys.executable, '-c', script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-800:]


def test_the_site_is_staged_by_the_tool_that_can():
    assert 'python tools/pages.py' in (ROOT/'Makefile').read_text(encoding='utf-8')
    assert 'nbdev_proc_nbs' not in (ROOT/'Makefile').read_text(encoding='utf-8')


# Words of the glossary

GLOSSARY = (NBS_DIR/'glossary.qmd').read_text(encoding='utf-8')
ENTRY = re.compile(r'^\[(?P<name>[^\]]+)\]\{#(?P<id>[\w-]+)(?P<options>[^}]*)\}\n:\s+(?P<says>.+)\n(?P<more>(?:    .+\n)+)', re.M)
ENTRIES = {m['id']: m for m in ENTRY.finditer(GLOSSARY + '\n')}
ASKED_FOR = """denoiser score noise-level guidance-scale weak-branch tilt judge shelf fid kid precision recall coverage
    effective-scale doob-transform negative-prompt guidance-interval autoguidance""".split()


def test_every_entry_is_read():
    assert len(ENTRIES) == len(re.findall(r'^:\s', GLOSSARY, re.M)) == len(re.findall(r'^\[.*\{#', GLOSSARY, re.M)) > 40
    assert set(ASKED_FOR) <= set(ENTRIES)


@pytest.mark.parametrize('name', ENTRIES)
def test_an_entry_is_one_sentence_and_a_link(name):
    says, more = ENTRIES[name]['says'], ENTRIES[name]['more']
    assert len(says.split()) < 30 and says.endswith('.') and len(re.findall(r'[.!?](?:\s|$)', says)) == 1, says
    assert all(len(o.split()) < 30 for o in re.split(r'(?<=[.!?])\s', re.sub(r'\]\([^)]*\)', '', more))), more
    assert not re.search(r'[$\[*"<]', says), 'a title is text alone'
    assert re.search(r'\]\([\w.]+\.(ipynb|qmd)(#[\w-]+)?\)', more), 'no chapter to read on'


def terms(page): return re.findall(r'<a\s+href="glossary.qmd#([\w-]+)"\s+class="term"\s+title="([^"]*)">(.*?)</a>', page, re.S)
def words(page): return [(k, text_of(t)) for k, _, t in terms(page)]


@needs_pandoc
def test_the_first_use_of_a_term_bears_its_sentence():
    page = render('The denoiser is asked twice. Another denoiser is a weak\nbranch (guidance scale), of KIDs.')
    assert words(page) == [('denoiser', 'denoiser'), ('weak-branch', 'weak branch'), ('guidance-scale', 'guidance scale'), ('kid', 'KIDs')]
    assert [html.unescape(t) for _, t, _ in terms(page)] == [ENTRIES[k]['says'] for k, _, _ in terms(page)]
    assert '(<a' in page.replace('\n', ' ') and '</a>), of' in page


@needs_pandoc
@pytest.mark.parametrize('text', ['## A denoiser', '`denoiser`', '$denoiser$', '[A denoiser](x.html)', '```\ndenoiser\n```',
    '::: {.cell-output}\ndenoiser\n:::', '::: {.callout-note}\ndenoiser\n:::', '| denoiser |\n|---|\n| denoiser |', 'denoisers2',
    'un-denoiser', 'We judge it, and to judge is hard.', 'a kid', 'In double precision.', '![A denoiser](x.png)', '*A denoiser.*'])
def test_what_bears_no_term(text):
    assert words(render(text)) == []
    assert words(render(text + '\n\nA denoiser.\n')) == [('denoiser', 'denoiser')]


@needs_pandoc
def test_a_longer_term_is_not_taken_for_a_shorter():
    assert words(render('The score. The Inception score, and the Inception score; precision and recall.')) == [
        ('score', 'The score'), ('inception-score', 'Inception score'), ('precision', 'precision'), ('recall', 'recall')]


@needs_pandoc
def test_terms_need_their_page_and_can_be_left_out(tmp_path):
    assert words(render('A denoiser.', cwd=tmp_path)) == words(render('A denoiser.', terms='false')) == []
    assert words(render('A denoiser.', title='API')) == []
    assert words(render(GLOSSARY)) == []


def test_terms_are_read_without_a_mouse():
    style = (THEME/'site.scss').read_text(encoding='utf-8')
    assert re.search(r'a\.term:focus-visible::after \{[^}]*content: attr\(title\)', style)
    assert re.search(r'a\.term \{[^}]*underline', style)


def test_the_glossary_is_found():
    assert 'glossary.qmd' in (NBS_DIR/'sidebar.yml').read_text() and 'href: glossary.qmd' in (ROOT/'_quarto.yml').read_text()


# Boxes that open, heads of tables, and what is wider than the page

@needs_pandoc
def test_closed_boxes_open_by_keyboard():
    page = render('::: {.callout-tip collapse="true" title="Solution"}\nIt is 2 < 3.\n:::\n\n::: {.callout-note collapse="true" title="Proof"}\nSo.\n:::')
    assert re.findall(r'<details class="box ([^"]*)"><summary>(\w+)</summary>', page) == [('callout-tip-folded solution', 'Solution'), ('callout-note-folded', 'Proof')]
    assert page.count('</details>') == 2 and 'class="callout' not in page
    for stays in ('::: {.callout-warning title="Open"}\nx\n:::', '::: {#nte-a .callout-note collapse="true"}\nx\n:::'):
        assert '<details' not in render(stays)


def test_chapters_have_closed_boxes_of_that_kind_alone():
    boxes = [m for p in NBS_DIR.glob('*.ipynb') for m in re.findall(r'\{([^{}]*callout[^{}]*)\}', p.read_text(encoding='utf-8'))]
    assert all('#' not in o for o in boxes if 'collapse' in o)


FRAMES = [ # what pandas writes, and the heads that a reader should find
    ('scale', None, [['row', 'scale', 'value']]), ('index', None, [['scale', 'value']]),
    ('columns', None, [[r'scale \ what', 'value', 'cost']]), ('levels', None, [['', 'FID'], [r'w \ drop', '0.1', '0.2']])]


def frame(kind):
    "A table of pandas."
    pd = pytest.importorskip('pandas')
    plain = pd.DataFrame(dict(scale=[1, 2], value=[3, 4]))
    if kind == 'scale': return plain
    if kind == 'index': return plain.set_index('scale')
    if kind == 'columns': return plain.assign(cost=1).set_index('scale').rename_axis(columns='what')
    columns = pd.MultiIndex.from_tuples([('FID', .1), ('FID', .2)], names=[None, 'drop'])
    return pd.DataFrame([[1, 2]], index=pd.Index([0], name='w'), columns=columns)


def heads(page): return [[text_of(t).strip() for t in re.findall(r'<th(?:\s[^>]*)?>(.*?)</th>', row, re.S)] for row in re.findall(r'<tr.*?</tr>', page.partition('</thead>')[0], re.S)]


@needs_pandoc
@pytest.mark.parametrize('kind,_,expected', FRAMES)
def test_heads_of_tables_are_not_empty(kind, _, expected):
    page = render('```{=html}\n' + frame(kind).to_html() + '\n```')
    found = heads(page)
    assert all(all(row) for row in found), found
    assert found[-1] == expected[-1] and len(found) == len(expected)
    assert page.count('<td>') == frame(kind).to_html().count('<td>')


@needs_pandoc
def test_heads_of_styled_tables_are_not_empty():
    "pandas writes a space that does not break into corners of a styled table."
    page = render('```{=html}\n<table><thead><tr><th class="blank">&nbsp;</th><th class="blank level0">&nbsp;</th><th>a</th></tr></thead><tbody><tr><th>&nbsp;</th><td>1</td></tr></tbody></table>\n```')
    assert [o.strip() for o in heads(page)[0]] == ['row', 'row', 'a'] and '&nbsp;' not in page


@needs_pandoc
@pytest.mark.parametrize('cell, set_', [('$w^2$', 1), ('mean $x_2$', 1), ('$a^2$ and $b^2$', 2), ('$a &lt; b$', 1), ('$\\\\lambda + 1$', 1), ('5 $ or 6 $', 0), ('US$ 5', 0), ('w', 0)])
def test_formulas_of_tables_are_set(cell, set_):
    page = render(f'```{{=html}}\n<table><thead><tr><th>{cell}</th></tr></thead><tbody><tr><td>{cell}</td></tr></tbody></table>\n```')
    assert '<th><em>w</em></th>' in render('```{=html}\n<table><thead><tr><th>$w$</th></tr></thead></table>\n```')
    assert page.count('<math') == 2*set_ and ('$' in page) == (set_ == 0 and '$' in cell)


@needs_pandoc
def test_heads_of_written_tables_are_not_empty():
    assert heads(render('|  | b |\n|---|---|\n| 1 | 2 |')) == [['row', 'b']]


@needs_pandoc
def test_no_table_of_a_chapter_has_an_empty_head():
    outputs = [''.join(o.get('data', {}).get('text/html', '')) for p in NBS_DIR.glob('*.ipynb') for c in json.loads(p.read_text(encoding='utf-8'))['cells'] for o in c.get('outputs', ())]
    page = render('\n\n'.join('```{=html}\n' + re.sub(r'<tbody.*?</tbody>|\n\s*', '', o, flags=re.S) + '\n```' for o in outputs if '<th' in o))
    assert page.count('<thead>') > 50 and re.findall(r'<th[^>]*>\s*</th>', page) == []


STYLE = (THEME/'site.scss').read_text(encoding='utf-8')


@pytest.mark.parametrize('box', [r'\.katex-display', r'div\.sourceCode pre', r'\.cell-output', 'main table'])
def test_what_scrolls_shows_that_it_does(box):
    assert re.search(rf'^{box} \{{ @include scrolls\(', STYLE, re.M)
    mixin = re.search(r'@mixin scrolls\(.*?^\}', STYLE, re.M | re.S)[0]
    assert 'overflow: auto' in mixin and 'background-attachment: local, local, scroll, scroll' in mixin
    later = STYLE[STYLE.index(mixin) + len(mixin):]
    assert not re.search(rf'^{box} \{{[^}}]*overflow', later, re.M), 'set once, by the mixin'


def test_what_scrolls_is_reached_by_keyboard():
    script = (THEME/'reach.js').read_text(encoding='utf-8')
    assert all(box in script for box in ('.katex-display', 'div.sourceCode pre', '.cell-output pre', 'main table')) and 'tabIndex = 0' in script


@needs_pandoc
def test_each_page_bears_the_script_that_does_so():
    script = (THEME/'reach.js').read_text(encoding='utf-8')
    assert f'<script>\n{script}</script>' in render('Text.') and '</' not in script


def test_links_are_told_by_a_line():
    assert re.search(r'^main :is\(p, li, dd, td,[^{]* a:not\([^{]*\{\s*text-decoration: underline', STYLE, re.M)


# Search

ASKED = json.loads((THEME/'asked.json').read_text(encoding='utf-8'))
QUERIES = {'which scale': 'choice', 'guidance scale stable diffusion 7.5': 'choice', 'oversaturated images': 'rules', 'cfg rescale': 'rules',
    'negative prompt': 'branches', 'autoguidance vs cfg': 'comparison', 'how does classifier-free guidance work': 'story',
    'CFG++ difference': 'procedures', 'w versus s': 'guidance', 'guidance interval': 'ablations'}
TYPED = {'ablations': 'label dropout probability', 'guidance': 'two calls in one batch; why is the network evaluated twice; guidance_scale 7.5 w diffusers',
    'comfy': 'start end steps; comfyui apg', 'adapters': 'own U-Net', 'comparison': 'autoguidance better than CFG', 'mnist': 'fidelity diversity', 'laws': 'guidance by hand',
    'index': 'citation; bibtex', 'rules': 'high cfg', 'teach': 'prerequisites; Colab; exercises; worked example', 'contributing': 'add my technique'} # by newcomers, who found nothing
COMING = {'teach', 'contributing', 'conformance'} # pages that may not be there yet
DOCS = ROOT/'_docs'


def page_names(): return {re.sub(r'^\d+[a-z]?_', '', p.stem) for kind in ('*.ipynb', '*.qmd') for p in NBS_DIR.glob(kind)}


def test_questions_lead_to_pages():
    every = [q.lower() for questions in ASKED.values() for q in questions]
    assert {key.partition('#')[0] for key in ASKED} <= page_names() | COMING and len(every) == len(set(every)) > 300


def test_sections_to_which_questions_lead_are_there():
    from test_site import anchors
    paths = {re.sub(r'^\d+[a-z]?_', '', p.stem): p for kind in ('*.ipynb', '*.qmd') for p in NBS_DIR.glob(kind)}
    named = [key.split('#') for key in ASKED if '#' in key]
    assert len(named) > 5 and [f'{page}#{place}' for page, place in named if place not in anchors(paths[page])] == []


def asked_of(page): return [q for key, questions in ASKED.items() if key.partition('#')[0] == page for q in questions]


@pytest.mark.parametrize('query', QUERIES)
def test_a_query_is_among_the_questions_of_its_page(query):
    assert query.lower() in [q.lower() for q in asked_of(QUERIES[query])]


@pytest.mark.parametrize('page', TYPED)
def test_what_newcomers_typed_leads_to_its_page(page):
    assert set(TYPED[page].split('; ')) <= set(asked_of(page))


PAGE = """<html><head><meta name="description" content="What it &amp; they do."></head><body><main class="content">
<p>Intro.</p><section id="one" class="level2"><h2>One</h2><p>Prose x &lt; y, it's <em>so</em>.</p>
<details class="code-fold exported"><summary><code>half(x)</code></summary><div class="sourceCode"><pre><code>secret_code</code></pre></div></details>
<details class="box callout-note-folded"><summary>Proof</summary><p>Proven.</p></details><p>After.</p></section>
<section id="exercises" class="level2"><h2>Exercises</h2><p>A question?</p><details class="box callout-tip-folded solution"><summary>Solution</summary>
<p>secret answer</p><pre><code>secret_code</code></pre></details></section></main></body></html>"""


def run_search(folder):
    "What theme/search.lua makes of the index of a built site."
    command = [*PANDOC, '--from', 'markdown', '--to', 'plain', '--lua-filter', str(THEME/'search.lua')]
    done = subprocess.run(command, input='', cwd=NBS_DIR, capture_output=True, text=True, env=os.environ | dict(QUARTO_PROJECT_OUTPUT_DIR=str(folder)))
    assert done.returncode == 0 and not done.stderr, done.stderr
    return json.loads((folder/'search.json').read_text(encoding='utf-8'))


@needs_pandoc
def test_prose_is_indexed_and_code_and_solutions_are_not(tmp_path):
    docs = []
    for name in ('choice', 'other'):
        (tmp_path/f'{name}.html').write_text(PAGE, encoding='utf-8')
        for id in ('', '#exercises', '#one'):
            docs.append(dict(objectID=f'{name}.html{id}', href=f'{name}.html{id}', title=name, section=id, text='secret_code secret answer' if id else 'Intro.', crumbs=['Theory']))
    (tmp_path/'search.json').write_text(json.dumps(docs), encoding='utf-8')
    found = run_search(tmp_path)
    assert 'secret' not in json.dumps(found) and len({d['objectID'] for d in found}) == len(found)
    text = {d['objectID']: d['text'] for d in found}
    assert text['choice.html#one'] == 'Prose x &lt; y, it&#39;s so . Proof Proven. After.' and text['choice.html'] == 'Intro.'
    questions = [d for d in found if d['href'] == 'choice.html#title-block-header']
    assert [d['section'] for d in questions] == ['', *ASKED['choice']] and {d['text'] for d in questions} == {'What it &amp; they do.'}
    assert [d['href'].partition('#')[2] for d in found[-2:]] == ['exercises']*2 and found[:len(questions)] == questions
    placed = [d for d in found if d['href'] == 'choice.html#burnt-at-a-high-scale']
    assert [d['section'] for d in placed] == ASKED['choice#burnt-at-a-high-scale'] and {d['title'] for d in placed} == {'choice'}
    assert run_search(tmp_path) == found


@pytest.mark.skipif(not (DOCS/'search.json').is_file(), reason='no site in _docs: make site')
@pytest.mark.parametrize('query', QUERIES)
def test_the_built_index_has_the_query_first(query):
    found = json.loads((DOCS/'search.json').read_text(encoding='utf-8'))
    first = next(d for d in found if query.lower() in (d['section'] + d['title']).lower())
    assert first['href'].startswith(QUERIES[query] + '.html')


def test_the_index_is_made_after_rendering():
    assert 'theme/search.lua' in re.search(r'post-render: (.*)', (ROOT/'_quarto.yml').read_text(encoding='utf-8'))[1]


# The address of the course, which may not be there yet

LINKED = """---
title: A page
description: What it says.
output-file: page.html
---

[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/NAME/blob/main/nbs/a.ipynb)

See [the nodes](https://github.com/NAME/tree/main/comfy), [another course](https://github.com/NAMEs/x) and [a paper](https://arxiv.org/abs/1).
"""


def addressed(tmp_path, published, markdown=LINKED):
    "A page as it is where the course has its address, or has not."
    text = (ROOT/'settings.ini').read_text(encoding='utf-8')
    user, repo = (re.search(rf'^{o} = (.*)$', text, re.M)[1] for o in ('user', 'repo'))
    (tmp_path/'settings.ini').write_text(re.sub(r'^published = .*$', f'published = {published}', text, flags=re.M), encoding='utf-8')
    (tmp_path/'nbs').mkdir(exist_ok=True)
    return render(markdown.replace('NAME', f'{user}/{repo}'), cwd=tmp_path/'nbs'), f'{user}/{repo}'


@needs_pandoc
def test_until_it_is_published_no_link_leads_to_the_repository(tmp_path):
    page, name = addressed(tmp_path, False)
    assert f'{name}/' not in page.partition('<script')[0] and 'Colab' not in page and '<p></p>' not in page
    assert 'See the nodes,' in page and f'https://github.com/{name}s/x' in page and 'https://arxiv.org/abs/1' in page
    code = shown('half', 'def half(\n    x:int, # whole\n)').replace('https://example.org', f'https://github.com/{name}/blob/main/a.py#L1')
    assert 'source of half' not in addressed(tmp_path, False, code)[0] and 'source of half' in addressed(tmp_path, True, code)[0]


@needs_pandoc
def test_once_it_is_published_they_are_there(tmp_path):
    page, name = addressed(tmp_path, True)
    assert page.count(f'/{name}/') == 2 and 'class="colab"' in page and 'Open in Colab' in page


@needs_pandoc
@pytest.mark.parametrize('published', [True, False])
def test_each_page_says_what_it_is_to_those_who_collect_pages(tmp_path, published):
    page, _ = addressed(tmp_path, published, LINKED.replace('A page', 'A "page" </script>'))
    told = json.loads(re.search(r'<script type="application/ld\+json">(.*?)</script>', page)[1])
    assert told['@type'] == 'LearningResource' and told['description'] == 'What it says.' and told['isPartOf']['@type'] == 'Course'
    assert told['url'].endswith('/cfg_course/page.html') and told['name'].startswith('A')
    assert 'ld+json' not in render('Without a title.')


@pytest.mark.parametrize('published', [True, False])
def test_what_the_site_is_told_of_the_repository(published):
    yaml = pytest.importorskip('yaml')
    import pages
    from nbdev.quarto import _nbdev_yml
    values = dict(doc_path='_docs', title='T', doc_host='h', doc_baseurl='/b', description='d', branch='main', git_url='https://github.com/u/r')
    told = yaml.safe_load(pages.with_address(_nbdev_yml.format(**values), published))['website']
    assert ('repo-url' in told) == ('repo-actions' in told) == ('navbar' in told) == published
    if published: assert told['navbar']['tools'][0]['href'] == 'https://github.com/u/r' and told['repo-subdir'] == 'nbs'
    assert 'github.com' not in (ROOT/'_quarto.yml').read_text(encoding='utf-8')


def test_the_readme_leads_to_what_is_there():
    import readme
    says = readme.read_settings()
    site, text = says['doc_host'] + says['doc_baseurl'], (ROOT/'README.md').read_text(encoding='utf-8')
    assert says.getboolean('published') or not re.search(rf'\]\(({re.escape(site)}|{re.escape(says["git_url"])})', text)
    assert readme.offline(f'[a]({site}/story.html#x), [b]({site}/choice.html)') == '[a](nbs/story.qmd), [b](nbs/32_choice.ipynb)'


# After rendering

RENDERED = """<head><script src="site_libs/a.js"></script><script src="site_libs/glightbox/g.js"></script><link href="site_libs/b/bootstrap-icons.css" rel="stylesheet">
<link href="day.css" rel="stylesheet" class="quarto-color-scheme" id="q"><link href="night.css" rel="stylesheet" append-hash="true" class="quarto-color-scheme quarto-color-alternate" id="q"></head>
<nav class="navbar navbar-expand-lg " data-bs-theme="dark"><button class="navbar-toggler" type="button" role="menu" aria-expanded="false"></button></nav>
<a class="sidebar-item-text" data-bs-toggle="collapse" role="navigation" aria-expanded="false">Theory</a><a href="x.html" role="navigation">Results</a>
<nav class="quarto-secondary-nav"><nav class="quarto-page-breadcrumbs" aria-label="breadcrumb"></nav></nav>
<nav id="quarto-sidebar" class="sidebar collapse"></nav><nav id="TOC" role="doc-toc" class="toc-active"></nav>
<nav class="quarto-page-breadcrumbs quarto-title-breadcrumbs d-none" aria-label="breadcrumb"></nav><nav class="page-navigation"></nav>
<script src="https://cdn/requirejs@2/require.js"></script><script src="own.js"></script>
<section id="quarto-bibliography"><h2>References</h2><div id="refs" class="references" role="list"><div id="ref-a" class="csl-entry">A</div>
<div id="ref-b" class="csl-entry">B</div>
</div></section>"""


@needs_pandoc
def test_a_rendered_page_is_mended(tmp_path):
    page, command = tmp_path/'a.html', [*PANDOC, '-f', 'markdown', '-t', 'plain', '--lua-filter', str(THEME/'offline.lua')]
    page.write_text(RENDERED)
    for _ in range(2): # the second time nothing changes
        subprocess.run(command, input='', cwd=NBS_DIR, check=True, text=True, env=os.environ | dict(QUARTO_PROJECT_OUTPUT_FILES=str(page)))
        html = page.read_text()
        names = re.findall(r'<nav[^>]*aria-label="([^"]*)"', html)
        assert len(set(names)) == len(names) == html.count('<nav') == 7 == html.count('aria-label'), names
        assert '<script src="site_libs/a.js" defer></script>' in html and '<script src="site_libs/glightbox/g.js"></script>' in html
        assert 'bootstrap-icons' not in html and html.count('rel="stylesheet"') == 1 == html.count('rel="disabled-stylesheet" blocking="render"')
        assert html.count('role="button" tabindex="0" aria-expanded') == 1 and '<a href="x.html" role="button">' in html and 'role="navigation"' not in html
        assert 'role="menu"' not in html and 'requirejs' not in html and 'own.js' in html and 'role="doc-toc"' in html
        assert html.count('<details class="box works"><summary>2 works</summary><div id="refs"') == 1 == html.count('</details></section>')
    assert 'theme/offline.lua' in re.search(r'post-render: (.*)', (ROOT/'_quarto.yml').read_text(encoding='utf-8'))[1]


@needs_pandoc
def test_links_to_names_without_a_place_lead_to_their_page(tmp_path):
    links = '<a href="b.html#there"><code>there</code></a> <a href="./b.html#hidden"><code>hidden</code></a> <a href="#here"><code>here</code></a> <a href="a.html#gone"><code>gone</code></a> <a href="b.html#hidden">words</a>'
    (tmp_path/'a.html').write_text(f'<p id="here">{links}</p>')
    (tmp_path/'b.html').write_text('<h3 id="there">x</h3>')
    command = [*PANDOC, '-f', 'markdown', '-t', 'plain', '--lua-filter', str(THEME/'offline.lua')]
    subprocess.run(command, input='', cwd=NBS_DIR, check=True, text=True, env=os.environ | dict(QUARTO_PROJECT_OUTPUT_FILES=str(tmp_path/'a.html')))
    assert (tmp_path/'a.html').read_text() == '<p id="here"><a href="b.html#there"><code>there</code></a> <a href="b.html"><code>hidden</code></a> <a href="#here"><code>here</code></a> <code>gone</code> <a href="b.html#hidden">words</a></p>'


@needs_pandoc
@pytest.mark.parametrize('text, katex', [('$x$ and\n\n$$y = 1$$', 0), ('$a$ $b$ '*4, 0), ('$a$ $b$ '*4 + '$c$', 9), ('$$y = 1$$ {#eq-y}', 1), ('No formula.', 0)])
def test_few_formulas_need_no_program(text, katex):
    page = render(text)
    assert page.count('class="math') == katex and page.count('<math') == (0 if katex else text.replace('$$', '$').count('$')//2)


def test_every_icon_is_drawn():
    "Icons that Quarto puts on pages have a shape in site.scss, since the font that has them all is left out."
    shapes = dict(re.findall(r'^\.bi-([\w-]+) \{ --icon: url\("(data:image/svg[^"]+)"\); \}', STYLE, re.M))
    listed = re.search(r'^:is\(((?:\.bi-[\w-]+(?:, )?)+)\)::before', STYLE, re.M)[1]
    assert set(shapes) == {o.removeprefix('.bi-') for o in listed.split(', ')} and len(set(shapes.values())) == len(shapes)
    if (DOCS/'index.html').is_file():
        used = {o for p in DOCS.glob('*.html') for o in re.findall(r'class="bi bi-([\w-]+)', p.read_text(encoding='utf-8'))}
        assert used <= set(shapes)


# What the visit in a browser looks for

CALM = dict(over=0, culprits=[], raw=0, heads=0, height=10_000, page=10_000, code_height=500, fold_height=400)


@pytest.mark.parametrize('change, fault', [({}, None), (dict(cut=['a+b']), 'formula is cut: a+b'), (dict(markdown=['**x']), 'raw Markdown: **x'),
    (dict(heads=2), '2 heads of tables are empty'), (dict(shut=['DIV']), 'opens by mouse alone: DIV'), (dict(open=['D']), 'exported code is open: D'),
    (dict(colour=['A']), 'a link by its colour alone: A'), (dict(unreached=['PRE']), 'scrolls, but not by keyboard: PRE')])
def test_what_a_page_shows_is_judged(change, fault):
    import visit
    assert visit.page_faults(CALM | change) == ([] if fault is None else [fault])


@pytest.mark.parametrize('name, change, fault', [('rules', {}, None), ('rules', dict(code_height=700), 'code takes 11% of its height'),
    ('rules', dict(page=13_000), 'is 15.4 screens of a phone long'), ('guidance', dict(page=20_000), None), ('story', dict(code_height=5000), None)])
def test_long_chapters_and_code_are_judged(name, change, fault, tmp_path, monkeypatch):
    import visit
    assert visit.chapter('rules') and visit.chapter('damages') and not visit.chapter('story') and not visit.chapter('api')
    assert visit.length_faults(name, CALM | change) == ([] if fault is None else [fault])


def test_pages_say_what_they_are_and_are_on_the_map(tmp_path, monkeypatch):
    import visit
    page = '<meta name="description" content="x"><meta property="og:image" content="https://a"><meta property="og:title" content="t"><script type="application/ld+json">{}</script>'
    (tmp_path/'a.html').write_text(page)
    (tmp_path/'b.html').write_text(page.replace('og:image', 'og:x').replace('application/ld+json', 'text/x'))
    (tmp_path/'sitemap.xml').write_text('<loc>https://h/r/a.html</loc>')
    monkeypatch.setattr(visit, 'DOCS', tmp_path)
    assert visit.told_faults(tmp_path/'a.html') == [] and visit.told_faults(tmp_path/'b.html') == ['has not a card', 'has not structured data']
    assert visit.map_faults(['a', '404']) == [] and visit.map_faults(['a', 'b']) == ['not in sitemap.xml: b']


@pytest.mark.parametrize('published', [True, False])
def test_links_to_where_nothing_is_yet_are_found(published, monkeypatch):
    import visit
    says = dict(visit.read_settings())
    here = f'https://github.com/{says["user"]}/{says["repo"]}/blob/main/a.py'
    class Settings(dict): getboolean = lambda self, name: published
    monkeypatch.setattr(visit, 'read_settings', lambda: Settings(says))
    found = visit.link_faults({'b/x.html': dict(ids=[], links=[here, 'https://arxiv.org/abs/1', f'{says["doc_host"]}/x.html'])}, 'b/')['b/x.html']
    assert len(found) == (0 if published else 2)


class Said:
    "A browser that says one thing."
    def __init__(self, said): self.said = said
    def value(self, expression): return self.said
    def open(self, url): return True


@pytest.mark.parametrize('here', [True, False])
@pytest.mark.parametrize('said, fine', [('Drawn: a 3 was asked for, s = 3', True), ('The figure stays a picture: it could not be loaded, and so on', False),
    ('The figure stays a picture: this browser refuses to run it.', None), ('', None), ('no button to press', None)])
def test_the_button_of_ones_own_noise_is_pressed(said, fine, here, tmp_path, monkeypatch):
    "It has to draw where npm installed what it needs, and to say that it cannot elsewhere; never the other way round."
    import serve, visit
    monkeypatch.setattr(serve, 'RUNTIME', tmp_path)
    expected = json.loads(serve.SETTING.read_text(encoding='utf-8'))
    for name in ('script', 'wasm') if here else ():
        with open(tmp_path/expected[name]['name'], 'wb') as f: f.truncate(expected[name]['bytes'])
    assert visit.own_faults(Said(said)) == ([] if fine == here else [f'own noise: says {said or "nothing"}'])
    assert visit.own_faults(Said(None)) == []


def test_what_npm_installed_lies_below_the_site(tmp_path, monkeypatch):
    import serve, visit
    monkeypatch.setattr(serve, 'RUNTIME', tmp_path/'npm'), monkeypatch.setattr(visit, 'DOCS', tmp_path/'site')
    (tmp_path/'npm').mkdir(), (tmp_path/'site'/'play').mkdir(parents=True)
    (tmp_path/'npm'/'a.wasm').write_bytes(b'here'), (tmp_path/'site'/'play'/'runtime.json').write_text('old')
    server, base = visit.start()
    try:
        get = lambda name: urllib.request.urlopen(base + name).read()
        assert get('runtime/a.wasm') == b'here' and gzip.decompress(get('play/runtime.json')) == serve.setting()
        with pytest.raises(urllib.error.HTTPError): get('runtime/../../secret')
    finally: server.shutdown()


def test_searches_of_pages_that_are_built_are_tried(tmp_path, monkeypatch):
    "Each question of such a page, and words typed into the box."
    import visit
    monkeypatch.setattr(visit, 'DOCS', tmp_path)
    assert len(visit.search_faults(Said(None), 'b/')) == len(visit.UNASKED)
    (tmp_path/'rules.html').touch()
    found = visit.search_faults(Said('rules.html?q=x#y'), 'b/')
    assert len(found) == len(visit.UNASKED) and all('the box shows no' in o for o in found)
    assert len(visit.search_faults(Said('choice.html'), 'b/')) == len(ASKED['rules']) + len(found)
    (tmp_path/'rules.html').unlink(), (tmp_path/'comfy.html').touch()
    places = {o for o in ('an-interval-in-comfyui', 'cfg-in-comfyui') for at in ('comfy.html?q=x', 'comfy.html') if len(visit.search_faults(Said(f'{at}#{o}'), 'b/')) == len(asked_of('comfy')) - len(ASKED['comfy']) - len(ASKED[f'comfy#{o}']) + len(found)}
    assert len(places) == 2, 'of a question with a section only that will do'
    assert visit.box_faults(Said(['about drops', 'U-Net', 'Glossary'])) == []
    shown = {q for questions in ASKED.values() for q in questions}
    assert not shown & set(visit.UNASKED), 'what nobody foresaw'


@pytest.mark.skipif(not (any(map(shutil.which, BROWSERS)) or os.environ.get('BROWSER_BIN')), reason='no Chromium here')
@pytest.mark.timeout(600)
def test_without_the_runtime_the_page_says_so(tmp_path, monkeypatch):
    "In a real browser, without a network: the button is pressed, and what npm installs is not here."
    import serve, visit
    try: (tmp_path/'site').mkdir(), serve.assemble(tmp_path/'site')
    except SystemExit as e: pytest.skip(str(e))
    monkeypatch.setattr(serve, 'RUNTIME', tmp_path/'nothing'), monkeypatch.setattr(visit, 'DOCS', tmp_path/'site')
    browser, (server, base) = visit.Browser(str(tmp_path/'profile')), visit.start()
    try:
        browser.attach(), browser.dress(visit.DESKTOP), browser.open(base + 'play.html')
        assert visit.own_faults(browser) == [] and 'could not be loaded' in browser.value("document.querySelector('[data-own-part=why]').textContent")
        assert [f for f in (visit.event_fault(e, base + 'play.html', base) for e in browser.events) if f] == []
        browser.open(base + 'story.html')
        assert visit.own_faults(browser) == []
    finally: browser.close(), server.shutdown()


def test_the_visit_has_what_it_needs():
    run = steps(workflow('docs')['jobs']['build'])
    assert next(i for i, o in enumerate(run) if 'axe-core' in o) < next(i for i, o in enumerate(run) if o.startswith('make visit'))
    import visit
    assert {'story', 'play', 'compare'} <= set(visit.MAIN)


GLOBAL = re.compile(r'^(?:const|let|var|class|(?:async )?function)\s+(\w+)', re.M)


def twice(scripts):
    "Names that two scripts of a page would both declare: the second one then doesn't run at all."
    names = [name for text in scripts for name in set(GLOBAL.findall(text))]
    return sorted({name for name in names if names.count(name) > 1})


def test_no_two_scripts_declare_the_same_name():
    assert twice(p.read_text(encoding='utf-8') for p in (ROOT/'nbs'/'theme').glob('*.js')) == []


def test_a_name_that_is_declared_twice_is_found():
    assert twice(['function begin() {}\nconst a = 1', 'const begin = 1\n  const a = 2']) == ['begin']
    assert twice(['let a\nlet b', 'let c', 'x = a', 'async function d() {}\nclass e {}', 'var d, f']) == ['d']


# Publishing

def workflow(name):
    yaml = pytest.importorskip('yaml')
    return yaml.safe_load((ROOT/'.github'/'workflows'/f'{name}.yml').read_text(encoding='utf-8'))


def steps(job): return [o.get('run') or o['uses'].partition('@')[0] for o in job['steps']]


def test_the_site_is_built_looked_at_and_published():
    jobs = workflow('docs')['jobs']
    run = steps(jobs['build'])
    assert run.index('quarto-dev/quarto-actions/setup') < run.index('make site') < next(i for i, o in enumerate(run) if o.startswith('make visit'))
    assert 'actions/upload-pages-artifact' in run and jobs['build']['steps'][run.index('actions/upload-pages-artifact')]['with']['path'] == '_docs'
    assert steps(jobs['publish']) == ['actions/deploy-pages'] and jobs['publish']['needs'] == 'build'
    assert jobs['publish']['permissions'] == {'pages': 'write', 'id-token': 'write'}


def test_a_tag_becomes_a_release():
    found = workflow('release')
    assert found[True]['push']['tags'] == ['v*'] # YAML reads `on` as true
    build, publish = found['jobs']['build'], found['jobs']['publish']
    run = steps(build)
    assert run.index('python -m build') < run.index('twine check --strict dist/*') < run.index('actions/upload-artifact')
    assert steps(publish) == ['actions/download-artifact', 'pypa/gh-action-pypi-publish']
    assert publish['needs'] == 'build' and publish['if'] == "github.ref_type == 'tag'" and publish['permissions'] == {'id-token': 'write'}
    assert 'secrets.' not in json.dumps(found) and not any('password' in (o.get('with') or {}) for o in publish['steps'])


@pytest.mark.parametrize('tag, fits', [('v{}', True), ('{}', False), ('v{}.1', False), ('v9.9.9', False)])
def test_the_tag_has_to_be_the_version(tag, fits):
    from notebooks import settings
    check = next(o['run'] for o in workflow('release')['jobs']['build']['steps'] if 'tag is the version' in o.get('name', ''))
    name = tag.format(settings()['version'])
    assert (subprocess.run(['bash', '-c', check], cwd=ROOT, env=os.environ | dict(GITHUB_REF_NAME=name)).returncode == 0) == fits


# The live pages without Quarto

import serve # noqa: E402


def test_the_live_pages_have_the_filters_of_the_site(): assert list(serve.FILTERS) == FILTERS


@pytest.mark.parametrize('look', ['light', 'dark'])
def test_the_style_is_css(look):
    css = serve.style(look)
    assert not re.search(r'[$]|@include|@mixin|rgba\(#|^\s*//', css, re.M) and css.count('{') == css.count('}') > 100
    assert len(re.findall(r'background-attachment', css)) >= 4


@needs_pandoc
def test_the_live_pages_are_put_together(tmp_path):
    out = tmp_path/'live'
    done = subprocess.run([sys.executable, 'tools/serve.py', '--out', str(out)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr
    for name in serve.LIVE:
        page = (out/f'{name}.html').read_text(encoding='utf-8')
        loads = re.findall(r'(?:src|href)="([^"#:?]+\.(?:js|css|svg|png))[?#"]', page)
        assert loads and [o for o in loads if not (out/o).is_file()] == []
        links = re.findall(r'href="([\w/.-]+)\.(html|qmd|ipynb)', page)
        assert {kind for _, kind in links} == {'html'} and {o for o, _ in links} <= page_names()
    again = subprocess.run([sys.executable, 'tools/serve.py', '--out', str(out)], cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 1 and again.stderr.count('\n') == 1 and 'overwritten' in again.stderr


@needs_pandoc
def test_the_live_pages_are_served_to_this_machine():
    from urllib.error import HTTPError
    from urllib.request import urlopen
    server = subprocess.Popen([sys.executable, 'tools/serve.py', '--port', '0'], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        base = re.match(r'http://127\.0\.0\.1:\d+/', server.stdout.readline())[0]
        for name in serve.LIVE if not (DOCS/'index.html').is_file() else ('index', 'play'):
            assert urlopen(f'{base}{name}.html').status == 200
        for lost in ('guidance-that-is-not.html', '../settings.ini', '%3Cscript%3E', ''.join(['a']*3000)):
            with pytest.raises(HTTPError) as e: urlopen(base + lost)
            assert b'<script>' not in e.value.read() and e.value.code in (404, 414)
        port = base.rpartition(':')[2].strip('/')
        second = subprocess.run([sys.executable, 'tools/serve.py', '--port', port], cwd=ROOT, capture_output=True, text=True)
        assert second.returncode == 1 and second.stderr.count('\n') == 1 and port in second.stderr
    finally:
        server.terminate()
        server.wait()


def test_without_pandoc_one_line_says_what_to_do():
    script = "import sys; sys.modules['pypandoc'] = None; sys.argv = ['serve.py', '--out', sys.argv[1]]; import runpy; runpy.run_path('tools/serve.py', run_name='__main__')"
    import tempfile
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([sys.executable, '-c', script, folder + '/live'], cwd=ROOT, capture_output=True, text=True, env=os.environ | dict(PATH=folder))
    assert done.returncode == 1 and done.stderr.strip() == serve.NO_PANDOC
