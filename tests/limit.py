"""Run a command, and end it when its time is up: `python tests/limit.py MINUTES COMMAND…`.

No test has a limit of its own, which a slow machine would miss; this is the one limit around all of them. When it is
reached, or when this process is told to stop, the command is told to stop as well: pytest then says what was running.
What is left half a minute later is killed. Whatever the end, no process that the command started outlives it: kernels,
servers and browsers are found by a mark in their environment, also where the worker that started them has died.

The exit status is the command's, 124 when time was up, or 143 when this process was told to stop.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid

import psutil

TIME_IS_UP = 124  # as of the command `timeout`
TOLD_TO_STOP = 128 + signal.SIGTERM
GRACE = 30  # seconds between the word and the kill
MARK = "XAI_STARTED_BY"


class Stopped(Exception):
    """This process was told to stop."""


def stop(number, frame):
    """Raise Stopped with the name of the signal."""
    raise Stopped(signal.Signals(number).name)


def main(minutes: float, command: list[str]) -> int:
    """Run `command` for at most `minutes`, and return its exit status."""
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    mark = uuid.uuid4().hex
    has_been_told = False
    process = subprocess.Popen(command, env={**os.environ, MARK: mark})
    try:
        status = process.wait(timeout=60 * minutes)
    except subprocess.TimeoutExpired:
        status = TIME_IS_UP
        print(f"\nnot done within {minutes:g} minutes: ended", file=sys.stderr, flush=True)
    except Stopped as told:
        status = TOLD_TO_STOP
        has_been_told = str(told) == "SIGINT"  # Ctrl-C reaches the command as well
        print(f"\ntold to stop ({told}): ended", file=sys.stderr, flush=True)
    for number in (signal.SIGTERM, signal.SIGINT):  # what comes now would break off the cleaning up
        signal.signal(number, signal.SIG_IGN)
    if not has_been_told:
        process.terminate()  # not SIGINT, which a command that was started in the background ignores
    end(process)
    kill_marked(mark)
    return status


def end(process: subprocess.Popen) -> None:
    """Wait for a process that was told to stop, and kill it where it does not."""
    try:
        process.wait(timeout=GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def kill_marked(mark: str) -> None:
    """Kill every process whose environment holds the mark."""
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark:
                process.kill()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # it has just ended, or is another user's


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
