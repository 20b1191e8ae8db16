"""Run in two processes, each with half of every weight: bytes and gradients are those of whole weights.

The arguments are the folder of a model and what to look at; one line a thing that holds, an error ends all."""

import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from accelerate.utils import gather_object
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.distributed.tensor import DTensor

from lora_mbpp.core.config import resolve
from lora_mbpp.models.attention import set_attention
from lora_mbpp.models.compat import is_4bit, weight_count
from lora_mbpp.models.lm_head import completion_loss, detach_lm_head
from lora_mbpp.models.loading import load_model, parameter_counts
from lora_mbpp.models.lora_layers import fuse_lora_layers
from lora_mbpp.models.packing import packed_row
from lora_mbpp.models.recomputation import checkpoint_layers
from lora_mbpp.models.runtime import Runtime
from lora_mbpp.models.tiny import tiny_model, tiny_tokenizer
from lora_mbpp.training.launch import end_processes, exchange_rate, processes_of
from lora_mbpp.training.memory_plan import Layout
from lora_mbpp.training.monitor import TrainingMonitor
from lora_mbpp.training.setup import TrainerParts, load_prepared, make_trainer, prepare_model
from lora_mbpp.training.sharding import shard_base

NF4 = dict(quant_type='nf4', compress_statistics=True)


def same_weights(whole, shared):
    """Each frozen matrix, gathered, has the bytes of the whole one."""
    ours = dict(shared.named_modules())
    for name, module in whole.named_modules():
        if not hasattr(module, 'lora_A'):
            continue
        theirs, mine = module.get_base_layer(), ours[name].get_base_layer()
        assert isinstance(mine.weight, DTensor) and mine.weight.to_local().numel() * 2 == mine.weight.numel()
        assert weight_count(mine, mine.weight) == weight_count(theirs, theirs.weight)
        gathered = mine.weight.full_tensor()
        if is_4bit(theirs.weight):
            gathered = gathered.view(torch.uint8)
            assert torch.equal(mine.quant_state.absmax, theirs.weight.quant_state.absmax)
        assert torch.equal(gathered.flatten(), theirs.weight.data.flatten())


def trained_losses(cfg, runtime, model, weight_shards):
    """Losses of three steps of the trainer."""
    documents = [{'input_ids': list(range(3, n)), 'labels': [-100] * 2 + list(range(5, n))} for n in (9, 20, 15, 7)]
    layout, place = Layout(512, 0, {}, 1.0, weight_shards), Path(tempfile.mkdtemp())
    parts = TrainerParts(model, tiny_tokenizer(), documents, TrainingMonitor(tiny_tokenizer(), []), place, layout)
    trainer = make_trainer(replace(cfg, max_steps=3, effective_batch=4), runtime, parts)
    trainer.train()
    return [entry['loss'] for entry in trainer.state.log_history if 'loss' in entry]


def check_streamed(folder, quantization):
    """Weights read layer by layer are those of a load."""
    cfg = resolve('test', model=folder, rank=4, quantization='none', dtype='float32')
    runtime = Runtime('cpu', 'float32', quantization, 'CPU', '')
    shared, how = load_prepared(cfg, runtime, Layout(512, 0, {}, 1.0, weight_shards=2))
    assert how[0] == 'base weights: read layer by layer, then shared', how
    whole, _ = prepare_model(cfg, runtime, load_model(folder, runtime))
    same_weights(whole, shared)
    trained = {name: p for name, p in whole.named_parameters() if p.requires_grad}
    assert trained and all(torch.equal(p, dict(shared.named_parameters())[name]) for name, p in trained.items())
    assert not any(p.is_meta for p in shared.parameters()) and not any(b.is_meta for b in shared.buffers())
    assert parameter_counts(shared) == parameter_counts(whole)
    row, labels = packed_row([[5, 6, 7, 8], [9, 10, 11]]), torch.tensor([-100, -100, 7, 8, -100, 10, 11])
    for model in (whole, shared):
        for name, parameter in model.named_parameters():
            if name.endswith('lora_B.default.weight'):
                parameter.data.fill_(0.01)
        completion_loss(model.train(), row, labels).backward()
    pairs = (('whole', whole, 1), ('shared', shared, 2))
    found = {name: p.grad for name, p in shared.named_parameters() if p.grad is not None}
    assert found.keys() == trained.keys() and all(torch.equal(p.grad, found[n]) for n, p in trained.items())
    losses = {name: trained_losses(cfg, runtime, model, weight_shards) for name, model, weight_shards in pairs}
    assert len(losses['shared']) == 3 and losses['shared'] == losses['whole'], losses
    assert all(torch.equal(p, dict(shared.named_parameters())[name]) for name, p in trained.items())


def nf4_model():
    """A random model in NF4 with a random adapter, set up to train."""
    import bitsandbytes as bnb  # not everywhere

    torch.manual_seed(0)
    base = tiny_model()
    for name, linear in [(n, m) for n, m in base.named_modules() if isinstance(m, nn.Linear) and n != 'lm_head']:
        sizes = (linear.in_features, linear.out_features)
        packed = bnb.nn.Linear4bit(*sizes, bias=False, compute_dtype=torch.float32, **NF4)
        packed.weight = bnb.nn.Params4bit(linear.weight.data.clone(), requires_grad=False, **NF4).to('cpu')
        base.set_submodule(name, packed)
    model = get_peft_model(base, LoraConfig(r=4, target_modules='all-linear', init_lora_weights=False)).train()
    assert fuse_lora_layers(model) == 14
    set_attention(model, 'by document')
    detach_lm_head(model)
    return model


def check_packed():
    """NF4: each process holds half of the bytes; gradients are those of whole weights."""
    row, labels = packed_row([[5, 6, 7, 8], [9, 10, 11]]), torch.tensor([-100, -100, 7, 8, -100, 10, 11])
    whole, shared = nf4_model(), nf4_model()
    shard_base(shared, 'cpu')
    for model in (whole, shared):
        checkpoint_layers(model, 1)
        for _ in range(2):
            model.zero_grad()
            completion_loss(model, row, labels).backward()
    found = {n: p.grad for n, p in shared.named_parameters() if p.grad is not None}
    weight = shared.get_base_model().get_decoder().layers[0].mlp.up_proj.base_layer.weight
    assert weight.dtype == torch.float32  # four bytes, of eight weights
    assert weight.to_local().numel() * 2 == weight.numel() == 16 * 32 // 8
    assert len(found) == 28
    assert all(torch.equal(p.grad, found[n]) for n, p in whole.named_parameters() if p.grad is not None)
    assert parameter_counts(shared) == (2048, 10880)


def main(folder, *names):
    processes = processes_of('cpu')
    rates = gather_object([exchange_rate(processes)])
    assert rates[0] == rates[1] and 1e6 < rates[0] < 1e12
    for name in names:
        check_packed() if name == 'packed' else check_streamed(folder, name)
        if processes.is_main_process:
            print(f'{name}: the same', flush=True)
    end_processes(processes)
