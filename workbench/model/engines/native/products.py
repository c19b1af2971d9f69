"""Unpacking and products by the library: arguments checked here in words, and again in C before memory is touched."""

from __future__ import annotations

import ctypes

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from workbench.model.engines.native.library import DTYPES, Buffer, isa_code, library, raise_for, span, thread_count

BLOCK, BYTES_PER_BLOCK = 32, 16
# native.h's structs: every field has eight bytes, pointers too.
_GroupedArgs = ctypes.c_int64 * 23
_DenseArgs = ctypes.c_int64 * 23
_BIAS_FUSED, _BIAS_AFTER = range(2)


def _check_numbers(name: str, tensor: Tensor, shape: tuple[int, ...], dtypes: tuple[torch.dtype, ...]) -> None:
    if not tensor.is_cpu or tensor.dtype not in dtypes or tensor.shape != shape:
        wanted = " or ".join(str(dtype) for dtype in dtypes)
        raise ValueError(
            f"{name} is {tensor.dtype} {list(tensor.shape)} on {tensor.device}: expected {wanted} {list(shape)} on cpu"
        )
    if not tensor.is_contiguous():
        raise ValueError(f"{name} is not contiguous: pass {name}.contiguous()")


def _check_packed(blocks: Tensor, scales: Tensor) -> None:
    for name, tensor in (("blocks", blocks), ("scales", scales)):
        if tensor.dtype != torch.uint8 or not tensor.is_cpu:
            raise ValueError(f"{name} are {tensor.dtype} on {tensor.device}: expected uint8 on cpu")
    if blocks.shape[-1:] != (BYTES_PER_BLOCK,) or blocks.shape[:-1] != scales.shape:
        raise ValueError(
            f"MXFP4 blocks are [..., group, {BYTES_PER_BLOCK}] and scales [..., group]: "
            f"got {list(blocks.shape)} and {list(scales.shape)}"
        )


def _has_contiguous_experts(packed: Tensor) -> bool:
    return packed.is_contiguous() or (bool(packed.shape[0]) and packed[0].is_contiguous())


def unpack(
    blocks: UInt8[Tensor, "*lead group 16"],
    scales: UInt8[Tensor, "*lead group"],
    dtype: torch.dtype = torch.bfloat16,
    out: Tensor | None = None,
    *,
    threads: int | None = None,
    isa: str | None = None,
) -> Float[Tensor, "*lead group*32"]:
    """Packed blocks → plain numbers, bit for bit those of ``mxfp4.unpack`` (any NaN for a NaN).

    Args:
        blocks: contiguous, on the CPU, of any alignment.
        scales: one byte to a block, contiguous.
        dtype: bfloat16 or float32.
        out: a contiguous tensor of the result's shape and dtype to write into; it may not share memory with the input.
        threads: torch's number by default.
        isa: one of ``isas()``; the best, or WORKBENCH_NATIVE_ISA's, by default.

    Raises:
        RuntimeError: if the library is not available.
        ValueError: for another dtype, shapes that do not belong together, or tensors that are not plain CPU memory.
    """
    _check_packed(blocks, scales)
    if dtype not in DTYPES:
        raise ValueError(f"the native engine unpacks to {list(DTYPES)}: got {dtype}")
    for name, tensor in (("blocks", blocks), ("scales", scales)):
        _check_numbers(name, tensor, tuple(tensor.shape), (torch.uint8,))
    shape = (*scales.shape[:-1], scales.shape[-1] * BLOCK)
    out = torch.empty(shape, dtype=dtype) if out is None else out
    _check_numbers("out", out, shape, (dtype,))
    status = library().wb_mxfp4_unpack(
        Buffer.of(blocks), Buffer.of(scales), scales.numel(), Buffer.of(out), DTYPES[dtype],
        isa_code(isa), thread_count(threads),
    )  # fmt: skip
    raise_for(status, "unpack")
    return out


def grouped_linear(
    rows: Float[Tensor, "row d_in"],
    counts: list[int],
    blocks: UInt8[Tensor, "expert d_out group 16"],
    scales: UInt8[Tensor, "expert d_out group"],
    bias: Float[Tensor, "expert d_out"] | None = None,
    *,
    out: Tensor | None = None,
    threads: int | None = None,
    isa: str | None = None,
) -> Float[Tensor, "row d_out"]:
    """Each run of ``counts[e]`` rows times expert e's packed matrix, plus its bias; experts without rows are not read.

    Products are summed in fp32 and rounded to the rows' dtype; then the bias is added, and in bfloat16 the sum is
    rounded again: the order of gpt-oss' references. A row's bits depend on the instruction set, and on nothing else:
    not on the number of threads, nor on which other rows come with it.

    Args:
        rows: bfloat16 or float32, contiguous, sorted by expert; d_in a multiple of 32.
        counts: rows of each expert.
        blocks: each expert's own bytes contiguous, experts any stride apart; a memory-mapped tensor is read in place.
        scales: the same.
        bias: bfloat16 or float32, contiguous.
        out: a contiguous tensor of the result's shape and the rows' dtype to write into.
        threads: torch's number by default.
        isa: one of ``isas()``; the best, or WORKBENCH_NATIVE_ISA's, by default.

    Raises:
        RuntimeError: if the library is not available.
        ValueError: for shapes, dtypes, counts or memory layouts that do not belong together.
    """
    _check_packed(blocks, scales)
    if scales.ndim != 3 or not _has_contiguous_experts(blocks) or not _has_contiguous_experts(scales):
        raise ValueError(
            f"blocks {list(blocks.shape)} and scales {list(scales.shape)}: expected [expert, d_out, group, 16] and "
            "[expert, d_out, group], each expert's bytes contiguous"
        )
    n_experts, d_out, group = scales.shape
    n_rows = rows.shape[0]
    _check_numbers("rows", rows, (n_rows, group * BLOCK), tuple(DTYPES))
    if bias is not None:
        _check_numbers("bias", bias, (n_experts, d_out), tuple(DTYPES))
    out = rows.new_empty(n_rows, d_out) if out is None else out
    _check_numbers("out", out, (n_rows, d_out), (rows.dtype,))
    if len(counts) != n_experts:
        raise ValueError(f"{len(counts)} counts for {n_experts} experts")
    held = (ctypes.c_int64 * n_experts)(*counts)
    args = _GroupedArgs(
        ctypes.sizeof(_GroupedArgs), n_experts, n_rows, group * BLOCK, d_out,
        ctypes.addressof(held), ctypes.sizeof(held), *span(rows), *span(blocks), *span(scales),
        blocks.stride(0), scales.stride(0), *span(bias), *span(out),
        DTYPES[rows.dtype], 0 if bias is None else DTYPES[bias.dtype], isa_code(isa), thread_count(threads),
    )  # fmt: skip
    raise_for(library().wb_mxfp4_grouped_linear(ctypes.byref(args)), "grouped_linear")
    return out


def dense_linear(
    rows: Float[Tensor, "row d_in"],
    weight: Float[Tensor, "d_out d_in"],
    bias: Float[Tensor, " d_out"] | None = None,
    *,
    out: Tensor | None = None,
    threads: int | None = None,
    isa: str | None = None,
) -> Float[Tensor, "row d_out"]:
    """``F.linear``, for few rows at the speed at which the matrix can be read.

    Sums are kept in fp32, the bias is added in fp32, and the sum is rounded once to the rows' dtype, as by ``F.linear``
    with a bias. A row's bits depend on the instruction set, and on nothing else.

    Args:
        rows: bfloat16 or float32, contiguous.
        weight: bfloat16 or float32; each row contiguous, rows any stride apart (memory-mapped tensors).
        bias: bfloat16 or float32, contiguous.
        out: a contiguous tensor of the result's shape and the rows' dtype to write into.
        threads: torch's number by default.
        isa: one of ``isas()``; the best, or WORKBENCH_NATIVE_ISA's, by default.

    Raises:
        RuntimeError: if the library is not available.
        ValueError: for shapes, dtypes or memory layouts that do not belong together.
    """
    _check_plain(weight, "d_out", "d_in")
    return _dense("dense_linear", rows, [rows.shape[0]], weight, bias, _BIAS_FUSED, out, threads, isa)


def dense_grouped_linear(
    rows: Float[Tensor, "row d_in"],
    counts: list[int],
    weight: Float[Tensor, "expert d_out d_in"],
    bias: Float[Tensor, "expert d_out"] | None = None,
    *,
    out: Tensor | None = None,
    threads: int | None = None,
    isa: str | None = None,
) -> Float[Tensor, "row d_out"]:
    """Each run of ``counts[e]`` rows times expert e's matrix, plus its bias; experts without rows are not read.

    Rounded as by :func:`grouped_linear`: the product, and then its sum with the bias. A row's bits depend on the
    instruction set, and on nothing else.

    Args:
        rows: bfloat16 or float32, contiguous, sorted by expert.
        counts: rows of each expert.
        weight: bfloat16 or float32; each row contiguous, rows and experts any stride apart.
        bias: bfloat16 or float32, contiguous.
        out: a contiguous tensor of the result's shape and the rows' dtype to write into.
        threads: torch's number by default.
        isa: one of ``isas()``; the best, or WORKBENCH_NATIVE_ISA's, by default.

    Raises:
        RuntimeError: if the library is not available.
        ValueError: for shapes, dtypes, counts or memory layouts that do not belong together.
    """
    _check_plain(weight, "expert", "d_out", "d_in")
    if len(counts) != weight.shape[0]:
        raise ValueError(f"{len(counts)} counts for {weight.shape[0]} experts")
    return _dense("dense_grouped_linear", rows, counts, weight, bias, _BIAS_AFTER, out, threads, isa)


def _check_plain(weight: Tensor, *axes: str) -> None:
    if weight.ndim != len(axes) or weight.dtype not in DTYPES or not weight.is_cpu or weight.stride(-1) != 1:
        raise ValueError(
            f"weight is {weight.dtype} {list(weight.shape)}, strides {list(weight.stride())}, on {weight.device}: "
            f"expected {' or '.join(map(str, DTYPES))} [{', '.join(axes)}] on cpu, each row contiguous"
        )


def _dense(
    what: str, rows: Tensor, counts: list[int], weight: Tensor, bias: Tensor | None, bias_order: int,
    out: Tensor | None, threads: int | None, isa: str | None,
) -> Tensor:  # fmt: skip
    *experts, d_out, d_in = weight.shape
    expert_stride, row_stride = (weight.stride() if experts else (0, *weight.stride()))[:2]
    n_experts, n_rows, size = len(counts), rows.shape[0], weight.element_size()
    _check_numbers("rows", rows, (n_rows, d_in), tuple(DTYPES))
    if bias is not None:
        _check_numbers("bias", bias, (*experts, d_out), tuple(DTYPES))
    if out is None:
        out = rows.new_empty(n_rows, d_out)
    else:
        _check_numbers("out", out, (n_rows, d_out), (rows.dtype,))
    held = (ctypes.c_int64 * n_experts)(*counts)
    args = _DenseArgs(
        ctypes.sizeof(_DenseArgs), n_experts, n_rows, d_in, d_out, ctypes.addressof(held), ctypes.sizeof(held),
        *span(rows), *span(weight), expert_stride * size, row_stride * size, *span(bias), *span(out),
        DTYPES[rows.dtype], DTYPES[weight.dtype], 0 if bias is None else DTYPES[bias.dtype], bias_order,
        isa_code(isa), thread_count(threads),
    )  # fmt: skip
    raise_for(library().wb_dense_linear(ctypes.byref(args)), what)
    return out
