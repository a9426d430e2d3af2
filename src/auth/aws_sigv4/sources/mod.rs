//! Where the keys of `aws_sigv4` come from when they are not written down: the sources of the AWS SDKs.
//!
//! A [`SourceConfig`] is looked up into a [`Plan`]: which keys, or whom to ask. The plan is made anew when a file that
//! it was made of has changed, and as long as it comes out the same, the keys it has led to stay in use. Keys that run
//! out are kept by [`Refreshing`]: one fetch at a time, ahead of their end.

mod answer;
mod config;
mod ini;
mod live;
mod metadata;
mod plan;
mod planner;
mod process;
mod profile;
mod sts;
mod surroundings;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwapOption;

pub use self::config::{AssumeRoleConfig, KeysConfig, ProfileConfig, ProfileKeys, SourceConfig, WebIdentityConfig};
use self::{live::Live, plan::Plan, planner::Planner, surroundings::Surroundings};
use super::keys::Keys;
use crate::auth::{AuthError, BuildContext, scheme::Ready, sources::FileState, vitals::Vitals};

/// The keys of one credential, from wherever its source says. Cheap to clone; clones are the same keys.
#[derive(Clone)]
pub struct KeySource(Arc<Inner>);

struct Inner {
    credential: Arc<str>,
    context: BuildContext,
    planner: Planner,
    state: ArcSwapOption<State>,
    planning: tokio::sync::Mutex<()>,
    started: Instant,
}

/// A plan in force.
struct State {
    plan: Plan,
    live: Live,
    /// Counts plans, from 1.
    epoch: u64,
    /// The files that the plan was made of, as they were.
    files: Vec<(PathBuf, Option<FileState>)>,
    /// Milliseconds after the start until which nothing need be looked at again.
    good_until: AtomicU64,
}

/// For whom something is asked, and by which means.
struct Ask<'a> {
    credential: &'a Arc<str>,
    context: &'a BuildContext,
}

impl KeySource {
    /// Prepares a source; looks nothing up yet.
    ///
    /// # Errors
    /// What is wrong with the configuration, all of it.
    pub fn new(config: &SourceConfig, credential: &str, context: &BuildContext) -> Result<Self, Vec<String>> {
        Self::within(config, credential, context, Surroundings::of_this_process())
    }

    fn within(
        config: &SourceConfig,
        credential: &str,
        context: &BuildContext,
        surroundings: Surroundings,
    ) -> Result<Self, Vec<String>> {
        let errors = config.errors();
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self(Arc::new(Inner {
            credential: credential.into(),
            context: context.clone(),
            planner: Planner::new(config.clone(), surroundings, context.sources.clone()),
            state: ArcSwapOption::empty(),
            planning: tokio::sync::Mutex::new(()),
            started: Instant::now(),
        })))
    }

    /// Usable at `now`, or after a look at files or a fetch.
    pub fn ready(&self, now: SystemTime) -> Ready<'_> {
        match self.0.state.load().as_ref() {
            Some(state) if self.0.is_good(state) && state.live.is_ready(now) => Ready::Now,
            _ => Ready::After(Box::pin(async {
                let state = self.0.state(false).await?;
                state.live.obtain(self.0.context.clock.now()).await
            })),
        }
    }

    /// The present keys and their generation. May be past their end.
    pub fn current(&self) -> Option<(Arc<Keys>, u64)> {
        let state = self.0.state.load();
        let state = state.as_ref()?;
        let (issued, stamp) = state.live.current()?;
        Some((issued.keys.clone(), state.epoch << EPOCH | stamp))
    }

    /// The keys of generation `stamp` were refused. True if others are in place now.
    ///
    /// # Errors
    /// The source failed.
    pub async fn renew(&self, stamp: u64) -> Result<bool, AuthError> {
        let state = self.0.state(true).await?;
        if state.epoch == stamp >> EPOCH {
            return state.live.reject(stamp & ((1 << EPOCH) - 1)).await;
        }
        state.live.obtain(self.0.context.clock.now()).await.map(|()| true)
    }

    /// How the keys are doing; `None` if they are fixed.
    pub fn vitals(&self) -> Option<Vitals> {
        match self.0.state.load().as_ref() {
            Some(state) => state.live.vitals(),
            None => Some(Vitals::default()),
        }
    }

    /// Where the present keys came from, for a person. Holds no secret.
    pub fn origin(&self) -> Option<Arc<str>> {
        let state = self.0.state.load();
        state.as_ref()?.live.current().map(|(issued, _)| issued.origin.clone())
    }
}

/// Generations within a plan have the bits below.
const EPOCH: u32 = 40;

impl Inner {
    /// The plan in force, after a look whether it still is. With `again`, what was looked at lately is looked at too.
    async fn state(&self, again: bool) -> Result<Arc<State>, AuthError> {
        let _planning = self.planning.lock().await;
        let old = self.state.load_full();
        if let Some(old) = &old {
            if !again && self.is_good(old) {
                return Ok(old.clone());
            }
            if !self.planner.reads_texts() && same_files(&old.files).await {
                old.good_until.store(self.good_until(), Ordering::Relaxed);
                return Ok(old.clone());
            }
        }
        let files = states(self.planner.files()).await;
        let plan = self.planner.plan().await.map_err(|error| self.named(error))?;
        if let Some(old) = &old
            && old.plan == plan
        {
            let next = State {
                plan,
                live: old.live.clone(),
                epoch: old.epoch,
                files,
                good_until: AtomicU64::new(self.good_until()),
            };
            return Ok(self.put(next));
        }
        let epoch = old.map_or(1, |old| old.epoch + 1);
        let live = Live::of(&plan, &self.credential, &self.context);
        Ok(self.put(State { plan, live, epoch, files, good_until: AtomicU64::new(self.good_until()) }))
    }

    fn put(&self, state: State) -> Arc<State> {
        let state = Arc::new(state);
        self.state.store(Some(state.clone()));
        state
    }

    fn is_good(&self, state: &State) -> bool {
        self.planner.interval().is_none() || self.millis() < state.good_until.load(Ordering::Relaxed)
    }

    fn good_until(&self) -> u64 {
        let interval = self.planner.interval().unwrap_or(Duration::MAX);
        self.millis().saturating_add(u64::try_from(interval.as_millis()).unwrap_or(u64::MAX))
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn named(&self, error: AuthError) -> AuthError {
        AuthError { message: format!("credential `{}`: {}", self.credential, error.message), ..error }
    }
}

async fn states(paths: Vec<PathBuf>) -> Vec<(PathBuf, Option<FileState>)> {
    let mut states = Vec::with_capacity(paths.len());
    for path in paths {
        let state = FileState::of(&path).await;
        states.push((path, state));
    }
    states
}

async fn same_files(files: &[(PathBuf, Option<FileState>)]) -> bool {
    for (path, state) in files {
        if FileState::of(path).await != *state {
            return false;
        }
    }
    true
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySource").field("credential", &self.0.credential).finish_non_exhaustive()
    }
}
