"""Training on the random model: what is learned, what is saved, and that a killed run continues."""
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from lora_mbpp.config import complaint, read_json, resolve
from lora_mbpp.models import choose_runtime, is_adapter, load_model, tiny_model, tiny_tokenizer
from lora_mbpp.train import CompletionTrainer, lora_scale, train


def adapter(cfg_dir) -> dict:
    return load_file(Path(cfg_dir)/'adapter_model.safetensors')


@pytest.mark.parametrize('policy, scale', [('const', 32 / 4), ('2r', 2.0), ('rslora', 32 / 4 ** 0.5)])
def test_scale_is_what_peft_applies(tiny, tmp_path, policy, scale):
    cfg = resolve(**tiny, rank=4, alpha_policy=policy, max_steps=1)
    train(cfg)
    model = PeftModel.from_pretrained(tiny_model(), str(tmp_path/'artifacts'/'checkpoints'/'test-r4-s0'))
    applied = {m.scaling['default'] for m in model.modules() if isinstance(getattr(m, 'scaling', None), dict)}
    assert applied == {scale} == {lora_scale(cfg)[1]}


def test_run_is_recorded_and_base_untouched(tiny, tmp_path):
    metrics = train(resolve(**tiny, rank=4))
    info, folder = metrics['train_info'], tmp_path/'artifacts'/'checkpoints'/'test-r4-s0'
    assert info['steps'] == 3 == len(info['losses']) and info['rows'] == 2
    assert [v['step'] for v in info['val_nll']] == [0, 3]
    assert all(entry['grad_norm'] > 0 for entry in info['losses'])
    base = sum(p.numel() for p in tiny_model().parameters())
    assert info['parameters'] == base and info['trainable_parameters'] == sum(w.numel() for w in adapter(folder).values())
    assert all(w.dtype == torch.float32 for w in adapter(folder).values())
    assert metrics['run_info']['test_run'] is False and metrics['meta_info']['packages']['torch']
    assert not (folder/'checkpoints').exists()
    modules = {name.split('.')[-3] for name in adapter(folder)}
    assert modules == {'q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'}


def test_same_seed_same_adapter_and_finished_run_is_kept(tiny, tmp_path):
    cfg, folder = resolve(**tiny), tmp_path/'artifacts'/'checkpoints'/'test-r8-s0'
    train(cfg)
    first, stamp = adapter(folder), (folder/'adapter_model.safetensors').stat().st_mtime_ns
    train(cfg)
    assert (folder/'adapter_model.safetensors').stat().st_mtime_ns == stamp
    train(resolve(**tiny, overwrite=True))
    assert all(torch.equal(first[name], again) for name, again in adapter(folder).items())
    assert (folder/'adapter_model.safetensors').stat().st_mtime_ns != stamp


def test_other_parameters_under_the_same_name_are_refused(tiny):
    train(resolve(**tiny))
    assert 'lr 0.001 -> 0.01' in complaint(train, resolve(**tiny, lr=0.01))


def test_foreign_adapter_is_not_overwritten(tiny, tmp_path):
    folder = tmp_path/'mine'
    folder.mkdir()
    for name in ('adapter_config.json', 'adapter_model.safetensors'): (folder/name).write_text('{}')
    assert 'did not train' in complaint(train, resolve(**tiny, output_dir=str(folder)))


def test_rows_that_are_too_long_are_counted(tiny):
    info = train(resolve(**tiny, max_length=260))['train_info']
    assert info['rows'] + len(info['rows_too_long']) == 2 and len(info['rows_too_long']) in (0, 1, 2)
    assert 'no training row fits' in complaint(train, resolve(**{**tiny, 'run': 'short'}, max_length=10))


def test_killed_run_continues_to_the_same_adapter(tiny, tmp_path):
    """kill -9 in the middle; the continued run's losses and weights equal the uninterrupted run's."""
    numbers = dict(max_steps=24, checkpoint_every=4, rank=2)
    whole = {**tiny, 'artifacts_dir': str(tmp_path/'whole')}
    expected = train(resolve(**whole, **numbers))['train_info']
    command = [sys.executable, '-m', 'lora_mbpp.cli', 'train', *(part for k, v in {**tiny, **numbers}.items() for part in ('--' + k.replace('_', '-'), str(v)))]
    folder = tmp_path/'artifacts'/'checkpoints'/'test-r2-s0'
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.time() + 90
    while time.time() < deadline and process.poll() is None and not list(folder.glob('checkpoints/checkpoint-*/trainer_state.json')): time.sleep(0.005)
    process.send_signal(signal.SIGKILL) if os.name != 'nt' else process.kill()
    process.wait()
    assert process.returncode != 0, 'the run ended before it could be killed'
    torn = folder/'checkpoints'/'checkpoint-23'
    torn.mkdir(parents=True)
    (torn/'trainer_state.json').write_text('{"half": ')
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'not complete: removed' in done.stdout and 'continuing from' in done.stdout
    found = read_json(tmp_path/'artifacts'/'metrics'/'test-r2-s0.json')['train_info']
    assert [e['step'] for e in found['losses']] == list(range(1, 25))
    assert [e['loss'] for e in found['losses']] == [e['loss'] for e in expected['losses']]
    ours, theirs = adapter(folder), adapter(tmp_path/'whole'/'checkpoints'/'test-r2-s0')
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert json.dumps(found['val_nll']) == json.dumps(expected['val_nll'])


@pytest.mark.parametrize('what', ['loss', 'gradient'])
def test_a_step_that_is_not_a_number_stops_the_run(tiny, tmp_path, monkeypatch, what):
    """Neither spreads into the adapter in silence; what was saved before stays."""
    whole = CompletionTrainer.compute_loss
    def poisoned(self, *args, **kwargs):
        loss = whole(self, *args, **kwargs)
        if self.state.global_step == 1 and what == 'gradient': loss.register_hook(lambda grad: grad * float('nan'))
        return loss * float('nan') if self.state.global_step == 1 and what == 'loss' else loss
    monkeypatch.setattr(CompletionTrainer, 'compute_loss', poisoned)
    sentence = complaint(train, resolve(**tiny, lr=3e-4))
    assert 'gradient of step 2 is not finite' in sentence and '--lr 0.0001' in sentence
    assert not is_adapter(tmp_path/'artifacts'/'checkpoints'/'test-r8-s0')


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_gradients_are_finite_at_every_length():
    """cuDNN's attention gave NaN at 320 = 2.5 x 128 with a mask (torch 2.11 on Hopper)."""
    cfg = resolve('starter')
    model, tok = load_model('tiny-random', choose_runtime(cfg)), tiny_tokenizer()
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    for width in (63, 64, 192, 320):
        ids = torch.randint(3, 259, (2, width), device='cuda')
        mask = torch.ones_like(ids); mask[0, :width // 2] = 0
        model.zero_grad(); model(input_ids=ids, attention_mask=mask).logits.float().sum().backward()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None), width
