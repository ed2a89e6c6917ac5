#!/usr/bin/env bash
# Run a verb of prunekd on every GPU of several hosts under Slurm. The options are prunekd's own:
#   sbatch docker/slurm.sh train /data/store --recipe imagenet_resnet18_16 --subset /data/half.parquet \
#       --teacher timm:resnet34.tv_in1k --out /runs/student --resume auto
# Three minutes before its time is up the job writes a checkpoint and goes back into the queue; with --resume auto it
# takes up where it was. --out must lie on a file system that all hosts share.
# To run in the image: LAUNCHER="apptainer exec --nv --bind /data,/runs prunekd.sif" sbatch docker/slurm.sh ...
# PROCESSES_PER_NODE: processes on each host (default: one for each GPU).
#SBATCH --job-name=prunekd
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
#SBATCH --signal=B:USR1@180
set -euo pipefail

if [ $# -eq 0 ]; then
    echo "usage: sbatch $0 VERB [OPTIONS]: a verb of prunekd with its options, say train STORE --recipe imagenet" >&2
    exit 2
fi
# a new store for each attempt: restarted processes must not find the addresses of dead ones in the old one
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
read -r -a launcher <<< "${LAUNCHER:-}"
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((29500 + SLURM_JOB_ID % 1000))

step=
again() {
    trap - USR1
    echo "time is nearly up: writing a checkpoint, then back into the queue"
    kill -TERM "$step"
    wait "$step" || true
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
}
trap again USR1

# in the background, because bash looks at signals only between commands and in `wait`
srun --kill-on-bad-exit=1 ${launcher[@]+"${launcher[@]}"} python -m torch.distributed.run \
    --nnodes="$SLURM_JOB_NUM_NODES" \
    --nproc-per-node="${PROCESSES_PER_NODE:-gpu}" \
    --rdzv-backend=c10d \
    --rdzv-endpoint="$first:$port" \
    --rdzv-id="$SLURM_JOB_ID" \
    --max-restarts=3 \
    -m prunekd "$@" &
step=$!
wait "$step"
