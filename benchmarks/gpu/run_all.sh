#!/usr/bin/env bash
# Measures what only a GPU can show, unattended and without a network, in at most 8 minutes.
#
#   benchmarks/gpu/run_all.sh --out RESULTS [--nanogpt CHECKOUT] [--wheels FOLDER] [--seconds 470]
#                             [--rehearse]
#
# Every step has a time limit, leaves RESULTS/<step>.json, and stops no other. RESULTS/summary.md is
# rewritten after each step, RESULTS/logs.txt at the end: eight files at most.
#   --nanogpt    a checkout of karpathy/nanoGPT to compare with; without it: "not measured"
#   --wheels     what wheels.sh brought, installed for this run alone
#   --seconds    for all steps together; the summary takes a few more
#   --rehearse   the same on a CPU with tiny sizes, to find slips before a GPU is there
# PYTHON names the interpreter (python3).
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-python3}
all=470   # the last ten of the eight minutes are for the summary
least=5   # with fewer seconds left a step is not begun
out='' nanogpt='' wheels='' rehearse='' slower=1
while (($#)); do
  case $1 in
    --out) out=$2; shift 2 ;;
    --nanogpt) nanogpt=$2; shift 2 ;;
    --wheels) wheels=$2; shift 2 ;;
    --seconds) all=$2; shift 2 ;;
    --rehearse) rehearse=--rehearse slower=5; shift ;; # a busy CPU is not a reason to fail
    *) echo "run_all.sh: unknown argument $1; see the top of the file" >&2; exit 2 ;;
  esac
done
[ -n "$out" ] || { echo "run_all.sh: give --out RESULTS" >&2; exit 2; }
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 1
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
[ -z "$nanogpt" ] || nanogpt=$(cd "$nanogpt" && pwd)
[ -z "$wheels" ] || wheels=$(cd "$wheels" && pwd)
cd "$root" || exit 1
export PYTHONPATH=$root/src:$scratch/site PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1

step() { # NAME LIMIT COMMAND...
  local name=$1 limit=$(($2 * slower)) left=$((all * slower - SECONDS)) began=$SECONDS status=125
  shift 2
  ((limit < left)) || limit=$left
  echo "$name: at most $limit s" >&2
  if ((limit >= least)); then
    timeout --kill-after=3 "$limit" "$@" >"$scratch/$name.log" 2>&1
    status=$?
  else
    echo "no time was left" >"$scratch/$name.log"
  fi
  "$python" "$here/record.py" --out "$out" --step "$name" --exit "$status" \
    --seconds $((SECONDS - began)) --limit "$limit" --log "$scratch/$name.log" -- "$@"
}

if [ -n "$wheels" ]; then
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$scratch/site" \
    "$wheels"/*.whl >"$scratch/wheels.log" 2>&1 || cat "$scratch/wheels.log" >&2
fi
if [ -n "$rehearse" ]; then
  size=(--shape tiny --device cpu --batch 2 --context 32 --rounds 2 --steps 1 --compile off --profile 1)
else
  size=(--device cuda --batch 128 --rounds 5 --steps 20 --profile 5)
fi
step machine 40 "$python" "$here/machine.py" --out "$out/machine.json" $rehearse
step tests 130 "$python" "$here/gpu_tests.py" --out "$out/tests.json" $rehearse
step train-step 150 "$python" "$root/benchmarks/train_step.py" "${size[@]}" --share \
  ${nanogpt:+--nanogpt "$nanogpt"} --out "$out/train-step.json"
step distillation 60 "$python" "$here/distillation_step.py" --out "$out/distillation.json" $rehearse
step generation 80 "$python" "$here/generation.py" --out "$out/generation.json" $rehearse
step inference 150 "$python" "$here/inference.py" --out "$out/inference.json" $rehearse
for log in "$scratch"/*.log; do
  echo "== ${log##*/}"
  tail -c 1000000 "$log"
done >"$out/logs.txt"
cat "$out/summary.md"
