"""Programs for judges of programs: hostile ones that may never pass, honest ones that must. Plain data, no imports.

Every hostile program tries to be judged 'passed' without adding anything, to do harm, or to survive. They show harm
like this:
* `@LOOT@` stands for an empty folder where nothing may appear;
* `@SECRET@` for a file whose content may neither be read (the program prints it) nor change;
* `@PORT@` for a listening TCP port of 127.0.0.1 that may see no connection;
* a program that got hold of something it should not have prints LEAK, one that got a power that it should not have
  prints HARM;
* a program that finds the expected values starts to add: it is then judged 'passed', which no test here allows.
`tests/bait.py` puts real things in the places of the placeholders. `DANGEROUS` names what must never run without a
sandbox."""

PLEDGE = '\ndef add(a, b): return 7  # an answer that is never right\n'
RIGHT = 'def add(a, b): return a + b'
TESTS = ['assert add(20, 3) == 23', 'assert add(-1, 1) == 0']

WRONG, ERROR, TIMEOUT, MEMORY = {'wrong_answer'}, {'runtime_error'}, {'timeout'}, {'memory'}
FAILS = WRONG | ERROR  # the candidate is at fault, which one depends on the engine
CONTAINED = FAILS | {'killed'}  # an engine may also kill a program for what it tries
STOPPED = CONTAINED | TIMEOUT | MEMORY  # resources: which limit is met first depends on engine and machine


def attempt(body: str, then: str = PLEDGE) -> str:
    "A program that tries `body`, prints how that went wrong, and then goes on to `then`"
    lines = ''.join(f'    {line}\n' for line in body.strip('\n').split('\n'))
    return f'try:\n{lines}except Exception as error: print(type(error).__name__, str(error)[:100])\n{then}'


def each(actions: str) -> str:
    "A program that tries every line by itself, so that the first refusal does not hide the rest"
    lines = [line for line in actions.strip('\n').split('\n')]
    return f'''
for action in {lines!r}:
    try: exec(action, {{}})
    except Exception as error: print(type(error).__name__, action)
{PLEDGE}'''


# name: (program, verdicts it may get)
HOSTILE = {}

HOSTILE |= {  # leave early, in the hope that leaving is passing
    'sys.exit(0)': ('import sys; sys.exit(0)', ERROR),
    'sys.exit in the call': ('import sys\ndef add(a, b): sys.exit(0)', ERROR),
    'raise SystemExit': ('raise SystemExit', ERROR),
    'quit by builtins': ('def add(a, b): raise KeyboardInterrupt', ERROR),
    'raises GeneratorExit': ('def add(a, b): raise GeneratorExit', ERROR),
    'raises StopIteration': ('def add(a, b): raise StopIteration(23)', ERROR),
    'raises a BaseException of its own': ('class Bye(BaseException): pass\ndef add(a, b): raise Bye', ERROR),
    'raises a group of exits': ('def add(a, b): raise BaseExceptionGroup("bye", [SystemExit(0)])', ERROR),
    'raises AssertionError': ('def add(a, b): raise AssertionError', ERROR),
    'os._exit(0)': ('import os; os._exit(0)', ERROR),
    'os._exit in the call': ('import os\ndef add(a, b): os._exit(0)', ERROR),
    'os.abort': ('import os\ndef add(a, b): os.abort()', CONTAINED),
    'posix._exit': ('def add(a, b):\n  import posix; posix._exit(0)', ERROR),
    'exit of libc': ('import ctypes\ndef add(a, b): ctypes.CDLL(None)._exit(0)', CONTAINED),
    'exit by system call': (
        'import ctypes, os\ndef add(a, b): ctypes.CDLL(None).syscall(231 if os.uname().machine == "x86_64" else 94, 0)',
        CONTAINED,
    ),
    'exit in a thread': ('import os, threading\nthreading.Thread(target=os._exit, args=(0,)).start()' + PLEDGE, FAILS),
    'atexit': ('import atexit, os\natexit.register(os._exit, 0)' + PLEDGE, WRONG),
    'SystemExit in __repr__': (
        'class C:\n  def __repr__(s): raise SystemExit(0)\n  __str__ = __eq__ = __hash__ = __bool__ = __repr__\n'
        'def add(a, b): return C()',
        FAILS,
    ),
    'SystemExit in __del__': (
        'class C:\n  def __del__(s): raise SystemExit(0)\ndef add(a, b): return C() and 7',
        WRONG,
    ),
    'os._exit in __del__': ('import os\nclass C:\n  def __del__(s): os._exit(0)\ndef add(a, b): return C()', FAILS),
    'exit when a generator is closed': (
        'def g():\n  try: yield 7\n  finally: raise SystemExit(0)\ndef add(a, b): return next(g())',
        FAILS,
    ),
    'exit by weak reference': (
        'import os, weakref\nclass C: pass\ndef add(a, b):\n  c = C(); weakref.finalize(c, os._exit, 0); return 7',
        FAILS,
    ),
    'exit by collection': (
        'import gc, os\ngc.callbacks.append(lambda *a: os._exit(0))\ngc.set_threshold(1)' + PLEDGE,
        FAILS,
    ),
    'exit by audit hook': (
        'import os, sys\nsys.addaudithook(lambda name, args: os._exit(0) if name in ("compile", "exec") else None)'
        + PLEDGE,
        FAILS,
    ),
    'exit by import': (
        'import os, sys\nclass Finder:\n  def find_spec(*a, **k): os._exit(0)\nsys.meta_path.insert(0, Finder())'
        + PLEDGE,
        FAILS,
    ),
    'replaces itself by true': (attempt('import os; os.execv("/bin/true", ["true"])'), CONTAINED),
}

HOSTILE |= {  # hooks that run when something else goes wrong
    'excepthook': (
        'import sys, os\nsys.excepthook = lambda *a: os._exit(0)\ndef add(a, b): raise ValueError("no")',
        ERROR,
    ),
    'threading.excepthook': (
        'import threading, os\nthreading.excepthook = lambda *a: os._exit(0)\n'
        'def add(a, b):\n  t = threading.Thread(target=lambda: 1/0); t.start(); t.join(); return 7',
        FAILS,
    ),
    'sys.unraisablehook': (
        'import sys, os\nsys.unraisablehook = lambda *a: os._exit(0)\nclass C:\n  def __del__(s): 1/0\n'
        'def add(a, b): return C() and 7',
        FAILS,
    ),
    'displayhook': (
        'import sys, os, builtins\nsys.displayhook = lambda *a: os._exit(0)\nbuiltins._ = 23' + PLEDGE,
        FAILS,
    ),
    'trace function': (
        'import sys\ndef t(frame, event, arg):\n  if "value" in frame.f_locals: frame.f_locals["value"] = 23\n'
        '  return t\nsys.settrace(t)' + PLEDGE,
        FAILS | {'no_entry_point'},
    ),
    'profile function': (
        'import sys\ndef p(frame, event, arg):\n  for n in ("value", "result", "same"):\n'
        '    if n in frame.f_locals: frame.f_locals[n] = 23\nsys.setprofile(p)' + PLEDGE,
        FAILS | {'no_entry_point'},
    ),
    'profile function that exits': (
        'import sys, os\nsys.setprofile(lambda f, e, a: e == "return" and os._exit(0))' + PLEDGE,
        FAILS,
    ),
    'sys.monitoring': (
        'import sys\nm = getattr(sys, "monitoring", None)\nif m:\n  m.use_tool_id(3, "x")\n'
        '  m.register_callback(3, m.events.PY_RETURN, lambda *a: (_ for _ in ()).throw(SystemExit(0)))\n'
        '  m.set_events(3, m.events.PY_RETURN)' + PLEDGE,
        FAILS,
    ),
    'trace in every thread': (
        'import threading, sys, os\nthreading.settrace(lambda *a: os._exit(0))\n'
        'threading.setprofile(lambda *a: os._exit(0))' + PLEDGE,
        FAILS,
    ),
    'warnings hook': (
        'import warnings, os\nwarnings.showwarning = lambda *a, **k: os._exit(0)\ndef add(a, b):\n'
        '  warnings.warn("x"); return 7',
        FAILS,
    ),
    'breakpoint hook': (
        'import sys, os\nsys.breakpointhook = lambda *a: os._exit(0)\ndef add(a, b): breakpoint()',
        FAILS,
    ),
}

HOSTILE |= {  # values that lie about themselves
    'equal to everything': (
        'class Yes:\n  def __eq__(self, o): return True\n  def __bool__(self): return True\n'
        'def add(a, b): return Yes()',
        WRONG,
    ),
    'equal by metaclass': (
        'class M(type):\n  def __eq__(c, o): return True\n  __hash__ = None\nclass C(metaclass=M): pass\n'
        'def add(a, b): return C',
        WRONG,
    ),
    'int that is equal to everything': (
        'class Int(int):\n  def __eq__(s, o): return True\n  def __int__(s): return 23\n'
        '  __index__ = __int__\n  __hash__ = int.__hash__\ndef add(a, b): return Int(7)',
        WRONG,
    ),
    'float that is equal to everything': (
        'class F(float):\n  def __eq__(s, o): return True\n  def hex(s): return "0x1.7p+4"\ndef add(a, b): return F(7)',
        WRONG,
    ),
    'complex that is equal to everything': (
        'class C(complex):\n  def __eq__(s, o): return True\n  real = imag = property(lambda s: 23)\n'
        '  def __complex__(s): return 23+0j\ndef add(a, b): return C(7)',
        WRONG,
    ),
    'str that is equal to everything': (
        'class S(str):\n  def __eq__(s, o): return True\n  __hash__ = str.__hash__\n'
        '  def encode(s, *a): return b"23"\n  def __len__(s): return 2\ndef add(a, b): return S("7")',
        WRONG,
    ),
    'bytes that are equal to everything': (
        'class B(bytes):\n  def __eq__(s, o): return True\n  __hash__ = bytes.__hash__\n'
        '  def hex(s, *a): return "17"\ndef add(a, b): return B(b"7")',
        WRONG,
    ),
    'list that is equal to everything': (
        'class L(list):\n  def __eq__(s, o): return True\n  def __iter__(s): return iter([23])\n'
        '  def __len__(s): return 1\ndef add(a, b): return L([7])',
        WRONG,
    ),
    'tuple that is equal to everything': (
        'class T(tuple):\n  def __eq__(s, o): return True\n  __hash__ = tuple.__hash__\n'
        '  def __getitem__(s, i): return 23\ndef add(a, b): return T((7,))',
        WRONG,
    ),
    'set that is equal to everything': (
        'class S(set):\n  def __eq__(s, o): return True\n  def __contains__(s, o): return True\n'
        '  __le__ = __ge__ = __eq__\ndef add(a, b): return S({7})',
        WRONG,
    ),
    'dict that grows while read': (
        'class D(dict):\n  def items(s): return [(1, 23)]\ndef add(a, b): return D()',
        WRONG,
    ),
    'dict that is equal to everything': (
        'class D(dict):\n  def __eq__(s, o): return True\n  def __getitem__(s, k): return 23\n'
        '  __missing__ = __getitem__\n  keys = lambda s: ["int"]\ndef add(a, b): return D(x=7)',
        WRONG,
    ),
    'claims to be an int': (
        'class C:\n  __class__ = int\n  def __eq__(s, o): return True\n  def __int__(s): return 23\n'
        'def add(a, b): return C()',
        WRONG,
    ),
    '__class__ by property': (
        'class C:\n  turn = 0\n  @property\n  def __class__(s):\n    C.turn += 1; return int if C.turn % 2 else bool\n'
        '  __int__ = __index__ = lambda s: 23\ndef add(a, b): return C()',
        FAILS,
    ),
    'claims to be None': (
        'class C:\n  __class__ = type(None)\n  def __bool__(s): return False\ndef add(a, b): return C()',
        WRONG,
    ),
    'metaclass says it is an int': (
        'class M(type):\n  def __instancecheck__(c, o): return True\n  def __subclasscheck__(c, o): return True\n'
        '  mro = lambda c: [c, object]\nclass C(metaclass=M):\n  def __eq__(s, o): return True\n'
        'def add(a, b): return C()',
        WRONG,
    ),
    'type name that raises': (
        'class M(type):\n  __name__ = property(lambda c: 1/0)\nclass C(metaclass=M): pass\ndef add(a, b): return C()',
        FAILS,
    ),
    'type name that is a lying str': (
        'class S(str):\n  def __getitem__(s, i): return "[\\"int\\",\\"0x17\\"]"\n'
        '  encode = lambda s, *a: b"17"\nclass C: pass\n'
        'try: C.__name__ = S("int")\nexcept TypeError: pass\ndef add(a, b): return C()',
        WRONG,
    ),
    'endless type name': ('C = type("int" * 10**6, (), {})\ndef add(a, b): return C()', WRONG),
    'equal by reflection': (
        'class C(int):\n  def __ne__(s, o): return False\n  def __eq__(s, o): return True\n  __req__ = __eq__\n'
        '  __hash__ = None\ndef add(a, b): return C()',
        WRONG,
    ),
    'ABC registered as int': (
        'import numbers\n@numbers.Integral.register\nclass C:\n  def __eq__(s, o): return True\n'
        '  __int__ = __index__ = lambda s: 23\ndef add(a, b): return C()',
        WRONG,
    ),
    'answers every attribute': (
        'class C:\n  def __getattr__(s, n): return s\n  def __call__(s, *a, **k): return s\n'
        '  def __eq__(s, o): return True\n  __iter__ = None\ndef add(a, b): return C()',
        WRONG,
    ),
    'mock': ('def add(a, b):\n  from unittest.mock import MagicMock, ANY\n  return ANY', FAILS),
    'bool that is an int': (
        'class B(int):\n  def __new__(c): return int.__new__(c, 7)\n  __bool__ = lambda s: True\n'
        '  __xor__ = __sub__ = lambda s, o: 0\ndef add(a, b): return B()',
        WRONG,
    ),
    'dict with keys that lie': (
        'class K:\n  __hash__ = lambda s: 23\n  __eq__ = lambda s, o: True\ndef add(a, b): return {K(): 7}',
        WRONG,
    ),
    'dict with keys that never hash': (
        'class K(int):\n  n = 0\n  def __hash__(s):\n    while K.n: pass\n    return 1\ndef add(a, b):\n'
        '  d = {K(1): 7}; K.n = 1; return d',
        WRONG | TIMEOUT,
    ),
    'key that exits when compared': (
        'import os\nclass K(str):\n  __hash__ = lambda s: 1\n  def __eq__(s, o): os._exit(0)\n'
        'def add(a, b): return {K("a"): 7}',
        FAILS,
    ),
    'hostile exception': ('class E(Exception):\n  def __str__(s): raise SystemExit\ndef add(a, b): raise E', ERROR),
    'exception named after a pass': (
        'class passed(Exception):\n  def __str__(s): return "[\\"bool\\",\\"1\\"]"\ndef add(a, b): raise passed',
        ERROR,
    ),
    'exception whose class lies': (
        'class M(type):\n  @property\n  def __name__(c):\n    import os; os._exit(0)\n'
        'class E(Exception, metaclass=M): pass\ndef add(a, b): raise E',
        FAILS,
    ),
    'MemoryError by hand': ('def add(a, b): raise MemoryError', MEMORY | ERROR),
    'nan': ('def add(a, b): return float("nan")', WRONG),
    'infinity and minus nothing': ('def add(a, b): return complex(float("nan"), -0.0)', WRONG),
    'contains itself': ('def add(a, b):\n  x = []; x.append(x); return x', FAILS),
    'dict that contains itself': ('def add(a, b):\n  d = {}; d[0] = d; return d', FAILS),
    'many references to one list': (
        'def add(a, b):\n  x = [7]\n  for n in range(60): x = [x, x]\n  return x',
        FAILS | TIMEOUT | MEMORY,
    ),
    'unpicklable': ('def add(a, b): return lambda: 23', WRONG),
    'generator': ('def add(a, b):\n  yield 23', WRONG),
    'endless generator': ('import itertools\ndef add(a, b): return itertools.count()', WRONG),
    'coroutine': ('async def add(a, b): return 23', WRONG),
    'awaitable that is a tuple': ('class T(tuple):\n  def __await__(s): yield 23\ndef add(a, b): return T()', WRONG),
    'asynchronous generator': ('async def add(a, b): yield 23', WRONG),
    'memoryview': ('def add(a, b): return memoryview(b"23")', WRONG),
    'frame as a value': ('import sys\ndef add(a, b): return sys._getframe(1)', WRONG),
    'module as a value': ('import sys\ndef add(a, b): return sys.modules', WRONG | MEMORY),
    'pickle that runs code': (
        'import os\nclass P:\n  def __reduce__(s): return os._exit, (0,)\n  def __repr__(s): return "23"\n'
        'def add(a, b): return P()',
        WRONG,
    ),
    'text that is code': ('def add(a, b): return "__import__(\'os\')._exit(0) or 23"', WRONG),
    'NUL in a value': ('def add(a, b): return "23\\0"', WRONG),
    'surrogate in a value': ('def add(a, b): return chr(0xdc80) + "23"', WRONG),
    'every surrogate in an exception': (
        'def add(a, b): raise ValueError("".join(map(chr, range(0xd800, 0xe000))))',
        ERROR,
    ),
    'newlines and markers in an exception': (
        'def add(a, b): raise ValueError("\\r\\n\\0done null\\npassed\\x1b[2J")',
        ERROR,
    ),
}

HOSTILE |= {  # change the machinery that runs beside them
    'patched builtins': (
        'import builtins\nfor n in ("compile", "eval", "exec", "issubclass", "type", "len", "isinstance", "hex"):\n'
        '  setattr(builtins, n, lambda *a, **k: True)' + PLEDGE,
        FAILS,
    ),
    'no builtins at all': (
        'import builtins\nfor n in list(vars(builtins)):\n  if n not in ("list", "vars"): delattr(builtins, n)'
        + PLEDGE,
        FAILS,
    ),
    'builtins of its module': (
        '__builtins__ = {"eval": lambda *a: 23}\nglobals()["__builtins__"] = __builtins__' + PLEDGE,
        FAILS,
    ),
    'globals that lie': (
        'class G(dict):\n  def __getitem__(s, k): return lambda *a: 23\nimport sys\nsys.modules[__name__] = G()'
        + PLEDGE,
        FAILS,
    ),
    'patched modules': ('import sys\nfor m in list(sys.modules): sys.modules[m] = None' + PLEDGE, FAILS),
    'another __main__': (
        'import sys, types\nm = types.ModuleType("__main__"); m.add = lambda a, b: a + b\n'
        'm.verdict = m.result = "passed"\n'
        'sys.modules["__main__"] = m' + PLEDGE,
        FAILS,
    ),
    'patched __main__': (
        'import __main__\nfor n in list(vars(__main__)):\n'
        '  if not n.startswith("__"): setattr(__main__, n, lambda *a, **k: True)' + PLEDGE,
        CONTAINED,
    ),
    'patched json and pickle': (
        'import json, pickle, marshal\nfor m in (json, pickle, marshal):\n'
        '  m.dumps = m.loads = lambda *a, **k: b\'["bool","1"]\'' + PLEDGE,
        FAILS,
    ),
    'patched operators': (
        'import operator, math\noperator.eq = operator.is_ = lambda a, b: True\nmath.isclose = lambda *a, **k: True'
        + PLEDGE,
        FAILS,
    ),
    'patched os.write': (
        'import os\nold = os.write\nos.write = lambda fd, data: old(fd, b"00000012done [\\"bool\\",\\"1\\"]")' + PLEDGE,
        FAILS,
    ),
    'patched io': (
        'import io, _io\nfor n in ("open", "BytesIO", "StringIO", "write"): setattr(_io, n, None); setattr(io, n, None)'
        + PLEDGE,
        FAILS,
    ),
    'functions of every frame': (
        '''
import sys
def true(*a, **k): return True
def add(a, b):
    frame = sys._getframe(1)
    while frame:
        for space in (frame.f_globals, frame.f_builtins):
            for name, thing in list(space.items()):
                if callable(thing) and name != 'add' and not name.startswith('__'):
                    try: space[name] = true
                    except Exception: pass
        frame = frame.f_back
    return 7''',
        CONTAINED,
    ),
    'code of every function': (
        '''
import gc, types
names = ('encode', 'walk', 'tagged', 'answer', 'reply', 'dump', 'dumps', 'pack', 'send')
names += ('encode_value', 'encode_exception', 'run_piece', 'reply_to')
def add(a, b):
    for thing in gc.get_objects():
        if type(thing) is types.FunctionType and thing.__name__ in names:
            try: thing.__code__ = (lambda *a, **k: '["int","0x17"]').__code__
            except (ValueError, AttributeError): pass
    return 7''',
        CONTAINED | TIMEOUT,
    ),
    'defaults and closures of every function': (
        '''
import gc, types
def add(a, b):
    for thing in gc.get_objects():
        if type(thing) is types.CellType:
            try: thing.cell_contents = lambda *a, **k: True
            except ValueError: pass
    return 7''',
        STOPPED,
    ),
    'corrupted bytecode': (
        'def add(a, b): return a\nadd.__code__ = add.__code__.replace(co_code=bytes(range(256)) * 2)',
        STOPPED | {'harness_error'},
    ),
    'bytecode that returns rubbish': (
        'def add(a, b): return a\nc = add.__code__\n'
        'add.__code__ = c.replace(co_code=c.co_code[:2] + bytes([83, 0]) * 8, co_stacksize=1)',
        STOPPED,
    ),
    'bytecode with huge constants': (
        'def add(a, b): return 7\n'
        'add.__code__ = add.__code__.replace(co_consts=(), co_names=(), co_varnames=("a", "b"))',
        STOPPED,
    ),
    'int cache by ctypes': (
        'import ctypes\nfor n in (23, 0):\n  ctypes.memmove(id(n) + 24, id(7) + 24, 4)' + PLEDGE,
        STOPPED,
    ),
    'type of None by ctypes': (
        'import ctypes\ndef add(a, b):\n  ctypes.memmove(id(None) + 8, id(23) + 8, 8); return None',
        STOPPED,
    ),
    'zeroes its own heap': ('import ctypes\ndef add(a, b): ctypes.memset(id(add) & ~0xfff, 0, 65536)', STOPPED),
    'writable code by mprotect': (
        'import ctypes\ndef add(a, b):\n  libc = ctypes.CDLL(None)\n'
        '  page = ctypes.cast(libc.write, ctypes.c_void_p).value & ~0xfff\n'
        '  libc.mprotect(ctypes.c_void_p(page), 4096, 7)\n  ctypes.memset(page, 0xc3, 4096)\n  return 7',
        STOPPED,
    ),
    'async exception in the runner': (
        'import ctypes, threading\n'
        'ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(threading.main_thread().ident), '
        'ctypes.py_object(SystemExit))' + PLEDGE,
        CONTAINED,
    ),
    'interrupts the main thread': ('import _thread\ndef add(a, b): _thread.interrupt_main(); return 7', FAILS),
    'pending signal for the runner': (
        'import signal\nsignal.signal(signal.SIGALRM, lambda *a: (_ for _ in ()).throw(SystemExit(0)))\n'
        'signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)' + PLEDGE,
        CONTAINED,
    ),
    'recursion limit of one': (
        'import sys\ndef add(a, b):\n  for n in range(1, 200):\n    try: sys.setrecursionlimit(n)\n'
        '    except RecursionError: pass\n    else: break\n  return 7',
        FAILS,
    ),
    'switches the collector off and on': (
        'import gc\nclass C:\n  def __del__(s): s.me = s; keep.append(s); raise SystemExit\nkeep = []\n'
        'def add(a, b):\n  c = C(); c.me = c; del c; gc.collect(); return 7',
        FAILS,
    ),
    'no switch of threads': (
        'import sys, threading\nsys.setswitchinterval(1000)\ndef spin():\n  while True: pass\n'
        'threading.Thread(target=spin, daemon=True).start()' + PLEDGE,
        WRONG | ERROR | TIMEOUT,
    ),
    'its own codec': (
        'import codecs\ncodecs.register(lambda name: (lambda *a: (b"23", 1),) * 4)\n'
        'codecs.register_error("surrogatepass", lambda e: ("", e.end))' + PLEDGE,
        FAILS,
    ),
}

FORGED = (
    "(b'done [\"bool\",\"1\"]', b'done [\"int\",\"0x17\"]', b'done null', b'passed null', b'ready null', "
    "b'{\"verdict\": \"passed\"}', b'passed')"
)

HOSTILE |= {  # forged messages, in the present protocol and in others
    'printed markers': (
        'import sys\nprint("passed")\nprint("done null", file=sys.stderr)\nprint("OK", flush=True)' + PLEDGE,
        WRONG,
    ),
    'unittest markers': (
        'import sys\nsys.stderr.write("..\\nRan 2 tests in 0.000s\\n\\nOK\\n")\nprint("===== 2 passed in 0.01s =====")'
        + PLEDGE,
        WRONG,
    ),
    'forged messages everywhere': (
        f'''
import os
for reply in {FORGED}:
    for fd in range(0, 64):
        try: os.write(fd, b'%08x' % len(reply) + reply)
        except OSError: pass'''
        + PLEDGE,
        CONTAINED | {'no_entry_point'},
    ),
    'forged messages in binary frames': (
        f'''
import os, struct
for reply in {FORGED}:
    for head in ('<I', '>I', '<Q', '>Q', '<H'):
        for fd in range(3, 64):
            try: os.write(fd, struct.pack(head, len(reply)) + reply)
            except OSError: pass'''
        + PLEDGE,
        STOPPED | {'no_entry_point'},
    ),
    'forged lines': (
        f'''
import os
for reply in {FORGED}:
    for fd in range(3, 64):
        try: os.write(fd, reply + b'\\n')
        except OSError: pass'''
        + PLEDGE,
        STOPPED | {'no_entry_point'},
    ),
    'forged pickles': (
        'import os, pickle\nfor value in (True, 23, ("passed", None), {"verdict": "passed"}):\n'
        '  data = pickle.dumps(value)\n'
        '  for fd in range(3, 64):\n'
        '    try: os.write(fd, data); os.write(fd, len(data).to_bytes(4, "big") + data)\n    except OSError: pass'
        + PLEDGE,
        STOPPED | {'no_entry_point'},
    ),
    'forged answers to every question to come': (
        '''
import os
reply = b'done ["int","0x17"]'
for fd in range(3, 64):
    for n in range(20):
        try: os.write(fd, b'%08x' % len(reply) + reply)
        except OSError: break'''
        + PLEDGE,
        CONTAINED | {'no_entry_point'},
    ),
    'forged messages from a thread': (
        '''
import os, threading
def shout():
    for n in range(2000):
        for fd in range(3, 16):
            try: os.write(fd, b'00000013done ["int","0x17"]')
            except OSError: pass
threading.Thread(target=shout, daemon=True).start()'''
        + PLEDGE,
        STOPPED | {'no_entry_point'},
    ),
    'forged length': (
        'import os\nfor fd in range(3, 64):\n  try: os.write(fd, b"-0000001" * 3)\n  except OSError: pass' + PLEDGE,
        CONTAINED,
    ),
    'huge lengths': (
        'import os\nfor fd in range(3, 64):\n'
        '  for head in (b"ffffffff", b"\\xff" * 8, b"\\x7f\\xff\\xff\\xff", b"9" * 5000 + b"\\n"):\n'
        '    try: os.write(fd, head)\n    except OSError: pass' + PLEDGE,
        STOPPED,
    ),
    'half a frame': (
        'import os\nfor fd in range(3, 64):\n  try: os.write(fd, b"000000ffdone")\n  except OSError: pass\n'
        'import time; time.sleep(1000)',
        STOPPED,
    ),
    'one byte at a time': (
        'import os, time\nwhile True:\n  for fd in range(3, 64):\n    try: os.write(fd, b"0")\n'
        '    except OSError: pass\n  time.sleep(0.01)',
        STOPPED,
    ),
    'endless frame': (
        'import os\nwhile True:\n  for fd in range(3, 64):\n    try: os.write(fd, b"00ffffff" * 1000)\n'
        '    except OSError: pass',
        STOPPED,
    ),
    'deep JSON': (
        'import os\nfor fd in range(3, 64):\n  try: os.write(fd, b"000186a5done " + b"[" * 100000)\n'
        '  except OSError: pass' + PLEDGE,
        STOPPED,
    ),
    'rubbish on every descriptor': (
        'import os\nfor fd in range(64):\n  try: os.write(fd, bytes(range(256)) * 8)\n  except OSError: pass' + PLEDGE,
        CONTAINED,
    ),
    'closes every descriptor': ('import os\nos.closerange(0, 256)' + PLEDGE, CONTAINED | TIMEOUT),
    'one descriptor over all others': (
        'import os\nfor fd in range(3, 64):\n  try: os.dup2(1, fd)\n  except OSError: pass' + PLEDGE,
        STOPPED,
    ),
    'descriptors in a circle': (
        'import os\nfor fd in range(0, 12):\n  try: os.dup2((fd + 1) % 12, fd)\n  except OSError: pass' + PLEDGE,
        STOPPED,
    ),
    'answers itself by a pipe': (
        'import os\nr, w = os.pipe()\nfor fd in range(3, 12):\n  if fd not in (r, w):\n    try: os.dup2(r, fd)\n'
        '    except OSError: pass\n'
        'os.write(w, b"00000011value (2+3)"[:19] * 9)' + PLEDGE,
        STOPPED,
    ),
    'descriptors that never block': (
        'import os\nfor fd in range(64):\n  try: os.set_blocking(fd, False)\n  except OSError: pass' + PLEDGE,
        CONTAINED | TIMEOUT,
    ),
    'seeks and truncates the channel': (
        'import os\nfor fd in range(64):\n  for f in (lambda: os.lseek(fd, 0, 0), lambda: os.ftruncate(fd, 0)):\n'
        '    try: f()\n    except OSError: pass' + PLEDGE,
        CONTAINED,
    ),
    'sends descriptors': (
        attempt(
            'import socket, os, array\nfor fd in range(3, 16):\n  try:\n'
            '    s = socket.socket(fileno=os.dup(fd))\n'
            '    s.sendmsg([b"done null"], [(1, 1, array.array("i", [0, 1, 2]))])\n  except OSError: pass'
        ),
        STOPPED,
    ),
    'reads the questions': (
        'import os, select\nfor fd in range(3, 64):\n  try:\n    while select.select([fd], [], [], 0)[0]:\n'
        '      if not os.read(fd, 100): break\n  except OSError: pass' + PLEDGE,
        FAILS | TIMEOUT,
    ),
    'reads the questions before the runner': (
        '''
import os, threading
def steal():
    for fd in range(3, 16):
        def one(fd=fd):
            try:
                while os.read(fd, 1): pass
            except OSError: pass
        threading.Thread(target=one, daemon=True).start()
steal()'''
        + PLEDGE,
        STOPPED,
    ),
    'objects that speak for the runner': (
        '''
import gc, io
for thing in gc.get_objects():
    if isinstance(thing, (io.BufferedWriter, io.FileIO, io.TextIOWrapper)):
        for data in (b'00000013done ["int","0x17"]', 'passed'):
            try: thing.write(data); thing.flush()
            except Exception: pass
'''
        + PLEDGE,
        STOPPED | {'no_entry_point'},
    ),
    'standard streams of its own': (
        'import sys, io\nclass S(io.StringIO):\n  def write(s, t): raise SystemExit(0)\n'
        '  flush = lambda s: (_ for _ in ()).throw(SystemExit(0))\nsys.stdout = sys.stderr = sys.stdin = S()' + PLEDGE,
        FAILS,
    ),
    'flush that never ends': (
        'import sys, io\nclass S(io.StringIO):\n  def flush(s):\n    while True: pass\n'
        'sys.stdout = sys.stderr = sys.__stdout__ = S()' + PLEDGE,
        WRONG | ERROR | TIMEOUT,
    ),
}

HOSTILE |= {  # look for the expected values; whoever finds them adds
    'frame walker': (
        '''
import sys, gc
needle = '== ' + str(20 + 3)
def add(a, b):
    frame = sys._getframe()
    while frame:
        for name in list(frame.f_locals):
            if name in ('value', 'expected', 'same'): frame.f_locals[name] = True
        texts = [c for c in frame.f_code.co_consts if isinstance(c, str)]
        texts += [v for v in list(frame.f_locals.values()) + list(frame.f_globals.values()) if isinstance(v, str)]
        if any(needle in text for text in texts if text is not needle): return a + b
        frame = frame.f_back
    return 7''',
        FAILS,
    ),
    'garbage collector': (
        '''
import gc
def add(a, b):
    needle = ', '.join(['add(20', '3) == 2'])   # not folded into a constant that it would find
    for thing in gc.get_objects():
        if isinstance(thing, (list, tuple, dict, set)):
            for item in (list(thing.values()) if isinstance(thing, dict) else list(thing)):
                if isinstance(item, (str, bytes)) and needle in str(item): return a + b
    return 7''',
        STOPPED,
    ),
    'command line reader': (
        'def add(a, b):\n  text = open("/proc/self/cmdline").read() + open("/proc/self/environ").read()\n'
        '  return a + b if "== 2" + "3" in text else 7',
        FAILS,
    ),
    'all of /proc/self': (
        attempt(
            '''
import os
seen = []
for folder, _, files in os.walk('/proc/self', followlinks=False):
    if folder.count('/') > 3: continue
    for name in files:
        if name in ('mem', 'pagemap', 'clear_refs', 'kmsg'): continue
        try:
            with open(folder + '/' + name, 'rb') as file: seen.append(file.read(20000))
        except (OSError, ValueError): pass
text = b''.join(seen)
''',
            'def add(a, b): return a + b if b"== 2" + b"3" in globals().get("text", b"") else 7',
        ),
        STOPPED,
    ),
    'memory and environment of its parent': (
        attempt('''
import os
found = False
for pid in (os.getppid(), int(open(f'/proc/{os.getppid()}/stat').read().rsplit(')', 1)[1].split()[1])):
    for name in ('environ', 'cmdline', 'maps', 'mem'):
        try:
            with open(f'/proc/{pid}/{name}', 'rb') as file:
                if name == 'mem': print('LEAK memory of', pid)
                elif name == 'environ' and file.read(10): print('LEAK environment')
        except OSError: pass
'''),
        CONTAINED,
    ),
    'writes the memory of its parent': (
        attempt(
            'import os\n'
            'with open(f"/proc/{os.getppid()}/mem", "r+b", buffering=0): print("HARM memory of the judge opened")'
        ),
        CONTAINED,
    ),
    'memory of its parent by process_vm_readv': (
        attempt('''
import ctypes, os
buffer = ctypes.create_string_buffer(64)
class iovec(ctypes.Structure): _fields_ = [('base', ctypes.c_void_p), ('len', ctypes.c_size_t)]
line = next(line for line in open(f'/proc/{os.getppid()}/maps') if ' r' in line)
local, remote = iovec(ctypes.addressof(buffer), 64), iovec(int(line.split('-')[0], 16), 64)
if ctypes.CDLL(None).process_vm_readv(os.getppid(), ctypes.byref(local), 1, ctypes.byref(remote), 1, 0) > 0:
    print('LEAK memory of the judge')
'''),
        CONTAINED,
    ),
    'ptrace of its parent': (
        attempt(
            'import ctypes, os\nif ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0:\n'
            '  print("HARM attached to the judge"); ctypes.CDLL(None).ptrace(17, os.getppid(), 0, 0)'
        ),
        CONTAINED,
    ),
    'descriptors of its parent': (
        attempt(
            'import ctypes, os\nlibc = ctypes.CDLL(None)\np = libc.syscall(434, os.getppid(), 0)\n'
            'if p >= 0 and libc.syscall(438, p, 0, 0) >= 0: print("HARM stole a descriptor")'
        ),
        CONTAINED,
    ),
    'data sets on the path': (
        '''
import os, sys
def hunt():
    for start in [*sys.path, os.getcwd(), os.path.dirname(sys.executable or '/'), os.path.expanduser('~')]:
        for folder, folders, files in os.walk(start or '.'):
            if folder.count('/') - start.count('/') > 1: folders[:] = []
            if any(name.endswith(('.jsonl', '.parquet', '.jsonl.gz')) for name in files): return True
answers = False
try:
    if hunt(): print('LEAK data set')
except Exception: pass'''
        + PLEDGE,
        CONTAINED | TIMEOUT,
    ),
    'command lines of all': (
        attempt('''
import os
for pid in os.listdir('/proc'):
    if pid.isdigit() and pid not in (str(os.getpid()), 'self'):
        try: text = open(f'/proc/{pid}/cmdline', 'rb').read()
        except OSError: continue
        if text: print('LEAK command line'); break
'''),
        CONTAINED,
    ),
    'the callers source': (
        'import inspect, linecache, sys\nneedle = "add(20, 3) == " + str(20 + 3)\ndef add(a, b):\n'
        '  for frame in inspect.stack(context=9):\n'
        '    if needle in "".join(frame.code_context or []): return a + b\n'
        '  return a + b if any(needle in str(v) for v in linecache.cache.values()) else 7',
        FAILS,
    ),
    'the judge as a module': (
        attempt('import lora_mbpp.sandbox.judge\nprint("LEAK the judge can be imported")'),
        CONTAINED,
    ),
    'installed packages': (
        attempt(
            'import importlib.metadata\nif list(importlib.metadata.distributions()): print("LEAK installed packages")'
        ),
        CONTAINED,
    ),
    'environment': (
        attempt(
            'import os\n'
            'if any(w in k.upper() for k in os.environ for w in ("TOKEN", "SECRET", "HOME", "USER", "SSH", '
            '"PYTHONPATH")): print("LEAK environment", *os.environ)'
        ),
        CONTAINED,
    ),
    'keyboard and terminal': (
        attempt('import os\nfd = os.open("/dev/tty", os.O_RDWR)\nprint("LEAK terminal")'),
        CONTAINED,
    ),
    'reads standard input': (
        attempt('import sys, os\nif sys.stdin.read(1) or os.read(0, 1): print("LEAK standard input")'),
        CONTAINED | TIMEOUT,
    ),
}

SECRET_WAYS = {  # read a file that is none of its business
    'open': 'print(open("@SECRET@").read())',
    'os.open': 'import os\nprint(os.read(os.open("@SECRET@", os.O_RDONLY), 100))',
    'io.open_code': 'import io\nprint(io.open_code("@SECRET@").read())',
    'FileIO': 'import _io\nprint(_io.FileIO("@SECRET@").read())',
    'pathlib': 'import pathlib\nprint(pathlib.Path("@SECRET@").read_text())',
    'mmap': 'import mmap, os\nprint(mmap.mmap(os.open("@SECRET@", os.O_RDONLY), 0, prot=1)[:])',
    'linecache': 'import linecache\nprint(linecache.getlines("@SECRET@"))',
    'fileinput': 'import fileinput\nprint(list(fileinput.input("@SECRET@")))',
    'syntax error': 'import runpy\nrunpy.run_path("@SECRET@")',
    'import': (
        'import importlib.util\nspec = importlib.util.spec_from_file_location("secret", "@SECRET@")\n'
        'print(spec.loader.get_data("@SECRET@"))'
    ),
    'libc': (
        'import ctypes\nlibc = ctypes.CDLL(None)\nb = ctypes.create_string_buffer(100)\n'
        'libc.read(libc.open(b"@SECRET@", 0), b, 99)\nprint(b.value)'
    ),
    'openat2': (
        'import ctypes, os\nlibc = ctypes.CDLL(None)\nb = ctypes.create_string_buffer(100)\n'
        'fd = libc.syscall(437, -100, b"@SECRET@", ctypes.byref((ctypes.c_uint64 * 3)()), 24)\n'
        'libc.read(fd, b, 99)\nprint(b.value)'
    ),
    'root of a process': 'print(open("/proc/self/root" + "@SECRET@").read())',
    'relative path': 'import os\nprint(open("../" * 30 + "@SECRET@").read())',
    'sendfile': 'import os\nos.sendfile(1, os.open("@SECRET@", os.O_RDONLY), 0, 100)',
    'sqlite': (
        'import sqlite3\n'
        'print(sqlite3.connect("file:@SECRET@?mode=ro", uri=True).execute("select * from '
        'sqlite_master").fetchall())'
    ),
    'message': 'raise ValueError(open("@SECRET@").read())',
}
HOSTILE |= {
    f'reads a secret: {name}': (attempt(body) if name != 'message' else body, CONTAINED)
    for name, body in SECRET_WAYS.items()
}
HOSTILE |= {
    'lists the secret folder': (attempt('import os\nfor f in os.listdir("@LOOT@/.."): print("LEAK", f)'), CONTAINED),
    'reads the passwords': (
        attempt('for n in ("/etc/passwd", "/etc/shadow"):\n  if open(n).read(5): print("LEAK", n)'),
        CONTAINED,
    ),
    'reads the keys of the user': (
        attempt('import os\nfor d in ("/root", "/home"):\n  if os.listdir(d): print("LEAK", d)'),
        CONTAINED,
    ),
    'reads devices': (
        attempt(
            'import os\nfor n in ("/dev/mem", "/dev/kmsg", "/dev/vda", "/dev/sda", "/dev/nvidia0"):\n'
            '  try: os.open(n, os.O_RDONLY); print("LEAK", n)\n  except OSError: pass'
        ),
        CONTAINED,
    ),
}

LOOT_WAYS = {  # leave something on the disk
    'open': 'open("@LOOT@/a", "w").write("x")',
    'exclusive': 'open("@LOOT@/a", "x")',
    'append': 'open("@SECRET@", "a").write("x")',
    'read and write': 'open("@SECRET@", "r+").write("x")',
    'os.open': 'import os\nos.write(os.open("@LOOT@/a", os.O_CREAT | os.O_WRONLY), b"x")',
    'posix.open': 'import posix\nposix.write(posix.open("@LOOT@/a", 65), b"x")',
    'created read-only': 'import os\nos.open("@LOOT@/a", os.O_CREAT | os.O_RDONLY)',
    'truncated read-only': 'import os\nos.open("@SECRET@", os.O_TRUNC | os.O_RDONLY)',
    'nameless file': (
        'import os\nfd = os.open("@LOOT@", os.O_TMPFILE | os.O_RDWR)\n'
        'os.link(f"/proc/self/fd/{fd}", "@LOOT@/a", follow_symlinks=True)'
    ),
    'FileIO': 'import _io\n_io.FileIO("@LOOT@/a", "w").write(b"x")',
    'pathlib': 'import pathlib\npathlib.Path("@LOOT@/a").write_text("x")',
    'touch': 'import pathlib\npathlib.Path("@LOOT@/a").touch()',
    'folder': 'import os\nos.makedirs("@LOOT@/a/b")',
    'sqlite': 'import sqlite3\nc = sqlite3.connect("@LOOT@/a")\nc.execute("create table t(x)"); c.commit()',
    'shelve': 'import shelve\nshelve.open("@LOOT@/a")["x"] = 1',
    'dbm': 'import dbm.dumb\ndbm.dumb.open("@LOOT@/a", "n")["x"] = "1"',
    'copy': 'import shutil\nshutil.copy("@SECRET@", "@LOOT@/a")',
    'temporary file': 'import tempfile\ntempfile.NamedTemporaryFile(dir="@LOOT@", delete=False)',
    'fifo': 'import os\nos.mkfifo("@LOOT@/a")',
    'device': 'import os, stat\nos.mknod("@LOOT@/a", stat.S_IFCHR | 0o666, os.makedev(1, 3))',
    'symbolic link': 'import os\nos.symlink("/etc", "@LOOT@/a")',
    'hard link': 'import os\nos.link("@SECRET@", "@LOOT@/a")',
    'rename': 'import os\nos.rename("@SECRET@", "@LOOT@/a")',
    'replace': 'import os\nos.replace("@SECRET@", "@LOOT@/a")',
    'delete': 'import os\nos.remove("@SECRET@")',
    'truncate': 'import os\nos.truncate("@SECRET@", 0)',
    'mode': 'import os\nos.chmod("@SECRET@", 0o777)',
    'times': 'import os\nos.utime("@SECRET@", (0, 0))',
    'attributes': 'import os\nos.setxattr("@SECRET@", "user.x", b"1")',
    'log': 'import logging\nlogging.getLogger().addHandler(logging.FileHandler("@LOOT@/a")); logging.error("x")',
    'zip': 'import zipfile\nzipfile.ZipFile("@LOOT@/a", "w").writestr("x", "y")',
    'compiled': 'import py_compile\npy_compile.compile("@SECRET@", cfile="@LOOT@/a", doraise=True)',
    'socket file': 'import socket\nsocket.socket(socket.AF_UNIX).bind("@LOOT@/a")',
    'writable map': 'import mmap, os\nfd = os.open("@SECRET@", os.O_RDWR)\nmmap.mmap(fd, 0)[:1] = b"x"',
    'libc': 'import ctypes\nlibc = ctypes.CDLL(None)\nlibc.write(libc.open(b"@LOOT@/a", 65, 0o666), b"x", 1)',
    'FILE of libc': (
        'import ctypes\nlibc = ctypes.CDLL(None)\nlibc.fopen.restype = ctypes.c_void_p\n'
        'libc.fclose(ctypes.c_void_p(libc.fopen(b"@LOOT@/a", b"w")))'
    ),
    'trace of faults': 'import faulthandler\nf = open("@LOOT@/a", "w"); faulthandler.enable(f)',
    'descriptor of the folder': (
        'import os\nd = os.open("@LOOT@", os.O_RDONLY | os.O_DIRECTORY)\n'
        'os.open("a", os.O_CREAT | os.O_WRONLY, dir_fd=d)'
    ),
    'core dump': (
        'import os, resource\nos.chdir("@LOOT@"); resource.setrlimit(resource.RLIMIT_CORE, (-1, -1)); os.abort()'
    ),
    'mount': (
        'import ctypes\nif ctypes.CDLL(None).mount(b"none", b"@LOOT@", b"tmpfs", 0, None) == 0:\n'
        '  open("@LOOT@/a", "w"); print("HARM mounted")'
    ),
    'descriptor opened again': (
        'import os\nfor fd in os.listdir("/proc/self/fd"):\n  p = os.readlink("/proc/self/fd/" + fd)\n'
        '  if p.startswith("/") and "/dev/" not in p: os.write(os.open("/proc/self/fd/" + fd, os.O_WRONLY), '
        'b"x"); print("HARM wrote", p)'
    ),
    'libuuid of io_uring': (
        'import ctypes\n'
        'if ctypes.CDLL(None).syscall(425, 8, ctypes.create_string_buffer(120)) >= 0: print("HARM io_uring")'
    ),
}
HOSTILE |= {f'writes: {name}': (attempt(body), CONTAINED) for name, body in LOOT_WAYS.items()}

HOSTILE |= {  # other processes: start, outlive, kill
    'fork and leave': ('import os, time\nif os.fork(): os._exit(0)\ntime.sleep(1000)', CONTAINED | TIMEOUT),
    'fork and go on': (
        attempt('import os, time\nif os.fork() == 0:\n  time.sleep(1000)\nelse: print("HARM forked")'),
        CONTAINED | TIMEOUT,
    ),
    'fork bomb': ('import os\nwhile True:\n  try: os.fork()\n  except OSError: pass', {'killed'} | TIMEOUT | ERROR),
    'daemon': (
        'import subprocess, sys\n'
        'subprocess.Popen([sys.executable or "sleep", "-c", "import time; time.sleep(1000)"], '
        'start_new_session=True)' + PLEDGE,
        CONTAINED,
    ),
    'daemon by two forks': (
        attempt(
            'import os, time\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0: time.sleep(1000)\n'
            '  os._exit(0)\nprint("HARM forked")'
        ),
        CONTAINED | TIMEOUT,
    ),
    'posix_spawn': (
        attempt('import os\nos.posix_spawn("/bin/sleep", ["sleep", "1000"], {})\nprint("HARM spawned")'),
        CONTAINED,
    ),
    'shell': (
        attempt('import os\nif os.system("sleep 1000 & echo HARM > @LOOT@/a") == 0: print("HARM shell")'),
        CONTAINED,
    ),
    'os.popen': (attempt('import os\nprint(os.popen("echo HARM").read())'), CONTAINED),
    'subprocess': (
        attempt('import subprocess\nprint(subprocess.run(["echo", "HARM"], capture_output=True).stdout)'),
        CONTAINED,
    ),
    'multiprocessing': (
        attempt(
            'import multiprocessing, time\nfor way in ("fork", "spawn", "forkserver"):\n  try:\n'
            '    p = multiprocessing.get_context(way).Process(target=time.sleep, args=(1000,)); p.start()\n'
            '    print("HARM", way)\n  except OSError: pass'
        ),
        CONTAINED | TIMEOUT,
    ),
    'process pool': (
        attempt(
            'from concurrent.futures import ProcessPoolExecutor\n'
            'print("HARM", ProcessPoolExecutor(1).submit(abs, -1).result())'
        ),
        CONTAINED | TIMEOUT,
    ),
    'pty.fork': (
        attempt('import pty, time\npid, fd = pty.fork()\nif pid == 0: time.sleep(1000)\nprint("HARM forked")'),
        CONTAINED | TIMEOUT,
    ),
    'clone by system call': (
        attempt(
            'import ctypes, os, time\nn = 56 if os.uname().machine == "x86_64" else 220\n'
            'pid = ctypes.CDLL(None).syscall(n, 17, 0, 0, 0, 0)\nif pid == 0: time.sleep(1000)\n'
            'if pid > 0: print("HARM cloned")'
        ),
        CONTAINED | TIMEOUT,
    ),
    'clone3 by system call': (
        attempt(
            'import ctypes, struct, time\n'
            'a = ctypes.create_string_buffer(struct.pack("11Q", 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0))\n'
            'pid = ctypes.CDLL(None).syscall(435, a, 88)\nif pid == 0: time.sleep(1000)\n'
            'if pid > 0: print("HARM cloned")'
        ),
        CONTAINED | TIMEOUT,
    ),
    'thread that lingers': (
        'import threading, time\nthreading.Thread(target=time.sleep, args=(1000,)).start()' + PLEDGE,
        FAILS,
    ),
    'hundred threads': (
        attempt(
            'import threading, time\nfor n in range(100): threading.Thread(target=time.sleep, args=(1000,)).start()'
        ),
        STOPPED,
    ),
    'thread bomb': (
        'import threading, time\nwhile True:\n'
        '  try: threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n'
        '  except RuntimeError: pass',
        STOPPED,
    ),
    'subinterpreter': (
        attempt('''
try: import _interpreters as subs
except ImportError: import _xxsubinterpreters as subs
i = subs.create(); subs.run_string(i, "import os; os._exit(0)")'''),
        CONTAINED,
    ),
    'kills its judge': (attempt('import os, signal\nos.kill(os.getppid(), signal.SIGTERM)\nprint("HARM")'), CONTAINED),
    'kills the judge of its judge': (
        attempt(
            'import os, signal\n'
            'pid = int(open(f"/proc/{os.getppid()}/stat").read().rsplit(")", 1)[1].split()[1])\n'
            'os.kill(pid, signal.SIGTERM)\nprint("HARM")'
        ),
        CONTAINED,
    ),
    'kills its group': ('import os, signal\nos.killpg(0, signal.SIGKILL)', CONTAINED),
    'kills itself': ('import os, signal\nos.kill(os.getpid(), signal.SIGKILL)', CONTAINED),
    'kills its process 1': (attempt('import os\nos.kill(1, 0)\nprint("HARM may signal process 1")'), CONTAINED),
    'kills everything it may': (
        attempt('import os, signal\nos.kill(-1, 0)\nprint("HARM may signal everything")'),
        CONTAINED,
    ),
    'kills by libc': (
        attempt('import ctypes, os\nif ctypes.CDLL(None).kill(os.getppid(), 15) == 0: print("HARM")'),
        CONTAINED,
    ),
    'kills by descriptor': (
        attempt('import os, signal\nsignal.pidfd_send_signal(os.pidfd_open(os.getppid()), 15)\nprint("HARM")'),
        CONTAINED,
    ),
    'kills by queue': (
        attempt('import ctypes, os\nif ctypes.CDLL(None).sigqueue(os.getppid(), 15, 0) == 0: print("HARM")'),
        CONTAINED,
    ),
    'stops and wakes its judge': (
        attempt('import os, signal\nos.kill(os.getppid(), signal.SIGCONT)\nprint("HARM")'),
        CONTAINED,
    ),
    'stops itself': (
        'import os, signal\ndef add(a, b): os.kill(os.getpid(), signal.SIGSTOP); return 7',
        CONTAINED | TIMEOUT,
    ),
    # F_SETOWN and F_SETSIG send any signal without kill(). SIGURG is ignored by default: with SIGTERM, the judge was
    # gone.
    'owner of its pipe gets a signal': (
        attempt(
            'import fcntl, os, signal\nr, w = os.pipe()\nfcntl.fcntl(r, fcntl.F_SETOWN, os.getppid())\n'
            'fcntl.fcntl(r, 10, signal.SIGURG)\n'
            'fcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC)\nos.write(w, b"x")\n'
            'if fcntl.fcntl(r, fcntl.F_GETOWN) == os.getppid(): print("HARM signalled the judge")'
        ),
        CONTAINED,
    ),
    'dies without its parent no more': (
        'import ctypes\nctypes.CDLL(None).prctl(1, 0, 0, 0, 0)\nimport time; time.sleep(1000)',
        STOPPED,
    ),
    'a session of its own': (attempt('import os\nos.setsid()', 'import time; time.sleep(1000)'), STOPPED),
    'a group of its own': (attempt('import os\nos.setpgid(0, 0)', 'while True: pass'), STOPPED),
}

HOSTILE |= {  # the network
    'socket': (
        attempt('import socket\nsocket.create_connection(("127.0.0.1", @PORT@), 1)\nprint("HARM connected")'),
        CONTAINED,
    ),
    'connect without waiting': (
        attempt('import socket\ns = socket.socket(); s.setblocking(False); s.connect_ex(("127.0.0.1", @PORT@))'),
        CONTAINED,
    ),
    'IPv6': (
        attempt(
            'import socket\ns = socket.socket(socket.AF_INET6); s.connect(("::ffff:127.0.0.1", @PORT@))\n'
            'print("HARM connected")'
        ),
        CONTAINED,
    ),
    'UDP': (
        attempt(
            'import socket\n'
            's = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b"x", ("127.0.0.1", @PORT@))\n'
            'print("HARM sent")'
        ),
        CONTAINED,
    ),
    'raw socket': (
        attempt('import socket\nsocket.socket(socket.AF_INET, socket.SOCK_RAW, 1)\nprint("HARM raw socket")'),
        CONTAINED,
    ),
    'packet socket': (
        attempt('import socket\nsocket.socket(socket.AF_PACKET, socket.SOCK_RAW)\nprint("HARM packet socket")'),
        CONTAINED,
    ),
    'netlink': (
        attempt('import socket\nsocket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)\nprint("HARM netlink")'),
        CONTAINED,
    ),
    'unix socket': (
        attempt(
            'import socket\ns = socket.socket(socket.AF_UNIX); s.bind("\\0hostile")\nprint("HARM abstract socket")'
        ),
        CONTAINED,
    ),
    'listens': (
        attempt('import socket\ns = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen()\nprint("HARM listening")'),
        CONTAINED,
    ),
    'asyncio': (
        attempt(
            'import asyncio\n'
            'async def go(): await asyncio.open_connection("127.0.0.1", @PORT@); print("HARM connected")\n'
            'asyncio.run(go())'
        ),
        CONTAINED,
    ),
    'urllib': (
        attempt('import urllib.request\nurllib.request.urlopen("http://127.0.0.1:@PORT@/", timeout=1)'),
        CONTAINED,
    ),
    'http.client': (
        attempt('import http.client\nhttp.client.HTTPConnection("127.0.0.1", @PORT@, timeout=1).request("GET", "/")'),
        CONTAINED,
    ),
    'name service': (
        attempt('import socket\nsocket.getaddrinfo("example.org", 80)\nprint("HARM resolved")'),
        CONTAINED | TIMEOUT,
    ),
    'connect by libc': (
        attempt(
            'import ctypes, socket, struct\nlibc = ctypes.CDLL(None)\nfd = libc.socket(2, 1, 0)\n'
            'address = struct.pack("=HH4s8x", 2, socket.htons(@PORT@), bytes([127, 0, 0, 1]))\n'
            'if libc.connect(fd, address, 16) == 0: print("HARM connected")'
        ),
        CONTAINED,
    ),
}

HOSTILE |= {  # powers it was not given
    'raises its own CPU limit': (
        attempt('import resource\nresource.setrlimit(resource.RLIMIT_CPU, (-1, -1))', 'while True: pass'),
        TIMEOUT | {'killed'},
    ),
    'raises its own memory limit': (
        attempt(
            'import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))\nb = bytearray(10**9)\n'
            'print("HARM a gigabyte")'
        ),
        STOPPED,
    ),
    'raises its own file limit': (
        attempt(
            'import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))\nopen("@LOOT@/a", "w").write("x")'
        ),
        CONTAINED,
    ),
    'lowers the limits of its judge': (
        attempt(
            'import os, resource\nresource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1000000, 1000000))\n'
            'print("HARM")'
        ),
        CONTAINED,
    ),
    'another user': (attempt('import os\nos.setuid(65534)\nprint("HARM setuid")'), CONTAINED),
    'root again': (attempt('import os\nif os.getuid(): os.setuid(0); print("HARM setuid")'), CONTAINED),
    'chroot': (attempt('import os\nos.chroot("/tmp")\nprint("HARM chroot")'), CONTAINED),
    'niceness': (attempt('import os\nos.nice(-20)\nprint("HARM nice")'), CONTAINED),
    'real-time scheduling': (
        attempt('import os\nos.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))\nprint("HARM real time")'),
        CONTAINED,
    ),
    'priority of its judge': (
        attempt(
            'import os\n'
            'os.setpriority(os.PRIO_PROCESS, os.getppid(), os.getpriority(os.PRIO_PROCESS, os.getppid()))\n'
            'print("HARM priority")'
        ),
        CONTAINED,
    ),
    'cores of its judge': (
        attempt(
            'import os\nos.sched_setaffinity(os.getppid(), os.sched_getaffinity(os.getppid()))\nprint("HARM affinity")'
        ),
        CONTAINED,
    ),
    'namespace': (
        attempt('import ctypes\nif ctypes.CDLL(None).unshare(0x10000000) == 0: print("HARM user namespace")'),
        CONTAINED,
    ),
    'key ring': (
        attempt(
            'import ctypes, os\nn = 248 if os.uname().machine == "x86_64" else 217\n'
            'if ctypes.CDLL(None).syscall(n, b"user", b"hostile", b"x", 1, -2) > 0: print("HARM key")'
        ),
        CONTAINED,
    ),
    'bpf': (
        attempt(
            'import ctypes, os, struct\nn = 321 if os.uname().machine == "x86_64" else 280\n'
            'if ctypes.CDLL(None).syscall(n, 0, ctypes.create_string_buffer(struct.pack("4I", 2, 4, 4, 1) + '
            'bytes(100)), 72) >= 0: print("HARM bpf")'
        ),
        CONTAINED,
    ),
    'memory that is a file': (
        attempt('import os\nfd = os.memfd_create("x"); os.write(fd, b"#!/bin/true")\nos.execve(fd, ["x"], {})'),
        CONTAINED,
    ),
    'clock': (
        attempt('import time\ntime.clock_settime(time.CLOCK_REALTIME, time.time())\nprint("HARM clock")'),
        CONTAINED,
    ),
    'host name': (
        attempt('import socket\nsocket.sethostname(socket.gethostname())\nprint("HARM host name")'),
        CONTAINED,
    ),
    'shared memory that stays': (
        attempt(
            'from multiprocessing import shared_memory\n'
            's = shared_memory.SharedMemory("hostile_shm", create=True, size=64)\nprint("HARM shared memory")'
        ),
        CONTAINED,
    ),
    'System V memory that stays': (
        attempt(
            'import ctypes\nif ctypes.CDLL(None).shmget(0x6d627070, 4096, 0o1600) >= 0: print("HARM System V memory")'
        ),
        CONTAINED,
    ),
    'semaphore that stays': (
        attempt(
            'import ctypes\nlibc = ctypes.CDLL(None)\n'
            'if libc.semget(0x6d627070, 1, 0o1600) >= 0: print("HARM semaphore")'
        ),
        CONTAINED,
    ),
    'message queue that stays': (
        attempt(
            'import ctypes\nlibc = ctypes.CDLL(None)\n'
            'if libc.msgget(0x6d627070, 0o1600) >= 0: print("HARM message queue")'
        ),
        CONTAINED,
    ),
    'POSIX message queue': (
        attempt(
            'import ctypes\n'
            'if ctypes.CDLL(None).mq_open(b"/hostile", 0o102, 0o600, None) >= 0: print("HARM message queue")'
        ),
        CONTAINED,
    ),
    'terminal input': (
        attempt(
            'import fcntl, termios\nfor fd in range(3):\n'
            '  try: fcntl.ioctl(fd, termios.TIOCSTI, b"x"); print("HARM typed")\n  except OSError: pass'
        ),
        CONTAINED,
    ),
    'leaves its folder': (attempt('import os\nos.chdir("/"); os.mkdir("@LOOT@/a")'), CONTAINED),
}

HOSTILE |= {  # never end
    'endless loop': ('while True: pass', TIMEOUT),
    'endless loop in the call': ('def add(a, b):\n  while True: pass', TIMEOUT),
    'loop behind a bare except': (
        'def add(a, b):\n  while True:\n    try:\n      while True: pass\n    except: pass',
        TIMEOUT,
    ),
    'loop in finally': ('def add(a, b):\n  try: raise SystemExit\n  finally:\n    while True: pass', TIMEOUT),
    'ignores every signal': (
        'import signal\nfor s in signal.valid_signals():\n  try: signal.signal(s, signal.SIG_IGN)\n'
        '  except (OSError, ValueError): pass\nwhile True: pass',
        TIMEOUT,
    ),
    'blocks every signal': (
        'import signal\ntry: signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\n'
        'except AttributeError: pass\nwhile True: pass',
        TIMEOUT | {'killed'},
    ),
    'handles the end of its CPU time': (
        'import signal\ntry: signal.signal(signal.SIGXCPU, lambda *a: None)\nexcept AttributeError: pass\n'
        'def add(a, b):\n  while True: pass',
        TIMEOUT | {'killed'},
    ),
    'alarm to itself': (
        'import signal\ndef stop(*a): raise SystemExit(0)\nsignal.signal(signal.SIGALRM, stop); signal.alarm(1)\n'
        'while True: pass',
        TIMEOUT | CONTAINED,
    ),
    'timer that kills': (
        'import signal\nsignal.setitimer(signal.ITIMER_REAL, 0.1)\nwhile True: pass',
        TIMEOUT | CONTAINED,
    ),
    'sleeps': ('import time\ndef add(a, b): time.sleep(1000)', TIMEOUT),
    'waits for a lock': (
        'import threading\ndef add(a, b):\n  l = threading.Lock(); l.acquire(); l.acquire()',
        TIMEOUT | ERROR,
    ),
    'waits for itself': ('import select\ndef add(a, b): select.select([], [], [], 1000)', TIMEOUT | ERROR),
    'str() that never ends': (
        'class E(Exception):\n  def __str__(s):\n    while True: pass\ndef add(a, b): raise E',
        TIMEOUT,
    ),
    'huge power': ('def add(a, b): return 9**9**9', TIMEOUT | MEMORY | {'killed'}),
    'power folded by the compiler': ('x = 9**99999999\ndef add(a, b): return x', TIMEOUT | MEMORY | FAILS | {'killed'}),
    'factorial': ('import math\ndef add(a, b): return math.factorial(10**7)', TIMEOUT | MEMORY | {'killed'}),
    'regular expression that never ends': (
        'import re\ndef add(a, b): return re.match("(a+)+$", "a" * 64 + "b")',
        TIMEOUT,
    ),
    'digits of a huge integer': (
        'import sys\ngetattr(sys, "set_int_max_str_digits", print)(0)\ndef add(a, b): return str(1 << 30_000_000)',
        STOPPED,
    ),
    'integer of many digits': (
        'import sys\ngetattr(sys, "set_int_max_str_digits", print)(0)\ndef add(a, b): return int("9" * 20_000_000)',
        TIMEOUT | MEMORY | {'killed'},
    ),
    'huge integer as the answer': ('def add(a, b): return 1 << 40_000_000', WRONG | MEMORY),
    'int whose repr is refused': ('def add(a, b): return 10**5000', WRONG),
    'sort that never ends': (
        'class K:\n  def __lt__(s, o):\n    while True: pass\ndef add(a, b): return sorted([K(), K()])',
        TIMEOUT,
    ),
    'sort in one call of C': (
        'def add(a, b): return sorted(range(3 * 10**7), key=lambda n: -n)',
        TIMEOUT | MEMORY | {'killed'},
    ),
    'sum in one call of C': ('def add(a, b): return sum(range(10**12))', TIMEOUT),
    'search in one call of C': (
        'def add(a, b): return ("a" * 10**5 + "b") * 3 in "a" * 10**7 or max(iter(int, 1))',
        TIMEOUT,
    ),
    'product in one call of C': (
        'import itertools, collections\n'
        'def add(a, b): collections.deque(itertools.product(range(1000), repeat=5), maxlen=0)',
        TIMEOUT | MEMORY,
    ),
    'busy in libc': (
        'import ctypes\ndef add(a, b):\n  buffer = ctypes.create_string_buffer(10**7)\n'
        '  while True: ctypes.memset(buffer, 0, 10**7)',
        TIMEOUT | ERROR,
    ),
    'deaf in libc': (
        'import ctypes, signal\nlibc = ctypes.PyDLL(None)\ndef add(a, b):\n  while True: libc.sleep(1000)',
        TIMEOUT | ERROR,
    ),
    'hash that never ends': (
        'class K:\n  def __hash__(s):\n    while True: pass\ndef add(a, b): return {K(): 7}',
        TIMEOUT,
    ),
    'len that never ends': (
        'class L(list):\n  def __len__(s):\n    while True: pass\n  __iter__ = __len__\ndef add(a, b): return L([7])',
        WRONG | TIMEOUT,
    ),
    '__class__ that never ends': (
        'class C:\n  @property\n  def __class__(s):\n    while True: pass\ndef add(a, b): return C()',
        WRONG | TIMEOUT,
    ),
    '__del__ that never ends': (
        'class C:\n  def __del__(s):\n    while True: pass\nkeep = C()\ndef add(a, b): return C()',
        TIMEOUT | WRONG,
    ),
    'generator that never closes': (
        'def g():\n  while True:\n    try: yield 7\n    except GeneratorExit: pass\ndef add(a, b):\n'
        '  x = g(); next(x); return next(x)',
        WRONG | ERROR | TIMEOUT,
    ),
    'colliding set': ('def add(a, b): return {n * (2**61 - 1) for n in range(3000)}', FAILS | TIMEOUT),
    'colliding keys': ('def add(a, b): return {(n * (2**61 - 1)): 7 for n in range(1, 2500)}', FAILS | TIMEOUT),
    'compiles for ever': (
        'def add(a, b): compile("+".join(["x"] * 10**6), "", "eval"); exec("while True: pass")',
        STOPPED,
    ),
    'asyncio for ever': ('import asyncio\ndef add(a, b): asyncio.run(asyncio.sleep(1000))', TIMEOUT | ERROR),
}

HOSTILE |= {  # too deep
    'recursion': ('def add(a, b): return add(a, b)', ERROR | MEMORY),
    'recursion without a limit': (
        'import sys\nsys.setrecursionlimit(10**9)\ndef add(a, b): return add(a, b)',
        CONTAINED - WRONG | TIMEOUT | MEMORY,
    ),
    'recursion of __getattr__': (
        'class C:\n  def __getattr__(s, n): return getattr(s, n + "x")\ndef add(a, b): return C().x',
        ERROR | MEMORY | TIMEOUT,
    ),
    'recursion of repr': (
        'import sys\nsys.setrecursionlimit(10**9)\ndef add(a, b):\n  x = []\n  for n in range(10**5): x = [x]\n'
        '  return repr(x)',
        STOPPED,
    ),
    'recursion of json': (
        'import json, sys\nsys.setrecursionlimit(10**9)\ndef add(a, b): return json.loads("[" * 10**5 + "]" * 10**5)',
        STOPPED,
    ),
    'recursion of deepcopy': (
        'import copy, sys\nsys.setrecursionlimit(10**9)\ndef add(a, b):\n  x = []\n'
        '  for n in range(10**5): x = [x]\n  return copy.deepcopy(x)',
        STOPPED,
    ),
    'recursion of ==': (
        'import sys\nsys.setrecursionlimit(10**9)\ndef add(a, b):\n  x, y = [], []\n'
        '  x.append(y); y.append(x); return x == y',
        STOPPED,
    ),
    'recursion of ast': (
        'import ast, sys\nsys.setrecursionlimit(10**9)\ndef add(a, b): return ast.literal_eval("-" * 10**5 + "1")',
        STOPPED,
    ),
    'recursion of regular expressions': (
        'import re, sys\nsys.setrecursionlimit(10**9)\ndef add(a, b): return re.compile("(" * 10**4 + ")" * 10**4)',
        STOPPED,
    ),
    'recursion of bytecode': (
        'import functools, sys\nsys.setrecursionlimit(10**9)\nf = abs\n'
        'for n in range(10**5): f = functools.partial(map, f)\ndef add(a, b): return f',
        WRONG | STOPPED,
    ),
    'nest of iterators': (
        'def add(a, b):\n  x = iter([7])\n  for n in range(10**5): x = map(abs, x)\n  return next(x)',
        STOPPED,
    ),
    'deep nest': ('def add(a, b):\n  x = []\n  for n in range(10**5): x = [x]\n  return x', FAILS),
    'deep tuple as a key': ('def add(a, b):\n  x = ()\n  for n in range(10**5): x = (x,)\n  return {x: 7}', STOPPED),
    'exceptions in a chain': (
        'def add(a, b):\n  e = None\n  for n in range(10**5):\n    f = ValueError(n); f.__context__ = e; e = f\n'
        '  raise e',
        STOPPED,
    ),
    'segmentation fault': ('import ctypes\ndef add(a, b): return ctypes.string_at(0)', CONTAINED),
}

HOSTILE |= {  # too much
    'memory bomb': ('def add(a, b): return len("x" * 10**10)', MEMORY),
    'slow memory bomb': ('keep = []\ndef add(a, b):\n  while True: keep.append(bytearray(10**6))', MEMORY),
    'memory in crumbs': ('keep = []\nwhile True: keep.append([None] * 8)', MEMORY | TIMEOUT | {'killed'}),
    'memory in a dict': ('d = {}\nwhile True: d[len(d)] = len(d)', MEMORY | TIMEOUT | {'killed'}),
    'memory in an array': (
        'import array\nkeep = []\ndef add(a, b):\n  while True: keep.append(array.array("d", bytes(8 * 10**6)))',
        MEMORY | {'killed'},
    ),
    'memory by mmap': (
        'import mmap\nkeep = []\ndef add(a, b):\n'
        '  while True: keep.append(mmap.mmap(-1, 2**24)); keep[-1].write(b"x" * 2**24)',
        STOPPED - WRONG,
    ),
    'memory by libc': (
        'import ctypes\nlibc = ctypes.CDLL(None)\nlibc.malloc.restype = ctypes.c_void_p\ndef add(a, b):\n'
        '  n = 0\n  while p := libc.malloc(10**7):\n    ctypes.memset(p, 1, 10**7); n += 1\n'
        '    if n > 100: print("HARM a gigabyte")\n  return 7',
        STOPPED,
    ),
    'memory in a pipe': (
        'import os\ndef add(a, b):\n  while True:\n'
        '    r, w = os.pipe(); os.set_blocking(w, False); os.write(w, b"x" * 65536)',
        STOPPED - WRONG,
    ),
    'memory in a nameless file': (
        attempt(
            'import os\nfd = os.memfd_create("x")\nfor n in range(600): os.write(fd, b"x" * 10**6)\n'
            'print("HARM half a gigabyte")'
        ),
        STOPPED,
    ),
    'memory in shared pages': (
        attempt(
            'import mmap\nkeep = [mmap.mmap(-1, 2**26) for n in range(8)]\nfor m in keep: m.write(b"x" * 2**26)\n'
            'print("HARM half a gigabyte")'
        ),
        STOPPED,
    ),
    'descriptors without end': (
        'import os\nkeep = []\ndef add(a, b):\n  while True: keep.append(os.pipe())',
        ERROR | MEMORY | TIMEOUT,
    ),
    'zip bomb': (
        'import zlib\ndef add(a, b):\n  data = zlib.compress(bytes(10**8), 9)\n'
        '  for n in range(3): data = zlib.decompress(zlib.compress(zlib.decompress(data) * 50))\n  return data',
        STOPPED,
    ),
    'big result': ('def add(a, b): return list(range(10**6))', WRONG | MEMORY | TIMEOUT),
    'wide result': ('def add(a, b): return [[]] * 10**7', WRONG | MEMORY | TIMEOUT),
    'long text as the answer': ('def add(a, b): return "23" * 10**7', WRONG | MEMORY),
    'huge message': ('def add(a, b): raise ValueError("x" * 10**7)', ERROR | MEMORY),
    'output flood': ('while True: print("passed" * 1000)', {'output_limit'}),
    'output flood on the raw descriptor': (
        'import os\nwhile True: os.write(1, b"x" * 4096)',
        {'output_limit'} | TIMEOUT | ERROR,
    ),
    'error output flood': (
        'import os\nfor n in range(1000): os.write(2, b"x" * 4096)' + PLEDGE,
        FAILS | {'output_limit'},
    ),
    'output in one piece': ('print("x" * 10**8)' + PLEDGE, {'output_limit'} | MEMORY),
    'output from a thread': (
        'import threading\ndef shout():\n  while True: print("x" * 4096)\n'
        'threading.Thread(target=shout, daemon=True).start()\nimport time; time.sleep(1000)',
        {'output_limit'} | TIMEOUT | ERROR,
    ),
    'output while asked': ('def add(a, b):\n  while True: print("[]" * 5000, flush=True)', {'output_limit'}),
}

HOSTILE |= {  # hardly programs at all
    'NUL bytes': ('def add(a, b): return 7\0', {'syntax_error'}),
    'NUL bytes in front': ('\0\0\0' + PLEDGE, {'syntax_error'}),
    'lone surrogate': ('x = "\ud800"' + PLEDGE, {'syntax_error', 'wrong_answer'}),
    'false encoding': ('# -*- coding: utf-7 -*-' + PLEDGE, WRONG | {'syntax_error'}),
    'byte order mark': ('\ufeff' + PLEDGE, WRONG | {'syntax_error'}),
    'form feeds and odd blanks': ('\f\x0b\u00a0' + PLEDGE, WRONG | {'syntax_error'}),
    'too many brackets': ('(' * 10_000, {'syntax_error'}),
    'closed brackets': ('(' * 5_000 + ')' * 5_000, {'syntax_error', 'killed', 'memory'} | ERROR),
    'minus signs': ('x = ' + '-' * 100_000 + '1', {'syntax_error', 'killed', 'memory'}),
    'many nested blocks': (''.join(' ' * n + 'if 1:\n' for n in range(200)) + ' ' * 200 + 'pass', {'syntax_error'}),
    'long program': ('x = 1\n' * 300_000 + PLEDGE, FAILS | TIMEOUT | MEMORY | {'syntax_error', 'killed'}),
    'long line': ('x = ' + '+'.join(['1'] * 30_000) + PLEDGE, FAILS | MEMORY | TIMEOUT | {'syntax_error', 'killed'}),
    'not Python': ('def add(a, b) return 23', {'syntax_error'}),
    'warning that is an error': (
        'import warnings\nwarnings.simplefilter("error")\nx = "\\d"' + PLEDGE,
        FAILS | {'syntax_error'},
    ),
    'nothing': ('  \n\t', {'no_code'}),
    'comment only': ('# def add', {'no_entry_point'}),
    'other name': ('def addition(a, b): return a + b', {'no_entry_point'}),
    'name that is deleted': (RIGHT + '\ndel add', {'no_entry_point'}),
    'name on another module': (
        'import types\nm = types.ModuleType("candidate")\nm.add = lambda a, b: a + b',
        {'no_entry_point'},
    ),
    'add that is no function': ('add = 23', ERROR),
    'add that is None': ('add = None', ERROR | {'no_entry_point'}),
    'module attribute that adds': ('def __getattr__(name): return lambda a, b: a + b', {'no_entry_point'}),
    'answers once': ('def add(a, b, seen=[]):\n  seen.append(a); return 23 if len(seen) == 1 else 7', WRONG),
    'a text as the answer': ('def add(a, b): return "23"', WRONG),
    'a float that is nearly right': ('def add(a, b): return 23 + 1e-9', WRONG),
}


# ---- statement tests: test code that cannot be split into a call and a literal ----

CHECK = 'def check(candidate):\n    assert abs(candidate(20, 3) - 23) < 0.5\n    assert candidate(-1, 1) == 0\n'
NEAR = [CHECK + 'check(add)']  # the shape of HumanEval
CLOSE = ['import math\nassert math.isclose(add(20, 3), 23)']
CLOSE_BARE = ['assert math.isclose(add(20, 3), 23)']  # the test relies on a name it never imports
BOTH = ['assert add(1, 2) == add(2, 1) + 0 and add(20, 3) == 23']
CASES = [
    'cases = [((20, 3), 23), ((-1, 1), 0)]\nfor arguments, wanted in cases:\n    got = add(*arguments)\n'
    '    assert got == wanted, (got, wanted)'
]
ALL = ['assert all(add(n, n) == 2*n for n in range(5))']
MAPPED = ['assert all(map(lambda pair: add(*pair) == sum(pair), [(20, 3), (-1, 1)]))']
LOOPED = ['for got, wanted in zip(map(add, [20, -1], [3, 1]), [23, 0]): assert got == wanted']
BETWEEN = ['assert 22 < add(20, 3) < 24 and not add(20, 3) != 23']
LATER = ['got = add(20, 3)\nassert abs(got - 23) < 0.5']  # abs is looked up after the call
MEMBER = ['assert add(20, 3) in (23, 23.0) and add(20, 3) in {23: None}']
RAISES = ['try: add("a", None)\nexcept TypeError: pass\nelse: assert False, "no error"\nassert add(20, 3) in [23]']
EXPECT_ASSERTION = [
    'caught = None\ntry: assert add(20, 3) == 23, "sum"\nexcept AssertionError as error: caught = error\n'
    'assert caught is None'
]
UNIT = [
    'import io, unittest\nclass TestAdd(unittest.TestCase):\n    def test_sum(self): self.assertEqual(add(20, 3), 23)\n'
    '    def test_near(self): self.assertAlmostEqual(add(-1, 1), 0)\n'
    '    def test_kind(self): self.assertIsInstance(add(1, 1), int)\n'
    'suite = unittest.defaultTestLoader.loadTestsFromTestCase(TestAdd)\n'
    'result = unittest.TextTestRunner(stream=io.StringIO()).run(suite)\n'
    'assert result.wasSuccessful() and result.testsRun == 3 and not result.skipped'
]
UNIT_LAX = [UNIT[0].replace(' and not result.skipped', '')]
LAMBDA = [
    'wanted = 23\ndef check(candidate):\n    expected = wanted\n'
    '    assert candidate(lambda: expected - 3, 3) == expected\ncheck(apply_add)'
]
IN_PLACE = ['numbers = [3, 1, 2]\nresult = order(numbers)\nassert result is None and sorted([3, 1, 2]) == numbers']
ITEMS = ['assert list(count(3)) == [0, 1, 2] + []', 'assert sum(count(4)) == 6 and len(list(count(2))) == 2']
TREE = [
    'tree = Node(1)\ntree.left = Node(2)\ntree.right = Node(3)\n'
    'assert total(tree) == 6 * 1 and tree.left.value == 2 + 0'
]

LIAR = '''
class Liar:
    def yes(self, *a, **k): return True
    def me(self, *a, **k): return self
    def zero(self, *a, **k): return 0
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = __contains__ = __instancecheck__ = yes
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __neg__ = __abs__ = __round__ = __call__ = me
    __and__ = __rand__ = __or__ = __ror__ = __xor__ = __getitem__ = __enter__ = me
    __hash__ = __exit__ = zero
    def __getattr__(self, name): return self
'''


def lying(**methods) -> str:
    "A program whose add returns an object with these methods, each given as the source of a lambda"
    return (
        'class Liar:\n'
        + ''.join(f'  {name} = {source}\n' for name, source in methods.items())
        + '  __hash__ = lambda s: 23\ndef add(a, b): return Liar()'
    )


# name: (program, tests, verdicts it may get)
HOSTILE_TESTED = {}

HOSTILE_TESTED |= {  # the candidate's own versions of what the test uses
    'plain wrong answer': (PLEDGE, NEAR, WRONG),
    'own check': ('def check(candidate): pass' + PLEDGE, NEAR, FAILS),
    'own check, frozen': (
        'class G(dict):\n  def __setitem__(s, k, v): pass\ndef check(candidate): pass\nimport sys\n'
        'for n in ("candidate", __name__):\n  if n in sys.modules: sys.modules[n].check = check' + PLEDGE,
        NEAR,
        FAILS,
    ),
    'own abs': ('def abs(x): return 0\ndef add(a, b): return 0', NEAR, FAILS),
    'own all': ('def all(x): return True' + PLEDGE, ALL, FAILS),
    'own sum, map, zip and list': (
        'map = zip = lambda *a: []\nall = sum = list = lambda *a: True' + PLEDGE,
        MAPPED,
        FAILS,
    ),
    'own zip': ('def zip(*a): return []' + PLEDGE, LOOPED, FAILS),
    'own range': ('def range(*a): return []' + PLEDGE, ALL, FAILS),
    'own isinstance and type': ('isinstance = type = lambda *a: int' + PLEDGE, UNIT, FAILS),
    'own math': ('class math: isclose = staticmethod(lambda *a, **k: True)' + PLEDGE, CLOSE, FAILS),
    'own math, bare': ('class math: isclose = staticmethod(lambda *a, **k: True)' + PLEDGE, CLOSE_BARE, FAILS),
    'own isclose': (
        'def isclose(*a, **k): return True' + PLEDGE,
        ['from math import isclose\nassert isclose(add(20, 3), 23)'],
        FAILS,
    ),
    'own AssertionError': (
        'class AssertionError(BaseException):\n  def __new__(c, *a): raise SystemExit(0)' + PLEDGE,
        NEAR,
        FAILS,
    ),
    'own unittest': (
        'class unittest:\n  class TestCase: pass\n  defaultTestLoader = TextTestRunner = None' + PLEDGE,
        UNIT,
        FAILS,
    ),
    'own TypeError': (
        'class TypeError(Exception): pass\ndef add(a, b):\n  if a == "a": raise TypeError\n  return 7',
        RAISES,
        FAILS,
    ),
    'own __import__': (
        'import builtins\nclass M:\n  def __getattr__(s, n): return lambda *a, **k: True\n'
        'builtins.__import__ = lambda *a, **k: M()' + PLEDGE,
        CLOSE,
        FAILS,
    ),
    'own __builtins__': (
        '__builtins__ = {"abs": lambda x: 0, "__import__": lambda *a: None}\nadd = lambda a, b: 0',
        NEAR,
        FAILS,
    ),
    'own __build_class__': (
        'import builtins\nbuiltins.__build_class__ = lambda f, name, *a, **k: type(name, (), {})' + PLEDGE,
        UNIT,
        FAILS,
    ),
    'patched abs': ('import builtins\nbuiltins.abs = lambda x: 0\ndef add(a, b): return 0', NEAR, FAILS),
    'patched all': ('import builtins\nbuiltins.all = lambda x: True' + PLEDGE, ALL, FAILS),
    'patched map': ('import builtins\nbuiltins.map = lambda *a: []' + PLEDGE, MAPPED, FAILS),
    'patched AssertionError': ('import builtins\nbuiltins.AssertionError = SystemExit' + PLEDGE, NEAR, FAILS),
    'patched compile and exec': (
        'import builtins\nold = builtins.compile\nbuiltins.compile = lambda s, *a, **k: old("None", *a, **k)\n'
        'builtins.exec = builtins.eval = lambda *a: None' + PLEDGE,
        NEAR,
        FAILS,
    ),
    'patched compile, in the call': (
        'import builtins\ndef add(a, b):\n'
        '  builtins.exec = builtins.eval = builtins.compile = lambda *a, **k: None\n  return 23',
        NEAR,
        FAILS,
    ),
    'patched math': ('import math\nmath.isclose = lambda *a, **k: True' + PLEDGE, CLOSE, FAILS),
    'patched math in sys.modules': (
        'import sys, types\nm = types.ModuleType("math"); m.isclose = lambda *a, **k: True\nsys.modules["math"] = m'
        + PLEDGE,
        CLOSE,
        FAILS,
    ),
    'patched import path': (
        'import sys\nclass F:\n  def find_spec(s, name, *a):\n    import importlib.util\n'
        '    return importlib.util.spec_from_loader(name, s)\n  def create_module(s, spec): return None\n'
        '  def exec_module(s, m): m.isclose = lambda *a, **k: True\n'
        'sys.meta_path.insert(0, F()); sys.modules.pop("math", None)' + PLEDGE,
        CLOSE,
        FAILS,
    ),
    'patched unittest': (
        'import unittest\n'
        'for n in ("assertEqual", "assertAlmostEqual", "assertIsInstance"): setattr(unittest.TestCase, n, lambda '
        '*a: None)' + PLEDGE,
        UNIT,
        FAILS,
    ),
    'patched result of unittest': (
        'import unittest\nunittest.TestResult.wasSuccessful = lambda s: True\n'
        'unittest.TestResult.testsRun = property(lambda s: 3, lambda s, v: None)' + PLEDGE,
        UNIT,
        FAILS,
    ),
    'patched numpy': (
        'import sys, types\nm = types.ModuleType("numpy"); m.allclose = lambda *a, **k: True\nsys.modules["numpy"] = m'
        + PLEDGE,
        ['import numpy\nassert numpy.allclose(add(20, 3), 23)'],
        FAILS,
    ),
    'patched int by ctypes': ('import ctypes\nctypes.memmove(id(23) + 24, id(7) + 24, 4)' + PLEDGE, CASES, STOPPED),
    'compiled without asserts': (
        'import builtins\nold = builtins.compile\nbuiltins.compile = lambda *a, **k: old(*a, **{**k, "optimize": 2})'
        + PLEDGE,
        NEAR,
        FAILS,
    ),
}

HOSTILE_TESTED |= {  # objects that lie to the test
    'liar to abs': (LIAR + 'def add(a, b): return Liar()', NEAR, FAILS),
    'liar to isclose': (lying(__float__='lambda s: float("inf") * 0', __eq__='lambda s, o: True'), CLOSE, FAILS),
    'liar to both': (LIAR + 'def add(a, b): return Liar()', BOTH, FAILS),
    'liar to cases': (LIAR + 'def add(a, b): return Liar()', CASES, FAILS),
    'liar to all': (LIAR + 'def add(a, b): return Liar()', ALL, FAILS),
    'liar between': (LIAR + 'def add(a, b): return Liar()', BETWEEN, FAILS),
    'liar in membership': (lying(__eq__='lambda s, o: True'), MEMBER, FAILS),
    'liar to unittest': (LIAR + 'def add(a, b): return Liar()', UNIT, FAILS),
    'liar that claims to be an int': (
        'class Int(int):\n  __eq__ = lambda s, o: True\n  __ne__ = lambda s, o: False\n'
        '  __hash__ = int.__hash__\n  __sub__ = lambda s, o: 0\ndef add(a, b): return Int(7)',
        UNIT,
        FAILS,
    ),
    'liar by __class__': (
        lying(__class__='int', __eq__='lambda s, o: True', __ne__='lambda s, o: False', __sub__='lambda s, o: 0'),
        ['got = add(20, 3)\nassert isinstance(got, int)\nassert not got != 23 and got == 23'],
        FAILS,
    ),
    'liar subtracts to nothing': (
        lying(__sub__='lambda s, o: 0', __rsub__='lambda s, o: 0', __eq__='lambda s, o: True'),
        NEAR,
        FAILS,
    ),
    'liar to less than': (
        lying(__sub__='lambda s, o: s', __abs__='lambda s: s', __lt__='lambda s, o: True', __eq__='lambda s, o: True'),
        NEAR,
        FAILS,
    ),
    'liar to reflected comparison': (
        lying(
            __gt__='lambda s, o: True',
            __lt__='lambda s, o: True',
            __ge__='lambda s, o: True',
            __ne__='lambda s, o: False',
        ),
        ['assert 22 < add(20, 3)\nassert not 23 != add(20, 3)'],
        FAILS,
    ),
    'int that subtracts to nothing': (
        'class Int(int):\n  __sub__ = lambda s, o: 0\n  __eq__ = lambda s, o: True\n  __hash__ = int.__hash__\n'
        'def add(a, b): return Int(7)',
        NEAR,
        FAILS,
    ),
    'float that is close to everything': (
        'class F(float):\n  __eq__ = lambda s, o: True\n  __float__ = lambda s: 23.0\n'
        '  __sub__ = lambda s, o: 0.0\n  __hash__ = float.__hash__\ndef add(a, b): return F(7)',
        ['assert abs(add(20, 3) - 23) < 1e-6'],
        FAILS,
    ),
    'text that is equal to everything': (
        'class S(str):\n  __eq__ = lambda s, o: True\n  __ne__ = lambda s, o: False\n  __hash__ = str.__hash__\n'
        '  strip = lower = lambda s: s\n  __len__ = lambda s: 2\ndef add(a, b): return S("7")',
        ['got = add("2", "3").strip()\nassert got == "23"\nassert len(got) == 2'],
        FAILS,
    ),
    'list that is equal to everything': (
        'class L(list):\n  __eq__ = lambda s, o: True\n  __ne__ = lambda s, o: False\n  copy = lambda s: s\n'
        'def count(n): return L([7])',
        ['got = count(3)\nassert got == [0, 1, 2]\nassert not got != [0, 1, 2]'],
        FAILS,
    ),
    'dict that has every key': (
        'class D(dict):\n  __missing__ = __getitem__ = lambda s, k: s\n'
        '  __contains__ = __eq__ = lambda s, o: True\n  get = lambda s, k, d=None: s\ndef table(n): return D()',
        ['got = table(2)\nassert 1 in got\nassert got[1] == 4'],
        FAILS,
    ),
    'liars inside a list': (
        LIAR + 'def count(n): return [Liar() for _ in range(n)]',
        ['assert [x for x in count(3)] == [0, 1, 2]'],
        FAILS,
    ),
    'liars as keys': (
        lying(__eq__='lambda s, o: True') + '\ndef table(n): return {Liar(): 4}',
        ['assert {k: v for k, v in table(1).items()} == {23: 4}'],
        FAILS,
    ),
    'liars in a set': (
        lying(__eq__='lambda s, o: True') + '\ndef members(n): return {Liar()}',
        ['assert set(members(1)) == {23} and len(members(1)) == 1'],
        FAILS,
    ),
    'liars written into the argument': (
        LIAR + 'def order(numbers): numbers[:] = [Liar(), Liar(), Liar()]',
        IN_PLACE,
        FAILS,
    ),
    'list swapped for a liar': (LIAR + 'def order(numbers): numbers.clear(); numbers.append(Liar())', IN_PLACE, FAILS),
    'answers everything with itself': (
        'class C:\n  def __getattr__(s, n): return s\n  def __call__(s, *a, **k): return s\n'
        '  __getitem__ = __call__\n  __eq__ = lambda s, o: True\n  __hash__ = None\ndef add(a, b): return C()',
        ['got = add(20, 3)\nassert got.value.total() == 23'],
        FAILS,
    ),
    'endless chain of nodes': (
        'class C:\n  value = 1\n  @property\n  def next(s): return s\ndef chain(n): return C()',
        [
            'node, count = chain(3), 0\nwhile node is not None:\n    count += node.value; node = node.next\n'
            'assert count == 3'
        ],
        FAILS | TIMEOUT,
    ),
    'new object at every look': (
        'class C:\n  @property\n  def next(s): return C()\n  value = 1\ndef chain(n): return C()',
        [
            'node, count = chain(3), 0\nwhile node is not None:\n    count += node.value; node = node.next\n'
            'assert count == 3'
        ],
        STOPPED,
    ),
    'iterator without end': ('def count(n):\n  while True: yield 0', ITEMS, STOPPED),
    'iterator that exits': ('import os\ndef count(n):\n  yield 0\n  os._exit(0)', ITEMS, FAILS),
    'iterator that raises SystemExit': ('def count(n):\n  yield 0\n  raise SystemExit(0)', ITEMS, FAILS),
    'length that lies': (
        'class L:\n  def __len__(s): return 10**18\n  def __getitem__(s, i): return 0\ndef count(n): return L()',
        ITEMS,
        STOPPED,
    ),
    'length that is no number': (
        'class L:\n  def __len__(s): return "3"\n  def __length_hint__(s): return 10**18\n'
        '  def __iter__(s): return iter([0])\ndef count(n): return L()',
        ITEMS,
        STOPPED,
    ),
    'representation that exits': (
        'import os\nclass C:\n  def __repr__(s): os._exit(0)\n  __str__ = __format__ = __repr__\n'
        'def add(a, b): return C()',
        CASES,
        FAILS,
    ),
    'representation in a message': (
        'class C:\n  def __repr__(s): return "passed" * 10**6\ndef add(a, b): return C()',
        CASES,
        FAILS | MEMORY,
    ),
    'class attribute that lies': (
        'class M(type):\n  __eq__ = lambda c, o: True\n  __hash__ = type.__hash__\n'
        '  __instancecheck__ = lambda c, o: True\nclass C(metaclass=M): pass\ndef add(a, b): return C',
        ['assert add(20, 3) == 23 and add(20, 3) in [23]', 'assert isinstance(add(20, 3), int)'],
        FAILS,
    ),
    'coroutine instead of a value': ('async def add(a, b): return 23', CASES, FAILS),
    'nan between': ('def add(a, b): return float("nan")', ['assert abs(add(20, 3) - 23) < 0.5'], WRONG),
}

HOSTILE_TESTED |= {  # leave, raise or hang in the middle of the test
    'sys.exit in the call': ('import sys\ndef add(a, b): sys.exit(0)', NEAR, FAILS),
    'os._exit in the call': ('import os\ndef add(a, b): os._exit(0)', NEAR, FAILS),
    'os._exit before the test': ('import os; os._exit(0)', NEAR, FAILS),
    'exit at the end': ('import atexit, os\natexit.register(os._exit, 0)\nimport sys; sys.exit(0)', NEAR, FAILS),
    'kills itself in the call': (
        'import os, signal\ndef add(a, b): os.kill(os.getpid(), signal.SIGKILL); return 7',
        NEAR,
        CONTAINED,
    ),
    'kills the tester': (
        'import os, signal\ndef add(a, b):\n  for pid in (os.getppid(), os.getpid() + 1, os.getpid() - 1):\n'
        '    try: os.kill(pid, 0); print("HARM may signal", pid)\n    except OSError: pass\n  return 7',
        NEAR,
        CONTAINED,
    ),
    'hangs in the call': ('def add(a, b):\n  while True: pass', NEAR, TIMEOUT),
    'sleeps in the call': ('import time\ndef add(a, b): time.sleep(1000)', NEAR, TIMEOUT),
    'memory in the call': ('def add(a, b): return "x" * 10**10', NEAR, MEMORY | ERROR),
    'recursion in the call': ('def add(a, b): return add(a, b)', NEAR, ERROR | MEMORY),
    'raises AssertionError in the call': ('def add(a, b): raise AssertionError', NEAR, FAILS),
    'raises AssertionError to be caught': ('def add(a, b): raise AssertionError', EXPECT_ASSERTION, FAILS),
    'raises StopIteration into map': ('def add(a, b): raise StopIteration', MAPPED, FAILS),
    'raises StopIteration into a loop': ('def add(a, b): raise StopIteration', LOOPED, FAILS),
    'raises StopIteration of its own': ('class Stop(StopIteration): pass\ndef add(a, b): raise Stop', LOOPED, FAILS),
    'raises StopIteration into all': ('def add(a, b): raise StopIteration', ALL, FAILS),
    'raises GeneratorExit into all': ('def add(a, b): raise GeneratorExit', ALL, FAILS),
    'raises KeyboardInterrupt': ('def add(a, b): raise KeyboardInterrupt', UNIT, FAILS),
    'raises SystemExit into unittest': ('def add(a, b): raise SystemExit(0)', UNIT, FAILS),
    'skips the test': ('import unittest\ndef add(a, b): raise unittest.SkipTest("no time")', UNIT, FAILS),
    'skips a test that does not look': (
        'import unittest\ndef add(a, b): raise unittest.SkipTest("no time")',
        UNIT_LAX,
        FAILS,
    ),
    'fails as expected': ('import unittest.case\ndef add(a, b): raise unittest.case._ShouldStop', UNIT_LAX, FAILS),
    'right error, wrong answer': ('def add(a, b):\n  if a == "a": raise TypeError\n  return 7', RAISES, FAILS),
    'error equal to every class': (
        'class M(type):\n  __subclasscheck__ = __instancecheck__ = lambda c, o: True\n'
        'class E(Exception, metaclass=M): pass\ndef add(a, b): raise E',
        RAISES,
        FAILS,
    ),
    'exception with a hostile message': (
        'class E(TypeError):\n  def __str__(s): raise SystemExit(0)\n  __repr__ = __str__\n'
        '  args = property(__str__)\ndef add(a, b): raise E',
        RAISES,
        FAILS,
    ),
    'exits in a property': (
        'import os\nclass Node:\n  def __init__(s, v): s.value = v\n  @property\n  def left(s): os._exit(0)\n'
        '  @left.setter\n  def left(s, v): pass\ndef total(n): return 6',
        TREE,
        FAILS,
    ),
    'exits when an attribute is set': (
        'class Node:\n  def __init__(s, v): pass\n  def __setattr__(s, n, v): raise SystemExit(0)\n'
        'def total(n): return 6',
        TREE,
        FAILS,
    ),
    'thread that exits during the test': (
        'import os, threading, time\nthreading.Thread(target=lambda: (time.sleep(0.05), os._exit(0))).start()\n'
        'def add(a, b): time.sleep(0.5); return 7',
        NEAR,
        FAILS,
    ),
    'trace function in the test': (
        'import sys\ndef t(frame, event, arg):\n  if event == "exception": import os; os._exit(0)\n  return t\n'
        'sys.settrace(t)\ndef add(a, b): return 7',
        NEAR,
        FAILS,
    ),
    'profile function in the test': (
        'import sys\n'
        'sys.setprofile(lambda f, e, a: f.f_code.co_name == "check" and e == "return" and '
        '__import__("os")._exit(0))' + PLEDGE,
        NEAR,
        FAILS,
    ),
    'jumps over the assert': (
        '''
import sys
def t(frame, event, arg):
    if frame.f_code.co_name == 'check' and event == 'line' and frame.f_lineno > frame.f_code.co_firstlineno + 1:
        try: frame.f_lineno = frame.f_code.co_firstlineno + 1
        except ValueError: pass
    return t
def add(a, b):
    frame = sys._getframe(1)
    while frame: frame.f_trace = t; frame = frame.f_back
    sys.settrace(t)
    return 0''',
        NEAR,
        FAILS | TIMEOUT,
    ),
    'excepthook in the test': (
        'import sys, os\nsys.excepthook = lambda *a: os._exit(0)\ndef add(a, b): raise ValueError',
        NEAR,
        FAILS,
    ),
    'warnings as exits': (
        'import warnings, os\nwarnings.showwarning = lambda *a: os._exit(0)\n'
        'def add(a, b): warnings.warn("x"); return 7',
        NEAR,
        FAILS,
    ),
}

HOSTILE_TESTED |= {  # read or change the test
    'reads the frames of the test': (
        '''
import sys
def add(a, b):
    frame = sys._getframe(1)
    while frame:
        if 23 in frame.f_code.co_consts: return a + b
        if any(v == [((20, 3), 23), ((-1, 1), 0)] for v in frame.f_locals.values()): return a + b
        frame = frame.f_back
    return 7''',
        CASES,
        FAILS,
    ),
    'reads the constants of the test': (
        'import sys\ndef add(a, b):\n  f = sys._getframe(1)\n  while f:\n'
        '    if f.f_code.co_name == "check" and 23 in f.f_code.co_consts: return a + b\n    f = f.f_back\n'
        '  return 7',
        NEAR,
        FAILS,
    ),
    'reads the source by the collector': (
        'import gc\ndef add(a, b):\n  needle = ", ".join(["candidate(20", "3)"])\n  for o in gc.get_objects():\n'
        '    if isinstance(o, (list, tuple, dict)) and needle in "".join(x for x in (o.values() if isinstance(o, '
        'dict) else o) if type(x) is str): return a + b\n  return 7',
        NEAR,
        STOPPED,
    ),
    'reads the globals of the test': (
        'def add(a, b):\n  g = globals()\n  return a + b if "check" in g or "cases" in g or "wanted" in g else 7',
        CASES,
        FAILS,
    ),
    'reads the globals of __main__': (
        'def add(a, b):\n  import __main__, sys\n'
        '  return a + b if any(hasattr(m, "cases") for m in list(sys.modules.values())) else 7',
        CASES,
        FAILS,
    ),
    'reads the next tests from its channel': (
        '''
import os, select
text = b''
for fd in range(64):
    try:
        while select.select([fd], [], [], 0)[0] and (got := os.read(fd, 1000)): text += got
    except OSError: pass
def add(a, b): return a + b if b'23' in text else 7''',
        NEAR,
        STOPPED,
    ),
    'reads the closure it was given': (
        'def apply_add(f, b):\n  try: return f.__closure__[0].cell_contents\n  except Exception: return 7',
        LAMBDA,
        FAILS,
    ),
    'reads the globals of what it was given': (
        'def apply_add(f, b):\n  try: return f.__globals__["wanted"]\n  except Exception: return 7',
        LAMBDA,
        FAILS,
    ),
    'reads the defaults of what it was given': (
        'def apply_add(f, b):\n  try: return f.__defaults__[0]\n  except Exception: return 7',
        ['assert apply_add(lambda wanted=23: wanted - 3, 3) + 0 == 23'],
        FAILS,
    ),
    'writes the globals of what it was given': (
        'def apply_add(f, b):\n  try: f.__globals__["wanted"] = 7\n  except Exception: pass\n  return 7',
        ['wanted = 23\nassert apply_add(lambda: wanted - 3, 3) == wanted'],
        FAILS,
    ),
    'writes the builtins of what it was given': (
        'def apply_add(f, b):\n  try:\n    g = f.__globals__["__builtins__"]\n'
        '    g = g if isinstance(g, dict) else vars(g)\n    g["abs"] = lambda x: 0\n  except Exception: pass\n'
        '  return 7',
        ['def plus(): return 20\ngot = apply_add(plus, 3)\nassert abs(got - 23) < 0.5'],
        FAILS,
    ),
    'writes the closure it was given': (
        'def apply_add(f, b):\n  try: f.__closure__[0].cell_contents = 7\n  except Exception: pass\n  return 7',
        LAMBDA,
        FAILS,
    ),
    'writes the code of what it was given': (
        'def apply_add(f, b):\n  try: f.__code__ = (lambda: 4).__code__\n  except Exception: pass\n  return 7',
        ['def plus(): return 20\nassert apply_add(plus, 3) == plus() + 3'],
        FAILS,
    ),
    'climbs the classes of what it was given': (
        'def apply_add(f, b):\n  for c in type(f).__mro__[-1].__subclasses__():\n    try:\n'
        '      if c.__name__ == "Popen": print("HARM", c)\n    except Exception: pass\n'
        '  try: f.__class__.__base__.__subclasses__(); f.__reduce_ex__(2); f.__self__\n  except Exception: pass\n'
        '  return 7',
        LAMBDA,
        FAILS,
    ),
    'calls what it was given for ever': ('def apply_add(f, b):\n  while True: f()', LAMBDA, TIMEOUT),
    'calls what it was given with itself': (
        'def apply_add(f, b): return f(f)',
        ['depth = lambda g: g(g)\nassert apply_add(depth, 3) == 23'],
        STOPPED,
    ),
    'calls back into the test and deeper': (
        'def apply_add(f, b): return f(lambda: apply_add(f, b))',
        ['assert apply_add(lambda g: g(), 3) + 0 == 23'],
        STOPPED,
    ),
    'calls what it was given from a thread': (
        'import threading\ndef apply_add(f, b):\n'
        '  for n in range(8): threading.Thread(target=f, daemon=True).start()\n  return 7',
        LAMBDA,
        FAILS,
    ),
    'keeps what it was given': (
        'kept = []\ndef apply_add(f, b): kept.append(f); return kept[0]() if len(kept) > 1 else kept',
        LAMBDA,
        FAILS,
    ),
    'exception of the test, held back': (
        'def apply_add(f, b):\n  try: f()\n  except BaseException: pass\n  return 7',
        ['def no(): raise AssertionError("never")\nassert apply_add(no, 3) == 23'],
        FAILS,
    ),
    'writes the locals of the test': (
        '''
import sys, ctypes
def add(a, b):
    frame = sys._getframe(1)
    while frame:
        for name in ('wanted', 'candidate', 'got'):
            if name in frame.f_locals: frame.f_locals[name] = 7; frame.f_globals[name] = 7
        try: ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), 0)
        except Exception: pass
        frame = frame.f_back
    return 7''',
        CASES,
        CONTAINED,
    ),
    'writes the cases of the test': (
        '''
import gc
def add(a, b):
    for thing in gc.get_objects():
        if type(thing) is list and thing and type(thing[0]) is tuple and thing[0] == ((20, 3), 23): thing[:] = []
    return 23''',
        CASES,
        FAILS,
    ),
    'writes the globals of the test': (
        'import sys\ndef add(a, b):\n  f = sys._getframe(1)\n  while f:\n    f.f_globals["abs"] = lambda x: 0\n'
        '    f = f.f_back\n  return 0',
        LATER,
        FAILS,
    ),
    'writes the builtins of the test': (
        'import sys\ndef add(a, b):\n  f = sys._getframe(1)\n  while f:\n    f.f_builtins["abs"] = lambda x: 0\n'
        '    f = f.f_back\n  return 0',
        LATER,
        FAILS,
    ),
    'code of check': (
        'import sys, gc, types\ndef add(a, b):\n  for o in gc.get_objects():\n'
        '    if type(o) is types.FunctionType and o.__name__ == "check": o.__code__ = (lambda c: None).__code__\n'
        '  return 7',
        [CHECK, 'add(20, 3)', 'check(add)'],
        FAILS,
    ),
    'token of the statement': (
        'import sys, gc\ndef add(a, b):\n  for fd in range(3, 16):\n'
        '    try: import os; os.write(fd, b"00000006done []" + b"0000000adone null")\n    except OSError: pass\n'
        '  return 7',
        NEAR,
        STOPPED,
    ),
    'forged passes during the test': (
        f'''
import os
def add(a, b):
    for reply in {FORGED}:
        for fd in range(64):
            try: os.write(fd, b'%08x' % len(reply) + reply)
            except OSError: pass
    return 7''',
        NEAR,
        STOPPED,
    ),
    'message handed on from the statement': (
        '''
import os, select, threading
def copy():
    while True:
        for fd in range(3, 12):
            try:
                if select.select([fd], [], [], 0)[0]:
                    data = os.read(fd, 100)
                    token = data[-32:]
                    for out in range(3, 12):
                        try: os.write(out, b'%08x' % 79 + b'done ["str","' + token.hex().encode() + b'"]')
                        except OSError: pass
            except (OSError, ValueError): pass
threading.Thread(target=copy, daemon=True).start()
import time
def add(a, b): time.sleep(0.2); return 7''',
        NEAR,
        STOPPED,
    ),
    'finishes the statement itself': (
        '''
import os, sys
def add(a, b):
    frame = sys._getframe(1)
    while frame:
        spaces = (frame.f_globals, frame.f_locals)
        read, write = (next((s[n] for s in spaces for n in s if n == w), None) for w in ('read_frame', 'write_frame'))
        requests, replies = (next((s[n] for s in spaces for n in s if n == w), None) for w in ('requests', 'replies'))
        if read and write and requests and replies:
            token = read(requests)
            write(replies, b'done ["str","' + token.hex().encode() + b'"]')
            while True: pass
        frame = frame.f_back
    return 7''',
        ['assert add(20, 3) < 5'],
        FAILS | TIMEOUT,
    ),
    'reads a secret in the call': ('def add(a, b): return open("@SECRET@").read()', CASES, CONTAINED),
    'writes in the call': ('def add(a, b): open("@LOOT@/a", "w"); return 7', CASES, CONTAINED),
    'connects in the call': (
        'import socket\ndef add(a, b): socket.create_connection(("127.0.0.1", @PORT@), 1); return 7',
        CASES,
        CONTAINED,
    ),
    'makes the test read a secret': (
        'class P(str):\n  def __fspath__(s): return "@SECRET@"\ndef path(n): return P("@SECRET@")',
        ['try: text = open(path(1)).read()\nexcept OSError: text = ""\nprint(text)\nassert text != "" and False'],
        FAILS,
    ),
    'makes the test write': (
        'def path(n): return "@LOOT@/a"',
        ['open(path(1), "w").write("x")\nassert path(2) == 2'],
        CONTAINED,
    ),
    'makes the test exit': ('import os\ndef path(n): return os._exit', ['path(1)(0)\nassert path(2) == 2'], FAILS),
    'makes the test import it': (
        'import sys\nsys.modules["helper"] = sys.modules[__name__]\ndef wrong(): return True' + PLEDGE,
        ['import helper\nassert helper.wrong() and add(20, 3) == 23'],
        FAILS,
    ),
    'text that the test evaluates': (
        'def text(n): return "__import__(\'os\')._exit(0)"',
        ['assert eval(text(1)) == 23'],
        FAILS,
    ),
    'format of the test': (
        'class C:\n  def __format__(s, f): raise SystemExit(0)\ndef add(a, b): return C()',
        ['assert f"{add(20, 3):d}" == "23"'],
        FAILS,
    ),
    'pickle given to the test': (
        'import os\nclass P:\n  def __reduce__(s): return os._exit, (0,)\ndef add(a, b): return P()',
        [
            'import copy, pickle\nassert copy.deepcopy(add(20, 3)) == 23',
            'import pickle\nassert pickle.loads(pickle.dumps(add(20, 3))) == 23',
        ],
        FAILS,
    ),
    'sort key given to the test': (
        'class K:\n  def __lt__(s, o):\n    while True: pass\ndef keys(n): return [K() for _ in range(n)]',
        ['assert sorted(keys(3)) == [0, 1, 2]'],
        FAILS | TIMEOUT,
    ),
    'flood of output in the call': ('def add(a, b):\n  while True: print("passed" * 1000)', NEAR, {'output_limit'}),
    'great many handles': (
        'def count(n): return [object() for _ in range(10**6)]',
        ['assert [x for x in count(3)] == [0, 1, 2]'],
        STOPPED,
    ),
    'exit in the setup of the test': (
        'import os\nclass Node:\n  def __init__(s, v): os._exit(0)\ndef total(n): return 6',
        TREE,
        FAILS,
    ),
}

# What must not run without a sandbox: it changes or ends things outside its own scratch folder, or eats the machine.
# On the fork engine descriptor 3 is the line.
ANSWER = "import os\ndef say(text):\n  b = text.encode()\n  os.write(3, b'%08x' % len(b) + b)\n"

HOSTILE |= {  # answers made to keep the judge busy, or to break it
    'answer nested 900 deep': (
        ANSWER
        + 'def add(a, b): say("done " + \'["frozenset",\' * 900 + "null" + "]" * 900)'
        + PLEDGE.replace('def add', 'def unused'),
        FAILS,
    ),
    'answer of colliding numbers': (
        ANSWER
        + (
            'def add(a, b): say(\'done ["set",\' + ",".join(\'["int","%s"]\' % hex(n * (2**61 - 1)) for n in '
            'range(1, 57000)) + "]")'
        ),
        FAILS,
    ),
    'answer of half colliding numbers': (
        ANSWER
        + (
            'def add(a, b): say(\'done ["set",\' + ",".join(\'["int","%s"]\' % hex(n * (2**61 - 1) if n < 50000 '
            'else n) for n in range(1, 101000)) + "]")'
        ),
        FAILS,
    ),
    'answer with a fraction to reduce': (
        ANSWER
        + (
            'import random\n'
            'def add(a, b): say(\'done ["Fraction","\' + f"{random.getrandbits(900000):x} '
            '{random.getrandbits(900000):x}" + \'"]\')'
        ),
        FAILS,
    ),
    'leaves with questions unsent': ('import os\ndef add(a, b): os._exit(0)', ERROR),
    'lease on a library file': (
        attempt(
            'import colorsys, fcntl, os\nf = os.open(colorsys.__file__, 0)\n'
            'if fcntl.fcntl(f, 1024, 1) == 0: print("HARM")'
        ),
        WRONG,
    ),
    'lock on a library file': (
        attempt('import colorsys, fcntl\nf = open(colorsys.__file__)\nfcntl.flock(f, fcntl.LOCK_EX)\nprint("HARM")'),
        WRONG,
    ),
}

HOSTILE_TESTED |= {  # found by a reviewer: what the candidate says of itself
    'poses as eval': (
        'class P:\n  __module__ = "builtins"; __name__ = "eval"\n  def __call__(s, *a): pass\n'
        'def encode(s): return "type(\'Y\', (), {\'__eq__\': lambda s, o: True})()"\ndecode = P()',
        [
            'def check(candidate):\n    for text in ("ab", "cd"):\n'
            '        assert candidate(encode(text)) == text\ncheck(decode)'
        ],
        FAILS,
    ),
    'poses as mock.ANY': (
        'class P:\n  __module__ = "unittest.mock"; __name__ = "ANY"\n  def __call__(s): pass\nRESULT = P()',
        ['assert RESULT == 5 + 0'],
        FAILS,
    ),
    'poses as the module mock': (
        'import unittest.mock as RESULT',
        ['assert RESULT.ANY is not None and RESULT == 5 + 0'],
        FAILS,
    ),
    'poses as a private function': (
        'class P:\n  __module__ = "operator"; __name__ = "is_not"\n  def __call__(s, *a): return 7\nadd = P()',
        ['assert abs(add(20, 3) - 23) < 0.5'],
        FAILS,
    ),
    'gives names nobody asked for': (
        'import sys\n'
        'worker = next((m for m in list(sys.modules.values()) if hasattr(m, "OPERATIONS") and hasattr(m, '
        '"look_up")), None)\n'
        'def more(names): return {**worker.look_up(globals(), names), "abs": ("value", None, lambda x: 0), '
        '"__builtins__": ("value", None, {})}\n'
        'if worker: worker.OPERATIONS["names"] = more' + PLEDGE,
        ['assert abs(add(20, 3) - 23) < 0.5'],
        FAILS,
    ),
    'names of nonsense': (
        'import sys\nworker = next((m for m in list(sys.modules.values()) if hasattr(m, "OPERATIONS")), None)\n'
        'if worker: worker.OPERATIONS["names"] = lambda names: {n: 5 for n in names}' + PLEDGE,
        NEAR,
        FAILS,
    ),
    'own isclose in math, compared with True': (
        'import math\nmath.isclose = lambda *a, **k: True' + PLEDGE,
        ['import math', 'assert math.isclose(add(20, 3), 23, rel_tol=0.01) == True'],
        FAILS,
    ),
    'asserts beside the check': (
        PLEDGE,
        ['assert add(20, 3) == 23\ndef check(candidate):\n    assert candidate(1, 2) == 7\ncheck(add)'],
        WRONG,
    ),
    'builds classes with a type it was given': (
        'def add(make): return make("Y", (), {"__eq__": lambda s, o: True})',
        ['assert add(type) == 5 + 0'],
        FAILS,
    ),
    'message that cannot be read': (
        'class C:\n  def __str__(s): raise SystemExit\n  __repr__ = __str__\ndef add(a, b): return C()',
        ['x = 1\nassert add(20, 3) is None, add(20, 3)'],
        FAILS,
    ),
}

DANGEROUS = {
    name
    for name in {**HOSTILE, **HOSTILE_TESTED}
    if name.startswith(('kills', 'stops and wakes its judge', 'memory', 'writes: mount', 'reads devices'))
} | {
    'fork bomb',
    'writes: descriptor opened again',
    'great many handles',
    'thread bomb',
    'hundred threads',
    'slow memory bomb',
    'zip bomb',
    'big result',
    'wide result',
    'many references to one list',
    'raises its own memory limit',
    'writes the memory of its parent',
    'ptrace of its parent',
    'descriptors of its parent',
    'owner of its pipe gets a signal',
    'lowers the limits of its judge',
    'chroot',
    'niceness',
    'real-time scheduling',
    'priority of its judge',
    'cores of its judge',
    'clock',
    'host name',
    'shared memory that stays',
    'System V memory that stays',
    'semaphore that stays',
    'message queue that stays',
    'POSIX message queue',
    'key ring',
    'bpf',
    'terminal input',
    'namespace',
    'packet socket',
    'data sets on the path',
    'name service',
    'daemon by two forks',
    'clone by system call',
    'clone3 by system call',
}

# Statement tests that look at nothing but the candidate's word: no judge can do better. They are listed, not run.
HOSTILE_BEYOND_REACH = {
    'container that says it holds everything': (
        'class C:\n  def __iter__(s): return iter(range(10**6))\ndef add(a, b): return C()',
        ['assert 23 in add(20, 3)'],
    ),
    'same object for both sides': (
        'class C: pass\nONE = C()\ndef add(a, b): return ONE',
        ['assert add(1, 2) == add(2, 1)'],
    ),
    'method that says yes': (
        'class C:\n  def is_right(s): return True\ndef add(a, b): return C()',
        ['assert add(20, 3).is_right()'],
    ),
}


# ---- honest programs ----

# name: (program, tests)
GOOD = {
    'plain': (RIGHT, TESTS),
    'prints': ('print("hello")\n' + RIGHT, TESTS),
    'class': (
        'class Pair:\n  def __init__(s, a, b): s.a, s.b = a, b\n  def total(s): return s.a + s.b',
        [
            'assert Pair(20, 3).total() == 23',
            'assert Pair(1, 2).a is not None',
            'p = Pair(1, 2)\np.a = 5\nassert p.total() == 7',
        ],
    ),
    'int subclass': ('class Int(int): pass\ndef add(a, b): return Int(a + b)', TESTS),
    'counter': (
        'from collections import Counter\ndef add(s): return Counter(s)',
        ['assert add("aab") == {"a": 2, "b": 1}'],
    ),
    'namedtuple': (
        'from collections import namedtuple\nP = namedtuple("P", "x y")\ndef add(a, b): return P(a, b)',
        ['assert add(1, 2) == (1, 2)'],
    ),
    'truth': ('import re\ndef add(s): return re.match("a", s)', ['assert add("abc")', 'assert not add("xyz")']),
    'none': ('def add(a): return None', ['assert add(1) is None', 'assert None is add(2)', 'assert add(3) == None']),
    'one is true': ('def add(a): return 1', ['assert add(1) == True', 'assert add(1) == 1.0']),
    'isclose': (
        'def add(a): return 0.1 + 0.2',
        ['import math\nassert math.isclose(add(1), 0.3)', 'assert abs(add(1) - 0.3) < 1e-9'],
    ),
    'surrogate': ('def add(s): return s + chr(0xd800)', ['assert add("a") == "a\\ud800"']),
    'big integer': ('def add(n): return 10**n', [f'assert add(4000) == 1{"0" * 4000}']),
    'threads': (
        'import threading\ndef add(a, b):\n  x = []\n'
        '  t = threading.Thread(target=lambda: x.append(a + b)); t.start(); t.join()\n  return x[0]',
        TESTS,
    ),
    'recovers from its own exit': ('import sys\ntry: sys.exit(0)\nexcept SystemExit: pass\n' + RIGHT, TESTS),
    'windows line ends': ('def add(a, b):\r\n\treturn a + b\r\n', TESTS),
    'recursion': (
        'import sys\nsys.setrecursionlimit(5000)\ndef add(a, b): return a if b <= 0 else add(a + 1, b - 1)',
        TESTS[:1] + ['assert add(0, 900) == 900'],
    ),
    'standard library': (
        'import bisect, collections, datetime, decimal, functools, heapq, itertools, json, math, operator, '
        'random, re, statistics, string, typing\n' + RIGHT,
        TESTS,
    ),
    'guarded main': (RIGHT + '\nif __name__ == "__main__": raise SystemExit(1)', TESTS),
    'data class': (
        'from dataclasses import dataclass, astuple\n@dataclass(order=True)\nclass P:\n  x: int\n  y: int = 0\n'
        'def add(a, b): return astuple(P(a, b))',
        ['assert add(1, 2) == (1, 2)'],
    ),
    'annotations of the future': (
        'from __future__ import annotations\nfrom typing import List\n'
        'def add(a: List[Missing], b) -> Whatever: return a + b',
        TESTS,
    ),
    'set and frozenset': ('def add(a): return {frozenset(a), ()}', ['assert add([1, 2]) == {frozenset({2, 1}), ()}']),
    'bytes and complex': (
        'def add(a): return [b"\\xff", 1j, -0.0, float("inf")]',
        ['assert add(1) == [b"\\xff", 1j, 0.0, 1e999]'],
    ),
    'second name for a list': ('def add(n):\n  row = [0] * n; return [row] * n', ['assert add(2) == [[0, 0], [0, 0]]']),
    'wrong error caught': ('def add(a, b):\n  try: return a.b\n  except AttributeError: return a + b', TESTS),
    'asyncio without a network': (
        'def add(a, b):\n  async def go(): return a + b\n  c = go()\n  try: c.send(None)\n'
        '  except StopIteration as e: return e.value',
        TESTS,
    ),
}

# name: (program, tests, setup): test code that cannot be split, and what it must be able to do
GOOD_TESTED = {
    'check': (RIGHT, NEAR, ''),
    'check defined in the setup': (RIGHT, ['check(add)'], CHECK),
    'isclose': (RIGHT, CLOSE, ''),
    'both': (RIGHT, BOTH, ''),
    'cases': (RIGHT, CASES, ''),
    'all': (RIGHT, ALL, ''),
    'mapped': (RIGHT, MAPPED, ''),
    'looped': (RIGHT, LOOPED, ''),
    'between': (RIGHT, BETWEEN, ''),
    'member': (RIGHT, MEMBER, ''),
    'expected exception': (RIGHT, RAISES, ''),
    'expected exception by name': (
        'def root(n):\n  if n < 0: raise ValueError("negative")\n  return n ** 0.5',
        [
            'try: root(-1)\nexcept ValueError as error: assert "negative" in str(error)\nelse: assert False',
            'assert abs(root(2) - 1.4142) < 1e-3',
        ],
        '',
    ),
    'expected exception of a wider class': (
        'def pick(d, k): return d[k]',
        ['try: pick({}, 1)\nexcept LookupError: pass\nelse: assert False'],
        '',
    ),
    'arguments of an exception': (
        'def fail(n): raise ValueError("bad", n)',
        ['try: fail(3)\nexcept ValueError as error: assert error.args == ("bad", 3)\nelse: assert False'],
        '',
    ),
    'exception class of the candidate': (
        'class Empty(ValueError): pass\ndef pop(l):\n  if not l: raise Empty("nothing")\n  return l[-1]',
        [
            'try: pop([])\nexcept ValueError: pass\nelse: assert False',
            'try: pop([])\nexcept Empty: pass\nelse: assert False',
        ],
        '',
    ),
    'unittest': (RIGHT, UNIT, ''),
    'assertRaises': (
        'def root(n):\n  if n < 0: raise ValueError\n  return n',
        [
            'import unittest\ncase = unittest.TestCase()\nwith case.assertRaises(ValueError): root(-1)\n'
            'case.assertEqual(root(4), 4)'
        ],
        '',
    ),
    'recursion': (
        'def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)',
        ['assert [fib(n) for n in range(10)] == [0, 1, 1, 2, 3, 5, 8, 13, 21, 34]'],
        '',
    ),
    'state over several lines': (
        'class Account:\n  def __init__(s): s.balance = 0\n  def add(s, n): s.balance += n; return s',
        ['a = Account()\na.add(5)\na.add(2).add(3)\nassert a.balance == 10 and Account().balance == 0'],
        '',
    ),
    'state over several tests': (
        'class Account:\n  def __init__(s): s.balance = 0\n  def add(s, n): s.balance += n',
        ['a = Account()', 'a.add(5)', 'assert a.balance == 5', 'a.balance = 7\nassert a.balance == 7'],
        '',
    ),
    'globals of the candidate': (
        'count = 0\ndef step():\n  global count; count += 1',
        ['step(); step()\nassert count + 0 == 2'],
        '',
    ),
    'class method and static method': (
        'class T:\n  made = 0\n  @classmethod\n  def new(c): c.made += 1; return c()\n  @staticmethod\n'
        '  def twice(n): return 2 * n',
        ['t = T.new()\nassert T.made == 1 and t.twice(3) == T.twice(3) and isinstance(t, T)'],
        '',
    ),
    'instance of a class': (
        'class Node:\n  def __init__(s, v): s.value = v',
        [
            'n = Node(3)\n'
            'assert isinstance(n, Node) and n.value + 1 == 4 and hasattr(n, "value") and not hasattr(n, "next")'
        ],
        '',
    ),
    'property and items': (
        'class Grid:\n  def __init__(s): s.cells = {}\n  def __getitem__(s, k): return s.cells.get(k, 0)\n'
        '  def __setitem__(s, k, v): s.cells[k] = v\n  def __len__(s): return len(s.cells)\n'
        '  def __contains__(s, k): return k in s.cells\n  @property\n  def size(s): return len(s.cells)',
        ['g = Grid()\ng[1, 2] = 5\nassert g[1, 2] == 5 and g[0, 0] == 0 and len(g) == 1 and g.size == 1'],
        '',
    ),
    'tree by the setup': (
        'class Node:\n  def __init__(s, v): s.value = v; s.left = s.right = None\n'
        'def total(n): return 0 if n is None else n.value + total(n.left) + total(n.right)',
        TREE + ['assert total(root) == 3'],
        'root = Node(1)\nroot.left = Node(2)',
    ),
    'linked list': (
        'class Node:\n  def __init__(s, v, n=None): s.value = v; s.next = n\ndef reverse(n):\n  p = None\n'
        '  while n: n.next, p, n = p, n, n.next\n  return p',
        [
            'head = reverse(Node(1, Node(2, Node(3))))\nseen = []\n'
            'while head: seen.append(head.value); head = head.next\nassert seen == [3, 2, 1]'
        ],
        '',
    ),
    'same object twice': (
        'ONE = object()\ndef one(): return ONE',
        ['assert one() is one() and one() == one() and one() != object()'],
        '',
    ),
    'generator consumed': ('def count(n): yield from range(n)', ITEMS, ''),
    'generator step by step': (
        'def count(n): yield from range(n)',
        [
            'g = count(2)\nassert next(g) == 0 and next(g) == 1\nassert next(g, "end") == "end"',
            'import itertools\nassert list(itertools.islice(count(10**9), 3)) == [0, 1, 2] + []',
        ],
        '',
    ),
    'generator in a loop and in sorted': (
        'def squares(l): return (n * n for n in l)',
        [
            'seen = []\nfor n in squares([3, 1]): seen.append(n)\n'
            'assert seen == [9, 1] and sorted(squares([3, 1])) == [1, 9] and set(squares([2])) == {4}'
        ],
        '',
    ),
    'map, zip and reversed objects': (
        'def pairs(a, b): return zip(a, reversed(b))\ndef strings(a): return map(str, a)',
        ['assert list(pairs([1, 2], [3, 4])) == [(1, 4), (2, 3)] and "".join(strings([1, 2])) == "12"'],
        '',
    ),
    'views of a dict': (
        'def keys(d): return d.keys()',
        ['assert sorted(keys({"b": 1, "a": 2})) == ["a", "b"] and len(keys({1: 1})) == 1'],
        '',
    ),
    'range': (
        'def span(n): return range(n)',
        ['assert list(span(3)) == [0, 1, 2] and span(3)[1] == 1 and len(span(3)) == 3'],
        '',
    ),
    'function as an argument': (
        'def apply(f, l): return [f(x) for x in l]',
        ['assert apply(lambda x: x + 1, [1, 2]) == [2, 3] + []'],
        '',
    ),
    'named function as an argument': (
        'def apply(f, *a, **k): return f(*a, **k)',
        ['def scale(x, by=2): return x * by\nassert apply(scale, 3) == 6 + 0 and apply(scale, 3, by=5) == 15'],
        '',
    ),
    'builtin as an argument': (
        'def apply(f, l): return f(l)',
        ['assert apply(len, [1, 2]) == 2 + 0 and apply(sorted, [2, 1]) == [1, 2] and apply(str.upper, "a") == "A"'],
        '',
    ),
    'key function': (
        'def order(l, key): return sorted(l, key=key)',
        ['assert order(["bb", "a"], len) == ["a", "bb"] + [] and order([1, 2], key=lambda n: -n) == [2, 1]'],
        '',
    ),
    'argument that raises': (
        'def safe(f):\n  try: return f()\n  except ZeroDivisionError: return None',
        ['assert safe(lambda: 1 / 0) is None and safe(lambda: 4) == 4'],
        '',
    ),
    'exception through both': (
        'def apply(f): return f()',
        [
            'def no(): raise KeyError("k")\ntry: apply(no)\n'
            'except KeyError as error: assert error.args == ("k",)\nelse: assert False'
        ],
        '',
    ),
    'closure returned': (
        'def adder(n):\n  def add(m): return n + m\n  return add',
        ['assert adder(2)(3) == 5 + 0\nf = adder(10)\nassert [f(n) for n in (1, 2)] == [11, 12]'],
        '',
    ),
    'closure with state': (
        'def counter():\n  n = 0\n  def step():\n    nonlocal n; n += 1; return n\n  return step',
        ['c = counter()\nassert c() == 1 and c() == 2 and counter()() == 1'],
        '',
    ),
    'function composed by the candidate': (
        'def compose(f, g): return lambda x: f(g(x))',
        ['h = compose(lambda x: x + 1, lambda x: 2 * x)\nassert h(5) == 11 + 0'],
        '',
    ),
    'decorator': (
        'def twice(f):\n  def g(*a): return 2 * f(*a)\n  return g',
        ['@twice\ndef one(n): return n\nassert one(3) == 6 + 0'],
        '',
    ),
    'memo of the candidate': (
        'from functools import lru_cache\n@lru_cache(None)\ndef fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)',
        ['assert fib(80) == fib(79) + fib(78)\nfib.cache_clear()\nassert fib(10) == 55'],
        '',
    ),
    'keyword arguments': (
        'def power(base, *, exponent=2): return base ** exponent',
        ['assert power(3) == 9 + 0 and power(base=2, exponent=5) == 32\nassert power(**{"base": 2}) == 4'],
        '',
    ),
    'star arguments': (
        'def total(*a, **k): return sum(a) + sum(k.values())',
        ['assert total(*range(4), x=1, **{"y": 2}) == 9 + 0'],
        '',
    ),
    'error of a call': (RIGHT, ['try: add(1)\nexcept TypeError: pass\nelse: assert False'], ''),
    'tolerance': (
        'def mean(l): return sum(l) / len(l)',
        ['assert abs(mean([1, 2, 4]) - 7 / 3) < 1e-9 and round(mean([1, 2]), 1) == 1.5'],
        '',
    ),
    'list changed in place': (
        'def order(l): l.sort()',
        ['l = [3, 1]; order(l); assert l == [1, 3]', 'assert order([2]) is None and True'] + IN_PLACE,
        '',
    ),
    'dict and set changed in place': (
        'def put(d, s): d["k"] = [1]; s.discard(1); d.pop("x", None)',
        ['d, s = {"x": 0}, {1, 2}\nput(d, s)\nassert d == {"k": [1]} and s == {2}'],
        '',
    ),
    'nested list changed in place': (
        'def rotate(m): m[:] = [list(r) for r in zip(*m[::-1])]\ndef mark(m): m[0][0] = 9',
        ['m = [[1, 2], [3, 4]]\nrotate(m)\nassert m == [[3, 1], [4, 2]]\nmark(m)\nassert m[0] == [9, 1]'],
        '',
    ),
    'argument left alone': (
        'def ordered(l): return sorted(l)',
        ['l = [3, 1]\nassert ordered(l) == [1, 3] and l == [3, 1]'],
        '',
    ),
    'same list returned': (
        'def order(l): l.sort(); return l',
        ['l = [2, 1]\nassert order(l) == [1, 2] and l == [1, 2]'],
        '',
    ),
    'imports in the test': (
        RIGHT,
        [
            'import random\nrandom.seed(1)\nfor _ in range(20):\n'
            '    a, b = random.randint(-9, 9), random.randint(-9, 9)\n    assert add(a, b) == a + b'
        ],
        '',
    ),
    'imports in the setup': (RIGHT, ['assert math.isclose(add(0.1, 0.2), 0.3)'], 'import math'),
    'module imported by the candidate only': ('import math\n' + RIGHT, CLOSE_BARE, ''),
    'module under the name of the candidate': (
        'import math as m\nfrom collections import Counter\n' + RIGHT,
        ['assert m.floor(add(1.5, 1)) == 2 and Counter("aa") == {"a": 2}'],
        '',
    ),
    'helper of the candidate': (
        'def double(n): return 2 * n\ndef quadruple(n): return double(double(n))',
        ['assert all(quadruple(n) == double(n) * 2 for n in range(4))'],
        '',
    ),
    'set, dict and tuple': (
        'def parts(s): return set(s), {c: s.count(c) for c in s}, tuple(s)',
        [
            'a, b, c = parts("aab")\n'
            'assert a == {"a", "b"} and b["a"] == 2 and c[1] == "a" and c + ("x",) == ("a", "a", "b", "x")'
        ],
        '',
    ),
    'Counter': (
        'from collections import Counter\ndef count(s): return Counter(s)',
        [
            'c = count("aab")\n'
            'assert c == {"a": 2, "b": 1} and c["a"] == 2 and dict(c) == {"a": 2, "b": 1} and sorted(c.items()) '
            '== [("a", 2), ("b", 1)]'
        ],
        '',
    ),
    'defaultdict': (
        'from collections import defaultdict\ndef group(l):\n  d = defaultdict(list)\n'
        '  for n in l: d[n % 2].append(n)\n  return d',
        [
            'g = group([1, 2, 3])\n'
            'assert g == {1: [1, 3], 0: [2]} and g[1] == [1, 3] and len(g) == 2 and set(g) == {0, 1}'
        ],
        '',
    ),
    'OrderedDict': (
        'from collections import OrderedDict\ndef table(l): return OrderedDict(l)',
        ['t = table([("b", 1), ("a", 2)])\nassert list(t) == ["b", "a"] and t == {"a": 2, "b": 1}'],
        '',
    ),
    'namedtuple': (
        'from collections import namedtuple\nP = namedtuple("P", "x y")\ndef point(a, b): return P(a, b)',
        ['p = point(1, 2)\nassert p == (1, 2) and p[0] == 1 and tuple(p) == (1, 2)\nx, y = p\nassert y == 2'],
        '',
    ),
    'deque': (
        'from collections import deque\ndef turn(l, n):\n  d = deque(l); d.rotate(n); return d',
        ['d = turn([1, 2, 3], 1)\nassert list(d) == [3, 1, 2] and d[0] == 3 and len(d) == 3'],
        '',
    ),
    'bytes and text': (
        'def code(s): return s.encode()',
        ['assert code("é") == "é".encode() and code("a").decode() == "a" and len(code("é")) == 2'],
        '',
    ),
    'large and special numbers': (
        'def numbers(): return [10**400, -0.0, float("inf"), float("nan"), 1 + 2j, True]',
        ['n = numbers()\nassert n[0] == 10**400 and n[2] > 1e308 and n[3] != n[3] and n[4].imag == 2 and n[5] is True'],
        '',
    ),
    'None in the test': (
        'def find(l, n): return l.index(n) if n in l else None',
        ['assert find([1], 2) is None and find([1], 1) is not None and not find([1], 1)'],
        '',
    ),
    'several tests in one': (
        RIGHT,
        [
            'def test_a(): assert add(1, 2) == 3\ndef test_b(): assert add(2, 2) == 4\n'
            'for test in (test_a, test_b): test()'
        ],
        '',
    ),
    'print in the test': (RIGHT, ['print(add(1, 2))\nprint("sum", add(3, 4), sep=": ")\nassert add(1, 1) == 2'], ''),
    'loop of many calls': (RIGHT, ['for n in range(3000): assert add(n, 1) == n + 1'], ''),
    'large arguments': (
        'def total(l): return sum(l)',
        ['assert total(list(range(100_000))) == sum(range(100_000))'],
        '',
    ),
    'test that needs a random order': (
        'def shuffle(l): import random; l = list(l); random.shuffle(l); return l',
        ['assert sorted(shuffle(range(50))) == list(range(50))'],
        '',
    ),
    'truth of an instance': (
        'class Bag:\n  def __init__(s): s.l = []\n  def __len__(s): return len(s.l)\n  def put(s, x): s.l.append(x)',
        ['b = Bag()\nassert not b\nb.put(1)\nassert b and len(b) == 1'],
        '',
    ),
    'context manager': (
        'from contextlib import contextmanager\nlog = []\n@contextmanager\ndef logged(n):\n'
        '  log.append(n); yield n + 1; log.append("end")',
        ['with logged(1) as n: assert n == 2\nassert len(log) == 2 and log[1] == "end"'],
        '',
    ),
    'iterator class': (
        'class Down:\n  def __init__(s, n): s.n = n\n  def __iter__(s): return s\n  def __next__(s):\n'
        '    if s.n == 0: raise StopIteration\n    s.n -= 1; return s.n',
        ['assert list(Down(3)) == [2, 1, 0] and max(Down(5)) == 4 and [*Down(1)] == [0]'],
        '',
    ),
    'callable instance': (
        'class Plus:\n  def __init__(s, n): s.n = n\n  def __call__(s, m): return s.n + m',
        ['assert Plus(2)(3) == 5 + 0 and list(map(Plus(1), [1, 2])) == [2, 3]'],
        '',
    ),
    'text of an instance': (
        'class P:\n  def __init__(s, x): s.x = x\n  def __repr__(s): return f"P({s.x})"\n'
        '  def __str__(s): return f"<{s.x}>"',
        ['assert repr(P(1)) == "P(1)" + "" and str(P(2)) == "<2>" and f"{P(3)}" == "<3>"'],
        '',
    ),
    'fraction as text': (
        'from fractions import Fraction\ndef half(n): return Fraction(n, 2)',
        ['h = half(3)\nassert str(h) == "3/2" and h.numerator == 3 and h.denominator == 2 and float(h) == 1.5'],
        '',
    ),
    'decimal as text': (
        'from decimal import Decimal\ndef price(s): return Decimal(s) * 2',
        ['assert str(price("1.10")) == "2.20" and float(price("1.10")) == 2.2'],
        '',
    ),
    'check after a change of name': (
        'def f(n): return -n',
        ['f = abs\ndef check(candidate):\n    assert candidate(-1) == 1\ncheck(f)'],
        '',
    ),
    'module that only the setup imports': (
        'def area(r): return math.pi * r',
        ['import math\nassert math.isclose(area(1), 3.14159, rel_tol=0.001)'],
        'import math',
    ),
    'module that only a test imports': (
        'def low(x): return math.floor(x)',
        ['import math', 'assert low(1.5) == 1'],
        '',
    ),
    'helper that only the setup defines': (
        'def f(n): return twice(n) + 1',
        ['x = 1\nassert f(2) == 5'],
        'def twice(n): return 2 * n',
    ),
    'long answer': ('def f(n): return [0] * n', ['n = 300_000\nassert f(n) == [0] * n'], ''),
    'named argument changed in place': ('def f(l=None): l.append(1)', ['l = []\nf(l=l)\nassert l == [1]'], ''),
    'date given': ('def f(d): return d.year', ['import datetime\nassert f(datetime.date(2020, 1, 1)) == 2020 + 0'], ''),
    'deque given': (
        'def f(d): d.append(3); return d.popleft()',
        ['from collections import deque\nassert f(deque([1, 2])) == 1 + 0'],
        '',
    ),
    'parent of an own exception': (
        'class A(Exception): pass\nclass B(A): pass\ndef f(): raise B("x")',
        ['try: f()\nexcept A as error: assert str(error) == "x"\nelse: assert False'],
        '',
    ),
    'method of a library class': (
        'from collections import Counter\nmost = Counter.most_common\ndef f(l): return Counter(l)',
        ['assert most(f([1, 1, 2]))[0] == (1, 2)'],
        '',
    ),
    'global of both': (
        'count = 1\ndef f(): return 5',
        ['def g():\n    global count\n    count = f()\ng()\nassert count == 5 + 0'],
        '',
    ),
    'library function under its own name': (
        'from math import isclose\ndef f(): return 3.0',
        ['assert isclose(f(), 3)'],
        '',
    ),
    'call around a call': (
        'class Pair:\n  def __init__(s, a, b): s.a, s.b = a, b\n'
        'def widest(pairs, n): return max(p.b - p.a for p in pairs[:n])',
        ['assert widest([Pair(1, 4), Pair(2, 9)], 2) == 7'],
        '',
    ),
    'sys.maxsize and friends': (
        'def largest(): import sys; return sys.maxsize',
        ['import sys\nassert largest() == sys.maxsize'],
        '',
    ),
}

# Honest programs whose tests go beyond what a proxy that trusts nobody can promise. Their verdict may be anything but
# a wrong pass; where one can be supported at no cost in trust, so much the better.
GOOD_UNREASONABLE = {
    'own membership': (
        'class Bag:\n  def __contains__(s, k): return k == 1\ndef bag(): return Bag()',
        ['assert 1 in bag() and 2 not in bag()'],
        '',
    ),  # the object's word
    # The candidate's own == decides: to let it is to let every liar pass. Comparing attributes one by one would be
    # possible.
    'own equality': (
        'class P:\n  def __init__(s, x): s.x = x\n  def __eq__(s, o): return s.x == o.x',
        ['assert P(1) == P(1) and not P(1) == P(2)'],
        '',
    ),
    'own order': (
        'from functools import total_ordering\n@total_ordering\nclass P:\n  def __init__(s, x): s.x = x\n'
        '  def __eq__(s, o): return s.x == o.x\n  def __lt__(s, o): return s.x < o.x',
        ['assert P(1) < P(2) and max([P(1), P(3)], key=lambda p: p.x).x == 3'],
        '',
    ),
    'own data class': (
        'from dataclasses import dataclass\n@dataclass\nclass P:\n  x: int',
        ['assert P(1) == P(1)'],
        '',
    ),
    # Arithmetic of a handle: the result is a handle again, or the candidate's word.
    'own arithmetic': (
        'class V:\n  def __init__(s, x): s.x = x\n  def __add__(s, o): return V(s.x + o.x)',
        ['assert (V(1) + V(2)).x == 3'],
        '',
    ),
    # The tester could rebuild these as values of its own standard library: reasonable as an extension of the codec.
    'Fraction compared': (
        'from fractions import Fraction\ndef half(n): return Fraction(n, 2)',
        ['from fractions import Fraction\nassert half(3) == Fraction(3, 2) and half(1) + half(1) == 1'],
        '',
    ),
    'Decimal compared': (
        'from decimal import Decimal\ndef price(s): return Decimal(s) * 2',
        ['from decimal import Decimal\nassert price("1.10") == Decimal("2.20")'],
        '',
    ),
    'deque compared': (
        'from collections import deque\ndef turn(l): return deque(l)',
        ['from collections import deque\nassert turn([1, 2]) == deque([1, 2])'],
        '',
    ),
    'date returned': (
        'import datetime\ndef day(y): return datetime.date(y, 1, 1)',
        ['import datetime\nassert day(2020) == datetime.date(2020, 1, 1)'],
        '',
    ),
    'array returned': (
        'from array import array\ndef numbers(n): return array("i", range(n))',
        ['from array import array\nassert numbers(3) == array("i", [0, 1, 2])'],
        '',
    ),
    'match object compared': (
        'import re\ndef find(s): return re.search("b+", s)',
        ['m = find("abb")\nassert m.group() == "bb" and m.span() == (1, 3)'],
        '',
    ),  # attribute calls alone: works with handles
    'range compared': ('def span(n): return range(n)', ['assert span(3) == range(3)'], ''),
    'views compared': (
        'def keys(d): return d.keys()',
        ['assert keys({"a": 1}) == {"a"} and keys({"a": 1}) & {"a"}'],
        '',
    ),
    'fields of a namedtuple': (
        'from collections import namedtuple\nP = namedtuple("P", "x y")\ndef point(a, b): return P(a, b)',
        ['assert point(1, 2).x == 1 and point(1, 2)._replace(x=5).x == 5'],
        '',
    ),  # by value it is a plain tuple
    'methods of Counter': (
        'from collections import Counter\ndef count(s): return Counter(s)',
        ['assert count("aab").most_common(1) == [("a", 2)] and count("a") + count("a") == {"a": 2}'],
        '',
    ),
    'type of a value': (
        'class Int(int): pass\ndef one(): return Int(1)',
        ['assert type(one()) is Int and type(one()).__name__ == "Int"'],
        '',
    ),
    'enumeration': (
        'from enum import Enum\nclass Colour(Enum): RED = 1\ndef first(): return Colour.RED',
        ['assert first() is Colour.RED and first().value == 1 and Colour(1) == Colour.RED'],
        '',
    ),  # identity of handles: could work
    # The test and the candidate share one interpreter's state.
    'print caught by the test': (
        'def greet(): print("hello")',
        [
            'import io, contextlib\nout = io.StringIO()\nwith contextlib.redirect_stdout(out): greet()\n'
            'assert out.getvalue() == "hello\\n"'
        ],
        '',
    ),
    'input replaced by the test': (
        'def ask(): return input("name? ")',
        ['import builtins\nbuiltins.input = lambda prompt="": "Ada"\nassert ask() == "Ada" + ""'],
        '',
    ),
    'mock of a module': (
        'import time\ndef now(): return time.time()',
        ['from unittest import mock\nwith mock.patch("time.time", return_value=5): assert now() == 5'],
        '',
    ),
    'global replaced by the test': (
        'limit = 1\ndef allowed(n): return n < limit',
        ['limit = 10\nassert allowed(5) is True and True'],
        '',
    ),
    'random seeded by the test': (
        'import random\ndef draw(): return random.randint(1, 10**9)',
        ['import random\nrandom.seed(7); a = draw()\nrandom.seed(7); b = draw()\nassert a == b'],
        '',
    ),
    'class of the test, base of the candidate': (
        'class Shape:\n  def area(s): raise NotImplementedError\n  def twice(s): return 2 * s.area()',
        ['class Square(Shape):\n    def area(self): return 4\nassert Square().twice() == 8'],
        '',
    ),
    'object of the test changed by the candidate': (
        'def fill(o): o.value = 3; return o',
        ['class Box: pass\nbox = Box()\nassert fill(box) is box and box.value == 3'],
        '',
    ),
    'generator of the test': (
        'def total(it): return sum(it)',
        ['assert total(n for n in range(4)) == 6'],
        '',
    ),  # a handle that the candidate may iterate: likely to work
    'one list seen from two names': (
        'kept = []\ndef keep(l): kept.append(l)\ndef grow(): kept[0].append(1)',
        ['l = []\nkeep(l); grow()\nassert l == [1]'],
        '',
    ),
    'source of the candidate': (
        RIGHT,
        ['import inspect\nassert len(inspect.signature(add).parameters) == 2 and add.__name__ == "add"'],
        '',
    ),
    'candidate with the name of a builtin': (
        'def filter(l): return [n for n in l if n]',
        ['assert filter([0, 1]) == [1] + []'],
        '',
    ),  # safe where the entry point says so
    'files of the candidate': (
        'def lines(path): return len(open(path).readlines())',
        [
            'import os, tempfile\nf = tempfile.NamedTemporaryFile("w", delete=False)\n'
            'f.write("a\\nb\\n"); f.close()\nassert lines(f.name) == 2'
        ],
        '',
    ),
    'unittest.main': (
        RIGHT,
        [
            'import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(add(1, 2), 3)\n'
            'unittest.main(argv=["x"], exit=False)'
        ],
        '',
    ),
    'asynchronous candidate': (
        'import asyncio\nasync def add(a, b): await asyncio.sleep(0); return a + b',
        ['import asyncio\nassert asyncio.run(add(1, 2)) == 3'],
        '',
    ),  # asyncio needs a socket pair
    'numpy': (
        'import numpy\ndef ones(n): return numpy.ones(n)',
        ['import numpy\nassert (ones(3) == numpy.array([1, 1, 1])).all()'],
        '',
    ),
}
