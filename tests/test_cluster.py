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

needs_ray = pytest.mark.skipif(
    not find_spec('ray') or os.name == 'nt', reason='Ray is not installed: pip install -e ".[ray]"'
)


def options(place, *extra):
    return [
        'sweep',
        '--preset',
        'test',
        '--data-dir',
        str(place / 'data'),
        '--artifacts-dir',
        str(place / 'artifacts'),
        '--reports-dir',
        str(place / 'reports'),
        '--max-steps',
        '12',
        '--checkpoint-every',
        '2',
        *extra,
    ]


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
    import lora_mbpp.experiments.ray_cluster

    monkeypatch.setattr(lora_mbpp.cluster, 'find_spec', lambda name: None)
    assert 'pip install -e ".[ray]"' in said('--engine', 'ray')


@needs_ray
def test_more_cards_than_a_node_has(tmp_path, ordinary, capsys, monkeypatch):
    """Said before anything runs, and the cluster that was started for it is gone."""
    import ray

    import lora_mbpp.experiments.ray_cluster

    def pretend(address=None):
        monkeypatch.setattr(
            ray,
            'nodes',
            lambda: [{'Alive': True, 'Resources': {'CPU': 8, 'GPU': 2}}, {'Alive': True, 'Resources': {'CPU': 4}}],
        )
        return False

    monkeypatch.setattr(lora_mbpp.cluster, 'connect', pretend)
    assert main(options(tmp_path, '--engine', 'ray', '--gpus', '4')) == 2
    assert (
        'the largest node of the cluster has 2 CUDA cards' in capsys.readouterr().err
        and not (tmp_path / 'reports' / '00_data.ipynb').exists()
    )


@needs_ray
def test_an_address_that_does_not_answer(tmp_path, ordinary, capsys):
    started = time.perf_counter()
    assert main(options(tmp_path, '--engine', 'ray', '--address', '127.0.0.1:9')) == 2
    assert time.perf_counter() - started < 10 and 'no Ray cluster answers at 127.0.0.1:9' in capsys.readouterr().err
    assert (
        main(options(tmp_path, '--engine', 'ray', '--address', 'nonsense')) == 2
        and 'host:port' in capsys.readouterr().err
    )


def kernels_on(node) -> list:
    """The notebooks' processes on a node of the cluster."""
    raylet = psutil.Process(
        next(info.process.pid for infos in (node.all_processes.get('raylet', []),) for info in infos)
    )
    return [member for member in raylet.children(recursive=True) if 'ipykernel' in ' '.join(member.cmdline())]


def three_nodes_lose_one(log, command):
    """What `command(address)` says, on a cluster one of whose three nodes dies while it makes a report; and the processes that died."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={'num_cpus': 1, 'include_dashboard': False})
    try:
        doomed, _ = [cluster.add_node(num_cpus=1) for _ in range(2)]
        with open(log, 'w+') as file:
            process = subprocess.Popen(command(cluster.address), stdout=file, stderr=subprocess.STDOUT)
            deadline, busy = time.time() + 200, []
            while time.time() < deadline and process.poll() is None and not busy:
                time.sleep(0.1)
                busy = [
                    kernel for kernel in kernels_on(doomed) if sum(kernel.cpu_times()[:2]) > 4
                ]  # its imports are done
            cluster.remove_node(doomed, allow_graceful=False)
            process.wait(600)
            file.seek(0)
            return process.returncode, file.read(), busy
    finally:
        cluster.shutdown()


TRAININGS = """
import sys
from pathlib import Path
from lora_mbpp.experiments.ray_cluster import RayExecutor
from lora_mbpp.core.config import resolve
from lora_mbpp.experiments.sweep import ReportScheduler, gpus_wanted, in_place, notebooks_folder, study_steps
given = dict(data_dir=sys.argv[1] + '/data', artifacts_dir=sys.argv[1] + '/artifacts', max_steps=12, checkpoint_every=2)
cfg, failed = in_place(resolve('test', **given)), {}
reports = Path(sys.argv[1])/'reports'
reports.mkdir()
steps = [step for step in study_steps(cfg, [2, 3], [0, 1, 2], given) if step.name.startswith(('00', '02'))]
with RayExecutor(sys.argv[2], gpus_wanted) as workers: ReportScheduler(workers, len(steps), workers.places).carry_out(steps, notebooks_folder(), reports, failed)
sys.exit(len(failed))
"""


@needs_ray
@pytest.mark.parametrize(
    'whole',
    [
        False,
        pytest.param(
            True,
            marks=pytest.mark.skipif(
                not os.environ.get('LORA_MBPP_LONG_TESTS'), reason='takes five minutes: set LORA_MBPP_LONG_TESTS=1'
            ),
        ),
    ],
    ids=['trainings', 'whole sweep'],
)
def test_six_runs_over_three_nodes_one_of_which_dies(tmp_path, ordinary, whole):
    """All results are there, equal to those made in this process; of a whole sweep they are copied where they were wanted."""
    from lora_mbpp.core.runs import adapter_dir
    from lora_mbpp.evaluate import evaluate
    from lora_mbpp.train import train

    def command(address):
        if not whole:
            return [sys.executable, '-c', TRAININGS, str(tmp_path), address]
        return [
            sys.executable,
            '-m',
            'lora_mbpp.cli',
            *options(
                tmp_path,
                '--ranks',
                '2,3',
                '--seeds',
                '0,1,2',
                '--engine',
                'ray',
                '--address',
                address,
                '--results-url',
                f'file://{tmp_path}/elsewhere',
            ),
        ]

    status, said, died = three_nodes_lose_one(tmp_path / 'log', command)
    assert status == 0 and 'FAILED' not in said, said[-3000:]
    assert died and not any(kernel.is_running() and kernel.status() != psutil.STATUS_ZOMBIE for kernel in died)
    here = {
        'preset': 'test',
        'data_dir': str(tmp_path / 'data'),
        'artifacts_dir': str(tmp_path / 'here'),
        'max_steps': 12,
        'checkpoint_every': 2,
    }
    for rank in (2, 3):
        for seed in (0, 1, 2):
            cfg, name = resolve(**here, rank=rank, seed=seed), f'test-r{rank}-s{seed}'
            losses = [e['loss'] for e in train(cfg)['train_info']['losses']]
            theirs = read_json(tmp_path / 'artifacts' / 'metrics' / f'{name}.json')
            assert len(losses) == 12 and [e['loss'] for e in theirs['train_info']['losses']] == pytest.approx(
                losses, abs=1e-5
            )
            if whole:
                ours, theirs = evaluate(cfg, name, adapter_dir(cfg))['eval_info'], theirs['eval_info']
                assert theirs['pass_at_1'] == ours['pass_at_1'] and theirs['reference_nll'] == pytest.approx(
                    ours['reference_nll'], abs=1e-4
                )
    if whole:
        assert (tmp_path / 'elsewhere' / 'reports' / 'index.html').stat().st_size > 5000 and len(
            list((tmp_path / 'elsewhere' / 'metrics').glob('*.json'))
        ) == 7


@needs_ray
def test_ctrl_c_leaves_nothing_running(tmp_path, ordinary):
    process = subprocess.Popen(
        [
            sys.executable,
            '-m',
            'lora_mbpp.cli',
            *options(tmp_path, '--ranks', '2', '--max-steps', '4000', '--engine', 'ray'),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    deadline = time.time() + 150
    while (
        time.time() < deadline
        and process.poll() is None
        and not list(tmp_path.glob('artifacts/checkpoints/*/checkpoints/checkpoint-*/whole.json'))
    ):
        time.sleep(0.05)
    family = psutil.Process(process.pid).children(recursive=True)
    assert any('ipykernel' in ' '.join(member.cmdline()) for member in family if member.is_running())
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and 'interrupted' in said, said[-3000:]
    gone, alive = psutil.wait_procs(family, timeout=15)
    assert not [member for member in alive if member.is_running() and member.status() != psutil.STATUS_ZOMBIE]
