"""Sources, splits and decontamination, on the shipped problems and on the published data sets."""

import ast
import gzip
import json

import pytest

from lora_mbpp.core.config import resolve
from lora_mbpp.core.errors import UserError, complaint
from lora_mbpp.core.files import fingerprint, read_json, read_jsonl, read_table, write_json, write_jsonl
from lora_mbpp.data import prepare
from lora_mbpp.sandbox.judge import judge_many
from lora_mbpp.tasks.decontamination import near_duplicates, with_neighbours
from lora_mbpp.tasks.humaneval import humaneval_rows
from lora_mbpp.tasks.loading import read_tasks, starter_tasks
from lora_mbpp.tasks.similarity import similar_programs
from lora_mbpp.tasks.sources import as_instruction
from lora_mbpp.tasks.splits import split_by_hash


@pytest.fixture(scope='module')
def starter():
    return starter_tasks()


def test_starter_set_has_its_shape(starter):
    assert [sum(t['split'] == s for t in starter) for s in ('train', 'validation', 'test')] == [160, 20, 60]
    assert all(len(t['tests']) >= 3 and t['entry_point'] for t in starter)
    scored = {t['entry_point'] for t in starter if t['split'] == 'test'}
    assert not scored & {t['entry_point'] for t in starter if t['split'] != 'test'}


def test_starter_references_pass(starter):
    jobs = [{name: task[name] for name in ('code', 'tests', 'setup', 'entry_point')} for task in starter]
    assert [starter[i]['task_id'] for i, v in judge_many(jobs) if v.verdict != 'passed'] == []


def test_no_constant_passes_a_starter_problem(starter):
    for task in starter:
        expected = {repr(ast.literal_eval(ast.parse(t).body[0].test.comparators[0])) for t in task['tests']}
        assert len(expected) > 1, task['task_id']


@pytest.mark.slow
def test_starter_splits_share_no_near_duplicates(starter):
    by = {s: [t for t in starter if t['split'] == s] for s in ('train', 'validation', 'test')}
    for left, right in (('train', 'test'), ('validation', 'test'), ('train', 'validation')):
        assert near_duplicates(by[left], by[right], resolve().near_duplicate) == []


def test_starter_set_copies_no_mbpp_task(starter, mbpp_file):
    by_id = {task['task_id']: task for task in starter}
    found = near_duplicates(starter, read_tasks(mbpp_file), resolve().near_duplicate, run=False)
    assert [pair for pair in found if not pair['seen_by'].keys() <= {'program', 'similar program'}] == []
    assert all(len(by_id[pair['train']]['code']) < 100 for pair in found)  # `return a * b` is everybody's


def test_starter_set_copies_no_humaneval_task(starter):
    try:
        rows = humaneval_rows()
    except UserError as error:
        pytest.skip(str(error))
    tasks = [
        {
            'task_id': i,
            'text': row['prompt'].rsplit('def ', 1)[1],
            'code': row['prompt'] + row['canonical_solution'],
            'tests': [],
            'entry_point': row['entry_point'],
        }
        for i, row in enumerate(rows)
    ]
    assert len(tasks) == 164
    assert near_duplicates(starter, tasks, resolve().near_duplicate, run=False) == []


@pytest.mark.slow
def test_real_files(tmp_path, mbpp_file, codealpaca_file):
    files = {'mbpp_file': str(mbpp_file), 'codealpaca_file': str(codealpaca_file)}
    cfg = resolve(source='files', **files, data_dir=str(tmp_path))
    manifest = prepare(cfg)
    train, val, test = (read_jsonl(tmp_path / name) for name in ('train.jsonl', 'val.jsonl', 'mbpp_test.jsonl'))
    assert [t['task_id'] for t in test] == list(range(11, 511)) and manifest['counts']['problems'] == 974
    dropped = {pair['train'] for pair in manifest['dropped']}
    assert {602, 636, 704, 759, 840, 872} <= dropped  # twins of test tasks, known by hand
    known = {505, 263, 395, 145, 90, 139, 297, 374}  # test tasks that a review found in training, in other words
    assert known <= {pair['test'] for pair in manifest['dropped']}
    assert not {row['id'] for row in train} & {f'mbpp/{i}' for i in dropped}
    everything = json.dumps([train, val, test])
    assert '\\r' not in everything.replace('\\\\r', '')
    assert all(row['completion'].startswith('```python\n') for row in train)
    assert 280 < sum(row['id'].startswith('mbpp/') for row in train) < 374
    assert sum(t['clean'] for t in test) == manifest['counts']['clean test tasks'] < 500
    assert manifest['origin']['mbpp_file']['name'] == 'mbpp.jsonl' and str(mbpp_file.parent) not in json.dumps(manifest)


def test_the_same_files_give_the_same_data(tmp_path, mbpp_file, codealpaca_file):
    some = write_json(tmp_path / 'some.json', read_json(codealpaca_file)[:300])
    problems = write_jsonl(tmp_path / 'mbpp.jsonl', read_jsonl(mbpp_file)[::5])  # of each part
    cfg = resolve(source='files', mbpp_file=str(problems), codealpaca_file=str(some), data_dir=str(tmp_path / 'data'))
    manifest = prepare(cfg)
    assert prepare(cfg) == manifest and manifest['counts']['problems'] == 195


def test_split_keeps_near_duplicates_together_and_is_stable():
    words = 'sum', 'product', 'angle', 'distance', 'norm', 'mean'
    texts = [f'Compute the {word} of two vectors {more}' for word in words for more in ('', 'now')]
    items = [as_instruction({'instruction': text, 'output': 'x = 1'}, i, '') for i, text in enumerate(texts)]
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


def intersection(name, a, b, found, item, end):
    """A program of some length, with the names and the last call it is given."""
    return f'''def {name}({a}, {b}):
    {found} = []
    for {item} in {a}:
        if {item} in {b} and {item} not in {found}:
            {found}.append({item})
        elif {item} is None:
            continue
    {found}.sort(key=lambda {item}: ({b}.index({item}), {item}))
    return {end}({found})'''


POWER = '''def power(base, exponent):
    total = 1
    while exponent:
        exponent, bit = divmod(exponent, 2)
        if bit: total *= base
        base *= base
    return total'''


def test_a_renamed_and_edited_copy_is_dropped():
    copy = intersection('shared', 'left', 'right', 'result', 'one', 'tuple')
    original = intersection('common', 'a', 'b', 'found', 'item', 'list')
    train = [
        {'id': 'copy', 'text': 'Intersect two sequences of records.', 'code': copy},
        {'id': 'other', 'text': 'Raise quickly.', 'code': POWER},
    ]
    task = {'task_id': 1, 'text': 'Write a function to find what two lists share.', 'code': original}
    task |= {'tests': ['assert common([1], [1]) == [1]'], 'entry_point': 'common'}
    found = near_duplicates(train, [task], 0.7)
    assert [(p['train'], p['reason']) for p in found] == [('copy', 'similar program')] and found[0]['jaccard'] >= 0.8
    assert found[0]['seen_by'].keys() == {'similar program'}  # no test has inputs enough to compare what they do
    assert similar_programs(['x = 1', 'not python('], [original, 'x = 1']) == []  # one-liners resemble everything


def test_neighbours_of_test_tasks_are_written_and_read_back(tmp_path):
    prepare(resolve('starter', data_dir=str(tmp_path)))
    tasks = read_tasks(tmp_path / 'mbpp_test.jsonl')
    assert all(0 <= t['nearest'] < 0.7 and t['cluster'] in {o['task_id'] for o in tasks} for t in tasks)
    text = 'Sort a list of numbers in rising order.'
    test = [{'task_id': 5, 'text': text}, {'task_id': 6, 'text': 'Reverse each word.'}]
    near, far = with_neighbours(test, [{'text': text, 'context': ''}], 0.7)
    assert near['nearest'] == 1.0 and far['nearest'] < 0.3 and (near['cluster'], far['cluster']) == (5, 6)
