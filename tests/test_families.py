"""Models of many architectures: completions, likelihoods and losses are transformers', whatever way they take."""

from copy import copy
from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from lora_mbpp.baseline import run_baseline
from lora_mbpp.core.config import resolve
from lora_mbpp.core.errors import complaint
from lora_mbpp.core.files import read_jsonl
from lora_mbpp.core.runs import adapter_dir, metrics_file
from lora_mbpp.data import load_tasks
from lora_mbpp.evaluate import evaluate
from lora_mbpp.generation.completions import LoadedModel, complete_prompts
from lora_mbpp.generation.scoring import completion_nll
from lora_mbpp.generation.ways import completion_way
from lora_mbpp.models.dropout import remove_dropout
from lora_mbpp.models.loading import load_model, load_tokenizer
from lora_mbpp.models.packed_pass import PackedPass
from lora_mbpp.models.positions import longest_sequence
from lora_mbpp.models.proof import choose_row_way
from lora_mbpp.models.runtime import Runtime, choose_runtime
from lora_mbpp.models.streaming import open_stream
from lora_mbpp.models.tiny import tiny_tokenizer
from lora_mbpp.tasks.chat import encode_row, prompt_ids
from lora_mbpp.tasks.loading import literal_tasks
from lora_mbpp.tasks.prompts import render_completion
from lora_mbpp.train import read_rows, train
from lora_mbpp.training.memory_plan import Precision
from lora_mbpp.training.time_plan import Machine, Workload, plan_run

TOK = tiny_tokenizer()
WORDS = {'vocab_size': 259, 'pad_token_id': 0, 'bos_token_id': 1, 'eos_token_id': 2}
WIDE = {'hidden_size': 32, 'intermediate_size': 64, 'max_position_embeddings': 2048}
DEEP = {**WIDE, 'num_hidden_layers': 4, 'num_attention_heads': 4}
SHARED_HEADS = {**DEEP, 'num_key_value_heads': 2}
OLD = {'n_embd': 32, 'n_layer': 4, 'n_head': 4, 'n_positions': 2048}
EXPERTS = {'num_experts': 4, 'num_experts_per_tok': 2, 'moe_intermediate_size': 32}
LATENT = {'q_lora_rank': 16, 'kv_lora_rank': 16, 'qk_rope_head_dim': 8, 'qk_nope_head_dim': 8, 'v_head_dim': 8}
DEEPSEEK = {
    **{**DEEP, **LATENT, 'n_routed_experts': 4, 'num_experts_per_tok': 2, 'n_group': 1, 'topk_group': 1},
    **{'moe_intermediate_size': 32, 'first_k_dense_replace': 1, 'n_shared_experts': 1, 'num_key_value_heads': 4},
}
STATES = {'mamba_d_state': 8, 'mamba_n_heads': 4, 'mamba_d_head': 16, 'mamba_n_groups': 1, 'mamba_expand': 2}
LINEAR = {f'linear_{name}': n for name, n in {'num_value_heads': 4, 'num_key_heads': 2}.items()}
LINEAR |= {'linear_key_head_dim': 8, 'linear_value_head_dim': 8, 'shared_expert_intermediate_size': 32}
LOCAL = {'num_layers': 4, 'num_heads': 4, 'attention_types': [[['global', 'local'], 2]], 'window_size': 64}
WINDOWS = {**SHARED_HEADS, 'head_dim': 16, 'sliding_window': 64}
MAMBA = {'hidden_size': 32, 'num_hidden_layers': 4, 'state_size': 8}
MAMBA2 = {**MAMBA, 'num_heads': 4, 'head_dim': 16, 'n_groups': 1, 'chunk_size': 16}
JAMBA = {'attn_layer_period': 2, 'attn_layer_offset': 1, 'num_experts': 2, 'use_mamba_kernels': False}
JAMBA |= {'mamba_d_state': 8, 'mamba_dt_rank': 4}
TWO_KINDS = {'layer_types': ['linear_attention', 'full_attention'] * 2}

# name: (transformers' model type, its configuration, how rows are computed, how completions are; None: it depends on
# the version of transformers)
FAMILIES = {
    'llama': ('llama', SHARED_HEADS, 'packed', 'slots'),
    'llama tied': ('llama', {**SHARED_HEADS, 'tie_word_embeddings': True}, 'packed', 'slots'),
    'llama with biases': ('llama', {**SHARED_HEADS, 'attention_bias': True, 'mlp_bias': True}, 'packed', 'slots'),
    'llama of one layer': ('llama', {**SHARED_HEADS, 'num_hidden_layers': 1}, 'packed', 'slots'),
    'qwen2': ('qwen2', SHARED_HEADS, 'packed', 'slots'),
    'qwen3': ('qwen3', {**SHARED_HEADS, 'head_dim': 16}, 'packed', 'slots'),
    'mistral': ('mistral', {**SHARED_HEADS, 'sliding_window': 64}, 'packed', 'batches'),
    'phi': ('phi', DEEP, 'packed', 'slots'),
    'phi3': ('phi3', {**SHARED_HEADS, 'sliding_window': None}, 'packed', 'slots'),
    'gemma': ('gemma', {**SHARED_HEADS, 'head_dim': 16}, 'packed', 'slots'),
    'gemma2': ('gemma2', WINDOWS, 'padded', 'batches'),
    'gemma3': ('gemma3_text', WINDOWS, 'packed', 'batches'),
    'starcoder2': ('starcoder2', {**SHARED_HEADS, 'sliding_window': None}, 'packed', 'slots'),
    'olmo2': ('olmo2', SHARED_HEADS, 'packed', 'slots'),
    'granite': ('granite', {**SHARED_HEADS, 'logits_scaling': 2.0}, 'packed', 'slots'),
    'cohere': ('cohere', SHARED_HEADS, 'packed', 'slots'),
    'smollm3': ('smollm3', SHARED_HEADS, 'packed', 'slots'),
    'glm4': ('glm4', {**SHARED_HEADS, 'head_dim': 8}, 'packed', 'slots'),
    'gpt_neox': ('gpt_neox', DEEP, 'packed', 'slots'),
    'gpt2': ('gpt2', OLD, 'packed', 'slots'),
    'gpt_neo': ('gpt_neo', {**WIDE, **LOCAL}, 'padded', 'batches'),
    'gptj': ('gptj', {**OLD, 'rotary_dim': 4}, None, None),
    'codegen': ('codegen', {**OLD, 'rotary_dim': 4, 'n_ctx': 2048}, None, None),
    'gpt_bigcode': ('gpt_bigcode', {**OLD, 'multi_query': True}, 'packed', 'slots'),
    'opt': ('opt', {**DEEP, 'ffn_dim': 64, 'word_embed_proj_dim': 32}, 'packed', 'slots'),
    'falcon': ('falcon', {**DEEP, 'multi_query': True}, 'padded', 'batches'),
    'falcon of groups': ('falcon', {**DEEP, 'num_kv_heads': 2, 'new_decoder_architecture': True}, 'padded', 'batches'),
    'bloom': ('bloom', {'hidden_size': 32, 'n_layer': 4, 'n_head': 4}, 'padded', 'batches'),
    'mpt': ('mpt', {'d_model': 32, 'n_layers': 4, 'n_heads': 4, 'max_seq_len': 2048}, 'padded', 'batches'),
    'stablelm': ('stablelm', SHARED_HEADS, 'padded', 'batches'),
    'mixtral': ('mixtral', {**SHARED_HEADS, 'num_local_experts': 4, 'sliding_window': None}, 'packed', 'slots'),
    'qwen3_moe': ('qwen3_moe', {**SHARED_HEADS, 'head_dim': 16, **EXPERTS}, 'packed', 'slots'),
    'gpt_oss': ('gpt_oss', {**WINDOWS, 'num_local_experts': 4}, 'padded', 'batches'),
    'deepseek_v3': ('deepseek_v3', DEEPSEEK, 'packed', 'slots'),
    'mamba': ('mamba', MAMBA, 'padded', None),
    'mamba2': ('mamba2', MAMBA2, 'padded', None),
    'qwen3_next': ('qwen3_next', {**SHARED_HEADS, **EXPERTS, **LINEAR, **TWO_KINDS, 'head_dim': 16}, 'padded', None),
    'falcon_h1': ('falcon_h1', {**SHARED_HEADS, **STATES, 'mamba_d_ssm': 64}, 'padded', None),
    'lfm2': ('lfm2', {**SHARED_HEADS, 'layer_types': ['conv', 'full_attention'] * 2}, 'padded', None),
    'bamba': ('bamba', {**SHARED_HEADS, **STATES, 'attn_layer_indices': [1, 3]}, 'padded', None),
    'jamba': ('jamba', {**SHARED_HEADS, **JAMBA}, 'padded', None),
}  # fmt: skip
QUICK = ('llama', 'mistral', 'gpt2', 'falcon', 'mixtral')
EACH = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]


def spread(model, std=0.3):
    """Give a random model weights large enough that each token of its input counts."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.dim() >= 2:
            parameter.data = torch.randn(parameter.shape, generator=generator) * std
    return model


def build(name, folder, **more):
    """A saved random model of a family."""
    kind, sizes, *_ = FAMILIES[name]
    torch.manual_seed(0)
    model = spread(AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**WORDS, **sizes, **more})))
    model.save_pretrained(folder)
    TOK.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope='module')
def family(tmp_path_factory):
    """Folder of a family's model, made once."""
    made = {}

    def folder(name):
        if name not in made:
            made[name] = build(name, tmp_path_factory.mktemp('family'))
        return made[name]

    return folder


DEVICE = choose_runtime(resolve('test')).device  # of what is compared with it too: two devices round differently


def plain_model(folder):
    """The model as transformers loads it."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval().to(DEVICE)


def plain_text(model, prompt, n):
    """What transformers' own greedy generation of one prompt writes."""
    ids = torch.tensor([prompt_ids(TOK, prompt)], device=DEVICE)
    settings = {'max_new_tokens': n, 'do_sample': False, 'pad_token_id': 0, 'eos_token_id': 2}
    out = model.generate(ids, attention_mask=torch.ones_like(ids), **settings)[0, ids.shape[1] :].tolist()
    return TOK.decode(out[: out.index(2)] if 2 in out else out, skip_special_tokens=True)


def plain_nll(model, prompt, completion):
    """NLL of a completion, from one pass over it alone."""
    row = encode_row(TOK, prompt, completion)
    ids, scored = torch.tensor(row['input_ids']).to(DEVICE), torch.tensor(row['completion_mask'][1:], dtype=torch.bool)
    with torch.no_grad():
        chances = model(ids[None], use_cache=False).logits[0, :-1].float().log_softmax(-1)
    return -chances.gather(1, ids[1:, None])[scored].sum().item()


@pytest.mark.parametrize('name', EACH)
def test_completions_and_likelihoods_are_those_of_transformers(family, name):
    folder, (_, _, rows, completions) = family(name), FAMILIES[name]
    model, plain, tasks = load_model(folder, choose_runtime(resolve('test'))), plain_model(folder), literal_tasks()
    assert rows in (None, model.row_way.kind), model.row_way
    prompts = [task['prompt'] for task in tasks]
    found = complete_prompts(LoadedModel(model, load_tokenizer(folder)), prompts, [None] * len(prompts), 10)
    assert [one['text'] for one in found] == [plain_text(plain, prompt, 10) for prompt in prompts]
    assert completions in (None, completion_way(model, 300).kind)
    items = [(task['prompt'], render_completion(task['code'])) for task in tasks]
    nll = [score['nll'] for score in completion_nll(model, TOK, items)]
    assert nll == pytest.approx([plain_nll(plain, *item) for item in items], rel=1e-5)


@pytest.mark.parametrize('name', EACH)
def test_training_does_not_depend_on_how_rows_are_cut(family, tiny, name):
    """Losses and validation of a run: in rows as long as a step, and with each document in a row of its own."""

    def losses(row_tokens):
        rows = {'row_tokens': row_tokens, 'run': f'rows-of-{row_tokens}'}
        cfg = resolve(**tiny, model=family(name), max_steps=2, lr=1e-2, **rows)
        info = train(cfg)['train_info']
        return [entry['loss'] for entry in info['losses']] + [entry['nll'] for entry in info['val_nll']]

    together, apart = losses(100_000), losses(1)
    assert together == pytest.approx(apart, rel=1e-4) and len(set(together)) > 2


@pytest.mark.parametrize('name', EACH)
def test_an_adapter_is_evaluated_as_peft_computes_it(family, tiny, tmp_path, name):
    """Base and adapter through baseline, train and eval; the adapter's texts are PEFT's, and other than the base's."""
    cfg = resolve(**tiny, model=family(name), max_steps=1, lr=0.3)
    train(cfg)
    folder = adapter_dir(cfg)
    metrics, base = evaluate(cfg, 'adapted', folder), run_baseline(cfg)
    found = [record['text'] for record in read_jsonl(metrics_file(cfg, 'adapted', '.generations.jsonl'))]
    model = PeftModel.from_pretrained(plain_model(family(name)), str(folder)).eval()
    assert sorted(found) == sorted(plain_text(model, task['prompt'], 12) for task in literal_tasks()[: len(found)])
    assert metrics['eval_info']['reference_nll'] != base['eval_info']['reference_nll']
    assert metrics['eval_info']['computed'].keys() >= {'rows', 'completions'}


# --- what a proof must see, and what it must not


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('name', [*QUICK, 'mamba', 'opt', 'gpt_oss', 'qwen3', 'phi', 'gemma2', 'falcon_h1'])
def test_sixteen_bits_change_nothing_in_the_proof(family, name, dtype):
    model = load_model(family(name), replace(choose_runtime(resolve('test')), dtype=dtype))
    assert model.row_way.kind == FAMILIES[name][2], model.row_way


def test_a_base_in_four_bits_is_tried_like_any_other(family):
    bnb = pytest.importorskip('bitsandbytes')
    model = plain_model(family('llama'))
    for name, linear in [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear) and n != 'lm_head']:
        sizes = (linear.in_features, linear.out_features)
        packed = bnb.nn.Linear4bit(*sizes, bias=False, compute_dtype=torch.float32, quant_type='nf4')
        packed.weight = bnb.nn.Params4bit(linear.weight.data.clone(), requires_grad=False, quant_type='nf4').to(DEVICE)
        model.set_submodule(name, packed)
    assert choose_row_way(model).kind == 'packed' and completion_way(model, 100).kind == 'slots'


class Leak(nn.Module):
    """A layer that hands on a little of the token before, as a convolution does."""

    def __init__(self, inner, share):
        super().__init__()
        self.inner, self.share = inner, share

    def forward(self, hidden, *args, **kwargs):
        before = torch.cat([torch.zeros_like(hidden[:, :1]), hidden[:, :-1]], 1)
        return self.inner(hidden + self.share * before, *args, **kwargs)


@pytest.mark.parametrize('dtype, share', [(torch.float32, 0.001), (torch.bfloat16, 0.1)])
def test_one_leaking_layer_of_four_is_seen(family, dtype, share):
    model = plain_model(family('llama')).to(dtype)
    assert choose_row_way(model).kind == 'packed'
    model = plain_model(family('llama')).to(dtype)
    model.model.layers[2].mlp = Leak(model.model.layers[2].mlp, share)
    assert choose_row_way(model).kind == 'padded'
    # it leaks from the padding on the left as well, which sixteen bits hardly see
    assert completion_way(model, 100).kind == ('single' if dtype == torch.float32 else 'batches')


@pytest.mark.parametrize(
    'asks, why',
    [
        ({'cu_seq_lens_q': None}, 'does not hand'),
        ({'softcap': 1000.0}, 'softcap'),
        ({'s_aux': torch.zeros(4)}, 's_aux'),
        ({'is_causal': False}, 'is_causal'),
        ({'position_bias': torch.zeros(1)}, 'position_bias'),
        ({'attention_mask': torch.zeros(1, 1, 18, 18)}, 'mask of its own'),
    ],
)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_a_layer_that_asks_for_more_is_an_error_however_little_it_changes(family, asks, why, dtype):
    """One layer of four drops the cuts, or wants what packed rows do not have: seen without a look at the numbers."""
    model = plain_model(family('llama')).to(dtype)
    layer = model.model.layers[1].self_attn
    inner = layer.forward
    layer.forward = lambda *args, **kwargs: inner(*args, **{**kwargs, **(asks if 'cu_seq_lens_q' in kwargs else {})})
    way = choose_row_way(model)
    assert way.kind != 'packed' and why in way.reason


def test_a_layer_without_attention_is_missed():
    with pytest.raises(RuntimeError, match='3 of 4 layers'):
        with PackedPass(4) as going:
            going.attended |= {1, 2, 3}
    assert PackedPass.current is None


def test_chunks_and_windows_that_attention_is_not_told_of_are_missed(family):
    """Its masks know the window, its attention does not."""
    model = plain_model(family('mistral'))
    for layer in model.model.layers:
        layer.self_attn.config = copy(layer.self_attn.config)
        layer.self_attn.config.sliding_window = None
    way = choose_row_way(model)
    assert way.kind == 'padded' and 'window of 64' in way.reason


def test_a_model_that_reads_in_both_directions_is_refused(tmp_path):
    sizes = {'num_hidden_layers': 2, 'num_attention_heads': 2, 'hidden_size': 32, 'intermediate_size': 64}
    model = spread(AutoModelForCausalLM.from_config(AutoConfig.for_model('bert', **WORDS, **sizes)))
    model.save_pretrained(tmp_path / 'bert')
    assert 'from left to right' in complaint(load_model, str(tmp_path / 'bert'), choose_runtime(resolve('test')))


def test_the_proof_leaves_a_model_as_it_was(family):
    """No gradient, no other numbers, the same tolerance each time."""
    model, ids = load_model(family('llama'), choose_runtime(resolve('test'))), torch.arange(3, 40, device=DEVICE)[None]
    before = plain_model(family('llama'))(ids).logits
    assert torch.allclose(model(ids).logits, before, atol=1e-4)
    assert all(parameter.grad is None for parameter in model.parameters()) and not model.training
    assert choose_row_way(model) == model.row_way


# --- positions, dropout, forecasts


def bounded(name, folder, limit):
    """A model that reads `limit` tokens."""
    sizes = {'n_positions': limit} if 'n_positions' in FAMILIES[name][1] else {'max_position_embeddings': limit}
    return build(name, folder, **sizes)


@pytest.mark.parametrize('name', ['opt', 'gpt2', 'gpt_bigcode', 'llama', 'stablelm'])
def test_what_a_model_cannot_read_is_left_out_by_name(tmp_path, capsys, name):
    """Learned positions end; rotary ones are not trusted further either."""
    limit, most = 200, 12
    folder = bounded(name, tmp_path / 'model', limit)
    model, plain = load_model(folder, choose_runtime(resolve('test'))), plain_model(folder)
    prompts = ['x' * (n - len(prompt_ids(TOK, ''))) for n in (50, 184, 188, 190, 199, 200, 201, 300)]
    assert longest_sequence(model.config) == limit
    found = complete_prompts(LoadedModel(model, TOK), prompts, [None] * len(prompts), most)
    rooms = [min(most, max(0, limit - len(prompt_ids(TOK, prompt)))) for prompt in prompts]
    assert [one['text'] for one in found] == [plain_text(plain, p, n) if n else '' for p, n in zip(prompts, rooms)]
    said = capsys.readouterr().out
    assert '2 tasks reach the 200 tokens that the model reads and may be cut there: 3, 4' in said
    assert '3 tasks reach the 200 tokens that the model reads and have no room for a single token: 5, 6, 7' in said
    items = [(prompt, 'y' * 9) for prompt in prompts]
    scores = completion_nll(model, TOK, items)
    assert [score is not None for score in scores] == [True] * 4 + [False] * 4
    exact = [plain_nll(plain, *item) for item in items[:4]]
    assert [score['nll'] for score in scores[:4]] == pytest.approx(exact, rel=1e-5)


def test_an_evaluation_says_what_it_could_not_read(tmp_path, tiny):
    tasks = load_tasks(resolve(**tiny))
    prompts = {task['task_id']: len(prompt_ids(TOK, task['prompt'])) for task in tasks}
    references = {
        task['task_id']: len(encode_row(TOK, task['prompt'], render_completion(task['code']))['input_ids'])
        for task in tasks
    }
    limit = max(references.values()) - 1
    folder = bounded('opt', tmp_path / 'model', limit)
    info = run_baseline(resolve(**tiny, model=folder, max_new_tokens=80))['eval_info']
    assert info['beyond_positions'] == {'cut': [name for name, n in prompts.items() if n + 80 > limit]}
    assert info['references_too_long'] == [name for name, n in references.items() if n > limit]
    assert info['reference_nll'] > 0 and 'slots' in info['computed']['completions']


def test_rows_beyond_the_positions_are_not_trained_on(tmp_path, tiny, capsys):
    rows, _ = read_rows(resolve(**tiny))
    lengths = [len(encode_row(TOK, row['prompt'], row['completion'])['input_ids']) for row in rows]
    limit = max(lengths) - 1
    folder = build('opt', tmp_path / 'model', max_position_embeddings=limit)
    info = train(resolve(**tiny, model=folder, max_steps=1))['train_info']
    assert info['rows_too_long'] == [row['id'] for row, n in zip(rows, lengths) if n > limit] != []
    assert 'all that the model reads' in capsys.readouterr().out


@pytest.mark.parametrize(
    'name, rates',
    [
        ('gpt2', {'attn_pdrop': 0.3, 'embd_pdrop': 0.3, 'resid_pdrop': 0.3}),
        ('opt', {'dropout': 0.3, 'attention_dropout': 0.3, 'layerdrop': 0.3}),
        ('llama', {'attention_dropout': 0.3}),
        ('stablelm', {'attention_dropout': 0.3, 'hidden_dropout': 0.3}),
        ('mixtral', {'attention_dropout': 0.3, 'router_jitter_noise': 0.3}),
        ('bloom', {'hidden_dropout': 0.3, 'attention_dropout': 0.3}),
    ],
)
def test_nothing_is_drawn_at_random_in_training(tmp_path, name, rates):
    model, ids = plain_model(build(name, tmp_path / 'model', **rates)), torch.arange(3, 60, device=DEVICE)[None]
    wanted = model(ids).logits
    assert not torch.allclose(model.train()(ids).logits, wanted, atol=1e-3)
    assert remove_dropout(model) > 0
    assert torch.allclose(model(ids).logits, wanted, atol=1e-4)


@pytest.mark.parametrize('name', EACH)
def test_each_architecture_has_a_plan(name):
    """A forecast, or a careful layout and a reason."""
    kind, sizes, *_ = FAMILIES[name]
    config = AutoConfig.for_model(kind, **{**WORDS, **sizes})
    work = Workload([50, 80, 120], 100, steps=3)
    for precision in (Precision('float32'), Precision('bfloat16', nf4=True)):
        plan = plan_run(resolve('test', dtype='float32'), config, work, precision, Machine('cpu', budget=8.0))
        if plan.unknown:
            assert plan.layout.row_tokens == 120 and plan.layout.recomputed == config.num_hidden_layers
        else:
            assert 0 < plan.layout.memory['total'] < 8


@pytest.mark.parametrize('name', EACH)
def test_weights_read_layer_by_layer_are_those_that_transformers_loads(family, name):
    """Parameters and buffers; or it is said why not."""
    stream, why = open_stream(family(name), Runtime('cpu', 'float32', 'none', 'CPU', ''))
    if not stream:
        assert name not in ('llama', 'mistral', 'stablelm') and ('transformers' in why or 'its files' in why)
        return
    for layer in getattr(stream.model.get_decoder(), 'layers', []):
        stream.fill(layer)
    stream.fill(stream.model)
    loaded = plain_model(family(name))
    for kind in ('named_parameters', 'named_buffers'):
        ours, theirs = dict(getattr(stream.model, kind)()), dict(getattr(loaded, kind)())
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[n], theirs[n].cpu()) and ours[n].dtype == theirs[n].dtype for n in theirs)
