"""Model cards."""

import datetime

import pytest

from mpqyolo.core.errors import FileFormatError
from mpqyolo.format.card import check_card, format_card, make_card


def test_a_card_holds_what_it_must():
    card = make_card(
        "vehicles-n", "mpq", "n", 320, data={"name": "a set", "licence": "CC BY 4.0"}, metrics={"val_map50": 0.5}, seed=3
    )
    check_card(card)
    assert (
        card["licence"] == "Apache-2.0" and card["metrics"] == {"val_map50": 0.5} and card["seed"] == 3 and "commit" not in card
    )
    assert datetime.datetime.fromisoformat(card["created"]).tzinfo is not None
    assert make_card("a", "mpq", "n", (320, 256), created="2026-01-01")["image_size"] == [320, 256]


def test_check_names_what_is_missing():
    with pytest.raises(FileFormatError, match="family, licence"):
        check_card(make_card("a", "mpq", "n", 320) | {"family": "", "licence": None})


def test_only_json():
    with pytest.raises(FileFormatError, match="card"):
        make_card("a", "mpq", "n", 320, metrics={"map": float("inf")})


def test_for_people():
    text = format_card({"name": "x\x1b[31my", "metrics": {"map50": 0.123456789}, "levels": [8, 16]})
    assert text.splitlines() == ["name     x\\x1b[31my", "metrics", "  map50  0.123457", "levels   8, 16"]
