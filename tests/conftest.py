"""Settings of the whole suite."""

from hypothesis import settings

# A shared machine pauses now and then: how long an example takes says nothing about its correctness.
settings.register_profile("project", deadline=None, print_blob=True)
settings.load_profile("project")
