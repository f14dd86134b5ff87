"""Programs on top of the project, each run as `python -m tools.<name>`; nothing outside imports them."""

import signal
import sys

if sys.argv[0] == "-m":  # a tool is being started: until `guard`, Ctrl-C ends it without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)
