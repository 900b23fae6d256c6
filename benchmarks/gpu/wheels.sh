#!/usr/bin/env bash
# Downloads what a GPU machine without a network lacks, as wheels for its Python and system.
#
#   benchmarks/gpu/wheels.sh FOLDER [PACKAGE...]
#
# Versions are those of requirements.lock; nothing that a package needs comes with it, so name that
# too. Without names: what the package needs beyond torch, transformers, PEFT and common tools. For
# flagship.sh alone zstandard can stay behind. PYTHON_VERSION (3.12) and PLATFORMS name the target,
# PYTHON the interpreter whose pip downloads (python3).
set -eu
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ $# -ge 1 ] || { echo "wheels.sh: give a folder; see the top of the file" >&2; exit 2; }
folder=$1
shift
[ $# -ge 1 ] || set -- pydantic pydantic-core annotated-types typing-inspection zstandard
system=()
for platform in ${PLATFORMS:-manylinux_2_28_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64}; do
  system+=(--platform "$platform")
done
"${PYTHON:-python3}" -m pip download --quiet --no-deps --only-binary=:all: \
  --python-version "${PYTHON_VERSION:-3.12}" --implementation cp "${system[@]}" \
  --constraint "$here/../../requirements.lock" --dest "$folder" "$@"
du -ch "$folder"/*.whl
