"Structure of the course: numbering, imports, documentation, stored outputs, and a package that stands on its own."
import ast, re, subprocess, sys

import pytest

from notebooks import EXPORTED, NBS, PAGES, ROOT, cells, code, each, settings, src, texts

LIB = ROOT/'cfg_course'
MODULES = sorted(p for p in LIB.glob('*.py') if not p.name.startswith('_'))
SECTIONS = 'in this chapter', 'what can go wrong', 'summary', 'exercises'
BLOCKED = '''nbdev execnb fastcore ghapi IPython ipykernel ipywidgets jupyter jupyter_core jupyter_client notebook
    nbformat nbclient diffusers hypothesis pytest tensorboard'''.split()

SKIPPED = re.compile(r'^#\|\s*(slow|eval:\s*false)', re.M)
STAR = re.compile(r'^\s*from\s+\S+\s+import\s+\*', re.M)


def tree(p): return ast.parse(p.read_text(encoding='utf-8'))


def module_of(p):
    "The module that a notebook exports to, or None."
    return next((m[1] for c in code(p) if (m := re.search(r'^#\|\s*default_exp\s+(\S+)', src(c), re.M))), None)


ORDER = {m: p.name for p in NBS if (m := module_of(p))}


def deps(t):
    "Modules of the package that a syntax tree imports, written in any way."
    for n in ast.walk(t):
        if isinstance(n, ast.Import):
            yield from (a.name.split('.')[1] for a in n.names if a.name.startswith('cfg_course.'))
        elif isinstance(n, ast.ImportFrom) and (n.level or (n.module or '').split('.')[0] == 'cfg_course'):
            inner = (n.module or '').removeprefix('cfg_course').strip('.')
            yield from [inner.split('.')[0]] if inner else (a.name for a in n.names if a.name in ORDER)


def headings(p, level):
    "Headings of one level in a notebook's prose, code blocks aside."
    prose = '\n\n'.join(src(c) for c in cells(p) if c['cell_type'] == 'markdown')
    prose = re.sub(r'^```.*?^```', '', prose, flags=re.M | re.S)
    return [re.sub(r'\s*\{.*\}$', '', h).strip() for h in re.findall(rf'^{"#"*level}\s+(.+)$', prose, re.M)]


# Numbering

def number(p):
    "Two digits, and a letter where a decade is full."
    found = re.match(r'(\d\d[a-z]?)_', p.name)
    return found and found[1]


def test_numbers_are_unique(): assert None not in (numbers := [number(p) for p in NBS]) and len(set(numbers)) == len(NBS)


@each(NBS)
def test_module_is_named_after_its_notebook(p):
    if m := module_of(p): assert p.stem == f'{number(p)}_{m}'


def test_one_notebook_for_each_module():
    assert {p.stem for p in MODULES} == set(ORDER)


@each(MODULES)
def test_imports_go_down(p):
    assert [d for d in deps(tree(p)) if ORDER.get(d, '') >= ORDER[p.stem]] == []


@each(NBS)
def test_lessons_import_nothing_above(p):
    found = {m for c in code(p) for m in re.findall(r'^\s*(?:from|import)\s+cfg_course\.(\w+)', src(c), re.M)}
    assert [m for m in found if ORDER.get(m, '') > p.name] == []


@pytest.mark.parametrize('a,b', [('guidance', 'samplers'), ('samplers', 'guidance')])
def test_guidance_and_samplers_are_independent(a, b):
    if not (LIB/f'{a}.py').exists(): pytest.skip(f'no module {a} yet')
    assert b not in deps(tree(LIB/f'{a}.py'))


# Notebooks

@each(NBS)
def test_anatomy(p):
    found = [h.lower() for h in headings(p, 2)]
    assert [s for s in SECTIONS if found.count(s) != 1] == []


@each(PAGES)
def test_one_title(p): assert len(headings(p, 1)) == 1


@each(PAGES)
def test_title_cell_is_a_title_and_a_subtitle(p):
    "nbdev makes these two lines the page's metadata and drops whatever else the cell says."
    title = next(c for c in cells(p) if c['cell_type'] == 'markdown')
    assert re.fullmatch(r'# [^\n]+\s+> [^\n]+\s*', src(title))


@each(PAGES)
def test_size(p): assert p.stat().st_size <= 1_000_000


@each(NBS)
def test_code_that_draws_is_folded(p):
    def draws(s): return '#| fig-alt' in s or re.search(r'^\s*prose(_table)?\(', s, re.M)
    shown = [c['id'] for c in code(p) if draws(src(c)) and not re.search(r'^#\| (code-fold: true|hide|exports?)\b', src(c), re.M)]
    assert not shown, f'{p.name}: cells {shown} draw a figure or fill in a sentence; to mend: a line "#| code-fold: true" below their flags'


@each(PAGES)
def test_skipped_cells_keep_their_output(p):
    assert [src(c)[:80] for c in code(p) if SKIPPED.search(src(c)) and not c['outputs']] == []


@each(PAGES)
def test_exported_cells_name_what_they_import(p):
    assert [src(c)[:80] for c in code(p) if EXPORTED.search(src(c)) and STAR.search(src(c))] == []


def statements(c):
    "The syntax trees of a cell's statements, with `pass` for line and cell magics."
    return ast.parse(re.sub(r'^([ \t]*)[%!].*$', r'\1pass', src(c), flags=re.M)).body


@each(PAGES)
def test_imports_stand_alone(p):
    "Building the site runs every lesson cell that imports: it must do nothing else."
    lessons = [(src(c)[:80], {type(n) for n in statements(c)}) for c in code(p) if not EXPORTED.search(src(c))]
    imports = {ast.Import, ast.ImportFrom}
    assert [s for s, kinds in lessons if kinds & imports and kinds - imports] == []


CLAIM = re.compile(r'^(.+): error ([\d.e+-]+), tolerance ([\d.e+-]+)(?: \(([\d,]+) samples\))?$', re.M)
THEORY = [p for p in NBS if p.name < '09']


def claims(p):
    "The statements that a page prints with their errors: (statement, error, tolerance, samples or None)."
    shown = '\n'.join(t for c in code(p) for t in texts(c))
    return [(what, float(error), float(tolerance), n) for what, error, tolerance, n in CLAIM.findall(shown)]


def test_theory_prints_its_claims():
    assert len([c for p in THEORY for c in claims(p)]) >= 100


@each(THEORY)
def test_claims_hold_as_printed(p):
    assert [c for c in claims(p) if not c[1] <= c[2]] == []


# Documentation

def public(t):
    "Public functions and classes at the top of a module."
    return [n for n in t.body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and n.name[0] != '_']


def methods(n):
    "The functions whose parameters a caller sees: the function itself, or a class's constructor and public methods."
    if not isinstance(n, ast.ClassDef): return [n]
    return [f for f in n.body if isinstance(f, ast.FunctionDef) and (f.name == '__init__' or f.name[0] != '_')]


def is_dataclass(n): return any('dataclass' in ast.unparse(d) for d in n.decorator_list)


def parameters(n):
    "(name, line) of each parameter of a function, or of a class's methods and data-class fields."
    for f in methods(n):
        args = f.args.posonlyargs + f.args.args + f.args.kwonlyargs
        yield from ((f'{f.name}({a.arg})', a.lineno) for a in args if a.arg not in ('self', 'cls'))
    if isinstance(n, ast.ClassDef) and is_dataclass(n):
        yield from ((f'{n.name}.{a.target.id}', a.lineno) for a in n.body if isinstance(a, ast.AnnAssign))


@each(MODULES)
def test_public_names_have_docstrings(p):
    assert [n.name for n in public(tree(p)) if not ast.get_docstring(n)] == []


@each(MODULES)
def test_parameters_have_docments(p):
    lines = p.read_text(encoding='utf-8').splitlines()
    assert [name for n in public(tree(p)) for name, i in parameters(n) if '#' not in lines[i-1]] == []


@each(MODULES)
def test_lines_are_at_most_120_wide(p):
    "But those of `__all__`, which nbdev writes."
    lines = p.read_text(encoding='utf-8').splitlines()
    assert [f'{p.name}:{i}' for i, line in enumerate(lines, 1) if len(line) > 120 and '__all__' not in line] == []


# Package

def test_requirements_equal_settings():
    assert (ROOT/'requirements.txt').read_text(encoding='utf-8').split() == settings()['requirements'].split()


def test_version_is_the_changelogs_latest():
    found = re.search(r'^## \[(\d+\.\d+\.\d+)\]', (ROOT/'CHANGELOG.md').read_text(encoding='utf-8'), re.M)
    assert found[1] == settings()['version']


def test_hooks_pin_what_settings_pin():
    "The hooks of pre-commit have an environment of their own, with the same nbdev."
    pins = re.search(r'&nbdev \[(.+)\]', (ROOT/'.pre-commit-config.yaml').read_text(encoding='utf-8'))[1]
    asked = settings()['dev_requirements'].split()
    assert re.findall(r"'([^']+)'", pins) == [o for o in asked if re.match(r'nbdev|fastcore|execnb|ghapi', o)]


def test_citation_equals_settings():
    said = dict(re.findall(r'^(?:  - )?([\w-]+): (.+)$', (ROOT/'CITATION.cff').read_text(encoding='utf-8').split('\nreferences:')[0], re.M))
    s = settings()
    assert (said['version'], said['name'], said['repository-code'], said['url']) == (s['version'], s['author'], s['git_url'], s['doc_host'] + s['doc_baseurl'])


def test_one_quarto_everywhere():
    files = ['.devcontainer/devcontainer.json', *(f'.github/workflows/{o.name}' for o in (ROOT/'.github'/'workflows').glob('*.yml'))]
    found = {m for o in files for m in re.findall(r'quarto[^\n]*\n?[^\n]*\n?\s*"?version"?:\s*"?([\d.]+)', (ROOT/o).read_text(encoding='utf-8'))}
    assert len(found) == 1


FRESH = f'''
import importlib, sys
for name in {BLOCKED}: sys.modules[name] = None
for name in {[p.stem for p in MODULES]}:
    for old in [o for o in sys.modules if o.split('.')[0] == 'cfg_course']: del sys.modules[old]
    try: importlib.import_module('cfg_course.' + name)
    except Exception as e: print(f'{{name}}: {{type(e).__name__}}: {{e}}')
'''


def test_modules_import_without_the_development_tools():
    "In a fresh process, each by itself: no name leaks in from a notebook, and no tool is needed to run."
    done = subprocess.run([sys.executable, '-c', FRESH], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ''), done.stdout + done.stderr
