"""Training on the random model: what is learned, what is saved, and that a killed run continues."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from trl import SFTTrainer

from lora_mbpp import train as stage
from lora_mbpp.cli import main
from lora_mbpp.core.config import resolve
from lora_mbpp.core.errors import complaint
from lora_mbpp.core.files import read_json
from lora_mbpp.models.adapters import is_adapter
from lora_mbpp.models.attention import set_attention
from lora_mbpp.models.compat import OVERRIDDEN_METHODS, changed_methods
from lora_mbpp.models.lm_head import completion_loss
from lora_mbpp.models.loading import load_model
from lora_mbpp.models.packing import packed_row
from lora_mbpp.models.runtime import choose_runtime
from lora_mbpp.models.tiny import tiny_model, tiny_tokenizer
from lora_mbpp.train import Run, read_rows, train
from lora_mbpp.training.memory_plan import Layout
from lora_mbpp.training.monitor import TrainingMonitor
from lora_mbpp.training.recipe import lora_config, lora_scale
from lora_mbpp.training.rows import collate, rows_of, training_rows
from lora_mbpp.training.setup import TrainerParts, make_trainer, prepare_model
from lora_mbpp.training.time_plan import RunPlan
from lora_mbpp.training.trainer import PackedTrainer


def adapter(cfg_dir) -> dict:
    return load_file(Path(cfg_dir) / 'adapter_model.safetensors')


@pytest.mark.parametrize('policy, scale', [('const', 32 / 4), ('2r', 2.0), ('rslora', 32 / 4**0.5)])
def test_scale_is_what_peft_applies(tiny, tmp_path, policy, scale):
    cfg = resolve(**tiny, rank=4, alpha_policy=policy, max_steps=1)
    train(cfg)
    model = PeftModel.from_pretrained(tiny_model(), str(tmp_path / 'artifacts' / 'checkpoints' / 'test-r4-s0'))
    applied = {m.scaling['default'] for m in model.modules() if isinstance(getattr(m, 'scaling', None), dict)}
    assert applied == {scale} == {lora_scale(cfg)[1]}


def test_run_is_recorded_and_base_untouched(tiny, tmp_path):
    metrics = train(resolve(**tiny, rank=4))
    info, folder = metrics['train_info'], tmp_path / 'artifacts' / 'checkpoints' / 'test-r4-s0'
    assert info['steps'] == 3 == len(info['losses']) and info['rows'] == 2
    assert [v['step'] for v in info['val_nll']] == [0, 3]
    assert all(entry['grad_norm'] > 0 for entry in info['losses'])
    base = sum(p.numel() for p in tiny_model().parameters())
    assert info['parameters'] == base
    assert info['trainable_parameters'] == sum(w.numel() for w in adapter(folder).values())
    assert all(w.dtype == torch.float32 for w in adapter(folder).values())
    assert metrics['run_info']['test_run'] is False and metrics['meta_info']['packages']['torch']
    assert not (folder / 'checkpoints').exists()
    modules = {name.split('.')[-3] for name in adapter(folder)}
    assert modules == {'q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'}


def test_same_seed_same_adapter_and_finished_run_is_kept(tiny, tmp_path):
    cfg, folder = resolve(**tiny), tmp_path / 'artifacts' / 'checkpoints' / 'test-r8-s0'
    train(cfg)
    first, stamp = adapter(folder), (folder / 'adapter_model.safetensors').stat().st_mtime_ns
    train(cfg)
    assert (folder / 'adapter_model.safetensors').stat().st_mtime_ns == stamp
    train(resolve(**tiny, overwrite=True))
    assert all(torch.equal(first[name], again) for name, again in adapter(folder).items())
    assert (folder / 'adapter_model.safetensors').stat().st_mtime_ns != stamp


def test_other_parameters_under_the_same_name_are_refused(tiny):
    train(resolve(**tiny))
    assert 'lr 0.001 -> 0.01' in complaint(train, resolve(**tiny, lr=0.01))


def test_foreign_adapter_is_not_overwritten(tiny, tmp_path):
    folder = tmp_path / 'mine'
    folder.mkdir()
    for name in ('adapter_config.json', 'adapter_model.safetensors'):
        (folder / name).write_text('{}')
    assert 'did not train' in complaint(train, resolve(**tiny, output_dir=str(folder)))


def test_rows_that_are_too_long_are_counted(tiny):
    info = train(resolve(**tiny, max_length=260))['train_info']
    assert info['rows'] + len(info['rows_too_long']) == 2 and len(info['rows_too_long']) in (0, 1, 2)
    assert 'no training row fits' in complaint(train, resolve(**{**tiny, 'run': 'short'}, max_length=10))


@pytest.mark.slow
def test_killed_run_continues_to_the_same_adapter(tiny, tmp_path):
    """kill -9 in the middle; the continued run's losses and weights equal the uninterrupted run's."""
    numbers = dict(max_steps=24, checkpoint_every=4, rank=2)
    whole = {**tiny, 'artifacts_dir': str(tmp_path / 'whole')}
    expected = train(resolve(**whole, **numbers))['train_info']
    options = [part for k, v in {**tiny, **numbers}.items() for part in ('--' + k.replace('_', '-'), str(v))]
    command = [sys.executable, '-m', 'lora_mbpp.cli', 'train', *options]
    folder = tmp_path / 'artifacts' / 'checkpoints' / 'test-r2-s0'
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.time() + 90
    while time.time() < deadline and process.poll() is None:
        if list(folder.glob('checkpoints/checkpoint-*/whole.json')):
            break
        time.sleep(0.02)
    process.kill()  # SIGKILL
    process.wait()
    assert process.returncode != 0, 'the run ended before it could be killed'
    torn = folder / 'checkpoints' / 'checkpoint-23'
    torn.mkdir(parents=True)
    (torn / 'trainer_state.json').write_text('{"half": ')
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'not complete: removed' in done.stdout and 'continuing from' in done.stdout
    found = read_json(tmp_path / 'artifacts' / 'metrics' / 'test-r2-s0.json')['train_info']
    assert [e['step'] for e in found['losses']] == list(range(1, 25))
    assert [e['loss'] for e in found['losses']] == [e['loss'] for e in expected['losses']]
    ours, theirs = adapter(folder), adapter(tmp_path / 'whole' / 'checkpoints' / 'test-r2-s0')
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert json.dumps(found['val_nll']) == json.dumps(expected['val_nll'])


@pytest.mark.parametrize('what', ['loss', 'gradient'])
def test_a_step_that_is_not_a_number_stops_the_run(tiny, tmp_path, monkeypatch, what):
    """Neither spreads into the adapter in silence; what was saved before stays."""
    whole = PackedTrainer.training_step

    def poisoned(self, model, *args, **kwargs):
        loss = whole(self, model, *args, **kwargs)
        if self.state.global_step == 1:
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.grad *= float('nan')
        return loss * float('nan') if self.state.global_step == 1 and what == 'loss' else loss

    monkeypatch.setattr(PackedTrainer, 'training_step', poisoned)
    sentence = complaint(train, resolve(**tiny, lr=3e-4))
    assert 'gradient of step 2 is not finite' in sentence and '--lr 0.0001' in sentence
    assert not is_adapter(tmp_path / 'artifacts' / 'checkpoints' / 'test-r8-s0')


def test_rows_do_not_change_the_run(tiny, tmp_path):
    """A step in one row, in rows of one document each, with recomputed activations: same losses, same adapter."""
    layouts = {
        'one': dict(row_tokens=4096, recomputed_layers=0),
        'many': dict(row_tokens=1, recomputed_layers=0),
        'again': dict(row_tokens=4096, recomputed_layers=2),
    }
    runs = {name: train(resolve(**{**tiny, 'run': name}, **given))['train_info'] for name, given in layouts.items()}
    folder = tmp_path / 'artifacts' / 'checkpoints'
    expected = [e['loss'] for e in runs['one']['losses']]
    for name in ('many', 'again'):
        assert [e['loss'] for e in runs[name]['losses']] == pytest.approx(expected, abs=1e-5)
        assert runs[name]['order'] == runs['one']['order']
        one, other = adapter(folder / 'one'), adapter(folder / name)
        assert all(torch.allclose(other[n], one[n], atol=1e-6) for n in one)
    assert runs['again']['recomputed_layers'] == 2 and runs['many']['row_tokens'] < runs['one']['row_tokens']


def test_out_of_memory_is_survived(tiny, tmp_path, monkeypatch, capsys):
    """Steps of too many tokens fail twice, then go on in shorter rows to the same adapter.

    Where one document is too much, a sentence says so."""
    calm = train(resolve(**{**tiny, 'run': 'calm'}, row_tokens=4096, effective_batch=4))['train_info']
    whole, room = PackedTrainer.forth_and_back, {'tokens': 400}

    def tight(self, model, rows, weight):
        for row, _ in rows:
            if row['input_ids'].shape[1] > room['tokens']:
                raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB. more')
        return whole(self, model, rows, weight)

    monkeypatch.setattr(PackedTrainer, 'forth_and_back', tight)
    info = train(resolve(**{**tiny, 'run': 'tight'}, row_tokens=4096, effective_batch=4))['train_info']
    assert 'out of memory at step 1: rows of at most' in capsys.readouterr().out
    assert info['shrunk'] and info['row_tokens'] <= 400 and len(info['losses']) == 3
    assert [e['loss'] for e in info['losses']] == pytest.approx([e['loss'] for e in calm['losses']], abs=1e-5)
    ours, theirs = (adapter(tmp_path / 'artifacts' / 'checkpoints' / name) for name in ('tight', 'calm'))
    assert all(torch.allclose(ours[n], theirs[n], atol=1e-6) for n in theirs)
    room['tokens'] = 10
    sentence = complaint(train, resolve(**{**tiny, 'run': 'hopeless'}))
    assert 'with one row of' in sentence and '--max-length' in sentence and '2.00 GiB' not in sentence


def test_a_run_that_cannot_fit_is_refused_with_ways_out(tiny, tmp_path):
    sentence = complaint(train, resolve(**tiny, vram=1.01))
    assert 'GiB at least' in sentence and sentence.count(';') == 2 and '--max-length' in sentence
    assert not (tmp_path / 'artifacts' / 'checkpoints' / 'test-r8-s0' / 'checkpoints').exists()


@pytest.mark.parametrize('method', ['rslora', 'dora', 'pissa', 'lora+'])
def test_methods_train_and_load_in_plain_peft(tiny, tmp_path, method):
    """The saved adapter on the base model gives what the trained model gave."""
    metrics = train(resolve(**tiny, rank=2, method=method, lr=1e-2, snapshots=1))
    folder = tmp_path / 'artifacts' / 'checkpoints' / 'test-r2-s0'
    assert ('PEFT\'s own' if method == 'dora' else 'lean') in ' '.join(metrics['train_info']['how'])
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        base, trained = tiny_model()(ids).logits, PeftModel.from_pretrained(tiny_model(), str(folder))(ids).logits
    distance = (trained - base).abs().max()
    assert 1e-4 < distance < 5  # PiSSA's half loaded onto the whole base would be far off
    with torch.no_grad():
        kept = PeftModel.from_pretrained(tiny_model(), str(folder / 'snapshots' / 'step-00003'))(ids).logits
    assert torch.allclose(kept, trained, atol=1e-5)
    assert not (folder / 'start').exists()


def test_pissa_on_a_quantised_base_is_refused(tiny):
    cfg = resolve(**tiny, method='pissa')
    quantised = replace(choose_runtime(cfg), quantization='nf4')
    assert 'unquantised' in complaint(prepare_model, cfg, quantised, tiny_model())


def test_smaller_ranks_begin_as_larger_ones(tiny):
    runtime = choose_runtime(resolve(**tiny))
    models = [prepare_model(resolve(**tiny, rank=r), runtime, tiny_model())[0] for r in (3, 20)]
    small, large = (dict(model.named_parameters()) for model in models)
    names = [n for n in small if 'lora_A' in n]
    assert len(names) == 14
    assert all(torch.equal(small[n], large[n][:3]) for n in names)
    first = large[names[0]]
    assert not torch.equal(small[names[0]], first[3:6])
    assert all(large[n].abs().max() <= large[n].shape[1] ** -0.5 for n in names)
    assert first.std().item() == pytest.approx(first.shape[1] ** -0.5 / 3**0.5, rel=0.15)


def test_entries_move_at_small_rates(tiny, tmp_path):
    """Late in a schedule the steps are tiny: float32 masters take them, bfloat16 would not."""
    train(resolve(**tiny, rank=4, snapshots=3, lr=1e-4, max_steps=40))
    folder = tmp_path / 'artifacts' / 'checkpoints' / 'test-r4-s0'
    before, after = adapter(folder / 'snapshots' / 'step-00027'), adapter(folder)
    moved = sum((before[n] != after[n]).sum().item() for n in after) / sum(w.numel() for w in after.values())
    assert moved >= 0.99


def test_who_listens_to_saves_hears_of_those_that_are_made(tiny, monkeypatch):
    """A tracker that uploads checkpoints would look for a folder that is not there."""
    heard = []

    def on_save(self, args, state, control, **kwargs):
        heard.append(Path(args.output_dir, f'checkpoint-{state.global_step}', 'whole.json').exists())

    monkeypatch.setattr(TrainingMonitor, 'on_save', on_save)
    info = train(resolve(**tiny))['train_info']
    assert not heard and not info['checkpoint_seconds']
    train(resolve(**{**tiny, 'run': 'other'}, checkpoint_every=2))
    assert heard == [True, True]  # after two steps and at the end


@pytest.mark.slow
def test_a_damaged_checkpoint_is_not_used(tiny, tmp_path, capsys, monkeypatch):
    """The newest checkpoint has lost a byte: it is removed, the one before it is taken."""
    whole = TrainingMonitor.on_step_end

    def killed(self, args, state, control, **kwargs):
        whole(self, args, state, control, **kwargs)
        if state.global_step == 9:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(TrainingMonitor, 'on_step_end', killed)
        train(resolve(**tiny, max_steps=12, checkpoint_every=4))
    folder = tmp_path / 'artifacts' / 'checkpoints' / 'test-r8-s0' / 'checkpoints'
    assert sorted(p.name for p in folder.glob('checkpoint-*')) == ['checkpoint-4', 'checkpoint-8']
    optimizer = folder / 'checkpoint-8' / 'optimizer.pt'
    optimizer.write_bytes(optimizer.read_bytes()[:-1])
    info = train(resolve(**tiny, max_steps=12, checkpoint_every=4))['train_info']
    said = capsys.readouterr().out
    assert 'checkpoint-8 is not complete: removed' in said
    assert 'checkpoint-4' in said.split('continuing from')[1].splitlines()[0]
    other = train(resolve(**{**tiny, 'run': 'other'}, max_steps=12, checkpoint_every=4))['train_info']
    assert [e['loss'] for e in info['losses']] == [e['loss'] for e in other['losses']]


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_flash_attention_over_cuts_equals_documents_alone():
    """In bfloat16 on CUDA: logits and gradients of a packed row are those of its documents."""
    documents = [torch.randint(3, 259, (n,)).tolist() for n in (5, 64, 130, 33)]

    def gradients(way):
        model = tiny_model().to('cuda', torch.bfloat16)
        set_attention(model, way)
        model(**packed_row(documents, 'cuda'), use_cache=False).logits.float().logsumexp(-1).sum().backward()
        return {n: p.grad for n, p in model.named_parameters()}

    ours, theirs = gradients('varlen'), gradients('by document')
    for name in theirs:
        assert (ours[name] - theirs[name]).norm() <= 0.03 * theirs[name].norm() + 1e-3, name


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_gradients_are_finite_at_every_length():
    """cuDNN's attention gave NaN at 320 = 2.5 x 128 with a mask (torch 2.11 on Hopper)."""
    cfg = resolve('starter')
    model = load_model('tiny-random', choose_runtime(cfg))
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    for width in (63, 64, 192, 320):
        ids = torch.randint(3, 259, (2, width), device='cuda')
        mask = torch.ones_like(ids)
        mask[0, : width // 2] = 0
        model.zero_grad()
        model(input_ids=ids, attention_mask=mask).logits.float().sum().backward()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None), width


@pytest.mark.parametrize('kind', ['packed', 'padded', 'single'])
@pytest.mark.parametrize('room', [1, 40, 10_000])
def test_packed_gradients_are_padded_gradients(tiny, kind, room):
    """Loss and every adapter gradient of a step, two ways.

    PEFT's own layers over a padded batch with transformers' loss, and fused layers over rows of each kind."""
    cfg, generator = resolve(**tiny, rank=4), torch.Generator().manual_seed(0)
    ids_of = [torch.randint(3, 259, (n,), generator=generator).tolist() for n in (5, 31, 12, 20)]
    documents = [{'input_ids': ids, 'labels': [-100] * 3 + ids[3:]} for ids in ids_of]
    torch.manual_seed(0)
    padded = get_peft_model(tiny_model(), lora_config(cfg))
    start = {n: torch.randn_like(p) * 0.1 for n, p in padded.named_parameters() if p.requires_grad}

    def load(model):
        for n, p in model.named_parameters():
            if n in start:
                p.data.copy_(start[n])

    load(padded)
    width = max(map(len, ids_of))

    def pad(lists, filler):
        return torch.tensor([one + [filler] * (width - len(one)) for one in lists])

    ids, labels = pad(ids_of, 0), pad([d['labels'] for d in documents], -100)
    mask = pad([[1] * len(ids) for ids in ids_of], 0)
    wanted = padded(input_ids=ids, attention_mask=mask, labels=labels).loss
    wanted.backward()
    packed, _ = prepare_model(cfg, choose_runtime(cfg), tiny_model())
    set_attention(packed, 'by document' if kind == 'packed' else 'sdpa')
    load(packed)
    targets, total = sum(t != -100 for d in documents for t in d['labels']), 0
    for row, row_labels in rows_of(collate(documents), room, 'cpu', kind=kind):
        loss = completion_loss(packed, row, row_labels) / targets
        loss.backward()
        total += loss.item()
    assert total == pytest.approx(wanted.item(), abs=1e-5)
    ours, theirs = ({n: p.grad for n, p in m.named_parameters() if p.requires_grad} for m in (packed, padded))
    assert ours.keys() == theirs.keys() and len(ours) == 28
    assert all(torch.allclose(ours[n], theirs[n], atol=2e-6, rtol=1e-4) for n in ours)


def test_states_wider_than_the_head(tiny):
    """Float32 states before a bfloat16 head, as fused kernels make them of DoRA or float16 on CUDA."""
    model, _ = prepare_model(resolve(**tiny, rank=4), choose_runtime(resolve(**tiny)), tiny_model())
    document = {'input_ids': list(range(3, 40)), 'labels': list(range(3, 40))}
    row, labels = rows_of(collate([document]), 100, 'cpu')[0]
    exact = completion_loss(model, row, labels)
    model.get_base_model().get_output_embeddings().kept[0].bfloat16()
    narrow = completion_loss(model, row, labels)
    narrow.backward()
    assert narrow.item() == pytest.approx(exact.item(), rel=0.01)
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def test_the_base_does_not_change_and_the_end_is_learned(tiny):
    """After steps of a high rate the frozen weights are bit for bit the base's; every entry of some B has moved."""
    cfg, tok = resolve(**tiny, lr=1e-2), tiny_tokenizer()
    runtime = choose_runtime(cfg)
    model, _ = prepare_model(cfg, runtime, tiny_model().to(runtime.device))
    before = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    rows, _ = read_rows(cfg)
    encoded, _ = training_rows(tok, rows, 1024)
    assert all(r['labels'][-1] == tok.eos_token_id and r['labels'][0] == -100 for r in encoded)
    folder, layout = Path(tiny['artifacts_dir']), Layout(512, 0, {}, 1.0)
    make_trainer(cfg, runtime, TrainerParts(model, tok, encoded, TrainingMonitor(tok, []), folder, layout)).train()
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters() if n in before)
    assert any((p != 0).all() for n, p in model.named_parameters() if 'lora_B' in n)


def test_methods_of_the_trainer_that_are_replaced_are_known():
    """A new version of transformers or TRL that renames one of them is told by a sentence."""
    own = PackedTrainer.__mro__[: PackedTrainer.__mro__.index(SFTTrainer)]
    replaced = {name for kind in own for name in vars(kind) if hasattr(SFTTrainer, name) and not name.startswith('__')}
    assert replaced == OVERRIDDEN_METHODS.keys()
    assert changed_methods(SFTTrainer, 'trl') == []


@pytest.mark.parametrize(
    'settings, one_piece',
    [
        (dict(optim='adamw_torch', device='cuda'), True),
        (dict(optim='adamw_torch', device='cpu'), False),
        (dict(optim='adamw_torch_fused', device='cpu'), True),
        (dict(optim='adamw_torch_fused', device='cuda', weight_decay=0.1), False),
        (dict(optim='adamw_torch_fused', device='cuda', fp16=True), False),  # a scaler leaves out steps: it is told of
        (dict(optim='paged_adamw_8bit', device='cuda'), False),
    ],
    ids=str,
)
def test_an_adapter_in_one_piece_is_moved_where_that_is_the_same(monkeypatch, settings, one_piece):
    from trl import SFTTrainer

    from lora_mbpp.training import trainer as chapter

    monkeypatch.setattr(SFTTrainer, 'create_optimizer', lambda self: "torch's own")
    monkeypatch.setattr(chapter, 'FlatAdamW', lambda adapter, **given: 'in one piece')
    usual = dict(weight_decay=0.0, fp16=False, learning_rate=1e-4, adam_beta1=0.9, adam_beta2=0.999, adam_epsilon=1e-8)
    trainer = PackedTrainer.__new__(PackedTrainer)
    trainer.args = SimpleNamespace(**usual | settings | {'device': torch.device(settings['device'])})
    trainer.lr_ratio, trainer.optimizer, trainer.gradients = None, None, SimpleNamespace(adapter=None)
    assert trainer.create_optimizer() == ('in one piece' if one_piece else "torch's own")


def test_plan_in_words_and_numbers(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)  # a card of this machine would be measured
    (tmp_path / 'none.jsonl').write_text('no data\n')
    missing = ['--mbpp-file', str(tmp_path / 'none.jsonl'), '--data-dir', str(tmp_path / 'd')]
    command = ['plan', '--preset', 'mistral-7b', '--source', 'files', *missing]
    assert main([*command, '--ranks', '8,32', '--vram', '12']) == 0
    said = capsys.readouterr().out
    assert 'not measured here' in said and 'cannot be read here' in said and '4800 rows' in said
    total = next(line for line in said.splitlines() if line.startswith('total GiB')).split()[2:]
    assert 8 < float(total[0]) < float(total[1]) < 11
    rows = next(line for line in said.splitlines() if line.startswith('tokens a row')).split()[3:]
    assert rows[0] == rows[1]
    assert main([*command, '--ranks', '8', '--vram', '5']) == 2
    assert 'Ways out' in capsys.readouterr().err


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA')
def test_recorded_steps_are_the_ordinary_ones(tiny, tmp_path):
    """Losses of a run whose rows come back in a few shapes, as CUDA graphs and without."""
    runs = {}
    for way in (True, False):
        cfg = resolve(**tiny, dtype='bfloat16', cuda_graphs=way, run=f'graphs-{way}', max_steps=12, rank=2)
        runs[way] = train(cfg)['train_info']
    losses = [[entry['loss'] for entry in runs[way]['losses']] for way in (True, False)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-2) and len(set(losses[0])) > 4
    assert 'steps: recorded as CUDA graphs' in runs[True]['how']
    assert 'steps: not recorded (switched off)' in runs[False]['how']


def test_the_adapter_of_a_quantised_base_stays_in_float32(tiny):
    """TRL rounds it to bfloat16, in which small updates are lost."""
    cfg = resolve(**tiny)
    runtime = choose_runtime(cfg)
    model, _ = prepare_model(cfg, runtime, tiny_model().to(runtime.device))
    before = {n: p.clone() for n, p in model.named_parameters() if p.requires_grad}
    model.is_loaded_in_4bit = True
    rows, _ = read_rows(cfg)
    tok = tiny_tokenizer()
    encoded, _ = training_rows(tok, rows, 1024)
    folder, layout = Path(tiny['artifacts_dir']), Layout(512, 0, {}, 1.0)
    make_trainer(cfg, runtime, TrainerParts(model, tok, encoded, TrainingMonitor(tok, []), folder, layout))
    assert before and all(torch.equal(p, before[n]) for n, p in model.named_parameters() if n in before)
    assert all(p.dtype == torch.float32 for p in model.parameters() if p.requires_grad)


def test_the_forecast_of_recorded_rows_has_room_for_recordings(tmp_path, monkeypatch):
    """A run whose rows are recorded is forecast with half of its activations more; others as planned."""
    cfg = resolve('test', source='starter', artifacts_dir=str(tmp_path), data_dir=str(tmp_path / 'data'))
    memory = {'weights': 1.0, 'activations': 2.0, 'total': 4.0}
    layout = Layout(row_tokens=800, recomputed=0, memory=memory, budget=9.0)
    run_plan = RunPlan(2, layout, 3, 100, 50, None, None)
    run, tok = Run(cfg, [], [], {}, False), SimpleNamespace(pad_token_id=0)
    for recorder, total in ((None, 4.0), (object(), 4.0 + 1.04)):
        monkeypatch.setattr(stage, 'make_trainer', lambda *args, r=recorder: SimpleNamespace(recorder=r))
        session = stage.build(run, choose_runtime(cfg), SimpleNamespace(tok=tok, rows=[]), run_plan, (None, []))
        assert session.run_plan.layout.memory['total'] == pytest.approx(total)
