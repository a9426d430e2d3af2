//! What is said of wrong configurations, word by word.

use super::{super::load::load_texts, said, wrong};

/// Checks all errors of a text.
#[track_caller]
fn says(text: &str, expected: &[&str]) {
    assert_eq!(said(&wrong(text)), expected, "\n{text}");
}

#[test]
fn a_diagnostic_shows_the_line_and_the_fix() {
    let text = "credentials:\n  legacy: {type: basic, username: svc, pasword: \"${file:secrets/legacy.txt}\"}\n";
    assert_eq!(
        wrong(text).render(false),
        r#"error: unknown field `pasword` in a basic credential
 --> c.yaml:2:40
  |
2 |   legacy: {type: basic, username: svc, pasword: "${file:secrets/legacy.txt}"}
  |                                        ^^^^^^^ did you mean `password`?
"#
    );
    assert!(wrong(text).render(true).contains("\u{1b}["));
    let json = wrong(text).to_json();
    assert_eq!(json[0]["line"], 2);
    assert_eq!(json[0]["column"], 40);
    assert_eq!(json[0]["file"], "c.yaml");
    assert_eq!(json[0]["severity"], "error");
}

#[test]
fn unknown_keys_and_wrong_types_come_together() {
    says(
        "proxy:\n  lissten: 127.0.0.1:1\n  grace: soon\n  limits: {connections: many, head_bytes: lots}\nconsole: [1]\n",
        &[
            "2:3 unknown field `lissten`; did you mean `listen`?",
            "3:10 `soon` is not a duration; write a number with a unit: `500ms`, `30s`, `5m`, `24h` or `7d`",
            "4:25 expected a whole number that is not negative, found text",
            "4:43 `lots` is not a size; write bytes, or a number with a unit: `64KiB`, `16MiB`, `1GB`",
            "5:10 expected a mapping, found a list",
        ],
    );
}

#[test]
fn booleans_and_numbers_are_strict() {
    says(
        "rules:\n  - {host: a.example, tls: {extra_ca: ca.pem, ca_only: yes}}\nproxy: {limits: {connections: \"5\"}}\nconsole: {keep: {exchanges: -1}}\n",
        &[
            "2:56 expected `true` or `false`, found text; write `true`",
            "3:31 expected a whole number that is not negative, found text | write it without quotes",
            "4:29 expected a whole number that is not negative, found another number",
        ],
    );
}

#[test]
fn words_of_a_list_are_suggested() {
    says(
        "proxy: {unmatched: tunel}\nrules:\n  - {host: a.example, existing: overwrite, record: al}\n",
        &[
            "1:20 `tunel` is not one of `tunnel`, `inspect`, `deny`; did you mean `tunnel`?",
            "3:33 `overwrite` is not one of `replace`, `keep`, `error`",
            "3:52 `al` is not one of `all`, `heads`, `none`; did you mean `all`?",
        ],
    );
}

#[test]
fn duplicate_keys_do_not_hide_other_errors() {
    says(
        "proxy:\n  listen: 127.0.0.1:1\n  listen: 127.0.0.1:2\n  unknwn: 1\nproxy: {}\n",
        &[
            "3:3 the key `listen` is here twice; first on line 2",
            "4:3 unknown field `unknwn` | known fields are `listen`, `unmatched`, `clients`, `upstream`, `connect_ports`, `deny_addresses`, `roots`, `limits`, `grace`",
            "5:1 the key `proxy` is here twice; first on line 1",
        ],
    );
}

#[test]
fn postmans_braces_are_explained() {
    says("rules:\n  - host: {{api}}\n", &["2:11 `{{...}}` is how Postman writes a variable; write `${api}`"]);
    says(
        "rules:\n  - host: \"https://{{api}}/x\"\n",
        &["2:20 `{{...}}` is how Postman writes a variable; write `${api}`"],
    );
}

#[test]
fn syntax_errors_have_a_place() {
    says(
        "rules:\n\t- host: x\n",
        &["2:2 not YAML: tabs disallowed within this context (block indentation) | indent with spaces, not with tabs"],
    );
    let found = wrong("a: [1, 2\nb: 3\n");
    assert_eq!(found.list.len(), 1);
    assert!(found.list[0].place.is_some());
}

#[test]
fn variables() {
    says(
        "vars: {tenant: acme}\nrules: [{host: \"${tenat}.example\"}, {host: \"${HOST}\"}]\n",
        &[
            "2:17 the variable `tenat` is not set; did you mean `tenant`?",
            "2:45 the variable `HOST` is not set; an environment variable is written `${env:HOST}`",
        ],
    );
    says(
        "vars: {a: \"x${b}\", b: \"${c}\", c: \"${a}\"}\n",
        &["1:34 variables in a circle: `a` needs `b` needs `c` needs `a`"],
    );
    says("vars: {a: [1]}\n", &["1:11 expected text, found a list"]);
    says("rules: [{host: \"${a\"}]\n", &["1:17 `${` without its `}` | a literal `${` is written `$${`"]);
    says(
        "rules: [{host: \"${env:COUNTERSIGN_TEST_UNSET}\"}]\n",
        &["1:16 the environment variable `COUNTERSIGN_TEST_UNSET` is not set"],
    );
    says(
        "rules: [{host: \"${secret:x}\"}]\n",
        &["1:16 `${secret:x}` cannot be used here: only `${env:...}` and `${file:...}` can"],
    );
}

#[test]
fn environments() {
    let environments = "environments:\n  dev: {vars: {api: a.example}}\n  prod: {extends: base}\n  x: {extends: y}\n  y: {extends: x}\n";
    says(
        &format!("{environments}rules: [{{host: \"${{api}}\"}}]\n"),
        &[
            "3:19 environment `prod` extends `base`, which does not exist",
            "4:16 environment `x` extends itself",
            "5:16 environment `y` extends itself",
            "6:17 the variable `api` is not set; only environment `dev` sets it | choose an environment with `environment: ...` or `--environment`",
        ],
    );
    let text = "environment: prd\nenvironments: {dev: {}, prod: {}}\n";
    says(text, &["1:14 there is no environment `prd`; did you mean `prod`? | there are `dev`, `prod`"]);
    let found = load_texts(&[("c.yaml", "environments: {dev: {}}\n")], Some("devv")).unwrap_err();
    assert_eq!(said(&found), ["there is no environment `devv`; did you mean `dev`? | there are `dev`"]);
}

#[test]
fn credentials() {
    says(
        "credentials:\n  a: {type: bearr, token: x}\n  b: {token: x}\n  c: {type: bearer}\n  d: 5\n  e: {type: hawk, id: x}\n  f: {extends: g}\n  h: {extends: h}\n",
        &[
            "2:13 unknown type of credential `bearr`; did you mean `bearer`?",
            "3:3 a credential needs a `type` | types are none, api_key, bearer, basic, cookies, mtls, exec",
            "4:13 missing field `token` in a bearer credential",
            "5:6 a credential is a mapping with a `type`, found a number",
            "6:13 missing field `key` in a hawk credential",
            "7:16 credential `f` extends `g`, which does not exist",
            "8:16 credential `h` extends itself",
        ]
        .map(|line| {
            line.replace("bearer, basic, cookies, mtls, exec", &crate::auth::SchemeConfig::TYPES[2..].join(", "))
        })
        .each_ref()
        .map(String::as_str),
    );
}

#[test]
fn names_of_credentials() {
    says(
        "credentials:\n  github: {type: bearer, token: x}\n  app: {type: bearer, token: \"${token:githb}\"}\n  own: {type: bearer, token: \"${token:own}\"}\nrules:\n  - {name: GitHub, host: api.github.com, auth: gihub}\n  - {host: a.example, auth: [github, none]}\n  - {host: b.example, auth: []}\n  - {host: c.example, auth: [[github]]}\n",
        &[
            "3:30 `${token:githb}` names a credential that does not exist; did you mean `github`?",
            "4:30 credential `own` needs its own token",
            "6:48 rule `GitHub` uses credential `gihub`, which does not exist; did you mean `github`?",
            "7:38 `none` stands alone, not in a list",
            "8:29 the list of credentials is empty; write `none`",
            "9:30 `auth` takes the name of a credential, a credential or a list, found a list",
        ],
    );
}

#[test]
fn listening_beyond_loopback_needs_clients() {
    says(
        "proxy: {listen: 0.0.0.0:8080}\nconsole: {listen: \"[::]:8081\"}\n",
        &[
            "1:17 to listen on 0.0.0.0:8080, beyond loopback, the proxy needs `clients` | add `clients: {name: \"${env:PASSWORD}\"}` to `proxy`, or listen on 127.0.0.1",
            "2:19 the console shows traffic and controls the proxy; it listens on loopback only | to reach it from elsewhere, forward a port, for example with ssh",
        ],
    );
    says("proxy: {listen: 127.0.0.1}\n", &["1:17 `127.0.0.1` is not an address with a port; write `127.0.0.1:8080`"]);
}

#[test]
fn the_proxy_itself() {
    says(
        "proxy:\n  upstream: {url: \"http://user:hunter2@proxy:3128\"}\n  connect_ports: [0]\n  deny_addresses: [10.0.0.0/33]\n  limits: {idle_timeout: 0}\ntokens: {store: {redis: {url: \"rediss://u:hunter2@r:x\"}}}\nversion: 2\n",
        &[
            "2:19 the URL of the parent proxy holds a user or password | give them as a credential: `upstream: {url: ..., auth: {type: basic, username: ..., password: ...}}`",
            "3:18 `connect_ports` is `any` or a list of ports, such as `[443, 8443]`",
            "4:20 `10.0.0.0/33` is neither an address nor a network | write an address, or a network such as `10.0.0.0/8`",
            "5:26 this time must be longer than 0",
            "6:31 a host of the URL is not `host` or `host:port`; write `rediss://user:password@host:6379/0`, `rediss+sentinel://host1,host2/mymaster/0` or `rediss+cluster://host1,host2` (`redis` without TLS)",
            "7:10 this is version 2 of the format; only version 1 is known | use a newer Countersign, or write `version: 1`",
        ],
    );
    says("proxy: {upstream: \"ftp://p:1\"}\n", &["1:19 a parent proxy speaks `http`, `https` or `socks5`, not `ftp`"]);
    says("proxy: {upstream: \"p:1\"}\n", &["1:19 the URL of the parent proxy has no scheme; write `http://p:1`"]);
}

#[test]
#[cfg(feature = "redis")]
fn a_store_in_redis() {
    let form = "write `store: {redis: {url: \"rediss://user:${env:REDIS_PASSWORD}@host:6379/0\"}}`";
    says("tokens: {store: redis}\n", &[&format!("1:17 a store in Redis needs its address | {form}")]);
    says(
        "tokens: {store: {redis: {url: \"redis://r\", cert: c.pem, prefix: \"a b\"}}}\n",
        &[
            "1:25 `cert` and `key` come together",
            "1:65 the prefix has 1 to 64 letters, digits, `-`, `_`, `.`, `:` and `/`",
        ],
    );
}

#[test]
fn rules() {
    says(
        "rules:\n  - host: a.example\n    methods: [\"GE T\"]\n    headers: {set: {Content-Length: 5, x: 1, X: 2}, remove: [\"a b\"]}\n    tls: {ca_only: true}\n    path: \"\"\n  -\n",
        &[
            "3:15 `GE T` is not a method",
            "4:37 rules cannot edit `Content-Length` | it belongs to the connection or says where the message goes or ends; the proxy takes care of it",
            "4:49 the header field `x` is here twice",
            "4:62 `a b` is not the name of a header field",
            "5:20 `ca_only` without `extra_ca` would trust nobody | name the PEM file: `tls: {extra_ca: ca.pem, ca_only: true}`",
            "6:11 this `path` is empty",
            "7:4 this rule is empty",
        ],
    );
    says("rules: {host: a}\n", &["1:8 `rules` is a list, found a mapping | begin each rule with `- `"]);
}

#[test]
fn errors_of_all_files_come_together() {
    let main = "proxy: {x: 1}\nrules: [{host: a.example, auth: b}]\n";
    let more = "console: {}\ncredentials: {b: {type: bearer, tken: x, token: y}}\n";
    let found = load_texts(&[("c.yaml", main), ("rules.d/1.yaml", more)], None).unwrap_err();
    let lines = said(&found);
    assert_eq!(lines.len(), 3, "{lines:#?}");
    assert!(lines[0].starts_with("1:9 unknown field `x`"));
    assert_eq!(lines[1], "1:1 `console` belongs into the main file, not into `rules.d`");
    assert_eq!(lines[2], "2:33 unknown field `tken` in a bearer credential; did you mean `token`?");
    // A file that is not YAML does not hide what is wrong elsewhere, and what it may define is not missed.
    let found = load_texts(&[("c.yaml", main), ("rules.d/1.yaml", "a: [")], None).unwrap_err();
    let lines = said(&found);
    assert_eq!(lines.len(), 2, "{lines:#?}");
    let twice = "credentials: {a: {type: bearer, token: x}}\n";
    let found = load_texts(&[("c.yaml", twice), ("rules.d/1.yaml", twice)], None).unwrap_err();
    assert_eq!(said(&found), ["1:15 there are two credentials `a`; the other is at c.yaml:1"]);
}

#[test]
fn places_survive_aliases_and_merges() {
    says(
        "credentials:\n  a: &a {type: basic, username: x, pasword: y}\n  b: *a\n  c: {<<: *a, type: bearer, token: z}\n",
        &[
            "2:23 unknown field `username` in a bearer credential | known fields are `token`, `prefix`",
            "2:36 unknown field `pasword` in a basic credential; did you mean `password`?",
            "2:36 unknown field `pasword` in a bearer credential | known fields are `token`, `prefix`",
        ],
    );
}

#[test]
fn secrets_are_never_shown() {
    for text in [
        "credentials:\n  a: {type: basic, username: x, password: hunter2, z: 1}\n",
        "credentials:\n  a: {type: basic, username: [hunter3], password: [hunter2]}\n",
        "credentials:\n  a: {type: bearer, token: \"hunter2 ${env:X:-hunter2} ${x}\"}\n",
        "credentials:\n  a:\n    type: bearer\n    token: hunter2\n   z: 1\n",
        "credentials:\n  a:\n    type: bearer\n    token: \"hunter2\n  hunter2\n",
        "credentials:\n  a: {type: cookies, cookies: {sid: hunter2}, z: 1}\n",
        "proxy: {clients: {ci: hunter2}, z: 1}\n",
        "credentials: {a: {type: bearer, token: !hunter hunter2}}\n",
        "credentials: {a: {type: bearer, token: x, token: hunter2}}\n",
        "credentials: {a: {type: bearer, token: x}, a: {type: bearer, token: hunter2}}\n",
        "credentials: {a: hunter2}\n",
        "credentials:\n  a: hunter2\n  b: [\n",
        "credentials: {a: {type: basic, username: u, password: {v: hunter2}}}\n",
        "credentials: {a: {type: basic, username: u, passphrase: x, pw: hunter2}}\n",
        "credentials: {a: {type: oauth2, token_url: \"https://u:hunter2@h/x\", bogus: 1, grant: nope}}\n",
        "rules: [{host: a.example, auth: {bearer: hunter2}}]\n",
        "rules: [{host: a.example, auth: hunter2}]\n",
        "rules: [{host: a.example, auth: [hunter2, x]}]\n",
        "rules: [{host: a.example, headers: {set: {x-custom: hunter2, te: 1}}}]\n",
        "proxy: {upstream: \"http://corp:hunter2@host:3128\"}\n",
        "proxy: {upstream: {url: \"http://corp:hunter2@host:3128\"}}\n",
        "proxy: {upstream: \"corp:hunter2@host:3128\"}\n",
        "proxy:\n  upstream: \"http://corp:hunter2@host:3128\n",
        "tokens: {store: \"redis://u:hunter2@h\"}\n",
        "tokens: {store: hunter2}\n",
        "tokens: {store: {redis: {url: \"redis://u:hunter2@h\", z: 1}}}\n",
        "tokens: {store: {redis: \"redis://u:hunter2@h\"}}\n",
        "vars: {pw: hunter2}\nproxy: {listen: \"${pw}\"}\n",
        "vars: {pw: hunter2, 1x: hunter2}\n",
        "hunter2\n",
    ] {
        let shown = wrong(text).render(false) + &wrong(text).to_json().to_string();
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn errors_stay_useful_where_words_and_names_are_wrong() {
    let text = "credentials:\n  github: {type: baerer, token: x}\n  b: {type: api_key, in: quary, name: k, value: \"${env:K}\"}\nrules:\n  - {host: a.example, auth: githb}\n  - {host: b.example, auth: somebody}\n";
    let shown = wrong(text).render(false);
    for said in
        ["`baerer`", "in: quary", "${env:K}", "credential `githb`", "did you mean `github`", "credential `somebody`"]
    {
        assert!(shown.contains(said), "{said} in {shown}");
    }
}

#[test]
fn conditions_without_a_value_are_errors() {
    says(
        "rules:\n  - {host: a.example, auth: }\n  - host: b.example\n    path:\n    rules: [{path: /x, auth: }]\n  - host: 8080\n  - {host: [], auth: None}\n",
        &[
            "2:23 `auth` has no value | write `auth: none` for no credential, or leave the key out to inherit that of the rule above",
            "4:5 `path` has no value | leave the key out for no condition",
            "5:24 `auth` has no value | write `auth: none` for no credential, or leave the key out to inherit that of the rule above",
            "6:11 a number is not a host | write a name or an address with it, such as `http://127.0.0.1:8080`",
            "7:12 the list of `host` is empty, so nothing could match",
            "7:22 rule `rule on line 7` uses credential `None`, which does not exist; did you mean `none`?",
        ],
    );
    says(
        "rules: [{host: a.example, auth: {extends: b}}]\n",
        &["1:43 this credential extends `b`, which does not exist"],
    );
}
