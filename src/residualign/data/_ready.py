"""Imported last by the fork server: creates the file named in its environment. Does nothing elsewhere."""

import contextlib
import os
from pathlib import Path

if "RESIDUALIGN_FORK_SERVER_READY" in os.environ:
    # the folder is gone if the process that asked has ended
    with contextlib.suppress(OSError):
        Path(os.environ["RESIDUALIGN_FORK_SERVER_READY"]).touch()
