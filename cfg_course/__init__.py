"Classifier-free guidance, derived, built and measured."
__version__ = "0.1.0"

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .catalogue import make_guidance
    from .classifiers import load_classifier
    from .core import InputError, Run, follow
    from .data import load_data
    from .denoisers import find_model
    from .guidance import guide
    from .metrics import measure
    from .samplers import sample, trajectory
    from .sweeps import Point, draw_point
    from .training import train

_HOME = dict(
    guide='guidance', make_guidance='catalogue',
    Run='core', follow='core', InputError='core',
    sample='samplers', trajectory='samplers',
    find_model='denoisers', load_classifier='classifiers', load_data='data',
    train='training', measure='metrics', Point='sweeps', draw_point='sweeps')

__all__ = ['InputError', 'Point', 'Run', 'draw_point', 'find_model', 'follow', 'guide', 'load_classifier',
           'load_data', 'make_guidance', 'measure', 'sample', 'train', 'trajectory']


def __getattr__(
    name:str, # one of `__all__`
)->Any: # from the module that has it
    "The names at the front door; each module is imported when a name of it is first asked for."
    if name not in _HOME:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    value = getattr(import_module(f'.{_HOME[name]}', __name__), name)
    globals()[name] = value
    return value


def __dir__()->list[str]: # names
    "What is here, and what would be."
    return sorted({*globals(), *__all__})
