"""The folder of the best weights, replaced together with the checkpoint that vouches for it.

Fresh weights are written beside the folder and their checksums go into the run's state. Only when
a checkpoint holds that state do they take the folder's place, so whatever a kill leaves, the newest
checkpoint vouches for one of the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tallyformer.artifacts.atomic import (
    atomic_folder,
    recover_replaced,
    replace_folder,
)
from tallyformer.artifacts.manifest import check_file, entries_below
from tallyformer.artifacts.run_folder import clear
from tallyformer.artifacts.system_errors import cannot_write
from tallyformer.errors import ArtifactError


class BestWeights:
    """The best weights of one run of the training loop.

    Args:
        folder: where they lie.
        fix: what helps when they are damaged or gone.
    """

    def __init__(self, folder: Path, fix: str):
        self._folder = folder
        self._fresh = folder.with_name(folder.name + ".fresh")
        self._fix = fix

    def write(self, save: Callable[[Path], None]) -> dict[str, dict[str, Any]]:
        """Write fresh weights beside the folder, and return their sizes and checksums by name.

        Raises:
            ArtifactError: they cannot be written.
        """
        with atomic_folder(self._fresh) as out:
            save(out)
            return entries_below(out)

    def publish(self) -> None:
        """Put fresh weights, if there are any, in the folder's place.

        Raises:
            ArtifactError: the system refused.
        """
        try:
            if self._fresh.is_dir():
                replace_folder(self._folder, self._fresh)
        except OSError as error:
            raise cannot_write(self._folder, error) from error

    def settle(self, files: Mapping[str, Mapping[str, Any]], *, is_newest: bool) -> bool:
        """Make the folder the one that a checkpoint vouches for.

        Args:
            files: what the checkpoint says; empty before the first validation.
            is_newest: whether it is the newest one. An older one may know nothing of what has
                replaced its best weights since.

        Returns:
            Whether the folder is that one; False only if an older checkpoint does not know it.

        Raises:
            ArtifactError: it is damaged or gone.
        """
        recover_replaced(self._folder)
        if files and self._fresh.is_dir() and not self._problem(self._fresh, files):
            self.publish()
        clear(self._fresh)
        problem = self._problem(self._folder, files)
        if problem and is_newest:
            raise problem
        return problem is None

    def _problem(
        self, folder: Path, files: Mapping[str, Mapping[str, Any]]
    ) -> ArtifactError | None:
        try:
            for name, entry in files.items():
                check_file(folder / name, entry, fix=self._fix)
        except ArtifactError as error:
            return error
        return None
