"""Free text: words counted on training rows, fixed numbers, the same for files and requests."""

import numpy as np
import pyarrow as pa
import pytest

from raymill.data.contract import Contract
from raymill.data.profile import from_summaries as profile_of
from raymill.data.rules import ColumnRule
from raymill.data.stats import Summaries, merge, of_table
from raymill.data.text import FIRST, LONGEST, PADDING, UNKNOWN
from raymill.data.transform import Transform, from_summaries


def _contract(**columns: str) -> Contract:
    rules = {name: ColumnRule.model_validate({"type": "string", "kind": kind, "nullable": True})
             for name, kind in columns.items()}
    return Contract(target="y", task="binary", classes=["no", "yes"], columns={
        **rules, "y": ColumnRule(type="string", kind="categorical")})


def _fit(table: pa.Table, contract: Contract) -> Transform:
    return from_summaries(of_table(table, contract), contract, None)


TABLE = pa.table({
    "title": ["Late again", "Late order", "", None],
    "body": ["The parcel is LATE!", "the parcel, the box", "a box is late", "Straße 5 is late"],
    "y": ["no", "yes", "no", "yes"],
})
CONTRACT = _contract(title="text", body="text")


def test_columns_share_padding_and_the_unknown_word_and_nothing_else() -> None:
    transform = _fit(TABLE, CONTRACT)
    assert [part.words for part in transform.texts] == [
        ("late",), ("is", "late", "box", "parcel", "the")]
    words = transform.apply(TABLE)["text"]
    assert words.shape == (4, 16) and words.dtype == np.int64
    assert words[0].tolist() == [2, UNKNOWN] + [PADDING] * 6 + [7, 6, 3, 4, UNKNOWN] + [PADDING] * 3
    assert (words[3, :8] == PADDING).all(), "a missing text has no words"
    schema = transform.schema
    assert schema.text == (("title", 1, 8), ("body", 5, 8))
    assert schema.vocabulary == FIRST + 6 > words.max()


def test_equal_rows_give_equal_numbers_one_by_one_and_through_json() -> None:
    transform = _fit(TABLE, CONTRACT)
    again = Transform.from_dict(transform.to_dict())
    whole = transform.apply(TABLE)["text"]
    single = [again.apply(CONTRACT.from_rows([row]))["text"]
              for row in TABLE.drop_columns(["y"]).to_pylist()]
    assert (np.concatenate(single) == whole).all()


def test_parts_merged_in_any_order_make_one_vocabulary() -> None:
    parts = [of_table(TABLE.slice(low, 1), CONTRACT) for low in range(4)]
    backwards: Summaries = {}
    for part in reversed(parts):
        merge(backwards, part)
    assert from_summaries(backwards, CONTRACT, None) == _fit(TABLE, CONTRACT)


def test_the_length_covers_most_texts_and_has_a_bound() -> None:
    contract = _contract(body="text")
    short = pa.table({"body": ["word " * 20] * 30 + ["word " * 200], "y": ["no"] * 31})
    assert _fit(short, contract).schema.places == [24]
    endless = pa.table({"body": ["word " * 5000] * 3, "y": ["no"] * 3})
    transform = _fit(endless, contract)
    assert transform.schema.places == [LONGEST]
    assert (transform.apply(endless)["text"] == FIRST).all()


def test_the_profile_tells_lengths_and_words_but_not_of_sensitive_columns() -> None:
    said = profile_of(of_table(TABLE, CONTRACT), CONTRACT)["columns"]["body"]
    assert said["kind"] == "text" and said["words"]["mean"] == pytest.approx(4.5)
    assert said["words"]["top"][0] == ["is", 3]
    rules = {**CONTRACT.columns, "body": CONTRACT.columns["body"].model_copy(
        update={"sensitive": True})}
    secret = CONTRACT.model_copy(update={"columns": rules})
    assert "top" not in profile_of(of_table(TABLE, secret), secret)["columns"]["body"]["words"]
