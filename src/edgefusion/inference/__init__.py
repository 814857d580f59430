"""From a bundle and a frame to a prediction, and to files."""
