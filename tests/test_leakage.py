"""Whether training items that are test tasks in other words are found, and siblings of test tasks are left alone.

leakage_pairs.jsonl was written by hand before the detectors were tuned. A pair is a test task (of MBPP by its id, or of
the starter set) and a training item in our own words: `leak` says whether it is the same task."""

import ast
import builtins
import io
import json
import keyword
import random
import sys
import tokenize
from collections import Counter

import pytest

from lora_mbpp.core.config import resolve
from lora_mbpp.core.files import read_json, write_json
from lora_mbpp.data import ensure_data, prepare
from lora_mbpp.sandbox.judge import SandboxError
from lora_mbpp.tasks import behaviour, decontamination
from lora_mbpp.tasks.behaviour import compare_behaviour
from lora_mbpp.tasks.decontamination import DETECTOR, examined
from lora_mbpp.tasks.loading import read_tasks, starter_tasks
from lora_mbpp.tasks.normal_form import normal_form
from lora_mbpp.tasks.probe import same_value
from lora_mbpp.tasks.wording import similar_wordings
from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / 'benchmarks'))
import leakage  # noqa: E402


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No comparison of an earlier test run is found again."""
    monkeypatch.setenv('LORA_MBPP_CACHE', str(tmp_path / 'cache'))


def test_pairs_are_whole():
    pairs = leakage.read_pairs()
    kinds = Counter((pair['leak'], pair['item'].get('tests') is not None) for pair in pairs)
    assert kinds == {(True, False): 49, (True, True): 21, (False, False): 48, (False, True): 23}
    for pair in pairs:
        ast.parse(pair['item']['code'])
        for test in pair['item'].get('tests', ()):
            exec(f'{pair["item"]["code"]}\n{test}', {})


def test_starter_pairs_are_told_apart():
    pairs = leakage.read_pairs()
    total = leakage.scores(pairs, leakage.seen_by(pairs, None))[-1]
    assert total['pairs'] == 45 and total['recall'] >= 90 and total['precision'] >= 90


@pytest.mark.slow
def test_all_pairs_are_told_apart(mbpp_file):
    pairs = leakage.read_pairs()
    rows = {row['detector']: row for row in leakage.scores(pairs, leakage.seen_by(pairs, mbpp_file))}
    assert rows['all']['pairs'] == 141 and rows['all']['recall'] >= 80 and rows['all']['precision'] >= 90
    assert rows['behaviour']['recall'] >= 80


# ---- normal form ----


def names_to_change(code: str) -> tuple[list[str], set[str]]:
    """Names that a program binds and may be replaced in its text wherever they stand, and all names in it."""
    nodes = list(ast.walk(ast.parse(code)))
    bound = {n.id for n in nodes if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}
    bound |= {n.arg for n in nodes if isinstance(n, ast.arg)}
    bound |= {n.name for n in nodes if isinstance(n, ast.FunctionDef) and not n.name.startswith('__')}
    fixed = {n.attr for n in nodes if isinstance(n, ast.Attribute)} | {
        n.arg for n in nodes if isinstance(n, ast.keyword)
    }
    for node in nodes:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            fixed |= {name for alias in node.names for name in (alias.name, alias.asname)}
        if isinstance(node, ast.ClassDef):
            fixed |= {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
        if isinstance(node, ast.JoinedStr):  # its names are no tokens before Python 3.12
            fixed |= {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    used = {n.id for n in nodes if isinstance(n, ast.Name)} | bound | fixed
    return sorted(bound - fixed), used


def with_other_names(code: str, chance: random.Random) -> str:
    """The program with other names, many of them those of built-in functions."""
    own, used = names_to_change(code)
    pool = [name for name in (*dir(builtins), *'abcdefghkmw') if name.islower() and not keyword.iskeyword(name)]
    pool = [name for name in pool if name not in used and not name.startswith('_')]
    new = dict(zip(own, chance.sample(pool, len(own))))
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    changed = [(t.type, new.get(t.string, t.string) if t.type == tokenize.NAME else t.string) for t in tokens]
    return tokenize.untokenize(changed)


class ResultNamed(ast.NodeTransformer):
    """`result = value; return result` for `return value`."""

    def visit_Return(self, node):
        if node.value is None:
            return node
        return [ast.Assign([ast.Name('result_', ast.Store())], node.value), ast.Return(ast.Name('result_', ast.Load()))]


def result_named(code: str) -> str:
    return ast.unparse(ast.fix_missing_locations(ResultNamed().visit(ast.parse(code))))


def test_no_renaming_of_the_starter_set_escapes():
    codes = [task['code'] for task in starter_tasks()]
    assert [c for c in codes if normal_form(c) != normal_form(with_other_names(c, random.Random(c)))] == []
    assert [c for c in codes if normal_form(c) != normal_form(result_named(c))] == []


def test_no_renaming_of_mbpp_escapes(mbpp_file):
    codes = [task['code'] for task in read_tasks(mbpp_file) if task['split'] == 'test'][::3]
    assert [c for c in codes if normal_form(c) != normal_form(with_other_names(c, random.Random(c)))] == []
    assert [c for c in codes if normal_form(c) != normal_form(result_named(c))] == []


@pytest.mark.parametrize(
    'one, other',
    [
        ('def f(list): return sum(list)', 'def g(sum_): return sum(sum_)'),
        ('def f(xs): return [x for x in xs]', 'def f(list): return [list for list in list]'),
        ('from math import sqrt\ndef f(x): return sqrt(x)', 'import math as m\ndef f(y): return m.sqrt(y)'),
        ('def f(x):\n    if x > 1:\n        return True\n    else:\n        return False', 'def f(x): return 1 < x'),
        ('def f(x):\n    return 1 if x else 2', 'def f(x):\n    if x:\n        return 1\n    return 2'),
        ('f = lambda x: x + 1', 'def f(n: int) -> int:\n    "Next."\n    return 1 + n'),
        ('def f(n):\n    s = 0\n    for i in range(0, n): s += i\n    return s',
         'def f(k):\n    t = 0\n    for j in range(k): t = t + j\n    return t'),
        ('def f(x): return not x == 1', 'def f(x): return x != 1'),
        ('def f(x): return x\nprint(f(3))', 'def f(x): return x\nif __name__ == "__main__":\n    f(2)'),
        ('def f(a, b=1): return a\ndef g(): return f(b=2, a=1)',
         'def h(c, d=1): return c\ndef g(): return h(d=2, c=1)'),
        ('class A:\n    def __init__(self): self.items = []', 'class B:\n    def __init__(me): me.stack = []'),
        ('def f():\n    global n\n    n = 1', 'def g():\n    global count\n    count = 1'),
    ],
)  # fmt: skip
def test_what_says_the_same_has_one_normal_form(one, other):
    assert normal_form(one) == normal_form(other) is not None


@pytest.mark.parametrize(
    'one, other',
    [
        ('def f(xs): return min(xs)', 'def f(xs): return max(xs)'),
        ('def f(a, b): return a - b', 'def f(a, b): return b - a'),
        ('def f(s): return s + "a"', 'def f(s): return "a" + s'),
        ('def f(x): return x > 1', 'def f(x): return x >= 1'),
        ('def f(x): return x == 1', 'def f(x): return x == True'),
        ('def f(sum, xs): return sum(xs)', 'def f(s, xs): return sum(xs)'),
        ('def f(range): return range(0, 3)', 'def f(r): return range(3)'),
        ('x = 1\ndef f(): return x', 'def f(): return x'),
    ],
)
def test_what_says_something_else_has_another(one, other):
    assert normal_form(one) != normal_form(other)


@pytest.mark.parametrize('code', ['def f(:', '', '\0', '(' * 500, 'x = ' + '-' * 20_000 + '1'])
def test_what_is_no_program_has_no_normal_form(code):
    assert normal_form(code) is None


# ---- behaviour ----


def task(code: str, *tests: str, name: str = 'f', number: int = 1) -> dict:
    return {'task_id': number, 'entry_point': name, 'setup': '', 'text': 'A task.', 'code': code, 'tests': list(tests)}


POWERS = task(
    'def f(xs, n):\n    return [x ** n for x in xs]', 'assert f([1, 2, 3], 2) == [1, 4, 9]', 'assert f([5], 3) == [125]'
)


@pytest.mark.parametrize(
    'code, same',
    [
        ('def p(xs, n):\n    return list(map(lambda x: x ** n, xs))', True),
        ('def p(n, xs):\n    return [x ** n for x in xs]', True),  # another order
        ('def p(xs, n):\n    for x in xs:\n        yield x ** n', True),
        ('def p(xs, n):\n    return tuple(x ** n for x in xs)', True),
        ('def p(xs, n):\n    print([x ** n for x in xs])', True),  # prints what others return
        ('import functools\n@functools.cache\ndef q(x, n): return x**n\ndef p(a, n): return [q(x, n) for x in a]', 1),
        ('def p(xs, n):\n    return [x * n for x in xs]', False),
        ('def p(xs, n):\n    while True: pass', False),
        ('def p(xs, n):\n    while True:\n        try: xs.append(n)\n        except BaseException: pass', False),
        ('def p(xs, n):\n    return 10 ** 10 ** 10', False),
        ('def p(xs, n):\n    raise SystemExit', False),
        ('def p(xs, n):\n    import os\n    os._exit(0)', False),
        ('def p(xs, n):\n    return open(3).read()', False),  # the line of the sandbox
        ('def p(xs, n):\n    import time\n    time.sleep(99)', False),
        ('def p(xs, n):\n    input()', False),
        ('import no_such_library\ndef p(xs, n):\n    return [x ** n for x in xs]', False),
        ('def p(*, xs, n):\n    return [x ** n for x in xs]', False),
        ('print("nothing is defined")', False),
    ],
)  # fmt: skip
def test_what_a_program_does(code, same):
    found = compare_behaviour([{'id': 'a', 'code': code}], [POWERS]).matches
    assert bool(found) == same


def test_length_of_an_array_may_be_left_out_or_added():
    with_length = task(
        'def f(a, n):\n    return max(a) - min(a)', 'assert f([2, 1, 5], 3) == 4', 'assert f([9, 3], 2) == 6'
    )
    without = task('def f(a):\n    return max(a) - min(a)', 'assert f([2, 1, 5]) == 4', 'assert f([9, 3]) == 6')
    items = [{'id': i, 'code': t['code']} for i, t in enumerate((with_length, without))]
    assert compare_behaviour(items, [with_length, without]).matches.keys() == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_words_for_truth_values_are_translated():
    even = task('def f(n):\n    return n % 2 == 0', 'assert f(4)', 'assert not f(7)', 'assert f(10)')
    said = [{'id': 0, 'code': "def g(n):\n    return 'Even' if n % 2 == 0 else 'Odd'"}]
    assert (0, 0) in compare_behaviour(said, [even]).matches
    always = [{'id': 0, 'code': "def g(n):\n    return 'Even'"}, {'id': 1, 'code': 'def g(n):\n    return n > 3'}]
    assert not compare_behaviour(always, [even]).matches


def test_a_task_that_cannot_be_compared_is_named():
    tasks = [
        task('def f(x):\n    return object()', 'assert f(1)', number=1),
        task('def f(x):\n    return not x', 'assert f(False)', number=2),  # two inputs only
        task('def f(x):\n    return x', 'assert f(unknown) == 1', number=3),
        task('', 'assert f(1) == 1', number=4),
        POWERS | {'task_id': 5},
    ]
    assert compare_behaviour([], tasks).unknown == [1, 2, 3, 4]


@pytest.mark.parametrize(
    'value', ['range(x)', 'Fraction(x, 2)', 'Decimal(x)', '[range(x)]', '{x: 1j}', 'b"a" * x', 'object()']
)
def test_values_of_every_kind_can_be_given(value):
    """A reference whose values cannot be packed is named; one that gives others of plain data is compared."""
    code = f'from fractions import Fraction\nfrom decimal import Decimal\ndef f(x):\n    return {value}'
    odd = task(code, *(f'assert f({x})' for x in (3, 5, 8, 13, 20)))
    found = compare_behaviour([{'id': 0, 'code': code}], [odd])
    compared = value in ('{x: 1j}', 'b"a" * x')
    assert (bool(found.matches), found.unknown) == (compared, [] if compared else [1])


def test_comparison_is_kept_and_found_again(monkeypatch):
    items = [{'id': 0, 'code': POWERS['code']}]
    first = compare_behaviour(items, [POWERS])
    monkeypatch.setattr(behaviour, 'open_pool', lambda *_: pytest.fail('run again'))
    assert compare_behaviour(items, [POWERS]) == first
    with pytest.raises(pytest.fail.Exception):
        compare_behaviour([{'id': 0, 'code': 'def f(xs, n):\n    return 1'}], [POWERS])


def test_without_a_sandbox_it_is_said_and_noted(monkeypatch, capsys, tmp_path):
    def none(*_, **__):
        raise SandboxError('no engine')

    monkeypatch.setattr(decontamination, 'compare_behaviour', none)
    manifest = prepare(resolve(data_dir=str(tmp_path / 'data')))
    assert manifest['behaviour'] == {'compared': False, 'why': 'no engine'}
    assert 'behaviour was not compared' in capsys.readouterr().out


def test_texts_are_acquitted_by_behaviour():
    five = task('def f(xs):\n    return [x + 5 for x in xs]', 'assert f([1, 2]) == [6, 7]', 'assert f([9]) == [14]')
    five['text'] = 'Add five to each element of a list of numbers.'
    item = {'id': 'a', 'text': 'Multiply each element of a list of numbers by five.', 'context': ''}
    times, plus, script = (
        'def g(xs):\n    return [5 * x for x in xs]',
        'def g(xs):\n    return [5 + x for x in xs]',
        'xs = 5',
    )
    found = [examined([{**item, 'code': code}], [five], 0.5)[0] for code in (times, plus, script)]
    assert [list(records[0]['seen_by']) if records else None for records in found] == [
        None,
        ['text', 'program', 'similar program', 'behaviour'],
        ['text', 'wording'],
    ]


def test_words_are_compared_by_stems_and_synonyms():
    left = ['Deleting the repeated items of arrays', 'Reverse the words']
    right = ['Write a function to delete repeating elements of an array.', 'Write a function to sort a list.']
    found = {(i, j): cosine for i, j, cosine in similar_wordings(left, right, 0.01)}
    assert found[0, 0] > 0.8 and found.get((0, 1), 0) < 0.3 and similar_wordings([], [], 0.1) == []


# ---- data ----


def test_data_of_an_older_detector_are_recognised(tmp_path, capsys):
    cfg = resolve(data_dir=str(tmp_path / 'data'))
    ensure_data(cfg)
    manifest = read_json(tmp_path / 'data' / 'manifest.json')
    assert manifest['parameters']['detector'] == DETECTOR and manifest['behaviour']['compared']
    del manifest['parameters']['detector']
    write_json(tmp_path / 'data' / 'manifest.json', manifest)
    capsys.readouterr()
    ensure_data(cfg)
    said = capsys.readouterr().out
    assert 'decontaminated by leakage-1' in said and 'prepared anew' in said
    ensure_data(cfg)
    assert 'leakage-1' not in capsys.readouterr().out


def test_data_of_an_older_detector_without_their_source_are_used_with_a_warning(tmp_path, capsys):
    source = tmp_path / 'own.jsonl'
    row = {'text': 'A task', 'test_list': ['assert f(1) == 1']}
    rows = [{**row, 'task_id': i, 'split': split} for i, split in enumerate(('train', 'test'))]
    source.write_text('\n'.join(map(json.dumps, rows)))
    prepare(resolve(source='files', mbpp_file=str(source), data_dir=str(tmp_path / 'data')))
    path = tmp_path / 'data' / 'manifest.json'
    manifest = read_json(path)
    del manifest['parameters']['detector']
    write_json(path, manifest)
    before = path.read_bytes()
    ensure_data(resolve(source='files', data_dir=str(tmp_path / 'data')))
    assert 'give --mbpp-file' in capsys.readouterr().out and path.read_bytes() == before


@pytest.mark.slow
def test_known_pairs_of_the_real_files_are_found(mbpp_file):
    """True pairs that a review found by hand among those that had been called clean."""
    tasks = read_tasks(mbpp_file)
    test = [t for t in tasks if t['task_id'] in (505, 263)]
    train = [t for t in tasks if t['task_id'] in (632, 821)]
    assert {(r['train'], r['test']) for r in examined(train, test, 0.7)[0]} == {(632, 505), (821, 263)}


def test_lists_in_another_order_are_the_same_answer_where_their_order_is_no_part_of_the_task():
    """Permutations by another algorithm are; numbers sorted the other way are not."""

    def task(code, *tests):
        return {'entry_point': 'f', 'setup': '', 'code': code, 'tests': list(tests)}

    by_head = 'def g(s):\n    return [s[i] + p for i in range(len(s)) for p in g(s[:i] + s[i + 1 :])] if s else [""]'
    by_tail = 'def f(s):\n    if not s: return [""]\n    out = []\n    for p in f(s[1:]):\n'
    by_tail += '        for j in range(len(s)):\n            new = p[:j] + s[0] + p[j:]\n'
    by_tail += '            if new not in out: out.append(new)\n    return out'
    permute = task(
        by_tail, "assert f('ab') == ['ab', 'ba']", "assert f('abc')[0] == 'abc'", "assert f('abcd')[0] == 'abcd'"
    )
    upwards = task('def f(xs): return sorted(xs)', 'assert f([3, 1, 2]) == [1, 2, 3]', 'assert f([5, 4]) == [4, 5]')
    items = [task(by_head), task('def g(xs): return sorted(xs, reverse=True)')]
    found = compare_behaviour([{**item, 'entry_point': None} for item in items], [permute, upwards]).matches
    assert set(found) == {(0, 0)}


def test_a_list_of_lists_is_compared_with_a_set():
    """Whatever a program returns, comparing it is no error."""
    assert same_value([[1, 2], [3]], {(1, 2), (3,)}) and same_value({1, 2}, [2, 1])
    assert not same_value([[1]], {2}) and not same_value([{}], {1}) and not same_value({1}, [[1, 1]])


def test_several_processes_find_the_same(monkeypatch, capsys):
    "What one process does on a machine with few processors, several do on one with many"
    tasks = [POWERS, {**POWERS, 'code': 'def f(xs, n):\n    return 1 / 0'}]
    bodies = ['pow(x, n) for x in xs', 'x * n for x in xs', 'x + n for x in xs']
    items = [{'id': n, 'code': f'def g{n}(xs, n):\n    return [{bodies[n % 3]}]'} for n in range(40)]
    one = compare_behaviour(items, tasks)
    monkeypatch.setattr(behaviour, 'worker_count', lambda: 8)
    monkeypatch.setattr(behaviour, 'PER_SHARE', 7)
    monkeypatch.setattr(behaviour, 'rules_key', lambda: 'not from the cache')
    divided, asked = behaviour.divided_matches, []
    monkeypatch.setattr(behaviour, 'divided_matches', lambda *a: asked.append(a[4]) or divided(*a))
    assert compare_behaviour(items, tasks) == one and one.matches and asked == [2]
