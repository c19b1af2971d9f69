"""A damaged file is refused with one error that says which file and tensor, what was expected and what was found."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file

from tests.checkpoints.small import write_raw
from workbench.checkpoints import CheckpointError
from workbench.checkpoints.safetensors_file import SafetensorsFile

F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.fixture
def file(tmp_path):
    return tmp_path / "model.safetensors"


def test_every_dtype_reads_as_the_safetensors_package_reads_it(file):
    dtypes = [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.uint8, torch.int64, torch.bool]
    tensors = {str(dtype): (torch.rand(3, 4, 2) * 9).to(dtype) for dtype in dtypes}
    save_file(tensors | {"scalar": torch.tensor(3.0), "empty": torch.empty(0, 4)}, file, metadata={"format": "pt"})
    ours, theirs = SafetensorsFile(file), load_file(file)
    assert ours.tensors.keys() == theirs.keys()
    for name, expected in theirs.items():
        got = ours.read(name)
        assert got.dtype == expected.dtype and torch.equal(got, expected), name


@given(start=st.integers(0, 7), length=st.integers(0, 7))
@settings(max_examples=20, deadline=None)
def test_rows_read_like_a_slice(tmp_path_factory, start, length):
    path = tmp_path_factory.mktemp("rows") / "model.safetensors"
    whole = torch.arange(7 * 6).reshape(7, 2, 3).bfloat16()
    save_file({"before": torch.ones(5), "w": whole}, path)
    assert torch.equal(SafetensorsFile(path).read("w", start, start + length), whole[start : start + length])


BAD_HEADERS = {
    "no JSON": (b"{oops", "header: expected JSON, found b'{oops'"),
    "not UTF-8": (b"\xff\xfe{}", "header: expected JSON"),
    "a list": ([1, 2], "expected a JSON object {name: tensor}, found b'[1, 2]'"),
    "a list of lists": ([["w", 1]], "expected a JSON object {name: tensor}"),
    "deep": (b"[" * 100_000, "header: expected JSON"),
    "no dtype": ({"w": {"shape": [2], "data_offsets": [0, 8]}}, "tensor 'w': expected a header entry with dtype"),
    "no object": ({"w": 3}, "tensor 'w': expected a header entry with dtype, shape and data_offsets"),
    "negative size": ({"w": F32 | {"shape": [-2]}}, "tensor 'w': expected a header entry"),
    "float size": ({"w": F32 | {"shape": [2.0]}}, "tensor 'w': expected a header entry"),
    "backwards": ({"w": F32 | {"data_offsets": [8, 0]}}, "tensor 'w': expected a header entry"),
    "three offsets": ({"w": F32 | {"data_offsets": [0, 8, 8]}}, "tensor 'w': expected a header entry"),
    "wrong length": (
        {"w": F32 | {"shape": [3]}},
        "tensor 'w': expected 12 bytes for F32 [3], found 8 bytes in data_offsets",
    ),
    "twice": (
        f'{{"w": {json.dumps(F32)}, "w": {json.dumps(F32)}}}'.encode(),
        "tensor 'w': expected one entry in the header, found two",
    ),
    "overlap": ({"a": F32, "b": F32}, "tensor 'b': expected data from byte"),
    "hole": ({"w": F32 | {"data_offsets": [4, 12]}}, "tensor 'w': expected data from byte"),
}


@pytest.mark.parametrize("case", BAD_HEADERS)
def test_header_nonsense_is_one_clear_error(file, case):
    header, message = BAD_HEADERS[case]
    write_raw(file, header, b"\0" * 8)
    with pytest.raises(CheckpointError) as caught:
        SafetensorsFile(file)
    assert str(caught.value).startswith(f"{file}: ") and message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "found 0 bytes in all"),
        (b"\1\2\3", "found 3 bytes in all"),
        ((1000).to_bytes(8, "little") + b"{}", "found 1000 bytes of header announced in a file of 10"),
        (b"\xff" * 64, "bytes of header announced in a file of 64"),
        (b"version https://git-lfs.github.com/spec/v1\n", "found a Git LFS pointer to one. Run `git lfs pull`"),
        (b"PK\3\4 this is a zip with a pickle in it", "The file is cut off, or is no safetensors file"),
    ],
)
def test_what_is_no_safetensors_file_is_refused(file, content, found):
    file.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        SafetensorsFile(file)
    assert str(file) in str(caught.value) and found in str(caught.value)


@given(cut=st.integers(0, 200))
@settings(max_examples=40, deadline=None)
def test_a_file_cut_off_anywhere_is_refused(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("cut") / "model.safetensors"
    raw = save({"a": torch.ones(3), "b": torch.ones(2, 2)})
    path.write_bytes(raw[: min(cut, len(raw) - 1)])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        SafetensorsFile(path)


def test_a_cut_off_tensor_is_named_with_both_sizes(file):
    raw = save({"a": torch.ones(3), "b": torch.ones(2, 2)})
    file.write_bytes(raw[:-5])
    with pytest.raises(CheckpointError) as caught:
        SafetensorsFile(file)
    problem = caught.value.problems[0]
    assert (problem.file, problem.subject) == (file, "tensor 'b'")
    assert (problem.expected, problem.found) == (f"a file of at least {len(raw)} bytes", f"{len(raw) - 5} bytes")


def test_bytes_after_the_last_tensor_are_refused(file):
    raw = save({"a": torch.ones(3)})
    file.write_bytes(raw + b"more")
    with pytest.raises(CheckpointError, match=f"expected {len(raw)} bytes by its header, found {len(raw) + 4} bytes"):
        SafetensorsFile(file)


def test_a_file_that_shrinks_after_it_was_opened_is_noticed(file):
    save_file({"a": torch.ones(100)}, file)
    opened = SafetensorsFile(file)
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match=r"tensor 'a': expected 400 bytes from byte \d+, found only 360"):
        opened.read("a")
