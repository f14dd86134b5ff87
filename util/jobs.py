"""Commands of many cells side by side, each cell in a slot of its own, with a log per cell."""

import os
import queue
import signal
import subprocess
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

from util.run import PARENT

POLL_SECONDS = 0.5
GRACE_SECONDS = 60  # for a command to save and stop
CUT_SHORT = (
    130,
    143,
    -signal.SIGINT,
    -signal.SIGTERM,
    -signal.SIGKILL,
)  # exit statuses of a command that was asked to stop


class Stopped(Exception):
    """A cell was stopped before its end; it goes on another time."""


class CommandFailed(Exception):
    """A command of a cell ended with an error, told in one line."""


class Jobs:
    """Runs cells, at most `slots` at once; slots: a dict of environment variables for each."""

    def __init__(self, slots, logs, keep_open=()):
        """keep_open: file descriptors that every command holds while it runs."""
        self.count, self.logs, self.keep_open = len(slots), Path(logs), tuple(keep_open)
        self.free = queue.SimpleQueue()
        for slot in slots:
            self.free.put(slot)
        self.stopping = False

    def run(self, cells, work, look):
        """Calls work(cell, execute) for every cell; yields (cell, error or None) as they end.

        Args:
            work: uses execute([argument, ...]) for each of its commands, and any exception is its result.
            look: called twice a second; what it raises stops all cells, softly, and then is raised here.
        """
        with ThreadPoolExecutor(self.count) as pool:
            waiting = {pool.submit(self._in_slot, cell, work): cell for cell in cells}
            try:
                while waiting:
                    done, _ = wait(waiting, POLL_SECONDS, FIRST_COMPLETED)
                    for future in done:
                        cell, error = waiting.pop(future), future.exception()
                        if not isinstance(error, Stopped):
                            yield cell, error
                    look()
            finally:
                self.stopping = True
                for future in waiting:
                    future.cancel()

    def _in_slot(self, cell, work):
        slot = self.free.get()
        try:
            if self.stopping:
                raise Stopped
            work(cell, lambda command: self._execute(command, cell, slot))
        finally:
            self.free.put(slot)

    def _execute(self, command, cell, slot):
        """Runs one command to its end; its output goes to the cell's log."""
        self.logs.mkdir(parents=True, exist_ok=True)
        path = self.logs / f"{cell.name}.log"
        environment = {**os.environ, "TQDM_DISABLE": "1", PARENT: str(os.getpid()), **slot}
        with open(path, "a", encoding="utf-8") as log:
            log.write(f"\n$ {' '.join(command)}\n")
            log.flush()
            start = log.tell()
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=self.keep_open,
                start_new_session=True,  # Ctrl-C reaches it once, from here
            )
            status = self._wait(process)
        if status in CUT_SHORT:  # a Ctrl-C may have reached it before its session was its own
            time.sleep(0 if self.stopping else 3 * POLL_SECONDS)
            if self.stopping:
                raise Stopped
        if status:
            reason = last_line(path, start).removeprefix("error: ") or "no output"
            raise CommandFailed(f"{reason} (status {status}; {path})")

    def _wait(self, process):
        asked = None
        while True:
            try:
                return process.wait(POLL_SECONDS)
            except subprocess.TimeoutExpired:
                if self.stopping and asked is None:
                    process.terminate()
                    asked = time.monotonic()
                elif asked is not None and time.monotonic() - asked > GRACE_SECONDS:
                    os.killpg(process.pid, signal.SIGKILL)  # it hangs; its session is its own


def last_line(path, start=0):
    """The last line with text in a log, from the byte `start` on."""
    with open(path, "rb") as file:
        file.seek(start)
        lines = file.read().decode("utf-8", errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


@contextmanager
def held(path, check, notify):
    """Holds a lock file, and yields its descriptor for commands to hold as well.

    While another process has it, `notify` is told once and `check` is called twice a second.
    """
    import fcntl  # not on Windows, where nothing else of this project's shell scripts runs either

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    notify(
                        f"{Path(path).parent} is in use, maybe by a cell of a run that was killed; waiting"
                    )
                    told = True
                check()
                time.sleep(POLL_SECONDS)
        yield file.fileno()
