"""One recipe on many machines: shards, Slurm, Dask."""
