"""Run a command, and end it when its time is up: `python tests/limit.py MINUTES COMMAND…`.

No test has a limit of its own, which a slow machine would miss; this is the one limit around all of them. When it is
reached, or when this process is told to stop, the command is told to stop as well: pytest then says what was running.
What is left half a minute later is killed. Whatever the end, no process that the command started outlives it: kernels,
servers and browsers are found by a mark in their environment, also where the worker that started them has died.

The exit status is the command's, 124 when time was up, or 128 plus the number of the signal that ended this process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid

import psutil

TIME_IS_UP = 124  # as of the command `timeout`
GRACE = 30  # seconds between SIGTERM and SIGKILL
MARK = "XAI_STARTED_BY"


def main(minutes: float, command: list[str]) -> int:
    """Run `command` for at most `minutes`, and return its exit status."""
    signals = []  # that came; handlers only note them, since an exception may come between any two steps

    def note(number, frame):
        signals.append(signal.Signals(number))

    signal.signal(signal.SIGTERM, note)
    signal.signal(signal.SIGINT, note)

    mark = uuid.uuid4().hex
    process = subprocess.Popen(command, env={**os.environ, MARK: mark})
    has_ended = wait(process, 60 * minutes, signals)
    if has_ended:
        status = process.returncode
    elif signals:
        status = 128 + signals[0]
        say(f"told to stop ({signals[0].name}): ending it, which takes up to {GRACE} s")
    else:
        status = TIME_IS_UP
        say(f"not done within {minutes:g} minutes (make LIMIT={2 * minutes:g} would give it twice as many): ending it")

    if not has_ended:
        if signal.SIGINT not in signals:  # Ctrl-C reaches the command as well
            process.terminate()  # not SIGINT, which a command that was started in the background ignores
        if not wait(process, GRACE):
            process.kill()
            process.wait()
    kill_marked(mark)
    return status


def wait(process: subprocess.Popen, seconds: float, signals=()) -> bool:
    """Return whether the process ended within so many seconds; return at once when there are `signals`."""
    last = time.monotonic() + seconds
    while process.poll() is None:
        if signals or time.monotonic() > last:
            return False
        time.sleep(0.2)
    return True


def say(sentence: str) -> None:
    """Print a sentence on a line of its own, at once."""
    print(f"\n{sentence}", file=sys.stderr, flush=True)


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
