"""Every number in the prose of every page is measured, asserted, set by the code, cited or declared.

How many wrong numbers pass is measured here too, over the 589 numbers that are matched by a measurement. With another
last digit 14 % pass (36 % of numbers of one digit, 15 % of two, 9 % of three, 3 % of more), of random numbers with as
many digits 5 %: a chapter prints many numbers, and some are right by accident.
"""
import csv, random, sys

import pytest
from notebooks import ROOT, cells

sys.path.insert(0, str(ROOT/'tools'))
import prose  # noqa: E402
import solutions  # noqa: E402

FOUND = prose.sort_out()
MEASURED = {n: s for n, s in FOUND.items() if s in prose.MEASURED}
LONGEST = 120  # rows of prose_allowed.csv


def passed(tries):
    "The share of wrong numbers that have a source all the same."
    results = [prose.source(m) for m in tries]
    return sum(r is not None for r in results)/len(results)


@pytest.mark.parametrize('page', prose.pages())
def test_every_number_has_a_source(page):
    lost = [prose.line_of(n) for n, s in FOUND.items() if n.page == page and s is None]
    assert not lost, '\n'.join(['numbers without a source; to mend: CONTRIBUTING.md, "A number in prose"', *lost])


def test_most_numbers_of_results_are_measured():
    "Not only parameters are found: the checker would otherwise say little."
    assert len(MEASURED) > 400 and set(MEASURED.values()) == set(prose.MEASURED)


def test_a_wrong_last_digit_is_noticed():
    share = passed(m for n in MEASURED for m in prose.mutants(n))
    print(f'{share:.1%} of wrong last digits pass')
    assert share < .2


def test_a_random_number_is_noticed():
    "Replaced by a number with as many digits before and after the point."
    draw = random.Random(0)
    def other(n):
        digits = ''.join(draw.choice('123456789') if c.isdigit() else c for c in n.text)
        return n._replace(text=digits, value=prose.number_of(digits))
    tries = [m for n in MEASURED for m in (other(n), other(n)) if not m.text.count('e') and m.value != n.value]
    share = passed(tries)
    print(f'{share:.1%} of random numbers pass')
    assert share < .2


@pytest.mark.parametrize('name,source', [('prose_sources.csv', 'file'), ('prose_allowed.csv', 'allowed')])
def test_rows_are_needed(name, source):
    for entry in prose.entries(name):
        needed = {n.text for n, s in FOUND.items() if s == source and prose.meant(entry, n)}
        left = [t for t in entry.numbers.split() if t not in needed]
        assert not left, f'{name}: {entry.page}, "{entry.words}": {left} not found, or no longer needed'


def test_reasons():
    rows = prose.entries('prose_allowed.csv')
    assert len(rows) <= LONGEST and all(len(row.why) > 5 for row in rows)


def test_printed_numbers_are_of_the_code_that_is_shown():
    "nbs/results/solutions.csv is not older than the solutions. To mend: python tools/solutions.py nbs/NN_name.ipynb"
    with solutions.TABLE.open(newline='', encoding='utf-8') as f: rows = list(csv.DictReader(f))
    shown = {name: solutions.blocks(cells(prose.NBS/f'{name}.ipynb')) for name in {r['chapter'] for r in rows}}
    stale = [(r['chapter'], r['block']) for r in rows if r['code'] not in shown[r['chapter']]]
    assert len(rows) > 30 and not stale


def said(text, **sources):
    "The numbers of a page of one cell, with what they come from."
    made = dict(shown=[], asserted=[], literals={}, code_cells=[1]) | sources
    page = prose.Page('made_up', [(0, text)], **made)
    prose.pages()['made_up'] = page
    try: return {n.text: prose.source(n) for n in prose.numbers(page)}
    finally: del prose.pages()['made_up']


NONE = """chapter 19 and table 12; $s = 1.5$ and `num=5000`; @ho2022classifier 2022; [a link](22_mnist.ipynb)
Python 3.11; CIFAR-10 of 32x32 pixels; **1.** In 2024,; $$ 0.37 $$; with its 95 % interval; arXiv:2207.12598
"FID is 3.72"; three of 5""".replace('\n', '; ').split('; ')


@pytest.mark.parametrize('text', [*NONE, '```python\nx = 0.37\n```'])
def test_what_is_no_measurement(text): assert said(text) == {}


def test_a_number_is_taken_away_whole_or_not_at_all():
    cut = []
    for page in prose.pages().values():
        for _, text in page.texts:
            left = prose.blank(text)
            parts = [(m[0], left[m.start():m.end()]) for m in prose.NUMBER.finditer(text)]
            cut += [(page.name, whole) for whole, part in parts if part.strip() and part.replace(' ', ',') != whole]
    assert not cut


def test_what_is_one():
    found = said('From .37 to 95 %, $3.14$, 2.05, 0.1965 or about 1,200.')
    assert list(found) == ['.37', '95', '3.14', '2.05', '0.1965', '1,200'] and not any(found.values())


def shown(value, words=''): return dict(shown=[prose.Source(value, prose.stems(words), 1)])


@pytest.mark.parametrize('value,ok', [(.3712, True), (.3749, True), (.375, False), (.3, False), (37, False)])
def test_rounding(value, ok): assert (said('It is 0.37.', **shown(value))['0.37'] == 'output') == ok


@pytest.mark.parametrize('value,ok', [(.371, True), (37.2, True), (.38, False), (3.7, False)])
def test_per_cent(value, ok): assert (said('It is 37 %.', **shown(value))['37'] == 'output') == ok


def test_words_of_a_table_count():
    "A number of two digits in a row about something else is no source; in a row about the same it is."
    assert said('Recall is 0.37.', **shown(.3712, 'recall'))['0.37'] == 'output'
    assert said('Recall is 0.37.', **shown(.3712, 'precision'))['0.37'] is None


def test_assertions_and_parameters():
    found = prose.literals('x = 0.5\nassert abs(y - .37) < 1e-3')
    assert found == (['.37', '1e-3'], ['0.5'])
    assert said('It is 0.37.', asserted=[prose.Source(.37, frozenset(), 1)]) == {'0.37': 'assertion'}
    assert said('With a scale of 2.5.', literals={'2.5': [1]}) == {'2.5': 'parameter'}
    assert said('With a scale of 2.50.', literals={'2.5': [1]}) == {'2.50': None}


def test_tables_are_read_with_their_words():
    html = '<thead><tr><th>metric</th><th>fid</th></tr></thead><tr><th>guided</th><td>3.25</td></tr>'
    assert prose.html_values(html) == [(3.25, prose.stems('guided fid'))]
    table = '| name | recall |\n| --- | --- |\n| apg | 51 % |'
    assert prose.markdown_values(table) == [(51, prose.stems('apg recall'))]
    words = prose.stems('width height')
    assert prose.line_values('width height\n1.5 2') == [(1.5, words), (2, words)]
