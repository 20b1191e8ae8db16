"""What this project expects of its libraries beyond their documented interfaces: one contract a test.

A failure names the library, its version and what is missing. Runs in CI with the oldest admitted versions too
(.ci/versions)."""

import inspect
import json
import re
from importlib.metadata import version
from importlib.util import find_spec

import pytest
import torch
from conftest import NOTEBOOKS, ROOT
from torch import nn
from transformers import TrainingArguments

from lora_mbpp.core.config import resolve
from lora_mbpp.core.errors import UserError, complaint
from lora_mbpp.models import compat
from lora_mbpp.models.runtime import choose_runtime, let_segments_grow
from lora_mbpp.models.tiny import tiny_model
from lora_mbpp.training.recipe import trainer_arguments

IDS = torch.arange(3, 13)[None]


def hold(kept, library: str, what: str, purpose: str) -> None:
    """Fail with a sentence unless a contract is kept."""
    if not kept:
        pytest.fail(compat.lacks(library, what, purpose), pytrace=False)


def takes(function, *names: str) -> bool:
    """True when a function has parameters of these names."""
    return set(names) <= set(inspect.signature(function).parameters)


def adapted(**settings):
    """The random model with a random adapter."""
    from peft import LoraConfig, get_peft_model

    settings = {'r': 4, 'target_modules': 'all-linear', 'init_lora_weights': False, **settings}
    return get_peft_model(tiny_model(), LoraConfig(**settings))


# ---------------------------------------------------------------------------------------------------- the sentences


def test_a_missing_name_is_a_sentence():
    said = complaint(compat.required, 'torch', 'torch.nn:NoSuchLayer', 'an example uses it')
    assert f'torch {version("torch")} has no torch.nn.NoSuchLayer, and an example uses it' in said
    with pytest.raises(UserError, match='no-such-package is not installed, and it is wanted'):
        compat.required('no-such-package', 'no_such_package:name', 'it is wanted')


def test_a_changed_method_is_a_sentence():
    class Base:
        def kept(self, model, trial): ...
        def changed(self, model): ...

    class Line(Base):
        def kept(self, *args): ...  # its base says what is passed

    expected = {'kept': ('model', 'trial'), 'changed': ('model', 'trial'), 'gone': ()}
    sentences = compat.changed_methods(Line, 'torch', expected)
    assert [re.search(r'Line\.(\w+)', s).group(1) for s in sentences] == ['changed', 'gone']


# ------------------------------------------------------------------------------------- names that moved, or may move


@pytest.mark.parametrize(
    'library, place',
    [
        ('transformers', 'transformers.integrations.sdpa_attention:sdpa_attention_forward'),
        ('transformers', 'transformers.masking_utils:sdpa_mask'),
        ('transformers', 'transformers.trainer_utils:get_last_checkpoint'),
        ('peft', 'peft.tuners.lora:Linear'),
        ('peft', 'peft.tuners.lora:LoraLayer'),
        ('peft', 'peft.optimizers:create_loraplus_optimizer'),
        ('accelerate', 'accelerate.utils:gather_object'),
        ('torch', 'torch.distributed.fsdp:FSDPModule'),
        ('torch', 'torch.distributed.device_mesh:init_device_mesh'),
    ],
)
def test_imported_from_where_it_is(library, place):
    assert compat.required(library, place, 'a chapter imports it from there') is not None


# ------------------------------------------------------------------------------------------------------ transformers


def test_attention_is_found_by_its_name_and_gets_what_the_model_was_called_with():
    seen = []

    def forward(module, query, key, value, attention_mask, scaling=None, remark=None, **kwargs):
        seen.append((module.layer_idx, tuple(query.shape), tuple(key.shape), attention_mask, scaling, remark))
        return query.transpose(1, 2), None

    compat.register_attention('contract', forward, lambda *args, **kwargs: None)
    model = tiny_model()
    compat.set_attention_name(model, 'contract')
    model(IDS, remark='cuts', use_cache=False)
    shapes = (1, 2, 10, 8), (1, 1, 10, 8)  # (batch, heads, tokens, width) of query and key
    wanted = [(layer, *shapes, None, 8**-0.5, 'cuts') for layer in (0, 1)]
    what = 'attention that is found by `config._attn_implementation` and gets layer_idx, scaling and further arguments'
    hold(seen == wanted, 'transformers', what, 'models/attention and generation/kv_slots register their own')


def test_a_mask_of_four_dimensions_is_taken_as_it_is():
    seen = []

    def forward(module, query, key, value, attention_mask, **kwargs):
        seen.append(attention_mask)
        return query.transpose(1, 2), None

    compat.register_attention('contract of masks', forward, lambda *args, **kwargs: None)
    model, mask = tiny_model(), torch.zeros(1, 1, 10, 10)
    compat.set_attention_name(model, 'contract of masks')
    model.get_decoder()(input_ids=IDS, attention_mask=mask, use_cache=False)
    kept = len(seen) == 2 and all(one is mask for one in seen)
    hold(kept, 'transformers', 'way to pass a finished attention mask', 'training/memory_plan counts without a mask')


def test_functions_for_padded_batches_take_what_they_are_given():
    forward = takes(compat.sdpa_attention_forward, 'module', 'query', 'key', 'value', 'attention_mask', 'scaling')
    purpose = 'models/attention calls it for padded batches'
    hold(forward, 'transformers', 'sdpa_attention_forward(module, query, key, value, attention_mask, scaling)', purpose)
    mask = takes(compat.sdpa_mask, 'batch_size', 'q_length', 'kv_length', 'attention_mask')
    hold(mask, 'transformers', 'sdpa_mask(batch_size, q_length, kv_length, attention_mask)', purpose)


def test_documents_of_a_row_are_found_by_their_positions():
    model, documents = tiny_model(), ([5, 6, 7], [8, 9])
    row, places = torch.tensor([[5, 6, 7, 8, 9]]), torch.tensor([[0, 1, 2, 0, 1]])
    with torch.no_grad():
        packed = model(row, position_ids=places, use_cache=False).logits[0]
        alone = torch.cat([model(torch.tensor([d])).logits[0] for d in documents])
    kept = torch.allclose(packed, alone, atol=1e-5)
    hold(
        kept, 'transformers', 'mask of documents made from position_ids', "packed rows rely on it where ours can't run"
    )


def test_logits_are_computed_where_they_are_asked_for():
    model, places = tiny_model(), torch.tensor([2, 5])
    with torch.no_grad():
        found, full = model(IDS, logits_to_keep=places).logits, model(IDS).logits
    kept = found.shape[1] == 2 and torch.allclose(found, full[:, places], atol=1e-6)
    hold(kept, 'transformers', 'logits_to_keep that takes places', 'models/lm_head asks for tokens with a loss only')


def test_each_layer_has_a_switch_for_recomputation():
    model = adapted().train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={'use_reentrant': False})
    layers = compat.recomputing_layers(model)
    purpose = 'models/recomputation switches single layers'
    hold(len(layers) == 2, 'transformers', '_gradient_checkpointing_func in its decoder layers', purpose)
    calls = []
    for i, layer in enumerate(layers):
        layer.gradient_checkpointing = i == 0
        layer.self_attn.register_forward_pre_hook(lambda *_, i=i: calls.append(i))
    model(IDS, labels=IDS).loss.backward()
    hold(calls == [0, 1, 0], 'transformers', 'layer that obeys its own gradient_checkpointing', purpose)


def test_rotary_embedding_is_looked_up_in_the_models_module(monkeypatch):
    from transformers.models.llama import modeling_llama

    plain, calls = modeling_llama.apply_rotary_pos_emb, []
    monkeypatch.setattr(
        modeling_llama, 'apply_rotary_pos_emb', lambda *args, **kwargs: calls.append(1) or plain(*args, **kwargs)
    )
    tiny_model()(IDS)
    hold(len(calls) == 2, 'transformers', 'rotary embedding that is looked up by name', 'Liger patches it there')


# ---------------------------------------------------------------------------------------------- trainers (TRL & Co.)


def test_the_trainers_methods_are_there():
    from trl import SFTTrainer

    if sentences := compat.changed_methods(SFTTrainer, 'trl'):
        pytest.fail('; '.join(sentences), pytrace=False)
    context = takes(SFTTrainer.compute_loss_context_manager, 'self')
    hold(context, 'trl', 'SFTTrainer.compute_loss_context_manager()', 'PackedTrainer computes its losses within it')


def test_the_table_of_overridden_methods_is_complete():
    from trl import SFTTrainer

    from lora_mbpp.training.trainer import PackedTrainer

    classes = [c for c in reversed(PackedTrainer.__mro__) if c.__module__.startswith('lora_mbpp.')]
    own = {name: value for c in classes for name, value in vars(c).items() if inspect.isfunction(value)}
    overridden = {name for name in own if hasattr(SFTTrainer, name) and name != '__init__'}
    assert overridden == compat.OVERRIDDEN_METHODS.keys()
    for name, wanted in compat.OVERRIDDEN_METHODS.items():
        assert set(wanted) <= set(inspect.signature(own[name]).parameters), name


def test_data_is_not_prepared_when_that_is_declined():
    from trl import SFTConfig

    known = SFTConfig.__dataclass_fields__
    wanted = {'dataset_kwargs', 'max_length', 'packing', 'logging_nan_inf_filter'}
    hold(wanted <= known.keys(), 'trl', f'{sorted(wanted - known.keys())} in SFTConfig', '02_train sets them')


def test_a_model_can_be_prepared_without_a_wrapper():
    from accelerate import Accelerator

    known = inspect.signature(Accelerator.prepare_model).parameters
    hold(
        'evaluation_mode' in known, 'accelerate', 'prepare_model(evaluation_mode=)', 'PackedTrainer averages gradients'
    )


def test_transformers_says_how_4bit_layers_come_into_a_model():
    compat.required('transformers', 'transformers.quantizers:AutoHfQuantizer', 'models/streaming asks it')
    place = 'transformers.conversion_mapping:get_checkpoint_conversion_mapping'
    mapping = compat.required('transformers', place, 'models/streaming asks it')
    hold(not mapping('llama') and mapping('mixtral'), 'transformers', 'conversions by model type', 'streaming asks')


def test_batches_are_dealt_out_by_a_sampler_that_can_be_told():
    from accelerate.data_loader import BatchSamplerShard
    from torch.utils.data import BatchSampler, SequentialSampler

    shard = BatchSamplerShard(BatchSampler(SequentialSampler(range(5)), 2, drop_last=False), 2, 1)
    known = all(hasattr(shard, name) for name in ('num_processes', 'process_index', 'even_batches'))
    purpose = 'PackedTrainer lets every process read every step whole'
    hold(known, 'accelerate', 'BatchSamplerShard with num_processes, process_index and even_batches', purpose)
    shard.num_processes, shard.process_index, shard.even_batches = 1, 0, False
    hold(list(shard) == [[0, 1], [2, 3], [4]], 'accelerate', 'BatchSamplerShard that can be told later', purpose)


# -------------------------------------------------------------------------------------------------------------- PEFT


def test_an_adapted_layer_has_the_parts_that_are_computed_together():
    from peft.tuners.lora import Linear

    layer = next(m for m in adapted().modules() if isinstance(m, Linear))
    parts = ('active_adapters', 'merged', 'scaling', 'lora_A', 'lora_B', 'lora_dropout', 'get_base_layer')
    missing = [name for name in parts if not hasattr(layer, name)]
    hold(not missing, 'peft', f'{missing} in its lora.Linear', 'models/lora_layers computes such layers')
    plain = layer.active_adapters == ['default'] and not layer.merged and type(layer.get_base_layer()) is nn.Linear
    no_dropout = isinstance(layer.lora_dropout['default'], nn.Identity) and layer.lora_A['default'].bias is None
    hold(plain and no_dropout, 'peft', 'plain lora.Linear under the name default', 'models/lora_layers expects it')


def test_a_variant_is_seen_in_its_layer():
    from lora_mbpp.models.lora_layers import supports_fused_lora

    kept = not any(supports_fused_lora(m) for m in adapted(use_dora=True).modules())
    hold(kept, 'peft', 'lora_variant in a layer of DoRA', 'models/lora_layers must leave such layers alone')


def test_a_layer_can_be_given_another_forward_and_saving_does_not_see_it(tmp_path):
    from safetensors.torch import load_file

    from lora_mbpp.models.lora_layers import fuse_lora_layers

    model = adapted()
    model.save_pretrained(tmp_path / 'before')
    plain = model(IDS).logits
    assert fuse_lora_layers(model) == 14
    hold(torch.allclose(model(IDS).logits, plain, atol=1e-5), 'peft', 'layer with a forward of its own', 'we set it')
    model.save_pretrained(tmp_path / 'after')
    before, after = (load_file(tmp_path / name / 'adapter_model.safetensors') for name in ('before', 'after'))
    same = before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    hold(same, 'peft', 'saving that is blind to a replaced forward', 'adapters must open in plain PEFT')


def test_loraplus_has_its_ratio():
    from peft.optimizers import create_loraplus_optimizer

    wanted = 'loraplus_lr_ratio', 'loraplus_weight_decay'
    text = inspect.getsource(create_loraplus_optimizer)
    known = all(name in text for name in wanted)
    hold(known, 'peft', f'create_loraplus_optimizer with {", ".join(wanted)}', 'method lora+ sets them')


# ------------------------------------------------------------------------------------------------------ bitsandbytes


@pytest.fixture
def packed():
    """(a layer in NF4, the weight that it was made of)."""
    bitsandbytes = pytest.importorskip('bitsandbytes')
    torch.manual_seed(0)
    layer = bitsandbytes.nn.Linear4bit(64, 64, bias=False, quant_type='nf4')
    whole = layer.weight.data.clone()
    layer.to('cpu')
    if getattr(layer.weight, 'quant_state', None) is None:
        pytest.skip('this bitsandbytes does not quantise on a CPU')
    return layer, whole


def test_packed_bytes_say_what_they_mean(packed):
    layer, whole = packed
    purpose = 'models/lora_layers expands frozen weights'
    hold(compat.is_4bit(layer.weight), 'bitsandbytes', 'quant_state in a 4-bit weight', purpose)
    error = (compat.expanded(layer.weight, torch.float32) - whole).abs().max()
    hold(error < 0.05, 'bitsandbytes', 'dequantize_4bit(bytes, quant_state) that gives the weight back', purpose)


def test_packed_bytes_stay_in_their_order(packed, monkeypatch):
    """On some CPUs bitsandbytes reorders them in the first pass without gradients: never ours, and never unnoticed."""
    layer, whole = packed
    purpose = 'models/loading keeps packed bytes in their order'
    hold(hasattr(layer, 'support_avx512bf16_for_cpu'), 'bitsandbytes', 'Linear4bit.support_avx512bf16_for_cpu', purpose)
    layer.support_avx512bf16_for_cpu = True  # as on such a CPU
    before = compat.expanded(layer.weight, torch.float32)
    other = nn.Linear(64, 64, bias=False)
    compat.keep_4bit_order(nn.Sequential(layer, other))
    with torch.no_grad():
        layer.eval()(torch.ones(1, 64))
    assert torch.equal(before, compat.expanded(layer.weight, torch.float32))
    monkeypatch.setattr(layer.weight.quant_state, 'packing_format_for_cpu', True, raising=False)
    with pytest.raises(RuntimeError, match='an order of its own'):
        compat.expanded(layer.weight, torch.float32)


def test_their_meaning_survives_a_copy_as_plain_bytes(packed):
    layer, whole = packed
    before = compat.expanded(layer.weight, torch.float32)
    layer.weight = nn.Parameter(compat.keep_meaning(layer), requires_grad=False)
    assert not compat.is_4bit(layer.weight)
    after = compat.expanded(compat.restore_meaning(layer), torch.float32)
    hold(torch.equal(before, after), 'bitsandbytes', 'quant_state that can be given back', 'training/sharding does it')


@pytest.mark.parametrize('size', [(512, 256), (64, 64), (3, 5), (5, 2)], ids=str)
def test_packed_bytes_survive_a_copy_through_the_type_that_a_card_calculates_in(size):
    """FSDP copies by `_foreach_copy_`, on CUDA through float32: what is not a number must stay as it is."""
    bitsandbytes = pytest.importorskip('bitsandbytes')
    rows, columns = size
    layer = bitsandbytes.nn.Linear4bit(columns, rows, bias=False, quant_type='nf4').to('cpu')
    pairs = torch.arange(-(2**15), 2**15).to(torch.int16).view(torch.uint8)  # all there are, where there is room
    layer.weight.data = pairs[-layer.weight.numel() :, None].clone()
    before = compat.expanded(layer.weight, torch.float32)
    shared = compat.keep_meaning(layer)
    assert shared.dtype.is_floating_point
    layer.weight = nn.Parameter(shared.to(torch.float32).to(shared.dtype), requires_grad=False)
    assert torch.equal(before, compat.expanded(compat.restore_meaning(layer), torch.float32))
    assert before.shape == size and before.isfinite().all()


def test_peft_calls_its_4bit_layer_by_that_name():
    pytest.importorskip('bitsandbytes')
    compat.required('peft', 'peft.tuners.lora.bnb:Linear4bit', 'models/lora_layers knows it by its class name')


@pytest.mark.parametrize('seen', [0, 1, 4])
def test_a_process_trains_on_one_of_the_cards_that_it_sees(seen, tmp_path, monkeypatch):
    """`lora-mbpp train` on a machine with two cards ended in a trace of TRL's."""
    kept = property(lambda self: self.__dict__.get('_n_gpu', seen), lambda self, count: None)
    monkeypatch.setattr(TrainingArguments, 'n_gpu', kept)
    monkeypatch.setattr(TrainingArguments, '_setup_devices', torch.device('cpu'))
    cfg = resolve('test')
    arguments = trainer_arguments(cfg, choose_runtime(cfg), tmp_path, n_rows=16, fused_lora=True)
    assert arguments.n_gpu == min(seen, 1)


# ------------------------------------------------------------------------------------------------------------- torch


def test_attention_with_cuts_takes_scale_and_window():
    found = compat.varlen_attention()
    purpose = 'models/attention uses it on CUDA'
    hold(found, 'torch', 'torch.nn.attention.varlen.varlen_attn with scale and window_size', purpose)
    names = list(inspect.signature(found[0]).parameters)
    first = ['query', 'key', 'value', 'cu_seq_q', 'cu_seq_k', 'max_q', 'max_k']
    hold(names[:7] == first, 'torch', f'varlen_attn({", ".join(first)})', purpose)


def test_the_allocator_takes_a_setting_when_cuda_has_begun(monkeypatch):
    """Importing bitsandbytes starts CUDA, and the environment is read then: after that nothing grew."""
    told = []
    monkeypatch.setattr(torch.cuda.memory, '_set_allocator_settings', told.append)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    for names, calls in (((), 1), (('PYTORCH_CUDA_ALLOC_CONF',), 0), (('PYTORCH_ALLOC_CONF',), 0)):
        monkeypatch.setenv('PYTORCH_CUDA_ALLOC_CONF', '')  # so that it is as before, afterwards
        monkeypatch.delenv('PYTORCH_CUDA_ALLOC_CONF')
        for name in names:
            monkeypatch.setenv(name, 'max_split_size_mb:512')  # the user's own
        let_segments_grow()
        let_segments_grow()  # a copy of a process that has said it
        assert told == ['expandable_segments:True'] * 2 * calls
        told.clear()


def test_tensors_of_one_memory_have_one_key():
    for device in ('cpu', 'meta'):
        one, other = torch.empty(4, 4, device=device), torch.empty(4, 4, device=device)
        keys = {compat.storage_key(one), compat.storage_key(one[1].view(2, 2)), compat.storage_key(one.detach())}
        kept = len(keys) == 1 and compat.storage_key(other) not in keys
        hold(kept, 'torch', f'identity of storages on {device}', 'training/memory_plan counts memory once')


def test_fsdp_can_leave_parameters_out():
    from torch.distributed.fsdp import fully_shard

    kept = takes(fully_shard, 'mesh', 'ignored_params')
    hold(kept, 'torch', 'fully_shard(mesh, ignored_params)', 'training/sharding shards frozen matrices only')


# ------------------------------------------------------------------------------- libraries that few machines have


def test_liger_can_patch_one_model():
    if not (find_spec('liger_kernel') and find_spec('triton')):
        pytest.skip('liger-kernel or triton is not installed')
    apply, known = compat.liger_patches()
    hold('llama' in known, 'liger-kernel', 'llama among the models that it knows', 'models/fused_kernels asks for it')
    hold(takes(apply, 'model'), 'liger-kernel', 'way to patch a model that is there', 'models/fused_kernels does that')


def test_vllm_has_requests_with_adapters():
    pytest.importorskip('vllm')
    compat.required('vllm', 'vllm.lora.request:LoRARequest', 'generation/vllm_backend asks with adapters')


# ------------------------------------------------------------------------------------------------ nobody goes around


PRIVATE = re.compile(
    r'_attn_implementation|_gradient_checkpointing_func|_non_persistent_buffers_set|_init_weights\b|_keep_in_fp32|'
    r'AutoHfQuantizer|\._cdata|\.quant_state\b|'
    r'\'quant_state\'|AttentionInterface|AttentionMaskInterface|_apply_liger_kernel|dequantize_4bit|'
    r'attention\.varlen import|torch\._C|\._parameters\b|\._buffers\b'
)


def test_private_names_are_used_in_one_place():
    found = {}
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text(encoding='utf-8'))['cells']
        code = '\n'.join(''.join(cell['source']) for cell in cells if cell['cell_type'] == 'code')
        found[path.relative_to(ROOT / 'nbs').as_posix()] = sorted(set(PRIVATE.findall(code)))
    assert found.pop('models/compat.ipynb')
    assert not {name: names for name, names in found.items() if names}, 'go through models/compat'
