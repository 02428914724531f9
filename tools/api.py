"Write nbs/api.qmd, the list of all public names, from the modules; with --check, only say whether it is stale."
import ast, re, sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
LIB, PAGE = ROOT/'cfg_course', ROOT/'nbs'/'api.qmd'
CELL = re.compile(r'^# %% \S+ #(\w+)', re.M)
HEAD = """---
title: API
description: Every public name of the package, by chapter, each with a link to where it is defined.
toc-depth: 2
repo-actions: false
---

<!-- Written by tools/api.py. To change a line, change the docstring in the notebook. -->

{count} names in {modules} modules. A module imports only from modules above it. `from cfg_course.guidance import guide`
is how to get one; those that most people need are at the front door too: `from cfg_course import guide, sample, find_model`.
"""


class Name(NamedTuple):
    "A public name."
    name:str # as in `__all__`
    text:str # what it is, one line
    cell:str # id of the cell that defines it, which is also its place on the page


def notebook(
    source:str # text of a module
)->str: # name of the notebook that exports it, or ''
    "The chapter of a module, as nbdev wrote it into its head."
    found = re.search(r'File to edit: \.\./nbs/(\S+\.ipynb)', source)
    return found[1] if found else ''


def cell_at(
    source:str, # text of a module
    line:int # line number, from 1
)->str: # id of the cell
    "The cell that a line comes from: the last one whose mark is above it."
    return CELL.findall('\n'.join(source.splitlines()[:line]))[-1]


def members(
    value:ast.expr # the value of a constant
)->list: # names in it, empty if it isn't a table or a list of strings
    "The keys of a table, or the strings of a list."
    keys = value.keys if isinstance(value, ast.Dict) else getattr(value, 'elts', [])
    strings = [k.value for k in keys if isinstance(k, ast.Constant) and isinstance(k.value, str)]
    return strings or [k.arg for k in getattr(value, 'keywords', []) if k.arg]


def value_text(
    value:ast.expr # the value of a constant
)->str: # what it is
    "Its first line if it is a text, else its members, else its source if that is short."
    if isinstance(value, ast.Constant) and isinstance(value.value, str): return value.value.split('\n')[0]
    names = [f'`{m}`' for m in members(value)]
    if names: return ', '.join(names[:8]) + (f' and {len(names) - 8} more.' if len(names) > 8 else '.')
    code = ast.unparse(value)
    return f'`{code}`' if len(code) < 80 else 'A table.'


def constant_text(
    node:ast.Assign, # the assignment
    source:str # text of the module
)->str: # what the constant is
    "The comment on its first line, else what its value says."
    line = source.splitlines()[node.lineno - 1]
    text = line.split('  # ', 1)[1] if '  # ' in line else value_text(node.value)
    return text[0].upper() + text[1:]


def names_in(
    node:ast.stmt # a statement of the module
)->str: # name that it defines, or ''
    "What a top-level statement defines, if it defines one name."
    target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, 'target', node)
    return getattr(target, 'name', getattr(target, 'id', ''))


def describe(
    node:ast.stmt, # definition of a name
    source:str # text of the module
)->Name: # the name, its line and its place
    "A constant by its value; a function or class by the first line of its docstring."
    constant = isinstance(node, (ast.Assign, ast.AnnAssign))
    text = constant_text(node, source) if constant else (ast.get_docstring(node) or '').split('\n')[0]
    return Name(names_in(node), text, cell_at(source, node.lineno))


def public(
    source:str # text of a module
)->list: # its public names, in the order of their definition
    "The names of `__all__`."
    named = {names_in(n): n for n in ast.parse(source).body}
    listed = ast.literal_eval(named['__all__'].value) if '__all__' in named else []
    return [describe(n, source) for name, n in named.items() if name in listed]


def title(
    nb:str # name of a notebook
)->str: # the title of the chapter
    "The first heading."
    return re.search(r'"# (.+?)(\\n)?"', (ROOT/'nbs'/nb).read_text(encoding='utf-8'))[1]


def in_markdown(
    text:str # one line
)->str: # the same
    "With the asterisk of a name, as in CFG-Zero*, escaped: it would begin or end emphasis."
    return re.sub(r'(?<=\w)\*(?!\*|\w)(?=[^`]*(?:`[^`]*`[^`]*)*$)', r'\\*', text)


def section(
    source:str # text of a module
)->str: # markdown
    "One chapter: its title, its module, and a line for each name."
    nb = notebook(source)
    lines = [f'- [`{n.name}`]({nb}#{n.cell}) {in_markdown(n.text)}' for n in public(source)]
    head = f'## [{title(nb)}]({nb}) `{nb[3:-6]}` {{#{nb[3:-6]}}}'
    return '\n'.join([head, '', '::: {.api}', *lines, ':::', ''])


def page()->str: # text of nbs/api.qmd
    "All chapters, in the order of their numbers."
    sources = [p.read_text(encoding='utf-8') for p in LIB.glob('*.py') if not p.name.startswith('_')]
    sources = sorted((s for s in sources if notebook(s)), key=notebook)
    head = HEAD.format(count=sum(len(public(s)) for s in sources), modules=len(sources))
    return '\n'.join([head, *map(section, sources)])


def main():
    "Write the file, or compare it."
    text = page()
    stale = not PAGE.is_file() or PAGE.read_text(encoding='utf-8') != text
    if '--check' in sys.argv: sys.exit('nbs/api.qmd is stale. To mend: make prepare' if stale else 0)
    PAGE.write_text(text, encoding='utf-8')


if __name__ == '__main__': main()
