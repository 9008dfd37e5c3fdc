"""One form for each name, address and password, however a client or a keyboard has encoded it."""

import unicodedata

from email_validator import EmailNotValidError, validate_email

OVERRIDES = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""They change the direction of the text around them (Unicode Standard Annex 9, section 2), so a name can pass for
another."""
BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0\U0001d159")
"""Letters and symbols that are drawn as nothing."""


def email_address(text: str) -> str:
    """The one form of an address: NFC, lower case, the domain decoded from punycode. Raises ValueError."""
    try:
        found = validate_email(text.strip(), check_deliverability=False)
    except EmailNotValidError:  # its words may repeat what was sent
        raise ValueError("must be an email address, such as name@domain.example") from None
    return folded(found.normalized)


def for_transport(address: str) -> str:
    """An address as mail servers want it: the domain in punycode. Raises ValueError."""
    try:
        found = validate_email(address, check_deliverability=False)
    except EmailNotValidError:
        raise ValueError("is not an email address") from None
    return f"{found.local_part}@{found.ascii_domain}"


def account_name(text: str) -> str:
    """The one form of what somebody signs in with: a username, or an email address. What is neither stays as it is, in
    lower case: it names nobody."""
    try:
        return email_address(text)
    except ValueError:
        return folded(unicodedata.normalize("NFKC", text.strip()))


def folded(text: str) -> str:
    """A part of a name or an address, as its one form has it."""
    return unicodedata.normalize("NFC", text.lower())


def password(text: str) -> str:
    """NFKC, as NIST SP 800-63B (5.1.1.2) wants it before hashing: keyboards differ in how they encode one letter."""
    return unicodedata.normalize("NFKC", text)


def shown(text: str) -> str:
    """A text of one line that people see and tell apart. Emoji keep their joiners. Raises ValueError."""
    if any(unicodedata.category(character) in {"Cc", "Zl", "Zp"} or character in OVERRIDES for character in text):
        raise ValueError("must not contain control characters, line breaks or marks that override its direction")
    if not any(unicodedata.category(character)[0] in "LNPS" and character not in BLANK for character in text):
        raise ValueError("must contain a character that can be seen")
    return text
