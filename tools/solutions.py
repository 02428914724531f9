"""Run the code that solutions of exercises show, and keep what it prints in nbs/results/solutions.csv.

Nothing else runs that code, so this is where the numbers of a solution come from: tools/prose.py compares the two.
Of the chapter only those cells run that define what a block needs; --all runs every cell that is not slow.
A block that takes longer than --minutes is left out.
"""
import argparse, ast, csv, json, re, signal, sys
from pathlib import Path

from execnb.shell import CaptureShell
from fastcore.xtras import working_directory

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT/'nbs'/'results'/'solutions.csv'
COLUMNS = 'chapter', 'block', 'code', 'printed'
BLOCK = re.compile(r'^```python\n(.*?)^```', re.M | re.S)
SLOW = re.compile(r'^#\|\s*(slow|notest|eval:\s*false)|nbdev_export\(', re.M)
TAGS = re.compile(r'<style.*?</style>|<[^>]*>', re.S)


def blocks(
    cells:list, # of a notebook
)->list: # code as text
    "The Python that the prose of a chapter shows."
    return [b for c in cells if c['cell_type'] == 'markdown' for b in BLOCK.findall(''.join(c['source']))]


def said(
    outputs:list, # of one run
)->str: # without pictures
    "What a block prints or displays, as text."
    printed = [''.join(o.get('text', '')) for o in outputs if o.get('name') != 'stderr']
    shown = [''.join(o.get('data', {}).get('text/plain', '')) for o in outputs]
    return TAGS.sub(' ', '\n'.join(t for t in printed + shown if t)).strip()


def stored(
    node:ast.AST, # a statement or a tree
)->set: # of names
    "What code assigns, imports, defines or takes as an argument."
    found = set()
    for n in ast.walk(node):
        if isinstance(n, (ast.FunctionDef, ast.ClassDef)): found.add(n.name)
        elif isinstance(n, ast.alias): found.add((n.asname or n.name).split('.')[0])
        elif isinstance(n, ast.arg): found.add(n.arg)
        elif isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store): found.add(n.id)
    return found


def names(
    code:str, # of a cell or a block
)->tuple: # two sets: names that others can use, names that it needs of others
    "What code gives and what it takes."
    tree = ast.parse(re.sub(r'(?m)^([ \t]*)[%!].*$', r'\1pass', code))
    functions = ast.FunctionDef, ast.ClassDef
    gives = set().union(*({n.name} if isinstance(n, functions) else stored(n) for n in tree.body))
    loaded = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    return gives, loaded - stored(tree)


def needed(
    cells:list, # code of a chapter
    code:str, # of a block
)->list: # some of the cells, in their order
    "The cells that define, at first or second hand, what a block reads."
    wanted, chosen, before = names(code)[1], set(), None
    while chosen != before:
        before = set(chosen)
        for i, cell in enumerate(cells):
            gives, takes = names(cell)
            if gives & wanted: chosen.add(i); wanted |= takes
    return [cells[i] for i in sorted(chosen)]


def run_block(
    cells:list, # code that goes before
    code:str, # of one block
    seconds:int, # at most
)->str: # what it said
    "One block in a shell of its own. Cells above may miss what was left out; an error of the block counts."
    shell = CaptureShell()
    signal.alarm(seconds)
    for cell in [*cells, code]:
        outputs = shell.run(cell)
        if isinstance(shell.exc, TimeoutError): break
    signal.alarm(0)
    if shell.exc: raise RuntimeError(f'{shell.exc!r} in {code[:80]!r}')
    return said(outputs)


def run_chapter(
    path:Path, # of a notebook
    seconds:int, # for a block, at most
    everything:bool, # run all cells
    chosen:list|None, # numbers of blocks, counted from 0
)->list: # rows of the table
    "What the blocks of a chapter print, each after the blocks above it as far as it needs them."
    book = json.loads(path.read_text(encoding='utf-8'))['cells']
    code = [''.join(c['source']) for c in book if c['cell_type'] == 'code']
    cells, rows = [c for c in code if not SLOW.search(c)], []
    for i, block in enumerate(blocks(book)):
        cells.append(block)
        if chosen and i not in chosen: continue
        try: printed = run_block(cells[:-1] if everything else needed(cells[:-1], block), block, seconds)
        except (RuntimeError, SyntaxError) as e: print(f'{path.stem}: block {i}: {e}', file=sys.stderr, flush=True)
        else: rows += [dict(chapter=path.stem, block=i, code=block, printed=printed)] if printed else []
    return rows


def read_table()->list: # of dicts
    "The rows there are."
    if not TABLE.exists(): return []
    with TABLE.open(newline='', encoding='utf-8') as f: return list(csv.DictReader(f))


def stop(*unused):
    "What the clock does to a block."
    raise TimeoutError('it takes too long')


def main():
    "Run the chapters that are named, and put their rows in the place of the old ones."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('chapters', nargs='+', help='notebooks, e.g. nbs/16_classifiers.ipynb')
    parser.add_argument('--all', action='store_true', help='run every cell of the chapter first')
    parser.add_argument('--minutes', type=float, default=5, help='for a block, at most')
    parser.add_argument('--blocks', type=int, nargs='+', metavar='N', help='only these, counted from 0')
    args = parser.parse_args()
    signal.signal(signal.SIGALRM, stop)
    for path in [Path(c).resolve() for c in args.chapters]:
        with working_directory(path.parent): rows = run_chapter(path, round(60*args.minutes), args.all, args.blocks)
        anew = {(r['chapter'], str(r['block'])) for r in rows}
        same = [r for r in read_table() if r['chapter'] == path.stem]
        kept = [r for r in read_table() if r not in same]
        if args.blocks: kept += [r for r in same if (path.stem, r['block']) not in anew]
        rows = sorted(kept + rows, key=lambda r: (r['chapter'], int(r['block'])))
        with TABLE.open('w', newline='', encoding='utf-8') as f:
            table = csv.DictWriter(f, COLUMNS, lineterminator='\n')
            table.writeheader()
            table.writerows(rows)
        print(path.stem, 'done', flush=True)


if __name__ == '__main__': main()
