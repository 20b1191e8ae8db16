"""The shape of the house: which way imports go, where a name is defined, how much one cell holds.

What is not in order yet stands in a list below, and each list may only shrink: a test warns of entries that are no
longer needed."""

import ast
import json
import re
import subprocess
import sys
import warnings
from collections import Counter, defaultdict
from graphlib import CycleError, TopologicalSorter

import pytest
from conftest import NOTEBOOKS, ROOT

# A module imports from its own package and from earlier lines, never from its neighbour in a line or a later one.
ORDER = (
    ('core',),
    ('sandbox', 'models'),
    ('tasks',),
    ('generation',),
    ('evaluation', 'training'),
    ('data', 'baseline', 'train', 'evaluate'),
    ('reporting',),
    ('analysis',),
    ('experiments',),
    ('cli',),
)
STAGES = ORDER[5]  # these do import each other

# imports that run backwards: 'importing module -> imported module', without the leading lora_mbpp
BACKWARD_IMPORTS: set[str] = set()

# public names that two modules define
SHARED_NAMES: set[str] = set()

# notebook: number of its export cells with more than two definitions
CROWDED_CELLS: dict[str, int] = {}

# links of a notebook's prose to files that are not there: 'notebook -> target'
BROKEN_LINKS: set[str] = set()


def modules() -> dict[str, ast.Module]:
    """Module name without the leading `lora_mbpp.` -> syntax tree."""
    package = ROOT / 'lora_mbpp'
    paths = [p for p in sorted(package.rglob('*.py')) if p.name not in ('__init__.py', '_modidx.py')]
    return {
        '.'.join(p.relative_to(package).with_suffix('').parts): ast.parse(p.read_text(encoding='utf-8')) for p in paths
    }


MODULES = modules()


def imported_by(name: str) -> set[str]:
    """Modules of the package that a module imports anywhere, inside functions too."""
    found = set()
    for node in ast.walk(MODULES[name]):
        if isinstance(node, ast.ImportFrom):
            above = ['lora_mbpp', *name.split('.')][: -node.level] if node.level else []
            source = '.'.join([*above, *([node.module] if node.module else [])])
            found |= {source, *(f'{source}.{alias.name}' for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {m.removeprefix('lora_mbpp.') for m in found if m.startswith('lora_mbpp.')} & MODULES.keys()


def place(name: str) -> int:
    """Line of a module's package in ORDER."""
    package = name.split('.')[0]
    return next(number for number, packages in enumerate(ORDER) if package in packages)


def is_forward(importer: str, imported: str) -> bool:
    """True for an import that goes the way of ORDER."""
    a, b = importer.split('.')[0], imported.split('.')[0]
    return a == b or place(imported) < place(importer) or (a in STAGES and b in STAGES)


def only_known(found, known, what: str) -> None:
    """Fail for what is not in the list, warn of entries that can go."""
    assert set(found) <= set(known), f'{what}: {sorted(set(found) - set(known))}'
    if gone := sorted(set(known) - set(found)):
        warnings.warn(f'{what}: no longer needed in the list: {gone}', stacklevel=2)


def test_imports_go_one_way():
    arrows = {(name, other) for name in MODULES if name != 'testing' for other in imported_by(name)}
    assert not [importer for importer, imported in arrows if imported == 'testing'], 'fixtures are for tests'
    backward = [f'{a} -> {b}' for a, b in arrows if not is_forward(a, b)]
    only_known(backward, BACKWARD_IMPORTS, 'imports that run backwards')


def test_imports_have_no_circle():
    known = [tuple(arrow.split(' -> ')) for arrow in BACKWARD_IMPORTS]
    graph = {name: {other for other in imported_by(name) if (name, other) not in known} for name in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f'modules import each other: {" <- ".join(error.args[1])}')


def public_names(tree: ast.Module) -> set[str]:
    """Names that a module defines at its top level, other than imports."""
    found = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
    return {name for name in found if not name.startswith('_')}


def test_a_name_is_defined_once():
    homes = defaultdict(list)
    for module, tree in MODULES.items():
        for name in public_names(tree):
            homes[name].append(module)
    twice = {name: where for name, where in homes.items() if len(where) > 1}
    assert twice.keys() <= SHARED_NAMES, {n: w for n, w in twice.items() if n not in SHARED_NAMES}
    only_known(twice, SHARED_NAMES, 'names of two modules')


def definitions(cell) -> list[str]:
    """Functions and classes at the top level of an export cell."""
    text = ''.join(cell['source'])
    if cell['cell_type'] != 'code' or not re.match(r'\s*#\s*\|\s*export', text):
        return []
    return [n.name for n in ast.parse(text).body if isinstance(n, (ast.FunctionDef, ast.ClassDef))]


def test_a_cell_defines_at_most_two_things():
    crowded = Counter()
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text(encoding='utf-8'))['cells']
        crowded[path.relative_to(ROOT / 'nbs').as_posix()] = sum(len(definitions(cell)) > 2 for cell in cells)
    more = {name: count for name, count in crowded.items() if count > CROWDED_CELLS.get(name, 0)}
    assert not more, f'export cells with more than two definitions: {more}'
    if fewer := {name: crowded[name] for name, count in CROWDED_CELLS.items() if crowded[name] < count}:
        warnings.warn(f'fewer crowded cells than the list says: {fewer}', stacklevel=1)


def test_each_module_has_its_notebook():
    """Notebooks are found in all folders, and no module is left of a notebook that is gone."""
    exported = {}
    for path in NOTEBOOKS:
        found = re.search(r'"#\|\s*default_exp ([\w.]+)', path.read_text(encoding='utf-8'))
        if found:
            exported[found.group(1)] = path
    assert exported.keys() == MODULES.keys()
    assert len(NOTEBOOKS) == len(MODULES) + 2  # index and demo export nothing


def broken_links(path) -> list[str]:
    """Links of a notebook's prose to files that are not there."""
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    prose = '\n'.join(''.join(cell['source']) for cell in cells if cell['cell_type'] == 'markdown')
    targets = re.findall(r'\]\(([^)#\s]+)', prose)
    return [t for t in targets if '://' not in t and not (path.parent / t).exists()]


def test_links_lead_somewhere():
    broken = {f'{path.relative_to(ROOT / "nbs").as_posix()} -> {t}' for path in NOTEBOOKS for t in broken_links(path)}
    only_known(broken, BROKEN_LINKS, 'links to files that are not there')


def test_cell_ids_are_unique():
    """Jupyter renames a cell whose id is taken, another time otherwise: each opening would change the file."""
    for path in NOTEBOOKS:
        ids = Counter(cell['id'] for cell in json.loads(path.read_text(encoding='utf-8'))['cells'])
        assert not [name for name, count in ids.items() if count > 1], path.name


@pytest.mark.parametrize('script', sorted((ROOT / 'benchmarks').glob('*.py')), ids=lambda script: script.stem)
def test_a_benchmark_says_what_it_takes(script):
    "A per cent sign in an option's help is a trace instead"
    said = subprocess.run([sys.executable, str(script), '--help'], capture_output=True, text=True, timeout=60)
    assert said.returncode == 0 and 'usage:' in said.stdout, said.stderr[-300:]
    doc = ast.get_docstring(ast.parse(script.read_text(encoding='utf-8'))) or ''
    promised = re.findall(r' (--[a-z][a-z-]+)', ' '.join(re.findall(r'python benchmarks/.*', doc)))
    assert set(promised) <= set(re.findall(r'--[a-z-]+', said.stdout.partition('options:')[2])), promised
