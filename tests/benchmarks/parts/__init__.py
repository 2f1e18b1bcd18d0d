"""One module a theme: `run(world)` measures and returns its rows of the table."""
