"""Nothing reaches memory before it was checked: in Python with words, in C with a status."""

import ctypes

import pytest
import torch

from tests.engines.native.cases import random_case
from workbench.model.engines import native
from workbench.model.engines.native import library as native_library
from workbench.model.engines.native.library import Buffer, library


class Grouped(ctypes.Structure):
    """native.h's wb_grouped_linear_args, by name."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("struct_bytes", "n_experts", "n_rows", "d_in", "d_out")),
        *((name, Buffer) for name in ("counts", "x", "blocks", "scales")),
        *((name, ctypes.c_int64) for name in ("blocks_stride", "scales_stride")),
        *((name, Buffer) for name in ("bias", "y")),
        *((name, ctypes.c_int64) for name in ("x_dtype", "bias_dtype", "isa", "threads")),
    )


class Dense(ctypes.Structure):
    """native.h's wb_dense_linear_args, by name."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("struct_bytes", "n_experts", "n_rows", "d_in", "d_out")),
        *((name, Buffer) for name in ("counts", "x", "weight")),
        *((name, ctypes.c_int64) for name in ("expert_stride", "row_stride")),
        *((name, Buffer) for name in ("bias", "y")),
        *((name, ctypes.c_int64) for name in ("x_dtype", "w_dtype", "bias_dtype", "bias_order", "isa", "threads")),
    )


def grouped_args():
    """Right arguments for 3 rows, 2 experts, 64 → 5, and the tensors that they point to."""
    tensors = {
        "counts": torch.tensor([1, 2]), "x": torch.zeros(3, 64), "y": torch.zeros(3, 5), "bias": torch.zeros(2, 5),
        "blocks": torch.zeros(2, 5, 2, 16, dtype=torch.uint8), "scales": torch.zeros(2, 5, 2, dtype=torch.uint8),
    }  # fmt: skip
    sizes = {"n_experts": 2, "n_rows": 3, "d_in": 64, "d_out": 5, "blocks_stride": 160, "scales_stride": 10}
    return Grouped(ctypes.sizeof(Grouped), **sizes, **buffers_of(tensors), threads=1), tensors


def dense_args():
    """Right arguments for 3 rows, 2 experts, 10 → 5, whose matrices' rows lie 24 bytes apart, and they 130."""
    tensors = {
        "counts": torch.tensor([1, 2]), "x": torch.zeros(3, 10), "y": torch.zeros(3, 5), "bias": torch.zeros(2, 5),
        "weight": torch.zeros(65 + 58, dtype=torch.bfloat16),
    }  # fmt: skip
    sizes = {"n_experts": 2, "n_rows": 3, "d_in": 10, "d_out": 5, "expert_stride": 130, "row_stride": 24, "w_dtype": 1}
    return Dense(ctypes.sizeof(Dense), **sizes, **buffers_of(tensors), threads=1), tensors


def buffers_of(tensors):
    return {name: Buffer.of(tensor) for name, tensor in tensors.items()}


def words_for(args):
    call = library().wb_mxfp4_grouped_linear if isinstance(args, Grouped) else library().wb_dense_linear
    return library().wb_strerror(call(ctypes.byref(args))).decode()


def words_with(make, **changes):
    args, _alive = make()
    for name, change in changes.items():
        setattr(args, name, change(getattr(args, name)) if callable(change) else change)
    return words_for(args)


def short(buffer):
    return Buffer(buffer.data, buffer.bytes - 1)


def missing(buffer):
    return Buffer(None, buffer.bytes)


def odd(buffer):
    return Buffer(buffer.data + 1, buffer.bytes)


INPUTS = [
    *((grouped_args, name) for name in ("counts", "x", "blocks", "scales")),
    *((dense_args, name) for name in ("counts", "x", "weight")),
]
OUTPUTS, BIASES = [(grouped_args, "y"), (dense_args, "y")], [(grouped_args, "bias"), (dense_args, "bias")]


@pytest.mark.parametrize("make", [grouped_args, dense_args])
def test_right_arguments_are_taken(make):
    assert words_with(make) == "fine"


@pytest.mark.parametrize(("make", "name"), INPUTS + OUTPUTS)
def test_a_missing_pointer_is_refused(make, name):
    assert "missing" in words_with(make, **{name: missing})


@pytest.mark.parametrize(("make", "name"), INPUTS + OUTPUTS + BIASES)
def test_a_buffer_one_byte_short_is_refused(make, name):
    assert "smaller" in words_with(make, **{name: short})


@pytest.mark.parametrize(
    ("make", "name"), [pair for pair in INPUTS + OUTPUTS + BIASES if pair[1] not in ("blocks", "scales")]
)
def test_numbers_at_odd_addresses_are_refused(make, name):
    assert "aligned" in words_with(make, **{name: odd})


BOTH = [
    ({"struct_bytes": 8}, "version"),
    ({"d_in": 0}, "size"),
    ({"d_in": 1 << 40}, "size"),
    ({"d_out": -5}, "size"),
    ({"n_rows": -1}, "size"),
    ({"n_rows": 1 << 60}, "size"),
    ({"n_experts": 0}, "size"),
    ({"n_experts": 1 << 62}, "size"),
    ({"n_rows": 4}, "add up"),
    ({"n_rows": 2}, "add up"),
    ({"x_dtype": 2}, "dtype"),
    ({"x_dtype": 1 << 32}, "dtype"),
    ({"bias_dtype": -1}, "dtype"),
    ({"isa": 99}, "instruction set"),
    ({"isa": -1}, "instruction set"),
    ({"isa": 1 << 32}, "instruction set"),
    ({"threads": 0}, "threads"),
    ({"threads": 257}, "threads"),
    ({"threads": 1 + (1 << 32)}, "threads"),
]


@pytest.mark.parametrize("make", [grouped_args, dense_args])
@pytest.mark.parametrize(("changes", "words"), BOTH)
def test_sizes_and_settings_that_make_no_sense_are_refused(make, changes, words):
    assert words in words_with(make, **changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"d_in": 65}, "multiple of 32"),
        ({"blocks_stride": 159}, "stride"),
        ({"blocks_stride": -160}, "stride"),
        ({"scales_stride": 9}, "stride"),
        ({"blocks_stride": 161}, "smaller"),
        ({"scales_stride": 1 << 62}, "smaller"),
    ],
)
def test_experts_that_do_not_fit_are_refused(changes, words):
    assert words in words_with(grouped_args, **changes)


@pytest.mark.parametrize("make", [grouped_args, dense_args])
@pytest.mark.parametrize(("counts", "words"), [((4, -1), "negative"), ((2**62, 2**62), "add up"), ((0, 0), "add up")])
def test_counts_that_are_not_the_rows_are_refused(make, counts, words):
    held = (ctypes.c_int64 * 2)(*counts)
    assert words in words_with(make, counts=Buffer(ctypes.addressof(held), 16))


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"row_stride": 18}, "stride"), ({"row_stride": -24}, "stride"), ({"row_stride": 1 << 40}, "stride"),
     ({"row_stride": 25}, "aligned"), ({"row_stride": 30, "expert_stride": 140}, "smaller"),
     ({"d_out": 6}, "stride"), ({"d_out": 6, "expert_stride": 140}, "smaller"), ({"w_dtype": 2}, "dtype"),
     ({"w_dtype": 0}, "stride"), ({"expert_stride": 114}, "stride"), ({"expert_stride": -130}, "stride"),
     ({"expert_stride": 132}, "smaller"), ({"expert_stride": 117}, "aligned"), ({"bias_order": 2}, "order"),
     ({"bias_order": -1}, "order")],
)  # fmt: skip
def test_plain_matrices_that_do_not_fit_are_refused(changes, words):
    assert words in words_with(dense_args, **changes)


@pytest.mark.parametrize(("make", "name"), INPUTS + BIASES)
def test_an_output_that_shares_memory_with_an_input_is_refused(make, name):
    args, tensors = make()
    memory = torch.zeros(4096, dtype=torch.uint8)
    setattr(args, name, Buffer(memory.data_ptr(), tensors[name].nbytes))
    if name == "counts":
        memory[:16].view(torch.int64).copy_(tensors["counts"])
    args.y = Buffer((memory.data_ptr() + tensors[name].nbytes - 1) // 4 * 4, 60)
    assert "shares memory" in words_for(args)


def test_unpack_refuses_short_buffers():
    blocks, scales, out = (torch.zeros(n, dtype=torch.uint8) for n in (32, 2, 128))
    b, s, o = (Buffer.of(tensor) for tensor in (blocks, scales, out))
    unpack = library().wb_mxfp4_unpack
    assert unpack(b, s, 2, o, 1, 0, 1) == 0
    for wrong in ((short(b), s, 2, o), (b, short(s), 2, o), (b, s, 2, short(o)), (b, s, 3, o), (missing(b), s, 2, o)):
        assert unpack(*wrong, 1, 0, 1)
    for wrong in ((b, s, -1, o, 1, 0, 1), (b, s, 1 << 62, o, 1, 0, 1), (b, s, 2, o, 5, 0, 1), (b, s, 2, b, 1, 0, 1)):
        assert unpack(*wrong)


@pytest.mark.parametrize("status", [-1, 15, 99])
def test_an_unknown_status_has_words_too(status):
    assert library().wb_strerror(status) == b"unknown status"


def test_python_says_what_it_was_given_and_what_it_expected(unhooked):
    rows, counts, blocks, scales, bias = random_case(0, [1, 2], 64, 5, torch.float32).args
    with pytest.raises(ValueError, match=r"rows is torch.float64 .* torch.float32 or torch.bfloat16 \[3, 64\]"):
        native.grouped_linear(rows.double(), counts, blocks, scales, bias)
    with pytest.raises(ValueError, match=r"rows is torch.float32 \[3, 32\] .* expected .* \[3, 64\]"):
        native.grouped_linear(rows[:, :32], counts, blocks, scales, bias)
    with pytest.raises(ValueError, match="rows is not contiguous"):
        native.grouped_linear(rows.T.contiguous().T, counts, blocks, scales, bias)
    with pytest.raises(ValueError, match="3 counts for 2 experts"):
        native.grouped_linear(rows, [1, 1, 1], blocks, scales, bias)
    with pytest.raises(ValueError, match="add up"):
        native.grouped_linear(rows, [1, 1], blocks, scales, bias)
    with pytest.raises(ValueError, match="each expert's bytes contiguous"):
        native.grouped_linear(rows, counts, blocks[:, ::2], scales[:, ::2], None)
    with pytest.raises(ValueError, match="meta"):
        native.grouped_linear(rows, counts, blocks.to("meta"), scales, bias)
    with pytest.raises(ValueError, match="'sse9'"):
        native.grouped_linear(rows, counts, blocks, scales, bias, isa="sse9")


def test_the_dense_product_says_what_it_was_given_and_what_it_expected(unhooked):
    rows, weight = torch.zeros(3, 10), torch.zeros(5, 10, dtype=torch.bfloat16)
    wanted = r"expected torch.float32 or torch.bfloat16 \[d_out, d_in\]"
    with pytest.raises(ValueError, match=rf"weight is torch.float64 \[5, 10\].* {wanted}"):
        native.dense_linear(rows, weight.double())
    with pytest.raises(ValueError, match=rf"weight is torch.bfloat16 \[1, 5, 10\].* {wanted}"):
        native.dense_linear(rows, weight[None])
    with pytest.raises(ValueError, match="each row contiguous"):
        native.dense_linear(rows, torch.zeros(10, 5, dtype=torch.bfloat16).T)
    with pytest.raises(ValueError, match=r"rows is torch.float32 \[3, 9\] .* \[3, 10\]"):
        native.dense_linear(rows[:, :9], weight)
    with pytest.raises(ValueError, match=r"bias is torch.float32 \[4\] .* \[5\]"):
        native.dense_linear(rows, weight, torch.zeros(4))
    with pytest.raises(ValueError, match="stride"):
        native.dense_linear(rows, weight[:1].expand(5, 10))


def test_the_grouped_dense_product_says_what_it_was_given_and_what_it_expected(unhooked):
    rows, weight = torch.zeros(3, 10), torch.zeros(2, 5, 10)
    with pytest.raises(ValueError, match=r"weight is torch.float32 \[5, 10\].* \[expert, d_out, d_in\]"):
        native.dense_grouped_linear(rows, [1, 2], weight[0])
    with pytest.raises(ValueError, match="3 counts for 2 experts"):
        native.dense_grouped_linear(rows, [1, 1, 1], weight)
    with pytest.raises(ValueError, match="add up"):
        native.dense_grouped_linear(rows, [1, 1], weight)
    with pytest.raises(ValueError, match=r"bias is torch.float32 \[5\] .* \[2, 5\]"):
        native.dense_grouped_linear(rows, [1, 2], weight, torch.zeros(5))
    with pytest.raises(ValueError, match=r"out is torch.bfloat16 .* torch.float32 \[3, 5\]"):
        native.dense_grouped_linear(rows, [1, 2], weight, out=torch.zeros(3, 5, dtype=torch.bfloat16))


def test_the_environment_chooses_the_instruction_set(monkeypatch):
    monkeypatch.setenv("WORKBENCH_NATIVE_ISA", "generic")
    assert native.isa() == "generic"
    monkeypatch.setenv("WORKBENCH_NATIVE_ISA", "auto")
    assert native.isa() == native.isas()[-1]


def test_a_library_that_is_not_there_is_not_available_and_says_why(monkeypatch, tmp_path):
    monkeypatch.setenv("WORKBENCH_NATIVE_LIBRARY", str(tmp_path / "none.so"))
    native_library.load.cache_clear()
    try:
        assert not native.available()
        assert "not built" in native.why_not()
        with pytest.raises(RuntimeError, match="eager engine"):
            native.isa()
    finally:
        monkeypatch.undo()
        native_library.load.cache_clear()
