"""Named model shapes: the fields in which each differs from `tally-51m`."""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "tally-51m": {},
    "tally-51m-llama": {
        "mlp_type": "swiglu",
        "intermediate_size": 1368,
        "proj_bias": False,
        "mlp_out_bias": False,
        "rope_layout": "half",
    },
}
