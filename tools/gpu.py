"""Train 32x32 CIFAR-10 on a GPU for some minutes, leave a model that can be shipped, and say what the card did.

    python tools/gpu.py --minutes 9 --out out/gpu            the real run: bfloat16, compiled, data on the card
    python tools/gpu.py --rehearse --out out/rehearsal       the same road in a minute on a CPU: digits, a tiny network

A snapshot of the averages in half precision is written every minute, so that a lost machine costs a minute. `log.csv`
has a row for every 50 steps, and `report.json` what was measured:

    device, torch, parameters, multiply_adds         the card, and what it has to do for one image
    batch_size, batch_sizes                          the batch, and images a second of each that was tried
    images, seconds, seconds_before_training         what was seen, and how long it took
    images_per_s, operations_per_s                   the median over the log
    matrix_operations_per_s, share_of_measured_rate  what the card does when it only multiplies matrices, and our share
    share_of_data_sheet                              of its dense bfloat16 peak, for a card that is listed here
    memory_gb                                        the most that was in use
    heldout                                          loss of each average on pictures that were not trained on
    sampling                                         seconds of guided images, with and without compiling, the loop
                                                     beside the bare network, and the distance from the CPU's images
"""
import argparse, copy, json, statistics, time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from cfg_course.cli import Parser, command, number
from cfg_course.commands import check_out
from cfg_course.core import InputError, check, mix_seed, pick_device, save_grid, write_json
from cfg_course.data import Images, load_data
from cfg_course.denoisers import Denoiser, save_denoiser
from cfg_course.guidance import guide
from cfg_course.networks import CONFIGS, UNet, count_parameters, matrix_rate, multiply_adds
from cfg_course.samplers import sample
from cfg_course.training import TrainConfig, Trainer, heldout_loss, make_accelerator, mean_loss, net_config, write_log

Row = dict[str, float]
PEAKS = {  # dense bfloat16, operations a second, from the data sheets
    'H100': 989e12, 'H200': 989e12, 'A100': 312e12, 'L40': 181e12, '4090': 165e12}
LIMIT = 16*2**20  # bytes of a file that every machine hands back
FALL = .25  # of the run: its end, over which the learning rate falls
SPARE = 25  # seconds that stay for sampling and for the report
EVERY = 50  # steps between rows of the log
FILES = 'report.json', 'log.csv', 'grid.png', 'model-*.safetensors'  # what a run leaves


# How fast

def seconds_of(
    action:Callable[[], Any], # what to do
    device:torch.device, # where it runs
    repeats:int=3, # the median counts, after one that warms up
)->float: # seconds
    "What an action takes, finished."
    wait = torch.cuda.synchronize if device.type == 'cuda' else lambda: None
    times = []
    for _ in range(repeats + 1):
        wait()
        start = time.perf_counter()
        action()
        wait()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def time_step(
    trainer:Trainer, # fresh
)->float: # seconds
    "What a step takes."
    return seconds_of(trainer.step, trainer.acc.device, 5)


def largest_batch(
    make:Callable[[int], Trainer], # for a batch size
    sizes:tuple[int, ...], # to try, rising
    gain:float=1.1, # a larger batch must be faster by this factor
)->tuple[int, dict[int, float]]: # the largest that pays, size -> images a second
    "Try batch sizes until a larger one is hardly faster, or does not fit."
    speeds: dict[int, float] = {}
    last = 0.
    for size in sizes:
        try: seconds = time_step(make(size))
        except (torch.cuda.OutOfMemoryError, InputError): break  # the trainer names a batch that fits
        speeds[size] = size/seconds
        if speeds[size] < gain*last: break
        last = speeds[size]
    check(speeds, 'batch_size', sizes[0], 'a smaller one, for the memory of this device')
    enough = max(speeds.values())/gain
    return min(size for size, speed in speeds.items() if speed >= enough), speeds


# Training by the clock

def plan_end(
    trainer:Trainer, # in training
    left:float, # seconds
    speed:float, # steps a second
)->None:
    "Set the run's length, and where its learning rate begins to fall, by the clock."
    steps = trainer.done + max(1, int(left*speed))
    fall = max(1, int(FALL*steps))
    trainer.cfg = replace(trainer.cfg, steps=steps, fall=fall)


def is_falling(
    trainer:Trainer, # in training
)->bool: # does it?
    "Whether the learning rate falls already."
    cfg = trainer.cfg
    return cfg.fall > 0 and trainer.done > cfg.steps - cfg.fall


def train_by_the_clock(
    trainer:Trainer, # fresh
    seconds:float, # until its end
    save:Callable[[Trainer, list[Row]], None], # `save(trainer, rows)`, every minute
    every:float=60., # seconds between saves
)->list[Row]: # of the log
    "Train until the time is up: every row of the log corrects the length of the run, from the speed so far."
    trainer.step().item()  # compiles
    start = saved = time.perf_counter()
    begun = trainer.done
    rows: list[Row] = []
    losses: list[Tensor] = []
    with tqdm(total=max(1, int(seconds)), unit='s', disable=None) as bar:
        while trainer.done < trainer.cfg.steps:
            losses.append(trainer.step())
            if len(losses) % EVERY and trainer.done < trainer.cfg.steps: continue
            loss = mean_loss(losses[-EVERY:], trainer.done)  # waits for the card
            now = time.perf_counter()
            spent = now - start
            speed = (trainer.done - begun)/spent
            images_per_s = speed*trainer.cfg.batch_size
            rows.append(dict(step=trainer.done, loss=loss, lr=trainer.lr, images_per_s=images_per_s, seconds=spent))
            bar.update(int(spent) - bar.n)
            if not is_falling(trainer): plan_end(trainer, seconds - spent, speed)
            if now - saved > every:
                save(trainer, rows)
                saved = now
            if spent > 1.1*seconds: break
    save(trainer, rows)
    return rows


# What the card did

def compiled_copy(
    denoise:Denoiser, # on a card
)->Denoiser: # the same weights
    "A copy whose network is compiled."
    compiled = copy.deepcopy(denoise)
    compiled.net.compile()
    return compiled


@torch.no_grad()
def time_network(
    denoise:Denoiser, # on its device
    y:Tensor, # `(N,)` labels
    shape:tuple[int, ...], # of an image
)->float: # seconds
    "What the bare network takes for guided images, which are two rows each."
    device = next(denoise.parameters()).device
    x = torch.randn(2*len(y), *shape, device=device)
    sigma = torch.ones((), device=device)
    labels = torch.cat([y, y]).to(device)
    return seconds_of(lambda: denoise(x, sigma, labels), device)


@torch.no_grad()
def sampling_report(
    denoise:Denoiser, # the average, on the device
    shape:tuple[int, ...], # of an image
    steps:int, # of the sampler
    num:int, # images
)->dict[str, float|None]: # what was measured
    "Seconds for guided images, the loop's share beside the bare network, and the distance from the CPU's images."
    device = next(denoise.parameters()).device
    cuda = device.type == 'cuda'
    y = torch.arange(num) % 10
    def draw(model, where, n=num):
        return sample(guide(model, scale=2.), y[:n], shape, sampler='dpmpp', steps=steps, device=where)
    bare = time_network(denoise, y, shape)*steps
    whole = seconds_of(lambda: draw(denoise, device), device)
    fast = None
    if cuda:
        compiled = compiled_copy(denoise)
        fast = seconds_of(lambda: draw(compiled, device), device)
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
    here = draw(denoise, device, 10).cpu()
    there = draw(copy.deepcopy(denoise).cpu(), 'cpu', 10)
    far = (here - there).abs()
    return dict(
        images=num,
        steps=steps,
        seconds=whole,
        seconds_compiled=fast,
        seconds_of_bare_network=bare,
        loop_over_bare=whole/bare,
        largest_difference_to_cpu=far.max().item(),
        median_difference_to_cpu=far.median().item())


def card_report(
    trainer:Trainer, # after its run
    rows:list[Row], # of its log
)->dict[str, Any]: # what was measured
    "Speed, use of the card, memory."
    device = trainer.acc.device
    net = trainer.denoise.net
    cuda = device.type == 'cuda'
    name = torch.cuda.get_device_name(device) if cuda else 'CPU'
    memory = torch.cuda.max_memory_allocated(device)/1e9 if cuda else None
    speed = statistics.median(row['images_per_s'] for row in rows)
    work = multiply_adds(net.cfg)
    operations = 6*work*speed  # forward and twice backward, a multiplication and an addition
    rate = 2*matrix_rate(device, torch.bfloat16 if cuda else torch.float32, 8192 if cuda else 1024)
    peaks = [peak for card, peak in PEAKS.items() if card in name]
    return dict(
        device=name,
        torch=torch.__version__,
        parameters=count_parameters(net),
        multiply_adds=work,
        images_per_s=speed,
        images=trainer.done*trainer.cfg.batch_size,
        seconds=rows[-1]['seconds'],
        operations_per_s=operations,
        matrix_operations_per_s=rate,
        share_of_measured_rate=operations/rate,
        share_of_data_sheet=operations/peaks[0] if peaks else None,
        memory_gb=memory)


# What a run leaves

def save_averages(
    trainer:Trainer, # in training
    rows:list[Row], # of its log
    out:Path, # folder
)->None:
    "Write the log, and every average in half precision."
    write_log(rows, out/'log.csv')
    data = trainer.data
    facts = dict(
        classes=data.classes,
        data=data.name,
        shape=data.shape,
        train=asdict(trainer.cfg),
        step=trainer.done,
        images=trainer.done*trainer.cfg.batch_size)
    for width, average in trainer.averages.items():
        path = out/f'model-{width:g}.safetensors'
        save_denoiser(average.module, path, half=True, ema=width, **facts)


def begin_report(
    trainer:Trainer, # fresh
    report:dict[str, Any], # as far as it goes
    out:Path, # folder
)->None:
    "Put a first report and first models in the place of earlier ones."
    size = 2*count_parameters(trainer.denoise.net) + 2**16
    check(size < LIMIT, 'net', f'{size} bytes', f'one whose half-precision file is smaller than {LIMIT} bytes')
    for name in FILES:
        for path in out.glob(name): path.unlink()
    write_json(report, out/'report.json')
    save_averages(trainer, [], out)


def draw_grid(
    trainer:Trainer, # after its run
    out:Path, # folder
)->None:
    "Four samples of each class without guidance, and at scale 2."
    average = trainer.average.module
    data = trainer.data
    y = torch.arange(len(data.classes)).repeat(4)
    def draw(scale):
        return sample(guide(average, scale=scale), y, data.shape, device=trainer.acc.device).cpu()
    save_grid(torch.cat([draw(1.), draw(2.)]), out/'grid.png', cols=len(data.classes), zoom=2)


# The command

def gpu_parser()->Parser: # of `gpu.py`
    "The options of `gpu.py`."
    p = Parser(prog='gpu.py', description=__doc__)
    p.add_argument('--minutes', type=number(float, .001), default=9., help='of training, compiling included (9)')
    p.add_argument('--out', type=Path, default=Path('out/gpu'), help='where the models and the report go (out/gpu)')
    p.add_argument('--overwrite', action='store_true', help='replace an earlier report in --out, with its models')
    p.add_argument('--dataset', default='cifar10', help='cifar10, or folder:NAME for a copy in a folder (cifar10)')
    p.add_argument('--data-dir', help='where data sets are kept ($CFG_COURSE_DATA, else data/)')
    p.add_argument('--net', default='cifar10_32', choices=list(CONFIGS), help='network (cifar10_32)')
    p.add_argument('--batch-size', type=number(int, 1), help='images a step (the largest that pays, measured)')
    p.add_argument('--lr', type=number(float, 1e-12, 10), default=1.5e-3, help='learning rate (.0015)')
    p.add_argument('--rehearse', action='store_true',
        help='digits, a tiny network, seconds: the same road on any machine')
    p.add_argument('--device', default='auto', help='auto, cpu, cuda')
    return p


def check_gpu(
    args:argparse.Namespace, # of `gpu_parser`
)->torch.device: # where to train
    "Raise an `InputError` unless there is a card, or a rehearsal, and a place to write to. Changes nothing."
    device = pick_device(args.device)
    fits = args.rehearse or device.type == 'cuda'
    check(fits, 'device', str(device), 'a GPU; or --rehearse, to see the road on a CPU')
    check_out(args.out, 'report.json', args.overwrite)
    return device


def training_of(
    args:argparse.Namespace, # of `gpu_parser`
    cuda:bool, # on a card?
)->TrainConfig: # until its end is known
    "How to train."
    return TrainConfig(
        dataset=args.dataset.partition(':')[0],
        split='fit',
        steps=10**6,
        batch_size=args.batch_size or 64,
        lr=args.lr,
        warmup=300,
        schedule='constant',
        P_mean=-.6,
        ema=.05,
        averages=(.1,),
        flip=not args.rehearse,
        precision='bf16' if cuda else 'fp32',
        compile=cuda)


def trainer_maker(
    args:argparse.Namespace, # of `gpu_parser`
    data:Images, # to train on
    device:torch.device, # where to train
)->Callable[..., Trainer]: # `make(batch_size, **changes)` of the configuration
    "Makes trainers that differ in their batch size, all with the same first weights."
    net = net_config(data, CONFIGS[args.net])
    cfg = training_of(args, device.type == 'cuda')
    acc = make_accelerator(cfg.precision, str(device))
    def make(size, **more):
        torch.manual_seed(mix_seed(0, 3))
        denoise = Denoiser(UNet(net), 'edm', round(data.rms(), 3))
        return Trainer(denoise, data, replace(cfg, batch_size=size, **more), acc)
    return make


def sizes_to_try(
    args:argparse.Namespace, # of `gpu_parser`
)->tuple[int, ...]: # rising
    "Batch sizes."
    if args.batch_size: return (args.batch_size,)
    return (16, 32) if args.rehearse else (256, 512, 1024, 2048)


def gpu_command(
    args:argparse.Namespace, # of `gpu_parser`
)->None:
    "Do what `gpu.py` was asked for."
    begun = time.perf_counter()
    device = check_gpu(args)
    if args.rehearse:
        args.dataset = args.net = 'digits'
        args.minutes = min(args.minutes, .2)
    if device.type == 'cuda': torch.set_float32_matmul_precision('high')
    data = load_data(args.dataset, 'fit', args.data_dir)
    unseen = load_data(args.dataset, 'heldout', args.data_dir)
    make = trainer_maker(args, data, device)
    size, speeds = largest_batch(lambda size: make(size, compile=False), sizes_to_try(args))
    trainer = make(size)
    report = dict(batch_size=size, batch_sizes=speeds)
    begin_report(trainer, report, args.out)
    spent = time.perf_counter() - begun
    report['seconds_before_training'] = spent
    spare = 1 if args.rehearse else SPARE
    rows = train_by_the_clock(
        trainer,
        60*args.minutes - spent - spare,
        lambda trainer, rows: save_averages(trainer, rows, args.out))
    finish_report(trainer, rows, report, unseen, args)
    draw_grid(trainer, args.out)
    print(json.dumps(report, indent=2))


def finish_report(
    trainer:Trainer, # after its run
    rows:list[Row], # of its log
    report:dict[str, Any], # gets the rest
    unseen:Images, # held-out pictures
    args:argparse.Namespace, # of `gpu_parser`
)->None:
    "Measure, and write the report before and after sampling."
    report.update(card_report(trainer, rows))
    losses = {width: heldout_loss(average.module, unseen, trainer.cfg) for width, average in trainer.averages.items()}
    report['heldout'] = {width: statistics.mean(loss) for width, loss in losses.items()}
    write_json(report, args.out/'report.json')
    steps, num = (4, 20) if args.rehearse else (12, 100)
    report['sampling'] = sampling_report(trainer.average.module, trainer.data.shape, steps, num)
    write_json(report, args.out/'report.json')


def main(
    argv:list[str]|None=None, # arguments; the process's own when not given
)->None:
    "Entry point."
    command(gpu_parser, gpu_command, argv)


if __name__ == '__main__': main()
