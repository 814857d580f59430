"""Channels computed from a frame: denoised images and edge maps."""
