"""What turns features into an answer, one task a file; heads and metrics beside them."""

from vitrail.tasks.aesthetics import AestheticsTask
from vitrail.tasks.answers import Answers
from vitrail.tasks.base import AdversarialTask, Score, Task
from vitrail.tasks.class_loss import ClassLoss, ClassWeights, LossName, class_loss
from vitrail.tasks.classification import ClassificationTask, ClassScore
from vitrail.tasks.create import DEFAULT_TASK, TASKS, answers_of, create_task, find_task
from vitrail.tasks.detection import DetectionTask
from vitrail.tasks.distillation import DistillationTask
from vitrail.tasks.generation import GenerationTask
from vitrail.tasks.instances import InstanceTask
from vitrail.tasks.kind import NoOptions, TaskKind
from vitrail.tasks.multilabel import MultiLabelTask
from vitrail.tasks.pose import PoseTask
from vitrail.tasks.pretraining import PretrainingTask
from vitrail.tasks.segmentation import SegmentationTask
from vitrail.tasks.spec import TaskSpec

__all__ = [
    "DEFAULT_TASK",
    "TASKS",
    "AdversarialTask",
    "AestheticsTask",
    "Answers",
    "ClassLoss",
    "ClassScore",
    "ClassWeights",
    "ClassificationTask",
    "DetectionTask",
    "DistillationTask",
    "GenerationTask",
    "InstanceTask",
    "LossName",
    "MultiLabelTask",
    "NoOptions",
    "PoseTask",
    "PretrainingTask",
    "Score",
    "SegmentationTask",
    "Task",
    "TaskKind",
    "TaskSpec",
    "answers_of",
    "class_loss",
    "create_task",
    "find_task",
]
