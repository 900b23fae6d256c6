"""`NativeRunner`: the engine's runner in C++, for a CPU. Loads no torch.

Shapes: N rows, V vocabulary.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tallyformer.artifacts.json_files import read_json
from tallyformer.errors import UsageError
from tallyformer.inference.engine.runner import Chosen, LogitsRow, Work
from tallyformer.inference.native.available import library
from tallyformer.inference.native.c_functions import CDraw
from tallyformer.inference.native.cores import usable_cores
from tallyformer.inference.native.draws import choice, fill
from tallyformer.inference.native.loading import Angles, Loader, create
from tallyformer.model.shape import ModelShape, shape_of
from tallyformer.model.weights import FolderWeights, Weight

FIX = "Export the model again, or fetch it again"
SLOTS = 64
"""Sequences that are kept at once, by default."""
WARM_SLOTS = 2
"""Free slots that keep their memory once most are free."""
PREFILL_CHUNK = 256
"""Most ids of one sequence that a step computes."""


class NativeRunner:
    """A `Runner` of the native library.

    Args:
        shape: the model's.
        tensors: gives a tensor of `shape.tensors()` by its name.
        dtype: of the weights: "float32", "bfloat16", "int8" or "int4".
        vocab_size: ids that have a text; a model may have more rows.
        threads: that compute; None: as many as `usable_cores()`.
        slots: most sequences that are kept at once.
        kernels: their name, for tests; None takes the best that the processor can run.

    Raises:
        BuildError: the library cannot be built or loaded.
        MemoryError: the weights do not fit.
    """

    prefill_chunk: int | None = PREFILL_CHUNK

    def __init__(
        self,
        shape: ModelShape,
        tensors: Callable[[str], Weight],
        *,
        dtype: str,
        vocab_size: int,
        threads: int | None = None,
        slots: int = SLOTS,
        kernels: str | None = None,
    ) -> None:
        self.slots = slots
        self._library = library()
        self._process = os.getpid()
        self._vocab, self._vocab_size = shape.vocab, vocab_size
        self._handle = create(self._library, shape, dtype, threads or usable_cores(), kernels)
        self._check(self._library.tally_reserve(self._handle, slots))
        Loader(self._library, self._handle, shape, tensors, dtype).load()
        self._angles = Angles(self._library, self._handle, shape)
        self._rows = np.empty((0, self._vocab), np.float32)
        # Slots that have memory.
        self._held: set[int] = set()
        self.clear()

    @classmethod
    def from_folder(
        cls, folder: Path, *, vocab_size: int, dtype: str | None = None, **settings: Any
    ) -> NativeRunner:
        """Load the weights of a Hugging Face folder.

        Args:
            folder: of a model whose shape `shape_of` knows.
            vocab_size: ids that have a text.
            dtype: of the weights; None keeps the folder's.
            settings: threads, slots, kernels.

        Raises:
            UnsupportedModelError: only transformers can compute this model.
            ArtifactError, CheckpointError: the folder is damaged.
            BuildError, MemoryError: as for the class.
        """
        config = read_json(folder / "config.json", fix=FIX)
        shape = shape_of(config)
        weights = FolderWeights(folder, config, shape, fix=FIX)
        return cls(shape, weights, dtype=dtype or weights.dtype, vocab_size=vocab_size, **settings)

    def __del__(self) -> None:
        handle = getattr(self, "_handle", None)
        if handle and self._process == os.getpid():
            self._library.tally_destroy(handle)

    def clear(self) -> None:
        """Forget all, in whatever state a broken-off computation left them."""
        self._slot_of: dict[int, int] = {}
        self._free = list(range(self.slots))[::-1]

    def compute(self, work: Sequence[Work]) -> np.ndarray:
        """Compute these sequences' ids; logits_NV, valid until the next call."""
        if self._process != os.getpid():
            raise UsageError(
                "this model was loaded before the process was forked, and its threads are not "
                'here. Load it in this process, or start processes by "spawn"'
            )
        ids: list[int] = []
        slots: list[int] = []
        positions: list[int] = []
        wanted: list[int] = []
        for w in work:
            slot = self._slot_of.get(w.number)
            if slot is None:
                slot = self._take(w.number)
            count = len(w.ids)
            ids += w.ids
            slots += [slot] * count
            positions += range(w.start, w.start + count)
            if w.logits:
                wanted += range(len(ids) - w.logits, len(ids))
        if len(self._rows) < len(wanted):
            self._rows = np.empty((len(wanted), self._vocab), np.float32)
        self._angles.reach(max(positions) + 1)
        table = np.array((ids, slots, positions), np.int32)
        rows = np.array(wanted, np.int32)
        failed = self._library.tally_step(
            self._handle,
            len(ids),
            table[0].ctypes.data,
            table[1].ctypes.data,
            table[2].ctypes.data,
            len(wanted),
            rows.ctypes.data,
            self._rows.ctypes.data,
        )
        self._check(failed)
        return self._rows[: len(wanted)]

    def choose(self, logits: np.ndarray, rows: Sequence[LogitsRow]) -> list[Chosen]:
        """Choose an id for each row; changes the logits."""
        draws = (CDraw * len(rows))()
        texts_NV = logits[:, : self._vocab_size]
        kept = [fill(*one) for one in zip(draws, rows, texts_NV, strict=True)]
        result = self._library.tally_choose(
            self._handle,
            len(rows),
            logits.ctypes.data,
            self._vocab_size,
            self._vocab,
            ctypes.addressof(draws),
        )
        self._check(result)
        return [choice(draw, arrays) for draw, arrays in zip(draws, kept, strict=True)]

    def fork(self, number: int, new: int, length: int) -> None:
        """Keep the first `length` ids of a sequence as those of a new one, too."""
        slot = self._take(new)
        self._check(
            self._library.tally_copy_slot(self._handle, self._slot_of[number], slot, length)
        )

    def release(self, numbers: Collection[int]) -> None:
        """Forget these sequences, all of which are kept."""
        for number in numbers:
            self._free.append(self._slot_of.pop(number))
        if len(self._slot_of) <= self.slots // 4:
            self._give_back()

    def _take(self, number: int) -> int:
        slot = self._slot_of[number] = self._free.pop()
        self._held.add(slot)
        return slot

    def _give_back(self) -> None:
        """The memory of free slots but the few that are taken next, when many were in use.

        And that of more rows of logits than the rest needs: scoring of prompts needs many.
        """
        if len(self._rows) > self.slots // 4:
            self._rows = np.empty((0, self._vocab), np.float32)
        for slot in self._held.intersection(self._free[:-WARM_SLOTS]):
            self._library.tally_drop_slot(self._handle, slot)
            self._held.remove(slot)

    def _check(self, result: int) -> None:
        if result:
            raise MemoryError("the native library lacks memory")
