#!/bin/bash
#SBATCH --job-name=stable
#SBATCH --time=12:00:00
#SBATCH --gpus=1
#SBATCH --signal=USR1@300
#SBATCH --open-mode=append
srun mdsim train --config-yml configs/stable_training/aspirin_gfn2/train.yml --resume
if [ $? -eq 75 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
