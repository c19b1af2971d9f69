"""The course: what its notebooks call, and what judges their exercises.

| what | file |
|---|---|
| a lesson in a kernel: predict, check, hint, solution | lesson.py (prediction.py, progress.py, panel.py) |
| an exercise, and the hint that a wrong answer deserves | exercise.py (compare.py, diagnose.py) |
| what a lesson is about | outline.py, names.py, course/ |
| for teachers: class sets, grading, time and memory | class_set.py, grade.py, measure.py |
"""

from workbench.lessons.exercise import Case, Exercise, Mistake, Verdict
from workbench.lessons.lesson import CheckFailed, Lesson, start
from workbench.lessons.names import LESSONS, outline
from workbench.lessons.outline import Outline

__all__ = [
    "LESSONS",
    "Case",
    "CheckFailed",
    "Exercise",
    "Lesson",
    "Mistake",
    "Outline",
    "Verdict",
    "outline",
    "start",
]
