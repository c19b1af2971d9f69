"""Lesson 8: steering and probing. What its exercises must do, and what students get wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from workbench.lessons.exercise import Case, Exercise, Mistake, close, equal
from workbench.lessons.outline import Outline


def _normal(rng: np.random.Generator, *shape: int) -> Tensor:
    return torch.tensor(rng.normal(size=shape), dtype=torch.float32)


# --------------------------------------------------------------------------------------------- difference_of_means


def _two_kinds(rng: np.random.Generator) -> Iterator[Case]:
    """Not as many of each, and both away from 0: else a mean and a sum, or one side alone, may look alike."""
    for n_positive, n_negative, d_model in ((6, 4, 5), (3, 9, 8), (1, 2, 4)):
        positive, negative = _normal(rng, n_positive, d_model) + 2.0, _normal(rng, n_negative, d_model) + 1.0
        yield Case((positive, negative), about=f"{n_positive} positive and {n_negative} negative")


DIFFERENCE_OF_MEANS = Exercise(
    name="difference_of_means",
    task="The direction from the mean of one kind to the mean of the other",
    cases=_two_kinds,
    truth=lambda positive, negative: np.average(positive.numpy(), axis=0) - np.average(negative.numpy(), axis=0),
    mistakes=(
        Mistake(
            "the wrong way round",
            lambda positive, negative: negative.mean(0) - positive.mean(0),
            "It points the wrong way. From negative *to* positive: mean(positive) − mean(negative).",
        ),
        Mistake(
            "sums",
            lambda positive, negative: positive.sum(0) - negative.sum(0),
            "You took sums. With 6 of one kind and 4 of the other that measures how many there are: take means.",
        ),
        Mistake(
            "positive mean alone",
            lambda positive, negative: positive.mean(0),
            "That is the mean of the positive ones alone: it holds all that *both* kinds have in common. Take the "
            "other mean away.",
        ),
        Mistake(
            "less the mean of all",
            lambda positive, negative: positive.mean(0) - torch.cat([positive, negative]).mean(0),
            "You took away the mean of *everything*, in which the positive ones are too. Take away the mean of the "
            "negative ones.",
        ),
        Mistake(
            "mean over coordinates",
            lambda positive, negative: positive.mean() - negative.mean(),
            "You have one number: the mean over everything. Take it over the examples, axis 0, and keep d_model.",
        ),
    ),
    hints=(
        "One mean over the examples of each kind, and their difference.",
        "`positive.mean(0)` has shape [d_model].",
        "`return positive.mean(0) - negative.mean(0)`",
    ),
)

# ------------------------------------------------------------------------------------------------------- add_vector


def _batches(rng: np.random.Generator) -> Iterator[Case]:
    for lengths in ((4, 2, 3), (5,), (1, 6)):
        stream, vector = _normal(rng, len(lengths), max(lengths), 5), _normal(rng, 5)
        dose = float(rng.uniform(0.5, 3.0)) * (1 if len(lengths) > 1 else -1)
        yield Case(
            (stream, vector, dose, torch.tensor(lengths)), about=f"rows of {', '.join(map(str, lengths))} tokens"
        )


def _row_by_row(stream: Tensor, vector: Tensor, dose: float, lengths: Tensor) -> np.ndarray:
    made = stream.numpy().copy()
    for row, length in enumerate(lengths.tolist()):
        made[row, length - 1] += dose * vector.numpy()
    return made


def _added_at(stream: Tensor, what: Tensor, columns: Tensor) -> Tensor:
    made = stream.clone()
    made[torch.arange(len(made)), columns] += what
    return made


ADD_VECTOR = Exercise(
    name="add_vector",
    task="Steer: add a vector to the stream at each row's last real token",
    cases=_batches,
    truth=_row_by_row,
    mistakes=(
        Mistake(
            "everywhere",
            lambda stream, vector, dose, lengths: stream + dose * vector,
            "You added it at every token. Add it at one position of each row, the last real one.",
        ),
        Mistake(
            "last column",
            lambda stream, vector, dose, lengths: _added_at(stream, dose * vector, torch.full_like(lengths, -1)),
            "You took column −1. In a padded batch that is padding for the shorter rows: their last real token is "
            "at `lengths − 1`.",
        ),
        Mistake(
            "one too far",
            lambda stream, vector, dose, lengths: _added_at(stream, dose * vector, lengths % stream.shape[1]),
            "Off by one: a row of 4 tokens has its last at position 3, `lengths - 1`.",
        ),
        Mistake(
            "unit vector",
            lambda stream, vector, dose, lengths: _added_at(stream, dose * vector / vector.norm(), lengths - 1),
            "You divided the vector by its length. A dose of 1 means the vector as it is.",
        ),
        Mistake(
            "forgot the dose",
            lambda stream, vector, dose, lengths: _added_at(stream, vector, lengths - 1),
            "The dose is missing: add dose · vector.",
        ),
    ),
    hints=(
        "Copy the stream, and add dose · vector at one position of each row.",
        "`torch.arange(len(stream))` names the rows and `lengths - 1` the positions: index with both together.",
        "`made = stream.clone()`; `made[torch.arange(len(made)), lengths - 1] += dose * vector`; `return made`",
    ),
)

# ------------------------------------------------------------------------------------------------- shuffled_vectors


def _dealt(rng: np.random.Generator) -> Iterator[Case]:
    for n_positive, n_negative, deals in ((5, 3, 4), (2, 6, 1), (7, 7, 6)):
        positive, negative = _normal(rng, n_positive, 6) + 3.0, _normal(rng, n_negative, 6)
        orders = torch.tensor(np.stack([rng.permutation(n_positive + n_negative) for _ in range(deals)]))
        yield Case(
            (positive, negative, orders), about=f"{deals} deal{'s' * (deals > 1)} of {n_positive} + {n_negative}"
        )


def _deals(positive: Tensor, negative: Tensor, orders: Tensor) -> np.ndarray:
    """By loops, unscaled."""
    every = np.concatenate([positive.numpy(), negative.numpy()]).astype(float)
    found = []
    for order in orders.tolist():
        called_positive = [every[i] for i in order[: len(positive)]]
        called_negative = [every[i] for i in order[len(positive) :]]
        found.append(np.mean(called_positive, axis=0) - np.mean(called_negative, axis=0))
    return np.stack(found)


def _as_long(vectors: np.ndarray, length: float) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True) * length


def _length(positive: Tensor, negative: Tensor) -> float:
    return float(torch.linalg.vector_norm(positive.mean(0) - negative.mean(0)))


SHUFFLED_VECTORS = Exercise(
    name="shuffled_vectors",
    task="Control vectors: the same recipe with the labels dealt at random, as long as the real one",
    cases=_dealt,
    truth=lambda positive, negative, orders: _as_long(_deals(positive, negative, orders), _length(positive, negative)),
    mistakes=(
        Mistake(
            "not rescaled",
            _deals,
            "Your vectors are right but shorter than the real one. A shorter push does less, whatever its "
            "direction: give each the real vector's length.",
        ),
        Mistake(
            "unit length",
            lambda positive, negative, orders: _as_long(_deals(positive, negative, orders), 1.0),
            "Your vectors have length 1. They must be as long as the real one, ‖mean(positive) − mean(negative)‖.",
        ),
        Mistake(
            "halves",
            lambda positive, negative, orders: _as_long(
                np.stack([_halves(torch.cat([positive, negative])[order]) for order in orders]),
                _length(positive, negative),
            ),
            "You cut each deal in the middle. As many must be called positive as really are: the first "
            "`len(positive)`.",
        ),
        Mistake(
            "the other way round",
            lambda positive, negative, orders: (
                -_as_long(_deals(positive, negative, orders), _length(positive, negative))
            ),
            "Your signs are turned: the *first* len(positive) of each order are called positive, the rest negative.",
        ),
        Mistake(
            "shuffled within the kinds",
            None,
            "All your vectors are the real one: you shuffled within each kind. Put both kinds together first, then "
            "deal.",
            seen=lambda given, expected, case: _all_real(given, *case.args[:2]),
        ),
    ),
    hints=(
        "Put all examples in one tensor. For each order, the first len(positive) of it are called positive, the "
        "rest negative.",
        "`every = torch.cat([positive, negative])[order]`, then your `difference_of_means`; in the end scale each "
        "vector to the real one's norm.",
        "`vector / vector.norm() * difference_of_means(positive, negative).norm()`, stacked over the orders",
    ),
)


def _halves(every: Tensor) -> np.ndarray:
    n = len(every) // 2
    return (every[:n].mean(0) - every[n:].mean(0)).numpy()


def _all_real(given: object, positive: Tensor, negative: Tensor) -> bool:
    real = positive.mean(0) - negative.mean(0)
    rows = torch.as_tensor(given)
    return rows.ndim == 2 and bool(torch.allclose(rows.to(real), real.expand_as(rows), atol=1e-4))


# ----------------------------------------------------------------------------------------------------- linear_probe


def _labelled(rng: np.random.Generator) -> Iterator[Case]:
    for n, d_model, classes, ridge in ((40, 5, 3, 1.0), (30, 8, 2, 10.0), (12, 20, 3, 0.5)):
        centres = 2 * _normal(rng, classes, d_model)
        # Some of one class, few of the last: then the means of the scores differ, and a forgotten bias shows.
        labels = torch.tensor(np.r_[np.arange(classes), rng.choice(classes, n - classes, p=_lopsided(classes))])
        x = centres[labels] + _normal(rng, n, d_model) + 1.5
        test = _normal(rng, 7, d_model) + 1.5
        about = f"{n} examples of {classes} classes in {d_model} dimensions"
        yield Case((x, labels, test, classes, ridge), about=about)


def _lopsided(classes: int) -> np.ndarray:
    weights = np.arange(classes, 0, -1.0)
    return weights / weights.sum()


def _sklearn_scores(x: Tensor, labels: Tensor, test: Tensor, classes: int, ridge: float) -> np.ndarray:
    from sklearn.linear_model import Ridge

    fitted = Ridge(alpha=ridge, solver="cholesky").fit(x.double().numpy(), np.eye(classes)[labels.numpy()])
    return fitted.predict(test.double().numpy())


def _fitted(
    x: Tensor, labels: Tensor, ridge: float, classes: int, centre: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """The matrix and both means."""
    x, y = x.double(), torch.eye(classes, dtype=torch.float64)[labels]
    mx, my = (x.mean(0), y.mean(0)) if centre else (torch.zeros(x.shape[1]).double(), torch.zeros(classes).double())
    x, y = x - mx, y - my
    return torch.linalg.solve(x.T @ x + ridge * torch.eye(x.shape[1]).double(), x.T @ y), mx, my


def _probe_without(what: str, x: Tensor, labels: Tensor, test: Tensor, classes: int, ridge: float) -> Tensor:
    matrix, mx, my = _fitted(x, labels, 0.0 if what == "ridge" else ridge, classes, centre=what != "centre")
    if what == "test mean":
        mx = test.double().mean(0)
    if what == "my":
        my = torch.zeros_like(my)
    return (test.double() - mx) @ matrix + my


def _on_train(x: Tensor, labels: Tensor, test: Tensor, classes: int, ridge: float) -> np.ndarray:
    return _sklearn_scores(x, labels, x, classes, ridge)


LINEAR_PROBE = Exercise(
    name="linear_probe",
    task="A linear probe: ridge regression onto the classes, fitted on some examples, read on others",
    cases=_labelled,
    truth=_sklearn_scores,
    points=2,
    compare=close(rtol=1e-3, atol=1e-3),
    mistakes=(
        Mistake(
            "scores of the training examples",
            _on_train,
            "You scored the examples that the probe was fitted on. Score `test_x`: what a probe says of its own "
            "examples is worth nothing.",
        ),
        Mistake(
            "centred on the test set",
            lambda *given: _probe_without("test mean", *given),
            "You centred the test examples on *their own* mean. That is a leak, and with one test example it leaves "
            "nothing: use the mean of train_x.",
        ),
        Mistake(
            "not centred",
            lambda *given: _probe_without("centre", *given),
            "The fit has no bias: subtract the means of train_x and of the one-hot labels before you solve, and put "
            "them back when you score.",
        ),
        Mistake(
            "class shares not put back",
            lambda *given: _probe_without("my", *given),
            "The mean of the one-hot labels is missing from your scores: without it a common class is treated as a "
            "rare one.",
        ),
        Mistake(
            "labels instead of scores",
            lambda *given: torch.tensor(_sklearn_scores(*given)).argmax(-1),
            "You return which class won. Return the scores, [test, class].",
        ),
    ),
    hints=(
        "Targets: `torch.eye(n_classes)[train_y]`, one column a class. Then it is lesson 3's ridge regression.",
        "Centre X and the targets on their training means, solve (XᵀX + ridge·I) M = XᵀY, and score (test_x − mean "
        "of train_x) M + mean of the targets.",
        "`Y = torch.eye(n_classes)[train_y]`; `x, y = train_x.mean(0), Y.mean(0)`; `X = train_x - x`; `M = "
        "torch.linalg.solve(X.T @ X + "
        "ridge * torch.eye(X.shape[1]), X.T @ (Y - y))`; `return (test_x - x) @ M + y`",
    ),
)

# ------------------------------------------------------------------------------------------------ balanced_accuracy


def _judged(rng: np.random.Generator) -> Iterator[Case]:
    for n, classes in ((30, 3), (24, 2), (40, 4)):
        truth = np.r_[np.arange(classes), rng.choice(classes, n - classes, p=_lopsided(classes))]
        said = np.where(rng.random(n) < 0.6, truth, rng.integers(0, classes, n))
        yield Case((torch.tensor(truth), torch.tensor(said)), about=f"{classes} classes, some common and some rare")
    # One class that is never said, and a lazy probe that says one thing.
    yield Case((torch.tensor([0, 0, 0, 0, 0, 1]), torch.zeros(6, dtype=torch.long)), about="a probe that always says 0")


def _recall_mean(truth: Tensor, said: Tensor) -> float:
    from sklearn.metrics import recall_score

    return float(recall_score(truth.numpy(), said.numpy(), average="macro", labels=np.unique(truth.numpy())))


def _precisions(truth: Tensor, said: Tensor) -> float:
    return float(np.mean([(truth[said == c] == c).float().mean().item() for c in truth.unique() if (said == c).any()]))


BALANCED_ACCURACY = Exercise(
    name="balanced_accuracy",
    task="The mean over classes of the share of each that was found",
    cases=_judged,
    truth=_recall_mean,
    mistakes=(
        Mistake(
            "plain accuracy",
            lambda truth, said: float((truth == said).float().mean()),
            "That is plain accuracy: whoever always says the commonest class does well by it. Take the share found "
            "of *each* class, then their mean.",
        ),
        Mistake(
            "precision",
            _precisions,
            "You looked at what was *said* to be a class, and how often it was. Look at what *is* of the class, and "
            "how often it was found.",
        ),
        Mistake(
            "sum over classes",
            lambda truth, said: _recall_mean(truth, said) * len(truth.unique()),
            "You summed over the classes. Take the mean: 1 is perfect.",
        ),
    ),
    hints=(
        "For each class that occurs in `truth`: of its examples, the share that was said to be it.",
        "`(said[truth == c] == c).float().mean()` for each c in `truth.unique()`.",
        "`return torch.stack([(said[truth == c] == c).float().mean() for c in truth.unique()]).mean()`",
    ),
)

# --------------------------------------------------------------------------------------------------- split_by_group


def _grouped(rng: np.random.Generator) -> Iterator[Case]:
    for n, words, n_folds in ((20, 6, 3), (12, 4, 2), (30, 7, 5)):
        names = [f"w{i}" for i in rng.permutation(words)]
        groups = names + [str(name) for name in rng.choice(names, n - words)]
        fold = int(rng.integers(n_folds))
        yield Case((groups, fold, n_folds), about=f"{words} words in {n} sentences, fold {fold} of {n_folds}")


def _by_set(groups: Sequence[str], fold: int, n_folds: int) -> np.ndarray:
    chosen = {word for place, word in enumerate(sorted(set(groups))) if place % n_folds == fold}
    return np.array([word in chosen for word in groups])


def _every_nth(groups: Sequence[str], fold: int, n_folds: int) -> np.ndarray:
    return np.arange(len(groups)) % n_folds == fold


def _first_seen(groups: Sequence[str], fold: int, n_folds: int) -> np.ndarray:
    chosen = {word for place, word in enumerate(dict.fromkeys(groups)) if place % n_folds == fold}
    return np.array([word in chosen for word in groups])


SPLIT_BY_GROUP = Exercise(
    name="split_by_group",
    task="Which examples a fold holds out, so that no group is on both sides",
    cases=_grouped,
    truth=_by_set,
    compare=equal(),
    mistakes=(
        Mistake(
            "by example",
            _every_nth,
            "You hold out every n-th *example*. Then a word is on both sides, and a probe need only recognise it. "
            "Number the distinct words, not the examples.",
        ),
        Mistake(
            "the training side",
            lambda groups, fold, n_folds: ~_by_set(groups, fold, n_folds),
            "Turned round: True must stand for what is held out.",
        ),
        Mistake(
            "order of appearance",
            _first_seen,
            "You number the words as they first appear. Sort them first, so that the split does not depend on the "
            "order of the examples.",
        ),
        Mistake(
            "one group",
            lambda groups, fold, n_folds: np.array([word == sorted(set(groups))[fold] for word in groups]),
            "You hold out a single word. Fold f of n holds out every word whose number leaves the remainder f: "
            "place % n_folds == fold.",
        ),
    ),
    hints=(
        "Number the distinct words; whole words go to a fold.",
        "`sorted(set(groups))` gives each word a place; word number i belongs to fold i % n_folds.",
        "`place = {word: i for i, word in enumerate(sorted(set(groups)))}`; `return np.array([place[word] % n_folds "
        "== fold for word in groups])`",
    ),
)

# --------------------------------------------------------------------------------------------------- control_labels


def _control_cases(rng: np.random.Generator) -> Iterator[Case]:
    for words, n, classes in ((5, 14, 3), (8, 20, 2), (6, 9, 3)):
        names = [f"w{i}" for i in rng.permutation(words)]
        said = names + [str(name) for name in rng.choice(names, n - words)]
        order = rng.permutation(n)
        drawn = np.r_[rng.permutation(classes), rng.integers(0, classes, n - classes)]
        yield Case(([said[i] for i in order], drawn), about=f"{words} words in {n} sentences")


def _looked_up(words: Sequence[str], drawn: np.ndarray) -> list[int]:
    table: dict[str, int] = {}
    for word in words:
        if word not in table:
            table[word] = int(drawn[len(table)])
    return [table[word] for word in words]


CONTROL_LABELS = Exercise(
    name="control_labels",
    task="Hewitt and Liang's control task: a random label for each word, the same wherever the word stands",
    cases=_control_cases,
    truth=_looked_up,
    compare=equal(),
    mistakes=(
        Mistake(
            "a label an example",
            lambda words, drawn: [int(drawn[i]) for i in range(len(words))],
            "You drew a label for every *example*: that cannot be learned at all, and a probe that fails on it "
            "proves nothing. "
            "A word must get the same label each time it stands there.",
        ),
        Mistake(
            "alphabetical",
            lambda words, drawn: [int(drawn[sorted(set(words)).index(word)]) for word in words],
            "You number the words by the alphabet. Take them in order of first appearance.",
        ),
        Mistake(
            "last use",
            lambda words, drawn: [int(drawn[len(words) - 1 - list(words)[::-1].index(word)]) for word in words],
            "Each word has one label, but you took it from the place of its *last example*. Count distinct words: "
            "the first gets drawn[0], the next new one drawn[1].",
        ),
        Mistake(
            "first position",
            lambda words, drawn: [int(drawn[list(words).index(word)]) for word in words],
            "Each word has one label, but you skip some: you took drawn at the position of the word's first "
            "example. Count the *distinct* words so far.",
        ),
    ),
    hints=(
        "A dictionary word → label. A word that is not in it yet takes the next number of `drawn`.",
        "The next free number is drawn[len(table)].",
        "In the loop: `if word not in table: table[word] = int(drawn[len(table)])`; then `return [table[word] for "
        "word in words]`",
    ),
)

# -------------------------------------------------------------------------------------------------- remove_subspace


def _spans(rng: np.random.Generator) -> Iterator[Case]:
    for n, k, d_model in ((5, 2, 6), (3, 1, 4), (8, 3, 9)):
        directions = _normal(rng, k, d_model) * torch.linspace(0.5, 3.0, k)[:, None]
        if k > 1:
            directions[1] += directions[0]  # never at right angles
        stream = _normal(rng, n, d_model) + 1.0
        yield Case((stream, directions, stream.mean(0)), about=f"{k} direction{'s' * (k > 1)} in {d_model} dimensions")


def _by_pseudo_inverse(stream: Tensor, directions: Tensor, mean: Tensor) -> np.ndarray:
    d = directions.double().numpy()
    apart = (stream - mean).double().numpy()
    return stream.double().numpy() - apart @ (np.linalg.pinv(d) @ d)


def _one_by_one(stream: Tensor, directions: Tensor, mean: Tensor, unit: bool = True) -> Tensor:
    """All from the first stream, as if they were at right angles."""
    u = directions / directions.norm(dim=-1, keepdim=True) if unit else directions
    return stream - (stream - mean) @ u.T @ u


def _in_turn(stream: Tensor, directions: Tensor, mean: Tensor) -> Tensor:
    """One after the other: the second puts some of the first back."""
    for direction in directions:
        stream = _one_by_one(stream, direction[None], mean)
    return stream


REMOVE_SUBSPACE = Exercise(
    name="remove_subspace",
    task="Take out what the streams say along some directions: there, each is set to the mean",
    cases=_spans,
    truth=_by_pseudo_inverse,
    points=2,
    mistakes=(
        Mistake(
            "directions not orthonormal",
            lambda s, d, m: _one_by_one(s, d, m),
            "You made each direction a unit vector, but they are not at right angles to one another, so what they "
            "share is taken out twice. "
            "Make them orthonormal first, with `torch.linalg.qr`.",
        ),
        Mistake(
            "one after the other",
            _in_turn,
            "You project the directions out in turn. They are not at right angles, so the second step puts some of "
            "the first back: orthonormalise first.",
        ),
        Mistake(
            "not unit",
            lambda s, d, m: _one_by_one(s, d, m, unit=False),
            "Your directions keep their length, so you take out too much or too little. A projection needs unit "
            "vectors: `torch.linalg.qr`.",
        ),
        Mistake(
            "to zero",
            lambda s, d, m: _by_pseudo_inverse(s, d, torch.zeros_like(m)),
            "You set them to 0 along the directions. 0 may be a place where no stream ever is; set them to the "
            "`mean`: project stream − mean.",
        ),
        Mistake(
            "what is taken out",
            lambda s, d, m: s.double().numpy() - _by_pseudo_inverse(s, d, m),
            "That is the part to take out. Subtract it from the stream.",
        ),
        Mistake(
            "the mean is gone",
            lambda s, d, m: _by_pseudo_inverse(s, d, m) - m.double().numpy(),
            "The mean is gone from your streams in *every* direction. Subtract the projection from the stream "
            "itself, not from stream − mean.",
        ),
    ),
    hints=(
        "Orthonormal directions Q [d_model, k] span the same space; what lies in it is (x − mean) Q Qᵀ.",
        "`Q = torch.linalg.qr(directions.T).Q` has shape [d_model, k].",
        "`Q = torch.linalg.qr(directions.T).Q`; `return stream - (stream - mean) @ Q @ Q.T`",
    ),
)

# ----------------------------------------------------------------------------------------------------------- max_t


def _effects(rng: np.random.Generator) -> Iterator[Case]:
    for prompts, cells, flips in ((12, 5, 60), (8, 3, 40), (20, 9, 80)):
        effects = rng.normal(size=(prompts, cells))
        effects[:, 0] += 0.9
        effects[:, 1:] += 0.4 * rng.normal(size=(prompts, 1))  # cells of a prompt move together
        effects *= np.logspace(-1, 1, cells)  # of very different sizes: |t| counts, not the mean
        signs = rng.choice([-1.0, 1.0], size=(flips, prompts))
        # None that flips nothing or all: there |t| ties with its own, and rounding would decide.
        signs[:, 0], signs[:, 1] = 1.0, -1.0
        yield Case((effects, signs), about=f"{prompts} prompts, {cells} cells, {flips} flips")


def _t(effects: np.ndarray) -> np.ndarray:
    from scipy.stats import ttest_1samp

    statistic, _ = ttest_1samp(effects, 0.0, axis=0)
    return np.abs(np.asarray(statistic))


def _flipped(effects: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """|t| of each cell under each flip, [flip, cell]."""
    return np.stack([_t(sign[:, None] * effects) for sign in signs])


def _p_of_max(effects: np.ndarray, signs: np.ndarray) -> np.ndarray:
    strongest = _flipped(effects, signs).max(1)
    return np.array([(1 + (strongest >= t).sum()) / (1 + len(signs)) for t in _t(effects)])


def _p_each(effects: np.ndarray, signs: np.ndarray) -> np.ndarray:
    return (1 + (_flipped(effects, signs) >= _t(effects)).sum(0)) / (1 + len(signs))


def _p_of_means(effects: np.ndarray, signs: np.ndarray) -> np.ndarray:
    strongest = np.stack([np.abs((sign[:, None] * effects).mean(0)) for sign in signs]).max(1)
    return np.array([(1 + (strongest >= m).sum()) / (1 + len(signs)) for m in np.abs(effects.mean(0))])


def _without_ones(effects: np.ndarray, signs: np.ndarray) -> np.ndarray:
    return (_p_of_max(effects, signs) * (1 + len(signs)) - 1) / len(signs)


MAX_T = Exercise(
    name="max_t",
    task="p-values for many cells together: each |t| against the largest |t| that flipped signs give anywhere",
    cases=_effects,
    truth=_p_of_max,
    points=2,
    mistakes=(
        Mistake(
            "each cell for itself",
            _p_each,
            "You compare each cell with *its own* flips: those are plain p-values, and of a hundred of them five "
            "are below 0.05 by luck. "
            "Compare with the maximum over all cells of the same flip.",
        ),
        Mistake(
            "means for t",
            _p_of_means,
            "You took the largest *mean*. Cells differ in how far their prompts scatter, and the widest would "
            "always win: divide by the standard error, |t|.",
        ),
        Mistake(
            "without the observed one",
            _without_ones,
            "You left out the signs as they were. They are one of the possible flips, so p = (1 + hits) / (1 + "
            "flips), and it is never 0.",
        ),
        Mistake(
            "Bonferroni",
            lambda effects, signs: np.minimum(1.0, _p_each(effects, signs) * effects.shape[1]),
            "You multiplied plain p-values by the number of cells (Bonferroni). That is valid, but it supposes the "
            "worst about how cells go "
            "together; the maximum over the cells of each flip keeps it as it is.",
        ),
    ),
    hints=(
        "t of a cell: mean over the prompts / (standard deviation with ddof=1 / √prompts). Flip whole prompts, the "
        "same sign in every cell.",
        "For each row of `signs`: |t| of `sign[:, None] * effects`, then the maximum over the cells. p = (1 + how "
        "many of these maxima reach the cell's own |t|) / (1 + flips).",
        "`t = lambda e: np.abs(e.mean(0) / (e.std(0, ddof=1) / np.sqrt(len(e))))`; `strongest = np.array([t(s[:, "
        "None] * effects).max() for s in signs])`; "
        "`return (1 + (strongest[:, None] >= t(effects)).sum(0)) / (1 + len(signs))`",
    ),
)

LESSON = Outline(
    name="08_steering_and_probing",
    title="Steering and probing, with controls that embarrass the careless",
    minutes=(75, 90),
    able_to=(
        "find a direction by difference of means, add it at a dose, and draw the dose response",
        "put random vectors and shuffled labels of the same length beside an effect, and choose a metric that "
        "breaking the model does not move",
        "fit a linear probe, and split so that words and templates do not leak",
        "measure selectivity with a control task",
        "tell what can be read from what is used, by removing it",
        "correct for having looked in many places, with intervals over prompts",
    ),
    builds_on=("03_residual_stream", "06_indirect_object"),
    exercises=(
        DIFFERENCE_OF_MEANS,
        ADD_VECTOR,
        SHUFFLED_VECTORS,
        LINEAR_PROBE,
        BALANCED_ACCURACY,
        SPLIT_BY_GROUP,
        CONTROL_LABELS,
        REMOVE_SUBSPACE,
        MAX_T,
    ),
    predictions=("turning point", "confounded", "broken", "alphabet", "used", "coin"),
)
