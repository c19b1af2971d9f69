"""The measured comparisons run, and end with a line that a program can read."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.common.readme import BEGIN, END, tables, write
from tests.bench.common.results import Demand, Part

ROOT = Path(__file__).resolve().parents[2]
HERE = {
    "processor": "P",
    "instructions": [],
    "threads": 1,
    "cores": 1,
    "memory_bytes": None,
    "system": "S",
    "versions": {},
}


@pytest.mark.slow
def test_the_short_form_measures_nano_and_ends_with_json():
    command = [sys.executable, "-m", "tests.bench.nano", "--quick", "--threads", "1", "--rounds", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    record = json.loads(done.stdout.splitlines()[-1])
    assert record.keys() >= {"machine", "malloc", "parts"}
    assert record["machine"].keys() >= {"processor", "threads", "memory_bytes", "versions"}
    part = record["parts"]["nano"]
    measured = {(cell["work"], cell["subject"]): cell for cell in part["cells"]}
    assert not [cell["error"] for cell in part["cells"] if "error" in cell]
    for work in ("load", "forward", "cache_shared", "grid"):
        assert 0 < measured[work, "ours"]["best"] <= measured[work, "ours"]["median"]
        assert measured[work, "TransformerBridge"]["ratio"] > 0
    # What is timed side by side is the same computation.
    assert {name.split(" ", 1)[0] for name in part["agreement"]} == {"forward", "grid"}
    for found in part["agreement"].values():
        assert found["largest"] < 1e-3
    assert 0 < part["roofline"]["forward 16 ours"]["fraction"] < 1


def test_a_ratio_is_the_median_over_rounds_and_a_demand_says_whether_it_is_met():
    part = Part("p", "a part", ["ours", "transformers"])
    part.cell("forward", 16, "ours").rounds = [[1.0], [2.0], [1.0]]
    part.cell("forward", 16, "transformers").rounds = [[3.0], [4.0], [9.0]]
    assert part.ratio("forward", 16, "transformers") == 3.0
    assert Demand("d", 3.0, 1.3).mark == "pass"
    assert Demand("d", 3.0, 1.3, at_least=False).mark == "short"
    assert Demand("d", None, 1.3).mark == "not measured"


def test_the_table_goes_between_its_two_comments_and_nowhere_else(tmp_path: Path):
    part = Part("nano", "nano", ["ours", "transformers"])
    part.cell("forward", 16, "ours").rounds = [[0.001], [0.002]]
    part.cell("forward", 16, "transformers").rounds = [[0.003], [0.004]]
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    write(readme, HERE, [part])
    text = readme.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text
    assert "| forward, all logits, 16 tokens | 1.5 ms | 3.5 ms (2.5×) | – | – | – |" in text
    write(readme, HERE, [part])
    assert readme.read_text(encoding="utf-8") == text


def test_a_readme_without_the_two_comments_is_left_alone(tmp_path: Path):
    readme = tmp_path / "README.md"
    readme.write_text("before", encoding="utf-8")
    with pytest.raises(ValueError, match="once each"):
        write(readme, HERE, [])
    assert readme.read_text(encoding="utf-8") == "before"


def test_the_projects_own_readme_has_the_place_for_the_table():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert (text.count(BEGIN), text.count(END)) == (1, 1)
    assert tables(HERE, []).startswith("P (no wide vectors)")
