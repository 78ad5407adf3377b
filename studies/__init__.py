"""Studies: scripts that measure accuracy and meaning; not part of the installed library."""
