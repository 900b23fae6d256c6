"""Step 1: what the machine is, whether all of the package imports there, and what it reaches.

python benchmarks/gpu/machine.py --out machine.json [--rehearse]
"""

from __future__ import annotations

import importlib
import pkgutil
from collections import Counter
from importlib.util import find_spec

from measuring import read_options, the_device, versions, write_result

OPTIONAL = {"tallyformer.export.llama_cpp": "llama_cpp", "tallyformer.serving.ray_app": "ray"}
"""Modules that need a package which is installed for them alone."""


def main() -> None:
    options = read_options(__doc__)
    device = the_device(options.rehearse)
    import torch
    from peak import copy_bytes, matrix_flops

    from tallyformer.training.compiling import missing_tools

    failed = import_all()
    values = {
        "import_failures": failed,
        "compiler_lacks": [f"{tool.name}: {tool.fix}" for tool in missing_tools(device)],
        "bf16_matrix_flops": matrix_flops(device, torch.bfloat16),
        "copy_bytes_per_second": copy_bytes(device),
    }
    summary = [
        ", ".join(f"{name} {version}" for name, version in versions().items()),
        f"bf16 products {values['bf16_matrix_flops']['median'] / 1e12:.3g} TFLOP/s, "
        f"copies {values['copy_bytes_per_second']['median'] / 1e9:.4g} GB/s",
        *(f"torch.compile lacks {tool}" for tool in values["compiler_lacks"]),
        *(
            f"{count} modules cannot be imported: {reason}"
            for reason, count in Counter(failed.values()).items()
        ),
    ]
    write_result(options.out, "the machine and its peaks", device, {**values, "summary": summary})


def import_all() -> dict[str, str]:
    """Import every module of the package; what fails, with the reason."""
    import tallyformer

    failed = {}
    for module in pkgutil.walk_packages(tallyformer.__path__, "tallyformer."):
        # Those of a database's versions run in Alembic alone.
        if module.name.endswith(".__main__") or ".migrations." in module.name:
            continue
        needs = OPTIONAL.get(module.name)
        if needs is not None and find_spec(needs) is None:
            continue
        try:
            importlib.import_module(module.name)
        except Exception as error:  # any reason is a finding
            failed[module.name] = f"{type(error).__name__}: {error}"
    return failed


if __name__ == "__main__":
    main()
