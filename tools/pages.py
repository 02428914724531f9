"""Stage the pages of the site in _proc, as nbdev does: `python tools/pages.py --n_workers 2`. Quarto then renders them.

A module imports what is heavy for type checkers only (`if TYPE_CHECKING: import pandas as pd`), and nbdev, which
evaluates annotations in order to print them, would stop at the first `pd.DataFrame`. Here such annotations are printed
as they are written.
"""
import inspect
from collections.abc import Callable

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


if __name__ == '__main__':
    from nbdev.quarto import nbdev_proc_nbs
    nbdev_proc_nbs()
