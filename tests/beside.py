"""Calls in processes of their own, which are copies of one that has done the imports."""

import multiprocessing
import os
import sys

from lora_mbpp.experiments.warm_kernels import copies_are_safe, copying


def become(said, environment, call, given):
    """In a new process: have this environment, print into a file, end with the status of a call."""
    os.environ.clear()
    os.environ.update(environment)
    with open(said, 'ab') as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    sys.exit(call(*given))


def started(said, call, *given, **environment):
    """A process that makes a call and prints into the file `said`."""
    context = copying() if copies_are_safe() else multiprocessing.get_context('spawn')
    process = context.Process(target=become, args=(said, {**os.environ, **environment}, call, given))
    process.start()
    return process
