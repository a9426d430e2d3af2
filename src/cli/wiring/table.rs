//! The table: which variable, for which tools, with which value.

use std::ffi::OsString;

use super::{Current, Endpoint, Tool, direct, files::Trust};

/// A variable to set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: OsString,
    /// For a variable that the user's value is kept in: what is left without our part.
    pub without_ours: Option<OsString>,
}

/// The variables for an endpoint. Without `trust` only the proxy is set; `only` narrows to some tools; `current` is the
/// environment that they will be added to.
pub fn variables(endpoint: &Endpoint, trust: Option<&Trust>, only: &[Tool], current: Current<'_>) -> Vec<Variable> {
    let mut table = Table { only, rows: Vec::new() };
    table.proxy(endpoint, current);
    if let Some(trust) = trust {
        table.trust(trust);
        table.php(trust, current);
    }
    table.node(endpoint, trust, current);
    table.java(endpoint, trust, current);
    table.rows
}

struct Table<'a> {
    only: &'a [Tool],
    rows: Vec<Variable>,
}

impl Table<'_> {
    fn wants(&self, tools: &[Tool]) -> bool {
        self.only.is_empty() || tools.iter().any(|tool| self.only.contains(tool))
    }

    /// Adds a row for some tools; no tools means all of them.
    fn set(&mut self, tools: &[Tool], names: &[&'static str], value: impl Into<OsString>) {
        if tools.is_empty() || self.wants(tools) {
            let value = value.into();
            self.rows.extend(names.iter().map(|name| Variable { name, value: value.clone(), without_ours: None }));
        }
    }

    fn proxy(&mut self, endpoint: &Endpoint, current: Current<'_>) {
        let url = endpoint.url();
        let direct = endpoint.no_proxy(current);
        // Java alone reads none of these.
        if self.only.is_empty() || self.only.iter().any(|tool| *tool != Tool::Java) {
            self.set(&[], &["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"], &url);
            self.set(&[], &["no_proxy", "NO_PROXY"], &direct);
        }
        self.set(&[Tool::Cargo], &["CARGO_HTTP_PROXY"], &url);
        self.set(&[Tool::Node], &["npm_config_proxy", "npm_config_https_proxy"], &url);
        self.set(&[Tool::Node], &["npm_config_noproxy"], &direct);
        self.set(&[Tool::Node], &["YARN_HTTP_PROXY", "YARN_HTTPS_PROXY"], &url);
        self.set(&[Tool::Node], &["NODE_USE_ENV_PROXY"], "1");
        self.set(&[Tool::Perl], &["PERL_LWP_ENV_PROXY"], "1");
        self.set(&[Tool::Grpc], &["grpc_proxy"], &url);
        self.set(&[Tool::Grpc], &["no_grpc_proxy"], &direct);
        self.set(&[Tool::Gcloud], &["CLOUDSDK_PROXY_TYPE"], "http");
        self.set(&[Tool::Gcloud], &["CLOUDSDK_PROXY_ADDRESS"], endpoint.host.trim_matches(['[', ']']));
        self.set(&[Tool::Gcloud], &["CLOUDSDK_PROXY_PORT"], endpoint.port.to_string());
        if let Some(login) = &endpoint.login {
            self.set(&[Tool::Gcloud], &["CLOUDSDK_PROXY_USERNAME"], &login.user);
            self.set(&[Tool::Gcloud], &["CLOUDSDK_PROXY_PASSWORD"], login.password.expose());
        }
    }

    /// Variables that replace the roots get the bundle, those that add get our certificate.
    fn trust(&mut self, trust: &Trust) {
        use Tool::{Aws, Cargo, Curl, Deno, Dotnet, Gcloud, Git, Go, Grpc, Haskell, Hex, Julia, Nix, Node, Perl, Php};
        use Tool::{Python, Ruby, Wget};
        let bundle = trust.bundle.as_os_str();
        let replacing: &[(&[Tool], &[&'static str])] = &[
            (&[Curl, Python, Php], &["CURL_CA_BUNDLE"]),
            (&[Curl, Python, Go, Ruby, Cargo, Dotnet, Perl, Hex], &["SSL_CERT_FILE"]),
            (&[Git], &["GIT_SSL_CAINFO"]),
            (&[Python, Aws], &["REQUESTS_CA_BUNDLE"]),
            (&[Python], &["PIP_CERT"]),
            (&[Cargo], &["CARGO_HTTP_CAINFO"]),
            (&[Node], &["npm_config_cafile", "YARN_HTTPS_CA_FILE_PATH"]),
            (&[Perl], &["PERL_LWP_SSL_CA_FILE", "HTTPS_CA_FILE"]),
            (&[Aws], &["AWS_CA_BUNDLE"]),
            (&[Ruby], &["BUNDLE_SSL_CA_CERT"]),
            (&[Php], &["COMPOSER_CAFILE"]),
            (&[Gcloud], &["CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE"]),
            (&[Grpc], &["GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"]),
            (&[Hex], &["HEX_CACERTS_PATH"]),
            (&[Julia], &["JULIA_SSL_CA_ROOTS_PATH"]),
            (&[Haskell], &["SYSTEM_CERTIFICATE_PATH"]),
            (&[Nix], &["NIX_SSL_CERT_FILE"]),
        ];
        for (tools, names) in replacing {
            self.set(tools, names, bundle);
        }
        self.set(&[Node], &["NODE_EXTRA_CA_CERTS"], trust.node_ca.as_os_str());
        self.set(&[Deno], &["DENO_CERT"], trust.deno_ca.as_os_str());
        self.set(&[Wget], &["WGETRC"], trust.wgetrc.as_os_str());
    }

    /// An empty part of the scan path stands for the folder that PHP was built with.
    fn php(&mut self, trust: &Trust, current: Current<'_>) {
        if !self.wants(&[Tool::Php]) {
            return;
        }
        let ours = trust.php_folder.to_string_lossy().into_owned();
        let others = text(current, "PHP_INI_SCAN_DIR")
            .map(|value| value.split(':').filter(|part| *part != ours).collect::<Vec<_>>().join(":"))
            .filter(|others| !others.is_empty());
        let value = format!("{}:{ours}", others.as_deref().unwrap_or_default());
        self.rows.push(Variable {
            name: "PHP_INI_SCAN_DIR",
            value: value.into(),
            without_ours: others.map(OsString::from),
        });
    }

    /// Node before 22.21 and 24.5 follows no proxy variable by itself.
    fn node(&mut self, _endpoint: &Endpoint, trust: Option<&Trust>, current: Current<'_>) {
        let Some(preload) = trust.map(|trust| &trust.preload).filter(|_| self.wants(&[Tool::Node])) else { return };
        let ours = format!("--require {}", node_quoted(&preload.to_string_lossy()));
        let others = without(text(current, "NODE_OPTIONS"), &ours);
        self.append("NODE_OPTIONS", &ours, others);
    }

    /// Java sends no login on its way to the proxy; the proxy knows its own user's connections on loopback.
    fn java(&mut self, endpoint: &Endpoint, trust: Option<&Trust>, current: Current<'_>) {
        if !self.wants(&[Tool::Java]) {
            return;
        }
        let host = endpoint.host.trim_matches(['[', ']']);
        let port = endpoint.port;
        let mut ours = format!(
            "{JAVA_MARK} -Dhttp.proxyHost={host} -Dhttp.proxyPort={port} -Dhttps.proxyHost={host} \
             -Dhttps.proxyPort={port}"
        );
        // Java adds all of loopback to any list of direct hosts that is not empty, so a list cannot leave one host out.
        if endpoint.direct_loopback().len() < direct::LOOPBACK.len() {
            ours.push_str(" -Dhttp.nonProxyHosts=");
        }
        if let Some(store) = trust.and_then(|trust| trust.java_store.as_ref()) {
            let store = store.to_string_lossy();
            ours.push_str(&format!(
                " {} -Djavax.net.ssl.trustStorePassword=changeit",
                java_quoted(&format!("-Djavax.net.ssl.trustStore={store}"))
            ));
        }
        // Ours stand last, so that they win, and from the mark on they are ours.
        let others = text(current, "JAVA_TOOL_OPTIONS")
            .map(|value| value.split(JAVA_MARK).next().unwrap_or_default().trim().to_owned())
            .filter(|others| !others.is_empty());
        self.append("JAVA_TOOL_OPTIONS", &ours, others);
    }

    fn append(&mut self, name: &'static str, ours: &str, others: Option<String>) {
        let value = match &others {
            Some(others) => format!("{others} {ours}"),
            None => ours.to_owned(),
        };
        self.rows.push(Variable { name, value: value.into(), without_ours: others.map(OsString::from) });
    }
}

pub(super) fn text(current: Current<'_>, name: &str) -> Option<String> {
    current(name).and_then(|value| value.into_string().ok()).filter(|value| !value.is_empty())
}

/// The user's part of an option string that may already hold ours.
fn without(value: Option<String>, ours: &str) -> Option<String> {
    value.map(|value| value.replace(ours, "").trim().to_owned()).filter(|rest| !rest.is_empty())
}

/// Node splits on spaces and knows double quotes with backslashes.
fn node_quoted(text: &str) -> String {
    if text.contains([' ', '"', '\\']) {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        text.to_owned()
    }
}

/// Java splits on white space and knows quotes without escapes.
fn java_quoted(text: &str) -> String {
    match (text.contains(char::is_whitespace), text.contains('"')) {
        (false, _) => text.to_owned(),
        (true, false) => format!("\"{text}\""),
        (true, true) => format!("'{text}'"),
    }
}

/// The first of our options for Java.
const JAVA_MARK: &str = "-Dcountersign=1";

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::PathBuf};

    use super::*;
    use crate::{control::run_file::Login, secret::Secret};

    fn trust() -> Trust {
        let path = |name: &str| PathBuf::from("/d d").join(name);
        Trust {
            ca: path("ca.pem"),
            bundle: path("bundle.pem"),
            node_ca: path("node.pem"),
            deno_ca: path("deno.pem"),
            wgetrc: path("wgetrc"),
            php_folder: path("php"),
            preload: path("preload.cjs"),
            java_store: Some(path("java.p12")),
        }
    }

    fn map(only: &[Tool], with_trust: bool, current: Current<'_>) -> BTreeMap<&'static str, String> {
        let login = Login { user: "run".into(), password: Secret::new("p") };
        let endpoint = Endpoint::new("127.0.0.1:99".parse().unwrap(), Some(login), vec!["localhost".into()]);
        let trust = trust();
        variables(&endpoint, with_trust.then_some(&trust), only, current)
            .into_iter()
            .map(|row| (row.name, row.value.into_string().unwrap()))
            .collect()
    }

    #[test]
    fn replacing_variables_get_the_bundle_and_adding_ones_our_certificate() {
        let map = map(&[], true, &|_| None);
        for name in ["CURL_CA_BUNDLE", "SSL_CERT_FILE", "GIT_SSL_CAINFO", "REQUESTS_CA_BUNDLE", "NIX_SSL_CERT_FILE"] {
            assert_eq!(map[name], "/d d/bundle.pem", "{name}");
        }
        assert_eq!(map["NODE_EXTRA_CA_CERTS"], "/d d/node.pem");
        assert_eq!(map["DENO_CERT"], "/d d/deno.pem");
        for (lower, upper) in [("http_proxy", "HTTP_PROXY"), ("https_proxy", "HTTPS_PROXY"), ("no_proxy", "NO_PROXY")] {
            assert_eq!(map[lower], map[upper]);
        }
        assert_eq!(map["http_proxy"], "http://run:p@127.0.0.1:99");
        assert_eq!(map["NO_PROXY"], "127.0.0.1,::1");
    }

    #[test]
    fn nothing_tells_a_tool_not_to_verify() {
        let text = format!("{:?}", map(&[], true, &|_| None)).to_lowercase();
        for word in ["insecure", "reject_unauthorized", "no_verify", "verify=0", "strict_ssl", "strict-ssl"] {
            assert!(!text.contains(word), "{word}");
        }
    }

    #[test]
    fn java_gets_no_login_and_its_own_store() {
        let options = &map(&[Tool::Java], true, &|_| None)["JAVA_TOOL_OPTIONS"];
        assert!(options.contains("-Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=99"));
        assert!(options.contains(" -Dhttp.nonProxyHosts= "), "a rule names a loopback host");
        assert!(options.contains("\"-Djavax.net.ssl.trustStore=/d d/java.p12\""));
        assert!(!options.contains("run:p"));
    }

    #[test]
    fn the_users_own_options_are_kept_and_ours_are_not_doubled() {
        let current = |name: &str| match name {
            "NODE_OPTIONS" => Some("--max-old-space-size=99".into()),
            "JAVA_TOOL_OPTIONS" => Some("-Xmx1g".into()),
            "PHP_INI_SCAN_DIR" => Some("/own".into()),
            "NO_PROXY" => Some("own.example".into()),
            _ => None,
        };
        let once = map(&[], true, &current);
        assert_eq!(once["NODE_OPTIONS"], "--max-old-space-size=99 --require \"/d d/preload.cjs\"");
        assert!(once["JAVA_TOOL_OPTIONS"].starts_with("-Xmx1g -Dcountersign=1 "));
        assert_eq!(once["PHP_INI_SCAN_DIR"], "/own:/d d/php");
        assert_eq!(once["no_proxy"], "127.0.0.1,::1,own.example");
        let twice = map(&[], true, &|name: &str| once.get(name).map(OsString::from));
        assert_eq!(once, twice);
        assert_eq!(map(&[], true, &|_| None)["PHP_INI_SCAN_DIR"], ":/d d/php");
    }

    #[test]
    fn the_set_can_be_narrowed() {
        let git = map(&[Tool::Git], true, &|_| None);
        assert!(git.contains_key("GIT_SSL_CAINFO") && git.contains_key("https_proxy"));
        assert!(!git.contains_key("NODE_OPTIONS") && !git.contains_key("CURL_CA_BUNDLE"));
        let java = map(&[Tool::Java], true, &|_| None);
        assert_eq!(java.keys().copied().collect::<Vec<_>>(), ["JAVA_TOOL_OPTIONS"]);
        let bare = map(&[], false, &|_| None);
        assert!(bare.contains_key("https_proxy") && !bare.contains_key("SSL_CERT_FILE"));
    }
}
