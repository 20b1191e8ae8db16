"""What crosses between test code and program: no reply is trusted, no right program is called wrong.

`python tests/test_values.py [engine ...]` judges all programs without pytest, on any interpreter."""

import json
import os
import random
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from hostile_values import BEYOND, HONEST, HOSTILE

from lora_mbpp.core.files import json_text
from lora_mbpp.sandbox.engine import Limits
from lora_mbpp.sandbox.judge import SandboxError, judge, judge_many
from lora_mbpp.sandbox.proxy import Peer
from lora_mbpp.sandbox.questions import split_assert
from lora_mbpp.sandbox.support import why_unsupported
from lora_mbpp.sandbox.values import DecodeError, decode_value, encode_value
from lora_mbpp.sandbox.verdicts import VERDICTS, Raised, final_verdict, mismatch, tidy, understand

LIMITS = Limits(cpu_s=2, wall_s=20, memory_mb=512)
ENGINES = ('fork', 'wasm', 'process')
# What WebAssembly has not: a socket pair for an event loop; a stack for five hundred lists in a list.
LACKS = {'wasm': {'coroutine', 'coroutines gathered', 'asynchronous generator', 'asynchronous context manager'}}


def verdicts_of(engine: str, table: dict) -> dict:
    "`{name: verdict}` of a table of programs and tests"
    jobs = [dict(code=code, tests=tests) for code, tests, *_ in table.values()]
    judged = dict(judge_many(jobs, workers=3, limits=LIMITS, engine=engine))
    return {name: judged[number] for number, name in enumerate(table)}


def wrong_passes(engine: str) -> dict:
    "Wrong programs that pass, and verdicts that no file could hold"
    found = verdicts_of(engine, HOSTILE)
    assert all(v.verdict in VERDICTS for v in found.values())
    json.dumps([vars(v) for v in found.values()], ensure_ascii=False).encode('utf-8')
    return {name: v for name, v in found.items() if v.verdict in ('passed', 'harness_error')}


def wrong_failures(engine: str) -> dict:
    "Right programs that do not pass, or are not said to be beyond what can be judged"
    lacks = LACKS.get(engine, ())
    found = verdicts_of(engine, HONEST)
    found = {name: v for name, v in found.items() if v.verdict != 'passed' and name not in lacks}
    for name, v in verdicts_of(engine, BEYOND).items():
        if v.verdict != 'not_supported' or BEYOND[name][2] not in v.message:
            found[name] = v
    return found


def why_not(engine: str) -> str:
    "Why an engine cannot be tried here; '' if it can"
    try:
        verdict = judge('x = 1', ['assert x == 1'], limits=LIMITS, engine=engine)
    except (SandboxError, ValueError) as error:
        return str(error)
    return '' if verdict.verdict == 'passed' else str(verdict)


def noise(rng: random.Random, depth: int = 4):
    "JSON that looks a little like a message"
    tags = 'graph list tuple dict set + class handle forget type int str Decimal deque frozenset opaque +list'.split()
    leaves = (None, 0, 1, -1, 2.5, True, '', 't1', 'c1', '0x7', '61', *tags, '\ud800', 10**30, '9' * 5000)
    if depth == 0 or rng.random() < 0.3:
        return rng.choice(leaves)
    return [rng.choice(tags) if rng.random() < 0.6 else noise(rng, depth - 1)] + [
        noise(rng, depth - 1) for _ in range(rng.randrange(5))
    ]


def mutated(rng: random.Random, text: str) -> str:
    "A text with a few characters or pieces changed"
    for _ in range(rng.randrange(4)):
        place, end = sorted(rng.randrange(len(text) + 1) for _ in range(2))
        piece = rng.choice(('', '"', '[', ']', ',', '0', 'c1', 't1', '"int"', text[place:end], '\ud800'))
        text = text[:place] + piece + text[min(place + rng.randrange(4), len(text)) :]
    return text


def fuzz_texts(seed: int, count: int):
    "Texts that are nearly messages"
    rng, peer = random.Random(seed), Peer('c', None)
    row = [1]
    values = (7, 'a', [row, row], {1: (2, {3})}, (('add', 'value', (), len),), ('E', 'm', 'E/ValueError', (), ()))
    honest = [peer.encode((value, ())) for value in values] + [encode_value(value) for value in values]
    for _ in range(count):
        yield json.dumps(noise(rng)) if rng.random() < 0.4 else mutated(rng, rng.choice(honest))


try:
    import pytest

    from lora_mbpp.evaluation.metrics import is_judged
except ImportError:
    pytest = None

if pytest:

    @pytest.fixture(params=['fork', 'wasm', pytest.param('process', marks=pytest.mark.slow)])
    def engine(request):
        "The engines, one after the other"
        if reason := why_not(request.param):
            pytest.skip(reason)
        return request.param

    def test_no_wrong_program_passes(engine):
        assert wrong_passes(engine) == {}

    def test_no_right_program_fails(engine):
        assert wrong_failures(engine) == {}

    def test_whatever_a_reply_is_it_has_a_verdict():
        """Fuzz: from the reply over the comparing to the line of a results file."""
        question, read = split_assert('assert add(1, 2) == [3]'), 0
        for text in fuzz_texts(0, 4000):
            for judged in (
                lambda: mismatch(question, understand('done ' + text)),  # noqa: B023  called at once
                lambda: final_verdict('failed ' + text, 3).message,  # noqa: B023
            ):
                try:
                    sentence = judged() or ''
                except (DecodeError, Raised):
                    continue
                read += 1
                assert json.loads(json_text({'message': tidy(sentence)}).encode())['message'] == tidy(sentence)
        assert 100 < read < 7000

    def test_whatever_a_message_is_the_tester_reads_it_or_refuses_it():
        """Fuzz: nothing that the candidate may say raises anything else, or changes what it was not given."""
        mine, read = [1, 2], 0
        for text in fuzz_texts(1, 4000):
            peer = Peer('t', None, guarded=True)
            peer.encode(([0],))
            try:
                peer.decode(text)
                read += 1
            except DecodeError:
                pass
            assert mine == [1, 2] and all(peer.shared[name] is not mine for name in peer.shared)
        assert read > 100

    @pytest.mark.parametrize(
        'last',
        [
            (5, 'E', 'm', 'l'),
            (-1, 'E', 'm', 'l'),
            (True, 'E', 'm', 'l'),
            (10**5000, 'E', 'm', 'l'),
            (0, 7, 'm', 'l'),
            (0, 'E', None, 'l'),
            (0, 'E', 'm'),
            ['E'],
            7,
        ],
    )
    def test_a_last_word_has_one_form(last):
        for word in ('failed', 'threw', 'broke', 'unsupported'):
            with pytest.raises(DecodeError):
                final_verdict(f'{word} {encode_value(last)}', 3)

    def test_a_program_cannot_leave_the_score():
        """What only its own objects make of a test is at that test; what no program can be judged by, at none."""
        found = verdicts_of('auto', BEYOND)
        own = {
            'two objects compared',
            'own order',
            'own membership',
            'operator with a number',
            'derived from the program',
        }
        assert {name for name, verdict in found.items() if verdict.failing_test is not None} == own
        assert all(is_judged(vars(found[name])) == (name in own) for name in found)

    def test_passed_needs_the_number_of_tests():
        for value in (True, 1.0, 2, None, '1'):
            assert final_verdict(f'passed {encode_value(value)}', 1).verdict == 'killed'
        assert final_verdict(f'passed {encode_value(1)}', 1).verdict == 'passed'

    @pytest.mark.parametrize('count', [400_001, 2_000_000])
    def test_a_great_many_parts_are_not_even_parsed(count, monkeypatch):
        monkeypatch.setattr(json, 'loads', lambda text: pytest.fail('parsed'))
        with pytest.raises(DecodeError, match='more than 400,000 parts'):
            decode_value('["graph","0",["list","0"' + ',["list"]' * count + ']]')

    def test_sharing_and_cycles_arrive():
        row = [1]
        loop = {'rows': [row, row], 'set': {1}}
        loop['self'] = loop
        came = decode_value(encode_value(loop))
        assert came['self'] is came and came['rows'][0] is came['rows'][1] and came['set'] == {1}

    def test_a_peer_forgets_what_nobody_holds():
        ours, theirs = Peer('t', None), Peer('c', None)
        for n in range(50):
            theirs.decode(ours.encode(([n],)))
            ours.decode(theirs.encode(({n},)))
        assert len(ours.shared) < 5 and len(theirs.shared) < 5

    @pytest.mark.parametrize(
        'source, words',
        [
            ('import os\nos.remove("x")', 'files'),
            ('from pathlib import Path\nPath("a").write_text("b")', 'files'),
            ('from concurrent.futures import ThreadPoolExecutor as T\nT()', 'threads'),
            ('import subprocess as s\ns.run([])', 'processes'),
            ('x = f()\nexec(x)', 'executes text'),
            ('code = "f(2)"\nassert eval(code) == 4', ''),
            ('import threading\nassert f(1) == 2', ''),
            ('open("a")', ''),
            ('assert f(lambda a: a.remove(1)) is None', ''),
            ('exec("import weakref\\nweakref.ref(f)")', 'references'),
        ],
    )
    def test_what_cannot_be_judged_is_seen_before(source, words):
        found = why_unsupported([source])
        assert words in found and bool(found) == bool(words)

    def test_a_failing_job_of_ours_ends_no_other(monkeypatch):
        def fails(submission):
            raise SystemError('AST constructor recursion depth mismatch')

        monkeypatch.setattr(
            'lora_mbpp.sandbox.judge.requests_of', lambda s, q: fails(s) if 'bad' in s.code else REAL(s, q)
        )
        jobs = [dict(code=code, tests=['assert x == 1']) for code in ('x = 1', 'x = 1  # bad', 'x = 1')]
        found = dict(judge_many(jobs))
        assert [found[n].verdict for n in range(3)] == ['passed', 'harness_error', 'passed']
        assert found[1].message.startswith('SystemError')

    from lora_mbpp.sandbox.judge import requests_of as REAL


if __name__ == '__main__':
    failed = False
    for name in sys.argv[1:] or ENGINES:
        if reason := why_not(name):
            print(reason)
            continue
        wrong = {**wrong_passes(name), **wrong_failures(name)}
        print(f'{name}: {len(HOSTILE)} wrong, {len(HONEST)} + {len(BEYOND)} right programs')
        for program, verdict in wrong.items():
            print('UNEXPECTED', program, verdict)
        failed |= bool(wrong)
    sys.exit(failed)
