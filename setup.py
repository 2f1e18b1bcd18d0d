"""Puts into the wheel what lies elsewhere in the repository: the default checkpoint and the lock.

Everything else about the package is in pyproject.toml. Nothing is copied for an editable install,
which finds both in the repository.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

COPIES = {
    "hypernet/checkpoints/smollm2-135m": "checkpoints/smollm2-135m/*",
    "hypernet": "deploy/requirements-cpu.lock",
}
"""Folder in the wheel: files of the repository."""


class BuildWithCopies(build_py):
    """The usual build, and the copies."""

    def run(self) -> None:
        """Build, then copy."""
        super().run()
        if self.editable_mode:
            return
        for folder, files in COPIES.items():
            self.mkpath(str(Path(self.build_lib, folder)))
            for file in sorted(Path().glob(files)):
                self.copy_file(str(file), str(Path(self.build_lib, folder, file.name)))


setup(cmdclass={"build_py": BuildWithCopies})
