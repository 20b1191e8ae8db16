"""Rows that are filled up to a few shapes have the loss and the gradients of the rows as they are."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model

from lora_mbpp.models.attention import set_attention
from lora_mbpp.models.lm_head import completion_loss, detach_lm_head
from lora_mbpp.models.packing import beside, model_row, shares
from lora_mbpp.models.tiny import tiny_model
from lora_mbpp.training.recorded_rows import RowShape, StaticRow
from lora_mbpp.training.rows import collate, documents_of, rows_of, targets_of

DOCUMENTS = st.lists(
    st.lists(st.tuples(st.integers(3, 200), st.booleans()), min_size=1, max_size=60), min_size=1, max_size=9
)


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    model = get_peft_model(tiny_model(), LoraConfig(r=4, target_modules='all-linear', init_lora_weights=False))
    set_attention(model, 'by document')
    detach_lm_head(model)
    return model


def gradients(model):
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


@settings(max_examples=25, deadline=None)
@given(DOCUMENTS, st.floats(0.01, 2))
def test_loss_and_gradients_are_those_of_the_row_as_it_is(model, drawn, weight):
    documents = [([i for i, _ in one], [i if counted else -100 for i, counted in one]) for one in drawn]
    documents = [(ids, [-100, *labels[1:]]) for ids, labels in documents]
    shape = RowShape.of([documents])
    if not shape.answers:
        return
    row = StaticRow(model, shape)
    row.fill([[([9] * 20, [9] * 20)]], torch.ones(1))  # what lay there before must not matter
    row.fill([documents], torch.tensor([weight]))
    row.compute()
    found = gradients(model)
    ids, labels = zip(*documents)
    loss = completion_loss(model, model_row(ids, 'packed', 0), beside(labels, 'packed', -100)) * weight
    loss.backward()
    assert row.losses.item() == pytest.approx(loss.item(), rel=1e-4)
    exact = gradients(model)
    assert all(torch.allclose(found[name], exact[name], atol=1e-4, rtol=1e-3) for name in exact)


def test_a_run_has_few_shapes():
    rng = torch.Generator().manual_seed(0)
    steps = [torch.randint(80, 500, (8,), generator=rng).tolist() for _ in range(200)]
    shapes = {RowShape.of([[([5] * n, [-100] * (n // 2) + [5] * (n - n // 2)) for n in lengths]]) for lengths in steps}
    assert len(shapes) <= 8


@settings(max_examples=50, deadline=None)
@given(DOCUMENTS, st.integers(1, 200), st.sampled_from(['packed', 'padded', 'single']), st.data())
def test_rows_of_a_step_are_its_chosen_documents(drawn, row_tokens, kind, data):
    documents = [([i for i, _ in one], [i if counted else -100 for i, counted in one]) for one in drawn]
    step = collate([{'input_ids': ids, 'labels': labels} for ids, labels in documents])
    counted = [(ids, [-100, *labels[1:]]) for ids, labels in documents]
    assert documents_of(step) == counted
    assert targets_of(step) == sum(label != -100 for _, labels in counted for label in labels)
    chosen = sorted(data.draw(st.sets(st.integers(0, len(documents) - 1))))
    found = rows_of(step, row_tokens, 'cpu', chosen, kind)
    runs = shares([len(documents[i][0]) for i in chosen], row_tokens, kind) if chosen else []
    assert len(found) == len(runs)
    for (row, labels), run in zip(found, runs):
        ids, wanted = zip(*[counted[chosen[i]] for i in run])
        right = model_row(ids, kind, 0)
        assert row.keys() == right.keys()
        assert all(torch.equal(torch.as_tensor(row[name]), torch.as_tensor(right[name])) for name in right)
        assert torch.equal(labels, beside(wanted, kind, -100))
