"""The first import of every program: until `run.guard`, Ctrl-C ends it without a traceback.

OpenMP's threads sleep while they wait: spinning, they take the cores from loader processes and from other
programs, and on two busy cores the network ran at a tenth of its speed (docs/performance.md).
"""

import os
import signal

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read once, when torch is imported

if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as in the background of a shell script
    signal.signal(signal.SIGINT, signal.SIG_DFL)
