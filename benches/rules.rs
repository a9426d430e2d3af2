//! Finding the rule of a request: the time must not depend on how many rules there are.

use std::{collections::BTreeMap, hint::black_box, path::Path, sync::Arc};

use countersign::{
    auth::{AuthScheme, SchemeConfig},
    config::{At, Config, Place, RuleConfig, diagnostics::Diagnostic, text::Text},
    rules::{Lookup, NamedAddresses as _, RuleSet, compile::SchemeBuilder},
    secret::Secret,
    target::{Scheme, Target},
};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, Method};

/// The benchmarks have no credentials.
struct NoSchemes;

impl SchemeBuilder for NoSchemes {
    fn build(&self, _: &str, _: &SchemeConfig, place: &Place) -> Result<Arc<dyn AuthScheme>, Vec<Diagnostic>> {
        Err(vec![Diagnostic::error("no schemes here").at(place)])
    }

    fn list(&self, _: Vec<Arc<dyn AuthScheme>>) -> Result<Arc<dyn AuthScheme>, Vec<String>> {
        Err(vec!["no schemes here".to_owned()])
    }

    fn text(&self, _: &Text) -> Result<Secret, String> {
        Err("no references here".to_owned())
    }
}

fn rule(number: u32, host: String) -> RuleConfig {
    let place = Place { file: Path::new("bench.yaml").into(), line: number, column: 1, span: (0, 0) };
    RuleConfig {
        name: format!("r{number}"),
        place: place.clone(),
        host: Some(vec![At { value: host, place }]),
        path: None,
        methods: None,
        when: None,
        auth: None,
        existing: None,
        headers: None,
        tls: None,
        on_unavailable: None,
        record: None,
        origins: None,
        rules: Vec::new(),
    }
}

fn config(count: u32, host: impl Fn(u32) -> String) -> Config {
    let rules = (0..count).map(|number| rule(number, host(number))).collect();
    Config { rules, credentials: BTreeMap::new(), ..Config::default() }
}

fn set(config: &Config) -> RuleSet {
    RuleSet::compile(config, None, &NoSchemes).unwrap_or_default()
}

fn exact(number: u32) -> String {
    format!("host{number}.example.com")
}

fn suffix(number: u32) -> String {
    format!("*.host{number}.example.com")
}

fn find(c: &mut Criterion) {
    let mut group = c.benchmark_group("find");
    let headers = HeaderMap::new();
    let cases = [
        ("exact", 10, exact as fn(u32) -> String, "host7.example.com"),
        ("exact", 10_000, exact, "host7777.example.com"),
        ("suffix", 10, suffix, "api.host7.example.com"),
        ("suffix", 10_000, suffix, "api.host7777.example.com"),
        ("miss", 10_000, exact, "www.elsewhere.example"),
    ];
    for (name, count, host, authority) in cases {
        let set = set(&config(count, host));
        let Ok(target) = Target::from_authority(Scheme::Https, authority) else { continue };
        let lookup = Lookup {
            target: &target,
            method: &Method::GET,
            path_and_query: "/v1/orders/17?expand=lines",
            headers: &headers,
            client: None,
        };
        assert_eq!(set.find(&lookup).is_some(), name != "miss");
        group.bench_function(BenchmarkId::new(name, count), |b| b.iter(|| set.find(black_box(&lookup)).is_some()));
        if name == "exact" {
            group.bench_function(BenchmarkId::new("names_host", count), |b| {
                b.iter(|| set.names_host(black_box(&target.host), 443));
            });
        }
    }
    group.finish();
}

fn compile(c: &mut Criterion) {
    let mut group = c.benchmark_group("compile");
    group.sample_size(10);
    let config = config(10_000, exact);
    group.bench_function("10000 exact hosts", |b| b.iter(|| set(black_box(&config)).rules_count()));
    group.finish();
}

criterion_group!(benches, find, compile);
criterion_main!(benches);
