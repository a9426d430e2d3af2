// A token endpoint that we did not write: npm @node-oauth/oauth2-server with the password and refresh grants, and a
// resource that asks it whether a token is good. On a free port of loopback, which it prints.
import http from "node:http";
import OAuth2Server from "@node-oauth/oauth2-server";

process.stdin.resume();
process.stdin.on("end", () => process.exit(0));

const [id, secret, username, password] = JSON.parse(process.argv[2]);
const access = new Map();
const refresh = new Map();
const model = {
  getClient: async (asked, proof) =>
    asked === id && (proof === null || proof === undefined || proof === secret) ? { id, grants: ["password", "refresh_token"] } : null,
  getUser: async (name, proof) => (name === username && proof === password ? { name } : null),
  saveToken: async (token, client, user) => {
    const saved = { ...token, client, user };
    access.set(token.accessToken, saved);
    refresh.set(token.refreshToken, saved);
    return saved;
  },
  getAccessToken: async (token) => access.get(token),
  getRefreshToken: async (token) => refresh.get(token),
  revokeToken: async (token) => refresh.delete(token.refreshToken),
  validateScope: async (user, client, scope) => scope ?? ["read"],
  verifyScope: async () => true,
};
const server = new OAuth2Server({ model, accessTokenLifetime: 60 });

http
  .createServer(async (request, response) => {
    let body = "";
    for await (const piece of request) body += piece;
    const url = new URL(request.url, "http://127.0.0.1");
    const asked = new OAuth2Server.Request({
      method: request.method,
      headers: request.headers,
      query: Object.fromEntries(url.searchParams),
      body: Object.fromEntries(new URLSearchParams(body)),
    });
    const answer = new OAuth2Server.Response({});
    try {
      if (url.pathname === "/token") {
        await server.token(asked, answer);
        console.log(JSON.stringify({ event: "token", grant: asked.body.grant_type }));
      } else {
        const token = await server.authenticate(asked, answer);
        answer.body = { user: token.user.name };
      }
      response.writeHead(answer.status ?? 200, { "content-type": "application/json", ...answer.headers });
      response.end(JSON.stringify(answer.body));
    } catch (error) {
      console.log(JSON.stringify({ event: "refused", error: error.name }));
      response.writeHead(error.code ?? 500, { "content-type": "application/json", ...answer.headers });
      response.end(JSON.stringify({ error: error.name, error_description: error.message }));
    }
  })
  .listen(0, "127.0.0.1", function () {
    console.log(JSON.stringify({ issuer: `http://127.0.0.1:${this.address().port}` }));
  });
