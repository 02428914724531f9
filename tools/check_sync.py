"""Check that the notebooks are clean and that the package is what they export.

nbdev works on a copy in a temporary folder, so the check changes nothing here, whatever it finds.
"""
import json, os, re, shutil, subprocess, sys, tempfile
from itertools import zip_longest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NBS, LIB = 'nbs', 'cfg_course'


def find(
    root:Path, # folder of the project, or of its copy
    folder:str, # folder in it to search
    glob:str # names to look for
)->set: # paths relative to `root`
    "Files under a folder, without those in hidden and private folders, which nbdev leaves alone."
    paths = (p.relative_to(root) for p in (root/folder).rglob(glob))
    return {p for p in paths if not any(o.startswith(('_', '.')) for o in p.parts[:-1])}


def notebooks(root:Path)->set: # root: folder of the project, or of its copy
    "Paths of the notebooks, the chapter template among them."
    return find(root, NBS, '*.ipynb')


def modules(root:Path)->set: # root: folder of the project, or of its copy
    "Paths of the modules that nbdev writes."
    return find(root, LIB, '*.py')


def json_fault(
    path:Path # notebook
)->str: # where and why it is not a notebook, or nothing
    "nbdev_clean only warns of a file that is not a notebook, so this is checked here."
    try: nb = json.loads(path.read_text(encoding='utf-8'))
    except json.JSONDecodeError as e: return f':{e.lineno}:{e.colno}: not a notebook: invalid JSON, {e.msg}'
    except UnicodeDecodeError as e: return f': not a notebook: not UTF-8 at byte {e.start}'
    return '' if isinstance(nb, dict) and isinstance(nb.get('cells'), list) else ':1: not a notebook: no list of cells'


def copy_sources(
    dest:Path # empty folder
):
    "Copy what nbdev reads: the settings, the notebooks and the package's `__init__` files, but no module."
    inits = {p for p in modules(ROOT) if p.name == '__init__.py'}
    for p in {Path('settings.ini')} | notebooks(ROOT) | inits:
        (dest/p).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT/p, dest/p)


def run_nbdev(
    command:str, # nbdev command
    folder:Path # where to run it
):
    "Run a command of the environment that runs this script, and stop with its output if it fails."
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get('PATH', '')])
    env = {k: v for k, v in os.environ.items() if k != 'IN_TEST'} | {'PATH': path}
    done = subprocess.run([command], cwd=folder, env=env, capture_output=True, text=True)
    if done.returncode: sys.exit(f'{command} failed:\n{done.stdout}{done.stderr}')


def first_difference(
    path:Path, # relative path
    other:Path # folder of the copy
)->int: # number of the first line that differs, or 0
    "Compare a file here with the file in the copy; a missing one differs from its first line."
    if not (ROOT/path).is_file() or not (other/path).is_file(): return 1
    a, b = ((root/path).read_bytes().split(b'\n') for root in (ROOT, other))
    return next((i for i, (p, q) in enumerate(zip_longest(a, b), 1) if p != q), 0)


def cell_of(
    path:Path, # module in the copy
    line:int # line number
)->str: # the notebook and the id of the cell that the line comes from
    "nbdev heads each cell that it exports with the name of its notebook and the cell's id."
    above = '\n'.join(path.read_text(encoding='utf-8').split('\n')[:line])
    heads = re.findall(r'^# %% \.\./(\S+) #(\S+)$', above, re.M)
    return '{}, cell {}'.format(*heads[-1]) if heads else 'the notebooks'


def stale(
    path:Path, # module, relative
    line:int, # first line that differs
    other:Path # folder of the copy
)->str: # one line
    "Say where a module differs from its notebook."
    if not (ROOT/path).is_file(): return f'{path}:1: missing'
    return f'{path}:{line}: differs from the export of {cell_of(other/path, line)}'


def faults(
    other:Path # folder of the copy, cleaned and exported
)->list: # one line for each file
    "Name each file that differs, with the line where it begins to."
    dirty = [f'{p}:{i}: not clean' for p in notebooks(ROOT) if (i := first_difference(p, other))]
    old = [stale(p, i, other) for p in modules(other) if (i := first_difference(p, other))]
    orphan = [f'{p}:1: no notebook exports it; delete it' for p in modules(ROOT) - modules(other)]
    return sorted(dirty + old + orphan)


MEND = 'To mend: make prepare, then commit what it changed. (What was edited in a module: nbdev_update before it.)'
MEND_JSON = 'To mend: by hand, or git checkout -- FILE; after a merge that left its marks in the file, nbdev_fix FILE.'


def check()->list: # one line for each file at fault, and how to mend them
    "Clean and export in a copy, and compare."
    broken = [f'{p}{why}' for p in sorted(notebooks(ROOT)) if (why := json_fault(ROOT/p))]
    if broken: return [*broken, MEND_JSON]
    with tempfile.TemporaryDirectory() as tmp:
        copy_sources(Path(tmp))
        for command in ('nbdev_clean', 'nbdev_export'): run_nbdev(command, Path(tmp))
        bad = faults(Path(tmp))
    return bad and [*bad, MEND]


if __name__ == '__main__':
    if bad := check(): sys.exit('\n'.join(bad))
    print(f'in sync: {len(notebooks(ROOT))} notebooks, {len(modules(ROOT))} modules')
