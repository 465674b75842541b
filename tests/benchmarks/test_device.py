"""`benchmarks.device`: what it counts, and that the command prints its table."""

from __future__ import annotations

import pytest
import torch

from benchmarks.device import bare_pass, main, matrix_rate, operations, ratio
from benchmarks.extraction import Case, recipe


def test_operations_of_tnet_by_hand():
    """Twice the multiplications of conv1 to fc7 (1.44 GFLOP), and of the sums across channels in norm1 and norm2."""
    convolutions = 55**2 * 96 * 363 + 27**2 * 256 * 1200 + 13**2 * (384 * 2304 + 384 * 1728 + 256 * 1728)
    sums = 27**2 * 96**2 + 13**2 * 256**2
    assert operations(Case("tnet", "bfloat16")) == 2 * (convolutions + 9216 * 4096 + 4096**2 + sums)


def test_every_bare_pass_computes_the_same_features():
    case = Case("squeezenet1_0", "float32", batch_size=2)
    found: list[torch.Tensor] = []
    for way in ("contiguous", "channels-last"):
        torch.manual_seed(0)
        features = bare_pass(way, case, recipe(case)[1].load("cpu"))()
        assert isinstance(features, torch.Tensor)
        found.append(features)
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)
    assert found[0].shape == (2, 2048)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_replayed_graph_is_a_pass():
    case = Case("squeezenet1_0", "float16", batch_size=2, device="cuda")
    assert bare_pass("graph", case, recipe(case)[1].load("cuda", "float16"))() is None
    assert matrix_rate(case) > 1e12


def test_ratios_are_medians_of_the_rounds():
    assert ratio([1.0, 4.0, 9.0], [1.0, 2.0, 3.0]) == 2.0
    assert ratio(None, [1.0]) is None


def test_the_command_prints_a_line_for_what_the_device_has(capsys):
    line = "--device cpu --networks squeezenet1_0 --precisions float32 float16 --variants channels-last graph stage"
    main([*line.split(), "--images", "1", "--regions", "3", "--batch-size", "2", "--rounds", "1"])
    printed = capsys.readouterr()
    assert "float16 needs CUDA; left out" in printed.err
    head, _, row = [cells.strip("| ").split(" | ") for cells in printed.out.splitlines() if cells.startswith("|")]
    found = dict(zip(head, row, strict=True))
    assert found["graph"] == "-"
    assert all(float(found[way].replace(",", "")) > 0 for way in ("channels-last", "stage", "limit"))
    assert float(found["stage / channels-last"]) > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_missing_device_is_told(capsys):
    with pytest.raises(SystemExit):
        main(["--device", "cuda"])
    assert "PyTorch found no CUDA device; use --device cpu" in capsys.readouterr().err
