"""Evaluation: COCO and VOC average precision of anything that predicts, and the parity of two backends."""

from mpqyolo.evaluate.names import class_map, rename
from mpqyolo.evaluate.parity import Difference, first_difference
from mpqyolo.evaluate.score import Predict, Result, detect, evaluate, score_detections

__all__ = ["Difference", "Predict", "Result", "class_map", "detect", "evaluate", "first_difference", "rename", "score_detections"]
