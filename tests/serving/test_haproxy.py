from __future__ import annotations

import json

from raymill.serving.haproxy import narrow

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
    server replica 127.0.0.1:30000 check
backend default_backend
    http-request return status 404 content-type text/plain lf-string "Path not found."
listen stats
  bind *:8404
"""


def test_every_page_of_haproxy_binds_to_loopback() -> None:
    binds = [line.split()[1] for line in narrow(RAYS, "/p").splitlines() if "bind" in line]
    assert binds == ["127.0.0.1:9101", "127.0.0.1:8000", "127.0.0.1:8404"]


def test_only_the_owner_may_use_the_admin_socket() -> None:
    assert "mode 600 level admin" in narrow(RAYS, "/p")
    assert "666" not in narrow(RAYS, "/p")


def test_the_head_of_a_request_has_a_deadline() -> None:
    assert "timeout http-request 10s" in narrow(RAYS, "/p")


def test_no_replica_is_503_by_our_page() -> None:
    pages = [line.split() for line in narrow(RAYS, "/p").splitlines() if "errorfile" in line]
    assert pages == [["errorfile", code, "/p"] for code in ("502", "503", "504")]


def test_haproxy_without_routes_says_to_come_back_and_not_that_a_path_is_unknown() -> None:
    (line,) = [each for each in narrow(RAYS, "/p").splitlines() if "return status" in each]
    assert "return status 503" in line and "hdr retry-after 1" in line
    assert json.loads(line.split("string ")[1].strip("'"))["status"] == 503


def test_clients_cannot_set_serves_control_headers() -> None:
    frontend = narrow(RAYS, "/p").split("frontend http_frontend")[1].split("backend")[0]
    for name in ("x-request-timeout-seconds", "x-request-disconnect-disabled", "x-serve-"):
        assert f"http-request del-header {name}" in frontend
    assert "http-response del-header server" in frontend


def test_narrowing_twice_changes_nothing_more() -> None:
    assert narrow(narrow(RAYS, "/p"), "/p") == narrow(RAYS, "/p")
