"Every labelled equation has a row in the ledger, both of its sides agree at random parameters, and its mutant is noticed."
import json, re, sys

import pytest
from ledger import CLEAR, ROWS, Row, error_of, load_rows, try_row
from notebooks import NBS, ROOT, cells, code, src

LABEL = re.compile(r'\{#(eq-[\w-]+)\}')
LABELS = {label: p for p in NBS for c in cells(p) if c['cell_type'] == 'markdown' for label in LABEL.findall(src(c))}
load_rows()


@pytest.mark.parametrize('label', sorted(ROWS))
def test_equation(label):
    row = ROWS[label]
    found = try_row(row)
    assert found.error <= row.tolerance, f'{label} is off by {found.error:.1e}, tolerance {row.tolerance:.1e}, at {found.parameters}'
    assert found.mutant_error > CLEAR*row.tolerance, f'{label}: nobody notices that {row.mutant} ({found.mutant_error:.1e})'


def test_every_equation_has_a_row():
    assert set(LABELS) == set(ROWS), f'without a row: {sorted(set(LABELS) - set(ROWS))}; without an equation: {sorted(set(ROWS) - set(LABELS))}'


@pytest.mark.parametrize('label', sorted(ROWS))
def test_cell_asserts(label):
    cell = next((c for c in code(LABELS[label]) if c.get('id') == ROWS[label].cell), None)
    assert cell, f'{LABELS[label].name} has no cell {ROWS[label].cell}'
    assert re.search(r'\bassert\b|\btest_\w+\(', src(cell)), f'cell {ROWS[label].cell} asserts nothing'


def test_trials_differ():
    "Parameters are other ones in each trial, and the same ones the next time (asked of every fourth row)."
    for k, (label, row) in enumerate(ROWS.items()):
        first = try_row(row).parameters
        assert k % 4 or first == try_row.__wrapped__(row).parameters, label
        said = [json.dumps(p, sort_keys=True) for p in first if p]
        assert len(set(said)) == len(said), f'{label}: the same parameters twice'


def test_a_wrong_row_fails():
    "A ledger whose sides differ, or whose mutant computes the same, is noticed."
    def same(t): yield 1., 1., 1.
    def off(t): yield 1., 2., 3.
    def nan(t): yield float('nan'), 1., 2.
    right = Row('eq-x', '', '', '', 1e-6, False, None, 3, same)
    assert try_row(right).mutant_error == 0
    assert try_row(right._replace(compute=off)).error == .5
    assert try_row(right._replace(compute=nan)).error == float('inf')
    assert error_of(1., 2., below=True) == 0 and error_of(2., 1., below=True) == 1


def test_page_is_written():
    sys.path.insert(0, str(ROOT/'tools'))
    import equations
    assert not equations.stale(), 'nbs/ledger.qmd is older than the ledger: python tools/equations.py'
