from __future__ import annotations

import json
from dataclasses import replace

from raymill.serving.haproxy import Front, narrow

PLAIN = Front("/p", "127.0.0.1", "", "/x/in.sock")
RAYS = """global
    stats socket /x/admin.sock mode 666 level admin expose-fd listeners
defaults
    mode http
    timeout client 60s
    errorfile 502 /x/500.http
    errorfile 503 /x/500.http
    errorfile 504 /x/500.http
frontend prometheus
    bind :9101
    mode http
frontend http_frontend
    bind 127.0.0.1:8000
    acl routes path -i /-/routes
backend http-app
    option httpchk GET /-/routes
    http-check expect status 200
    server replica 127.0.0.1:30000 check
backend default_backend
    http-request return status 404 content-type text/plain lf-string "Path not found."
listen stats
  bind *:8404
"""


def test_every_page_of_haproxy_binds_to_loopback() -> None:
    binds = [line.split()[1] for line in narrow(RAYS, PLAIN).splitlines() if "bind" in line]
    assert binds == ["127.0.0.1:9101", "127.0.0.1:8000", "unix@/x/in.sock", "127.0.0.1:8404"]


def test_only_the_owner_may_use_the_admin_socket() -> None:
    assert "mode 600 level admin" in narrow(RAYS, PLAIN)
    assert "666" not in narrow(RAYS, PLAIN)


def test_the_head_of_a_request_has_a_deadline() -> None:
    assert "timeout http-request 10s" in narrow(RAYS, PLAIN)


def test_no_replica_is_503_by_our_page() -> None:
    pages = [line.split() for line in narrow(RAYS, PLAIN).splitlines() if "errorfile" in line]
    assert pages == [["errorfile", code, "/p"] for code in ("502", "503", "504")]


def test_haproxy_without_routes_says_to_come_back_and_not_that_a_path_is_unknown() -> None:
    backend = narrow(RAYS, PLAIN).split("backend default_backend\n")[1]
    line = backend.splitlines()[0]
    assert "return status 503" in line and "hdr retry-after 1" in line
    assert json.loads(line.split("string ")[1].strip("'"))["status"] == 503


def test_a_request_without_a_path_is_404_and_no_lack_of_replicas() -> None:
    """`OPTIONS *` goes to no backend of Serve's."""
    (rule,) = [line for line in narrow(RAYS, PLAIN).splitlines() if "!{ path_beg / }" in line]
    assert "return status 404" in rule


def test_clients_cannot_set_serves_control_headers() -> None:
    frontend = narrow(RAYS, PLAIN).split("frontend http_frontend")[1].split("backend")[0]
    for name in ("x-request-timeout-seconds", "x-request-disconnect-disabled", "x-serve-"):
        assert f"http-request del-header {name}" in frontend
    assert "http-response del-header server" in frontend


def test_narrowing_twice_changes_nothing_more() -> None:
    assert narrow(narrow(RAYS, PLAIN), PLAIN) == narrow(RAYS, PLAIN)


def test_the_endpoint_alone_may_listen_elsewhere_and_with_tls() -> None:
    narrowed = narrow(RAYS, Front("/p", "0.0.0.0", "/x/tls.pem", "/x/in.sock"))
    assert "bind 0.0.0.0:8000 ssl crt /x/tls.pem ssl-min-ver TLSv1.2" in narrowed
    assert narrowed.count("0.0.0.0") == 1 and "bind unix@/x/in.sock mode 600" in narrowed


def test_only_predictions_are_asked_again() -> None:
    (line,) = [each for each in narrow(RAYS, PLAIN).splitlines() if "disable-l7-retry" in each]
    assert "if METH_POST !{ path /predict /invocations } !{ path_beg /v2/ }" in line
    assert "option http-buffer-request" in narrow(RAYS, PLAIN)


def test_serves_list_of_routes_is_not_shown() -> None:
    (line,) = [each for each in narrow(RAYS, PLAIN).splitlines() if "/-/routes }" in each]
    assert line.strip().startswith("http-request return status 404")


def test_only_without_replicas_are_probes_answered_before_them() -> None:
    none = RAYS.replace("127.0.0.1:30000 check", "127.0.0.1:8500 check backup")
    both = RAYS.replace("30000 check\n", "30000 check\n    server spare 127.0.0.1:8500 check backup\n")
    idling = replace(PLAIN, may_idle=True)
    probes = "if { path /healthz /v2/health/live /ping }"
    assert probes in narrow(none, idling) and "{ path /metrics }" in narrow(none, idling)
    assert probes not in narrow(RAYS, idling) and probes not in narrow(both, idling)
    assert probes not in narrow(none, PLAIN)  # its replicas have died
    assert narrow(narrow(none, idling), idling) == narrow(none, idling)


def test_in_a_cluster_replicas_are_asked_below_the_path_that_serve_knows() -> None:
    below = replace(PLAIN, prefix="/toy")
    backend = narrow(RAYS, below).split("backend http-app\n")[1]
    assert backend.startswith("    http-request set-path /toy%[path]\n")
    assert narrow(RAYS, below).count("set-path") == 1 and "set-path" not in narrow(RAYS, PLAIN)
    assert narrow(narrow(RAYS, below), below) == narrow(RAYS, below)


def test_a_port_that_another_model_took_is_no_replica() -> None:
    (line,) = [each for each in narrow(RAYS, replace(PLAIN, prefix="/toy")).splitlines()
               if "expect" in each]
    assert line.strip() == 'http-check expect string \\"/toy\\"'
    assert "http-check expect status 200" in narrow(RAYS, PLAIN)
