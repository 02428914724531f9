"""Write the parts of nbs/contributing.qmd that are CONTRIBUTING.md's; with --check, only say whether they are stale.

The page has one example of its own, from a function to a verdict. Between marks it takes the rest from CONTRIBUTING.md,
so that nothing is written twice: sections by their heading, and the code of the recipe for a rule.
"""
from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import marks
from cfg_course.core import InputError, check

ROOT = Path(__file__).resolve().parents[1]
SOURCE, PAGE = ROOT/'CONTRIBUTING.md', ROOT/'nbs'/'contributing.qmd'


def section(
    text:str, # of CONTRIBUTING.md
    title:str, # of a heading of the second level
)->str: # with its heading, links as they are on the site
    "A section, for the site."
    found = re.search(rf'^## {re.escape(title)}\n.*?(?=^## |\Z)', text, re.M | re.S)
    check(found, SOURCE.name, f'no heading "## {title}"', 'one')
    return found[0].strip().replace('](nbs/', '](')


def rule_code(
    text:str, # of CONTRIBUTING.md
)->str: # a block of Python
    "The code of the recipe for a rule."
    found = re.search(r'^### A rule\n.*?(^```python\n.*?^```)', text, re.M | re.S)
    check(found, SOURCE.name, 'no code below "### A rule"', 'a block of Python')
    return found[1]


BLOCKS = dict(
    rule=rule_code,
    loop=lambda text: section(text, 'The loop'),
    recipes=lambda text: section(text, 'Four recipes'))


def filled(
    page:str, # as it is
    text:str, # of CONTRIBUTING.md
)->str: # of the page, as it should be
    "Write what stands between the marks."
    return marks.filled(page, {name: make(text) for name, make in BLOCKS.items()}, PAGE.name)


def main(
    words:list[str]|None=None, # of the command line
)->None:
    "Parse the command line and write, or compare."
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--check', action='store_true', help='write nothing; fail when the page is stale')
    args = p.parse_args(words)
    try:
        new = filled(PAGE.read_text(encoding='utf-8'), SOURCE.read_text(encoding='utf-8'))
    except InputError as e:
        sys.exit(f'contributing.py: {e}')
    marks.renew(PAGE, new, args.check, 'python tools/contributing.py')


if __name__ == '__main__': main()
