// An authorization server that we did not write: npm oidc-provider on a free port of loopback.
//
//   node oidc_server.mjs '{"clients": [...], "par": true, "nonce": true, "tls": {"cert": "...", "key": "..."}}'
//
// Prints one line of JSON with its issuer once it listens, and one line for each event that tests look at.
import fs from "node:fs";
import http from "node:http";
import https from "node:https";
import { Provider } from "oidc-provider";

const options = JSON.parse(process.argv[2] ?? "{}");
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));

const server = options.tls
  ? https.createServer({
      cert: fs.readFileSync(options.tls.cert),
      key: fs.readFileSync(options.tls.key),
      requestCert: true,
      rejectUnauthorized: false,
    })
  : http.createServer();

server.listen(0, "127.0.0.1", () => {
  const issuer = `${options.tls ? "https" : "http"}://127.0.0.1:${server.address().port}`;
  const say = (event) => console.log(JSON.stringify(event));
  const provider = new Provider(issuer, {
    clients: options.clients,
    cookies: { keys: ["only for tests"] },
    findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id, email: `${id}@test` }) }),
    scopes: ["openid", "offline_access", "email", "orders.read"],
    rotateRefreshToken: true,
    ttl: { AccessToken: options.ttl ?? 60, ClientCredentials: 60, DeviceCode: 60, RefreshToken: 600, Session: 600, Grant: 600, Interaction: 600, IdToken: 60 },
    pkce: { required: () => options.pkce ?? true },
    enabledJWA: { clientAuthSigningAlgValues: ["HS256", "RS256", "PS256", "ES256", "Ed25519", "EdDSA"] },
    responseTypes: ["code", "id_token", "id_token token", "code id_token", "none"],
    clientAuthMethods: ["none", "client_secret_basic", "client_secret_post", "client_secret_jwt", "private_key_jwt", ...(options.tls ? ["self_signed_tls_client_auth"] : [])],
    features: {
      devInteractions: { enabled: true },
      deviceFlow: { enabled: true, mask: "****-****" },
      clientCredentials: { enabled: true },
      revocation: { enabled: true },
      introspection: { enabled: true },
      userinfo: { enabled: true },
      pushedAuthorizationRequests: { enabled: true, requirePushedAuthorizationRequests: options.par ?? false },
      dPoP: { enabled: true, nonceSecret: Buffer.alloc(32, 7), requireNonce: () => options.nonce ?? false },
      mTLS: {
        enabled: Boolean(options.tls),
        certificateBoundAccessTokens: true,
        selfSignedTlsClientAuth: true,
        getCertificate: (ctx) => {
          const peer = ctx.req.socket.getPeerX509Certificate?.();
          return peer ?? undefined;
        },
      },
      resourceIndicators: { enabled: false },
    },
  });
  for (const name of ["grant.success", "grant.revoked", "refresh_token.consumed", "access_token.destroyed", "refresh_token.destroyed"]) {
    provider.on(name, (subject) => say({ event: name, grant: subject?.oidc?.params?.grant_type }));
  }
  for (const name of ["grant.error", "authorization.error", "pushed_authorization_request.error", "userinfo.error", "server_error", "revocation.error"]) {
    provider.on(name, (ctx, error) => say({ event: name, error: error?.message, detail: error?.error_detail, description: error?.error_description }));
  }
  provider.on("pushed_authorization_request.success", () => say({ event: "pushed_authorization_request.success" }));
  server.on("request", provider.callback());
  say({ issuer });
});
