"""Draw docs/images/owner-mail.png: the mail an owner gets, as headless Chromium shows it.

.venv/bin/python scripts/screenshot_mail.py [--width 720] [--dark] [--output FILE]
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from notifier.notice import Notice
from notifier.render import Renderer

ROOT = Path(__file__).resolve().parents[1]
COMMIT = "9e1c4b7a2f60d35881c7e0b4a96d2f137c5e8b04"


def example() -> Notice:
    return Notice.from_json(
        {
            "kind": "leak",
            "to": "mia.berg@contoso.example",
            "reply_to": "security@contoso.example",
            "message_id": "<example@patrol.example>",
            "context": {
                "recipient_name": "Mia Berg",
                "addressed_as": "owner",
                "token_name": "ci-deploy",
                "token_kind": "Azure DevOps personal access token",
                "mask": "…fAkE",
                "scopes": ["vso.code_write", "vso.build_execute"],
                "organisation": "Contoso",
                "outcome": "revoked",
                "owner_disabled": False,
                "places": [
                    {
                        "repository": "contoso/storefront",
                        "kind": "blob",
                        "path": "deploy/azure-pipelines.yml",
                        "line": 23,
                        "column": 18,
                        "commit": COMMIT,
                        "url": f"https://github.com/contoso/storefront/commit/{COMMIT}",
                        "seen_at": "2026-11-24T09:41:07+00:00",
                        "pushed_at": "2026-11-24T09:41:06+00:00",
                        "committed_at": "2026-11-24T09:38:52+00:00",
                    }
                ],
                "more_places": 0,
                "found_at": "2026-11-24T09:41:07+00:00",
                "revoked_at": "2026-11-24T09:41:07+00:00",
                "incident_id": "5f0c2d71",
                "help_url": None,
                "issuer_name": "Contoso DevOps",
            },
        }
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=720, help="of the picture, in pixels")
    parser.add_argument("--height", type=int, default=1284, help="of the picture, in pixels")
    parser.add_argument("--dark", action="store_true", help="as with a dark colour scheme")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/images/owner-mail.png")
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.stderr.write("Chromium is not installed.\n")
        return 2
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        html = Renderer().render(example()).html
        frame = Path(folder, "frame.html")
        mail = Path(folder, "mail.html")
        mail.write_text(html, encoding="utf-8-sig")  # in a mail, a header names the encoding
        # A window has a least width; a frame has none, and media queries ask the frame.
        frame.write_text(
            '<!DOCTYPE html><meta name="color-scheme" content="light dark">'
            "<style>body{margin:0}iframe{display:block;border:0}</style>"
            f'<iframe src="mail.html" width="{options.width}" height="{options.height}"></iframe>'
        )
        command = [
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
            "--hide-scrollbars",
            f"--user-data-dir={folder}/profile",
            f"--window-size={options.width},{options.height}",
            f"--screenshot={options.output.resolve()}",
        ]
        if options.dark:
            command.append("--blink-settings=preferredColorScheme=0")
        subprocess.run([*command, frame.as_uri()], check=True, timeout=60, capture_output=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
