"""The engine from Python: `Detector` for photos, `Session` for tensors. Needs numpy, Pillow and the native library, no torch."""

from mpqyolo.runtime.detector import Detector
from mpqyolo.runtime.session import Layer, Model, Session, SessionInfo

__all__ = ["Detector", "Layer", "Model", "Session", "SessionInfo"]
