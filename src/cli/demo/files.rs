//! What the demo puts into its folder: secrets, the rule file that refers to them, and the certificate of the API.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

use crate::{
    control::run_file::random_secret,
    durable::{self, IfThere},
    paths::DataDir,
    secret::Secret,
    tls,
};

/// What the API asks for, made anew for each run.
pub(super) struct Secrets {
    pub(super) weather_key: Secret,
    pub(super) report_password: Secret,
    pub(super) vault_password: Secret,
    pub(super) client_secret: Secret,
}

impl Secrets {
    /// Nobody can guess these.
    pub(super) fn random() -> io::Result<Self> {
        Ok(Self {
            weather_key: random_secret()?,
            report_password: random_secret()?,
            vault_password: random_secret()?,
            client_secret: random_secret()?,
        })
    }
}

/// The folder of a run; removed when dropped.
pub(super) struct Folder(TempDir);

impl Folder {
    /// A new one that only its owner may enter.
    pub(super) fn new() -> io::Result<Self> {
        tempfile::Builder::new()
            .prefix("countersign-demo-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir()
            .map(Self)
    }

    /// The data folder of the proxy.
    pub(super) fn data(&self) -> DataDir {
        DataDir::at(self.path().join("data"))
    }

    /// The rule file.
    pub(super) fn rules(&self) -> PathBuf {
        self.path().join("countersign.yaml")
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes the secrets, one file each.
    pub(super) fn write_secrets(&self, secrets: &Secrets) -> io::Result<()> {
        let folder = self.path().join("secrets");
        fs::create_dir(&folder)?;
        fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
        let all = [
            ("weather.txt", &secrets.weather_key),
            ("reports.txt", &secrets.report_password),
            ("vault.txt", &secrets.vault_password),
            ("robot.txt", &secrets.client_secret),
        ];
        all.iter().try_for_each(|(name, secret)| write(&folder.join(name), secret.expose()))
    }

    /// Writes the rule file for an API at these two addresses.
    pub(super) fn write_rules(&self, http: &str, https: &str) -> io::Result<()> {
        write(&self.rules(), &RULES.replace("HTTPS_API", https).replace("HTTP_API", http))?;
        // A file as young as the proxy itself would be loaded twice, with a message that puzzles newcomers.
        File::options().write(true).open(self.rules())?.set_modified(SystemTime::now() - Duration::from_secs(60))
    }

    /// The part of the rule file that says what goes where, as it was written.
    pub(super) fn excerpt(http: &str) -> String {
        let inner = RULES.lines().skip_while(|line| !line.contains("name: Demo API"));
        let inner = inner.take_while(|line| !line.contains("encrypted"));
        inner.map(|line| format!("  {}\n", line.replace("HTTP_API", http))).collect()
    }

    /// Writes the certificate of a throw-away authority, and answers with a TLS server that has a leaf of it.
    pub(super) fn tls_server(&self) -> io::Result<TlsAcceptor> {
        let (pem, acceptor) = tls_server().map_err(io::Error::other)?;
        write(&self.path().join("api-ca.pem"), &pem)?;
        Ok(acceptor)
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    durable::write(path, text.as_bytes(), 0o600, IfThere::Replace).map_err(io::Error::other)
}

fn tls_server() -> Result<(String, TlsAcceptor), Box<dyn std::error::Error + Send + Sync>> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Demo API Authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let key = KeyPair::generate()?;
    let pem = params.self_signed(&key)?.pem();
    let issuer = Issuer::new(params, key);

    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, "Demo API");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let leaf = params.signed_by(&key, &issuer)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![leaf.into()], key)?;
    Ok((pem, TlsAcceptor::from(Arc::new(config))))
}

const RULES: &str = r#"# The rule file of the demo. Change it while the demo runs: what you save is in force at once.
version: 1

# How to log in. The secrets are in files of their own; `${env:NAME}` and `${secret:NAME}` would do, too.
credentials:
  weather:                      # an API key in the query: /weather?appid=...
    type: api_key
    in: query
    name: appid
    value: "${file:secrets/weather.txt}"
  reporter:                     # name and password
    type: basic
    username: reporter
    password: "${file:secrets/reports.txt}"
  keeper:                       # name and password, but the password itself is never sent
    type: digest
    username: keeper
    password: "${file:secrets/vault.txt}"
  robot:                        # OAuth 2.0: tokens are fetched, kept, and renewed
    type: oauth2
    grant: client_credentials
    token_url: "HTTP_API/token"
    client_id: robot
    client_secret: "${file:secrets/robot.txt}"
  forgotten:                    # there is no such file: requests that need it are refused
    type: bearer
    token: "${file:secrets/forgotten.txt}"

# Where to use it. The first rule that fits wins, then the first of its own rules.
rules:
  - name: Demo API
    host: "HTTP_API"
    auth: none
    rules:
      - {name: Weather, path: /weather, auth: weather}
      - {name: Reports, path: /reports, auth: reporter}
      - {name: Vault, path: /vault, auth: keeper}
      - {name: Orders, path: /orders, auth: robot}
      - {name: Lost, path: /lost, auth: forgotten}
  - name: Demo API, encrypted
    host: "HTTPS_API"
    auth: robot
    tls: {extra_ca: api-ca.pem} # the API has a certificate of its own making
"#;
