"""`--shard`: fixed, or the place of this task in an array job, and only where that is asked for."""

import pytest

from cache import CacheError, Shard
from rcnn_cli.clusters.shards import parse_shard
from stages.contract.errors import StageError

SLURM = {"SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_STEP": "1"}
GRID_ENGINE = {"SGE_TASK_FIRST": "1", "SGE_TASK_STEPSIZE": "1", "SGE_TASK_LAST": "8"}


def test_the_environment_of_a_job_does_not_split_a_command_that_did_not_ask():
    everything = {**SLURM, "SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_MIN": "0", "PBS_ARRAY_INDEX": "3"}
    assert parse_shard(None, everything) == Shard(1, 1)
    assert parse_shard("3/16", everything) == Shard(3, 16)


@pytest.mark.parametrize(
    ("environment", "text", "shard"),
    [
        ({**SLURM, "SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_MIN": "0"}, "array", Shard(1, 4)),
        ({**SLURM, "SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_MIN": "1"}, "array", Shard(4, 4)),
        (
            {**SLURM, "SLURM_ARRAY_TASK_ID": "20", "SLURM_ARRAY_TASK_MIN": "10", "SLURM_ARRAY_TASK_STEP": "5"},
            "array",
            Shard(3, 4),
        ),
        ({**SLURM, "SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "3"}, "array/16", Shard(7, 16)),
        ({**GRID_ENGINE, "SGE_TASK_ID": "8"}, "array", Shard(8, 8)),
        ({"SGE_TASK_ID": "2", "SGE_TASK_LAST": "3"}, "array", Shard(2, 3)),
        ({"SGE_TASK_ID": "9", "SGE_TASK_STEPSIZE": "4", "SGE_TASK_LAST": "10"}, "array", Shard(3, 3)),
        ({"LSB_JOBINDEX": "5", "LSB_JOBINDEX_END": "6"}, "array", Shard(5, 6)),
        ({"LSB_JOBINDEX": "5", "LSB_JOBINDEX_END": "6", "LSB_JOBINDEX_STEP": "2"}, "array", Shard(3, 3)),
        ({"PBS_ARRAYID": "2"}, "array/16", Shard(2, 16)),
        ({"PBS_ARRAY_INDEX": "16"}, "array/16", Shard(16, 16)),
        ({"SGE_TASK_ID": "undefined", "LSB_JOBINDEX": "0", "PBS_ARRAY_INDEX": "1"}, "array/2", Shard(1, 2)),
    ],
)
def test_the_place_in_an_array_job(environment, text, shard):
    assert parse_shard(text, environment) == shard


@pytest.mark.parametrize(
    ("environment", "text", "said"),
    [
        ({}, "array", "this is not an array-job task"),
        ({"SGE_TASK_ID": "undefined", "LSB_JOBINDEX": "0"}, "array", "this is not an array-job task"),
        ({"PBS_ARRAY_INDEX": "3"}, "array", "does not say how many tasks there are; write --shard array/N"),
        ({"PBS_ARRAY_INDEX": "0"}, "array/4", "PBS_ARRAY_INDEX = 0 is not one of 4 tasks"),
        ({"PBS_ARRAY_INDEX": "5"}, "array/4", "PBS_ARRAY_INDEX = 5 is not one of 4 tasks"),
        ({**SLURM, "SLURM_ARRAY_TASK_ID": "9", "SLURM_ARRAY_TASK_MIN": "3"}, "array", "submit the array 1-N"),
        ({"PBS_ARRAY_INDEX": "1"}, "array/0", "must be written array/N"),
        ({"PBS_ARRAY_INDEX": "1"}, "array/x", "must be written array/N"),
    ],
)
def test_what_is_no_shard_is_a_sentence(environment, text, said):
    with pytest.raises(StageError, match=r"^--shard ") as error:
        parse_shard(text, environment)
    assert said in str(error.value)


def test_other_words_are_no_shards():
    with pytest.raises(CacheError, match="must be written I/N"):
        parse_shard("arrays", {})
