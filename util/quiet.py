"""The first import of every program: until `run.guard`, Ctrl-C ends it without a traceback."""

import signal

if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as in the background of a shell script
    signal.signal(signal.SIGINT, signal.SIG_DFL)
