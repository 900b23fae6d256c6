"""Whether a name can be had from the Hugging Face hub, asked before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

SECONDS = 10.0
"""The hub is given so long to answer."""


class Hub:
    """Asks for each name once, and for no more names once the hub does not answer."""

    def __init__(self) -> None:
        self._silent: str | None = None

    def problem(
        self,
        name: str,
        revision: str | None,
        *,
        kind: Literal["model", "dataset"],
        cached: tuple[str, ...] = (),
    ) -> str | None:
        """Why the hub does not deliver a name; None if it does, or has done so before.

        Args:
            name: on the hub.
            revision: commit, tag or branch; None is its newest state.
            kind: what the name names.
            cached: files of which one in the local cache is enough.
        """
        from huggingface_hub import HfApi, errors, try_to_load_from_cache

        try:
            found = (try_to_load_from_cache(name, file, revision=revision) for file in cached)
            if any(isinstance(path, str) for path in found):
                return None
            if self._silent is None:
                HfApi().repo_info(name, revision=revision, repo_type=kind, timeout=SECONDS)
                return None
        except errors.GatedRepoError:
            return "it asks for a login there: run `hf auth login` with an account that may read it"
        except errors.RevisionNotFoundError:
            return f"it has no revision {revision!r} there"
        except (errors.RepositoryNotFoundError, errors.HFValidationError):
            return f"there is no such {kind.replace('dataset', 'data set')} there"
        except Exception as error:  # the hub's client raises errors of several libraries
            self._silent = " ".join(str(error).split())[:120] or type(error).__name__
        return f"the hub does not answer ({self._silent})"

    def commit(
        self, name: str, revision: str | None, *, kind: Literal["model", "dataset"]
    ) -> str | None:
        """The commit of a name now; without an answer that of the local cache, or None."""
        from huggingface_hub import HfApi, snapshot_download

        try:
            if self._silent is None:
                api = HfApi()
                info = api.repo_info(name, revision=revision, repo_type=kind, timeout=SECONDS)
                return info.sha
        except Exception as error:  # the hub's client raises errors of several libraries
            if getattr(error, "response", None) is None:
                self._silent = type(error).__name__
        try:
            cached = snapshot_download(
                name, revision=revision, repo_type=kind, local_files_only=True
            )
        except Exception:
            return None
        return Path(cached).name
