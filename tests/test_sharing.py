"Sharing: a model comes back to the last bit, tells nothing of the machine it was made on, and a pipeline's table survives whatever ends it."
import json, os, re, shlex, shutil, subprocess, sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np, pandas as pd, pytest, torch
from torch import nn

from cfg_course import sharing, sweeps
from cfg_course.classifiers import load_classifier
from cfg_course.cli import sample_main
from cfg_course.core import InputError, Run
from cfg_course.denoisers import Denoiser, find_model, fingerprint, save_denoiser
from cfg_course.networks import UNet, UNetConfig
from cfg_course.samplers import make_sampler
from cfg_course.sharing import advice_for, from_hub, hub_class, measure, model_card, pairs, public, read_numbers, to_hub
from cfg_course.sweeps import COLUMNS, make_yardstick, read_sweep, run_sweep, sweep_points
from cfg_course.training import TrainConfig, train
from notebooks import ROOT

hub = pytest.importorskip('huggingface_hub')
constants = pytest.importorskip('huggingface_hub.constants')
FILES = ['README.md', 'config.json', 'model.safetensors']
JUDGE = load_classifier('digits')[0]


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    "Without the Hub, and without asking git, which takes longer than all the rest."
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    monkeypatch.setattr(sweeps, 'commit', lambda: None)


def small(seed=0, **how):
    "A tiny model, and facts without which no command can use one."
    torch.manual_seed(seed)
    cfg = UNetConfig(image_size=8, channels=1, num_classes=3, patch=1, widths=(8,), blocks=(1,), emb=16, heads=1, **how)
    return Denoiser(UNet(cfg), 'edm', .5).eval(), dict(classes=['a', 'b|c', 'cat/dog'], shape=[1, 8, 8], data='folder:mine')


def refused(act, *words):
    "The one line that an act costs."
    with pytest.raises(InputError) as e: act()
    line = str(e.value)
    assert '\n' not in line and [w for w in words if w not in line] == [], line
    return line


def same(a, b):
    mine, theirs = a.state_dict(), b.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) and mine[k].dtype == theirs[k].dtype for k in mine)


# Folders

@pytest.mark.parametrize('name', ['digits', 'mnist-weak', 'mnist-a'])
def test_a_shipped_model_comes_back(name, tmp_path):
    out = tmp_path/'x'
    to_hub(name).save_pretrained(out)
    assert sorted(p.name for p in out.iterdir()) == FILES
    own, header = find_model(name)
    again, (found, told) = from_hub(out), find_model(str(out))
    assert same(again.net, own.net) and same(found.net, own.net) and again.meta == told == json.loads((out/'config.json').read_text())
    assert {k: told[k] for k in header if k != 'net'} == {k: v for k, v in header.items() if k != 'net'}, 'the recipe'
    assert told['net'].items() >= header['net'].items() and not again.training
    x, y = torch.randn(2, *header['shape']), torch.tensor([1, -1])
    assert torch.equal(again(x, .7, y), own(x, .7, y))


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize('how', [{}, dict(scaled=True)], ids=['plain', 'student'])
def test_any_model_comes_back(dtype, how, tmp_path):
    denoise, meta = small(**how)
    denoise.to(dtype)
    to_hub(denoise, meta).save_pretrained(tmp_path/'x')
    again = from_hub(tmp_path/'x')
    assert fingerprint(again) == fingerprint(denoise) and again.net.cfg == denoise.net.cfg
    assert again.meta['classes'] == meta['classes'] == find_model(str(tmp_path/'x'))[1]['classes']
    to_hub(again, again.meta).save_pretrained(tmp_path/'y')
    assert (tmp_path/'x'/'config.json').read_bytes() == (tmp_path/'y'/'config.json').read_bytes()


def test_a_compiled_model_is_shared_as_it_was(tmp_path):
    denoise, meta = small()
    denoise.net = torch.compile(denoise.net)
    to_hub(denoise, meta).save_pretrained(tmp_path/'x')
    assert fingerprint(from_hub(tmp_path/'x')) == fingerprint(small()[0])
    to_hub(torch.compile(small()[0]), meta)


def test_a_run_is_shared(tmp_path, monkeypatch):
    "With its curve; the folder of the run itself is not written to."
    monkeypatch.chdir(tmp_path)
    run = tmp_path/'run'
    train(run, TrainConfig(steps=4, batch_size=8, warmup=1), UNetConfig(8, 1, 10, widths=(8,), blocks=(1,), emb=16, heads=1), device='cpu',
          save_every=2, log_every=1, progress=False)
    before = {p.name: p.read_bytes() for p in run.iterdir() if p.is_file()}
    shared = to_hub(run)
    refused(lambda: shared.save_pretrained(run), 'folder', 'new or empty')
    assert {p.name: p.read_bytes() for p in run.iterdir() if p.is_file()} == before
    shared.save_pretrained(tmp_path/'x')
    again = from_hub(tmp_path/'x')
    assert [r['step'] for r in again.meta['curve']] == [1, 2, 3, 4] and same(again.net, find_model(str(run))[0].net)
    assert again.meta['train'] == find_model(str(run))[1]['train'] and 'guidance' not in again.meta
    assert to_hub(tmp_path/'x').meta == again.meta, 'a folder is shared again with all that it says'
    refused(lambda: from_hub(run), 'config.json', 'to_hub')
    refused(lambda: from_hub(run/'model.safetensors'), 'to_hub(file)')


def test_a_folder_called_like_a_shipped_model(tmp_path, monkeypatch):
    "The card's own lines read the folder, not the model of the package."
    monkeypatch.chdir(tmp_path)
    denoise, meta = small()
    to_hub(denoise, meta).save_pretrained('digits')
    assert fingerprint(from_hub('digits')) == fingerprint(denoise)
    card = Path('digits/README.md').read_text()
    assert "find_model('./digits')" in card and '--model ./digits ' in card
    assert fingerprint(find_model('./digits')[0]) == fingerprint(denoise)


def test_the_lines_of_a_card_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, (denoise, meta) in {'plain': small(), 'a "student"': small(scaled=True)}.items():
        to_hub(denoise, meta).save_pretrained(name)
        card = Path(name, 'README.md').read_text()
        command = shlex.split(re.search(r'^cfg-sample (.+)$', card, re.M)[1])
        sample_main([*command, '--steps', '2', '--device', 'cpu'])
        assert np.load(f'{name}-samples/samples.npz')['images'].shape == (12, 8, 8, 1)
        code = re.search(r'```python\n(.+?)```', card, re.S)[1]
        space = {}
        exec(code, space)
        assert space['images'].shape == (3, 1, 8, 8)


def spoil(out, how):
    model, config = out/'model.safetensors', out/'config.json'
    content = model.read_bytes()
    if how == 'cut': model.write_bytes(content[:len(content)//2])
    if how == 'flipped header': model.write_bytes(content[:20] + b'\xff\xfe' + content[22:])
    if how == 'empty': model.write_bytes(b'')
    if how == 'pickle': torch.save(dict(a=1), model)
    if how == 'old pickle': model.write_bytes(b'\x80\x04}\x94.')
    if how == 'no model': model.unlink()
    if how == 'a folder': model.unlink(); model.mkdir()
    if how == 'classifier': shutil.copy(ROOT/'cfg_course'/'weights'/'digits-classifier.safetensors', model)
    if how == 'other config': config.write_text(config.read_text().replace('"edm"', '"eps"'))
    if how == 'no json': config.write_text('{')
    if how == 'bytes': config.write_bytes(b'\xff\xfe\x00')
    if how == 'a list': config.write_text('[1, 2]')
    if how == 'deep': config.write_text('['*100_000)
    if how == 'theirs': shutil.rmtree(out); out.mkdir(); config.write_text('{"_class_name": "UNet2DModel"}'); (out/'diffusion_pytorch_model.bin').write_bytes(b'x')
    if how == 'nothing': shutil.rmtree(out); out.mkdir()
    if how == 'gone': shutil.rmtree(out)


DAMAGE = ['cut', 'flipped header', 'empty', 'pickle', 'old pickle', 'no model', 'a folder', 'classifier', 'other config', 'no json', 'bytes', 'a list',
          'deep', 'theirs', 'nothing', 'gone']


@pytest.mark.parametrize('how', DAMAGE)
def test_a_damaged_or_foreign_folder_costs_a_line(how, tmp_path):
    out = tmp_path/'x'
    to_hub(*small()).save_pretrained(out)
    spoil(out, how)
    refused(lambda: from_hub(out))
    refused(lambda: hub_class().from_pretrained(out))


def test_never_a_pickle(tmp_path, monkeypatch):
    "Not even where the library would fall back to one."
    to_hub(*small()).save_pretrained(tmp_path/'x')
    (tmp_path/'x'/'model.safetensors').rename(tmp_path/'x'/'pytorch_model.bin')
    monkeypatch.setattr(torch, 'load', lambda *a, **k: pytest.fail('a pickle was read'))
    refused(lambda: from_hub(tmp_path/'x'))


@pytest.mark.parametrize('names', [['notes.txt'], ['config.json'], ['checkpoints/1']])
def test_a_folder_of_others_is_left_alone(names, tmp_path):
    "The mixin would begin by deleting config.json."
    for name in names:
        (tmp_path/name).parent.mkdir(exist_ok=True)
        (tmp_path/name).write_text('{"train": 1}')
    refused(lambda: to_hub(*small()).save_pretrained(tmp_path), 'folder')
    assert all((tmp_path/name).read_text() == '{"train": 1}' for name in names) and len(list(tmp_path.iterdir())) == 1
    refused(lambda: to_hub(*small()).save_pretrained(tmp_path/names[0]), 'folder') if (tmp_path/names[0]).is_file() else None


def test_saving_again_makes_the_card_anew_and_keeps_a_written_one(tmp_path):
    out = tmp_path/'x'
    to_hub(*small()).save_pretrained(out)
    to_hub('digits').save_pretrained(out)
    assert '502,241' in (out/'README.md').read_text() and same(from_hub(out).net, find_model('digits')[0].net)
    (out/'README.md').write_text('my words')
    to_hub(*small()).save_pretrained(out)
    assert (out/'README.md').read_text() == 'my words' and from_hub(out).meta['data'] == 'folder:mine'


@pytest.mark.parametrize('change, words', [
    (dict(classes=None), 'classes'), (dict(shape=[3, 8, 8]), 'shape'), (dict(classes=['a']*4), 'classes'), (dict(data=1), 'data'),
    (dict(more=torch.zeros(1)), 'JSON'), (dict(train=dict(p_uncond=2)), 'p_uncond')])
def test_facts_that_no_command_could_use(change, words):
    denoise, meta = small()
    facts = {k: v for k, v in {**meta, **change}.items() if v is not None}
    refused(lambda: to_hub(denoise, facts), words)


def test_what_is_no_model():
    refused(lambda: to_hub(small()[0]), 'meta', 'classes')
    refused(lambda: to_hub(small()[0].double(), small()[1]), 'weights', 'float64')
    refused(lambda: to_hub(nn.Linear(1, 1), {}), 'Denoiser')
    refused(lambda: to_hub('imagenet'), 'imagenet')
    refused(lambda: to_hub('digits-world'), 'model') if 'digits-world' in sharing.DATA else None


# What others learn

SECRET = 'hf_thisIsNoRealToken'
FOLDERS = ['/home/ada/secret/teacher', '~/secret/teacher', '../secret/teacher', 'C:\\Users\\ada\\secret\\teacher', '\\\\server\\secret\\teacher', 'file:///home/ada/secret/teacher']


@pytest.mark.parametrize('path', FOLDERS)
@pytest.mark.parametrize('pattern', ['{}', 'python train.py --teacher {} --out {}/x', "a remark (from {}), '{}', [{}]", '--out={}', 'x:{}'])
def test_paths_keep_their_last_name_alone(path, pattern):
    text = pattern.replace('{}', path)
    facts = dict(command=text, remark=text, train=dict(teacher=text, objective_args=[text]), curve=[dict(note=text)])
    told = json.dumps(public('', facts))
    assert not re.search(r'secret|ada|home|Users|server', told), told
    assert 'teacher' in told


@pytest.mark.parametrize('text', ['CC BY-SA 4.0 and/or MIT', 'see https://example.org/a/b/c.', '3/4 of them', 'a / b', 'x/y'])
def test_other_texts_stay(text):
    assert public('remark', text) == text


def test_nothing_of_this_machine_is_told(tmp_path, monkeypatch):
    "In no file, nor in what would be uploaded."
    monkeypatch.setenv('HF_TOKEN', SECRET)
    sent = {}
    monkeypatch.setattr(hub.HfApi, 'create_repo', lambda self, repo_id, **k: SimpleNamespace(repo_id=repo_id))
    def upload(self, *, repo_id, folder_path, **how):
        sent.update({str(p.relative_to(folder_path)): p.read_bytes() for p in Path(folder_path).rglob('*') if p.is_file()})
        return f'https://huggingface.co/{repo_id}'
    monkeypatch.setattr(hub.HfApi, 'upload_folder', upload)
    denoise, meta = small()
    save_denoiser(denoise, tmp_path/'mine.safetensors', **meta, step=3, command=f'python train.py --data-dir {tmp_path} --out={Path.home()}/runs/x',
                  train=dict(teacher=str(tmp_path/'teacher'), p_uncond=.1, dataset='folder'), remark=f'Begun in {ROOT}.')
    (tmp_path/'mine.csv').write_text('step,loss,lr,images_per_s,seconds\n1,2.5,0.1,3,4\n')
    shared = to_hub(tmp_path/'mine.safetensors')
    assert shared.push_to_hub('ada/mine') == 'https://huggingface.co/ada/mine'
    assert sorted(sent) == FILES
    for text in [str(tmp_path), str(Path.home()) + '/', str(ROOT), SECRET]:
        assert not [name for name in sent if text.encode() in sent[name]], text
    card = sent['README.md'].decode()
    assert 'hf download ada/mine --local-dir ./mine' in card and '| 1 | 2.5 |' in card and 'teacher' in card
    shared.save_pretrained(tmp_path/'y', push_to_hub=True, repo_id='ada/yours')
    assert 'ada/yours' in sent['README.md'].decode()


def test_the_hub_reads_the_card(tmp_path):
    for name, licence, data in [('digits', 'apache-2.0', None), ('mnist', 'apache-2.0', ['ylecun/mnist']), ('cifar10-16', 'apache-2.0', ['uoft-cs/cifar10'])]:
        shared = to_hub(name)
        facts = hub.ModelCard(model_card(shared, shared.meta, f'ada/{name}')).data.to_dict()
        assert (facts['license'], facts.get('datasets'), facts['library_name']) == (licence, data, 'cfg_course')
        assert 'classifier-free-guidance' in facts['tags']
    denoise, meta = small()
    odd = dict(meta, classes=['a\n---\nlicense: mit', 'b|c', '*x*'], remark='---\n# no\n', train=dict(dataset='<b>|'))
    card = model_card(denoise, sharing.header_of(denoise, odd), 'x')
    facts = hub.ModelCard(card).data.to_dict()
    assert 'license' not in facts and 'No licence was given' in card and 'ask before you use' in card
    assert not re.search(r'^# no', card, re.M) and '\\<b\\>\\|' in card
    assert all(line.count(' | ') == 1 for line in card.split('## Recipe')[1].splitlines() if line.startswith('|'))
    own = model_card(denoise, dict(sharing.header_of(denoise, meta), licence='mit', source='drawn by Ada, CC0'), 'x')
    assert hub.ModelCard(own).data.license == 'mit' and 'drawn by Ada, CC0' in own


def test_advice_is_measured_for_these_weights_or_not_given(tmp_path):
    for name in ('digits', 'cifar10-16', 'mnist-a'):
        denoise, _ = find_model(name)
        advice = advice_for(denoise)
        table = read_sweep(ROOT/'nbs'/'results'/f'{advice["table"]}.csv')
        best = advice['best']
        alike = (table.sampler == best['sampler']) & (table.samples == int(best['samples'])) & (table.steps == int(best['steps'])) & (table.seed == int(best['seed']))
        curve = table[alike & (table.model == name) & (table.method == 'cfg') & (table.parameters == '') & (table.metric == 'fid')]
        assert advice['metric'] == 'fid' and best['metrics']['fid'][0] == curve.value.min()
        assert float(best['scale']) in curve[curve.value == curve.value.min()].scale.tolist()
        assert all(p['metrics']['fid'][0] < 1e3 for p in advice['better'])
    assert advice_for(small()[0]) == {} == advice_for(find_model('mnist')[0], tmp_path/'nowhere')
    assert 'Not measured' in model_card(*(lambda d, m: (d, sharing.header_of(d, m)))(*small()))


def test_advice_rests_on_the_curve_with_most_images():
    "Two scales with many images each say little of the best one."
    def curve(name, scales, samples): return name, [dict(scale=str(s), samples=str(samples)) for s in scales]
    few, many = curve('few', (1, 3), 2000), curve('many', range(13), 1000)
    assert max([few, many], key=sharing.size_of) is many and max([few, curve('twin', (1, 3), 2000)], key=sharing.size_of) is few
    advice = advice_for(find_model('mnist-a')[0])
    assert advice['table'] == 'mnist_tradeoff' and len(advice['curve']) == 13


def test_advice_from_a_table_of_ones_own(tmp_path):
    "By accuracy where there were no real images; odd files beside it are passed over."
    points = sweep_points(['cfg', 'apg'], [1., 2., 0.], model='digits', num=20, sampling=(('sampler', 'ddim'), ('steps', 3)))
    run_sweep(points, tmp_path/'rows.csv', make_yardstick('digits', ['accuracy']), device='cpu', progress=False)
    for name, text in {'a.json': '[', 'b.json': '{"config": {"weights": []}}', 'c.json': '{"config": {"weights": {"digits": 3}}}'}.items(): (tmp_path/name).write_text(text)
    note = (tmp_path/'rows.json').read_text()
    for name, rows in dict(d='x,y\n1', e=','.join(COLUMNS) + '\n1,2\n', f='').items():
        (tmp_path/f'{name}.json').write_text(note)
        (tmp_path/f'{name}.csv').write_text(rows)
    (tmp_path/'g.json').write_text(note)
    (tmp_path/'g.csv').write_bytes(b'\xff\xfe\x00')
    shared = to_hub('digits', results=tmp_path)
    advice = shared.meta['guidance']
    assert (advice['table'], advice['metric'], [p['scale'] for p in advice['curve']]) == ('rows', 'accuracy', ['0', '1', '2'])
    assert f'**scale {advice["best"]["scale"]}**' in model_card(shared, shared.meta)


def test_a_full_disk_costs_a_line_and_leaves_a_folder_that_can_be_read(tmp_path, monkeypatch):
    "Between the two files; the mixin has removed the old copy of the header by then."
    to_hub(*small()).save_pretrained(tmp_path/'x')
    def full(*args): raise OSError(28, 'No space left on device')
    with monkeypatch.context() as m:
        m.setattr(sharing, 'write_json', full)
        refused(lambda: to_hub('digits').save_pretrained(tmp_path/'x'), 'No space left')
    assert same(from_hub(tmp_path/'x').net, find_model('digits')[0].net)
    to_hub('digits').save_pretrained(tmp_path/'x')
    assert sorted(p.name for p in (tmp_path/'x').iterdir()) == FILES


# The Hub

def test_without_a_net(tmp_path):
    shared = to_hub(*small())
    refused(lambda: shared.push_to_hub('ada/mine'), 'hub', 'ada/mine')
    refused(lambda: from_hub('ada/none', cache_dir=tmp_path), 'hub', 'ada/none')
    refused(lambda: from_hub('no/such/name', cache_dir=tmp_path), 'hub')
    refused(lambda: from_hub('', cache_dir=tmp_path))


def test_what_was_fetched_before_is_read(tmp_path):
    "From the library's own cache, laid out as it lays it out."
    denoise, meta = small()
    where = tmp_path/'models--ada--mine'
    (where/'refs').mkdir(parents=True)
    (where/'refs'/'main').write_text('1'*40)
    to_hub(denoise, meta).save_pretrained(where/'snapshots'/('1'*40))
    again = from_hub('ada/mine', cache_dir=tmp_path)
    assert fingerprint(again) == fingerprint(denoise) and again.meta['classes'] == meta['classes']
    (where/'snapshots'/('1'*40)/'config.json').write_text('[')
    refused(lambda: from_hub('ada/mine', cache_dir=tmp_path))


LIGHT = '''
import sys
sys.modules.update(dict.fromkeys(['huggingface_hub', 'diffusers', 'transformers', 'pandas', 'accelerate']))
from cfg_course.sharing import from_hub, to_hub, measure
from cfg_course import find_model, InputError
print(find_model(sys.argv[1])[1]['data'])
for act in (lambda: to_hub('digits'), lambda: from_hub(sys.argv[1])):
    try: act()
    except InputError as e: print(e)
'''


def test_a_light_install_reads_folders_and_says_what_is_missing(tmp_path):
    to_hub(*small()).save_pretrained(tmp_path/'x')
    done = subprocess.run([sys.executable, '-c', LIGHT, str(tmp_path/'x')], capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': str(ROOT)}, cwd='/')
    line = 'huggingface_hub: not installed; to get it: pip install "cfg_course[pipelines]"'
    assert done.stdout.splitlines() == ['folder:mine', line, line], done.stderr


# A pipeline on the bench

class Foreign(nn.Module):
    "A network of somebody else."
    def __init__(self, seed):
        super().__init__()
        self.means = nn.Parameter(torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(seed))/2)

    def forward(self, x, sigma, y): return torch.tanh((x + sigma**2*self.means[y])/(1 + sigma**2))


class Pipe:
    "Stands for a denoiser of `from_pipeline`: latents of half the size, a decoder, and a network inside."
    negative, device, latents, dtype = 'blurry', 'cpu', True, torch.float32

    def __init__(self, prompts=('a cat', 'a dog that runs', 'sunset over the sea, oil on canvas, by nobody'), steps=4, seed=0):
        self.net, self.prompts, self.classes, self.shape = Foreign(seed), list(prompts), len(prompts), (1, 8, 8)
        self.sigmas = make_sampler('heun', steps)[1]
        self.asked, self.pipe = 0, SimpleNamespace(name_or_path='/home/ada/models/mine')

    def __call__(self, x, sigma, y):
        self.asked += len(x)
        return self.net(x, sigma, y)

    def decode(self, x): return x.repeat_interleave(2, -1).repeat_interleave(2, -2).expand(-1, 3, -1, -1)

    def conditioned(self, change):
        other = Pipe(self.prompts)
        other.net, other.change = self.net, change
        return other

    def within(self, guided):
        def run(prompt, generator, output_type='pil'):
            assert output_type == 'latent'
            y, levels = torch.tensor([self.prompts.index(p) for p in prompt]), self.sigmas.tolist()
            x = levels[0]*torch.stack([torch.randn(self.shape, generator=g) for g in generator])
            steps = Run(range(len(y)))
            for a, b in zip(levels, levels[1:]):
                with steps.next_step(): x = x + (b - a)/a*(x - guided(x, a, y))
            return SimpleNamespace(images=x)
        return run


class EulerScheduler: pass


class Theirs:
    scheduler = EulerScheduler()
    def __call__(self, prompt, output_type='pil', generator=None): "As a pipeline has it."


def score(images, prompts):
    assert images.dtype == torch.uint8 and images.shape[1:] == (3, 16, 16) and len(images) == len(prompts)
    return [x.float().mean().item()/255 + len(p)/1000 for x, p in zip(images, prompts)]


def features(images): return images.float().flatten(1)[:, :5]
def logits(images): return images.float().flatten(1)[:, :3]
def pair(images): return features(images), logits(images)


QUICK = dict(techniques=['cfg', 'apg', 'cfgpp'], scales=[1, 3.], judge=score, n=7, batch_size=3, progress=False)


def bench(pipe=None, **how): return measure(pipe or Pipe(), **{**QUICK, **how})


def test_rows_are_those_of_sweeps(tmp_path):
    rows = bench(out=tmp_path/'deep'/'rows.csv')
    assert list(rows.columns) == COLUMNS and len(rows) == 2*5
    table = read_sweep(tmp_path/'deep'/'rows.csv', samples=7, model='mine', sampler='ddim', steps=4)
    assert set(table.metric) == {'score', 'effective_scale'} and table[table.metric == 'score'].low.notna().all()
    nfe = table[table.metric == 'score'].set_index(['method', 'scale']).nfe
    assert nfe['cfg', 1] == 4 and nfe['cfg', 3] == nfe['apg', 3] == 8
    note = json.loads((tmp_path/'deep'/'rows.json').read_text())
    assert note['config']['prompts'] == Pipe().prompts and '/home' not in json.dumps(note)
    assert sorted(p.name for p in (tmp_path/'deep').iterdir()) == ['rows.csv', 'rows.json', 'rows.safetensors']


@pytest.mark.parametrize('judge, metrics', [
    (score, ['score']), (features, ['feature_spread']), (logits, ['accuracy', 'confidence']), (pair, ['accuracy', 'confidence']), (None, ['saturation']),
    (lambda images, prompts: torch.ones(len(images), 1), ['score']), (lambda images: features(images).numpy(), ['feature_spread']),
    (lambda images, prompts=None: features(images), ['feature_spread'])])
def test_any_judge(judge, metrics):
    rows = bench(judge=judge, techniques='cfg', scales=2)
    assert rows.metric.tolist() == [*metrics, 'effective_scale'] and (rows.value != '').all()


def test_a_network_as_judge():
    class Clip(nn.Module):
        def __init__(self): super().__init__(); self.w = nn.Parameter(torch.ones(1))
        def forward(self, images, texts): return self.w*images.float().mean((1, 2, 3))
    assert 'score' in set(bench(judge=Clip(), techniques='cfg', scales=2).metric)


def test_distances_only_with_real_images():
    real = torch.randint(256, (30, 3, 16, 16), dtype=torch.uint8)
    rows = bench(judge=features, reference=real, n=9, techniques='cfg', scales=2, metrics=['fid', 'kid', 'feature_spread', 'nearest', 'class_std'])
    assert rows.metric.tolist()[:5] == ['fid', 'kid', 'feature_spread', 'nearest', 'class_std'] and (rows.value[:5] != '').all()
    assert bench(judge=features, reference=real.float()/127.5 - 1, n=9, techniques='cfg', scales=2).metric.tolist()[0] == 'fid'
    refused(lambda: bench(judge=features, metrics=['fid']), 'metrics', "'fid'", 'feature_spread')
    refused(lambda: bench(judge=score, reference=real), 'reference', 'features')
    refused(lambda: bench(reference=real, judge=None), 'reference')
    refused(lambda: bench(judge=features, reference=real[:1]), 'reference')
    refused(lambda: bench(judge=features, reference=real, metrics=['cas']), 'cas')


def test_labels_of_a_judge_with_other_classes():
    def judge(images): return features(images), images.float().flatten(1)[:, :10]
    assert bench(judge=judge, techniques='cfg', scales=2).metric.tolist()[0] == 'feature_spread'
    for labels in ([9, 0, 3], torch.tensor([9, 0, 3]), np.array([9, 0, 3])): assert bench(judge=judge, techniques='cfg', scales=2, labels=labels).metric.tolist()[0] == 'accuracy'
    for labels in ([1, 2], [0, 1, 10], [0, 1, -1], ['a', 'b', 'c']): refused(lambda labels=labels: bench(judge=judge, labels=labels), 'labels')
    refused(lambda: bench(judge=score, labels=[0, 1, 2]), 'labels')


def test_image_i_depends_on_seed_prompt_and_i_alone():
    whole = bench()
    numbers = pd.to_numeric(whole.value)
    for batch_size in (1, 2, 50): assert (pd.to_numeric(bench(batch_size=batch_size).value) - numbers).abs().max() < 1e-5
    assert bench(seed=1).value.tolist() != whole.value.tolist()
    assert bench(prompts=Pipe().prompts).to_dict() == whole.to_dict()


@pytest.mark.parametrize('n, shares', [(3, [1, 1, 1]), (4, [2, 1, 1]), (7, [3, 2, 2]), (8, [3, 3, 2])])
def test_shares_of_prompts(n, shares):
    seen = []
    def judge(images, prompts):
        seen.extend(prompts)
        return torch.zeros(len(images))
    bench(judge=judge, n=n, techniques='cfg', scales=2)
    seen = seen[min(n, 3):] # after the rehearsal
    assert [seen.count(p) for p in Pipe().prompts] == shares


def test_some_prompts_of_a_denoiser():
    pipe = Pipe()
    rows = bench(pipe, prompts=pipe.prompts[2:0:-1], n=4, techniques='cfg', scales=2)
    assert rows.dataset[0] != bench(pipe, n=4, techniques='cfg', scales=2).dataset[0]
    assert len(bench(pipe, prompts='a cat', n=4, techniques='cfg', scales=2)) == 2


def test_duplicates_are_drawn_once():
    pipe = Pipe()
    rows = bench(pipe, techniques=['cfg', 'cfg', ('cfg', {})], scales=[2, 2., 2])
    assert len(rows) == 2
    assert len(bench(techniques=[('apg', dict(eta=.5)), ('apg', dict(eta=.2)), 'apg', ('apg', dict(eta=.5))], scales=2)) == 6


def test_options_appear_in_the_table():
    rows = bench(techniques=[('apg', dict(eta=.5)), ('negative', dict(label=1)), ('autoguidance', dict(model=Pipe(seed=3)))], scales=2, interval=(.1, 5.))
    assert list(rows.parameters.unique())[:2] == ['eta=0.5 interval=0.1..5', 'label=1 interval=0.1..5']
    assert re.fullmatch(r'model=Pipe-[0-9a-f]{16} interval=0.1..5', rows.parameters.unique()[2])


WRONG = [
    (dict(techniques='cgf'), ['guidance', 'did you mean']), (dict(techniques=[]), ['techniques', 'one or more']), (dict(techniques=['cfg', 'apg@']), ['apg@']),
    (dict(techniques=('apg', dict(etta=1))), ['etta', 'eta']), (dict(techniques='pag'), ['pag at scale 1', 'network']) , (dict(techniques='classifier'), ['classifier']),
    (dict(techniques='negative'), ['negative', 'label']), (dict(techniques=('negative', dict(label=3))), ['label']), (dict(techniques=('apg', dict(eta=print))), ['eta']),
    (dict(scales=[]), ['scales']), (dict(scales='big'), ['scales']), (dict(scales=[1, float('nan')]), ['scales', 'finite']), (dict(scales=True), ['scales']),
    (dict(n=2), ['n: got 2', 'each prompt']), (dict(n=7.5), ['n: got 7.5']), (dict(n=True), ['n: got True']), (dict(batch_size=0), ['batch_size']), (dict(seed=-1), ['seed']),
    (dict(prompts=[]), ['prompts']), (dict(prompts=['a cat', 'a bird']), ['prompts', 'a bird']), (dict(prompts=['a cat', 'a cat']), ['prompts', 'once']),
    (dict(sampler='eular'), ['sampler']), (dict(interval=(5., 1.)), ['interval']), (dict(interval=(1e5, 1e6)), ['interval', 'noise level']), (dict(interval=3), ['interval']), (dict(interval=('a', 2)), ['interval']), (dict(interval=(1.,)), ['interval']),
    (dict(metrics=['beauty']), ['metrics', 'beauty']), (dict(metrics=['accuracy']), ['metrics', 'score']), (dict(judge=3), ['judge']), (dict(judge=JUDGE), ['judge', '(1, 8, 8)']),
    (dict(judge=lambda x: x), ['judge', '(3, 3, 16, 16)']), (dict(judge=lambda x: x.float().mean()), ['judge']), (dict(judge=lambda x: 'good'), ['judge', 'str']),
    (dict(judge=lambda x, p: torch.eye(len(p))), ['judge', '(3, 3)']), (dict(judge=lambda x, p: [float('nan')]*len(p)), ['judge', 'finite']), (dict(judge=lambda x: (1, 2, 3)), ['judge']),
    (dict(steps=5), ['options', 'from_pipeline']), (dict(height=64), ['options', 'height']), (dict(negative='ugly'), ['options']), (dict(out='rows.txt'), ['.csv']),
    (dict(techniques='cfgpp', sampler='own'), ['own', 'brings its own steps'])]


@pytest.mark.parametrize('how, words', WRONG, ids=range(len(WRONG)))
def test_a_mistake_costs_a_line_before_anything_is_drawn(how, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pipe = Pipe()
    pipe.pipe = Theirs()
    refused(lambda: bench(pipe, **how), *words)
    assert pipe.asked <= 6 and not list(tmp_path.iterdir())


def test_what_it_costs_is_said_before(capsys):
    pipe = Pipe()
    def judge(images, prompts):
        if pipe.asked > 6: said.append(capsys.readouterr().out)
        return torch.zeros(len(images))
    said = []
    bench(pipe, judge=judge, progress=True, techniques=['cfg', 'apg'], scales=[1, 3])
    assert '4 settings, 28 images: about 168 network evaluations' in said[0]


# What ends it

class Stop(Exception): pass


def stopping(after):
    calls = []
    def judge(images, prompts):
        calls.append(1)
        if len(calls) > after: raise Stop
        return score(images, prompts)
    judge.__qualname__ = 'score'
    return judge


def same_files(a, b): return all(a.with_suffix(s).read_bytes() == b.with_suffix(s).read_bytes() for s in ('.csv', '.safetensors'))


@pytest.mark.parametrize('after', [0, 1, 3, 4, 5, 9, 15])
def test_interrupted_it_goes_on_to_the_same_rows(after, tmp_path):
    whole, out = tmp_path/'whole.csv', tmp_path/'rows.csv'
    bench(out=whole)
    with pytest.raises(Stop): bench(out=out, judge=stopping(after))
    for k in (after + 2, 99):
        try: bench(out=out, judge=stopping(k))
        except Stop: pass
    pipe = Pipe()
    bench(pipe, out=out)
    assert same_files(whole, out) and pipe.asked == 6, 'nothing is drawn twice'
    assert sorted(p.suffix for p in tmp_path.iterdir()) == ['.csv', '.csv', '.json', '.json', '.safetensors', '.safetensors']


@pytest.mark.parametrize('name', ['save_tensors', 'write_table', 'write_json'])
@pytest.mark.parametrize('when', ['before', 'after'])
@pytest.mark.parametrize('k', [1, 2])
def test_killed_while_it_writes(name, when, k, tmp_path):
    "The process is gone at once, between any two of the three files."
    whole, out = tmp_path/'whole.csv', tmp_path/'rows.csv'
    bench(out=whole)
    child = os.fork()
    if not child:
        module = sweeps if name == 'write_json' else sharing
        write, calls = getattr(module, name), []
        def fatal(*args):
            calls.append(1)
            if len(calls) < k: return write(*args)
            if when == 'after': write(*args)
            os._exit(9)
        setattr(module, name, fatal)
        try: bench(out=out)
        finally: os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    bench(out=out)
    assert same_files(whole, out) and not [p for p in tmp_path.iterdir() if p.name[0] == '.']


def test_killed_while_it_replaces(tmp_path):
    "Begun anew, it stays anew: old rows never come back among new ones."
    out = tmp_path/'rows.csv'
    bench(out=out)
    with pytest.raises(Stop): bench(out=out, overwrite=True, techniques='apg', judge=stopping(5))
    table = bench(out=out, techniques='apg')
    assert set(table.method) == {'apg'} and len(read_numbers(out)) == 4


@pytest.mark.parametrize('how, words', [
    (dict(seed=0, pipe=Pipe(seed=1)), 'weights'), (dict(pipe=Pipe(['a cat', 'a dog', 'a bird'])), 'prompts'), (dict(pipe=Pipe(steps=5)), 'levels'),
    (dict(judge=features), 'metrics'), (dict(judge=lambda x, p: torch.zeros(len(p))), 'judge'), (dict(metrics=['score', 'ink']), 'metrics')])
def test_it_does_not_go_on_with_something_else(how, words, tmp_path):
    out = tmp_path/'rows.csv'
    bench(out=out)
    before = [p.read_bytes() for p in sorted(tmp_path.iterdir())]
    refused(lambda: bench(out=out, **how), words)
    assert [p.read_bytes() for p in sorted(tmp_path.iterdir())] == before


def test_a_table_grows(tmp_path):
    out = tmp_path/'rows.csv'
    bench(out=out)
    assert len(bench(out=out, scales=[1, 3, 5])) == 14 and len(bench(out=out, seed=1)) == 24 and len(bench(out=out, n=8)) == 34


@pytest.mark.parametrize('name, content', [('rows.csv', 'a,b\n'), ('rows.json', '{}'), ('rows.safetensors', 'weights of somebody')])
def test_files_of_others_are_not_replaced(name, content, tmp_path):
    (tmp_path/name).write_text(content)
    for overwrite in (False, True):
        if name == 'rows.csv' and overwrite: continue
        refused(lambda overwrite=overwrite: bench(out=tmp_path/'rows.csv', overwrite=overwrite), 'out')
    assert (tmp_path/name).read_text() == content and len(list(tmp_path.iterdir())) == 1


def test_a_damaged_file_of_numbers(tmp_path):
    out = tmp_path/'rows.csv'
    bench(out=out)
    (tmp_path/'rows.safetensors').write_bytes(b'x')
    refused(lambda: bench(out=out), 'damaged')
    refused(lambda: pairs(out, method='cfg', scale=1))
    bench(out=out, overwrite=True)
    (tmp_path/'rows.safetensors').unlink()
    assert len(bench(out=out)) == 10 and len(pairs(out, method='cfg', scale=1)) == 0


# Pairs

def test_pairs_are_differences_of_the_same_images(tmp_path):
    out, kept = tmp_path/'rows.csv', {}
    def judge(images, prompts):
        kept.setdefault('all', []).append(score(images, prompts))
        return score(images, prompts)
    bench(out=out, judge=judge, n=30, batch_size=30, techniques='cfg', scales=[1, 3], metrics=['score', 'ink'])
    a, b = (torch.tensor(v, dtype=torch.float64) for v in kept['all'][1:])
    table = pairs(out, method='cfg', scale=1).set_index('metric')
    assert abs(table.difference['score'] - (b - a).mean()) < 1e-5
    strata = (b - a).reshape(3, 10)
    half = 1.96*(strata.var(1).sum()/10/9).sqrt()
    assert abs(table.high['score'] - table.difference['score'] - half) < 1e-9
    back = pairs(out, method='cfg', scale=3).set_index('metric')
    assert abs(back.difference['ink'] + table.difference['ink']) < 1e-12


def test_pairs_with_nobody(tmp_path):
    out = tmp_path/'rows.csv'
    bench(out=out)
    refused(lambda: pairs(out, method='cfg'), 'against', 'cfg 1')
    refused(lambda: pairs(out, method='cads', scale=3.), 'against')
    refused(lambda: pairs(out, colour='red'), 'against')
    refused(lambda: pairs(tmp_path/'none.csv', method='cfg'), 'results')
    bench(out=out, seed=1)
    assert set(pairs(out, method='cfg', scale=1, seed=0).seed) == {'0'}


def test_intervals_hold():
    "Of 60 differences of independent numbers about 57 hold the truth; fewer than 50 would be a fault."
    held = 0
    for seed in range(60):
        g = torch.Generator().manual_seed(seed)
        a, b = torch.randn(2, 40, generator=g, dtype=torch.float64)
        y = torch.arange(40) % 4
        row, base = (dict(value=str(v.mean().item()), metric='score') for v in (a, b))
        found = sharing.paired(a, b, y, row, base)
        held += found['low'] <= 0 <= found['high']
    assert held >= 50


# The pipeline's own loop, and pipelines

def test_the_pipelines_own_loop(tmp_path):
    "Euler's steps of ours and of the stand-in are the same; so are the pictures, and their number of evaluations."
    pipe = Pipe()
    pipe.pipe = Theirs()
    out = tmp_path/'rows.csv'
    own, ours = (bench(pipe, sampler=s, techniques=['cfg', 'apg'], out=out) for s in ('own', 'ddim'))
    ours = ours[ours.sampler == 'ddim'].reset_index(drop=True)
    own, mine = own.reset_index(drop=True), own.metric == 'score'
    assert own[mine].nfe.tolist() == ours[mine].nfe.tolist() and set(own.sampler) == {'EulerScheduler'}
    assert (own[mine].value.astype(float) - ours[mine].value.astype(float)).abs().max() < 1e-4
    assert set(pairs(out, method='cfg', scale=1, sampler='EulerScheduler').method) == {'cfg', 'apg'}
    refused(lambda: bench(SimpleNamespace(**{k: getattr(Pipe(), k) for k in ('prompts', 'sigmas', 'shape', 'decode')}), sampler='own'), 'sampler', 'own')


def test_images_of_a_pipeline_that_gives_no_latents():
    pictures = np.random.default_rng(0).random((2, 4, 4, 3))
    from PIL import Image
    as_bytes = (pictures*255).round().astype(np.uint8)
    for found in (pictures, list(pictures), as_bytes, [Image.fromarray(p) for p in as_bytes]):
        x = sharing.pictures_of(None, found)
        assert x.dtype == torch.uint8 and x.shape == (2, 3, 4, 4) and (x.int() - torch.from_numpy(as_bytes).movedim(-1, 1).int()).abs().max() <= 1


def test_what_changed_conditions_cost_is_counted():
    tally = sharing.Tally(Pipe())
    x, y = torch.randn(2, 1, 8, 8), torch.tensor([0, 1])
    tally(x, 1., y)
    tally.conditioned(lambda rows: rows).conditioned(lambda rows: rows)(x, 1., y)
    assert tally.rows == 4 and tally.classes == 3 and not hasattr(tally, 'nothing')
    assert not hasattr(sharing.Tally(SimpleNamespace()), 'conditioned')


def test_a_pipeline_becomes_a_denoiser(monkeypatch):
    asked = {}
    def from_pipeline(pipe, prompts, negative=None, steps=30, **options):
        asked.update(prompts=prompts, negative=negative, steps=steps, **options)
        return Pipe(prompts, steps=min(steps, 5))
    monkeypatch.setitem(sys.modules, 'cfg_course.pipelines', SimpleNamespace(from_pipeline=from_pipeline))
    rows = bench(Theirs(), prompts=['a cat', 'a longer prompt'], negative='bad', steps=4, height=64, techniques='cfg', scales=2)
    assert asked == dict(prompts=['a cat', 'a longer prompt'], negative='bad', steps=4, height=64) and rows.steps[0] == '4'
    bench(Theirs(), prompts='a cat', techniques='cfg', scales=2)
    assert asked['prompts'] == ['a cat'] and asked['steps'] == 30
    refused(lambda: bench(Theirs()), 'prompts')


def test_a_sample_that_is_not_finite_names_its_setting(tmp_path):
    class Bad(Pipe):
        def __call__(self, x, sigma, y): return super().__call__(x, sigma, y)*(float('inf') if self.asked > 50 else 1)
    refused(lambda: bench(Bad(), out=tmp_path/'rows.csv'), 'at scale', 'not finite')
    assert len(read_sweep(tmp_path/'rows.csv')) > 0, 'what was measured before stays'


def test_a_tiny_pipeline_of_diffusers(tmp_path):
    "Both roads, where the chapter of pipelines is there: about the same pictures, and the network as it was."
    pytest.importorskip('cfg_course.pipelines')
    tiny = pytest.importorskip('tiny_pipelines')
    family = tiny.FAMILIES['SD 1.5']
    pipe = family.pipe()
    before = fingerprint(pipe.unet)
    def brightness(images, prompts): return images.float().flatten(1).mean(1)/255
    how = dict(techniques=['cfg', 'apg'], scales=[1, 5], judge=brightness, n=4, batch_size=3, steps=4, negative='blurry', progress=False, **family.call)
    with tiny.hushed():
        rows = [measure(pipe, ['a cat', 'a dog that runs', 'sun'], sampler=sampler, out=tmp_path/'rows.csv', **how) for sampler in ('ddim', 'own')][1]
    scores = rows[rows.metric == 'score']
    assert scores.sampler.tolist() == ['ddim']*4 + ['DDIMScheduler']*4 and scores.nfe.tolist() == ['4', '8', '4', '8']*2
    ours, own = scores.value.astype(float).to_numpy().reshape(2, 4)
    assert abs(ours - own).max() < 1e-3 and fingerprint(pipe.unet) == before and 'forward' not in vars(pipe.unet)
