"""What turns features into an answer: data, head, loss, decoding and metrics, one task a file."""

from vitrail.tasks.aesthetics import AestheticsTask
from vitrail.tasks.base import NoOptions, Score, Task
from vitrail.tasks.classification import ClassificationTask, ClassScore
from vitrail.tasks.create import TASKS, create_task, find_task
from vitrail.tasks.detection import DetectionTask
from vitrail.tasks.generation import GenerationTask
from vitrail.tasks.instances import InstanceTask
from vitrail.tasks.pose import PoseTask
from vitrail.tasks.pretraining import PretrainingTask
from vitrail.tasks.segmentation import SegmentationTask
from vitrail.tasks.spec import TaskSpec

__all__ = [
    "TASKS",
    "AestheticsTask",
    "ClassScore",
    "ClassificationTask",
    "DetectionTask",
    "GenerationTask",
    "InstanceTask",
    "NoOptions",
    "PoseTask",
    "PretrainingTask",
    "Score",
    "SegmentationTask",
    "Task",
    "TaskSpec",
    "create_task",
    "find_task",
]
