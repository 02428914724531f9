"""Check that the notebooks are clean and that the package is what they export.

nbdev works on a copy in a temporary folder, so the check changes nothing here, whatever it finds.
"""
import json, os, shutil, subprocess, sys, tempfile
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


def is_valid(
    path:Path # notebook
)->bool: # whether it parses and has cells
    "nbdev_clean only warns of a file that is not a notebook, so this is checked here."
    try: return isinstance(json.loads(path.read_text(encoding='utf-8'))['cells'], list)
    except (ValueError, KeyError, TypeError): return False


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


def same(
    path:Path, # relative path
    other:Path # folder of the copy
)->bool: # whether both exist and are equal
    "Compare a file here with the file in the copy."
    a, b = ROOT/path, other/path
    return a.is_file() and b.is_file() and a.read_bytes() == b.read_bytes()


def faults(
    other:Path # folder of the copy, cleaned and exported
)->list: # one line for each file
    "Name each file that differs, and say how."
    dirty = [f'{p}: not clean' for p in notebooks(ROOT) if not same(p, other)]
    stale = [f'{p}: differs from what the notebooks export' for p in modules(other) if not same(p, other)]
    orphan = [f'{p}: no notebook exports it; delete it' for p in modules(ROOT) - modules(other)]
    return sorted(dirty + stale + orphan)


def check()->list: # one line for each file at fault
    "Clean and export in a copy, and compare."
    bad = [f'{p}: not a notebook (invalid JSON)' for p in sorted(notebooks(ROOT)) if not is_valid(ROOT/p)]
    if bad: return bad
    with tempfile.TemporaryDirectory() as tmp:
        copy_sources(Path(tmp))
        for command in ('nbdev_clean', 'nbdev_export'): run_nbdev(command, Path(tmp))
        return faults(Path(tmp))


if __name__ == '__main__':
    if bad := check(): sys.exit('\n'.join([*bad, 'To mend: make prepare, then commit what it changed.']))
    print(f'in sync: {len(notebooks(ROOT))} notebooks, {len(modules(ROOT))} modules')
