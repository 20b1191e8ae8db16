"""Where an answer begins and ends: models whose next token is fixed show exactly where generation stops."""

import pytest
import torch
from tokenizers import AddedToken
from tokenizers.processors import TemplateProcessing
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from lora_mbpp.core.errors import complaint
from lora_mbpp.generation.completions import LoadedModel, complete_prompts
from lora_mbpp.generation.extraction import answer_text
from lora_mbpp.generation.scoring import completion_nll
from lora_mbpp.models.loading import load_tokenizer, one_template, settle_tokenizer
from lora_mbpp.models.tiny import tiny_tokenizer
from lora_mbpp.tasks.chat import chat_text, encode_row, end_token, end_tokens, prompt_ids

CODE = 'def double(x):\n    return 2 * x'
NEXT = '\n\nNext document'
TURNS = (
    "{% for m in messages %}{{ '<|start|>' + m['role'] + '<|stop|>' + m['content'] + '<|eot|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant<|stop|>' }}{% endif %}"
)
SPECIAL = '<|start|>', '<|stop|>', '<|eot|>', '<|end|>'


def tokenizer(template=TURNS):
    """The tiny one with tokens of a chat and two texts that are one token each."""
    tok = tiny_tokenizer()
    tok.add_tokens([AddedToken(s, special=True, normalized=False) for s in SPECIAL], special_tokens=True)
    tok.add_tokens([AddedToken(s, normalized=False) for s in (CODE, NEXT)])
    tok.chat_template = template
    return tok


def chain(tok, follows, generation_eos=2):
    """A Llama in which each token is followed by one fixed token."""
    n = len(tok) + len(tok) % 2
    shape = {'hidden_size': n, 'intermediate_size': 8, 'num_hidden_layers': 1, 'num_attention_heads': 1, 'head_dim': n}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tok), max_position_embeddings=4096, eos_token_id=2, **shape))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.model.embed_tokens.weight[:, : len(tok)] = torch.eye(len(tok))
        for norm in (
            model.model.layers[0].input_layernorm,
            model.model.layers[0].post_attention_layernorm,
            model.model.norm,
        ):
            norm.weight.fill_(1)
        for before, after in follows.items():
            model.lm_head.weight[tok.convert_tokens_to_ids(after), tok.convert_tokens_to_ids(before)] = 10
    model.generation_config = GenerationConfig(eos_token_id=generation_eos)
    return model.eval()


def answer(tok, model):
    """(text, how it ended) of the answer to one prompt."""
    (record,) = complete_prompts(LoadedModel(model, tok), ['Double it.'], ['double'], most=6, n=2)
    return record['text'], record['finish_reason']


ON = {'Ċ': CODE, '<|stop|>': CODE, NEXT: NEXT}


@pytest.mark.parametrize(
    'end, eos, generation',
    [
        ('<|eot|>', '</s>', 2),  # the template alone says it
        ('</s>', '<|end|>', [2, 261]),  # one of several in the generation config
        ('</s>', '<|end|>', 2),
        ('<|end|>', '<|end|>', None),  # the tokenizer alone
    ],
)
@pytest.mark.parametrize('template', [TURNS, None])
def test_every_token_that_is_said_to_end_an_answer_ends_it(end, eos, generation, template):
    tok = tokenizer(template)
    tok.eos_token = eos
    model = chain(tok, {**ON, CODE: end, end: NEXT}, generation)
    known = template or end != '<|eot|>'
    assert answer(tok, model) == ((CODE, 'eos') if known else (CODE + NEXT * 4, 'length'))


def test_a_row_ends_as_the_model_ends_its_turns():
    tok = tokenizer()
    row = encode_row(tok, 'Double it.', CODE)
    assert tok.convert_ids_to_tokens(row['input_ids'][-2:]) == [CODE, '<|eot|>'] and row['completion_mask'][-3:] == [
        0,
        1,
        1,
    ]
    assert row['input_ids'][:-2] == prompt_ids(tok, 'Double it.')
    model = chain(tok, {**ON, CODE: '<|eot|>'})
    assert (
        completion_nll(model, tok, [('Double it.', CODE)])[0]['nll']
        < completion_nll(model, tok, [('Double it.', NEXT)])[0]['nll']
    )
    tok.chat_template = None
    assert end_token(tok) == tok.eos_token_id == encode_row(tok, 'a', 'b')['input_ids'][-1]


@pytest.mark.parametrize('single', ['<s> $A </s>', '$A </s>', '<s> $A', '$A', '<s> <s> $A </s> </s>'])
def test_a_prompt_gets_its_beginning_and_no_end(single):
    tok = tokenizer(None)
    names = [(name, i) for i, name in enumerate(['<pad>', '<s>', '</s>']) if name in single]
    tok.backend_tokenizer.post_processor = TemplateProcessing(single=single, special_tokens=names)
    ids = prompt_ids(tok, 'hi')
    assert tok.decode(ids) == ('<s>' if '<s>' in single else '') + 'hi\n'
    assert answer(tok, chain(tok, {**ON, CODE: '</s>', '</s>': NEXT})) == (CODE, 'eos')
    row = encode_row(tok, 'hi', 'ok')
    assert row['input_ids'] == ids + tok.convert_tokens_to_ids(['o', 'k', '</s>'])


def test_no_second_beginning():
    """A template that writes it, and a tokenizer that adds it whatever it is told."""
    tok = tokenizer("{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}")

    class Forced(type(tok)):
        def __call__(self, text, **options):
            ids = super().__call__(text, **{**options, 'add_special_tokens': False})['input_ids']
            return {'input_ids': [1, *ids, 2]}

    tok.__class__ = Forced
    assert prompt_ids(tok, 'hi')[:3] == [1, *tok.convert_tokens_to_ids(['h', 'i'])] and prompt_ids(tok, 'hi')[-1] != 2
    assert encode_row(tok, 'hi', 'o')['input_ids'][3:] == [*tok.convert_tokens_to_ids(['o']), 2]


def test_a_tokenizer_without_an_end_token_takes_the_models(tmp_path, capsys):
    tok = tokenizer(None)
    model = chain(tok, {**ON, CODE: '<|end|>', '<|end|>': NEXT}, [tok.convert_tokens_to_ids('<|end|>'), 2])
    model.save_pretrained(tmp_path)
    tok.eos_token = None
    tok.save_pretrained(tmp_path)
    loaded = load_tokenizer(str(tmp_path))
    assert loaded.eos_token == '<|end|>' and 'names no end token' in capsys.readouterr().out
    assert answer(loaded, model) == (CODE, 'eos')
    none = settle_tokenizer(tok, None)
    assert 'no token that ends an answer' in complaint(encode_row, none, 'a', 'b') and end_tokens(none) == set()
    assert none.pad_token_id is not None


def test_named_templates(capsys):
    named = {'chat': TURNS, 'tool_use': 'T', 'rag': 'R'}
    assert one_template(named) == TURNS == one_template([{'name': n, 'template': t} for n, t in named.items()])
    assert "'chat' of chat, rag, tool_use" in capsys.readouterr().out
    assert one_template({**named, 'default': 'D'}) == 'D' and one_template('S') == 'S' and one_template(None) is None
    assert 'default' in complaint(one_template, {'a': 'A', 'b': 'B'}) and one_template('') is None


STRICT = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('turns must alternate') }}{% endif %}"
    "{{ '<|start|>' + m['role'] + '<|stop|>' + m['content'] | trim + '<|eot|>\n' }}{% endfor %}"
    '<|start|>assistant<|stop|>'
)
PARTS = "{% for m in messages %}{% for p in m['content'] %}{{ '<|stop|>' + p['text'] }}{% endfor %}{% endfor %}<|stop|>"
DATED = "{{ strftime_now('%d %b %Y') }} {{ date_string }} {% for m in messages %}{{ m['content'] }}{% endfor %}"


def test_templates_with_ways_of_their_own():
    tok = tokenizer(STRICT)
    assert chat_text(tok, ' hi ').startswith('<|start|>user<|stop|>hi<|eot|>')
    assert end_token(tok) == tok.convert_tokens_to_ids('<|eot|>')
    assert chat_text(tokenizer(PARTS), 'hi') == '<|stop|>hi<|stop|>'
    assert chat_text(tokenizer(DATED), 'hi') == '26 Jul 2024 26 Jul 2024 hi'
    for template in (
        "{{ raise_exception('never') }}",
        'no message here',
        "{{ messages[0]['content'][0] }}",
        '{% if %}',
    ):
        assert 'does not take a single message' in complaint(chat_text, tokenizer(template), 'hi there')


def test_the_text_of_an_answer_keeps_blanks_and_thoughts():
    tok = tokenizer()
    tok.clean_up_tokenization_spaces = True
    tok.add_tokens([AddedToken('[THINK]', special=True), AddedToken('[/THINK]', special=True)], special_tokens=True)
    text = '[THINK]a[/THINK]x = "a , b . c"'
    assert answer_text(tok, tok(f'<|start|>{text}<|eot|>', add_special_tokens=False)['input_ids']) == text
