"""Patches of vLLM, one per file.

`plugin` installs the selected ones in each of vLLM's processes.
"""
