"""What a lesson is, apart from its notebook: its name, what one can do after it, its exercises."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.lessons.exercise import Exercise


@dataclass(frozen=True)
class Outline:
    """A lesson for the teacher's page and for the checks.

    Attributes:
        name: its notebook's, "04_attention".
        title: in words.
        minutes: how long a student takes, from and to.
        able_to: what one can do after it, each beginning with a verb.
        builds_on: names of lessons that come before.
        exercises: in the notebook's order.
        predictions: the keys of `lesson.predict`, in the notebook's order.
    """

    name: str
    title: str
    minutes: tuple[int, int]
    able_to: tuple[str, ...]
    exercises: tuple[Exercise, ...]
    predictions: tuple[str, ...]
    builds_on: tuple[str, ...] = ()

    @property
    def number(self) -> int:
        """1 to 10."""
        return int(self.name[:2])

    @property
    def points(self) -> int:
        """Of all exercises."""
        return sum(exercise.points for exercise in self.exercises)

    def exercise(self, name: str) -> Exercise:
        """An exercise by its function's name.

        Raises:
            ValueError: there is none; says which there are.
        """
        for each in self.exercises:
            if each.name == name:
                return each
        raise ValueError(
            f"lesson {self.name} has no exercise {name!r}; it has {', '.join(each.name for each in self.exercises)}. "
            "Did you rename the function? The check goes by its name."
        )
