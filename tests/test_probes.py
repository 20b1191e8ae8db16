"""Inside adapters, cut adapters, and adapters kept on the way: against the full product, and against plain PEFT."""

import json

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file

from lora_mbpp.core.config import resolve
from lora_mbpp.core.errors import complaint
from lora_mbpp.core.files import read_json, read_jsonl, write_jsonl
from lora_mbpp.models.adapters import read_factors
from lora_mbpp.models.tiny import tiny_model
from lora_mbpp.reporting.adapter_anatomy import (
    decompose,
    effective_rank,
    left_overlap,
    norm_table,
    overlap_table,
    random_overlap,
    spectrum_table,
)
from lora_mbpp.reporting.rank_truncation import run_rank_truncation, truncate, truncation_ranks, truncation_table
from lora_mbpp.reporting.snapshots import score_snapshots, snapshot_table
from lora_mbpp.train import train


def random_adapter(folder, rank, seed=0, **more):
    """An adapter of the tiny model whose B is not zero, as if it had been trained."""
    torch.manual_seed(seed)
    config = peft.LoraConfig(r=rank, lora_alpha=32, target_modules='all-linear', task_type='CAUSAL_LM', **more)
    model = peft.get_peft_model(tiny_model(), config)
    for name, parameter in model.named_parameters():
        if 'lora_B' in name:
            parameter.data.normal_(0, 0.05)
    model.save_pretrained(folder)
    return folder


def product(one):
    return one.scale * one.B @ one.A


def logits(folder):
    return peft.PeftModel.from_pretrained(tiny_model(), str(folder)).eval()(torch.arange(3, 60)[None]).logits.detach()


@pytest.mark.parametrize('rslora', [False, True])
def test_singular_values_and_subspaces_are_those_of_the_product(tmp_path, rslora):
    for one in read_factors(random_adapter(tmp_path / 'a', 8, use_rslora=rslora)).values():
        u, s, v = decompose(one)
        assert np.allclose(s, np.linalg.svd(product(one))[1][: len(s)])
        assert np.allclose(u * s @ v.T, product(one))
        assert np.allclose(u.T @ u, np.eye(len(s)))


@pytest.mark.parametrize('rslora', [False, True])
def test_cut_to_its_full_rank_it_is_the_adapter_itself(tmp_path, rslora):
    folder = random_adapter(tmp_path / 'a', 8, use_rslora=rslora)
    assert torch.allclose(logits(truncate(folder, 8, tmp_path / 'cut')), logits(folder), atol=1e-5)
    assert (logits(truncate(folder, 1, tmp_path / 'cut')) - logits(folder)).abs().max() > 1e-3


def test_a_cut_is_the_best_of_its_rank(tmp_path):
    """Eckart and Young: what is lost are exactly the singular values left out."""
    folder = random_adapter(tmp_path / 'a', 8)
    whole, cut = read_factors(folder), read_factors(truncate(folder, 3, tmp_path / 'cut'))
    for name, one in whole.items():
        lost, left_out = np.linalg.norm(product(one) - product(cut[name])), decompose(one)[1][3:]
        assert np.isclose(lost, np.sqrt((left_out**2).sum()), atol=1e-5)


def test_an_untrained_adapter_can_be_read_and_cut(tmp_path):
    """B is zero: no direction, no effective rank, and no division by zero."""
    torch.manual_seed(0)
    config = peft.LoraConfig(r=4, target_modules='all-linear', task_type='CAUSAL_LM')
    peft.get_peft_model(tiny_model(), config).save_pretrained(tmp_path / 'zero')
    assert (norm_table(tmp_path / 'zero')[['norm', 'effective_rank']] == 0).all().all()
    truncate(tmp_path / 'zero', 2, tmp_path / 'cut')
    assert effective_rank(np.array([2.0, 2.0, 2.0])) == pytest.approx(3)


def test_overlap_against_its_baselines(tmp_path):
    rng = np.random.default_rng(0)

    def basis(k):
        return np.linalg.qr(rng.normal(size=(200, k)))[0]

    found = np.mean([left_overlap(basis(8), basis(32)) for _ in range(50)])
    assert found == pytest.approx(random_overlap(200, 8, 32), rel=0.1)
    folder = random_adapter(tmp_path / 'a', 4)
    same = overlap_table([('itself', 'seeds', folder, folder)])
    assert np.allclose(same[same.what == 'seeds'].overlap, 1) and (same[same.what == 'random'].overlap < 1).all()
    columns = {'run', 'rank', 'module', 'layer', 'kind', 'index', 'singular', 'effective_rank'}
    assert set(spectrum_table({'a': folder}).columns) == columns


def test_what_is_no_adapter_gets_a_sentence(tmp_path):
    folder = random_adapter(tmp_path / 'a', 4)
    assert 'cannot be cut to rank 9' in complaint(truncate, folder, 9, tmp_path / 'cut')
    assert 'no adapter' in complaint(read_factors, tmp_path)
    config = read_json(folder / 'adapter_config.json')
    (folder / 'adapter_config.json').write_text(json.dumps({**config, 'use_dora': True}))
    assert 'no plain LoRA adapter' in complaint(read_factors, folder)
    (folder / 'adapter_config.json').write_text(json.dumps(config))
    (folder / 'adapter_model.safetensors').write_bytes(b'torn')
    assert 'cannot be read' in complaint(read_factors, folder)


def test_ranks_that_an_adapter_is_cut_to():
    assert truncation_ranks(1) == [1]
    assert truncation_ranks(32) == [1, 2, 4, 8, 16, 32]
    assert truncation_ranks(12)[-1] == 12


def test_rank_truncation_goes_on_where_it_stopped(tiny, tmp_path, capsys):
    """The run's name has a dot, as a search over learning rates makes them."""
    cfg = resolve(**tiny, rank=4, lr=0.05, tag='lr0.05')
    assert 'no adapter' in complaint(run_rank_truncation, cfg)
    train(cfg)
    first = run_rank_truncation(cfg, passes=True)
    assert [r['rank'] for r in first] == [1, 2, 4] and all(r['pass_at_1'] is not None for r in first)
    path = tmp_path / 'artifacts' / 'metrics' / 'ladder' / 'test-r4-s0-lr0.05.jsonl'
    path.write_text(path.read_text()[:-40])  # killed while it wrote the last record
    capsys.readouterr()
    again = run_rank_truncation(cfg, passes=True)
    assert capsys.readouterr().out.count('scored already') == 2
    assert [r['nll'] for r in again] == [r['nll'] for r in first]
    assert len(truncation_table(tmp_path / 'artifacts')) == 3 == len(read_jsonl(path))
    assert {p.name for p in path.parent.glob('*-1.*')} == {
        'test-r4-s0-lr0.05-1.generations.jsonl',
        'test-r4-s0-lr0.05-1.results.jsonl',
    }


def test_snapshots_are_kept_and_scored(tiny, tmp_path):
    cfg = resolve(**tiny, rank=4, lr=0.05, max_steps=8, snapshots=4)
    metrics = train(cfg)
    folder = tmp_path / 'artifacts' / 'checkpoints' / 'test-r4-s0'
    kept = sorted((folder / 'snapshots').iterdir())
    assert [path.name for path in kept] == ['step-00002', 'step-00004', 'step-00006', 'step-00008']
    last, saved = (load_file(place / 'adapter_model.safetensors') for place in (kept[-1], folder))
    assert all(torch.equal(last[name], saved[name]) for name in saved)
    found = score_snapshots(cfg)
    tokens = metrics['train_info']['target_tokens']
    assert [r['target_tokens'] for r in found] == [round(tokens * step / 8) for step in (2, 4, 6, 8)]
    assert found[-1]['nll'] == pytest.approx(run_rank_truncation(cfg)[-1]['nll'], abs=1e-5)
    assert found[0]['nll'] > found[-1]['nll']
    assert len(snapshot_table(tmp_path / 'artifacts')) == 4
    other = resolve(**{**tiny, 'run': 'other'}, rank=4, output_dir=str(tmp_path / 'nothing'))
    assert 'no snapshots' in complaint(score_snapshots, other)


def test_ranks_of_a_seed_see_the_same_rows_in_the_same_order(tiny, tmp_path):
    records = [{'id': str(n), 'prompt': f'number {n}', 'completion': f'{n}' * (n % 3 + 1)} for n in range(24)]
    rows = str(write_jsonl(tmp_path / 'rows.jsonl', records))

    def order(**given):
        """Fingerprint of the batches of five steps."""
        places = {'artifacts_dir': str(tmp_path / str(given)), 'train_file': rows, 'val_file': rows}
        return train(resolve(**{**tiny, **places}, max_steps=5, **given))['train_info']['order']

    assert order(rank=2) == order(rank=8) == order(rank=2, lr=0.01) != order(rank=2, seed=1)
