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
