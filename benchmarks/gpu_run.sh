#!/usr/bin/env bash
# Everything that needs a GPU, in two parts of under nine minutes each:
#
#   benchmarks/gpu_run.sh kernels         tests, compute-sanitizer, the region index, benchmarks of the kernels
#   benchmarks/gpu_run.sh training        our GRPO step against TRL's, on the shape of a 3B model
#
# Without an argument both, one after the other. Needs an NVIDIA GPU, torch, triton, pytest, pytest-benchmark; nvcc for
# the region index; transformers 5.23 for training, and TRL, datasets, accelerate and torchvision to compare with.
#
# A step that fails is reported and the others still run; the exit status is 0 when all passed, 1 when one failed, 2
# without a GPU. Results: benchmarks/results/<gpu>_<date>.json and what each benchmark writes; all of it and the log
# are copied to $OUT when that is set.
#
# Without a network, what the machine lacks comes as files in the folder GEOGRPO_GPU_FILES (.gpu): wheels, which are
# unpacked into a folder of their own (GEOGRPO_SITE), and Natural Earth's countries. For a machine with Python 3.12,
# torch 2.11, triton 3.6, transformers and pytest, prepare once, in the root of the repository:
#
#   echo /.gpu/ >>.git/info/exclude
#   python3 -m pip download -d .gpu --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
#     --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
#     jsonargparse==4.53.0 typeshed-client reverse_geocode==1.6.6 liger-kernel==0.8.5 cut-cross-entropy==25.1.1 \
#     trl==1.16.0 datasets dill==0.4.1 multiprocess==0.70.19 transformers==5.23.0 pyproj==3.7.2
#   cp ../shared/data/naturalearth/ne_10m_admin_0_countries.geojson.gz .gpu/
#
# and there, for each part: run(command="bash benchmarks/gpu_run.sh PART", carry=[".gpu"], timeout_s=600)
# TRL then runs in the same Python as ours, on the transformers that was carried. An environment of its own is
# GEOGRPO_PEER_PYTHON; where TRL is missing, training is measured without it and the rows say why.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

python=${PYTHON:-python3}
files=${GEOGRPO_GPU_FILES:-.gpu}
site=${GEOGRPO_SITE:-/tmp/geogrpo_site}
part=${1:-all}
if [[ ! $part =~ ^(all|kernels|training)$ ]]; then
  echo "usage: benchmarks/gpu_run.sh [kernels|training]"
  exit 2
fi
logs=$(mktemp -d)
log=$logs/gpu_run.log
limit_s=525
[[ $part == all ]] && limit_s=1050
started=$SECONDS
summary=()
num_failed=0

export PYTHONPATH=kernels:.:${PYTHONPATH:-} PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 GEOGRPO_KERNELS=auto
unset TRITON_INTERPRET

say() { printf '%s\n' "$*" | tee -a "$log"; }

# step NAME SECONDS COMMAND...: run it under its own limit, or under what is left of the whole
step() {
  local name=$1 seconds=$2 left=$((limit_s - SECONDS + started)) began=$SECONDS status
  shift 2
  say "== $name"
  if ((left < 5)); then
    status=124
  else
    timeout --kill-after=5 "$((seconds < left ? seconds : left))" "$@" 2>&1 | tail -n 60 | tee -a "$log"
    status=${PIPESTATUS[0]}
  fi
  record "$name" "$status" "$((SECONDS - began))"
}

# record NAME STATUS SECONDS
record() {
  local verdict=passed
  if ((${2} == 124 || ${2} == 137)); then
    verdict="FAILED: out of time"
  elif ((${2} != 0)); then
    verdict="FAILED: status $2"
  fi
  ((${2} == 0)) || num_failed=$((num_failed + 1))
  summary+=("$1: $verdict, $3 s")
}

# skip NAME REASON
skip() {
  say "== $1: skipped, $2"
  summary+=("$1: skipped, $2")
}

if ! gpu=$("$python" -c 'import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else "")'); then
  say "$python cannot import torch: nothing was run"
  exit 2
fi
if [[ -z $gpu ]]; then
  say "There is no GPU that torch can use: nothing was run."
  exit 2
fi
name=$(tr -cs '[:alnum:]' '_' <<<"${gpu,,}")
result=benchmarks/results/${name%_}_$(date +%Y-%m-%d).json
step_result=benchmarks/results/train_step_${name%_}_$(date +%Y-%m-%d).json
export GEOGRPO_HEAD_RESULTS=$result GEOGRPO_TRAIN_STEP_RESULTS=$step_result
export GEOGRPO_PEER_PYTHON=${GEOGRPO_PEER_PYTHON:-$(command -v "$python")}
say "$gpu, $("$python" -c 'import torch, triton; print("torch", torch.__version__, "triton", triton.__version__)')"
[[ $part == training ]] || rm -f "$result"
[[ $part == kernels ]] || rm -f "$step_result"

if compgen -G "$files/*.whl" >/dev/null; then
  step "unpack wheels" 60 "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade \
    --target "$site" "$files"/*.whl
  # Before what is installed: carry no torch, triton or numpy.
  PYTHONPATH=$PYTHONPATH:$site
else
  say "no wheels in $files: peers and packages that are not installed are skipped"
fi
if [[ -z ${GEOGRPO_NATURAL_EARTH:-} && -f $files/ne_10m_admin_0_countries.geojson.gz ]]; then
  export GEOGRPO_NATURAL_EARTH=$PWD/$files/ne_10m_admin_0_countries.geojson.gz
fi
if ! "$python" -c 'import pytest, pytest_benchmark'; then
  say "pytest and pytest-benchmark are not installed: add their wheels (and pluggy, iniconfig, py-cpuinfo) to $files"
  exit 1
fi

pytest=("$python" -m pytest -q -p no:cacheprovider --benchmark-disable-gc "--benchmark-columns=median,min,rounds")

run_kernels() {
  # The compiler works while the GPU is tested; timings start when it has finished.
  build=""
  if command -v nvcc >/dev/null || [[ -x /usr/local/cuda/bin/nvcc ]]; then
    timeout --kill-after=5 150 "$python" setup.py -q build_ext --inplace >"$logs/build.log" 2>&1 &
    build=$!
  fi

  step "kernel tests" 130 "${pytest[@]}" tests/kernels
  step "in-place kernel against separate memory" 40 "$python" benchmarks/in_place_kernel.py
  sanitizer=$(command -v compute-sanitizer || compgen -G '/usr/local/cuda*/bin/compute-sanitizer' | head -n 1)
  if [[ -n $sanitizer ]]; then
    for tool in racecheck memcheck; do
      step "compute-sanitizer $tool" 40 "$sanitizer" --tool "$tool" --error-exitcode 9 \
        "$python" benchmarks/in_place_kernel.py small
    done
  else
    skip "compute-sanitizer" "it is not installed"
  fi

  if [[ -n $build ]]; then
    began=$SECONDS
    wait "$build"
    status=$?
    tail -n 20 "$logs/build.log" | tee -a "$log"
    record "region index built with nvcc (waited for)" "$status" "$((SECONDS - began))"
    mapfile -t marked < <(grep -rl --include='test_*.py' 'pytest.mark.gpu' tests | grep -v '^tests/kernels/')
    step "other tests marked gpu" 40 "${pytest[@]}" -m gpu "${marked[@]}"
    step "region lookups" 45 "${pytest[@]}" benchmarks/bench_regions_cuda.py
  else
    skip "region index" "there is no nvcc"
  fi

  step "log-probs" 130 "${pytest[@]}" benchmarks/bench_logprobs.py
  step "policy loss, chunk sweep" 120 "${pytest[@]}" benchmarks/bench_policy_loss.py
  step "distances" 40 "${pytest[@]}" benchmarks/bench_distances.py
}

run_training() {
  step "our training step and TRL's" 500 "${pytest[@]}" benchmarks/bench_train_step.py
}

[[ $part == training ]] || run_kernels
[[ $part == kernels ]] || run_training

say ""
if [[ -f $result && $part != training ]]; then
  "$python" benchmarks/head_results.py "$result" --all | tee -a "$log"
  say "results: $result"
fi
if [[ -f $step_result && $part != kernels ]]; then
  "$python" benchmarks/train_step_results.py "$step_result" | tee -a "$log"
  say "results: $step_result"
fi
say "" "$((SECONDS - started)) s"
for entry in "${summary[@]}"; do say "$entry"; done
if [[ -n ${OUT:-} ]]; then
  cp "$log" "$OUT/"
  find benchmarks/results -name '*.json' -newer "$logs" -exec cp {} "$OUT/" \;
fi
((num_failed == 0))
