"""Real things for the placeholders of hostile.py: an empty folder, a secret file, a port; and who touched them."""

import secrets
import shutil
import socket
import tempfile
from pathlib import Path


class Trap:
    "One program with a folder, a secret file and a port of its own choosing nearby"

    def __init__(self, folder: Path, port: int, program: str, tests: list):
        self.loot, self.secret = folder / 'loot', folder / 'secret.txt'
        self.word = f'word{secrets.token_hex(8)}'
        self.loot.mkdir(parents=True)
        self.secret.write_text(self.word)
        self.stamp = self.secret.stat()
        self.places = {'@LOOT@': str(self.loot), '@SECRET@': str(self.secret), '@PORT@': str(port)}
        self.program, self.tests = self.filled(program), [self.filled(test) for test in tests]

    def filled(self, text: str) -> str:
        "A text with real things in the places of the placeholders"
        for placeholder, thing in self.places.items():
            text = text.replace(placeholder, thing)
        return text

    def touched(self) -> list:
        "What came, went or changed on the disk"
        found = [f'left {path.name}' for path in self.loot.iterdir()] if self.loot.is_dir() else ['removed its folder']
        if not self.secret.is_file():
            return found + ['removed the secret']
        now, keys = self.secret.stat(), ('st_mode', 'st_mtime_ns', 'st_nlink', 'st_ino')
        if self.secret.read_text() != self.word:
            found.append('changed the secret')
        elif any(getattr(now, key) != getattr(self.stamp, key) for key in keys):
            found.append("changed the secret's mode, time or links")
        return found

    def told(self, text: str) -> list:
        "The lines of a program's output that show that it read what it should not"
        return [line[:120] for line in text.split('\n') if 'LEAK' in line or self.word in line]

    def boasts(self, text: str) -> list:
        "The lines of a program's output that show that it could do what it should not"
        return [line[:120] for line in text.split('\n') if line.startswith('HARM') or "b'HARM" in line]


class Bait:
    "A context manager that lays traps below one temporary folder and listens at one port"

    def __enter__(self):
        self.folder = Path(tempfile.mkdtemp(prefix='bait-')).resolve()
        self.listener = socket.create_server(('127.0.0.1', 0), backlog=500)
        self.listener.setblocking(False)
        self.laid = 0
        return self

    def __exit__(self, *error):
        self.listener.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def lay(self, program: str, tests: list) -> Trap:
        "A trap for one program"
        self.laid += 1
        return Trap(self.folder / str(self.laid), self.listener.getsockname()[1], program, tests)

    def connections(self) -> int:
        "How many connections came since the last question"
        for count in range(10**6):
            try:
                self.listener.accept()[0].close()
            except BlockingIOError:
                return count
