"""A signed line says who wrote it and for what; nothing else is taken for one."""

import pytest

from headrace.infra.signed_line import key_id, read_line, sign_line

BODY = b'{"a":1,"b":"x"}'


def test_what_was_signed_comes_back_and_what_follows_is_found():
    line = sign_line(b"key", BODY)
    found = read_line(line + b"bytes\n")
    assert found is not None
    assert (found.body, found.is_authentic(b"key")) == (BODY, True)
    assert (line + b"bytes\n")[found.end :] == b"bytes\n"


def test_the_line_is_as_it_always_was_so_that_what_lies_in_stores_stays_readable():
    assert sign_line(b"key", b'{"a":1}') == (
        b'{"a":1,"hmac":"88a67f24bbcdaed0e6c997404bb79a743baf44c6bab2f4c27328e3009d22e342"}\n'
    )
    assert key_id(b"key") == "ceb20c725e7a"


@pytest.mark.parametrize(("key", "purpose"), [(b"another", b""), (b"key", b"checkpoint ")])
def test_another_key_and_another_purpose_are_not_authentic(key, purpose):
    assert not read_line(sign_line(b"key", BODY)).is_authentic(key, purpose)
    assert read_line(sign_line(key, BODY, purpose)).is_authentic(key, purpose)


@pytest.mark.parametrize("content", [b"", b"{}", BODY, sign_line(b"key", BODY)[:-1], b" " + sign_line(b"key", BODY)])
def test_anything_else_is_no_signed_line(content):
    assert read_line(content) is None
