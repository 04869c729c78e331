"""The files of rules that docs/rules.md shows."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs/rules.md"
TEXTS: list[str] = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
BY_NAME = {tomllib.loads(text)["name"]: text for text in TEXTS}
