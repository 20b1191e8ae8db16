"""The second reading: what a program does beside defining is dropped, and what is left is judged again."""

import pytest

from lora_mbpp.evaluation.definitions import by_definitions, definitions_of, definitions_summary, with_definitions
from lora_mbpp.evaluation.judging import score
from lora_mbpp.sandbox.capabilities import require_layers
from lora_mbpp.sandbox.engine import Limits

TASK = {'task_id': 1, 'tests': ['assert add(1, 2) == 3'], 'setup': '', 'entry_point': 'add'}
KEPT = 'def add(a, b):\n    return a + b'


@pytest.mark.parametrize(
    'code, left',
    [
        (f'{KEPT}\nprint(add(1, 2))', KEPT),
        (f'{KEPT}\nassert add(1, 2) == 4', KEPT),
        (f'{KEPT}\nif __name__ == "__main__":\n    import sys\n    add(*sys.argv)', KEPT),
        (f'{KEPT}\nfor i in range(3):\n    add(i, i)', KEPT),
        (f'{KEPT}\nvalue = input()\nadd(value, 1)', KEPT),
        (
            'TABLE = [1]\ndef add(a, b):\n    return TABLE[0] * a + b\nadd(1, 2)',
            'TABLE = [1]\n\ndef add(a, b):\n    return TABLE[0] * a + b',
        ),
        (
            'one = 1\ntwo = one + one\ndef add(a, b):\n    return a + b + two\n1 / 0',
            'one = 1\ntwo = one + one\n\ndef add(a, b):\n    return a + b + two',
        ),
        (
            'try:\n    import numpy\nexcept ImportError:\n    numpy = None\nadd = lambda a, b: a + b\nadd(1, 2)',
            'try:\n    import numpy\nexcept ImportError:\n    numpy = None\nadd = lambda a, b: a + b',
        ),
        (KEPT, KEPT),
        ('def add(a, b:', 'def add(a, b:'),
    ],
)
def test_what_stays(code, left):
    assert definitions_of(code, 'add') == left


def test_an_example_that_fails_is_no_failure_of_the_function(tmp_path):
    layers, limits = require_layers('auto', engine='auto'), Limits(cpu_s=5)
    programs = [
        f'{KEPT}\nassert add(1, 2) == 4',
        f'{KEPT}\nadd(1, 2)',
        'def add(a, b):\n    return a - b\n1 / 0',
        KEPT,
        'oh no (',
    ]
    records = [
        {'task_id': 1, 'sample_idx': n, 'text': code, 'code': code, 'extraction': 'plain'}
        for n, code in enumerate(programs)
    ]
    first = score(records, [TASK], tmp_path / 'first.jsonl', limits, layers)
    both = with_definitions(first, [TASK], tmp_path / 'second.jsonl', limits, layers)
    assert [r['verdict'] for r in both] == ['runtime_error', 'passed', 'runtime_error', 'passed', 'syntax_error']
    assert [r['verdict'] for r in by_definitions(both)] == [
        'passed',
        'passed',
        'wrong_answer',
        'passed',
        'syntax_error',
    ]
    assert definitions_summary(both)['pass_at_1'] == 0.6 and definitions_summary(both)['changed'] == 3
