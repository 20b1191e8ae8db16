"""Answers do not depend on the batch they were made in, whenever rows end."""
import pytest
import torch

from lora_mbpp import generation
from lora_mbpp.config import complaint, fingerprint, read_jsonl
from lora_mbpp.data import literal_tasks, prompt_ids
from lora_mbpp.generation import answer_batch, completion_nll, extract_code, generate, is_complete
from lora_mbpp.models import tiny_model, tiny_tokenizer
from lora_mbpp.packing import set_attention

TOK = tiny_tokenizer()
PROMPTS = [t['prompt'] for t in literal_tasks()] + ['', 'é' * 40, 'a\n' * 60]


def eager_to_stop(seed):
    """A random model that likes to end its answers, at different lengths."""
    model = tiny_model(seed)
    generator = torch.Generator().manual_seed(seed)
    model.lm_head.weight.data = torch.randn(model.lm_head.weight.shape, generator=generator)
    model.lm_head.weight.data[TOK.eos_token_id] *= 2.5
    return model.eval()


def plain(model, prompt, n):
    ids = torch.tensor([prompt_ids(TOK, prompt)])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=n, do_sample=False, pad_token_id=0, eos_token_id=2)[0, ids.shape[1]:].tolist()
    return out[:out.index(2)] if 2 in out else out


@pytest.mark.parametrize('seed', range(4))
def test_tokens_equal_one_at_a_time_generate(seed):
    model = eager_to_stop(seed)
    expected = [plain(model, p, 50) for p in PROMPTS]
    found = answer_batch(model, TOK, PROMPTS, [None] * len(PROMPTS), 50)
    assert [a['n_tokens'] for a in found] == [len(e) for e in expected]
    assert [a['text'] for a in found] == [TOK.decode(e, skip_special_tokens=True) for e in expected]
    assert all((a['finish_reason'] == 'length') == (len(e) == 50) for a, e in zip(found, expected))


def test_rows_do_end_at_different_lengths():
    """Otherwise the test above would not see rows leave the batch."""
    ends = {a['n_tokens'] for seed in range(4) for a in answer_batch(eager_to_stop(seed), TOK, PROMPTS, [None] * len(PROMPTS), 50)}
    assert len(ends) >= 4 and min(ends) < 50


def test_order_and_batch_size_do_not_matter(tmp_path):
    model, tasks = eager_to_stop(1), literal_tasks()
    def texts(size, name): return [r['text'] for r in generate(model, TOK, tasks, tmp_path/name, 'x', {'protocol': 'p', 'batch_size': size, 'max_new_tokens': 30})]
    assert texts(1, 'a') == texts(4, 'b') == texts(6, 'c')


def test_a_torn_file_continues_record_by_record(tmp_path):
    model, tasks, path = eager_to_stop(2), literal_tasks(), tmp_path/'g.jsonl'
    settings = {'protocol': 'p', 'batch_size': 2, 'max_new_tokens': 20}
    whole = generate(model, TOK, tasks, path, 'x', settings)
    text = path.read_text()
    for cut in range(0, len(text), 97):
        path.write_text(text[:cut])
        assert generate(model, TOK, tasks, path, 'x', settings) == whole
        assert len(read_jsonl(path)) == len(tasks) and all(r['settings'] == fingerprint(settings) for r in read_jsonl(path))


def test_samples_depend_on_task_and_index_alone(tmp_path):
    """Any batch size and any order give the same drawn answers, and two samples of a task differ."""
    model, tasks = eager_to_stop(1), literal_tasks()
    def drawn(size, name, chosen): return {(r['task_id'], r['sample_idx']): r['text'] for r in generate(model, TOK, chosen, tmp_path/name, 'x', {'protocol': 'p', 'batch_size': size, 'max_new_tokens': 20}, 3, 1.0)}
    one, many = drawn(1, 'a', tasks), drawn(7, 'b', tasks[::-1])
    assert one == many and len(one) == 3 * len(tasks)
    assert len({one[tasks[0]['task_id'], n] for n in range(3)}) == 3
    assert drawn(5, 'c', tasks[2:4]).items() <= one.items()


def test_samples_continue_after_a_kill(tmp_path):
    model, tasks, path = eager_to_stop(1), literal_tasks(), tmp_path/'g.jsonl'
    settings = {'protocol': 'p', 'batch_size': 4, 'max_new_tokens': 10}
    whole = generate(model, TOK, tasks, path, 'x', settings, 2, 0.8)
    path.write_text(path.read_text()[:700])
    assert generate(model, TOK, tasks, path, 'x', settings, 2, 0.8) == whole


def test_nll_does_not_depend_on_the_batch():
    model, items = tiny_model(), [(t['prompt'], 'x' * (5 + 9 * i)) for i, t in enumerate(literal_tasks())]
    singly, together = (completion_nll(model, TOK, items, size) for size in (1, 6))
    assert [s['n_tokens'] for s in singly] == [6 + 9 * i for i in range(6)]
    assert all(abs(a['nll'] - b['nll']) < 1e-3 for a, b in zip(singly, together))


@pytest.mark.parametrize('text, code, how', [
    ('```python\nx = 1\n```\nand\n```python\ndef f():\n    return 1\n```', 'def f():\n    return 1', 'fence'),
    ('def f():\n    return 1\n\nf()', 'def f():\n    return 1\n\nf()', 'plain'),
    ('f = lambda: 1', 'f = lambda: 1', 'plain'),
    ('Sure! Here:\nimport math\ndef f():\n    return math.pi\nHope this helps!', 'import math\ndef f():\n    return math.pi', 'prose around'),
    ('```\r\ndef f():\r\n    return 1\r\n```', 'def f():\n    return 1', 'fence'),
    ('```python\ndef f():\n    return 1', 'def f():\n    return 1', 'fence unclosed'),
    ('```python\n\n```', '', 'none'), ('   \n', '', 'none'), ('I am sorry.', '', 'none'), ('\x00', '', 'none')])
def test_extraction(text, code, how):
    assert extract_code(text, 'f') == (code, how)


def test_the_fence_stop_never_cuts_a_program_short():
    """Every prefix that counts as complete already holds the whole program that the full answer gives."""
    program = 'def f(x):\n    """Doc with ``` inside a line."""\n    return x'
    for text in (f'```python\n{program}\n```\nbye', f'First:\n```\nf(1)\n```\nthen\n```python\n{program}\n```\nmore\n```\nf(2)\n```'):
        first = next(i for i in range(len(text) + 1) if is_complete(text[:i], 'f'))
        assert extract_code(text[:first], 'f') == extract_code(text, 'f') == (program, 'fence')


def test_out_of_memory_halves_the_batch(tmp_path, monkeypatch, capsys):
    """Batches of more than two rows do not fit: the same answers in halves; one row that does not fit is a sentence."""
    model, tasks, room = eager_to_stop(1), literal_tasks(), {'rows': 6}
    def texts(name): return [r['text'] for r in generate(model, TOK, tasks, tmp_path/name, 'x', {'protocol': 'p', 'batch_size': 6, 'max_new_tokens': 30})]
    wanted, whole = texts('a'), generation.answer_batch
    def tight(model, tok, prompts, *args):
        if len(prompts) > room['rows']: raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB')
        return whole(model, tok, prompts, *args)
    monkeypatch.setattr(generation, 'answer_batch', tight)
    room['rows'] = 2
    assert texts('b') == wanted and 'in two halves' in capsys.readouterr().out
    room['rows'] = 0
    assert 'alone (CUDA out of memory)' in complaint(texts, 'c')


def test_a_very_long_prompt_is_batched_apart():
    """One prompt of thousands of tokens must not pad a whole batch to its length."""
    tasks = [{'task_id': i, 'prompt': 'word ' * n} for i, n in enumerate([20] * 5 + [90] * 3 + [200, 210, 900])]
    groups = generation.batches(TOK, tasks, 100)
    assert [sorted(t['task_id'] for t in group) for group in groups] == [[0, 1, 2, 3, 4, 5, 6, 7], [8, 9], [10]]


def test_packed_scores_are_padded_scores(monkeypatch):
    """In one row, in several, and padded: the same NLL for each answer, in the order given."""
    items = [(p, 'def f(x):\n    return x' + ' + 1' * n) for n, p in enumerate(PROMPTS)]
    padded, model = completion_nll(tiny_model(), TOK, items), tiny_model()
    set_attention(model, 'by document')
    for room in (1, 700, 10_000):
        monkeypatch.setitem(generation.ROOM, 'cpu', room)
        packed = completion_nll(model, TOK, items)
        assert [s['n_tokens'] for s in packed] == [s['n_tokens'] for s in padded]
        assert [s['nll'] for s in packed] == pytest.approx([s['nll'] for s in padded], rel=1e-4)
    assert completion_nll(model, TOK, []) == []
