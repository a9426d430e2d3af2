//! From a configured source to a plan: reads the environment, files and references, and asks nobody.

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::{
    answer::checked,
    config::{AssumeRoleConfig, KeysConfig, ProfileKeys, SourceConfig, WebIdentityConfig},
    metadata::{Container, Imds},
    plan::{Plan, Session, WebToken},
    profile::{Files, Follow, env},
    sts::{self, Sts},
    surroundings::Surroundings,
};
use crate::{
    auth::{AuthError, sources::Sources},
    config::{text::Text, units::HumanDuration},
    secret::Secret,
};

/// Makes plans of one configured source.
pub(super) struct Planner {
    config: SourceConfig,
    surroundings: Surroundings,
    sources: Arc<Sources>,
    /// After how long a plan has to be looked at again.
    interval: Option<Duration>,
    reads_texts: bool,
}

impl Planner {
    pub(super) fn new(config: SourceConfig, surroundings: Surroundings, sources: Arc<Sources>) -> Self {
        let texts = config.texts();
        let reads_texts = texts.iter().any(|text| text.references().next().is_some());
        let of_texts = texts.iter().filter_map(|text| sources.interval(text)).min();
        let of_files = reads_profiles(&config).then(|| sources.file_interval());
        let interval = of_texts.into_iter().chain(of_files).min();
        Self { config, surroundings, sources, interval, reads_texts }
    }

    /// After how long a plan has to be looked at again; `None` if it cannot change.
    pub(super) fn interval(&self) -> Option<Duration> {
        self.interval
    }

    /// True if a plan depends on references, not on files alone.
    pub(super) fn reads_texts(&self) -> bool {
        self.reads_texts
    }

    /// The files that a plan is made of.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let mut config = &self.config;
        loop {
            let keys = match config {
                SourceConfig::Profile(profile) => profile.keys(),
                SourceConfig::Chain => ProfileKeys::default(),
                SourceConfig::AssumeRole(role) => {
                    config = &role.source;
                    continue;
                }
                _ => return Vec::new(),
            };
            return self.profile_files(&keys).paths().map(PathBuf::from).collect();
        }
    }

    /// Makes a plan.
    pub(super) async fn plan(&self) -> Result<Plan, AuthError> {
        self.of(&self.config).await
    }

    async fn of(&self, config: &SourceConfig) -> Result<Plan, AuthError> {
        match config {
            SourceConfig::Chain => self.chain().await,
            SourceConfig::Env => env(&self.surroundings).map_err(missing)?.ok_or_else(|| {
                missing("AWS_ACCESS_KEY_ID is not set; start countersign with it and AWS_SECRET_ACCESS_KEY in its environment")
            }),
            SourceConfig::Container => Container::of(&self.surroundings).map_err(missing)?.map(Plan::Container).ok_or_else(|| {
                missing(
                    "neither AWS_CONTAINER_CREDENTIALS_RELATIVE_URI nor AWS_CONTAINER_CREDENTIALS_FULL_URI is set; ECS \
                     and EKS set one for containers with a role",
                )
            }),
            SourceConfig::Imds => Imds::at(&self.surroundings).map(Plan::Imds).map_err(missing),
            SourceConfig::Profile(profile) => {
                let keys = profile.keys();
                let name = match &keys.name {
                    Some(name) => self.open(name).await?,
                    None => self.named_profile().unwrap_or_else(|| DEFAULT.to_owned()),
                };
                self.profile(&keys, &name).await?.ok_or_else(|| {
                    missing(format!("profile `{name}` has no keys and nothing that leads to keys"))
                })
            }
            SourceConfig::Process(argv) => Ok(Plan::Process { argv: argv.clone(), origin: "the configuration".to_owned() }),
            SourceConfig::AssumeRole(role) => {
                let session = self.role_session(role).await?;
                let source = Box::pin(self.of(&role.source)).await?;
                Ok(Plan::AssumeRole { session, source: Box::new(source) })
            }
            SourceConfig::WebIdentity(web) => self.web_identity(web).await,
            SourceConfig::Keys(keys) => self.keys(keys).await,
        }
    }

    /// The first that is set up, in the order of the SDKs.
    async fn chain(&self) -> Result<Plan, AuthError> {
        if let Some(plan) = env(&self.surroundings).map_err(missing)? {
            return Ok(plan);
        }
        if self.surroundings.var(WEB_TOKEN_FILE).is_some() && self.surroundings.var(ROLE_ARN).is_some() {
            return self.web_identity(&WebIdentityConfig::default()).await;
        }
        let named = self.named_profile();
        let files = self.profile_files(&ProfileKeys::default());
        let profiles = files.read().await.map_err(missing)?;
        let name = named.as_deref().unwrap_or(DEFAULT);
        if named.is_some() || profiles.get(name).is_some() {
            let follow = Follow { profiles: &profiles, files: &files, surroundings: &self.surroundings };
            if let Some(plan) = follow.plan(name).map_err(missing)? {
                return Ok(plan);
            }
        }
        if let Some(container) = Container::of(&self.surroundings).map_err(missing)? {
            return Ok(Plan::Container(container));
        }
        Imds::at(&self.surroundings).map(Plan::Imds).map_err(|why| {
            missing(format!(
                "no keys anywhere: AWS_ACCESS_KEY_ID and {WEB_TOKEN_FILE} are not set, profile `{name}` has none, no \
                 container endpoint is set, and {why}"
            ))
        })
    }

    fn named_profile(&self) -> Option<String> {
        self.surroundings.first(&["AWS_PROFILE", "AWS_DEFAULT_PROFILE"])
    }

    fn profile_files(&self, keys: &ProfileKeys) -> Files {
        let pick = |own: &Option<crate::config::read::ConfigPath>, variable: &str, name: &str| match own {
            Some(path) => Some(path.0.clone()),
            None => self.surroundings.aws_file(variable, name),
        };
        Files {
            credentials: pick(&keys.file, "AWS_SHARED_CREDENTIALS_FILE", "credentials"),
            config: pick(&keys.config_file, "AWS_CONFIG_FILE", "config"),
        }
    }

    async fn profile(&self, keys: &ProfileKeys, name: &str) -> Result<Option<Plan>, AuthError> {
        let files = self.profile_files(keys);
        let profiles = files.read().await.map_err(missing)?;
        Follow { profiles: &profiles, files: &files, surroundings: &self.surroundings }.plan(name).map_err(missing)
    }

    async fn role_session(&self, role: &AssumeRoleConfig) -> Result<Session, AuthError> {
        let external_id = match &role.external_id {
            Some(id) => Some(self.sources.read(id).await?),
            None => None,
        };
        Ok(Session {
            role_arn: self.open(&role.role_arn).await?,
            name: self.opt(role.session_name.as_ref()).await?.unwrap_or_else(|| sts::SESSION.to_owned()),
            external_id,
            duration: seconds(role.duration),
            policy: self.opt(role.policy.as_ref()).await?,
            sts: self.sts(role.sts_endpoint.as_ref(), role.region.as_ref(), role.allow_plaintext).await?,
        })
    }

    async fn web_identity(&self, web: &WebIdentityConfig) -> Result<Plan, AuthError> {
        let or_var = |own: Option<String>, name: &str| own.or_else(|| self.surroundings.var(name));
        let role_arn = or_var(self.opt(web.role_arn.as_ref()).await?, ROLE_ARN)
            .ok_or_else(|| missing(format!("`role_arn` is missing, and {ROLE_ARN} is not set")))?;
        let token = match (&web.token, &web.token_file) {
            (Some(text), _) => WebToken::Text(text.clone()),
            (None, Some(path)) => WebToken::File(path.0.clone()),
            (None, None) => {
                let path = self.surroundings.var(WEB_TOKEN_FILE);
                let path = path.ok_or_else(|| {
                    missing(format!("`token_file` and `token` are missing, and {WEB_TOKEN_FILE} is not set"))
                })?;
                WebToken::File(self.surroundings.path(&path))
            }
        };
        let name = or_var(self.opt(web.session_name.as_ref()).await?, "AWS_ROLE_SESSION_NAME");
        let session = Session {
            role_arn,
            name: name.unwrap_or_else(|| sts::SESSION.to_owned()),
            external_id: None,
            duration: seconds(web.duration),
            policy: self.opt(web.policy.as_ref()).await?,
            sts: self.sts(web.sts_endpoint.as_ref(), web.region.as_ref(), web.allow_plaintext).await?,
        };
        Ok(Plan::WebIdentity { session, token })
    }

    async fn sts(&self, url: Option<&Text>, region: Option<&Text>, allow_plaintext: bool) -> Result<Sts, AuthError> {
        let own = self.opt(url).await?;
        let region = self.opt(region).await?.or_else(|| self.surroundings.first(&sts::REGION));
        let (key, url) = match own {
            Some(url) => ("`sts_endpoint`", Some(url)),
            None => (sts::ENDPOINT, self.surroundings.var(sts::ENDPOINT)),
        };
        Sts::of(url.as_deref(), region.as_deref(), allow_plaintext).map_err(|why| missing(format!("{key} {why}")))
    }

    async fn keys(&self, keys: &KeysConfig) -> Result<Plan, AuthError> {
        let access = self.open(&keys.access_key).await?;
        let secret = self.sources.read(&keys.secret_key).await?;
        let token = match &keys.session_token {
            Some(token) => Some(self.sources.read(token).await?),
            None => None,
        };
        let token = token.as_ref().map(|token| token.expose().to_owned());
        let keys = checked(access, secret.expose().to_owned(), token, None).map_err(missing)?;
        Ok(Plan::Fixed { keys, origin: "the configuration".to_owned() })
    }

    async fn open(&self, text: &Text) -> Result<String, AuthError> {
        self.sources.read_open(text).await.map(|text: Secret| text.expose().to_owned())
    }

    async fn opt(&self, text: Option<&Text>) -> Result<Option<String>, AuthError> {
        match text {
            Some(text) => self.open(text).await.map(Some),
            None => Ok(None),
        }
    }
}

fn reads_profiles(config: &SourceConfig) -> bool {
    match config {
        SourceConfig::Chain | SourceConfig::Profile(_) => true,
        SourceConfig::AssumeRole(role) => reads_profiles(&role.source),
        _ => false,
    }
}

fn seconds(duration: Option<HumanDuration>) -> Option<u64> {
    duration.map(|duration| duration.get().as_secs())
}

fn missing(why: impl Into<String>) -> AuthError {
    AuthError::missing(why)
}

const DEFAULT: &str = "default";
const WEB_TOKEN_FILE: &str = "AWS_WEB_IDENTITY_TOKEN_FILE";
const ROLE_ARN: &str = "AWS_ROLE_ARN";
