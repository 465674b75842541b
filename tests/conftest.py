"""Settings of the whole suite."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.built_once import BuiltOnce, shared_place

# Before any library starts its threads: as `make test` and the commands that tests start have it, so that bits agree.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shared machine pauses now and then: how long an example takes says nothing about its correctness. The examples are
# the same each time, so that what fails is what was changed; `make fuzz` draws new ones, and many more.
EXAMPLES = int(os.environ.get("RCNN_FUZZ_EXAMPLES", "0"))
drawn_anew = {"max_examples": EXAMPLES, "derandomize": False} if EXAMPLES else {"derandomize": True}
settings.register_profile("project", deadline=None, print_blob=True, **drawn_anew)
settings.load_profile("project")


@pytest.fixture(scope="module")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BuiltOnce]:
    """Folders that are built once per test run and shared by its workers; a module that changes one fails."""
    shared = BuiltOnce(shared_place(tmp_path_factory.getbasetemp()))
    yield shared
    assert shared.changed() == [], "changed, although other tests read them: take a copy"
