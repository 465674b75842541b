"""The nodes of a graph run, waited for, planned and asked for their state."""
