"""A tree of control groups, as the kernel lays it out in files."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.transport import groups as groups_module


class Groups:
    """A tree of control groups, and this process in it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = folder / "cgroup"
        self.membership = folder / "membership"
        self.vmstat = folder / "vmstat"
        self.root.mkdir()
        monkeypatch.setattr(groups_module, "ROOT", self.root)
        monkeypatch.setattr(groups_module, "MEMBERSHIP", self.membership)

    def join(self, membership: str) -> None:
        self.membership.write_text(membership)

    def add(self, path: str, **files: object) -> None:
        folder = self.root / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name.replace("__", ".")).write_text(f"{content}\n")

    def v2(self, path: str, limit: object, usage: int, kills: int | None = None) -> None:
        self.add(path, memory__max=limit, memory__current=usage)
        if kills is not None:
            self.add(path, memory__events=f"low 0\noom 9\noom_kill {kills}\noom_group_kill 9")

    def v1(self, path: str, limit: object, usage: int, kills: int | None = None) -> None:
        path = f"memory/{path}"
        self.add(path, memory__limit_in_bytes=limit, memory__usage_in_bytes=usage)
        if kills is not None:
            self.add(path, memory__oom_control=f"under_oom 0\noom_kill {kills}")
