"""A teacher pass on disk: the most probable ids of each position and how much the rest weighs.

One record a row of a batch, in the order in which rows were first seen:

    check   CRC-32 of what follows
    key     128-bit hash of what the pass depends on and of the row's ids and document numbers
    ids     (T, K) the K most probable shared ids
    log_p   (T, K) their log-probabilities at temperature 1, float16
    log_z   (T, temperatures) log of the sum over all shared ids of p^(1/temperature), float32

At a stored temperature t, log p_t = log_p / t - log_z, exactly but for float16's rounding, so the
K probabilities and the mass of all others are known, whichever phase asks. Rows are found by what
they hold, so any order and any batch size can use them, and several runs at the same time. A row is
stored before it is used, and always read back: a resumed run computes the same bits as one that was
never stopped.

Shapes: B rows, T positions, N labelled positions, C positions of a chunk, K ids, U shared ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tallyformer.artifacts.atomic import make_folder
from tallyformer.artifacts.json_files import digest, read_checked_json, write_checked_json
from tallyformer.artifacts.system_errors import cannot_write
from tallyformer.data.batch import Batch
from tallyformer.errors import ArtifactError
from tallyformer.training.chunked_head import chunk_length
from tallyformer.training.distillation import StoredTargets
from tallyformer.training.micro_batch import MicroBatch, Placement, moved, pinned
from tallyformer.training.precision import Precision
from tallyformer.training.row_store import KEY_BYTES, RowStore, row_type
from tallyformer.training.teacher import Teacher

BINDING = "binding.json"
ROWS = "rows.bin"


class TeacherCache:
    """Targets from the stored pass; rows that are not stored yet are computed and added.

    Args:
        folder: made if it is not there.
        binding: what the rows depend on: shards, teacher, shared ids.
        teacher: computes what is missing.
        context: T.
        top_k: K, at most the number of shared ids.
        temperatures: all that the phases use.

    Raises:
        ArtifactError: the folder holds another teacher pass.
    """

    def __init__(
        self,
        folder: Path,
        binding: Mapping[str, Any],
        teacher: Teacher,
        *,
        context: int,
        top_k: int,
        temperatures: Sequence[float],
    ):
        self.teacher = teacher
        self._temperatures = sorted(set(temperatures))
        self._top_k = min(top_k, teacher.shared)
        record = _record_type(context, self._top_k, len(self._temperatures), teacher.shared)
        shape = {
            "context": context,
            "top_k": self._top_k,
            "temperatures": self._temperatures,
            "shared_ids": teacher.shared,
        }
        self._salt = bytes.fromhex(digest({**binding, **shape}))
        fix = f"Delete {folder}, or choose another distill.cache_folder"
        _make(folder)
        self._rows = RowStore(folder / ROWS, record, fix)
        with self._rows.locked():
            _bind(folder, {**binding, **shape}, is_new=self._rows.is_empty, fix=fix)
        self._rows.look()

    def targets(
        self, inputs: MicroBatch, precision: Precision, temperature: float
    ) -> StoredTargets:
        """The stored distributions of the labelled positions, at one of the temperatures."""
        keys = [_key(inputs.host.batch, row, self._salt) for row in range(inputs.ids.shape[0])]
        if any(key not in self._rows for key in keys):
            self._rows.look()
        if any(key not in self._rows for key in keys):
            self._rows.add(self._compute(inputs, precision, keys))
        rows = self._rows.read(keys)
        column = self._temperatures.index(temperature)
        log_p = rows["log_p"].astype(np.float32) / temperature - rows["log_z"][..., column, None]
        ids_NK = torch.from_numpy(rows["ids"].astype(np.int64)).flatten(0, 1)
        log_p_NK = torch.from_numpy(log_p).flatten(0, 1)
        if inputs.host.rows is not None:
            ids_NK, log_p_NK = ids_NK[inputs.host.rows], log_p_NK[inputs.host.rows]
        device = inputs.ids.device
        return StoredTargets(
            moved(pinned(ids_NK, device), device),
            moved(pinned(log_p_NK, device), device),
            self.teacher.shared,
        )

    def compile(self, compiled: bool) -> None:
        """As the teacher's own."""
        self.teacher.compile(compiled)

    def _compute(
        self, inputs: MicroBatch, precision: Precision, keys: Sequence[bytes]
    ) -> np.ndarray:
        """Run the teacher on a batch; its rows."""
        every = Batch(
            inputs.host.batch.input_ids, inputs.host.batch.input_ids, inputs.host.batch.segments
        )
        place = Placement(inputs.ids.device, attend_across_documents=inputs.segments is None)
        full = self.teacher.targets(place(every), precision, 1.0)
        count = inputs.ids.numel()
        step = chunk_length(count, 4 * self.teacher.shared, inputs.ids.device)
        parts = [
            self._summary(full.logits(slice(start, min(start + step, count))))
            for start in range(0, count, step)
        ]
        ids, log_p, log_z = (torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True))
        rows = np.zeros(len(keys), dtype=self._rows.row)
        for row, key in enumerate(keys):
            rows[row]["key"] = np.frombuffer(key, dtype="<u8")
        shape = (len(keys), inputs.ids.shape[1], -1)
        rows["ids"], rows["log_p"] = ids.reshape(shape), log_p.reshape(shape)
        rows["log_z"] = log_z.reshape(shape)
        return rows

    def _summary(self, logits_CU: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        log_p_CU = logits_CU.float().log_softmax(dim=1)
        log_z = [(log_p_CU / t).logsumexp(dim=1) for t in self._temperatures]
        top = log_p_CU.topk(self._top_k, dim=1)
        # A probability of 0 would be -inf in float16, and 0 * -inf is not a number.
        log_p_CK = top.values.clamp_min(-60000.0).half()
        return top.indices, log_p_CK, torch.stack(log_z, dim=1)


def _record_type(context: int, top_k: int, temperatures: int, shared: int) -> np.dtype[Any]:
    ids = "<u2" if shared <= 2**16 else "<u4"
    return row_type(
        [
            ("ids", ids, (context, top_k)),
            ("log_p", "<f2", (context, top_k)),
            ("log_z", "<f4", (context, temperatures)),
        ]
    )


def _key(batch: Batch, row: int, salt: bytes) -> bytes:
    ids = batch.input_ids[row].numpy().tobytes()
    hashed = hashlib.blake2b(ids, digest_size=KEY_BYTES, key=salt)
    if batch.segments is not None:
        hashed.update(batch.segments[row].numpy().tobytes())
    return hashed.digest()


def _make(folder: Path) -> None:
    try:
        make_folder(folder)
    except OSError as error:
        raise cannot_write(folder, error) from error


def _bind(folder: Path, binding: Mapping[str, Any], *, is_new: bool, fix: str) -> None:
    """Note what a new pass depends on; refuse the rows of another one."""
    path = folder / BINDING
    if is_new and not path.exists():
        write_checked_json(path, binding)
        return
    found = read_checked_json(path, fix=fix)
    wrong = sorted(k for k in binding.keys() | found.keys() if binding.get(k) != found.get(k))
    if wrong:
        raise ArtifactError(
            f"{folder}: holds the teacher pass of another run (it differs in: {', '.join(wrong)}). "
            f"{fix}"
        )
