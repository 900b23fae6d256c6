"""A teacher pass on disk: the most probable ids of each position and how much the rest weighs.

One record a row of a batch, in the order in which rows were first seen:

    check   CRC-32 of what follows
    key     128-bit hash of the row's ids and document numbers
    ids     (T, K) the K most probable shared ids
    log_p   (T, K) their log-probabilities at temperature 1, float16
    log_z   (T, temperatures) log of the sum over all shared ids of p^(1/temperature), float32

At a stored temperature t, log p_t = log_p / t - log_z, exactly but for float16's rounding, so the
K probabilities and the mass of all others are known, whichever phase asks. Rows are found by what
they hold, so any order and any batch size can use them. A row is stored before it is used, and
always read back: a resumed run computes the same bits as one that was never stopped.

Shapes: B rows, T positions, N labelled positions, C positions of a chunk, K ids, U shared ids.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tallyformer.artifacts.atomic import cannot_write, write_json
from tallyformer.data.batch import Batch
from tallyformer.errors import ArtifactError
from tallyformer.training.chunked_head import chunk_length
from tallyformer.training.distillation import StoredTargets
from tallyformer.training.inputs import Inputs, Placement
from tallyformer.training.precision import Precision
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
        self._record = _record_type(context, self._top_k, len(self._temperatures), teacher.shared)
        shape = {
            "context": context,
            "top_k": self._top_k,
            "temperatures": self._temperatures,
            "shared_ids": teacher.shared,
        }
        _bind(folder, {**binding, **shape})
        self._path = folder / ROWS
        self._place = self._find_rows()

    def targets(self, inputs: Inputs, precision: Precision, temperature: float) -> StoredTargets:
        """The stored distributions of the labelled positions, at one of the temperatures."""
        keys = [_key(inputs.batch, row) for row in range(inputs.ids.shape[0])]
        if any(key not in self._place for key in keys):
            self._compute(inputs, precision, keys)
        rows = self._read([self._place[key] for key in keys])
        column = self._temperatures.index(temperature)
        log_p = rows["log_p"].astype(np.float32) / temperature - rows["log_z"][..., column, None]
        ids_NK = torch.from_numpy(rows["ids"].astype(np.int64)).flatten(0, 1)
        log_p_NK = torch.from_numpy(log_p).flatten(0, 1)
        if inputs.rows is not None:
            here = inputs.rows.cpu()
            ids_NK, log_p_NK = ids_NK[here], log_p_NK[here]
        device = inputs.ids.device
        return StoredTargets(ids_NK.to(device), log_p_NK.to(device), self.teacher.shared)

    def compile(self, compiled: bool) -> None:
        """As the teacher's own."""
        self.teacher.compile(compiled)

    def _compute(self, inputs: Inputs, precision: Precision, keys: Sequence[bytes]) -> None:
        """Run the teacher on a batch and store its rows."""
        every = Batch(inputs.batch.input_ids, inputs.batch.input_ids, inputs.batch.segments)
        place = Placement(inputs.ids.device, attend_across_documents=inputs.mask is None)
        full = self.teacher.targets(place(every), precision, 1.0)
        count = inputs.ids.numel()
        step = chunk_length(count, 4 * self.teacher.shared, inputs.ids.device)
        parts = [
            self._summary(full.logits(slice(start, min(start + step, count))))
            for start in range(0, count, step)
        ]
        ids, log_p, log_z = (torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True))
        rows = np.zeros(len(keys), dtype=self._record)
        for row, key in enumerate(keys):
            rows[row]["key"] = np.frombuffer(key, dtype="<u8")
        shape = (len(keys), inputs.ids.shape[1], -1)
        rows["ids"], rows["log_p"] = ids.reshape(shape), log_p.reshape(shape)
        rows["log_z"] = log_z.reshape(shape)
        self._append(rows, keys)

    def _summary(self, logits_CU: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        log_p_CU = logits_CU.float().log_softmax(dim=1)
        log_z = [(log_p_CU / t).logsumexp(dim=1) for t in self._temperatures]
        top = log_p_CU.topk(self._top_k, dim=1)
        # A probability of 0 would be -inf in float16, and 0 * -inf is not a number.
        log_p_CK = top.values.clamp_min(-60000.0).half()
        return top.indices, log_p_CK, torch.stack(log_z, dim=1)

    def _append(self, rows: np.ndarray, keys: Sequence[bytes]) -> None:
        fresh = {key: row for row, key in enumerate(keys) if key not in self._place}
        for row in fresh.values():
            rows[row]["check"] = zlib.crc32(rows[row].tobytes()[4:])
        try:
            with self._path.open("ab") as file:
                begin = file.tell() // self._record.itemsize
                file.write(rows[list(fresh.values())].tobytes())
        except OSError as error:
            raise cannot_write(self._path, error) from error
        self._place |= {key: begin + number for number, key in enumerate(fresh)}

    def _read(self, places: Sequence[int]) -> np.ndarray:
        rows = np.empty(len(places), dtype=self._record)
        with self._path.open("rb") as file:
            for number, place in enumerate(places):
                file.seek(place * self._record.itemsize)
                raw = file.read(self._record.itemsize)
                if len(raw) < self._record.itemsize or zlib.crc32(raw[4:]) != _check(raw):
                    raise ArtifactError(
                        f"{self._path}: the stored teacher pass is damaged at row {place}. "
                        f"Delete {self._path.parent} and run the same command again"
                    )
                rows[number] = np.frombuffer(raw, dtype=self._record)[0]
        return rows

    def _find_rows(self) -> dict[bytes, int]:
        """Where each stored row is. A row that a kill has torn at the end is cut off."""
        if not self._path.exists():
            self._path.touch()
            return {}
        size = self._record.itemsize
        whole = self._path.stat().st_size // size
        with self._path.open("r+b") as file:
            file.truncate(whole * size)
        if not whole:
            return {}
        keys = np.memmap(self._path, dtype=self._record, mode="r")["key"]
        return {key.tobytes(): place for place, key in enumerate(keys)}


def _record_type(context: int, top_k: int, temperatures: int, shared: int) -> np.dtype[Any]:
    ids = "<u2" if shared <= 2**16 else "<u4"
    return np.dtype(
        [
            ("check", "<u4"),
            ("key", "<u8", (2,)),
            ("ids", ids, (context, top_k)),
            ("log_p", "<f2", (context, top_k)),
            ("log_z", "<f4", (context, temperatures)),
        ]
    )


def _check(raw: bytes) -> int:
    return int.from_bytes(raw[:4], "little")


def _key(batch: Batch, row: int) -> bytes:
    digest = hashlib.blake2b(batch.input_ids[row].numpy().tobytes(), digest_size=16)
    if batch.segments is not None:
        digest.update(batch.segments[row].numpy().tobytes())
    return digest.digest()


def _bind(folder: Path, binding: Mapping[str, Any]) -> None:
    path = folder / BINDING
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        write_json(path, dict(binding))
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = {}
    wrong = sorted(k for k in binding.keys() | found.keys() if binding.get(k) != found.get(k))
    if wrong:
        raise ArtifactError(
            f"{folder}: holds the teacher pass of another run (it differs in: {', '.join(wrong)}). "
            "Delete it, or choose another distill.cache_folder"
        )
