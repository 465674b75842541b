"""Trained detectors as single files, and their networks as ONNX."""
