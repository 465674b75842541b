"""Settings of the whole suite."""

import os

from hypothesis import settings

# A shared machine pauses now and then: how long an example takes says nothing about its correctness. The examples are
# the same each time, so that what fails is what was changed; `make fuzz` draws new ones, and many more.
EXAMPLES = int(os.environ.get("RCNN_FUZZ_EXAMPLES", "0"))
drawn_anew = {"max_examples": EXAMPLES, "derandomize": False} if EXAMPLES else {"derandomize": True}
settings.register_profile("project", deadline=None, print_blob=True, **drawn_anew)
settings.load_profile("project")
