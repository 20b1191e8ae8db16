"""A sweep on a Ray cluster: three nodes of one machine, one of which is killed on the way."""

import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec

import psutil
import pytest

from lora_mbpp.cli import main
from lora_mbpp.core.config import resolve
from lora_mbpp.core.files import read_json
from lora_mbpp.experiments import ray_cluster
from lora_mbpp.experiments.reports import first_line

needs_ray = pytest.mark.skipif(
    not find_spec('ray') or os.name == 'nt', reason='Ray is not installed: pip install -e ".[ray]"'
)
TRAINING = {'max_steps': 12, 'checkpoint_every': 2}


def on_ray(test):
    """Needs Ray; one cluster at a time, since two would share this machine's cores."""
    return needs_ray(pytest.mark.xdist_group('ray')(test))


def options(place, *extra):
    """Arguments of a sweep on the random model, all files below `place`."""
    folders = [part for name in ('data', 'artifacts', 'reports') for part in (f'--{name}-dir', str(place / name))]
    return ['sweep', '--preset', 'test', *folders, '--max-steps', '12', '--checkpoint-every', '2', *extra]


@pytest.fixture
def ordinary(monkeypatch):
    monkeypatch.delenv('IN_TEST', raising=False)
    monkeypatch.setenv('RAY_USAGE_STATS_ENABLED', '0')


def test_what_cannot_be_had_is_a_sentence(tmp_path, ordinary, capsys, monkeypatch):
    def said(*extra):
        assert main(options(tmp_path, *extra)) == 2
        return capsys.readouterr().err

    assert 'add --engine ray' in said('--address', '10.0.0.1:6379')
    (tmp_path / 'file').touch()
    assert 'cannot write to' in said('--reports-dir', str(tmp_path / 'file' / 'reports'))
    monkeypatch.setattr(ray_cluster, 'find_spec', lambda name: None)
    assert 'pip install -e ".[ray]"' in said('--engine', 'ray')


@on_ray
def test_more_cards_than_a_node_has(tmp_path, ordinary, capsys, monkeypatch):
    """Said before anything runs, and the cluster that was started for it is gone."""
    import ray

    nodes = [{'Alive': True, 'Resources': {'CPU': 8, 'GPU': 2}}, {'Alive': True, 'Resources': {'CPU': 4}}]

    def pretend(address=None):
        monkeypatch.setattr(ray, 'nodes', lambda: nodes)
        return False

    monkeypatch.setattr(ray_cluster, 'connect', pretend)
    assert main(options(tmp_path, '--engine', 'ray', '--gpus', '4')) == 2
    assert 'the largest node of the cluster has 2 CUDA cards' in capsys.readouterr().err
    assert not (tmp_path / 'reports' / '00_data.ipynb').exists()


@on_ray
def test_an_address_that_does_not_answer(tmp_path, ordinary, capsys):
    started = time.perf_counter()
    assert main(options(tmp_path, '--engine', 'ray', '--address', '127.0.0.1:9')) == 2
    assert time.perf_counter() - started < 10
    assert 'no Ray cluster answers at 127.0.0.1:9' in capsys.readouterr().err
    assert main(options(tmp_path, '--engine', 'ray', '--address', 'nonsense')) == 2
    assert 'host:port' in capsys.readouterr().err


@on_ray
def test_a_node_that_is_not_up_in_time(tmp_path, ordinary, capsys, monkeypatch):
    """Ray gives up by itself on a busy machine: tried again, and a sentence at last."""
    import ray

    starts = []

    def late(**options):
        starts.append(options)
        raise Exception('The current node timed out during startup. This could happen because ...\nmore')

    monkeypatch.setattr(ray, 'init', late)
    assert main(options(tmp_path, '--engine', 'ray')) == 2
    said = capsys.readouterr()
    assert len(starts) == ray_cluster.START_TRIES and 'may be too busy' in said.err and 'more tries' in said.out
    monkeypatch.setattr(ray, 'init', lambda **options: starts.append(options) if len(starts) > 3 else late(**options))
    assert ray_cluster.connect() and len(starts) == 5


@on_ray
@pytest.mark.slow
def test_a_report_whose_kernel_died_is_made_again(tmp_path, ordinary):
    """A machine that goes may end the kernel before the worker; one that dies each time is a failure in words."""
    from nbclient.exceptions import DeadKernelError

    def dies(times, place):
        """The kernel dies the first times; a closure goes to Ray by value."""
        with open(place, 'a') as file:
            file.write('.')
        if len(place.read_text()) <= times:
            raise DeadKernelError('Kernel died')
        return 'done'

    executor = ray_cluster.RayExecutor(None, lambda *args: None)
    try:
        once = executor.submit(dies, 1, tmp_path / 'once')
        always = executor.submit(dies, 99, tmp_path / 'always')
        assert once.result(120) == 'done'
        assert first_line(always.exception(120)) == 'Kernel died'
    finally:
        executor.shutdown()
    assert len((tmp_path / 'always').read_text()) == 1 + ray_cluster.MAX_RETRIES


def is_copy(process) -> bool:
    """True for a fork server, and for what it was asked for."""
    return 'multiprocessing.forkserver' in ' '.join(process.cmdline())


def is_kernel(process) -> bool:
    """True for a notebook's process: started by itself, or by a copy of the one that has done its imports."""
    try:
        source = process.parent()
        made_by = source and source.parent()
        return 'ipykernel' in ' '.join(process.cmdline()) or bool(made_by and is_copy(source) and is_copy(made_by))
    except psutil.NoSuchProcess:
        return False


def kernels_on(node) -> list:
    """The notebooks' processes on a node of the cluster."""
    raylet = psutil.Process(node.all_processes['raylet'][0].process.pid)
    return [member for member in raylet.children(recursive=True) if is_kernel(member)]


def busy_kernels(node) -> list:
    """Those of them that are at work, by the CPU seconds that they have taken."""
    return [kernel for kernel in kernels_on(node) if sum(kernel.cpu_times()[:2]) > 1]


def is_alive(process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def three_nodes(tries=3):
    """A cluster of three nodes; a machine that is busy, or reads Ray for the first time, may be too slow for the first
    try."""
    from ray.cluster_utils import Cluster

    node = {'num_cpus': 1, 'include_log_monitor': False}
    cluster = Cluster(initialize_head=True, head_node_args={**node, 'include_dashboard': False})
    try:
        return cluster, [cluster.add_node(**node) for _ in range(2)]
    except Exception:
        cluster.shutdown()
        if tries == 1:
            raise
    return three_nodes(tries - 1)


def three_nodes_lose_one(log, command):
    """Status and output of `command(address)` on a cluster of three nodes, one of which dies while it makes a report;
    and the processes that died."""
    cluster, (doomed, _) = three_nodes()
    try:
        with open(log, 'w+') as file:
            process = subprocess.Popen(command(cluster.address), stdout=file, stderr=subprocess.STDOUT)
            deadline, busy = time.time() + 900, []  # other tests load this machine
            while time.time() < deadline and process.poll() is None and not busy:
                time.sleep(0.5)
                busy = busy_kernels(doomed)
            cluster.remove_node(doomed, allow_graceful=False)
            process.wait(1200)
            file.seek(0)
            return process.returncode, file.read(), busy
    finally:
        cluster.shutdown()


def check_losses(place, rank, seed):
    """The losses of a run on the cluster are those of a training in this process; returns the run's configuration."""
    from lora_mbpp.train import train

    here = {'preset': 'test', 'data_dir': str(place / 'data'), 'artifacts_dir': str(place / 'here')}
    cfg = resolve(**here, **TRAINING, rank=rank, seed=seed)
    losses = [entry['loss'] for entry in train(cfg)['train_info']['losses']]
    theirs = read_json(place / 'artifacts' / 'metrics' / f'test-r{rank}-s{seed}.json')['train_info']['losses']
    assert len(losses) == 12 and [entry['loss'] for entry in theirs] == pytest.approx(losses, abs=1e-5)
    return cfg


@on_ray
@pytest.mark.slow
def test_a_sweep_of_six_runs_over_three_nodes_one_of_which_dies(tmp_path, ordinary):
    """Trainings and evaluations are all there, equal to those of this process, and copied where they were wanted."""
    from lora_mbpp.core.runs import adapter_dir
    from lora_mbpp.evaluate import evaluate

    elsewhere = tmp_path / 'elsewhere'

    def command(address):
        where = ('--engine', 'ray', '--address', address, '--results-url', f'file://{elsewhere}')
        return [sys.executable, '-m', 'lora_mbpp.cli', *options(tmp_path, '--ranks', '2,3', '--seeds', '0,1,2', *where)]

    status, said, died = three_nodes_lose_one(tmp_path / 'log', command)
    failures = [line[:500] for line in said.splitlines() if 'FAILED' in line]
    assert status == 0 and not failures, '\n'.join([*failures, said[-3000:]])
    assert died and not any(map(is_alive, died))
    for rank in (2, 3):
        for seed in (0, 1, 2):
            cfg, name = check_losses(tmp_path, rank, seed), f'test-r{rank}-s{seed}'
            ours = evaluate(cfg, name, adapter_dir(cfg))['eval_info']
            theirs = read_json(tmp_path / 'artifacts' / 'metrics' / f'{name}.json')['eval_info']
            assert theirs['pass_at_1'] == ours['pass_at_1']
            assert theirs['reference_nll'] == pytest.approx(ours['reference_nll'], abs=1e-4)
    assert (elsewhere / 'reports' / 'index.html').stat().st_size > 5000
    assert len(list((elsewhere / 'metrics').glob('*.json'))) == 7


@on_ray
@pytest.mark.slow
def test_ctrl_c_leaves_nothing_running(tmp_path, ordinary):
    command = [sys.executable, '-m', 'lora_mbpp.cli']
    command += options(tmp_path, '--ranks', '2', '--max-steps', '4000', '--engine', 'ray')
    checkpoint = 'artifacts/checkpoints/*/checkpoints/checkpoint-*/whole.json'
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    deadline = time.time() + 900
    while time.time() < deadline and process.poll() is None and not list(tmp_path.glob(checkpoint)):
        time.sleep(0.5)
    assert process.poll() is None, process.communicate()[0][-3000:]
    family = psutil.Process(process.pid).children(recursive=True)
    assert any(is_kernel(member) for member in family if member.is_running())
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130 and 'interrupted' in said, said[-3000:]
    gone, alive = psutil.wait_procs(family, timeout=60)
    assert not [member for member in alive if is_alive(member)]
