"""The site without Quarto: links, references, citations, pictures, Colab, outputs; a fault has a file, a cell, a line.

A check is a function from a page to its faults. It runs on every page here, and on a small site with one fault planted
at a time, which it must find. So must `tools/check_sync.py`, on a project of two notebooks.
"""
import base64, json, os, re, shutil, subprocess, sys
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote

import pytest

from notebooks import EXPORTED, NBS, NBS_DIR, PAGES, ROOT, cells, code, each, place, settings, src, texts

TEMPLATE = NBS_DIR/'_template.ipynb'
WRITTEN = [p for p in sorted(NBS_DIR.glob('*.qmd')) + sorted(ROOT.glob('*.md'))]
COLAB = 'https://colab.research.google.com/github/'


def per_file(f):
    "Keep what a function says of a file until the file changes."
    kept = {}
    def keeping(p):
        key = p, p.stat().st_mtime_ns, p.stat().st_size
        if key not in kept: kept[key] = f(p)
        return kept[key]
    return keeping


def blank(m): return '\n'*m[0].count('\n') + ' '


def prose(text, maths=False, put=blank):
    "Markdown without code, and without formulas unless asked for; every line keeps its number."
    text = re.sub(r'^[ \t]*(```+|~~~+).*?^[ \t]*\1[ \t]*$', blank, text, flags=re.M | re.S)
    text = re.sub(r'(`+)(?!`).+?(?<!`)\1(?!`)', put, text, flags=re.S)
    return text if maths else re.sub(r'\$\$.*?\$\$|\$[^$\n]+\$', put, text, flags=re.S)


class At:
    "A place that is looked up when it is named."
    def __init__(self, p, c, k): self.p, self.c, self.k = p, c, k
    def __str__(self):
        if self.c: return place(self.p, self.c, self.k)
        return f'{"nbs/" if self.p.suffix == ".qmd" else ""}{self.p.name}:{self.k}'


def blocks(p):
    "(prose, its cell or None) of each piece of prose of a page."
    if p.suffix == '.ipynb': yield from ((src(c), c) for c in cells(p) if c['cell_type'] == 'markdown')
    else: yield p.read_text(encoding='utf-8'), None


def search(pattern, p, maths=False):
    "(match, place) of every match of a pattern in the prose of a page."
    for text, c in blocks(p):
        text = prose(text, maths)
        yield from ((m, At(p, c, text[:m.start()].count('\n') + 1)) for m in re.finditer(pattern, text, re.M))


# Where a link may lead

def slug(heading):
    "The id that Pandoc makes of a heading."
    words = re.sub(r'!?\[([^\]]*)\]\([^)]*\)', r'\1', heading).lower()
    words = re.sub(r'[^\w\s.-]', '', words)
    return re.sub(r'^[^a-z]+', '', re.sub(r'\s+', '-', words.strip())) or 'section'


LABEL = r'\{[^{}\n]*?#([\w:.-]+)'


def numbered(ids):
    "Pandoc numbers an id that it has made before: x, x-1, x-2."
    return {o if ids[:i].count(o) == 0 else f'{o}-{ids[:i].count(o)}' for i, o in enumerate(ids)}


@per_file
def anchors(p):
    "Everything on a page that a link can end at: headings, labels, code cells, and the names that the page documents."
    written = [re.sub(r'^[ \t]*(```+).*?^[ \t]*\1[ \t]*$', '', t, flags=re.M | re.S) for t, _ in blocks(p)]
    heads = [h for t in written for h in re.findall(r'^#{1,6}\s+(.+?)\s*$', t, re.M)]
    made = numbered([slug(h) for h in heads if not re.search(LABEL, h)])
    given = {k for t in written for k in re.findall(LABEL, t) + re.findall(r'\bid="([^"]+)"', t)}
    cs = code(p) if p.suffix == '.ipynb' else []
    ids = {c['id'] for c in cs if not re.match(r'#\|\s*(hide|default_exp)\b', src(c))}
    exports = [src(c) for c in cs if EXPORTED.search(src(c))]
    names = {n.lower() for o in exports for n in re.findall(r'^(?:def|class)\s+(\w+)', o, re.M)}
    return made | given | names | ids | {k for c in cs for k in re.findall(r'^#\|\s*label:\s*(\S+)', src(c), re.M)}


def own_addresses(p):
    "Addresses of this project on the web, each with the folder that it shows."
    root = next(o for o in p.resolve().parents if (o/'settings.ini').is_file())
    s = settings(root)
    name = f"{s['user']}/{s['repo']}"
    web = {f'{COLAB}{name}/blob/{s["branch"]}/': root}
    return web | {f"{s['git_url']}/{kind}/{s['branch']}/": root for kind in ('blob', 'tree', 'edit', 'raw')}


def rendered(folder, name):
    "The source of a page of the site: nbdev takes the number off a notebook's name."
    pages = [*folder.glob('*.ipynb'), *folder.glob('*.qmd')]
    return next((o for o in pages if re.sub(r'^\d+[a-z]?_', '', o.stem) == Path(name).stem), None)


def site_page(p, target):
    "The source of a page that is linked by its address on the web; None for other addresses."
    root = next(o for o in p.resolve().parents if (o/'settings.ini').is_file())
    site = settings(root)['doc_host'] + settings(root)['doc_baseurl']
    name = target.removeprefix(site).lstrip('/') or 'index.html'
    return (rendered(root/'nbs', name) or root/'nbs'/name) if target.startswith(site) else None


def local(p, target):
    "The file that a link of page `p` leads to, or None where it leads out of the project."
    for web, folder in own_addresses(p).items():
        if target.startswith(web): return folder/target.removeprefix(web)
    if target.startswith(COLAB): return Path('no notebook of this repository')
    if (page := site_page(p, target)) is not None: return page
    if re.match(r'[a-z][\w+.-]*:|//', target): return None
    if not target: return p
    there = p.parent/unquote(target)
    return there if there.suffix != '.html' or there.exists() else rendered(p.parent, target) or there


TARGET = r'\]\(\s*<?([^)>\s]+)|^\[[^\]^]+\]:\s*<?([^>\s]+)|(?:href|src)="([^"]*)"'


def link_faults(p):
    "Links and pictures of which there is no file, no heading, no label or no name."
    for m, at in search(TARGET, p):
        target, _, anchor = next(g for g in m.groups() if g is not None).partition('#')
        there = local(p, target)
        if there is None: continue
        if not there.exists(): yield f'{at}: the link {target!r} leads to no file'
        elif anchor and '=' not in anchor and unquote(anchor) not in anchors(there): # with = it is a setting
            yield f'{at}: {there.name} has no heading or label #{anchor}'


# Emphasis

BREAK = r'\n[ \t]*\n|\n(?=[ \t]*(?:[-+*]|\d+\.)[ \t])|\n(?=\|)|(?<=\|)\n'  # between paragraphs, items of lists, rows of tables


def shown(p):
    "(prose, its cell or None) of each piece of prose of a page, also of what its cells print as prose."
    yield from blocks(p)
    for c in code(p) if p.suffix == '.ipynb' else []:
        yield from ((''.join(o['data']['text/markdown']), c) for o in c['outputs'] if 'text/markdown' in o.get('data', {}))


def a_word(m): return blank(m).replace(' ', 'x')


def stray(text):
    "Where an asterisk neither begins nor ends emphasis as its author meant it: one that is part of a name does either."
    begun, faults = None, []
    for m in re.finditer(r'(?<![*\\])\*(?!\*)', text):
        before, after = text[:m.start()][-1:], text[m.end():][:1]
        if begun is None and after.strip() and not re.match(r'\w', before): begun = m.start()
        elif begun is not None and before.strip(): begun = None
        elif before.strip() or after.strip(): faults.append(m.start())
    return faults if begun is None else [*faults, begun]


def emphasis_faults(p):
    "Asterisks of names, as in CFG-Zero*, that are not escaped: Pandoc takes them for the begin or the end of emphasis."
    for text, c in shown(p):
        k, text = 0, re.sub(r'<!--.*?-->|<[^<>]+>', a_word, prose(text, put=a_word), flags=re.S)
        for part in re.split(f'({BREAK})', text):
            for i in stray(part):
                words, line = part[max(0, i - 20):i + 12].replace('\n', ' '), text[:k + i].count('\n') + 1
                yield f'{At(p, c, line)}: write \\* for the asterisk in {words!r}'
            k += len(part)


# References and citations

KINDS = 'eq|fig|tbl|sec|lst|thm|exr|nte|tip|wrn|imp|cau'


def reference_faults(p):
    "Cross-references to labels that the page does not have."
    known = anchors(p)
    for m, at in search(rf'(?<![\w@\\])@((?:{KINDS})-[\w-]*\w)', p):
        if m[1] not in known: yield f'{at}: @{m[1]} has no label {{#{m[1]}}} on this page; to another, write a link'


@per_file
def labels(p): return [(m[1], at) for m, at in search(rf'\{{#((?:{KINDS})-[\w-]+)', p, maths=True)]


def label_faults(p):
    "Labels that this page, or another, has twice."
    others = {k: o.name for o in p.parent.glob('*.ipynb') if o != p and o.name[0] != '_' for k, _ in labels(o)}
    mine = labels(p)
    for i, (k, at) in enumerate(mine):
        first = 'above' if k in [o for o, _ in mine[:i]] else others.get(k)
        if first: yield f'{at}: the label {k} is used already, {first if first == "above" else "in " + first}'


def citation_faults(p):
    "Citations that the bibliography does not have."
    bib = (p.parent/'references.bib').read_text(encoding='utf-8')
    known = set(re.findall(r'^@\w+\{([^,\s]+),', bib, re.M))
    for m, at in search(rf'(?<![\w@\\.])@(?!(?:{KINDS})-)([a-zA-Z]\w*(?:[:.-]\w+)*)', p):
        if m[1] not in known: yield f'{at}: @{m[1]} is not in references.bib'


@each(NBS)
def test_formulas_have_one_stroke(p):
    "Two strokes before a word, as in a string of Python, end a line, and the word is set letter by letter."
    found_ = [f'{place(p, c)}: {m[0]}' for c in cells(p) if c['cell_type'] == 'markdown' for m in re.finditer(r'(?<![$\\])\$([^$\n]+)\$(?!\$)', src(c)) if re.search(r'\\\\[a-zA-Z]', m[1])]
    assert found_ == []


def bibliography_faults(text):
    "Entries of a bibliography that begin within another one, whose closing brace is missing, or that never end."
    depth = 0
    for k, line in enumerate(text.splitlines(), 1):
        if line.startswith('@') and depth: yield f'references.bib:{k}: the entry above is not closed'
        if line.startswith('@'): depth = 0
        if not line.startswith('%'): depth += line.count('{') - line.count('}')
    if depth: yield 'references.bib: the last entry is not closed'


def test_the_bibliography_can_be_read():
    "One open brace, and Quarto renders no page."
    text = (NBS_DIR/'references.bib').read_text(encoding='utf-8')
    assert list(bibliography_faults(text)) == []
    keys = re.findall(r'^@\w+\{([^,\s]+),', text, re.M)
    assert len(keys) == len(set(keys)) == text.count('\n@') + text.startswith('@')


@pytest.mark.parametrize('text, faults', [('@a{b,\n  c = {d}\n}\n', 0), ('@a{b,\n  c = {d}\n\n@a{e,\n}\n', 1), ('@a{b,\n  c = {d\n}\n@a{e,\n}\n', 1),
    ('@a{b,\n}\n% left {out\n@a{e,\n', 1)])
def test_an_entry_that_does_not_end_is_found(text, faults): assert len(list(bibliography_faults(text))) == faults


# Pictures

ALT = re.compile(r'^#\|\s*fig-alt:\s*(.*)$')


def options(c):
    "The `#|` lines at the head of a cell, with their numbers."
    for k, o in enumerate(src(c).splitlines(), 1):
        if not o.startswith('#|'): return
        yield k, o


def alt_of(c):
    "(line, text) of a cell's `fig-alt`, the text None where it is not one line in double quotes; (1, '') without one."
    for k, o in options(c):
        if m := ALT.match(o):
            try: return k, json.loads(m[1])
            except ValueError: return k, None
    return 1, ''


def has_picture(c): return any(k.startswith('image/') for o in c['outputs'] for k in o.get('data', {}))


def figure_faults(p):
    "Pictures without words for those who do not see them."
    for m, at in search(r'!\[\s*\]\(|<img(?![^>]*\balt="[^"]+")[^>]*>', p):
        yield f'{at}: a picture without alternative text'
    mend = '#| fig-alt: "what is to be seen", on one line after the flags of the cell'
    for c in code(p) if p.suffix == '.ipynb' else []:
        k, alt = alt_of(c)
        if alt is None: yield f'{place(p, c, k)}: fig-alt is not a text in double quotes; write {mend}'
        elif has_picture(c) and len(alt) < 20: yield f'{place(p, c, k)}: a figure without alternative text; add {mend}'
        elif '%' in alt: yield f"{place(p, c, k)}: fig-alt has '%', which Quarto reads as part of an address; write per cent"
        elif alt and not has_picture(c): yield f'{place(p, c, k)}: no figure is stored; make run-nb NB=nbs/{p.name}'


# Colab

def badge(p):
    "The line that opens a chapter on Colab."
    s = settings(next(o for o in p.resolve().parents if (o/'settings.ini').is_file()))
    picture = '[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]'
    name = 'NN_name.ipynb' if p == TEMPLATE else p.name
    return f"{picture}({COLAB}{s['user']}/{s['repo']}/blob/{s['branch']}/nbs/{name})"


def installer():
    "The cell that makes a machine on Colab ready, as the template has it."
    return src(next(c for c in code(TEMPLATE) if 'COLAB_RELEASE_TAG' in src(c)))


def colab_faults(p):
    "A chapter has its badge, and below it, before any other code, the cell that installs the package on Colab."
    cs = [c for c in cells(p) if not re.match(r'#\|\s*default_exp', src(c))]
    found = [i for i, c in enumerate(cs) if 'colab-badge.svg' in src(c)]
    if found != [1]: return [f'{place(p, cs[min(1, len(cs) - 1)])}: one badge stands below the title: {badge(p)}']
    below = cs[2] if len(cs) > 2 else cs[1]
    faults = [] if src(cs[1]).strip() == badge(p) else [f'{place(p, cs[1])}: the badge of this chapter is {badge(p)}']
    same = below['cell_type'] == 'code' and src(below) == installer()
    return faults + [f'{place(p, below)}: copy the cell below the badge of nbs/_template.ipynb to here']*(not same)


# Outputs

UNWANTED = {
    'a path of one machine': re.compile(r'(?<![\w.])/(work|root|home|tmp|Users|content)/'),
    'a warning': re.compile(r'Warning'),
    'a progress bar': re.compile(r'\r(?!\n)|\d%\|.*\||\[[\d:]+<[\d:?]+,|application/vnd\.jupyter\.widget-view'),
    'a black line, which the dark theme hides,': re.compile(r'\bstroke: #(?:[0-2][0-9a-f]){3}\b'),
}


def output_faults(p):
    "Outputs that are not for the page: errors, the error stream, warnings, progress bars, paths of one machine."
    mend = f'make run-nb NB=nbs/{p.name} (FLAGS=slow for a slow cell)'
    for c in code(p):
        bad = [o for o in c['outputs'] if o['output_type'] == 'error' or o.get('name') == 'stderr']
        if bad: yield f'{place(p, c)}: an error or the error stream is stored; {mend}'
        for what, r in UNWANTED.items():
            hits = [t[t.rfind('\n', 0, m.start()) + 1:][:80].split('\n')[0] for t in texts(c) if (m := r.search(t))]
            if hits: yield f'{place(p, c)}: {what} in the output, {hits[0]!r}; {mend}'


@each(PAGES)
def test_stored_pictures_are_pictures(p):
    "What is stored as a PNG can be read back."
    for c in code(p):
        for o in c['outputs']:
            png = o.get('data', {}).get('image/png')
            if png: assert base64.b64decode(''.join(png), validate=False)[:8] == b'\x89PNG\r\n\x1a\n', place(p, c)


# The sidebar

def contents_faults(folder):
    "Pages that the sidebar lacks, and entries of the sidebar and of the navigation bar that have no page."
    side, top = folder/'sidebar.yml', folder.parent/'_quarto.yml'
    entry = re.compile(r'(?:^\s*-\s*|\bhref:\s*)([\w./-]+\.(?:ipynb|qmd))(?=\s*$|\s*[,}])', re.M)
    listed = {f: entry.findall(f.read_text(encoding='utf-8')) for f in (side, top)}
    pages = sorted(o.name for o in folder.glob('*.ipynb') if o.name[0] != '_')
    yield from (f'nbs/sidebar.yml: {o} is not listed; add a line "- {o}"' for o in pages if listed[side].count(o) == 0)
    yield from (f'nbs/sidebar.yml: {o} is listed twice' for o in pages if listed[side].count(o) > 1)
    for f, names in listed.items():
        text = f.read_text(encoding='utf-8')
        lost = [o for o in names if not (folder/o).is_file()]
        yield from (f'{f.name}:{text[:text.index(o)].count(chr(10)) + 1}: there is no page {o}' for o in lost)


# Every page here

CHECKS = dict(emphasis=emphasis_faults, link=link_faults, reference=reference_faults, label=label_faults, citation=citation_faults,
              figure=figure_faults, output=output_faults, colab=colab_faults)
PROSE = dict(emphasis=emphasis_faults, link=link_faults, figure=figure_faults)


def found(check, p):
    "Fail with a line for each fault."
    if bad := list(check(p)): pytest.fail('\n'.join(bad), pytrace=False)


@pytest.mark.parametrize('check', [k for k in CHECKS if k != 'colab'])
@each(PAGES)
def test_page(check, p): found(CHECKS[check], p)


@each([*NBS, TEMPLATE])
def test_chapter_opens_on_colab(p): found(colab_faults, p)


@pytest.mark.parametrize('check', PROSE)
@each(WRITTEN)
def test_written_page(check, p): found(PROSE[check], p)


def test_contents(): found(contents_faults, NBS_DIR)


def test_no_two_figures_share_their_words():
    alts = [(alt_of(c)[1], place(p, c)) for p in NBS for c in code(p) if has_picture(c)]
    assert [at for i, (a, at) in enumerate(alts) if a and a in [o for o, _ in alts[:i]]] == []


# The cell that installs the package on Colab

def test_installer_names_the_repository():
    s = settings()
    assert f"git clone -q --depth 1 {s['git_url']} ~/{s['repo']}\n" in installer()


RUN = '''
import os, sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
for _ in range(2): shell.run_cell(sys.argv[1])
assert 'google' not in sys.modules
sys.stderr.write(os.getcwd())
'''


def first_in_path(folder): return os.pathsep.join([str(folder), os.environ['PATH']])


@pytest.fixture
def machine(tmp_path):
    "A machine with an empty working folder and an empty home, whose git and pip write down how they were called."
    for o in ('bin', 'home', 'content'): (tmp_path/o).mkdir()
    log = f'echo "$(basename "$0") $@" >> {tmp_path}/calls\n'
    for name, then in dict(git='for last; do :; done; mkdir -p "$last/nbs"\n', pip='').items():
        (tmp_path/'bin'/name).write_text(f'#!/bin/sh\n{log}{then}')
        (tmp_path/'bin'/name).chmod(0o755)
    return tmp_path


def run_installer(machine, **env):
    "Run the cell twice: (what it printed, the working folder after it, the commands that it called)."
    env |= dict(HOME=str(machine/'home'), IPYTHONDIR=str(machine/'ipython'), PATH=first_in_path(machine/'bin'))
    others = 'COLAB_RELEASE_TAG', 'VIRTUAL_ENV' # the shell's own environment is another one than Python's: IPython warns
    known = {k: v for k, v in os.environ.items() if k not in others} | env
    command = [sys.executable, '-c', RUN, installer()]
    done = subprocess.run(command, cwd=machine/'content', env=known, capture_output=True, text=True)
    calls = (machine/'calls').read_text().splitlines() if (machine/'calls').exists() else []
    return done.stdout, done.stderr, calls


@pytest.mark.skipif(os.name == 'nt', reason='the stand-ins for git and pip are shell scripts')
def test_installer_installs_on_colab(machine):
    home, s = machine/'home'/settings()['repo'], settings()
    out, folder, calls = run_installer(machine, COLAB_RELEASE_TAG='release')
    assert (out, folder) == ('', str(home/'nbs'))
    pip = [o for o in calls if o.startswith(f'pip install -q {home}[all] ')]
    assert calls == [f"git clone -q --depth 1 {s['git_url']} {home}", *pip] and len(pip) == 2


@pytest.mark.skipif(os.name == 'nt', reason='the stand-ins for git and pip are shell scripts')
def test_installer_does_nothing_elsewhere(machine):
    assert run_installer(machine) == ('', str(machine/'content'), [])


def plain(name): return re.split(r'[^\w.-]', name, maxsplit=1)[0].lower().replace('_', '-')


def test_installer_brings_what_the_lessons_import():
    "Every package that a chapter imports is required by ours, or by one of those, or is named in the cell."
    found_ = {o for p in NBS for c in code(p) for o in re.findall(r'^(?:from|import)\s+(\w+)', src(c), re.M)}
    wanted = found_ - set(sys.stdlib_module_names) - {settings()['lib_name']}
    extras = (settings()[f'{extra}_requirements'] for extra in settings()['extras'].split())
    asked = [plain(o) for text in (settings()['requirements'], *extras) for o in text.split()]
    asked += re.search(r'pip install -q \S+ (.+)', installer())[1].split()
    brought = {*asked, *(plain(r) for o in asked for r in metadata.requires(o) or [])}
    dists = metadata.packages_distributions()
    assert [o for o in wanted if not {plain(d) for d in dists.get(o, ['none'])} & brought] == []


# Each check finds the fault that it is for

PNG = {'output_type': 'display_data', 'data': {'image/png': 'iVBORw0KGgo='}, 'metadata': {}}
INI = '''[DEFAULT]
repo = r
user = u
branch = main
git_url = https://github.com/u/r
doc_host = https://u.io
doc_baseurl = /r
'''
WORDS = '''## A section, named `x`

See [the other](02_other.ipynb#a-heading), [the section](#a-section-named-x) and @eq-one [@ho2022classifier].

$$ a = b $$ {#eq-one}

![A picture](results/a.png), [the code](https://github.com/u/r/blob/main/nbs/02_other.ipynb).
It is [online](https://u.io/r/other.html).'''


def cell(kind, text, name, **more):
    "A cell of a notebook, as nbdev writes it."
    more = dict(execution_count=None, outputs=[]) | more if kind == 'code' else more
    return dict(cell_type=kind, id=name, metadata={}, source=text.splitlines(True)) | more


def write(p, cs):
    nb = dict(cells=cs, metadata={}, nbformat=4, nbformat_minor=5)
    p.write_text(json.dumps(nb, indent=1, sort_keys=True) + '\n')


def good(p):
    "A page without a fault."
    title, top = cell('markdown', '# A\n\n> B', 'title'), cell('markdown', badge(p), 'badge')
    figure = '#| slow\n#| fig-alt: "A line that rises from left to right."\nplot()'
    body = [cell('markdown', WORDS, 'words'), cell('code', figure, 'figure', outputs=[PNG])]
    return [title, top, cell('code', installer(), 'colab'), *body]


@pytest.fixture
def page(tmp_path):
    "A page of a small site with all that its links lead to."
    (tmp_path/'nbs'/'results').mkdir(parents=True)
    files = {'settings.ini': INI, '_quarto.yml': '- href: 01_page.ipynb\n', 'nbs/results/a.png': '',
             'nbs/sidebar.yml': '- 01_page.ipynb\n- 02_other.ipynb\n',
             'nbs/references.bib': '@misc{ho2022classifier,\n}\n'}
    for name, text in files.items(): (tmp_path/name).write_text(text)
    other = [cell('markdown', '# Other\n\n> x', 'a'), cell('markdown', '## A heading\n\n$$x$$ {#eq-there}', 'b')]
    write(tmp_path/'nbs'/'02_other.ipynb', other)
    p = tmp_path/'nbs'/'01_page.ipynb'
    write(p, good(p))
    return p


@pytest.mark.parametrize('check', CHECKS)
def test_a_good_page_passes(check, page): assert list(CHECKS[check](page)) == []


def test_good_contents_pass(page): assert list(contents_faults(page.parent)) == []


PLANTED = [
    ('emphasis', 'words', 'It is [online]', 'CFG-Zero* is [online]', r"line 8: write .\* for the asterisk in '.*CFG-Zero\*"),
    ('emphasis', 'words', 'It is [online]', '(CFG-Zero*, ADG) is [online]', 'line 8: write'),
    ('emphasis', 'words', 'It is [online]', '*Mahiro* and CFG-Zero*: [online]', 'line 8: write'),
    ('emphasis', 'words', 'It is [online]', '*As CFG-Zero* is* [online]', 'line 8: write'),
    ('emphasis', 'words', '## A section', '## A* section', 'line 1: write'),
    ('link', 'words', '02_other.ipynb#', '03_other.ipynb#', r'cell 3 \(id words\), line 3: the link .03_other.ipynb. '),
    ('link', 'words', '#a-heading', '#another', 'line 3: 02_other.ipynb has no heading or label #another'),
    ('link', 'words', '(#a-section', '(#the-section', 'line 3: 01_page.ipynb has no heading'),
    ('link', 'words', 'a.png', 'b.png', 'line 7: the link .results/b.png. leads to no file'),
    ('link', 'words', 'main/nbs/02_other', 'main/nbs/other', 'line 7: the link'),
    ('link', 'words', 'io/r/other', 'io/r/02_other', 'line 8: the link .https://u.io/r/02_other.html. leads to no'),
    ('link', 'badge', '01_page', '10_page', r'cell 1 \(id badge\), line 1: the link'),
    ('link', 'badge', '/u/r/', '/u/s/', 'line 1: the link'),
    ('reference', 'words', '@eq-one', '@eq-two', r'line 3: @eq-two has no label \{#eq-two\}'),
    ('label', 'words', '{#eq-one}', '{#eq-there}', 'line 5: the label eq-there is used already, in 02_other.ipynb'),
    ('label', 'words', '![A', '$$x$$ {#eq-one} ![A', 'line 7: the label eq-one is used already, above'),
    ('citation', 'words', 'ho2022', 'hi2022', 'line 3: @hi2022classifier is not in references.bib'),
    ('citation', 'words', '@ho2022classifier', '@someone', 'line 3: @someone is not'),
    ('figure', 'words', 'A picture', '', 'line 7: a picture without alternative text'),
    ('figure', 'figure', '#| fig-alt: "A line that rises from left to right."\n', '',
     r'cell 4 \(id figure\), line 1: a figure without alternative text; add #\| fig-alt: "'),
    ('figure', 'figure', 'A line that rises from left to right.', '', 'line 2: a figure without'),
    ('figure', 'figure', 'left to right', '5 % to 7 %', "line 2: fig-alt has '%'"),
    ('figure', 'figure', '"', '', 'line 2: fig-alt is not a text in double quotes'),
    ('colab', 'badge', '01_page', '02_other', r'cell 1 \(id badge\), line 1: the badge of this chapter is \[!\['),
    ('colab', 'badge', 'colab-badge.svg', 'badge.svg', 'line 1: one badge stands below the title'),
    ('colab', 'colab', 'pip install', 'pip3 install', r'cell 2 \(id colab\), line 1: copy the cell below the badge'),
]


@pytest.mark.parametrize('check,name,old,new,said', PLANTED)
def test_a_planted_fault_is_found(check, name, old, new, said, page):
    cs = cells(page)
    c = next(c for c in cs if c['id'] == name)
    assert old in src(c)
    c['source'] = src(c).replace(old, new).splitlines(True)
    write(page, cs)
    faults = list(CHECKS[check](page))
    assert len(faults) == 1 and re.search(said, faults[0]), faults
    file, line = re.match(r'nbs/(\S+):(\d+): ', faults[0]).groups()
    shown, k = page.read_text().splitlines()[int(line) - 1], int(re.search(r', line (\d+): ', faults[0])[1])
    assert file == page.name and json.loads(shown.strip().removesuffix(',')) == c['source'][k - 1]


def printed(text, name='stdout'): return dict(output_type='stream', name=name, text=text.splitlines(True))


OUTPUTS = [
    (printed('a\nUserWarning: b\n'), "a warning in the output, 'UserWarning: b'; make run-nb NB=nbs/01_page.ipynb"),
    (printed(' 10%|#  | 1/10\n'), 'a progress bar in the output'),
    (printed('saved in /home/me/x\n'), 'a path of one machine in the output'),
    (dict(output_type='display_data', data={'text/html': ['<b>/tmp/x']}, metadata={}), 'a path of one machine in the'),
    (dict(output_type='display_data', data={'image/svg+xml': '<path style="stroke: #1a1a1a"/>'}, metadata={}), 'a black line'),
    (printed('x', 'stderr'), 'the error stream is stored'),
    (dict(output_type='error', ename='E', evalue='', traceback=[]), 'an error or'),
]


@pytest.mark.parametrize('output,said', OUTPUTS)
def test_an_output_that_is_not_for_the_page_is_found(output, said, page):
    write(page, good(page)[:-1] + [cell('code', 'f()', 'last', outputs=[output])])
    faults = list(output_faults(page))
    assert len(faults) == 1 and 'cell 4 (id last), line 1: ' in faults[0] and said in faults[0]


@pytest.mark.parametrize('text,faults', [
    ('*a* and **b**, ***c***, *d\ne*, 2 * 3', 0), (r'CFG-Zero\* and *a*', 0), ('`CFG-Zero*` and $x*y$', 0), ('* an item\n* *two*', 0),
    ('CFG-Zero* and A*', 2), ('CFG-Zero*, A*, b', 2), ('**CFG-Zero***', 0), ('(*a CFG-Zero* b*)', 1), ('- A*, b\n- c*, d', 2), ('| A* |\n| *b* |', 1),
    ('*a* CFG-Zero*', 1), ('<a title="A*">A</a>', 0)])
def test_asterisks(text, faults, page):
    "In prose, and in prose that a cell prints."
    write(page, good(page) + [cell('markdown', text, 'last')])
    assert len(list(emphasis_faults(page))) == faults
    told = dict(output_type='execute_result', data={'text/markdown': text.splitlines(True)}, metadata={}, execution_count=None)
    write(page, good(page) + [cell('code', 'f()', 'last', outputs=[told])])
    assert len(list(emphasis_faults(page))) == faults


def test_words_without_a_figure_are_found(page):
    write(page, [{**c, 'outputs': []} if c['id'] == 'figure' else c for c in good(page)])
    assert 'line 2: no figure is stored; make run-nb NB=nbs/01_page.ipynb' in list(figure_faults(page))[0]


def test_contents_that_are_wrong_are_found(page):
    (page.parent/'sidebar.yml').write_text('- 01_page.ipynb\n- 01_page.ipynb\n- 03_none.ipynb\n')
    (page.parents[1]/'_quarto.yml').write_text('\n- {text: x, href: none.qmd}\n')
    assert list(contents_faults(page.parent)) == [
        'nbs/sidebar.yml: 02_other.ipynb is not listed; add a line "- 02_other.ipynb"',
        'nbs/sidebar.yml: 01_page.ipynb is listed twice',
        'sidebar.yml:3: there is no page 03_none.ipynb', '_quarto.yml:2: there is no page none.qmd']


@pytest.mark.parametrize('heading,expected', [
    ('What is *not* sampled?', 'what-is-not-sampled'), ('1. The `guide` of $x_0$', 'the-guide-of-x_0'),
    ('CFG++ counts, per step', 'cfg-counts-per-step'),
    ('[Linked](x.ipynb) words', 'linked-words'), ('2022', 'section')])
def test_slugs_are_those_of_pandoc(heading, expected): assert slug(heading) == expected


# The sync check, on a project of two notebooks

@pytest.fixture
def project(tmp_path):
    "Settings, the check, and two notebooks."
    for o in ('nbs', 'tools', 'cfg_course'): (tmp_path/o).mkdir()
    for o in ('settings.ini', 'tools/check_sync.py', 'cfg_course/__init__.py'): shutil.copy(ROOT/o, tmp_path/o)
    one = [('#| default_exp one', 'aaaa0000'), ('#| export\ndef one(): return 1', 'bbbb0000')]
    write(tmp_path/'nbs'/'00_one.ipynb', [cell('code', *o) for o in one])
    write(tmp_path/'nbs'/'index.ipynb', [cell('markdown', '# A\n\n> B', 'cccc0000')])
    return tmp_path


@pytest.fixture
def exported(project):
    "The same, clean and with its module."
    env = {k: v for k, v in os.environ.items() if k != 'IN_TEST'}
    env['PATH'] = first_in_path(Path(sys.executable).parent)
    for o in ('nbdev_clean', 'nbdev_export'): subprocess.run([o], cwd=project, env=env, check=True, capture_output=True)
    return project


def sync(project):
    "(status, messages) of the check."
    done = subprocess.run([sys.executable, 'tools/check_sync.py'], cwd=project, capture_output=True, text=True)
    return done.returncode, done.stderr.splitlines()


def edit(p, old, new):
    "Replace the first occurrence of a text in a file: the number of its line."
    text = p.read_text(encoding='utf-8')
    assert old in text
    p.write_text(text.replace(old, new, 1), encoding='utf-8')
    return text[:text.index(old)].count('\n') + 1


def test_sync_names_each_file_and_line(exported):
    line = edit(exported/'nbs'/'00_one.ipynb', '"execution_count": null', '"execution_count": 7')
    there = edit(exported/'cfg_course'/'one.py', 'return 1', 'return 2')
    (exported/'cfg_course'/'_modidx.py').unlink()
    (exported/'cfg_course'/'old.py').write_text('')
    status, said = sync(exported)
    assert status == 1 and said == [
        'cfg_course/_modidx.py:1: missing', 'cfg_course/old.py:1: no notebook exports it; delete it',
        f'cfg_course/one.py:{there}: differs from the export of nbs/00_one.ipynb, cell bbbb0000',
        f'nbs/00_one.ipynb:{line}: not clean', said[-1]]
    assert said[-1].startswith('To mend: make prepare, then commit')


def test_sync_names_invalid_json_with_line_and_column(project):
    line = edit(project/'nbs'/'00_one.ipynb', '"metadata": {},\n', '"metadata": {}\n') + 1
    (project/'nbs'/'index.ipynb').write_text('[]')
    status, said = sync(project)
    assert status == 1 and said == [f"nbs/00_one.ipynb:{line}:4: not a notebook: invalid JSON, Expecting ',' delimiter",
                                    'nbs/index.ipynb:1: not a notebook: no list of cells', said[-1]]
    assert said[-1].startswith('To mend: by hand, or git checkout -- FILE') and 'nbdev_fix FILE' in said[-1]


def test_tests_end_with_the_place_of_invalid_json(page):
    line = edit(page, '"metadata": {},\n', '"metadata": {}\n') + 1
    with pytest.raises(pytest.exit.Exception, match=rf'nbs/01_page.ipynb:{line}:4: invalid JSON'): cells(page)
