"""Calls in processes of their own, which are copies of one that has done the imports."""

import multiprocessing
import os
import sys
import time

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


def typed(parameters):
    """Parameters as they are typed."""
    return [part for name, value in parameters.items() for part in ('--' + name.replace('_', '-'), str(value))]


def until(true, seconds=120):
    """Whether it is true in the end, which is waited for."""
    deadline = time.time() + seconds
    while not true() and time.time() < deadline:
        time.sleep(0.02)
    return true()
