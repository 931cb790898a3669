#!/usr/bin/env bash
# Start a Slurm of this one machine and run tools/slurm_train.sh and tools/slurm_test.sh in it, on two CPU ranks.
#   tests/slurm/run.sh
# As root, with Debian's packages slurm-wlm and munge (apt-get install slurm-wlm munge), in the checkout's environment.
# What Slurm writes goes to a folder of its own; the daemons that were started are ended at the end.
set -eu
for program in munged slurmctld slurmd srun; do
    if ! PATH="$PATH:/usr/sbin" command -v "$program" >/dev/null; then
        echo "$program is missing: apt-get install slurm-wlm munge" >&2
        exit 2
    fi
done
export PATH="$PATH:/usr/sbin"
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
host=$(hostname -s)
started=()
end() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
}
trap end EXIT

# Munge: a key and a socket of its own
mkdir -m 755 "$work/munge"
head -c 1024 /dev/urandom >"$work/munge/key"
chmod 400 "$work/munge/key"
chmod 755 "$work"
munged --foreground --force --key-file="$work/munge/key" --socket="$work/munge/socket" --pid-file="$work/munge/pid" \
    --log-file="$work/munge/log" --seed-file="$work/munge/seed" &
started+=($!)

cat >"$work/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$work/munge/socket
CredType=cred/munge
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/linear
ReturnToService=2
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc --all) State=UNKNOWN
PartitionName=cpu Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
mkdir -p "$work/state" "$work/spool"
export SLURM_CONF="$work/slurm.conf"
sleep 1
slurmctld -D &
started+=($!)
slurmd -D &
started+=($!)
for _ in $(seq 30); do
    sinfo --noheader --format=%T 2>/dev/null | grep -q idle && break
    sleep 1
done
sinfo

cd "$root"
python tools/prepare_digits.py --root "$work/digits"
data=()
for split in train val test; do data+=("${split}_dataloader.dataset.data_root=$work/digits"); done
export GPUS=2 GPUS_PER_NODE=2 GRES= CPUS_PER_TASK=1 OMP_NUM_THREADS=1 MASTER_ADDR=127.0.0.1 MASTER_PORT=29511
config=configs/digits/halvit_2xb64_digits.py
tools/slurm_train.sh cpu train "$config" "$work/run" --cfg-options "${data[@]}" train_cfg.max_epochs=1 param_scheduler=None |
    tee "$work/train.log"
grep -q 'GPU number: 2' "$work/train.log"
tools/slurm_test.sh cpu test "$config" "$work/run/epoch_1.pth" --cfg-options "${data[@]}" | tee "$work/test.log"
grep -o 'accuracy/top1: [0-9.]*' "$work/train.log" | tail -1 >"$work/in_training"
grep -o 'accuracy/top1: [0-9.]*' "$work/test.log" | tail -1 | diff - "$work/in_training"

# A rank that fails ends the job, and srun says so.
if tools/slurm_train.sh cpu fails "$config" "$work/fails" --cfg-options "${data[@]}" optim_wrapper.optimizer.type=Absent; then
    echo 'a training that failed ended with 0' >&2
    exit 1
fi
echo "Slurm $(srun --version): train, test and failure went as they should."
