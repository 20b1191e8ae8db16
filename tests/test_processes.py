"""One run over several processes (gloo on the CPU): the numbers of one process, restarts on another number of them.

What `gpus` starts is started by torch's launcher; other processes are copies of one that has done the imports."""

import os
import socket
import sys
import time
from importlib.util import find_spec

import halves
import psutil
import pytest
import torch
from beside import started
from safetensors.torch import load_file
from transformers import LlamaConfig, Qwen2Config, Qwen2ForCausalLM

from lora_mbpp.cli import main
from lora_mbpp.core.config import resolve
from lora_mbpp.core.errors import complaint
from lora_mbpp.core.files import read_json
from lora_mbpp.experiments.study_plan import plan_study
from lora_mbpp.models.tiny import tiny_tokenizer
from lora_mbpp.train import train
from lora_mbpp.training.cards import CARDS
from lora_mbpp.training.launch import cause_of_death, check_gpu_memory
from lora_mbpp.training.memory_plan import Precision
from lora_mbpp.training.rows import share_of
from lora_mbpp.training.time_plan import Machine, Workload, plan_run
from lora_mbpp.training.trainer import PackedTrainer

pytestmark = pytest.mark.skipif(os.name == 'nt', reason='torchrun wants libuv on Windows')
NUMBERS = dict(preset='test', source='starter', rank=4, max_steps=30, effective_batch=5, checkpoint_every=2)
NUMBERS |= dict(train_limit=21, val_limit=4)
CHECKPOINTS = 'checkpoints/checkpoint-*/whole.json'


def ranks(processes, said, call, *given):
    """The status of as many processes as one run, and what they print; they are told what torchrun tells them."""
    with socket.create_server(('127.0.0.1', 0)) as free:
        world = {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(free.getsockname()[1])}
    world |= dict.fromkeys(('WORLD_SIZE', 'LOCAL_WORLD_SIZE'), str(processes))
    all_ranks = [started(said, call, *given, **world, RANK=str(i), LOCAL_RANK=str(i)) for i in range(processes)]
    deadline = time.time() + 600
    while time.time() < deadline and None in (status := [one.exitcode for one in all_ranks]) and not any(status):
        time.sleep(0.05)
    for one in all_ranks:  # where one has failed, the others wait for it
        one.kill()
        one.join()
    return [one.exitcode for one in all_ranks], said.read_text(encoding='utf-8')


def parameters(place, name, **more):
    """Those of a run below `place`, under a name."""
    return {**NUMBERS, 'data_dir': str(place / 'data'), 'artifacts_dir': str(place / name), **more}


def arguments(*given, **more):
    """`train` with parameters, as it is typed."""
    options = parameters(*given, **more).items()
    return ['train', *(part for name, value in options for part in ('--' + name.replace('_', '-'), str(value)))]


def adapter_of(place, name):
    return place / name / 'checkpoints' / 'test-r4-s0'


def finished(processes, place, name, **more):
    """What the processes of a run print, which ended well."""
    status, said = ranks(processes, place / f'{name}.said', main, arguments(place, name, **more))
    assert not any(status), said[-3000:]
    return said


def wait_for(process, found):
    """Until `found()` or the end of the process, ten minutes at most; returns what was found."""
    deadline = time.time() + 600
    while time.time() < deadline and process.exitcode is None and not found():
        time.sleep(0.02)
    return found()


def train_info(place, name):
    return read_json(place / name / 'metrics' / 'test-r4-s0.json')['train_info']


def losses(place, name):
    return [e['loss'] for e in train_info(place, name)['losses']]


@pytest.fixture(scope='module')
def one(tmp_path_factory):
    """The folder with the run of one process, under the name `one`."""
    place = tmp_path_factory.mktemp('processes')
    train(resolve(**parameters(place, 'one')))
    return place


def check_same(place, name):
    """Thirty steps, a last batch of one document in each epoch among them: fewer than processes."""
    assert losses(place, name) == pytest.approx(losses(place, 'one'), abs=1e-5)
    ours, theirs = (load_file(adapter_of(place, one) / 'adapter_model.safetensors') for one in (name, 'one'))
    assert all(torch.allclose(ours[n], theirs[n], atol=1e-5) for n in theirs)
    assert train_info(place, name)['order'] == train_info(place, 'one')['order']


@pytest.mark.slow
def test_two_processes_that_share_the_weights_are_one(one):
    """Each holds half of every layer; rows so short that one process has more of them than the other in most steps."""
    said = finished(2, one, 'shared', sharding='full', row_tokens=1, recomputed_layers=1)
    assert 'base weights shared among 2 processes (FSDP2)' in said
    check_same(one, 'shared')
    whole, shared = (train_info(one, name) for name in ('one', 'shared'))
    assert whole['parameters'] == shared['parameters']
    assert whole['val_nll'][-1]['nll'] == pytest.approx(shared['val_nll'][-1]['nll'], abs=1e-5)


@pytest.fixture(scope='module')
def told(tmp_path_factory):
    """What two processes of `halves.py` say, each with half of every weight, the error that ended them included."""
    sizes = dict(vocab_size=259, hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4)
    folder = tmp_path_factory.mktemp('halves')
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(**sizes, num_key_value_heads=2, tie_word_embeddings=True))
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    names = ['none', 'nf4', 'packed'] if find_spec('bitsandbytes') else ['none']
    return ranks(2, folder / 'said', halves.main, folder, *names)[1]


@pytest.mark.slow
@pytest.mark.parametrize('name', ['none', 'nf4', 'packed'])
def test_two_halves_are_the_whole(told, name):
    """Weights read layer by layer, in NF4, and packed ones of a model that was loaded."""
    if name != 'none':
        pytest.importorskip('bitsandbytes', reason='bitsandbytes is not installed: pip install -e ".[cuda]"')
    assert f'{name}: the same' in told.splitlines(), told[-3000:]


def plan_for(lengths, targets):
    """Plans of a model with large layers in four processes, on a GPU of `budget` GiB each."""
    sizes = dict(vocab_size=259, hidden_size=512, intermediate_size=2048)
    config = LlamaConfig(**sizes, num_hidden_layers=32, num_attention_heads=8)
    work, bfloat16 = Workload(lengths, targets, steps=10), Precision('bfloat16', nf4=False, fused=True)

    def plan(budget=1.0, link=None, **given):
        machine = Machine('cuda', processes=4, budget=budget, present=False, rate=1e14, link=link)
        return plan_run(resolve('test', **given), config, work, bfloat16, machine)

    return plan


def test_a_plan_for_absent_cards_says_what_it_takes_their_link_for():
    card = next(card for card in CARDS if card.name == 'RTX 4090')
    plans, words = plan_study(resolve('starter', gpus=2, sharding='full', dtype='bfloat16'), [8], card)
    assert plans[0].layout.weight_shards == 2 and '20 GB/s between the processes that share it, assumed' in words
    assert 'GB/s' not in plan_study(resolve('starter', gpus=2, sharding='none', dtype='bfloat16'), [8], card)[1]


def test_unequal_gpus_and_weights_that_nobody_shares(tmp_path):
    assert '12, 24 GiB' in complaint(check_gpu_memory, [12.0, 24.0]) and check_gpu_memory([23.6, 24.0]) is None
    folders = {'data_dir': str(tmp_path / 'data'), 'artifacts_dir': str(tmp_path / 'artifacts')}
    assert '--gpus 2' in complaint(train, resolve(preset='test', sharding='full', **folders))
    plan = plan_for(lengths=[100], targets=50)
    assert plan(budget=0.6).layout.weight_shards == 1
    assert plan(budget=0.35).layout.weight_shards == 4
    assert plan(sharding='full').layout.weight_shards == 4
    assert plan(budget=0.35, row_tokens=100, recomputed_layers=2).layout.weight_shards == 4
    assert 'dora' in complaint(plan, sharding='full', method='dora')
    assert 'share the weights' not in complaint(plan, budget=0.35, method='dora')


def test_the_time_of_shared_weights_knows_of_the_exchange():
    """Three quarters of the weights, twice a row, in ten steps of one row; whole weights are not exchanged."""
    plan = plan_for(lengths=[100], targets=50)
    seconds = {link: 60 * plan(sharding='full', link=link).minutes for link in (1e9, 2e9, 20e9, None)}
    received = 10 * 2 * 0.75 * 2 * 32 * (4 * 512 * 512 + 3 * 512 * 2048)
    assert seconds[1e9] - seconds[2e9] == pytest.approx(received / 1e9 - received / 2e9)
    assert seconds[None] == pytest.approx(seconds[20e9])
    assert plan(sharding='none', link=1e9).minutes == plan(sharding='none', link=1e12).minutes


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='other systems do not tell a process of the death of its parent')
def test_a_run_of_two_processes_whose_starter_is_killed_goes_on_in_one(one):
    """As when a notebook's kernel is killed: launcher and processes go too. The two share the weights."""
    process = started(one / 'said', main, arguments(one, 'fewer', sharding='full', gpus=2))
    found = wait_for(process, lambda: list(adapter_of(one, 'fewer').glob(CHECKPOINTS)))
    assert found and process.exitcode is None, (one / 'said').read_text(encoding='utf-8')
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 3, 'the run ended before its starter could be killed'
    process.kill()
    process.join()
    _, alive = psutil.wait_procs(family, timeout=60)
    for member in alive:
        member.kill()
    assert not alive
    assert list(adapter_of(one, 'fewer').glob(CHECKPOINTS)), 'the run ended before it could be killed'
    assert 'continuing from' in finished(1, one, 'fewer')
    check_same(one, 'fewer')


@pytest.mark.slow
def test_a_stopped_run_of_one_process_goes_on_in_two_from_a_notebook(one, capsys, monkeypatch):
    """The two share the weights. `gpus` starts the launcher; what a process says is heard."""
    step = PackedTrainer.training_step

    def interrupted(self, *args, **kwargs):
        if self.state.global_step == 5:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(PackedTrainer, 'training_step', interrupted)
        train(resolve(**parameters(one, 'more')))
    capsys.readouterr()
    metrics = train(resolve(**parameters(one, 'more', gpus=2, sharding='full')))
    said = capsys.readouterr().out
    assert '2 processes;' in said and 'continuing from' in said and metrics['run_info']['rank'] == 4
    check_same(one, 'more')


def test_a_mistake_in_a_process_is_its_own_sentence(one, capsys):
    """What a process prints, between the launcher's own lines."""
    assert main(arguments(one, 'one', lr=0.1)) == 2
    said = ['W1127 torch/distributed/run.py\n', *capsys.readouterr().err.splitlines(keepends=True), 'exitcode: 2\n']
    assert 'exists with other parameters (lr 0.001 -> 0.1)' in cause_of_death(said, 2, 1)


def test_shares_are_even_and_complete():
    lengths = [5, 100, 40, 45, 7, 60, 3]
    parts = [share_of(lengths, 3, mine) for mine in range(3)]
    assert sorted(i for part in parts for i in part) == list(range(7))
    loads = [sum(lengths[i] for i in part) for part in parts]
    assert max(loads) == 100 and share_of([9, 8], 3, 2) == []


@pytest.mark.slow
def test_a_killed_process_ends_the_run_in_a_sentence(one, capsys):
    """Within a minute, nothing of it is left, and the same run continues, each process with all weights."""
    process = started(one / 'hit.said', main, arguments(one, 'hit', gpus=2))
    assert wait_for(process, lambda: list(adapter_of(one, 'hit').glob(CHECKPOINTS)))
    family = psutil.Process(process.pid).children(recursive=True)
    workers = [one for one in family if one.environ().get('LOCAL_RANK') == '1']
    workers[0].kill()
    process.join(60)
    said = (one / 'hit.said').read_text(encoding='utf-8')
    assert process.exitcode == 2
    assert 'processes (local rank 1) was killed by SIGKILL' in said.splitlines()[-1]
    assert not psutil.wait_procs(family, timeout=5)[1]
    train(resolve(**parameters(one, 'hit', gpus=2)))
    said = capsys.readouterr().out
    assert 'continuing from' in said and 'destroy_process_group' not in said
    assert said.count('steps, ') == 2 and said.count('adapter in') == 1
    check_same(one, 'hit')
