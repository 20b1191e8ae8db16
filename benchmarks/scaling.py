"""How much faster is one run in several processes, and how much smaller? Base weights whole or shared.

The same steps in 1, 2, ... processes: a model of a named shape with random weights is trained on rows of the usual
lengths (benchmarks/training.py), as `lora-mbpp train` does it under torchrun: on CUDA a GPU for each process, on a CPU
`--threads` of its cores for each. What the figures mean:
  tokens/s      useful tokens (no padding) of all processes per second: median of the steps after the first two
  against one   that, divided by the first number of processes with whole weights; perfect is the ratio of the numbers
  seconds       of all steps, at the pace of those after the first two: what the plan forecasts
  peak GiB      of the process with the most: what the allocator had reserved (CUDA), or resident memory (CPU)
  growing       share of that in segments of the allocator that grow (CUDA; those that do not leave gaps)
  losses        of all steps must equal those of the first line to 1e-3 of their size (bfloat16) or 1e-5 (float32)
  load s        from the plan to a model that is ready to train, its weights read and packed
With --one-layer the checkpoint holds one decoder layer, which is read anew for each of the model's: for shapes that no
disk here holds. Only sharing takes such weights, and its row says so.
Usage:
  python benchmarks/scaling.py --mbpp FILE --codealpaca FILE --processes 1 2 --ranks 8 32 --save
  python benchmarks/scaling.py ... --shape llama-2-70b --one-layer --processes 2 --sharding full --batch 16
  python benchmarks/scaling.py ... --shape smollm2-135m --batch 16        on a CPU"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'benchmarks')]
from training import (  # noqa: E402  a script beside this one
    add_row_options,
    check_row_options,
    configured,
    device_name,
    engine_trainer,
    figures_in,
    forecast_seconds,
    rows_of,
    save,
    seconds_of,
    timed,
    write_model,
)

RESULTS = ROOT / 'benchmarks' / 'results' / 'scaling.jsonl'


def measure(job: dict) -> None:
    "One process of a run; the first one prints the figures"
    import torch
    from accelerate.utils import gather_object

    from lora_mbpp.models.loading import load_tokenizer
    from lora_mbpp.models.runtime import choose_runtime, let_segments_grow, peak_memory_gb
    from lora_mbpp.train import plan_training
    from lora_mbpp.training.launch import end_processes, processes_of
    from lora_mbpp.training.monitor import TrainingMonitor
    from lora_mbpp.training.setup import TrainerParts, load_prepared

    let_segments_grow()
    if not torch.cuda.is_available():
        torch.set_num_threads(job['threads'])
    rows = json.loads(Path(job['rows']).read_text())
    cfg = configured(job)
    runtime = choose_runtime(cfg)
    processes, tok, folder = processes_of(runtime.device), load_tokenizer(cfg.model), Path(tempfile.mkdtemp())
    run_plan = plan_training(cfg, runtime, processes, rows)
    layout = run_plan.layout
    source = one_layer_source(Path(cfg.model)) if job['one_layer'] else None
    started = time.perf_counter()
    model, how = load_prepared(cfg, runtime, layout, source)
    loaded = time.perf_counter() - started
    watch, monitor = timed(), TrainingMonitor(tok, [])
    load_peak = peak_memory_gb() * 1e9 / 2**30
    trainer = engine_trainer(cfg, runtime, TrainerParts(model, tok, rows, monitor, folder, layout), watch)
    trainer.train()
    peaks = gather_object([max(monitor.peak.gb, peak_memory_gb()) * 1e9 / 2**30])
    growing = gather_object([share_of_growing_segments()])
    if processes.is_main_process:
        figures = {
            **speed(job, rows, watch.times),
            'forecast_seconds': forecast_seconds(run_plan),
            'peak_gib': round(max(peaks), 2),
            'growing': min(growing) if None not in growing else None,
            'forecast_gib': round(layout.memory['total'], 2),
            'load_s': round(loaded, 1),
            'load_peak_gib': round(load_peak, 2),
            'row_tokens': layout.row_tokens,
            'recomputed': layout.recomputed,
            'pieces': layout.weight_shards,
            'quantization': runtime.quantization,
            'dtype': runtime.dtype,
            'losses': [round(entry['loss'], 6) for entry in watch.logs if 'loss' in entry],
            'how': [*how, trainer.how],
        }
        print(json.dumps({'figures': figures}), flush=True)
    end_processes(processes)


def share_of_growing_segments() -> float | None:
    "Of the memory that this process's card has reserved, None on a CPU"
    import torch

    if not torch.cuda.is_available():
        return None
    sizes = [(one['total_size'], one.get('is_expandable', False)) for one in torch.cuda.memory_snapshot()]
    reserved = sum(size for size, _ in sizes)
    return round(sum(size for size, grows in sizes if grows) / reserved, 3) if reserved else None


def one_layer_source(folder: Path):
    "The tensors of a checkpoint with one decoder layer, which stands for all layers of the folder's configuration"
    from lora_mbpp.models.base_identity import weight_files
    from lora_mbpp.models.streaming import TensorSource, checkpoint_source

    one, layers = checkpoint_source(weight_files(folder)), json.loads((folder / 'config.json').read_text())
    shapes = {
        name.replace('.layers.0.', f'.layers.{i}.'): shape
        for i in range(layers['num_hidden_layers'])
        for name, shape in one.shapes.items()
    }
    return TensorSource(shapes, lambda name: one.read(re.sub(r'[.]layers[.][0-9]+[.]', '.layers.0.', name)))


def speed(job: dict, rows: list, times: list) -> dict:
    "Useful tokens per second of the timed steps"
    batch = job['batch']
    steps = [rows[(step * batch) % len(rows) :][:batch] for step in range(1, job['steps'])]
    tokens = [sum(len(row['input_ids']) for row in step) for step in steps]
    rates = [n / (end - start) for n, start, end in zip(tokens, times, times[1:])][1:]
    return {
        'tokens_per_s': round(statistics.median(rates), 1),
        'least': round(min(rates), 1),
        'most': round(max(rates), 1),
        'steps_timed': len(rates),
        'seconds': seconds_of(times),
    }


def run(job: dict, processes: int, timeout: float) -> dict:
    "The figures of a run in so many processes; `failed` says why there are none"
    launcher = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', str(processes)]
    command = [*launcher, __file__, '--child', json.dumps(job)]
    env = {**os.environ, 'TOKENIZERS_PARALLELISM': 'false', 'OMP_NUM_THREADS': str(job['threads'])}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=env)
    except subprocess.TimeoutExpired:
        return {'failed': f'not done in {timeout:.0f} s'}
    own = [line for line in done.stderr.splitlines() if 'Error' in line and 'ChildFailedError' not in line]
    return figures_in(done.stdout) or {'failed': (own or ['no output'])[-1][:300]}


def options() -> argparse.Namespace:
    "The command line"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_row_options(parser)
    parser.add_argument('--processes', nargs='+', type=int, default=[1, 2])
    parser.add_argument('--sharding', nargs='+', default=['none', 'full'], choices=('none', 'full'))
    parser.add_argument('--ranks', nargs='+', type=int, default=[8])
    parser.add_argument('--quantization', default='auto', choices=('auto', 'nf4', 'none'))
    parser.add_argument('--budget', type=float, default=0, help='GiB that a process may take; 0: all (default)')
    parser.add_argument('--batch', type=int, default=112, help='rows in an optimizer step, of all processes together')
    parser.add_argument('--steps', type=int, default=7, help='optimizer steps, two of which are not counted')
    parser.add_argument('--threads', type=int, default=1, help='of a process on a CPU')
    parser.add_argument('--timeout', type=float, default=300, help='seconds a run may take')
    parser.add_argument('--model-dir', help='folder of a checkpoint of that shape, made when missing')
    parser.add_argument('--one-layer', action='store_true', help="one decoder layer's file stands for all of them")
    parser.add_argument('--cuda-graphs', default='true', choices=('true', 'false'))
    parser.add_argument('--save', action='store_true', help=f'append the figures to {RESULTS.relative_to(ROOT)}')
    parser.add_argument('--child', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not args.child:
        import torch

        check_row_options(parser, args)
        gpus = torch.cuda.device_count()
        if gpus and max(args.processes) > gpus:
            parser.error(f'--processes {max(args.processes)}: there are {gpus} CUDA cards')
    return args


def cases_of(args) -> list[tuple[int, int, str]]:
    "(rank, processes, sharding) of each run, in order; one process cannot share"
    return [
        (rank, processes, sharding)
        for rank in args.ranks
        for processes in args.processes
        for sharding in (args.sharding if processes > 1 else ['none'])
    ]


def same_losses(losses: list, first: list, dtype: str | None) -> bool:
    "True where the losses of all steps are those of the first run"
    close = 1e-5 if dtype == 'float32' else 1e-3
    return len(losses) == len(first) and all(abs(a - b) <= close * abs(b) for a, b in zip(losses, first))


def described(record: dict) -> str:
    "One line about a run"
    name = f"r={record['rank']:<3} {record['processes']} processes, sharding {record['sharding']}"
    if 'failed' in record:
        return f"{name}: failed: {record['failed']}"
    growing = '' if record['growing'] in (None, 1) else f", {record['growing']:.0%} of it in segments that grow"
    return (
        f"{name}: {record['tokens_per_s']:9.1f} tokens/s ({record['least']:.0f} - {record['most']:.0f}), "
        f"{record['against_one'] or float('nan'):.2f} against one, peak {record['peak_gib']:.2f} GiB "
        f"(forecast {record['forecast_gib']:.2f}{growing}), {record['seconds']:.1f} s "
        f"(forecast {record['forecast_seconds'] or float('nan'):.1f}), loaded in {record['load_s']:.0f} s, "
        f"losses {'the same' if record['same_losses'] else 'DIFFER'}"
    )


def main() -> int:
    args = options()
    if args.child:
        measure(json.loads(args.child))
        return 0
    from lora_mbpp.core.environment import package_versions

    scratch = Path(tempfile.mkdtemp(prefix='scaling_'))
    model = Path(args.model_dir or scratch / 'model')
    (scratch / 'rows.json').write_text(json.dumps(rows_of(args)))
    if not (model / 'config.json').exists():
        write_model(args.shape, model, 1 if args.one_layer else None)
    name = device_name(f'{args.threads} threads a process')
    print(f'{name}; {args.shape}, {args.batch} rows a step')
    first, right = {}, True
    for rank, processes, sharding in cases_of(args):
        shared = {
            key: getattr(args, key) for key in ('quantization', 'batch', 'steps', 'budget', 'threads', 'one_layer')
        }
        place = {'rows': str(scratch / 'rows.json'), 'model': str(model)}
        job = {'rank': rank, 'sharding': sharding, 'cuda_graphs': args.cuda_graphs == 'true', **place, **shared}
        figures = run(job, processes, args.timeout)
        losses, measured = figures.get('losses', []), figures.get('tokens_per_s')
        first_speed, first_losses = first.setdefault(rank, (measured, losses))
        same = same_losses(losses, first_losses, figures.get('dtype'))
        right &= same and 'failed' not in figures
        record = {
            'date': datetime.now(timezone.utc).isoformat(timespec='seconds'),
            'shape': args.shape,
            'rank': rank,
            'processes': processes,
            'sharding': sharding,
            'batch_rows': args.batch,
            'budget_gib': args.budget or None,
            'cuda_graphs': job['cuda_graphs'],
            'weights': "one layer's file, read for every layer" if args.one_layer else 'a file for all layers',
            'device': name,
            'against_one': round(measured / first_speed, 3) if first_speed and measured else None,
            'same_losses': same,
            'versions': package_versions(),
            **figures,
        }
        print(described(record), flush=True)
        if args.save:
            save(record, RESULTS)
    return 0 if right else 1


if __name__ == '__main__':
    sys.exit(main())
