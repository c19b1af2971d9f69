"""Handed-in notebooks, graded without a reader: the students' functions, tried by the exercises' own checks."""

from workbench.lessons.grading.grade import grade
from workbench.lessons.grading.handed_in import HandedIn, collect
from workbench.lessons.grading.report import Grade, Report, Score

__all__ = ["Grade", "HandedIn", "Report", "Score", "collect", "grade"]
