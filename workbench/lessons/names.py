"""Which lessons there are; an outline is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module

from workbench.lessons.outline import Outline

LESSONS = (
    "01_build_gpt_oss",
    "02_tokens_and_harmony",
    "03_residual_stream",
    "04_attention",
    "05_induction",
    "06_indirect_object",
    "07_experts",
    "08_steering_and_probing",
    "09_attribution_and_graphs",
    "10_analysis_to_final",
)


def outline(name: str | int) -> Outline:
    """A lesson's outline, by its name ("04_attention"), a part of it ("attention") or its number (4).

    Raises:
        ValueError: for no lesson's name; lists them.
    """
    asked = f"{name:02d}" if isinstance(name, int) else str(name)
    found = [lesson for lesson in LESSONS if lesson == asked] or [
        lesson for lesson in LESSONS if lesson.startswith(f"{asked}_") or lesson[3:] == asked
    ]
    if len(found) != 1:
        raise ValueError(f"there is no lesson {name!r}; there are {', '.join(LESSONS)}")
    return import_module(f"workbench.lessons.course.{found[0][3:]}").LESSON


def next_of(name: str) -> str | None:
    """The lesson after one; None after the last."""
    at = LESSONS.index(name) + 1
    return LESSONS[at] if at < len(LESSONS) else None
