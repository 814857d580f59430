"""DICOM files: reading frames, taking them into a study under pseudonyms, and writing de-identified copies."""

from edgefusion.data.dicom.reader import open_dicom

__all__ = ["open_dicom"]
