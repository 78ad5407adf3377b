"""Recipes: scripts that make what the package ships. Not part of the installed library."""
