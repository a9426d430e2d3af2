"""A stage for the page: one server plays every host behind a parent proxy, a proxy with rules for all of them, and the
traffic of a working day."""

import base64
import json
import subprocess
import time

from conftest import Handler, Origin, canary

PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")


def jwt(claims):
    """A token as an authorization server gives it; nobody here checks its signature."""
    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'RS256', 'kid': '2026-10', 'typ': 'JWT'})}.{part(claims)}.{canary('sig')}"


class Everybody(Handler):
    """Answers absolute-form requests in the name of their hosts."""

    def handle_any(self):
        self.path = self.path.replace("http://", "", 1)
        super().handle_any()

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = do_PATCH = do_OPTIONS = handle_any


def stage(origins, proxy):
    """The proxy, started, and the server that plays the others."""
    world = origins(tls=False, handler=Everybody)
    secrets = [canary() for _ in range(4)]
    held = {"tokens": []}

    def token(handler, seen):
        now = int(time.time())
        made = jwt({"iss": "http://idp.dev.acme.example", "sub": "u_7f3a19", "aud": "http://api.dev.acme.example",
                    "scope": "orders.read orders.write", "exp": now + 1800, "iat": now, "n": len(held["tokens"])})
        held["tokens"].append(made)
        answer = {"access_token": made, "token_type": "Bearer", "expires_in": 1800, "refresh_token": canary("refresh")}
        handler.answer(200, json.dumps(answer).encode(), {"content-type": "application/json"})

    def orders(handler, seen):
        sent = dict(seen["headers"]).get("authorization", "")
        if held["tokens"] and sent.endswith(held["tokens"][0]):
            return handler.answer(401, b'{"error":"unauthorized"}', {
                "content-type": "application/json",
                "www-authenticate": 'Bearer error="invalid_token", error_description="The token expired"'})
        handler.answer(200, json.dumps({"orders": [{"id": 8841, "state": "paid"}, {"id": 8842, "state": "open"}]}).encode(),
                       {"content-type": "application/json"})

    def refused(handler, seen):
        handler.answer(401, b"{}", {"content-type": "application/json", "www-authenticate":
                                    'Bearer error="insufficient_scope", scope="orders.read billing.write"'})

    def plain(status, body=b"{}", kind="application/json", **more):
        return lambda handler, seen: handler.answer(status, body, {"content-type": kind, **more})

    device = {"device_code": canary("device"), "user_code": "ABCD-EFGH", "verification_uri": "https://idp.dev.acme.example/activate",
              "expires_in": 600, "interval": 5}
    world.pages.update({
        "idp.dev.acme.example/device": plain(200, json.dumps(device).encode()),
        "idp.dev.acme.example/pending": plain(400, b'{"error":"authorization_pending"}'),
        "partner.example/oauth/me": plain(200),
        "idp.dev.acme.example/token": token,
        "api.dev.acme.example/v2/orders": orders,
        "api.dev.acme.example/v2/billing": refused,
        "api.dev.acme.example/healthz": plain(200, b"ok", "text/plain"),
        "api.dev.acme.example/admin/users": plain(201, b'{"id":17}'),
        "api.hub.example/user/repos": plain(200, json.dumps([{"id": n, "name": f"project-{n}"} for n in range(400)]).encode()),
        "api.hub.example/notifications": plain(304, b""),
        "s3.acme.example/exports/2026-11-22/orders.csv": plain(200, b""),
        "pictures.example/one.png": plain(200, PNG, "image/png"),
        "billing.acme.example/v1/charges": plain(500, b'{"error":"boom"}'),
        "weather.example/v3/forecast": plain(200, b'{"city":"Oslo","temperature":-2}'),
        "docs.example/a/very/long/path/that/goes/on/and/on/until/nobody/reads/it/any/more": plain(404, b"{}"),
    })
    one = proxy(f"""version: 1
environment: dev
environments: {{dev: {{vars: {{api: api.dev.acme.example}}}}}}
proxy: {{upstream: {{url: "{world.base}", no_proxy: []}}}}
credentials:
  acme-user: {{type: oauth2, grant: client_credentials, token_url: "http://idp.dev.acme.example/token", allow_plaintext: true, client_id: countersign, client_secret: {secrets[0]}, scope: [orders.read]}}
  acme-robot: {{type: oauth2, grant: client_credentials, token_url: "http://idp.dev.acme.example/robot", allow_plaintext: true, client_id: robot, client_secret: {secrets[1]}}}
  partner-user: {{type: oauth2, grant: device_code, device_url: "http://idp.dev.acme.example/device", token_url: "http://idp.dev.acme.example/pending", allow_plaintext: true, client_id: partner}}
  hub: {{type: bearer, token: ghp_{secrets[2]}}}
  weather: {{type: api_key, in: query, name: appid, value: {secrets[3]}}}
  s3-exports: {{type: aws_sigv4, access_key: AKIAIOSFODNN7EXAMPLE, secret_key: wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY, region: eu-central-1, service: s3}}
rules:
  - name: Acme
    host: ["http://${{api}}", "http://*.acme.internal"]
    auth: acme-user
    rules:
      - {{name: Health, path: /healthz, auth: none}}
      - {{name: Admin, path: /admin/**, methods: [POST, PUT, DELETE], auth: [acme-user]}}
      - {{name: Orders, path: /v2/**}}
      - {{name: Batch, path: /v1/**, when: {{header: {{x-batch: "1"}}}}}}
  - {{name: Hub, host: "http://api.hub.example", auth: hub}}
  - {{name: Exports, host: "http://s3.acme.example", path: /exports/**, methods: [GET, PUT], auth: s3-exports}}
  - {{name: Weather, host: "http://weather.example", auth: weather}}
  - {{name: Partner, host: "http://partner.example", auth: partner-user}}
  - {{name: "The long name of a rule that somebody wrote in a hurry and never shortened", host: "http://billing.acme.example", auth: acme-robot}}
""", canaries=secrets).start()
    return one, world


def ask(one, url, *more):
    subprocess.run(["curl", "-sS", "-o", "/dev/null", "-x", one.url, url, *more], env=one.env, timeout=30)


def play(one):
    """A working day, in a second."""
    ask(one, "http://api.hub.example/user/repos?per_page=5")
    ask(one, "http://api.dev.acme.example/healthz")
    ask(one, "http://weather.example/v3/forecast?q=Oslo")
    ask(one, "http://s3.acme.example/exports/2026-11-22/orders.csv", "-X", "PUT", "--data-binary", "id,state\n8841,paid\n8842,open\n", "-H", "content-type: text/csv")
    ask(one, "http://api.dev.acme.example/admin/users", "--json", '{"name":"Ada"}')
    ask(one, "http://api.dev.acme.example/v2/orders?notify=true", "--json", '{"sku":"A-1","count":2}', "-H", "authorization: Bearer placeholder")
    ask(one, "http://api.dev.acme.example/v2/billing")
    ask(one, "http://api.hub.example/notifications")
    ask(one, "http://pictures.example/one.png")
    ask(one, "http://billing.acme.example/v1/charges", "-X", "POST")
    ask(one, "http://docs.example/a/very/long/path/that/goes/on/and/on/until/nobody/reads/it/any/more?with=a&query=that&is=long&too=1234567890")
    ask(one, "http://api.dev.acme.example/v2/orders?since=8842")
