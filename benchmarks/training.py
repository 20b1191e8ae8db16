"""How fast is training, and in how much memory? The plain recipe, TRL's packing, Unsloth and this engine on the same rows.

A model of a named shape with random weights is written once; each way then trains it in a process of its own, on rows with the
token lengths of MBPP-train and CodeAlpaca (local files). What the figures mean:
  tokens/s      useful tokens (no padding) per second: median over the timed optimizer steps, after two that are not counted
  peak GiB      what the allocator had reserved at most; --budget makes the card that small, so that too much is out of memory
  share         of the limit: four operations a weight and token at the matrix rate of this device, measured in the same run
  loss, norm    of one step over the same eight rows before any training: all ways must agree, or their speed counts for nothing
Usage on a CUDA machine:
  python benchmarks/training.py --mbpp mbpp.jsonl --codealpaca codealpaca.json --ways plain trl engine --ranks 8 32 --save
  python benchmarks/training.py ... --ways engine --budget 11
On a CPU:
  python benchmarks/training.py ... --shape smollm2-135m --ways padded engine"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
RESULTS = ROOT / 'benchmarks' / 'results' / 'training.jsonl'
WAYS = {
    'plain': 'the plain recipe: TRL, one row at a time, 8 rows a step, checkpointing',
    'padded': 'TRL, 8 padded rows at a time, grouped by length',
    'trl': 'TRL packed: 8 x 2,048 tokens, Liger, checkpointing',
    'unsloth': 'Unsloth packed, 8 x 2,048 tokens, its own checkpointing, where installed',
    'engine': 'lora_mbpp',
}
GIB = 2**30


def add_row_options(parser) -> None:
    "Where the rows' lengths come from, how many rows, and the model's shape"
    parser.add_argument('--mbpp', help='MBPP as JSON lines')
    parser.add_argument('--codealpaca', help='CodeAlpaca as JSON')
    parser.add_argument(
        '--lengths',
        help='file of token lengths: read when it is there, written when not; then the data are not needed again',
    )
    parser.add_argument('--shape', default='mistral-7b', choices=('mistral-7b', 'smollm2-135m', 'tiny'))
    parser.add_argument('--rows', type=int, default=1000)


def check_row_options(parser, args) -> None:
    "An error unless the lengths can be had"
    if not (args.mbpp and args.codealpaca) and not (args.lengths and Path(args.lengths).exists()):
        parser.error('--mbpp and --codealpaca: the token lengths come from these files')


def lengths_of(args) -> list:
    "[tokens, of them in the answer] of each training row, from a file of them or from the data"
    if args.lengths and Path(args.lengths).exists():
        return json.loads(Path(args.lengths).read_text())[: args.rows]
    from lora_mbpp.core.config import resolve
    from lora_mbpp.data import assemble
    from lora_mbpp.models.loading import load_tokenizer
    from lora_mbpp.tasks.prompts import encode_row

    rows, _ = assemble(resolve('smollm2-135m', source='files', mbpp_file=args.mbpp, codealpaca_file=args.codealpaca))
    tok = load_tokenizer('smollm2-135m-instruct')
    found = [
        [len(e['input_ids']), sum(e['completion_mask'])]
        for e in (encode_row(tok, r['prompt'], r['completion']) for r in rows['train'])
    ]
    if args.lengths:
        Path(args.lengths).write_text(json.dumps(found))
    return found[: args.rows]


def rows_of(args) -> list:
    "Rows (input_ids, labels) of random tokens with the lengths of the real ones"
    import torch

    generator, lengths = torch.Generator().manual_seed(0), lengths_of(args)

    def one(whole, answer):
        ids = torch.randint(3, 30000, (whole,), generator=generator).tolist()
        return {'input_ids': ids, 'labels': [-100] * (whole - answer) + ids[whole - answer :]}

    return [one(*pair) for pair in lengths if pair[0] <= 1024]


def write_model(shape: str, folder: Path) -> None:
    "A random-weight checkpoint of the shape; every matrix normal with deviation 0.02"
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig

    from lora_mbpp.models.tiny import tiny_tokenizer

    config = {
        'mistral-7b': MistralConfig(sliding_window=None),
        'smollm2-135m': LlamaConfig(
            vocab_size=49152,
            hidden_size=576,
            intermediate_size=1536,
            num_hidden_layers=30,
            num_attention_heads=9,
            num_key_value_heads=3,
            tie_word_embeddings=True,
            max_position_embeddings=8192,
        ),
        'tiny': LlamaConfig(
            vocab_size=30001,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
        ),
    }[shape]
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16 if device == 'cuda' else torch.float32)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)


class Timed:
    "A trainer callback that takes the time of each optimizer step"

    def __new__(cls):
        import torch
        from transformers import TrainerCallback

        class Timed(TrainerCallback):
            times, logs = [], []

            def on_step_end(self, args, state, control, **kwargs):
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                self.times.append(time.perf_counter())

            def on_log(self, args, state, control, logs=None, **kwargs):
                self.logs.append(logs)

        made = Timed()
        made.times, made.logs = [], []
        return made


def trl_trainer(way: str, args, runtime, model, tok, rows: list, folder: Path, watch, steps: int, batch: int):
    "TRL's own trainer in one of its ways"
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    packed = way in ('trl', 'unsloth') and batch != 8
    settings = dict(
        output_dir=str(folder),
        max_steps=steps,
        logging_steps=1,
        learning_rate=1e-4,
        report_to='none',
        save_strategy='no',
        disable_tqdm=True,
        use_cpu=runtime.device == 'cpu',
        bf16=runtime.device == 'cuda',
        train_sampling_strategy='group_by_length' if way == 'padded' and batch != 8 else 'sequential',
        gradient_checkpointing=way != 'padded',
        seed=0,
        gradient_checkpointing_kwargs={'use_reentrant': False},
        optim='paged_adamw_8bit' if way == 'plain' and runtime.quantization == 'nf4' else 'adamw_torch',
    )
    if packed:
        settings |= dict(
            packing=True,
            max_length=2048,
            per_device_train_batch_size=8,
            use_liger_kernel=runtime.device == 'cuda' and way == 'trl',
        )
    else:
        settings |= dict(
            max_length=None,
            per_device_train_batch_size=1 if way == 'plain' else 8,
            gradient_accumulation_steps=8 if way == 'plain' else 1,
            dataset_kwargs={'skip_prepare_dataset': True},
        )
    if way == 'unsloth':
        del settings['gradient_checkpointing'], settings['gradient_checkpointing_kwargs']  # its own
    return SFTTrainer(
        model=model,
        args=SFTConfig(**settings),
        train_dataset=Dataset.from_list(rows),
        processing_class=tok,
        callbacks=[watch],
    )


def with_unsloth(cfg, runtime) -> tuple:
    "Unsloth's model with an adapter like the others', and its tokenizer"
    import torch
    from unsloth import FastLanguageModel

    model, tok = FastLanguageModel.from_pretrained(
        cfg.model, max_seq_length=2048, dtype=torch.bfloat16, load_in_4bit=runtime.quantization == 'nf4'
    )
    maps = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj']
    return FastLanguageModel.get_peft_model(
        model,
        r=cfg.rank,
        lora_alpha=cfg.alpha,
        lora_dropout=0,
        bias='none',
        target_modules=maps,
        use_gradient_checkpointing='unsloth',
        random_state=0,
    ), tok


def measure(job: dict) -> dict:
    "One way, in this process"
    import torch
    from peft import get_peft_model

    if job['way'] == 'unsloth':
        import unsloth  # first: it patches transformers and TRL
    from lora_mbpp.core.config import resolve
    from lora_mbpp.models.loading import load_model, load_tokenizer
    from lora_mbpp.models.runtime import choose_runtime
    from lora_mbpp.train import TrainingMonitor, lora_config, make_trainer, plan_this_run, prepare_model
    from lora_mbpp.training.memory_plan import hold_to

    rows = json.loads(Path(job['rows']).read_text())
    if job['budget'] and torch.cuda.is_available():
        hold_to(job['budget'])
    cfg = resolve(
        'mistral-7b',
        model=job['model'],
        rank=job['rank'],
        quantization=job['quantization'],
        dtype=job['dtype'],
        effective_batch=job['batch'],
        max_steps=job['steps'],
        row_tokens=job['row_tokens'],
        recomputed_layers=job['recomputed'],
        vram=job['budget'] + 1 if job['budget'] else None,
        optimizer='adamw_torch_fused' if torch.cuda.is_available() else 'adamw_torch',
    )
    runtime, folder = choose_runtime(cfg), Path(tempfile.mkdtemp())
    tok, found, flight = load_tokenizer(cfg.model), {}, None
    if job['way'] == 'engine':
        flight = plan_this_run(cfg, runtime, rows)
        model, found['how'] = prepare_model(cfg, runtime, load_model(cfg.model, runtime))
        found |= {
            'forecast_gib': round(flight.layout.memory['total'], 2),
            'row_tokens': flight.layout.row_tokens,
            'recomputed': flight.layout.recomputed,
            'forecast_minutes': flight.minutes,
        }
    elif job['way'] == 'unsloth':
        model, tok = with_unsloth(cfg, runtime)
    else:
        model = get_peft_model(load_model(cfg.model, runtime), lora_config(cfg))

    def run(steps, batch, some):
        watch, own = Timed(), TrainingMonitor(tok, [])
        if job['way'] == 'engine':
            from dataclasses import replace

            trainer = make_trainer(
                replace(cfg, max_steps=steps, effective_batch=batch),
                runtime,
                model,
                tok,
                some,
                own,
                folder,
                flight.layout,
            )
            trainer.add_callback(watch)
            trainer.args.logging_steps, trainer.args.train_sampling_strategy, trainer.args.save_strategy = (
                1,
                'sequential',
                'no',
            )
        else:
            trainer = trl_trainer(job['way'], job, runtime, model, tok, some, folder, watch, steps, batch)
        trainer.train()
        return watch, trainer, own.peak

    watch, *_ = run(1, 8, rows[:8])
    found['loss'], found['norm'] = (
        round(float(next(l for l in watch.logs if 'loss' in l)[k]), 5) for k in ('loss', 'grad_norm')
    )
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    watch, trainer, peak = run(job['steps'], job['batch'], rows)
    norms = [l['grad_norm'] for l in watch.logs if 'grad_norm' in l]
    total = sum(len(r['input_ids']) for r in rows)
    if job['way'] in ('trl', 'unsloth'):
        a_step = total / len(trainer.train_dataset) * 8  # packed: rows of about 2,048 tokens, eight a step
    else:
        a_step = None
    used = job['batch'] if job['way'] == 'engine' else 8

    def tokens(step):
        return a_step or sum(len(r['input_ids']) for r in rows[(step * used) % len(rows) :][:used])

    times = [b - a for a, b in zip(watch.times, watch.times[1:])]
    average = total / len(rows) * used
    rates = [(average if job['way'] == 'padded' else tokens(i + 1)) / t for i, t in enumerate(times)][1:]
    found |= {
        'tokens_per_s': round(statistics.median(rates), 1),
        'least': round(min(rates), 1),
        'most': round(max(rates), 1),
        'steps_timed': len(rates),
        'norms_positive': all(n > 0 for n in norms),
        'shrunk': getattr(trainer, 'shrunk', None) or [],
    }
    if torch.cuda.is_available():
        found['peak_gib'] = round(
            max(peak * 1e9, torch.cuda.max_memory_reserved()) / GIB, 2
        )  # the engine's own watch forgets after each validation
    else:
        from lora_mbpp.models.runtime import peak_memory_gb

        found['peak_gib'] = round(peak_memory_gb() * 1e9 / GIB, 2)
    if job['profile']:
        from torch.profiler import ProfilerActivity, profile

        from lora_mbpp.training.trainer import collate

        batch = collate(rows[: job['batch']])
        batch = {k: v.to(trainer.args.device) for k, v in batch.items()}
        with profile(activities=[ProfilerActivity.CUDA if torch.cuda.is_available() else ProfilerActivity.CPU]) as p:
            trainer.training_step(trainer.model, batch)
        print(
            p.key_averages().table(
                sort_by='self_cuda_time_total' if torch.cuda.is_available() else 'self_cpu_time_total',
                row_limit=25,
                max_name_column_width=90,
            ),
            file=sys.stderr,
        )
    return found


def figures_in(said: str) -> dict | None:
    "The last figures that a child printed, None where there are none"
    line = next((l for l in reversed(said.splitlines()) if l.startswith('{"figures"')), None)
    return json.loads(line)['figures'] if line else None


def child(job: dict, timeout: float, script: str = __file__) -> dict:
    "The figures of one way, from a process of its own that runs `script`; `failed` says why there are none"
    try:
        done = subprocess.run(
            [sys.executable, '-W', 'ignore', script, '--child', json.dumps(job)],
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, 'TOKENIZERS_PARALLELISM': 'false'},
        )
    except subprocess.TimeoutExpired:
        return {'failed': f'not done in {timeout:.0f} s'}
    if job['profile']:
        print(done.stderr[-9000:])
    return figures_in(done.stdout) or {
        'failed': (done.stderr.strip().splitlines() or ['no output'])[-1][:300],
        'trace': done.stderr[-1500:],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_row_options(parser)
    parser.add_argument('--ways', nargs='+', default=['plain', 'trl', 'engine'], choices=WAYS)
    parser.add_argument('--ranks', nargs='+', type=int, default=[8])
    parser.add_argument(
        '--budget', nargs='+', type=float, default=[0], help='GiB that a process may take of the card; 0: all (default)'
    )
    parser.add_argument('--quantization', default='auto', choices=('auto', 'nf4', 'none'))
    parser.add_argument(
        '--dtype',
        default='auto',
        choices=('auto', 'bfloat16', 'float16', 'float32'),
        help='of the frozen weights and of computation (default: what the device is best at)',
    )
    parser.add_argument(
        '--batch',
        type=int,
        default=112,
        help="rows an optimizer step of this engine (112 are about the 16,384 tokens of TRL's eight packed rows)",
    )
    parser.add_argument('--row-tokens', type=int, help='instead of what the plan chooses')
    parser.add_argument('--recomputed', type=int, help='instead of what the plan chooses')
    parser.add_argument('--steps', type=int, default=7, help='optimizer steps, two of which are not counted')
    parser.add_argument('--timeout', type=float, default=300, help='seconds a way may take')
    parser.add_argument('--model-dir', help='folder of a checkpoint of that shape, made when missing')
    parser.add_argument('--profile', action='store_true', help="also print the kernels of one of the engine's steps")
    parser.add_argument('--save', action='store_true', help=f'append the figures to {RESULTS.relative_to(ROOT)}')
    parser.add_argument('--child', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        job = json.loads(args.child)
        print(json.dumps({'figures': measure(job)}))
        return 0
    import torch

    from lora_mbpp.core.config import resolve
    from lora_mbpp.core.environment import package_versions
    from lora_mbpp.models.runtime import choose_runtime
    from lora_mbpp.models.shapes import config_of, shape_of
    from lora_mbpp.training.memory_plan import matrix_rate

    check_row_options(parser, args)
    scratch = Path(tempfile.mkdtemp(prefix='training_'))
    model = Path(args.model_dir or scratch / 'model')
    rows = rows_of(args)
    (scratch / 'rows.json').write_text(json.dumps(rows))
    if not (model / 'config.json').exists():
        started = time.perf_counter()
        write_model(args.shape, model)
        print(f'{args.shape}: random weights written in {time.perf_counter() - started:.0f} s')
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    dtype = choose_runtime(resolve('mistral-7b', dtype=args.dtype)).dtype
    shape, rate = shape_of(config_of(str(model))), matrix_rate(device, dtype)
    limit = rate / (4 * shape.linear)
    name = (
        torch.cuda.get_device_name(0)
        if device == 'cuda'
        else f'{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads'
    )
    lengths = sorted(len(r['input_ids']) for r in rows)
    print(
        f'{name}: {rate / 1e12:.2f} TFLOP/s in {dtype}, limit {limit:.0f} tokens/s; {len(rows)} rows, {sum(lengths) / len(lengths):.0f} tokens on average, median {lengths[len(lengths) // 2]}, most {lengths[-1]}'
    )
    found = []
    for budget in args.budget:
        for way in args.ways:
            if way == 'unsloth' and not find_spec('unsloth'):
                print(f'{way:9} not measured: not installed (pip install unsloth)')
                continue
            for rank in args.ranks if way == 'engine' else args.ranks[:1]:
                job = dict(
                    way=way,
                    rank=rank,
                    budget=budget,
                    rows=str(scratch / 'rows.json'),
                    model=str(model),
                    quantization=args.quantization,
                    dtype=args.dtype,
                    batch=args.batch,
                    steps=args.steps if way == 'engine' else min(args.steps, 6),
                    row_tokens=args.row_tokens,
                    recomputed=args.recomputed,
                    profile=args.profile and way == 'engine',
                )
                figures = child(job, args.timeout)
                record = {
                    'date': datetime.now(timezone.utc).isoformat(timespec='seconds'),
                    'way': way,
                    'shape': args.shape,
                    'rank': rank,
                    'budget_gib': budget or None,
                    'device': name,
                    'matrix_tflops': round(rate / 1e12, 2),
                    'limit_tokens_per_s': round(limit),
                    'share_of_limit': round(figures['tokens_per_s'] / limit, 3) if 'tokens_per_s' in figures else None,
                    'quantization': args.quantization,
                    'dtype': dtype,
                    'batch_rows': args.batch if way == 'engine' else None,
                    'versions': package_versions(),
                    **{k: v for k, v in figures.items() if k != 'trace'},
                }
                found.append(record)
                if 'failed' in figures:
                    print(
                        f"{way:9} r={rank:<3} budget {budget:g}: failed: {figures['failed']}\n{figures.get('trace', '')}"
                    )
                else:
                    print(
                        f"{way:9} r={rank:<3} budget {budget:g}: {figures['tokens_per_s']:9.1f} tokens/s ({figures['least']:.0f} - {figures['most']:.0f}), peak {figures['peak_gib']:.2f} GiB"
                        + (
                            f" (forecast {figures['forecast_gib']:.2f}, rows of {figures['row_tokens']}, {figures['recomputed']} layers recomputed)"
                            if way == 'engine'
                            else ''
                        )
                        + f", {record['share_of_limit']:.0%} of the limit, loss {figures['loss']:.4f}, norm {figures['norm']:.4f}",
                        flush=True,
                    )
                if args.save:
                    with open(RESULTS, 'a', encoding='utf-8') as file:
                        file.write(json.dumps(record) + '\n')
    good = [r for r in found if 'failed' not in r]
    assert all(r['norms_positive'] for r in good), 'a gradient norm is zero: nothing was trained'
    if good:
        losses, norms = [r['loss'] for r in good], [r['norm'] for r in good if r['rank'] == args.ranks[0]]
        print(
            f'loss parity: {min(losses):.4f} to {max(losses):.4f}; gradient norm at r={args.ranks[0]}: {min(norms):.4f} to {max(norms):.4f}'
        )
        assert max(losses) - min(losses) < 0.01 * max(losses) and max(norms) < 1.25 * min(norms), (
            'the ways do not compute the same'
        )
    return 0 if len(good) == len(found) else 1


if __name__ == '__main__':
    sys.exit(main())
