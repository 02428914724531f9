"""Look for the source of every number in the prose: an output, an assertion, a row of a file, rounded as it is printed.

`python tools/prose.py` prints how many numbers each source accounts for, and each number that has none. `--what SOURCE`
lists the numbers of a source, `--mutants` counts how many wrong numbers would pass.

Out of reach: numbers in words ("three times"), whole numbers below ten without a per cent sign, formulas, and which of
two right numbers a sentence means. What is right by chance is not noticed: tests/test_prose.py measures how often.
"""
import argparse, ast, csv, html, json, math, re, sys
from bisect import bisect_left, bisect_right
from collections import Counter
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from cfg_course.metrics import wilson
from cfg_course.standings import read_standings

ROOT = Path(__file__).resolve().parents[1]
NBS, RESULTS, TESTS = ROOT/'nbs', ROOT/'nbs'/'results', ROOT/'tests'
LEFT_OUT = {'api', 'downloads', 'ledger', 'story'}  # by tools; tests/test_story.py compares every number
TESTED = { # what other tests compare: tests/test_numbers.py, tests/test_compare_page.py, tests/test_teach.py
    'compare': r'(?s)<!-- begin (state|again) -->.*?<!-- end \1 -->',
    'index': r'(?m)^\|.*$',
    'play': r'(?m)^\|.*$',
    'teach': r'(?s)<!-- begin \w+ -->.*?<!-- end \w+ -->'}

# What is no measurement by its form: blanked before numbers are looked for, in this order.
PLACE = r"""(?:chapters?|tables?|figures?|fig\.|sections?|equations?|eqs?\.|appendix|exercises?|examinations?
    |algorithms?|theorems?|lemma|proposition|hypothes[ie]s|issue|blocks?)"""
SOFTWARE = r"""(?:cc\sby(?:-sa)?|apache|python|pytorch|torch|diffusers|comfyui|transformers|stable\sdiffusion|sd|wan
    |lumina|sdxl)"""
FORMS = {
    'a block of code': r'(?ms)^```.*?^```',
    'a head of a page': r'(?s)\A---\n.*?\n---\n',
    'a displayed equation': r'(?s)\$\$.*?\$\$',
    'a formula, unless it is a number alone': r'\$(?:[^$\\]|\\.)+\$',
    'the name of a file': r'\S*/\S*\.[a-z]{2,}\b',
    'code': r'`[^`]+`',
    'a link': r'\]\([^)]*\)|https?://\S+',
    'a number of arXiv': r'\barXiv:?\s?[\d.]+|\b\d{4}\.\d{5}\b',
    'a citation': r'\[[^\[\]]*@[^\[\]]*\]|@[\w:-]+(?:\s\[[^\]]*\])?',
    'a comment': r'(?s)<!--.*?-->',
    'markup': r'(?m)\{[#.:][^}]*\}|^:::.*$|<[^>\n]*>|^#+\s.*$',
    'the words of others': r'(?m)^>\s.*$|"[^"\n]*"|“[^”]*”',
    'a chapter by its two digits': r'(?<![\w.,])0\d[a-z]?\b(?!\.)',
    'a place in a text': rf"""(?ix)\b{PLACE}\s\d+[a-z]?(?:\.\d+)*
        (?:(?:,|,?\sand|\sor|\sto)\s\d+[a-z]?(?:\.\d+)*\b)*""",
    'the number of an item': r'(?m)^\s*(?:\*\*)?\d+\.(?=\s|\*\*)|^\|\s\[?\d+\]?(?![\d.])|\(\d+\)',
    'the number of a question': r'\[\*\*Examination\s\d+',
    'a year': r'(?<![\w.,])(?:19|20)\d\d\b(?!\s?(?:%|images|samples|steps))',
    'a version': rf'(?ix)\b{SOFTWARE}\s\d+(?:\.\d+)*\b|\d+\.\d+\.\d+',
    'a shape': r'(?<![\d.])\d+(?:\s?[x×]\s?\d+\b(?!\.\d))+',
    'an interval': r'[\[(](?:\d[\d.]*|\.\d+|[−-]\d[\d.]*),\s?[\d.]+[\])]',
    'a fraction': r'(?<![\d.])\d+/\d+',
    'a name': r'\b[A-Za-z]+[-+]?\d[\w.]*|\bFP\d+|\+\+\s\d+(?=\s(?:steps|beside))',
    'a level of confidence': r"""(?ix)\b9[059]\s(?:%|per\scent)\s(?:\w+\s)?(?:interval|band|level|bootstrap|confidence)
        |(?:intervals?|bands?|level|hold)\s(?:\w+\s)?(?:of|at)\s9?5\s%""",
}
# What declares a number of the code as a parameter in a sentence: the words just before it, or just after.
BEFORE = re.compile(r"""(?:\b(?:scales?|seeds?|weights?|levels?|widths?|with|at|strengths?|from|noise|label|digit|class
    |least|most|than|every|after|above|below|first|between|over|batch|batches|gains?|to|sets?\sof|batch\sof)\b|[=<>≤≥±])
    \s*(?:(?:of|from|about|only|all|is|are|least|most|between|below|above)\s)?$""", re.I | re.X)
AFTER = re.compile(r"""^\s*(?:[a-z-]+\s){0,2}(?:seeds?|steps?|samples?|images?|digits?|pictures?|photographs?|points?
    |paths?|starts?|classes|dimensions?|levels?|evaluations?|epochs?|pixels?|particles?|numbers|populations?|resamples?
    |rows?|sets?|draws?|modes?|networks?|bins|iterations|times|experiments|repetitions|conditions|activations|tokens
    |bits|positions|channels|parameters|intervals|labels)\b""", re.I | re.X)
# Constants of all chapters: sizes of data sets, of pictures and of bytes, and EDM's lowest and highest noise level.
CONSTANTS = set('10,000 50,000 60,000 1,797 1,433 364 784 3,072 255 256 28 32 16 64 0.002 80'.split())
CITED = re.compile(r"""@[a-z]+\d{4}|arXiv|second\shand|[Aa]uthors|[Tt]hey\sreport|advises|\*\*(?:Claims?|Traps?)
    |[Pp]ublished|[Tt]heir\s(?:paper|table|code)|README|[Tt]he\spaper|repository""", re.X)
SECOND_HAND = re.compile(r'second hand|\*\*Claims?')

DIGITS = r'(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d*\.\d+|\d+)(?:e[+-]?\d+)?'
NUMBER = re.compile(rf'(?<![\w.]){DIGITS}(?!\w|\.\d)')
VALUE = re.compile(rf'(?<![\w.])-?{DIGITS}(?!\w)|(?<=\()-?{DIGITS}(?=[,)])')
LITERAL = re.compile(r'(?<![\w.])(?:\d[\d_]*\.?\d*|\.\d+)(?:e[+-]?\d+)?')
PERCENT = re.compile(r'^\s?(?:%|per cent|\\,?\\?%)')
MEMBER = rf'{DIGITS}\s?%?(?:,|,?\sand|,?\sor|\sto)\s'  # of a list of numbers
NEXT = rf'(?:,|,?\sand|,?\sor|\sto)\s{DIGITS}'
CHAIN = re.compile(rf'^(?:\s?%)?(?:,|,? and|,? or| to| of| instead of| against| from|–)\s{DIGITS}')
CODE = re.compile(r'(?ms)^```.*?^```|`[^`\n]+`')
MORE = {'million': 6, 'M': 6, 'thousand': 3, 'billion': 9}
ROUGHLY = re.compile(r'\b(?:about|some|nearly|roughly|around|almost|over|than|hardly|up to)\s$')
COMMON = set("""the and for with from that this are was were has have not but its than then they them into per more
    less over under out all any one two three each other which what where when who how can may only
    also same here there name value mean dtype float int tensor nan index true false none array
    object as of in is it to an at be by on or if no so we he up""".split())
FAR = 3  # significant digits with which a number may stand far from the cell that prints it
CLOSE = 1  # code cells between a number and its source, at most
SHORT = 30  # numbers in a printout whose words do not matter


class Number(NamedTuple):
    "A number in the prose."
    page: str  # the stem of its file
    cell: int  # which cell of the notebook; 0 on other pages
    start: int  # where in the cell
    text: str  # as printed
    value: float
    decimals: int  # negative where zeros at the end are rounded
    percent: bool  # a per cent sign belongs to it
    before: str  # words before it
    after: str  # words after it
    sentence: str
    paragraph: str


class Source(NamedTuple):
    "A number that an output, an assertion or the code of a chapter holds."
    value: float
    words: frozenset  # of its row and column, or of its line
    cell: int


class Page(NamedTuple):
    "A page with what its numbers can be compared with."
    name: str
    texts: list  # (cell, text) of the prose
    shown: list  # sources, the lowest value first: outputs
    asserted: list  # sources, the lowest value first: literals of assertions
    literals: dict  # number as text -> cells: other literals of the code
    code_cells: list  # where code cells are


@cache
def stems(
    text:str, # any
)->frozenset: # beginnings of its words
    "The words of a text by which two places are recognised as speaking of the same thing."
    return frozenset(w[:5] for w in re.findall(r'[a-z]{2,}', text.lower()) if w not in COMMON)


def number_of(
    text:str, # as printed
)->float: # without its sign
    "The value of a printed number."
    return abs(float(text.replace(',', '').replace('_', '')))


@cache
def spelled(
    text:str, # a number of the code, or of the prose
)->str: # in one spelling
    "A number without what two spellings of it differ in: 1_000 and 1,000, .5 and 0.5, 2. and 2."
    return re.sub(r'^0*(?=\d)', '', '0' + text.replace(',', '').replace('_', '').rstrip('.'))


# What outputs say

def plain(
    markup:str, # HTML
)->str: # text
    "A text without tags."
    return re.sub(r'<[^>]*>', ' ', html.unescape(markup))


def grid_values(
    head:list, # rows of cells
    rows:list, # rows of cells
)->list: # (value, words)
    "The numbers of a table, each with the words of its row and column."
    found = []
    for cells in rows:
        words = stems(' '.join(cells))
        for j, cell in enumerate(cells, -len(cells)):
            column = stems(' '.join(h[j] for h in head if len(h) >= -j))
            found += [(number_of(x), words | column) for x in VALUE.findall(cell)]
    return found


def html_rows(
    markup:str, # a part of a table
)->list: # rows of cells
    "The cells of a table as text."
    rows = re.findall(r'(?s)<tr.*?</tr>', markup)
    return [[plain(cell) for cell in re.findall(r'(?s)<t[hd][^>]*>(.*?)</t[hd]>', row)] for row in rows]


def html_values(
    markup:str, # of one output
)->list: # (value, words)
    "The numbers of a table that pandas shows."
    markup = re.sub(r'(?s)<style.*?</style>', '', markup)
    head = re.search(r'(?s)<thead>.*?</thead>', markup)
    if not head: return grid_values([], html_rows(markup))
    return grid_values(html_rows(head[0]), html_rows(markup.replace(head[0], '')))


def line_values(
    text:str, # printed
)->list: # (value, words)
    "The numbers of printed lines; lines without numbers are the head of those below them."
    found, head, above = [], frozenset(), False
    for line in text.splitlines():
        words, numbers = stems(line), VALUE.findall(line)
        if words and not numbers: head = head | words if above else words
        above = bool(words) and not numbers
        found += [(number_of(x), words | head) for x in numbers]
    return found


def markdown_values(
    text:str, # a sentence or a table that a cell wrote
)->list: # (value, words)
    "The numbers of an output in Markdown."
    rows = [line.strip().strip('|').split('|') for line in text.splitlines() if line.startswith('|')]
    rest = '\n'.join(line for line in text.splitlines() if not line.startswith('|'))
    return grid_values(rows[:1], rows[2:]) + line_values(rest)


def output_values(
    output:dict, # of a cell
)->list: # (value, words)
    "The numbers that a reader sees in an output; pictures aside."
    data = {kind: ''.join(text) for kind, text in output.get('data', {}).items()}
    if 'text' in output: return line_values(''.join(output['text']))
    if 'text/markdown' in data: return markdown_values(data['text/markdown'])
    if 'text/html' in data: return html_values(data['text/html'])
    if any(kind.startswith('image') for kind in data): return []
    return line_values(data.get('text/plain', ''))


# What the code says

def literals(
    source:str, # of a code cell
)->tuple: # those in assertions, those elsewhere
    "The numbers that code holds."
    source = re.sub(r'(?m)^([ \t]*)[%!].*$', r'\1pass', source)
    try: tree = ast.parse(source)
    except SyntaxError: return [], LITERAL.findall(source)
    checks = [ast.get_source_segment(source, n) or '' for n in ast.walk(tree) if isinstance(n, ast.Assert)]
    rest = source
    for check in checks: rest = rest.replace(check, ' ')
    return [x for check in checks for x in LITERAL.findall(check)], LITERAL.findall(rest)


def read_notebook(
    path:Path, # of a notebook
)->Page: # its prose and its sources
    "A chapter."
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    texts, shown, asserted, other, code = [], [], [], [], []
    for i, cell in enumerate(cells):
        source = ''.join(cell['source'])
        if cell['cell_type'] == 'markdown':
            texts.append((i, source))
            other += [(spelled(x), i) for part in CODE.findall(source) for x in LITERAL.findall(part)]
        if cell['cell_type'] != 'code': continue
        code.append(i)
        shown += [Source(x, words, i) for o in cell.get('outputs', []) for x, words in output_values(o)]
        checked, rest = literals(source)
        asserted += [Source(number_of(x), frozenset(), i) for x in checked]
        other += [(spelled(x), i) for x in rest]
    places = {text: [i for t, i in other if t == text] for text, _ in other}
    return Page(path.stem, texts, sorted(shown, key=value_of), sorted(asserted, key=value_of), places, code)


@cache
def pages()->dict: # name -> Page
    "All pages that have prose of their own; README.md is made of index.ipynb."
    notebooks = [*sorted(NBS.glob('[0-9]*.ipynb')), NBS/'index.ipynb']
    found = {p.stem: read_notebook(p) for p in notebooks}
    words = [p for p in sorted(NBS.glob('*.qmd')) if p.stem not in LEFT_OUT]
    return found | {p.stem: Page(p.stem, [(0, p.read_text(encoding='utf-8'))], [], [], {}, []) for p in words}


# What the prose says

def spaces(
    found:re.Match, # of a form
)->str: # of the same length
    "Spaces, and the number of a formula that is nothing else."
    number = re.fullmatch(r'\$(?:\\approx|\\pm|\\sim|\s)*([\d.,]+)(?:\\,)?(?:\\%)?\$', found[0])
    if number: return ' '*number.start(1) + re.sub(r',', ' ', number[1]) + ' '*(len(found[0]) - number.end(1))
    return re.sub(r'[^\n]', ' ', found[0])


def blank(
    text:str, # Markdown
)->str: # of the same length
    "The text with spaces in the place of what is no measurement by its form."
    for form in FORMS.values(): text = re.sub(form, spaces, text)
    return text


def stretch(
    text:str, # Markdown
    start:int, # of a number
    end:int, # of it
    mark:str, # regular expression of what ends a stretch
)->str: # the part between two marks
    "The part of a text around a number."
    left = [m.end() for m in re.finditer(mark, text[:start])]
    right = re.search(mark, text[end:])
    return text[left[-1] if left else 0:end + right.start() if right else len(text)]


def numbers(
    page:Page, # with prose
)->list: # of Number
    "The numbers of a page that its form does not explain."
    found = []
    for cell, text in page.texts:
        text = re.sub(TESTED.get(page.name, r'(?!)'), spaces, text)
        for m in NUMBER.finditer(blank(text)): found.append(number_at(page.name, cell, text, m.start(), m.end()))
    return [n for n in found if n.percent or n.decimals != 0 or n.value >= 10]


def number_at(
    page:str, # its name
    cell:int, # of the page
    text:str, # of the cell
    start:int, # of the number
    end:int, # of the number
)->Number: # with what is around it
    "One number with its context."
    said, before, after = text[start:end], text[:start], text[end:]
    paragraph = stretch(text, start, end, r'\n\s*\n|\n(?=- |\d+\. |\*\*)')
    sentence = stretch(text, start, end, r'(?<=[.;!?])\s+(?=[A-Z*(\[])|\n\s*\n|\n(?=[|-])')
    sentence = ' '.join(sentence.split())
    digits = re.match(r'[\d,]*(?:\.(\d*))?(?:e([+-]?\d+))?', said)
    decimals = len(digits[1] or '') - int(digits[2] or 0)
    value, more = number_of(said), re.match(r'\s(million|thousand|billion|M)\b', after)
    if more: value, decimals = value*10**MORE[more[1]], decimals - MORE[more[1]]
    elif ROUGHLY.search(before) and '.' not in said and value >= 100: decimals -= len(said) - len(said.rstrip('0'))
    percent = is_percent(before, after)
    before = re.sub(rf'(?:{MEMBER})+$', '', ' '.join(before.replace('$', '').split('\n')[-2:])[-160:])
    after = re.sub(rf'^(?:{NEXT})+', '', ' '.join(after.replace('$', '').split('\n')[:2])[:100])
    return Number(page, cell, start, said, value, decimals, percent, before, after, sentence, paragraph)


def is_percent(
    before:str, # text before a number
    after:str, # text after it
)->bool: # whether it is a share in per cent
    "Whether a per cent sign stands behind a number, or behind another one of its list."
    if PERCENT.match(after) or re.search(r'%\s(?:instead of|against|and|or|to)\s$', before): return True
    chain = CHAIN.match(after)
    return bool(chain) and is_percent('', after[chain.end():])


def same(
    n:Number, # in the prose
    value:float, # of a source
)->bool: # whether the one is the other, rounded
    "A value as it is printed. A 5 that was rounded before is no evidence: 0.475 may be 0.47 or 0.48."
    slack = .5*10.**-n.decimals*(1 - 1e-9)
    return abs(value - n.value) < slack or (n.percent and value <= 10 and abs(100*value - n.value) < slack)


value_of = attrgetter('value')


def like(
    n:Number, # in the prose
    sources:list, # the lowest value first
)->list: # those with its value
    "The sources that are a number, rounded."
    found = []
    for unit in (1, .01) if n.percent else (1,):
        slack = .5*10.**-n.decimals*unit
        first = bisect_left(sources, n.value*unit - slack, key=value_of)
        last = bisect_right(sources, n.value*unit + slack, key=value_of)
        found += [s for s in sources[first:last] if same(n, s.value)]
    return found


# Where a number comes from

class Entry(NamedTuple):
    "A row of one of the two tables in tests: numbers of a page, recognised by words of their sentence."
    page: str
    numbers: str  # as printed, with spaces between them
    words: str  # that stand in the sentence
    why: str  # an expression that gives their values, or the reason why they need no source


@cache
def entries(
    name:str, # of a file in tests
)->list: # of Entry
    "A table that says where numbers come from."
    with (TESTS/name).open(newline='', encoding='utf-8') as f: return [Entry(*row) for row in csv.reader(f)][1:]


@cache
def read(
    name:str, # of a result file
)->pd.DataFrame: # its rows
    "A result file, for the expressions of prose_sources.csv."
    return pd.read_csv(RESULTS/name)


@cache
def last_words(
    model:str, # of a comparison
)->pd.Series: # verdict -> techniques
    "How many are better, worse and undecided by the last word on everybody, for the expressions of prose_sources.csv."
    return read_standings(model, RESULTS).words().value_counts()


@cache
def said(
    chapter:str, # its stem
    cell:str, # the id of one of its cells
)->list: # of numbers, in the order of the output
    "What the stored output of a cell says, for the expressions of prose_sources.csv."
    cells = json.loads((NBS/f'{chapter}.ipynb').read_text(encoding='utf-8'))['cells']
    outputs = next(c['outputs'] for c in cells if c.get('id') == cell)
    return [x for o in outputs for x, _ in output_values(o)]


@cache
def solved(
    chapter:str, # its stem
    block:int, # which of the blocks of code in its prose
)->list: # of numbers, in the order in which they were printed
    "What the code of a solution printed, for the expressions of prose_sources.csv."
    text, = read('solutions.csv').query('chapter == @chapter and block == @block').printed
    return [x for x, _ in line_values(text)]


@cache
def weights(
    name:str, # of a file of weights that the package carries
)->int: # numbers in it
    "How many parameters a shipped network has, from the header of its file."
    with (ROOT/'cfg_course'/'weights'/f'{name}.safetensors').open('rb') as f:
        size = int.from_bytes(f.read(8), 'little')
        header = json.loads(f.read(size))
    return sum(math.prod(t['shape']) for key, t in header.items() if key != '__metadata__')


@cache
def log(
    name:str, # of a shipped model
)->pd.DataFrame: # a row for each entry
    "How a shipped model was trained."
    return pd.read_csv(ROOT/'cfg_course'/'weights'/f'{name}.csv')


@cache
def measured(
    entry:Entry, # of prose_sources.csv
)->list: # of floats
    "What the files, the outputs or arithmetic say."
    tools = dict(read=read, last_words=last_words, said=said, solved=solved, weights=weights, log=log, wilson=wilson,
        math=math, np=np, pd=pd)
    found = eval(entry.why, tools)
    return [abs(float(x)) for x in (found if hasattr(found, '__len__') else [found])]


def meant(
    entry:Entry, # of a table
    n:Number, # in the prose
)->bool: # whether the entry is about this sentence
    "Whether the words of an entry stand in the sentence of a number."
    return entry.page == n.page and entry.words in n.sentence


def steps_away(
    page:Page, # of the number
    n:Number, # in the prose
    cell:int, # of code
)->int: # 0: nothing between
    "How many code cells lie between a number and a cell; very many if they are on different pages."
    if page.name != n.page: return sys.maxsize
    low, high = sorted((n.cell, cell))
    return sum(low < c < high for c in page.code_cells)


def significant(
    text:str, # a number as printed
)->int: # digits that count
    "How many digits a number has, without zeros in front."
    return len(text.split('e')[0].replace(',', '').replace('.', '').lstrip('0'))


def is_shown(
    page:Page, # of the sources
    n:Number, # in the prose
)->bool: # whether an output says it
    """An output with three digits or more, close by or in a row or line that shares a word with the sentence. One with
    fewer digits stands right beside it and shares a word, or has no words, or stands close by and shares two."""
    words = stems(n.sentence)
    for s in like(n, page.shown):
        shared, away = len(s.words & words), steps_away(page, n, s.cell)
        if significant(n.text) >= FAR and (shared or away <= CLOSE): return True
        if away == 0 and (shared or not s.words) or away <= CLOSE and shared >= 2: return True
    return False


def is_asserted(
    page:Page, # of the sources
    n:Number, # in the prose
)->bool: # whether an assertion holds it
    "A number of an assertion right beside the sentence, or farther away if there are digits enough."
    far = significant(n.text) >= FAR
    return any(far or steps_away(page, n, s.cell) == 0 for s in like(n, page.asserted))


def is_parameter(
    page:Page, # of the number
    n:Number, # in the prose
)->bool: # whether the code sets it
    "A number of the chapter's code, beside a word that says what it sets; or a constant of all chapters."
    if n.percent: return False
    if n.text in CONSTANTS: return True
    if spelled(n.text) not in page.literals: return False
    return bool(BEFORE.search(n.before) or AFTER.match(n.after))


def is_literal(
    page:Page, # of the number
    n:Number, # in the prose
)->bool: # whether the code sets it close by
    "A number of the code beside the sentence, or a share of it in per cent."
    wanted = {spelled(n.text), f'{n.value/100:g}' if n.percent else ''}
    return any(steps_away(page, n, cell) == 0 for text in wanted for cell in page.literals.get(text, []))


def is_measured(
    n:Number, # in the prose
)->bool: # whether a row of prose_sources.csv gives it
    "A value that an expression takes from files of results."
    about = [e for e in entries('prose_sources.csv') if n.text in e.numbers.split() and meant(e, n)]
    return any(same(n, x) for entry in about for x in measured(entry))


@cache
def printed(
    chapter:str, # its stem
)->list: # (code, lines) of each block that ran; a line is its values and its words
    "What the code of a chapter's solutions printed when tools/solutions.py ran it."
    rows = read('solutions.csv')
    rows = rows[rows.chapter == chapter]
    return [(code, [line_values(line) for line in text.splitlines()]) for code, text in zip(rows.code, rows.printed)]


def in_line(
    n:Number, # in the prose
    line:list, # (value, words)
    beside:set, # values of the numbers before and after it in the text
    short:bool, # nothing else is asked
)->bool: # whether the line says it
    "A line that has the number, and shares a word with its sentence, or has a neighbour of it beside it too."
    values = [x for x, _ in line]
    at = [i for i, x in enumerate(values) if same(n, x)]
    if not at: return False
    neighbours = {x for i in at for x in values[max(i - 1, 0):i + 2]}
    return bool(short or line[0][1] & stems(n.sentence) or neighbours & beside)


def is_solved(
    n:Number, # in the prose
)->bool: # whether the code of its solution printed it
    "A number that the code of the same solution printed; in a long printout, one with three digits or in its own line."
    if not printed(n.page): return False
    text, end = dict(pages()[n.page].texts)[n.cell], n.start + len(n.text)
    solution = stretch(text, n.start, end, r'(?m)^:::')
    beside = {number_of(x) for x in NUMBER.findall(text[:n.start])[-1:] + NUMBER.findall(text[end:])[:1]}
    for code, lines in printed(n.page):
        short = significant(n.text) >= FAR or sum(map(len, lines)) <= SHORT
        if code in solution and any(in_line(n, line, beside, short) for line in lines): return True
    return False


def is_elsewhere(
    n:Number, # in the prose
)->bool: # whether a chapter that the sentence names shows it
    "An output of a chapter to which the paragraph links."
    linked = re.findall(r'\((?:[^()\s]*/)?(\d\d[a-z]?_\w+)\.ipynb', n.paragraph)
    return any(stem in pages() and stem != n.page and is_shown(pages()[stem], n) for stem in linked)


def is_allowed(
    n:Number, # in the prose
)->bool: # whether prose_allowed.csv has it
    "A number that holds by arithmetic or by definition, with the reason."
    return any(meant(entry, n) and n.text in entry.numbers.split() for entry in entries('prose_allowed.csv'))


def source(
    n:Number, # in the prose
)->str|None: # None if there is none
    "Where a number comes from."
    page = pages()[n.page]
    if SECOND_HAND.search(n.sentence): return 'publication'
    if is_parameter(page, n): return 'parameter'
    if is_shown(page, n): return 'output'
    if is_asserted(page, n): return 'assertion'
    if is_measured(n): return 'file'
    if is_solved(n): return 'solution'
    if is_elsewhere(n): return 'chapter'
    if is_literal(page, n): return 'parameter'
    if is_allowed(n): return 'allowed'
    if CITED.search(n.sentence): return 'publication'
    return None


MEASURED = 'output', 'assertion', 'file', 'solution', 'chapter'


def mutants(
    n:Number, # in the prose
)->list: # of Number
    "The same sentence with another last digit."
    step, last = 10.**-n.decimals, int(n.text.split('e')[0][-1])
    others = [n.value + (digit - last)*step for digit in range(10) if digit != last]
    return [n._replace(value=v, text=f'{v:.{max(n.decimals, 0)}f}') for v in others if v > 0]


def sort_out()->dict: # Number -> source
    "All numbers with their sources."
    return {n: source(n) for page in pages().values() for n in numbers(page)}


def count_mutants(
    found:dict, # Number -> source
)->str: # for a terminal
    "How many wrong numbers pass, by the source that the right one has."
    passed, tried = Counter(), Counter()
    for n, kind in found.items():
        if kind not in MEASURED: continue
        results = [source(m) for m in mutants(n)]
        tried[kind] += len(results)
        passed[kind] += sum(r is not None for r in results)
    return ', '.join(f'{kind}: {passed[kind]} of {tried[kind]}' for kind in MEASURED)


def line_of(
    n:Number, # in the prose
)->str: # for a terminal
    "A number with what is around it."
    return f'{n.page} cell {n.cell}: {" ".join(n.before.split())[-50:]} >>{n.text}<< {" ".join(n.after.split())[:45]}'


def main():
    "Print what was found."
    kinds = *MEASURED, 'parameter', 'publication', 'allowed'
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--page', help='only this page, e.g. 24_cifar10')
    parser.add_argument('--what', choices=kinds, help='list the numbers of this source, not those without one')
    parser.add_argument('--mutants', action='store_true', help='how many wrong numbers would pass')
    args = parser.parse_args()
    found = {n: kind for n, kind in sort_out().items() if args.page in (None, n.page)}
    for n, kind in found.items():
        if kind == args.what: print(line_of(n))
    print(', '.join(f'{kind or "NONE"}: {count}' for kind, count in Counter(found.values()).most_common()))
    if args.mutants: print('Wrong last digits that pass,', count_mutants(found))
    sys.exit(None in found.values())


if __name__ == '__main__': main()
