"""How many rewordings of test tasks does decontamination find, and how many siblings does it take for one?

The pairs of tests/leakage_pairs.jsonl were written by hand before the detectors were tuned: a test task (of MBPP by its
id, or of the starter set), and a training item that is the same task in other words, or one that only looks like it.
Each pair is screened as data preparation does it. Prints a line for each detector and one for all of them together:
  found         rewordings that it sees
  false         siblings that it sees
  recall        found / rewordings (%)
  precision     found / (found + false) (%)
With --data FOLDER (mbpp.jsonl, and CodeAlpaca files) the real files are prepared too: seconds, and items dropped."""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lora_mbpp.core.config import resolve  # noqa: E402
from lora_mbpp.data import prepare  # noqa: E402
from lora_mbpp.tasks.decontamination import examined  # noqa: E402
from lora_mbpp.tasks.loading import read_tasks, starter_tasks  # noqa: E402
from lora_mbpp.tasks.programs import entry_point  # noqa: E402

DETECTORS = 'text', 'function name', 'program', 'assert', 'similar program', 'behaviour', 'wording'


def read_pairs() -> list[dict]:
    "The handmade pairs"
    return [json.loads(line) for line in (ROOT / 'tests' / 'leakage_pairs.jsonl').read_text('utf-8').splitlines()]


def as_item(pair: dict) -> dict:
    "The training item of a pair, as data preparation sees it"
    item = pair['item']
    if 'tests' not in item:
        return {'id': pair['pair'], **item}
    return {'id': pair['pair'], 'setup': '', 'entry_point': entry_point(item['tests'], item['code']), **item}


def seen_by(pairs: list[dict], mbpp: Path | None) -> dict[int, dict]:
    "What saw each pair, by its number; without MBPP's file, of the pairs with starter tasks only"
    sets, seen = {'starter': starter_tasks()}, {}
    if mbpp:
        sets['mbpp'] = read_tasks(mbpp)
    for name, tasks in sets.items():
        own = {pair['pair']: pair for pair in pairs if pair['set'] == name}
        test = [task for task in tasks if task['split'] == 'test']
        records, note = examined([as_item(pair) for pair in own.values()], test, resolve().near_duplicate)
        if not note['compared']:
            sys.exit(f'no sandbox: {note["why"]}')
        seen |= dict.fromkeys(own, {})
        seen |= {r['train']: r['seen_by'] for r in records if r['test'] == own[r['train']]['task_id']}
    return seen


def scores(pairs: list[dict], seen: dict[int, dict]) -> list[dict]:
    "A row for each detector, and one for all"
    known = [pair for pair in pairs if pair['pair'] in seen]
    rows = []
    for detector in (*DETECTORS, 'all'):
        hits = [p['leak'] for p in known if (seen[p['pair']] if detector == 'all' else detector in seen[p['pair']])]
        found, false, leaks = sum(hits), len(hits) - sum(hits), sum(pair['leak'] for pair in known)
        precision = round(100 * found / len(hits), 1) if hits else None
        row = {'detector': detector, 'pairs': len(known), 'rewordings': leaks, 'found': found, 'false': false}
        rows.append({**row, 'recall': round(100 * found / leaks, 1), 'precision': precision})
    return rows


def time_preparation(data: Path) -> dict:
    "Seconds that preparing the real files takes, and what it drops"
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for path in sorted(data.glob('*alpaca*.json')) for row in json.loads(path.read_text('utf-8'))]
        instructions = Path(folder) / 'codealpaca.json'
        instructions.write_text(json.dumps(rows), 'utf-8')
        files = {'mbpp_file': str(data / 'mbpp.jsonl'), 'codealpaca_file': str(instructions)}
        began = time.monotonic()
        manifest = prepare(resolve(source='files', **files, data_dir=folder))
        dropped = {pair['train'] for pair in manifest['dropped'] if 'benchmark' not in pair}
        return {
            'seconds': round(time.monotonic() - began, 1),
            'items_dropped': len(dropped),
            'mbpp_dropped': sum(isinstance(item, int) for item in dropped),
            **manifest['counts'],
        }


def main() -> None:
    "Screen the pairs, print the table"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, help='folder with mbpp.jsonl and CodeAlpaca files')
    parser.add_argument('--misses', action='store_true', help='list the pairs that all together get wrong')
    args = parser.parse_args()
    pairs = read_pairs()
    seen = seen_by(pairs, args.data / 'mbpp.jsonl' if args.data else None)
    for row in scores(pairs, seen):
        print(json.dumps(row))
    for pair in pairs if args.misses else ():
        if pair['pair'] in seen and bool(seen[pair['pair']]) != pair['leak']:
            print(json.dumps({**pair, 'seen_by': seen[pair['pair']]}, ensure_ascii=False))
    if args.data:
        print(json.dumps(time_preparation(args.data)))


if __name__ == '__main__':
    main()
