"""Image files and videos as arrays of pixels, and regions of them warped to a network's input."""

from stages.images.reading import image_size, read_image

__all__ = ["image_size", "read_image"]
