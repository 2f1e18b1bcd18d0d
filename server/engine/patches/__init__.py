"""Everything that changes vLLM, one change a file; `plugin` installs them in each of vLLM's processes."""
