"Every technique by its name, through the command line: it draws, or says in one line why it cannot."
import json

import numpy as np, pytest

from cfg_course.catalogue import SHELVES, parse_guidance, takes_scale
from cfg_course.cli import list_guidance, sample_main

ARGS = {'negative': 'label=3', 'and': 'labels=(8,)', 'not': 'label=8', 'perp_neg': 'label=8', 'autoguidance': 'model=digits',
    'dng': 'label=3', 'in_situ': 'rate=0.1', 'superdiff': 'label=8'}
MODELS = {'discriminator': ('mnist-a', (28, 28, 1))}  # those that need one of their own
NAMES = [(kind, name) for kind, shelf in SHELVES.items() for name in shelf]


def draw(line, out, capsys, model='digits'):
    "Samples of a command, or its complaint."
    try: sample_main([*line.split(), '--model', model, '--num', '10', '--steps', '4', '--device', 'cpu', '--out', str(out)])
    except SystemExit as e: return e.code, capsys.readouterr().err.strip()
    return np.load(out/'samples.npz')['images'], json.loads((out/'samples.json').read_text())


@pytest.mark.parametrize('kind,name', NAMES, ids=[name for _, name in NAMES])
def test_technique_draws(kind, name, tmp_path, capsys):
    line = f'--guidance {name} ' + ('--guidance-scale 2 ' if takes_scale({kind: name}) else '') + (f'--guidance-arg {ARGS[name]}' if name in ARGS else '')
    model, shape = MODELS.get(name, ('digits', (8, 8, 1)))
    x, note = draw(line, tmp_path/'out', capsys, model)
    assert getattr(x, 'shape', x) == (10, *shape), note
    assert note['guidance'] == name and note['nfe_per_image'] > 0


def test_one_expression_of_four_kinds(tmp_path, capsys):
    x, note = draw('--guidance apg+autoguidance+cads+cosine --guidance-arg model=digits --guidance-arg eta=0.5 --guidance-scale 3 --interval 0.1 5', tmp_path/'out', capsys)
    assert getattr(x, 'shape', x) == (10, 8, 8, 1), note
    assert note['guidance_args'] == dict(model='digits', eta=.5)


def test_who_descends_from_whom():
    "Every ancestor is in the catalogue, none is younger than its heir, and the line of each ends."
    shelves = {name: method for shelf in SHELVES.values() for name, method in shelf.items()}
    for name, method in shelves.items():
        assert method.title and set(method.after) <= shelves.keys() - {name}, name
        assert all((shelves[a].year or 0) <= (method.year or 9999) for a in method.after), name
    def line(name, seen=()):
        assert name not in seen, seen
        return max((line(a, (*seen, name)) for a in shelves[name].after), default=0) + 1
    assert max(map(line, shelves)) < len(shelves) and not shelves['cfg'].after


BAD = {
    '--guidance apgg --guidance-scale 2': ['--guidance', "'apgg'", 'apg'],
    '--guidance apg+rescale --guidance-scale 2': ['--guidance', 'apg+rescale', 'at most one rule'],
    '--guidance fkc+apg --guidance-scale 2': ['--guidance', 'fkc', 'alone'],
    '--guidance apg --guidance-scale 2 --guidance-arg lam=2': ['lam', '2', 'eta'],
    '--guidance apg --guidance-scale 2 --guidance-arg eta': ['--guidance-arg', "'eta'", 'KEY=VALUE'],
    '--guidance rescale --guidance-scale 2 --guidance-arg phi=2': ['phi', '2', '1'],
    '--guidance cfgpp --guidance-arg lam=1.5': ['lam', '1.5', '1'],
    '--guidance cfgpp --guidance-scale 2': ['scale', '2', 'cfgpp'],
    '--guidance apg': ['--guidance', 'required'],
    '--guidance autoguidance --guidance-scale 2': ['--guidance-arg model', 'digits-weak'],
    '--guidance negative --guidance-scale 2': ['--guidance-arg label', 'None'],
    '--guidance cfg --guidance-scale 2 --interval 90 100': ['--interval', '90', '80'],
}


@pytest.mark.parametrize('line', BAD)
def test_bad_guidance_is_one_line_and_writes_nothing(line, tmp_path, capsys):
    code, said = draw(line, tmp_path/'out', capsys)
    assert code == 2 and '\n' not in said and not (tmp_path/'out').exists()
    assert [w for w in BAD[line] if w not in said] == [], said


def test_list_names_everything(capsys):
    with pytest.raises(SystemExit) as e: sample_main(['--list-guidance'])
    assert e.value.code == 0 and capsys.readouterr().out.strip() == list_guidance().strip()
    for _, name in NAMES: assert f'  {name} ' in list_guidance()


def test_expressions():
    assert parse_guidance('apg+autoguidance+cosine') == dict(rule='apg', weak='autoguidance', schedule='cosine')
