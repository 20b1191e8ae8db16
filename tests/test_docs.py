"""README, guides and the site: nothing is missing from its contents, links lead somewhere, commands are understood."""

import json
import re
import shlex
from pathlib import Path

import pytest
from conftest import NOTEBOOKS, ROOT

from lora_mbpp.cli import parsed_arguments

DOCS = ROOT / 'docs'
PAGES = sorted(path for path in DOCS.rglob('*.md') if '_site' not in str(path) and path.name != 'contents.md')
PROSE = [ROOT / 'README.md', ROOT / 'CHANGELOG.md', *PAGES]


def name_of(path: Path) -> str:
    """A file's name in a table of contents."""
    return '/' + path.relative_to(ROOT).with_suffix('').as_posix()


DOCUMENTS = {name_of(path) for path in (*NOTEBOOKS, *PAGES)}


def entries(text: str) -> set[str]:
    """Documents that the toctrees of a page name, patterns resolved."""
    lines = [
        line for tree in re.findall(r'```\{toctree\}(.*?)```', text, re.S) for line in tree.split() if line[0] == '/'
    ]
    matching = {n for line in lines if '*' in line for n in DOCUMENTS if re.fullmatch(line.replace('*', '[^/]*'), n)}
    return {line for line in lines if '*' not in line} | matching


def test_contents_name_every_notebook_and_page():
    contents = entries((DOCS / 'contents.md').read_text(encoding='utf-8'))
    chapters = set().union(*(entries(page.read_text(encoding='utf-8')) for page in PAGES))
    assert DOCUMENTS - {'/nbs/index'} <= contents | chapters
    there = {name for name in contents | chapters if any((ROOT / name[1:]).parent.glob(Path(name).name + '.*'))}
    assert there == contents | chapters, 'contents that are not there'


def link_targets(text: str) -> list[str]:
    """Targets of links and figures within the repository, code left out."""
    prose = re.sub(r'```.*?```|`[^`\n]*`', '', text, flags=re.S)
    return [t for t in re.findall(r'\]\(([^)\s]+)\)', prose) if not re.match(r'\w+:', t)]


def anchors(text: str) -> set[str]:
    """Anchors of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r'^#+ (.*)$', re.sub(r'```.*?```', '', text, flags=re.S), re.M)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).strip().replace(' ', '-') for heading in headings}


@pytest.mark.parametrize('page', PROSE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for target in link_targets(page.read_text(encoding='utf-8')):
        path, _, anchor = target.partition('#')
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f'{page.name}: {target}'
        if anchor and file.suffix == '.md':
            assert anchor in anchors(file.read_text(encoding='utf-8')), f'{page.name}: {target}'


def commands(text: str) -> list[str]:
    """Every `lora-mbpp` command of the fenced blocks, on one line."""
    blocks = re.findall(r'```(?:bash|powershell)\n(.*?)```', text, re.S)
    lines = [line.split(' #')[0] for block in blocks for line in re.sub(r'\\\n\s*', '', block).splitlines()]
    return [found.strip() for line in lines for found in re.findall(r'(?<!pip install )\blora-mbpp ([^;&|]+)', line)]


COMMANDS = [(page.name, command) for page in PROSE for command in commands(page.read_text(encoding='utf-8'))]


@pytest.mark.parametrize('page, command', COMMANDS)
def test_commands_are_understood(page, command):
    assert parsed_arguments(shlex.split(command)).command == command.split()[0]


def test_commands_are_found_in_blocks():
    text = 'x `lora-mbpp no`\n```bash\nfor r in 1 2; do lora-mbpp eval --rank $r \\\n  --tag a; done  # so\n```\n'
    assert commands(text) == ['eval --rank $r --tag a']
    assert len(COMMANDS) > 30


def test_map_of_chapters_is_complete():
    cells = json.loads((ROOT / 'nbs' / 'index.ipynb').read_text(encoding='utf-8'))['cells']
    prose = [''.join(cell['source']) for cell in cells if cell['cell_type'] == 'markdown']
    maps = [o['data']['text/markdown'] for cell in cells for o in cell.get('outputs', []) if 'data' in o]
    targets = {t for text in (*prose, *map(''.join, maps)) for t in link_targets(text)}
    chapters = {path.relative_to(ROOT / 'nbs').as_posix() for path in NOTEBOOKS} - {'index.ipynb'}
    assert not chapters - targets, 'execute nbs/index.ipynb again, its map lacks chapters'
    assert {t for t in targets if not t.startswith('../')} == chapters, 'and it has some that are gone'
