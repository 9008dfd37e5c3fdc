"""The page that shows a developer the mails which a service has kept instead of sending them. It is there while
ENVIRONMENT is local and nowhere else, and for the developer alone: the links in it open accounts."""

import email
import re
from email.policy import default
from html import escape
from pathlib import Path

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException

from tristore.http.peers import is_of_our_user
from tristore.settings import TristoreSettings

NEWEST = 20
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Mail</title><style>
:root {{ color-scheme: light dark }}
body {{ font-family: sans-serif; max-width: 50em; margin: 0 auto; padding: 1em }}
pre {{ white-space: pre-wrap }}
</style></head>
<body><h1>Mail</h1><p>The newest first. The files are in {folder}.</p>{mails}</body>
</html>
"""
MAIL = "<section><h2>{subject}</h2><p>{date}, to {to}</p><pre>{text}</pre></section>"

router = APIRouter(include_in_schema=False)


@router.get("/mail")
async def show_mail(request: Request) -> HTMLResponse:
    if not is_of_our_user(request):
        raise HTTPException(403, "This page is for whoever runs the service, at an address of the same machine.")
    settings: TristoreSettings = request.app.state.settings
    assert settings.mail_folder
    page = await to_thread.run_sync(_page, settings.mail_folder)
    return HTMLResponse(page, headers={"Content-Security-Policy": POLICY})


def routers(settings: TristoreSettings) -> list[APIRouter]:
    """What an application includes: the page, or nothing."""
    return [router] if settings.mail_folder else []


def _page(folder: Path) -> str:
    newest = sorted(folder.glob("*.eml"), reverse=True)[:NEWEST]  # ids sort by time
    mails = "".join(_shown(file.read_bytes()) for file in newest) or "<p>There is none yet.</p>"
    return PAGE.format(folder=escape(str(folder)), mails=mails)


def _shown(content: bytes) -> str:
    mail = email.message_from_bytes(content, policy=default)
    body = mail.get_body(("plain",))
    text = escape(body.get_content() if body else "")
    linked = re.sub(r"https?://[^\s&]+(?:&amp;[^\s&]+)*", lambda link: f'<a href="{link[0]}">{link[0]}</a>', text)
    heads = {name: escape(str(mail[name])) for name in ("subject", "date", "to")}
    return MAIL.format(text=linked, **heads)
