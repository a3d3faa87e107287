#!/usr/bin/env bash
# All that is to be known on a GPU, in about nine minutes:
#   tests/gpu/check.sh OUT             on a machine with a CUDA device, nvcc and compute-sanitizer; no network is needed
#   tests/gpu/check.sh --dry-run OUT   the same steps on the CPU with tiny sizes: that the script itself works
# Every step has a cap of its own; one that fails or is stopped does not stop the others. What a step finds is in OUT as
# soon as it is found: steps.jsonl, tests.jsonl, sanitizer.jsonl, training.jsonl, study.jsonl, a record of `poolnb bench`,
# log.txt, and in the end record.json with all of it. The exit status is 0 if every step passed.
# Settings: PYTHON (the interpreter), WORKERS (processes that run tests), CAP (seconds, in place of every step's own),
# POOLNB_DATA (the data sets, for the study), POOLNB_SOFTPOOL (the sources of SoftPool's extension, to measure it too).
set -u

dry=
if [ "${1-}" = --dry-run ]; then dry=1; shift; fi
if [ $# -ne 1 ]; then echo "usage: tests/gpu/check.sh [--dry-run] OUT" >&2; exit 2; fi
mkdir -p "$1" || exit 2
OUT=$(cd "$1" && pwd)
cd "$(dirname "$0")/../.." || exit 2
here=tests/gpu
PYTHON=${PYTHON:-python3}
export PYTHONPATH=$PWD:$PWD/$here${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1
export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1  # what else is installed for pytest is no matter here
rm -f "$OUT"/*.jsonl "$OUT"/*.json
status=0

# step NAME CAP COMMAND...
step() {
  local name=$1 cap=${CAP:-$2} began=$SECONDS code
  shift 2
  echo "== $name (at most $cap s)"
  timeout --kill-after=5 "$cap" "$@"
  code=$?
  echo "{\"step\": \"$name\", \"status\": $code, \"seconds\": $((SECONDS - began)), \"cap\": $cap}" >>"$OUT/steps.jsonl"
  [ $code -eq 0 ] || status=1
}

# The files whose tests run on a device; no others are read, so nothing that they import need be installed.
pytest() {
  local files
  files=$(grep -l "^from devices import" tests/test_*.py tests/native/test_*.py)
  step tests "$1" "$PYTHON" -m pytest -q -p no:cacheprovider -p xdist.plugin -p lines --lines "$OUT/tests.jsonl" \
    -o addopts="--import-mode=importlib --strict-markers" "${@:2}" $files
}

main() {
  if [ $dry ]; then
    step build 300 "$PYTHON" $here/build.py cpu
    pytest 300 --device cpu:0 -n 2 -k "soft and (test_global or test_draws or test_an_empty or test_all_masked)"
    step sanitizer 120 "$PYTHON" $here/sanitize.py "$OUT/sanitizer.jsonl" --device cpu
    step bench 120 "$PYTHON" -m poolnb bench --results "$OUT" --seconds 0 --shape 1 4 8 8 --operators soft tdgs \
      --kernels compiled pytorch --windows k2s2 k3s2p1 --dtypes float32 bfloat16
    step rivals 240 "$PYTHON" -m poolnb bench --results "$OUT" --seconds 0 --shape 1 4 8 8 --operators soft \
      --kernels plain published --windows k2s2 --layouts nchw
    step training 200 "$PYTHON" $here/training.py "$OUT/training.jsonl" --device cpu --at-once 1 2 --steps 2
    study 120 tests/gpu/dry-run.toml --workers 1
  else
    TORCH_CUDA_ARCH_LIST=$("$PYTHON" -c 'import torch; print("%d.%d" % torch.cuda.get_device_capability())') &&
      export TORCH_CUDA_ARCH_LIST
    step build 60 "$PYTHON" $here/build.py cuda
    pytest 170 --device cuda -n "${WORKERS:-15}"
    step sanitizer 60 "$PYTHON" $here/sanitize.py "$OUT/sanitizer.jsonl" --device cuda
    step bench 60 "$PYTHON" -m poolnb bench --device cuda --results "$OUT" --seconds 0.5 --kernels compiled \
      --windows k2s2 k3s2p1 k3s1p1 --dtypes float32 float16 bfloat16 --layouts channels_last nchw
    step rivals 60 "$PYTHON" -m poolnb bench --device cuda --results "$OUT" --seconds 0.3 --layouts nchw channels_last \
      --operators soft lse --kernels compiled plain stable published --windows k2s2 k3s2p1
    step training 60 "$PYTHON" $here/training.py "$OUT/training.jsonl" --device cuda --at-once 1 8 16 --steps 100
    study 40 book/experiments/sweeps/comparison.toml --workers 8
  fi
  step record 30 "$PYTHON" $here/record.py "$OUT"
}

# As many runs of a study as the time holds: stopping it is what the cap is for.
study() {
  local runs
  runs=$(mktemp -d)
  step study "$1" "$PYTHON" $here/study.py "$OUT/study.jsonl" "$runs" "$1" "${@:2}"
  rm -rf "$runs"
}

main > >(tee "$OUT/log.txt") 2>&1
wait $! 2>/dev/null  # until the log is written
exit $status
