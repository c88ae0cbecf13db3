"""A command that ends with whoever started it: a script, `leash.py PARENT COMMAND...`, that becomes the command.

Where a sweep is killed, what it has started would go on and write where the next sweep writes. On Linux the kernel
sends it SIGTERM instead, which saves and stops; elsewhere the command goes on to its end.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(sys.argv[1]):  # it has ended meanwhile
            sys.exit(128 + signal.SIGTERM)
    os.execv(sys.argv[2], sys.argv[2:])
