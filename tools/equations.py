"""Write nbs/ledger.qmd and nbs/results/ledger.csv: every labelled equation with how it was tried; with --check, say whether they are stale.

The rows are functions in tests/ledger. Errors are measured anew when the page is written; --check compares everything else.
"""
import argparse, csv, re, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT/'tests'))
from ledger import SEED, Outcome, Row, load_rows, try_row  # noqa: E402
from notebooks import NBS, cells, src  # noqa: E402

from cfg_course.core import writing  # noqa: E402

PAGE, TABLE = ROOT/'nbs'/'ledger.qmd', ROOT/'nbs'/'results'/'ledger.csv'
MEASURED = ['error', 'margin', 'mutant_error']
HEAD = """---
title: Ledger of equations
description: Every labelled equation of the course, the parameters at which it was computed, its error, and a mutant that is noticed.
toc-depth: 2
repo-actions: false
---

<!-- Written by tools/equations.py. To change a row, change its function in tests/ledger. -->

A formula in a text can be wrong in many ways: a lost factor, a sign, an exponent, a condition that nobody wrote down. So each of
the {count} labelled equations of this course is computed here on both of its sides, by the library's code or by brute force on the
one hand and by the formula on the other. Parameters are random, at least three sets of them for each equation, drawn from the
seed {seed}: an equation that holds only for the scale 2, or for two classes of equal width, does not pass.

How to read a row. *Error* is the largest difference between the two sides, divided by the largest entry of the right side where
that is above one; it has to stay below the *tolerance*. An inequality has a *margin* too, the least distance between its sides.
The *mutant* is the same formula with one fault. Its error shows that the check would have noticed: it is at least twice the
tolerance, in every trial for an equation and in one of them for an inequality.

For example, the row of [`eq-cfg`](04_guidance.ipynb#eq-cfg) draws a weight $w$, computes the guided prediction once by the
library and once by Ho and Salimans' formula, and then by the same formula with the wrong sign.
"""


def where()->dict:
    "Label -> the notebook and the heading of its chapter, in the order of the course."
    found = {}
    for p in NBS:
        title = re.search(r'^# (.+)', src(cells(p)[0]), re.M)[1]
        words = [src(c) for c in cells(p) if c['cell_type'] == 'markdown']
        found |= {label: (p.name, title) for text in words for label in re.findall(r'\{#(eq-[\w-]+)\}', text)}
    return found


def shown(
    value, # of a parameter
)->str:
    "A parameter as the page writes it."
    return f'{value:.3g}' if isinstance(value, float) else str(value)


def tried(
    parameters:list, # a dict for each trial
)->str: # name: values
    "At which parameters an equation was tried."
    names = [n for n in parameters[0] if all(n in p for p in parameters)]
    texts = [f'{n} = {", ".join(shown(p[n]) for p in parameters)}' for n in names]
    return '; '.join(texts) or f'{len(parameters)} random inputs'


def entry(
    row:Row, # of the ledger
    found:Outcome, # what came out
    notebook:str, # of its equation
)->dict: # a row of the table
    "One equation."
    return dict(label=row.label, chapter=notebook.removesuffix('.ipynb'), cell=row.cell, statement=row.says, tried=tried(found.parameters),
        trials=row.trials, samples=row.samples or '', tolerance=f'{row.tolerance:.1e}', error=f'{found.error:.1e}',
        margin='' if found.margin is None else f'{found.margin:.1e}', mutant=row.mutant, mutant_error=f'{found.mutant_error:.1e}')


def measure()->list: # of dicts
    "All rows, computed, in the order of the course."
    rows, places = load_rows(), where()
    return [entry(rows[label], try_row(rows[label]), notebook) for label, (notebook, _) in places.items() if label in rows]


def plain(
    text:str, # words and formulas
)->str: # Markdown that shows the same characters
    "Text without marks."
    return re.sub(r'([\\`*_^~$|<>\[\]{}#])', r'\\\1', text)


def block(
    e:dict, # a row of the table
)->str: # Markdown
    "One equation on the page."
    margin = f', margin {e["margin"]}' if e['margin'] else ''
    samples = f', {int(e["samples"]):,} samples' if e['samples'] else ''
    return f"""[`{e['label']}`]({e['chapter']}.ipynb#{e['label']}) {plain(e['statement'])}
: Tried at {plain(e['tried'])} ([cell]({e['chapter']}.ipynb#{e['cell']})). Error {e['error']}, tolerance {e['tolerance']}{margin}{samples}.
  Mutant: {plain(e['mutant'])}; error {e['mutant_error']}.
"""


def page(
    entries:list, # of dicts
)->str: # of the .qmd
    "The page."
    titles = dict(where().values())
    parts = [HEAD.format(count=len(entries), seed=SEED)]
    for notebook, title in titles.items():
        of_chapter = [block(e) for e in entries if f'{e["chapter"]}.ipynb' == notebook]
        if of_chapter: parts.append(f'## [{title}]({notebook})\n\n' + '\n'.join(of_chapter))
    return '\n'.join(parts)


def stored()->list: # of dicts
    "The rows of the stored table."
    if not TABLE.exists(): return []
    with open(TABLE, newline='', encoding='utf-8') as f: return list(csv.DictReader(f))


def lasting(
    entries:list, # of dicts
)->list:
    "Rows without what differs from machine to machine in the last digits."
    return [{k: str(v) for k, v in e.items() if k not in MEASURED} for e in entries]


def stale()->bool:
    "Are the page or the table older than the ledger?"
    old = stored()
    return lasting(old) != lasting(measure()) or not PAGE.exists() or PAGE.read_text(encoding='utf-8') != page(old)


def write(
    entries:list, # of dicts
)->None:
    "Write the table and the page, each whole or not at all."
    with writing(TABLE) as tmp, open(tmp, 'w', newline='', encoding='utf-8') as f:
        table = csv.DictWriter(f, list(entries[0]))
        table.writeheader()
        table.writerows(entries)
    with writing(PAGE) as tmp: tmp.write_text(page(entries), encoding='utf-8')


def main():
    "Parse the command line and run."
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--check', action='store_true', help='write nothing; exit 1 where the page is stale')
    args = p.parse_args()
    if args.check: sys.exit('nbs/ledger.qmd is stale: python tools/equations.py' if stale() else 0)
    entries = measure()
    write(entries)
    print(f'{len(entries)} equations: {PAGE.relative_to(ROOT)}')


if __name__ == '__main__': main()
