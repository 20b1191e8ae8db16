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

from lora_mbpp.config import complaint, read_json, resolve
from lora_mbpp.train import train
from lora_mbpp.trainer import share_of

pytestmark = pytest.mark.skipif(os.name == 'nt', reason='torchrun wants libuv on Windows')
NUMBERS = dict(preset='test', source='starter', rank=4, max_steps=30, effective_batch=5, train_limit=21, val_limit=4, checkpoint_every=2)


def command(place, processes, name, **given):
    """`torchrun ... -m lora_mbpp.cli train`, and the folder of its adapter."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    options = {**NUMBERS, 'data_dir': place/'data', 'artifacts_dir': place/name, **given}
    return [sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node', str(processes), '--master-port', str(port), '-m', 'lora_mbpp.cli', 'train',
            *(part for k, v in options.items() for part in ('--' + k.replace('_', '-'), str(v)))], place/name/'checkpoints'/f"test-r{options['rank']}-s0"


def losses(place, name):
    return [e['loss'] for e in read_json(place/name/'metrics'/'test-r4-s0.json')['train_info']['losses']]


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
    ours, theirs = load_file(folder/'adapter_model.safetensors'), load_file(place/'one'/'checkpoints'/'test-r4-s0'/'adapter_model.safetensors')
    assert all(torch.allclose(ours[n], theirs[n], atol=1e-5) for n in theirs)
    assert read_json(place/name/'metrics'/'test-r4-s0.json')['train_info']['order'] == read_json(place/'one'/'metrics'/'test-r4-s0.json')['train_info']['order']


def test_two_processes_are_one(one):
    run, folder = command(one, 2, 'two')
    done = subprocess.run(run, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert '2 processes;' in done.stdout and done.stdout.count('steps, ') == 2 and done.stdout.count('adapter in') == 1
    check_same(one, 'two', folder)


@pytest.mark.parametrize('before, after', [(2, 1), (1, 2)])
def test_a_killed_run_goes_on_with_another_number(one, before, after):
    name = f'from{before}to{after}'
    run, folder = command(one, before, name)
    process = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.time() + 120
    while time.time() < deadline and process.poll() is None and not list(folder.glob('checkpoints/checkpoint-*/whole.json')): time.sleep(0.002)
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]     # the launcher's workers have groups of their own
    for member in family: member.kill()
    process.wait()
    assert list(folder.glob('checkpoints/checkpoint-*/whole.json')), 'the run ended before it could be killed'
    run, folder = command(one, after, name)
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
    given = {**NUMBERS, 'data_dir': str(one/'data'), 'artifacts_dir': str(one/'launched'), 'gpus': 2}
    metrics = train(resolve(**given))
    assert '2 processes;' in capsys.readouterr().out and metrics['run_info']['rank'] == 4
    check_same(one, 'launched', one/'launched'/'checkpoints'/'test-r4-s0')
    assert 'exists with other parameters (lr 0.001 -> 0.1)' in complaint(train, resolve(**given, lr=0.1))
