//! Keys in use: known ones, or ones that are fetched and run out.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    Ask,
    plan::{Plan, WebToken},
    process,
};
use crate::{
    auth::{
        AuthError, BuildContext,
        aws_sigv4::keys::Keys,
        refreshing::{Fetched, Refreshing},
        scheme::Ready,
        vitals::Vitals,
    },
    secret::Secret,
};

/// Keys, and where they came from.
pub(super) struct Issued {
    pub(super) keys: Arc<Keys>,
    pub(super) origin: Arc<str>,
}

impl PartialEq for Issued {
    /// What a service could tell apart.
    fn eq(&self, other: &Self) -> bool {
        self.keys == other.keys
    }
}

/// What a plan has led to. Cheap to clone; clones are the same keys.
#[derive(Clone)]
pub(super) enum Live {
    Fixed(Arc<Issued>),
    Fetched(Refreshing<Arc<Issued>>),
}

impl Live {
    /// Begins to carry out a plan; fetches nothing yet.
    pub(super) fn of(plan: &Plan, credential: &Arc<str>, context: &BuildContext) -> Self {
        if let Plan::Fixed { keys, origin } = plan {
            learn(context, keys);
            return Self::Fixed(Arc::new(Issued { keys: Arc::new(keys.clone()), origin: origin.as_str().into() }));
        }
        let source = match plan {
            Plan::AssumeRole { session, source } => {
                if let Some(id) = &session.external_id {
                    context.sources.learn(id);
                }
                Some(Self::of(source, credential, context))
            }
            _ => None,
        };
        let work =
            Arc::new(Work { plan: plan.clone(), source, credential: credential.clone(), context: context.clone() });
        let wait = plan.patience() + SPARE;
        let keys = Refreshing::new(credential, &context.clock, &context.fetch, true, wait, move |_| {
            let work = work.clone();
            Box::pin(async move { work.fetch().await })
        });
        Self::Fetched(keys.with_margin(MARGIN))
    }

    /// True if the keys can be used at `now`; begins to renew them if that is due.
    pub(super) fn is_ready(&self, now: SystemTime) -> bool {
        match self {
            Self::Fixed(_) => true,
            Self::Fetched(keys) => matches!(keys.ready(now), Ready::Now),
        }
    }

    /// Waits until they can be used.
    pub(super) async fn obtain(&self, now: SystemTime) -> Result<(), AuthError> {
        match self {
            Self::Fixed(_) => Ok(()),
            Self::Fetched(keys) => match keys.ready(now) {
                Ready::Now => Ok(()),
                Ready::After(wait) => wait.await,
            },
        }
    }

    /// The present keys and their generation within this plan.
    pub(super) fn current(&self) -> Option<(Arc<Issued>, u64)> {
        match self {
            Self::Fixed(issued) => Some((issued.clone(), 1)),
            Self::Fetched(keys) => keys.current().as_ref().map(|current| (current.value.clone(), current.stamp)),
        }
    }

    /// How they are doing; `None` for fixed ones.
    pub(super) fn vitals(&self) -> Option<Vitals> {
        match self {
            Self::Fixed(_) => None,
            Self::Fetched(keys) => Some(keys.vitals()),
        }
    }

    /// The keys of a generation were refused. True if others are in place now.
    pub(super) async fn reject(&self, stamp: u64) -> Result<bool, AuthError> {
        match self {
            Self::Fixed(_) => Ok(false),
            Self::Fetched(keys) => keys.reject(stamp).await,
        }
    }
}

/// Fetches keys by a plan.
struct Work {
    plan: Plan,
    /// Of a role: whose keys ask for it.
    source: Option<Live>,
    credential: Arc<str>,
    context: BuildContext,
}

impl Work {
    async fn fetch(&self) -> Result<Fetched<Arc<Issued>>, AuthError> {
        let (keys, more) = self.keys().await.map_err(|error| self.named(error))?;
        learn(&self.context, &keys);
        let end = keys.expires_at;
        let origin = self.plan.origin() + &more;
        Ok(Fetched { value: Arc::new(Issued { keys: Arc::new(keys), origin: origin.into() }), end })
    }

    async fn keys(&self) -> Result<(Keys, String), AuthError> {
        let ask = Ask { credential: &self.credential, context: &self.context };
        let none = String::new();
        match &self.plan {
            Plan::Fixed { keys, .. } => Ok((keys.clone(), none)),
            Plan::Process { argv, .. } => match process::fetch(argv).await {
                Ok(keys) => Ok((keys, none)),
                Err(why) => Err(AuthError::missing(why)),
            },
            Plan::Container(container) => container.fetch(&ask).await.map(|keys| (keys, none)),
            Plan::Imds(imds) => imds.fetch(&ask).await.map(|(keys, role)| (keys, format!(", role `{role}`"))),
            Plan::AssumeRole { session, .. } => {
                let Some(source) = &self.source else { return Err(AuthError::missing("the role has no source")) };
                self.assume(&ask, session, source).await.map(|keys| (keys, none))
            }
            Plan::WebIdentity { session, token } => {
                let token = self.token(token).await?;
                let keys = ask.assume_role_with_web_identity(session, &token).await;
                keys.map(|keys| (keys, none)).map_err(|failure| failure.error)
            }
        }
    }

    /// Asks for a role; once more if the keys that ask are refused and there are others.
    async fn assume(&self, ask: &Ask<'_>, session: &super::plan::Session, source: &Live) -> Result<Keys, AuthError> {
        source.obtain(self.context.clock.now()).await?;
        let not_there = || AuthError::missing("the keys that are to ask for the role are not there");
        let (issued, stamp) = source.current().ok_or_else(not_there)?;
        let failure = match ask.assume_role(session, &issued.keys).await {
            Ok(keys) => return Ok(keys),
            Err(failure) => failure,
        };
        if !failure.refuses_keys || !source.reject(stamp).await? {
            return Err(failure.error);
        }
        let (issued, _) = source.current().ok_or_else(not_there)?;
        ask.assume_role(session, &issued.keys).await.map_err(|failure| failure.error)
    }

    async fn token(&self, token: &WebToken) -> Result<Secret, AuthError> {
        let token = match token {
            WebToken::Text(text) => self.context.sources.read(text).await?,
            WebToken::File(path) => {
                let text = tokio::fs::read_to_string(path).await.map(zeroize::Zeroizing::new).map_err(|error| {
                    AuthError::missing(format!("the web identity token {} cannot be read: {error}", path.display()))
                })?;
                Secret::new(text.trim())
            }
        };
        self.context.sources.learn(&token);
        if token.is_empty() { Err(AuthError::missing("the web identity token is empty")) } else { Ok(token) }
    }

    fn named(&self, error: AuthError) -> AuthError {
        // An error of the source has its name already.
        let prefix = format!("credential `{}`: ", self.credential);
        if error.message.starts_with(&prefix) {
            return error;
        }
        AuthError { message: prefix + &error.message, ..error }
    }
}

fn learn(context: &BuildContext, keys: &Keys) {
    context.sources.learn(&keys.secret_key);
    if let Some(token) = &keys.session_token {
        context.sources.learn(token);
    }
}

/// How long before their end keys are renewed, at most. Services renew those of machines five minutes before.
const MARGIN: Duration = Duration::from_secs(300);
/// On top of the time that a fetch may take by itself.
const SPARE: Duration = Duration::from_secs(5);
