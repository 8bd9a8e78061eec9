"""Which addresses pictures may be downloaded from: only valid URLs, public hosts and web ports."""

from __future__ import annotations

import socket
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from app.images.download import MAX_REDIRECTS, Downloader
from app.images.public_network import is_public
from support.download_site import HERE, LIMIT, NEAR, PICTURE, Site, refusal

pytestmark = pytest.mark.usefixtures("connected")

STRICT = Downloader(max_bytes=LIMIT, ports=None)


def test_only_the_ports_of_web_servers_are_connected_to(site: str, connected: list[str]) -> None:
    strict = Downloader(max_bytes=LIMIT, allow_private=True)
    message = refusal(f"{site}/picture", strict)
    assert "from port 80, 443 only" in message and "LOOKALIKE_LINK_PORTS" in message
    assert connected == []


def test_a_redirect_to_another_port_is_refused(port: int, site: str, connected: list[str]) -> None:
    pictures = Downloader(max_bytes=LIMIT, ports=(port,), allow_private=True)
    assert pictures.read(f"{site}/picture") == PICTURE
    connected.clear()
    message = refusal(f"{site}/to?http://127.0.0.1:22/", pictures)
    assert f"from port {port} only" in message and connected == ["127.0.0.1"]


def test_redirects_are_followed_up_to_a_limit(site: str) -> None:
    assert NEAR.read(f"{site}/moved/{MAX_REDIRECTS}") == PICTURE
    assert [path for path, _ in Site.requests][-2:] == ["/moved/1", "/picture?%C3%A9"]
    assert "more than 5 times" in refusal(f"{site}/moved/{MAX_REDIRECTS + 1}")


@pytest.mark.parametrize(
    ("target", "reason"),
    [("file:///etc/passwd", "http:// or https://"), ("http://a:b@x.test/", "password"),
     ("http://[::1", "redirects to something"), ("http://x.test:0/", "no host")],
)  # fmt: skip
def test_the_target_of_a_redirect_is_validated_like_any_url(
    site: str, target: str, reason: str
) -> None:
    assert reason in refusal(f"{site}/to?{target}")


def test_a_request_carries_no_cookie_and_no_credentials(
    site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login ada password secret")
    monkeypatch.setenv("NETRC", str(netrc))
    NEAR.read(f"{site}/moved/1")
    headers = {"Host", "User-Agent", "Accept", "Accept-Encoding", "Connection"}
    assert [set(sent) for _, sent in Site.requests] == [headers] * 2


def test_a_redirect_into_a_private_network_is_refused(
    port: int, resolve_to: Callable[..., list[str]], connected: list[str]
) -> None:
    resolve_to(HERE, "169.254.169.254")
    assert "private network" in refusal(f"http://shop.test:{port}/to?http://meta.test/", STRICT)
    assert connected == [HERE]


def test_a_picture_at_a_public_address_is_read_under_the_strict_rules(
    port: int, resolve_to: Callable[..., list[str]]
) -> None:
    resolve_to(HERE)
    assert STRICT.read(f"http://shop.test:{port}/picture") == PICTURE


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "localhost.", "[::1]", "10.1.2.3", "172.16.0.1", "192.168.1.1",
     "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", "2130706433",
     "0177.0.0.1", "0x7f.0.0.1", "0x7f000001", "127.1", "[::ffff:127.0.0.1]", "[::]",
     "[2002:7f00:1::]", "[64:ff9b::a00:1]", "[fe80::1]", "[fc00::1]", "[ff02::1]",
     "\uff11\uff12\uff17.0.0.1"],
)  # fmt: skip
def test_a_host_in_a_private_network_is_never_connected_to(
    port: int, host: str, connected: list[str]
) -> None:
    message = refusal(f"http://{host}:{port}/picture", STRICT)
    assert "private network" in message and "LOOKALIKE_PRIVATE_ADDRESSES=true" in message
    assert connected == []


@pytest.mark.parametrize(
    "ip", ["93.184.216.34", "2606:4700::1111", "::ffff:93.184.216.34", "64:ff9b::5db8:d822",
           "2002:5db8:d822::1"],
)  # fmt: skip
def test_public_addresses_are_public(ip: str) -> None:
    assert is_public(ip_address(ip))


@pytest.mark.parametrize(
    "ip", ["240.0.0.1", "192.0.2.1", "198.18.0.1", "::127.0.0.1", "fec0::1", "2001:db8::1",
           "100::1", "2001::1", "64:ff9b:1::1", "::ffff:100.64.0.1"],
)  # fmt: skip
def test_reserved_addresses_are_not_public(ip: str) -> None:
    assert not is_public(ip_address(ip))


def test_one_private_address_among_public_ones_is_refused(
    resolve_to: Callable[..., list[str]], connected: list[str]
) -> None:
    resolve_to(["93.184.216.34", "10.0.0.1"])
    assert "private network" in refusal("http://both.test/", STRICT)
    assert connected == []


def test_a_name_is_resolved_once_and_the_validated_address_is_connected_to(
    resolve_to: Callable[..., list[str]], connected: list[str]
) -> None:
    lookups = resolve_to("93.184.216.34", "127.0.0.1")
    assert "Connection refused" in refusal("http://rebinding.test/", STRICT)
    assert (lookups, connected) == (["rebinding.test"], ["93.184.216.34"])


def test_the_next_address_is_tried_with_the_original_host_name(
    port: int, resolve_to: Callable[..., list[str]], connected: list[str]
) -> None:
    Site.requests.clear()
    resolve_to(["93.184.216.34", "127.0.0.1"])
    assert NEAR.read(f"http://Bücher.test:{port}/picture") == PICTURE
    assert connected == ["93.184.216.34", "127.0.0.1"]
    assert Site.requests[0][1]["Host"] == f"xn--bcher-kva.test:{port}"


def test_an_unknown_host_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_args: Any, **_options: Any) -> list[Any]:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert "nowhere.test does not exist" in refusal("http://nowhere.test/a.jpg", STRICT)


@pytest.mark.parametrize(
    ("url", "reason"),
    [("", "empty"), ("   ", "empty"), ("example.com/a.jpg", "http:// or https://"),
     ("ftp://example.com/a.jpg", "http:// or https://"), ("data:image/png;base64,AA", "http://"),
     ("file:///etc/passwd", "http://"), ("javascript:alert(1)", "http://"),
     ("http://", "no host"), ("http:///a.jpg", "no host"), ("http://:80/a.jpg", "no host"),
     ("http://[::1", "no valid web address"), ("http://a.test:99999/", "no valid web address"),
     ("http://a.test:0/", "no host"), ("http://a.test:x/", "no valid web address"),
     ("http://ada:secret@a.test/", "password"), ("http://ada@a.test/", "password"),
     ("http://@a.test/", "password"), ("http://a.test/two words.jpg", "no spaces"),
     ("http://a.test/\r\nHost: b.test", "control characters"), ("http://a.test\\@b.test/", "back"),
     ("http://a.test/\0", "control characters"), ("http://a..test/", "is not valid"),
     (f"http://{'a' * 64}.test/", "is not valid"), ("http://a%00b.test/", "is not valid"),
     ("http://[fe80::1%25eth0]/", "is not valid"), ("http://\u2100.test/", "no valid web address"),
     ("http://\ud800.test/", "is not valid"), ("http://a.test/" + "a" * 10_000, "10,014")],
)  # fmt: skip
def test_an_invalid_url_is_an_error_without_any_connection(
    url: str, reason: str, connected: list[str]
) -> None:
    assert reason in refusal(url)
    assert connected == []


def test_a_path_that_cannot_be_encoded_is_an_error(site: str) -> None:
    assert "no valid web address" in refusal(f"{site}/\ud800")


@pytest.mark.parametrize("url", ["http://a.test:x/secret-token", "http://[secret-token"])
def test_an_error_message_does_not_repeat_the_url(url: str) -> None:
    assert "secret-token" not in refusal(url)
