"""Put pip into a virtual environment that was made without it, as Debian's Python does.

    .venv/bin/python scripts/get_pip.py

Runs pip's own wheel, which can install itself, from the package index (PIP_INDEX_URL, by default
PyPI) after checking its SHA-256.
"""

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path

VERSION = "26.0"
PYPI = "https://pypi.org/simple"


def main() -> None:
    """Fetch, check and run pip's wheel."""
    page = os.environ.get("PIP_INDEX_URL", PYPI).rstrip("/") + "/pip/"
    with urllib.request.urlopen(page, timeout=60) as answer:
        listing = answer.read().decode()
    name = f"pip-{VERSION}-py3-none-any.whl"
    link = re.search(rf'href="([^"#]*{re.escape(name)})#sha256=([0-9a-f]{{64}})"', listing)
    if link is None:
        sys.exit(f"error: {page} does not list {name}")
    address = urllib.parse.urljoin(page, link[1])
    with urllib.request.urlopen(address, timeout=60) as answer:
        wheel = answer.read()
    if hashlib.sha256(wheel).hexdigest() != link[2]:
        sys.exit(f"error: {address} is damaged. Try again")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        file.write_bytes(wheel)
        pip = [sys.executable, str(file / "pip"), "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--quiet", str(file)], check=True)


if __name__ == "__main__":
    main()
