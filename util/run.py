"""What surrounds a run: seeds, device, precision, signals, and the record of its environment."""

import errno
import json
import os
import platform
import random
import signal
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch

from common import UserError, write_json

# CPU flags of Linux that mean bf16 matrix products in hardware; without them bf16 is slower than fp32.
BF16_CPU_FLAGS = ("amx_bf16", "avx512_bf16")
# Words of torch's errors whose cause is the machine, and what helps.
REMEDIES = {
    "can't allocate memory": "use a smaller --batch_size, or resize or crop the images",
    "DataLoader worker": "try --num_threads 0, or more shared memory",
    "Too many open files": "try a smaller --num_threads",
}
PARENT = "NPR_LAB_PARENT"  # environment variable: process number of the program that started this one
RECORDED_PACKAGES = ("torchvision", "numpy", "pillow", "opencv-python", "scikit-learn", "scipy")


def guard(main):
    """Runs a script's main; what a user can mend becomes one line on stderr and exit status 1.

    Every other exception is a bug and keeps its traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # a file name need not be printable
    try:
        main()
    except Interrupted as stopped:
        print(f"\n{stopped}", file=sys.stderr)
        sys.exit(stopped.status)
    except (UserError, OSError, MemoryError, torch.OutOfMemoryError) as error:
        sys.exit(f"error: {one_line(error)}")
    except RuntimeError as error:
        remedy = next((hint for words, hint in REMEDIES.items() if words in str(error)), None)
        if remedy is None:
            raise
        sys.exit(f"error: {str(error).strip().splitlines()[0]}; {remedy}")
    except KeyboardInterrupt:
        sys.exit(130)


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
        hint = (
            " (a file stands where a folder is needed)"
            if error.errno in (errno.ENOTDIR, errno.EEXIST)
            else ""
        )
        return f"{error.strerror}: {error.filename}{hint}"
    return (str(error).strip() or type(error).__name__).splitlines()[0]


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


def use_bf16(amp, device, deterministic=False):
    """Whether to autocast to bf16.  auto: on CUDA and CPUs with bf16 instructions, unless deterministic."""
    if amp != "auto":
        return amp == "bf16"
    if deterministic:
        return False
    return (device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)) or (
        device.type == "cpu" and _cpu_has_bf16()
    )


def _cpu_has_bf16():
    try:
        flags = Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()
    except OSError:
        return False
    return any(flag in flags for flag in BF16_CPU_FLAGS)


def usable_cores():
    """CPU cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_count(wanted):
    """Loader processes: as asked for, else one per usable core, at most 8."""
    return min(8, usable_cores()) if wanted is None else wanted


def environment(device):
    """What a reader needs to tell two runs apart: code, versions, machine, command line.  All strings."""
    packages = {name: _version(name) for name in RECORDED_PACKAGES}
    accelerator = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return {
        "time": time.strftime("%Y-%m-%d %H:%M:%S"),
        "argv": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "git": _git("rev-parse", "HEAD") + ("+changes" if _git("status", "--porcelain") else ""),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": str(device),
        "accelerator": accelerator,
        "cpu_threads": str(torch.get_num_threads()),
        **packages,
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
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=20)
        return done.stdout.strip() if done.returncode == 0 else ""
    except (OSError, subprocess.TimeoutExpired):
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
    """Adds one session to env.json, so that a resumed run shows every machine and precision it ran on.

    Returns a notice when the precision is no longer that of the session before, else "".
    """
    path = Path(path)
    sessions = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    write_json(path, [*sessions, session])
    before = sessions[-1]["precision"] if sessions else session["precision"]
    changed = before != session["precision"]
    return f"notice: trained in {before} so far, now in {session['precision']}" if changed else ""


def require_free(folder, overwrite):
    """Refuses a run folder in use, unless it holds a run that may be replaced."""
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not overwrite:
        raise UserError(
            f"{folder} exists; --continue_train goes on with it, --overwrite replaces it, "
            "--name starts another"
        )
    if not (folder / "opt.json").is_file():
        raise UserError(f"{folder} holds no run (no opt.json), so --overwrite leaves it alone")


class Interrupted(Exception):
    """The user or the scheduler asked the program to stop; `status` is the exit status that says so."""

    def __init__(self, message, status):
        super().__init__(message)
        self.status = status


class StopSignal:
    """Turns Ctrl-C and SIGTERM into a flag that long loops look at; a second signal stops at once."""

    def __init__(self, hint):
        self.hint = hint  # how to go on, for the last line that the user sees
        self.number = None
        self.previous = {}

    def __enter__(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            self.previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_):
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _note(self, number, _frame):
        if self.number is not None:
            raise KeyboardInterrupt
        self.number = number

    def check(self):
        """Raises Interrupted once a signal has come, or once the program that started this one is gone."""
        if self.number is not None:
            name = signal.Signals(self.number).name
            raise Interrupted(f"stopped by {name}; {self.hint}", 128 + self.number)
        if os.environ.get(PARENT, str(os.getppid())) != str(os.getppid()):
            raise Interrupted(f"the program that started this is gone; {self.hint}", 128 + signal.SIGTERM)
