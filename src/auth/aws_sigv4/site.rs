//! What a request is signed for: service and region, from the configuration, the client's own signature and the host
//! name; and what servers have taught us about themselves.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    sync::{Mutex, PoisonError},
};

use http::Uri;

use super::{
    canonical::is_s3,
    config::{Algorithm, AwsSigv4Config},
    dummy::Dummy,
    names::{Endpoint, is_region},
};
use crate::{
    auth::scheme::AuthError,
    target::{Host, Target},
};

/// What a request is signed for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Site {
    /// Service in the credential scope.
    pub(super) service: String,
    /// Region in the credential scope; for the asymmetric algorithm the regions, joined by commas.
    pub(super) region: String,
    /// Sign with the asymmetric algorithm.
    pub(super) asymmetric: bool,
    /// Which bucket of which host it is about, for S3.
    pub(super) bucket: Option<Bucket>,
}

/// A bucket: the target alone if the host name holds its name, else with the first segment of the path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Bucket {
    target: Target,
    name: String,
}

/// The service that a request goes to, as far as can be told.
pub(super) fn service(config: &AwsSigv4Config, host: &str, uri: &Uri, dummy: &Dummy) -> Option<String> {
    let endpoint = Endpoint::of(host, uri.path());
    chosen_service(config, endpoint.as_ref(), believable(dummy, endpoint.as_ref()))
}

fn chosen_service(
    config: &AwsSigv4Config,
    endpoint: Option<&Endpoint>,
    scope: Option<&(String, Option<String>)>,
) -> Option<String> {
    let configured = config.service().map(str::to_owned);
    configured.or_else(|| scope.map(|(service, _)| service.clone())).or_else(|| endpoint.map(|of| of.service.clone()))
}

/// The scope of the client's own signature, unless it cannot be meant: tools that guess it from the host name guess
/// wrongly where a bucket or an API stands in front.
fn believable<'a>(dummy: &'a Dummy, endpoint: Option<&Endpoint>) -> Option<&'a (String, Option<String>)> {
    let odd = |region: &String| endpoint.is_some() && !is_region(region);
    dummy.scope.as_ref().filter(|(_, region)| !region.as_ref().is_some_and(odd))
}

/// The host name to read.
pub(super) fn host_name(target: &Target) -> &str {
    match &target.host {
        Host::Name(name) => name,
        Host::Ip(_) => "",
    }
}

impl Site {
    /// Finds out what a request is signed for. `credential` is named in errors.
    ///
    /// # Errors
    /// Neither the configuration, nor the client, nor the host name says it.
    pub(super) fn of(
        config: &AwsSigv4Config,
        credential: &str,
        target: &Target,
        uri: &Uri,
        dummy: &Dummy,
        learnt: &Learnt,
    ) -> Result<Self, AuthError> {
        let endpoint = Endpoint::of(host_name(target), uri.path());
        let scope = believable(dummy, endpoint.as_ref());
        let unknown = |key: &str| {
            AuthError::missing(format!(
                "credential `{credential}`: the {key} for {target} does not follow from its name, and the request brings \
                 no signature that says it; set `{key}`"
            ))
        };
        let service = chosen_service(config, endpoint.as_ref(), scope).ok_or_else(|| unknown("service"))?;
        let asymmetric = match config.algorithm {
            Some(algorithm) => algorithm == Algorithm::Sigv4a,
            None => {
                dummy.asymmetric || !config.region_set.is_empty() || endpoint.as_ref().is_some_and(|of| of.asymmetric)
            }
        };
        let stated = endpoint.as_ref().filter(|of| of.is_regional).map(|of| of.region.clone());
        let region = config
            .region()
            .map(str::to_owned)
            .or(stated)
            .or_else(|| scope.and_then(|(_, region)| region.clone()))
            .or_else(|| endpoint.as_ref().map(|of| of.region.clone()));
        if asymmetric {
            let set = if config.region_set.is_empty() {
                dummy.region_set.clone().or(region)
            } else {
                Some(config.region_set.join(","))
            };
            let region = set.ok_or_else(|| unknown("region_set"))?;
            return Ok(Self { service, region, asymmetric, bucket: None });
        }
        let bucket = is_s3(&service).then(|| Bucket {
            target: target.clone(),
            name: match &endpoint {
                Some(endpoint) if endpoint.names_bucket => String::new(),
                _ => uri.path().split('/').nth(1).unwrap_or_default().to_owned(),
            },
        });
        let told = bucket.as_ref().and_then(|bucket| learnt.region(bucket));
        let region = told.or(region).ok_or_else(|| unknown("region"))?;
        Ok(Self { service, region, asymmetric, bucket })
    }
}

/// What servers have said. Forgotten when it becomes too much.
#[derive(Debug, Default)]
pub(super) struct Learnt {
    regions: Mutex<HashMap<Bucket, String>>,
    /// Servers that want the marks in a path encoded.
    encoding: Mutex<HashSet<Target>>,
}

impl Learnt {
    fn region(&self, bucket: &Bucket) -> Option<String> {
        self.regions.lock().unwrap_or_else(PoisonError::into_inner).get(bucket).cloned()
    }

    /// A server has named the region of a bucket.
    pub(super) fn set_region(&self, bucket: Bucket, region: &str) {
        let mut regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        if regions.len() >= MAX_LEARNT {
            regions.clear();
        }
        regions.insert(bucket, region.to_owned());
    }

    /// The region that was named led nowhere.
    pub(super) fn forget_region(&self, bucket: &Bucket) {
        self.regions.lock().unwrap_or_else(PoisonError::into_inner).remove(bucket);
    }

    /// True if the marks in a path stay as they are for this server.
    pub(super) fn keeps_marks(&self, target: &Target) -> bool {
        !self.encoding.lock().unwrap_or_else(PoisonError::into_inner).contains(target)
    }

    /// The server would not have it in the present way.
    pub(super) fn flip_marks(&self, target: &Target) {
        let mut encoding = self.encoding.lock().unwrap_or_else(PoisonError::into_inner);
        if encoding.remove(target) {
            return;
        }
        if encoding.len() >= MAX_LEARNT {
            encoding.clear();
        }
        encoding.insert(target.clone());
    }
}

const MAX_LEARNT: usize = 1024;
