"""Answers of models in many forms, each with the program that it gives.

`ANSWERS`: what it is, the answer, the program that is to be taken out of it (which has to define `double`).
`STUBS`: the same for answers that continue a prompt of HumanEval's kind (which has to define `total`)."""

RIGHT = 'def double(x):\n    return 2 * x'
LONGER = '''import math

FACTOR = 2


def double(x):
    """Twice a number.

    >>> double(2)
    4
    """
    if x is None:
        raise ValueError('nothing to double')
    return math.prod([FACTOR, x])'''
FENCES_IN_DOCSTRING = '''def double(x):
    """Twice a number.

    Example:

    ```
    double(2)
    ```

    ```python
    double(-3)
    ```
    """
    return 2 * x'''
FENCES_IN_STRING = """TEMPLATE = '''
```python
{}
```
'''


def double(x):
    assert TEMPLATE.format(x).count('```') == 2
    return 2 * x"""
HELPER = 'def twice(x):\n    return x + x'
MAIN = 'def double(x):\n    return twice(x)'
WRONG = 'def double(x):\n    return x + 2'
THOUGHT = f'First idea:\n```python\n{WRONG}\n```\nNo, it has to be a product.\n'


def block(code, language='python', mark='```'):
    """A fenced block."""
    return f'{mark}{language}\n{code}\n{mark}'


def prompted(code):
    """Code as an interpreter shows it."""
    return '\n'.join(('... ' if line[:1] == ' ' else '>>> ') + line for line in code.split('\n'))


def indented(text, by=4):
    """A text moved to the right."""
    return '\n'.join(' ' * by + line if line else line for line in text.split('\n'))


LANGUAGES = [
    '',
    'python',
    'Python',
    'PYTHON',
    'py',
    'Py',
    'python3',
    'python3.11',
    'Python 3',
    'ipython',
    'pycon',
    '{python}',
    '{.python}',
    'python title="double.py"',
    'python {linenos=true}',
    ' python',
    'python ',
    'python:double.py',
    'text',
    'c',
    'python code',
    'plaintext',
    'code',
]

ANSWERS = [
    ('the program and nothing else', RIGHT, RIGHT),
    ('a longer program and nothing else', LONGER, LONGER),
    ('blank lines around', f'\n\n{RIGHT}\n\n', RIGHT),
    ('a blank in front of all', f' {RIGHT}', RIGHT),
    ('a byte order mark', f'\ufeff{RIGHT}', RIGHT),
    ('Windows line ends', LONGER.replace('\n', '\r\n'), LONGER),
    ('old Macintosh line ends', LONGER.replace('\n', '\r'), LONGER),
    ('a lambda', 'double = lambda x: 2 * x', 'double = lambda x: 2 * x'),
    ('a type beside the name', 'double: object = lambda x: 2 * x', 'double: object = lambda x: 2 * x'),
    ('defined in a branch', 'if True:\n    def double(x):\n        return 2 * x', None),
    (
        'defined in try',
        'try:\n    from operator import mul\nfinally:\n    def double(x):\n        return mul(2, x)',
        None,
    ),
    ('made by a call', 'from functools import partial\nfrom operator import mul\n\ndouble = partial(mul, 2)', None),
    ('a test of its own behind', f'{RIGHT}\n\n\nassert double(1) == 2\nprint(double(3))', None),
    ('fences in the docstring of a plain program', FENCES_IN_DOCSTRING, FENCES_IN_DOCSTRING),
    ('fences in a string of a plain program', FENCES_IN_STRING, FENCES_IN_STRING),
    ('fences in a docstring, words behind', f'{FENCES_IN_DOCSTRING}\n\nThis doubles x.', FENCES_IN_DOCSTRING),
    ('fences in a docstring, a fence behind', f'{FENCES_IN_DOCSTRING}\n```\nThis doubles x.', FENCES_IN_DOCSTRING),
    ('fences in a comment', '# see ```docs``` for more\n' + RIGHT, None),
    *((f'a fence of language {name!r}', block(RIGHT, name), RIGHT) for name in LANGUAGES),
    ('Windows line ends in a fence', block(LONGER).replace('\n', '\r\n'), LONGER),
    ('fences in a docstring in a fence', block(FENCES_IN_DOCSTRING), FENCES_IN_DOCSTRING),
    ('fences in a string in a fence', 'Here:\n' + block(FENCES_IN_STRING) + '\nGood luck!', FENCES_IN_STRING),
    ('four backticks', block(RIGHT, mark='````'), RIGHT),
    ('four backticks around three', block(block(RIGHT), 'markdown', '````'), RIGHT),
    ('three backticks around three', block(block(RIGHT), 'markdown'), RIGHT),
    ('tildes', block(RIGHT, mark='~~~'), RIGHT),
    ('tildes with a language', block(LONGER, 'python', '~~~'), LONGER),
    ('tildes around backticks', block(block(RIGHT), 'md', '~~~~'), RIGHT),
    ('words before and behind', f"Sure! Here's how:\n\n{block(RIGHT)}\n\nIt's simple, isn't it?", RIGHT),
    ('the fence opens behind words', f'Here it is: {block(RIGHT)}', RIGHT),
    ('the fence closes behind the code', f'```python\n{RIGHT}```\nDone.', RIGHT),
    ('words right behind the closing fence', f'```python\n{RIGHT}\n``` This doubles x, and no more.', RIGHT),
    ('code on the line of the fence', '```python def double(x):\n    return 2 * x\n```', RIGHT),
    ('code on the line of a fence without language', '```def double(x):\n    return 2 * x\n```', RIGHT),
    ('all on one line', '```python def double(x): return 2 * x```', 'def double(x): return 2 * x'),
    ('all on one line, no language', '```def double(x): return 2 * x```', 'def double(x): return 2 * x'),
    ('single backticks', 'Use `def double(x): return 2 * x` here.', 'def double(x): return 2 * x'),
    ('a closing fence without an opening one', f'{RIGHT}\n```\n', RIGHT),
    ('a closing fence and words', f'{LONGER}\n```\n\nThis is the function. It works.', LONGER),
    ('a closing fence and an example', f'{RIGHT}\n```\nExample:\n```python\nprint(double(2))\n```', RIGHT),
    ('an opening fence without a closing one', f'Sure:\n```py\n{LONGER}', LONGER),
    ('not closed, and broken off behind the function', f'```python\n{RIGHT}\n\n\nassert double(', RIGHT),
    ('not closed, and words behind', f'```python\n{RIGHT}\n\nThis function doubles x.', RIGHT),
    ('not closed, another opens', f'```python\n{RIGHT}\n```python\nprint(double(2))\n```', RIGHT),
    ('not closed, words, another opens', f'```python\n{RIGHT}\n\nUse it so:\n```python\nprint(double(2))\n```', RIGHT),
    ('an indented fence', indented(block(RIGHT), 2), RIGHT),
    ('a list item', f'1. ```python\n{indented(RIGHT, 3)}\n   ```', RIGHT),
    ('a list item with a dash', f'- ```python\n{indented(RIGHT, 2)}\n  ```\n- That is all.', RIGHT),
    ('below a list item', f'1. The function:\n\n{indented(block(LONGER), 3)}\n\n2. That is all.', LONGER),
    ('a quotation', '\n'.join('> ' + line for line in block(RIGHT).split('\n')), RIGHT),
    ('an indented block', f'Here is the code:\n\n{indented(RIGHT)}\n\nIt doubles x.', RIGHT),
    ('an indented block with blank lines', f'The code:\n\n{indented(LONGER)}\n\nIt doubles x.', LONGER),
    ('usage first', f'```\ndouble(1)\n```\nwith\n{block(RIGHT)}', RIGHT),
    ('usage behind', f'{block(RIGHT)}\n\nExample:\n{block("print(double(4))")}', RIGHT),
    ('a shell command first', f'{block("pip install numpy", "bash")}\n{block(RIGHT)}', RIGHT),
    ('output behind', f'{block(RIGHT)}\nOutput:\n{block("4", "text")}', RIGHT),
    ('two versions: the first that hands something back', f'{block(RIGHT)}\nOr:\n{block(WRONG)}', RIGHT),
    ('a sketch first', f'{block("def double(x):" + chr(10) + "    pass")}\nFilled in:\n{block(RIGHT)}', RIGHT),
    ('a helper in a block of its own', f'{block(HELPER)}\nand\n{block(MAIN)}', f'{HELPER}\n\n{MAIN}'),
    ('a helper behind', f'{block(MAIN)}\nwhere\n{block(HELPER)}', f'{MAIN}\n\n{HELPER}'),
    (
        'an import in a block of its own',
        f'{block("import math")}\nThen\n{block(LONGER[13:])}',
        LONGER.replace('\n\nF', '\n\nF'),
    ),
    (
        'helpers of helpers, and a block that has nothing to do with it',
        "\n".join(map(block, ["FACTOR = 2", "def twice(x):\n    return FACTOR * x", "a = 1", MAIN])),
        f'FACTOR = 2\n\ndef twice(x):\n    return FACTOR * x\n\n{MAIN}',
    ),
    ('a function in pieces', f'{block("def double(x):")}\nthen\n{block("    return 2 * x")}', RIGHT),
    (
        'a function in pieces that begins as one',
        f'{block("def double(x):" + chr(10) + "    y = x")}\nthen\n{block("    return x + y")}',
        'def double(x):\n    y = x\n    return x + y',
    ),
    ('prompts', block(prompted(RIGHT)), RIGHT),
    (
        'prompts with an answer',
        block(prompted(RIGHT) + '\n>>> x = double(2)\n>>> x\n4', 'pycon'),
        f'{RIGHT}\nx = double(2)\nx',
    ),
    ('prompts without a fence', prompted(RIGHT), RIGHT),
    ('prompts of IPython', block('In [1]: def double(x):\n   ...:     return 2 * x'), RIGHT),
    ('words around', f'Here you are.\n\n{LONGER}\n\nThis returns twice x.', LONGER),
    ('one word behind', f'{RIGHT}\n\nDone', RIGHT),
    ('words that parse behind', f'{RIGHT}\n\nNote: important', RIGHT),
    (
        'a constant first, words around',
        'Sure:\nFACTOR = 2\ndef double(x):\n    return FACTOR * x\nBye.',
        'FACTOR = 2\ndef double(x):\n    return FACTOR * x',
    ),
    ('an import between sentences', f'First\n\nimport math\n\nis needed, then\n\n{LONGER[13:]}\n\nis all.', LONGER),
    ('headings', f'### Solution\n\n{RIGHT}\n\n**Explanation:** it doubles x.', f'{RIGHT}'),
    (
        'a decorator',
        f'See:\n\nimport functools\n\n@functools.cache\n{RIGHT}\n\nGood.',
        f'import functools\n\n@functools.cache\n{RIGHT}',
    ),
    ('a thought with a wrong draft', f'<think>\n{THOUGHT}</think>\n\n{block(RIGHT)}', RIGHT),
    ('a thought, then a plain program', f'<think>\n{THOUGHT}</think>\n\n{RIGHT}', RIGHT),
    ('a thought that the prompt had opened', f'{THOUGHT}</think>\n\n{block(RIGHT)}', RIGHT),
    ('two thoughts', f'<think>\n{THOUGHT}</think>\n<think>\n{THOUGHT}</think>\n{block(RIGHT)}', RIGHT),
    ('<thinking>', f'<thinking>{THOUGHT}</thinking>\n{block(RIGHT)}', RIGHT),
    ('[THINK]', f'[THINK]{THOUGHT}[/THINK]{block(RIGHT)}', RIGHT),
    (
        'channels',
        f'<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant<|channel|>final<|message|>{block(RIGHT)}',
        RIGHT,
    ),
    ('the tags of a thought in a string', block("def double(x):\n    return 2 * x if '</think>' else '<think>'"), None),
    (
        'the tags of a thought in a docstring',
        block('def double(x):\n    """Not of <think> and </think>."""\n    return 2 * x'),
        None,
    ),
    ('[BEGIN] and [DONE]', f'[BEGIN]\n{RIGHT}\n[DONE]', RIGHT),
    (
        '[DONE] alone, and the next task',
        f'{RIGHT}\n[DONE]\n\nYou are an expert Python programmer.\n[BEGIN]\n{WRONG}\n[DONE]',
        RIGHT,
    ),
    ('[DONE] on the last line', f'{RIGHT} [DONE]', RIGHT),
    ('[BEGIN] and code on one line', '[BEGIN] def double(x): return 2 * x [DONE]', 'def double(x): return 2 * x'),
    ('[PYTHON]', f'[PYTHON]\n{RIGHT}\n[/PYTHON]', RIGHT),
    ('<code>', f'<code>\n{RIGHT}\n</code>', RIGHT),
    ('<code> on one line', '<code>def double(x): return 2 * x</code>', 'def double(x): return 2 * x'),
    ('<pre><code>', f'<pre><code class="language-python">{RIGHT}\n</code></pre>', RIGHT),
    ('<answer> around a fence', f'<answer>\n{block(RIGHT)}\n</answer>', RIGHT),
    ('an end token in the text', f'{RIGHT}\n<|im_end|>', RIGHT),
    ('an end token behind the code', f'{RIGHT}<|endoftext|>', RIGHT),
    ('an end token, and another turn', f'{RIGHT}</s>\nuser\nNow halve it.\nassistant\n{WRONG}', RIGHT),
    ('a header of the turn', f'<|im_start|>assistant\n{block(RIGHT)}<|im_end|>', RIGHT),
    (
        'a constant that has the name of a mark',
        block("END = 2\ntrie = {END: 2}\n\n\ndef double(x):\n    return trie[END] * x"),
        None,
    ),
    ('an end token in a string', block("def double(x):\n    return 2 * x if '<|im_end|>' else '</s>'"), None),
    ('a comment with an odd quote', block("def double(x):  # don't triple it\n    return 2 * x"), None),
    ('odd quotes before the fence', f'"""Here\'s the code you\'re after:\n{block(RIGHT)}', RIGHT),
    ('a backslash in a string', block("def double(x):\n    return 2 * x + len('\\\\') - 1"), None),
    (
        'an f-string over lines',
        block('def double(x):\n    text = f"""\n```\n{x}\n```\n"""\n    return 2 * int(text.split()[1])'),
        None,
    ),
]

STUB = '''from typing import List


def total(xs: List[int]) -> int:
    """Sum of a list.
    >>> total([1, 2])
    3
    """
'''
WHOLE = 'def total(xs):\n    return sum(xs)'
STUBS = [
    ('the body', '    return sum(xs)\n', f'{STUB}    return sum(xs)'),
    ('the body in a fence', '```python\n    return sum(xs)\n```', f'{STUB}    return sum(xs)'),
    (
        'the body in a fence, at the margin',
        block('s = 0\nfor x in xs:\n    s += x\nreturn s'),
        f'{STUB}    s = 0\n    for x in xs:\n        s += x\n    return s',
    ),
    ('the body and a closing fence', '    return sum(xs)\n```\n\nThis sums them.', f'{STUB}    return sum(xs)'),
    (
        'the body, marks in a comment',
        '    # see ```docs```\n    return sum(xs)\n',
        f'{STUB}    # see ```docs```\n    return sum(xs)',
    ),
    ('the whole function in a fence', f'Sure.\n{block(WHOLE)}', WHOLE),
    ('the whole function', WHOLE, WHOLE),
    ('the prompt and its body', f'{block(STUB + "    return sum(xs)")}', f'{STUB}    return sum(xs)'),
]
