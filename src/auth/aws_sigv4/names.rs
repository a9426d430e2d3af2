//! Service and region from the host name of an AWS endpoint.

use super::table::{GLOBAL_ENDPOINTS, OTHER_NAMES, SIGNING_NAMES, SUFFIXES};

/// What a host name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// Service name for the credential scope.
    pub(super) service: String,
    /// Region for the credential scope, or `*` for all of them.
    pub(super) region: String,
    /// The host name says so; else the region is the usual one of such endpoints.
    pub(super) is_regional: bool,
    /// Only the asymmetric algorithm is understood there.
    pub(super) asymmetric: bool,
    /// The name of an S3 bucket is part of the host name.
    pub(super) names_bucket: bool,
}

impl Endpoint {
    fn new(service: &str, region: Option<&str>, default_region: &str) -> Self {
        Self {
            service: service.to_owned(),
            region: region.unwrap_or(default_region).to_owned(),
            is_regional: region.is_some(),
            asymmetric: false,
            names_bucket: false,
        }
    }

    /// Reads a host name in lower case; `path` tells some services apart. `None` if it is not one of AWS.
    pub(super) fn of(host: &str, path: &str) -> Option<Self> {
        let (labels, default_region) = SUFFIXES
            .iter()
            .filter_map(|(suffix, region)| Some((host.strip_suffix(suffix)?.strip_suffix('.')?, *region)))
            .min_by_key(|(labels, _)| labels.len())?;
        let mut labels: Vec<&str> = labels.split('.').collect();
        if labels.iter().any(|label| label.is_empty()) {
            return None;
        }
        if let [.., "mrap", "accesspoint", "s3-global"] = labels.as_slice() {
            return Some(Self { asymmetric: true, names_bucket: true, ..Self::new("s3", Some("*"), "*") });
        }
        if let Some(region) = find(GLOBAL_ENDPOINTS, host).as_ref() {
            labels.retain(|label| !is_region(label) && !matches!(*label, "us-gov" | "global"));
            return Some(Self::new(
                &signing_name(&labels, path)?,
                Some(*region).filter(|_| host != "s3.amazonaws.com"),
                region,
            ));
        }
        // An endpoint in a private network: `vpce-1a2b.sqs.eu-west-1.vpce`.
        if labels.last() == Some(&"vpce") {
            labels.pop();
        }
        let region = match labels.as_slice() {
            [.., last] if is_region(last) => labels.pop(),
            [.., "global"] => {
                labels.pop();
                None
            }
            // These put the region in front of the service.
            [.., region, last] if is_region(region) && !is_s3_label(last) => {
                let region = *region;
                labels.remove(labels.len() - 2);
                Some(region)
            }
            _ => None,
        };
        labels.retain(|label| *label != "dualstack" && *label != "fips");
        if let Some(endpoint) = s3(&labels, region, default_region) {
            return Some(endpoint);
        }
        // Without a region it has to be the old form `service.amazonaws.com`; more labels say nothing that is known.
        if region.is_none() && labels.len() > 2 {
            return None;
        }
        Some(Self::new(&signing_name(&labels, path)?, region, default_region))
    }
}

/// The service name for these labels: the longest ending that the table has, else the last label.
fn signing_name(labels: &[&str], path: &str) -> Option<String> {
    let plain: Vec<&str> = labels.iter().map(|label| label.strip_suffix("-fips").unwrap_or(label)).collect();
    let last = plain.last()?;
    // The hosts of devices' own endpoints: an account's name, perhaps with the kind of certificate.
    if plain.len() == 2 && *last == "iot" && find(SIGNING_NAMES, &plain.join(".")).is_none() {
        return Some(if path == "/mqtt" { "iotdevicegateway" } else { "iotdata" }.to_owned());
    }
    for from in 0..plain.len() {
        if let Some(name) = find(SIGNING_NAMES, &plain[from..].join(".")) {
            return Some(name.to_owned());
        }
    }
    Some(find(OTHER_NAMES, last).unwrap_or(last).to_owned())
}

/// S3 in all its spellings.
fn s3(labels: &[&str], region: Option<&str>, default_region: &str) -> Option<Endpoint> {
    let label = labels.last().filter(|label| is_s3_label(label))?;
    let label = label.strip_suffix("-fips").unwrap_or(label);
    let service = match label {
        "s3-outposts" | "s3-object-lambda" => label,
        label if label.starts_with("s3express") => "s3express",
        _ => "s3",
    };
    // The old form has a hyphen: `s3-eu-west-1`.
    let hyphened = label.strip_prefix("s3-fips-").or_else(|| label.strip_prefix("s3-")).filter(|rest| is_region(rest));
    let endpoint = Endpoint::new(service, region.or(hyphened), default_region);
    Some(Endpoint { names_bucket: labels.len() > 1, ..endpoint })
}

fn is_s3_label(label: &str) -> bool {
    label == "s3" || label.starts_with("s3-") || label.starts_with("s3express-")
}

/// True for what looks like a region: `us-east-1`, `us-gov-west-1`, `eusc-de-east-1`.
pub(super) fn is_region(label: &str) -> bool {
    let Some((words, number)) = label.rsplit_once('-') else { return false };
    let lower = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
    let mut words = words.split('-');
    let country = words.next().unwrap_or_default();
    (2..=4).contains(&country.len())
        && lower(country)
        && (1..=3).contains(&words.clone().count())
        && words.all(lower)
        && (1..=2).contains(&number.len())
        && number.bytes().all(|byte| byte.is_ascii_digit())
}

fn find(table: &'static [(&str, &'static str)], key: &str) -> Option<&'static str> {
    let at = table.binary_search_by(|(known, _)| (*known).cmp(key)).ok()?;
    Some(table[at].1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn json(file: &str) -> Value {
        serde_json::from_str(&std::fs::read_to_string(format!("tests/vectors/{file}")).unwrap()).unwrap()
    }

    fn of(host: &str) -> (String, String) {
        let endpoint = Endpoint::of(host, "/").unwrap_or_else(|| panic!("{host}"));
        (endpoint.service, endpoint.region)
    }

    #[test]
    fn the_published_hosts() {
        let vectors = json("aws-host-inference.json")["vectors"].as_array().unwrap().clone();
        assert_eq!(vectors.len(), 10);
        for vector in vectors {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let out = &vector["out"];
            assert_eq!(of(&text(&vector["in"]["host"])), (text(&out["service"]), text(&out["region"])));
        }
    }

    #[test]
    fn the_tables_are_those_of_the_metadata_and_sorted() {
        let facts = json("aws-signing-names.json");
        let pairs = |table: &[(&str, &str)]| -> BTreeMap<String, String> {
            assert!(table.is_sorted());
            table.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let known = |key: &str| serde_json::from_value::<BTreeMap<String, String>>(facts[key].clone()).unwrap();
        assert_eq!(pairs(SIGNING_NAMES), known("signing_name"));
        assert_eq!(pairs(GLOBAL_ENDPOINTS), known("global_endpoints"));
        pairs(OTHER_NAMES);
        let suffixes = pairs(SUFFIXES);
        for partition in facts["partitions"].as_object().unwrap().values() {
            assert!(suffixes.contains_key(partition["dns_suffix"].as_str().unwrap()), "{partition}");
            for region in partition["regions"].as_array().unwrap() {
                assert!(is_region(region.as_str().unwrap()), "{region}");
            }
        }
    }

    #[test]
    fn every_global_endpoint_and_every_prefix_of_the_table() {
        for (host, region) in GLOBAL_ENDPOINTS {
            assert_eq!(of(host).1, *region, "{host}");
        }
        for (prefix, name) in SIGNING_NAMES {
            assert_eq!(of(&format!("{prefix}.eu-west-1.amazonaws.com")), ((*name).into(), "eu-west-1".into()));
        }
    }

    #[test]
    fn other_spellings() {
        for (host, service, region) in [
            ("sqs.eu-west-1.amazonaws.com", "sqs", "eu-west-1"),
            ("dynamodb-fips.us-gov-west-1.amazonaws.com", "dynamodb", "us-gov-west-1"),
            ("123456789012.ddb.us-east-1.amazonaws.com", "dynamodb", "us-east-1"),
            ("abc.execute-api.eu-west-1.amazonaws.com", "execute-api", "eu-west-1"),
            ("lambda.us-east-2.api.aws", "lambda", "us-east-2"),
            ("iam.global.api.aws", "iam", "us-east-1"),
            ("runtime-fips.sagemaker.us-east-1.amazonaws.com", "sagemaker", "us-east-1"),
            ("search-x.eu-west-1.es.amazonaws.com", "es", "eu-west-1"),
            ("x-1a.7d67.vpc-lattice-svcs.us-west-2.on.aws", "vpc-lattice-svcs", "us-west-2"),
            ("vpce-1a-2b.sqs.eu-west-1.vpce.amazonaws.com", "sqs", "eu-west-1"),
            ("b.bucket.vpce-1a-2b.s3.eu-west-1.vpce.amazonaws.com", "s3", "eu-west-1"),
            ("s3-eu-west-1.amazonaws.com", "s3", "eu-west-1"),
            ("bkt.s3-ap-south-1.amazonaws.com", "s3", "ap-south-1"),
            ("us-west-2.s3.amazonaws.com", "s3", "us-east-1"),
            ("bkt.s3-accelerate.dualstack.amazonaws.com", "s3", "us-east-1"),
            ("bkt.s3-fips.dualstack.us-east-2.amazonaws.com", "s3", "us-east-2"),
            ("ap-1.s3-accesspoint.eu-west-1.amazonaws.com", "s3", "eu-west-1"),
            ("1.s3-control.eu-west-1.amazonaws.com", "s3", "eu-west-1"),
            ("ap-1.op-1.s3-outposts.eu-west-1.amazonaws.com", "s3-outposts", "eu-west-1"),
            ("o-1.s3-object-lambda.eu-west-1.amazonaws.com", "s3-object-lambda", "eu-west-1"),
            ("b--usw2-az1--x-s3.s3express-usw2-az1.us-west-2.amazonaws.com", "s3express", "us-west-2"),
            ("s3express-control.us-west-2.amazonaws.com", "s3express", "us-west-2"),
            ("sts.eu-central-1.amazonaws.com", "sts", "eu-central-1"),
            ("sqs.amazonaws.com", "sqs", "us-east-1"),
            ("eu-west-1.queue.amazonaws.com", "sqs", "eu-west-1"),
            ("a1b2c3-ats.iot.eu-west-1.amazonaws.com", "iotdata", "eu-west-1"),
            ("abc.appsync-api.eu-west-1.amazonaws.com", "appsync", "eu-west-1"),
            ("iam.us-gov.amazonaws.com", "iam", "us-gov-west-1"),
        ] {
            assert_eq!(of(host), (service.into(), region.into()), "{host}");
        }
        let mqtt = Endpoint::of("a1b2c3-ats.iot.eu-west-1.amazonaws.com", "/mqtt").unwrap();
        assert_eq!(mqtt.service, "iotdevicegateway");
        let everywhere = Endpoint::of("x.mrap.accesspoint.s3-global.amazonaws.com", "/").unwrap();
        assert_eq!((everywhere.region.as_str(), everywhere.asymmetric), ("*", true));
    }

    #[test]
    fn other_hosts_say_nothing() {
        for host in
            ["example.com", "localhost", "amazonaws.com", "evilamazonaws.com", "a.b.c.amazonaws.com", ".amazonaws.com"]
        {
            assert_eq!(Endpoint::of(host, "/"), None, "{host}");
        }
    }

    proptest! {
        #[test]
        fn no_host_makes_it_panic(host in "([a-z0-9-]{0,9}\\.){0,5}(amazonaws\\.com|on\\.aws|api\\.aws|x)") {
            let _ = Endpoint::of(&host, "/");
        }
    }
}
