"""MPQ-YOLO: detectors with a 1-bit backbone and a 4-bit neck and head, trained, packed and run bit-exactly."""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # The engine is loaded only when asked for, so `import mpqyolo` costs nothing and works where no library is built.
    if name == "Detector":
        from mpqyolo.runtime.detector import Detector

        return Detector
    if name == "Detections":
        from mpqyolo.core.detections import Detections

        return Detections
    raise AttributeError(f"module 'mpqyolo' has no attribute {name!r}")
