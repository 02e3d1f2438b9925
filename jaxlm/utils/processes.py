"""Run several local processes that work together, and end all of them if one fails."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import IO, Any

_ENDS_WITH_PARENT = "JAXLM_ENDS_WITH_PARENT"
_POLL_SECONDS = 0.05
_INTERRUPTED = 130  # the exit code after SIGINT or SIGTERM


def run_together(
    commands: Sequence[Sequence[str]], *, stdout: IO[bytes] | None = None, grace_seconds: float = 5
) -> int:
    """Run all commands at once, and return 0, or the exit code of the first process that failed.

    Process 0 prints as usual, or to `stdout`. If another is the first that fails, what it printed is shown, unless
    process 0 has the same exit code. The processes get the SIGINT of this process. If one of them fails or is
    interrupted, the others get SIGTERM after `grace_seconds`, and SIGKILL after as many more. If this process is
    killed, those that called `end_with_parent` end, too.

    Raises:
        ChildProcessError: a process was ended by a signal.
    """
    with contextlib.ExitStack() as stack:
        outputs = [None, *(stack.enter_context(tempfile.TemporaryFile()) for _ in commands[1:])]
        processes = [
            start_child(command, stdout=stdout if output is None else output, stderr=output)
            for command, output in zip(commands, outputs, strict=True)
        ]
        for process in processes:
            stack.enter_context(process)
            stack.callback(process.kill)
        first = _wait_for_failure(processes)
        if first is None:
            return 0
        code, output = processes[first].returncode, outputs[first]
        _end(processes, grace_seconds)
        if code in (-signal.SIGINT, -signal.SIGTERM):  # it was still starting
            return _INTERRUPTED
        if output is not None and processes[0].returncode != code:
            output.seek(0)
            sys.stderr.write(f"process {first}: " + output.read().decode("utf-8", "replace")[-4000:])
        if code < 0:
            raise ChildProcessError(f"process {first} was ended by {signal.Signals(-code).name}")
        return code


def start_child(command: Sequence[str], **options: Any) -> "subprocess.Popen[bytes]":
    """Start a process for which `end_with_parent` works. `options` are those of `subprocess.Popen`.

    It has its own session: Ctrl-C in a terminal reaches only this process, which then signals its children.
    """
    environment = os.environ | {_ENDS_WITH_PARENT: "1"}
    return subprocess.Popen(  # noqa: S603
        command, env=environment, stdin=subprocess.PIPE, start_new_session=True, **options
    )


def end_with_parent() -> None:
    """In a process of `start_child`, request its end when the parent has ended. Elsewhere, do nothing."""
    if os.environ.pop(_ENDS_WITH_PARENT, None) is None:
        return

    def wait() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)  # to save a checkpoint, unless it waits for another process
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def find_free_port() -> int:
    """Return a port of 127.0.0.1 that no process uses."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def _wait_for_failure(processes: Sequence["subprocess.Popen[bytes]"]) -> int | None:
    """Wait until all have ended, or one has failed, and return its number."""
    while True:
        try:
            codes = [process.poll() for process in processes]
            failed = [number for number, code in enumerate(codes) if code]
            if failed or None not in codes:
                return failed[0] if failed else None
            time.sleep(_POLL_SECONDS)
        except KeyboardInterrupt:  # they stop together; a second signal ends this process
            for process in processes:
                process.send_signal(signal.SIGINT)


def _end(processes: Sequence["subprocess.Popen[bytes]"], grace_seconds: float) -> None:
    """Let the processes end by themselves, then with SIGTERM, then with SIGKILL, each after `grace_seconds`."""
    for end in (lambda _: None, subprocess.Popen.terminate, subprocess.Popen.kill):
        deadline = time.monotonic() + grace_seconds
        for process in processes:
            end(process)
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(deadline - time.monotonic(), 0))
