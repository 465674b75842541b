"""The pipeline's stages, one folder each, and what they share; independent of the command line."""
