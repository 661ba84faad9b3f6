"""What turns features into an answer: head, loss, decoding and metrics, one task a file."""

from vitrail.tasks.base import Task
from vitrail.tasks.classification import ClassificationTask, ClassScore
from vitrail.tasks.create import create_task, load_task

__all__ = ["ClassScore", "ClassificationTask", "Task", "create_task", "load_task"]
