"""Run by torchrun in two processes: each holds half of the bytes of NF4 weights; gradients are those of whole ones."""

import bitsandbytes as bnb
import torch
import torch.distributed as dist
from peft import LoraConfig, get_peft_model
from torch import nn

from lora_mbpp.models.attention import set_attention
from lora_mbpp.models.lm_head import completion_loss, detach_lm_head
from lora_mbpp.models.loading import parameter_counts
from lora_mbpp.models.lora_layers import fuse_lora_layers
from lora_mbpp.models.packing import packed_row
from lora_mbpp.models.recomputation import checkpoint_layers
from lora_mbpp.models.tiny import tiny_model
from lora_mbpp.training.sharding import shard_base

NF4 = dict(quant_type='nf4', compress_statistics=True)


def ready():
    """A random model in NF4 with a random adapter, set up to train."""
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


def main():
    dist.init_process_group('gloo')
    row, labels = packed_row([[5, 6, 7, 8], [9, 10, 11]]), torch.tensor([-100, -100, 7, 8, -100, 10, 11])
    whole, shared = ready(), ready()
    shard_base(shared, 'cpu')
    for model in (whole, shared):
        checkpoint_layers(model, 1)
        for _ in range(2):
            model.zero_grad()
            completion_loss(model, row, labels).backward()
    found = {n: p.grad for n, p in shared.named_parameters() if p.grad is not None}
    weight = shared.get_base_model().get_decoder().layers[0].mlp.up_proj.base_layer.weight
    assert weight.dtype == torch.bfloat16  # two bytes of four weights each
    assert weight.to_local().numel() * 2 == weight.numel() == 16 * 32 // 4
    assert len(found) == 28
    assert all(torch.equal(p.grad, found[n]) for n, p in whole.named_parameters() if p.grad is not None)
    assert parameter_counts(shared) == (2048, 10880)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == '__main__':
    main()
