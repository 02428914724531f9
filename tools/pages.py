"""Stage the pages of the site in _proc, as nbdev does: `python tools/pages.py --n_workers 2`. Quarto then renders them.

A module imports what is heavy for type checkers only (`if TYPE_CHECKING: import pandas as pd`), and nbdev, which
evaluates annotations in order to print them, would stop at the first `pd.DataFrame`. Here such annotations are printed
as they are written.

What links to the repository (the icon, edit, source, report an issue) is there once `published` of settings.ini says so.
"""
import inspect
from collections.abc import Callable
from pathlib import Path

from fastcore import docments


def signature(
    obj:Callable, # a function or a class
    eval_str:bool=False # evaluate annotations that are strings
)->inspect.Signature: # with annotations as text, where they name what only type checkers import
    "The signature of an object, whatever its annotations name."
    try:
        return inspect.signature(obj, eval_str=eval_str)
    except NameError:
        return inspect.signature(obj)


docments.signature = signature # at the top, so that processes which nbdev starts have it too


def with_address(
    yml:str, # what nbdev writes about the site
    published:bool # whether the repository's address exists
)->str: # the same, with links to the repository or without
    "What Quarto is told of the repository."
    url = next(line for line in yml.splitlines(True) if line.strip().startswith('repo-url:'))
    if not published: return yml.replace(url, '')
    icon = f'{{icon: github, href: {url.partition(":")[2].strip()}, text: Source on GitHub}}'
    return yml + f'  repo-subdir: nbs\n  repo-actions: [edit, source, issue]\n  navbar:\n    tools: [{icon}]\n'


if __name__ == '__main__':
    from nbdev.config import get_config
    from nbdev.quarto import nbdev_proc_nbs
    nbdev_proc_nbs()
    yml = Path(get_config().config_path)/'_proc'/'nbdev.yml'
    yml.write_text(with_address(yml.read_text(encoding='utf-8'), get_config().d.getboolean('published')), encoding='utf-8')
