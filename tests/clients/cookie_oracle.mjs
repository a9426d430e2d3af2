// What tough-cookie does with a list of requests and Set-Cookie lines, read as JSON from standard input.
import { readFileSync } from "node:fs";
import { CookieJar } from "tough-cookie";

const jar = new CookieJar();
const sent = [];
for (const [url, lines] of JSON.parse(readFileSync(0, "utf8"))) {
  sent.push(await jar.getCookieString(url));
  for (const line of lines) {
    await jar.setCookie(line, url, { ignoreError: true });
  }
}
process.stdout.write(JSON.stringify(sent));
