"""Adapters that were made elsewhere: scored as PEFT computes them, all of them, or refused in a sentence."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from lora_mbpp.core.config import resolve
from lora_mbpp.core.errors import complaint
from lora_mbpp.core.files import read_jsonl
from lora_mbpp.core.runs import metrics_file
from lora_mbpp.evaluate import evaluate, generate_for_runs
from lora_mbpp.generation.multi_lora import unsupported_reason
from lora_mbpp.generation.scoring import completion_nll
from lora_mbpp.models.adapters import adapter_config, load_adapter, read_factors, require_adapter
from lora_mbpp.models.runtime import choose_runtime
from lora_mbpp.models.tiny import tiny_model, tiny_tokenizer
from lora_mbpp.tasks.chat import prompt_ids
from lora_mbpp.tasks.loading import literal_tasks
from lora_mbpp.tasks.prompts import render_completion

TOK = tiny_tokenizer()
WORDS = {'vocab_size': 259, 'pad_token_id': 0, 'bos_token_id': 1, 'eos_token_id': 2}
SIZES = {'hidden_size': 32, 'intermediate_size': 64, 'num_hidden_layers': 3, 'num_attention_heads': 4}
LLAMA = {**SIZES, 'num_key_value_heads': 2, 'max_position_embeddings': 2048}
BASES = {
    'llama': ('llama', {**LLAMA, 'attention_bias': True, 'mlp_bias': True}),
    'tied': ('llama', {**LLAMA, 'tie_word_embeddings': True}),
    'gpt2': ('gpt2', {'n_embd': 32, 'n_layer': 3, 'n_head': 4, 'n_positions': 2048}),
    'mixtral': ('mixtral', {**LLAMA, 'num_local_experts': 4, 'sliding_window': None}),
}
QV = ['q_proj', 'v_proj']
# kind: (base, what is said to PEFT, True where the adapter is plain LoRA over linear maps)
KINDS = {
    'attention alone': ('llama', {'target_modules': QV}, True),
    'all maps': ('llama', {'target_modules': 'all-linear', 'use_rslora': True}, True),
    'one layer': ('llama', {'target_modules': QV, 'layers_to_transform': [1]}, True),
    'the head': ('llama', {'target_modules': [*QV, 'lm_head']}, False),  # PEFT writes the base's head beside it
    'the head of a tied model': ('tied', {'target_modules': [*QV, 'lm_head']}, False),
    'the embeddings': ('llama', {'target_modules': [*QV, 'embed_tokens']}, False),
    'embeddings of a tied model': ('tied', {'target_modules': [*QV, 'embed_tokens']}, False),
    'a saved head': ('llama', {'target_modules': QV, 'modules_to_save': ['lm_head']}, False),
    'a saved head and embeddings': ('llama', {'target_modules': QV, 'modules_to_save': ['embed_tokens', 'lm_head']}, False),  # noqa: E501
    'a saved norm': ('llama', {'target_modules': QV, 'modules_to_save': ['norm']}, False),
    'trained tokens': ('llama', {'target_modules': QV, 'trainable_token_indices': [5, 60, 100]}, False),
    'trained tokens of a tied model': ('tied', {'target_modules': QV, 'trainable_token_indices': [5, 60, 100]}, False),
    'ranks by layer': ('llama', {'target_modules': QV, 'rank_pattern': {'v_proj': 2}}, False),
    'alphas by layer': ('llama', {'target_modules': QV, 'alpha_pattern': {'v_proj': 2}}, False),
    'biases of adapted layers': ('llama', {'target_modules': QV, 'bias': 'lora_only'}, False),
    'all biases': ('llama', {'target_modules': QV, 'bias': 'all'}, False),
    'biases of B': ('llama', {'target_modules': QV, 'lora_bias': True}, False),
    'DoRA': ('llama', {'target_modules': QV, 'use_dora': True}, False),
    'replicated layers': ('llama', {'target_modules': QV, 'layer_replication': [[0, 2], [1, 3]]}, False),
    'Conv1D': ('gpt2', {'target_modules': ['c_attn'], 'fan_in_fan_out': True}, False),
    'Conv1D, not said': ('gpt2', {'target_modules': ['c_attn']}, False),
    'experts': ('mixtral', {'target_modules': ['q_proj'], 'target_parameters': ['mlp.experts.gate_up_proj']}, False),
    'attention of experts': ('mixtral', {'target_modules': QV}, True),
}  # fmt: skip


def base_model(name):
    kind, sizes = BASES[name]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **WORDS, **sizes)).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.dim() >= 2:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    model.tie_weights()
    return model


@pytest.fixture(scope='module')
def bases(tmp_path_factory):
    """Folders of the base models."""
    folders = {name: tmp_path_factory.mktemp(name) for name in BASES}
    for name, folder in folders.items():
        base_model(name).save_pretrained(folder)
        TOK.save_pretrained(folder)
    return folders


DEVICE = choose_runtime(resolve('test')).device  # of what is compared with it too: two devices round differently


def loaded_base(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval().to(DEVICE)


def make(folder, base, more, **saving):
    """An adapter of PEFT's making, whose every trained number is random."""
    settings = LoraConfig(r=4, lora_alpha=8, init_lora_weights=False, task_type='CAUSAL_LM', **more)
    torch.manual_seed(1)
    model = get_peft_model(loaded_base(base), settings)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.3 * torch.randn_like(parameter)
    model.save_pretrained(folder, **saving)
    return folder


def texts_of(model, most=12):
    """What PEFT's or transformers' generate writes for the tasks."""
    texts = []
    for task in literal_tasks():
        ids = torch.tensor([prompt_ids(TOK, task['prompt'])], device=DEVICE)
        settings = {'max_new_tokens': most, 'do_sample': False, 'pad_token_id': 0, 'eos_token_id': 2}
        out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **settings)[0, ids.shape[1] :].tolist()
        texts.append(TOK.decode(out[: out.index(2)] if 2 in out else out, skip_special_tokens=True))
    return texts


def scored(tiny, base, adapter):
    """(texts by task, NLL of references, eval_info) of an adapter, by the product."""
    cfg = resolve(**tiny, model=str(base))
    info = evaluate(cfg, 'x', adapter)['eval_info']
    records = read_jsonl(metrics_file(cfg, 'x', '.generations.jsonl'))
    return {r['task_id']: r['text'] for r in records}, info['reference_nll'], info


@pytest.mark.parametrize('kind', KINDS)
def test_an_adapter_of_any_kind_is_scored_as_peft_computes_it(bases, tiny, tmp_path, kind):
    name, more, plain = KINDS[kind]
    adapter = make(tmp_path / 'adapter', bases[name], more)
    texts, nll, info = scored(tiny, bases[name], adapter)
    untouched, peft_model = loaded_base(bases[name]), PeftModel.from_pretrained(loaded_base(bases[name]), adapter)
    peft_model.eval()
    wanted = dict(zip([task['task_id'] for task in literal_tasks()], texts_of(peft_model)))
    assert texts == {task_id: wanted[task_id] for task_id in texts}
    items = [(t['prompt'], render_completion(t['code'])) for t in literal_tasks() if t['task_id'] in texts]
    exact = [completion_nll(model, TOK, items) for model in (peft_model, untouched)]
    total, other = (sum(s['nll'] for s in scores) / sum(s['n_tokens'] for s in scores) for scores in exact)
    assert nll == pytest.approx(total, rel=1e-5) and abs(total - other) > 1e-3
    assert ('computed by PEFT' in info['computed'].get('adapter', '')) != plain


def test_saved_base_embeddings_take_part(bases, tiny, tmp_path):
    """PEFT's `save_embedding_layers` writes embeddings that were trained beside the adapter."""
    torch.manual_seed(1)
    base = loaded_base(bases['llama'])
    base.model.embed_tokens.weight.data += torch.randn_like(base.model.embed_tokens.weight)
    model = get_peft_model(base, LoraConfig(r=4, target_modules=QV, init_lora_weights=False, task_type='CAUSAL_LM'))
    model.save_pretrained(tmp_path / 'adapter', save_embedding_layers=True)
    texts, _, info = scored(tiny, bases['llama'], tmp_path / 'adapter')
    assert set(texts.values()) <= set(texts_of(model.eval())) and 'PEFT' in info['computed']['adapter']


def test_a_vocabulary_that_was_resized_is_a_sentence(bases, tiny, tmp_path):
    base = loaded_base(bases['llama'])
    base.resize_token_embeddings(270)
    settings = LoraConfig(r=4, target_modules=QV, modules_to_save=['embed_tokens', 'lm_head'], task_type='CAUSAL_LM')
    get_peft_model(base, settings).save_pretrained(tmp_path / 'adapter')
    said = complaint(evaluate, resolve(**tiny, model=str(bases['llama'])), 'x', tmp_path / 'adapter')
    assert 'vocabulary of 270' in said and '259' in said


def test_a_pickle_is_refused_for_being_one(bases, tiny, tmp_path):
    adapter = make(tmp_path / 'adapter', bases['llama'], {'target_modules': QV})
    torch.save(load_file(adapter / 'adapter_model.safetensors'), adapter / 'adapter_model.bin')
    assert require_adapter(adapter) == adapter  # the safetensors are read, the pickle is not
    (adapter / 'adapter_model.safetensors').unlink()
    assert 'pickle' in complaint(evaluate, resolve(**tiny, model=str(bases['llama'])), 'x', adapter)


def edit(adapter, **fields):
    path = adapter / 'adapter_config.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    return adapter


@pytest.mark.parametrize('value, known', [({'gamma': 2}, False), (3, False), (None, True), (False, True), ({}, True)])
def test_a_field_of_a_later_peft_is_not_passed_over(bases, tmp_path, value, known):
    adapter = edit(make(tmp_path / 'adapter', bases['llama'], {'target_modules': QV}), use_something_new=value)
    assert (unsupported_reason(adapter) is None) == known
    said = complaint(load_adapter, loaded_base(bases['llama']), adapter)
    assert said is None if known else 'use_something_new' in said


@pytest.mark.parametrize('name', ['q_proj.weight', 'q_proj.lora_C.weight'])
def test_a_tensor_that_is_not_understood_is_not_passed_over(bases, tmp_path, name):
    name = f'model.layers.0.self_attn.{name}'
    adapter = make(tmp_path / 'adapter', bases['llama'], {'target_modules': QV})
    path = adapter / 'adapter_model.safetensors'
    save_file({**load_file(path), f'base_model.model.{name}': torch.randn(32, 32)}, path, {'format': 'pt'})
    assert name in unsupported_reason(adapter) and name in complaint(read_factors, adapter)
    said = complaint(load_adapter, loaded_base(bases['llama']), adapter)
    assert name in said


def test_ranks_that_differ_from_what_is_said(bases, tmp_path):
    adapter = edit(make(tmp_path / 'adapter', bases['llama'], {'target_modules': QV}), r=8)
    assert 'no plain LoRA' in unsupported_reason(adapter)


def test_other_methods_are_no_plain_lora(tmp_path):
    from peft import IA3Config, LoHaConfig

    for config in (IA3Config(target_modules=['q_proj'], feedforward_modules=[]), LoHaConfig(target_modules=['q_proj'])):
        get_peft_model(tiny_model(), config).save_pretrained(tmp_path / 'adapter')
        assert config.peft_type.value in complaint(adapter_config, tmp_path / 'adapter')


def test_in_one_pass_with_others_it_is_left_to_an_evaluation_of_its_own(bases, tiny, tmp_path):
    """Base and a Conv1D adapter: the pass makes the base's completions, without the adapter."""
    adapter, cfg = make(tmp_path / 'adapter', bases['gpt2'], {'target_modules': ['c_attn']}), None
    cfg = resolve(**tiny, model=str(bases['gpt2']))
    assert generate_for_runs(cfg, {'base': None, 'x': adapter}) == 1
    records = read_jsonl(metrics_file(cfg, 'base', '.generations.jsonl'))
    assert {r['text'] for r in records} <= set(texts_of(loaded_base(bases['gpt2'])))
    assert not metrics_file(cfg, 'x', '.generations.jsonl').exists()
