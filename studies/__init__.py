"""Studies: scripts that measure accuracy and meaning. Not part of the installed library."""
