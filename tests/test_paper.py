"""The paper: its numbers are those of the files, none stands in the text by hand, and it builds in every state of the comparison.

LaTeX is asked for where it is installed; everything else is checked without it.
"""
import re, shutil, sys
from functools import cache
from itertools import product

import numpy as np, pandas as pd, pytest

from cfg_course.core import InputError
from notebooks import ROOT

sys.path.insert(0, str(ROOT/'tools'))
import paper

PAPER, RESULTS = ROOT/'paper', ROOT/'nbs'/'results'
TEX = (PAPER/'paper.tex').read_text(encoding='utf-8')
BIB = (ROOT/'nbs'/'references.bib').read_text(encoding='utf-8')
STATES = list(product((False, True), repeat=2)) # MNIST measured, photographs measured
WORDS = '''four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen
    twenty thirty forty fifty sixty seventy eighty ninety hundred hundreds thousand thousands dozen dozens percent'''.split()
COMMANDS = set(r'''\" \' \, \; \! \\ \% \& \_ \{ \} \| \E \norm \inner \asked \truth \cifar \wtwo \solver
    \par \maketitle \section \subsection \textbf \emph \texttt \item \itemsep \setlength \label \ref \eqref \citep \citet \cite
    \begin \end \centering \small \footnotesize \noindent \includegraphics \caption \input \bibliographystyle \bibliography
    \mathbb \mathcal \mathrm \tfrac \frac \textstyle \sum \int \nabla \partial \Delta \sigma \tau \log \mid \cdot \times \pm
    \ne \qquad \quad \to \text \hspace \textwidth \toprule \midrule \bottomrule \multicolumn \medskip \tabcolsep \ensuremath \title
    \author \date'''.split())


# Tables of the second comparison, made up

def chosen(model, names, judges, g):
    "A technique at its chosen strength, under three judges."
    rows = [dict(candidate=name, strength=1. + g.random(), model=model, method=name, parameters='', scale=1.5, sampler='dpmpp',
        steps=12, samples=5000, seed=1, nfe=24, judge=judge, metric=metric, value=5*g.random() + .1, low=0., high=9.)
        for name in names for judge in judges for metric in ('fid', 'recall')]
    return pd.DataFrame(rows)


def make_contest(folder, model, seed=0):
    "Three tables of one model."
    g = np.random.default_rng(seed)
    names = ['cfg', 'autoguidance', 'cfgig', 'interval, middle', 'cfg_zero', 'cfg+pag', 'apg', 'tcfg', 'rescale', 'late_zero', 'odd_%name']
    judges = {'mnist-a': ['mnist-fit', 'mnist-residual', 'mnist-unlabelled'],
        'cifar10-16': ['cifar10-16', 'cifar10-16-residual', 'cifar10-16-unlabelled']}[model]
    chosen(model, names, judges, g).to_csv(folder/f'contest_{model}_chosen.csv', index=False)
    pairs = [dict(candidate=n, judge=j, metric='fid', difference=g.normal(), error=.3, low=-1., high=1., p=g.random())
        for n in names[1:] for j in judges]
    pd.DataFrame(pairs).to_csv(folder/f'contest_{model}_differences.csv', index=False)
    told = [dict(candidate=n, least=-.5, most=.2, p=.01*i, holm=min(1., .1*i), verdict=('better', 'undecided', 'worse')[i % 3])
        for i, n in enumerate(names[1:])]
    pd.DataFrame(told).to_csv(folder/f'contest_{model}_verdicts.csv', index=False)


def count_photographs(path):
    "The coverage of a source that has not been counted yet."
    table = pd.read_csv(path)
    path.unlink()
    more = table[table.source == 'mnist-a'].assign(source='cifar10-16')
    pd.concat([table[table.source != 'cifar10-16'], more]).to_csv(path, index=False)


@pytest.fixture(scope='module')
def state_of(tmp_path_factory):
    "Folders of tables in which none, one or both of the models have been measured."
    @cache
    def folder(mnist, photos):
        out = tmp_path_factory.mktemp('results')
        for p in RESULTS.iterdir():
            if p.suffix in ('.csv', '.json', '.png') and not p.name.startswith('contest_'): (out/p.name).symlink_to(p)
        for model, there in zip(paper.MODELS, (mnist, photos)):
            if there: make_contest(out, model)
        if mnist and photos: count_photographs(out/'evidence_coverage.csv')
        return out
    return folder


@pytest.fixture(scope='module')
def parts_of(state_of):
    "What the tool writes in such a state."
    @cache
    def parts(mnist, photos): return paper.all_parts(paper.Results(state_of(mnist, photos)))
    return parts


# The text as LaTeX sees it

def bare(tex):
    "Text without comments and without what is shown as it is typed."
    tex = re.sub(r'\\begin\{verbatim\}.*?\\end\{verbatim\}', '', tex, flags=re.S)
    return re.sub(r'(?<!\\)%.*', '', tex)


def resolve(tex, flags):
    "Text in which every switch has been decided."
    inner = re.compile(r'\\if(contest\w+)((?:(?!\\if(?:contest)|\\fi\b).)*)\\fi\b', re.S)
    def decide(m):
        yes, _, no = m[2].partition('\\else')
        return yes if flags[m[1]] else no
    while inner.search(tex): tex = inner.sub(decide, tex)
    return tex


def flags_of(numbers): return {name: on == 'true' for name, on in re.findall(r'\\newif\\if(\w+?)\\\1(true|false)', numbers)}
def defined(numbers): return set(re.findall(r'^\\newcommand\{\\(\w+)\}', numbers, re.M))


def seen(parts, tex=TEX):
    "The body and all tables, in the state of some parts."
    body = resolve(bare(tex.partition('\\begin{document}')[2]), flags_of(parts['numbers.tex']))
    shown = [bare(text) for name, text in parts.items() if name != 'numbers.tex' and f'\\input{{{name[:-4]}}}' in body]
    return body + '\n'.join(shown)


def by_hand(tex):
    "Numbers that stand in the text itself, in digits or in words."
    body = bare(tex.partition('\\begin{document}')[2] or tex)
    title = re.findall(r'\\title\{(.*)\}|pdftitle=\{([^}]*)\}', tex)
    body = ' '.join(map(''.join, title)) + body
    body = strip_names(body)
    body = re.sub(r'\\setlength\{[^}]*\}\{[^}]*\}', ' ', body)
    found, math = [], re.compile(r'\$(.*?)\$|\\begin\{equation\}(.*?)\\end\{equation\}', re.S)
    for m in math.finditer(body):
        inside = (m[1] or m[2] or '').replace('\\tfrac12', '')
        if re.fullmatch(r'[-+\s]*[\d.,{}]+\s*', inside): found.append(inside)
        found += [n for n in re.findall(r'\d[\d.,{}]*\d|\d', inside) if n not in ('0', '1', '2')]
    prose = math.sub(' ', body)
    found += re.findall(r'\S*\d\S*', prose)
    return found + [w for w in re.findall(r'(?<!\\)\b[a-z]+\b', prose.lower()) if w in WORDS]


def strip_names(body):
    "Text without labels, citations and files; equations stay."
    body = re.sub(r'\\(?:label|ref|eqref|cite[pt]?|includegraphics|input|bibliography|bibliographystyle)(?:\[[^]]*\])?\{[^}]*\}', ' ', body)
    return re.sub(r'\\(?:begin|end)\{(?!equation)[^}]*\}(?:\[[^]]*\])?', ' ', body)


# What is checked

def test_numbers_and_tables_are_those_of_the_files(): assert paper.stale(PAPER, RESULTS) == [], 'python tools/paper.py'


def test_parameters_stand_where_they_are_said_to(): assert paper.unfounded() == []


def test_a_parameter_without_its_words_is_noticed(monkeypatch):
    monkeypatch.setitem(paper.PARAMETERS, 'ParBudget', ('36', 'nbs/25_comparison.ipynb', '36 evaluations of the network for an image'))
    assert 'ParBudget' in paper.unfounded()


def test_no_number_stands_in_the_text_by_hand(): assert by_hand(TEX) == []


@pytest.mark.parametrize('words', ['gains 1,144 nats', 'falls to $2.70$', 'in $0.5\\,\\%$ of', 'all 26 of them', 'at $s = 1.25$', 'of $3$',
    'all twenty-six', 'six of seven', '\\emph{12}', 'thousands of nats', '\\caption{about 7.9}', '$-13{,}037$', '\\textbf{8 of 9}', '$2$'])
def test_a_number_by_hand_is_noticed(words):
    assert by_hand(TEX.replace('\\section{Limits}', f'\\section{{Limits}} It {words} here.')) != []


@pytest.mark.parametrize('words', ['at $s = 1$', '$\\tfrac12 s(s - 1)$', 'one or two of these', '\\cite{ho2022classifier}',
    '\\label{sec:3}', '\\longLog nats', '$1 + 2s$', '% 1,144 nats\n'])
def test_what_is_no_measured_number_may_stand(words):
    assert by_hand(TEX.replace('\\section{Limits}', f'\\section{{Limits}} It {words} here.')) == []


def test_macros_of_the_preamble_hide_no_number():
    head = TEX.partition('\\begin{document}')[0]
    made = dict(re.findall(r'\\newcommand\{\\(\w+)\}(?:\[\d\])?\{(.*)\}', head))
    assert {k: v for k, v in made.items() if re.search(r'(?<!#)\d', v)} == {'cifar': 'CIFAR-10', 'wtwo': 'W_2', 'solver': 'DPM-Solver++(2M)'}


def loose(parts, tex=TEX):
    "Macros that are used and not defined, and those that are defined and not used."
    commands = set(re.findall(r'\\(?:[A-Za-z]+|[^A-Za-z\s])', seen(parts, tex)))
    names = {c[1:] for c in commands - COMMANDS if c[1:].isalpha()}
    return names - defined(parts['numbers.tex']), defined(parts['numbers.tex']) - names


@pytest.mark.parametrize('state', STATES)
def test_every_macro_is_defined_and_used(parts_of, state): assert loose(parts_of(*state)) == (set(), set())


def test_a_loose_macro_is_noticed(parts_of):
    parts = parts_of(False, False)
    assert loose(parts, TEX.replace('\\longLog', '\\longlog')) == ({'longlog'}, {'longLog'})


def test_every_macro_names_its_source(parts_of):
    "A file, or an identity, in a comment of its line."
    lines = parts_of(True, True)['numbers.tex'].splitlines()[1:]
    sources = [re.search(r'\\xspace\} % (.+)$', line) for line in lines if line.startswith('\\newcommand')]
    assert all(sources) and sum('.csv' in m[1] for m in sources) > 150


def number_of(name):
    return float(re.search(rf'\\{name}\}}\{{\\ensuremath\{{([-+.\d]+)', (PAPER/'numbers.tex').read_text())[1])


def test_the_least_coverage_is_the_least():
    table = pd.read_csv(RESULTS/'evidence_coverage.csv')
    assert number_of('coverWorst') == pytest.approx(table[table.p < .01].covered.min(), abs=.0005)


def test_plain_guidance_by_other_names_counts_once():
    rows = pd.read_csv(RESULTS/'repair_techniques.csv').query("who == '640k'")
    found = paper.distinct(rows)
    assert set(rows.technique) - set(found.technique) == {'no_label', 'constant'} and 'cfg' in set(found.technique)
    assert number_of('seenCount') == len(found)


@pytest.mark.parametrize('name,column,macro', [('repair_scales.csv', 'log_prob', 'longLog'), ('repair_best.csv', 'best', 'controlBest'),
    ('evidence_coverage.csv', 'covered', 'coverWorst'), ('repair_trained.csv', 'log_prob', 'pathLog')])
def test_a_changed_file_is_noticed(state_of, tmp_path, name, column, macro):
    "Numbers follow their table; stored ones are then stale."
    out = tmp_path/'results'
    shutil.copytree(state_of(False, False), out)
    table = pd.read_csv(out/name)
    table[column] *= 1.07
    table.to_csv(out/name, index=False)
    old, new = ((PAPER/'numbers.tex').read_text(), paper.all_parts(paper.Results(out))['numbers.tex'])
    def line(text): return re.search(rf'^.*\\{macro}\}}.*$', text, re.M)[0]
    assert line(old) != line(new)


def test_the_tables_bear_out_what_is_said_in_words(): assert paper.broken(paper.Results(RESULTS)) == []


@pytest.mark.parametrize('name,change,words', [
    ('repair_scales.csv', dict(who='exact', along=2.), 'contracts nothing'),
    ('repair_trained.csv', dict(who='on its path', log_prob=-2e4), 'likelier than the control'),
    ('evidence_coverage.csv', dict(metric='recall', covered=.5), 'the weakest'),
    ('cifar10_16_best.csv', dict(stage='final', high=3.), 'the best scale falls'),
    ('repair_digits.csv', dict(who='mnist-a led down', fid_first=9.), 'no longer lowers FID')])
def test_a_table_that_contradicts_the_words_is_noticed(state_of, tmp_path, name, change, words):
    out = tmp_path/'results'
    shutil.copytree(state_of(False, False), out)
    table = pd.read_csv(out/name)
    (key, at), (column, value) = change.items()
    table.loc[table[key] == at, column] = value
    (out/name).unlink()
    table.to_csv(out/name, index=False)
    assert any(words in found for found in paper.broken(paper.Results(out)))


def test_verdicts_are_those_of_the_chapter(parts_of):
    "The same criteria on the same tables: chapter 26 shows the same numbers."
    told = paper.printed('26_guidance_repairs.ipynb', r'\| (H\d[^|]*) \| ([^|]+) \| ([^|]+) \|')
    stands = sum('stands' in word for _, word, _ in told)
    numbers = parts_of(False, False)['numbers.tex']
    value = lambda name: re.search(rf'\\{name}\}}\{{\\ensuremath\{{(.*?)\}}\\xspace', numbers)[1]
    assert (value('verdictsAll'), value('verdictsStand')) == (str(len(told)), str(stands))
    reasons = ' '.join(why for _, _, why in told)
    for name in ('sizeCorrelation', 'turnCorrelation', 'sizeNetworks'):
        assert f'{value(name)} ({value(name + "Low")} to {value(name + "High")})' in reasons
    assert f'-{value("scheduleBehind")} ± {value("scheduleHalf")}' in reasons and f'{value("fineGain")} ± {value("fineHalf")}' in reasons


# The comparison

@pytest.mark.parametrize('state', STATES)
def test_the_comparison_follows_its_tables(parts_of, state):
    parts = parts_of(*state)
    text, any_there = seen(parts), any(state)
    assert ('are under way' in text) == (not any_there) and ('The second comparison: plain' in text) == any_there
    assert ('MNIST.}' in text, 'Photographs.}' in text) == state
    assert ('two rankings agree' in text) == all(state) and ('is still being measured' in text) == (any_there and not all(state))
    assert parts['tables/contest.tex'].count('\\begin{tabular}') == sum(state)
    if any_there: assert 'interval, middle' in parts['tables/contest.tex'] or 'autoguidance' in parts['tables/contest.tex']


def test_what_is_counted(parts_of):
    numbers = parts_of(True, False)['numbers.tex']
    for word, count in dict(All=10, Better=4, Undecided=3, Worse=3).items():
        assert f'\\newcommand{{\\contestMnist{word}}}{{\\ensuremath{{{count}}}\\xspace}}' in numbers
    assert '\\contestMnistAuto}{better' in numbers and '\\contestMnistGibbs}{undecided' in numbers


def test_images_that_chose_the_strength_are_named(state_of, tmp_path):
    out = tmp_path/'results'
    shutil.copytree(state_of(True, False), out)
    name = out/'contest_mnist-a_chosen.csv'
    pd.read_csv(name).assign(seed=0).to_csv(name, index=False)
    assert 'which flatters them' in paper.all_parts(paper.Results(out))['numbers.tex']
    pd.read_csv(name).assign(seed=[0, 1]*33).to_csv(name, index=False)
    assert 'which flatters them' not in paper.all_parts(paper.Results(out))['numbers.tex']


def test_a_comparison_without_a_column_is_refused(state_of, tmp_path):
    out = tmp_path/'results'
    shutil.copytree(state_of(True, False), out)
    name = 'contest_mnist-a_verdicts.csv'
    pd.read_csv(out/name).drop(columns='holm').to_csv(out/name, index=False)
    with pytest.raises(InputError, match='contest_mnist-a_verdicts.csv: got .*holm'): paper.all_parts(paper.Results(out))


def test_a_comparison_of_two_tables_waits_for_the_third(state_of, tmp_path):
    out = tmp_path/'results'
    shutil.copytree(state_of(True, False), out)
    (out/'contest_mnist-a_differences.csv').unlink()
    assert '\\contestmnistfalse' in paper.all_parts(paper.Results(out))['numbers.tex']


# Bibliography and figures

def entries(bib):
    "Key -> text of an entry, up to the brace that closes it."
    found = {}
    for m in re.finditer(r'^@\w+\{([^,\s]+),', bib, re.M):
        depth, end = 1, m.end()
        while depth and end < len(bib):
            depth += {'{': 1, '}': -1}.get(bib[end], 0)
            end += 1
        found[m[1]] = bib[m.start():end]
    return found


def open_entries(bib): return [key for key, text in entries(bib).items() if re.search(r'\n@', text)]


def test_every_entry_of_the_bibliography_is_closed(): assert open_entries(BIB) == []


def test_an_open_entry_is_noticed(): assert open_entries(BIB.replace('2207.12598}\n}', '2207.12598}\n', 1)) == ['ho2022classifier']


def test_what_is_cited_is_in_the_bibliography():
    cited = {key for keys in re.findall(r'\\cite[pt]?\{([^}]+)\}', bare(TEX)) for key in keys.split(',')}
    assert len(cited) > 30 and cited - set(entries(BIB)) == set()


def test_labels_and_references_agree():
    labels, body = set(re.findall(r'\\label\{([^}]+)\}', TEX)), bare(TEX)
    refs = set(re.findall(r'\\(?:ref|eqref)\{([^}]+)\}', body))
    assert refs <= labels and {label for label in labels if label.startswith(('fig', 'tab'))} <= refs


def test_figures_are_drawn_and_shown(tmp_path):
    import paper_figures
    paper_figures.draw_all(paper.Results(RESULTS), tmp_path)
    shown = set(re.findall(r'\\includegraphics(?:\[[^]]*\])?\{figures/(\w+)\}', TEX))
    assert shown == set(paper_figures.FIGURES) == {p.stem for p in tmp_path.glob('*.pdf')}


# LaTeX

def test_without_latex_one_line_names_the_packages(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv('PATH', str(tmp_path))
    with pytest.raises(SystemExit) as stop: paper.main(['--pdf', '--out', str(tmp_path)])
    line = str(stop.value.code)
    assert '\n' not in line and 'no pdflatex here' in line and 'apt install texlive-latex-base' in line
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(bool(paper.lacking()), reason=f'needs LaTeX: {paper.lacking()}')
@pytest.mark.parametrize('state', [(False, False), (True, False), (True, True)])
def test_it_builds(state_of, tmp_path, state):
    "No overfull box, no question mark, six to eight pages."
    shutil.copy(PAPER/'paper.tex', tmp_path)
    paper.write(tmp_path, state_of(*state))
    made = paper.build(tmp_path)
    log = (tmp_path/'paper.log').read_text(errors='replace')
    assert re.findall(r'Overfull.*|.*undefined.*|LaTeX Warning.*', log) == []
    assert 6 <= int(re.search(r'Output written on paper.pdf \((\d+) pages', log)[1]) <= 8
    assert made.stat().st_size < 400_000
