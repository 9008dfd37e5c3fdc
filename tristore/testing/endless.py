"""What a client can send without an end, before it has asked anything."""

CHUNKED = b"POST /a HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
ENDLESS = {
    "header lines": (b"GET /a HTTP/1.1\r\nHost: t\r\n", b"a:b\r\n", 431),
    "a header's value": (b"GET /a HTTP/1.1\r\nHost: t\r\na: ", b"v", 431),
    "a header's name": (b"GET /a HTTP/1.1\r\nHost: t\r\n", b"n", 431),
    "a target": (b"GET /", b"p", 414),
    "trailers": (CHUNKED + b"0\r\n", b"a:b\r\n", 413),
    "an extension": (CHUNKED + b"1;", b"e", 413),
    "extensions": (CHUNKED, b"1;eeeeeeeeeeeeeeee\r\nx\r\n", 413),
    "empty lines": (b"", b"\r\n", 400),
}
"""How it begins, what is repeated, and how the server refuses it."""
