"""Ask five research codes the same as our denoisers that are made of their networks, and write down the differences.

    pip install k-diffusion denoising-diffusion-pytorch timm
    git clone https://github.com/NVlabs/edm; git clone https://github.com/openai/guided-diffusion; git clone https://github.com/willisma/SiT
    python tools/research_parity.py --edm edm --guided-diffusion guided-diffusion --sit SiT --out nbs/results/research_parity.csv

Small networks with random weights, in float32 on the CPU, half a minute. A code that is not there is skipped, and said.
The differences are the largest over all numbers, relative to the largest number of what that code computes.
"""
import argparse, contextlib, importlib, io, sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from cfg_course.adapters import step_to_sigma
from cfg_course.classifiers import classifier_guidance
from cfg_course.comfy import (from_edm, from_guided_classifier, from_guided_diffusion, from_kdiffusion, from_lucidrains,
    from_sit, to_edm, to_sit)
from cfg_course.core import NULL, follow, rng, write_results
from cfg_course.guidance import Rule, guide
from cfg_course.histories import momentum
from cfg_course.rules import deviation, project
from cfg_course.samplers import ddim_step, heun_step, trajectory
from cfg_course.schedules import karras_grid
from cfg_course.scores import z_to_x

K, SHAPE, SCALE = 5, (4, 3, 16, 16), 3.
Y = torch.tensor([0, 3, 1, 4])
MIXED = torch.tensor([0, NULL, 1, NULL])
TOLERANCE = dict(denoiser=1e-5, guidance=1e-5, run=2e-4)  # of float32, as a share of the largest number


def randn(*key): return torch.randn(SHAPE, generator=rng(*key))


def lively(
    net:nn.Module, # of another code
)->nn.Module: # in evaluation mode
    "A network none of whose layers is zero, as the last ones are at the beginning of training."
    for i, p in enumerate(net.parameters()):
        p.data += .05*torch.randn(p.shape, generator=rng(7, i))
    return net.eval()


def row(
    code:str, # whose
    kind:str, # denoiser, guidance or run
    compared:str, # what, in words
    ours:Tensor, # what we compute
    theirs:Tensor, # what that code computes
)->dict: # of the table
    "One comparison."
    difference = ((ours - theirs).abs().max()/theirs.abs().max()).item()
    return dict(code=code, kind=kind, compared=compared, difference=difference, tolerance=TOLERANCE[kind])


def last(
    guided, # a denoiser
    x:Tensor, # where to begin
    levels:Tensor, # noise levels, falling to 0
    step:Callable, # of a sampler
)->Tensor: # samples
    "The end of a run of ours."
    *_, end = trajectory(guided, x, levels, Y, step)
    return end.x


# k-diffusion

class Inner(nn.Module):
    "A network for k-diffusion's wrapper."
    def __init__(self):
        super().__init__()
        self.label, self.time, self.into, self.out = nn.Embedding(K + 1, 8), nn.Linear(1, 8), nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x, sigma, class_cond):
        told = self.label(class_cond) + self.time(sigma.log()[:, None])
        return self.out(torch.tanh(self.into(x) + told[:, :, None, None]))


def kdiffusion()->Iterator[dict]:
    "Its wrapper, its guidance as in its training script, and its Heun with ours, for a rule with memory too."
    kd = importlib.import_module('k_diffusion')
    model = lively(kd.layers.Denoiser(Inner(), sigma_data=.5))
    denoise, x, sigma = from_kdiffusion(model, null=K), 2*randn(0), torch.tensor([.1, 1., 5., 40.])
    labels = torch.where(MIXED == NULL, K, MIXED)
    yield row('k-diffusion', 'denoiser', 'Denoiser', denoise(x, sigma, MIXED), model(x, sigma, class_cond=labels))

    def theirs(x, sigma, class_cond):
        u, c = (model(x, sigma, class_cond=o) for o in (torch.full_like(class_cond, K), class_cond))
        return u + SCALE*(c - u)
    levels = karras_grid(12).float()
    start, guided = levels[0]*randn(1), guide(denoise, scale=SCALE)
    end = kd.sampling.sample_heun(theirs, start, levels, extra_args=dict(class_cond=Y), disable=True)
    yield row('k-diffusion', 'run', 'sample_heun, our Heun', last(guided, start, levels, heun_step), end)
    end = kd.sampling.sample_heun(follow(guided, looks=2), start, levels, extra_args=dict(y=Y), disable=True)
    yield row('k-diffusion', 'run', 'sample_heun with our guidance, our Heun', end, last(guided, start, levels, heun_step))
    remembers = guide(denoise, scale=SCALE, rule=momentum())
    end = kd.sampling.sample_heun(follow(remembers, looks=2), start, levels, extra_args=dict(y=Y), disable=True)
    yield row('k-diffusion', 'run', 'the same with a rule that remembers', end, last(remembers, start, levels, heun_step))


# EDM

def edm(folder:Path)->Iterator[dict]:
    "Networks of EDM with each of its preconditionings, and its sampler."
    sys.path.insert(0, str(folder))
    networks, generate = importlib.import_module('training.networks'), importlib.import_module('generate')
    how = dict(model_channels=16, channel_mult=[1, 2], num_blocks=1, attn_resolutions=[8])
    x, sigma, null = 2*randn(0), torch.tensor([.1, 1., 5., 40.]), MIXED == NULL
    rows = torch.eye(K)[MIXED.clamp(min=0)].masked_fill(null[:, None], 0.)
    for name, kind in (('EDMPrecond', 'SongUNet'), ('VPPrecond', 'SongUNet'), ('VEPrecond', 'SongUNet'), ('iDDPMPrecond', 'DhariwalUNet')):
        net = lively(getattr(networks, name)(16, 3, label_dim=K, model_type=kind, **how))
        yield row('EDM', 'denoiser', name, from_edm(net)(x, sigma, MIXED), net(x, sigma, rows))
    nets = [lively(networks.EDMPrecond(16, 3, label_dim=K, model_type='SongUNet', **how)) for _ in range(2)]
    nets[1].model.load_state_dict({k: v*.97 for k, v in nets[0].model.state_dict().items()})
    net, weak = nets
    levels, start = karras_grid(12, .002, 80.), randn(1).double()

    class Theirs:
        sigma_min, sigma_max, round_sigma = net.sigma_min, net.sigma_max, staticmethod(torch.as_tensor)
        def __init__(self, worse): self.worse = worse
        def __call__(self, x, sigma, labels):
            u, c = (weak(x, sigma, labels) if self.worse else net(x, sigma, 0*labels)), net(x, sigma, labels)
            return u + SCALE*(c - u)

    for name, worse in (('guidance', False), ('autoguidance', True)):
        guided = guide(from_edm(net), scale=SCALE, weak=from_edm(weak) if worse else None)
        end = generate.edm_sampler(Theirs(worse), start, torch.eye(K)[Y], num_steps=12)
        yield row('EDM', 'run', f'edm_sampler with {name}, our Heun', last(guided, levels[0]*start, levels, heun_step), end)
        ours = generate.edm_sampler(to_edm(guided, net), start, torch.eye(K)[Y], num_steps=12)
        yield row('EDM', 'run', f'edm_sampler with our {name}, with its own', ours, end)
    remembers = guide(from_edm(net), scale=SCALE, rule=momentum())
    end = generate.edm_sampler(to_edm(remembers, net), start, torch.eye(K)[Y], num_steps=12)
    yield row('EDM', 'run', 'edm_sampler with a rule that remembers, our Heun', end, last(remembers, levels[0]*start, levels, heun_step))


# lucidrains

def usual(u, c, s, look):
    "What lucidrains' network makes of two predictions unless told otherwise."
    d = c - u
    g = c + (s - 1)*(d - project(d, c))
    return g*(.3 + .7*deviation(c)/deviation(g))


def lucidrains()->Iterator[dict]:
    "Each of its objectives, its guidance plain and by default, and its DDIM."
    code = importlib.import_module('denoising_diffusion_pytorch.classifier_free_guidance')
    unet = lively(code.Unet(dim=16, dim_mults=(1, 2), num_classes=K, channels=3, cond_drop_prob=.1))
    z, t = randn(0), torch.tensor([3, 200, 600, 950])
    for objective in ('pred_noise', 'pred_x0', 'pred_v'):
        diffusion = code.GaussianDiffusion(unet, image_size=16, timesteps=1000, objective=objective, sampling_timesteps=20, ddim_sampling_eta=0.)
        denoise = from_lucidrains(diffusion)
        sigma = step_to_sigma(t.double(), denoise.table).float()
        x = z_to_x(z, sigma)
        said = unet(z, t, Y, cond_drop_prob=0.)
        to_image = dict(pred_noise=diffusion.predict_start_from_noise, pred_x0=lambda z, t, out: out, pred_v=diffusion.predict_start_from_v)
        yield row('lucidrains', 'denoiser', objective, denoise(x, sigma, Y), to_image[objective](z, t, said))

        for name, rule, how in (('plain', None, dict(rescaled_phi=0., remove_parallel_component=False)), ('by default', Rule(usual, 'eps'), dict(rescaled_phi=.7))):
            if objective != 'pred_noise': continue
            out, _ = unet.forward_with_cond_scale(z, t, Y, cond_scale=SCALE, **how)
            guided = guide(denoise, scale=SCALE, **({} if rule is None else dict(rule=rule)))
            yield row('lucidrains', 'guidance', f'forward_with_cond_scale, {name}', guided(x, sigma, Y), diffusion.predict_start_from_noise(z, t, out))

    diffusion = code.GaussianDiffusion(unet, image_size=16, timesteps=1000, objective='pred_v', sampling_timesteps=20, ddim_sampling_eta=0.)
    denoise = from_lucidrains(diffusion)
    times = torch.linspace(-1, 999, 21).int().flip(0)[:-1]
    levels = torch.cat([step_to_sigma(times.double(), denoise.table), torch.zeros(1)])
    torch.manual_seed(0)
    with contextlib.redirect_stderr(io.StringIO()):
        end = diffusion.ddim_sample(Y, SHAPE, cond_scale=SCALE, rescaled_phi=.7, clip_denoised=False)*2 - 1
    torch.manual_seed(0)
    start = z_to_x(torch.randn(SHAPE), levels[0])
    ours = last(guide(denoise, scale=SCALE, rule=Rule(usual, 'v')), start, levels, ddim_step)
    yield row('lucidrains', 'run', 'ddim_sample with its guidance by default, our DDIM', ours, end)


# guided-diffusion

def guided_diffusion(folder:Path)->Iterator[dict]:
    "A network with and one without labels, its classifier, all its timesteps and some, and its DDIM."
    sys.path.insert(0, str(folder))
    util = importlib.import_module('guided_diffusion.script_util')
    util.NUM_CLASSES = K
    unets = importlib.import_module('guided_diffusion.unet')
    how = dict(image_size=16, in_channels=3, num_res_blocks=1, attention_resolutions=(2,), channel_mult=(1, 2), use_scale_shift_norm=True)
    classifier = lively(unets.EncoderUNetModel(model_channels=32, out_channels=K, pool='adaptive', **how))
    for labels, steps, rescaled in ((None, '', False), (K, '', True), (K, 'ddim25', True), (None, 'ddim25', False)):
        model = lively(unets.UNetModel(model_channels=32, out_channels=6, num_classes=labels, **how))
        diffusion = util.create_gaussian_diffusion(steps=1000, learn_sigma=True, timestep_respacing=steps, rescale_timesteps=rescaled)
        denoise = from_guided_diffusion(model, diffusion)
        called = f'{"with" if labels else "without"} labels, {diffusion.num_timesteps} timesteps{", rescaled" if rescaled else ""}'
        z, i = randn(0), torch.tensor([0, 5, 17, 24])*(40 if not steps else 1)
        sigma = step_to_sigma(i.double(), denoise.table).float()
        y = Y if labels else torch.full_like(Y, NULL)
        def ask(z, t, y=None, model=model, labels=labels): return model(z, t, y if labels else None)
        theirs = diffusion.p_mean_variance(ask, z, i, clip_denoised=False, model_kwargs=dict(y=Y))['pred_xstart']
        yield row('guided-diffusion', 'denoiser', called, denoise(z_to_x(z, sigma), sigma, y), theirs)
        if not steps: continue

        def slope(z, t, y):
            with torch.enable_grad():
                z = z.detach().requires_grad_()
                chosen = classifier(z, t).log_softmax(1)[range(len(y)), y]
                return 2.*torch.autograd.grad(chosen.sum(), z)[0]
        on, scale = ('conditional', 3.) if labels else ('unconditional', 2.)
        guided = classifier_guidance(denoise, from_guided_classifier(classifier, diffusion), scale=scale, on=on)
        out = diffusion.p_mean_variance(ask, z, i, clip_denoised=False, model_kwargs=dict(y=Y))
        theirs = diffusion.condition_score(slope, out, z, i, model_kwargs=dict(y=Y))['pred_xstart']
        yield row('guided-diffusion', 'guidance', f'by its classifier, {called}', guided(z_to_x(z, sigma), sigma, Y), theirs)
        levels = torch.cat([step_to_sigma(torch.arange(24., -1, -1), denoise.table), torch.zeros(1)])
        end = diffusion.ddim_sample_loop(ask, SHAPE, noise=randn(1), clip_denoised=False, cond_fn=slope, model_kwargs=dict(y=Y), device='cpu')
        yield row('guided-diffusion', 'run', f'ddim_sample_loop by its classifier, our DDIM, {called}', last(guided, z_to_x(randn(1), levels[0]), levels, ddim_step), end)


# SiT

def first_three(u, c, s, look): return torch.cat([(u + s*(c - u))[:, :3], c[:, 3:]], 1)


def sit(folder:Path)->Iterator[dict]:
    "A small transformer, its guidance, and its Euler sampler."
    sys.path.insert(0, str(folder))
    models, transport = importlib.import_module('models'), importlib.import_module('transport')
    shape = 4, 4, 8, 8
    net = lively(models.SiT(input_size=8, hidden_size=32, depth=2, num_heads=2, num_classes=K, learn_sigma=True))
    denoise, z, t = from_sit(net), torch.randn(shape, generator=rng(0)), torch.tensor([.01, .3, .6, .95])
    sigma = (1 - t)/t
    x = z_to_x(z, sigma, 'rf')
    labels = torch.where(MIXED == NULL, K, MIXED)
    theirs = z + (1 - t)[:, None, None, None]*net(z, t, labels)
    yield row('SiT', 'denoiser', 'z + (1 - t) velocity', denoise(x, sigma, MIXED), theirs)

    twice, both = torch.cat([z, z]), torch.cat([Y, torch.full_like(Y, K)])
    out = net.forward_with_cfg(twice, torch.cat([t, t]), both, SCALE)[:4]
    guided = guide(denoise, scale=SCALE, rule=Rule(first_three, 'flow'))
    yield row('SiT', 'guidance', 'forward_with_cfg, of three channels', guided(x, sigma, Y), z + (1 - t)[:, None, None, None]*out)

    sample = transport.Sampler(transport.create_transport()).sample_ode(sampling_method='euler', num_steps=20)
    start = torch.randn(shape, generator=rng(1))
    end = sample(torch.cat([start, start]), net.forward_with_cfg, y=both, cfg_scale=SCALE)[-1][:4]
    ours = sample(start, to_sit(follow(guided)), y=Y)[-1]
    yield row('SiT', 'run', 'sample_ode with our guidance, with its own', ours, end)


def rows_of(
    name:str, # of a code
    compare:Callable, # yields rows
    *where, # its folder, for one that is no package
)->list[dict]: # none, where the code is not there
    "What is measured of one code."
    if where and where[0] is None: return print(f'{name}: skipped, no folder given') or []
    torch.manual_seed(0)
    try: return list(compare(*where))
    except ModuleNotFoundError as e: return print(f'{name}: skipped, {e}') or []


def main():
    "Parse the command line and run."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ('edm', 'guided-diffusion', 'sit'): parser.add_argument(f'--{name}', type=Path, help='its repository, as cloned')
    parser.add_argument('--out', type=Path, required=True, help='a .csv file')
    args = parser.parse_args()
    with torch.no_grad():
        codes = [('k-diffusion', kdiffusion), ('EDM', edm, args.edm), ('lucidrains', lucidrains),
            ('guided-diffusion', guided_diffusion, args.guided_diffusion), ('SiT', sit, args.sit)]
        rows = [o for code in codes for o in rows_of(*code)]
    for o in rows: print(f'{o["difference"]:.1e}  {o["code"]}: {o["compared"]}')
    write_results(rows, args.out, dict(scale=SCALE, classes=K, shape=list(SHAPE)))


if __name__ == '__main__': main()
