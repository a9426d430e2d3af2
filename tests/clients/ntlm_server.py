"""An origin behind NTLM: pyspnego judges, state belongs to the connection.

A request on a connection that is not authenticated is challenged; one whose handshake succeeds is answered, and so are all
later ones on the connection.
"""

import base64
import json

import spnego
from conftest import Handler
from spnego.channel_bindings import GssChannelBindings
from spnego.exceptions import SpnegoError


class NtlmHandler(Handler):
    """`server.origin.ntlm` says how, and keeps what came of each handshake."""

    def setup(self):
        super().setup()
        self.context = self.account = None
        self.server.origin.connections.append(self)

    def judge(self):
        """The account, or `None` after an answer of our own."""
        how = self.server.origin.ntlm
        value = self.headers.get("proxy-authorization" if how.is_proxy else "authorization", "")
        if not value:
            if self.account and not how.every_request:
                return self.account
            self.account = None
            return self.challenge()
        scheme, _, token = value.partition(" ")
        if scheme not in how.schemes:
            self.context = self.account = None
            return self.challenge()
        token = base64.b64decode(token, validate=True)
        try:
            if self.context is None or self.context.complete:
                self.account = None
                self.context = self.acceptor(scheme)
            reply = self.context.step(token)
        except SpnegoError as error:
            self.context = None
            how.results.append(type(error).__name__)
            return self.challenge()
        if not self.context.complete:
            how.legs += 1
            return self.challenge(f"{scheme} {base64.b64encode(reply).decode()}")
        self.account = self.context.client_principal
        how.results.append(self.account)
        how.flags.append(getattr(self.context, "context_attr", 0))
        self.final = f"{scheme} {base64.b64encode(reply).decode()}" if reply else None
        return self.account

    def acceptor(self, scheme):
        how = self.server.origin.ntlm
        bindings = how.binding and GssChannelBindings(application_data=how.binding)
        if scheme == "Negotiate":
            options = spnego.NegotiateOptions.use_negotiate
            return spnego.server(protocol="negotiate", options=options, channel_bindings=bindings)
        return spnego.server(protocol="ntlm", options=spnego.NegotiateOptions.use_ntlm, channel_bindings=bindings)

    def challenge(self, *values):
        how = self.server.origin.ntlm
        self.send_response(407 if how.is_proxy else 401)
        for value in values or how.schemes:
            self.send_header("Proxy-Authenticate" if how.is_proxy else "WWW-Authenticate", value)
        self.send_header("content-length", "2")
        if values and how.close_on_leg_2:
            how.close_on_leg_2 -= 1
            self.send_header("connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(b"no")

    def handle_any(self):
        origin = self.server.origin
        seen = {"method": self.command, "path": self.path, "headers": list(self.headers.items()), "body": b"", "bytes": 0,
                "connection": id(self)}

        def sink(piece):
            seen["bytes"] += len(piece)
            if seen["bytes"] <= 1 << 20:
                seen["body"] += piece

        self.body(sink)
        origin.seen.append(seen)
        self.final = None
        account = "" if self.path.startswith("/public") else self.judge()
        if account is None:
            return
        origin.accepted.append((self.path, account, id(self)))
        shown = {"account": account, "path": self.path, "bytes": seen["bytes"]}
        self.answer(200, json.dumps(shown).encode(), {"www-authenticate": self.final} if self.final else {})

    do_GET = do_POST = do_PUT = do_HEAD = handle_any


class How:
    """What the origin offers and demands."""

    def __init__(self, schemes=("NTLM",), binding=None, close_on_leg_2=0, every_request=False, is_proxy=False):
        self.schemes, self.binding, self.is_proxy = schemes, binding, is_proxy
        self.close_on_leg_2, self.every_request = close_on_leg_2, every_request
        self.results, self.flags, self.legs = [], [], 0
