"""One run over several processes (gloo on the CPU): the numbers of one process, restarts on another number of them."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, Qwen2Config, Qwen2ForCausalLM

from lora_mbpp.core.config import resolve
from lora_mbpp.core.errors import complaint
from lora_mbpp.core.files import read_json
from lora_mbpp.models.tiny import tiny_tokenizer
from lora_mbpp.train import train
from lora_mbpp.training.launch import check_gpu_memory
from lora_mbpp.training.memory_plan import Precision
from lora_mbpp.training.rows import share_of
from lora_mbpp.training.time_plan import Machine, Workload, plan_run

pytestmark = pytest.mark.skipif(os.name == 'nt', reason='torchrun wants libuv on Windows')
NUMBERS = dict(preset='test', source='starter', rank=4, max_steps=30, effective_batch=5, checkpoint_every=2)
NUMBERS |= dict(train_limit=21, val_limit=4)
CHECKPOINTS = 'checkpoints/checkpoint-*/whole.json'


def torchrun(processes):
    """The launcher's command, on a port that is free."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    launcher = [sys.executable, '-m', 'torch.distributed.run']
    return [*launcher, '--nproc-per-node', str(processes), '--master-port', port]


def command(place, processes, name, **given):
    """`torchrun ... -m lora_mbpp.cli train`, and the folder of its adapter."""
    options = {**NUMBERS, 'data_dir': place / 'data', 'artifacts_dir': place / name, **given}
    words = [part for k, v in options.items() for part in ('--' + k.replace('_', '-'), str(v))]
    folder = place / name / 'checkpoints' / f"test-r{options['rank']}-s0"
    return [*torchrun(processes), '-m', 'lora_mbpp.cli', 'train', *words], folder


def finished(run, **settings):
    """A command that ended well."""
    done = subprocess.run(run, capture_output=True, text=True, timeout=300, **settings)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def wait_for(seconds, process, found):
    """Until `found()`, the end of the process, or so many seconds; returns what was found."""
    deadline = time.time() + seconds
    while time.time() < deadline and process.poll() is None and not found():
        time.sleep(0.002)
    return found()


def train_info(place, name):
    return read_json(place / name / 'metrics' / 'test-r4-s0.json')['train_info']


def losses(place, name):
    return [e['loss'] for e in train_info(place, name)['losses']]


@pytest.fixture(scope='module')
def one(tmp_path_factory):
    """The folder with the run of one process, under the name `one`."""
    place = tmp_path_factory.mktemp('processes')
    finished(command(place, 1, 'one')[0])
    return place


def check_same(place, name, folder):
    """Thirty steps, a last batch of one document in each epoch among them: fewer than processes."""
    assert losses(place, name) == pytest.approx(losses(place, 'one'), abs=1e-5)
    ours = load_file(folder / 'adapter_model.safetensors')
    theirs = load_file(place / 'one' / 'checkpoints' / 'test-r4-s0' / 'adapter_model.safetensors')
    assert all(torch.allclose(ours[n], theirs[n], atol=1e-5) for n in theirs)
    assert train_info(place, name)['order'] == train_info(place, 'one')['order']


@pytest.mark.slow
def test_two_processes_are_one(one):
    run, folder = command(one, 2, 'two')
    done = finished(run)
    assert '2 processes;' in done.stdout and done.stdout.count('steps, ') == 2 and done.stdout.count('adapter in') == 1
    check_same(one, 'two', folder)


@pytest.mark.slow
def test_two_processes_that_share_the_weights_are_one(one):
    """Each holds half of every layer; rows so short that one process has more of them than the other in most steps."""
    run, folder = command(one, 2, 'shared', sharding='full', row_tokens=1, recomputed_layers=1)
    done = finished(run)
    assert 'base weights shared among 2 processes (FSDP2)' in done.stdout
    check_same(one, 'shared', folder)
    whole, shared = (train_info(one, name) for name in ('one', 'shared'))
    assert whole['parameters'] == shared['parameters']
    assert whole['val_nll'][-1]['nll'] == pytest.approx(shared['val_nll'][-1]['nll'], abs=1e-5)


@pytest.mark.slow
def test_packed_weights_are_shared():
    """NF4: each of two processes holds half of the bytes; the gradients are those of whole weights."""
    pytest.importorskip('bitsandbytes', reason='bitsandbytes is not installed: pip install -e ".[cuda]"')
    script = Path(__file__).with_name('packed_halves.py')
    finished([*torchrun(2), str(script)], env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)})


def plan_for(lengths, targets):
    """Plans of a model with large layers in four processes, on a GPU of `budget` GiB each."""
    sizes = dict(vocab_size=259, hidden_size=512, intermediate_size=2048)
    config = LlamaConfig(**sizes, num_hidden_layers=32, num_attention_heads=8)
    work, bfloat16 = Workload(lengths, targets, steps=10), Precision('bfloat16', nf4=False, fused=True)

    def plan(budget=1.0, **given):
        machine = Machine('cuda', processes=4, budget=budget, present=False)
        return plan_run(resolve('test', **given), config, work, bfloat16, machine)

    return plan


def test_unequal_gpus_and_weights_that_nobody_shares():
    assert '12, 24 GiB' in complaint(check_gpu_memory, [12.0, 24.0]) and check_gpu_memory([23.6, 24.0]) is None
    assert '--gpus 2' in complaint(train, resolve(preset='test', sharding='full'))
    plan = plan_for(lengths=[100], targets=50)
    assert plan(budget=0.6).layout.weight_shards == 1
    assert plan(budget=0.35).layout.weight_shards == 4
    assert plan(sharding='full').layout.weight_shards == 4
    assert plan(budget=0.35, row_tokens=100, recomputed_layers=2).layout.weight_shards == 4
    assert 'dora' in complaint(plan, sharding='full', method='dora')
    assert 'share the weights' not in complaint(plan, budget=0.35, method='dora')


@pytest.mark.slow
@pytest.mark.parametrize('before, after', [(2, 1), (1, 2)])
def test_a_killed_run_goes_on_with_another_number(one, before, after):
    """The two processes share the weights, the one has them whole."""
    name = f'from{before}to{after}'
    run, folder = command(one, before, name, **({'sharding': 'full'} if before == 2 else {}))
    process = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(120, process, lambda: list(folder.glob(CHECKPOINTS)))
    launcher = psutil.Process(process.pid)
    for member in [launcher, *launcher.children(recursive=True)]:  # its workers have groups of their own
        member.kill()
    process.wait()
    assert list(folder.glob(CHECKPOINTS)), 'the run ended before it could be killed'
    run, folder = command(one, after, name, **({'sharding': 'full'} if after == 2 else {}))
    done = finished(run)
    assert 'continuing from' in done.stdout
    check_same(one, name, folder)


def test_shares_are_even_and_complete():
    lengths = [5, 100, 40, 45, 7, 60, 3]
    parts = [share_of(lengths, 3, mine) for mine in range(3)]
    assert sorted(i for part in parts for i in part) == list(range(7))
    loads = [sum(lengths[i] for i in part) for part in parts]
    assert max(loads) == 100 and share_of([9, 8], 3, 2) == []


@pytest.mark.slow
def test_from_a_notebook(one, capsys):
    """`gpus` starts the same launcher; what a process says is heard, and a mistake is its own sentence."""
    given = {**NUMBERS, 'data_dir': str(one / 'data'), 'artifacts_dir': str(one / 'launched'), 'gpus': 2}
    metrics = train(resolve(**given))
    assert '2 processes;' in capsys.readouterr().out and metrics['run_info']['rank'] == 4
    check_same(one, 'launched', one / 'launched' / 'checkpoints' / 'test-r4-s0')
    assert 'exists with other parameters (lr 0.001 -> 0.1)' in complaint(train, resolve(**given, lr=0.1))


@pytest.mark.slow
def test_a_killed_process_ends_the_run_in_a_sentence(one):
    """Within a minute, nothing of it is left, and the same command continues."""
    given = {**NUMBERS, 'data_dir': one / 'data', 'artifacts_dir': one / 'hit', 'gpus': 2}
    words = [part for k, v in given.items() for part in ('--' + k.replace('_', '-'), str(v))]
    run = [sys.executable, '-m', 'lora_mbpp.cli', 'train', *words]
    process = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert wait_for(120, process, lambda: list(one.glob(f'hit/checkpoints/*/{CHECKPOINTS}')))
    family = psutil.Process(process.pid).children(recursive=True)
    workers = [one for one in family if one.environ().get('LOCAL_RANK') == '1']
    workers[0].kill()
    started = time.time()
    _, said = process.communicate(timeout=60)
    assert time.time() - started < 60 and process.returncode == 2
    assert 'processes (local rank 1) was killed by SIGKILL' in said.splitlines()[-1]
    assert not psutil.wait_procs(family, timeout=5)[1]
    done = finished(run)
    assert 'continuing from' in done.stdout and 'destroy_process_group' not in done.stderr
    check_same(one, 'hit', one / 'hit' / 'checkpoints' / 'test-r4-s0')


@pytest.mark.slow
@pytest.mark.parametrize('quantization', ['none', 'nf4'])
def test_weights_read_layer_by_layer_are_those_of_a_load(tmp_path, quantization):
    """Two processes: bytes, gradients and counts are those of one that loads the model whole."""
    if quantization == 'nf4':
        pytest.importorskip('bitsandbytes', reason='bitsandbytes is not installed: pip install -e ".[cuda]"')
    sizes = dict(vocab_size=259, hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4)
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(**sizes, num_key_value_heads=2, tie_word_embeddings=True))
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    script = Path(__file__).with_name('streamed_halves.py')
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)}
    finished([*torchrun(2), str(script), str(tmp_path), quantization], env=env)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='other systems do not tell a process of the death of its parent')
def test_the_launcher_does_not_outlive_who_started_it(one):
    """As when a notebook's kernel is killed."""
    given = {**NUMBERS, 'data_dir': str(one / 'data'), 'artifacts_dir': str(one / 'orphan'), 'gpus': 2}
    given['max_steps'] = 4000
    imports = 'from lora_mbpp.core.config import resolve; from lora_mbpp.train import train'
    program = f'{imports}; train(resolve(**{given!r}))'
    run = [sys.executable, '-c', program]
    process = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(120, process, lambda: list(one.glob(f'orphan/checkpoints/*/{CHECKPOINTS}')))
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 3, 'the run ended before its parent could be killed'
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(family, timeout=60)
    for member in alive:
        member.kill()
    assert not alive
