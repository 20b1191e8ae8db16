"""Hostile programs against the sandbox. None may be judged 'passed', and none may leave anything running.

`python tests/test_sandbox.py` runs the hostile programs without pytest or hypothesis, on any interpreter."""
import json, os, signal, subprocess, sys, time
from pathlib import Path

from lora_mbpp.sandbox import (VERDICTS, DecodeError, Limits, Opaque, SandboxError, decode, encode, judge, judge_many,
                               require_layers, sandbox_layers, split_assert)

LIMITS = Limits(cpu_s=1, wall_s=3, memory_mb=256)
TESTS = ['assert add(20, 3) == 23', 'assert add(-1, 1) == 0']
LINUX = sys.platform == 'linux'
PLEDGE = '\ndef add(a, b): return 7  # an answer that is never right\n'

# name: (program, verdicts it may get). Every program tries to be judged 'passed' without adding anything.
HOSTILE = {
    'sys.exit(0)': ('import sys; sys.exit(0)', {'runtime_error'}),
    'sys.exit in the call': ('import sys\ndef add(a, b): sys.exit(0)', {'runtime_error'}),
    'raise SystemExit': ('raise SystemExit', {'runtime_error'}),
    'quit by builtins': ('def add(a, b): raise KeyboardInterrupt', {'runtime_error'}),
    'os._exit(0)': ('import os; os._exit(0)', {'runtime_error'}),
    'os._exit in the call': ('import os\ndef add(a, b): os._exit(0)', {'runtime_error'}),
    'exit of libc': ('import ctypes\ndef add(a, b): ctypes.CDLL(None)._exit(0)', {'runtime_error'}),
    'exit in a thread': ('import os, threading\nthreading.Thread(target=os._exit, args=(0,)).start()' + PLEDGE,
                         {'runtime_error', 'wrong_answer'}),
    'atexit': ('import atexit, os\natexit.register(os._exit, 0)' + PLEDGE, {'wrong_answer'}),
    'excepthook': ('import sys, os\nsys.excepthook = lambda *a: os._exit(0)\ndef add(a, b): raise ValueError("no")', {'runtime_error'}),
    'equal to everything': ('class Yes:\n  def __eq__(self, o): return True\n  def __bool__(self): return True\n'
                            'def add(a, b): return Yes()', {'wrong_answer'}),
    'equal by metaclass': ('class M(type):\n  def __eq__(c, o): return True\n  __hash__ = None\n'
                           'class C(metaclass=M): pass\ndef add(a, b): return C', {'wrong_answer'}),
    'int that is equal to everything': ('class Int(int):\n  def __eq__(s, o): return True\n  def __int__(s): return 23\n'
                                        '  __index__ = __int__\n  __hash__ = int.__hash__\ndef add(a, b): return Int(7)', {'wrong_answer'}),
    'float that is equal to everything': ('class F(float):\n  def __eq__(s, o): return True\n  def hex(s): return "0x1.7p+4"\n'
                                          'def add(a, b): return F(7)', {'wrong_answer'}),
    'claims to be an int': ('class C:\n  __class__ = int\n  def __eq__(s, o): return True\n  def __int__(s): return 23\n'
                            'def add(a, b): return C()', {'wrong_answer'}),
    'type name that raises': ('class M(type):\n  __name__ = property(lambda c: 1/0)\nclass C(metaclass=M): pass\n'
                              'def add(a, b): return C()', {'wrong_answer', 'runtime_error'}),
    'hostile exception': ('class E(Exception):\n  def __str__(s): raise SystemExit\ndef add(a, b): raise E', {'runtime_error'}),
    'frame walker': ('''
import sys, gc
def add(a, b):
    frame, found = sys._getframe(), []
    while frame:
        found += [v for v in list(frame.f_locals.values()) + list(frame.f_globals.values()) if isinstance(v, int)]
        for name in list(frame.f_locals):
            if name in ('value', 'expected', 'same'): frame.f_locals[name] = True
        for constant in frame.f_code.co_consts:
            if isinstance(constant, str) and '== 23' in constant: return 23
        frame = frame.f_back
    for thing in gc.get_objects():
        if isinstance(thing, (list, tuple)) and 23 in [x for x in thing if type(x) is int]: return 23
    return 7''', {'wrong_answer', 'runtime_error'}),
    'command line reader': ('def add(a, b):\n  text = open("/proc/self/cmdline").read() + open("/proc/self/environ").read()\n'
                            '  return 23 if "== 23" in text else 7', {'wrong_answer', 'runtime_error'}),
    'patched builtins': ('import builtins\nfor n in ("compile", "eval", "exec", "issubclass", "type", "len", "isinstance", "hex"):\n'
                         '  setattr(builtins, n, lambda *a, **k: True)' + PLEDGE, {'wrong_answer', 'runtime_error'}),
    'patched modules': ('import sys\nfor m in list(sys.modules): sys.modules[m] = None' + PLEDGE, {'wrong_answer', 'runtime_error'}),
    'printed markers': ('import sys\nprint("passed")\nprint("done null", file=sys.stderr)\nprint("OK", flush=True)' + PLEDGE, {'wrong_answer'}),
    'forged messages everywhere': ('''
import os
for reply in (b'done ["bool","1"]', b'done null', b'passed null', b'ready null'):
    for fd in range(0, 64):
        try: os.write(fd, b'%08x' % len(reply) + reply)
        except OSError: pass''' + PLEDGE, {'wrong_answer', 'runtime_error', 'no_entry_point'}),
    'forged length': ('import os\nfor fd in range(3, 64):\n  try: os.write(fd, b"-0000001" * 3)\n  except OSError: pass' + PLEDGE,
                      {'runtime_error'}),
    'rubbish on every descriptor': ('import os\nfor fd in range(64):\n  try: os.write(fd, bytes(range(256)) * 8)\n  except OSError: pass' + PLEDGE,
                                    {'runtime_error'}),
    'closes every descriptor': ('import os\nos.closerange(0, 256)' + PLEDGE, {'killed', 'runtime_error', 'timeout'}),
    'reads the questions': ('import os, select\nfor fd in range(3, 64):\n  try:\n    while select.select([fd], [], [], 0)[0]:\n'
                            '      if not os.read(fd, 100): break\n  except OSError: pass' + PLEDGE, {'wrong_answer', 'runtime_error'}),
    'endless loop': ('while True: pass', {'timeout'}),
    'endless loop in the call': ('def add(a, b):\n  while True: pass', {'timeout'}),
    'loop behind a bare except': ('def add(a, b):\n  while True:\n    try:\n      while True: pass\n    except: pass', {'timeout'}),
    'ignores every signal': ('import signal\nfor s in signal.valid_signals():\n  try: signal.signal(s, signal.SIG_IGN)\n  except (OSError, ValueError): pass\n'
                             'while True: pass', {'timeout'}),
    'sleeps': ('import time\ndef add(a, b): time.sleep(1000)', {'timeout'}),
    'str() that never ends': ('class E(Exception):\n  def __str__(s):\n    while True: pass\ndef add(a, b): raise E', {'timeout'}),
    'recursion': ('def add(a, b): return add(a, b)', {'runtime_error', 'memory'}),
    'recursion without a limit': ('import sys\nsys.setrecursionlimit(10**9)\ndef add(a, b): return add(a, b)',
                                  {'killed', 'runtime_error', 'memory', 'timeout'}),
    'memory bomb': ('def add(a, b): return len("x" * 10**10)', {'memory'}),
    'slow memory bomb': ('keep = []\ndef add(a, b):\n  while True: keep.append(bytearray(10**6))', {'memory'}),
    'memory in crumbs': ('keep = []\nwhile True: keep.append([None] * 8)', {'memory', 'timeout', 'killed'}),
    'big result': ('def add(a, b): return list(range(10**6))', {'wrong_answer', 'memory'}),
    'colliding set': ('def add(a, b): return {n * (2**61 - 1) for n in range(3000)}', {'wrong_answer', 'runtime_error'}),
    'output flood': ('while True: print("passed" * 1000)', {'output_limit'}),
    'output flood on the raw descriptor': ('import os\nwhile True: os.write(1, b"x" * 4096)', {'output_limit'}),
    'error output flood': ('import os\nfor n in range(1000): os.write(2, b"x" * 4096)' + PLEDGE, {'wrong_answer'}),
    'fork and leave': ('import os, time\nif os.fork(): os._exit(0)\ntime.sleep(1000)', {'runtime_error', 'timeout'}),
    'fork bomb': ('import os\nwhile True:\n  try: os.fork()\n  except OSError: pass', {'timeout'}),
    'daemon': ('import subprocess, sys\nsubprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], start_new_session=True)' + PLEDGE,
               {'runtime_error'}),
    'thread that lingers': ('import threading, time\nthreading.Thread(target=time.sleep, args=(1000,)).start()' + PLEDGE, {'wrong_answer'}),
    'socket': ('import socket\nsocket.create_connection(("127.0.0.1", 9))', {'runtime_error'}),
    'kills its judge': ('import os, signal\nos.kill(os.getppid(), signal.SIGTERM)', {'runtime_error'}),
    'kills its group': ('import os, signal\nos.killpg(0, signal.SIGKILL)', {'runtime_error', 'killed'}),
    'kills itself': ('import os, signal\nos.kill(os.getpid(), signal.SIGKILL)', {'runtime_error', 'killed'}),
    'deletes files': (f'import os\nos.remove({os.path.abspath(__file__)!r})', {'runtime_error'}),
    'empties a file': (f'open({os.path.abspath(__file__)!r}, "w")', {'runtime_error'}),
    'segmentation fault': ('import ctypes\ndef add(a, b): return ctypes.string_at(0)', {'killed', 'runtime_error'}),
    'nan': ('def add(a, b): return float("nan")', {'wrong_answer'}),
    'contains itself': ('def add(a, b):\n  x = []; x.append(x); return x', {'wrong_answer'}),
    'deep nest': ('def add(a, b):\n  x = []\n  for n in range(10**5): x = [x]\n  return x', {'wrong_answer', 'runtime_error'}),
    'unpicklable': ('def add(a, b): return lambda: 23', {'wrong_answer'}),
    'generator': ('def add(a, b):\n  yield 23', {'wrong_answer'}),
    'pickle that runs code': ('import os\nclass P:\n  def __reduce__(s): return os._exit, (0,)\n  def __repr__(s): return "23"\ndef add(a, b): return P()', {'wrong_answer'}),
    'dict that grows while read': ('class D(dict):\n  def items(s): return [(1, 23)]\ndef add(a, b): return D()', {'wrong_answer'}),
    'NUL bytes': ('def add(a, b): return 7\0', {'syntax_error'}),
    'lone surrogate': ('x = "\ud800"' + PLEDGE, {'syntax_error', 'wrong_answer'}),
    'too many brackets': ('(' * 10_000, {'syntax_error'}),
    'minus signs': ('x = ' + '-' * 100_000 + '1', {'syntax_error', 'killed', 'memory'}),
    'not Python': ('def add(a, b) return 23', {'syntax_error'}),
    'nothing': ('  \n\t', {'no_code'}),
    'comment only': ('# def add', {'no_entry_point'}),
    'other name': ('def addition(a, b): return a + b', {'no_entry_point'}),
    'trace function': ('import sys\ndef t(frame, event, arg):\n  if "value" in frame.f_locals: frame.f_locals["value"] = 23\n  return t\nsys.settrace(t)' + PLEDGE,
                       {'wrong_answer', 'runtime_error', 'no_entry_point'}),
    'raises AssertionError': ('def add(a, b): raise AssertionError', {'runtime_error'}),
}

RIGHT = 'def add(a, b): return a + b'
GOOD = {
    'plain': (RIGHT, TESTS),
    'prints': ('print("hello")\n' + RIGHT, TESTS),
    'class': ('class Pair:\n  def __init__(s, a, b): s.a, s.b = a, b\n  def total(s): return s.a + s.b',
              ['assert Pair(20, 3).total() == 23', 'assert Pair(1, 2).a is not None', 'p = Pair(1, 2)\np.a = 5\nassert p.total() == 7']),
    'int subclass': ('class Int(int): pass\ndef add(a, b): return Int(a + b)', TESTS),
    'counter': ('from collections import Counter\ndef add(s): return Counter(s)', ['assert add("aab") == {"a": 2, "b": 1}']),
    'namedtuple': ('from collections import namedtuple\nP = namedtuple("P", "x y")\ndef add(a, b): return P(a, b)', ['assert add(1, 2) == (1, 2)']),
    'truth': ('import re\ndef add(s): return re.match("a", s)', ['assert add("abc")', 'assert not add("xyz")']),
    'none': ('def add(a): return None', ['assert add(1) is None', 'assert None is add(2)', 'assert add(3) == None']),
    'one is true': ('def add(a): return 1', ['assert add(1) == True', 'assert add(1) == 1.0']),
    'isclose': ('def add(a): return 0.1 + 0.2', ['import math\nassert math.isclose(add(1), 0.3)', 'assert abs(add(1) - 0.3) < 1e-9']),
    'surrogate': ('def add(s): return s + chr(0xd800)', ['assert add("a") == "a\\ud800"']),
    'big integer': ('def add(n): return 10**n', [f'assert add(4000) == 1{"0" * 4000}']),
    'threads': ('import threading\ndef add(a, b):\n  x = []\n  t = threading.Thread(target=lambda: x.append(a + b)); t.start(); t.join()\n  return x[0]', TESTS),
    'recovers from its own exit': ('import sys\ntry: sys.exit(0)\nexcept SystemExit: pass\n' + RIGHT, TESTS),
    'windows line ends': ('def add(a, b):\r\n\treturn a + b\r\n', TESTS),
}


def processes_of(marker: bytes) -> list:
    "Command lines of the running processes that carry our child's program"
    found = []
    for entry in Path('/proc').iterdir() if LINUX else ():
        if entry.name.isdigit():
            try: text = (entry / 'cmdline').read_bytes()
            except OSError: continue
            if marker in text: found.append(entry.name)
    return found

def descendants() -> list:
    "Processes of ours that still exist, zombies too"
    mine = []
    for entry in Path('/proc').iterdir() if LINUX else ():
        if entry.name.isdigit():
            try: fields = (entry / 'stat').read_text().rsplit(')', 1)[1].split()
            except OSError: continue
            if int(fields[1]) == os.getpid(): mine.append(entry.name)
    return mine

def check_hostile() -> dict:
    "Judge every hostile program; `{name: verdict}` of those that got one they should not"
    names = list(HOSTILE) if LINUX else [name for name in HOSTILE if 'kill' not in name and 'file' not in name]   # unfenced elsewhere
    jobs = [dict(code=HOSTILE[name][0], tests=TESTS, entry_point='add') for name in names]
    before, wrong = set(descendants()), {}
    verdicts = dict(judge_many(jobs, workers=4, limits=LIMITS))
    for index, name in enumerate(names):
        verdict = verdicts[index]
        if verdict.verdict not in HOSTILE[name][1]: wrong[name] = verdict
        assert verdict.verdict != 'passed' and verdict.verdict in VERDICTS, (name, verdict)
    assert set(descendants()) <= before and not processes_of(b'def lock_down')
    return wrong

def check_good() -> dict:
    "The same for programs that deserve to pass"
    jobs = [dict(code=code, tests=tests) for code, tests in GOOD.values()]
    return {name: verdict for name, (_, verdict) in zip(GOOD, sorted(judge_many(jobs, workers=4, limits=LIMITS), key=lambda pair: pair[0]))
            if verdict.verdict != 'passed'}

def mbpp_file() -> Path | None:
    "The MBPP file, where a developer keeps it"
    beside = Path(__file__).resolve().parents[1].parent / 'shared' / 'data' / 'mbpp.jsonl'
    named = os.environ.get('LORA_MBPP_TEST_DATA')
    for path in ([Path(named), Path(named) / 'mbpp.jsonl'] if named else []) + [beside]:
        if path.is_file(): return path

def check_references(path: Path) -> dict:
    "Judge MBPP's own solutions; `{task id: verdict}` of those that do not pass"
    rows = [json.loads(line) for line in path.read_text(encoding='utf-8').split('\n') if line.strip()]
    jobs = (dict(code=row['code'], tests=row['test_list'], setup=row['test_setup_code']) for row in rows)
    return {rows[index]['task_id']: verdict for index, verdict in judge_many(jobs) if verdict.verdict != 'passed'}


try: import pytest
except ImportError: pytest = None

if pytest:
    from hypothesis import HealthCheck, given, settings, strategies as st

    plain = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.complex_numbers() | st.binary()
        | st.text(st.characters(codec=None, categories=None)) | st.integers(2**13000, 2**17000),
        lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.integers() | st.text(), inner),
        max_leaves=30) | st.sets(st.integers() | st.text()) | st.frozensets(st.floats(allow_nan=False) | st.tuples(st.integers()))

    def same(a, b):
        "Equal in type, value, order, sign of zero and nan-ness"
        if type(a) is not type(b): return False
        if isinstance(a, (list, tuple)): return len(a) == len(b) and all(map(same, a, b))
        if isinstance(a, dict): return same(list(a.items()), list(b.items()))
        if isinstance(a, float): return a.hex() == b.hex()
        if isinstance(a, complex): return same([a.real, a.imag], [b.real, b.imag])
        return a == b

    def test_hostile_programs_are_never_passed_and_leave_nothing():
        assert check_hostile() == {}

    def test_good_programs_pass():
        assert check_good() == {}

    @pytest.mark.skipif(mbpp_file() is None, reason='no MBPP file: set LORA_MBPP_TEST_DATA to its folder')
    def test_all_mbpp_references_pass():
        assert check_references(mbpp_file()) == {}

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
    @given(plain)
    def test_codec_round_trip(value):
        assert same(decode(encode(value)), value)

    json_trees = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text()
                              | st.sampled_from(['int', 'float', 'str', 'bytes', 'bool', 'complex', 'opaque', 'list', 'dict', 'set']),
                              lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)

    @settings(max_examples=500, deadline=None)
    @given(st.binary() | json_trees.map(lambda tree: json.dumps(tree).encode()))
    def test_decoder_raises_only_its_own_error(text):
        try: decode(text)
        except DecodeError: pass

    @pytest.mark.parametrize('text', [b'[' * 10**6, b'{"a":' * 10**5, b'["int",' * 50_000, b'["float","0x1p99999"]', b'["set",["dict"]]',
                                      b'["dict",null]', b'["bool","2"]', b'["list"', b'9' * 5000, b'NaN', b'"int"', b'{"int":0,"5":0}'])
    def test_decoder_refuses(text):
        with pytest.raises(DecodeError): decode(text)

    def test_opaque_equals_nothing():
        assert isinstance(decode(encode(object())), Opaque)
        assert decode(encode([print])) != decode(encode([print]))

    def test_expected_values_stay_outside():
        asserts = ['assert f(1) == 4321', 'assert 4321 == f(1)', 'assert f(1) == [4321], "no"', 'assert (f(1)\n  ) == {4321: 4321}']
        for question in map(split_assert, asserts):
            assert question.kind == 'value' and '4321' not in question.source

    @pytest.mark.parametrize('test', ['assert f(1) == g(1)', 'assert 1 == 1', 'assert f(1) < 2', 'assert f(1) == 1 == 1', 'assert isclose(f(1), 2)',
                                      'x = 1', 'assert f(1) is 5', 'assert f(1) is 1', 'assert f(1) and f(2)', 'def check(c):\n  assert c(1) == 2\ncheck(f)'])
    def test_what_cannot_be_split_stays_whole(test):
        assert split_assert(test).kind == 'statement' and split_assert(test).source == test

    @pytest.mark.parametrize('program', ['import os; os._exit(0)', 'import sys; sys.exit(0)', 'def add(a, b): return 7',
                                         'class Yes:\n  __eq__ = lambda s, o: False\n  __lt__ = lambda s, o: False\ndef add(a, b): return Yes()',
                                         'import os\ndef add(a, b): os._exit(0)', 'print("done")'])
    def test_statements_need_their_end(program):
        assert judge(program, ['assert add(20, 3) < 5'], limits=LIMITS).verdict in ('wrong_answer', 'runtime_error')

    @pytest.mark.xfail(strict=True, reason='test code that cannot be split runs beside the candidate')
    def test_statement_cannot_be_bent():
        program = 'import builtins\nbuiltins.abs = lambda x: 0' + PLEDGE
        assert judge(program, ['assert abs(add(20, 3) - 23) < 0.5'], limits=LIMITS).verdict != 'passed'

    @pytest.mark.parametrize('code, index, name', [('def add(a, b): return 23', 1, None), ('1/0', None, 'ZeroDivisionError'),
                                                   ('def add(a, b): return a + b if a > 0 else 1/0', 1, 'ZeroDivisionError')])
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
        assert judge(RIGHT, TESTS).verdict == 'harness_error'
        monkeypatch.setattr(sys, '_base_executable', '/bin/false' if os.path.exists('/bin/false') else '/usr/bin/false')
        if os.name != 'nt': assert judge(RIGHT, TESTS).verdict == 'harness_error'

    def test_cpu_time_is_reported():
        if os.name != 'nt': assert 0.3 < judge('import time\nwhile time.process_time() < 0.5: pass\n' + RIGHT, TESTS).cpu_seconds < 3

    def test_hash_seed_is_fixed():
        program = 'def order(): return list({"alpha", "beta", "gamma", "delta"})'
        seen = {judge(program, ['assert order() == 0']).message for _ in range(3)}
        assert len(seen) == 1

    def test_closing_leaves_nothing():
        before = set(descendants())
        verdicts = judge_many([dict(code=RIGHT, tests=TESTS)] + 50 * [dict(code='import time; time.sleep(1000)', tests=TESTS)], workers=3)
        assert next(verdicts)[1].verdict == 'passed'
        began = time.monotonic(); verdicts.close()
        assert time.monotonic() - began < 3 and set(descendants()) <= before

    @pytest.mark.skipif(os.name == 'nt', reason='POSIX signals')
    @pytest.mark.parametrize('number', [signal.SIGINT] + [signal.SIGKILL] * LINUX)
    def test_ctrl_c_and_even_kill_leave_nothing(number, tmp_path):
        script = ('from lora_mbpp.sandbox import *\njob = lambda code: dict(code=code, tests=["assert add() == 1"])\n'
                  'verdicts = judge_many([job("x = 1")] + 9 * [job("import time; time.sleep(999)")], workers=3)\n'
                  'print(next(verdicts), flush=True); next(verdicts)')
        with subprocess.Popen([sys.executable, '-c', script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              env={**os.environ, 'TMPDIR': str(tmp_path)}) as parent:
            assert 'runtime_error' in parent.stdout.readline()
            time.sleep(0.3); parent.send_signal(number)
            assert parent.wait(5) != 0
        time.sleep(0.3)
        assert processes_of(b'def lock_down') == []

    def test_jobs_are_drawn_lazily_and_counted():
        drawn, counts = [], []
        def jobs():
            for number in range(40): drawn.append(number); yield dict(code=RIGHT, tests=TESTS)
        verdicts = judge_many(jobs(), workers=2, progress=counts.append)
        next(verdicts)
        assert len(drawn) <= 5
        assert len(list(verdicts)) == 39 and counts == list(range(1, 41))

    def test_unknown_job_keys_raise():
        with pytest.raises(TypeError): list(judge_many([dict(code=RIGHT, tests=TESTS, colour='red')]))

    def test_no_folders_or_descriptors_pile_up(tmp_path, monkeypatch):
        monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
        count = lambda: len(os.listdir('/proc/self/fd')) if LINUX else 0
        judge(RIGHT, TESTS); before = count()
        for program in ('import os; os._exit(1)', RIGHT, 'while True: print("x" * 9999)'): judge(program, TESTS, limits=LIMITS)
        assert list(tmp_path.iterdir()) == [] and count() == before

    @pytest.mark.skipif(not LINUX or os.uname().machine not in ('x86_64', 'aarch64'), reason='the filter needs Linux on x86_64 or aarch64')
    def test_all_layers_hold_here():
        layers = require_layers('required')
        assert layers == sandbox_layers() and layers['network'] == layers['processes'] == layers['file changes'] == 'seccomp'

    def test_required_fails_closed(monkeypatch):
        monkeypatch.setattr('lora_mbpp.sandbox.sandbox_layers', lambda limits=None: {**dict.fromkeys(
            ('network', 'processes', 'file changes'), 'open: no filter'), 'rlimits': True, 'environment': 'clean', 'working directory': 'empty temporary'})
        with pytest.raises(SandboxError, match='network .open: no filter.'): require_layers('required')
        assert require_layers('auto')['network'] == 'open: no filter'

if __name__ == '__main__':
    began = time.monotonic()
    hostile, good = check_hostile(), check_good()
    print(sys.version.split()[0], f'{len(HOSTILE)} hostile, {len(GOOD)} good programs, {time.monotonic() - began:.0f} s')
    for name, verdict in {**hostile, **good}.items(): print('UNEXPECTED', name, verdict)
    path = mbpp_file()
    if path: print('references that fail:', check_references(path), f'{time.monotonic() - began:.0f} s')
    sys.exit(bool(hostile or good))
