"A short run of the fuzzer, and what it is made of: the same cases from the same seed, from the commands' own parsers."
import re, os, pickle, random, sys
from pathlib import Path

import pytest

from cfg_course import cli
from cfg_course.catalogue import SHELVES
from cfg_course.core import count, number, one_of
from notebooks import ROOT

sys.path.insert(0, str(ROOT/'tools'))
fuzz = pytest.importorskip('fuzz', reason='this system cannot fork') if hasattr(os, 'fork') else pytest.skip('this system cannot fork', allow_module_level=True)


def test_some_lines_and_files(capsys, tmp_path, monkeypatch):
    "No traceback, no code executed, no foreign file changed, no more than 2 GB; every refusal is one line. About 15 s of one processor."
    monkeypatch.chdir(tmp_path)
    wrong = fuzz.main(['--lines', '30', '--files', '60', '--workers', '1', '--seed', '1000', '--out', 'table.csv'])
    assert wrong == 0, capsys.readouterr().out
    rows = (tmp_path/'table.csv').read_text().splitlines()
    assert rows[0] == ','.join(fuzz.COLUMNS) and sum(int(row.split(',')[-8]) for row in rows[1:]) == 90


def test_a_fault_is_found_and_made_short(capsys, tmp_path, monkeypatch):
    "A command that fails for a good line, and one that answers in two lines: found, with the words that it takes."
    def broken(words):
        if '--guidance' in words: raise KeyError('x')
        fuzz.MAINS_BEFORE['sample'](words)
    monkeypatch.setattr(fuzz, 'MAINS_BEFORE', dict(fuzz.MAINS), raising=False)
    monkeypatch.setitem(fuzz.MAINS, 'sample', broken)
    monkeypatch.chdir(tmp_path)
    assert fuzz.main(['--lines', '25', '--files', '0', '--workers', '1']) > 0
    said = capsys.readouterr().out
    assert 'traceback: sample --guidance\n' in said and "KeyError: 'x'" in said


def test_cases_are_functions_of_seed_and_number():
    for n in range(50): assert fuzz.line_case(1, n) == fuzz.line_case(1, n)
    assert any(fuzz.line_case(1, n) != fuzz.line_case(2, n) for n in range(5))


def test_lines_are_made_of_what_there_is():
    "Every option of the three parsers and every technique is tried within 8,000 lines, good values among them."
    cases = [fuzz.line_case(1, n) for n in range(8000)]
    for command, parser in fuzz.PARSERS.items():
        words = {w.split('=')[0] for case in cases if case.main == command for w in case.words}
        missing = {a.dest for a in parser()._actions if not words & set(a.option_strings)}
        assert missing <= fuzz.NEVER | {'help'}
    typed = {part for case in cases for w in case.words for part in re.split('[+@]', w)}
    assert {name for shelf in SHELVES.values() for name in shelf} <= typed


@pytest.mark.parametrize('option', [number(0, 1), count(2, 5), one_of('x0', 'eps')], ids=lambda o: o.allowed)
def test_values_that_fit_and_that_do_not(option):
    luck = random.Random(0)
    fits = [fuzz.settles(option, fuzz.options_that_fit(option, luck)) for _ in range(100)]
    assert 30 < sum(fits) < 95


def test_bounds_are_read_from_the_parsers():
    steps = next(a for a in cli.sample_parser()._actions if a.dest == 'steps')
    bounds = fuzz.fields_of(steps.type)
    assert (bounds['kind'], bounds['low'], bounds['most']) == (int, 1, 10**6) and fuzz.fields_of(str) is None
    values = dict(fuzz.numbers_near(bounds))
    assert {0, 1, 2, 10**6, 10**6 + 1} <= values.keys() and values[10**6] and not values[2]


CLEAN = {'./foreign/a': b'1', './run/b': (1, 2, 3)}
LINE = 'sample.py: argument --num: got 0\n'


@pytest.mark.parametrize('status,said,more,wrong', [
    (2, LINE, {}, ''), (0, '', {'./new': 1}, ''), (0, '', {'./run/b': (4, 5, 6)}, ''), (2, '', {}, '0 lines'), (2, LINE*2, {}, '2 lines'), (2, 'x'*4000, {}, 'a line of 4000 characters'), (1, LINE, {}, 'status 1'),
    (1, 'Traceback (most recent call last):\n', {}, 'traceback'), (-9, '', {}, 'signal 9'), (-24, '', {}, 'timeout'), (0, '', {'./deep/CANARY': 'folder'}, 'code executed'), (0, '', {'./foreign/a': b'2'}, 'foreign file: ./foreign/a'),
    (2, LINE, {'./run/b': (4, 5, 6)}, 'changed: ./run/b'), (0, '', {'./run/b': None}, ''), (130, LINE, {}, 'interrupted')])
def test_what_must_not_be(status, said, more, wrong):
    case = fuzz.Case('sample', 'sample', [])
    after = {k: v for k, v in {**CLEAN, **more}.items() if v is not None}
    assert fuzz.verdict(case, status, said, 0, CLEAN, after) == wrong
    assert fuzz.verdict(case._replace(long=True), 130, LINE, 0, CLEAN, CLEAN) == ''
    assert fuzz.verdict(case, 0, '', fuzz.ROOM + 1, CLEAN, CLEAN) == fuzz.verdict(case._replace(spoil=print), 2, 'x: out of memory', 0, CLEAN, CLEAN) == 'memory'


def test_a_reader_that_unpickles_is_found(capsys, tmp_path, monkeypatch):
    "Package data read by `pickle`: the folder that a planted pickle makes is seen."
    monkeypatch.setitem(fuzz.READERS, 'read_results', fuzz.reader(lambda path: pickle.loads(Path(path).read_bytes())))
    monkeypatch.setattr(fuzz, 'TARGETS', [t for t in fuzz.TARGETS if t.file == 'results.csv']), monkeypatch.setattr(fuzz, 'bytes_damage', fuzz.pickle_damage), monkeypatch.setattr(fuzz, 'OWN', {})
    monkeypatch.chdir(tmp_path)
    fuzz.main(['--lines', '0', '--files', '40', '--only', 'results', '--workers', '1'])
    assert 'code executed: read_results results.csv' in capsys.readouterr().out
