"""What goes to a cluster with a job: the user's spec, contract and code; never the data."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Project:
    """The files of a project by relative path, and how it is run.

    `spec` is the spec's file among them; `settings` are overrides `a.b=c`; `variables` are names
    of environment variables that the cluster must have, whose values are nobody's business here.
    """

    name: str
    files: dict[str, bytes]
    spec: str
    settings: list[str] = field(default_factory=list)
    variables: list[str] = field(default_factory=list)

    @property
    def label(self) -> str:
        """The name as Kubernetes takes it: at most 40 lower-case letters, digits and dashes."""
        plain = re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")[:40].strip("-")
        return plain if plain[:1].isalpha() else f"m-{plain}"

    @property
    def digest(self) -> str:
        """12 hex digits of all that is run."""
        said = {"files": {name: hashlib.sha256(content).hexdigest()
                          for name, content in sorted(self.files.items())},
                "spec": self.spec, "settings": self.settings, "variables": self.variables}
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]

    def command(self, verb: str = "run") -> list[str]:
        """The command that runs it where its files are, on the cluster that is there."""
        sets = [part for text in [*self.settings, "cluster.address=auto"]
                for part in ("--set", text)]
        return ["raymill", verb, self.spec, *sets]
