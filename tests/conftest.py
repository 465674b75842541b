"""Settings of the whole suite."""

import os

from hypothesis import settings

# A shared machine pauses now and then: how long an example takes says nothing about its correctness. With CI set the
# examples are the same each time, so that what fails there is what was changed; elsewhere each run draws new ones.
settings.register_profile("project", deadline=None, print_blob=True, derandomize="CI" in os.environ)
settings.load_profile("project")
