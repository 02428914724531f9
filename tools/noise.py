"""Make the files of the figure *draw your own noise* (nbs/play.qmd) anew, from the shipped network.

    python tools/noise.py                 all of them; needs the packages onnx and onnxscript, and `npm install`
    python tools/noise.py values still    these only; they need neither

`network` writes nbs/play/mnist-a.onnx: the network as the file of its weights has it, in half precision, and each tensor
is made float32 again when it is loaded. `runtime` reads node_modules and writes nbs/play/runtime.json, the one place
that says from which address a browser loads onnxruntime-web, and what each file has to be. `values` is what Python
draws, for tests/test_noise.py; `still` is the picture of a page whose figure cannot move. What they were made with is in
nbs/play/noise.json.
"""
from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cfg_course.core import NULL, to_uint8
from cfg_course.denoisers import Denoiser, find_network
from cfg_course.guidance import guide
from cfg_course.procedures import cfgpp
from cfg_course.rules import apg, rescale
from cfg_course.samplers import Step, make_sampler, trajectory
from parts import make_parts
from play import HIGH, INSIDE, LOW, OUT, SIDE, noise, rounded

ROOT = OUT.parents[1]
SOURCE = 'mnist-a'
ADDRESS = 'https://cdn.jsdelivr.net/npm/onnxruntime-web@{version}/dist/' # of the runtime; the only place that names it
SCRIPT, WASM = 'ort.wasm.bundle.min.mjs', 'ort-wasm-simd-threaded.wasm' # the smallest that compute on a processor
FEW = 16 # numbers of a tensor that is too short to store in half precision
STEPS = 12
RULES: dict[str, dict[str, Any]] = dict( # name on the page -> what `guide` is given
    plain={},
    interval=dict(interval=INSIDE),
    apg=dict(rule=apg()),
    rescale=dict(rule=rescale(phi=.7)))
PLUS = 'cfgpp' # the rule that is a way of walking; its strength is from 0 to 1
STROKE = dict(value=2.5, rows=(4, 24), columns=(13, 16)) # what is painted on noise number 3 of `TRIED`
TRIED = [ # digit, noise (None: nothing, then the stroke), painted?, strength, rule, steps: what the tests compare
    (3, 1, False, 1., 'plain', 12), (3, 1, False, 4., 'plain', 12), (8, 2, False, 8., 'plain', 12),
    (0, 5, False, 0., 'plain', 12), (1, 3, True, 2.5, 'plain', 8), (7, None, True, 3., 'plain', 12),
    (4, 4, False, 8., 'interval', 12), (7, 6, False, 3., 'apg', 12), (5, 7, False, 8., 'apg', 18),
    (9, 8, False, 3., 'rescale', 12), (2, 9, False, 8., 'rescale', 24), (6, 1, False, .6, PLUS, 12), (8, 3, True, 1., PLUS, 18)]
LOOK_AT = 4 # step of which both guesses are stored
MOMENTS = [1, 3, 4, 6, 7, 8] # steps of the picture that cannot move; theme/noise.js chooses the same of 12
MORE, LESS = (255, 158, 41), (77, 158, 255) # ink that is added, and taken away


# The network

def reader()->ModuleType: # onnx
    "The package that reads and writes the network's file."
    try:
        import onnx
        import onnxscript # noqa: F401, which PyTorch needs to write one
    except ImportError as e:
        raise SystemExit(f'{e.name}: not installed; only this part needs it: pip install onnx onnxscript') from None
    return onnx


def halved(
    model:Any, # an ONNX model; changed in place
)->int: # tensors that stay in float32
    "Store what half precision holds without loss in half precision; a cast makes it float32 again."
    onnx = reader()
    graph, kept, casts = model.graph, 0, []
    for tensor in graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size <= FEW:
            continue
        half = values.astype(np.float16)
        if (half.astype(np.float32) != values).any():
            kept += 1
            continue
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(half, name + '_half'))
        casts.append(onnx.helper.make_node('Cast', [name + '_half'], [name], to=onnx.TensorProto.FLOAT))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend(casts + nodes)
    del graph.value_info[:]
    return kept


def plain_text(
    model:Any, # an ONNX model; changed in place
)->None:
    "Take out what only tells where the model came from, so that the file is small and the same everywhere."
    for node in model.graph.node:
        node.doc_string = ''
        del node.metadata_props[:]
    for of in (model.graph, model):
        of.doc_string = ''
        del of.metadata_props[:]


def network()->dict: # what it was made with
    "The network for a browser: two pictures with their noise levels and labels, and its raw answer."
    onnx, denoise = reader(), find_network(SOURCE)[0]
    blank = torch.zeros(2, 1, SIDE, SIDE), torch.zeros(2), torch.tensor([NULL, 3])
    path = OUT/f'{SOURCE}.onnx'
    names = dict(input_names=['z', 'c_noise', 'y'], output_names=['F'])
    torch.onnx.export(denoise.net, blank, path, dynamo=True, external_data=False, opset_version=18, verbose=False, **names)
    model = onnx.load(path)
    kept = halved(model)
    plain_text(model)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return dict(source=SOURCE, sigma_data=denoise.sigma_data, bytes=path.stat().st_size, in_float32=kept)


# The runtime

def wanted()->str: # such as 1.30.0
    "The version of onnxruntime-web that package.json names."
    return json.loads((ROOT/'package.json').read_text())['devDependencies']['onnxruntime-web']


def facts_of_file(
    path:Path, # any file
)->dict[str, Any]: # bytes, compressed bytes, and what it has to be
    "What a browser is told of a file before it asks for it."
    data = path.read_bytes()
    mark = base64.b64encode(hashlib.sha384(data).digest()).decode()
    return dict(bytes=len(data), gzip=len(gzip.compress(data, 6)), integrity=f'sha384-{mark}')


def runtime()->dict: # what it was made with
    "Where a browser finds the runtime, and what each file has to be."
    folder, version = ROOT/'node_modules'/'onnxruntime-web', wanted()
    there = json.loads((folder/'package.json').read_text())['version']
    if there != version:
        raise SystemExit(f'node_modules has onnxruntime-web {there}, package.json says {version}: npm install')
    files = dict(script=folder/'dist'/SCRIPT, wasm=folder/'dist'/WASM, network=OUT/f'{SOURCE}.onnx')
    said = {name: dict(name=path.name, **facts_of_file(path)) for name, path in files.items()}
    (OUT/'runtime.json').write_text(json.dumps(dict(address=ADDRESS.format(version=version), **said), indent=1) + '\n')
    return dict(version=version, gzip=sum(o['gzip'] for o in said.values()), bytes=sum(o['bytes'] for o in said.values()))


# A digit of the page

def painted(
    number:int|None, # of the noise; none for no noise
    stroke:bool, # with what `STROKE` says on it?
)->Tensor: # `(1, 1, 28, 28)`, noise of unit size
    "What stands on the canvas."
    canvas = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.float64) if number is None else noise(number)
    if stroke:
        (top, bottom), (left, right) = STROKE['rows'], STROKE['columns']
        canvas[..., top:bottom, left:right] = STROKE['value']
    return canvas


def guesses(
    denoise:Denoiser, # the network
    x:Tensor, # `(1, 1, 28, 28)`
    sigma:float, # > 0
    label:int, # that is asked for
)->Tensor: # `(2, 1, 28, 28)`: without the label, with it
    "Both answers at once, as a browser asks for them."
    return denoise(x.expand(2, -1, -1, -1), sigma, torch.tensor([NULL, label]))


def walk(
    denoise:Denoiser, # the network
    label:int, # that is asked for
    canvas:Tensor, # `(1, 1, 28, 28)`, noise of unit size
    strength:float, # scale of guidance, or lambda of CFG++
    rule:str, # one of `RULES`, or CFG++
    steps:int=STEPS, # of the sampler
)->tuple[list[Tensor], list[Step], list[float]]: # where each step begins, and the end; the steps; their noise levels
    "The way of one digit from noise."
    step, sigmas = make_sampler('dpmpp', steps, 'karras', LOW, HIGH)
    y, start = torch.tensor([label]), HIGH*canvas
    if rule == PLUS:
        found = list(cfgpp(lam=strength, form='dpmpp')(denoise, start, sigmas, y))
    else:
        found = list(trajectory(guide(denoise, scale=strength, **RULES[rule]), start, sigmas, y, step))
    return [start, *(s.x for s in found)], found, sigmas.tolist()


class Drawn(NamedTuple):
    "A digit of the page."
    label:int # that was asked for
    noise:int|None # number
    painted:bool # with a stroke?
    strength:float # of guidance
    rule:str # one of `RULES`, or CFG++
    steps:int # of the sampler
    pixels:list[float] # every fifth of the digit
    none:list[float] # every fifth pixel of D_u at step `LOOK_AT`
    own:list[float] # of D_c
    noisy:list[float] # of the noisy picture there


@torch.no_grad()
def facts_of(
    denoise:Denoiser, # the network
    label:int,
    number:int|None,
    stroke:bool,
    strength:float,
    rule:str,
    steps:int,
)->Drawn: # what the page should show
    "One digit with its numbers."
    xs, _, sigmas = walk(denoise, label, painted(number, stroke), strength, rule, steps)
    none, own = guesses(denoise, xs[LOOK_AT], sigmas[LOOK_AT], label)
    few = lambda t: t.flatten()[::5].tolist()
    return Drawn(label, number, stroke, strength, rule, steps, few(xs[-1]), few(none), few(own), few(xs[LOOK_AT]))


def values()->dict: # for the tests
    "What Python draws."
    denoise, _ = find_network(SOURCE)
    return dict(tried=[rounded(facts_of(denoise, *one)._asdict()) for one in TRIED])


# The picture of a page that cannot move

def in_grey(
    picture:Tensor, # `(..., 28, 28)` in [-1, 1]
)->np.ndarray: # `(28, 28, 3)` bytes
    "A picture in grey levels."
    grey = to_uint8(picture.reshape(SIDE, SIDE))
    return np.repeat(grey.numpy()[..., None], 3, 2)


def in_ink(
    change:Tensor, # `(..., 28, 28)`; 2 is from black to white
)->np.ndarray: # `(28, 28, 3)` bytes
    "A difference, as bright as it is large."
    flat = change.reshape(SIDE, SIDE, 1)
    colours = torch.where(flat > 0, torch.tensor(MORE), torch.tensor(LESS))
    return ((flat.abs()/2).clamp(max=1)*colours).round().numpy().astype('u1')


def column(
    denoise:Denoiser, # the network
    x:Tensor, # `(1, 1, 28, 28)`
    sigma:float, # its noise level
    label:int, # that is asked for
    scale:float, # of guidance
)->Iterator[np.ndarray]: # five pictures
    "One moment of the way: the noisy picture, both guesses, their difference times the scale, the guided guess."
    none, own = guesses(denoise, x, sigma, label)
    yield in_grey(x/(1 + sigma**2)**.5)
    yield in_grey(none)
    yield in_grey(own)
    yield in_ink(scale*(own - none))
    yield in_grey(none + scale*(own - none))


@torch.no_grad()
def still(
    label:int=3, # that is asked for
    number:int=1, # of the noise
    scale:float=3., # of guidance
)->dict: # what it was made with
    "One digit's way from noise, a column for each of six moments."
    denoise, _ = find_network(SOURCE)
    xs, _, sigmas = walk(denoise, label, noise(number), scale, 'plain')
    shown = partial(column, denoise, label=label, scale=scale)
    columns = [np.concatenate(list(shown(xs[i], sigmas[i]))) for i in MOMENTS]
    end = [np.zeros((4*SIDE, SIDE, 3), 'u1'), in_grey(xs[-1])]
    sheet = np.concatenate([*columns, np.concatenate(end)], 1)
    Image.fromarray(sheet).save(OUT/'noise.png', optimize=True)
    return dict(label=label, noise=number, scale=scale, moments=MOMENTS)


PARTS: dict[str, Callable[[], dict]] = dict(network=network, runtime=runtime, values=values, still=still)


def main()->None:
    "Parse the command line and make the files."
    make_parts(__doc__, PARTS, OUT/'noise.json')


if __name__ == '__main__': main()
