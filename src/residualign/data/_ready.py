"""Imported last of all by the fork server: makes the file that its environment names. Elsewhere it does nothing."""

import contextlib
import os
from pathlib import Path

if "RESIDUALIGN_FORK_SERVER_READY" in os.environ:
    # the folder is gone where the process that wanted to know has ended meanwhile
    with contextlib.suppress(OSError):
        Path(os.environ["RESIDUALIGN_FORK_SERVER_READY"]).touch()
