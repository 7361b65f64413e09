"""Who may ask a server by which name, from which page; what requests are called; when it is ready."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from edgestill.cli.main import call
from edgestill.models.errors import UsageError
from edgestill.runtime.loading.load import load_streams
from edgestill.runtime.server import check_origins, hosts_of, requests
from edgestill.runtime.server.running import server_of
from edgestill.runtime.server.work_queue import Station

from ..serving import Running, running

PAGE = "https://app.example.org"
KEY = "a key of sixteen letters or more"


@pytest.fixture(scope="module")
def served(packed_bert: Path) -> Iterator[Running]:
    with running([Station("labels", load_streams(packed_bert, 1, 1), 8)], key=KEY, origins=[PAGE],
                 hosts=hosts_of("fd00::7", ["Box.lan", "*.example.org"])) as found:
        yield found


@pytest.mark.parametrize(("host", "status"), [
    ("localhost", 200), ("127.0.0.1:8080", 200), ("[::1]:80", 200), ("[fd00::7]", 200), ("BOX.LAN:1", 200),
    ("a.b.example.org", 200), ("example.org", 403), ("evilexample.org", 403), ("box.lan.evil.net", 403), ("", 403),
    ("[::2]", 403), ("box.lan.", 200)])
def test_names_of_the_server(host: str, status: int, served: Running) -> None:
    assert served.ask("GET", "/v1/models", Host=host)[0] == status
    assert served.ask("GET", "/health", Host=host)[0] == 200  # probes may call it anything


def test_headers_are_read_by_the_parser_that_limits_them(served: Running) -> None:
    assert server_of(served.service.application).config.http == "h11"
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * 2**18)
        assert client.recv(100).startswith(b"HTTP/1.1 400")


def test_at_all_addresses_any_name_is_the_servers_until_one_is_given() -> None:
    for host in ("0.0.0.0", "::"):
        assert hosts_of(host, []) == ["*"]
        assert hosts_of(host, ["box"]) == ["127.0.0.1", "localhost", "[::1]", "box"]


@pytest.mark.parametrize("wrong", ["http://box", "box:80", "", "a b", "*box", "fd00::1"])
def test_what_is_no_name_is_refused(wrong: str, packed_bert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match=re.escape(f"--allowed-host {wrong!r}")):
        hosts_of("localhost", ["box", wrong])
    assert call(["serve", str(packed_bert), "--port", "0", "--allowed-host", wrong]) == 2
    assert "without scheme and port" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["app.example.org", "https://app.example.org/", "https://", ""])
def test_what_is_no_origin_is_refused(wrong: str, packed_bert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_origins(["*", PAGE, "http://localhost:3000", "chrome-extension://abc"])
    assert call(["serve", str(packed_bert), "--port", "0", "--allow-origin", wrong]) == 2
    assert f"--allow-origin {wrong!r} is no web page's origin" in capsys.readouterr().err


def test_pages_may_ask_where_they_are_allowed(served: Running, several: Running) -> None:
    asking = {"Origin": PAGE, "Access_Control_Request_Method": "POST",
              "Access_Control_Request_Headers": "authorization,content-type,x-stainless-os"}
    status, _, headers = served.ask("OPTIONS", "/v1/chat/completions", Authorization="", **asking)
    assert status == 200 and headers["access-control-allow-origin"] == PAGE
    assert headers["access-control-allow-headers"] == asking["Access_Control_Request_Headers"]
    for key, status in ((f"Bearer {KEY}", 200), ("", 401)):  # a page reads errors, too
        found = served.ask("POST", "/classify", {"text": "a"}, Origin=PAGE, Authorization=key)
        assert found[0] == status and found[2]["access-control-allow-origin"] == PAGE
        assert "x-request-id" in found[2]["access-control-expose-headers"]
    other = served.ask("OPTIONS", "/v1/chat/completions", **{**asking, "Origin": "https://evil.example"})
    assert other[0] == 400 and "access-control-allow-origin" not in other[2]
    without = several.ask("OPTIONS", "/v1/chat/completions", **asking)
    assert without[0] == 405 and "access-control-allow-origin" not in without[2]


def test_requests_have_names(served: Running, monkeypatch: pytest.MonkeyPatch,
                             caplog: pytest.LogCaptureFixture) -> None:
    assert served.ask("GET", "/v1/models", X_Request_Id="job-7:a.b_c")[2]["x-request-id"] == "job-7:a.b_c"
    made = [served.ask("GET", path, X_Request_Id=given)[2]["x-request-id"]
            for path, given in (("/v1/models", "a b"), ("/nothing", "a" * 129), ("/health", ""))]
    assert len(set(made)) == 3 and all(re.fullmatch("req_[0-9a-f]{32}", name) for name in made)
    answer = served.client().chat.completions.create(model="", messages=[{"role": "user", "content": "a"}])
    assert str(answer._request_id).startswith("req_")
    monkeypatch.setattr(requests, "chat", lambda *given: 1 / 0)
    failed = served.ask("POST", "/v1/chat/completions", {}, X_Request_Id="job-8")
    assert (failed[0], failed[2]["x-request-id"]) == (500, "job-8") and "job-8 failed" in caplog.text


def test_ready_is_who_takes_requests(served: Running, packed_bert: Path) -> None:
    assert served.ask("GET", "/ready", Authorization="")[:2] == (200, {"status": "ready"})
    first, second = (Station(name, load_streams(packed_bert, 1, 1), 8) for name in "ab")
    with running([first, second]) as found:
        second.close()
        assert found.ask("GET", "/ready")[:2] == (503, {"status": "failed", "model": "b"})
        assert found.ask("GET", "/health")[0] == 200
        found.service.application.state.server = SimpleNamespace(should_exit=True)
        assert found.ask("GET", "/ready")[:2] == (503, {"status": "stopping"})
