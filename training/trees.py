"""Boosted trees as text, in LightGBM's own format, read without trust.

LightGBM's parser believes what it reads. So a text is taken apart here, every index in it is
checked, and what LightGBM gets is written anew from the checked parts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from raymill.errors import ArtifactError, Problem

MOST_BYTES = 1 << 29
END = "end of trees"
_HEAD = ("tree", "version", "num_class", "num_tree_per_iteration", "label_index",
         "max_feature_idx", "objective", "feature_names", "feature_infos", "tree_sizes")
# The keys of a tree, and how many values each has for L leaves (None: checked on its own).
_EACH_NODE = ("split_feature", "split_gain", "threshold", "decision_type", "left_child",
              "right_child", "internal_value", "internal_weight", "internal_count")
_EACH_LEAF = ("leaf_value", "leaf_weight", "leaf_count")
_OTHERS = ("num_leaves", "num_cat", "cat_boundaries", "cat_threshold", "is_linear", "shrinkage")
_OBJECTIVE = re.compile(r"[a-z_0-9]+(?: [a-z_]+:[0-9.eE+-]+)*")
CATEGORICAL = 1  # the bit of decision_type


@dataclass(frozen=True)
class Forest:
    """Trees over `features` numbers; `outputs` trees an iteration.

    Attributes:
        objective: as LightGBM writes it; prediction takes raw scores, so it decides nothing.
        infos: LightGBM's notes on each feature: a range, or the known categories.
        trees: each one's lines, in the order of training.
        splits: of all trees together.
    """

    features: int
    outputs: int
    objective: str
    infos: str
    trees: tuple[str, ...]
    splits: int

    @property
    def rounds(self) -> int:
        return len(self.trees) // self.outputs

    def then(self, more: Forest) -> Forest:
        """These trees followed by those that were trained on what they left."""
        assert (self.features, self.outputs) == (more.features, more.outputs)
        return Forest(self.features, self.outputs, self.objective, self.infos,
                      self.trees + more.trees, self.splits + more.splits)

    def text(self) -> str:
        """The model file that LightGBM reads."""
        blocks = [f"Tree={index}\n{tree}\n\n" for index, tree in enumerate(self.trees)]
        head = {
            "version": "v4", "num_class": self.outputs, "num_tree_per_iteration": self.outputs,
            "label_index": 0, "max_feature_idx": self.features - 1, "objective": self.objective,
            "feature_names": " ".join(f"f{index}" for index in range(self.features)),
            "feature_infos": self.infos,
            "tree_sizes": " ".join(str(len(block)) for block in blocks),
        }
        lines = "".join(f"{key}={value}\n" for key, value in head.items())
        return f"tree\n{lines}\n{''.join(blocks)}{END}\n"


def parse(text: str, features: int, outputs: int) -> Forest:
    """The forest that a model file of LightGBM holds.

    Raises:
        ArtifactError: it is too large, not such a file, of another number of features or outputs,
            or a tree's indices lead outside of it.
    """
    if len(text) > MOST_BYTES:
        raise _bad(f"one of {len(text):,} bytes, where {MOST_BYTES:,} are the most")
    trees_of, end, _ = text.partition(f"\n{END}\n")
    head, *blocks = trees_of.split("\nTree=")
    said = dict(line.partition("=")[::2] for line in head.splitlines() if line)
    if not end or "tree" not in said or set(said) - set(_HEAD) or said.get("version") != "v4":
        raise _bad("none, a part of one, or one of another version")
    wide = (said.get("max_feature_idx"), said.get("num_class"), said.get("num_tree_per_iteration"))
    if wide != (str(features - 1), str(outputs), str(outputs)) or len(blocks) % outputs:
        raise _bad(f"one of {wide[0]} + 1 features and {wide[1]} outputs, where the schema has "
                   f"{features} and {outputs}")
    objective, infos = said.get("objective", ""), said.get("feature_infos", "")
    if not _OBJECTIVE.fullmatch(objective) or len(infos.split(" ")) != features:
        raise _bad("a header that is not whole")
    trees, splits = [], 0
    for index, block in enumerate(blocks):
        number, _, body = block.partition("\n")
        if number != str(index):
            raise _bad(f"tree {number!r} where tree {index} should be")
        lines = [line for line in body.splitlines() if line]
        splits += _splits(index, lines, features)
        trees.append("\n".join(lines))
    return Forest(features, outputs, objective, infos, tuple(trees), splits)


def _bad(got: str) -> ArtifactError:
    return ArtifactError(Problem(rule="the trees must be a whole LightGBM model of format v4",
                                 got=got, cure="Restore the folder from a copy, or train again."))


def _splits(index: int, lines: Sequence[str], features: int) -> int:
    """The splits of a tree whose every index is good."""
    said = dict(line.partition("=")[::2] for line in lines)
    try:
        good = _whole(said, features)
    except (ValueError, KeyError, IndexError):
        good = False
    if not good or len(said) != len(lines):
        raise _bad(f"tree {index}, whose parts do not fit each other")
    return int(said["num_leaves"]) - 1


def _whole(said: dict[str, str], features: int) -> bool:
    leaves, sets = int(said["num_leaves"]), int(said["num_cat"])
    if set(said) - {*_EACH_NODE, *_EACH_LEAF, *_OTHERS} or leaves < 1 or sets < 0:
        return False
    nodes = leaves - 1
    values = said["leaf_value"].split()
    if said.get("is_linear", "0") != "0" or len(values) != leaves:
        return False
    if not all(math.isfinite(float(value)) for value in (*values, said["shrinkage"])):
        return False
    if nodes == 0:
        return True  # LightGBM reads nothing else of a lone leaf
    if any(len(said[key].split()) != nodes for key in _EACH_NODE):
        return False
    if any(len(said[key].split()) != leaves for key in _EACH_LEAF):
        return False
    kinds = _ints(said["decision_type"])
    thresholds = said["threshold"].split()
    chosen = [float(t) for t, kind in zip(thresholds, kinds, strict=True) if kind & CATEGORICAL]
    return (
        _within(_ints(said["split_feature"]), features)
        and all(0 <= kind < 16 for kind in kinds)
        and all(not math.isnan(float(threshold)) for threshold in thresholds)
        and all(value.is_integer() for value in chosen)
        and _within([int(value) for value in chosen], sets)
        and _is_tree(_ints(said["left_child"]), _ints(said["right_child"]), leaves)
        and _sets_fit(said, sets)
    )


def _ints(text: str) -> list[int]:
    return [int(value) for value in text.split()]


def _within(values: Iterable[int], end: int) -> bool:
    return all(0 <= value < end for value in values)


def _is_tree(left: list[int], right: list[int], leaves: int) -> bool:
    """Whether every node but the first, and every leaf, hangs below one earlier node."""
    if any(0 <= child <= node for node, pair in enumerate(zip(left, right, strict=True))
           for child in pair):
        return False
    hung = sorted(left + right)
    return hung == [*range(-leaves, 0), *range(1, leaves - 1)]


def _sets_fit(said: dict[str, str], sets: int) -> bool:
    """Whether the sets of categories lie in their table, one after the other."""
    if sets == 0:
        return True
    bounds, words = _ints(said["cat_boundaries"]), _ints(said["cat_threshold"])
    return (len(bounds) == sets + 1 and bounds[0] == 0 and bounds[-1] == len(words)
            and bounds == sorted(bounds) and _within(words, 1 << 32))
