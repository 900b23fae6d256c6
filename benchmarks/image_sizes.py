"""What the images of compose.yaml take, beside their bases. Run `make images` first.

    python benchmarks/image_sizes.py > benchmarks/results/DATE-images.json

The bases differ between registries and days. Ours is what the page's image adds to its base, and
the layers of the API's image above its lowest, which is what is left of its base.
"""

from __future__ import annotations

import datetime
import json
import platform
import subprocess
from typing import Any

PARTS = """
import json, pathlib
def size(folder):
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file() and not f.is_symlink())
packages = next(pathlib.Path("/opt/tallyformer/lib").glob("python*")) / "site-packages"
parts = {entry.name: size(entry) for entry in packages.iterdir() if entry.is_dir()}
largest = sorted(parts, key=parts.get, reverse=True)[:8]
print(json.dumps({"/model": size(pathlib.Path("/model")), **{n: parts[n] for n in largest}}))
"""


def docker(*words: str) -> str:
    return subprocess.run(["docker", *words], check=True, capture_output=True, text=True).stdout


def size(image: str) -> int:
    return int(docker("image", "inspect", "--format", "{{.Size}}", image))


def layers(image: str) -> list[int]:
    """Bytes of an image's layers, the lowest first."""
    sizes = docker("history", "--human=false", "--format", "{{.Size}}", image).split()
    return [int(bytes) for bytes in reversed(sizes) if bytes != "0"]


def measured(image: str, base: str, holds_the_base: bool) -> dict[str, Any]:
    whole, below = size(image), size(base)
    found = {"bytes": whole, "base": base, "base_bytes": below}
    if holds_the_base:
        return {**found, "ours_bytes": whole - below}
    left, *ours = layers(image)
    return {**found, "left_of_the_base_bytes": left, "ours_bytes": sum(ours)}


if __name__ == "__main__":
    alone = ("run", "--rm", "--network", "none", "--entrypoint", "python", "tallyformer-api")
    result = {
        "what": "sizes of the images of compose.yaml, as `docker image inspect` has them",
        "command": "python benchmarks/image_sizes.py",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": platform.machine(),
        "images": {
            "tallyformer-api": measured("tallyformer-api", "python:3.11-slim", False),
            "tallyformer-web": measured("tallyformer-web", "nginx:1.28-alpine", True),
        },
        "largest_parts_of_the_api_bytes": json.loads(docker(*alone, "-c", PARTS)),
    }
    print(json.dumps(result, indent=2))
