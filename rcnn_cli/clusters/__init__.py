"""Running one recipe on many machines: shards, Slurm, Dask."""
