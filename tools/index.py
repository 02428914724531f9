"""Write cfg_course/index.json, what the registers hold; with --check, only say whether it is stale.

The commands build their help from it, without importing PyTorch.
"""
import inspect, json, sys
from pathlib import Path

from cfg_course.catalogue import FAMILIES, SHELVES, takes_scale, technique_options
from cfg_course.cli import digest
from cfg_course.core import Option
from cfg_course.data import DATASETS
from cfg_course.denoisers import BEST, PRECONDS, shipped_models
from cfg_course.guidance import Method
from cfg_course.metrics import METRICS
from cfg_course.networks import CONFIGS
from cfg_course.pictures import shipped_worlds
from cfg_course.samplers import SAMPLERS, Sampler
from cfg_course.schedules import GRIDS
from cfg_course.training import OBJECTIVES, RECIPES

FILE = Path(__file__).resolve().parents[1]/'cfg_course'/'index.json'


def options(
    defaults:dict, # option -> its default
    takes:dict[str, Option], # option -> what it takes
)->dict: # option -> default and what is allowed, in words
    "The options of a technique or of a sampler."
    return {k: dict(default=str(default), allowed=takes[k].allowed) for k, default in defaults.items()}


def describe_technique(
    kind:str, # of technique
    name:str, # of the technique
    method:Method, # its entry
)->dict: # what the commands say of it
    "A technique, in words."
    return dict(
        title=method.title,
        formula=method.formula,
        paper=method.paper,
        year=method.year,
        after=list(method.after),
        strength=method.strength,
        cost=method.cost,
        needs=method.needs,
        space=method.make().space if kind == 'rule' else '',
        scale=takes_scale({kind: name}),
        options=options(technique_options(kind, name), method.options))


def describe_sampler(
    sampler:Sampler, # an entry
)->dict: # what the commands say of it
    "A sampler, in words."
    arguments = inspect.signature(sampler.step).parameters
    return dict(
        grid=sampler.grid,
        steps=sampler.steps,
        evaluations=sampler.looks,
        options=options({k: arguments[k].default for k in sampler.options}, sampler.options))


def describe_shelf(
    kind:str, # of technique
)->dict: # name -> description
    "All techniques of a kind."
    return {name: describe_technique(kind, name, method) for name, method in SHELVES[kind].items()}


def make_index()->dict: # what JSON can hold
    "Everything that the commands offer."
    known = dict(
        families=FAMILIES,
        guidance={kind: describe_shelf(kind) for kind in SHELVES},
        samplers={name: describe_sampler(sampler) for name, sampler in SAMPLERS.items()},
        grids=list(GRIDS),
        datasets=list(DATASETS),
        recipes=list(RECIPES),
        networks=list(CONFIGS),
        metrics=list(METRICS),
        objectives=list(OBJECTIVES),
        preconditionings=list(PRECONDS),
        models=[*BEST, *shipped_models(), *shipped_worlds()])
    return dict(known, digest=digest(known))


def main():
    "Write the file, or compare it."
    text = json.dumps(make_index(), indent=1, ensure_ascii=False) + '\n'
    stale = not FILE.is_file() or FILE.read_text(encoding='utf-8') != text
    if '--check' in sys.argv: sys.exit('cfg_course/index.json is stale. To mend: make prepare' if stale else 0)
    FILE.write_text(text, encoding='utf-8')


if __name__ == '__main__': main()
