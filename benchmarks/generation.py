"""How fast are completions made, in how much memory, and are they the same? Transformers' ways and this engine.

A model of a named shape with random weights is written once (or a real one is given with --model-dir). Each way then
completes the same prompts, of 80 to 200 random tokens, with the same number of new tokens each, in a process of its
own. What the figures mean:
  tokens/s   new tokens per second, prompts included in the time, loading not; of a second pass, after a short first one
  peak GiB   what the allocator had reserved at most; --budget makes the GPU that small: too much is out of memory
  share      of the limit at which a step reads every weight and all keys and values once, at this GPU's measured
             bandwidth (on a CPU: at its matrix rate)
  same       completions whose tokens are those of the first way; `first` new tokens are the same on average. Random
             weights make flat distributions that amplify the last bit of 16-bit numbers, so this is for real models,
             or float32
Usage on a CUDA machine:
  python benchmarks/generation.py --ways plain batches continuous engine --weights bfloat16 --save
  python benchmarks/generation.py --ways plain batches continuous engine --weights nf4 --adapters 8 --budget 11 --save
Base alone, then base and three adapters:
  python benchmarks/generation.py --ways engine --weights bfloat16 --mixed 8 32 64 --save
On a CPU:
  python benchmarks/generation.py --shape smollm2-135m --prompts 64 --batch 64 --ways plain batches vllm engine --save
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'benchmarks')]
RESULTS = ROOT / 'benchmarks' / 'results' / 'generation.jsonl'
WAYS = {
    'plain': 'the plain recipe: `generate`, one prompt at a time (a few, extrapolated)',
    'batches': '`generate` in padded batches',
    'continuous': '`generate_batch` of transformers, by its defaults',
    'vllm': 'vLLM, where installed',
    'engine': 'lora_mbpp',
}
GIB, PAD = 2**30, 0


# --- what is measured: prompts and adapters ---


def prompts_of(number: int, vocabulary: int, seed: int = 0) -> list:
    "Random prompts of 80 to 200 tokens"
    import torch

    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(80, 201, (number,), generator=generator).tolist()
    return [torch.randint(3, vocabulary - 1, (n,), generator=generator).tolist() for n in lengths]


def tasks_of(number: int, model_dir: str, mbpp: str) -> list:
    "Prompts of MBPP's test tasks, as the notebooks ask them"
    from lora_mbpp.core.config import resolve
    from lora_mbpp.data import load_tasks
    from lora_mbpp.models.loading import load_tokenizer
    from lora_mbpp.tasks.chat import prompt_ids

    tok = load_tokenizer(model_dir)
    tasks = load_tasks(resolve('smollm2-135m', source='files', mbpp_file=mbpp, data_dir=tempfile.mkdtemp()))
    return [prompt_ids(tok, task['prompt']) for task in tasks][:number]


def write_adapter(model_dir: str, rank: int, folder: Path) -> str:
    "A random adapter on all linear maps, as PEFT saves it"
    import torch
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import save_file
    from transformers import AutoConfig

    from lora_mbpp.models.shapes import meta_model

    torch.manual_seed(rank)
    lora = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules='all-linear', task_type='CAUSAL_LM')
    model = get_peft_model(meta_model(AutoConfig.from_pretrained(model_dir)), lora, autocast_adapter_dtype=False)
    factors = {name: p for name, p in model.named_parameters() if 'lora_' in name}
    values = {name.replace('.default', ''): torch.randn(p.shape) * 0.02 for name, p in factors.items()}
    folder.mkdir(parents=True)
    save_file(values, folder / 'adapter_model.safetensors')
    config = model.peft_config['default']
    config.inference_mode = True
    config.save_pretrained(folder)
    return str(folder)


# --- the ways ---


def with_generate(model, prompts: list, new: int, batch: int) -> list:
    "Tokens of `generate`, `batch` padded prompts at a time, shortest first"
    from lora_mbpp.generation.padded_batches import pad_left

    order, found = sorted(range(len(prompts)), key=lambda i: len(prompts[i])), [None] * len(prompts)
    settings = {'max_new_tokens': new, 'min_new_tokens': new, 'do_sample': False, 'pad_token_id': PAD}
    for start in range(0, len(order), batch):
        some = order[start : start + batch]
        inputs = pad_left([prompts[i] for i in some], PAD, model.device)
        out = model.generate(**inputs, **settings, eos_token_id=None)[:, inputs['input_ids'].shape[1] :].tolist()
        for i, ids in zip(some, out):
            found[i] = ids
    return found


def continuously(model, prompts: list, new: int) -> list:
    "Tokens of transformers' continuous batching, sized by itself"
    from transformers import GenerationConfig

    def number(output):
        return int(str(output.request_id).rsplit('_', 1)[-1])

    config = GenerationConfig(max_new_tokens=new, do_sample=False, pad_token_id=PAD, eos_token_id=-1)
    out = model.generate_batch(prompts, generation_config=config, progress_bar=False)
    tokens = [output.generated_tokens for output in sorted(out.values(), key=number)]
    assert len(tokens) == len(prompts), f'generate_batch returned {len(tokens)} of {len(prompts)} completions'
    return tokens


def with_engine(model, prompts: list, new: int, batch: int, multi_lora, adapters: list) -> list:
    "Tokens of this engine; `adapters`: every prompt once for each (-1: none)"
    from lora_mbpp.generation.completions import LoadedModel, complete_bucket, length_buckets
    from lora_mbpp.generation.scheduler import Completion

    completions = [Completion(p, new, {-1}, adapter=a, key=(i, 0)) for a in adapters for i, p in enumerate(prompts)]
    loaded = LoadedModel(model, SimpleNamespace(pad_token_id=PAD), multi_lora)
    for bucket in length_buckets(completions, batch):
        for _ in complete_bucket(loaded, bucket):
            pass
    return [completion.ids for completion in completions]


def with_vllm(job: dict, prompts: list) -> tuple:
    "Tokens of vLLM by its defaults, and the seconds they took"
    from vllm import SamplingParams
    from vllm.lora.request import LoRARequest

    llm = load_vllm(job)
    adapters = [LoRARequest(f'adapter {i}', i + 1, folder) for i, folder in enumerate(job['adapters'])]
    asked = [(p, adapters[a] if a >= 0 else None) for a in adapters_asked(job) for p in prompts]
    inputs = [{'prompt_token_ids': p} for p, _ in asked]
    wish = SamplingParams(temperature=0, max_tokens=job['new'], ignore_eos=True, detokenize=False)

    def outputs():
        return llm.generate(inputs, wish, lora_request=[adapter for _, adapter in asked] if adapters else None)

    outputs()
    started = time.perf_counter()
    out = outputs()
    return [list(o.outputs[0].token_ids) for o in out], time.perf_counter() - started


def load_vllm(job: dict):
    "vLLM with the job's model, weights and budget"
    import torch
    from vllm import LLM

    os.environ.setdefault('VLLM_CPU_KVCACHE_SPACE', '4')
    cuda, dtype = torch.cuda.is_available(), job['weights']
    if cuda and dtype in ('nf4', 'auto'):
        dtype = 'bfloat16'
    elif dtype == 'auto':
        dtype = 'float32'
    more = {'quantization': 'bitsandbytes'} if job['weights'] == 'nf4' else {}
    if cuda and job['budget']:
        more['gpu_memory_utilization'] = job['budget'] * GIB / torch.cuda.get_device_properties(0).total_memory
    if job['adapters']:
        more |= {'enable_lora': True, 'max_loras': len(job['adapters']), 'max_lora_rank': 64}
    return LLM(
        job['model'], dtype=dtype, skip_tokenizer_init=True, max_model_len=512, max_num_seqs=job['batch'], **more
    )


def adapters_asked(job: dict) -> list[int]:
    "Numbers of the adapters that complete every prompt (-1: the base alone)"
    if job['mixed']:
        return [-1, *range(len(job['adapters']))]
    return [0] if job['adapters'] else [-1]


# --- one way, in a process of its own ---


def loaded_for(job: dict) -> tuple:
    "(model, MultiLoRA or None, facts) for one of transformers' ways or the engine"
    from lora_mbpp.core.config import resolve
    from lora_mbpp.generation.base_layers import prepare_for_decoding
    from lora_mbpp.generation.multi_lora import MultiLoRA
    from lora_mbpp.models.adapters import load_adapter
    from lora_mbpp.models.fused_kernels import fuse_kernels
    from lora_mbpp.models.loading import load_model
    from lora_mbpp.models.runtime import choose_runtime

    packed = job['weights'] == 'nf4'
    dtype = 'auto' if job['weights'] in ('nf4', 'auto') else job['weights']
    cfg = resolve('mistral-7b', model=job['model'], quantization='nf4' if packed else 'none', dtype=dtype)
    runtime = choose_runtime(cfg)
    model = load_model(cfg.model, runtime)
    if job['way'] == 'engine':
        facts = {'kernels': fuse_kernels(model)} if runtime.device == 'cuda' else {}
        prepare_for_decoding(model, job['expand'])
        return model, MultiLoRA(model, job['adapters']) if job['adapters'] else None, facts
    model.set_attn_implementation('sdpa')
    if job['adapters']:
        model = load_adapter(model, job['adapters'][0])
        if not packed:
            model = model.merge_and_unload()
    return model, None, {}


def tokens_of(job: dict, model, multi_lora, prompts: list, new: int) -> list:
    "Tokens of one way"
    if job['way'] == 'engine':
        return with_engine(model, prompts, new, job['batch'], multi_lora, adapters_asked(job))
    if job['way'] == 'continuous':
        return continuously(model, prompts, new)
    return with_generate(model, prompts, new, 1 if job['way'] == 'plain' else job['batch'])


def figures_of(job: dict, ids: list, seconds: float, prompts: int) -> dict:
    "What is reported of any way"
    return {
        'tokens_per_s': round(sum(map(len, ids)) / seconds, 1),
        'seconds': round(seconds, 2),
        'answers': len(ids),
        'all_there': all(len(i) == job['new'] for i in ids),
        'ids': ids[:prompts],
    }


def measure(job: dict) -> dict:
    "One way, in this process"
    import torch

    from lora_mbpp.models.runtime import peak_memory_gb
    from lora_mbpp.training.memory_plan import hold_to

    prompts = json.loads(Path(job['prompts']).read_text())
    if job['way'] == 'vllm':
        return figures_of(job, *with_vllm(job, prompts), len(prompts))
    cuda = torch.cuda.is_available()
    if job['budget'] and cuda:
        hold_to(job['budget'])
    model, multi_lora, found = loaded_for(job)
    some = prompts[: job['sample']] if job['way'] == 'plain' else prompts

    def now():
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    tokens_of(job, model, multi_lora, some[:8], 4)
    started = now()
    ids = tokens_of(job, model, multi_lora, some, job['new'])
    found |= figures_of(job, ids, now() - started, len(prompts))
    peak = torch.cuda.max_memory_reserved() if cuda else peak_memory_gb() * 1e9
    found['peak_gib'] = round(peak / GIB, 2)
    if job['way'] == 'plain':
        found['extrapolated_from'] = len(some)
    if job['profile']:
        print_profile(lambda: tokens_of(job, model, multi_lora, some, 16), 'cuda' if cuda else 'cpu')
    return found


def print_profile(work, device: str) -> None:
    "Where the time of `work` goes, on standard error"
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity[device.upper()]]) as recorded:
        work()
    settings = {'sort_by': f'self_{device}_time_total', 'row_limit': 25, 'max_name_column_width': 90}
    print(recorded.key_averages().table(**settings), file=sys.stderr)


# --- what could be reached, and what is the same ---


def bandwidth() -> float:
    "Bytes per second that a large copy on the GPU reads and writes, the best of ten"
    import torch

    a = torch.empty(2 * GIB, dtype=torch.uint8, device='cuda')
    b = torch.empty_like(a)
    best = 0
    for _ in range(10):
        torch.cuda.synchronize()
        started = time.perf_counter()
        b.copy_(a)
        torch.cuda.synchronize()
        best = max(best, 2 * a.numel() / (time.perf_counter() - started))
    return best


def limit_of(model_dir: str, batch: int, length: int) -> tuple[float, str]:
    "(new tokens per second that the device could make, what it is reckoned from)"
    import torch

    from lora_mbpp.generation.kv_slots import key_value_shape
    from lora_mbpp.models.shapes import config_of, shape_of
    from lora_mbpp.training.time_plan import matrix_rate

    config = config_of(model_dir)
    shape = shape_of(config)
    weights = shape.linear + config.vocab_size * shape.hidden
    if not torch.cuda.is_available():
        return matrix_rate('cpu', 'float32') / (2 * weights), 'matrix rate'
    layers, heads, width = key_value_shape(config)
    step = 2 * weights + batch * length * 2 * 2 * layers * heads * width
    return batch * bandwidth() / step, 'bandwidth, 16-bit weights'


def agreement(ids: list, reference: list) -> dict:
    "Share of completions with the same tokens, and how many first tokens are the same on average"
    pairs = list(zip(ids, reference))

    def first(a, b):
        return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))

    return {
        'same_answers': round(sum(a == b for a, b in pairs) / len(pairs), 3),
        'same_first_tokens': round(sum(first(a, b) for a, b in pairs) / len(pairs), 1),
        'compared': len(pairs),
    }


# --- the command ---


def options() -> argparse.ArgumentParser:
    "The command line"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    ranks = {'nargs': '*', 'type': int, 'default': []}
    add('--shape', default='mistral-7b', choices=('mistral-7b', 'smollm2-135m', 'tiny'))
    add('--ways', nargs='+', default=['plain', 'batches', 'engine'], choices=WAYS)
    add('--weights', default='auto', choices=('auto', 'bfloat16', 'float16', 'float32', 'nf4'))
    text = 'rank of one adapter, unmerged in NF4, merged in 16 bits for transformers'
    add('--adapters', **ranks, help=text)
    text = 'ranks of adapters that complete every prompt beside the base, in one pass; measured after the base alone'
    add('--mixed', **ranks, help=text)
    add('--expand', action='store_true', help='NF4 weights expanded once (needs the memory of 16-bit weights)')
    add('--prompts', type=int, default=500)
    add('--mbpp', help='prompts of the test tasks of this file, instead of random ones')
    add('--new', type=int, default=128, help='new tokens of a completion')
    add('--batch', nargs='+', type=int, default=[250], help='completions at once')
    add('--sample', type=int, default=3, help='prompts that the plain recipe completes')
    add('--budget', type=float, default=0, help='GiB that a process may take of the GPU; 0: all (default)')
    add('--timeout', type=float, default=300, help='seconds a way may take')
    add('--model-dir', help='folder of a checkpoint of that shape, made when missing')
    add('--profile', action='store_true', help='also print where the time of 16 tokens goes')
    add('--save', action='store_true', help=f'append the figures to {RESULTS.relative_to(ROOT)}')
    add('--child', help=argparse.SUPPRESS)
    return parser


def jobs_of(args: argparse.Namespace, model: Path, prompts: Path, one: list[str], mixed: list[str]):
    "A job for each way, number of completions at once, and set of adapters"
    for way in args.ways:
        for batch in args.batch if way not in ('plain', 'continuous') else args.batch[:1]:
            for adapters, both in [(one, False), *([(mixed, True)] if mixed and way in ('vllm', 'engine') else [])]:
                yield {
                    'way': way,
                    'prompts': str(prompts),
                    'model': str(model),
                    'weights': args.weights,
                    'adapters': adapters,
                    'mixed': both,
                    'expand': args.expand,
                    'new': args.new,
                    'batch': 1 if way == 'plain' else batch,
                    'sample': args.sample,
                    'budget': args.budget,
                    'profile': args.profile and way == 'engine',
                }


def record_of(args: argparse.Namespace, job: dict, figures: dict, facts: dict) -> dict:
    "A line of the results file, still without what is the same as the first way's"
    from lora_mbpp.core.environment import package_versions

    limit, of = limit_of(job['model'], job['batch'], 140 + args.new // 2)
    return {
        'date': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'way': job['way'],
        'shape': args.shape,
        'weights': args.weights,
        'expanded': args.expand,
        'ranks': args.mixed if job['mixed'] else args.adapters,
        'mixed': job['mixed'],
        'batch': job['batch'],
        'budget_gib': args.budget or None,
        'prompts': facts['prompts'],
        'mbpp': bool(args.mbpp),
        'new_tokens': args.new,
        'device': facts['device'],
        'limit_tokens_per_s': round(limit),
        'limit_of': of,
        'share_of_limit': round(figures['tokens_per_s'] / limit, 3) if 'tokens_per_s' in figures else None,
        'versions': package_versions(),
    }


def line_of(job: dict, record: dict) -> str:
    "The figures of a way, for a person"
    adapters = 'adapter' if job['adapters'] else 'base'
    kind = f'base + {len(job["adapters"])}' if job['mixed'] else adapters
    label = f'{job["way"]:10} {kind:8} {job["batch"]:4} at once'
    if 'failed' in record:
        return f'{label}: failed: {record["failed"]}'
    speed = f'{record["tokens_per_s"]:9.1f} tokens/s, {record["seconds"]:.1f} s for {record.get("answers")} completions'
    memory = f'peak {record.get("peak_gib")} GiB, {record["share_of_limit"]:.1%} of the limit'
    same = f'same completions {record["same_answers"]:.0%} ({record["same_first_tokens"]:.0f} first tokens)'
    sample = f', extrapolated from {record["extrapolated_from"]}' if 'extrapolated_from' in record else ''
    return f'{label}: {speed}, {memory}, {same}{sample}'


def device_name() -> str:
    "The GPU, or the processor and its threads"
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return f'{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads'


def model_folder(args: argparse.Namespace, scratch: Path) -> Path:
    "The folder of the checkpoint, which is written when it is missing"
    from training import write_model

    model = Path(args.model_dir or scratch / 'model')
    if not (model / 'config.json').exists():
        started = time.perf_counter()
        write_model(args.shape, model)
        print(f'{args.shape}: random weights written in {time.perf_counter() - started:.0f} s')
    return model


def main() -> int:
    args = options().parse_args()
    if args.child:
        print(json.dumps({'figures': measure(json.loads(args.child))}))
        return 0
    from training import child

    from lora_mbpp.models.shapes import config_of

    scratch = Path(tempfile.mkdtemp(prefix='generation_'))
    model = model_folder(args, scratch)
    if args.mbpp:
        prompts = tasks_of(args.prompts, str(model), args.mbpp)
    else:
        prompts = prompts_of(args.prompts, config_of(str(model)).vocab_size)
    (scratch / 'prompts.json').write_text(json.dumps(prompts))
    facts = {'prompts': len(prompts), 'device': device_name()}
    one = [write_adapter(str(model), rank, scratch / f'adapter-{rank}') for rank in args.adapters]
    mixed = [write_adapter(str(model), rank, scratch / f'mixed-{i}-{rank}') for i, rank in enumerate(args.mixed)]
    average = sum(map(len, prompts)) / len(prompts)
    asked = f'{len(prompts)} prompts of {average:.0f} tokens on average, {args.new} new tokens each'
    print(f'{facts["device"]}: {asked}, weights {args.weights}, budget {args.budget or "all"}')
    found, reference = [], None
    for job in jobs_of(args, model, scratch / 'prompts.json', one, mixed):
        figures = child(job, args.timeout, __file__)
        ids = figures.pop('ids', None)
        trace = figures.pop('trace', '')
        reference = reference or ids
        record = record_of(args, job, figures, facts)
        record |= {**(agreement(ids, reference) if ids else {}), **figures}
        found.append(record)
        print(line_of(job, record), *([trace] if 'failed' in record else []), sep='\n', flush=True)
        if args.save:
            with open(RESULTS, 'a', encoding='utf-8') as file:
                file.write(json.dumps(record) + '\n')
    assert all(record.get('all_there', True) for record in found), 'a completion is shorter than asked'
    return 0 if all('failed' not in record for record in found) else 1


if __name__ == '__main__':
    sys.exit(main())
