"""vLLM in the place of the decoder: the same completions where it is installed, a sentence where it is not."""

from collections import deque
from types import SimpleNamespace

import peft
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lora_mbpp.cli import main
from lora_mbpp.core.config import resolve
from lora_mbpp.core.errors import complaint
from lora_mbpp.core.files import read_jsonl, write_jsonl
from lora_mbpp.core.runs import metrics_file
from lora_mbpp.evaluate import evaluate, generate_for_runs
from lora_mbpp.generation import vllm_backend as backend
from lora_mbpp.generation.scheduler import Completion
from lora_mbpp.generation.vllm_backend import VLLMServer, common_rank, vllm_unsupported_reason
from lora_mbpp.models.tiny import tiny_model, tiny_tokenizer

with_vllm = pytest.mark.skipif(vllm_unsupported_reason() is not None, reason=str(vllm_unsupported_reason()))


def adapter(model, folder, rank, **more):
    """A random adapter on all linear maps, as PEFT saves it; the model stays as it was."""
    settings = {'target_modules': 'all-linear', 'init_lora_weights': False, 'task_type': 'CAUSAL_LM', **more}
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=rank, lora_alpha=2 * rank, **settings))
    adapted.save_pretrained(folder)
    adapted.unload()
    return folder


def test_without_it_there_is_a_sentence(tiny, capsys, monkeypatch):
    monkeypatch.setattr(backend, 'find_spec', lambda name: None)
    options = [part for name, value in tiny.items() for part in ('--' + name.replace('_', '-'), value)]
    assert main(['baseline', *options, '--decoder', 'vllm']) == 2
    said = capsys.readouterr()
    assert 'vLLM' in said.err and '--decoder slots' in said.err and 'Traceback' not in said.err + said.out


def test_what_it_cannot_serve_is_said_before_it_is_started(tmp_path):
    assert 'use --decoder slots' in complaint(common_rank, [adapter(tiny_model(), tmp_path / 'dora', 4, use_dora=True)])
    plain = [adapter(tiny_model(), tmp_path / str(rank), rank) for rank in (3, 9)]
    assert common_rank(plain[:1]) == 8 and common_rank(plain) == 16
    assert 'rank 1000' in complaint(common_rank, [*plain, adapter(tiny_model(), tmp_path / '1000', 1000)])


class Engine:
    """Stands in for vLLM: two tokens a step for every request; what was called off goes on for one step."""

    def __init__(self):
        self.texts, self.gone, self.late = {}, [], deque()

    def abort_request(self, names):
        self.gone += names

    def step(self):
        for name, text in self.texts.items():
            text += [7, 8] if name not in self.gone else [9]
        made = {name: SimpleNamespace(token_ids=list(text), finish_reason=None) for name, text in self.texts.items()}
        return [SimpleNamespace(request_id=name, finished=False, outputs=[one]) for name, one in made.items()]


def test_a_completion_that_has_ended_is_called_off(monkeypatch):
    server = VLLMServer.__new__(VLLMServer)
    server.engine = Engine()
    monkeypatch.setattr(VLLMServer, 'request', lambda self, name, *more: self.engine.texts.update({name: []}))
    short = Completion([1], 3, {-1}, key=(0, 0))
    fenced = Completion([1], 9, {-1}, key=(1, 0), ended=lambda ids: 'fence' if len(ids) == 5 else None)
    there_already = Completion([1], 9, {-1}, key=(2, 0), reason='eos')
    order = [[c.key[0] for c in some] for some in server.endings([short, fenced, there_already])]
    assert order == [[0], [1]] and server.engine.gone == ['0', '1'] and '2' not in server.engine.texts
    assert (short.ids, short.reason) == ([7, 8, 7], 'length')
    assert (fenced.ids, fenced.reason) == ([7, 8, 7, 8, 7], 'fence')


@pytest.fixture(scope='module')
def study(tmp_path_factory):
    """A model of which vLLM takes the head width, with two adapters."""
    place = tmp_path_factory.mktemp('backend')
    tok = tiny_tokenizer()
    torch.manual_seed(3)
    shape = {'hidden_size': 64, 'intermediate_size': 128, 'num_hidden_layers': 2, 'num_attention_heads': 2}
    ids = {'vocab_size': len(tok), 'pad_token_id': 0, 'bos_token_id': 1, 'eos_token_id': 2}
    more = {'num_key_value_heads': 1, 'max_position_embeddings': 1024, 'initializer_range': 0.3}
    model = LlamaForCausalLM(LlamaConfig(**shape, **ids, **more))
    model.save_pretrained(place / 'model')
    tok.save_pretrained(place / 'model')
    return place, {'one': adapter(model, place / 'one', 3), 'two': adapter(model, place / 'two', 12)}


def config(place, decoder, **more):
    folders = {'model': str(place / 'model'), 'data_dir': str(place / 'data'), 'artifacts_dir': str(place / decoder)}
    return resolve('test', dtype='float32', decoder=decoder, max_new_tokens=40, **folders, **more)


def texts(cfg, run):
    records = read_jsonl(metrics_file(cfg, run, '.generations.jsonl'))
    return {(r['task_id'], r['sample_idx']): (r['text'], r['finish_reason']) for r in records}


@with_vllm
def test_its_greedy_tokens_are_ours(study):
    """Base and two adapters, all in one pass of each decoder."""
    place, adapters = study
    runs = {'base': None, **adapters}
    for decoder in ('slots', 'vllm'):
        assert generate_for_runs(config(place, decoder), runs) == 3
    for run in runs:
        assert texts(config(place, 'vllm'), run) == texts(config(place, 'slots'), run)
    assert len({tuple(texts(config(place, 'slots'), run).values()) for run in runs}) == 3


@with_vllm
def test_a_stage_uses_it_and_continues(study, capfd):
    """Samples of one run; a cut file is completed to the same records."""
    place, adapters = study
    cfg = config(place, 'vllm', n_samples=3, temperature=0.8)
    info = evaluate(cfg, 'again', adapters['one'])['eval_info']
    before, path = texts(cfg, 'again'), metrics_file(cfg, 'again', '.generations.jsonl')
    assert info['settings']['decoder'] == 'vllm' and info['n_samples'] == len(before)
    assert len(set(before.values())) > len(before) // 2
    write_jsonl(path, read_jsonl(path)[:5])
    metrics_file(cfg, 'again').unlink()
    evaluate(cfg, 'again', adapters['one'])
    assert texts(cfg, 'again') == before and '5 of' in capfd.readouterr().out
