"Twenty examination questions with solutions, one clock, and pages of the theory that are not too long."
import re

import pytest
from ledger import load_rows
from notebooks import NBS, cells, code, each, src

THEORY = [p for p in NBS if p.name < '09']
QUESTION = re.compile(r'\[\*\*Examination (\d+)\*\* \(([^)]+)\)\.\]\{#exam-(\d+)\}')
FOLDED = re.compile(r'^::: \{\.callout[^\n]*collapse="true".*?^:::\s*$', re.M | re.S)
LIST = next(p for p in NBS if p.stem == '08a_picture_decisions')
KINDS = {'proof': 'proof', 'computation': 'computation', 'what is wrong with this argument?': 'argument'}
LONG = [p for p in THEORY if re.match(r'(05|07)[a-z]_|08a_', p.name)]


def prose(p): return [src(c) for c in cells(p) if c['cell_type'] == 'markdown']


def questions():
    "(number, kind, notebook, text up to the next question) in the order of the course."
    found = []
    for p in THEORY:
        text = '\n\n'.join(prose(p))
        marks = list(QUESTION.finditer(text))
        ends = [m.start() for m in marks[1:]] + [len(text)]
        found += [(int(m[1]), KINDS[m[2]], p, text[m.start():end]) for m, end in zip(marks, ends)]
        assert all(m[1] == m[3] for m in marks), p.name
    return found


def test_there_are_twenty_in_order():
    assert [number for number, *_ in questions()] == list(range(1, 21))
    kinds = [kind for _, kind, *_ in questions()]
    assert [kinds.count(kind) for kind in ('proof', 'computation', 'argument')] == [10, 5, 5]


@pytest.mark.parametrize('number,kind,p,text', questions(), ids=[str(q[0]) for q in questions()])
def test_question_has_a_folded_solution_and_code(number, kind, p, text):
    solution = re.search(r'collapse="true" title="Solution"\}\s+(.+?)\n:::', text, re.S)
    assert solution and len(solution[1].split()) > 15
    checks = [src(c) for c in code(p) if re.search(rf'examination {number}\b', src(c))]
    assert kind == 'proof' or any('assert' in cell for cell in checks), f'{p.name}: no cell asserts examination {number}'


def test_the_list_names_them_all():
    rows = re.findall(r'^\| \[(\d+)\]\((\S+\.ipynb)#exam-(\d+)\) \| (\w+) \|', '\n'.join(prose(LIST)), re.M)
    assert rows == [(str(n), p.name, str(n), kind) for n, kind, p, _ in questions()]


@each(THEORY)
def test_one_clock(p):
    "The clock is sigma^2 and falls; a step of it is |d tau|."
    text = '\n'.join(prose(p))
    assert not re.search(r'(?<!_)\\tau\s*=\s*-', text)
    assert not re.search(r'\\mathrm d\\tau\s*\+[^$]{0,20}\\mathrm dW', text), 'a random step in d tau, not |d tau|'


@each(LONG)
def test_shown_words(p):
    "Before anything is unfolded."
    words = len(FOLDED.sub('', '\n\n'.join(prose(p))).split())
    assert words <= 2500, f'{p.name} shows {words} words'


def test_equations_of_the_picture_world_are_asserted_at_once():
    "In the code between the equation and the next prose."
    p, rows = next(p for p in NBS if p.stem == '08_pictures'), load_rows()
    after = {}
    for c in cells(p):
        if c['cell_type'] == 'markdown':
            labels = re.findall(r'\{#(eq-[\w-]+)\}', src(c))
            after |= {label: [] for label in labels}
            now = labels
        else:
            for label in now: after[label].append(c.get('id'))
    assert [label for label, ids in after.items() if rows[label].cell not in ids] == []
