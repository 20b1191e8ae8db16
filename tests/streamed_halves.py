"""Run by torchrun in two processes with a folder: the weights of its model, read by layer, are those of a load."""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor

from lora_mbpp.core.config import resolve
from lora_mbpp.models.compat import is_4bit, weight_count
from lora_mbpp.models.lm_head import completion_loss
from lora_mbpp.models.loading import load_model, parameter_counts
from lora_mbpp.models.packing import packed_row
from lora_mbpp.models.runtime import Runtime
from lora_mbpp.models.tiny import tiny_tokenizer
from lora_mbpp.training.launch import end_processes, processes_of
from lora_mbpp.training.memory_plan import Layout
from lora_mbpp.training.monitor import TrainingMonitor
from lora_mbpp.training.setup import TrainerParts, load_prepared, make_trainer, prepare_model


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


def main(folder, quantization):
    processes = processes_of('cpu')
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
    end_processes(processes)


if __name__ == '__main__':
    main(*sys.argv[1:])
