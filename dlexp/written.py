"""What a run has written into its folder, also while it goes on or if it was killed: plain Python objects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dlexp.errors import UserError
from dlexp.folder import CONFIG, METRICS, OVERRIDES, RECORDS, SUMMARY, UNFINISHED, read_json


def is_recorded(folder: Path) -> bool:
    """Is there anything of a run in it?"""
    return (folder / RECORDS).exists() or (folder / SUMMARY).exists()


def read_summary(folder: Path) -> dict[str, Any]:
    """summary.json, or as much of it as the records of an unfinished run tell."""
    return read_json(folder / SUMMARY) or _so_far(folder)


def _so_far(folder: Path) -> dict[str, Any]:
    """As much of a summary as the records of an unfinished run tell."""
    header, *records = read_lines(folder / RECORDS) or [{"layers": [], "quantities": []}]
    evaluations = read_lines(folder / METRICS)
    first, last = (records[0], records[-1]) if records else ({}, {})
    numbers = {tag: x for line in evaluations for tag, x in line.items() if "/" in tag}

    def of(line: Mapping[str, Any], i: int) -> dict[str, Any] | None:
        return {name: line[name][i] for name in header["quantities"]} if line else None

    config, hydra = (read_yaml(folder / CONFIG / f"{name}.yaml") for name in ("config", "hydra"))
    chosen = ((hydra.get("hydra") or {}).get("runtime") or {}).get("choices") or {}
    return {
        "status": UNFINISHED,
        "config": config or None,
        "seed": config.get("seed"),
        "choices": {key: word for key, word in chosen.items() if not key.startswith("hydra/")} or None,
        "steps": last.get("step", -1) + 1,
        "metrics": numbers,
        "diverged": None,
        "recorded": {"first": first.get("step"), "last": last.get("step")},
        "overrides": overrides(folder),
        "layers": [
            {
                "name": name,
                "parameters": 0 if name.endswith("_stream") else None,  # all that is known of them
                "first": of(first, i),
                "last": of(last, i),
                "reasons": {"first": {}, "last": {}},
            }
            for i, name in enumerate(header["layers"])
        ],
    }


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a JSON-lines file; a last line cut short by a kill is left out.

    Raises:
        UserError: another line is no JSON object, or the file cannot be read.
    """
    if not path.exists():
        return []
    try:
        text = path.read_bytes()  # as text the end might be half a letter
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    found = []
    for n, line in enumerate(text[: text.rfind(b"\n") + 1].splitlines(), 1):
        try:
            content = json.loads(line)
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise UserError(f"{path}: line {n} is not a line of a record: {line[:40]!r}")
        found.append(content)
    return found


def overrides(folder: Path) -> list[str]:
    """The words of a run that has no summary yet."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError  # type: ignore[import-untyped]

    try:
        return [str(word) for word in OmegaConf.load(folder / OVERRIDES)]
    except (OSError, OmegaConfBaseException, YAMLError):  # not there, or cut short by a kill
        return []


def read_yaml(path: Path) -> dict[str, Any]:
    """What a YAML file holds; {} if it is not there or is not whole."""
    import yaml  # type: ignore[import-untyped]

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}
