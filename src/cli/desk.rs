//! Where `login`, `logout` and `token` are done: in the running proxy, or here, over the same store.

use http::{Method, StatusCode};
use serde_json::Value;
use tokio::runtime::Runtime;

use super::{Failure, args::Global, look, output, small_runtime, token::args::Reach};
use crate::control::{
    client::{self, ClientError},
    run_file::{self, RunFileError, RunInfo},
    tokens::{Desk, TokenRefusal, TokenRequest},
};

/// Who does it.
pub(super) enum Counter {
    /// The running proxy.
    Proxy(Runtime, Box<RunInfo>),
    /// This command.
    Here(Runtime, Box<Desk>),
}

impl Counter {
    /// The running proxy of the data folder, if there is one for this configuration and environment, and if it is not
    /// for this command to say whom to trust.
    pub(super) fn open(global: &Global, reach: &Reach) -> Result<Self, Failure> {
        if let Some(roots) = &reach.upstream_ca {
            let (runtime, desk) = look::desk(global, Some(roots))?;
            return Ok(Self::Here(runtime, Box::new(desk)));
        }
        match run_file::read(&global.data_dir()?) {
            Ok(info) => {
                let runtime = small_runtime()?;
                match runtime.block_on(client::ask(&info, Method::GET, "/api/status")) {
                    Ok(answer) if answer.status.is_success() && is_meant(global, &answer.json) => {
                        return Ok(Self::Proxy(runtime, Box::new(info)));
                    }
                    // It is gone, or it runs something else: the store is the same.
                    Ok(_) | Err(ClientError::Gone { .. }) => {}
                    Err(error) => return Err(Failure::failed(error.to_string())),
                }
            }
            Err(RunFileError::NotRunning(_)) => {}
            Err(error) => return Err(Failure::failed(error.to_string())),
        }
        let (runtime, desk) = look::desk(global, None)?;
        Ok(Self::Here(runtime, Box::new(desk)))
    }

    /// Asks for something.
    pub(super) fn ask(&self, request: TokenRequest) -> Result<Value, Failure> {
        let refused = |refusal: TokenRefusal| match refusal.login_needed {
            true => Failure::LoginNeeded(refusal.message),
            false => Failure::failed(refusal.message),
        };
        match self {
            Self::Here(runtime, desk) => {
                let whose = request.fetches();
                let done = runtime.block_on(async {
                    let done = desk.handle(request).await;
                    desk.tokens.settle().await;
                    done
                });
                // What only this process knows is gone when it ends.
                match whose.and_then(|(credential, client)| desk.lost(&credential, client.as_deref())) {
                    Some(lost) if done.as_ref().is_ok_and(|done| done.get("token").is_none()) => {
                        Err(Failure::failed(lost))
                    }
                    Some(lost) => {
                        // The token itself is as good as any.
                        output::say(format!("warning: {lost}"));
                        done.map_err(refused)
                    }
                    None => done.map_err(refused),
                }
            }
            Self::Proxy(runtime, info) => {
                let answer = runtime
                    .block_on(client::ask_tokens(info, &request))
                    .map_err(|error| Failure::failed(error.to_string()))?;
                match answer.status {
                    StatusCode::OK => Ok(answer.json),
                    StatusCode::UNPROCESSABLE_ENTITY => {
                        let unreadable = |_| Failure::failed("the proxy gave no reason");
                        Err(refused(serde_json::from_value(answer.json).map_err(unreadable)?))
                    }
                    status => {
                        Err(Failure::failed(format!("the control interface at {} answered {status}", info.console)))
                    }
                }
            }
        }
    }

    /// Environment variables that a browser must not see.
    pub(super) fn secret_variables(&self) -> &[String] {
        match self {
            Self::Proxy(_, info) => &info.secret_variables,
            Self::Here(..) => &[],
        }
    }
}

/// True unless flags name another configuration or environment than the proxy's.
fn is_meant(global: &Global, status: &Value) -> bool {
    let environment = global.environment.as_deref().is_none_or(|wanted| status["environment"].as_str() == Some(wanted));
    let running = status["files"][0].as_str().map(std::path::PathBuf::from);
    let config = global.config.as_ref().is_none_or(|wanted| {
        let same = |path: &std::path::Path| path.canonicalize().ok();
        running.as_deref().and_then(same).is_some_and(|running| Some(running) == same(wanted))
    });
    environment && config
}
