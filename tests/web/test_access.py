"""Who may connect: the checks by themselves; tests of attacks try them over the network."""

from __future__ import annotations

import pytest

from wsep_sync.protocol.checks import check_token
from wsep_sync.web.access import Access, Refusal, is_loopback


def status(
    access: Access, host: str = "127.0.0.1:8080", scheme: str = "http", **headers: str
) -> int:
    """The HTTP status that a request is refused with, or 101 if it is not."""
    environ = {"wsgi.url_scheme": scheme, **({"HTTP_HOST": host} if host else {}), **headers}
    refused: Refusal | None = None
    try:
        access.check(environ)
    except Refusal as refusal:
        refused = refusal
    if refused is None:
        return 101
    code, _, phrase = refused.status.partition(" ")
    assert phrase
    assert refused.text.endswith("\n")
    assert refused.text.count("\n") == 1
    return int(code)


# Host


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:8080",
        "localhost",
        "LOCALHOST:1",
        "localhost.",
        "box.localhost:80",
        "[::1]",
        "[::1]:8080",
        "192.0.2.7:8080",
        "[2001:db8::1]",
    ],
)
def test_hosts_that_nobody_can_point_elsewhere(host: str) -> None:
    assert status(Access(), host) == 101


@pytest.mark.parametrize(
    "host",
    [
        "attacker.example",
        "attacker.example:8080",
        "127.0.0.1.attacker.example",
        "localhost.attacker.example",
        "notlocalhost",
        "127.0.0.1,attacker.example",
        "2130706433",
        "0x7f.1",
        "127.1",
    ],
)
def test_hosts_that_are_not_known(host: str) -> None:
    assert status(Access(), host) in (400, 403)


@pytest.mark.parametrize(
    "host",
    [
        "",
        ":8080",
        "user@localhost",
        "localhost/path",
        "local host",
        "localhost:x",
        "[::1",
        "::1:80",
    ],
)
def test_hosts_that_are_none(host: str) -> None:
    assert status(Access(), host) == 400


def test_a_host_that_is_listed() -> None:
    access = Access(hosts=["Box.Example", "other."])
    assert status(access, "box.example:443") == 101
    assert status(access, "BOX.EXAMPLE.") == 101
    assert status(access, "other") == 101
    assert status(access, "sub.box.example") == 403


# Origin


@pytest.mark.parametrize(
    ("origin", "host", "scheme", "expected"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1:8080", "http", 101),
        ("HTTP://LOCALHOST:8080", "localhost:8080", "http", 101),
        ("https://localhost", "localhost", "https", 101),
        ("https://127.0.0.1:8080", "127.0.0.1:8080", "http", 403),
        ("http://127.0.0.1:8081", "127.0.0.1:8080", "http", 403),
        ("http://127.0.0.1", "127.0.0.1:8080", "http", 403),
        ("http://localhost:8080", "127.0.0.1:8080", "http", 403),
        ("http://attacker.example", "127.0.0.1:8080", "http", 403),
        ("null", "127.0.0.1:8080", "http", 403),
        ("", "127.0.0.1:8080", "http", 403),
        ("file://", "127.0.0.1:8080", "http", 403),
    ],
)
def test_origins(origin: str, host: str, scheme: str, expected: int) -> None:
    assert status(Access(), host, scheme, HTTP_ORIGIN=origin) == expected


def test_an_origin_that_is_listed() -> None:
    access = Access(origins=["https://App.Example", "http://localhost:3000"])
    assert status(access, HTTP_ORIGIN="https://app.example") == 101
    assert status(access, HTTP_ORIGIN="http://localhost:3000") == 101
    assert status(access, HTTP_ORIGIN="http://app.example") == 403
    assert status(access, HTTP_ORIGIN="https://app.example.attacker.example") == 403


@pytest.mark.parametrize(
    "origin", ["app.example", "https://", "https://app.example/", "*", "null", "", "https://a/b?c"]
)
def test_an_origin_that_is_none(origin: str) -> None:
    with pytest.raises(ValueError, match="not an origin"):
        Access(origins=[origin])


# The token


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"HTTP_AUTHORIZATION": "Bearer s3cret"}, 101),
        ({"HTTP_AUTHORIZATION": "bearer  s3cret "}, 101),
        ({"HTTP_SEC_WEBSOCKET_PROTOCOL": "wsep, bearer.s3cret"}, 101),
        ({"HTTP_SEC_WEBSOCKET_PROTOCOL": "bearer.s3cret,wsep"}, 101),
        ({}, 401),
        ({"HTTP_AUTHORIZATION": "Bearer"}, 401),
        ({"HTTP_AUTHORIZATION": "Bearer s3cre"}, 401),
        ({"HTTP_AUTHORIZATION": "Bearer s3crets"}, 401),
        ({"HTTP_AUTHORIZATION": "Bearer S3CRET"}, 401),
        ({"HTTP_AUTHORIZATION": "Basic s3cret"}, 401),
        ({"HTTP_AUTHORIZATION": "s3cret"}, 401),
        ({"HTTP_AUTHORIZATION": "Bearer s\xe9cret"}, 401),
        (
            {"HTTP_AUTHORIZATION": "Bearer wrong", "HTTP_SEC_WEBSOCKET_PROTOCOL": "bearer.s3cret"},
            401,
        ),
        ({"HTTP_SEC_WEBSOCKET_PROTOCOL": "wsep, s3cret"}, 401),
        ({"HTTP_SEC_WEBSOCKET_PROTOCOL": "wsep"}, 401),
        ({"QUERY_STRING": "token=s3cret"}, 401),
    ],
)
def test_tokens(headers: dict[str, str], expected: int) -> None:
    assert status(Access("s3cret"), **headers) == expected


def test_no_token_is_asked_for() -> None:
    assert status(Access(), HTTP_AUTHORIZATION="Bearer any") == 101


def test_a_token_does_not_make_up_for_a_wrong_origin() -> None:
    headers = {"HTTP_AUTHORIZATION": "Bearer s3cret", "HTTP_ORIGIN": "http://attacker.example"}
    assert status(Access("s3cret"), **headers) == 403


@pytest.mark.parametrize("token", ["", " ", "\n", "two words", "two\nlines", "t\xf6ken", "nul\0"])
def test_a_token_that_cannot_be_sent(token: str) -> None:
    with pytest.raises(ValueError, match="token") as caught:
        check_token(token)
    assert not token.strip() or token not in str(caught.value)
    with pytest.raises(ValueError, match="token"):
        Access(token)


# Loopback


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("192.0.2.1", False),
        ("box.example", False),
        ("localhost.example", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_a_token_as_a_file_holds_it() -> None:
    assert check_token("s3cret\r\n") == "s3cret"
    assert status(Access("s3cret\n"), HTTP_AUTHORIZATION="Bearer s3cret") == 101


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({}, "a token is needed"),
        ({"HTTP_AUTHORIZATION": "Basic s3cret"}, "a token is needed"),
        ({"HTTP_AUTHORIZATION": "Bearer "}, "a token is needed"),
        ({"HTTP_AUTHORIZATION": "Bearer wr0ng"}, "the token is wrong"),
        ({"HTTP_SEC_WEBSOCKET_PROTOCOL": "wsep, bearer.wr0ng"}, "the token is wrong"),
    ],
)
def test_a_wrong_token_is_not_a_missing_one(headers: dict[str, str], words: str) -> None:
    environ = {"wsgi.url_scheme": "http", "HTTP_HOST": "127.0.0.1", **headers}
    with pytest.raises(Refusal, match=words) as caught:
        Access("s3cret").check(environ)
    assert caught.value.status.startswith("401")
    assert "wr0ng" not in caught.value.text
