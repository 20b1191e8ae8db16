"""Completions do not depend on the batch they were made in, whenever rows end."""

import os
from types import SimpleNamespace

import peft
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from lora_mbpp.core.errors import complaint
from lora_mbpp.core.files import fingerprint, read_jsonl
from lora_mbpp.generation import completions as generation
from lora_mbpp.generation.base_layers import prepare_for_decoding
from lora_mbpp.generation.capacity import PACKED_TOKENS
from lora_mbpp.generation.completions import LoadedModel, as_completion, complete_prompts, length_buckets
from lora_mbpp.generation.decode_kernel import triton
from lora_mbpp.generation.decoder import Decoder
from lora_mbpp.generation.extraction import extract_code, is_complete
from lora_mbpp.generation.kv_slots import slots_reach
from lora_mbpp.generation.multi_lora import MultiLoRA, unsupported_reason
from lora_mbpp.generation.records import GenerationRun, generate_all
from lora_mbpp.generation.scoring import completion_nll
from lora_mbpp.generation.ways import recording_fault, slot_logits
from lora_mbpp.models.attention import packed_ways, set_attention
from lora_mbpp.models.proof import probe_model
from lora_mbpp.models.tiny import tiny_model, tiny_tokenizer
from lora_mbpp.tasks.chat import prompt_ids
from lora_mbpp.tasks.loading import literal_tasks
from lora_mbpp.testing import kernel_difference

TOK = tiny_tokenizer()
PROMPTS = [t['prompt'] for t in literal_tasks()] + ['', 'é' * 40, 'a\n' * 60]


def eager_to_stop(seed):
    """A random model that likes to end its completions, at different lengths."""
    model = tiny_model(seed)
    generator = torch.Generator().manual_seed(seed)
    model.lm_head.weight.data = torch.randn(model.lm_head.weight.shape, generator=generator)
    model.lm_head.weight.data[TOK.eos_token_id] *= 2.5
    return model.eval()


def plain(model, prompt, n):
    """Tokens of transformers' own greedy generation of one prompt."""
    ids = torch.tensor([prompt_ids(TOK, prompt)])
    settings = {'max_new_tokens': n, 'do_sample': False, 'pad_token_id': 0, 'eos_token_id': 2}
    out = model.generate(ids, attention_mask=torch.ones_like(ids), **settings)[0, ids.shape[1] :].tolist()
    return out[: out.index(2)] if 2 in out else out


def plain_texts(model, prompts, n):
    return [TOK.decode(plain(model, prompt, n), skip_special_tokens=True) for prompt in prompts]


def complete(model, prompts, most, n=None):
    """Greedy completions of prompts that ask for no function."""
    return complete_prompts(LoadedModel(model, TOK), prompts, [None] * len(prompts), most, n)


def settings_of(batch_size, max_new_tokens):
    return {'protocol': 'p', 'batch_size': batch_size, 'max_new_tokens': max_new_tokens}


def generate(model, tasks, path, settings, samples=1, temperature=0.0):
    """Records of one run."""
    return generate_all(LoadedModel(model, TOK), tasks, [GenerationRun('x', path, settings)], samples, temperature)['x']


@pytest.mark.parametrize('seed', range(4))
def test_tokens_equal_one_at_a_time_generate(seed):
    model = eager_to_stop(seed)
    expected = [plain(model, p, 50) for p in PROMPTS]
    found = complete(model, PROMPTS, 50)
    assert [a['n_tokens'] for a in found] == [len(e) for e in expected]
    assert [a['text'] for a in found] == [TOK.decode(e, skip_special_tokens=True) for e in expected]
    assert all((a['finish_reason'] == 'length') == (len(e) == 50) for a, e in zip(found, expected))


def test_rows_do_end_at_different_lengths():
    """Otherwise the test above would not see rows leave the batch."""
    ends = {a['n_tokens'] for seed in range(4) for a in complete(eager_to_stop(seed), PROMPTS, 50)}
    assert len(ends) >= 4 and min(ends) < 50


def test_order_and_batch_size_do_not_matter(tmp_path):
    model, tasks = eager_to_stop(1), literal_tasks()

    def texts(size, name):
        return [r['text'] for r in generate(model, tasks, tmp_path / name, settings_of(size, 30))]

    assert texts(1, 'a') == texts(4, 'b') == texts(6, 'c')


def test_a_torn_file_continues_record_by_record(tmp_path):
    model, tasks, path = eager_to_stop(2), literal_tasks(), tmp_path / 'g.jsonl'
    settings = settings_of(2, 20)
    whole = generate(model, tasks, path, settings)
    text = path.read_text()
    for cut in range(0, len(text), 97):
        path.write_text(text[:cut])
        assert generate(model, tasks, path, settings) == whole
        assert [r['settings'] for r in read_jsonl(path)] == [fingerprint(settings)] * len(tasks)


def test_samples_depend_on_task_and_index_alone(tmp_path):
    """Any batch size and any order give the same drawn answers, and two samples of a task differ."""
    model, tasks = eager_to_stop(1), literal_tasks()

    def drawn(size, name, chosen):
        records = generate(model, chosen, tmp_path / name, settings_of(size, 20), samples=3, temperature=1.0)
        return {(r['task_id'], r['sample_idx']): r['text'] for r in records}

    one, many = drawn(1, 'a', tasks), drawn(7, 'b', tasks[::-1])
    assert one == many and len(one) == 3 * len(tasks)
    assert len({one[tasks[0]['task_id'], n] for n in range(3)}) == 3
    assert drawn(5, 'c', tasks[2:4]).items() <= one.items()


def test_samples_continue_after_a_kill(tmp_path):
    model, tasks, path = eager_to_stop(1), literal_tasks(), tmp_path / 'g.jsonl'
    whole = generate(model, tasks, path, settings_of(4, 10), samples=2, temperature=0.8)
    path.write_text(path.read_text()[:700])
    assert generate(model, tasks, path, settings_of(4, 10), samples=2, temperature=0.8) == whole


def test_nll_does_not_depend_on_the_batch():
    model, items = tiny_model(), [(t['prompt'], 'x' * (5 + 9 * i)) for i, t in enumerate(literal_tasks())]
    singly, together = (completion_nll(model, TOK, items, size) for size in (1, 6))
    assert [s['n_tokens'] for s in singly] == [6 + 9 * i for i in range(6)]
    assert all(abs(a['nll'] - b['nll']) < 1e-3 for a, b in zip(singly, together))


@pytest.mark.parametrize(
    'text, code, how',
    [
        ('```python\nx = 1\n```\nand\n```python\ndef f():\n    return 1\n```', 'def f():\n    return 1', 'fence'),
        ('def f():\n    return 1\n\nf()', 'def f():\n    return 1\n\nf()', 'plain'),
        ('f = lambda: 1', 'f = lambda: 1', 'plain'),
        (
            'Sure! Here:\nimport math\ndef f():\n    return math.pi\nHope this helps!',
            'import math\ndef f():\n    return math.pi',
            'prose around',
        ),
        ('```\r\ndef f():\r\n    return 1\r\n```', 'def f():\n    return 1', 'fence'),
        ('```python\ndef f():\n    return 1', 'def f():\n    return 1', 'fence unclosed'),
        ('```python\n\n```', '', 'none'),
        ('   \n', '', 'none'),
        ('I am sorry.', '', 'none'),
        ('\x00', '', 'none'),
    ],
)
def test_extraction(text, code, how):
    assert extract_code(text, 'f') == (code, how)


def test_the_fence_stop_never_cuts_a_program_short():
    """Every prefix that counts as complete already holds the whole program that the full answer gives."""
    program = 'def f(x):\n    """Doc with ``` inside a line."""\n    return x'
    for text in (
        f'```python\n{program}\n```\nbye',
        f'First:\n```\nf(1)\n```\nthen\n```python\n{program}\n```\nmore\n```\nf(2)\n```',
    ):
        first = next(i for i in range(len(text) + 1) if is_complete(text[:i], 'f'))
        assert extract_code(text[:first], 'f') == extract_code(text, 'f') == (program, 'fence')


def test_out_of_memory_halves_the_batch(tmp_path, monkeypatch, capsys):
    """Batches of more than two rows do not fit: the same answers in halves; one row that does not fit is a sentence."""
    model, tasks, room = eager_to_stop(1), literal_tasks(), {'rows': 6}

    def texts(name):
        return [r['text'] for r in generate(model, tasks, tmp_path / name, settings_of(6, 30))]

    wanted, whole = texts('a'), generation.KVSlots

    def tight(config, n, *args):
        if n > room['rows']:
            raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB')
        return whole(config, n, *args)

    monkeypatch.setattr(generation, 'KVSlots', tight)
    room['rows'] = 2
    assert texts('b') == wanted and '2 answers at a time' in capsys.readouterr().out
    room['rows'] = 0
    assert 'alone (CUDA out of memory)' in complaint(texts, 'c')


def test_a_very_long_prompt_is_batched_apart():
    """One prompt of thousands of tokens must not pad a whole batch to its length."""
    tasks = [
        {'task_id': i, 'prompt': 'word ' * n, 'entry_point': None}
        for i, n in enumerate([20] * 5 + [90] * 3 + [200, 210, 900])
    ]
    found = length_buckets([as_completion(TOK, task, 100) for task in tasks], 100)
    assert [sorted(c.key[0] for c in bucket.completions) for bucket in found] == [
        [0, 1, 2, 3, 4, 5, 6, 7],
        [8, 9],
        [10],
    ]
    assert [bucket.n for bucket in found] == [8, 8, 8]
    assert all(bucket.length >= max(len(c.prompt) + c.most for c in bucket.completions) for bucket in found)
    more_tasks = [{**task, 'task_id': task['task_id'] + 100 * n} for task in tasks for n in range(20)]
    many = length_buckets([as_completion(TOK, task, 100) for task in more_tasks], 100)
    assert many[0].n == 100
    assert all(1 <= bucket.n and bucket.n * bucket.length <= 100 * many[0].length for bucket in many)


def test_packed_scores_are_padded_scores(monkeypatch):
    """In one row, in several, and padded: the same NLL for each answer, in the order given."""
    items = [(p, 'def f(x):\n    return x' + ' + 1' * n) for n, p in enumerate(PROMPTS)]
    padded, model = completion_nll(tiny_model(), TOK, items), tiny_model()
    set_attention(model, 'by document')
    for room in (1, 700, 10_000):
        monkeypatch.setitem(PACKED_TOKENS, 'cpu', room)
        packed = completion_nll(model, TOK, items)
        assert [s['n_tokens'] for s in packed] == [s['n_tokens'] for s in padded]
        assert [s['nll'] for s in packed] == pytest.approx([s['nll'] for s in padded], rel=1e-4)
    assert completion_nll(model, TOK, []) == []


# --- several adapters in one pass ---


def adapter(folder, rank, seed, **more):
    """A saved adapter whose both factors are random, so that it changes answers."""
    torch.manual_seed(seed)
    config = {'lora_alpha': 4 * rank, 'target_modules': 'all-linear', 'task_type': 'CAUSAL_LM', **more}
    model = peft.get_peft_model(tiny_model(), peft.LoraConfig(r=rank, **config))
    for name, parameter in model.named_parameters():
        if 'lora_B' in name:
            parameter.data.normal_(0, 0.5)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope='module')
def adapters(tmp_path_factory):
    home = tmp_path_factory.mktemp('adapters')
    return [
        adapter(home / 'a', 1, 1),
        adapter(home / 'b', 8, 2, use_rslora=True),
        adapter(home / 'c', 4, 3, target_modules=['q_proj', 'down_proj']),
    ]


def complete_runs(folder, seed, adapters, size, tasks, prepared=True, samples=1, temperature=0.0, runs=None):
    """Texts of base and adapters, made in one pass."""
    model = eager_to_stop(seed)
    if prepared:
        prepare_for_decoding(model)
    loaded = LoadedModel(model, TOK, MultiLoRA(model, adapters))
    wanted = [
        GenerationRun(f'run{i}', folder / f'{i}.jsonl', {**settings_of(size, 25), 'adapter': i}, i)
        for i in (runs or range(-1, len(adapters)))
    ]
    found = generate_all(loaded, tasks, wanted, samples, temperature)
    return {run: [r['text'] for r in records] for run, records in found.items()}


@pytest.mark.parametrize('size', [1, 5, 24])
def test_mixed_adapters_are_plain_generate(tmp_path, adapters, size):
    """Base and three adapters in the same slots: each row has the tokens of PEFT with its adapter, alone."""
    tasks = literal_tasks()
    found = complete_runs(tmp_path, 1, adapters, size, tasks, prepared=size != 5)
    models = [eager_to_stop(1)]
    models += [peft.PeftModel.from_pretrained(eager_to_stop(1), str(adapter)).eval() for adapter in adapters]
    prompts = [task['prompt'] for task in tasks]
    expected = {f'run{i}': plain_texts(model, prompts, 25) for i, model in enumerate(models, -1)}
    assert found == expected and len({tuple(texts) for texts in found.values()}) == 4


@pytest.mark.parametrize(
    'device',
    ['cpu', pytest.param('cuda', marks=pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA card here'))],
)
def test_one_adapter_after_another(tmp_path, adapters, device):
    """As rank truncation does it: NLL with an adapter, completions in three buckets, then the next adapter.

    The completions are those of one pass."""
    model = eager_to_stop(1).to(device)
    set_attention(model, packed_ways(device, 'float32')[0][0])
    words = [20, 31, 42, 90, 200, 210, 700]
    tasks = [{'task_id': i, 'prompt': 'word ' * n, 'entry_point': None} for i, n in enumerate(words)]
    items = [(task['prompt'], 'x' * 30) for task in tasks]

    def texts(multi_lora, numbers, name):
        runs = [
            GenerationRun(f'run{i}', tmp_path / f'{name}{i}.jsonl', {**settings_of(4, 25), 'adapter': i}, i)
            for i in numbers
        ]
        found = generate_all(LoadedModel(model, TOK, multi_lora), tasks, runs)
        return [[r['text'] for r in records] for records in found.values()]

    together, nll = MultiLoRA(model, adapters), set()
    expected = texts(together, range(3), 'all')
    together.close()
    for i, one in enumerate(adapters):
        multi_lora = MultiLoRA(model, [one])
        multi_lora.choose(torch.tensor(0, device=device))
        nll.add(sum(s['nll'] for s in completion_nll(model, TOK, items)))
        assert texts(multi_lora, [0], f'alone{i}-') == [expected[i]]
        multi_lora.close()
    assert len(nll) == 3


@pytest.mark.parametrize('number', [0, 1, 3])
def test_steps_with_adapters_can_be_recorded(tmp_path, adapters, number, monkeypatch):
    """What is tried is what will be recorded: the model with its adapters. The step itself stands in for its graph."""
    monkeypatch.setattr(Decoder, 'recorded', lambda decoder: SimpleNamespace(replay=decoder.advance))
    model = eager_to_stop(1)
    prepare_for_decoding(model)
    multi_lora = MultiLoRA(model, adapters[:number]) if number else None
    documents = probe_model(model).documents
    slot_logits(model, documents, multi_lora)  # which leaves a choice of adapters behind
    assert recording_fault(model, documents, multi_lora) is None
    monkeypatch.setattr(Decoder, 'recorded', lambda decoder: 1 / 0)
    assert recording_fault(model, documents, multi_lora) == 'division by zero'


def test_several_runs_go_on_where_they_were_killed(tmp_path, adapters):
    """Files cut anywhere, differently for each run: the same answers, and none twice."""
    tasks, folder = literal_tasks(), tmp_path / 'whole'
    folder.mkdir()
    whole = complete_runs(folder, 2, adapters, 7, tasks)
    for path, cut in zip(sorted(folder.glob('*.jsonl')), (0, 333, 700, 10_000)):
        path.write_text(path.read_text()[:cut])
    assert complete_runs(folder, 2, adapters, 7, tasks) == whole
    assert all(len(read_jsonl(path)) == len(tasks) for path in folder.glob('*.jsonl'))


def test_samples_of_several_adapters(tmp_path, adapters):
    """Three draws a task for each run in one pass are the draws of each run alone."""
    for name in ('all', 'one'):
        (tmp_path / name).mkdir()
    together = complete_runs(tmp_path / 'all', 1, adapters, 10, literal_tasks()[:3], samples=3, temperature=1.0)
    alone = complete_runs(tmp_path / 'one', 1, adapters, 4, literal_tasks()[:3], samples=3, temperature=1.0, runs=[1])
    assert together['run1'] == alone['run1'] and len(set(together['run1'])) >= 3


def test_closed_multi_lora_leaves_the_model_as_it_was(adapters):
    model, ids = eager_to_stop(1), torch.arange(3, 60)[None]
    before = model(ids).logits
    prepare_for_decoding(model)
    multi_lora = MultiLoRA(model, adapters)
    multi_lora.choose(torch.tensor(1))
    assert (model(ids).logits - before).abs().max() > 1e-3
    multi_lora.close()
    assert torch.allclose(model(ids).logits, before, atol=1e-5)


def test_adapters_of_another_model_are_a_sentence(tmp_path, adapters):
    shape = {'hidden_size': 32, 'intermediate_size': 32, 'num_hidden_layers': 2, 'num_attention_heads': 2}
    big = LlamaForCausalLM(LlamaConfig(vocab_size=259, num_key_value_heads=1, **shape))
    assert 'is for another model' in complaint(MultiLoRA, big, adapters)


@pytest.mark.parametrize(
    'more, why',
    [
        ({'use_dora': True}, 'use_dora'),
        ({'rank_pattern': {'q_proj': 2}}, 'rank_pattern'),
        ({'init_lora_weights': 'pissa'}, 'changes the base'),
        ({'init_lora_weights': 'gaussian'}, None),
        ({'bias': 'lora_only'}, '(bias)'),
    ],
)
def test_what_multi_lora_does_not_hold(tmp_path, more, why):
    adapter(tmp_path / 'x', 2, 0, **more)
    found = unsupported_reason(tmp_path / 'x')
    assert found is None if why is None else why in found


def test_long_and_short_prompts_in_few_slots():
    """Prompts far longer than a packed row, and none at all, between ordinary ones."""
    model = eager_to_stop(3)
    prompts = ['x' * 1500, 'a', '', 'y' * 700, 'é' * 30, 'z' * 1400]
    assert [a['text'] for a in complete(model, prompts, 12, n=2)] == plain_texts(model, prompts, 12)


def test_models_without_ordinary_attention_take_the_padded_way(monkeypatch):
    monkeypatch.setattr(generation, 'KVSlots', None)  # not to be touched
    torch.manual_seed(0)
    shape = {'hidden_size': 16, 'intermediate_size': 32, 'num_hidden_layers': 2, 'num_attention_heads': 2}
    heads = {'num_key_value_heads': 1, 'head_dim': 8, 'sliding_window': 8}
    config = MistralConfig(vocab_size=259, pad_token_id=0, eos_token_id=2, **shape, **heads)
    model = MistralForCausalLM(config).eval()
    assert not slots_reach(model.config, 100) and slots_reach(tiny_model().config, 100)
    assert [a['text'] for a in complete(model, PROMPTS, 30)] == plain_texts(model, PROMPTS, 30)


def test_the_kernel_is_torch_attention():
    """On a card, or with TRITON_INTERPRET=1."""
    if not triton:
        pytest.skip('Triton is not installed')
    if not torch.cuda.is_available() and os.environ.get('TRITON_INTERPRET') != '1':
        pytest.skip('no CUDA, and TRITON_INTERPRET is not 1')
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    assert max(kernel_difference(device=device), kernel_difference(3, 1, 9, 70, 64, device=device)) < 1e-5
