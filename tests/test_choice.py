"The choice: its commands draw what the tables measured, its advice is that of the verdicts, and it knows what to say of tables that come later."
import re, shlex

import numpy as np, pandas as pd, pytest
from execnb.shell import CaptureShell
from fastcore.xtras import working_directory

from cfg_course.cli import sample_parser
from cfg_course.commands import sample_point
from cfg_course.core import InputError
from cfg_course.standings import Standings, read_standings, title_of
from cfg_course.sweeps import point_of
from notebooks import NBS_DIR, cells, src

CELLS = {c['id']: c for c in cells(NBS_DIR/'32_choice.ipynb')}
DIGITS = read_standings('mnist-a', NBS_DIR/'results')
NEEDS, RESTS, ORDER, PHOTOGRAPHS, BOTH, KINDS, LOST = '058328d6', '32a00003', 'e79a1f5c', 'fae525a6', 'c7fd4df7', 'ec216885', '32a0000e'


def written(key):
    "What the page says in an output."
    return ''.join(''.join(o['data']['text/markdown']) for o in CELLS[key]['outputs'])


def run_code(shell, keys):
    "Run cells; what they say."
    said = []
    for key in keys:
        out = shell.run(src(CELLS[key]))
        assert not shell.exc, shell.exc
        said += [''.join(o['data']['text/markdown']) for o in out if 'text/markdown' in o.get('data', {})]
    return '\n'.join(said)


@pytest.fixture(scope='module')
def page():
    "The page's own code up to what not to use."
    shell, code = CaptureShell(), [k for k, c in CELLS.items() if c['cell_type'] == 'code']
    with working_directory(NBS_DIR): run_code(shell, code[:code.index(LOST)])
    return shell


def parsed(command):
    "The setting that a command draws, without how many and from which noise."
    start, *words = re.sub('^python sample.py', 'sample', command).split(' ', 1)
    assert start == 'sample'
    return sample_point(sample_parser().parse_args(shlex.split(*words)))._replace(num=0, seed=0)


def setting(row): return point_of({k: '' if v != v else str(v) for k, v in dict(row).items()})._replace(num=0, seed=0)
def alike(point): return point._replace(options=sorted(point.options), sampling=sorted(point.sampling))


def test_every_setting_of_the_tables_has_a_command(page):
    "One row of each technique, in every stage: what is typed is what was drawn."
    rows = pd.concat([DIGITS.chosen, DIGITS.tuning]).drop_duplicates(['candidate', 'strength']).drop_duplicates('candidate')
    assert len(rows) > 100 and rows.parameters.nunique() > 10
    for row in rows.to_dict('records'):
        assert alike(parsed(page.user_ns['command_of'](row))) == alike(setting(row)), row['candidate']


def test_the_commands_on_the_page():
    "Each is that of a technique at the strength that was chosen, with the verdicts of the files."
    chosen = {alike(setting(row)).__repr__(): row['candidate'] for row in DIGITS.chosen.drop_duplicates('candidate').to_dict('records')}
    lines = [[c.strip() for c in line.split(' | ')] for line in written(NEEDS).split('\n')[2:]]
    seen = set()
    for line in lines:
        title, _, command = line[1].partition('<br>')
        if not command: continue # nobody, or real digits
        name = chosen[alike(parsed(command.strip('`'))).__repr__()]
        assert title.startswith(title_of(name).replace('*', r'\*'))
        assert name == 'cfg' or line[4] == f'{DIGITS.verdict(name)} / {DIGITS.verdict(name, "steps")}'
        seen.add(name)
    assert len(lines) > 8 and 'cfg' in seen and len(seen) > 3


def test_nothing_undecided_is_recommended():
    "The third step names who is better, and nobody else; the table of losers has who is worse, and nobody else."
    words = DIGITS.words()
    third = written(ORDER).split('\n')[2]
    better = [n for n in words.index[words == 'better'] if n != 'interval, middle']
    for name in words.index:
        said = f'{title_of(name)} (gain'.replace('*', r'\*')
        assert not re.search(rf'(: |\), ){re.escape(said)}', third) or name in better, name
    assert third.count('(gain') == len(better) and all(f'{title_of(n)} (gain'.replace('*', r'\*') in third for n in better)
    assert set(re.findall('`([^`]+)`', written(KINDS))) == set(words.index[words == 'worse'])
    counts = words.value_counts().reindex(['better', 'worse', 'undecided'], fill_value=0)
    assert f'better than plain guidance: {counts.better}; worse: {counts.worse}; undecided: {counts.undecided}.' in written(RESTS)


def costs(page, tables, name='apg'): return page.user_ns['wrong'](page.user_ns['over_plain'](tables), name)
def invented(name, strengths, scores):
    "Standings with the curves of plain guidance and of one technique; a score is a logarithm."
    curves = {'cfg': ([1.1, 1.2, 1.4, 1.8, 2.6], [.3, 0, .2, .6, 1.2]), name: (strengths, scores)}
    rows = [dict(candidate=c, strength=s, seed=0, judge='a', metric='fid', samples=1000, value=np.exp(v)) for c, pair in curves.items() for s, v in zip(*pair)]
    return Standings(pd.DataFrame(rows), pd.DataFrame(rows)[:0], {}, {}, pd.DataFrame())


@pytest.mark.parametrize('name, strengths, origin', [('apg', [1.1, 1.2, 1.4, 1.8], 1), ('cfgpp', [.1, .2, .4, .8], 0), ('eps_scaling', [.9, .8, .6, .2], 1), ('cfg+pag', [.25, .5, 1., 2.], 0)])
def test_what_a_wrong_strength_costs(page, name, strengths, origin):
    "On both sides of where nothing is changed, for every knob."
    tables = invented(name, strengths, [.05, -.1, .03, .4])
    found = costs(page, tables, name)
    assert found['best'] == strengths[1] and np.allclose([found['at'], found['twice'], found['four']], [-.1, .03, .4])
    assert found['closed'] == (False, True) and np.isclose(found['near'], strengths[0])
    share = (np.log(1.1) - .03)/.37
    assert np.isclose(np.log(abs(found['far'] - origin)/abs(strengths[2] - origin)), share*np.log(2), atol=.01)


def test_a_curve_with_holes(page):
    "A strength that could not be drawn, one where nothing is changed, a technique that is never good, a range with a gap."
    found = costs(page, invented('apg', [1., 1.1, 1.2, 1.4], [9., .5, .2, np.inf]))
    assert found['room'] == 1 and np.isnan(found['twice'])
    assert np.isclose(costs(page, invented('apg', [1.1, 1.2, 1.4, 1.8], [-.2, .3, -.1, .3]))['far'], 1.16, atol=.02)


def test_a_need_that_nothing_meets(page):
    "An error for who searches, a row for the table."
    digits, search, asked = (page.user_ns[k] for k in ('digits', 'search', 'asked'))
    nobody = digits.score < -99
    with pytest.raises(InputError, match='twice'): search('twice', nobody, 'score')
    row, = asked('twice', nobody, 'score')
    assert row['technique'] == 'none' and list(row) == list(asked('plain', digits.index == 'cfg', 'score')[0])


def test_the_search_of_the_exercise(page):
    "Its code runs as it is shown, and what it finds meets the condition."
    code, = re.findall(r'```python\n(prose_table.*?)```', ''.join(src(c) for c in CELLS.values()), re.S)
    digits, line_of = page.user_ns['digits'], page.user_ns['line_of']
    out = page.run(code)
    assert not page.exc
    enough = digits[digits.recall >= digits.recall['cfg']]
    first = enough.precision.idxmax()
    assert line_of('', first, digits.loc[first])['technique'] in ''.join(out[0]['data']['text/markdown']).split('\n')[2]


def test_photographs_when_they_are_there_and_before(page):
    "Before: one sentence. Then: the table of needs and the verdicts of both, and no word of what is to come."
    had = page.user_ns['on_photographs']
    page.user_ns['on_photographs'] = None
    before = run_code(page, [PHOTOGRAPHS, BOTH])
    assert 'are being measured' in before and '|' not in before
    page.user_ns['on_photographs'] = DIGITS
    after = run_code(page, [PHOTOGRAPHS, BOTH, LOST])
    assert 'being measured' not in after and after.count('| plain guidance<br>') == 1 and ' are better on photographs ' in after
    worse = (DIGITS.words() == 'worse').sum()
    assert f'On photographs {worse} of them were drawn, and 0 are not worse there by verdict.' in after
    tuning_only = DIGITS._replace(chosen=DIGITS.chosen[:0], differences={}, verdicts={})
    page.user_ns['on_photographs'] = tuning_only
    assert 'are being measured' in run_code(page, [PHOTOGRAPHS, BOTH])
    page.user_ns['on_photographs'] = had


def test_the_page_is_of_the_tables_that_are_there():
    there = (NBS_DIR/'results'/'contest_cifar10-16_verdicts.csv').is_file()
    assert ('are being measured' in written(PHOTOGRAPHS)) == (not there), 'to mend: python tools/run_nb.py nbs/32_choice.ipynb'
