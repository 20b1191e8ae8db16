"""What people take along: the adapter's folder, a merged model, GGUF, the Hub, two answers side by side, trackers."""

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from test_adapters import KINDS, QV, TOK, base_model, bases, loaded_base, make  # noqa: F401
from transformers import AutoModelForCausalLM, AutoTokenizer

from lora_mbpp.core.config import resolve
from lora_mbpp.core.errors import complaint
from lora_mbpp.core.files import read_json
from lora_mbpp.evaluate import evaluate
from lora_mbpp.models.base_identity import check_base, public_name
from lora_mbpp.train import train
from lora_mbpp.training.merge import merge_adapter
from lora_mbpp.training.model_card import MARK

IDS = torch.arange(3, 60)[None]


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS.to(model.device)).logits.cpu()


@pytest.fixture(scope='module')
def trained(bases, tmp_path_factory):  # noqa: F811
    """A run on a base in a folder of this machine: (its options, the adapter's folder, metrics)."""
    place = tmp_path_factory.mktemp('run')
    options = {'preset': 'test', 'model': str(bases['tied']), 'rank': 4, 'snapshots': 1}
    options |= {'data_dir': str(place / 'data'), 'artifacts_dir': str(place / 'artifacts')}
    metrics = train(resolve(**options))
    return options, place / 'artifacts' / 'checkpoints' / metrics['run_info']['run'], metrics


def test_the_folder_names_no_place_of_the_machine(trained, bases):  # noqa: F811
    options, folder, _ = trained
    for path in (folder / 'adapter_config.json', folder / 'README.md', *folder.glob('snapshots/*/adapter_config.json')):
        assert str(bases['tied'].parent) not in path.read_text(encoding='utf-8'), path
    assert read_json(folder / 'adapter_config.json')['base_model_name_or_path'] == bases['tied'].name
    assert len(list(folder.glob('snapshots/*/adapter_config.json'))) == 1 and not list(folder.glob('snapshots/*/*.md'))


def test_the_folder_has_the_tokenizer_and_plain_peft_loads_it(trained, bases):  # noqa: F811
    _, folder, _ = trained
    tok = AutoTokenizer.from_pretrained(folder)
    assert tok('def f(x):')['input_ids'] == TOK('def f(x):')['input_ids'] and tok.chat_template == TOK.chat_template
    adapted = PeftModel.from_pretrained(loaded_base(bases['tied']), folder).eval()
    assert not torch.equal(logits(adapted), logits(loaded_base(bases['tied'])))


def test_our_own_check_of_the_base_goes_on(trained, bases):  # noqa: F811
    _, folder, _ = trained
    assert check_base(folder, str(bases['tied'])) is None
    assert 'not the same' in complaint(check_base, folder, str(bases['llama']))


def test_the_card_tells_what_it_is(trained):
    import yaml

    _, folder, metrics = trained
    text = (folder / 'README.md').read_text(encoding='utf-8')
    head = yaml.safe_load(text.split('---')[1])
    assert head['library_name'] == 'peft' and head['license'] == 'other' and 'base_model' not in head
    told = metrics['train_info']
    for words in ('rank 4', '3 steps', f'{told["target_tokens"]:,} target tokens', '2 rows, literal', 'PeftModel'):
        assert words in text, words
    assert told['command'] in text and '--rank 4' in text and 'Not evaluated yet' in text
    assert 'More Information Needed' not in text


def test_the_card_has_results_when_there_are_some(trained):
    options, folder, _ = trained
    cfg = resolve(**{name: value for name, value in options.items() if name != 'snapshots'})
    run = folder.name
    evaluate(cfg, run.replace('-r4-s0', '-base'))
    low, high = evaluate(cfg, run, folder)['eval_info']['pass_at_1_interval']
    text = (folder / 'README.md').read_text(encoding='utf-8')
    assert text.count(f'[{low:.1%}, {high:.1%}]') >= 1 and '| base |' in text and '| with this adapter |' in text
    assert '2 rows, literal' in text


def test_a_text_of_ones_own_is_kept_and_a_template_is_not(trained):
    from lora_mbpp.training.model_card import write_card

    options, folder, metrics = trained
    cfg, path = resolve(**options), folder / 'README.md'
    before = path.read_text(encoding='utf-8')
    for own, kept in (('# My adapter', True), ('## [More Information Needed]', False), (MARK + '\nold', False)):
        path.write_text(own, encoding='utf-8')
        write_card(cfg, folder.name, folder)
        assert (path.read_text(encoding='utf-8') == own) == kept
    path.unlink()
    write_card(cfg, folder.name, folder)
    assert path.read_text(encoding='utf-8') == before


@pytest.mark.parametrize(
    'name, told',
    [
        ('smollm2-135m-instruct', 'HuggingFaceTB/SmolLM2-135M-Instruct'),
        ('owner/Name-7B', 'owner/Name-7B'),
        ('gpt2', 'gpt2'),
        ('/somewhere/hub/models--owner--Na--me/snapshots/0a1b', 'owner/Na--me'),
        ('/somewhere/models/mine', 'mine'),
        ('/somewhere/models/mine/', 'mine'),
        ('~/models/mine', 'mine'),
        ('../mine', 'mine'),
        ('D:\\models\\mine', 'mine'),
        ('/other/.cache/lora_mbpp/smollm2-135m-instruct', 'HuggingFaceTB/SmolLM2-135M-Instruct'),
    ],
)
def test_a_base_is_named_as_others_find_it(name, told):
    assert public_name(name) == told


def test_a_folder_of_the_machine_is_named_by_its_last_part(tmp_path, monkeypatch):
    (tmp_path / 'owner' / 'name').mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert public_name('owner/name') == 'name' and public_name(str(tmp_path / 'owner' / 'name')) == 'name'


def test_an_older_adapter_is_read_as_before(bases, tmp_path):  # noqa: F811
    """A path in its configuration, PEFT's template, no tokenizer and no record."""
    adapter = make(tmp_path / 'old', bases['llama'], {'target_modules': QV})
    assert read_json(adapter / 'adapter_config.json')['base_model_name_or_path'] == str(bases['llama'])
    assert 'by its name' in check_base(adapter, str(bases['llama']))
    cfg = resolve('test', model=str(bases['llama']), artifacts_dir=str(tmp_path / 'artifacts'))
    merged = AutoModelForCausalLM.from_pretrained(merge_adapter(cfg, adapter, 'x')).eval()
    wanted = logits(AutoPeftModelForCausalLM.from_pretrained(adapter).eval())
    assert torch.allclose(logits(merged), wanted, atol=1e-3)


@pytest.mark.parametrize('kind', KINDS)
def test_a_merged_model_computes_what_base_and_adapter_do(bases, tmp_path, kind):  # noqa: F811
    """Plain transformers loads it; tied heads and saved embeddings among the kinds."""
    name, more, _ = KINDS[kind]
    adapter = make(tmp_path / 'adapter', bases[name], more)
    cfg = resolve('test', model=str(bases[name]), artifacts_dir=str(tmp_path / 'artifacts'))
    merged = AutoModelForCausalLM.from_pretrained(merge_adapter(cfg, adapter, 'x'), dtype=torch.float32).eval()
    wanted = logits(PeftModel.from_pretrained(loaded_base(bases[name]), adapter).eval())
    untouched = logits(loaded_base(bases[name]))
    distance = (logits(merged) - wanted).abs().max()
    assert distance < 1e-3 * wanted.abs().max() and (wanted - untouched).abs().max() > 100 * distance
    assert not isinstance(merged, PeftModel)


@pytest.mark.parametrize('base', ['llama', 'tied'])
@pytest.mark.parametrize('more', [{}, {'modules_to_save': ['embed_tokens', 'lm_head']}])
def test_a_resized_vocabulary_is_merged(tmp_path, base, more):
    model = base_model(base)
    model.resize_token_embeddings(300)  # more rows than the tokenizer has tokens
    model.save_pretrained(tmp_path / 'base')
    TOK.save_pretrained(tmp_path / 'base')
    adapter = make(tmp_path / 'adapter', tmp_path / 'base', {'target_modules': QV, **more})
    cfg = resolve('test', model=str(tmp_path / 'base'), artifacts_dir=str(tmp_path / 'artifacts'))
    merged = AutoModelForCausalLM.from_pretrained(merge_adapter(cfg, adapter, 'x')).eval()
    wanted = logits(PeftModel.from_pretrained(loaded_base(tmp_path / 'base'), adapter).eval())
    assert merged.config.vocab_size == 300 and torch.allclose(logits(merged), wanted, atol=1e-3)


def test_a_merged_model_of_another_adapter_is_not_taken_for_this_one(bases, tmp_path, capsys):  # noqa: F811
    cfg = resolve('test', model=str(bases['llama']), artifacts_dir=str(tmp_path / 'artifacts'))
    first = make(tmp_path / 'one', bases['llama'], {'target_modules': QV})
    folder = merge_adapter(cfg, first, 'x')
    stamp = (folder / 'model.safetensors').stat().st_mtime_ns
    assert merge_adapter(cfg, first, 'x') == folder and 'merged already' in capsys.readouterr().out
    assert (folder / 'model.safetensors').stat().st_mtime_ns == stamp
    merge_adapter(cfg, make(tmp_path / 'two', bases['llama'], {'target_modules': 'all-linear'}), 'x')
    assert (folder / 'model.safetensors').stat().st_mtime_ns != stamp


def test_a_merge_that_goes_wrong_is_not_kept(bases, tmp_path, monkeypatch):  # noqa: F811
    from lora_mbpp.training import merge

    monkeypatch.setattr(merge, 'unshare', lambda model: 0)
    adapter = make(tmp_path / 'adapter', bases['tied'], {'target_modules': [*QV, 'lm_head']})
    cfg = resolve('test', model=str(bases['tied']), artifacts_dir=str(tmp_path / 'artifacts'))
    assert 'was not kept' in complaint(merge_adapter, cfg, adapter, 'x')
    assert not (tmp_path / 'artifacts' / 'merged' / 'x').exists()
