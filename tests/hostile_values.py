"""More programs for judges of programs: what crosses between test and program, and what tests do beside comparing.

Plain data, no imports. `HOSTILE`: wrong programs, which no verdict may call passed. `HONEST`: right programs, which
must pass, or, in `BEYOND`, whose tests two processes cannot judge: `not_supported`, never a wrong answer."""

# ruff: noqa: E501  programs and messages in one line each

# Programs that write their worker's replies themselves: `reply(text)` sends one. Descriptor 3 is the line where the
# engine is "fork"; elsewhere nothing comes of it, and the answer 7 is as wrong.
SAY = (
    'import os\n'
    'def reply(text):\n'
    '  b = text.encode("utf-8", "surrogatepass")\n'
    '  try: os.write(3, b"%08x" % len(b) + b)\n'
    '  except OSError: pass\n'
)
LEAF = '\'["int","0x7"]\''
WORKER = (
    'import sys\n'
    'w = next((m for m in list(sys.modules.values()) if hasattr(m, "OPERATIONS") and hasattr(m, "look_up")), None)\n'
)


def names(entries: str) -> str:
    "A program that answers every question for names with these entries"
    return WORKER + f'if w: w.OPERATIONS["names"] = lambda names: {entries}\ndef add(a, b): return 7'


ABS = ['assert abs(add(20, 3) - 23) < 0.5']
CASES = ['for a, b, want in [(20, 3, 23), (1, 1, 2)]: assert add(a, b) == want, (a, b)']
ALL = ['assert all(add(n, n) == 2 * n for n in range(1, 4))']
LIST = ['numbers = [3, 1, 2]\nresult = order(numbers)\nassert result == [1, 2, 3] and numbers == [3, 1, 2]']
SPREAD = ['asked = [20, 3]\nwanted = [23]\nassert [add(*asked)] == wanted and wanted == [23]']

# name: (program, tests)
HOSTILE = {}

HOSTILE |= {  # the names that a test asks for
    'names: abs as well': (names('tuple((n, "value", (), add) for n in (*names, "abs"))'), ABS),
    'names: all of them': (
        names('tuple((n, "value", (), (lambda *a: True)) for n in (*names, *dir(__builtins__)))'),
        ALL,
    ),
    'names: __builtins__': (names('(("add", "value", (), add), ("__builtins__", "value", (), {}))'), ABS),
    'names: exec and set': (
        names('tuple((n, "value", (), (lambda *a: True)) for n in (*names, "exec", "set", "compile"))'),
        ['exec("assert add(20, 3) == 23")'],
    ),
    'names: a list to be kept': (names('[(n, "value", (), add) for n in names]'), ABS),
    'names: a dict': (names('{n: ("value", (), 7) for n in names}'), ABS),
    'names: twice the same': (names('(("add", "value", (), add), ("add", "value", (), abs))'), ABS),
    'names: a number for a text': (names('((7, "value", (), add),)'), ABS),
    'names: a module that is none': (names('(("add", "module", (), add),)'), ABS),
    'names: a kind of its own': (names('(("add", "truth", (), add),)'), ABS),
    'names: library of numbers': (names('(("add", "library", (1, 2), add),)'), ABS),
    'names: an exception without a name': (names('(("add", "exception", ("\\0", "\\ud800"), add),)'), ABS),
    'names: an exception for a helper': (names('(("add", "exception", ("add", "ValueError"), add),)'), ABS),
    'names: test helpers': (
        names('tuple((n, "value", (), (lambda *a: 23)) for n in (*names, "want", "a", "b"))'),
        CASES,
    ),
    'names: live value that turns': (
        'class T(int): pass\nvalue = 0\ndef add(a, b):\n  global value; value += 1; return 7',
        ['assert value == 0\nassert add(20, 3) == 23'],
    ),
}

HOSTILE |= {  # replies in another form
    f'reply: {name}': (SAY + f'def add(a, b): reply({text}); return 7', ABS)
    for name, text in {
        'change of what was not given': '\'done ["graph",0,["tuple",["int","0x17"],1],["tuple"],["list","t1"]]\'',
        'a name of the tester': '\'done ["graph","t1"]\'',
        'forgets what the tester holds': '\'done ["graph",0,["tuple",["int","0x17"],1],["tuple"],["forget","t1"]]\'',
        'a list for a tuple': '\'done ["graph","c1",["list","c1",["int","0x17"]]]\'',
        'one value too many': '\'done ["graph",0,["tuple",["int","0x17"],1,null],["tuple"]]\'',
        'effects of another kind': (
            '\'done ["graph",0,["tuple",["int","0x17"],1],["tuple",2],["tuple",["str","786d"],null]]\''
        ),
        'a plain value': '\'done ["int","0x17"]\'',
        'words that do not exist': '\'done ["graph",0,["tuple",["handle","c9","41","eval"],1],["tuple"]]\'',
        'the last word': '\'passed ["int","0x1"]\'',
        'the last word after a number': '\'done ["int","0x17"] passed ["int","0x1"]\'',
        'an exception without a text': '\'raised ["graph",0,["tuple",null,null,null,1,2],["tuple"],["tuple"]]\'',
        'an exception of five hundred parents': '\'raised ["graph",0,["tuple",["str","41"],["str",""],["str","\' + "412f" * 500 + \'"],1,2],["tuple"],["tuple"]]\'',
        'a stand-in that is a stand-in': (
            '\'done ["graph",0,["tuple",1,2],["+",["class","c1","41","","",""],["handle","c2","",""],["int","0x7"]],["tuple"]]\''
        ),
        'a class that overrides what is not there': (
            '\'done ["graph",0,["tuple",1,2],["+",["class","c1","41","","__import__",""],["handle","c2","",""],["int","0x7"]],["tuple"]]\''
        ),
        'a hundred thousand lists': '\'done ["graph",0\' + \',["list"]\' * 100000 + "]"',
        'a million empty lists': '"done [" + "[]," * 1000000 + "[]]"',
        'a tuple that is everywhere': (
            '\'done ["graph",0\' + "".join(\',["tuple",%d,%d]\' % (n, n) for n in range(1, 60)) + \',["tuple"]]\''
        ),
        'half a surrogate pair': '"done \\ud800"',
        'a call of an operation of its own': '\'call ["graph",0,["tuple",["str","65786563"],1,2,null],["tuple"],["tuple"]]\'',
        'a call with the tester as the target': '\'call ["graph",0,["tuple",["str","63616c6c"],1,2,null],["tuple",["handle","t0","",""]],["tuple"]]\'',
    }.items()
}

HOSTILE |= {  # values that cannot be compared, shown or written down
    f'value: {name}': (f'{imports}\ndef add(a, b): return {value}', tests)
    for name, (imports, value) in {
        'signalling NaN': ('from decimal import Decimal', 'Decimal("sNaN")'),
        'signalling NaN in a list': ('from decimal import Decimal', '[Decimal("sNaN")]'),
        'five thousand digits': ('', '10 ** 5000'),
        'half a surrogate pair': ('', '"\\ud83d"'),
        'key of half a surrogate pair': ('', '{"\\udc80": 23}'),
        'list in itself sixty times over': (
            'from functools import reduce',
            'reduce(lambda x, _: [x, x], range(60), [7])',
        ),
        'deque without end': ('from collections import deque', '(lambda d: d.append(d) or d)(deque())'),
        'chain of maps of itself': (
            'from collections import ChainMap',
            '(lambda c: c.maps.append(c) or c)(ChainMap())',
        ),
        'year of no date': ('import datetime', 'datetime.timedelta.max'),
        'namespace of itself': ('from types import SimpleNamespace as N', '(lambda n: setattr(n, "n", n) or n)(N())'),
        'memory with a format of its own': ('', 'memoryview(b"abcd").cast("I")'),
        'view of a huge range': ('', 'dict.fromkeys(range(20000)).keys()'),
    }.items()
    for tests in [['assert add(20, 3) == 23']]
}
HOSTILE |= {
    f'{name}, in test code': (program, ['got = add(20, 3)\nassert got == 23, f"got {got!r}"'])
    for name, (program, _) in list(HOSTILE.items())
    if name.startswith('value: ')
}

HOSTILE |= {  # wrong programs that a test of copies calls right
    'returns its argument instead of a copy': (
        'def clone(l): return l',
        ['a = [1, 2]\nb = clone(a)\nb.append(3)\nassert a == [1, 2] and b == [1, 2, 3]'],
    ),
    'returns a copy instead of its argument': (
        'def grow(l): return l + [1]',
        ['l = []\nassert grow(l) is l and l == [1]'],
    ),
    'shallow copy of rows': (
        'def clone(m): return list(m)',
        ['m = [[1], [2]]\nc = clone(m)\nc[0].append(9)\nassert m == [[1], [2]]'],
    ),
    'one row three times': ('def grid(n): return [[0] * n] * n', ['g = grid(3)\ng[0][0] = 1\nassert g[1][0] == 0']),
    'hands out what it keeps': (
        'class Log:\n  def __init__(s): s.l = []\n  def add(s, x): s.l.append(x)\n  def all(s): return s.l',
        ['log = Log()\nlog.add(1)\nlog.all().clear()\nassert log.all() == [1]'],
    ),
    'keeps what it was given': (
        'class Box:\n  def __init__(s, l): s.l = l\n  def total(s): return sum(s.l)',
        ['l = [1, 2]\nb = Box(l)\nl.append(10)\nassert b.total() == 3'],
    ),
    'default that is shared': (
        'def put(x, l=[]): l.append(x); return l',
        ['assert put(1) == [1]\nassert put(2) == [2] and put(3) is not put(4)'],
    ),
    'changes its argument': ('def order(l): l.sort(); return l', LIST),
    'changes what it was given before': (
        'kept = []\ndef add(a, b): kept.append(a); return 23\ndef wipe(): kept[0].clear()',
        ['l = [1]\nassert add(l, 3) == 23\nwipe()\nassert l == [1]'],
    ),
    'dict for an OrderedDict': (
        'def table(l): return dict(l)',
        [
            'from collections import OrderedDict\nassert table([(1, 2)]) == {1: 2} and isinstance(table([]), OrderedDict)'
        ],
    ),
    'OrderedDict in another order': (
        'from collections import OrderedDict as O\ndef table(l): return O(sorted(l))',
        ['from collections import OrderedDict as O\nassert table([(2, 1), (1, 2)]) == O([(2, 1), (1, 2)])'],
    ),
    'int for a bool': ('def even(n): return 1', ['assert type(even(2)) is bool and even(2)']),
    'int for an enum': (
        'from enum import IntEnum\nclass C(IntEnum): A = 1\ndef first(): return 1',
        ['assert first() == 1 and type(first()) is C'],
    ),
    'subclass of int for an int': (
        'class I(int): pass\ndef add(a, b): return I(a + b)',
        ['assert type(add(1, 2)) is int'],
    ),
    'tuple for a named tuple': (
        'from collections import namedtuple\nP = namedtuple("P", "x y")\ndef point(): return (1, 2)',
        ['assert point() == (1, 2) and point().x == 1'],
    ),
    'list for a tuple': ('def pair(): return [1, 2]', ['assert type(pair()) == tuple and pair()[0] == 1']),
    'dict for a defaultdict': ('def group(): return {}', ['g = group()\ng["x"].append(1)\nassert g == {"x": [1]}']),
    'no iterator': (
        'def evens(n): return [0, 2]',
        ['from collections.abc import Iterator\nassert isinstance(evens(3), Iterator)'],
    ),
    'no callable': ('class F: pass\ndef make(): return F()', ['assert callable(make())']),
}

HOSTILE |= {  # wrong programs whose tests change what is around them
    'prints something else': (
        'def greet(n): print("hi")',
        [
            'import io, contextlib\nout = io.StringIO()\nwith contextlib.redirect_stdout(out): greet("Bo")\n'
            'assert out.getvalue() == "hi Bo\\n"'
        ],
    ),
    'reads no input': (
        'def ask(): return 5',
        ['import io, sys\nsys.stdin = io.StringIO("7\\n")\nassert ask() == 7 + 0'],
    ),
    'never sleeps': (
        'def wait(n): return n',
        [
            'from unittest.mock import patch\nwith patch("time.sleep") as sleep: assert wait(9) == 9\n'
            'sleep.assert_called_once_with(9)'
        ],
    ),
    'claims that the mock was called': (
        'import time\ndef wait(n):\n  try: time.sleep.called = True; time.sleep.call_count = 1\n'
        '  except Exception: pass\n  return n',
        [
            'from unittest.mock import patch\nwith patch("time.sleep") as sleep:\n    wait(9)\nassert sleep.call_count == 1'
        ],
    ),
    'reads what the mock is to return': (
        'def draw():\n  import random\n  try: return random.choice.return_value\n  except Exception: return 7',
        [
            'from unittest.mock import patch\nwith patch("random.choice", return_value=23) as m:\n'
            '    assert draw() == 23 and m.called'
        ],
    ),
    'does not use the seed': (
        'import random\ndef roll(): return random.SystemRandom().randint(1, 10 ** 9)',
        ['import random\nrandom.seed(7); first = random.randint(1, 10 ** 9)\nrandom.seed(7)\nassert roll() == first'],
    ),
    'text that the test evaluates': (
        'def expression(): return "__import__(\'os\')._exit(0)"',
        ['assert eval(expression()) == 23'],
    ),
    'text that writes the last word': (
        'def expression(): return \'__import__("os").write(3, b"00000015passed [\\\\"int\\\\",\\\\"0x1\\\\"]")\'',
        ['assert eval(expression()) == 23'],
    ),
    'code that the test executes': (
        'def source(): return "assert_ok = True\\nwanted = got"',
        ['got, wanted = 7, 23\nexec(source())\nassert got == wanted'],
    ),
    'swallows the assert of the test': (
        'class Quiet:\n  def __enter__(s): return s\n  def __exit__(s, *a): return True\ndef quiet(): return Quiet()\n'
        'def add(a, b): return 7',
        ['with quiet():\n    assert add(20, 3) == 23'],
    ),
    'awaits nothing': ('async def double(x): return 7', ['import asyncio\nassert asyncio.run(double(2)) == 4']),
    'yields too little': (
        'async def count(n):\n  yield 0',
        [
            'import asyncio\nasync def main(): return [x async for x in count(3)]\nassert asyncio.run(main()) == [0, 1, 2]'
        ],
    ),
    'another signature': (
        'def f(a, b=2): return a',
        ['import inspect\nassert list(inspect.signature(f).parameters) == ["a"]'],
    ),
    'another precision': (
        'from decimal import Decimal\ndef third(): return Decimal("0.3333")',
        ['import decimal\ndecimal.getcontext().prec = 5\nassert third() == decimal.Decimal("0.33333")'],
    ),
}

# name: (program, tests)
HONEST = {
    'copy that is one': ('def clone(l): return list(l)', HOSTILE['returns its argument instead of a copy'][1]),
    'argument returned': ('def grow(l): l.append(1); return l', HOSTILE['returns a copy instead of its argument'][1]),
    'deep copy': ('from copy import deepcopy as clone', HOSTILE['shallow copy of rows'][1]),
    'rows of their own': ('def grid(n): return [[0] * n for _ in range(n)]', HOSTILE['one row three times'][1]),
    'copy handed out': (
        'class Log:\n  def __init__(s): s.l = []\n  def add(s, x): s.l.append(x)\n  def all(s): return list(s.l)',
        HOSTILE['hands out what it keeps'][1],
    ),
    'copy kept': (
        'class Box:\n  def __init__(s, l): s.l = list(l)\n  def total(s): return sum(s.l)',
        HOSTILE['keeps what it was given'][1],
    ),
    'list kept on purpose': (
        'class Box:\n  def __init__(s, l): s.l = l\n  def total(s): return sum(s.l)',
        ['l = [1, 2]\nb = Box(l)\nl.append(10)\nassert b.total() == 13 and b.l is l'],
    ),
    'default of its own': (
        'def put(x, l=None):\n  l = [] if l is None else l\n  l.append(x); return l',
        HOSTILE['default that is shared'][1],
    ),
    'one list seen from two names': (
        'kept = []\ndef keep(l): kept.append(l)\ndef grow(): kept[0].append(1)',
        ['l = []\nkeep(l); grow()\nassert l == [1] and kept[0] is l'],
    ),
    'row of a matrix changed': (
        'def mark(m): m[0][0] = 9',
        ['row = [1, 2]\nm = [row, [3]]\nmark(m)\nassert row == [9, 2] and m[0] is row'],
    ),
    'rows exchanged': (
        'def swap(m): m[0], m[1] = m[1], m[0]',
        ['a, b = [1], [2]\nm = [a, b]\nswap(m)\nassert m[0] is b and m[1] is a'],
    ),
    'dict of lists changed': (
        'def put(d, k, v): d.setdefault(k, []).append(v); return d',
        ['d = {}\nassert put(put(d, "a", 1), "a", 2) is d and d == {"a": [1, 2]}'],
    ),
    'set changed while the test holds it': (
        'def drop(s, x): s.discard(x)',
        ['s = {1, 2}\nt = s\ndrop(s, 1)\nassert t == {2}'],
    ),
    'bytearray changed': ('def zero(b): b[0] = 0', ['b = bytearray(b"ab")\nzero(b)\nassert b == bytearray(b"\\0b")']),
    'returned list changed by the test': (
        'class S:\n  def __init__(s): s.items = [3]\n  def total(s): return sum(s.items)',
        ['s = S()\ns.items.append(4)\nassert s.total() == 7 and s.items == [3, 4]'],
    ),
    'list in itself': ('def loop():\n  l = [1]; l.append(l); return l', ['l = loop()\nassert l[1] is l and l[0] == 1']),
    'nesting of five hundred': (
        'def nest(n):\n  l = []\n  for _ in range(n): l = [l]\n  return l',
        ['l, depth = nest(500), 0\nwhile l: l, depth = l[0], depth + 1\nassert depth == 500'],
    ),
    'linked list of tuples': (
        'def link(l):\n  n = None\n  for x in reversed(l): n = (x, n)\n  return n',
        ['n, seen = link(range(300)), []\nwhile n: x, n = n; seen.append(x)\nassert seen == list(range(300))'],
    ),
    'OrderedDict': (
        'from collections import OrderedDict as O\ndef table(l): return O(l)',
        HOSTILE['OrderedDict in another order'][1]
        + ['t = table([(1, 2), (3, 4)])\nt.move_to_end(1)\nassert list(t) == [3, 1]'],
    ),
    'bool': ('def even(n): return n % 2 == 0', HOSTILE['int for a bool'][1]),
    'IntEnum': (
        'from enum import IntEnum\nclass C(IntEnum):\n  A = 1\n  B = 2\ndef first(): return C.A',
        HOSTILE['int for an enum'][1]
        + ['assert first() is C.A and first().name == "A" and C(2) == C.B and first() < C.B'],
    ),
    'text enum': (
        'from enum import Enum\nclass C(str, Enum):\n  RED = "red"\ndef pick(): return C.RED',
        ['assert pick() == "red" and pick() is C.RED and pick().value == "red" and len(pick()) == 3'],
    ),
    'Enum and its members': (
        'from enum import Enum, auto\nclass S(Enum):\n  ON = auto()\n  OFF = auto()\ndef flip(s): return S.OFF if s is S.ON else S.ON',
        ['assert flip(S.ON) is S.OFF and flip(flip(S.ON)) == S.ON and [s.name for s in S] == ["ON", "OFF"]'],
    ),
    'named tuple': (
        'from collections import namedtuple\nP = namedtuple("P", "x y")\ndef point(): return P(1, 2)',
        HOSTILE['tuple for a named tuple'][1]
        + ['p = point()\nassert p._replace(x=5).x == 5 and p._asdict() == {"x": 1, "y": 2} and type(p) is P'],
    ),
    'NamedTuple with a method': (
        'from typing import NamedTuple\nclass V(NamedTuple):\n  x: int\n  y: int = 0\n  def norm(s): return s.x + s.y',
        ['assert V(3, 4).norm() == 7 and V(1) == (1, 0) and V(1).y == 0'],
    ),
    'defaultdict': (
        'from collections import defaultdict\ndef group(): return defaultdict(list)',
        HOSTILE['dict for a defaultdict'][1],
    ),
    'Counter': (
        'from collections import Counter\ndef count(s): return Counter(s)',
        ['c = count("aab")\nassert c.most_common(1) == [("a", 2)] and c + c == {"a": 4, "b": 2} and c["z"] == 0'],
    ),
    'deque': (
        'from collections import deque\ndef turn(l): d = deque(l, 3); d.rotate(1); return d',
        [
            'from collections import deque\nd = turn([1, 2, 3])\nassert d == deque([3, 1, 2]) and d.maxlen == 3 and d.popleft() == 3'
        ],
    ),
    'views': (
        'def keys(d): return d.keys()\ndef items(d): return d.items()\ndef values(d): return d.values()',
        ['assert keys({"a": 1}) == {"a"} and ("a", 1) in items({"a": 1}) and list(values({"a": 1})) == [1]'],
    ),
    'view compared': ('def keys(d): return d.keys()', ['assert keys({"a": 1}) == {"a"}']),
    'memoryview': (
        'def view(b): return memoryview(b)',
        ['assert view(b"ab") == b"ab"', 'v = view(b"ab")\nassert v[0] == 97'],
    ),
    'UserList': ('from collections import UserList\ndef l(): return UserList([1, 2])', ['assert l() == [1, 2]']),
    'UserDict': (
        'from collections import UserDict\ndef d(): return UserDict(a=1)',
        ['x = d()\nassert x == {"a": 1} and x["a"] == 1'],
    ),
    'UserString': (
        'from collections import UserString\ndef s(): return UserString("ab")',
        ['assert s() == "ab" and s().upper() == "AB"'],
    ),
    'ChainMap': (
        'from collections import ChainMap\ndef c(): return ChainMap({1: 2}, {1: 3, 4: 5})',
        ['assert c() == {1: 2, 4: 5} and c()[4] == 5'],
    ),
    'mappingproxy': (
        'from types import MappingProxyType as M\ndef m(): return M({"a": 1})',
        ['assert m() == {"a": 1} and m()["a"] == 1'],
    ),
    'SimpleNamespace': (
        'from types import SimpleNamespace as N\ndef n(): return N(x=1)',
        ['assert n().x == 1 and n() == n()'],
    ),
    'dates': (
        'from datetime import date, datetime, timedelta, timezone\ndef d(): return date(2020, 2, 29), timedelta(hours=3)\n'
        'def t(): return datetime(2020, 1, 2, tzinfo=timezone.utc)',
        [
            'from datetime import *\nassert d() == (date(2020, 2, 29), timedelta(hours=3)) and t().year == 2020\n'
            'assert t() == datetime(2020, 1, 2, tzinfo=timezone.utc) and (d()[0] + d()[1] * 8).day == 1'
        ],
    ),
    'uuid, path and array': (
        'import uuid, pathlib, array\ndef u(): return uuid.UUID(int=5)\ndef p(): return pathlib.PurePosixPath("/a/b.c")\n'
        'def a(): return array.array("i", [1, 2])',
        [
            'import uuid, array\nassert u() == uuid.UUID(int=5) and p().suffix == ".c" and a() == array.array("i", [1, 2])'
        ],
    ),
    'Decimal and Fraction': (
        'from decimal import Decimal\nfrom fractions import Fraction\ndef d(): return Decimal("1.10")\ndef f(): return Fraction(1, 3)',
        [
            'from decimal import Decimal\nfrom fractions import Fraction\nassert d() + d() == Decimal("2.2") and f() * 3 == 1'
        ],
    ),
    'ellipsis, slice and NotImplemented': (
        'def e(): return ...\ndef s(): return slice(1, 3)\ndef n(): return NotImplemented',
        ['assert e() is ... and [1, 2, 3, 4][s()] == [2, 3] and n() is NotImplemented'],
    ),
    'class returned': (
        'def kind(x): return type(x)',
        ['assert kind(1) is int and kind([]) == list and kind(None) is type(None)'],
    ),
    'types told apart': (
        'def f(): return 1, 1.0, True, "a", (1,), {1}, {}, None',
        [
            'assert [type(x).__name__ for x in f()] == ["int", "float", "bool", "str", "tuple", "set", "dict", "NoneType"]'
        ],
    ),
    'stack that is a list': (
        'class Stack(list):\n  def push(s, x): s.append(x)\n  def peek(s): return s[-1]',
        ['s = Stack()\ns.push(3); s.push(4)\nassert s.peek() == 4 and s.pop() == 4 and len(s) == 1 and s == [3]'],
    ),
    'list with an append of its own': (
        'class Twice(list):\n  def append(s, x): super().append(x); super().append(x)',
        ['t = Twice()\nt.append(1)\nassert t == [1, 1] and isinstance(t, Twice) and isinstance(t, list)'],
    ),
    'dict that answers what is missing': (
        'class Zero(dict):\n  def __missing__(s, k): return 0',
        ['z = Zero(a=1)\nassert z["a"] == 1 and z["b"] == 0 and "b" not in z and type(z) is Zero'],
    ),
    'int with a text of its own': (
        'class Money(int):\n  def __str__(s): return f"{int(s)} EUR"',
        ['m = Money(5)\nassert m == 5 and str(m) == "5 EUR" and f"{m + 1}" == "6"'],
    ),
    'vector with operators': (
        'class V:\n  def __init__(s, x): s.x = x\n  def __add__(s, o): return V(s.x + o.x)\n  def __mul__(s, n): return V(s.x * n)\n'
        '  __rmul__ = __mul__\n  def __neg__(s): return V(-s.x)',
        ['assert (V(1) + V(2)).x == 3 and (V(2) * 3).x == (3 * V(2)).x == 6 and (-V(1)).x == -1'],
    ),
    'iterator, callable, context manager by type': (
        'class It:\n  def __iter__(s): return s\n  def __next__(s): raise StopIteration\nclass F:\n  def __call__(s): return 1\n'
        'class Plain: pass',
        [
            'from collections.abc import Callable, Iterator\nassert isinstance(It(), Iterator) and callable(F()) and not callable(Plain())\n'
            'assert isinstance(F(), Callable) and not isinstance(Plain(), Iterator) and type(F()).__name__ == "F"'
        ],
    ),
    'class attributes and subclasses': (
        'class A:\n  n = 1\nclass B(A): pass',
        ['assert issubclass(B, A) and not issubclass(A, B) and B.n == 1 and B().__class__ is B and A.__name__ == "A"'],
    ),
    'context manager that swallows': (
        'class Quiet:\n  def __enter__(s): return s\n  def __exit__(s, kind, e, t): s.seen = kind is KeyError; return s.seen\n'
        'def quiet(): return Quiet()',
        ['with quiet() as q: {}[1]\nassert q.seen is True and True'],
    ),
    'deepcopy of an object': (
        'class N:\n  def __init__(s): s.l = [1]',
        [
            'import copy\na = N()\nb = copy.deepcopy(a)\nb.l.append(2)\nassert a.l == [1] and b.l == [1, 2] and a is not b'
        ],
    ),
    'wrapped by functools': (
        'import functools\ndef twice(f):\n  @functools.wraps(f)\n  def g(*a): return 2 * f(*a)\n  return g',
        ['@twice\ndef one(n):\n    "doc"\n    return n\nassert one(3) == 6 and one.__name__ == "one"'],
    ),
    'sorted objects of the test': (
        'def order(l): return sorted(l)',
        [
            'class I:\n    def __init__(self, n): self.n = n\n    def __lt__(self, o): return self.n < o.n\n'
            'a, b = I(2), I(1)\nassert order([a, b])[0] is b'
        ],
    ),
    'hundred kilobytes of prints': (
        'def noisy(n):\n  for _ in range(n): print("x" * 100)\n  return n',
        ['assert noisy(1000) == 1000', 'assert noisy(10) == 10'],
    ),
    'exit in a script': (
        'def add(a, b): return a + b\nif __name__ == "__main__": exit(0)\ntry: quit()\nexcept SystemExit: pass',
        ['assert add(1, 2) == 3'],
    ),
    'names of modules': (
        'string, numbers = "abc", [1, 2]\ndef f(): return 3',
        ['assert string == "abc" and numbers == [1, 2] and f() + 0 == 3'],
    ),
    'stdout redirected': ('def greet(n): print("hi " + n)', HOSTILE['prints something else'][1]),
    'stdout replaced, and an exception': (
        'def f(): print("a"); raise ValueError("no")',
        [
            'import io, sys\nold, sys.stdout = sys.stdout, io.StringIO()\ntry: f()\nexcept ValueError: pass\n'
            'text, sys.stdout = sys.stdout.getvalue(), old\nassert text == "a\\n"'
        ],
    ),
    'stdin replaced': ('def ask(): return int(input("n? "))', HOSTILE['reads no input'][1]),
    'lines of stdin': (
        'import sys\ndef total(): return sum(int(line) for line in sys.stdin)',
        ['import io, sys\nsys.stdin = io.StringIO("1\\n2\\n3\\n")\nassert total() == 6 + 0'],
    ),
    'input patched': (
        'def ask(): return input("name? ")',
        [
            'from unittest.mock import patch\nwith patch("builtins.input", return_value="Ada") as m: assert ask() == "Ada"\n'
            'm.assert_called_once_with("name? ")'
        ],
    ),
    'input replaced': (
        'def ask(): return input()',
        ['import builtins\nbuiltins.input = lambda p="": "Ada"\nassert ask() == "Ada" + ""'],
    ),
    'print patched': (
        'def say(): print("a", 1)',
        ['from unittest import mock\nwith mock.patch("builtins.print") as p: say()\np.assert_called_with("a", 1)'],
    ),
    'sleep patched': ('import time\ndef wait(n): time.sleep(n); return n', HOSTILE['never sleeps'][1]),
    'clock patched': (
        'import time\ndef now(): return int(time.time())',
        [
            'import time\nfrom unittest.mock import patch\nwith patch.object(time, "time", lambda: 5.5): assert now() == 5 + 0'
        ],
    ),
    'choice patched': (
        'import random\ndef draw(): return random.choice([1, 2])',
        HOSTILE['reads what the mock is to return'][1],
    ),
    'open patched': (
        'def first(p):\n  with open(p) as f: return f.read()',
        [
            'from unittest.mock import mock_open, patch\nwith patch("builtins.open", mock_open(read_data="text")): assert first("p") == "text"'
        ],
    ),
    'seeded': ('import random\ndef roll(): return random.randint(1, 10 ** 9)', HOSTILE['does not use the seed'][1]),
    'environment': (
        'import os\ndef home(): return os.environ.get("APP", "none")\ndef put(): os.environ["SET"] = "1"',
        [
            'import os\nos.environ["APP"] = "/x"\nassert home() == "/x"\nput()\nassert os.environ["SET"] == "1"\ndel os.environ["APP"]\nassert home() == "none"'
        ],
    ),
    'precision of decimals': (
        'from decimal import Decimal\ndef third(): return Decimal(1) / 3',
        HOSTILE['another precision'][1],
    ),
    'recursion limit': (
        'def depth(n): return 0 if n == 0 else 1 + depth(n - 1)',
        ['import sys\nsys.setrecursionlimit(5000)\nassert depth(3000) == 3000 + 0'],
    ),
    'warnings': (
        'import warnings\ndef old(): warnings.warn("old", DeprecationWarning); return 1',
        [
            'import warnings\nwith warnings.catch_warnings(record=True) as w:\n    warnings.simplefilter("always")\n    assert old() == 1\n'
            'assert len(w) == 1 and issubclass(w[0].category, DeprecationWarning)'
        ],
    ),
    'coroutine': (
        'import asyncio\nasync def double(x): await asyncio.sleep(0.01); return 2 * x',
        HOSTILE['awaits nothing'][1],
    ),
    'coroutines gathered': (
        'import asyncio\nasync def double(x): await asyncio.sleep(0); return 2 * x',
        [
            'import asyncio\nasync def main(): return await asyncio.gather(double(1), double(2))\nassert asyncio.run(main()) == [2, 4]'
        ],
    ),
    'asynchronous generator': ('async def count(n):\n  for i in range(n): yield i', HOSTILE['yields too little'][1]),
    'asynchronous context manager': (
        'class C:\n  async def __aenter__(s): return 5\n  async def __aexit__(s, *a): pass',
        ['import asyncio\nasync def main():\n    async with C() as c: return c\nassert asyncio.run(main()) == 5'],
    ),
    'signature': ('def f(a): return a', HOSTILE['another signature'][1]),
    'signature in full': (
        'def f(a: int, *b, c=3, **d) -> str: return ""',
        [
            'import inspect\np = inspect.signature(f).parameters\nassert p["c"].default == 3 and p["b"].kind is inspect.Parameter.VAR_POSITIONAL\n'
            'assert inspect.isfunction(f) and not inspect.isclass(f)'
        ],
    ),
    'generator function': (
        'def g(): yield 1',
        ['import inspect\nassert inspect.isgeneratorfunction(g) and inspect.isgenerator(g())'],
    ),
    'test in a text, no entry point': (
        'def add(a, b): return a + b',
        ['exec("assert add(20, 3) == 23\\nassert abs(add(1, 1) - 2) < 1")'],
    ),
    'expression in a text': ('def add(a, b): return a + b', ['for case in ("x",): assert eval("add(20, 3)") == 23']),
}

# Right programs whose tests need more: what the verdict says must name it.
BEYOND = {
    'two objects compared': (
        'from dataclasses import dataclass\n@dataclass\nclass P:\n  x: int',
        ['assert P(1) == P(1)'],
        "'eq' of the class P",
    ),
    'own order': (
        'class P:\n  def __init__(s, x): s.x = x\n  def __lt__(s, o): return s.x < o.x',
        ['assert P(1) < P(2)'],
        "'lt'",
    ),
    'own membership': ('class B:\n  def __contains__(s, x): return x == 1', ['assert 1 in B()'], "'contains'"),
    'operator with a number': ('class V:\n  def __matmul__(s, o): return 11', ['assert V() @ V() == 11'], "'matmul'"),
    'derived from the program': (
        'class A:\n  def f(s): return 1',
        ['class B(A): pass\nassert B().f() == 1'],
        'derives a class',
    ),
    'text evaluated': ('def e(): return "2 + 3"', ['text = e()\nassert eval(text) == 5'], 'executes text'),
    'temporary file': (
        'def lines(p): return len(open(p).readlines())',
        [
            'import tempfile\nwith tempfile.NamedTemporaryFile("w") as f:\n    f.write("a\\n"); f.flush()\n    assert lines(f.name) == 1'
        ],
        'writes or changes files',
    ),
    'file written': (
        'def read(p): return open(p).read()',
        ['open("x", "w").write("a")\nassert read("x") == "a"'],
        'files',
    ),
    'threads of the test': (
        'def add(a, b): return a + b',
        ['import threading\nt = threading.Thread(target=add, args=(1, 2)); t.start(); t.join()\nassert add(1, 2) == 3'],
        'starts threads',
    ),
    'weak reference': ('class A: pass', ['import weakref\na = A()\nassert weakref.ref(a)() is a'], 'references'),
    'doctest': (
        'def f(): "doc"',
        ['import doctest\nassert doctest.run_docstring_examples(f, {}) is None'],
        'modules of the program',
    ),
    'pytest': ('def f(): return 0.3', ['import pytest\nassert f() == pytest.approx(0.3)'], 'needs the module pytest'),
    'log records': (
        'import logging\ndef f(): logging.warning("x")',
        ['import unittest\nwith unittest.TestCase().assertLogs(): f()'],
        'log records',
    ),
    'pickle': ('class A: pass', ['import pickle\nassert pickle.loads(pickle.dumps(A()))'], 'unpickled'),
    'patched helper': (
        'def helper(): return 1\ndef f(): return helper()',
        ['from unittest.mock import patch\nwith patch("__main__.helper", return_value=2): assert f() == 2'],
        'patches names',
    ),
}
