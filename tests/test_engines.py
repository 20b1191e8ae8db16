"""Engines under stress: programs that hoard, idle or outlive; machines that lack something; what then is said."""

import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import ROOT, published

from lora_mbpp.core.errors import UserError
from lora_mbpp.evaluation.judging import score
from lora_mbpp.evaluation.metrics import summarise
from lora_mbpp.sandbox import engine as engine_module
from lora_mbpp.sandbox.capabilities import GRAVE, open_ways, require_layers, sandbox_layers
from lora_mbpp.sandbox.costs import guessed_cost, longest_first
from lora_mbpp.sandbox.engine import Limits, remove_abandoned, sees_idling
from lora_mbpp.sandbox.engines import ENGINES, why_unavailable
from lora_mbpp.sandbox.isolation import (
    ALLOW,
    JUMP_EQUAL,
    LOAD,
    RETURN,
    filter_address,
    instruction,
    no_new_privileges,
    process_control,
)
from lora_mbpp.sandbox.judge import judge, judge_many, judge_with
from lora_mbpp.sandbox.share import MOST_TASKS, processors, tasks_each, tasks_free, worker_count

try:
    import resource
except ImportError:  # Windows, where all tests of this file are skipped
    resource = None

LINUX = sys.platform == 'linux'
X86 = LINUX and os.uname().machine == 'x86_64'
ROOT_USER = LINUX and os.geteuid() == 0
pytestmark = pytest.mark.skipif(not LINUX, reason='these engines and these ways to starve them are those of Linux')
TESTS = ['assert add(20, 3) == 23', 'assert add(-1, 1) == 0']
RIGHT = 'def add(a, b): return a + b'
NATIVE = ('fork', 'process')


@pytest.fixture(params=['fork', 'wasm', 'process'])
def engine(request):
    if reason := why_unavailable(request.param):
        pytest.skip(reason)
    return request.param


@pytest.fixture(params=NATIVE)
def native(request):
    """The engines whose programs are processes of this system."""
    if reason := why_unavailable(request.param):
        pytest.skip(reason)
    return request.param


# ---- programs that hoard threads and processes; each prints how many it got ----

MACHINE_CODE = """
import ctypes, mmap
# clone(flags) so many times; each clone only pauses, and none has a stack of its own
CODE = bytes.fromhex('53 89fb'  # push rbx; mov ebx, edi
    'b838000000 bf{flags} 31f6 31d2 4d31d2 4d31c0 0f05'  # syscall 56, all other arguments 0
    '85c0 740a 7804 ffcb 75e0'  # child: on; refused: end; else again
    '89d8 5b c3 '  # return what is left; and the child:
    'b822000000 0f05 ebf7')  # pause, for ever
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(CODE)
clone = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
"""
BOMB = MACHINE_CODE.replace('{flags}', '000f0500')  # VM FS FILES SIGHAND THREAD SYSVSEM
HOLD = '\ndef add(a, b):\n  import time\n  time.sleep(1)\n  return 7'
HOARDERS = {
    'raw clone': BOMB + 'print("got", 100_000 - clone(100_000), flush=True)' + HOLD,
    'raw clone in each call': BOMB + 'def add(a, b):\n  print("got", 9000 - clone(9000), flush=True)\n  return 7',
    'raw clone again and again': BOMB
    + 'n = 0\nfor _ in range(50): n += 2000 - clone(2000)\nprint("got", n, flush=True)'
    + HOLD,
    'raw clone from threads': BOMB + 'import threading\ngot = []\n'
    'for _ in range(9): threading.Thread(target=lambda: got.append(5000 - clone(5000))).start()\n'
    'import time; time.sleep(0.5)\nprint("got", sum(got), flush=True)' + HOLD,
    'threads': 'import _thread, time\nn = 0\n_thread.stack_size(32768)\ntry:\n  while True:\n'
    '    _thread.start_new_thread(time.sleep, (1000,)); n += 1\nexcept RuntimeError: pass\nprint("got", n, flush=True)'
    + HOLD,
    'threads that retry': 'import _thread, time\nn, end = 0, time.time() + 0.7\n_thread.stack_size(32768)\n'
    'while time.time() < end:\n  try: _thread.start_new_thread(time.sleep, (1000,)); n += 1\n'
    '  except RuntimeError: pass\n'
    'print("got", n, flush=True)' + HOLD,
    'a pool of threads': 'from concurrent.futures import ThreadPoolExecutor\nimport time, threading\n'
    'pool = ThreadPoolExecutor(5000)\ntry:\n'
    '  for _ in range(5000): pool.submit(time.sleep, 1000)\nexcept RuntimeError: pass\n'
    'print("got", threading.active_count(), flush=True)' + HOLD,
    'forks': 'import os\nn = 0\nfor _ in range(200):\n  try:\n'
    '    if os.fork() == 0: os.execv("/bin/sleep", ["sleep", "9"])\n    n += 1\n'
    '  except OSError: pass\nprint("got", n, flush=True)' + HOLD,
    'processes': 'import subprocess\nn = 0\nfor _ in range(30):\n'
    '  try: subprocess.Popen(["sleep", "9"]); n += 1\n  except OSError: pass\n'
    'print("got", n, flush=True)' + HOLD,
    'vfork': 'import ctypes\nlibc = ctypes.CDLL(None)\nn = 0\nfor _ in range(50):\n  if libc.syscall(58) > 0: n += 1\n'
    'print("got", n, flush=True)' + HOLD,
    'multiprocessing': 'import multiprocessing, time\nn = 0\nfor _ in range(20):\n'
    '  try: multiprocessing.Process(target=time.sleep, args=(9,)).start(); n += 1\n'
    '  except OSError: pass\nprint("got", n, flush=True)' + HOLD,
}


@contextmanager
def pid_limited(room: int, controller='pids'):
    """A control group with room for so many processes and threads, or a skip."""
    top = next(
        (p for p in (Path('/sys/fs/cgroup/pids'), Path('/sys/fs/cgroup')) if (p / 'cgroup.procs').exists()), None
    )
    try:
        group = top / f'sandbox-test-{os.getpid()}'
        group.mkdir()
        (group / 'pids.max').write_text(str(room))
    except (OSError, TypeError):
        pytest.skip('no control group for processes can be made here')
    try:
        yield group
    finally:
        for _ in range(100):
            for pid in (group / 'cgroup.procs').read_text().split():
                os.kill(int(pid), signal.SIGKILL)
            try:
                group.rmdir()
                break
            except OSError:
                time.sleep(0.05)


JUDGE_ALL = """
import json, sys
from lora_mbpp.sandbox.engine import Limits
from lora_mbpp.sandbox.judge import judge_many
jobs, options = json.load(sys.stdin)
limits = Limits(**options.pop('limits', {}))
found = sorted(judge_many(jobs, limits=limits, **options), key=lambda pair: pair[0])
print(json.dumps([(verdict.verdict, verdict.message, verdict.stdout) for _, verdict in found]))
"""


def judged_elsewhere(jobs: list, before=None, **options) -> list:
    """`(verdict, message, output)` of each job, from a process that ran `before` first."""
    done = subprocess.run(
        [sys.executable, '-c', JUDGE_ALL],
        input=json.dumps([jobs, options]),
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=before,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def job(code: str, tests=TESTS, **more) -> dict:
    return dict(code=code, tests=tests, **more)


@pytest.mark.parametrize('name', HOARDERS)
def test_a_program_gets_a_few_threads_and_no_process(native, name):
    if 'raw' in name and not X86:
        pytest.skip('machine code for x86_64')
    verdict = judge(HOARDERS[name], TESTS, limits=Limits(cpu_s=3, wall_s=20, memory_mb=512), engine=native)
    assert verdict.verdict != 'passed'
    got = [int(count) for count in re.findall(r'got (\d+)', verdict.stdout)]
    few = MOST_TASKS + 2 if 'raw' in name or 'threads' in name else 0
    assert all(count <= few for count in got), verdict


@pytest.mark.skipif(not X86, reason='machine code for x86_64')
def test_hoarders_take_no_other_program_down(native):
    """In a container with room for 80 processes: every neighbour gets its verdict."""
    names = [name for name in HOARDERS if 'processes' not in name]
    codes = [code for name in names for code in (HOARDERS[name], RIGHT, RIGHT, RIGHT)]
    limits = dict(cpu_s=2, wall_s=15, memory_mb=256)
    with pid_limited(80) as group:
        enter = lambda: (group / 'cgroup.procs').write_text(str(os.getpid()))  # noqa: E731
        found = judged_elsewhere([job(code) for code in codes], enter, engine=native, workers=4, limits=limits)
    assert [verdict for code, (verdict, *_) in zip(codes, found) if code == RIGHT] == ['passed'] * 3 * len(names)
    assert not {'passed', 'harness_error'} & {verdict for code, (verdict, *_) in zip(codes, found) if code != RIGHT}


def test_what_finds_no_room_beside_others_is_judged_alone():
    """Four workers do not fit into the container, one does."""
    with pid_limited(11) as group:
        enter = lambda: (group / 'cgroup.procs').write_text(str(os.getpid()))  # noqa: E731
        found = judged_elsewhere([job(RIGHT)] * 12, enter, engine='process', workers=4)
    assert [verdict for verdict, *_ in found] == ['passed'] * 12


def test_where_nothing_fits_the_rest_is_not_tried_for_ever():
    with pid_limited(1) as group:
        enter = lambda: (group / 'cgroup.procs').write_text(str(os.getpid()))  # noqa: E731
        began = time.monotonic()
        found = judged_elsewhere([job(RIGHT)] * 200, enter, engine='process', workers=1)
    assert [verdict for verdict, *_ in found] == ['harness_error'] * 200 and time.monotonic() - began < 60
    assert all('no child process' in message for _, message, _ in found)


def test_threads_that_a_program_has_use_for(native):
    """A pool, forty threads at a time, and five hundred one after the other."""
    code = (
        'import threading\nfrom concurrent.futures import ThreadPoolExecutor\n'
        'def add(a, b):\n  seen, gate = [], threading.Barrier(41)\n'
        '  threads = [threading.Thread(target=lambda: (gate.wait(), seen.append(1))) for _ in range(40)]\n'
        '  for t in threads: t.start()\n  gate.wait()\n  for t in threads: t.join()\n'
        '  for _ in range(250):\n    t = threading.Thread(target=seen.append, args=(1,)); t.start(); t.join()\n'
        '  with ThreadPoolExecutor(32) as pool: list(pool.map(seen.append, range(99)))\n'
        '  return a + b if len(seen) == 389 else seen'
    )
    assert judge(code, TESTS, engine=native).verdict == 'passed'


AS_SOMEBODY = """
import json, sys, types
package = types.ModuleType('lora_mbpp')
package.__path__ = [sys.argv[1]]
sys.modules['lora_mbpp'] = package
from lora_mbpp.sandbox.capabilities import sandbox_layers
from lora_mbpp.sandbox.engine import Limits
from lora_mbpp.sandbox.judge import judge_many
jobs, engine = json.load(sys.stdin)
found = sorted(judge_many(jobs, workers=3, engine=engine, limits=Limits(cpu_s=2)), key=lambda pair: pair[0])
print(json.dumps([sandbox_layers(engine=engine), [verdict.verdict for _, verdict in found]]))
"""


@pytest.mark.skipif(not (ROOT_USER and X86), reason='root can become somebody else')
@pytest.mark.xdist_group('nobody')  # whose processes are counted together
def test_a_user_without_rights_is_as_safe(native):
    """Nobody, who may have sixty processes: a user namespace takes the place of a new user."""
    python = Path('/usr/bin/python3').resolve()
    name = re.fullmatch(r'python3\.(\d+)', python.name)
    if not name or int(name.group(1)) < 10:
        pytest.skip('no Python that everybody may run')
    jobs = [job(code) for code in [BOMB + 'print(clone(9000))' + HOLD, RIGHT, RIGHT] * 3]
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        for part in ('sandbox', 'core'):
            shutil.copytree(ROOT / 'lora_mbpp' / part, Path(folder) / part)
        done = subprocess.run(
            [python, '-c', AS_SOMEBODY, folder],
            input=json.dumps([jobs, native]),
            capture_output=True,
            text=True,
            cwd=folder,
            user=65534,
            group=65534,
            extra_groups=[],
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NPROC, (60, 60)),
            env={'PATH': os.defpath},
        )
    assert done.returncode == 0, done.stderr[-2000:]
    layers, verdicts = json.loads(done.stdout.splitlines()[-1])
    assert 'open' not in layers and verdicts == ['wrong_answer', 'passed', 'passed'] * 3


# ---- powers that stay behind: users, capabilities, namespaces, shared descriptions ----


def status_of(pid: int) -> dict:
    return dict(line.split(':\t', 1) for line in Path(f'/proc/{pid}/status').read_text().splitlines())


def test_a_worker_has_no_capability_and_no_user_of_ours(native):
    with ENGINES[native]() as running:
        child = running.start(Limits(), None)
        child.receive()
        status = status_of(child.process_id())
        child.finish()
    assert {status[name].strip('0') for name in ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb')} == {''}
    assert status['NoNewPrivs'] == '1' and status['Seccomp'] == '2'
    if ROOT_USER:
        assert '0' not in status['Uid'].split()[:3]


NAMESPACES = {
    'NEWUSER': 0x10000000,
    'NEWPID': 0x20000000,
    'NEWNET': 0x40000000,
    'NEWNS': 0x20000,
    'NEWUTS': 0x4000000,
    'NEWIPC': 0x8000000,
    'NEWCGROUP': 0x2000000,
    'VFORK': 0x4000,
    'PARENT': 0x8000,
    'PTRACE': 0x2000,
    'PIDFD': 0x1000,
    'IO': 0x80000000,
    'CLEAR_SIGHAND': 1 << 32,
    'INTO_CGROUP': 1 << 33,
    'a signal': 17,
}


def test_clone_makes_threads_and_nothing_else(native):
    """Each flag with those of a thread, and without."""
    number = 56 if X86 else 220
    code = (
        'import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n'
        f'def refused(flags): return libc.syscall({number}, ctypes.c_ulong(flags), '
        f'0, 0, 0, 0) == -1 and ctypes.get_errno()'
    )
    flags = [extra | thread for extra in NAMESPACES.values() for thread in (0, 0x50F00, 0x3D0F00)]
    tests = [f'assert refused({flag}) == 1' for flag in flags]
    verdict = judge(code, tests, engine=native)
    assert verdict.verdict == 'passed', verdict
    others = 'def call(n, *a): return ctypes.CDLL(None).syscall(n, *a)'
    calls = [272, 308, 435, 105, 117, 126, 161] if X86 else [97, 268, 435]
    tests = [f'assert call({number}, 0x10000000, 0, 0) == -1' for number in calls]
    assert judge(f'import ctypes\n{others}', tests, engine=native).verdict == 'passed'


FLAGS = (
    'import fcntl, os\n'
    'def flags(): return [fcntl.fcntl(n, fcntl.F_GETFL) & (os.O_NONBLOCK '
    '| os.O_APPEND | os.O_ASYNC) for n in (0, 1, 2)]\n'
    'def spoil():\n'
    '  for n in (0, 1, 2): fcntl.fcntl(n, fcntl.F_SETFL, fcntl.fcntl(n, fcntl.F_GETFL) | os.O_NONBLOCK | os.O_APPEND)\n'
    '  return flags()\n'
)


def test_flags_of_a_descriptor_do_not_pass_to_the_next_program(native):
    both = os.O_NONBLOCK | os.O_APPEND
    with ENGINES[native]() as running:
        for _ in range(2):
            assert judge_with(running, FLAGS, ['assert flags() == [0, 0, 0]']).verdict == 'passed'
            assert judge_with(running, FLAGS, [f'assert spoil() == {[both] * 3}']).verdict == 'passed'
        tests = ['def check(spoil):\n    assert spoil()[0]\ncheck(spoil)', 'assert flags()[2]']
        assert judge_with(running, FLAGS, tests).verdict == 'passed'
        assert judge_with(running, FLAGS, ['assert flags() == [0, 0, 0]']).verdict == 'passed'


@pytest.mark.parametrize('most', [20, 40, 60, 64])
def test_few_descriptors_are_enough(native, most):
    def before():
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    found = judged_elsewhere(
        [job(RIGHT)] * 4 + [job(RIGHT, ['assert abs(add(1, 2) - 3) < 1e-9'])], before, engine=native, workers=1
    )
    assert [verdict for verdict, *_ in found] == ['passed'] * 5


def test_each_job_has_its_own_limits(engine):
    code = 'def add(a, b):\n  bytearray(300 * 2**20)\n  return a + b'
    small, large = Limits(memory_mb=200), Limits(memory_mb=900)
    with ENGINES[engine]() as running:
        found = [judge_with(running, code, TESTS, limits=limits).verdict for limits in (large, small, large)]
    assert found == ['passed', 'memory', 'passed']


# ---- programs that idle, and right programs that only look as if they did ----

SLEEPERS = {
    'sleep': 'import time\ndef add(a, b): time.sleep(1000)',
    'sleep at import': 'import time\ntime.sleep(1000)',
    'naps': 'import time\ndef add(a, b):\n  while True: time.sleep(0.01)',
    'a lock': 'import threading\ndef add(a, b):\n  lock = threading.Lock(); lock.acquire(); lock.acquire()',
    'an event': 'import threading\ndef add(a, b): threading.Event().wait()',
    'a pipe': 'import os\ndef add(a, b):\n  r, w = os.pipe(); os.read(r, 1)',
    'select': 'import select\ndef add(a, b): select.select([], [], [], 1000)',
    'a signal': 'import signal\ndef add(a, b): signal.pause()',
    'a thread that sleeps': 'import threading, time\ndef add(a, b):\n'
    '  t = threading.Thread(target=time.sleep, args=(1000,)); t.start(); t.join()',
    'many threads that sleep': 'import threading, time\ndef add(a, b):\n'
    '  for _ in range(20): threading.Thread(target=time.sleep, args=(1000,)).start()\n  time.sleep(1000)',
    'a queue': 'import queue\ndef add(a, b): return queue.Queue().get()',
    'asyncio': 'import asyncio\ndef add(a, b): return asyncio.run(asyncio.sleep(1000))',
    'its own thread': 'import threading\n'
    'def add(a, b): threading.Thread(target=lambda: t.join()).start(); threading.Event().wait()',
}
NO_THREADS = ('naps', 'sleep', 'sleep at import')


@pytest.mark.skipif(not sees_idling(), reason='this system does not tell')
@pytest.mark.parametrize('name', SLEEPERS)
def test_who_idles_is_stopped_soon(engine, name, monkeypatch):
    if engine == 'wasm' and name not in NO_THREADS:
        pytest.skip('WebAssembly has no threads, pipes or signals to wait for')
    monkeypatch.setattr(engine_module, 'IDLE_S', 0.8)
    began = time.monotonic()
    verdict = judge(SLEEPERS[name], TESTS, engine=engine)
    assert verdict.verdict == 'timeout' and 'used no processor' in verdict.message, verdict
    assert time.monotonic() - began < 12


@pytest.mark.skipif(not sees_idling(), reason='this system does not tell')
def test_test_code_that_is_made_to_wait_is_stopped_soon(native, monkeypatch):
    monkeypatch.setattr(engine_module, 'IDLE_S', 0.8)
    tests = ['import time\ndef check(add):\n    assert add(1, 2) == 3\n    time.sleep(1000)\ncheck(add)']
    assert judge(RIGHT, tests, engine=native).verdict == 'timeout'
    asleep = 'import time\ndef add(a, b): time.sleep(1000)'
    assert judge(asleep, ['assert abs(add(1, 2) - 3) < 1e-9'], engine=native).verdict == 'timeout'


WORKERS_OF_THEIR_OWN = {
    'a thread computes': 'import threading, time\ndef add(a, b):\n  end, out = time.process_time() + 1.5, []\n'
    '  def run():\n    while time.process_time() < end: pass\n    out.append(a + b)\n'
    '  t = threading.Thread(target=run); t.start(); t.join()\n  return out[0]',
    'computes and naps': 'import time\ndef add(a, b):\n  for _ in range(6):\n'
    '    time.sleep(0.05)\n    end = time.process_time() + 0.2\n'
    '    while time.process_time() < end: pass\n  return a + b',
    'prints much': 'def add(a, b):\n  for _ in range(600): print("x" * 99)\n  return a + b',
}


@pytest.mark.parametrize('name', WORKERS_OF_THEIR_OWN)
def test_who_computes_is_not_idle(native, name, monkeypatch):
    """Beside as many busy processes as cores."""
    monkeypatch.setattr(engine_module, 'IDLE_S', 0.8)
    busy = [subprocess.Popen([sys.executable, '-S', '-c', 'while True: pass']) for _ in range(2)]
    try:
        assert judge(WORKERS_OF_THEIR_OWN[name], TESTS[:1], engine=native).verdict == 'passed'
    finally:
        for process in busy:
            process.kill()
            process.wait()


@contextmanager
def fifth_of_a_core():
    """A control group that may use a fifth of a core, or a skip."""
    top = Path('/sys/fs/cgroup/cpu')
    group = (top if top.exists() else Path('/sys/fs/cgroup')) / f'sandbox-test-{os.getpid()}'
    try:
        group.mkdir()
        if (group / 'cpu.cfs_quota_us').exists():
            (group / 'cpu.cfs_quota_us').write_text('20000')
        else:
            (group / 'cpu.max').write_text('20000 100000')
    except OSError:
        pytest.skip('no control group for processors can be made here')
    try:
        yield group
    finally:
        time.sleep(0.5)
        group.rmdir()


@pytest.mark.slow
def test_a_quota_does_not_fail_a_right_program(native):
    """Two CPU seconds of three, at a fifth of a core: ten seconds on the clock, and more than 3 * 3 + 2 for two."""
    code = 'import time\ndef add(a, b):\n  while time.process_time() < 2: pass\n  return a + b'
    with fifth_of_a_core() as group:
        enter = lambda: (group / 'cgroup.procs').write_text(str(os.getpid()))  # noqa: E731
        found = judged_elsewhere([job(code)] * 2, enter, engine=native, workers=2, limits=dict(cpu_s=3))
    assert [verdict for verdict, *_ in found] == ['passed'] * 2, found


# ---- how much of the machine is ours ----


def pretended(folder: Path, **files) -> Path:
    for name, text in files.items():
        path = folder / name.replace('__', '/').replace('_dot_', '.')
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


V2 = dict(proc__self__cgroup='0::/a/b\n')
V1 = dict(proc__self__cgroup='3:pids:/d\n4:cpu,cpuacct:/d\n0::/\n')


def quota(top: str, most: int) -> dict:
    return {
        f'sys__fs__cgroup__{top}cpu_dot_cfs_{name}_us': str(n) for name, n in (('quota', most), ('period', 100_000))
    }


@pytest.mark.parametrize(
    'files, share',
    [
        ({'sys__fs__cgroup__a__b__cpu_dot_max': '20000 100000', **V2}, 0.2),
        (
            {'sys__fs__cgroup__a__b__cpu_dot_max': 'max 100000', 'sys__fs__cgroup__a__cpu_dot_max': '5000 10000', **V2},
            0.5,
        ),
        ({'sys__fs__cgroup__cpu_dot_max': '10000 100000', **V2}, 0.1),  # a container's own top
        ({**quota('cpu__d__', 40_000), **V1}, 0.4),
        ({**quota('cpu,cpuacct__', 30_000), **V1}, 0.3),
    ],
)
def test_quotas_are_seen(tmp_path, files, share):
    root = pretended(tmp_path, **files)
    assert processors(root) == pytest.approx(share) and worker_count(root) == 1


def test_no_quota_leaves_the_affinity(tmp_path):
    mine = len(os.sched_getaffinity(0))
    free = {'sys__fs__cgroup__a__b__cpu_dot_max': 'max 100000', 'sys__fs__cgroup__cpu_dot_cfs_quota_us': '-1'}
    assert processors(tmp_path) == processors(pretended(tmp_path / 'free', **V2, **free)) == mine
    code = 'from lora_mbpp.sandbox.share import worker_count; print(worker_count())'
    done = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
    )
    assert done.stdout == '1\n', done.stderr


def test_threads_are_shared_out_of_what_is_left(tmp_path):
    assert tasks_free(tmp_path) == float('inf') and tasks_each(tmp_path) == MOST_TASKS + 2
    few = {'sys__fs__cgroup__pids__d__pids_dot_max': '60', 'sys__fs__cgroup__pids__d__pids_dot_current': '20'}
    root = pretended(tmp_path, **V1, **few)
    assert tasks_free(root) == 40 and 4 <= tasks_each(root) - 2 <= 20
    (root / 'sys/fs/cgroup/pids/d/pids.current').write_text('60')
    assert tasks_each(root) == 6


# ---- machines that lack something ----

CALLS = dict(pidfd_open=434, landlock_create_ruleset=444, unshare=272, setresuid=117, capset=126)


def without(*names: str):
    """A function that makes system calls fail from then on as on a kernel without them ('seccomp': prctl 22)."""

    def before():
        lacking = instruction(RETURN, 0x50000 | 38)
        code = instruction(LOAD, 0)
        for name in names:
            if name != 'seccomp':
                code += instruction(JUMP_EQUAL, CALLS[name], 0, 1) + lacking
        if 'seccomp' in names:
            code += (
                instruction(JUMP_EQUAL, 157, 0, 3) + instruction(LOAD, 16) + instruction(JUMP_EQUAL, 22, 0, 1) + lacking
            )
        no_new_privileges()
        process_control(22, 2, filter_address(code + instruction(RETURN, ALLOW)))

    return before


LOOK = """
import json
from lora_mbpp.sandbox.capabilities import require_layers, sandbox_layers
from lora_mbpp.sandbox.engines import why_unavailable
from lora_mbpp.sandbox.judge import SandboxError
found = dict(layers=sandbox_layers(), fork=why_unavailable('fork'))
for policy in ('auto', 'required', 'degraded'):
    try:
        require_layers(policy)
        found[policy] = ''
    except SandboxError as error:
        found[policy] = str(error)
require_layers('auto', written_by_model=False)
print(json.dumps(found))
"""


def seen_elsewhere(before) -> tuple:
    """What a process sees of the sandbox that ran `before` first, and what it says on its error stream."""
    done = subprocess.run(
        [sys.executable, '-c', LOOK],
        capture_output=True,
        text=True,
        preexec_fn=before,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout), done.stderr


needs_x86 = pytest.mark.skipif(not X86, reason='numbers of x86_64')


@needs_x86
def test_an_engine_that_cannot_do_its_work_is_not_chosen():
    """No pidfd_open: the first worker answers, but nobody would hear of its end."""
    found, _ = seen_elsewhere(without('pidfd_open'))
    assert 'did not start' in found['fork'] and found['layers']['engine'] != 'fork'
    verdicts = judged_elsewhere([job(RIGHT), job('def add(a, b): return 7')], without('pidfd_open'))
    assert [verdict for verdict, *_ in verdicts] == ['passed', 'wrong_answer']


@needs_x86
@pytest.mark.parametrize(
    'lacking, doors',
    [
        (['seccomp'], {'network', 'processes'}),
        (['landlock_create_ruleset'], {'file reads'}),
        (['seccomp', 'landlock_create_ruleset'], {'network', 'processes', 'file reads'}),
        (['unshare', 'setresuid', 'capset'], {'threads'}),
    ],
)
def test_what_a_machine_lacks_is_said_and_asked_about(lacking, doors):
    found, said = seen_elsewhere(without(*lacking))
    layers = found['layers']
    assert doors <= {door for door, state in layers.items() if state == 'open'} == set(layers['open'])
    assert found['degraded'] == '' and 'leaves open' in found['required']
    assert all(door in said for door in doors) and said.count('leaves open here') == 1
    assert bool(found['auto']) == bool(doors & set(GRAVE)) and ('--sandbox degraded' in found['auto']) == bool(
        found['auto']
    )
    if 'network' in doors:
        assert {'UDP', 'abstract Unix sockets'} <= set(layers['open']['network'])


def test_a_door_is_open_if_one_way_in_is():
    seen = {
        'capabilities': {
            'network': {'TCP': 'PermissionError', 'UDP': 'went through'},
            'memory': {'its limit': 'MemoryError'},
        }
    }
    assert open_ways({**seen, 'untouched': True}) == {'network': ['UDP']}
    changed = {'capabilities': {'file changes': {'folders': 'went through'}}}
    assert open_ways({**changed, 'untouched': False}) == {'file changes': ['folders']}
    assert open_ways({**changed, 'untouched': True}) == {}  # in a file system of its own


@pytest.mark.parametrize('name', ['fork', 'process', 'wasm'])
def test_all_doors_are_tried_and_shut_here(name):
    if reason := why_unavailable(name):
        pytest.skip(reason)
    layers = sandbox_layers(engine=name)
    assert 'open' not in layers and 'missing' not in layers, layers
    assert require_layers('required', engine=name) == layers


# ---- what was not judged ----


def record(task: dict, text: str) -> dict:
    return dict(task_id=task['task_id'], sample_idx=0, text=text, code=text, extraction='given')


def tasks_of(count: int) -> list:
    facts = dict(setup='', entry_point=None, clean=True, tests=TESTS)
    return [dict(task_id=n, **facts) for n in range(count)]


def broken(monkeypatch, marks: str):
    """The process engine refuses programs with that mark, always."""
    usual = engine_module.Engine

    class Refusing(ENGINES['process']):
        def start(self, limits, messages=None):
            if marks in ''.join(messages or ['']):
                raise OSError('Resource temporarily unavailable')
            return super().start(limits, messages)

    monkeypatch.setitem(ENGINES, 'process', Refusing)
    monkeypatch.setattr('lora_mbpp.sandbox.judge.PAUSES', (0, 0.01))
    return usual


def test_what_is_not_judged_stands_in_the_numbers(tmp_path, monkeypatch, capsys):
    broken(monkeypatch, marks='# unlucky')
    tasks = tasks_of(5)
    records = [record(task, RIGHT + '\n# unlucky' * (task['task_id'] > 2)) for task in tasks]
    results = score(records, tasks, tmp_path / 'results.jsonl', Limits(), {'engine': 'process'})
    info = summarise(results, tasks)
    assert (info['pass_at_1'], info['n_tasks'], info['n_samples']) == (1.0, 3, 5)
    assert (info['n_unjudged'], info['unjudged_tasks'], info['verdicts']['harness_error']) == (2, [3, 4], 2)
    assert '2 of 5 programs NOT JUDGED (2 harness_error; task 3, 4)' in capsys.readouterr().out
    monkeypatch.undo()  # another day all is well, and only those are judged again
    again = score(records, tasks, tmp_path / 'results.jsonl', Limits(), {'engine': 'process'})
    assert summarise(again, tasks)['n_unjudged'] == 0


def test_nothing_judged_is_no_score(tmp_path, monkeypatch):
    broken(monkeypatch, marks='')
    tasks = tasks_of(4)
    with pytest.raises(UserError, match='none of the 4 programs could be judged.*Resource temporarily'):
        score([record(task, RIGHT) for task in tasks], tasks, tmp_path / 'r.jsonl', Limits(), {'engine': 'process'})


@pytest.mark.parametrize('unlucky, status', [(0, 0), (1, 1), (3, 2)])
def test_exit_status_of_eval(tmp_path, monkeypatch, capsys, unlucky, status):
    from lora_mbpp.cli import main

    broken(monkeypatch, marks='# unlucky')
    rows = [dict(task_id=n, text='Add.', code=RIGHT, test_list=TESTS, split='test') for n in range(3)]
    samples = [dict(task_id=n, solution=RIGHT + '\n# unlucky' * (n < unlucky)) for n in range(3)]
    places = [tmp_path / name for name in ('tasks.jsonl', 'samples.jsonl', 'references.jsonl')]
    for path, lines in zip(places, (rows, samples, [{**row, 'code': s['solution']} for row, s in zip(rows, samples)])):
        path.write_text('\n'.join(map(json.dumps, lines)))
    out, folder = tmp_path / 'out.json', str(tmp_path / 'artifacts')
    common = ['--sandbox-engine', 'process', '--artifacts-dir', folder]
    files = ['--samples', str(places[1]), '--mbpp-file', str(places[0]), '--out-file', str(out)]
    assert main(['eval', *files, *common]) == status
    said = ''.join(capsys.readouterr())
    assert main(['eval', '--self-check', '--mbpp-file', str(places[2]), *common]) == status
    checked = ''.join(capsys.readouterr())
    assert ('not judged' in said.lower() + checked.lower()) == (status == 1)
    assert ('could be judged' in said and 'could be judged' in checked) == (status == 2)
    if status < 2:
        assert json.loads(out.read_text())['eval_info']['n_unjudged'] == unlucky


# ---- the parent goes ----

LEAVES = """
import sys, time
from lora_mbpp.sandbox.judge import judge_many
from lora_mbpp.sandbox.engine import Limits
code = dict(sleeps='import time\\nwhile True: time.sleep(999)', computes='while True: pass')[sys.argv[2]]
def jobs():
    yield dict(code='x = 1', tests=['assert x == 1'])
    for _ in range(9): yield dict(code=code, tests=['assert x == 1'])
verdicts = judge_many(jobs(), workers=2, engine=sys.argv[1], limits=Limits(cpu_s=60, wall_s=200))
print(next(verdicts)[1].verdict, flush=True)
print(next(verdicts))
"""


def processes_below(folder: Path) -> list:
    """Processes that work in a folder."""
    found = []
    for entry in Path('/proc').glob('[0-9]*'):
        try:
            if os.readlink(entry / 'cwd').startswith(f'{folder}/'):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize('what', ['sleeps', 'computes'])
@pytest.mark.parametrize('number', ['SIGKILL', 'SIGTERM', 'SIGHUP'])
def test_a_killed_parent_leaves_nothing(engine, number, what, tmp_path, monkeypatch):
    environment = {**os.environ, 'TMPDIR': str(tmp_path), 'PYTHONPATH': str(ROOT)}
    command = [sys.executable, '-c', LEAVES, engine, what]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as parent:
        assert parent.stdout.readline() == 'passed\n'
        time.sleep(0.5)
        assert processes_below(tmp_path)
        parent.send_signal(getattr(signal, number))
        assert parent.wait(10) != 0
    end = time.monotonic() + 4
    while processes_below(tmp_path) and time.monotonic() < end:
        time.sleep(0.05)
    assert processes_below(tmp_path) == []
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
    if number == 'SIGKILL':
        remove_abandoned()  # as the next engine does
    assert list(tmp_path.iterdir()) == []


def test_folders_in_use_stay(tmp_path, monkeypatch, native):
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
    (tmp_path / 'candidate-of-somebody').mkdir()  # without our file: not ours
    with ENGINES[native]() as first, ENGINES[native]() as second:
        assert judge_with(first, RIGHT, TESTS).verdict == judge_with(second, RIGHT, TESTS).verdict == 'passed'
    assert [path.name for path in tmp_path.iterdir()] == ['candidate-of-somebody']


def test_a_program_cannot_end_its_server(native):
    """It knows its parent, and may send it nothing."""
    code = (
        'import ctypes, os\nlibc = ctypes.CDLL(None)\n'
        'def hit():\n  for n in (9, 15, 19):\n    for call in (62, 200, 234):\n'
        '      libc.syscall(call, os.getppid(), n, 0); libc.syscall(call, os.getppid(), os.getppid(), n)\n'
        '  libc.prctl(1, 0, 0, 0, 0)\n  return 1'
    )
    with ENGINES[native]() as running:
        for _ in range(2):
            assert judge_with(running, code, ['assert hit() == 1']).verdict in ('passed', 'killed')
        assert judge_with(running, RIGHT, TESTS).verdict == 'passed'


# ---- the longest first ----


def test_the_slow_references_are_guessed():
    rows = [json.loads(line) for line in published('mbpp.jsonl').read_text(encoding='utf-8').splitlines()]
    jobs = [dict(code=row['code'], tests=row['test_list']) for row in rows]
    order = [rows[index]['task_id'] for index, _ in longest_first(jobs)]
    assert 123 in order[:20] and sorted(order) == sorted(row['task_id'] for row in rows)
    assert order == [rows[index]['task_id'] for index, _ in longest_first(jobs)]


@pytest.mark.parametrize('code', ['', 'for ' * 100_000, '\x00', 'for i in range(9):\n' * 3000, 'x = ' + '9' * 10_000])
def test_a_guess_is_quick_whatever_the_text(code):
    began = time.monotonic()
    assert guessed_cost(dict(code=code, tests=['assert f(99) == 1'])) >= 0
    assert time.monotonic() - began < 0.2


def test_a_list_is_judged_longest_first_and_numbered_as_given():
    slow = 'def add(a, b):\n  for i in range(9999):\n    for j in range(3): pass\n  return a + b'
    found = list(judge_many([job(RIGHT), job('def add(a, b): return 7'), job(slow)], workers=1, engine='process'))
    assert found[0][0] == 2 and {index: verdict.verdict for index, verdict in found} == {
        0: 'passed',
        1: 'wrong_answer',
        2: 'passed',
    }


def test_ctypes_is_there():
    """The programs above need it; where it is missing they would fail for the wrong reason."""
    assert ctypes.CDLL(None).getpid() == os.getpid()


# ---- programs that say more than they are asked ----

LINE = """
import sys
def line():
    frame = sys._getframe()
    while 'channel' not in frame.f_locals:
        frame = frame.f_back
    return frame.f_locals['channel']
def add(a, b):
    to = line()
"""
RESULT = 'done ["graph",0,["tuple",["int","0x17"],1],["tuple"]]'  # a call's result, 23, as a worker tells a tester
FLOODS = {
    'replies': f"{LINE}    while True: to.send('done null' + ' ' * 2_000_000)",
    'replies that a tester takes': f"{LINE}    while True: to.send({RESULT!r} + ' ' * 2_000_000)",
    'small replies': f"{LINE}    while True: to.send('done null')",
    'a reply without end': LINE
    + """
    stream, piece = (to.writer, b'x' * 10**6) if hasattr(to, 'writer') else (to.replies, 'x' * 10**6)
    if hasattr(to, 'writer'): stream.write(b'03000000')
    while True:
        stream.write(piece)
        stream.flush()
""",
    'objects': f"{LINE}    while True: to.send('done [' + '{{}},' * 1_300_000 + 'null]')",
    'prints': 'def add(a, b):\n    while True: print("x" * 1_000_000)',
    'prints without line ends': 'def add(a, b):\n    while True: print("x" * 1_000_000, end="", flush=True)',
}
SLOW_TEST = 'x = add(20, 3)\nn = 0\nwhile n < 3_000_000: n += 1\nassert x == 23'  # goes on while the candidate floods
GROWTH = """
import json, resource, sys
from lora_mbpp.sandbox.engine import Limits
from lora_mbpp.sandbox.judge import judge
programs, test, engine = json.load(sys.stdin)
limits, found = Limits(cpu_s=2, wall_s=20, memory_mb=512), []
judge('def add(a, b): return a + b', [test], engine=engine)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name, program in programs.items():
    judge(program, [test], limits=limits, engine=engine)
    found.append((name, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024))
print(json.dumps(found))
"""


@pytest.mark.parametrize('test', [pytest.param(TESTS[0], id='split'), pytest.param(SLOW_TEST, id='whole')])
def test_a_flood_does_not_fill_the_memory_of_the_judge(engine, test):
    few = ('replies that a tester takes', 'a reply without end', 'prints')  # where everything takes ten times as long
    floods = {name: program for name, program in FLOODS.items() if engine != 'wasm' or name in few}
    asked = json.dumps([floods, test, engine])
    run = subprocess.run([sys.executable, '-c', GROWTH], input=asked, capture_output=True, text=True)
    grown = json.loads(run.stdout.splitlines()[-1])
    assert [name for name, _ in grown] == list(floods) and grown[-1][1] < 100, grown  # MiB until then
