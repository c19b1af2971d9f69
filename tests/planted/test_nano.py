"""What nano uses for each of its tasks, kept as measured: a change of model, metric or ablation shows here."""

import pytest

from tests.planted.carriers import carriers

ZERO = "policy='zero'"
# By `python -m tests.planted.carriers`: the head and the expert whose loss costs most, and what it costs in logits.
KEPT = {
    "indirect object": (("layer=0, head=5", -3.79), ("layer=0, expert=6", -10.08)),
    "induction": (("layer=0, head=6", -9.04), ("layer=3, expert=4", -1.94)),
    "docstring": (("layer=0, head=6", -3.54), ("layer=0, expert=1", -14.19)),
    "greater-than": (("layer=0, head=6", -0.7), ("layer=2, expert=4", -1.59)),
    "passkey far": (("layer=0, head=7", -14.67), ("layer=1, expert=0", -1.07)),
    "passkey near": (("layer=0, head=7", -13.26), ("layer=0, expert=2", -6.2)),
    "facts": (("layer=0, head=0", -5.01), ("layer=0, expert=0", -8.38)),
    "dialect north": (("layer=0, head=6", -1.04), ("layer=0, expert=6", -11.63)),
    "dialect south": (("layer=0, head=0", -1.54), ("layer=0, expert=6", -14.87)),
    "dialect east": (("layer=0, head=6", -0.67), ("layer=0, expert=6", -9.66)),
    "channel copying": (("layer=0, head=2", -3.28), ("layer=0, expert=2", -10.22)),
}


@pytest.mark.parametrize("task", KEPT)
def test_the_head_and_the_expert_that_carry_a_task_are_those_that_were_found(task: str):
    (head, of_head), (expert, of_expert) = KEPT[task]
    found = carriers(task)
    assert found["heads"].spec == f"AblateHead({head})"
    assert found["experts"].spec == f"AblateExpert({expert}, {ZERO})"
    assert found["heads"].effect == pytest.approx(of_head, abs=0.02)
    assert found["experts"].effect == pytest.approx(of_expert, abs=0.02)
