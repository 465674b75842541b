"""Checkpoints of other trainings, whole and with the right checksum: a sentence, and without them the part is made."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import numpy as np
import pytest

from cache import Writer
from stages.contract.errors import StageError
from stages.train_svm import STAGE, Settings


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"0.weights": np.zeros(5)},
        {"0.weights": np.zeros(12, np.float32)},
        {"0.negatives": np.array([99 << 40])},
        {"0.negatives": np.array([-1])},
        {"0.negatives": np.array([[0]])},
        {"0.next_image": np.array(99)},
        {"0.next_image": np.array([1, 2])},
        {"0.log.image": np.arange(99)},
    ],
    ids=lambda changed: " ".join(changed) or "none of its arrays",
)
def test_a_checkpoint_of_other_svms(
    changed: dict[str, np.ndarray], run_stage: Any, feature_cache: Any, with_classes: Any, scene: Any, monkeypatch: Any
) -> None:
    features = feature_cache(scene(4, 1))
    inputs = with_classes(features, ("cat",))

    def stop(self: Any, part: Any, records: Any, skipped: Any = None) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Writer, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            run_stage(STAGE, Settings(checkpoint_seconds=0), inputs)
    path = next(features.folder.parent.glob("output/checkpoint-*.npz"))
    with np.load(io.BytesIO(path.read_bytes()[32:])) as arrays:
        saved = dict(arrays)
    file = io.BytesIO()
    written: dict[str, Any] = {**saved, **changed} if changed else {"weights": np.zeros(3)}
    np.savez(file, **written)
    path.write_bytes(hashlib.sha256(file.getvalue()).digest() + file.getvalue())
    with pytest.raises(StageError, match="does not fit what is to be trained"):
        run_stage(STAGE, Settings(checkpoint_seconds=0), inputs)
    path.unlink()
    assert run_stage(STAGE, Settings(), inputs).read("cat")["positives"]
