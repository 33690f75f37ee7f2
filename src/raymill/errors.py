"""Errors a user can act on: the rule, the value got, and the cure, with the place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

EXIT_OK, EXIT_FAILED, EXIT_BAD_INPUT, EXIT_REFUSED, EXIT_INTERRUPTED = 0, 1, 2, 3, 130


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing wrong in a user's input.

    `where` is `file:line:column` for a spec, `file row N` for data, a field path for a request.
    `got` never holds a secret; for data it may be empty where the column is marked sensitive.
    """

    rule: str
    got: str = ""
    cure: str = ""
    where: str = ""

    def __str__(self) -> str:
        parts = [f"{self.where}: " if self.where else "", self.rule]
        if self.got:
            parts.append(f", but got {self.got}")
        parts.append(".")
        if self.cure:
            parts.append(f" {self.cure}")
        return "".join(parts)

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


class RaymillError(Exception):
    """Base of every error that is shown to a user without a traceback (exit code 1)."""

    exit_code = EXIT_FAILED

    def __init__(self, problems: str | Problem | Sequence[Problem], *, cure: str = "") -> None:
        if isinstance(problems, str):
            problems = Problem(rule=problems.rstrip("."), cure=cure)
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type[RaymillError], tuple[list[Problem]]]:
        return type(self), (self.problems,)


class UsageError(RaymillError):
    """A command or call that can't be carried out as written (exit code 2)."""

    exit_code = EXIT_BAD_INPUT


class SpecError(RaymillError):
    """A spec that breaks its rules; `problems` holds all of them (exit code 2)."""

    exit_code = EXIT_BAD_INPUT


class DataError(RaymillError):
    """Data that can't be read or breaks its contract (exit code 2)."""

    exit_code = EXIT_BAD_INPUT


class ArtifactError(RaymillError):
    """A bundle or checkpoint whose files differ from its manifest, or that can't be loaded."""


class TrainingError(RaymillError):
    """A training run that can't go on (non-finite loss, out of memory, lost workers)."""
