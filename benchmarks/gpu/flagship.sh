#!/usr/bin/env bash
# Trains tally-51m on packs of tokens for some minutes, without a network, and leaves its weights.
#
#   benchmarks/gpu/flagship.sh --work FOLDER [--pack PACK]... [--minutes 7] [--out RESULTS]
#                              [--send int8-1] [--wheels FOLDER] [--recipe FILE] [--rehearse]
#
# It unpacks each PACK into FOLDER, trains for so many minutes on all packs that FOLDER holds, and
# copies a shipment of the weights to RESULTS: files of at most 16 MiB, 60 MiB in all. Then it needs
# about a minute more. FOLDER stays: called again there, with another pack or more minutes, it continues
# from its checkpoint. With --minutes 0 it only unpacks, and sends what an earlier call has made:
#
#   flagship.sh --work W --pack pack-1 --minutes 0                    the first pack
#   flagship.sh --work W --pack pack-2 --minutes 7 --out R            the second; trains; int8
#   flagship.sh --work W --minutes 0 --send bf16-1 --out R            then bf16-2, and so on
#
# restore.py makes a model folder of what was sent. PYTHON names the interpreter (python3).
set -eu
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}
work='' out='' wheels='' minutes=7 send=int8-1 recipe=$here/flagship.yaml rehearse=''
packs=() limits=()
while (($#)); do
  case $1 in
    --work) work=$2; shift 2 ;;
    --pack) packs+=("$2"); shift 2 ;;
    --minutes) minutes=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    --send) send=$2; shift 2 ;;
    --wheels) wheels=$2; shift 2 ;;
    --recipe) recipe=$2; shift 2 ;;
    --file-mib | --shipment-mib) limits+=("$1" "$2"); shift 2 ;;
    --rehearse) rehearse=--rehearse; shift ;;
    *) echo "flagship.sh: unknown argument $1; see the top of the file" >&2; exit 2 ;;
  esac
done
[ -n "$work" ] || { echo "flagship.sh: give --work FOLDER" >&2; exit 2; }
mkdir -p "$work"
work=$(cd "$work" && pwd)
export PYTHONPATH=$here/../../src:$work/site PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
if [ -n "$wheels" ]; then
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --upgrade \
    --target "$work/site" "$wheels"/*.whl
fi
if ((${#packs[@]})); then
  "$python" "$here/unpack.py" "${packs[@]}" --out "$work/run"
fi
if [ "$minutes" != 0 ]; then
  "$python" "$here/flagship.py" "$recipe" --work "$work" --minutes "$minutes" "${limits[@]}" $rehearse
fi
if [ -n "$out" ]; then
  mkdir -p "$out"
  cp "$work/parts/$send"/* "$out/"
  ls -l "$out"
fi
