#!/bin/sh
# Create the virtual environment and install TallyFormer, for training and for serving, with the
# pinned dependencies.
#
#     sh scripts/install.sh [FOLDER]      FOLDER is .venv unless given
#
# PYTHON       interpreter to use (default python3; 3.11 or newer)
# CONSTRAINTS  file of the versions to install (default requirements.lock)
# TORCH_INDEX  package index for torch alone. Without it, a Linux machine that has no NVIDIA
#              driver takes torch's CPU builds from PyTorch's index where that answers, which
#              saves gigabytes.
set -eu
venv=${1:-.venv}
python=${PYTHON:-python3}
constraints=${CONSTRAINTS:-requirements.lock}

if ! command -v "$python" >/dev/null; then
    echo "error: $python not found. Install Python 3.11 or newer, or set PYTHON" >&2
    exit 2
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "error: $("$python" --version) is too old. Install Python 3.11 or newer, or set PYTHON" >&2
    exit 2
fi
if ! [ -x "$venv/bin/python" ] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    rm -rf "$venv"
    if ! "$python" -m venv "$venv" >/dev/null 2>&1; then
        # Debian ships venv without ensurepip.
        rm -rf "$venv"
        if ! "$python" -m venv --without-pip "$venv" >/dev/null 2>&1 ||
            ! "$venv/bin/python" "$(dirname "$0")/get_pip.py"; then
            rm -rf "$venv"
            echo "error: this Python cannot make virtual environments." \
                "Install the package: apt-get install python3-venv" >&2
            exit 2
        fi
    fi
fi

pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }
# In a terminal pip shows what it downloads, with rate and time left.
quiet=--quiet
if [ -t 1 ]; then quiet=; fi

cpu_index=https://download.pytorch.org/whl/cpu
if [ -z "${TORCH_INDEX:-}" ] && [ "$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null; then
    if "$python" - "$cpu_index" <<'PY' 2>/dev/null; then
import sys, urllib.request
urllib.request.urlopen(sys.argv[1] + "/torch/", timeout=5)
PY
        TORCH_INDEX=$cpu_index
    fi
fi

echo "Installing into $venv ..."
pip install --quiet --upgrade "pip>=25.1"
if [ -n "${TORCH_INDEX:-}" ]; then
    # Its dependencies come from the usual index, at the pinned versions, with all the others.
    pip install $quiet --constraint "$constraints" --no-deps --index-url "$TORCH_INDEX" torch
fi
pip install $quiet --constraint "$constraints" --editable ".[train,serve,bench]"
