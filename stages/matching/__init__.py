"""Boxes beside the objects of annotations: which region covers what, and which is an example of nothing."""
