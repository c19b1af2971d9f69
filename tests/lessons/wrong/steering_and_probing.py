"""What students hand in for lesson 8, and the hint that each deserves."""

import numpy as np
import torch

# --------------------------------------------------------------------------------------------- difference_of_means


def backwards(positive, negative):
    return torch.mean(negative, dim=0) - torch.mean(positive, dim=0)


def sums(positive, negative):
    return torch.sum(positive, dim=0) - torch.sum(negative, dim=0)


def one_side(positive, negative):
    return torch.mean(positive, dim=0)


def against_everything(positive, negative):
    return positive.mean(0) - torch.vstack([positive, negative]).mean(0)


def one_number(positive, negative):
    return torch.mean(positive) - torch.mean(negative)


# ------------------------------------------------------------------------------------------------------- add_vector


def at_all_tokens(stream, vector, dose, lengths):
    return stream + dose * vector[None, None, :]


def at_minus_one(stream, vector, dose, lengths):
    made = stream.clone()
    made[:, -1, :] += dose * vector
    return made


def forgot_minus_one(stream, vector, dose, lengths):
    made = stream.clone()
    for row in range(len(stream)):
        column = int(lengths[row])
        made[row, column if column < stream.shape[1] else 0] += dose * vector
    return made


def made_unit(stream, vector, dose, lengths):
    made = stream.clone()
    for row, length in enumerate(lengths):
        made[row, length - 1] += dose * torch.nn.functional.normalize(vector, dim=0)
    return made


def no_dose(stream, vector, dose, lengths):
    made = stream.clone()
    for row, length in enumerate(lengths):
        made[row, length - 1] += vector
    return made


# ------------------------------------------------------------------------------------------------- shuffled_vectors


def deal(positive, negative, order, n):
    every = torch.cat([positive, negative])[order]
    return every[:n].mean(0) - every[n:].mean(0)


def as_they_come(positive, negative, orders):
    return torch.stack([deal(positive, negative, order, len(positive)) for order in orders])


def of_length_one(positive, negative, orders):
    return torch.nn.functional.normalize(as_they_come(positive, negative, orders), dim=-1)


def cut_in_the_middle(positive, negative, orders):
    length = (positive.mean(0) - negative.mean(0)).norm()
    n = (len(positive) + len(negative)) // 2
    vectors = torch.stack([deal(positive, negative, order, n) for order in orders])
    return vectors / vectors.norm(dim=-1, keepdim=True) * length


def first_are_negative(positive, negative, orders):
    length = (positive.mean(0) - negative.mean(0)).norm()
    return -of_length_one(positive, negative, orders) * length


def within_each_kind(positive, negative, orders):
    found = []
    for order in orders:
        mine, theirs = order[order < len(positive)], order[order >= len(positive)] - len(positive)
        found.append(positive[mine].mean(0) - negative[theirs].mean(0))
    return torch.stack(found)


# ----------------------------------------------------------------------------------------------------- linear_probe


def fit(X, Y, ridge):
    return torch.linalg.solve(X.T @ X + ridge * torch.eye(X.shape[1]), X.T @ Y)


def scores_of_train(train_x, train_y, test_x, n_classes, ridge):
    Y = torch.eye(n_classes)[train_y]
    X = train_x - train_x.mean(0)
    return X @ fit(X, Y - Y.mean(0), ridge) + Y.mean(0)


def each_its_own_mean(train_x, train_y, test_x, n_classes, ridge):
    Y = torch.nn.functional.one_hot(train_y, n_classes).float()
    matrix = fit(train_x - train_x.mean(0), Y - Y.mean(0), ridge)
    return (test_x - test_x.mean(0)) @ matrix + Y.mean(0)


def no_bias(train_x, train_y, test_x, n_classes, ridge):
    return test_x @ fit(train_x, torch.eye(n_classes)[train_y], ridge)


def shares_lost(train_x, train_y, test_x, n_classes, ridge):
    Y = torch.eye(n_classes)[train_y]
    x = train_x.mean(0)
    return (test_x - x) @ fit(train_x - x, Y - Y.mean(0), ridge)


def which_class(train_x, train_y, test_x, n_classes, ridge):
    return (shares_lost(train_x, train_y, test_x, n_classes, ridge) + torch.eye(n_classes)[train_y].mean(0)).argmax(-1)


# ------------------------------------------------------------------------------------------------ balanced_accuracy


def accuracy(truth, said):
    return (truth == said).double().mean()


def precision(truth, said):
    return torch.stack([(truth[said == c] == c).double().mean() for c in said.unique()]).mean()


def summed(truth, said):
    return sum((said[truth == c] == c).double().mean() for c in truth.unique())


# --------------------------------------------------------------------------------------------------- split_by_group


def every_third(groups, fold, n_folds):
    return np.array([i % n_folds == fold for i in range(len(groups))])


def what_is_kept(groups, fold, n_folds):
    words = sorted(set(groups))
    return np.array([words.index(word) % n_folds != fold for word in groups])


def as_they_appear(groups, fold, n_folds):
    words = list(dict.fromkeys(groups))
    return np.array([words.index(word) % n_folds == fold for word in groups])


def a_single_word(groups, fold, n_folds):
    return np.array([word == sorted(set(groups))[fold] for word in groups])


# --------------------------------------------------------------------------------------------------- control_labels


def a_coin_for_each(words, drawn):
    return [int(label) for _, label in zip(words, drawn, strict=False)]


def by_the_alphabet(words, drawn):
    table = {word: int(drawn[i]) for i, word in enumerate(sorted(set(words)))}
    return [table[word] for word in words]


def overwritten(words, drawn):
    table = {word: int(drawn[i]) for i, word in enumerate(words)}
    return [table[word] for word in words]


def skips(words, drawn):
    table = {}
    for i, word in enumerate(words):
        table.setdefault(word, int(drawn[i]))
    return [table[word] for word in words]


# -------------------------------------------------------------------------------------------------- remove_subspace


def units_only(stream, directions, mean):
    u = torch.nn.functional.normalize(directions, dim=-1)
    along = torch.einsum("nd,kd->nk", stream - mean, u)
    return stream - torch.einsum("nk,kd->nd", along, u)


def in_turn(stream, directions, mean):
    for direction in directions:
        u = direction / direction.norm()
        stream = stream - ((stream - mean) @ u)[:, None] * u
    return stream


def lengths_kept(stream, directions, mean):
    return stream - (stream - mean) @ directions.T @ directions


def down_to_zero(stream, directions, mean):
    Q = torch.linalg.qr(directions.T).Q
    return stream - stream @ Q @ Q.T


def the_part_itself(stream, directions, mean):
    Q = torch.linalg.qr(directions.T).Q
    return (stream - mean) @ Q @ Q.T


def mean_lost(stream, directions, mean):
    Q = torch.linalg.qr(directions.T).Q
    apart = stream - mean
    return apart - apart @ Q @ Q.T


# ------------------------------------------------------------------------------------------------------------ max_t


def t_of(effects):
    return np.abs(effects.mean(0)) / (effects.std(0, ddof=1) / np.sqrt(len(effects)))


def cell_by_cell(effects, signs):
    flipped = np.array([t_of(sign[:, None] * effects) for sign in signs])
    return (1 + (flipped >= t_of(effects)).sum(0)) / (1 + len(signs))


def largest_mean(effects, signs):
    strongest = np.array([np.abs((sign[:, None] * effects).mean(0)).max() for sign in signs])
    return (1 + (strongest[:, None] >= np.abs(effects.mean(0))).sum(0)) / (1 + len(signs))


def share_of_flips(effects, signs):
    strongest = np.array([t_of(sign[:, None] * effects).max() for sign in signs])
    return (strongest[:, None] >= t_of(effects)).mean(0)


def bonferroni(effects, signs):
    return np.clip(cell_by_cell(effects, signs) * effects.shape[1], 0, 1)


WRONG = {
    "difference_of_means": [
        (backwards, "wrong way"),
        (sums, "you took sums"),
        (one_side, "both* kinds have in common"),
        (against_everything, "mean of *everything*"),
        (one_number, "one number"),
    ],
    "add_vector": [
        (at_all_tokens, "at every token"),
        (at_minus_one, "column −1"),
        (forgot_minus_one, "off by one"),
        (made_unit, "divided the vector"),
        (no_dose, "dose is missing"),
    ],
    "shuffled_vectors": [
        (as_they_come, "shorter than the real one"),
        (of_length_one, "length 1"),
        (cut_in_the_middle, "in the middle"),
        (first_are_negative, "signs are turned"),
        (within_each_kind, "within each kind"),
    ],
    "linear_probe": [
        (scores_of_train, "fitted on"),
        (each_its_own_mean, "their own* mean"),
        (no_bias, "no bias"),
        (shares_lost, "missing from your scores"),
        (which_class, "which class won"),
    ],
    "balanced_accuracy": [
        (accuracy, "plain accuracy"),
        (precision, "how often it was found"),
        (summed, "summed over the classes"),
    ],
    "split_by_group": [
        (every_third, "n-th *example*"),
        (what_is_kept, "turned round"),
        (as_they_appear, "first appear"),
        (a_single_word, "single word"),
    ],
    "control_labels": [
        (a_coin_for_each, "for every *example*"),
        (by_the_alphabet, "alphabet"),
        (overwritten, "last example"),
        (skips, "skip some"),
    ],
    "remove_subspace": [
        (units_only, "taken out twice"),
        (in_turn, "in turn"),
        (lengths_kept, "keep their length"),
        (down_to_zero, "set them to the `mean`"),
        (the_part_itself, "part to take out"),
        (mean_lost, "mean is gone"),
    ],
    "max_t": [
        (cell_by_cell, "its own* flips"),
        (largest_mean, "largest *mean*"),
        (share_of_flips, "never 0"),
        (bonferroni, "Bonferroni"),
    ],
}
