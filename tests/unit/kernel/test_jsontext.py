"""What is read and written fast is what the standard library would read and write."""

import json

import pytest

from promptmill import jsontext

VALUES = [
    {"b": [1, -2, 0.1, 1e22, 10**30, True, None], "a": {"é": "\u2028 \x00 \n <&>"}},
    ["\ud800", {"half": "\udc00x"}],
    json.loads("[" * 400 + "]" * 400),
]


@pytest.mark.parametrize("value", VALUES)
def test_a_value_comes_back_as_it_was(value: object) -> None:
    text = jsontext.written(value)
    assert jsontext.read(text) == json.loads(text) == value
    assert jsontext.read(json.dumps(value)) == value


def test_the_order_of_fields_is_kept_and_no_space_is_spent() -> None:
    assert jsontext.written({"z": "é", "a": [1, 2]}) == '{"z":"é","a":[1,2]}'.encode()


@pytest.mark.parametrize("text", ["", "{", "[1] 2", "nonsense", b"\xff", '{"a": tru}'])
def test_what_is_no_json_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        jsontext.read(text)
