"How the tests read notebooks, and how they name a place in one."
import json, re
from configparser import ConfigParser
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NBS_DIR = ROOT/'nbs'
NBS = sorted(NBS_DIR.glob('[0-9]*.ipynb'))
PAGES = NBS + sorted(NBS_DIR.glob('index.ipynb'))
EXPORTED = re.compile(r'^#\|\s*export[si]?\b', re.M)


def cells(p):
    "The cells of a notebook; a file that is none ends the tests with its name, line and column."
    try: return json.loads(p.read_text(encoding='utf-8'))['cells']
    except json.JSONDecodeError as e:
        where = f'nbs/{p.name}:{e.lineno}:{e.colno}'
        pytest.exit(f'{where}: invalid JSON, {e.msg}. How to mend it: python tools/check_sync.py', 1)


def src(c): return ''.join(c['source'])
def code(p): return [c for c in cells(p) if c['cell_type'] == 'code']
def each(paths): return pytest.mark.parametrize('p', paths, ids=lambda p: p.stem)


@cache
def settings(root=ROOT):
    "The values of settings.ini."
    c = ConfigParser(delimiters=['='])
    c.read(root/'settings.ini', encoding='utf-8')
    return c['DEFAULT']


def texts(c):
    "What a cell's outputs say in words and markup: pictures in base64 aside."
    for o in c.get('outputs', []):
        yield ''.join(o.get('text', ''))
        shown = {k: v for k, v in o.get('data', {}).items() if not k.startswith('image/') or 'svg' in k}
        yield from (f'{k}\n{"".join(v)}' for k, v in shown.items())


def line_of(p, cell_id, k):
    "The line of the file that holds line `k` of a cell's source, or None."
    lines = p.read_text(encoding='utf-8').splitlines()
    start = next((i for i, o in enumerate(lines) if o.strip() == f'"id": "{cell_id}",'), None)
    if start is None: return None
    source = next((i for i, o in enumerate(lines[start:], start) if o.strip().startswith('"source": [')), None)
    return source and source + 1 + k


def place(p, c, k=1):
    "Where line `k` of a cell's source is: the file and its line, the cell by number and id, the line in it."
    n = next((i for i, o in enumerate(cells(p)) if o == c), '?')
    line = line_of(p, c.get('id'), k)
    return f'{p.parent.name}/{p.name}{f":{line}" if line else ""}: cell {n} (id {c.get("id")}), line {k}'
