"""Import of checkpoints and LoRA adapters of the earlier public system of this name.

The weights need no arithmetic. That system rotates the channel pairs x[0::2], x[1::2] and
concatenates the halves; so do we for the "interleaved" layout (see model/rope.py), and scores do
not depend on an order of channels that queries and keys share.
"""

from tallyformer.export.reference.adapter import import_reference_adapter
from tallyformer.export.reference.checkpoint import import_reference

__all__ = ["import_reference", "import_reference_adapter"]
