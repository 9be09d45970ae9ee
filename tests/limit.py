"""Run a command, and end it when its time is up: `python tests/limit.py MINUTES COMMAND…`.

No test has a limit of its own, which a slow machine would miss; this is the one limit around all of them. When it is
reached, or when this process is told to stop, the command is told to stop as well: pytest then says what was running. What
is left half a minute later is killed: every process that the command started, kernels, servers and browsers among them.

The exit status is the command's, or 124 when time was up.
"""

from __future__ import annotations

import signal
import subprocess
import sys

import psutil

TIME_IS_UP = 124  # as of the command `timeout`
GRACE = 30  # seconds between the word and the kill


class Stopped(Exception):
    """This process was told to stop."""


def stop(number, frame):
    raise Stopped(signal.Signals(number).name)


def main(minutes: float, command: list[str]) -> int:
    """Run `command` for at most `minutes`, and return its exit status."""
    signal.signal(signal.SIGTERM, stop)
    process = subprocess.Popen(command)
    try:
        return process.wait(timeout=60 * minutes)
    except subprocess.TimeoutExpired:
        print(f"\nnot done within {minutes:g} minutes: ended", file=sys.stderr, flush=True)
        end(process)
        return TIME_IS_UP
    except (Stopped, KeyboardInterrupt) as told:
        print(f"\ntold to stop ({told}): ended", file=sys.stderr, flush=True)
        end(process)
        return 128 + signal.SIGTERM


def end(process: subprocess.Popen) -> None:
    """Tell the process to stop, then kill what is left of it and every process that it started."""
    started = psutil.Process(process.pid).children(recursive=True)  # while their parents live
    process.terminate()  # not SIGINT, which a command that was started in the background ignores
    try:
        process.wait(timeout=GRACE)
    except subprocess.TimeoutExpired:
        started += psutil.Process(process.pid).children(recursive=True)
        process.kill()
    for one in started:
        try:
            one.kill()
        except psutil.NoSuchProcess:
            continue  # it had ended by itself
    process.wait()


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
