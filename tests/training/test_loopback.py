"""What the workers' process group listens on is on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from raymill.ports import free_port

RANK_ZERO = """
import json, os, psutil, torch.distributed as dist
from raymill.training.loopback import closed_store
closed_store()
dist.init_process_group("gloo", init_method="env://", rank=0, world_size=1)
found = [c.laddr for c in psutil.Process().net_connections("tcp") if c.status == "LISTEN"]
print(json.dumps([[place.ip, place.port] for place in found]))
dist.destroy_process_group()
"""


def test_the_store_of_a_process_group_listens_on_loopback_only() -> None:
    port = free_port()
    variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run([sys.executable, "-c", RANK_ZERO], env={**os.environ, **variables},
                          text=True, capture_output=True, check=True, timeout=120)
    found = json.loads(done.stdout.splitlines()[-1])
    assert ["127.0.0.1", port] in found
    assert {ip for ip, _ in found} == {"127.0.0.1"}
