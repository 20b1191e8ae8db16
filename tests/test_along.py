"""What people take along: the adapter's folder, a merged model, GGUF, the Hub, two answers side by side, trackers."""

import io
import os
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from test_adapters import KINDS, QV, TOK, base_model, bases, loaded_base, make, texts_of  # noqa: F401
from transformers import AutoModelForCausalLM, AutoTokenizer

from lora_mbpp.cli import main
from lora_mbpp.core.config import resolve
from lora_mbpp.core.errors import complaint
from lora_mbpp.core.files import read_json
from lora_mbpp.evaluate import evaluate
from lora_mbpp.evaluation.loading import load_for
from lora_mbpp.experiments.gguf import find_converter
from lora_mbpp.generation.chat import answer_columns, both_answers, terminal_width
from lora_mbpp.models.base_identity import check_base, public_name
from lora_mbpp.models.runtime import choose_runtime
from lora_mbpp.tasks.chat import chat_text
from lora_mbpp.tasks.loading import literal_tasks
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
    code = text.split('```python\n')[1].split('```')[0]
    assert compile(code, 'card', 'exec') and code.splitlines()[3].startswith('base = AutoModelForCausalLM')
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


@pytest.mark.parametrize('base', ['llama', 'tied', 'mixtral'])
def test_sixteen_bits_are_merged_too(bases, tmp_path, base, capsys):  # noqa: F811
    adapter = make(tmp_path / 'adapter', bases[base], {'target_modules': QV})
    cfg = resolve('test', model=str(bases[base]), dtype='bfloat16', artifacts_dir=str(tmp_path / 'artifacts'))
    merged = AutoModelForCausalLM.from_pretrained(merge_adapter(cfg, adapter, 'x')).eval()
    assert merged.dtype == torch.bfloat16 and 'bfloat16' in capsys.readouterr().out
    exact = PeftModel.from_pretrained(loaded_base(bases[base]), adapter).merge_and_unload().state_dict()
    for name, weight in merged.state_dict().items():
        assert (weight.float() - exact[name].cpu()).abs().max() <= 2**-7 * exact[name].abs().max(), name


def test_what_is_read_again_must_be_what_was_written(bases, tmp_path, monkeypatch):  # noqa: F811
    from lora_mbpp.training import merge

    real = merge.distance_when_read_again

    def changed(folder, *more):
        tensors = load_file(folder / 'model.safetensors')
        tensors['model.layers.1.self_attn.q_proj.weight'].add_(0.01)
        save_file(tensors, folder / 'model.safetensors', {'format': 'pt'})
        return real(folder, *more)

    monkeypatch.setattr(merge, 'distance_when_read_again', changed)
    cfg = resolve('test', model=str(bases['llama']), artifacts_dir=str(tmp_path / 'artifacts'))
    assert 'was not kept' in complaint(
        merge_adapter, cfg, make(tmp_path / 'a', bases['llama'], {'target_modules': QV}), 'x'
    )


def test_a_merge_that_goes_wrong_is_not_kept(bases, tmp_path, monkeypatch):  # noqa: F811
    from lora_mbpp.training import merge

    monkeypatch.setattr(merge, 'unshare', lambda model: 0)
    adapter = make(tmp_path / 'adapter', bases['tied'], {'target_modules': [*QV, 'lm_head']})
    cfg = resolve('test', model=str(bases['tied']), artifacts_dir=str(tmp_path / 'artifacts'))
    assert 'was not kept' in complaint(merge_adapter, cfg, adapter, 'x')
    assert not list((tmp_path / 'artifacts' / 'merged').iterdir())


@pytest.fixture
def adapter_run(bases, tmp_path):  # noqa: F811
    """(options of a command, the adapter's folder) of an adapter on a base with a tied head."""
    name, place = 'tied0-r4-s0', tmp_path / 'artifacts'
    folder = make(place / 'checkpoints' / name, bases['tied'], {'target_modules': QV})
    return ['--preset', 'test', '--model', str(bases['tied']), '--artifacts-dir', str(place), '--run', name], folder


def said_by(capsys, *argv):
    """(exit status, what a command printed)."""
    status = main(list(argv))
    out, err = capsys.readouterr()
    return status, out + err


def test_export_merged_ends_with_the_line_for_vllm(adapter_run, bases, capsys):  # noqa: F811
    options, folder = adapter_run
    status, said = said_by(capsys, 'export', '--to', 'merged', *options)
    line = said.strip().splitlines()[-1]
    assert status == 0 and AutoModelForCausalLM.from_pretrained(folder.parents[1] / 'merged' / folder.name)
    words = shlex.split(line)
    assert words[:3] == ['vllm', 'serve', str(bases['tied'])] and words[-2:] == ['--max-lora-rank', '8']
    name, _, path = words[words.index('--lora-modules') + 1].partition('=')
    assert name == 'r4' and Path(path) == folder.resolve()


@pytest.mark.parametrize('rank, most', [(1, 8), (8, 8), (9, 16), (64, 64), (100, 128)])
def test_vllm_gets_a_rank_that_it_has_kernels_for(bases, tmp_path, rank, most):  # noqa: F811
    from lora_mbpp.experiments.export import serving_line

    settings = LoraConfig(r=rank, target_modules=QV, task_type='CAUSAL_LM')
    get_peft_model(loaded_base(bases['llama']), settings).save_pretrained(tmp_path / 'a')
    assert serving_line(resolve(model=str(bases['llama'])), tmp_path / 'a').endswith(f'--max-lora-rank {most}')


def test_what_vllm_does_not_serve_is_said(bases, tmp_path):  # noqa: F811
    from lora_mbpp.experiments.export import serving_line

    adapter = make(tmp_path / 'a', bases['llama'], {'target_modules': QV, 'use_dora': True})
    line = serving_line(resolve(model=str(bases['llama'])), adapter)
    assert line.startswith('# ') and 'use_dora' in line and '--to merged' in line


@pytest.mark.skipif(find_spec('vllm') is None, reason='vLLM is not installed')
def test_vllm_takes_the_line(adapter_run, bases):  # noqa: F811
    from vllm.entrypoints.openai.cli_args import make_arg_parser
    from vllm.utils import FlexibleArgumentParser

    from lora_mbpp.experiments.export import serving_line

    words = shlex.split(serving_line(resolve(model=str(bases['tied'])), adapter_run[1]))[2:]
    args = make_arg_parser(FlexibleArgumentParser()).parse_args(words[1:])
    assert args.enable_lora and args.max_lora_rank == 8 and args.lora_modules[0].name == 'r4'


FAKE_CONVERTER = """
import sys
from pathlib import Path
folder, target, kind = Path(sys.argv[1]), Path(sys.argv[3]), sys.argv[5]
assert sys.argv[2::2] == ['--outfile', '--outtype'] and (folder / 'config.json').is_file(), sys.argv
target.write_bytes(b'GGUF' + kind.encode())
"""


def test_export_gguf_with_a_modelfile(adapter_run, tmp_path, capsys):
    options, folder = adapter_run
    (tmp_path / 'llama.cpp').mkdir()
    (tmp_path / 'llama.cpp' / 'convert_hf_to_gguf.py').write_text(FAKE_CONVERTER, encoding='utf-8')
    found = ['--llama-cpp', str(tmp_path / 'llama.cpp'), '--gguf-type', 'q8_0', '--max-new-tokens', '77']
    status, said = said_by(capsys, 'export', '--to', 'gguf', *found, *options)
    made = folder.parents[1] / 'merged' / f'{folder.name}-gguf'
    assert status == 0 and sorted(path.name for path in made.iterdir()) == ['Modelfile', f'{folder.name}.gguf']
    assert (made / f'{folder.name}.gguf').read_bytes() == b'GGUFq8_0' and 'ollama create' in said
    text = (made / 'Modelfile').read_text(encoding='utf-8')
    assert f'FROM ./{folder.name}.gguf\n' in text and 'num_predict 77' in text and 'stop "</s>"' in text
    template = text.split('"""')[1].replace('{{ .Prompt }}', 'Double it.')
    assert template == chat_text(TOK, 'Double it.')


@pytest.mark.parametrize(
    'script, words',
    [
        ('import not_there', 'pip install not_there'),
        ('raise NotImplementedError("Model FooForCausalLM is not supported")', 'FooForCausalLM is not supported'),
        ('pass', 'no GGUF file'),
        ('import sys; open(sys.argv[3], "wb").write(b"half"); sys.exit(1)', 'it said nothing'),
    ],
)
def test_a_converter_that_fails_is_one_sentence(adapter_run, tmp_path, capsys, script, words):
    options, folder = adapter_run
    (tmp_path / 'convert_hf_to_gguf.py').write_text(script, encoding='utf-8')
    status, said = said_by(capsys, 'export', '--to', 'gguf', '--llama-cpp', str(tmp_path), *options)
    assert status == 2 and words in said.splitlines()[-1] and 'Traceback' not in said
    assert not list((folder.parents[1] / 'merged').glob('*-gguf/*'))


def test_the_converter_is_found_on_the_path_or_explained(adapter_run, tmp_path, monkeypatch, capsys):
    options, _ = adapter_run
    monkeypatch.setenv('PATH', str(tmp_path))
    status, said = said_by(capsys, 'export', '--to', 'gguf', *options)
    assert status == 2 and 'git clone --depth 1 https://github.com/ggml-org/llama.cpp' in said
    (tmp_path / 'convert_hf_to_gguf.py').write_text(FAKE_CONVERTER, encoding='utf-8')
    assert find_converter() == [sys.executable, str(tmp_path / 'convert_hf_to_gguf.py')]


class FakeHub:
    """The part of `HfApi` that an upload uses."""

    def __init__(self, private=None, error=None):
        self.private, self.error, self.sent = private, error, {}

    def create_repo(self, repo, private, exist_ok):
        if self.error:
            raise self.error
        self.private = private if self.private is None else self.private

    def repo_info(self, repo):
        return SimpleNamespace(private=self.private)

    def upload_folder(self, repo_id, folder_path, commit_message):
        self.sent = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}


@pytest.fixture
def hub(monkeypatch):
    """A Hub where somebody is signed in."""
    from lora_mbpp.experiments import export

    fake = FakeHub()
    monkeypatch.setattr(export, 'HfApi', lambda: fake)
    monkeypatch.setattr(export, 'get_token', lambda: 'token')
    monkeypatch.setattr(export, 'is_offline', lambda: False)
    return fake


def test_the_hub_gets_the_adapter_and_no_place_of_the_machine(trained, bases, hub, capsys):  # noqa: F811
    options, folder, _ = trained
    words = [
        '--preset',
        'test',
        '--model',
        options['model'],
        '--artifacts-dir',
        options['artifacts_dir'],
        '--rank',
        '4',
    ]
    status, said = said_by(capsys, 'export', '--to', 'hub', '--repo', 'me/it', '--dry-run', *words)
    assert status == 0 and not hub.sent and 'adapter_model.safetensors' in said and '(private)' in said
    status, said = said_by(capsys, 'export', '--to', 'hub', '--repo', 'me/it', *words)
    assert status == 0 and hub.private is True and 'https://huggingface.co/me/it' in said
    assert {
        'README.md',
        'adapter_config.json',
        'adapter_model.safetensors',
        'tokenizer.json',
        'base.json',
    } <= hub.sent.keys()
    assert hub.sent['adapter_model.safetensors'] == (folder / 'adapter_model.safetensors').read_bytes()
    assert b"'me/it'" in hub.sent['README.md']
    assert not [name for name, content in hub.sent.items() if str(bases['tied'].parent).encode() in content]


def test_public_is_asked_for_and_what_is_there_is_not_changed(adapter_run, hub, capsys):
    options, _ = adapter_run
    assert said_by(capsys, 'export', '--to', 'hub', '--repo', 'me/it', '--public', *options)[0] == 0
    assert hub.private is False
    hub.sent = {}
    status, said = said_by(capsys, 'export', '--to', 'hub', '--repo', 'me/it', *options)
    assert status == 2 and 'is public' in said and not hub.sent


@pytest.mark.parametrize(
    'argv, words',
    [
        ([], 'needs --repo owner/name'),
        (['--repo', 'noowner'], "'noowner'"),
        (['--repo', 'me/it'], 'HF_HUB_OFFLINE'),
        (['--repo', 'me/it', '--llama-cpp', 'x'], '--llama-cpp does not go with --to hub'),
    ],
)
def test_hub_mistakes_are_sentences(adapter_run, capsys, monkeypatch, argv, words):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    status, said = said_by(capsys, 'export', '--to', 'hub', *argv, *adapter_run[0])
    assert status == 2 and words in said.strip().splitlines()[-1] and 'Traceback' not in said


def test_not_signed_in_and_no_network_are_sentences(adapter_run, hub, capsys, monkeypatch):
    from lora_mbpp.experiments import export

    options = ['export', '--to', 'hub', '--repo', 'me/it', *adapter_run[0]]
    hub.error = ConnectionError('no route to host')
    status, said = said_by(capsys, *options)
    assert status == 2 and 'no route to host' in said and not hub.sent
    monkeypatch.setattr(export, 'get_token', lambda: None)
    status, said = said_by(capsys, *options)
    assert status == 2 and 'hf auth login' in said


def test_chat_answers_as_the_evaluation_does(adapter_run, bases, capsys):  # noqa: F811
    options, folder = adapter_run
    question = literal_tasks()[0]['prompt']
    status, said = said_by(capsys, 'chat', '--ask', question, *options)
    base = loaded_base(bases['tied'])
    peft_model = PeftModel.from_pretrained(loaded_base(bases['tied']), folder).eval()
    wanted = [texts_of(model)[0] for model in (base, peft_model)]
    loaded = load_for(resolve('test', model=str(bases['tied'])), choose_runtime(resolve('test')), [folder])
    answers = both_answers(loaded, question, 12)
    assert [answer['text'] for answer in answers.values()] == wanted and wanted[0] != wanted[1]
    assert status == 0 and f'base ({answers["base"]["n_tokens"]} tokens' in said and folder.name in said
    assert said.strip().splitlines()[-1].startswith('vllm serve')


def test_chat_switches_an_adapter_of_another_kind_off_for_the_base(bases, tmp_path):  # noqa: F811
    adapter = make(tmp_path / 'a', bases['llama'], {'target_modules': QV, 'use_dora': True})
    cfg = resolve('test', model=str(bases['llama']))
    loaded = load_for(cfg, choose_runtime(cfg), [adapter])
    texts = [answer['text'] for answer in both_answers(loaded, literal_tasks()[0]['prompt'], 12).values()]
    peft_model = PeftModel.from_pretrained(loaded_base(bases['llama']), adapter).eval()
    assert texts == [texts_of(model)[0] for model in (loaded_base(bases['llama']), peft_model)]


def test_typed_questions_end_with_an_empty_line(adapter_run, capsys, monkeypatch):
    monkeypatch.setattr(sys, 'stdin', io.StringIO('one?\ntwo?\n\nthree?\n'))
    status, said = said_by(capsys, 'chat', *adapter_run[0])
    assert status == 0 and said.count('base (') == 2
    assert said_by(capsys, 'chat', '--ask', ' ', *adapter_run[0])[0] == 2


@pytest.mark.parametrize('width', [20, 60, 82, 83, 84, 120, 400])
@pytest.mark.parametrize(
    'text', ['', 'a b ' * 200, 'x' * 500, '\u4e16\u754c ' * 99, 'def f():\n\treturn 1\n\n', '\x1b[2J\r\x07\u202e']
)
def test_answers_fit_any_terminal(width, text):
    answers = {name: {'text': text, 'n_tokens': 3, 'finish_reason': 'eos'} for name in ('base', 'r8')}
    said = answer_columns(answers, width)
    titles = [line for line in said.splitlines() if 'tokens, ended' in line]
    assert all(terminal_width(line) <= width for line in said.splitlines() if line not in titles)
    assert '\x1b' not in said and '\r' not in said and '\u202e' not in said
    assert (' | ' in said or width < 83) and said.count('3 tokens') == 2


def test_trackers_change_nothing_and_write_below_artifacts(tiny, tmp_path, monkeypatch):
    pytest.importorskip('tensorboard')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for name in ('TENSORBOARD_LOGGING_DIR', 'WANDB_DIR'):
        monkeypatch.delenv(name, raising=False)
    plain = train(resolve(**{**tiny, 'artifacts_dir': str(tmp_path / 'plain')}))['train_info']
    before = dict(os.environ)
    told = train(resolve(**tiny, report_to='tensorboard'))['train_info']
    assert dict(os.environ) == before
    assert [told['losses'], told['val_nll']] == [plain['losses'], plain['val_nll']]
    runs = [tmp_path / one / 'checkpoints' / 'test-r8-s0' for one in ('plain', 'artifacts')]
    assert (runs[0] / 'run.json').read_bytes() == (runs[1] / 'run.json').read_bytes()
    weights = [(run / 'adapter_model.safetensors').read_bytes() for run in runs]
    assert weights[0] == weights[1]
    assert train(resolve(**tiny, report_to='none'))['train_info'] == told  # the same run, read back
    events = EventAccumulator(str(tmp_path / 'artifacts' / 'trackers' / 'tensorboard' / 'test-r8-s0'))
    events.Reload()
    losses = [event.value for event in events.Scalars('train/loss')]
    assert losses == pytest.approx([entry['loss'] for entry in plain['losses']], rel=1e-6)
    assert [event.value for event in events.Scalars('eval/nll')] == pytest.approx(
        [entry['nll'] for entry in plain['val_nll']], rel=1e-6
    )


@pytest.mark.parametrize(
    'given, words',
    [
        ('wandb', 'pip install wandb'),
        ('tensorboard,mlflow', 'pip install mlflow'),
        ('tensorbord', "did you mean 'tensorboard'"),
        ('all', "report_to 'all' is not one of"),
        ('', 'is empty'),
    ],
)
def test_a_tracker_that_is_not_there_is_a_sentence(tiny, capsys, monkeypatch, given, words):
    from lora_mbpp.training import trackers

    monkeypatch.setattr(trackers, 'is_installed', lambda name: name == 'tensorboard')
    options = [part for name, value in tiny.items() for part in ('--' + name.replace('_', '-'), value)]
    for command in ('train', 'sweep'):
        status, said = said_by(capsys, command, '--report-to', given, *options)
        assert status == 2 and words in said and len(said.strip().splitlines()) == 1


def test_a_folder_of_a_tracker_is_no_package(tmp_path, monkeypatch):
    """wandb writes into ./wandb, which Python takes for a package without content."""
    from lora_mbpp.training.trackers import is_installed

    (tmp_path / 'wandb_like').mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not is_installed('wandb_like') and is_installed('json')
