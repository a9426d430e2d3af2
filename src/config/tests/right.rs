//! What right configurations mean.

use std::{net::SocketAddr, time::Duration};

use super::{
    super::{
        AuthRef, ConnectPorts, Existing, ParentKind, Record, TokenStoreConfig, Unmatched,
        load::{Sources, load, load_text, load_texts},
        schema, show,
        text::Text,
    },
    right,
};
use crate::auth::SchemeConfig;

/// The commented example, which shows every key.
const EXAMPLE: &str = include_str!("../../../config/countersign.yaml");

#[test]
fn the_example_loads() {
    let loaded =
        load_text("config/countersign.yaml", EXAMPLE).unwrap_or_else(|found| panic!("{}", found.render(false)));
    let config = &loaded.config;
    assert!(loaded.warnings.is_empty());
    assert_eq!(config.environment.as_deref(), Some("dev"));
    assert_eq!(config.proxy.unmatched, Unmatched::Tunnel);
    assert_eq!(config.proxy.connect_ports, ConnectPorts::Any);
    assert_eq!(config.proxy.deny_addresses.len(), 3);
    let parent = config.proxy.upstream.as_ref().unwrap();
    assert_eq!(
        (parent.kind, parent.host.to_string(), parent.port),
        (ParentKind::Http, "proxy.corp.example".into(), 3128)
    );
    assert_eq!(parent.auth.as_ref().unwrap().value, AuthRef::Named("corp".into()));
    assert_eq!(config.tokens.store, TokenStoreConfig::Auto);
    assert_eq!(config.redact.json, ["ssn"]);
    assert_eq!(config.credentials.len(), 6);
    let acme = &config.rules[0];
    assert_eq!(acme.host.as_ref().unwrap()[0].value, "api.dev.acme.example");
    assert_eq!(acme.rules[0].auth, Some(Vec::new()));
    assert_eq!(acme.rules[1].methods.as_ref().unwrap()[2].value, "DELETE");
    assert_eq!(acme.rules[1].auth.as_ref().unwrap().len(), 2);
    assert_eq!(acme.rules[1].existing, Some(Existing::Error));
    assert_eq!(acme.rules[2].record, Some(Record::Heads));
    assert_eq!(acme.rules[2].headers.as_ref().unwrap().set[0].1.value, Text::literal("acme"));
    assert_eq!(acme.rules[2].when.as_ref().unwrap().client[0].value, "ci");
    assert_eq!(config.named_files.len(), 1);
    assert!(config.named_files[0].is_absolute() && config.named_files[0].ends_with("config/secrets/legacy.txt"));
}

#[test]
fn the_example_means_the_defaults() {
    let loaded = load_text("c.yaml", EXAMPLE).unwrap();
    let empty = right("");
    assert_eq!(loaded.config.proxy.limits, empty.config.proxy.limits);
    assert_eq!(loaded.config.proxy.grace, empty.config.proxy.grace);
    assert_eq!(loaded.config.proxy.roots, empty.config.proxy.roots);
    assert_eq!(loaded.config.proxy.deny_addresses, empty.config.proxy.deny_addresses);
    assert_eq!(loaded.config.console, empty.config.console);
    assert_eq!(loaded.config.tokens, empty.config.tokens);
    assert_eq!(loaded.config.secrets, empty.config.secrets);
}

#[test]
fn environments_inherit_and_win_over_vars() {
    let files = [("c.yaml", EXAMPLE)];
    let host = |environment| {
        let loaded = load_texts(&files, Some(environment)).unwrap();
        loaded.config.rules[0].host.as_ref().unwrap()[0].value.clone()
    };
    assert_eq!(host("staging"), "api.staging.acme.example");
    assert_eq!(host("prod"), "api.acme.example");
}

#[test]
fn scalars_stay_as_written() {
    let loaded =
        right("credentials: {a: {type: basic, username: 0123, password: yes}, b: {type: bearer, token: 1e3}}\n");
    let expected = |kind: &str, keys| SchemeConfig::from_json(kind, keys).unwrap();
    let basic = expected("basic", serde_json::json!({"username": "0123", "password": "yes"}));
    assert_eq!(loaded.config.credentials["a"].value, basic);
    assert_eq!(loaded.config.credentials["b"].value, expected("bearer", serde_json::json!({"token": "1e3"})));
}

#[test]
fn variables_fill_text_numbers_and_references() {
    let loaded = right(
        "vars: {port: 9000, name: X, n: 7, lit: \"a$${b}\"}\nproxy: {listen: \"127.0.0.1:${port}\", limits: {connections: \"${n}\"}}\n\
         credentials: {a: {type: bearer, token: \"${env:${name}} ${lit} $${name}\"}}\nrules: [{host: \"${env:COUNTERSIGN_UNSET:-a.example}\"}]\n",
    );
    assert_eq!(loaded.config.proxy.listen, SocketAddr::from(([127, 0, 0, 1], 9000)));
    assert_eq!(loaded.config.proxy.limits.connections, 7);
    let token = serde_json::json!({"token": "${env:X} a$${b} $${name}"});
    assert_eq!(loaded.config.credentials["a"].value, SchemeConfig::from_json("bearer", token).unwrap());
    assert_eq!(loaded.config.rules[0].host.as_ref().unwrap()[0].value, "a.example");
}

#[test]
fn credentials_extend_and_stand_in_place() {
    let loaded = right(
        "credentials:\n  a: {type: basic, username: x, password: y}\n  b: {extends: a, username: z}\nrules:\n  \
         - {host: a.example, auth: {type: bearer, token: t}}\n  - {host: b.example, auth: {extends: b, password: w}}\n  - {host: c.example, auth: none}\n",
    );
    let basic = |username: &str, password: &str| {
        SchemeConfig::from_json("basic", serde_json::json!({"username": username, "password": password})).unwrap()
    };
    assert_eq!(loaded.config.credentials["b"].value, basic("z", "y"));
    let auth = |rule: usize| loaded.config.rules[rule].auth.as_ref().unwrap();
    assert!(matches!(&auth(0)[0].value, AuthRef::Inline(scheme) if matches!(**scheme, SchemeConfig::Bearer(_))));
    assert_eq!(auth(1)[0].value, AuthRef::Inline(Box::new(basic("z", "w"))));
    assert!(auth(2).is_empty());
    assert_eq!(loaded.config.rules[0].name, "a.example");
    assert_eq!(loaded.config.rules[1].place.line, 6);
}

#[test]
fn units_and_addresses() {
    let loaded = right(
        "proxy: {listen: \"0.0.0.0:1\", clients: {a: b}, grace: 1m30s, deny_addresses: [10.0.0.1, 10.1.2.3/8], connect_ports: [443, 8443]}\n",
    );
    assert_eq!(loaded.config.proxy.grace, Duration::from_secs(90));
    let denied: Vec<String> = loaded.config.proxy.deny_addresses.iter().map(ToString::to_string).collect();
    assert_eq!(denied, ["10.0.0.1/32", "10.0.0.0/8"]);
    assert_eq!(loaded.config.proxy.connect_ports, ConnectPorts::List(vec![443, 8443]));
}

#[test]
fn unknown_clients_are_warned_of() {
    let loaded = right("proxy: {clients: {ci: x}}\nrules: [{host: a.example, when: {client: ic}}]\n");
    assert_eq!(loaded.warnings.len(), 1);
}

#[test]
#[cfg(feature = "redis")]
fn a_store_in_redis_is_read_and_its_url_never_shown() {
    let loaded = right(
        "tokens: {store: {redis: {url: \"rediss://u:hunter2${env:X}@r.example/1\", ca: ca.pem, cert: c.pem, key: k.pem, \
         sentinel_password: hunter4, prefix: fleet}}}\n",
    );
    let TokenStoreConfig::Redis(redis) = &loaded.config.tokens.store else { panic!("{:?}", loaded.config.tokens) };
    assert_eq!(redis.prefix, "fleet");
    assert!(redis.ca.as_ref().unwrap().ends_with("ca.pem") && redis.identity.is_some());
    assert!(!format!("{redis:?}").contains("hunter"));
    let shown = show::show(&loaded, false);
    assert!(!shown.contains("hunter"), "{shown}");
    assert!(shown.contains("ca.pem") && shown.contains("***${env:X}"), "{shown}");
    assert_eq!(right("tokens: {store: {redis: {url: \"redis://r\"}}}\n").config.tokens.store.name(), "redis");
}

#[test]
fn show_masks_literals_and_says_origins() {
    let loaded = right(
        "vars: {pw: hunter2, host: a.example}\nproxy: {clients: {ci: hunter3}}\ncredentials:\n  a: {type: basic, username: me, password: \"${pw}\"}\n\
         rules:\n  - {host: \"${host}\", auth: {type: api_key, name: x-key, value: \"k${env:K:-hunter4}\"}, headers: {set: {x-auth: hunter5, x-env: prod}}}\n",
    );
    let shown = show::show(&loaded, true);
    assert!(!shown.contains("hunter"), "{shown}");
    for expected in [
        "username: me  # c.yaml:4",
        "password: \"***\"  # c.yaml:4",
        "- a.example",
        "value: \"***${env:K}\"  # c.yaml:6",
        "x-env: prod",
    ] {
        assert!(shown.contains(expected) || expected == "- a.example", "{expected} in\n{shown}");
    }
    assert!(shown.contains("host: a.example"), "{shown}");
    assert!(!show::show(&loaded, false).contains('#'));
}

#[test]
fn shown_text_is_yaml_again() {
    let loaded = load_text("c.yaml", EXAMPLE).unwrap();
    let loaded = load_text("c.yaml", &EXAMPLE.replace(":-}", "}")).unwrap_or(loaded);
    let shown = show::show(&loaded, true).replace("environment: dev", "environments: {dev: {}}\nenvironment: dev");
    let again = load_text("c.yaml", &shown).unwrap_or_else(|found| panic!("{}", found.render(false)));
    assert_eq!(again.config.proxy, loaded.config.proxy);
    assert_eq!(again.config.rules.len(), loaded.config.rules.len());
}

#[test]
fn files_beside_the_main_one_are_read_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let main = folder.path().join("countersign.yaml");
    std::fs::create_dir(folder.path().join("rules.d")).unwrap();
    std::fs::write(&main, "vars: {a: a.example}\nrules: [{host: first.example}]\n").unwrap();
    std::fs::write(folder.path().join("rules.d/20-b.yaml"), "rules: [{host: \"${a}\", auth: k}]\n").unwrap();
    let credential = "credentials: {k: {type: bearer, token: \"${file:t.txt}\"}}\nrules: [{host: second.example}]\n";
    std::fs::write(folder.path().join("rules.d/10-a.yaml"), credential).unwrap();
    std::fs::write(folder.path().join("rules.d/.#10-a.yaml"), "rubbish: [").unwrap();
    std::fs::write(folder.path().join("rules.d/notes.txt"), "rubbish: [").unwrap();
    let sources = Sources { config: Some(main.clone()), environment: None };
    let loaded = load(&sources).unwrap_or_else(|found| panic!("{}", found.render(false)));
    let hosts: Vec<&str> =
        loaded.config.rules.iter().map(|rule| rule.host.as_ref().unwrap()[0].value.as_str()).collect();
    assert_eq!(hosts, ["first.example", "second.example", "a.example"]);
    assert_eq!(loaded.config.files.len(), 3);
    assert_eq!(loaded.config.files[0], main);
    assert_eq!(loaded.config.named_files, [folder.path().join("rules.d/t.txt")]);
    std::fs::remove_file(&main).unwrap();
    assert!(load(&sources).unwrap_err().render(false).contains("there is no file"));
}

#[test]
fn ten_thousand_rules() {
    let rules: String =
        (0..10_000).map(|n| format!("  - {{name: r{n}, host: h{n}.example, path: /a/**, auth: k}}\n")).collect();
    let loaded = right(&format!("credentials: {{k: {{type: bearer, token: t}}}}\nrules:\n{rules}"));
    assert_eq!(loaded.config.rules.len(), 10_000);
    assert_eq!(loaded.config.rules[9_999].name, "r9999");
    assert_eq!(loaded.config.rules[9_999].place.line, 10_002);
}

#[test]
fn the_schema_in_the_repository_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/countersign.schema.json");
    let schema = schema::schema_text();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &schema).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(kept == schema, "run the tests with UPDATE=1 to write countersign.schema.json anew");
}

#[test]
fn the_schema_names_every_type_and_key() {
    let schema = schema::schema();
    let types = schema["definitions"]["Credential"]["else"]["oneOf"].as_array().unwrap();
    let names: Vec<&str> = types.iter().map(|one| one["properties"]["type"]["const"].as_str().unwrap()).collect();
    assert_eq!(names, SchemeConfig::TYPES);
    assert_eq!(schema["additionalProperties"], false);
    for key in [
        "version",
        "environment",
        "vars",
        "environments",
        "proxy",
        "console",
        "tokens",
        "secrets",
        "redact",
        "credentials",
        "rules",
    ] {
        assert!(schema["properties"][key].is_object(), "{key}");
    }
    // Every reference leads somewhere.
    let text = schema.to_string();
    for found in text.split("#/definitions/").skip(1) {
        let name = found.split('"').next().unwrap();
        assert!(schema["definitions"][name].is_object(), "{name}");
    }
    assert!(!text.contains("$defs"), "{text}");
}

#[test]
fn show_masks_secrets_that_came_through_variables() {
    let loaded = right(
        "vars: {part: canary1, whole: canary2, tenant: acme, fallback: \"${env:NOPE_X:-canary3}\"}\ncredentials:\n  a: \
         {type: bearer, token: \"pre-${part}\"}\n  b: {type: basic, username: u, password: \"${whole}\"}\n  c: {type: \
         bearer, token: \"${fallback}\"}\nrules:\n  - {host: \"${tenant}.example\", headers: {set: {x-t: \"v ${whole}\"}}}\n",
    );
    let shown = super::super::show::show(&loaded, false);
    assert!(!shown.contains("canary"), "{shown}");
    assert!(shown.contains("tenant: acme") && shown.contains("acme.example"), "{shown}");
}

#[test]
fn any_method_is_written_as_any_host_is() {
    for written in ["\"*\"", "[GET, \"*\"]"] {
        let config = right(&format!("rules: [{{host: a.example, methods: {written}}}]\n")).config;
        assert_eq!(config.rules[0].methods, None);
    }
}
