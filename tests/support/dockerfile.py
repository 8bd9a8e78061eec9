"""The Dockerfile as a list of instructions."""

from __future__ import annotations

import json
from dataclasses import dataclass

from support.paths import REPO


@dataclass(frozen=True)
class Step:
    """An instruction of the Dockerfile with the number of its stage (0: before the first FROM)."""

    stage: int
    name: str
    words: str

    def exec_arguments(self) -> list[str]:
        """The arguments of an instruction in exec form."""
        return list(json.loads(self.words))


def dockerfile_steps() -> list[Step]:
    """All instructions of the Dockerfile, in their order."""
    text = (REPO / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    parsed: list[Step] = []
    for instruction in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, words = instruction.split(maxsplit=1)
        stage = (parsed[-1].stage if parsed else 0) + (name == "FROM")
        parsed.append(Step(stage, name, words))
    return parsed
