"""Text that a model wrote is parsed in this process: whatever it is, that raises nothing and takes little."""

import ast
import json
import subprocess
import sys
import time

import pytest

from lora_mbpp.evaluation.definitions import definitions_of
from lora_mbpp.generation.code_blocks import error_line
from lora_mbpp.generation.extraction import extract_code
from lora_mbpp.tasks.behaviour import runnable
from lora_mbpp.tasks.normal_form import normal_form
from lora_mbpp.tasks.programs import LONGEST, as_source, defined_names, entry_point, is_python, parsed, unbound_names

N = 30_000  # characters of each
SHAPES = {
    'brackets': '(' * (N // 2) + ')' * (N // 2),
    'open brackets': '[{(' * (N // 3),
    'signs': '-' * N + '1',
    'nots': 'not ' * (N // 4) + '1',
    'lambdas': 'lambda: ' * (N // 8) + '1',
    'sum': 'x = ' + '1 + ' * (N // 4) + '1',
    'powers': 'x = ' + '1 ** ' * (N // 5) + '1',
    'comparisons': 'x = ' + '1 < ' * (N // 4) + '1',
    'calls': 'f' + '()' * (N // 2),
    'attributes': 'a' + '.a' * (N // 2),
    'items': 'x = a' + '[0]' * (N // 3),
    'import': 'import a' + '.a' * (N // 2),
    'import over lines': 'import a' + ' \\\n . a' * (N // 7),
    'elif': 'if 1: pass\n' + 'elif 1: pass\n' * (N // 13),
    'indented': ''.join(' ' * n + 'if 1:\n' for n in range(300)) + ' ' * 300 + 'pass',
    'targets': 'a = ' * (N // 4) + '1',
    'chain of names': '\n'.join(f'x{n} = x{n + 1}' for n in range(5_000, 0, -1)) + '\ndef f(): return x1',
    'statements': 'a = 1\n' * (N // 6) + 'def f(): return a',
    'a number in hex': 'def f():\n    return 0x' + 'f' * (N - 20),
    'a number in hex, used': 'x = 0x' + 'f' * 8_000 + '\ndef f(): return x\nprint(f())',
    'a decimal number': 'def f():\n    return ' + '7' * (N - 20),
    'a string': 'def f():\n    return "' + 'a' * (N - 20) + '"',
    'strings in a row': '"a" ' * (N // 4),
    'f-strings': 'f"{' * (N // 6) + '1' + '}"' * (N // 6),
    'null bytes': 'def f():\n    return "' + '\0' * 1000 + '"',
    'half a pair': 'def f():\n    return "\ud800"',
    'halves of pairs': '\udc80\n' * 1000,
    'bell and escape': '\x07\x1b[31m' * 1000,
    'nonlocal': 'def f():\n    nonlocal x\n',
    'global after use': 'def f(x):\n    global x\n',
    'fences': '```\n' * (N // 4),
    'fences that open': '```python\ndef f():\n' * (N // 20),
    'quotes': '"' * N,
    'triple quotes': "'''\n" * (N // 4),
    'backslashes': '\\\n' * (N // 2),
    'prompts': '>>> ' * (N // 4),
    'definitions': 'def f(): pass\n' * (N // 14),
    'half definitions': 'def f(\n' * (N // 7),
    'tags': '<think>\n' * (N // 8),
    'blanks': ' ' * N + 'x',
    'tabs': '\t' * N + 'x',
    'match': 'match x:\n case ' + '1|' * (N // 2) + '1: pass',
    'decorators': '@a\n' * (N // 3) + 'def f(): pass',
    'comprehension': 'x = [x ' + 'for x in y ' * (N // 11) + ']',
}
READERS = {
    'names': lambda text: (defined_names(text), unbound_names(text), entry_point(['assert f(1)'], text)),
    'is_python': lambda text: is_python('', text),
    'error_line': error_line,
    'extract_code': lambda text: (extract_code(text, 'f'), extract_code(text)),
    'extract_code in a fence': lambda text: extract_code(f'Here it is:\n```python\n{text}\n```\nDone.', 'f'),
    'definitions_of': lambda text: definitions_of(f'{text}\nprint(1)', 'f'),
    'normal_form': normal_form.__wrapped__,
    'runnable': runnable,
}


@pytest.mark.parametrize('shape', SHAPES)
def test_hostile_text_is_read_in_little_time(shape):
    for name, read in READERS.items():
        began = time.process_time()
        read(SHAPES[shape])
        assert time.process_time() - began < 8, name


MEMORY = """
import json, resource, sys
from lora_mbpp.tasks.programs import parsed, unbound_names
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for text in json.loads(sys.stdin.read()):
    parsed(text), unbound_names(text)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='counts KiB as Linux does')
def test_parsing_takes_little_memory():
    much = ['1,' * 5_000_000, 'import a' + '.a' * 45_000, 'x\n' * 5_000_000, 'a = 1\n' * 16_000]
    run = subprocess.run([sys.executable, '-c', MEMORY], input=json.dumps(much), capture_output=True, text=True)
    assert int(run.stdout) < 300, (run.stdout[:100], run.stderr[-500:])


def test_what_is_too_long_is_no_python():
    fits = 'x = 1\n' * (LONGEST // 6)
    assert parsed(fits) and not parsed(fits + '#' * 6) and parsed('import ' + '.'.join('a' * 150))
    assert not parsed('import ' + '.'.join('a' * 300)) and not unbound_names('import ' + ' . '.join('a' * 300) + '\ny')


def test_a_program_that_cannot_be_written_again_stays():
    code = 'x = 0x' + 'f' * 5000 + '\ndef f(): return x\nprint(f())'
    assert definitions_of(code) == code and normal_form(code) is None and as_source(parsed(code)) is None
    assert definitions_of('x = 1\ndef f(): return x\nprint(f())') == 'x = 1\n\ndef f():\n    return x'


def test_definitions_are_followed_from_name_to_name():
    lines = [f'x{n} = x{n + 1}' for n in range(50)]
    code = '\n'.join(['y = 5', 'x50 = 0', *lines[::-1], 'x50 += 1', 'def f(): return x0', 'print(y)'])
    kept = ast.parse(definitions_of(code)).body
    assert len(kept) == 53 and ast.unparse(kept[0]) == 'x50 = 0' and 'y' not in ast.unparse(kept)
