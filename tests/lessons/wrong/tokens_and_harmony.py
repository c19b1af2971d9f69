"""What students hand in for lesson 2, and the hint that each deserves."""

import itertools
import math
import re

import torch


def merge_once(pieces, pair):
    for i in range(len(pieces) - 1):
        if pieces[i] == pair[0] and pieces[i + 1] == pair[1]:
            return [*pieces[:i], pieces[i] + pieces[i + 1], *pieces[i + 2 :]]
    return pieces


def merge_without_skipping(pieces, pair):
    out = []
    for i, piece in enumerate(pieces):
        if i + 1 < len(pieces) and (piece, pieces[i + 1]) == pair:
            out.append(piece + pieces[i + 1])
        else:
            out.append(piece)
    return out


def merge_losing_the_last(pieces, pair):
    out = []
    i = 0
    while i < len(pieces) - 1:
        if pieces[i] == pair[0] and pieces[i + 1] == pair[1]:
            out.append(pieces[i] + pieces[i + 1])
            i += 2
        else:
            out.append(pieces[i])
            i += 1
    return out


def merge_backwards(pieces, pair):
    out = list(pieces)
    i = len(out) - 2
    while i >= 0:
        if (out[i], out[i + 1]) == pair:
            out[i : i + 2] = [out[i] + out[i + 1]]
            i -= 1
        i -= 1
    return out


def _all(pieces, pair):
    out, i = [], 0
    while i < len(pieces):
        if tuple(pieces[i : i + 2]) == pair:
            out.append(pair[0] + pair[1])
            i += 2
        else:
            out.append(pieces[i])
            i += 1
    return out


def encode_leftmost(piece, merges):
    pieces = [bytes([b]) for b in piece]
    i = 0
    while i < len(pieces) - 1:
        pair = (pieces[i], pieces[i + 1])
        if pair in merges:
            pieces = _all(pieces, pair)
            i = 0
        else:
            i += 1
    return pieces


def encode_latest(piece, merges):
    pieces = [bytes([b]) for b in piece]
    while True:
        pairs = [p for p in itertools.pairwise(pieces) if p in merges]
        if not pairs:
            return pieces
        pieces = _all(pieces, max(pairs, key=merges.get))


def encode_longest(piece, merges):
    tokens = {a + b for a, b in merges}
    out = []
    start = 0
    while start < len(piece):
        end = len(piece)
        while end > start + 1 and piece[start:end] not in tokens:
            end -= 1
        out.append(piece[start:end])
        start = end
    return out


def encode_one_step(piece, merges):
    pieces = [bytes([b]) for b in piece]
    pairs = [p for p in itertools.pairwise(pieces) if p in merges]
    return _all(pieces, min(pairs, key=merges.get)) if pairs else pieces


def stream_replacing(tokens):
    return [t.decode(errors="replace") for t in tokens]


def stream_ignoring(tokens):
    return [str(t, "utf-8", "ignore") for t in tokens]


def stream_all_or_nothing(tokens):
    buffer, out = b"", []
    for t in tokens:
        buffer = buffer + t
        try:
            text = buffer.decode("utf-8")
        except UnicodeDecodeError:
            out.append("")
        else:
            out.append(text)
            buffer = b""
    return out


def stream_everything(tokens):
    buffer, out = b"", []
    for t in tokens:
        buffer += t
        out.append(buffer.decode(errors="ignore"))
    return out


def _message(m, end="<|end|>", channel=True):
    head = "<|start|>" + m["role"]
    if channel and m["channel"] is not None:
        head += "<|channel|>" + m["channel"]
    return head + "<|message|>" + m["text"] + end


def _stop(messages, i, prompt):
    return "<|return|>" if i == len(messages) - 1 and messages[i]["channel"] == "final" and not prompt else "<|end|>"


def render_without_end(messages, add_generation_prompt=True):
    stops = [_stop(messages, i, add_generation_prompt).replace("<|end|>", "") for i in range(len(messages))]
    return "".join(map(_message, messages, stops)) + ("<|start|>assistant" if add_generation_prompt else "")


def render_without_prompt(messages, add_generation_prompt=True):
    return "".join(_message(m, _stop(messages, i, add_generation_prompt)) for i, m in enumerate(messages))


def render_never_returning(messages, add_generation_prompt=True):
    return "".join(_message(m) for m in messages) + ("<|start|>assistant" if add_generation_prompt else "")


def render_always_returning(messages, add_generation_prompt=True):
    made = "".join(_message(m, "<|return|>" if m["channel"] == "final" else "<|end|>") for m in messages)
    return made + "<|start|>assistant" * add_generation_prompt


def render_without_channels(messages, add_generation_prompt=True):
    parts = [_message(m, _stop(messages, i, add_generation_prompt), False) for i, m in enumerate(messages)]
    return "".join(parts) + ("<|start|>assistant" if add_generation_prompt else "")


def render_in_lines(messages, add_generation_prompt=True):
    parts = [_message(m, _stop(messages, i, add_generation_prompt)) for i, m in enumerate(messages)]
    return "\n".join(parts) + ("<|start|>assistant" if add_generation_prompt else "")


def label_as_read(tokens):
    role = channel = None
    out = []
    for i, t in enumerate(tokens):
        if t == "<|start|>":
            role = channel = None
        if i and tokens[i - 1] == "<|start|>":
            role = t
        if i and tokens[i - 1] == "<|channel|>":
            channel = t
        out.append((role, channel))
    return out


def label_keeping_channel(tokens):
    starts = [i for i, t in enumerate(tokens) if t == "<|start|>"] + [len(tokens)]
    out, channel = [], None
    for a, b in itertools.pairwise(starts):
        part = tokens[a:b]
        if "<|channel|>" in part:
            channel = part[part.index("<|channel|>") + 1]
        out += [(part[1], channel)] * len(part)
    return out


def label_start_before(tokens):
    starts = [i for i, t in enumerate(tokens) if t == "<|start|>"] + [len(tokens)]
    out = []
    for a, b in itertools.pairwise(starts):
        part = tokens[a:b]
        channel = part[part.index("<|channel|>") + 1] if "<|channel|>" in part else None
        this = (part[1], channel)
        out += [out[-1] if out else this] + [this] * (len(part) - 1)
    return out


def label_without_end(tokens):
    starts = [i for i, t in enumerate(tokens) if t == "<|start|>"] + [len(tokens)]
    out = []
    for a, b in itertools.pairwise(starts):
        part = tokens[a:b]
        channel = part[part.index("<|channel|>") + 1] if "<|channel|>" in part else None
        out += [(None, None) if t in ("<|end|>", "<|return|>") else (part[1], channel) for t in part]
    return out


def loss_unshifted(logits, tokens, names):
    p = logits.log_softmax(-1)
    return {n: -sum(p[i, tokens[i]].item() for i in range(len(names)) if names[i] == n) / names.count(n) for n in names}


def loss_of_the_reader(logits, tokens, names):
    p = logits.log_softmax(-1)
    out = {}
    for i in range(len(names) - 1):
        out.setdefault(names[i], []).append(-p[i, tokens[i + 1]].item())
    return {n: sum(v) / len(v) for n, v in out.items()}


def _shifted(logits, tokens, names):
    p = logits.log_softmax(-1)
    out = {}
    for i in range(1, len(names)):
        out.setdefault(names[i], []).append(-p[i - 1, tokens[i]].item())
    return out


def loss_summed(logits, tokens, names):
    return {n: sum(v) for n, v in _shifted(logits, tokens, names).items()}


def loss_in_bits(logits, tokens, names):
    return {n: sum(v) / len(v) / math.log(2) for n, v in _shifted(logits, tokens, names).items()}


def message_trusting(text, tokenizer):
    return tokenizer.encode("<|start|>user<|message|>" + text + "<|end|>")


def message_all_text(text, tokenizer):
    return tokenizer.encode("<|start|>user<|message|>" + text + "<|end|>", allow_special=False)


def message_cleaned(text, tokenizer):
    return tokenizer.encode(f"<|start|>user<|message|>{re.sub('<[^>]*>', '', text)}<|end|>")


def message_open(text, tokenizer):
    return tokenizer.encode("<|start|>user<|message|>") + tokenizer.encode(text, allow_special=False)


def score_uncentred(unembedding, known):
    direction = unembedding[known].mean(0)
    return unembedding @ direction / unembedding.norm(dim=-1) / direction.norm()


def score_by_dot(unembedding, known):
    rows = unembedding - unembedding.mean(0)
    return rows @ rows[known].mean(0)


def score_centred_rows(unembedding, known):
    rows = unembedding - unembedding.mean(1, keepdim=True)
    return torch.cosine_similarity(rows, rows[known].mean(0)[None])


def score_as_distance(unembedding, known):
    rows = unembedding - unembedding.mean(0)
    return 1 - torch.cosine_similarity(rows, rows[known].mean(0)[None])


WRONG = {
    "merge_pair": [
        (merge_once, "first occurrence only"),
        (merge_without_skipping, "right half"),
        (merge_losing_the_last, "last piece is lost"),
        (merge_backwards, "from the end"),
    ],
    "encode_piece": [
        (encode_leftmost, "leftmost"),
        (encode_latest, "min, not max"),
        (encode_longest, "WordPiece"),
        (encode_one_step, "merge once and stop"),
    ],
    "stream_text": [
        (stream_replacing, "decode each token alone"),
        (stream_ignoring, "Characters are lost"),
        (stream_all_or_nothing, "Too shy"),
        (stream_everything, "what is *new*"),
    ],
    "render_chat": [
        (render_without_end, "messages do not end"),
        (render_without_prompt, "stops before it"),
        (render_never_returning, "says that it is done"),
        (render_always_returning, "in the history"),
        (render_without_channels, "channel is missing"),
        (render_in_lines, "newline between messages"),
    ],
    "label_tokens": [
        (label_as_read, "label its earlier tokens"),
        (label_keeping_channel, "leaks"),
        (label_start_before, "its *own* message"),
        (label_without_end, "closing token"),
    ],
    "loss_by_speaker": [
        (loss_unshifted, "Off by one"),
        (loss_of_the_reader, "wrong name"),
        (loss_summed, "added the losses up"),
        (loss_in_bits, "in bits"),
    ],
    "user_message": [
        (message_trusting, "became the real token"),
        (message_all_text, "frame is text too"),
        (message_cleaned, "cut the markers out"),
        (message_open, "does not end"),
    ],
    "untrained_score": [
        (score_uncentred, "mean row off"),
        (score_by_dot, "dot product"),
        (score_centred_rows, "each row's own numbers"),
        (score_as_distance, "cosine *distance*"),
    ],
}
