"""Named model shapes, as what differs from `TallyFormerConfig`'s defaults. Loads without torch."""

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "tally-51m": {},
    # The same size in Llama's shape, so that software which knows Llama can run it: see llama.py.
    # Three matrices of 1,368 cost what two of 2,048 do.
    "tally-51m-llama": {
        "mlp_type": "swiglu",
        "intermediate_size": 1368,
        "proj_bias": False,
        "mlp_out_bias": False,
        "rope_layout": "half",
    },
}
