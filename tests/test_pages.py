"""What the site's filters make of a page, with Pandoc alone: code that folds, terms that explain themselves.

Pandoc comes with the development tools (pypandoc-binary), on PATH, or inside Quarto.
"""
import html, importlib.util, re, shutil, subprocess, sys

import pytest

from notebooks import NBS_DIR, ROOT

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
    for code, more in ((check, 'show the check'), ('test_eq(1, 1)', 'show the check'), (long, 'show code')):
        (what, _, summary, _), = folds(render(cell(code, exported=False, output='::: {.cell-output}\nSeen.\n:::')))
        assert (what, summary_of(summary)) == ('lesson', more)
    assert 'Seen.' in outside(render(cell(check, exported=False, output='::: {.cell-output}\nSeen.\n:::')))


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
