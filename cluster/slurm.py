"""A batch script for Slurm that makes the cluster, runs the spec on it, and takes it down."""

from __future__ import annotations

import shlex

from raymill.errors import UsageError

from .project import Project
from .spec import ClusterSpec

_SCRIPT = r"""#!/bin/bash
# Made by raymill. Hand it in from the spec's folder: sbatch {file}
#SBATCH --job-name={name}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task={cpus}
#SBATCH --mem={memory}M
#SBATCH --time={time}
#SBATCH --signal=B:TERM@120
{extra}
set -euo pipefail
umask 077
{setup}
export RAYMILL_HOME="${{RAYMILL_HOME:-$SLURM_SUBMIT_DIR/.raymill}}"
# Every node reads the token from the shared disk; only this user can.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$RAYMILL_HOME/slurm-$SLURM_JOB_ID.token"
export RAY_USAGE_STATS_ENABLED=0 RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=1 OMP_WAIT_POLICY=PASSIVE
mkdir -p "$RAYMILL_HOME"
python -c 'import secrets; print(secrets.token_hex(32), end="")' > "$RAY_AUTH_TOKEN_PATH"

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head="${{nodes[0]}}"
address="$(srun --nodes=1 --ntasks=1 -w "$head" hostname --ip-address | awk '{{print $1}}')"
port=$((20000 + SLURM_JOB_ID % 20000))
common="--block --disable-usage-stats --num-cpus={cpus} --num-gpus={gpus}"

started=()
finish() {{
    kill "${{started[@]}}" 2>/dev/null || true
    wait
    rm -f "$RAY_AUTH_TOKEN_PATH"
}}
trap finish EXIT

srun --nodes=1 --ntasks=1 --overlap -w "$head" \
    ray start --head --node-ip-address="$address" --port="$port" --include-dashboard=true \
    --dashboard-host=127.0.0.1 $common &
started+=($!)
export RAY_ADDRESS="$address:$port"
until ray status >/dev/null 2>&1; do
    kill -0 "${{started[0]}}"  # the head must not have ended
    sleep 2
done
for node in "${{nodes[@]:1}}"; do
    srun --nodes=1 --ntasks=1 --overlap -w "$node" ray start --address="$RAY_ADDRESS" $common &
    started+=($!)
done

# In the background, so that Slurm's TERM before the time limit reaches it: it then stops after
# the step it is in, and the same script goes on from there.
cd "$SLURM_SUBMIT_DIR"
{command} &
run=$!
trap 'kill -TERM "$run" 2>/dev/null || true' TERM
code=0
wait "$run" || code=$?
if kill -0 "$run" 2>/dev/null; then wait "$run" || code=$?; fi
exit "$code"
"""


def batch_script(spec: ClusterSpec, project: Project, file: str) -> str:
    """The script, to be kept as `file` beside the spec. Slurm's nodes must share the spec's disk.

    Raises:
        UsageError: the spec has several kinds of workers, which one allocation can't hold.
    """
    if len(spec.nodes.workers) != 1:
        raise UsageError("a batch job of Slurm has nodes of one kind, but cluster.nodes.workers "
                         f"has {len(spec.nodes.workers)} groups", cure="Keep one group.")
    group, slurm = spec.nodes.workers[0], spec.slurm
    options = {"partition": slurm.partition, "account": slurm.account,
               "gpus-per-node": group.gpus or None}
    return _SCRIPT.format(
        file=shlex.quote(file), name=project.label, nodes=group.max, time=slurm.time,
        cpus=int(group.cpus), gpus=group.gpus, memory=round(group.memory_gb * 1024),
        extra="\n".join(f"#SBATCH --{key}={value}" for key, value in options.items() if value),
        setup="\n".join(slurm.setup), command=shlex.join(project.command()),
    )
