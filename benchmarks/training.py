"""How fast is training, and in how much memory? The plain recipe, TRL's packing, Unsloth, and this engine.

A model of a named shape with random weights is written once; each way then trains it in a process of its own, on the
same rows, with the token lengths of MBPP-train and CodeAlpaca (local files). What the figures mean:
  tokens/s      useful tokens (no padding) per second: median over the timed steps, after two that are not counted
  seconds       of all steps, at the pace of those after the first two: what the plan forecasts
  peak GiB      what the allocator had reserved at most; --budget makes the GPU that small: too much is out of memory
  share         of the limit: four operations per weight and token at the matrix rate measured in the same run
  loss, norm    of one step over the same eight rows before any training: all ways must agree, or speed means nothing
Usage on a CUDA machine:
  python benchmarks/training.py --mbpp FILE --codealpaca FILE --ways plain trl engine --ranks 8 32 --save
  python benchmarks/training.py ... --ways engine --budget 11
  python benchmarks/training.py ... --ways engine --shape qwen2.5-coder-0.5b --batch 8 --ranks 8 2 16 32 64 --runs 1 15
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
from dataclasses import replace
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
SHAPES = 'mistral-7b', 'qwen2.5-coder-0.5b', 'qwen2.5-coder-1.5b', 'smollm2-135m', 'tiny', 'llama-2-70b'
GIB = 2**30


def add_row_options(parser) -> None:
    "Where the rows' lengths come from, how many rows, and the model's shape"
    parser.add_argument('--mbpp', help='MBPP as JSON lines')
    parser.add_argument('--codealpaca', help='CodeAlpaca as JSON')
    help = 'file of token lengths: read when it is there, written when not; then the data are not needed again'
    parser.add_argument('--lengths', help=help)
    parser.add_argument('--shape', default='mistral-7b', choices=SHAPES)
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
    from lora_mbpp.tasks.chat import encode_row

    rows, _ = assemble(resolve('smollm2-135m', source='files', mbpp_file=args.mbpp, codealpaca_file=args.codealpaca))
    tok = load_tokenizer('smollm2-135m-instruct')
    encoded = [encode_row(tok, row['prompt'], row['completion']) for row in rows['train']]
    found = [[len(row['input_ids']), sum(row['completion_mask'])] for row in encoded]
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


def shape_config(shape: str):
    "Transformers' configuration of a shape"
    from transformers import LlamaConfig, MistralConfig, Qwen2Config

    smollm2 = dict(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30)
    smollm2 |= dict(
        num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True, max_position_embeddings=8192
    )
    tiny = dict(vocab_size=30001, hidden_size=64, intermediate_size=128, num_hidden_layers=2)
    tiny |= dict(num_attention_heads=4, num_key_value_heads=2)
    qwen = dict(vocab_size=151936, num_key_value_heads=2, tie_word_embeddings=True, max_position_embeddings=32768)
    half = dict(hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14, **qwen)
    larger = dict(hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12, **qwen)
    llama = dict(hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, num_attention_heads=64)
    return {
        'mistral-7b': MistralConfig(sliding_window=None),
        'smollm2-135m': LlamaConfig(**smollm2),
        'qwen2.5-coder-0.5b': Qwen2Config(**half),
        'qwen2.5-coder-1.5b': Qwen2Config(**larger),
        'tiny': LlamaConfig(**tiny),
        'llama-2-70b': LlamaConfig(**llama, num_key_value_heads=8, max_position_embeddings=4096),
    }[shape]


def write_model(shape: str, folder: Path, layers: int | None = None) -> None:
    "A random-weight checkpoint of the shape, every matrix normal with deviation 0.02; with fewer layers if told so"
    import torch
    from transformers import AutoModelForCausalLM

    from lora_mbpp.models.tiny import tiny_tokenizer

    config = shape_config(shape)
    whole = config.num_hidden_layers
    config.num_hidden_layers = layers or whole
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16 if device == 'cuda' else torch.float32)
    model.save_pretrained(folder)
    if layers:
        model.config.num_hidden_layers = whole
        model.config.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)


def timed():
    "A trainer callback that takes the time of each optimizer step (`times`) and keeps what is logged (`logs`)"
    import torch
    from transformers import TrainerCallback

    class Timed(TrainerCallback):
        def __init__(self):
            self.times, self.logs = [], []

        def on_step_end(self, args, state, control, **kwargs):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.times.append(time.perf_counter())

        def on_log(self, args, state, control, logs=None, **kwargs):
            self.logs.append(logs)

    return Timed()


def forecast_seconds(run_plan) -> float | None:
    "Seconds of all steps as the plan of a run tells them, None where it does not"
    return None if run_plan.minutes is None else round(60 * run_plan.minutes, 2)


def seconds_of(times: list) -> float:
    "Seconds of all steps that ended at these times, at the pace of those after the first two"
    return round((times[-1] - times[1]) / (len(times) - 2) * len(times), 2)


def trl_settings(way: str, runtime, steps: int, batch: int) -> dict:
    "TRL's configuration in one of its ways; 8 rows in `batch` are the rows of the parity step, which are never packed"
    own_checkpointing = way == 'unsloth'
    grouped = way == 'padded' and batch != 8
    settings = dict(
        max_steps=steps,
        logging_steps=1,
        learning_rate=1e-4,
        report_to='none',
        save_strategy='no',
        disable_tqdm=True,
        use_cpu=runtime.device == 'cpu',
        bf16=runtime.device == 'cuda',
        train_sampling_strategy='group_by_length' if grouped else 'sequential',
        seed=0,
        optim='paged_adamw_8bit' if way == 'plain' and runtime.quantization == 'nf4' else 'adamw_torch',
    )
    if not own_checkpointing:
        settings |= dict(gradient_checkpointing=way != 'padded', gradient_checkpointing_kwargs={'use_reentrant': False})
    if way in ('trl', 'unsloth') and batch != 8:
        liger = runtime.device == 'cuda' and way == 'trl'
        return settings | dict(packing=True, max_length=2048, per_device_train_batch_size=8, use_liger_kernel=liger)
    rows, accumulated = (1, 8) if way == 'plain' else (8, 1)
    settings |= dict(max_length=None, dataset_kwargs={'skip_prepare_dataset': True})
    return settings | dict(per_device_train_batch_size=rows, gradient_accumulation_steps=accumulated)


def with_unsloth(cfg, runtime) -> tuple:
    "Unsloth's model with an adapter like the others', and its tokenizer"
    import torch
    from unsloth import FastLanguageModel

    nf4 = runtime.quantization == 'nf4'
    loading = dict(max_seq_length=2048, dtype=torch.bfloat16, load_in_4bit=nf4)
    model, tok = FastLanguageModel.from_pretrained(cfg.model, **loading)
    adapter = dict(r=cfg.rank, lora_alpha=cfg.alpha, lora_dropout=0, bias='none', random_state=0)
    adapter['target_modules'] = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj']
    return FastLanguageModel.get_peft_model(model, **adapter, use_gradient_checkpointing='unsloth'), tok


def configured(job: dict):
    "The project's configuration of a job"
    import torch

    from lora_mbpp.core.config import resolve

    names = ('model', 'rank', 'quantization', 'dtype', 'row_tokens', 'sharding')
    given = {name: job[name] for name in names if job.get(name) is not None}
    return resolve(
        'mistral-7b',
        **given,
        effective_batch=job['batch'],
        max_steps=job['steps'],
        recomputed_layers=job.get('recomputed'),
        cuda_graphs=job.get('cuda_graphs', True),
        vram=job['budget'] + 1 if job['budget'] else None,
        optimizer='adamw_torch_fused' if torch.cuda.is_available() else 'adamw_torch',
    )


def engine_trainer(cfg, runtime, parts, watch):
    "This project's trainer over rows in the order in which they are given, without checkpoints"
    from lora_mbpp.training.setup import make_trainer

    trainer = make_trainer(cfg, runtime, parts)
    trainer.add_callback(watch)
    trainer.args.logging_steps = 1
    trainer.args.train_sampling_strategy = 'sequential'
    trainer.args.save_strategy = 'no'
    return trainer


class Contender:
    "One way, with its model, in this process"

    def __init__(self, job: dict, rows: list):
        from peft import get_peft_model

        from lora_mbpp.models.loading import load_model, load_tokenizer
        from lora_mbpp.models.runtime import choose_runtime
        from lora_mbpp.training.recipe import lora_config
        from lora_mbpp.training.setup import prepare_model
        from lora_mbpp.training.time_plan import plan_documents

        self.way, self.cfg, self.layout, self.figures = job['way'], configured(job), None, {}
        self.runtime, self.folder = choose_runtime(self.cfg), Path(tempfile.mkdtemp())
        self.tok = load_tokenizer(self.cfg.model)
        if self.way == 'unsloth':
            self.model, self.tok = with_unsloth(self.cfg, self.runtime)
        elif self.way != 'engine':
            self.model = get_peft_model(load_model(self.cfg.model, self.runtime), lora_config(self.cfg))
        else:
            run_plan = plan_documents(self.cfg, self.runtime, rows)
            self.layout = run_plan.layout
            self.model, how = prepare_model(self.cfg, self.runtime, load_model(self.cfg.model, self.runtime))
            self.figures = {
                'how': how,
                'forecast_gib': round(self.layout.memory['total'], 2),
                'row_tokens': self.layout.row_tokens,
                'recomputed': self.layout.recomputed,
                'forecast_seconds': forecast_seconds(run_plan),
            }

    def train(self, steps: int, batch: int, rows: list) -> tuple:
        "(times and logs, trainer, GB at the peak as the engine's own monitor saw it) of so many steps"
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer

        from lora_mbpp.training.memory_plan import with_recordings
        from lora_mbpp.training.monitor import TrainingMonitor
        from lora_mbpp.training.setup import TrainerParts

        watch, monitor = timed(), TrainingMonitor(self.tok, [])
        if self.way == 'engine':
            parts = TrainerParts(self.model, self.tok, rows, monitor, self.folder, self.layout)
            cfg = replace(self.cfg, max_steps=steps, effective_batch=batch)
            trainer = engine_trainer(cfg, self.runtime, parts, watch)
            if trainer.recorder:
                self.figures['forecast_gib'] = round(with_recordings(self.layout.memory)['total'], 2)
        else:
            trainer = SFTTrainer(
                model=self.model,
                args=SFTConfig(output_dir=str(self.folder), **trl_settings(self.way, self.runtime, steps, batch)),
                train_dataset=Dataset.from_list(rows),
                processing_class=self.tok,
                callbacks=[watch],
            )
        trainer.train()
        return watch, trainer, monitor.peak.gb


def rates_of(way: str, job: dict, rows: list, times: list, packed_rows: int) -> list:
    "Useful tokens per second of each timed step"
    total = sum(len(r['input_ids']) for r in rows)
    used = job['batch'] if way == 'engine' else 8

    def tokens(step: int) -> float:
        if way in ('trl', 'unsloth'):
            return total / packed_rows * 8  # packed: rows of about 2,048 tokens, eight in a step
        if way == 'padded':
            return total / len(rows) * used  # in an order of its own: the average
        return sum(len(r['input_ids']) for r in rows[(step * used) % len(rows) :][:used])

    durations = [b - a for a, b in zip(times, times[1:])]
    return [tokens(i + 1) / duration for i, duration in enumerate(durations)][1:]


def print_profile(trainer, rows: list) -> None:
    "The slowest kernels of one step"
    import torch
    from torch.profiler import ProfilerActivity, profile

    from lora_mbpp.training.rows import collate

    on_cuda = torch.cuda.is_available()
    batch = {k: v.to(trainer.args.device) for k, v in collate(rows).items()}
    with profile(activities=[ProfilerActivity.CUDA if on_cuda else ProfilerActivity.CPU]) as profiler:
        trainer.training_step(trainer.model, batch)
    order = 'self_cuda_time_total' if on_cuda else 'self_cpu_time_total'
    table = profiler.key_averages().table(sort_by=order, row_limit=25, max_name_column_width=90)
    print(table, file=sys.stderr)


def study_runs(job: dict, cfg) -> list:
    "As many runs as are wanted: all ranks for the first seed, for the second, and so on"
    from lora_mbpp.train import Run

    seeds = -(-job['runs'] // len(job['ranks']))
    pairs = [(rank, seed) for seed in range(seeds) for rank in job['ranks']][: job['runs']]
    return [Run(replace(cfg, rank=rank, seed=seed), [], [], {}, False) for rank, seed in pairs]


def paced(seat):
    "A trainer callback that takes the time (`times`) and counts the tokens (`tokens`) of each step of a seated run"
    from transformers import TrainerCallback

    hand_over, rows = seat.loss, []

    def loss(documents, weight):
        rows.append(sum(len(ids) for ids, _ in documents))
        return hand_over(documents, weight)

    class Paced(TrainerCallback):
        times, tokens = [], []

        def on_step_end(self, args, state, control, **kwargs):
            self.times.append(time.perf_counter())
            self.tokens.append(sum(rows))
            rows.clear()

    seat.loss, Paced.times, Paced.tokens = loss, [], []
    return Paced()


def joint_parity(seats: list, rows: list) -> dict:
    "Loss, and norm of the first run's gradients, of a joint step over the same rows for all runs"
    import torch

    documents = [(row['input_ids'], row['labels']) for row in rows]
    targets = sum(label != -100 for _, labels in documents for label in labels[1:])
    weight = torch.tensor(1 / targets, device=seats[0].gradients[0].device)
    for seat in seats:
        seat.begin_step()
    losses = seats[0].table.losses({run: (documents, weight) for run in range(len(seats))})
    norm = torch.nn.utils.get_total_norm(seats[0].gradients)
    return {'loss': round(losses[0].item(), 5), 'norm': round(norm.item(), 5)}


def together_rates(watches: list) -> dict:
    "Tokens per second of all runs, by step, and from the third step to the last"
    ends = [max(times) for times in zip(*[watch.times for watch in watches])]
    tokens = [sum(counts) for counts in zip(*[watch.tokens for watch in watches])]
    rates = [count / (b - a) for count, a, b in zip(tokens[1:], ends, ends[1:])][1:]
    return {
        'tokens_per_s': round(statistics.median(rates), 1),
        'least': round(min(rates), 1),
        'most': round(max(rates), 1),
        'steps_timed': len(rates),
        'mean_tokens_per_s': round(sum(tokens[2:]) / (ends[-1] - ends[1]), 1),
        'seconds': round(ends[-1] - ends[0], 2),
    }


def measure_together(job: dict, rows: list) -> dict:
    "Several runs of this engine at once, each with the order of its seed, in this process"

    from lora_mbpp.experiments.together import SharedBase, joint_plan, table_of
    from lora_mbpp.models.loading import load_tokenizer
    from lora_mbpp.models.runtime import choose_runtime, peak_memory_gb
    from lora_mbpp.training.monitor import TrainingMonitor
    from lora_mbpp.training.recorded_rows import unrecorded_reason
    from lora_mbpp.training.setup import TrainerParts, make_trainer
    from lora_mbpp.training.time_plan import plan_documents
    from lora_mbpp.training.together import in_lockstep

    cfg = configured({**job, 'rank': max(job['ranks'])})
    runtime, tok, runs = choose_runtime(cfg), load_tokenizer(cfg.model), study_runs(job, cfg)
    run_plan = plan_documents(cfg, runtime, rows)
    layout, started = run_plan.layout, time.perf_counter()
    base = SharedBase.load(cfg, runtime, layout.recomputed)
    why = unrecorded_reason(cfg.cuda_graphs, base.carrier, replace(layout, memory={}), fused=True)
    plan, runs = joint_plan(runs, runtime, run_plan, not why)
    seats = table_of(base, runs, plan, why or ('' if plan.recorded else 'no memory'))
    parity, watches = joint_parity(seats, rows[:8]), [paced(seat) for seat in seats]
    norms, folder, monitors = [], Path(tempfile.mkdtemp()), [TrainingMonitor(tok, [], seat.nll) for seat in seats]

    def work(run, seat, watch, monitor):
        parts = TrainerParts(seat.model, tok, rows, monitor, folder / run.name, layout, seat)
        trainer = make_trainer(run.cfg, runtime, parts)
        trainer.add_callback(watch)
        trainer.args.save_strategy = 'no'
        trainer.train()
        norms.extend(entry['grad_norm'] for entry in trainer.state.log_history if 'grad_norm' in entry)

    works = [lambda own=own: work(*own) for own in zip(runs, seats, watches, monitors)]
    prepared = time.perf_counter() - started
    for error in in_lockstep(seats[0].table, seats, works):
        if error:
            raise error
    # each run's monitor forgets the peak so far where it begins and ends
    peak = max(peak_memory_gb(), *[monitor.peak.gb for monitor in monitors]) * 1e9
    return {
        'how': [*base.how, seats[0].how],
        'runs': len(runs),
        'ranks': [run.cfg.rank for run in runs],
        'at_once': seats[0].table.at_once,
        'forecast_gib': round(plan.memory['total'], 2),
        'row_tokens': layout.row_tokens,
        'recomputed': layout.recomputed,
        **parity,
        **together_rates(watches),
        'prepared_in_s': round(prepared, 1),
        'norms_positive': all(norm > 0 for norm in norms),
        'shrunk': seats[0].table.changes,
        'peak_gib': round(peak / GIB, 2),
    }


def measure(job: dict) -> dict:
    "One way, in this process"
    if job['way'] == 'unsloth':
        import unsloth  # noqa: F401  first: it patches transformers and TRL
    import torch

    from lora_mbpp.models.runtime import let_segments_grow, peak_memory_gb
    from lora_mbpp.training.memory_plan import hold_to

    if job['way'] == 'engine':
        let_segments_grow()  # as `train` does
    on_cuda = torch.cuda.is_available()
    rows = json.loads(Path(job['rows']).read_text())
    if job['budget'] and on_cuda:
        hold_to(job['budget'])
    if job.get('runs', 1) > 1:
        return measure_together(job, rows)
    contender = Contender(job, rows)
    watch, *_ = contender.train(1, 8, rows[:8])
    first = next(entry for entry in watch.logs if 'loss' in entry)
    parity = {'loss': round(float(first['loss']), 5), 'norm': round(float(first['grad_norm']), 5)}
    if on_cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    watch, trainer, peak = contender.train(job['steps'], job['batch'], rows)
    rates = rates_of(job['way'], job, rows, watch.times, len(trainer.train_dataset))
    # the engine's own monitor forgets the peak after each validation
    peak_bytes = max(peak * 1e9, torch.cuda.max_memory_reserved()) if on_cuda else peak_memory_gb() * 1e9
    if job['profile']:
        print_profile(trainer, rows[: job['batch']])
    return {
        **contender.figures,
        **parity,
        'tokens_per_s': round(statistics.median(rates), 1),
        'least': round(min(rates), 1),
        'most': round(max(rates), 1),
        'steps_timed': len(rates),
        'seconds': seconds_of(watch.times),
        'norms_positive': all(entry['grad_norm'] > 0 for entry in watch.logs if 'grad_norm' in entry),
        'shrunk': trainer.limit.changes if job['way'] == 'engine' else [],
        'peak_gib': round(peak_bytes / GIB, 2),
    }


def figures_in(said: str) -> dict | None:
    "The last figures that a child printed, None where there are none"
    line = next((line for line in reversed(said.splitlines()) if line.startswith('{"figures"')), None)
    return json.loads(line)['figures'] if line else None


def child(job: dict, timeout: float, script: str = __file__) -> dict:
    "The figures of one way, from a process of its own that runs `script`; `failed` says why there are none"
    command = [sys.executable, '-W', 'ignore', script, '--child', json.dumps(job)]
    env = {**os.environ, 'TOKENIZERS_PARALLELISM': 'false'}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=env)
    except subprocess.TimeoutExpired:
        return {'failed': f'not done in {timeout:.0f} s'}
    if job['profile']:
        print(done.stderr[-9000:])
    last = (done.stderr.strip().splitlines() or ['no output'])[-1]
    return figures_in(done.stdout) or {'failed': last[:300], 'trace': done.stderr[-1500:]}


def options() -> argparse.Namespace:
    "The command line"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_row_options(parser)
    parser.add_argument('--ways', nargs='+', default=['plain', 'trl', 'engine'], choices=WAYS)
    parser.add_argument('--ranks', nargs='+', type=int, default=[8])
    help = 'runs of this engine that are trained together: all --ranks for a first seed, a second, ...; 1: one alone'
    parser.add_argument('--runs', nargs='+', type=int, default=[1], help=help)
    help = 'GiB that a process may take of the GPU; 0: all (default)'
    parser.add_argument('--budget', nargs='+', type=float, default=[0], help=help)
    parser.add_argument('--quantization', default='auto', choices=('auto', 'nf4', 'none'))
    help = 'of the frozen weights and of computation (default: what the device is best at)'
    parser.add_argument('--dtype', default='auto', choices=('auto', 'bfloat16', 'float16', 'float32'), help=help)
    help = "rows in an optimizer step of this engine (112 are about the 16,384 tokens of TRL's eight packed rows)"
    parser.add_argument('--batch', type=int, default=112, help=help)
    parser.add_argument('--row-tokens', type=int, help='instead of what the plan chooses')
    parser.add_argument('--recomputed', type=int, help='instead of what the plan chooses')
    parser.add_argument('--steps', type=int, default=7, help='optimizer steps, two of which are not counted')
    parser.add_argument('--timeout', type=float, default=300, help='seconds a way may take')
    parser.add_argument('--model-dir', help='folder of a checkpoint of that shape, made when missing')
    parser.add_argument('--cuda-graphs', default='true', choices=('true', 'false'), help="of the engine's steps")
    parser.add_argument('--profile', action='store_true', help="also print the kernels of one of the engine's steps")
    help = "fail where the engine's memory is more than 10 %% or its time more than 25 %% from the forecast"
    parser.add_argument('--check-forecasts', action='store_true', help=help)
    parser.add_argument('--save', action='store_true', help=f'append the figures to {RESULTS.relative_to(ROOT)}')
    parser.add_argument('--child', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not args.child:
        check_row_options(parser, args)
    return args


def jobs_of(args) -> list[dict]:
    "What is measured, in order: each budget, way and rank; other ways than the engine at the first rank only"
    cases = [
        (budget, way, rank, runs)
        for budget in args.budget
        for way in args.ways
        for runs in (args.runs if way == 'engine' else [1])
        for rank in (args.ranks if way == 'engine' and runs == 1 else args.ranks[:1])
    ]
    return [
        dict(
            way=way,
            rank=rank,
            ranks=args.ranks,
            runs=runs,
            budget=budget,
            quantization=args.quantization,
            dtype=args.dtype,
            batch=args.batch,
            steps=args.steps if way == 'engine' else min(args.steps, 6),
            row_tokens=args.row_tokens,
            recomputed=args.recomputed,
            profile=args.profile and way == 'engine',
            cuda_graphs=args.cuda_graphs == 'true',
        )
        for budget, way, rank, runs in cases
    ]


def device_name(threads: str) -> str:
    "The GPU, or the processor and how many threads of it"
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return f'{platform.processor() or platform.machine()}, {threads}'


def described(record: dict) -> str:
    "One line about a way"
    several = f"{record['runs']} runs at once, " if record.get('runs', 1) > 1 else ''
    name = f"{record['way']:9} {several}r={record['rank']:<3} budget {record['budget_gib'] or 0:g}"
    if 'failed' in record:
        return f"{name}: failed: {record['failed']}"
    planned = ''
    if record['way'] == 'engine':
        layout = f"rows of {record['row_tokens']}, {record['recomputed']} layers recomputed"
        planned = f" (forecast {record['forecast_gib']:.2f}, {layout})"
        if record.get('forecast_seconds'):
            planned += f", {record['seconds']:.1f} s (forecast {record['forecast_seconds']:.1f})"
    return (
        f"{name}: {record['tokens_per_s']:9.1f} tokens/s ({record['least']:.0f} - {record['most']:.0f}), "
        f"peak {record['peak_gib']:.2f} GiB{planned}, {record['share_of_limit']:.0%} of the limit, "
        f"loss {record['loss']:.4f}, norm {record['norm']:.4f}"
    )


def check_parity(records: list[dict], first_rank: int) -> None:
    "Say how far losses and gradient norms of all ways are apart; AssertionError when they compute different things"
    assert all(record['norms_positive'] for record in records), 'a gradient norm is zero: nothing was trained'
    losses = [record['loss'] for record in records]
    norms = [record['norm'] for record in records if record['rank'] == first_rank]
    print(
        f'loss parity: {min(losses):.4f} to {max(losses):.4f}; '
        f'gradient norm at r={first_rank}: {min(norms):.4f} to {max(norms):.4f}'
    )
    same = max(losses) - min(losses) < 0.01 * max(losses) and max(norms) < 1.25 * min(norms)
    assert same, 'the ways do not compute the same'


BOUNDS = {'peak_gib': ('forecast_gib', 0.10), 'seconds': ('forecast_seconds', 0.25)}  # of a forecast, by its figure


def missed_forecasts(record: dict) -> list[str]:
    "What the plan of a way said too far from what was seen; nothing where it did not say it"
    known = [(name, of, bound) for name, (of, bound) in BOUNDS.items() if record.get(of) and record.get(name)]
    return [
        f'{name} {record[name]:.4g}, forecast {record[of]:.4g}'
        for name, of, bound in known
        if abs(record[of] / record[name] - 1) > bound
    ]


def save(record: dict, results: Path) -> None:
    "Append a record to a file of results"
    with open(results, 'a', encoding='utf-8') as file:
        file.write(json.dumps(record) + '\n')


def main() -> int:
    args = options()
    if args.child:
        print(json.dumps({'figures': measure(json.loads(args.child))}))
        return 0
    import torch

    from lora_mbpp.core.config import resolve
    from lora_mbpp.core.environment import package_versions
    from lora_mbpp.models.runtime import choose_runtime
    from lora_mbpp.models.shapes import config_of, shape_of
    from lora_mbpp.training.time_plan import matrix_rate

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
    rate = matrix_rate(device, dtype)
    limit = rate / (4 * shape_of(config_of(str(model))).linear)
    name = device_name(f'{torch.get_num_threads()} threads')
    lengths = sorted(len(r['input_ids']) for r in rows)
    print(
        f'{name}: {rate / 1e12:.2f} TFLOP/s in {dtype}, limit {limit:.0f} tokens/s; {len(rows)} rows, '
        f'{sum(lengths) / len(lengths):.0f} tokens on average, median {lengths[len(lengths) // 2]}, most {lengths[-1]}'
    )
    found = []
    for job in jobs_of(args):
        way = job['way']
        if way == 'unsloth' and not find_spec('unsloth'):
            print(f'{way:9} not measured: not installed (pip install unsloth)')
            continue
        figures = child({**job, 'rows': str(scratch / 'rows.json'), 'model': str(model)}, args.timeout)
        trace = figures.pop('trace', None)
        measured = figures.get('tokens_per_s')
        record = {
            'date': datetime.now(timezone.utc).isoformat(timespec='seconds'),
            'way': way,
            'shape': args.shape,
            'rank': job['rank'],
            'budget_gib': job['budget'] or None,
            'device': name,
            'matrix_tflops': round(rate / 1e12, 2),
            'limit_tokens_per_s': round(limit),
            'share_of_limit': None if measured is None else round(measured / limit, 3),
            'quantization': args.quantization,
            'dtype': dtype,
            'cuda_graphs': args.cuda_graphs == 'true' if way == 'engine' else None,
            'batch_rows': args.batch if way == 'engine' else None,
            'versions': package_versions(),
            **figures,
        }
        found.append(record)
        print(described(record), *([trace] if trace else []), sep='\n', flush=True)
        if args.save:
            save(record, RESULTS)
    good = [record for record in found if 'failed' not in record]
    if good:
        check_parity(good, args.ranks[0])
    missed = [f'{described(record)}: {one}' for record in good for one in missed_forecasts(record)]
    if args.check_forecasts and missed:
        print('forecasts missed:', *missed, sep='\n')
        return 1
    return 0 if len(good) == len(found) else 1


if __name__ == '__main__':
    sys.exit(main())
