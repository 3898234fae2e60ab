"""YAML that libyaml writes reads as what OmegaConf would have written."""

from __future__ import annotations

import pytest
import yaml
from omegaconf import OmegaConf

from dlexp.compose import compose
from dlexp.describe import as_yaml

# fmt: off
TEXTS = (
    "", "y", "off", "No", "null", "~", "1", "1_0", "1e3", "-1.5", ".5", "nan", "inf", ".inf", "0x1f", "1:30",
    "2020-01-01", "# c", "- a", "x: y", "a\nb", "'", '"', "\t", "@x", "!t", "&a", "*a", "[1]", "${a}", "=",
    "<<", "é", "😀", " a ", "word " * 60,
)
# fmt: on


@pytest.mark.parametrize("text", TEXTS)
def test_each_text_comes_back(text: str) -> None:
    content = {"key": text, "list": [text, 1, 2.5, None, True]}
    written = as_yaml(content)
    assert OmegaConf.to_container(OmegaConf.create(written)) == content
    assert yaml.safe_load(written) == yaml.safe_load(OmegaConf.to_yaml(OmegaConf.create(content)))


def test_a_config_is_written_as_omegaconf_writes_it() -> None:
    request = compose(["name=1e3", "model=lstm", "scheduler=multistep", "optimizer=adam"])
    assert as_yaml(request.config) == OmegaConf.to_yaml(request.config)
    assert as_yaml(request.overrides) == OmegaConf.to_yaml(OmegaConf.create(request.overrides))


def test_without_libyaml_omegaconf_writes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    content = {"key": "1e3", "list": [1, "y"]}
    by_libyaml = as_yaml(content)
    monkeypatch.setattr(yaml, "__with_libyaml__", False)
    monkeypatch.delattr(yaml, "CDumper", raising=False)
    assert as_yaml(content) == by_libyaml
