"""CloudEvents over HTTP: header values, attributes, data, as the specification has them."""

import base64
import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from ordinaut.api import cloudevents
from ordinaut.api.problems import BadRequest, UnsupportedMediaType
from ordinaut.domain.matching import envelope, payload_of

EVENT = {
    "specversion": "1.0",
    "id": "A234-1234-1234",
    "source": "/mycontext",
    "type": "com.example.someevent",
}
PRINTABLE = st.text(st.characters(exclude_categories=("Cs", "Cc")))


def headers(**more: str) -> Headers:
    return Headers({f"ce-{name}": value for name, value in (EVENT | more).items()})


def wrong(document: Any) -> list[str]:
    return [fault.pointer for fault in cloudevents.from_document(document)[1]]


@given(PRINTABLE)
def test_what_a_sender_percent_encodes_is_read_as_it_was(text: str) -> None:
    """The characters that the binding lets stand are those from ! to ~ but for the quote and the percent."""
    free = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
    assert cloudevents.decode_value(quote(text, safe=free)) == text
    assert cloudevents.decode_value(quote(text, safe="")) == text


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ("Euro%20%e2%82%ac", "Euro €"),
        ('"a \\"quoted\\" one"', 'a "quoted" one'),
        ('"Euro %E2%82%AC"', "Euro €"),
        ("%2520", "%20"),
        ("plain text", "plain text"),
    ],
)
def test_a_header_s_value_is_unquoted_and_decoded_once(value: str, read: str) -> None:
    assert cloudevents.decode_value(value) == read


@pytest.mark.parametrize("value", ["%C0%A0", "%", "%4", "%zz", "€", '"no end', "%ED%A0%80"])
def test_a_header_s_value_that_cannot_be_decoded_is_refused(value: str) -> None:
    with pytest.raises(ValueError):
        cloudevents.decode_value(value)


@pytest.mark.parametrize(
    ("content_type", "mode"),
    [
        ("application/cloudevents+json; charset=UTF-8", "structured"),
        ("Application/CloudEvents-Batch+JSON", "batch"),
        ("application/json", "plain"),
        ("", "plain"),
    ],
)
def test_the_content_type_tells_the_mode(content_type: str, mode: str) -> None:
    assert cloudevents.mode(Headers({"content-type": content_type})) == mode


def test_headers_make_it_binary_mode_and_other_formats_are_refused() -> None:
    assert cloudevents.mode(Headers({"ce-id": "1", "content-type": "application/json"})) == "binary"
    for kind in (
        "application/cloudevents+avro",
        "application/cloudevents",
        "application/cloudevents-batch+xml",
    ):
        with pytest.raises(UnsupportedMediaType):
            cloudevents.mode(Headers({"content-type": kind}))


@pytest.mark.parametrize(
    ("content_type", "raw", "content"),
    [
        ("application/json", b'{"a": 1}', {"data": {"a": 1}}),
        ("application/vnd.x+json; charset=utf-8", b'"text"', {"data": "text"}),
        ("application/json", b"null", {"data": None}),
        ("application/json", b"", {}),
        ("text/plain", b"hello", {"data": "hello"}),
        ("text/plain", b"", {}),
        ("application/xml", '<much wow="€"/>'.encode(), {"data": '<much wow="€"/>'}),
        ("text/plain; charset=iso-8859-1", b"\xe9", {"data_base64": "6Q=="}),
        ("text/plain", b"\xe9", {"data_base64": "6Q=="}),
        ("text/plain", b"\x00", {"data_base64": "AA=="}),
        ("application/octet-stream", b"abc", {"data_base64": "YWJj"}),
    ],
)
def test_binary_mode_takes_any_content(content_type: str, raw: bytes, content: dict[str, Any]) -> None:
    given_headers = Headers({**headers(), "content-type": content_type})
    read = cloudevents.from_headers(given_headers, raw)
    assert read == EVENT | {"datacontenttype": content_type} | content
    # The same event in structured mode is the same.
    structured = EVENT | {"datacontenttype": content_type}
    if "data_base64" in content:
        structured |= {"data_base64": base64.b64encode(raw).decode()}
    else:
        structured |= content
    assert cloudevents.from_document(structured) == (read, [])


def test_without_a_content_type_data_is_json() -> None:
    assert cloudevents.from_headers(headers(), b"[1]") == EVENT | {"data": [1]}


def test_extensions_are_attributes_too() -> None:
    read = cloudevents.from_headers(headers(comexampleothervalue="5", subject="caf%C3%A9"), b"")
    assert read == EVENT | {"comexampleothervalue": "5", "subject": "café"}
    whole = EVENT | {"comexampleothervalue": 5, "flag": True, "unset": None, "subject": None}
    assert cloudevents.from_document(whole) == (EVENT | {"comexampleothervalue": 5, "flag": True}, [])


@pytest.mark.parametrize(
    ("content_type", "raw", "data"),
    [
        ("application/json", b'{"a": 1}', {"a": 1}),
        ("text/csv", b"a,b", "a,b"),
        ("application/vnd.apache.thrift.binary", b"\x00\xff", "AP8="),
        (None, b'{"a": 1}', "eyJhIjogMX0="),
    ],
)
def test_base64_is_opened_where_the_datacontenttype_says_what_it_is(
    content_type: str | None, raw: bytes, data: Any
) -> None:
    document: dict[str, Any] = EVENT | {"data_base64": base64.b64encode(raw).decode()}
    document |= {} if content_type is None else {"datacontenttype": content_type}
    event, faults = cloudevents.from_document(document)
    assert faults == []
    seen = envelope(payload_of(event), stream="s", entry_id="1-0")
    assert seen["data"] == data
    assert seen["event"] == {name: value for name, value in document.items() if name != "data_base64"}


@pytest.mark.parametrize(
    ("document", "pointers"),
    [
        ([], [""]),
        ({}, ["/specversion", "/id", "/source", "/type"]),
        (EVENT | {"id": ""}, ["/id"]),
        (EVENT | {"id": None}, ["/id"]),
        (EVENT | {"source": 7}, ["/source"]),
        (EVENT | {"specversion": "0.3"}, ["/specversion"]),
        (EVENT | {"time": "yesterday"}, ["/time"]),
        (EVENT | {"time": "2018-04-05T17:31:00"}, ["/time"]),
        (EVENT | {"datacontenttype": "json"}, ["/datacontenttype"]),
        (EVENT | {"my-extension": "x", "a/b": 1}, ["/my-extension", "/a~1b"]),
        (EVENT | {"extension": {"nested": 1}}, ["/extension"]),
        (EVENT | {"extension": 2**31}, ["/extension"]),
        (EVENT | {"extension": 1.5}, ["/extension"]),
        (EVENT | {"subject": "a\u0007b"}, ["/subject"]),
        (EVENT | {"data": 1, "data_base64": "YQ=="}, ["/data_base64"]),
        (EVENT | {"data_base64": "no base64"}, ["/data_base64"]),
        (EVENT | {"data_base64": 7}, ["/data_base64"]),
        (EVENT | {"datacontenttype": "application/json", "data_base64": "e30K"[:3] + "="}, []),
        (EVENT | {"datacontenttype": "application/json", "data_base64": "ew=="}, ["/data_base64"]),
    ],
)
def test_what_is_no_cloud_event_is_told_by_place(document: Any, pointers: list[str]) -> None:
    assert wrong(document) == pointers


def test_a_nanosecond_time_is_a_time() -> None:
    assert wrong(EVENT | {"time": "2018-04-05T17:31:00.123456789Z"}) == []


@pytest.mark.parametrize(
    ("given_headers", "named"),
    [
        ({"ce-id": "1"}, ["ce-specversion", "ce-source", "ce-type"]),
        ({**headers(), "ce-datacontenttype": "text/plain"}, ["ce-datacontenttype"]),
        ({**headers(), "ce-data": "x"}, ["ce-data"]),
        ({**headers(), "ce-my_extension": "x"}, ["ce-my_extension"]),
        ({**headers(subject="%ff")}, ["ce-subject"]),
        ({**headers(id="%00")}, ["ce-id"]),
        ({**headers(), "content-type": "no-media-type"}, ["Content-Type"]),
    ],
)
def test_what_is_wrong_in_binary_mode_is_told_by_header(
    given_headers: dict[str, str], named: list[str]
) -> None:
    with pytest.raises(BadRequest) as refused:
        cloudevents.from_headers(Headers(given_headers), b"")
    assert [fault.pointer for fault in refused.value.faults] == named
    assert refused.value.place == "header"


def test_an_attribute_that_stands_twice_is_refused() -> None:
    twice = Headers(raw=[*headers().raw, (b"ce-id", b"other")])
    with pytest.raises(BadRequest, match="ce-id: is there twice"):
        cloudevents.from_headers(twice, b"")


@given(
    st.binary(max_size=60), st.sampled_from(["application/json", "text/plain", "image/png", "text/xml", "x"])
)
def test_any_body_is_read_or_refused_in_words(raw: bytes, content_type: str) -> None:
    try:
        event = cloudevents.from_headers(Headers({**headers(), "content-type": content_type}), raw)
    except Exception as error:
        assert type(error).__name__ in ("BadRequest", "Invalid")
    else:
        assert json.loads(json.dumps(event)) == event
