"""One run over several processes (gloo on the CPU): the numbers of one process, and restarts on another number of them."""

import os
import socket
import subprocess
import sys
import time

import psutil
import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig

from lora_mbpp.core.config import resolve
from lora_mbpp.core.errors import complaint
from lora_mbpp.core.files import read_json
from lora_mbpp.train import train
from lora_mbpp.training.memory_plan import plan_run
from lora_mbpp.training.trainer import check_gpu_memory, share_of

pytestmark = pytest.mark.skipif(os.name == 'nt', reason='torchrun wants libuv on Windows')
NUMBERS = dict(
    preset='test',
    source='starter',
    rank=4,
    max_steps=30,
    effective_batch=5,
    train_limit=21,
    val_limit=4,
    checkpoint_every=2,
)


def command(place, processes, name, **given):
    """`torchrun ... -m lora_mbpp.cli train`, and the folder of its adapter."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    options = {**NUMBERS, 'data_dir': place / 'data', 'artifacts_dir': place / name, **given}
    return [
        sys.executable,
        '-m',
        'torch.distributed.run',
        '--nproc-per-node',
        str(processes),
        '--master-port',
        str(port),
        '-m',
        'lora_mbpp.cli',
        'train',
        *(part for k, v in options.items() for part in ('--' + k.replace('_', '-'), str(v))),
    ], place / name / 'checkpoints' / f"test-r{options['rank']}-s0"


def losses(place, name):
    return [e['loss'] for e in read_json(place / name / 'metrics' / 'test-r4-s0.json')['train_info']['losses']]


@pytest.fixture(scope='module')
def one(tmp_path_factory):
    """The folder with the run of one process, under the name `one`."""
    place = tmp_path_factory.mktemp('processes')
    run, _ = command(place, 1, 'one')
    done = subprocess.run(run, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return place


def check_same(place, name, folder):
    """Thirty steps, a last batch of one document in each epoch among them: fewer than processes."""
    assert losses(place, name) == pytest.approx(losses(place, 'one'), abs=1e-5)
    ours, theirs = (
        load_file(folder / 'adapter_model.safetensors'),
        load_file(place / 'one' / 'checkpoints' / 'test-r4-s0' / 'adapter_model.safetensors'),
    )
    assert all(torch.allclose(ours[n], theirs[n], atol=1e-5) for n in theirs)
    assert (
        read_json(place / name / 'metrics' / 'test-r4-s0.json')['train_info']['order']
        == read_json(place / 'one' / 'metrics' / 'test-r4-s0.json')['train_info']['order']
    )


def test_two_processes_are_one(one):
    run, folder = command(one, 2, 'two')
    done = subprocess.run(run, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert '2 processes;' in done.stdout and done.stdout.count('steps, ') == 2 and done.stdout.count('adapter in') == 1
    check_same(one, 'two', folder)


def test_two_processes_that_share_the_weights_are_one(one):
    """Each holds half of every layer; rows so short that one process has more of them than the other in most steps."""
    run, folder = command(one, 2, 'shared', sharding='full', row_tokens=1, recomputed_layers=1)
    done = subprocess.run(run, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'base weights shared among 2 processes (FSDP2)' in done.stdout
    check_same(one, 'shared', folder)
    counts = [read_json(one / name / 'metrics' / 'test-r4-s0.json')['train_info'] for name in ('one', 'shared')]
    assert counts[0]['parameters'] == counts[1]['parameters'] and counts[0]['val_nll'][-1]['nll'] == pytest.approx(
        counts[1]['val_nll'][-1]['nll'], abs=1e-5
    )


HALVES_OF_BYTES = """
import torch
import torch.distributed as dist
from torch import nn
import bitsandbytes as bnb
from peft import LoraConfig, get_peft_model
from lora_mbpp.lean import completion_loss, checkpoint_layers, lean_layers, without_head
from lora_mbpp.models import parameter_counts, tiny_model
from lora_mbpp.packing import packed_row, set_attention
from lora_mbpp.sharding import shard_base
def ready():
    torch.manual_seed(0)
    base = tiny_model()
    for name, linear in [(n, m) for n, m in base.named_modules() if isinstance(m, nn.Linear) and n != 'lm_head']:
        packed = bnb.nn.Linear4bit(linear.in_features, linear.out_features, bias=False, compute_dtype=torch.float32, quant_type='nf4', compress_statistics=True)
        packed.weight = bnb.nn.Params4bit(linear.weight.data.clone(), requires_grad=False, quant_type='nf4', compress_statistics=True).to('cpu')
        base.set_submodule(name, packed)
    model = get_peft_model(base, LoraConfig(r=4, target_modules='all-linear', init_lora_weights=False)).train()
    assert lean_layers(model) == 14
    set_attention(model, 'by document')
    without_head(model)
    return model
dist.init_process_group('gloo')
row, labels = packed_row([[5, 6, 7, 8], [9, 10, 11]]), torch.tensor([-100, -100, 7, 8, -100, 10, 11])
whole, shared = ready(), ready()
shard_base(shared, 'cpu')
for model in (whole, nn.parallel.DistributedDataParallel(shared)):
    checkpoint_layers(model.module if hasattr(model, 'module') else model, 1)
    for _ in range(2):
        model.zero_grad()
        completion_loss(model, row, labels).backward()
found = {n: p.grad for n, p in shared.named_parameters() if p.grad is not None}
weight = shared.get_base_model().get_decoder().layers[0].mlp.up_proj.base_layer.weight
assert weight.dtype == torch.uint8 and weight.to_local().numel() * 2 == weight.numel() == 16 * 32 // 2
assert len(found) == 28 and all(torch.equal(p.grad, found[n]) for n, p in whole.named_parameters() if p.grad is not None)
assert parameter_counts(shared) == (2048, 10880)
dist.barrier()
dist.destroy_process_group()
"""


def test_packed_weights_are_shared(tmp_path):
    """NF4: each of two processes holds half of the bytes; the gradients are those of whole weights."""
    pytest.importorskip('bitsandbytes', reason='bitsandbytes is not installed: pip install -e ".[cuda]"')
    (tmp_path / 'halves.py').write_text(HALVES_OF_BYTES)
    run, _ = command(tmp_path, 2, 'halves')
    done = subprocess.run(
        [*run[: run.index('-m', 3)], str(tmp_path / 'halves.py')],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr[-3000:]


def plan_for(lengths, targets):
    """The plan of a model with large layers in four processes, on a card of `budget` GiB."""
    config = LlamaConfig(
        vocab_size=259, hidden_size=512, intermediate_size=2048, num_hidden_layers=32, num_attention_heads=8
    )
    return lambda budget=1.0, **given: plan_run(
        resolve('test', **given),
        config,
        lengths,
        targets,
        'cuda',
        'bfloat16',
        False,
        True,
        10,
        here=False,
        processes=4,
        budget=budget,
    )


def test_unequal_cards_and_weights_that_nobody_shares():
    assert '12, 24 GiB' in complaint(check_gpu_memory, [12.0, 24.0]) and check_gpu_memory([23.6, 24.0]) is None
    assert '--gpus 2' in complaint(train, resolve(preset='test', sharding='full'))
    plan = plan_for(lengths=[100], targets=50)
    assert (
        plan(budget=0.6).layout.pieces == 1
        and plan(budget=0.35).layout.pieces
        == plan(sharding='full').layout.pieces
        == plan(budget=0.35, row_tokens=100, recomputed_layers=2).layout.pieces
        == 4
    )
    assert 'dora' in complaint(plan, sharding='full', method='dora') and 'share the weights' not in complaint(
        plan, budget=0.35, method='dora'
    )


@pytest.mark.parametrize('before, after', [(2, 1), (1, 2)])
def test_a_killed_run_goes_on_with_another_number(one, before, after):
    """The two processes share the weights, the one has them whole."""
    name = f'from{before}to{after}'
    run, folder = command(one, before, name, **({'sharding': 'full'} if before == 2 else {}))
    process = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.time() + 120
    while (
        time.time() < deadline
        and process.poll() is None
        and not list(folder.glob('checkpoints/checkpoint-*/whole.json'))
    ):
        time.sleep(0.002)
    family = [
        psutil.Process(process.pid),
        *psutil.Process(process.pid).children(recursive=True),
    ]  # the launcher's workers have groups of their own
    for member in family:
        member.kill()
    process.wait()
    assert list(folder.glob('checkpoints/checkpoint-*/whole.json')), 'the run ended before it could be killed'
    run, folder = command(one, after, name, **({'sharding': 'full'} if after == 2 else {}))
    done = subprocess.run(run, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'continuing from' in done.stdout
    check_same(one, name, folder)


def test_shares_are_even_and_complete():
    lengths = [5, 100, 40, 45, 7, 60, 3]
    parts = [share_of(lengths, 3, mine) for mine in range(3)]
    assert sorted(i for part in parts for i in part) == list(range(7))
    loads = [sum(lengths[i] for i in part) for part in parts]
    assert max(loads) == 100 and share_of([9, 8], 3, 2) == []


def test_from_a_notebook(one, capsys):
    """`gpus` starts the same launcher; what a process says is heard, and a mistake is its own sentence."""
    given = {**NUMBERS, 'data_dir': str(one / 'data'), 'artifacts_dir': str(one / 'launched'), 'gpus': 2}
    metrics = train(resolve(**given))
    assert '2 processes;' in capsys.readouterr().out and metrics['run_info']['rank'] == 4
    check_same(one, 'launched', one / 'launched' / 'checkpoints' / 'test-r4-s0')
    assert 'exists with other parameters (lr 0.001 -> 0.1)' in complaint(train, resolve(**given, lr=0.1))


@pytest.mark.skipif(sys.platform != 'linux', reason='other systems do not tell a process of the death of its parent')
def test_the_launcher_does_not_outlive_who_started_it(one):
    """As when a notebook's kernel is killed."""
    given = {
        **NUMBERS,
        'data_dir': str(one / 'data'),
        'artifacts_dir': str(one / 'orphan'),
        'gpus': 2,
        'max_steps': 4000,
    }
    process = subprocess.Popen(
        [
            sys.executable,
            '-c',
            f'from lora_mbpp.config import resolve; from lora_mbpp.train import train; train(resolve(**{given!r}))',
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.time() + 120
    while (
        time.time() < deadline
        and process.poll() is None
        and not list(one.glob('orphan/checkpoints/*/checkpoints/checkpoint-*/whole.json'))
    ):
        time.sleep(0.05)
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 3, 'the run ended before its parent could be killed'
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(family, timeout=60)
    for member in alive:
        member.kill()
    assert not alive
