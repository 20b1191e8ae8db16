"""The program in an answer: a corpus of answers with the program each gives, the stop that agrees with it, any text."""

import json
import random
import time

import pytest
from answers import ANSWERS, RIGHT, STUB, STUBS, THOUGHT, block
from conftest import ROOT

from lora_mbpp.core.errors import complaint
from lora_mbpp.evaluation.samples import sample_code, shows_signs
from lora_mbpp.generation.code_blocks import begun_thought
from lora_mbpp.generation.extraction import EXTRACTION, extract_code, is_complete
from lora_mbpp.reporting.loading import check_comparable, load_runs
from lora_mbpp.tasks.humaneval import HUMANEVAL_PROTOCOL, with_preamble
from lora_mbpp.tasks.programs import bound_names, parsed, unbound_names

CASES = ROOT.parent / 'shared' / 'cases' / 'answers.jsonl'
NAMES = [why for why, _, _ in ANSWERS]
HUMANEVAL = {'task_id': 1, 'protocol': HUMANEVAL_PROTOCOL, 'text': STUB, 'entry_point': 'total'}
MBPP = {'task_id': 1, 'entry_point': 'double', 'text': 'Double it.'}


def expected(text, program):
    """The program of an entry of the corpus: None stands for all of the text, or of its one block."""
    if program is not None:
        return program
    lines = text.strip().split('\n')
    return '\n'.join(lines[1:-1] if lines[0] == '```python' else lines)


def run(code, test):
    """Whether a program of ours passes."""
    names = {'__name__': 'answer'}
    exec(code, names)
    exec(test, names)


def test_the_corpus_is_large_and_each_entry_has_a_name():
    assert len(ANSWERS) >= 120 and len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize('why, text, program', ANSWERS, ids=NAMES)
def test_the_program_of_an_answer(why, text, program):
    code, how = extract_code(text, 'double')
    assert code == expected(text, program), how
    run(code, 'assert double(2) == 4 and double(-3) == -6')


@pytest.mark.parametrize('why, text, program', ANSWERS, ids=NAMES)
def test_the_stop_cuts_no_right_answer(why, text, program):
    """Wherever generation would stop, the program so far is right. Generation knows the thought that a prompt began."""
    text = f'<think>\n{text}' if 'the prompt had opened' in why else text
    ends = [i for i in range(1, len(text) + 1) if text[i - 1] in '`~' and is_complete(text[:i], 'double')]
    for end in ends[:3]:
        run(extract_code(text[:end], 'double')[0], 'assert double(2) == 4 and double(-3) == -6')


def stops(text):
    """True if generation of a text would stop in it."""
    return any(text[i - 1] in '`~' and is_complete(text[:i], 'double') for i in range(1, len(text) + 1))


def test_the_stop_comes_as_early_as_it_can():
    stopped = [why for why, text, _ in ANSWERS if stops(text)]
    assert len(stopped) > 70
    text = f'Here:\n{block(RIGHT)}'
    assert is_complete(text, 'double') and not is_complete(text[:-1], 'double')
    assert is_complete(text, None) and not is_complete(text[:-1], None)
    assert not is_complete(block('def double(x):\n    return twice(x)'), 'double')
    assert is_complete(block('def double(x):\n    return twice(x)'), 'double', frozenset({'twice'}))
    assert not is_complete(f'<think>\n{THOUGHT}', 'double') and not is_complete(f'<think>\n{block(RIGHT)}', 'double')


@pytest.mark.parametrize('why, text, program', STUBS, ids=[why for why, _, _ in STUBS])
def test_the_program_of_an_answer_that_continues_a_prompt(why, text, program):
    code, how = extract_code(text, 'total', STUB)
    assert code == program, how
    for row in ({'completion': text}, {'solution': code}):
        found, _ = sample_code(row, HUMANEVAL, 'row 1')
        run(with_preamble(found, 'from typing import List'), 'assert total([1, 2]) == 3')


@pytest.mark.parametrize(
    'text, how',
    [
        ('I cannot do that.', 'none'),
        ('', 'none'),
        (f'<think>\n{block(RIGHT)}', 'none'),  # still thinking
        (block('def halve(x):\n    return x / 2'), 'fence'),
        (block('def double(x:\n    return'), 'fence'),
        ('```python\ndef double(x):\n    if x:\n        return 1\n    elif', 'fence unclosed'),
        ('def double(x):\n    if x:\n        return 1\n    elif', 'prose around'),
        (block(f'{RIGHT}\nprint "2"'), 'fence'),  # a syntax error is not mended
        (block('total([1, 2])'), 'fence'),
    ],
)
def test_what_is_wrong_stays_wrong(text, how):
    code, found = extract_code(text, 'double', STUB.replace('total', 'double') if 'total' in text else '')
    tree = parsed(code)
    assert found == how and not (tree and 'double' in bound_names(tree))


def test_a_solution_that_parses_is_not_touched():
    for code in (
        'x = """\n```python\ndef double(x): return 0\n```\n"""',
        'def double(x):\n    return x [DONE]',
        RIGHT,
        '',
    ):
        assert sample_code({'solution': code}, MBPP, 'row 1') == (code, 'given')
    broken = f'{RIGHT}\n\ndef g('
    assert sample_code({'solution': broken}, MBPP, 'row 1') == (broken, 'given')  # nobody else's program is repaired
    assert sample_code({'solution': f'[BEGIN]\n{RIGHT}\n[DONE] x'}, MBPP, 'row 1')[0] == RIGHT
    assert shows_signs('<think>a</think>b') and not shows_signs(broken)


@pytest.mark.skipif(not CASES.exists(), reason='needs ../shared/cases')
def test_the_shared_cases():
    for line in CASES.read_text(encoding='utf-8').splitlines():
        case = json.loads(line)
        if 'text' in case:
            code, _ = extract_code(case['text'], case['entry_point'])
        else:
            task = {**HUMANEVAL, 'text': case['prompt'], 'entry_point': case['entry_point']}
            code, _ = sample_code(case, task, 'row 1')
            code = with_preamble(code, case['prompt'].partition('def ')[0].strip())
        run(code, '\n'.join(case['tests']))


@pytest.mark.parametrize(
    'prompt, begun',
    [
        ('user\nhi\nassistant\n', ''),
        ('assistant\n<think>\n', '<think>\n'),
        ('assistant\n<think>\n\n</think>\n\n', ''),
        ('What is <think>?\nassistant\n', ''),
    ],
)
def test_a_thought_that_the_prompt_begins(prompt, begun):
    assert begun_thought(prompt) == begun
    assert not (begun and is_complete(begun + block(RIGHT), 'double'))


def test_names():
    code = 'from a import b as c\nimport d.e\ntry:\n    f, (g, *h) = 1, (2, 3)\nexcept E:\n    i = [j for j in k]\n'
    code += 'while (l := m):\n    pass'
    assert bound_names(parsed(code)) == {'c', 'd', 'f', 'g', 'h', 'i', 'l'}
    assert unbound_names(code) == {'E', 'k', 'm'}
    assert unbound_names('def f(x: T, y=u) -> V:\n    global w\n    w = 1\n    return lambda: z + x + len(y)') == {
        'T',
        'u',
        'V',
        'z',
    }
    assert unbound_names('from math import *\ny = sqrt(2)') == set() == unbound_names('def f(:')


# --- any text

WAYS = 'plain', 'fence', 'fence unclosed', 'prose around', 'completion', 'none'
BITS = [
    '```',
    '````',
    '~~~',
    '`',
    '\n',
    '\n\n',
    '    ',
    ' ',
    'def double(x):',
    'def f(:',
    'return 2 * x',
    '"""',
    "'''",
    '"',
    "'",
    '\\',
    '#',
    '<think>',
    '</think>',
    '[THINK]',
    '[DONE]',
    '>>> ',
    '1. ',
    '> ',
    'python',
    'import math',
    'from x import',
    'x = ',
    '(',
    ')',
    '[',
    '{',
    '}',
    '\x00',
    '\ufeff',
    '\ud83d',
    'é',
    '\t',
    '\r',
    '<|im_end|>',
    '<code>',
    'async ',
    '@',
    'lambda',
    '*',
    ':',
    '\u2028',
    '\x0c',
    'f"{',
    'nonlocal x',
    'In [1]: ',
    'match x:',
    'else:',
]


def test_no_text_raises():
    rng = random.Random(0)
    for _ in range(1500):
        text = ''.join(rng.choice(BITS) for _ in range(rng.randint(0, 40)))
        for name, stub in (('double', ''), (None, ''), ('double', 'def double(x):\n    """Doc."""\n')):
            code, how = extract_code(text, name, stub)
            assert isinstance(code, str) and how in (
                'plain',
                'fence',
                'fence unclosed',
                'prose around',
                'completion',
                'none',
            )
            is_complete(text, name)


@pytest.mark.parametrize(
    'bit',
    [
        *BITS[:12],
        '```\n',
        '```\n\\"""\n',
        '[DONE]\n',
        'import x is y\n',
        'x = (\n',
        'x = 5 apples\n',
        '`a` ',
        '>>> x\n',
        '```a``` ',
        'def double(x):\n    return g(x)\n\nwords\n\n',
        '```\ndef double(x):\n    y = x\n```\n',
        '</think>\n',
        '    def f(x):\n        return x\n\n',
    ],
)
def test_long_texts_take_no_more_than_their_length(bit):
    """A hundred thousand characters; quadratic time would be minutes."""
    text = (bit * (100_000 // len(bit) + 1))[:100_000]
    started = time.process_time()
    extract_code(text, 'double', 'def double(x):\n    """Doc."""\n')
    is_complete(text, 'double')
    assert time.process_time() - started < 10


def test_results_of_an_older_rule_are_read_and_said_to_be(capsys):
    """The results that the repository ships; beside a newer run they are refused in a sentence."""
    runs = load_runs(ROOT / 'results' / 'smollm2-135m', 'smollm2-135m')
    assert 'extraction-v1' in capsys.readouterr().out
    info = runs[1]['eval_info']
    newer = {**runs[1], 'eval_info': {**info, 'settings': {**info['settings'], 'extraction': EXTRACTION}}}
    assert 'extraction None and extraction-v2' in complaint(check_comparable, [runs[0], newer])
