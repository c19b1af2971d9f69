"""What is installed with the workbench may be used with it, and the list in docs/licences.md is that list."""

import pytest

from tests.setup import licences


def test_no_package_that_the_workbench_needs_is_under_a_licence_that_would_bind_it():
    refused = {
        f"{name}: {spdx}"
        for packages in licences.tables().values()
        for name, spdx in packages.items()
        if not licences.is_allowed(name, spdx)
    }
    assert not refused


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("Apache-2.0 AND BSD-3-Clause", True),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-3.0-or-later OR MIT", True),
        ("GPL-3.0-or-later", False),
        ("MIT AND GPL-2.0-only", False),
        ("AGPL-3.0-only", False),
        ("LGPL-2.1-or-later", False),
        ("MPL-2.0", False),
        ("unknown", False),
        ("", False),
    ],
)
def test_a_licence_is_taken_only_if_nothing_in_it_binds_us(expression: str, allowed: bool):
    assert licences.is_allowed("some-package", expression) == allowed


def test_a_weak_copyleft_is_taken_only_from_the_packages_that_are_named():
    assert licences.is_allowed("tqdm", "MPL-2.0 AND MIT")
    assert not licences.is_allowed("tqdm", "GPL-3.0-only")


def test_the_page_of_licences_is_what_is_installed():
    # Names and licences, not versions: `python -m tests.setup.licences` writes it.
    def rows(text: str) -> set[str]:
        return {line for line in text.splitlines() if line.startswith("| ")}

    assert rows(licences.PAGE.read_text(encoding="utf-8")) == rows(licences.page())
