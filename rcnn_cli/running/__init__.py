"""Running the nodes of a graph, waiting for them, planning them and showing their state."""
