"""What can be tried here of what Windows does otherwise: encodings, names, renaming, POSIX alone."""

import ast
import os
import sys

import pytest
from conftest import ROOT

from lora_mbpp.core import files
from lora_mbpp.core.config import resolve
from lora_mbpp.core.errors import complaint
from lora_mbpp.core.files import new_folder, rename, write_json
from lora_mbpp.core.options import as_typed
from lora_mbpp.training.launch import launch

MODULES = {
    path.relative_to(ROOT / 'lora_mbpp').as_posix(): ast.parse(path.read_text(encoding='utf-8'))
    for path in sorted((ROOT / 'lora_mbpp').rglob('*.py'))
    if path.name != '_modidx.py'
}
# run on Linux alone, inside of its sandbox, before anything of the encodings is there
BARE = {'sandbox/isolation.py', 'sandbox/startup.py', 'sandbox/wasm_host.py', 'sandbox/worker.py'}
POSIX_MODULES = {'fcntl', 'resource', 'pwd', 'grp', 'termios', 'pty', 'tty', 'syslog', 'posix'}
POSIX_NAMES = {
    *(
        'os.fork',
        'os.killpg',
        'os.setsid',
        'os.getuid',
        'os.geteuid',
        'os.getgid',
        'os.mkfifo',
        'os.wait4',
        'os.WNOHANG',
    ),
    *('os.uname', 'os.sched_getaffinity', 'os.pidfd_open', 'os.nice', 'os.O_PATH', 'os.O_CLOEXEC', 'os.getpgid'),
    *('signal.SIGKILL', 'signal.SIGHUP', 'signal.SIGCHLD', 'signal.SIGALRM', 'signal.pthread_sigmask'),
    *('select.poll', 'select.POLLIN', 'select.epoll', 'time.clock_gettime'),
}


def calls(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def text_of(node) -> str:
    return ast.unparse(node)


def depends_on_the_locale(call: ast.Call) -> bool:
    """A text that is read or written, or a process that is listened to, in the encoding of the machine."""
    given, name = {word.arg for word in call.keywords}, text_of(call.func)
    if 'encoding' in given or None in given:
        return False
    if {'text', 'universal_newlines'} & given and name.startswith('subprocess.'):
        return True
    if name.endswith(('.read_text', '.write_text')):
        own = isinstance(call.func, ast.Attribute) and text_of(call.func.value).startswith("Path(f'/proc")
        return len(call.args) < (2 if name.endswith('.write_text') else 1) and not own
    if name in ('open', 'os.fdopen'):
        mode = call.args[1] if len(call.args) > 1 else next((w.value for w in call.keywords if w.arg == 'mode'), None)
        binary = isinstance(mode, ast.Constant) and 'b' in mode.value
        kernel = call.args and text_of(call.args[0]).startswith(("'/proc", "f'/proc"))
        return not binary and not kernel
    return False


@pytest.mark.parametrize('name', sorted(MODULES.keys() - BARE))
def test_no_text_depends_on_the_encoding_of_the_machine(name):
    found = [text_of(call) for call in calls(MODULES[name]) if depends_on_the_locale(call)]
    assert not found, f'{name}: name the encoding: {found}'


def at_import(tree):
    """Nodes that are evaluated when a module is imported: all but bodies of functions, and what is in a `try`."""
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Try):
            continue
        yield node
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            waiting += [
                *getattr(node, 'decorator_list', []),
                *filter(None, node.args.defaults),
                *filter(None, node.args.kw_defaults),
            ]
        else:
            waiting += list(ast.iter_child_nodes(node))


@pytest.mark.parametrize('name', sorted(MODULES.keys() - BARE))
def test_importing_a_module_needs_nothing_that_only_posix_has(name):
    for node in at_import(MODULES[name]):
        if isinstance(node, ast.Import):
            assert not POSIX_MODULES & {alias.name for alias in node.names}, f'{name}: {text_of(node)}'
        if isinstance(node, ast.ImportFrom):
            assert node.module not in POSIX_MODULES, f'{name}: {text_of(node)}'
        if isinstance(node, ast.Attribute):
            assert text_of(node) not in POSIX_NAMES, f'{name}: {text_of(node)} at import'


def test_these_tests_see_what_they_are_for():
    bad = ast.parse(
        'import fcntl\nclock = os.fork\nopen("a", "w")\nPath("a").read_text()\nsubprocess.run(x, text=True)'
    )
    assert sum(depends_on_the_locale(call) for call in calls(bad)) == 3
    assert any(isinstance(node, ast.Import) for node in at_import(bad))
    fine = ast.parse('open("a", "rb")\nopen("a", encoding="utf-8")\nPath("a").write_text(x, "utf-8")')
    assert not any(depends_on_the_locale(call) for call in calls(fine))


def in_the_way(monkeypatch, times):
    """Let renaming fail so often, as it does while somebody looks at a file."""
    real, left = os.replace, [times]

    def replace(source, target):
        if left[0]:
            left[0] -= 1
            raise PermissionError(13, 'Access is denied')
        return real(source, target)

    monkeypatch.setattr(files.os, 'replace', replace)


def test_renaming_waits_for_whoever_looks_at_the_file(tmp_path, monkeypatch):
    in_the_way(monkeypatch, 3)
    monkeypatch.setattr(sys, 'platform', 'win32')
    write_json(tmp_path / 'a.json', {'a': 1})
    in_the_way(monkeypatch, 3)
    with new_folder(tmp_path / 'folder') as folder:
        (folder / 'b').touch()
    assert (tmp_path / 'folder' / 'b').exists() and sorted(p.name for p in tmp_path.iterdir()) == ['a.json', 'folder']


@pytest.mark.parametrize('system, times', [('linux', 1), ('win32', 10**9)])
def test_renaming_does_not_wait_for_ever(tmp_path, monkeypatch, system, times):
    in_the_way(monkeypatch, times)
    monkeypatch.setattr(sys, 'platform', system)
    (tmp_path / 'a').touch()
    with pytest.raises(PermissionError):
        rename(tmp_path / 'a', tmp_path / 'b', patience=0.1)


@pytest.mark.parametrize('name', ['con', 'NUL', 'aux.r8', 'com1', 'lpt9', 'run.'])
@pytest.mark.parametrize('field', ['run', 'tag', 'group'])
def test_names_that_windows_does_not_take(name, field):
    assert 'Windows' in complaint(resolve, **{field: name})


@pytest.mark.parametrize('name', ['console', 'null', 'r8.con', 'com', 'com10', 'lr0.001'])
def test_names_that_it_takes(name):
    assert resolve(run=name).run == name


def test_commands_are_written_for_the_shell_at_hand(monkeypatch):
    words = ['ollama', 'create', 'r8', '-f', 'my folder/Modelfile']
    monkeypatch.setattr(sys, 'platform', 'win32')
    assert as_typed(words) == 'ollama create r8 -f "my folder/Modelfile"'
    monkeypatch.setattr(sys, 'platform', 'linux')
    assert as_typed(words) == "ollama create r8 -f 'my folder/Modelfile'"


def test_several_processes_on_windows_are_a_sentence(monkeypatch):
    monkeypatch.setattr(sys, 'platform', 'win32')
    assert 'WSL2' in complaint(launch, resolve('test', gpus=2))
