"""Puts plugins, checklist, verdicts and two documents into the wheel.

An editable install is not changed, because it reads `plugins/` and `papers.yaml` from the checkout.
"""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ShipPlugins(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        root = Path(self.root)
        for path in sorted((root / "plugins").rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                build_data["force_include"][str(path)] = (
                    f"readtrack/papers/{path.relative_to(root / 'plugins')}"
                )
        build_data["force_include"][str(root / "papers.yaml")] = "readtrack/papers.yaml"
        for name in ("verdicts.json", "plugins.md", "method.md", "method/curve.svg"):
            build_data["force_include"][str(root / "docs" / name)] = f"readtrack/{name}"
