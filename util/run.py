"""What surrounds a run: seeds, device, precision, signals, and the record of its environment."""

import errno
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch

from common import LOCK, UserError, write_json
from util.identity import read_side_file

# CPU flags of Linux without which bf16 is slower than fp32.
BF16_CPU_FLAGS = ("amx_bf16", "avx512_bf16")
# Words of torch's errors whose cause is the machine, and what helps.
REMEDIES = {
    "can't allocate memory": "use a smaller --batch_size, or resize or crop the images",
    "shared memory": "/dev/shm is too small for loader processes: try --num_threads 0, or enlarge it",
    "DataLoader worker": "try --num_threads 0, or more shared memory",
    "Too many open files": "try a smaller --num_threads",
}
# Signals that ask a process to end, those that this system has.
STOP_SIGNALS = [
    getattr(signal, name)
    for name in "SIGINT SIGTERM SIGHUP SIGUSR1 SIGUSR2 SIGXCPU SIGQUIT".split()
    if hasattr(signal, name)
]
PARENT = "NPR_LAB_PARENT"  # environment variable: process number of the program that started this one
RECORDED_PACKAGES = ("torchvision", "numpy", "pillow", "opencv-python", "scikit-learn", "scipy")


def guard(main):
    """Runs a script's main; what a user can mend becomes one line on stderr and exit status 1."""
    prepare_streams()
    before = signal.getsignal(signal.SIGINT)
    if before != signal.SIG_IGN:  # as in the background of a shell script
        signal.signal(signal.SIGINT, signal.default_int_handler)  # scripts import without it
    try:
        main()
        sys.stdout.flush()
    except Interrupted as stopped:
        print(f"\n{stopped}", file=sys.stderr)
        sys.exit(stopped.status)
    except BrokenPipeError:  # the reader of the output is gone, as in `| head`
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        sys.exit(128 + 13)  # SIGPIPE, which not every system has
    except (UserError, OSError, MemoryError, torch.OutOfMemoryError) as error:
        sys.exit(f"error: {one_line(error)}")
    except RuntimeError as error:
        remedy = next((hint for words, hint in REMEDIES.items() if words in str(error)), None)
        if remedy is None:
            raise
        sys.exit(f"error: {one_line(error)}; {remedy}")
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)


def prepare_streams():
    """Makes standard output and error usable: they may be closed, ASCII only, or a notebook's."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a file name need not be printable


def seed_everything(seed, deterministic=False):
    """Seeds Python, NumPy and torch; `deterministic` also asks torch for deterministic kernels."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.allow_tf32 = False  # what is recorded as fp32 is fp32; bf16 is the fast way
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)


def one_line(error):
    """An exception's message for the user: one line, operating-system errors with their path in words."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        if error.errno == errno.EEXIST:
            return f"{error.filename} is a file, not a folder"
        return f"{error.strerror}: {error.filename}"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1 if "Traceback" in str(error) else 0]  # loader processes put theirs above the message


def start(opt):
    """Seeds, picks the device and records the environment in `opt.environment`; returns the device."""
    device = pick_device(opt)
    seed_everything(opt.seed, opt.deterministic)
    opt.environment = environment(device)
    return device


def pick_device(opt):
    """The torch.device that --device asks for; UserError when it is not there."""
    if opt.device == "auto":
        mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    device = torch.device(opt.device)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        seen = f"torch sees {torch.cuda.device_count()} CUDA devices"
        raise UserError(f"--device {device}: {seen}; use --device cpu")
    try:
        if device.type != "cuda":
            torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, ImportError):
        raise UserError(f"--device {device}: torch cannot use it here; use --device cpu") from None
    return device


def choose_precision(amp, device, deterministic=False):
    """ "bf16" or "fp32", with the reason where --amp auto chose: "bf16: this CPU has amx_bf16"."""
    if amp != "auto":
        return {"bf16": "bf16", "off": "fp32"}[amp]
    if deterministic:
        return "fp32: --deterministic"
    if device.type == "cuda":
        able = torch.cuda.is_bf16_supported(including_emulation=False)
        return f"{'bf16: this GPU has' if able else 'fp32: this GPU has no'} bf16 instructions"
    if device.type != "cpu":
        return f"fp32: bf16 is not used on {device.type}"
    flags = [flag for flag in BF16_CPU_FLAGS if flag in _cpu_flags()]
    return f"bf16: this CPU has {flags[0]}" if flags else "fp32: this CPU has no bf16 instructions"


def is_bf16(precision):
    """Whether a precision as `choose_precision` words it is bf16."""
    return precision.startswith("bf16")


def _cpu_flags():
    with suppress(OSError):
        return Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()
    return []


def usable_cores():
    """CPU cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_count(wanted):
    """Loader processes: as asked for, else one per usable core, at most 8."""
    return min(8, usable_cores()) if wanted is None else wanted


def environment(device):
    """What a reader needs to tell two runs apart: code, versions, machine, command line.  All strings."""
    return {
        "time": time.strftime("%Y-%m-%d %H:%M:%S"),
        "argv": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "git": _git("rev-parse", "HEAD") + ("+changes" if _git("status", "--porcelain") else ""),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": str(device),
        "accelerator": torch.cuda.get_device_name(device) if device.type == "cuda" else "",
        "cpu_threads": str(torch.get_num_threads()),
        **{name: _version(name) for name in RECORDED_PACKAGES},
        "torch": str(torch.__version__),  # with the CUDA build, which the package's version leaves out
    }


def _version(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _git(*arguments):
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def rng_state():
    """State of torch's generators, for a checkpoint."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def set_rng_state(state):
    """Restores what `rng_state` returned; CUDA states only onto as many devices as they came from."""
    torch.set_rng_state(state["cpu"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def record_session(path, session):
    """Adds a session to env.json; returns a notice of another precision or of a damaged file, else ""."""
    sessions, notice = [], ""
    try:
        if path.exists():
            sessions = read_side_file(path, "its list of sessions starts again", ["precision"], many=True)
    except UserError as error:
        notice = f"notice: {error}"
    write_json(path, [*sessions, session])
    before = sessions[-1]["precision"] if sessions else session["precision"]
    if is_bf16(before) != is_bf16(session["precision"]):
        notice = f"notice: trained in {before} so far, now in {session['precision']}"
    return notice


def require_free(folder, overwrite):
    """UserError for a run folder in use, unless it holds a run that may be replaced."""
    ways = "--continue_train resumes it, --overwrite replaces it, --name starts another"
    if contents(folder) and not overwrite:
        raise UserError(f"{folder} exists; {ways}")
    if contents(folder) and not (folder / "opt.json").is_file():
        raise UserError(f"{folder} is not a run (it has no opt.json), so --overwrite leaves it alone")


def contents(folder):
    """Paths in a folder, but for the lock of its owner; none where there is no folder."""
    return [path for path in folder.iterdir() if path.name != LOCK] if folder.is_dir() else []


def empty(folder):
    """Removes everything in a folder but the lock of its owner."""
    for path in contents(folder):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


class Interrupted(BaseException):  # no Exception, so that no handler of bad images catches it
    """The user or the scheduler asked the program to stop; `status` is the exit status that says so."""

    def __init__(self, message, status):
        super().__init__(message)
        self.status = status


class StopSignal:
    """Turns every signal that asks a process to end into a flag; a second one stops all but a save."""

    def __init__(self, hint):
        self.hint = hint  # how to resume, for the last line that the user sees
        self.number, self.previous, self.waiting = None, {}, False
        self.saving = False  # True as well once `check` has ended the work: a save follows

    def __enter__(self):
        for number in STOP_SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup, or in a shell's background
                self.previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_):
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _receive(self, number, _frame):
        if self.number is not None and not self.saving:
            raise KeyboardInterrupt
        self.number = self.number or number
        if self.waiting:
            self.check()

    @contextmanager
    def save(self):
        """What is done inside is finished, however many signals come."""
        before, self.saving = self.saving, True
        yield
        self.saving = before

    def watch(self, batches):
        """The batches of a loader; a signal also ends the wait for a batch that never comes."""
        iterator = None
        while True:
            self.waiting = True
            try:
                if self.number is not None:
                    self.check()
                iterator = iterator or iter(batches)
                batch = next(iterator, None)
            finally:
                self.waiting = False
            if batch is None:
                return
            self.check()
            yield batch

    def check(self):
        """Raises Interrupted once a signal has come, or once the program that started this one is gone."""
        if self.number is not None:
            self.saving, self.waiting = True, False
            name = signal.Signals(self.number).name
            raise Interrupted(f"stopped by {name}; {self.hint}", 128 + self.number)
        if os.environ.get(PARENT, str(os.getppid())) != str(os.getppid()):
            raise Interrupted(f"the program that started this is gone; {self.hint}", 128 + signal.SIGTERM)
