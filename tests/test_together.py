"""Runs that are trained together are the runs that they would be alone."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lora_mbpp.core.config import resolve
from lora_mbpp.core.files import read_json
from lora_mbpp.core.runs import adapter_dir, metrics_file, run_name
from lora_mbpp.experiments.together import step_of, train_together
from lora_mbpp.models.attention import set_attention
from lora_mbpp.models.joint_lora import JointModel, copy_sharing_weights
from lora_mbpp.models.proof import RowWay
from lora_mbpp.models.runtime import choose_runtime
from lora_mbpp.models.tiny import tiny_model
from lora_mbpp.train import train
from lora_mbpp.training.monitor import TrainingMonitor
from lora_mbpp.training.recorded_rows import row_losses
from lora_mbpp.training.setup import prepare_model
from lora_mbpp.training.together import Seat, Table
from lora_mbpp.training.trainer import PackedTrainer

WORDS = 'def add(a, b): return a + b'.split()


@pytest.fixture
def study(tmp_path):
    """`study(folder, **given)` is a run's configuration, on 21 rows of different lengths."""
    for name, count in (('train', 21), ('val', 3)):
        rows = [
            {
                'id': f'{name}{i}',
                'prompt': f'Write function {i} ' * (1 + i % 5),
                'completion': ' '.join(WORDS * (1 + i % 4)),
            }
            for i in range(count)
        ]
        (tmp_path / f'{name}.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))

    def configuration(folder: str, **given):
        files = {'train_file': str(tmp_path / 'train.jsonl'), 'val_file': str(tmp_path / 'val.jsonl')}
        wanted = dict(preset='test', effective_batch=4, max_steps=6, lr=3e-3, warmup_ratio=0.2, row_tokens=800)
        return resolve(**{**wanted, **files, **given}, artifacts_dir=str(tmp_path / folder))

    return configuration


def info_of(cfg) -> dict:
    return read_json(metrics_file(cfg, run_name(cfg)))['train_info']


def weights_of(cfg) -> dict:
    return load_file(Path(adapter_dir(cfg)) / 'adapter_model.safetensors')


def assert_same(one, other, atol=1e-5):
    """Two runs have the same curves, order of rows, and adapter."""
    a, b = info_of(one), info_of(other)
    assert a['order'] == b['order'] and a['steps'] == b['steps'] and a['target_tokens'] == b['target_tokens']
    for curve, names in (('losses', ('loss', 'grad_norm', 'learning_rate')), ('val_nll', ('nll',))):
        for name in names:
            found, wanted = ([entry[name] for entry in info[curve]] for info in (a, b))
            assert found == pytest.approx(wanted, abs=atol, rel=1e-4), (curve, name)
    mine, theirs = weights_of(one), weights_of(other)
    assert mine.keys() == theirs.keys()
    assert all(torch.allclose(mine[name], theirs[name], atol=atol) for name in theirs)


def test_runs_together_are_the_runs_alone(study):
    """Ranks, seeds and rates of their own, several rows a step, clipping at work."""
    given = [dict(rank=2, snapshots=2), dict(rank=8, seed=1), dict(rank=32, lr=1e-2, tag='fast')]
    pairs = [(study('together', **own), study('alone', **own)) for own in given]
    outcome = train_together([cfg for cfg, _ in pairs])
    assert sorted(outcome.trained) == sorted(run_name(cfg) for cfg, _ in pairs) and not outcome.stopped
    for cfg, alone in pairs:
        train(alone)
        assert_same(cfg, alone)
        assert len(info_of(cfg)['together']['others']) == 2
        files = [{path.name for path in adapter_dir(one).rglob('*')} for one in (cfg, alone)]
        assert files[0] == files[1]
        assert read_json(adapter_dir(cfg) / 'run.json') == read_json(adapter_dir(alone) / 'run.json')
    norms = [entry['grad_norm'] for cfg, _ in pairs for entry in info_of(cfg)['losses']]
    assert max(norms) > 1 > min(norms), 'some steps are clipped, others are not'
    assert len({info_of(cfg)['order'] for cfg, _ in pairs}) == 2


def test_runs_are_validated_together_and_wait_for_one_that_is(study, monkeypatch):
    """One pass over the validation rows for all that are at a mark; a shorter run has marks of its own."""
    asked, compute = [], Table.nll
    monkeypatch.setattr(Table, 'nll', lambda self, runs: asked.append(sorted(runs)) or compute(self, runs))
    cfgs = [study('marks', rank=2), study('marks', rank=4), study('marks', rank=8, max_steps=3)]
    outcome = train_together(cfgs)
    assert len(outcome.trained) == 3
    marks = [[entry['step'] for entry in info_of(cfg)['val_nll']] for cfg in cfgs]
    assert marks[0] == marks[1] != marks[2] and asked[0] == [0, 1, 2]
    assert len(asked) == len({*marks[0], *marks[2]}) and sum(map(len, asked)) == sum(map(len, marks))


def test_one_kernel_moves_an_adapter_as_many_do(study):
    """AdamW over the adapter in one piece, together and alone: the curves and the adapter of the plain optimizer."""
    cfgs = [study('fused', rank=r, optimizer='adamw_torch_fused') for r in (2, 8)]
    alone, plain = study('alone', rank=2, optimizer='adamw_torch_fused'), study('plain', rank=2)
    train_together(cfgs)
    train(alone)
    train(plain)
    assert_same(cfgs[0], alone)
    assert_same(alone, plain)


@pytest.mark.slow
@pytest.mark.parametrize('begun', ['alone', 'together'])
@pytest.mark.parametrize('optimizer', ['adamw_torch', 'adamw_torch_fused'])
def test_a_stopped_run_continues_the_other_way(study, begun, optimizer, monkeypatch):
    """Begun alone and continued together, or the other way round: the run that was never stopped."""
    step = PackedTrainer.training_step

    def interrupted(self, *args, **kwargs):
        if self.state.global_step == 5:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    numbers = dict(optimizer=optimizer, checkpoint_every=2)
    cfgs, whole = ([study(folder, rank=r, **numbers) for r in (2, 8)] for folder in ('stopped', 'whole'))
    with monkeypatch.context() as patch:
        patch.setattr(PackedTrainer, 'training_step', interrupted)
        for start in [lambda: train_together(cfgs)] if begun == 'together' else [lambda: train(cfgs[0])]:
            with pytest.raises(KeyboardInterrupt):
                start()
    assert (adapter_dir(cfgs[0]) / 'checkpoints' / 'checkpoint-4').is_dir()
    if begun == 'together':
        for cfg in cfgs:
            train(cfg)
    else:
        train_together(cfgs)
    train_together(whole)
    for cfg, other in zip(cfgs, whole):
        assert_same(cfg, other)


def test_a_finished_run_is_left_and_the_last_one_is_not_begun(study):
    cfgs = [study('a', rank=r) for r in (2, 4)]
    train(cfgs[0])
    stamp = (adapter_dir(cfgs[0]) / 'adapter_model.safetensors').stat().st_mtime_ns
    outcome = train_together(cfgs)
    assert outcome.trained == ['test-r2-s0'] and 'no other run' in outcome.alone['test-r4-s0']
    assert (adapter_dir(cfgs[0]) / 'adapter_model.safetensors').stat().st_mtime_ns == stamp
    assert not adapter_dir(cfgs[1]).exists()


def test_a_run_without_a_number_stops_alone(study, monkeypatch):
    """One adapter overflows; the others have the numbers that they have without it."""
    cfgs, alone = [study('a', rank=r) for r in (2, 4, 8)], [study('b', rank=r) for r in (2, 8)]
    begin = TrainingMonitor.on_step_end

    def spoil(self, args, state, control, model=None, **kwargs):
        if state.global_step == 2 and model.peft_config['default'].r == 4:
            next(p for p in model.parameters() if p.requires_grad).data[:] = float('inf')
        return begin(self, args, state, control, model=model, **kwargs)

    monkeypatch.setattr(TrainingMonitor, 'on_step_end', spoil)
    outcome = train_together(cfgs)
    assert list(outcome.stopped) == ['test-r4-s0'] and 'of step 3 is not finite' in outcome.stopped['test-r4-s0']
    assert sorted(outcome.trained) == ['test-r2-s0', 'test-r8-s0']
    train_together(alone)
    for cfg, other in zip((cfgs[0], cfgs[2]), alone):
        assert_same(cfg, other)


@pytest.mark.slow
@pytest.mark.parametrize('times', [1, 2])
def test_out_of_memory_is_survived(study, monkeypatch, times, capsys):
    """Fewer runs at once, at last each by itself; the numbers stay."""
    cfgs, whole = ([study(folder, rank=r, cuda_graphs=False) for r in (2, 4, 8)] for folder in 'ab')
    train_together(whole)
    groups, count = Table.groups, iter(range(1000))

    def starved(self, runs):
        if 6 <= next(count) < 6 + times:
            self.joint.adapters[0].gradients.add_(1)  # half of a step is done
            raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate')
        return groups(self, runs)

    monkeypatch.setattr(Table, 'groups', starved)
    train_together(cfgs)
    said = capsys.readouterr().out
    assert ('one run at a time' in said) and (('each run by itself' in said) == (times == 2))
    for cfg, other in zip(cfgs, whole):
        assert_same(cfg, other)
        assert 'out of memory' in str(info_of(cfg)['how'])


def four_bit(model):
    """The linear maps of a model in NF4, as bitsandbytes holds them."""
    bnb = pytest.importorskip('bitsandbytes')
    layers = model.get_decoder().layers
    for parent in [module for layer in layers for module in layer.modules()]:
        for name, linear in [(n, m) for n, m in parent.named_children() if isinstance(m, torch.nn.Linear)]:
            sizes = linear.in_features, linear.out_features
            packed = bnb.nn.Linear4bit(*sizes, bias=False, compute_dtype=torch.float32, quant_type='nf4')
            packed.weight = bnb.nn.Params4bit(linear.weight.data.clone(), requires_grad=False, quant_type='nf4').to(
                'cpu'
            )
            setattr(parent, name, packed)
    return model


def test_a_quantised_base_is_shared():
    """Joint rows over NF4 weights have the losses and gradients of rows alone, and the weights are there once."""
    base, cfg = four_bit(tiny_model()), resolve('test')
    set_attention(base, 'by document')
    base.row_way = RowWay('packed', 'by document', '')
    runtime = replace(choose_runtime(cfg), quantization='nf4', device='cpu')
    carrier, *models = [prepare_model(replace(cfg, rank=r), runtime, copy_sharing_weights(base))[0] for r in (1, 2, 8)]
    weights = {id(p) for model in models for p in model.parameters() if p.dtype == torch.uint8}
    assert len(weights) == sum(p.dtype == torch.uint8 for p in base.parameters()) > 0
    torch.manual_seed(0)
    for p in (p for model in models for p in model.parameters() if p.requires_grad):
        p.data.copy_(torch.randn_like(p) / 10)
    table = Table(JointModel(carrier, models), at_once=2)
    seats = [Seat(model, table, run, []) for run, model in enumerate(models)]
    documents = [([5, 6, 7, 8, 9], [-100, 6, 7, 8, 9]), ([9, 8, 7], [-100, -100, 7])]
    asked = {run: (documents[: 1 + run], torch.tensor(0.5)) for run in (0, 1)}
    found = step_of(seats, lambda: [loss for _, loss in sorted(table.losses(asked).items())])
    mine = [gradient.clone() for seat in seats for gradient in seat.gradients]
    alone = [
        row_losses(m, [asked[run][0]], asked[run][1][None])[0]
        for run, m in enumerate(models)
        if not seats[run].begin_step()
    ]
    theirs = [gradient for seat in seats for gradient in seat.gradients]
    assert torch.allclose(found[:, 0], torch.stack(alone), atol=1e-5)
    assert all(torch.allclose(a, b, atol=1e-5) and b.any() for a, b in zip(mine, theirs))


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('quantization', ['none', 'nf4'])
def test_runs_on_cuda_are_recorded_together(study, quantization):
    """The curves of runs whose joint rows are CUDA graphs are those of each run alone, within bfloat16's rounding."""
    given = [
        dict(rank=r, seed=s, dtype='bfloat16', quantization=quantization, max_steps=12) for r, s in ((2, 0), (8, 1))
    ]
    cfgs, alone = [study('a', **own) for own in given], [study('b', **own, cuda_graphs=False) for own in given]
    outcome = train_together(cfgs)
    assert not outcome.stopped and not outcome.alone
    for cfg, other in zip(cfgs, alone):
        train(other)
        found, wanted = ([entry['loss'] for entry in info_of(one)['losses']] for one in (cfg, other))
        assert found == pytest.approx(wanted, rel=2e-2) and info_of(cfg)['order'] == info_of(other)['order']
        assert 'steps: 2 runs at once, recorded as CUDA graphs' in info_of(cfg)['how']


@pytest.mark.parametrize(
    'given, why',
    [
        (dict(method='dora'), 'method dora'),
        (dict(max_length=500), 'max_length'),
        (dict(overwrite=True), 'trained anew'),
        (dict(dtype='float16'), 'differ'),
    ],
)
def test_what_cannot_go_together_is_left_with_its_reason(study, given, why, capsys):
    outcome = train_together([study('a', rank=2), study('a', rank=4, **given)])
    assert why in outcome.alone['test-r4-s0'] and not outcome.trained
    assert why in capsys.readouterr().out


@pytest.mark.slow
def test_adapters_without_room_wait_for_the_others(study, monkeypatch):
    """Memory for the adapters of two runs: four are trained two by two."""
    import lora_mbpp.experiments.together as chapter

    plan = chapter.plan_together

    def of_a_small_machine(model, layout, ranks, *others):
        return plan(model, layout, ranks, *others) if len(ranks) < 3 else None

    monkeypatch.setattr(chapter, 'plan_together', of_a_small_machine)
    outcome = train_together([study('a', rank=r) for r in (2, 4, 8, 16)])
    assert len(outcome.trained) == 4 and not outcome.alone
