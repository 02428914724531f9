"""Small faults put into the package one at a time: which of them do the chapters and the tests notice?

    make mutants                              all modules, two at a time, an hour or two; writes nbs/results/mutants.csv
    python tools/mutants.py --only laws -n 5  some of one module
    python tools/mutants.py --list            the mutants, without running them

A run that was stopped goes on: mutants that are in the table already are not run again, unless --anew says so.

A mutant changes one operator, number, comparison or name of a function, in the notebook and in the module alike. It meets
its own chapter, then the ledger of equations, then the test files that import its module. Survivors meet all other test files
and chapters, unless --quick says no. The table says
who noticed it. Survivors have a verdict in VERDICTS below: why the mutant computes the same, or what would notice it.
"""
import argparse, ast, csv, json, os, random, re, shutil, subprocess, sys, tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import Queue
from typing import NamedTuple

from cfg_course.core import writing

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT/'nbs'/'results'/'mutants.csv'
MODULES = ['scores', 'mixtures', 'guidance', 'limits', 'laws', 'schedules', 'samplers', 'classifiers', 'rules', 'doses', 'bands', 'branches',
    'damages', 'compositions', 'procedures', 'particles', 'catalogue', 'metrics', 'training', 'sweeps']
EACH = 10  # mutants of a module
SEED = 1
LIMIT = 600  # seconds for a chapter or a set of tests
NAMES = {'D_u': 'D_c', 'D_c': 'D_u', 'min': 'max', 'max': 'min', 'sigma': 'sigma_next', 'sigma_next': 'sigma', 'u': 'c', 'c': 'u'}
OPERATORS = {ast.Add: ('+', '-'), ast.Sub: ('-', '+'), ast.Mult: ('*', '/'), ast.Div: ('/', '*'), ast.Lt: ('<', '<='),
    ast.LtE: ('<=', '<'), ast.Gt: ('>', '>='), ast.GtE: ('>=', '>'), ast.And: ('and', 'or'), ast.Or: ('or', 'and')}
KEY = 'module', 'function', 'line', 'column', 'old', 'new'
LEDGER = 'test_ledger.py'
WHOLE = 'test_cli.py', 'test_damaged.py', 'test_fuzz.py', 'test_kills.py', 'test_light.py', 'test_recipes.py', 'test_tools.py'  # they run whole commands
WORDS = 'test_site.py', 'test_structure.py', 'test_numbers.py'  # what they read is text
VERDICTS = {  # (module, function, line, old, new) -> why nobody needs to notice
    ('mixtures', 'product', 'logs = log_count + e@log_c + rest*log_u', '*', '/'): 'the same constant for every part, which from_natural divides out',
    ('limits', 'squares', 'scale = size.amax(1).clamp(min=1e-300)', '1e-300', '1.1e-300'): 'any number keeps 0/0 away',
    ('laws', 'unit_nodes', 't = np.linspace(-4, 4, 401)', '4', '5'): 'more nodes where the weights are below rounding: the same integrals',
    ('schedules', 'stratified', 'return u[order].clamp(1e-7, 1 - 1e-7)', '1e-7', '1.1e-07'): 'any small number keeps quantiles finite',
    ('classifiers', 'mirror', 'return torch.where(expand(u, x) < .5, x.flip(-1), x)', '<', '<='): 'a uniform number is hardly ever one half',
    ('classifiers', 'embed', 'return self.noise(fourier(c_noise, 64))', '64', '65'): 'the same 32 frequencies, each with a sine and a cosine',
    ('rules', 'deviation', 'return like_samples(a.flatten(1).std(1, correction=0), a)', '0', '1'): 'only ratios are used, in which how many numbers there are cancels; of one number the ratio has its own value',
    ('sweeps', 'draw', 'if acc.num_processes > 1:', '1', '0'): 'gathering from a single process gives back what it has',
}


class Mutant(NamedTuple):
    "One small fault."
    module:str # name
    function:str # in which it is
    line:int # number in the module
    column:int # where in the line, characters
    old:str # text
    new:str # text in its place

    def apply(self,
        line:str # of the module or of the notebook, the same text
    )->str: # the faulty line
        "The line with the fault in it."
        return line[:self.column] + self.new + line[self.column + len(self.old):]


def span(
    node:ast.AST, # with a place
    lines:list # of the module
)->tuple: # line, column where it begins, line, column where it ends; lines from 0, columns in characters
    "Where a node stands."
    start = len(lines[node.lineno - 1].encode()[:node.col_offset].decode())
    end = len(lines[node.end_lineno - 1].encode()[:node.end_col_offset].decode())
    return node.lineno - 1, start, node.end_lineno - 1, end


def between(
    left:ast.AST, # operand
    right:ast.AST, # operand
    lines:list, # of the module
    old:str # the operator's text
)->tuple: # line, column of the operator; none where it is not on one line with both
    "Where an operator stands."
    _, _, i, a = span(left, lines)
    j, b, _, _ = span(right, lines)
    at = lines[i].find(old, a, b) if i == j else -1
    return None if at < 0 else (i, at)


def changes(
    node:ast.AST, # of a function
    lines:list # of the module
): # yields (line, column, old, new)
    "What may be changed at a node."
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        old, new = OPERATORS[type(node.op)]
        if at := between(node.left, node.right, lines, old): yield (*at, old, new)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow) and isinstance(node.right, ast.Constant):
        i, a, _, b = span(node.right, lines)
        yield i, a, lines[i][a:b], {2: '3', .5: '.25'}.get(node.right.value, '1')
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in OPERATORS:
        old, new = OPERATORS[type(node.ops[0])]
        if at := between(node.left, node.comparators[0], lines, old): yield (*at, old, new)
    if isinstance(node, ast.BoolOp):
        old, new = OPERATORS[type(node.op)]
        if at := between(node.values[0], node.values[1], lines, f' {old} '): yield at[0], at[1] + 1, old, new
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        i, a, _, b = span(node, lines)
        yield i, a, lines[i][a:b], '1' if node.value == 0 else '0' if node.value == 1 else f'{1.1*node.value:.4g}' if isinstance(node.value, float) else str(node.value + 1)
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in NAMES:
        i, a, _, b = span(node, lines)
        yield i, a, node.id, NAMES[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        i, a, _, _ = span(node, lines)
        yield i, a, '-', ''


def candidates(
    module:str # name
)->list: # of `Mutant`s, each at another place
    "All small faults that a module may have; messages, defaults and signatures aside."
    text = (ROOT/'cfg_course'/f'{module}.py').read_text(encoding='utf-8')
    lines, found = text.splitlines(), {}
    for function in ast.walk(ast.parse(text)):
        if not isinstance(function, ast.FunctionDef): continue
        known = {n.id for n in ast.walk(function) if isinstance(n, ast.Name)} | {a.arg for a in function.args.args} | {'min', 'max'}
        inside = (n for part in function.body if not says(part) for n in ast.walk(part))
        for node in inside:
            for i, a, old, new in changes(node, lines):
                there = lines[i][a:a + len(old)] == old and (old not in NAMES or new in known)
                if there: found[i, a] = Mutant(module, function.name, i, a, old, new)
    return list(found.values())


def says(
    node:ast.stmt # a statement
)->bool: # only words?
    "Whether a statement is a docstring or a check, whose words nobody computes with."
    value = getattr(node, 'value', None)
    call = value.func if isinstance(value, ast.Call) else None
    return isinstance(value, ast.Constant) or (isinstance(call, ast.Name) and call.id.startswith('check'))


def choose(
    module:str, # name
    n:int, # how many
    seed:int # of the choice
)->list: # of `Mutant`s
    "Some of a module, from as many functions as possible."
    found = candidates(module)
    random.Random(f'{seed} {module}').shuffle(found)
    seen, first, rest = set(), [], []
    for m in found: (rest if m.function in seen else first).append(m); seen.add(m.function)
    return [*first, *rest][:n]


def put(
    mutant:Mutant, # to be put in
    tree:Path # a copy of the course
)->dict: # file -> its text before
    "Put a fault into the module and its notebook."
    module = tree/'cfg_course'/f'{mutant.module}.py'
    text = module.read_text(encoding='utf-8')
    lines = text.splitlines()
    heads = [re.match(r'# %% \.\./nbs/(\S+) #(\w+)', line) for line in lines[:mutant.line]]
    notebook, cell = [h for h in heads if h][-1].groups()
    path = tree/'nbs'/notebook
    before = {module: text, path: path.read_text(encoding='utf-8')}
    old, new = lines[mutant.line], mutant.apply(lines[mutant.line])
    lines[mutant.line] = new
    module.write_text('\n'.join(lines) + '\n', encoding='utf-8')
    nb = json.loads(before[path])
    source = next(c for c in nb['cells'] if c.get('id') == cell)['source']
    where = [i for i, line in enumerate(source) if line.rstrip('\n') == old]
    for i in where[:1]: source[i] = source[i].replace(old, new)
    path.write_text(json.dumps(nb, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')
    return before


def passes(
    command:list, # what to run
    tree:Path # where
)->bool: # did all go well?
    "Run tests in a copy of the course; one that takes too long has noticed something."
    env = dict(os.environ, PYTHONPATH=str(tree), OMP_NUM_THREADS='1', MPLBACKEND='Agg', TQDM_DISABLE='1', HF_HUB_OFFLINE='1')
    try: return subprocess.run(command, cwd=tree, env=env, capture_output=True, timeout=LIMIT).returncode == 0
    except subprocess.TimeoutExpired: return False


def chapter_of(
    module:str # name
)->str: # file name
    "The notebook of a module."
    return next(p.name for p in (ROOT/'nbs').glob('*.ipynb') if p.stem.partition('_')[2] == module)


def tests_of(
    module:str # name
)->list: # file names
    "The test files that import a module."
    pattern = re.compile(rf'cfg_course(\.| import .*\b){module}\b')
    return sorted(p.name for p in (ROOT/'tests').glob('test_*.py') if pattern.search(p.read_text(encoding='utf-8')))


def hunters(
    module:str, # name
    quick:bool # only those that are near?
)->list: # of (name, command)
    "Who meets a mutant, in order."
    own, every = chapter_of(module), sorted(p.name for p in (ROOT/'tests').glob('test_*.py'))
    mine = [t for t in tests_of(module) if t not in (*WHOLE, *WORDS, LEDGER)]
    others = [t for t in every if t not in (*mine, *WHOLE, *WORDS, LEDGER)]
    chapters = sorted(p.name for p in (ROOT/'nbs').glob('[0-9]*.ipynb') if p.name != own)
    def chapter(name): return ['nbdev_test', '--path', f'nbs/{name}', '--n_workers', '1']
    def files(names): return [sys.executable, '-m', 'pytest', '-q', '-x', '-p', 'no:cacheprovider', *(f'tests/{t}' for t in names)]
    near = [(own, chapter(own)), (LEDGER, [*files([LEDGER]), '-k', 'test_equation']), *([(', '.join(mine), files(mine))] if mine else [])]
    if quick: return near
    return [*near, ('other tests', files(others)), *((name, chapter(name)) for name in chapters), ('whole commands', files(WHOLE))]


def hunt(
    mutant:Mutant, # to be noticed
    trees:Queue, # copies of the course that are free
    quick:bool # only those that are near the module?
)->dict: # a row
    "Who notices a mutant first."
    tree = trees.get()
    before = put(mutant, tree)
    try: noticed = next((name for name, command in hunters(mutant.module, quick) if not passes(command, tree)), '')
    finally:
        for path, text in before.items(): path.write_text(text, encoding='utf-8')
        trees.put(tree)
    line = line_of(mutant, before[tree/'cfg_course'/f'{mutant.module}.py'])
    verdict = '' if noticed else VERDICTS.get((mutant.module, mutant.function, line, mutant.old, mutant.new), 'survived')
    row = dict(module=mutant.module, function=mutant.function, line=line, column=mutant.column, old=mutant.old, new=mutant.new, noticed=noticed, verdict=verdict)
    print(f"{mutant.module}.{mutant.function}: {mutant.old} -> {mutant.new or 'nothing'}  in  {line[:70]}  {noticed or verdict.upper()}", flush=True)
    return row


def line_of(
    mutant:Mutant, # any
    text:str # of its module
)->str: # without its indentation
    "The line that a mutant changes."
    return text.splitlines()[mutant.line].strip()


def known(
    path:Path, # of the table
)->dict: # values of KEY -> row
    "The rows of an earlier run; those that survived are tried again."
    if not path.exists(): return {}
    with open(path, newline='', encoding='utf-8') as f: rows = list(csv.DictReader(f))
    return {tuple(r[k] for k in KEY): r for r in rows if r['noticed']}


def key_of(
    mutant:Mutant, # any
)->tuple: # as in `known`
    "What a mutant is known by."
    text = (ROOT/'cfg_course'/f'{mutant.module}.py').read_text(encoding='utf-8')
    return mutant.module, mutant.function, line_of(mutant, text), str(mutant.column), mutant.old, mutant.new


def copies(
    n:int, # how many
    folder:Path # where
)->Queue: # of folders
    "Copies of the course, without its history and environments."
    trees = Queue()
    skip = shutil.ignore_patterns('.git', '.venv*', 'runs', 'out', '_docs', '_proc', '__pycache__', 'data')
    for i in range(n): trees.put(Path(shutil.copytree(ROOT, folder/str(i), ignore=skip)))
    return trees


def write_rows(
    rows:list, # of dicts
    path:Path # .csv
)->None:
    "Write the table, whole or not at all."
    with writing(path) as tmp, open(tmp, 'w', newline='', encoding='utf-8') as f:
        table = csv.DictWriter(f, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def main():
    "Parse the command line and run."
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--only', nargs='+', choices=MODULES, default=MODULES, metavar='MODULE', help='modules (all)')
    p.add_argument('-n', type=int, default=EACH, help=f'mutants of a module ({EACH})')
    p.add_argument('--seed', type=int, default=SEED, help=f'of the choice ({SEED})')
    p.add_argument('--workers', type=int, default=2, help='mutants at a time (2)')
    p.add_argument('--out', type=Path, default=OUT, help='the table (nbs/results/mutants.csv)')
    p.add_argument('--quick', action='store_true', help='survivors do not meet the whole suite')
    p.add_argument('--anew', action='store_true', help='run those too that are in the table')
    p.add_argument('--list', action='store_true', help='only say which')
    args = p.parse_args()
    mutants = [m for module in args.only for m in choose(module, args.n, args.seed)]
    if args.list:
        for m in mutants: print(f"{m.module}.{m.function}, line {m.line + 1}: {m.old} -> {m.new or 'nothing'}")
        return
    done = {} if args.anew else known(args.out)
    rows = {m: done[key_of(m)] for m in mutants if key_of(m) in done}
    def in_order(): return [rows[m] for m in mutants if m in rows]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(args.workers) as pool:
        trees = copies(args.workers, Path(folder))
        futures = {pool.submit(hunt, m, trees, args.quick): m for m in mutants if m not in rows}
        for future in as_completed(futures):
            rows[futures[future]] = future.result()
            write_rows(in_order(), args.out)
    rows = in_order()
    left = [r for r in rows if r['verdict'] == 'survived']
    print(f'{len(rows)} mutants, {sum(bool(r["noticed"]) for r in rows)} noticed, {len(left)} survived: {args.out}')


if __name__ == '__main__': main()
