//! Profiles of the SDKs' files, and what they lead to: keys, a command, a role, another profile.

use std::path::{Path, PathBuf};

use super::{
    answer::checked,
    ini::{Kind, Profile, Profiles},
    metadata::{Container, Imds},
    plan::{Plan, Session, WebToken},
    process,
    sts::{self, Sts},
    surroundings::Surroundings,
};
use crate::auth::aws_sigv4::keys::Keys;

/// The two files, and whether a person named them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Files {
    /// `~/.aws/credentials`
    pub(super) credentials: Option<PathBuf>,
    /// `~/.aws/config`
    pub(super) config: Option<PathBuf>,
}

impl Files {
    /// Those that exist.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        [&self.credentials, &self.config].into_iter().filter_map(Option::as_deref)
    }

    /// For messages.
    fn shown(&self) -> String {
        let shown: Vec<_> = self.paths().map(|path| path.display().to_string()).collect();
        if shown.is_empty() { "no file (there is no home directory)".to_owned() } else { shown.join(" or ") }
    }

    /// Reads both. One that does not exist is empty.
    pub(super) async fn read(&self) -> Result<Profiles, String> {
        let mut profiles = Profiles::default();
        for (kind, path) in [(Kind::Config, &self.config), (Kind::Credentials, &self.credentials)] {
            let Some(path) = path else { continue };
            let Some(text) = read(path).await.map_err(|why| format!("{} cannot be read: {why}", path.display()))?
            else {
                continue;
            };
            profiles.add(kind, &text).map_err(|why| format!("{}: {why}", path.display()))?;
        }
        Ok(profiles)
    }
}

/// A small text file; `None` if it does not exist.
async fn read(path: &Path) -> Result<Option<zeroize::Zeroizing<String>>, String> {
    use tokio::io::AsyncReadExt;
    let file = match tokio::fs::File::open(path).await {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let mut text = zeroize::Zeroizing::new(String::new());
    file.take(MAX_FILE + 1).read_to_string(&mut text).await.map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_FILE { Err(format!("it is longer than {MAX_FILE} bytes")) } else { Ok(Some(text)) }
}

const MAX_FILE: u64 = 1 << 20;

/// Follows profiles to a plan.
pub(super) struct Follow<'a> {
    pub(super) profiles: &'a Profiles,
    pub(super) files: &'a Files,
    pub(super) surroundings: &'a Surroundings,
}

impl Follow<'_> {
    /// What the profile leads to; `None` if it says nothing of keys.
    pub(super) fn plan(&self, name: &str) -> Result<Option<Plan>, String> {
        self.step(name, &mut Vec::new())
    }

    /// One profile; `before` are those that led here.
    fn step(&self, name: &str, before: &mut Vec<String>) -> Result<Option<Plan>, String> {
        let profile = self.profiles.get(name).ok_or_else(|| self.unknown(name))?;
        let wrong = |why: String| format!("profile `{name}`: {why}");
        // Keys of a profile that others build on count first: it may be its own source.
        if !before.is_empty()
            && let Some(keys) = keys(profile).map_err(wrong)?
        {
            return Ok(Some(self.fixed(name, keys)));
        }
        if let Some(role_arn) = profile.get("role_arn") {
            let session = self.session(profile, role_arn).map_err(wrong)?;
            if let Some(file) = profile.get("web_identity_token_file") {
                return Ok(Some(Plan::WebIdentity { session, token: WebToken::File(self.surroundings.path(file)) }));
            }
            if profile.get("mfa_serial").is_some() {
                return Err(wrong(
                    "it has an `mfa_serial`, and nobody is here to type a code; use `credential_process`, or keys \
                     without MFA"
                        .to_owned(),
                ));
            }
            let source = Box::new(self.source(name, profile, before)?);
            return Ok(Some(Plan::AssumeRole { session, source }));
        }
        if profile.get("web_identity_token_file").is_some() {
            return Err(wrong("it has a `web_identity_token_file` but no `role_arn`".to_owned()));
        }
        if let Some(keys) = keys(profile).map_err(wrong)? {
            return Ok(Some(self.fixed(name, keys)));
        }
        if let Some(line) = profile.get("credential_process") {
            let argv = process::words(line).map_err(|why| wrong(format!("`credential_process` {why}")))?;
            return Ok(Some(Plan::Process { argv, origin: self.origin(name) }));
        }
        if let Some(key) = profile.any_beginning("sso_").or_else(|| profile.any_beginning("login_session")) {
            return Err(wrong(format!(
                "it logs in by a browser (`{key}`), which this version does not do; add a profile with \
                 `credential_process = aws configure export-credentials --profile {name}`, or write `credentials: \
                 {{process: [aws, configure, export-credentials, --profile, {name}]}}`"
            )));
        }
        Ok(None)
    }

    /// Whose keys ask for the role of a profile.
    fn source(&self, name: &str, profile: &Profile, before: &mut Vec<String>) -> Result<Plan, String> {
        let wrong = |why: String| format!("profile `{name}`: {why}");
        match (profile.get("source_profile"), profile.get("credential_source")) {
            (Some(source), None) => {
                before.push(name.to_owned());
                // Only a profile with keys of its own may come again, and it ends the way.
                let is_round = before.iter().any(|one| one == source);
                let has_keys = self.profiles.get(source).is_some_and(|own| matches!(keys(own), Ok(Some(_))));
                if is_round && !has_keys {
                    return Err(wrong(format!(
                        "`source_profile` leads in a circle: {} -> {source}",
                        before.join(" -> ")
                    )));
                }
                self.step(source, before)?.ok_or_else(|| {
                    wrong(format!("its `source_profile` `{source}` has no keys and nothing that leads to keys"))
                })
            }
            (None, Some("Environment")) => env(self.surroundings).map_err(wrong)?.ok_or_else(|| {
                wrong("`credential_source` is `Environment`, but AWS_ACCESS_KEY_ID is not set".to_owned())
            }),
            (None, Some("Ec2InstanceMetadata")) => Imds::at(self.surroundings).map(Plan::Imds).map_err(wrong),
            (None, Some("EcsContainer")) => {
                let container = Container::of(self.surroundings).map_err(wrong)?;
                container.map(Plan::Container).ok_or_else(|| {
                    wrong(
                        "`credential_source` is `EcsContainer`, but no AWS_CONTAINER_CREDENTIALS_... is set".to_owned(),
                    )
                })
            }
            (None, Some(_)) => Err(wrong(
                "its `credential_source` is none of Environment, Ec2InstanceMetadata and EcsContainer".to_owned(),
            )),
            (Some(_), Some(_)) => {
                Err(wrong("it has a `source_profile` and a `credential_source`; keep one".to_owned()))
            }
            (None, None) => {
                Err(wrong("it has a `role_arn` but no `source_profile` and no `credential_source`".to_owned()))
            }
        }
    }

    fn session(&self, profile: &Profile, role_arn: &str) -> Result<Session, String> {
        let duration = profile
            .get("duration_seconds")
            .map(|text| text.parse().map_err(|_| "is no number".to_owned()).and_then(sts::lifetime));
        let region = self.surroundings.first(&sts::REGION).or_else(|| profile.get("region").map(str::to_owned));
        Ok(Session {
            role_arn: role_arn.to_owned(),
            name: profile.get("role_session_name").unwrap_or(sts::SESSION).to_owned(),
            external_id: profile.get("external_id").map(Into::into).map(|id: String| id.into()),
            duration: duration.transpose().map_err(|why| format!("`duration_seconds` {why}"))?,
            policy: None,
            sts: Sts::of(self.surroundings.var(sts::ENDPOINT).as_deref(), region.as_deref(), false)
                .map_err(|why| format!("{} {why}", sts::ENDPOINT))?,
        })
    }

    fn fixed(&self, name: &str, keys: Keys) -> Plan {
        Plan::Fixed { keys, origin: self.origin(name) }
    }

    fn origin(&self, name: &str) -> String {
        format!("profile `{name}` of {}", self.files.shown())
    }

    fn unknown(&self, name: &str) -> String {
        let known: Vec<_> = self.profiles.names().map(|name| format!("`{name}`")).collect();
        let known = if known.is_empty() { "no profile".to_owned() } else { known.join(", ") };
        format!("there is no profile `{name}` in {}: {known} is there", self.files.shown())
    }
}

/// The keys of a profile. Half of a pair is an error.
fn keys(profile: &Profile) -> Result<Option<Keys>, String> {
    pair(
        [profile.get("aws_access_key_id"), profile.get("aws_secret_access_key"), profile.get("aws_session_token")]
            .map(|value| value.map(str::to_owned)),
        ["`aws_access_key_id`", "`aws_secret_access_key`"],
    )
}

/// The keys of the environment, if they are set.
pub(super) fn env(surroundings: &Surroundings) -> Result<Option<Plan>, String> {
    let [access, secret] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
    let found = [access, secret, "AWS_SESSION_TOKEN"].map(|name| surroundings.var(name));
    let origin = format!("the environment ({access}, {secret})");
    Ok(pair(found, [access, secret])?.map(|keys| Plan::Fixed { keys, origin }))
}

fn pair(found: [Option<String>; 3], names: [&str; 2]) -> Result<Option<Keys>, String> {
    match found {
        [Some(access_key), Some(secret_key), token] => checked(access_key, secret_key, token, None).map(Some),
        [None, None, _] => Ok(None),
        [Some(_), None, _] => Err(format!("{} is set, {} is not", names[0], names[1])),
        [None, Some(_), _] => Err(format!("{} is set, {} is not", names[1], names[0])),
    }
}
