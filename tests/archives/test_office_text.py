"""Office documents: a token is found though the markup cuts it into runs."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from scanner.archives.office import office_text
from scanner.examine import OFFICE_TEXT, examine
from scanner.matcher.engine import Matcher
from tests.archives import build

Token = Callable[[], str]
WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
SLIDE = "http://schemas.openxmlformats.org/presentationml/2006/main"
ODF = "urn:oasis:names:tc:opendocument:xmlns:office:1.0"


def split(token: str) -> tuple[str, str]:
    return token[:11], token[11:]


def find(matcher: Matcher, name: str, xml: str) -> list[tuple[str, str, str, str]]:
    """What is found in a document: the secret, its member, its encoding, the XML it spans."""
    data = build.zipped({name: xml.encode()})
    examined = examine(data, matcher, 100)
    assert examined.partial == ()
    return [
        (
            spot.candidate.secret.reveal().decode(),
            spot.member,
            spot.candidate.encoding,
            xml.encode()[spot.candidate.start : spot.candidate.end].decode(),
        )
        for spot in examined.spots
    ]


def test_runs_are_joined(matcher: Matcher, token: Token) -> None:
    leaked = token()
    one, two = split(leaked)
    span = f'{one}</w:t></w:r><w:r w:rsid="1"><w:t xml:space="preserve">{two}'
    documents = {
        "word/document.xml": f'<w:document xmlns:w="{WORD}"><w:p><w:r><w:t>key '
        f"{span}</w:t></w:r></w:p></w:document>",
        "xl/sharedStrings.xml": f'<sst xmlns="{SHEET}"><si><r><t>{span}</t></r></si></sst>',
        "ppt/slides/slide1.xml": f'<p:sld xmlns:p="{SLIDE}"><a:p><a:t>{span}</a:t></a:p>',
        "content.xml": f'<office:document-content xmlns:office="{ODF}"><text:p>{span}</text:p>',
    }
    for name, xml in documents.items():
        assert find(matcher, name, xml) == [(leaked, name, OFFICE_TEXT, span)]


def test_what_stands_in_one_run_is_found_once(matcher: Matcher, token: Token) -> None:
    leaked, target = token(), token()
    xml = f'<w:document xmlns:w="{WORD}"><w:p><w:t>{leaked}</w:t><w:h r:href="x?{target}"/></w:p>'
    assert find(matcher, "word/document.xml", xml) == [
        (leaked, "word/document.xml", "plain", leaked),
        (target, "word/document.xml", "plain", target),
    ]


def test_paragraphs_and_cells_are_not_joined(matcher: Matcher, token: Token) -> None:
    leaked = token()
    one, two = split(leaked)
    for between in ("</w:t></w:p><w:p><w:t>", "<w:br/>", "</t></si><si><t>", "<w:tab/>"):
        xml = f'<w:document xmlns:w="{WORD}"><w:p><w:t>{one}{between}{two}</w:t></w:p>'
        assert find(matcher, "word/document.xml", xml) == []
        glued = f'<w:document xmlns:w="{WORD}"><w:p><w:t>word{between}{leaked}{between}word'
        assert [found[0] for found in find(matcher, "word/document.xml", glued)] == [leaked]


def test_other_xml_is_left_as_it_is(matcher: Matcher, token: Token) -> None:
    one, two = split(token())
    assert find(matcher, "a.xml", f"<a>{one}<b/>{two}</a>") == []
    assert office_text(b"<" * 100_000) is None
    assert office_text(b"<" + WORD.encode() + b"<" * 2_000_000) is not None  # and soon


@given(
    st.lists(st.sampled_from(["a", "<w:r>", "</w:p>", "&amp;", "&#65;", "<", "é", "&#x41;", "&"]))
)
def test_every_byte_of_the_text_has_its_place(parts: list[str]) -> None:
    xml = (f'<w:document xmlns:w="{WORD}">' + "".join(parts)).encode()
    text = office_text(xml)
    assert text is not None
    places = [text.source(position) for position in range(len(text.text))]
    assert places == sorted(places)
    for position, place in enumerate(places):
        byte = text.text[position : position + 1]
        assert byte == xml[place : place + 1] or xml[place : place + 1] in (b"<", b"&")
