"""How much faster is one run in several processes, and how much smaller? The same steps in 1, 2, ... processes, base weights whole or shared.

A model of a named shape with random weights is trained on rows of the usual lengths (benchmarks/training.py), as `lora-mbpp train`
does it under torchrun: on CUDA a card for each process, on a CPU `--threads` of its cores for each. What the figures mean:
  tokens/s      useful tokens (no padding) of all processes per second: median over the timed optimizer steps, after two that are not counted
  against one   that, divided by the first number of processes with whole weights; perfect is the ratio of the numbers
  peak GiB      of the process with the most: what the allocator had reserved (CUDA), or resident memory (CPU), beside the plan's forecast
  losses        of all steps must equal those of the first line to 1e-3 of their size (bfloat16) or 1e-5 (float32), or speed counts for nothing
Usage:
  python benchmarks/scaling.py --mbpp mbpp.jsonl --codealpaca codealpaca.json --processes 1 2 --ranks 8 32 --save
  python benchmarks/scaling.py ... --shape smollm2-135m --batch 16        on a CPU"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'benchmarks')]
from training import Timed, add_row_options, check_row_options, figures_in, rows_of, write_model

RESULTS = ROOT / 'benchmarks' / 'results' / 'scaling.jsonl'


def measure(job: dict) -> None:
    "One process of a run; the first one prints the figures"
    import torch
    from accelerate.utils import gather_object

    from lora_mbpp.core.config import resolve
    from lora_mbpp.models.loading import load_tokenizer
    from lora_mbpp.models.runtime import choose_runtime, peak_memory_gb
    from lora_mbpp.train import TrainingMonitor, make_trainer, planned_model
    from lora_mbpp.training.trainer import processes_of

    if not torch.cuda.is_available():
        torch.set_num_threads(job['threads'])
    rows = json.loads(Path(job['rows']).read_text())
    cfg = resolve(
        'mistral-7b',
        model=job['model'],
        rank=job['rank'],
        quantization=job['quantization'],
        effective_batch=job['batch'],
        max_steps=job['steps'],
        sharding=job['sharding'],
        vram=job['budget'] + 1 if job['budget'] else None,
        optimizer='adamw_torch_fused' if torch.cuda.is_available() else 'adamw_torch',
    )
    runtime = choose_runtime(cfg)
    state, tok, folder = processes_of(runtime.device), load_tokenizer(cfg.model), Path(tempfile.mkdtemp())
    flight, model, how = planned_model(cfg, runtime, state, rows)
    watch, own = Timed(), TrainingMonitor(tok, [])
    trainer = make_trainer(cfg, runtime, model, tok, rows, own, folder, flight.layout)
    trainer.add_callback(watch)
    trainer.args.logging_steps, trainer.args.train_sampling_strategy, trainer.args.save_strategy = 1, 'sequential', 'no'
    trainer.train()
    peaks = gather_object([max(own.peak, peak_memory_gb()) * 1e9 / 2**30])
    if state.is_main_process:
        tokens = [
            sum(len(r['input_ids']) for r in rows[(step * job['batch']) % len(rows) :][: job['batch']])
            for step in range(1, job['steps'])
        ]
        rates = [n / (b - a) for n, a, b in zip(tokens, watch.times, watch.times[1:])][1:]
        print(
            json.dumps(
                {
                    'figures': {
                        'tokens_per_s': round(statistics.median(rates), 1),
                        'least': round(min(rates), 1),
                        'most': round(max(rates), 1),
                        'steps_timed': len(rates),
                        'peak_gib': round(max(peaks), 2),
                        'forecast_gib': round(flight.layout.memory['total'], 2),
                        'row_tokens': flight.layout.row_tokens,
                        'recomputed': flight.layout.recomputed,
                        'pieces': flight.layout.pieces,
                        'quantization': runtime.quantization,
                        'dtype': runtime.dtype,
                        'losses': [round(l['loss'], 6) for l in watch.logs if 'loss' in l],
                        'how': how,
                    }
                }
            ),
            flush=True,
        )
    state.wait_for_everyone()


def run(job: dict, processes: int, timeout: float) -> dict:
    "The figures of a run in so many processes; `failed` says why there are none"
    command = [
        sys.executable,
        '-m',
        'torch.distributed.run',
        '--standalone',
        '--nproc-per-node',
        str(processes),
        __file__,
        '--child',
        json.dumps(job),
    ]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, 'TOKENIZERS_PARALLELISM': 'false', 'OMP_NUM_THREADS': str(job['threads'])},
        )
    except subprocess.TimeoutExpired:
        return {'failed': f'not done in {timeout:.0f} s'}
    own = [l for l in done.stderr.splitlines() if 'Error' in l and 'ChildFailedError' not in l]
    return figures_in(done.stdout) or {'failed': (own or ['no output'])[-1][:300]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_row_options(parser)
    parser.add_argument('--processes', nargs='+', type=int, default=[1, 2])
    parser.add_argument('--sharding', nargs='+', default=['none', 'full'], choices=('none', 'full'))
    parser.add_argument('--ranks', nargs='+', type=int, default=[8])
    parser.add_argument('--quantization', default='auto', choices=('auto', 'nf4', 'none'))
    parser.add_argument('--budget', type=float, default=0, help='GiB that a process may take; 0: all (default)')
    parser.add_argument('--batch', type=int, default=112, help='rows an optimizer step, of all processes together')
    parser.add_argument('--steps', type=int, default=7, help='optimizer steps, two of which are not counted')
    parser.add_argument('--threads', type=int, default=1, help='of a process on a CPU')
    parser.add_argument('--timeout', type=float, default=300, help='seconds a run may take')
    parser.add_argument('--model-dir', help='folder of a checkpoint of that shape, made when missing')
    parser.add_argument('--save', action='store_true', help=f'append the figures to {RESULTS.relative_to(ROOT)}')
    parser.add_argument('--child', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        measure(json.loads(args.child))
        return 0
    import torch

    from lora_mbpp.core.environment import package_versions

    check_row_options(parser, args)
    cards = torch.cuda.device_count()
    if cards and max(args.processes) > cards:
        parser.error(f'--processes {max(args.processes)}: there are {cards} CUDA cards')
    scratch = Path(tempfile.mkdtemp(prefix='scaling_'))
    model = Path(args.model_dir or scratch / 'model')
    (scratch / 'rows.json').write_text(json.dumps(rows_of(args)))
    if not (model / 'config.json').exists():
        write_model(args.shape, model)
    name = (
        torch.cuda.get_device_name(0)
        if cards
        else f'{platform.processor() or platform.machine()}, {args.threads} threads a process'
    )
    print(f'{name}; {args.shape}, {args.batch} rows a step')
    found, right = [], True
    for rank in args.ranks:
        first = None
        for processes in args.processes:
            for sharding in args.sharding if processes > 1 else ['none']:
                job = dict(
                    rank=rank,
                    rows=str(scratch / 'rows.json'),
                    model=str(model),
                    quantization=args.quantization,
                    batch=args.batch,
                    steps=args.steps,
                    sharding=sharding,
                    budget=args.budget,
                    threads=args.threads,
                )
                figures = run(job, processes, args.timeout)
                losses = figures.pop('losses', [])
                first = first or (figures.get('tokens_per_s'), losses)
                close = 1e-5 if figures.get('dtype') == 'float32' else 1e-3
                same = len(losses) == len(first[1]) and all(
                    abs(a - b) <= close * abs(b) for a, b in zip(losses, first[1])
                )
                right &= same and 'failed' not in figures
                record = {
                    'date': datetime.now(timezone.utc).isoformat(timespec='seconds'),
                    'shape': args.shape,
                    'rank': rank,
                    'processes': processes,
                    'sharding': sharding,
                    'batch_rows': args.batch,
                    'budget_gib': args.budget or None,
                    'device': name,
                    'against_one': round(figures['tokens_per_s'] / first[0], 3)
                    if first[0] and 'failed' not in figures
                    else None,
                    'same_losses': same,
                    'versions': package_versions(),
                    **figures,
                }
                found.append(record)
                print(
                    f"r={rank:<3} {processes} processes, sharding {sharding}: "
                    + (
                        f"failed: {figures['failed']}"
                        if 'failed' in figures
                        else f"{figures['tokens_per_s']:9.1f} tokens/s ({figures['least']:.0f} - {figures['most']:.0f}), {record['against_one']:.2f} against one, peak {figures['peak_gib']:.2f} GiB (forecast {figures['forecast_gib']:.2f}), losses {'the same' if same else 'DIFFER'}"
                    ),
                    flush=True,
                )
                if args.save:
                    with open(RESULTS, 'a', encoding='utf-8') as file:
                        file.write(json.dumps(record) + '\n')
    return 0 if right else 1


if __name__ == '__main__':
    sys.exit(main())
