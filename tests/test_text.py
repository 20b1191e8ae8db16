"""Text as it comes: strings in code, half surrogate pairs, marks at the beginning of a file, gzip, ids of MBPP."""

import gzip
import io
import json
import sysconfig
import tokenize
from pathlib import Path

import pytest

from lora_mbpp.core.config import resolve
from lora_mbpp.core.errors import complaint
from lora_mbpp.core.files import append_jsonl, read_json, read_jsonl, read_table, well_formed, write_json, write_jsonl
from lora_mbpp.evaluation.samples import evaluate_samples, self_check
from lora_mbpp.tasks.humaneval import with_preamble
from lora_mbpp.tasks.loading import literal_tasks, read_tasks, task_set
from lora_mbpp.tasks.programs import normalise_code, strings_over_lines
from lora_mbpp.tasks.prompts import read_training_rows
from lora_mbpp.tasks.sources import load_source

HALF = '\ud83d'


# --- strings in code


@pytest.mark.parametrize(
    'code, tidy',
    [
        ('def f():\r\n\treturn 1  \r\n', 'def f():\n    return 1'),
        ('x = """a  \n\tb\t\n"""  \n', 'x = """a  \n\tb\t\n"""'),
        ("x = '''a  \n\tb\t\n'''  \n\ty", "x = '''a  \n\tb\t\n'''\n    y"),
        ('x = f"""a  \n\t{b}  \n"""', 'x = f"""a  \n\t{b}  \n"""'),
        ('x = r"""a\\"""  \n\ty', 'x = r"""a\\"""  \n\ty'),  # the quotes are escaped: this string does not end
        ("x = 'a  \\\n\tb'  \n\ty", "x = 'a  \\\n\tb'\n    y"),
        ("assert f() == ''' * \n***'''", "assert f() == ''' * \n***'''"),
        ("# it's a comment with \"\"\"  \n\tx", "# it's a comment with \"\"\"\n    x"),
        ('x = "#"  \n\ty = \'"""\'  ', 'x = "#"\n    y = \'"""\''),
        ("x = '''no end  \n\ty  \n", "x = '''no end  \n\ty  "),
        ('function f() {  \n\treturn "a";  \n}', 'function f() {\n    return "a";\n}'),
        ('', ''),
    ],
)
def test_layout_is_put_in_order_and_strings_are_not(code, tidy):
    assert normalise_code(code) == tidy == normalise_code(tidy)


def test_strings_are_those_of_tokenize():
    """On the standard library: the same lines begin inside a string."""
    compared = 0
    for path in sorted(Path(sysconfig.get_path('stdlib')).glob('*.py'))[::3]:
        code = path.read_text(encoding='utf-8')
        tokens = tokenize.generate_tokens(io.StringIO(code).readline)
        wanted = {line for t in tokens if t.type == tokenize.STRING for line in range(t.start[0], t.end[0])}
        if 'FSTRING_START' in tokenize.tok_name.values() and 'f"""' in code:
            continue  # tokenize hands those out in parts
        found = set()
        for start, end in strings_over_lines(code):
            first = code.count('\n', 0, start) + 1
            found.update(range(first, first + code.count('\n', start, end)))
        assert found == wanted, path
        compared += 1
    assert compared > 40


def test_a_reference_whose_strings_end_in_blanks_passes(tmp_path):
    task = {
        'task_id': 1,
        'text': 'Draw a diamond.',
        'code': 'def diamond():\n\treturn """ * \n***\n\t* """',
        'test_list': ['assert diamond() == """ * \n***\n\t* """', 'assert len(diamond()) == 11'],
    }
    (tmp_path / 't.jsonl').write_text(json.dumps(task))
    report = self_check(read_tasks(tmp_path / 't.jsonl'), resolve())
    assert (report['passed'], report['judged']) == (1, 1), report


def test_what_normalising_changes_in_real_data(mbpp_file):
    """One reference of MBPP has such a string, and no test and no set-up has one."""

    def as_it_was(code):
        lines = code.replace('\r\n', '\n').replace('\r', '\n').split('\n')
        indents = [line[: len(line) - len(line.lstrip(' \t'))] for line in lines]
        tidy = [(i.expandtabs(4) + line[len(i) :]).rstrip() for i, line in zip(indents, lines)]
        return '\n'.join(tidy).strip('\n')

    changed = [
        (row['task_id'], name)
        for row in read_table(mbpp_file)
        for name in ('code', 'test_setup_code', 'test_list')
        for code in ([row[name]] if isinstance(row[name], str) else row[name])
        if normalise_code(code) != as_it_was(code)
    ]
    assert changed == [(669, 'code')]


@pytest.mark.parametrize(
    'future',
    [
        'from __future__ import annotations',
        'from __future__ import (\n    annotations,\n    division,\n)',
        '"""What it does."""\nfrom __future__ import annotations',
        'from __future__ import annotations\nfrom __future__ import division',
    ],
)
def test_the_preamble_stands_behind_imports_from_the_future(future):
    code = with_preamble(f'{future}\n\n\ndef f():\n    return base', 'import math\nbase = math.pi')
    names = {}
    exec(compile(code, 'answer', 'exec', dont_inherit=True), names)
    assert names['f']() > 3 and code.startswith(future)


# --- half surrogate pairs


def test_half_a_pair_is_mended_where_it_is_read(tmp_path, capsys):
    rows = [{'a': 'fine \U0001f600'}, {'a': [HALF, {HALF: 1}]}]
    for name, content in (('x.jsonl', '\n'.join(map(json.dumps, rows))), ('x.json', json.dumps(rows))):
        (tmp_path / name).write_text(content)
        assert read_jsonl(tmp_path / name) == [rows[0], {'a': ['\ufffd', {'\ufffd': 1}]}]
        said = capsys.readouterr().out
        assert name in said and ' 2: half a surrogate pair' in said
    (tmp_path / 'y.json').write_text(json.dumps(rows[1]))
    assert read_json(tmp_path / 'y.json') == {'a': ['\ufffd', {'\ufffd': 1}]}
    (tmp_path / 'z.jsonl').write_text(json.dumps({'a': 'in words: \\ud83d, \\UD83D'}))
    assert read_jsonl(tmp_path / 'z.jsonl')[0]['a'].startswith('in words') and capsys.readouterr().out == ''


def test_writing_survives_half_a_pair(tmp_path):
    """It is written as JSON's escape, so the file is UTF-8 and valid JSON."""
    record = {'text': f'a {HALF} b', 'n': 1}
    for write in (
        lambda path: write_json(path, record),
        lambda path: write_jsonl(path, [record]),
        lambda path: append_jsonl(path, [record]),
    ):
        path = tmp_path / 'f.json'
        path.unlink(missing_ok=True)
        write(path)
        assert json.loads(path.read_bytes().decode('utf-8')) == record


def test_programs_with_half_a_pair_get_verdicts_twice(tmp_path):
    """In the source, in what is printed, in the error's text, in the value; and again from the file of results."""
    text = [
        f'def double(x):\n    """Twice {HALF}"""\n    return 2 * x',
        'def double(x):\n    print(chr(0xd83d))\n    return 2 * x',
        'def double(x):\n    raise ValueError(chr(0xd83d))',
        'def double(x):\n    return chr(0xd83d)',
    ]
    path = tmp_path / 's.jsonl'
    path.write_text('\n'.join(json.dumps({'task_id': 0, 'solution': code}) for code in text))
    cfg = resolve('test', out_file=str(tmp_path / 'out.json'))
    first = evaluate_samples(path, literal_tasks(), cfg, allow_missing=True)['per_task']
    assert [one['verdict'] for one in first][:1] == ['passed'] and len(first) == 4
    assert [one['verdict'] for one in first][2:] == ['runtime_error', 'wrong_answer']
    json.dumps(read_json(tmp_path / 'out.json'), ensure_ascii=False).encode()
    assert evaluate_samples(path, literal_tasks(), cfg, allow_missing=True)['per_task'] == first


def test_instructions_with_half_a_pair_are_kept_and_named(tmp_path, capsys):
    rows = [{'instruction': f'Print a face {HALF}', 'input': '', 'output': 'print(":-)")'}]
    (tmp_path / 'c.json').write_text(json.dumps(rows))
    (tmp_path / 'm.jsonl').write_text(json.dumps({'task_id': 1, 'text': 'a', 'test_list': ['assert f(1)']}))
    files = {'mbpp_file': str(tmp_path / 'm.jsonl'), 'codealpaca_file': str(tmp_path / 'c.json')}
    (instruction,) = load_source(resolve(source='files', **files)).instructions
    assert instruction['text'] == 'Print a face \ufffd' and 'c.json, row 1' in capsys.readouterr().out


def test_well_formed_leaves_the_rest_alone():
    value = {'a': [1, 2.5, None, True, 'é\U0001f600\x00'], 'b': {}}
    assert well_formed(value) == value


# --- one reader


@pytest.mark.parametrize('mark', ['', '\ufeff'])
@pytest.mark.parametrize('zipped', [False, True])
@pytest.mark.parametrize('form', ['lines', 'list', 'indented list', 'lines of Windows'])
def test_every_form_is_read_whatever_the_name(tmp_path, mark, zipped, form):
    rows = [{'prompt': 'Add é.', 'completion': 'x = 1\u2028'}, {'prompt': 'Sub.', 'completion': 'x'}]
    text = {
        'lines': '\n'.join(json.dumps(row, ensure_ascii=False) for row in rows) + '\n\n',
        'list': json.dumps(rows),
        'indented list': '\n ' + json.dumps(rows, indent=2),
        'lines of Windows': '\r\n'.join(map(json.dumps, rows)),
    }[form]
    raw = (mark + text).encode()
    for name in ('rows', 'rows.json', 'rows.jsonl', 'rows.gz'):
        (tmp_path / name).write_bytes(gzip.compress(raw) if zipped else raw)
        assert read_training_rows(tmp_path / name) == rows == read_table(tmp_path / name)


def test_what_is_no_table_is_a_sentence(tmp_path):
    path = tmp_path / 'train.jsonl'
    for content, words in (
        (b'', 'is empty'),
        (b'\xff\xfea\x00', 'not UTF-8'),
        (b'{"a": 1', 'line 1'),
        (b'[{"a": 1}, 2]', 'list of objects'),
        (gzip.compress(b'{"a": 1}')[:-9], 'damaged or cut off'),
        (b'[' * 100_000, 'nested'),
        (b'{"a": ' + b'[' * 100_000, 'not valid JSON'),
    ):
        path.write_bytes(content)
        assert words in complaint(read_training_rows, path) and 'train.jsonl' in complaint(read_table, path)
    assert 'there is no file' in complaint(read_table, tmp_path / 'none.jsonl')


# --- splits and ids of MBPP


def written(path, rows):
    """The path of a file with these rows."""
    path.write_text('\n'.join(map(json.dumps, rows)))
    return path


@pytest.mark.parametrize(
    'split, ids', [('train', (601, 975)), ('validation', (511, 601)), ('test', (11, 511)), ('prompt', (1, 11))]
)
def test_one_split_alone_stays_that_split(tmp_path, mbpp_file, split, ids):
    rows = [row for row in read_table(mbpp_file) if row['task_id'] in range(*ids)][:40]
    tasks = read_tasks(written(tmp_path / 'part.jsonl', rows))
    assert {task['split'] for task in tasks} == {split} and task_set(tasks) == 'MBPP'


@pytest.mark.parametrize('form', ['{}', 'Mbpp/{}', 'MBPP/{}', 'mbpp_{}', '0{}'])
def test_ids_written_as_texts_are_numbers(tmp_path, mbpp_file, form):
    rows = [{**row, 'task_id': form.format(row['task_id'])} for row in read_table(mbpp_file)[::50]]
    tasks = read_tasks(written(tmp_path / 'part.jsonl', rows))
    assert [t['task_id'] for t in tasks] == [row['task_id'] for row in read_table(mbpp_file)[::50]]
    assert {t['split'] for t in tasks} == {'prompt', 'test', 'validation', 'train'}
    twice = written(tmp_path / 'twice.jsonl', [rows[0], {**rows[0], 'task_id': tasks[0]['task_id']}])
    assert 'stands there twice' in complaint(read_tasks, twice)


def test_own_problems_keep_their_ids_and_are_test_tasks(tmp_path, mbpp_file, capsys):
    mine = [{'task_id': i, 'text': f'Mine {i}.', 'test_list': [f'assert f{i}()']} for i in ('11', 700, 'Mbpp/3', 2000)]
    tasks = read_tasks(written(tmp_path / 'mine.jsonl', mine))
    assert [(t['task_id'], t['split']) for t in tasks] == [
        ('11', 'test'),
        (700, 'test'),
        ('Mbpp/3', 'test'),
        (2000, 'test'),
    ]
    assert task_set(tasks) == 'own problems' and capsys.readouterr().out == ''
    real = next(row for row in read_table(mbpp_file) if row['task_id'] == 650)
    tasks = read_tasks(written(tmp_path / 'mixed.jsonl', [*mine, real]))
    assert tasks[-1]['split'] == 'train' and '1 of 5 tasks' in capsys.readouterr().out


def test_a_stray_in_mbpp_is_refused_or_says_its_split(tmp_path, mbpp_file):
    rows = read_table(mbpp_file)[20:40]
    stray = {'task_id': 2000, 'text': 'Mine.', 'test_list': ['assert f()']}
    assert 'task 2000' in complaint(read_tasks, written(tmp_path / 'a.jsonl', [*rows, stray]))
    tasks = read_tasks(written(tmp_path / 'a.jsonl', [*rows, {**stray, 'split': 'test'}]))
    assert tasks[-1]['split'] == 'test'
    edited = {**rows[0], 'text': 'In other words.', 'test_list': ['assert other()']}
    assert read_tasks(written(tmp_path / 'a.jsonl', [edited, *rows[1:]]))[0]['task_id'] == rows[0]['task_id']
