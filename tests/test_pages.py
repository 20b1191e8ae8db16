"""Pages: what comes first, nothing from a network, nothing that a model wrote runs, filters see what they look at."""

import io
import json
import os
import re
import sys
import time
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import nbformat
import pytest
from beside import started, until
from conftest import ROOT
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from lora_mbpp.analysis import draw_figures, result_tables
from lora_mbpp.core.config import resolve
from lora_mbpp.core.environment import progress as bar_of
from lora_mbpp.core.files import write_json, write_jsonl
from lora_mbpp.evaluation.comparison import tasks_id
from lora_mbpp.experiments.index_page import rebuild, write_index
from lora_mbpp.experiments.live_progress import live_progress
from lora_mbpp.experiments.progress_page import Progress, time_left
from lora_mbpp.experiments.report_page import as_html, results_begin
from lora_mbpp.experiments.reports import ReportStep
from lora_mbpp.reporting.comparisons import comparison_table
from lora_mbpp.reporting.figures_comparison import VERDICT_MARKERS
from lora_mbpp.reporting.figures_tasks import class_colours
from lora_mbpp.reporting.pages import PAGE_LIMIT, verdict_style
from lora_mbpp.reporting.plain_answer import plain_answer
from lora_mbpp.reporting.plotting import PROGRAM_COLOURS, VERDICT_COLOURS, rank_styles
from lora_mbpp.reporting.task_atlas import atlas_page, measured_tasks, solvers
from lora_mbpp.tasks.loading import starter_tasks
from lora_mbpp.testing import simulated_study

HOSTILE = '</script></pre><script>alert(1)</script><img src="http://x.org/a.png" onerror="alert(2)">&amp; `${x}`'
FETCHING = {
    ('img', 'src'),
    ('script', 'src'),
    ('link', 'href'),
    ('iframe', 'src'),
    ('source', 'src'),
    ('object', 'data'),
}
PARTS = 'study', 'runs', 'tasks', 'reports'
VOID = {'meta', 'img', 'br', 'hr', 'input', 'link', 'col', 'wbr'}


class PageReader(HTMLParser):
    """Tags with attributes in order, what a browser would fetch, handlers of events, text outside of scripts."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.fetched, self.handlers, self.open, self.texts = [], [], [], [], []
        self.feed(page)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.fetched += [v for name, v in attrs if (tag, name) in FETCHING and not v.startswith('data:')]
        self.handlers += [name for name, _ in attrs if name.startswith('on')]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        assert self.open and self.open[-1] == tag, (tag, self.open[-4:])
        self.open.pop()

    def handle_data(self, data):
        if not {'script', 'style'} & {*self.open}:
            self.texts.append(data)

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self):
        return ''.join(self.texts)


def check(page, scripts):
    """A page that fetches nothing, runs nothing but its own scripts, and is small enough."""
    reader = PageReader(page)
    assert len(page.encode()) < PAGE_LIMIT
    assert not reader.fetched and not reader.handlers and len(reader.named('script')) == scripts
    assert not re.search(r'url\(\s*["\']?http|@import', page)
    assert 'width=device-width' in page and 'prefers-color-scheme: dark' in page
    return reader


def study(folder, hostile=False, **options):
    """A simulated study of the starter set in a folder of artifacts; returns its runs."""
    tasks = [task for task in starter_tasks() if task['split'] == 'test'] if options.pop('asked', False) else []
    runs = simulated_study({8: (0.35, 0.85), 32: (0.36, 0.848)}, n=len(tasks) or 30, **options)
    for run in runs:
        name = run['run_info']['run'].replace('made-up', 'starter')
        run['run_info'] |= {'run': name, 'test_run': False}
        for record, task in zip(run['eval_info']['per_task'], tasks):
            record['task_id'] = task['task_id']
        if tasks:
            run['eval_info']['settings']['tasks'] = tasks_id(tasks)
        if hostile:
            for record in run['eval_info']['per_task']:
                record |= {'code': f'def f():\n    return {name!r}\n{HOSTILE}', 'message': HOSTILE}
        write_json(folder / 'metrics' / f'{name}.json', run)
        write_jsonl(folder / 'metrics' / f'{name}.results.jsonl', run['eval_info']['per_task'])
    return runs, {task['task_id']: task for task in tasks}


def report(*outputs, before=()):
    """An executed notebook: a chapter with a definition and an example, then the run."""
    cells = [
        new_markdown_cell(
            '# Training\nThe scale is $\\frac{\\alpha}{r}$; see [Data](00_data.ipynb), [all](tasks.html).'
        ),
        new_code_cell('#| export\ndef train():\n    return 1', metadata={}),
        new_code_cell('example()', outputs=[new_output('stream', name='stdout', text='of the example\n')]),
        *before,
        new_markdown_cell('## This run'),
        new_code_cell('train(cfg)', outputs=list(outputs)),
    ]
    nb = new_notebook(cells=cells)
    nb.metadata['papermill'] = {'parameters': {'preset': 'starter', 'rank': 8, 'artifacts_dir': 'nowhere at all'}}
    return nb


def test_a_report_begins_with_what_happened(tmp_path):
    study(tmp_path)
    nb = report(new_output('stream', name='stdout', text='the outcome\n'))
    nb.metadata['papermill']['parameters'] |= {'artifacts_dir': str(tmp_path), 'seed': 0}
    page = as_html(nb, '02_train_r8_s0')
    reader = check(page, scripts=1)
    order = [
        'Training at r=8, seed 0',
        'fell from 1.',
        'trained parameters',
        '<figure>',
        'This run',
        'the outcome',
        'How it works: ',
    ]
    places = [page.index(words, page.index('<h1')) for words in order]
    assert places == sorted(places)
    assert [a['href'] for a in reader.named('a')][:2] == ['index.html', 'tasks.html']
    assert '<details class="contents">' in page and 'href="#this-run"' in page
    assert 'lora-mbpp train --preset starter --rank 8' in reader.text


def test_code_is_folded_and_machinery_is_hidden_until_asked_for():
    page = as_html(report(), '02_train_r8_s0')
    assert page.count('class="cell machinery"') == 2 and 'id="everything"' in page
    assert 'body:not(.everything) .machinery' in page
    assert page.count('<details class="code">') == 3 and '<details class="code" open' not in page
    reader = PageReader(page)
    assert 'There is no summary: ' in reader.text and 'nowhere at all' in reader.text


def test_mathematics_and_links_work_from_a_folder():
    reader = PageReader(as_html(report(), '02_train_r8_s0'))
    assert reader.named('math') and 'MathJax' not in reader.text and '$' not in reader.text
    links = {a['href'] for a in reader.named('a')}
    assert 'tasks.html' in links and not any('00_data' in link for link in links) and 'Data' in reader.text


@pytest.mark.parametrize(
    ('name', 'text', 'left'),
    [
        ('stdout', 'generating: 100%|####| 2/2 [00:00<00:00, 3.4answer/s]\n2 of 2\n', '2 of 2'),
        ('stdout', '\n  0%|          | 0/2 [00:00<?, ?row/s]\n', ''),
        ('stdout', 'all 100% of | pipes | stay\n', 'all 100% of | pipes | stay'),
        ('stdout', 'r=8 gains 3.5 % of | tasks\n', 'r=8 gains 3.5 % of | tasks'),
        ('stderr', 'UserWarning: careful\n', None),
    ],
)
def test_no_bars_and_no_warnings_in_the_text(name, text, left):
    page = as_html(report(new_output('stream', name=name, text=text)), '02_train_r8_s0')
    if left is None:
        assert 'output_text noise' in page and 'body:not(.everything) .noise' in page
    else:
        body = page[page.index('This run</h2>') : page.index('How it works: the chapter')]
        assert '%|' not in body and left in body


def test_what_a_cell_displays_cannot_act():
    nb = report(
        new_output('display_data', {'text/html': HOSTILE + '<table onclick="x()"><tr><td>1</td></tr></table>'}),
        new_output('display_data', {'application/javascript': 'alert(3)', 'text/plain': 'js'}),
        new_output('display_data', {'text/markdown': '<script>alert(4)</script>'}),
        new_output('stream', name='stdout', text=HOSTILE),
    )
    reader = check(as_html(nb, '02_train_r8_s0'), scripts=1)
    assert reader.named('table') and not reader.named('img')


def test_a_failed_report_says_so_first():
    failed = new_output('error', ename='UserError', evalue='no <room> left', traceback=['...'])
    reader = PageReader(as_html(report(failed), '02_train_r8_s0'))
    assert reader.text.index('Not finished. UserError: no <room> left') < reader.text.rindex('This run')


def test_a_large_report_is_shortened_and_says_where_the_whole_is():
    page = as_html(report(new_output('stream', name='stdout', text='x' * 3_000_000)), '02_train_r8_s0')
    assert len(page) < PAGE_LIMIT and 'it is in 02_train_r8_s0.ipynb' in page


@pytest.mark.parametrize('stage', ['00_data', '01_baseline', '02_train', '03_eval', '04_analysis'])
def test_stages_have_a_section_of_their_own_results(stage):
    """What stands before it is the chapter; simulated studies of a section of results are tagged."""
    nb = nbformat.read(ROOT / 'nbs' / f'{stage}.ipynb', as_version=4)
    begin = results_begin(nb.cells)
    assert 0 < begin < len(nb.cells) - 2
    assert not any('simulated_study' in cell.source and 'in_test()' not in cell.source for cell in nb.cells[begin:])
    shown = [cell for cell in nb.cells if 'simulated_study(' in cell.source and 'in_test()' not in cell.source]
    assert all('demonstration' in cell.metadata.get('tags', []) for cell in shown)


def test_the_atlas_holds_what_was_asked_and_what_was_answered(tmp_path):
    runs, tasks = study(tmp_path, asked=True)
    page = atlas_page(tmp_path, runs, tasks)
    reader = check(page, scripts=1)
    listed = [a for a in reader.named('details') if a.get('class') == 'task']
    assert len(listed) == len(tasks) and all(
        {'data-gained', 'data-lost', 'data-differ', 'data-verdicts'} <= a.keys() for a in listed
    )
    solved = solvers(runs)
    for attributes, task_id in ((a, int(a['id'].removeprefix('task-'))) for a in listed):
        gained = [rank for rank in ('r=8', 'r=32') if task_id in solved[rank] and task_id not in solved['base']]
        assert attributes['data-gained'].split() == gained
        assert {*attributes['data-verdicts'].split()} <= {'passed', 'wrong_answer'}
    first = next(iter(tasks.values()))
    assert (
        first['text'] in reader.text and first['code'] in reader.text and all(t in reader.text for t in first['tests'])
    )
    assert reader.named('ins') and reader.named('del')
    assert [a['href'] for a in reader.named('a')][0] == 'index.html'
    options = {a['value'] for a in reader.named('option')}
    assert {'differ', 'gained', 'lost', 'gained:r=8', 'lost:r=32', 'passed', 'wrong_answer'} <= options


def test_nothing_that_a_model_wrote_runs_in_the_atlas(tmp_path):
    runs, _ = study(tmp_path, hostile=True)
    reader = check(atlas_page(tmp_path, runs), scripts=1)
    assert not reader.named('img') and 'alert(1)' in reader.text


def test_a_large_atlas_is_cut_and_says_so(tmp_path):
    runs, _ = study(tmp_path)
    for run in runs:
        rows = run['eval_info']['per_task']
        long = [
            {**row, 'task_id': i, 'code': ''.join(f'x = {j}\n' for j in range(60)) + '<' * 6000}
            for i, row in enumerate(rows * 20)
        ]
        run['eval_info']['per_task'] = long
        write_jsonl(tmp_path / 'metrics' / f'{run["run_info"]["run"]}.results.jsonl', long)
    page = atlas_page(tmp_path, runs)
    assert (
        len(page.encode()) < PAGE_LIMIT and 'to keep this page small; all are in' in page and 'cut here: 6410' in page
    )
    assert page.count('class="task"') == 600


def test_questions_are_shown_only_when_they_are_those_that_were_measured(tmp_path):
    runs, tasks = study(tmp_path / 'artifacts', asked=True)
    cfg = resolve(data_dir=str(tmp_path / 'data'))
    assert measured_tasks(cfg, runs)[0] == {} and 'not at hand' in measured_tasks(cfg, runs)[1]
    rows = [json.loads(json.dumps(task)) for task in tasks.values()]
    write_jsonl(tmp_path / 'data' / 'mbpp_test.jsonl', rows)
    assert measured_tasks(cfg, runs)[0].keys() == tasks.keys() and measured_tasks(cfg, runs)[1] == ''
    write_jsonl(tmp_path / 'data' / 'mbpp_test.jsonl', [{**row, 'tests': ['assert True']} for row in rows])
    assert measured_tasks(cfg, runs)[0] == {} and 'not the ones that were measured' in measured_tasks(cfg, runs)[1]


def test_the_index_answers_first_and_leads_on(tmp_path, capsys):
    study(tmp_path / 'artifacts', hostile=True)
    reports = tmp_path / 'reports'
    nb = report()
    nb.metadata['papermill']['parameters'] |= {'artifacts_dir': str(tmp_path / 'artifacts'), 'seed': 0}
    reports.mkdir()
    nbformat.write(nb, reports / '02_train_r8_s0.ipynb')
    (tmp_path / 'artifacts' / 'checkpoints' / 'starter-r8-s0').mkdir(parents=True)
    steps = [ReportStep(name, '', {}) for name in ('02_train_r8_s0', '03_eval_r8_s0')]
    cfg = resolve(artifacts_dir=str(tmp_path / 'artifacts'), data_dir=str(tmp_path / 'data'))
    page, refusal = write_index(cfg, steps, {'03_eval_r8_s0': 'needs <b>more</b> memory'}, reports)
    assert refusal is None
    reader = check(page.read_text(), scripts=1)
    order = [
        'class="lead"',
        'class="badges"',
        '<figure>',
        '<table',
        '&lt;b&gt;more',
        *(f'id="{place}"' for place in PARTS),
    ]
    main = page.read_text().split('<main>')[1]
    places = [main.index(words) for words in order]
    assert places == sorted(places)
    badges = [a['class'] for a in reader.named('span') if a.get('class', '').startswith('badge ')]
    assert {'badge different', 'badge inconclusive'} & {*badges} and len(reader.named('img')) == 1
    links = {a['href'] for a in reader.named('a')}
    wanted = {'02_train_r8_s0.html', '02_train_r8_s0.ipynb', '../artifacts/checkpoints/starter-r8-s0', 'tasks.html'}
    assert (
        wanted | {'../artifacts/metrics/starter-r8-s0.json', '../artifacts/metrics/starter-r8-s0.results.jsonl'}
        <= links
    )
    assert any(link.startswith('tasks.html#change=gained') for link in links) and reader.named('polyline')
    assert (reports / 'tasks.html').exists() and '03_eval_r8_s0.html' not in links
    assert all(
        (reports / link.split('#')[0]).exists()
        for link in links
        if not link.startswith('#') and link != 'index.html' and '02_train' not in link
    )


def test_pages_are_made_anew_from_reports(tmp_path, capsys):
    study(tmp_path / 'artifacts')
    (tmp_path / 'reports').mkdir()
    nbformat.write(report(), tmp_path / 'reports' / '02_train_r8_s0.ipynb')
    index, wrong = rebuild(resolve(artifacts_dir=str(tmp_path / 'artifacts')), tmp_path / 'reports')
    assert not wrong and {p.name for p in index.parent.glob('*.html')} == {
        'index.html',
        'tasks.html',
        '02_train_r8_s0.html',
    }
    assert len(capsys.readouterr().out.splitlines()) < 20


CASES = {  # what each endpoint comes to between base and r=8, r=32, and between the ranks: words that must stand there
    ('different', 0.1, 'different', 0.1): ('Training helped: ', 'more tasks are solved by r=32 than by r=8'),
    ('different', -0.1, 'different', -0.1): ('Training did harm', 'more tasks are solved by r=8 than by r=32'),
    ('inconclusive', 0.1, 'inconclusive', 0.1): ('is open', 'a small one cannot be excluded'),
    ('equivalent', 0.01, 'negligible', 0.01): ('changed nothing that matters', 'The rank hardly matters'),
}


@pytest.mark.parametrize('case', CASES)
def test_the_plain_answer_says_what_the_verdicts_say(case):
    runs = simulated_study({8: (0.35, 0.85), 32: (0.36, 0.848)})
    table = comparison_table(runs)
    base, ranks = table.family == 'against the base', table.family == 'between ranks'
    for chosen, verdict, difference in ((base, *case[:2]), (ranks, *case[2:])):
        table.loc[chosen, 'verdict'] = verdict
        table.loc[chosen & (table.endpoint == 'pass@1'), 'difference'] = difference
        table.loc[chosen & (table.endpoint == 'NLL'), 'difference'] = -difference
    said = plain_answer(runs, table)
    assert len(said) == 2 and all(words in sentence for words, sentence in zip(CASES[case], said)), said
    assert all(len(sentence) < 200 for sentence in said)


def test_what_all_ranks_do_together_is_not_called_no_difference(monkeypatch):
    """No pair of ranks is told apart, but solved tasks rise with the rank."""
    runs = simulated_study({2: (0.35, 0.85), 8: (0.35, 0.85), 32: (0.35, 0.85)})
    table = comparison_table(runs).assign(verdict='inconclusive')
    for low, words in (
        (0.0007, 'no rank stands out from another, though they rise by 0.22 points'),
        (-0.001, 'No diff'),
    ):
        trend = {'endpoint': 'pass@1', 'slope': 0.0022, 'low': low, 'high': 0.0038, 'p': 0.006}
        monkeypatch.setattr('lora_mbpp.reporting.plain_answer.rank_trend', lambda *args, trend=trend: trend)
        assert words in plain_answer(runs, table)[1]


def test_a_sweep_in_progress_renews_itself(tmp_path):
    progress = Progress(tmp_path, side_by_side=2)
    for name in ('00_data', '02_train_r8_s0', '04_analysis'):
        progress.tell(name, 'waiting')
    progress.tell('00_data', 'running')
    progress.tell('00_data', 'done')
    progress.tell('02_train_r8_s0', 'running')
    reader = check((tmp_path / 'index.html').read_text(), scripts=0)
    assert {'http-equiv': 'refresh', 'content': '5'} in reader.named('meta')
    assert '1 of 3 steps are done' in reader.text and 'Running: 02_train_r8_s0.' in reader.text
    assert not reader.named('a')  # neither the answer nor the tasks are there yet
    progress.tell('02_train_r8_s0', HOSTILE)
    progress.stopped('KeyboardInterrupt')
    reader = check((tmp_path / 'index.html').read_text(), scripts=0)
    assert 'has stopped' in reader.text and not any('http-equiv' in a for a in reader.named('meta'))


class Terminal(io.StringIO):
    def isatty(self):
        return True


def counting(total):
    """In a process of its own: a bar that stands still until the process is killed."""
    with bar_of(total, 'training') as bar:
        bar.update(2)
        bar.refresh()
        time.sleep(600)


@pytest.mark.skipif(os.name == 'nt', reason='the lines of a Windows console are left alone')
def test_a_sweep_shows_how_far_its_processes_are(tmp_path, monkeypatch):
    """In the terminal and on the page; a killed process is at nothing any more."""
    monkeypatch.setattr(sys, 'stdout', terminal := Terminal())
    progress = Progress(tmp_path / 'reports')
    progress.tell('02_train_r8_s0', 'running')

    def told(words):
        return until(lambda: words in (tmp_path / 'reports' / 'index.html').read_text())

    with live_progress(progress.going):
        print('[1/3] 02_train_r8_s0: ', end='')
        process = started(tmp_path / 'said', counting, 1500)
        assert told('Running: 02_train_r8_s0 (training 2 of 1,500')
        process.kill()
        process.join()
        assert told('Running: 02_train_r8_s0.')
        print('failed')
    assert '\x1b7\x1b[Ktraining 2 of 1,500' in terminal.getvalue()
    assert terminal.getvalue().rstrip('\n').endswith('\x1b7\x1b[K\x1b8failed\n\x1b7\x1b[K\x1b8')


def test_time_left_knows_only_kinds_that_have_ended():
    assert time_left(['02_a', '02_b', '03_a'], {'02_c': 10, '02_d': 20}, 2) == (15, ['03_a'])


def test_a_refused_study_leaves_no_page_of_tasks(tmp_path, capsys):
    (tmp_path / 'tasks.html').write_text('of another study')
    page, refusal = write_index(resolve(artifacts_dir=str(tmp_path)), [], {}, tmp_path)
    reader = check(page.read_text(), scripts=1)
    assert refusal and refusal in reader.text and not (tmp_path / 'tasks.html').exists()
    assert {a['href'] for a in reader.named('a')} == {'#reports'}


def test_no_change_is_not_called_luck():
    runs = simulated_study({8: (0.2, 1.0)})
    for record, other in zip(runs[1]['eval_info']['per_task'], runs[0]['eval_info']['per_task']):
        record['verdict'] = other['verdict']
    runs[1]['eval_info']['pass_at_1'] = runs[0]['eval_info']['pass_at_1']
    first, second = plain_answer(runs, comparison_table(runs))
    assert (
        '10 of 60 tasks are solved before and after it' in first and 'luck' not in first and 'Only one rank' in second
    )


def axes_of(figure):
    return [ax for ax in figure.axes if ax.has_data()]


@pytest.mark.parametrize('name', ['curves', 'cost', 'forest', 'pass_by_rank', 'first_steps', 'forgetting'])
def test_axes_do_not_make_a_mountain_of_a_molehill(name):
    """Ranks that hardly differ: an axis in nats spans 0.05, one in points 10."""
    runs = simulated_study({8: (0.35, 0.5812), 32: (0.35, 0.5806)}, n=400, luck=0.0)
    figure = draw_figures({name: result_tables(runs, None, comparison_table(runs))[name]})[name]
    for ax in axes_of(figure):
        for words, (low, high) in ((ax.get_xlabel(), ax.get_xlim()), (ax.get_ylabel(), ax.get_ylim())):
            least = 10 if 'points' in words or words.endswith('(%)') else 0.05 if 'nats' in words else 0
            assert abs(high - low) > least - 1e-9, (words, low, high)
    plt.close('all')


def test_a_title_calls_no_noise_a_finding():
    runs = simulated_study({8: (0.35, 0.5812), 32: (0.35, 0.5806)}, n=400, luck=0.0)
    tables = result_tables(runs, None, comparison_table(runs))
    titles = {name: figure.get_suptitle() for name, figure in draw_figures(tables).items()}
    plt.close('all')
    assert 'minutes' not in titles['cost'] and 'within 0.010 nats' in titles['cost'].replace('\n', ' ')
    assert 'pass@1 of 35.0 %,' in titles['pass_by_rank'].replace('\n', ' ')  # a tie is one number
    assert not any(re.search(r'passes most|best rank|p = 0\.000|\bp 0\.000', title) for title in titles.values())


def test_lines_of_ranks_in_one_place_are_all_seen():
    styles = rank_styles([0, 8, 32, 64])
    widths = [styles[rank]['linewidth'] for rank in (8, 32, 64)]
    assert widths == sorted(widths, reverse=True) and widths[0] > widths[-1] + 2
    assert len({styles[rank]['color'] for rank in styles}) == len(styles)


def test_a_verdict_has_one_colour():
    """That of its mark on pages is that of the figure of all tasks."""
    style = verdict_style()
    assert class_colours(['passed', 'timeout']) == {n: PROGRAM_COLOURS[n][1] for n in ('passed', 'timeout')}
    assert all(f'.mark.{name}{{background:{look[1]}' in style for name, look in PROGRAM_COLOURS.items())
    assert all(VERDICT_MARKERS[name]['mfc'] == look[0] for name, look in VERDICT_COLOURS.items())
