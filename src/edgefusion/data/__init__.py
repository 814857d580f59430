"""Frames and masks: reading, ingesting, splitting by patient."""
