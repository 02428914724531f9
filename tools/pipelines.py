"""What this course does inside pipelines of diffusers, on tiny ones with random weights that are made without a download.

    python tools/pipelines.py parity        LINEAR against each family's own guidance, scheduler by scheduler
    python tools/pipelines.py techniques    which technique runs in which family, and why the others refuse
    python tools/pipelines.py overhead      seconds of a guided pipeline over those of its own guidance, in turn

Each writes a table to `nbs/results` (`--out FOLDER` elsewhere; `--only NAME` for one family). The pipelines are those of
`tests/tiny_pipelines.py`. Lengths of differences are relative to the largest number of what they are compared with.

`techniques` also asks networks of three research codes where they are: the package k-diffusion, and the sources of EDM and
SiT in the folders `--edm` and `--sit` (github.com/NVlabs/edm, github.com/willisma/SiT). One that is not there is skipped.
"""
from __future__ import annotations

import argparse, importlib.util, statistics, sys, time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT/'tests'))

from tiny_pipelines import FAMILIES, IMG2IMG, LINEAR, Family, class_unet, diffusions, dit, gen, hushed, latents_of

from cfg_course.adapters import describe, from_diffusers, step_to_sigma
from cfg_course.catalogue import SHELVES, make_guidance, takes_scale
from cfg_course.comfy import from_edm, from_kdiffusion, from_sit
from cfg_course.core import Denoise, InputError, rng, write_results
from cfg_course.guidance import guide
from cfg_course.pipelines import Answer, PipelineDenoiser, from_pipeline
from cfg_course.samplers import sample
from cfg_course.schedules import karras_grid

STEPS, SCALE = 6, 5.

KINDS = 'rule', 'weak', 'strong', 'schedule', 'procedure' # shelves of the table: all but those that need a judge of pictures


def far(
    a:Tensor, # anything
    b:Tensor, # what it is compared with
)->float: # largest difference over the largest number of `b`
    "How far two tensors are apart."
    return float((a - b).abs().max()/b.abs().max())


# Parity

def own_image(
    scheduler:Any, # about to step
    out:Tensor, # prediction
    t:Tensor, # timestep
    z:Tensor, # noisy sample, as the scheduler has it
)->Tensor|None: # None where only its step says
    "The clean image that a scheduler finds in a prediction, by its own formulas."
    if hasattr(scheduler, '_init_step_index') and scheduler.step_index is None:
        scheduler._init_step_index(t)
    if hasattr(scheduler, 'convert_model_output'):
        return scheduler.convert_model_output(out, sample=z)
    if 'FlowMatch' in type(scheduler).__name__:
        return z - scheduler.sigmas[scheduler.step_index]*out
    if 'PNDM' in type(scheduler).__name__:
        kept = scheduler.alphas_cumprod[int(t)]
        return (z - (1 - kept)**.5*out)/kept**.5
    return None


def watch_images(
    scheduler:Any, # of a pipeline
    seen:list[Tensor], # gets the clean image of every question
)->Callable: # in the place of its step
    "A step that shows which clean image it finds."
    step = scheduler.step
    @wraps(step)
    def watched(*args, **kwargs):
        named = dict(zip(('model_output', 'timestep', 'sample'), args)) | kwargs
        if 'CogVideoXDPM' in type(scheduler).__name__:
            named = dict(zip(('model_output', 'old_pred_original_sample', 'timestep', 'timestep_back', 'sample'), args)) | kwargs
        image = own_image(scheduler, named['model_output'], named['timestep'], named['sample'])
        done = Answer(step(*args, **{**kwargs, 'return_dict': False}))
        seen.append(done[1] if image is None else image)
        return done
    return watched


def image_error(
    denoise:PipelineDenoiser, # of a pipeline
    family:Family, # of it
)->float: # largest relative difference over all questions
    "Our clean image against the scheduler's own, at every question of a run."
    ours: list[Tensor] = []
    theirs: list[Tensor] = []
    def spy(x, sigma, y):
        ours.append(denoise(x, sigma, y))
        return ours[-1]
    scheduler = denoise.pipe.scheduler
    scheduler.step = watch_images(scheduler, theirs)
    try:
        latents_of(denoise.pipe, denoise.within(spy), prompt=family.prompts, generator=gen())
    finally:
        del scheduler.step
    return max(far(image, D.reshape(image.shape)) for image, D in zip(theirs, ours, strict=True))


def weights_of(
    net:torch.nn.Module, # of a pipeline
)->dict[str, Any]: # name -> value
    "All that a network is: weights, buffers and the attributes of every module."
    tensors = {name: value.clone() for name, value in net.state_dict().items()}
    own = {name: sorted(vars(module)) for name, module in net.named_modules()}
    return dict(tensors=tensors, own=own)


def unchanged(
    before:dict[str, Any], # of `weights_of`
    net:torch.nn.Module, # later
)->bool: # is it the same, bit for bit?
    "Whether a network is what it was."
    after = weights_of(net)
    same = all(torch.equal(value, after['tensors'][name]) for name, value in before['tensors'].items())
    return same and before['own'] == after['own']


def parity_row(
    name:str, # of a family
    family:Family, # the same
    scheduler:str, # one of its schedulers
    dtype:torch.dtype, # of all networks
)->dict[str, Any]: # a row of the table
    "LINEAR within a pipeline against its own guidance."
    pipe = family.pipe(scheduler, dtype)
    denoise = from_pipeline(pipe, family.prompts, negative=family.negative, steps=STEPS, **family.call)
    before = weights_of(denoise.net)
    theirs = latents_of(pipe, pipe, **family.ask(SCALE, STEPS, generator=gen()))
    off = latents_of(pipe, pipe, **family.ask(1., STEPS, generator=gen()))
    def within(scale):
        return latents_of(pipe, denoise.within(guide(denoise, scale=scale)), prompt=family.prompts, generator=gen())
    return dict(
        family=name, scheduler=scheduler, dtype=str(dtype).removeprefix('torch.'),
        error=far(within(SCALE), theirs), effect=far(off, theirs), error_at_1=far(within(1.), off),
        image_error=image_error(denoise, family), unchanged=unchanged(before, denoise.net))


def parity(
    only:str|None=None, # a family; all when not given
)->list[dict[str, Any]]: # rows
    "The table of all families and their schedulers, in two precisions."
    rows = []
    for name, family in {**FAMILIES, 'SD 1.5, img2img': IMG2IMG}.items():
        for scheduler in family.schedulers if only in (None, name) else ():
            for dtype in (torch.float32, torch.float64):
                with hushed():
                    rows.append(parity_row(name, family, scheduler, dtype))
                print(rows[-1], flush=True)
    return rows


# Techniques

def by_class()->tuple[Denoise, Tensor, tuple]: # denoiser, its noise levels, shape of a sample
    "A UNet with class labels, as chapter 41 adapts it."
    scheduler = diffusions(LINEAR)['DDIM']()
    denoise = from_diffusers(class_unet(), scheduler, null=8)
    denoise.classes = 8
    scheduler.set_timesteps(STEPS)
    levels = step_to_sigma(scheduler.timesteps, describe(scheduler).table)
    return denoise, torch.cat([levels, levels.new_zeros(1)]), (4, 8, 8)


CLASSES = 5 # of the research codes' networks


def lively(
    net:torch.nn.Module, # with layers that are zero at the beginning of training
)->torch.nn.Module: # in evaluation mode
    "A network none of whose layers is zero."
    for i, p in enumerate(net.parameters()):
        p.data += .05*torch.randn(p.shape, generator=rng(7, i))
    return net.eval()


def edm(
    folder:Path, # of their code
)->Denoise: # 16 x 16 pixels
    "A small network of EDM (Karras et al. 2022)."
    sys.path.insert(0, str(folder))
    networks = importlib.import_module('training.networks')
    how = dict(model_channels=16, channel_mult=[1, 2], num_blocks=1, attn_resolutions=[8])
    return from_edm(lively(networks.EDMPrecond(16, 3, label_dim=CLASSES, model_type='SongUNet', **how)))


def kdiffusion(
    folder:Path|None=None, # not needed: a package
)->Denoise: # 16 x 16 pixels
    "A small network of k-diffusion (Crowson)."
    code = importlib.import_module('k_diffusion')
    net = code.models.ImageTransformerDenoiserModelV1(4, 64, 128, 3, 3, (4, 4), num_classes=CLASSES + 1)
    return from_kdiffusion(lively(code.layers.Denoiser(net, sigma_data=.5)), null=CLASSES)


def sit(
    folder:Path, # of their code
)->Denoise: # latents of 8 x 8
    "A small network of SiT (Ma et al. 2024)."
    sys.path.insert(0, str(folder))
    net = importlib.import_module('models').SiT(8, 2, 4, 32, 4, 2, num_classes=CLASSES, class_dropout_prob=.1)
    return from_sit(lively(net))


RESEARCH = {'EDM': (edm, (3, 16, 16)), 'k-diffusion': (kdiffusion, (3, 16, 16)), 'SiT': (sit, (4, 8, 8))}

FOLDERS:dict[str, Path] = {} # name in `RESEARCH` -> folder


def there(
    name:str, # in `RESEARCH`
)->bool: # is it?
    "Whether a research code is there."
    return name in FOLDERS if name != 'k-diffusion' else importlib.util.find_spec('k_diffusion') is not None


def needed(
    name:str, # of a technique
    weaker:Denoise, # a worse denoiser
)->dict[str, Any]: # its options
    "What a technique must be told."
    models = dict.fromkeys(('autoguidance', 'w2sd'), dict(model=weaker))
    rewards = dict.fromkeys(('fk', 'tds', 'best_of_n'), dict(reward=lambda x, sigma, y: x.flatten(1).mean(1)))
    labels = dict.fromkeys(('negative', 'not', 'perp_neg', 'superdiff'), dict(label=1))
    return {**models, **rewards, **labels, 'and': dict(labels=(1,)), 'in_situ': dict(rate=.1)}.get(name, {})


def draw(
    kind:str, # of a technique
    name:str, # of it
    family:str, # one of `FAMILIES`, or UNet2D
    denoise:Denoise, # of that family
    levels:Tensor, # `(N+1,)` its noise levels
    shape:tuple, # of a sample
)->Tensor: # samples
    "Use a technique: procedures with our sampler, the others within the pipeline."
    def weaker(x, sigma, y):
        return .9*denoise(x, sigma, y)
    options = needed(name, weaker)
    scale = 2. if takes_scale({kind: name}) else None
    guided, loop = make_guidance(denoise, name, scale=scale, options=options)
    if kind == 'procedure' or family not in FAMILIES:
        return sample(guided, torch.tensor([0, 1]), shape, 'ddim', sigmas=levels, loop=loop)
    return latents_of(denoise.pipe, denoise.within(guided), prompt=FAMILIES[family].prompts, generator=gen())


def outcome(
    *args, # of `draw`
)->tuple[str, str]: # runs, refuses or fails; because
    "What comes of a technique."
    try:
        x = draw(*args)
    except InputError as e:
        return 'refuses', str(e)
    except Exception as e:
        return 'fails', f'{type(e).__name__}: {e}'.partition('\n')[0]
    return ('runs', '') if bool(x.isfinite().all()) else ('fails', 'not finite')


def prepare(
    name:str, # of a family
)->tuple[Denoise, Tensor, tuple]: # denoiser, its noise levels, shape of a sample
    "A tiny pipeline, or the network of a research code, as a denoiser."
    if name in RESEARCH:
        make, shape = RESEARCH[name]
        return make(FOLDERS.get(name)), karras_grid(STEPS, .02, 40.), shape
    if name not in FAMILIES:
        return by_class()
    family = FAMILIES[name]
    denoise = from_pipeline(family.pipe(), family.prompts, negative=family.negative, steps=STEPS, **family.call)
    return denoise, denoise.sigmas, denoise.shape


def techniques(
    only:str|None=None, # a family; all when not given
)->list[dict[str, Any]]: # rows
    "The table of all techniques and families."
    rows = []
    for family in [*FAMILIES, 'UNet2D', *filter(there, RESEARCH)] if only is None else [only]:
        with hushed():
            prepared = prepare(family)
            for kind in KINDS:
                for name in SHELVES[kind]:
                    found, because = outcome(kind, name, family, *prepared)
                    rows.append(dict(kind=kind, technique=name, family=family, outcome=found, because=because))
        mine = [row['outcome'] for row in rows if row['family'] == family]
        print(family, {found: mine.count(found) for found in sorted(set(mine))}, flush=True)
    for row in rows:
        if row['outcome'] == 'fails': print(row)
    return rows


# Overhead

WIDE = dict(sample_size=32, num_layers=10, num_attention_heads=6, attention_head_dim=64) # half a second a call on one core


def overhead(
    only:str|None=None, # not used
    pairs:int=7, # how often each is timed, in turn
    steps:int=4, # of a run
)->list[dict[str, Any]]: # a row for each pair
    "Seconds of `within` with LINEAR and of the pipeline's own guidance, on a transformer of realistic size."
    pipe = Family(dit, diffusions(LINEAR)).pipe('DDIM', **WIDE)
    denoise = from_pipeline(pipe, [207], steps=steps)
    guided = denoise.within(guide(denoise, scale=4.))
    def timed(run, **call):
        start = time.perf_counter()
        latents_of(pipe, run, generator=gen(), **call)
        return time.perf_counter() - start
    def both():
        ours = timed(guided)
        return ours, timed(pipe, class_labels=[207], guidance_scale=4., num_inference_steps=steps)
    both()
    rows = []
    for i in range(pairs):
        ours, theirs = both()
        rows.append(dict(pair=i, within=ours, own=theirs, ratio=ours/theirs))
    print(f'{rows[0]["own"]/steps:.2f} s a question, median ratio {statistics.median(row["ratio"] for row in rows):.3f}')
    return rows


TABLES = dict(
    parity=(parity, 'pipelines_parity'),
    techniques=(techniques, 'pipelines'),
    overhead=(overhead, 'pipelines_overhead'))


def main()->None:
    "Make one of the tables."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('table', choices=TABLES)
    parser.add_argument('--only', help='one family')
    parser.add_argument('--out', type=Path, default=ROOT/'nbs/results', help='a folder')
    parser.add_argument('--edm', type=Path, help='sources of EDM')
    parser.add_argument('--sit', type=Path, help='sources of SiT')
    args = parser.parse_args()
    FOLDERS.update({name: folder for name, folder in dict(EDM=args.edm, SiT=args.sit).items() if folder})
    import diffusers, transformers
    make, stem = TABLES[args.table]
    rows = make(args.only)
    versions = dict(diffusers=diffusers.__version__, transformers=transformers.__version__)
    write_results(rows, args.out/f'{stem}.csv', dict(steps=STEPS, scale=SCALE, **versions), device=f'CPU, {torch.get_num_threads()} threads')


if __name__ == '__main__':
    main()
