"""Words of a command line, against Hydra's own reading of them."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from dlexp.words import expanded, folder_name, quoted, split_words, unquoted

TEXTS = ["plain", "two words", "a=b,c", "it's", "back\\slash", "br[ack]et{s}", "end\\", "\\'", '"', ""]


@pytest.mark.parametrize("text", TEXTS)
def test_a_quoted_value_comes_back(text: str) -> None:
    (read,) = OverridesParser.create().parse_overrides([f"key={quoted(text)}"])
    assert read.value() == text
    assert not read.is_sweep_override()
    assert unquoted(quoted(text)) == text
    assert split_words([f"+key={quoted(text)}"]) == {"key": text}


@pytest.mark.parametrize("typed", ["'a b'", '"it\'s"', "'it\\'s'", '"a\\\\"', "3", "'"])
def test_quotes_are_taken_away_as_hydra_does(typed: str) -> None:
    if typed == "'":
        assert unquoted(typed) == typed  # no pair
        return
    (read,) = OverridesParser.create().parse_overrides([f"key={typed}"])
    assert unquoted(typed) == str(read.value())


def test_the_name_of_a_job_can_be_a_folder() -> None:
    assert folder_name(["activation=relu", "optimizer.lr=1e-3"]) == "activation=relu,optimizer.lr=1e-3"
    path = folder_name(["data.path=/home/me/a b.csv"])
    assert "/" not in path and " " not in path and path.startswith("data.path=_home_me_a_b.csv_")
    assert path != folder_name(["data.path=/home/me/a_b.csv"])
    assert folder_name(["name='a,b'"]) == "name=a,b"
    long = folder_name([f"model.x{i}=12345" for i in range(40)])
    assert len(long) < 200 and long != folder_name([f"model.x{i}=12345" for i in range(41)])


def test_an_arm_stands_for_its_words() -> None:
    """Once, also where a job has both; without one nothing changes, not even what is typed twice."""
    assert expanded(["seed=1", "arm='optimizer=sgd optimizer.lr=1'"]) == [
        "seed=1",
        "optimizer=sgd",
        "optimizer.lr=1",
    ]
    assert expanded(["optimizer=sgd", "arm='optimizer=sgd'"]) == ["optimizer=sgd"]
    assert expanded(["seed=1", "seed=1"]) == ["seed=1", "seed=1"] and expanded(["arm="]) == []
