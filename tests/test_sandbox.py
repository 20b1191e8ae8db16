"""Hostile programs against the sandbox. None may be judged 'passed', do harm, or leave anything running.

`python tests/test_sandbox.py [engine ...]` runs them without pytest or hypothesis, on any interpreter."""

import ctypes
import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from bait import Bait
from hostile import DANGEROUS, GOOD, GOOD_TESTED, GOOD_UNREASONABLE, HOSTILE, HOSTILE_TESTED, PLEDGE, RIGHT, TESTS

from lora_mbpp.sandbox.capabilities import CAPABILITIES, require_layers, sandbox_layers
from lora_mbpp.sandbox.engine import Gone, Limits
from lora_mbpp.sandbox.fork_engine import ForkEngine
from lora_mbpp.sandbox.judge import SandboxError, judge, judge_many, judge_with
from lora_mbpp.sandbox.questions import split_assert
from lora_mbpp.sandbox.values import DecodeError, Opaque, decode_value, encode_value
from lora_mbpp.sandbox.verdicts import VERDICTS

LIMITS = Limits(cpu_s=1, wall_s=3, memory_mb=256)
GENEROUS = Limits(cpu_s=10, wall_s=60, memory_mb=512)
SLOWLY = Limits(cpu_s=1, wall_s=30, memory_mb=256)
LINUX = sys.platform == 'linux'

# To try another engine, add its name here: one that this machine or this code lacks is skipped with the reason.
ENGINES = ('fork', 'wasm', 'process')
# "fork" and "process" give the verdicts of the table. These are WebAssembly's own: no signals, no threads, 32 bits,
# and a host that recursion in C kills.
OTHERWISE = {
    'wasm': {
        'ignores every signal': 'runtime_error',
        'waits for a lock': 'killed',
        'recursion of __getattr__': 'killed',
        'deep nest': 'killed',
        'too many brackets': 'killed',
        'memory bomb': 'runtime_error',
        'output in one piece': 'killed',
        'pickle given to the test': 'killed',
        'threads': 'runtime_error',
        'patched import path': 'killed',
    }
}
# What only looks like a broken promise there: variables of the worker's own, a resolver that returns the name,
# a Popen that cannot be used.
HARMLESS = {'wasm': {'environment', 'name service', 'climbs the classes of what it was given'}}
# What each engine promises where all its layers hold: 'writes' no file changes, 'network' no connection,
# 'reads' no file beyond the standard library, 'powers' nothing that prints HARM.
PROMISES = {engine: {'writes', 'network', 'reads', 'powers'} for engine in ENGINES}


def unavailable(engine: str) -> str | None:
    "Why the engine cannot be tried here; None if it can"
    try:
        verdict = judge(RIGHT, TESTS, limits=LIMITS, engine=engine)
    except (SandboxError, ValueError) as error:
        return f'no engine {engine}: {error}'
    return None if verdict.verdict == 'passed' else f'the engine {engine} does not run: {verdict}'


def promised(engine: str) -> set | None:
    "What holds on this machine; None if so little that dangerous programs must not be tried"
    if sandbox_layers(engine=engine)['processes'] != 'shut':
        return None
    return PROMISES[engine]


def processes_in(folder: Path) -> list:
    "The running processes that work somewhere below a folder, as every child of ours does"
    found = []
    for entry in Path('/proc').iterdir() if LINUX else ():
        if entry.name.isdigit():
            try:
                place = os.readlink(entry / 'cwd')
            except OSError:
                continue
            if place.startswith(f'{folder}/'):
                found.append(entry.name)
    return found


def descendants() -> list:
    "Processes of ours that still exist, zombies too"
    mine = []
    for entry in Path('/proc').iterdir() if LINUX else ():
        if entry.name.isdigit():
            try:
                fields = (entry / 'stat').read_text().rsplit(')', 1)[1].split()
            except OSError:
                continue
            if int(fields[1]) == os.getpid():
                mine.append(entry.name)
    return mine


def family() -> set:
    "All living processes below this one, however deep"
    parents = {}
    for entry in Path('/proc').iterdir() if LINUX else ():
        if entry.name.isdigit():
            try:
                state, parent = (entry / 'stat').read_text().rsplit(')', 1)[1].split()[:2]
            except OSError:
                continue
            if state != 'Z':
                parents[int(entry.name)] = int(parent)
    found, more = set(), {os.getpid()}
    while more:
        found |= more
        more = {pid for pid, parent in parents.items() if parent in more} - found
    return found - {os.getpid()}


def adopt_orphans(yes: bool = True):
    "Let processes that lose their parent become ours (PR_SET_CHILD_SUBREAPER), so that a runaway shows up in `family`"
    if LINUX:
        ctypes.CDLL(None).prctl(36, int(yes), 0, 0, 0)


@contextmanager
def nothing_stays(engine: str):
    "Fails if processes or temporary files are left behind"
    judge(RIGHT, TESTS, limits=LIMITS, engine=engine)  # whatever the engine keeps standing stands now
    before, usual = family(), tempfile.gettempdir()
    adopt_orphans()
    with tempfile.TemporaryDirectory(prefix='leftovers-') as folder:
        tempfile.tempdir = folder
        try:
            yield
        finally:
            tempfile.tempdir = usual
        end = time.monotonic() + 3
        while (left := family() - before) and time.monotonic() < end:
            time.sleep(0.05)
        adopt_orphans(False)
        assert not left, [Path(f'/proc/{pid}/cmdline').read_bytes() for pid in left]
        assert os.listdir(folder) == []


def shared_leftovers() -> list:
    "System V objects and shared memory that hostile programs made; they are removed"
    if not LINUX:
        return []
    key, found, libc = 0x6D627070, [], ctypes.CDLL(None)
    for kind, control in (
        ('shm', lambda n: libc.shmctl(n, 0, None)),
        ('sem', lambda n: libc.semctl(n, 0, 0)),
        ('msg', lambda n: libc.msgctl(n, 0, None)),
    ):
        try:
            lines = Path(f'/proc/sysvipc/{kind}').read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            if int(line.split()[0]) == key:
                found.append(f'System V {kind}')
                control(int(line.split()[1]))
    with suppress(AttributeError):  # not in every libc
        if libc.mq_unlink(b'/hostile') == 0:
            found.append('POSIX message queue')
    if Path('/dev/shm/hostile_shm').exists():
        found.append('shared memory')
        os.remove('/dev/shm/hostile_shm')
    return found


def in_order(pairs) -> list:
    "The verdicts of `judge_many` in the order of the jobs"
    return [verdict for _, verdict in sorted(pairs, key=lambda pair: pair[0])]


def judge_hostile(engine: str, table: dict, limits: Limits = LIMITS, workers: int = 4) -> tuple:
    "Judge `{name: (program, tests, verdicts, entry point)}`; `({name: verdict}, {name: promises broken})`"
    promises = promised(engine)
    if promises is None:
        table = {name: entry for name, entry in table.items() if name not in DANGEROUS and '@' not in entry[0]}
    with Bait() as bait, nothing_stays(engine):
        traps = {name: bait.lay(program, tests) for name, (program, tests, _, _) in table.items()}
        jobs = [dict(code=traps[name].program, tests=traps[name].tests, entry_point=table[name][3]) for name in table]
        judged = in_order(judge_many(jobs, workers=workers, limits=limits, engine=engine))
        verdicts = dict(zip(table, judged))
        broken = {
            name: found
            for name, trap in traps.items()
            if (found := broken_promises(trap, verdicts[name], promises or set()))
        }
        if (connections := bait.connections()) and 'network' in (promises or ()):
            broken['connections'] = [f'{connections} at the port']
    if (left := shared_leftovers()) and 'powers' in (promises or ()):
        broken['left behind'] = left
    return verdicts, broken


def broken_promises(trap, verdict, promises: set) -> list:
    "Sentences about what the program got that the engine promises it would not"
    text = f'{verdict.stdout}\n{verdict.message}'
    return (
        (trap.touched() if 'writes' in promises else [])
        + (trap.told(text) if 'reads' in promises else [])
        + (trap.boasts(text) if 'powers' in promises else [])
    )


def check_hostile(engine: str = 'process', every: int = 1) -> dict:
    "Judge one hostile program of `every`; `{name: verdict or broken promises}` of those that got what they should not"
    table = {name: (program, TESTS, allowed, 'add') for name, (program, allowed) in [*HOSTILE.items()][::every]}
    return check_table(engine, table)


def check_hostile_tested(engine: str = 'process') -> dict:
    "The same against tests that cannot be split; what such a test needs may be more than two processes can give it"
    table = {name: (*entry[:2], entry[2] | {'not_supported'}, None) for name, entry in HOSTILE_TESTED.items()}
    return check_table(engine, table)


def check_table(engine: str, table: dict) -> dict:
    """What is unexpected of a table.

    On a busy machine the clock hits the innocent: whoever ran out of time is judged again, alone, with more of it."""
    found = unexpected(engine, table, *judge_hostile(engine, table))
    late = {
        name: table[name]
        for name, what in found.items()
        if getattr(what, 'verdict', '') in ('timeout', 'harness_error')
    }
    if not late:
        return found
    return {name: what for name, what in found.items() if name not in late} | unexpected(
        engine, late, *judge_hostile(engine, late, SLOWLY, 1)
    )


def unexpected(engine: str, table: dict, verdicts: dict, broken: dict) -> dict:
    "Verdicts outside the set that their program may get, and broken promises"
    assert all(verdict.verdict in VERDICTS for verdict in verdicts.values())
    own = OTHERWISE.get(engine, {})
    return {
        name: verdict for name, verdict in verdicts.items() if verdict.verdict not in table[name][2] | {own.get(name)}
    } | {name: what for name, what in broken.items() if name not in HARMLESS.get(engine, ())}


def check_good(engine: str = 'process', table: dict | None = None) -> dict:
    "The same for programs that deserve to pass"
    table = table or {**GOOD, **{f'{name} (tested)': entry for name, entry in GOOD_TESTED.items()}}
    jobs = [dict(zip(('code', 'tests', 'setup'), entry)) for entry in table.values()]
    verdicts = in_order(judge_many(jobs, workers=4, limits=GENEROUS, engine=engine))
    return {
        name: verdict
        for name, verdict in zip(table, verdicts)
        if verdict.verdict not in ('passed', OTHERWISE.get(engine, {}).get(name))
    }


def mbpp_file() -> Path | None:
    "The MBPP file, where a developer keeps it"
    beside = Path(__file__).resolve().parents[1].parent / 'shared' / 'data' / 'mbpp.jsonl'
    named = os.environ.get('LORA_MBPP_TEST_DATA')
    for path in ([Path(named), Path(named) / 'mbpp.jsonl'] if named else []) + [beside]:
        if path.is_file():
            return path


def check_references(path: Path, engine: str = 'auto') -> dict:
    "Judge MBPP's own solutions; `{task id: verdict}` of those that do not pass"
    rows = [json.loads(line) for line in path.read_text(encoding='utf-8').split('\n') if line.strip()]
    jobs = (dict(code=row['code'], tests=row['test_list'], setup=row['test_setup_code']) for row in rows)
    return {
        rows[index]['task_id']: verdict
        for index, verdict in judge_many(jobs, engine=engine)
        if verdict.verdict != 'passed'
    }


try:
    import pytest
except ImportError:
    pytest = None

if pytest:
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    plain = (
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats()
            | st.complex_numbers()
            | st.binary()
            | st.text(st.characters(codec=None, categories=None))
            | st.integers(2**13000, 2**17000),
            lambda inner: (
                st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.integers() | st.text(), inner)
            ),
            max_leaves=30,
        )
        | st.sets(st.integers() | st.text())
        | st.frozensets(st.floats(allow_nan=False) | st.tuples(st.integers()))
    )

    def same(a, b):
        "Equal in type, value, order, sign of zero and nan-ness"
        if type(a) is not type(b):
            return False
        if isinstance(a, (list, tuple)):
            return len(a) == len(b) and all(map(same, a, b))
        if isinstance(a, dict):
            return same(list(a.items()), list(b.items()))
        if isinstance(a, float):
            return a.hex() == b.hex()
        if isinstance(a, complex):
            return same([a.real, a.imag], [b.real, b.imag])
        return a == b

    @pytest.fixture(params=ENGINES)
    def engine(request):
        "The engines, one after the other"
        if reason := unavailable(request.param):
            pytest.skip(reason)
        return request.param

    # a process for each program takes its time
    slow_one = [pytest.param(one, marks=pytest.mark.slow) if one == 'process' else one for one in ENGINES]

    @pytest.mark.slow
    def test_hostile_programs_are_never_passed_and_leave_nothing(engine):
        assert check_hostile(engine) == {}

    @pytest.mark.parametrize('engine', ['fork'], indirect=True)
    def test_some_hostile_programs_are_never_passed(engine):
        assert check_hostile(engine, every=5) == {}

    @pytest.mark.parametrize('engine', slow_one, indirect=True)
    def test_tests_that_cannot_be_split_are_not_bent(engine):
        assert check_hostile_tested(engine) == {}

    @pytest.mark.parametrize('engine', slow_one, indirect=True)
    def test_good_programs_pass(engine):
        assert check_good(engine) == {}

    @pytest.mark.skipif(mbpp_file() is None, reason='no MBPP file: set LORA_MBPP_TEST_DATA to its folder')
    def test_all_mbpp_references_pass():
        assert check_references(mbpp_file()) == {}

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
    @given(plain)
    def test_codec_round_trip(value):
        assert same(decode_value(encode_value(value)), value)

    json_trees = st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text()
        | st.sampled_from(['int', 'float', 'str', 'bytes', 'bool', 'complex', 'opaque', 'list', 'dict', 'set']),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )

    @settings(max_examples=500, deadline=None)
    @given(st.binary() | json_trees.map(lambda tree: json.dumps(tree).encode()))
    def test_decoder_raises_only_its_own_error(text):
        try:
            decode_value(text)
        except DecodeError:
            pass

    @pytest.mark.parametrize(
        'text',
        [
            b'[' * 10**6,
            b'{"a":' * 10**5,
            b'["int",' * 50_000,
            b'["float","0x1p99999"]',
            b'["set",["dict"]]',
            b'["dict",null]',
            b'["bool","2"]',
            b'["list"',
            b'9' * 5000,
            b'NaN',
            b'"int"',
            b'{"int":0,"5":0}',
        ],
    )
    def test_decoder_refuses(text):
        with pytest.raises(DecodeError):
            decode_value(text)

    def test_opaque_equals_nothing():
        assert isinstance(decode_value(encode_value(object())), Opaque)
        assert decode_value(encode_value([print])) != decode_value(encode_value([print]))

    def test_expected_values_stay_outside():
        asserts = [
            'assert f(1) == 4321',
            'assert 4321 == f(1)',
            'assert f(1) == [4321], "no"',
            'assert (f(1)\n  ) == {4321: 4321}',
        ]
        for question in map(split_assert, asserts):
            assert question.kind == 'value' and '4321' not in question.source

    @pytest.mark.parametrize(
        'test',
        [
            'assert f(1) == g(1)',
            'assert 1 == 1',
            'assert f(1) < 2',
            'assert f(1) == 1 == 1',
            'assert isclose(f(1), 2)',
            'x = 1',
            'assert f(1) is 5',
            'assert f(1) is 1',
            'assert f(1) and f(2)',
            'def check(c):\n  assert c(1) == 2\ncheck(f)',
        ],
    )
    def test_what_cannot_be_split_stays_whole(test):
        assert split_assert(test).kind == 'statement' and split_assert(test).source == test

    @pytest.mark.parametrize(
        'program',
        [
            'import os; os._exit(0)',
            'import sys; sys.exit(0)',
            'def add(a, b): return 7',
            'class Yes:\n  __eq__ = lambda s, o: False\n  __lt__ = lambda s, o: False\ndef add(a, b): return Yes()',
            'import os\ndef add(a, b): os._exit(0)',
            'print("done")',
        ],
    )
    def test_statements_need_their_end(program):
        said = {'wrong_answer', 'runtime_error'} | ({'not_supported'} if 'class Yes' in program else set())
        assert judge(program, ['assert add(20, 3) < 5'], limits=LIMITS).verdict in said

    def test_statement_cannot_be_bent():
        program = 'import builtins\nbuiltins.abs = lambda x: 0' + PLEDGE
        assert judge(program, ['assert abs(add(20, 3) - 23) < 0.5'], limits=LIMITS).verdict != 'passed'

    @pytest.mark.parametrize(
        'code, index, name',
        [
            ('def add(a, b): return 23', 1, None),
            ('1/0', None, 'ZeroDivisionError'),
            ('def add(a, b): return a + b if a > 0 else 1/0', 1, 'ZeroDivisionError'),
        ],
    )
    def test_failing_test_is_named(code, index, name):
        verdict = judge(code, TESTS, limits=LIMITS)
        assert (verdict.failing_test, verdict.exception_type) == (index, name)

    def test_message_is_short():
        assert len(judge('raise ValueError("x" * 10**5)', TESTS).message) == 300

    def test_setup_runs_after_the_candidate():
        assert judge('class Node: value = 3', ['assert node.value == 3'], setup='node = Node()').verdict == 'passed'
        assert judge('def add(a): return a', ['assert add(x) == 1'], setup='x = missing').exception_type == 'NameError'

    @pytest.mark.parametrize('arguments', [dict(tests=[]), dict(tests=['assert add(']), dict(tests=TESTS, setup='x =')])
    def test_trouble_of_ours_is_not_blamed_on_the_candidate(arguments):
        assert judge(RIGHT, **arguments).verdict == 'harness_error'

    def test_no_interpreter_is_a_harness_error(monkeypatch):
        monkeypatch.setattr(sys, '_base_executable', os.path.join(os.path.dirname(__file__), 'no-such-python'))
        assert judge(RIGHT, TESTS, engine='process').verdict == 'harness_error'
        monkeypatch.setattr(sys, '_base_executable', '/bin/false' if os.path.exists('/bin/false') else '/usr/bin/false')
        if os.name != 'nt':
            assert judge(RIGHT, TESTS, engine='process').verdict == 'harness_error'
        if LINUX:
            with pytest.raises(SandboxError, match='the fork server did not start'):
                judge(RIGHT, TESTS, engine='fork')

    def test_replies_lost_with_a_crashed_host_are_asked_for_again():
        """The first worker's host dies before it hands on a reply; one asked step by step gets as far as it gets."""
        if reason := unavailable('fork'):
            pytest.skip(reason)
        asked = []

        class Crashing(ForkEngine):
            def start(self, limits, messages=None, one_by_one=False):
                child = super().start(limits, messages)
                asked.append(one_by_one)

                def lose_all():
                    raise Gone

                def crash(finish=child.finish):
                    return replace(finish(), cause='crash', detail='a crash')

                if not one_by_one:
                    child.receive = lose_all
                child.finish = crash
                return child

        with Crashing() as engine:
            verdict = judge_with(engine, 'def add(a, b): return 1/0', TESTS)
        assert asked == [False, True] and verdict.exception_type == 'ZeroDivisionError'
        asked.clear()
        with Crashing() as engine:
            verdict = judge_with(engine, 'import os\nprint("kept")\nprint("lost?", flush=True)\nos._exit(0)', TESTS)
        assert verdict.verdict == 'killed' and verdict.message == 'ended by a crash' and verdict.stdout == ''

    def test_cpu_time_is_reported():
        if os.name != 'nt':
            assert 0.3 < judge('import time\nwhile time.process_time() < 0.5: pass\n' + RIGHT, TESTS).cpu_seconds < 3

    def test_hash_seed_is_fixed():
        program = 'def order(): return list({"alpha", "beta", "gamma", "delta"})'
        seen = {judge(program, ['assert order() == 0']).message for _ in range(3)}
        assert len(seen) == 1

    @pytest.mark.parametrize('engine', ENGINES)
    def test_two_runs_give_the_same_record(engine):
        if reason := unavailable(engine):
            pytest.skip(reason)
        program = (
            'import random\nprint(object(), add_it := lambda: 0, {"a", "b", "c"}, random.random())\n'
            'def add(a, b): raise ValueError(f"{object()} {random.random()}")'
        )
        first, second = (judge(program, TESTS, engine=engine) for _ in range(2))
        assert (
            (first.stdout, first.message) == (second.stdout, second.message)
            and '0x...' in first.stdout
            and '0x...' in first.message
        )

    @pytest.mark.slow
    @pytest.mark.skipif(mbpp_file() is None, reason='no MBPP file: set LORA_MBPP_TEST_DATA to its folder')
    def test_slow_reference_passes_with_every_core_busy():
        rows = map(json.loads, mbpp_file().read_text(encoding='utf-8').splitlines())
        row = next(row for row in rows if row['task_id'] == 123)
        busy = [subprocess.Popen([sys.executable, '-c', 'while True: pass']) for _ in range(os.cpu_count())]
        try:
            assert judge(row['code'], row['test_list']).verdict == 'passed'
        finally:
            for process in busy:
                process.kill()
                process.wait()

    def test_closing_leaves_nothing():
        before = set(descendants())
        verdicts = judge_many(
            [dict(code=RIGHT, tests=TESTS)] + 50 * [dict(code='import time; time.sleep(1000)', tests=TESTS)], workers=3
        )
        assert next(verdicts)[1].verdict == 'passed'
        began = time.monotonic()
        verdicts.close()
        assert time.monotonic() - began < 3 and set(descendants()) <= before

    @pytest.mark.skipif(os.name == 'nt', reason='POSIX signals')
    @pytest.mark.parametrize('number', [signal.SIGINT] + [signal.SIGKILL] * LINUX)
    def test_ctrl_c_and_even_kill_leave_nothing(number, tmp_path):
        script = (
            'from lora_mbpp.sandbox.judge import judge_many\n'
            'job = lambda code: dict(code=code, tests=["assert add() == 1"])\n'
            'verdicts = judge_many([job("x = 1")] + 9 * [job("import time; time.sleep(999)")], workers=3)\n'
            'print(next(verdicts), flush=True); next(verdicts)'
        )
        with subprocess.Popen(
            [sys.executable, '-c', script],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, 'TMPDIR': str(tmp_path)},
        ) as parent:
            assert 'runtime_error' in parent.stdout.readline()
            time.sleep(0.3)
            parent.send_signal(number)
            assert parent.wait(20) != 0
        end = time.monotonic() + 4
        while processes_in(tmp_path) and time.monotonic() < end:
            time.sleep(0.05)
        assert processes_in(tmp_path) == []

    def test_jobs_are_drawn_lazily_and_counted():
        drawn, counts = [], []

        def jobs():
            for number in range(40):
                drawn.append(number)
                yield dict(code=RIGHT, tests=TESTS)

        verdicts = judge_many(jobs(), workers=2, progress=counts.append)
        next(verdicts)
        assert len(drawn) <= 5
        assert len(list(verdicts)) == 39 and counts == list(range(1, 41))

    def test_unknown_job_keys_raise():
        with pytest.raises(TypeError):
            list(judge_many([dict(code=RIGHT, tests=TESTS, colour='red')]))

    def test_no_folders_or_descriptors_pile_up(tmp_path, monkeypatch):
        monkeypatch.setattr('tempfile.tempdir', str(tmp_path))

        def count():
            gc.collect()  # what other tests have left
            return len(os.listdir('/proc/self/fd')) if LINUX else 0

        judge(RIGHT, TESTS)
        before = count()
        for program in ('import os; os._exit(1)', RIGHT, 'while True: print("x" * 9999)'):
            judge(program, TESTS, limits=LIMITS)
        assert list(tmp_path.iterdir()) == [] and count() == before

    @pytest.mark.skipif(
        not LINUX or os.uname().machine not in ('x86_64', 'aarch64'),
        reason='the filter needs Linux on x86_64 or aarch64',
    )
    def test_all_layers_hold_here():
        layers = require_layers('required')
        assert layers == sandbox_layers() and layers['engine'] == 'fork'
        names = {'network', 'processes', 'threads', 'file changes', 'file reads', 'signals', 'memory'}
        assert names == set(CAPABILITIES) and {layers[name] for name in names} == {'shut'}

    def test_required_fails_closed(monkeypatch):
        layers = {'engine': 'process', **dict.fromkeys(CAPABILITIES, 'shut'), 'environment': 'clean'}
        layers['file reads'] = 'open'
        monkeypatch.setattr('lora_mbpp.sandbox.capabilities.sandbox_layers', lambda limits, engine: layers)
        with pytest.raises(SandboxError, match='leaves open: file reads .open.'):
            require_layers('required')
        with pytest.raises(SandboxError, match='leaves open: file reads .open.; install .* --sandbox degraded'):
            require_layers('auto')
        assert require_layers('degraded')['file reads'] == 'open'
        assert require_layers('auto', written_by_model=False)['file reads'] == 'open'

    @pytest.mark.parametrize('engine', ENGINES)
    @pytest.mark.parametrize(
        'program, verdict',
        [
            ('def add(a, b): print("debug", a, b); return a - b', ('wrong_answer', 0, 11)),
            ('def add(a, b): print("x" * 70_000); return 7', ('wrong_answer', 0, 65536)),
            ('def add(a, b): print("x" * 40_000); return a + b if a > 0 else 7', ('wrong_answer', 1, 65536)),
            ('def add(a, b): print("x" * 10**7); return 7', ('output_limit', 0, 65536)),
            ('import os\ndef add(a, b): os.write(1, b"y" * 9); return 23', ('wrong_answer', 1, 18)),
        ],
        ids=['prints', 'prints much', 'prints more', 'floods', 'writes'],
    )
    def test_what_is_kept_of_the_output_does_not_depend_on_luck(engine, program, verdict):
        """The program is judged while it prints on: the record may hold only what came before the verdict."""
        if reason := unavailable(engine):
            pytest.skip(reason)
        jobs = [dict(code=program, tests=[*TESTS, *TESTS[:1] * 3])] * (25 if engine == 'fork' else 5)
        assert {(v.verdict, v.failing_test, len(v.stdout)) for _, v in judge_many(jobs, engine=engine)} == {verdict}

    def test_replies_that_arrived_count_although_questions_could_not_be_sent():
        tests = ['assert add(1, 2) == 3', 'assert bye(1) == 3', f'assert bye({list(range(60_000))}) == 4']
        jobs = [dict(code='import os\ndef add(a, b): return 3\ndef bye(l): os._exit(0)', tests=tests)] * 20
        assert {(v.verdict, v.failing_test) for _, v in judge_many(jobs)} == {('runtime_error', 1)}

    def test_a_forged_answer_stops_nobody_else():
        """A reply that Python cannot print, among honest programs."""
        forger = (
            'import os\ndef add(a, b):\n'
            '  t = b"done " + b\'["frozenset",\' * 900 + b"null" + b"]" * 900\n'
            '  os.write(3, b"%08x" % len(t) + t)\n  return 7'
        )
        found = dict(judge_many([dict(code=code, tests=TESTS) for code in (RIGHT, forger, RIGHT, RIGHT)]))
        assert [found[n].verdict for n in (0, 2, 3)] == ['passed'] * 3 and found[1].verdict == 'runtime_error'

    def test_missing_engine_is_said():
        with pytest.raises(SandboxError, match="there is no engine 'cloud'"):
            judge(RIGHT, TESTS, engine='cloud')


def report(engine: str) -> bool:
    "Print what went wrong under one engine; True if anything did"
    began = time.monotonic()
    wrong = {**check_hostile(engine), **check_hostile_tested(engine), **check_good(engine)}
    print(
        sys.version.split()[0],
        f'{engine}: {len(HOSTILE)} + {len(HOSTILE_TESTED)} hostile, {len(GOOD)} + {len(GOOD_TESTED)} good programs,'
        f' {time.monotonic() - began:.0f} s',
    )
    for name, what in wrong.items():
        print('UNEXPECTED', name, what)
    beyond = check_good(engine, GOOD_UNREASONABLE)
    print(
        f'of {len(GOOD_UNREASONABLE)} unreasonable ones {len(GOOD_UNREASONABLE) - len(beyond)} pass; not:',
        ', '.join(beyond),
    )
    return bool(wrong)


def keep_every(nth: int) -> None:
    "Leave only every nth program in the tables of this process, for a look that is quicker than the whole"
    for table in (HOSTILE, HOSTILE_TESTED, GOOD, GOOD_TESTED, GOOD_UNREASONABLE):
        for number, name in enumerate(list(table)):
            if number % nth:
                del table[name]


if __name__ == '__main__':
    failed = False
    for argument in sys.argv[1:] or ENGINES:  # an engine, or `wasm/4`: every fourth program of the tables
        engine, _, nth = argument.partition('/')
        if nth:
            keep_every(int(nth))
        if reason := unavailable(engine):
            print(reason)
        else:
            failed |= report(engine)
        if not reason and (path := mbpp_file()):
            print('references that fail:', wrong := check_references(path, engine))
            failed |= bool(wrong)
    sys.exit(failed)
