"""The documentation site: committed notebooks and the pages of docs/. Nothing is executed, nothing is fetched.

The source folder is the repository, so that links between chapters, pages and figures are the same here and in the
repository. `docs/build` builds the site."""

import ast
import json
import re
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

project = 'lora_mbpp'
author = 'the lora_mbpp authors'
copyright = '2026 onwards, the lora_mbpp authors'
root_doc = 'nbs/index'
include_patterns = ['nbs/**', 'docs/*.md', 'docs/rooms/*.md', 'CHANGELOG.md', 'benchmarks/LOG.md']
exclude_patterns = ['docs/contents.md', '**/out_*', '**/.ipynb_checkpoints']

extensions = ['myst_nb']
nb_execution_mode = 'off'
nb_merge_streams = True
nb_code_prompt_show = 'Show the code'
nb_code_prompt_hide = 'Hide the code'
nb_render_markdown_format = 'myst'  # links in a cell's Markdown output lead to chapters, too
myst_enable_extensions = ['dollarmath']
myst_heading_anchors = 4

html_theme = 'furo'
html_title = 'lora_mbpp'
html_static_path = ['_static']
html_css_files = ['site.css']
html_extra_path = ['redirect']  # the home page is nbs/index.html: /index.html leads there
html_copy_source = False
html_math_renderer = 'mathml'


def is_left_out(source: str) -> bool:
    """True for a code cell that only nbdev and papermill need."""
    return bool(re.match(r'\s*#\s*\|\s*(hide|default_exp)\b', source))


def only_imports(source: str) -> bool:
    """True for a code cell that does nothing but import."""
    try:
        body = ast.parse(source).body
    except SyntaxError:  # a cell with a magic
        return False
    return bool(body) and all(isinstance(node, (ast.Import, ast.ImportFrom)) for node in body)


def without_task_links(output: dict) -> dict:
    """An output whose links to the atlas of tasks are plain text: a sweep writes that page, and the site has none."""
    data = output.get('data', {})
    if 'text/html' not in data:
        return output
    page = re.sub(r'<a href="(?:tasks\.html)?#task-[^"]*">(.*?)</a>', r'\1', ''.join(data['text/html']))
    return {**output, 'data': {**data, 'text/html': page}}


def shown_cell(cell: dict) -> dict:
    """A cell as the site shows it: without directives of nbdev, imports folded, links only to what is there."""
    if cell['cell_type'] != 'code':
        return cell
    cell = {**cell, 'outputs': [without_task_links(output) for output in cell.get('outputs', [])]}
    source = re.sub(r'^\s*#\s*\|.*\n?', '', ''.join(cell['source']), flags=re.M)
    tags = [*cell['metadata'].get('tags', []), *(['hide-input'] if only_imports(source) else [])]
    return {**cell, 'source': source, 'metadata': {**cell['metadata'], 'tags': tags}}


def prepare_notebook(app, docname: str, source: list[str]) -> None:
    """Change a notebook's text as it is read; the home page gets the table of contents."""
    if Path(app.env.doc2path(docname)).suffix != '.ipynb':
        return
    notebook = json.loads(source[0])
    cells = [c for c in notebook['cells'] if c['cell_type'] != 'code' or not is_left_out(''.join(c['source']))]
    notebook['cells'] = [shown_cell(cell) for cell in cells]
    if docname == root_doc:
        contents = (Path(app.confdir) / 'contents.md').read_text(encoding='utf-8')
        notebook['cells'].append({'cell_type': 'markdown', 'id': 'contents', 'metadata': {}, 'source': contents})
    source[0] = json.dumps(notebook)


def write_mathml(translator, node) -> None:
    """A formula as MathML, which browsers show without a script or a network."""
    is_block = isinstance(node, nodes.math_block)
    formula = tex2mathml(node.astext(), as_block=is_block)
    translator.body.append(f'<div class="formula">{formula}</div>' if is_block else formula)
    raise nodes.SkipNode


def setup(app) -> dict:
    """Connect the two to Sphinx."""
    app.connect('source-read', prepare_notebook)
    app.add_html_math_renderer('mathml', inline_renderers=(write_mathml, None), block_renderers=(write_mathml, None))
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
