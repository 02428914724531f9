"""The ledger of equations: every labelled equation of the chapters, computed on both of its sides at random parameters.

A row is a function with the label of its equation. It draws its parameters from a `Trial` and yields triples: what the code
gives, the right side as the chapter writes it, and the same right side with one fault, the *mutant*. In every trial the first
two must agree, and the mutant must be noticed. `tools/equations.py` writes the page of all rows from here.
"""
from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from cfg_course.mixtures import Mixture

SEED = 2026
TRIALS = 3  # of a row, at least
CLEAR = 2  # times the tolerance: how far a mutant must be off to count as noticed

Side = Tensor | float
Triple = tuple[Side, Side, Side]


class Trial:
    "Random parameters of one trial; those with a name are written on the page."
    def __init__(self,
        label:str, # of the equation
        index:int, # of the trial, from 0
    ):
        seed = zlib.crc32(f'{SEED} {label} {index}'.encode())
        self.random = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.said: dict[str, float|int|str] = {}

    def number(self,
        name:str, # symbol
        low:float, # least
        high:float, # largest
    )->float: # uniform
        "A number."
        self.said[name] = float(f'{self.random.uniform(low, high):.4g}')
        return self.said[name]

    def whole(self,
        name:str, # symbol
        low:int, # least
        high:int, # largest
    )->int: # uniform
        "A whole number."
        self.said[name] = self.random.randint(low, high)
        return self.said[name]

    def one_of(self,
        name:str, # symbol
        values:list, # to choose from
    ):
        "One of some values."
        value = self.random.choice(values)
        self.said[name] = str(value)
        return value

    def normal(self,
        *shape:int, # of the result
    )->Tensor: # float64
        "Standard normal numbers."
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def uniform(self,
        *shape:int, # of the result
    )->Tensor: # float64, between 0 and 1
        "Uniform numbers."
        return torch.rand(*shape, generator=self.generator, dtype=torch.float64)

    def labels(self,
        n:int, # how many
        classes:int, # how many there are
    )->Tensor: # `(n,)` int64
        "Labels of samples, none of them missing."
        return torch.randint(classes, (n,), generator=self.generator)

    def world(self,
        dim:int=2, # coordinates
        modes:int=2, # of a class
    )->Mixture: # with unequal weights and variances
        "A mixture with two to four classes."
        K = self.whole('classes', 2, 4)
        weights = .2 + self.uniform(K*modes)
        labels = torch.arange(K).repeat_interleave(modes)
        return Mixture(2*self.normal(K*modes, dim), .2 + self.uniform(K*modes), weights=weights/weights.sum(), labels=labels)


class Row(NamedTuple):
    "An equation in the ledger."
    label:str # as in the chapter, `eq-...`
    cell:str # id of the chapter's cell that asserts it
    says:str # the statement, in words
    mutant:str # the fault, in words
    tolerance:float # largest error, over the largest entry of the right side where that is above 1
    below:bool # is it an inequality, code <= right side?
    samples:int|None # how many samples one side comes from; none when nothing is drawn to be averaged
    trials:int # how many
    compute:Callable[[Trial], Iterator[Triple]]


class Outcome(NamedTuple):
    "What came out of a row."
    error:float # largest of all trials
    margin:float|None # of an inequality: least distance between the sides
    mutant_error:float # least of all trials; of an inequality, the largest
    parameters:list[dict] # of each trial


ROWS: dict[str, Row] = {}


def row(
    label:str, # of the equation, without braces
    *,
    cell:str, # id of the chapter's cell that asserts it
    mutant:str, # the fault, in words
    tolerance:float=1e-10, # largest error
    below:bool=False, # is it an inequality?
    samples:int|None=None, # how many samples one side comes from
    trials:int=TRIALS, # how many
):
    "A decorator: enter a function in the ledger. Its docstring is the statement."
    def enter(compute):
        assert label not in ROWS, f'{label} has two rows'
        assert trials >= TRIALS, f'{label}: at least {TRIALS} trials'
        ROWS[label] = Row(label, cell, compute.__doc__, mutant, tolerance, below, samples, trials, compute)
        return compute
    return enter


def error_of(
    code:Side, # what is
    right:Side, # what it should be, or be at most
    below:bool, # an inequality?
)->float: # over the largest entry of the right side, where that is above 1; infinite for what is no number
    "How wrong a statement is."
    code, right = (torch.as_tensor(side, dtype=torch.float64).detach() for side in (code, right))
    assert code.shape == right.shape, f'{tuple(code.shape)} beside {tuple(right.shape)}'
    gap = (code - right).clamp(min=0) if below else (code - right).abs()
    worst = gap.max().item()/max(1., right.abs().max().item())
    return worst if worst == worst else float('inf')


def margin_of(
    code:Side, # the smaller side
    right:Side, # the larger
)->float: # least difference
    "How far an inequality is from being an equality."
    return (torch.as_tensor(right) - torch.as_tensor(code)).min().item()


@cache
def try_row(
    row:Row, # of the ledger
)->Outcome:
    "Compute an equation at all of its random parameters; once, however often one asks."
    errors, margins, wrong, parameters = [], [], [], []
    for index in range(row.trials):
        trial = Trial(row.label, index)
        triples = list(row.compute(trial))
        assert triples, f'{row.label} computes nothing'
        errors += [error_of(code, right, row.below) for code, right, _ in triples]
        margins += [margin_of(code, right) for code, right, _ in triples]
        wrong += [error_of(code, mutant, row.below) for code, _, mutant in triples]
        parameters.append(trial.said)
    noticed = max(wrong) if row.below else min(wrong)
    return Outcome(max(errors), min(margins) if row.below else None, noticed, parameters)


def load_rows()->dict[str, Row]:
    "All rows, by label: every module of this folder, in the order of names."
    for path in sorted(Path(__file__).parent.glob('[a-z]*.py')): import_module(f'{__name__}.{path.stem}')
    return ROWS
