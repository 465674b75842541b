"""Image files and videos as arrays of pixels, and regions of them warped to a network's input."""
