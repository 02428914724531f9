"Light to look at: help without PyTorch, a front door that opens by itself, few requirements; options that are refused in words."
import ast, json, os, re, subprocess, sys
from importlib import import_module
from itertools import product
from pathlib import Path

import numpy as np, pytest
from hypothesis import HealthCheck, given, settings as trials, strategies as some

import cfg_course
from cfg_course import cli, core
from cfg_course.catalogue import SHELVES, takes_scale
from cfg_course.cli import evaluate_main, list_guidance, sample_main
from cfg_course.commands import as_typed, find_classes
from cfg_course.core import InputError
from cfg_course.samplers import SAMPLERS
from cfg_course.sweeps import Point
from notebooks import ROOT, settings
from test_techniques import ARGS

sys.path.insert(0, str(ROOT/'tools'))
import index

HEAVY = ['torch', 'numpy', 'pandas', 'matplotlib', 'scipy', 'PIL', 'safetensors', 'tqdm']
MAINS = ['train_main', 'sample_main', 'evaluate_main']


def fresh(code, *words):
    "Run code in a process of its own, from another folder."
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    return subprocess.run([sys.executable, '-c', code, *words], capture_output=True, text=True, env=env, cwd='/')


# Help without PyTorch

def without_torch(main, *words):
    "A command in a process that has none of the libraries."
    return fresh(f'import sys; sys.modules.update(dict.fromkeys({HEAVY}))\nfrom cfg_course.cli import {main}; {main}(sys.argv[1:])', *words)


@pytest.mark.parametrize('main', MAINS)
def test_help_needs_no_library(main):
    done = without_torch(main, '--help')
    assert (done.returncode, done.stderr) == (0, '') and 'examples:' in done.stdout


@pytest.mark.parametrize('main,line', [
    ('train_main', '--dataset imagenet'), ('train_main', '--lr nan'), ('sample_main', '--sampler euler'), ('sample_main', '--steps 0'),
    ('sample_main', '--guidance-scale 2 --w 1'), ('sample_main', '--guidance-arg eta'), ('sample_main', '--scales 1'), ('evaluate_main', '--num 1'),
    ('evaluate_main', '--sampler-arg =3')])
def test_usage_errors_need_no_library(main, line):
    done = without_torch(main, *line.split())
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and line.split()[0] in done.stderr


@pytest.mark.parametrize('word,meant', [('--guidence', 'did you mean --guidance?'), ('--scales', 'an option of evaluate.py'), ('--lr', 'an option of train.py'), ('--frobnicate', '')])
def test_the_nearest_option_is_named(word, meant, capsys):
    with pytest.raises(SystemExit): sample_main([word, '1'])
    said = capsys.readouterr().err
    assert f'unrecognized arguments: {word} 1' in said and (meant in said if meant else ';' not in said)


def test_the_list_needs_no_library():
    done = without_torch('sample_main', '--list-guidance')
    assert (done.returncode, done.stdout) == (0, list_guidance() + '\n')
    assert all(f'  {name} ' in done.stdout for shelf in SHELVES.values() for name in shelf)


def test_what_else_is_imported_for_help():
    "Nothing that is not the standard library's."
    done = fresh("import sys\nfrom cfg_course.cli import sample_parser; sample_parser().format_help()\n"
        "print(*sorted({m.split('.')[0] for m in sys.modules} - set(sys.stdlib_module_names)))")
    assert [m for m in done.stdout.split() if m in [*HEAVY, 'fastcore', 'nbdev']] == [], done.stdout


def test_index_is_what_the_registers_hold():
    assert json.loads(index.FILE.read_text(encoding='utf-8')) == json.loads(json.dumps(index.make_index())), 'to mend: make prepare'


def test_a_reader_may_stop_reading():
    code = 'from cfg_course.cli import sample_main; sample_main(["--list-guidance"])'
    line = f"{sys.executable} -c '{code}' | head -1"
    done = subprocess.run(['bash', '-c', line], capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert (done.stdout, done.stderr) == ('rule, which changes how the predictions are combined:\n', '')


# Front door

def test_front_door_opens():
    assert len(cfg_course.__all__) == 14 and set(cfg_course.__all__) == set(cfg_course._HOME) and set(cfg_course.__all__) <= set(dir(cfg_course))
    for name, module in cfg_course._HOME.items():
        assert getattr(cfg_course, name) is getattr(import_module(f'cfg_course.{module}'), name)
    with pytest.raises(AttributeError, match='has no attribute'): cfg_course.guidence  # noqa: B018


def test_front_door_tells_type_checkers_the_same():
    tree = ast.parse(Path(cfg_course.__file__).read_text(encoding='utf-8'))
    told = {name.name: n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level for name in n.names}
    assert told == cfg_course._HOME and (Path(cfg_course.__file__).parent/'py.typed').is_file()


def test_front_door_is_light():
    "Neither figures nor tables nor another library is imported with the names that guide and sample."
    done = fresh("import sys\nfrom cfg_course import guide, sample, trajectory, find_model, make_guidance, Run, follow, InputError\n"
        "print(*sorted({m.split('.')[0] for m in sys.modules}))")
    heavy = {'pandas', 'matplotlib', 'seaborn', 'scipy', 'sklearn', 'torchvision', 'torch_fidelity', 'accelerate', 'ot', 'diffusers'}
    assert heavy & set(done.stdout.split()) == set(), done.stderr


def test_version_alone_imports_nothing():
    done = fresh("import sys, cfg_course; print(cfg_course.__version__, 'torch' in sys.modules)")
    assert done.stdout.split() == [settings()['version'], 'False']


# Requirements

def packages(text): return {re.split(r'[<>=]', o)[0] for o in text.split()}


def test_requirements_are_few():
    assert packages(settings()['requirements']) == {'torch', 'numpy', 'safetensors', 'tqdm', 'pillow'}


def test_extras_have_what_is_imported_on_demand():
    "The extra that a message names brings the library."
    for module, extra in core.EXTRAS.items():
        assert module.replace('_', '-') in packages(settings()[f'{extra}_requirements']), module
    assert set(core.EXTRAS.values()) <= set(settings()['extras'].split())


# Options

CAP = ['--model', 'digits', '--num', '2', '--steps', '2', '--device', 'cpu', '--overwrite']
NEEDS = {name: [option] for name, option in ARGS.items()}


def ask(main, words, capsys):
    "Exit status and complaint of a command; a traceback is an exception, and fails."
    try: main([str(w) for w in words])
    except SystemExit as e: return e.code, capsys.readouterr().err.strip()
    return 0, capsys.readouterr().err.strip()


def is_refusal(status, said): return status == 2 and said and '\n' not in said and 'Traceback' not in said


STRANGE = ['nan', 'inf', '-inf', '9'*400, '-' + '9'*400, '1e400', '('*10_000, '-'*10_000 + '1', '['*300 + ']'*300, '-'*900 + '1', '{[]: 1}', '[1]', '5',
    '()', "b'x'", '{}', '1j', 'None', 'true', "__import__('os')", 'x', '', '(1, 2, 3)', '((0, .5, 2),)', '-1', '0', '1000000000000', '...', "'" + 'a'*500]
VALUES = some.one_of(
    some.sampled_from(STRANGE), some.floats().map(repr), some.integers(-3, 20).map(str), some.text(max_size=12),
    some.tuples(some.floats(0, 5), some.floats(0, 5)).map(repr), some.lists(some.integers(0, 12), max_size=4).map(repr))
TECHNIQUES = [(kind, name, k) for kind, shelf in SHELVES.items() for name, m in shelf.items() for k in m.options]
few = trials(max_examples=6, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


def affordable(name, key, value):
    "What is allowed and takes long is not tried."
    literal = cli.read_literal(value)
    long = key in ('repeats', 'loops', 'sweeps') and isinstance(literal, int) and literal > 3
    return '\0' not in value and not long


@pytest.mark.parametrize('kind,name,key', TECHNIQUES, ids=[f'{name}-{key}' for _, name, key in TECHNIQUES])
def test_random_options_of_techniques(kind, name, key, tmp_path, capsys):
    "An option of any value: the images are drawn, or one line says why not, and nothing is written."
    scale = ['--guidance-scale', '2'] if takes_scale({kind: name}) else []
    others = [o for o in NEEDS.get(name, []) if not o.startswith(f'{key}=')]
    out = tmp_path/'out'
    def trial(value):
        typed = [w for o in [*others, f'{key}={value}'] for w in ('--guidance-arg', o)]
        there = (out/'samples.json').is_file()
        status, said = ask(sample_main, ['--guidance', name, *scale, *typed, *CAP, '--out', out], capsys)
        assert is_refusal(status, said) or (status == 0 and np.load(out/'samples.npz')['images'].shape == (2, 8, 8, 1)), (value, said)
        if status: assert re.search(f'--guidance-arg|--steps|{name}: got|numbers: got|not finite|checkpoint: got|File name too long', said), said
        assert (out/'samples.json').is_file() == (there or status == 0)
    few(given(VALUES.filter(lambda v: affordable(name, key, v)))(trial))()


@pytest.mark.parametrize('name,key', [(n, k) for n, s in SAMPLERS.items() for k in s.options])
def test_random_options_of_samplers(name, key, tmp_path, capsys):
    out = tmp_path/'out'
    def trial(value):
        status, said = ask(sample_main, ['--guidance-scale', '2', '--sampler', name, '--sampler-arg', f'{key}={value}', *CAP, '--out', out], capsys)
        assert is_refusal(status, said) or status == 0, (value, said)
        if status: assert re.search('--sampler-arg|numbers: got|not finite', said), said
    few(given(VALUES.filter(lambda v: affordable(name, key, v)))(trial))()


@pytest.mark.parametrize('name,value', list(product(['steps', 'num', 'seed', 'batch-size'], ['9'*400, '9'*5000, '1e3', '-1', '99999999999', '0x10'])))
def test_whole_numbers_that_no_machine_has(name, value, tmp_path, capsys):
    status, said = ask(sample_main, ['--guidance-scale', '2', f'--{name}', value, '--model', 'digits', '--device', 'cpu', '--out', tmp_path/'out'], capsys)
    drawn = name == 'seed' and value == '99999999999'
    assert status == 0 if drawn else is_refusal(status, said) and f'--{name}' in said and len(said) < 300


WRONG = {
    '--guidance apg --guidance-arg etta=1': ['--guidance-arg etta', 'did you mean eta'],
    '--guidance apg --guidance-arg steps=3': ['--guidance-arg steps', 'eta'],
    '--guidance cfg --guidance-arg eta=1': ['--guidance-arg eta', 'no options', 'cfg'],
    '--guidance rescale --guidance-arg phi=2': ['--guidance-arg phi: got 2', '<= 1'],
    '--guidance negative': ['--guidance-arg label: got None'],
    '--guidance negative --guidance-arg label=10': ['--guidance-arg label: got 10', '0 to 9'],
    '--guidance icg --guidance-arg classes=none --classes 11': ["--classes: got '11'", '0 to 9'],
    '--guidance icg --guidance-arg classes=x': ["--guidance-arg classes: got 'x'"],
    '--guidance and --guidance-arg labels=[10]': ['--guidance-arg labels: got 10', '0 to 9'],
    '--guidance slg --guidance-arg skip=("nose",)': ["--guidance-arg skip: got 'nose'", 'mid.0'],
    '--guidance static_threshold --guidance-arg bound=3.5e38': ['numbers: got', 'bound', '3.5e+38'],
    '--sampler-arg gamma=1e160': ['numbers: got', 'gamma', '1e+160'],
    '--guidance cads --guidance-arg start=.9 --guidance-arg stop=.1': ['--guidance-arg start, stop'],
    '--guidance autoguidance --guidance-arg model=imagenet': ["--guidance-arg model: got 'imagenet'", 'mnist'],
    '--guidance autoguidance --guidance-arg model=3': ['--guidance-arg model: got 3', 'name'],
    '--model imagenet --guidance autoguidance': ["--model: got 'imagenet'"],
    '--guidance pag+cads': ['--guidance: got', 'pag+cads', 'UNet'],
    '--sampler heun --sampler-arg gama=1': ['--sampler-arg gama', 'did you mean gamma'],
    '--sampler heun --sampler-arg gamma=-1': ['--sampler-arg gamma: got -1', '>= 0'],
    '--sampler ddim --sampler-arg v=.5': ['--sampler-arg v: got 0.5', 'no options, for ddim'],
    '--sampler ddpm --v .5 --sampler-arg v=.4': ['--sampler-arg v: got 0.4', '--v'],
    '--sampler heun --S-churn 5 --sampler-arg gamma=.4': ['--sampler-arg gamma: got 0.4', '--S-churn'],
    '--classes ' + '9'*5000: ['--classes: got', '0 to 9'],
}


@pytest.mark.parametrize('line', WRONG, ids=lambda line: line[:60])
def test_complaints_name_what_was_typed(line, tmp_path, capsys):
    model = [] if '--model' in line else ['--model', 'digits']
    status, said = ask(sample_main, ['--guidance-scale', '2', *line.split(), *model, '--device', 'cpu', '--out', tmp_path/'out'], capsys)
    assert is_refusal(status, said) and not (tmp_path/'out').exists()
    assert [w for w in WRONG[line] if w not in said] == [], said


def test_evaluate_names_what_was_typed(tmp_path, capsys):
    status, said = ask(evaluate_main, ['--guidance', 'cfg', 'negative', '--scales', '2', '--model', 'digits', '-n', '20', '--device', 'cpu', '--keep', tmp_path/'kept'], capsys)
    assert is_refusal(status, said) and '--guidance-arg label: got None' in said and not (tmp_path/'kept').exists()


def examples(text, script): return [line.split('  ')[0] for line in re.findall(rf'python {script}.py(.*)$', text, re.M)]


@pytest.mark.parametrize('script', ['train', 'sample', 'evaluate'])
def test_examples_of_the_help_can_be_read(script):
    "Each example of --help is a line that the parser takes."
    parser = getattr(cli, f'{script}_parser')()
    lines = examples(getattr(cli, f'{script.upper()}_HELP'), script)
    assert len(lines) >= 6
    for line in lines:
        if '--list-guidance' not in line: parser.parse_args(line.split())


def test_every_option_of_a_sampler_can_be_typed(tmp_path, capsys):
    line = ['--guidance-scale', '2', *CAP]
    for name, words in dict(a=['--sampler', 'ddpm', '--v', '.5'], b=['--sampler', 'ddpm', '--sampler-arg', 'v=.5'], c=['--sampler', 'ddpm'],
                            d=['--sampler-arg', 'gamma=.3', '--sampler-arg', 'S_max=inf', '--sampler-arg', 'S_noise=1.01']).items():
        assert ask(sample_main, [*line, *words, '--out', tmp_path/name], capsys) == (0, '')
    a, b, c, _ = (np.load(tmp_path/n/'samples.npz')['images'] for n in 'abcd')
    note = json.loads((tmp_path/'d'/'samples.json').read_text())
    assert np.array_equal(a, b) and not np.array_equal(a, c)
    assert (note['gamma'], note['S_max'], note['S_noise']) == (.3, float('inf'), 1.01)


def test_whose_option_it_is():
    icg = Point('digits', 'icg', 2.)
    assert as_typed('classes: got None, allowed: some', icg) == 'guidance-arg classes: got None, allowed: some'
    assert as_typed('classes: got None, allowed: some', icg._replace(method='apg')) == 'classes: got None, allowed: some'
    assert as_typed("model: got 'digits', allowed: some", icg._replace(method='autoguidance')).startswith('model')


def test_classes_are_found_by_their_name_first():
    assert find_classes(['1', '0', 'b'], ['1', 'b', '0']) == (0, 2, 1)
    with pytest.raises(InputError, match='classes'): find_classes(['٣٣'], ['a', 'b'])


@pytest.mark.parametrize('line', ['--guidance cfg apg --scales 3 --budget 14 --seed 0 1', '--guidance cfg apg --effective-scale 2 --seed 1'])
def test_equal_terms(line, tmp_path, capsys):
    "The two options that every example of --help shows, and which ended in a TypeError."
    out = tmp_path/'rows.csv'
    status, said = ask(evaluate_main, [*line.split(), '--model', 'digits', '-n', '20', '--steps', '3', '--sampler', 'ddim', '--device', 'cpu', '--out', out], capsys)
    assert (status, said) == (0, '') and out.is_file()


@pytest.mark.parametrize('line,words', [('--metrics beauty', ['--metrics', 'beauty']), ('--judge nobody', ['nobody', 'checkpoint']), ('--out rows.txt', ['--out', '.csv'])])
def test_a_plan_is_refused_like_what_it_plans(line, words, capsys):
    status, said = ask(evaluate_main, ['--plan', *line.split(), '--model', 'digits', '-n', '20', '--steps', '2', '--device', 'cpu'], capsys)
    assert is_refusal(status, said) and [w for w in words if w not in said] == []


@pytest.mark.parametrize('error,status,words', [
    (InputError('num: got 3'), 2, '--num'), (OSError(28, 'No space left on device', 'x.npz'), 2, 'No space left on device: x.npz'), (MemoryError(), 2, 'out of memory'),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 2, 'out of memory'), (KeyboardInterrupt(), 130, 'interrupted')])
def test_how_a_command_ends(error, status, words, capsys):
    def work(args): raise error
    with pytest.raises(SystemExit) as stop: cli.command(cli.sample_parser, work, [])
    said = capsys.readouterr().err.strip()
    assert stop.value.code == status and words in said and '\n' not in said


def test_a_fault_of_ours_stays_a_traceback():
    def work(args): raise KeyError('ours')
    with pytest.raises(KeyError, match='ours'): cli.command(cli.sample_parser, work, [])


def test_without_pytorch_a_command_says_what_to_install(tmp_path):
    code = "import sys; sys.modules['torch'] = None; from cfg_course.cli import sample_main; sample_main(['--guidance-scale', '2'])"
    done = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, env=os.environ | dict(PYTHONPATH=str(ROOT)), capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count('\n') == 1 and 'torch: not installed' in done.stderr, done.stderr
