"""Settings, each with where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from freezeflow.report.text import size, table
from freezeflow.settings.resolve import Chosen
from freezeflow.settings.settings import BY_NAME
from freezeflow.values import Json


def render_settings(chosen: Mapping[str, Chosen]) -> str:
    """A row for each setting: name, value, origin. Of a secret only that it is set."""
    rows = [[name, _shown(name, each.value), each.origin] for name, each in chosen.items()]
    return table([["setting", "value", "from"], *rows])


def settings_to_json(chosen: Mapping[str, Chosen]) -> Json:
    """``freezeflow.config/1``: for each setting its value, origin, variable and meaning."""
    return {
        "format": "freezeflow.config/1",
        "settings": {
            name: {
                "value": _plain(name, each.value),
                "from": each.origin,
                "variable": BY_NAME[name].variable,
                "summary": BY_NAME[name].summary,
            }
            for name, each in chosen.items()
        },
    }


def _plain(name: str, value: object) -> Json:
    if BY_NAME[name].secret:
        return "set" if value else None
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _shown(name: str, value: object) -> str:
    plain = _plain(name, value)
    if plain is None or plain in ("", []):
        return "-"
    if isinstance(plain, bool):
        return str(plain).lower()
    if isinstance(plain, list):
        return ", ".join(plain)
    if name in ("mem_limit", "remote.max_file_size"):
        return size(plain)
    if isinstance(plain, float):
        return f"{plain:g} s"
    return str(plain)
