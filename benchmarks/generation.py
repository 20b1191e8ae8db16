"""How fast are answers made, in how much memory, and are they the same? Transformers' ways and this engine on the same prompts.

A model of a named shape with random weights is written once (or a real one is given with --model-dir); each way then answers the same
prompts, of 80 to 200 random tokens, with the same number of new tokens each, in a process of its own. What the figures mean:
  tokens/s   new tokens per second, prompts included in the time, loading not; from a second pass where a first one warms up
  peak GiB   what the allocator had reserved at most; --budget makes the card that small, so that too much is out of memory
  share      of the limit at which a step reads every weight and all keys and values once, at this card's measured bandwidth (on a CPU: at its matrix rate)
  same       answers whose tokens are those of the first way; `first` new tokens are the same on average. Random weights make flat
             distributions that amplify the last bit of 16-bit numbers, so this is for real models, or float32
Usage on a CUDA machine:
  python benchmarks/generation.py --ways plain batches continuous engine --weights bfloat16 --save
  python benchmarks/generation.py --ways plain batches continuous engine --weights nf4 --adapters 8 --budget 11 --save
  python benchmarks/generation.py --ways engine --weights bfloat16 --mixed 8 32 64 --save        base alone, then base and three adapters
On a CPU:
  python benchmarks/generation.py --shape smollm2-135m --prompts 64 --batch 64 --ways plain batches vllm engine --save"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

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
    from lora_mbpp.tasks.prompts import prompt_ids

    tok = load_tokenizer(model_dir)
    return [
        prompt_ids(tok, t['prompt'])
        for t in load_tasks(resolve('smollm2-135m', source='files', mbpp_file=mbpp, data_dir=tempfile.mkdtemp()))
    ][:number]


def write_adapter(model_dir: str, rank: int, folder: Path) -> str:
    "A random adapter on all linear maps, as PEFT saves it"
    import torch
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import save_file
    from transformers import AutoConfig

    from lora_mbpp.models.shapes import meta_model

    torch.manual_seed(rank)
    model = get_peft_model(
        meta_model(AutoConfig.from_pretrained(model_dir)),
        LoraConfig(r=rank, lora_alpha=2 * rank, target_modules='all-linear', task_type='CAUSAL_LM'),
        autocast_adapter_dtype=False,
    )

    def values(p):
        return torch.randn(p.shape) * 0.02

    folder.mkdir(parents=True)
    save_file(
        {n.replace('.default', ''): values(p) for n, p in model.named_parameters() if 'lora_' in n},
        folder / 'adapter_model.safetensors',
    )
    config = model.peft_config['default']
    config.inference_mode = True
    config.save_pretrained(folder)
    return str(folder)


def with_generate(model, prompts: list, new: int, batch: int) -> list:
    "Tokens of `generate`, `batch` padded prompts at a time, shortest first"
    import torch

    from lora_mbpp.generation.padded_batches import pad_left

    order, found = sorted(range(len(prompts)), key=lambda i: len(prompts[i])), [None] * len(prompts)
    for start in range(0, len(order), batch):
        some = order[start : start + batch]
        inputs = pad_left([prompts[i] for i in some], PAD, model.device)
        inputs.pop('position_ids')
        out = model.generate(
            **inputs, max_new_tokens=new, min_new_tokens=new, do_sample=False, pad_token_id=PAD, eos_token_id=None
        )[:, inputs['input_ids'].shape[1] :].tolist()
        for i, ids in zip(some, out):
            found[i] = ids
    return found


def continuously(model, prompts: list, new: int) -> list:
    "Tokens of transformers' continuous batching, sized by itself"
    from transformers import GenerationConfig

    out = model.generate_batch(
        prompts,
        generation_config=GenerationConfig(max_new_tokens=new, do_sample=False, pad_token_id=PAD, eos_token_id=-1),
        progress_bar=False,
    )
    answers = [
        o.generated_tokens for o in sorted(out.values(), key=lambda o: int(str(o.request_id).rsplit('_', 1)[-1]))
    ]
    assert len(answers) == len(prompts), f'generate_batch returned {len(answers)} of {len(prompts)} answers'
    return answers


def with_engine(model, prompts: list, new: int, batch: int, bank, adapters: list) -> list:
    "Tokens of this engine; `adapters`: every prompt once for each (-1: none)"
    from lora_mbpp.generation.completions import length_buckets, made
    from lora_mbpp.generation.scheduler import Completion

    answers = [Completion(p, new, -1, adapter=a, key=(i, 0)) for a in adapters for i, p in enumerate(prompts)]
    for wave in length_buckets(answers, batch):
        for _ in made(model, PAD, wave, bank=bank):
            pass
    return [a.ids for a in answers]


def with_vllm(job: dict, prompts: list) -> tuple:
    "Tokens of vLLM by its defaults, and the seconds they took"
    import torch
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    os.environ.setdefault('VLLM_CPU_KVCACHE_SPACE', '4')
    dtype = (
        'bfloat16'
        if job['weights'] in ('nf4', 'auto') and torch.cuda.is_available()
        else 'float32'
        if job['weights'] == 'auto'
        else job['weights']
    )
    more = {'quantization': 'bitsandbytes'} if job['weights'] == 'nf4' else {}
    if torch.cuda.is_available() and job['budget']:
        more['gpu_memory_utilization'] = job['budget'] * GIB / torch.cuda.get_device_properties(0).total_memory
    if job['adapters']:
        more |= {'enable_lora': True, 'max_loras': len(job['adapters']), 'max_lora_rank': 64}
    llm = LLM(job['model'], dtype=dtype, skip_tokenizer_init=True, max_model_len=512, max_num_seqs=job['batch'], **more)
    own = [-1, *range(len(job['adapters']))] if job['mixed'] else [0] if job['adapters'] else [-1]
    asked = [
        (p, LoRARequest(f'adapter {a}', a + 1, job['adapters'][a]) if a >= 0 else None) for a in own for p in prompts
    ]

    def answers():
        return llm.generate(
            [{'prompt_token_ids': p} for p, _ in asked],
            SamplingParams(temperature=0, max_tokens=job['new'], ignore_eos=True, detokenize=False),
            lora_request=[a for _, a in asked] if job['adapters'] else None,
        )

    answers()
    started = time.perf_counter()
    out = answers()
    return [list(o.outputs[0].token_ids) for o in out], time.perf_counter() - started


def measure(job: dict) -> dict:
    "One way, in this process"
    import torch

    from lora_mbpp.core.config import resolve
    from lora_mbpp.generation.base_layers import prepare_for_decoding
    from lora_mbpp.generation.multi_lora import MultiLoRA
    from lora_mbpp.models.adapters import load_adapter
    from lora_mbpp.models.fused_kernels import fuse_kernels
    from lora_mbpp.models.loading import load_model
    from lora_mbpp.models.runtime import choose_runtime, peak_memory_gb
    from lora_mbpp.training.memory_plan import hold_to

    prompts = json.loads(Path(job['prompts']).read_text())
    if job['way'] == 'vllm':
        ids, seconds = with_vllm(job, prompts)
        return {
            'tokens_per_s': round(sum(map(len, ids)) / seconds, 1),
            'seconds': round(seconds, 2),
            'answers': len(ids),
            'all_there': all(len(i) == job['new'] for i in ids),
            'ids': ids[: len(prompts)],
        }
    cuda = torch.cuda.is_available()
    if job['budget'] and cuda:
        hold_to(job['budget'])
    cfg = resolve(
        'mistral-7b',
        model=job['model'],
        quantization='nf4' if job['weights'] == 'nf4' else 'none',
        dtype='auto' if job['weights'] in ('nf4', 'auto') else job['weights'],
    )
    runtime = choose_runtime(cfg)
    model, bank, found = load_model(cfg.model, runtime), None, {}
    if job['way'] == 'engine':
        if cuda:
            found['kernels'] = fuse_kernels(model)
        prepare_for_decoding(model, job['expand'])
        bank = MultiLoRA(model, job['adapters']) if job['adapters'] else None
    else:
        model.set_attn_implementation('sdpa')
        if job['adapters']:
            model = load_adapter(model, job['adapters'][0])
            if job['weights'] != 'nf4':
                model = model.merge_and_unload()
    some = prompts[: job['sample']] if job['way'] == 'plain' else prompts
    own = [-1, *range(len(job['adapters']))] if job['mixed'] else [0] if bank else [-1]

    def run(some, new):
        if job['way'] == 'engine':
            return with_engine(model, some, new, job['batch'], bank, own)
        if job['way'] == 'continuous':
            return continuously(model, some, new)
        return with_generate(model, some, new, 1 if job['way'] == 'plain' else job['batch'])

    run(some[:8], 4)
    if cuda:
        torch.cuda.synchronize()
    started = time.perf_counter()
    ids = run(some, job['new'])
    if cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    found |= {
        'tokens_per_s': round(sum(map(len, ids)) / seconds, 1),
        'seconds': round(seconds, 2),
        'answers': len(ids),
        'all_there': all(len(i) == job['new'] for i in ids),
        'ids': ids[: len(prompts)],
        'peak_gib': round((torch.cuda.max_memory_reserved() if cuda else peak_memory_gb() * 1e9) / GIB, 2),
    }
    if job['way'] == 'plain':
        found['extrapolated_from'] = len(some)
    if job['profile']:
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as p:
            run(some, 16)
        print(
            p.key_averages().table(
                sort_by='self_cuda_time_total' if cuda else 'self_cpu_time_total',
                row_limit=25,
                max_name_column_width=90,
            ),
            file=sys.stderr,
        )
    return found


def bandwidth() -> float:
    "Bytes per second that a large copy on the card reads and writes, the best of ten"
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

    from lora_mbpp.models.shapes import config_of, shape_of
    from lora_mbpp.training.memory_plan import matrix_rate

    config = config_of(model_dir)
    shape = shape_of(config)
    if not torch.cuda.is_available():
        return matrix_rate('cpu', 'float32') / (2 * (shape.linear + config.vocab_size * shape.hidden)), 'matrix rate'
    width = getattr(config, 'head_dim', None) or config.hidden_size // config.num_attention_heads
    step = (
        2 * (shape.linear + config.vocab_size * shape.hidden)
        + batch * length * 2 * 2 * config.num_hidden_layers * config.num_key_value_heads * width
    )
    return batch * bandwidth() / step, 'bandwidth, 16-bit weights'


def agreement(ids: list, reference: list) -> dict:
    "Share of answers with the same tokens, and how many first tokens are the same on average"
    pairs = list(zip(ids, reference))

    def first(a, b):
        return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))

    return {
        'same_answers': round(sum(a == b for a, b in pairs) / len(pairs), 3),
        'same_first_tokens': round(sum(first(a, b) for a, b in pairs) / len(pairs), 1),
        'compared': len(pairs),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--shape', default='mistral-7b', choices=('mistral-7b', 'smollm2-135m', 'tiny'))
    parser.add_argument('--ways', nargs='+', default=['plain', 'batches', 'engine'], choices=WAYS)
    parser.add_argument('--weights', default='auto', choices=('auto', 'bfloat16', 'float16', 'float32', 'nf4'))
    parser.add_argument(
        '--adapters',
        nargs='*',
        type=int,
        default=[],
        help='rank of one adapter, unmerged in NF4, merged in 16 bits for transformers',
    )
    parser.add_argument(
        '--mixed',
        nargs='*',
        type=int,
        default=[],
        help='ranks of adapters that answer every prompt beside the base, in one pass; measured after the base alone',
    )
    parser.add_argument(
        '--expand', action='store_true', help='NF4 weights expanded once (needs the memory of 16-bit weights)'
    )
    parser.add_argument('--prompts', type=int, default=500)
    parser.add_argument('--mbpp', help='prompts of the test tasks of this file, instead of random ones')
    parser.add_argument('--new', type=int, default=128, help='new tokens an answer')
    parser.add_argument('--batch', nargs='+', type=int, default=[250], help='answers at once')
    parser.add_argument('--sample', type=int, default=3, help='prompts that the plain recipe answers')
    parser.add_argument(
        '--budget', type=float, default=0, help='GiB that a process may take of the card; 0: all (default)'
    )
    parser.add_argument('--timeout', type=float, default=300, help='seconds a way may take')
    parser.add_argument('--model-dir', help='folder of a checkpoint of that shape, made when missing')
    parser.add_argument('--profile', action='store_true', help='also print where the time of 16 tokens goes')
    parser.add_argument('--save', action='store_true', help=f'append the figures to {RESULTS.relative_to(ROOT)}')
    parser.add_argument('--child', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps({'figures': measure(json.loads(args.child))}))
        return 0
    import torch
    from training import child, write_model

    from lora_mbpp.core.environment import package_versions
    from lora_mbpp.models.shapes import config_of

    scratch = Path(tempfile.mkdtemp(prefix='generation_'))
    model = Path(args.model_dir or scratch / 'model')
    if not (model / 'config.json').exists():
        started = time.perf_counter()
        write_model(args.shape, model)
        print(f'{args.shape}: random weights written in {time.perf_counter() - started:.0f} s')
    prompts = (
        tasks_of(args.prompts, str(model), args.mbpp)
        if args.mbpp
        else prompts_of(args.prompts, config_of(str(model)).vocab_size)
    )
    (scratch / 'prompts.json').write_text(json.dumps(prompts))
    cuda = torch.cuda.is_available()
    name = (
        torch.cuda.get_device_name(0)
        if cuda
        else f'{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads'
    )
    one = [write_adapter(str(model), rank, scratch / f'adapter-{rank}') for rank in args.adapters]
    mixed = [write_adapter(str(model), rank, scratch / f'mixed-{i}-{rank}') for i, rank in enumerate(args.mixed)]
    print(
        f'{name}: {len(prompts)} prompts of {sum(map(len, prompts)) / len(prompts):.0f} tokens on average, {args.new} new tokens each, weights {args.weights}, budget {args.budget or "all"}'
    )
    found, reference = [], None
    for way in args.ways:
        for batch in args.batch if way not in ('plain', 'continuous') else args.batch[:1]:
            for adapters, both in [(one, False), *([(mixed, True)] if mixed and way in ('vllm', 'engine') else [])]:
                job = dict(
                    way=way,
                    prompts=str(scratch / 'prompts.json'),
                    model=str(model),
                    weights=args.weights,
                    adapters=adapters,
                    mixed=both,
                    expand=args.expand,
                    new=args.new,
                    batch=1 if way == 'plain' else batch,
                    sample=args.sample,
                    budget=args.budget,
                    profile=args.profile and way == 'engine',
                )
                figures = child(job, args.timeout, __file__)
                ids = figures.pop('ids', None)
                limit, of = limit_of(str(model), job['batch'], 140 + args.new // 2)
                reference = reference or ids
                record = {
                    'date': datetime.now(timezone.utc).isoformat(timespec='seconds'),
                    'way': way,
                    'shape': args.shape,
                    'weights': args.weights,
                    'expanded': args.expand,
                    'ranks': (args.mixed if both else args.adapters),
                    'mixed': both,
                    'batch': job['batch'],
                    'budget_gib': args.budget or None,
                    'prompts': len(prompts),
                    'mbpp': bool(args.mbpp),
                    'new_tokens': args.new,
                    'device': name,
                    'limit_tokens_per_s': round(limit),
                    'limit_of': of,
                    'share_of_limit': round(figures['tokens_per_s'] / limit, 3) if 'tokens_per_s' in figures else None,
                    'versions': package_versions(),
                    **(agreement(ids, reference) if ids else {}),
                    **{k: v for k, v in figures.items() if k != 'trace'},
                }
                found.append(record)
                label = f"{way:10} {'base + ' + str(len(adapters)) if both else 'adapter' if adapters else 'base':8} {job['batch']:4} at once"
                if 'failed' in figures:
                    print(f"{label}: failed: {figures['failed']}\n{figures.get('trace', '')}", flush=True)
                else:
                    print(
                        f"{label}: {figures['tokens_per_s']:9.1f} tokens/s, {figures['seconds']:.1f} s for {figures.get('answers')} answers, peak {figures.get('peak_gib')} GiB, {record['share_of_limit']:.1%} of the limit, "
                        f"same answers {record['same_answers']:.0%} ({record['same_first_tokens']:.0f} first tokens)"
                        + (
                            f", extrapolated from {figures['extrapolated_from']}"
                            if 'extrapolated_from' in figures
                            else ''
                        ),
                        flush=True,
                    )
                if args.save:
                    with open(RESULTS, 'a', encoding='utf-8') as file:
                        file.write(json.dumps(record) + '\n')
    assert all(r.get('all_there', True) for r in found), 'an answer is shorter than asked'
    return 0 if all('failed' not in r for r in found) else 1


if __name__ == '__main__':
    sys.exit(main())
